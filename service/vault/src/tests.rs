//! The vault as its callers see it.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use proptest::prelude::*;
use rand::{RngCore as _, SeedableRng as _};
use reprieve_operation::{Digest, Timestamp};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use crate::{Kind, Location, ObjectRef, Pack, Vault, VaultError, VaultKey, VaultOptions};

/// Crosses several chunks, and is more than is put together in memory once sealed.
const LARGE: usize = 3 * 1024 * 1024 + 17;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("vault")
    }

    fn options(&self) -> VaultOptions {
        VaultOptions { store: Location::File(self.root()), key: key(), max_bytes: None, s3: Default::default() }
    }

    fn vault(&self) -> Vault {
        Vault::open(&self.options()).expect("opened")
    }

    fn file_of(&self, object: &ObjectRef) -> PathBuf {
        let name = object.digest.to_string();
        self.root().join("objects").join(&name[..2]).join(&name[2..])
    }

    /// Everything in the vault's directory that is an object or wants to become one.
    fn files(&self) -> usize {
        fn count(path: &Path) -> usize {
            fs::read_dir(path).map_or(0, |entries| {
                entries.map(|entry| entry.expect("an entry").path()).map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
            })
        }
        count(&self.root().join("objects")) + count(&self.root().join("tmp"))
    }
}

fn key() -> VaultKey {
    VaultKey::from_bytes(&[7; 32])
}

/// Bytes that do not compress, the same for the same seed.
fn noise(bytes: usize, seed: u64) -> Bytes {
    let mut all = vec![0; bytes];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut all);
    all.into()
}

async fn read(vault: &Vault, object: &ObjectRef) -> Result<Bytes, VaultError> {
    vault.get_bytes(object, u64::MAX).await
}

fn is_corrupt<T>(result: Result<T, VaultError>) -> bool {
    matches!(result, Err(VaultError::Corrupt { .. }))
}

/// Gives some bytes and then fails, or never ends.
struct Interrupted {
    left: usize,
    then: Option<ErrorKind>,
}

