//! A server of our own over restored files: reached by a socket only, by nobody else, and stopped with us.
//!
//! A small shell stands between us and the server and waits on a pipe that only we hold open: however we end, it stops the
//! server, and empties the folder unless it is told to keep it. Settings that came with the copy are not obeyed: they may name
//! programs to run.

use std::{
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{RecoveryError, Source, Tools, source::Encryption, tools::tail};

/// Runs the server; a line on its input means "stop, keep the files", an end of input "stop, drop them".
const WATCHDOG: &str = r#"
folder=$1; shift
"$@" </dev/null >>"$folder/log" 2>&1 &
server=$!
echo "$server" >"$folder/pid"
if read -r _; then keep=yes; else keep=; fi
if [ -n "$keep" ]; then kill -INT "$server" 2>/dev/null; else kill -QUIT "$server" 2>/dev/null; fi
wait "$server"
[ -n "$keep" ] || rm -rf "$folder"/* 2>/dev/null
exit 0
"#;

/// A server that runs over restored files.
#[derive(Debug)]
pub(crate) struct Server {
    watchdog: Option<Child>,
    folder: PathBuf,
    data: PathBuf,
    superuser: String,
}

impl Server {
    /// Starts a server over `data`, with `folder` for its socket and its log, and waits until it may be written to.
    pub(crate) fn start(
        tools: &Tools,
        folder: &Path,
        data: &Path,
        superuser: &str,
        settings: &[(&str, String)],
        within: Duration,
    ) -> Result<Self, RecoveryError> {
        let configuration = folder.join("server.conf");
        tools.write(&configuration, "")?;
        let doors = folder.join("server.hba");
        tools.write(&doors, "local all all trust\n")?;
        let users = folder.join("server.ident");
        tools.write(&users, "")?;
        // A rest of the server that was copied.
        for name in ["postmaster.pid", "postmaster.opts"] {
            let _gone = fs::remove_file(data.join(name));
        }
        let path = |path: &Path| path.display().to_string();
        let mut all = vec![
            ("config_file", path(&configuration)),
            ("hba_file", path(&doors)),
            ("ident_file", path(&users)),
            ("listen_addresses", String::new()),
            ("unix_socket_directories", path(folder)),
            ("max_connections", "20".to_owned()),
            ("max_prepared_transactions", "200".to_owned()),
            ("max_locks_per_transaction", "512".to_owned()),
            // Nobody reads while it catches up: then it needs no settings of the server that was copied.
            ("hot_standby", "off".to_owned()),
            ("archive_mode", "off".to_owned()),
            ("logging_collector", "off".to_owned()),
            ("max_logical_replication_workers", "0".to_owned()),
            // Extensions that act by the clock, or elsewhere, do so by workers of theirs: none is loaded.
            ("shared_preload_libraries", String::new()),
            ("autovacuum", "off".to_owned()),
        ];
        all.extend(settings.iter().cloned());
        let mut command = tools.system("/bin/sh");
        command.args(["-c", WATCHDOG, "reprieve-restored"]).arg(folder).arg(tools.served("postgres").get_program()).arg("-D").arg(data);
        for (name, value) in all {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // Its own group: a Ctrl-C must not take the watchdog before its work.
        let watchdog = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let watchdog = watchdog.map_err(|source| RecoveryError::Spawn { program: "sh".to_owned(), source })?;
        let server = Self { watchdog: Some(watchdog), folder: folder.to_owned(), data: data.to_owned(), superuser: superuser.to_owned() };
        server.wait(within)?;
        Ok(server)
    }

    fn wait(&self, within: Duration) -> Result<(), RecoveryError> {
        let deadline = Instant::now() + within;
        loop {
            if self.is_ready() {
                return Ok(());
            }
            if self.has_ended() {
                if let Some(last) = log_ended(&self.log()) {
                    return Err(RecoveryError::LogEnds { last });
                }
                return Err(RecoveryError::Check(format!("the restored server did not start: {}", self.complaint())));
            }
            if Instant::now() > deadline {
                return Err(RecoveryError::TooLong {
                    doing: format!("starting the restored server ({})", self.complaint()),
                    seconds: within.as_secs(),
                });
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The server writes its state into the eighth line of its file.
    fn is_ready(&self) -> bool {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        text.lines().nth(7).is_some_and(|line| line.trim() == "ready")
    }

    fn has_ended(&self) -> bool {
        let Ok(id) = fs::read_to_string(self.folder.join("pid")) else { return false };
        // A process that nobody has waited for yet is a zombie: it has no program any more.
        !id.trim().is_empty() && fs::read_link(format!("/proc/{}/exe", id.trim())).is_err()
    }

    /// The lines in which it says what is wrong, or its last ones.
    fn complaint(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let wrong: Vec<&str> = text.lines().filter(|line| ["FATAL:", "PANIC:", "ERROR:"].iter().any(|word| line.contains(word))).collect();
        if wrong.is_empty() { tail(&log) } else { wrong.join("; ") }
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read(self.folder.join("log")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The superuser's login for a database.
    pub(crate) fn source(&self, database: &str) -> Source {
        Source {
            host: self.folder.display().to_string(),
            port: 5432,
            user: self.superuser.clone(),
            password: String::new(),
            database: database.to_owned(),
            encryption: Encryption::Off,
        }
    }

    /// Stops it in good order and keeps its files.
    pub(crate) fn stop(mut self) -> Result<(), RecoveryError> {
        let Some(mut watchdog) = self.watchdog.take() else { return Ok(()) };
        let doing = || RecoveryError::file("stop the restored server");
        watchdog.stdin.as_mut().map_or(Ok(()), |input| input.write_all(b"keep\n")).map_err(doing())?;
        watchdog.wait().map_err(doing())?;
        Ok(())
    }
}

/// Whether recovery came to the end of the log before what it should reach; when the last transaction in it was committed, if there is one.
fn log_ended(log: &str) -> Option<Option<String>> {
    let last = |line: &str| Some(line.split_once("last completed transaction was at log time ")?.1.trim().to_owned());
    log.contains("recovery ended before configured recovery target was reached").then(|| log.lines().rev().find_map(last))
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            // Waiting closes the pipe first, which is the watchdog's signal.
            let _ended = watchdog.wait();
        }
    }
}
