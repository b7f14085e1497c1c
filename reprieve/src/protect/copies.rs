//! What `protect` says of a system's copies, and what of theirs it takes away: the heartbeats' schema and the slot.
//!
//! Copies are the settings' and `serve`'s to make. Nothing that they lack keeps a database from being protected: it is said.

use std::time::Duration;

use reprieve_recovery::{EngineChoice, EngineKind, Slot, Source, Standing, Tools, heartbeat_removal, slot_name};
use reprieve_surface_postgres::{Finding, Level, Step};
use serde_json::{Value, json};

use crate::{
    keys::Keys,
    recovery::{admin_source, configured, source, stanzas},
    settings::{Backup, Settings, System, Wal},
};

/// What copies of a system come to.
pub(super) struct Said {
    pub(super) findings: Vec<Finding>,
    /// The same for programs; null: nothing is copied.
    pub(super) copies: Value,
}

/// Looks at the settings and at the server, as the role that copies.
pub(super) fn said(settings: &Settings, system: &System, keys: &Keys) -> Said {
    let mut found = Vec::new();
    let name = slot_name(&system.name);
    let looked = source(system, keys).and_then(|source| Ok((Standing::of(&source, &name)?, source)));
    let wal = system.backup.as_ref().map_or(Wal::Off, |backup| backup.wal);
    let mut copies = Value::Null;
    if let Some(backup) = &system.backup {
        let kind = match &looked {
            Ok((standing, source)) => {
                let kind = engine(&mut found, system, backup, standing, source);
                room(&mut found, backup, kind, standing, source);
                kind
            }
            Err(error) => {
                note(&mut found, "copies", format!("what the role that copies may could not be looked at: {error:#}"));
                None
            }
        };
        clock(&mut found, system, backup);
        log(&mut found, &name, backup, kind, looked.as_ref().ok().map(|(standing, _)| standing));
        let place = place(&mut found, settings, system, keys);
        copies = json!({ "engine": kind, "every_s": backup.every.map(|every| every.as_secs()), "drill_s": backup.drill.map(|drill| drill.as_secs()),
            "wal": format!("{wal:?}").to_lowercase(), "slot": (wal != Wal::Off).then_some(&name), "synchronous_standby_names": name, "place": place });
    } else {
        note(&mut found, "copies", "nothing is copied: no [system.backup]".to_owned());
    }
    if let Ok((standing, _)) = &looked {
        slot(&mut found, &name, wal, standing);
    }
    match stanzas::findings(settings, system, keys) {
        Ok(more) => found.extend(more),
        Err(error) => note(&mut found, "pgBackRest", format!("{error:#}")),
    }
    Said { findings: found, copies }
}

fn add(found: &mut Vec<Finding>, level: Level, subject: &str, text: String) {
    found.push(Finding { level, subject: subject.to_owned(), text });
}

fn good(found: &mut Vec<Finding>, subject: &str, text: String) {
    add(found, Level::Good, subject, text);
}

fn note(found: &mut Vec<Finding>, subject: &str, text: String) {
    add(found, Level::Note, subject, text);
}

/// By which engine, and whether the role may.
fn engine(found: &mut Vec<Finding>, system: &System, backup: &Backup, standing: &Standing, source: &Source) -> Option<EngineKind> {
    let kind = backup.engine.kind(standing.replicates);
    let role = quoted(&source.user);
    let may = format!("run ALTER ROLE {role} REPLICATION");
    let lacks = format!("`{}` may not replicate: {may}", source.user);
    match kind {
        Some(EngineKind::Physical) => good(found, "copies", format!("of the whole server, by pg_basebackup, as `{}`", source.user)),
        Some(EngineKind::Logical) if backup.engine == EngineChoice::Logical => {
            good(found, "copies", format!("of the contents of `{}`, by pg_dump, as `{}`", source.database, source.user));
        }
        Some(EngineKind::Logical) => {
            note(found, "copies", format!("of the contents of `{}` only, by pg_dump, because {lacks}", source.database));
        }
        Some(EngineKind::Pgbackrest) => good(found, "copies", "of the whole server, by pgBackRest".to_owned()),
        Some(EngineKind::Files | EngineKind::Sqlite) | None => {
            note(found, "copies", format!("none can be made: engine = \"physical\", and {lacks}"));
        }
    }
    if !standing.reads_all {
        let what = format!("`{}` may not read every table, so that rows are missed: run GRANT pg_read_all_data TO {role}", source.user);
        note(found, "rows of copies", what);
    }
    if let Err(error) = Tools::find(Some(standing.major)) {
        note(found, "programs", format!("copies of `{}` are neither made nor tried here: {}", system.name, error.in_words()));
    }
    kind
}

