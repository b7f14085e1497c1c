//! Putting rows back: from the journal's images and the present state, in one transaction.
//!
//! For each table the images are read into a temporary table of pairs, before and after. What is still as the change left it is
//! taken back; where somebody changed a row since, that is a conflict, and nothing is overwritten unless the operator says so. Then
//! the journal itself, which has written down what the undo did, is compared with what was to be done: any other effect (a cascade,
//! a trigger) rolls everything back. Rows go their way in
//! `rows/put_back.rs`, conflicts are in `rows/conflict.rs`, the checks in `rows/check.rs`.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use futures_util::SinkExt as _;
use reprieve_gate::{RowName, UndoChoice as Choice};
use serde::{Deserialize, Serialize};
use tokio_postgres::{Transaction, error::SqlState};

use crate::{
    UndoError,
    chain::{Edge, net},
    journal::BACKENDS,
    table::Table,
};

mod check;
mod conflict;
mod keep;
mod positions;
mod put_back;
mod triggers;

use check::{ForeignKey, check_foreign_keys, check_what_was_done, plan_foreign_keys};
pub use conflict::{Conflict, ConflictKind};
use keep::leave_out_what_is_kept;
pub(crate) use positions::put_positions_back;
use put_back::put_back;
use triggers::{disable_triggers, enable_triggers, leave_triggers_out};

/// Rows that are linked into chains in memory; more than this is refused where rows were changed more than once.
const MOST_CHAINED: u64 = 5_000_000;

/// What was, or would be, done to one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReport {
    /// Deleted rows that are put in again.
    pub restored: u64,
    /// Changed rows that are changed back.
    pub reverted: u64,
    /// Added rows that are taken out.
    pub removed: u64,
    /// Rows that already are as they were.
    pub already: u64,
    /// Rows that stay as they are because an operator named them.
    #[serde(default)]
    pub kept: u64,
}

/// What an undo did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// By `schema.table`.
    pub tables: BTreeMap<String, TableReport>,
    /// The first of the rows that were changed since.
    pub conflicts: Vec<Conflict>,
    /// All of them.
    pub conflicts_found: u64,
    /// Statements about definitions that were run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub definitions: Vec<String>,
    /// The undo's own transaction, by which it can be undone.
    pub xid: Option<u64>,
}

/// A transaction to be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Its id.
    pub xid: u64,
    /// Rows that it was measured to change; `None`: that is not known.
    pub rows: Option<u64>,
    /// Whether it emptied tables, whose rows are in the journal and are not in that number.
    pub emptied: bool,
}

impl Taken {
    /// A transaction of which only the id is known.
    #[must_use]
    pub fn unmeasured(xid: u64) -> Self {
        Self { xid, rows: None, emptied: false }
    }
}

/// One table's part of the work.
struct Part {
    table: Table,
    /// Where the pairs are: n, had (was there a row before), has (is there one after), before, after, and the hashes of both as texts.
    pairs: String,
    /// Rows that were only deleted need no table of pairs, unless something is in the way: how many, and what makes the table.
    only_deleted: Option<(u64, String)>,
    /// Foreign keys of this table that are checked while its rows are put in.
    checked_on_the_way: Vec<ForeignKey>,
}

/// Settings under which images are read and written in one way, whoever's session it is.
pub(crate) const SETTINGS: &str = "SET LOCAL search_path = pg_catalog; SET LOCAL datestyle = 'ISO, MDY'; SET LOCAL intervalstyle = postgres; \
 SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = hex; SET LOCAL timezone = 'UTC'; SET LOCAL row_security = off; SET LOCAL lock_timeout = '30s'; \
 SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = '10min'; SET LOCAL client_min_messages = error; \
 SET LOCAL work_mem = '64MB'; SET LOCAL jit = off";

/// Where row images are, unless they have to be fetched from the vault.
pub(crate) const JOURNAL: &str = "reprieve.journal";

