//! What is brought back from pgBackRest's repository: the files that the vault's list names, and the log that is archived there.
//!
//! pgBackRest looks at each file of a copy that it restores. It does not look at the log, and a server takes what it can't read for the
//! log's end: so all of it is brought first, without a gap, and compared with the checksum that it was archived under.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    path::Path,
};

use sha1::{Digest as _, Sha1};

use super::{Ground, Phases, STEP, Supply, each, open_copy};
use crate::{
    Contents, Manifest, RecoveryError, Stanza, Tools,
    manifest::Lsn,
    pgbackrest::Elsewhere,
    wal::{is_history, is_segment, numbered},
};

/// The longest list of files.
const LIST_BYTES: u64 = 1 << 30;
/// The digits of a checksum.
const CHECKSUM: usize = 40;

/// A copy in a repository.
pub(super) struct FromRepository<'a> {
    ground: Ground<'a>,
    tools: &'a Tools,
    manifest: &'a Manifest,
    contents: &'a Contents,
    stanza: &'a Stanza,
    elsewhere: &'a Elsewhere,
    log: Vec<Part>,
}

/// A file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    file: String,
    /// What it was archived under; a timeline's history has none.
    checksum: Option<String>,
}

impl<'a> FromRepository<'a> {
    pub(super) fn new(
        ground: Ground<'a>,
        tools: &'a Tools,
        manifest: &'a Manifest,
        contents: &'a Contents,
        elsewhere: &'a Elsewhere,
    ) -> Result<Self, RecoveryError> {
        let stanza = stanza_of(ground, elsewhere)?;
        Ok(Self { ground, tools, manifest, contents, stanza, elsewhere, log: Vec::new() })
    }
}

/// The stanza of a copy; the settings have to name it.
pub(crate) fn stanza_of<'a>(ground: Ground<'a>, elsewhere: &Elsewhere) -> Result<&'a Stanza, RecoveryError> {
    ground.stanza.filter(|stanza| stanza.name == elsewhere.stanza).ok_or_else(|| {
        RecoveryError::Refused(format!("the copy lies in pgBackRest's stanza `{}`, which the settings do not name", elsewhere.stanza))
    })
}

impl Supply for FromRepository<'_> {
    fn find_log(&mut self, after: bool, _: bool) -> Result<u64, RecoveryError> {
        let info = self.stanza.info(self.tools)?;
        let archive = info.find(&self.elsewhere.label)?.archive.clone().unwrap_or_default();
        if !archive.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            return Err(RecoveryError::Damaged(format!("`{archive}` is no place of a log in pgBackRest's repository")));
        }
        let folder = format!("archive/{}/{archive}", self.stanza.name);
        let files = self.stanza.files(self.tools, &folder)?;
        let (timeline, from, to) =
            self.manifest.wal.ok_or_else(|| RecoveryError::Damaged("the manifest tells nothing of the copy's log".to_owned()))?;
        let newest = newest_timeline(&files, timeline);
        let history =
            if newest == timeline { String::new() } else { self.stanza.file(self.tools, &format!("{folder}/{newest:08X}.history"))? };
        let log = Log { parts: parts(&files, self.manifest.segment_bytes), ancestors: ancestors(&history)?, newest };
        self.log = log.choose(self.manifest.segment_bytes, from, to, after)?;
        let histories = files.iter().filter(|file| is_history(file)).map(|file| Part { file: file.clone(), checksum: None });
        self.log.extend(histories);
        Ok(self.log.len() as u64)
    }

    fn bring_files(&self, data: &Path, phases: &mut Phases) -> Result<(), RecoveryError> {
        phases.time("compare the list of files", || {
            let mut signed = String::new();
            open_copy(self.ground, self.contents, 0, |stream| {
                stream.take(LIST_BYTES).read_to_string(&mut signed).map_err(RecoveryError::file("read the list of the copy's files"))
            })?;
            if self.stanza.list(self.tools, &self.elsewhere.label)? != signed {
                let what = format!("pgBackRest's list of the files of {} is not the one that was signed for", self.elsewhere.label);
                return Err(RecoveryError::Damaged(what));
            }
            has_no_tablespaces(&signed)
        })?;
        phases.time("pgbackrest restore", || self.stanza.restore(self.tools, &self.elsewhere.label, data, STEP))
    }

    fn bring_log(&self, data: &Path, into: &Path) -> Result<BTreeSet<String>, RecoveryError> {
        each(&self.log, self.ground.tell, |part| {
            let path = into.join(&part.file);
            self.stanza.fetch(self.tools, data, &part.file, &path)?;
            let bytes = fs::read(&path).map_err(RecoveryError::file(format!("read `{}` of the write-ahead log", part.file)))?;
            match &part.checksum {
                Some(checksum) if *checksum != format!("{:x}", Sha1::digest(&bytes)) => {
                    Err(RecoveryError::Damaged(format!("`{}` of the write-ahead log is not what was archived", part.file)))
                }
                _ => Ok(()),
            }
        })?;
        Ok(self.log.iter().map(|part| part.file.clone()).collect())
    }
}

