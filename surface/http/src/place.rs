//! Places: scheme, host and port of a service, spelled in one way.

use std::{fmt, net::IpAddr, str::FromStr};

/// How a service is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Without encryption.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// The scheme as URLs spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port where none is written.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// How.
    pub scheme: Scheme,
    /// A name in lower case, or an address as the standard library prints it.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Why a text names no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Not a host and port that have one spelling only.
    #[error("the host is not a plain name or address with a port")]
    Host,
    /// Not a URL of a service.
    #[error("expected http://HOST[:PORT] or https://HOST[:PORT]")]
    Url,
}

impl Place {
    /// Reads `HOST[:PORT]`. Everything that another program might read differently is refused: user names, empty or odd ports,
    /// dots at the end, addresses in other than the usual form.
    pub fn of_authority(scheme: Scheme, authority: &str) -> Result<Self, PlaceError> {
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or(PlaceError::Host)?;
                let address: std::net::Ipv6Addr = address.parse().map_err(|_| PlaceError::Host)?;
                (
                    address.to_string(),
                    port.strip_prefix(':').map_or(if port.is_empty() { Ok(None) } else { Err(PlaceError::Host) }, |port| Ok(Some(port)))?,
                )
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host_name(host)?, Some(port)),
                None => (host_name(authority)?, None),
            },
        };
        let port = match port {
            None => scheme.port(),
            Some(text) => {
                let plain = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
                if plain { text.parse().map_err(|_| PlaceError::Host)? } else { return Err(PlaceError::Host) }
            }
        };
        Ok(Self { scheme, host, port })
    }

    /// The host if it is an address.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// `HOST[:PORT]`, the port only where it isn't the scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == self.scheme.port() { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

impl FromStr for Place {
    type Err = PlaceError;
    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let (scheme, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (Scheme::Https, rest),
            (_, Some(rest)) => (Scheme::Http, rest),
            _ => return Err(PlaceError::Url),
        };
        Self::of_authority(scheme, rest.strip_suffix('/').unwrap_or(rest)).map_err(|_| PlaceError::Url)
    }
}

fn host_name(text: &str) -> Result<String, PlaceError> {
    let host = text.to_ascii_lowercase();
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let named = !host.is_empty() && host.len() <= 253 && host.split('.').all(label);
    // `127.1`, `0x7f.1` and `2130706433` are addresses to some programs: what ends in a number has to be a plain IPv4 address.
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
    if named && (!numeric || host.parse::<std::net::Ipv4Addr>().is_ok()) { Ok(host) } else { Err(PlaceError::Host) }
}

/// The hosts of a system: `api.example.com`, `*.example.com` (any depth, not the name itself), each with a port if it isn't the usual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    /// Whether names below it are meant.
    below: bool,
    host: String,
    port: Option<u16>,
}

impl HostPattern {
    /// The only place that it is, with TLS; `None` where it is many.
    pub(crate) fn only(&self) -> Option<Place> {
        let port = self.port.unwrap_or_else(|| Scheme::Https.port());
        (!self.below).then(|| Place { scheme: Scheme::Https, host: self.host.clone(), port })
    }

    /// Whether the place is one of these.
    #[must_use]
    pub fn claims(&self, place: &Place) -> bool {
        let port = self.port.unwrap_or_else(|| place.scheme.port());
        let host = if self.below {
            place.host.strip_suffix(&self.host).is_some_and(|before| before.len() > 1 && before.ends_with('.'))
        } else {
            place.host == self.host
        };
        host && place.port == port
    }
}

impl FromStr for HostPattern {
    type Err = PlaceError;
    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let (below, rest) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
        let place = Place::of_authority(Scheme::Https, rest)?;
        if below && (place.address().is_some() || !place.host.contains('.')) {
            return Err(PlaceError::Host);
        }
        // An own port is one that was written.
        let port = rest.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty());
        let port = if rest.starts_with('[') && rest.ends_with(']') { None } else { port.map(|_| place.port) };
        Ok(Self { below, host: place.host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_spelling() {
        for (text, expected) in [
            ("API.Example.com", Some("https://api.example.com")),
            ("api.example.com:443", Some("https://api.example.com")),
            ("api.example.com:8443", Some("https://api.example.com:8443")),
            ("127.0.0.1:8443", Some("https://127.0.0.1:8443")),
            ("[::1]:8443", Some("https://[::1]:8443")),
            ("[0:0::1]", Some("https://[::1]")),
            ("api.example.com.", None),
            ("api..example.com", None),
            ("user@api.example.com", None),
            ("api.example.com:", None),
            ("api.example.com:0443", None),
            ("api.example.com:+443", None),
            ("api.example.com:443:1", None),
            ("api.example.com:70000", None),
            ("127.1", None),
            ("2130706433", None),
            ("0x7f000001", None),
            ("0177.0.0.1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("::1", None),
            ("ap%69.example.com", None),
            ("b\u{fc}cher.example", None),
            ("", None),
        ] {
            assert_eq!(Place::of_authority(Scheme::Https, text).ok().map(|place| place.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn patterns_claim_hosts_and_ports() {
        for (pattern, place, expected) in [
            ("api.example.com", "https://api.example.com", true),
            ("api.example.com", "http://api.example.com", true),
            ("api.example.com", "https://api.example.com:8443", false),
            ("api.example.com:8443", "https://api.example.com:8443", true),
            ("api.example.com:8443", "https://api.example.com", false),
            ("*.example.com", "https://a.b.example.com", true),
            ("*.example.com", "https://example.com", false),
            ("*.example.com", "https://evilexample.com", false),
            ("[::1]:8443", "https://[::1]:8443", true),
            ("[::1]", "https://[::1]", true),
        ] {
            let claims = pattern.parse::<HostPattern>().expect("a pattern").claims(&place.parse().expect("a place"));
            assert_eq!(claims, expected, "{pattern} {place}");
        }
        for bad in ["*", "*.com", "*.127.0.0.1", "a*.example.com", "*.*.example.com", ""] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }
}
