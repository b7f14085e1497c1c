//! An object's bytes: a header that opens only under the object's name, and the contents in authenticated chunks.
//!
//! ```text
//! header   8 bytes magic, 24 bytes nonce, then wrapped: the object's own key, both sizes, the codec (and a 16 byte tag)
//! chunks   64 KiB of payload each, the last one shorter, each with a 16 byte tag
//! ```
//!
//! The wrapping (XChaCha20-Poly1305 under the vault's key) is bound to the digest, so an object under another's name does
//! not open at all. The chunks are STREAM over ChaCha20-Poly1305 under the object's own random key: each knows its position
//! and whether it is the last, so that a cut, reordered or spliced object is an error at the first wrong chunk.
//! The payload is the contents, as one zstd frame if the codec says so.

use std::{
    io::{self, Read, Write},
    ops::Range,
};

use chacha20poly1305::{
    ChaCha20Poly1305, Key, KeyInit as _, XNonce,
    aead::{
        AeadInPlace as _, Payload,
        generic_array::GenericArray,
        stream::{NewStream as _, StreamBE32, StreamPrimitive as _},
    },
};
use rand::{RngCore as _, rngs::OsRng};
use reprieve_operation::Digest;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{VaultError, VaultKey, object::Kind};

/// The header's size.
pub(crate) const HEADER: usize = 8 + 24 + WRAPPED + TAG;
/// How much payload a chunk has.
pub(crate) const CHUNK: usize = 64 * 1024;
/// What authenticating a piece adds to it.
const TAG: usize = 16;
/// The key, two sizes, the kind.
const WRAPPED: usize = 32 + 8 + 8 + 8;
const MAGIC: &[u8; 8] = b"RPVAULT1";

type Chunks = StreamBE32<ChaCha20Poly1305>;

/// An object's own key. A new one for each writing, so chunk nonces need no randomness.
pub(crate) struct ObjectKey(Zeroizing<[u8; 32]>);

impl ObjectKey {
    fn random() -> Self {
        let mut key = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(key.as_mut_slice());
        Self(key)
    }

    fn chunks(&self) -> Chunks {
        Chunks::from_aead(ChaCha20Poly1305::new(Key::from_slice(self.0.as_slice())), GenericArray::from_slice(&[0; 7]))
    }
}

/// What a header says, once it has been opened.
pub(crate) struct Header {
    key: ObjectKey,
    pub(crate) kind: Kind,
    pub(crate) plain_bytes: u64,
    pub(crate) payload_bytes: u64,
}

