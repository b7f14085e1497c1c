//! A folder's copy, tried: brought back elsewhere, and compared file by file.

use std::path::Path;

use super::{DrillReport, Trial, date, millis, objective, read_whole, rows};
use crate::{
    RecoveryError,
    archive::{check, unpack},
    engine::FILES,
    restore::Phases,
    scratch::Scratch,
    survey::Survey,
};

/// Brings it back into a throw-away folder, and looks.
pub(super) fn tried(trial: &Trial<'_>, report: &mut DrillReport, phases: &mut Phases) -> Result<(), RecoveryError> {
    let scratch = Scratch::own(&trial.options.scratch)?;
    let looked = look(trial, &scratch.path().join("restored"), report, phases);
    // Whatever came of it, nothing stays.
    let destroyed = phases.time("destroy", || scratch.destroy());
    looked.and(destroyed)
}

fn look(trial: &Trial<'_>, folder: &Path, report: &mut DrillReport, phases: &mut Phases) -> Result<(), RecoveryError> {
    let unpacked = phases.time("fetch", || unpack(trial.ground, trial.manifest, trial.contents, folder, false));
    read_whole(report, unpacked.is_ok(), &unpacked.as_ref().err().map(RecoveryError::in_words).unwrap_or_default(), 0);
    let index = unpacked?;
    report.rto_ms = Some(millis(trial.began.elapsed()));
    // Nothing after the copy is kept: all that was written since it began would be lost.
    date(report, trial.manifest.began, trial.began);
    let mut restored = None;
    let _stood = report.check(3, "every file is whole", || {
        let (mut said, found) = check(&index, folder)?;
        restored = Some(Survey::from([(FILES.to_owned(), found)]));
        let left_out = trial.contents.before.get(FILES).map_or(0, |before| before.left_out);
        if left_out > 0 {
            said.push_str(&format!("; {left_out} sockets, pipes or devices were there, and are in no copy"));
        }
        Ok(said)
    });
    let _stood = report.check(4, "number and size", || {
        let found = restored.as_ref().ok_or_else(|| RecoveryError::Check("what came back could not be looked at".to_owned()))?;
        rows(trial, found)
    });
    objective(trial, "by when the copy began", report);
    for (number, assertion) in trial.options.assertions.iter().enumerate() {
        let _stood = report.check(5, &format!("own check {}", number + 1), || has(folder, assertion));
    }
    Ok(())
}

/// Whether a file is there, with something in it.
fn has(folder: &Path, path: &str) -> Result<String, RecoveryError> {
    let inside = crate::archive::parse_all(&[path.into()])?;
    let found = inside.first().and_then(|path| {
        use std::os::unix::ffi::OsStrExt as _;
        folder.join(std::ffi::OsStr::from_bytes(path.bytes())).symlink_metadata().ok()
    });
    match found {
        Some(found) if found.is_file() && found.len() > 0 => Ok(path.to_owned()),
        _ => Err(RecoveryError::Check(format!("`{path}` is no file with something in it"))),
    }
}
