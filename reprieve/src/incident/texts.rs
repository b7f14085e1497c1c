//! The exact text of what was asked, from the vault, for whoever looks into an incident.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use reprieve_audit::decode;
use reprieve_operation::{Event, IntentId};
use reprieve_store::{Query, Reader, Row};
use reprieve_undo::KeptTexts;

use super::all;
use crate::{keys::Keys, settings::Settings, wire};

/// What was found.
#[derive(Default)]
pub(super) struct Exact {
    /// Where the ledger says so, and the list of each object.
    pub(super) lists: Vec<(Row, String)>,
    /// The texts as they were kept, in order.
    pub(super) texts: BTreeMap<IntentId, Vec<Vec<u8>>>,
    /// Intents without one.
    pub(super) without: usize,
    /// Why objects could not be read.
    pub(super) unread: Vec<String>,
}

/// The texts of the intents in `rows`, which gets what says where they are.
pub(super) fn exact(settings: &Settings, reader: &dyn Reader, rows: &mut Vec<Row>) -> anyhow::Result<Exact> {
    let Some(first) = rows.first().map(|row| row.index) else { return Ok(Exact::default()) };
    let is_intent = |row: &Row| if let Event::Intent { intent, .. } = decode(&row.body).ok()?.event { Some(intent) } else { None };
    let intents: BTreeSet<IntentId> = rows.iter().filter_map(is_intent).collect();
    // A text is kept after it was asked.
    let kept = all(reader, &Query { kind: Some("texts_kept".to_owned()), since: Some(first), ..Query::default() })?;
    let mut kept: Vec<(KeptTexts, Row)> =
        kept.into_iter().filter_map(|row| Some((KeptTexts::of(row.index, &decode(&row.body).ok()?.event)?, row))).collect();
    kept.retain(|(kept, _)| intents.range(kept.intents.clone()).next().is_some());
    kept.sort_by_key(|(kept, _)| kept.index);
    let mut found = Exact::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let access = wire::vault(settings, &Keys::of(settings))?;
    for (kept, row) in kept {
        let read = runtime.block_on(async {
            let vault = access.vault().await.context("the vault is away")?;
            Ok::<_, anyhow::Error>(kept.read(vault, |intent| intents.contains(&intent)).await?)
        });
        match read {
            Ok((_, texts)) if texts.is_empty() => {}
            Ok((list, texts)) => {
                texts.into_iter().for_each(|(intent, text)| found.texts.entry(intent).or_default().push(text));
                found.lists.push((row, list));
            }
            Err(error) => found.unread.push(format!("event {}: {error:#}", kept.index)),
        }
    }
    found.without = intents.len() - found.texts.len();
    rows.extend(found.lists.iter().map(|(row, _)| row.clone()));
    rows.sort_by_key(|row| row.index);
    Ok(found)
}
