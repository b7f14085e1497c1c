//! Where a protected database is: its connection URL, parsed once.

use std::sync::Arc;

/// How the connection to the server is encrypted (libpq's `sslmode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// `disable`.
    Off,
    /// `prefer`: if the server has it, whatever its certificate.
    Prefer,
    /// `require`: always, whatever its certificate.
    Require,
    /// `verify-full`: always, with a certificate that a public authority signed for this host.
    Verify,
}

/// A protected database.
pub struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: String,
    pub(crate) tls: TlsMode,
    pub(crate) tls_config: Arc<rustls::ClientConfig>,
}

/// Why a text is not a connection URL. Never repeats the URL: it holds a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not `postgres://…`.
    #[error("expected postgres://USER:PASSWORD@HOST:PORT/DATABASE[?sslmode=disable|prefer|require|verify-full]")]
    Shape,
    /// An option that is not known.
    #[error("unknown option in the connection URL; only `sslmode` is understood")]
    Option,
}

impl Target {
    /// Parses a URL as libpq writes it.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or(TargetError::Shape)?;
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').ok_or(TargetError::Shape)?;
        let (credentials, address) = authority.rsplit_once('@').ok_or(TargetError::Shape)?;
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| TargetError::Shape)?),
            _ => (address, 5432),
        };
        let mut tls = TlsMode::Prefer;
        for option in options.split('&').filter(|option| !option.is_empty()) {
            tls = match option {
                "sslmode=disable" => TlsMode::Off,
                "sslmode=prefer" => TlsMode::Prefer,
                "sslmode=require" => TlsMode::Require,
                "sslmode=verify-full" => TlsMode::Verify,
                _ => return Err(TargetError::Option),
            };
        }
        let decode = |text: &str| decode(text).ok_or(TargetError::Shape);
        let target = Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            user: decode(user)?,
            password: decode(password)?,
            database: decode(database)?,
            tls,
            tls_config: tls_config(tls == TlsMode::Verify),
        };
        if target.host.is_empty() || target.user.is_empty() || target.database.is_empty() { Err(TargetError::Shape) } else { Ok(target) }
    }

    /// The name or address of the server.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The server's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The role's password. Never to be printed.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// How the connection is encrypted.
    #[must_use]
    pub fn tls(&self) -> (TlsMode, Arc<rustls::ClientConfig>) {
        (self.tls, Arc::clone(&self.tls_config))
    }

    /// `host:port/database`, for people.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.database)
    }

    /// The role that is logged in with.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }
}

/// Percent-decoding (RFC 3986 section 2.1). `None`: not well formed, or not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

fn tls_config(verify: bool) -> Arc<rustls::ClientConfig> {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("ring supports the default versions");
    let config = if verify {
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate)).with_no_client_auth()
    };
    Arc::new(config)
}

/// Accepts any certificate, as libpq's `require` does: encryption without knowing the other end.
#[derive(Debug)]
struct AnyCertificate;

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls_pki_types::CertificateDer<'_>,
        _intermediates: &[rustls_pki_types::CertificateDer<'_>],
        _name: &rustls_pki_types::ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls_pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &rustls::crypto::ring::default_provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls_pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &rustls::crypto::ring::default_provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let target = Target::parse("postgres://ana:p%40ss@[::1]:6000/shop?sslmode=disable").expect("a URL");
        assert_eq!((target.host.as_str(), target.port, target.password.as_str(), target.tls), ("::1", 6000, "p@ss", TlsMode::Off));
        for bad in ["http://x", "postgres://h/db", "postgres://u@h/", "postgres://u@h/d?x=1", "postgres://u:%zz@h/d"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
