//! The listener: TLS and HTTP/1.1, one request a connection, everything bounded.

use std::{future::Future, net::IpAddr, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    door::Peer,
    feed::{Feed, follow},
    pages, routes,
    site::{Console, Site},
};

/// What bounds a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    /// For the TLS handshake, the request's head, and its body, each.
    pub(crate) read: Duration,
    /// For all of it, the answer included: undoing a large change takes minutes.
    pub(crate) whole: Duration,
    pub(crate) drain: Duration,
}

impl Limits {
    const STANDARD: Self =
        Self { connections: 320, read: Duration::from_secs(10), whole: Duration::from_secs(15 * 60), drain: Duration::from_secs(10) };
}

/// Serves operators until `shutdown` resolves, then lets running commands finish for a while.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, console: Arc<Console>, shutdown: impl Future<Output = ()>) {
    serve_within(Limits::STANDARD, listener, tls, console, shutdown).await;
}

pub(crate) async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    console: Arc<Console>,
    shutdown: impl Future<Output = ()>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let (close, closing) = watch::channel(false);
    let feed = Feed::new();
    let following = tokio::spawn(follow(feed.clone(), console.clone(), closing.clone()));
    let (desk, recovery) = (console.desk.clone(), console.recovery.clone());
    let site = Arc::new(Site::new(console, feed, closing, limits.read));
    let router = routes::guarded(routes::router(desk, recovery, limits.read).merge(pages::router(site)));
    let room = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (permit, stream, peer) = accept(&listener, &room) => {
                let (acceptor, router) = (acceptor.clone(), router.clone().layer(Extension(Peer(peer))));
                connections.spawn(async move {
                    if timeout(limits.whole, answer(limits, stream, acceptor, router)).await.is_err() {
                        tracing::debug!("an operator's connection took too long");
                    }
                    drop(permit);
                });
            }
        }
    }
    drop(listener);
    // Streams of events would not end by themselves.
    close.send_replace(true);
    following.abort();
    let drained = timeout(limits.drain, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(open = connections.len(), "operators' connections are cut off");
    }
}

/// Waits for room first: more connections wait in the system's queue, which is bounded too.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> (OwnedSemaphorePermit, TcpStream, IpAddr) {
    let permit = room.clone().acquire_owned().await.expect("nobody closes the semaphore");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (permit, stream, peer.ip()),
            Err(error) => {
                // Out of descriptors, mostly. Without a pause this would be a busy loop.
                tracing::warn!(%error, "cannot accept an operator's connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(limits: Limits, stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
    let Ok(Ok(stream)) = timeout(limits.read, acceptor.accept(stream)).await else {
        tracing::debug!("an operator's TLS handshake failed");
        return;
    };
    // One request a connection: no idle connection takes up room.
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.read)
        .keep_alive(false)
        .max_headers(64)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an operator's connection broke");
    }
}