/// What the server has to let in and has room for.
fn room(found: &mut Vec<Finding>, backup: &Backup, kind: Option<EngineKind>, standing: &Standing, source: &Source) {
    let (copies, streams) = (kind == Some(EngineKind::Physical), backup.wal != Wal::Off);
    if !standing.replicates || !copies && !streams {
        return;
    }
    let is_read = standing.slot.as_ref().is_some_and(|slot| slot.reader.is_some());
    let wanted = (u64::from(copies) + u64::from(streams && !is_read), u64::from(copies) + u64::from(streams && standing.slot.is_none()));
    let free = |(all, used): (u64, u64)| all.saturating_sub(used);
    let (senders, slots) = (free(standing.senders), free(standing.slots));
    let text = format!(
        "wal_level {}; {senders} of {} max_wal_senders and {slots} of {} max_replication_slots are free",
        standing.wal_level, standing.senders.0, standing.slots.0
    );
    let lacks = if standing.wal_level == "minimal" {
        Some("set wal_level = replica, max_wal_senders = 10 and restart the server".to_owned())
    } else if senders < wanted.0 || slots < wanted.1 {
        Some(format!("{} and {} are needed: set more, and restart the server", wanted.0, wanted.1))
    } else {
        None
    };
    match (lacks, Standing::lets_in(source)) {
        (Some(lacks), _) => note(found, "room for copies", format!("{text}; {lacks}")),
        (None, Ok(())) => good(found, "room for copies", text),
        (None, Err(error)) => {
            let line = format!("a line like `host replication {} ADDRESS scram-sha-256` in pg_hba.conf lets it in", source.user);
            note(found, "room for copies", format!("`{}` is not let in to replicate: {line} ({})", source.user, error.in_words()));
        }
    }
}

/// What is done by itself, and what is promised.
fn clock(found: &mut Vec<Finding>, system: &System, backup: &Backup) {
    let name = &system.name;
    match backup.every {
        Some(every) => good(found, "how often", format!("every {}, by `reprieve serve`", words(every))),
        None => note(found, "how often", format!("no copies are made: set every in [system.backup], or run `reprieve backup now {name}`")),
    }
    match backup.drill {
        Some(drill) => good(found, "drills", format!("every {}; one that passed counts for {}", words(drill), words(backup.window))),
        None => note(found, "drills", format!("no copy is tried: set drill in [system.backup], or run `reprieve drill run {name}`")),
    }
    let (rpo, rto) = (backup.objective.rpo, backup.objective.rto);
    let promised = |time: Option<Duration>| time.map_or("nothing is said".to_owned(), words);
    let text = format!("lost at most: {}; back within: {}", promised(rpo), promised(rto));
    // What is committed after a copy is in no copy.
    let between = backup.every.filter(|every| backup.wal == Wal::Off && backup.stanza.is_none() && rpo.is_some_and(|rpo| rpo < *every));
    match (rpo.is_some() || rto.is_some(), between) {
        (true, None) => good(found, "objective", text),
        (true, Some(every)) => {
            note(found, "objective", format!("{text}; with a copy every {} and no `wal` that can't be kept", words(every)));
        }
        (false, _) => note(found, "objective", "nothing is promised: set objective = { rpo = \"15m\", rto = \"15m\" }".to_owned()),
    }
    let heartbeat = format!("every {}, a row in `reprieve_recovery.heartbeat`: it dates what comes back", words(backup.heartbeat));
    good(found, "heartbeat", heartbeat);
}

/// What is kept between copies.
fn log(found: &mut Vec<Finding>, name: &str, backup: &Backup, kind: Option<EngineKind>, standing: Option<&Standing>) {
    let subject = "write-ahead log";
    if kind == Some(EngineKind::Pgbackrest) {
        return good(found, subject, "archived by pgBackRest".to_owned());
    }
    let received = format!("received over the slot `{name}` while `reprieve serve` runs");
    match backup.wal {
        Wal::Off => {
            let what = "not kept: what is committed between two copies is lost with the server; set wal = \"stream\"";
            note(found, subject, what.to_owned());
        }
        Wal::Stream | Wal::Synchronous if standing.is_some_and(|standing| !standing.replicates) => {
            note(found, subject, "can't be received: the role that copies may not replicate".to_owned());
        }
        Wal::Stream => {
            let more = format!("for no lost commit set wal = \"synchronous\", and synchronous_standby_names = '{name}' on the server");
            good(found, subject, format!("{received}; {more}"));
        }
        Wal::Synchronous => match standing.filter(|standing| !standing.waits_for(name)) {
            None => good(found, subject, format!("{received}; the server waits for `{name}` at each commit")),
            Some(_) => {
                let set = format!("set synchronous_standby_names = '{name}' there, and reload");
                note(found, subject, format!("{received}; the server doesn't wait for it: {set}"));
            }
        },
    }
}

