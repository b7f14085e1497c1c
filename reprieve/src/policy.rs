//! `reprieve policy`: the rules as they are, and what other rules would have said.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    path::Path,
};

use anyhow::Context as _;
use reprieve_audit::SystemClock;
use reprieve_gate::Clock as _;
use reprieve_operation::{AgentName, Decision, Kind, Timestamp};
use reprieve_policy::{DecisionCache, Policy as Rules, Profile, touched};
use serde_json::{Value, json};

use crate::{
    args::{Cli, Policy},
    ledger::for_each_event,
    people::{time, visible},
    replay::{Replay, Replayed, Verdict, schema_of},
    settings::{Settings, parse_duration},
    wire,
};

/// Changed answers that are listed; more are counted.
const LISTED: usize = 1_000;

/// Decisions that are remembered: recorded operations repeat each other.
const CACHED: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// Texts are cut to this many characters, and are one operation up to there.
const SHOWN_CHARACTERS: usize = 300;

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

/// An answer with its rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    verdict: Verdict,
    rule: String,
    reason: String,
}

impl Said {
    fn by(cache: &DecisionCache, policy: &Rules, replayed: &Replayed) -> Self {
        match cache.decide(policy, &replayed.operation, &replayed.facts) {
            Decision::Allow(terms) => Self { verdict: Verdict::Allow, rule: terms.because.join(", "), reason: String::new() },
            Decision::Needs(needs) => Self { verdict: Verdict::Hold, rule: needs.rule, reason: needs.reason },
            Decision::Refuse(refusal) => Self { verdict: Verdict::Refuse, rule: refusal.rule, reason: refusal.reason },
        }
    }

    /// Another word, or the same by another rule; who permits makes no difference to an agent.
    fn differs(&self, other: &Self) -> bool {
        self.verdict != other.verdict || (self.verdict != Verdict::Allow && self.rule != other.rule)
    }
}

/// One way in which answers change: whose, where, what, from which rule's word to which.
type Change = (AgentName, String, String, (Verdict, String), (Verdict, String));

/// Operations that change in the same way.
struct Changed {
    reasons: (String, String),
    times: u64,
    events: (u64, u64),
    newest: Timestamp,
}

