//! What people and tools are told of requests to services: how one is understood, what the catalog knows, what a text in SQL would do.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use reprieve_testkit::{Gateway, GatewayOptions, GuardedService, Reply, Service, free_port};
use reprieve_tests::{Curl, tools::said};
use serde_json::{Value, json};

const DELETE: &str = r#"{"query":"mutation { volumeDelete(volumeId: \"vol-prod\") }"}"#;

fn gateway(services: Vec<GuardedService>) -> Result<Gateway> {
    Gateway::start(GatewayOptions { services, ..GatewayOptions::default() })
}

fn guarded(name: &str, provider: &str, settings: &str) -> GuardedService {
    GuardedService {
        name: name.to_owned(),
        environment: "production".to_owned(),
        credential: "the-real-credential".to_owned(),
        presented: "bearer".to_owned(),
        settings: format!("provider = \"{provider}\"\n{settings}"),
    }
}

#[test]
fn a_request_is_explained_without_being_sent() -> Result<()> {
    let service = Service::start(|_| Reply::text(200, "sent"))?;
    let gateway = gateway(vec![guarded("railway", "railway", &service.settings("backboard.railway.com"))])?;
    let curl = ["curl", "https://backboard.railway.com/graphql/v2", "--json", DELETE];
    let explain = |more: &[&str]| gateway.cli(&[&["http", "explain"], more, &["--"], &curl].concat());
    let words = explain(&[])?;
    ensure!(words.status.success(), "{}", said(&words));
    for part in ["hold", "railway:volumeDelete", "destroy lasting", "volume/vol-prod", "its backups are kept on it"] {
        ensure!(said(&words).contains(part), "no {part:?}: {}", said(&words));
    }
    let told: Value = serde_json::from_slice(&explain(&["--json"])?.stdout)?;
    ensure!(told["verdict"] == "hold" && told["rule"] == "calls-that-destroy", "{told}");
    ensure!(told["calls"][0]["resources"] == json!(["volume/vol-prod"]), "{told}");
    // The incident's values are not in what would be recorded.
    ensure!(!told["recorded"].as_str().unwrap_or("vol-prod").contains("mutation {"), "{told}");
    // Another spelling, another class: what reads passes, what has no one meaning is refused.
    let lines = "{\"request\": \"GET https://api.github.com/repos/a/b\"}\n\
        {\"request\": \"DELETE https://api.github.com/repos/a/b\"}\n\
        {\"request\": {\"method\": \"POST\", \"url\": \"https://backboard.railway.com/graphql/v2\", \"body\": \"{\\\"a\\\":1,\\\"a\\\":2}\", \"headers\": {\"content-type\": \"application/json\"}}}\n\
        {\"request\": \"GET https://nowhere.example.com/a\"}\n\
        {\"request\": \"POST https://nowhere.example.com/a\"}\n\
        {\"request\": \"\"}\n";
    let mut child = Command::new(reprieve_testkit::program()?)
        .args(["explain", "http"])
        .current_dir(gateway.folder())
        .env("GUARDED_SERVICE_0", "the-real-credential")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("no input")?, lines.as_bytes())?;
    let output = child.wait_with_output()?;
    let verdicts: Vec<Value> = String::from_utf8_lossy(&output.stdout).lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let found: Vec<&str> = verdicts.iter().map(|told| told["verdict"].as_str().unwrap_or("error")).collect();
    ensure!(found == ["allow", "hold", "refuse", "allow", "hold", "error"], "{verdicts:#?}");
    ensure!(service.received().is_empty(), "it was sent: {:?}", service.received());
    Ok(())
}

