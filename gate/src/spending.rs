//! Spending: rows each agent changed in the last hour, counted before a change is final.
//!
//! The ledger's state knows the same once an outcome is durable. Here it is known at once, so that sessions side by side can't
//! each spend the whole rest of an hour: what a run may still change is set aside while it runs.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use reprieve_operation::{AgentName, Timestamp};

/// Rows changed, by agent.
#[derive(Debug, Default)]
pub(crate) struct Spending {
    agents: Mutex<HashMap<AgentName, Spent>>,
}

#[derive(Debug, Default)]
struct Spent {
    /// Minute and rows, oldest first.
    minutes: VecDeque<(u64, u64)>,
    /// Rows set aside for what runs.
    reserved: u64,
}

impl Spent {
    fn rows(&self, now: Timestamp) -> u64 {
        let minute = now.0 / 60_000;
        self.minutes.iter().filter(|(at, _)| at + 60 >= minute).fold(0, |sum, (_, rows)| sum.saturating_add(*rows))
    }
}

impl Spending {
    /// Rows `agent` changed in the hour before `now`, and what is set aside for its runs; `recorded` is what the ledger says when it
    /// is first asked.
    pub(crate) fn rows(&self, agent: &AgentName, now: Timestamp, recorded: impl FnOnce() -> u64) -> u64 {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spent) = agents.get(agent) {
            return spent.rows(now).saturating_add(spent.reserved);
        }
        let recorded = recorded();
        agents.insert(agent.clone(), Spent { minutes: VecDeque::from([(now.0 / 60_000, recorded)]), reserved: 0 });
        recorded
    }

    /// Counts rows. Before the write is final: a crash must not hand the budget back.
    pub(crate) fn count(&self, agent: &AgentName, rows: u64, now: Timestamp) {
        if rows == 0 {
            return;
        }
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = agents.entry(agent.clone()).or_default();
        let minute = now.0 / 60_000;
        match spent.minutes.back_mut() {
            Some((last, sum)) if *last >= minute => *sum = sum.saturating_add(rows),
            _ => spent.minutes.push_back((minute, rows)),
        }
        while spent.minutes.front().is_some_and(|(first, _)| first + 60 < minute) {
            spent.minutes.pop_front();
        }
    }

    /// Sets `rows` aside if they fit into `budget` together with what was spent and set aside before.
    pub(crate) fn reserve(self: &Arc<Self>, agent: &AgentName, rows: u64, budget: u64, now: Timestamp) -> Option<Reservation> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = agents.entry(agent.clone()).or_default();
        let total = spent.rows(now).saturating_add(spent.reserved).saturating_add(rows);
        if total > budget {
            return None;
        }
        spent.reserved = spent.reserved.saturating_add(rows);
        Some(Reservation { spending: self.clone(), agent: agent.clone(), rows })
    }
}

/// Rows set aside; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    spending: Arc<Spending>,
    agent: AgentName,
    rows: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut agents = self.spending.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spent) = agents.get_mut(&self.agent) {
            spent.reserved = spent.reserved.saturating_sub(self.rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn side_by_side_runs_share_one_hour() {
        let spending = Arc::new(Spending::default());
        let agent: AgentName = "a".parse().expect("a name");
        let now = Timestamp(3_600_000);
        assert_eq!(spending.rows(&agent, now, || 10), 10);
        let first = spending.reserve(&agent, 60, 100, now).expect("fits");
        assert_eq!(spending.rows(&agent, now, || 0), 70, "what is set aside may be used up");
        assert!(spending.reserve(&agent, 60, 100, now).is_none());
        drop(first);
        assert!(spending.reserve(&agent, 60, 100, now).is_some());
        spending.count(&agent, 50, now);
        assert!(spending.reserve(&agent, 60, 100, now).is_none());
        let later = Timestamp(now.0 + 62 * 60_000);
        assert_eq!(spending.rows(&agent, later, || 0), 0);
    }
}
