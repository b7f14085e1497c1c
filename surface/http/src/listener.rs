//! The listener: accepts agents' clients, opens tunnels for them, and speaks TLS under the names of services.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use reprieve_effects_http::Catalog;
use reprieve_gate::{Escrow, Gate};
use reprieve_operation::{Event, HoldId, Refusal, SystemName};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::{
    answer::{Body, hold_answer, json_answer, problem, who_are_you},
    asked::{place_of, unfit},
    authority::Authority,
    channel::Channels,
    door::{Entered, enter_by_proxy, enter_directly},
    exchange::{Caller, exchange},
    memory::Memory,
    place::{Place, Scheme},
    reads::{EVERY, ReadLog},
    reverse::HANDSHAKE,
    runner::run_unattended,
    system::System,
    way_back::Ground,
};

/// How long a client may take for a handshake, or for the head of a request.
pub(crate) const HEAD: Duration = Duration::from_secs(15);

/// Headers of a request, and their bytes.
pub(crate) const HEADERS: usize = 100;
pub(crate) const HEAD_BYTES: usize = 64 * 1024;

/// Requests at a time on one connection of HTTP/2.
pub(crate) const STREAMS: u32 = 64;

/// How the surface behaves.
#[derive(Clone)]
pub struct Options {
    /// TLS for clients on other machines.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Connections at a time.
    pub connections: usize,
    /// What agents on other machines call this one.
    pub host: Option<String>,
}

/// The HTTP surface.
pub struct Surface {
    pub(crate) gate: Arc<Gate>,
    pub(crate) systems: Vec<Arc<System>>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) reads: ReadLog,
    pub(crate) memory: Memory,
    /// Changes that are being carried out.
    pub(crate) running: Arc<AtomicUsize>,
    escrow: Arc<dyn Escrow>,
    pub(crate) authority: Authority,
    /// Channels that are open.
    pub(crate) channels: Arc<Channels>,
    options: Options,
    places: Arc<Semaphore>,
}

