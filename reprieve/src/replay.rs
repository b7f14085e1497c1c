//! Recorded operations, brought back to what the policy was asked then: for asking it, or another one, again.
//!
//! The ledger keeps texts without their literals, and effects in full only where people were asked. So effects are read from the
//! text anew, and what was measured is taken from the outcome. Whatever can't be brought back is counted, never guessed at.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use reprieve_effects_sql::analyze;
use reprieve_gate::Verdict;
use reprieve_operation::{
    Action, Effect, Event, Facts, HoldId, IntentId, Kind, Operation, Outcome, Principal, Protocol, Reach, Recorded, RefusalKind, Scope,
    SessionId, State, SystemName, Timestamp, TokenId, Undoability,
};

use crate::settings::{Settings, SystemKind};

/// Intents without an outcome that are kept at a time; a gateway has far fewer.
const OPEN: usize = 100_000;

/// One recorded operation, or equal reads of one session.
pub(crate) struct Replayed {
    /// The event that ended it.
    pub(crate) index: u64,
    pub(crate) at: Timestamp,
    pub(crate) operation: Operation,
    pub(crate) facts: Facts,
    /// How often; more than once for reads only.
    pub(crate) times: u64,
    /// What it was answered.
    pub(crate) recorded: Verdict,
    /// Whether it ran in the end, approved or not.
    pub(crate) ran: bool,
}

/// What was known when an intent was recorded, until its outcome.
struct Open {
    at: Timestamp,
    token: TokenId,
    session: SessionId,
    system: SystemName,
    environment: reprieve_operation::Environment,
    text: String,
    kinds: Vec<Kind>,
    rows_this_hour: u64,
    scope: Arc<Scope>,
    on_behalf_of: Option<reprieve_operation::OperatorName>,
    held: Option<HoldId>,
    released: bool,
}

/// What a hold knew.
struct Held {
    effects: Vec<Effect>,
    reach: Option<Reach>,
}

