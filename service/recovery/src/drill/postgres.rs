//! A PostgreSQL copy, tried: a server starts over it, and is asked.

use std::{path::Path, time::Duration};

use reprieve_operation::Timestamp;

use super::{DrillReport, Trial, date, millis, objective, read_whole, rows};
use crate::{
    EngineKind, RecoveryError, Source, Tools, heartbeat,
    progress::Progress,
    restore::{Phases, Until, bring_back, create, fill, missing},
    scratch::Scratch,
    server::Server,
    survey::survey,
    tools::{free_bytes, run},
};

/// A check's longest.
const CHECK: Duration = Duration::from_secs(3_600);

/// Brings it back in a throw-away server, and looks.
pub(super) fn tried(trial: &Trial<'_>, report: &mut DrillReport, phases: &mut Phases) -> Result<(), RecoveryError> {
    let tools = Tools::find(Some(trial.manifest.major))?;
    let scratch = Scratch::make(&tools, &trial.options.scratch)?;
    let looked = match trial.manifest.engine {
        EngineKind::Logical => logical(trial, &tools, &scratch, report, phases),
        EngineKind::Physical | EngineKind::Pgbackrest | EngineKind::Files | EngineKind::Sqlite => {
            physical(trial, &tools, &scratch, report, phases)
        }
    };
    // Whatever came of it, nothing stays.
    let destroyed = phases.time("destroy", || scratch.destroy());
    looked.and(destroyed)
}

fn physical(
    trial: &Trial<'_>,
    tools: &Tools,
    scratch: &Scratch,
    report: &mut DrillReport,
    phases: &mut Phases,
) -> Result<(), RecoveryError> {
    let (ground, manifest, contents) = (trial.ground, trial.manifest, trial.contents);
    let data = scratch.path().join("data");
    let by = if manifest.elsewhere.is_some() { "pgBackRest" } else { "pg_verifybackup" };
    let mut back = None;
    let brought = report.check(3, "a server starts over it", || {
        let brought = bring_back(ground, tools, manifest, contents, &data, scratch.path(), &Until::Newest, false, phases)?;
        let said = format!("{} files of the log replayed, {by} found every file whole", brought.wal_files);
        back = Some(brought);
        Ok(said)
    });
    opened(report, &data, trial.manifest.engine, phases);
    brought?;
    let Some(back) = back else { return Err(RecoveryError::Check("the server is gone".to_owned())) };
    report.rto_ms = Some(millis(trial.began.elapsed()));
    report.wal_files = back.wal_files;
    // What was committed last came back; a heartbeat says more where nothing is committed for hours.
    let newest = back.heartbeat.max(back.last_commit.filter(|_| back.heartbeat.is_none())).unwrap_or(manifest.began);
    date(report, newest, trial.began);
    let source = back.server.source(&manifest.database);
    sleep(tools, &source)?;
    (ground.tell)(Progress::Step("amcheck"));
    let _stood = report.check(3, "amcheck", || amcheck(tools, &source));
    look(trial, tools, &source, back.wal_files > 0, back.heartbeat.is_some(), report);
    drop(back);
    Ok(())
}

/// Levels 1 and 2, which showed while the copy was read: every object was checked against its name, and the whole was opened.
fn opened(report: &mut DrillReport, data: &Path, engine: EngineKind, phases: &Phases) {
    let unpacked = data.join("PG_VERSION").exists();
    // The step that reads it, and the one that comes once all of it was read.
    let (reading, after) = match engine {
        EngineKind::Pgbackrest => ("pgbackrest restore", "fetch the log"),
        EngineKind::Physical | EngineKind::Logical | EngineKind::Files | EngineKind::Sqlite => ("fetch", "pg_verifybackup"),
    };
    let ms = phases.0.iter().find(|(step, _)| step == reading).map_or(0, |(_, ms)| *ms);
    let failure = report.checks.iter().find(|check| !check.ok).map(|check| check.said.clone());
    // What was unpacked in part only may have failed at either level: then neither stands.
    let whole = unpacked && phases.0.iter().any(|(step, _)| step == after);
    read_whole(report, whole, failure.as_deref().unwrap_or("not read to the end"), ms);
}

fn logical(
    trial: &Trial<'_>,
    tools: &Tools,
    scratch: &Scratch,
    report: &mut DrillReport,
    phases: &mut Phases,
) -> Result<(), RecoveryError> {
    let (ground, manifest, contents) = (trial.ground, trial.manifest, trial.contents);
    let (free, needed) = (free_bytes(scratch.path())?, manifest.plain_bytes.saturating_mul(2).saturating_add(256 << 20));
    if free < needed {
        return Err(RecoveryError::Refused(format!(
            "no room in `{}`: {needed} bytes are needed, {free} are free",
            scratch.path().display()
        )));
    }
    let data = scratch.path().join("data");
    let mut running = None;
    report.check(3, "a server starts", || {
        phases.time("make a server", || {
            let mut command = tools.served("initdb");
            command
                .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username"])
                .arg(&manifest.superuser)
                .arg("--pgdata")
                .arg(&data);
            run(command, CHECK)
        })?;
        let folder = scratch.path().join("server");
        tools.own_folder(&folder)?;
        let settings = [("fsync", "off".to_owned())];
        let server = phases.time("start", || Server::start(tools, &folder, &data, &manifest.superuser, &settings, CHECK))?;
        let name = manifest.database.replace('"', "\"\"");
        if manifest.database != "postgres" {
            server.source("postgres").sql(tools, &format!("CREATE DATABASE \"{name}\" TEMPLATE template0"), CHECK)?;
        }
        running = Some(server);
        Ok("an empty one".to_owned())
    })?;
    let Some(server) = running else { return Err(RecoveryError::Check("the server is gone".to_owned())) };
    let source = server.source(&manifest.database);
    let filled = phases.time("restore", || {
        create(tools, &source, &missing(tools, &source, contents)?)?;
        fill(ground, tools, contents, manifest.plain_bytes, &source)
    });
    read_whole(report, filled.is_ok(), &filled.as_ref().err().map(RecoveryError::in_words).unwrap_or_default(), 0);
    filled?;
    report.rto_ms = Some(millis(trial.began.elapsed()));
    let beat = heartbeat::last(&source, tools)?.map(Timestamp);
    date(report, beat.unwrap_or(manifest.began), trial.began);
    sleep(tools, &source)?;
    (ground.tell)(Progress::Step("amcheck"));
    let _stood = report.check(3, "amcheck", || amcheck(tools, &source));
    look(trial, tools, &source, false, beat.is_some(), report);
    Ok(())
}

