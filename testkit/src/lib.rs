//! Throw-away servers for tests, the demo and the benchmarks.
//!
//! A [`Postgres`] is a real PostgreSQL in a temporary folder on a free loopback port; it goes away with
//! its value, and also when the process that started it dies. Nothing here knows the gateway.
//! See `postgres.rs`; where the binaries are found is in `binaries.rs`, who runs them in `account.rs`.

mod account;
mod binaries;
mod certificate;
mod port;
mod postgres;
mod template;
mod workshop;

pub use binaries::Binaries;
pub use port::free_port;
pub use postgres::{Postgres, PostgresOptions, WalLevel};
