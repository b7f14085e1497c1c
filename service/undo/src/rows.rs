//! Putting rows back: from the journal's images and the present state, in one transaction.
//!
//! For each table the images are read into a temporary table of pairs, before and after. What is still as the change left it is
//! taken back; where somebody changed a row since, that is a conflict, and nothing is overwritten unless the operator says so. Then
//! the journal itself, which has written down what the undo did, is compared with what was to be done: any other effect (a cascade,
//! a trigger) rolls everything back.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::SinkExt as _;
use reprieve_gate::UndoChoice as Choice;
use serde::{Deserialize, Serialize};
use tokio_postgres::{Transaction, error::SqlState};

use crate::{
    UndoError,
    chain::{Edge, net},
    table::Table,
};

/// Rows that are linked into chains in memory; more than this is refused where rows were changed more than once.
const MOST_CHAINED: i64 = 5_000_000;

/// Conflicts that are listed; the others are counted.
const LISTED_CONFLICTS: usize = 1_000;

/// How a row conflicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConflictKind {
    /// It was changed since.
    Changed,
    /// It was deleted since.
    Deleted,
    /// A row with its key was added since.
    Added,
    /// Another row has a value that must be unique.
    Taken,
}

/// A row that somebody changed since. Rows are spelled as PostgreSQL spells composite values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// `schema.table`.
    pub table: String,
    /// How.
    pub kind: ConflictKind,
    /// As undo would make it; `None`: it would be removed.
    pub wanted: Option<String>,
    /// As it is now.
    pub now: Option<String>,
}

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
    /// The undo's own transaction, by which it can be undone.
    pub xid: Option<u64>,
}

/// One table's part of the work.
struct Part {
    table: Table,
    /// The temporary table: n, had (was there a row before), has (is there one after), before, after.
    pairs: String,
}

/// Pairs by what has to be done with them.
#[derive(Debug, Clone, Copy)]
struct Counts {
    restore: u64,
    revert: u64,
    move_: u64,
    remove: u64,
}

/// Settings under which images are read and written in one way, whoever's session it is.
const SETTINGS: &str = "SET LOCAL search_path = pg_catalog; SET LOCAL datestyle = 'ISO, MDY'; SET LOCAL intervalstyle = postgres; \
 SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = hex; SET LOCAL timezone = 'UTC'; SET LOCAL row_security = off; SET LOCAL lock_timeout = '30s'; \
 SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = '10min'; SET LOCAL client_min_messages = error";

/// Undoes the changes of the transactions `xids` inside the open transaction, and checks what it did. The caller commits.
pub async fn revert(work: &Transaction<'_>, xids: &[u64], choice: Choice) -> Result<Report, UndoError> {
    work.batch_execute(SETTINGS).await?;
    let xids: Vec<String> = xids.iter().map(u64::to_string).collect();
    let unhindered = leave_triggers_out(work).await?;
    let mut parts = Vec::new();
    for relation in relations(work, &xids).await? {
        parts.push(gather(work, &xids, relation).await?);
    }
    let parts = parents_first(work, parts).await?;
    if !unhindered {
        disable_triggers(work, &parts).await?;
    }
    let mut report = Report::default();
    for part in &parts {
        let already = leave_out_what_is_done(work, part).await?;
        report.tables.insert(part.table.shown.clone(), TableReport { already, ..TableReport::default() });
    }
    put_back(work, &parts, choice, &mut report).await?;
    if unhindered {
        for part in &parts {
            check_foreign_keys(work, part).await?;
        }
    } else {
        enable_triggers(work, &parts).await?;
    }
    check_what_was_done(work, &parts).await?;
    let xid: Option<String> = work.query_one("SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text", &[]).await?.get(0);
    report.xid = xid.and_then(|xid| xid.parse().ok());
    Ok(report)
}

