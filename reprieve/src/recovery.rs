//! `reprieve backup` and `recovery`: copies in the vault, and the proof that they come back.
//!
//! Each runs in its own process. The one that copies has the role that copies and public keys; the one that tries copies has the
//! identity that opens them and a key of its own to sign results with. Both tell the gateway by signed notes.

pub(crate) mod drills;
mod interrupt;
pub(crate) mod own;
mod progress;
pub(crate) mod restore;
pub(crate) mod runs;
pub(crate) mod stanzas;

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use reprieve_audit::{SystemClock, decode};
use reprieve_gate::{Clock as _, Copies, Covered, Expected, Failure, Objective, RecoveryReport};
use reprieve_ledger::Signer;
use reprieve_operation::{Digest, Event, Recorded, State, SystemName, Timestamp};
use reprieve_recovery::{
    BackupOptions, Configured, Encryption, KINDS, Manifest, Notice, Say, Source, Stanza, Subject, carry_out, find_points, known_points,
    place_of, plan_purge, read_coverage, read_point, sign, told,
};
use reprieve_secrets::resolve;
use reprieve_store::{Query, Reader, SqliteStore};
use reprieve_surface_postgres::{Target, TlsMode};
use reprieve_vault::{Location, Lock, Vault};
use serde_json::{Value, json};

use crate::{
    args::{Backup, Cli},
    keys::Keys,
    ledger::read_state,
    operator,
    people::{time, visible},
    settings::{Settings, System, SystemKind, Wal},
    wire,
};

/// How long a copy waits for another one to end.
const ALONE_WITHIN: Duration = Duration::from_secs(3_600);
/// The newest recovery points that a list shows.
const LISTED: usize = 50;

/// A runtime for the vault, beside the threads that block.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// The login that copies are made with.
pub(crate) fn source(system: &System, keys: &Keys) -> anyhow::Result<Source> {
    let reference = system.backup.as_ref().and_then(|backup| backup.url.as_ref()).or(system.admin.as_ref()).unwrap_or(&system.url);
    source_of(reference, keys).with_context(|| format!("the login that copies `{}` is not right", system.name))
}

/// The login that protects it, and writes its heartbeats.
pub(crate) fn admin_source(system: &System, keys: &Keys) -> anyhow::Result<Source> {
    source_of(system.admin.as_ref().unwrap_or(&system.url), keys)
}

fn source_of(reference: &str, keys: &Keys) -> anyhow::Result<Source> {
    let target = Target::parse(resolve(reference, Some(&keys.secrets()?))?.reveal())?;
    let encryption = match target.tls().0 {
        TlsMode::Off => Encryption::Off,
        TlsMode::Prefer => Encryption::Prefer,
        TlsMode::Require => Encryption::Require,
        TlsMode::Verify => Encryption::Verify,
    };
    Ok(Source {
        host: target.host().to_owned(),
        port: target.port(),
        user: target.user().to_owned(),
        password: target.password().to_owned(),
        database: target.database().to_owned(),
        encryption,
    })
}

/// Where a folder or a SQLite database is; none: it is neither.
pub(crate) fn path(settings: &Settings, system: &System) -> anyhow::Result<Option<PathBuf>> {
    let Some(path) = &system.path else { return Ok(None) };
    let path = settings.path(path);
    Ok(Some(std::path::absolute(&path).with_context(|| format!("cannot find {}", path.display()))?))
}

/// The stanza of pgBackRest's that a system is copied to, if it is.
pub(crate) fn stanza(settings: &Settings, system: &System) -> Option<Stanza> {
    let backup = system.backup.as_ref()?;
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let config = backup.config.as_ref().map(|config| absolute(settings.path(config)));
    Some(Stanza { name: backup.stanza.clone()?, config })
}

