//! The audit log: what the rest of the gateway holds. The work is done by the thread in `writer.rs`.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use reprieve_gate::{Audit, AuditError, Clock, LedgerCheck, Pending};
use reprieve_ledger::{Checkpoint, CheckpointError, Frontier, Signer, Verifier};
use reprieve_operation::{Event, Outcome, Recorded, State};
use reprieve_store::{MemoryStore, Query, Reader, Store, StoreError};
use thiserror::Error;
use tokio::sync::broadcast;

use crate::{
    folded::{Folded, LoadError},
    head_file::{HeadFile, HeadFileError},
    record::{EventText, RecordError, decode},
    rows::Rows,
    verify::{VerifyReport, verify},
    writer::{Message, Request, Shared, Writer},
};

/// Bytes of events that may wait in the queue.
const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Events that a follower may be behind.
const FOLLOWERS_BEHIND_MAX: usize = 4_096;
/// Events that a search looks at before it asks whether there is time left.
const SEARCHED_AT_ONCE: u64 = 16_384;
/// Intents that are swept in one transaction.
const SWEEP: usize = 1_000;

/// How a ledger is kept.
#[derive(Debug, Clone)]
pub struct AuditOptions {
    /// Signs checkpoints. Its name is the ledger's origin.
    pub signer: Signer,
    /// Where the newest checkpoint is kept outside the store. Put it on another disk, or at least in another backup.
    pub head_file: Option<PathBuf>,
    /// Whether a ledger with events may start without its head file: after the file was first asked for, or lost.
    pub adopt_missing_head: bool,
    /// Events that may wait for the writer; one more is refused.
    pub queue_limit: usize,
    /// How long events that nobody waits for may stay in memory, for company: an fsync of their own costs as much as another's.
    pub linger: Duration,
}

impl AuditOptions {
    /// A ledger without a head file, with a queue of 8,192 events, where an event lingers for 5 ms.
    #[must_use]
    pub fn new(signer: Signer) -> Self {
        Self { signer, head_file: None, adopt_missing_head: false, queue_limit: 8_192, linger: Duration::from_millis(5) }
    }

    /// The same with a head file.
    #[must_use]
    pub fn with_head_file(self, path: impl Into<PathBuf>) -> Self {
        Self { head_file: Some(path.into()), ..self }
    }
}

