//! The story: eight scenes between two agents, two operators and one production database; a ninth, if it is asked for, is in
//! `story/worst.rs`.

mod mistakes;
mod worst;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use reprieve_operation::{HoldId, Reach, TableReach};
use reprieve_store::SqliteStore;
use reprieve_testkit::Railway;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{
    company::{Company, PRODUCTION, Tables, connect, rows},
    gateway::{Gateway, Person, Trial},
    page::{Ink, Page, thousands},
    provider::{DELETE_VOLUME, LOOK, curl},
};

/// What the agent believes to touch 212 rows.
const CLEAN_UP: &str = "DELETE FROM public.reservations WHERE updated_at < '2026-02-14' AND source IS DISTINCT FROM 'web'";
/// What it should have said.
const NARROW: &str = "DELETE FROM public.reservations WHERE source = 'loadtest'";
/// The company's own work, past the gateway: last night's load test left new bookings.
const LOAD_TEST: &str =
    "INSERT INTO public.reservations (id, customer_id, vehicle_id, status, pickup_at, return_at, source, total, updated_at)
    SELECT 900000 + n, 52107, 1, 'completed', '2026-03-01 09:00+00', '2026-03-02 09:00+00', 'loadtest', 1.00, '2026-03-01 09:00+00'
    FROM generate_series(1, 150) AS n";
/// Runs for ten minutes unless somebody stops it.
const LONG_READ: &str = "SELECT pg_sleep(600)";
/// Other ways to the same effect.
const ROUTES: [(&str, &str); 6] = [
    ("DROP TABLE … CASCADE", "DROP TABLE public.reservations CASCADE"),
    ("TRUNCATE … CASCADE", "TRUNCATE public.reservations CASCADE"),
    ("a DO block", "DO $$ BEGIN EXECUTE 'DELETE FROM public.' || 'payments'; END $$"),
    ("a function that deletes", "SELECT public.purge_old_reservations('2026-01-01')"),
    (
        "a DELETE inside a SELECT",
        "WITH gone AS (DELETE FROM public.reservations WHERE status = 'cancelled' RETURNING id) SELECT count(*) FROM gone",
    ),
    ("a DELETE inside a COPY", "COPY (DELETE FROM public.invoice_lines RETURNING *) TO STDOUT"),
];
/// What jonas writes when he denies and approves.
const DENIAL: &str = "that is every booking without a source, not 212 of them";
const APPROVAL: &str = "leftovers of the load test, lt-031 to lt-242";

const PATIENCE: Duration = Duration::from_secs(60);
const COPY_ATTEMPTS: u32 = 20;
const VERIFY_ATTEMPTS: u32 = 20;

const HELD: &str = "RPH01";
const REFUSED: &str = "RPR01";
const FROZEN: &str = "RPF01";

/// The answer to a statement.
enum Answer {
    /// It ran; so many rows.
    Ran { rows: u64 },
    /// It did not.
    Error { code: String, message: String },
}

/// Everything that takes part.
struct Story {
    page: Page,
    company: Company,
    railway: Arc<Railway>,
    gateway: Gateway,
    ana: Person,
    jonas: Person,
    cursor: String,
    migrations: String,
    /// What was tried, and what became of it.
    outcomes: Vec<(String, Ink, String)>,
    /// What went differently than it must.
    faults: Vec<String>,
}

/// Tells the whole story. `true`: something went differently than it must.
pub(crate) async fn tell(railway: Arc<Railway>, keep: bool, worst_case: bool) -> anyhow::Result<bool> {
    let page = Page::new();
    let started = Instant::now();
    page.line(Ink::Bold, "Reprieve: an agent, a production database, and a DELETE that reaches further than it believes");
    page.space();
    let (mut story, trial) = Story::set_up(page, railway, worst_case).await?;
    story.page.doing("rehearsing what may change, as superuser, rolled back");
    let rehearsal = story.company.rehearse(&[NARROW, LOAD_TEST]).await?;

    story.wrong_environment().await?;
    let is_copied = trial.is_some();
    if let Some(trial) = trial {
        story.proven(trial).await?;
    }
    story.wrong_belief().await?;
    story.other_routes().await?;
    story.approval().await?;
    story.mistakes().await?;
    story.incident().await?;
    story.freeze().await?;
    story.ledger().await?;

    story.page.doing("comparing every row with what was approved");
    let after = story.company.tables().await?;
    if is_copied {
        story.worst_case(&after).await?;
    }
    let approved = approved_part(&rehearsal.touched);
    story.summary(&rehearsal.before, &rehearsal.after, &after, &approved, started.elapsed());
    let failed = !story.faults.is_empty();
    if keep {
        story.stay().await?;
    }
    story.gateway.stop().await?;
    Ok(failed)
}

