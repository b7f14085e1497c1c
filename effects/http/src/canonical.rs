//! The canonical form of a request: what it says to every reader, or a reason why that can't be told.
//!
//! What services read differently (dot segments, doubled keys, headers that override the method) is not made equal here but
//! refused: what was classified has to be what is sent. Only framing and compression are taken off.

use std::io::Read as _;

use flate2::read::{GzDecoder, ZlibDecoder};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::{
    chunked, json,
    multipart::{self, Part},
    request::{BODY_LIMIT, Body, Request},
    xml,
};

/// More segments, parameters or headers than any service needs.
const MOST: usize = 512;
const LONGEST_TARGET: usize = 64 << 10;

const METHODS: [&str; 7] = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"];

/// Headers by which some services take another method or address than the one in the first line.
const OVERRIDES: [&str; 9] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-method",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-original-method",
];

/// Headers of the connection, which the next one gets anew.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "expect",
    "content-length",
];

/// Headers that decide what a request means, and so must not occur twice.
const ONCE: [&str; 9] = [
    "host",
    "content-type",
    "content-encoding",
    "x-amz-target",
    "authorization",
    "smithy-protocol",
    "x-amz-copy-source",
    "x-amz-bypass-governance-retention",
    "x-amz-decoded-content-length",
];

/// A request that has one meaning.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Canonical {
    /// What is sent.
    pub(crate) request: Request,
    /// The path's segments, decoded; without the empty one that a slash at the end makes.
    pub(crate) segments: Vec<String>,
    /// The query's parameters, decoded, in order.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) content: Content,
}

/// What a body says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    None,
    Json(Value),
    /// Form fields in order.
    Form(Vec<(String, String)>),
    Xml(Value),
    Cbor(Value),
    Multipart(Vec<Part>),
    /// Plain text, with its media type.
    Text(String, String),
    /// Anything else: data.
    Opaque,
    /// It isn't what its label says, and why. Only where bodies may be the user's own files.
    Broken(String),
}

/// How a provider's addresses may look beyond the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paths {
    /// Segments without slashes, dots or second encodings in them.
    Strict,
    /// A part of the path is a name of the user's (an object in a bucket) with anything but dot segments in it.
    Names,
}

/// The one meaning of `request`, or why it has none.
pub(crate) fn canonical(request: &Request, paths: Paths) -> Result<Canonical, String> {
    if !METHODS.contains(&request.method.as_str()) {
        return Err(format!("the method `{}` is not one this gateway knows", shown(&request.method)));
    }
    if !matches!(request.scheme.as_str(), "http" | "https") {
        return Err("the scheme is neither http nor https".to_owned());
    }
    let mut headers = headers(request)?;
    let body = decoded(request, &mut headers)?;
    let (path, query) = target(request)?;
    let segments = segments(&path, paths)?;
    let pairs = query.as_deref().map(pairs).transpose()?.unwrap_or_default();
    if pairs.iter().any(|(name, _)| overrides_method(name)) {
        return Err("a parameter `_method` may make another method of it".to_owned());
    }
    let media = headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str());
    let content = match (media.map(Media::parse).transpose().and_then(|media| content(&body, &media.unwrap_or_default())), paths) {
        (Ok(content), _) => content,
        (Err(why), Paths::Names) => Content::Broken(why),
        (Err(why), Paths::Strict) => return Err(why),
    };
    let target = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    let request =
        Request { method: request.method.clone(), scheme: request.scheme.clone(), host: request.host.clone(), target, headers, body };
    Ok(Canonical { request, segments, query: pairs, content })
}

