//! What the server that was copied had room for: what was prepared or locked there needs as much here to come back.

use std::path::Path;

use crate::{RecoveryError, Tools, tools::run};

use super::STEP;

/// What the control file says, what ours is called, and the least that we give.
const ROOMS: [(&str, &str, u64); 2] =
    [("max_prepared_xacts setting:", "max_prepared_transactions", 200), ("max_locks_per_xact setting:", "max_locks_per_transaction", 512)];

/// The settings of a server over these files that its log demands.
pub(super) fn demands(tools: &Tools, data: &Path, segment_bytes: u64) -> Result<Vec<(&'static str, String)>, RecoveryError> {
    let mut command = tools.served("pg_controldata");
    command.arg("-D").arg(data);
    let told = run(command, STEP)?;
    let mut settings = rooms(&told);
    settings.extend(sizes(segment_bytes));
    Ok(settings)
}

fn rooms(told: &str) -> Vec<(&'static str, String)> {
    let value = |label: &str| told.lines().find_map(|line| line.strip_prefix(label)?.trim().parse::<u64>().ok());
    ROOMS.iter().map(|(label, name, least)| (*name, value(label).unwrap_or(0).max(*least).to_string())).collect()
}

/// PostgreSQL's own sizes of its log are for segments of 16 MB, and it refuses less than two segments.
fn sizes(segment_bytes: u64) -> Vec<(&'static str, String)> {
    let two = segment_bytes.saturating_mul(2) >> 20;
    vec![("min_wal_size", format!("{}MB", two.max(80))), ("max_wal_size", format!("{}MB", two.max(1_024)))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_gets_at_least_what_the_other_had() {
        let told = "wal_level setting:                    replica\nmax_prepared_xacts setting:           900\nmax_locks_per_xact setting:           64\n";
        assert_eq!(rooms(told), [("max_prepared_transactions", "900".to_owned()), ("max_locks_per_transaction", "512".to_owned())]);
        assert_eq!(rooms("")[0].1, "200");
        for (segment, min, max) in
            [(1 << 20, "80MB", "1024MB"), (16 << 20, "80MB", "1024MB"), (64 << 20, "128MB", "1024MB"), (1 << 30, "2048MB", "2048MB")]
        {
            assert_eq!(sizes(segment), [("min_wal_size", min.to_owned()), ("max_wal_size", max.to_owned())]);
        }
    }
}
