//! Copies that come back, and everything that must not look like one. Real program, real PostgreSQL, real damage.

#[path = "recovery/bucket.rs"]
mod bucket;
#[path = "recovery/ends.rs"]
mod ends;
#[path = "recovery/faults.rs"]
mod faults;
#[path = "recovery/increments.rs"]
mod increments;
#[path = "recovery/lies.rs"]
mod lies;
#[path = "recovery/pgbackrest.rs"]
mod pgbackrest;
#[path = "recovery/protected.rs"]
mod protected;
#[path = "recovery/stream.rs"]
mod stream;

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use reprieve_testkit::{Gateway, GatewayOptions, GuardedSystem, Postgres};
use reprieve_tests::{Copied, answer};
use serde_json::{Value, json};

/// A database with rows, and a gateway that copies it.
struct Stage {
    // First: it stops before the server that it streams from.
    gateway: Gateway,
    server: Postgres,
}

impl Stage {
    fn open(backup: &str, recovery: &str) -> Result<Stage> {
        Stage::open_in(backup, recovery, Vec::new())
    }

    /// With more in the program's environment.
    fn open_in(backup: &str, recovery: &str, environment: Vec<(String, String)>) -> Result<Stage> {
        Stage::of(Postgres::start()?, backup, recovery, environment)
    }

    /// With a server of one's own.
    fn of(server: Postgres, backup: &str, recovery: &str, environment: Vec<(String, String)>) -> Result<Stage> {
        server.create_database("shop", "postgres")?;
        server.create_role("app", "secret", "")?;
        server.create_role("copies", "secret", "REPLICATION IN ROLE pg_read_all_data")?;
        server.psql(
            "shop",
            "CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
             CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL REFERENCES customers, note text);
             INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 500) n;
             INSERT INTO orders SELECT n, n % 500 + 1, 'note ' || n FROM generate_series(1, 5000) n;
             CREATE TABLE commits (n bigint PRIMARY KEY);
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app",
        )?;
        let secrets = tempfile::tempdir()?;
        // The role that copies is named in a file of its own, which stays for as long as the test.
        let file = secrets.keep().join("copies");
        fs::write(&file, server.url("copies", "secret", "shop"))?;
        Command::new("chmod").arg("600").arg(&file).status()?;
        let mut system = GuardedSystem::new("shop", "production", &server.url("app", "secret", "shop"));
        system.admin_url = Some(server.superuser_url("shop"));
        system.settings = format!("[system.backup]\nurl = \"file:{}\"\nheartbeat = \"1s\"\n{backup}", file.display());
        let options = GatewayOptions { systems: vec![system], settings: recovery.to_owned(), environment, ..GatewayOptions::default() };
        Ok(Stage { gateway: Gateway::start(options)?, server })
    }

    fn index(&self) -> PathBuf {
        self.gateway.folder().join("recovery/shop/wal/index")
    }
}

impl Copied for Stage {
    fn gateway(&self) -> &Gateway {
        &self.gateway
    }
}

/// A server over restored files, by hand, as an operator would start it.
struct Restored {
    folder: PathBuf,
    data: PathBuf,
}

impl Restored {
    fn start(data: &Path) -> Result<Restored> {
        let folder = tempfile::Builder::new().prefix("reprieve-restored-").tempdir()?.keep();
        Command::new("chmod").arg("777").arg(&folder).status()?;
        let hba = folder.join("hba");
        fs::write(&hba, "local all all trust\n")?;
        let restored = Restored { folder, data: data.to_owned() };
        let options = format!("-c listen_addresses='' -k {} -c hba_file={}", restored.folder.display(), hba.display());
        restored.control(&["-w", "-o", &options, "-l", &restored.folder.join("log").display().to_string(), "start"])?;
        Ok(restored)
    }

