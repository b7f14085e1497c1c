//! Drills: a recovery point, restored into a throw-away server and looked at with suspicion.
//!
//! Only the vault is used: nothing of the protected server, nothing that the gateway has here. Each level rests on the one below:
//! 0 the objects are there, 1 they are what was signed for, 2 they open, 3 a server starts over them and finds its files whole,
//! 4 its contents stand our checks, 5 they stand the owners' own. What can't be checked is not passed. A drill always ends in a
//! report.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use reprieve_gate::Objective;
use reprieve_operation::{Digest, RECOVERABLE, SystemName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    Contents, EngineKind, Manifest, RecoveryError, Source, Tools,
    engine::{SKEW, locked},
    heartbeat, read_point,
    restore::{Ground, Phases, Until, bring_back, fill},
    server::{Scratch, Server},
    survey::{out_of_band, survey},
    tools::{free_bytes, run},
};

/// A check's longest.
const CHECK: Duration = Duration::from_secs(3_600);
/// The longest that a check's words are kept.
const SAID: usize = 400;

/// How a drill is done.
#[derive(Debug, Clone)]
pub struct DrillOptions {
    /// What was promised.
    pub objective: Objective,
    /// Percent of its rows that a table may have more or less than when it was copied.
    pub band_percent: u64,
    /// The owners' own checks: each a query that answers one `t`.
    pub assertions: Vec<String>,
    /// Tables that may come back empty: unlogged ones are in no physical copy.
    pub may_be_empty: Vec<String>,
    /// For how long the vault promises that nobody can remove what is put.
    pub locked_for: Option<Duration>,
    /// Where the throw-away server's files go.
    pub scratch: PathBuf,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// At which level.
    pub level: u8,
    /// Whether it stood.
    pub ok: bool,
    /// What was found.
    pub said: String,
    /// How long it took.
    pub ms: u64,
}

/// What a drill came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillReport {
    /// The drill.
    pub drill: String,
    /// The system.
    pub system: SystemName,
    /// The recovery point, if one was found.
    pub point: Option<String>,
    /// When it began.
    pub began: Timestamp,
    /// Whether all of it stood.
    pub passed: bool,
    /// The highest level below which everything stood; none: not even the objects.
    pub level: Option<u8>,
    /// Why it failed.
    pub reason: Option<String>,
    /// How old the newest that came back was when the drill began.
    pub rpo_ms: Option<u64>,
    /// From the command to the first query that the restored server answered.
    pub rto_ms: Option<u64>,
    /// Steps and their milliseconds.
    pub phases: Vec<(String, u64)>,
    /// Every check.
    pub checks: Vec<Check>,
    /// The copy's size.
    pub plain_bytes: u64,
    /// Files of the log that were replayed.
    pub wal_files: usize,
}

impl DrillReport {
    /// A report on a drill that has not found anything yet.
    #[must_use]
    pub fn begin(drill: &str, system: &SystemName, began: Timestamp) -> Self {
        Self {
            drill: drill.to_owned(),
            system: system.clone(),
            point: None,
            began,
            passed: false,
            level: None,
            reason: None,
            rpo_ms: None,
            rto_ms: None,
            phases: Vec::new(),
            checks: Vec::new(),
            plain_bytes: 0,
            wal_files: 0,
        }
    }

    /// The same, failed.
    #[must_use]
    pub fn failed(self, reason: impl Into<String>) -> Self {
        Self { passed: false, reason: Some(reason.into()), ..self }
    }

    fn check(&mut self, level: u8, name: &str, work: impl FnOnce() -> Result<String, RecoveryError>) -> Result<(), RecoveryError> {
        let began = Instant::now();
        let result = work();
        let said = match &result {
            Ok(said) => said.clone(),
            Err(error) => error.in_words(),
        };
        let (ok, ms) = (result.is_ok(), millis(began.elapsed()));
        self.checks.push(Check { name: name.to_owned(), level, ok, said: said.chars().take(SAID).collect(), ms });
        result.map(drop)
    }

