//! Files that are larger than what is kept in memory, on their way to a real S3 server, which looks at the gateway's signature, and back.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use reprieve_testkit::{Gateway, GatewayOptions, GuardedService};
use reprieve_tests::{Answer, Curl};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tokio::{net::TcpListener, runtime::Runtime};

/// Several times what the gateway may take more while it goes through.
const LARGE: u64 = 256 << 20;

/// A store for objects that keeps them in files.
struct Store {
    folder: tempfile::TempDir,
    address: SocketAddr,
    _runtime: Runtime,
}

impl Store {
    fn start() -> Result<Store> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("reports"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let system = s3s_fs::FileSystem::new(folder.path()).map_err(|error| anyhow::anyhow!("no store: {error:?}"))?;
        let mut builder = S3ServiceBuilder::new(system);
        builder.set_auth(SimpleAuth::from_single("REAL", "the-real-secret-key"));
        let service = builder.build();
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    // A client that goes away is no failure here.
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Ok(Store { folder, address, _runtime: runtime })
    }

    fn file(&self, key: &str) -> PathBuf {
        self.folder.path().join("reports").join(key)
    }
}

/// The agent's signature: it is worth nothing, and says whom it is for.
const SIGNED: &str =
    "Authorization: AWS4-HMAC-SHA256 Credential=AGENT/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00";

struct Stage {
    gateway: Gateway,
    store: Store,
    curl: Curl,
}

impl Stage {
    fn open() -> Result<Stage> {
        let store = Store::start()?;
        let service = GuardedService {
            name: "aws".to_owned(),
            environment: "production".to_owned(),
            credential: "REAL:the-real-secret-key".to_owned(),
            presented: "sigv4".to_owned(),
            settings: format!("provider = \"aws\"\nhosts = [\"*.amazonaws.com\"]\nurl = \"http://{}\"\n", store.address),
        };
        let gateway = Gateway::start(GatewayOptions { services: vec![service], rows_without_undo: 0, ..GatewayOptions::default() })?;
        let proxy = gateway.agent("deployer", &["aws"], "read,write,destroy")?;
        let curl = Curl { proxy, authority: gateway.authority_file() };
        Ok(Stage { gateway, store, curl })
    }

    fn ask(&self, key: &str, more: &[&str]) -> Result<Answer> {
        let mut arguments = vec!["-H", SIGNED, "--max-time", "300"];
        arguments.extend(more);
        self.curl.run(&format!("https://s3.us-east-1.amazonaws.com/reports/{key}"), &arguments)
    }

