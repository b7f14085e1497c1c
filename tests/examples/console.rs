//! Measures the console at a long ledger: pages, search, the way from a hold to a page and to a notification, and many open live pages.
//! Prints one JSON object; `bench/console` runs it with a release build of the program.
//!
//! Pages are asked for over connections that are open already, one request each, as the listener serves them: a time goes from the
//! request's first byte to the answer's last, so the network's part of the same machine is in it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use reprieve_audit::{AuditLog, AuditOptions, SystemClock};
use reprieve_gate::{Audit as _, Pending};
use reprieve_ledger::Signer;
use reprieve_operation::{AgentName, Digest, Event, IntentId, Kind, Outcome, Reach, SessionId, TableReach, TokenId};
use reprieve_store::SqliteStore;
use reprieve_testkit::{Browser, GatewayOptions};
use reprieve_tests::{Receiver, Site, connect, denied};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Times that a page is asked for.
const ROUNDS: usize = 15;
const LIVE_PAGES: usize = 200;
const HOLDS: usize = 10;
/// Statements a second while the live pages are open; each is two events.
const STATEMENTS_A_SECOND: u64 = 50;
const LIVE_SECONDS: u64 = 20;
/// Events that are handed over before one is waited for: less than the queue takes.
const AT_ONCE: u64 = 4_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let events: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let folder = tempfile::tempdir()?;
    let hook = Receiver::start(&[])?;
    let address = folder.path().join("hook");
    std::fs::write(&address, hook.url())?;
    std::fs::set_permissions(&address, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let notify = format!("[[notify]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"file:{}\"\n", address.display());
    let mut site = Site::open(GatewayOptions { settings: notify, open_holds: 100, ..GatewayOptions::default() })?;
    site.table("orders", 1_000)?;
    let url = site.agent("first")?;
    site.gateway.stop()?;
    let begun = Instant::now();
    fill(site.gateway.folder(), events)?;
    let filled_s = begun.elapsed().as_secs_f64();
    let started = started(&mut site, &url, false).await?;
    let started_after_a_kill = self::started(&mut site, &url, true).await?;

    let visitor = Visitor::enter(&site)?;
    let worker = connect(&site.agent("worker")?).await?;
    let held = denied(worker.simple_query("DELETE FROM orders WHERE id > 0").await)?.hold.context("no hold")?;
    let mut pages = Vec::new();
    let oldest = 20;
    let paths = [
        "/live".to_owned(),
        "/holds".to_owned(),
        format!("/holds/{held}"),
        "/undo".to_owned(),
        "/agents".to_owned(),
        "/agents/worker".to_owned(),
        "/systems".to_owned(),
        "/policies".to_owned(),
        "/recovery".to_owned(),
        "/checklist".to_owned(),
        "/welcome".to_owned(),
        "/audit".to_owned(),
        "/audit?kind=hold_opened".to_owned(),
        format!("/audit/{oldest}"),
        format!("/audit/{}", events / 2 + 1),
        "/audit?q=agent%3Aagent-7".to_owned(),
        "/audit?q=pgbench_accounts".to_owned(),
        "/audit?q=needle-of-the-beginning".to_owned(),
        "/audit?q=agent%3Aagent-7+needle-of-the-beginning".to_owned(),
    ];
    for path in paths {
        pages.push(visitor.timed(&path).await?);
    }
    let holds = holds(&site, &visitor, &hook).await?;
    let live = live_pages(&site, &visitor).await?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    println!(
        "{}",
        json!({ "what": "console", "events": events, "filled_s": filled_s, "started_s": started, "started_after_a_kill_s": started_after_a_kill, "pages": pages, "holds": holds, "live": live, "load": load.trim() })
    );
    Ok(())
}

/// From the program's start to the answer of its first protected statement, after a clean end or a kill.
async fn started(site: &mut Site, url: &str, kill: bool) -> Result<f64> {
    if kill {
        site.gateway.kill_now()?;
    } else {
        site.gateway.stop()?;
    }
    let begun = Instant::now();
    site.gateway.restart()?;
    connect(url).await?.batch_execute(&format!("INSERT INTO orders VALUES ({}, 'first')", 900_000 + u32::from(kill))).await?;
    let took = begun.elapsed().as_secs_f64();
    eprintln!("started in {took:.3} s");
    Ok(took)
}

/// Somebody who is signed in, and how to reach the console as them.
struct Visitor {
    port: u16,
    connector: TlsConnector,
    headers: String,
}

