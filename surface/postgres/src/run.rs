//! Running permitted operations on the server, each form in a transaction that is measured before it is final.
//!
//! The forms: a text by the simple protocol, a batch of extended messages up to its Sync, and the COMMIT of a client's own
//! transaction. Each runs fast when the server itself can enforce the ceiling (the guard raises), and the long way otherwise.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use reprieve_gate::{Clearance, Done, Permit, Ran, Running, Upstream};
use reprieve_operation::{Effect, Operation, Reach, Refusal, Sample};
use reprieve_pgwire::backend::ServerError;

use crate::{
    answer,
    guard::{Guard, Measured, raised_counters},
    guard_function::read_answer,
    replies::{Asked, Route},
    secured::Secured,
    session::Ends,
    system::View,
    wire::{Captured, Gone},
};

/// One recorded message of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) bytes: Bytes,
    pub(crate) asked: Asked,
    /// The statement's name, for a Parse.
    pub(crate) parses: Option<String>,
    /// Whether the server has it already and the client its replies.
    pub(crate) sent: bool,
}

/// How the operation reaches the server.
pub(crate) enum Form {
    /// A text by the simple protocol, `results` results.
    Simple { text: Arc<str>, results: usize, plain: bool, unwrapped: bool, copies_in: bool },
    /// Extended messages, without their Sync.
    Batch { messages: Vec<Message>, plain: bool, unwrapped: bool, sent_once: bool },
    /// The COMMIT of the client's transaction.
    Commit { by: CommitBy, plain: bool, approved: Option<Reach> },
    /// Nothing: only a release for a statement in the client's transaction is asked for.
    Release,
}

/// How the client commits.
#[derive(Debug, Clone)]
pub(crate) enum CommitBy {
    /// By the simple protocol, with this text.
    Query(Arc<str>),
    /// By an Execute of a portal that holds COMMIT.
    Execute(Bytes),
    /// By the Sync that ends an implicit transaction. `block`: we made it an explicit one.
    Sync { block: bool },
}

/// An operation on its way to the server.
pub(crate) struct Run<'a> {
    pub(crate) ends: &'a mut Ends,
    pub(crate) form: Form,
    pub(crate) kept: bool,
    /// Whether it was run before: the rows of a COPY can't be had again.
    pub(crate) ran: bool,
}

impl<'a> Run<'a> {
    pub(crate) fn new(ends: &'a mut Ends, form: Form) -> Self {
        Self { ends, form, kept: false, ran: false }
    }
}

pub(crate) type Result<T, E = Refusal> = std::result::Result<T, E>;

fn lost(gone: Gone) -> Refusal {
    Refusal::unavailable("connection", format!("{gone} while the statement ran"))
}

pub(crate) fn unmeasured() -> Refusal {
    Refusal::unavailable("measurement", "what this did could not be measured, so it was rolled back")
}