/// The headers that are sent on, names in lower case.
fn headers(request: &Request) -> Result<Vec<(String, String)>, String> {
    if request.headers.len() > MOST {
        return Err(format!("it has more than {MOST} headers"));
    }
    let mut headers: Vec<(String, String)> = Vec::with_capacity(request.headers.len());
    for (name, value) in &request.headers {
        let name = name.to_ascii_lowercase();
        let is_token = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        if !is_token || value.chars().any(|letter| letter.is_control() && letter != '\t') {
            return Err("a header is malformed".to_owned());
        }
        // Some servers read `_` in a header's name as `-`.
        let dashed = name.replace('_', "-");
        if OVERRIDES.contains(&dashed.as_str()) {
            return Err(format!("the header `{name}` may make another request of it"));
        }
        if name != dashed && (ONCE.contains(&dashed.as_str()) || HOP_BY_HOP.contains(&dashed.as_str())) {
            return Err(format!("the header `{}` stands for another one in some servers", shown(&name)));
        }
        if ONCE.contains(&name.as_str()) && headers.iter().any(|(other, _)| *other == name) {
            return Err(format!("the header `{name}` occurs twice"));
        }
        if name == "host" && !value.trim().eq_ignore_ascii_case(&request.host) {
            return Err("the header `Host` names another host than the address".to_owned());
        }
        if name == "connection"
            && !value
                .split(',')
                .map(str::trim)
                .all(|option| ["keep-alive", "close", "upgrade", "te"].iter().any(|known| option.eq_ignore_ascii_case(known)))
        {
            return Err("`Connection` would strip headers on the way".to_owned());
        }
        if name == "host" || HOP_BY_HOP.contains(&name.as_str()) {
            continue;
        }
        headers.push((name, value.trim().to_owned()));
    }
    Ok(headers)
}

/// The body without compression, at most [`BODY_LIMIT`] of it, or a file that stays as it is.
fn decoded(request: &Request, headers: &mut Vec<(String, String)>) -> Result<Body, String> {
    let encoding = headers.iter().find(|(name, _)| name == "content-encoding").map(|(_, value)| value.to_ascii_lowercase());
    let bytes = match &request.body {
        Body::Unread(why) => return Err(format!("its body was not read: {why}")),
        Body::File { .. } => return Ok(request.body.clone()),
        Body::Bytes(bytes) if !bytes.is_empty() => bytes,
        Body::Empty | Body::Bytes(_) => {
            headers.retain(|(name, _)| name != "content-encoding");
            return Ok(Body::Empty);
        }
    };
    // With the heads of its chunks.
    if bytes.len() > BODY_LIMIT + (256 << 10) {
        return Err(format!("its body is larger than {BODY_LIMIT} bytes"));
    }
    let limit = BODY_LIMIT as u64 + 1;
    let mut plain = Vec::new();
    let streamed = headers.iter().any(|(name, value)| name == "x-amz-content-sha256" && value.starts_with("STREAMING-"));
    if streamed || encoding.as_deref() == Some("aws-chunked") {
        if !matches!(encoding.as_deref(), None | Some("aws-chunked")) {
            return Err("its body is encoded twice".to_owned());
        }
        let (body, trailer) = chunked::decode(bytes)?;
        const OF_CHUNKS: [&str; 4] = ["content-encoding", "x-amz-decoded-content-length", "x-amz-trailer", "x-amz-content-sha256"];
        headers.retain(|(name, _)| !OF_CHUNKS.contains(&name.as_str()));
        headers.extend(trailer);
        return Ok(if body.is_empty() { Body::Empty } else { Body::Bytes(body) });
    }
    let read = match encoding.as_deref() {
        None | Some("identity") => return Ok(Body::Bytes(bytes.clone())),
        Some("gzip" | "x-gzip") => GzDecoder::new(bytes.as_slice()).take(limit).read_to_end(&mut plain),
        Some("deflate") => ZlibDecoder::new(bytes.as_slice()).take(limit).read_to_end(&mut plain),
        Some(other) => return Err(format!("its body is encoded as `{}`, which is not read here", shown(other))),
    };
    match read {
        Ok(_) if plain.len() > BODY_LIMIT => return Err(format!("its body is larger than {BODY_LIMIT} bytes")),
        Ok(_) => {}
        Err(_) => return Err("its body can't be decompressed".to_owned()),
    }
    headers.retain(|(name, _)| name != "content-encoding");
    Ok(Body::Bytes(plain))
}

