//! Packs: many small entries in one object, any of which can be read without the others.
//!
//! ```text
//! blocks   zstd frames, each with entries of about 128 KiB together
//! index    one zstd frame: how many blocks; each block's size packed and plain; each entry's id, block, place and size
//! end      the index's packed and plain size, 4 bytes each
//! ```
//!
//! Numbers are little-endian. The end is found from the header, which knows the payload's size; reading an entry takes the
//! object's header and end, and then the chunks that its block lies in.

use std::collections::HashMap;

use bytes::Bytes;
use reprieve_operation::Digest;

use crate::{
    Kind, ObjectRef, Vault, VaultError,
    format::{self, HEADER, Header},
    vault::COMPRESSION,
};

/// How much a block holds before the next begins. More packs better, less reads less for one entry.
const BLOCK: usize = 128 * 1024;
/// The largest entry: something larger is an object of its own.
const LARGEST_ENTRY: usize = 64 * 1024 * 1024;
/// The most entries: their index has to be held in memory by whoever reads one.
const MOST_ENTRIES: usize = 4 * 1024 * 1024;
/// Objects up to this size are read at once: one call instead of three.
const AT_ONCE: u64 = 256 * 1024;
/// How much of a larger object's end is read in the hope that the index is in it.
const TAIL: u64 = 128 * 1024;
const END: u64 = 8;
const BLOCK_LINE: usize = 8;
const ENTRY_LINE: usize = 20;

/// A pack in the making.
#[derive(Debug, Default)]
pub struct Pack {
    entries: HashMap<u64, Place>,
    order: Vec<u64>,
    blocks: Vec<(u32, u32)>,
    packed: Vec<u8>,
    open: Vec<u8>,
    plain_bytes: u64,
}

/// Where an entry lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    block: u32,
    start: u32,
    bytes: u32,
}

impl Pack {
    /// An empty pack.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry under an id of its own.
    pub fn add(&mut self, id: u64, bytes: &[u8]) -> Result<(), VaultError> {
        let refuse = |why| Err(VaultError::Entry { entry: id, why });
        if bytes.len() > LARGEST_ENTRY {
            return refuse("it is too large");
        }
        if self.entries.len() == MOST_ENTRIES {
            return refuse("the pack is full");
        }
        if self.entries.contains_key(&id) {
            return refuse("the pack has one of this id");
        }
        if !self.open.is_empty() && self.open.len() + bytes.len() > BLOCK {
            self.close_block(id)?;
        }
        let place = Place { block: self.blocks.len() as u32, start: self.open.len() as u32, bytes: bytes.len() as u32 };
        self.open.extend_from_slice(bytes);
        self.plain_bytes += bytes.len() as u64;
        self.entries.insert(id, place);
        self.order.push(id);
        Ok(())
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries' size: when it is time to put the pack is the caller's choice. Memory holds them packed.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    fn close_block(&mut self, id: u64) -> Result<(), VaultError> {
        let packed =
            zstd::bulk::compress(&self.open, COMPRESSION).map_err(|_| VaultError::Entry { entry: id, why: "zstd cannot pack it" })?;
        self.blocks.push((packed.len() as u32, self.open.len() as u32));
        self.packed.extend_from_slice(&packed);
        self.open.clear();
        Ok(())
    }

    fn into_payload(mut self) -> Result<Vec<u8>, VaultError> {
        if !self.open.is_empty() {
            self.close_block(self.order.last().copied().unwrap_or_default())?;
        }
        let mut index = Vec::with_capacity(4 + self.blocks.len() * BLOCK_LINE + self.order.len() * ENTRY_LINE);
        index.extend_from_slice(&(self.blocks.len() as u32).to_le_bytes());
        for (packed, plain) in &self.blocks {
            index.extend_from_slice(&packed.to_le_bytes());
            index.extend_from_slice(&plain.to_le_bytes());
        }
        for id in &self.order {
            let place = self.entries[id];
            index.extend_from_slice(&id.to_le_bytes());
            for number in [place.block, place.start, place.bytes] {
                index.extend_from_slice(&number.to_le_bytes());
            }
        }
        let packed = zstd::bulk::compress(&index, COMPRESSION).map_err(VaultError::Input)?;
        self.packed.extend_from_slice(&packed);
        self.packed.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        self.packed.extend_from_slice(&(index.len() as u32).to_le_bytes());
        Ok(self.packed)
    }
}

impl Vault {
    /// Puts a pack. Durable when this returns.
    pub async fn put_pack(&self, pack: Pack) -> Result<ObjectRef, VaultError> {
        let payload = crate::backend::blocking(move || pack.into_payload()).await?;
        self.put_as(Kind::Pack, payload.into(), None).await
    }

