//! Sealing: a stream, compressed and encrypted to public keys (age), cut into objects of the vault.
//!
//! Whoever copies holds public keys only. What opens a copy is the identity of whoever restores: the drill's, and one that the
//! owners keep elsewhere. The objects are named by their contents; their order is in the manifest.

use std::{
    io::{self, Read, Write},
    str::FromStr as _,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use age::{secrecy::ExposeSecret as _, x25519};
use bytes::Bytes;
use reprieve_vault::{ObjectRef, Vault};
use tokio::runtime::Handle;

use crate::RecoveryError;

/// The size of the objects a stream is cut into.
const OBJECT_BYTES: usize = 16 << 20;
/// Objects on their way to or from the vault.
const OBJECTS_AHEAD: usize = 2;
/// Fast rather than small: a copy should take hardly longer than reading it.
const COMPRESSION: i32 = 1;
/// Pieces between compressing and encrypting.
const PIECE: usize = 256 * 1024;

/// To whom copies are sealed.
#[derive(Debug, Clone)]
pub struct Recipients(Vec<x25519::Recipient>);

impl Recipients {
    /// Reads `age1…` keys; at least one.
    pub fn parse(keys: &[String]) -> Result<Self, RecoveryError> {
        let wrong = |key: &String| RecoveryError::Key(format!("`{key}` is not an age recipient (`age1…`)"));
        let keys = keys.iter().map(|key| x25519::Recipient::from_str(key.trim()).map_err(|_| wrong(key))).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(RecoveryError::Key("copies are sealed to nobody: name a recipient".to_owned())) } else { Ok(Self(keys)) }
    }

    /// The keys as text.
    #[must_use]
    pub fn as_text(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    fn wrap<W: Write>(&self, into: W) -> Result<age::stream::StreamWriter<W>, RecoveryError> {
        let recipients = self.0.iter().map(|key| key as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients).map_err(|error| RecoveryError::Key(error.to_string()))?;
        encryptor.wrap_output(into).map_err(RecoveryError::file("seal a copy"))
    }
}

/// What opens copies. Prints as `***`.
pub struct DrillKey(x25519::Identity);

impl DrillKey {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(x25519::Identity::generate())
    }

    /// Reads `AGE-SECRET-KEY-1…`.
    pub fn parse(text: &str) -> Result<Self, RecoveryError> {
        let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
        let key = x25519::Identity::from_str(line)
            .map_err(|_| RecoveryError::Key("this is not an age identity (`AGE-SECRET-KEY-1…`)".to_owned()))?;
        Ok(Self(key))
    }

    /// The private text, for the one moment it is stored.
    #[must_use]
    pub fn reveal(&self) -> String {
        self.0.to_string().expose_secret().to_owned()
    }

    /// The public half.
    #[must_use]
    pub fn recipient(&self) -> String {
        self.0.to_public().to_string()
    }
}

impl std::fmt::Debug for DrillKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DrillKey(***)")
    }
}

/// What a stream became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) objects: Vec<ObjectRef>,
    pub(crate) plain_bytes: u64,
}

/// Puts everything that `from` gives into the vault. Blocks. A third of the work each is done on its own thread: compressing,
/// encrypting, storing.
pub(crate) fn seal(vault: &Vault, handle: &Handle, recipients: &Recipients, mut from: impl Read) -> Result<Sealed, RecoveryError> {
    thread::scope(|scope| {
        let (compressed, encrypting) = sync_channel::<Vec<u8>>(8);
        let (cut, storing) = sync_channel::<Bytes>(OBJECTS_AHEAD);
        let encrypted = scope.spawn(move || -> Result<(), RecoveryError> {
            let mut into = recipients.wrap(Cutter { into: cut, piece: Vec::with_capacity(OBJECT_BYTES) })?;
            for piece in encrypting {
                into.write_all(&piece).map_err(RecoveryError::file("seal a copy"))?;
            }
            let mut cutter = into.finish().map_err(RecoveryError::file("seal a copy"))?;
            cutter.cut().map_err(RecoveryError::file("seal a copy"))
        });
        let stored = scope.spawn(move || -> Result<Vec<ObjectRef>, RecoveryError> {
            storing.into_iter().map(|piece| Ok(handle.block_on(vault.put_bytes(piece))?)).collect()
        });
        let compress = || -> Result<u64, RecoveryError> {
            let hand = Hand(compressed);
            let mut into = zstd::Encoder::new(hand, COMPRESSION).map_err(RecoveryError::file("compress a copy"))?;
            let plain_bytes = io::copy(&mut from, &mut into).map_err(RecoveryError::file("read what is copied"))?;
            into.finish().map_err(RecoveryError::file("compress a copy"))?;
            Ok(plain_bytes)
        };
        let plain_bytes = compress();
        let encrypted = encrypted.join().unwrap_or_else(|_| Err(RecoveryError::Damaged("sealing ended by a bug".to_owned())));
        let objects = stored.join().unwrap_or_else(|_| Err(RecoveryError::Damaged("storing ended by a bug".to_owned())));
        // What went wrong last in the chain is why what comes before it could not go on.
        let objects = objects?;
        encrypted?;
        Ok(Sealed { objects, plain_bytes: plain_bytes? })
    })
}

