//! The extended protocol: prepared statements, portals, and batches up to their Sync.
//!
//! Outside a transaction a batch is kept back until its Sync shows all of it, which no client can tell: the server answers only then.
//! If it may change something, it runs as one operation, and can be run again if it has to wait for people.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use reprieve_effects_sql::{Control, Copy};
use reprieve_gate::Considered;
use reprieve_operation::{Action, Parameters, Refusal};
use reprieve_pgwire::{
    frontend::{Bind, Close, Describe, Execute, FrontendFrame, Parse},
    write,
};

use crate::{
    known::Known,
    replies::{Asked, Route},
    run::{CommitBy, Form, Message, Run},
    session::{Ends, Session},
    wire::Gone,
};

/// Bytes of a batch that are kept back. A larger one runs as it comes, and can't wait for an approval: its client writes until the
/// server takes no more, and listens for an error meanwhile.
const KEPT_BATCH: usize = 256 * 1024;

/// A statement that may change something, with its parameters.
type Change = (Arc<Known>, Option<Parameters>);

/// What came since the last Sync.
#[derive(Default)]
pub(crate) struct Batch {
    messages: Vec<Message>,
    bytes: usize,
    /// Statements and portals that the server has not confirmed yet.
    statements: HashMap<String, Arc<Known>>,
    portals: HashMap<String, (Arc<Known>, Option<Parameters>)>,
    /// What the kept back part runs, with its parameters.
    changes: Vec<Change>,
    /// Messages are kept back until the Sync.
    deferred: bool,
    /// An implicit transaction runs as it comes; `block`: we made it an explicit one.
    streaming: Option<Streaming>,
    /// Whether the client is inside a transaction block as far as its messages go.
    block: Option<bool>,
    /// An error was answered: everything up to the Sync is ignored.
    skipping: bool,
    /// Something was prepared or bound that is no proven read: even that may run code.
    unproven: bool,
    /// Code runs in this batch that may replace statements and portals that have a name.
    tainted: bool,
}

/// Types from here on are of users' making (`FirstNormalObjectId`): reading a value of theirs may run code.
const FIRST_USER_OID: u32 = 16_384;

