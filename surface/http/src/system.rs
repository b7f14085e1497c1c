//! A protected service: which hosts it is, where it really is, and what reaches it.

use std::{path::PathBuf, sync::Arc};

use ipnet::IpNet;
use reprieve_operation::{Environment, SystemName};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use tokio::sync::Semaphore;

use crate::{
    channel::ChannelLimits,
    connect::{Client, Connector, client},
    credential::Credential,
    place::{HostPattern, Place, Scheme},
    turns::Turns,
};

/// What a service is made of.
pub struct SystemOptions {
    /// Its name.
    pub name: SystemName,
    /// Its environment; what is found to be elsewhere counts as production.
    pub environment: Environment,
    /// Which catalog tells what its calls do.
    pub provider: Option<String>,
    /// The hosts that are this service.
    pub hosts: Vec<HostPattern>,
    /// Where it really is, if that isn't what agents call it.
    pub url: Option<Place>,
    /// The socket of this machine that it really is at. `url` then only names it.
    pub socket: Option<PathBuf>,
    /// The credential.
    pub credential: Credential,
    /// Certificates of its authorities as PEM, instead of the public ones.
    pub authorities: Option<String>,
    /// Addresses that are not public and may be reached all the same.
    pub networks: Vec<IpNet>,
    /// What a connection to it may become, once that is permitted: `websocket`, `tcp`, …
    pub upgrades: Vec<String>,
    /// What may be said in such a connection.
    pub channel: ChannelLimits,
    /// The largest file that is passed on to it, in bytes.
    pub largest_file: u64,
}

/// Large files at a time.
const FILES: usize = 4;

/// A protected service.
pub struct System {
    pub(crate) name: SystemName,
    pub(crate) environment: Environment,
    pub(crate) provider: Option<String>,
    pub(crate) url: Option<Place>,
    pub(crate) credential: Credential,
    pub(crate) client: Client,
    /// For requests after which a connection becomes something else.
    pub(crate) upgrading: Client,
    pub(crate) upgrades: Vec<String>,
    pub(crate) channel: ChannelLimits,
    pub(crate) largest_file: u64,
    /// Large files on their way to it, and from it to the vault. Apart: who has a place in the one may need one in the other.
    pub(crate) uploads: Semaphore,
    pub(crate) files: Semaphore,
    /// Who changes what of it.
    pub(crate) turns: Turns,
    hosts: Vec<HostPattern>,
}

/// Why a service can't be protected as it is described.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// Nothing would ever be this service.
    #[error("`{0}` has neither `hosts` nor `url`")]
    Nowhere(SystemName),
    /// A credential would go over the network in the open.
    #[error("`{0}` would send its credential without encryption to another machine")]
    Open(SystemName),
    /// The authorities' file.
    #[error("`ca` is not a certificate")]
    Authorities(#[from] rustls_pki_types::pem::Error),
    /// TLS can't be used with these.
    #[error("TLS can't be used like this")]
    Tls(#[from] rustls::Error),
}

impl System {
    /// A service as described.
    pub fn new(options: SystemOptions) -> Result<Self, SystemError> {
        let SystemOptions {
            name,
            environment,
            provider,
            hosts,
            url,
            socket,
            credential,
            authorities,
            mut networks,
            upgrades,
            channel,
            largest_file,
        } = options;
        if hosts.is_empty() && url.is_none() {
            return Err(SystemError::Nowhere(name));
        }
        if let Some(place) = &url {
            let here = place.host == "localhost" || place.address().is_some_and(|address| address.is_loopback());
            if place.scheme == Scheme::Http && !here && socket.is_none() && !credential.marks().is_empty() {
                return Err(SystemError::Open(name));
            }
            // An address that was written into the settings was meant.
            networks.extend(place.address().map(IpNet::from));
        }
        let mut tls = tls(authorities.as_deref(), &credential)?;
        let client_to = |tls: &rustls::ClientConfig| client(Connector::new(networks.clone(), tls.clone()).at(socket.clone()));
        let client = client_to(&tls);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let upgrading = client_to(&tls);
        Ok(Self {
            name,
            environment,
            provider,
            url,
            credential,
            client,
            upgrading,
            upgrades,
            channel,
            largest_file,
            uploads: Semaphore::new(FILES),
            files: Semaphore::new(FILES),
            turns: Turns::default(),
            hosts,
        })
    }

    /// Whether agents mean this service by that place.
    #[must_use]
    pub(crate) fn claims(&self, place: &Place) -> bool {
        self.hosts.iter().any(|pattern| pattern.claims(place)) || self.url.as_ref() == Some(place)
    }

    /// The one place that agents mean where they need not say it. `None`: it has only patterns of hosts.
    #[must_use]
    pub fn home(&self) -> Option<Place> {
        self.hosts.iter().find_map(HostPattern::only).or_else(|| self.url.clone())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &SystemName {
        &self.name
    }

    /// Where a request for that place is sent.
    pub(crate) fn reached_at<'a>(&'a self, place: &'a Place) -> &'a Place {
        self.url.as_ref().unwrap_or(place)
    }
}

fn tls(authorities: Option<&str>, credential: &Credential) -> Result<rustls::ClientConfig, SystemError> {
    let mut roots = rustls::RootCertStore::empty();
    match authorities {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots.add(certificate?)?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    let mut config = match credential.certificate() {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pem)?)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
