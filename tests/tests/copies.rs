//! Folders and SQLite databases that come back, and everything that must not look like one. Real program, real damage.

#[path = "copies/folders.rs"]
mod folders;
#[path = "copies/lies.rs"]
mod lies;
#[path = "copies/sqlite.rs"]
mod sqlite;

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use reprieve_testkit::{Gateway, GatewayOptions};
use reprieve_tests::{Copied, answer};
use serde_json::Value;

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

    fn restore(&self, to: &Path) -> Result<Value> {
        self.gateway.operate(&["restore", "shop", "--to", &to.display().to_string(), "--reason", "the disk is gone"])
    }

    /// A restore that has to fail, with `why` in its reason.
    fn restore_fails(&self, to: &Path, why: &str) -> Result<()> {
        let failed = self.restore(to);
        ensure!(failed.as_ref().is_err_and(|error| format!("{error:#}").contains(why)), "no {why:?}: {failed:?}");
        Ok(())
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

    /// What was taken to scratch is gone again.
    fn leaves_nothing(&self) -> Result<()> {
        let left = fs::read_dir(self.gateway.folder().join("scratch"))?.next();
        ensure!(left.is_none(), "something is left: {left:?}");
        Ok(())
    }
}

impl Copied for Stage {
    fn gateway(&self) -> &Gateway {
        &self.gateway
    }
}

/// Runs a command of the system.
fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