/// Undoes the changes of the transactions `xids` inside the open transaction, and checks what it did. The caller commits.
pub async fn revert(work: &Transaction<'_>, taken: &[Taken], choice: Choice) -> Result<Report, UndoError> {
    put_rows_back(work, JOURNAL, taken, Wish { choice, keep: &[] }, None).await
}

/// What an operator wants done with rows.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// With those that somebody changed since.
    pub choice: Choice,
    /// These stay as they are in any case.
    pub keep: &'a [RowName],
}

/// The same with the images from another table of the journal's form. With `made`, after definitions were put back: tables that were
/// made anew, by the number that they had. They are as they were when they went, so that what was changed before is still to be taken
/// back. Rows of tables that are not there are left out.
pub(crate) async fn put_rows_back(
    work: &Transaction<'_>,
    source: &str,
    taken: &[Taken],
    wish: Wish<'_>,
    made: Option<&HashMap<u32, u32>>,
) -> Result<Report, UndoError> {
    work.batch_execute(SETTINGS).await?;
    let xids: Vec<String> = taken.iter().map(|taken| taken.xid.to_string()).collect();
    let mut unhindered = leave_triggers_out(work).await?;
    // What this transaction wrote down until now was not for rows to be put back.
    let last: i64 = work.query_one("SELECT s.last_value FROM reprieve.journal_statement s", &[]).await?.get(0);
    let from = last.saturating_mul(BACKENDS).saturating_add(BACKENDS - 1);
    let mut parts = Vec::new();
    let mut relations = relations(work, source, &xids, taken).await?;
    if let Some(made) = made {
        relations = as_they_are_now(work, relations, made).await?;
    }
    for relation in relations {
        parts.push(gather(work, source, &xids, relation, made).await?);
    }
    let mut parts = parents_first(work, parts).await?;
    if unhindered && parts.iter().any(|part| part.table.checks_later) {
        // These checks are triggers too, and nobody would notice that they were left out.
        work.batch_execute("SET LOCAL session_replication_role = origin; SET CONSTRAINTS ALL DEFERRED").await?;
        unhindered = false;
    }
    if unhindered {
        plan_foreign_keys(work, &mut parts).await?;
    } else {
        disable_triggers(work, &parts).await?;
    }
    let mut report = Report::default();
    let kept = leave_out_what_is_kept(work, &mut parts, wish.keep).await?;
    for part in &parts {
        report.tables.insert(part.table.shown.clone(), TableReport::default());
        if part.table.checks_later || part.table.has_rules {
            // Here a row that is there already would be the server's error, instead of a reason to look closer.
            leave_out_what_is_done(work, part, &mut report).await?;
        }
    }
    for (table, rows) in kept {
        report.tables.entry(table).or_default().kept = rows;
    }
    put_back(work, &mut parts, wish.choice, &mut report).await?;
    if unhindered {
        for part in &parts {
            check_foreign_keys(work, part).await?;
        }
    } else {
        // A table with checks that are still to come can't be altered; and what they have to say, they say now.
        work.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await?;
        enable_triggers(work, &parts).await?;
    }
    check_what_was_done(work, &parts, from).await?;
    let xid: Option<String> = work.query_one("SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text", &[]).await?.get(0);
    report.xid = xid.and_then(|xid| xid.parse().ok());
    Ok(report)
}

/// A changed relation. Partitions count as their root.
struct Relation {
    oid: u32,
    sources: Vec<u32>,
    edges: u64,
    /// Edges with a row before, and with a row after.
    had: u64,
    has: u64,
}

