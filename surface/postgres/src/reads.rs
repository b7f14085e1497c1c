//! Reads share one record: equal statements of a session are counted together and recorded once a second.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use reprieve_operation::ReadTally;

use crate::known::Known;

/// How long reads may wait to be recorded.
const EVERY: Duration = Duration::from_secs(1);

/// Different statements in one record.
const MOST: usize = 200;

/// Characters of a statement that are recorded.
const TEXT: usize = 500;

/// Reads that were not recorded yet.
pub(crate) struct ReadLog {
    counts: HashMap<Arc<str>, u64>,
    since: Instant,
}

impl ReadLog {
    pub(crate) fn new() -> Self {
        Self { counts: HashMap::new(), since: Instant::now() }
    }

    /// Counts one read. Answers the tally when it is time to record it.
    pub(crate) fn count(&mut self, known: &Known) -> Option<Vec<ReadTally>> {
        if self.counts.is_empty() {
            self.since = Instant::now();
        }
        *self.counts.entry(known.redacted()).or_default() += 1;
        (self.counts.len() >= MOST || self.since.elapsed() >= EVERY).then(|| self.take())
    }

    /// What was counted and not yet recorded.
    pub(crate) fn take(&mut self) -> Vec<ReadTally> {
        let tally = |(text, count): (Arc<str>, u64)| ReadTally { text: text.chars().take(TEXT).collect(), count };
        self.counts.drain().map(tally).collect()
    }
}
