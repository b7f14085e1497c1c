//! Surveys: what a server's databases look like, in numbers that a restored copy has to stand.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{RecoveryError, Source, Tools};

/// A table is counted if it is at most this large; beyond, its estimate counts.
const COUNTED_BYTES: u64 = 256 << 20;
/// Tables that are looked at in one database.
const TABLES: usize = 5_000;
/// A survey's longest.
const WITHIN: Duration = Duration::from_secs(3_600);
/// Rows that a table may have more or less in any case; and files.
const FLOOR: u64 = 100;
const FILES_FLOOR: u64 = 5;

/// What one database looks like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSurvey {
    /// Rows by table.
    pub rows: BTreeMap<String, u64>,
    /// How many tables' rows were estimated.
    pub estimated: u64,
    /// Which.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub estimates: BTreeSet<String>,
    /// A digest of all columns, constraints and indexes.
    pub schema: String,
    /// Roles that what is defined here names, where the copy itself has no roles.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<String>,
    /// Rows that refer to rows that are not there, where a database lets that be.
    #[serde(default, skip_serializing_if = "is_none")]
    pub dangling: u64,
    /// What is there, and can be in no copy.
    #[serde(default, skip_serializing_if = "is_none")]
    pub left_out: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

/// What a server's databases look like.
pub type Survey = BTreeMap<String, DatabaseSurvey>;

/// Looks at the databases that this login may connect to. `exactly`: counts every table, however long that takes.
pub(crate) fn survey(source: &Source, tools: &Tools, all: bool, exactly: bool) -> Result<Survey, RecoveryError> {
    let names = "SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_catalog.pg_database
        WHERE datallowconn AND NOT datistemplate AND pg_catalog.has_database_privilege(datname, 'CONNECT')";
    let names: Vec<String> = if all { source.json(tools, names, WITHIN)? } else { vec![source.database.clone()] };
    let look = |name: String| {
        let mut found = database(&source.on(&name), tools, exactly)?;
        if all {
            // The whole server comes back, with its roles.
            found.roles.clear();
        }
        Ok((name, found))
    };
    names.into_iter().map(look).collect()
}

/// Our own bookkeeping changes by itself, and is no content. `reprieve-undo` leaves the same schemas out (`journal.rs`).
const OURS: &str = "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'reprieve', 'reprieve_recovery')";

