//! A throw-away service: HTTPS on a free loopback port, answering as a function says, and remembering what it was asked.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{HeaderName, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_rustls::TlsAcceptor;

use crate::certificate::Certificate;

/// What it was asked.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Received {
    /// A header's first value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What it answers.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// JSON with status 200.
    #[must_use]
    pub fn json(value: &serde_json::Value) -> Reply {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Reply { status: 200, headers, body: value.to_string().into_bytes() }
    }

    /// Text with a status.
    #[must_use]
    pub fn text(status: u16, text: &str) -> Reply {
        Reply { status, headers: vec![("content-type".to_owned(), "text/plain".to_owned())], body: text.as_bytes().to_vec() }
    }
}

type Handler = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// A running service. It ends when dropped.
pub struct Service {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    authority: PathBuf,
    _folder: TempDir,
    _runtime: Runtime,
}

impl Service {
    /// Starts a service for `localhost` and 127.0.0.1 that answers what `handler` says.
    pub fn start(handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Result<Service> {
        let folder = tempfile::Builder::new().prefix("reprieve-service-").tempdir().context("cannot make a folder")?;
        let certificate = Certificate::for_localhost()?;
        let authority = folder.path().join("ca.crt");
        fs::write(&authority, &certificate.authority).context("cannot write the authority")?;
        let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes()).collect::<std::result::Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = config.with_no_client_auth().with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().context("cannot start threads")?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).context("cannot listen")?;
        let address = listener.local_addr().context("cannot read the port")?;
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        runtime.spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), Arc::new(handler), received.clone()));
        Ok(Service { address, received, authority, _folder: folder, _runtime: runtime })
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where it is: `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The authority that signed its certificate, as a PEM file.
    #[must_use]
    pub fn authority_file(&self) -> PathBuf {
        self.authority.clone()
    }

    /// Everything it was asked so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Settings of a gateway's system that is this service under the name `host`.
    #[must_use]
    pub fn settings(&self, host: &str) -> String {
        format!("hosts = [\"{host}\"]\nurl = \"{}\"\nca = \"{}\"\n", self.url(), self.authority.display())
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("address", &self.address).finish_non_exhaustive()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, handler: Handler, received: Arc<Mutex<Vec<Received>>>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (acceptor, handler, received) = (acceptor.clone(), handler.clone(), received.clone());
        // Small answers must not wait for acknowledgements.
        let _ = socket.set_nodelay(true);
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let service = service_fn(|request| answer(request, handler.clone(), received.clone()));
            // A client that goes away is no failure here.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    handler: Handler,
    received: Arc<Mutex<Vec<Received>>>,
) -> std::result::Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let asked = Received {
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: body.collect().await?.to_bytes().to_vec(),
    };
    let reply = handler(&asked);
    received.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = hyper::StatusCode::from_u16(reply.status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
            response.headers_mut().append(name, value);
        }
    }
    Ok(response)
}