impl Surface {
    /// A surface for these systems, which keeps in `escrow` what it takes to take changes back.
    #[must_use]
    pub fn new(
        gate: Arc<Gate>,
        systems: Vec<Arc<System>>,
        catalog: Arc<Catalog>,
        escrow: Arc<dyn Escrow>,
        authority: Authority,
        options: Options,
    ) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(options.connections));
        let (reads, running, channels) = (ReadLog::default(), Arc::default(), Arc::default());
        let memory = Memory::new();
        Arc::new(Self { gate, systems, catalog, reads, memory, running, escrow, authority, channels, options, places })
    }

    /// What is known of a service here.
    pub(crate) fn ground<'a>(&'a self, system: &'a System) -> Ground<'a> {
        Ground { catalog: &self.catalog, system, escrow: Some(self.escrow.as_ref()) }
    }

    /// A place for one more connection.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().try_acquire_owned().ok();
        if place.is_none() {
            tracing::warn!("too many connections");
        }
        place
    }

    /// What agents on other machines call this one.
    pub(crate) fn host(&self) -> Option<&String> {
        self.options.host.as_ref()
    }

    /// A service of this surface.
    #[must_use]
    pub fn system(&self, name: &SystemName) -> Option<Arc<System>> {
        self.systems.iter().find(|system| system.name == *name).cloned()
    }

    /// Records reads, and runs what was approved and nobody waits for. Runs for ever.
    pub async fn attend(self: Arc<Self>) {
        let surface = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                surface.reads.flush(&surface.gate);
            }
        });
        run_unattended(self).await;
    }

    /// Accepts clients until `stop` says so.
    pub async fn listen(self: Arc<Self>, listener: TcpListener, stop: watch::Receiver<bool>) {
        self.accept(listener, stop, |socket, peer| self.clone().serve(socket, peer)).await;
    }

    /// Serves each client that comes, as long as there is a place for it, until `stop` says so.
    pub(crate) async fn accept<F: Future<Output = ()> + Send + 'static>(
        &self,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
        serve: impl Fn(TcpStream, SocketAddr) -> F,
    ) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.changed() => return,
            };
            match accepted {
                Ok((socket, peer)) => {
                    let Some(place) = self.place() else { continue };
                    let served = serve(socket, peer);
                    tokio::spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: waiting is all that helps.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Changes that are being carried out.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// What was counted and not yet recorded, at the end.
    pub fn flush(&self) {
        self.reads.flush(&self.gate);
        self.channels.flush(&self.gate);
    }

    async fn serve(self: Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        if socket.set_nodelay(true).is_err() {
            return;
        }
        let mut first = [0u8; 1];
        let Ok(Ok(1)) = timeout(HEAD, socket.peek(&mut first)).await else { return };
        match (&self.options.tls, first[0]) {
            (Some(tls), HANDSHAKE) => {
                let Ok(Ok(stream)) = timeout(HEAD, TlsAcceptor::from(tls.clone()).accept(socket)).await else { return };
                self.front(stream, peer).await;
            }
            _ if peer.ip().is_loopback() => self.front(socket, peer).await,
            _ => tracing::warn!(%peer, "turned away: TLS is required from other machines"),
        }
    }

    /// A client that calls the gateway: as a proxy, or as itself.
    async fn front<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self: Arc<Self>, stream: S, peer: SocketAddr) {
        let callers: Arc<Mutex<Vec<Arc<Caller>>>> = Arc::default();
        let service = service_fn(|request: Request<Incoming>| {
            let (surface, callers) = (self.clone(), callers.clone());
            async move { Ok::<_, std::convert::Infallible>(surface.take(request, peer, &callers).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_headers(HEADERS)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Err(error) = connection.await {
            tracing::debug!(%peer, %error, "a client's connection broke");
        }
        for caller in callers.lock().await.drain(..) {
            caller.leave().await;
        }
    }

    async fn take(self: &Arc<Self>, mut request: Request<Incoming>, peer: SocketAddr, callers: &Mutex<Vec<Arc<Caller>>>) -> Response<Body> {
        let by_proxy = *request.method() == Method::CONNECT || request.uri().scheme().is_some();
        let entered = if by_proxy {
            enter_by_proxy(&self.gate, request.headers(), &peer.to_string())
        } else {
            enter_directly(&self.gate, request.headers(), &peer.to_string())
        };
        let Some(entered) = entered else { return who_are_you(by_proxy) };
        if *request.method() == Method::CONNECT {
            return self.open_tunnel(&mut request, entered, peer);
        }
        if !by_proxy {
            return self.own(request.method(), request.uri().path(), &entered);
        }
        if request.uri().scheme_str() != Some("http") {
            return problem(&self.gate, &unfit("target", "a proxy is asked for `https` by CONNECT"), &json!({}));
        }
        let place = match place_of(Scheme::Http, request.uri(), request.headers()) {
            Ok(place) => place,
            Err(refusal) => return problem(&self.gate, &refusal, &json!({})),
        };
        // Requests of one connection by one agent share a session.
        let caller = {
            let mut callers = callers.lock().await;
            let same = |caller: &&Arc<Caller>| {
                caller.entered.principal.token == entered.principal.token && caller.entered.system == entered.system
            };
            match callers.iter().find(same) {
                Some(caller) => caller.clone(),
                None => {
                    let caller = Arc::new(Caller::new(self.clone(), entered, peer.to_string()));
                    callers.push(caller.clone());
                    caller
                }
            }
        };
        exchange(&caller, place, request).await
    }

    /// What the gateway itself answers to agents.
    pub(crate) fn own(&self, method: &Method, path: &str, entered: &Entered) -> Response<Body> {
        let hold = path.strip_prefix("/holds/").and_then(|id| id.parse::<HoldId>().ok());
        if let (&Method::GET, Some(id)) = (method, hold) {
            let state = self.gate.audit().state();
            // An agent sees its own holds, and no trace of others'.
            if let Some(hold) = state.holds.get(&id).filter(|hold| hold.agent == entered.principal.agent) {
                return hold_answer(hold);
            }
        }
        let document = json!({ "type": "/problems/not-found", "title": "There is nothing here", "status": 404,
            "detail": "This is Reprieve. GET /holds/ID tells an agent how its hold stands." });
        json_answer(StatusCode::NOT_FOUND, "application/problem+json", &document)
    }

    fn open_tunnel(self: &Arc<Self>, request: &mut Request<Incoming>, entered: Entered, peer: SocketAddr) -> Response<Body> {
        let place = match place_of(Scheme::Https, request.uri(), request.headers()) {
            Ok(place) if request.uri().port().is_some() => place,
            Ok(_) => return problem(&self.gate, &unfit("target", "CONNECT names a host and a port"), &json!({})),
            Err(refusal) => return problem(&self.gate, &refusal, &json!({})),
        };
        let caller = Arc::new(Caller::new(self.clone(), entered, peer.to_string()));
        if let Err(refusal) = caller.system(&place) {
            return problem(&self.gate, &refusal, &json!({}));
        }
        // The connection's own place is free as soon as it is a tunnel.
        let Some(kept) = self.place() else {
            return problem(&self.gate, &Refusal::unavailable("connections", "too many connections are open"), &json!({}));
        };
        let upgraded = hyper::upgrade::on(request);
        let surface = self.clone();
        tokio::spawn(async move {
            let _kept = kept;
            match upgraded.await {
                Ok(upgraded) => surface.tunnel(TokioIo::new(upgraded), caller, place).await,
                Err(error) => tracing::debug!(%error, "a tunnel was not opened"),
            }
        });
        Response::new(Body::Whole(None))
    }

    /// Inside a tunnel: TLS under the service's name, and its requests.
    async fn tunnel<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self: Arc<Self>, stream: S, caller: Arc<Caller>, place: Place) {
        let opened = timeout(HEAD, self.handshake(stream, &place)).await;
        let stream = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(reason)) => {
                self.gate.note(Event::SessionRefused {
                    claimed: caller.entered.principal.agent.to_string(),
                    system: place.authority().chars().take(63).collect(),
                    peer: caller.peer.clone(),
                    reason,
                });
                return;
            }
            Err(_) => return,
        };
        let service = service_fn(|request: Request<Incoming>| {
            let (caller, place) = (caller.clone(), place.clone());
            async move { Ok::<_, std::convert::Infallible>(within(&caller, place, request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_headers(HEADERS).max_buf_size(HEAD_BYTES);
        let mut h2 = builder.http2();
        h2.timer(TokioTimer::new()).max_concurrent_streams(STREAMS).max_header_list_size(HEAD_BYTES as u32);
        h2.keep_alive_interval(Duration::from_secs(30)).keep_alive_timeout(HEAD);
        if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "a tunnel's connection broke");
        }
        caller.leave().await;
    }

    async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        place: &Place,
    ) -> Result<tokio_rustls::server::TlsStream<S>, String> {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await.map_err(|error| format!("TLS: {error}"))?;
        let named = start.client_hello().server_name().map(str::to_ascii_lowercase);
        // Addresses have no server name (RFC 6066 section 3); everything else has the one the tunnel was opened for.
        let right = match (&named, place.address()) {
            (Some(named), _) => *named == place.host,
            (None, Some(_)) => true,
            (None, None) => false,
        };
        if !right {
            return Err("the server name of the TLS handshake is not the tunnel's".to_owned());
        }
        let config = self.authority.config_for(&place.host, self.gate.now()).map_err(|error| error.to_string())?;
        start.into_stream(config).await.map_err(|error| format!("TLS: {error}"))
    }
}

/// A request inside a tunnel: for the tunnel's host and no other.
async fn within(caller: &Arc<Caller>, place: Place, request: Request<Incoming>) -> Response<Body> {
    let refuse = |refusal: &Refusal| problem(&caller.surface.gate, refusal, &json!({}));
    if *request.method() == Method::CONNECT {
        return refuse(&unfit("method", "a tunnel leads to one host, and no further"));
    }
    if request.uri().scheme_str().is_some_and(|scheme| scheme != "https") {
        return refuse(&unfit("target", "a request inside of TLS is for `https`"));
    }
    match place_of(Scheme::Https, request.uri(), request.headers()) {
        Ok(asked) if asked == place => exchange(caller, place, request).await,
        Ok(_) => refuse(&unfit("host", "the request is for another host than its tunnel")),
        Err(refusal) => refuse(&refusal),
    }
}
