//! Recovery: what is expected of each system's copies, what a decision learns of them, and what people are shown.
//!
//! Copies are made and tried by processes of their own (`service/recovery`), which send signed notes; see [`Recovery::take`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reprieve_operation::{Environment, RECOVERABLE, RecoveryFacts, RecoveryState, SystemName, Timestamp};
use serde::Serialize;

use crate::desk::DeskAnswer;

/// How much may be lost, and how long it may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Objective {
    /// The most that may be lost.
    pub rpo: Option<Duration>,
    /// The longest that it may take.
    pub rto: Option<Duration>,
}

/// How much longer ago than promised the newest that is kept may be: one looks once in a while only.
const PATIENCE: Duration = Duration::from_secs(60);

/// Up to when each system's log is kept, besides its copies.
#[derive(Debug, Default)]
pub struct Covered(Mutex<HashMap<SystemName, Timestamp>>);

impl Covered {
    /// What was written up to then is kept.
    pub fn note(&self, system: &SystemName, at: Timestamp) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = known.entry(system.clone()).or_insert(at);
        *newest = at.max(*newest);
    }

    /// The newest moment that a restore would reach, with a copy that began at `backup`; none without one.
    #[must_use]
    pub fn until(&self, system: &SystemName, backup: Option<Timestamp>) -> Option<Timestamp> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(system).copied();
        backup.map(|backup| known.map_or(backup, |known| known.max(backup)))
    }
}

/// Whether more would be lost than was promised, if all were lost now. Nothing kept at all is another matter.
#[must_use]
pub fn is_behind(promised: Option<Duration>, reaches: Option<Timestamp>, now: Timestamp) -> bool {
    promised.zip(reaches).is_some_and(|(promised, reaches)| now.since(reaches) > promised.saturating_add(PATIENCE))
}

/// What is expected of one system's copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// A drill has to pass this often.
    pub window: Duration,
    /// How long ago the newest that is kept may be; `None`: nothing was promised, or it can't be told here.
    pub reach: Option<Duration>,
    /// Whether the copies lie where what destroys the system may destroy them too.
    pub same_blast_radius: bool,
}

/// What is expected of all systems' copies.
#[derive(Debug, Clone, Default)]
pub struct Copies {
    /// Up to when each one's log is kept.
    pub covered: Arc<Covered>,
    /// Systems with copies of ours.
    pub expected: HashMap<SystemName, Expected>,
    /// A drill has to pass this often for every other production system too; `None`: they are not asked about.
    pub everywhere: Option<Duration>,
}

impl Copies {
    /// The window in which a drill has to have passed, where one is expected at all.
    fn window(&self, system: &SystemName, environment: &Environment) -> Option<Duration> {
        let own = self.expected.get(system).map(|expected| expected.window);
        own.or(self.everywhere.filter(|_| environment.is_production()))
    }

    /// What a decision may look at.
    #[must_use]
    pub fn facts(&self, system: &SystemName, environment: &Environment, state: Option<&RecoveryState>, now: Timestamp) -> RecoveryFacts {
        let drill = state.and_then(|state| state.drill).filter(|drill| drill.level >= RECOVERABLE);
        let drill_age = drill.map(|drill| now.since(drill.at));
        let window = self.window(system, environment);
        let backup = state.and_then(|state| state.backup);
        let reach = self.expected.get(system).and_then(|expected| expected.reach);
        let behind = is_behind(reach, self.covered.until(system, backup), now);
        RecoveryFacts {
            backup_age: backup.map(|backup| now.since(backup)),
            drill_age,
            // Where nobody said where the copies are, they don't count as safe.
            same_blast_radius: self.expected.get(system).is_none_or(|expected| expected.same_blast_radius),
            rpo: drill.and_then(|drill| drill.rpo_ms).map(Duration::from_millis),
            rto: drill.map(|drill| Duration::from_millis(drill.rto_ms)),
            unproven: behind || window.is_some_and(|window| drill_age.is_none_or(|age| age > window)),
        }
    }
}

/// Why nothing proves that a system comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unproven {
    /// Nobody asked for copies of it.
    NotConfigured,
    /// There is no copy.
    NoBackup,
    /// The newest copy is not where it was put.
    Missing,
    /// There was no drill yet.
    NoDrill,
    /// The last drill failed.
    Failed,
    /// The last drill is too long ago.
    TooOld,
    /// What was written lately is not kept, for longer than was promised.
    Behind,
}

