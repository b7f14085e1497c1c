//! The vault in a bucket, against a real S3 server over real sockets. It keeps its objects in files, so that they can be
//! looked at and damaged. Object lock it has not; see the bucket's own page.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use rand::{RngCore as _, SeedableRng as _};
use reprieve_vault::{Pack, Vault, VaultError, VaultKey, VaultOptions};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tokio::{net::TcpListener, task::JoinHandle};

/// Larger than one part of an upload, once sealed.
const LARGE: usize = 20 * 1024 * 1024 + 5;

struct Server {
    directory: tempfile::TempDir,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("bucket")).expect("a bucket");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(directory.path()).expect("a server"));
        builder.set_auth(SimpleAuth::from_single("writer", "a secret of the test"));
        let service = builder.build();
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { directory, address, accepting }
    }

    fn options(&self) -> VaultOptions {
        let mut options = VaultOptions::new("s3://bucket/before/images", VaultKey::from_bytes(&[3; 32])).expect("options");
        options.s3.endpoint = Some(format!("http://{}", self.address));
        options.s3.region = Some("us-east-1".to_owned());
        options.s3.access_key_id = Some("writer".to_owned());
        options.s3.secret_access_key = Some("a secret of the test".to_owned().into());
        options.s3.patience = Duration::from_secs(5);
        options
    }

    fn file_of(&self, object: &reprieve_vault::ObjectRef) -> PathBuf {
        let name = object.digest.to_string();
        self.directory.path().join("bucket/before/images/objects").join(&name[..2]).join(&name[2..])
    }
}

fn noise(bytes: usize, seed: u64) -> Bytes {
    let mut all = vec![0; bytes];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut all);
    all.into()
}

fn count(path: &Path) -> usize {
    fs::read_dir(path).map_or(0, |entries| {
        entries.map(|entry| entry.expect("an entry").path()).map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_what_is_put() {
    let server = Server::start().await;
    let vault = Vault::open(&server.options()).expect("opened");
    vault.health().await.expect("healthy");
    let mut objects = Vec::new();
    for size in [0, 1, 100_000, 3_000_000, LARGE] {
        let contents = noise(size, size as u64);
        let object = vault.put(&contents[..]).await.expect("put");
        assert_eq!(vault.get_bytes(&object, u64::MAX).await.expect("read"), contents, "{size}");
        objects.push(object);
    }
    let mut pack = Pack::new();
    for id in 0..40 {
        pack.add(id, &noise(50_000, id)).expect("added");
    }
    let pack = vault.put_pack(pack).await.expect("put");
    assert_eq!(vault.read_entry(&pack, 17).await.expect("read"), noise(50_000, 17));
    vault.put_bytes(noise(100_000, 100_000)).await.expect("put again");
    let usage = vault.usage().await.expect("counted");
    assert_eq!((usage.objects, usage.stored_bytes), (6, objects.iter().map(|object| object.stored_bytes).sum::<u64>() + pack.stored_bytes));

    // Another machine, which has the key and the credentials.
    let other = Vault::open(&server.options()).expect("opened");
    assert_eq!(other.identity().await.expect("known"), vault.identity().await.expect("known"));
    assert_eq!(other.verify().await.expect("verified").good, 6);

    let file = server.file_of(&objects[3]);
    let mut bytes = fs::read(&file).expect("read");
    bytes[2_000_000] ^= 1;
    fs::write(&file, bytes).expect("written");
    assert!(matches!(vault.get_bytes(&objects[3], u64::MAX).await, Err(VaultError::Corrupt { .. })));
    assert_eq!(vault.verify().await.expect("verified").damaged.len(), 1);
    vault.delete(objects[3].digest).await.expect("removed");
    assert!(matches!(vault.get(&objects[3]).await, Err(VaultError::Missing(_))));
    assert!(!vault.exists(objects[3].digest).await.expect("asked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_reached_is_away() {
    let server = Server::start().await;
    let vault = Vault::open(&server.options()).expect("opened");
    let object = vault.put_bytes(noise(1000, 1)).await.expect("put");

    let mut wrong = server.options();
    wrong.s3.secret_access_key = Some("another".to_owned().into());
    let refused = Vault::open(&wrong).expect("nothing is asked yet").health().await.expect_err("refused");
    assert!(refused.is_away(), "{refused}");
    let stranger = VaultOptions { key: VaultKey::from_bytes(&[4; 32]), ..server.options() };
    assert!(matches!(Vault::open(&stranger).expect("opened").health().await, Err(VaultError::WrongKey)));

    let before = count(&server.directory.path().join("bucket"));
    server.accepting.abort();
    let mut impatient = server.options();
    impatient.s3.patience = Duration::from_millis(500);
    let vault_away = Vault::open(&impatient).expect("a gateway starts while its vault is away");
    assert!(vault_away.health().await.expect_err("away").is_away());
    assert!(vault_away.put_bytes(noise(1000, 2)).await.expect_err("away").is_away());
    assert!(vault_away.get(&object).await.expect_err("away").is_away());
    assert_eq!(count(&server.directory.path().join("bucket")), before);
}
