//! A throw-away bucket with object lock: Ceph's RADOS gateway from Debian's packages, all of it in one temporary folder.
//!
//! Other stand-ins accept what has to be refused (a lock that is shortened), so a test that passes with them says nothing. One
//! monitor, one storage daemon in memory, one gateway, behind a shell that ends them when its pipe closes.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use http_body_util::BodyExt as _;
use hyper::Request;
use md5::{Digest as _, Md5};
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpConnector as _, HttpRequestBody, ReqwestConnector};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::certificate::Certificate;
use crate::port::free_port;

const START_WITHIN: Duration = Duration::from_secs(120);
const PORT_ATTEMPTS: u32 = 3;
/// The bucket's name.
const NAME: &str = "vault";

/// Starts everything in `$1` at ports `$2` (objects), `$3` (monitor) and `$4` (objects by TLS), and ends it with its input.
const WATCHDOG: &str = r#"
folder=$1 port=$2 monitor=$3 tls=$4
conf=$folder/ceph.conf keys=$folder/keys
cluster=$(cat /proc/sys/kernel/random/uuid) disk=$(cat /proc/sys/kernel/random/uuid)
mkdir -p "$folder/mon" "$folder/osd" "$folder/rgw"
cat >"$conf" <<CONF
[global]
fsid = $cluster
mon host = [v2:127.0.0.1:$monitor/0]
mon initial members = a
public network = 127.0.0.0/8
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 0
run dir = $folder
admin socket =
log file = $folder/\$name.log
keyring = $keys
osd objectstore = memstore
memstore device bytes = 4294967296
[mon.a]
mon data = $folder/mon
[osd.0]
osd data = $folder/osd
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$port ssl_endpoint=127.0.0.1:$tls ssl_certificate=$folder/chain.pem ssl_private_key=$folder/key.pem
rgw data = $folder/rgw
rgw dns name = 127.0.0.1
rgw lc debug interval = 5
CONF
{
ceph-authtool -C "$keys" --gen-key -n mon. --cap mon 'allow *'
ceph-authtool "$keys" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *'
ceph-authtool "$keys" --gen-key -n client.rgw --cap mon 'allow rwx' --cap osd 'allow rwx'
ceph-authtool "$keys" --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
monmaptool --create --fsid "$cluster" --addv a "[v2:127.0.0.1:$monitor]" "$folder/map"
ceph-mon --mkfs -i a --monmap "$folder/map" --keyring "$keys" -c "$conf"
} </dev/null >"$folder/made" 2>&1
ceph-mon -f -i a -c "$conf" </dev/null >>"$folder/made" 2>&1 & first=$!
ceph -c "$conf" --connect-timeout 30 osd new "$disk" </dev/null >>"$folder/made" 2>&1
ceph-osd -i 0 -c "$conf" --mkfs --osd-uuid "$disk" --no-mon-config </dev/null >>"$folder/made" 2>&1
ceph-osd -f -i 0 -c "$conf" </dev/null >>"$folder/made" 2>&1 & second=$!
radosgw -f -n client.rgw -c "$conf" </dev/null >>"$folder/made" 2>&1 & third=$!
read -r _
kill -KILL "$third" "$second" "$first" 2>/dev/null
wait
rm -rf "$folder"
exit 0
"#;

/// Who asks. Each has a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Made the bucket, and may do with it what its owner may.
    Owner,
    /// The gateway: may put and read, and nothing else.
    Writer,
    /// Has an account at the same store, and no business here.
    Agent,
}

impl Who {
    /// The key's name and its secret.
    #[must_use]
    pub fn key(self) -> (&'static str, &'static str) {
        match self {
            Who::Owner => ("OWNER", "the owner's secret"),
            Who::Writer => ("WRITER", "the writer's secret"),
            Who::Agent => ("AGENT", "the agent's secret"),
        }
    }
}

/// A running bucket that vanishes when dropped.
#[derive(Debug)]
pub struct Bucket {
    port: u16,
    tls_port: u16,
    authority: String,
    watchdog: Option<Child>,
    client: HttpClient,
    runtime: Runtime,
    _folder: TempDir,
}

impl Bucket {
    /// Whether the programs are here.
    #[must_use]
    pub fn can_run() -> bool {
        let programs = ["ceph-mon", "ceph-osd", "radosgw", "radosgw-admin"];
        programs.iter().all(|program| Path::new("/usr/bin").join(program).exists())
    }

    /// Starts a store with one bucket in which everything is locked for a day.
    pub fn start() -> Result<Bucket> {
        // Somebody may have been first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut failures = Vec::new();
        for _ in 0..PORT_ATTEMPTS {
            match Bucket::attempt() {
                Ok(bucket) => return Ok(bucket),
                Err(error) => failures.push(error),
            }
        }
        bail!("no store could be started: {failures:?}")
    }

