//! How the server stands to what was received of it: whether the log can go on from there, and whether it does.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    time::{Duration, Instant},
};

use reprieve_operation::Timestamp;
use serde::Deserialize;

use super::{is_segment, numbered, received};
use crate::{Lsn, RecoveryError, Source, Tools, tools::run};

/// A question's longest.
const ASK: Duration = Duration::from_secs(30);
/// How often the server is asked how far it is.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long what the server had written when it was asked may take to come.
const STALLED_AFTER: Duration = Duration::from_secs(20);
/// The end of a record is rarely more zeros than this.
const TAIL: u64 = 24;
/// What of a segment is looked at for something that is not zero.
const LOOK_BYTES: u64 = 1 << 20;
/// What a server says that can't go on from where we are. Where its own tables tell, they are asked before.
const GONE: [&str; 5] = [
    "has already been removed",
    "is not in this server's history",
    "is ahead of the WAL flush position",
    "has been invalidated",
    "can no longer get changes from replication slot",
];

/// What the server says.
#[derive(Debug, Deserialize)]
pub(super) struct Standing {
    pub(super) cluster: String,
    pub(super) standby: bool,
    segment_bytes: u64,
    /// Up to where it has written.
    pub(super) flushed: Lsn,
    /// The segment with that; a standby tells none.
    file: Option<String>,
    /// Of its last checkpoint.
    timeline: u32,
    pub(super) slot: Option<Slot>,
}

/// Our slot.
#[derive(Debug, Deserialize)]
pub(super) struct Slot {
    status: Option<String>,
    pub(super) from: Option<Lsn>,
}

impl Standing {
    pub(super) fn ask(source: &Source, tools: &Tools, slot: &str) -> Result<Self, RecoveryError> {
        let sql = format!(
            "SELECT pg_catalog.json_build_object('cluster', (SELECT system_identifier FROM pg_catalog.pg_control_system())::text,
               'standby', pg_catalog.pg_is_in_recovery(),
               'segment_bytes', pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')),
               'flushed', lsn,
               'file', CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_walfile_name(lsn) END,
               'timeline', (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
               'slot', (SELECT pg_catalog.json_build_object('status', wal_status, 'from', restart_lsn)
                        FROM pg_catalog.pg_replication_slots WHERE slot_name = '{slot}'))
             FROM (SELECT CASE WHEN pg_catalog.pg_is_in_recovery()
                               THEN coalesce(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())
                               ELSE pg_catalog.pg_current_wal_flush_lsn() END AS lsn) written"
        );
        source.json(tools, &sql, ASK)
    }

    pub(super) fn timeline(&self) -> u32 {
        let of_file = self.file.as_deref().and_then(|file| u32::from_str_radix(file.get(0..8)?, 16).ok());
        of_file.unwrap_or(self.timeline)
    }

    /// The timeline and the place from which a receiver goes on; none if nothing was received.
    pub(super) fn reached(&self, folder: &Path) -> Result<Option<(u32, Lsn)>, RecoveryError> {
        let files = received(folder)?;
        let numbers = files.iter().filter_map(|(file, partial)| Some((numbered(file, self.segment_bytes)?, !partial)));
        // As it chooses itself.
        Ok(numbers.max().map(|((number, timeline), whole)| (timeline, Lsn((number + u64::from(whole)) * self.segment_bytes))))
    }

    /// Whether what the slot kept is gone, or it keeps what the server does not have.
    pub(super) fn has_lost_its_slot(&self) -> bool {
        let ahead = |slot: &Slot| !self.standby && slot.from.is_some_and(|from| from > self.flushed);
        self.slot.as_ref().is_some_and(|slot| slot.status.as_deref() == Some("lost") || ahead(slot))
    }

