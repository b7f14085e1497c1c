//! Where a restore puts things until all of it is there: nobody takes half a server for a whole one, and the place stays free.
//!
//! Beside the target, and renamed in the end; inside it where it is there already (it may be a disk of its own).

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::Phases;
use crate::{
    RecoveryError, Tools,
    scratch::{Watch, gone, is_left},
};

/// What it is called inside, and what its name ends with beside.
const NAME: &str = ".reprieve-partial";
/// How long somebody else is waited for there.
const AT_WORK: Duration = Duration::from_secs(2);
/// Without it no server starts.
const LAST: &str = "PG_VERSION";

/// A target that is not there yet.
pub(super) struct Partial {
    target: PathBuf,
    place: PathBuf,
    inside: bool,
    watch: Watch,
}

impl Partial {
    /// Makes the place, for the account that servers have; takes away what a restore to the same target has left that is no more.
    pub(super) fn begin(tools: Option<&Tools>, target: &Path, phases: &mut Phases) -> Result<Self, RecoveryError> {
        let inside = target.symlink_metadata().is_ok();
        let place = if inside { target.join(NAME) } else { beside(target) };
        let is_there = || place.symlink_metadata().is_ok();
        let deadline = Instant::now() + AT_WORK;
        // One that has just been killed is being taken away.
        while is_there() && !is_left(&place) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
        if is_there() {
            if !is_left(&place) {
                let what =
                    format!("another restore into `{}` is at work, or `{}` is not ours to take away", target.display(), place.display());
                return Err(RecoveryError::Refused(what));
            }
            let clearing = RecoveryError::file(format!("take away `{}`, which a restore that broke off has left", place.display()));
            phases.time("take away what a restore that broke off has left", || gone(&place).map_err(clearing))?;
        }
        if inside && let Some(tools) = tools {
            tools.own_folder(target)?;
        }
        let making = || RecoveryError::file(format!("make `{}`", place.display()));
        fs::create_dir(&place).map_err(making())?;
        let watch = Watch::over(&place).inspect_err(|_| drop(fs::remove_dir(&place)))?;
        let made = Self { target: target.to_owned(), place, inside, watch };
        if let Some(tools) = tools {
            tools.own_folder(&made.place)?;
        }
        Ok(made)
    }

    /// Where to put things meanwhile.
    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    /// All of it is there. What can't be moved stays where it is.
    pub(super) fn finish(self) -> Result<(), RecoveryError> {
        let Self { target, place, inside, watch } = self;
        watch.let_go();
        let doing = format!("move `{}`, where all of it is, to `{}`", place.display(), target.display());
        let moved = if inside { move_up(&place, &target) } else { fs::rename(&place, &target) };
        // The name has to last as long as what it names.
        let parent = if inside { Some(target.as_path()) } else { target.parent() };
        let parent = parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        moved.and_then(|()| fs::File::open(parent)?.sync_all()).map_err(RecoveryError::file(doing))
    }
}

fn beside(target: &Path) -> PathBuf {
    let mut name: OsString = target.file_name().unwrap_or_default().to_owned();
    name.push(NAME);
    target.with_file_name(name)
}

fn move_up(place: &Path, target: &Path) -> io::Result<()> {
    let mut names: Vec<OsString> = fs::read_dir(place)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
    names.sort_by_key(|name| name == LAST);
    names.iter().try_for_each(|name| fs::rename(place.join(name), target.join(name)))?;
    fs::remove_dir(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_there_once_all_of_it_is() {
        let under = tempfile::tempdir().expect("a folder");
        let (new, empty) = (under.path().join("new"), under.path().join("empty"));
        fs::create_dir(&empty).expect("made");
        for target in [&new, &empty] {
            let begin = || Partial::begin(None, target, &mut Phases::default());
            let partial = begin().expect("begun");
            fs::write(partial.place().join(LAST), "15").expect("written");
            assert!(!target.join(LAST).exists());
            assert!(matches!(begin(), Err(RecoveryError::Refused(_))), "another is at work");
            drop(partial);
            let partial = begin().expect("begun again");
            assert_eq!(fs::read_dir(partial.place()).expect("read").count(), 0);
            fs::write(partial.place().join(LAST), "15").expect("written");
            fs::create_dir(partial.place().join("base")).expect("made");
            partial.finish().expect("finished");
            assert!(target.join(LAST).exists() && target.join("base").exists());
            assert_eq!(fs::read_dir(target).expect("read").count(), 2);
        }
        assert_eq!(fs::read_dir(under.path()).expect("read").count(), 2, "nothing lies beside");
    }

    #[test]
    fn what_a_dead_one_left_is_taken_away() {
        let under = tempfile::tempdir().expect("a folder");
        let target = under.path().join("new");
        let left = beside(&target);
        fs::create_dir(&left).expect("made");
        fs::write(left.join("recovery.signal"), "").expect("written");
        let partial = Partial::begin(None, &target, &mut Phases::default()).expect("begun");
        assert_eq!(fs::read_dir(partial.place()).expect("read").count(), 0);
    }
}
