//! What people ask for: agents, operators, holds, freezing and secrets.

use std::{io::Read as _, time::Duration};

use anyhow::{Context as _, bail};
use reprieve_gate::Command;
use reprieve_operation::{Answer, HoldId, HoldState, HoldStatus, Kind, Timestamp};
use reprieve_secrets::{Secret as Sealed, SecretName};
use serde_json::{Value, json};

use crate::{
    args::{Agent, As, Cli, Freeze, Hold, Operator, Schedule, Secret, Thaw},
    keys::Keys,
    ledger::read_state,
    operator::{enrol, send},
    settings::{Settings, SystemKind, parse_duration},
};

fn say(cli: &Cli, value: &Value, text: &str) {
    if cli.json { tell!("{value}") } else { tell!("{text}") }
}

pub(crate) fn secret(cli: &Cli, settings: &Settings, secret: &Secret) -> anyhow::Result<u8> {
    let store = Keys::of(settings).secrets()?;
    match secret {
        Secret::Set { name } => {
            let name: SecretName = name.parse()?;
            let mut value = String::new();
            std::io::stdin().read_to_string(&mut value).context("cannot read the value from standard input")?;
            store.set(&name, &Sealed::new(value.trim().to_owned()))?;
            say(cli, &json!({ "set": name.as_str() }), &format!("Sealed. The settings refer to it as `secret:{}`.", name.as_str()));
        }
        Secret::List => {
            let names: Vec<String> = store.list()?.iter().map(|name| name.as_str().to_owned()).collect();
            say(cli, &json!({ "secrets": names }), &names.join("\n"));
        }
        Secret::Remove { name } => {
            store.remove(&name.parse()?)?;
            say(cli, &json!({ "removed": name }), "Removed.");
        }
    }
    Ok(0)
}

pub(crate) fn agent(cli: &Cli, settings: &Settings, agent: &Agent) -> anyhow::Result<u8> {
    match agent {
        Agent::Add { name, systems, allow, resources, on_behalf_of, expires, rows_per_hour, parent, by } => {
            let expires_in = parse_duration(expires).map_err(anyhow::Error::msg)?;
            for system in systems {
                reachable(settings, system.as_str())?;
            }
            let command = Command::IssueToken {
                agent: name.clone(),
                systems: systems.clone(),
                allow: allow.clone(),
                resources: resources.clone(),
                rows_per_hour: *rows_per_hour,
                on_behalf_of: on_behalf_of.clone(),
                expires_in_s: expires_in.as_secs(),
                parent: parent.clone(),
            };
            issued(cli, settings, send(settings, by, &command)?, systems[0].as_str())
        }
        Agent::Decoy { name, by } => issued(cli, settings, send(settings, by, &Command::IssueDecoy { agent: name.clone() })?, "production"),
        Agent::Revoke { name, by } => {
            done(cli, &send(settings, by, &Command::Revoke { agent: name.clone() })?, "Revoked, with the tokens narrowed from it.")
        }
        Agent::Narrow { name, allow, resources, by } => {
            let command = Command::Narrow { agent: name.clone(), allow: allow.clone(), resources: resources.clone() };
            done(cli, &send(settings, by, &command)?, "Narrowed.")
        }
        Agent::List => {
            let state = read_state(settings)?;
            let agents: Vec<Value> = state
                .agents
                .values()
                .map(|agent| {
                    json!({
                        "agent": agent.agent, "token": agent.token.to_string(), "scope": &*agent.scope, "on_behalf_of": agent.on_behalf_of,
                        "expires": agent.expires, "revoked": agent.revoked, "decoy": agent.decoy, "frozen": state.frozen_because(&agent.agent),
                    })
                })
                .collect();
            if cli.json {
                tell!("{}", json!({ "agents": agents }));
                return Ok(0);
            }
            for agent in state.agents.values() {
                let kinds: Vec<&str> = agent.scope.kinds.iter().map(|kind| Kind::as_str(*kind)).collect();
                let systems: Vec<&str> = agent.scope.systems.iter().map(|system| system.as_str()).collect();
                let condition = if agent.decoy {
                    "decoy"
                } else if agent.revoked {
                    "revoked"
                } else {
                    state.frozen_because(&agent.agent).map_or("", |_| "frozen")
                };
                tell!("{:<24} {:<6} {:<26} {:<30} {condition}", agent.agent, agent.token, kinds.join(","), systems.join(","));
            }
            Ok(0)
        }
    }
}

