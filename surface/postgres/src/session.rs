//! One client's session: bytes in, replies out.
//!
//! Each message is read, its text turned into effects, and then either passed on (a proven read), or made an operation and handed
//! to the gate. How an operation is run and measured is in `run.rs`; the extended protocol's batches are in `extended.rs`.

mod admit;

use std::{collections::HashSet, hash::RandomState, sync::Arc};

use reprieve_effects_sql::{Class, Control, HOLDABLE, Statement};
use reprieve_gate::{Considered, Gate, Ran};
use reprieve_operation::{Action, Effect, Event, Operation, Parameters, Principal, Protocol, Refusal, Sample, SessionId, Timestamp};
use reprieve_pgwire::frontend::{FrontendFrame, Query};

use tokio::sync::Notify;

use crate::{
    answer,
    extended::Batch,
    known::{Known, KnownTexts},
    reads::ReadLog,
    replies::Route,
    run::{CommitBy, Form, Run},
    secured::Secured,
    system::System,
    transaction::Transaction,
    wire::{Gone, Wire},
};

/// Texts of cursors WITH HOLD that are known again. Further ones are taken for what they may be.
const MOST_QUIET_CURSORS: usize = 64;

/// What running an operation needs of a session.
pub(crate) struct Ends {
    pub(crate) wire: Wire,
    pub(crate) gate: Arc<Gate>,
    pub(crate) system: Arc<System>,
    /// Counters may still hold what an earlier transaction did.
    pub(crate) carry_over: bool,
    /// An extended exchange is open: what we ask goes by the extended protocol too.
    pub(crate) in_batch: bool,
    pub(crate) names: u64,
    /// Texts of cursors WITH HOLD that may be open, whose queries were proven to write nothing.
    pub(crate) quiet_cursors: Vec<Arc<str>>,
    /// What runs was cleared to become final.
    pub(crate) cleared: bool,
    /// The client asked to cancel what runs, or what waits.
    pub(crate) cancelled: Arc<Notify>,
    /// The way back of definitions for what runs now.
    pub(crate) secured: Secured,
    /// Rows of what was measured last and will be held.
    pub(crate) samples: Vec<Sample>,
    /// Tables that what runs next gives another form, and that looked empty: number and name.
    pub(crate) seem_empty: Vec<(u32, String)>,
    /// Relations with higher numbers were made since the session began. None where numbers may have begun anew.
    pub(crate) young: Option<u32>,
}

/// One client's session.
pub(crate) struct Session {
    pub(crate) ends: Ends,
    pub(crate) principal: Principal,
    pub(crate) id: SessionId,
    pub(crate) texts: Arc<KnownTexts>,
    pub(crate) transaction: Option<Transaction>,
    pub(crate) batch: Batch,
    /// The session differs from a fresh one: its statements can't be run elsewhere.
    pub(crate) changed: bool,
    /// Code ran that may have prepared or closed statements behind our back.
    pub(crate) tainted: bool,
    /// A temporary table may hide another table.
    pub(crate) made_something: bool,
    /// Something may have run in the open transaction that no `Transaction` knows of.
    pub(crate) suspect: bool,
    pub(crate) reads: ReadLog,
    /// Reads admitted under this version of what decisions depend on.
    pub(crate) admitted: (u64, HashSet<u64>),
    /// When the token is void.
    expires: Timestamp,
    /// Keyed for this session, so that nobody can make two lists of effects meet.
    hasher: RandomState,
    control: tokio::sync::watch::Receiver<u64>,
}

impl Ends {
    pub(crate) fn new(wire: Wire, gate: Arc<Gate>, system: Arc<System>, cancelled: Arc<Notify>) -> Self {
        let young = system.view().map(|view| view.snapshot.max_oid).filter(|oid| *oid <= 4_000_000_000);
        Self {
            wire,
            gate,
            system,
            young,
            carry_over: false,
            in_batch: false,
            names: 0,
            quiet_cursors: Vec::new(),
            cleared: false,
            cancelled,
            secured: Secured::default(),
            samples: Vec::new(),
            seem_empty: Vec::new(),
        }
    }
}

