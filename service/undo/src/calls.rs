//! Calls to services: what takes them back is kept in the vault, found again by its intent, and removed when its window is over.

use std::{sync::Arc, time::Duration};

use reprieve_gate::{
    Audit, CallConflict, CallDone, CallFailure, CallReport, Clock, Escrow, Keeping, KeptCall, Running, TakeBack, UndoChoice,
};
use reprieve_operation::{Digest, Event, Moment, Reach, TableReach};
use reprieve_vault::{Kind, ObjectRef};
use serde::Serialize;

use crate::{
    Change, History, Images, UndoError, VaultAccess,
    over::Sort,
    rows::{Conflict, ConflictKind, Report, TableReport},
};

/// The most that is kept of one call.
const LARGEST: u64 = 64 << 20;

/// How often it is looked for what is over.
const PURGE_EVERY: Duration = Duration::from_secs(600);

const SORT: Sort = Sort {
    kept: "call_kept",
    purged: "calls_purged",
    object: |event| match event {
        Event::CallKept { object, stored_bytes, .. } => Some((*object, *stored_bytes)),
        _ => None,
    },
    through: |event| if let Event::CallsPurged { through, .. } = event { Some(*through) } else { None },
    event: |objects, stored_bytes, through| Event::CallsPurged { objects, stored_bytes, through },
};

/// Where it lies what takes a call back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CallObjects {
    /// How things were.
    pub before: ObjectRef,
    /// How the call left them, where that could be kept.
    pub after: Option<ObjectRef>,
}

/// Keeps in the vault what takes calls back.
pub struct CallEscrow {
    vault: Arc<VaultAccess>,
    audit: Arc<dyn Audit>,
    history: Arc<dyn History>,
    clock: Arc<dyn Clock>,
    /// How long a change can be undone.
    window: Duration,
}

impl CallEscrow {
    /// Keeps things in this vault for `window`.
    #[must_use]
    pub fn new(vault: Arc<VaultAccess>, audit: Arc<dyn Audit>, history: Arc<dyn History>, clock: Arc<dyn Clock>, window: Duration) -> Self {
        Self { vault, audit, history, clock, window }
    }

    /// Removes for ever what nobody can ask for any more.
    pub async fn run(self: Arc<Self>) {
        loop {
            let purged = SORT.purge(self.history.as_ref(), self.audit.as_ref(), &self.vault, self.clock.as_ref(), self.window).await;
            if let Err(error) = purged {
                tracing::warn!(%error, "what is over could not be removed from the vault");
            }
            tokio::time::sleep(PURGE_EVERY).await;
        }
    }

    async fn put(&self, keeping: Keeping) -> Result<(), String> {
        if keeping.bytes.len() as u64 > LARGEST {
            return Err(format!("it is larger than {} MiB", LARGEST >> 20));
        }
        let vault = self.vault.vault().await.map_err(|error| crate::with_causes(&error))?;
        let object = vault.put_bytes(keeping.bytes.into()).await.map_err(|error| crate::with_causes(&error))?;
        let Keeping { intent, agent, system, moment, resource, bytes: _ } = keeping;
        let ObjectRef { digest, kind: _, plain_bytes, stored_bytes } = object;
        let event = Event::CallKept { intent, agent, system, moment, resource, object: digest, plain_bytes, stored_bytes };
        self.audit.append(event).await.map(drop).map_err(|error| error.to_string())
    }
}

impl Escrow for CallEscrow {
    fn ready(&self) -> Running<'_, Result<(), String>> {
        Box::pin(async { self.vault.healthy().await.map(drop).map_err(|error| crate::with_causes(&error)) })
    }

    fn keep(&self, keeping: Keeping) -> Running<'_, Result<(), String>> {
        Box::pin(self.put(keeping))
    }
}

/// What an event says to be kept of a call.
pub(crate) fn object_of(digest: Digest, plain_bytes: u64, stored_bytes: u64) -> ObjectRef {
    ObjectRef { digest, kind: Kind::Stream, plain_bytes, stored_bytes }
}

/// The two moments of one intent, as the ledger tells of them, newest first.
#[derive(Debug, Default, Clone)]
pub(crate) struct Moments {
    before: Option<ObjectRef>,
    after: Option<ObjectRef>,
    pub(crate) resource: String,
}

impl Moments {
    pub(crate) fn add(&mut self, moment: Moment, object: ObjectRef, resource: String) {
        let place = match moment {
            Moment::Before => &mut self.before,
            Moment::After => &mut self.after,
        };
        // The newest counts.
        place.get_or_insert(object);
        self.resource = resource;
    }

    pub(crate) fn objects(&self) -> Option<CallObjects> {
        self.before.map(|before| CallObjects { before, after: self.after })
    }

    /// What it may have reached, where its outcome was lost.
    pub(crate) fn reach(&self) -> Reach {
        let one = TableReach { updated: 1, ..TableReach::default() };
        Reach { tables: [(self.resource.clone(), one)].into(), ..Reach::default() }
    }
}

/// The one change in `changes` that is a call, with what was kept of it.
pub(crate) async fn fetch(images: &Images, changes: &[Change]) -> Result<KeptCall, UndoError> {
    let [change] = changes else {
        return Err(UndoError::NotUndoable("changes of services are taken back one at a time".to_owned()));
    };
    let objects = change.kept.ok_or_else(|| UndoError::NotUndoable(format!("nothing was kept of {}", change.undo)))?;
    let vault = images.vault().await?;
    let before = vault.get_bytes(&objects.before, LARGEST).await?.to_vec();
    let after = match objects.after {
        Some(after) => Some(vault.get_bytes(&after, LARGEST).await?.to_vec()),
        None => None,
    };
    Ok(KeptCall { system: change.system.clone(), before, after })
}

/// What taking a call back would do.
pub(crate) async fn preview(calls: &dyn TakeBack, images: &Images, changes: &[Change], choice: UndoChoice) -> Result<Report, UndoError> {
    let kept = fetch(images, changes).await?;
    calls.preview(&kept, choice).await.map(|report| in_rows(&report)).map_err(refused)
}

/// A call that was not taken back, in the words of changed rows. Nothing was changed.
pub(crate) fn refused(failure: CallFailure) -> UndoError {
    match failure {
        CallFailure::Before(why) | CallFailure::Unknown(why) => UndoError::NotUndoable(why),
        CallFailure::Conflict(report) => UndoError::Conflicts(Box::new(in_rows(&report))),
    }
}

/// What was done with one thing of a service, as what was done with one row.
pub(crate) fn in_rows(report: &CallReport) -> Report {
    let mut table = TableReport::default();
    match report.done {
        CallDone::Restored => table.restored = 1,
        CallDone::Reverted => table.reverted = 1,
        CallDone::Removed => table.removed = 1,
        CallDone::Already => table.already = 1,
        CallDone::Left => {}
    }
    let conflict = report.conflict.map(|conflict| Conflict {
        table: report.resource.clone(),
        kind: match conflict {
            CallConflict::Changed => ConflictKind::Changed,
            CallConflict::Deleted => ConflictKind::Deleted,
            CallConflict::Added => ConflictKind::Added,
        },
        wanted: report.wanted.clone(),
        now: report.now.clone(),
        left: None,
        key: None,
    });
    Report {
        tables: [(report.resource.clone(), table)].into(),
        conflicts_found: u64::from(conflict.is_some()),
        conflicts: conflict.into_iter().collect(),
        ..Report::default()
    }
}
