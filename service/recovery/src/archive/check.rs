//! What was brought back, looked at again on the disk, entry by entry, and nothing besides.

use std::{
    fs::File,
    io::{BufReader, Read as _},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat},
    io::Errno,
};

use super::{
    Attributes, Extended, Inside, Record,
    fingerprint::Blocks,
    walk::{Folder, Part, contents, doing, look},
    write::{Index, descend},
};
use crate::{RecoveryError, survey::DatabaseSurvey};

/// Faults that are told.
const FAULTS: usize = 10;

/// Compares a folder with what was brought back into it. Answers what it looks like.
pub(crate) fn check(index: &Index, at: &Path) -> Result<(String, DatabaseSurvey), RecoveryError> {
    let folder = Folder::open(at, &[])?;
    let root = folder.handle().try_clone_to_owned().map_err(RecoveryError::file("open what was restored"))?;
    let listed = || RecoveryError::file("read the list of what came back");
    let length = index.file.metadata().map_err(listed())?.len();
    let mut entries = BufReader::new(&index.file);
    let (mut place, mut faults, mut files, mut extended) = (0, Vec::new(), 0_u64, 0_u64);
    while place < length {
        let mut counted = Counted { from: &mut entries, bytes: 0 };
        let record = Record::read(&mut counted)?;
        let mut fingerprint = [0; 32];
        if matches!(record, Record::File { .. }) {
            counted.read_exact(&mut fingerprint).map_err(listed())?;
        }
        let bytes = counted.bytes;
        let (Record::Folder { path, .. } | Record::File { path, .. } | Record::Link { path, .. } | Record::Name { path, .. }) = &record
        else {
            break;
        };
        let counts = index.latest.get(&index.key(path)).is_some_and(|(latest, _)| *latest == place);
        if counts {
            files += u64::from(matches!(record, Record::File { .. } | Record::Name { .. }));
            if let Record::Folder { extended: kept, .. } | Record::File { extended: kept, .. } = &record {
                extended += u64::from(!kept.as_given(index.root).is_empty());
            }
            match fault(index, &root, &record, &fingerprint, place) {
                Ok(None) => {}
                Ok(Some(what)) => faults.push(format!("`{}` {what}", path.in_words())),
                Err(error) => faults.push(format!("`{}`: {error}", path.in_words())),
            }
        }
        if faults.len() >= FAULTS {
            break;
        }
        place += bytes;
    }
    if !faults.is_empty() {
        return Err(RecoveryError::Check(faults.join("; ")));
    }
    let found = look(&folder)?;
    let there: u64 = ["files", "folders", "links"].iter().filter_map(|sort| found.rows.get(*sort)).sum();
    // All entries but the folder itself.
    let listed = (index.latest.len() as u64).saturating_sub(1);
    if there != listed || found.left_out != 0 {
        return Err(RecoveryError::Check(format!("{listed} entries were copied, and {there} are there")));
    }
    let mut said = format!("{files} files, each with its contents, mode and time");
    if extended > 0 {
        said.push_str(&format!("; {extended} files and folders with extended attributes or access lists"));
    }
    if !index.root {
        said.push_str("; owners and capabilities are not given back, which takes root");
    }
    Ok((said, found))
}

/// Counts what is read.
struct Counted<'a, R> {
    from: &'a mut R,
    bytes: u64,
}

impl<R: std::io::Read> std::io::Read for Counted<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(into)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

/// What is wrong with one entry.
fn fault(index: &Index, root: &OwnedFd, record: &Record, fingerprint: &[u8; 32], place: u64) -> Result<Option<String>, RecoveryError> {
    let stat_of = |path: &Inside| -> Result<(OwnedFd, Stat), RecoveryError> {
        let (folder, name) = path.split();
        let parent = descend(root, &folder).map_err(|error| doing("open", &folder)(error.into()))?;
        let name = if name.is_empty() { b".".as_slice() } else { name };
        let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| doing("find", path)(error.into()))?;
        Ok((parent, stat))
    };
    let differs = |stat: &Stat, attributes: &Attributes| {
        let (now, then) = (Attributes::of(stat), attributes.as_given(index.root));
        let own = |of: Attributes| if index.root { (of.user, of.group) } else { (0, 0) };
        (now.mode != then.mode || now.seconds != then.seconds || now.nanos != then.nanos || own(now) != own(then))
            .then(|| "has another mode, time or owner".to_owned())
    };
    let lacks = |handle: OwnedFd, path: &Inside, extended: &Extended| -> Result<Option<String>, RecoveryError> {
        let same = Extended::of(handle, path)?.as_given(index.root) == extended.as_given(index.root);
        Ok((!same).then(|| "has other extended attributes or another access list".to_owned()))
    };
    match record {
        Record::Folder { path, attributes, extended } => {
            let (_, stat) = stat_of(path)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Ok(Some("is no folder".to_owned()));
            }
            let opened = descend(root, path).map_err(|error| doing("open", path)(error.into()))?;
            differs(&stat, attributes).map_or_else(|| lacks(opened, path, extended), |fault| Ok(Some(fault)))
        }
        Record::File { path, attributes, extended, bytes } => {
            let (parent, stat) = stat_of(path)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || u64::try_from(stat.st_size) != Ok(*bytes) {
                return Ok(Some("is no file of its size".to_owned()));
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = openat(&parent, path.split().1, flags, Mode::empty()).map_err(|error| doing("open", path)(error.into()))?;
            fstat(&opened).map_err(|error: Errno| doing("look at", path)(error.into()))?;
            let (file, mut blocks) = (File::from(opened), Blocks::new());
            let whole = contents(&file, *bytes, &mut |part| match part {
                Part::Data(data) => blocks.data(data, |_, _| Ok(())),
                Part::Hole(zeros) => blocks.hole(zeros, |_, _| Ok(())),
            })
            .map_err(doing("read", path))?;
            if !whole || blocks.end(|_, _| Ok::<(), RecoveryError>(()))? != *fingerprint {
                return Ok(Some("has other contents".to_owned()));
            }
            differs(&stat, attributes).map_or_else(|| lacks(file.into(), path, extended), |fault| Ok(Some(fault)))
        }
        Record::Link { path, to, .. } => {
            let (parent, _) = stat_of(path)?;
            let now = readlinkat(&parent, path.split().1, Vec::new()).map_err(|error| doing("read", path)(error.into()))?;
            Ok((now.as_bytes() != to).then(|| "points elsewhere".to_owned()))
        }
        Record::Name { path, of } => {
            let ((_, one), (_, other)) = (stat_of(path)?, stat_of(of)?);
            // What it is a name of may have come again, later and changed.
            let again = index.latest.get(&index.key(of)).is_some_and(|(latest, _)| *latest > place);
            let same = (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino);
            let is_file = FileType::from_raw_mode(one.st_mode) == FileType::RegularFile;
            Ok((!is_file || !(same || again)).then(|| format!("is no other name of `{}`", of.in_words())))
        }
        Record::End { .. } => Ok(None),
    }
}
