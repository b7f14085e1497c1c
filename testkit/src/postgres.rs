//! A throw-away PostgreSQL: real binaries, a temporary folder, a free loopback port, SCRAM passwords.
//!
//! A small shell stands between us and the server and waits on a pipe that only we hold open. The pipe closes
//! when the value is dropped or this process dies; the shell then stops the server (fast, after five seconds at
//! once) and empties its folder. So no test, however it ends, leaves a server behind.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::account::Account;
use crate::binaries::Binaries;
use crate::certificate::Certificate;
use crate::port::free_port;
use crate::template::Template;
use crate::workshop::{Bench, Workshop};

const START_WITHIN: Duration = Duration::from_secs(60);
const PORT_ATTEMPTS: u32 = 5;

/// Runs the server named by its arguments; a line on its input means "stop, keep the files", an end of input "stop, drop them".
const WATCHDOG: &str = r#"
folder=$1; shift
"$@" </dev/null >>"$folder/log" 2>&1 &
server=$!
if read -r _; then keep=yes; else keep=; fi
kill -INT "$server" 2>/dev/null
tries=0
while [ -e "$folder/data/postmaster.pid" ] && [ "$tries" -lt 250 ]; do sleep 0.02; tries=$((tries + 1)); done
kill -QUIT "$server" 2>/dev/null
wait "$server"
[ -n "$keep" ] || rm -rf "$folder"/* 2>/dev/null
exit 0
"#;

/// How much the server writes to its log for others to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WalLevel {
    /// Enough for crash recovery only.
    Minimal,
    /// PostgreSQL's default.
    #[default]
    Replica,
    /// Also enough for logical decoding.
    Logical,
}

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// Offer TLS with a certificate for `localhost` and `127.0.0.1`; see [`Postgres::authority_file`].
    pub tls: bool,
    /// Wait for the disk. Off by default: a throw-away server has nothing to lose.
    pub fsync: bool,
    /// The write-ahead log's level.
    pub wal_level: WalLevel,
    /// The size of the write-ahead log's segments in MB; PostgreSQL's default if none is said.
    pub segment_mb: Option<u32>,
    /// More lines for `postgresql.conf`, as names and unquoted values.
    pub settings: Vec<(String, String)>,
}

/// A running PostgreSQL that stops and vanishes when dropped.
#[derive(Debug)]
pub struct Postgres {
    binaries: Binaries,
    account: Account,
    port: u16,
    password: String,
    tls: bool,
    watchdog: Option<Child>,
    // Last, so that its folder goes after the server.
    bench: Bench,
}

impl Postgres {
    /// Starts a server with the default options.
    pub fn start() -> Result<Postgres> {
        Postgres::start_with(&PostgresOptions::default())
    }

    /// Starts a server.
    pub fn start_with(options: &PostgresOptions) -> Result<Postgres> {
        let binaries = Binaries::find()?;
        let account = Account::find()?;
        let workshop = Workshop::open()?;
        let template = Template::find(&workshop, &binaries, account, options.segment_mb)?;
        let bench = workshop.bench(account)?;
        template.copy_to(account, &bench.folder().join("data"))?;
        let password = template.password().to_owned();
        let mut server = Postgres { binaries, account, port: 0, password, tls: options.tls, watchdog: None, bench };
        server.write_settings(options)?;
        for attempt in 1..=PORT_ATTEMPTS {
            server.port = free_port()?;
            match server.launch() {
                Ok(()) => return Ok(server),
                // Somebody took the port between our look and the server's.
                Err(_) if attempt < PORT_ATTEMPTS && server.log().contains("could not bind") => server.halt(Files::Keep)?,
                Err(error) => return Err(error),
            }
        }
        bail!("no free port in {PORT_ATTEMPTS} attempts")
    }

    /// The loopback port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser `postgres`' password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The superuser's URL for a database.
    pub fn superuser_url(&self, database: &str) -> String {
        self.url("postgres", &self.password, database)
    }

    /// A role's URL for a database.
    pub fn url(&self, role: &str, password: &str, database: &str) -> String {
        format!("postgres://{}:{}@127.0.0.1:{}/{}", in_url(role), in_url(password), self.port, in_url(database))
    }

    /// The authority that signed the server's certificate, as a PEM file. None without TLS.
    pub fn authority_file(&self) -> Option<PathBuf> {
        self.tls.then(|| self.bench.folder().join("authority.crt"))
    }

    /// The folder with the server's Unix socket.
    pub fn socket_folder(&self) -> &Path {
        self.bench.folder()
    }

    /// The programs it was started from.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        fs::read(self.bench.folder().join("log")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Runs SQL as superuser through `psql` and returns what it printed: rows as lines, columns parted by `|`.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        self.psql_at(&self.superuser_url(database), sql)
    }

    /// Runs SQL through `psql` at any URL, a gateway's for instance. Stops at the first error.
    pub fn psql_at(&self, url: &str, sql: &str) -> Result<String> {
        let mut child = Command::new(self.binaries.program("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d"])
            .arg(url)
            .env("PGCONNECT_TIMEOUT", "10")
            .env("PGCLIENTENCODING", "UTF8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run `psql`")?;
        let mut input = child.stdin.take().context("`psql` has no input")?;
        let text = sql.to_owned();
        // On a thread of its own: a long script and a long answer would otherwise wait for each other.
        let writer = thread::spawn(move || input.write_all(text.as_bytes()));
        let output = child.wait_with_output().context("cannot wait for `psql`")?;
        // A script that fails early closes its input early; the exit code below tells the reason.
        let _ = writer.join();
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim_end());
        let printed = String::from_utf8(output.stdout).context("`psql` printed something that is not UTF-8")?;
        Ok(printed.trim_end_matches('\n').to_owned())
    }

    /// Creates a role that may log in; `attributes` such as `REPLICATION` or `IN ROLE appowner` follow the password.
    pub fn create_role(&self, name: &str, password: &str, attributes: &str) -> Result<()> {
        self.psql("postgres", &format!("CREATE ROLE {} LOGIN PASSWORD {} {attributes}", identifier(name), literal(password)))?;
        Ok(())
    }

    /// Creates a database that belongs to `owner`.
    pub fn create_database(&self, name: &str, owner: &str) -> Result<()> {
        self.psql("postgres", &format!("CREATE DATABASE {} OWNER {}", identifier(name), identifier(owner)))?;
        Ok(())
    }

    /// Stops the server and keeps its files, as an outage would.
    pub fn stop(&mut self) -> Result<()> {
        self.halt(Files::Keep)
    }

    /// Kills the server without notice and keeps its files, as a power cut would that leaves the disk's cache alone.
    pub fn kill_now(&mut self) -> Result<()> {
        let file = self.bench.folder().join("data/postmaster.pid");
        let text = fs::read_to_string(&file).context("the server does not run")?;
        let id = text.lines().next().context("the server's process has no id")?.to_owned();
        let status = Command::new("kill").args(["-KILL", &id]).status().context("cannot run `kill`")?;
        ensure!(status.success(), "process {id} could not be killed");
        self.halt(Files::Keep)
    }

    /// Kills the server without notice and removes its data directory, as a lost disk would.
    pub fn lose_data(&mut self) -> Result<()> {
        let data = self.bench.folder().join("data");
        let text = fs::read_to_string(data.join("postmaster.pid")).context("the server does not run")?;
        let id = text.lines().next().context("the server's process has no id")?.to_owned();
        let status = Command::new("kill").args(["-KILL", &id]).status().context("cannot run `kill`")?;
        ensure!(status.success(), "process {id} could not be killed");
        // Its children take a moment to notice, and may write meanwhile.
        let deadline = Instant::now() + START_WITHIN;
        while data.exists() {
            ensure!(Instant::now() < deadline, "`{}` can't be removed", data.display());
            if fs::remove_dir_all(&data).is_err() {
                thread::sleep(Duration::from_millis(10));
            }
        }
        self.halt(Files::Keep)
    }

    /// Starts it again after [`Postgres::stop`] or [`Postgres::kill_now`], on the same port.
    pub fn resume(&mut self) -> Result<()> {
        ensure!(self.watchdog.is_none(), "the server runs already");
        self.launch()
    }

    fn write_settings(&self, options: &PostgresOptions) -> Result<()> {
        let folder = self.bench.folder();
        let wal_level = match options.wal_level {
            WalLevel::Minimal => "minimal",
            WalLevel::Replica => "replica",
            WalLevel::Logical => "logical",
        };
        let on_off = |on: bool| if on { "on" } else { "off" };
        let mut lines = vec![
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("unix_socket_directories", folder.display().to_string()),
            ("password_encryption", "scram-sha-256".to_owned()),
            ("max_connections", "250".to_owned()),
            ("fsync", on_off(options.fsync).to_owned()),
            ("full_page_writes", on_off(options.fsync).to_owned()),
            ("wal_level", wal_level.to_owned()),
            ("ssl", on_off(options.tls).to_owned()),
        ];
        if options.wal_level == WalLevel::Minimal {
            lines.push(("max_wal_senders", "0".to_owned()));
        }
        if options.tls {
            let certificate = Certificate::for_localhost()?;
            self.write("authority.crt", 0o644, &certificate.authority)?;
            lines.push(("ssl_cert_file", self.write("server.crt", 0o644, &certificate.chain)?));
            lines.push(("ssl_key_file", self.write("server.key", 0o600, &certificate.key)?));
        }
        lines.extend(options.settings.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let text: String = lines.iter().map(|(name, value)| format!("{name} = {}\n", setting(value))).collect();
        let file = folder.join("data/postgresql.conf");
        let mut file = OpenOptions::new().append(true).open(&file).context("cannot open `postgresql.conf`")?;
        file.write_all(text.as_bytes()).context("cannot write `postgresql.conf`")
    }

    fn write(&self, name: &str, mode: u32, text: &str) -> Result<String> {
        let path = self.bench.folder().join(name);
        let file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| format!("cannot write `{name}`"))?;
        self.account.give(&path)?;
        Ok(path.display().to_string())
    }

    fn launch(&mut self) -> Result<()> {
        let folder = self.bench.folder();
        let logged = self.log().len();
        let watchdog = self
            .account
            .command("/bin/sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(folder)
            .arg(self.binaries.program("postgres"))
            .arg("-D")
            .arg(folder.join("data"))
            .arg("-p")
            .arg(self.port.to_string())
            // Its own group: a Ctrl-C or a test runner's kill must not take the watchdog before its work.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run `/bin/sh`")?;
        self.watchdog = Some(watchdog);

        let deadline = Instant::now() + START_WITHIN;
        while !is_ready(self.bench.folder(), self.port) {
            let log = self.log();
            let new = log.get(logged..).unwrap_or_default();
            // Whoever comes too early is turned away with the same word.
            let failed = new.lines().any(|line| line.contains("FATAL:") && !line.contains("the database system is starting up"));
            ensure!(!failed, "PostgreSQL did not start:\n{new}");
            ensure!(Instant::now() < deadline, "PostgreSQL is not ready after {START_WITHIN:?}:\n{new}");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn halt(&mut self, files: Files) -> Result<()> {
        let Some(mut watchdog) = self.watchdog.take() else { return Ok(()) };
        if let (Files::Keep, Some(input)) = (files, watchdog.stdin.as_mut()) {
            input.write_all(b"keep\n").context("the watchdog is gone")?;
        }
        // Waiting closes the pipe first, which is the watchdog's signal.
        watchdog.wait().context("cannot wait for the watchdog")?;
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Nothing to do about a failure here; the next start sweeps the rest.
        let _ = self.halt(Files::Drop);
    }
}

#[derive(Clone, Copy)]
enum Files {
    Keep,
    Drop,
}

/// The server writes its state into the eighth line of `postmaster.pid`, its port into the fourth.
fn is_ready(folder: &Path, port: u16) -> bool {
    let Ok(text) = fs::read_to_string(folder.join("data/postmaster.pid")) else { return false };
    let line = |number: usize| text.lines().nth(number).map(str::trim);
    line(7) == Some("ready") && line(3) == Some(port.to_string().as_str())
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A value in `postgresql.conf`, where a backslash is special too.
fn setting(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''").replace('\n', " "))
}

fn in_url(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests;
