//! A hostile agent at the proxy: whatever it tries, no destructive request gets through, and no credential comes out.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use reprieve_testkit::{Gateway, GatewayOptions, GuardedService, Railway, Received, Reply, Service};
use reprieve_tests::Curl;

const GRAPHQL: &str = "https://backboard.railway.com/graphql/v2";
const DELETE: &str = r#"{"query":"mutation { volumeDelete(volumeId: \"vol-prod\") }"}"#;
const ECHO_KEY: &str = "echo-key-6d1f0c2b/+==";

/// Railway's stand-in and a service that repeats what it hears, behind one gateway.
struct Stage {
    gateway: Gateway,
    railway: Railway,
    echo: Service,
    curl: Curl,
}

impl Stage {
    fn open() -> Result<Stage> {
        let railway = Railway::start()?;
        let echo = Service::start(repeat)?;
        let guarded = |name: &str, credential: &str, presented: &str, settings: String| GuardedService {
            name: name.to_owned(),
            environment: "production".to_owned(),
            credential: credential.to_owned(),
            presented: presented.to_owned(),
            settings,
        };
        let services = vec![
            guarded("railway", Railway::TOKEN, "bearer", format!("provider = \"railway\"\n{}", railway.service().settings(Railway::HOST))),
            guarded("echo", ECHO_KEY, "header:x-echo-key", echo.settings("echo.example.com")),
        ];
        let gateway = Gateway::start(GatewayOptions { services, ..GatewayOptions::default() })?;
        let proxy = gateway.agent("mallory", &["railway", "echo"], "read,write,destroy,grant")?;
        let curl = Curl { proxy, authority: gateway.authority_file() };
        Ok(Stage { gateway, railway, echo, curl })
    }

    /// `Proxy-Authorization` of the agent.
    fn login(&self) -> String {
        let credentials = self.curl.proxy.trim_start_matches("http://").split('@').next().unwrap_or_default();
        format!("Proxy-Authorization: Basic {}\r\n", BASE64.encode(credentials))
    }

    /// Sends bytes to the proxy and reads what comes until it closes, or falls silent.
    fn raw(&self, bytes: &[u8]) -> Result<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.gateway.proxy_port()))?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        // The gateway may close before it has read all.
        let _ = socket.write_all(bytes);
        let mut answer = Vec::new();
        let mut piece = [0u8; 4096];
        while let Ok(count @ 1..) = socket.read(&mut piece) {
            answer.extend_from_slice(&piece[..count]);
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn nothing_was_deleted(&self, what: &str) -> Result<()> {
        ensure!(self.railway.volumes().len() == 2, "{what}: a volume is gone");
        let deletes: Vec<Received> =
            self.railway.service().received().into_iter().filter(|received| received.text().contains("volumeDelete")).collect();
        ensure!(deletes.is_empty(), "{what}: it was sent: {deletes:?}");
        Ok(())
    }
}

