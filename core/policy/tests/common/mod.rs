//! What the tests of `decide` share: operations and facts in few words.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test program uses its part, and nobody else does")]

use std::{sync::Arc, time::Duration};

use reprieve_operation::*;
use reprieve_policy::{Policy, Profile, Source, decide};

/// A scope of `kinds` on `resources` of the system `pocket`.
pub fn scope(kinds: &[Kind], resources: &[&str]) -> Scope {
    Scope {
        kinds: kinds.iter().copied().collect(),
        environments: ["production", "staging"].iter().map(|name| name.parse().expect("a name")).collect(),
        systems: ["pocket".parse().expect("a name")].into(),
        resources: resources.iter().map(|text| text.parse().expect("a pattern")).collect(),
        rows_per_hour: None,
    }
}

/// A scope of everything a token can cover.
pub fn full_scope() -> Scope {
    scope(&[Kind::Read, Kind::Write, Kind::Destroy, Kind::Grant], &["*"])
}

/// An operation of the agent `cursor` on the system `pocket`.
pub fn operation(environment: &str, effects: Vec<Effect>, reach: Option<Reach>) -> Operation {
    Operation {
        principal: Principal {
            agent: "cursor".parse().expect("a name"),
            token: TokenId(1),
            on_behalf_of: None,
            scope: Arc::new(full_scope()),
        },
        session: SessionId(1),
        system: "pocket".parse().expect("a name"),
        environment: environment.parse().expect("a name"),
        protocol: Protocol::Postgres,
        text: "the text is not looked at".into(),
        redacted: "the text is not looked at".into(),
        bound: None,
        parameters: None,
        action: Action::SelfContained,
        effects: effects.into(),
        rows_apart: 0,
        reach,
    }
}

/// The same with another scope.
pub fn with_scope(mut operation: Operation, scope: Scope) -> Operation {
    operation.principal.scope = Arc::new(scope);
    operation
}

/// The same as another action.
pub fn with_action(mut operation: Operation, action: Action) -> Operation {
    operation.action = action;
    operation
}

/// Facts with nothing special about them: noon of Monday, 5 January 2026, UTC.
pub fn facts() -> Facts {
    Facts {
        now: Timestamp(1_767_614_400_000),
        frozen: false,
        approvals: 0,
        delayed: Duration::ZERO,
        window: Duration::ZERO,
        undoable: Undoability::Secured,
        budget: Budget::default(),
        rows_this_hour: 0,
        recovery: RecoveryFacts::default(),
    }
}

pub fn table(name: &str) -> ObjectName {
    ObjectName::bare(name)
}

pub fn read(name: &str) -> Effect {
    Effect::Read { relation: table(name) }
}

pub fn insert(name: &str) -> Effect {
    Effect::Insert { table: table(name) }
}

pub fn update(name: &str, bounded: bool) -> Effect {
    Effect::Update { table: table(name), bounded }
}

pub fn delete(name: &str, bounded: bool) -> Effect {
    Effect::Delete { table: table(name), bounded }
}

pub fn drop_table(name: &str) -> Effect {
    Effect::Drop { object: ObjectKind("table".into()), name: table(name), cascade: false }
}

pub fn truncate(name: &str) -> Effect {
    Effect::Rewrite { table: table(name), how: Rewrite::Truncate, cascade: false }
}

pub fn grant() -> Effect {
    Effect::Grant { what: "gives rights to `x`".into() }
}

pub fn escape() -> Effect {
    Effect::Escape { what: "runs a program".into() }
}

pub fn unknown() -> Effect {
    Effect::Unknown { because: "it does not parse".into() }
}

pub fn call() -> Effect {
    Effect::Call { function: table("f") }
}

pub fn deleted(rows: u64) -> Reach {
    rows_in("public.a", TableReach { deleted: rows, ..TableReach::default() })
}

pub fn updated(rows: u64) -> Reach {
    rows_in("public.a", TableReach { updated: rows, ..TableReach::default() })
}

pub fn rows_in(name: &str, rows: TableReach) -> Reach {
    Reach { tables: [(name.to_owned(), rows)].into(), ..Reach::default() }
}

pub fn source(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned() }
}

pub fn policy(profile: Profile, texts: &[&str]) -> Policy {
    let sources: Vec<Source> = texts.iter().enumerate().map(|(number, text)| source(&format!("{number}.cedar"), text)).collect();
    Policy::build(profile, &sources).unwrap_or_else(|error| panic!("{error}"))
}

/// A decision in one line.
pub fn in_words(decision: &Decision) -> String {
    match decision {
        Decision::Allow(terms) => {
            let ceiling = terms.ceiling.map(|rows| format!(" up to {rows}")).unwrap_or_default();
            let would_have =
                terms.would_have.as_deref().and_then(|text| text.split(')').next()).map(|text| format!(", would have {text})"));
            format!("allow{ceiling}{}", would_have.unwrap_or_default())
        }
        Decision::Needs(needs) => {
            let mut text = "hold:".to_owned();
            if needs.approvals > 0 {
                text.push_str(&format!(" {} approvals", needs.approvals));
            }
            if !needs.delay.is_zero() {
                text.push_str(&format!(" {} s", needs.delay.as_secs()));
            }
            if needs.undo {
                text.push_str(" undo");
            }
            format!("{text} ({})", needs.rule)
        }
        Decision::Refuse(refusal) => match refusal.kind {
            RefusalKind::Refused => format!("refuse ({})", refusal.rule),
            RefusalKind::Frozen => format!("frozen ({})", refusal.rule),
            RefusalKind::Unavailable => format!("unavailable ({})", refusal.rule),
            RefusalKind::Held => format!("held ({})", refusal.rule),
        },
    }
}

#[track_caller]
pub fn check(policy: &Policy, operation: &Operation, facts: &Facts, expected: &str) {
    let decision = decide(policy, operation, facts);
    assert_eq!(in_words(&decision), expected, "{decision:?}");
}
