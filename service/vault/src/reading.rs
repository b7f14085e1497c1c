//! Reading an object: pieces that are authenticated as they come, and an end that is believed only after the whole.
//!
//! Every piece has opened under the object's name, position and key, so it is what was stored there. That nothing is
//! missing and that the contents have the digest they are named after is known at the end; the last piece waits for it.

use std::{
    io::{self, Read},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use reprieve_operation::Digest;
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::{mpsc, oneshot},
};

use crate::{Kind, VaultError, VaultKey, format::ChunkReader};

/// The size of the pieces.
const PIECE: usize = 128 * 1024;
/// How many pieces wait for their reader.
const PIECES_AHEAD: usize = 4;

/// The contents of an object on their way. Dropped, reading stops.
#[derive(Debug)]
pub struct Reading {
    digest: Digest,
    plain_bytes: u64,
    pieces: mpsc::Receiver<Result<Bytes, VaultError>>,
    /// What [`AsyncRead`] has not given yet.
    rest: Bytes,
    ended: bool,
}

impl Reading {
    pub(crate) async fn start(digest: Digest, key: VaultKey, source: Box<dyn Read + Send>) -> Result<Self, VaultError> {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        let (opened, opening) = oneshot::channel();
        // Ends with the object, or when its reader goes away.
        tokio::task::spawn_blocking(move || {
            let (chunks, header) = match ChunkReader::new(source, &key, digest) {
                Ok(both) => both,
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            if opened.send(Ok(header.plain_bytes)).is_err() {
                return;
            }
            let result = match header.kind {
                Kind::Stream => match zstd::Decoder::new(chunks) {
                    Ok(decoder) => give(digest, &key, header.plain_bytes, decoder, &sender),
                    Err(error) => Err(VaultError::away("read an object")(error)),
                },
                Kind::Pack | Kind::Bytes => give(digest, &key, header.plain_bytes, chunks, &sender),
            };
            if let Err(error) = result {
                let _ = sender.blocking_send(Err(error));
            }
        });
        let plain_bytes = opening.await.map_err(|error| VaultError::Away { doing: "finish a task", source: error.into() })??;
        Ok(Self { digest, plain_bytes, pieces, rest: Bytes::new(), ended: false })
    }

    /// The size of the whole contents.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// The next piece, or none after the last. After an error, what was given so far is authentic, but not everything.
    pub async fn next(&mut self) -> Option<Result<Bytes, VaultError>> {
        if self.ended {
            return None;
        }
        let piece = self.pieces.recv().await;
        self.take(piece).transpose()
    }

    /// Everything, if it is at most `limit` bytes.
    pub async fn collect(mut self, limit: u64) -> Result<Bytes, VaultError> {
        let (digest, bytes) = (self.digest, self.plain_bytes);
        let room = usize::try_from(bytes).ok().filter(|_| bytes <= limit).ok_or(VaultError::TooLarge { digest, bytes, limit })?;
        let mut all = Vec::with_capacity(room);
        while let Some(piece) = self.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all.into())
    }

    /// An empty piece is the true end; a channel without one is a thread that died.
    fn take(&mut self, piece: Option<Result<Bytes, VaultError>>) -> Result<Option<Bytes>, VaultError> {
        match piece {
            Some(Ok(piece)) if piece.is_empty() => {
                self.ended = true;
                Ok(None)
            }
            Some(Ok(piece)) => Ok(Some(piece)),
            Some(Err(error)) => {
                self.ended = true;
                Err(error)
            }
            None => {
                self.ended = true;
                Err(VaultError::Away { doing: "finish a task", source: io::Error::from(io::ErrorKind::UnexpectedEof).into() })
            }
        }
    }
}

impl AsyncRead for Reading {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_empty() && !self.ended {
            let piece = ready!(self.pieces.poll_recv(context));
            if let Some(piece) = self.take(piece).map_err(VaultError::into_io)? {
                self.rest = piece;
            }
        }
        let taken = into.remaining().min(self.rest.len());
        into.put_slice(&self.rest.split_to(taken));
        Poll::Ready(Ok(()))
    }
}

/// Gives the contents, one piece behind what has been read. Blocks.
fn give(
    digest: Digest,
    key: &VaultKey,
    plain_bytes: u64,
    mut from: impl Read,
    to: &mpsc::Sender<Result<Bytes, VaultError>>,
) -> Result<(), VaultError> {
    let corrupt = |why| VaultError::Corrupt { digest, why };
    let mut naming = key.naming();
    let (mut waiting, mut had) = (Bytes::new(), 0u64);
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        from.by_ref().take(PIECE as u64).read_to_end(&mut piece).map_err(|error| match error.kind() {
            // What zstd itself complains about; what comes from below says for itself what it is.
            io::ErrorKind::Other if error.get_ref().is_none_or(|inner| !inner.is::<VaultError>()) => corrupt("it does not unpack"),
            _ => VaultError::from_reader(error, digest),
        })?;
        if piece.is_empty() {
            break;
        }
        naming.update(&piece);
        had += piece.len() as u64;
        if had > plain_bytes {
            return Err(corrupt("it is longer than what was stored"));
        }
        let before = std::mem::replace(&mut waiting, piece.into());
        if !before.is_empty() && to.blocking_send(Ok(before)).is_err() {
            return Ok(());
        }
    }
    if had != plain_bytes || naming.digest() != digest {
        return Err(corrupt("its contents do not have its digest"));
    }
    for piece in [waiting, Bytes::new()] {
        // The empty piece says that this was the true end.
        if to.blocking_send(Ok(piece.clone())).is_err() || piece.is_empty() {
            return Ok(());
        }
    }
    Ok(())
}
