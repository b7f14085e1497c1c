//! Heartbeats: a row that says when it was written. In a restored copy it tells how old the copy is, whoever restores it.

use std::time::Duration;

use serde::Deserialize;

use crate::{RecoveryError, Source, Tools};

const WITHIN: Duration = Duration::from_secs(20);

/// Writes the row, and its table where that is missing. What only looks like our table is not written to: a trigger of somebody else's
/// would run with our rights, and a view could say any time. (`relhastriggers` and `relhasrules` stay set when these are gone.)
pub fn beat(source: &Source) -> Result<(), RecoveryError> {
    let sql = "SET client_min_messages = error; SET lock_timeout = '5s'; SET search_path = pg_catalog;
        BEGIN;
        CREATE SCHEMA IF NOT EXISTS reprieve_recovery;
        CREATE TABLE IF NOT EXISTS reprieve_recovery.heartbeat (one boolean PRIMARY KEY DEFAULT true CHECK (one), at timestamptz NOT NULL);
        DO $$ BEGIN
          IF EXISTS (SELECT FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner
                     WHERE n.nspname = 'reprieve_recovery' AND o.rolname <> current_user AND NOT o.rolsuper)
            OR NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles o ON o.oid = c.relowner
                     WHERE n.nspname = 'reprieve_recovery' AND c.relname = 'heartbeat' AND c.relkind = 'r' AND c.relpersistence = 'p'
                       AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid) AND NOT EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid)
                       AND NOT c.relrowsecurity AND (o.rolname = current_user OR o.rolsuper))
          THEN RAISE EXCEPTION 'reprieve_recovery.heartbeat is somebody else''s: drop the schema reprieve_recovery';
          END IF;
        END $$;
        INSERT INTO reprieve_recovery.heartbeat (at) VALUES (clock_timestamp()) ON CONFLICT (one) DO UPDATE SET at = excluded.at;
        COMMIT";
    source.sql(&Tools::find(None)?, sql, WITHIN).map(drop)
}

/// Statements, each after what it is for.
type Statements = Vec<(&'static str, &'static str)>;

/// What takes the table away: statements with what they are for, and what is left because it is not ours.
pub fn heartbeat_removal(source: &Source) -> Result<(Statements, Option<String>), RecoveryError> {
    // Only the table itself hangs on the schema directly: its index, type and constraint hang on the table.
    let found = "SET search_path = pg_catalog;
        SELECT json_build_object('owner', o.rolname, 'ours', o.rolname = current_user OR o.rolsuper,
          'table', EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'heartbeat' AND c.relkind = 'r'),
          'others', (SELECT count(*) FROM pg_depend d WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
             AND NOT EXISTS (SELECT FROM pg_class c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relname = 'heartbeat' AND c.relkind = 'r')))
        FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner WHERE n.nspname = 'reprieve_recovery'
        UNION ALL SELECT 'null' WHERE to_regnamespace('reprieve_recovery') IS NULL";
    let Some(found) = source.json::<Option<Found>>(&Tools::find(None)?, found, WITHIN)? else { return Ok((Vec::new(), None)) };
    if !found.ours {
        return Ok((Vec::new(), Some(format!("the schema `reprieve_recovery` belongs to `{}`", found.owner))));
    }
    let mut steps = Vec::new();
    if found.table {
        steps.push(("stop dating copies", "DROP TABLE reprieve_recovery.heartbeat"));
    }
    if found.others > 0 {
        return Ok((steps, Some(format!("the schema `reprieve_recovery` has {} objects that are not ours", found.others))));
    }
    steps.push(("take the heartbeats' schema away", "DROP SCHEMA reprieve_recovery"));
    Ok((steps, None))
}

/// What is in the place of our schema.
#[derive(Deserialize)]
struct Found {
    owner: String,
    ours: bool,
    table: bool,
    others: u64,
}

/// Milliseconds since the epoch of the newest heartbeat, if there is one.
pub(crate) fn last(source: &Source, tools: &Tools) -> Result<Option<u64>, RecoveryError> {
    let kind = "SELECT coalesce((SELECT c.relkind::text || EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid)::text
        FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass('reprieve_recovery.heartbeat')), 'none')";
    match source.sql(tools, kind, WITHIN)?.as_str() {
        "none" => return Ok(None),
        "rfalse" => {}
        other => return Err(RecoveryError::Check(format!("the heartbeat that came back is no table of ours ({other})"))),
    }
    let sql = "SELECT pg_catalog.max((extract(epoch FROM at) * 1000)::pg_catalog.int8) FROM ONLY reprieve_recovery.heartbeat";
    Ok(source.sql(tools, sql, WITHIN)?.parse().ok())
}
