//! Taking a snapshot: `pg_dump` into `pg_restore`, whose verbose output names every object's oid and dependencies.
//!
//! Passwords go through the environment. Columns' numbers and extensions' versions are not in a dump; `psql` adds them as comments.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::dump::{COLUMN, Definitions, EXTENSION, ReadError};

/// PostgreSQL's programs.
#[derive(Clone, Debug)]
pub struct Tools {
    folder: PathBuf,
    version: u32,
}

/// What to take, and how much of time and memory it may cost.
#[derive(Clone, Debug)]
pub struct Scope {
    /// These schemas only; all if there are none.
    pub schemas: Vec<String>,
    /// A snapshot that somebody has exported, to see the database as they do.
    pub snapshot: Option<String>,
    /// The longest that it may take.
    pub timeout: Duration,
    /// The longest text.
    pub max_bytes: usize,
}

impl Default for Scope {
    fn default() -> Self {
        Scope { schemas: Vec::new(), snapshot: None, timeout: Duration::from_secs(60), max_bytes: 256 << 20 }
    }
}

/// Why a snapshot could not be taken.
#[derive(Debug, Error)]
pub enum TakeError {
    /// No program is as new as the server.
    #[error("no `pg_dump` of version {0} or later is installed")]
    NoTools(u32),
    /// A program did not start, or its output could not be read.
    #[error("cannot run `{program}`")]
    Run {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("`{program}` failed: {said}")]
    Failed {
        /// The program.
        program: &'static str,
        /// The end of what it said.
        said: String,
    },
    /// It took too long.
    #[error("the schema dump took longer than {0:?}")]
    TooSlow(Duration),
    /// It is too long.
    #[error("the schema dump is longer than {0} bytes")]
    TooLong(usize),
    /// It is no dump.
    #[error("the schema dump cannot be read")]
    Read(#[from] ReadError),
}

impl Tools {
    /// Finds the newest programs that know a server of this major version: in Debian's folders, else in the path.
    pub fn find(server_version: u32) -> Result<Tools, TakeError> {
        let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let newest = folders
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let version: u32 = entry.file_name().to_str()?.parse().ok()?;
                Some(Tools { folder: entry.path().join("bin"), version })
            })
            .filter(|tools| tools.version >= server_version && tools.program("pg_dump").exists())
            .max_by_key(|tools| tools.version);
        newest.or_else(|| Tools::in_path(server_version)).ok_or(TakeError::NoTools(server_version))
    }

    /// Takes the programs in a folder as they are.
    #[must_use]
    pub fn in_folder(folder: &Path, version: u32) -> Tools {
        Tools { folder: folder.to_owned(), version }
    }

    /// Their major version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    fn in_path(server_version: u32) -> Option<Tools> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find_map(|folder| {
            let output = std::process::Command::new(folder.join("pg_dump")).arg("--version").output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            let digits = text.split(|letter: char| !letter.is_ascii_digit()).find(|part| !part.is_empty())?;
            let version = digits.parse().ok().filter(|version| *version >= server_version)?;
            Some(Tools { folder, version })
        })
    }

    fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Takes a snapshot of all definitions.
pub async fn take(tools: &Tools, url: &str, scope: &Scope) -> Result<Definitions, TakeError> {
    match tokio::time::timeout(scope.timeout, take_text(tools, url, scope)).await {
        Ok(text) => Ok(Definitions::parse(&text?)?),
        Err(_) => Err(TakeError::TooSlow(scope.timeout)),
    }
}

