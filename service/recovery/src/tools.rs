//! Tools: PostgreSQL's own programs, and as whom they run.
//!
//! Debian keeps them in `/usr/lib/postgresql/VERSION/bin`. A copy is restored by the programs of the version that it is of.
//! `REPRIEVE_POSTGRES_BIN` names another folder.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::{
        fd::AsFd,
        unix::{
            fs::{MetadataExt as _, PermissionsExt as _, chown},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::RecoveryError;

/// What is given to a program at once, or taken from it.
pub(crate) const PIPE: usize = 1 << 20;
/// What a program says is kept up to here.
const SAID_BYTES: usize = 2_000;
/// And what it answers up to here.
const ANSWER_BYTES: u64 = 1 << 30;

/// The programs of one PostgreSQL.
#[derive(Debug, Clone)]
pub struct Tools {
    folder: PathBuf,
    account: Account,
}

/// As whom servers and what unpacks their files run: PostgreSQL refuses to run as root.
#[derive(Debug, Clone, Copy)]
enum Account {
    Own,
    Lent { user: u32, group: u32 },
}

impl Tools {
    /// The programs of a version, or the newest there are.
    pub fn find(major: Option<u32>) -> Result<Self, RecoveryError> {
        let none = || RecoveryError::NoTools(major.map_or_else(|| "15 or later".to_owned(), |major| major.to_string()));
        let account = Account::find()?;
        #[allow(clippy::disallowed_methods, reason = "where programs are is the environment's to say")]
        if let Some(folder) = std::env::var_os("REPRIEVE_POSTGRES_BIN") {
            return Ok(Self { folder: folder.into(), account });
        }
        let root = Path::new("/usr/lib/postgresql");
        let versions = fs::read_dir(root).map_err(|_| none())?;
        let versions = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let fits =
            |version: &u32| root.join(version.to_string()).join("bin/postgres").exists() && major.is_none_or(|major| major == *version);
        let found = versions.filter(fits).max().filter(|version| *version >= 15).ok_or_else(none)?;
        Ok(Self { folder: root.join(found.to_string()).join("bin"), account })
    }

    /// A program, run as ourselves: clients.
    pub(crate) fn client(&self, program: &str) -> Command {
        plain(Command::new(self.folder.join(program)))
    }

    /// A program of the system, run as ourselves.
    pub(crate) fn here(&self, program: &str) -> Command {
        plain(Command::new(program))
    }

    /// A program, run as the account that servers have.
    pub(crate) fn served(&self, program: &str) -> Command {
        self.lend(plain(Command::new(self.folder.join(program))))
    }

    /// A program of the system, run as the account that servers have.
    pub(crate) fn system(&self, program: &str) -> Command {
        self.lend(plain(Command::new(program)))
    }

    fn lend(&self, mut command: Command) -> Command {
        if let Account::Lent { user, group } = self.account {
            command.uid(user).gid(group);
        }
        command
    }

    /// Makes a folder that only the account that servers have may look into. It must not be there yet, or be empty.
    pub(crate) fn own_folder(&self, path: &Path) -> Result<(), RecoveryError> {
        let doing = || format!("make `{}`", path.display());
        match fs::create_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let mut entries = fs::read_dir(path).map_err(RecoveryError::file(doing()))?;
                if entries.next().is_some() {
                    return Err(RecoveryError::Refused(format!(
                        "`{}` is not empty: a copy is restored into a new place only",
                        path.display()
                    )));
                }
            }
            Err(error) => return Err(RecoveryError::file(doing())(error)),
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(RecoveryError::file(doing()))?;
        self.give(path)
    }

    /// Writes a file that belongs to the account that servers have.
    pub(crate) fn write(&self, path: &Path, text: &str) -> Result<(), RecoveryError> {
        let doing = || format!("write `{}`", path.display());
        fs::write(path, text).map_err(RecoveryError::file(doing()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(RecoveryError::file(doing()))?;
        self.give(path)
    }

    fn give(&self, path: &Path) -> Result<(), RecoveryError> {
        match self.account {
            Account::Own => Ok(()),
            Account::Lent { user, group } => {
                chown(path, Some(user), Some(group)).map_err(RecoveryError::file(format!("give `{}` to the server", path.display())))
            }
        }
    }
}

impl Account {
    fn find() -> Result<Self, RecoveryError> {
        let own = fs::metadata("/proc/self").map_err(RecoveryError::file("find out who we are"))?;
        if own.uid() != 0 {
            return Ok(Self::Own);
        }
        let passwd = fs::read_to_string("/etc/passwd").map_err(RecoveryError::file("read /etc/passwd"))?;
        let ids = |name: &str| {
            passwd.lines().find_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                let (user, group) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
                (*fields.first()? == name && user != 0).then_some(Self::Lent { user, group })
            })
        };
        ids("postgres").or_else(|| ids("nobody")).ok_or(RecoveryError::NoAccount)
    }
}