impl Visitor {
    fn enter(site: &Site) -> Result<Visitor> {
        let gateway = &site.gateway;
        let mut browser = Browser::start()?;
        browser.open(&gateway.enrolment_link()?)?;
        browser.wait_for("document.querySelector('[data-who]').textContent === 'ana'")?;
        browser.fill("#label", "the bench’s laptop")?;
        browser.fill("#code", &gateway.code("ana")?)?;
        browser.click("form[data-enrol] button")?;
        browser.wait_for("location.pathname === '/signin'")?;
        browser.click("form[data-signin] button")?;
        browser.wait_for("location.pathname === '/live' && document.readyState === 'complete'")?;
        let agent = browser.evaluate("navigator.userAgent")?;
        let cookies = browser.call("Network.getAllCookies", json!({}))?;
        let cookies = cookies["cookies"].as_array().context("no cookies")?;
        let own = cookies.iter().find(|cookie| cookie["name"] == "__Host-reprieve").context("no session")?;
        let (secret, agent) = (own["value"].as_str().context("no secret")?, agent.as_str().context("no browser")?);
        let authority = gateway.console().trim_start_matches("https://").to_owned();
        let headers = format!("Host: {authority}\r\nUser-Agent: {agent}\r\nCookie: __Host-reprieve={secret}\r\n");
        let port = authority.rsplit_once(':').context("no port")?.1.parse()?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(gateway.certificate_file()).ok().context("no certificate")?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Visitor { port, connector: TlsConnector::from(Arc::new(config)), headers })
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        let mut stream = self.connector.connect(ServerName::try_from("localhost")?, stream).await?;
        stream.flush().await?;
        Ok(stream)
    }

    async fn timed(&self, path: &str) -> Result<Value> {
        let (mut took, mut bytes) = (Vec::new(), 0);
        for _ in 0..ROUNDS {
            let mut stream = self.connect().await?;
            // The server's half of the handshake is over, too, when it waits for a request.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let begun = Instant::now();
            stream.write_all(format!("GET {path} HTTP/1.1\r\n{}\r\n", self.headers).as_bytes()).await?;
            let mut answer = Vec::new();
            // A peer that closes without a goodbye has said all the same what it had to say.
            stream.read_to_end(&mut answer).await.ok();
            took.push(begun.elapsed().as_secs_f64() * 1_000.0);
            ensure!(answer.starts_with(b"HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(&answer[..answer.len().min(300)]));
            bytes = answer.len();
        }
        took.sort_by(f64::total_cmp);
        eprintln!("{path}: {:.1} ms, {bytes} bytes", took[ROUNDS / 2]);
        Ok(json!({ "path": path, "median_ms": took[ROUNDS / 2], "worst_ms": took[ROUNDS - 1], "bytes": bytes }))
    }

    /// An open stream of events, behind its head.
    async fn events(&self) -> Result<TlsStream<TcpStream>> {
        let mut stream = self.connect().await?;
        stream.write_all(format!("GET /events HTTP/1.1\r\nAccept: text/event-stream\r\n{}\r\n", self.headers).as_bytes()).await?;
        let mut head = [0; 4_096];
        let length = stream.read(&mut head).await?;
        ensure!(head[..length].starts_with(b"HTTP/1.1 200"), "no events: {}", String::from_utf8_lossy(&head[..length]));
        Ok(stream)
    }
}

/// From the moment that the ledger has a hold to its event on an open page, and to its notification.
async fn holds(site: &Site, visitor: &Visitor, hook: &Receiver) -> Result<Value> {
    let client = connect(&site.agent("asker")?).await?;
    let before = hook.got().len();
    let (mut to_page, mut at) = (Vec::new(), Vec::new());
    for number in 0..HOLDS {
        let mut stream = visitor.events().await?;
        let heard = tokio::spawn(async move {
            let (mut text, mut bytes) = (String::new(), [0; 16_384]);
            loop {
                let length = stream.read(&mut bytes).await?;
                ensure!(length > 0, "the stream ended");
                text.push_str(&String::from_utf8_lossy(&bytes[..length]));
                if text.contains("event: hold") {
                    return Ok(now_ms());
                }
            }
        });
        denied(client.simple_query(&format!("DELETE FROM orders WHERE id > {number}")).await)?;
        let heard: f64 = heard.await??;
        let opened = opened_at(site)?;
        to_page.push(heard - opened);
        at.push(opened);
    }
    let told = hook.wait_for(before + HOLDS)?;
    let (now, wall) = (Instant::now(), now_ms());
    let mut to_channel: Vec<f64> = told[before..]
        .iter()
        .zip(&at)
        .map(|(delivery, opened)| wall - now.duration_since(delivery.at).as_secs_f64() * 1_000.0 - opened)
        .collect();
    to_page.sort_by(f64::total_cmp);
    to_channel.sort_by(f64::total_cmp);
    let spread = |all: &[f64]| json!({ "median_ms": all[all.len() / 2], "worst_ms": all[all.len() - 1] });
    Ok(json!({ "to_page": spread(&to_page), "to_channel": spread(&to_channel) }))
}

fn opened_at(site: &Site) -> Result<f64> {
    let newest = site.gateway.holds()?;
    newest.iter().filter_map(|hold| hold["opened"].as_f64()).max_by(f64::total_cmp).context("no hold has a time")
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1_000.0)
}