impl Story {
    async fn set_up(
        page: Page,
        railway: Arc<Railway>,
        is_copied: bool,
    ) -> anyhow::Result<(Self, Option<JoinHandle<anyhow::Result<Trial>>>)> {
        page.doing("starting PostgreSQL");
        let company = Company::start()?;
        page.doing("filling production and staging, 1.3 million rows");
        company.seed().await?;
        page.doing("making the gateway's keys and the first operator");
        let (mut gateway, mut ana) = Gateway::init(&company, &railway, "ana", is_copied).await?;
        page.doing("starting the gateway");
        gateway.serve().await?;
        // It takes a while, and is needed before anything that destroys can be approved.
        let trial = is_copied.then(|| gateway.copy_and_try("pocket-prod"));
        page.doing("adding a second operator and two agents");
        let jonas = gateway.add_operator(&mut ana, "jonas").await?;
        let bugs = ["cursor-staging", "--system", "pocket-staging", "--system", "railway-staging", "--allow", "read,write,destroy"];
        let cursor = gateway.add_agent(&mut ana, &bugs).await?;
        let systems = ["--system", "pocket-prod", "--system", "pocket-staging", "--system", "railway-prod"];
        let rights = ["--allow", "read,write,destroy", "--on-behalf-of", "ana"];
        let migrations = gateway.add_agent(&mut ana, &[&["migrations"], &systems[..], &rights[..]].concat()).await?;
        page.line(Ink::Plain, "   PocketRentals rents cars. Its production and its staging database run on a real PostgreSQL");
        page.line(Ink::Plain, &format!("   {}, reached through Reprieve; no agent holds a database password.", company.version()));
        page.space();
        page.says("cursor-staging", Ink::Plain, "an agent that fixes bugs: it may do everything, in staging only");
        page.says("migrations", Ink::Plain, "an agent of ana's that runs migrations; its database role may drop every table");
        page.says("ana, jonas", Ink::Plain, "operators. The demo plays them, passphrases and second factors included;");
        page.says("", Ink::Plain, "elsewhere these are people, and the second factor is on their phones");
        let (outcomes, faults) = (Vec::new(), Vec::new());
        Ok((Self { page, company, railway, gateway, ana, jonas, cursor, migrations, outcomes, faults }, trial))
    }

    async fn wrong_environment(&mut self) -> anyhow::Result<()> {
        self.page.scene(1, "A staging token tries production");
        let url = self.cursor.replace("/pocket-staging", "/pocket-prod");
        self.page.says("cursor-staging", Ink::Bold, "psql …/pocket-prod");
        let answer = match connect(&url).await {
            Ok(client) => ask(&client, "SELECT 1").await?,
            Err(error) => Answer::of(&error)?,
        };
        self.show(&answer);
        let refused = answer.is(REFUSED);
        self.must(refused, "the staging token must be refused on production");
        self.tried("a staging token on production", if refused { Ink::Good } else { Ink::Bad }, "refused");
        Ok(())
    }

