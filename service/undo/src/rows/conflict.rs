//! Conflicts: rows that are not as the change left them, or whose place another row has.

use serde::{Deserialize, Serialize};
use tokio_postgres::Transaction;

use super::{Part, hash, image, put_back::moved};
use crate::UndoError;

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
    /// As the change left it.
    #[serde(default)]
    pub left: Option<String>,
    /// Its key, by which it can be chosen: what comes after the colon in a row's name. `None`: its table has none.
    #[serde(default)]
    pub key: Option<String>,
}

/// Conflicts with the part and the pair that each is about.
pub(super) type Found = Vec<(usize, i64, Conflict)>;

/// Rows that could not be put in although nobody has their key.
pub(super) async fn not_put_in(work: &Transaction<'_>, part: &Part, place: usize) -> Result<Found, UndoError> {
    let Part { table, pairs, .. } = part;
    if table.key.is_empty() || part.only_deleted.is_some() {
        return Ok(Vec::new());
    }
    let text = format!(
        "SELECT p.n, {}, {}, {} FROM {pairs} p WHERE p.had AND (NOT p.has OR {}) AND NOT EXISTS (SELECT FROM {} t WHERE {}) ORDER BY p.n",
        image("p.before"),
        left(),
        table.key_text("(p.before)"),
        moved(table),
        table.name,
        table.same_key("t", "(p.before)")
    );
    let rows = work.query(&text, &[]).await?;
    let conflict = |row: &tokio_postgres::Row| Conflict {
        table: table.shown.clone(),
        kind: ConflictKind::Taken,
        wanted: row.get(1),
        now: None,
        left: row.get(2),
        key: row.get(3),
    };
    Ok(rows.iter().map(|row| (place, row.get(0), conflict(row))).collect())
}

/// A pair's row as the change left it.
fn left() -> String {
    format!("CASE WHEN p.has THEN {} END", image("p.after"))
}

/// Rows that are not as the change left them.
pub(super) async fn conflicts(work: &Transaction<'_>, part: &Part, place: usize) -> Result<Found, UndoError> {
    let Part { table, pairs, .. } = part;
    let (name, shown) = (&table.name, &table.shown);
    let (now, before, after) = (image("t"), image("p.before"), image("p.after"));
    let wanted = format!("CASE WHEN p.had THEN {before} END");
    let mut found = Vec::new();
    let mut add = |kind, rows: Vec<tokio_postgres::Row>| {
        let conflict = |row: &tokio_postgres::Row| Conflict {
            table: shown.clone(),
            kind,
            wanted: row.get(1),
            now: row.get(2),
            left: row.get(3),
            key: row.get(4),
        };
        found.extend(rows.iter().map(|row| (place, row.get(0), conflict(row))));
    };
    if table.key.is_empty() {
        let text = format!(
            "WITH want AS (SELECT p.n, {wanted} AS wanted, {after} AS image, pg_catalog.row_number() OVER (PARTITION BY {after}) AS k FROM {pairs} p WHERE p.has), \
             have AS (SELECT {now} AS image, pg_catalog.count(*) AS k FROM {name} t WHERE {now} IN (SELECT w.image FROM want w) GROUP BY 1) \
             SELECT w.n, w.wanted, NULL::pg_catalog.text, w.image, NULL::pg_catalog.text FROM want w LEFT JOIN have h ON h.image = w.image WHERE h.k IS NULL OR h.k < w.k ORDER BY 1"
        );
        add(ConflictKind::Deleted, work.query(&text, &[]).await?);
        return Ok(found);
    }
    let by_after = table.same_key("t", "(p.after)");
    let left = left();
    let (key_after, key_before) = (table.key_text("(p.after)"), table.key_text("(p.before)"));
    let changed = format!(
        "SELECT p.n, {wanted}, {now}, {left}, {key_after} FROM {pairs} p JOIN {name} t ON {by_after} WHERE p.has AND NOT t OPERATOR(pg_catalog.*=) p.after ORDER BY 1"
    );
    add(ConflictKind::Changed, work.query(&changed, &[]).await?);
    let deleted = format!(
        "SELECT p.n, {wanted}, NULL::pg_catalog.text, {left}, {key_after} FROM {pairs} p WHERE p.has AND p.had AND NOT EXISTS (SELECT FROM {name} t WHERE {by_after}) ORDER BY 1"
    );
    add(ConflictKind::Deleted, work.query(&deleted, &[]).await?);
    // A row with that key that the undo itself takes out is not in the way.
    let added = format!(
        "SELECT p.n, {wanted}, {now}, {left}, {key_before} FROM {pairs} p JOIN {name} t ON {} WHERE p.had AND (NOT p.has OR {}) \
         AND NOT EXISTS (SELECT FROM {pairs} o WHERE o.has AND {}) ORDER BY 1",
        table.same_key("t", "(p.before)"),
        moved(table),
        table.same_key("t", "(o.after)")
    );
    add(ConflictKind::Added, work.query(&added, &[]).await?);
    Ok(found)
}

/// Makes the rows that others changed the ones to be taken back.
pub(super) async fn overwrite(work: &Transaction<'_>, parts: &[Part], found: &Found) -> Result<(), UndoError> {
    for (place, n, conflict) in found {
        let Part { table, pairs, .. } = &parts[*place];
        let name = &table.name;
        let text = match conflict.kind {
            ConflictKind::Changed => {
                let same = table.same_key("t", "(p.after)");
                format!("UPDATE {pairs} p SET after = t, new_hash = {} FROM {name} t WHERE p.n = $1 AND {same}", hash(&image("t")))
            }
            ConflictKind::Deleted if table.key.is_empty() => format!("UPDATE {pairs} p SET has = false, after = NULL WHERE p.n = $1"),
            ConflictKind::Deleted => format!("UPDATE {pairs} p SET has = false, after = NULL WHERE p.n = $1 AND p.had"),
            ConflictKind::Added => format!(
                "INSERT INTO {pairs} (n, had, has, before, after, new_hash) SELECT -p.n, false, true, NULL, t, {} FROM {pairs} p JOIN {name} t ON {} WHERE p.n = $1",
                hash(&image("t")),
                table.same_key("t", "(p.before)")
            ),
            // Somebody else's row would have to go, which was never this change's.
            ConflictKind::Taken => continue,
        };
        work.execute(&text, &[n]).await?;
    }
    Ok(())
}