impl AsyncRead for Interrupted {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.left == 0 {
            return self.then.map_or(Poll::Pending, |kind| Poll::Ready(Err(kind.into())));
        }
        let taken = self.left.min(into.remaining());
        // Never the same twice, or it would compress to nothing.
        into.put_slice(&noise(taken, self.left as u64));
        self.left -= taken;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_is_put_comes_back() {
    let place = Place::new();
    for vault in [place.vault(), Vault::open(&VaultOptions::new("memory:", key()).expect("options")).expect("opened")] {
        for size in [0, 1, 65_535, 65_536, 65_537, 131_072, LARGE] {
            let contents = noise(size, 1);
            let object = vault.put(&contents[..]).await.expect("put");
            assert_eq!(object.plain_bytes, size as u64);
            assert_eq!(read(&vault, &object).await.expect("read"), contents, "{size}");
            assert_eq!(vault.describe(object.digest).await.expect("described"), object);
            let mut streamed = Vec::new();
            vault.get(&object).await.expect("opened").read_to_end(&mut streamed).await.expect("read");
            assert_eq!(streamed, contents);
            assert_eq!(vault.put_bytes(contents).await.expect("put"), object, "streamed or not, it is the same object");
        }
        let repeated = vault.put_bytes(vec![b'r'; LARGE].into()).await.expect("put");
        assert!(repeated.stored_bytes < repeated.plain_bytes / 100, "it is compressed");
        assert!(matches!(vault.get_bytes(&repeated, 100).await, Err(VaultError::TooLarge { .. })));
        assert_eq!(vault.verify().await.expect("verified").good, 8);
    }
}

#[tokio::test]
async fn the_same_is_stored_once_and_again_if_it_was_damaged() {
    let place = Place::new();
    let vault = place.vault();
    let first = vault.put_bytes(noise(9000, 1)).await.expect("put");
    let before = vault.usage().await.expect("counted");
    fs::write(place.file_of(&first), b"damaged").expect("written");
    assert_eq!(vault.put_bytes(noise(9000, 1)).await.expect("put"), first);
    assert_eq!(vault.usage().await.expect("counted").stored_bytes, before.stored_bytes);
    assert_eq!(vault.usage().await.expect("counted").objects, 1);
    assert_eq!(read(&vault, &first).await.expect("whole again"), noise(9000, 1));
}

#[tokio::test]
async fn another_machine_with_the_key_reads_it_and_without_it_does_not() {
    let place = Place::new();
    let object = place.vault().put_bytes(noise(100, 1)).await.expect("put");
    assert_eq!(read(&place.vault(), &object).await.expect("read"), noise(100, 1));
    let stranger = Vault::open(&VaultOptions { key: VaultKey::from_bytes(&[8; 32]), ..place.options() }).expect("opened");
    assert!(matches!(read(&stranger, &object).await, Err(VaultError::WrongKey)));
    assert!(matches!(stranger.put_bytes(noise(1, 1)).await, Err(VaultError::WrongKey)));
    assert!(matches!(stranger.health().await, Err(VaultError::WrongKey)));
}

#[tokio::test]
async fn every_file_is_private_and_says_nothing() {
    let place = Place::new();
    let vault = place.vault();
    let object = vault.put_bytes(Bytes::from_static(b"correct horse battery")).await.expect("put");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let file = place.file_of(&object);
    assert_eq!(mode(&file), 0o600);
    for folder in [place.root(), place.root().join("objects"), place.root().join("tmp"), file.parent().expect("a folder").to_owned()] {
        assert_eq!(mode(&folder), 0o700, "{folder:?}");
    }
    let bytes = fs::read(file).expect("read");
    assert!(!bytes.windows(7).any(|window| window == b"battery"));
    assert_ne!(object.digest, Digest::of(&[b"correct horse battery"]));
}

#[tokio::test]
async fn damage_is_found() {
    let place = Place::new();
    let vault = place.vault();
    let (one, two) = (vault.put_bytes(noise(LARGE, 1)).await.expect("put"), vault.put_bytes(noise(LARGE, 2)).await.expect("put"));
    let (file, whole) = (place.file_of(&one), fs::read(place.file_of(&one)).expect("read"));
    let (header, chunk) = (crate::format::HEADER, crate::format::CHUNK + 16);
    let swapped = |a: usize, b: usize| {
        let mut bytes = whole.clone();
        bytes[header + a * chunk..header + (a + 1) * chunk].copy_from_slice(&whole[header + b * chunk..header + (b + 1) * chunk]);
        bytes[header + b * chunk..header + (b + 1) * chunk].copy_from_slice(&whole[header + a * chunk..header + (a + 1) * chunk]);
        bytes
    };
    let mut followed = whole.clone();
    followed.push(0);
    let mut repeated = whole.clone();
    repeated.splice(header..header, whole[header..header + chunk].to_vec());
    let mut spliced = whole[..header].to_vec();
    spliced.extend_from_slice(&fs::read(place.file_of(&two)).expect("read")[header..]);
    for (how, bytes) in [
        ("empty", Vec::new()),
        ("half a header", whole[..header / 2].to_vec()),
        ("only a header", whole[..header].to_vec()),
        ("cut at a chunk", whole[..header + 5 * chunk].to_vec()),
        ("cut in a chunk", whole[..header + 5 * chunk + 100].to_vec()),
        ("one byte short", whole[..whole.len() - 1].to_vec()),
        ("one byte more", followed),
        ("chunks swapped", swapped(2, 7)),
        ("chunk repeated", repeated),
        ("other chunks", spliced),
        ("another object", fs::read(place.file_of(&two)).expect("read")),
    ] {
        fs::write(&file, bytes).expect("written");
        assert!(is_corrupt(read(&vault, &one).await), "{how}");
        assert!(is_corrupt(vault.verify_one(one.digest).await), "{how}");
    }
    let verified = vault.verify().await.expect("verified");
    assert_eq!((verified.good, verified.damaged.len(), verified.damaged[0].0), (1, 1, one.digest));
    fs::write(&file, &whole).expect("written");
    assert_eq!(read(&vault, &one).await.expect("whole again"), noise(LARGE, 1));
    fs::remove_file(&file).expect("removed");
    assert!(matches!(read(&vault, &one).await, Err(VaultError::Missing(digest)) if digest == one.digest));
}

#[tokio::test]
async fn what_was_given_before_the_damage_is_authentic_and_the_end_is_an_error() {
    let place = Place::new();
    let vault = place.vault();
    let object = vault.put_bytes(noise(LARGE, 1)).await.expect("put");
    let mut bytes = fs::read(place.file_of(&object)).expect("read");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(place.file_of(&object), bytes).expect("written");
    let (mut had, mut failed) = (Vec::new(), false);
    let mut reading = vault.get(&object).await.expect("its header is good");
    while let Some(piece) = reading.next().await {
        match piece {
            Ok(piece) => had.extend_from_slice(&piece),
            Err(error) => failed = matches!(error, VaultError::Corrupt { .. }),
        }
    }
    assert!(failed && had.len() < LARGE && noise(LARGE, 1).starts_with(&had));
    let mut streamed = Vec::new();
    let error = vault.get(&object).await.expect("its header is good").read_to_end(&mut streamed).await.expect_err("an error, no end");
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_put_that_does_not_end_leaves_nothing() {
    let place = Place::new();
    let vault = place.vault();
    let failed = vault.put(Interrupted { left: LARGE, then: Some(ErrorKind::ConnectionReset) }).await;
    assert!(matches!(failed, Err(VaultError::Input(_))));
    let hung = tokio::time::timeout(std::time::Duration::from_millis(50), vault.put(Interrupted { left: LARGE, then: None })).await;
    assert!(hung.is_err());
    // The thread that sealed hears of it on its own time.
    while place.files() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(vault.usage().await.expect("counted").objects, 0);
}

#[tokio::test]
async fn what_a_crash_left_is_swept_and_what_is_being_written_is_not() {
    let place = Place::new();
    let vault = place.vault();
    vault.identity().await.expect("made");
    fs::write(place.root().join("tmp/new-crashed"), b"half an object").expect("written");
    let living = crate::spool::Temporary::new(&place.root().join("tmp")).expect("made");
    assert_eq!(place.files(), 2);
    let other = place.vault();
    assert_eq!(place.files(), 1, "the one that is being written");
    living.rename(&place.root().join("tmp/kept")).expect("still there");
    assert_eq!(other.usage().await.expect("counted").objects, 0);
}

#[tokio::test]
async fn the_bound_holds_before_it_is_passed() {
    let place = Place::new();
    let limited = |limit| Vault::open(&VaultOptions { max_bytes: Some(limit), ..place.options() }).expect("opened");
    let vault = limited(2_000_000);
    let object = vault.put_bytes(noise(1_500_000, 1)).await.expect("it fits");
    for _ in 0..2 {
        let error = vault.put_bytes(noise(600_000, 2)).await.expect_err("it does not");
        assert!(error.is_full() && !error.is_away(), "{error}");
    }
    assert!(matches!(vault.put(Interrupted { left: usize::MAX, then: None }).await, Err(VaultError::Full { limit: 2_000_000 })));
    assert_eq!(place.files(), 1);
    vault.put_bytes(noise(400_000, 3)).await.expect("it fits beside the first");
    assert!(limited(2_000_000).put_bytes(noise(400_000, 4)).await.expect_err("what was there is counted").is_full());
    vault.delete(object.digest).await.expect("removed");
    vault.put_bytes(noise(600_000, 2)).await.expect("there is room again");
    assert!(vault.usage().await.expect("counted").stored_bytes <= 2_000_000);
}

#[tokio::test]
async fn away_is_not_missing() {
    let place = Place::new();
    let vault = place.vault();
    let object = vault.put_bytes(noise(100, 1)).await.expect("put");
    vault.health().await.expect("healthy");
    let elsewhere = place.directory.path().join("elsewhere");
    // A disk that is not mounted: first no directory, then an empty one.
    fs::rename(place.root(), &elsewhere).expect("moved");
    for _ in 0..2 {
        assert!(vault.health().await.expect_err("away").is_away());
        assert!(vault.put_bytes(noise(100, 2)).await.expect_err("away").is_away());
        assert!(read(&vault, &object).await.expect_err("away").is_away());
        assert!(vault.exists(object.digest).await.expect_err("away").is_away());
        let _ = fs::create_dir(place.root());
    }
    assert_ne!(place.vault().identity().await.expect("a new vault"), vault.identity().await.expect("known"));
    fs::remove_dir_all(place.root()).expect("removed");
    fs::rename(&elsewhere, place.root()).expect("moved back");
    vault.health().await.expect("healthy again");
    assert_eq!(read(&vault, &object).await.expect("read"), noise(100, 1));
    assert!(!vault.exists(Digest([0; 32])).await.expect("asked"));
    assert!(matches!(vault.describe(Digest([0; 32])).await, Err(VaultError::Missing(_))));
}

#[tokio::test]
async fn a_vault_that_may_not_be_written_is_away() {
    let place = Place::new();
    let vault = place.vault();
    vault.identity().await.expect("made");
    // Permissions do not stop root; a file in the directory's place stops everybody.
    fs::remove_dir(place.root().join("tmp")).expect("removed");
    fs::write(place.root().join("tmp"), b"").expect("written");
    assert!(vault.health().await.expect_err("away").is_away());
    assert!(vault.put_bytes(noise(100, 1)).await.expect_err("away").is_away());
    assert!(vault.put_bytes(noise(LARGE, 1)).await.expect_err("away").is_away());
}

#[tokio::test]
async fn purging_spares_what_was_put_again() {
    let place = Place::new();
    let vault = place.vault();
    let (old, again) = (vault.put_bytes(noise(10, 1)).await.expect("put"), vault.put_bytes(noise(10, 2)).await.expect("put"));
    for object in [old, again] {
        let file = fs::File::options().write(true).open(place.file_of(&object)).expect("opened");
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1)).expect("made old");
    }
    vault.put_bytes(noise(10, 2)).await.expect("put again");
    let before = Timestamp(2000);
    let mut removed = Vec::new();
    let mut listing = vault.list().await.expect("listed");
    while let Some(stored) = listing.next().await {
        let digest = stored.expect("an entry").digest;
        if vault.delete_stored_before(digest, before).await.expect("asked") {
            removed.push(digest);
        }
    }
    assert_eq!(removed, [old.digest]);
    assert!(vault.exists(again.digest).await.expect("asked"));
    vault.delete(old.digest).await.expect("gone already");
}

