//! The nouns every part of Reprieve speaks in: operations, effects, reach, decisions, and the events that record them.
//!
//! Pure data: no clock, socket, file or async runtime is known here. The state of a gateway is a fold over [`Event`]s;
//! see `event.rs` for what is recorded and `state.rs` for the fold.

mod decision;
mod effect;
mod event;
mod id;
mod operation;
mod reach;
mod recovery;
mod role;
mod sample;
mod scope;
mod state;
mod token;

pub use decision::{Answer, Budget, Decision, Facts, Needs, RecoveryFacts, Refusal, RefusalKind, Terms, Undoability};
pub use effect::{Effect, Hazard, Kind, ObjectKind, ObjectName, Rewrite};
pub use event::{Event, HeldReason, Moment, Outcome, ReadTally, Recorded};
pub use id::{AgentName, Digest, Environment, HoldId, IntentId, OperatorName, SessionId, SystemName, Timestamp, TokenId, UndoId};
pub use operation::{Action, Operation, Parameters, Principal, Protocol};
pub use reach::{Found, Reach, TableReach};
pub use recovery::{DrillState, NewestCopy, RECOVERABLE, RecoveryState};
pub use role::Role;
pub use sample::{Sample, SampleRow};
pub use scope::{Pattern, Scope, ScopeError};
pub use state::{
    AgentState, HoldState, HoldStatus, InvitationState, LostOutcome, Next, OpenIntent, OperatorState, PasskeyState, State, VOUCHED,
};
pub use token::{SCRAM_ITERATIONS, ScramVerifier, Token, TokenError};