/// The changed relations, if the journal has what was measured.
async fn relations(work: &Transaction<'_>, source: &str, xids: &[String], taken: &[Taken]) -> Result<Vec<Relation>, UndoError> {
    let rows = work
        .query(
            &format!(
                "SELECT COALESCE(pg_catalog.pg_partition_root(g.relation)::pg_catalog.oid, g.relation), g.relation, g.xid::pg_catalog.text, g.edges, g.had, g.has \
                 FROM (SELECT j.relation, j.xid, pg_catalog.count(*) AS edges, pg_catalog.count(j.old) AS had, pg_catalog.count(j.new) AS has \
                  FROM {source} j WHERE j.xid = ANY ($1::pg_catalog.text[]::pg_catalog.xid8[]) AND j.statement > 0 GROUP BY 1, 2) g ORDER BY 1, 2"
            ),
            &[&xids],
        )
        .await?;
    let number = |row: &tokio_postgres::Row, index: usize| u64::try_from(row.get::<_, i64>(index)).unwrap_or(0);
    for (taken, xid) in taken.iter().zip(xids) {
        let of_it = || rows.iter().filter(|row| row.get::<_, &str>(2) == xid);
        let found: u64 = of_it().map(|row| number(row, 3)).sum();
        // Rows of emptied tables are in the journal as if deleted, and not in the measured number.
        let counted: u64 = of_it().map(|row| if taken.emptied { number(row, 5) } else { number(row, 3) }).sum();
        let Some(measured) = taken.rows else { continue };
        // Savepoints that were rolled back count as measured, but are not in the journal; more than was measured was never changed.
        if counted > measured || (found == 0 && measured > 0) {
            return Err(UndoError::Missing { found, measured });
        }
    }
    let mut relations: BTreeMap<u32, Relation> = BTreeMap::new();
    for row in &rows {
        let oid = row.get(0);
        let relation = relations.entry(oid).or_insert(Relation { oid, sources: Vec::new(), edges: 0, had: 0, has: 0 });
        let source = row.get(1);
        if !relation.sources.contains(&source) {
            relation.sources.push(source);
        }
        relation.edges += number(row, 3);
        relation.had += number(row, 4);
        relation.has += number(row, 5);
    }
    Ok(relations.into_values().collect())
}

/// The same with the numbers that tables have after they were made anew. What is not there is left out.
async fn as_they_are_now(work: &Transaction<'_>, relations: Vec<Relation>, made: &HashMap<u32, u32>) -> Result<Vec<Relation>, UndoError> {
    let mut now: BTreeMap<u32, Relation> = BTreeMap::new();
    for relation in relations {
        let oid = made.get(&relation.oid).copied().unwrap_or(relation.oid);
        let text =
            "SELECT COALESCE(pg_catalog.pg_partition_root(c.oid)::pg_catalog.oid, c.oid) FROM pg_catalog.pg_class c WHERE c.oid = $1";
        let Some(row) = work.query_opt(text, &[&oid]).await? else { continue };
        let oid = row.get(0);
        let all = now.entry(oid).or_insert(Relation { oid, sources: Vec::new(), edges: 0, had: 0, has: 0 });
        all.sources.extend(relation.sources);
        all.edges += relation.edges;
        all.had += relation.had;
        all.has += relation.has;
    }
    Ok(now.into_values().collect())
}

/// The hash of an image's text, by which what was done is compared with what was to be done.
fn hash(text: &str) -> String {
    format!("pg_catalog.hashtextextended({text}, 0)")
}

/// A row's image as text.
fn image(row: &str) -> String {
    format!("pg_catalog.textin(pg_catalog.record_out({row}))")
}

