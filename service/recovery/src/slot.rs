//! The slot: the place in a server's write-ahead log up to which it was received. The server keeps what comes after, for as long as
//! the slot is there: one that nobody reads fills its disk.

use std::time::Duration;

use reprieve_operation::SystemName;
use serde::Deserialize;

use crate::{RecoveryError, Source, Tools};

const WITHIN: Duration = Duration::from_secs(20);

/// A system's slot, and the name by which its receiver is known to the server: what `synchronous_standby_names` has to name.
#[must_use]
pub fn slot_name(system: &SystemName) -> String {
    format!("reprieve_{}", system.as_str().replace(|c: char| !c.is_ascii_alphanumeric(), "_").to_ascii_lowercase())
}

/// A slot that is there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Slot {
    /// The server's process that sends from it; none: nobody reads it.
    pub reader: Option<i32>,
    /// How much of the log is there because of it.
    pub kept_bytes: u64,
}

impl Slot {
    /// A subquery for it as JSON; null if it is not there. A standby knows its log by another function.
    pub(crate) fn query(name: &str) -> String {
        format!(
            "(SELECT pg_catalog.json_build_object('reader', s.active_pid, 'kept_bytes',
               coalesce(greatest(pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                ELSE pg_catalog.pg_current_wal_lsn() END, s.restart_lsn), 0), 0)::pg_catalog.int8)
              FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = '{name}')"
        )
    }

    /// What drops it.
    #[must_use]
    pub fn removal(name: &str) -> String {
        format!("SELECT pg_catalog.pg_drop_replication_slot('{name}')")
    }

    /// Drops it. A server doesn't drop one that is being read.
    pub fn drop_now(source: &Source, name: &str) -> Result<(), RecoveryError> {
        source.sql(&Tools::find(None)?, &Self::removal(name), WITHIN).map(drop)
    }
}