impl Header {
    /// The header's bytes for the object named `digest`.
    pub(crate) fn seal(&self, vault: &VaultKey, digest: &Digest) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        OsRng.fill_bytes(&mut bytes[8..32]);
        let mut wrapped = Zeroizing::new([0u8; WRAPPED]);
        wrapped[..32].copy_from_slice(self.key.0.as_slice());
        wrapped[32..40].copy_from_slice(&self.plain_bytes.to_le_bytes());
        wrapped[40..48].copy_from_slice(&self.payload_bytes.to_le_bytes());
        wrapped[48] = match self.kind {
            Kind::Stream => 0,
            Kind::Pack => 1,
            Kind::Bytes => 2,
        };
        let tag = vault
            .wrapping()
            .encrypt_in_place_detached(XNonce::from_slice(&bytes[8..32]), &digest.0, wrapped.as_mut_slice())
            .expect("a header is far below the cipher's limit");
        bytes[32..32 + WRAPPED].copy_from_slice(wrapped.as_slice());
        bytes[32 + WRAPPED..].copy_from_slice(&tag);
        bytes
    }

    /// Opens the header of the object named `digest`.
    pub(crate) fn open(bytes: &[u8; HEADER], vault: &VaultKey, digest: Digest) -> Result<Self, VaultError> {
        let corrupt = |why| VaultError::Corrupt { digest, why };
        if &bytes[..8] != MAGIC {
            return Err(corrupt("it does not begin like an object of the vault"));
        }
        let mut wrapped = Zeroizing::new([0u8; WRAPPED]);
        wrapped.copy_from_slice(&bytes[32..32 + WRAPPED]);
        vault
            .wrapping()
            .decrypt_in_place_detached(
                XNonce::from_slice(&bytes[8..32]),
                &digest.0,
                wrapped.as_mut_slice(),
                GenericArray::from_slice(&bytes[32 + WRAPPED..]),
            )
            .map_err(|_| corrupt("its header does not open under its name"))?;
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&wrapped[..32]);
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&wrapped[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let kind = match wrapped[48] {
            0 => Kind::Stream,
            1 => Kind::Pack,
            2 => Kind::Bytes,
            _ => return Err(corrupt("it is of a kind this version does not know")),
        };
        Ok(Self { key: ObjectKey(key), kind, plain_bytes: number(32), payload_bytes: number(40) })
    }

    /// The object's size in the storage.
    pub(crate) fn stored_bytes(&self) -> u64 {
        HEADER as u64 + self.payload_bytes + self.chunk_count() * TAG as u64
    }

    fn chunk_count(&self) -> u64 {
        self.payload_bytes.div_ceil(CHUNK as u64).max(1)
    }

    /// The chunks that hold a part of the payload.
    fn chunks_of(&self, payload: &Range<u64>) -> Range<u64> {
        let last = self.chunk_count();
        (payload.start / CHUNK as u64).min(last)..payload.end.div_ceil(CHUNK as u64).min(last)
    }

    /// Where in the object's bytes a part of the payload lies.
    pub(crate) fn stored_range(&self, payload: &Range<u64>) -> Range<u64> {
        let chunks = self.chunks_of(payload);
        let at = |chunk: u64| (HEADER as u64 + chunk * (CHUNK + TAG) as u64).min(self.stored_bytes());
        at(chunks.start)..at(chunks.end)
    }

    /// The part of the payload that `stored` (the bytes at [`Self::stored_range`]) holds.
    pub(crate) fn open_range(&self, payload: &Range<u64>, stored: &[u8], digest: Digest) -> Result<Vec<u8>, VaultError> {
        let corrupt = |why| VaultError::Corrupt { digest, why };
        let wanted = self.stored_range(payload);
        if payload.end > self.payload_bytes || stored.len() as u64 != wanted.end - wanted.start {
            return Err(corrupt("it ends too early"));
        }
        let cipher = self.key.chunks();
        let chunks = self.chunks_of(payload);
        let mut plain = Vec::with_capacity(stored.len());
        for (position, piece) in chunks.clone().zip(stored.chunks(CHUNK + TAG)) {
            plain.extend_from_slice(&open_chunk(&cipher, position, position + 1 == self.chunk_count(), piece, digest)?);
        }
        let skip = usize::try_from(payload.start - chunks.start * CHUNK as u64).map_err(|_| corrupt("it is too large"))?;
        let length = usize::try_from(payload.end - payload.start).map_err(|_| corrupt("it is too large"))?;
        plain.drain(..skip.min(plain.len()));
        plain.truncate(length);
        Ok(plain)
    }
}

/// The beginning of the chunk that a byte of a stored object lies in.
pub(crate) fn chunk_start(stored: u64) -> u64 {
    let past = stored.saturating_sub(HEADER as u64);
    HEADER as u64 + past - past % (CHUNK + TAG) as u64
}

/// Where in the payload the chunk begins that begins here in the stored object.
pub(crate) fn payload_at(chunk_start: u64) -> u64 {
    chunk_start.saturating_sub(HEADER as u64) / (CHUNK + TAG) as u64 * CHUNK as u64
}

fn open_chunk(cipher: &Chunks, position: u64, last: bool, bytes: &[u8], digest: Digest) -> Result<Vec<u8>, VaultError> {
    let position = u32::try_from(position).map_err(|_| VaultError::Corrupt { digest, why: "it is too large" })?;
    cipher
        .decrypt(position, last, Payload::from(bytes))
        .map_err(|_| VaultError::Corrupt { digest, why: "a chunk is not what was stored there" })
}

