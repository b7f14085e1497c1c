//! A folder, gone through by handles: each name is looked up in the very folder that was listed, and no link is followed.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat, fstat, openat, seek, statat},
    io::Errno,
};

use super::{Attributes, ENTRIES, Inside, PIECE, escape, parse_all};
use crate::{RecoveryError, survey::DatabaseSurvey};

/// Entries of one folder.
const IN_ONE: usize = 1_000_000;
/// Folders at the top that are counted one by one.
const AT_TOP: usize = 1_000;

/// A folder to go through.
pub(crate) struct Folder {
    handle: OwnedFd,
    path: PathBuf,
    leave_out: Vec<Inside>,
}

/// Something in it that is no folder.
pub(super) struct Found<'a> {
    /// The folder that it is in.
    pub(super) folder: BorrowedFd<'a>,
    pub(super) name: &'a [u8],
    pub(super) path: &'a Inside,
    pub(super) stat: Stat,
    /// See [`Visitor::folder`].
    pub(super) is_new: bool,
}

/// Who looks at what is there.
pub(super) trait Visitor {
    /// A folder; its entries follow. Answers whether all of them are new to the visitor, whatever it knows of their paths.
    fn folder(&mut self, handle: BorrowedFd<'_>, path: &Inside, stat: &Stat, is_new: bool) -> Result<bool, RecoveryError>;

    /// Anything else.
    fn entry(&mut self, found: Found<'_>) -> Result<(), RecoveryError>;
}

impl Folder {
    pub(crate) fn open(path: &Path, leave_out: &[PathBuf]) -> Result<Self, RecoveryError> {
        let handle = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let handle = handle.map_err(|error| RecoveryError::file(format!("open the folder `{}`", path.display()))(error.into()))?;
        Ok(Self { handle, path: path.to_owned(), leave_out: parse_all(leave_out)? })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A second handle on it.
    pub(crate) fn again(&self) -> Result<Self, RecoveryError> {
        let handle = self.handle.try_clone().map_err(RecoveryError::file("open the folder again"))?;
        Ok(Self { handle, path: self.path.clone(), leave_out: self.leave_out.clone() })
    }

    pub(super) fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Shows a visitor everything.
    pub(super) fn walk(&self, visitor: &mut impl Visitor) -> Result<(), RecoveryError> {
        let stat = fstat(&self.handle).map_err(|error| doing("look at", &Inside::default())(error.into()))?;
        let mut walk = Walk { device: stat.st_dev, leave_out: &self.leave_out, entries: 0 };
        walk.folder(self.handle.as_fd(), &Inside::default(), &stat, false, visitor)
    }
}

struct Walk<'a> {
    device: u64,
    leave_out: &'a [Inside],
    entries: u64,
}

impl Walk<'_> {
    fn folder(
        &mut self,
        handle: BorrowedFd<'_>,
        path: &Inside,
        stat: &Stat,
        is_new: bool,
        visitor: &mut impl Visitor,
    ) -> Result<(), RecoveryError> {
        let is_new = visitor.folder(handle, path, stat, is_new)?;
        for name in names(handle, path)? {
            let name = name.as_bytes();
            let path = path.join(name).map_err(|error| RecoveryError::Refused(format!("{error}: no copy can be made of it")))?;
            if self.leave_out.iter().any(|left_out| path.is_within(left_out)) {
                continue;
            }
            self.entries += 1;
            if self.entries > ENTRIES {
                return Err(RecoveryError::Refused(format!(
                    "there are more than {ENTRIES} files: name parts of it as systems of their own"
                )));
            }
            let stat = match statat(handle, name, AtFlags::SYMLINK_NOFOLLOW) {
                // It went since the folder was listed.
                Err(Errno::NOENT) => continue,
                found => found.map_err(|error| doing("look at", &path)(error.into()))?,
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                visitor.entry(Found { folder: handle, name, path: &path, stat, is_new })?;
                continue;
            }
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = match openat(handle, name, flags, Mode::empty()) {
                // It became something else; whoever looks again sees what.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                opened => opened.map_err(|error| doing("open", &path)(error.into()))?,
            };
            let stat = fstat(&opened).map_err(|error| doing("look at", &path)(error.into()))?;
            if stat.st_dev != self.device {
                return Err(RecoveryError::Refused(format!(
                    "`{}` is another filesystem: leave it out, or name it as a system of its own",
                    path.in_words()
                )));
            }
            self.folder(opened.as_fd(), &path, &stat, is_new, visitor)?;
        }
        Ok(())
    }
}

fn names(handle: BorrowedFd<'_>, path: &Inside) -> Result<Vec<CString>, RecoveryError> {
    let failed = |error: Errno| doing("list", path)(error.into());
    let mut names = Vec::new();
    for entry in Dir::read_from(handle).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
        if names.len() > IN_ONE {
            return Err(RecoveryError::Refused(format!("`{}` has more than {IN_ONE} entries", path.in_words())));
        }
    }
    names.sort_unstable();
    Ok(names)
}

