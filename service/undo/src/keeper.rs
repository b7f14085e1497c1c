//! The keeper: brings the journal's rows into the vault, out of the database's reach, a second or so after they became final.
//!
//! Each look selects what ended since the last one, exactly once (`position.rs`), packs it (`images.rs`), and records it: the event
//! with the new position is the truth, and what is not recorded is selected again after a crash. What is kept too long or too
//! large is taken away by `purge.rs`. While the vault can't be written, or the keeper is behind, [`Keeper::ready`] says why, and
//! no change counts as one with a way back.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use reprieve_gate::{Audit, Clock, Coverage, Running, Sampling, Strict};
use reprieve_operation::{Digest, Event, SystemName};
use reprieve_vault::VaultError;
use tokio::sync::watch;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use crate::{
    History, Journal, Login, Securer, StoredImages, StrictOptions, UndoError, VaultAccess,
    images::Packer,
    position::Position,
    purge::{Kept as KeptObjects, Object},
    source::has_journal,
    stored,
};

/// How often the journal is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the vault is tried when there is nothing to put into it.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// The longest position that fits into an event beside everything else.
const POSITION_BYTES: usize = 60_000;

/// How the keeper keeps.
#[derive(Debug, Clone)]
pub struct KeeperOptions {
    /// How long a change can be undone; its images are removed from the vault afterwards.
    pub window: Duration,
    /// How long rows that are in the vault stay in the journal too, where undoing is fastest.
    pub journal_window: Duration,
    /// The size of the journal above which rows that are in the vault leave it at once.
    pub journal_bytes: u64,
    /// How far behind the keeper may be before changes are held.
    pub lag: Duration,
    /// Whether and how changes wait for the vault.
    pub strict: StrictOptions,
}

/// Keeps one system's row images.
pub struct Keeper {
    pub(crate) system: SystemName,
    pub(crate) login: Login,
    pub(crate) vault: Arc<VaultAccess>,
    pub(crate) audit: Arc<dyn Audit>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: KeeperOptions,
    history: Arc<dyn History>,
    /// Brings images into the vault before they are final, where the system is strict; what it put is removed from here in any case.
    securer: Arc<Securer>,
    standing: Mutex<Standing>,
    /// Whether it is known how things stand.
    known: watch::Sender<bool>,
}

