//! Reads share one record: equal ones of a session are counted together and recorded once a second.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reprieve_gate::Gate;
use reprieve_operation::{AgentName, Event, ReadTally, SessionId, SystemName};

/// How long reads may wait to be recorded.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

/// Different reads in one record, and waiting sessions.
const MOST: usize = 200;

/// Characters of a read that are recorded.
const TEXT: usize = 500;

/// Reads of one session.
type Counts = BTreeMap<Arc<str>, u64>;

/// Reads that were not recorded yet.
#[derive(Default)]
pub(crate) struct ReadLog {
    sessions: Mutex<BTreeMap<SessionId, (AgentName, SystemName, Counts)>>,
}

impl ReadLog {
    /// Counts one read.
    pub(crate) fn count(&self, gate: &Gate, session: SessionId, agent: &AgentName, system: &SystemName, text: &Arc<str>) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, _, counts) = sessions.entry(session).or_insert_with(|| (agent.clone(), system.clone(), Counts::new()));
        *counts.entry(text.clone()).or_default() += 1;
        if counts.len() >= MOST || sessions.len() >= MOST {
            let due = std::mem::take(&mut *sessions);
            drop(sessions);
            record(gate, due);
        }
    }

    /// Records what was counted.
    pub(crate) fn flush(&self, gate: &Gate) {
        let due = std::mem::take(&mut *self.sessions.lock().unwrap_or_else(PoisonError::into_inner));
        record(gate, due);
    }
}

fn record(gate: &Gate, due: BTreeMap<SessionId, (AgentName, SystemName, Counts)>) {
    for (session, (agent, system, counts)) in due {
        let tally = |(text, count): (Arc<str>, u64)| ReadTally { text: text.chars().take(TEXT).collect(), count };
        gate.note(Event::Reads { session, agent, system, reads: counts.into_iter().map(tally).collect() });
    }
}
