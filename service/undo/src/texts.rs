//! Exact texts: what agents asked, literals and all. The ledger has it redacted; the whole of it is put into the vault, many texts to
//! one object, a few seconds later. Hashes of the texts are in the ledger ([`Event::TextsKept`]), so that each can be proved to be what
//! was asked, alone and without the others: see [`sums`].

use std::{
    collections::{HashMap, VecDeque},
    fmt::Write as _,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rand::{RngCore as _, rngs::OsRng};
use reprieve_gate::{AskedText, Audit, Clock, Texts};
use reprieve_operation::{AgentName, Digest, Event, IntentId, Parameters};
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
/// The largest text that is kept whole, as it is written.
const LARGEST: usize = 48 << 20;
/// What is kept whole of one agent's in an hour, in bytes beyond the first of each text: an agent that floods does not fill the vault.
const HOURLY: usize = 256 << 20;
const FREE: usize = 1_024;
const HOUR: Duration = Duration::from_secs(3_600);
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
    /// Each with whether it is kept whole.
    texts: VecDeque<(AskedText, bool)>,
    bytes: usize,
    /// By agent, what was kept whole since then.
    spent: HashMap<AgentName, usize>,
    since: Option<Instant>,
}

impl Waiting {
    fn push(&mut self, asked: AskedText) -> Result<(), String> {
        let bytes = size(&asked);
        if self.bytes.saturating_add(bytes) > MOST {
            return Err(format!("its exact text can't be kept: {} MiB of texts wait for the vault already", self.bytes >> 20));
        }
        self.bytes += bytes;
        if self.since.is_none_or(|since| since.elapsed() >= HOUR) {
            self.since = Some(Instant::now());
            self.spent.clear();
        }
        let more = bytes.saturating_sub(FREE);
        let spent = self.spent.entry(asked.agent.clone()).or_default();
        let is_whole = more == 0 || *spent + more <= HOURLY;
        *spent += if is_whole { more } else { 0 };
        self.texts.push_back((asked, is_whole));
        Ok(())
    }

    /// The oldest, about as many as go into one object, and what they take.
    fn take(&mut self) -> (Vec<(AskedText, bool)>, usize) {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < ENOUGH
            && let Some(asked) = self.texts.pop_front()
        {
            bytes += size(&asked.0);
            taken.push(asked);
        }
        self.bytes -= bytes;
        (taken, bytes)
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
        loop {
            let (texts, bytes) = self.waiting().take();
            if texts.is_empty() {
                return Ok(());
            }
            let texts = Arc::new(texts);
            match self.put(texts.clone()).await {
                Ok(event) => self.audit.append(event).await.map(drop).map_err(|error| UndoError::Ledger(error.to_string()))?,
                Err(error) => {
                    let mut waiting = self.waiting();
                    waiting.bytes += bytes;
                    Arc::unwrap_or_clone(texts).into_iter().rev().for_each(|asked| waiting.texts.push_front(asked));
                    return Err(error);
                }
            }
        }
    }

