//! The writer: the one thread that puts events into the ledger.
//!
//! It takes whatever waits in the queue as one batch, so that one fsync serves every waiting operation. An event that nobody
//! waits for lingers a moment, so that it rides along with one that somebody does. A batch is placed,
//! hashed, signed and stored in one transaction; only then is it folded into the state, told to the followers, and answered.
//! After a failed write nobody knows what is on the disk: the writer answers no and ends, and stays ended until the next start.

use std::{
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use reprieve_gate::{AuditError, Clock};
use reprieve_ledger::{Checkpoint, Frontier, Signer};
use reprieve_operation::{Event, Recorded, State, Timestamp};
use reprieve_store::{Batch, Head, Placed, Row, Store, StoreError};
use tokio::sync::{broadcast, oneshot};

use crate::{
    folded::{Folded, LoadError},
    head_file::HeadFile,
    log::OpenError,
    record::{self, EventText},
};

/// Events in one transaction, and bytes: a batch must not hold up the next one.
const BATCH_EVENTS_MAX: usize = 1_024;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Events between two snapshots of the state.
const SNAPSHOT_EVERY: u64 = 10_000;

/// An event that waits, and whom to answer.
pub(crate) struct Request {
    pub(crate) event: Event,
    pub(crate) text: EventText,
    pub(crate) answer: oneshot::Sender<Result<u64, AuditError>>,
}

/// What comes through the queue.
pub(crate) enum Message {
    /// Boxed: the queue has room for thousands, and holds few.
    Append(Box<Request>),
    /// Finish what came before, then end.
    Close,
}

/// What the writer and its handle both see.
pub(crate) struct Shared {
    pub(crate) state: RwLock<State>,
    pub(crate) followers: broadcast::Sender<Arc<Recorded>>,
    /// Bytes of the events in the queue.
    pub(crate) queued_bytes: AtomicUsize,
    /// Why the writer ended, if it had to.
    pub(crate) failed: OnceLock<String>,
}

pub(crate) struct Writer {
    pub(crate) store: Box<dyn Store>,
    pub(crate) signer: Signer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) frontier: Frontier,
    pub(crate) last_at: Timestamp,
    pub(crate) snapshot_size: u64,
    pub(crate) head_file: Option<HeadFile>,
    pub(crate) linger: Duration,
    pub(crate) shared: Arc<Shared>,
}

impl Writer {
    /// Serves the queue until it is closed or the store fails.
    pub(crate) fn run(mut self, queue: &Receiver<Message>) {
        loop {
            let (batch, closing) = match self.next_batch(queue) {
                Some(batch) => batch,
                None => {
                    self.write_head();
                    continue;
                }
            };
            if self.commit(batch).is_err() || closing || self.snapshot_when_due(SNAPSHOT_EVERY).is_err() {
                break;
            }
            if self.head_due_in().is_some_and(|wait| wait.is_zero()) {
                self.write_head();
            }
        }
        let _ = self.finish();
    }

