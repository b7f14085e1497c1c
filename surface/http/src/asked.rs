//! Requests as agents ask them: read whole, within limits, and without what belongs to the connection.
//!
//! What is here is what is classified, shown to people, and sent: nothing of the bytes on the agent's connection is passed on.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use reprieve_effects_http::{BODY_LIMIT, is_data};
use reprieve_operation::{Digest, Parameters, Refusal};
use tokio::{
    sync::SemaphorePermit,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    file::{Spool, SpoolError, Spooled},
    place::{Place, Scheme},
    system::System,
};

/// The largest body that is taken from anybody: what is looked into, and heads of chunks.
const USUAL: usize = BODY_LIMIT + (256 << 10);

/// Headers of AWS' tools about a body whose chunks have heads: its own length, that and how it is signed, and what follows it.
const DECODED: &str = "x-amz-decoded-content-length";
const DIGEST: &str = "x-amz-content-sha256";
const TRAILERS: &str = "x-amz-trailer";

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);

/// How long a file may take to arrive, as long as something of it comes within [`BODY_TIME`].
const FILE_TIME: Duration = Duration::from_secs(3600);

/// The longest target.
const TARGET_LIMIT: usize = 16 * 1024;

/// Headers of the connection, or of the agent's way to the gateway (RFC 9110 section 7.6.1). `Host` is written anew.
const CONNECTION_HEADERS: [HeaderName; 13] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("http2-settings"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    CONTENT_LENGTH,
    UPGRADE,
    EXPECT,
    HOST,
    HeaderName::from_static("alt-used"),
];

/// What compresses the messages of a WebSocket: its service's could not be looked through for the credential.
pub(crate) const EXTENSIONS: HeaderName = HeaderName::from_static("sec-websocket-extensions");

/// Headers in which others than the sender say where a request came from, or how to read its target: services may believe them.
const NOT_THE_AGENTS: [&str; 12] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-real-ip",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-host",
    "via",
];

/// A request, read whole.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) place: Place,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The body where it is too large for that: a file that is only passed on.
    pub(crate) file: Option<Arc<Spooled>>,
    /// What the connection is to become, in lower case.
    pub(crate) upgrade: Option<String>,
}

impl Asked {
    /// Reads a request for `place`, or says why it is not sent on. A large body takes a place among the
    /// system's large files, for as long as that is held.
    pub(crate) async fn read(
        parts: Parts,
        body: Incoming,
        at: Place,
        system: &System,
    ) -> Result<(Self, Option<SemaphorePermit<'_>>), Refusal> {
        let Parts { method, uri, headers, version, .. } = parts;
        let (mut headers, upgrade) = check(&method, &uri, headers, &system.upgrades)?;
        if upgrade.is_some() && version != Version::HTTP_11 {
            return Err(unfit("upgrade", "a connection becomes another protocol in HTTP/1.1 only"));
        }
        let target = uri.path_and_query().map_or_else(|| "/".to_owned(), |target| target.as_str().to_owned());
        if target.len() > TARGET_LIMIT || !target.starts_with('/') && target != "*" {
            return Err(unfit("target", "the request's target is too long, or is no path"));
        }
        let decoded = headers.get(DECODED).and_then(|value| value.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
        for name in CONNECTION_HEADERS.iter().chain([&EXTENSIONS]) {
            headers.remove(name);
        }
        let said = body.size_hint().lower().max(decoded);
        if said <= USUAL as u64 {
            let body = whole(body).await?;
            return Ok((Self { method, place: at, target, headers, body, file: None, upgrade }, None));
        }
        // Elsewhere nothing is passed on that is not looked into.
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()?.split(';').next()).unwrap_or_default();
        let is_file = system.provider.as_deref().is_some_and(|provider| provider == "aws" || is_data(kind.trim()));
        let most = if is_file { system.largest_file } else { USUAL as u64 };
        if said > most {
            return Err(too_large(most));
        }
        let waited = timeout(BODY_TIME, system.uploads.acquire()).await;
        let busy = || Refusal::unavailable("files", "too many large files are on their way");
        let place = waited.map_err(|_| busy())?.map_err(|_| busy())?;
        let file = Some(Arc::new(spooled(body, &mut headers, most).await?));
        Ok((Self { method, place: at, target, headers, body: Bytes::new(), file, upgrade }, Some(place)))
    }
}

/// A body, whole. Trailers end here: no service needs them, and one that reads them as headers would read what was not looked at.
async fn whole(body: Incoming) -> Result<Bytes, Refusal> {
    match timeout(BODY_TIME, Limited::new(body, USUAL).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(USUAL as u64)),
        Ok(Err(error)) => Err(unfit("broken-body", &format!("the request's body broke off: {error}"))),
        Err(_) => Err(slow()),
    }
}

