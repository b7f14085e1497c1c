//! `reprieve policy`: the rules as they are, and what other rules would have said.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Instant,
};

use anyhow::Context as _;
use reprieve_audit::SystemClock;
use reprieve_gate::{AnswerChange, Clock as _, UsedRights, Verdict};
use reprieve_operation::{AgentName, Kind, Timestamp};
use reprieve_policy::{Policy as Rules, Profile, touched};
use serde_json::{Value, json};

use crate::{
    args::{Cli, Policy},
    ledger::for_each_event,
    people::{time, visible},
    replay::{Replay, schema_of},
    settings::{Settings, parse_duration},
    simulation, wire,
};

/// Tables named one by one in a suggestion; of a schema with more, all are.
const TABLES: usize = 12;

pub(crate) fn policy(cli: &Cli, settings: &Settings, command: &Policy) -> anyhow::Result<u8> {
    match command {
        Policy::Check => check(cli, settings),
        Policy::Simulate { with, profile, since } => {
            let current = wire::read_policy(settings)?;
            let proposed = proposed(settings, with.as_deref(), *profile)?;
            simulate(cli, settings, &current, &proposed, after(since.as_deref())?)
        }
        Policy::Suggest { agent, since } => suggest(cli, settings, agent.as_ref(), after(since.as_deref())?),
    }
}

fn check(cli: &Cli, settings: &Settings) -> anyhow::Result<u8> {
    let policy = wire::read_policy(settings)?;
    let report = json!({ "ok": true, "profile": policy.profile().to_string(), "digest": policy.digest(), "uniform": policy.is_uniform() });
    if cli.json {
        tell!("{report}")
    } else {
        tell!("The policies are right: profile {}, digest {}.", policy.profile(), policy.digest().short())
    }
    Ok(0)
}

fn proposed(settings: &Settings, with: Option<&Path>, profile: Option<Profile>) -> anyhow::Result<Rules> {
    let folder = with.map_or_else(|| settings.path(&settings.policy.directory), Path::to_path_buf);
    anyhow::ensure!(with.is_none() || folder.is_dir(), "{} is not a folder of `*.cedar` files", folder.display());
    let sources = wire::read_sources(&folder)?;
    Rules::build(profile.unwrap_or(settings.policy.profile), &sources).context("the proposed policies are not right")
}

fn after(since: Option<&str>) -> anyhow::Result<Timestamp> {
    let Some(since) = since else { return Ok(Timestamp(0)) };
    let back = parse_duration(since).map_err(anyhow::Error::msg)?;
    Ok(Timestamp(SystemClock.now().0.saturating_sub(u64::try_from(back.as_millis()).unwrap_or(u64::MAX))))
}

fn simulate(cli: &Cli, settings: &Settings, current: &Rules, proposed: &Rules, after: Timestamp) -> anyhow::Result<u8> {
    let found = simulation::simulate(settings, current, proposed, after, None)?;
    if cli.json {
        let mut report = serde_json::to_value(&found)?;
        let policies = json!({ "current": current.digest(), "proposed": proposed.digest(), "profile": proposed.profile().to_string() });
        if let (Value::Object(report), Value::Object(policies)) = (&mut report, policies) {
            report.extend(policies);
        }
        tell!("{report}");
        return Ok(0);
    }
    for AnswerChange { agent, system, environment, text, times, last_event, newest, from, to, first_event: _ } in &found.changes {
        let (was, is) = (from.verdict.as_str(), to.verdict.as_str());
        tell!("{was} → {is}  {agent} on {system} ({environment}), {times} times, last {} (event {last_event})", time(*newest));
        tell!("    {}", visible(text));
        match to.verdict {
            Verdict::Allow => tell!("    no longer asked by `{}`: {}", from.rule, from.reason),
            Verdict::Hold | Verdict::Refuse => tell!("    rule `{}`: {}", to.rule, to.reason),
        }
    }
    if found.unlisted > 0 {
        tell!("and {} more operations in other ways", found.unlisted);
    }
    tell!(
        "{} of {} recorded operations would be answered otherwise (profile {}, digest {}).",
        found.changed,
        found.asked,
        proposed.profile(),
        proposed.digest().short()
    );
    tell!("The rules in force today answer {} of them as they were answered then.", found.as_recorded);
    for (reason, count) in &found.left_out {
        tell!("Left out: {count}, since {reason}.");
    }
    Ok(0)
}

/// What one agent used.
#[derive(Default)]
struct Used {
    kinds: BTreeSet<Kind>,
    systems: BTreeSet<String>,
    environments: BTreeSet<String>,
    resources: BTreeSet<String>,
    /// Something ran that named no resource: only `*` covers that.
    everything: bool,
    operations: u64,
}

/// What an agent used of its rights, and the systems and environments that it reached.
pub(crate) type UsedOf = (UsedRights, BTreeSet<String>, BTreeSet<String>);

