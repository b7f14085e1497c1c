//! Chunks: a stream, cut where its contents say so, each chunk compressed and encrypted under a key that is made from itself.
//!
//! The same contents become the same object, so what did not change since the last copy is in the vault already, and only named
//! again. Whoever copies can't open an older chunk all the same: its key takes the chunk itself, and the list of keys is sealed to
//! public keys (`seal.rs`). Keys are made with a secret of the vault's, so that nobody else can guess contents and look for them.
//! Each chunk is worked on alone, on several threads; their order is kept by giving them to the threads in turns.

use std::{
    io::{self, Read},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit as _, Nonce, aead::Aead as _};
use fastcdc::v2020::StreamCDC;
use reprieve_operation::{Digest, SystemName};
use reprieve_vault::{Lock, ObjectRef, Vault};
use tokio::runtime::Handle;

use crate::{
    DrillKey, Recipients, RecoveryError,
    engine::Needed,
    seal::{open_bytes, seal_bytes},
};

/// The sizes of chunks: at least, about, at most. A smaller one finds more that did not change, and costs more objects.
const CHUNK: (usize, usize, usize) = (1 << 20, 4 << 20, 8 << 20);
/// The largest that is opened: chunks were larger once.
const OPENED: usize = 16 << 20;
/// What compressing and encrypting may add to that.
const SEALED: u64 = 17 << 20;
/// Fast rather than small: a copy should take hardly longer than reading it.
const COMPRESSION: i32 = 1;
/// Threads, and with them chunks in memory: two a thread, each twice while it is opened.
const WORKERS: usize = 3;
const KEY: usize = 32;
/// The largest list of keys: of 128 TiB.
const KEYS: u64 = 1 << 30;

/// What a stream became.
#[derive(Debug)]
pub(crate) struct Chunked {
    /// In order; one that comes again is named again.
    pub(crate) objects: Vec<ObjectRef>,
    /// What was put.
    pub(crate) fresh: Vec<ObjectRef>,
    /// What was not in the vault before: no older copy relies on it.
    pub(crate) own: Vec<ObjectRef>,
    /// The sealed list of keys.
    pub(crate) keys: ObjectRef,
    pub(crate) plain_bytes: u64,
}

impl Chunked {
    /// The chunks and their keys.
    pub(crate) fn all(&self) -> impl Iterator<Item = &ObjectRef> {
        self.objects.iter().chain([&self.keys])
    }
}

/// One chunk in the vault.
struct Stored {
    object: ObjectRef,
    fresh: bool,
    own: bool,
    key: [u8; KEY],
    plain_bytes: u64,
}

