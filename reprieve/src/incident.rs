//! `reprieve incident`: everything about one agent, or one stretch of time, in a folder that can be checked without us.
//!
//! `events.jsonl` has the ledger's own bytes, one event a line; `proofs/` an inclusion proof for each, against the signed
//! checkpoint in `checkpoint.txt`; `calls/` the exact text of each call, which the ledger has without its literals, and `sums/` the lists
//! of their hashes, whose own are in events; `incident.json` and `incident.html` the timeline for people.

mod texts;

use std::{fmt::Write as _, fs, io::Write as _, os::unix::fs::DirBuilderExt as _, path::Path};

use anyhow::{Context as _, bail};
use reprieve_audit::{SystemClock, decode, prove_event};
use reprieve_gate::Clock as _;
use reprieve_operation::{AgentName, Event, Outcome, Recorded, Timestamp};
use reprieve_store::{Query, Reader, Row, SqliteStore};
use serde_json::{Value, json};

use self::texts::{Exact, exact};
use crate::{
    args::{Cli, Incident},
    keys::Keys,
    ledger::read_state,
    people::time,
    recovery::restore::parse_time,
    settings::Settings,
};

/// Events in one folder.
const MOST: usize = 20_000;
/// Characters of an exact text on the page; the whole of it is in a file.
const SHOWN: usize = 10_000;
/// How far around a time it looks.
const AROUND_MS: u64 = 30 * 60 * 1_000;

pub(crate) fn incident(cli: &Cli, settings: &Settings, incident: &Incident) -> anyhow::Result<u8> {
    let path = settings.ledger_file()?;
    let reader = SqliteStore::open_as_of_now(&path).with_context(|| format!("cannot read the ledger in {}", path.display()))?;
    let around = parse_time(&incident.about, SystemClock.now());
    let about = match around {
        Some(at) => {
            Query { from_ms: Some(at.0.saturating_sub(AROUND_MS)), until_ms: Some(at.0.saturating_add(AROUND_MS)), ..Query::default() }
        }
        None => {
            let agent: AgentName =
                incident.about.parse().with_context(|| format!("`{}` is neither an agent nor a time", incident.about))?;
            if !read_state(settings)?.agents.contains_key(&agent) {
                bail!("there is no agent `{agent}`, and `{agent}` is no time either");
            }
            Query { agent: Some(agent.to_string()), ..Query::default() }
        }
    };
    let mut rows = all(reader.as_ref(), &about)?;
    // What people answered to the agent's holds names the hold and not the agent.
    let holds: Vec<u64> = rows.iter().filter_map(|row| decode(&row.body).ok()?.event.hold()).map(|hold| hold.0).collect();
    for hold in holds {
        rows.extend(reader.search(&Query { hold: Some(hold), limit: Query::LIMIT_MAX, ..Query::default() })?);
    }
    rows.sort_by_key(|row| row.index);
    rows.dedup_by_key(|row| row.index);
    if rows.is_empty() {
        bail!("the ledger has nothing about `{}`", incident.about);
    }
    // Where texts are is told with the texts themselves.
    rows.retain(|row| row.kind != "texts_kept");
    let exact = if incident.without_texts { Exact::default() } else { exact(settings, reader.as_ref(), &mut rows)? };
    let key = Keys::of(settings).verifier()?;
    let to = &incident.to;
    make(&to.join("proofs"))?;
    make(&to.join("calls"))?;
    make(&to.join("sums"))?;
    for (row, list) in &exact.lists {
        write(&to.join("sums").join(format!("{}.txt", row.index)), list.as_bytes())?;
    }
    for (intent, texts) in &exact.texts {
        for (number, text) in (1..).zip(texts) {
            write(&to.join("calls").join(format!("{intent}.{number}.json")), text)?;
        }
    }
    let mut lines = Vec::new();
    let mut events = Vec::new();
    for row in &rows {
        let proven = prove_event(reader.as_ref(), &key, row.index)?;
        write(&to.join("proofs").join(format!("{}.proof", row.index)), proven.proof.to_text().as_bytes())?;
        lines.extend_from_slice(&proven.body);
        lines.push(b'\n');
        events.push(decode(&row.body)?);
    }
    write(&to.join("events.jsonl"), &lines)?;
    let head = reader.head()?.context("the ledger has no checkpoint yet")?;
    write(&to.join("checkpoint.txt"), head.checkpoint.as_bytes())?;
    write(&to.join("ledger.pub"), key.to_string().as_bytes())?;
    let summary = summary(&incident.about, &events);
    write(&to.join("incident.json"), serde_json::to_string_pretty(&summary)?.as_bytes())?;
    write(&to.join("incident.html"), page(&summary, &events, &exact).as_bytes())?;
    if cli.json {
        let texts = json!({ "intents_with": exact.texts.len(), "intents_without": exact.without, "unread": exact.unread });
        tell!("{}", json!({ "folder": to, "summary": summary, "exact_texts": texts }));
    } else {
        tell!(
            "{}: {} events with their proofs, {} changes, {} still open.",
            to.display(),
            events.len(),
            summary["changes"],
            summary["open_holds"]
        );
        if !incident.without_texts {
            tell!(
                "Exact texts of {} calls are in calls, of {} there are none (the last seconds are not in the vault yet).",
                exact.texts.len(),
                exact.without
            );
            exact.unread.iter().for_each(|why| tell!("Texts could not be read: {why}"));
        }
        tell!(
            "Print incident.html. Whoever has the public key can check the folder without this gateway: reprieve verify {} --key KEY",
            to.display()
        );
    }
    Ok(0)
}