    /// Opens a pack to read entries from it.
    pub async fn open_pack(&self, object: &ObjectRef) -> Result<PackReader, VaultError> {
        PackReader::open(self.clone(), object).await
    }

    /// Reads one entry of a pack.
    pub async fn read_entry(&self, object: &ObjectRef, entry: u64) -> Result<Bytes, VaultError> {
        self.open_pack(object).await?.read(entry).await
    }
}

/// An opened pack: its index in memory, its blocks read when they are asked for.
pub struct PackReader {
    vault: Vault,
    digest: Digest,
    header: Header,
    /// The payload from here to its end is in memory.
    tail: (u64, Bytes),
    blocks: Vec<Block>,
    places: Vec<(u64, Place)>,
    by_id: HashMap<u64, usize>,
    /// The block read last: entries are mostly read in the order they were added.
    last: Option<(u32, Bytes)>,
}

#[derive(Debug, Clone, Copy)]
struct Block {
    start: u64,
    packed: u32,
    plain: u32,
}

impl PackReader {
    async fn open(vault: Vault, object: &ObjectRef) -> Result<Self, VaultError> {
        vault.identity().await?;
        let digest = object.digest;
        let corrupt = |why| VaultError::Corrupt { digest, why };
        let stored = object.stored_bytes;
        let first = if stored <= AT_ONCE { stored } else { HEADER as u64 };
        let mut wanted: Vec<_> = std::iter::once(0..first).collect();
        if first < stored {
            wanted.push(format::chunk_start(stored.saturating_sub(TAIL))..stored);
        }
        let parts = vault.ranges(digest, wanted.clone()).await?;
        let head = parts.first().filter(|part| part.len() >= HEADER).ok_or(corrupt("it ends too early"))?;
        let mut bytes = [0; HEADER];
        bytes.copy_from_slice(&head[..HEADER]);
        let header = Header::open(&bytes, vault.key(), digest)?;
        if header.kind != Kind::Pack {
            return Err(VaultError::NotAPack(digest));
        }
        if header.stored_bytes() != stored {
            // Put again since by another version, it may be packed otherwise.
            let object = vault.describe(digest).await?;
            if object.stored_bytes == stored {
                return Err(corrupt("its size is not what was stored"));
            }
            return Box::pin(Self::open(vault, &object)).await;
        }
        let (tail_at, sealed) = match parts.get(1) {
            Some(part) => (wanted[1].start, part.clone()),
            None => (HEADER as u64, head.slice(HEADER..)),
        };
        let start = format::payload_at(tail_at);
        let tail = header.open_range(&(start..header.payload_bytes), &sealed, digest)?;
        let mut reader = Self {
            vault,
            digest,
            header,
            tail: (start, tail.into()),
            blocks: Vec::new(),
            places: Vec::new(),
            by_id: HashMap::new(),
            last: None,
        };
        reader.read_index().await?;
        Ok(reader)
    }

