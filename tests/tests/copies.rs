//! Folders and SQLite databases that come back, and everything that must not look like one. Real program, real damage.

#[path = "copies/folders.rs"]
mod folders;
#[path = "copies/lies.rs"]
mod lies;
#[path = "copies/sqlite.rs"]
mod sqlite;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use reprieve_testkit::{Gateway, GatewayOptions};
use serde_json::Value;

/// Nothing here takes as long; a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(300);

/// Something to copy, and a gateway that copies it.
struct Stage {
    gateway: Gateway,
    folder: tempfile::TempDir,
}

impl Stage {
    /// A stage whose system is `shop`, at `name` in a folder of its own. `prepare` is told where.
    fn open(kind: &str, name: &str, backup: &str, recovery: &str, prepare: impl FnOnce(&Path) -> Result<()>) -> Result<Stage> {
        let folder = tempfile::Builder::new().prefix("reprieve-copies-").tempdir()?;
        let path = folder.path().join(name);
        prepare(&path)?;
        let settings = format!(
            "{recovery}\n[[system]]\nname = \"shop\"\nkind = \"{kind}\"\nenvironment = \"production\"\npath = \"{}\"\n[system.backup]\n{backup}\n",
            path.display()
        );
        let gateway = Gateway::start(GatewayOptions { settings, ..GatewayOptions::default() })?;
        Ok(Stage { gateway, folder })
    }

    fn copy(&self) -> Result<Value> {
        self.gateway.json(&["backup", "now", "shop", "--json"])
    }

    /// A copy that has to fail, with `why` in its reason; the ledger and an alarm say so too, and nothing is found in the vault.
    fn copy_fails(&self, why: &str) -> Result<()> {
        let before = self.points()?;
        let output = self.gateway.cli(&["backup", "now", "shop", "--json"])?;
        ensure!(!output.status.success(), "it was copied");
        let said = answer(&output)?["error"].as_str().unwrap_or_default().to_owned();
        ensure!(said.contains(why), "the reason has no {why:?}: {said}");
        let events = self.events("backup_failed")?;
        ensure!(events.last().is_some_and(|event| event["reason"].as_str().is_some_and(|reason| reason.contains(why))), "{events:?}");
        let sounded = |event: &Value| event["what"].as_str().is_some_and(|what| what.contains("no copy"));
        self.wait("there is an alarm", || Ok(self.events("alarm")?.iter().any(sounded)))?;
        ensure!(self.points()? == before, "the vault has another recovery point");
        Ok(())
    }

    fn points(&self) -> Result<usize> {
        let list = self.gateway.json(&["backup", "list", "--vault", "--json"])?;
        list["points"].as_array().map(Vec::len).context("no list")
    }

    /// A drill's report, and whether the command said that it passed.
    fn drill(&self) -> Result<(Value, bool)> {
        let output = self.gateway.cli(&["drill", "run", "shop", "--json"])?;
        let answer = answer(&output)?;
        let passed = answer["report"]["passed"] == true;
        ensure!(passed == output.status.success(), "the exit code is not what the report says: {answer}");
        Ok((answer, passed))
    }

    /// A drill that has to pass at a level.
    fn drill_passes(&self, level: u64) -> Result<Value> {
        let (answer, passed) = self.drill()?;
        ensure!(passed && answer["report"]["level"] == level, "{answer}");
        Ok(answer)
    }

    /// A drill that has to fail, with `why` in its reason; the ledger and the status say so too.
    fn drill_fails(&self, why: &str) -> Result<Value> {
        let (answer, passed) = self.drill()?;
        ensure!(!passed, "the drill passed: {answer}");
        let reason = answer["report"]["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains(why), "the reason has no {why:?}: {reason}");
        let events = self.events("drill_failed")?;
        ensure!(events.last().is_some_and(|event| event["drill"] == answer["report"]["drill"]), "the ledger has no failure: {answer}");
        let status = self.gateway.cli(&["recovery", "status", "--json"])?;
        ensure!(!status.status.success() && !self::answer(&status)?["systems"][0]["unproven"].is_null(), "the status is green");
        Ok(answer)
    }

    fn restore(&self, to: &Path) -> Result<Value> {
        self.gateway.operate(&["restore", "shop", "--to", &to.display().to_string(), "--reason", "the disk is gone"])
    }

    /// A restore that has to fail, with `why` in its reason.
    fn restore_fails(&self, to: &Path, why: &str) -> Result<()> {
        let failed = self.restore(to);
        ensure!(failed.as_ref().is_err_and(|error| format!("{error:#}").contains(why)), "no {why:?}: {failed:?}");
        Ok(())
    }

    fn events(&self, kind: &str) -> Result<Vec<Value>> {
        let events = self.gateway.events()?;
        Ok(events.into_iter().map(|recorded| recorded["event"].clone()).filter(|event| event["event"] == kind).collect())
    }

    /// The files of the vault's objects, largest first.
    fn objects(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for folder in fs::read_dir(self.gateway.folder().join("vault/objects"))? {
            let folder = folder?.path();
            if folder.is_dir() && folder.file_name().is_some_and(|name| name.len() == 2) {
                for file in fs::read_dir(folder)? {
                    let path = file?.path();
                    found.push((fs::metadata(&path)?.len(), path));
                }
            }
        }
        found.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    /// Damages the largest object in each way there is; each time the drill is red, and green again when it is whole again.
    fn is_red_when_damaged(&self, level: u64) -> Result<()> {
        let largest = self.objects()?.first().context("an object")?.clone();
        let whole = fs::read(&largest)?;
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        fs::write(&largest, &flipped)?;
        self.drill_fails("")?;
        self.restore_fails(&self.folder.path().join("damaged"), "")?;
        fs::write(&largest, &whole[..whole.len() - 7])?;
        self.drill_fails("")?;
        fs::remove_file(&largest)?;
        self.drill_fails("")?;
        fs::write(&largest, &whole)?;
        self.drill_passes(level).map(drop)
    }

    /// Waits until something is so.
    fn wait(&self, what: &str, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !look()? {
            ensure!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}\n{}", self.gateway.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// What was taken to scratch is gone again.
    fn leaves_nothing(&self) -> Result<()> {
        let left = fs::read_dir(self.gateway.folder().join("scratch"))?.next();
        ensure!(left.is_none(), "something is left: {left:?}");
        Ok(())
    }
}

fn answer(output: &Output) -> Result<Value> {
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(said.trim()).with_context(|| format!("no JSON: {said} {}", String::from_utf8_lossy(&output.stderr)))
}

/// Runs a command of the system.
fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