impl Upstream for Run<'_> {
    fn run<'a>(&'a mut self, permit: Permit<'a>) -> Running<'a, Result<Ran>> {
        Box::pin(async move {
            self.ends.cleared = false;
            self.ends.wire.withhold();
            self.ends.wire.code = None;
            self.ends.wire.tag.clear();
            self.ends.make_baseline().await.map_err(lost)?;
            if let Form::Simple { plain, unwrapped: false, .. } | Form::Batch { plain, unwrapped: false, .. } = &self.form {
                self.ends.secured = Secured::default();
                self.ends.secured.note(&permit.operation().effects);
                if !*plain || permit.approved().is_some() {
                    let system = self.ends.system.clone();
                    self.ends.secured.definitions(&system).await;
                }
            }
            let ran = match &mut self.form {
                Form::Simple { text, results, plain, unwrapped, copies_in } => {
                    let (text, results, plain, unwrapped, copies_in) = (text.clone(), *results, *plain, *unwrapped, *copies_in);
                    if copies_in && std::mem::replace(&mut self.ran, true) {
                        return Err(Refusal::unavailable("copy", "the rows of a COPY can't be sent twice; run it again"));
                    }
                    if unwrapped {
                        self.ends.simple_unwrapped(permit, &text).await
                    } else {
                        self.ends.simple(permit, &text, results, plain, copies_in).await
                    }
                }
                Form::Batch { messages, plain, unwrapped, sent_once } => {
                    let again = std::mem::replace(sent_once, true);
                    self.ends.batch(permit, messages, *plain && !*unwrapped, *unwrapped, again).await
                }
                Form::Commit { by, plain, approved } => self.ends.commit(permit, by, *plain, approved.as_ref()).await,
                Form::Release => Err(Refusal::unavailable("bug", "a release was run")),
            };
            match ran {
                Ok(Ran::Final(mut done)) => {
                    self.ends.wrote(&done.reach);
                    if self.kept {
                        let (bytes, passed) = self.ends.wire.discard();
                        done.kept = (!passed).then(|| BASE64.encode(&bytes));
                    }
                    Ok(Ran::Final(done))
                }
                // Once cleared, a COMMIT may have arrived.
                Err(refusal) if self.ends.cleared && self.ends.wire.server.ended => {
                    tracing::error!(reason = refusal.reason, "whether a change became final is not known");
                    Ok(Ran::Unknown)
                }
                Err(refusal) if !self.ends.wire.server.ended => {
                    // Frozen, unmeasured or unrecorded in the middle: nothing may stay open.
                    self.ends.roll_back_whatever_is_open().await.map_err(lost)?;
                    Err(refusal)
                }
                ran => {
                    self.ends.carry_over = true;
                    ran
                }
            }
        })
    }

    fn estimate<'a>(&'a mut self, operation: &'a Operation) -> Running<'a, Option<Reach>> {
        Box::pin(async move {
            match &self.form {
                Form::Commit { approved, .. } => {
                    let approved = approved.clone();
                    let measured = self.ends.measure().await.ok()??;
                    Some(approved.map_or(measured.reach.clone(), |approved| measured.reach.undecided(&approved)))
                }
                Form::Simple { text, unwrapped: false, .. } => {
                    let text = text.clone();
                    self.ends.secure_trial(&operation.effects).await;
                    match self.ends.estimate_wholesale(&operation.effects).await {
                        Some(reach) => Some(reach),
                        None => self.ends.trial(&text, &operation.effects).await,
                    }
                }
                Form::Batch { messages, unwrapped: false, .. } => {
                    let mut messages = messages.clone();
                    self.ends.secure_trial(&operation.effects).await;
                    match self.ends.estimate_wholesale(&operation.effects).await {
                        Some(reach) => Some(reach),
                        None => self.ends.trial_batch(&mut messages, &operation.effects).await,
                    }
                }
                Form::Release => self.ends.estimate_wholesale(&operation.effects).await,
                Form::Simple { .. } | Form::Batch { .. } => None,
            }
        })
    }

    fn samples<'a>(&'a mut self, operation: &'a Operation) -> Running<'a, Vec<Sample>> {
        Box::pin(async move {
            let measured = operation.reach.as_ref().filter(|reach| !reach.estimated && reach.rows() <= self.ends.system.measure_limit);
            // The guard has rolled it back already: it is run once more, to look.
            if let (true, Form::Simple { text, unwrapped: false, copies_in: false, .. }, Some(_)) =
                (self.ends.samples.is_empty(), &self.form, measured)
                && self.ends.system.shows_samples
            {
                let text = text.clone();
                let code = self.ends.wire.code.take();
                let _known = self.ends.trial(&text, &operation.effects).await;
                self.ends.wire.code = code;
            }
            std::mem::take(&mut self.ends.samples)
        })
    }

    fn can_wait(&self) -> bool {
        match &self.form {
            Form::Simple { .. } | Form::Batch { .. } => !self.kept && !self.ends.wire.has_passed(),
            Form::Commit { .. } | Form::Release => false,
        }
    }

    fn tell_waiting<'a>(&'a mut self, refusal: &'a Refusal) -> Running<'a, ()> {
        Box::pin(async move {
            let (_never_heard, _passed) = self.ends.wire.discard();
            answer::notice(&mut self.ends.wire.client.output, &self.ends.gate, refusal);
        })
    }

    fn gone(&mut self) -> Running<'_, ()> {
        let cancelled = self.ends.cancelled.clone();
        Box::pin(async move {
            tokio::select! {
                () = self.ends.wire.client_gone() => {}
                () = cancelled.notified() => {}
            }
        })
    }

    fn deliver<'a>(&'a mut self, kept: &'a str) -> Running<'a, bool> {
        Box::pin(async move {
            let Ok(bytes) = BASE64.decode(kept) else { return false };
            self.ends.wire.withhold();
            let wire = &mut self.ends.wire;
            match &self.form {
                Form::Simple { .. } => {
                    wire.deliver(&bytes);
                    true
                }
                Form::Batch { .. } | Form::Commit { .. } | Form::Release => false,
            }
        })
    }
}