fn database(source: &Source, tools: &Tools, exactly: bool) -> Result<DatabaseSurvey, RecoveryError> {
    let counted = if exactly { i64::MAX as u64 } else { COUNTED_BYTES };
    // What may not be read is not counted; `estimate` says so.
    let sql = format!(
        "SET search_path = '';
         SELECT pg_catalog.json_build_object(
           'tables', (SELECT coalesce(pg_catalog.json_agg(t), '[]') FROM (
              SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, greatest(c.reltuples, 0)::bigint AS estimate,
                CASE WHEN (c.reltuples < 0 OR pg_catalog.pg_relation_size(c.oid) <= {counted}) AND pg_catalog.has_table_privilege(c.oid, 'SELECT') THEN
                  (pg_catalog.xpath('/row/c/text()', pg_catalog.query_to_xml(
                     pg_catalog.format('SELECT pg_catalog.count(*) AS c FROM ONLY %I.%I', n.nspname, c.relname), false, true, '')))[1]::text::bigint
                END AS counted
              FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind IN ('r', 'm') AND c.relpersistence IN ('p', 'u') AND {OURS} ORDER BY 1 LIMIT {}) t),
           'roles', (SELECT coalesce(pg_catalog.json_agg(r.rolname), '[]') FROM pg_catalog.pg_roles r WHERE r.oid IN (
              SELECT pg_catalog.unnest(p.polroles) FROM pg_catalog.pg_policy p UNION SELECT m.umuser FROM pg_catalog.pg_user_mappings m)),
           'schema', (SELECT pg_catalog.md5(coalesce(pg_catalog.string_agg(line, E'\\n' ORDER BY line COLLATE \"C\"), '')) FROM (
              SELECT pg_catalog.format('%I.%I.%I %s %s', n.nspname, c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull) AS line
                FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'm', 'v', 'f') AND c.relpersistence IN ('p', 'u') AND {OURS}
              UNION ALL
              SELECT pg_catalog.format('%I.%s %I %s', n.nspname, k.conrelid::pg_catalog.regclass, k.conname, pg_catalog.pg_get_constraintdef(k.oid))
                FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_namespace n ON n.oid = k.connamespace WHERE {OURS}
              UNION ALL
              SELECT pg_catalog.pg_get_indexdef(i.indexrelid)
                FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {OURS}) l))",
        TABLES + 1
    );
    let found: Found = source.json(tools, &sql, WITHIN)?;
    if found.tables.len() > TABLES {
        return Err(RecoveryError::Refused(format!("`{}` has more than {TABLES} tables, which can't be compared", source.database)));
    }
    let estimates: BTreeSet<String> = found.tables.iter().filter(|table| table.counted.is_none()).map(|table| table.name.clone()).collect();
    let estimated = estimates.len() as u64;
    let rows = found.tables.into_iter().map(|table| (table.name, table.counted.unwrap_or(table.estimate))).collect();
    Ok(DatabaseSurvey { rows, estimated, estimates, schema: found.schema, roles: found.roles, ..DatabaseSurvey::default() })
}

#[derive(Deserialize)]
struct Found {
    tables: Vec<FoundTable>,
    roles: BTreeSet<String>,
    schema: String,
}

#[derive(Deserialize)]
struct FoundTable {
    name: String,
    estimate: u64,
    counted: Option<u64>,
}

/// Every row there is.
pub(crate) fn total(survey: &Survey) -> u64 {
    survey.values().flat_map(|database| database.rows.values()).fold(0, |sum, rows| sum.saturating_add(*rows))
}

/// What is wrong with a restored database's rows: tables that are missing, and counts outside of the band around what was there.
pub(crate) fn out_of_band(
    before: &DatabaseSurvey,
    after: &DatabaseSurvey,
    restored: &DatabaseSurvey,
    band_percent: u64,
    may_be_empty: &[String],
    is_folder: bool,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let floor = if is_folder { FILES_FLOOR } else { FLOOR };
    for (table, was) in before.rows.iter().filter(|(table, _)| !may_be_empty.contains(table)) {
        // Dropped while it was copied.
        let Some(then) = after.rows.get(table) else { continue };
        let (low, high) = (*was.min(then), *was.max(then));
        let slack = (high / 100).saturating_mul(band_percent).max(floor);
        match restored.rows.get(table) {
            None => wrong.push(format!("`{table}` is missing")),
            // Whatever the slack: what had rows does not come back empty.
            Some(0) if low > 0 => wrong.push(format!("`{table}` is empty, and had {low} rows")),
            // An estimate may be older than the rows that were added since.
            Some(rows) if before.estimates.contains(table) && *rows >= low.saturating_sub(slack) => {}
            Some(rows) if *rows < low.saturating_sub(slack) || *rows > high.saturating_add(slack) => {
                wrong.push(format!("`{table}` has {rows} rows, and had {low}"));
            }
            Some(_) => {}
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_out_of_band() {
        let of = |rows: &[(&str, u64)]| DatabaseSurvey {
            rows: rows.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect(),
            ..DatabaseSurvey::default()
        };
        let was = of(&[("a", 10_000), ("b", 5)]);
        for (restored, wrong) in [
            (of(&[("a", 10_000), ("b", 5)]), 0),
            (of(&[("a", 9_000), ("b", 90), ("new", 7)]), 0),
            (of(&[("a", 8_900), ("b", 5)]), 1),
            (of(&[("a", 11_100), ("b", 5)]), 1),
            (of(&[("a", 10_000), ("b", 0)]), 1),
            (of(&[("b", 5)]), 1),
            (of(&[]), 2),
        ] {
            assert_eq!(out_of_band(&was, &was, &restored, 10, &[], false).len(), wrong, "{restored:?}");
        }
        assert_eq!(out_of_band(&was, &was, &of(&[("a", 10_000), ("b", 0)]), 10, &["b".to_owned()], false).len(), 0);
        let large = DatabaseSurvey { estimates: ["a".to_owned()].into(), ..was.clone() };
        for (rows, wrong) in [(10_000, 0), (50_000, 0), (8_900, 1), (0, 1)] {
            assert_eq!(
                out_of_band(&large, &large, &of(&[("a", rows), ("b", 5)]), 10, &[], false).len(),
                wrong,
                "{rows} of an estimated 10,000"
            );
        }
        let after = of(&[("a", 20_000)]);
        assert!(
            out_of_band(&was, &after, &of(&[("a", 15_000)]), 0, &[], false).is_empty(),
            "between before and after, and one dropped meanwhile"
        );
    }
}
