//! A yard: a database behind a gateway, in which a migration tool works as an agent.
//!
//! What a tool does all day has to pass in silence; what destroys has to be held with a reason, to succeed once people agreed, and to
//! come back: change by change, and session by session.

use std::{
    cell::Cell,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use reprieve_testkit::{Gateway, GatewayOptions, GuardedSystem, Postgres, PostgresOptions};
use reprieve_tests::{Site, State, tools::said};
use serde_json::Value;

/// A tool is run again at most so often; each time somebody has approved what it was held for.
const MOST_ROUNDS: u32 = 60;

/// A database behind a gateway.
pub(crate) struct Yard {
    site: Site,
    url: String,
    tool: String,
    everyday: Cell<u64>,
}

/// What was agreed to until a tool was through.
#[derive(Debug)]
pub(crate) struct Agreed {
    /// How often the tool was run.
    pub(crate) runs: u32,
    /// The texts that people approved.
    pub(crate) approved: Vec<String>,
    /// Why they were held.
    pub(crate) reasons: Vec<String>,
}

impl Yard {
    /// A protected database `shop` under the guard profile with its default budget, and an agent called like the tool.
    pub(crate) fn open(tool: &str) -> Result<Yard> {
        let server = Postgres::start_with(&PostgresOptions::default())?;
        server.create_role("app", "secret", "")?;
        server.create_database("shop", "app")?;
        let system = GuardedSystem {
            admin_url: Some(server.superuser_url("shop")),
            ..GuardedSystem::new("shop", "production", &server.url("app", "secret", "shop"))
        };
        let options = GatewayOptions { systems: vec![system], wait: "0s".to_owned(), rows_without_undo: 0, ..GatewayOptions::default() };
        let site = Site { gateway: Gateway::start(options)?, server };
        site.gateway.json(&["protect", "shop", "--apply", "--json"])?;
        let url = site.gateway.agent(tool, &["shop"], "read,write,destroy,grant")?;
        Ok(Yard { site, url, tool: tool.to_owned(), everyday: Cell::new(0) })
    }

    /// The agent's URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Fills tables, past the gateway.
    pub(crate) fn fill(&self, sql: &str) -> Result<()> {
        self.site.direct(sql)?;
        self.site.direct("ANALYZE")?;
        Ok(())
    }

    /// Runs what has to pass without anybody being asked; counts its statements.
    pub(crate) fn passes(&self, what: &str, command: Command) -> Result<()> {
        let (statements, holds) = (self.statements()?, self.holds()?.len());
        let output = run(command)?;
        let held = &self.holds()?[holds..];
        let told: Vec<String> =
            held.iter().map(|hold| format!("{} for: {} {}", hold["text"], hold["needs"]["reason"], hold["reach"])).collect();
        ensure!(held.is_empty(), "{what} was held: {}", told.join("\n"));
        ensure!(output.status.success(), "{what} failed: {}", said(&output));
        self.everyday.set(self.everyday.get() + self.statements()? - statements);
        Ok(())
    }

    /// Says how many statements passed without anybody being asked.
    pub(crate) fn silence(&self) -> Result<()> {
        println!("silence: {}: 0 of {} everyday statements were held", self.tool, self.everyday.get());
        ensure!(self.everyday.get() > 0, "nothing was counted");
        Ok(())
    }

    /// Runs what destroys. It has to be held; people agree; it is run again until it is through. Then it comes back, change by change;
    /// and once more, by session.
    pub(crate) fn is_held_and_comes_back(&self, what: &str, command: impl Fn() -> Command) -> Result<Agreed> {
        let before = self.state()?;
        let known = self.changes()?;
        let agreed = self.agree(what, &command)?;
        println!(
            "{}: {what}: {} runs, {} approvals: {:?}",
            self.tool,
            agreed.runs,
            agreed.approved.len(),
            agreed.reasons.iter().collect::<std::collections::BTreeSet<_>>()
        );
        ensure!(!agreed.approved.is_empty(), "{what} passed without anybody being asked");
        ensure!(!self.state()?.is_same(&before), "{what} changed nothing");
        for change in self.since(&known)? {
            self.undo(&[change["id"].as_str().context("an id")?])
                .with_context(|| format!("{what}: undoing {} {}", change["id"], change["text"]))?;
        }
        self.compare(what, &before)?;
        let known = self.changes()?;
        self.agree(what, &command)?;
        let mut sessions: Vec<String> = self.since(&known)?.iter().map(|change| format!("S-{}", change["session"])).collect();
        sessions.dedup();
        for session in sessions {
            self.undo(&["--session", &session]).with_context(|| format!("{what}: undoing session {session}"))?;
        }
        self.compare(&format!("{what}, by session"), &before)?;
        Ok(agreed)
    }

    /// Runs a tool until it is through, approving whatever it is held for.
    pub(crate) fn agree(&self, what: &str, command: impl Fn() -> Command) -> Result<Agreed> {
        let mut agreed = Agreed { runs: 0, approved: Vec::new(), reasons: Vec::new() };
        for run_number in 1..=MOST_ROUNDS {
            agreed.runs = run_number;
            let output = run(command())?;
            let waiting: Vec<Value> = self.holds()?.into_iter().filter(|hold| hold["status"] == "waiting").collect();
            if output.status.success() && waiting.is_empty() {
                return Ok(agreed);
            }
            ensure!(!waiting.is_empty(), "{what} failed without a hold (run {run_number}, {agreed:?}): {}", said(&output));
            for hold in waiting {
                let id = hold["id"].as_str().context("an id")?;
                let reason = hold["needs"]["reason"].as_str().unwrap_or_default();
                ensure!(reason.len() > 20, "{what}: a reason has to be readable: {hold}");
                agreed.approved.push(hold["text"].as_str().unwrap_or_default().to_owned());
                agreed.reasons.push(reason.to_owned());
                println!("{}: {what}: run {run_number}: {} {}: {reason}: {}", self.tool, hold["action"], hold["text"], hold["reach"]);
                self.site.gateway.approve_as_asked(id)?;
                if hold["action"] == "selfcontained" {
                    self.site.gateway.wait_for_status(id, "finished")?;
                }
            }
        }
        bail!("{what} is not through after {MOST_ROUNDS} runs: {:#?}", agreed.approved)
    }

    /// Every hold, oldest first.
    fn holds(&self) -> Result<Vec<Value>> {
        let mut holds = self.site.gateway.holds()?;
        holds.reverse();
        Ok(holds)
    }

    fn changes(&self) -> Result<Vec<Value>> {
        let listed = self.site.gateway.json(&["undo", "list", "--limit", "1000", "--json"])?;
        Ok(listed["changes"].as_array().cloned().unwrap_or_default())
    }

    /// What the tool changed since `known` was listed, newest first.
    fn since(&self, known: &[Value]) -> Result<Vec<Value>> {
        let is_new = |change: &Value| !known.iter().any(|other| other["id"] == change["id"]) && change["operator"].is_null();
        let found: Vec<Value> = self.changes()?.into_iter().filter(is_new).collect();
        ensure!(!found.is_empty(), "nothing was changed");
        for change in &found {
            ensure!(change["standing"] == "undoable", "it can't be undone: {change}");
        }
        Ok(found)
    }

    /// Takes something back, once the snapshot of definitions that it needs was taken.
    fn undo(&self, which: &[&str]) -> Result<()> {
        let mut dry: Vec<&str> = vec!["undo", "apply"];
        dry.extend(which);
        dry.extend(["--dry-run", "--json"]);
        let mut because = String::new();
        for _ in 0..600 {
            match self.site.gateway.json(&dry) {
                Ok(_) => {
                    let mut apply = vec!["undo", "apply"];
                    apply.extend(which);
                    self.site.gateway.operate(&apply)?;
                    return Ok(());
                }
                Err(error) => because = format!("{error:#}"),
            }
            if !because.contains("not kept") {
                break;
            }
            thread::sleep(Duration::from_millis(200));
        }
        bail!("can't be undone: {because}")
    }

    fn compare(&self, what: &str, before: &State) -> Result<()> {
        self.state()?.is_as_before(before).with_context(|| what.to_owned())
    }

    fn state(&self) -> Result<State> {
        State::of(&self.site)
    }

    /// Statements that the gateway has seen from the agent, as the ledger counts them.
    fn statements(&self) -> Result<u64> {
        let mut count = 0;
        for recorded in self.site.gateway.events()? {
            let event = &recorded["event"];
            count += match event["event"].as_str() {
                Some("reads") => event["reads"].as_array().map_or(0, |reads| reads.iter().filter_map(|read| read["count"].as_u64()).sum()),
                Some("intent") => 1,
                Some("concluded") => event["statements"].as_array().map_or(0, |statements| statements.len() as u64),
                _ => 0,
            };
        }
        Ok(count)
    }
}

/// A program that ends after two minutes in any case: a client that waits for a reply that never comes would wait for ever.
pub(crate) fn program(path: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg("120").arg(path).stdin(Stdio::null());
    command
}

fn run(mut command: Command) -> Result<Output> {
    command.output().context("cannot run `timeout`")
}