impl Ends {
    /// Counters start at zero: what an earlier transaction that was rolled back left in them is flushed first.
    pub(crate) async fn make_baseline(&mut self) -> Result<(), Gone> {
        if self.carry_over && self.wire.status == b'I' && self.wire.replies.is_empty() {
            // Flushing happens at the next idle moment, which this exchange's end is.
            let hidden = std::mem::replace(&mut self.wire.hide_ready, true);
            let name = self.fresh_name();
            self.wire.send_extended(&name, "SELECT pg_catalog.pg_stat_force_next_flush()");
            self.wire.send_sync(Route::Client);
            self.wire.settle().await?;
            self.wire.captured = Captured::default();
            self.wire.hide_ready = hidden;
            self.carry_over = false;
        }
        Ok(())
    }

    /// The permit's clearance for what was measured; from then on a lost connection leaves the outcome open.
    async fn clear(&mut self, permit: &mut Permit<'_>, reach: &Reach) -> Result<Option<Clearance>> {
        let clearance = permit.clear(reach).await?;
        self.cleared = clearance.is_some();
        Ok(clearance)
    }

    /// The same for a ceiling that the server itself enforces.
    pub(crate) async fn within_ceiling(&mut self, permit: &mut Permit<'_>) -> Result<Clearance> {
        let clearance = permit.within_ceiling().await?;
        self.cleared = true;
        Ok(clearance)
    }

    fn wrote(&mut self, reach: &Reach) {
        if reach.touches_catalogs() || !reach.dropped.is_empty() || !reach.rewritten.is_empty() {
            self.system.invalidate();
        }
    }

    /// A text by the simple protocol.
    async fn simple(&mut self, mut permit: Permit<'_>, text: &str, results: usize, plain: bool, copies_in: bool) -> Result<Ran> {
        let view = self.system.measured_by().await?;
        if let Some(guard) =
            plain.then(|| self.ceiling(&permit, &view)).flatten().and_then(|ceiling| view.snapshot.raising_guard(ceiling, !copies_in))
            && !view.snapshot.deferrable_triggers
            && self.quiet_cursors.is_empty()
        {
            let _clearance = self.within_ceiling(&mut permit).await?;
            self.wire.hide_ready = true;
            self.wire.send_query(&format!("{text}\n;{}", guard.statement()), Route::Client, results);
            self.wire.settle().await.map_err(lost)?;
            return self.guarded(&view).await;
        }
        self.wire.hide_ready = true;
        let begun = self.wire.ask("BEGIN").await.map_err(lost)?;
        if begun.error.is_some() {
            return Err(unmeasured());
        }
        self.keep_empty().await?;
        if let Some(approved) = permit.approved() {
            self.keep_what_goes(&permit.operation().effects, approved).await?;
        }
        self.wire.send_query(text, Route::Client, usize::MAX);
        self.wire.settle().await.map_err(lost)?;
        if let Some(code) = self.wire.code.clone() {
            self.rollback().await?;
            return Ok(Ran::Failed { code });
        }
        self.conclude_block(permit).await
    }