/// Refuses what no agent reaches: there would be a token for nothing.
fn reachable(settings: &Settings, system: &str) -> anyhow::Result<()> {
    match settings.system(system).map(|system| system.kind) {
        Ok(SystemKind::Files | SystemKind::Sqlite) => bail!("`{system}` is only copied: no agent reaches it by Reprieve"),
        Ok(SystemKind::Postgres | SystemKind::Http) | Err(_) => Ok(()),
    }
}

/// Shows a new token, once, with the URL that holds it.
fn issued(cli: &Cli, settings: &Settings, mut answer: Value, system: &str) -> anyhow::Result<u8> {
    let text =
        |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("the answer has no `{name}`"));
    let (token, agent) = (text("token")?, text("agent")?);
    let listen = &settings.listen;
    let host = |address: std::net::SocketAddr| listen.host.clone().unwrap_or_else(|| address.ip().to_string());
    let url = match settings.system(system).map_or(SystemKind::Postgres, |system| system.kind) {
        SystemKind::Postgres | SystemKind::Files | SystemKind::Sqlite => {
            format!("postgres://{agent}:{token}@{}:{}/{system}", host(listen.postgres), listen.postgres.port())
        }
        SystemKind::Http => format!("http://{agent}:{token}@{}:{}", host(listen.http), listen.http.port()),
    };
    answer["url"] = json!(url);
    say(cli, &answer, &format!("Token (shown once)  {token}\nURL                 {url}"));
    Ok(0)
}

fn done(cli: &Cli, answer: &Value, text: &str) -> anyhow::Result<u8> {
    say(cli, answer, answer.get("message").and_then(Value::as_str).unwrap_or(text));
    Ok(0)
}

pub(crate) fn operator(cli: &Cli, settings: &Settings, operator: &Operator) -> anyhow::Result<u8> {
    match operator {
        Operator::Add { name, role, by } => {
            let keys = Keys::of(settings);
            let key_file = keys.operator_key(name.as_str());
            let new_passphrase = std::env::var("REPRIEVE_NEW_PASSPHRASE").ok();
            let (public_key, totp) = match new_passphrase {
                Some(passphrase) => crate::operator::enrol_with(&keys, name, &passphrase)?,
                None => enrol(&keys, name)?,
            };
            let command = Command::AddOperator { operator: name.clone(), public_key, totp_secret: totp.base32().to_string(), role: *role };
            if let Err(error) = send(settings, by, &command) {
                // A key that nobody knows of is only confusing.
                let _best_effort = std::fs::remove_file(key_file);
                return Err(error);
            }
            let answer = json!({ "operator": name, "totp_secret": *totp.base32(), "otpauth": *totp.otpauth_uri(name) });
            say(
                cli,
                &answer,
                &format!("{name} is an operator. Their second factor, shown once:\n  {}\n  {}", *totp.base32(), *totp.otpauth_uri(name)),
            );
        }
        Operator::Role { name, role, by } => {
            let command = Command::GiveRole { operator: name.clone(), role: *role };
            done(cli, &send(settings, by, &command)?, &format!("{name} is {role} now."))?;
        }
        Operator::RecoveryCodes { by } => {
            let answer = send(settings, by, &Command::MakeRecoveryCodes {})?;
            let codes: Vec<&str> = answer["codes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let text = format!(
                "Shown once; print them, and lock them away. Each enrols one passkey at the console's /enrol:\n  {}",
                codes.join("\n  ")
            );
            say(cli, &answer, &text);
        }
        Operator::List => {
            let state = read_state(settings)?;
            let names: Vec<&str> = state.operators.keys().map(|name| name.as_str()).collect();
            let roles: serde_json::Map<String, Value> =
                state.operators.iter().map(|(name, entry)| (name.to_string(), json!(entry.role))).collect();
            let lines: Vec<String> = state.operators.iter().map(|(name, entry)| format!("{name}  {}", entry.role)).collect();
            say(cli, &json!({ "operators": names, "roles": roles }), &lines.join("\n"));
        }
    }
    Ok(0)
}

pub(crate) fn freeze(cli: &Cli, settings: &Settings, freeze: &Freeze) -> anyhow::Result<u8> {
    if freeze.agent.is_none() && !freeze.all {
        bail!("say whom: an agent's name, or --all");
    }
    let answer = crate::operator::freeze(settings, freeze.agent.as_ref(), &freeze.reason)?;
    done(cli, &answer, &freeze.agent.as_ref().map_or("All agents are frozen.".to_owned(), |agent| format!("{agent} is frozen.")))
}

pub(crate) fn thaw(cli: &Cli, settings: &Settings, thaw: &Thaw) -> anyhow::Result<u8> {
    if thaw.agent.is_none() && !thaw.all {
        bail!("say whom: an agent's name, or --all");
    }
    let command = Command::Thaw { agent: thaw.agent.clone(), reason: thaw.reason.clone() };
    done(cli, &send(settings, &thaw.by, &command)?, "Thawed.")
}