/// The path and the query as sent.
fn target(request: &Request) -> Result<(String, Option<String>), String> {
    let mut target = request.target.as_str();
    if target.len() > LONGEST_TARGET {
        return Err("its address is too long".to_owned());
    }
    if !target.starts_with('/') {
        // Absolute form: another host in it would be another system.
        let rest = target.strip_prefix(&format!("{}://", request.scheme)).ok_or("its address is no path")?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        if !rest[..end].eq_ignore_ascii_case(&request.host) {
            return Err("its address names another host".to_owned());
        }
        target = &rest[end..];
        if !target.starts_with('/') {
            return Err("its address has no path".to_owned());
        }
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) || target.contains(['#', '\\', '"', '<', '>']) {
        return Err("its address has characters that have to be encoded".to_owned());
    }
    Ok(match target.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (target.to_owned(), None),
    })
}

fn segments(path: &str, paths: Paths) -> Result<Vec<String>, String> {
    let mut segments: Vec<String> = Vec::new();
    let raw: Vec<&str> = path[1..].split('/').collect();
    if raw.len() > MOST {
        return Err("its path has too many parts".to_owned());
    }
    for (place, part) in raw.iter().enumerate() {
        let last = place + 1 == raw.len();
        if part.is_empty() {
            if last {
                break;
            }
            match paths {
                Paths::Strict => return Err("its path has an empty part".to_owned()),
                Paths::Names => {}
            }
        }
        let segment = unescape(part)?;
        let dots = |text: &str| text.split(['/', '\\']).any(|part| part == "." || part == "..");
        let again = percent_decode_str(&segment).decode_utf8_lossy();
        if dots(&segment) || dots(&again) {
            return Err("its path has `.` or `..` in it".to_owned());
        }
        if segment.chars().any(char::is_control) {
            return Err("its path has control characters in it".to_owned());
        }
        if paths == Paths::Strict && segment.chars().any(looks_like_ascii) {
            return Err("its path has characters in it that some services take for dots or slashes".to_owned());
        }
        match paths {
            Paths::Strict if segment.contains(['/', '\\']) => return Err("its path has an encoded slash in it".to_owned()),
            Paths::Strict if segment.contains(';') => return Err("its path has parameters in it, which some services cut off".to_owned()),
            Paths::Strict if *again != segment => return Err("its path is encoded twice".to_owned()),
            Paths::Strict | Paths::Names => {}
        }
        segments.push(segment);
    }
    Ok(segments)
}

/// Letters of other widths, and dots and slashes of other scripts: what compatibility decomposition (Unicode, NFKC) makes ASCII of.
fn looks_like_ascii(letter: char) -> bool {
    matches!(letter, '\u{ff01}'..='\u{ff5e}' | '\u{2024}'..='\u{2026}' | '\u{2044}' | '\u{2215}' | '\u{29f8}' | '\u{fe52}' | '\u{fe68}')
}

/// Decodes `%XX`; half an escape, or bytes that are no text, have no one meaning.
fn unescape(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    let whole = |index: usize| bytes.get(index + 1..index + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if bytes.iter().enumerate().any(|(index, byte)| *byte == b'%' && !whole(index)) {
        return Err("its address has half an escape in it".to_owned());
    }
    percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| "its address is no UTF-8".to_owned())
}

/// The parameters of a query or a form.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    // Some services end a parameter at `;` too, and others drop what has one.
    if text.split(';').skip(1).any(|rest| rest.split('&').next().is_some_and(|rest| rest.contains('='))) {
        return Err("its parameters have `;` between them, which some services read as `&`".to_owned());
    }
    let parts: Vec<&str> = text.split('&').filter(|part| !part.is_empty()).collect();
    if parts.len() > 16 * MOST {
        return Err("it has too many parameters".to_owned());
    }
    parts
        .into_iter()
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((unescape(&name.replace('+', " "))?, unescape(&value.replace('+', " "))?))
        })
        .collect()
}

