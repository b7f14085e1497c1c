//! Checks: after rows were put back, that no foreign key is broken and that nothing else was done.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Transaction;

use super::Part;
use crate::{UndoError, table::Table};

const FOREIGN_KEYS: &str = "
SELECT k.conname::pg_catalog.text, k.conrelid, k.confrelid,
 (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = k.conrelid),
 (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = k.confrelid),
 (SELECT pg_catalog.array_agg(pg_catalog.quote_ident(a.attname) ORDER BY u.place) FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY u(attnum, place)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum),
 (SELECT pg_catalog.array_agg(pg_catalog.quote_ident(a.attname) ORDER BY u.place) FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY u(attnum, place)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum),
 (SELECT pg_catalog.array_agg(pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname) ORDER BY u.place) FROM pg_catalog.unnest(k.conpfeqop) WITH ORDINALITY u(op, place)
  JOIN pg_catalog.pg_operator o ON o.oid = u.op JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace),
 (SELECT pg_catalog.array_agg(pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname) ORDER BY u.place) FROM pg_catalog.unnest(k.conppeqop) WITH ORDINALITY u(op, place)
  JOIN pg_catalog.pg_operator o ON o.oid = u.op JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace)
FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0 AND (k.conrelid = $1 OR k.confrelid = $1)";

/// A foreign key. The lists are of one length: a column of each side, quoted, and the operators that compare them.
pub(super) struct ForeignKey {
    constraint: String,
    child: String,
    child_oid: u32,
    parent: String,
    parent_oid: u32,
    own: Vec<String>,
    theirs: Vec<String>,
    parent_child: Vec<String>,
    parent_parent: Vec<String>,
}

