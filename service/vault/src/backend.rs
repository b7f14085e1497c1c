//! The storage below the vault: a directory (`backend/folder.rs`) or a bucket (`backend/bucket.rs`).
//!
//! A storage moves sealed bytes and knows no keys. Names become visible whole and durable, or not at all.

mod bucket;
mod folder;

use std::{io::Read, ops::Range, path::Path};

use bytes::Bytes;
use reprieve_operation::Digest;
use tokio::sync::mpsc;

use crate::{Location, Lock, Stored, VaultError, options::S3Options, spool::Sealed};

/// The name of the mark that tells a vault from an empty place.
const MARK: &str = "vault";
/// The name that probes are written under.
const PROBE: &str = "probe";

/// One of the storages.
#[derive(Debug)]
pub(crate) enum Backend {
    Folder(folder::Folder),
    Bucket(bucket::Bucket),
}

impl Backend {
    pub(crate) fn open(location: &Location, s3: &S3Options) -> Result<Self, VaultError> {
        Ok(match location {
            Location::File(path) => Self::Folder(folder::Folder::open(path)?),
            Location::S3 { bucket, prefix } => Self::Bucket(bucket::Bucket::s3(bucket, prefix, s3)?),
            Location::Memory => Self::Bucket(bucket::Bucket::memory()?),
        })
    }

    /// Where objects are put together.
    pub(crate) fn spool(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder.spool(),
            Self::Bucket(bucket) => bucket.spool(),
        }
    }

    /// The vault's mark, if it has one.
    pub(crate) async fn mark(&self) -> Result<Option<Bytes>, VaultError> {
        match self {
            Self::Folder(folder) => folder.mark().await,
            Self::Bucket(bucket) => bucket.mark().await,
        }
    }

    /// Sets the mark unless there is one.
    pub(crate) async fn set_mark(&self, mark: Bytes) -> Result<(), VaultError> {
        match self {
            Self::Folder(folder) => folder.set_mark(mark).await,
            Self::Bucket(bucket) => bucket.set_mark(mark).await,
        }
    }

    /// Writes something durable that nobody reads.
    pub(crate) async fn probe(&self) -> Result<(), VaultError> {
        match self {
            Self::Folder(folder) => folder.probe().await,
            Self::Bucket(bucket) => bucket.probe().await,
        }
    }

    /// What the storage has left, where it can tell.
    pub(crate) async fn free_bytes(&self) -> Result<Option<u64>, VaultError> {
        match self {
            Self::Folder(folder) => folder.free_bytes().await.map(Some),
            Self::Bucket(_) => Ok(None),
        }
    }

    /// Makes an object visible under its name, in place of one that may be there. Durable when it returns.
    pub(crate) async fn commit(&self, digest: Digest, sealed: Sealed) -> Result<(), VaultError> {
        match self {
            Self::Folder(folder) => folder.commit(digest, sealed).await,
            Self::Bucket(bucket) => bucket.commit(digest, sealed).await,
        }
    }

    /// An object's size and age, if it is there.
    pub(crate) async fn stat(&self, digest: Digest) -> Result<Option<Stored>, VaultError> {
        match self {
            Self::Folder(folder) => folder.stat(digest).await,
            Self::Bucket(bucket) => bucket.stat(digest).await,
        }
    }

    /// A reader of an object, for a thread that may block.
    pub(crate) async fn read(&self, digest: Digest) -> Result<Box<dyn Read + Send>, VaultError> {
        match self {
            Self::Folder(folder) => folder.read(digest).await,
            Self::Bucket(bucket) => bucket.read(digest).await,
        }
    }

    /// Parts of an object; shorter where the object ends.
    pub(crate) async fn ranges(&self, digest: Digest, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, VaultError> {
        match self {
            Self::Folder(folder) => folder.ranges(digest, ranges).await,
            Self::Bucket(bucket) => bucket.ranges(digest, ranges).await,
        }
    }

    /// Removes an object. It is not an error if it is gone.
    pub(crate) async fn delete(&self, digest: Digest) -> Result<(), VaultError> {
        match self {
            Self::Folder(folder) => folder.delete(digest).await,
            Self::Bucket(bucket) => bucket.delete(digest).await,
        }
    }

    /// Lists all objects into a channel, in no order; what is not an object of ours is passed over.
    pub(crate) fn list(&self) -> mpsc::Receiver<Result<Stored, VaultError>> {
        match self {
            Self::Folder(folder) => folder.list(),
            Self::Bucket(bucket) => bucket.list(),
        }
    }

    /// The same with what somebody hid or put something over, where the storage keeps that.
    pub(crate) fn list_hidden(&self) -> mpsc::Receiver<Result<Stored, VaultError>> {
        match self {
            Self::Folder(folder) => folder.list(),
            Self::Bucket(bucket) => bucket.list_hidden(),
        }
    }

    /// The versions of an object, first the one that was put first.
    pub(crate) async fn versions(&self, digest: Digest) -> Vec<String> {
        match self {
            Self::Folder(_) => Vec::new(),
            Self::Bucket(bucket) => bucket.versions(digest).await,
        }
    }

    /// A reader of one version.
    pub(crate) async fn read_version(&self, digest: Digest, version: &str) -> Result<Box<dyn Read + Send>, VaultError> {
        match self {
            Self::Folder(_) => Err(VaultError::Missing(digest)),
            Self::Bucket(bucket) => bucket.read_version(digest, version).await,
        }
    }

    /// Has this version read from now on.
    pub(crate) fn pin(&self, digest: Digest, version: String) {
        match self {
            Self::Folder(_) => {}
            Self::Bucket(bucket) => bucket.pin(digest, version),
        }
    }

    /// How a version of an object is locked, or what is read of it.
    pub(crate) async fn lock(&self, digest: Digest, version: Option<&str>) -> Result<Lock, VaultError> {
        match self {
            Self::Folder(_) => Ok(Lock::None),
            Self::Bucket(bucket) => bucket.lock(digest, version).await,
        }
    }
}

/// `ab/cdef…`: folders of a size that every file system likes.
fn object_path(digest: Digest) -> String {
    let name = digest.to_string();
    format!("{}/{}", &name[..2], &name[2..])
}

/// The object that lies at the end of a path, if it is one.
fn object_at(folder: &str, file: &str) -> Option<Digest> {
    let name = format!("{folder}{file}");
    let small = name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if folder.len() == 2 && small { Digest::try_from(name).ok() } else { None }
}

/// Runs what may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, VaultError> + Send + 'static) -> Result<T, VaultError> {
    // A task that panicked is a bug that ends one call; so is a runtime that shuts down.
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(VaultError::Away { doing: "finish a task", source: error.into() }))
}
