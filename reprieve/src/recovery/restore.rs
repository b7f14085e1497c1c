//! `reprieve restore`: a copy, and the log after it, into a new place. An operator signs for it; nothing is overwritten.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use reprieve_audit::SystemClock;
use reprieve_gate::{Clock as _, Command};
use reprieve_operation::{Event, IntentId, Outcome, Recorded, Timestamp};
use reprieve_recovery::{EngineKind, Ground, RestoreOptions, Restored, Say, Target, Until};
use serde_json::json;

use super::{
    events, find_point,
    interrupt::{INTERRUPTED, guarded},
    progress, received, runtime, source_of, stanza, tell_gateway,
};
use crate::{
    args::{Cli, Restore},
    keys::Keys,
    operator::send,
    people::time,
    settings::{Settings, System},
    wire,
};

pub(crate) fn restore(cli: &Cli, settings: &Settings, restore: &Restore) -> anyhow::Result<u8> {
    let (system, keys, runtime) = (settings.system(restore.system.as_str())?, Keys::of(settings), runtime()?);
    let (until, before) = until(settings, restore)?;
    let to = target(&restore.to, &keys)?;
    apart(settings, system, &to)?;
    let identity = keys.identity(settings)?;
    let key = keys.public("copies")?;
    let access = wire::vault(settings, &keys)?;
    let vault = runtime.block_on(access.vault())?;
    let (digest, manifest) = find_point(settings, &keys, vault, &runtime, &system.name, restore.point.as_deref(), before)?;
    let number = if restore.unrecorded {
        eprintln!("reprieve: nothing records this restore");
        None
    } else {
        let command = Command::Restore {
            system: system.name.clone(),
            point: manifest.point.clone(),
            to: in_words(&to),
            until: until.in_words(),
            reason: restore.reason.clone(),
        };
        let answer = send(settings, &restore.by, &command)?;
        Some(answer["restore"].as_str().context("the answer was not understood")?.to_owned())
    };
    let folder = received(settings, &system.name);
    let (stanza, here) = (stanza(settings, system), folder.is_dir().then_some(folder.as_path()));
    let (handle, tell) = (runtime.handle(), progress::of(cli));
    let ground = Ground { vault, handle, key: &key, identity: &identity, received: here, stanza: stanza.as_ref(), tell };
    let options = RestoreOptions { until, to: to.clone(), create_roles: restore.create_roles };
    let record = |succeeded: bool, what: String| {
        let Some(number) = number.clone() else { return };
        let say = Say::Restored { system: system.name.clone(), restore: number, succeeded, what };
        let told = keys.copyist().and_then(|signer| tell_gateway(settings, &keys, &signer, say));
        if let Err(error) = told {
            eprintln!("reprieve: what became of it could not be recorded: {error:#}");
        }
    };
    let restored = guarded(
        &runtime,
        || reprieve_recovery::restore(ground, digest, &options),
        || {
            eprintln!("reprieve: interrupted, and nothing is restored");
            record(false, format!("{INTERRUPTED} by a signal"));
        },
    );
    record(restored.is_ok(), restored.as_ref().map_or_else(|error| error.in_words(), said));
    let restored = restored?;
    if cli.json {
        tell!("{}", json!({ "restored": restored, "to": in_words(&to) }));
    } else {
        tell!("{}", said(&restored));
        for (step, ms) in &restored.phases {
            tell!("  {step:<28} {ms:>7} ms");
        }
        if restored.engine == EngineKind::Pgbackrest {
            tell!(
                "It archives nothing: archive_mode is off in its postgresql.auto.conf, until it takes the place of the one that was copied."
            );
        }
        if let (Target::Path(path), EngineKind::Physical | EngineKind::Pgbackrest) = (&to, restored.engine) {
            tell!("Start it: pg_ctl -D {}{} start", path.display(), elsewhere(path));
        }
    }
    Ok(0)
}

/// Settings that came back may name the folder of the server that was copied: started by them, that one would run.
fn elsewhere(path: &Path) -> String {
    let settings = std::fs::read_to_string(path.join("postgresql.conf")).unwrap_or_default();
    let named = settings.lines().any(|line| line.trim_start().to_ascii_lowercase().starts_with("data_directory"));
    if named { format!(" -o '-c data_directory={}'", path.display()) } else { String::new() }
}