#[tokio::test]
async fn entries_are_read_from_packs() {
    let place = Place::new();
    for vault in [place.vault(), Vault::open(&VaultOptions::new("memory:", key()).expect("options")).expect("opened")] {
        for (count, size) in [(1, 0), (1, 10), (3, 200_000), (5000, 300), (40, 40_000)] {
            let entry = |id: u64| noise(size + (id % 7) as usize, id + 1);
            let mut pack = Pack::new();
            for id in 0..count {
                pack.add(id * 3, &entry(id)).expect("added");
            }
            assert!(matches!(pack.add(0, b"again"), Err(VaultError::Entry { .. })));
            let object = vault.put_pack(pack).await.expect("put");
            assert_eq!(object.kind, Kind::Pack);
            let mut reader = vault.open_pack(&object).await.expect("opened");
            assert_eq!(reader.entries().len(), count as usize);
            for id in (0..count).step_by(if count > 100 { 37 } else { 1 }).chain([count - 1]) {
                assert_eq!(reader.read(id * 3).await.expect("read"), entry(id), "{count} of {size}: {id}");
                assert!(matches!(reader.read(id * 3 + 1).await, Err(VaultError::NoEntry { .. })));
            }
            assert_eq!(vault.read_entry(&object, 0).await.expect("read"), entry(0));
            vault.verify_one(object.digest).await.expect("whole");
        }
        let stream = vault.put_bytes(noise(100, 1)).await.expect("put");
        assert!(matches!(vault.open_pack(&stream).await, Err(VaultError::NotAPack(_))));
    }
}

