//! Strict systems: a change becomes final only when what it replaced lies in the vault.
//!
//! The session that is about to commit copies its own transaction's rows of the journal out (`strict/images.sql`), and waits here
//! until they are in the vault and recorded (`ImagesSecured`). Several sessions' rows go together. After the COMMIT the keeper stores
//! the same rows with all others, for good; then these objects are removed again. One whose transaction never became final is worth
//! nothing: what took place is said by outcomes and by the journal alone.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reprieve_gate::{Audit, Clock, Room, Running, Strict};
use reprieve_operation::{Digest, Event, SystemName, Timestamp};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_postgres::Client;

use crate::{History, UndoError, VaultAccess, images::Packer, journal::Step, position::Position};

/// What sessions may wait with at once, in memory.
const ROOM_KIBIBYTES: u32 = 256 * 1024;
/// Transactions that go into one object.
const TOGETHER: usize = 200;
/// Sessions that wait for their turn.
const WAITING: usize = 2_000;
/// Objects that are removed before that is recorded.
const PURGED_AT_ONCE: usize = 500;
/// Events read at a time.
const PAGE: usize = 500;

const BODY: &str = include_str!("strict/images.sql");

/// How strict systems wait.
#[derive(Debug, Clone)]
pub struct StrictOptions {
    /// Whether this system's changes wait at all.
    pub strict: bool,
    /// How long a change may wait for the vault.
    pub wait: Duration,
    /// The most bytes of one change; more can't be waited for.
    pub bytes: u64,
}

/// Brings one system's images into the vault before their transactions are final.
pub struct Securer {
    system: SystemName,
    vault: Arc<VaultAccess>,
    audit: Arc<dyn Audit>,
    clock: Arc<dyn Clock>,
    options: StrictOptions,
    room: Arc<Semaphore>,
    queue: mpsc::Sender<Images>,
    /// Until it is run.
    asked: Mutex<Option<mpsc::Receiver<Images>>>,
    known: Mutex<Known>,
}

/// What is known of the database and of the vault.
#[derive(Default)]
struct Known {
    seal: Option<Seal>,
    /// Whether the ledger was asked what lies in the vault.
    recalled: bool,
    /// Objects that were not removed yet, oldest first.
    objects: VecDeque<Secured>,
}

/// What makes tickets.
struct Seal {
    secret: String,
    /// The database's own identity.
    origin: String,
}

/// One session's images on their way.
struct Images {
    transaction: u64,
    rows: Vec<u8>,
    _room: Room,
    answer: oneshot::Sender<Result<(), String>>,
}

/// An object of the vault with images of transactions that may not be final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secured {
    /// When it was recorded.
    pub at: Timestamp,
    /// Of which system.
    pub system: SystemName,
    /// In which vault.
    pub vault: Digest,
    /// From which database.
    pub origin: String,
    /// The object.
    pub object: reprieve_vault::ObjectRef,
    /// Whose images are in it.
    pub transactions: Vec<u64>,
    /// Rows in it.
    pub rows: u64,
}

impl Securer {
    /// For one system; nothing is known of its database yet.
    #[must_use]
    pub fn new(system: SystemName, vault: Arc<VaultAccess>, audit: Arc<dyn Audit>, clock: Arc<dyn Clock>, options: StrictOptions) -> Self {
        let (queue, asked) = mpsc::channel(WAITING);
        let room = Arc::new(Semaphore::new(ROOM_KIBIBYTES as usize));
        Self { system, vault, audit, clock, options, room, queue, asked: Mutex::new(Some(asked)), known: Mutex::default() }
    }

    /// Whether this system's changes wait.
    pub(crate) fn is_strict(&self) -> bool {
        self.options.strict
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change of it is whole by itself.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what sessions bring, for ever.
    pub(crate) async fn run(&self) {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut asked) = asked else { return };
        let mut waiting = Vec::new();
        while asked.recv_many(&mut waiting, TOGETHER).await > 0 {
            // Whoever waits no longer was rolled back.
            waiting.retain(|images| !images.answer.is_closed());
            while !waiting.is_empty() {
                let (some, rest) = as_many_as_fit(std::mem::take(&mut waiting));
                waiting = rest;
                let put = self.put(&some).await.map_err(|error| error.to_string());
                for images in some {
                    let _gone_is_rolled_back = images.answer.send(put.clone());
                }
            }
        }
    }

