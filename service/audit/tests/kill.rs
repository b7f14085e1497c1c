//! Kills a process that appends under load, again and again: every index it was told must be there afterwards, and the
//! ledger must be good each time.
//!
//! The test runs its own binary as the process to kill.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use reprieve_audit::{AuditLog, AuditOptions, SystemClock, verify};
use reprieve_gate::Audit as _;
use reprieve_ledger::Signer;
use reprieve_operation::{AgentName, Digest, Event, IntentId, Kind, Outcome, SessionId, TokenId};
use reprieve_store::{Query, SqliteStore};

/// Tells the child where the ledger is.
const LEDGER: &str = "REPRIEVE_TEST_KILL_LEDGER";
const ROUNDS: u64 = 24;
/// Kills of one ledger, before a new one is begun: each check reads all of it.
const KILLS: u64 = 4;
const APPENDERS: u64 = 8;

fn signer() -> Signer {
    Signer::from_seed("kill.test", [8; 32]).expect("a key name")
}

fn open(path: &Path) -> Arc<AuditLog> {
    let options = AuditOptions::new(signer()).with_head_file(path.with_extension("head"));
    let store = Box::new(SqliteStore::open(path).expect("the ledger of the test"));
    AuditLog::open(store, options, Arc::new(SystemClock)).expect("a ledger that opens after every kill")
}

fn agent() -> AgentName {
    "cursor".parse().expect("a name")
}

fn intent(number: u64) -> Event {
    Event::Intent {
        intent: IntentId(number),
        session: SessionId(0),
        agent: agent(),
        token: TokenId(0),
        system: "pocket".parse().expect("a name"),
        environment: "staging".parse().expect("a name"),
        digest: Digest([1; 32]),
        text: "UPDATE orders SET state = $1".to_owned(),
        kinds: vec![Kind::Write],
    }
}

/// The process that is killed: appends intents and their outcomes and says each index once it is told.
#[test]
fn child() {
    let Some(path) = env::var_os(LEDGER) else { return };
    let log = open(Path::new(&path));
    let first = log.state().next.intent;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    runtime.block_on(async {
        let appenders: Vec<_> = (0..APPENDERS)
            .map(|appender| {
                let log = log.clone();
                tokio::spawn(async move {
                    for round in 0.. {
                        let number = first + round * APPENDERS + appender;
                        let begun = log.append(intent(number)).await.expect("durable");
                        println!("acknowledged {begun} I-{number}");
                        if number.is_multiple_of(3) {
                            continue;
                        }
                        let concluded = Event::Concluded {
                            intent: IntentId(number),
                            agent: agent(),
                            outcome: Outcome::Abandoned,
                            statements: Vec::new(),
                        };
                        let ended = log.append(concluded).await.expect("durable");
                        println!("acknowledged {ended} -");
                    }
                })
            })
            .collect();
        for appender in appenders {
            appender.await.expect("appends until it is killed");
        }
    });
}

#[test]
fn what_was_acknowledged_survives_every_kill() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mut seed = u64::from(std::process::id());
    let mut most = 0;
    for round in 0..ROUNDS {
        let path = folder.path().join(format!("ledger-{}.db", round / KILLS));
        // A small generator is random enough for the moment of a kill.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = Command::new(env::current_exe().expect("this test"))
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env(LEDGER, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test again");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        let heard = std::thread::spawn(move || lines.lines().map_while(Result::ok).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(60 + (seed >> 33) % 100));
        child.kill().expect("a child that runs until it is killed");
        assert!(!child.wait().expect("a child").success(), "killed, not ended");
        let heard = heard.join().expect("lines");
        let acknowledged: Vec<(u64, String)> = heard.iter().filter_map(|line| acknowledgement(line)).collect();
        most = most.max(acknowledged.len());
        check(&path, &acknowledged, round);
    }
    assert!(most > 20, "at least one round was under load: {most}");
}

/// A whole line only: the last one may have been cut in its middle.
fn acknowledgement(line: &str) -> Option<(u64, String)> {
    let mut words = line.split("acknowledged ").nth(1)?.split(' ');
    let (index, intent) = (words.next()?.parse().ok()?, words.next()?);
    (intent == "-" || intent.starts_with("I-")).then(|| (index, intent.to_owned()))
}

fn check(path: &Path, acknowledged: &[(u64, String)], round: u64) {
    if !path.exists() {
        return;
    }
    {
        let head = std::fs::read_to_string(path.with_extension("head")).ok();
        let reader = match SqliteStore::open_to_read(path) {
            Ok(reader) => reader,
            // Killed while it was made: that is for the next start to roll back, and nothing can have been acknowledged.
            Err(_) if acknowledged.is_empty() => return drop(open(path)),
            Err(error) => panic!("round {round}: {error}"),
        };
        let report = verify(reader.as_ref(), &signer().verifier(), head.as_deref()).expect("readable");
        assert!(report.is_good(), "round {round}: {:?}", report.fault);
        for (index, intent) in acknowledged {
            let rows = reader.rows(*index, 1).expect("readable");
            let row = rows.first().filter(|row| row.index == *index).unwrap_or_else(|| panic!("round {round}: {index} is lost"));
            let expected = if intent == "-" { "concluded" } else { "intent" };
            assert_eq!(row.kind, expected, "round {round}: {index}");
            let number = intent.trim_start_matches("I-");
            assert!(
                intent == "-" || String::from_utf8_lossy(&row.body).contains(&format!("\"intent\":{number},")),
                "round {round}: {index}"
            );
        }
    }
    // The next start closes every open intent, once.
    let log = open(path);
    assert!(log.state().open_intents.is_empty(), "round {round}");
    let newest = log.search(&Query { limit: 1, ..Query::default() }).expect("readable");
    assert_eq!(newest.first().map_or(0, |recorded| recorded.index + 1), log.state().size, "round {round}");
    log.close();
}
