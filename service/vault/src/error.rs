//! Why the vault could not do what was asked. The kinds differ in what the caller has to do.

use std::{error::Error, io};

use reprieve_operation::Digest;
use thiserror::Error;

/// Why the vault could not do what was asked.
#[derive(Debug, Error)]
pub enum VaultError {
    /// The storage cannot be reached or refuses us: try again, and hold what depends on it meanwhile.
    #[error("the vault is away: cannot {doing}")]
    Away {
        /// What was tried.
        doing: &'static str,
        /// What came of it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Storing it would exceed the bound from the settings. Nothing was stored.
    #[error("the vault is full: it may hold {limit} bytes")]
    Full {
        /// The bound.
        limit: u64,
    },
    /// The storage itself has no room left. Nothing was stored.
    #[error("the vault's storage is full")]
    StorageFull(#[source] io::Error),
    /// There is no such object.
    #[error("the vault has no object `{0}`")]
    Missing(Digest),
    /// The object is not what was stored under its name.
    #[error("object `{digest}` of the vault is damaged: {why}")]
    Corrupt {
        /// The object.
        digest: Digest,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The vault belongs to another key.
    #[error("the vault was made with another key")]
    WrongKey,
    /// The vault's own mark cannot be read.
    #[error("the vault's mark is damaged, or something else is kept in its place")]
    Mark,
    /// What was to be stored could not be read to its end. Nothing was stored.
    #[error("cannot read what is to be put into the vault")]
    Input(#[source] io::Error),
    /// The object holds more than the caller is willing to have in memory.
    #[error("object `{digest}` of the vault has {bytes} bytes, more than the {limit} asked for")]
    TooLarge {
        /// The object.
        digest: Digest,
        /// Its size.
        bytes: u64,
        /// What the caller allowed.
        limit: u64,
    },
    /// A pack was read as a stream, or the other way round.
    #[error("object `{0}` of the vault is not a pack")]
    NotAPack(Digest),
    /// A pack has no such entry.
    #[error("pack `{digest}` of the vault has no entry {entry}")]
    NoEntry {
        /// The pack.
        digest: Digest,
        /// The entry asked for.
        entry: u64,
    },
    /// An entry cannot go into a pack.
    #[error("entry {entry} cannot be packed: {why}")]
    Entry {
        /// The entry.
        entry: u64,
        /// Why not.
        why: &'static str,
    },
    /// The key's text is not one.
    #[error("that is not a vault's key: expected one line starting with `AGE-SECRET-KEY-1`")]
    Key,
    /// The setting does not name a store.
    #[error("`{0}` does not name a store: write `file:PATH` or `s3://BUCKET/PREFIX`")]
    Location(String),
    /// The setting names a store that cannot be used as it is set.
    #[error("the vault's store cannot be used as it is set")]
    Settings(#[source] Box<dyn Error + Send + Sync>),
}

impl VaultError {
    /// Whether the same call may succeed later without anybody touching the vault's contents.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. })
    }

    /// Whether room has to be made first.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::StorageFull(_))
    }

    pub(crate) fn away(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::StorageFull(source),
            _ => Self::Away { doing, source: source.into() },
        }
    }

    /// Carries the error through a reader, from which [`Self::from_reader`] takes it out again.
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match self {
            Self::Missing(_) => io::ErrorKind::NotFound,
            Self::Corrupt { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }

    /// What a reader of the object `digest` failed with.
    pub(crate) fn from_reader(error: io::Error, digest: Digest) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::Corrupt { digest, why: "it ends too early" },
            Err(error) => Self::away("read an object")(error),
        }
    }
}
