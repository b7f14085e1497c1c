//! Credentials: how the real one gets on the wire, and how whatever the agent sent in its place is taken off.

use std::sync::Arc;

use aws_sigv4::http_request::SignableBody;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION},
};
use reprieve_gate::Clock;
use reprieve_operation::Refusal;

use crate::{
    asked::Asked,
    mask::Mask,
    signature::{Signer, is_presigned, scope_alone},
};

/// Headers that carry credentials to some service. An agent's own are never sent on: it has no credential of its own here.
const CREDENTIAL_HEADERS: [&str; 20] = [
    "authorization",
    "reprieve-authorization",
    "reprieve-token",
    "proxy-authorization",
    "cookie",
    "api-key",
    "apikey",
    "x-api-key",
    "x-auth-email",
    "x-auth-key",
    "x-auth-token",
    "x-access-token",
    "x-amz-security-token",
    "x-amz-s3session-token",
    "x-goog-api-key",
    "x-vault-token",
    "private-token",
    "job-token",
    "project-access-token",
    "fastly-key",
];

/// A service's credential and how it is presented. Prints nothing of itself.
#[derive(Clone)]
pub struct Credential {
    form: Form,
    /// What must never reach an agent, in every spelling it may be echoed in.
    marks: Arc<[Vec<u8>]>,
}

#[derive(Clone)]
enum Form {
    None,
    Signature(Signer),
    Header(HeaderName, HeaderValue),
    Query(String, String),
    /// A certificate and its key, as PEM: shown while a connection is opened.
    Certificate(Arc<[u8]>),
}

/// Why a credential can't be used. Never repeats it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// `as` is not one of the ways.
    #[error("`as = \"{0}\"` is not known: bearer, basic, header:NAME, query:NAME, certificate or sigv4")]
    Way(String),
    /// The credential has characters that it can't have.
    #[error("the credential can't be sent as it is: it is empty, too short to be told from other text, or has control characters")]
    Value,
    /// A way was given and no credential, or the other way round.
    #[error("`credential` and `as` belong together")]
    Incomplete,
}

/// Anything shorter would be found everywhere.
const SHORTEST: usize = 8;

impl Credential {
    /// None: the service is called without one.
    #[must_use]
    pub fn none() -> Self {
        Self { form: Form::None, marks: [].into() }
    }

    /// Keys of AWS, `ID:SECRET` or `ID:SECRET:SESSION`, with which every request is signed anew.
    pub fn signing(keys: &str, clock: Arc<dyn Clock>) -> Result<Self, CredentialError> {
        let signer = Signer::new(keys.trim(), clock).ok_or(CredentialError::Value)?;
        let mut marks: Vec<Vec<u8>> = signer.secrets().iter().flat_map(|secret| spellings(secret)).collect();
        marks.sort();
        marks.dedup();
        Ok(Self { form: Form::Signature(signer), marks: marks.into() })
    }

    /// A client's certificate with its key, as PEM.
    pub fn shown(pem: &str) -> Result<Self, CredentialError> {
        let whole = pem.contains("CERTIFICATE-----") && pem.contains("PRIVATE KEY-----");
        // Neither is ever sent in a request, so that no answer could repeat it.
        if whole { Ok(Self { form: Form::Certificate(pem.as_bytes().into()), marks: [].into() }) } else { Err(CredentialError::Value) }
    }

    /// What is shown while a connection is opened.
    pub(crate) fn certificate(&self) -> Option<&[u8]> {
        match &self.form {
            Form::Certificate(pem) => Some(pem),
            Form::None | Form::Signature(_) | Form::Header(..) | Form::Query(..) => None,
        }
    }

    /// The header that it goes into; where an agent puts its token when a service has a listener of its own.
    pub(crate) fn header(&self) -> Option<&HeaderName> {
        match &self.form {
            Form::Header(name, _) => Some(name),
            Form::None | Form::Signature(_) | Form::Query(..) | Form::Certificate(_) => None,
        }
    }