/// Triggers of users and foreign keys are left out where the login may: cascades must not run again. The journal's triggers always run.
async fn leave_triggers_out(work: &Transaction<'_>) -> Result<bool, UndoError> {
    work.batch_execute("SAVEPOINT unhindered").await?;
    match work.batch_execute("SET LOCAL session_replication_role = replica").await {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            work.batch_execute("ROLLBACK TO SAVEPOINT unhindered; SET CONSTRAINTS ALL DEFERRED").await?;
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// The changed relations: oid, edges, and whether rows may have been changed more than once. Partitions count as their root.
struct Relation {
    oid: u32,
    sources: Vec<u32>,
    edges: i64,
    of_one_kind: bool,
}

async fn relations(work: &Transaction<'_>, xids: &[String]) -> Result<Vec<Relation>, UndoError> {
    let rows = work
        .query(
            "SELECT COALESCE(pg_catalog.pg_partition_root(j.relation)::pg_catalog.oid, j.relation), pg_catalog.array_agg(DISTINCT j.relation), \
             pg_catalog.count(*), pg_catalog.count(j.old) = 0 OR pg_catalog.count(j.new) = 0 \
             FROM reprieve.journal j WHERE j.xid = ANY ($1::pg_catalog.text[]::pg_catalog.xid8[]) GROUP BY 1 ORDER BY 1",
            &[&xids],
        )
        .await?;
    Ok(rows.iter().map(|row| Relation { oid: row.get(0), sources: row.get(1), edges: row.get(2), of_one_kind: row.get(3) }).collect())
}

/// Reads what the transactions' changes of one table come to into a temporary table.
async fn gather(work: &Transaction<'_>, xids: &[String], relation: Relation) -> Result<Part, UndoError> {
    let gone = || UndoError::Gone { name: format!("oid {}", relation.oid) };
    let table = Table::look(work, relation.oid).await?.ok_or_else(gone)?;
    for source in relation.sources.iter().filter(|source| **source != relation.oid) {
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
    let part = Part { pairs: format!("pg_temp.undo_{}", relation.oid), table };
    let from_journal = "FROM reprieve.journal j WHERE j.xid = ANY ($1::pg_catalog.text[]::pg_catalog.xid8[]) AND j.relation = ANY ($2)";
    let chained = !relation.of_one_kind && {
        let meets = format!(
            "SELECT EXISTS (SELECT j.old {from_journal} AND j.old IS NOT NULL INTERSECT SELECT j.new {from_journal} AND j.new IS NOT NULL)"
        );
        work.query_one(&meets, &[&xids, &relation.sources]).await?.get::<_, bool>(0)
    };
    let (name, pairs) = (&part.table.name, &part.pairs);
    let typed = format!(
        "CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT pg_catalog.row_number() OVER () AS n, s.old IS NOT NULL AS had, \
         s.new IS NOT NULL AS has, s.old::{name} AS before, s.new::{name} AS after",
        pairs.trim_start_matches("pg_temp.")
    );
    let shape = |error: tokio_postgres::Error| match error.code() {
        Some(code) if *code == SqlState::INVALID_TEXT_REPRESENTATION || *code == SqlState::DATATYPE_MISMATCH => {
            UndoError::Shape { table: part.table.shown.clone() }
        }
        _ => error.into(),
    };
    if chained {
        if relation.edges > MOST_CHAINED {
            let reason = format!("{} changes of `{}`, some of the same rows, are too many to be linked", relation.edges, part.table.shown);
            return Err(UndoError::Limit(reason));
        }
        let rows = work.query(&format!("SELECT j.old, j.new {from_journal}"), &[&xids, &relation.sources]).await?;
        let edges = net(rows.iter().map(|row| Edge { before: row.get(0), after: row.get(1) }).collect());
        drop(rows);
        let staged = format!("undo_{}_staged", relation.oid);
        work.batch_execute(&format!("CREATE TEMPORARY TABLE {staged} (old pg_catalog.text, new pg_catalog.text) ON COMMIT DROP")).await?;
        let sink = work.copy_in(&format!("COPY pg_temp.{staged} FROM STDIN")).await?;
        futures_util::pin_mut!(sink);
        for edge in &edges {
            sink.send(Bytes::from(copy_line(edge))).await?;
        }
        sink.finish().await?;
        work.execute(&format!("{typed} FROM pg_temp.{staged} s"), &[]).await.map_err(shape)?;
    } else {
        // A statement that makes a table takes no parameters: the oids and xids are numbers of ours.
        let xids = xids.iter().map(|xid| format!("'{xid}'")).collect::<Vec<_>>().join(",");
        let sources = relation.sources.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let from =
            format!("FROM reprieve.journal s WHERE s.xid IN ({xids}) AND s.relation IN ({sources}) AND s.old IS DISTINCT FROM s.new");
        work.batch_execute(&format!("{typed} {from}")).await.map_err(shape)?;
    }
    work.batch_execute(&format!("ANALYZE {pairs}")).await?;
    if !part.table.key.is_empty() && !relation.of_one_kind {
        // A row that was deleted and put in anew with the same key is a changed row.
        let same = part.table.same_key("(o.before)", "(x.after)");
        work.batch_execute(&format!(
            "WITH joined AS (DELETE FROM {pairs} x USING {pairs} o WHERE x.has AND NOT x.had AND o.had AND NOT o.has AND {same} RETURNING o.n, x.after) \
             UPDATE {pairs} p SET has = true, after = joined.after FROM joined WHERE joined.n = p.n"
        ))
        .await?;
    }
    Ok(part)
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

async fn disable_triggers(work: &Transaction<'_>, parts: &[Part]) -> Result<(), UndoError> {
    switch_triggers(work, parts, "tgenabled <> 'D'", "DISABLE").await
}

/// Those that were disabled before are not in the list: it is kept in a temporary table.
async fn enable_triggers(work: &Transaction<'_>, _parts: &[Part]) -> Result<(), UndoError> {
    let rows = work.query("SELECT s.statement FROM pg_temp.undo_triggers s", &[]).await?;
    for row in rows {
        work.batch_execute(row.get(0)).await?;
    }
    Ok(())
}

async fn switch_triggers(work: &Transaction<'_>, parts: &[Part], which: &str, how: &str) -> Result<(), UndoError> {
    work.batch_execute("CREATE TEMPORARY TABLE undo_triggers (statement pg_catalog.text) ON COMMIT DROP").await?;
    for part in parts {
        let triggers = work
            .query(
                &format!(
                    "SELECT pg_catalog.quote_ident(t.tgname), t.tgenabled::pg_catalog.text FROM pg_catalog.pg_trigger t \
                     WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.{which} \
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace WHERE f.oid = t.tgfoid AND n.nspname = 'reprieve')"
                ),
                &[&part.table.oid],
            )
            .await?;
        for trigger in triggers {
            let (name, enabled): (String, String) = (trigger.get(0), trigger.get(1));
            let table = &part.table.name;
            work.batch_execute(&format!("ALTER TABLE {table} {how} TRIGGER {name}")).await?;
            let again = match enabled.as_str() {
                "R" => "ENABLE REPLICA",
                "A" => "ENABLE ALWAYS",
                _ => "ENABLE",
            };
            let statement = format!("ALTER TABLE {table} {again} TRIGGER {name}");
            work.execute("INSERT INTO pg_temp.undo_triggers VALUES ($1)", &[&statement]).await?;
        }
    }
    Ok(())
}

/// Leaves out rows that already are as they were before the change.
async fn leave_out_what_is_done(work: &Transaction<'_>, part: &Part) -> Result<u64, UndoError> {
    let Part { table, pairs } = part;
    if table.key.is_empty() {
        return Ok(0);
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
    Ok(back + out)
}

/// Puts everything back, or finds out what is in the way.
async fn put_back(work: &Transaction<'_>, parts: &[Part], choice: Choice, report: &mut Report) -> Result<(), UndoError> {
    for _ in 0..4 {
        work.batch_execute("SAVEPOINT putting_back").await?;
        let taken = try_to_put_back(work, parts, report).await?;
        let Some(taken) = taken else { return Ok(()) };
        work.batch_execute("ROLLBACK TO SAVEPOINT putting_back").await?;
        let mut found = taken;
        for (place, part) in parts.iter().enumerate() {
            found.extend(conflicts(work, part, place).await?);
        }
        report.conflicts_found += found.len() as u64;
        let room = LISTED_CONFLICTS.saturating_sub(report.conflicts.len());
        report.conflicts.extend(found.iter().take(room).map(|(_, _, conflict)| conflict.clone()));
        match choice {
            Choice::Stop if found.is_empty() => {} // somebody was changing a row just then
            Choice::Stop => return Err(UndoError::Conflicts(Box::new(report.clone()))),
            Choice::Theirs => {
                for (place, n, _) in &found {
                    work.execute(&format!("DELETE FROM {} p WHERE p.n = $1", parts[*place].pairs), &[n]).await?;
                }
            }
            Choice::Ours => overwrite(work, parts, &found).await?,
        }
    }
    Err(UndoError::Conflicts(Box::new(report.clone())))
}

type Found = Vec<(usize, i64, Conflict)>;

/// `None`: all of it was put back. Otherwise rows whose unique values others have, if that is what was in the way.
async fn try_to_put_back(work: &Transaction<'_>, parts: &[Part], report: &mut Report) -> Result<Option<Found>, UndoError> {
    let mut complete = true;
    let mut expected = Vec::new();
    for part in parts {
        expected.push(counts(work, part).await?);
    }
    for (part, expected) in parts.iter().zip(&expected).rev() {
        complete &= take_out(work, part).await? == expected.remove + expected.move_;
    }
    for (part, expected) in parts.iter().zip(&expected) {
        complete &= change_back(work, part).await? == expected.revert;
    }
    let mut taken = Vec::new();
    for (place, (part, expected)) in parts.iter().zip(&expected).enumerate() {
        if complete && put_in(work, part).await? != expected.restore + expected.move_ {
            complete = false;
            taken = not_put_in(work, part, place).await?;
        }
    }
    if !complete {
        return Ok(Some(taken));
    }
    for (part, done) in parts.iter().zip(&expected) {
        let table = report.tables.entry(part.table.shown.clone()).or_default();
        table.restored = done.restore;
        table.reverted = done.revert + done.move_;
        table.removed = done.remove;
    }
    Ok(None)
}

/// Rows that were both there before and after, and can't be changed in place.
fn moved(table: &Table) -> String {
    if table.key.is_empty() { "true".to_owned() } else { table.moved("(p.before)", "(p.after)") }
}

async fn counts(work: &Transaction<'_>, part: &Part) -> Result<Counts, UndoError> {
    let moved = moved(&part.table);
    let row = work
        .query_one(
            &format!(
                "SELECT pg_catalog.count(*) FILTER (WHERE p.had AND NOT p.has), pg_catalog.count(*) FILTER (WHERE p.had AND p.has AND NOT ({moved})), \
                 pg_catalog.count(*) FILTER (WHERE p.had AND p.has AND {moved}), pg_catalog.count(*) FILTER (WHERE p.has AND NOT p.had) FROM {} p",
                part.pairs
            ),
            &[],
        )
        .await?;
    let count = |index: usize| u64::try_from(row.get::<_, i64>(index)).unwrap_or(0);
    Ok(Counts { restore: count(0), revert: count(1), move_: count(2), remove: count(3) })
}

async fn take_out(work: &Transaction<'_>, part: &Part) -> Result<u64, UndoError> {
    let Part { table, pairs } = part;
    let (name, moved) = (&table.name, moved(table));
    let text = if table.key.is_empty() {
        // Equal rows are numbered, so that as many go as were added.
        let image = |row: &str| format!("pg_catalog.textin(pg_catalog.record_out({row}))");
        let (of_row, of_pair) = (image("t"), image("p.after"));
        format!(
            "WITH want AS (SELECT {of_pair} AS image, pg_catalog.row_number() OVER (PARTITION BY {of_pair}) AS k FROM {pairs} p WHERE p.has), \
             have AS (SELECT t.tableoid AS o, t.ctid AS c, {of_row} AS image, pg_catalog.row_number() OVER (PARTITION BY {of_row}) AS k FROM {name} t \
              WHERE {of_row} IN (SELECT w.image FROM want w)) \
             DELETE FROM {name} t USING have h JOIN want w ON w.image = h.image AND w.k = h.k WHERE t.tableoid = h.o AND t.ctid = h.c"
        )
    } else {
        format!(
            "DELETE FROM {name} t USING {pairs} p WHERE p.has AND (NOT p.had OR {moved}) AND {} AND t OPERATOR(pg_catalog.*=) p.after",
            table.same_key("t", "(p.after)")
        )
    };
    Ok(work.execute(&text, &[]).await?)
}

async fn change_back(work: &Transaction<'_>, part: &Part) -> Result<u64, UndoError> {
    let Part { table, pairs } = part;
    let set: Vec<String> =
        table.written().filter(|column| !column.identity_always).map(|column| format!("{0} = (p.before).{0}", column.name)).collect();
    if table.key.is_empty() || set.is_empty() {
        return Ok(0);
    }
    let text = format!(
        "UPDATE {} t SET {} FROM {pairs} p WHERE p.had AND p.has AND NOT ({}) AND {} AND t OPERATOR(pg_catalog.*=) p.after",
        table.name,
        set.join(", "),
        moved(table),
        table.same_key("t", "(p.after)")
    );
    Ok(work.execute(&text, &[]).await?)
}

async fn put_in(work: &Transaction<'_>, part: &Part) -> Result<u64, UndoError> {
    let Part { table, pairs } = part;
    let columns: Vec<&str> = table.written().map(|column| column.name.as_str()).collect();
    let values: Vec<String> = columns.iter().map(|column| format!("(p.before).{column}")).collect();
    let text = format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {pairs} p WHERE p.had AND (NOT p.has OR {}) ON CONFLICT DO NOTHING",
        table.name,
        columns.join(", "),
        values.join(", "),
        moved(table)
    );
    Ok(work.execute(&text, &[]).await?)
}

/// Rows that could not be put in although nobody has their key.
async fn not_put_in(work: &Transaction<'_>, part: &Part, place: usize) -> Result<Found, UndoError> {
    let Part { table, pairs } = part;
    if table.key.is_empty() {
        return Ok(Vec::new());
    }
    let text = format!(
        "SELECT p.n, pg_catalog.textin(pg_catalog.record_out(p.before)) FROM {pairs} p WHERE p.had AND (NOT p.has OR {}) \
         AND NOT EXISTS (SELECT FROM {} t WHERE {}) ORDER BY p.n",
        moved(table),
        table.name,
        table.same_key("t", "(p.before)")
    );
    let rows = work.query(&text, &[]).await?;
    let conflict = |wanted| Conflict { table: table.shown.clone(), kind: ConflictKind::Taken, wanted, now: None };
    Ok(rows.iter().map(|row| (place, row.get(0), conflict(row.get(1)))).collect())
}

/// Rows that are not as the change left them.
async fn conflicts(work: &Transaction<'_>, part: &Part, place: usize) -> Result<Found, UndoError> {
    let Part { table, pairs } = part;
    let (name, shown) = (&table.name, &table.shown);
    let image = |row: &str| format!("pg_catalog.textin(pg_catalog.record_out({row}))");
    let (now, before, after) = (image("t"), image("p.before"), image("p.after"));
    let wanted = format!("CASE WHEN p.had THEN {before} END");
    let mut found = Vec::new();
    let mut add = |kind, rows: Vec<tokio_postgres::Row>| {
        let conflict = |row: &tokio_postgres::Row| Conflict { table: shown.clone(), kind, wanted: row.get(1), now: row.get(2) };
        found.extend(rows.iter().map(|row| (place, row.get(0), conflict(row))));
    };
    if table.key.is_empty() {
        let text = format!(
            "WITH want AS (SELECT p.n, {wanted} AS wanted, {after} AS image, pg_catalog.row_number() OVER (PARTITION BY {after}) AS k FROM {pairs} p WHERE p.has), \
             have AS (SELECT {now} AS image, pg_catalog.count(*) AS k FROM {name} t WHERE {now} IN (SELECT w.image FROM want w) GROUP BY 1) \
             SELECT w.n, w.wanted, NULL::pg_catalog.text FROM want w LEFT JOIN have h ON h.image = w.image WHERE h.k IS NULL OR h.k < w.k ORDER BY 1"
        );
        add(ConflictKind::Deleted, work.query(&text, &[]).await?);
        return Ok(found);
    }
    let by_after = table.same_key("t", "(p.after)");
    let changed = format!(
        "SELECT p.n, {wanted}, {now} FROM {pairs} p JOIN {name} t ON {by_after} WHERE p.has AND NOT t OPERATOR(pg_catalog.*=) p.after ORDER BY 1"
    );
    add(ConflictKind::Changed, work.query(&changed, &[]).await?);
    let deleted = format!(
        "SELECT p.n, {wanted}, NULL::pg_catalog.text FROM {pairs} p WHERE p.has AND p.had AND NOT EXISTS (SELECT FROM {name} t WHERE {by_after}) ORDER BY 1"
    );
    add(ConflictKind::Deleted, work.query(&deleted, &[]).await?);
    // A row with that key that the undo itself takes out is not in the way.
    let added = format!(
        "SELECT p.n, {wanted}, {now} FROM {pairs} p JOIN {name} t ON {} WHERE p.had AND (NOT p.has OR {}) \
         AND NOT EXISTS (SELECT FROM {pairs} o WHERE o.has AND {}) ORDER BY 1",
        table.same_key("t", "(p.before)"),
        moved(table),
        table.same_key("t", "(o.after)")
    );
    add(ConflictKind::Added, work.query(&added, &[]).await?);
    Ok(found)
}

/// Makes the rows that others changed the ones to be taken back.
async fn overwrite(work: &Transaction<'_>, parts: &[Part], found: &Found) -> Result<(), UndoError> {
    for (place, n, conflict) in found {
        let Part { table, pairs } = &parts[*place];
        let name = &table.name;
        let text = match conflict.kind {
            ConflictKind::Changed => {
                format!("UPDATE {pairs} p SET after = t FROM {name} t WHERE p.n = $1 AND {}", table.same_key("t", "(p.after)"))
            }
            ConflictKind::Deleted if table.key.is_empty() => format!("UPDATE {pairs} p SET has = false, after = NULL WHERE p.n = $1"),
            ConflictKind::Deleted => format!("UPDATE {pairs} p SET has = false, after = NULL WHERE p.n = $1 AND p.had"),
            ConflictKind::Added => format!(
                "INSERT INTO {pairs} (n, had, has, before, after) SELECT -p.n, false, true, NULL, t FROM {pairs} p JOIN {name} t ON {} WHERE p.n = $1",
                table.same_key("t", "(p.before)")
            ),
            // Somebody else's row would have to go, which was never this change's.
            ConflictKind::Taken => continue,
        };
        work.execute(&text, &[n]).await?;
    }
    Ok(())
}

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

/// With foreign keys left out, what was put back may refer to rows that are gone, and what was taken out may be referred to.
async fn check_foreign_keys(work: &Transaction<'_>, part: &Part) -> Result<(), UndoError> {
    let Part { table, pairs } = part;
    for row in work.query(FOREIGN_KEYS, &[&table.oid]).await? {
        let (constraint, child_oid, parent_oid): (String, u32, u32) = (row.get(0), row.get(1), row.get(2));
        let (child, parent): (String, String) = (row.get(3), row.get(4));
        let (own, theirs): (Vec<String>, Vec<String>) = (row.get(5), row.get(6));
        let (parent_child, parent_parent): (Vec<String>, Vec<String>) = (row.get(7), row.get(8));
        let both = |left: &str, operators: &[String], right: &str, right_columns: &[String]| {
            let columns = theirs.iter().zip(operators).zip(right_columns);
            columns
                .map(|((column, operator), other)| format!("{left}.{column} {operator} {right}.{other}"))
                .collect::<Vec<_>>()
                .join(" AND ")
        };
        let mut questions = Vec::new();
        if child_oid == table.oid {
            let refers: Vec<String> = own.iter().map(|column| format!("(p.before).{column} IS NOT NULL")).collect();
            let meets = both("r", &parent_child, "(p.before)", &own);
            questions.push(format!("p.had AND {} AND NOT EXISTS (SELECT FROM {parent} r WHERE {meets})", refers.join(" AND ")));
        }
        if parent_oid == table.oid {
            let referred = both("(p.after)", &parent_child, "c", &own);
            let still_there = both("r", &parent_parent, "(p.after)", &theirs);
            questions.push(format!(
                "p.has AND EXISTS (SELECT FROM {child} c WHERE {referred}) AND NOT EXISTS (SELECT FROM {parent} r WHERE {still_there})"
            ));
        }
        for question in questions {
            let rows: i64 = work.query_one(&format!("SELECT pg_catalog.count(*) FROM {pairs} p WHERE {question}"), &[]).await?.get(0);
            if rows > 0 {
                return Err(UndoError::ForeignKey { table: child, constraint, rows });
            }
        }
    }
    Ok(())
}

/// The journal has written down what the undo did: exactly the reverse of the pairs, and nothing else.
async fn check_what_was_done(work: &Transaction<'_>, parts: &[Part]) -> Result<(), UndoError> {
    let sums = |old: &str, new: &str| {
        let hash = |image: &str| format!("COALESCE(pg_catalog.sum(pg_catalog.hashtextextended({image}, 0)), 0)::pg_catalog.text");
        format!("pg_catalog.count({old}), pg_catalog.count({new}), {}, {}", hash(old), hash(new))
    };
    let written = work
        .query(
            &format!(
                "SELECT COALESCE(pg_catalog.pg_partition_root(j.relation)::pg_catalog.oid, j.relation), {} FROM reprieve.journal j \
                 WHERE j.xid = pg_catalog.pg_current_xact_id_if_assigned() GROUP BY 1",
                sums("j.old", "j.new")
            ),
            &[],
        )
        .await?;
    let read = |row: &tokio_postgres::Row, from: usize| -> (i64, i64, String, String) {
        (row.get(from), row.get(from + 1), row.get(from + 2), row.get(from + 3))
    };
    let mut written: BTreeMap<u32, _> = written.iter().map(|row| (row.get::<_, u32>(0), read(row, 1))).collect();
    let nothing = (0, 0, "0".to_owned(), "0".to_owned());
    for Part { table, pairs } in parts {
        let image = |has: &str, row: &str| format!("CASE WHEN {has} THEN pg_catalog.textin(pg_catalog.record_out({row})) END");
        let planned = sums(&image("p.has", "p.after"), &image("p.had", "p.before"));
        let planned = read(&work.query_one(&format!("SELECT {planned} FROM {pairs} p"), &[]).await?, 0);
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