/// All that a query finds, newest first, up to a limit.
fn all(reader: &dyn Reader, query: &Query) -> anyhow::Result<Vec<Row>> {
    let (mut rows, mut before) = (Vec::new(), None);
    loop {
        let page = reader.search(&Query { before, limit: Query::LIMIT_MAX, ..query.clone() })?;
        before = page.last().map(|row| row.index);
        let full = page.len() == Query::LIMIT_MAX;
        rows.extend(page);
        if rows.len() > MOST {
            bail!("that is more than {MOST} events: name an agent, or a time closer to it");
        }
        if !full {
            return Ok(rows);
        }
    }
}

/// A new folder, which only its owner may look into: exact texts have whatever was in them.
fn make(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        bail!("{} is there already: evidence is not written over", path.display());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("cannot make {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).open(path).with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("cannot write {}", path.display()))
}

/// The numbers: what was done, what was refused, what was taken back, what waits.
pub(crate) fn summary(about: &str, events: &[Recorded]) -> Value {
    let count = |is: &dyn Fn(&Event) -> bool| events.iter().filter(|recorded| is(&recorded.event)).count();
    let done = |event: &Event| matches!(event, Event::Concluded { outcome: Outcome::Done { reach, .. }, .. } if !reach.is_empty());
    let rows: u64 = events
        .iter()
        .map(|recorded| match &recorded.event {
            Event::Concluded { outcome: Outcome::Done { reach, .. }, .. } => reach.rows(),
            _ => 0,
        })
        .sum();
    let mut open: Vec<String> = Vec::new();
    for recorded in events {
        match &recorded.event {
            Event::HoldOpened { hold, .. } => open.push(hold.to_string()),
            Event::HoldExpired { hold } | Event::HoldCancelled { hold, .. } | Event::HoldFinished { hold, .. } => {
                open.retain(|known| *known != hold.to_string());
            }
            Event::HoldAnswered { hold, answer: reprieve_operation::Answer::Deny, .. } => open.retain(|known| *known != hold.to_string()),
            _ => {}
        }
    }
    let undone: Vec<String> = events
        .iter()
        .flat_map(|recorded| match &recorded.event {
            Event::UndoStarted { reverts, .. } => reverts.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        })
        .collect();
    json!({
        "about": about,
        "from": events.first().map(|recorded| time(recorded.at)),
        "until": events.last().map(|recorded| time(recorded.at)),
        "events": events.len(),
        "changes": count(&done),
        "rows_changed": rows,
        "refused": count(&|event| matches!(event, Event::Concluded { outcome: Outcome::Refused { .. }, .. })),
        "holds": count(&|event| matches!(event, Event::HoldOpened { .. })),
        "open_holds": open.len(),
        "open": open,
        "undone": undone,
        "frozen": count(&|event| matches!(event, Event::Frozen { .. } | Event::DecoyPresented { .. })),
        "alarms": count(&|event| matches!(event, Event::Alarm { .. })),
    })
}

/// One page, without a script or anything from elsewhere.
fn page(summary: &Value, events: &[Recorded], exact: &Exact) -> String {
    let mut html = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Incident</title><style>body{font:14px sans-serif;max-width:70em;margin:2em auto}\
         td,th{vertical-align:top;text-align:left;padding:.2em .8em;border-bottom:1px solid #ccc}code{white-space:pre-wrap;word-break:break-word}</style>",
    );
    let _ = write!(html, "<h1>Incident: {}</h1><table>", escaped(summary["about"].as_str().unwrap_or_default()));
    for (name, value) in summary.as_object().into_iter().flatten().filter(|(name, _)| *name != "about") {
        let _ = write!(html, "<tr><th>{}</th><td>{}</td></tr>", escaped(&name.replace('_', " ")), escaped(&value.to_string()));
    }
    html.push_str("</table><h2>Timeline (UTC)</h2><table><tr><th>Event</th><th>Time</th><th>What</th><th>In full</th></tr>");
    for Recorded { index, at, event } in events {
        let mut full = serde_json::to_string(event).unwrap_or_default();
        if let Event::Intent { intent, .. } = event {
            for text in exact.texts.get(intent).into_iter().flatten() {
                full.push_str("\n\n");
                full.push_str(&shown(text));
            }
        }
        let _ = write!(
            html,
            "<tr><td>{index}</td><td>{}.{:03}</td><td>{}</td><td><code>{}</code></td></tr>",
            time(Timestamp(at.0)),
            at.0 % 1000,
            escaped(&event.kind().replace('_', " ")),
            escaped(&full)
        );
    }
    html.push_str("</table></html>");
    html
}

/// The text, and its parameters if it has any, of what was kept of a call.
fn shown(kept: &[u8]) -> String {
    let kept: Value = serde_json::from_slice(kept).unwrap_or_default();
    let text: String = kept["text"].as_str().or(kept["not_kept"].as_str()).unwrap_or_default().chars().take(SHOWN).collect();
    let parameters = kept.get("parameters").map(|values| format!(" -- {values}").chars().take(SHOWN).collect::<String>());
    text + &parameters.unwrap_or_default()
}

/// An agent's text is text, whatever it looks like; what can't be seen is drawn.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            ' '..='~' => out.push(c),
            c if c.is_alphanumeric() && !c.is_control() => out.push(c),
            c => {
                let _ = write!(out, "⟨U+{:04X}⟩", u32::from(c));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn an_agents_text_stays_text() {
        for (text, expected) in [
            ("<script>alert('x')</script>", "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"),
            ("a\u{202e}b\n", "a⟨U+202E⟩b\n"),
            ("Größe & \"x\"", "Größe &amp; &quot;x&quot;"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }
}
