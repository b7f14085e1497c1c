//! Notes: what the process that copies, and the verifier, tell the gateway. JSON in a signed note, each once and fresh.

use std::time::Duration;

use reprieve_ledger::{SignedNote, Signer, Verifier};
use reprieve_operation::{Digest, SystemName, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::RecoveryError;

/// A note that is older is not taken: whoever kept one can't use it later.
pub const NOTE_AGE: Duration = Duration::from_secs(15 * 60);

/// A statement, and when it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// When.
    pub at: Timestamp,
    /// What.
    pub say: Say,
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Say {
    /// Signed by whoever copies.
    BackupMade {
        /// The system.
        system: SystemName,
        /// The recovery point.
        point: String,
        /// Its manifest.
        manifest: Digest,
        /// When copying began.
        began: Timestamp,
        /// Its size.
        plain_bytes: u64,
        /// Its size in the vault.
        stored_bytes: u64,
        /// By which engine.
        engine: String,
    },
    /// Signed by whoever copies.
    BackupFailed {
        /// The system.
        system: SystemName,
        /// Why.
        reason: String,
    },
    /// Signed by whoever copies, before anything is removed.
    CopiesPurged {
        /// The system.
        system: SystemName,
        /// The recovery points.
        points: Vec<String>,
        /// How many objects go, and their size.
        objects: u64,
        /// See `objects`.
        stored_bytes: u64,
        /// Parts of the log that go.
        log_files: u64,
    },
    /// Signed by whoever copies, for whoever restored.
    Restored {
        /// The system.
        system: SystemName,
        /// Which restore.
        restore: String,
        /// Whether it came back.
        succeeded: bool,
        /// What came of it.
        what: String,
    },
    /// Signed by the verifier.
    DrillStarted {
        /// The system.
        system: SystemName,
        /// The drill.
        drill: String,
        /// The recovery point.
        point: String,
    },
    /// Signed by the verifier.
    DrillEnded(Box<crate::DrillReport>),
}

/// Signs any statement: one line of JSON.
pub fn sign(statement: &impl Serialize, signer: &Signer) -> Result<String, RecoveryError> {
    let text = serde_json::to_string(statement).map_err(|error| RecoveryError::Damaged(error.to_string()))?;
    let note = SignedNote::sign(&format!("{text}\n"), signer).map_err(|error| RecoveryError::Key(error.to_string()))?;
    Ok(note.to_string())
}

/// The statement in a note, once `key` is known to have signed it.
pub fn statement<T: DeserializeOwned>(note: &str, key: &Verifier) -> Result<T, RecoveryError> {
    let parsed = SignedNote::parse(note).map_err(|error| RecoveryError::Damaged(error.to_string()))?;
    let text = parsed.verify(key).map_err(|error| RecoveryError::Damaged(error.to_string()))?;
    serde_json::from_str(text.trim_end()).map_err(|error| RecoveryError::Damaged(format!("a signed statement is not one: {error}")))
}

/// What a note says that the ledger took: its signature was looked at then. Nothing where it was too long to keep.
pub(crate) fn recorded(note: &str) -> Option<Say> {
    serde_json::from_str::<Notice>(note.lines().next()?).ok().map(|notice| notice.say)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_key_signed_is_believed() {
        let mine = Signer::from_seed("reprieve-verifier", [1; 32]).expect("a key");
        let other = Signer::from_seed("reprieve-verifier", [2; 32]).expect("a key");
        let system: SystemName = "shop".parse().expect("a name");
        let notice = Notice { at: Timestamp(7), say: Say::BackupFailed { system, reason: "no\nroom — at all".to_owned() } };
        let note = sign(&notice, &mine).expect("a note");
        assert_eq!(statement::<Notice>(&note, &mine.verifier()).expect("as signed"), notice);
        assert!(statement::<Notice>(&note, &other.verifier()).is_err());
        assert!(statement::<Notice>(&note.replace("room", "zoom"), &mine.verifier()).is_err());
        assert!(statement::<Notice>("", &mine.verifier()).is_err());
    }
}
