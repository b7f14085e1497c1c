//! A folder, made into a stream.
//!
//! Each file is read whole or not at all: one that changes meanwhile is read again, and one that never stays as it is fails the copy. What
//! changed, came or was moved while the rest was read is found by looking again, and comes later in the stream.

use std::{
    collections::HashMap,
    fs::File,
    hash::{BuildHasher as _, RandomState},
    io::{self, Read, Write},
    os::fd::BorrowedFd,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{FileType, Mode, OFlags, Stat, fstat, openat, readlinkat},
    io::Errno,
};

use super::{
    Attributes, Extended, Frame, Inside, PIECE, Record,
    fingerprint::Blocks,
    walk::{Folder, Found, Part, Visitor, contents, doing},
};
use crate::RecoveryError;

/// How often a file that changes is read.
const TRIES: u32 = 5;
/// The first pause between two tries; each is longer.
const PAUSE: Duration = Duration::from_millis(50);
/// How often all of it is looked at, at most.
const PASSES: u32 = 4;
/// Two changes within this may have the same time.
const TICK: Duration = Duration::from_millis(20);
/// Pieces of the stream that wait to be taken.
const AHEAD: usize = 16;

/// A folder that is being read on a thread of its own.
pub(crate) struct Reading {
    pieces: Option<Receiver<Vec<u8>>>,
    thread: JoinHandle<Result<(), RecoveryError>>,
}

impl Reading {
    pub(crate) fn start(folder: Folder) -> Result<Self, RecoveryError> {
        let (hand, pieces) = sync_channel(AHEAD);
        let thread = thread::Builder::new().name("files".to_owned()).spawn(move || read(&folder, hand));
        Ok(Self { pieces: Some(pieces), thread: thread.map_err(RecoveryError::file("start a thread"))? })
    }

    pub(crate) fn stream(&mut self) -> Result<Box<dyn Read>, RecoveryError> {
        match self.pieces.take() {
            Some(from) => Ok(Box::new(Pieces { from, piece: Vec::new(), given: 0 })),
            None => Err(RecoveryError::Damaged("the folder is read already".to_owned())),
        }
    }

    /// Whether all of it was read.
    pub(crate) fn end(mut self) -> Result<(), RecoveryError> {
        // Nobody takes more: a reader that still waits ends.
        drop(self.pieces.take());
        self.thread.join().unwrap_or_else(|_| Err(RecoveryError::Damaged("reading the folder ended by a bug".to_owned())))
    }
}

struct Pieces {
    from: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    given: usize,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.given == self.piece.len() {
            match self.from.recv() {
                Ok(piece) => (self.piece, self.given) = (piece, 0),
                // Whether that is the end is asked of the thread.
                Err(_) => return Ok(0),
            }
        }
        let taken = into.len().min(self.piece.len() - self.given);
        into[..taken].copy_from_slice(&self.piece[self.given..self.given + taken]);
        self.given += taken;
        Ok(taken)
    }
}

/// Collects what is written into pieces.
struct Hand {
    to: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
}

impl Write for Hand {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= 4 * PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(5 * PIECE));
        self.to.send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn read(folder: &Folder, to: SyncSender<Vec<u8>>) -> Result<(), RecoveryError> {
    let hand = Hand { to, piece: Vec::new() };
    let mut copier = Copier { to: hand, state: RandomState::new(), seen: HashMap::new(), names: HashMap::new(), records: 0 };
    for _ in 0..PASSES {
        let before = copier.records;
        copier.names.clear();
        folder.walk(&mut copier)?;
        // Nothing changed since it was looked at last.
        if copier.records == before {
            break;
        }
    }
    let records = copier.records;
    copier.say(&Record::End { records })?;
    copier.to.flush().map_err(handing_on)
}

fn handing_on(error: io::Error) -> RecoveryError {
    RecoveryError::file("hand on what was read")(error)
}

/// Puts what it sees for the first time, or sees changed, into the stream.
struct Copier {
    to: Hand,
    state: RandomState,
    /// What is in the stream: by path, what it was and when it changed last.
    seen: HashMap<u64, (Sort, u64)>,
    /// Files with several names: their first one.
    names: HashMap<(u64, u64), Inside>,
    records: u64,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Folder,
    Other,
}

impl Copier {
    fn say(&mut self, record: &Record) -> Result<(), RecoveryError> {
        self.records += 1;
        record.write(&mut self.to).map_err(handing_on)
    }

    /// Whether this is known as it is; a folder is as long as it is the same one.
    fn knows(&self, path: &Inside, sort: Sort, stat: &Stat) -> Result<Option<bool>, RecoveryError> {
        match self.seen.get(&self.state.hash_one(path)) {
            None => Ok(None),
            Some((then, _)) if *then != sort => {
                Err(RecoveryError::Refused(format!("`{}` became something else while it was copied", path.in_words())))
            }
            Some((_, stamp)) => Ok(Some(*stamp == self.stamp(sort, stat))),
        }
    }

    fn note(&mut self, path: &Inside, sort: Sort, stat: &Stat) {
        let stamp = self.stamp(sort, stat);
        self.seen.insert(self.state.hash_one(path), (sort, stamp));
    }

    fn stamp(&self, sort: Sort, stat: &Stat) -> u64 {
        match sort {
            Sort::Folder => self.state.hash_one((stat.st_dev, stat.st_ino)),
            Sort::Other => self.state.hash_one((stat.st_dev, stat.st_ino, stat.st_ctime, stat.st_ctime_nsec, stat.st_size)),
        }
    }