/// What a slot of ours keeps on the server's disk.
fn slot(found: &mut Vec<Finding>, name: &str, wal: Wal, standing: &Standing) {
    let asked = wal != Wal::Off && standing.replicates;
    let unbounded =
        (standing.slot_bound == "-1").then_some("max_slot_wal_keep_size is -1: set it, such as '10GB', or the log fills the disk");
    let is_read = standing.slot.as_ref().is_some_and(|slot| slot.reader.is_some());
    let what = match &standing.slot {
        None if asked => format!("`{name}` is not there yet: `reprieve serve` makes it"),
        None => return,
        Some(slot) => {
            let kept = format!("`{name}` keeps {:.1} MiB of the log on the server", slot.kept_bytes as f64 / f64::from(1 << 20));
            match (is_read, asked) {
                (true, true) => kept,
                (true, false) => format!("{kept}, and is read, though no setting asks for it"),
                (false, true) => format!("{kept}, and nobody reads it: start `reprieve serve`"),
                (false, false) => {
                    let end = Slot::removal(name);
                    format!("{kept}; nobody reads it and no setting asks for it (wal = \"stream\"): `{end}` ends that")
                }
            }
        }
    };
    let is_well = unbounded.is_none() && asked == is_read;
    let text = unbounded.map_or(what.clone(), |unbounded| format!("{what}; {unbounded}"));
    add(found, if is_well { Level::Good } else { Level::Note }, "slot", text);
}

/// Where copies go, and whether they are lost with the system.
fn place(found: &mut Vec<Finding>, settings: &Settings, system: &System, keys: &Keys) -> Value {
    let configured = configured(settings, keys).unwrap_or_default();
    let Some(place) = configured.into_iter().find(|one| one.system == system.name).map(|one| one.place) else { return Value::Null };
    match &place.same_because {
        // Of a repository of pgBackRest's more is said than that.
        _ if system.backup.as_ref().is_some_and(|backup| backup.stanza.is_some()) => {}
        None => good(found, "place", format!("{}, {}", place.name, place.locked)),
        Some(why) => note(found, "place", format!("{}, the same blast radius: {why}; {}", place.name, place.locked)),
    }
    json!({ "name": place.name, "same_blast_radius": place.same_because.is_some(), "locked": place.locked })
}

/// What copies left in a server, and how it goes.
#[derive(Default)]
pub(super) struct Removal {
    /// In the transaction that takes everything else away.
    pub(super) steps: Vec<Step>,
    /// No transaction holds a slot: it goes afterwards.
    slot: Option<(Source, String)>,
    /// What stays, and why, and what comes again.
    pub(super) said: Vec<Finding>,
    pub(super) leaves_something: bool,
}

impl Removal {
    pub(super) fn of(system: &System, keys: &Keys) -> Self {
        let mut removal = Self::default();
        if let Err(error) = removal.look(system, keys) {
            note(&mut removal.said, "copies", format!("what they left could not be looked at: {error:#}"));
            // Where nothing was ever copied there is nothing to look for, and may be nothing to look with.
            removal.leaves_something = system.backup.is_some();
        }
        if system.backup.is_some() {
            let again = "`reprieve serve` makes heartbeats, and with `wal` the slot, again: take [system.backup] out of the settings first";
            note(&mut removal.said, "settings", again.to_owned());
        }
        removal
    }

    fn leave(&mut self, subject: &str, why: String) {
        note(&mut self.said, subject, why);
        self.leaves_something = true;
    }

    fn look(&mut self, system: &System, keys: &Keys) -> anyhow::Result<()> {
        let admin = admin_source(system, keys)?;
        let (steps, left) = heartbeat_removal(&admin)?;
        self.steps.extend(steps.into_iter().map(|(purpose, sql)| Step { purpose: purpose.to_owned(), sql: sql.to_owned() }));
        if let Some(why) = left {
            self.leave("heartbeats", format!("{why}: it stays"));
        }
        let name = slot_name(&system.name);
        // The role that copies made it, and may be gone from the settings, or from the server.
        let sources = [source(system, keys).ok(), Some(admin)].into_iter().flatten();
        let standings: Vec<(Standing, Source)> = sources.filter_map(|source| Some((Standing::of(&source, &name).ok()?, source))).collect();
        let Some(slot) = standings.iter().find_map(|(standing, _)| standing.slot.clone()) else { return Ok(()) };
        let may = standings.into_iter().find(|(standing, _)| standing.replicates && standing.slot.is_some());
        match (slot.reader, may) {
            (Some(reader), _) => {
                let stop = "stop `reprieve serve`, or take `wal` out of its settings, and run this again";
                self.leave("slot", format!("`{name}` stays: process {reader} of the server sends from it; {stop}"));
            }
            (None, Some((_, source))) => self.slot = Some((source, name)),
            (None, None) => {
                let run = Slot::removal(&name);
                self.leave("slot", format!("`{name}` stays: neither login may drop it; run `{run}` as a superuser"));
            }
        }
        Ok(())
    }

    /// The step that comes after the transaction.
    pub(super) fn last(&self) -> Option<Step> {
        let (_, name) = self.slot.as_ref()?;
        Some(Step { purpose: "let the server keep no log for us".to_owned(), sql: Slot::removal(name) })
    }

    pub(super) fn carry_out(&self) -> anyhow::Result<()> {
        if let Some((source, name)) = &self.slot {
            Slot::drop_now(source, name)?;
        }
        Ok(())
    }
}

fn quoted(role: &str) -> String {
    format!("\"{}\"", role.replace('"', "\"\""))
}

fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    match units.into_iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} s"),
    }
}
