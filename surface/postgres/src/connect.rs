//! Connecting to the protected server: TLS, authentication, startup parameters.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use reprieve_pgwire::{
    Limits,
    backend::{Authentication, BackendChunk, BackendScanner, ServerError, backend_key_data, parameter_status},
    md5::md5_password,
    scram::ScramClient,
    write,
};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use crate::{
    duplex::{Duplex, Stream},
    target::{Target, TlsMode},
};

/// How long a server may take to let us in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Remarks of the server kept while it lets us in.
const MOST_NOTICES: usize = 20;

/// Why the protected server can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The network said no.
    #[error("cannot connect to the server")]
    Network(#[source] std::io::Error),
    /// It took too long.
    #[error("the server did not answer in time")]
    Timeout,
    /// TLS is required and the server has none, or its certificate is not trusted.
    #[error("no trusted TLS connection to the server: {0}")]
    Tls(String),
    /// The server refused the login.
    #[error("the server refused the connection: {}", .0.message().unwrap_or("no reason given"))]
    Refused(ServerError),
    /// The server did something unexpected.
    #[error("the server's answer was not understood: {0}")]
    Protocol(String),
}

/// A server that let us in.
pub(crate) struct Connected {
    pub(crate) stream: Duplex,
    /// What it reported of its settings, in order.
    pub(crate) settings: Vec<(String, String)>,
    /// What it had to remark meanwhile, such as a name that is too long.
    pub(crate) notices: Vec<Bytes>,
    /// Its key for cancellations. Some poolers give none.
    pub(crate) key: Option<(i32, Vec<u8>)>,
}

/// Connects with the client's own startup parameters, so that RESET brings them back.
pub(crate) async fn connect(target: &Target, parameters: &[(String, String)], nonce: String) -> Result<Connected, ConnectError> {
    tokio::time::timeout(CONNECT_TIMEOUT, connect_now(target, parameters, nonce)).await.map_err(|_| ConnectError::Timeout)?
}

/// Opens the bare connection, encrypted as the target wants it.
async fn dial(target: &Target) -> Result<Duplex, ConnectError> {
    let socket = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(ConnectError::Network)?;
    socket.set_nodelay(true).map_err(ConnectError::Network)?;
    let mut stream = Duplex::new(Stream::Plain(socket));
    if target.tls == TlsMode::Off {
        return Ok(stream);
    }
    write::ssl_request(&mut stream.output);
    stream.drain().await;
    while stream.input.is_empty() {
        if !stream.fill().await {
            return Err(ConnectError::Tls("the server hung up".to_owned()));
        }
    }
    match (&*stream.input, target.tls) {
        (b"S", _) => {}
        (b"N", TlsMode::Prefer) => {
            stream.input.clear();
            return Ok(stream);
        }
        (b"N", _) => return Err(ConnectError::Tls("the server does not offer it".to_owned())),
        // Anything after the one byte would be read as if it had come encrypted.
        _ => return Err(ConnectError::Protocol("unexpected bytes before TLS".to_owned())),
    }
    let Stream::Plain(socket) = stream.into_stream() else { return Err(ConnectError::Protocol("not a plain stream".to_owned())) };
    let name = ServerName::try_from(target.host.clone()).map_err(|error| ConnectError::Tls(error.to_string()))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(&target.tls_config));
    let tls = connector.connect(name, socket).await.map_err(|error| ConnectError::Tls(error.to_string()))?;
    Ok(Duplex::new(Stream::TlsClient(Box::new(tls))))
}