/// Checks define things, and what the copy brought along may want to act on that, in here or elsewhere: its event triggers don't fire.
fn sleep(tools: &Tools, source: &Source) -> Result<(), RecoveryError> {
    let names = "SELECT coalesce(json_agg(datname), '[]') FROM pg_catalog.pg_database WHERE datallowconn";
    let names: Vec<String> = source.json(tools, names, CHECK)?;
    names.iter().try_for_each(|name| source.on(name).sql(tools, "UPDATE pg_catalog.pg_event_trigger SET evtenabled = 'D'", CHECK).map(drop))
}

/// Every table and every index, page by page.
fn amcheck(tools: &Tools, source: &Source) -> Result<String, RecoveryError> {
    let there = source.sql(tools, "SELECT count(*) FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck'", CHECK)?;
    if there != "1" {
        return Ok("not looked at: the extension amcheck is not installed here".to_owned());
    }
    let mut command = tools.client("pg_amcheck");
    source.tell(&mut command).args(["--all", "--install-missing", "--jobs=2", "--no-password"]).env_remove("PGDATABASE");
    run(command, CHECK)?;
    Ok("every table and B-tree index is sound".to_owned())
}

/// Levels 4 and 5. Each check is made, whatever the others found.
fn look(trial: &Trial<'_>, tools: &Tools, source: &Source, replayed: bool, has_heartbeat: bool, report: &mut DrillReport) {
    let (contents, all) = (trial.contents, trial.manifest.engine != EngineKind::Logical);
    let mut restored = None;
    let tell = trial.ground.tell;
    tell(Progress::Step("count rows"));
    let _stood = report.check(4, "rows", || {
        let found = restored.insert(survey(source, tools, all, true)?);
        rows(trial, found)
    });
    let _stood = report.check(4, "schema", || {
        let found = restored.as_ref().ok_or_else(|| RecoveryError::Check("what came back could not be looked at".to_owned()))?;
        let same = |name: &String| {
            let now = found.get(name).map(|database| &database.schema);
            [&contents.before, &contents.after].into_iter().any(|survey| survey.get(name).map(|database| &database.schema) == now)
        };
        let other: Vec<&str> = contents.before.keys().filter(|name| !same(name)).map(String::as_str).collect();
        match (other.is_empty(), replayed) {
            (true, _) => Ok("as it was when it was copied".to_owned()),
            (false, true) => Ok(format!("changed since the copy, by the log: {}", other.join(", "))),
            (false, false) => Err(RecoveryError::Check(format!("not as it was when it was copied: {}", other.join(", ")))),
        }
    });
    let databases: Vec<String> = if all { contents.before.keys().cloned().collect() } else { vec![trial.manifest.database.clone()] };
    tell(Progress::Step("check foreign keys"));
    let _stood = report.check(4, "foreign keys", || {
        let mut count = 0;
        for database in &databases {
            count += foreign_keys(tools, &source.on(database))?;
        }
        Ok(format!("{count} hold"))
    });
    objective(trial, if has_heartbeat { "by its heartbeat" } else { "by what was committed last, there is no heartbeat" }, report);
    for (number, assertion) in trial.options.assertions.iter().enumerate() {
        tell(Progress::Step(&format!("own check {}", number + 1)));
        let _stood = report.check(5, &format!("own check {}", number + 1), || {
            let answer = source.sql(tools, assertion, CHECK)?;
            if answer == "t" {
                Ok(assertion.clone())
            } else {
                Err(RecoveryError::Check(format!("`{assertion}` answered `{answer}`, not `t`")))
            }
        });
    }
}

/// Has PostgreSQL check every foreign key again, against every row. For a throw-away server only.
fn foreign_keys(tools: &Tools, source: &Source) -> Result<u64, RecoveryError> {
    let sql = "SET client_min_messages = error;
        DO $$ DECLARE k record; BEGIN
          FOR k IN SELECT c.oid, c.conrelid::pg_catalog.regclass AS tab, c.conname FROM pg_catalog.pg_constraint c
                   WHERE c.contype = 'f' AND c.convalidated AND c.conparentid = 0 LOOP
            UPDATE pg_catalog.pg_constraint SET convalidated = false WHERE oid = k.oid;
            EXECUTE pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', k.tab, k.conname);
          END LOOP; END $$;
        SELECT count(*) FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conparentid = 0";
    source.sql(tools, sql, CHECK)?.parse().map_err(|_| RecoveryError::Check("foreign keys could not be counted".to_owned()))
}
