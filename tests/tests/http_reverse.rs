//! Services with listeners of their own: agents call the gateway as if it were the service, at an address or at a socket of theirs.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use reprieve_testkit::{Gateway, GatewayOptions, GuardedService, Railway, Reply, Service, free_port};
use reprieve_tests::{Answer, Curl, Local};

const DELETE: &str = r#"{"query":"mutation { volumeDelete(volumeId: \"vol-prod\") }"}"#;
const KEY: &str = "echo-key-6d1f0c2b";

/// The token of an agent's URL.
fn token_of(url: &str) -> Result<String> {
    Ok(url.split(['@', ':']).nth(2).context("no token")?.to_owned())
}

fn guarded(name: &str, credential: &str, presented: &str, settings: String) -> GuardedService {
    GuardedService {
        name: name.to_owned(),
        environment: "production".to_owned(),
        credential: credential.to_owned(),
        presented: presented.to_owned(),
        settings,
    }
}

#[test]
fn a_service_at_an_address_of_its_own() -> Result<()> {
    let railway = Railway::start()?;
    let echo = Service::start(|received| Reply::text(200, &format!("{:?}", received.headers)))?;
    let (port, echo_port) = (free_port()?, free_port()?);
    let of = |service: &Service, host: &str, port: u16| format!("{}listen = \"127.0.0.1:{port}\"\n", service.settings(host));
    let services = vec![
        guarded("railway", Railway::TOKEN, "bearer", format!("provider = \"railway\"\n{}", of(railway.service(), Railway::HOST, port))),
        guarded("echo", KEY, "header:x-echo-key", of(&echo, "echo.example.com", echo_port)),
    ];
    let gateway = Gateway::start(GatewayOptions { services, ..GatewayOptions::default() })?;
    let token = token_of(&gateway.agent("cursor", &["railway", "echo"], "read,write,destroy")?)?;
    let narrow = token_of(&gateway.agent("narrow", &["echo"], "read")?)?;
    let curl = Curl { proxy: String::new(), authority: gateway.authority_file() };
    let bearer = format!("authorization: Bearer {token}");
    let api = format!("http://127.0.0.1:{port}/graphql/v2");
    let json = "content-type: application/json";
    let ask = |url: &str, more: &[&str]| -> Result<Answer> {
        let mut arguments = vec!["--data-binary", r#"{"query":"{ me { name } }"}"#, "-H", json];
        arguments.extend(more);
        curl.run(url, &arguments)
    };

    // The agent's token stands where the service's credential would, or in a header of its own; the service gets its own.
    let basic = format!("cursor:{token}");
    for more in [
        vec!["-H", bearer.as_str()],
        vec!["-u", basic.as_str()],
        vec!["-H", &format!("reprieve-authorization: Bearer {token}"), "-H", "authorization: Bearer something-else"],
        vec!["-H", &format!("reprieve-token: {token}")],
        vec!["-H", bearer.as_str(), "-H", "host: anything.example.org"],
        vec!["-H", bearer.as_str(), "--http2-prior-knowledge"],
    ] {
        let answer = ask(&api, &more)?;
        ensure!(answer.status == 200 && answer.body.contains("pocket"), "{more:?}: {answer:?}");
    }
    ensure!(railway.service().received().iter().all(|received| {
        let said = received
            .headers
            .iter()
            .any(|(name, value)| name.starts_with("reprieve") || value.contains("rpv_") || value.contains("anything"));
        received.header("authorization") == Some(&format!("Bearer {}", Railway::TOKEN)) && !said
    }));
    let echoed = curl.run(&format!("http://127.0.0.1:{echo_port}/"), &["-H", &format!("x-echo-key: {token}")])?;
    ensure!(echoed.status == 200 && !echoed.body.contains("rpv_") && !echoed.body.contains(KEY), "{echoed:?}");
    // With TLS, under the names that the gateway has and no other.
    for host in ["127.0.0.1", "localhost"] {
        for version in ["--http1.1", "--http2"] {
            let answer = ask(&format!("https://{host}:{port}/graphql/v2"), &["-H", &bearer, version])?;
            ensure!(answer.status == 200, "{host} {version}: {answer:?}");
        }
    }
    let elsewhere = ["-H", &bearer, "--connect-to", &format!("backboard.railway.com:443:127.0.0.1:{port}")];
    ensure!(ask("https://backboard.railway.com/graphql/v2", &elsewhere)?.status == 0, "it signed for the service's name");

    // What destroys is held; how it stands is told here too.
    let held = curl.run(&api, &["--data-binary", DELETE, "-H", json, "-H", &bearer])?;
    ensure!(held.status == 403 && held.json()?["outcome"] == "held", "{held:?}");
    let state = held.json()?["state"].as_str().context("no state")?.to_owned();
    let told = curl.run(&format!("http://127.0.0.1:{port}{state}"), &["-H", &bearer])?;
    ensure!(told.status == 200 && told.json()?["state"] == "waiting", "{told:?}");
    ensure!(railway.volumes().len() == 2, "a volume is gone");

    // Nobody comes in without a token of this service, and nobody gets further than to it.
    for more in [vec![], vec!["-H", "authorization: Bearer rpv_wrong"], vec!["-u", "cursor:wrong"]] {
        ensure!(ask(&api, &more)?.status == 401, "{more:?}");
    }
    let other = ask(&api, &["-H", &format!("authorization: Bearer {narrow}")])?;
    ensure!(other.status == 403 && other.json()?["rule"] == "unclaimed-host", "{other:?}");
    let before = railway.service().received().len();
    for (what, first) in [
        ("absolute", format!("GET http://{}/graphql/v2 HTTP/1.1\r\nHost: x\r\n", Railway::HOST)),
        ("another's", "GET http://169.254.169.254/latest HTTP/1.1\r\nHost: x\r\n".to_owned()),
        ("tunnel", "CONNECT backboard.railway.com:443 HTTP/1.1\r\nHost: backboard.railway.com:443\r\n".to_owned()),
        ("two hosts", "GET /graphql/v2 HTTP/1.1\r\nHost: a\r\nHost: b\r\n".to_owned()),
        ("an upgrade", "GET /graphql/v2 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n".to_owned()),
    ] {
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", port))?;
        write!(socket, "{first}{bearer}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 403"), "{what}: {answer}");
    }
    ensure!(railway.service().received().len() == before, "something arrived");
    ensure!(gateway.verify()?["verified"] == true, "the ledger does not verify");
    Ok(())
}

