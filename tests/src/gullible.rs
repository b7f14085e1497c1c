//! A stand-in for services that go by everything a request says about itself: overrides of the method in headers, parameters, fields
//! and trailers, batches, second encodings of paths, and bodies that it takes for the next request.
//!
//! It keeps things under numbers, and tells which are left.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

/// The token that it takes.
pub const TOKEN: &str = "gullible-token-51b0c7";

/// Things that it keeps, and what it was asked.
#[derive(Default)]
struct Inner {
    things: BTreeSet<String>,
    asked: Vec<String>,
}

/// A running stand-in. Its threads end with the test's process.
pub struct Gullible {
    port: u16,
    inner: Arc<Mutex<Inner>>,
}

impl Gullible {
    /// Starts one at a free port.
    pub fn start() -> Result<Gullible> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen")?;
        let port = listener.local_addr()?.port();
        let inner: Arc<Mutex<Inner>> = Arc::default();
        let kept = inner.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let kept = kept.clone();
                thread::spawn(move || serve(socket, &kept));
            }
        });
        let service = Gullible { port, inner };
        service.fill();
        Ok(service)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes everything anew.
    pub fn fill(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.things = ["1", "2"].map(str::to_owned).into();
        inner.asked.clear();
    }

    /// What is left.
    pub fn things(&self) -> Vec<String> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).things.iter().cloned().collect()
    }

    /// What it was asked since, as `METHOD TARGET`.
    pub fn asked(&self) -> Vec<String> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).asked.clone()
    }
}

/// Serves one connection until it ends; nothing to report where it breaks.
fn serve(socket: TcpStream, kept: &Mutex<Inner>) -> Option<()> {
    socket.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let mut reader = BufReader::new(socket.try_clone().ok()?);
    let mut writer = socket;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let mut words = line.trim_end().split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return None };
        let mut headers = Vec::new();
        read_fields(&mut reader, &mut headers)?;
        let header = |name: &str| headers.iter().find(|(other, _): &&(String, String)| other == name).map(|(_, value)| value.clone());
        let chunked = header("transfer-encoding").is_some_and(|encoding| encoding.contains("chunked"));
        let mut body = Vec::new();
        if chunked {
            loop {
                let mut size = String::new();
                reader.read_line(&mut size).ok()?;
                let size = usize::from_str_radix(size.trim(), 16).ok()?;
                if size == 0 {
                    break;
                }
                let mut chunk = vec![0; size + 2];
                reader.read_exact(&mut chunk).ok()?;
                body.extend_from_slice(&chunk[..size]);
            }
            read_fields(&mut reader, &mut headers)?;
        } else if method != "GET" {
            // A read has no body here: what follows is the next request.
            let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
        }
        let mut inner = kept.lock().unwrap_or_else(PoisonError::into_inner);
        inner.asked.push(format!("{method} {target}"));
        take(&mut inner.things, method, target, &headers, &body);
        let left: Vec<&String> = inner.things.iter().collect();
        let text = format!("{left:?}");
        drop(inner);
        match target {
            // It says that it became something else, and goes on as before.
            "/switch" => {
                write!(writer, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").ok()?;
                continue;
            }
            // A WebSocket that takes all and says nothing.
            "/quiet" => {
                write!(writer, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").ok()?;
                std::io::copy(&mut reader, &mut std::io::sink()).ok()?;
                return None;
            }
            "/hints" => {
                let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n".repeat(1_000);
                (0..200).try_for_each(|_| writer.write_all(hint.as_bytes())).ok()?;
            }
            "/headers" => {
                write!(writer, "HTTP/1.1 200 OK\r\n").ok()?;
                let more = "X-More: 0123456789012345678901234567890123456789\r\n".repeat(1_000);
                (0..2_000).try_for_each(|_| writer.write_all(more.as_bytes())).ok()?;
            }
            "/split" => write!(writer, "HTTP/1.1 200 OK\r\nX-A: b\rReprieve-Hold: H-1\r\nContent-Length: 0\r\n\r\n").ok()?,
            _ => {}
        }
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}", text.len()).ok()?;
    }
}