/// Why a ledger can't be opened. In each case nothing was appended to it.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It can't be read, or was changed.
    #[error("cannot load the ledger")]
    Load(#[from] LoadError),
    /// The head file can't be read or written.
    #[error("cannot use the ledger's head file")]
    HeadFile(#[from] HeadFileError),
    /// The head file is not a checkpoint of this ledger.
    #[error("the head file `{}` is not of this ledger", path.display())]
    HeadNote {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: CheckpointError,
    },
    /// The head file is missing though the ledger has events.
    #[error("the head file `{}` is missing though the ledger has {size} events: put it back, or say that it may be written anew", path.display())]
    HeadMissing {
        /// Which file.
        path: PathBuf,
        /// The ledger's size.
        size: u64,
    },
    /// The store is older than the head file.
    #[error("the ledger was rolled back: its head file knows {head} events, its store has {stored}")]
    RolledBack {
        /// Events as of the head file.
        head: u64,
        /// Events in the store.
        stored: u64,
    },
    /// The store has other events than those that the head file was signed for.
    #[error("the ledger was rewritten: its first {head} events are not those that its head file was signed for")]
    Forked {
        /// Events as of the head file.
        head: u64,
    },
    /// Intents that were found open could not be closed.
    #[error("cannot record what became of the operations that were running when the gateway stopped")]
    Sweep(#[source] StoreError),
    /// The writer's thread could not be started.
    #[error("cannot start the ledger's writer")]
    Thread(#[source] std::io::Error),
}

/// Why a search failed.
#[derive(Debug, Error)]
pub enum SearchError {
    /// The store can't be read.
    #[error("cannot read the ledger")]
    Store(#[from] StoreError),
    /// A row is not an event.
    #[error("an event of the ledger cannot be read")]
    Record(#[from] RecordError),
}

/// Writes events to a ledger and knows the state they fold to.
pub struct AuditLog {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    reader: Mutex<Box<dyn Reader>>,
    verifier: Verifier,
    writer: Mutex<Option<JoinHandle<()>>>,
    checked: Mutex<Option<LedgerCheck>>,
}

impl AuditLog {
    /// Opens a ledger: checks it against its signed head and its head file, folds it, and closes intents that were left
    /// open as `unknown`.
    pub fn open(store: Box<dyn Store>, options: AuditOptions, clock: Arc<dyn Clock>) -> Result<Arc<Self>, OpenError> {
        let verifier = options.signer.verifier();
        let folded = Folded::load(store.as_ref(), &verifier)?;
        let head_file = options.head_file.map(HeadFile::new);
        if let Some(head_file) = &head_file {
            check_head(head_file, store.as_ref(), &verifier, &folded.frontier, options.adopt_missing_head)?;
        }
        let reader = store.reader().map_err(LoadError::from)?;
        let snapshot_size = store.snapshot().map_err(LoadError::from)?.map_or(0, |snapshot| snapshot.size.min(folded.frontier.size()));
        let shared = Arc::new(Shared {
            state: RwLock::new(folded.state),
            followers: broadcast::Sender::new(FOLLOWERS_BEHIND_MAX),
            queued_bytes: AtomicUsize::new(0),
            failed: OnceLock::new(),
        });
        let (frontier, last_at, signer, linger) = (folded.frontier, folded.last_at, options.signer, options.linger);
        let mut writer = Writer { store, signer, clock, frontier, last_at, snapshot_size, head_file, linger, shared: shared.clone() };
        writer.write_first_head()?;
        sweep(&mut writer)?;
        let (queue, waiting) = sync_channel(options.queue_limit);
        let thread = spawn(writer, waiting).map_err(OpenError::Thread)?;
        Ok(Arc::new(Self {
            queue,
            shared,
            reader: Mutex::new(reader),
            verifier,
            writer: Mutex::new(Some(thread)),
            checked: Mutex::default(),
        }))
    }

    /// A ledger in memory, for tests and throw-away gateways. Everyone knows its key: its checkpoints prove nothing.
    #[must_use]
    pub fn in_memory(clock: Arc<dyn Clock>) -> Arc<Self> {
        let signer = Signer::from_seed("in-memory", [0; 32]).expect("the name is a key name");
        let opened = Self::open(Box::new(MemoryStore::new()), AuditOptions::new(signer), clock);
        opened.expect("an empty ledger in memory has nothing that can be wrong")
    }

    /// Finishes what waits, stores a snapshot and the head, and ends the writer. Blocks until that is done; later appends are
    /// refused.
    pub fn close(&self) {
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A writer that is already gone needs no message.
            let _ = self.queue.send(Message::Close);
            if thread.join().is_err() {
                tracing::error!("the ledger's writer ended by a bug");
            }
        }
    }

    /// Finds events, newest first. Blocks for as long as the store takes: not for the async threads.
    pub fn search(&self, query: &Query) -> Result<Vec<Recorded>, SearchError> {
        let rows = self.with_reader(|reader| reader.search(query))?;
        rows.iter().map(|row| Ok(decode(&row.body)?)).collect()
    }

    /// The same for as long as `patience`: answers too where it stopped, if that was before the ledger's beginning. A text is looked
    /// for in every event, which takes longer than a person waits when the ledger is long.
    pub fn search_for(&self, query: &Query, patience: Duration) -> Result<(Vec<Recorded>, Option<u64>), SearchError> {
        // Only ends the search: no recorded time comes from here.
        let begun = Instant::now();
        let mut before = match query.before {
            Some(before) => before,
            None => self.with_reader(|reader| reader.head())?.map_or(0, |head| head.size),
        };
        let mut found = Vec::new();
        while before > query.since.unwrap_or(0) {
            let since = before.saturating_sub(SEARCHED_AT_ONCE).max(query.since.unwrap_or(0));
            let part = Query { since: Some(since), before: Some(before), limit: query.limit.saturating_sub(found.len()), ..query.clone() };
            // Between two parts others have their turn at the reader.
            let rows = self.with_reader(|reader| reader.search(&part))?;
            for row in &rows {
                found.push(decode(&row.body)?);
            }
            if found.len() >= query.limit {
                return Ok((found, None));
            }
            before = since;
            if begun.elapsed() >= patience && before > 0 {
                return Ok((found, Some(before)));
            }
        }
        Ok((found, None))
    }

    /// Events from an index on, in order. Blocks like [`AuditLog::search`].
    pub fn events(&self, from: u64, limit: usize) -> Result<Vec<Recorded>, SearchError> {
        let rows = self.with_reader(|reader| reader.rows(from, limit.min(Query::LIMIT_MAX)))?;
        rows.iter().map(|row| Ok(decode(&row.body)?)).collect()
    }

    /// The newest signed checkpoint.
    pub fn checkpoint(&self) -> Result<Option<String>, StoreError> {
        Ok(self.with_reader(|reader| reader.head())?.map(|head| head.checkpoint))
    }

    /// Recomputes the whole ledger as it is now. Blocks for as long as that takes.
    pub fn verify(&self) -> Result<VerifyReport, StoreError> {
        let reader = self.with_reader(|reader| reader.as_of_now())?;
        verify(reader.as_ref(), &self.verifier, None)
    }

    /// The same, remembered for whoever asks with [`AuditLog::checked`]. That the store can't be read is a fault, too.
    pub fn check(&self, clock: &dyn Clock) -> LedgerCheck {
        let (size, fault) = match self.verify() {
            Ok(report) => (report.size, report.fault.map(|fault| fault.to_string())),
            Err(error) => (0, Some(format!("it can't be read: {error}"))),
        };
        let checked = LedgerCheck { at: clock.now(), size, fault };
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = Some(checked.clone());
        checked
    }

    /// What came of [`AuditLog::check`] the last time.
    #[must_use]
    pub fn checked(&self) -> Option<LedgerCheck> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key that checkpoints are signed with.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Hands the store's reader to `read`.
    pub fn with_reader<T>(&self, read: impl FnOnce(&dyn Reader) -> T) -> T {
        read(self.reader.lock().unwrap_or_else(PoisonError::into_inner).as_ref())
    }

    fn enqueue(&self, event: Event, answer: Answer) {
        let text = match EventText::of(&event) {
            Ok(text) => text,
            Err(error) => return refuse(answer, &error.to_string()),
        };
        let bytes = text.len();
        if self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > QUEUED_BYTES_MAX {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return refuse(answer, "its queue is full");
        }
        let unsent = match self.queue.try_send(Message::Append(Box::new(Request { event, text, answer }))) {
            Ok(()) => return,
            Err(unsent) => unsent,
        };
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let stopped = self.shared.failed.get().map_or("it has stopped", String::as_str);
        match unsent {
            TrySendError::Full(Message::Append(request)) => refuse(request.answer, "its queue is full"),
            TrySendError::Disconnected(Message::Append(request)) => refuse(request.answer, stopped),
            TrySendError::Full(Message::Close) | TrySendError::Disconnected(Message::Close) => {}
        }
    }
}

impl Audit for AuditLog {
    fn append(&self, event: Event) -> Pending {
        let (answer, pending) = Pending::channel();
        self.enqueue(event, answer);
        pending
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self) -> broadcast::Receiver<Arc<Recorded>> {
        self.shared.followers.subscribe()
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.close();
    }
}

type Answer = tokio::sync::oneshot::Sender<Result<u64, AuditError>>;

fn refuse(answer: Answer, reason: &str) {
    let _ = answer.send(Err(AuditError::Unavailable { reason: reason.to_owned() }));
}

fn spawn(writer: Writer, waiting: Receiver<Message>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("ledger-writer".to_owned()).spawn(move || writer.run(&waiting))
}

/// Every intent without an outcome was running when the gateway stopped: what became of it is not known.
fn sweep(writer: &mut Writer) -> Result<(), OpenError> {
    let mut open: Vec<_> = {
        let state = writer.shared.state.read().unwrap_or_else(PoisonError::into_inner);
        state.open_intents.iter().map(|(intent, open)| (*intent, open.agent.clone())).collect()
    };
    open.sort_by_key(|(intent, _)| *intent);
    for some in open.chunks(SWEEP) {
        let mut batch = Vec::with_capacity(some.len());
        for (intent, agent) in some {
            let event = Event::Concluded { intent: *intent, agent: agent.clone(), outcome: Outcome::Unknown, statements: Vec::new() };
            let text = EventText::of(&event).expect("a few short fields are a record");
            batch.push(Request { event, text, answer: Pending::channel().0 });
        }
        writer.commit(batch).map_err(OpenError::Sweep)?;
    }
    Ok(())
}

/// Compares the store with what the head file remembers.
fn check_head(file: &HeadFile, reader: &dyn Reader, key: &Verifier, end: &Frontier, adopt_missing: bool) -> Result<(), OpenError> {
    let path = || file.path().to_owned();
    let Some(note) = file.read()? else {
        return if end.size() == 0 || adopt_missing { Ok(()) } else { Err(OpenError::HeadMissing { path: path(), size: end.size() }) };
    };
    let head = Checkpoint::open(&note, key).map_err(|source| OpenError::HeadNote { path: path(), source })?;
    if head.size > end.size() {
        return Err(OpenError::RolledBack { head: head.size, stored: end.size() });
    }
    let same = head.size == end.size() && head.root == end.root();
    if same || (head.size < end.size() && is_beginning(&head, reader, key).map_err(LoadError::from)?) {
        Ok(())
    } else {
        Err(OpenError::Forked { head: head.size })
    }
}

/// Whether the store's first events are those of `head`: by the checkpoint stored at that size, else by hashing them again.
fn is_beginning(head: &Checkpoint, reader: &dyn Reader, key: &Verifier) -> Result<bool, StoreError> {
    let stored = reader.checkpoints(head.size, 1)?;
    if let Some(Ok(stored)) = stored.first().filter(|(size, _)| *size == head.size).map(|(_, note)| Checkpoint::open(note, key)) {
        return Ok(stored == *head);
    }
    let mut frontier = Frontier::new();
    for row in Rows::from(reader, 0) {
        if frontier.size() == head.size {
            break;
        }
        frontier.append(reprieve_ledger::leaf_hash(&row?.body));
    }
    Ok(frontier.size() == head.size && frontier.root() == head.root)
}

#[cfg(test)]
pub(crate) mod tests;
