//! The listener as a client sees it: real sockets, real TLS, a desk that writes down what it was asked.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reprieve_gate::{Desk, DeskAnswer, DeskError, SignedCommand};
use reprieve_operation::AgentName;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

mod doors;
mod house;

use crate::{
    PAGES, ROUTES,
    listener::{Limits, serve_within},
};

/// Answers by the command's text, and remembers what it was asked.
#[derive(Default)]
struct Clerk {
    asked: Mutex<Vec<String>>,
    go: Notify,
}

impl Desk for Clerk {
    fn perform(&self, command: SignedCommand) -> DeskAnswer<'_> {
        Box::pin(async move {
            if command.command == "slow" {
                self.go.notified().await;
            }
            self.asked.lock().expect("not poisoned").push(command.command.clone());
            match command.command.as_str() {
                "forge" => Err(DeskError::NotAuthenticated),
                "flood" => Err(DeskError::TooMany { seconds: 30 }),
                "forbidden" => Err(DeskError::Forbidden("no".to_owned())),
                "invalid" => Err(DeskError::Invalid("look again".to_owned())),
                "broken" => Err(DeskError::Unavailable("the ledger".to_owned())),
                "bug" => panic!("a bug of the test"),
                other => Ok(json!({ "did": other })),
            }
        })
    }

    fn freeze<'a>(&'a self, freeze_key: &'a str, agent: Option<AgentName>, reason: String) -> DeskAnswer<'a> {
        Box::pin(async move {
            self.asked.lock().expect("not poisoned").push(format!("freeze {agent:?} {reason}"));
            if freeze_key == "the right key" { Ok(json!("frozen")) } else { Err(DeskError::NotAuthenticated) }
        })
    }
}

struct World {
    address: std::net::SocketAddr,
    connector: TlsConnector,
    clerk: Arc<Clerk>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl World {
    async fn new() -> Self {
        let drain = Duration::from_secs(5);
        Self::within(Limits { connections: 64, read: Duration::from_secs(5), whole: Duration::from_secs(10), drain }).await
    }

    async fn within(limits: Limits) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let tls = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a server");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let clerk = Arc::new(Clerk::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let served = tokio::spawn(serve_within(limits, listener, Arc::new(tls), house::console(clerk.clone()), shutdown));
        Self { address, connector: TlsConnector::from(Arc::new(client)), clerk, stop: Some(stop), served }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.expect("connected");
        self.connector.connect(ServerName::try_from("localhost").expect("a name"), stream).await.expect("TLS")
    }

    async fn send(&self, request: &str) -> Answer {
        let mut stream = self.connect().await;
        // The listener may answer and close before it has read everything.
        stream.write_all(request.as_bytes()).await.ok();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.ok();
        let text = String::from_utf8(bytes).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        self.send(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n{body}")).await
    }

    /// An answer's head, where its body is no text.
    async fn head(&self, path: &str, headers: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes()).await.ok();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.ok();
        String::from_utf8_lossy(&bytes).split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase()
    }

    async fn post(&self, path: &str, headers: &str, body: &str) -> Answer {
        self.ask("POST", path, &format!("Content-Type: application/json\r\n{headers}"), body).await
    }

    fn asked(&self) -> Vec<String> {
        self.clerk.asked.lock().expect("not poisoned").clone()
    }
}

fn command(text: &str) -> String {
    json!({ "operator": "ana", "command": text, "code": "123456", "issued_at": 1, "signature": "c2ln" }).to_string()
}

#[tokio::test]
async fn answers_and_their_statuses() {
    let world = World::new().await;
    for (text, status, name) in [
        ("hold", 200, ""),
        ("forge", 401, "not-authenticated"),
        ("flood", 429, "too-many"),
        ("forbidden", 403, "forbidden"),
        ("invalid", 422, "invalid"),
        ("broken", 503, "unavailable"),
        ("bug", 500, "bug"),
        ("again", 200, ""),
    ] {
        let answer = world.post("/v1/commands", "", &command(text)).await;
        assert_eq!(answer.status, status, "{text}: {}", answer.body);
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        if status == 200 {
            assert_eq!(body, json!({ "ok": { "did": text } }));
        } else {
            assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
            assert_eq!((&body["type"], &body["status"]), (&json!(format!("/problems/{name}")), &json!(status)));
        }
    }
    assert!(world.post("/v1/commands", "", &command("flood")).await.head.contains("retry-after: 30"));
}

