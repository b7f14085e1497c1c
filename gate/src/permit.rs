//! Permits: the proof that one operation may run once, and the record that it was meant to.

use std::sync::Arc;

use reprieve_operation::{AgentName, Event, HoldId, IntentId, Operation, Outcome, Parameters, Reach, Refusal, Terms, Timestamp};

use crate::{
    audit::{Audit, AuditError, Pending},
    gate::Gate,
    spending::Reservation,
    texts::{AskedText, Texts},
};

/// An approval that a run draws on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    /// The hold.
    pub hold: HoldId,
    /// What was approved. `None`: it couldn't be measured, and the exact text was approved.
    pub reach: Option<Reach>,
    /// How many approved.
    pub approvals: u32,
}

/// Proof that one operation may run once. Only this crate makes one, and running spends it.
#[must_use]
pub struct Permit<'a> {
    pub(crate) gate: &'a Gate,
    pub(crate) intent: &'a mut OpenIntent,
    pub(crate) operation: &'a Operation,
    pub(crate) terms: Terms,
    pub(crate) approved: Option<Approved>,
    /// Approvals that statements of the transaction drew on, to be spent before it is final.
    pub(crate) releases: &'a mut [Release],
}

/// A release that is spent by one run. Spent and dropped without a word, it is recorded as failed: it doesn't run again. In a client's
/// transaction it is spent when that becomes final: what is rolled back has used nothing up.
pub struct Release {
    audit: Arc<dyn Audit>,
    intent: IntentId,
    approved: Approved,
    spent: bool,
    finished: bool,
}

impl Release {
    pub(crate) fn new(audit: Arc<dyn Audit>, intent: IntentId, approved: Approved) -> Self {
        Self { audit, intent, approved, spent: true, finished: false }
    }

    /// One that is spent later.
    pub(crate) fn reserved(audit: Arc<dyn Audit>, intent: IntentId, approved: Approved) -> Self {
        Self { audit, intent, approved, spent: false, finished: false }
    }

    /// Spends it now, unless somebody was faster or took the approval back.
    async fn spend(&mut self, now: Timestamp) -> Result<(), Refusal> {
        if self.spent {
            return Ok(());
        }
        let gone = |hold| {
            let reason = format!("the approval of {hold} was used by another run, or is over");
            Refusal::refused("released-elsewhere", reason, "run the transaction again; it will be asked about anew")
        };
        let hold = self.approved.hold;
        if !self.audit.state().holds.get(&hold).is_some_and(|state| state.is_ready(now)) {
            return Err(gone(hold));
        }
        match self.audit.append(Event::HoldReleased { hold, intent: self.intent }).await {
            Ok(_) => self.spent = true,
            Err(AuditError::KeyTaken { .. }) => return Err(gone(hold)),
            Err(error) => {
                self.spent = true; // it may be there
                return Err(Refusal::unavailable("ledger", error.to_string()));
            }
        }
        Ok(())
    }

    /// It was not ours to spend: somebody else was faster.
    pub(crate) fn forget(mut self) {
        self.finished = true;
    }

    /// What was approved.
    #[must_use]
    pub fn approved(&self) -> &Approved {
        &self.approved
    }

    /// Records how the run ended, with its result where nobody waited for it. Resolves when everybody can know it. There is nothing to
    /// record where it was never spent.
    pub fn finish(mut self, succeeded: bool, kept: Option<String>) -> Pending {
        if self.spent { self.record(succeeded, kept) } else { Pending::channel().1 }
    }

    fn record(&mut self, succeeded: bool, kept: Option<String>) -> Pending {
        self.finished = true;
        self.audit.append(Event::HoldFinished { hold: self.approved.hold, intent: self.intent, succeeded, kept })
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        if self.spent && !self.finished {
            drop(self.record(false, None));
        }
    }
}

/// Proof that what was measured may become final, and that its intent is durable.
#[derive(Debug)]
#[must_use]
pub struct Clearance(());