fn said(restored: &Restored) -> String {
    if matches!(restored.engine, EngineKind::Files | EngineKind::Sqlite) {
        return format!("{} is back, as it was at {} UTC", restored.point, time(restored.began));
    }
    let at = |at: Option<Timestamp>| at.map_or("nothing after the copy".to_owned(), |at| format!("{} UTC", time(at)));
    format!(
        "{} is back, {} files of the log replayed; the last transaction in it: {}",
        restored.point,
        restored.wal_files,
        at(restored.last_commit)
    )
}

/// Never over what was copied, nor into it.
fn apart(settings: &Settings, system: &System, to: &Target) -> anyhow::Result<()> {
    let (Some(own), Target::Path(to)) = (super::path(settings, system)?, to) else { return Ok(()) };
    // The target itself is not there yet; where it will be is.
    let parent = to.parent().and_then(|parent| parent.canonicalize().ok());
    let (to, own) =
        (parent.map_or(to.clone(), |parent| parent.join(to.file_name().unwrap_or_default())), own.canonicalize().unwrap_or(own));
    if to.starts_with(&own) {
        bail!("`{}` is what is protected, or in it: a copy is restored into a new place only", to.display());
    }
    Ok(())
}

fn in_words(to: &Target) -> String {
    match to {
        Target::Path(path) => path.display().to_string(),
        Target::Database(source) => source.address(),
    }
}

fn target(text: &str, keys: &Keys) -> anyhow::Result<Target> {
    if ["env:", "secret:", "file:", "postgres://", "postgresql://"].iter().any(|start| text.starts_with(start)) {
        return Ok(Target::Database(source_of(text, keys)?));
    }
    let path = Path::new(text);
    let absolute = if path.is_absolute() {
        path.to_owned()
    } else {
        std::env::current_dir().map(|folder| folder.join(path)).unwrap_or_else(|_| PathBuf::from(path))
    };
    Ok(Target::Path(absolute))
}

/// Up to where, and the time that the copy has to be from before.
fn until(settings: &Settings, restore: &Restore) -> anyhow::Result<(Until, Option<Timestamp>)> {
    match (&restore.at, &restore.before) {
        (Some(at), _) => {
            let (whole, micros) = parse_moment(at, SystemClock.now())
                .with_context(|| format!("`{at}` is not a time: write 2026-05-12 14:02:10, which is UTC, or 2026-05-12T16:02:10+02:00"))?;
            Ok((Until::Time(format!("{}.{micros:06}+00", time(whole))), Some(Timestamp(whole.0 + micros / 1000))))
        }
        (None, Some(operation)) => {
            let wanted: IntentId =
                operation.trim_start_matches("U-").parse().with_context(|| format!("`{operation}` is not an operation: write I-17"))?;
            before(settings, wanted, restore)
        }
        (None, None) => Ok((Until::Newest, None)),
    }
}

fn before(settings: &Settings, wanted: IntentId, restore: &Restore) -> anyhow::Result<(Until, Option<Timestamp>)> {
    let intents = events(settings, &["intent", "undo_started"])?;
    let is = |recorded: &&Recorded| match &recorded.event {
        Event::Intent { intent, system, .. } | Event::UndoStarted { intent, system, .. } => *intent == wanted && *system == restore.system,
        _ => false,
    };
    let began = intents.iter().find(is).with_context(|| format!("there is no operation {wanted} in `{}`", restore.system))?.at;
    let xid = events(settings, &["concluded", "settled"])?.into_iter().find_map(|recorded| match recorded.event {
        Event::Concluded { intent, outcome: Outcome::Done { xid, .. }, .. } if intent == wanted => Some(xid),
        Event::Settled { intent, xid, .. } if intent == wanted => Some(xid),
        _ => None,
    });
    match xid {
        Some(Some(xid)) => Ok((Until::BeforeTransaction(xid), Some(began))),
        Some(None) => Ok((Until::BeforeTime(spelled(began)), Some(began))),
        None => bail!("{wanted} changed nothing, so there is nothing to restore from before it"),
    }
}

/// `2026-05-12 14:02:10.123`, or `14:02:10` of today, UTC; `2026-05-12T16:02:10+02:00` elsewhere.
pub(crate) fn parse_time(text: &str, now: Timestamp) -> Option<Timestamp> {
    parse_moment(text, now).map(|(whole, micros)| Timestamp(whole.0 + micros / 1000))
}

