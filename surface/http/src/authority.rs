//! The local certificate authority: agents' tools trust it, so that the gateway can read what they send to a service.
//!
//! Its key never leaves the gateway's folder. It signs for hosts of configured systems only, and each certificate for a week.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lru::LruCache;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _,
};
use reprieve_operation::{Digest, Timestamp};
use rustls::{
    ServerConfig,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};

/// Hosts whose certificates are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1_000).expect("not zero");

/// How long a host's certificate holds, and how long it is handed out.
const HOLDS: Duration = Duration::from_secs(7 * 86_400);
const HANDED_OUT: Duration = Duration::from_secs(5 * 86_400);

/// Clocks of other machines may be behind.
const BEFORE: Duration = Duration::from_secs(86_400);

/// How long the authority itself holds.
const AUTHORITY_YEARS: u64 = 10;

/// Why the authority can't work.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A certificate can't be made.
    #[error("a certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// A certificate or key can't be used for TLS.
    #[error("the certificate or its key can't be used for TLS")]
    Tls(#[from] rustls::Error),
    /// The certificate's file is damaged.
    #[error("the authority's certificate can't be read")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// The certificate belongs to another key.
    #[error("the authority's certificate is not of its key")]
    Mismatch,
}

/// The local authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// All hosts share a key: making one costs more than the rest of a handshake, and it lies beside the authority's own.
    key: KeyPair,
    configs: Mutex<LruCache<String, (Timestamp, Arc<ServerConfig>)>>,
}

impl Authority {
    /// A new authority: its certificate and its key, as PEM.
    pub fn make(now: Timestamp) -> Result<(String, String), AuthorityError> {
        let key = KeyPair::generate()?;
        let mut parameters = parameters_of(&key)?;
        let start = now.0 / 1000;
        parameters.not_before = moment(start.saturating_sub(BEFORE.as_secs()));
        parameters.not_after = moment(start + AUTHORITY_YEARS * 365 * 86_400);
        let certificate = parameters.self_signed(&key)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Opens an authority that was made before.
    pub fn open(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let issuing = KeyPair::from_pem(key)?;
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())?;
        let public = issuing.subject_public_key_info();
        if !certificate.as_ref().windows(public.len()).any(|window| window == public) {
            return Err(AuthorityError::Mismatch);
        }
        let issuer = Issuer::new(parameters_of(&issuing)?, issuing);
        Ok(Self { issuer, certificate, key: KeyPair::generate()?, configs: Mutex::new(LruCache::new(REMEMBERED)) })
    }

    /// TLS under the name of `host`, HTTP/1.1 and HTTP/2.
    pub(crate) fn config_for(&self, host: &str, now: Timestamp) -> Result<Arc<ServerConfig>, AuthorityError> {
        // What is put in is whole, so a poisoned lock protects nothing broken.
        if let Some((made, config)) = self.configs.lock().unwrap_or_else(PoisonError::into_inner).get(host)
            && now.since(*made) < HANDED_OUT
        {
            return Ok(config.clone());
        }
        let config = Arc::new(self.sign(host, now)?);
        self.configs.lock().unwrap_or_else(PoisonError::into_inner).put(host.to_owned(), (now, config.clone()));
        Ok(config)
    }

    fn sign(&self, host: &str, now: Timestamp) -> Result<ServerConfig, AuthorityError> {
        let mut parameters = CertificateParams::new(vec![host.to_owned()])?;
        parameters.distinguished_name = DistinguishedName::new();
        parameters.not_before = moment((now.0 / 1000).saturating_sub(BEFORE.as_secs()));
        parameters.not_after = moment(now.0 / 1000 + HOLDS.as_secs());
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.use_authority_key_identifier_extension = true;
        let certificate = parameters.signed_by(&self.key, &self.issuer)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certified = CertifiedKey::from_der(vec![certificate.der().clone(), self.certificate.clone()], key, &provider)?;
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The authority's parameters follow from its key, so that a start needs nothing but its two files.
fn parameters_of(key: &KeyPair) -> Result<CertificateParams, AuthorityError> {
    let mut parameters = CertificateParams::new(Vec::<String>::new())?;
    let mut name = DistinguishedName::new();
    // Two gateways' authorities in one trust store have different names.
    name.push(DnType::CommonName, format!("Reprieve gateway {}", Digest::of(&[key.public_key_raw()]).short()));
    name.push(DnType::OrganizationName, "Reprieve");
    parameters.distinguished_name = name;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(parameters)
}

/// A moment by its day: hours don't matter here.
fn moment(seconds: u64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap_or(0)).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_opens_with_its_own_key_only() {
        let now = Timestamp(1_777_075_200_000);
        let (certificate, key) = Authority::make(now).expect("made");
        let (_, other) = Authority::make(now).expect("made");
        let authority = Authority::open(&certificate, &key).expect("opened");
        assert!(matches!(Authority::open(&certificate, &other), Err(AuthorityError::Mismatch)));
        let first = authority.config_for("api.example.com", now).expect("signed");
        assert!(Arc::ptr_eq(&first, &authority.config_for("api.example.com", now).expect("remembered")));
        let later = now.plus(HANDED_OUT);
        assert!(!Arc::ptr_eq(&first, &authority.config_for("api.example.com", later).expect("signed anew")));
    }
}
