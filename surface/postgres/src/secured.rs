//! What of a change of definitions can be taken back: what they were is kept, and relations that go were set aside or written down whole.

use std::collections::HashSet;

use reprieve_operation::{Effect, ObjectName, Reach, Refusal, Rewrite};

use crate::{
    guard::CatalogCounts,
    known::says_all,
    run::{Result, unmeasured},
    session::Ends,
    strict::Images,
    system::{System, View},
};

/// Catalogs whose rows belong to the whole server, or to what lies outside of it: no snapshot of one database's definitions has them.
const ELSEWHERE: [&str; 11] = [
    "pg_authid",
    "pg_auth_members",
    "pg_db_role_setting",
    "pg_parameter_acl",
    "pg_database",
    "pg_tablespace",
    "pg_subscription",
    "pg_largeobject_metadata",
    "pg_shdescription",
    "pg_shseclabel",
    "pg_replication_origin",
];

/// The way back of definitions for what runs now.
#[derive(Debug, Default)]
pub(crate) struct Secured {
    /// What the definitions were before is kept.
    pub(crate) definitions: bool,
    /// Relations that were set aside or written down whole in the open transaction.
    pub(crate) whole: HashSet<String>,
    /// Relations that were found empty in the open transaction, and are locked since: another form takes nothing from them.
    pub(crate) empty: HashSet<String>,
    /// Something ran whose text doesn't say all that it does.
    pub(crate) unread: bool,
    /// What texts say is defined, or defined anew.
    pub(crate) defined: HashSet<ObjectName>,
    /// Tables that were set aside, and what stands in for them until it is dropped.
    pub(crate) aside: Vec<u32>,
    pub(crate) doubles: Vec<u32>,
    /// What setting them aside changed in catalogs: nobody asked the agent's token for that.
    pub(crate) ours: CatalogCounts,
    /// What the open transaction of a strict system replaced, until it is in the vault.
    pub(crate) images: Option<Images>,
    /// This is a trial: what has at most so many rows will be written down when it runs for good.
    pub(crate) on_trial: Option<u64>,
}

impl Secured {
    /// Takes note of what runs next.
    pub(crate) fn note(&mut self, effects: &[Effect]) {
        self.unread |= !effects.iter().all(says_all);
        self.defined.extend(effects.iter().filter_map(|effect| match effect {
            Effect::Define { name, .. } => Some(name.clone()),
            _ => None,
        }));
    }

    /// Whether a table may have become a partition, or another one's heir, that there was before: its indexes stay attached for good. A
    /// table that is made as a partition goes as one.
    fn may_have_attached(&self, view: &View, reach: &Reach) -> bool {
        let is_known = |name: &ObjectName| !view.catalog.find_tables(name).is_empty();
        reach.catalogs.get("pg_inherits").is_some_and(|rows| *rows > 0) && (self.unread || self.defined.iter().any(is_known))
    }

    /// Secures what the definitions are, before a statement runs that may change them.
    pub(crate) async fn definitions(&mut self, system: &System) {
        if !self.definitions {
            self.definitions = system.definitions_ready().await;
        }
    }

    /// The tables that can be set aside before something approved drops them: number and name. None if the text does anything
    /// besides: it would meet the doubles.
    pub(crate) fn to_set_aside(&self, view: &View, effects: &[Effect], approved: &Reach) -> Vec<(u32, String)> {
        let is_plain =
            |effect: &Effect| matches!(effect, Effect::Drop { object, .. } if ["table", "schema", "view"].contains(&object.0.as_str()));
        if !self.definitions || !effects.iter().all(is_plain) {
            return Vec::new();
        }
        let is_dropped = |full: &str| {
            effects.iter().any(|effect| match effect {
                Effect::Drop { object, name, .. } if object.0 == "table" => {
                    // A name that could mean several says too little.
                    matches!(view.catalog.find_tables(name).as_slice(), [table] if table.name.to_string() == full)
                }
                Effect::Drop { object, name, .. } if object.0 == "schema" => {
                    full.strip_prefix(&name.name).is_some_and(|rest| rest.starts_with('.'))
                }
                _ => false,
            })
        };
        let names = approved.dropped.iter().filter(|name| !self.whole.contains(*name) && is_dropped(name));
        names.filter_map(|name| Some((view.snapshot.table(name)?, name.clone()))).collect()
    }

