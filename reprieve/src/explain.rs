//! `reprieve explain sql`: how a text is understood and what the rules say to it, without running it.

use std::{collections::BTreeSet, io::BufRead as _, sync::Arc, time::Duration};

use anyhow::Context as _;
use reprieve_audit::SystemClock;
use reprieve_effects_sql::{Class, Control, analyze, redact};
use reprieve_gate::Clock as _;
use reprieve_operation::{
    Action, Decision, Effect, Environment, Facts, Kind, Operation, Principal, Protocol, Scope, SessionId, SystemName, TokenId, Undoability,
};
use reprieve_policy::{Policy, decide};
use serde_json::{Value, json};

use crate::{settings::Settings, wire};

pub(crate) fn explain(settings: &Settings, environment: &Environment) -> anyhow::Result<u8> {
    let policy = wire::read_policy(settings)?;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read standard input")?;
        if line.trim().is_empty() {
            continue;
        }
        let given: Option<Value> = serde_json::from_str(&line).ok().filter(Value::is_object);
        let field = |name: &str| given.as_ref().and_then(|given| given.get(name)).and_then(Value::as_str).map(str::to_owned);
        let text = field("text").unwrap_or_else(|| line.clone());
        let system = field("system");
        let environment = match system.as_deref().map(|name| settings.system(name)) {
            Some(Ok(system)) => system.environment.clone(),
            Some(Err(_)) => Environment::production(),
            None => environment.clone(),
        };
        tell!("{}", verdict(settings, &policy, &text, system.as_deref(), &environment));
    }
    Ok(0)
}

/// What is known from the text alone, for a token that covers everything: what calls code is held here, since only running it tells.
fn verdict(settings: &Settings, policy: &Policy, text: &str, system: Option<&str>, environment: &Environment) -> Value {
    let analysis = analyze(text);
    let mut effects: Vec<Effect> = Vec::new();
    for statement in &analysis.statements {
        effects.extend(statement.effects.iter().filter(|effect| !effects.contains(effect)).cloned().collect::<Vec<_>>());
    }
    let classes: Vec<String> = analysis.statements.iter().map(|statement| format!("{:?}", statement.class).to_lowercase()).collect();
    let system: SystemName = system.and_then(|name| name.parse().ok()).unwrap_or_else(|| "any".parse().expect("`any` is a name"));
    let scope = Scope {
        kinds: BTreeSet::from([Kind::Read, Kind::Write, Kind::Destroy, Kind::Grant]),
        environments: BTreeSet::from([environment.clone()]),
        systems: BTreeSet::from([system.clone()]),
        resources: BTreeSet::from(["*".parse().expect("`*` is a pattern")]),
        rows_per_hour: None,
    };
    let operation = Operation {
        principal: Principal { agent: "explain".parse().expect("a name"), token: TokenId(0), on_behalf_of: None, scope: Arc::new(scope) },
        session: SessionId(0),
        system,
        environment: environment.clone(),
        protocol: Protocol::Postgres,
        text: text.into(),
        redacted: redact(text).into(),
        bound: None,
        parameters: None,
        action: Action::SelfContained,
        effects: effects.clone().into(),
        rows_apart: 0,
        reach: None,
    };
    let facts = Facts {
        now: SystemClock.now(),
        frozen: false,
        approvals: 0,
        delayed: Duration::ZERO,
        window: Duration::ZERO,
        undoable: Undoability::None,
        budget: settings.budget.get(environment).copied().unwrap_or_default(),
        rows_this_hour: 0,
        recovery: reprieve_operation::RecoveryFacts::default(),
    };
    let control = analysis.statements.iter().all(|statement| {
        matches!(statement.class, Class::Session)
            || matches!(statement.class, Class::Control(control) if !matches!(control, Control::PrepareTransaction | Control::CommitPrepared | Control::RollbackPrepared))
    });
    let (verdict, rule, reason) = match decide(policy, &operation, &facts) {
        Decision::Allow(terms) => match unknown_code(&effects) {
            Some(reason) if !control => ("hold", None, reason),
            _ => ("allow", None, terms.because.join(", ")),
        },
        Decision::Needs(needs) => ("hold", Some(needs.rule), needs.reason),
        Decision::Refuse(refusal) => ("refuse", Some(refusal.rule), refusal.reason),
    };
    let measured = operation.may_change();
    json!({ "effects": effects, "classes": classes, "verdict": verdict, "rule": rule, "reason": reason, "measured": measured })
}

/// Blocks and procedures may do anything, and the text doesn't tell.
fn unknown_code(effects: &[Effect]) -> Option<String> {
    effects.iter().find_map(|effect| match effect {
        Effect::Call { function } if matches!(function.name.as_str(), "DO" | "do") || function.name.starts_with("EXECUTE") => {
            Some(format!("`{function}` may do anything: it is run and measured before it is final, and held when it does too much"))
        }
        _ => None,
    })
}
