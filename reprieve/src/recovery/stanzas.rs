//! pgBackRest's own word on its copies: which of ours are still there, which others made, and what its configuration lacks.

use reprieve_operation::{Digest, SystemName};
use reprieve_recovery::{Kept, Label, read_manifest};
use reprieve_surface_postgres::{Finding, Level};
use reprieve_vault::Vault;
use serde_json::{Value, json};

use super::{source, stanza};
use crate::{
    keys::Keys,
    settings::{Settings, System},
};

/// Completes a list of recovery points by what the repositories have. Answers what could not be read.
pub(super) fn complete(
    settings: &Settings,
    keys: &Keys,
    only: Option<&SystemName>,
    vault: &Vault,
    runtime: &tokio::runtime::Runtime,
    points: &mut Vec<Value>,
) -> Vec<String> {
    let mut unreadable = Vec::new();
    for system in settings.copyable().filter(|system| only.is_none_or(|only| system.name == *only)) {
        let Some(stanza) = stanza(settings, system) else { continue };
        let mut ours: Vec<(&mut Value, Option<Label>)> = Vec::new();
        for point in points.iter_mut().filter(|point| point["engine"] == "pgbackrest" && point["system"] == json!(system.name)) {
            let label = label(point, keys, vault, runtime).unwrap_or_else(|error| {
                unreadable.push(format!("{} of `{}`: {error:#}", point["point"].as_str().unwrap_or_default(), system.name));
                None
            });
            point["label"] = json!(label);
            ours.push((point, label));
        }
        match stanza.kept() {
            Ok(kept) => {
                for (point, label) in &mut ours {
                    point["there"] = json!(kept.iter().any(|kept| Some(&kept.label) == label.as_ref() && kept.wrong.is_none()));
                }
                let known: Vec<Label> = ours.into_iter().filter_map(|(_, label)| label).collect();
                points.extend(kept.iter().filter(|kept| !known.contains(&kept.label)).map(|kept| of_others(system, kept)));
            }
            Err(error) => unreadable.push(format!("pgBackRest's copies of `{}`: {}", system.name, error.in_words())),
        }
    }
    points.sort_by_key(|point| std::cmp::Reverse(point["began"].as_u64()));
    unreadable
}

fn label(point: &Value, keys: &Keys, vault: &Vault, runtime: &tokio::runtime::Runtime) -> anyhow::Result<Option<Label>> {
    let digest: Digest = serde_json::from_value(point["manifest"].clone())?;
    let manifest = runtime.block_on(read_manifest(vault, digest, &keys.public("copies")?))?;
    Ok(manifest.elsewhere.map(|elsewhere| elsewhere.label))
}

/// A copy that nobody told us of: it has no number of ours, and no drill tries it.
fn of_others(system: &System, kept: &Kept) -> Value {
    json!({ "system": system.name, "point": null, "manifest": null, "label": kept.label, "began": kept.began, "plain_bytes": kept.plain_bytes,
            "stored_bytes": kept.stored_bytes, "engine": "pgbackrest", "there": true, "wrong": kept.wrong })
}

/// What is to be said of a point instead of what a drill found.
pub(super) fn remark(point: &Value) -> Option<String> {
    match (&point["wrong"], &point["there"], &point["point"]) {
        (Value::String(wrong), ..) => Some(format!("NOT GOOD: it {wrong}")),
        (_, Value::Bool(false), _) => Some("GONE: it is not where it was put, or not good there any more".to_owned()),
        (_, _, Value::Null) if point["engine"] == "pgbackrest" => Some("made without Reprieve: no drill tries it".to_owned()),
        _ => None,
    }
}

/// What `protect` says of a system's stanza.
pub(crate) fn findings(settings: &Settings, system: &System, keys: &Keys) -> anyhow::Result<Vec<Finding>> {
    let Some(stanza) = stanza(settings, system) else { return Ok(Vec::new()) };
    let finding = |(subject, found): reprieve_recovery::Finding| match found {
        Ok(text) => Finding { level: Level::Good, subject: format!("pgBackRest, {subject}"), text },
        Err(text) => Finding { level: Level::Note, subject: format!("pgBackRest, {subject}"), text },
    };
    Ok(stanza.findings(&source(system, keys)?).into_iter().map(finding).collect())
}