    /// The most memory that the gateway ever had, in bytes.
    fn most_memory(&self) -> Result<u64> {
        let pid = fs::read_to_string(self.gateway.folder().join("serve.pid"))?;
        let status = fs::read_to_string(format!("/proc/{}/status", pid.trim()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

#[test]
fn a_large_file_goes_there_and_back_in_little_memory() -> Result<()> {
    let stage = Stage::open()?;
    let folder = tempfile::tempdir()?;
    let large = folder.path().join("large");
    // Another text every so often, so that a piece in the wrong place shows.
    let mut file = fs::File::create(&large)?;
    for number in 0..LARGE / (1 << 20) {
        let mut piece = vec![0; 1 << 20];
        piece[..8].copy_from_slice(&number.to_le_bytes());
        std::io::Write::write_all(&mut file, &piece)?;
    }
    drop(file);
    let upload = large.display().to_string();
    ensure!(stage.ask("small", &["-T", "/etc/hostname"])?.status == 200, "{}", stage.gateway.log());
    let before = stage.most_memory()?;

    let put = stage.ask("large", &["-T", &upload])?;
    ensure!(put.status == 200, "{put:?}\n{}", stage.gateway.log());
    let same = |path: &PathBuf| -> Result<bool> {
        Ok(std::process::Command::new("cmp").arg(&large).arg(path).status().context("cannot run cmp")?.success())
    };
    ensure!(same(&stage.store.file("large"))?, "another file arrived");
    let back = folder.path().join("back");
    let got = stage.ask("large", &["-o", &back.display().to_string()])?;
    ensure!(got.status == 200 && same(&back)?, "another file came back: {got:?}");
    let grown = stage.most_memory()?.saturating_sub(before);
    ensure!(grown < 96 << 20, "the gateway took {grown} bytes more");

    // What it would replace can't be kept, so that is asked about; it was new, so it can be taken back.
    let over = stage.ask("large", &["-T", "/etc/hostname"])?;
    ensure!(over.status == 403 && over.json()?["outcome"] == "held", "{over:?}");
    let listed = stage.gateway.json(&["undo", "list", "--json"])?;
    let id = listed["changes"][0]["id"].as_str().with_context(|| format!("{listed}"))?.to_owned();
    stage.gateway.operate(&["undo", "apply", &id, "--reason", "not meant"])?;
    ensure!(!stage.store.file("large").exists(), "it is still there");
    ensure!(stage.gateway.verify()?["verified"] == true, "the ledger does not verify");
    Ok(())
}

#[test]
fn a_large_file_that_somebody_replaced_is_not_taken_back() -> Result<()> {
    let stage = Stage::open()?;
    let folder = tempfile::tempdir()?;
    let large = folder.path().join("large");
    fs::write(&large, vec![b'a'; 40 << 20])?;
    let put = stage.ask("large", &["-T", &large.display().to_string()])?;
    ensure!(put.status == 200, "{put:?}\n{}", stage.gateway.log());
    // Somebody else's, past the gateway: the store tells them apart by when they were written.
    std::thread::sleep(Duration::from_secs(2));
    let internal: Vec<PathBuf> =
        fs::read_dir(stage.store.folder.path())?.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    for path in internal {
        fs::remove_file(path)?;
    }
    fs::write(stage.store.file("large"), vec![b'b'; 40 << 20])?;
    let listed = stage.gateway.json(&["undo", "list", "--json"])?;
    let id = listed["changes"][0]["id"].as_str().with_context(|| format!("{listed}"))?.to_owned();
    ensure!(stage.gateway.operate(&["undo", "apply", &id, "--reason", "not meant"]).is_err(), "somebody's file is gone");
    ensure!(stage.store.file("large").exists(), "somebody's file is gone");
    Ok(())
}

#[test]
fn what_is_too_large_broken_or_no_file_is_refused() -> Result<()> {
    let stage = Stage::open()?;
    let folder = tempfile::tempdir()?;
    let large = folder.path().join("large");
    fs::write(&large, vec![b'a'; 9 << 20])?;
    let file = format!("@{}", large.display());
    let refused = |what: &str, rule: &str, key: &str, more: &[&str]| -> Result<()> {
        let answer = stage.ask(key, more)?;
        ensure!(answer.status == 403 && answer.json()?["rule"] == rule, "{what}: {answer:?}");
        Ok(())
    };
    let send = ["-X", "PUT", "--data-binary", file.as_str()];
    let with = |more: &[&'static str]| [send.as_slice(), more].concat();
    refused("more than S3 takes at once", "body-limit", "a", &["-X", "PUT", "-H", "Content-Length: 6000000000", "--http1.1"])?;
    refused("no length", "body-limit", "a", &with(&["-H", "Transfer-Encoding: chunked", "--http1.1"]))?;
    refused("no chunks", "broken-body", "a", &with(&["-H", "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER"]))?;
    refused(
        "packed twice",
        "broken-body",
        "a",
        &with(&["-H", "x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "-H", "content-encoding: gzip"]),
    )?;
    // A large body that decides what the call does is not passed on unread.
    refused("a policy", "calls-not-understood", "?policy", &send)?;
    ensure!(fs::read_dir(stage.store.folder.path().join("reports"))?.count() == 0, "something arrived");
    Ok(())
}
