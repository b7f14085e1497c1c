//! Connections to services: names resolved here, addresses checked, TLS verified, connections reused per service. A service of this
//! machine may be at a socket's path instead.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::{
        self,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use ipnet::IpNet;
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{address::resolve, file::Outgoing};

/// How long reaching a service may take, TLS included.
const CONNECT: Duration = Duration::from_secs(15);

/// How long a connection waits for its next request.
const IDLE: Duration = Duration::from_secs(60);

/// Idle connections to one service.
const IDLE_CONNECTIONS: usize = 64;

/// Sends requests to one service. Follows no redirect, decodes nothing, keeps no cookie.
pub(crate) type Client = legacy::Client<Connector, Outgoing>;

/// A client over a connector.
pub(crate) fn client(connector: Connector) -> Client {
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .set_host(false)
        .http1_max_buf_size(256 * 1024)
        .build(connector)
}

/// Opens connections to a service.
#[derive(Clone)]
pub(crate) struct Connector {
    networks: Arc<[IpNet]>,
    tls: TlsConnector,
    socket: Option<Arc<Path>>,
}

impl Connector {
    pub(crate) fn new(networks: Vec<IpNet>, tls: rustls::ClientConfig) -> Self {
        Self { networks: networks.into(), tls: TlsConnector::from(Arc::new(tls)), socket: None }
    }

    /// To a socket of this machine, and nowhere else.
    pub(crate) fn at(self, socket: Option<PathBuf>) -> Self {
        Self { socket: socket.map(Arc::from), ..self }
    }

    async fn open(self, uri: Uri) -> io::Result<Stream> {
        if let Some(path) = &self.socket {
            return Ok(Stream::Local(TokioIo::new(UnixStream::connect(path).await?)));
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let encrypted = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let addresses = resolve(&host, port, &self.networks).await.map_err(io::Error::other)?;
        let mut failed = io::Error::other("no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    if !encrypted {
                        return Ok(Stream::Plain(TokioIo::new(socket)));
                    }
                    let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                    let stream = self.tls.connect(name, socket).await?;
                    return Ok(Stream::Tls(Box::new(TokioIo::new(stream))));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it took too long to connect");
            timeout(CONNECT, connector.open(uri)).await.map_err(late)?
        })
    }
}

/// A connection to a service.
pub(crate) enum Stream {
    Plain(TokioIo<TcpStream>),
    Local(TokioIo<UnixStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        match self {
            Self::Tls(stream) if stream.inner().get_ref().1.alpn_protocol() == Some(b"h2") => connected.negotiated_h2(),
            Self::Plain(_) | Self::Local(_) | Self::Tls(_) => connected,
        }
    }
}

impl Read for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Local(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Local(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Local(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Local(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}