    fn control(&self, arguments: &[&str]) -> Result<()> {
        let program = "/usr/lib/postgresql/15/bin/pg_ctl";
        let root = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)?;
        let mut command = if root { Command::new("setpriv") } else { Command::new(program) };
        if root {
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", program]);
        }
        let output = command.current_dir("/").arg("-D").arg(&self.data).args(arguments).output()?;
        ensure!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn psql(&self, sql: &str) -> Result<String> {
        let mut command = Command::new("/usr/lib/postgresql/15/bin/psql");
        command.args(["-X", "-A", "-t", "-U", "postgres", "-d", "shop", "-c", sql, "-h"]).arg(&self.folder);
        let output = command.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let _stopped = self.control(&["-m", "immediate", "stop"]);
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

/// A new place for restored files, on the same disk.
fn new_place(stage: &Stage, name: &str) -> Result<PathBuf> {
    // Its parents have to let the server's account through.
    let place = std::env::temp_dir().join(format!("reprieve-test-{}-{name}", stage.gateway.port()));
    ensure!(!place.exists(), "{} is there already", place.display());
    Ok(place)
}

#[test]
fn a_copy_is_made_tried_and_told_of() -> Result<()> {
    let stage = Stage::open("assertions = [\"SELECT count(*) = 5000 FROM orders\"]\n", "[recovery]\npublish = true\n")?;
    // Before there is a copy, a drill fails.
    stage.drill_fails("no copy")?;
    let made = stage.copy()?;
    assert_eq!(made["engine"], "physical");
    let list = stage.gateway.json(&["backup", "list", "--json"])?;
    assert_eq!(list["points"][0]["point"], made["point"]);
    assert!(list["points"][0]["verified"].is_null());
    assert_eq!(list["points"][0]["same_blast_radius"], true, "a folder on the same machine");
    let (answer, passed) = stage.drill()?;
    assert!(passed, "{answer}");
    assert_eq!(answer["report"]["level"], 5);
    assert!(answer["report"]["rto_ms"].as_u64().is_some_and(|ms| ms > 0) && answer["report"]["rpo_ms"].is_u64(), "{answer}");
    let list = stage.gateway.json(&["backup", "list", "--vault", "--json"])?;
    assert_eq!(list["points"][0]["verified"]["level"], 5, "found without the ledger");
    let status = stage.gateway.json(&["recovery", "status", "--json"])?;
    assert!(status["systems"][0]["unproven"].is_null(), "{status}");
    // The vault has nothing of it in clear.
    for object in stage.objects()? {
        let bytes = fs::read(&object)?;
        assert!(!bytes.windows(12).any(|window| window == b"customer 499"), "{}", object.display());
    }
    // Nothing of the throw-away server stays.
    assert_eq!(
        fs::read_dir(stage.gateway.folder())?
            .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("reprieve-")))
            .count(),
        0
    );
    let public = curl(&stage, "/recovery/public")?;
    assert!(public.contains("Came back") && !public.contains("customer"), "{public}");
    let note: Value = serde_json::from_str(&curl(&stage, "/recovery/public.json")?)?;
    assert!(note["note"].as_str().is_some_and(|note| note.contains("— reprieve ") && note.contains("\"proof\"")), "{note}");
    // Anybody who has the public key can check it.
    let verify = |text: &str, key: &str| -> Result<bool> {
        fs::write(stage.gateway.folder().join("page.json"), text)?;
        Ok(stage.gateway.cli(&["verify", "page.json", "--key", key])?.status.success())
    };
    let text = note.to_string();
    assert!(verify(&text, "keys/ledger.pub")?);
    assert!(verify(note["note"].as_str().unwrap_or_default(), fs::read_to_string(stage.gateway.folder().join("keys/ledger.pub"))?.trim())?);
    for (key, text) in [
        ("keys/copies.pub", text.clone()),
        ("nobody", text.clone()),
        ("keys/ledger.pub", text.replacen("drill_passed", "drill_failed", 1)),
        ("keys/ledger.pub", text.replacen("\\\"rto_ms\\\":", "\\\"rto_ms\\\":1", 1)),
        ("keys/ledger.pub", "{}".to_owned()),
        ("keys/ledger.pub", String::new()),
    ] {
        assert!(!verify(&text, key)?, "{key}: {text}");
    }
    stage.gateway.verify()?;
    Ok(())
}

fn curl(stage: &Stage, path: &str) -> Result<String> {
    let url = format!("{}{path}", stage.gateway.console());
    let output = Command::new("curl").args(["-s", "--cacert"]).arg(stage.gateway.certificate_file()).arg(url).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_damaged_copy_is_never_green() -> Result<()> {
    let stage = Stage::open("", "")?;
    stage.copy()?;
    assert!(stage.drill()?.1);
    let largest = stage.objects()?.first().context("an object")?.clone();
    let whole = fs::read(&largest)?;
    // One bit.
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&largest, &flipped)?;
    stage.drill_fails("")?;
    // Its end.
    fs::write(&largest, &whole[..whole.len() - 7])?;
    stage.drill_fails("")?;
    // Nothing.
    fs::remove_file(&largest)?;
    stage.drill_fails("")?;
    // As it was: green again.
    fs::write(&largest, &whole)?;
    assert!(stage.drill()?.1);
    // A manifest that somebody else signed.
    let list = stage.gateway.json(&["backup", "list", "--json"])?;
    assert_eq!(list["points"].as_array().map(Vec::len), Some(1));
    let copies = stage.gateway.folder().join("keys/copies.pub");
    let key = fs::read_to_string(&copies)?;
    fs::write(&copies, fs::read_to_string(stage.gateway.folder().join("keys/verifier.pub"))?)?;
    let (answer, passed) = stage.drill()?;
    assert!(!passed, "{answer}");
    fs::write(&copies, key)?;
    // The identity is another one.
    let identity = stage.gateway.folder().join("keys/recovery.identity");
    let text = fs::read_to_string(&identity)?;
    fs::remove_file(&identity)?;
    stage.drill_fails("identity")?;
    fs::write(&identity, text)?;
    Command::new("chmod").arg("600").arg(&identity).status()?;
    assert!(stage.drill()?.1);
    Ok(())
}