/// What is to be copied.
fn subject(settings: &Settings, system: &System, keys: &Keys) -> anyhow::Result<Subject> {
    let backup = system.backup.as_ref();
    let Some(path) = path(settings, system)? else {
        let engine = backup.map_or(reprieve_recovery::EngineChoice::Auto, |backup| backup.engine);
        let source = source(system, keys)?;
        return Ok(match stanza(settings, system) {
            Some(stanza) => Subject::Stanza { source, stanza },
            None => Subject::Postgres { source, engine },
        });
    };
    if system.kind == SystemKind::Sqlite {
        return Ok(Subject::Sqlite { file: path, scratch: scratch(settings) });
    }
    let leave_out = backup.map(|backup| backup.leave_out.clone()).unwrap_or_default();
    if let Location::File(vault) = location(settings)?
        && let (Ok(vault), Ok(folder)) = (vault.canonicalize(), path.canonicalize())
        && vault.starts_with(&folder)
        && !leave_out.iter().any(|left_out| vault.starts_with(folder.join(left_out)))
    {
        bail!("the vault lies in `{}`: each copy would be in the next one", path.display());
    }
    Ok(Subject::Files { folder: path, leave_out })
}

/// Where what is needed meanwhile is put.
fn scratch(settings: &Settings) -> PathBuf {
    settings.recovery.scratch.as_ref().map_or_else(std::env::temp_dir, |path| settings.path(path))
}

/// Where a system's log is received.
pub(crate) fn received(settings: &Settings, system: &SystemName) -> PathBuf {
    let folder = settings.path(&PathBuf::from("recovery")).join(system.as_str()).join("wal");
    // PostgreSQL's programs run in another folder than ours.
    std::path::absolute(&folder).unwrap_or(folder)
}

/// The vault's place, with its folder as the program sees it.
fn location(settings: &Settings) -> anyhow::Result<Location> {
    let mut location: Location = settings.vault.store.parse()?;
    if let Location::File(path) = &mut location {
        *path = settings.path(path);
    }
    Ok(location)
}

