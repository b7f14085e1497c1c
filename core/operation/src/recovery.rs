//! What is known of a system's copies: the fold over the events about them.

use serde::{Deserialize, Serialize};

use crate::{Digest, Event, Timestamp};

/// What is known of a system's copies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryState {
    /// When the newest copy began.
    pub backup: Option<Timestamp>,
    /// When one last failed.
    pub backup_failed: Option<Timestamp>,
    /// The last drill, if it passed.
    pub drill: Option<DrillState>,
    /// When one last failed.
    pub drill_failed: Option<Timestamp>,
    /// Which.
    #[serde(default)]
    pub failed_drill: Option<String>,
    /// Since when the log doesn't follow the copies there are. None once a newer one was begun after that.
    #[serde(default)]
    pub log_broken: Option<Timestamp>,
    /// The newest copy.
    #[serde(default)]
    pub newest: Option<NewestCopy>,
    /// Since when it is known that the newest copy is not in the vault. None once there is another.
    #[serde(default)]
    pub missing: Option<Timestamp>,
}

/// The newest copy of a system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewestCopy {
    /// The recovery point.
    pub point: String,
    /// Its manifest in the vault.
    pub manifest: Digest,
}

/// A drill that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillState {
    /// When.
    pub at: Timestamp,
    /// How much was proved, 0 to 5.
    pub level: u8,
    /// How old the newest that came back was.
    pub rpo_ms: Option<u64>,
    /// How long it took.
    pub rto_ms: u64,
}

/// The least level that proves that a copy comes back: the server started, and its contents stood the checks.
pub const RECOVERABLE: u8 = 4;

impl RecoveryState {
    /// Takes in an event about this system's copies. Others change nothing.
    pub(crate) fn apply(&mut self, at: Timestamp, event: &Event) {
        match event {
            Event::BackupMade { point, manifest, began, .. } => {
                if self.backup.is_none_or(|newest| newest <= *began) {
                    self.newest = Some(NewestCopy { point: point.clone(), manifest: *manifest });
                    self.missing = None;
                }
                self.backup = self.backup.max(Some(*began));
                // One that was under way then may end before the log goes on.
                self.log_broken = self.log_broken.filter(|broken| began < broken);
            }
            // One that was made meanwhile is looked for on its own.
            Event::BackupMissing { point, .. } if self.newest.as_ref().is_some_and(|newest| newest.point == *point) => {
                (self.backup, self.newest, self.drill, self.missing) = (None, None, None, Some(at));
            }
            Event::BackupFailed { .. } => self.backup_failed = Some(at),
            // What was proved was copies and the log after them.
            Event::LogBroken { .. } => (self.log_broken, self.drill) = (Some(at), None),
            Event::DrillPassed { level, rpo_ms, rto_ms, .. } => {
                let passed = DrillState { at, level: *level, rpo_ms: *rpo_ms, rto_ms: *rto_ms };
                // Of a copy that no log follows any more, or of an older one than is missing: it came back, and what was committed since
                // does not.
                self.drill = Some(passed).filter(|_| self.log_broken.is_none() && self.missing.is_none());
            }
            // What came back before proves nothing any more.
            Event::DrillFailed { drill, .. } => {
                self.drill = None;
                self.drill_failed = Some(at);
                self.failed_drill = Some(drill.clone());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemName;

    fn shop() -> SystemName {
        "shop".parse().expect("a name")
    }

    fn made(point: &str, began: u64) -> Event {
        let (manifest, engine) = (Digest([7; 32]), "physical".to_owned());
        Event::BackupMade {
            system: shop(),
            point: point.to_owned(),
            manifest,
            began: Timestamp(began),
            plain_bytes: 2,
            stored_bytes: 1,
            engine,
        }
    }

    fn passed() -> Event {
        let (drill, point, note) = ("D-1".to_owned(), "R-1".to_owned(), String::new());
        Event::DrillPassed { system: shop(), drill, point, level: 5, rpo_ms: None, rto_ms: 1, note }
    }

    fn missing(point: &str) -> Event {
        Event::BackupMissing { system: shop(), point: point.to_owned() }
    }

    fn fold(events: &[Event]) -> RecoveryState {
        let mut state = RecoveryState::default();
        (10..).zip(events).for_each(|(at, event)| state.apply(Timestamp(at), event));
        state
    }

    #[test]
    fn a_missing_copy_proves_nothing_until_there_is_another() {
        let whole = fold(&[made("R-1", 1), passed()]);
        assert!(whole.drill.is_some() && whole.missing.is_none());
        let gone = fold(&[made("R-1", 1), passed(), missing("R-1")]);
        assert_eq!((gone.backup, gone.newest, gone.drill, gone.missing), (None, None, None, Some(Timestamp(12))));
        // An older one that comes back changes nothing.
        assert!(fold(&[made("R-1", 1), passed(), missing("R-1"), passed()]).drill.is_none());
        let again = fold(&[made("R-1", 1), missing("R-1"), made("R-2", 5), passed()]);
        assert!(again.drill.is_some() && again.missing.is_none() && again.newest.is_some_and(|newest| newest.point == "R-2"));
        // One that is not the newest any more is not missed, nor one that was made before it.
        assert!(fold(&[made("R-1", 1), made("R-2", 5), passed(), missing("R-1")]).drill.is_some());
        assert!(fold(&[made("R-2", 5), made("R-1", 1)]).newest.is_some_and(|newest| newest.point == "R-2"));
    }
}
