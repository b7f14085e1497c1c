//! `reprieve verify`: whether what a gateway handed out says what its ledger says. Needs the public key alone: no settings, no ledger.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::Read as _,
    path::Path,
};

use anyhow::{Context as _, bail};
use reprieve_audit::decode;
use reprieve_ledger::{Checkpoint, EventProof, Verifier};
use reprieve_operation::{Event, IntentId, Recorded};
use reprieve_recovery::statement;
use reprieve_undo::{KeptTexts, sum, sums};
use serde_json::{Value, json};

use crate::{
    args::{Cli, Verify},
    incident::summary,
    people::{time, visible},
};

/// The largest file that is read.
const FILE_BYTES: u64 = 256 << 20;

pub(crate) fn verify(cli: &Cli, verify: &Verify) -> anyhow::Result<u8> {
    let key = key(&verify.key)?;
    let found = if verify.what.is_dir() { pack(&verify.what, &key)? } else { page(&verify.what, &key)? };
    if cli.json {
        tell!("{}", json!({ "verified": found }));
    } else {
        for line in found {
            tell!("{line}");
        }
    }
    Ok(0)
}

/// The key as text, or the file that it is in.
fn key(given: &str) -> anyhow::Result<Verifier> {
    let text = if Path::new(given).is_file() { read(Path::new(given))? } else { given.to_owned() };
    Verifier::parse(text.trim()).with_context(|| format!("`{}` is no public key of a ledger, nor a file with one", visible(given)))
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let file = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let had = file.take(FILE_BYTES + 1).read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    if had as u64 > FILE_BYTES {
        bail!("{} is larger than {} MiB", path.display(), FILE_BYTES >> 20);
    }
    Ok(text)
}

/// The event, once it is known to be in the ledger that the key signs.
fn proven(body: &str, proof: &str, key: &Verifier) -> anyhow::Result<(Recorded, Checkpoint)> {
    let proof = EventProof::parse(proof)?;
    let checkpoint = proof.verify(body.as_bytes(), key)?;
    let recorded = decode(body.as_bytes())?;
    if recorded.index != proof.index {
        bail!("it says that it is event {}, and its proof is of {}", recorded.index, proof.index);
    }
    Ok((recorded, checkpoint))
}

/// What `reprieve incident` made.
fn pack(folder: &Path, key: &Verifier) -> anyhow::Result<Vec<String>> {
    Checkpoint::open(&read(&folder.join("checkpoint.txt"))?, key).context("checkpoint.txt is not signed by this key")?;
    let mut events = Vec::new();
    for (number, line) in (1..).zip(read(&folder.join("events.jsonl"))?.lines()) {
        let index = serde_json::from_str::<Value>(line).ok().and_then(|event| event["index"].as_u64());
        let index = index.with_context(|| format!("line {number} of events.jsonl is no event"))?;
        let proof = read(&folder.join("proofs").join(format!("{index}.proof")))?;
        let (recorded, _) = proven(line, &proof, key).with_context(|| format!("line {number} of events.jsonl is not in the ledger"))?;
        if events.last().is_some_and(|last: &Recorded| last.index >= recorded.index) {
            bail!("line {number} of events.jsonl is out of order");
        }
        events.push(recorded);
    }
    let proofs = fs::read_dir(folder.join("proofs")).context("cannot look into proofs")?.count();
    if proofs != events.len() || events.is_empty() {
        bail!("there are {proofs} proofs and {} events: something was taken away or added", events.len());
    }
    let texts = texts(folder, &events)?;
    let said: Value = serde_json::from_str(&read(&folder.join("incident.json"))?).context("incident.json can't be read")?;
    let about = said["about"].as_str().unwrap_or_default();
    if said != summary(about, &events) {
        bail!("incident.json does not say what these events say");
    }
    Ok(vec![
        format!("{}: {} events, each in the ledger signed by {}", folder.display(), events.len(), key.name()),
        format!("{texts} exact texts in calls are what was asked, by hashes in the ledger"),
        "incident.json says what they say; incident.html is for reading and was not looked at".to_owned(),
        format!("That it is about `{}`, and that there is no more about it, only the ledger can tell.", visible(about)),
    ])
}

