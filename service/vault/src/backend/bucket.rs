//! A vault in a bucket of S3 or what speaks like it; also one in memory, behind the same library.
//!
//! An object appears whole with its last part. Every upload carries a SHA-256 checksum, which buckets with object lock
//! insist on. Retention is the bucket's own default: the library cannot set it per object, and a writer that could would be
//! one more credential worth stealing. Deleting under object lock only hides the object until its retention ends: what is hidden
//! or overwritten is read by its version's id (`bucket/versions.rs`).

mod versions;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::{
    ClientOptions, Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, RetryConfig,
    WriteMultipart,
    aws::{AmazonS3Builder, Checksum},
    memory::InMemory,
    path::Path as ObjectPath,
};
use reprieve_operation::{Digest, Timestamp};
use tokio::sync::mpsc;

use self::versions::{Version, Versions};
use super::{MARK, PROBE, blocking, object_at, object_path};
use crate::{
    Lock, Stored, VaultError,
    options::S3Options,
    spool::{Sealed, Temporary},
};

/// The size of an upload's parts: at S3's limit of 10,000 parts an object may have 156 GiB.
const PART: usize = 16 * 1024 * 1024;
/// How many parts are on their way at once.
const PARTS_AT_ONCE: usize = 4;
/// How many pieces or listed objects wait for their reader.
const AHEAD: usize = 64;

/// A bucket, or what comes after a prefix of one.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    spool: Arc<tempfile::TempDir>,
    /// None in memory.
    versions: Option<Arc<Versions>>,
    /// Objects whose newest version is not what was stored, and the version that is.
    pinned: Arc<Mutex<HashMap<Digest, String>>>,
}

impl Bucket {
    pub(crate) fn s3(bucket: &str, prefix: &str, options: &S3Options) -> Result<Self, VaultError> {
        // The program's own TLS chooses this provider too. An error says that a provider was chosen before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = options.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let client =
            ClientOptions::new().with_connect_timeout(Duration::from_secs(5)).with_timeout(options.patience).with_allow_http(plain);
        let retry = RetryConfig { max_retries: 8, retry_timeout: options.patience, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_client_options(client.clone())
            .with_retry(retry)
            .with_checksum_algorithm(Checksum::SHA256);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &options.region {
            builder = builder.with_region(region);
        }
        if let Some(id) = &options.access_key_id {
            builder = builder.with_access_key_id(id);
        }
        if let Some(secret) = &options.secret_access_key {
            builder = builder.with_secret_access_key(secret.as_str());
        }
        let settings = builder.clone();
        let store = builder.build().map_err(|error| VaultError::Settings(error.into()))?;
        let versions = Versions::new(bucket, |key| settings.get_config_value(&key), store.credentials().clone(), &client)?;
        Self::over(Arc::new(store), prefix, Some(Arc::new(versions)))
    }

    pub(crate) fn memory() -> Result<Self, VaultError> {
        Self::over(Arc::new(InMemory::new()), "", None)
    }

    fn over(store: Arc<dyn ObjectStore>, prefix: &str, versions: Option<Arc<Versions>>) -> Result<Self, VaultError> {
        let spool = tempfile::Builder::new().prefix("reprieve-vault-").tempdir().map_err(VaultError::away("make a temporary directory"))?;
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { store, prefix, spool: Arc::new(spool), versions, pinned: Arc::default() })
    }

    pub(crate) fn spool(&self) -> &Path {
        self.spool.path()
    }

    fn path(&self, name: &str) -> ObjectPath {
        ObjectPath::from(format!("{}{name}", self.prefix))
    }

    fn object(&self, digest: Digest) -> ObjectPath {
        self.path(&format!("objects/{}", object_path(digest)))
    }

    /// The mark that was set first: one that somebody put over it, or hid it with, is not it.
    pub(crate) async fn mark(&self) -> Result<Option<Bytes>, VaultError> {
        let path = self.path(MARK);
        let first = match &self.versions {
            // Where nobody may ask for versions, or there are none, the mark is what is there now.
            Some(versions) => versions.of(path.as_ref()).await?.into_iter().next(),
            None => None,
        };
        let options = GetOptions { version: first.map(|version| version.id), ..GetOptions::default() };
        match self.store.get_opts(&path, options).await {
            Ok(answer) => answer.bytes().await.map(Some).map_err(away("read its mark")),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(away("read its mark")(error)),
        }
    }

