//! Approvals: the operators' desk. It checks that a command comes from a person's key and second factor, and carries it out.
//!
//! [`ApprovalsDesk`] is the gateway's side: `authentication.rs` says who may from a terminal, `reception.rs` and `counter.rs` who may
//! from the console; `tokens.rs`, `holds.rs`, `operators.rs` and `freezing.rs` what is done. [`OperatorKey`] and [`TotpSecret`] are the person's side. How commands travel is not known here.

mod attempts;
mod authentication;
mod counter;
mod desk;
mod evidence;
mod freezing;
mod holds;
mod operator_key;
mod operators;
mod passkey;
mod reception;
mod sessions;
mod tokens;
mod totp;

#[cfg(test)]
mod memory;
#[cfg(test)]
mod world;

pub use desk::{ApprovalsDesk, DeskOptions, OptionsError, Seal, Unseal};
pub use evidence::{EvidenceError, verify_answer};
pub use operator_key::{OperatorKey, OperatorKeyError};
pub use passkey::{ConsoleOrigin, OriginError};
pub use totp::{TotpError, TotpSecret};