fn simulate(cli: &Cli, settings: &Settings, current: &Rules, proposed: &Rules, after: Timestamp) -> anyhow::Result<u8> {
    let cache = DecisionCache::new(CACHED);
    let mut replay = Replay::new(settings);
    let mut changes: BTreeMap<Change, Changed> = BTreeMap::new();
    let (mut asked, mut as_recorded, mut changed, mut unlisted) = (0, 0, 0, 0);
    for_each_event(settings, |recorded| {
        for replayed in replay.next(recorded) {
            if replayed.at < after {
                continue;
            }
            let from = Said::by(&cache, current, &replayed);
            let to = Said::by(&cache, proposed, &replayed);
            asked += replayed.times;
            as_recorded += if from.verdict == replayed.recorded { replayed.times } else { 0 };
            if !from.differs(&to) {
                continue;
            }
            changed += replayed.times;
            let operation = &replayed.operation;
            let place = format!("{} ({})", operation.system, operation.environment);
            let text = operation.redacted.chars().take(SHOWN_CHARACTERS).collect();
            let key = (operation.principal.agent.clone(), place, text, (from.verdict, from.rule), (to.verdict, to.rule));
            if changes.len() >= LISTED && !changes.contains_key(&key) {
                unlisted += replayed.times;
                continue;
            }
            let entry = changes.entry(key).or_insert(Changed {
                reasons: (String::new(), String::new()),
                times: 0,
                events: (replayed.index, replayed.index),
                newest: replayed.at,
            });
            entry.times += replayed.times;
            entry.events.1 = replayed.index;
            entry.newest = entry.newest.max(replayed.at);
            entry.reasons = (from.reason, to.reason);
        }
        Ok(())
    })?;
    let mut changes: Vec<(Change, Changed)> = changes.into_iter().collect();
    // What people care for first: what would pass that does not, then what would not that does; the most frequent first.
    changes.sort_by_key(|((.., from, to), changed)| (to.0 >= from.0, std::cmp::Reverse(changed.times)));
    if cli.json {
        let said =
            |(verdict, rule): &(Verdict, String), reason: &str| json!({ "verdict": verdict.as_str(), "rule": rule, "reason": reason });
        let listed: Vec<Value> = changes
            .iter()
            .map(|((agent, place, text, from, to), changed)| {
                json!({
                    "agent": agent, "system": place.split(' ').next(), "text": text, "times": changed.times,
                    "first_event": changed.events.0, "last_event": changed.events.1, "newest": time(changed.newest),
                    "from": said(from, &changed.reasons.0), "to": said(to, &changed.reasons.1),
                })
            })
            .collect();
        tell!(
            "{}",
            json!({
                "current": current.digest(), "proposed": proposed.digest(), "profile": proposed.profile().to_string(), "asked": asked,
                "as_recorded": as_recorded, "changed": changed, "unlisted": unlisted, "left_out": replay.left_out, "changes": listed,
            })
        );
        return Ok(0);
    }
    for ((agent, place, text, from, to), entry) in &changes {
        tell!(
            "{} → {}  {agent} on {place}, {} times, last {} (event {})",
            from.0.as_str(),
            to.0.as_str(),
            entry.times,
            time(entry.newest),
            entry.events.1
        );
        tell!("    {}", visible(text));
        match to.0 {
            Verdict::Allow => tell!("    no longer asked by `{}`: {}", from.1, entry.reasons.0),
            Verdict::Hold | Verdict::Refuse => tell!("    rule `{}`: {}", to.1, entry.reasons.1),
        }
    }
    if unlisted > 0 {
        tell!("and {unlisted} more operations in other ways");
    }
    tell!(
        "{changed} of {asked} recorded operations would be answered otherwise (profile {}, digest {}).",
        proposed.profile(),
        proposed.digest().short()
    );
    tell!("The rules in force today answer {as_recorded} of them as they were answered then.");
    for (reason, count) in &replay.left_out {
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

fn suggest(cli: &Cli, settings: &Settings, only: Option<&AgentName>, after: Timestamp) -> anyhow::Result<u8> {
    let mut replay = Replay::new(settings);
    let mut used: BTreeMap<AgentName, Used> = BTreeMap::new();
    for_each_event(settings, |recorded| {
        for replayed in replay.next(recorded).into_iter().filter(|replayed| replayed.ran && replayed.at >= after) {
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
    let mut answers = Vec::new();
    for (agent, state) in
        replay.state().agents.iter().filter(|(agent, state)| !state.decoy && !state.revoked && only.is_none_or(|only| only == *agent))
    {
        let nothing = Used::default();
        let used = used.get(agent).unwrap_or(&nothing);
        let patterns = if used.everything { BTreeSet::from(["*".to_owned()]) } else { patterns(&used.resources) };
        let unused_kinds: Vec<&Kind> = state.scope.kinds.difference(&used.kinds).collect();
        let unused_systems: Vec<String> =
            state.scope.systems.iter().map(ToString::to_string).filter(|system| !used.systems.contains(system)).collect();
        let narrower = !unused_kinds.is_empty() || state.scope.resources.iter().any(|pattern| !patterns.contains(&pattern.to_string()));
        let command = (used.operations > 0 && narrower).then(|| {
            let kinds: Vec<&str> = used.kinds.iter().map(|kind| kind.as_str()).collect();
            let resources: String = patterns.iter().map(|pattern| format!(" --resource '{pattern}'")).collect();
            format!("reprieve agent narrow {agent} --allow {}{resources}", kinds.join(","))
        });
        answers.push(json!({
            "agent": agent, "operations": used.operations, "used": { "allow": used.kinds, "systems": used.systems, "environments": used.environments, "resources": patterns },
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
        tell!("{}", json!({ "agents": answers, "left_out": replay.left_out }));
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
