//! The office: takes the notes of those who copy and of the verifier into the ledger, and tells what is known.
//!
//! The gateway has the public keys only: it can refuse a note, and can't write one. Who copies can't pass a drill, who tries can't
//! claim a copy.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use reprieve_gate::{Audit, AuditError, Clock, Covered, DeskAnswer, DeskError, RecordQuery, Records, Recovery, RecoveryReport};
use reprieve_ledger::{Signer, Verifier};
use reprieve_operation::{Event, Recorded, SystemName};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    Configured, KINDS, Manifest, NOTE_AGE, Notice,
    engine::SKEW,
    note::{Say, sign, statement},
    purge::{known_points, over},
    report::report,
};

/// The longest note.
const NOTE_BYTES: usize = 60_000;
/// The longest report that goes into the ledger.
const REPORT_BYTES: usize = 40_000;
/// How long the ledger may take.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Events that are read at once, and how often: a drill an hour of each of ten systems for 90 days.
const PAGE: usize = 1_000;
const PAGES: usize = 22;

/// The gateway's side of recovery.
pub struct Office {
    /// The ledger.
    pub audit: Arc<dyn Audit>,
    /// The ledger, to search in.
    pub records: Arc<dyn Records>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Whose notes on copies count.
    pub copyist: Verifier,
    /// Whose notes on drills count.
    pub verifier: Verifier,
    /// The systems.
    pub systems: Vec<Configured>,
    /// Up to when each one's log is kept.
    pub covered: Arc<Covered>,
    /// Signs what is published; none: nothing is.
    pub publisher: Option<Signer>,
}

impl Office {
    async fn take_note(&self, note: String) -> Result<Value, DeskError> {
        if note.len() > NOTE_BYTES {
            return Err(DeskError::Invalid(format!("a note is at most {NOTE_BYTES} bytes")));
        }
        // One of the two signed it, or nobody we know.
        let by_copyist = statement::<Notice>(&note, &self.copyist).ok();
        let by_verifier = statement::<Notice>(&note, &self.verifier).ok();
        let (notice, verifier) = match (by_copyist, by_verifier) {
            (Some(notice), None) => (notice, false),
            (None, Some(notice)) => (notice, true),
            // The same key for both would be no separation at all.
            (Some(_), Some(_)) | (None, None) => {
                tracing::warn!("a note on copies was not signed by whom it should be");
                return Err(DeskError::NotAuthenticated);
            }
        };
        let now = self.clock.now();
        if now.since(notice.at).max(notice.at.since(now)) > NOTE_AGE {
            return Err(DeskError::Invalid("the note is too old, or from the future".to_owned()));
        }
        let (event, alarm) = self.event(notice.say, verifier, &note)?;
        let kind = event.kind();
        let appended = tokio::time::timeout(LONGEST_WAIT, self.audit.append(event)).await;
        let index = match appended {
            Ok(Ok(index)) => index,
            Ok(Err(AuditError::KeyTaken { .. })) => return Err(DeskError::Invalid("this was told before".to_owned())),
            Ok(Err(error)) => return Err(DeskError::Unavailable(error.to_string())),
            Err(_) => return Err(DeskError::Unavailable("the ledger takes too long".to_owned())),
        };
        if let Some(what) = alarm {
            tracing::error!(what, "recovery");
            drop(self.audit.append(Event::Alarm { what, agent: None }));
        }
        Ok(json!({ "recorded": kind, "index": index }))
    }

    /// What a statement is in the ledger, and whether a person must look.
    fn event(&self, say: Say, verifier: bool, note: &str) -> Result<(Event, Option<String>), DeskError> {
        let known: BTreeSet<&SystemName> = self.systems.iter().map(|configured| &configured.system).collect();
        let check = |system: &SystemName, by_verifier: bool| {
            if by_verifier != verifier {
                Err(DeskError::Forbidden("this key may not say that".to_owned()))
            } else if known.contains(system) {
                Ok(())
            } else {
                Err(DeskError::Invalid(format!("no system is called `{system}`")))
            }
        };
        let short = |text: String| text.chars().take(2_000).collect::<String>();
        Ok(match say {
            Say::BackupMade { system, point, manifest, began, plain_bytes, stored_bytes, engine } => {
                check(&system, false)?;
                // It would be the newest for as long, whatever is copied meanwhile.
                if began.since(self.clock.now()) > SKEW {
                    return Err(DeskError::Invalid("the copy is from the future: a clock is wrong".to_owned()));
                }
                (Event::BackupMade { system, point, manifest, began, plain_bytes, stored_bytes, engine }, None)
            }
            Say::BackupFailed { system, reason } => {
                check(&system, false)?;
                let reason = short(reason);
                let alarm = format!("no copy of `{system}` could be made: {reason}");
                (Event::BackupFailed { system, reason }, Some(alarm))
            }
            Say::CopiesPurged { system, points, objects, stored_bytes, log_files } => {
                check(&system, false)?;
                self.agree(&system, &points)?;
                (Event::CopiesPurged { system, points, objects, stored_bytes, log_files }, None)
            }
            Say::Restored { system, restore, succeeded, what } => {
                check(&system, false)?;
                (Event::RestoreFinished { system, restore, succeeded, what: short(what) }, None)
            }
            Say::DrillStarted { system, drill, point } => {
                check(&system, true)?;
                (Event::DrillStarted { system, drill, point }, None)
            }
            Say::DrillEnded(ended) => {
                check(&ended.system, true)?;
                let note = if note.len() <= REPORT_BYTES { note.to_owned() } else { "too long to keep".to_owned() };
                let (system, drill) = (ended.system.clone(), ended.drill.clone());
                // Passed is what the parts say, not what the report claims, and by what was promised here.
                let missed = self.missed(&system, ended.rpo_ms, ended.rto_ms);
                let stands = ended.passed && ended.reason.is_none() && ended.checks.iter().all(|check| check.ok) && missed.is_none();
                match (stands, ended.point.clone(), ended.level, ended.rto_ms) {
                    (true, Some(point), Some(level), Some(rto_ms)) if level >= reprieve_operation::RECOVERABLE => {
                        (Event::DrillPassed { system, drill, point, level, rpo_ms: ended.rpo_ms, rto_ms, note }, None)
                    }
                    (_, point, ..) => {
                        let reason =
                            short(ended.reason.clone().or(missed).unwrap_or_else(|| "the report does not hold together".to_owned()));
                        let alarm = format!("the drill {drill} of `{system}` failed: {reason}");
                        (Event::DrillFailed { system, drill, point, reason, note }, Some(alarm))
                    }
                }
            }
        })
    }

