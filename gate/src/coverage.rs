//! Coverage: from which of a system's tables there is a way back.

use crate::upstream::Running;

/// Knows, for one protected database, which tables' changes are written down before they are final, and keeps that up.
pub trait Coverage: Send + Sync {
    /// A query for the oids of the covered tables, to be asked by the role that agents log in with.
    fn query(&self) -> &str;

    /// Covers what came since. Answers the reason if it can't.
    fn keep_up(&self) -> Running<'_, Result<(), String>>;
}
