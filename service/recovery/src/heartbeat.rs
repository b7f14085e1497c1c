//! Heartbeats: a row that says when it was written. In a restored copy it tells how old the copy is, whoever restores it.

use std::time::Duration;

use crate::{RecoveryError, Source, Tools};

const WITHIN: Duration = Duration::from_secs(20);

/// Writes the row, and its table where that is missing. What only looks like our table is not written to: a trigger of somebody else's
/// would run with our rights, and a view could say any time.
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
                       AND NOT c.relhastriggers AND NOT c.relhasrules AND NOT c.relrowsecurity AND (o.rolname = current_user OR o.rolsuper))
          THEN RAISE EXCEPTION 'reprieve_recovery.heartbeat is somebody else''s: drop the schema reprieve_recovery';
          END IF;
        END $$;
        INSERT INTO reprieve_recovery.heartbeat (at) VALUES (clock_timestamp()) ON CONFLICT (one) DO UPDATE SET at = excluded.at;
        COMMIT";
    source.sql(&Tools::find(None)?, sql, WITHIN).map(drop)
}

/// Milliseconds since the epoch of the newest heartbeat, if there is one.
pub(crate) fn last(source: &Source, tools: &Tools) -> Result<Option<u64>, RecoveryError> {
    let kind = "SELECT coalesce((SELECT c.relkind::text || c.relhasrules::text FROM pg_catalog.pg_class c
        WHERE c.oid = pg_catalog.to_regclass('reprieve_recovery.heartbeat')), 'none')";
    match source.sql(tools, kind, WITHIN)?.as_str() {
        "none" => return Ok(None),
        "rfalse" => {}
        other => return Err(RecoveryError::Check(format!("the heartbeat that came back is no table of ours ({other})"))),
    }
    let sql = "SELECT pg_catalog.max((extract(epoch FROM at) * 1000)::pg_catalog.int8) FROM ONLY reprieve_recovery.heartbeat";
    Ok(source.sql(tools, sql, WITHIN)?.parse().ok())
}
