//! Holding: an operation waits for people without keeping a lock, a transaction or a connection.
//!
//! A hold is an event in the ledger; waiting is only listening for its answer. Whoever spends a release first in the ledger runs
//! it, once: a waiting client, an identical retry, or Reprieve itself when nobody waits any more.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use reprieve_operation::{
    Action, Answer, Decision, Effect, Event, HeldReason, HoldId, HoldState, HoldStatus, Kind, Needs, Operation, Reach, Refusal,
    RefusalKind, Sample, TableReach, Terms,
};
use tokio::{sync::watch, time::Instant};

use crate::{
    audit::AuditError,
    gate::{Gate, Granted, Spent},
    permit::{Approved, OpenIntent, Release},
    upstream::{Done, Upstream},
};

/// A denied operation is not asked about again for this long: its agent hears the person's reason instead.
const REMEMBER_DENIAL: Duration = Duration::from_secs(15 * 60);

/// Statements longer than this can't be held: nobody would read them.
const MAX_HELD_TEXT: usize = 32 * 1024;

/// Who waits, and the signal that some hold changed.
pub(crate) struct Holding {
    next: AtomicU64,
    version: watch::Sender<u64>,
    waiting: Mutex<HashMap<HoldId, usize>>,
    opening: tokio::sync::Mutex<()>,
}

impl Holding {
    pub(crate) fn new(next: u64) -> Self {
        Self { next: AtomicU64::new(next), version: watch::channel(0).0, waiting: Mutex::default(), opening: tokio::sync::Mutex::default() }
    }

    pub(crate) fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    fn is_waited_for(&self, hold: HoldId) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&hold)
    }

    fn enter(&self, hold: HoldId) -> Waiting<'_> {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner).entry(hold).or_default() += 1;
        Waiting { holding: self, hold }
    }
}

/// A client that waits for a hold; leaving is automatic.
struct Waiting<'a> {
    holding: &'a Holding,
    hold: HoldId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.holding.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.get_mut(&self.hold) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.hold);
            }
        }
    }
}

/// What an identical operation finds in the ledger.
enum Found {
    /// Nothing: it has to be decided on.
    Nothing,
    /// A hold that waits or may be used.
    Hold(Box<HoldState>),
}

impl Gate {
    /// Decides; asks people if that is needed; decides again, their answer now a fact.
    pub(crate) async fn terms(
        &self,
        intent: &mut OpenIntent,
        operation: &mut Operation,
        upstream: &mut dyn Upstream,
        spent: Spent,
    ) -> Result<Granted, Refusal> {
        let started = Instant::now();
        loop {
            let mut version = self.holding.version.subscribe();
            self.may_go_on(&operation.principal)?; // it may have been frozen while it waited
            let hold = match self.find(operation)? {
                Found::Hold(hold) => *hold,
                Found::Nothing => {
                    let mut needs = match self.decide(operation, 0, Duration::ZERO) {
                        Decision::Allow(terms) => return Ok(Granted::Terms(terms, None)),
                        // What might be little is measured before it is called too much: that is rolled back.
                        Decision::Refuse(refusal) => match self.measured_first(operation, upstream).await {
                            Some(reach) => {
                                operation.reach = Some(reach);
                                continue;
                            }
                            None => return Err(refusal),
                        },
                        // Whether there is a way back shows when it is measured, before it is final.
                        Decision::Needs(needs)
                            if operation.reach.as_ref().is_none_or(|reach| reach.estimated) && asks_for_undo_only(&needs) =>
                        {
                            operation.reach = None;
                            let terms = Terms { ceiling: None, undoable_only: true, because: vec![needs.rule], would_have: None };
                            return Ok(Granted::Terms(terms, None));
                        }
                        Decision::Needs(needs) => needs,
                    };
                    if operation.reach.is_none() {
                        operation.reach = upstream.estimate(operation).await;
                        if let Some(reach) = &operation.reach
                            && !reach.estimated
                            && self.allows_measured(operation, reach)
                        {
                            continue; // it did less than its text let fear
                        }
                        // What people have to do follows from all that is known, or their approval would not be enough when it runs.
                        match self.decide(operation, 0, Duration::ZERO) {
                            Decision::Refuse(refusal) => return Err(refusal),
                            Decision::Needs(more) if more.approvals > needs.approvals || more.delay > needs.delay => needs = more,
                            Decision::Needs(_) | Decision::Allow(_) => {}
                        }
                    }
                    let samples = upstream.samples(operation).await;
                    self.open_hold(intent, operation, needs, samples).await?
                }
            };
            match hold.status {
                HoldStatus::Approved | HoldStatus::Scheduled if hold.is_ready(self.clock.now()) => {
                    match self.release(intent, operation, &hold, spent).await? {
                        Some(granted) => return Ok(granted),
                        None => continue,
                    }
                }
                HoldStatus::Finished if hold.kept.is_some() => match self.hand_over(&hold, upstream).await? {
                    Some(done) => return Ok(Granted::Delivered(done)),
                    None => continue,
                },
                HoldStatus::Waiting | HoldStatus::Approved | HoldStatus::Released => {}
                // Nobody waits for days.
                HoldStatus::Scheduled => return Err(self.held(&hold)),
                HoldStatus::Denied | HoldStatus::Expired | HoldStatus::Finished => return Err(denied(&hold)),
            }
            let refusal = self.held(&hold);
            let left = self.options.wait.saturating_sub(started.elapsed());
            if !upstream.can_wait() || left.is_zero() {
                return Err(refusal);
            }
            let _waiting = self.holding.enter(hold.hold);
            upstream.tell_waiting(&refusal).await;
            let deadline = started + self.options.wait;
            loop {
                tokio::select! {
                    _ = version.changed() => if !self.same(&hold) || self.may_go_on(&operation.principal).is_err() { break },
                    () = tokio::time::sleep_until(deadline) => return Err(refusal),
                    () = upstream.gone() => return Err(refusal),
                }
            }
        }
    }