    /// Measures the open block, and commits or rolls back.
    async fn conclude_block(&mut self, mut permit: Permit<'_>) -> Result<Ran> {
        let Some(measured) = self.measure().await? else {
            self.rollback().await?;
            return self.wire.code.clone().map(|code| Ran::Failed { code }).ok_or_else(unmeasured);
        };
        let Some(_clearance) = self.clear(&mut permit, &measured.reach).await? else {
            self.take_samples(&measured.reach, &permit.operation().effects).await;
            self.rollback().await?;
            return Ok(Ran::Beyond(measured.reach));
        };
        let approved = permit.has_approval();
        self.secure_before_final(&mut permit, &measured, approved).await?;
        let committed = self.wire.ask("COMMIT").await.map_err(lost)?;
        match committed.error {
            None => Ok(Ran::Final(Done { tag: self.wire.tag.clone(), reach: measured.reach, xid: measured.xid, kept: None })),
            Some(error) => Ok(self.failed(&error)),
        }
    }

    /// A server's error in something of ours that stands for the client's statement.
    pub(crate) fn failed(&mut self, error: &reprieve_pgwire::backend::ServerError) -> Ran {
        let (_withheld, _passed) = self.wire.discard();
        self.wire.withhold();
        self.wire.deliver(&error.to_bytes(b'E'));
        Ran::Failed { code: error.code().unwrap_or_default().to_owned() }
    }

    pub(crate) async fn rollback(&mut self) -> Result<()> {
        self.carry_over = true;
        self.wire.ask("ROLLBACK").await.map(drop).map_err(lost)
    }

    /// What the guard that raises said, once its transaction is over.
    async fn guarded(&mut self, view: &View) -> Result<Ran> {
        let captured = std::mem::take(&mut self.wire.captured);
        if let Some(code) = self.wire.code.clone() {
            return Ok(Ran::Failed { code });
        }
        let answer = captured.rows.last();
        if let Some(error) = &captured.error {
            return match raised_counters(error) {
                Some(counters) => view.snapshot.reach_of_counters(counters).map(Ran::Beyond).ok_or_else(unmeasured),
                // A call commits by itself: what fails after its answer is the COMMIT.
                None if answer.is_some() && self.in_batch => {
                    self.wire.deliver(&error.to_bytes(b'E'));
                    Ok(Ran::Failed { code: error.code().unwrap_or_default().to_owned() })
                }
                None if error.code() == Some("57014") || answer.is_some() => Ok(self.failed(error)),
                None => {
                    self.system.invalidate(); // the function may have been taken away
                    Err(unmeasured())
                }
            };
        }
        let field = |index: usize| answer.and_then(|row| row.get(index)).and_then(Option::as_deref);
        let answered = match answer.map(Vec::len) {
            Some(1) => field(0).and_then(read_answer),
            _ => field(1).map(|counters| (field(2).and_then(|xid| xid.parse().ok()), counters)),
        };
        let (xid, counters) = answered.ok_or_else(unmeasured)?;
        let reach = view.snapshot.reach_of_counters(counters).ok_or_else(unmeasured)?;
        Ok(Ran::Final(Done { tag: self.wire.tag.clone(), reach, xid, kept: None }))
    }

    /// Something that can't run in a block: it is final at once, so only an approval or a rule that allows escapes clears it.
    async fn simple_unwrapped(&mut self, mut permit: Permit<'_>, text: &str) -> Result<Ran> {
        let reach = escapes(&permit.operation().effects);
        let Some(_clearance) = self.clear(&mut permit, &reach).await? else { return Ok(Ran::Beyond(reach)) };
        self.wire.hide_ready = true;
        self.wire.send_query(text, Route::Client, usize::MAX);
        self.wire.settle().await.map_err(lost)?;
        self.system.invalidate();
        match self.wire.code.clone() {
            Some(code) => Ok(Ran::Failed { code }),
            None => Ok(Ran::Final(Done { tag: self.wire.tag.clone(), reach, xid: None, kept: None })),
        }
    }