    async fn put(&self, texts: Arc<Vec<(AskedText, bool)>>) -> Result<Event, UndoError> {
        let vault = self.vault.vault().await?;
        let packing = tokio::task::spawn_blocking(move || pack(&texts)).await;
        let Packed { pack, sums, first, last, texts } = packing.map_err(|error| UndoError::Images(error.to_string()))??;
        let ObjectRef { digest, kind: _, plain_bytes, stored_bytes } = vault.put_pack(pack).await?;
        let vault = vault.identity().await?;
        Ok(Event::TextsKept { object: digest, vault, first, last, texts, sums, plain_bytes, stored_bytes })
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

/// What a text takes while it waits.
fn size(asked: &AskedText) -> usize {
    let values = asked.parameters.iter().flat_map(|parameters| &parameters.values);
    values.flatten().fold(asked.text.len() + OVERHEAD, |bytes, value| bytes + value.len())
}

/// Texts in one pack, and what the ledger says of them.
struct Packed {
    pack: Pack,
    sums: Digest,
    first: IntentId,
    last: IntentId,
    texts: u64,
}

fn pack(texts: &[(AskedText, bool)]) -> Result<Packed, UndoError> {
    let entries: Vec<(IntentId, Vec<u8>)> = texts.iter().map(|(asked, is_whole)| (asked.intent, entry(asked, *is_whole))).collect();
    let mut list = String::new();
    for (intent, bytes) in &entries {
        let _ = writeln!(list, "{}  {intent}", sum(bytes));
    }
    let mut pack = Pack::new();
    pack.add(SUMS, list.as_bytes())?;
    for (number, (_, bytes)) in (SUMS + 1..).zip(&entries) {
        pack.add(number, bytes)?;
    }
    let intents = || entries.iter().map(|(intent, _)| *intent);
    let (first, last) = (intents().min().unwrap_or(IntentId(0)), intents().max().unwrap_or(IntentId(0)));
    Ok(Packed { pack, sums: sum(list.as_bytes()), first, last, texts: entries.len() as u64 })
}

/// SHA-256, as the tools that people have compute it: of a text as it was kept, or of a list.
#[must_use]
pub fn sum(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// A text as it is kept: JSON. The salt keeps those who see its hash from guessing its literals.
fn entry(asked: &AskedText, is_whole: bool) -> Vec<u8> {
    let mut salt = [0_u8; 16];
    OsRng.fill_bytes(&mut salt);
    let named = json!({ "intent": asked.intent.to_string(), "salt": hex(&salt) });
    let mut why = "the agent's texts of this hour took too much room already";
    if is_whole {
        let mut kept = named.clone();
        kept["text"] = asked.text.as_ref().into();
        if let Some(parameters) = &asked.parameters {
            kept["parameters"] = shown(parameters);
        }
        let bytes = kept.to_string().into_bytes();
        if bytes.len() <= LARGEST {
            return bytes;
        }
        // One that no pack takes must not keep all the others from theirs.
        why = "it is too large";
    }
    let mut instead = named;
    instead["not_kept"] = why.into();
    instead["bytes"] = asked.text.len().into();
    instead["sha256_of_text"] = json!(sum(asked.text.as_bytes()));
    instead.to_string().into_bytes()
}

/// Values as text where they came as text, else in hexadecimal. One format is for all, or there is one for each (PostgreSQL, "Bind").
fn shown(Parameters { formats, values }: &Parameters) -> Value {
    let format = |number| formats.get(number).or_else(|| formats.first().filter(|_| formats.len() == 1)).copied().unwrap_or(0);
    let value = |(number, value): (usize, &Option<Vec<u8>>)| match value {
        None => Value::Null,
        Some(value) => match std::str::from_utf8(value) {
            Ok(text) if format(number) == 0 => text.into(),
            _ => json!({ "hex": hex(value) }),
        },
    };
    values.iter().enumerate().map(value).collect()
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

    fn asked(intent: u64, text: impl Into<Arc<str>>) -> AskedText {
        AskedText { agent: "helper".parse().expect("a name"), intent: IntentId(intent), text: text.into(), parameters: None }
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let mut waiting = Waiting::default();
        let large = "x".repeat(1 << 20);
        let taken = (0..).take_while(|_| waiting.push(asked(1, large.as_str())).is_ok()).count();
        assert_eq!(taken, 127);
        assert!(waiting.push(asked(1, "a little one still fits")).is_ok());
        let parameters = Some(Parameters { formats: Vec::new(), values: vec![Some(vec![0; 1 << 20])] });
        assert!(waiting.push(AskedText { parameters, ..asked(1, "") }).is_err());
        // Nothing at all takes room, too.
        let taken = (0..).take_while(|_| waiting.push(asked(1, "")).is_ok()).count();
        assert!(taken < 10_000, "{taken}");
    }

    #[test]
    fn the_oldest_go_first_and_room_comes_back() {
        let mut waiting = Waiting::default();
        (0..5).for_each(|number| waiting.push(asked(number, "x".repeat(3 << 20))).expect("room"));
        let numbers = |waiting: &mut Waiting| waiting.take().0.iter().map(|(asked, _)| asked.intent.0).collect::<Vec<_>>();
        assert_eq!(numbers(&mut waiting), [0, 1, 2]);
        assert_eq!(numbers(&mut waiting), [3, 4]);
        assert_eq!((numbers(&mut waiting).len(), waiting.bytes), (0, 0));
    }

    #[test]
    fn who_floods_fills_no_vault() {
        let mut waiting = Waiting::default();
        let large = "x".repeat(8 << 20);
        let mut whole = 0;
        for _ in 0..40 {
            waiting.push(asked(1, large.as_str())).expect("room");
            whole += waiting.take().0.iter().filter(|(_, is_whole)| *is_whole).count();
        }
        assert_eq!(whole, 32);
        // What is small is kept, and so is what others ask.
        waiting.push(asked(2, "DELETE FROM t")).expect("room");
        waiting.push(AskedText { agent: "other".parse().expect("a name"), ..asked(3, large) }).expect("room");
        assert!(waiting.take().0.iter().all(|(_, is_whole)| *is_whole));
        let kept: Value = serde_json::from_slice(&entry(&asked(1, "DELETE FROM t"), false)).expect("JSON");
        assert_eq!((&kept["bytes"], &kept["sha256_of_text"]), (&json!(13), &json!(sum(b"DELETE FROM t"))));
    }

    #[test]
    fn a_text_that_no_pack_takes_is_told_of() {
        // Each character takes six as it is written.
        let text: Arc<str> = "\u{1}".repeat(12 << 20).into();
        let texts = [(asked(1, text), true), (asked(2, "b"), true)];
        let kept: Value = serde_json::from_slice(&entry(&texts[0].0, true)).expect("JSON");
        assert_eq!((&kept["not_kept"], &kept["bytes"], &kept["text"]), (&json!("it is too large"), &json!(12 << 20), &Value::Null));
        assert_eq!(pack(&texts).expect("a pack").texts, 2);
    }

    #[test]
    fn parameters_are_kept_as_they_came() {
        let shown = |formats: &[i16], values: &[Option<&[u8]>]| {
            let values = values.iter().map(|value| value.map(<[u8]>::to_vec)).collect();
            let parameters = Some(Parameters { formats: formats.to_vec(), values });
            let kept = entry(&AskedText { parameters, ..asked(7, "SELECT $1") }, true);
            let kept: Value = serde_json::from_slice(&kept).expect("JSON");
            assert_eq!((&kept["intent"], &kept["text"]), (&json!("I-7"), &json!("SELECT $1")));
            kept["parameters"].clone()
        };
        assert_eq!(shown(&[], &[Some(b"a"), None, Some(b"")]), json!(["a", null, ""]));
        assert_eq!(shown(&[1], &[Some(b"a"), Some(&[0, 255])]), json!([{ "hex": "61" }, { "hex": "00ff" }]));
        assert_eq!(shown(&[0, 1], &[Some(&[255]), Some(b"b")]), json!([{ "hex": "ff" }, { "hex": "62" }]));
    }

    #[test]
    fn the_same_text_has_another_hash_each_time() {
        let asked = asked(7, "DELETE FROM t WHERE id = 7");
        assert_ne!(sum(&entry(&asked, true)), sum(&entry(&asked, true)));
    }

    #[test]
    fn a_list_says_what_it_says_and_no_more() {
        let list = "aa  I-1\nbb  I-2\nI-3\ncc  I-4\n";
        assert_eq!(sums(list).collect::<Vec<_>>(), [("aa", IntentId(1)), ("bb", IntentId(2))]);
    }
}
