//! The vault: puts, gives, lists, checks and removes objects.
//!
//! Putting what is there already writes it again: the copy may be damaged, and its age counts from the last time.

use std::{
    collections::HashMap,
    io::{self, Read, Write as _},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bytes::Bytes;
use rand::{RngCore as _, rngs::OsRng};
use reprieve_operation::{Digest, Timestamp};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::{OnceCell, OwnedMutexGuard, mpsc},
};
use zeroize::Zeroizing;

use crate::{
    Kind, Lock, ObjectRef, Stored, Usage, VaultError, VaultKey, VaultOptions, Verified,
    backend::{Backend, blocking},
    format::{ChunkWriter, HEADER, Header},
    reading::Reading,
    spool::{Sealed, Spool},
    tally::{Reservation, Tally},
};

/// How much is read at once from what is put.
const PIECE: usize = 128 * 1024;
/// How many pieces wait to be sealed.
const PIECES_AHEAD: usize = 4;
/// zstd's own default: three to five times smaller for rows, at a few hundred megabytes a second.
pub(crate) const COMPRESSION: i32 = 3;

/// Object storage in another blast radius than what it protects. Clones share everything.
#[derive(Debug, Clone)]
pub struct Vault {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    backend: Backend,
    key: VaultKey,
    max_bytes: Option<u64>,
    tally: Arc<Tally>,
    /// Set when the vault has been found to be ours, and what lies in it has been counted.
    ready: OnceCell<Digest>,
    busy: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

impl Vault {
    /// Opens a vault. A directory is made and has to be there; a bucket is first asked when something is done with it, so
    /// that a gateway starts while its vault is away.
    pub fn open(options: &VaultOptions) -> Result<Self, VaultError> {
        let backend = Backend::open(&options.store, &options.s3)?;
        let (key, max_bytes) = (options.key.clone(), options.max_bytes);
        let (tally, ready, busy) = (Tally::new(max_bytes), OnceCell::new(), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { backend, key, max_bytes, tally, ready, busy }) })
    }

    /// What tells this vault from any other, also from an empty place where it should be: a disk that is not mounted is a new
    /// vault with another identity. Makes the vault's mark if it has none.
    pub async fn identity(&self) -> Result<Digest, VaultError> {
        self.ready().await
    }

    /// Puts everything that `from` gives. The object is durable when this returns; dropped or failed, nothing is visible.
    pub async fn put(&self, mut from: impl AsyncRead + Unpin) -> Result<ObjectRef, VaultError> {
        self.ready().await?;
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        let this = self.clone();
        let sealing =
            tokio::spawn(blocking(move || this.seal(Kind::Stream, None, Pieces { from: receiver, piece: Bytes::new(), ended: false })));
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            while piece.len() < PIECE {
                if (&mut from).take((PIECE - piece.len()) as u64).read_buf(&mut piece).await.map_err(VaultError::Input)? == 0 {
                    break;
                }
            }
            let ended = piece.is_empty();
            // A failed send means that sealing has failed, which says so itself.
            if sender.send(piece.into()).await.is_err() || ended {
                break;
            }
        }
        let sealed = finished(sealing.await)?;
        self.commit(sealed).await
    }

    /// Puts what is in memory already.
    pub async fn put_bytes(&self, bytes: Bytes) -> Result<ObjectRef, VaultError> {
        self.put_as(Kind::Stream, bytes, None).await
    }

    /// Puts what has its name already, as it is: for contents that can't be compressed any more.
    pub async fn put_named(&self, named: Named) -> Result<ObjectRef, VaultError> {
        self.put_as(Kind::Bytes, named.bytes, Some(named.digest)).await
    }

    pub(crate) async fn put_as(&self, kind: Kind, bytes: Bytes, name: Option<Digest>) -> Result<ObjectRef, VaultError> {
        self.ready().await?;
        let this = self.clone();
        let sealed = blocking(move || this.seal(kind, name, io::Cursor::new(bytes))).await?;
        self.commit(sealed).await
    }

    /// Compresses, names (what has no `name` yet) and encrypts. Blocks.
    fn seal(&self, kind: Kind, name: Option<Digest>, mut from: impl Read) -> Result<Unnamed, VaultError> {
        let inner = &self.inner;
        let spool = Spool::new(inner.backend.spool(), inner.tally.reserve());
        let mut naming = inner.key.naming();
        let mut plain_bytes = 0;
        let write_failed = |error: io::Error| match error.downcast::<VaultError>() {
            Ok(ours) => ours,
            Err(error) => VaultError::away("write an object")(error),
        };
        let chunks = ChunkWriter::new(spool).map_err(write_failed)?;
        let mut into = match kind {
            Kind::Stream => Payload::Compressed(zstd::Encoder::new(chunks, COMPRESSION).map_err(write_failed)?),
            // A pack has compressed its parts itself.
            Kind::Pack | Kind::Bytes => Payload::Plain(chunks),
        };
        let mut piece = vec![0; PIECE];
        loop {
            let had = from.read(&mut piece).map_err(VaultError::Input)?;
            if had == 0 {
                break;
            }
            if name.is_none() {
                naming.update(&piece[..had]);
            }
            plain_bytes += had as u64;
            match &mut into {
                Payload::Compressed(into) => into.write_all(&piece[..had]).map_err(write_failed)?,
                Payload::Plain(into) => into.write_all(&piece[..had]).map_err(write_failed)?,
            }
        }
        let chunks = match into {
            Payload::Compressed(encoder) => encoder.finish().map_err(write_failed)?,
            Payload::Plain(chunks) => chunks,
        };
        let (spool, header) = chunks.finish(kind, plain_bytes).map_err(write_failed)?;
        let digest = name.unwrap_or_else(|| naming.digest());
        let (sealed, stored_bytes, room) = spool.finish(&header.seal(&inner.key, &digest))?;
        Ok(Unnamed { object: ObjectRef { digest, kind, plain_bytes, stored_bytes }, sealed, room })
    }

    async fn commit(&self, unnamed: Unnamed) -> Result<ObjectRef, VaultError> {
        let (this, Unnamed { object, sealed, room }) = (self.clone(), unnamed);
        // On its own, so that it keeps the name and the count until it has ended, even if its caller goes away.
        let committing = tokio::spawn(async move {
            let _name = this.occupy(object.digest).await;
            let replaced = this.inner.backend.stat(object.digest).await?.map_or(0, |stored| stored.stored_bytes);
            this.inner.backend.commit(object.digest, sealed).await?;
            room.settle(replaced);
            Ok(object)
        });
        finished(committing.await)
    }

    /// Gives an object's contents as a stream.
    pub async fn get(&self, object: &ObjectRef) -> Result<Reading, VaultError> {
        self.get_named(object.digest).await
    }

    /// Gives an object's contents at once, if they are at most `limit` bytes.
    pub async fn get_bytes(&self, object: &ObjectRef, limit: u64) -> Result<Bytes, VaultError> {
        let once = async || self.get(object).await?.collect(limit).await;
        match once().await {
            Err(error) if self.found_other(object.digest, &error).await => once().await,
            read => read,
        }
    }

    async fn get_named(&self, digest: Digest) -> Result<Reading, VaultError> {
        self.ready().await?;
        let once = async || Reading::start(digest, self.inner.key.clone(), self.inner.backend.read(digest).await?).await;
        match once().await {
            Err(error) if self.found_other(digest, &error).await => once().await,
            Err(error) => Err(self.explain(error).await),
            read => read,
        }
    }

    /// After an error that says that an object is gone or damaged: looks for a version of it that is whole, which is read from then
    /// on. Who may write into a bucket can hide an object or put another over it, and does not reach the version below.
    pub(crate) async fn found_other(&self, digest: Digest, error: &VaultError) -> bool {
        if !matches!(error, VaultError::Missing(_) | VaultError::Corrupt { .. }) {
            return false;
        }
        for version in self.inner.backend.versions(digest).await {
            if self.is_whole(digest, &version).await {
                tracing::warn!(object = %digest, %version, %error, "somebody hid an object of the vault or put another over it; the one below is read");
                self.inner.backend.pin(digest, version);
                return true;
            }
        }
        false
    }

    async fn is_whole(&self, digest: Digest, version: &str) -> bool {
        let read = async {
            let source = self.inner.backend.read_version(digest, version).await?;
            let mut reading = Reading::start(digest, self.inner.key.clone(), source).await?;
            while let Some(piece) = reading.next().await {
                piece?;
            }
            Ok::<(), VaultError>(())
        };
        read.await.is_ok()
    }

    /// Names contents, for whoever looks for them before putting them.
    #[must_use]
    pub fn name(&self, bytes: Bytes) -> Named {
        let mut naming = self.inner.key.naming();
        naming.update(&bytes);
        Named { digest: naming.digest(), bytes }
    }

    /// A key made from contents, for whoever encrypts them before they are put and wants the same to become the same object.
    /// It is another one for each owner, and nobody can guess it who has not the vault's key.
    #[must_use]
    pub fn content_key(&self, owner: &str, contents: &[u8]) -> Zeroizing<[u8; 32]> {
        self.inner.key.content_key(owner, contents)
    }

    /// How the object is locked against removal. If what is read of it is not locked `until` then, a whole version of it that is
    /// locked for longer counts, and is read from then on: whoever puts the same again over it takes nothing away.
    pub async fn lock(&self, digest: Digest, until: Timestamp) -> Result<Lock, VaultError> {
        self.ready().await?;
        let backend = &self.inner.backend;
        let mut best = backend.lock(digest, None).await?;
        if best >= Lock::Until(until) {
            return Ok(best);
        }
        for version in backend.versions(digest).await {
            let lock = backend.lock(digest, Some(&version)).await?;
            if lock > best && self.is_whole(digest, &version).await {
                backend.pin(digest, version);
                best = lock;
            }
            if best >= Lock::Until(until) {
                break;
            }
        }
        Ok(best)
    }

    /// What the vault knows of an object whose digest alone is known.
    pub async fn describe(&self, digest: Digest) -> Result<ObjectRef, VaultError> {
        self.ready().await?;
        let (header, stored_bytes) = self.header(digest).await?;
        Ok(ObjectRef { digest, kind: header.kind, plain_bytes: header.plain_bytes, stored_bytes })
    }

    pub(crate) async fn header(&self, digest: Digest) -> Result<(Header, u64), VaultError> {
        match self.newest_header(digest).await {
            Err(error) if self.found_other(digest, &error).await => self.newest_header(digest).await,
            read => read,
        }
    }

    async fn newest_header(&self, digest: Digest) -> Result<(Header, u64), VaultError> {
        let Some(stored) = self.inner.backend.stat(digest).await? else { return Err(self.explain(VaultError::Missing(digest)).await) };
        let head = std::iter::once(0..stored.stored_bytes.min(HEADER as u64)).collect();
        let mut parts = self.ranges(digest, head).await?;
        let bytes: [u8; HEADER] =
            parts.pop().and_then(|part| part.as_ref().try_into().ok()).ok_or(VaultError::Corrupt { digest, why: "it ends too early" })?;
        let header = Header::open(&bytes, &self.inner.key, digest)?;
        if header.stored_bytes() != stored.stored_bytes {
            return Err(VaultError::Corrupt { digest, why: "its size is not what was stored" });
        }
        Ok((header, stored.stored_bytes))
    }

    pub(crate) async fn ranges(&self, digest: Digest, ranges: Vec<std::ops::Range<u64>>) -> Result<Vec<Bytes>, VaultError> {
        match self.inner.backend.ranges(digest, ranges).await {
            Ok(parts) => Ok(parts),
            Err(error) => Err(self.explain(error).await),
        }
    }

    /// Whether there is an object of this name. It does not say that it is whole; see [`Self::verify_one`].
    pub async fn exists(&self, digest: Digest) -> Result<bool, VaultError> {
        self.ready().await?;
        match self.inner.backend.stat(digest).await? {
            Some(_) => Ok(true),
            None => match self.explain(VaultError::Missing(digest)).await {
                VaultError::Missing(_) => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Removes an object. It is not an error if it is gone. Whoever else refers to the same contents loses them too.
    pub async fn delete(&self, digest: Digest) -> Result<(), VaultError> {
        self.delete_if(digest, None).await.map(drop)
    }

    /// Removes an object unless it has been stored again since `before`: whoever put it then relies on it.
    /// True when it was removed. Deletes belong into the process that puts; two processes do not see each other's puts.
    pub async fn delete_stored_before(&self, digest: Digest, before: Timestamp) -> Result<bool, VaultError> {
        self.delete_if(digest, Some(before)).await
    }

    async fn delete_if(&self, digest: Digest, stored_before: Option<Timestamp>) -> Result<bool, VaultError> {
        self.ready().await?;
        let this = self.clone();
        // On its own, for the reason that putting is.
        let removing = tokio::spawn(async move {
            let _name = this.occupy(digest).await;
            let Some(stored) = this.inner.backend.stat(digest).await? else { return Ok(false) };
            if stored_before.is_some_and(|before| stored.stored_at >= before) {
                return Ok(false);
            }
            this.inner.backend.delete(digest).await?;
            this.inner.tally.removed(stored.stored_bytes);
            Ok(true)
        });
        finished(removing.await)
    }

    /// Lists the objects, in no order.
    pub async fn list(&self) -> Result<Listing, VaultError> {
        self.ready().await?;
        Ok(Listing(self.inner.backend.list()))
    }

    /// The same with what somebody hid or put something over, where the storage keeps that: reading finds what was put first.
    pub async fn list_hidden(&self) -> Result<Listing, VaultError> {
        self.ready().await?;
        Ok(Listing(self.inner.backend.list_hidden()))
    }

    /// Counts what is in the vault. The bound is kept against this count from then on.
    pub async fn usage(&self) -> Result<Usage, VaultError> {
        self.ready().await?;
        let (objects, stored_bytes) = self.count().await?;
        let free_bytes = self.inner.backend.free_bytes().await?;
        Ok(Usage { objects, stored_bytes, max_bytes: self.inner.max_bytes, free_bytes })
    }

    async fn count(&self) -> Result<(u64, u64), VaultError> {
        self.inner.tally.begin_count();
        let (mut objects, mut bytes) = (0u64, 0u64);
        let mut listing = self.inner.backend.list();
        while let Some(stored) = listing.recv().await {
            objects += 1;
            bytes = bytes.saturating_add(stored?.stored_bytes);
        }
        self.inner.tally.counted(bytes);
        Ok((objects, bytes))
    }

    /// Whether something could be put now: looks for the vault's mark and writes a probe. An error is a reason to hold what
    /// depends on the vault. It does not see the bound from the settings coming; see [`Self::usage`].
    pub async fn health(&self) -> Result<(), VaultError> {
        let identity = self.ready().await?;
        match self.marked().await? {
            Some(found) if found == identity => self.inner.backend.probe().await,
            _ => Err(not_mounted()),
        }
    }

    /// Why there will soon be no room, as far as that can be told without counting again.
    pub async fn nearly_full(&self) -> Result<Option<String>, VaultError> {
        const PERCENT: u64 = 90;
        const FREE: u64 = 1 << 30;
        self.ready().await?;
        if let Some(percent) = self.inner.tally.percent().filter(|percent| *percent >= PERCENT) {
            return Ok(Some(format!("the vault has {percent} % of what it may have")));
        }
        let free = self.inner.backend.free_bytes().await?.filter(|free| *free < FREE);
        Ok(free.map(|free| format!("only {} MiB are free where the vault is", free >> 20)))
    }

    /// Whether the vault is where it was, so that what was put is in it, and not in an empty place where it should be.
    pub async fn is_there(&self) -> Result<(), VaultError> {
        let identity = self.ready().await?;
        match self.marked().await? {
            Some(found) if found == identity => Ok(()),
            _ => Err(not_mounted()),
        }
    }

    /// Reads one object to its end, and says what it is.
    pub async fn verify_one(&self, digest: Digest) -> Result<ObjectRef, VaultError> {
        let object = self.describe(digest).await?;
        let mut reading = self.get_named(digest).await?;
        while let Some(piece) = reading.next().await {
            piece?;
        }
        Ok(object)
    }

    /// Reads everything to its end. Damaged objects are counted; a vault that goes away meanwhile is an error.
    pub async fn verify(&self) -> Result<Verified, VaultError> {
        let mut verified = Verified::default();
        let mut listing = self.list().await?;
        while let Some(stored) = listing.next().await {
            let digest = stored?.digest;
            match self.verify_one(digest).await {
                Ok(object) => {
                    verified.good += 1;
                    verified.plain_bytes = verified.plain_bytes.saturating_add(object.plain_bytes);
                }
                // Removed since it was listed.
                Err(VaultError::Missing(_)) => {}
                Err(error @ VaultError::Corrupt { .. }) => verified.damaged.push((digest, error.to_string())),
                Err(error) => return Err(error),
            }
        }
        Ok(verified)
    }

    /// Finds the mark or makes it, then counts what is there.
    async fn ready(&self) -> Result<Digest, VaultError> {
        let make = || async {
            let identity = match self.marked().await? {
                Some(identity) => identity,
                None => {
                    let mut identity = Digest([0; 32]);
                    OsRng.fill_bytes(&mut identity.0);
                    let mark = format!("reprieve vault 1\n{identity}\n{}\n", self.inner.key.mark_of(&identity.0));
                    self.inner.backend.set_mark(mark.into()).await?;
                    // Another gateway's may have been first.
                    self.marked().await?.ok_or_else(not_mounted)?
                }
            };
            self.count().await?;
            Ok(identity)
        };
        self.inner.ready.get_or_try_init(make).await.copied()
    }

    /// The identity in the vault's mark, if there is one, and if it is ours.
    async fn marked(&self) -> Result<Option<Digest>, VaultError> {
        let Some(mark) = self.inner.backend.mark().await? else { return Ok(None) };
        let lines: Vec<&str> = std::str::from_utf8(&mark).map_err(|_| VaultError::Mark)?.lines().collect();
        let &["reprieve vault 1", identity, proof] = lines.as_slice() else { return Err(VaultError::Mark) };
        let identity = Digest::try_from(identity.to_owned()).map_err(|_| VaultError::Mark)?;
        let proof = Digest::try_from(proof.to_owned()).map_err(|_| VaultError::Mark)?;
        if proof == self.inner.key.mark_of(&identity.0) { Ok(Some(identity)) } else { Err(VaultError::WrongKey) }
    }

    /// An object that is missing while the mark is missing too says that the whole vault is away: a disk is not mounted.
    async fn explain(&self, error: VaultError) -> VaultError {
        if !matches!(error, VaultError::Missing(_)) {
            return error;
        }
        match self.marked().await {
            Ok(Some(_)) => error,
            Ok(None) => not_mounted(),
            Err(worse) => worse,
        }
    }

    pub(crate) fn key(&self) -> &VaultKey {
        &self.inner.key
    }

    /// Waits until nobody else writes or removes the object of this name.
    async fn occupy(&self, digest: Digest) -> OwnedMutexGuard<()> {
        let lock = {
            // Entries are only looked up and inserted under the lock, so it is right even after a panic.
            let mut busy = self.inner.busy.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(lock) = busy.get(&digest).and_then(Weak::upgrade) {
                lock
            } else {
                busy.retain(|_, lock| lock.strong_count() > 0);
                let lock = Arc::default();
                busy.insert(digest, Arc::downgrade(&lock));
                lock
            }
        };
        lock.lock_owned().await
    }
}

/// What a task came to. One that panicked is a bug that ends one call; one that was cancelled, a runtime that shuts down.
fn finished<T>(task: Result<Result<T, VaultError>, tokio::task::JoinError>) -> Result<T, VaultError> {
    task.unwrap_or_else(|error| Err(VaultError::Away { doing: "finish a task", source: error.into() }))
}

fn not_mounted() -> VaultError {
    VaultError::Away { doing: "find its mark", source: io::Error::from(io::ErrorKind::NotFound).into() }
}

/// Contents and the name that they have in this vault.
#[derive(Debug, Clone)]
pub struct Named {
    digest: Digest,
    bytes: Bytes,
}

impl Named {
    /// The name.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// A sealed object, before its name is taken.
struct Unnamed {
    object: ObjectRef,
    sealed: Sealed,
    room: Reservation,
}

enum Payload {
    Compressed(zstd::Encoder<'static, ChunkWriter<Spool>>),
    Plain(ChunkWriter<Spool>),
}

/// The objects of a vault, one after the other.
#[derive(Debug)]
pub struct Listing(mpsc::Receiver<Result<Stored, VaultError>>);

impl Listing {
    /// The next object.
    pub async fn next(&mut self) -> Option<Result<Stored, VaultError>> {
        self.0.recv().await
    }
}

/// Reads, on a thread that may block, what is being put. An empty piece is the end; without it, whoever puts has gone away.
struct Pieces {
    from: mpsc::Receiver<Bytes>,
    piece: Bytes,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && !self.ended {
            self.piece = self.from.blocking_recv().ok_or(io::ErrorKind::BrokenPipe)?;
            self.ended = self.piece.is_empty();
        }
        let taken = into.len().min(self.piece.len());
        into[..taken].copy_from_slice(&self.piece.split_to(taken));
        Ok(taken)
    }
}
