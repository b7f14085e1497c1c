//! `reprieve ledger`: reading and verifying the record, whether the gateway runs or not.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use reprieve_audit::{SystemClock, VerifyReport, decode, prove_consistency, prove_event, verify};
use reprieve_gate::{Clock as _, LedgerCheck};
use reprieve_operation::{Recorded, State};
use reprieve_store::{Query, Reader, SqliteStore, StoreError};
use serde_json::json;

use crate::{
    args::{Cli, Ledger},
    keys::Keys,
    people::time,
    settings::Settings,
};

/// Rows read at a time.
const PAGE: usize = 1_000;

/// The ledger as it is now: its gateway may be appending to it.
fn reader(settings: &Settings) -> anyhow::Result<Box<dyn Reader>> {
    open(settings, SqliteStore::open_as_of_now)
}

fn open(settings: &Settings, open: fn(&Path) -> Result<Box<dyn Reader>, StoreError>) -> anyhow::Result<Box<dyn Reader>> {
    let path = settings.ledger_file()?;
    open(&path).with_context(|| format!("cannot read the ledger in {}; `reprieve init` makes it", path.display()))
}

/// The state all events fold to, read from the store itself.
pub(crate) fn read_state(settings: &Settings) -> anyhow::Result<State> {
    let mut state = State::default();
    for_each_event(settings, |recorded| {
        state.apply(recorded);
        Ok(())
    })?;
    Ok(state)
}

/// Every event as the ledger is now, in order.
pub(crate) fn for_each_event(settings: &Settings, mut each: impl FnMut(&Recorded) -> anyhow::Result<()>) -> anyhow::Result<()> {
    for_each(reader(settings)?.as_ref(), |recorded| each(&recorded))
}

fn for_each(reader: &dyn Reader, mut each: impl FnMut(Recorded) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut from = 0;
    loop {
        let rows = reader.rows(from, PAGE)?;
        let Some(last) = rows.last() else { return Ok(()) };
        from = last.index + 1;
        for row in &rows {
            each(decode(&row.body)?)?;
        }
    }
}

pub(crate) fn ledger(cli: &Cli, settings: &Settings, command: &Ledger) -> anyhow::Result<u8> {
    match command {
        Ledger::Resume { reason } => crate::recovery::own::resume(cli, settings, reason),
        Ledger::Verify { since } => check(cli, settings, since.as_deref()),
        Ledger::Tail { limit, follow } => {
            // Each read sees what has come by then.
            let reader = open(settings, SqliteStore::open_to_read)?;
            let size = reader.head()?.map_or(0, |head| head.size);
            let mut from = size.saturating_sub(*limit as u64);
            loop {
                let rows = reader.rows(from, PAGE)?;
                for row in &rows {
                    from = row.index + 1;
                    print(cli, &decode(&row.body)?);
                }
                match (rows.is_empty(), follow) {
                    (false, _) => {}
                    (true, true) => std::thread::sleep(Duration::from_millis(300)),
                    (true, false) => return Ok(0),
                }
            }
        }
        Ledger::Search { agent, hold, kind, text, limit } => {
            let query = Query {
                agent: agent.as_ref().map(ToString::to_string),
                hold: hold.map(|hold| hold.0),
                kind: kind.clone(),
                text: text.clone(),
                limit: *limit,
                ..Query::default()
            };
            for row in reader(settings)?.search(&query)? {
                print(cli, &decode(&row.body)?);
            }
            Ok(0)
        }
        Ledger::Export => {
            for_each(reader(settings)?.as_ref(), |recorded| {
                tell!("{}", serde_json::to_string(&recorded)?);
                Ok(())
            })?;
            Ok(0)
        }
        Ledger::Prove { index } => {
            let proven = prove_event(reader(settings)?.as_ref(), &Keys::of(settings).verifier()?, *index)?;
            let event: serde_json::Value = serde_json::from_slice(&proven.body)?;
            if cli.json {
                tell!("{}", json!({ "event": event, "proof": proven.proof.to_text() }));
            } else {
                tell!("{event}\n\n{}", proven.proof.to_text());
            }
            Ok(0)
        }
        Ledger::Checkpoint => {
            let head = reader(settings)?.head()?.context("the ledger has no checkpoint yet")?;
            tell!("{}", head.checkpoint.trim_end());
            Ok(0)
        }
    }
}

/// The whole ledger recounted, and held against the head kept outside, if there is one.
fn verified(settings: &Settings) -> anyhow::Result<(VerifyReport, Box<dyn Reader>, bool)> {
    let key = Keys::of(settings).verifier()?;
    let head_file = settings.path(&settings.ledger.head);
    let head = if head_file.exists() { Some(fs::read_to_string(&head_file)?) } else { None };
    // Opened after the head was read: a running gateway writes that file after its rows, so the rows reach at least as far.
    let reader = reader(settings)?;
    Ok((verify(reader.as_ref(), &key, head.as_deref())?, reader, head.is_some()))
}

/// The same, for whoever shows how things stand.
pub(crate) fn recount(settings: &Settings) -> anyhow::Result<LedgerCheck> {
    let (report, ..) = verified(settings)?;
    Ok(LedgerCheck { at: SystemClock.now(), size: report.size, fault: report.fault.map(|fault| fault.to_string()) })
}

fn check(cli: &Cli, settings: &Settings, since: Option<&Path>) -> anyhow::Result<u8> {
    let (report, reader, has_head) = verified(settings)?;
    let key = Keys::of(settings).verifier()?;
    if let (Some(path), None) = (since, &report.fault) {
        let old = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let new = reader.head()?.context("the ledger has no checkpoint yet")?.checkpoint;
        if let Err(error) = prove_consistency(reader.as_ref(), &key, &old, &new) {
            bail!("does not verify: stop and call security: the ledger does not continue the checkpoint in {}: {error}", path.display());
        }
    }
    let fault = report.fault.as_ref().map(ToString::to_string);
    if cli.json {
        tell!(
            "{}",
            json!({ "verified": report.is_good(), "events": report.size, "checkpoints": report.checkpoints, "fault": fault, "head_file": has_head })
        );
    } else if let Some(fault) = &fault {
        tell!("Does not verify: stop and call security.\n  {fault}");
    } else {
        tell!(
            "Verified: {} events, {} signed checkpoints{}.",
            report.size,
            report.checkpoints,
            if has_head { ", and the head kept outside" } else { "" }
        );
    }
    Ok(u8::from(fault.is_some()))
}

fn print(cli: &Cli, recorded: &Recorded) {
    let line = serde_json::to_string(recorded).unwrap_or_default();
    if cli.json {
        tell!("{line}");
        return;
    }
    let mut event = serde_json::to_value(&recorded.event).unwrap_or_default();
    let kind = event.as_object_mut().and_then(|fields| fields.remove("event")).and_then(|kind| kind.as_str().map(str::to_owned));
    tell!("{:>8}  {}  {:<18} {event}", recorded.index, time(recorded.at), kind.unwrap_or_default());
}