#[test]
fn the_catalog_is_shown() -> Result<()> {
    let gateway = gateway(vec![guarded("railway", "railway", "hosts = [\"backboard.railway.com\"]\n")])?;
    let show = |more: &[&str]| -> Result<Output> { gateway.cli(&[&["catalog", "show"], more].concat()) };
    let all = said(&show(&[])?);
    for provider in [
        "railway",
        "aws",
        "kubernetes",
        "github",
        "cloudflare",
        "docker",
        "supabase",
        "neon",
        "fly",
        "vercel",
        "digitalocean",
        "heroku",
        "stripe",
    ] {
        ensure!(all.lines().any(|line| line.split_whitespace().next() == Some(provider)), "no {provider}: {all}");
    }
    let one = show(&["railway", "volumeDelete"])?;
    ensure!(one.status.success() && said(&one).contains("destroy lasting") && said(&one).contains("volumeDelete"), "{}", said(&one));
    let lines = show(&["docker", "Volume", "--json"])?;
    let rows: Vec<Value> = String::from_utf8_lossy(&lines.stdout).lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(rows.iter().any(|row| row["operation"] == "VolumeDelete" && row["class"] == "destroy lasting"), "{rows:?}");
    ensure!(!show(&["nobody"])?.status.success(), "a provider that there is none of");
    ensure!(!show(&["railway", "noSuchOperation"])?.status.success(), "an operation that there is none of");
    Ok(())
}

#[test]
fn sql_in_a_body_is_read_and_said() -> Result<()> {
    let service = Service::start(|_| Reply::json(&json!([])))?;
    let port = free_port()?;
    let settings = format!("listen = \"127.0.0.1:{port}\"\n{}", service.settings("api.supabase.com"));
    let gateway = gateway(vec![guarded("supabase", "supabase", &settings)])?;
    let token =
        gateway.agent("cursor", &["supabase"], "read,write,destroy,grant")?.split(['@', ':']).nth(2).context("no token")?.to_owned();
    let curl = Curl { proxy: String::new(), authority: gateway.authority_file() };
    let bearer = format!("authorization: Bearer {token}");
    for (text, expected) in [
        ("DELETE FROM orders", "\"delete\""),
        ("SELECT 1; DROP TABLE orders CASCADE", "\"drop\""),
        ("TRUNCATE orders", "\"rewrite\""),
        ("not sql at all", "\"unknown\""),
        ("SELECT 1", "\"read\""),
    ] {
        let body = json!({ "query": text }).to_string();
        let answer = curl.run(
            &format!("http://127.0.0.1:{port}/v1/projects/abc/database/query"),
            &["--data-binary", &body, "-H", "content-type: application/json", "-H", &bearer],
        )?;
        // Read or not: what a service's database does is seen by no guard of ours.
        ensure!(answer.status == 403 && answer.json()?["outcome"] == "held", "{text}: {answer:?}");
        let hold = gateway.hold(answer.header("reprieve-hold").context("no hold")?)?;
        let effects = hold["effects"].to_string().to_lowercase();
        ensure!(expected == "\"read\"" || effects.contains(expected.trim_matches('"')), "{text}: {effects}");
    }
    ensure!(service.received().iter().all(|received| received.method == "GET"), "{:?}", service.received());
    Ok(())
}

#[test]
fn nodes_fetch_reaches_a_service_at_its_listener() -> Result<()> {
    let service = Service::start(|received| Reply::json(&json!({ "method": received.method })))?;
    let port = free_port()?;
    let settings = format!("listen = \"127.0.0.1:{port}\"\n{}", service.settings("api.github.com"));
    let gateway = gateway(vec![guarded("github", "github", &settings)])?;
    let token = gateway.agent("cursor", &["github"], "read,write,destroy")?.split(['@', ':']).nth(2).context("no token")?.to_owned();
    let script = format!(
        "const ask = (path, method) => fetch('https://127.0.0.1:{port}' + path, {{ method, headers: {{ authorization: 'Bearer {token}' }} }}); \
         (async () => {{ const read = await ask('/repos/a/b', 'GET'); const gone = await ask('/repos/a/b', 'DELETE'); \
         console.log(read.status, gone.status, (await gone.json()).outcome); }})();"
    );
    let output = Command::new("node")
        .args(["-e", &script])
        .env("NODE_EXTRA_CA_CERTS", gateway.authority_file())
        .output()
        .context("cannot run Node")?;
    ensure!(said(&output).trim() == "200 403 held", "{}", said(&output));
    ensure!(service.received().iter().all(|received| received.method == "GET"), "{:?}", service.received());
    Ok(())
}