/// The databases and folders, and what the settings say about their copies.
pub(crate) fn configured(settings: &Settings, keys: &Keys) -> anyhow::Result<Vec<Configured>> {
    let location = location(settings)?;
    let endpoint = settings
        .vault
        .endpoint
        .clone()
        .or_else(|| ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"].iter().find_map(|name| std::env::var(name).ok()));
    // By `verifier_key` alone: whoever can read this folder can read it there, too.
    let keys_folder = settings.path(&settings.keys.directory);
    let tried_apart = settings.recovery.verifier_key.as_ref().is_some_and(|path| !settings.path(path).starts_with(&keys_folder));
    let one = |system: &System| {
        let host = match path(settings, system) {
            Ok(Some(path)) => path.display().to_string(),
            Ok(None) => source(system, keys).map(|source| source.host).unwrap_or_default(),
            Err(_) => String::new(),
        };
        let objective = system.backup.as_ref().map(|backup| backup.objective).unwrap_or_default();
        Configured {
            system: system.name.clone(),
            environment: system.environment.clone(),
            copied: system.backup.is_some(),
            window: system.backup.as_ref().map(|backup| backup.window).into_iter().chain(settings.recovery.require_drill).min(),
            objective: Objective { rpo: objective.rpo, rto: objective.rto },
            // How far pgBackRest's own archive reaches is not looked at.
            reach: objective.rpo.filter(|_| stanza(settings, system).is_none()),
            keep: system.backup.as_ref().and_then(|backup| backup.keep),
            place: stanza(settings, system)
                .map_or_else(|| place_of(&location, endpoint.as_deref(), &host, settings.recovery.locked), |stanza| stanza.place()),
            tried_apart,
        }
    };
    Ok(settings.copyable().map(one).collect())
}

/// What decisions expect of copies.
pub(crate) fn copies(settings: &Settings, configured: &[Configured], covered: Arc<Covered>) -> Copies {
    let expected = configured.iter().filter(|one| one.copied).map(|one| {
        let (window, same_blast_radius) = (one.window.unwrap_or(Duration::MAX), one.place.same_because.is_some());
        (one.system.clone(), Expected { window, reach: one.reach, same_blast_radius })
    });
    Copies { covered, expected: expected.collect(), everywhere: settings.recovery.require_drill }
}

/// Up to when logs are kept, by what was noted here.
pub(crate) fn covered(settings: &Settings) -> Arc<Covered> {
    let covered = Covered::default();
    for system in settings.copyable().filter(|system| system.backup.as_ref().is_some_and(|backup| backup.wal != Wal::Off)) {
        let until = read_coverage(&received(settings, &system.name)).and_then(|coverage| coverage.until);
        until.into_iter().for_each(|until| covered.note(&system.name, until));
    }
    Arc::new(covered)
}

/// Signs a statement and tells the gateway.
fn tell_gateway(settings: &Settings, keys: &Keys, signer: &Signer, say: Say) -> anyhow::Result<Value> {
    let note = sign(&Notice { at: SystemClock.now(), say }, signer)?;
    operator::post(settings, keys, "/v1/recovery", &[], &json!({ "note": note }))
}

pub(crate) fn backup(cli: &Cli, settings: &Settings, command: &Backup) -> anyhow::Result<u8> {
    match command {
        Backup::Gateway => own::copy_now(cli, settings),
        Backup::Purge { system } => purge_now(cli, settings, settings.system(system.as_str())?),
        Backup::Now { system } => now(cli, settings, settings.system(system.as_str())?),
        Backup::List { system, vault } => list(cli, settings, system.as_ref(), *vault),
    }
}

fn now(cli: &Cli, settings: &Settings, system: &System) -> anyhow::Result<u8> {
    if system.kind == SystemKind::Http {
        bail!("`{}` is a service: only databases and folders are copied", system.name);
    }
    let keys = Keys::of(settings);
    keys.prepare_recovery(settings)?;
    let signer = keys.copyist()?;
    let runtime = runtime()?;
    let _alone = alone(settings, &system.name)?;
    let made = copy(settings, system, &keys, &signer, &runtime);
    let (manifest, object) = match made {
        Ok(made) => made,
        Err(error) => {
            let reason = format!("{error:#}");
            let say = Say::BackupFailed { system: system.name.clone(), reason };
            let told = tell_gateway(settings, &keys, &signer, say);
            return Err(match told {
                Ok(_) => error,
                Err(silent) => error.context(format!("and that could not be recorded: {silent:#}")),
            });
        }
    };
    tell_gateway(settings, &keys, &signer, told(&manifest, object))
        .with_context(|| format!("{} is in the vault, and could not be recorded", manifest.point))?;
    let point = &manifest.point;
    let purged = purge(settings, system, &keys, &signer, &runtime)
        .with_context(|| format!("{point} is in the vault; older copies could not be purged"))?;
    own::copy(settings, &keys, &signer, &runtime)
        .with_context(|| format!("{point} is in the vault; the gateway's own state could not be copied"))?;
    if cli.json {
        tell!(
            "{}",
            json!({ "point": manifest.point, "manifest": object, "purged": purged, "engine": manifest.engine, "plain_bytes": manifest.plain_bytes,
                             "stored_bytes": manifest.stored_bytes, "added_bytes": manifest.added_bytes, "ms": manifest.ended.since(manifest.began).as_millis() })
        );
    } else {
        tell!(
            "{}: a {} copy of {}, {} in {} bytes ({} of them new), in {:.1} s. Nothing proves yet that it comes back: reprieve drill run {}",
            manifest.point,
            manifest.engine.as_str(),
            manifest.address,
            manifest.plain_bytes,
            manifest.stored_bytes,
            manifest.added_bytes,
            manifest.ended.since(manifest.began).as_secs_f64(),
            system.name
        );
    }
    Ok(0)
}

fn purge_now(cli: &Cli, settings: &Settings, system: &System) -> anyhow::Result<u8> {
    let keys = Keys::of(settings);
    let _alone = alone(settings, &system.name)?;
    let purged = purge(settings, system, &keys, &keys.copyist()?, &runtime()?)?;
    if cli.json {
        tell!("{}", json!({ "purged": purged }));
    } else {
        tell!("{} copies were purged.", purged.len());
    }
    Ok(0)
}

/// One copy or purge of a system at a time: a copy relies on what is in the vault, and a purge takes away what nothing relies on.
fn alone(settings: &Settings, system: &SystemName) -> anyhow::Result<std::fs::File> {
    let folder = settings.path(&PathBuf::from("recovery")).join(system.as_str());
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join("copying");
    let file = std::fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let deadline = std::time::Instant::now() + ALONE_WITHIN;
    // The lock goes with the file, however this process ends.
    while file.try_lock().is_err() {
        if std::time::Instant::now() > deadline {
            bail!("another copy or purge of `{system}` is still running");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(file)
}

/// Removes what is over: recorded first, and only what the gateway's ledger agrees with. Answers the points.
fn purge(
    settings: &Settings,
    system: &System,
    keys: &Keys,
    signer: &Signer,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<Vec<String>> {
    let Some(keep) = system.backup.as_ref().and_then(|backup| backup.keep) else { return Ok(Vec::new()) };
    let access = wire::vault(settings, keys)?;
    let vault = runtime.block_on(access.vault())?;
    let points = known_points(&events(settings, &KINDS)?, &system.name);
    let (key, received) = (keys.public("copies")?, received(settings, &system.name));
    let purge = plan_purge(vault, runtime.handle(), &key, &received, &points, keep, SystemClock.now())?;
    if !purge.points.is_empty() {
        let say = Say::CopiesPurged {
            system: system.name.clone(),
            points: purge.points.clone(),
            objects: purge.objects(),
            stored_bytes: purge.stored_bytes,
            log_files: purge.log_files,
        };
        tell_gateway(settings, keys, signer, say)?;
    }
    carry_out(vault, runtime.handle(), &purge)?;
    Ok(purge.points)
}

fn copy(
    settings: &Settings,
    system: &System,
    keys: &Keys,
    signer: &Signer,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<(Manifest, Digest)> {
    let (subject, recipients) = (subject(settings, system, keys)?, keys.recipients(settings)?);
    let allow_empty = system.backup.as_ref().is_some_and(|backup| backup.allow_empty);
    // What a drill failed with may be in what would be relied on.
    let drills = events(settings, &["drill_passed", "drill_failed"])?;
    let newest = drills.iter().filter(|recorded| drilled(&recorded.event) == Some(&system.name)).max_by_key(|recorded| recorded.index);
    let anew = newest.is_some_and(|recorded| match &recorded.event {
        Event::DrillFailed { reason, .. } => !reason.starts_with(interrupt::INTERRUPTED),
        _ => false,
    });
    let options = BackupOptions { allow_empty, anew, locked_for: settings.recovery.locked };
    let access = wire::vault(settings, keys)?;
    let vault = runtime.block_on(access.vault())?;
    let (manifest, object) =
        reprieve_recovery::backup(&system.name, &subject, vault, runtime.handle(), &recipients, signer, &SystemClock, &options)?;
    Ok((manifest, object.digest))
}

/// Events of these kinds, newest first. None where there is no ledger here.
fn events(settings: &Settings, kinds: &[&str]) -> anyhow::Result<Vec<Recorded>> {
    let path = settings.ledger_file()?;
    if !path.exists() {
        return Ok(Vec::new());
    }
    let reader = SqliteStore::open_as_of_now(&path).with_context(|| format!("cannot read the ledger in {}", path.display()))?;
    let mut all = Vec::new();
    for kind in kinds {
        all.extend(of_kind(reader.as_ref(), kind)?);
    }
    all.sort_by_key(|recorded| std::cmp::Reverse(recorded.index));
    Ok(all)
}

fn of_kind(reader: &dyn Reader, kind: &str) -> anyhow::Result<Vec<Recorded>> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let rows = reader.search(&Query { kind: Some(kind.to_owned()), before, limit: Query::LIMIT_MAX, ..Query::default() })?;
        for row in &rows {
            found.push(decode(&row.body)?);
        }
        match rows.last() {
            Some(last) if rows.len() == Query::LIMIT_MAX => before = Some(last.index),
            _ => return Ok(found),
        }
    }
}

/// Recovery points by what the ledger says, newest first; or by what the vault has.
fn points(
    settings: &Settings,
    keys: &Keys,
    system: Option<&SystemName>,
    vault: Option<(&Vault, &tokio::runtime::Runtime)>,
) -> anyhow::Result<Vec<Value>> {
    if let Some((vault, runtime)) = vault {
        let found = runtime.block_on(find_points(vault, &keys.public("copies")?))?;
        let found = found.into_iter().rev().filter(|(_, manifest)| system.is_none_or(|system| manifest.system == *system));
        let shown = |(object, manifest): (Digest, Manifest)| {
            json!({ "system": manifest.system, "point": manifest.point, "manifest": object, "began": manifest.began, "plain_bytes": manifest.plain_bytes,
                    "stored_bytes": manifest.stored_bytes, "engine": manifest.engine })
        };
        return Ok(found.map(shown).collect());
    }
    let shown = |recorded: Recorded| match recorded.event {
        Event::BackupMade { system: of, point, manifest, began, plain_bytes, stored_bytes, engine }
            if system.is_none_or(|system| of == *system) =>
        {
            Some(
                json!({ "system": of, "point": point, "manifest": manifest, "began": began, "plain_bytes": plain_bytes, "stored_bytes": stored_bytes,
                         "engine": engine }),
            )
        }
        _ => None,
    };
    let events = events(settings, &["backup_made", "copies_purged"])?;
    let gone: HashSet<String> = events.iter().filter_map(purged).flatten().cloned().collect();
    let mut points: Vec<Value> = events.into_iter().filter_map(shown).collect();
    points.retain(|shown| shown["point"].as_str().is_none_or(|point| !gone.contains(point)));
    Ok(points)
}

fn purged(recorded: &Recorded) -> Option<&Vec<String>> {
    match &recorded.event {
        Event::CopiesPurged { points, .. } => Some(points),
        _ => None,
    }
}

fn old(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s old"),
        120..7_200 => format!("{} min old", seconds / 60),
        7_200..172_800 => format!("{} h old", seconds / 3_600),
        _ => format!("{} days old", seconds / 86_400),
    }
}

/// Until when the bucket lets nobody remove a point, in milliseconds, as its manifest says there now; else why that is not so. Each of
/// its objects was looked at when it was made, and is in each drill.
fn lock_of(access: &reprieve_undo::VaultAccess, runtime: &tokio::runtime::Runtime, point: &Value) -> Value {
    let read = || -> anyhow::Result<Lock> {
        let manifest: Digest = serde_json::from_value(point["manifest"].clone())?;
        runtime.block_on(async { anyhow::Ok(access.vault().await?.lock(manifest, Timestamp(0)).await?) })
    };
    match read() {
        Ok(Lock::Until(until)) => json!(until),
        Ok(Lock::Weak) => json!("a right goes around its lock"),
        Ok(Lock::None) => json!("whoever may delete can"),
        Err(error) => json!(format!("its lock can't be read: {error:#}")),
    }
}

/// Whether a point's manifest is in the vault; `null` where that can't be told.
fn is_there(access: &reprieve_undo::VaultAccess, runtime: &tokio::runtime::Runtime, point: &Value) -> Value {
    let look = || -> anyhow::Result<bool> {
        let manifest: Digest = serde_json::from_value(point["manifest"].clone())?;
        runtime.block_on(async { anyhow::Ok(access.vault().await?.exists(manifest).await?) })
    };
    json!(look().ok())
}

fn list(cli: &Cli, settings: &Settings, system: Option<&SystemName>, from_vault: bool) -> anyhow::Result<u8> {
    let keys = Keys::of(settings);
    let runtime = runtime()?;
    let access = wire::vault(settings, &keys)?;
    let vault = if from_vault { Some((runtime.block_on(access.vault())?, &runtime)) } else { None };
    let mut points = points(settings, &keys, system, vault)?;
    let unreadable = if settings.copyable().any(|system| stanza(settings, system).is_some()) {
        stanzas::complete(settings, &keys, system, runtime.block_on(access.vault())?, &runtime, &mut points)
    } else {
        Vec::new()
    };
    let drills = events(settings, &["drill_passed", "drill_failed"])?;
    let configured = configured(settings, &keys)?;
    let now = SystemClock.now();
    for point in &mut points {
        let verified = drills.iter().find_map(|recorded| match &recorded.event {
            Event::DrillPassed { point: of, level, .. } if point["point"] == json!(of) => {
                Some(json!({ "level": level, "at": recorded.at }))
            }
            Event::DrillFailed { point: Some(of), reason, .. } if point["point"] == json!(of) => {
                Some(json!({ "failed": reason, "at": recorded.at }))
            }
            _ => None,
        });
        let place = configured.iter().find(|one| json!(one.system) == point["system"]).map(|one| &one.place);
        point["age_s"] = json!(point["began"].as_u64().map(|began| now.since(Timestamp(began)).as_secs()));
        point["verified"] = json!(verified);
        point["place"] = json!(place.map(|place| &place.name));
        point["same_blast_radius"] = json!(place.is_none_or(|place| place.same_because.is_some()));
        point["locked"] = json!(place.map(|place| &place.locked));
    }
    for point in points.iter_mut().take(LISTED).filter(|point| point["engine"] != "pgbackrest") {
        point["there"] = is_there(&access, &runtime, point);
    }
    if matches!(location(settings)?, Location::S3 { .. }) {
        for point in points.iter_mut().take(LISTED) {
            point["locked_until"] = lock_of(&access, &runtime, point);
        }
    }
    if cli.json {
        tell!("{}", json!({ "points": points, "unreadable": unreadable }));
        return Ok(u8::from(!unreadable.is_empty()));
    }
    if points.is_empty() {
        tell!("There is no recovery point. Make one: reprieve backup now SYSTEM");
    }
    for point in points.iter().take(LISTED) {
        let text = |name: &str| point[name].as_str().unwrap_or_default().to_owned();
        let verified = match (&point["verified"]["level"], &point["verified"]["failed"]) {
            (Value::Number(level), _) => format!("level {level}"),
            (_, Value::String(reason)) => format!("FAILED: {reason}"),
            _ => "never tried".to_owned(),
        };
        let verified = stanzas::remark(point).unwrap_or(verified);
        let began = time(Timestamp(point["began"].as_u64().unwrap_or(0)));
        let age = old(point["age_s"].as_u64().unwrap_or(0));
        let locked = match &point["locked_until"] {
            Value::Number(until) => format!("  nobody deletes it before {} UTC", time(Timestamp(until.as_u64().unwrap_or(0)))),
            Value::String(why) => format!("  NOT LOCKED: {why}"),
            _ => String::new(),
        };
        let label = if point["label"].is_null() { String::new() } else { format!("  {}", text("label")) };
        tell!(
            "{:<10}  {:<16} {began} UTC, {age:<11} {:<8} {:>14} bytes  {verified}{locked}{label}",
            text("point"),
            text("system"),
            text("engine"),
            point["stored_bytes"]
        );
    }
    for one in configured.iter().filter(|one| one.copied) {
        match &one.place.same_because {
            Some(why) => tell!("SAME BLAST RADIUS: copies of {} are lost with it: {why}.", one.system),
            None => tell!("{}: {}, {}.", one.system, one.place.name, one.place.locked),
        }
    }
    if points.len() > LISTED {
        tell!("… and {} older ones", points.len() - LISTED);
    }
    for what in &unreadable {
        tell!("NOT READ: {what}");
    }
    Ok(u8::from(!unreadable.is_empty()))
}

fn drilled(event: &Event) -> Option<&SystemName> {
    match event {
        Event::DrillPassed { system, .. } | Event::DrillFailed { system, .. } => Some(system),
        _ => None,
    }
}

/// What is known about coming back, from the ledger as it is on the disk.
pub(crate) fn known(settings: &Settings) -> anyhow::Result<(RecoveryReport, State)> {
    let configured = configured(settings, &Keys::of(settings))?;
    let state = read_state(settings)?;
    let report = reprieve_recovery::report(&configured, &state.recovery, &events(settings, &KINDS)?, &covered(settings), SystemClock.now());
    Ok((report, state))
}

pub(crate) fn status(cli: &Cli, settings: &Settings) -> anyhow::Result<u8> {
    let (report, _) = known(settings)?;
    let unproven = report.systems.iter().any(|system| system.unproven.is_some());
    if cli.json {
        tell!("{}", serde_json::to_string(&report)?);
        return Ok(u8::from(unproven));
    }
    for system in &report.systems {
        let proof = system.unproven.map_or_else(|| "proven".to_owned(), |why| format!("UNPROVEN: {}", why.in_words()));
        tell!("{} ({})  {proof}", system.system, system.environment);
        let at = |at: Option<Timestamp>| at.map_or("never".to_owned(), |at| format!("{} UTC", time(at)));
        tell!("  newest copy   {}, {} in 90 days", at(system.backup), system.backups);
        if let Some(failed) = system.backup_failed.filter(|failed| system.backup.is_none_or(|made| *failed > made)) {
            tell!("  LAST COPY     FAILED at {} UTC", time(failed));
        }
        tell!("  reaches       {}", at(system.reaches));
        let spread = |spread: Option<reprieve_gate::Spread>| {
            spread.map_or("not measured".to_owned(), |of| {
                format!("p50 {:.1} s, p95 {:.1} s, worst {:.1} s", of.p50 as f64 / 1e3, of.p95 as f64 / 1e3, of.worst as f64 / 1e3)
            })
        };
        let promised = |seconds: Option<u64>| seconds.map_or("nothing".to_owned(), |seconds| format!("{seconds} s"));
        tell!("  lost          promised {}, measured {}", promised(system.objective_rpo_s), spread(system.rpo_ms));
        tell!("  back after    promised {}, measured {}", promised(system.objective_rto_s), spread(system.rto_ms));
        tell!(
            "  drills        {} passed, {} failed in 90 days; last passed {}",
            system.drills.0,
            system.drills.1,
            at(system.passed.map(|(at, ..)| at))
        );
        if let Some(Failure { at, reason, remedy, .. }) = system.failures.first() {
            tell!("  last failure  {} UTC: {reason}", time(*at));
            match remedy {
                Some((at, remedy)) => tell!("  what was done {} UTC: {}", time(*at), visible(remedy)),
                None => tell!("  what was done nobody said: reprieve drill remedy {} --done …", system.system),
            }
        }
        tell!("  place         {}{}", if system.same_blast_radius { "SAME BLAST RADIUS: " } else { "" }, system.place);
        tell!("  locked        {}", system.locked);
    }
    Ok(u8::from(unproven))
}

/// The manifest of a recovery point that fits: a certain one, or the newest that ended before a time.
fn find_point(
    settings: &Settings,
    keys: &Keys,
    vault: &Vault,
    runtime: &tokio::runtime::Runtime,
    system: &SystemName,
    wanted: Option<&str>,
    before: Option<Timestamp>,
) -> anyhow::Result<(Digest, Manifest)> {
    let key = keys.public("copies").context("no copy was ever made here")?;
    let look = !settings.ledger_file()?.exists();
    let mut points = points(settings, keys, Some(system), look.then_some((vault, runtime)))?;
    points.sort_by_key(|point| std::cmp::Reverse(point["began"].as_u64()));
    for point in points.iter().filter(|point| wanted.is_none_or(|wanted| point["point"] == wanted)) {
        let digest: Digest = serde_json::from_value(point["manifest"].clone())?;
        let (manifest, _) = runtime.block_on(read_point(vault, digest, &key))?;
        if before.is_none_or(|before| manifest.ended <= before) {
            return Ok((digest, manifest));
        }
    }
    bail!("there is no such recovery point of `{system}`; `reprieve backup list` shows what there is")
}

/// What the gateway needs to take notes and tell what is known.
pub(crate) fn office(
    settings: &Settings,
    keys: &Keys,
    audit: &Arc<reprieve_audit::AuditLog>,
    configured: Vec<Configured>,
    covered: Arc<Covered>,
) -> anyhow::Result<reprieve_recovery::Office> {
    keys.prepare_recovery(settings)?;
    Ok(reprieve_recovery::Office {
        audit: audit.clone(),
        records: audit.clone(),
        clock: Arc::new(SystemClock),
        copyist: keys.public("copies")?,
        verifier: keys
            .public("verifier")
            .context("`recovery.verifier_key` lies elsewhere: copy its public half to verifier.pub in the keys' folder")?,
        systems: configured,
        covered,
        publisher: if settings.recovery.publish { Some(keys.signer()?) } else { None },
    })
}
