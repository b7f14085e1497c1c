//! The audit: writes every event to the ledger, and shows later that nothing in it was changed.
//!
//! [`AuditLog`] is the gate's `Audit` (`log.rs`), its thread is in `writer.rs`, what a start reads is in `folded.rs`, and what
//! an auditor runs is in `verify.rs` and `prove.rs`. Where rows are kept is the business of `service/store`.

mod clock;
mod folded;
mod head_file;
mod log;
mod prove;
mod record;
mod records;
mod rows;
mod verify;
mod writer;

pub use clock::SystemClock;
pub use folded::LoadError;
pub use head_file::HeadFileError;
pub use log::{AuditLog, AuditOptions, OpenError, SearchError};
pub use prove::{ProveError, Proven, prove_consistency, prove_event};
pub use record::{RecordError, decode};
pub use verify::{Fault, FaultKind, VerifyReport, verify};
