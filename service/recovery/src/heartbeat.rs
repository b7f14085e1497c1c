//! Heartbeats: a row that says when it was written. In a restored copy it tells how old the copy is, whoever restores it.

use std::time::Duration;

use crate::{RecoveryError, Source, Tools};

const WITHIN: Duration = Duration::from_secs(20);

/// Writes the row, and its table where that is missing.
pub fn beat(source: &Source) -> Result<(), RecoveryError> {
    let sql = "SET client_min_messages = error; SET lock_timeout = '5s';
        CREATE SCHEMA IF NOT EXISTS reprieve_recovery;
        CREATE TABLE IF NOT EXISTS reprieve_recovery.heartbeat (one boolean PRIMARY KEY DEFAULT true CHECK (one), at timestamptz NOT NULL);
        INSERT INTO reprieve_recovery.heartbeat (at) VALUES (pg_catalog.clock_timestamp())
          ON CONFLICT (one) DO UPDATE SET at = excluded.at";
    source.sql(&Tools::find(None)?, sql, WITHIN).map(drop)
}

/// Milliseconds since the epoch of the newest heartbeat, if there is one.
pub(crate) fn last(source: &Source, tools: &Tools) -> Result<Option<u64>, RecoveryError> {
    let known = source.sql(tools, "SELECT pg_catalog.to_regclass('reprieve_recovery.heartbeat') IS NOT NULL", WITHIN)?;
    if known != "t" {
        return Ok(None);
    }
    let at =
        source.sql(tools, "SELECT pg_catalog.max((extract(epoch FROM at) * 1000)::bigint) FROM reprieve_recovery.heartbeat", WITHIN)?;
    Ok(at.parse().ok())
}