    fn attempt() -> Result<Bucket> {
        let folder = tempfile::Builder::new().prefix("reprieve-rgw-").tempdir()?;
        let (port, monitor, tls_port) = (free_port()?, free_port()?, free_port()?);
        let Certificate { authority, chain, key } = Certificate::for_localhost()?;
        fs::write(folder.path().join("chain.pem"), chain)?;
        fs::write(folder.path().join("key.pem"), key)?;
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "rgw"]).arg(folder.path()).args([port, monitor, tls_port].map(|port| port.to_string()));
        let watchdog = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn()?;
        let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let bucket = Bucket { port, tls_port, authority, watchdog: Some(watchdog), client, runtime, _folder: folder };
        let deadline = Instant::now() + START_WITHIN;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < deadline, "{}", fs::read_to_string(bucket._folder.path().join("made")).unwrap_or_default());
            thread::sleep(Duration::from_millis(100));
        }
        for who in [Who::Owner, Who::Writer, Who::Agent] {
            bucket.add(who)?;
        }
        bucket.prepare()?;
        Ok(bucket)
    }

    fn add(&self, who: Who) -> Result<()> {
        let (id, secret) = who.key();
        let mut command = Command::new("radosgw-admin");
        command.arg("-c").arg(self._folder.path().join("ceph.conf")).args(["-n", "client.rgw", "user", "create"]);
        command.arg(format!("--uid={}", id.to_lowercase())).arg(format!("--display-name={id}"));
        command.arg(format!("--access-key={id}")).arg(format!("--secret-key={secret}"));
        let output = command.stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn prepare(&self) -> Result<()> {
        let done = |(status, said): (u16, String)| if status < 300 { Ok(()) } else { Err(anyhow!("{status}: {said}")) };
        done(self.ask(Who::Owner, "PUT", "", &[("x-amz-bucket-object-lock-enabled", "true")], "")?).context("make the bucket")?;
        self.lock_by_default()?;
        // What the gateway needs, and no more: no delete, no retention, no settings.
        let writer = "arn:aws:iam:::user/writer";
        let (bucket, objects) = (format!("arn:aws:s3:::{NAME}"), format!("arn:aws:s3:::{NAME}/*"));
        let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Principal": { "AWS": [writer] }, "Resource": [bucket], "Action": ["s3:ListBucket", "s3:ListBucketVersions"] },
            { "Effect": "Allow", "Principal": { "AWS": [writer] }, "Resource": [objects],
              "Action": ["s3:PutObject", "s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention", "s3:AbortMultipartUpload"] } ] });
        done(self.ask(Who::Owner, "PUT", "?policy=", &[], &policy.to_string())?).context("let the writer in")
    }

    /// Locks what is put for a day, so that nobody can remove it before.
    pub fn lock_by_default(&self) -> Result<()> {
        let rule = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
                    <Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
        let (status, said) = self.ask(Who::Owner, "PUT", "?object-lock=", &[], rule)?;
        ensure!(status < 300, "{status}: {said}");
        Ok(())
    }

    /// The server's URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where the same is served by TLS, as `localhost`.
    #[must_use]
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// The authority that vouches for it, as PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The bucket's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// Sends a signed request. `target` comes after the bucket: `/KEY`, `?versions=`, or both; parameters sorted, each with its `=`.
    pub fn ask(&self, who: Who, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Result<(u16, String)> {
        let (status, said) = self.send(who, method, target, headers, body.as_bytes())?;
        Ok((status, String::from_utf8_lossy(&said).into_owned()))
    }

    /// Puts what an object has over it once more.
    pub fn put_again(&self, who: Who, key: &str) -> Result<()> {
        let target = format!("/{key}");
        let (status, contents) = self.send(who, "GET", &target, &[], &[])?;
        ensure!(status == 200, "{key}: {status}");
        let (status, said) = self.send(who, "PUT", &target, &[], &contents)?;
        ensure!(status == 200, "{key}: {status} {said:?}");
        Ok(())
    }

    /// The same for what is no text.
    pub fn send(&self, who: Who, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let (id, secret) = who.key();
        let credential = AwsCredential { key_id: id.to_owned(), secret_key: secret.to_owned(), token: None };
        let mut request = Request::builder().method(method).uri(format!("{}/{NAME}{target}", self.endpoint()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request = request.header("content-md5", base64::Engine::encode(&base64::prelude::BASE64_STANDARD, Md5::digest(body)));
        }
        let mut request = request.body(HttpRequestBody::from(body.to_vec()))?;
        AwsAuthorizer::new(&credential, "s3", "us-east-1").try_authorize(&mut request, None)?;
        self.runtime.block_on(async {
            let answer = self.client.execute(request).await?;
            let status = answer.status().as_u16();
            Ok((status, answer.into_body().collect().await?.to_bytes().to_vec()))
        })
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let Some(mut watchdog) = self.watchdog.take() else { return };
        // The end of its input ends it.
        drop(watchdog.stdin.take());
        let _ended = watchdog.wait();
    }
}