/// They would be put where the server that was copied has them.
fn has_no_tablespaces(list: &str) -> Result<(), RecoveryError> {
    match list.lines().find(|line| line.starts_with("pg_tblspc/")) {
        Some(line) => Err(RecoveryError::Refused(format!("the copy has a tablespace of its own: {line}"))),
        None => Ok(()),
    }
}

/// The log that is archived.
struct Log {
    /// Segments by number and timeline.
    parts: BTreeMap<(u64, u32), Part>,
    /// The timelines before the newest, and where each was left.
    ancestors: Vec<(u32, Lsn)>,
    newest: u32,
}

impl Log {
    /// All that there is from the copy's beginning on, without a gap; without `after`, what makes it whole.
    fn choose(&self, segment_bytes: u64, from: Lsn, to: Lsn, after: bool) -> Result<Vec<Part>, RecoveryError> {
        if !segment_bytes.is_power_of_two() {
            return Err(RecoveryError::Damaged("the manifest tells no size of the log's segments".to_owned()));
        }
        if let Some((_, on)) = self.parts.keys().find(|(_, on)| *on > self.newest) {
            let what = format!("the history of the timeline {on} is missing in pgBackRest's repository, or of one before it");
            return Err(RecoveryError::Damaged(what));
        }
        let segment = |lsn: Lsn| lsn.0 / segment_bytes;
        let timeline = |number: u64| {
            let left_later = self.ancestors.iter().find(|(_, left)| number < segment(*left));
            left_later.map_or(self.newest, |(timeline, _)| *timeline)
        };
        let (first, whole) = (segment(from), segment(Lsn(to.0.saturating_sub(1))));
        let there = self.parts.keys().filter(|(number, on)| timeline(*number) == *on).map(|(number, _)| *number).max();
        let last = if after { there.unwrap_or(whole).max(whole) } else { whole };
        let missing = |number: u64| {
            RecoveryError::Damaged(format!(
                "a segment of the write-ahead log is missing in pgBackRest's repository (number {number} on timeline {}): what came later can't be \
                 brought back",
                timeline(number)
            ))
        };
        (first..=last).map(|number| self.parts.get(&(number, timeline(number))).cloned().ok_or_else(|| missing(number))).collect()
    }
}

/// The segments among the files of an archive: `FOLDER/SEGMENT-CHECKSUM.gz`.
fn parts(files: &[String], segment_bytes: u64) -> BTreeMap<(u64, u32), Part> {
    let part = |path: &String| {
        let (file, rest) = path.rsplit('/').next()?.split_once('-')?;
        let (checksum, packed) = rest.split_at_checked(CHECKSUM)?;
        let is_one =
            is_segment(file) && checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) && (packed.is_empty() || packed.starts_with('.'));
        let number = numbered(file, segment_bytes).filter(|_| is_one)?;
        Some((number, Part { file: file.to_owned(), checksum: Some(checksum.to_owned()) }))
    };
    files.iter().filter_map(part).collect()
}

/// The timeline that a server takes for the newest: it looks for one after the other.
fn newest_timeline(files: &[String], from: u32) -> u32 {
    (from..u32::MAX).find(|timeline| !files.contains(&format!("{:08X}.history", timeline + 1))).unwrap_or(from)
}