impl Unproven {
    /// Why, in words.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::NotConfigured => "no copies of it are made",
            Self::NoBackup => "there is no copy yet",
            Self::Missing => "the newest copy is not in the vault",
            Self::NoDrill => "no copy was ever restored",
            Self::Failed => "the last drill failed",
            Self::TooOld => "the last drill is too long ago",
            Self::Behind => "what was written lately is kept nowhere, for longer than was promised",
        }
    }
}

/// The middle, the slow end and the worst of the drills of 90 days, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Half were at most this.
    pub p50: u64,
    /// Nineteen of twenty were at most this.
    pub p95: u64,
    /// None was more.
    pub worst: u64,
}

impl Spread {
    /// Of these values; none of nothing.
    #[must_use]
    pub fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        let at = |share: usize| values.get((values.len() * share).div_ceil(100).saturating_sub(1)).copied();
        Some(Self { p50: at(50)?, p95: at(95)?, worst: *values.last()? })
    }
}

/// How many failures a report tells of.
pub const FAILURES: usize = 8;

/// A drill that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// Its number.
    pub drill: String,
    /// Why.
    pub reason: String,
    /// What somebody said was done about it, and when they did.
    pub remedy: Option<(Timestamp, String)>,
}

/// The drills of one day that had any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DrillDay {
    /// Days since 1970, UTC.
    pub day: u64,
    /// How many passed.
    pub passed: u64,
    /// How many failed.
    pub failed: u64,
    /// The most that one which passed lost, in milliseconds.
    pub rpo_ms: Option<u64>,
    /// The longest that one which passed took, in milliseconds.
    pub rto_ms: Option<u64>,
}

/// The drill that ended last, step by step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastDrill {
    /// When it ended.
    pub at: Timestamp,
    /// Its number.
    pub drill: String,
    /// Whether all of it stood.
    pub passed: bool,
    /// What it lost, in milliseconds.
    pub rpo_ms: Option<u64>,
    /// From the command to the first query that what came back answered, in milliseconds.
    pub rto_ms: Option<u64>,
    /// Steps and their milliseconds, as the verifier signed them.
    pub phases: Vec<(String, u64)>,
    /// How many checks stood, of how many.
    pub checks: (usize, usize),
}

/// What is known of one system's copies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SystemRecovery {
    /// The system.
    pub system: SystemName,
    /// Where it is.
    pub environment: Environment,
    /// Why nothing proves that it comes back; `None`: a drill within the window did.
    pub unproven: Option<Unproven>,
    /// How often a drill has to pass, in seconds.
    pub window_s: Option<u64>,
    /// The most that may be lost, in seconds.
    pub objective_rpo_s: Option<u64>,
    /// The longest that it may take, in seconds.
    pub objective_rto_s: Option<u64>,
    /// When the newest copy began.
    pub backup: Option<Timestamp>,
    /// When a copy last failed.
    pub backup_failed: Option<Timestamp>,
    /// The newest moment that a restore would reach.
    pub reaches: Option<Timestamp>,
    /// Copies of the last 90 days.
    pub backups: u64,
    /// The newest copy's size before and after it was compressed and sealed.
    pub bytes: Option<(u64, u64)>,
    /// Where the copies are, in words.
    pub place: String,
    /// Whether what destroys the system may destroy them too.
    pub same_blast_radius: bool,
    /// Until when nobody can delete them, in words.
    pub locked: String,
    /// Whether each copy is looked at for a lock that nobody can take away.
    pub is_locked: bool,
    /// Whether what tries them has its key elsewhere than this gateway.
    pub tried_apart: bool,
    /// When a drill last passed, the level it proved, and where the ledger says so.
    pub passed: Option<(Timestamp, u8, u64)>,
    /// The last drills that failed, newest first, at most [`FAILURES`] of 90 days.
    pub failures: Vec<Failure>,
    /// The drill that ended last.
    pub last: Option<LastDrill>,
    /// The days of the last 90 that had drills, oldest first.
    pub days: Vec<DrillDay>,
    /// Drills that passed and failed in the last 90 days.
    pub drills: (u64, u64),
    /// What they lost.
    pub rpo_ms: Option<Spread>,
    /// How long they took.
    pub rto_ms: Option<Spread>,
}