    async fn read_index(&mut self) -> Result<(), VaultError> {
        let wrong = VaultError::Corrupt { digest: self.digest, why: "its index makes no sense" };
        let payload = self.header.payload_bytes;
        let Some(end) = payload.checked_sub(END) else { return Err(wrong) };
        let sizes = self.payload(end..payload).await?;
        let (packed, plain) = (u64::from(number(&sizes, 0)), number(&sizes, 4) as usize);
        let Some(start) = end.checked_sub(packed) else { return Err(wrong) };
        if plain > 4 + MOST_ENTRIES * (BLOCK_LINE + ENTRY_LINE) {
            return Err(wrong);
        }
        let packed = self.payload(start..end).await?;
        let index =
            zstd::bulk::decompress(&packed, plain).map_err(|_| VaultError::Corrupt { digest: self.digest, why: "it does not unpack" })?;
        let Some(lines) = index.get(4..) else { return Err(wrong) };
        let block_lines = number(&index, 0) as usize * BLOCK_LINE;
        if index.len() != plain || block_lines > lines.len() || !(lines.len() - block_lines).is_multiple_of(ENTRY_LINE) {
            return Err(wrong);
        }
        let (blocks, entries) = lines.split_at(block_lines);
        let mut at = 0;
        for line in blocks.chunks_exact(BLOCK_LINE) {
            let block = Block { start: at, packed: number(line, 0), plain: number(line, 4) };
            at += u64::from(block.packed);
            self.blocks.push(block);
        }
        for line in entries.chunks_exact(ENTRY_LINE) {
            let id = u64::from(number(line, 0)) | u64::from(number(line, 4)) << 32;
            let place = Place { block: number(line, 8), start: number(line, 12), bytes: number(line, 16) };
            let fits = |block: &Block| u64::from(place.start) + u64::from(place.bytes) <= u64::from(block.plain);
            // An entry without bytes may stand after the last block.
            let fits = self.blocks.get(place.block as usize).map_or(place.bytes == 0, fits);
            if !fits || self.by_id.insert(id, self.places.len()).is_some() {
                return Err(wrong);
            }
            self.places.push((id, place));
        }
        if at != start {
            return Err(wrong);
        }
        Ok(())
    }

    /// The entries' ids and sizes, in the order they were added.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (u64, usize)> {
        self.places.iter().map(|(id, place)| (*id, place.bytes as usize))
    }

    /// Reads an entry.
    pub async fn read(&mut self, entry: u64) -> Result<Bytes, VaultError> {
        let index = *self.by_id.get(&entry).ok_or(VaultError::NoEntry { digest: self.digest, entry })?;
        let place = self.places[index].1;
        if place.bytes == 0 {
            return Ok(Bytes::new());
        }
        let block = match &self.last {
            Some((number, block)) if *number == place.block => block.clone(),
            _ => {
                let block = self.block(self.blocks[place.block as usize]).await?;
                self.last = Some((place.block, block.clone()));
                block
            }
        };
        Ok(block.slice(place.start as usize..place.start as usize + place.bytes as usize))
    }

    async fn block(&self, block: Block) -> Result<Bytes, VaultError> {
        let corrupt = || VaultError::Corrupt { digest: self.digest, why: "it does not unpack" };
        let packed = self.payload(block.start..block.start + u64::from(block.packed)).await?;
        let plain = zstd::bulk::decompress(&packed, block.plain as usize).map_err(|_| corrupt())?;
        if plain.len() == block.plain as usize { Ok(plain.into()) } else { Err(corrupt()) }
    }

    async fn payload(&self, range: std::ops::Range<u64>) -> Result<Bytes, VaultError> {
        if range.start >= self.tail.0 {
            let at = |position: u64| usize::try_from(position - self.tail.0).unwrap_or(usize::MAX).min(self.tail.1.len());
            return Ok(self.tail.1.slice(at(range.start)..at(range.end)));
        }
        let parts = self.vault.ranges(self.digest, vec![self.header.stored_range(&range)]).await?;
        let sealed = parts.first().ok_or(VaultError::Corrupt { digest: self.digest, why: "it ends too early" })?;
        self.header.open_range(&range, sealed, self.digest).map(Into::into)
    }
}

impl std::fmt::Debug for PackReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackReader").field("digest", &self.digest).field("entries", &self.places.len()).finish_non_exhaustive()
    }
}

/// The number at a place that is known to be there; zero where it is not, which no check of the index lets pass.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
}