/// How things stand.
struct Standing {
    /// When everything that had ended was in the vault last; at first, when the keeper was made.
    caught_up: Instant,
    /// Whether it ever was.
    ever: bool,
    /// What is wrong with the vault: in short, and in full.
    trouble: Option<(&'static str, String)>,
    /// The journal's size, where it grew far above its bound and can't be emptied.
    overgrown: Option<u64>,
    /// What will soon make changes be held.
    near: Option<String>,
    /// Why the last look failed.
    last_failure: Option<String>,
    /// Whether there is a journal at all.
    has_journal: bool,
}

/// What the keeper knows between two looks. Dropped after a failure of the ledger, and read again from it.
struct Known {
    vault: Digest,
    origin: String,
    position: Position,
    /// The snapshot of the last look, as PostgreSQL spelled it.
    seen: String,
    objects: KeptObjects,
}

/// A connection and what was learnt by it.
struct Connection {
    client: Client,
    origin: String,
}

impl Keeper {
    /// A keeper that has not looked yet.
    #[must_use]
    pub fn new(
        system: SystemName,
        login: Login,
        vault: Arc<VaultAccess>,
        audit: Arc<dyn Audit>,
        history: Arc<dyn History>,
        clock: Arc<dyn Clock>,
        options: KeeperOptions,
    ) -> Self {
        let strict = options.strict.clone();
        let securer = Arc::new(Securer::new(system.clone(), vault.clone(), audit.clone(), clock.clone(), strict));
        let standing = Standing {
            caught_up: Instant::now(),
            ever: false,
            trouble: None,
            overgrown: None,
            near: None,
            last_failure: None,
            has_journal: false,
        };
        Self {
            system,
            login,
            vault,
            audit,
            clock,
            options,
            history,
            securer,
            standing: Mutex::new(standing),
            known: watch::Sender::new(false),
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        // Each change of it is whole by itself.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether row images reach the vault at the moment, or why not: in short, and in full.
    fn look_at_standing(&self) -> Result<(), (&'static str, String)> {
        let standing = self.standing();
        if let Some((short, full)) = &standing.trouble {
            return Err((short, full.clone()));
        }
        if let Some(bytes) = standing.overgrown {
            let full =
                format!("the journal has {bytes} bytes, far above its bound of {}, and can't be emptied", self.options.journal_bytes);
            return Err(("the journal has outgrown its bound", full));
        }
        let behind = standing.caught_up.elapsed();
        if standing.ever && behind <= self.options.lag {
            return Ok(());
        }
        let short = "rows do not reach the vault";
        let because = standing.last_failure.as_ref().map_or_else(String::new, |failure| format!(": {failure}"));
        Err((short, format!("{short} for {} s now{because}", behind.as_secs())))
    }

    /// Whether row images reach the vault at the moment, or why not.
    pub fn ready(&self) -> Result<(), String> {
        self.look_at_standing().map_err(|(short, _)| short.to_owned())
    }

    /// Waits until it is known how things stand after the start.
    pub async fn first_look(&self) {
        let mut known = self.known.subscribe();
        let _never_closed = known.wait_for(|known| *known).await;
    }

    /// Keeps, for ever.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(self.look_for_ever(), self.sound_alarms(), self.securer.run());
    }

    async fn look_for_ever(&self) {
        let mut connection: Option<Connection> = None;
        let mut known: Option<Known> = None;
        let mut probed: Option<Instant> = None;
        loop {
            let looked = self.round(&mut connection, &mut known, &mut probed).await;
            if let Err(error) = looked {
                tracing::warn!(system = %self.system, %error, "row images could not be brought to the vault");
                let mut standing = self.standing();
                standing.last_failure = Some(error.to_string());
                match &error {
                    UndoError::Vault(cause) => {
                        standing.trouble = Some((in_short(cause), error.to_string()));
                        probed = None;
                    }
                    UndoError::Database(_) => connection = None,
                    // What is durable of it is not known.
                    _ => known = None,
                }
            }
            self.known.send_if_modified(|known| !std::mem::replace(known, true));
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What will soon make changes be held, if it goes on.
    fn look_ahead(&self) -> Option<String> {
        let standing = self.standing();
        let behind = standing.caught_up.elapsed();
        let is_late = standing.has_journal && standing.ever && behind > self.options.lag / 2;
        is_late.then(|| format!("rows have not reached the vault for {} s", behind.as_secs())).or_else(|| standing.near.clone())
    }

    /// One alarm for each outage, and one before it where it can be seen coming.
    async fn sound_alarms(&self) {
        let mut sounded = false;
        let mut warned = false;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.look_ahead() {
                Some(reason) if !warned && !sounded => {
                    tracing::warn!(system = %self.system, %reason, "changes will be held soon");
                    let what = format!("changes of `{}` will be held soon: {reason}", self.system);
                    warned = self.audit.append(Event::Alarm { what, agent: None }).await.is_ok();
                }
                Some(_) => {}
                None => warned = false,
            }
            let worth_it = {
                let standing = self.standing();
                standing.has_journal
                    && (standing.trouble.is_some() || standing.overgrown.is_some() || standing.caught_up.elapsed() > self.options.lag)
            };
            match self.look_at_standing() {
                Err((_, reason)) if worth_it && !sounded => {
                    tracing::error!(system = %self.system, %reason, "changes can't be taken back at the moment, so they are held");
                    let what = format!("changes of `{}` can't be taken back at the moment, so they are held: {reason}", self.system);
                    sounded = self.audit.append(Event::Alarm { what, agent: None }).await.is_ok();
                }
                Ok(()) if std::mem::take(&mut sounded) => {
                    tracing::info!(system = %self.system, "row images reach the vault again");
                }
                _ => {}
            }
        }
    }

    async fn round(
        &self,
        connection: &mut Option<Connection>,
        known: &mut Option<Known>,
        probed: &mut Option<Instant>,
    ) -> Result<(), UndoError> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(self.connect().await?),
        };
        let client = &mut connection.client;
        let has_journal = has_journal(client).await?;
        self.standing().has_journal = has_journal;
        if !has_journal {
            self.caught_up();
            return Ok(());
        }
        if probed.is_none_or(|probed| probed.elapsed() > PROBE_EVERY) {
            let near = self.vault.healthy().await?.nearly_full().await?;
            self.standing().near = near;
            *probed = Some(Instant::now());
        }
        self.securer.look(client, &connection.origin).await?;
        let vault = self.vault.vault().await?.identity().await?;
        if known.as_ref().is_some_and(|known| known.vault != vault || known.origin != connection.origin) {
            *known = None;
        }
        let known = match known {
            Some(known) => known,
            None => known.insert(self.recall(vault, &connection.origin)?),
        };
        let work = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start().await?;
        self.look(&work, known).await?;
        work.commit().await?;
        self.caught_up();
        self.purge(client, known).await
    }