/// The same: the second, and its microseconds.
fn parse_moment(text: &str, now: Timestamp) -> Option<(Timestamp, u64)> {
    let (text, ahead) = zone(text.trim())?;
    let text = text.replacen(['T', 't'], " ", 1);
    // Today is what it is where the time is said.
    let today = time(Timestamp(now.0.checked_add_signed(ahead)?));
    let (day, clock) = text.split_once(' ').unwrap_or((today.get(..10)?, &text));
    let day: Vec<u64> = day.split('-').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (clock, micros) = match clock.split_once('.') {
        Some((clock, rest)) if (1..=9).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_digit()) => {
            (clock, format!("{rest:0<6}").get(..6)?.parse::<u64>().ok()?)
        }
        Some(_) => return None,
        None => (clock, 0),
    };
    let clock: Vec<u64> = clock.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (&[year, month, day], &[hour, minute, ref second @ ..]) = (day.as_slice(), clock.as_slice()) else { return None };
    let second = match second {
        [] => 0,
        [second] => *second,
        _ => return None,
    };
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days since 1970 (H. Hinnant, "chrono-compatible low-level date algorithms").
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let there = ((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000;
    Some((Timestamp(there.checked_add_signed(-ahead)?), micros))
}

/// The text before its zone, and how many milliseconds the clocks there are ahead of UTC. No zone: UTC.
fn zone(text: &str) -> Option<(&str, i64)> {
    if let Some(rest) = text.strip_suffix(['Z', 'z']).or_else(|| text.strip_suffix(" UTC")) {
        return Some((rest.trim_end(), 0));
    }
    // A minus before the first colon is the day's.
    let from = text.find(':').unwrap_or(text.len());
    let Some(at) = text[from..].find(['+', '-']).map(|at| at + from) else { return Some((text, 0)) };
    let (rest, offset) = text.split_at(at);
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let digits = offset[1..].replacen(':', "", 1);
    let (hours, minutes) = match digits.len() {
        2 => (digits.as_str(), "0"),
        4 => digits.split_at(2),
        _ => return None,
    };
    let number = |text: &str| if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse::<i64>().ok() } else { None };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours < 24 && minutes < 60).then(|| (rest.trim_end(), sign * (hours * 60 + minutes) * 60_000))
}

/// As PostgreSQL reads it.
fn spelled(at: Timestamp) -> String {
    format!("{}.{:03}+00", time(at), at.0 % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_or_refused() {
        let now = Timestamp(1_777_000_000_000);
        for (text, expected) in [
            ("1970-01-01 00:00:00", Some(0)),
            ("2026-04-24 03:06:40.5", Some(1_777_000_000_500)),
            ("2026-04-24T03:06:40Z", Some(1_777_000_000_000)),
            ("03:06:40", Some(1_777_000_000_000)),
            ("03:06", Some(1_776_999_960_000)),
            ("2024-02-29 00:00", Some(1_709_164_800_000)),
            ("", None),
            ("yesterday", None),
            ("2026-13-01 00:00", None),
            ("2026-04-24 25:00", None),
            ("2026-04-24T03:06:40z", Some(1_777_000_000_000)),
            ("2026-04-24 03:06:40 UTC", Some(1_777_000_000_000)),
            ("2026-04-24T05:06:40+02:00", Some(1_777_000_000_000)),
            ("2026-04-24 05:06:40.123456+02", Some(1_777_000_000_123)),
            ("2026-04-23T22:36:40-0430", Some(1_777_000_000_000)),
            ("2026-04-24 05:06 +02:00", Some(1_776_999_960_000)),
            ("05:06:40+02:00", Some(1_777_000_000_000)),
            // There it is the day before.
            ("21:06:40-06:00", Some(1_777_000_000_000)),
            ("2026-04-24 03:06:40.1234567890", None),
            ("2026-04-24 03:06:40.", None),
            ("2026-04-24 03:06:40.1x", None),
            ("2026-04-24 03:06:40+2", None),
            ("2026-04-24 03:06:40+25:00", None),
            ("2026-04-24 03:06:40+02:00:00", None),
            ("2026-04-24 03:06:40 CEST", None),
            ("3", None),
            ("2026-04-24 -1:00", None),
        ] {
            assert_eq!(parse_time(text, now), expected.map(Timestamp), "{text}");
        }
        assert_eq!(spelled(Timestamp(1_777_000_000_005)), "2026-04-24 03:06:40.005+00");
    }
}
