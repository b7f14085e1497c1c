//! A hostile agent in front of a service that believes everything a request says about itself. Each trick is played twice, with the same
//! bytes: past the gateway, where it has to take something away, and through it, where nothing may be gone.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use reprieve_testkit::{Gateway, GatewayOptions, GuardedService, free_port};
use reprieve_tests::{GULLIBLE_TOKEN, Gullible};
use serde_json::Value;

/// What the operator knows of the service: enough that some of it passes without anybody being asked.
const CATALOG: &str = r#"
name = "gullible"
title = "A service that believes everything"
speaks = "rest"
sources = ["tests/src/gullible.rs"]

[[operation]]
id = "thing-get"
call = "GET /things/{thing}"
class = "read"

[[operation]]
id = "thing-update"
call = "POST /things/{thing}"
class = "write"

[[operation]]
id = "thing-search"
call = "POST /things/search/{name+}"
class = "read"

[[operation]]
id = "thing-delete"
call = "DELETE /things/{thing}"
class = "destroy lasting"
"#;

struct Stage {
    gateway: Gateway,
    service: Gullible,
    port: u16,
    token: String,
    other: String,
}

impl Stage {
    fn open(more: &str, policies: Vec<(String, String)>) -> Result<Stage> {
        let service = Gullible::start()?;
        let port = free_port()?;
        let folder = std::env::temp_dir().join(format!("reprieve-tricks-{}-{port}.toml", std::process::id()));
        std::fs::write(&folder, CATALOG)?;
        let guarded = GuardedService {
            name: "gullible".to_owned(),
            environment: "production".to_owned(),
            credential: GULLIBLE_TOKEN.to_owned(),
            presented: "bearer".to_owned(),
            settings: format!(
                "provider = \"gullible\"\nurl = \"http://127.0.0.1:{}\"\nlisten = \"127.0.0.1:{port}\"\n{more}",
                service.port()
            ),
        };
        let settings = format!("[catalog]\nfiles = [\"{}\"]\n", folder.display());
        let gateway = Gateway::start(GatewayOptions { services: vec![guarded], settings, policies, ..GatewayOptions::default() })?;
        std::fs::remove_file(&folder)?;
        let token = |name: &str| -> Result<String> {
            let url = gateway.agent(name, &["gullible"], "read,write,destroy,grant")?;
            Ok(url.split(['@', ':']).nth(2).context("no token")?.to_owned())
        };
        let (token, other) = (token("mallory")?, token("other")?);
        Ok(Stage { gateway, service, port, token, other })
    }