    async fn wrong_belief(&mut self) -> anyhow::Result<()> {
        self.page.scene(2, "“It touches 212 rows”");
        let staging = connect(&self.migrations.replace("/pocket-prod", "/pocket-staging")).await?;
        self.page.says("migrations", Ink::Plain, "tries it where it is harmless, on staging:");
        self.page.says("", Ink::Bold, &format!("BEGIN; {CLEAN_UP}; ROLLBACK"));
        ask(&staging, "BEGIN").await?;
        let believed = ask(&staging, CLEAN_UP).await?;
        ask(&staging, "ROLLBACK").await?;
        self.show(&believed);
        let Answer::Ran { rows: believed } = believed else {
            self.faults.push("the DELETE must run on staging, in a transaction that is rolled back".to_owned());
            return Ok(());
        };
        self.page.says("migrations", Ink::Plain, "and then in production:");
        self.page.says("", Ink::Bold, CLEAN_UP);
        self.page.doing("the gateway runs it, measures it, and rolls it back");
        let production = connect(&self.migrations).await?;
        let answer = ask(&production, CLEAN_UP).await?;
        let Some(hold) = self.held("the same DELETE in production", &answer) else { return Ok(()) };
        let held = self.gateway.hold(hold).await?;
        self.show_held(hold, &answer, &held.reach);
        self.page.doing("measuring the same as superuser, past the gateway");
        let truth = self.company.measure(CLEAN_UP).await?;
        self.must(held.reach.tables == truth, "the gateway's measurement must be the superuser's, table by table");
        let bookings = truth.get("public.reservations").map_or(0, |table| table.deleted);
        self.must(bookings > believed, "production must hold more than the agent believes");
        self.page.says("a superuser", Ink::Dim, "measures the same past the gateway, rolled back: the same numbers in every table");

        let id = hold.to_string();
        self.page.says("jonas", Ink::Bold, &format!("reprieve hold deny {hold} --reason '{DENIAL}'"));
        self.page.doing("jonas' passphrase and code are checked");
        self.gateway.command(&mut self.jonas, &["hold", "deny", &id, "--reason", DENIAL], &[]).await?;
        let again = ask(&production, CLEAN_UP).await?;
        self.page.says("migrations", Ink::Plain, "asks again:");
        self.show(&again);
        let denied = again.is(REFUSED) && again.says(DENIAL);
        self.must(denied, "a denied statement must come back with the person's reason");
        let outcome = format!("held {hold}, denied by jonas");
        self.tried(&format!("DELETE of {}, believed {believed}", thousands(bookings)), if denied { Ink::Good } else { Ink::Bad }, &outcome);
        Ok(())
    }

    async fn other_routes(&mut self) -> anyhow::Result<()> {
        self.page.scene(3, "Other routes to the same effect");
        let client = connect(&self.migrations).await?;
        for (name, statement) in ROUTES {
            self.page.says("migrations", Ink::Bold, statement);
            self.page.doing("the gateway looks, and measures what text does not tell");
            let answer = ask(&client, statement).await?;
            let Some(hold) = self.held(name, &answer) else { continue };
            let held = self.gateway.hold(hold).await?;
            self.page.says(HELD, Ink::Warning, &format!("held {hold}: {}", brief(&held.reach)));
            self.must(!held.reach.is_empty(), "what is held must show what it reaches");
            self.tried(name, Ink::Good, &format!("held {hold}"));
        }
        Ok(())
    }

    async fn approval(&mut self) -> anyhow::Result<()> {
        self.page.scene(4, "What was meant, approved: it runs once");
        let client = connect(&self.migrations).await?;
        self.page.says("migrations", Ink::Bold, NARROW);
        self.page.doing("the gateway measures it");
        let answer = ask(&client, NARROW).await?;
        let Some(hold) = self.held("the narrower DELETE", &answer) else { return Ok(()) };
        let held = self.gateway.hold(hold).await?;
        self.show_held(hold, &answer, &held.reach);
        let truth = self.company.measure(NARROW).await?;
        self.must(held.reach.tables == truth, "the narrower DELETE must be measured as the superuser measures it");

        let id = hold.to_string();
        self.page.says("jonas", Ink::Bold, &format!("reprieve hold approve {hold} --confirm {} --reason '{APPROVAL}'", held.confirm));
        self.page.doing("jonas' passphrase and code are checked");
        self.gateway.command(&mut self.jonas, &["hold", "approve", &id, "--confirm", &held.confirm, "--reason", APPROVAL], &[]).await?;
        self.wait_until_finished(hold).await?;
        self.page.says("migrations", Ink::Plain, "sends the identical statement:");
        let ran = ask(&client, NARROW).await?;
        self.show(&ran);
        let expected = truth.get("public.reservations").map_or(0, |table| table.deleted);
        let ran_once = matches!(ran, Answer::Ran { rows } if rows == expected);
        self.must(ran_once, "the approved statement must have run with its approved effect");
        let outcome = format!("held {hold}, approved by jonas, ran once");
        self.tried(&format!("DELETE of the {expected} that were meant"), if ran_once { Ink::Good } else { Ink::Bad }, &outcome);

        let again = ask(&client, NARROW).await?;
        self.page.says("migrations", Ink::Plain, "and again, where nothing is left:");
        self.show(&again);
        self.must(matches!(again, Answer::Ran { rows: 0 }), "a third time there must be nothing left to delete");
        self.company.superuser(PRODUCTION).await?.batch_execute(LOAD_TEST).await?;
        self.page.says("the company", Ink::Dim, "runs another load test, past the gateway: 150 new bookings");
        self.page.says("migrations", Ink::Plain, "and again, the approval in mind:");
        let anew = ask(&client, NARROW).await?;
        let Some(next) = self.held("the approved statement on new rows", &anew) else { return Ok(()) };
        let reach = self.gateway.hold(next).await?.reach;
        self.page.says(HELD, Ink::Warning, &format!("held anew, {next}: {}", brief(&reach)));
        self.must(next != hold, "an approval must be good for one run");
        self.tried(
            "the approved statement, when there are new rows",
            if next == hold { Ink::Bad } else { Ink::Good },
            &format!("held anew, {next}"),
        );
        Ok(())
    }

