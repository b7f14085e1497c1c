//! A stream, brought back into a new folder. Whatever it says, nothing outside of that folder is touched, and nothing in it is followed.

use std::{
    collections::HashMap,
    fs::{self, File},
    hash::{BuildHasher as _, RandomState},
    io::{self, BufWriter, Read, Seek as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _},
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, fchmod, fchown, futimens, openat, utimensat},
    io::Errno,
};

use super::{Attributes, BLOCK, ENTRIES, Extended, Frame, Inside, PIECE, Record, fingerprint::Blocks, walk::doing};
use crate::{
    Contents, Manifest, RecoveryError,
    restore::{Ground, open_copy},
    tools::free_bytes,
};

/// Room that is left alone.
const ROOM: u64 = 64 << 20;

/// What was brought back, entry by entry, on the disk: there may be many.
pub(crate) struct Index {
    pub(super) file: File,
    /// By path: where the entry that counts is.
    pub(super) latest: HashMap<u64, (u64, Sort)>,
    pub(super) state: RandomState,
    /// Whether owners were given back.
    pub(super) root: bool,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Folder,
    File,
    Link,
}

impl Index {
    pub(super) fn key(&self, path: &Inside) -> u64 {
        self.state.hash_one(path)
    }
}

/// Brings a copy into a folder that is not there yet, or empty. `to_keep`: it has to be safe on the disk.
pub(crate) fn unpack(
    ground: Ground<'_>,
    manifest: &Manifest,
    contents: &Contents,
    to: &Path,
    to_keep: bool,
) -> Result<Index, RecoveryError> {
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (free, needed) = (free_bytes(parent)?, manifest.plain_bytes.saturating_add(ROOM));
    if free < needed {
        return Err(RecoveryError::Refused(format!("no room in `{}`: {needed} bytes are needed, {free} are free", parent.display())));
    }
    let mut writer = Writer::begin(to)?;
    let written = open_copy(ground, contents, manifest.plain_bytes, |stream| writer.all(stream));
    let index = writer.end(written.is_ok());
    // What went wrong first is told.
    written?;
    let index = index?;
    if to_keep {
        let folder = File::open(to).map_err(RecoveryError::file("open what was restored"))?;
        rustix::fs::syncfs(&folder).map_err(|error| RecoveryError::file("write what was restored to the disk")(error.into()))?;
    }
    Ok(index)
}

/// Makes the folder, or takes one that is empty.
fn make(to: &Path) -> Result<OwnedFd, RecoveryError> {
    let doing = || RecoveryError::file(format!("make the folder `{}`", to.display()));
    match fs::DirBuilder::new().mode(0o700).create(to) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mut entries = fs::read_dir(to).map_err(doing())?;
            if entries.next().is_some() {
                return Err(RecoveryError::Refused(format!("`{}` is not empty: a copy is restored into a new place only", to.display())));
            }
        }
        Err(error) => return Err(doing()(error)),
    }
    // Not through a link that leads to an empty folder elsewhere.
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(to, flags, Mode::empty()).map_err(|error| doing()(error.into()))
}

pub(super) struct Writer {
    root: OwnedFd,
    /// Files are written here and moved to their place when they are whole.
    stage: OwnedFd,
    stage_name: String,
    /// The folder that was written to last.
    last: Option<(Inside, OwnedFd)>,
    /// Folders, by path, in the order in which they were made: once everything is in them they are given what is theirs.
    folders: Vec<u64>,
    entries: BufWriter<File>,
    at: u64,
    index: Index,
    records: u64,
}

const PART: &str = "part";

impl Writer {
    pub(super) fn begin(to: &Path) -> Result<Self, RecoveryError> {
        let root = make(to)?;
        let stage_name = format!(".reprieve-{:016x}", rand::random::<u64>());
        let failed = |error: Errno| RecoveryError::file("make a folder in the new one")(error.into());
        rustix::fs::mkdirat(&root, stage_name.as_str(), Mode::RWXU).map_err(failed)?;
        let stage = step(root.as_fd(), stage_name.as_bytes()).map_err(failed)?;
        let file = tempfile::tempfile().map_err(RecoveryError::file("make a list of what comes back"))?;
        let entries = BufWriter::new(file.try_clone().map_err(RecoveryError::file("make a list of what comes back"))?);
        let own = fs::metadata("/proc/self").map_err(RecoveryError::file("find out who we are"))?;
        let index = Index { file, latest: HashMap::new(), state: RandomState::new(), root: own.uid() == 0 };
        Ok(Self { root, stage, stage_name, last: None, folders: Vec::new(), entries, at: 0, index, records: 0 })
    }

