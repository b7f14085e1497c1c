//! The report: what the ledger's last 90 days say about each system's copies. Without a drill in its window: unproven, whatever
//! was measured before.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use reprieve_gate::{
    Covered, DrillDay, FAILURES, Failure, LastDrill, Objective, RecoveryReport, Spread, SystemRecovery, Unproven, is_behind,
};
use reprieve_operation::{Environment, Event, RECOVERABLE, Recorded, RecoveryState, SystemName, Timestamp};

use crate::{
    Place,
    note::{Say, recorded as said_in},
};

/// The kinds of events that the report is made of.
pub const KINDS: [&str; 6] = ["backup_made", "backup_failed", "drill_passed", "drill_failed", "drill_remedied", "copies_purged"];

/// How far back it looks.
const DAYS_90: Duration = Duration::from_secs(90 * 86_400);

/// A system, and what the settings say about its copies.
#[derive(Debug, Clone)]
pub struct Configured {
    /// The system.
    pub system: SystemName,
    /// Where it is.
    pub environment: Environment,
    /// Whether copies are made.
    pub copied: bool,
    /// A drill has to pass this often; none: it is not asked for.
    pub window: Option<Duration>,
    /// What was promised.
    pub objective: Objective,
    /// How long ago the newest that is kept may be; none: nothing was promised, or it can't be told here.
    pub reach: Option<Duration>,
    /// How long copies are kept; none: for good.
    pub keep: Option<Duration>,
    /// Where copies go.
    pub place: Place,
    /// Whether what tries them has its key elsewhere than this gateway.
    pub tried_apart: bool,
}

/// What is known. `events` are those of [`KINDS`], in any order.
#[must_use]
pub fn report(
    systems: &[Configured],
    state: &BTreeMap<SystemName, RecoveryState>,
    events: &[Recorded],
    covered: &Covered,
    now: Timestamp,
) -> RecoveryReport {
    let one = |configured: &Configured| {
        let nothing = RecoveryState::default();
        let known = state.get(&configured.system).unwrap_or(&nothing);
        let recent =
            events.iter().filter(|recorded| now.since(recorded.at) <= DAYS_90 && system_of(&recorded.event) == Some(&configured.system));
        let (mut backups, mut bytes, mut drills, mut rpo, mut rto) = (0, None, (0, 0), Vec::new(), Vec::new());
        let mut passed: Option<(Timestamp, u8, u64)> = None;
        let mut failures: Vec<Failure> = Vec::new();
        let mut last: Option<&Recorded> = None;
        let mut days: BTreeMap<u64, DrillDay> = BTreeMap::new();
        let mut remedies: HashMap<&str, (Timestamp, &str)> = HashMap::new();
        let mut newest_copy = None;
        for recorded in recent {
            if matches!(recorded.event, Event::DrillPassed { .. } | Event::DrillFailed { .. }) {
                last = last.filter(|last| last.index > recorded.index).or(Some(recorded));
                add(&mut days, recorded);
            }
            match &recorded.event {
                Event::BackupMade { began, plain_bytes, stored_bytes, .. } => {
                    backups += 1;
                    if newest_copy.is_none_or(|newest| *began >= newest) {
                        newest_copy = Some(*began);
                        bytes = Some((*plain_bytes, *stored_bytes));
                    }
                }
                Event::DrillPassed { level, rpo_ms, rto_ms, .. } => {
                    drills.0 += 1;
                    rpo.extend(*rpo_ms);
                    rto.push(*rto_ms);
                    if passed.is_none_or(|(at, ..)| recorded.at >= at) {
                        passed = Some((recorded.at, *level, recorded.index));
                    }
                }
                Event::DrillFailed { drill, reason, .. } => {
                    drills.1 += 1;
                    failures.push(Failure { at: recorded.at, drill: drill.clone(), reason: reason.clone(), remedy: None });
                }
                Event::DrillRemedied { drill, remedy, .. } => {
                    let said = remedies.entry(drill).or_insert((recorded.at, remedy));
                    *said = (*said).max((recorded.at, remedy));
                }
                _ => {}
            }
        }
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.at));
        failures.truncate(FAILURES);
        for failure in &mut failures {
            failure.remedy = remedies.get(failure.drill.as_str()).map(|(at, remedy)| (*at, (*remedy).to_owned()));
        }
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
        let reaches = covered.until(&configured.system, known.backup);
        SystemRecovery {
            system: configured.system.clone(),
            environment: configured.environment.clone(),
            unproven: unproven(configured, known, reaches, now),
            window_s: seconds(configured.window),
            objective_rpo_s: seconds(configured.objective.rpo),
            objective_rto_s: seconds(configured.objective.rto),
            backup: known.backup,
            backup_failed: known.backup_failed,
            reaches,
            backups,
            bytes,
            place: configured
                .place
                .same_because
                .as_ref()
                .map_or_else(|| configured.place.name.clone(), |why| format!("{}: {why}", configured.place.name)),
            same_blast_radius: configured.place.same_because.is_some(),
            locked: configured.place.locked.clone(),
            is_locked: configured.place.is_locked,
            tried_apart: configured.tried_apart,
            passed,
            failures,
            last: last.and_then(last_drill),
            days: days.into_values().collect(),
            drills,
            rpo_ms: Spread::of(rpo),
            rto_ms: Spread::of(rto),
        }
    };
    RecoveryReport { at: now, systems: systems.iter().map(one).collect() }
}

