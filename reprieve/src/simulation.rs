//! Asking proposed rules about everything that is on record.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    num::NonZeroUsize,
    time::Instant,
};

use reprieve_gate::{AnswerChange, Said, Simulated, Verdict};
use reprieve_operation::{AgentName, Decision, Environment, SystemName, Timestamp};
use reprieve_policy::{DecisionCache, Policy};

use crate::{
    ledger::for_each_event,
    replay::{Replay, Replayed},
    settings::Settings,
};

/// Changed answers that are listed; more are counted.
const LISTED: usize = 1_000;

/// Decisions that are remembered: recorded operations repeat each other.
const CACHED: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// Texts are cut to this many characters, and are one operation up to there.
const SHOWN_CHARACTERS: usize = 300;

fn asked(cache: &DecisionCache, policy: &Policy, replayed: &Replayed) -> Said {
    match cache.decide(policy, &replayed.operation, &replayed.facts) {
        Decision::Allow(terms) => Said { verdict: Verdict::Allow, rule: terms.because.join(", "), reason: String::new() },
        Decision::Needs(needs) => Said { verdict: Verdict::Hold, rule: needs.rule, reason: needs.reason },
        Decision::Refuse(refusal) => Said { verdict: Verdict::Refuse, rule: refusal.rule, reason: refusal.reason },
    }
}

/// One way in which answers change: whose, where, what, from which rule's word to which.
type Way = (AgentName, SystemName, Environment, String, (Verdict, String), (Verdict, String));

/// Asks both policies about every operation since `after`. Gives up at `until`.
pub(crate) fn simulate(
    settings: &Settings,
    current: &Policy,
    proposed: &Policy,
    after: Timestamp,
    until: Option<Instant>,
) -> anyhow::Result<Simulated> {
    let cache = DecisionCache::new(CACHED);
    let mut replay = Replay::new(settings, after);
    let mut found = Simulated::default();
    let mut changes: BTreeMap<Way, AnswerChange> = BTreeMap::new();
    for_each_event(settings, |recorded| {
        anyhow::ensure!(until.is_none_or(|until| Instant::now() < until), "there is too much on record to ask about it in that time");
        for replayed in replay.next(recorded) {
            let (from, to) = (asked(&cache, current, &replayed), asked(&cache, proposed, &replayed));
            found.asked += replayed.times;
            found.as_recorded += if from.verdict == replayed.recorded { replayed.times } else { 0 };
            if !from.differs(&to) {
                continue;
            }
            found.changed += replayed.times;
            let operation = &replayed.operation;
            let (agent, system) = (operation.principal.agent.clone(), operation.system.clone());
            let (environment, text) =
                (operation.environment.clone(), operation.redacted.chars().take(SHOWN_CHARACTERS).collect::<String>());
            let said = |said: &Said| (said.verdict, said.rule.clone());
            let way = (agent.clone(), system.clone(), environment.clone(), text.clone(), said(&from), said(&to));
            let is_full = changes.len() >= LISTED;
            match changes.entry(way) {
                Entry::Occupied(mut known) => {
                    let change = known.get_mut();
                    change.times += replayed.times;
                    (change.last_event, change.newest) = (replayed.index, change.newest.max(replayed.at));
                    (change.from, change.to) = (from, to);
                }
                Entry::Vacant(_) if is_full => found.unlisted += replayed.times,
                Entry::Vacant(free) => {
                    let (first_event, last_event, newest, times) = (replayed.index, replayed.index, replayed.at, replayed.times);
                    free.insert(AnswerChange { agent, system, environment, text, times, first_event, last_event, newest, from, to });
                }
            }
        }
        Ok(())
    })?;
    found.changes = changes.into_values().collect();
    found.changes.sort_by_key(|change| (change.to.verdict >= change.from.verdict, std::cmp::Reverse(change.times)));
    found.left_out = replay.left_out.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
    Ok(found)
}