#[test]
fn what_should_not_be_copied_is_not_and_it_is_told() -> Result<()> {
    let stage = Stage::open("", "")?;
    let fails = |why: &str| -> Result<()> {
        let output = stage.gateway.cli(&["backup", "now", "shop", "--json"])?;
        ensure!(!output.status.success(), "it was copied");
        let said = answer(&output)?["error"].as_str().unwrap_or_default().to_owned();
        ensure!(said.contains(why), "{said}");
        let events = stage.events("backup_failed")?;
        ensure!(events.last().is_some_and(|event| event["reason"].as_str().is_some_and(|reason| reason.contains(why))), "{events:?}");
        Ok(())
    };
    stage.server.psql("shop", "TRUNCATE orders, customers, commits; DROP SCHEMA IF EXISTS reprieve_recovery CASCADE")?;
    fails("single row")?;
    stage.server.psql("shop", "INSERT INTO commits VALUES (1); ALTER ROLE copies PASSWORD 'another'")?;
    fails("password")?;
    assert!(stage.events("backup_made")?.is_empty());
    assert!(stage.gateway.json(&["backup", "list", "--vault", "--json"])?["points"].as_array().is_some_and(Vec::is_empty));
    Ok(())
}

#[test]
fn a_database_that_lost_its_rows_on_the_way_does_not_pass() -> Result<()> {
    let stage = Stage::open("assertions = [\"SELECT count(*) > 4000 FROM orders\"]\nwal = \"stream\"\n", "")?;
    stage.copy()?;
    stage.wait("a segment is in the vault", || Ok(stage.index().exists()))?;
    assert!(stage.drill()?.1);
    let remedied = |done: &str| stage.gateway.operate(&["drill", "remedy", "shop", "--done", done]);
    let refused = |done: &str, why: &str| remedied(done).is_err_and(|error| format!("{error:#}").contains(why));
    assert!(refused("nothing failed", "no drill"));
    // Somebody empties the table, by a way around us; the log has that too.
    stage.server.psql("shop", "DELETE FROM orders; SELECT pg_switch_wal()")?;
    stage.wait("the drill sees it", || {
        let (answer, passed) = stage.drill()?;
        Ok(!passed && answer["report"]["reason"].as_str().is_some_and(|reason| reason.contains("orders")))
    })?;
    let failed = stage.drill_fails("orders")?;
    // What was done about it is told beside it, and turns nothing green.
    assert!(!stage.gateway.cli(&["drill", "remedy", "shop", "--done", "nobody signed for this"])?.status.success());
    assert!(refused(" ", "say what"));
    assert_eq!(remedied("the first word")?["drill"], failed["report"]["drill"]);
    remedied("the rows were put back from the copy of the night")?;
    let told = stage.gateway.cli(&["recovery", "status", "--json"])?;
    let system = &answer(&told)?["systems"][0];
    assert!(!told.status.success() && system["unproven"] == "failed", "{system}");
    assert_eq!(system["failures"][0]["drill"], failed["report"]["drill"]);
    assert_eq!(system["failures"][0]["remedy"][1], "the rows were put back from the copy of the night");
    Ok(())
}

#[test]
fn the_data_directory_is_gone_and_comes_back() -> Result<()> {
    let mut stage = Stage::open("wal = \"stream\"\n", "")?;
    stage.copy()?;
    stage.wait("the log is kept", || Ok(stage.index().exists()))?;
    let writer = commit_until_the_end(&stage);
    std::thread::sleep(Duration::from_secs(4));
    stage.server.lose_data()?;
    let acknowledged = writer.join().map_err(|_| anyhow::anyhow!("the writer died"))??;
    assert!(acknowledged > 100, "{acknowledged}");
    // What was received last is stored within a second or so.
    std::thread::sleep(Duration::from_secs(2));
    let place = new_place(&stage, "newest")?;
    let to = place.display().to_string();
    // Not without a reason, and not without an operator.
    assert!(!stage.gateway.cli(&["restore", "shop", "--to", &to])?.status.success());
    let answer = stage.gateway.operate(&["restore", "shop", "--to", &to, "--reason", "the disk is gone"])?;
    assert!(answer["restored"]["wal_files"].as_u64().is_some_and(|files| files > 0), "{answer}");
    let restored = Restored::start(&place)?;
    let back: u64 = restored.psql("SELECT count(*) FROM commits")?.parse()?;
    println!("acknowledged {acknowledged}, back {back}, lost {}; {answer}", acknowledged.saturating_sub(back));
    // Asynchronous: what was on its way when the server died is lost, and that is little.
    assert!(back + 2_000 >= acknowledged && back <= acknowledged + 1, "{back} of {acknowledged}");
    assert_eq!(restored.psql("SELECT count(*) FROM orders")?, "5000");
    drop(restored);
    // Never over what is there.
    let again = stage.gateway.operate(&["restore", "shop", "--to", &to, "--reason", "again"]);
    assert!(again.is_err_and(|error| format!("{error:#}").contains("not empty")));
    fs::remove_dir_all(&place)?;
    let events = stage.events("restore_finished")?;
    assert_eq!(events.iter().map(|event| event["succeeded"].as_bool()).collect::<Vec<_>>(), [Some(true), Some(false)]);
    Ok(())
}