/// Writes a payload as chunks. Dropped before [`Self::finish`], it leaves an object without an end, which never opens.
pub(crate) struct ChunkWriter<W: Write> {
    cipher: Chunks,
    key: ObjectKey,
    position: u32,
    buffer: Vec<u8>,
    payload_bytes: u64,
    to: W,
}

impl<W: Write> ChunkWriter<W> {
    /// Leaves room for the header, which [`Header::seal`] makes when the name is known.
    pub(crate) fn new(mut to: W) -> io::Result<Self> {
        to.write_all(&[0; HEADER])?;
        let key = ObjectKey::random();
        Ok(Self { cipher: key.chunks(), key, position: 0, buffer: Vec::with_capacity(CHUNK + TAG), payload_bytes: 0, to })
    }

    /// Writes the last chunk.
    pub(crate) fn finish(mut self, kind: Kind, plain_bytes: u64) -> io::Result<(W, Header)> {
        self.write_chunk(true)?;
        Ok((self.to, Header { key: self.key, kind, plain_bytes, payload_bytes: self.payload_bytes }))
    }

    fn write_chunk(&mut self, last: bool) -> io::Result<()> {
        self.cipher
            .encrypt_in_place(self.position, last, b"", &mut self.buffer)
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "the cipher's limit"))?;
        self.to.write_all(&self.buffer)?;
        self.buffer.clear();
        if !last {
            self.position = self.position.checked_add(1).ok_or(io::ErrorKind::FileTooLarge)?;
        }
        Ok(())
    }
}

impl<W: Write> Write for ChunkWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits for the next byte: until then it may be the last.
        if self.buffer.len() == CHUNK && !bytes.is_empty() {
            self.write_chunk(false)?;
        }
        let taken = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        self.payload_bytes += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a payload from its chunks. What it gives has been authenticated; its end is the true end or an error.
pub(crate) struct ChunkReader<R: Read> {
    cipher: Chunks,
    digest: Digest,
    next: u64,
    count: u64,
    payload_left: u64,
    buffer: Vec<u8>,
    given: usize,
    from: R,
}

impl<R: Read> ChunkReader<R> {
    /// Reads and opens the header.
    pub(crate) fn new(mut from: R, vault: &VaultKey, digest: Digest) -> Result<(Self, Header), VaultError> {
        let mut bytes = [0; HEADER];
        from.read_exact(&mut bytes).map_err(|error| VaultError::from_reader(error, digest))?;
        let header = Header::open(&bytes, vault, digest)?;
        let reader = Self {
            cipher: header.key.chunks(),
            digest,
            next: 0,
            count: header.chunk_count(),
            payload_left: header.payload_bytes,
            buffer: Vec::new(),
            given: 0,
            from,
        };
        Ok((reader, header))
    }

    fn read_chunk(&mut self) -> Result<(), VaultError> {
        let payload = self.payload_left.min(CHUNK as u64);
        let mut stored = vec![0; payload as usize + TAG];
        self.from.read_exact(&mut stored).map_err(|error| VaultError::from_reader(error, self.digest))?;
        let last = self.next + 1 == self.count;
        self.buffer.zeroize();
        self.buffer = open_chunk(&self.cipher, self.next, last, &stored, self.digest)?;
        self.given = 0;
        self.next += 1;
        self.payload_left -= payload;
        if last && self.from.read(&mut [0]).map_err(|error| VaultError::from_reader(error, self.digest))? != 0 {
            return Err(VaultError::Corrupt { digest: self.digest, why: "something follows its end" });
        }
        Ok(())
    }
}

impl<R: Read> Read for ChunkReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.given == self.buffer.len() {
            if self.next == self.count {
                return Ok(0);
            }
            self.read_chunk().map_err(VaultError::into_io)?;
        }
        let taken = into.len().min(self.buffer.len() - self.given);
        into[..taken].copy_from_slice(&self.buffer[self.given..self.given + taken]);
        self.given += taken;
        Ok(taken)
    }
}