#[tokio::test]
async fn a_damaged_pack_gives_no_wrong_entry() {
    let place = Place::new();
    let vault = place.vault();
    let mut objects = Vec::new();
    for seed in 0..2u64 {
        let mut pack = Pack::new();
        for id in 0..8 {
            pack.add(id, &noise(100_000, seed * 100 + id + 1)).expect("added");
        }
        objects.push(vault.put_pack(pack).await.expect("put"));
    }
    let whole = fs::read(place.file_of(&objects[0])).expect("read");
    for position in (0..whole.len()).step_by(24_989).chain([whole.len() - 1]) {
        let mut bytes = whole.clone();
        bytes[position] ^= 0x20;
        fs::write(place.file_of(&objects[0]), bytes).expect("written");
        assert!(is_corrupt(vault.verify_one(objects[0].digest).await));
        for id in 0..8 {
            match vault.read_entry(&objects[0], id).await {
                Ok(entry) => assert_eq!(entry, noise(100_000, id + 1)),
                Err(error) => assert!(matches!(error, VaultError::Corrupt { .. }), "{error}"),
            }
        }
    }
    fs::copy(place.file_of(&objects[1]), place.file_of(&objects[0])).expect("copied");
    assert!(is_corrupt(vault.read_entry(&objects[0], 0).await), "another pack does not open under this name");
}

