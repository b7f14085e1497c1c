//! The auditor: recomputes a whole ledger and says whether anything in it was changed, and where it shows first.
//!
//! It believes nothing but the public key: every event is hashed again, every checkpoint's signature and root is checked,
//! and so are the columns that events are searched and kept unique by, and the snapshot that a start would read.

use std::fmt;

use reprieve_ledger::{Checkpoint, Frontier, Hash, Verifier};
use reprieve_operation::{State, Timestamp};
use reprieve_store::{Reader, Row, StoreError};

use crate::{
    folded::{Folded, signed_end},
    record::{decode, row_of},
    rows::{Checkpoints, Rows},
};

/// What an auditor finds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct VerifyReport {
    /// How many events are good: all of them, or those before the fault.
    pub size: u64,
    /// The root over these.
    pub root: Hash,
    /// How many signed checkpoints were checked.
    pub checkpoints: u64,
    /// The first thing that is wrong.
    pub fault: Option<Fault>,
}

impl VerifyReport {
    /// Whether nothing was changed.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.fault.is_none()
    }
}

/// Something is wrong with the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The first event that is, or may be, concerned.
    pub index: u64,
    /// What is wrong.
    pub kind: FaultKind,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// The event's bytes do not have the hash that was stored with them.
    Changed,
    /// The event is not there, though later ones are.
    Removed,
    /// The event says that it belongs elsewhere.
    Reordered {
        /// Where it says that it belongs.
        says: u64,
    },
    /// The event is older than the one before it.
    TimeBackwards,
    /// The bytes are not an event.
    Unreadable,
    /// The columns that the event is searched by or kept unique by are not its own.
    Columns,
    /// Some event from this one up to the checkpoint's size is not the one that was signed.
    NotAsSigned {
        /// The checkpoint's size.
        checkpoint: u64,
    },
    /// The checkpoint of this size is not signed by the ledger's key.
    BadCheckpoint,
    /// Signed events are missing at the end.
    Truncated {
        /// How many events were signed.
        signed: u64,
    },
    /// There are events that no checkpoint vouches for.
    Unsigned,
    /// The newest head is missing, or its frontier is not that of the events.
    BadHead,
    /// The ledger ends before the head that is kept outside of it.
    RolledBack {
        /// Events as of that head.
        head: u64,
    },
    /// The ledger has other events than those that the head outside of it was signed for.
    Forked {
        /// Events as of that head.
        head: u64,
    },
    /// The head outside is not a checkpoint by the ledger's key.
    BadHeadNote,
    /// The snapshot is signed, and is not what the events fold to.
    BadSnapshot,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = self.index;
        match &self.kind {
            FaultKind::Changed => write!(f, "event {index} was changed"),
            FaultKind::Removed => write!(f, "event {index} was removed"),
            FaultKind::Reordered { says } => write!(f, "events were reordered: at {index} is the event of {says}"),
            FaultKind::TimeBackwards => write!(f, "event {index} is older than the one before it"),
            FaultKind::Unreadable => write!(f, "event {index} is not one"),
            FaultKind::Columns => write!(f, "event {index} can be searched under a false kind, agent, hold, key or time"),
            FaultKind::NotAsSigned { checkpoint } => {
                write!(f, "an event from {index} to {} is not the one that was signed", checkpoint.saturating_sub(1))
            }
            FaultKind::BadCheckpoint => write!(f, "the checkpoint of {index} events is not signed by the ledger's key"),
            FaultKind::Truncated { signed } => write!(f, "the end was cut off: {signed} events were signed, {index} are there"),
            FaultKind::Unsigned => write!(f, "no checkpoint vouches for the events from {index} on"),
            FaultKind::BadHead => write!(f, "the head of {index} events is missing or does not belong to them"),
            FaultKind::RolledBack { head } => write!(f, "the ledger was rolled back: {head} events are known, {index} are there"),
            FaultKind::Forked { head } => write!(f, "the ledger was rewritten: its first {head} events are not those that are known"),
            FaultKind::BadHeadNote => write!(f, "the head kept outside the ledger is not signed by the ledger's key"),
            FaultKind::BadSnapshot => write!(f, "the snapshot of {index} events is not what they fold to"),
        }
    }
}

