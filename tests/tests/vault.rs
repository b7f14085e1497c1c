//! The vault behind undo: rows leave the database's reach within seconds, come back from there, and no crash of anybody loses them.
//! Real program, real PostgreSQL, real kills.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use reprieve_testkit::{EnvironmentBudget, Gateway, GatewayOptions, GuardedSystem, Postgres};
use reprieve_tests::{connect, denied};
use serde_json::Value;

/// Nothing here takes as long; a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// A database with a journal, and a gateway whose agents may change all of it as long as that can be taken back.
struct Stage {
    gateway: Gateway,
    server: Postgres,
    /// The agent's.
    url: String,
}

impl Stage {
    fn open(settings: &str) -> Result<Stage> {
        let server = Postgres::start()?;
        server.create_role("app", "secret", "")?;
        server.create_database("shop", "postgres")?;
        server.psql(
            "shop",
            "CREATE TABLE orders (id int PRIMARY KEY, note text);
             INSERT INTO orders SELECT n, 'note ' || n FROM generate_series(1, 1000) n;
             CREATE TABLE log (at timestamptz DEFAULT now(), line text);
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app",
        )?;
        let mut system = GuardedSystem::new("shop", "production", &server.url("app", "secret", "shop"));
        system.admin_url = Some(server.superuser_url("shop"));
        let plenty = 1_000_000_000;
        let budget = EnvironmentBudget {
            environment: "production".to_owned(),
            rows_per_statement: plenty,
            rows_per_transaction: plenty,
            rows_per_hour: plenty,
            relations_dropped: 0,
        };
        let options = GatewayOptions {
            systems: vec![system],
            budgets: vec![budget],
            rows_without_undo: 0,
            settings: settings.to_owned(),
            ..GatewayOptions::default()
        };
        let mut gateway = Gateway::start(options)?;
        gateway.json(&["protect", "shop", "--apply", "--json"])?;
        // It would notice by itself, within a second or so.
        gateway.restart()?;
        let url = gateway.agent("helper", &["shop"], "read,write,destroy")?;
        Ok(Stage { gateway, server, url })
    }

    /// What the agent does.
    async fn change(&self, sql: &str) -> Result<()> {
        let client = connect(&self.url).await?;
        client.batch_execute(sql).await.with_context(|| format!("{sql}\n{}", self.gateway.log()))
    }

    /// Every row there is.
    fn state(&self) -> Result<String> {
        self.server.psql("shop", "SELECT o::text FROM orders o ORDER BY id; SELECT l::text FROM log l ORDER BY l::text")
    }

    /// Every row is as it was.
    fn is_as(&self, before: &str) -> Result<()> {
        let now = self.state()?;
        let differs = now.lines().zip(before.lines()).find(|(now, before)| now != before);
        ensure!(now == before, "{} rows now, {} before; the first that differs: {differs:?}", now.lines().count(), before.lines().count());
        Ok(())
    }

    fn events(&self, kind: &str) -> Result<Vec<Value>> {
        let events = self.gateway.events()?;
        Ok(events.into_iter().map(|recorded| recorded["event"].clone()).filter(|event| event["event"] == kind).collect())
    }

