//! `reprieve demo`: the incident, replayed against a real PostgreSQL that is thrown away afterwards.
//!
//! Nothing in here is acted: the gateway is this program as a child process, the agents are PostgreSQL sessions, the operators'
//! commands are the command line's; only the hosting provider is a stand-in (`provider.rs`). What the gateway claims is checked against what a superuser measures past it, and the demo
//! fails if anything went differently than it must. The database is in `company.rs`, the gateway and its operators in
//! `gateway.rs`, the printing in `page.rs`; `story.rs` has the scenes.

mod company;
mod gateway;
mod page;
mod provider;
mod story;

use std::sync::Arc;

use anyhow::Context as _;
use reprieve_testkit::Railway;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Demo;

/// What a shell calls a program that was interrupted.
const INTERRUPTED: u8 = 130;

pub(crate) fn demo(demo: &Demo) -> anyhow::Result<u8> {
    // It has threads of its own, which must not end inside of ours: it is made before and dropped after the story.
    let railway = Arc::new(Railway::start()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // Whoever loses is dropped, and with it the gateway, the server and their folders.
        tokio::select! {
            ended = story::tell(railway.clone(), demo.keep, demo.worst_case) => ended.map(u8::from),
            _ = interrupt.recv() => Ok(if demo.keep { 0 } else { INTERRUPTED }),
            _ = terminate.recv() => Ok(INTERRUPTED),
        }
    })
}
