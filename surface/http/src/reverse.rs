//! Listeners of one service: agents call the gateway as if it were that service, without a proxy.
//!
//! At an address the agent shows its token where it would show the service's credential, or in a header of its own. Sockets on this
//! machine are in `sockets.rs`: there the socket says who asks.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, Version, header::HOST};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Mutex, watch},
    time::timeout,
};
use tokio_rustls::LazyConfigAcceptor;

use crate::{
    answer::{Body, problem, who_are_you},
    asked::unfit,
    door::{Entered, enter_as, enter_for},
    exchange::{Caller, exchange},
    listener::{HEAD, HEAD_BYTES, HEADERS, STREAMS, Surface},
    place::Place,
    system::System,
};

/// Where an agent asks the gateway itself, below a service's own paths.
pub(crate) const OWN: &str = "/.reprieve";

/// The first byte of a TLS handshake (RFC 8446 section 5.1).
pub(crate) const HANDSHAKE: u8 = 22;

/// How who asks is known.
#[derive(Clone)]
pub(crate) enum Known {
    /// By what each request shows.
    ByToken,
    /// By the socket it came through, which is one agent's.
    BySocket(reprieve_operation::AgentName),
}

/// A service's own listener.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) surface: Arc<Surface>,
    pub(crate) system: Arc<System>,
    /// The service, as agents' requests mean it.
    pub(crate) home: Place,
    pub(crate) known: Known,
}

impl Surface {
    /// Accepts clients of one service at an address until `stop` says so.
    pub async fn listen_for(self: Arc<Self>, system: Arc<System>, listener: TcpListener, stop: watch::Receiver<bool>) {
        let Some(home) = system.home() else { return tracing::error!(system = %system.name, "it has no host of its own") };
        let front = Front { surface: self.clone(), system, home, known: Known::ByToken };
        self.accept(listener, stop, |socket, peer| front.clone().open(socket, peer)).await;
    }
}

impl Front {
    async fn open(self, socket: TcpStream, peer: SocketAddr) {
        let mut first = [0u8; 1];
        if socket.set_nodelay(true).is_err() || !matches!(timeout(HEAD, socket.peek(&mut first)).await, Ok(Ok(1))) {
            return;
        }
        if first[0] != HANDSHAKE {
            if peer.ip().is_loopback() {
                self.serve(socket, peer.to_string()).await;
            } else {
                tracing::warn!(%peer, "turned away: TLS is required from other machines");
            }
            return;
        }
        match timeout(HEAD, self.handshake(socket)).await {
            Ok(Ok(stream)) => self.serve(stream, peer.to_string()).await,
            Ok(Err(reason)) => tracing::debug!(%peer, reason, "no TLS"),
            Err(_) => {}
        }
    }

    /// TLS under the name or address that the gateway is called by here.
    async fn handshake(&self, socket: TcpStream) -> Result<tokio_rustls::server::TlsStream<TcpStream>, String> {
        let address = socket.local_addr().map_err(|error| error.to_string())?.ip().to_canonical();
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), socket).await.map_err(|error| error.to_string())?;
        let name = match start.client_hello().server_name().map(str::to_ascii_lowercase) {
            None => address.to_string(),
            // The authority signs for no name that somebody else might have.
            Some(name) if name == "localhost" || self.surface.host() == Some(&name) => name,
            Some(_) => return Err("it is not called by that name".to_owned()),
        };
        let config = self.surface.authority.config_for(&name, self.surface.gate.now()).map_err(|error| error.to_string())?;
        start.into_stream(config).await.map_err(|error| error.to_string())
    }

    /// Serves one connection.
    pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S, peer: String) {
        let callers: Arc<Mutex<Vec<Arc<Caller>>>> = Arc::default();
        let service = service_fn(|request: Request<Incoming>| {
            let (front, callers, peer) = (self.clone(), callers.clone(), peer.clone());
            async move { Ok::<_, std::convert::Infallible>(front.take(request, &peer, &callers).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_headers(HEADERS).max_buf_size(HEAD_BYTES);
        let mut h2 = builder.http2();
        h2.timer(TokioTimer::new()).max_concurrent_streams(STREAMS).max_header_list_size(HEAD_BYTES as u32);
        h2.keep_alive_interval(Duration::from_secs(30)).keep_alive_timeout(HEAD);
        if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
            tracing::debug!(peer, %error, "a client's connection broke");
        }
        for caller in callers.lock().await.drain(..) {
            caller.leave().await;
        }
    }

    async fn take(&self, request: Request<Incoming>, peer: &str, callers: &Mutex<Vec<Arc<Caller>>>) -> Response<Body> {
        let gate = &self.surface.gate;
        let entered = match &self.known {
            Known::ByToken => enter_for(gate, request.headers(), self.system.credential.header(), peer),
            Known::BySocket(agent) => enter_as(gate, agent),
        };
        let Some(entered) = entered else { return who_are_you(false) };
        if let Err(refusal) = plain(&request) {
            return problem(gate, &refusal, &json!({}));
        }
        if let Some(path) = request.uri().path().strip_prefix(OWN) {
            return self.surface.own(request.method(), path, &entered);
        }
        let caller = self.caller(entered, peer, callers).await;
        exchange(&caller, self.home.clone(), request).await
    }

    /// Requests of one connection by one agent share a session.
    async fn caller(&self, entered: Entered, peer: &str, callers: &Mutex<Vec<Arc<Caller>>>) -> Arc<Caller> {
        let mut callers = callers.lock().await;
        if let Some(caller) = callers.iter().find(|caller| caller.entered.principal == entered.principal) {
            return caller.clone();
        }
        let entered = Entered { system: Some(self.system.name.clone()), ..entered };
        let caller = Arc::new(Caller::new(self.surface.clone(), entered, peer.to_owned()).directly());
        callers.push(caller.clone());
        caller
    }
}

/// Whether a request is for this listener's service and for nothing else. The host that it names is not sent on.
fn plain(request: &Request<Incoming>) -> Result<(), reprieve_operation::Refusal> {
    if *request.method() == Method::CONNECT {
        return Err(unfit("method", "this is a service's own listener and no proxy"));
    }
    if request.version() != Version::HTTP_2 && request.uri().authority().is_some() {
        return Err(unfit("target", "this is a service's own listener: it is asked by path"));
    }
    if request.headers().get_all(HOST).iter().count() > 1 {
        return Err(unfit("host", "the request has two `Host` headers"));
    }
    Ok(())
}