    /// Waits for an event and takes what has come with it; `None` when the head file is due first.
    fn next_batch(&self, queue: &Receiver<Message>) -> Option<(Vec<Request>, bool)> {
        let first = match self.head_due_in() {
            None => queue.recv().unwrap_or(Message::Close),
            Some(wait) => match queue.recv_timeout(wait) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => Message::Close,
            },
        };
        let (mut batch, mut bytes, mut next) = (Vec::new(), 0, Some(first));
        let (mut waited_for, mut company_until) = (false, None);
        while let Some(message) = next {
            let Message::Append(request) = message else { return Some((batch, true)) };
            self.shared.queued_bytes.fetch_sub(request.text.len(), Ordering::Relaxed);
            bytes += request.text.len();
            waited_for |= !request.answer.is_closed();
            batch.push(*request);
            let has_room = batch.len() < BATCH_EVENTS_MAX && bytes < BATCH_BYTES_MAX;
            next = if has_room { queue.try_recv().ok() } else { None };
            if has_room && next.is_none() && !waited_for {
                // Only paces: no recorded time comes from here.
                let until = *company_until.get_or_insert_with(|| Instant::now() + self.linger);
                // A queue that was closed says so again to the next who asks.
                next = queue.recv_timeout(until.saturating_duration_since(Instant::now())).ok();
            }
        }
        Some((batch, false))
    }

    /// Makes a batch durable, then known, then answered.
    pub(crate) fn commit(&mut self, batch: Vec<Request>) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        match self.store_batch(&batch) {
            Ok((placed, at)) => {
                self.publish(batch, &placed, at);
                Ok(())
            }
            Err(error) => {
                self.fail(&error);
                for request in batch {
                    let _ = request.answer.send(Err(self.unavailable()));
                }
                Err(error)
            }
        }
    }

    /// One durable transaction: the rows whose keys are free, and the signed head after them.
    fn store_batch(&mut self, batch: &[Request]) -> Result<(Vec<Placed>, Timestamp), StoreError> {
        let keys: Vec<Option<String>> = batch.iter().map(|request| request.event.unique_key()).collect();
        // Time never goes backwards, whatever the clock does.
        let at = self.clock.now().max(self.last_at);
        let (signer, mut frontier, mut checkpoint) = (&self.signer, self.frontier.clone(), String::new());
        let placed = self.store.append(&keys, &mut |head, taken| {
            // Whoever else appended, our frontier would fork the ledger.
            if head.map_or(0, |head| head.size) != frontier.size() {
                return Err(StoreError::Batch("another writer has appended"));
            }
            let free = batch.iter().zip(taken).filter(|(_, taken)| !**taken).map(|(request, _)| request);
            let rows: Vec<Row> = free
                .map(|request| {
                    let row = record::row(frontier.size(), at, &request.event, &request.text);
                    frontier.append(row.leaf_hash);
                    row
                })
                .collect();
            checkpoint = signed_head(signer, &frontier)?;
            Ok(Batch { rows, head: Head { size: frontier.size(), checkpoint: checkpoint.clone(), frontier: frontier.to_bytes() } })
        })?;
        (self.frontier, self.last_at) = (frontier, at);
        if let Some(head_file) = &mut self.head_file {
            head_file.set(checkpoint);
        }
        Ok((placed, at))
    }

    fn publish(&self, batch: Vec<Request>, placed: &[Placed], at: Timestamp) {
        let mut answers = Vec::with_capacity(batch.len());
        let mut recorded = Vec::with_capacity(batch.len());
        for (request, placed) in batch.into_iter().zip(placed) {
            match placed {
                Placed::At(index) => {
                    answers.push((request.answer, Ok(*index)));
                    recorded.push(Arc::new(Recorded { index: *index, at, event: request.event }));
                }
                Placed::KeyTaken => {
                    let key = request.event.unique_key().unwrap_or_default();
                    answers.push((request.answer, Err(AuditError::KeyTaken { key })));
                }
            }
        }
        {
            // A poisoned lock means that a reader panicked: readers change nothing.
            let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
            recorded.iter().for_each(|recorded| state.apply(recorded));
        }
        for recorded in recorded {
            let _ = self.shared.followers.send(recorded);
        }
        for (whom, answer) in answers {
            let _ = whom.send(answer);
        }
    }

    /// The head at the start goes out before the first event: from then on a missing head file means something.
    pub(crate) fn write_first_head(&mut self) -> Result<(), OpenError> {
        let note = signed_head(&self.signer, &self.frontier).map_err(LoadError::from)?;
        if let Some(head_file) = &mut self.head_file {
            head_file.set(note);
            head_file.write()?;
        }
        Ok(())
    }

    /// Stores a snapshot once `every` events came since the last one.
    fn snapshot_when_due(&mut self, every: u64) -> Result<(), StoreError> {
        let size = self.frontier.size();
        if size < self.snapshot_size.saturating_add(every) {
            return Ok(());
        }
        let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner).clone();
        let folded = Folded { state, frontier: self.frontier.clone(), last_at: self.last_at };
        match folded.snapshot(&self.signer) {
            Ok(snapshot) => self.store.save_snapshot(&snapshot).inspect_err(|error| self.fail(error))?,
            // Without a snapshot the next start only takes longer.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "no snapshot of the ledger's state"),
        }
        self.snapshot_size = size;
        Ok(())
    }

    /// The last snapshot and head, unless the store has failed.
    fn finish(&mut self) -> Result<(), StoreError> {
        if self.shared.failed.get().is_none() {
            self.snapshot_when_due(1)?;
            self.write_head();
        }
        Ok(())
    }

    fn head_due_in(&self) -> Option<Duration> {
        self.head_file.as_ref().and_then(HeadFile::due_in)
    }

    /// A head that can't be written is tried again in a second: the ledger itself is safe, only a rollback would go unnoticed.
    pub(crate) fn write_head(&mut self) {
        if let Some(Err(error)) = self.head_file.as_mut().map(HeadFile::write) {
            tracing::error!(error = &error as &dyn std::error::Error, "the ledger's head is not kept outside its database");
        }
    }

    fn fail(&self, error: &StoreError) {
        tracing::error!(error = error as &dyn std::error::Error, "the ledger cannot be written: nothing is allowed from now on");
        let _ = self.shared.failed.set("its storage failed".to_owned());
    }

    fn unavailable(&self) -> AuditError {
        AuditError::Unavailable { reason: self.shared.failed.get().cloned().unwrap_or_else(|| "it has stopped".to_owned()) }
    }
}

fn signed_head(signer: &Signer, frontier: &Frontier) -> Result<String, StoreError> {
    let checkpoint = Checkpoint { origin: signer.name().to_owned(), size: frontier.size(), root: frontier.root() };
    checkpoint.sign(signer).map_err(|_| StoreError::Batch("its head cannot be signed"))
}