/// Commits, each acknowledged, until the server dies.
fn commit_until_the_end(stage: &Stage) -> std::thread::JoinHandle<Result<u64>> {
    let url = stage.server.superuser_url("shop");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = reprieve_tests::connect(&url).await?;
            let mut acknowledged = 0;
            while client.execute("INSERT INTO commits VALUES ($1)", &[&(acknowledged as i64 + 1)]).await.is_ok() {
                acknowledged += 1;
            }
            Ok(acknowledged)
        })
    })
}

#[test]
fn no_acknowledged_commit_is_lost_where_the_server_waits_for_us() -> Result<()> {
    let mut stage = Stage::open("wal = \"synchronous\"\n", "")?;
    stage.copy()?;
    stage.wait("the log is kept", || Ok(stage.index().exists()))?;
    stage.server.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'reprieve_shop'")?;
    stage.server.psql("postgres", "SELECT pg_reload_conf()")?;
    let waits = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'reprieve_shop' AND sync_state = 'sync'";
    stage.wait("the server waits for us", || Ok(stage.server.psql("postgres", waits)? == "1"))?;
    let writer = commit_until_the_end(&stage);
    std::thread::sleep(Duration::from_secs(4));
    stage.server.lose_data()?;
    let acknowledged = writer.join().map_err(|_| anyhow::anyhow!("the writer died"))??;
    assert!(acknowledged > 10, "{acknowledged}");
    let place = new_place(&stage, "synchronous")?;
    stage.gateway.operate(&["restore", "shop", "--to", &place.display().to_string(), "--reason", "the disk is gone"])?;
    let restored = Restored::start(&place)?;
    let back: u64 = restored.psql("SELECT count(*) FROM commits")?.parse()?;
    println!("acknowledged {acknowledged}, back {back}");
    // One more may be there: received, and never acknowledged.
    assert!(back == acknowledged || back == acknowledged + 1, "{back} of {acknowledged}");
    drop(restored);
    fs::remove_dir_all(&place)?;
    Ok(())
}

#[test]
fn what_was_received_comes_back_though_the_vault_was_away() -> Result<()> {
    let mut stage = Stage::open("wal = \"stream\"\n", "")?;
    stage.copy()?;
    stage.wait("the log is kept", || Ok(stage.index().exists()))?;
    let (vault, away) = (stage.gateway.folder().join("vault"), stage.gateway.folder().join("away"));
    fs::rename(&vault, &away)?;
    // In the vault's place is a file: nothing can be put there, and no empty vault be made.
    fs::write(&vault, "")?;
    let before = fs::read_to_string(stage.index())?.lines().count();
    for round in 0..6 {
        stage.server.psql("shop", &format!("INSERT INTO commits VALUES ({round}); SELECT pg_switch_wal()"))?;
    }
    stage.server.psql("shop", "INSERT INTO commits VALUES (100)")?;
    let sent = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'reprieve_shop' AND write_lsn >= pg_current_wal_lsn()";
    stage.wait("all of it was received", || Ok(stage.server.psql("postgres", sent)? == "1"))?;
    stage.server.lose_data()?;
    assert_eq!(fs::read_to_string(stage.index())?.lines().count(), before, "nothing of it is in the vault");
    fs::remove_file(&vault)?;
    fs::rename(&away, &vault)?;
    let place = new_place(&stage, "away")?;
    stage.gateway.operate(&["restore", "shop", "--to", &place.display().to_string(), "--reason", "the disk is gone"])?;
    let restored = Restored::start(&place)?;
    assert_eq!(restored.psql("SELECT count(*) FROM commits")?, "7");
    drop(restored);
    fs::remove_dir_all(&place)?;
    Ok(())
}