    /// After a savepoint was gone back to nothing is known to be kept.
    pub(crate) fn forget(&mut self) {
        self.whole.clear();
        self.empty.clear();
        self.aside.clear();
        self.doubles.clear();
        self.ours.clear();
    }

    /// A question whether what was set aside still is, and no double is left.
    pub(crate) fn aside_question(&self) -> Option<String> {
        let listed = |oids: &[u32]| oids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        (!self.aside.is_empty()).then(|| {
            format!(
                "SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
                 WHERE c.oid OPERATOR(pg_catalog.=) ANY ('{{{}}}'::pg_catalog.oid[]) AND n.nspname OPERATOR(pg_catalog.~) '^reprieve_aside_[0-9]+$') OPERATOR(pg_catalog.=) {}::pg_catalog.int8 \
                 AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) ANY ('{{{}}}'::pg_catalog.oid[]))",
                listed(&self.aside),
                self.aside.len(),
                listed(&self.doubles)
            )
        })
    }

    /// The relations that have to be written down before something approved drops or rewrites them: name and statement.
    pub(crate) fn to_keep(&self, system: &System, view: &View, effects: &[Effect], approved: &Reach) -> Vec<(String, String)> {
        if !self.definitions {
            return Vec::new();
        }
        // What a TRUNCATE empties is written down by its own trigger.
        let only_empties = effects.iter().all(|effect| !matches!(effect, Effect::Rewrite { how, .. } if *how != Rewrite::Truncate));
        let rewritten = approved.rewritten.iter().filter(|_| !only_empties);
        let names = approved.dropped.iter().chain(rewritten).filter(|name| !self.whole.contains(*name));
        let keep = |name: &String| Some((name.clone(), system.keep_whole(view.snapshot.keepable(name, system.measure_limit)?)?));
        names.filter_map(keep).collect()
    }

    /// Adds to an estimate what will stay of it, as far as that is known before it runs.
    pub(crate) fn foretell(&self, system: &System, view: &View, effects: &[Effect], reach: &mut Reach) {
        let moves_columns = effects.iter().any(|effect| matches!(effect, Effect::Rewrite { how, .. } if *how != Rewrite::Truncate));
        view.snapshot.add_lasting_definitions(reach, moves_columns);
        self.settle(view, reach);
        let goes = |name: &String| reach.dropped.contains(name) || reach.rewritten.contains(name);
        let rows = reach.tables.keys().filter(|name| !goes(name)).filter_map(|name| view.snapshot.stays(view.snapshot.table(name)?, name));
        let rows: Vec<String> = rows.collect();
        reach.lasting.extend(rows);
        let (tables, names): (Vec<u32>, Vec<String>) = self.to_set_aside(view, effects, reach).into_iter().unzip();
        if system.set_aside(&tables).is_some() {
            reach.lasting.retain(|reason| !names.iter().any(|name| *reason == format!("`{name}` is dropped")));
        }
    }

    /// Takes off a reach what can be taken back after all, and adds what can't because nothing is kept.
    pub(crate) fn settle(&self, view: &View, reach: &mut Reach) {
        let elsewhere = ELSEWHERE.iter().any(|catalog| reach.catalogs.get(*catalog).is_some_and(|rows| *rows > 0));
        if self.definitions && !elsewhere {
            let (dropped, rewritten) = (&reach.dropped, &reach.rewritten);
            let will_be_kept = |name: &String| self.on_trial.is_some_and(|limit| view.snapshot.keepable(name, limit).is_some());
            let is_kept = |name: &String| self.whole.contains(name) || will_be_kept(name);
            let is_back = |name: &String| is_kept(name) || !view.snapshot.holds_rows(name);
            let back: Vec<String> = dropped
                .iter()
                .filter(|name| is_back(name))
                .map(|name| format!("`{name}` is dropped"))
                .chain(rewritten.iter().filter(|name| is_kept(name)).map(|name| format!("`{name}` is rewritten")))
                .collect();
            reach.lasting.retain(|reason| !back.contains(reason) && reason != CODE);
            let (nothing_lost, rewritten) = std::mem::take(&mut reach.rewritten).into_iter().partition(|name| self.empty.contains(name));
            reach.rewritten = rewritten;
            if self.may_have_attached(view, reach) && !reach.lasting.iter().any(|known| known == ATTACHED) {
                reach.lasting.push(ATTACHED.to_owned());
            }
            if !self.unread && !view.snapshot.user_code {
                // Each was written anew under another name, whose two types are gone again. What else drops types would be in a text.
                let types = format!("{} rows of pg_type", 2 * Vec::<String>::len(&nothing_lost));
                reach.dropped.retain(|dropped| *dropped != types);
            }
        } else if reach.catalogs.iter().any(|(catalog, rows)| *rows > 0 && catalog != "pg_class" && catalog != "pg_statistic") {
            let reason =
                if elsewhere { "roles, settings or other parts of the server are changed" } else { "changes of definitions are not kept" };
            if !reach.lasting.iter().any(|known| known == reason) {
                reach.lasting.push(reason.to_owned());
            }
        }
    }
}

