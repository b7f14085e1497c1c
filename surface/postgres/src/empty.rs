//! Tables without rows: another type of a column takes nothing from them, so that nobody has to be asked.
//!
//! Whether a table is empty is looked at twice: before the decision on a text, and again inside the transaction in which it runs, by the
//! function that writes whole tables down, which locks the table and answers how many rows there were.

use reprieve_operation::{Effect, ObjectKind, Operation, Refusal, Rewrite};

use crate::{session::Ends, wire::Gone};

impl Ends {
    /// An operation that changes the types of columns of tables that hold nothing defines something, and takes nothing away. Whether they
    /// are empty is looked at again where nobody can put rows into them, before it runs.
    pub(crate) async fn see_empty(&mut self, operation: Operation) -> Result<Operation, Gone> {
        self.seem_empty.clear();
        let changes_type = |effect: &Effect| matches!(effect, Effect::Rewrite { how: Rewrite::ChangeType, .. });
        let rewrites = |effect: &Effect| matches!(effect, Effect::Rewrite { .. } | Effect::Drop { .. });
        let all = operation.effects.iter().all(|effect| !rewrites(effect) || changes_type(effect));
        if !all || !operation.effects.iter().any(changes_type) || self.wire.status == b'E' {
            return Ok(operation);
        }
        let Some(view) = self.system.fresh_view().await else { return Ok(operation) };
        for effect in operation.effects.iter() {
            let Effect::Rewrite { table, .. } = effect else { continue };
            let found = view.catalog.find_tables(table);
            let [found] = found.as_slice() else { return Ok(operation) };
            let name = found.name.to_string();
            if found.kind != 'r' || view.snapshot.keepable(&name, u64::MAX).is_none() {
                return Ok(operation);
            }
            self.seem_empty.push((found.oid, name));
        }
        if !self.look_whether_empty().await? {
            self.seem_empty.clear();
            return Ok(operation);
        }
        let defined = |effect: &Effect| match effect {
            Effect::Rewrite { table, how: Rewrite::ChangeType, .. } => {
                Effect::Define { object: ObjectKind("table".to_owned()), name: table.clone() }
            }
            other => other.clone(),
        };
        Ok(Operation { effects: operation.effects.iter().map(defined).collect(), ..operation })
    }

    /// Whether the tables that seem so have nothing in them, and may be locked by whoever runs this.
    pub(crate) async fn look_whether_empty(&mut self) -> Result<bool, Gone> {
        let listed = self.seem_empty.iter().map(|(oid, _)| oid.to_string()).collect::<Vec<_>>().join(",");
        let question = format!(
            "SELECT pg_catalog.bool_and(pg_catalog.pg_relation_size(o.oid) OPERATOR(pg_catalog.=) 0::pg_catalog.int8 AND pg_catalog.has_table_privilege(o.oid, 'DELETE') \
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhparent OPERATOR(pg_catalog.=) o.oid)) FROM pg_catalog.unnest('{{{listed}}}'::pg_catalog.oid[]) o(oid)"
        );
        let hidden = std::mem::replace(&mut self.wire.hide_ready, true);
        let answer = self.ask_within(&question).await;
        self.wire.hide_ready = hidden;
        // What could not be asked is not known to be empty; in the client's transaction the error stays.
        let Ok(answer) = answer else { return if self.wire.server.ended { Err(Gone::Server) } else { Ok(false) } };
        Ok(answer.rows.first().and_then(|row| row.first().cloned().flatten()).as_deref() == Some("t"))
    }

    /// Writes the tables down that seem empty, which nobody can fill from then on: those are empty of which there is nothing to write.
    pub(crate) async fn keep_empty(&mut self) -> Result<(), Refusal> {
        for (oid, name) in self.seem_empty.clone() {
            let Some(statement) = self.system.keep_whole(oid) else { continue };
            let kept = self.ask_within(&statement).await?;
            if let Some(error) = kept.error {
                let why = error.message().unwrap_or_default().to_owned();
                return Err(Refusal::unavailable("keeping", format!("`{name}` could not be looked at before it changes: {why}")));
            }
            let rows = kept.rows.first().and_then(|row| row.first().cloned().flatten());
            if rows.as_deref() == Some("0") {
                self.secured.empty.insert(name.clone());
            }
            self.secured.whole.insert(name);
        }
        Ok(())
    }
}
