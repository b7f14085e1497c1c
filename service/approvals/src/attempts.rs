//! Failed attempts to act as an operator: counted, slowed down, and reported.
//!
//! Two sorts are told apart. A *guess* has the operator's key and a wrong code: five of them lock the operator out for a
//! growing while. A *forgery* has not even the key; a flood of these slows down only forgeries, because otherwise any agent
//! that reaches the listener could keep operators from answering.

use std::{collections::HashMap, time::Duration};

use reprieve_operation::{OperatorName, Timestamp};

const FREE_FAILURES: u32 = 5;
const FIRST_LOCK: Duration = Duration::from_secs(30);
const LONGEST_LOCK: Duration = Duration::from_secs(3_600);
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3_600);
const ALARM_EVERY: Duration = Duration::from_secs(60);
const MOST_STRANGERS: usize = 1_024;

/// What was wrong with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No such operator, a wrong signature, a wrong time, or a code that was used before.
    Forged,
    /// The key is right and the code is not.
    Guessed,
}

/// What the one who failed gets to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rebuff {
    /// Not authenticated.
    No,
    /// Try again in so many seconds.
    Wait(u64),
}

/// Failed attempts by operator. Names that are no operator's are counted too, so that an answer doesn't tell which names exist.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    operators: HashMap<OperatorName, Record>,
    strangers: HashMap<OperatorName, Record>,
    /// By what was attempted, in words.
    alarms: HashMap<String, Alarm>,
}

#[derive(Debug, Default)]
struct Record {
    forged: Failures,
    guessed: Failures,
}

#[derive(Debug, Default)]
struct Failures {
    count: u32,
    locks: u32,
    locked_until: Timestamp,
    last: Timestamp,
}

#[derive(Debug, Default)]
struct Alarm {
    unreported: u64,
    last: Option<Timestamp>,
}

impl Attempts {
    /// How long the operator is locked out, right key or not.
    pub(crate) fn locked_out(&self, operator: &OperatorName, now: Timestamp) -> Option<u64> {
        self.operators.get(operator).and_then(|record| record.guessed.wait(now))
    }

    /// Counts a failure.
    pub(crate) fn fail(&mut self, operator: &OperatorName, known: bool, failure: Failure, now: Timestamp) -> Rebuff {
        // Names of strangers stay out: these are theirs to choose, and without number.
        self.note(if known { format!("act as operator `{operator}`") } else { "act as an operator who does not exist".to_owned() });
        if !known {
            self.make_room();
        }
        let records = if known { &mut self.operators } else { &mut self.strangers };
        let record = records.entry(operator.clone()).or_default();
        let waits = [record.guessed.wait(now), record.forged.wait(now)].into_iter().flatten().max();
        match failure {
            Failure::Forged if record.forged.wait(now).is_none() => record.forged.fail(now),
            Failure::Guessed if record.guessed.wait(now).is_none() => record.guessed.fail(now),
            Failure::Forged | Failure::Guessed => {}
        }
        waits.map_or(Rebuff::No, Rebuff::Wait)
    }

    /// Counts a failed attempt for the next alarm only.
    pub(crate) fn note(&mut self, attempted: String) {
        self.alarms.entry(attempted).or_default().unreported += 1;
    }

    /// The operator proved both factors: the count starts anew.
    pub(crate) fn succeed(&mut self, operator: &OperatorName) {
        self.operators.remove(operator);
    }

    /// What has to be reported now: for each operator, and for all strangers together, at most once a minute.
    pub(crate) fn due_alarms(&mut self, now: Timestamp) -> Vec<String> {
        let due = self.alarms.iter_mut().filter(|(_, alarm)| {
            let rested = alarm.last.is_none_or(|last| now.since(last) >= ALARM_EVERY);
            alarm.unreported > 0 && rested
        });
        let mut texts: Vec<String> = due
            .map(|(attempted, alarm)| {
                alarm.last = Some(now);
                format!("{} failed attempts to {attempted}", std::mem::take(&mut alarm.unreported))
            })
            .collect();
        texts.sort_unstable();
        texts
    }

