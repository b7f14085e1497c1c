//! A SQLite copy, tried: opened, checked page by page, and asked.

use super::{DrillReport, Trial, date, millis, objective, read_whole, rows};
use crate::{
    RecoveryError,
    restore::Phases,
    scratch::Scratch,
    sqlite::{self, MAIN, assert, integrity, limit, open_still, write, wrong},
    survey::Survey,
};

/// Brings it back into a throw-away folder, and looks.
pub(super) fn tried(trial: &Trial<'_>, report: &mut DrillReport, phases: &mut Phases) -> Result<(), RecoveryError> {
    let scratch = Scratch::own(&trial.options.scratch)?;
    let looked = look(trial, &scratch, report, phases);
    // Whatever came of it, nothing stays.
    let destroyed = phases.time("destroy", || scratch.destroy());
    looked.and(destroyed)
}

fn look(trial: &Trial<'_>, scratch: &Scratch, report: &mut DrillReport, phases: &mut Phases) -> Result<(), RecoveryError> {
    let (manifest, contents) = (trial.manifest, trial.contents);
    let file = scratch.path().join("restored");
    let written = phases.time("fetch", || write(trial.ground, contents, manifest.plain_bytes, &file));
    read_whole(report, written.is_ok(), &written.as_ref().err().map(RecoveryError::in_words).unwrap_or_default(), 0);
    written?;
    let mut opened = None;
    report.check(3, "it answers", || {
        let connection = opened.insert(open_still(&file)?);
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM main.sqlite_schema", [], |row| row.get(0))
            .map_err(|error| wrong("ask the database", error))?;
        Ok(format!("{tables} tables, indexes, views and triggers are defined"))
    })?;
    let Some(mut connection) = opened else { return Err(RecoveryError::Check("the database is gone".to_owned())) };
    report.rto_ms = Some(millis(trial.began.elapsed()));
    // Nothing after the copy is kept: all that was written since it began would be lost.
    date(report, manifest.began, trial.began);
    let _stood = report.check(3, "integrity_check", || {
        integrity(&connection)?;
        Ok("every page, index and row is sound".to_owned())
    });
    limit(&mut connection)?;
    let mut restored = None;
    let _stood = report.check(4, "rows", || {
        let found = restored.insert(Survey::from([(MAIN.to_owned(), sqlite::survey(&connection)?)]));
        rows(trial, found)
    });
    let now = restored.as_ref().and_then(|found| found.get(MAIN));
    let then = || [&contents.before, &contents.after].into_iter().filter_map(|survey| survey.get(MAIN));
    let unseen = || RecoveryError::Check("what came back could not be looked at".to_owned());
    let _stood = report.check(4, "schema", || {
        let now = now.ok_or_else(unseen)?;
        if then().any(|survey| survey.schema == now.schema) {
            Ok("as it was when it was copied".to_owned())
        } else {
            Err(RecoveryError::Check("not as it was when it was copied".to_owned()))
        }
    });
    let _stood = report.check(4, "foreign keys", || {
        let (now, most) = (now.ok_or_else(unseen)?.dangling, then().map(|survey| survey.dangling).max().unwrap_or(0));
        match (now, now <= most) {
            (0, _) => Ok("all hold".to_owned()),
            (_, true) => Ok(format!("{now} rows refer to what is not there, as when it was copied")),
            (_, false) => Err(RecoveryError::Check(format!("{now} rows refer to what is not there; when it was copied, {most} did"))),
        }
    });
    objective(trial, "by when the copy began", report);
    for (number, assertion) in trial.options.assertions.iter().enumerate() {
        limit(&mut connection)?;
        let _stood = report.check(5, &format!("own check {}", number + 1), || assert(&connection, assertion).map(|()| assertion.clone()));
    }
    Ok(())
}
