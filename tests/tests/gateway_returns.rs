//! The gateway itself is lost and comes back, and a ledger that knows less than its vault is not served. Real program, real vault.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use reprieve_testkit::{Gateway, GatewayOptions, GuardedSystem, Postgres};
use serde_json::Value;

struct Stage {
    // First: it stops before the server.
    gateway: Gateway,
    server: Postgres,
    agent: String,
}

impl Stage {
    fn open() -> Result<Stage> {
        let server = Postgres::start()?;
        server.create_database("shop", "postgres")?;
        server.create_role("app", "secret", "")?;
        server.psql("shop", "CREATE TABLE notes (n int); GRANT SELECT, INSERT ON notes TO app")?;
        let mut system = GuardedSystem::new("shop", "production", &server.url("app", "secret", "shop"));
        system.admin_url = Some(server.superuser_url("shop"));
        let gateway = Gateway::start(GatewayOptions { systems: vec![system], ..GatewayOptions::default() })?;
        let agent = gateway.agent("helper", &["shop"], "read,write")?;
        Ok(Stage { gateway, server, agent })
    }

    fn note(&self, n: u32) -> Result<String> {
        self.server.psql_at(&self.agent, &format!("INSERT INTO notes VALUES ({n})"))
    }

    /// The program does not serve, for a reason.
    fn refuses(&mut self, why: &str) -> Result<()> {
        match self.gateway.restart() {
            Ok(()) => anyhow::bail!("it serves"),
            Err(error) => ensure!(format!("{error:#}").contains(why), "another reason: {error:#}"),
        }
        self.gateway.stop()
    }

    fn fails(&self, arguments: &[&str], why: &str) -> Result<()> {
        let output = self.gateway.cli(arguments)?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
        Ok(())
    }

    fn keep(&self, to: &Path) -> Result<()> {
        copy(&self.gateway.folder().join("reprieve.db"), &to.join("reprieve.db"))?;
        copy(&self.gateway.folder().join("reprieve.head"), &to.join("reprieve.head"))
    }

    fn put_back(&self, from: &Path) -> Result<()> {
        for name in ["reprieve.db-wal", "reprieve.db-shm"] {
            let _there_or_not = fs::remove_file(self.gateway.folder().join(name));
        }
        for name in ["reprieve.db", "reprieve.head"] {
            copy(&from.join(name), &self.gateway.folder().join(name))?;
        }
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
}

#[test]
fn a_lost_gateway_comes_back_frozen_and_says_what_it_lost() -> Result<()> {
    let mut stage = Stage::open()?;
    let folder = stage.gateway.folder().to_owned();
    let elsewhere = tempfile::tempdir()?;
    let kit = elsewhere.path().join("kit.toml");
    stage.note(1)?;
    let output = stage.gateway.cli(&["recovery", "kit"])?;
    ensure!(output.status.success(), "{output:?}");
    fs::write(&kit, &output.stdout)?;
    let copied = stage.gateway.json(&["backup", "gateway", "--json"])?;
    let copied = copied["events"].as_u64().context("events")?;
    // What happens after the copy is lost, and the vault knows that there was something: the head is put there when it stops.
    stage.note(2)?;
    stage.gateway.stop()?;
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        match (entry.file_name() == "vault", entry.file_type()?.is_dir()) {
            (true, _) => {}
            (false, true) => fs::remove_dir_all(entry.path())?,
            (false, false) => fs::remove_file(entry.path())?,
        }
    }
    let kit_file = kit.to_str().context("a path")?;
    // A kit of another gateway opens nothing.
    let other = elsewhere.path().join("other.toml");
    let text = fs::read_to_string(&kit)?;
    let line = text.lines().find(|line| line.starts_with("copies")).context("a key")?;
    let key = text.lines().find(|line| line.starts_with("ledger")).context("a key")?;
    fs::write(&other, text.replace(line, &key.replacen("ledger", "copies", 1)))?;
    stage
        .fails(&["recovery", "gateway", "--kit", other.to_str().context("a path")?, "--to", "none"], "there is no copy of this gateway")?;
    stage.fails(&["recovery", "gateway", "--kit", kit_file, "--to", "vault"], "not empty")?;

    let back = stage.gateway.json(&["recovery", "gateway", "--kit", kit_file, "--to", "back", "--json"])?;
    let lost = back["lost"].as_u64().context("a number")?;
    assert!(lost > 0 && back["events"] == copied, "{back}");
    for entry in fs::read_dir(folder.join("back"))? {
        let entry = entry?;
        if entry.file_name() != "vault" {
            fs::rename(entry.path(), folder.join(entry.file_name()))?;
        }
    }
    stage.refuses("came back from a copy")?;
    // Neither without the mark nor without the head: the vault knows more.
    fs::remove_file(folder.join("reprieve.restored"))?;
    stage.refuses("rolled back")?;
    fs::remove_file(folder.join("reprieve.head"))?;
    stage.refuses("rolled back: its vault knows")?;
    stage.fails(&["ledger", "resume", "--reason", " "], "say why")?;
    let resumed = stage.gateway.json(&["ledger", "resume", "--reason", "the machine is gone", "--json"])?;
    assert_eq!(resumed["lost"], lost, "{resumed}");
    stage.gateway.restart()?;
    let frozen = stage.note(3).expect_err("frozen");
    assert!(format!("{frozen:#}").contains("frozen"), "{frozen:#}");
    stage.gateway.verify()?;
    let events = stage.gateway.events()?;
    let resumed: Vec<&Value> = events.iter().filter(|event| event["event"]["event"] == "ledger_resumed").collect();
    assert_eq!(resumed.len(), 1);
    assert_eq!((resumed[0]["event"]["stored"].as_u64(), resumed[0]["index"].as_u64()), (Some(copied), Some(copied)));
    assert!(resumed[0]["event"]["checkpoint"].as_str().is_some_and(|note| note.contains("— reprieve ")), "the evidence is kept");
    // What was decided about is not asked again, and there is nothing more to decide.
    stage.gateway.stop()?;
    stage.fails(&["ledger", "resume", "--reason", "once more"], "nothing is lost")?;
    stage.gateway.restart()?;
    stage.gateway.thaw(None)?;
    stage.note(4)?;
    Ok(())
}

#[test]
fn an_older_copy_of_the_folder_is_not_served() -> Result<()> {
    let mut stage = Stage::open()?;
    let older = tempfile::tempdir()?;
    stage.note(1)?;
    stage.gateway.stop()?;
    stage.keep(older.path())?;
    stage.gateway.restart()?;
    stage.note(2)?;
    stage.gateway.stop()?;
    // As a machine's snapshot would: ledger and head fit each other.
    let newer = tempfile::tempdir()?;
    stage.keep(newer.path())?;
    stage.put_back(older.path())?;
    stage.refuses("rolled back: its vault knows")?;
    // With the vault out of the way it goes on for a while, and then has a history of its own: that is never served again.
    let (vault, away) = (stage.gateway.folder().join("vault"), stage.gateway.folder().join("away"));
    fs::rename(&vault, &away)?;
    fs::write(&vault, "")?;
    stage.gateway.restart()?;
    for n in 10..40 {
        // Held or not: each is recorded.
        let _recorded = stage.note(n);
    }
    stage.gateway.stop()?;
    fs::remove_file(&vault)?;
    fs::rename(&away, &vault)?;
    stage.refuses("was rewritten")?;
    // As it was: it serves.
    stage.put_back(newer.path())?;
    stage.gateway.restart()
}