impl Session {
    pub(crate) fn new(ends: Ends, principal: Principal, id: SessionId, texts: Arc<KnownTexts>) -> Self {
        let control = ends.gate.control();
        Self {
            ends,
            principal,
            id,
            texts,
            transaction: None,
            batch: Batch::default(),
            changed: false,
            tainted: false,
            made_something: false,
            suspect: false,
            reads: ReadLog::new(),
            admitted: (0, HashSet::new()),
            expires: Timestamp(0),
            hasher: RandomState::new(),
            control,
        }
    }

    /// Serves the client until it leaves.
    pub(crate) async fn serve(&mut self) -> Result<(), Gone> {
        let ended = self.serve_messages().await;
        self.flush_reads();
        self.transaction = None; // an open intent records that it was abandoned
        self.ends.gate.note(Event::SessionClosed { session: self.id });
        ended
    }

    async fn serve_messages(&mut self) -> Result<(), Gone> {
        loop {
            let frame = self.ends.wire.next_frame().await?;
            match frame.tag {
                b'Q' => self.query(&frame).await?,
                b'X' => {
                    self.ends.wire.server.output.extend_from_slice(&frame.bytes);
                    self.ends.wire.server.drain().await;
                    return Ok(());
                }
                b'd' | b'c' | b'f' => self.copy_data(&frame).await?,
                _ => self.extended(frame).await?,
            }
        }
    }

    /// CopyData that came before the server asked for it. What it never asks for is ignored, as the server does after an error.
    async fn copy_data(&mut self, frame: &FrontendFrame) -> Result<(), Gone> {
        if !self.ends.wire.copying {
            self.start_copy().await?;
        }
        if self.ends.wire.copying {
            self.ends.wire.server.output.extend_from_slice(&frame.bytes);
            self.ends.wire.copying = frame.tag == b'd';
        }
        Ok(())
    }

    /// A text by the simple protocol.
    async fn query(&mut self, frame: &FrontendFrame) -> Result<(), Gone> {
        let text = match Query::parse(frame.body()) {
            Ok(query) => query.text.to_owned(),
            Err(error) => {
                self.refuse(&Refusal::refused("encoding", format!("the statement can't be read: {error}"), "send UTF-8"));
                self.ends.wire.ready();
                return Ok(());
            }
        };
        if !self.close_batch_before_query().await? {
            return Ok(());
        }
        if is_show_holds(&text) {
            self.show_holds();
            return Ok(());
        }
        let known = self.find(&text);
        self.start_text();
        let units = units(&known, self.ends.wire.status != b'I');
        if let [unit] = units.as_slice()
            && unit.span.is_none()
        {
            // One unit: positions in errors are those of the client's own text.
            let passed_on = self.unit(&known, unit.control, true).await?;
            self.finish_text(passed_on);
            return Ok(());
        }
        self.ends.wire.hide_ready = true;
        for unit in &units {
            let part = unit.span.clone().map_or(text.as_str(), |span| text.get(span).unwrap_or_default());
            self.ends.wire.offset = unit.span.as_ref().map_or(0, |span| text.get(..span.start).unwrap_or_default().chars().count());
            let known = self.find(part);
            self.ends.wire.code = None;
            self.ends.wire.hide_ready = true;
            if unit.doomed {
                self.doomed(&known).await?;
            } else {
                self.unit(&known, unit.control, false).await?;
            }
            if self.ends.wire.code.is_some() {
                break; // as the server does: the rest of the text is not run
            }
        }
        self.ends.wire.offset = 0;
        self.finish_text(false);
        Ok(())
    }

    fn start_text(&mut self) {
        self.ends.wire.code = None;
        self.ends.wire.hide_ready = false;
        self.ends.in_batch = false;
    }

    /// `ready`: the server's own ReadyForQuery went to the client.
    fn finish_text(&mut self, ready: bool) {
        self.ends.wire.release();
        if !ready {
            self.ends.wire.ready();
        }
        if self.ends.wire.status == b'I' {
            self.transaction = None; // a transaction that is over without a COMMIT of ours was abandoned
            self.suspect = false;
        }
    }

    /// What a text says, or that it can't be read here as the server reads it.
    pub(crate) fn find(&self, text: &str) -> Arc<Known> {
        if self.ends.wire.reads_alike(text) { self.texts.find(text) } else { Known::unread(text) }
    }