    /// What an operation would reach, where its text alone is refused and its reach might not be. Nothing of it stays.
    async fn measured_first(&self, operation: &Operation, upstream: &mut dyn Upstream) -> Option<Reach> {
        if !self.hangs_on_reach(operation) {
            return None;
        }
        let reach = upstream.estimate(operation).await?;
        // What is only estimated is good enough for a no, and for nothing else.
        let refused = || matches!(self.decide_on(operation, &reach), Decision::Refuse(_));
        (!reach.estimated || refused()).then_some(reach)
    }

    /// Whether nothing happened to the hold since it was looked at, so that waiting goes on.
    fn same(&self, hold: &HoldState) -> bool {
        self.audit.state().holds.get(&hold.hold).is_some_and(|now| now.status == hold.status)
    }

    /// The hold of an identical operation, if there is one that still says something.
    fn find(&self, operation: &Operation) -> Result<Found, Refusal> {
        let state = self.audit.state();
        if state.holds.is_empty() {
            return Ok(Found::Nothing);
        }
        let digest = operation.digest();
        if let Some(hold) = state.hold_for(&digest) {
            return Ok(Found::Hold(Box::new(hold.clone())));
        }
        let now = self.clock.now();
        let denial = state.holds.values().rev().find(|hold| hold.digest == digest && hold.status == HoldStatus::Denied);
        match denial {
            Some(hold) if now.since(hold.opened) < REMEMBER_DENIAL => Err(denied(hold)),
            _ => Ok(Found::Nothing),
        }
    }

    async fn open_hold(
        &self,
        intent: &mut OpenIntent,
        operation: &Operation,
        needs: Needs,
        samples: Vec<Sample>,
    ) -> Result<HoldState, Refusal> {
        if operation.text.len() > MAX_HELD_TEXT {
            return Err(Refusal::refused("held-text-limit", "this needs an approval, and is too long for a person to read", "split it"));
        }
        let agent = &operation.principal.agent;
        intent.durable().await?;
        // One hold is opened at a time: sessions side by side must not open two for one text, nor more than the limit.
        let _one_at_a_time = self.holding.opening.lock().await;
        if let Found::Hold(hold) = self.find(operation)? {
            return Ok(*hold);
        }
        if self.audit.state().open_holds(agent) >= self.options.open_holds {
            let reason = format!("`{agent}` already has {} holds that wait for people", self.options.open_holds);
            return Err(Refusal::refused("open-holds", reason, "wait for their answers; asking more does not help"));
        }
        let hold = HoldId(self.holding.next.fetch_add(1, Ordering::Relaxed));
        let measured = operation.reach.as_ref().is_some_and(|reach| !reach.estimated);
        let event = Event::HoldOpened {
            hold,
            intent: intent.id(),
            digest: operation.digest(),
            agent: agent.clone(),
            token: operation.principal.token,
            on_behalf_of: operation.principal.on_behalf_of.clone(),
            session: operation.session,
            system: operation.system.clone(),
            environment: operation.environment.clone(),
            protocol: operation.protocol,
            action: operation.action,
            text: operation.text.to_string(),
            parameters: operation.parameters.clone(),
            effects: operation.effects.to_vec(),
            reach: operation.reach.clone(),
            samples,
            reason: if measured { HeldReason::Measured } else { HeldReason::Text },
            needs,
            confirm: confirm_name(operation),
            expires: self.clock.now().plus(self.options.expire),
        };
        self.audit.append(event).await.map_err(|error| Refusal::unavailable("ledger", error.to_string()))?;
        tracing::info!(%hold, %agent, system = %operation.system, "held");
        let state = self.audit.state();
        state.holds.get(&hold).cloned().ok_or_else(|| Refusal::unavailable("ledger", "the hold was recorded and is not there"))
    }

