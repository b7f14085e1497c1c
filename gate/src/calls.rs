//! Calls to services and their way back: what the surface that sends them and the service that keeps things know of each other.
//!
//! The surface looks at what a call changes and hands that over to be kept ([`Escrow`]); an operator's undo is planned where changes
//! are known, and carried out by the surface again ([`TakeBack`]), which alone has the credentials.

use reprieve_operation::{AgentName, IntentId, Moment, SystemName};

use crate::{UndoChoice, upstream::Running};

/// Something of a call that is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeping {
    /// The call's intent, or the one of the undo that makes it.
    pub intent: IntentId,
    /// Who.
    pub agent: AgentName,
    /// Where.
    pub system: SystemName,
    /// Of which moment it tells.
    pub moment: Moment,
    /// What the call changes.
    pub resource: String,
    /// In the surface's own encoding.
    pub bytes: Vec<u8>,
}

/// Keeps what takes calls back, outside of the services' reach.
pub trait Escrow: Send + Sync {
    /// Whether something could be kept now; the reason if not.
    fn ready(&self) -> Running<'_, Result<(), String>>;

    /// Keeps something. It is durable, and on record, when this resolves.
    fn keep(&self, keeping: Keeping) -> Running<'_, Result<(), String>>;
}

/// What was kept of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCall {
    /// Where.
    pub system: SystemName,
    /// How things were.
    pub before: Vec<u8>,
    /// How the call left them; `None`: that could not be kept.
    pub after: Option<Vec<u8>>,
}

/// What taking a call back does to what it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallDone {
    /// It is made again.
    Restored,
    /// It is changed back.
    Reverted,
    /// It is taken out.
    Removed,
    /// It already is as it was.
    Already,
    /// It stays as somebody made it since.
    Left,
}

/// How something is not as the call left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallConflict {
    /// It was changed since.
    Changed,
    /// It was taken away since.
    Deleted,
    /// It was made since.
    Added,
}

/// What taking a call back did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallReport {
    /// What the call changed.
    pub resource: String,
    /// What is done with it.
    pub done: CallDone,
    /// Whether somebody changed it since.
    pub conflict: Option<CallConflict>,
    /// As it would become, and as it is; `None`: nothing.
    pub wanted: Option<String>,
    /// As it is now.
    pub now: Option<String>,
    /// What of the undo itself can't be taken back.
    pub lasting: Vec<String>,
}

/// Why a call was not taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// Nothing was changed.
    #[error("{0}")]
    Before(String),
    /// It was changed since by somebody else, and nothing was changed now.
    #[error("`{}` was changed since by somebody else", .0.resource)]
    Conflict(Box<CallReport>),
    /// Whether it was is not known.
    #[error("{0}")]
    Unknown(String),
}

/// A call's two states as people read them.
pub type CallStates = (Option<String>, Option<String>);

/// Takes calls back.
pub trait TakeBack: Send + Sync {
    /// Whether this is one of its services.
    fn serves(&self, system: &SystemName) -> bool;

    /// What taking a call back would do. Nothing is changed.
    fn preview<'a>(&'a self, call: &'a KeptCall, choice: UndoChoice) -> Running<'a, Result<CallReport, CallFailure>>;

    /// Takes a call back under an intent that is on record, and keeps what that takes to be taken back itself.
    fn take_back<'a>(
        &'a self,
        call: &'a KeptCall,
        choice: UndoChoice,
        intent: IntentId,
        agent: AgentName,
    ) -> Running<'a, Result<CallReport, CallFailure>>;

    /// What was changed, as it was before and after.
    fn states(&self, call: &KeptCall) -> Result<CallStates, CallFailure>;
}