    fn file(&mut self, found: &Found<'_>) -> Result<(), RecoveryError> {
        let path = found.path;
        for attempt in 0..TRIES {
            // A pipe that was put in its place does not hold us up.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let file = match openat(found.folder, found.name, flags, Mode::empty()) {
                // It is gone, or something else by now: whoever looks again sees what.
                Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(()),
                opened => File::from(opened.map_err(|error| doing("open", path)(error.into()))?),
            };
            let look = || fstat(&file).map_err(|error| doing("look at", path)(error.into()));
            let mut stat = look()?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Ok(());
            }
            if is_fresh(&stat) {
                thread::sleep(TICK);
                stat = look()?;
                if is_fresh(&stat) {
                    thread::sleep(PAUSE * (attempt + 1));
                    continue;
                }
            }
            if let Some(first) = self.names.get(&(stat.st_dev, stat.st_ino)).filter(|first| *first != path) {
                let record = Record::Name { path: path.clone(), of: first.clone() };
                self.note(path, Sort::Other, &stat);
                return self.say(&record);
            }
            let bytes = u64::try_from(stat.st_size).unwrap_or(0);
            // What is given to it or taken away meanwhile changes its time, too.
            let extended = Extended::of(&file, path)?;
            self.say(&Record::File { path: path.clone(), attributes: Attributes::of(&stat), extended, bytes })?;
            let (fingerprint, whole) = self.pour(&file, bytes, path)?;
            if whole && same(&stat, &look()?) {
                Frame::Whole(fingerprint).write(&mut self.to).map_err(handing_on)?;
                if stat.st_nlink > 1 {
                    self.names.insert((stat.st_dev, stat.st_ino), path.clone());
                }
                self.note(path, Sort::Other, &stat);
                return Ok(());
            }
            Frame::Withdrawn.write(&mut self.to).map_err(handing_on)?;
            thread::sleep(PAUSE * (attempt + 1));
        }
        Err(never_quiet(path))
    }

    fn pour(&mut self, file: &File, bytes: u64, path: &Inside) -> Result<([u8; 32], bool), RecoveryError> {
        let mut blocks = Blocks::new();
        let whole = contents(file, bytes, &mut |part| match part {
            Part::Data(data) => {
                Frame::Data(data.len()).write(&mut self.to).and_then(|()| self.to.write_all(data)).map_err(handing_on)?;
                blocks.data(data, |_, _| Ok(()))
            }
            Part::Hole(bytes) => {
                Frame::Hole(bytes).write(&mut self.to).map_err(handing_on)?;
                blocks.hole(bytes, |_, _| Ok(()))
            }
        })
        .map_err(doing("read", path))?;
        Ok((blocks.end(|_, _| Ok::<(), RecoveryError>(()))?, whole))
    }
}

impl Visitor for Copier {
    fn folder(&mut self, handle: BorrowedFd<'_>, path: &Inside, stat: &Stat, is_new: bool) -> Result<bool, RecoveryError> {
        let known = self.knows(path, Sort::Folder, stat)?;
        // Another folder at the same path: all that is in it is another's, whenever that was changed.
        let is_new = is_new || known != Some(true);
        if is_new {
            self.note(path, Sort::Folder, stat);
            let (attributes, extended) = of_one_moment(handle, path)?;
            self.say(&Record::Folder { path: path.clone(), attributes, extended })?;
        }
        Ok(is_new)
    }

    fn entry(&mut self, found: Found<'_>) -> Result<(), RecoveryError> {
        let known = self.knows(found.path, Sort::Other, &found.stat)?;
        if known == Some(true) && !found.is_new {
            return Ok(());
        }
        match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::RegularFile => self.file(&found),
            FileType::Symlink => {
                let to = match readlinkat(found.folder, found.name, Vec::new()) {
                    Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
                    read => read.map_err(|error| doing("read", found.path)(error.into()))?.into_bytes(),
                };
                self.note(found.path, Sort::Other, &found.stat);
                self.say(&Record::Link { path: found.path.clone(), attributes: Attributes::of(&found.stat), to })
            }
            // Sockets, pipes and devices have nothing that could be kept; they are counted.
            _ => Ok(()),
        }
    }
}

fn never_quiet(path: &Inside) -> RecoveryError {
    RecoveryError::Refused(format!(
        "`{}` changed each of the {TRIES} times that it was to be read: copy it when it is quiet, or leave it out",
        path.in_words()
    ))
}

/// A folder's attributes: its mode is a part of its access list, so that they have to fit.
fn of_one_moment(handle: BorrowedFd<'_>, path: &Inside) -> Result<(Attributes, Extended), RecoveryError> {
    let look = || fstat(handle).map_err(|error| doing("look at", path)(error.into()));
    let mut before = look()?;
    for _ in 0..TRIES {
        let extended = Extended::of(handle, path)?;
        let after = look()?;
        // Its time is another whenever something is made in it, and says nothing about the rest.
        if (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)
            && extended == Extended::of(handle, path)?
        {
            return Ok((Attributes::of(&after), extended));
        }
        before = after;
    }
    Err(never_quiet(path))
}

/// Whether nothing about the file changed.
fn same(before: &Stat, after: &Stat) -> bool {
    let of = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec);
    of(before) == of(after)
}

/// Whether it changed so lately that another change might have the same time.
#[allow(clippy::disallowed_methods, reason = "compared with a time that the kernel gave, not with one of ours")]
fn is_fresh(stat: &Stat) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let changed = Duration::new(u64::try_from(stat.st_ctime).unwrap_or(0), u32::try_from(stat.st_ctime_nsec).unwrap_or(0).min(999_999_999));
    changed + TICK > now
}
