//! Strict systems: a change becomes final only when what it replaced lies in the vault. Real program, real PostgreSQL, real kills, and
//! a vault that is away, slow, or all that is left.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use reprieve_testkit::{EnvironmentBudget, Gateway, GatewayOptions, GuardedSystem, Postgres};
use reprieve_tests::{connect, denied};
use rusqlite::Connection;
use serde_json::Value;

/// Nothing here takes as long; a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// A strict system whose agents may change all of it as long as that can be taken back.
struct Stage {
    gateway: Gateway,
    server: Postgres,
    /// The agent's.
    url: String,
}

impl Stage {
    fn open(settings: &str) -> Result<Stage> {
        Self::open_as(settings, true)
    }

    fn open_as(settings: &str, strict: bool) -> Result<Stage> {
        let server = Postgres::start()?;
        server.create_role("app", "secret", "")?;
        server.create_database("shop", "postgres")?;
        server.psql(
            "shop",
            "CREATE TABLE orders (id int PRIMARY KEY, note text);
             INSERT INTO orders SELECT n, 'note ' || n FROM generate_series(1, 1000) n;
             GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON orders TO app",
        )?;
        let mut system = GuardedSystem::new("shop", "production", &server.url("app", "secret", "shop"));
        system.admin_url = Some(server.superuser_url("shop"));
        system.strict = strict;
        let plenty = 1_000_000;
        let budget = EnvironmentBudget {
            environment: "production".to_owned(),
            rows_per_statement: plenty,
            rows_per_transaction: plenty,
            rows_per_hour: plenty,
            relations_dropped: 0,
        };
        let options = GatewayOptions {
            systems: vec![system],
            wait: "0s".to_owned(),
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

    fn state(&self) -> Result<String> {
        self.server.psql("shop", "SELECT o::text FROM orders o ORDER BY id")
    }

    fn events(&self, kind: &str) -> Result<Vec<Value>> {
        let events = self.gateway.events()?;
        Ok(events.into_iter().filter(|recorded| recorded["event"]["event"] == kind).collect())
    }

    fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}\n{}", self.gateway.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn vault(&self) -> PathBuf {
        self.gateway.folder().join("vault")
    }

    fn vault_files(&self) -> Result<usize> {
        let mut files = 0;
        for folder in fs::read_dir(self.vault().join("objects"))? {
            files += fs::read_dir(folder?.path())?.count();
        }
        Ok(files)
    }

    /// Changes as operators see them, once every outcome is recorded.
    fn changes(&self) -> Result<Vec<Value>> {
        Ok(self.gateway.json(&["undo", "list", "--json"])?["changes"].as_array().cloned().unwrap_or_default())
    }

    /// Nobody can append to the ledger until this is dropped, or for the few seconds that the gateway has patience.
    fn lock_the_ledger(&self) -> Result<Connection> {
        let connection = Connection::open(self.gateway.folder().join("reprieve.db"))?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        Ok(connection)
    }

