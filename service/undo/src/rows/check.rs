//! Checks: after rows were put back, that no foreign key is broken and that nothing else was done.

use std::collections::BTreeMap;

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

/// With foreign keys left out, what was put back may refer to rows that are gone, and what was taken out may be referred to.
pub(super) async fn check_foreign_keys(work: &Transaction<'_>, part: &Part) -> Result<(), UndoError> {
    let Part { table, pairs, only_deleted: _ } = part;
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
    for Part { table, pairs, only_deleted: _ } in parts {
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