/// Finds what the transactions' changes of one table come to.
async fn gather(
    work: &Transaction<'_>,
    source: &str,
    xids: &[String],
    relation: Relation,
    made: Option<&HashMap<u32, u32>>,
) -> Result<Part, UndoError> {
    let gone = || UndoError::Gone { name: format!("oid {}", relation.oid) };
    let table = Table::look(work, relation.oid).await?.ok_or_else(gone)?;
    let is_itself = |source: u32| source == relation.oid || made.is_some_and(|made| made.contains_key(&source));
    for source in relation.sources.iter().filter(|source| !is_itself(**source)) {
        let partition = Table::look(work, *source).await?.ok_or_else(gone)?;
        let names = |table: &Table| table.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        if names(&partition) != names(&table) {
            return Err(UndoError::Shape { table: partition.shown });
        }
    }
    if table.has_cast {
        return Err(UndoError::Limit(format!(
            "somebody defined a cast for the rows of `{}`, so its images can't be read safely",
            table.shown
        )));
    }
    // A statement that makes a table takes no parameters: the oids and xids are numbers of ours.
    let listed = xids.iter().map(|xid| format!("'{xid}'")).collect::<Vec<_>>().join(",");
    let sources = relation.sources.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let journal = format!("FROM {source} s WHERE s.xid IN ({listed}) AND s.relation IN ({sources}) AND s.statement > 0");
    let name = &table.name;
    let columns = format!(
        "s.old IS NOT NULL AS had, s.new IS NOT NULL AS has, s.old::{name} AS before, s.new::{name} AS after, {} AS old_hash, {} AS new_hash",
        hash("s.old"),
        hash("s.new")
    );
    let pairs = format!("undo_{}", relation.oid);
    let make = format!("CREATE TEMPORARY TABLE {pairs} ON COMMIT DROP AS SELECT pg_catalog.row_number() OVER () AS n, {columns}");
    let make_from_journal = format!("{make} {journal} AND s.old IS DISTINCT FROM s.new");
    if relation.has == 0 {
        let direct = format!("(SELECT 0::pg_catalog.int8 AS n, {columns} {journal} OFFSET 0)");
        return Ok(Part { table, pairs: direct, only_deleted: Some((relation.edges, make_from_journal)), checked_on_the_way: Vec::new() });
    }
    let may_chain = relation.had > 0;
    let chained = may_chain && {
        let meets =
            format!("SELECT EXISTS (SELECT s.old {journal} AND s.old IS NOT NULL INTERSECT SELECT s.new {journal} AND s.new IS NOT NULL)");
        work.query_one(&meets, &[]).await?.get::<_, bool>(0)
    };
    let shape = |error| shape(error, &table);
    if chained {
        if relation.edges > MOST_CHAINED {
            let reason = format!("{} changes of `{}`, some of the same rows, are too many to be linked", relation.edges, table.shown);
            return Err(UndoError::Limit(reason));
        }
        let rows = work.query(&format!("SELECT s.old, s.new {journal}"), &[]).await?;
        let edges = net(rows.iter().map(|row| Edge { before: row.get(0), after: row.get(1) }).collect());
        drop(rows);
        let staged = format!("{pairs}_staged");
        work.batch_execute(&format!("CREATE TEMPORARY TABLE {staged} (old pg_catalog.text, new pg_catalog.text) ON COMMIT DROP")).await?;
        let sink = work.copy_in(&format!("COPY pg_temp.{staged} FROM STDIN")).await?;
        futures_util::pin_mut!(sink);
        for edge in &edges {
            sink.send(Bytes::from(copy_line(edge))).await?;
        }
        sink.finish().await?;
        work.batch_execute(&format!("{make} FROM pg_temp.{staged} s")).await.map_err(shape)?;
    } else {
        work.batch_execute(&make_from_journal).await.map_err(shape)?;
    }
    let pairs = format!("pg_temp.{pairs}");
    work.batch_execute(&format!("ANALYZE {pairs}")).await?;
    if !table.key.is_empty() && may_chain {
        // A row that was deleted and put in anew with the same key is a changed row.
        let same = table.same_key("(o.before)", "(x.after)");
        work.batch_execute(&format!(
            "WITH joined AS (DELETE FROM {pairs} x USING {pairs} o WHERE x.has AND NOT x.had AND o.had AND NOT o.has AND {same} \
              RETURNING o.n, x.after, x.new_hash) \
             UPDATE {pairs} p SET has = true, after = joined.after, new_hash = joined.new_hash FROM joined WHERE joined.n = p.n"
        ))
        .await?;
    }
    Ok(Part { table, pairs, only_deleted: None, checked_on_the_way: Vec::new() })
}

