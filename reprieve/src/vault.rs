//! `reprieve vault`: what lies in the vault, and whether all of it can be read.

use std::collections::HashSet;

use reprieve_operation::{Digest, Timestamp, UndoId};
use reprieve_undo::{Secured, Snapshot, StoredImages, export, kept_texts, secured, snapshots, stored};
use reprieve_vault::{Usage, Vault as Objects, VaultError};
use serde_json::{Value, json};

use crate::{
    args::{Cli, Vault},
    keys::Keys,
    people::time,
    settings::Settings,
    undo::{find, history, images},
    wire,
};

pub(crate) fn vault(cli: &Cli, settings: &Settings, command: &Vault) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match command {
        Vault::Ls { limit } => runtime.block_on(list(cli, settings, *limit)),
        Vault::Export { id } => runtime.block_on(write_out(settings, *id)),
        Vault::Verify => runtime.block_on(verify(cli, settings)),
    }
}

/// The objects with row images that the ledger knows, newest first.
fn recorded(settings: &Settings) -> anyhow::Result<Vec<StoredImages>> {
    let history = history(settings)?;
    let mut all = Vec::new();
    for system in settings.databases() {
        all.extend(stored(&history, &system.name)?.into_iter().filter(|(_, counts)| *counts).map(|(stored, _)| stored));
    }
    all.sort_by_key(|stored| std::cmp::Reverse(stored.index));
    Ok(all)
}

/// The objects with definitions that the ledger knows, newest first.
fn definitions(settings: &Settings) -> anyhow::Result<Vec<Snapshot>> {
    let history = history(settings)?;
    let mut all = Vec::new();
    for system in settings.databases() {
        all.extend(snapshots(&history, &system.name)?);
    }
    all.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.index));
    Ok(all)
}

/// The objects of strict systems with images of transactions that were not final when they were put, newest first.
fn before_final(settings: &Settings) -> anyhow::Result<Vec<Secured>> {
    let history = history(settings)?;
    let mut all = Vec::new();
    for system in settings.databases() {
        all.extend(secured(&history, &system.name, Timestamp(0))?);
    }
    all.sort_by_key(|secured| std::cmp::Reverse(secured.at));
    Ok(all)
}

/// Prints what the vault has of a change.
async fn write_out(settings: &Settings, id: UndoId) -> anyhow::Result<u8> {
    let found = find(settings, &[id])?;
    let images = images(settings)?;
    let rows = export(&images, &found[0], |row| tell!("{}", json!(row))).await?;
    tracing::debug!(change = %id, rows, "rows were read from the vault");
    Ok(0)
}

