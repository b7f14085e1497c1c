//! The records, for people: events found and proven, changes and how each stands.

use std::{future::Future, pin::Pin, time::Duration};

use reprieve_operation::{AgentName, Environment, HoldId, OperatorName, Reach, Recorded, SessionId, SystemName, Timestamp, UndoId};

use crate::{RowName, UndoChoice};

/// Which events to find; everything given has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordQuery {
    /// Of this kind.
    pub kind: Option<String>,
    /// About this agent.
    pub agent: Option<AgentName>,
    /// About this hold.
    pub hold: Option<HoldId>,
    /// With this text, case and all.
    pub text: Option<String>,
    /// Before this index: where the last page ended.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

/// What a search found before its time was up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Searched {
    /// Events, newest first.
    pub found: Vec<Recorded>,
    /// Where it stopped: older events have not been looked at. `None`: it has found as many as it may, or looked at all.
    pub stopped_at: Option<u64>,
}

/// An event that anybody can check with the public key alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventProof {
    /// The event's bytes.
    pub body: Vec<u8>,
    /// The proof as a file to hand out.
    pub text: String,
    /// How many hashes lead from the event to the root.
    pub hashes: usize,
}

/// What came of recounting the whole ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerCheck {
    /// When.
    pub at: Timestamp,
    /// How many events are as they were signed.
    pub size: u64,
    /// What is wrong with the next one.
    pub fault: Option<String>,
}

/// Why records can't be shown.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum RecordsError {
    /// The ledger, the vault or a database is not there.
    #[error("{0}")]
    Unavailable(String),
    /// There is nothing of that name.
    #[error("{0}")]
    Missing(String),
}

/// Reads the ledger. Its methods block for as long as the store takes.
pub trait Records: Send + Sync {
    /// Events, newest first.
    fn search(&self, query: &RecordQuery) -> Result<Vec<Recorded>, RecordsError>;

    /// The same within a time, which it keeps to but for a moment.
    fn search_for(&self, query: &RecordQuery, patience: Duration) -> Result<Searched, RecordsError>;

    /// One event, and the proof that it is in the ledger.
    fn prove(&self, index: u64) -> Result<EventProof, RecordsError>;

    /// The newest signed checkpoint, as text.
    fn checkpoint(&self) -> Result<Option<String>, RecordsError>;

    /// The key that checkpoints are signed with, as text.
    fn verifier(&self) -> String;

    /// What came of recounting it the last time, if that was done since the start.
    fn checked(&self) -> Option<LedgerCheck>;
}

/// A change, as people look at it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeView {
    /// Its number.
    pub undo: UndoId,
    /// Where the ledger says how it ended.
    pub index: u64,
    /// When it became final.
    pub at: Timestamp,
    /// Who.
    pub agent: AgentName,
    /// The operator, where it was an undo itself.
    pub operator: Option<OperatorName>,
    /// On which connection.
    pub session: Option<SessionId>,
    /// Where.
    pub system: SystemName,
    /// In what environment.
    pub environment: Environment,
    /// The statements, literals redacted.
    pub text: String,
    /// What it was measured to reach.
    pub reach: Reach,
    /// Until when it can be undone.
    pub expires: Timestamp,
    /// Why it can't be undone; `None` if it can.
    pub because: Option<String>,
}

/// One row's change, as the database spells rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowView {
    /// Which table.
    pub table: String,
    /// `None`: there was no row.
    pub before: Option<String>,
    /// `None`: there is no row.
    pub after: Option<String>,
}

/// A row that somebody changed since, as the database spells rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictView {
    /// Which table.
    pub table: String,
    /// By what it can be chosen; nothing where its table has no key.
    pub row: Option<RowName>,
    /// As it is; `None`: there is no row.
    pub now: Option<String>,
    /// As it would become; `None`: it would be removed.
    pub wanted: Option<String>,
}

/// What undoing a change would do, and the rows it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoPreview {
    /// Rows of the change as it was made, the first of them.
    pub rows: Vec<RowView>,
    /// What would be done, in words; or why it can't be.
    pub plan: Result<String, String>,
    /// Rows that somebody changed since, the first of them.
    pub conflicts: Vec<ConflictView>,
    /// All of them.
    pub conflicts_found: u64,
}

/// Shows what can be taken back.
pub trait Changes: Send + Sync {
    /// The newest changes.
    fn list(&self, limit: usize) -> Looking<'_, Vec<ChangeView>>;

    /// One change.
    fn find(&self, id: UndoId) -> Looking<'_, ChangeView>;

    /// What undoing it would do. Nothing stays of it.
    fn preview(&self, id: UndoId, choice: UndoChoice) -> Looking<'_, UndoPreview>;
}

/// A look on its way.
pub type Looking<'a, T> = Pin<Box<dyn Future<Output = Result<T, RecordsError>> + Send + 'a>>;