/// An engine at a socket, with a socket for each agent in front of it.
struct Engine {
    gateway: Gateway,
    engine: Local,
}

impl Engine {
    fn open(more: &str) -> Result<Engine> {
        let engine = Local::start()?;
        let settings = format!("provider = \"docker\"\nurl = \"unix:{}\"\nlisten = \"unix:docker\"\n{more}", engine.path().display());
        let service = guarded("engine", "", "", settings);
        let gateway = Gateway::start(GatewayOptions { services: vec![service], ..GatewayOptions::default() })?;
        Ok(Engine { gateway, engine })
    }

    fn agent(&self, name: &str) -> Result<PathBuf> {
        self.gateway.agent(name, &["engine"], "read,write,destroy,grant")?;
        let path = self.gateway.folder().join("docker").join(format!("{name}.sock"));
        wait("its socket", || path.exists())?;
        Ok(path)
    }
}

fn wait(what: &str, done: impl Fn() -> bool) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(30);
    while !done() {
        ensure!(Instant::now() < until, "{what}: not within 30 s");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn at(socket: &std::path::Path, url: &str, more: &[&str]) -> Result<Answer> {
    let curl = Curl { proxy: String::new(), authority: PathBuf::from("/dev/null") };
    let socket = socket.display().to_string();
    let mut arguments = vec!["--unix-socket", socket.as_str()];
    arguments.extend(more);
    curl.run(url, &arguments)
}

#[test]
fn each_agent_has_a_socket_of_its_own() -> Result<()> {
    let stage = Engine::open("")?;
    let (cursor, other) = (stage.agent("cursor")?, stage.agent("other")?);
    let mode = |path: &std::path::Path| -> Result<u32> { Ok(std::fs::metadata(path)?.permissions().mode() & 0o777) };
    ensure!(mode(&cursor)? == 0o600 && mode(cursor.parent().context("no folder")?)? == 0o700, "{:o}", mode(&cursor)?);
    // Who asks is who has the socket, whatever token is shown besides.
    let listed = at(&cursor, "http://docker/v1.41/containers/json", &["-H", "authorization: Bearer rpv_whatever"])?;
    ensure!(listed.status == 200, "{listed:?}");
    let held = at(&cursor, "http://docker/v1.41/volumes/data", &["-X", "DELETE"])?;
    ensure!(held.status == 403 && held.json()?["outcome"] == "held", "{held:?}");
    let state = held.json()?["state"].as_str().context("no state")?.to_owned();
    ensure!(at(&cursor, &format!("http://docker{state}"), &[])?.json()?["state"] == "waiting", "its own hold");
    ensure!(at(&other, &format!("http://docker{state}"), &[])?.status == 404, "another's hold");
    let hold = stage.gateway.wait_for_hold("cursor", "/v1.41/volumes/data")?;
    ensure!(hold["text"].as_str().is_some_and(|text| text.starts_with("DELETE http://engine/v1.41/volumes/data")), "{hold}");
    // Whatever its spelling, and by whichever of the engine's interfaces.
    for (path, method) in [
        ("/volumes/data", "DELETE"),
        ("/v1.41/Volumes/data", "DELETE"),
        ("/v4.3.1/libpod/volumes/data", "DELETE"),
        ("/v4.3.1/libpod/system/reset", "POST"),
        ("/v1.41/volumes/prune", "POST"),
        ("/v1.41/system/prune", "POST"),
        ("/v1.41//volumes/data", "DELETE"),
        ("/v1.41/containers/../volumes/data", "DELETE"),
        ("/v1.41/containers/create", "POST"),
    ] {
        let mut more = vec!["-X", method, "--path-as-is"];
        if path.ends_with("create") {
            more.extend(["-H", "content-type: application/json", "--data", r#"{"Image":"a","HostConfig":{"Binds":["/:/host"]}}"#]);
        }
        let answer = at(&cursor, &format!("http://docker{path}"), &more)?;
        ensure!(answer.status == 403, "{method} {path}: {answer:?}");
    }
    ensure!(stage.engine.lines().iter().all(|line| line.starts_with("GET ")), "{:?}", stage.engine.lines());
    // A frozen agent's socket is there and tells so; a revoked one's is gone.
    stage.gateway.freeze(Some("other"))?;
    let frozen = at(&other, "http://docker/v1.41/containers/json", &[])?;
    ensure!(frozen.status == 403 && frozen.json()?["outcome"] == "frozen", "{frozen:?}");
    let mut open = UnixStream::connect(&cursor)?;
    stage.gateway.operate(&["agent", "revoke", "cursor"])?;
    write!(open, "GET /v1.41/containers/json HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    open.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 401"), "a connection outlived its token: {answer}");
    wait("the revoked socket's end", || !cursor.exists())?;
    Ok(())
}

/// Asks for a channel at a socket; the answer's head, and the connection.
fn channel(socket: &std::path::Path, protocol: &str) -> Result<(String, BufReader<UnixStream>)> {
    let mut connection = UnixStream::connect(socket)?;
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    let body = r#"{"Detach":false,"Tty":false}"#;
    write!(
        connection,
        "POST /v1.41/exec/e1/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut reader = BufReader::new(connection);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    Ok((head, reader))
}

#[test]
fn a_connection_becomes_something_else_only_where_that_is_permitted() -> Result<()> {
    let closed = Engine::open("")?;
    let socket = closed.agent("cursor")?;
    let (head, _) = channel(&socket, "tcp")?;
    ensure!(head.starts_with("HTTP/1.1 403"), "without `upgrades`: {head}");
    ensure!(closed.engine.received().is_empty(), "it was sent");

    let stage = Engine::open("upgrades = [\"tcp\"]\n")?;
    let socket = stage.agent("cursor")?;
    let (head, _) = channel(&socket, "h2c")?;
    ensure!(head.starts_with("HTTP/1.1 403") && !head.contains("reprieve-hold"), "another protocol: {head}");
    let (head, _) = channel(&socket, "tcp")?;
    ensure!(head.starts_with("HTTP/1.1 403") && head.to_lowercase().contains("reprieve-hold"), "it was not held: {head}");
    ensure!(stage.engine.received().is_empty(), "it was sent");
    let hold = stage.gateway.wait_for_hold("cursor", "upgrade: tcp")?;
    ensure!(hold["reach"]["lasting"].to_string().contains("seen by nobody"), "{hold}");
    let id = hold["id"].as_str().context("no hold")?;
    stage.gateway.approve_as_asked(id)?;
    thread::sleep(Duration::from_secs(2));
    ensure!(stage.engine.received().is_empty(), "it was run for nobody");
    let (head, mut conversation) = channel(&socket, "tcp")?;
    ensure!(head.starts_with("HTTP/1.1 101"), "{head}\n{}", stage.gateway.log());
    let mut said = String::new();
    conversation.read_line(&mut said)?;
    conversation.get_mut().write_all(b"echo hello\n")?;
    conversation.read_line(&mut said)?;
    ensure!(said == "ready\nECHO HELLO\n", "{said}");
    // Once: another one is asked for anew.
    let (head, _) = channel(&socket, "tcp")?;
    ensure!(head.starts_with("HTTP/1.1 403"), "a second time: {head}");
    // Freezing cuts it.
    stage.gateway.freeze(Some("cursor"))?;
    let mut rest = Vec::new();
    conversation.get_mut().set_read_timeout(Some(Duration::from_secs(10)))?;
    conversation.read_to_end(&mut rest).context("it was not cut")?;
    ensure!(stage.gateway.verify()?["verified"] == true, "the ledger does not verify");
    Ok(())
}

#[test]
fn a_token_that_was_revoked_ends_inside_of_open_tunnels_too() -> Result<()> {
    let echo = Service::start(|received| Reply::text(200, &received.target))?;
    let services = vec![guarded("echo", KEY, "header:x-echo-key", echo.settings("echo.example.com"))];
    let gateway = Gateway::start(GatewayOptions { services, ..GatewayOptions::default() })?;
    let proxy = gateway.agent("cursor", &["echo"], "read")?;
    let login = BASE64.encode(proxy.trim_start_matches("http://").split('@').next().unwrap_or_default());
    let authority = gateway.authority_file();
    // One tunnel, two requests, the token revoked between them.
    let script = "import ssl,socket,sys\n\
        port,login,ca=sys.argv[1:]\n\
        s=socket.create_connection(('127.0.0.1',int(port)))\n\
        s.sendall(f'CONNECT echo.example.com:443 HTTP/1.1\\r\\nHost: echo.example.com:443\\r\\nProxy-Authorization: Basic {login}\\r\\n\\r\\n'.encode())\n\
        assert b' 200 ' in s.recv(4096)\n\
        t=ssl.create_default_context(cafile=ca).wrap_socket(s,server_hostname='echo.example.com')\n\
        def ask(): t.sendall(b'GET /a HTTP/1.1\\r\\nHost: echo.example.com\\r\\n\\r\\n'); print(t.recv(65536).split(b' ')[1].decode(),flush=True)\n\
        ask(); input(); ask()\n";
    let mut child = std::process::Command::new("python3")
        .args(["-c", script, &gateway.proxy_port().to_string(), &login])
        .arg(&authority)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut out = BufReader::new(child.stdout.take().context("no output")?);
    let mut line = String::new();
    out.read_line(&mut line)?;
    ensure!(line.trim() == "200", "the first: {line}");
    gateway.operate(&["agent", "revoke", "cursor"])?;
    child.stdin.take().context("no input")?.write_all(b"\n")?;
    line.clear();
    out.read_line(&mut line)?;
    child.wait()?;
    ensure!(line.trim() == "403", "after it was revoked: {line}");
    ensure!(echo.received().len() == 1, "{:?}", echo.received());
    Ok(())
}
