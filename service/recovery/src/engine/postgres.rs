//! PostgreSQL, by its own programs: either the whole cluster, file by file, or one database's contents.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    thread::JoinHandle,
    time::Duration,
};

use serde::Deserialize;

use super::{Copying, Ended, Engine, EngineChoice, EngineKind, Origin, Wal};
use crate::{
    RecoveryError, Source, Tools,
    manifest::Lsn,
    survey::{Survey, survey, total},
    tools::{collect, name, tail, widen},
};

/// A question's longest.
const ASK: Duration = Duration::from_secs(30);

/// A server, and the programs that copy it.
pub(super) struct Postgres {
    source: Source,
    tools: Tools,
    server: Server,
    kind: EngineKind,
}

#[derive(Deserialize)]
struct Server {
    version: String,
    number: u32,
    cluster: String,
    superuser: String,
    replicates: bool,
    segment_bytes: u64,
}

impl Server {
    fn ask(source: &Source, tools: &Tools) -> Result<Self, RecoveryError> {
        let sql = "SELECT pg_catalog.json_build_object('version', pg_catalog.version(),
             'number', pg_catalog.current_setting('server_version_num')::int / 10000,
             'cluster', (SELECT system_identifier FROM pg_catalog.pg_control_system())::text,
             'segment_bytes', pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')),
             'superuser', (SELECT rolname FROM pg_catalog.pg_roles WHERE oid = 10),
             'replicates', (SELECT rolsuper OR rolreplication FROM pg_catalog.pg_roles WHERE rolname = current_user))";
        source.json(tools, sql, ASK)
    }
}

impl Postgres {
    pub(super) fn open(source: &Source, choice: EngineChoice) -> Result<Self, RecoveryError> {
        let server = Server::ask(source, &Tools::find(None)?)?;
        // A newer `pg_dump` reads older servers; `pg_basebackup` and what restores have to fit.
        let tools = Tools::find(Some(server.number))?;
        let kind = choice.kind(server.replicates).ok_or_else(|| {
            let what = "may not replicate: ALTER ROLE … REPLICATION, or engine = \"logical\"";
            RecoveryError::Refused(format!("the role `{}` {what}", source.user))
        })?;
        Ok(Self { source: source.clone(), tools, server, kind })
    }

    /// How far its log has been written. A standby writes none.
    pub(super) fn written(&self) -> Result<Lsn, RecoveryError> {
        let told = self.source.sql(&self.tools, "SELECT pg_catalog.pg_current_wal_insert_lsn()", ASK)?;
        told.parse().map_err(RecoveryError::Damaged)
    }

    /// Their files lie where others may, too: nothing that is brought back is put there.
    pub(super) fn has_no_tablespaces(&self) -> Result<(), RecoveryError> {
        match self.source.sql(&self.tools, "SELECT count(*) FROM pg_catalog.pg_tablespace", ASK)?.as_str() {
            "2" => Ok(()),
            count => Err(RecoveryError::Refused(format!("the server has tablespaces of its own ({count} with the usual two)"))),
        }
    }

    fn is_physical(&self) -> bool {
        self.kind == EngineKind::Physical
    }

    /// The program, ready to run; it writes the copy to its output.
    fn program(&self) -> Command {
        if self.is_physical() {
            let mut command = self.tools.client("pg_basebackup");
            self.source.tell(&mut command).args([
                "-D",
                "-",
                "--format=tar",
                "--wal-method=fetch",
                "--checkpoint=fast",
                "--no-password",
                "--verbose",
            ]);
            // It takes the database's name for one it may not have.
            command.env_remove("PGDATABASE");
            command
        } else {
            let mut command = self.tools.client("pg_dump");
            self.source.tell(&mut command).args(["--format=custom", "--compress=0", "--no-password", "--exclude-schema=reprieve"]);
            command
        }
    }
}

impl Engine for Postgres {
    fn origin(&self) -> Origin {
        Origin {
            kind: self.kind,
            version: self.server.version.clone(),
            major: self.server.number,
            cluster: self.server.cluster.clone(),
            address: self.source.address(),
            superuser: self.server.superuser.clone(),
            database: self.source.database.clone(),
            segment_bytes: self.server.segment_bytes,
        }
    }

    fn survey(&mut self) -> Result<Survey, RecoveryError> {
        survey(&self.source, &self.tools, self.kind != EngineKind::Logical, false)
    }

    fn emptiness(&self, survey: &Survey) -> Option<String> {
        (total(survey) == 0).then(|| format!("no table at {} has a single row that may be counted", self.source.address()))
    }