    /// Everything up to the end, which has to be there.
    pub(super) fn all(&mut self, stream: &mut dyn Read) -> Result<(), RecoveryError> {
        let mut stream = io::BufReader::with_capacity(4 * PIECE, stream);
        loop {
            match Record::read(&mut stream)? {
                Record::End { records } => {
                    if records != self.records {
                        return Err(RecoveryError::Damaged(format!("the copy has {} records, and ends after {records}", self.records)));
                    }
                    let mut more = [0];
                    return match stream.read(&mut more).map_err(RecoveryError::file("read the copy to its end"))? {
                        0 => Ok(()),
                        _ => Err(RecoveryError::Damaged("the copy goes on after its end".to_owned())),
                    };
                }
                record => self.one(&record, &mut stream)?,
            }
            self.records += 1;
            if self.records > 5 * ENTRIES {
                return Err(RecoveryError::Damaged("the copy has more entries than any copy of ours".to_owned()));
            }
        }
    }

    fn one(&mut self, record: &Record, stream: &mut dyn Read) -> Result<(), RecoveryError> {
        let root = self.index.root;
        match record {
            Record::Folder { path, .. } => {
                let known = self.known(path, Sort::Folder)?;
                if !path.is_root() && !known {
                    let (parent, name) = self.parent(path)?;
                    rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(|error| doing("make", path)(error.into()))?;
                }
                if !known {
                    self.folders.push(self.index.key(path));
                }
                self.note(record, Sort::Folder, path, None)
            }
            Record::File { path, attributes, extended, bytes } => {
                self.known(path, Sort::File)?;
                let Some(fingerprint) = self.contents(path, *bytes, (attributes, extended), stream)? else { return Ok(()) };
                let stage = self.stage.try_clone().map_err(doing("make", path))?;
                let (parent, name) = self.parent(path)?;
                rustix::fs::renameat(&stage, PART, parent, name).map_err(|error| doing("make", path)(error.into()))?;
                self.note(record, Sort::File, path, Some(fingerprint))
            }
            Record::Link { path, attributes, to } => {
                let known = self.known(path, Sort::Link)?;
                let (parent, name) = self.parent(path)?;
                if known {
                    rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(|error| doing("make", path)(error.into()))?;
                }
                let made = rustix::fs::symlinkat(to.as_slice(), parent, name).and_then(|()| {
                    if root {
                        let (user, group) = owner(attributes);
                        chownat(parent, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
                    }
                    utimensat(parent, name, &times(attributes), AtFlags::SYMLINK_NOFOLLOW)
                });
                made.map_err(|error| doing("make", path)(error.into()))?;
                self.note(record, Sort::Link, path, None)
            }
            Record::Name { path, of } => {
                let known = self.known(path, Sort::File)?;
                if path == of || !self.known(of, Sort::File)? {
                    return Err(RecoveryError::Damaged(format!("`{}` is another name of what did not come before", path.in_words())));
                }
                let (there, there_name) = self.parent(of)?;
                let there = there.try_clone_to_owned().map_err(doing("open", of))?;
                let (parent, name) = self.parent(path)?;
                if known {
                    rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(|error| doing("make", path)(error.into()))?;
                }
                let linked = rustix::fs::linkat(&there, there_name, parent, name, AtFlags::empty());
                linked.map_err(|error| doing("make", path)(error.into()))?;
                self.note(record, Sort::File, path, None)
            }
            Record::End { .. } => Ok(()),
        }
    }

    /// Whether this came before; as something else it may not have.
    fn known(&self, path: &Inside, sort: Sort) -> Result<bool, RecoveryError> {
        match self.index.latest.get(&self.index.key(path)) {
            None => Ok(false),
            // A file may have become a link, and the other way around; both are replaced whole.
            Some((_, then)) if (*then == Sort::Folder) == (sort == Sort::Folder) => Ok(true),
            Some(_) => Err(RecoveryError::Damaged(format!("`{}` comes as a folder and as something else", path.in_words()))),
        }
    }

    fn note(&mut self, record: &Record, sort: Sort, path: &Inside, fingerprint: Option<[u8; 32]>) -> Result<(), RecoveryError> {
        let mut bytes = Vec::new();
        let listing = || RecoveryError::file("list what comes back");
        record.write(&mut bytes).map_err(listing())?;
        bytes.extend(fingerprint.iter().flatten());
        self.entries.write_all(&bytes).map_err(listing())?;
        self.index.latest.insert(self.index.key(path), (self.at, sort));
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// The folder that a path is in, step by step from the top, and the name there.
    fn parent<'p>(&mut self, path: &'p Inside) -> Result<(BorrowedFd<'_>, &'p [u8]), RecoveryError> {
        let (folder, name) = path.split();
        if path.is_root() {
            return Err(RecoveryError::Damaged("the copy's folder comes as something else".to_owned()));
        }
        if self.last.as_ref().is_none_or(|(last, _)| *last != folder) {
            let opened = descend(&self.root, &folder).map_err(|error| doing("open", &folder)(error.into()))?;
            self.last = Some((folder, opened));
        }
        match &self.last {
            Some((_, opened)) => Ok((opened.as_fd(), name)),
            None => Err(RecoveryError::Damaged("a folder is gone".to_owned())),
        }
    }

    /// Writes a file's contents to the stage. Answers nothing where they do not count.
    fn contents(
        &mut self,
        path: &Inside,
        bytes: u64,
        (attributes, extended): (&Attributes, &Extended),
        stream: &mut dyn Read,
    ) -> Result<Option<[u8; 32]>, RecoveryError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&self.stage, PART, flags, Mode::RUSR | Mode::WUSR).map_err(|error| doing("make", path)(error.into()))?;
        let file = File::from(made);
        let mut blocks = Blocks::new();
        let mut piece = vec![0; PIECE];
        let mut write = |number: u64, block: &[u8]| file.write_all_at(block, number.saturating_mul(BLOCK as u64));
        loop {
            match Frame::read(stream)? {
                Frame::Data(length) => {
                    stream.read_exact(&mut piece[..length]).map_err(super::cut)?;
                    blocks.data(&piece[..length], &mut write).map_err(doing("write", path))?;
                }
                Frame::Hole(zeros) => blocks.hole(zeros, &mut write).map_err(doing("write", path))?,
                Frame::Withdrawn => {
                    drop(file);
                    rustix::fs::unlinkat(&self.stage, PART, AtFlags::empty()).map_err(|error| doing("drop", path)(error.into()))?;
                    return Ok(None);
                }
                Frame::Whole(fingerprint) => {
                    let written = blocks.bytes();
                    let found = blocks.end(&mut write).map_err(doing("write", path))?;
                    if written != bytes || found != fingerprint {
                        return Err(RecoveryError::Damaged(format!("`{}` is not what was read", path.in_words())));
                    }
                    file.set_len(bytes).map_err(doing("write", path))?;
                    give(&file, path, attributes, extended, self.index.root)?;
                    return Ok(Some(fingerprint));
                }
            }
            if blocks.bytes() > bytes {
                return Err(RecoveryError::Damaged(format!("`{}` is larger than was said", path.in_words())));
            }
        }
    }

    /// Gives folders what is theirs, and takes away what only we needed. `whole`: everything came.
    pub(super) fn end(mut self, whole: bool) -> Result<Index, RecoveryError> {
        let failed = |error: Errno| RecoveryError::file("take away what was only needed meanwhile")(error.into());
        if !whole {
            // A file that was being written.
            let _gone = rustix::fs::unlinkat(&self.stage, PART, AtFlags::empty());
        }
        rustix::fs::unlinkat(&self.root, self.stage_name.as_str(), AtFlags::REMOVEDIR).map_err(failed)?;
        self.entries.flush().map_err(RecoveryError::file("list what comes back"))?;
        self.index.file.rewind().map_err(RecoveryError::file("list what comes back"))?;
        // The innermost first: afterwards we might not get there any more. Of several of the same path the latest counts.
        for key in self.folders.iter().rev() {
            let place = self.index.latest.get(key).map_or(u64::MAX, |(place, _)| *place);
            if let Record::Folder { path, attributes, extended } = Record::read(&mut At { file: &self.index.file, place })? {
                let opened = descend(&self.root, &path).map_err(|error| doing("open", &path)(error.into()))?;
                give(&opened, &path, &attributes, &extended, self.index.root)?;
            }
        }
        Ok(self.index)
    }
}