#[tokio::test]
async fn references_survive_the_ledger() {
    let place = Place::new();
    let object = place.vault().put_bytes(noise(100, 1)).await.expect("put");
    assert_eq!(object, serde_roundtrip(&object));
}

fn serde_roundtrip(object: &ObjectRef) -> ObjectRef {
    serde_json::from_str(&serde_json::to_string(object).expect("written")).expect("read")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn anything_comes_back(pieces in prop::collection::vec((any::<u8>(), 0usize..200_000, any::<bool>()), 0..4)) {
        let contents: Vec<u8> = pieces
            .iter()
            .flat_map(|(byte, length, random)| if *random { noise(*length, u64::from(*byte)).to_vec() } else { vec![*byte; *length] })
            .collect();
        runtime().block_on(async {
            let vault = Place::new().vault_in_memory();
            let object = vault.put(&contents[..]).await.expect("put");
            assert_eq!(read(&vault, &object).await.expect("read"), contents);
        });
    }

    #[test]
    fn one_changed_byte_is_found(size in 0usize..150_000, position in any::<prop::sample::Index>(), flip in 1u8..=255) {
        let place = Place::new();
        runtime().block_on(async {
            let vault = place.vault();
            let object = vault.put_bytes(noise(size, 5)).await.expect("put");
            let mut bytes = fs::read(place.file_of(&object)).expect("read");
            let position = position.index(bytes.len());
            bytes[position] ^= flip;
            fs::write(place.file_of(&object), bytes).expect("written");
            assert!(is_corrupt(read(&vault, &object).await));
        });
    }
}

impl Place {
    fn vault_in_memory(&self) -> Vault {
        Vault::open(&VaultOptions { store: Location::Memory, ..self.options() }).expect("opened")
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[tokio::test]
async fn it_says_when_it_is_nearly_full() {
    let place = Place::new();
    let vault = Vault::open(&VaultOptions { max_bytes: Some(100_000), ..place.options() }).expect("opened");
    let mut random = rand::rngs::StdRng::seed_from_u64(5);
    let mut put = async |bytes: usize| {
        let mut noise = vec![0; bytes];
        random.fill_bytes(&mut noise);
        vault.put_bytes(noise.into()).await.map(drop)
    };
    put(60_000).await.expect("room");
    assert_eq!(vault.nearly_full().await.expect("an answer"), None);
    put(33_000).await.expect("room");
    assert!(vault.nearly_full().await.expect("an answer").is_some_and(|why| why.contains('%')));
    put(33_000).await.expect_err("no room");
}