    /// One unit of a text; `whole`: there is no other. Answers whether the server's own ReadyForQuery went to the client.
    async fn unit(&mut self, known: &Arc<Known>, control: Option<Control>, whole: bool) -> Result<bool, Gone> {
        if let Some(control) = control {
            return self.control(known, control).await;
        }
        if self.ends.wire.status == b'I' { self.alone(known, whole).await } else { self.inside(known).await }
    }

    /// Statements outside a transaction and what takes them back in the same text: none of it can become final, so that there is
    /// nothing to measure.
    async fn doomed(&mut self, known: &Arc<Known>) -> Result<bool, Gone> {
        if self.ends.wire.status != b'I' {
            let refusal =
                Refusal::refused("transaction", "this was read outside a transaction and came to run inside one", "send it alone");
            return self.refused_inside(&refusal).await;
        }
        let operation = self.operation(known, None, Action::InSession);
        match self.ends.gate.consider(&operation) {
            Considered::Pass => {}
            Considered::Hold(refusal) | Considered::Refuse(refusal) => {
                self.ends.gate.note_refusal(&operation, &refusal);
                return self.refused(&refusal);
            }
        }
        let abandoned = match self.ends.gate.intend(&operation) {
            Ok(intent) => intent,
            Err(refusal) => return self.refused(&refusal),
        };
        self.ends.make_baseline().await?;
        let passed_on = self.pass(known).await;
        drop(abandoned);
        self.ends.carry_over = true;
        self.note_effects(known);
        passed_on
    }

    /// A text outside a transaction.
    async fn alone(&mut self, known: &Arc<Known>, whole: bool) -> Result<bool, Gone> {
        if known.analysis.statements.is_empty() {
            return self.pass(known).await;
        }
        match self.admit_read(known) {
            Some(Ok(())) => return self.pass(known).await,
            Some(Err(refusal)) => return self.refused(&refusal),
            None => {}
        }
        if known.is_unreadable() && self.answered_by_server(known).await? {
            return Ok(false);
        }
        if known.is_block_only() && self.ends.gate.consider(&self.operation(known, None, Action::InSession)) == Considered::Pass {
            // In a block of ours it would take effect; alone, the server says what it thinks of it, and nothing is left of it.
            return self.pass(known).await;
        }
        self.look_before_holding(known).await;
        let operation = self.operation(known, None, self.self_contained(known));
        let operation = self.ends.see_empty(operation).await?;
        self.note_quiet_cursor(known);
        let results = known.analysis.statements.len();
        let form = Form::Simple {
            text: known.text.clone(),
            results,
            plain: known.is_plain(),
            // As a part of a longer text the server refuses it, as in any transaction block.
            unwrapped: whole && self.is_unwrapped(known).await,
            copies_in: known.copies_in(),
        };
        let mut run = Run::new(&mut self.ends, form);
        let gate = run.ends.gate.clone();
        let result = gate.handle(operation, &mut run).await;
        self.note_effects(known);
        self.answer(&result)?;
        Ok(false)
    }

    /// A text inside the client's transaction: what can still be taken back is judged at its COMMIT.
    async fn inside(&mut self, known: &Arc<Known>) -> Result<bool, Gone> {
        match self.admit_read(known) {
            Some(Ok(())) => return self.pass(known).await,
            Some(Err(refusal)) => return self.refused_inside(&refusal).await,
            None => {}
        }
        if self.ends.wire.status == b'E' {
            return self.pass(known).await; // the server refuses it: the transaction has failed
        }
        // To ask the server costs the transaction, which has failed in any case if this may not be sent.
        let may_be_sent = || self.ends.gate.consider(&self.operation(known, None, Action::InSession)) == Considered::Pass;
        if known.is_unreadable() && !may_be_sent() && self.answered_by_server(known).await? {
            return Ok(false);
        }
        match self.join(known, None).await? {
            Ok(()) => self.pass(known).await,
            Err(refusal) => self.refused_inside(&refusal).await,
        }
    }