    /// The credential `value`, presented `way`: `bearer`, `basic` (`USER:PASSWORD`), `header:NAME` or `query:NAME`.
    pub fn new(way: &str, value: &str) -> Result<Self, CredentialError> {
        let value = value.trim();
        if value.len() < SHORTEST || value.chars().any(char::is_control) {
            return Err(CredentialError::Value);
        }
        let secret = |text: String| {
            let mut value = HeaderValue::from_str(&text).map_err(|_| CredentialError::Value)?;
            value.set_sensitive(true);
            Ok::<_, CredentialError>(value)
        };
        let mut marks = vec![value.as_bytes().to_vec()];
        let form = match way.split_once(':') {
            None if way == "bearer" => Form::Header(AUTHORIZATION, secret(format!("Bearer {value}"))?),
            None if way == "basic" => {
                let encoded = BASE64.encode(value);
                let (_, password) = value.split_once(':').ok_or(CredentialError::Value)?;
                if password.len() >= SHORTEST {
                    marks.push(password.as_bytes().to_vec());
                }
                marks.push(encoded.trim_end_matches('=').as_bytes().to_vec());
                Form::Header(AUTHORIZATION, secret(format!("Basic {encoded}"))?)
            }
            Some(("header", name)) => {
                let name = name.to_ascii_lowercase().parse::<HeaderName>().map_err(|_| CredentialError::Way(way.to_owned()))?;
                Form::Header(name, secret(value.to_owned())?)
            }
            Some(("query", name))
                if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) =>
            {
                let encoded: String = value.bytes().map(percent_encoded).collect();
                marks.push(encoded.as_bytes().to_vec());
                Form::Query(name.to_owned(), encoded)
            }
            _ => return Err(CredentialError::Way(way.to_owned())),
        };
        marks.extend(spellings(value));
        marks.sort();
        marks.dedup();
        Ok(Self { form, marks: marks.into() })
    }

    /// What must never reach an agent.
    pub(crate) fn marks(&self) -> &[Vec<u8>] {
        &self.marks
    }

    /// Covers it in what a service says.
    pub(crate) fn mask(&self) -> Mask {
        Mask::new(self.marks.clone())
    }

    /// Takes every credential off that the agent sent. Before the request is looked at, so that what was looked at is what is sent.
    ///
    /// An error: what is left could not be presented as the real one.
    pub(crate) fn strip(&self, headers: &mut HeaderMap, target: &mut String) -> Result<(), Refusal> {
        let scope = scope_alone(headers);
        let shown: Vec<HeaderName> = headers.keys().filter(|name| CREDENTIAL_HEADERS.contains(&name.as_str())).cloned().collect();
        for name in shown {
            headers.remove(name);
        }
        match &self.form {
            Form::None | Form::Certificate(_) => {}
            Form::Signature(_) => {
                if target.split_once('?').is_some_and(|(_, query)| is_presigned(query)) {
                    let reason = "its address carries a signature: nobody could say which of two counts";
                    return Err(Refusal::refused("presigned", reason, "sign requests in a header, with any keys"));
                }
                let scope = scope.ok_or_else(|| {
                    let reason = "it is not signed, or in a way that can't be renewed: that would say which region and service it is for";
                    Refusal::refused("unsigned", reason, "sign it as usual (version 4), with any keys: the gateway signs anew")
                })?;
                headers.insert(AUTHORIZATION, scope);
            }
            Form::Header(name, _) => {
                headers.remove(name);
            }
            Form::Query(name, _) => {
                let Some((path, query)) = target.split_once('?') else { return Ok(()) };
                let other = |pair: &&str| pair.split('=').next().is_some_and(|key| !decoded(key).eq_ignore_ascii_case(name));
                let rest: Vec<&str> = query.split('&').filter(other).collect();
                *target = if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
            }
        }
        Ok(())
    }

    /// Puts the real one on, last.
    pub(crate) fn apply(&self, asked: &Asked, headers: &mut HeaderMap) -> String {
        debug_assert!([PROXY_AUTHORIZATION, COOKIE].iter().all(|name| !headers.contains_key(name)));
        match &self.form {
            // A signature covers everything else, and comes last.
            Form::None | Form::Signature(_) | Form::Certificate(_) => asked.target.clone(),
            Form::Header(name, value) => {
                headers.insert(name.clone(), value.clone());
                asked.target.clone()
            }
            Form::Query(name, value) => {
                let separator = if asked.target.contains('?') { '&' } else { '?' };
                format!("{}{separator}{name}={value}", asked.target)
            }
        }
    }
}

impl Credential {
    /// Signs what is about to be sent, where that is how it is presented.
    pub(crate) fn sign(&self, asked: &Asked, uri: &str, headers: &mut HeaderMap) -> Result<(), String> {
        match &self.form {
            Form::Signature(signer) => {
                let body = match &asked.file {
                    Some(file) => SignableBody::Precomputed(file.sha256.clone()),
                    None => SignableBody::Bytes(&asked.body),
                };
                signer.sign(&asked.method, uri, headers, body)
            }
            Form::None | Form::Header(..) | Form::Query(..) | Form::Certificate(_) => Ok(()),
        }
    }
}

/// A secret as it is, and as it looks inside of JSON, base64 and after percent-encoding.
fn spellings(value: &str) -> [Vec<u8>; 4] {
    [
        value.as_bytes().to_vec(),
        value.bytes().map(percent_encoded).collect::<String>().into_bytes(),
        serde_json::Value::from(value).to_string().trim_matches('"').as_bytes().to_vec(),
        BASE64.encode(value).trim_end_matches('=').as_bytes().to_vec(),
    ]
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

fn percent_encoded(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
}

/// A query's key as the service will read it.
pub(crate) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways() {
        assert!(Credential::new("bearer", "sesame-open").is_ok());
        for (way, value, expected) in [
            ("bearer", "short", CredentialError::Value),
            ("bearer", "with\nbreak", CredentialError::Value),
            ("basic", "no-colon-in-it", CredentialError::Value),
            ("cookie", "sesame-open", CredentialError::Way("cookie".to_owned())),
            ("header:", "sesame-open", CredentialError::Way("header:".to_owned())),
            ("query:a&b", "sesame-open", CredentialError::Way("query:a&b".to_owned())),
        ] {
            assert_eq!(Credential::new(way, value).err(), Some(expected), "{way}");
        }
    }

    #[test]
    fn what_the_agent_sent_is_taken_off() {
        let credential = Credential::new("query:key", "sesame-open").expect("a credential");
        let mut headers = HeaderMap::new();
        for name in CREDENTIAL_HEADERS {
            headers.insert(name, HeaderValue::from_static("stolen"));
        }
        headers.insert("accept", HeaderValue::from_static("*/*"));
        let mut target = "/v1?key=stolen&a=1&KEY=x&%6bey=y".to_owned();
        credential.strip(&mut headers, &mut target).expect("stripped");
        assert_eq!((headers.len(), target.as_str()), (1, "/v1?a=1"));
    }
}
