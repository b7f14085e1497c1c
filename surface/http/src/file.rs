//! Files on their way to a service: too large to be kept in memory, written to a temporary file as they come, and sent from there.
//!
//! They are read to their end before anything is decided, as every request is: the digest of all of it is what people approve, and what
//! the gateway signs. The temporary file has no name, so that it goes with the process.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reprieve_effects_http::Chunks;
use sha2::{Digest as _, Sha256};
use tokio::task::{JoinHandle, spawn_blocking};

/// How much of a file is in memory at a time.
const PIECE: usize = 256 << 10;

/// A file that lies here, whole.
#[derive(Debug)]
pub(crate) struct Spooled {
    file: File,
    pub(crate) bytes: u64,
    /// In hexadecimal.
    pub(crate) sha256: String,
}

impl PartialEq for Spooled {
    fn eq(&self, other: &Self) -> bool {
        (self.bytes, &self.sha256) == (other.bytes, &other.sha256)
    }
}

/// A file that is being written.
pub(crate) struct Spool {
    written: Written,
    waiting: Vec<u8>,
    chunks: Option<Chunks>,
    /// The most that is taken.
    limit: u64,
}

struct Written {
    file: File,
    bytes: u64,
    digest: Sha256,
}

/// Why a file could not be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    #[error("{0}")]
    Broken(String),
    #[error("it can't be kept here")]
    Io(#[from] io::Error),
}

impl Spool {
    /// A new one, whose heads of chunks are taken off if `chunked`.
    pub(crate) fn new(limit: u64, chunked: bool) -> io::Result<Self> {
        let written = Written { file: tempfile::tempfile()?, bytes: 0, digest: Sha256::new() };
        Ok(Self { written, waiting: Vec::new(), chunks: chunked.then(Chunks::default), limit })
    }

    /// Takes a piece.
    pub(crate) async fn push(mut self, piece: &[u8]) -> Result<Self, SpoolError> {
        match &mut self.chunks {
            Some(chunks) => chunks.push(piece, &mut self.waiting).map_err(SpoolError::Broken)?,
            None => self.waiting.extend_from_slice(piece),
        }
        if self.written.bytes + self.waiting.len() as u64 > self.limit {
            return Err(SpoolError::TooLarge(self.limit));
        }
        if self.waiting.len() >= PIECE { self.write().await } else { Ok(self) }
    }

    /// The end: the file, and the headers that followed its chunks.
    pub(crate) async fn finish(self) -> Result<(Spooled, Vec<(String, String)>), SpoolError> {
        let Self { written, chunks, .. } = self.write().await?;
        let trailer = chunks.map(Chunks::finish).transpose().map_err(SpoolError::Broken)?.unwrap_or_default();
        let sha256 = written.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((Spooled { file: written.file, bytes: written.bytes, sha256 }, trailer))
    }

    async fn write(self) -> Result<Self, SpoolError> {
        let Self { mut written, mut waiting, chunks, limit } = self;
        let (written, waiting) = spawn_blocking(move || {
            written.file.write_all(&waiting)?;
            written.digest.update(&waiting);
            written.bytes += waiting.len() as u64;
            waiting.clear();
            Ok::<_, io::Error>((written, waiting))
        })
        .await
        .map_err(io::Error::other)??;
        Ok(Self { written, waiting, chunks, limit })
    }
}

/// A body on its way to a service.
pub(crate) enum Outgoing {
    /// All of it.
    Whole(Option<Bytes>),
    /// A file, a piece at a time.
    File { file: Arc<Spooled>, at: u64, reading: Option<JoinHandle<io::Result<Bytes>>> },
}

impl Outgoing {
    pub(crate) fn new(body: &Bytes, file: Option<&Arc<Spooled>>) -> Self {
        match file {
            Some(file) => Self::File { file: file.clone(), at: 0, reading: None },
            None => Self::Whole(Some(body.clone()).filter(|body| !body.is_empty())),
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let (file, at, reading) = match self.get_mut() {
            Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::File { file, at, .. } if *at >= file.bytes => return Poll::Ready(None),
            Self::File { file, at, reading } => (file, at, reading),
        };
        let running = reading.get_or_insert_with(|| {
            let (file, from) = (file.clone(), *at);
            spawn_blocking(move || {
                let left = usize::try_from(file.bytes - from).unwrap_or(PIECE);
                let mut piece = vec![0; PIECE.min(left)];
                file.file.read_exact_at(&mut piece, from)?;
                Ok(piece.into())
            })
        });
        let Poll::Ready(read) = Pin::new(running).poll(context) else { return Poll::Pending };
        *reading = None;
        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Ok(piece) = &read {
            *at += piece.len() as u64;
        }
        Poll::Ready(Some(read.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::File { file, at, .. } => *at >= file.bytes,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, Bytes::len) as u64,
            Self::File { file, at, .. } => file.bytes.saturating_sub(*at),
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn spooled(pieces: &[&[u8]], limit: u64, chunked: bool) -> Result<(Spooled, Vec<(String, String)>), SpoolError> {
        let mut spool = Spool::new(limit, chunked)?;
        for piece in pieces {
            spool = spool.push(piece).await?;
        }
        spool.finish().await
    }

    #[tokio::test]
    async fn what_comes_in_goes_out() {
        let large: Vec<u8> = (0..1_000_000u32).map(|number| number.to_le_bytes()[0]).collect();
        let (file, trailer) = spooled(&[&large[..300_000], &large[300_000..]], 1 << 20, false).await.expect("spooled");
        assert_eq!((file.bytes, file.sha256.as_str(), trailer.len()), (1_000_000, sha256(&large).as_str(), 0));
        let file = Arc::new(file);
        // Twice: a request may have to be sent again on another connection.
        for _ in 0..2 {
            let outgoing = Outgoing::new(&Bytes::new(), Some(&file));
            assert_eq!(outgoing.size_hint().exact(), Some(1_000_000));
            assert_eq!(outgoing.collect().await.expect("read").to_bytes(), large);
        }
        let chunks: [&[u8]; 2] = [b"5;chunk-signature=ab\r\nhel", b"lo\r\n0\r\nx-amz-checksum-crc32:a\r\n\r\n"];
        let (file, trailer) = spooled(&chunks, 5, true).await.expect("spooled");
        assert_eq!((file.bytes, file.sha256.as_str(), trailer.len()), (5, sha256(b"hello").as_str(), 1));
    }

    #[tokio::test]
    async fn what_is_too_large_or_broken_is_not_taken() {
        assert!(matches!(spooled(&[b"hello!"], 5, false).await, Err(SpoolError::TooLarge(5))));
        assert!(matches!(spooled(&[b"5\r\nhel"], 5, true).await, Err(SpoolError::Broken(_))));
        assert!(matches!(spooled(&[b"6\r\nhello!\r\n0\r\n\r\n"], 5, true).await, Err(SpoolError::TooLarge(5))));
    }

    fn sha256(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