impl ForeignKey {
    /// Those of the table and those that refer to it.
    async fn around(work: &Transaction<'_>, table: &Table) -> Result<Vec<Self>, UndoError> {
        let rows = work.query(FOREIGN_KEYS, &[&table.oid]).await?;
        let read = |row: &tokio_postgres::Row| Self {
            constraint: row.get(0),
            child_oid: row.get(1),
            parent_oid: row.get(2),
            child: row.get(3),
            parent: row.get(4),
            own: row.get(5),
            theirs: row.get(6),
            parent_child: row.get(7),
            parent_parent: row.get(8),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// Whether rows that are put into `parts[place]` can be checked as they go in: what they refer to is there by then.
    fn is_settled_before(&self, parts: &[Part], place: usize) -> bool {
        self.child_oid == parts[place].table.oid && !parts[place..].iter().any(|part| part.table.oid == self.parent_oid)
    }

    fn same(&self, left: &str, operators: &[String], right: &str, columns: &[String]) -> String {
        let columns = self.theirs.iter().zip(operators).zip(columns);
        columns.map(|((column, operator), other)| format!("{left}.{column} {operator} {right}.{other}")).collect::<Vec<_>>().join(" AND ")
    }

    /// A query for how many of `rows`, which have the columns of the child, refer to nothing. Whoever is referred to is locked as the
    /// server's own check locks it: nobody takes it away meanwhile.
    pub(super) fn orphans(&self, rows: &str) -> String {
        let refers: Vec<String> = self.own.iter().map(|column| format!("p.{column} IS NOT NULL")).collect();
        let (meets, met) = (self.same("r", &self.parent_child, "p", &self.own), self.same("l", &self.parent_child, "p", &self.own));
        format!(
            "WITH locked AS MATERIALIZED (SELECT {theirs} FROM {parent} r WHERE EXISTS (SELECT FROM {rows} p WHERE {meets}) FOR KEY SHARE OF r) \
             SELECT pg_catalog.count(*) FROM {rows} p WHERE {refers} AND NOT EXISTS (SELECT FROM locked l WHERE {met})",
            theirs = self.theirs.iter().map(|column| format!("r.{column}")).collect::<Vec<_>>().join(", "),
            parent = self.parent,
            refers = refers.join(" AND ")
        )
    }

    /// That so many rows refer to nothing.
    pub(super) fn broken(&self, rows: i64) -> Result<(), UndoError> {
        if rows == 0 {
            return Ok(());
        }
        Err(UndoError::ForeignKey { table: self.child.clone(), constraint: self.constraint.clone(), rows })
    }
}

/// The columns, each once, that rows refer to others with.
pub(super) fn referring(keys: &[ForeignKey]) -> Vec<&str> {
    let columns: BTreeSet<&str> = keys.iter().flat_map(|key| key.own.iter().map(String::as_str)).collect();
    columns.into_iter().collect()
}

/// Finds the foreign keys that can be checked while rows go in, where all that is to be done to a table is to put rows in: reading
/// them once more takes a fifth of the time.
pub(super) async fn plan_foreign_keys(work: &Transaction<'_>, parts: &mut [Part]) -> Result<(), UndoError> {
    for place in 0..parts.len() {
        if parts[place].only_deleted.is_none() || parts[place].table.has_rules {
            continue;
        }
        let around = ForeignKey::around(work, &parts[place].table).await?;
        let settled = around.into_iter().filter(|key| key.is_settled_before(parts, place)).collect();
        parts[place].checked_on_the_way = settled;
    }
    Ok(())
}

/// With foreign keys left out, what was put back may refer to rows that are gone, and what was taken out may be referred to.
pub(super) async fn check_foreign_keys(work: &Transaction<'_>, part: &Part) -> Result<(), UndoError> {
    let Part { table, pairs, only_deleted, checked_on_the_way } = part;
    for key in ForeignKey::around(work, table).await? {
        let was_checked = checked_on_the_way.iter().any(|checked| checked.constraint == key.constraint);
        if key.child_oid == table.oid && !was_checked {
            let columns: Vec<String> = key.own.iter().map(|column| format!("(p.before).{column}")).collect();
            let rows = format!("(SELECT {} FROM {pairs} p WHERE p.had)", columns.join(", "));
            key.broken(work.query_one(&key.orphans(&rows), &[]).await?.get(0))?;
        }
        if key.parent_oid == table.oid && only_deleted.is_none() {
            let referred = key.same("(p.after)", &key.parent_child, "c", &key.own);
            let still_there = key.same("r", &key.parent_parent, "(p.after)", &key.theirs);
            let question = format!(
                "SELECT pg_catalog.count(*) FROM {pairs} p WHERE p.has AND EXISTS (SELECT FROM {} c WHERE {referred}) \
                      AND NOT EXISTS (SELECT FROM {} r WHERE {still_there})",
                key.child, key.parent
            );
            key.broken(work.query_one(&question, &[]).await?.get(0))?;
        }
    }
    Ok(())
}

/// The journal has written down what the undo did: exactly the reverse of the pairs, and nothing else.
pub(super) async fn check_what_was_done(work: &Transaction<'_>, parts: &[Part], from: i64) -> Result<(), UndoError> {
    let written = work
        .query(
            "SELECT COALESCE(pg_catalog.pg_partition_root(g.relation)::pg_catalog.oid, g.relation), pg_catalog.sum(g.gone)::pg_catalog.int8, \
              pg_catalog.sum(g.come)::pg_catalog.int8, pg_catalog.sum(g.old)::pg_catalog.text, pg_catalog.sum(g.new)::pg_catalog.text \
             FROM (SELECT j.relation, pg_catalog.count(j.old) AS gone, pg_catalog.count(j.new) AS come, \
               COALESCE(pg_catalog.sum(pg_catalog.hashtextextended(j.old, 0)), 0) AS old, \
               COALESCE(pg_catalog.sum(pg_catalog.hashtextextended(j.new, 0)), 0) AS new \
              FROM reprieve.journal j WHERE j.xid = pg_catalog.pg_current_xact_id_if_assigned() AND j.statement > $1 GROUP BY 1) g GROUP BY 1",
            &[&from],
        )
        .await?;
    let read = |row: &tokio_postgres::Row, from: usize| -> (i64, i64, String, String) {
        (row.get(from), row.get(from + 1), row.get(from + 2), row.get(from + 3))
    };
    let mut written: BTreeMap<u32, _> = written.iter().map(|row| (row.get::<_, u32>(0), read(row, 1))).collect();
    let nothing = (0, 0, "0".to_owned(), "0".to_owned());
    for Part { table, pairs, .. } in parts {
        let planned = format!(
            "SELECT pg_catalog.count(*) FILTER (WHERE p.has), pg_catalog.count(*) FILTER (WHERE p.had), \
              COALESCE(pg_catalog.sum(p.new_hash) FILTER (WHERE p.has), 0)::pg_catalog.text, \
              COALESCE(pg_catalog.sum(p.old_hash) FILTER (WHERE p.had), 0)::pg_catalog.text FROM {pairs} p"
        );
        let planned = read(&work.query_one(&planned, &[]).await?, 0);
        let done = written.remove(&table.oid).unwrap_or_else(|| nothing.clone());
        if planned != done {
            let what = format!(
                "{} rows were to go and {} to come; {} went and {} came, or they are not the same",
                planned.0, planned.1, done.0, done.1
            );
            return Err(UndoError::Surprise { table: table.shown.clone(), what });
        }
    }
    match written.pop_first() {
        None => Ok(()),
        Some((oid, (gone, come, ..))) => {
            let table = Table::look(work, oid).await?.map_or_else(|| format!("oid {oid}"), |table| table.shown);
            Err(UndoError::Surprise { table, what: format!("{gone} rows went and {come} came in a table that was not to be touched") })
        }
    }
}
