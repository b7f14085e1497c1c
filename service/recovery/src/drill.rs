//! Drills: a recovery point, restored into a throw-away place and looked at with suspicion.
//!
//! Only the vault is used: nothing of the protected system, nothing that the gateway has here. Each level rests on the one below:
//! 0 the objects are there, 1 they are what was signed for, 2 they open, 3 what they hold is whole and can be used, 4 its contents
//! stand our checks, 5 they stand the owners' own. What can't be checked is not passed. A drill always ends in a report. How each
//! engine's copies are looked at is in its own file.

mod files;
mod postgres;
mod sqlite;

use std::{
    collections::HashSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use reprieve_gate::Objective;
use reprieve_operation::{Digest, RECOVERABLE, SystemName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    Contents, EngineKind, Manifest, RecoveryError, Tools,
    engine::{SKEW, locked},
    read_point,
    restore::{Ground, Phases, stanza_of},
    survey::{Survey, out_of_band},
};

/// The longest that a check's words are kept.
const SAID: usize = 400;

/// How a drill is done.
#[derive(Debug, Clone)]
pub struct DrillOptions {
    /// What was promised.
    pub objective: Objective,
    /// Percent of its rows that a table may have more or less than when it was copied.
    pub band_percent: u64,
    /// The owners' own checks: of a database, queries that answer one `t` (SQLite: 1); of a folder, files that have to be there.
    pub assertions: Vec<String>,
    /// Tables, or folders, that may come back empty: unlogged tables are in no physical copy.
    pub may_be_empty: Vec<String>,
    /// For how long the vault promises that nobody can remove what is put.
    pub locked_for: Option<Duration>,
    /// Engines that its copies may be made by: one of another kind says nothing about what is protected now.
    pub engines: &'static [EngineKind],
    /// Where what comes back is put for as long as it is looked at.
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
    /// From the command to the first query that what came back answered.
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
    let mut phases = Phases::telling(ground.tell);
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
    if !options.engines.contains(&manifest.engine) {
        return Err(RecoveryError::Check(format!(
            "the newest copy is a {} copy, and the system is of another kind",
            manifest.engine.as_str()
        )));
    }
    manifest.may_be_opened_by(ground.identity)?;
    if let Some(elsewhere) = &manifest.elsewhere {
        report.check(0, "the repository has it", || {
            let info = stanza_of(ground, elsewhere)?.info(&Tools::find(Some(manifest.major))?)?;
            let kept = info.find(&elsewhere.label)?;
            Ok(format!("{}, {} bytes", kept.label, kept.stored_bytes))
        })?;
    }
    let trial = Trial { ground, manifest: &manifest, contents: &contents, options, began };
    match manifest.engine {
        EngineKind::Physical | EngineKind::Logical | EngineKind::Pgbackrest => postgres::tried(&trial, report, phases),
        EngineKind::Files => files::tried(&trial, report, phases),
        EngineKind::Sqlite => sqlite::tried(&trial, report, phases),
    }
}

/// What a drill is about.
struct Trial<'a> {
    ground: Ground<'a>,
    manifest: &'a Manifest,
    contents: &'a Contents,
    options: &'a DrillOptions,
    began: Instant,
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

/// Says whether every object was read to its end, which is what both levels take.
fn read_whole(report: &mut DrillReport, ok: bool, failure: &str, ms: u64) {
    let said = if ok { "read to the end" } else { failure };
    for (level, name) in [(1, "the objects are what was signed for"), (2, "they open")] {
        report.checks.push(Check { name: name.to_owned(), level, ok, said: said.chars().take(SAID).collect(), ms });
    }
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

/// Whether what came back has as much in it as what was copied.
fn rows(trial: &Trial<'_>, found: &Survey) -> Result<String, RecoveryError> {
    let (contents, options) = (trial.contents, trial.options);
    let mut wrong = Vec::new();
    let mut tables = 0;
    let is_folder = trial.manifest.engine == EngineKind::Files;
    for (database, before) in &contents.before {
        tables += before.rows.len();
        let after = contents.after.get(database).unwrap_or(before);
        match found.get(database) {
            Some(now) => wrong.extend(out_of_band(before, after, now, options.band_percent, &options.may_be_empty, is_folder)),
            None => wrong.push(format!("the database `{database}` is missing")),
        }
    }
    if tables == 0 {
        return Err(RecoveryError::Check("when it was copied there was not a single table: nothing can be compared".to_owned()));
    }
    if wrong.is_empty() {
        let what = if is_folder { "counts" } else { "tables" };
        Ok(format!("{tables} {what}, each within {} % of what it had", options.band_percent))
    } else {
        Err(RecoveryError::Check(wrong.join("; ")))
    }
}

/// Whether what was promised was kept. `dated`: by what we know how much would be lost.
fn objective(trial: &Trial<'_>, dated: &str, report: &mut DrillReport) {
    let (options, rpo, rto) = (trial.options, report.rpo_ms, report.rto_ms);
    let _stood = report.check(4, "objective", || {
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