    /// Puts some sessions' images as one object, and records it.
    async fn put(&self, some: &[Images]) -> Result<(), UndoError> {
        if some.is_empty() {
            return Ok(());
        }
        let origin = self.known().seal.as_ref().map(|seal| seal.origin.clone());
        let origin = origin.ok_or_else(|| UndoError::Images("the database is not known yet".to_owned()))?;
        let mut packer = Packer::new(self.system.clone(), origin.clone(), rand::random());
        for images in some {
            images.rows.split_inclusive(|byte| *byte == b'\n').try_for_each(|line| packer.push(line))?;
        }
        let (pack, packed) = packer.finish()?;
        let vault = self.vault.vault().await?;
        let object = vault.put_pack(pack).await?;
        vault.is_there().await?;
        let secured = Secured {
            at: self.clock.now(),
            system: self.system.clone(),
            vault: vault.identity().await?,
            origin,
            object,
            transactions: some.iter().map(|images| images.transaction).collect(),
            rows: packed.rows,
        };
        // Known before it is recorded, so that it is removed in any case.
        self.known().objects.push_back(secured.clone());
        let Secured { at: _, system, vault, origin, object, transactions, rows } = secured;
        let event = Event::ImagesSecured {
            system,
            vault,
            origin,
            object: object.digest,
            plain_bytes: object.plain_bytes,
            stored_bytes: object.stored_bytes,
            transactions,
            rows,
        };
        self.audit.append(event).await.map(drop).map_err(|error| UndoError::Ledger(error.to_string()))
    }

    /// Looks at what `protect --apply` installed for this. Without it there is no way to be strict.
    pub(crate) async fn look(&self, client: &Client, origin: &str) -> Result<(), UndoError> {
        if !self.is_strict() {
            return Ok(());
        }
        let secret = seal(client).await;
        let mut known = self.known();
        known.seal = None;
        known.seal = Some(Seal { secret: secret?, origin: origin.to_owned() });
        Ok(())
    }

    /// Removes objects that nobody needs any more: what of their transactions became final is in the vault at `reached`, or their
    /// window is over.
    pub(crate) async fn purge(
        &self,
        history: &dyn History,
        vault: Digest,
        origin: &str,
        reached: &Position,
        window: Duration,
    ) -> Result<(), UndoError> {
        if !self.known().recalled {
            let since =
                Timestamp(self.clock.now().0.saturating_sub(u64::try_from(window.as_millis()).unwrap_or(u64::MAX).saturating_mul(2)));
            let found = secured(history, &self.system, since)?;
            let mut known = self.known();
            let newer = std::mem::take(&mut known.objects);
            known.objects = found.into_iter().rev().filter(|found| newer.iter().all(|one| one.object != found.object)).collect();
            known.objects.extend(newer);
            known.recalled = true;
        }
        let now = self.clock.now();
        let is_over = |one: &Secured| {
            let is_kept = one.origin == origin && one.vault == vault && one.transactions.iter().all(|xid| reached.holds(*xid));
            is_kept || one.at.plus(window) <= now
        };
        let over: Vec<Digest> =
            self.known().objects.iter().filter(|one| is_over(one)).map(|one| one.object.digest).take(PURGED_AT_ONCE).collect();
        if over.is_empty() {
            return Ok(());
        }
        let from = self.vault.vault().await?;
        for digest in &over {
            from.delete(*digest).await?;
        }
        let event = Event::SecuredPurged { system: self.system.clone(), objects: over.clone() };
        self.audit.append(event).await.map_err(|error| UndoError::Ledger(error.to_string()))?;
        self.known().objects.retain(|one| !over.contains(&one.object.digest));
        Ok(())
    }
}

/// As many as fit into one object, and the rest.
fn as_many_as_fit(mut all: Vec<Images>) -> (Vec<Images>, Vec<Images>) {
    const BYTES: usize = 32 * 1024 * 1024;
    let mut bytes = 0;
    let fits = all.iter().position(|images| {
        bytes += images.rows.len();
        bytes > BYTES
    });
    // One that is larger alone goes alone.
    let rest = fits.map_or_else(Vec::new, |place| all.split_off(place.max(1)));
    (all, rest)
}

impl Strict for Securer {
    fn most(&self) -> u64 {
        self.options.bytes
    }

    fn room(&self, bytes: u64) -> Running<'_, Result<Room, String>> {
        let kibibytes = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, ROOM_KIBIBYTES);
        Box::pin(async move {
            let waited = tokio::time::timeout(self.options.wait, Room::take(self.room.clone(), kibibytes)).await;
            waited.ok().flatten().ok_or_else(|| "too much is on its way to the vault".to_owned())
        })
    }

    fn question(&self, transaction: u64, most: u64) -> Result<String, String> {
        let known = self.known();
        let seal = known.seal.as_ref().ok_or("this system is strict, and `protect --apply` has to be run for that")?;
        let hash = Sha256::digest(format!("{0}:{transaction}:{0}", seal.secret));
        let ticket: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        Ok(format!("COPY (SELECT * FROM reprieve.images('{ticket}', {most}::pg_catalog.int8)) TO STDOUT (ENCODING 'UTF8')"))
    }

    fn secure(&self, transaction: u64, rows: Vec<u8>, room: Room) -> Running<'_, Result<(), String>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let images = Images { transaction, rows, _room: room, answer };
            let waited = tokio::time::timeout(self.options.wait, async {
                if self.queue.send(images).await.is_err() {
                    return Err("nothing is brought to the vault any more".to_owned());
                }
                answered.await.unwrap_or_else(|_| Err("nothing is brought to the vault any more".to_owned()))
            });
            waited.await.unwrap_or_else(|_| Err(format!("the vault did not take it within {} s", self.options.wait.as_secs())))
        })
    }
}

