//! What a ledger folds to: its state and frontier, read at the start from the newest snapshot and the rows after it.
//!
//! Every row that is folded is hashed into the frontier, which must end at the signed head; a snapshot is believed only under
//! our own signature, and if it was folded as we fold. So a start never acts on a row that somebody else changed, nor on a state
//! that an earlier version made of the rows.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use reprieve_ledger::{Checkpoint, CheckpointError, Frontier, FrontierError, Hash, NoteError, SignedNote, Signer, Verifier, leaf_hash};
use reprieve_operation::{FOLD_RULES, State, Timestamp};
use reprieve_store::{Head, Reader, Snapshot, StoreError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{
    record::{RecordError, decode},
    rows::Rows,
};

/// A ledger folded up to its frontier.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folded {
    pub(crate) state: State,
    pub(crate) frontier: Frontier,
    /// The last event's time.
    pub(crate) last_at: Timestamp,
}

/// Why a ledger can't be believed. `ledger verify` says more.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The store can't be read.
    #[error("cannot read the ledger")]
    Store(#[from] StoreError),
    /// The newest checkpoint is not ours.
    #[error("the ledger's checkpoint is not acceptable")]
    Checkpoint(#[from] CheckpointError),
    /// The stored frontier is none.
    #[error("the ledger's frontier is not acceptable")]
    Frontier(#[from] FrontierError),
    /// A row is not an event.
    #[error("event {index} of the ledger cannot be read")]
    Record {
        /// Which one.
        index: u64,
        /// Why.
        source: RecordError,
    },
    /// Rows, frontier and checkpoint disagree.
    #[error("the ledger was changed at event {index} or before: {what}")]
    Changed {
        /// Where it shows.
        index: u64,
        /// How it shows.
        what: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
struct SnapshotBody {
    frontier: Vec<u8>,
    last_at: Timestamp,
    state: State,
}

impl Folded {
    /// Reads a ledger up to its signed head.
    pub(crate) fn load(reader: &dyn Reader, key: &Verifier) -> Result<Self, LoadError> {
        let changed = |index, what| Err(LoadError::Changed { index, what });
        let Some(head) = reader.head()? else {
            return if reader.rows(0, 1)?.is_empty() { Ok(Self::default()) } else { changed(0, "its head is missing") };
        };
        let end = signed_end(&head, key)?;
        let mut folded = Self::from_snapshot(reader, key, end.size()).unwrap_or_else(|why| {
            tracing::warn!(why, "the ledger's snapshot is not used, reading every event");
            Self::default()
        });
        if folded.frontier.size() == end.size() && end.size() > 0 {
            folded.check_last_row(reader)?;
        }
        for row in Rows::from(reader, folded.frontier.size()) {
            let row = row?;
            if row.index != folded.frontier.size() {
                return changed(folded.frontier.size(), "it is missing");
            }
            folded.take(&row.body, row.leaf_hash)?;
        }
        if folded.frontier == end { Ok(folded) } else { changed(folded.frontier.size(), "its rows do not lead to its signed head") }
    }

    /// Folds one row, which has to be the next.
    pub(crate) fn take(&mut self, body: &[u8], stored_hash: Hash) -> Result<(), LoadError> {
        let index = self.frontier.size();
        let recorded = decode(body).map_err(|source| LoadError::Record { index, source })?;
        if recorded.index != index || recorded.at < self.last_at || leaf_hash(body) != stored_hash {
            return Err(LoadError::Changed { index, what: "its place, its time or its hash is not its own" });
        }
        self.frontier.append(stored_hash);
        self.last_at = recorded.at;
        self.state.apply(&recorded);
        Ok(())
    }

    /// With a snapshot at the head no row is folded: a tail that was cut off has to show here.
    fn check_last_row(&self, reader: &dyn Reader) -> Result<(), LoadError> {
        let index = self.frontier.size() - 1;
        let rows = reader.rows(index, 1)?;
        match rows.first() {
            Some(row) if row.index == index && leaf_hash(&row.body) == row.leaf_hash => Ok(()),
            _ => Err(LoadError::Changed { index, what: "it is missing" }),
        }
    }

    /// The snapshot of this, signed.
    pub(crate) fn snapshot(&self, signer: &Signer) -> Result<Snapshot, SnapshotError> {
        let body = SnapshotBody { frontier: self.frontier.to_bytes(), last_at: self.last_at, state: self.state.clone() };
        let body = serde_json::to_vec(&body)?;
        let text = snapshot_text(signer.name(), &self.frontier, &body);
        let note = SignedNote::sign(&text, signer)?.to_string();
        Ok(Snapshot { size: self.frontier.size(), note, body })
    }

    /// What the newest snapshot holds, or why it is of no use.
    fn from_snapshot(reader: &dyn Reader, key: &Verifier, end: u64) -> Result<Self, &'static str> {
        let Some(snapshot) = reader.snapshot().map_err(|_| "it can't be read")? else { return Ok(Self::default()) };
        let folded = Self::open(&snapshot, key).ok_or("another version made it, or it is not what was signed")?;
        let stored = reader.checkpoints(snapshot.size, 1).map_err(|_| "its checkpoint can't be read")?;
        let checkpoint = stored.first().and_then(|(_, note)| Checkpoint::open(note, key).ok());
        let vouched = checkpoint.is_some_and(|it| it.size == snapshot.size && it.root == folded.frontier.root());
        if vouched && snapshot.size <= end { Ok(folded) } else { Err("no checkpoint of its size is there") }
    }

    /// Reads a snapshot that `key` signed.
    pub(crate) fn open(snapshot: &Snapshot, key: &Verifier) -> Option<Self> {
        let note = SignedNote::parse(&snapshot.note).ok()?;
        let text = note.verify(key).ok()?;
        let body: SnapshotBody = serde_json::from_slice(&snapshot.body).ok()?;
        let frontier = Frontier::from_bytes(&body.frontier).ok()?;
        let same = text == snapshot_text(key.name(), &frontier, &snapshot.body) && frontier.size() == snapshot.size;
        same.then_some(Self { state: body.state, frontier, last_at: body.last_at })
    }
}

/// Why no snapshot could be made.
#[derive(Debug, Error)]
pub(crate) enum SnapshotError {
    #[error("the state cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the snapshot cannot be signed")]
    Note(#[from] NoteError),
}

/// The frontier of the stored head, once its checkpoint's signature, size and root agree.
pub(crate) fn signed_end(head: &Head, key: &Verifier) -> Result<Frontier, LoadError> {
    let checkpoint = Checkpoint::open(&head.checkpoint, key)?;
    let frontier = Frontier::from_bytes(&head.frontier)?;
    if checkpoint.size == head.size && frontier.size() == head.size && frontier.root() == checkpoint.root {
        Ok(frontier)
    } else {
        Err(LoadError::Changed { index: head.size, what: "its frontier does not belong to its checkpoint" })
    }
}

/// The hash of what events are folded by.
static RULES: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    FOLD_RULES.iter().for_each(|text| hash.update(text));
    BASE64.encode(hash.finalize())
});

/// What is signed for a snapshot. The first line can't be a checkpoint's: an origin has no space.
fn snapshot_text(origin: &str, frontier: &Frontier, body: &[u8]) -> String {
    let root = BASE64.encode(frontier.root());
    format!("reprieve snapshot v2 {origin}\n{}\n{root}\n{}\n{}\n", frontier.size(), BASE64.encode(Sha256::digest(body)), *RULES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_other_rules_made_is_not_read() {
        let signer = Signer::from_seed("ledger", [5; 32]).expect("a key");
        let folded = Folded::default();
        let snapshot = folded.snapshot(&signer).expect("signed");
        assert!(Folded::open(&snapshot, &signer.verifier()).is_some());
        let text = snapshot_text(signer.name(), &folded.frontier, &snapshot.body);
        let before = format!("{}\n", text.replace("v2", "v1").lines().take(4).collect::<Vec<_>>().join("\n"));
        for other in [text.replace(RULES.as_str(), &BASE64.encode([0; 32])), before] {
            let note = SignedNote::sign(&other, &signer).expect("signed").to_string();
            assert!(Folded::open(&Snapshot { note, ..snapshot.clone() }, &signer.verifier()).is_none(), "{other}");
        }
    }
}
