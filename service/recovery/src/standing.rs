//! How a server stands to being copied: what the role that copies may, and what the server has room for.

use std::time::Duration;

use serde::Deserialize;

use crate::{RecoveryError, Slot, Source, Tools};

const WITHIN: Duration = Duration::from_secs(20);

/// What the server and the role that copies allow.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Standing {
    /// The server's major version.
    pub major: u32,
    /// Whether the role may replicate.
    pub replicates: bool,
    /// Whether it may read every table.
    pub reads_all: bool,
    /// `minimal`, `replica` or `logical`.
    pub wal_level: String,
    /// Connections that may receive the log, and how many do.
    pub senders: (u64, u64),
    /// Slots that there may be, and how many there are.
    pub slots: (u64, u64),
    /// How much a slot may keep: `-1` is without bound.
    pub slot_bound: String,
    /// Whom the server waits for at each commit.
    pub waits_for: String,
    /// Our slot.
    pub slot: Option<Slot>,
}

impl Standing {
    /// Asks the server about itself, and about the slot of that name.
    pub fn of(source: &Source, slot: &str) -> Result<Self, RecoveryError> {
        let sql = format!(
            "SET search_path = pg_catalog;
             SELECT json_build_object('major', current_setting('server_version_num')::int / 10000,
              'replicates', (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user),
              'reads_all', pg_has_role(current_user, 'pg_read_all_data', 'USAGE'),
              'wal_level', current_setting('wal_level'),
              'senders', json_build_array(current_setting('max_wal_senders')::int, (SELECT count(*) FROM pg_stat_get_wal_senders())),
              'slots', json_build_array(current_setting('max_replication_slots')::int, (SELECT count(*) FROM pg_replication_slots)),
              'slot_bound', current_setting('max_slot_wal_keep_size'),
              'waits_for', current_setting('synchronous_standby_names'), 'slot', {})",
            Slot::query(slot)
        );
        source.json(&Tools::find(None)?, &sql, WITHIN)
    }

    /// Whether the server's doors let the role in to replicate, which is a line of its own in `pg_hba.conf`.
    pub fn lets_in(source: &Source) -> Result<(), RecoveryError> {
        source.replication(&Tools::find(None)?, "IDENTIFY_SYSTEM", WITHIN).map(drop)
    }

    /// Whether the server waits for this receiver at each commit, as far as the setting tells.
    #[must_use]
    pub fn waits_for(&self, name: &str) -> bool {
        self.waits_for.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '*').any(|word| word == name || word == "*")
    }
}
