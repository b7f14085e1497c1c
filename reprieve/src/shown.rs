//! Changes as the console shows them: the same that `reprieve undo` prints.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reprieve_audit::SystemClock;
use reprieve_gate::{ChangeView, Changes, Clock as _, ConflictView, Looking, RecordsError, RowView, TakeBack, UndoChoice, UndoPreview};
use reprieve_operation::{SystemName, UndoId};
use reprieve_undo::{Change, Conflict, Ground, Images, Login, Report, Standing, UndoError, Wish, changes, preview, row_changes};

use crate::undo::{LedgerHistory, in_words};

/// Rows that a page shows.
const SHOWN_ROWS: u32 = 50;
const MOST_LISTED: usize = 200;
/// Rows in the way of an undo that a page lists.
const MOST_CONFLICTS: usize = 50;

/// Reads changes from the ledger, and looks into the journal for what undoing them would do.
pub(crate) struct ShownChanges {
    history: Arc<LedgerHistory>,
    images: Images,
    logins: BTreeMap<SystemName, Login>,
    calls: Option<Arc<dyn TakeBack>>,
    window: Duration,
}

impl ShownChanges {
    pub(crate) fn new(
        history: Arc<LedgerHistory>,
        images: Images,
        logins: BTreeMap<SystemName, Login>,
        calls: Option<Arc<dyn TakeBack>>,
        window: Duration,
    ) -> Self {
        Self { history, images, logins, calls, window }
    }

    /// Reads on a thread that may block.
    async fn read(&self, limit: usize, only: Option<UndoId>) -> Result<Vec<Change>, RecordsError> {
        let (history, window) = (self.history.clone(), self.window);
        let wanted = move |change: &Change| only.is_none_or(|id| change.undo == id);
        let read = tokio::task::spawn_blocking(move || changes(history.as_ref(), SystemClock.now(), window, limit, wanted));
        let unavailable = |text: String| RecordsError::Unavailable(text);
        read.await.map_err(|error| unavailable(error.to_string()))?.map_err(|error| unavailable(error.to_string()))
    }

    async fn one(&self, id: UndoId) -> Result<Change, RecordsError> {
        let found = self.read(1, Some(id)).await?;
        found.into_iter().next().ok_or_else(|| RecordsError::Missing(format!("{id} is not a change of the time in which one can undo")))
    }

    async fn look(&self, id: UndoId, choice: UndoChoice) -> Result<UndoPreview, RecordsError> {
        let change = self.one(id).await?;
        let images = &self.images;
        let ground = match (self.logins.get(&change.system), self.calls.as_deref().filter(|calls| calls.serves(&change.system))) {
            (Some(login), _) => Ground::Database { login, images },
            (None, Some(calls)) => Ground::Service { calls, images },
            (None, None) => return Err(RecordsError::Missing(format!("`{}` is no system here any more", change.system))),
        };
        let rows = row_changes(ground, &change, SHOWN_ROWS).await.map_err(|error| RecordsError::Unavailable(error.to_string()))?;
        let rows = rows.into_iter().map(|row| RowView { table: row.table, before: row.before, after: row.after }).collect();
        if let Some(because) = standing(&change) {
            return Ok(UndoPreview { rows, plan: Err(because), conflicts: Vec::new(), conflicts_found: 0 });
        }
        let report = match preview(ground, std::slice::from_ref(&change), Wish { choice, keep: &[] }).await {
            Ok(report) => Ok(report),
            Err(UndoError::Conflicts(report)) => Err((*report, "rows were changed since by somebody else".to_owned())),
            Err(error) => Err((Report::default(), error.to_string())),
        };
        let (plan, report) = match report {
            Ok(report) => (Ok(in_words(&report)), report),
            Err((report, because)) => (Err(because), report),
        };
        let conflicts = report.conflicts.into_iter().take(MOST_CONFLICTS).map(shown_conflict).collect();
        Ok(UndoPreview { rows, plan, conflicts, conflicts_found: report.conflicts_found })
    }
}

impl Changes for ShownChanges {
    fn list(&self, limit: usize) -> Looking<'_, Vec<ChangeView>> {
        Box::pin(async move { Ok(self.read(limit.min(MOST_LISTED), None).await?.into_iter().map(view).collect()) })
    }

    fn find(&self, id: UndoId) -> Looking<'_, ChangeView> {
        Box::pin(async move { Ok(view(self.one(id).await?)) })
    }

    fn preview(&self, id: UndoId, choice: UndoChoice) -> Looking<'_, UndoPreview> {
        Box::pin(self.look(id, choice))
    }
}

fn shown_conflict(found: Conflict) -> ConflictView {
    let row = found.key.and_then(|key| format!("{}:{key}", found.table).parse().ok());
    ConflictView { table: found.table, row, now: found.now, wanted: found.wanted }
}

fn view(change: Change) -> ChangeView {
    let because = standing(&change);
    ChangeView {
        undo: change.undo,
        index: change.index,
        at: change.at,
        agent: change.agent,
        operator: change.operator,
        session: change.session,
        system: change.system,
        environment: change.environment,
        text: change.text,
        reach: change.reach,
        expires: change.expires,
        because,
    }
}

/// Why it can't be undone; `None` if it can.
fn standing(change: &Change) -> Option<String> {
    match &change.standing {
        Standing::Undoable => None,
        Standing::Undone { by } => Some(format!("undone by {by}")),
        Standing::Expired => Some("its window is over".to_owned()),
        Standing::Lasting { because } => Some(format!("can't be undone: {}", because.join("; "))),
        Standing::Unknown => Some("whether it took place is not known".to_owned()),
    }
}
