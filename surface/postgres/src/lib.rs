//! The PostgreSQL surface: agents connect as to any server, and everything they do goes through the gate.
//!
//! Start with `session.rs`: one client's messages, in and out. `door.rs` lets a client in, `run.rs` runs what may change something,
//! `measure.rs` and `guard.rs` measure it, `wire.rs` moves the bytes. `protect.rs` sets a database up for all that.

mod answer;
mod bounds;
mod check;
mod connect;
mod door;
mod duplex;
mod empty;
mod estimate;
mod extended;
mod guard;
mod guard_function;
mod known;
mod lanes;
mod listener;
mod measure;
mod protect;
mod reads;
mod replies;
mod run;
mod runner;
mod samples;
mod secured;
mod session;
mod sessions;
mod strict;
mod system;
mod tally;
mod target;
mod transaction;
mod trial;
mod wire;

pub use answer::sqlstate;
pub use check::{Finding, Level, check};
pub use connect::ConnectError;
pub use listener::{Options, Surface};
pub use protect::{Aim, Plan, ProtectError, Step, carry_out, plan};
pub use system::System;
pub use target::{Target, TargetError, TlsMode};

/// A text that no PostgreSQL can parse: it fails whatever transaction is open, and says why in the server's log.
pub(crate) const POISON: &str = "reprieve refused this statement";

/// A nonce for one SCRAM exchange.
pub(crate) fn nonce() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(rand::random::<[u8; 18]>())
}
