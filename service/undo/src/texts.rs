//! Exact texts: what agents asked, literals and all. The ledger has it redacted; the whole of it is put into the vault, many texts to
//! one object, a few seconds later. Hashes of the texts are in the ledger ([`Event::TextsKept`]), so that each can be proved to be what
//! was asked, alone and without the others: see [`sums`].

use std::{
    fmt::Write as _,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{RngCore as _, rngs::OsRng};
use reprieve_gate::{AskedText, Audit, Clock, Texts};
use reprieve_operation::{Digest, Event, IntentId, Parameters};
use reprieve_vault::{Kind, ObjectRef, Pack, Vault};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::{History, UndoError, VaultAccess, over::Sort};

/// How long texts wait for others to be put into the same object: what a crash loses.
const GATHER: Duration = Duration::from_secs(5);
/// So many bytes don't wait.
const ENOUGH: usize = 8 << 20;
/// The most that may wait, when the vault is slow or away. What an agent asks then is refused.
const MOST: usize = 128 << 20;
/// What a text takes besides its bytes.
const OVERHEAD: usize = 128;
/// How soon it is tried again when the vault did not take it.
const AGAIN: Duration = Duration::from_secs(5);
const PURGE_EVERY: Duration = Duration::from_secs(6 * 3_600);
/// The entry of a pack that lists the others.
const SUMS: u64 = 0;

const SORT: Sort = Sort {
    kept: "texts_kept",
    purged: "texts_purged",
    object: |event| match event {
        Event::TextsKept { object, stored_bytes, .. } => Some((*object, *stored_bytes)),
        _ => None,
    },
    through: |event| if let Event::TextsPurged { through, .. } = event { Some(*through) } else { None },
    event: |objects, stored_bytes, through| Event::TextsPurged { objects, stored_bytes, through },
};

/// Puts exact texts into the vault, and removes them when their time is over.
pub struct TextKeeper {
    vault: Arc<VaultAccess>,
    audit: Arc<dyn Audit>,
    history: Arc<dyn History>,
    clock: Arc<dyn Clock>,
    /// How long they are kept.
    window: Duration,
    waiting: Mutex<Waiting>,
    some: Notify,
    enough: Notify,
    /// One object after the other.
    putting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    texts: Vec<AskedText>,
    bytes: usize,
}

impl Waiting {
    fn push(&mut self, asked: AskedText) -> Result<(), String> {
        let values = asked.parameters.iter().flat_map(|parameters| &parameters.values);
        let bytes = values.flatten().fold(asked.text.len() + OVERHEAD, |bytes, value| bytes + value.len());
        if self.bytes.saturating_add(bytes) > MOST {
            return Err(format!("its exact text can't be kept: {} MiB of texts wait for the vault already", self.bytes >> 20));
        }
        self.bytes += bytes;
        self.texts.push(asked);
        Ok(())
    }
}

impl TextKeeper {
    /// Keeps texts in this vault for `window`.
    #[must_use]
    pub fn new(vault: Arc<VaultAccess>, audit: Arc<dyn Audit>, history: Arc<dyn History>, clock: Arc<dyn Clock>, window: Duration) -> Self {
        let (waiting, some, enough, putting) = Default::default();
        Self { vault, audit, history, clock, window, waiting, some, enough, putting }
    }

    /// Puts texts into the vault as they come. Only one task does.
    pub async fn run(self: Arc<Self>) {
        let mut is_failing = false;
        loop {
            self.some.notified().await;
            drop(tokio::time::timeout(GATHER, self.enough.notified()).await);
            while let Err(error) = self.flush().await {
                if !mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "exact texts could not be put into the vault");
                }
                tokio::time::sleep(AGAIN).await;
            }
            is_failing = false;
        }
    }

    /// Removes for ever what is too old.
    pub async fn purge(self: Arc<Self>) {
        loop {
            let purged = SORT.purge(self.history.as_ref(), self.audit.as_ref(), &self.vault, self.clock.as_ref(), self.window).await;
            if let Err(error) = purged {
                tracing::warn!(%error, "exact texts that are over could not be removed from the vault");
            }
            tokio::time::sleep(PURGE_EVERY).await;
        }
    }

    /// Puts into the vault what waits.
    pub async fn flush(&self) -> Result<(), UndoError> {
        let _one = self.putting.lock().await;
        let taken = mem::take(&mut *self.waiting());
        let (Some(first), Some(last)) =
            (taken.texts.iter().map(|asked| asked.intent).min(), taken.texts.iter().map(|asked| asked.intent).max())
        else {
            return Ok(());
        };
        match self.put(&taken.texts, first, last).await {
            Ok(event) => self.audit.append(event).await.map(drop).map_err(|error| UndoError::Ledger(error.to_string())),
            Err(error) => {
                let mut waiting = self.waiting();
                waiting.bytes += taken.bytes;
                waiting.texts.splice(0..0, taken.texts);
                Err(error)
            }
        }
    }

    async fn put(&self, texts: &[AskedText], first: IntentId, last: IntentId) -> Result<Event, UndoError> {
        let vault = self.vault.vault().await?;
        let entries: Vec<(IntentId, Vec<u8>)> = texts.iter().map(|asked| (asked.intent, entry(asked))).collect();
        let mut list = String::new();
        for (intent, bytes) in &entries {
            let _ = writeln!(list, "{}  {intent}", sum(bytes));
        }
        let mut pack = Pack::new();
        pack.add(SUMS, list.as_bytes())?;
        for (number, (_, bytes)) in (SUMS + 1..).zip(&entries) {
            pack.add(number, bytes)?;
        }
        let ObjectRef { digest, kind: _, plain_bytes, stored_bytes } = vault.put_pack(pack).await?;
        let sums = sum(list.as_bytes());
        let vault = vault.identity().await?;
        Ok(Event::TextsKept { object: digest, vault, first, last, texts: texts.len() as u64, sums, plain_bytes, stored_bytes })
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // A list stays usable whatever happened while it was held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Texts for TextKeeper {
    fn keep(&self, asked: AskedText) -> Result<(), String> {
        let mut waiting = self.waiting();
        waiting.push(asked)?;
        self.some.notify_one();
        if waiting.bytes > ENOUGH {
            self.enough.notify_one();
        }
        Ok(())
    }
}

