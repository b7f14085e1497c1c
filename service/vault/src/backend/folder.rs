//! A vault in a directory: `objects/ab/cdef…`, the mark, and `tmp` for what has no name yet.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write as _},
    ops::Range,
    os::unix::fs::{DirBuilderExt as _, FileExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use reprieve_operation::{Digest, Timestamp};
use tokio::sync::mpsc;

use super::{MARK, blocking, object_at, object_path};
use crate::{
    Stored, VaultError,
    spool::{Sealed, Temporary},
};

/// How many listed objects wait for their reader.
const LISTED_AHEAD: usize = 256;

/// The directory and what is made in it at the start.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    root: Arc<Path>,
    spool: Arc<Path>,
}

impl Folder {
    pub(crate) fn open(root: &Path) -> Result<Self, VaultError> {
        let spool = root.join("tmp");
        let attempt = || {
            make(root)?;
            make(&root.join("objects"))?;
            make(&spool)?;
            Temporary::sweep(&spool)
        };
        attempt().map_err(VaultError::away("open its directory"))?;
        Ok(Self { root: root.into(), spool: spool.into() })
    }

    pub(crate) fn spool(&self) -> &Path {
        &self.spool
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.root.join("objects").join(object_path(digest))
    }

    pub(crate) async fn mark(&self) -> Result<Option<Bytes>, VaultError> {
        let path = self.root.join(MARK);
        blocking(move || match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(VaultError::away("read its mark")(error)),
        })
        .await
    }

    pub(crate) async fn set_mark(&self, mark: Bytes) -> Result<(), VaultError> {
        let this = self.clone();
        blocking(move || {
            let attempt = || {
                let mut temporary = Temporary::new(&this.spool)?;
                temporary.file.write_all(&mark)?;
                temporary.file.sync_all()?;
                match temporary.link(&this.root.join(MARK)) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    other => other?,
                }
                sync(&this.root)
            };
            attempt().map_err(VaultError::away("write its mark"))
        })
        .await
    }

    pub(crate) async fn probe(&self) -> Result<(), VaultError> {
        let this = self.clone();
        blocking(move || {
            let attempt = || {
                let mut temporary = Temporary::new(&this.spool)?;
                temporary.file.write_all(b"probe")?;
                temporary.file.sync_all()?;
                // Objects go elsewhere than probes: both have to be there.
                fs::read_dir(this.root.join("objects")).map(drop)?;
                rustix::fs::access(this.root.join("objects"), rustix::fs::Access::WRITE_OK).map_err(io::Error::from)
            };
            attempt().map_err(VaultError::away("write a probe"))
        })
        .await
    }

    pub(crate) async fn free_bytes(&self) -> Result<u64, VaultError> {
        let this = self.clone();
        blocking(move || {
            let facts = rustix::fs::statvfs(&*this.root).map_err(|error| VaultError::away("ask for its room")(error.into()))?;
            Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
        })
        .await
    }

    pub(crate) async fn commit(&self, digest: Digest, sealed: Sealed) -> Result<(), VaultError> {
        let this = self.clone();
        blocking(move || {
            let path = this.path(digest);
            let attempt = || {
                let temporary = match sealed {
                    Sealed::File(temporary) => temporary,
                    Sealed::Memory(bytes) => {
                        let mut temporary = Temporary::new(&this.spool)?;
                        temporary.file.write_all(&bytes)?;
                        temporary
                    }
                };
                // The contents are on the disk before the name is: a name never leads to less than everything.
                temporary.file.sync_all()?;
                let folder = path.parent().unwrap_or(&this.root);
                match DirBuilder::new().mode(0o700).create(folder) {
                    Ok(()) => sync(&this.root.join("objects"))?,
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error),
                }
                temporary.rename(&path)?;
                sync(folder)
            };
            attempt().map_err(VaultError::away("write an object"))
        })
        .await
    }

    pub(crate) async fn stat(&self, digest: Digest) -> Result<Option<Stored>, VaultError> {
        let path = self.path(digest);
        blocking(move || match fs::metadata(path) {
            Ok(facts) => Ok(Some(stored(digest, &facts))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(VaultError::away("look at an object")(error)),
        })
        .await
    }

    pub(crate) async fn read(&self, digest: Digest) -> Result<Box<dyn Read + Send>, VaultError> {
        let path = self.path(digest);
        blocking(move || Ok(Box::new(open(&path, digest)?) as Box<dyn Read + Send>)).await
    }

    pub(crate) async fn ranges(&self, digest: Digest, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, VaultError> {
        let path = self.path(digest);
        blocking(move || {
            let file = open(&path, digest)?;
            ranges.into_iter().map(|range| read_range(&file, range).map_err(VaultError::away("read an object"))).collect()
        })
        .await
    }

    pub(crate) async fn delete(&self, digest: Digest) -> Result<(), VaultError> {
        let path = self.path(digest);
        blocking(move || match fs::remove_file(&path) {
            Ok(()) => path.parent().map_or(Ok(()), sync).map_err(VaultError::away("remove an object")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(VaultError::away("remove an object")(error)),
        })
        .await
    }

    pub(crate) fn list(&self) -> mpsc::Receiver<Result<Stored, VaultError>> {
        let (sender, receiver) = mpsc::channel(LISTED_AHEAD);
        let objects = self.root.join("objects");
        // Ends with the listing, or when its reader goes away.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = list(&objects, &sender) {
                let _ = sender.blocking_send(Err(VaultError::away("list its objects")(error)));
            }
        });
        receiver
    }
}

fn list(objects: &Path, to: &mpsc::Sender<Result<Stored, VaultError>>) -> io::Result<()> {
    for folder in fs::read_dir(objects)? {
        let folder = folder?;
        let folder_name = folder.file_name();
        let Some(folder_name) = folder_name.to_str() else { continue };
        if !folder.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(folder.path())? {
            let file = file?;
            let Some(digest) = file.file_name().to_str().and_then(|name| object_at(folder_name, name)) else { continue };
            let facts = match file.metadata() {
                Ok(facts) => facts,
                // Removed since its folder was opened.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if to.blocking_send(Ok(stored(digest, &facts))).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn stored(digest: Digest, facts: &fs::Metadata) -> Stored {
    // A file system without times makes everything look old, and a purge then asks the ledger for the rest.
    let modified = facts.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Stored { digest, stored_bytes: facts.len(), stored_at: Timestamp::default().plus(since) }
}

fn open(path: &Path, digest: Digest) -> Result<File, VaultError> {
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => VaultError::Missing(digest),
        _ => VaultError::away("open an object")(error),
    })
}

fn read_range(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; length];
    let mut had = 0;
    while had < length {
        match file.read_at(&mut bytes[had..], range.start + had as u64)? {
            0 => break,
            more => had += more,
        }
    }
    bytes.truncate(had);
    Ok(bytes.into())
}

/// Makes a directory for nobody else, and its parents; one that is there stays as it is.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync(parent),
        _ => sync(Path::new(".")),
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