    /// Whether the server itself finds a text wrong that we can't read; then its error is the answer.
    pub(crate) async fn answered_by_server(&mut self, known: &Known) -> Result<bool, Gone> {
        let Some(error) = self.ends.syntax_error(&known.text).await? else { return Ok(false) };
        self.ends.wire.hide_ready = true;
        self.ends.wire.deliver(&error.to_bytes(b'E'));
        self.ends.wire.code = Some(error.code().unwrap_or_default().to_owned());
        Ok(true)
    }

    /// The agent's holds, answered by the gateway.
    fn show_holds(&mut self) {
        let holds: Vec<_> = {
            let state = self.ends.gate.audit().state();
            state.holds.values().filter(|hold| hold.agent == self.principal.agent).cloned().collect()
        };
        answer::holds(&mut self.ends.wire.client.output, &holds);
        self.ends.wire.ready();
    }

    /// A statement about the transaction itself.
    async fn control(&mut self, known: &Arc<Known>, control: Control) -> Result<bool, Gone> {
        if self.suspect && self.transaction.is_none() && matches!(control, Control::Commit { .. }) && self.ends.wire.status == b'T' {
            self.suspect_transaction();
        }
        match control {
            Control::Commit { .. } if self.transaction.is_some() && self.ends.wire.status == b'T' => {
                self.commit(CommitBy::Query(known.text.clone())).await?;
                Ok(false)
            }
            Control::PrepareTransaction | Control::CommitPrepared | Control::RollbackPrepared => {
                let operation = self.operation(known, None, Action::InSession);
                let admitted = match self.ends.gate.consider(&operation) {
                    Considered::Pass => Ok(()),
                    Considered::Refuse(refusal) => Err(refusal),
                    Considered::Hold(_) => self.released(operation).await.map(drop),
                };
                match admitted {
                    Ok(()) => self.pass(known).await,
                    Err(refusal) if self.ends.wire.status == b'I' => self.refused(&refusal),
                    Err(refusal) => self.refused_inside(&refusal).await,
                }
            }
            Control::Rollback { .. } | Control::Commit { .. } => {
                self.ends.carry_over |= self.transaction.is_some();
                self.transaction = None;
                self.suspect |= matches!(control, Control::Rollback { .. });
                self.pass(known).await
            }
            Control::Begin => {
                self.ends.make_baseline().await?;
                self.pass(known).await
            }
            Control::RollbackTo => {
                self.ends.secured.forget();
                self.pass(known).await
            }
            Control::Savepoint | Control::Release => self.pass(known).await,
        }
    }

    /// Tells the client how an operation ended.
    pub(crate) fn answer(&mut self, result: &Result<Ran, Refusal>) -> Result<(), Gone> {
        match result {
            Ok(_) => self.ends.wire.release(),
            Err(refusal) => {
                let (_never_heard, _passed) = self.ends.wire.discard();
                self.refuse(refusal);
            }
        }
        if self.ends.wire.server.ended { Err(Gone::Server) } else { Ok(()) }
    }

