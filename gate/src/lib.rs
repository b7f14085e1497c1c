//! The gate: carries one operation from request to recorded outcome.
//!
//! It knows what it needs of others only as traits: the ledger ([`Audit`]), the operators' desk ([`Desk`]), the time
//! ([`Clock`]) and the protected system ([`Upstream`]). Start reading in `gate.rs`.

mod audit;
mod desk;

pub use audit::{Audit, AuditError, Clock, Pending};
pub use desk::{Command, Desk, DeskAnswer, DeskError, SignedCommand};