    /// Sends requests with `{token}` in them to a port, and reads what comes until it closes.
    fn talk(port: u16, token: &str, requests: &str, half: bool) -> Result<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        // It may be closed before everything is sent.
        let _ = socket.write_all(requests.replace("{token}", token).as_bytes());
        if half {
            socket.shutdown(Shutdown::Write)?;
        }
        let mut answer = Vec::new();
        let mut piece = [0u8; 4096];
        while let Ok(count @ 1..) = socket.read(&mut piece) {
            answer.extend_from_slice(&piece[..count]);
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn directly(&self, requests: &str) -> Result<String> {
        Self::talk(self.service.port(), GULLIBLE_TOKEN, requests, true)
    }

    fn through(&self, requests: &str) -> Result<String> {
        Self::talk(self.port, &self.token, requests, false)
    }

    /// Plays one trick both ways.
    fn play(&self, what: &str, requests: &str) -> Result<String> {
        self.service.fill();
        let direct = self.directly(requests)?;
        ensure!(self.service.things().len() < 2, "{what} harms nobody: {requests}\n{direct}");
        self.service.fill();
        let answer = self.through(requests)?;
        ensure!(self.service.things().len() == 2, "{what} got through: {:?}\n{answer}", self.service.asked());
        ensure!(answer.starts_with("HTTP/1."), "{what} was not answered: {answer}");
        Ok(answer)
    }

    /// The first channels that were closed, as they are recorded.
    fn closed(&self, count: usize) -> Result<Vec<Value>> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let exported = self.gateway.cli(&["ledger", "export"])?;
            let text = String::from_utf8_lossy(&exported.stdout).into_owned();
            let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let inner = |event: Value| if event["event"].is_object() { event["event"].clone() } else { event };
            let found: Vec<Value> = events.map(inner).filter(|event| event["event"] == "channel_closed").collect();
            if found.len() >= count || Instant::now() > until {
                ensure!(found.len() == count, "{} channels were closed: {found:?}", found.len());
                return Ok(found);
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The memory that the gateway has, in bytes.
    fn memory(&self) -> Result<u64> {
        let pid = std::fs::read_to_string(self.gateway.folder().join("serve.pid"))?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

/// One request, the last of its connection.
fn ask(method: &str, target: &str, headers: &[&str], body: &str) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: gullible\r\nAuthorization: Bearer {{token}}\r\nConnection: close\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text + "\r\n" + body
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
const JSON: &str = "Content-Type: application/json";

#[test]
fn another_method_in_any_dress_does_not_get_through() -> Result<()> {
    let stage = Stage::open("", Vec::new())?;
    // The way there works, and an update passes.
    stage.service.fill();
    let updated = stage.through(&ask("POST", "/things/1", &[JSON], r#"{"name":"a"}"#))?;
    ensure!(updated.starts_with("HTTP/1.1 200"), "{updated}");
    ensure!(stage.through(&ask("GET", "/things/1", &[], ""))?.starts_with("HTTP/1.1 200"));
    ensure!(stage.through(&ask("POST", "/things/search/a/b", &[JSON], "{}"))?.starts_with("HTTP/1.1 200"));
    let post = |target: &str, headers: &[&str], body: &str| ask("POST", target, headers, body);
    let part =
        |boundary: &str| format!("--{boundary}\r\nContent-Disposition: form-data; name=\"_method\"\r\n\r\nDELETE\r\n--{boundary}--\r\n");
    let hidden = format!("--a\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\n{}\r\n--a--\r\n", part("c").trim_end());
    for (what, request) in [
        ("as it is", ask("DELETE", "/things/1", &[], "")),
        ("X-HTTP-Method-Override", post("/things/1", &["X-HTTP-Method-Override: DELETE"], "")),
        ("X-HTTP-Method", post("/things/1", &["X-HTTP-Method: DELETE"], "")),
        ("X-Method-Override", post("/things/1", &["X-Method-Override: delete"], "")),
        ("by underscores", post("/things/1", &["X_HTTP_METHOD_OVERRIDE: DELETE"], "")),
        ("of a read", ask("GET", "/things/1", &["X-HTTP-Method-Override: DELETE"], "")),
        ("_method", post("/things/1?_method=DELETE", &[], "")),
        ("_method, encoded", post("/things/1?%5fmethod=DELETE", &[], "")),
        ("_method, behind a semicolon", post("/things/1?a=b;_method=DELETE", &[], "")),
        ("$method", post("/things/1?$method=DELETE", &[], "")),
        ("method", post("/things/1?method=delete", &[], "")),
        ("method, of a read", ask("GET", "/things/1?method=DELETE", &[], "")),
        ("httpMethod, of a read", ask("GET", "/things/1?httpMethod=DELETE", &[], "")),
        ("the header's name as a parameter", ask("GET", "/things/1?X-HTTP-Method-Override=DELETE", &[], "")),
        ("the first of two", ask("GET", "/things/1?method=GET&method=DELETE", &[], "")),
        ("a form", post("/things/1", &[FORM], "a=b&_method=DELETE")),
        ("a form, method", post("/things/1", &[FORM], "method=DELETE")),
        (
            "a form without a label",
            post("/things/1", &["Content-Type: application/x-www-form-urlencoded; charset=utf-8"], "_method=DELETE"),
        ),
        ("a part", post("/things/1", &["Content-Type: multipart/form-data; boundary=a"], &part("a"))),
        ("a part, under the second boundary", post("/things/1", &["Content-Type: multipart/form-data; boundary=a; boundary=c"], &hidden)),
        (
            "a part, under a boundary in pieces",
            post("/things/1", &["Content-Type: multipart/form-data; boundary=a; boundary*0=x; xboundary=c"], &hidden),
        ),
    ] {
        let answer = stage.play(what, &request)?;
        ensure!(answer.starts_with("HTTP/1.1 403"), "{what}: {answer}");
    }
    // Trailers end at the gateway: what arrives is the update that was looked at.
    let head =
        "POST /things/1 HTTP/1.1\r\nHost: gullible\r\nAuthorization: Bearer {token}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n";
    for trailer in ["X-HTTP-Method-Override: DELETE", "Content-Length: 0\r\nX-HTTP-Method: DELETE"] {
        let request = format!("{head}Trailer: X-HTTP-Method-Override, Content-Length\r\n\r\n1\r\na\r\n0\r\n{trailer}\r\n\r\n");
        stage.play("a trailer", &request)?;
    }
    ensure!(stage.gateway.verify()?["verified"] == true, "the ledger does not verify");
    Ok(())
}

#[test]
fn paths_that_become_others_do_not_get_through() -> Result<()> {
    let stage = Stage::open("", Vec::new())?;
    for path in [
        "/things/search/../1/delete",
        "/things/search/%2e%2e/1/delete",
        "/things/search/.%2E/1/delete",
        "/things/search/%252e%252e/1/delete",
        "/things/search/..;a=b/1/delete",
        "/things/search/%2e%2e%3b/1/delete",
        "/things/search/..%2f1/delete",
        "/things/search/a/..%5c..%5c1/delete",
        "/things/search/a%5c..%5c..%5c1%5cdelete",
        "/things/search/%c0%ae%c0%ae/1/delete",
        "/things/search/%c0%ae%c0%ae%c0%af1/delete",
        "/things/search/%ef%bc%8e%ef%bc%8e/1/delete",
        "/things/search/%ef%bc%8e%ef%bc%8e%ef%bc%8f1/delete",
        "/things/search/./../1/delete",
        "/things/search/a/../../1/./delete",
        "/THINGS/search/../1/DELETE",
        "//things/1/delete",
        "/things;a=b/1/delete;c=d",
    ] {
        let answer = stage.play(path, &ask("POST", path, &[JSON], "{}"))?;
        ensure!(answer.starts_with("HTTP/1.1 403"), "{path}: {answer}");
    }
    Ok(())
}

#[test]
fn batches_do_not_carry_a_change_past_the_gate() -> Result<()> {
    let stage = Stage::open("", Vec::new())?;
    let parts = "--b\r\nContent-Type: application/http\r\nContent-ID: 1\r\n\r\nGET /things/2 HTTP/1.1\r\n\r\n\r\n--b\r\nContent-Type: application/http\r\n\
                 Content-ID: 2\r\n\r\nDELETE /things/1 HTTP/1.1\r\n\r\n\r\n--b--\r\n";
    let sets = format!("--a\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n{parts}--a--\r\n");
    let requests = r#"{"requests":[{"id":"1","method":"GET","url":"/things/2"},{"id":"2","method":"DELETE","url":"/things/1"}]}"#;
    let facebook = r#"[{"method":"GET","relative_url":"things/2"},{"method":"DELETE","relative_url":"things/1"}]"#;
    let encoded = facebook.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let calls =
        r#"[{"jsonrpc":"2.0","id":1,"method":"things.get","params":[2]},{"jsonrpc":"2.0","id":2,"method":"things.delete","params":[1]}]"#;
    let within = serde_json::json!({ "requests": [{ "method": "POST", "url": "/$batch", "body": requests }] }).to_string();
    let lines = "{\"index\":{\"_id\":\"2\"}}\n{\"a\":1}\n{\"delete\":{\"_id\":\"1\"}}\n";
    let mixed = "Content-Type: multipart/mixed; boundary=b";
    for (what, request) in [
        ("OData in parts", ask("POST", "/$batch", &[mixed], parts)),
        ("OData in parts of parts", ask("POST", "/$batch", &["Content-Type: multipart/mixed; boundary=a"], &sets)),
        ("OData in JSON", ask("POST", "/$batch", &[JSON], requests)),
        ("Graph", ask("POST", "/v1/$batch", &[JSON], requests)),
        ("Graph under an encoded name", ask("POST", "/v1/%24batch", &[JSON], requests)),
        ("Google", ask("POST", "/batch", &[mixed], parts)),
        ("Google, of one service", ask("POST", "/batch/things/v1", &[mixed], parts)),
        ("a batch within a batch", ask("POST", "/$batch", &[JSON], &within)),
        ("Facebook, as an address", ask("POST", &format!("/?batch={encoded}"), &[], "")),
        ("Facebook, as an address that is read", ask("GET", &format!("/?batch={encoded}"), &[], "")),
        ("Facebook, as a form", ask("POST", "/", &[FORM], &format!("batch={encoded}"))),
        ("Facebook, as text", ask("POST", "/", &["Content-Type: text/plain"], facebook)),
        ("calls", ask("POST", "/rpc", &[JSON], calls)),
        ("calls, as text", ask("POST", "/rpc", &["Content-Type: text/plain"], calls)),
        ("calls, as no type", ask("POST", "/rpc", &[], calls)),
        ("calls, by PUT", ask("PUT", "/rpc", &[JSON], calls)),
        (
            "S3, several objects",
            ask("POST", "/things?delete", &["Content-Type: application/xml"], "<Delete><Object><Key>1</Key></Object></Delete>"),
        ),
        ("Elasticsearch, lines", ask("POST", "/index/_bulk", &["Content-Type: application/x-ndjson"], lines)),
        ("Elasticsearch, lines as JSON", ask("PUT", "/index/_bulk", &[JSON], lines)),
        ("Elasticsearch, by query", ask("POST", "/index/_delete_by_query", &[JSON], r#"{"query":{"match_all":{}}}"#)),
    ] {
        let answer = stage.play(what, &request)?;
        ensure!(answer.starts_with("HTTP/1.1 403"), "{what}: {answer}");
    }
    Ok(())
}

#[test]
fn what_follows_on_a_connection_is_looked_at_like_any_request() -> Result<()> {
    let stage = Stage::open("", Vec::new())?;
    let delete = "DELETE /things/1 HTTP/1.1\r\nHost: gullible\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n";
    let bare = "DELETE /things/1 HTTP/1.1\r\nHost: gullible\r\n\r\n";
    let read = |more: &str| format!("GET /things/2 HTTP/1.1\r\nHost: gullible\r\nAuthorization: Bearer {{token}}\r\n{more}\r\n");
    for (what, requests) in [
        ("behind a read", format!("{}{delete}", read(""))),
        ("behind a read of HTTP/1.0", format!("{}{delete}", read("Connection: keep-alive\r\n").replacen("1.1", "1.0", 1))),
        ("behind a read that wants no answer yet", format!("{}{delete}", read("Expect: 100-continue\r\n"))),
        ("behind a range", format!("{}{delete}", read("Range: bytes=0-0\r\n"))),
        (
            "behind an upgrade to HTTP/2",
            format!("{}{delete}", read("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n")),
        ),
        ("behind a WebSocket that never is one", format!("{}{delete}", read("Connection: Upgrade\r\nUpgrade: websocket\r\n"))),
        ("as the body of a read", format!("{}{bare}", read(&format!("Connection: close\r\nContent-Length: {}\r\n", bare.len())))),
    ] {
        stage.play(what, &requests)?;
        ensure!(stage.service.asked().iter().all(|asked| asked == "GET /things/2"), "{what}: {:?}", stage.service.asked());
    }
    // Whoever asks for the same connection's next answer gets its own.
    let answer = stage.through(&format!("{}{}", read(""), ask("GET", "/things/1", &[], "")))?;
    ensure!(answer.matches("HTTP/1.1 200").count() == 2, "{answer}");
    Ok(())
}

#[test]
fn a_channel_that_is_none_is_cut_and_what_was_said_is_counted() -> Result<()> {
    let permit = "permit (principal == Agent::\"mallory\", action, resource in System::\"gullible\") when { context.channel };";
    let stage = Stage::open("upgrades = [\"websocket\"]\n", vec![("channels.cedar".to_owned(), permit.to_owned())])?;
    let switch = "GET /switch HTTP/1.1\r\nHost: gullible\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    let delete = "DELETE /things/1 HTTP/1.1\r\nHost: gullible\r\n\r\n";
    let answer = stage.play("behind a WebSocket", &format!("{switch}{delete}"))?;
    ensure!(answer.starts_with("HTTP/1.1 101"), "its own policy did not open it: {answer}\n{}", stage.gateway.log());
    // The same from somebody whom no policy permits it.
    let held = Stage::talk(stage.port, &stage.other, switch, false);
    ensure!(held?.starts_with("HTTP/1.1 403"), "another's channel was opened");
    // A permitted channel is no way around the rest: what changes something is held, with or without an upgrade.
    for request in ["DELETE /things/1", "POST /rpc"] {
        let answer = stage.through(&switch.replace("GET /switch", request).replace("Connection: Upgrade", "Connection: close, Upgrade"))?;
        ensure!(answer.starts_with("HTTP/1.1 403"), "{request}: {answer}");
    }
    let found = stage.closed(1)?;
    ensure!(found.len() == 1, "{found:?}");
    ensure!(found[0]["reason"] == "what the agent said is no WebSocket" && found[0]["sent_messages"] == 0, "{found:?}");
    ensure!(found[0]["sent_bytes"] == delete.len(), "{found:?}");
    ensure!(stage.gateway.verify()?["verified"] == true, "the ledger does not verify");
    Ok(())
}

#[test]
fn a_channel_ends_at_its_limits() -> Result<()> {
    let permit = "permit (principal is Agent, action, resource) when { context.channel };".to_owned();
    let limits = "upgrades = [\"websocket\"]\n[system.channel]\nmessages = 3\nbytes = \"1KiB\"\nidle = \"1s\"\nlife = \"3s\"\n";
    let stage = Stage::open(limits, vec![("channels.cedar".to_owned(), permit)])?;
    let switch = "GET /quiet HTTP/1.1\r\nHost: gullible\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let open = || -> Result<TcpStream> {
        let mut socket = TcpStream::connect(("127.0.0.1", stage.port))?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        socket.write_all(switch.replace("{token}", &stage.token).as_bytes())?;
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte)? == 1 {
            head.push(byte[0]);
        }
        ensure!(head.starts_with(b"HTTP/1.1 101"), "{}\n{}", String::from_utf8_lossy(&head), stage.gateway.log());
        Ok(socket)
    };
    // A short message, masked with zeros.
    let message = |length: u8| [&[0x82, 0x80 | length, 0, 0, 0, 0], vec![b'x'; length.into()].as_slice()].concat();
    let rest = |mut socket: TcpStream| -> Result<usize> {
        let mut heard = Vec::new();
        socket.read_to_end(&mut heard).context("it was not cut")?;
        Ok(heard.len())
    };
    // Too many messages, too many bytes, silence, and a life that is over.
    let mut talking = open()?;
    talking.write_all(&message(1).repeat(4))?;
    rest(talking)?;
    let mut long = open()?;
    (0..12).try_for_each(|_| long.write_all(&message(100)))?;
    rest(long)?;
    rest(open()?)?;
    let mut chatting = open()?;
    for _ in 0..50 {
        // A question about the connection is no message.
        if chatting.write_all(&[0x89, 0x80, 0, 0, 0, 0]).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    rest(chatting).ok();
    // Frozen, and then none opens.
    let frozen = open()?;
    stage.gateway.freeze(None)?;
    rest(frozen)?;
    let reasons = stage.closed(5)?;
    for (reason, expected) in reasons.iter().zip([
        "the agent said more than 3 messages",
        "the agent said more than 1024 bytes",
        "nothing was said in it for 1 s",
        "it was open for 3 s",
        "frozen",
    ]) {
        ensure!(reason["reason"].as_str().is_some_and(|reason| reason.contains(expected)), "{expected}: {reasons:?}");
    }
    ensure!(reasons[0]["sent_messages"] == 4 && reasons[0]["sent_bytes"] == 28, "{reasons:?}");
    ensure!(reasons[3]["sent_messages"] == 0 && reasons[3]["open_ms"].as_u64().is_some_and(|open| open >= 3_000), "{reasons:?}");
    Ok(())
}

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[test]
fn a_flood_keeps_nobody_else_waiting() -> Result<()> {
    let stage = Stage::open("", Vec::new())?;
    let read = |token: &str| Stage::talk(stage.port, token, &ask("GET", "/things/1", &[], ""), false);
    ensure!(read(&stage.other)?.starts_with("HTTP/1.1 200"));
    let before = stage.memory()?;
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    let fields =
        |pairs: &[(&str, &str)]| pairs.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect::<Vec<u8>>();
    let bearer = format!("Bearer {}", stage.token);
    let head = fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/things/1"), ("authorization", &bearer)]);
    let resets = |stream: u32| [frame(1, 5, stream, &head), frame(3, 0, stream, &8u32.to_be_bytes())].concat();
    let more = fields(&[("x-flood", "0123456789012345678901234567890123456789")]);
    let floods: Vec<(&str, bool, Vec<u8>)> = vec![
        ("resets", true, (0..50_000).flat_map(|number| resets(number * 2 + 1)).collect()),
        ("continuations", true, [frame(1, 0, 1, &head), frame(9, 0, 1, &more).repeat(100_000)].concat()),
        ("empty continuations", true, [frame(1, 0, 1, &head), frame(9, 0, 1, &[]).repeat(500_000)].concat()),
        ("empty data", true, [frame(1, 4, 1, &head), frame(0, 0, 1, &[]).repeat(500_000)].concat()),
        ("settings", false, frame(4, 0, 0, &[0, 1, 0, 0, 16, 0]).repeat(500_000)),
        ("pings", false, frame(6, 0, 0, &[0; 8]).repeat(500_000)),
        ("priorities", false, (0..200_000u32).flat_map(|number| frame(2, 0, number * 2 + 1, &[0, 0, 0, 0, 1])).collect()),
        ("window updates", false, frame(8, 0, 0, &1u32.to_be_bytes()).repeat(500_000)),
    ];
    let stage = &stage;
    for (what, ends, flood) in &floods {
        let sent = thread::scope(|scope| -> Result<bool> {
            // Who floods does not listen to the answers.
            let flooding = scope.spawn(move || -> Result<bool> {
                let mut socket = TcpStream::connect(("127.0.0.1", stage.port))?;
                socket.set_write_timeout(Some(Duration::from_secs(5)))?;
                let opening = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat();
                if socket.write_all(&opening).and_then(|()| socket.write_all(flood)).is_err() {
                    return Ok(false);
                }
                // All of it fitted into buffers: it ends as soon as it was looked at.
                socket.set_read_timeout(Some(Duration::from_secs(10)))?;
                let mut heard = vec![0; 1 << 16];
                loop {
                    match socket.read(&mut heard) {
                        Ok(0) => return Ok(false),
                        Ok(_) => {}
                        Err(error) => return Ok(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)),
                    }
                }
            });
            for _ in 0..10 {
                ensure!(read(&stage.other)?.starts_with("HTTP/1.1 200"), "{what}: another agent has to wait");
            }
            flooding.join().map_err(|_| anyhow::anyhow!("it panicked"))?
        })?;
        ensure!(!ends || !sent, "{what}: the connection is still open");
    }
    let grown = stage.memory()?.saturating_sub(before);
    ensure!(grown < 64 << 20, "the gateway grew by {grown} bytes");
    ensure!(stage.service.things().len() == 2, "something is gone");
    ensure!(stage.gateway.verify()?["verified"] == true, "the ledger does not verify");
    Ok(())
}

#[test]
fn a_service_that_floods_the_gateway_keeps_nobody_else_waiting() -> Result<()> {
    let stage = Stage::open("", Vec::new())?;
    let read = |token: &str| Stage::talk(stage.port, token, &ask("GET", "/things/1", &[], ""), false);
    ensure!(read(&stage.token)?.starts_with("HTTP/1.1 200"));
    let before = stage.memory()?;
    let stage = &stage;
    thread::scope(|scope| -> Result<()> {
        let floods: Vec<_> = ["/hints", "/headers", "/split"]
            .into_iter()
            .map(|target| scope.spawn(move || Stage::talk(stage.port, &stage.token, &ask("GET", target, &[], ""), false)))
            .collect();
        for _ in 0..20 {
            ensure!(read(&stage.other)?.starts_with("HTTP/1.1 200"), "another agent has to wait");
        }
        for (flood, target) in floods.into_iter().zip(["/hints", "/headers", "/split"]) {
            let answer = flood.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
            // What comes before the answer is not passed on; an answer without an end is none.
            let expected = if target == "/hints" { "HTTP/1.1 200" } else { "HTTP/1.1 502" };
            ensure!(answer.starts_with(expected) && !answer.to_lowercase().contains("reprieve-hold"), "{target}: {answer}");
        }
        Ok(())
    })?;
    let grown = stage.memory()?.saturating_sub(before);
    ensure!(grown < 64 << 20, "the gateway grew by {grown} bytes");
    Ok(())
}
