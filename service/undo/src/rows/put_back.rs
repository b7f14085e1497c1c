//! Putting each row back as it was: what was added goes, what was changed changes back, what was deleted comes again.

use reprieve_gate::UndoChoice as Choice;
use tokio_postgres::{Transaction, error::SqlState};

use super::{
    Part, Report,
    check::referring,
    conflict::{Found, conflicts, not_put_in, overwrite},
    image, look_closer,
};
use crate::{UndoError, table::Table};

/// Conflicts that are listed; the others are counted.
const LISTED_CONFLICTS: usize = 1_000;

/// Pairs by what has to be done with them.
#[derive(Debug, Clone, Copy)]
struct Counts {
    restore: u64,
    revert: u64,
    move_: u64,
    remove: u64,
}

/// Puts everything back, or finds out what is in the way.
pub(super) async fn put_back(work: &Transaction<'_>, parts: &mut [Part], choice: Choice, report: &mut Report) -> Result<(), UndoError> {
    for round in 0..6 {
        work.batch_execute("SAVEPOINT putting_back").await?;
        let taken = try_to_put_back(work, parts, report).await?;
        let Some(taken) = taken else { return Ok(()) };
        work.batch_execute("ROLLBACK TO SAVEPOINT putting_back").await?;
        if round == 0 {
            for part in parts.iter_mut() {
                look_closer(work, part, report).await?;
            }
            continue;
        }
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
pub(super) fn moved(table: &Table) -> String {
    if table.key.is_empty() { "true".to_owned() } else { table.moved("(p.before)", "(p.after)") }
}

async fn counts(work: &Transaction<'_>, part: &Part) -> Result<Counts, UndoError> {
    if let Some((rows, _)) = part.only_deleted {
        return Ok(Counts { restore: rows, revert: 0, move_: 0, remove: 0 });
    }
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
    if part.only_deleted.is_some() {
        return Ok(0);
    }
    let Part { table, pairs, .. } = part;
    let (name, moved) = (&table.name, moved(table));
    let text = if table.key.is_empty() {
        // Equal rows are numbered, so that as many go as were added.
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
    let Part { table, pairs, .. } = part;
    let set: Vec<String> =
        table.written().filter(|column| !column.identity_always).map(|column| format!("{0} = (p.before).{0}", column.name)).collect();
    if table.key.is_empty() || set.is_empty() || part.only_deleted.is_some() {
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

/// How many rows were put in. Speculative insertion (`ON CONFLICT`) takes twice as long, and almost never is anything in the way.
async fn put_in(work: &Transaction<'_>, part: &Part) -> Result<u64, UndoError> {
    let Part { table, pairs, .. } = part;
    let columns: Vec<&str> = table.written().map(|column| column.name.as_str()).collect();
    let values: Vec<String> = columns.iter().map(|column| format!("(p.before).{column}")).collect();
    let text = format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {pairs} p WHERE p.had AND (NOT p.has OR {})",
        table.name,
        columns.join(", "),
        values.join(", "),
        moved(table)
    );
    work.batch_execute("SAVEPOINT putting_in").await?;
    match insert(work, part, &text).await {
        // A key that is checked later can't be asked in advance: then a row that is in the way is the server's error.
        Err(UndoError::Database(error)) if is_in_the_way(&error) && !table.checks_later && !table.has_rules => {
            work.batch_execute("ROLLBACK TO SAVEPOINT putting_in").await?;
            insert(work, part, &format!("{text} ON CONFLICT DO NOTHING")).await
        }
        put_in => {
            let rows = put_in?;
            work.batch_execute("RELEASE SAVEPOINT putting_in").await?;
            Ok(rows)
        }
    }
}

/// Runs it, and has the server look at what the rows refer to while it has them at hand.
async fn insert(work: &Transaction<'_>, part: &Part, text: &str) -> Result<u64, UndoError> {
    let keys = &part.checked_on_the_way;
    if keys.is_empty() {
        return Ok(work.execute(text, &[]).await?);
    }
    let questions: String = keys.iter().map(|key| format!(", ({})", key.orphans("put_in"))).collect();
    let text = format!(
        "WITH put_in AS ({text} RETURNING {}) SELECT (SELECT pg_catalog.count(*) FROM put_in){questions}",
        referring(keys).join(", ")
    );
    let row = work.query_one(&text, &[]).await?;
    for (place, key) in keys.iter().enumerate() {
        key.broken(row.get(place + 1))?;
    }
    Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
}

/// Whether a row has a value that another one has.
fn is_in_the_way(error: &tokio_postgres::Error) -> bool {
    [SqlState::UNIQUE_VIOLATION, SqlState::EXCLUSION_VIOLATION].iter().any(|state| error.code() == Some(state))
}