fn shape(error: tokio_postgres::Error, table: &Table) -> UndoError {
    match error.code() {
        Some(code) if *code == SqlState::INVALID_TEXT_REPRESENTATION || *code == SqlState::DATATYPE_MISMATCH => {
            UndoError::Shape { table: table.shown.clone() }
        }
        _ => error.into(),
    }
}

/// Not everything could be put back: makes the table of pairs where there was none, and leaves out what is done already. Reading all of
/// the table for that is spared where nobody was there since.
async fn look_closer(work: &Transaction<'_>, part: &mut Part, report: &mut Report) -> Result<(), UndoError> {
    make_pairs(work, part).await?;
    leave_out_what_is_done(work, part, report).await
}

/// Does nothing where there is one already.
async fn make_pairs(work: &Transaction<'_>, part: &mut Part) -> Result<(), UndoError> {
    let Some((_, make)) = part.only_deleted.take() else { return Ok(()) };
    work.batch_execute(&make).await.map_err(|error| shape(error, &part.table))?;
    part.pairs = format!("pg_temp.undo_{}", part.table.oid);
    work.batch_execute(&format!("ANALYZE {}", part.pairs)).await?;
    Ok(())
}

/// One line of COPY's text format (PostgreSQL 15, COPY, "Text Format").
fn copy_line(edge: &Edge) -> String {
    let mut line = String::new();
    for (image, end) in [(&edge.before, '\t'), (&edge.after, '\n')] {
        match image {
            None => line.push_str("\\N"),
            Some(text) => text.chars().for_each(|c| match c {
                '\\' => line.push_str("\\\\"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                '\t' => line.push_str("\\t"),
                c => line.push(c),
            }),
        }
        line.push(end);
    }
    line
}

/// Sorts tables so that one comes before those that refer to it; in a ring, any order.
async fn parents_first(work: &Transaction<'_>, mut parts: Vec<Part>) -> Result<Vec<Part>, UndoError> {
    let oids: Vec<u32> = parts.iter().map(|part| part.table.oid).collect();
    let rows = work
        .query(
            "SELECT k.conrelid, k.confrelid FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND k.conrelid = ANY ($1) AND k.confrelid = ANY ($1)",
            &[&oids],
        )
        .await?;
    let refers: Vec<(u32, u32)> = rows.iter().map(|row| (row.get(0), row.get(1))).filter(|(from, to)| from != to).collect();
    let mut sorted: Vec<Part> = Vec::new();
    while !parts.is_empty() {
        let waits = |part: &Part, parts: &[Part]| {
            refers.iter().any(|(from, to)| *from == part.table.oid && parts.iter().any(|other| other.table.oid == *to))
        };
        let next = (0..parts.len()).find(|place| !waits(&parts[*place], &parts)).unwrap_or(0);
        sorted.push(parts.remove(next));
    }
    Ok(sorted)
}

/// Leaves out rows that already are as they were before the change.
async fn leave_out_what_is_done(work: &Transaction<'_>, part: &Part, report: &mut Report) -> Result<(), UndoError> {
    let Part { table, pairs, only_deleted, .. } = part;
    if table.key.is_empty() || only_deleted.is_some() {
        return Ok(());
    }
    let name = &table.name;
    let back = work
        .execute(
            &format!(
                "DELETE FROM {pairs} p USING {name} t WHERE p.had AND {} AND t OPERATOR(pg_catalog.*=) p.before",
                table.same_key("t", "(p.before)")
            ),
            &[],
        )
        .await?;
    let out = work
        .execute(
            &format!(
                "DELETE FROM {pairs} p WHERE p.has AND NOT p.had AND NOT EXISTS (SELECT FROM {name} t WHERE {})",
                table.same_key("t", "(p.after)")
            ),
            &[],
        )
        .await?;
    report.tables.entry(table.shown.clone()).or_default().already += back + out;
    Ok(())
}