/// How many exact texts there are: each has its hash in a list, and each list has its own in an event. None was taken away or added.
fn texts(folder: &Path, events: &[Recorded]) -> anyhow::Result<usize> {
    let intents: HashSet<IntentId> =
        events.iter().filter_map(|recorded| if let Event::Intent { intent, .. } = recorded.event { Some(intent) } else { None }).collect();
    let mut expected: HashMap<String, IntentId> = HashMap::new();
    for kept in events.iter().filter_map(|recorded| KeptTexts::of(recorded.index, &recorded.event)) {
        let list = read(&folder.join("sums").join(format!("{}.txt", kept.index)))?;
        if sum(list.as_bytes()) != kept.sums {
            bail!("the list sums/{}.txt is not the one that the ledger has the hash of", kept.index);
        }
        expected.extend(sums(&list).filter(|(_, intent)| intents.contains(intent)).map(|(sum, intent)| (sum.to_owned(), intent)));
    }
    let calls = match fs::read_dir(folder.join("calls")) {
        Ok(calls) => calls.collect::<Result<Vec<_>, _>>()?,
        Err(_) => Vec::new(),
    };
    for call in &calls {
        let name = visible(&call.file_name().to_string_lossy());
        let text = read(&call.path())?;
        let intent = expected.remove(&sum(text.as_bytes()).to_string()).with_context(|| format!("calls/{name} is not what was asked"))?;
        if !name.starts_with(&format!("{intent}.")) || serde_json::from_str::<Value>(&text)?["intent"] != intent.to_string() {
            bail!("calls/{name} is what was asked under {intent}");
        }
    }
    match expected.into_values().min() {
        None => Ok(calls.len()),
        Some(intent) => bail!("something that was asked under {intent} is not in calls"),
    }
}

/// What `/recovery/public.json` answers, or the note in it.
fn page(file: &Path, key: &Verifier) -> anyhow::Result<Vec<String>> {
    let text = read(file)?;
    let note = match serde_json::from_str::<Value>(&text) {
        Ok(answer) => answer["note"].as_str().map(str::to_owned).with_context(|| format!("there is no note in {}", file.display()))?,
        Err(_) => text,
    };
    let published: Value = statement(&note, key).context("the page is not signed by this key")?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    let mut proofs = list(&published["proofs"]);
    for system in list(&published["report"]["systems"]) {
        let name = visible(system["system"].as_str().unwrap_or_default());
        let at = proofs.iter().position(|proof| proof["system"] == system["system"]);
        let (passed, proof) = match (system["passed"].as_array(), at) {
            (None, None) => {
                found.push(format!("{name}: no drill passed"));
                continue;
            }
            (Some(passed), Some(at)) => (passed, proofs.swap_remove(at)),
            (Some(_), None) => bail!("{name}: nothing proves its drill"),
            (None, Some(_)) => bail!("{name}: there is a proof of a drill that is not on the page"),
        };
        let text = |name: &str| proof[name].as_str().unwrap_or_default();
        let (recorded, _) = proven(text("event"), text("proof"), key).with_context(|| format!("{name}: its drill is not in the ledger"))?;
        let event = serde_json::to_value(&recorded.event)?;
        let same = event["event"] == "drill_passed"
            && event["system"] == system["system"]
            && passed.as_slice() == [json!(recorded.at), event["level"].clone(), json!(recorded.index)];
        if !same {
            bail!("{name}: event {} is not the drill that the page tells of", recorded.index);
        }
        let standing = match system["unproven"].as_str() {
            None => "proven",
            Some(_) => "unproven by now",
        };
        found.push(format!(
            "{name}: a drill passed at level {} at {} UTC, event {}; {standing}",
            event["level"],
            time(recorded.at),
            recorded.index
        ));
    }
    if !proofs.is_empty() {
        bail!("there are proofs of systems that are not on the page");
    }
    let at = published["report"]["at"].as_u64().context("the page has no date")?;
    found.push(format!(
        "signed by {} as of {} UTC; the other numbers are the gateway's word",
        key.name(),
        time(reprieve_operation::Timestamp(at))
    ));
    Ok(found)
}
