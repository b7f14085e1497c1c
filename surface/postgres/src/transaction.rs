//! A client's transaction that may have changed something: what ran in it, under one intent.

use std::sync::Arc;

use reprieve_gate::{Considered, OpenIntent, Ran, Release};
use reprieve_operation::{Action, Digest, Effect, Operation, Parameters, Reach, Refusal};

use crate::{
    known::Known,
    run::{CommitBy, Form, Run},
    secured::Secured,
    session::Session,
    tally::Tally,
    wire::Gone,
};

/// Statements kept of one transaction, for the person who may have to read them.
const MOST_STATEMENTS: usize = 2_000;

/// Statements at a transaction's end whose values may be others when it is run again.
const MOST_STAMPS: usize = 20;

/// A client's open transaction with changes in it.
pub(crate) struct Transaction {
    pub(crate) intent: OpenIntent,
    /// The texts of what may have changed something, in order.
    texts: Vec<Arc<str>>,
    redacted: Vec<Arc<str>>,
    effects: Vec<Effect>,
    /// What was left out: how many, and a digest of all of them, so that an approval is bound to these too.
    left_out: usize,
    left_out_digest: Option<Digest>,
    /// What of its last statements has to be the same when it is run again; see [`Transaction::bound`].
    stamps: Vec<Arc<str>>,
    /// Whether all that its statements do is in their texts.
    is_open: bool,
    /// Whether nothing but plain row changes ran.
    pub(crate) plain: bool,
    /// Releases that statements in it drew on.
    pub(crate) releases: Vec<Release>,
}

impl Transaction {
    pub(crate) fn new(intent: OpenIntent) -> Self {
        Self {
            intent,
            texts: Vec::new(),
            redacted: Vec::new(),
            effects: Vec::new(),
            left_out: 0,
            left_out_digest: None,
            stamps: Vec::new(),
            is_open: true,
            plain: true,
            releases: Vec::new(),
        }
    }

    /// Takes in a statement and what it does; `parameters` distinguishes retries with other values. `stamp` is what of it has to be
    /// the same in a retry, where its values needn't be.
    pub(crate) fn add(&mut self, known: &Known, effects: &[Effect], parameters: Option<&str>, stamp: Option<Arc<str>>) {
        self.plain &= known.is_plain();
        self.is_open &= known.is_open();
        match stamp {
            Some(stamp) => self.stamps.push(stamp),
            // What runs after a stamp may read its values.
            None => self.stamps.clear(),
        }
        if self.texts.len() >= MOST_STATEMENTS {
            self.left_out += 1;
            let before = self.left_out_digest.as_ref().map(ToString::to_string).unwrap_or_default();
            let parts = [before.as_bytes(), known.text.as_bytes(), parameters.unwrap_or_default().as_bytes()];
            self.left_out_digest = Some(Digest::of(&parts));
        } else {
            if !self.texts.is_empty() {
                self.intent.add_statement(&known.redacted());
            }
            match parameters {
                Some(parameters) if !parameters.is_empty() => self.texts.push(format!("{} -- {parameters}", known.text).into()),
                _ => self.texts.push(known.text.clone()),
            }
            self.redacted.push(known.redacted());
        }
        for effect in effects {
            if !self.effects.contains(effect) {
                self.effects.push(effect.clone());
            }
        }
    }

    /// The whole of it, one statement a line.
    pub(crate) fn text(&self) -> Arc<str> {
        let mut text = self.listed(&self.texts);
        if let Some(digest) = &self.left_out_digest {
            text.push_str(&format!(" ({digest})"));
        }
        if let Some(count) = self.open_stamps() {
            text.push_str(&format!(";\n-- the values of the last {count} may be others when it is run again"));
        }
        text.into()
    }