/// Whether a body of this label (without parameters) is taken by services as it is.
#[must_use]
pub fn is_data(kind: &str) -> bool {
    const DATA: [&str; 7] = [
        "application/octet-stream",
        "application/x-tar",
        "application/tar",
        "application/gzip",
        "application/x-gzip",
        "application/zip",
        "application/zstd",
    ];
    DATA.iter().any(|data| data.eq_ignore_ascii_case(kind))
}

/// A label of a body (RFC 9110 section 8.3.1).
#[derive(Default)]
struct Media {
    /// In lower case.
    kind: String,
    charset: Option<String>,
    boundary: Option<String>,
}

impl Media {
    /// Readers take the first or the last of two parameters, and some know those in pieces (RFC 2231): such a label has no one meaning.
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(';').map(str::trim);
        let mut media = Self { kind: parts.next().unwrap_or_default().to_ascii_lowercase(), ..Self::default() };
        for (name, value) in parts.filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, ""))) {
            let name = name.to_ascii_lowercase();
            let known = match name.as_str() {
                "charset" => &mut media.charset,
                "boundary" => &mut media.boundary,
                _ if name.trim().starts_with("charset") || name.trim().starts_with("boundary") => {
                    return Err("the label of its body says in an odd way how to read it".to_owned());
                }
                _ => continue,
            };
            let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            let value = quoted.unwrap_or(value);
            if known.is_some() || value.is_empty() || value.contains(['"', '\\', '\'', ' ', '\t']) {
                return Err("the label of its body says in two ways how to read it".to_owned());
            }
            *known = Some(value.to_owned());
        }
        Ok(media)
    }
}

