//! Coverage: up to when all that was committed is in the vault, in a small file beside what is received. For whoever shows it.

use std::{fs, io::Write as _, path::Path};

use reprieve_operation::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Lsn, RecoveryError};

/// How the log of a system stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// All that was committed until then is in the vault, since the log began. Whether a copy goes before it is in the ledger:
    /// none does after `log_broken`, until one is made.
    pub until: Option<Timestamp>,
    /// The same as a place in the log.
    pub lsn: Option<Lsn>,
    /// Of which cluster.
    pub cluster: Option<String>,
    /// Since when something is wrong; none if nothing is.
    pub since: Option<Timestamp>,
    /// And what.
    pub trouble: Option<String>,
}

/// What was noted last about the log that is received into `folder`. None where nothing was.
#[must_use]
pub fn read_coverage(folder: &Path) -> Option<Coverage> {
    serde_json::from_slice(&fs::read(folder.with_file_name(FILE)).ok()?).ok()
}

/// Beside the folder, which may be set aside.
const FILE: &str = "stream.json";

pub(super) fn write_coverage(folder: &Path, coverage: &Coverage) -> Result<(), RecoveryError> {
    let path = folder.with_file_name(FILE);
    let write = || {
        let mut new = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
        new.write_all(&serde_json::to_vec(coverage)?)?;
        new.persist(&path).map(drop).map_err(|error| error.error)
    };
    write().map_err(RecoveryError::file(format!("write `{}`", path.display())))
}
