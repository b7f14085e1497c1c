//! Certificates: a private authority and a server certificate for `localhost`, made anew for each server.

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// What a server with TLS needs, and what its clients trust; all of it PEM.
pub(crate) struct Certificate {
    pub(crate) authority: String,
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Certificate {
    /// Makes an authority and a certificate for `localhost` and `127.0.0.1`.
    pub(crate) fn for_localhost() -> Result<Certificate> {
        Certificate::for_names(&["localhost", "127.0.0.1"])
    }

    /// Makes an authority and a certificate for these names.
    pub(crate) fn for_names(names: &[&str]) -> Result<Certificate> {
        let authority_key = KeyPair::generate().context("cannot make the authority's key")?;
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "reprieve-testkit authority");
        let authority_pem = authority.self_signed(&authority_key).context("cannot sign the authority")?.pem();

        let key = KeyPair::generate().context("cannot make the server's key")?;
        let mut server =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).context("cannot name the server")?;
        server.distinguished_name.push(DnType::CommonName, "localhost");
        let issuer = Issuer::new(authority, authority_key);
        let chain = server.signed_by(&key, &issuer).context("cannot sign the server's certificate")?.pem();
        Ok(Certificate { authority: authority_pem, chain, key: key.serialize_pem() })
    }
}