async fn connect_now(target: &Target, parameters: &[(String, String)], nonce: String) -> Result<Connected, ConnectError> {
    let protocol = |error: String| ConnectError::Protocol(error);
    let mut stream = dial(target).await?;
    let own = [("user", target.user.as_str()), ("database", target.database.as_str())];
    let all = own.into_iter().chain(parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    write::startup(&mut stream.output, 3 << 16, all).map_err(|error| protocol(error.to_string()))?;
    let mut scanner = BackendScanner::new(Limits::default());
    let mut scram: Option<ScramClient> = None;
    let mut nonce = Some(nonce);
    let mut connected = Connected { stream, settings: Vec::new(), notices: Vec::new(), key: None };
    loop {
        let stream = &mut connected.stream;
        stream.drain().await;
        let chunk = scanner.next(&mut stream.input).map_err(|error| protocol(error.to_string()))?;
        let Some(BackendChunk::Frame { tag, bytes }) = chunk else {
            if !stream.fill().await {
                return Err(protocol("the server hung up".to_owned()));
            }
            continue;
        };
        let body = bytes.get(5..).unwrap_or_default();
        match tag {
            b'E' => return Err(ConnectError::Refused(ServerError::parse(body).map_err(|error| protocol(error.to_string()))?)),
            b'R' => match Authentication::parse(body).map_err(|error| protocol(error.to_string()))? {
                Authentication::Ok if scram.as_ref().is_some_and(|client| !client.is_verified()) => {
                    return Err(protocol("the server did not prove that it knows the password".to_owned()));
                }
                Authentication::Ok => {}
                Authentication::CleartextPassword if matches!(stream.stream(), Stream::TlsClient(_)) => {
                    write::password(&mut stream.output, target.password.as_bytes()).map_err(|error| protocol(error.to_string()))?;
                }
                Authentication::Md5 { salt } => {
                    let hash = md5_password(target.user.as_bytes(), target.password.as_bytes(), salt);
                    write::password(&mut stream.output, hash.as_bytes()).map_err(|error| protocol(error.to_string()))?;
                }
                Authentication::Sasl { mechanisms } if mechanisms.iter().any(|name| name == "SCRAM-SHA-256") => {
                    let nonce = nonce.take().ok_or_else(|| protocol("asked to authenticate twice".to_owned()))?;
                    let client = ScramClient::new("", target.password.as_bytes(), nonce, None, &mechanisms);
                    let mut client = client.map_err(|error| protocol(error.to_string()))?;
                    let (mechanism, first) = client.first();
                    write::sasl_initial(&mut stream.output, mechanism, Some(&first)).map_err(|error| protocol(error.to_string()))?;
                    scram = Some(client);
                }
                Authentication::SaslContinue(data) => {
                    let client = scram.as_mut().ok_or_else(|| protocol("SASL out of order".to_owned()))?;
                    let answer = client.server_first(&data).map_err(|error| protocol(error.to_string()))?;
                    write::sasl_response(&mut stream.output, &answer).map_err(|error| protocol(error.to_string()))?;
                }
                Authentication::SaslFinal(data) => {
                    let client = scram.as_mut().ok_or_else(|| protocol("SASL out of order".to_owned()))?;
                    client.server_final(&data).map_err(|error| protocol(error.to_string()))?;
                }
                other => return Err(protocol(format!("authentication by {other:?} is not supported here"))),
            },
            b'S' => connected.settings.extend(parameter_status(body).map(|(name, value)| (name.to_owned(), value.to_owned()))),
            b'N' if connected.notices.len() < MOST_NOTICES => connected.notices.push(bytes),
            b'K' => connected.key = backend_key_data(body).map(|(pid, key)| (pid, key.to_vec())),
            b'Z' => return Ok(connected),
            _ => {}
        }
    }
}

/// Asks the server to cancel what the connection with this key runs. The server answers nothing.
pub(crate) async fn cancel(target: &Target, pid: i32, key: &[u8]) {
    let sent = async {
        let mut stream = dial(target).await.ok()?;
        write::cancel(&mut stream.output, pid, key).ok()?;
        stream.drain().await;
        // The server closes when it has signalled; waiting for that keeps the order of cancel and next query.
        while stream.fill().await {}
        Some(())
    };
    let _timed_out_or_done = tokio::time::timeout(Duration::from_secs(5), sent).await;
}