    /// Tells the client that the server is gone.
    pub(crate) fn tell_server_gone(&mut self) {
        let (_never_heard, _passed) = self.ends.wire.discard();
        let message = "reprieve: the connection to the server was lost; what was not committed is rolled back, and whether a COMMIT that was under way took place is not known";
        let fields = [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', "08006"), (b'M', message)];
        reprieve_pgwire::write::error_response(&mut self.ends.wire.client.output, &fields);
    }

    /// Sends what the client was still to hear.
    pub(crate) async fn say_goodbye(&mut self) {
        let _slow_or_gone = tokio::time::timeout(std::time::Duration::from_secs(5), self.ends.wire.client.drain()).await;
    }

    /// Sends a refusal as an error.
    pub(crate) fn refuse(&mut self, refusal: &Refusal) {
        tracing::info!(rule = refusal.rule, session = %self.id, "refused");
        answer::error(&mut self.ends.wire.client.output, &self.ends.gate, refusal);
        self.ends.wire.code = Some(answer::sqlstate(refusal.kind).to_owned());
    }

    fn refused(&mut self, refusal: &Refusal) -> Result<bool, Gone> {
        self.refuse(refusal);
        Ok(false)
    }

    /// A refusal inside the client's transaction, which has failed from then on, as after any error.
    async fn refused_inside(&mut self, refusal: &Refusal) -> Result<bool, Gone> {
        self.refuse(refusal);
        let code = self.ends.wire.code.take();
        self.ends.wire.hide_ready = true;
        let _its_own_error = self.ends.wire.ask(crate::POISON).await?;
        self.ends.wire.code = code;
        Ok(false)
    }

    /// Passes a text on as it is. Answers whether the client got the server's ReadyForQuery.
    async fn pass(&mut self, known: &Known) -> Result<bool, Gone> {
        self.ends.wire.send_query(&known.text, Route::Client, usize::MAX);
        self.ends.wire.settle().await?;
        Ok(!self.ends.wire.hide_ready)
    }

    /// The token's scope as it stands now: it may have been narrowed.
    fn refresh_principal(&mut self) {
        let state = self.ends.gate.audit().state();
        if let Some(agent) = state.agents.get(&self.principal.agent).filter(|agent| agent.token == self.principal.token) {
            self.principal.scope = agent.scope.clone();
            self.expires = agent.expires;
        }
    }

    /// Remembers what a statement that ran may have done to the session.
    pub(crate) fn note_effects(&mut self, known: &Known) {
        self.changed |= known.in_session();
        let view = self.ends.system.view();
        self.tainted |= !view.as_ref().is_some_and(|view| known.is_tame(view));
        self.made_something |= !known.makes_nothing(view.as_deref());
    }

    /// Whether it can't run inside a transaction block, by its text or by what it names.
    pub(crate) async fn is_unwrapped(&self, known: &Known) -> bool {
        if known.is_unwrapped() || !known.goes_by_parts() {
            return known.is_unwrapped();
        }
        self.ends.system.fresh_view().await.is_some_and(|view| known.is_unwrapped_by(&view))
    }

    fn self_contained(&self, known: &Known) -> Action {
        let copies = known.analysis.statements.iter().any(|statement| statement.copy.is_some());
        if self.changed || known.in_session() || copies { Action::InSession } else { Action::SelfContained }
    }

    /// Sees to it that the catalogue can say what a cursor WITH HOLD reads.
    pub(crate) async fn look_before_holding(&self, known: &Known) {
        if !known.is_holdable() || self.ends.system.fresh_view().await.is_some_and(|view| known.is_quiet_cursor(&view)) {
            return;
        }
        // A table that somebody else made a moment ago is not known yet; nothing measures what a cursor does at COMMIT.
        self.ends.system.invalidate();
        let _none_is_no_proof = self.ends.system.fresh_view().await;
    }

    /// Whether it is a cursor WITH HOLD that does nothing but read. Its text is remembered, so that the guard knows it again.
    pub(crate) fn note_quiet_cursor(&mut self, known: &Known) {
        if known.is_holdable() && self.is_quiet_cursor(known) && !self.ends.quiet_cursors.contains(&known.text) {
            self.ends.quiet_cursors.push(known.text.clone());
        }
    }

    fn is_quiet_cursor(&self, known: &Known) -> bool {
        self.ends.quiet_cursors.len() < MOST_QUIET_CURSORS && self.ends.system.view().is_some_and(|view| known.is_quiet_cursor(&view))
    }

    pub(crate) fn operation(&self, known: &Known, parameters: Option<Parameters>, action: Action) -> Operation {
        let quiet = known.is_holdable() && self.is_quiet_cursor(known);
        let is_hold = |effect: &&Effect| quiet && matches!(effect, Effect::Escape { what } if what == HOLDABLE);
        let effects = if quiet { known.effects.iter().filter(|effect| !is_hold(effect)).cloned().collect() } else { known.effects.clone() };
        Operation {
            principal: self.principal.clone(),
            session: self.id,
            system: self.ends.system.name.clone(),
            environment: self.ends.system.environment.clone(),
            protocol: Protocol::Postgres,
            text: known.text.clone(),
            redacted: known.redacted(),
            bound: None,
            parameters,
            action,
            effects,
            rows_apart: 0,
            reach: None,
        }
    }
}

/// A part of a text that is run as one.
#[derive(Debug, PartialEq, Eq)]
struct Unit {
    /// `None`: the whole text.
    span: Option<std::ops::Range<usize>>,
    control: Option<Control>,
    /// Statements outside a transaction together with the control statement that takes them back.
    doomed: bool,
}

/// Cuts a text at its transaction control. Statements before a BEGIN in the same text belong to its transaction (PostgreSQL 15, section
/// 55.2.2.1), so that BEGIN goes first.
fn units(known: &Known, inside: bool) -> Vec<Unit> {
    let statements = &known.analysis.statements;
    let control = |statement: &Statement| match statement.class {
        Class::Control(control) => Some(control),
        _ => None,
    };
    if statements.iter().all(|statement| control(statement).is_none()) {
        return vec![Unit { span: None, control: None, doomed: false }];
    }
    if let [only] = statements.as_slice() {
        return vec![Unit { span: None, control: control(only), doomed: false }];
    }
    let mut units: Vec<Unit> = Vec::new();
    let mut block = inside;
    let mut joins = false;
    for statement in statements {
        let control = control(statement);
        let unit = Unit { span: Some(statement.span.clone()), control, doomed: false };
        match (control, units.last_mut()) {
            (None, Some(Unit { span: Some(span), control: None, .. })) if joins => span.end = statement.span.end,
            (Some(control), Some(Unit { span: Some(span), control: None, doomed })) if !block && joins && takes_back(control) => {
                span.end = statement.span.end;
                *doomed = true;
            }
            (Some(Control::Begin), Some(Unit { control: None, .. })) if !block => {
                let at = units.len() - 1;
                units.insert(at, unit);
            }
            _ => units.push(unit),
        }
        joins = control.is_none();
        match control {
            Some(Control::Begin) => block = true,
            Some(Control::Commit { chain: false } | Control::Rollback { chain: false } | Control::PrepareTransaction) => block = false,
            _ => {}
        }
    }
    units
}

/// Whether it rolls back the statements before it in the same text, outside a transaction block. Everything but ROLLBACK does so by
/// failing (PostgreSQL 15, section 55.2.2.1 and the commands' pages).
fn takes_back(control: Control) -> bool {
    match control {
        Control::Rollback { .. } | Control::Commit { chain: true } | Control::Savepoint | Control::Release | Control::RollbackTo => true,
        // PREPARE TRANSACTION only warns there, and COMMIT PREPARED fails, but is nothing to be sent along unasked.
        Control::Begin
        | Control::Commit { chain: false }
        | Control::PrepareTransaction
        | Control::CommitPrepared
        | Control::RollbackPrepared => false,
    }
}

fn is_show_holds(text: &str) -> bool {
    let mut words = text.trim().trim_end_matches(';').split_ascii_whitespace();
    let word = |word: Option<&str>, expected: &str| word.is_some_and(|word| word.eq_ignore_ascii_case(expected));
    word(words.next(), "show") && word(words.next(), "reprieve.holds") && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, inside: bool, expected: &[(&str, bool)]) {
        let known = Known::new(text);
        let units = units(&known, inside);
        let found: Vec<(&str, bool)> =
            units.iter().map(|unit| (unit.span.clone().map_or(text, |span| &text[span]).trim(), unit.control.is_some())).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn texts_are_cut_at_transaction_control() {
        check("select 1; delete from t", false, &[("select 1; delete from t", false)]);
        check("commit", true, &[("commit", true)]);
        check(
            "begin; delete from t; delete from u; commit",
            false,
            &[("begin", true), ("delete from t; delete from u", false), ("commit", true)],
        );
        check(
            "delete from t; begin; delete from u; commit",
            false,
            &[("begin", true), ("delete from t", false), ("delete from u", false), ("commit", true)],
        );
        check("delete from t; rollback; select 1", false, &[("delete from t; rollback", false), ("select 1", false)]);
        check("delete from t; rollback", true, &[("delete from t", false), ("rollback", true)]);
        check("begin; delete from t; rollback", false, &[("begin", true), ("delete from t", false), ("rollback", true)]);
        check("delete from t; commit and chain", false, &[("delete from t; commit and chain", false)]);
        check("delete from t; savepoint a; delete from u", false, &[("delete from t; savepoint a", false), ("delete from u", false)]);
        check("delete from t; commit; delete from u", true, &[("delete from t", false), ("commit", true), ("delete from u", false)]);
    }
}
