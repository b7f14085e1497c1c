//! The receiver: `pg_receivewal`, behind a small shell that ends it when we end, however that is. One that stays would keep the slot,
//! and the next gateway would get none.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use crate::{
    RecoveryError, Source, Tools,
    tools::{collect, name, tail},
};

/// Runs the receiver; the end of its input, which only we hold open, means "end it". A guard of its own reads that, so that it happens
/// although the receiver does not answer, or the shell is gone.
const WATCHDOG: &str = r#"
exec 3<&0
"$@" 3<&- </dev/null &
receiver=$!
{ read -r _ <&3; kill -KILL "$receiver"; } </dev/null >/dev/null 2>&1 &
guard=$!
exec 3<&-
wait "$receiver"; ended=$?
kill -KILL "$guard" 2>/dev/null
exit "$ended"
"#;

/// A connection whose other end is gone ends by itself, sooner than by the system's own rules.
const CONNECTION: &str = "keepalives=1 keepalives_idle=10 keepalives_interval=5 keepalives_count=3 tcp_user_timeout=20000";

/// `pg_receivewal`, stopped when dropped.
pub(super) struct Receiver {
    watchdog: Child,
    said: Option<thread::JoinHandle<Vec<u8>>>,
}

impl Receiver {
    pub(super) fn start(source: &Source, tools: &Tools, folder: &Path, slot: &str, synchronous: bool) -> Result<Self, RecoveryError> {
        let receiver = tools.client("pg_receivewal");
        let mut command = tools.here("/bin/sh");
        source.tell(&mut command).env_remove("PGDATABASE").env("PGAPPNAME", slot);
        command.args(["-c", WATCHDOG, "reprieve-receiver"]).arg(receiver.get_program()).arg("--directory").arg(folder);
        command.args(["--slot", slot, "--dbname", CONNECTION, "--no-loop", "--no-password", "--status-interval=1"]);
        if synchronous {
            command.arg("--synchronous");
        }
        // Its own group: a Ctrl-C must not take the watchdog before its work.
        let spawned = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut watchdog = spawned.map_err(|source| RecoveryError::Spawn { program: name(&receiver), source })?;
        let said = Some(collect(watchdog.stderr.take()));
        Ok(Self { watchdog, said })
    }

    pub(super) fn check(&mut self) -> Result<(), RecoveryError> {
        match self.watchdog.try_wait() {
            Ok(None) => Ok(()),
            _ => {
                let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
                Err(RecoveryError::Tool { program: "pg_receivewal".to_owned(), said: tail(&said) })
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Waiting closes the pipe first, which is the guard's signal.
        let _ended = self.watchdog.wait();
    }
}

/// Ends receivers into this folder that an earlier gateway left.
pub(super) fn end_stale(folder: &Path) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let mut arguments = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let is_receiver = arguments.next().is_some_and(|program| Path::new(&*program).ends_with("pg_receivewal"));
        if is_receiver && arguments.any(|argument| Path::new(&*argument) == folder) {
            let id = process.file_name();
            tracing::warn!(process = %id.to_string_lossy(), "a receiver of an earlier gateway is ended");
            let _gone = Command::new("kill").arg("-KILL").arg(id).stderr(Stdio::null()).status();
        }
    }
}