    fn start(&mut self) -> Result<Box<dyn Copying>, RecoveryError> {
        let kept = if self.is_physical() { KeptWal::by(&self.source, &self.tools) } else { None };
        Ok(Box::new(Running::start(self.program(), self.is_physical(), kept)?))
    }
}

/// A program that writes a copy to its output.
struct Running {
    name: String,
    child: Child,
    output: Option<ChildStdout>,
    said: JoinHandle<Vec<u8>>,
    is_physical: bool,
    // Kept on the server until the copy is made.
    _kept: Option<KeptWal>,
}

impl Running {
    fn start(mut command: Command, is_physical: bool, kept: Option<KeptWal>) -> Result<Self, RecoveryError> {
        let name = name(&command);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| RecoveryError::Spawn { program: name.clone(), source })?;
        let said: Option<ChildStderr> = child.stderr.take();
        child.stdout.iter().for_each(widen);
        Ok(Self { name, output: child.stdout.take(), said: collect(said), child, is_physical, _kept: kept })
    }
}

impl Copying for Running {
    fn stream(&mut self) -> Result<Box<dyn Read>, RecoveryError> {
        match self.output.take() {
            Some(output) => Ok(Box::new(output)),
            None => Err(RecoveryError::Damaged("a program has no output".to_owned())),
        }
    }

    /// It has ended, or nobody reads its output any more.
    fn end(mut self: Box<Self>) -> Result<Ended, RecoveryError> {
        let status = self.child.wait().map_err(|source| RecoveryError::Spawn { program: self.name.clone(), source })?;
        let said = self.said.join().unwrap_or_default();
        if !status.success() {
            return Err(RecoveryError::Tool { program: self.name, said: tail(&said) });
        }
        let wal = if self.is_physical { Some(wal(&String::from_utf8_lossy(&said))?) } else { None };
        Ok(Ended { wal, elsewhere: None })
    }
}

/// What `pg_basebackup` said: the write-ahead log that belongs to the copy.
fn wal(said: &str) -> Result<Wal, RecoveryError> {
    let after = |mark: &str| said.lines().find_map(|line| Some(line.split_once(mark)?.1.trim().to_owned()));
    let start = after("write-ahead log start point: ").and_then(|text| {
        let (lsn, timeline) = text.split_once(" on timeline ")?;
        Some((lsn.parse::<Lsn>().ok()?, timeline.parse::<u32>().ok()?))
    });
    let end = after("write-ahead log end point: ").and_then(|text| text.parse::<Lsn>().ok());
    match (start, end) {
        (Some((start, timeline)), Some(end)) if start < end => Ok((timeline, start, end)),
        _ => Err(RecoveryError::Damaged("`pg_basebackup` did not say which write-ahead log belongs to the copy".to_owned())),
    }
}

/// A slot that keeps the write-ahead log of a copy on the server until it is made. It goes with its connection.
struct KeptWal(Child);

impl KeptWal {
    /// None where the server gives no slot; a copy whose log is gone then fails by itself.
    fn by(source: &Source, tools: &Tools) -> Option<Self> {
        let mut command = tools.client("psql");
        source.tell(&mut command).args(["-X", "-q", "-A", "-t", "-f", "-"]);
        let mut kept = Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?);
        let sql = format!(
            "SELECT slot_name FROM pg_catalog.pg_create_physical_replication_slot('reprieve_copy_{:08x}', true, true);\nSELECT 'asked';\n",
            rand::random::<u32>()
        );
        let input = kept.0.stdin.as_mut()?;
        input.write_all(sql.as_bytes()).and_then(|()| input.flush()).ok()?;
        kept.wait_for_answer()
    }

    fn wait_for_answer(mut self) -> Option<Self> {
        let mut lines = BufReader::new(self.0.stdout.take()?).lines();
        let first = lines.next()?.ok()?;
        if first.starts_with("reprieve_copy_") { Some(self) } else { None }
    }
}

impl Drop for KeptWal {
    fn drop(&mut self) {
        // The end of its input ends it; the slot goes with the connection.
        drop(self.0.stdin.take());
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_that_belongs_to_a_copy_is_read() {
        let said = "pg_basebackup: initiating base backup\npg_basebackup: write-ahead log start point: 0/2000028 on timeline 1\n\
                    pg_basebackup: write-ahead log end point: 0/2000100\npg_basebackup: base backup completed\n";
        assert_eq!(wal(said).expect("said"), (1, Lsn(0x200_0028), Lsn(0x200_0100)));
        for wrong in ["", "write-ahead log end point: 0/2000100", &said.replace("end point: 0/2000100", "end point: 0/1")] {
            assert!(wal(wrong).is_err(), "{wrong}");
        }
    }
}