/// What two hundred open pages cost at a hundred events a second: the gateway's processor time with them, less that without.
async fn live_pages(site: &Site, visitor: &Visitor) -> Result<Value> {
    let client = connect(&site.agent("busy")?).await?;
    let mut number = 1_000_000;
    let without = busy_seconds(site, &client, &mut number).await?;
    let heard = Arc::new(AtomicUsize::new(0));
    let mut pages = tokio::task::JoinSet::new();
    for _ in 0..LIVE_PAGES {
        let (mut stream, heard) = (visitor.events().await?, heard.clone());
        pages.spawn(async move {
            let mut bytes = [0; 65_536];
            while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                heard.fetch_add(length, Ordering::Relaxed);
            }
        });
    }
    let with = busy_seconds(site, &client, &mut number).await?;
    let lost = LIVE_PAGES - pages.len();
    pages.abort_all();
    let heard = heard.load(Ordering::Relaxed);
    ensure!(heard > LIVE_PAGES * 10_000, "the pages heard nothing");
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    let share = |seconds: f64| seconds / LIVE_SECONDS as f64;
    Ok(
        json!({ "pages": LIVE_PAGES, "lost": lost, "bytes_a_page": heard / LIVE_PAGES, "core_without": share(without), "core_with": share(with),
               "core_for_the_pages": share(with - without) }),
    )
}

/// The gateway's processor time while statements come at a steady rate.
async fn busy_seconds(site: &Site, client: &tokio_postgres::Client, number: &mut u64) -> Result<f64> {
    let id = site.gateway.process_id()?;
    let begun = cpu_seconds(id)?;
    let mut tick = tokio::time::interval(Duration::from_millis(1_000 / STATEMENTS_A_SECOND));
    for _ in 0..STATEMENTS_A_SECOND * LIVE_SECONDS {
        tick.tick().await;
        *number += 1;
        client.batch_execute(&format!("INSERT INTO orders VALUES ({number}, 'word')")).await?;
    }
    Ok(cpu_seconds(id)? - begun)
}

fn cpu_seconds(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("not a stat")?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).context("no time");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// Fills a stopped gateway's ledger with what agents do all day.
fn fill(folder: &Path, events: u64) -> Result<()> {
    let signer = Signer::parse(std::fs::read_to_string(folder.join("keys/ledger.key"))?.trim())?;
    let path = folder.join("reprieve.db");
    let options = AuditOptions::new(signer).with_head_file(folder.join("reprieve.head"));
    let log = AuditLog::open(Box::new(SqliteStore::open(&path)?), options, Arc::new(SystemClock))?;
    let first = log.state().next.intent;
    let mut last: Option<Pending> = None;
    for number in 0..events {
        let pending = log.append(event(first, number)?);
        if number % AT_ONCE == AT_ONCE - 1 || number == events - 1 {
            last = Some(pending);
        }
        if let Some(mut pending) = last.take() {
            while pending.try_now().transpose()?.is_none() {
                std::thread::yield_now();
            }
        }
    }
    log.close();
    Ok(())
}

fn event(first: u64, number: u64) -> Result<Event> {
    let (intent, agent): (_, AgentName) =
        (IntentId(first + number / 2), format!("agent-{}", number / 2 % 50).parse().ok().context("a name")?);
    let text = match number {
        0 => "SELECT 'needle-of-the-beginning'",
        _ => "UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2",
    };
    if number.is_multiple_of(2) {
        let (system, environment) = ("shop".parse().ok().context("a name")?, "production".parse().ok().context("a name")?);
        let (session, token, digest) = (SessionId(number / 200), TokenId(number % 50), Digest([1; 32]));
        return Ok(Event::Intent {
            intent,
            session,
            agent,
            token,
            system,
            environment,
            digest,
            text: text.to_owned(),
            kinds: vec![Kind::Write],
        });
    }
    let rows = TableReach { updated: 1, inserted: number % 3, ..TableReach::default() };
    let tables = [("public.pgbench_accounts".to_owned(), rows)].into();
    let outcome = Outcome::Done { tag: "UPDATE 1".to_owned(), reach: Reach { tables, ..Reach::default() }, xid: Some(number) };
    Ok(Event::Concluded { intent, agent, outcome, statements: Vec::new() })
}