/// Repeats what it hears; some paths do more.
fn repeat(received: &Received) -> Reply {
    let heard = format!("{} {}\n{:?}\n{}", received.method, received.target, received.headers, received.text());
    let key = received.header("x-echo-key").unwrap_or_default().to_owned();
    let mut reply = Reply::text(200, &heard);
    match received.target.as_str() {
        "/header" => reply.headers.push(("x-heard".to_owned(), format!("key={key}"))),
        "/base64" => reply.body = BASE64.encode(&key).into_bytes(),
        "/json" => reply.body = serde_json::json!({ "key": key }).to_string().into_bytes(),
        "/packed" => reply.headers.push(("content-encoding".to_owned(), "gzip".to_owned())),
        "/away" => {
            reply =
                Reply { status: 302, headers: vec![("location".to_owned(), "http://169.254.169.254/latest".to_owned())], body: Vec::new() }
        }
        "/cookie" => reply.headers.push(("set-cookie".to_owned(), "session=abc".to_owned())),
        _ => {}
    }
    reply
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[test]
fn other_places_are_refused_however_they_are_spelled() -> Result<()> {
    let stage = Stage::open()?;
    let login = stage.login();
    let port = stage.railway.service().port();
    for target in [
        "127.0.0.1:443".to_owned(),
        format!("localhost:{port}"),
        "[::1]:443".to_owned(),
        "169.254.169.254:80".to_owned(),
        "2130706433:443".to_owned(),
        "0x7f000001:443".to_owned(),
        "127.1:443".to_owned(),
        "backboard.railway.com:8443".to_owned(),
        "backboard.railway.com:22".to_owned(),
        "backboard.railway.com.:443".to_owned(),
        "user@backboard.railway.com:443".to_owned(),
        "evil.example.com:443".to_owned(),
        "xbackboard.railway.com:443".to_owned(),
        "backboard.railway.com".to_owned(),
        "backboard.railway.com:443:443".to_owned(),
        "/".to_owned(),
    ] {
        let answer = stage.raw(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n").as_bytes())?;
        ensure!(matches!(status(&answer), 400 | 403), "CONNECT {target}: {answer}");
    }
    for (target, host) in [
        ("http://169.254.169.254/latest", "169.254.169.254"),
        ("http://localhost/", "localhost"),
        ("http://evil.example.com/", "evil.example.com"),
        ("http://backboard.railway.com/graphql/v2", "evil.example.com"),
        ("http://evil.example.com/", "backboard.railway.com"),
        ("http://user:pass@backboard.railway.com/", "backboard.railway.com"),
        ("https://backboard.railway.com/graphql/v2", "backboard.railway.com"),
        ("ftp://backboard.railway.com/", "backboard.railway.com"),
        ("http://backboard.railway.com:443/graphql/v2", "backboard.railway.com:443"),
    ] {
        let answer = stage.raw(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{login}\r\n").as_bytes())?;
        ensure!(matches!(status(&answer), 400 | 403), "{target} as {host}: {answer}");
    }
    // The tunnel's host, the name in TLS and the request's host are one.
    let other_name = ["--connect-to", "evil.example.com:443:backboard.railway.com:443"];
    let answer = stage.curl.run("https://evil.example.com/graphql/v2", &other_name)?;
    ensure!(answer.status == 0, "another name in TLS: {answer:?}");
    for version in ["--http1.1", "--http2"] {
        let answer = stage.curl.run(GRAPHQL, &[version, "-H", "Host: echo.example.com", "--data", DELETE])?;
        ensure!(answer.status == 403 && answer.json()?["rule"] == "host", "{version}: another host: {answer:?}");
        let answer = stage.curl.run(GRAPHQL, &[version, "-X", "CONNECT"])?;
        ensure!(answer.status != 200, "{version}: a tunnel in a tunnel: {answer:?}");
    }
    ensure!(stage.railway.service().received().is_empty(), "something arrived: {:?}", stage.railway.service().received());
    Ok(())
}

#[test]
fn requests_that_two_programs_read_differently_are_refused_or_made_plain() -> Result<()> {
    let stage = Stage::open()?;
    let head = format!("POST http://backboard.railway.com/graphql/v2 HTTP/1.1\r\nHost: backboard.railway.com\r\n{}", stage.login());
    let json = "Content-Type: application/json\r\n";
    let hidden = format!("{head}{json}Content-Length: {}\r\n\r\n{DELETE}", DELETE.len());
    let harmless = r#"{"query":"{ me { name } }"}"#;
    let length = harmless.len();
    let chunked = format!("{length:x}\r\n{harmless}\r\n0\r\n\r\n");
    for (what, rest) in [
        ("length and chunked", format!("{json}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}")),
        ("chunked and length", format!("{json}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{chunked}")),
        ("two lengths", format!("{json}Content-Length: {length}\r\nContent-Length: 0\r\n\r\n{harmless}")),
        ("a list of lengths", format!("{json}Content-Length: {length}, 0\r\n\r\n{harmless}")),
        ("a signed length", format!("{json}Content-Length: +{length}\r\n\r\n{harmless}")),
        ("another encoding", format!("{json}Transfer-Encoding: xchunked\r\n\r\n{chunked}")),
        ("chunked not last", format!("{json}Transfer-Encoding: chunked, identity\r\n\r\n{chunked}")),
        ("a space before the colon", format!("{json}Transfer-Encoding : chunked\r\n\r\n{chunked}")),
        ("a folded header", format!("{json}X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n{chunked}")),
        ("a bad chunk", format!("{json}Transfer-Encoding: chunked\r\n\r\n-1\r\n{harmless}\r\n0\r\n\r\n")),
        ("a huge chunk", format!("{json}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{harmless}\r\n0\r\n\r\n")),
        ("a zero in a header", format!("{json}X-A: a\0b\r\nContent-Length: {length}\r\n\r\n{harmless}")),
        ("two hosts", format!("{json}Host: echo.example.com\r\nContent-Length: {length}\r\n\r\n{harmless}")),
        ("a header that is lost", format!("{json}Connection: close, Content-Type\r\nContent-Length: {length}\r\n\r\n{harmless}")),
        ("another host by a proxy", format!("{json}X-Forwarded-Host: evil\r\nContent-Length: {length}\r\n\r\n{harmless}")),
        ("another path by a proxy", format!("{json}X-Original-URL: /other\r\nContent-Length: {length}\r\n\r\n{harmless}")),
        ("an upgrade", format!("{json}Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: {length}\r\n\r\n{harmless}")),
    ] {
        let answer = stage.raw(format!("{head}{rest}{hidden}").as_bytes())?;
        // Where both are there, only the chunks count (RFC 9112 section 6.3), and the length is not passed on.
        let made_plain = matches!(what, "length and chunked" | "chunked and length") && status(&answer) == 200;
        ensure!(made_plain || matches!(status(&answer), 400 | 403), "{what}: {answer}");
        stage.nothing_was_deleted(what)?;
    }
    // Ends of lines without their first half are read as ends of lines, and written whole.
    let bare = format!("{head}{json}Content-Length: {length}\r\n\r\n{harmless}").replace("\r\n", "\n");
    let answer = stage.raw(bare.as_bytes())?;
    ensure!(matches!(status(&answer), 200 | 400), "bare ends of lines: {answer}");
    // What follows a request is another one, and is looked at like any.
    let answer = stage.raw(format!("{head}{json}Content-Length: {length}\r\n\r\n{harmless}{hidden}").as_bytes())?;
    ensure!(answer.contains("\"pocket\"") && answer.contains("/problems/held"), "one after the other: {answer}");
    stage.nothing_was_deleted("one after the other")
}

#[test]
fn a_destructive_call_in_any_dress_is_held() -> Result<()> {
    let stage = Stage::open()?;
    let curl = &stage.curl;
    let json = ["-H", "content-type: application/json"];
    let post = |body: &str, more: &[&str]| {
        let mut arguments = vec!["--data-binary", body];
        arguments.extend(json);
        arguments.extend(more);
        curl.run(GRAPHQL, &arguments)
    };
    let batch = format!("[{{\"query\":\"{{ me {{ name }} }}\"}},{DELETE}]");
    let fragment = r#"{"query":"mutation A { ...F } fragment F on Mutation { x: volumeDelete(volumeId: \"vol-prod\") }"}"#;
    let two = r#"{"query":"query Q { me { name } } mutation M { volumeDelete(volumeId: \"vol-prod\") }","operationName":"M"}"#;
    let twice = r#"{"query":"{ me { name } }","query":"mutation { volumeDelete(volumeId: \"vol-prod\") }"}"#;
    for (what, answer) in [
        ("plain", post(DELETE, &[])?),
        ("HTTP/1.1", post(DELETE, &["--http1.1"])?),
        ("chunked", post(DELETE, &["--http1.1", "-H", "transfer-encoding: chunked"])?),
        ("after a while", post(DELETE, &["--http1.1", "-H", "expect: 100-continue"])?),
        ("in a batch", post(&batch, &[])?),
        ("in a fragment", post(fragment, &[])?),
        ("as the second operation", post(two, &[])?),
        ("under a key that is there twice", post(twice, &[])?),
        ("as another method", post(DELETE, &["-H", "x-http-method-override: GET"])?),
        ("with another type", post(DELETE, &["-H", "content-type: text/plain"])?),
        ("without encryption", curl.run("http://backboard.railway.com/graphql/v2", &["--data-binary", DELETE, json[0], json[1]])?),
        ("as an address", curl.run(&format!("{GRAPHQL}?query=mutation%20%7BvolumeDelete(volumeId:%22vol-prod%22)%7D"), &[])?),
        (
            "under another spelling of the path",
            curl.run(&GRAPHQL.replace("graphql", "%67raphql"), &["--data-binary", DELETE, json[0], json[1]])?,
        ),
        (
            "under dots",
            curl.run(&GRAPHQL.replace("graphql", "x/../graphql"), &["--path-as-is", "--data-binary", DELETE, json[0], json[1]])?,
        ),
    ] {
        ensure!(answer.status == 403, "{what}: {answer:?}");
        stage.nothing_was_deleted(what)?;
    }
    // Packed bodies are unpacked and looked at, or refused.
    let packed = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1, DELETE.len() as u8, 0, !(DELETE.len() as u8), 255];
    let folder = stage.gateway.folder().join("packed");
    let mut bytes = packed.to_vec();
    bytes.extend_from_slice(DELETE.as_bytes());
    bytes.extend_from_slice(&[0; 8]);
    std::fs::write(&folder, bytes)?;
    let file = format!("@{}", folder.display());
    let answer = post(&file, &["-H", "content-encoding: gzip"])?;
    ensure!(answer.status == 403, "packed: {answer:?}");
    stage.nothing_was_deleted("packed")?;
    // Nothing is sent that is too large to be looked at.
    std::fs::write(&folder, vec![b' '; 9 << 20])?;
    let answer = post(&file, &[])?;
    ensure!(answer.status == 403 && answer.json()?["rule"] == "body-limit", "too large: {answer:?}");
    let answer = post(DELETE, &["--http1.1", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket"])?;
    ensure!(answer.status == 403 && answer.json()?["rule"] == "upgrade", "websocket: {answer:?}");
    stage.nothing_was_deleted("an upgrade")?;
    ensure!(stage.gateway.verify()?["verified"] == true, "the ledger does not verify");
    Ok(())
}

#[test]
fn no_credential_comes_out() -> Result<()> {
    let stage = Stage::open()?;
    let json_key = serde_json::Value::from(ECHO_KEY).to_string();
    for path in ["/", "/header", "/base64", "/json", "/packed", "/cookie", "/x?key=1"] {
        for version in ["--http1.1", "--http2"] {
            let answer = stage.curl.run(&format!("https://echo.example.com{path}"), &[version, "-H", "accept-encoding: gzip"])?;
            let all = format!("{answer:?}");
            ensure!(matches!(answer.status, 200 | 502), "{path}: {all}");
            for mark in [ECHO_KEY, json_key.trim_matches('"'), BASE64.encode(ECHO_KEY).trim_end_matches('=')] {
                ensure!(!all.contains(mark), "{path} told {mark}: {all}");
            }
            ensure!(answer.header("set-cookie").is_none(), "{all}");
        }
    }
    let packed = stage.curl.run("https://echo.example.com/packed", &[])?;
    ensure!(packed.status == 502, "{packed:?}");
    // Redirects are the agent's to follow, through the proxy again.
    let away = stage.curl.run("https://echo.example.com/away", &[])?;
    ensure!(away.status == 302, "{away:?}");
    let followed = stage.curl.run("https://echo.example.com/away", &["-L"])?;
    ensure!(followed.body.contains("unclaimed-host"), "{followed:?}");
    // What the agent calls a credential does not arrive, nor do its way here and its trailers.
    let own = ["-H", "X-Echo-Key: mine", "-H", "Authorization: Bearer mine", "-H", "Expect: 100-continue", "-H", "TE: trailers"];
    stage.curl.run("https://echo.example.com/own", &own)?;
    let heard = stage.echo.received().into_iter().rfind(|received| received.target == "/own").context("nothing arrived")?;
    ensure!(heard.header("x-echo-key") == Some(ECHO_KEY), "{heard:?}");
    for name in ["authorization", "proxy-authorization", "expect", "te", "proxy-connection", "connection"] {
        ensure!(heard.header(name).is_none(), "{name}: {heard:?}");
    }
    // What is in no catalog and is no read, a person has to look at.
    let unknown = stage.curl.run("https://echo.example.com/anything", &["-X", "POST", "-d", "a=b"])?;
    ensure!(unknown.status == 403 && unknown.json()?["outcome"] == "held", "{unknown:?}");
    ensure!(!stage.echo.received().iter().any(|received| received.method == "POST"), "it was sent");
    let exported = stage.gateway.cli(&["ledger", "export"])?;
    let exported = String::from_utf8_lossy(&exported.stdout).into_owned();
    ensure!(!exported.contains(ECHO_KEY) && !exported.contains(Railway::TOKEN), "the ledger has a credential");
    ensure!(!stage.gateway.log().contains(ECHO_KEY), "the log has a credential");
    Ok(())
}

#[test]
fn nobody_comes_in_without_a_token() -> Result<()> {
    let stage = Stage::open()?;
    let (_, address) = stage.curl.proxy.rsplit_once('@').context("no address")?;
    let ask = |credentials: &str| {
        let proxy = if credentials.is_empty() { format!("http://{address}") } else { format!("http://{credentials}@{address}") };
        Curl { proxy, ..stage.curl.clone() }.run("http://echo.example.com/", &[])
    };
    let token = stage.curl.proxy.trim_start_matches("http://mallory:").split('@').next().unwrap_or_default().to_owned();
    for credentials in ["", "mallory:wrong", "mallory:rpv_wrong", &format!("eve:{token}"), &format!("ana:{token}")] {
        let answer = ask(credentials)?;
        ensure!(answer.status == 407, "{credentials}: {answer:?}");
    }
    // A token of a narrower scope reaches its own systems only.
    let narrow = stage.gateway.agent("narrow", &["echo"], "read")?;
    let narrow = Curl { proxy: narrow, ..stage.curl.clone() };
    ensure!(narrow.run("https://echo.example.com/", &[])?.status == 200, "its own");
    ensure!(narrow.run(GRAPHQL, &["--data", DELETE])?.status == 0, "another's tunnel was opened");
    let refused = narrow.run("https://echo.example.com/x", &["-X", "DELETE"])?;
    ensure!(refused.status == 403 && refused.json()?["outcome"] != "failed", "{refused:?}");
    // Holds are the own ones only.
    let held = stage.curl.run(GRAPHQL, &["--data", DELETE, "-H", "content-type: application/json"])?;
    let hold = held.header("reprieve-hold").context("no hold")?.to_owned();
    let port = stage.gateway.proxy_port();
    let state = |proxy: &str| {
        let login = proxy.trim_start_matches("http://").split('@').next().unwrap_or_default().to_owned();
        let direct = Curl { proxy: String::new(), ..stage.curl.clone() };
        direct.run(&format!("http://127.0.0.1:{port}/holds/{hold}"), &["-u", &login])
    };
    ensure!(state(&stage.curl.proxy)?.json()?["state"] == "waiting", "its own hold");
    ensure!(state(&narrow.proxy)?.status == 404, "another's hold");
    // Freezing holds inside tunnels that are open, and for what was approved.
    stage.gateway.freeze(Some("mallory"))?;
    let frozen = stage.curl.run("https://echo.example.com/", &[])?;
    ensure!(frozen.status == 403 && frozen.json()?["outcome"] == "frozen", "{frozen:?}");
    // Bait freezes whoever takes it, under whatever name.
    let decoy = stage.gateway.operate(&["agent", "decoy", "old-deploy-token"])?;
    let bait = decoy["token"].as_str().context("no token")?.to_owned();
    ensure!(ask(&format!("narrow:{bait}"))?.status == 407, "bait was taken for a token");
    let frozen = narrow.run("https://echo.example.com/", &[])?;
    ensure!(frozen.status == 403 && frozen.json()?["outcome"] == "frozen", "{frozen:?}");
    Ok(())
}

#[test]
fn who_sends_too_slowly_is_cut_off() -> Result<()> {
    let stage = Stage::open()?;
    let mut socket = TcpStream::connect(("127.0.0.1", stage.gateway.proxy_port()))?;
    socket.set_read_timeout(Some(Duration::from_secs(120)))?;
    socket.write_all(b"GET http://echo.example.com/ HTTP/1.1\r\nHost: echo")?;
    let mut rest = Vec::new();
    // An answer or none: the connection ends.
    let _ = socket.read_to_end(&mut rest).context("it was left open")?;
    let mut silent = TcpStream::connect(("127.0.0.1", stage.gateway.proxy_port()))?;
    silent.set_read_timeout(Some(Duration::from_secs(120)))?;
    let _ = silent.read_to_end(&mut rest).context("a silent one was left open")?;
    ensure!(stage.echo.received().is_empty(), "something arrived");
    Ok(())
}
