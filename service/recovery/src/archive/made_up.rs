//! Streams that somebody made up, for tests and for the fuzzer, and a place to bring them to where it shows what they touch.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use super::{Attributes, Extended, Frame, Inside, PIECE, Record, check, fingerprint::Blocks, write::Writer};
use crate::RecoveryError;

pub(crate) fn inside(text: &str) -> Inside {
    Inside::parse(text.as_bytes().to_vec()).expect("a path")
}

/// Attributes of something that is ours.
pub(crate) fn attributes(mode: u32) -> Attributes {
    let own = fs::metadata("/proc/self").expect("own");
    Attributes { mode, user: own.uid(), group: own.gid(), seconds: 1_000_000_000, nanos: 5 }
}

pub(crate) fn folder(path: &str) -> Record {
    Record::Folder { path: inside(path), attributes: attributes(0o755), extended: Extended::default() }
}

#[cfg(test)]
pub(crate) fn link(path: &str, to: &str) -> Record {
    Record::Link { path: inside(path), attributes: attributes(0o777), to: to.as_bytes().to_vec() }
}

/// A file's record and frames.
#[cfg(test)]
pub(crate) fn file(path: &str, text: &str) -> Vec<u8> {
    let record =
        Record::File { path: inside(path), attributes: attributes(0o640), extended: Extended::default(), bytes: text.len() as u64 };
    with_frames(&record, &[Ok(text.as_bytes())])
}

/// A file's record, data, holes, and the fingerprint of that.
pub(crate) fn with_frames(record: &Record, parts: &[Result<&[u8], u64>]) -> Vec<u8> {
    let (mut all, mut blocks) = (bytes(record), Blocks::new());
    let nothing = |_: u64, _: &[u8]| Ok::<(), RecoveryError>(());
    for part in parts {
        match part {
            Ok(data) => data.chunks(PIECE).for_each(|piece| {
                Frame::Data(piece.len()).write(&mut all).expect("written");
                all.extend(piece);
                blocks.data(piece, nothing).expect("counted");
            }),
            Err(zeros) => {
                Frame::Hole(*zeros).write(&mut all).expect("written");
                blocks.hole(*zeros, nothing).expect("counted");
            }
        }
    }
    Frame::Whole(blocks.end(nothing).expect("a fingerprint")).write(&mut all).expect("written");
    all
}

pub(crate) fn bytes(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.write(&mut bytes).expect("written");
    bytes
}

/// Records, and the end that says how many.
pub(crate) fn stream(parts: &[Vec<u8>]) -> Vec<u8> {
    let end = bytes(&Record::End { records: parts.len() as u64 });
    [parts.concat(), end].concat()
}

/// Brings a stream into a folder, and compares the folder with it.
pub(crate) fn bring(stream: &[u8], to: &Path) -> Result<String, RecoveryError> {
    let mut writer = Writer::begin(to)?;
    let written = writer.all(&mut &stream[..]);
    let index = writer.end(written.is_ok());
    written?;
    check(&index?, to).map(|(said, _)| said)
}

/// A folder for streams, and one beside it that nothing may touch.
pub struct Arena(tempfile::TempDir);

impl Arena {
    /// An arena with nothing in it yet.
    ///
    /// # Errors
    /// The temporary folder can't be written to.
    pub fn open() -> io::Result<Self> {
        let place = tempfile::tempdir()?;
        fs::create_dir(place.path().join("outside"))?;
        fs::write(place.path().join("outside/kept"), "kept")?;
        Ok(Self(place))
    }

    /// Brings a stream in, and takes away what came of it. Panics if anything outside was touched.
    ///
    /// # Errors
    /// It is no stream, or not what it says.
    pub fn bring(&self, stream: &[u8]) -> Result<String, RecoveryError> {
        let (place, to) = (self.0.path(), self.0.path().join("to"));
        let before = self.outside();
        let said = bring(stream, &to);
        assert_eq!(self.outside(), before, "something outside was touched");
        let beside = fs::read_dir(place).expect("listed").map(|entry| entry.expect("an entry").file_name());
        assert!(beside.into_iter().all(|name| name == "to" || name == "outside"), "something came beside it");
        if to.symlink_metadata().is_ok() {
            remove(&to).expect("removed");
        }
        said
    }