    /// Why the log can't go on from where we are; none if nothing speaks against it.
    pub(super) fn why_not(
        &self,
        reached: Option<(u32, Lsn)>,
        history: impl FnOnce(u32) -> Result<Vec<(u32, Lsn)>, RecoveryError>,
    ) -> Result<Option<String>, RecoveryError> {
        if self.has_lost_its_slot() {
            return Ok(Some("the server has removed what its slot was to keep: see `max_slot_wal_keep_size`".to_owned()));
        }
        // A standby may only not be there yet.
        let Some((timeline, start)) = reached.filter(|_| !self.standby) else { return Ok(None) };
        let (now, flushed) = (self.timeline(), self.flushed);
        if now == timeline {
            return Ok((start > flushed).then(|| format!("the server has gone back to {flushed}")));
        }
        if now < timeline {
            return Ok(Some(format!("the server has gone back to timeline {now}")));
        }
        Ok(match history(now)?.into_iter().find(|(of, _)| *of == timeline) {
            Some((_, end)) if start <= end => None,
            Some((_, end)) => Some(format!("the server has gone back to {end} and goes on from there on timeline {now}")),
            None => Some(format!("the server is on timeline {now}, which has no timeline {timeline} in its history")),
        })
    }
}

/// Why the log can't go on, where a receiver was told so.
pub(super) fn told_gone(error: &RecoveryError) -> Option<String> {
    let RecoveryError::Tool { said, .. } = error else { return None };
    GONE.iter().any(|gone| said.contains(gone)).then(|| format!("the server says: {said}"))
}

/// Where each older timeline ended that a timeline of the server's comes from.
pub(super) fn history(source: &Source, tools: &Tools, timeline: u32) -> Result<Vec<(u32, Lsn)>, RecoveryError> {
    let mut command = tools.client("psql");
    source.tell(&mut command).args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "replication=true"]);
    command.arg("-c").arg(format!("TIMELINE_HISTORY {timeline}"));
    let told = run(command, ASK)?;
    // The file's name comes before it.
    Ok(read_history(told.split_once('|').map_or(told.as_str(), |(_, text)| text)))
}

/// A history file: a timeline in each line, and where it ended.
pub(crate) fn read_history(text: &str) -> Vec<(u32, Lsn)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Whether what the server writes comes in.
pub(super) struct Progress {
    next: Instant,
    asked: Option<Asked>,
    /// Since it was asked last, it came.
    pub(super) well: bool,
    /// When the server was asked, and up to where it had written: all of that was received.
    pub(super) reached: Option<(Timestamp, Lsn)>,
}

struct Asked {
    since: Instant,
    at: Timestamp,
    flushed: Lsn,
    file: String,
    /// The bytes of the file.
    bytes: u64,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { next: Instant::now(), asked: None, well: false, reached: None }
    }

    /// Looks whether it came; an error if it has not for too long. `ask` asks the server.
    pub(super) fn look(
        &mut self,
        folder: &Path,
        now: Timestamp,
        ask: impl FnOnce() -> Result<Standing, RecoveryError>,
    ) -> Result<(), Stalled> {
        if let Some(asked) = &self.asked {
            if has_received(folder, &asked.file, asked.bytes).map_err(Stalled::Unknown)? {
                self.reached = Some((asked.at, asked.flushed));
                self.well = true;
                self.asked = None;
            } else if asked.since.elapsed() > STALLED_AFTER {
                return Err(Stalled::For(format!(
                    "nothing was received for {} s, and the server has written up to {}",
                    asked.since.elapsed().as_secs(),
                    asked.flushed
                )));
            }
        }
        if self.asked.is_none() && Instant::now() >= self.next {
            self.next = Instant::now() + ASK_EVERY;
            let standing = ask().map_err(|error| {
                self.well = false;
                Stalled::Unknown(error)
            })?;
            match standing.file {
                Some(file) => {
                    let bytes = standing.flushed.0.saturating_sub(1) % standing.segment_bytes.max(1) + 1;
                    self.asked = Some(Asked { since: Instant::now(), at: now, flushed: standing.flushed, file, bytes });
                }
                // What a standby has is not asked for so closely.
                None => self.well = true,
            }
        }
        Ok(())
    }
}