    /// A batch of extended messages and its Sync.
    async fn batch(&mut self, mut permit: Permit<'_>, messages: &mut [Message], plain: bool, unwrapped: bool, again: bool) -> Result<Ran> {
        let effects = permit.operation().effects.clone();
        let view = self.system.measured_by().await?;
        self.wire.hide_ready = true;
        if unwrapped {
            let reach = escapes(&effects);
            let Some(_clearance) = self.clear(&mut permit, &reach).await? else { return Ok(Ran::Beyond(reach)) };
            self.send_batch(messages, again);
            self.wire.send_sync(Route::Client);
            self.wire.settle().await.map_err(lost)?;
            self.system.invalidate();
            return Ok(match self.wire.code.clone() {
                Some(code) => Ran::Failed { code },
                None => Ran::Final(Done { tag: self.wire.tag.clone(), reach, xid: None, kept: None }),
            });
        }
        let guard = plain.then(|| self.ceiling(&permit, &view)).flatten().and_then(|ceiling| view.snapshot.raising_guard(ceiling, true));
        if let Some(guard) = guard.filter(|_| !view.snapshot.deferrable_triggers && self.quiet_cursors.is_empty()) {
            let _clearance = self.within_ceiling(&mut permit).await?;
            self.send_batch(messages, again);
            let name = self.fresh_name();
            self.wire.send_guard(&guard, &name);
            self.wire.send_sync(Route::Client);
            self.wire.settle().await.map_err(lost)?;
            return self.guarded(&view).await;
        }
        let name = self.fresh_name();
        self.wire.send_extended(&name, "BEGIN");
        if let Some(approved) = permit.approved() {
            self.keep_what_goes(&effects, approved).await?;
        }
        self.send_batch(messages, again);
        self.flush_extended().await?;
        if let Some(code) = self.wire.code.clone() {
            self.roll_back_whatever_is_open().await.map_err(lost)?;
            return Ok(Ran::Failed { code });
        }
        let measured = self.measure().await?;
        let cleared = match &measured {
            Some(measured) => self.clear(&mut permit, &measured.reach).await?.is_some(),
            None => false,
        };
        match &measured {
            Some(measured) if cleared => {
                let approved = permit.has_approval();
                self.secure_before_final(&mut permit, measured, approved).await?;
            }
            Some(measured) => self.take_samples(&measured.reach, &effects).await,
            None => {}
        }
        self.end_block_extended(measured, cleared).await
    }

    /// Ends a block that we opened inside a batch, with COMMIT or ROLLBACK and the Sync.
    async fn end_block_extended(&mut self, measured: Option<Measured>, cleared: bool) -> Result<Ran> {
        let name = self.fresh_name();
        self.wire.send_extended(&name, if cleared { "COMMIT" } else { "ROLLBACK" });
        self.wire.send_sync(Route::Client);
        self.wire.settle().await.map_err(lost)?;
        let captured = std::mem::take(&mut self.wire.captured);
        if self.wire.status != b'I' {
            self.roll_back_whatever_is_open().await.map_err(lost)?;
        }
        let measured = measured.ok_or_else(unmeasured)?;
        match (cleared, captured.error) {
            (false, _) => Ok(Ran::Beyond(measured.reach)),
            (true, Some(error)) => Ok(self.failed(&error)),
            (true, None) => Ok(Ran::Final(Done { tag: self.wire.tag.clone(), reach: measured.reach, xid: measured.xid, kept: None })),
        }
    }