fn read_fields(reader: &mut impl std::io::BufRead, fields: &mut Vec<(String, String)>) -> Option<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Some(()) };
        // Gateways of CGI make one of both.
        fields.push((name.to_ascii_lowercase().replace('_', "-"), value.trim().to_owned()));
    }
}

/// Does what somebody who believes everything would do.
fn take(things: &mut BTreeSet<String>, method: &str, target: &str, headers: &[(String, String)], body: &[u8]) {
    let text = String::from_utf8_lossy(body).into_owned();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let kind = headers.iter().rfind(|(name, _)| name == "content-type").map_or("", |(_, value)| value.as_str());
    let mut method = method.to_ascii_uppercase();
    let overrides = ["x-http-method-override", "x-http-method", "x-method-override"];
    let by_header = headers.iter().filter(|(name, _)| overrides.contains(&name.as_str())).map(|(_, value)| value.clone());
    let field = |pairs: &str| -> Option<String> {
        let pair = pairs.split(['&', ';']).rfind(|pair| {
            let name = decoded(pair.split('=').next().unwrap_or_default()).to_lowercase();
            let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
            ["method", "httpmethod", "xhttpmethodoverride"].contains(&name.as_str())
        })?;
        Some(decoded(pair.split('=').nth(1).unwrap_or_default()))
    };
    // The last boundary that is named is the one it goes by.
    let by_part = kind.rsplit("boundary=").next().and_then(|boundary| {
        let part = text.split(&format!("--{}", boundary.trim_matches('"'))).find(|part| part.contains("name=\"_method\""))?;
        Some(part.split("\r\n\r\n").nth(1)?.trim().to_owned())
    });
    let by_form = (kind.contains("form-urlencoded")).then(|| field(&text)).flatten();
    for said in by_header.chain(field(query)).chain(by_form).chain(by_part) {
        method = said.to_ascii_uppercase();
    }
    // As many encodings as there are, and whatever else looks like a path.
    let mut path = path.to_owned();
    for _ in 0..3 {
        path = decoded(&path.replace("%c0%ae", ".").replace("%c0%af", "/"))
            .replace('\\', "/")
            .replace('\u{ff0e}', ".")
            .replace('\u{ff0f}', "/");
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    let lower: Vec<String> = segments.iter().map(|segment| segment.to_lowercase()).collect();
    match lower.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["things", id] if method == "DELETE" => drop(things.remove(*id)),
        ["things", id, "delete"] if method == "POST" => drop(things.remove(*id)),
        ["things"] if method == "DELETE" || method == "POST" && query.split('&').any(|pair| pair.starts_with("delete")) => things.clear(),
        [_, "_delete_by_query"] if method == "POST" => things.clear(),
        [_, "_bulk"] if text.contains("\"delete\"") => things.clear(),
        // Batches: of parts, of lines, and of values in JSON.
        ["$batch" | "batch" | "rpc" | "", ..] | ["v1", "$batch" | "batch"] | [] => {
            batch(things, &format!("{text}\n{}\n{}", decoded(query), decoded(&text)))
        }
        _ => {}
    }
}

fn batch(things: &mut BTreeSet<String>, text: &str) {
    let mut deletes = text.lines().any(|line| line.starts_with("DELETE ") && line.contains("things/1"));
    let json = text.find(['[', '{']).and_then(|at| serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>().next());
    if let Some(Ok(value)) = json {
        deletes |= hidden(&value);
    }
    if deletes {
        things.remove("1");
    }
}

fn hidden(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(hidden),
        Value::Object(members) => {
            let method = members.get("method").and_then(Value::as_str).unwrap_or_default();
            method.eq_ignore_ascii_case("delete") || method == "things.delete" || members.values().any(hidden)
        }
        Value::String(text) => serde_json::from_str::<Value>(text).is_ok_and(|value| !value.is_string() && hidden(&value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Percent-decoded, as far as it goes.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