/// Adds a drill to its day.
fn add(days: &mut BTreeMap<u64, DrillDay>, recorded: &Recorded) {
    let day = recorded.at.0 / 86_400_000;
    let of = days.entry(day).or_insert(DrillDay { day, passed: 0, failed: 0, rpo_ms: None, rto_ms: None });
    match &recorded.event {
        Event::DrillPassed { rpo_ms, rto_ms, .. } => {
            of.passed += 1;
            of.rpo_ms = of.rpo_ms.max(*rpo_ms);
            of.rto_ms = of.rto_ms.max(Some(*rto_ms));
        }
        _ => of.failed += 1,
    }
}

fn last_drill(recorded: &Recorded) -> Option<LastDrill> {
    let (drill, note, passed, rpo_ms, rto_ms) = match &recorded.event {
        Event::DrillPassed { drill, note, rpo_ms, rto_ms, .. } => (drill, note, true, *rpo_ms, Some(*rto_ms)),
        Event::DrillFailed { drill, note, .. } => (drill, note, false, None, None),
        _ => return None,
    };
    let ended = match said_in(note) {
        Some(Say::DrillEnded(ended)) => Some(ended),
        _ => None,
    };
    let (phases, checks) = ended.map_or_else(Default::default, |ended| {
        let stood = ended.checks.iter().filter(|check| check.ok).count();
        (ended.phases, (stood, ended.checks.len()))
    });
    Some(LastDrill { at: recorded.at, drill: drill.clone(), passed, rpo_ms, rto_ms, phases, checks })
}

fn unproven(configured: &Configured, known: &RecoveryState, reaches: Option<Timestamp>, now: Timestamp) -> Option<Unproven> {
    if !configured.copied && known.backup.is_none() {
        return Some(Unproven::NotConfigured);
    }
    if known.missing.is_some() {
        return Some(Unproven::Missing);
    }
    if known.backup.is_none() {
        return Some(Unproven::NoBackup);
    }
    match known.drill.filter(|drill| drill.level >= RECOVERABLE) {
        None if known.drill_failed.is_some() => Some(Unproven::Failed),
        None => Some(Unproven::NoDrill),
        // A window of a week where nobody chose one.
        Some(drill) if now.since(drill.at) > configured.window.unwrap_or(Duration::from_secs(7 * 86_400)) => Some(Unproven::TooOld),
        Some(_) if is_behind(configured.reach, reaches, now) => Some(Unproven::Behind),
        Some(_) => None,
    }
}

