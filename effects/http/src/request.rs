//! Requests: what an agent sends to a service, as values.
//!
//! The surface reads them from a connection and sends what [`Analysis::send`](crate::Analysis) says. What a request means is
//! in `canonical.rs` and the decoders.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Bodies above this are not looked into, and so not understood. They are passed on only where they are the user's own files.
pub const BODY_LIMIT: usize = 8 << 20;

/// Files above this are not kept in the vault.
pub const FILE_LIMIT: usize = 32 << 20;

/// Text bodies up to this length are shown to people in full; longer and binary ones by their digest.
const SHOWN_BODY: usize = 64 << 10;

/// One request, without the framing of its connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The method as sent.
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// The host it goes to, with the port where it isn't the scheme's own.
    pub host: String,
    /// The target as sent: `/path?query`, still encoded.
    pub target: String,
    /// The headers in order, names in any case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
}

/// A request's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// None.
    Empty,
    /// All of it, free of transfer encodings.
    Bytes(Vec<u8>),
    /// A file that is only passed on and not looked into.
    File {
        /// Its length.
        bytes: u64,
        /// The SHA-256 of all of it, in hexadecimal.
        sha256: String,
    },
    /// There is one that was not read, and why: too large, or broken.
    Unread(String),
}

impl Request {
    /// A request of the gateway's own, with a body in JSON where there is one.
    #[must_use]
    pub fn json(method: &str, host: &str, target: &str, body: Option<&serde_json::Value>) -> Self {
        let mut headers = vec![("accept".to_owned(), "application/json".to_owned())];
        let body = match body {
            Some(value) => {
                headers.push(("content-type".to_owned(), "application/json".to_owned()));
                Body::Bytes(value.to_string().into_bytes())
            }
            None => Body::Empty,
        };
        Self { method: method.to_owned(), scheme: "https".to_owned(), host: host.to_owned(), target: target.to_owned(), headers, body }
    }

    /// The only value of a header; `None` where it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The path part of the target.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The exact request as people approve it. Two requests have the same text only if a service can't tell them apart, but for
    /// who sends them and how they are compressed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{} {}://{}{}\n", self.method, self.scheme, self.host, self.target);
        let mut headers: Vec<(String, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
            .filter(|(name, _)| !SENDERS_OWN.contains(&name.as_str()))
            .collect();
        headers.sort_unstable();
        for (name, value) in headers {
            let _ = writeln!(text, "{name}: {value}");
        }
        // What a signature is for decides which service reads the request; who signed it doesn't.
        let scope = self.header("authorization").filter(|value| value.starts_with("AWS4-HMAC-SHA256")).map(|value| {
            let credential = value.split([',', ' ']).find_map(|part| part.trim().strip_prefix("Credential=")).unwrap_or_default();
            credential.split('/').skip(2).take(2).collect::<Vec<_>>().join("/")
        });
        if let Some(scope) = scope {
            let _ = writeln!(text, "(signed for {scope})");
        }
        match &self.body {
            Body::Empty => {}
            Body::Unread(why) => {
                let _ = write!(text, "\n({why})");
            }
            Body::File { bytes, sha256 } => {
                let _ = write!(text, "\n({bytes} bytes, sha256 {sha256})");
            }
            Body::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(body) if bytes.len() <= SHOWN_BODY && !body.contains('\0') => {
                    let _ = write!(text, "\n{body}");
                }
                _ => {
                    let digest: String = Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
                        let _ = write!(hex, "{byte:02x}");
                        hex
                    });
                    let _ = write!(text, "\n({} bytes, sha256 {digest})", bytes.len());
                }
            },
        }
        text
    }
}

/// Headers that say who sends a request, when, and with what program, and not what it does. Credentials among them.
const SENDERS_OWN: [&str; 16] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "user-agent",
    "accept-encoding",
    "content-length",
    "date",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "traceparent",
    "tracestate",
    "x-request-id",
    "idempotency-key",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_all_but_the_sender() {
        let mut request = Request::json("POST", "api.test", "/a?b=c", Some(&serde_json::json!({"x": 1})));
        request.headers.push(("Authorization".into(), "Bearer abc".into()));
        request.headers.push(("X-Amz-Target".into(), "T".into()));
        let text = request.text();
        assert!(!text.contains("abc") && text.contains("x-amz-target: T") && text.ends_with("{\"x\":1}"), "{text}");
        let mut other = request.clone();
        other.body = Body::Bytes(vec![0xff; 10]);
        assert!(other.text().contains("10 bytes, sha256 "));
        other.body = Body::Bytes(vec![0xfe; 10]);
        assert_ne!(request.text(), other.text());
    }
}