impl Permit<'_> {
    /// The operation.
    #[must_use]
    pub fn operation(&self) -> &Operation {
        self.operation
    }

    /// The intent that it runs under.
    #[must_use]
    pub fn intent(&self) -> IntentId {
        self.intent.id()
    }

    /// Rows up to which nobody has to be asked again, if the surface can make the system itself enforce that. `None`: the
    /// exact measurement has to be shown to [`Permit::clear`].
    #[must_use]
    pub fn ceiling(&self) -> Option<u64> {
        if self.approved.is_some() || self.operation.reach.is_some() { None } else { self.terms.ceiling }
    }

    /// What people approved, where that was measured or estimated.
    #[must_use]
    pub fn approved(&self) -> Option<&Reach> {
        self.approved.as_ref()?.reach.as_ref()
    }

    /// Whether people approved it.
    #[must_use]
    pub fn has_approval(&self) -> bool {
        self.approved.is_some()
    }

    /// Whether [`Permit::ceiling`] holds for what can be brought back only: the system has to enforce that too.
    #[must_use]
    pub fn undoable_only(&self) -> bool {
        self.terms.undoable_only
    }

    /// Waits until the intent is durable, for a system that enforces [`Permit::ceiling`] by itself.
    pub async fn within_ceiling(&mut self) -> Result<Clearance, Refusal> {
        self.intent.durable().await?;
        for release in self.releases.iter_mut() {
            release.spend(self.gate.now()).await?;
        }
        self.gate.may_go_on(&self.operation.principal)?; // while all this became durable, somebody may have frozen the agent
        self.intent.cleared = true;
        Ok(Clearance(()))
    }

    /// Records what was measured, with its transaction, before that is made final: where a crash loses the outcome, this settles it.
    pub async fn note_measured(&self, xid: u64, reach: &Reach) -> Result<(), Refusal> {
        let (intent, agent) = (self.intent.id, self.intent.agent.clone());
        let recorded = self.gate.audit.append(Event::Measured { intent, agent, xid, reach: reach.clone() }).await;
        recorded.map(drop).map_err(|error| Refusal::unavailable("ledger", error.to_string()))
    }

    /// Decides on the exact measurement. `None`: it reaches further than allowed, and must be rolled back.
    pub async fn clear(&mut self, reach: &Reach) -> Result<Option<Clearance>, Refusal> {
        let covered = match &self.approved {
            Some(Approved { reach: Some(approved), .. }) => reach.is_within(approved),
            Some(Approved { reach: None, .. }) => true,
            None => {
                self.intent.reservation = None; // the exact number takes its place
                self.intent.spent = self.gate.spend_if_allowed(self.operation, reach);
                self.intent.spent
            }
        };
        if !covered {
            return Ok(None);
        }
        self.intent.durable().await?;
        self.gate.may_go_on(&self.operation.principal)?; // while the intent became durable, somebody may have frozen the agent
        self.intent.cleared = true;
        Ok(Some(Clearance(())))
    }
}

/// An intent without an outcome. Dropped, it records `abandoned`, or `unknown` once it may have become final.
pub struct OpenIntent {
    audit: Arc<dyn Audit>,
    texts: Option<Arc<dyn Texts>>,
    /// Why the exact text of a statement is not kept.
    unkept: Option<String>,
    agent: AgentName,
    id: IntentId,
    pending: Option<Pending>,
    concluded: bool,
    statements: Vec<String>,
    /// Rows set aside while it runs.
    pub(crate) reservation: Option<Reservation>,
    /// Whether its rows were counted, or needn't be.
    pub(crate) spent: bool,
    /// Whether a clearance was given: from then on it may have become final.
    cleared: bool,
}

impl OpenIntent {
    pub(crate) fn new(audit: Arc<dyn Audit>, texts: Option<Arc<dyn Texts>>, agent: AgentName, id: IntentId, event: Event) -> Self {
        let pending = Some(audit.append(event));
        Self {
            audit,
            texts,
            unkept: None,
            agent,
            id,
            pending,
            concluded: false,
            statements: Vec::new(),
            reservation: None,
            spent: false,
            cleared: false,
        }
    }

    /// Adds a statement that runs under this intent besides the one it was opened with; their number is limited, so that a
    /// record stays readable.
    pub fn add_statement(&mut self, redacted: &str) {
        if self.statements.len() < 200 {
            self.statements.push(redacted.chars().take(500).collect());
        }
    }

    /// Keeps the exact text of such a statement. Where that fails, nothing of the intent becomes final.
    pub fn keep_text(&mut self, text: &Arc<str>, parameters: Option<&Parameters>) {
        let Some(texts) = &self.texts else { return };
        let asked = AskedText { agent: self.agent.clone(), intent: self.id, text: text.clone(), parameters: parameters.cloned() };
        self.unkept = texts.keep(asked).err().or(self.unkept.take());
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> IntentId {
        self.id
    }

    /// Waits until the intent is durable; later calls return at once.
    pub(crate) async fn durable(&mut self) -> Result<(), Refusal> {
        if let Some(why) = &self.unkept {
            return Err(Refusal::unavailable("vault", why.clone()));
        }
        let Some(pending) = &mut self.pending else { return Ok(()) };
        let answer = pending.await;
        self.pending = None;
        match answer {
            Ok(_) => Ok(()),
            Err(error) => {
                // A second wait must not take a failed record for a durable one.
                self.pending = Some(Pending::channel().1);
                Err(Refusal::unavailable("ledger", error.to_string()))
            }
        }
    }

    pub(crate) fn conclude(mut self, outcome: Outcome) {
        self.concluded = true;
        self.record(outcome);
    }

    /// An outcome is recorded without waiting: found missing at the next start, it becomes `unknown`.
    fn record(&mut self, outcome: Outcome) {
        drop(self.audit.append(Event::Concluded {
            intent: self.id,
            agent: self.agent.clone(),
            outcome,
            statements: std::mem::take(&mut self.statements),
        }));
    }
}

impl Drop for OpenIntent {
    fn drop(&mut self) {
        if !self.concluded {
            self.record(if self.cleared { Outcome::Unknown } else { Outcome::Abandoned });
        }
    }
}