    pub(crate) fn send_batch(&mut self, messages: &mut [Message], again: bool) {
        for message in messages {
            let resend = again || message.sent;
            if message.sent && !matches!(message.asked, Asked::Bind(_)) {
                continue; // Statements live on; what was described was described.
            }
            if let Some(name) = message.parses.as_deref().filter(|name| resend && !name.is_empty()) {
                let closed = reprieve_pgwire::write::close(&mut self.wire.server.output, b'S', name);
                self.wire.server.ended |= closed.is_err();
                self.wire.replies.push(Asked::Close, Route::Swallow);
            }
            self.wire.server.output.extend_from_slice(&message.bytes);
            self.wire.replies.push(message.asked.clone(), if message.sent { Route::Swallow } else { Route::Client });
        }
    }

    pub(crate) async fn flush_extended(&mut self) -> Result<()> {
        reprieve_pgwire::write::flush(&mut self.wire.server.output);
        self.wire.settle().await.map_err(lost)
    }

    /// The COMMIT of the client's transaction.
    async fn commit(&mut self, mut permit: Permit<'_>, by: &CommitBy, plain: bool, approved: Option<&Reach>) -> Result<Ran> {
        let view = self.system.measured_by().await?;
        self.wire.hide_ready = true;
        // A table that we don't know yet is only counted the long way, by the locks on it.
        let counted = permit.operation().effects.iter().all(|effect| match effect {
            Effect::Insert { table } | Effect::Update { table, .. } | Effect::Delete { table, .. } => {
                !view.catalog.find_tables(table).is_empty()
            }
            Effect::Call { .. } => false,
            _ => true,
        });
        let fast = plain && self.quiet_cursors.is_empty() && counted && approved.is_none() && !view.snapshot.deferrable_triggers;
        let ceiling = if fast { self.ceiling(&permit, &view) } else { None };
        if let Some(guard) = ceiling.and_then(|ceiling| view.snapshot.raising_guard(ceiling, false)) {
            let _clearance = self.within_ceiling(&mut permit).await?;
            return self.commit_guarded(by, &guard, &view).await;
        }
        let measured = self.measure().await?;
        let Some(measured) = measured else {
            let code = self.wire.code.clone();
            self.roll_back_whatever_is_open().await.map_err(lost)?;
            return code.map(|code| Ran::Failed { code }).ok_or_else(unmeasured);
        };
        let rest = approved.map_or_else(|| measured.reach.clone(), |approved| measured.reach.undecided(approved));
        if !rest.is_empty() && self.clear(&mut permit, &rest).await?.is_none() {
            self.take_samples(&rest, &permit.operation().effects).await;
            self.roll_back_whatever_is_open().await.map_err(lost)?;
            return Ok(Ran::Beyond(rest));
        }
        let is_approved = permit.has_approval() || approved.is_some();
        self.secure_before_final(&mut permit, &measured, is_approved).await?;
        let _durable = self.within_ceiling(&mut permit).await?;
        match by {
            CommitBy::Query(text) => self.wire.send_query(text, Route::Client, usize::MAX),
            CommitBy::Execute(bytes) => {
                self.wire.server.output.extend_from_slice(bytes);
                self.wire.replies.push(Asked::Execute, Route::Client);
                reprieve_pgwire::write::flush(&mut self.wire.server.output);
            }
            CommitBy::Sync { block } => {
                if *block {
                    let name = self.fresh_name();
                    self.wire.send_extended(&name, "COMMIT");
                }
                self.wire.send_sync(Route::Client);
            }
        }
        self.wire.settle().await.map_err(lost)?;
        let captured = std::mem::take(&mut self.wire.captured);
        match (self.wire.code.clone(), captured.error) {
            (Some(code), _) => Ok(Ran::Failed { code }),
            (None, Some(error)) => Ok(self.failed(&error)),
            (None, None) => Ok(Ran::Final(Done { tag: self.wire.tag.clone(), reach: measured.reach, xid: measured.xid, kept: None })),
        }
    }