/// A fold over the ledger's events.
pub(crate) struct Replay<'a> {
    settings: &'a Settings,
    /// What ended before is folded, and not brought back.
    after: Timestamp,
    state: State,
    open: HashMap<IntentId, Open>,
    held: BTreeMap<HoldId, Held>,
    /// What could not be brought back, by reason.
    pub(crate) left_out: BTreeMap<&'static str, u64>,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(settings: &'a Settings, after: Timestamp) -> Self {
        Self { settings, after, state: State::default(), open: HashMap::new(), held: BTreeMap::new(), left_out: BTreeMap::new() }
    }

    /// The state after the events so far.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Takes the next event; answers with the operations that it ends.
    pub(crate) fn next(&mut self, recorded: &Recorded) -> Vec<Replayed> {
        let ended = match &recorded.event {
            Event::Intent { .. } => {
                self.begin(recorded);
                Vec::new()
            }
            Event::HoldOpened { hold, intent, effects, reach, .. } => {
                if let Some(open) = self.open.get_mut(intent) {
                    open.held = Some(*hold);
                }
                self.held.insert(*hold, Held { effects: effects.clone(), reach: reach.clone() });
                Vec::new()
            }
            Event::HoldReleased { intent, hold } => {
                if let Some(open) = self.open.get_mut(intent) {
                    open.released = true;
                    open.held = Some(*hold);
                }
                Vec::new()
            }
            Event::Concluded { intent, agent, outcome, statements } => {
                let open = self.open.remove(intent).filter(|_| recorded.at >= self.after);
                open.and_then(|open| self.end(recorded, agent, open, outcome, statements)).into_iter().collect()
            }
            Event::Reads { session, agent, system, reads } if recorded.at >= self.after => {
                let texts = reads.iter().filter_map(|tally| self.read(recorded, *session, agent, system, &tally.text, tally.count));
                let (replayed, left_out): (Vec<_>, Vec<_>) = texts.partition(Result::is_ok);
                for (reason, count) in left_out.into_iter().filter_map(Result::err) {
                    self.leave_out(reason, count);
                }
                replayed.into_iter().filter_map(Result::ok).collect()
            }
            _ => Vec::new(),
        };
        self.state.apply(recorded);
        // Holds that the state has forgotten are joined by no retry any more.
        if self.held.len() > 2 * self.state.holds.len() + 1_000 {
            let holds = &self.state.holds;
            self.held.retain(|hold, _| holds.contains_key(hold));
        }
        ended
    }

    fn leave_out(&mut self, reason: &'static str, count: u64) {
        *self.left_out.entry(reason).or_default() += count;
    }

    fn begin(&mut self, recorded: &Recorded) {
        let Event::Intent { intent, session, agent, token, system, environment, text, kinds, .. } = &recorded.event else { return };
        let Some(known) = self.state.agents.get(agent) else { return self.leave_out("the agent is not known", 1) };
        if self.open.len() >= OPEN {
            return self.leave_out("too many operations were under way at once", 1);
        }
        let open = Open {
            at: recorded.at,
            token: *token,
            session: *session,
            system: system.clone(),
            environment: environment.clone(),
            text: text.clone(),
            kinds: kinds.clone(),
            rows_this_hour: self.state.rows_this_hour(agent, recorded.at),
            scope: known.scope.clone(),
            on_behalf_of: known.on_behalf_of.clone(),
            held: None,
            released: false,
        };
        self.open.insert(*intent, open);
    }

    fn end(
        &mut self,
        recorded: &Recorded,
        agent: &reprieve_operation::AgentName,
        open: Open,
        outcome: &Outcome,
        statements: &[String],
    ) -> Option<Replayed> {
        let (answer, reach, ran) = match outcome {
            Outcome::Done { reach, .. } => (Verdict::Allow, Some(reach.clone()), true),
            Outcome::Refused { refusal } => match refusal.kind {
                RefusalKind::Held => (Verdict::Hold, refusal.reach.clone(), false),
                RefusalKind::Refused => (Verdict::Refuse, refusal.reach.clone(), false),
                RefusalKind::Frozen | RefusalKind::Unavailable => {
                    self.leave_out("no rule was asked: frozen, or something was unavailable", 1);
                    return None;
                }
            },
            Outcome::Failed { .. } => return self.drop("the server itself said no"),
            Outcome::Abandoned => return self.drop("its client gave it up"),
            Outcome::Unknown => return self.drop("how it ended is not known"),
        };
        let joined = match outcome {
            Outcome::Refused { refusal } => refusal.hold,
            _ => None,
        };
        let held = open.held.or(joined).and_then(|hold| self.held.get(&hold));
        let recorded_answer = if held.is_some() || open.released { Verdict::Hold } else { answer };
        let effects = match held {
            Some(held) => held.effects.clone(),
            None => match self.effects(&open.system, &open.text, &open.kinds, reach.as_ref()) {
                Some(effects) => effects,
                None => return self.drop("its text can't be read without its literals"),
            },
        };
        let reach = reach.or_else(|| held.and_then(|held| held.reach.clone()));
        let principal = Principal { agent: agent.clone(), token: open.token, on_behalf_of: open.on_behalf_of, scope: open.scope };
        let text: Arc<str> = open.text.into();
        // How a transaction's rows spread over its statements is not recorded: evenly, for want of better.
        let rows = reach.as_ref().map_or(0, Reach::rows);
        let many = statements.len().max(1) as u64;
        let operation = Operation {
            principal,
            session: open.session,
            protocol: self.protocol(&open.system),
            system: open.system,
            environment: open.environment,
            redacted: text.clone(),
            text,
            bound: None,
            parameters: None,
            action: if many > 1 { Action::Commit } else { Action::SelfContained },
            effects: effects.into(),
            rows_apart: rows - rows / many,
            reach,
        };
        let facts = self.facts(&operation, open.at, open.rows_this_hour);
        Some(Replayed { index: recorded.index, at: open.at, operation, facts, times: 1, recorded: recorded_answer, ran })
    }

    fn drop(&mut self, reason: &'static str) -> Option<Replayed> {
        self.leave_out(reason, 1);
        None
    }

    /// `None` for an agent that is not known; an error says why these reads are left out.
    fn read(
        &self,
        recorded: &Recorded,
        session: SessionId,
        agent: &reprieve_operation::AgentName,
        system: &SystemName,
        text: &str,
        times: u64,
    ) -> Option<Result<Replayed, (&'static str, u64)>> {
        let known = self.state.agents.get(agent)?;
        let Some(effects) = self.effects(system, text, &[Kind::Read], None) else {
            return Some(Err(("its text can't be read without its literals", times)));
        };
        let environment = match self.settings.system(system.as_str()) {
            Ok(system) => system.environment.clone(),
            Err(_) => return Some(Err(("its system is not in the settings any more", times))),
        };
        let text: Arc<str> = text.into();
        let operation = Operation {
            principal: Principal {
                agent: agent.clone(),
                token: known.token,
                on_behalf_of: known.on_behalf_of.clone(),
                scope: known.scope.clone(),
            },
            session,
            protocol: self.protocol(system),
            system: system.clone(),
            environment,
            redacted: text.clone(),
            text,
            bound: None,
            parameters: None,
            action: Action::SelfContained,
            effects: effects.into(),
            rows_apart: 0,
            reach: None,
        };
        let facts = self.facts(&operation, recorded.at, 0);
        Some(Ok(Replayed { index: recorded.index, at: recorded.at, operation, facts, times, recorded: Verdict::Allow, ran: true }))
    }

    fn facts(&self, operation: &Operation, at: Timestamp, rows_this_hour: u64) -> Facts {
        let window = match self.settings.system(operation.system.as_str()) {
            Ok(system) if system.kind == SystemKind::Http => system.delay.unwrap_or(self.settings.hold.delay),
            _ => Duration::ZERO,
        };
        Facts {
            now: at,
            frozen: false,
            approvals: 0,
            delayed: Duration::ZERO,
            window,
            undoable: Undoability::of(operation.reach.as_ref()),
            budget: self.settings.budget.get(&operation.environment).copied().unwrap_or_default(),
            rows_this_hour,
            // What was known of copies at that time is not folded here: rules that ask for it are answered as if nothing was asked for.
            recovery: reprieve_operation::RecoveryFacts::default(),
        }
    }

    fn protocol(&self, system: &SystemName) -> Protocol {
        match self.settings.system(system.as_str()) {
            Ok(system) if system.kind == SystemKind::Http => Protocol::Http,
            _ => Protocol::Postgres,
        }
    }

    /// The effects of a recorded text. A call's are the kinds that were recorded, on what its resource turned out to be.
    fn effects(&self, system: &SystemName, text: &str, kinds: &[Kind], reach: Option<&Reach>) -> Option<Vec<Effect>> {
        if self.protocol(system) == Protocol::Http {
            let resource = reach.and_then(|reach| reach.found.first()).map(|found| found.resource.clone());
            let call = |kind: &Kind| Effect::Invoke {
                operation: text.to_owned(),
                kind: *kind,
                resource: resource.clone(),
                hazards: std::collections::BTreeSet::new(),
            };
            return Some(kinds.iter().map(call).collect());
        }
        let readable = readings(text).find_map(|text| {
            let statements = analyze(&text).statements;
            let unread = |effect: &Effect| matches!(effect, Effect::Unknown { .. });
            (!statements.iter().any(|statement| statement.effects.iter().any(unread))).then_some(statements)
        });
        match readable {
            Some(statements) => {
                let mut effects: Vec<Effect> = Vec::new();
                for effect in statements.into_iter().flat_map(|statement| statement.effects) {
                    if !effects.contains(&effect) {
                        effects.push(effect);
                    }
                }
                Some(effects)
            }
            // It was not understood then either.
            None if kinds.contains(&Kind::Unknown) => Some(vec![Effect::Unknown { because: "it was not understood".to_owned() }]),
            None => None,
        }
    }
}