    /// Changes something anew until that is final: an identical change would join the hold of the last one.
    async fn until_it_passes(&self, client: &tokio_postgres::Client) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for number in 0.. {
            match client.batch_execute(&format!("UPDATE orders SET note = 'try {number}' WHERE id = 900")).await {
                Ok(()) => break,
                Err(error) => ensure!(Instant::now() < deadline, "changes are still held: {error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// The server's process of the agent's open transaction.
    fn agents_process(&self) -> Result<String> {
        self.wait("an open transaction", || {
            let found =
                self.server.psql("postgres", "SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'")?;
            Ok((!found.is_empty()).then_some(found))
        })
    }

    /// Stops the process that brings the journal to the vault: what is there afterwards came before the COMMIT.
    fn stop_the_keeper(&self) -> Result<String> {
        let found = self.server.psql("postgres", "SELECT pid FROM pg_stat_activity WHERE application_name = 'reprieve: keeper'")?;
        signal("-STOP", &found)?;
        Ok(found)
    }
}

fn signal(name: &str, process: &str) -> Result<()> {
    let status = Command::new("kill").args([name, process]).status().context("cannot run `kill`")?;
    ensure!(status.success(), "process {process} got no {name}");
    Ok(())
}

fn ids(rows: &str) -> Vec<String> {
    let befores = rows.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    befores.filter_map(|row| row["before"].as_str().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_change_replaced_is_in_the_vault_before_it_is_final() -> Result<()> {
    let stage = Stage::open("")?;
    let before = stage.state()?;
    let mut client = connect(&stage.url).await?;
    client.batch_execute("DELETE FROM orders WHERE id <= 3").await.with_context(|| stage.gateway.log())?;
    client.execute("UPDATE orders SET note = $1 WHERE id BETWEEN 10 AND 12", &[&"tab\t and \\"]).await?;
    let work = client.transaction().await?;
    work.execute("DELETE FROM orders WHERE id = $1", &[&20]).await?;
    work.batch_execute("SAVEPOINT a; DELETE FROM orders WHERE id = 21; ROLLBACK TO a; INSERT INTO orders VALUES (2000, NULL)").await?;
    work.commit().await?;
    client.batch_execute("BEGIN; UPDATE orders SET note = 'simple' WHERE id = 30; COMMIT; SELECT 1").await?;
    client.batch_execute("TRUNCATE orders").await.expect_err("held: it empties a table");
    let done = stage.wait("four outcomes", || {
        let done = stage.events("concluded")?.into_iter().filter(|event| event["event"]["outcome"] == "done").collect::<Vec<_>>();
        Ok((done.len() == 4).then_some(done))
    })?;
    let secured = stage.events("images_secured")?;
    for change in &done {
        let xid = &change["event"]["xid"];
        let found = secured.iter().find(|event| event["event"]["transactions"].as_array().is_some_and(|all| all.contains(xid)));
        let found = found.with_context(|| format!("the images of {xid} in {secured:?}"))?;
        assert!(found["index"].as_u64() < change["index"].as_u64(), "{found} comes before {change}");
    }
    assert_eq!(secured.iter().filter_map(|event| event["event"]["rows"].as_u64()).sum::<u64>(), 3 + 3 + 2 + 1);
    // Once the keeper has stored them for good, these are removed.
    stage.wait("they are removed", || {
        let purged =
            stage.events("secured_purged")?.iter().filter_map(|event| event["event"]["objects"].as_array().map(Vec::len)).sum::<usize>();
        Ok((purged == secured.len()).then_some(()))
    })?;
    assert_eq!(stage.gateway.json(&["vault", "verify", "--json"])?["ok"], true);
    stage.gateway.operate(&["undo", "apply", "--agent", "helper", "--since", "1h", "--reason", "a test"])?;
    assert_eq!(stage.state()?, before);
    stage.gateway.verify()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_vault_is_away_nothing_becomes_final_that_nobody_approved() -> Result<()> {
    let stage = Stage::open("")?;
    let before = stage.state()?;
    let client = connect(&stage.url).await?;
    client.batch_execute("BEGIN; DELETE FROM orders WHERE id <= 10").await?;
    let elsewhere = stage.gateway.folder().join("elsewhere");
    fs::rename(stage.vault(), &elsewhere)?;
    let told = denied(client.simple_query("COMMIT").await)?;
    ensure!(["RPU01", "RPH01"].contains(&told.code.as_str()), "{told:?}");
    assert_eq!(stage.state()?, before);
    // An empty folder in its place is not the vault, whoever puts something there.
    fs::create_dir_all(stage.vault().join("objects"))?;
    fs::create_dir_all(stage.vault().join("tmp"))?;
    let sql = "DELETE FROM orders WHERE id = 500";
    let hold = stage.wait("it is held", || {
        let told =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(async { denied(client.simple_query(sql).await) }))?;
        Ok(if told.code == "RPH01" { told.hold } else { None })
    })?;
    assert_eq!(stage.state()?, before);
    let lasting = stage.gateway.hold(&hold)?["reach"]["lasting"].to_string();
    assert!(lasting.contains("vault"), "{lasting}");
    // A person is told that there is no way back, and may want it all the same.
    stage.gateway.approve_as_asked(&hold)?;
    stage.gateway.wait_for_status(&hold, "finished")?;
    assert_eq!(stage.state()?.lines().count(), 999);
    fs::remove_dir_all(stage.vault())?;
    fs::rename(&elsewhere, stage.vault())?;
    stage.until_it_passes(&client).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_does_not_wait_for_ever() -> Result<()> {
    let stage = Stage::open("[undo]\nstrict_wait = \"1s\"\n")?;
    let before = stage.state()?;
    let client = connect(&stage.url).await?;
    client.batch_execute("BEGIN; DELETE FROM orders WHERE id <= 10").await?;
    stage.wait("its intent is recorded", || Ok((!stage.events("intent")?.is_empty()).then_some(())))?;
    let lock = stage.lock_the_ledger()?;
    let told = denied(client.simple_query("COMMIT").await)?;
    drop(lock);
    ensure!(told.code == "RPU01" && told.message.contains("within 1 s"), "{told:?}");
    assert_eq!(stage.state()?, before);
    client.batch_execute("DELETE FROM orders WHERE id = 1").await?;
    assert_eq!(stage.state()?.lines().count(), 999);
    stage.gateway.verify()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_killed_between_the_vault_and_the_commit_has_changed_nothing() -> Result<()> {
    let mut stage = Stage::open("")?;
    let before = stage.state()?;
    let client = Arc::new(connect(&stage.url).await?);
    client.batch_execute("BEGIN; DELETE FROM orders WHERE id <= 10").await?;
    stage.wait("its intent is recorded", || Ok((!stage.events("intent")?.is_empty()).then_some(())))?;
    let files = stage.vault_files()?;
    let lock = stage.lock_the_ledger()?;
    let committing = tokio::spawn({
        let client = client.clone();
        async move { client.simple_query("COMMIT").await.is_ok() }
    });
    stage.wait("its images are in the vault", || Ok((stage.vault_files()? > files).then_some(())))?;
    stage.gateway.kill_now()?;
    drop(lock);
    assert!(!committing.await?);
    stage.gateway.restart()?;
    assert_eq!(stage.state()?, before);
    assert_eq!(stage.changes()?.iter().filter(|change| change["standing"] == "undoable").count(), 0);
    assert_eq!(stage.gateway.json(&["vault", "verify", "--json"])?["ok"], true);
    stage.gateway.verify()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_images_of_what_never_became_final_are_offered_to_nobody() -> Result<()> {
    let mut stage = Stage::open("")?;
    let before = stage.state()?;
    let client = Arc::new(connect(&stage.url).await?);
    client.batch_execute("BEGIN; DELETE FROM orders WHERE id <= 10").await?;
    stage.wait("its intent is recorded", || Ok((!stage.events("intent")?.is_empty()).then_some(())))?;
    let process = stage.agents_process()?;
    let files = stage.vault_files()?;
    let lock = stage.lock_the_ledger()?;
    let committing = tokio::spawn({
        let client = client.clone();
        async move { client.simple_query("COMMIT").await.is_ok() }
    });
    stage.wait("its images are in the vault", || Ok((stage.vault_files()? > files).then_some(())))?;
    // The COMMIT may be sent now, and is not read.
    signal("-STOP", &process)?;
    drop(lock);
    stage.wait("they are recorded", || Ok((!stage.events("images_secured")?.is_empty()).then_some(())))?;
    stage.gateway.kill_now()?;
    assert!(!committing.await?);
    signal("-KILL", &process)?;
    stage.wait("the server has recovered", || Ok(stage.server.psql("shop", "SELECT 1").ok()))?;
    stage.gateway.restart()?;
    assert_eq!(stage.state()?, before);
    // A number of a transaction that nothing of reached the disk is given out once more.
    stage.server.psql("shop", "CREATE TABLE other (id int); DROP TABLE other")?;
    stage.server.psql("shop", "CREATE TABLE other (id int)")?;
    stage.wait("they are removed", || Ok((!stage.events("secured_purged")?.is_empty()).then_some(())))?;
    assert_eq!(stage.changes()?.iter().filter(|change| change["standing"] == "undoable").count(), 0);
    assert_eq!(stage.gateway.json(&["vault", "verify", "--json"])?["ok"], true);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_server_leaves_what_was_replaced_in_the_vault() -> Result<()> {
    let mut stage = Stage::open("")?;
    let keeper = stage.stop_the_keeper()?;
    let client = connect(&stage.url).await?;
    client.batch_execute("DELETE FROM orders WHERE id <= 3").await?;
    // All of the server, a moment after the COMMIT. A process that stands still does not notice, and would stay.
    stage.server.kill_now()?;
    signal("-KILL", &keeper)?;
    fs::remove_dir_all(data_folder(&stage.server)?)?;
    let list = stage.gateway.json(&["vault", "ls", "--json"])?;
    assert_eq!((list["before_final"][0]["rows"].as_u64(), list["recorded"].as_u64()), (Some(3), Some(0)), "{list}");
    let concluded = stage.wait("its outcome", || Ok(stage.events("concluded")?.pop()))?;
    let id = format!("U-{}", concluded["event"]["intent"]);
    let output = stage.gateway.cli(&["vault", "export", &id])?;
    let rows = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{rows}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(ids(&rows), ["(1,\"note 1\")", "(2,\"note 2\")", "(3,\"note 3\")"], "{rows}");
    assert!(rows.contains("public.orders"), "{rows}");
    Ok(())
}

fn data_folder(server: &Postgres) -> Result<PathBuf> {
    let found = server.socket_folder().ancestors().take(3).map(|folder| folder.join("data")).find(|folder| folder.is_dir());
    found.context("the server's data")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_the_vault_in_time_is_held() -> Result<()> {
    let stage = Stage::open("[undo]\nstrict_bytes = \"64KiB\"\n")?;
    let before = stage.state()?;
    let client = connect(&stage.url).await?;
    let sql = "UPDATE orders SET note = repeat('x', 1000) WHERE id <= 100";
    let told = denied(client.simple_query(sql).await)?;
    ensure!(told.code == "RPH01", "{told:?}");
    assert_eq!(stage.state()?, before);
    let hold = told.hold.context("a hold")?;
    let lasting = stage.gateway.hold(&hold)?["reach"]["lasting"].to_string();
    assert!(lasting.contains("too large"), "{lasting}");
    stage.gateway.approve_as_asked(&hold)?;
    stage.gateway.wait_for_status(&hold, "finished")?;
    ensure!(stage.state()? != before, "it was approved");
    // Half of it fits.
    client.batch_execute("UPDATE orders SET note = 'small' WHERE id BETWEEN 200 AND 250").await?;
    Ok(())
}

/// Whoever may delete a row may not read it by that, nor what goes along with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_do_not_read_what_they_replace_by_the_way_of_the_vault() -> Result<()> {
    let stage = Stage::open("")?;
    let app = stage.server.url("app", "secret", "shop");
    let images = |ticket: &str| format!("BEGIN; DELETE FROM orders WHERE id = 1; SELECT count(*) FROM reprieve.images('{ticket}', 100000)");
    let ticket = |xid: &str| {
        let text =
            format!("SELECT encode(sha256(convert_to(concat(s.secret, ':', {xid}, ':', s.secret), 'UTF8')), 'hex') FROM reprieve.seal s");
        stage.server.psql("shop", &text)
    };
    // The ticket of the last transaction, as `pg_stat_activity` shows it to whoever has the same role.
    let last = ticket("pg_current_xact_id()::text::int8 - 1")?;
    for wrong in ["", "x", last.as_str()] {
        let said = stage.server.psql_at(&app, &images(wrong)).expect_err("refused").to_string();
        assert!(format!("{said:#}").contains("not for its session to read"), "{wrong:?}: {said}");
    }
    let said = stage.server.psql_at(&app, "SELECT secret FROM reprieve.seal").expect_err("refused");
    assert!(format!("{said:#}").contains("permission denied"), "{said:#}");
    // Through the gateway it is no other: the transaction fails.
    let client = connect(&stage.url).await?;
    client.batch_execute(&images("x")).await.expect_err("refused");
    drop(client);
    // An agents' role that may read the secret is trusted with nothing.
    stage.server.psql("shop", "GRANT SELECT ON reprieve.seal TO app; CREATE TABLE something (id int)")?;
    let client = connect(&stage.url).await?;
    stage.wait("changes are held", || {
        let told = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(client.simple_query("UPDATE orders SET note = note || '.' WHERE id = 7"))
        });
        Ok(match told {
            Ok(_) => None,
            Err(error) => Some(denied(Err(error))?).filter(|told| told.code == "RPH01").map(drop),
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_check_says_what_strict_costs_and_what_is_missing() -> Result<()> {
    let stage = Stage::open("")?;
    let said = |gateway: &Gateway| -> Result<String> {
        let findings = gateway.json(&["protect", "shop", "--check", "--json"])?["findings"].as_array().cloned().unwrap_or_default();
        let strict = findings.iter().find(|finding| finding["subject"] == "strict").context("a finding")?;
        Ok(strict["text"].as_str().unwrap_or_default().to_owned())
    };
    assert!(said(&stage.gateway)?.contains(" ms now"), "{}", said(&stage.gateway)?);
    stage.server.psql("shop", "DROP FUNCTION reprieve.images")?;
    assert!(said(&stage.gateway)?.contains("--apply"), "{}", said(&stage.gateway)?);
    let client = connect(&stage.url).await?;
    let told = denied(client.simple_query("DELETE FROM orders WHERE id = 1").await)?;
    ensure!(["RPU01", "RPH01"].contains(&told.code.as_str()), "{told:?}");
    stage.gateway.json(&["protect", "shop", "--apply", "--json"])?;
    stage.until_it_passes(&client).await
}

/// Prints how long changes of one row take, one session and eight, without and with waiting for the vault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: cargo nextest run -p reprieve-tests --test strict --run-ignored only --no-capture"]
async fn what_strict_costs() -> Result<()> {
    const ROUNDS: usize = 100;
    for strict in [false, true, false, true] {
        let stage = Stage::open_as("", strict)?;
        for sessions in [1usize, 8] {
            let began = Instant::now();
            let mut running = Vec::new();
            for session in 0..sessions {
                let client = connect(&stage.url).await?;
                running.push(tokio::spawn(async move {
                    let mut times = Vec::new();
                    for round in 0..ROUNDS {
                        let began = Instant::now();
                        client.execute(&format!("UPDATE orders SET note = 'round {round}' WHERE id = {}", 1 + session), &[]).await?;
                        times.push(began.elapsed());
                    }
                    anyhow::Ok(times)
                }));
            }
            let mut times = Vec::new();
            for session in running {
                times.extend(session.await??);
            }
            times.sort_unstable();
            let each = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1_000.0;
            let rate = times.len() as f64 / began.elapsed().as_secs_f64();
            eprintln!("strict {strict}, {sessions} sessions: p50 {:.1} ms, p99 {:.1} ms, {rate:.0} changes a second", each(50), each(99));
        }
    }
    Ok(())
}