pub(crate) fn hold(cli: &Cli, settings: &Settings, hold: &Hold) -> anyhow::Result<u8> {
    match hold {
        Hold::List { all } => {
            let state = read_state(settings)?;
            let holds: Vec<&HoldState> = state.holds.values().rev().filter(|hold| *all || hold.is_open()).collect();
            if cli.json {
                tell!("{}", json!({ "holds": holds }));
                return Ok(0);
            }
            if holds.is_empty() {
                tell!("Nothing waits.");
            }
            for hold in holds {
                tell!("{:<7} {:<9} {:<20} {:<18} {}", hold.hold, status(hold), hold.agent, hold.system, headline(hold));
            }
            Ok(0)
        }
        Hold::Show { id } => {
            let state = read_state(settings)?;
            let hold = find(&state.holds, *id)?;
            if cli.json {
                let signs = json!({ "approve": hold.digest_to_sign(Answer::Approve), "deny": hold.digest_to_sign(Answer::Deny) });
                tell!("{}", json!({ "hold": hold, "signs": signs }));
            } else {
                show(hold);
            }
            Ok(0)
        }
        Hold::Approve { id, confirm, reason, by } => answer(cli, settings, *id, Answer::Approve, confirm.clone(), reason, by),
        Hold::Deny { id, reason, by } => answer(cli, settings, *id, Answer::Deny, None, reason, by),
    }
}

fn answer(
    cli: &Cli,
    settings: &Settings,
    id: HoldId,
    answer: Answer,
    confirm: Option<String>,
    reason: &str,
    by: &As,
) -> anyhow::Result<u8> {
    let state = read_state(settings)?;
    let hold = find(&state.holds, id)?;
    if answer == Answer::Approve && confirm.is_none() {
        show(hold);
        bail!("to approve, repeat the command with --confirm {}", hold.confirm);
    }
    // What is signed is what was just read: anything else in the ledger by then voids it.
    let command = Command::Answer { hold: id, answer, confirm, reason: reason.to_owned(), signed: hold.digest_to_sign(answer) };
    let said = send(settings, by, &command)?;
    let text = match answer {
        Answer::Approve if said["status"] == "scheduled" => "Approved. It is carried out when its window ends: `reprieve schedule list`.",
        Answer::Approve => "Approved. It runs once, if it still reaches no further.",
        Answer::Deny => "Denied. The agent gets to read the reason.",
    };
    done(cli, &said, text)
}

/// `reprieve schedule`: what was approved and waits in sight of everybody.
pub(crate) fn schedule(cli: &Cli, settings: &Settings, schedule: &Schedule) -> anyhow::Result<u8> {
    match schedule {
        Schedule::List => {
            let state = read_state(settings)?;
            let mut waiting: Vec<&HoldState> = state.holds.values().filter(|hold| hold.status == HoldStatus::Scheduled).collect();
            waiting.sort_by_key(|hold| hold.due);
            if cli.json {
                tell!("{}", json!({ "scheduled": waiting }));
                return Ok(0);
            }
            if waiting.is_empty() {
                tell!("Nothing is scheduled.");
            }
            for hold in waiting {
                let due = hold.due.map(time).unwrap_or_default();
                tell!("{:<6} {due} UTC  {:<16} {:<14} {}", hold.hold.to_string(), hold.agent, hold.system, headline(hold));
            }
            Ok(0)
        }
        Schedule::Cancel { id, reason, by } => answer(cli, settings, *id, Answer::Deny, None, reason, by),
        Schedule::Run { id, confirm, reason, by } => answer(cli, settings, *id, Answer::Approve, confirm.clone(), reason, by),
    }
}

fn find(holds: &std::collections::BTreeMap<HoldId, HoldState>, id: HoldId) -> anyhow::Result<&HoldState> {
    holds.get(&id).with_context(|| format!("there is no hold {id}; `reprieve hold list --all` shows them"))
}

fn status(hold: &HoldState) -> &'static str {
    match hold.status {
        HoldStatus::Waiting => "waiting",
        HoldStatus::Approved => "approved",
        HoldStatus::Scheduled => "scheduled",
        HoldStatus::Denied => "denied",
        HoldStatus::Expired => "expired",
        HoldStatus::Released => "running",
        HoldStatus::Finished => {
            if hold.succeeded == Some(true) {
                "done"
            } else {
                "failed"
            }
        }
    }
}