#[tokio::test]
async fn the_routes_are_these_and_no_others() {
    let paths: Vec<&str> = ROUTES.iter().map(|(_, path)| *path).collect();
    assert_eq!(paths, ["/v1/health", "/v1/openapi.json", "/v1/commands", "/v1/freeze", "/v1/recovery"]);
    let world = World::new().await;
    let paths = ["/v1/health", "/v1/commands", "/v1/freeze", "/v1", "/v1/holds", "/v1/holds/1/approve", "/v1/commands/", "/.git/config"];
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "CONNECT"] {
        for path in paths {
            // HEAD is GET without a body.
            let known = ROUTES.contains(&(if method == "HEAD" { "GET" } else { method }, path));
            let answer = world.post_as(method, path).await;
            let refused = matches!(answer.status, 400 | 404 | 405);
            assert_eq!(!refused, known, "{method} {path}: {}", answer.status);
        }
    }
    assert_eq!(world.ask("GET", "/v1/health", "", "").await.body, r#"{"ok":{"listener":"operators"}}"#);
}

#[tokio::test]
async fn the_description_names_every_route_and_every_command() {
    let world = World::new().await;
    let described: Value = serde_json::from_str(&world.ask("GET", "/v1/openapi.json", "", "").await.body).expect("JSON");
    let mut told: Vec<(String, String)> = Vec::new();
    for (path, methods) in described["paths"].as_object().expect("paths") {
        told.extend(methods.as_object().expect("methods").keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    let mut served: Vec<(String, String)> = ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    told.sort();
    served.sort();
    assert_eq!(told, served);
    // serde knows the commands: it names them to whoever asks for another one.
    let error = serde_json::from_str::<reprieve_gate::Command>(r#"{"command":"no such"}"#).expect_err("no command").to_string();
    let known: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
    let commands = described["components"]["schemas"]["Command"]["oneOf"].as_array().expect("commands");
    let told: Vec<&str> = commands.iter().filter_map(|command| command["properties"]["command"]["const"].as_str()).collect();
    assert_eq!(told, known);
}

impl World {
    async fn post_as(&self, method: &str, path: &str) -> Answer {
        let (kind, key) = ("Content-Type: application/json\r\n", "Reprieve-Freeze-Key: the right key\r\n");
        let body = match path {
            "/v1/commands" => command("hold"),
            "/v1/freeze" => "{}".to_owned(),
            _ => String::new(),
        };
        self.ask(method, path, &format!("{kind}{key}"), &body).await
    }
}

#[tokio::test]
async fn agents_are_turned_away_on_every_route() {
    let world = World::new().await;
    let token = format!("rpv_{}", "A".repeat(49));
    for header in [
        format!("Authorization: Bearer {token}\r\n"),
        format!("authorization: bearer {token}\r\n"),
        "Authorization: Basic Ym90OnJwdl9BQUFB\r\n".to_owned(),
        format!("Proxy-Authorization: Bearer {token}\r\n"),
        format!("Cookie: token={token}\r\n"),
        format!("Reprieve-Freeze-Key: {token}\r\n"),
    ] {
        for (method, path) in ROUTES.into_iter().chain(PAGES).chain([("GET", "/elsewhere")]) {
            let headers = format!("Content-Type: application/json\r\n{header}");
            let answer = world.ask(method, path, &headers, &command("hold")).await;
            assert_eq!(answer.status, 403, "{method} {path} {header}");
            assert!(answer.body.contains("/problems/agents-not-allowed"));
        }
    }
    assert!(world.asked().is_empty(), "the desk heard nothing of it");
}

#[tokio::test]
async fn every_answer_has_its_safety_headers_and_allows_no_other_origin() {
    let world = World::new().await;
    let origin = "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n";
    for (method, path) in ROUTES.into_iter().chain(PAGES).chain([("GET", "/elsewhere"), ("OPTIONS", "/v1/freeze")]) {
        let head = world.ask(method, path, origin, "").await.head;
        let (content, referrer) = if path.starts_with("/v1/") {
            ("default-src 'none'", "no-referrer")
        } else {
            ("default-src 'self'", "referrer-policy: same-origin")
        };
        for expected in
            ["cache-control: no-store", content, "frame-ancestors 'none'", "nosniff", "x-frame-options: deny", referrer, "max-age=31536000"]
        {
            assert!(head.contains(expected), "{method} {path}: {expected}");
        }
        assert!(!head.contains("access-control-allow"), "{method} {path}");
    }
}

#[tokio::test]
async fn what_is_no_request_never_reaches_the_desk() {
    let world = World::new().await;
    let extra = command("hold").replace('}', r#","more":1}"#);
    let upper = command("hold").replace("ana", "Ana");
    let list = r#"["ana","hold","123456",1,"c2ln"]"#;
    for body in ["", "{}", "[]", list, "null", "{", "\u{0}", &extra, &upper, &"[".repeat(60_000)] {
        assert_eq!(world.post("/v1/commands", "", body).await.status, 400, "{}", body.get(..40).unwrap_or(body));
    }
    assert_eq!(world.ask("POST", "/v1/commands", "", &command("hold")).await.status, 415);
    assert_eq!(world.ask("POST", "/v1/commands", "Content-Type: text/plain\r\n", &command("hold")).await.status, 415);
    for body in [r#"{"agent":"BOT"}"#, r#"{"everything":true}"#, "[]"] {
        assert_eq!(world.post("/v1/freeze", "Reprieve-Freeze-Key: the right key\r\n", body).await.status, 400, "{body}");
    }
    assert!(world.asked().is_empty());
}

#[tokio::test]
async fn bodies_and_heads_are_bounded() {
    let world = World::new().await;
    assert_eq!(world.post("/v1/commands", "", &command(&"x".repeat(60_000))).await.status, 200);
    assert_eq!(world.post("/v1/commands", "", &command(&"x".repeat(70_000))).await.status, 413);
    let chunk = format!("{:x}\r\n{}\r\n", 70_000, "x".repeat(70_000));
    let head = "POST /v1/commands HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(world.send(&format!("{head}{chunk}0\r\n\r\n")).await.status, 413);
    let many: String = (0..100).map(|number| format!("X-{number}: 1\r\n")).collect();
    assert_eq!(world.post("/v1/commands", &many, &command("hold")).await.status, 431);
    assert_eq!(world.post("/v1/commands", &format!("X: {}\r\n", "x".repeat(20_000)), &command("hold")).await.status, 431);
}

#[tokio::test]
async fn freezing_takes_the_key_from_its_header() {
    let world = World::new().await;
    for (header, status) in [("", 401), ("Reprieve-Freeze-Key: another\r\n", 401), ("Reprieve-Freeze-Key: the right key\r\n", 200)] {
        let answer = world.post("/v1/freeze", header, r#"{"agent":"bot","reason":"odd"}"#).await;
        assert_eq!(answer.status, status, "{header}");
    }
    assert_eq!(world.post("/v1/freeze", "Reprieve-Freeze-Key: the right key\r\n", "{}").await.status, 200);
    assert_eq!(world.asked().last().map(String::as_str), Some("freeze None "));
}

#[tokio::test]
async fn one_request_a_connection() {
    let world = World::new().await;
    let one = "GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = world.send(&format!("{one}{one}")).await;
    assert_eq!(answer.body.matches("operators").count(), 1);
    assert!(answer.head.contains("connection: close"));
}

#[tokio::test]
async fn who_is_slow_or_plain_is_let_go() {
    let read = Duration::from_millis(300);
    let world = World::within(Limits { connections: 2, read, whole: Duration::from_secs(5), drain: read }).await;
    let start = Instant::now();
    // Without a handshake, without a head, without a body: each gets its time and no more.
    let mut silent = TcpStream::connect(world.address).await.expect("connected");
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap_or(0), 0);
    let mut plain = TcpStream::connect(world.address).await.expect("connected");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let mut bytes = Vec::new();
    plain.read_to_end(&mut bytes).await.ok();
    assert!(!String::from_utf8_lossy(&bytes).contains("HTTP/"), "nothing is served without TLS");
    for started in ["", "POST /v1/comm", "POST /v1/commands HTTP/1.1\r\nHost: localhost\r\n"] {
        let answer = world.send(started).await;
        assert!(matches!(answer.status, 0 | 408), "{started}: {}", answer.status);
    }
    let kind = "Content-Type: application/json\r\nContent-Length: 100\r\n";
    let answer = world.send(&format!("POST /v1/commands HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n{{")).await;
    assert_eq!(answer.status, 408);
    assert!(start.elapsed() < Duration::from_secs(4));
    assert!(world.asked().is_empty());
}

#[tokio::test]
async fn no_more_than_so_many_connections_are_served_at_once() {
    let read = Duration::from_secs(5);
    let world = World::within(Limits { connections: 2, read, whole: read, drain: read }).await;
    let (one, two) = (world.connect().await, world.connect().await);
    let third = tokio::time::timeout(Duration::from_millis(300), world.connect()).await;
    assert!(third.is_err(), "the third waits");
    drop((one, two));
    assert_eq!(world.ask("GET", "/v1/health", "", "").await.status, 200);
}

#[tokio::test]
async fn a_command_goes_on_when_its_sender_hangs_up_and_stopping_waits_for_answers() {
    let mut world = World::new().await;
    let request = |text: &str| {
        let body = command(text);
        let length = body.len();
        format!("POST /v1/commands HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let mut gone = world.connect().await;
    gone.write_all(request("slow").as_bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(gone);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(world.asked().is_empty());
    world.clerk.go.notify_one();
    tokio::time::timeout(Duration::from_secs(2), async {
        while world.asked().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("carried to its end");

    let mut waiting = world.connect().await;
    waiting.write_all(request("slow").as_bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.stop.take().expect("not stopped yet").send(()).expect("it runs");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(world.address).await.is_err(), "nobody new is let in");
    world.clerk.go.notify_one();
    let mut answer = Vec::new();
    waiting.read_to_end(&mut answer).await.ok();
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200"));
    tokio::time::timeout(Duration::from_secs(2), world.served).await.expect("stopped").expect("no panic");
}