/// A file, read from some place on.
struct At<'a> {
    file: &'a File,
    place: u64,
}

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.place)?;
        self.place += read as u64;
        Ok(read)
    }
}

/// One step down, into a folder only.
fn step(from: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(from, name, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Down to a folder, following nothing.
pub(super) fn descend(root: &OwnedFd, path: &Inside) -> Result<OwnedFd, Errno> {
    let mut at = step(root.as_fd(), b".")?;
    for name in path.names() {
        at = step(at.as_fd(), name)?;
    }
    Ok(at)
}

fn owner(attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(attributes.user)), Some(Gid::from_raw(attributes.group)))
}

fn times(attributes: &Attributes) -> Timestamps {
    let at = Timespec { tv_sec: attributes.seconds, tv_nsec: attributes.nanos.min(999_999_999).into() };
    Timestamps { last_access: at, last_modification: at }
}

fn give(handle: impl AsFd, path: &Inside, attributes: &Attributes, extended: &Extended, root: bool) -> Result<(), RecoveryError> {
    let failed = |error: Errno| doing("finish", path)(error.into());
    let attributes = attributes.as_given(root);
    if root {
        let (user, group) = owner(&attributes);
        // Before the rest: giving something away takes some of that.
        fchown(&handle, user, group).map_err(failed)?;
    }
    extended.as_given(root).give(&handle, path)?;
    fchmod(&handle, Mode::from_raw_mode(attributes.mode & 0o7777)).map_err(failed)?;
    futimens(&handle, &times(&attributes)).map_err(failed)
}