    /// Spends the release, if nobody was faster. `None`: look again.
    async fn release(
        &self,
        intent: &mut OpenIntent,
        operation: &mut Operation,
        hold: &HoldState,
        spent: Spent,
    ) -> Result<Option<Granted>, Refusal> {
        let approvals = hold.counted_approvals();
        operation.reach.clone_from(&hold.reach);
        let terms = match self.decide(operation, approvals, hold.delayed(self.clock.now())) {
            Decision::Allow(terms) => terms,
            Decision::Refuse(refusal) => return Err(refusal),
            Decision::Needs(needs) => {
                let remedy = "an operator has to look at it again under the rules now in force".to_owned();
                return Err(Refusal {
                    kind: RefusalKind::Refused,
                    rule: needs.rule,
                    reason: needs.reason,
                    remedy,
                    hold: Some(hold.hold),
                    reach: None,
                });
            }
        };
        // Whoever gets this event into the ledger runs the operation; the key makes that one. If we are dropped while it is on its way,
        // the release is spent and has failed.
        let approved = Approved { hold: hold.hold, reach: hold.reach.clone(), approvals };
        let leaves_something = hold.reach.as_ref().is_some_and(|reach| !reach.escapes.is_empty());
        if spent == Spent::AtCommit && !leaves_something {
            intent.durable().await?;
            return Ok(Some(Granted::Terms(terms, Some(Release::reserved(self.audit.clone(), intent.id(), approved)))));
        }
        let pending = self.audit.append(Event::HoldReleased { hold: hold.hold, intent: intent.id() });
        let release = Release::new(self.audit.clone(), intent.id(), approved);
        match pending.await {
            Ok(_) => {
                intent.durable().await?;
                Ok(Some(Granted::Terms(terms, Some(release))))
            }
            Err(AuditError::KeyTaken { .. }) => {
                release.forget();
                Ok(None)
            }
            Err(error) => Err(Refusal::unavailable("ledger", error.to_string())),
        }
    }

    /// Hands over what Reprieve's own run of an approved operation gave. `None`: somebody else got it.
    async fn hand_over(&self, hold: &HoldState, upstream: &mut dyn Upstream) -> Result<Option<Done>, Refusal> {
        match self.audit.append(Event::ResultDelivered { hold: hold.hold }).await {
            Ok(_) => {}
            Err(AuditError::KeyTaken { .. }) => return Ok(None),
            Err(error) => return Err(Refusal::unavailable("ledger", error.to_string())),
        }
        let kept = hold.kept.clone().unwrap_or_default();
        if upstream.deliver(&kept).await {
            return Ok(Some(Done { tag: format!("result of {}", hold.hold), reach: Reach::default(), xid: None, kept: None }));
        }
        let reason = format!("{} was approved and has run, once; its result can't be shown in this form", hold.hold);
        Err(Refusal { hold: Some(hold.hold), ..Refusal::refused("already-ran", reason, "look at what it changed before doing more") })
    }

    /// Holds a client's transaction that was rolled back because of what it was measured to do.
    pub(crate) async fn hold_rolled_back(
        &self,
        intent: &mut OpenIntent,
        operation: &mut Operation,
        upstream: &mut dyn Upstream,
    ) -> Refusal {
        match self.terms(intent, operation, upstream, Spent::Now).await {
            Err(refusal) => refusal,
            Ok(_) => {
                let reach = operation.reach.clone();
                let refusal = Refusal::unavailable("measurement", "the transaction was rolled back to be measured exactly; run it again");
                Refusal { reach, ..refusal }
            }
        }
    }