    fn caught_up(&self) {
        let mut standing = self.standing();
        standing.caught_up = Instant::now();
        standing.ever = true;
        standing.trouble = None;
        standing.last_failure = None;
    }

    async fn connect(&self) -> Result<Connection, UndoError> {
        let client = self.login.connect().await?;
        // An index gives the rows in order of their transactions; sorting would write them to the server's disk once more.
        client
            .batch_execute(
                "SET search_path = pg_catalog; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
                 SET client_min_messages = error; SET enable_sort = off; SET jit = off; SET application_name = 'reprieve: keeper'",
            )
            .await?;
        let origin = client
            .query_one(
                "SELECT pg_catalog.concat_ws('/', (SELECT s.system_identifier FROM pg_catalog.pg_control_system() s), \
                 (SELECT c.timeline_id FROM pg_catalog.pg_control_checkpoint() c), \
                 (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))",
                &[],
            )
            .await?
            .get(0);
        Ok(Connection { client, origin })
    }

    /// What the ledger says of earlier looks.
    fn recall(&self, vault: Digest, origin: &str) -> Result<Known, UndoError> {
        let mut position = None;
        let mut elsewhere = false;
        let mut objects = KeptObjects::default();
        for (stored, counts) in stored(self.history.as_ref(), &self.system)? {
            let StoredImages { index, at, object, position: reached, .. } = stored;
            let same = stored.vault == vault && stored.origin == origin;
            elsewhere |= !same && position.is_none();
            let reached = reached.filter(|_| same).and_then(|text| text.parse::<Position>().ok());
            objects.add_older(Object { index, at, digest: object.digest, stored_bytes: object.stored_bytes }, reached.as_ref());
            if counts && position.is_none() {
                position = reached;
            }
        }
        if elsewhere {
            tracing::warn!(system = %self.system, "the vault or the database is another one than before: the whole journal is stored again");
        }
        let position = position.filter(|_| !elsewhere).unwrap_or(Position::START);
        Ok(Known { vault, origin: origin.to_owned(), position, seen: String::new(), objects })
    }

    /// Brings into the vault what ended since the last look. `work` sees one state of the journal from its first statement on.
    async fn look(&self, work: &Transaction<'_>, known: &mut Known) -> Result<(), UndoError> {
        let beyond = known.position.beyond();
        // In order, so that the index is read: what was measured and rolled back leaves the table full of dead rows.
        let exists =
            |condition: &String| format!("(SELECT j.xid FROM reprieve.journal j WHERE {condition} ORDER BY j.xid LIMIT 1) IS NOT NULL");
        let exists: Vec<String> = beyond.iter().map(exists).collect();
        let question = format!("SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text, {}", exists.join(" OR "));
        let answer = work.query_one(&question, &[]).await?;
        let (seen, is_news): (String, bool) = (answer.get(0), answer.get(1));
        let reached: Position = seen.parse().map_err(|()| UndoError::Images(format!("`{seen}` is no snapshot")))?;
        if is_news {
            let mut stored = Vec::new();
            if let Err(error) = self.store_all(work, known, &beyond, &seen, &mut stored).await {
                // Without their last part they count for nothing; they would only fill the vault.
                for object in &stored {
                    if let Ok(vault) = self.vault.vault().await {
                        let _gone_with_its_window_otherwise = vault.delete(object.digest).await;
                    }
                }
                return Err(error);
            }
            let last = stored.len().saturating_sub(1);
            for (place, object) in stored.into_iter().enumerate() {
                known.objects.add_newer(object, (place == last).then_some(&reached));
            }
        }
        // What was not news then never will be: without a record, the next look after a crash asks about it once more.
        known.position = reached;
        known.seen = seen;
        Ok(())
    }

    async fn store_all(
        &self,
        work: &Transaction<'_>,
        known: &Known,
        beyond: &[String],
        seen: &str,
        stored: &mut Vec<Object>,
    ) -> Result<(), UndoError> {
        if seen.len() > POSITION_BYTES {
            return Err(UndoError::Images("too many transactions are open at once".to_owned()));
        }
        let fresh = || Packer::new(self.system.clone(), known.origin.clone(), rand::random());
        let mut packer = fresh();
        for condition in beyond {
            let rows = format!(
                "COPY (SELECT j.xid, j.statement, j.relation, j.old, j.new FROM reprieve.journal j WHERE {condition} ORDER BY j.xid) TO STDOUT"
            );
            let rows = work.copy_out(&rows).await?;
            futures_util::pin_mut!(rows);
            while let Some(row) = rows.try_next().await? {
                if packer.is_full() {
                    let full = std::mem::replace(&mut packer, fresh());
                    self.store(known, full, None, stored).await?;
                }
                packer.push(&row)?;
            }
        }
        if packer.is_empty() {
            return Err(UndoError::Images("rows of the journal are not where they were a moment ago".to_owned()));
        }
        self.store(known, packer, Some(seen.to_owned()), stored).await
    }