/// The ways to write something in the place of each literal that was taken out: what the grammar takes differs by place.
fn readings(text: &str) -> impl Iterator<Item = String> + '_ {
    ["$1", "'0'", "0"].into_iter().map(|value| {
        let mut filled = String::with_capacity(text.len() + 16);
        let mut rest = text.char_indices().peekable();
        while let Some((_, letter)) = rest.next() {
            match letter {
                '?' => filled.push_str(value),
                '$' if rest.peek().is_some_and(|(_, next)| next.is_ascii_digit()) => {
                    while rest.next_if(|(_, next)| next.is_ascii_digit()).is_some() {}
                    filled.push_str(value);
                }
                other => filled.push(other),
            }
        }
        filled
    })
}

/// A resource as a pattern of a token names it.
pub(crate) fn schema_of(resource: &str) -> &str {
    resource.split_once('.').map_or(resource, |(schema, _)| schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_without_literals_can_be_read_again() {
        for text in [
            "DELETE FROM orders WHERE id = $1",
            "DELETE FROM orders WHERE id = ? AND at < now() - INTERVAL ?",
            "INSERT INTO orders VALUES (?, ?, ?)",
            "SELECT * FROM orders LIMIT ?",
            "CREATE TABLE t (price numeric(?, ?))",
            "COPY t FROM STDIN;\nUPDATE t SET a = ? WHERE b = $1",
            "DO ?",
        ] {
            let read = readings(text).find(|text| {
                let statements = analyze(text).statements;
                !statements.iter().any(|one| one.effects.iter().any(|effect| matches!(effect, Effect::Unknown { .. })))
            });
            assert!(read.is_some(), "{text}");
        }
    }
}