    /// All that can be changed of what is outside.
    fn outside(&self) -> Vec<String> {
        let place = self.0.path().join("outside");
        let names = fs::read_dir(&place).expect("listed").map(|entry| entry.expect("an entry").path());
        let paths = [place.clone(), place.join("kept")].into_iter().chain(names);
        let look = |path: std::path::PathBuf| {
            let found = path.symlink_metadata().expect("there");
            let text = if found.is_file() { fs::read(&path).expect("read") } else { Vec::new() };
            format!("{path:?} {:o} {} {} {} {text:?} {}", found.mode(), found.uid(), found.gid(), found.nlink(), found.ctime_nsec())
        };
        paths.map(look).collect()
    }

    /// A stream of whatever `choices` say: mostly well-formed, so that it gets far, about few paths, so that they meet, and with links that
    /// lead out.
    #[must_use]
    pub fn make_up(&self, choices: &[u8]) -> Vec<u8> {
        let out = self.0.path().join("outside").display().to_string();
        let mut choices = Choices(choices);
        let mut parts = vec![bytes(&folder(""))];
        while !choices.0.is_empty() && parts.len() < 50 {
            parts.push(choices.part(&out));
        }
        stream(&parts)
    }
}

/// Bytes that are taken one after the other; zeros when there are no more.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let length = usize::from(self.byte() % 9);
        let taken = self.take(length);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    fn text(&mut self) -> &'a [u8] {
        let length = self.byte();
        self.take(length.into())
    }

    fn path(&mut self) -> Inside {
        inside(self.one_of(&["", "a", "b", "a/a", "a/b", "b/a", "a/kept", "b/kept", "a/a/kept", "part", ".reprieve-0000000000000000"]))
    }

    fn attributes(&mut self) -> Attributes {
        let usual = attributes(self.one_of(&[0o755, 0o640, 0o700, 0, 0o7777]));
        match self.byte() % 8 {
            0 => Attributes { mode: self.number() as u32, ..usual },
            1 => Attributes { user: self.number() as u32, group: self.number() as u32, ..usual },
            2 => Attributes { seconds: self.number() as i64, nanos: self.number() as u32, ..usual },
            _ => usual,
        }
    }

    fn extended(&mut self) -> Extended {
        let names: [&[u8]; 6] =
            [b"user.a", b"user.\xff\n=", b"user.b", b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];
        let mut all: Vec<_> = (0..self.byte() % 4).map(|_| (self.one_of(&names).to_vec(), self.text().to_vec())).collect();
        all.sort_unstable();
        all.dedup_by(|next, one| next.0 == one.0);
        Extended::parse(all).expect("names that are kept")
    }

    fn part(&mut self, out: &str) -> Vec<u8> {
        let path = self.path();
        match self.byte() % 8 {
            0 | 1 => bytes(&Record::Folder { path, attributes: self.attributes(), extended: self.extended() }),
            2 | 3 => {
                let (text, zeros) = (self.text(), [0, self.number() % (1 << 40)][usize::from(self.byte() % 2)]);
                let size = text.len() as u64 * 2 + zeros;
                let record = Record::File { path, attributes: self.attributes(), extended: self.extended(), bytes: size };
                let mut all = with_frames(&record, &[Ok(text), Err(zeros), Ok(text)]);
                if self.byte().is_multiple_of(8) {
                    all.truncate(all.len() - 33);
                    Frame::Withdrawn.write(&mut all).expect("written");
                }
                all
            }
            4 => {
                let (whole, up) = (format!("{out}/kept"), format!("..{}", "/..".repeat(usize::from(self.byte() % 3))));
                let to = self.one_of(&[out, &whole, &up, "../outside", ".", "a", "b"]).as_bytes().to_vec();
                bytes(&Record::Link { path, attributes: self.attributes(), to })
            }
            5 => bytes(&Record::Name { path, of: self.path() }),
            6 => {
                // A header of nobody's making, with its right length.
                let text = self.text();
                [&(text.len() as u32).to_le_bytes(), text].concat()
            }
            _ => self.text().to_vec(),
        }
    }
}

/// Removes a folder, whatever the modes in it.
fn remove(path: &Path) -> io::Result<()> {
    if !path.symlink_metadata()?.is_dir() {
        return fs::remove_file(path);
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        remove(&entry?.path())?;
    }
    fs::remove_dir(path)
}