#[test]
fn a_copy_goes_back_to_a_moment_and_to_just_before_an_operation() -> Result<()> {
    let stage = Stage::open("wal = \"stream\"\n", "")?;
    stage.copy()?;
    stage.wait("the log is kept", || Ok(stage.index().exists()))?;
    stage.server.psql("shop", "INSERT INTO commits VALUES (1)")?;
    std::thread::sleep(Duration::from_secs(1));
    let moment = stage.server.psql("shop", "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS')")?;
    std::thread::sleep(Duration::from_secs(1));
    let url = stage.gateway.agent("helper", &["shop"], "read,write,destroy")?;
    stage.server.psql_at(&url, "INSERT INTO commits VALUES (2)")?;
    stage.server.psql_at(&url, "DELETE FROM commits WHERE n = 1")?;
    stage.server.psql("shop", "INSERT INTO commits VALUES (3); SELECT pg_switch_wal(); INSERT INTO commits VALUES (4)")?;
    let intent = {
        let events = stage.events("intent")?;
        let found =
            events.iter().find(|event| event["text"].as_str().is_some_and(|text| text.starts_with("DELETE"))).context("the intent")?;
        found["intent"].as_u64().context("a number")?
    };
    stage.wait("the outcome is recorded", || Ok(stage.events("concluded")?.iter().any(|event| event["intent"] == intent)))?;
    stage.wait("a segment is whole in the vault", || Ok(fs::read_to_string(stage.index())?.contains("\"partial\":false")))?;
    std::thread::sleep(Duration::from_secs(3));
    for (name, arguments, expected) in [("moment", ["--at", moment.as_str()], "1"), ("before", ["--before", &format!("I-{intent}")], "1,2")]
    {
        let place = new_place(&stage, name)?;
        let to = place.display().to_string();
        let arguments = [["restore", "shop", "--to", to.as_str(), "--reason", "look"].as_slice(), &arguments].concat();
        stage.gateway.operate(&arguments)?;
        let restored = Restored::start(&place)?;
        assert_eq!(restored.psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM commits")?, expected, "{name}");
        drop(restored);
        fs::remove_dir_all(&place)?;
    }
    Ok(())
}

#[test]
fn a_tablespace_that_the_log_makes_is_not_made_over_the_one_there_is() -> Result<()> {
    let stage = Stage::open("wal = \"stream\"\n", "")?;
    stage.copy()?;
    stage.wait("the log is kept", || Ok(stage.index().exists()))?;
    assert!(stage.drill()?.1);
    let place = stage.server.socket_folder().join("space");
    fs::create_dir(&place)?;
    let owner = fs::metadata(stage.server.socket_folder().join("data"))?;
    chown(&place, Some(owner.uid()), Some(owner.gid()))?;
    stage.server.psql("shop", &format!("CREATE TABLESPACE space LOCATION '{}'", place.display()))?;
    stage.server.psql("shop", "CREATE TABLE far TABLESPACE space AS SELECT n FROM generate_series(1, 1000) n; CHECKPOINT")?;
    let files = || -> Result<Vec<u8>> {
        Ok(Command::new("find").arg(&place).args(["-type", "f", "-exec", "sha256sum", "{}", "+"]).output()?.stdout)
    };
    let before = files()?;
    let file = stage.server.psql("shop", "SELECT pg_walfile_name(pg_current_wal_lsn())")?;
    stage.server.psql("shop", "SELECT pg_switch_wal()")?;
    let whole = format!("\"file\":\"{file}\",\"partial\":false");
    stage.wait("the segment is in the vault", || Ok(fs::read_to_string(stage.index())?.contains(&whole)))?;
    stage.drill_fails("makes a tablespace")?;
    let to = new_place(&stage, "space")?;
    let restored = stage.gateway.operate(&["restore", "shop", "--to", &to.display().to_string(), "--reason", "look"]);
    ensure!(restored.as_ref().is_err_and(|error| format!("{error:#}").contains("makes a tablespace")), "{restored:?}");
    assert_eq!(files()?, before, "nothing of the server's own was touched");
    assert_eq!(stage.server.psql("shop", "SELECT count(*) FROM far")?, "1000");
    assert!(!to.exists(), "nothing half-made is left");
    Ok(())
}

#[test]
fn a_gap_in_the_log_fails_the_drill() -> Result<()> {
    let stage = Stage::open("wal = \"stream\"\n", "")?;
    stage.copy()?;
    // What the copy does not have itself: the log from here on. Older segments may be in the vault too, and nobody would miss them.
    let first = stage.server.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    for round in 0..4 {
        stage.server.psql("shop", &format!("INSERT INTO commits VALUES ({round}); SELECT pg_switch_wal()"))?;
    }
    let whole = || -> Result<Vec<Value>> {
        let text = fs::read_to_string(stage.index()).unwrap_or_default();
        let mut found: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        found.retain(|wal| wal["partial"] == false && wal["file"].as_str().is_some_and(|file| file >= first.as_str()));
        found.sort_by_key(|wal| wal["file"].as_str().map(str::to_owned));
        Ok(found)
    };
    stage.wait("four segments are in the vault", || Ok(whole()?.len() >= 4))?;
    let (answer, passed) = stage.drill()?;
    ensure!(passed, "{answer}");
    let lost = whole()?[2]["object"]["digest"].as_str().context("a digest")?.to_owned();
    let object = stage.gateway.folder().join("vault/objects").join(&lost[..2]).join(&lost[2..]);
    fs::remove_file(object)?;
    stage.drill_fails("")?;
    // Its line in the index goes too: then it is a gap.
    let text = fs::read_to_string(stage.index())?;
    let without: String = text.lines().filter(|line| !line.contains(&lost)).map(|line| format!("{line}\n")).collect();
    fs::write(stage.index(), without)?;
    stage.drill_fails("missing")?;
    Ok(())
}

#[test]
fn without_room_or_without_the_vault_nothing_is_green() -> Result<()> {
    let stage = Stage::open("", "")?;
    stage.copy()?;
    // No file may be larger than this: as on a disk that is full.
    let program = reprieve_testkit::program()?;
    let limited = Command::new("sh")
        .current_dir(stage.gateway.folder())
        .args(["-c", "ulimit -f 2000; trap '' XFSZ; exec \"$0\" drill run shop --json"])
        .arg(&program)
        .env("GUARDED_0_URL", stage.server.url("app", "secret", "shop"))
        .env("GUARDED_0_ADMIN_URL", stage.server.superuser_url("shop"))
        .output()?;
    ensure!(!limited.status.success(), "{}", String::from_utf8_lossy(&limited.stdout));
    assert_eq!(answer(&limited)?["report"]["passed"], false);
    let vault = stage.gateway.folder().join("vault");
    let away = stage.gateway.folder().join("away");
    fs::rename(&vault, &away)?;
    stage.drill_fails("")?;
    let output = stage.gateway.cli(&["backup", "now", "shop", "--json"])?;
    fs::remove_dir_all(&vault).ok();
    fs::rename(&away, &vault)?;
    // An empty place where the vault should be is another vault: what is put there is told, and the next drill does not find it.
    let (answer, passed) = stage.drill()?;
    ensure!(passed != output.status.success(), "{answer}");
    Ok(())
}

#[test]
fn copies_whose_time_is_over_go_and_never_the_last_good_one() -> Result<()> {
    let mut stage = Stage::open("wal = \"stream\"\nkeep = \"30d\"\n", "")?;
    let points = |stage: &Stage| -> Result<Vec<String>> {
        let list = stage.gateway.json(&["backup", "list", "--json"])?;
        let found = stage.gateway.json(&["backup", "list", "--vault", "--json"])?;
        let names = |list: &Value| -> Vec<String> {
            list["points"].as_array().into_iter().flatten().map(|point| point["point"].as_str().unwrap_or_default().to_owned()).collect()
        };
        ensure!(names(&list) == names(&found), "ledger and vault have other points: {list} {found}");
        Ok(names(&list))
    };
    let first = stage.copy()?["point"].clone();
    for round in 0..3 {
        stage.server.psql("shop", &format!("INSERT INTO commits VALUES ({round}); SELECT pg_switch_wal()"))?;
        std::thread::sleep(Duration::from_millis(300));
    }
    stage.wait("the log is in the vault", || Ok(fs::read_to_string(stage.index())?.matches("\"partial\":false").count() >= 3))?;
    let second = stage.copy()?["point"].clone();
    let settings = stage.gateway.folder().join("reprieve.toml");
    let text = fs::read_to_string(&settings)?;
    let soon = text.replace("keep = \"30d\"", "keep = \"1s\"");
    fs::write(stage.gateway.folder().join("soon.toml"), &soon)?;
    let purge = ["--config", "soon.toml", "backup", "purge", "shop", "--json"];
    std::thread::sleep(Duration::from_millis(1_100));
    // Nothing is proved: nothing goes.
    assert_eq!(stage.gateway.json(&purge)?["purged"], serde_json::json!([]));
    assert!(stage.drill()?.1);
    let third = stage.copy()?["point"].clone();
    // Whoever copies may think that the time is over; the gateway does not.
    let output = stage.gateway.cli(&purge)?;
    assert!(!output.status.success() && answer(&output)?["error"].as_str().is_some_and(|said| said.contains("stays")), "{output:?}");
    assert_eq!(points(&stage)?.len(), 3);
    // Now it is over for the gateway, too: the first goes, not the second, which a drill proved, nor the third, the newest.
    fs::write(&settings, &soon)?;
    stage.gateway.restart()?;
    std::thread::sleep(Duration::from_millis(1_100));
    let before = stage.objects()?.len();
    assert_eq!(stage.gateway.json(&purge)?["purged"], serde_json::json!([first]));
    assert_eq!(points(&stage)?, [third.as_str().unwrap_or_default(), second.as_str().unwrap_or_default()]);
    let purged = stage.events("copies_purged")?;
    assert!(purged.len() == 1 && purged[0]["log_files"].as_u64().is_some_and(|files| files > 0), "{purged:?}");
    assert!(stage.objects()?.len() < before, "the objects are gone");
    // What is left comes back, and is whole; a fourth makes the second superfluous only once it is proved.
    assert!(stage.drill()?.1, "the third");
    assert_eq!(stage.gateway.json(&["vault", "verify", "--json"])?["ok"], true);
    stage.copy()?;
    assert_eq!(points(&stage)?.len(), 2, "the copy purged the second by itself");
    assert_eq!(stage.gateway.json(&purge)?["purged"], serde_json::json!([]));
    stage.gateway.verify()?;
    Ok(())
}

#[test]
fn nobody_else_can_say_that_a_drill_passed() -> Result<()> {
    let stage = Stage::open("", "")?;
    stage.copy()?;
    let post = |body: &str| -> Result<String> {
        let output = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Content-Type: application/json", "-d", body, "--cacert"])
            .arg(stage.gateway.certificate_file())
            .arg(format!("{}/v1/recovery", stage.gateway.console()))
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for body in ["{\"note\":\"\"}", "{\"note\":\"passed\"}", "{\"note\":\"{}\\n\\n— reprieve-verifier AAAAAA==\\n\"}"] {
        assert_eq!(post(body)?, "401", "{body}");
    }
    assert_eq!(post("{}")?, "400");
    // A note that was used is used up.
    assert!(stage.drill()?.1);
    let passed = stage.events("drill_passed")?;
    let note = passed[0]["note"].as_str().context("a note")?;
    assert_eq!(post(&serde_json::json!({ "note": note }).to_string())?, "422");
    assert_eq!(stage.events("drill_passed")?.len(), 1);
    // Who copies can't say it: the verifier's key is another.
    let keys = stage.gateway.folder().join("keys");
    let verifier = fs::read_to_string(keys.join("verifier.key"))?;
    fs::write(keys.join("verifier.key"), fs::read_to_string(keys.join("copies.key"))?)?;
    let output = stage.gateway.cli(&["drill", "run", "shop", "--json"])?;
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(stage.events("drill_passed")?.len(), 1);
    fs::write(keys.join("verifier.key"), verifier)?;
    Ok(())
}

#[test]
fn nothing_is_destroyed_on_approval_before_a_drill_has_passed() -> Result<()> {
    let stage = Stage::open("", "")?;
    let url = stage.gateway.agent("helper", &["shop"], "read,write,destroy")?;
    let drop_all = "DELETE FROM orders";
    let refused = stage.server.psql_at(&url, drop_all).expect_err("refused");
    assert!(format!("{refused:#}").contains("no-drill"), "{refused:#}");
    assert!(
        format!("{refused:#}").contains("5000") && format!("{refused:#}").contains("reprieve drill run"),
        "measured, and what to do: {refused:#}"
    );
    assert!(stage.gateway.holds()?.is_empty(), "nobody is asked for what may not be");
    let count = |table: &str| stage.server.psql("shop", &format!("SELECT count(*) FROM {table}"));
    assert_eq!(count("orders")?, "5000", "what was measured was rolled back");
    // In a transaction of the agent's own, at its COMMIT.
    let committed = stage.server.psql_at(&url, "BEGIN; DELETE FROM orders; COMMIT");
    assert!(committed.as_ref().is_err_and(|error| format!("{error:#}").contains("no-drill")), "{committed:?}");
    assert_eq!(count("orders")?, "5000");
    // Whole relations are not tried, and neither is what a text hides.
    for sql in ["TRUNCATE orders", "DROP TABLE orders", "WITH gone AS (DELETE FROM orders RETURNING 1) SELECT count(*) FROM gone"] {
        let refused = stage.server.psql_at(&url, sql);
        assert!(refused.as_ref().is_err_and(|error| format!("{error:#}").contains("no-drill")), "{sql}: {refused:?}");
    }
    assert_eq!(count("orders")?, "5000");
    // What turns out to be little needs nobody, and no drill either.
    stage.server.psql("shop", "INSERT INTO commits VALUES (1), (2)")?;
    stage.server.psql_at(&url, "DELETE FROM commits")?;
    assert_eq!(count("commits")?, "0");
    stage.copy()?;
    assert!(stage.server.psql_at(&url, drop_all).is_err_and(|error| format!("{error:#}").contains("no-drill")));
    assert!(stage.drill()?.1);
    let held = stage.server.psql_at(&url, drop_all).expect_err("held");
    assert!(!format!("{held:#}").contains("no-drill"), "{held:#}");
    assert_eq!(stage.gateway.holds()?.len(), 1);
    Ok(())
}

#[test]
fn an_incident_is_a_folder_that_proves_itself() -> Result<()> {
    let stage = Stage::open("", "")?;
    let url = stage.gateway.agent("helper", &["shop"], "read,write,destroy")?;
    stage.server.psql_at(&url, "INSERT INTO commits VALUES (1)")?;
    stage.wait("the outcome is recorded", || Ok(!stage.events("concluded")?.is_empty()))?;
    let told = stage.gateway.json(&["incident", "helper", "--to", "evidence", "--json"])?;
    assert_eq!(told["summary"]["changes"], 1, "{told}");
    let folder = stage.gateway.folder().join("evidence");
    for file in ["events.jsonl", "checkpoint.txt", "ledger.pub", "incident.json", "incident.html"] {
        assert!(folder.join(file).exists(), "{file}");
    }
    let events = fs::read_to_string(folder.join("events.jsonl"))?.lines().count();
    assert_eq!(fs::read_dir(folder.join("proofs"))?.count(), events);
    assert!(!stage.gateway.cli(&["incident", "helper", "--to", "evidence"])?.status.success(), "evidence is not written over");
    // Whoever has it and the public key can check it, and whoever changes it is found out.
    let verify = || Ok::<bool, anyhow::Error>(stage.gateway.cli(&["verify", "evidence", "--key", "keys/ledger.pub"])?.status.success());
    assert!(verify()?);
    assert!(!stage.gateway.cli(&["verify", "evidence", "--key", "keys/verifier.pub"])?.status.success());
    let (log, told) = (folder.join("events.jsonl"), folder.join("incident.json"));
    for (file, from, to) in
        [(&log, "\"helper\"", "\"nobody\""), (&log, "{", "{ "), (&log, "\n", "\n\n"), (&told, "\"changes\": 1", "\"changes\": 0")]
    {
        let text = fs::read_to_string(file)?;
        assert!(text.contains(from), "{from} in {text}");
        fs::write(file, text.replacen(from, to, 1))?;
        assert!(!verify()?, "{from} for {to} in {}", file.display());
        fs::write(file, text)?;
    }
    let first = fs::read_dir(folder.join("proofs"))?.next().context("a proof")??.path();
    fs::rename(&first, folder.join("proof"))?;
    assert!(!verify()?, "a proof is missing");
    fs::rename(folder.join("proof"), &first)?;
    assert!(verify()?);
    assert!(!stage.gateway.cli(&["incident", "nobody"])?.status.success());
    let points = stage.gateway.cli(&["checklist", "--json"])?;
    assert!(!points.status.success());
    assert_eq!(answer(&points)?["points"].as_array().map(Vec::len), Some(8));
    Ok(())
}

#[test]
fn an_incident_has_exactly_what_was_asked() -> Result<()> {
    let stage = Stage::open("", "")?;
    let url = stage.gateway.agent("helper", &["shop"], "read,write")?;
    let other = stage.gateway.agent("other", &["shop"], "read,write")?;
    let (update, refused) = ("UPDATE orders SET note = 'Grüße, ''wer''' WHERE id = 7", "ALTER ROLE app PASSWORD 'hunter2'");
    let (insert, delete) = ("INSERT INTO commits VALUES (4711001)", "DELETE FROM commits WHERE n = 4711001");
    // Undone by its own transaction: what was asked is kept whatever came of it.
    stage.server.psql_at(&url, &format!("BEGIN; {insert}; {update}; {insert}; ROLLBACK")).err();
    assert!(stage.server.psql_at(&url, refused).is_err());
    stage.server.psql_at(&url, &format!("BEGIN; {insert}; {update}; COMMIT"))?;
    assert!(stage.server.psql_at(&url, delete).is_err(), "not in its token");
    stage.server.psql_at(&other, "INSERT INTO commits VALUES (4711002)")?;
    let kept = || -> Result<u64> { Ok(stage.events("texts_kept")?.iter().filter_map(|event| event["texts"].as_u64()).sum()) };
    stage.wait("the texts are kept", || Ok(kept()? >= 8))?;
    let ledger = stage.gateway.events()?.iter().map(Value::to_string).collect::<String>();
    for secret in ["hunter2", "Grüße", "471100"] {
        assert!(!ledger.contains(secret), "the ledger has {secret}");
    }
    let told = stage.gateway.json(&["incident", "helper", "--to", "evidence", "--json"])?;
    assert_eq!((&told["exact_texts"]["intents_with"], &told["exact_texts"]["intents_without"]), (&json!(4), &json!(0)), "{told}");
    let folder = stage.gateway.folder().join("evidence");
    assert_eq!(fs::metadata(folder.join("calls"))?.mode() & 0o777, 0o700);
    let mut texts = Vec::new();
    for file in fs::read_dir(folder.join("calls"))? {
        let path = file?.path();
        let call: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        texts.push((path, call["text"].as_str().unwrap_or_default().trim_end_matches(';').to_owned()));
    }
    texts.sort();
    let asked: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(asked, [insert, update, insert, refused, insert, update, delete]);
    assert!(fs::read_to_string(folder.join("incident.html"))?.contains("hunter2"));

    let verify =
        |folder: &str| Ok::<bool, anyhow::Error>(stage.gateway.cli(&["verify", folder, "--key", "keys/ledger.pub"])?.status.success());
    assert!(verify("evidence")?);
    let list = fs::read_dir(folder.join("sums"))?.next().context("a list")??.path();
    let call = texts[1].0.clone();
    for file in [&call, &list] {
        let (text, aside) = (fs::read_to_string(file)?, folder.join("aside"));
        fs::write(file, text.replacen('7', "8", 1))?;
        assert!(!verify("evidence")?, "{} was changed", file.display());
        fs::write(file, &text)?;
        fs::rename(file, &aside)?;
        assert!(!verify("evidence")?, "{} is gone", file.display());
        fs::rename(&aside, file)?;
    }
    let of_another = folder.join("calls").join("I-999999.1.json");
    fs::rename(&call, &of_another)?;
    assert!(!verify("evidence")?, "it was asked under another intent");
    fs::rename(&of_another, &call)?;
    fs::copy(&call, &of_another)?;
    assert!(!verify("evidence")?, "it was asked once");
    fs::remove_file(&of_another)?;
    assert!(verify("evidence")?);

    // Who needn't know passwords gets the rest.
    let told = stage.gateway.json(&["incident", "helper", "--to", "less", "--without-texts", "--json"])?;
    assert_eq!(told["summary"]["refused"], 2, "{told}");
    assert_eq!(fs::read_dir(stage.gateway.folder().join("less/calls"))?.count(), 0);
    assert!(!fs::read_to_string(stage.gateway.folder().join("less/incident.html"))?.contains("hunter2"));
    assert!(verify("less")?);

    // What is gone from the vault is told, and the rest of the evidence is there.
    assert!(stage.gateway.cli(&["vault", "verify"])?.status.success());
    for event in stage.events("texts_kept")? {
        let object = event["object"].as_str().context("an object")?;
        for path in stage.objects()?.iter().filter(|path| path.ends_with(&object[2..])) {
            fs::remove_file(path)?;
        }
    }
    assert!(!stage.gateway.cli(&["vault", "verify"])?.status.success());
    let told = stage.gateway.json(&["incident", "helper", "--to", "rest", "--json"])?;
    assert!(told["exact_texts"]["unread"].as_array().is_some_and(|unread| !unread.is_empty()), "{told}");
    assert!(verify("rest")?);
    Ok(())
}