/// What is known of all systems' copies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecoveryReport {
    /// As of when.
    pub at: Timestamp,
    /// The systems.
    pub systems: Vec<SystemRecovery>,
}

/// Takes notes of those who make and try copies, and tells what is known.
pub trait Recovery: Send + Sync {
    /// Takes a note signed by the process that copies, or by the verifier, into the ledger: each once, and in time.
    fn take(&self, note: String) -> DeskAnswer<'_>;

    /// What is known now.
    fn report(&self) -> RecoveryReport;

    /// Whether everybody may know it.
    fn is_published(&self) -> bool;

    /// The same as a note that the gateway signed, for whoever has its public key; `None` where it is not published.
    fn published(&self) -> Option<String>;
}

#[cfg(test)]
mod tests {
    use reprieve_operation::DrillState;

    use super::*;

    #[test]
    fn a_drill_counts_within_its_window_only() {
        let system: SystemName = "shop".parse().expect("a name");
        let hour = Duration::from_secs(3_600);
        let expected = Expected { window: hour, reach: None, same_blast_radius: true };
        let asked = Copies { expected: HashMap::from([(system.clone(), expected)]), ..Copies::default() };
        let everywhere = Copies { everywhere: Some(hour), ..Copies::default() };
        let now = Timestamp(100 * 3_600_000);
        let drilled = |hours_ago: u64, level| RecoveryState {
            drill: Some(DrillState { at: Timestamp(now.0 - hours_ago * 3_600_000), level, rpo_ms: None, rto_ms: 1 }),
            ..RecoveryState::default()
        };
        for (copies, environment, state, unproven) in [
            (&Copies::default(), "production", None, false),
            (&asked, "production", None, true),
            (&asked, "production", Some(RecoveryState::default()), true),
            (&asked, "production", Some(drilled(1, 4)), false),
            (&asked, "production", Some(drilled(1, 3)), true),
            (&asked, "production", Some(drilled(2, 5)), true),
            (&everywhere, "production", None, true),
            (&everywhere, "staging", None, false),
        ] {
            let environment: Environment = environment.parse().expect("a name");
            let facts = copies.facts(&system, &environment, state.as_ref(), now);
            assert_eq!(facts.unproven, unproven, "{copies:?} {environment} {state:?}");
        }
    }

    #[test]
    fn what_is_not_kept_any_more_is_not_proved_by_what_was() {
        let system: SystemName = "shop".parse().expect("a name");
        let production: Environment = "production".parse().expect("a name");
        let (hour, minute) = (3_600_000, 60_000);
        let now = Timestamp(100 * hour);
        let drill = DrillState { at: Timestamp(now.0 - 2 * minute), level: 4, rpo_ms: Some(1), rto_ms: 1 };
        let state = RecoveryState { backup: Some(Timestamp(now.0 - hour)), drill: Some(drill), ..RecoveryState::default() };
        let unproven = |reach: Option<u64>, kept: Option<u64>| {
            let expected =
                Expected { window: Duration::from_secs(86_400), reach: reach.map(Duration::from_millis), same_blast_radius: false };
            let copies = Copies { expected: HashMap::from([(system.clone(), expected)]), ..Copies::default() };
            // The later counts, in whatever order it is told.
            kept.into_iter().flat_map(|kept| [kept, kept + 5 * hour]).for_each(|ago| copies.covered.note(&system, Timestamp(now.0 - ago)));
            copies.facts(&system, &production, Some(&state), now).unproven
        };
        for (reach, kept, expected) in [
            (None, None, false),
            (Some(hour), None, false),
            (Some(minute), None, true),
            (Some(minute), Some(2 * minute), false),
            (Some(minute), Some(2 * minute + 1), true),
            (None, Some(50 * hour), false),
        ] {
            assert_eq!(unproven(reach, kept), expected, "{reach:?} {kept:?}");
        }
    }

    #[test]
    fn the_worst_is_never_left_out() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![7]), Some(Spread { p50: 7, p95: 7, worst: 7 }));
        assert_eq!(Spread::of((1..=100).rev().collect()), Some(Spread { p50: 50, p95: 95, worst: 100 }));
    }
}