/// Puts everything that `from` gives into the vault, as far as it is not there. Blocks. What was not there before is told with an error, too.
pub(crate) fn seal_chunks(
    vault: &Vault,
    handle: &Handle,
    recipients: &Recipients,
    system: &SystemName,
    needed: Needed,
    from: impl Read,
) -> Result<Chunked, (RecoveryError, Vec<ObjectRef>)> {
    let (cut, stored) = thread::scope(|scope| {
        let (hands, workers): (Vec<_>, Vec<_>) = (0..WORKERS)
            .map(|_| {
                let (hand, chunks) = sync_channel::<Vec<u8>>(1);
                let worker = scope.spawn(move || {
                    let mut stored = Vec::new();
                    for chunk in chunks {
                        match store(vault, handle, system, needed, &chunk) {
                            Ok(one) => stored.push(one),
                            Err(error) => return (stored, Some(error)),
                        }
                    }
                    (stored, None)
                });
                (hand, worker)
            })
            .unzip();
        let cut = || -> Result<(), RecoveryError> {
            for (number, chunk) in StreamCDC::new(from, CHUNK.0, CHUNK.1, CHUNK.2).enumerate() {
                let chunk = chunk.map_err(|error| RecoveryError::file("read what is copied")(error.into()))?;
                // One that went away says itself why.
                if hands[number % WORKERS].send(chunk.data).is_err() {
                    break;
                }
            }
            Ok(())
        };
        let cut = cut();
        drop(hands);
        let bug = |_| (Vec::new(), Some(RecoveryError::Damaged("storing ended by a bug".to_owned())));
        let stored: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap_or_else(bug)).collect();
        (cut, stored)
    });
    let (stored, errors): (Vec<_>, Vec<_>) = stored.into_iter().unzip();
    let those = |which: fn(&Stored) -> bool| stored.iter().flatten().filter(|one| which(one)).map(|one| one.object).collect::<Vec<_>>();
    let mut own = those(|one| one.own);
    if let Some(error) = errors.into_iter().flatten().next().or(cut.err()) {
        return Err((error, own));
    }
    let count = stored.iter().map(Vec::len).sum();
    let in_order: Vec<&Stored> = (0..count).filter_map(|number| stored.get(number % WORKERS)?.get(number / WORKERS)).collect();
    let all_keys: Vec<u8> = in_order.iter().flat_map(|one| one.key).collect();
    let keys = seal_bytes(recipients, &all_keys).and_then(|sealed| Ok(handle.block_on(vault.put_bytes(sealed.into()))?));
    let keys = match keys {
        Ok(keys) => keys,
        Err(error) => return Err((error, own)),
    };
    let mut fresh = those(|one| one.fresh);
    fresh.push(keys);
    own.push(keys);
    let plain_bytes = in_order.iter().map(|one| one.plain_bytes).sum();
    Ok(Chunked { objects: in_order.into_iter().map(|one| one.object).collect(), fresh, own, keys, plain_bytes })
}

fn store(vault: &Vault, handle: &Handle, system: &SystemName, needed: Needed, chunk: &[u8]) -> Result<Stored, RecoveryError> {
    let compressed = zstd::bulk::compress(chunk, COMPRESSION).map_err(RecoveryError::file("compress a copy"))?;
    let key = vault.content_key(system.as_str(), &compressed);
    // The key is only ever used for these very bytes, so it needs no nonce.
    let sealed = ChaCha20Poly1305::new(Key::from_slice(key.as_slice())).encrypt(&Nonce::default(), compressed.as_slice());
    let sealed = sealed.map_err(|_| RecoveryError::Damaged("a chunk could not be sealed".to_owned()))?;
    let plain_bytes = chunk.len() as u64;
    let named = vault.name(sealed.into());
    let own = !handle.block_on(vault.exists(named.digest()))?;
    let found = if own { None } else { handle.block_on(there(vault, needed, named.digest()))? };
    let fresh = found.is_none();
    let object = match found {
        Some(object) => object,
        None => handle.block_on(vault.put_named(named))?,
    };
    Ok(Stored { object, fresh, own, key: *key, plain_bytes })
}