fn content(body: &Body, media: &Media) -> Result<Content, String> {
    let kind = media.kind.clone();
    let too_large = || format!("its body is larger than the {BODY_LIMIT} bytes that are looked into");
    let bytes = match body {
        Body::Empty | Body::Unread(_) => return Ok(Content::None),
        Body::Bytes(bytes) if bytes.len() <= BODY_LIMIT => bytes,
        Body::File { .. } if is_data(&kind) => return Ok(Content::Opaque),
        Body::Bytes(_) | Body::File { .. } => return Err(too_large()),
    };
    if media.charset.as_ref().is_some_and(|charset| !["utf-8", "utf8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known)))
    {
        return Err("its body is in another character set than UTF-8".to_owned());
    }
    let text = || std::str::from_utf8(bytes).map_err(|_| "its body is no UTF-8".to_owned());
    if kind.ends_with("json") || kind.starts_with("application/x-amz-json") || kind.ends_with("+json") {
        return json::parse(bytes).map(Content::Json).map_err(|error| format!("its body is not one JSON value: {error}"));
    }
    if kind == "application/x-www-form-urlencoded" {
        let text = text()?;
        if json::parse(bytes).is_ok_and(|value| !value.is_number()) {
            // `curl -d '{…}'`. Some services look at the body, others at its label.
            return Err("its body is labelled as a form but is JSON; set `Content-Type: application/json`".to_owned());
        }
        let pairs = pairs(text)?;
        if pairs.iter().any(|(name, _)| overrides_method(name)) {
            return Err("a form field `_method` may make another method of it".to_owned());
        }
        return Ok(Content::Form(pairs));
    }
    if kind.ends_with("/xml") || kind.ends_with("+xml") {
        return xml::parse(text()?).map(Content::Xml).map_err(|error| format!("its body is not one XML document: {error}"));
    }
    if kind == "application/cbor" {
        return cbor(bytes).map(Content::Cbor);
    }
    if kind.starts_with("multipart/") {
        let parts = multipart::parse(bytes, media.boundary.as_deref().ok_or("its parts have no boundary")?)?;
        if parts.iter().any(|part| overrides_method(&part.name)) {
            return Err("a form field `_method` may make another method of it".to_owned());
        }
        return Ok(Content::Multipart(parts));
    }
    // Services often read JSON whatever its label; what is none is data.
    match (json::parse(bytes), std::str::from_utf8(bytes)) {
        (Ok(value), _) if value.is_object() || value.is_array() => Ok(Content::Json(value)),
        (_, Ok(text)) => Ok(Content::Text(kind, text.to_owned())),
        (_, Err(_)) => Ok(Content::Opaque),
    }
}

fn cbor(bytes: &[u8]) -> Result<Value, String> {
    let mut rest = bytes;
    let value: ciborium::Value =
        ciborium::de::from_reader_with_recursion_limit(&mut rest, 128).map_err(|_| "its body is not one CBOR value".to_owned())?;
    if rest.is_empty() { from_cbor(value) } else { Err("its body has more than one CBOR value".to_owned()) }
}

fn from_cbor(value: ciborium::Value) -> Result<Value, String> {
    Ok(match value {
        ciborium::Value::Null => Value::Null,
        ciborium::Value::Bool(truth) => Value::Bool(truth),
        ciborium::Value::Integer(number) => i64::try_from(number)
            .map(Value::from)
            .or_else(|_| u64::try_from(number).map(Value::from))
            .map_err(|_| "a number in its body is too large")?,
        ciborium::Value::Float(number) => Value::from(number),
        ciborium::Value::Text(text) => Value::String(text),
        ciborium::Value::Bytes(bytes) => Value::String(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)),
        ciborium::Value::Tag(_, inner) => from_cbor(*inner)?,
        ciborium::Value::Array(items) => Value::Array(items.into_iter().map(from_cbor).collect::<Result<_, _>>()?),
        ciborium::Value::Map(entries) => {
            let mut object = Map::new();
            for (key, value) in entries {
                let ciborium::Value::Text(key) = key else { return Err("a key in its body is no text".to_owned()) };
                if object.insert(key, from_cbor(value)?).is_some() {
                    return Err("a key in its body occurs twice".to_owned());
                }
            }
            Value::Object(object)
        }
        _ => return Err("its body has values of an unknown type".to_owned()),
    })
}

/// Why a request may be taken for another one than its method says, or for two.
pub(crate) fn other_than_its_method(request: &Canonical) -> Option<&'static str> {
    let own = request.request.method.as_str();
    if matches!(own, "GET" | "HEAD" | "OPTIONS") && request.request.body != Body::Empty {
        return Some("it has a body, which services don't expect of a read: they may take it for a change, or for the next request");
    }
    let names = |name: &str| {
        let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        ["method", "httpmethod", "methodoverride"].iter().any(|known| letters.eq_ignore_ascii_case(known))
    };
    let changes =
        |value: &str| ["POST", "PUT", "PATCH", "DELETE"].iter().any(|method| value.trim().eq_ignore_ascii_case(method) && *method != own);
    let says_so = |(name, value): &(String, String)| {
        names(name) && changes(value)
            || json::parse(value.as_bytes()).is_ok_and(|value| has(&value, &|name, value| names(name) && changes(value)))
    };
    let fields = if let Content::Form(pairs) = &request.content { pairs.as_slice() } else { &[] };
    request.query.iter().chain(fields).any(says_so).then_some("a parameter says another method, which some services go by")
}

/// Whether a text below a name is so, at any depth.
fn has(value: &Value, is_so: &impl Fn(&str, &str) -> bool) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| has(item, is_so)),
        Value::Object(members) => {
            members.iter().any(|(name, value)| value.as_str().is_some_and(|text| is_so(name, text)) || has(value, is_so))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn overrides_method(name: &str) -> bool {
    let dashed = name.replace('_', "-").to_ascii_lowercase();
    matches!(dashed.as_str(), "-method" | "$method") || OVERRIDES.contains(&dashed.as_str())
}

/// The agent's own text, fit for a message.
pub(crate) fn shown(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).take(80).collect()
}

#[cfg(test)]
mod tests;