    /// The call that deleted production: one request to the hosting provider, with curl.
    async fn incident(&mut self) -> anyhow::Result<()> {
        self.page.scene(6, "The call itself: one POST to the hosting provider");
        self.page.says("the provider", Ink::Dim, "a stand-in: like the original it deletes at once what a valid token asks for");
        let (program, settings) = (self.gateway.program().to_owned(), self.gateway.settings());
        let (cursor, migrations) = (token_of(&self.cursor)?, token_of(&self.migrations)?);
        self.page.says("cursor-staging", Ink::Bold, "eval \"$(reprieve env --agent cursor-staging)\"");
        self.page.says("", Ink::Bold, "curl https://backboard.railway.com/graphql/v2 --data 'mutation { volumeDelete(…) }'");
        self.page.doing("the gateway looks at what the volume is");
        let answer = curl(&program, &settings, "cursor-staging", &cursor, DELETE_VOLUME).await?;
        self.page.says(&answer.status.to_string(), Ink::Warning, &format!("refused: {}", answer.text("/reason")));
        let refused = answer.status == 403 && answer.text("/outcome") == "refused";
        self.must(refused, "a staging token must not reach a volume of production");
        self.tried("volumeDelete with a token for staging", if refused { Ink::Good } else { Ink::Bad }, "refused");

        self.page.says("migrations", Ink::Plain, "looks, and then calls the same with its token for production:");
        let look = curl(&program, &settings, "migrations", &migrations, LOOK).await?;
        self.must(look.status == 200 && look.text("/data/volume/name") == "pocket-db-data", "a read must pass");
        let answer = curl(&program, &settings, "migrations", &migrations, DELETE_VOLUME).await?;
        let hold = answer.text("/hold");
        self.page.says(&answer.status.to_string(), Ink::Warning, &format!("held {hold}: {}", answer.text("/reason")));
        let found = |name: &str| answer.text(&format!("/reach/found/0/{name}"));
        let reached = format!("{}, {}, {}", found("name"), found("environment"), found("size"));
        self.page.says("", Ink::Plain, &format!("{reached}; attached to {}", answer.text("/reach/found/0/attached/0")));
        self.page.says("", Ink::Plain, "once approved it waits for 48 hours in sight of everybody, who may cancel it");
        let held = answer.status == 403 && answer.text("/outcome") == "held" && found("environment") == "production";
        self.must(held, "the incident's call must be held, with what it would reach");
        let sent = self.railway.service().received().iter().any(|received| received.text().contains("volumeDelete"));
        let there = self.railway.volumes().iter().any(|volume| volume == "vol-prod");
        self.must(there && !sent, "the call must never have reached the provider");
        self.page.says("the provider", Ink::Dim, "has not heard of it: the volume and its backups are there");
        self.tried("volumeDelete with a token for production", if held && there { Ink::Good } else { Ink::Bad }, &format!("held {hold}"));
        Ok(())
    }