    /// Waits until something is so.
    fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}\n{}", self.gateway.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until `rows` rows are in the vault, and takes away what is in the database. Exactly so many: none twice.
    fn lose_the_journal(&self, rows: u64) -> Result<()> {
        self.wait(&format!("{rows} rows are in the vault"), || {
            let stored = self.events("images_stored")?.iter().map(|event| event["rows"].as_u64().unwrap_or(0)).sum::<u64>();
            ensure!(stored <= rows, "{stored} rows are in the vault, and only {rows} were changed");
            Ok((stored == rows).then_some(()))
        })?;
        self.server.psql("shop", "TRUNCATE reprieve.journal").map(drop)
    }

    fn journal_rows(&self) -> Result<u64> {
        Ok(self.server.psql("shop", "SELECT count(*) FROM reprieve.journal")?.parse()?)
    }

    /// Takes back everything that the agent did.
    fn undo_all(&self) -> Result<Value> {
        // An outcome is recorded a moment after its client hears of it.
        self.wait("every outcome is recorded", || Ok((self.events("intent")?.len() <= self.events("concluded")?.len()).then_some(())))?;
        self.wait("what a crash left open is settled", || {
            let unknown = self.events("concluded")?.iter().filter(|event| event["outcome"] == "unknown").count();
            Ok((unknown <= self.events("settled")?.len()).then_some(()))
        })?;
        self.gateway.operate(&["undo", "apply", "--agent", "helper", "--since", "1h", "--reason", "a test"])
    }

    fn vault(&self) -> PathBuf {
        self.gateway.folder().join("vault")
    }

    fn vault_files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for folder in fs::read_dir(self.vault().join("objects"))? {
            for file in fs::read_dir(folder?.path())? {
                files.push(file?.path());
            }
        }
        Ok(files)
    }

    /// A change that nobody tried before: an identical one would join its hold.
    fn fresh_change() -> String {
        static TRIED: AtomicU32 = AtomicU32::new(0);
        format!("UPDATE orders SET note = 'try {}' WHERE id = 1000", TRIED.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits until a change is held because of this.
    fn wait_until_held(&self, because: &str) -> Result<()> {
        let runtime = tokio::runtime::Handle::current();
        self.wait(&format!("changes are held: {because}"), || {
            tokio::task::block_in_place(|| {
                runtime.block_on(async {
                    let client = connect(&self.url).await?;
                    match client.simple_query(&Self::fresh_change()).await {
                        Ok(_) => Ok(None),
                        Err(error) => {
                            let told = denied(Err(error))?;
                            ensure!(told.code == "RPH01", "{told:?}");
                            let hold = self.gateway.hold(&told.hold.context("a hold")?)?;
                            let lasting = hold["reach"]["lasting"].to_string();
                            Ok(lasting.contains(because).then_some(()))
                        }
                    }
                })
            })
        })
    }

    async fn wait_until_it_passes(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.change(&Self::fresh_change()).await {
            ensure!(Instant::now() < deadline, "changes are still held: {error:#}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_back_from_the_vault() -> Result<()> {
    let stage = Stage::open("")?;
    let before = stage.state()?;
    stage.change("DELETE FROM orders WHERE id <= 10").await?;
    stage
        .change("BEGIN; UPDATE orders SET note = E'a\\tb\\\\\\n' WHERE id BETWEEN 11 AND 15; INSERT INTO log (line) VALUES (NULL); COMMIT")
        .await?;
    stage.lose_the_journal(16)?;
    let shown = stage.gateway.json(&["undo", "list", "--json"])?;
    let id = shown["changes"][0]["id"].as_str().context("an id")?;
    let shown = stage.gateway.json(&["undo", "show", id, "--diff", "--json"])?;
    assert_eq!((shown["rows"].as_array().map(Vec::len), &shown["plan"]["possible"]), (Some(6), &Value::Bool(true)), "{shown}");
    // One change from the vault beside one from the journal.
    stage.change("UPDATE orders SET note = 'journal' WHERE id = 16").await?;
    stage.undo_all()?;
    stage.is_as(&before)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_loses_nothing_and_stores_nothing_twice() -> Result<()> {
    let mut stage = Stage::open("")?;
    let before = stage.state()?;
    let mut rows = 0;
    for round in 0..4 {
        for step in 0..=round {
            let first = 1 + round * 100 + step * 10;
            stage.change(&format!("DELETE FROM orders WHERE id BETWEEN {first} AND {}", first + 9)).await?;
            rows += 10;
            // Some kills come before a look at the journal, some after one, some in the middle.
            std::thread::sleep(Duration::from_millis(300 * round));
        }
        stage.gateway.kill_now()?;
        stage.gateway.restart()?;
    }
    stage.lose_the_journal(rows)?;
    stage.undo_all()?;
    stage.is_as(&before)?;
    Ok(())
}

/// Six sessions change rows as fast as they can while the gateway is killed: each has at most one change whose outcome was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sessions_did_when_the_gateway_was_killed_comes_back() -> Result<()> {
    let mut stage = Stage::open("")?;
    let before = stage.state()?;
    for round in 0..3 {
        let mut sessions = Vec::new();
        for number in 0..6 {
            let client = connect(&stage.url).await?;
            sessions.push(tokio::spawn(async move {
                for step in 0.. {
                    let text = format!("UPDATE orders SET note = '{round} {step}' WHERE id = {} + {step} % 50", 1 + number * 100);
                    if client.batch_execute(&text).await.is_err() {
                        break;
                    }
                }
            }));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        stage.gateway.kill_now()?;
        for session in sessions {
            session.await?;
        }
        stage.gateway.restart()?;
    }
    ensure!(stage.state()? != before, "nothing was tried");
    stage.undo_all()?;
    stage.is_as(&before)?;
    let reached = stage.events("settled")?.iter().filter(|event| event["xid"].is_u64()).count();
    eprintln!("{reached} lost outcomes were found in the journal");
    stage.gateway.verify()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_database_loses_nothing() -> Result<()> {
    let mut stage = Stage::open("")?;
    let before = stage.state()?;
    stage.change("DELETE FROM orders WHERE id <= 10").await?;
    stage.server.kill_now()?;
    stage.server.resume()?;
    stage.wait_until_it_passes().await?;
    stage.lose_the_journal(11)?;
    stage.undo_all()?;
    stage.is_as(&before)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_is_away_holds_changes_until_it_is_back() -> Result<()> {
    let mut stage = Stage::open("")?;
    let before = stage.state()?;
    stage.change("DELETE FROM orders WHERE id <= 10").await?;
    let elsewhere = stage.gateway.folder().join("elsewhere");
    fs::rename(stage.vault(), &elsewhere)?;
    stage.wait_until_held("the vault is away")?;
    stage.wait("one alarm", || Ok((stage.events("alarm")?.len() == 1).then_some(())))?;
    // An empty folder in its place is not the vault.
    fs::create_dir_all(stage.vault().join("objects"))?;
    fs::create_dir_all(stage.vault().join("tmp"))?;
    stage.wait_until_held("the vault is away")?;
    // A start doesn't need it either.
    fs::remove_dir_all(stage.vault())?;
    fs::rename(&elsewhere, stage.vault())?;
    stage.wait_until_it_passes().await?;
    // The wrong key is no key.
    let key = stage.gateway.folder().join("keys/vault.key");
    let right = fs::read(&key)?;
    fs::remove_file(&key)?;
    stage.gateway.restart()?;
    stage.wait_until_held("another key")?;
    fs::write(&key, right)?;
    stage.gateway.restart()?;
    stage.wait_until_it_passes().await?;
    let rows = stage.journal_rows()?;
    stage.lose_the_journal(rows)?;
    stage.undo_all()?;
    stage.is_as(&before)?;
    stage.gateway.verify()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_vault_holds_changes() -> Result<()> {
    let stage = Stage::open("[vault]\nmax_bytes = \"64KiB\"\n")?;
    let before = stage.state()?;
    // Random text can't be packed far.
    let text = "string_agg(md5(random()::text), '') FROM generate_series(1, 20000)";
    stage.change(&format!("INSERT INTO log (line) SELECT {text}")).await?;
    stage.wait_until_held("the vault is full")?;
    stage.undo_all()?;
    stage.is_as(&before)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_change_goes_in_several_objects() -> Result<()> {
    let stage = Stage::open("[undo]\nlag = \"10m\"\n")?;
    let before = stage.state()?;
    stage.change("INSERT INTO log (line) SELECT repeat('0123456789', 60) || n FROM generate_series(1, 120000) n").await?;
    stage.lose_the_journal(120_000)?;
    let events = stage.events("images_stored")?;
    let parts: Vec<(u64, bool)> =
        events.iter().map(|event| (event["part"].as_u64().unwrap_or(99), event["position"].is_string())).collect();
    assert_eq!(parts, [(0, false), (1, false), (2, true)], "{events:?}");
    stage.undo_all()?;
    stage.is_as(&before)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_is_gone_and_recorded() -> Result<()> {
    let stage = Stage::open("[undo]\nwindow = \"5s\"\n")?;
    stage.change("DELETE FROM orders WHERE id <= 10").await?;
    let purged = stage.wait("a purge", || Ok(stage.events("images_purged")?.pop()))?;
    assert_eq!(purged["objects"], 1);
    stage.wait("what remains is what the definitions are now", || {
        // The ledger's own heads lie there too.
        let named = |file: &PathBuf| {
            let folder = file.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
            folder.unwrap_or_default() + &file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let there: Vec<String> = stage.vault_files()?.iter().map(named).collect();
        let objects = |kind: &str| -> Result<Vec<String>> {
            Ok(stage.events(kind)?.iter().filter_map(|event| event["object"].as_str().map(str::to_owned)).collect())
        };
        let (images, taken) = (objects("images_stored")?, objects("definitions_taken")?);
        let now = taken.last().context("definitions")?;
        let is_over = |object: &String| object == now || !there.contains(object);
        Ok((!images.is_empty() && there.contains(now) && images.iter().chain(&taken).all(is_over)).then_some(()))
    })?;
    let purged = stage.events("definitions_purged")?;
    assert!(purged.iter().all(|event| event["objects"].as_u64() > Some(0)), "{purged:?}");
    stage.wait("the journal is empty", || Ok((stage.journal_rows()? == 0).then_some(())))?;
    assert!(stage.undo_all().is_err(), "nothing can be undone any more");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_of_somebody_else_is_not_read() -> Result<()> {
    let stage = Stage::open("")?;
    stage.gateway.json(&["protect", "shop", "--remove", "--json"])?;
    // Read by an administrator, its function would run with an administrator's rights.
    stage.server.psql(
        "shop",
        "CREATE TABLE ran (who text); GRANT ALL ON ran TO app; GRANT CREATE ON DATABASE shop TO app; SET SESSION AUTHORIZATION app;
         CREATE SCHEMA reprieve;
         CREATE FUNCTION reprieve.trap() RETURNS xid8 LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ran VALUES (current_user); RETURN '9'::xid8; END $$;
         CREATE VIEW reprieve.journal AS SELECT reprieve.trap() AS xid, 1::int8 AS statement, 1::oid AS relation, 'x' AS old, 'y' AS new",
    )?;
    stage.wait("the keeper complains", || Ok(stage.gateway.log().contains("is not the one that this login").then_some(())))?;
    assert_eq!(stage.server.psql("shop", "SELECT count(*) FROM ran")?, "0");
    assert_eq!(stage.events("images_stored")?.len(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_beyond_its_bound_is_emptied_into_the_vault() -> Result<()> {
    let stage = Stage::open("[undo]\njournal_bytes = \"256KiB\"\n")?;
    let before = stage.state()?;
    stage.change("INSERT INTO log (line) SELECT repeat('0123456789', 60) || n FROM generate_series(1, 1000) n").await?;
    stage.change("DELETE FROM orders WHERE id <= 10").await?;
    stage.wait("the journal is empty", || Ok((stage.journal_rows()? == 0).then_some(())))?;
    stage.undo_all()?;
    stage.is_as(&before)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vault_is_listed_and_verified() -> Result<()> {
    let stage = Stage::open("")?;
    stage.change("DELETE FROM orders WHERE id <= 10").await?;
    stage.wait("its record", || Ok((stage.events("images_stored")?.len() == 1).then_some(())))?;
    let listed = stage.gateway.json(&["vault", "ls", "--json"])?;
    assert_eq!((&listed["objects"][0]["system"], &listed["objects"][0]["rows"]), (&"shop".into(), &10.into()), "{listed}");
    assert_eq!(listed["definitions"][0]["system"], "shop", "{listed}");
    assert_eq!(stage.gateway.json(&["vault", "verify", "--json"])?["ok"], true);
    assert_eq!(stage.gateway.json(&["check", "--json"])?["vault"]["objects"], stage.vault_files()?.len());
    for kind in ["objects", "definitions"] {
        let digest = listed[kind][0]["object"].as_str().context("a digest")?;
        let named = |file: &&PathBuf| file.file_name().is_some_and(|name| digest.ends_with(&*name.to_string_lossy()));
        let object = stage.vault_files()?.iter().find(named).context("its file")?.clone();
        damage_and_remove(&stage, &object)?;
    }
    Ok(())
}

/// Whatever happens to an object is found; it is put back afterwards.
fn damage_and_remove(stage: &Stage, object: &Path) -> Result<()> {
    let right = fs::read(object)?;
    let mut bytes = right.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(object, bytes)?;
    assert!(stage.gateway.json(&["vault", "verify", "--json"]).is_err(), "one changed bit is found");
    fs::remove_file(object)?;
    assert!(stage.gateway.json(&["vault", "verify", "--json"]).is_err(), "a missing object is found");
    fs::write(object, right)?;
    assert_eq!(stage.gateway.json(&["vault", "verify", "--json"])?["ok"], true);
    Ok(())
}

fn signal(name: &str, process: &str) -> Result<()> {
    let status = std::process::Command::new("kill").args([name, process]).status().context("cannot run `kill`")?;
    ensure!(status.success(), "process {process} got no {name}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keeper_that_falls_behind_warns_and_then_holds_changes() -> Result<()> {
    let stage = Stage::open("[undo]\nlag = \"6s\"\n")?;
    let keeper = stage.server.psql("postgres", "SELECT pid FROM pg_stat_activity WHERE application_name = 'reprieve: keeper'")?;
    let said = |words: &str| -> Result<Option<u64>> {
        let alarms = stage.gateway.events()?.into_iter().filter(|recorded| recorded["event"]["event"] == "alarm");
        let mut found = alarms.filter(|alarm| alarm["event"]["what"].as_str().is_some_and(|what| what.contains(words)));
        Ok(found.next().and_then(|alarm| alarm["index"].as_u64()))
    };
    stage.change("DELETE FROM orders WHERE id = 1").await?;
    signal("-STOP", &keeper)?;
    let early = stage.wait("a warning", || said("held soon: rows have not reached the vault"))?;
    stage.wait_until_held("rows do not reach the vault")?;
    let late = stage.wait("an alarm", || said("so they are held: rows do not reach the vault"))?;
    assert!(early < late, "the warning comes first");
    signal("-CONT", &keeper)?;
    stage.wait_until_it_passes().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_can_not_be_emptied_holds_changes_before_it_fills_the_disk() -> Result<()> {
    let stage = Stage::open("[undo]\njournal_bytes = \"256KiB\"\n")?;
    let before = stage.state()?;
    // Somebody looks at it and doesn't end: it can't be truncated, and its rows can't be taken away.
    let reader = connect(&stage.server.superuser_url("shop")).await?;
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM reprieve.journal").await?;
    stage.change("INSERT INTO log (line) SELECT repeat('0123456789', 60) || n FROM generate_series(1, 2000) n").await?;
    stage.wait_until_held("the journal has outgrown its bound")?;
    stage.wait("an alarm", || {
        let alarms = stage.events("alarm")?;
        Ok(alarms.iter().any(|alarm| alarm["what"].as_str().is_some_and(|what| what.contains("above its bound"))).then_some(()))
    })?;
    reader.batch_execute("COMMIT").await?;
    stage.wait_until_it_passes().await?;
    // What just passed may be in it again.
    assert!(stage.journal_rows()? < 100, "it was emptied");
    stage.undo_all()?;
    stage.is_as(&before)
}