/// Gives what was compressed to the next thread.
struct Hand(SyncSender<Vec<u8>>);

impl Write for Hand {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.chunks(PIECE) {
            self.0.send(piece.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Cuts what is written into objects.
struct Cutter {
    into: SyncSender<Bytes>,
    piece: Vec<u8>,
}

impl Cutter {
    fn cut(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(OBJECT_BYTES));
        self.into.send(piece.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Cutter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(OBJECT_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == OBJECT_BYTES {
            self.cut()?;
        }
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a sealed stream and hands it to `use_it` as a reader. Every object is checked against its name, the whole against its
/// end: a reader that comes to the end has read all of it.
pub(crate) fn unseal<T>(
    vault: &Vault,
    handle: &Handle,
    key: &DrillKey,
    objects: &[ObjectRef],
    use_it: impl FnOnce(&mut dyn Read) -> Result<T, RecoveryError>,
) -> Result<T, RecoveryError> {
    thread::scope(|scope| {
        let (fetched, opening) = sync_channel::<Bytes>(OBJECTS_AHEAD);
        let fetching = scope.spawn(move || -> Result<(), RecoveryError> {
            for object in objects {
                let piece = handle.block_on(vault.get_bytes(object, OBJECT_BYTES as u64))?;
                if fetched.send(piece).is_err() {
                    break;
                }
            }
            Ok(())
        });
        let used = open(key, Joined { from: opening, piece: Bytes::new() }).and_then(|mut reader| use_it(&mut reader));
        let fetched = fetching.join().unwrap_or_else(|_| Err(RecoveryError::Damaged("fetching ended by a bug".to_owned())));
        // A reader that ended early did so because of what could not be fetched.
        fetched?;
        used
    })
}

fn open<R: Read>(key: &DrillKey, from: R) -> Result<impl Read + use<R>, RecoveryError> {
    let wrong = |error: age::DecryptError| match error {
        age::DecryptError::NoMatchingKeys => RecoveryError::Key("the copy is not sealed to this identity".to_owned()),
        error => RecoveryError::Damaged(format!("the copy can't be opened: {error}")),
    };
    let decryptor = age::Decryptor::new_buffered(io::BufReader::new(from)).map_err(wrong)?;
    let reader = decryptor.decrypt(std::iter::once(&key.0 as &dyn age::Identity)).map_err(wrong)?;
    zstd::Decoder::new(reader).map_err(RecoveryError::file("open the copy"))
}

/// Objects as one stream.
struct Joined {
    from: Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Joined {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            match self.from.recv() {
                Ok(piece) => self.piece = piece,
                Err(_) => return Ok(0),
            }
        }
        let taken = into.len().min(self.piece.len());
        into[..taken].copy_from_slice(&self.piece.split_to(taken));
        Ok(taken)
    }
}

/// Seals what is in memory.
pub(crate) fn seal_bytes(recipients: &Recipients, bytes: &[u8]) -> Result<Vec<u8>, RecoveryError> {
    let sealing = || RecoveryError::file("seal a part of the write-ahead log");
    let compressed = zstd::encode_all(bytes, COMPRESSION).map_err(sealing())?;
    let mut sealed = Vec::with_capacity(compressed.len() + 1024);
    let mut into = recipients.wrap(&mut sealed)?;
    into.write_all(&compressed).map_err(sealing())?;
    into.finish().map_err(sealing())?;
    Ok(sealed)
}

/// Opens what [`seal_bytes`] made.
pub(crate) fn open_bytes<'a>(key: &DrillKey, sealed: &'a [u8]) -> Result<impl Read + use<'a>, RecoveryError> {
    open(key, sealed)
}