const ATTACHED: &str = "a table is attached to another";

/// What a reach says when rights, rules or code change.
pub(crate) const CODE: &str = "privileges, rules or code are changed";

impl Ends {
    /// Sets aside or writes down what something approved will drop or rewrite, in the transaction in which it does.
    pub(crate) async fn keep_what_goes(&mut self, effects: &[Effect], approved: &Reach) -> Result<()> {
        let view = self.system.measured_by().await?;
        self.set_aside(&view, effects, approved).await?;
        for (name, statement) in self.secured.to_keep(&self.system, &view, effects, approved) {
            let kept = self.ask_within(&statement).await?;
            if let Some(error) = kept.error {
                let why = error.message().unwrap_or_default().to_owned();
                return Err(Refusal::unavailable("keeping", format!("`{name}` could not be written down before it goes: {why}")));
            }
            self.secured.whole.insert(name);
        }
        Ok(())
    }

    /// Sets the tables aside that a text does nothing but drop, where that goes unnoticed.
    async fn set_aside(&mut self, view: &View, effects: &[Effect], approved: &Reach) -> Result<()> {
        let (tables, names): (Vec<u32>, Vec<String>) = self.secured.to_set_aside(view, effects, approved).into_iter().unzip();
        let Some(statement) = self.system.set_aside(&tables).filter(|_| !tables.is_empty()) else { return Ok(()) };
        // The counters are compared, because the transaction may have done something before.
        let before = self.catalog_counts(view).await?;
        let answer = self.ask_within(&statement).await?;
        if let Some(error) = answer.error {
            let why = error.message().unwrap_or_default().to_owned();
            let (names, system) = (names.join("`, `"), &self.system.name);
            let hint = format!("if Reprieve is newer than what it installed there, run `reprieve protect {system} --apply` again");
            return Err(Refusal::unavailable("keeping", format!("`{names}` could not be set aside before it goes: {why}; {hint}")));
        }
        let said = answer.rows.first().and_then(|row| row.first().cloned().flatten()).unwrap_or_default();
        let doubles = said.strip_prefix('{').and_then(|list| list.strip_suffix('}'));
        match doubles.map(|list| list.split(',').map(str::parse).collect::<std::result::Result<Vec<u32>, _>>()) {
            Some(Ok(doubles)) => {
                for (catalog, after) in self.catalog_counts(view).await? {
                    let ours = self.secured.ours.entry(catalog).or_default();
                    *ours = ours.plus(after.minus(before.get(&catalog).copied().unwrap_or_default()));
                }
                self.secured.doubles.extend(doubles);
                self.secured.aside.extend(tables);
                self.secured.whole.extend(names);
            }
            _ => tracing::debug!(tables = names.join(", "), because = said, "written down rather than set aside"),
        }
        Ok(())
    }
    async fn catalog_counts(&mut self, view: &View) -> Result<CatalogCounts> {
        let counted = self.ask_within(&view.snapshot.measurement()).await?;
        view.snapshot.catalog_counts(&counted).ok_or_else(unmeasured)
    }
}