/// A body as a file. What AWS' tools put between its pieces is taken off, with the headers that speak of it.
async fn spooled(mut body: Incoming, headers: &mut HeaderMap, most: u64) -> Result<Spooled, Refusal> {
    let is = |name: &str, so: &dyn Fn(&str) -> bool| headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(so);
    let encoded = headers.contains_key(CONTENT_ENCODING);
    let by_name = is(CONTENT_ENCODING.as_str(), &|value| value.eq_ignore_ascii_case("aws-chunked"));
    let chunked = by_name || is(DIGEST, &|value| value.starts_with("STREAMING-"));
    if chunked && encoded && !by_name {
        return Err(unfit("broken-body", "the request's body is encoded twice"));
    }
    let wrong = |error: SpoolError| match error {
        SpoolError::TooLarge(limit) => too_large(limit),
        SpoolError::Broken(why) => unfit("broken-body", &why),
        SpoolError::Io(error) => {
            tracing::error!(%error, "a file can't be kept on its way");
            Refusal::unavailable("files", "files can't be kept on their way at the moment")
        }
    };
    let mut spool = Spool::new(most, chunked).map_err(|error| wrong(error.into()))?;
    let end = Instant::now() + FILE_TIME;
    while let Some(frame) = timeout_at(end.min(Instant::now() + BODY_TIME), body.frame()).await.map_err(|_| slow())? {
        let frame = frame.map_err(|error| unfit("broken-body", &format!("the request's body broke off: {error}")))?;
        if let Ok(piece) = frame.into_data() {
            spool = spool.push(&piece).await.map_err(wrong)?;
        }
    }
    let (file, trailer) = spool.finish().await.map_err(wrong)?;
    if chunked {
        for name in [CONTENT_ENCODING.as_str(), DECODED, DIGEST, TRAILERS] {
            headers.remove(name);
        }
        for (name, value) in trailer {
            let pair = name.parse::<HeaderName>().ok().zip(HeaderValue::from_str(&value).ok());
            let (name, value) = pair.ok_or_else(|| unfit("broken-body", "what follows the request's body is malformed"))?;
            headers.insert(name, value);
        }
    }
    Ok(file)
}

fn too_large(limit: u64) -> Refusal {
    let reason = format!("the request's body is larger than {limit} bytes");
    Refusal::refused("body-limit", reason, "send less at a time (a file in parts), or ask an operator for another way")
}

fn slow() -> Refusal {
    unfit("slow-body", "the request's body took too long to arrive")
}

impl Asked {
    /// The exact request as people approve it, and its body where that is no text.
    pub(crate) fn held(&self) -> (String, Option<Parameters>) {
        let mut text = format!("{} {}{}\n", self.method, self.place, self.target);
        let becomes = self.upgrade.as_ref().map(|upgrade| (UPGRADE.as_str(), upgrade.as_str()));
        let mut lines: Vec<(&str, &str)> = self
            .headers
            .iter()
            .filter(|(name, _)| !SENDERS_OWN.contains(&name.as_str()))
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .chain(becomes)
            .collect();
        lines.sort_unstable();
        for (name, value) in lines {
            let _ = writeln!(text, "{name}: {value}");
        }
        if let Some(file) = &self.file {
            // The ledger is no place for it: who asked has to send it again once it is approved.
            let _ = write!(text, "\n({} bytes, sha256 {})", file.bytes, file.sha256);
            return (text, None);
        }
        if self.body.is_empty() {
            return (text, None);
        }
        match std::str::from_utf8(&self.body) {
            Ok(body) if !body.contains('\0') => {
                let _ = write!(text, "\n{body}");
                (text, None)
            }
            _ => {
                let _ = write!(text, "\n({} bytes, digest {})", self.body.len(), Digest::of(&[&self.body]));
                (text, Some(Parameters { formats: vec![1], values: vec![Some(self.body.to_vec())] }))
            }
        }
    }

    /// Whether it is larger than what is held for somebody who is gone.
    pub(crate) fn is_large(&self) -> bool {
        self.file.is_some()
    }