    /// What an approval of it is bound to, where that is not all of its text: rows that its last statements add, that nobody would be
    /// asked about, and that nothing reads before the COMMIT may have other values. Migration tools note there what they ran, and when.
    pub(crate) fn bound(&self) -> Option<Arc<str>> {
        let count = self.open_stamps()?;
        let exact = self.texts.get(..self.texts.len() - count)?;
        // No two transactions are cut at different places and still read the same.
        let mut text = format!("{} as they are:\n{}", exact.len(), self.listed(exact));
        self.stamps.iter().for_each(|stamp| text.push_str(&format!(";\n{stamp}")));
        Some(text.into())
    }

    fn open_stamps(&self) -> Option<usize> {
        let count = self.stamps.len();
        (self.is_open && self.left_out == 0 && (1..=MOST_STAMPS).contains(&count) && count < self.texts.len()).then_some(count)
    }

    /// The same without literals.
    pub(crate) fn redacted(&self) -> Arc<str> {
        self.listed(&self.redacted).into()
    }

    fn listed(&self, texts: &[Arc<str>]) -> String {
        let mut text = texts.iter().map(|text| text.trim().trim_end_matches(';')).collect::<Vec<_>>().join(";\n");
        if self.left_out > 0 {
            text.push_str(&format!(";\n-- and {} more", self.left_out));
        }
        text
    }

    pub(crate) fn effects(&self) -> Arc<[Effect]> {
        self.effects.clone().into()
    }

    /// Whether an approval was drawn on by an earlier statement.
    pub(crate) fn has_used(&self, release: &Release) -> bool {
        self.releases.iter().any(|used| used.approved().hold == release.approved().hold)
    }

    /// What its releases cover together. `None`: one of them was given without a measurement.
    pub(crate) fn approved_reach(&self) -> Option<Reach> {
        let mut sum = Reach::default();
        for release in &self.releases {
            sum.add(release.approved().reach.as_ref()?);
        }
        Some(sum)
    }
}

impl Session {
    /// Makes a statement a part of the client's transaction, if the policy lets it try.
    pub(crate) async fn join(&mut self, known: &Arc<Known>, parameters: Option<Parameters>) -> Result<Result<(), Refusal>, Gone> {
        self.look_before_holding(known).await;
        if self.transaction.is_none() {
            self.ends.secured = Secured::default();
            self.ends.wire.tally = Tally::default();
        }
        let operation = self.operation(known, parameters, Action::InSession);
        let operation = self.ends.see_empty(operation).await?;
        if !self.ends.seem_empty.is_empty() {
            let system = self.ends.system.clone();
            self.ends.secured.definitions(&system).await;
            if let Err(refusal) = self.ends.keep_empty().await {
                return Ok(Err(refusal));
            }
        }
        self.ends.secured.unread |= !known.is_open();
        self.ends.secured.note(&known.effects);
        let mut approved = None;
        match self.ends.gate.consider(&operation) {
            Considered::Pass => {}
            Considered::Refuse(refusal) => return Ok(Err(refusal)),
            Considered::Hold(_) => match self.released(operation.clone()).await {
                Ok(release) => approved = release,
                Err(refusal) => return Ok(Err(refusal)),
            },
        }
        if let Some(release) = &approved
            && self.transaction.as_ref().is_some_and(|transaction| transaction.has_used(release))
        {
            let reason = format!("the approval of {} is for one run, and this transaction has used it", release.approved().hold);
            return Ok(Err(Refusal::refused("used-already", reason, "run it again in another transaction")));
        }
        let was_approved = approved.is_some();
        if !known.is_plain() || approved.is_some() {
            let system = self.ends.system.clone();
            self.ends.secured.definitions(&system).await;
        }
        if let Some(reach) = approved.as_ref().and_then(|release| release.approved().reach.clone())
            && let Err(refusal) = self.ends.keep_what_goes(&known.effects, &reach).await
        {
            return Ok(Err(refusal));
        }
        match &mut self.transaction {
            Some(transaction) => transaction.intent.keep_text(&known.text, operation.parameters.as_ref()),
            None => match self.ends.gate.intend(&operation) {
                Ok(intent) => self.transaction = Some(Transaction::new(intent)),
                Err(refusal) => return Ok(Err(refusal)),
            },
        }
        self.note_quiet_cursor(known);
        let stamp = if was_approved { None } else { self.stamp(known, &operation).await };
        if let Some(transaction) = &mut self.transaction {
            let shown = operation.parameters.as_ref().map(|parameters| serde_json::to_string(parameters).unwrap_or_default());
            // What people agreed to is not decided on again at the COMMIT; what it does beyond that is measured there.
            let undecided: &[Effect] = if was_approved { &[] } else { &operation.effects };
            transaction.add(known, undecided, shown.as_deref(), stamp);
            transaction.plain &= !was_approved;
            transaction.releases.extend(approved);
        }
        self.note_effects(known);
        let may_be_exact = !was_approved && !self.made_something;
        // The COMMIT waits for the catalogue in any case.
        let view = if may_be_exact { self.ends.system.fresh_view().await } else { None };
        let is_exact = view.is_some_and(|view| known.is_counted_by_its_tag(&view));
        let is_idle = self.ends.wire.replies.is_empty();
        self.ends.wire.tally.expect(is_exact, is_idle);
        Ok(Ok(()))
    }