/// Messages in English, nothing of the caller's connection settings, and a folder that everybody may enter.
fn plain(mut command: Command) -> Command {
    for name in [
        "PGHOST",
        "PGHOSTADDR",
        "PGPORT",
        "PGUSER",
        "PGPASSWORD",
        "PGDATABASE",
        "PGSERVICE",
        "PGOPTIONS",
        "PGSSLMODE",
        "PGSSLROOTCERT",
        "PGDATA",
    ] {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").env("TZ", "UTC").current_dir("/").stdin(Stdio::null());
    command
}

/// Runs a program to its end and gives what it printed.
pub(crate) fn run(command: Command, within: Duration) -> Result<String, RecoveryError> {
    run_and_tell(command, within, str::to_owned)
}

/// The same for a program that says too much where it fails: `short` keeps of it what matters.
pub(crate) fn run_and_tell(command: Command, within: Duration, short: fn(&str) -> String) -> Result<String, RecoveryError> {
    let program = name(&command);
    said(answered(command, within)?, &program, short)
}

/// The same for a program that reads `input`.
pub(crate) fn run_with(mut command: Command, input: String, within: Duration) -> Result<String, RecoveryError> {
    let program = name(&command);
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| RecoveryError::Spawn { program: program.clone(), source })?;
    said(ended(child, &program, Some(input), within)?, &program, str::to_owned)
}

/// The same, and gives all that it said, also where it failed.
pub(crate) fn answered(mut command: Command, within: Duration) -> Result<Output, RecoveryError> {
    let program = name(&command);
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = spawned.map_err(|source| RecoveryError::Spawn { program: program.clone(), source })?;
    ended(child, &program, None, within)
}

fn said(output: Output, program: &str, short: fn(&str) -> String) -> Result<String, RecoveryError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned());
    }
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    Err(RecoveryError::Tool { program: program.to_owned(), said: tail(short(&String::from_utf8_lossy(said)).as_bytes()) })
}

fn ended(mut child: Child, program: &str, input: Option<String>, within: Duration) -> Result<Output, RecoveryError> {
    let writer = input.and_then(|input| {
        let mut into = child.stdin.take()?;
        // A program that fails early closes its input early; its exit code tells.
        Some(thread::spawn(move || drop(into.write_all(input.as_bytes()))))
    });
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let out = thread::spawn(move || out.map(|out| read_all(out.take(ANSWER_BYTES))).unwrap_or_default());
    let err = thread::spawn(move || err.map(read_all).unwrap_or_default());
    let deadline = Instant::now() + within;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                let _ended = child.kill().and_then(|()| child.wait());
                return Err(RecoveryError::TooLong { doing: format!("`{program}`"), seconds: within.as_secs() });
            }
            Err(source) => return Err(RecoveryError::Spawn { program: program.to_owned(), source }),
        }
    };
    if let Some(writer) = writer {
        let _written = writer.join();
    }
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    Ok(Output { status, stdout: out, stderr: err })
}

fn read_all(mut from: impl std::io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What could not be read is missing in a message.
    let _read = from.read_to_end(&mut bytes);
    bytes
}

/// The end of what a program said: errors come last.
pub(crate) fn tail(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let text = text.trim();
    let from = text.char_indices().rev().nth(SAID_BYTES).map_or(0, |(at, _)| at);
    text[from..].to_owned()
}

pub(crate) fn name(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// How much room there is where `path` is.
pub(crate) fn free_bytes(path: &Path) -> Result<u64, RecoveryError> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|error| RecoveryError::file(format!("ask how much room `{}` has", path.display()))(error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Makes a pipe hold as much: a small one has both sides wait for each other. What the system does not allow stays as it is.
pub(crate) fn widen(pipe: &impl AsFd) {
    let _as_it_is = rustix::pipe::fcntl_setpipe_size(pipe, PIPE);
}

/// Reads the rest of a stream, for its thread.
pub(crate) fn collect(from: Option<impl std::io::Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || from.map(|from| read_all(from.take(1 << 20))).unwrap_or_default())
}
