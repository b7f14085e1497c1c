//! Coverage: from which of a system's tables there is a way back.

use crate::upstream::Running;

/// Knows, for one protected database, which tables' changes are written down before they are final, and keeps that up.
pub trait Coverage: Send + Sync {
    /// A query for the oids of the covered tables, to be asked by the role that agents log in with.
    fn query(&self) -> &str;

    /// Resolves when what the definitions are at this moment is kept. Answers the reason if that can't be.
    fn definitions_ready(&self) -> Running<'_, Result<(), String>>;

    /// A statement for the session that is about to drop or rewrite a covered relation: writes all of it down first.
    fn keep_whole(&self, relation: u32) -> String;

    /// A statement for the session that is about to drop covered tables: moves them out of agents' reach and leaves an empty double
    /// of each for the DROP. Answers the doubles' oids as an array's text, or why they have to be written down instead.
    fn set_aside(&self, relations: &[u32]) -> String;

    /// Covers what came since. Answers the reason if it can't; then it is asked again soon.
    fn keep_up(&self) -> Running<'_, Result<(), String>>;

    /// Whether what is written down is also brought out of the database's reach at the moment. Answers the reason if it isn't, in
    /// words that stay the same as long as it does: no table counts as covered then, and what people approve says why.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}