    /// The refusal of a hold that waits.
    fn held(&self, hold: &HoldState) -> Refusal {
        Refusal {
            kind: RefusalKind::Held,
            rule: hold.needs.rule.clone(),
            reason: match (hold.status, hold.due) {
                (HoldStatus::Scheduled, Some(due)) => {
                    let minutes = due.since(self.clock.now()).as_secs().div_ceil(60);
                    let left = if minutes > 120 { format!("{} hours", minutes.div_ceil(60)) } else { format!("{minutes} minutes") };
                    format!("it was approved, and is carried out in {left} unless somebody cancels it")
                }
                _ => hold.needs.reason.clone(),
            },
            remedy: hold.needs.remedy.clone(),
            hold: Some(hold.hold),
            reach: hold.reach.clone(),
        }
    }

    /// Approved holds that can be run by themselves and for which no client waits.
    #[must_use]
    pub fn unattended(&self) -> Vec<HoldState> {
        let state = self.audit.state();
        let now = self.clock.now();
        let ready = |hold: &&HoldState| hold.is_ready(now) && hold.action == Action::SelfContained;
        state.holds.values().filter(ready).filter(|hold| !self.holding.is_waited_for(hold.hold)).cloned().collect()
    }

    /// Hears when some hold changed.
    #[must_use]
    pub fn holds_changed(&self) -> watch::Receiver<u64> {
        self.holding.version.subscribe()
    }

    /// Denies holds that nobody answered in time.
    pub fn expire_holds(&self) {
        let now = self.clock.now();
        let late: Vec<HoldId> = self.audit.state().holds.values().filter(|hold| hold.is_over(now)).map(|hold| hold.hold).collect();
        for hold in late {
            self.note(Event::HoldExpired { hold });
        }
    }

    /// Where people look at a hold.
    #[must_use]
    pub fn hold_link(&self, hold: HoldId) -> String {
        format!("{}{hold}", self.options.link)
    }
}

fn asks_for_undo_only(needs: &Needs) -> bool {
    needs.undo && needs.approvals == 0 && needs.delay.is_zero()
}

fn denied(hold: &HoldState) -> Refusal {
    let said = hold.answers.iter().rev().find(|(_, answer, _)| *answer == Answer::Deny);
    let (rule, reason) = match (hold.status, said) {
        (_, Some((operator, _, reason))) => ("denied".to_owned(), format!("denied by {operator}: {reason}")),
        (HoldStatus::Expired, None) => ("expired".to_owned(), "nobody answered in time, so it is denied".to_owned()),
        _ => ("already-ran".to_owned(), "this was approved and has run, once".to_owned()),
    };
    let remedy = "do something narrower, or ask the operator; repeating it will not be asked again soon".to_owned();
    Refusal { kind: RefusalKind::Refused, rule, reason, remedy, hold: Some(hold.hold), reach: hold.reach.clone() }
}

/// What an approver has to type: what the text names, else the relation that loses most, else the system.
fn confirm_name(operation: &Operation) -> String {
    let reads = |effect: &&Effect| !matches!(effect, Effect::Read { .. } | Effect::Session { .. });
    let by_text = operation.effects.iter().filter(reads).find_map(Effect::relation).map(|name| name.name.clone());
    let by_call = operation.effects.iter().find_map(|effect| match effect {
        Effect::Invoke { resource: Some(resource), kind, .. } if *kind != Kind::Read => Some(id_of(resource)),
        _ => None,
    });
    let reach = operation.reach.as_ref();
    let gone = reach.and_then(|reach| reach.dropped.first().or(reach.rewritten.first()).cloned());
    let largest = reach.and_then(|reach| {
        let lost = |rows: &TableReach| (rows.deleted, rows.updated, rows.inserted);
        reach.tables.iter().max_by_key(|(_, rows)| lost(rows)).map(|(name, _)| name.clone())
    });
    if let Some(found) = reach.and_then(|reach| reach.found.first()) {
        // The name as the provider knows it, else the id: the whole of it, dots and all.
        return found.name.clone().unwrap_or_else(|| id_of(&found.resource));
    }
    if let Some(id) = by_call {
        return id;
    }
    let name = by_text.or(gone).or(largest).unwrap_or_else(|| operation.system.to_string());
    name.rsplit('.').next().unwrap_or(&name).to_owned()
}

/// The id in `type/id`, whatever is in it.
fn id_of(resource: &str) -> String {
    resource.split_once('/').map_or(resource, |(_, id)| id).to_owned()
}