/// The loss in one line.
fn headline(hold: &HoldState) -> String {
    match &hold.reach {
        Some(reach) => reach.to_string(),
        None => "could not be measured, so it counts as destroying everything it names".to_owned(),
    }
}

/// Invisible and direction-changing characters are drawn, so that nobody approves what they can't see.
pub(crate) fn visible(text: &str) -> String {
    let drawn = |c: char| match c {
        '\n' | '\t' | ' '..='~' => c.to_string(),
        c if c.is_alphanumeric() && !c.is_control() => c.to_string(),
        c => format!("⟨U+{:04X}⟩", u32::from(c)),
    };
    text.chars().map(drawn).collect()
}

fn show(hold: &HoldState) {
    tell!("{}  {}", hold.hold, status(hold));
    tell!("  {}", headline(hold));
    tell!("  agent        {}{}", hold.agent, hold.on_behalf_of.as_ref().map(|operator| format!(", for {operator}")).unwrap_or_default());
    tell!("  system       {} ({})", hold.system, hold.environment);
    tell!("  rule         {}: {}", hold.needs.rule, hold.needs.reason);
    tell!("  needs        {} approval{}", hold.needs.approvals, if hold.needs.approvals == 1 { "" } else { "s" });
    if let Some(reach) = &hold.reach {
        tell!(
            "  measured     {}",
            if reach.estimated { "no: from the catalogue, it was not run" } else { "yes: run inside a transaction, and rolled back" }
        );
        for (table, rows) in &reach.tables {
            tell!("    {table:<34} deleted {:>10}  updated {:>10}  inserted {:>10}", rows.deleted, rows.updated, rows.inserted);
        }
    }
    for found in hold.reach.iter().flat_map(|reach| &reach.found) {
        tell!("  {}", visible(&found.to_string()));
    }
    if let Some(due) = hold.due {
        tell!("  carried out  {} UTC, unless somebody cancels it: reprieve schedule cancel {}", time(due), hold.hold);
    } else if !hold.needs.delay.is_zero() {
        tell!("  then waits   {}, in sight of everybody", human(hold.needs.delay));
    }
    let final_now = hold.reach.as_ref().is_none_or(|reach| !reach.is_undoable());
    tell!("  undo         {}", if final_now { "not possible: what is approved is final" } else { "possible: reprieve undo" });
    tell!("  expires      {} from opening", human(hold.expires.since(hold.opened)));
    tell!("  statement    (written by the agent)");
    for line in visible(&hold.text).lines() {
        tell!("    | {line}");
    }
    if let Some(parameters) = &hold.parameters {
        for (index, value) in parameters.values.iter().enumerate() {
            let shown = value.as_ref().map_or("NULL".to_owned(), |value| visible(&String::from_utf8_lossy(value)));
            tell!("    | ${} = {shown}", index + 1);
        }
    }
    for sample in &hold.samples {
        tell!(
            "  rows         {} of {} in {}, masked: {}",
            sample.rows.len(),
            sample.of,
            visible(&sample.table),
            visible(&sample.columns.join(" | "))
        );
        let shown = |values: &[Option<String>]| {
            let values: Vec<String> = values.iter().map(|value| value.as_deref().map_or("NULL".to_owned(), visible)).collect();
            values.join(" | ")
        };
        for row in &sample.rows {
            tell!("    {} {}", if row.after.is_some() { "~" } else { "-" }, shown(&row.before));
            row.after.iter().for_each(|after| tell!("    > {}", shown(after)));
        }
    }
    for (operator, answer, reason) in &hold.answers {
        let word = match answer {
            Answer::Approve => "approved",
            Answer::Deny => "denied",
        };
        tell!("  {word} by {operator}{}", if reason.is_empty() { String::new() } else { format!(": {reason}") });
    }
    tell!("  to approve   reprieve hold approve {} --confirm {}", hold.hold, hold.confirm);
}

fn human(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    format!("{} h {} min", minutes / 60, minutes % 60)
}

/// The time of an event, for people.
pub(crate) fn time(at: Timestamp) -> String {
    // Civil time from days since 1970 (H. Hinnant, "chrono-compatible low-level date algorithms").
    let (days, seconds) = (at.0 / 86_400_000, at.0 / 1000 % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time(Timestamp(0)), "1970-01-01 00:00:00");
        assert_eq!(time(Timestamp(1_777_075_200_000)), "2026-04-25 00:00:00");
        assert_eq!(time(Timestamp(1_709_164_799_000)), "2024-02-28 23:59:59");
    }

    #[test]
    fn what_cannot_be_seen_is_drawn() {
        assert_eq!(visible("DELETE\u{202e} é\u{200b}"), "DELETE⟨U+202E⟩ é⟨U+200B⟩");
    }
}