/// Whether the function and the secret are there as they have to be.
const INSTALLED: &str = "
SELECT EXISTS (SELECT FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace s ON s.oid = f.pronamespace
  WHERE s.nspname = 'reprieve' AND f.proname = 'images' AND f.prosecdef AND f.prosrc = $1 AND f.proconfig = '{\"search_path=pg_catalog, pg_temp\"}'),
 EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
  WHERE s.nspname = 'reprieve' AND c.relname = 'seal' AND c.relkind = 'r' AND NOT c.relhasrules AND NOT c.relrowsecurity
   AND c.relowner = s.nspowner AND pg_catalog.pg_get_userbyid(c.relowner) = current_user)";

async fn seal(client: &Client) -> Result<String, UndoError> {
    let installed = client.query_one(INSTALLED, &[&BODY]).await?;
    if !(installed.get::<_, bool>(0) && installed.get::<_, bool>(1)) {
        return Err(UndoError::Images("this system is strict, and `protect --apply` has to be run for that".to_owned()));
    }
    let secret = client.query_opt("SELECT s.secret FROM reprieve.seal s", &[]).await?;
    secret.map(|row| row.get(0)).ok_or_else(|| UndoError::Images("`reprieve.seal` is empty".to_owned()))
}

/// What is missing for a strict system.
pub(crate) async fn planned(client: &Client) -> Result<Vec<Step>, UndoError> {
    let installed = client.query_one(INSTALLED, &[&BODY]).await?;
    let mut steps = Vec::new();
    let mut step = |purpose: &str, sql: String| steps.push(Step { purpose: purpose.to_owned(), sql });
    if !installed.get::<_, bool>(1) {
        step("make a secret that agents can't read", "CREATE TABLE reprieve.seal (secret pg_catalog.text NOT NULL)".to_owned());
        step("nobody else reads it", "REVOKE ALL ON TABLE reprieve.seal FROM PUBLIC".to_owned());
        step(
            "two random numbers are the secret",
            "INSERT INTO reprieve.seal SELECT pg_catalog.concat(pg_catalog.gen_random_uuid(), pg_catalog.gen_random_uuid())".to_owned(),
        );
    }
    if !installed.get::<_, bool>(0) {
        step(
            "bring a change to the vault before it is final",
            format!(
                "CREATE OR REPLACE FUNCTION reprieve.images(ticket pg_catalog.text, most pg_catalog.int8) \
                 RETURNS TABLE (x pg_catalog.xid8, s pg_catalog.int8, r pg_catalog.oid, o pg_catalog.text, n pg_catalog.text) \
                 LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $images${BODY}$images$"
            ),
        );
    }
    Ok(steps)
}

/// Takes both away.
pub(crate) fn removal() -> [Step; 2] {
    let step = |purpose: &str, sql: &str| Step { purpose: purpose.to_owned(), sql: sql.to_owned() };
    [
        step("take away images", "DROP FUNCTION IF EXISTS reprieve.images(pg_catalog.text, pg_catalog.int8)"),
        step("take away seal", "DROP TABLE IF EXISTS reprieve.seal"),
    ]
}

/// The objects with images of transactions that were not final when they were put, and that were not removed, newest first; none that
/// was recorded before `since`.
pub fn secured(history: &dyn History, system: &SystemName, since: Timestamp) -> Result<Vec<Secured>, UndoError> {
    let mut purged = HashSet::new();
    each(history, "secured_purged", since, |_, event| {
        if let Event::SecuredPurged { system: of, objects } = event
            && of == *system
        {
            purged.extend(objects);
        }
    })?;
    let mut found = Vec::new();
    each(history, "images_secured", since, |at, event| {
        if let Event::ImagesSecured { system: of, vault, origin, object, plain_bytes, stored_bytes, transactions, rows } = event
            && of == *system
            && !purged.contains(&object)
        {
            let object = reprieve_vault::ObjectRef { digest: object, kind: reprieve_vault::Kind::Pack, plain_bytes, stored_bytes };
            found.push(Secured { at, system: of, vault, origin, object, transactions, rows });
        }
    })?;
    Ok(found)
}

fn each(history: &dyn History, kind: &str, since: Timestamp, mut each: impl FnMut(Timestamp, Event)) -> Result<(), UndoError> {
    let mut before = u64::MAX;
    loop {
        let page = history.of_kind(kind, before, PAGE).map_err(UndoError::Ledger)?;
        let Some(last) = page.last() else { return Ok(()) };
        before = if last.at < since { 0 } else { last.index };
        page.into_iter().for_each(|recorded| each(recorded.at, recorded.event));
    }
}
