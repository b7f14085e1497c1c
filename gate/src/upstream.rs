//! The protected system as the gate sees it: something that runs a permitted operation once and tells what it did.

use std::{future::Future, pin::Pin};

use reprieve_operation::{Operation, Reach, Refusal, Sample};

use crate::permit::Permit;

/// A future that an [`Upstream`] answers with.
pub type Running<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How a permitted run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ran {
    /// It is final.
    Final(Done),
    /// The system itself said no; nothing was changed.
    Failed {
        /// SQLSTATE or status.
        code: String,
    },
    /// It reached further than the permit allows and was rolled back.
    Beyond(Reach),
    /// Its client undid it.
    Abandoned,
    /// The system went away while it became final: whether it did is not known.
    Unknown,
}

/// A finished run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The system's word for it, e.g. `DELETE 3`.
    pub tag: String,
    /// What it was measured to reach.
    pub reach: Reach,
    /// The transaction's id, where one was assigned.
    pub xid: Option<u64>,
    /// The result in the surface's own encoding, where nobody waited for it.
    pub kept: Option<String>,
}

/// Runs operations on a protected system, for one client or for none.
pub trait Upstream: Send {
    /// Runs the operation inside a transaction, measures it, and makes it final only with the permit's clearance.
    fn run<'a>(&'a mut self, permit: Permit<'a>) -> Running<'a, Result<Ran, Refusal>>;

    /// What the operation would reach, without anything of it becoming final. `None` where that can't be known.
    fn estimate<'a>(&'a mut self, operation: &'a Operation) -> Running<'a, Option<Reach>>;

    /// A few of the rows that the operation, which is about to be held, would take away or alter. Nothing where that can't be known.
    fn samples<'a>(&'a mut self, _operation: &'a Operation) -> Running<'a, Vec<Sample>> {
        Box::pin(async { Vec::new() })
    }

    /// Whether the operation can be run later for a client that waits: nothing of it has been sent to the client yet.
    fn can_wait(&self) -> bool;

    /// Tells the waiting client that it waits, if it can hear that.
    fn tell_waiting<'a>(&'a mut self, refusal: &'a Refusal) -> Running<'a, ()>;

    /// Resolves when the client is no longer there.
    fn gone(&mut self) -> Running<'_, ()>;

    /// Hands over a result that was kept from a run by Reprieve itself. `false`: it doesn't fit what the client expects.
    fn deliver<'a>(&'a mut self, kept: &'a str) -> Running<'a, bool>;
}