/// SHA-256, as the tools that people have compute it: of a text as it was kept, or of a list.
#[must_use]
pub fn sum(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// A text as it is kept: JSON. The salt keeps those who see its hash from guessing its literals.
fn entry(asked: &AskedText) -> Vec<u8> {
    let mut salt = [0_u8; 16];
    OsRng.fill_bytes(&mut salt);
    let mut kept = json!({ "intent": asked.intent.to_string(), "salt": hex(&salt), "text": asked.text });
    if let Some(Parameters { formats, values }) = &asked.parameters {
        let shown = |(number, value): (usize, &Option<Vec<u8>>)| match value {
            None => Value::Null,
            // One format for all, or one for each (PostgreSQL, chapter 54.7, "Bind").
            Some(value) => {
                match (formats.get(number).or_else(|| formats.first().filter(|_| formats.len() == 1)), std::str::from_utf8(value)) {
                    (None | Some(0), Ok(text)) => Value::from(text),
                    _ => json!({ "hex": hex(value) }),
                }
            }
        };
        kept["parameters"] = values.iter().enumerate().map(shown).collect();
    }
    kept.to_string().into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Where texts are, as one event tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptTexts {
    /// The event.
    pub index: u64,
    /// Which vault has it.
    pub vault: Digest,
    /// The pack.
    pub object: ObjectRef,
    /// The intents that the first and the last of them belong to; others in between may be in other packs.
    pub intents: std::ops::RangeInclusive<IntentId>,
    /// The hash of its list.
    pub sums: Digest,
}

impl KeptTexts {
    /// Where an event says that texts are, if it does.
    #[must_use]
    pub fn of(index: u64, event: &Event) -> Option<Self> {
        let Event::TextsKept { object, vault, first, last, sums, plain_bytes, stored_bytes, .. } = event else { return None };
        let object = ObjectRef { digest: *object, kind: Kind::Pack, plain_bytes: *plain_bytes, stored_bytes: *stored_bytes };
        Some(Self { index, vault: *vault, object, intents: *first..=*last, sums: *sums })
    }

    /// The list of the pack, and those texts in it whose intent is wanted, each as it was kept.
    pub async fn read(&self, vault: &Vault, wanted: impl Fn(IntentId) -> bool) -> Result<(String, Vec<(IntentId, Vec<u8>)>), UndoError> {
        let mut pack = vault.open_pack(&self.object).await?;
        let list = String::from_utf8_lossy(&pack.read(SUMS).await?).into_owned();
        let mut found = Vec::new();
        for (number, (_, intent)) in (SUMS + 1..).zip(sums(&list)) {
            if wanted(intent) {
                found.push((intent, pack.read(number).await?.to_vec()));
            }
        }
        Ok((list, found))
    }
}

/// The packs of texts that were not removed, oldest first.
pub fn kept_texts(history: &dyn History) -> Result<Vec<KeptTexts>, UndoError> {
    let mut found = Vec::new();
    SORT.each(history, |recorded| found.extend(KeptTexts::of(recorded.index, &recorded.event)))?;
    found.reverse();
    Ok(found)
}

/// A pack's list: each line has the SHA-256 of a text as it was kept, in hexadecimal, two spaces, and its intent. The SHA-256 of the list is
/// in the ledger. What is no such line ends it.
pub fn sums(list: &str) -> impl Iterator<Item = (&str, IntentId)> {
    list.lines().map_while(|line| {
        let (sum, intent) = line.split_once("  ")?;
        Some((sum, intent.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let mut waiting = Waiting::default();
        let asked = |text: &str| AskedText { intent: IntentId(1), text: text.into(), parameters: None };
        let large = "x".repeat(1 << 20);
        let taken = (0..).take_while(|_| waiting.push(asked(&large)).is_ok()).count();
        assert_eq!(taken, 127);
        assert!(waiting.push(asked("a little one still fits")).is_ok());
        let parameters = Some(Parameters { formats: Vec::new(), values: vec![Some(vec![0; 1 << 20])] });
        assert!(waiting.push(AskedText { parameters, ..asked("") }).is_err());
        // Nothing at all takes room, too.
        let taken = (0..).take_while(|_| waiting.push(asked("")).is_ok()).count();
        assert!(taken < 10_000, "{taken}");
    }

    #[test]
    fn parameters_are_kept_as_they_came() {
        let asked = |formats: &[i16], values: &[Option<&[u8]>]| {
            let values = values.iter().map(|value| value.map(<[u8]>::to_vec)).collect();
            let parameters = Some(Parameters { formats: formats.to_vec(), values });
            let kept = entry(&AskedText { intent: IntentId(7), text: "SELECT $1".into(), parameters });
            let kept: Value = serde_json::from_slice(&kept).expect("JSON");
            assert_eq!((&kept["intent"], &kept["text"]), (&json!("I-7"), &json!("SELECT $1")));
            kept["parameters"].clone()
        };
        assert_eq!(asked(&[], &[Some(b"a"), None, Some(b"")]), json!(["a", null, ""]));
        assert_eq!(asked(&[1], &[Some(b"a"), Some(&[0, 255])]), json!([{ "hex": "61" }, { "hex": "00ff" }]));
        assert_eq!(asked(&[0, 1], &[Some(&[255]), Some(b"b")]), json!([{ "hex": "ff" }, { "hex": "62" }]));
    }

    #[test]
    fn the_same_text_has_another_hash_each_time() {
        let asked = AskedText { intent: IntentId(7), text: "DELETE FROM t WHERE id = 7".into(), parameters: None };
        assert_ne!(sum(&entry(&asked)), sum(&entry(&asked)));
    }

    #[test]
    fn a_list_says_what_it_says_and_no_more() {
        let list = "aa  I-1\nbb  I-2\nI-3\ncc  I-4\n";
        assert_eq!(sums(list).collect::<Vec<_>>(), [("aa", IntentId(1)), ("bb", IntentId(2))]);
    }
}