/// A timeline's history: the ones before it, and where each was left.
fn ancestors(history: &str) -> Result<Vec<(u32, Lsn)>, RecoveryError> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    let lines = history.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let read: Option<Vec<_>> = lines.map(line).collect();
    read.ok_or_else(|| RecoveryError::Damaged("the history of a timeline in pgBackRest's repository can't be read".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 16 << 20;

    fn stored(timeline: u32, number: u64) -> String {
        format!("{timeline:08X}00000000/{timeline:08X}00000000{number:08X}-{}.gz", "0a".repeat(20))
    }

    fn chosen(files: &[String], after: bool) -> Option<Vec<String>> {
        let newest = newest_timeline(files, 1);
        let history = if newest > 1 { "1\t0/5000100\tno recovery target specified\n" } else { "" };
        let log = Log { parts: parts(files, SEGMENT), ancestors: ancestors(history).expect("a history"), newest };
        // From 2, to the end of 3.
        let parts = log.choose(SEGMENT, Lsn(0x200_0028), Lsn(0x400_0000), after).ok()?;
        Some(parts.into_iter().map(|part| format!("{}:{}", &part.file[7..8], &part.file[23..])).collect())
    }

    #[test]
    fn a_gap_is_never_passed_over() {
        let of = |numbers: &[u64]| numbers.iter().map(|number| stored(1, *number)).collect::<Vec<_>>();
        let names = |text: &str| Some(text.split_whitespace().map(|number| format!("1:{number}")).collect::<Vec<_>>());
        for (numbers, after, expected) in [
            (&[1, 2, 3][..], true, names("2 3")),
            (&[2, 3, 4, 5], true, names("2 3 4 5")),
            (&[2, 3, 4, 5], false, names("2 3")),
            (&[2, 3, 5], false, names("2 3")),
            (&[2, 3, 5], true, None),
            (&[3, 4], true, None),
            (&[2], true, None),
            (&[2, 4], true, None),
            (&[], true, None),
            (&[2, 3, 0xFF], true, None),
        ] {
            assert_eq!(chosen(&of(numbers), after), expected, "{numbers:?} {after}");
        }
    }

    #[test]
    fn the_log_goes_on_where_a_timeline_was_left() {
        let mut files = vec![stored(1, 2), stored(1, 3), stored(1, 4), stored(2, 5), stored(2, 6), "00000002.history".to_owned()];
        // What was written on the old one after it was left is nobody's.
        files.extend([stored(1, 5), stored(1, 6), stored(1, 7), stored(1, 8)]);
        let expected = |text: &str| Some(text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(chosen(&files, true), expected("1:2 1:3 1:4 2:5 2:6"));
        files.retain(|file| *file != stored(2, 5));
        assert_eq!(chosen(&files, true), None, "the segment in which it was left");
        // A server does not look for what no history leads to, and would leave it out.
        files = vec![stored(1, 2), stored(1, 3), stored(3, 4), "00000003.history".to_owned()];
        assert_eq!(chosen(&files, true), None);
    }

    #[test]
    fn tablespaces_are_refused() {
        let list = "[backup:target]\npg_data={\"path\":\"/srv/data\",\"type\":\"path\"}\n[target:path]\npg_data/pg_tblspc={}\n";
        assert!(has_no_tablespaces(list).is_ok());
        let more = list.replace(
            "[target:path]",
            "pg_tblspc/16387={\"path\":\"/srv/space\",\"tablespace-name\":\"x\",\"type\":\"link\"}\n[target:path]",
        );
        assert!(has_no_tablespaces(&more).is_err());
    }

    #[test]
    fn what_has_not_the_form_of_a_segment_is_none() {
        let name = "000000010000000000000002";
        let sum = "0a".repeat(20);
        for file in [
            format!("{name}.00000028.backup"),
            format!("{name}.partial-{sum}.gz"),
            format!("{name}-{sum}gz"),
            format!("{name}-{}.gz", &sum[1..]),
            format!("{name}-{}é.gz", &sum[1..]),
            format!("{}-{sum}", &name[1..]),
            "archive.info".to_owned(),
            "-".to_owned(),
            String::new(),
        ] {
            assert!(parts(std::slice::from_ref(&file), SEGMENT).is_empty(), "{file}");
        }
        assert_eq!(parts(&[format!("a/{name}-{sum}"), format!("a/{name}-{sum}.zst")], SEGMENT).len(), 1);
        for history in ["x", "1", "1\tx", "1\t0/x", "-1\t0/1"] {
            assert!(ancestors(history).is_err(), "{history}");
        }
        assert_eq!(ancestors("# a word\n\n1\t0/5000100\tleft\n").expect("read"), [(1, Lsn(0x500_0100))]);
    }
}
