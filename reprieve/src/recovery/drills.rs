//! `reprieve drill`: the newest copy is brought back into a throw-away server, and what came of it is signed.

use std::collections::HashSet;

use anyhow::Context as _;
use reprieve_audit::SystemClock;
use reprieve_gate::{Clock as _, Command, Objective};
use reprieve_ledger::Signer;
use reprieve_operation::{Digest, Event, SystemName};
use reprieve_recovery::{DrillOptions, DrillReport, EngineKind, Ground, Say};
use serde_json::{Value, json};

use super::{
    LISTED, events,
    interrupt::{INTERRUPTED, Mark, guarded, never_ended},
    points, progress, runtime, scratch, stanza, tell_gateway,
};
use crate::{
    args::{Cli, Drill},
    keys::Keys,
    operator,
    people::{time, visible},
    settings::{Settings, System, SystemKind},
    wire,
};

pub(crate) fn drill(cli: &Cli, settings: &Settings, command: &Drill) -> anyhow::Result<u8> {
    match command {
        Drill::Run { system, vault } => run_drill(cli, settings, settings.system(system.as_str())?, *vault),
        Drill::Remedy { system, done, by } => {
            let command = Command::RemedyDrill { system: system.clone(), remedy: done.clone() };
            let answer = operator::send(settings, by, &command)?;
            if cli.json {
                tell!("{answer}");
            } else {
                tell!(
                    "Noted for {}. Only a drill that passes proves anything: reprieve drill run {system}",
                    answer["drill"].as_str().unwrap_or("it")
                );
            }
            Ok(0)
        }
        Drill::List { system } => list_drills(cli, settings, system.as_ref()),
    }
}

fn run_drill(cli: &Cli, settings: &Settings, system: &System, from_vault: bool) -> anyhow::Result<u8> {
    let keys = Keys::of(settings);
    let signer = keys.drill_signer(settings)?;
    let runtime = runtime()?;
    tell_of_interrupted(settings, system, &keys, &signer);
    let begun = DrillReport::begin(&format!("D-{:08x}", rand::random::<u32>()), &system.name, SystemClock.now());
    let mut mark = None;
    let by_signal = begun.clone();
    // A drill that can't even begin has failed, too.
    let work = || match try_newest(cli, settings, system, &keys, &signer, &runtime, from_vault, begun.clone(), &mut mark) {
        Ok(report) => report,
        Err(error) => begun.clone().failed(format!("it could not be done: {error:#}")),
    };
    let report = guarded(&runtime, work, || {
        let ended = by_signal.failed(format!("{INTERRUPTED} by a signal"));
        eprintln!("reprieve: {} is interrupted, and failed", ended.drill);
        // Its mark stays for the next one, which tells what could not be told now.
        if let Err(error) = tell_gateway(settings, &keys, &signer, Say::DrillEnded(Box::new(ended))) {
            eprintln!("reprieve: that could not be recorded now, the next drill does it: {error:#}");
        }
    });
    let recorded = tell_gateway(settings, &keys, &signer, Say::DrillEnded(Box::new(report.clone())));
    if recorded.is_ok()
        && let Some(mark) = mark
    {
        mark.remove();
    }
    if cli.json {
        let recorded = recorded.as_ref().map_or_else(|error| json!({ "error": format!("{error:#}") }), Value::clone);
        tell!("{}", json!({ "report": report, "recorded": recorded }));
    } else {
        show(&report);
        if let Err(error) = &recorded {
            tell!("NOT RECORDED, so it proves nothing to anybody: {error:#}");
        }
    }
    Ok(u8::from(!report.passed || recorded.is_err()))
}