pub(super) fn doing(what: &str, path: &Inside) -> impl FnOnce(io::Error) -> RecoveryError + use<> {
    RecoveryError::file(format!("{what} `{}`", path.in_words()))
}

impl Attributes {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode & 0o7777,
            user: stat.st_uid,
            group: stat.st_gid,
            seconds: stat.st_mtime,
            nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        }
    }

    /// What can be given to what comes back: only root gives things away, and nobody else's file runs with our rights.
    pub(super) fn as_given(self, root: bool) -> Self {
        if root { self } else { Self { mode: self.mode & 0o777, ..self } }
    }
}

/// Reads a file's contents up to a size, holes as such. Answers whether there were as many.
pub(super) fn contents(file: &File, bytes: u64, each: &mut dyn FnMut(Part<'_>) -> Result<(), RecoveryError>) -> Result<bool, io::Error> {
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    let mut knows_holes = true;
    while at < bytes {
        let (from, to) = if knows_holes { next_data(file, at, bytes, &mut knows_holes)? } else { (at, bytes) };
        if from > at {
            each(Part::Hole(from - at)).map_err(io::Error::other)?;
        }
        at = from;
        while at < to {
            let wanted = usize::try_from(to - at).unwrap_or(PIECE).min(PIECE);
            let read = match file.read_at(&mut buffer[..wanted], at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                return Ok(false);
            }
            each(Part::Data(&buffer[..read])).map_err(io::Error::other)?;
            at += read as u64;
        }
    }
    Ok(true)
}

/// A part of a file.
pub(super) enum Part<'a> {
    Data(&'a [u8]),
    Hole(u64),
}

/// From where to where the next data is.
fn next_data(file: &File, at: u64, bytes: u64, knows_holes: &mut bool) -> Result<(u64, u64), io::Error> {
    let from = match seek(file, SeekFrom::Data(at)) {
        Ok(from) => from.min(bytes),
        // Nothing but a hole.
        Err(Errno::NXIO) => return Ok((bytes, bytes)),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => {
            *knows_holes = false;
            return Ok((at, bytes));
        }
        Err(error) => return Err(error.into()),
    };
    match seek(file, SeekFrom::Hole(from)) {
        Ok(to) => Ok((from, to.clamp(from, bytes))),
        // It was cut off meanwhile; reading on says so.
        Err(Errno::NXIO) => Ok((from, bytes)),
        Err(error) => Err(error.into()),
    }
}

/// What is there, in numbers.
pub(crate) fn look(folder: &Folder) -> Result<DatabaseSurvey, RecoveryError> {
    let mut counts = Counts::default();
    folder.walk(&mut counts)?;
    let mut found = counts.found;
    for (name, count) in [("files", counts.files), ("folders", counts.folders), ("links", counts.links), ("bytes", counts.bytes)] {
        found.rows.insert(name.to_owned(), count);
    }
    Ok(found)
}

#[derive(Default)]
struct Counts {
    files: u64,
    folders: u64,
    links: u64,
    bytes: u64,
    top: Option<String>,
    found: DatabaseSurvey,
}

impl Visitor for Counts {
    fn folder(&mut self, _handle: BorrowedFd<'_>, path: &Inside, _stat: &Stat, _is_new: bool) -> Result<bool, RecoveryError> {
        self.folders += u64::from(!path.is_root());
        if path.names().count() == 1 && self.found.rows.len() < AT_TOP {
            self.found.rows.insert(format!("{}/", escape(path.bytes())), 0);
        }
        Ok(false)
    }

    fn entry(&mut self, found: Found<'_>) -> Result<(), RecoveryError> {
        match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::RegularFile => {
                self.files += 1;
                self.bytes = self.bytes.saturating_add(u64::try_from(found.stat.st_size).unwrap_or(0));
                let mut names = found.path.names();
                if let (Some(first), Some(_)) = (names.next(), names.next()) {
                    let name = self.top.get_or_insert_with(String::new);
                    name.clear();
                    name.push_str(&escape(first));
                    name.push('/');
                    if let Some(count) = self.found.rows.get_mut(name.as_str()) {
                        *count += 1;
                    }
                }
            }
            FileType::Symlink => self.links += 1,
            _ => self.found.left_out += 1,
        }
        Ok(())
    }
}