#[derive(Debug, Clone, Copy)]
struct Streaming {
    block: bool,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.streaming.is_none() && !self.skipping && !self.deferred
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Session {
    /// A message of the extended protocol.
    pub(crate) async fn extended(&mut self, frame: FrontendFrame) -> Result<(), Gone> {
        if !self.ends.in_batch {
            self.ends.make_baseline().await?;
            self.ends.in_batch = true;
            self.ends.wire.code = None;
            self.ends.wire.hide_ready = false;
        }
        if self.batch.skipping && frame.tag != b'S' {
            return Ok(());
        }
        if self.batch.deferred
            && self.batch.bytes + frame.bytes.len() > KEPT_BATCH
            && let Err(refusal) = self.stream().await?
        {
            return self.fail_batch(&refusal).await;
        }
        let done = match frame.tag {
            b'P' => self.parse(&frame),
            b'B' => self.bind(&frame).await?,
            b'D' => Describe::parse(frame.body()).map_err(broken).map(|describe| {
                let asked = if describe.kind == b'S' { Asked::DescribeStatement } else { Asked::DescribePortal };
                self.take(frame.bytes.clone(), asked, None);
            }),
            b'C' => Close::parse(frame.body()).map_err(broken).map(|close| {
                let known = if close.kind == b'S' { &mut self.ends.wire.statements } else { &mut self.ends.wire.portals };
                known.remove(close.name);
                self.take(frame.bytes.clone(), Asked::Close, None);
            }),
            b'E' => self.execute(&frame).await?,
            b'H' => self.flush().await?,
            b'S' => {
                self.sync().await?;
                Ok(())
            }
            b'F' => {
                let alone = self.batch.is_empty();
                match self.function_call(&frame).await? {
                    // A function call is an exchange of its own, with a ReadyForQuery at its end.
                    Err(refusal) if alone => {
                        self.fail_batch(&refusal).await?;
                        return self.end_batch(false);
                    }
                    done => done,
                }
            }
            _ => return Err(Gone::Protocol),
        };
        match done {
            Ok(()) => Ok(()),
            Err(refusal) => self.fail_batch(&refusal).await,
        }
    }

    /// Passes a message on, or keeps it back with its batch.
    fn take(&mut self, bytes: Bytes, asked: Asked, parses: Option<String>) {
        let block = self.batch.block.unwrap_or(self.ends.wire.status != b'I');
        self.batch.bytes += bytes.len();
        // What changes something never goes out before it is run as a whole, or streamed.
        let sent = !self.batch.deferred && (block || self.batch.streaming.is_some() || self.batch.bytes > KEPT_BATCH);
        if sent {
            self.send_kept();
            self.ends.wire.server.output.extend_from_slice(&bytes);
            self.ends.wire.replies.push(asked.clone(), Route::Client);
        }
        // What is replayed confirms nothing new, so that it names nothing either.
        if !sent || self.batch.bytes <= KEPT_BATCH {
            self.batch.messages.push(Message { bytes, asked, parses, sent });
        }
    }

    /// Sends what was kept back.
    fn send_kept(&mut self) {
        for message in self.batch.messages.iter_mut().filter(|message| !message.sent) {
            self.ends.wire.server.output.extend_from_slice(&message.bytes);
            self.ends.wire.replies.push(message.asked.clone(), Route::Client);
            message.sent = true;
        }
    }

    /// Ends the batch that is open when a Query comes. The server would commit what it began, unmeasured. `false`: the Query is
    /// not run.
    pub(crate) async fn close_batch_before_query(&mut self) -> Result<bool, Gone> {
        if self.batch.is_empty() {
            self.batch.clear();
            return Ok(true);
        }
        if self.batch.skipping {
            return Ok(false); // as the server does: everything up to the Sync is ignored
        }
        let outside = self.ends.wire.status == b'I';
        if outside && (self.batch.deferred || self.batch.streaming.is_some() || self.batch.block.is_some()) {
            let refusal = Refusal::refused(
                "query-in-batch",
                "a Query came before the Sync of a batch that may change something",
                "send the Sync first",
            );
            self.fail_batch(&refusal).await?;
            self.transaction = None;
            self.end_batch(false)?;
            return Ok(false);
        }
        self.send_kept();
        if outside && self.batch.unproven && !self.prepared_harmlessly().await? {
            self.end_batch(false)?;
            return Ok(false);
        }
        self.ends.wire.settle_sent().await?;
        if self.ends.wire.code.is_some() {
            return Ok(false); // the server ignores everything up to the Sync, too
        }
        self.batch.clear();
        Ok(true)
    }

    /// Whether what was only prepared or bound changed nothing. If not, or if that can't be known, the batch has failed.
    async fn prepared_harmlessly(&mut self) -> Result<bool, Gone> {
        self.ends.wire.hide_ready = true;
        self.ends.wire.settle_sent().await?;
        if self.ends.wire.code.is_some() {
            return Ok(true);
        }
        let refusal = match self.ends.measure_nothing().await {
            Ok(true) => return Ok(true),
            Ok(false) => Refusal::refused("parse-side-effects", "preparing or binding this changes something", "run it as a statement"),
            Err(refusal) => refusal,
        };
        self.fail_batch(&refusal).await?;
        Ok(false)
    }

    /// Notes what preparing or binding a statement may run: its constants and parameters are read by code too.
    fn note_unproven(&mut self, known: &Known) {
        if !known.is_harmless(self.ends.system.view().as_deref()) {
            self.batch.unproven = true;
            self.suspect = true; // also when a BEGIN stands in this batch; the end of the transaction clears it
        }
    }

    fn parse(&mut self, frame: &FrontendFrame) -> Result<(), Refusal> {
        let parse = Parse::parse(frame.body()).map_err(broken)?;
        let own_types = parse.parameter_types.iter().any(|oid| *oid >= FIRST_USER_OID);
        let known = if own_types { Known::distrusted(parse.text) } else { self.find(parse.text) };
        self.note_unproven(&known);
        let name = parse.name.to_owned();
        self.batch.statements.insert(name.clone(), known.clone());
        self.take(frame.bytes.clone(), Asked::Parse(Some((name.clone(), known))), Some(name));
        Ok(())
    }

    async fn bind(&mut self, frame: &FrontendFrame) -> Result<Result<(), Refusal>, Gone> {
        let bind = match Bind::parse(frame.body()) {
            Ok(bind) => bind,
            Err(error) => return Ok(Err(broken(error))),
        };
        let known = match self.batch.statements.get(bind.statement) {
            Some(known) => known.clone(),
            None => match self.statement(bind.statement).await? {
                Ok(known) => known,
                Err(refusal) => return Ok(Err(refusal)),
            },
        };
        let known = match self.believe(bind.statement, known) {
            Ok(known) => known,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.note_unproven(&known);
        let parameters = (!bind.values.is_empty()).then(|| Parameters {
            formats: bind.formats.clone(),
            values: bind.values.iter().map(|value| value.map(<[u8]>::to_vec)).collect(),
        });
        let portal = bind.portal.to_owned();
        self.batch.portals.insert(portal.clone(), (known.clone(), parameters));
        self.take(frame.bytes.clone(), Asked::Bind(Some((portal, known))), None);
        Ok(Ok(()))
    }

    /// The statement that the server has under this name. Behind our back it may have been replaced by SQL: then it is opaque.
    async fn statement(&mut self, name: &str) -> Result<Result<Arc<Known>, Refusal>, Gone> {
        if !name.is_empty() && self.tainted && self.ends.wire.status != b'E' {
            if self.batch.deferred
                && let Err(refusal) = self.stream().await?
            {
                return Ok(Err(refusal));
            }
            self.send_kept();
            self.ends.wire.settle_sent().await?;
            if self.ends.wire.code.is_some() {
                return Ok(Ok(Known::opaque(name))); // an error came: the server ignores the rest
            }
            // Statements made by PREPARE say so (PostgreSQL 15, section 54.16); what the protocol prepared can't be changed, only
            // closed and made anew.
            let query = "SELECT p.name FROM pg_catalog.pg_prepared_statement() p WHERE p.from_sql";
            let ours = self.ends.fresh_name();
            self.ends.wire.send_extended(&ours, query);
            write::flush(&mut self.ends.wire.server.output);
            self.ends.wire.settle().await?;
            let captured = std::mem::take(&mut self.ends.wire.captured);
            if captured.error.is_some() {
                return Ok(Ok(Known::opaque(name)));
            }
            for name in captured.rows.into_iter().flatten().flatten() {
                self.ends.wire.statements.remove(&name);
            }
            self.ends.wire.portals.retain(|portal, _| portal.is_empty());
            self.tainted = false;
        }
        Ok(Ok(self.ends.wire.statements.get(name).cloned().unwrap_or_else(|| Known::opaque(name))))
    }

    /// What is believed of a statement or portal with a name once code ran in this batch: it may have been replaced by any SELECT,
    /// INSERT, UPDATE, DELETE or MERGE.
    fn believe(&self, name: &str, known: Arc<Known>) -> Result<Arc<Known>, Refusal> {
        if name.is_empty() || !self.batch.tainted {
            return Ok(known);
        }
        if known.control().is_some() {
            let reason = "transaction control under a name, after code that may have replaced it in the same batch";
            return Err(Refusal::refused("name-in-batch", reason, "send a Sync before it"));
        }
        Ok(Known::distrusted(&known.text))
    }

    fn portal(&self, name: &str) -> (Arc<Known>, Option<Parameters>) {
        if let Some((known, parameters)) = self.batch.portals.get(name) {
            return (known.clone(), parameters.clone());
        }
        let known = self.ends.wire.portals.get(name).filter(|_| !self.tainted || name.is_empty());
        (known.cloned().unwrap_or_else(|| Known::opaque(name)), None)
    }

    async fn execute(&mut self, frame: &FrontendFrame) -> Result<Result<(), Refusal>, Gone> {
        let execute = match Execute::parse(frame.body()) {
            Ok(execute) => execute,
            Err(error) => return Ok(Err(broken(error))),
        };
        let (known, parameters) = self.portal(execute.portal);
        let known = match self.believe(execute.portal, known) {
            Ok(known) => known,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let view = self.ends.system.view();
        let tame = view.as_deref().is_some_and(|view| known.is_tame(view));
        self.batch.tainted |= !tame;
        let block = self.batch.block.unwrap_or(self.ends.wire.status != b'I');
        if let Some(control) = known.control() {
            return self.execute_control(frame, &known, control, block).await;
        }
        if known.analysis.statements.is_empty() {
            self.take(frame.bytes.clone(), Asked::Execute, None);
            return Ok(Ok(()));
        }
        if let Some(admitted) = self.admit_read(&known) {
            self.take(frame.bytes.clone(), Asked::Execute, None);
            return Ok(admitted);
        }
        let alone = !block && self.batch.streaming.is_none();
        if alone && known.is_block_only() && self.ends.gate.consider(&self.operation(&known, None, Action::InSession)) == Considered::Pass {
            self.take(frame.bytes.clone(), Asked::Execute, None);
            return Ok(Ok(()));
        }
        if !alone {
            if let Err(refusal) = self.join(&known, parameters).await? {
                return Ok(Err(refusal));
            }
            self.take(frame.bytes.clone(), Asked::Execute, None);
            return Ok(Ok(()));
        }
        self.batch.deferred = true;
        self.batch.changes.push((known, parameters));
        if self.batch.bytes > KEPT_BATCH
            && let Err(refusal) = self.stream().await?
        {
            return Ok(Err(refusal));
        }
        self.take(frame.bytes.clone(), Asked::Execute, None);
        Ok(Ok(()))
    }

    async fn execute_control(
        &mut self,
        frame: &FrontendFrame,
        known: &Arc<Known>,
        control: Control,
        block: bool,
    ) -> Result<Result<(), Refusal>, Gone> {
        if self.batch.deferred {
            // A BEGIN or COMMIT after a kept back change: run what came so far as it comes.
            if let Err(refusal) = self.stream().await? {
                return Ok(Err(refusal));
            }
        }
        match control {
            Control::Begin => {
                if self.batch.messages.iter().all(|message| !message.sent) {
                    self.ends.make_baseline().await?;
                }
                self.batch.block = Some(true);
            }
            Control::Commit { chain } => {
                self.batch.block = Some(chain);
                if self.suspect && self.transaction.is_none() && block {
                    self.suspect_transaction();
                }
                if self.transaction.is_some() && (block || self.batch.streaming.is_some()) {
                    self.batch.streaming = None;
                    self.commit(CommitBy::Execute(frame.bytes.clone())).await?;
                    if self.ends.wire.code.is_some() {
                        self.batch.skipping = true;
                    }
                    return Ok(Ok(()));
                }
            }
            Control::Rollback { chain } => {
                self.batch.block = Some(chain);
                self.ends.carry_over |= self.transaction.is_some();
                self.transaction = None;
                self.suspect = true;
                self.batch.streaming = None;
            }
            Control::PrepareTransaction | Control::CommitPrepared | Control::RollbackPrepared => {
                let operation = self.operation(known, None, Action::InSession);
                if let Considered::Hold(refusal) | Considered::Refuse(refusal) = self.ends.gate.consider(&operation) {
                    return Ok(Err(refusal));
                }
            }
            Control::RollbackTo => self.ends.secured.forget(),
            Control::Savepoint | Control::Release => {}
        }
        self.take(frame.bytes.clone(), Asked::Execute, None);
        Ok(Ok(()))
    }

    /// The client wants replies before its Sync: what was kept back runs as it comes, in a transaction that the Sync ends.
    async fn flush(&mut self) -> Result<Result<(), Refusal>, Gone> {
        if self.batch.deferred
            && let Err(refusal) = self.stream().await?
        {
            return Ok(Err(refusal));
        }
        self.send_kept();
        write::flush(&mut self.ends.wire.server.output);
        Ok(Ok(()))
    }

    /// Stops keeping the batch back.
    async fn stream(&mut self) -> Result<Result<(), Refusal>, Gone> {
        let changes = std::mem::take(&mut self.batch.changes);
        let plain = changes.iter().all(|(known, _)| known.is_plain());
        for (known, parameters) in changes {
            if let Err(refusal) = self.join(&known, parameters).await? {
                return Ok(Err(refusal));
            }
        }
        if !plain {
            let name = self.ends.fresh_name();
            self.ends.wire.send_extended(&name, "BEGIN");
        }
        self.batch.streaming = Some(Streaming { block: !plain });
        self.batch.deferred = false;
        self.send_kept();
        Ok(Ok(()))
    }

    /// Starts a COPY whose rows come before the Sync of its batch.
    pub(crate) async fn start_copy(&mut self) -> Result<(), Gone> {
        if self.batch.deferred
            && self.batch.changes.iter().any(|(known, _)| known.copies_in())
            && let Err(refusal) = self.stream().await?
        {
            return self.fail_batch(&refusal).await;
        }
        if !self.ends.wire.replies.is_empty() {
            write::flush(&mut self.ends.wire.server.output);
            self.ends.wire.settle_or_copy().await?;
        }
        Ok(())
    }

    async fn sync(&mut self) -> Result<(), Gone> {
        if self.batch.skipping {
            return self.end_batch(false);
        }
        let copies_in =
            self.batch.changes.iter().any(|(known, _)| known.analysis.statements.iter().any(|statement| statement.copy == Some(Copy::In)));
        if self.batch.deferred && copies_in {
            if let Err(refusal) = self.stream().await? {
                self.fail_batch(&refusal).await?;
                return self.end_batch(false);
            }
            write::flush(&mut self.ends.wire.server.output);
            self.ends.wire.settle_or_copy().await?;
            if self.ends.wire.copying {
                return Ok(()); // the server ignores a Sync during a copy, and so the client sends another one
            }
        }
        if self.batch.deferred {
            return self.run_batch().await;
        }
        if let Some(streaming) = self.batch.streaming.take() {
            self.ends.wire.settle_sent().await?;
            if self.ends.wire.code.is_none() {
                self.commit(CommitBy::Sync { block: streaming.block }).await?;
            } else {
                self.transaction = None;
                self.ends.roll_back_whatever_is_open().await?;
            }
            return self.end_batch(false);
        }
        self.send_kept();
        if self.batch.unproven && self.ends.wire.status == b'I' && self.batch.block.is_none() {
            return self.sync_unproven().await;
        }
        self.ends.wire.hide_ready = false;
        self.ends.wire.send_sync(Route::Client);
        self.ends.wire.settle().await?;
        self.end_batch(true)
    }

    /// The Sync of a batch that only prepared or bound something: that too has to have changed nothing.
    async fn sync_unproven(&mut self) -> Result<(), Gone> {
        if !self.prepared_harmlessly().await? {
            return self.end_batch(false);
        }
        self.ends.wire.hide_ready = true;
        self.ends.wire.send_sync(Route::Client);
        self.ends.wire.settle().await?;
        self.end_batch(false)
    }

    /// Runs the kept back batch as one operation.
    async fn run_batch(&mut self) -> Result<(), Gone> {
        let mut changes = std::mem::take(&mut self.batch.changes);
        let messages = std::mem::take(&mut self.batch.messages);
        if messages.iter().any(|message| message.sent) {
            // What was sent has begun an implicit transaction; nothing of ours may wait inside it.
            self.ends.wire.hide_ready = true;
            self.ends.wire.send_sync(Route::Client);
            self.ends.wire.settle().await?;
        }
        if self.ends.wire.code.is_some() {
            // Something before it failed: the server ignores the rest of the batch.
            return self.end_batch(false);
        }
        if changes.len() > 1 {
            changes = self.without_syntax_errors(changes).await?;
        }
        let Some((first, parameters)) = changes.first().cloned() else { return Err(Gone::Protocol) };
        let known = if changes.len() == 1 {
            first
        } else {
            let texts: Vec<&str> = changes.iter().map(|(known, _)| &*known.text).collect();
            Arc::new(Known::new(&texts.join(";\n")))
        };
        let parameters = if changes.len() == 1 {
            parameters
        } else {
            let mut all = Parameters::default();
            for (_, parameters) in &changes {
                let parameters = parameters.clone().unwrap_or_default();
                all.formats.extend(parameters.formats);
                all.values.extend(parameters.values);
            }
            Some(all)
        };
        if known.is_unreadable() {
            self.ends.wire.hide_ready = true;
            if self.answered_by_server(&known).await? {
                return self.end_batch(false);
            }
        }
        self.look_before_holding(&known).await;
        let operation = self.operation(&known, parameters, Action::InSession);
        self.note_quiet_cursor(&known);
        let form = Form::Batch { messages, plain: known.is_plain(), unwrapped: self.is_unwrapped(&known).await, sent_once: false };
        let mut run = Run::new(&mut self.ends, form);
        let gate = run.ends.gate.clone();
        let result = gate.handle(operation, &mut run).await;
        for (known, _) in &changes {
            self.note_effects(known);
        }
        if result.is_err() {
            self.ends.roll_back_whatever_is_open().await?;
        }
        self.answer(&result)?;
        self.end_batch(false)
    }

    /// Leaves out what the server can't parse either: it fails the batch there, as it would without us.
    async fn without_syntax_errors(&mut self, changes: Vec<Change>) -> Result<Vec<Change>, Gone> {
        let mut left = Vec::with_capacity(changes.len());
        for change in changes {
            let wrong = change.0.is_unreadable() && self.ends.syntax_error(&change.0.text).await?.is_some();
            if !wrong || left.is_empty() {
                left.push(change);
            }
        }
        Ok(left)
    }

    /// `ready`: the server's own ReadyForQuery went to the client.
    fn end_batch(&mut self, ready: bool) -> Result<(), Gone> {
        self.ends.wire.release();
        if !ready {
            self.ends.wire.ready();
        }
        if self.ends.wire.status == b'I' {
            self.transaction = None;
            self.suspect = false;
            self.ends.wire.portals.clear();
        }
        self.batch.clear();
        self.ends.in_batch = false;
        self.ends.wire.hide_ready = false;
        Ok(())
    }

    /// Answers a refusal in the middle of a batch: the rest is ignored, and a transaction has failed, as after any error.
    async fn fail_batch(&mut self, refusal: &Refusal) -> Result<(), Gone> {
        self.ends.wire.settle_sent().await?;
        if self.ends.wire.code.is_none() {
            self.refuse(refusal);
        }
        let code = self.ends.wire.code.take();
        self.ends.wire.hide_ready = true;
        let name = self.ends.fresh_name();
        self.ends.wire.send_extended(&name, crate::POISON);
        self.ends.wire.send_sync(Route::Client);
        self.ends.wire.settle().await?;
        self.ends.wire.captured = crate::wire::Captured::default();
        self.ends.wire.code = code;
        self.ends.carry_over = true;
        self.batch.skipping = true;
        self.batch.deferred = false;
        self.batch.streaming = None;
        Ok(())
    }

    /// A function called by its oid: only inside a transaction, where the COMMIT is measured.
    async fn function_call(&mut self, frame: &FrontendFrame) -> Result<Result<(), Refusal>, Gone> {
        if self.ends.wire.status != b'T' || self.batch.deferred || self.batch.streaming.is_some() {
            let refusal =
                Refusal::refused("function-call", "a function can't be called by its number outside a transaction", "call it by SELECT");
            return Ok(Err(refusal));
        }
        let known = Arc::new(Known::new("CALL a_function_by_its_number()"));
        if let Err(refusal) = self.join(&known, None).await? {
            return Ok(Err(refusal));
        }
        self.ends.wire.server.output.extend_from_slice(&frame.bytes);
        self.ends.wire.replies.push(Asked::FunctionCall, Route::Client);
        self.ends.wire.settle().await?;
        self.ends.in_batch = false;
        self.batch.clear();
        Ok(Ok(()))
    }
}

impl Ends {
    /// Leaves no transaction open after a refusal.
    pub(crate) async fn roll_back_whatever_is_open(&mut self) -> Result<(), Gone> {
        self.wire.hide_ready = true;
        let code = self.wire.code.take();
        if self.in_batch {
            for text in [crate::POISON, "ROLLBACK"] {
                let name = self.fresh_name();
                self.wire.send_extended(&name, text);
                self.wire.send_sync(Route::Client);
            }
            self.wire.settle().await?;
            self.wire.captured = crate::wire::Captured::default();
        } else if self.wire.status != b'I' {
            let _answer = self.wire.ask("ROLLBACK").await?;
        }
        self.wire.code = code;
        self.carry_over = true;
        Ok(())
    }
}

fn broken(error: reprieve_pgwire::ProtocolError) -> Refusal {
    Refusal::refused("protocol", format!("the message can't be read: {error}"), "send well-formed messages in UTF-8")
}
