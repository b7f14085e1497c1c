//! Measures what a decision costs and prints it as one line of JSON.
//!
//! `cargo run --release -p reprieve-policy --example decide`

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use reprieve_operation::{
    Action, Budget, Decision, Effect, Facts, Kind, ObjectName, Operation, Principal, Protocol, Reach, Scope, SessionId, TableReach,
    Timestamp, TokenId, Undoability,
};
use reprieve_policy::{DecisionCache, Policy, Profile, Source, decide};

/// Decisions in each series.
const ROUNDS: usize = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let guard = Policy::build(Profile::Guard, &[])?;
    let observe = Policy::build(Profile::Observe, &[])?;
    let sorted = Policy::build(
        Profile::Guard,
        &[thousand(|number| match number % 4 {
            0 => format!("principal == Agent::\"agent-{number}\", action, resource"),
            1 => format!("principal is Agent, action, resource == Table::\"pocket/public.t{number}\""),
            2 => format!("principal is Agent, action == Action::\"destroy\", resource in System::\"system-{number}\""),
            _ => format!("principal == Agent::\"agent-{number}\", action == Action::\"write\", resource"),
        })],
    )?;
    let unsorted = Policy::build(Profile::Guard, &[thousand(|_| "principal is Agent, action, resource".to_owned())])?;
    let cache = DecisionCache::new(NonZeroUsize::new(4_096).ok_or("a size")?);
    let [read, write, commit] = [operation(Effect::Read { relation: ObjectName::bare("a") }, false)?, update(false)?, update(true)?];
    let mut report = serde_json::Map::new();
    for (name, operation) in [("read", &read), ("write", &write), ("commit", &commit)] {
        for (set, policy) in [("guard", &guard), ("observe", &observe), ("thousand", &sorted), ("thousand_unsorted", &unsorted)] {
            let rounds = if set == "thousand_unsorted" { ROUNDS / 20 } else { ROUNDS };
            report.insert(format!("{set}_{name}"), series(rounds, |round| decide(policy, operation, &facts(round))));
        }
        report.insert(format!("cached_{name}"), series(ROUNDS, |round| cache.decide(&guard, operation, &facts(round))));
    }
    println!("{}", serde_json::Value::Object(report));
    Ok(())
}

/// p50 and p99 in nanoseconds.
fn series(rounds: usize, mut decide: impl FnMut(u64) -> Decision) -> serde_json::Value {
    let mut times: Vec<u128> = (0..rounds)
        .map(|round| {
            let start = Instant::now();
            let decision = decide(round as u64);
            let time = start.elapsed().as_nanos();
            assert!(matches!(decision, Decision::Allow(_)), "{decision:?}");
            time
        })
        .collect();
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default() as u64;
    serde_json::json!({ "p50_ns": at(50), "p99_ns": at(99) })
}

fn thousand(head: impl Fn(usize) -> String) -> Source {
    let rule = |number: usize| {
        format!("@id(\"rule-{number}\")\nforbid ({})\nunless {{ context.approvals >= 2 || context.dropped < 1 }};\n", head(number))
    };
    // Heads without an agent's type are checked for operators too, whose requests have no such context: the head says `Agent`.
    Source { name: "thousand.cedar".to_owned(), text: (0..1_000).map(rule).collect() }
}

fn facts(round: u64) -> Facts {
    Facts {
        now: Timestamp(1_767_614_400_000 + round),
        frozen: false,
        approvals: 0,
        delayed: std::time::Duration::ZERO,
        window: std::time::Duration::ZERO,
        undoable: Undoability::None,
        budget: Budget::default(),
        rows_this_hour: round % 5_000,
        recovery: reprieve_operation::RecoveryFacts::default(),
    }
}

fn update(measured: bool) -> Result<Operation, Box<dyn std::error::Error>> {
    operation(Effect::Update { table: ObjectName::bare("a"), bounded: true }, measured)
}

fn operation(effect: Effect, measured: bool) -> Result<Operation, Box<dyn std::error::Error>> {
    let scope = Scope {
        kinds: [Kind::Read, Kind::Write, Kind::Destroy].into(),
        environments: ["production".parse()?].into(),
        systems: ["pocket".parse()?].into(),
        resources: ["*".parse()?].into(),
        rows_per_hour: None,
    };
    Ok(Operation {
        principal: Principal { agent: "cursor".parse()?, token: TokenId(1), on_behalf_of: None, scope: Arc::new(scope) },
        session: SessionId(1),
        system: "pocket".parse()?,
        environment: "production".parse()?,
        protocol: Protocol::Postgres,
        text: "UPDATE a SET b = 1 WHERE c = 2".into(),
        redacted: "UPDATE a SET b = $1 WHERE c = $2".into(),
        bound: None,
        parameters: None,
        action: if measured { Action::Commit } else { Action::SelfContained },
        effects: [effect].into(),
        rows_apart: 0,
        reach: measured.then(|| Reach {
            tables: [("public.a".to_owned(), TableReach { updated: 3, ..TableReach::default() })].into(),
            ..Reach::default()
        }),
    })
}