/// Why nothing is known to come in.
pub(super) enum Stalled {
    /// It does not.
    For(String),
    /// Nobody tells.
    Unknown(RecoveryError),
}

/// Whether a segment was received up to there. It is filled from its beginning, and zeros before.
fn has_received(folder: &Path, file: &str, bytes: u64) -> Result<bool, RecoveryError> {
    if received(folder)?.iter().any(|(there, partial)| is_segment(there) && (there.as_str() > file || (!partial && there == file))) {
        return Ok(true);
    }
    let mut found = Vec::new();
    let mut read = || {
        let mut partial = fs::File::open(folder.join(format!("{file}.partial")))?;
        partial.seek(SeekFrom::Start(bytes.saturating_sub(TAIL)))?;
        partial.take(LOOK_BYTES).read_to_end(&mut found)
    };
    match read() {
        Ok(_) => Ok(found.iter().any(|byte| *byte != 0)),
        // It comes, or was just closed.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(RecoveryError::file(format!("read `{file}` of the write-ahead log"))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_go_on_is_told_from_what_cannot() {
        let standing = |timeline: u32, flushed: u64, status: &str| Standing {
            cluster: "1".to_owned(),
            standby: false,
            segment_bytes: 16 << 20,
            flushed: Lsn(flushed),
            file: Some(format!("{timeline:08X}0000000000000001")),
            timeline: 1,
            slot: Some(Slot { status: Some(status.to_owned()), from: None }),
        };
        let forks = || vec![(1, Lsn(0x500)), (2, Lsn(0x900))];
        for (server, reached, goes_on) in [
            (standing(1, 0x400, "reserved"), None, true),
            (standing(1, 0x400, "reserved"), Some((1, Lsn(0x400))), true),
            (standing(1, 0x400, "reserved"), Some((1, Lsn(0x401))), false),
            (standing(1, 0x400, "lost"), Some((1, Lsn(0x100))), false),
            (standing(1, 0x400, "reserved"), Some((2, Lsn(0x100))), false),
            (standing(3, 0x999, "reserved"), Some((1, Lsn(0x500))), true),
            (standing(3, 0x999, "reserved"), Some((1, Lsn(0x501))), false),
            (standing(3, 0x999, "reserved"), Some((2, Lsn(0x600))), true),
            (Standing { standby: true, ..standing(1, 0x400, "reserved") }, Some((1, Lsn(0x800))), true),
        ] {
            let found = server.why_not(reached, |_| Ok(forks())).expect("asked");
            assert_eq!(found.is_none(), goes_on, "{server:?} {reached:?}: {found:?}");
        }
        let other = standing(3, 0x999, "reserved").why_not(Some((1, Lsn(1))), |_| Ok(vec![(2, Lsn(9))]));
        assert!(other.is_ok_and(|why| why.is_some_and(|why| why.contains("history"))));
    }

    #[test]
    fn a_history_is_read() {
        let text = "1\t0/8000060\tbefore 2026-05-12\n\n# a remark\n2\t1/0\tno recovery target specified\n";
        assert_eq!(read_history(text), [(1, Lsn(0x800_0060)), (2, Lsn(1 << 32))]);
    }

    #[test]
    fn what_came_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = "000000010000000000000002";
        let has = |bytes| has_received(folder.path(), file, bytes).expect("looked");
        assert!(!has(1));
        let mut segment = vec![0; 4_096];
        segment[..1_000].fill(1);
        fs::write(folder.path().join(format!("{file}.partial")), segment).expect("written");
        assert!(has(1) && has(1_000) && !has(2_000));
        fs::write(folder.path().join("000000010000000000000003.partial"), "").expect("written");
        assert!(has(4_096), "a newer one has begun");
    }
}
