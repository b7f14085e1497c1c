//! Lanes: the threads that serve sessions. A session stays on the one it began on.
//!
//! Most of a statement's time here is waiting for a socket, and on a shared scheduler each wait ends with a thread waking another.
//! A lane waits for its own sockets and serves them itself. What is not a session (accepting, the catalogue, freezes) runs elsewhere,
//! so that no session keeps it waiting.

use std::{
    future::Future,
    net::TcpStream,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// The lanes. Dropped, they end, and so does whatever still runs on them.
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
}

struct Lane {
    runtime: Handle,
    /// Sessions on it, and those on their way.
    sessions: Arc<AtomicUsize>,
    /// Never sent: its end is the message.
    _ends: oneshot::Sender<()>,
}

impl Lanes {
    /// A lane for each processor.
    pub(crate) fn new() -> std::io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Self { lanes: (0..count).map(Lane::new).collect::<std::io::Result<_>>()? })
    }

    /// Serves a client's connection on the lane with the fewest sessions.
    pub(crate) fn serve<S: Future<Output = ()> + Send>(
        &self,
        socket: TcpStream,
        serve: impl FnOnce(tokio::net::TcpStream) -> S + Send + 'static,
    ) {
        let Some(lane) = self.lanes.iter().min_by_key(|lane| lane.sessions.load(Ordering::Relaxed)) else { return };
        let place = Place::on(lane);
        lane.runtime.spawn(async move {
            // The socket is waited for where it is made one of the runtime's.
            match tokio::net::TcpStream::from_std(socket) {
                Ok(socket) => serve(socket).await,
                Err(error) => tracing::warn!(%error, "cannot wait for a client's connection"),
            }
            drop(place);
        });
    }
}

impl Lane {
    fn new(number: usize) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (ends, ended) = oneshot::channel::<()>();
        thread::Builder::new().name(format!("sessions-{number}")).spawn(move || drop(runtime.block_on(ended)))?;
        Ok(Self { runtime: handle, sessions: Arc::default(), _ends: ends })
    }
}

/// A session's place on a lane, however the session ends.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn on(lane: &Lane) -> Self {
        lane.sessions.fetch_add(1, Ordering::Relaxed);
        Self(lane.sessions.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