    /// What a drill missed of what was promised here, whatever the verifier's own settings say.
    fn missed(&self, system: &SystemName, rpo_ms: Option<u64>, rto_ms: Option<u64>) -> Option<String> {
        let promised = self.systems.iter().find(|configured| configured.system == *system)?.objective;
        let too_long = |what: &str, promised: Option<Duration>, measured: Option<u64>| {
            let promised = promised?;
            match measured.map(Duration::from_millis) {
                Some(measured) if measured <= promised => None,
                Some(measured) => Some(format!("{what}: {:.1} s, and {} s were promised", measured.as_secs_f64(), promised.as_secs())),
                None => Some(format!("{what}: not measured, and {} s were promised", promised.as_secs())),
            }
        };
        too_long("what would be lost", promised.rpo, rpo_ms).or_else(|| too_long("the time until it is back", promised.rto, rto_ms))
    }

    /// Whoever copies does not decide alone what goes: the ledger has to agree that its time is over.
    fn agree(&self, system: &SystemName, points: &[String]) -> Result<(), DeskError> {
        let keep = self.systems.iter().find(|configured| configured.system == *system).and_then(|configured| configured.keep);
        let keep = keep.ok_or_else(|| DeskError::Forbidden(format!("copies of `{system}` are kept for good")))?;
        let known = known_points(&self.events(), system);
        let over = over(&known, keep, self.clock.now());
        match points.iter().find(|point| !over.iter().any(|over| over.point == **point)) {
            Some(point) => {
                tracing::error!(point, "a copy was to be purged that has to stay");
                Err(DeskError::Forbidden(format!(
                    "{point} stays: its time is not over, or it is the newest, or the newest that a drill proved"
                )))
            }
            None => Ok(()),
        }
    }

    /// Events that the report is made of.
    fn events(&self) -> Vec<Recorded> {
        let of_kind = |kind: &str| {
            let (mut found, mut before) = (Vec::new(), None);
            for _ in 0..PAGES {
                let query = RecordQuery { kind: Some(kind.to_owned()), before, limit: PAGE, ..RecordQuery::default() };
                let page = self.records.search(&query).unwrap_or_else(|error| {
                    tracing::warn!(%error, "the ledger could not be searched for copies and drills");
                    Vec::new()
                });
                before = page.last().map(|recorded| recorded.index);
                let full = page.len() == PAGE;
                found.extend(page);
                if !full {
                    break;
                }
            }
            found
        };
        KINDS.iter().flat_map(|kind| of_kind(kind)).collect()
    }
}

/// What is published: the report, and for each drill in it the proof that it is in the ledger.
#[derive(Serialize)]
struct Published {
    report: RecoveryReport,
    proofs: Vec<Value>,
    checkpoint: Option<String>,
    checkpoint_key: String,
}

impl Recovery for Office {
    fn take(&self, note: String) -> DeskAnswer<'_> {
        Box::pin(self.take_note(note))
    }

    fn report(&self) -> RecoveryReport {
        let state = self.audit.state().recovery.clone();
        report(&self.systems, &state, &self.events(), &self.covered, self.clock.now())
    }

    fn is_published(&self) -> bool {
        self.publisher.is_some()
    }

    fn published(&self) -> Option<String> {
        let publisher = self.publisher.as_ref()?;
        let report = self.report();
        let drills = report.systems.iter().filter_map(|system| Some((&system.system, system.passed?.2)));
        let proofs = drills.filter_map(|(system, index)| {
            let proof = self.records.prove(index).ok()?;
            Some(json!({ "system": system, "index": index, "event": String::from_utf8_lossy(&proof.body), "proof": proof.text }))
        });
        let proofs = proofs.collect();
        let checkpoint = self.records.checkpoint().ok().flatten();
        sign(&Published { report, proofs, checkpoint, checkpoint_key: self.records.verifier() }, publisher).ok()
    }
}

/// What is told of a new recovery point.
#[must_use]
pub fn told(manifest: &Manifest, object: reprieve_operation::Digest) -> Say {
    Say::BackupMade {
        system: manifest.system.clone(),
        point: manifest.point.clone(),
        manifest: object,
        began: manifest.began,
        plain_bytes: manifest.plain_bytes,
        stored_bytes: manifest.stored_bytes,
        engine: manifest.engine.as_str().to_owned(),
    }
}