    fn make_room(&mut self) {
        if self.strangers.len() >= MOST_STRANGERS {
            let oldest = self.strangers.iter().min_by_key(|(_, record)| record.forged.last.max(record.guessed.last));
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.strangers.remove(&name);
            }
        }
    }
}

impl Failures {
    fn wait(&self, now: Timestamp) -> Option<u64> {
        let left = self.locked_until.since(now);
        (!left.is_zero()).then(|| left.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX))
    }

    fn fail(&mut self, now: Timestamp) {
        if now.since(self.last) >= FORGET_AFTER {
            *self = Self::default();
        }
        self.last = now;
        self.count += 1;
        if self.count >= FREE_FAILURES {
            let lock = FIRST_LOCK.saturating_mul(2u32.saturating_pow(self.locks)).min(LONGEST_LOCK);
            self.locked_until = now.plus(lock);
            self.locks = self.locks.saturating_add(1);
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_800_000_000_000);

    fn name(text: &str) -> OperatorName {
        text.parse().expect("a name of the test")
    }

    fn later(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn guesses_lock_out_for_a_growing_while() {
        let mut attempts = Attempts::default();
        let ana = name("ana");
        let mut now = START;
        for expected in [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600] {
            for _ in 0..FREE_FAILURES {
                assert_eq!(attempts.locked_out(&ana, now), None);
                assert_eq!(attempts.fail(&ana, true, Failure::Guessed, now), Rebuff::No);
            }
            assert_eq!(attempts.locked_out(&ana, now), Some(expected));
            assert_eq!(attempts.fail(&ana, true, Failure::Guessed, now), Rebuff::Wait(expected));
            now = now.plus(Duration::from_secs(expected));
        }
        assert_eq!(attempts.locked_out(&ana, now), None);
        assert_eq!(attempts.locked_out(&name("ben"), now), None);
    }

    #[test]
    fn forgeries_slow_down_forgeries_only() {
        let mut attempts = Attempts::default();
        for (operator, known) in [("ana", true), ("nobody", false)] {
            for _ in 0..FREE_FAILURES {
                assert_eq!(attempts.fail(&name(operator), known, Failure::Forged, START), Rebuff::No);
            }
            assert_eq!(attempts.fail(&name(operator), known, Failure::Forged, START), Rebuff::Wait(30), "{operator}");
            assert_eq!(attempts.locked_out(&name(operator), START), None);
        }
        assert_eq!(attempts.fail(&name("ana"), true, Failure::Guessed, START), Rebuff::Wait(30), "must not tell that the key is right");
    }

    #[test]
    fn alarms_come_at_most_once_a_minute() {
        let mut attempts = Attempts::default();
        attempts.fail(&name("ana"), true, Failure::Forged, START);
        attempts.fail(&name("x"), false, Failure::Forged, START);
        attempts.fail(&name("y"), false, Failure::Forged, START);
        assert_eq!(
            attempts.due_alarms(START),
            ["1 failed attempts to act as operator `ana`", "2 failed attempts to act as an operator who does not exist"]
        );
        attempts.fail(&name("ana"), true, Failure::Guessed, later(59));
        assert!(attempts.due_alarms(later(59)).is_empty());
        assert_eq!(attempts.due_alarms(later(60)).len(), 1);
        assert!(attempts.due_alarms(later(600)).is_empty(), "nothing new to report");
    }

    #[test]
    fn strangers_take_bounded_room_and_push_no_operator_out() {
        let mut attempts = Attempts::default();
        for _ in 0..FREE_FAILURES {
            attempts.fail(&name("ana"), true, Failure::Guessed, START);
        }
        for number in 0..3_000u64 {
            attempts.fail(&name(&format!("s{number}")), false, Failure::Forged, later(number / 1_000));
        }
        assert_eq!(attempts.strangers.len(), MOST_STRANGERS);
        assert_eq!(attempts.locked_out(&name("ana"), START), Some(30));
    }
}