    /// Counts the levels and settles whether it passed.
    fn settle(&mut self) {
        let stood = |level: u8| {
            let mut at = self.checks.iter().filter(|check| check.level == level).peekable();
            at.peek().is_some() && at.all(|check| check.ok)
        };
        let highest = (0..=5).take_while(|level| stood(*level)).last();
        let failed: Vec<&str> = self.checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect();
        let reason = (!failed.is_empty()).then(|| {
            let first = self.checks.iter().find(|check| !check.ok).map_or("", |check| check.said.as_str());
            format!("{}: {first}", failed.join(", "))
        });
        let enough = highest.is_some_and(|level| level >= RECOVERABLE);
        self.level = highest;
        self.passed = failed.is_empty() && enough && self.reason.is_none();
        if self.reason.is_none() {
            self.reason = reason.or_else(|| (!enough).then(|| "it did not come to the checks of its contents".to_owned()));
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Restores a recovery point and looks at what came back. Blocks.
pub fn drill(ground: Ground<'_>, manifest: Digest, options: &DrillOptions, report: DrillReport) -> DrillReport {
    let mut report = report;
    let mut phases = Phases::default();
    // The receiver's files are the gateway's: the drill has to do without.
    let ground = Ground { received: None, ..ground };
    let began = Instant::now();
    if let Err(error) = story(ground, manifest, options, &mut report, &mut phases, began) {
        report.reason.get_or_insert_with(|| error.in_words());
    }
    report.phases = phases.0;
    report.settle();
    report
}

fn story(
    ground: Ground<'_>,
    manifest: Digest,
    options: &DrillOptions,
    report: &mut DrillReport,
    phases: &mut Phases,
    began: Instant,
) -> Result<(), RecoveryError> {
    let (mut read, report_began) = (None, report.began);
    report.check(0, "the objects are there", || {
        let (manifest, contents) = ground.handle.block_on(read_point(ground.vault, manifest, ground.key))?;
        let objects = there(ground, &contents)?;
        read = Some((manifest, contents));
        Ok(format!("{objects} objects, and a signed manifest"))
    })?;
    let Some((manifest, contents)) = read else { return Err(RecoveryError::Damaged("there is no manifest".to_owned())) };
    if let Some(time) = options.locked_for {
        let _stood = report.check(0, "they are locked", || {
            let until = locked(ground.vault, ground.handle, contents.all(), manifest.began.plus(time))?;
            Ok(format!("nobody can remove them for another {} hours", until.since(report_began).as_secs() / 3_600))
        });
    }
    report.point = Some(manifest.point.clone());
    report.plain_bytes = manifest.plain_bytes;
    if manifest.system != report.system {
        return Err(RecoveryError::Damaged(format!("the recovery point is of `{}`", manifest.system)));
    }
    report.check(0, "dated", || {
        let ahead = manifest.began.max(manifest.ended).since(report_began);
        if ahead > SKEW {
            return Err(RecoveryError::Check(format!("the copy is dated {} s after the drill began: a clock is wrong", ahead.as_secs())));
        }
        Ok("before the drill".to_owned())
    })?;
    manifest.may_be_opened_by(ground.identity)?;
    let tools = Tools::find(Some(manifest.major))?;
    let scratch = Scratch::make(&tools, &options.scratch)?;
    let looked = match manifest.engine {
        EngineKind::Physical => physical(ground, &tools, &manifest, &contents, &scratch, options, report, phases, began),
        EngineKind::Logical => logical(ground, &tools, &manifest, &contents, &scratch, options, report, phases, began),
    };
    // Whatever came of it, nothing stays.
    let destroyed = phases.time("destroy", || scratch.destroy());
    looked.and(destroyed)
}

/// Level 0: each object is there and has its size.
fn there(ground: Ground<'_>, contents: &Contents) -> Result<usize, RecoveryError> {
    let mut looked = HashSet::new();
    for object in contents.all().filter(|object| looked.insert(object.digest)) {
        let found = ground.handle.block_on(ground.vault.describe(object.digest))?;
        if found != *object {
            return Err(RecoveryError::Damaged(format!("the object {} has another size than was signed for", object.digest)));
        }
    }
    Ok(looked.len())
}

#[allow(clippy::too_many_arguments, reason = "the two halves of one story")]
fn physical(
    ground: Ground<'_>,
    tools: &Tools,
    manifest: &Manifest,
    contents: &Contents,
    scratch: &Scratch,
    options: &DrillOptions,
    report: &mut DrillReport,
    phases: &mut Phases,
    began: Instant,
) -> Result<(), RecoveryError> {
    let data = scratch.path().join("data");
    let mut back = None;
    let brought = report.check(3, "a server starts over it", || {
        let brought = bring_back(ground, tools, manifest, contents, &data, scratch.path(), &Until::Newest, false, phases)?;
        let said = format!("{} files of the log replayed, pg_verifybackup found every file whole", brought.wal_files);
        back = Some(brought);
        Ok(said)
    });
    opened(report, &data, phases);
    brought?;
    let Some(back) = back else { return Err(RecoveryError::Check("the server is gone".to_owned())) };
    report.rto_ms = Some(millis(began.elapsed()));
    report.wal_files = back.wal_files;
    // What was committed last came back; a heartbeat says more where nothing is committed for hours.
    let newest = back.heartbeat.max(back.last_commit.filter(|_| back.heartbeat.is_none())).unwrap_or(manifest.began);
    date(report, newest, began);
    let source = back.server.source(&manifest.database);
    let _stood = report.check(3, "amcheck", || amcheck(tools, &source));
    look(tools, &source, manifest, contents, true, back.wal_files > 0, back.heartbeat.is_some(), options, report);
    drop(back);
    Ok(())
}

/// Levels 1 and 2, which showed while the copy was read: every object was checked against its name, and the whole was opened.
fn opened(report: &mut DrillReport, data: &Path, phases: &Phases) {
    let unpacked = data.join("PG_VERSION").exists();
    let ms = phases.0.iter().find(|(step, _)| step == "fetch").map_or(0, |(_, ms)| *ms);
    let failure = report.checks.iter().find(|check| !check.ok).map(|check| check.said.clone());
    // What was unpacked in part only may have failed at either level: then neither stands.
    let whole = unpacked && phases.0.iter().any(|(step, _)| step == "pg_verifybackup");
    read_whole(report, whole, failure.as_deref().unwrap_or("not read to the end"), ms);
}

/// Says whether every object was read to its end, which is what both levels take.
fn read_whole(report: &mut DrillReport, ok: bool, failure: &str, ms: u64) {
    let said = if ok { "read to the end" } else { failure };
    for (level, name) in [(1, "the objects are what was signed for"), (2, "they open")] {
        report.checks.push(Check { name: name.to_owned(), level, ok, said: said.chars().take(SAID).collect(), ms });
    }
}

#[allow(clippy::too_many_arguments, reason = "the two halves of one story")]
fn logical(
    ground: Ground<'_>,
    tools: &Tools,
    manifest: &Manifest,
    contents: &Contents,
    scratch: &Scratch,
    options: &DrillOptions,
    report: &mut DrillReport,
    phases: &mut Phases,
    began: Instant,
) -> Result<(), RecoveryError> {
    let (free, needed) = (free_bytes(scratch.path())?, manifest.plain_bytes.saturating_mul(2).saturating_add(256 << 20));
    if free < needed {
        return Err(RecoveryError::Refused(format!(
            "no room in `{}`: {needed} bytes are needed, {free} are free",
            scratch.path().display()
        )));
    }
    let data = scratch.path().join("data");
    let mut running = None;
    report.check(3, "a server starts", || {
        phases.time("make a server", || {
            let mut command = tools.served("initdb");
            command
                .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username"])
                .arg(&manifest.superuser)
                .arg("--pgdata")
                .arg(&data);
            run(command, CHECK)
        })?;
        let folder = scratch.path().join("server");
        tools.own_folder(&folder)?;
        let settings = [("fsync", "off".to_owned())];
        let server = phases.time("start", || Server::start(tools, &folder, &data, &manifest.superuser, &settings, CHECK))?;
        let name = manifest.database.replace('"', "\"\"");
        if manifest.database != "postgres" {
            server.source("postgres").sql(tools, &format!("CREATE DATABASE \"{name}\" TEMPLATE template0"), CHECK)?;
        }
        running = Some(server);
        Ok("an empty one".to_owned())
    })?;
    let Some(server) = running else { return Err(RecoveryError::Check("the server is gone".to_owned())) };
    let source = server.source(&manifest.database);
    let filled = phases.time("restore", || fill(ground, tools, contents, &source));
    read_whole(report, filled.is_ok(), &filled.as_ref().err().map(RecoveryError::in_words).unwrap_or_default(), 0);
    filled?;
    report.rto_ms = Some(millis(began.elapsed()));
    let beat = heartbeat::last(&source, tools)?.map(Timestamp);
    date(report, beat.unwrap_or(manifest.began), began);
    let _stood = report.check(3, "amcheck", || amcheck(tools, &source));
    look(tools, &source, manifest, contents, false, false, beat.is_some(), options, report);
    Ok(())
}

/// How much would be lost: the age of the newest that came back, when the drill began. What is from the future dates nothing.
fn date(report: &mut DrillReport, newest: Timestamp, began: Instant) {
    let ahead = newest.since(report.began);
    if ahead > began.elapsed() + SKEW {
        let said = format!("what came back is dated {} s after the drill began: a clock is wrong, or somebody dated it", ahead.as_secs());
        report.checks.push(Check { name: "dated".to_owned(), level: 4, ok: false, said, ms: 0 });
        return;
    }
    report.rpo_ms = Some(millis(report.began.since(newest)));
}

/// Every table and every index, page by page.
fn amcheck(tools: &Tools, source: &Source) -> Result<String, RecoveryError> {
    let there = source.sql(tools, "SELECT count(*) FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck'", CHECK)?;
    if there != "1" {
        return Ok("not looked at: the extension amcheck is not installed here".to_owned());
    }
    let mut command = tools.client("pg_amcheck");
    source.tell(&mut command).args(["--all", "--install-missing", "--jobs=2", "--no-password"]).env_remove("PGDATABASE");
    run(command, CHECK)?;
    Ok("every table and B-tree index is sound".to_owned())
}

/// Levels 4 and 5. Each check is made, whatever the others found.
#[allow(clippy::too_many_arguments, reason = "what the checks compare")]
fn look(
    tools: &Tools,
    source: &Source,
    manifest: &Manifest,
    contents: &Contents,
    all: bool,
    replayed: bool,
    has_heartbeat: bool,
    options: &DrillOptions,
    report: &mut DrillReport,
) {
    let mut restored = None;
    let _stood = report.check(4, "rows", || {
        let found = survey(source, tools, all, true)?;
        let mut wrong = Vec::new();
        let mut tables = 0;
        for (database, before) in &contents.before {
            tables += before.rows.len();
            let after = contents.after.get(database).unwrap_or(before);
            match found.get(database) {
                Some(now) => wrong.extend(out_of_band(before, after, now, options.band_percent, &options.may_be_empty)),
                None => wrong.push(format!("the database `{database}` is missing")),
            }
        }
        restored = Some(found);
        if tables == 0 {
            return Err(RecoveryError::Check("when it was copied there was not a single table: nothing can be compared".to_owned()));
        }
        if wrong.is_empty() {
            Ok(format!("{tables} tables, each within {} % of what it had", options.band_percent))
        } else {
            Err(RecoveryError::Check(wrong.join("; ")))
        }
    });
    let _stood = report.check(4, "schema", || {
        let found = restored.as_ref().ok_or_else(|| RecoveryError::Check("what came back could not be looked at".to_owned()))?;
        let same = |name: &String| {
            let now = found.get(name).map(|database| &database.schema);
            [&contents.before, &contents.after].into_iter().any(|survey| survey.get(name).map(|database| &database.schema) == now)
        };
        let other: Vec<&str> = contents.before.keys().filter(|name| !same(name)).map(String::as_str).collect();
        match (other.is_empty(), replayed) {
            (true, _) => Ok("as it was when it was copied".to_owned()),
            (false, true) => Ok(format!("changed since the copy, by the log: {}", other.join(", "))),
            (false, false) => Err(RecoveryError::Check(format!("not as it was when it was copied: {}", other.join(", ")))),
        }
    });
    let databases: Vec<String> = if all { contents.before.keys().cloned().collect() } else { vec![manifest.database.clone()] };
    let _stood = report.check(4, "foreign keys", || {
        let mut count = 0;
        for database in &databases {
            count += foreign_keys(tools, &source.on(database))?;
        }
        Ok(format!("{count} hold"))
    });
    let (rpo, rto) = (report.rpo_ms, report.rto_ms);
    let _stood = report.check(4, "objective", || {
        let dated = if has_heartbeat { "by its heartbeat" } else { "by what was committed last, there is no heartbeat" };
        for (what, limit, value) in [("lost", options.objective.rpo, rpo), ("needed", options.objective.rto, rto)] {
            if let (Some(limit), Some(value)) = (limit, value)
                && value > millis(limit)
            {
                return Err(RecoveryError::Check(format!(
                    "{:.1} s were {what}, {dated}; at most {} s are promised",
                    value as f64 / 1000.0,
                    limit.as_secs()
                )));
            }
        }
        Ok(format!(
            "{:.1} s would be lost, {dated}; {:.1} s to the first query",
            rpo.unwrap_or(0) as f64 / 1000.0,
            rto.unwrap_or(0) as f64 / 1000.0
        ))
    });
    for (number, assertion) in options.assertions.iter().enumerate() {
        let _stood = report.check(5, &format!("own check {}", number + 1), || {
            let answer = source.sql(tools, assertion, CHECK)?;
            if answer == "t" {
                Ok(assertion.clone())
            } else {
                Err(RecoveryError::Check(format!("`{assertion}` answered `{answer}`, not `t`")))
            }
        });
    }
}

/// Has PostgreSQL check every foreign key again, against every row. For a throw-away server only.
fn foreign_keys(tools: &Tools, source: &Source) -> Result<u64, RecoveryError> {
    let sql = "SET client_min_messages = error;
        DO $$ DECLARE k record; BEGIN
          FOR k IN SELECT c.oid, c.conrelid::pg_catalog.regclass AS tab, c.conname FROM pg_catalog.pg_constraint c
                   WHERE c.contype = 'f' AND c.convalidated AND c.conparentid = 0 LOOP
            UPDATE pg_catalog.pg_constraint SET convalidated = false WHERE oid = k.oid;
            EXECUTE pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', k.tab, k.conname);
          END LOOP; END $$;
        SELECT count(*) FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conparentid = 0";
    source.sql(tools, sql, CHECK)?.parse().map_err(|_| RecoveryError::Check("foreign keys could not be counted".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checks: &[(u8, bool)]) -> DrillReport {
        let mut report = DrillReport::begin("D-1", &"shop".parse().expect("a name"), Timestamp(0));
        report.checks =
            checks.iter().map(|(level, ok)| Check { name: "x".to_owned(), level: *level, ok: *ok, said: String::new(), ms: 0 }).collect();
        report.settle();
        report
    }

    #[test]
    fn a_level_rests_on_those_below() {
        let good = [(0, true), (1, true), (2, true), (3, true), (4, true)];
        for (checks, level, passed) in [
            (good.to_vec(), Some(4), true),
            ([&good[..], &[(5, true)]].concat(), Some(5), true),
            ([&good[..], &[(5, false)]].concat(), Some(4), false),
            (good[..4].to_vec(), Some(3), false),
            (vec![(0, true), (2, true), (3, true), (4, true)], Some(0), false),
            ([&good[..], &[(4, false)]].concat(), Some(3), false),
            (vec![], None, false),
            (vec![(0, false)], None, false),
        ] {
            let report = report(&checks);
            assert_eq!((report.level, report.passed), (level, passed), "{checks:?}");
            assert_eq!(report.reason.is_none(), passed, "{checks:?}");
        }
    }

    #[test]
    fn what_went_wrong_elsewhere_is_not_passed() {
        let mut report = report(&[(0, true), (1, true), (2, true), (3, true), (4, true)]);
        report.reason = Some("the files could not be taken away".to_owned());
        report.settle();
        assert!(!report.passed);
    }
}