    /// The request that was held. `None`: this is not one.
    pub(crate) fn from_held(text: &str, parameters: Option<&Parameters>) -> Option<Self> {
        let (head, body) = match text.split_once("\n\n") {
            Some(parts) => parts,
            None => (text.strip_suffix('\n')?, ""),
        };
        let mut lines = head.split('\n');
        let (method, url) = lines.next()?.split_once(' ')?;
        let (scheme, rest) = url.split_once("://")?;
        let (authority, path) = rest.split_at(rest.find('/')?);
        let place = format!("{scheme}://{authority}").parse().ok()?;
        let mut headers = HeaderMap::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, text) = line.split_once(": ").or_else(|| line.strip_suffix(':').map(|name| (name, "")))?;
            headers.append(name.parse::<HeaderName>().ok()?, HeaderValue::from_str(text).ok()?);
        }
        let body = match parameters {
            Some(parameters) => Bytes::from(parameters.values.first()?.clone()?),
            None => Bytes::copy_from_slice(body.as_bytes()),
        };
        let upgrade = headers.remove(UPGRADE).and_then(|upgrade| Some(upgrade.to_str().ok()?.to_owned()));
        Some(Self { method: method.parse().ok()?, place, target: path.to_owned(), headers, body, file: None, upgrade })
    }
}

/// Headers that say who sends a request, when and with what program, and not what it does: an identical retry may differ in them, and
/// what was approved is sent without them.
const SENDERS_OWN: [&str; 15] = [
    // Another one for each try (RFC 6455 section 4.1).
    "sec-websocket-key",
    "user-agent",
    "accept-encoding",
    "date",
    "x-amz-date",
    "x-amz-content-sha256",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "traceparent",
    "tracestate",
    "baggage",
    "x-request-id",
    "idempotency-key",
    "prefer",
    "reprieve-token",
];

/// Whether a request may be looked at at all. Answers its headers, and what the connection is to become.
fn check(method: &Method, uri: &Uri, headers: HeaderMap, upgrades: &[String]) -> Result<(HeaderMap, Option<String>), Refusal> {
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(unfit("method", &format!("`{method}` is not sent on: it says nothing that could be looked at")));
    }
    let upgrade = upgrade(method, &headers, upgrades)?;
    // A header that is taken off on the way would be read here and not there.
    for value in headers.get_all(CONNECTION) {
        let value = value.to_str().unwrap_or("?");
        let other = value
            .split(',')
            .map(str::trim)
            .find(|name| !["", "close", "keep-alive", "te", "upgrade"].iter().any(|known| name.eq_ignore_ascii_case(known)));
        if let Some(name) = other {
            return Err(unfit("connection-header", &format!("`Connection` names `{}`, so that it would be lost on the way", shown(name))));
        }
    }
    if headers.get_all(CONTENT_LENGTH).iter().count() > 1 || headers.contains_key(CONTENT_LENGTH) && headers.contains_key(TRANSFER_ENCODING)
    {
        return Err(unfit("framing", "the request's length is said more than once"));
    }
    if let Some(name) = headers.keys().find(|name| NOT_THE_AGENTS.contains(&name.as_str())) {
        return Err(unfit("forwarding-header", &format!("`{name}` is not an agent's to send")));
    }
    if headers.values().any(|value| value.to_str().is_err()) {
        return Err(unfit("header-text", "a header holds something else than visible ASCII characters"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(unfit("target", "the request's target names a user"));
    }
    Ok((headers, upgrade))
}

/// What the connection is to become, if that may be.
fn upgrade(method: &Method, headers: &HeaderMap, upgrades: &[String]) -> Result<Option<String>, Refusal> {
    let says = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("upgrade"));
    let (named, said) = (headers.contains_key(UPGRADE), headers.get_all(CONNECTION).iter().any(says));
    if !named && !said {
        return Ok(None);
    }
    let refuse = |reason: &str| Err(unfit("upgrade", reason));
    let mut values = headers.get_all(UPGRADE).iter();
    let (Some(value), None, true) = (values.next(), values.next(), said) else {
        return refuse("it says in two ways, or half, what the connection is to become");
    };
    let protocol = value.to_str().unwrap_or_default().trim().to_ascii_lowercase();
    if !upgrades.contains(&protocol) {
        return refuse("a connection that becomes another protocol can't be looked into, and this system has no `upgrades` with it");
    }
    if *method != Method::GET && *method != Method::POST {
        return refuse("a connection becomes another protocol by GET or POST");
    }
    Ok(Some(protocol))
}

/// The place that a request says it is for: by its absolute target, or its one `Host`. Both have to say the same.
pub(crate) fn place_of(scheme: Scheme, uri: &Uri, headers: &HeaderMap) -> Result<Place, Refusal> {
    let wrong = |error: crate::place::PlaceError| unfit("host", &error.to_string());
    let by_target = uri.authority().map(|authority| Place::of_authority(scheme, authority.as_str()).map_err(wrong)).transpose()?;
    let mut hosts = headers.get_all(HOST).iter();
    let by_header = match (hosts.next(), hosts.next()) {
        (None, _) => None,
        (Some(host), None) => Some(Place::of_authority(scheme, host.to_str().unwrap_or("?")).map_err(wrong)?),
        (Some(_), Some(_)) => return Err(unfit("host", "the request has two `Host` headers")),
    };
    match (by_target, by_header) {
        (Some(target), Some(host)) if target != host => Err(unfit("host", "`Host` and the request's target name different hosts")),
        (Some(place), _) | (None, Some(place)) => Ok(place),
        (None, None) => Err(unfit("host", "the request names no host")),
    }
}