    /// Nobody waits for the hold any more, so the gateway runs it by itself.
    async fn wait_until_finished(&self, hold: HoldId) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.gateway.hold(hold).await?.status != "finished" {
            ensure!(Instant::now() < deadline, "{hold} was approved and did not run");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn freeze(&mut self) -> anyhow::Result<()> {
        self.page.scene(7, "Enough: everything stops");
        let client = connect(&self.migrations).await?;
        self.page.says("migrations", Ink::Bold, LONG_READ);
        let running = tokio::spawn(async move {
            let answer = ask(&client, LONG_READ).await;
            (client, answer, Instant::now())
        });
        let deadline = Instant::now() + PATIENCE;
        while !running.is_finished() && !self.company.is_running(LONG_READ).await? {
            ensure!(Instant::now() < deadline, "the long statement does not begin");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.page.says("ana", Ink::Bold, "reprieve freeze --all --reason 'look at this first'");
        self.gateway.json(&["freeze", "--all", "--reason", "look at this first"], &[], "").await?;
        let frozen = Instant::now();
        let (client, answer, ended) = tokio::time::timeout(PATIENCE, running).await.context("a frozen statement goes on")??;
        let answer = answer?;
        self.show(&answer);
        let milliseconds = ended.saturating_duration_since(frozen).as_millis();
        let stopped = matches!(answer, Answer::Error { .. });
        self.must(stopped, "a running statement must be cancelled by the freeze");
        let when = if milliseconds == 0 { "before the command was back".to_owned() } else { format!("{milliseconds} ms later") };
        self.tried("a statement that runs when ana freezes all", if stopped { Ink::Good } else { Ink::Bad }, &format!("cancelled, {when}"));
        self.page.says("migrations", Ink::Bold, "SELECT 1");
        let next = match ask(&client, "SELECT 1").await {
            Ok(answer) => answer,
            // Its session may be over: a new one must not fare better.
            Err(_) => match connect(&self.migrations).await {
                Ok(client) => ask(&client, "SELECT 1").await?,
                Err(error) => Answer::of(&error)?,
            },
        };
        self.show(&next);
        self.must(next.is(FROZEN), "while frozen, every statement must be answered so");
        self.tried("the next one", if next.is(FROZEN) { Ink::Good } else { Ink::Bad }, "frozen");
        Ok(())
    }

    async fn ledger(&mut self) -> anyhow::Result<()> {
        self.page.scene(8, "The record");
        self.page.says("ana", Ink::Bold, "reprieve ledger verify");
        let (verified, report) = self.verify_running().await?;
        let number = |name: &str| report.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let text = format!("verified: {} events, {} signed checkpoints", number("events"), number("checkpoints"));
        if verified {
            self.page.says("ledger", Ink::Good, &text);
        }
        self.must(verified, &format!("the ledger must verify: {report}"));

        self.page.doing("copying the ledger, flipping one bit of the copy");
        let copy = self.copy_ledger().await?;
        let settings = copy.path().join("reprieve.toml");
        flip_one_bit(&copy.path().join("reprieve.db"))?;
        self.page.says("somebody", Ink::Plain, "flips one bit of jonas' reason in a copy of the file");
        let (still, report) = self.gateway.verify(&settings).await?;
        let fault = report.get("fault").and_then(serde_json::Value::as_str).unwrap_or("nothing was found").to_owned();
        self.page.says("ledger", if still { Ink::Bad } else { Ink::Warning }, &format!("does not verify: {fault}"));
        self.must(!still, "a changed ledger must not verify");
        let good = verified && !still;
        self.tried(
            "the ledger; one flipped bit in a copy",
            if good { Ink::Good } else { Ink::Bad },
            if good { "verified; found" } else { "not as it must be" },
        );
        Ok(())
    }

    /// Verifies the running gateway's ledger. Events that arrive while it is read can look like a fault, and are none the next time;
    /// a changed ledger stays changed.
    async fn verify_running(&self) -> anyhow::Result<(bool, serde_json::Value)> {
        let mut attempt = 1;
        loop {
            let (verified, report) = self.gateway.verify(&self.gateway.settings()).await?;
            if verified || attempt == VERIFY_ATTEMPTS {
                return Ok((verified, report));
            }
            attempt += 1;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// A copy that verifies. The gateway may write while we copy, so it can take more than one attempt.
    async fn copy_ledger(&self) -> anyhow::Result<tempfile::TempDir> {
        for _ in 0..COPY_ATTEMPTS {
            let copy = tempfile::Builder::new().prefix("reprieve-copy-").tempdir().context("cannot make a folder")?;
            for name in ["reprieve.toml", "reprieve.head", "reprieve.db", "reprieve.db-wal"] {
                copy_if_there(&self.gateway.folder().join(name), &copy.path().join(name))?;
            }
            fs::create_dir(copy.path().join("keys"))?;
            copy_if_there(&self.gateway.folder().join("keys/ledger.pub"), &copy.path().join("keys/ledger.pub"))?;
            // Opening and closing it moves the write-ahead log into the one file.
            let opened = SqliteStore::open(&copy.path().join("reprieve.db")).map(drop);
            if opened.is_ok() && self.gateway.verify(&copy.path().join("reprieve.toml")).await.is_ok_and(|(verified, _)| verified) {
                return Ok(copy);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::bail!("no copy of the ledger verifies")
    }

    /// The hold that an answer names, if it is one.
    fn held(&mut self, what: &str, answer: &Answer) -> Option<HoldId> {
        let hold = if answer.is(HELD) { answer.hold() } else { None };
        if hold.is_none() {
            self.show(answer);
            self.faults.push(format!("{what} must be held"));
            self.tried(what, Ink::Bad, "not held");
        }
        hold
    }

    fn must(&mut self, holds: bool, what: &str) {
        if !holds {
            self.page.says("WRONG", Ink::Bad, what);
            self.faults.push(what.to_owned());
        }
    }

    fn tried(&mut self, what: &str, ink: Ink, outcome: &str) {
        self.outcomes.push((what.to_owned(), ink, outcome.to_owned()));
    }

    fn show(&self, answer: &Answer) {
        match answer {
            Answer::Ran { rows } => {
                self.page.says("", Ink::Good, &format!("{} row{}", thousands(*rows), if *rows == 1 { "" } else { "s" }))
            }
            Answer::Error { code, message } => self.page.says(code, Ink::Warning, message),
        }
    }

    fn show_held(&self, hold: HoldId, answer: &Answer, reach: &Reach) {
        let message = match answer {
            Answer::Error { message, .. } => message.as_str(),
            Answer::Ran { .. } => "",
        };
        let why = message.split_once(&format!("{hold}: ")).map_or(message, |(_, why)| why);
        self.page.says(HELD, Ink::Warning, &format!("held {hold}: {why}"));
        self.page.says("", Ink::Plain, "It was run, measured and rolled back. Nothing was changed.");
        for (name, rows) in by_loss(reach) {
            self.page.row(name, &in_words(*rows));
        }
    }

    fn summary(&mut self, before: &Tables, expected: &Tables, after: &Tables, approved: &BTreeMap<String, TableReach>, took: Duration) {
        let lost: u64 = expected.iter().map(|(name, table)| table.rows.saturating_sub(after.get(name).map_or(0, |table| table.rows))).sum();
        let different: Vec<&str> =
            expected.iter().filter(|(name, table)| after.get(*name) != Some(*table)).map(|(name, _)| name.as_str()).collect();
        let strange: Vec<&str> = after.keys().filter(|name| !expected.contains_key(*name)).map(String::as_str).collect();
        if !(different.is_empty() && strange.is_empty()) {
            self.faults
                .push(format!("tables that are not as approved: {}", [different.as_slice(), strange.as_slice()].concat().join(", ")));
        }
        let deleted: u64 = approved.values().map(|table| table.deleted).sum();
        let updated: u64 = approved.values().map(|table| table.updated).sum();
        let added = (rows(expected) + deleted).saturating_sub(rows(before));

        let page = &self.page;
        page.space();
        page.line(Ink::Bold, &format!("   {:<52}  what happened", "What the agents tried"));
        page.line(Ink::Dim, &format!("   {}", "─".repeat(94)));
        for (what, ink, outcome) in &self.outcomes {
            page.pair(what, *ink, outcome);
        }
        page.line(Ink::Dim, &format!("   {}", "─".repeat(94)));
        let count = |number: u64| format!("{:>11}", thousands(number));
        page.pair("rows in production before", Ink::Plain, &count(rows(before)));
        page.pair("added by the company itself", Ink::Plain, &count(added));
        page.pair("deleted with approval", Ink::Plain, &count(deleted));
        page.pair("rows in production after", Ink::Plain, &count(rows(after)));
        page.pair("other rows updated with approval", Ink::Plain, &count(updated));
        let fine = different.is_empty() && strange.is_empty();
        page.pair(
            "tables in which any row is not as approved",
            if fine { Ink::Good } else { Ink::Bad },
            &format!("{} of {}", count((different.len() + strange.len()) as u64), expected.len()),
        );
        page.space();
        for fault in &self.faults {
            page.line(Ink::Bad, &format!("   WRONG: {fault}"));
        }
        page.line(Ink::Dim, &format!("   The whole story took {} s.", took.as_secs()));
        page.line(if lost == 0 { Ink::Good } else { Ink::Bad }, &format!("   Rows lost without approval: {}", thousands(lost)));
    }

    /// Thaws, says how to go on by hand, and waits for Ctrl-C.
    async fn stay(&mut self) -> anyhow::Result<()> {
        self.page.doing("thawing, so that it can be tried by hand");
        self.gateway.command(&mut self.jonas, &["thaw", "--all", "--reason", "to try it by hand"], &[]).await?;
        let page = &self.page;
        let folder = self.gateway.folder().display();
        let program = self.gateway.program().display();
        page.space();
        page.line(Ink::Bold, "Everything keeps running until Ctrl-C. Try it in another terminal:");
        page.space();
        page.line(Ink::Dim, "   # an agent");
        page.line(Ink::Plain, &format!("   psql '{}'", self.migrations));
        page.line(Ink::Plain, &format!("   psql '{}'", self.cursor));
        page.line(Ink::Dim, "   # a superuser, past the gateway");
        page.line(Ink::Plain, &format!("   psql '{}'", self.company.superuser_url(PRODUCTION)));
        page.line(Ink::Dim, "   # an operator");
        page.line(Ink::Plain, &format!("   cd {folder}; reprieve() {{ {program} \"$@\"; }}"));
        page.line(Ink::Plain, "   reprieve hold list; reprieve hold show H-2; reprieve ledger tail; reprieve freeze --all");
        page.line(Ink::Plain, &format!("   export REPRIEVE_OPERATOR={} REPRIEVE_PASSPHRASE={}", self.jonas.name, self.jonas.passphrase));
        page.line(Ink::Plain, &format!("   export REPRIEVE_CODE=$(oathtool --totp -b {})", self.jonas.secret()));
        page.line(Ink::Plain, "   reprieve hold approve H-2 --confirm reservations --reason 'let us see'");
        page.line(Ink::Dim, "   # the other one; the agent is hers, so she can't be its only approver");
        page.line(Ink::Plain, &format!("   export REPRIEVE_OPERATOR={} REPRIEVE_PASSPHRASE={}", self.ana.name, self.ana.passphrase));
        page.line(Ink::Plain, &format!("   export REPRIEVE_CODE=$(oathtool --totp -b {})", self.ana.secret()));
        page.space();
        let wait = self.jonas.fresh_in()?.max(self.ana.fresh_in()?);
        page.line(
            Ink::Plain,
            &format!("   Each code works once, and the demo has used some: the next ones count in {} s.", wait.as_secs()),
        );
        page.space();
        loop {
            if page.is_terminal() {
                let codes = [&self.jonas, &self.ana].map(|person| Ok(format!("{} {}", person.name, person.code_now()?)));
                let [jonas, ana]: [anyhow::Result<String>; 2] = codes;
                page.doing(&format!("codes now: {}, {}; Ctrl-C ends it all", jonas?, ana?));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

impl Answer {
    /// What a client made of an error: the server's words, or none if there was no server.
    fn of(error: &tokio_postgres::Error) -> anyhow::Result<Self> {
        let error = error.as_db_error().with_context(|| format!("no answer of a server: {error}"))?;
        Ok(Self::Error { code: error.code().code().to_owned(), message: error.message().trim_start_matches("reprieve: ").to_owned() })
    }

    fn is(&self, expected: &str) -> bool {
        matches!(self, Self::Error { code, .. } if code == expected)
    }

    fn says(&self, words: &str) -> bool {
        matches!(self, Self::Error { message, .. } if message.contains(words))
    }

    /// The hold it names.
    fn hold(&self) -> Option<HoldId> {
        let Self::Error { message, .. } = self else { return None };
        message.split([' ', ':']).find(|word| word.starts_with("H-"))?.parse().ok()
    }
}

/// What was approved, without the company's own load test.
fn approved_part(touched: &BTreeMap<String, TableReach>) -> BTreeMap<String, TableReach> {
    touched.iter().map(|(name, rows)| (name.clone(), TableReach { inserted: 0, ..*rows })).collect()
}

/// Sends one statement as `psql` would.
async fn ask(client: &Client, statement: &str) -> anyhow::Result<Answer> {
    match client.simple_query(statement).await {
        Ok(messages) => {
            let rows = messages.iter().map(|message| if let SimpleQueryMessage::CommandComplete(rows) = message { *rows } else { 0 }).sum();
            Ok(Answer::Ran { rows })
        }
        Err(error) => Answer::of(&error),
    }
}

fn copy_if_there(from: &Path, to: &Path) -> anyhow::Result<()> {
    if from.exists() {
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// Changes one bit in the words in which jonas approved, where they are recorded.
fn flip_one_bit(file: &Path) -> anyhow::Result<()> {
    let mut bytes = fs::read(file).context("cannot read the copy")?;
    let find = |bytes: &[u8], words: &[u8]| bytes.windows(words.len()).position(|window| window == words);
    let event = b"\"event\":\"hold_answered\"";
    let mut from = 0;
    let at = loop {
        let answered = from + find(&bytes[from..], event).context("the copy has no such event")?;
        let near = bytes.len().min(answered + 1_000);
        match find(&bytes[answered..near], APPROVAL.as_bytes()) {
            Some(offset) => break answered + offset,
            None => from = answered + event.len(),
        }
    };
    bytes[at] ^= 1;
    fs::write(file, bytes).context("cannot write the copy")
}

/// Tables, the greatest loss first.
fn by_loss(reach: &Reach) -> Vec<(&String, &TableReach)> {
    let mut tables: Vec<_> = reach.tables.iter().collect();
    tables.sort_by_key(|(_, rows)| std::cmp::Reverse((rows.deleted, rows.updated, rows.inserted)));
    tables
}

fn in_words(rows: TableReach) -> String {
    let mut parts = Vec::new();
    for (count, verb) in [(rows.deleted, "deleted"), (rows.updated, "updated"), (rows.inserted, "inserted")] {
        if count > 0 {
            parts.push(format!("{:>9} {verb}", thousands(count)));
        }
    }
    parts.join(", ")
}

/// A reach in one line.
fn brief(reach: &Reach) -> String {
    let mut text = String::new();
    let objects = |names: &[String]| names.iter().map(|name| name.trim_start_matches("public.")).collect::<Vec<_>>().join(", ");
    if !reach.dropped.is_empty() {
        let _ = write!(text, "drops {}; ", objects(&reach.dropped));
    }
    if !reach.rewritten.is_empty() {
        let _ = write!(text, "empties {}; ", objects(&reach.rewritten));
    }
    let tables = reach.tables.len();
    let how = if reach.estimated { "from the catalogue, it was not run" } else { "measured, rolled back" };
    let _ = write!(text, "{} rows in {tables} table{} ({how})", thousands(reach.rows()), if tables == 1 { "" } else { "s" });
    text
}

/// The token in an agent's URL.
fn token_of(url: &str) -> anyhow::Result<String> {
    let login = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(login, _)| login);
    Ok(login.and_then(|login| login.split_once(':')).context("an agent's URL without a token")?.1.to_owned())
}

fn text_of(value: &serde_json::Value) -> anyhow::Result<&str> {
    value.as_str().context("an answer without a name")
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
