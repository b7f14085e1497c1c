//! Throw-away servers for tests, the demo and the benchmarks.
//!
//! A [`Postgres`] is a real PostgreSQL in a temporary folder on a free loopback port; it goes away with
//! its value, and also when the process that started it dies. A [`Gateway`] is the real program in front of it, known from
//! outside only: nothing here imports a part of it.
//! See `postgres.rs` and `gateway.rs`; where the binaries are found is in `binaries.rs`, who runs them in `account.rs`.

mod account;
mod binaries;
mod browser;
mod bucket;
mod certificate;
mod gateway;
mod operators;
mod port;
mod postgres;
mod program;
mod railway;
mod service;
mod template;
mod workshop;

pub use binaries::Binaries;
pub use browser::Browser;
pub use bucket::{Bucket, Who};
pub use gateway::{EnvironmentBudget, Gateway, GatewayOptions, GuardedService, GuardedSystem};
pub use port::free_port;
pub use postgres::{Postgres, PostgresOptions, WalLevel};
pub use program::program;
pub use railway::Railway;
pub use service::{Received, Reply, Service};