/// An object of the vault, if it may be relied on: it is whole, and stays for long enough.
async fn there(vault: &Vault, needed: Needed, digest: Digest) -> Result<Option<ObjectRef>, RecoveryError> {
    if needed.anew {
        return Ok(None);
    }
    if let Some(until) = needed.locked_until
        && vault.lock(digest, until).await? < Lock::Until(until)
    {
        // Put again, it is locked anew.
        return Ok(None);
    }
    match vault.describe(digest).await {
        Ok(object) => Ok(Some(object)),
        // It does not open: put again, it is whole.
        Err(reprieve_vault::VaultError::Corrupt { .. } | reprieve_vault::VaultError::Missing(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens chunks and hands them to `use_it` as one stream. Every object is checked against its name and under its key: a reader that
/// comes to the end has read all of it.
pub(crate) fn unseal_chunks<T>(
    vault: &Vault,
    handle: &Handle,
    identity: &DrillKey,
    objects: &[ObjectRef],
    keys: &ObjectRef,
    use_it: impl FnOnce(&mut dyn Read) -> Result<T, RecoveryError>,
) -> Result<T, RecoveryError> {
    let sealed = handle.block_on(vault.get_bytes(keys, KEYS))?;
    let mut keys = Vec::new();
    open_bytes(identity, &sealed)?.take(KEYS).read_to_end(&mut keys).map_err(RecoveryError::file("open the copy's keys"))?;
    if keys.len() != objects.len() * KEY {
        return Err(RecoveryError::Damaged("a copy has not as many keys as chunks".to_owned()));
    }
    let keys = &keys;
    thread::scope(|scope| {
        let (from, workers): (Vec<_>, Vec<_>) = (0..WORKERS)
            .map(|first| {
                let (hand, from) = sync_channel::<Vec<u8>>(1);
                let worker = scope.spawn(move || -> Result<(), RecoveryError> {
                    for (object, key) in objects.iter().zip(keys.chunks_exact(KEY)).skip(first).step_by(WORKERS) {
                        // Whoever reads may have had enough.
                        if hand.send(open(vault, handle, object, key)?).is_err() {
                            break;
                        }
                    }
                    Ok(())
                });
                (from, worker)
            })
            .unzip();
        let mut joined = Joined { from, next: 0, count: objects.len(), piece: Vec::new(), given: 0 };
        let used = use_it(&mut joined);
        drop(joined);
        let bug = |_| Err(RecoveryError::Damaged("opening ended by a bug".to_owned()));
        // A reader that ended early did so because of what could not be opened.
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(bug))?;
        used
    })
}

fn open(vault: &Vault, handle: &Handle, object: &ObjectRef, key: &[u8]) -> Result<Vec<u8>, RecoveryError> {
    let damaged = |what: &str| RecoveryError::Damaged(format!("the chunk {} {what}", object.digest));
    let sealed = handle.block_on(vault.get_bytes(object, SEALED))?;
    let compressed = ChaCha20Poly1305::new(Key::from_slice(key)).decrypt(&Nonce::default(), sealed.as_ref());
    let compressed = compressed.map_err(|_| damaged("does not open under its key"))?;
    zstd::bulk::decompress(&compressed, OPENED).map_err(|_| damaged("does not unpack"))
}

/// Chunks as one stream.
struct Joined {
    from: Vec<Receiver<Vec<u8>>>,
    next: usize,
    count: usize,
    piece: Vec<u8>,
    given: usize,
}

impl Read for Joined {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.given == self.piece.len() {
            if self.next == self.count {
                return Ok(0);
            }
            // A thread that ended says itself why.
            let early = |_| io::Error::new(io::ErrorKind::UnexpectedEof, "a chunk is missing");
            self.piece = self.from[self.next % WORKERS].recv().map_err(early)?;
            (self.next, self.given) = (self.next + 1, 0);
        }
        let taken = into.len().min(self.piece.len() - self.given);
        into[..taken].copy_from_slice(&self.piece[self.given..self.given + taken]);
        self.given += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use reprieve_operation::Timestamp;
    use reprieve_vault::{Location, VaultKey, VaultOptions};

    use super::*;

    /// Bytes that do not compress.
    fn noise(bytes: usize, seed: u64) -> Vec<u8> {
        use rand::{RngCore as _, SeedableRng as _};
        let mut all = vec![0; bytes];
        rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut all);
        all
    }

    struct Place {
        runtime: tokio::runtime::Runtime,
        vault: Vault,
        identity: DrillKey,
        recipients: Recipients,
    }

    impl Place {
        fn new() -> Self {
            let options =
                VaultOptions { store: Location::Memory, key: VaultKey::from_bytes(&[7; 32]), max_bytes: None, s3: Default::default() };
            let identity = DrillKey::generate();
            let recipients = Recipients::parse(&[identity.recipient()]).expect("a key");
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
            Self { runtime, vault: Vault::open(&options).expect("opened"), identity, recipients }
        }

        fn seal(&self, system: &str, needed: Needed, bytes: &[u8]) -> Chunked {
            let system = system.parse().expect("a name");
            seal_chunks(&self.vault, self.runtime.handle(), &self.recipients, &system, needed, bytes).expect("sealed")
        }

        fn read(&self, identity: &DrillKey, chunked: &Chunked) -> Result<Vec<u8>, RecoveryError> {
            unseal_chunks(&self.vault, self.runtime.handle(), identity, &chunked.objects, &chunked.keys, |stream| {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).map_err(RecoveryError::file("read"))?;
                Ok(all)
            })
        }
    }

    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }

    const NOTHING: Needed = Needed { anew: false, locked_until: None };

    #[test]
    fn what_did_not_change_is_not_stored_again_and_all_of_it_comes_back() {
        let place = Place::new();
        let mut bytes = noise(40 << 20, 1);
        bytes.extend(vec![0; 40 << 20]);
        let first = place.seal("shop", NOTHING, &bytes);
        assert!(first.objects.len() > 5 && first.plain_bytes == bytes.len() as u64);
        assert_eq!(place.read(&place.identity, &first).expect("opened"), bytes);
        let same = place.seal("shop", NOTHING, &bytes);
        assert_eq!(same.objects, first.objects);
        assert_eq!(same.fresh, [same.keys], "only the list of keys is new");
        // A few bytes more in the middle: what follows is found again.
        let mut changed = bytes.clone();
        changed.splice(20_000_000..20_000_000, *b"something else");
        let changed_copy = place.seal("shop", NOTHING, &changed);
        assert!(changed_copy.fresh.len() <= 4, "{} of {} are new", changed_copy.fresh.len(), changed_copy.objects.len());
        assert_eq!(place.read(&place.identity, &changed_copy).expect("opened"), changed);
        // Another system's are its own, also with the same contents.
        let other = place.seal("other", NOTHING, &bytes);
        assert!(other.objects.iter().all(|object| !first.objects.contains(object)));
        let anew = place.seal("shop", Needed { anew: true, locked_until: None }, &bytes);
        assert!(anew.objects == first.objects && anew.fresh.len() > first.objects.len(), "everything is put again");
        assert_eq!(anew.own, [anew.keys], "older copies rely on all but the keys");
        // A copy that fails takes away what it brought, and nothing else.
        let more = noise(20 << 20, 3);
        let broken = bytes.as_slice().chain(more.as_slice()).chain(Broken);
        let (system, anew) = ("shop".parse().expect("a name"), Needed { anew: true, locked_until: None });
        let (_, own) = seal_chunks(&place.vault, place.runtime.handle(), &place.recipients, &system, anew, broken).expect_err("broken");
        assert!(!own.is_empty() && own.iter().all(|object| !first.objects.contains(object)), "{own:?}");
        // Nothing is locked in memory, so nothing is relied on.
        let locked = place.seal("shop", Needed { anew: false, locked_until: Some(Timestamp(1)) }, &bytes);
        assert!(locked.fresh.len() > first.objects.len());
        assert_eq!(place.read(&place.identity, &place.seal("shop", NOTHING, b"")).expect("opened"), b"");
    }

    #[test]
    fn only_the_identity_opens_and_nothing_is_exchanged() {
        let place = Place::new();
        let chunked = place.seal("shop", NOTHING, &noise(20 << 20, 2));
        let error = place.read(&DrillKey::generate(), &chunked).expect_err("another identity");
        assert!(error.to_string().contains("not sealed to this identity"), "{error}");
        // In another order, or without the last.
        let swapped = Chunked { objects: chunked.objects.iter().rev().copied().collect(), fresh: Vec::new(), own: Vec::new(), ..chunked };
        assert!(place.read(&place.identity, &swapped).is_err());
        let cut = Chunked { objects: swapped.objects[1..].to_vec(), fresh: Vec::new(), own: Vec::new(), ..swapped };
        assert!(place.read(&place.identity, &cut).is_err());
    }
}
