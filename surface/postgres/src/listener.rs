//! The listener: accepts clients, TLS or not, and starts their sessions.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use reprieve_gate::Gate;
use reprieve_operation::Refusal;
use reprieve_pgwire::{
    Limits,
    frontend::{FirstPacket, first_packet, starts_with_tls},
    write,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
};

use crate::{
    connect::{ConnectError, connect},
    door::enter,
    duplex::{Duplex, Stream},
    known::KnownTexts,
    lanes::Lanes,
    session::{Ends, Session},
    sessions::Sessions,
    system::System,
    wire::{Gone, Wire},
};

/// How long a client may take from connecting to being let in.
const ENTER_TIMEOUT: Duration = Duration::from_secs(30);

/// How the surface behaves.
#[derive(Clone)]
pub struct Options {
    /// TLS for clients; none: clients on this machine only.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The `tls-server-end-point` hash of the certificate (RFC 5929), for SCRAM-SHA-256-PLUS.
    pub channel_binding: Option<Vec<u8>>,
    /// The gateway's SCRAM salt.
    pub salt: Arc<[u8]>,
    /// Sessions at a time.
    pub sessions: usize,
}

/// The PostgreSQL surface.
pub struct Surface {
    gate: Arc<Gate>,
    systems: Vec<Arc<System>>,
    options: Options,
    texts: Arc<KnownTexts>,
    sessions: Arc<Sessions>,
    places: Arc<Semaphore>,
    lanes: Lanes,
}

impl Surface {
    /// A surface for these systems. Fails where no threads can be had.
    pub fn new(gate: Arc<Gate>, systems: Vec<Arc<System>>, options: Options) -> std::io::Result<Arc<Self>> {
        let places = Arc::new(Semaphore::new(options.sessions));
        let lanes = Lanes::new()?;
        Ok(Arc::new(Self { gate, systems, options, texts: Arc::default(), sessions: Arc::default(), places, lanes }))
    }

    /// Watches catalogues and freezes, and runs what was approved and nobody waits for. Runs for ever.
    pub async fn attend(self: Arc<Self>) {
        for system in &self.systems {
            tokio::spawn(system.clone().watch());
        }
        tokio::spawn(self.sessions.clone().stop_frozen(self.gate.clone()));
        crate::runner::run_unattended(self.gate.clone(), self.systems.clone(), self.texts.clone()).await;
    }

