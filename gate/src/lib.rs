//! The gate: carries one operation from request to recorded outcome.
//!
//! It knows what it needs of others only as traits: the ledger ([`Audit`]), the operators' desk ([`Desk`]), the time
//! ([`Clock`]) and the protected system ([`Upstream`]). Start reading in `gate.rs`.

mod audit;
mod calls;
mod checklist;
mod coverage;
mod desk;
mod gate;
mod holding;
mod permit;
mod reception;
mod records;
mod recovery;
mod simulation;
mod spending;
mod texts;
mod upstream;

pub use audit::{Audit, AuditError, Clock, Pending};
pub use calls::{CallConflict, CallDone, CallFailure, CallReport, CallStates, Escrow, Keeping, KeptCall, TakeBack};
pub use checklist::{Fix, Mark, Measured, Point, checklist};
pub use coverage::{Coverage, Room, Sampling, Strict};
pub use desk::{Command, Desk, DeskAnswer, DeskError, Revert, RowName, SignedCommand, UndoChoice, UndoRequest};
pub use gate::{Considered, Gate, GateOptions};
pub use permit::{Approved, Clearance, OpenIntent, Permit, Release};
pub use reception::{
    Answering, Assertion, Counter, Invited, NewPasskey, Proposal, Provider, ProviderAnswer, Reception, Redirect, SignIn, SignedIn,
    SignedOn, UNSIGNED, Vouched,
};
pub use records::{
    ChangeView, Changes, ConflictView, EventProof, LedgerCheck, Looking, RecordQuery, Records, RecordsError, RowView, Searched, UndoPreview,
};
pub use recovery::{
    Copies, Covered, DrillDay, Expected, FAILURES, Failure, LastDrill, Objective, Recovery, RecoveryReport, Spread, SystemRecovery,
    Unproven, is_behind,
};
pub use simulation::{AnswerChange, Said, Simulated, UsedRights, Verdict};
pub use texts::{AskedText, Texts};
pub use upstream::{Done, Ran, Running, Upstream};
