//! Copied: a gateway that copies the system `shop`, and what has to be so of its copies and drills, whatever they are of.

use std::{
    fs,
    path::PathBuf,
    process::Output,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use reprieve_testkit::Gateway;
use serde_json::Value;

/// Nothing takes as long; a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(300);

/// A stage with copies on it.
pub trait Copied {
    /// The gateway.
    fn gateway(&self) -> &Gateway;

    /// A copy.
    fn copy(&self) -> Result<Value> {
        self.gateway().json(&["backup", "now", "shop", "--json"])
    }

    /// A drill's report, and whether the command said that it passed.
    fn drill(&self) -> Result<(Value, bool)> {
        let output = self.gateway().cli(&["drill", "run", "shop", "--json"])?;
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

    /// A drill that has to fail, with `why` in its reason; the ledger, an alarm and the status say so too.
    fn drill_fails(&self, why: &str) -> Result<Value> {
        let (answer, passed) = self.drill()?;
        ensure!(!passed, "the drill passed: {answer}");
        let reason = answer["report"]["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains(why), "the reason has no {why:?}: {reason}");
        let events = self.events("drill_failed")?;
        ensure!(events.last().is_some_and(|event| event["drill"] == answer["report"]["drill"]), "the ledger has no failure: {answer}");
        // An alarm is recorded a moment after what it is about.
        let sounded = |event: &Value| event["what"].as_str().is_some_and(|what| what.contains("drill"));
        self.wait("there is an alarm", || Ok(self.events("alarm")?.iter().any(sounded)))?;
        let status = self.gateway().cli(&["recovery", "status", "--json"])?;
        ensure!(!status.status.success() && !self::answer(&status)?["systems"][0]["unproven"].is_null(), "the status is green");
        Ok(answer)
    }

    /// The ledger's events of a kind, in order.
    fn events(&self, kind: &str) -> Result<Vec<Value>> {
        let events = self.gateway().events()?;
        Ok(events.into_iter().map(|recorded| recorded["event"].clone()).filter(|event| event["event"] == kind).collect())
    }

    /// The files of the vault's objects, largest first.
    fn objects(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for folder in fs::read_dir(self.gateway().folder().join("vault/objects"))? {
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

    /// Waits until something is so.
    fn wait(&self, what: &str, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !look()? {
            ensure!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}\n{}", self.gateway().log());
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// The JSON that a command printed, whatever its exit code.
pub fn answer(output: &Output) -> Result<Value> {
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(said.trim()).with_context(|| format!("no JSON: {said} {}", String::from_utf8_lossy(&output.stderr)))
}