async fn list(cli: &Cli, settings: &Settings, limit: usize) -> anyhow::Result<u8> {
    let all = recorded(settings)?;
    let snapshots = definitions(settings)?;
    let secured = before_final(settings)?;
    let usage = usage(settings).await;
    if cli.json {
        let objects: Vec<Value> = all.iter().take(limit).map(to_json).collect();
        let definitions: Vec<Value> = snapshots.iter().take(limit).map(snapshot_to_json).collect();
        let usage = usage.map_or_else(|error| json!({ "error": format!("{error:#}") }), |usage| json!(usage));
        let secured: Vec<Value> = secured.iter().take(limit).map(secured_to_json).collect();
        tell!(
            "{}",
            json!({ "objects": objects, "recorded": all.len(), "before_final": secured, "definitions": definitions, "usage": usage })
        );
        return Ok(0);
    }
    for Snapshot { at, system, object, bytes, .. } in snapshots.iter().take(limit) {
        tell!("{}  {}  {system}  definitions, {bytes} bytes", object.short(), time(*at));
    }
    if snapshots.len() > limit {
        tell!("… and definitions {} times before", snapshots.len() - limit);
    }
    for Secured { at, system, object, transactions, rows, .. } in secured.iter().take(limit) {
        let count = transactions.len();
        tell!("{}  {}  {system}  {rows} rows of {count} transactions, put before they were final", object.digest.short(), time(*at));
    }
    for stored in all.iter().take(limit) {
        let (first, last) = stored.transactions;
        tell!(
            "{}  {}  {}  {} rows of transactions {first} to {last}, {} of {} bytes",
            stored.object.digest.short(),
            time(stored.at),
            stored.system,
            stored.rows,
            stored.object.stored_bytes,
            stored.object.plain_bytes
        );
    }
    if all.len() > limit {
        tell!("… and {} older ones", all.len() - limit);
    }
    match usage {
        Ok(usage) => {
            tell!("{}", in_words(&usage));
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

fn to_json(stored: &StoredImages) -> Value {
    json!({
        "object": stored.object.digest,
        "at": stored.at,
        "system": stored.system,
        "rows": stored.rows,
        "part": stored.part,
        "first": stored.transactions.0,
        "last": stored.transactions.1,
        "plain_bytes": stored.object.plain_bytes,
        "stored_bytes": stored.object.stored_bytes,
    })
}

fn secured_to_json(secured: &Secured) -> Value {
    let Secured { at, system, object, transactions, rows, .. } = secured;
    json!({ "object": object.digest, "at": at, "system": system, "rows": rows, "transactions": transactions,
            "plain_bytes": object.plain_bytes, "stored_bytes": object.stored_bytes })
}

fn snapshot_to_json(snapshot: &Snapshot) -> Value {
    json!({ "object": snapshot.object, "at": snapshot.at, "system": snapshot.system, "definitions": true, "plain_bytes": snapshot.bytes })
}

fn in_words(usage: &Usage) -> String {
    let bound = usage.max_bytes.map_or_else(String::new, |bytes| format!(", at most {bytes}"));
    let free = usage.free_bytes.map_or_else(String::new, |bytes| format!("; {bytes} bytes are free there"));
    format!("{} objects, {} bytes{bound}{free}", usage.objects, usage.stored_bytes)
}

/// How much is in the vault, if something could be put there now.
pub(crate) async fn usage(settings: &Settings) -> anyhow::Result<Usage> {
    let access = wire::vault(settings, &Keys::of(settings))?;
    Ok(access.healthy().await?.usage().await?)
}

/// Reads everything to its end, and looks for what the ledger says is there.
async fn verify(cli: &Cli, settings: &Settings) -> anyhow::Result<u8> {
    let access = wire::vault(settings, &Keys::of(settings))?;
    let vault = access.vault().await?;
    let identity = vault.identity().await?;
    let verified = vault.verify().await?;
    let damaged: HashSet<_> = verified.damaged.iter().map(|(digest, _)| *digest).collect();
    let mut missing = Vec::new();
    let mut elsewhere = 0u64;
    for stored in recorded(settings)? {
        let digest = stored.object.digest;
        if stored.vault != identity {
            elsewhere += 1;
        } else if !damaged.contains(&digest) && is_missing(vault, digest).await? {
            missing.push(stored);
        }
    }
    let mut missing_definitions = Vec::new();
    for snapshot in definitions(settings)? {
        if !damaged.contains(&snapshot.object) && is_missing(vault, snapshot.object).await? {
            missing_definitions.push(snapshot);
        }
    }
    let mut missing_secured = Vec::new();
    for secured in before_final(settings)? {
        let digest = secured.object.digest;
        if secured.vault == identity && !damaged.contains(&digest) && is_missing(vault, digest).await? {
            missing_secured.push(secured);
        }
    }
    let mut missing_texts = Vec::new();
    for kept in kept_texts(&history(settings)?)? {
        if kept.vault != identity {
            elsewhere += 1;
        } else if !damaged.contains(&kept.object.digest) && is_missing(vault, kept.object.digest).await? {
            missing_texts.push(kept);
        }
    }
    // What a running gateway purged meanwhile is not missing.
    let still: HashSet<u64> = kept_texts(&history(settings)?)?.iter().map(|kept| kept.index).collect();
    missing_texts.retain(|kept| still.contains(&kept.index));
    let still: HashSet<Digest> = before_final(settings)?.iter().map(|secured| secured.object.digest).collect();
    missing_secured.retain(|secured| still.contains(&secured.object.digest));
    let still: HashSet<u64> = recorded(settings)?.iter().map(|stored| stored.index).collect();
    missing.retain(|stored| still.contains(&stored.index));
    let still: HashSet<u64> = definitions(settings)?.iter().map(|snapshot| snapshot.index).collect();
    missing_definitions.retain(|snapshot| still.contains(&snapshot.index));
    let all_there = missing.is_empty() && missing_definitions.is_empty() && missing_secured.is_empty() && missing_texts.is_empty();
    let ok = verified.damaged.is_empty() && all_there;
    if cli.json {
        let missing = missing.iter().map(to_json).chain(missing_definitions.iter().map(snapshot_to_json));
        let texts = missing_texts.iter().map(|kept| json!({ "object": kept.object.digest, "texts": true, "index": kept.index }));
        let missing: Vec<Value> = missing.chain(missing_secured.iter().map(secured_to_json)).chain(texts).collect();
        tell!(
            "{}",
            json!({ "ok": ok, "good": verified.good, "plain_bytes": verified.plain_bytes, "damaged": verified.damaged, "missing": missing,
                    "in_other_vaults": elsewhere })
        );
        return Ok(u8::from(!ok));
    }
    tell!("{} objects are whole.", verified.good);
    verified.damaged.iter().for_each(|(_, why)| tell!("Damaged: {why}"));
    missing.iter().for_each(|stored| tell!("Missing: {} of {}, {} rows", stored.object.digest, stored.system, stored.rows));
    missing_definitions.iter().for_each(|snapshot| tell!("Missing: {}, definitions of {}", snapshot.object, snapshot.system));
    missing_secured
        .iter()
        .for_each(|secured| tell!("Missing: {}, rows of {} that were not final yet", secured.object.digest, secured.system));
    missing_texts.iter().for_each(|kept| tell!("Missing: {}, exact texts of event {}", kept.object.digest, kept.index));
    if elsewhere > 0 {
        tell!("{elsewhere} more were put into another vault.");
    }
    Ok(u8::from(!ok))
}

async fn is_missing(vault: &Objects, digest: Digest) -> anyhow::Result<bool> {
    match vault.describe(digest).await {
        Ok(_) => Ok(false),
        Err(VaultError::Missing(_)) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