fn system_of(event: &Event) -> Option<&SystemName> {
    match event {
        Event::BackupMade { system, .. }
        | Event::BackupFailed { system, .. }
        | Event::DrillPassed { system, .. }
        | Event::DrillFailed { system, .. }
        | Event::DrillRemedied { system, .. } => Some(system),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use reprieve_ledger::Signer;
    use reprieve_operation::{Digest, State};

    use super::*;
    use crate::{
        DrillReport,
        note::{Notice, sign},
    };

    fn configured(system: &SystemName) -> Configured {
        Configured {
            system: system.clone(),
            environment: "production".parse().expect("a name"),
            copied: true,
            window: Some(Duration::from_secs(3_600)),
            objective: Objective::default(),
            reach: None,
            keep: None,
            place: Place { name: "folder vault".to_owned(), same_because: None, locked: String::new(), is_locked: false },
            tried_apart: false,
        }
    }

    #[test]
    fn a_day_tells_its_slowest_and_the_last_drill_its_steps() {
        let system: SystemName = "shop".parse().expect("a name");
        let ended = DrillReport { phases: vec![("fetch".to_owned(), 7)], passed: true, ..DrillReport::begin("D-3", &system, Timestamp(0)) };
        let signer = Signer::from_seed("drills", [3; 32]).expect("a key");
        let note = sign(&Notice { at: Timestamp(0), say: Say::DrillEnded(Box::new(ended)) }, &signer).expect("a note");
        let passed = |drill: &str, rto_ms, note: &str| Event::DrillPassed {
            system: system.clone(),
            drill: drill.to_owned(),
            point: "R-1".to_owned(),
            level: 4,
            rpo_ms: Some(rto_ms * 2),
            rto_ms,
            note: note.to_owned(),
        };
        let failed = |drill: &str| Event::DrillFailed {
            system: system.clone(),
            drill: drill.to_owned(),
            point: None,
            reason: "no room".to_owned(),
            note: "too long to keep".to_owned(),
        };
        let day = 86_400_000;
        let mut events =
            vec![(1, passed("D-1", 9, "")), (2, passed("D-2", 5, "")), (day, failed("D-0")), (3 * day, passed("D-3", 7, &note))];
        events.extend((0..20).map(|at| (2 * day + at, failed(&format!("F-{at}")))));
        let mut recorded: Vec<Recorded> =
            (0..).zip(events).map(|(index, (at, event))| Recorded { index, at: Timestamp(at), event }).collect();
        recorded.sort_by_key(|recorded| recorded.at);
        recorded.iter_mut().zip(0..).for_each(|(recorded, index)| recorded.index = index);
        let configured = configured(&system);
        let known = report(std::slice::from_ref(&configured), &BTreeMap::new(), &recorded, &Covered::default(), Timestamp(3 * day));
        let known = &known.systems[0];
        let days: Vec<_> = known.days.iter().map(|day| (day.day, day.passed, day.failed, day.rpo_ms, day.rto_ms)).collect();
        assert_eq!(days, [(0, 2, 0, Some(18), Some(9)), (1, 0, 1, None, None), (2, 0, 20, None, None), (3, 1, 0, Some(14), Some(7))]);
        assert_eq!((known.failures.len(), known.failures[0].drill.as_str()), (FAILURES, "F-19"));
        let last = known.last.as_ref().expect("a drill");
        assert_eq!((last.drill.as_str(), last.passed, last.phases.len()), ("D-3", true, 1));
        // A note that was not kept has no steps, and a drill that failed no numbers.
        recorded.truncate(recorded.len() - 1);
        let known = report(std::slice::from_ref(&configured), &BTreeMap::new(), &recorded, &Covered::default(), Timestamp(3 * day));
        let last = known.systems[0].last.as_ref().expect("a drill");
        assert_eq!((last.passed, last.rto_ms, last.phases.len()), (false, None, 0));
    }

    #[test]
    fn the_last_good_number_never_hides_that_nothing_is_proved() {
        let system: SystemName = "shop".parse().expect("a name");
        let configured = configured(&system);
        let hour = 3_600_000;
        let made = Event::BackupMade {
            system: system.clone(),
            point: "R-1".to_owned(),
            manifest: Digest([0; 32]),
            began: Timestamp(hour),
            plain_bytes: 2,
            stored_bytes: 1,
            engine: "physical".to_owned(),
        };
        let passed = |drill: &str, rto_ms| Event::DrillPassed {
            system: system.clone(),
            drill: drill.to_owned(),
            point: "R-1".to_owned(),
            level: 4,
            rpo_ms: Some(10),
            rto_ms,
            note: String::new(),
        };
        let failed = Event::DrillFailed {
            system: system.clone(),
            drill: "D-9".to_owned(),
            point: None,
            reason: "no room".to_owned(),
            note: String::new(),
        };
        let check = |events: &[(u64, &Event)], now: u64, unproven: Option<Unproven>, worst: Option<u64>| {
            let mut state = State::default();
            let recorded: Vec<Recorded> =
                (0..).zip(events).map(|(index, (at, event))| Recorded { index, at: Timestamp(*at), event: (*event).clone() }).collect();
            recorded.iter().for_each(|recorded| state.apply(recorded));
            let report = report(std::slice::from_ref(&configured), &state.recovery, &recorded, &Covered::default(), Timestamp(now));
            assert_eq!(report.systems[0].unproven, unproven, "{events:?}");
            assert_eq!(report.systems[0].rto_ms.map(|spread| spread.worst), worst, "{events:?}");
        };
        check(&[], hour, Some(Unproven::NoBackup), None);
        check(&[(hour, &made)], hour, Some(Unproven::NoDrill), None);
        check(&[(hour, &made), (hour, &passed("D-1", 5))], 2 * hour, None, Some(5));
        check(&[(hour, &made), (hour, &passed("D-1", 5))], 2 * hour + 1, Some(Unproven::TooOld), Some(5));
        check(&[(hour, &made), (hour, &passed("D-1", 5)), (hour, &failed)], hour, Some(Unproven::Failed), Some(5));
        check(&[(hour, &made), (hour, &failed), (hour, &passed("D-2", 7)), (hour, &passed("D-3", 6))], hour, None, Some(7));
        check(&[(hour, &made), (hour, &passed("D-1", 5))], 91 * 24 * hour + hour, Some(Unproven::TooOld), None);
        // What somebody says was done proves nothing.
        let remedied = Event::DrillRemedied {
            system: system.clone(),
            drill: "D-9".to_owned(),
            remedy: "a larger disk".to_owned(),
            operator: "ana".parse().expect("a name"),
        };
        check(&[(hour, &made), (hour, &failed), (hour, &remedied)], hour, Some(Unproven::Failed), None);
    }
}