/// Drills that began here and were killed have failed: else what was proved before would stand, whatever they were about to find.
fn tell_of_interrupted(settings: &Settings, system: &System, keys: &Keys, signer: &Signer) {
    for (mark, drill, point) in never_ended(settings, &system.name) {
        let mut report = DrillReport::begin(&drill, &system.name, SystemClock.now());
        report.point = (!point.is_empty()).then_some(point);
        let told = tell_gateway(
            settings,
            keys,
            signer,
            Say::DrillEnded(Box::new(report.failed(format!("{INTERRUPTED}: its end was never recorded")))),
        );
        match told.map_err(|error| format!("{error:#}")) {
            Err(error) if !error.contains("told before") => {
                eprintln!("reprieve: {drill} was interrupted, and that could not be recorded: {error}");
            }
            // It had come to its end, and could not take its mark away.
            Ok(_) | Err(_) => drop(std::fs::remove_file(mark)),
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "one step of one story, with all of it at hand")]
fn try_newest(
    cli: &Cli,
    settings: &Settings,
    system: &System,
    keys: &Keys,
    signer: &Signer,
    runtime: &tokio::runtime::Runtime,
    from_vault: bool,
    begun: DrillReport,
    mark: &mut Option<Mark>,
) -> anyhow::Result<DrillReport> {
    let identity = keys.identity(settings)?;
    let key = keys.public("copies").context("no copy was ever made: `reprieve backup now`")?;
    let access = wire::vault(settings, keys)?;
    let vault = runtime.block_on(access.vault())?;
    // A verifier on a machine of its own has no ledger, and looks through the vault.
    let look = from_vault || !settings.ledger_file()?.exists();
    let points = points(settings, keys, Some(&system.name), look.then_some((vault, runtime)))?;
    let newest = points.iter().max_by_key(|point| point["began"].as_u64()).context("there is no copy: `reprieve backup now`")?;
    let manifest: Digest = serde_json::from_value(newest["manifest"].clone())?;
    let point = newest["point"].as_str().unwrap_or_default().to_owned();
    *mark = Some(Mark::set(settings, &system.name, &begun.drill, &point)?);
    let say = Say::DrillStarted { system: system.name.clone(), drill: begun.drill.clone(), point };
    tell_gateway(settings, keys, signer, say).context("its beginning could not be recorded")?;
    let backup = system.backup.as_ref();
    let objective = backup.map(|backup| backup.objective).unwrap_or_default();
    let options = DrillOptions {
        objective: Objective { rpo: objective.rpo, rto: objective.rto },
        band_percent: backup.map_or(10, |backup| backup.band),
        assertions: backup.map(|backup| backup.assertions.clone()).unwrap_or_default(),
        may_be_empty: backup.map(|backup| backup.may_be_empty.clone()).unwrap_or_default(),
        locked_for: settings.recovery.locked,
        engines: match system.kind {
            SystemKind::Postgres | SystemKind::Http => EngineKind::OF_POSTGRES,
            SystemKind::Files => EngineKind::OF_FILES,
            SystemKind::Sqlite => EngineKind::OF_SQLITE,
        },
        scratch: scratch(settings),
    };
    let stanza = stanza(settings, system);
    let (handle, tell) = (runtime.handle(), progress::of(cli));
    let ground = Ground { vault, handle, key: &key, identity: &identity, received: None, stanza: stanza.as_ref(), tell };
    Ok(reprieve_recovery::drill(ground, manifest, &options, begun))
}

fn show(report: &DrillReport) {
    tell!("{}  {}  {}", report.drill, report.system, if report.passed { "passed" } else { "FAILED" });
    for check in &report.checks {
        tell!(
            "  {}  level {}  {:<36} {:>7} ms  {}",
            if check.ok { "ok    " } else { "FAILED" },
            check.level,
            check.name,
            check.ms,
            check.said
        );
    }
    for (step, ms) in &report.phases {
        tell!("          {step:<44} {ms:>7} ms");
    }
    if let Some(reason) = &report.reason {
        tell!("  {reason}");
    }
    let seconds = |ms: Option<u64>| ms.map_or("not measured".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
    let point = report.point.as_deref().unwrap_or("none");
    tell!(
        "  recovery point {point}, {} bytes; would be lost {}; back after {}",
        report.plain_bytes,
        seconds(report.rpo_ms),
        seconds(report.rto_ms)
    );
}

fn list_drills(cli: &Cli, settings: &Settings, system: Option<&SystemName>) -> anyhow::Result<u8> {
    let drills = events(settings, &["drill_passed", "drill_failed", "drill_started", "drill_remedied"])?;
    let ended: HashSet<&str> = drills
        .iter()
        .filter_map(|recorded| match &recorded.event {
            Event::DrillPassed { drill, .. } | Event::DrillFailed { drill, .. } => Some(drill.as_str()),
            _ => None,
        })
        .collect();
    let drills = drills.iter().filter(|recorded| match &recorded.event {
        Event::DrillPassed { system: of, .. } | Event::DrillFailed { system: of, .. } | Event::DrillRemedied { system: of, .. } => {
            system.is_none_or(|system| of == system)
        }
        Event::DrillStarted { system: of, drill, .. } => system.is_none_or(|system| of == system) && !ended.contains(drill.as_str()),
        _ => false,
    });
    if cli.json {
        tell!("{}", json!({ "drills": drills.collect::<Vec<_>>() }));
        return Ok(0);
    }
    for recorded in drills.take(LISTED) {
        match &recorded.event {
            Event::DrillPassed { system, drill, point, level, rpo_ms, rto_ms, .. } => {
                let lost = rpo_ms.map_or("?".to_owned(), |ms| format!("{:.1}", ms as f64 / 1000.0));
                tell!(
                    "{drill}  {}  {system:<16} passed  level {level}, {point}: {lost} s lost, back after {:.1} s",
                    time(recorded.at),
                    *rto_ms as f64 / 1000.0
                );
            }
            Event::DrillFailed { system, drill, reason, .. } => tell!("{drill}  {}  {system:<16} FAILED  {reason}", time(recorded.at)),
            Event::DrillRemedied { system, drill, remedy, .. } => {
                tell!("{drill}  {}  {system:<16} remedy  {}", time(recorded.at), visible(remedy));
            }
            Event::DrillStarted { system, drill, point, .. } => {
                tell!("{drill}  {}  {system:<16} began with {point}, and has not ended", time(recorded.at));
            }
            _ => {}
        }
    }
    Ok(0)
}