    pub(crate) async fn set_mark(&self, mark: Bytes) -> Result<(), VaultError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.path(MARK), mark.into(), options).await {
            Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(()),
            Err(error) => Err(away("write its mark")(error)),
        }
    }

    pub(crate) async fn probe(&self) -> Result<(), VaultError> {
        self.store.put(&self.path(PROBE), PutPayload::from_static(b"probe")).await.map(drop).map_err(away("write a probe"))
    }

    pub(crate) async fn commit(&self, digest: Digest, sealed: Sealed) -> Result<(), VaultError> {
        let to = self.object(digest);
        match sealed {
            Sealed::Memory(bytes) => self.store.put(&to, bytes.into()).await.map(drop).map_err(away("write an object"))?,
            Sealed::File(temporary) => self.upload(&to, temporary).await?,
        }
        // The newest is whole now.
        self.pinned().remove(&digest);
        Ok(())
    }

    async fn upload(&self, to: &ObjectPath, mut temporary: Temporary) -> Result<(), VaultError> {
        let parts = self.store.put_multipart(to).await.map_err(away("begin an upload"))?;
        let mut upload = WriteMultipart::new_with_chunk_size(parts, PART);
        temporary.file.seek(SeekFrom::Start(0)).map_err(VaultError::away("read an object in the making"))?;
        let sent = async {
            loop {
                let file = temporary.file.try_clone().map_err(VaultError::away("read an object in the making"))?;
                let part = blocking(move || read_part(file).map_err(VaultError::away("read an object in the making"))).await?;
                if part.is_empty() {
                    return Ok(());
                }
                upload.wait_for_capacity(PARTS_AT_ONCE).await.map_err(away("write an object"))?;
                upload.put(part);
            }
        };
        match sent.await {
            Ok(()) => upload.finish().await.map(drop).map_err(away("write an object")),
            Err(error) => {
                // Parts of an upload that was neither finished nor aborted cost money and are seen by nobody.
                if let Err(error) = upload.abort().await {
                    tracing::warn!(%error, "an unfinished upload to the vault is left behind");
                }
                Err(error)
            }
        }
    }

    pub(crate) async fn stat(&self, digest: Digest) -> Result<Option<Stored>, VaultError> {
        match self.store.get_opts(&self.object(digest), GetOptions { head: true, ..self.wanted(digest) }).await {
            Ok(answer) => Ok(Some(stored(digest, &answer.meta))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(away("look at an object")(error)),
        }
    }

    pub(crate) async fn read(&self, digest: Digest) -> Result<Box<dyn Read + Send>, VaultError> {
        self.read_as(digest, self.wanted(digest)).await
    }

    async fn read_as(&self, digest: Digest, options: GetOptions) -> Result<Box<dyn Read + Send>, VaultError> {
        let answer = self.store.get_opts(&self.object(digest), options).await.map_err(missing(digest, "read an object"))?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        // Ends with the object, or when its reader goes away.
        tokio::spawn(async move {
            let mut pieces = answer.into_stream();
            while let Some(piece) = pieces.next().await {
                if sender.send(piece.map_err(away("read an object"))).await.is_err() {
                    return;
                }
            }
        });
        Ok(Box::new(Received { from: receiver, piece: Bytes::new() }))
    }

    pub(crate) async fn ranges(&self, digest: Digest, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, VaultError> {
        let wanted = self.wanted(digest);
        if wanted.version.is_none() {
            return self.store.get_ranges(&self.object(digest), &ranges).await.map_err(missing(digest, "read an object"));
        }
        let mut parts = Vec::new();
        for range in ranges {
            let options = GetOptions { range: Some(range.into()), ..wanted.clone() };
            let answer = self.store.get_opts(&self.object(digest), options).await.map_err(missing(digest, "read an object"))?;
            parts.push(answer.bytes().await.map_err(away("read an object"))?);
        }
        Ok(parts)
    }

    /// The version of an object that is whole, where that is not the newest.
    fn wanted(&self, digest: Digest) -> GetOptions {
        GetOptions { version: self.pinned().get(&digest).cloned(), ..GetOptions::default() }
    }

    fn pinned(&self) -> MutexGuard<'_, HashMap<Digest, String>> {
        // Only whole entries are put in and taken out, so it is right even after a panic.
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The versions of an object, first the one that was put first; none where there are no versions, or nobody may ask.
    pub(crate) async fn versions(&self, digest: Digest) -> Vec<String> {
        let Some(versions) = &self.versions else { return Vec::new() };
        match versions.of(self.object(digest).as_ref()).await {
            Ok(found) => found.into_iter().map(|version| version.id).collect(),
            Err(error) => {
                tracing::debug!(%error, "the bucket does not tell of versions");
                Vec::new()
            }
        }
    }

    pub(crate) async fn read_version(&self, digest: Digest, version: &str) -> Result<Box<dyn Read + Send>, VaultError> {
        self.read_as(digest, GetOptions { version: Some(version.to_owned()), ..GetOptions::default() }).await
    }

    /// Reads this version from now on.
    pub(crate) fn pin(&self, digest: Digest, version: String) {
        self.pinned().insert(digest, version);
    }

    /// How a version is locked, or the one that is read.
    pub(crate) async fn lock(&self, digest: Digest, version: Option<&str>) -> Result<Lock, VaultError> {
        let Some(versions) = &self.versions else { return Ok(Lock::None) };
        let read = self.wanted(digest).version;
        versions.lock(self.object(digest).as_ref(), version.or(read.as_deref())).await
    }

    pub(crate) async fn delete(&self, digest: Digest) -> Result<(), VaultError> {
        match self.store.delete(&self.object(digest)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(away("remove an object")(error)),
        }
    }

    pub(crate) fn list(&self) -> mpsc::Receiver<Result<Stored, VaultError>> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let mut listed = self.store.list(Some(&self.path("objects")));
        // Ends with the listing, or when its reader goes away.
        tokio::spawn(async move {
            while let Some(next) = listed.next().await {
                let entry = match next {
                    Ok(meta) => {
                        let mut parts = meta.location.as_ref().rsplit('/');
                        let (file, folder) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                        let Some(digest) = object_at(folder, file) else { continue };
                        Ok(stored(digest, &meta))
                    }
                    Err(error) => Err(away("list its objects")(error)),
                };
                if sender.send(entry).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    /// The same with what was hidden or put over, as it was when it was first put.
    pub(crate) fn list_hidden(&self) -> mpsc::Receiver<Result<Stored, VaultError>> {
        let Some(versions) = self.versions.clone() else { return self.list() };
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (prefix, plain) = (self.path("objects").to_string() + "/", self.clone());
        // Ends with the listing, or when its reader goes away.
        tokio::spawn(async move {
            // The versions of one object come one after the other, the first one last.
            let (mut from, mut last): (_, Option<Version>) = (None, None);
            loop {
                let (page, next) = match versions.page(&prefix, from.as_ref()).await {
                    Ok(Some(both)) => both,
                    // Then what is listed without versions is all there is.
                    Ok(None) => {
                        let mut listed = plain.list();
                        while let Some(entry) = listed.recv().await {
                            if sender.send(entry).await.is_err() {
                                return;
                            }
                        }
                        return;
                    }
                    Err(error) => return drop(sender.send(Err(error)).await),
                };
                let ended = next.is_none();
                for version in page.into_iter().map(Some).chain(ended.then_some(None)) {
                    let (same, before) = (last.as_ref().map(|last| &last.key) == version.as_ref().map(|now| &now.key), last);
                    last = version;
                    if let Some(first) = before.filter(|_| !same).as_ref().and_then(first_put)
                        && sender.send(Ok(first)).await.is_err()
                    {
                        return;
                    }
                }
                if ended {
                    return;
                }
                from = next;
            }
        });
        receiver
    }
}

/// Reads, on a thread that may block, what an asynchronous task fetches.
struct Received {
    from: mpsc::Receiver<Result<Bytes, VaultError>>,
    piece: Bytes,
}

impl Read for Received {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.from.blocking_recv() {
                Some(piece) => self.piece = piece.map_err(VaultError::into_io)?,
                None => return Ok(0),
            }
        }
        let taken = into.len().min(self.piece.len());
        into[..taken].copy_from_slice(&self.piece.split_to(taken));
        Ok(taken)
    }
}

fn read_part(mut file: File) -> io::Result<Bytes> {
    let mut part = Vec::with_capacity(PART);
    io::Read::by_ref(&mut file).take(PART as u64).read_to_end(&mut part)?;
    Ok(part.into())
}

fn stored(digest: Digest, meta: &ObjectMeta) -> Stored {
    let at = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or_default();
    Stored { digest, stored_bytes: meta.size, stored_at: Timestamp(at) }
}

fn first_put(version: &Version) -> Option<Stored> {
    let mut parts = version.key.rsplit('/');
    let (file, folder) = (parts.next()?, parts.next()?);
    Some(Stored { digest: object_at(folder, file)?, stored_bytes: version.bytes, stored_at: version.at })
}

fn away(doing: &'static str) -> impl FnOnce(Error) -> VaultError {
    move |error| VaultError::Away { doing, source: error.into() }
}

fn missing(digest: Digest, doing: &'static str) -> impl FnOnce(Error) -> VaultError {
    move |error| match error {
        Error::NotFound { .. } => VaultError::Missing(digest),
        error => away(doing)(error),
    }
}