/// What a dump leaves out, as comments in its own style. Names with line ends are left out, and their tables then count as unknown.
const REST: &str = "SELECT '-- Reprieve column: ' || a.attrelid || ' ' || a.attnum || ' ' || a.attname \
     FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
     WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND c.relnamespace NOT IN \
     (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema', 'pg_toast')) \
     AND pg_catalog.strpos(a.attname, E'\\n') = 0 AND pg_catalog.strpos(a.attname, E'\\r') = 0 \
     UNION ALL SELECT '-- Reprieve extension: ' || oid || ' ' || extversion FROM pg_catalog.pg_extension";

async fn take_text(tools: &Tools, url: &str, scope: &Scope) -> Result<String, TakeError> {
    let (address, password) = without_password(url);
    let secret = |command: &mut Command| {
        command.env("PGCLIENTENCODING", "UTF8").env("PGCONNECT_TIMEOUT", "10");
        if let Some(password) = &password {
            command.env("PGPASSWORD", password);
        }
    };
    let mut arguments: Vec<OsString> = ["--schema-only", "--format=custom", "--compress=0", "--no-sync", "--dbname"].map(Into::into).into();
    arguments.push(address.clone().into());
    arguments.extend(scope.schemas.iter().map(|schema| format!("--schema={}", crate::lex::quote(schema)).into()));
    arguments.extend(scope.snapshot.iter().map(|snapshot| format!("--snapshot={snapshot}").into()));
    let mut dump = Command::new(tools.program("pg_dump"));
    secret(dump.args(arguments));
    let mut dump = start(&mut dump, "pg_dump", Stdio::null())?;
    let archive = dump.stdout.take().map(TryInto::try_into).transpose().map_err(|source| TakeError::Run { program: "pg_dump", source })?;
    let mut restore = Command::new(tools.program("pg_restore"));
    restore.args(["--verbose", "--file=-"]);
    let restore = start(&mut restore, "pg_restore", archive.unwrap_or_else(Stdio::null))?;
    let mut psql = Command::new(tools.program("psql"));
    psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--dbname"])
        .arg(address)
        .arg("--command")
        .arg(REST);
    secret(&mut psql);
    let rest = start(&mut psql, "psql", Stdio::null())?;
    let (dumped, text, rest) = tokio::join!(
        collect(dump, "pg_dump", scope.max_bytes),
        collect(restore, "pg_restore", scope.max_bytes),
        collect(rest, "psql", scope.max_bytes)
    );
    // The first one's error is the cause of the second one's.
    dumped?;
    let (text, rest) = (text?, rest?);
    let rest: String =
        rest.lines().filter(|line| line.starts_with(COLUMN) || line.starts_with(EXTENSION)).map(|line| format!("{line}\n")).collect();
    Ok(format!("{text}{rest}"))
}

fn start(command: &mut Command, program: &'static str, input: Stdio) -> Result<Child, TakeError> {
    command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| TakeError::Run { program, source })
}

async fn collect(mut child: Child, program: &'static str, max_bytes: usize) -> Result<String, TakeError> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let failed = |source| TakeError::Run { program, source };
    let (text, said) = tokio::join!(read(stdout, max_bytes), tail(stderr));
    let text = text.map_err(failed)?;
    if text.len() > max_bytes {
        return Err(TakeError::TooLong(max_bytes));
    }
    let status: ExitStatus = child.wait().await.map_err(failed)?;
    if !status.success() {
        return Err(TakeError::Failed { program, said: said.trim().to_owned() });
    }
    String::from_utf8(text).map_err(|error| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))
}

async fn read(stream: Option<impl AsyncRead + Unpin>, max_bytes: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// The last of what a program said; all of it is read, so that it never waits for us.
async fn tail(stream: Option<impl AsyncRead + Unpin>) -> String {
    const KEPT: usize = 2000;
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return String::new() };
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Takes the password out of a URL: arguments can be read by everybody on the machine.
fn without_password(url: &str) -> (String, Option<String>) {
    let Some((scheme, rest)) = url.split_once("://") else { return (url.to_owned(), None) };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((user, host)) = authority.rsplit_once('@') else { return (url.to_owned(), None) };
    let Some((user, password)) = user.split_once(':') else { return (url.to_owned(), None) };
    (format!("{scheme}://{user}@{host}{path}"), Some(decoded(password)))
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut result = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let code = text.get(at + 1..at + 3).filter(|_| *byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        result.push(code.unwrap_or(*byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&result).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_leave_the_address() {
        let check = |url: &str, address: &str, password: Option<&str>| {
            assert_eq!(without_password(url), (address.to_owned(), password.map(str::to_owned)));
        };
        check("postgres://a:b%40c@h:5/d?x=y", "postgres://a@h:5/d?x=y", Some("b@c"));
        check("postgres://a@h/d", "postgres://a@h/d", None);
        check("postgres://h/d?options=a:b@c", "postgres://h/d?options=a:b@c", None);
        check("host=h dbname=d", "host=h dbname=d", None);
    }
}