    /// Guard and COMMIT in one go: if the guard raises, the server turns the COMMIT into a ROLLBACK by itself.
    async fn commit_guarded(&mut self, by: &CommitBy, guard: &Guard, view: &View) -> Result<Ran> {
        match by {
            CommitBy::Query(text) => {
                match guard {
                    Guard::Select(select) => self.wire.send_query(select, Route::Capture, 0),
                    Guard::Call(_) => self.wire.send_guard(guard, ""),
                }
                self.wire.send_query(text, Route::Client, usize::MAX);
            }
            CommitBy::Execute(bytes) => {
                // As a statement: a failed function call would not keep the server from running what follows.
                let name = self.fresh_name();
                self.wire.send_extended(&name, &guard.statement());
                self.wire.server.output.extend_from_slice(bytes);
                self.wire.replies.push(Asked::Execute, Route::Client);
                reprieve_pgwire::write::flush(&mut self.wire.server.output);
            }
            CommitBy::Sync { .. } => {
                let name = self.fresh_name();
                self.wire.send_guard(guard, &name);
                self.wire.send_sync(Route::Client);
            }
        }
        self.wire.settle().await.map_err(lost)?;
        self.guarded(view).await
    }

    /// Asks the server something of ours in the middle of the client's exchange, by the protocol that it uses.
    pub(crate) async fn ask_within(&mut self, text: &str) -> Result<Captured> {
        if !self.in_batch {
            return self.wire.ask(text).await.map_err(lost);
        }
        let name = self.fresh_name();
        self.wire.send_extended(&name, text);
        self.flush_extended().await?;
        Ok(std::mem::take(&mut self.wire.captured))
    }

    /// The server's own error for a text that we can't read. `None`: the server can read it. Nothing is run, and whatever reading its
    /// constants ran is rolled back.
    pub(crate) async fn syntax_error(&mut self, text: &str) -> Result<Option<ServerError>, Gone> {
        let hidden = std::mem::replace(&mut self.wire.hide_ready, true);
        let name = self.fresh_name();
        if reprieve_pgwire::write::parse(&mut self.wire.server.output, &name, text, &[]).is_err() {
            return Err(Gone::Protocol);
        }
        self.wire.replies.push(Asked::Parse(None), Route::Capture);
        reprieve_pgwire::write::flush(&mut self.wire.server.output);
        self.wire.settle().await?;
        let error = self.wire.captured.error.take();
        let notices = std::mem::take(&mut self.wire.captured.notices);
        let poison = self.fresh_name();
        self.wire.send_extended(&poison, crate::POISON);
        self.wire.send_sync(Route::Client);
        self.wire.settle().await?;
        self.wire.captured = Captured::default();
        self.wire.hide_ready = hidden;
        self.carry_over = true;
        // Any other error may be gone the next moment.
        let error = error.filter(|error| error.code() == Some("42601"));
        if error.is_some() {
            notices.iter().for_each(|notice| self.wire.deliver(notice));
        }
        Ok(error)
    }

    /// The ceiling that the guard alone can hold. It doesn't tell from which of the tables there is a way back, and it lets the server
    /// make final what it counts, which a strict system's changes have to wait for.
    fn ceiling(&self, permit: &Permit<'_>, view: &View) -> Option<u64> {
        permit.ceiling().filter(|_| (!permit.undoable_only() || view.snapshot.is_covered()) && self.system.strict().is_none())
    }

    /// A name for a statement of ours that is used once and can't be guessed before.
    pub(crate) fn fresh_name(&mut self) -> String {
        self.names += 1;
        format!("rpv_{:016x}_{}", rand::random::<u64>(), self.names)
    }
}

fn escapes(effects: &[Effect]) -> Reach {
    let named = |effect: &Effect| match effect {
        Effect::Escape { what } => Some(what.clone()),
        _ => None,
    };
    let mut escapes: Vec<String> = effects.iter().filter_map(named).collect();
    if escapes.is_empty() {
        escapes.push("can't run inside a transaction".to_owned());
    }
    Reach { escapes, ..Reach::default() }
}