    /// Accepts clients until `stop` says so.
    pub async fn listen(self: Arc<Self>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.changed() => return,
            };
            match accepted {
                Ok((socket, peer)) => {
                    let surface = self.clone();
                    match socket.into_std() {
                        Ok(socket) => self.lanes.serve(socket, move |socket| async move { surface.serve(socket, peer).await }),
                        Err(error) => tracing::warn!(%error, "cannot take a client's connection over"),
                    }
                }
                Err(error) => {
                    // Out of descriptors, most likely: waiting is all that helps.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Open sessions.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        self.sessions.count()
    }

    async fn serve(self: Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        let Ok(_place) = self.places.clone().try_acquire_owned() else {
            tracing::warn!("too many sessions");
            return;
        };
        if socket.set_nodelay(true).is_err() {
            return;
        }
        match tokio::time::timeout(ENTER_TIMEOUT, self.open(socket, peer)).await {
            Ok(Some((mut session, entry))) => {
                if let Err(gone) = session.serve().await {
                    tracing::debug!(session = %session.id, %gone, "session ended");
                    if gone == Gone::Server {
                        session.tell_server_gone();
                    }
                }
                session.say_goodbye().await;
                drop(entry);
            }
            Ok(None) => {}
            Err(_) => tracing::debug!(%peer, "took too long to enter"),
        }
    }

    /// Everything up to the first ReadyForQuery.
    async fn open(&self, socket: TcpStream, peer: SocketAddr) -> Option<(Session, crate::sessions::Entry)> {
        let mut client = Duplex::new(Stream::Plain(socket));
        let mut encrypted = false;
        let (protocol, startup) = loop {
            if !encrypted && client.input.is_empty() && self.options.tls.is_some() && starts_with_tls_now(&client).await {
                client = self.encrypt(client).await?;
                encrypted = true;
            }
            match first_packet(&mut client.input) {
                Ok(Some(FirstPacket::Ssl)) if !encrypted && self.options.tls.is_some() => {
                    client.output.extend_from_slice(b"S");
                    client.drain().await;
                    client = self.encrypt(client).await?;
                    encrypted = true;
                }
                Ok(Some(FirstPacket::Ssl | FirstPacket::GssEnc)) => {
                    client.output.extend_from_slice(b"N");
                    client.drain().await;
                }
                Ok(Some(FirstPacket::Cancel { pid, key })) => {
                    self.sessions.cancel(pid, &key).await;
                    return None;
                }
                Ok(Some(FirstPacket::Startup { protocol, parameters })) => break (protocol, parameters),
                Ok(None) => {
                    if !client.fill().await {
                        return None;
                    }
                }
                Err(error) => {
                    fatal(&mut client, "08P01", &error.to_string()).await;
                    return None;
                }
            }
        };
        if !encrypted && !peer.ip().is_loopback() {
            fatal(&mut client, "28000", "reprieve: refused: TLS is required from other machines; use sslmode=require").await;
            return None;
        }
        let minor = protocol & 0xffff;
        let (startup, unknown): (Vec<_>, Vec<_>) = startup.into_iter().partition(|(name, _)| !name.starts_with("_pq_."));
        if minor > 0 || !unknown.is_empty() {
            let unknown: Vec<&str> = unknown.iter().map(|(name, _)| name.as_str()).collect();
            write::negotiate_protocol_version(&mut client.output, 3 << 16, &unknown).ok()?;
        }
        let binding = encrypted.then(|| self.options.channel_binding.clone()).flatten();
        let peer = peer.to_string();
        let entered = match enter(&mut client, &self.gate, &self.systems, &self.options.salt, startup, &peer, binding).await {
            Ok(entered) => entered,
            Err(turned_away) => {
                tracing::info!(peer, reason = turned_away.0, "turned away");
                client.drain().await;
                return None;
            }
        };
        if let Err(refusal) = entered.system.bounded().await {
            tell(&mut client, &self.gate, &refusal).await;
            return None;
        }
        let mut parameters = entered.parameters;
        if let Some(encoding) = parameters.iter_mut().find(|(name, _)| name == "client_encoding") {
            // The texts are read as UTF-8, here and there.
            "UTF8".clone_into(&mut encoding.1);
        } else {
            parameters.push(("client_encoding".to_owned(), "UTF8".to_owned()));
        }
        let connected = match connect(&entered.system.target, &parameters, crate::nonce()).await {
            Ok(connected) => connected,
            Err(ConnectError::Refused(error)) => {
                client.output.extend_from_slice(&error.to_bytes(b'E'));
                client.drain().await;
                return None;
            }
            Err(error) => {
                tracing::warn!(system = %entered.system.name, %error, "cannot reach the server");
                fatal(&mut client, "RPU01", &format!("reprieve: unavailable: {error}")).await;
                return None;
            }
        };
        let pinned = connected.settings.iter().all(|(name, value)| match name.as_str() {
            "standard_conforming_strings" => value == "on",
            "client_encoding" => value == "UTF8",
            _ => true,
        });
        if !pinned {
            fatal(&mut client, "RPR01", "reprieve: refused: `standard_conforming_strings` and `client_encoding` are pinned to on and UTF8")
                .await;
            return None;
        }
        let backend = connected.key.as_ref().and_then(|(pid, _)| u32::try_from(*pid).ok());
        let id = match self.gate.open_session(&entered.principal, &entered.system.name, &peer, backend).await {
            Ok(id) => id,
            Err(refusal) => {
                tell(&mut client, &self.gate, &refusal).await;
                return None;
            }
        };
        write::authentication_ok(&mut client.output);
        connected.notices.iter().for_each(|notice| client.output.extend_from_slice(notice));
        for (name, value) in &connected.settings {
            write::parameter_status(&mut client.output, name, value).ok()?;
        }
        let client_key = connected.key.as_ref().map(|(pid, _)| (*pid, rand::random::<[u8; 4]>()));
        if let Some((pid, secret)) = client_key {
            write::backend_key_data(&mut client.output, pid, &secret).ok()?;
        }
        write::ready_for_query(&mut client.output, b'I');
        let agent = (entered.principal.agent.clone(), entered.principal.token);
        let cancelled = Arc::new(Notify::new());
        let entry = self.sessions.enter(id, agent, entered.system.clone(), client_key, connected.key, cancelled.clone());
        let mut wire = Wire::new(client, connected.stream, Limits::default());
        wire.settings = connected.settings;
        let ends = Ends::new(wire, self.gate.clone(), entered.system, cancelled);
        Some((Session::new(ends, entered.principal, id, self.texts.clone()), entry))
    }

    async fn encrypt(&self, client: Duplex) -> Option<Duplex> {
        let Stream::Plain(socket) = client.into_stream() else { return None };
        let acceptor = tokio_rustls::TlsAcceptor::from(self.options.tls.clone()?);
        match acceptor.accept(socket).await {
            Ok(stream) => Some(Duplex::new(Stream::TlsServer(Box::new(stream)))),
            Err(error) => {
                tracing::debug!(%error, "TLS handshake failed");
                None
            }
        }
    }
}

/// Whether the client begins with a TLS handshake (PostgreSQL 17's direct negotiation). Looks without taking.
async fn starts_with_tls_now(client: &Duplex) -> bool {
    let Stream::Plain(socket) = client.stream() else { return false };
    let mut first = [0u8; 1];
    matches!(socket.peek(&mut first).await, Ok(1)) && starts_with_tls(&first)
}

async fn fatal(client: &mut Duplex, code: &str, message: &str) {
    write::error_response(&mut client.output, &[(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code), (b'M', message)]);
    client.drain().await;
}

async fn tell(client: &mut Duplex, gate: &Gate, refusal: &Refusal) {
    crate::answer::error(&mut client.output, gate, refusal);
    client.drain().await;
}
