//! What the gate asks of the ledger: append events, know the state they fold to, follow them.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, RwLockReadGuard},
    task::{Context, Poll},
};

use reprieve_operation::{Event, Recorded, State, Timestamp};
use tokio::sync::{broadcast, oneshot};

/// Why an event was not appended. Nothing of a refused batch is in the ledger.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum AuditError {
    /// Another event with the same uniqueness key came first.
    #[error("`{key}` is already in the ledger")]
    KeyTaken {
        /// The key.
        key: String,
    },
    /// The ledger can't take events: its queue is full, its storage failed, or it has stopped.
    #[error("the ledger is unavailable: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// Records events. Implementations keep their order and fold each into the state before its [`Pending`] resolves.
pub trait Audit: Send + Sync {
    /// Queues an event. Never blocks; the answer comes when the event is durable, or can't be.
    fn append(&self, event: Event) -> Pending;

    /// The state that all durable events fold to. Hold the guard briefly and never across an `await`.
    fn state(&self) -> RwLockReadGuard<'_, State>;

    /// Every event appended from now on, once it is durable. A reader that falls behind is told so by `Lagged`.
    fn follow(&self) -> broadcast::Receiver<Arc<Recorded>>;
}

/// An event on its way to durability: resolves to its index.
#[derive(Debug)]
#[must_use = "an event is not durable until this resolves"]
pub struct Pending(oneshot::Receiver<Result<u64, AuditError>>);

impl Pending {
    /// The two ends: the writer answers through the sender.
    pub fn channel() -> (oneshot::Sender<Result<u64, AuditError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// The answer if it is already there.
    pub fn try_now(&mut self) -> Option<Result<u64, AuditError>> {
        match self.0.try_recv() {
            Ok(answer) => Some(answer),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(stopped())),
        }
    }
}

impl Future for Pending {
    type Output = Result<u64, AuditError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or_else(|_| Err(stopped())))
    }
}

fn stopped() -> AuditError {
    AuditError::Unavailable { reason: "it has stopped".to_owned() }
}

/// The time, handed in so that tests and replays have their own.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;
}