/// That of every agent, and what could not be looked at, by reason.
type UsedOfAll = (BTreeMap<AgentName, UsedOf>, BTreeMap<&'static str, u64>);

/// What one agent used of its rights, or every agent. Stops at the deadline, if there is one: half the past suggests too little.
pub(crate) fn used_rights(
    settings: &Settings,
    only: Option<&AgentName>,
    after: Timestamp,
    until: Option<Instant>,
) -> anyhow::Result<UsedOfAll> {
    let mut replay = Replay::new(settings, after);
    let mut used: BTreeMap<AgentName, Used> = BTreeMap::new();
    for_each_event(settings, |recorded| {
        if until.is_some_and(|until| Instant::now() >= until) {
            anyhow::bail!("the record is too long to be read while somebody waits");
        }
        for replayed in replay.next(recorded).into_iter().filter(|replayed| replayed.ran) {
            let operation = &replayed.operation;
            let used = used.entry(operation.principal.agent.clone()).or_default();
            used.operations += replayed.times;
            used.systems.insert(operation.system.to_string());
            used.environments.insert(operation.environment.to_string());
            let Some(touches) = touched(operation) else {
                used.everything = true;
                continue;
            };
            for (kind, resource) in touches {
                // The others are never a token's to give.
                if matches!(kind, Kind::Read | Kind::Write | Kind::Destroy | Kind::Grant) {
                    used.kinds.insert(kind);
                }
                used.resources.extend(resource);
            }
        }
        Ok(())
    })?;
    let mut answers = BTreeMap::new();
    for (agent, state) in
        replay.state().agents.iter().filter(|(agent, state)| !state.decoy && !state.revoked && only.is_none_or(|only| only == *agent))
    {
        let nothing = Used::default();
        let used = used.get(agent).unwrap_or(&nothing);
        let patterns = if used.everything { BTreeSet::from(["*".to_owned()]) } else { patterns(&used.resources) };
        let unused_kinds: Vec<Kind> = state.scope.kinds.difference(&used.kinds).copied().collect();
        let unused_systems: Vec<String> =
            state.scope.systems.iter().map(ToString::to_string).filter(|system| !used.systems.contains(system)).collect();
        let narrower = !unused_kinds.is_empty() || state.scope.resources.iter().any(|pattern| !patterns.contains(&pattern.to_string()));
        let rights = UsedRights {
            operations: used.operations,
            kinds: used.kinds.iter().copied().collect(),
            resources: patterns.into_iter().collect(),
            unused_kinds,
            unused_systems,
            narrower: used.operations > 0 && narrower,
        };
        let places = used.environments.clone();
        answers.insert(agent.clone(), (rights, used.systems.clone(), places));
    }
    Ok((answers, replay.left_out))
}

fn suggest(cli: &Cli, settings: &Settings, only: Option<&AgentName>, after: Timestamp) -> anyhow::Result<u8> {
    let (found, left_out) = used_rights(settings, only, after, None)?;
    let mut answers = Vec::new();
    for (agent, (used, systems, environments)) in &found {
        let UsedRights { unused_kinds, unused_systems, .. } = used;
        let command = used.narrower.then(|| {
            let kinds: Vec<&str> = used.kinds.iter().map(|kind| kind.as_str()).collect();
            let resources: String = used.resources.iter().map(|pattern| format!(" --resource '{pattern}'")).collect();
            format!("reprieve agent narrow {agent} --allow {}{resources}", kinds.join(","))
        });
        answers.push(json!({
            "agent": agent, "operations": used.operations, "used": { "allow": used.kinds, "systems": systems, "environments": environments, "resources": used.resources },
            "unused": { "allow": unused_kinds, "systems": unused_systems }, "command": command,
        }));
        if !cli.json {
            tell!(
                "{agent}: {} operations since then{}",
                used.operations,
                if used.operations == 0 { "; revoke its token if it is not needed: reprieve agent revoke" } else { "" }
            );
            if !unused_kinds.is_empty() && used.operations > 0 {
                tell!("    never used: {}", unused_kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", "));
            }
            if !unused_systems.is_empty() && used.operations > 0 {
                tell!("    never reached: {} (a new token without them: reprieve agent add)", unused_systems.join(", "));
            }
            match &command {
                Some(command) => tell!("    {command}"),
                None if used.operations > 0 => tell!("    its token has no more than it used"),
                None => {}
            }
        }
    }
    if cli.json {
        tell!("{}", json!({ "agents": answers, "left_out": left_out }));
    }
    Ok(0)
}

/// Resources as a token's patterns: tables by name, a schema as a whole where they are many.
fn patterns(resources: &BTreeSet<String>) -> BTreeSet<String> {
    let mut by_schema: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for resource in resources {
        by_schema.entry(schema_of(resource)).or_default().push(resource);
    }
    let mut patterns = BTreeSet::new();
    for (schema, tables) in by_schema {
        if tables.len() > TABLES {
            patterns.insert(format!("{schema}.*"));
        } else {
            patterns.extend(tables.into_iter().cloned());
        }
    }
    patterns
}