/// A refusal of a request as such.
pub(crate) fn unfit(rule: &str, reason: &str) -> Refusal {
    Refusal::refused(rule, reason, "send a plain request: one host, one length, nothing that a proxy would read differently")
}

/// A piece of the agent's text in a message.
pub(crate) fn shown(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_could_be_read_differently_is_refused() {
        let uri: Uri = "/a".parse().expect("a URI");
        let appended = |pairs: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in pairs {
                map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            map
        };
        for (map, rule) in [
            (headers(&[("connection", "close, X-Api-Mode")]), "connection-header"),
            (headers(&[("connection", "Upgrade"), ("upgrade", "websocket")]), "upgrade"),
            (headers(&[("upgrade", "h2c")]), "upgrade"),
            (headers(&[("x-forwarded-host", "other")]), "forwarding-header"),
            (headers(&[("x-original-url", "/other")]), "forwarding-header"),
            (appended(&[("content-length", "1"), ("content-length", "2")]), "framing"),
            (appended(&[("content-length", "1"), ("transfer-encoding", "chunked")]), "framing"),
        ] {
            assert_eq!(check(&Method::GET, &uri, map, &[]).expect_err("refused").rule, rule);
        }
        assert!(check(&Method::GET, &uri, headers(&[("connection", "keep-alive")]), &[]).is_ok());
        assert!(check(&Method::CONNECT, &uri, HeaderMap::new(), &[]).is_err());
        assert!(check(&Method::TRACE, &uri, HeaderMap::new(), &[]).is_err());
    }

    #[test]
    fn a_connection_becomes_only_what_the_system_has() {
        let uri: Uri = "/a".parse().expect("a URI");
        let becomes = |method: Method, pairs: &[(&'static str, &'static str)]| {
            check(&method, &uri, headers(pairs), &["websocket".to_owned()]).map(|(_, upgrade)| upgrade)
        };
        let asks = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        assert_eq!(becomes(Method::GET, &asks).expect("taken").as_deref(), Some("websocket"));
        assert!(becomes(Method::PUT, &asks).is_err());
        for pairs in [
            [("connection", "upgrade"), ("upgrade", "h2c")],
            [("connection", "upgrade"), ("upgrade", "websocket, h2c")],
            [("connection", "close"), ("upgrade", "websocket")],
            [("connection", "upgrade"), ("x-a", "b")],
        ] {
            assert_eq!(becomes(Method::GET, &pairs).expect_err("refused").rule, "upgrade");
        }
    }

    #[test]
    fn what_was_held_comes_back() {
        let check = |method: &str, target: &str, body: &'static [u8]| {
            let asked = Asked {
                method: method.parse().expect("a method"),
                place: "https://api.test:8443".parse().expect("a place"),
                target: target.to_owned(),
                headers: headers(&[("content-type", "application/json"), ("x-empty", ""), ("user-agent", "curl")]),
                body: Bytes::from_static(body),
                file: None,
                upgrade: (method == "POST").then(|| "tcp".to_owned()),
            };
            let (text, parameters) = asked.held();
            let back = Asked::from_held(&text, parameters.as_ref()).expect("a request");
            assert_eq!((&back.method, &back.place, &back.target, &back.body), (&asked.method, &asked.place, &asked.target, &asked.body));
            assert_eq!(back.upgrade, asked.upgrade);
            assert_eq!((back.headers.len(), back.headers.contains_key("user-agent")), (2, false));
            assert_eq!(back.held(), (text, parameters));
        };
        check("POST", "/graphql/v2", b"{\"a\":1}\n\nb: c");
        check("DELETE", "/a?b=c://d", b"");
        check("PUT", "/a", b"\xff\x00");
        check("PUT", "/a", b"\n\n");
    }

    #[test]
    fn target_and_host_name_one_place() {
        let ask = |uri: &str, map: HeaderMap| place_of(Scheme::Http, &uri.parse().expect("a URI"), &map).map(|place| place.to_string());
        assert_eq!(ask("http://a.test/x", headers(&[("host", "A.test:80")])).ok().as_deref(), Some("http://a.test"));
        assert!(ask("http://a.test/x", headers(&[("host", "b.test")])).is_err());
        assert!(ask("/x", HeaderMap::new()).is_err());
        let mut two = headers(&[("host", "a.test")]);
        two.append(HOST, HeaderValue::from_static("a.test"));
        assert!(ask("/x", two).is_err());
    }
}