    /// Puts one pack and records it.
    async fn store(&self, known: &Known, packer: Packer, position: Option<String>, stored: &mut Vec<Object>) -> Result<(), UndoError> {
        let (pack, packed) = packer.finish()?;
        let object = self.vault.vault().await?.put_pack(pack).await?;
        let part = u32::try_from(stored.len()).unwrap_or(u32::MAX);
        // Known before it is recorded, so that it is removed if that fails.
        stored.push(Object { index: 0, at: self.clock.now(), digest: object.digest, stored_bytes: object.stored_bytes });
        let event = Event::ImagesStored {
            system: self.system.clone(),
            vault: known.vault,
            origin: known.origin.clone(),
            object: object.digest,
            plain_bytes: object.plain_bytes,
            stored_bytes: object.stored_bytes,
            part,
            first: packed.first,
            last: packed.last,
            rows: packed.rows,
            position,
        };
        let index = self.audit.append(event).await.map_err(|error| UndoError::Ledger(error.to_string()))?;
        if let Some(last) = stored.last_mut() {
            last.index = index;
        }
        Ok(())
    }

    /// Takes away what is over: objects, rows of the journal.
    async fn purge(&self, client: &mut Client, known: &mut Known) -> Result<(), UndoError> {
        self.securer.purge(self.history.as_ref(), known.vault, &known.origin, &known.position, self.options.window).await?;
        self.purge_vault(&mut known.objects).await?;
        self.purge_aside(client, &mut known.objects).await?;
        self.purge_journal(client, &mut known.objects).await?;
        let bytes = self.journal_bytes(client).await?;
        if bytes <= self.options.journal_bytes {
            self.standing().overgrown = None;
            return Ok(());
        }
        if !known.objects.may_try_to_empty() {
            return Ok(());
        }
        if let Some(work) = self.lock_journal(client).await? {
            self.look(&work, known).await?;
            work.batch_execute("TRUNCATE reprieve.journal").await?;
            work.commit().await?;
            tracing::info!(system = %self.system, bytes, "the journal was emptied: all of it is in the vault");
            self.standing().overgrown = None;
            return Ok(());
        }
        // Somebody's transaction is in the way. Space that is freed is used again, at least.
        self.delete_from_journal(client, known.position.lowest_open).await?;
        let near = format!("the journal has {bytes} bytes, above its bound of {}, and can't be emptied", self.options.journal_bytes);
        self.standing().near = Some(near);
        self.standing().overgrown = (bytes > self.options.journal_bytes.saturating_mul(2)).then_some(bytes);
        Ok(())
    }
}

/// What is wrong with the vault, in words that don't change as long as it is the same.
fn in_short(error: &VaultError) -> &'static str {
    match error {
        _ if error.is_full() => "the vault is full",
        VaultError::WrongKey => "the vault was made with another key",
        VaultError::Mark | VaultError::Corrupt { .. } | VaultError::Missing(_) => "the vault is damaged",
        VaultError::Key | VaultError::Location(_) | VaultError::Settings(_) => "the vault is not set up",
        _ => "the vault is away",
    }
}

/// A journal whose rows a keeper brings into the vault.
pub struct Kept {
    journal: Journal,
    keeper: Arc<Keeper>,
}

impl Kept {
    /// Both together.
    #[must_use]
    pub fn new(journal: Journal, keeper: Arc<Keeper>) -> Self {
        Self { journal, keeper }
    }
}

impl Coverage for Kept {
    fn query(&self) -> &str {
        self.journal.query()
    }

    fn keep_up(&self) -> Running<'_, Result<(), String>> {
        self.journal.keep_up()
    }

    fn definitions_ready(&self) -> Running<'_, Result<bool, String>> {
        self.journal.definitions_ready()
    }

    fn keep_whole(&self, relation: u32) -> String {
        self.journal.keep_whole(relation)
    }

    fn set_aside(&self, relations: &[u32]) -> String {
        self.journal.set_aside(relations)
    }

    fn ready(&self) -> Result<(), String> {
        self.keeper.ready()
    }

    fn sampling(&self, relation: u32, share: f64, most: u32) -> Option<Sampling> {
        self.journal.sampling(relation, share, most)
    }

    fn strict(&self) -> Option<&dyn Strict> {
        self.keeper.securer.is_strict().then_some(self.keeper.securer.as_ref() as &dyn Strict)
    }
}