    /// What of a statement has to be the same when its transaction is run again, where it adds a few rows that nobody would be asked
    /// about, and whose values can steer nothing.
    async fn stamp(&self, known: &Known, operation: &Operation) -> Option<Arc<str>> {
        let view = self.ends.system.fresh_view().await?;
        let table = known.adds_constants_to(&view)?;
        // A row has a pair of brackets at least.
        let rows = known.text.matches('(').count().max(1) as u64;
        let allows = |oid| self.ends.gate.allows_measured(operation, &view.snapshot.reach_of_insert(oid, rows));
        let passes = view.catalog.find_tables(table).iter().all(|table| allows(table.oid));
        let values = operation.parameters.as_ref().map_or(0, |parameters| parameters.values.len());
        passes.then(|| format!("{} -- {values} values", known.redacted()).into())
    }

    /// Makes a transaction of what may have run unseen, so that its COMMIT is measured.
    pub(crate) fn suspect_transaction(&mut self) {
        let known = Known::opaque("unseen");
        let operation = self.operation(&known, None, Action::InSession);
        if let Ok(intent) = self.ends.gate.intend(&operation) {
            let mut transaction = Transaction::new(intent);
            transaction.add(&known, &known.effects, None, None);
            self.transaction = Some(transaction);
        }
    }

    /// The COMMIT of a transaction with changes in it.
    pub(crate) async fn commit(&mut self, by: CommitBy) -> Result<(), Gone> {
        let Some(mut transaction) = self.transaction.take() else { return Ok(()) };
        let is_idle = self.ends.wire.replies.is_empty();
        let rows_apart = self.ends.wire.tally.apart(is_idle);
        let operation = Operation {
            text: transaction.text(),
            redacted: transaction.redacted(),
            bound: transaction.bound(),
            effects: transaction.effects(),
            rows_apart,
            ..self.operation(&self.texts.find(""), None, Action::Commit)
        };
        let approved = if transaction.releases.is_empty() { None } else { transaction.approved_reach() };
        let mut releases = std::mem::take(&mut transaction.releases);
        let form = Form::Commit { by, plain: transaction.plain, approved };
        let mut run = Run::new(&mut self.ends, form);
        let gate = run.ends.gate.clone();
        let result = gate.carry_released(transaction.intent, operation, &mut run, &mut releases).await;
        for release in releases {
            drop(release.finish(matches!(result, Ok(Ran::Final(_))), None));
        }
        if result.is_err() {
            self.ends.roll_back_whatever_is_open().await?;
        }
        self.answer(&result)
    }

    /// Looks for the release of a statement that has to be held by its text alone.
    pub(crate) async fn released(&mut self, operation: Operation) -> Result<Option<Release>, Refusal> {
        let mut run = Run::new(&mut self.ends, Form::Release);
        let gate = run.ends.gate.clone();
        gate.release_statement(operation, &mut run).await
    }
}