/// Recomputes a ledger. The reader has to be one [`Reader::as_of_now`] where somebody may append meanwhile; `head_note` is the newest checkpoint known from elsewhere: without one a rollback can't show.
pub fn verify(reader: &dyn Reader, key: &Verifier, head_note: Option<&str>) -> Result<VerifyReport, StoreError> {
    let mut audit = Recount::default();
    let fault = audit.run(reader, key, head_note)?;
    Ok(VerifyReport { size: audit.frontier.size(), root: audit.frontier.root(), checkpoints: audit.checkpoints, fault })
}

#[derive(Default)]
struct Recount {
    frontier: Frontier,
    last_at: Timestamp,
    state: State,
    checkpoints: u64,
    /// The size of the last good checkpoint.
    signed: u64,
}

impl Recount {
    fn run(&mut self, reader: &dyn Reader, key: &Verifier, head_note: Option<&str>) -> Result<Option<Fault>, StoreError> {
        let fault = |index, kind| Ok(Some(Fault { index, kind }));
        let known = match head_note.map(|note| Checkpoint::open(note, key)) {
            None => None,
            Some(Ok(head)) => Some(head),
            Some(Err(_)) => return fault(0, FaultKind::BadHeadNote),
        };
        let snapshot = reader.snapshot()?.and_then(|snapshot| Folded::open(&snapshot, key));
        let mut checkpoints = Checkpoints::all(reader);
        let mut rows = Rows::from(reader, 0);
        loop {
            let size = self.frontier.size();
            while let Some((at, note)) = checkpoints.up_to(size)? {
                if let Some(kind) = self.check_checkpoint(at, &note, key) {
                    let index = if kind == FaultKind::BadCheckpoint { at } else { self.signed };
                    return fault(index, kind);
                }
            }
            if known.as_ref().is_some_and(|known| known.size == size && known.root != self.frontier.root()) {
                return fault(self.signed.min(size.saturating_sub(1)), FaultKind::Forked { head: size });
            }
            let differs =
                |snapshot: &Folded| snapshot.frontier.size() == size && (snapshot.state != self.state || snapshot.last_at != self.last_at);
            if snapshot.as_ref().is_some_and(differs) {
                return fault(size, FaultKind::BadSnapshot);
            }
            let Some(row) = rows.next() else { break };
            if let Some(kind) = self.take(row?) {
                return fault(size, kind);
            }
        }
        let size = self.frontier.size();
        if let Some((signed, _)) = checkpoints.peek()? {
            let mut newest = *signed;
            while let Some((size, _)) = checkpoints.up_to(u64::MAX)? {
                newest = size;
            }
            return fault(size, FaultKind::Truncated { signed: newest });
        }
        if let Some(known) = known.filter(|known| known.size > size) {
            return fault(size, FaultKind::RolledBack { head: known.size });
        }
        if self.signed < size {
            return fault(self.signed, FaultKind::Unsigned);
        }
        let good = match reader.head() {
            Ok(None) => size == 0,
            Ok(Some(head)) => signed_end(&head, key).is_ok_and(|end| end == self.frontier),
            Err(StoreError::Damaged(_)) => false,
            Err(error) => return Err(error),
        };
        if good { Ok(None) } else { fault(size, FaultKind::BadHead) }
    }

    /// Takes the next row; says what is wrong with it.
    fn take(&mut self, row: Row) -> Option<FaultKind> {
        let index = self.frontier.size();
        if row.index != index {
            return Some(FaultKind::Removed);
        }
        if reprieve_ledger::leaf_hash(&row.body) != row.leaf_hash {
            return Some(FaultKind::Changed);
        }
        let Ok(recorded) = decode(&row.body) else { return Some(FaultKind::Unreadable) };
        if recorded.index != index {
            return Some(FaultKind::Reordered { says: recorded.index });
        }
        if recorded.at < self.last_at {
            return Some(FaultKind::TimeBackwards);
        }
        if row_of(&recorded, row.body.clone()) != row {
            return Some(FaultKind::Columns);
        }
        self.frontier.append(row.leaf_hash);
        self.last_at = recorded.at;
        self.state.apply(&recorded);
        None
    }

    fn check_checkpoint(&mut self, size: u64, note: &str, key: &Verifier) -> Option<FaultKind> {
        let Ok(checkpoint) = Checkpoint::open(note, key) else { return Some(FaultKind::BadCheckpoint) };
        if checkpoint.size != size {
            return Some(FaultKind::BadCheckpoint);
        }
        if checkpoint.root != self.frontier.root() {
            return Some(FaultKind::NotAsSigned { checkpoint: size });
        }
        self.checkpoints += 1;
        self.signed = size;
        None
    }
}

#[cfg(test)]
mod tests;
