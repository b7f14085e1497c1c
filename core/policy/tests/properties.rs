//! What holds for every operation, under all facts.

mod common;

use std::{num::NonZeroUsize, time::Duration};

use common::*;
use proptest::{collection::vec, prelude::*, sample::select};
use reprieve_operation::*;
use reprieve_policy::{DecisionCache, Policy, Profile, decide};

fn some_name() -> impl Strategy<Value = ObjectName> {
    (select(vec!["a", "b", "", "odd\"name\n"]), select(vec![None, Some("public"), Some("other")]))
        .prop_map(|(name, schema)| ObjectName { schema: schema.map(str::to_owned), name: name.to_owned() })
}

fn some_effect() -> impl Strategy<Value = Effect> {
    let object = select(vec!["table", "schema", "function", "extension"]).prop_map(|kind| ObjectKind(kind.to_owned()));
    prop_oneof![
        some_name().prop_map(|relation| Effect::Read { relation }),
        some_name().prop_map(|table| Effect::Insert { table }),
        (some_name(), any::<bool>()).prop_map(|(table, bounded)| Effect::Update { table, bounded }),
        (some_name(), any::<bool>()).prop_map(|(table, bounded)| Effect::Delete { table, bounded }),
        (object.clone(), some_name()).prop_map(|(object, name)| Effect::Define { object, name }),
        (object, some_name(), any::<bool>()).prop_map(|(object, name, cascade)| Effect::Drop { object, name, cascade }),
        (some_name(), any::<bool>()).prop_map(|(table, cascade)| Effect::Rewrite { table, how: Rewrite::Truncate, cascade }),
        some_name().prop_map(|function| Effect::Call { function }),
        Just(Effect::Session { what: "search_path".into() }),
        Just(grant()),
        Just(escape()),
        Just(unknown()),
    ]
}

fn some_rows() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..20, 3 => 90_u64..110, 2 => 900_u64..20_000, 1 => 0..=u64::MAX >> 2]
}

fn some_reach() -> impl Strategy<Value = Reach> {
    let rows = (some_rows(), some_rows(), some_rows()).prop_map(|(inserted, updated, deleted)| TableReach { inserted, updated, deleted });
    let name = || select(vec!["public.a", "public.b", "other.a", "nowhere", ""]).prop_map(str::to_owned);
    let few = || vec(name(), 0..2);
    let catalogs = proptest::collection::btree_map(select(vec!["pg_class", "pg_authid"]).prop_map(str::to_owned), 0_u64..3, 0..2);
    let escapes = vec(Just("a cursor".to_owned()), 0..2);
    (proptest::collection::btree_map(name(), rows, 0..3), few(), few(), catalogs, escapes, any::<bool>()).prop_map(
        |(tables, dropped, rewritten, catalogs, escapes, estimated)| Reach {
            tables,
            dropped,
            rewritten,
            catalogs,
            escapes,
            lasting: Vec::new(),
            found: Vec::new(),
            estimated,
        },
    )
}

fn some_scope() -> impl Strategy<Value = Scope> {
    let kinds = proptest::sample::subsequence(vec![Kind::Read, Kind::Write, Kind::Destroy, Kind::Grant], 0..=4);
    let resources = select(vec![vec!["*"], vec!["public.*"], vec!["public.a"], vec![]]);
    let narrow = (kinds, resources, proptest::option::of(some_rows()))
        .prop_map(|(kinds, resources, rows_per_hour)| Scope { rows_per_hour, ..scope(&kinds, &resources) });
    prop_oneof![Just(full_scope()), narrow]
}

fn some_operation() -> impl Strategy<Value = Operation> {
    let action = select(vec![Action::SelfContained, Action::InSession, Action::Commit]);
    let environment = select(vec!["production", "staging", "elsewhere"]);
    (environment, vec(some_effect(), 0..4), proptest::option::of(some_reach()), some_scope(), action).prop_map(
        |(environment, effects, reach, scope, action)| with_action(with_scope(operation(environment, effects, reach), scope), action),
    )
}

fn some_facts() -> impl Strategy<Value = Facts> {
    let budget = (some_rows(), some_rows(), some_rows(), 0_u64..3, some_rows()).prop_map(
        |(rows_per_statement, rows_per_transaction, rows_per_hour, relations_dropped, rows_without_undo)| Budget {
            rows_per_statement,
            rows_per_transaction,
            rows_per_hour,
            relations_dropped,
            rows_without_undo,
        },
    );
    let budget = prop_oneof![Just(Budget::default()), budget];
    let undoable = select(vec![Undoability::None, Undoability::Secured, Undoability::Impossible]);
    (any::<u64>(), prop::bool::weighted(0.1), 0_u32..4, 0_u64..9_000, undoable, budget, some_rows()).prop_map(
        |(now, frozen, approvals, delay, undoable, budget, rows_this_hour)| Facts {
            now: Timestamp(now),
            frozen,
            approvals,
            delayed: Duration::from_secs(delay),
            window: Duration::from_secs(delay % 7_200),
            undoable,
            budget,
            rows_this_hour,
            recovery: RecoveryFacts { unproven: now % 2 == 1, ..RecoveryFacts::default() },
        },
    )
}

/// Every profile alone, and with each of these users' sets.
fn policies() -> Vec<(Policy, Profile, &'static str)> {
    let sets = ["", include_str!("../examples/allow-all.cedar"), include_str!("../examples/narrower.cedar")];
    let build = |profile, text: &'static str| (policy(profile, &[text]), profile, text);
    Profile::ALL.into_iter().flat_map(|profile| sets.map(|text| build(profile, text))).collect()
}

/// How much a decision gives: more is laxer.
fn rank(decision: &Decision) -> u8 {
    match decision {
        Decision::Refuse(_) => 0,
        Decision::Needs(_) => 1,
        Decision::Allow(_) => 2,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_never_happens(operation in some_operation(), facts in some_facts()) {
        for (policy, profile, text) in POLICIES.iter() {
            let decision = decide(policy, &operation, &facts);
            // The same input gives the same answer, also from memory.
            prop_assert_eq!(&decide(policy, &operation, &facts), &decision);
            prop_assert_eq!(&CACHE.decide(policy, &operation, &facts), &decision);
            prop_assert_eq!(&CACHE.decide(policy, &operation, &facts), &decision);
            if facts.frozen {
                prop_assert!(matches!(&decision, Decision::Refuse(refusal) if refusal.kind == RefusalKind::Frozen && refusal.rule == "frozen"));
            } else if !in_scope(&operation) {
                prop_assert!(matches!(&decision, Decision::Refuse(refusal) if refusal.kind == RefusalKind::Refused && refusal.rule == "scope"));
            }
            // A user's files never give more than the profile alone.
            let alone = POLICIES.iter().find(|(_, other, text)| other == profile && text.is_empty()).expect("each profile is there alone");
            prop_assert!(rank(&decision) <= rank(&decide(&alone.0, &operation, &facts)), "{:?}", text);
            // More approvals, time and a way back never give less.
            let more = Facts { approvals: facts.approvals + 1, undoable: Undoability::Secured, delayed: facts.delayed * 2, ..facts.clone() };
            prop_assert!(rank(&decide(policy, &operation, &more)) >= rank(&decision));
            match &decision {
                // What is needed is enough.
                Decision::Needs(needs) => {
                    let granted = Facts {
                        approvals: facts.approvals.max(needs.approvals),
                        delayed: facts.delayed.max(needs.delay),
                        undoable: if needs.undo { Undoability::Secured } else { facts.undoable },
                        ..facts.clone()
                    };
                    prop_assert!(granted != facts);
                    prop_assert!(matches!(decide(policy, &operation, &granted), Decision::Allow(_)));
                }
                Decision::Allow(terms) => {
                    prop_assert!(!terms.because.is_empty());
                    if *profile != Profile::Observe {
                        prop_assert!(!operation.kinds().contains(&Kind::Unknown));
                    }
                }
                Decision::Refuse(refusal) => prop_assert!(!refusal.reason.is_empty() && !refusal.remedy.is_empty()),
            }
        }
    }

    /// What a ceiling promises: any change of rows below it, of whatever tables, is allowed once it is measured.
    #[test]
    fn below_its_ceiling_nothing_is_asked(mut operation in some_operation(), facts in some_facts(), share in 0_u64..=100, table in "[a-z]{1,3}\\.[a-z]{1,3}", is_deleted: bool) {
        let own_escapes = operation.effects.to_vec();
        operation.reach = None;
        for (policy, _, _) in POLICIES.iter() {
            let Decision::Allow(Terms { ceiling: Some(ceiling), undoable_only, .. }) = decide(policy, &operation, &facts) else { continue };
            let undoable = if undoable_only { Undoability::Secured } else { Undoability::Impossible };
            let facts = Facts { undoable, ..facts.clone() };
            let rows = if share == 100 { ceiling } else { ceiling / 100 * share };
            let rows = if is_deleted { TableReach { deleted: rows, ..TableReach::default() } } else { TableReach { updated: rows, ..TableReach::default() } };
            let mut measured = operation.clone();
            measured.reach = Some(rows_in(&table, rows));
            prop_assert!(matches!(decide(policy, &measured, &facts), Decision::Allow(_)), "{:?}", own_escapes);
        }
    }

    /// Cedar skips a policy that errs; here nothing is allowed then.
    #[test]
    fn a_set_that_errs_never_allows(operation in some_operation(), facts in some_facts()) {
        for policy in ERRING.iter() {
            prop_assert!(matches!(decide(policy, &operation, &facts), Decision::Refuse(_)));
        }
    }

    #[test]
    fn no_text_panics(text in "(permit|forbid|\\(|\\)|principal|action|resource|context\\.rows|when|\\{|\\}|@id|\"a\"|;|,| |é|\u{0}|[a-z=.!&|0-9]){0,40}") {
        if let Err(error) = Policy::build(Profile::Guard, &[source("a", &text)]) {
            prop_assert!(!error.problems.is_empty());
        }
    }
}

static POLICIES: std::sync::LazyLock<Vec<(Policy, Profile, &'static str)>> = std::sync::LazyLock::new(policies);

/// Shared by all cases: an entry that answers another question than its own would show.
static CACHE: std::sync::LazyLock<DecisionCache> =
    std::sync::LazyLock::new(|| DecisionCache::new(NonZeroUsize::new(2_000).expect("not zero")));

static ERRING: std::sync::LazyLock<Vec<Policy>> = std::sync::LazyLock::new(|| {
    let text =
        |effect| format!("{effect} (principal is Agent, action, resource) when {{ (context.approvals + 2) * 9223372036854775807 < 0 }};");
    let profiles = [Profile::Guard, Profile::Lockdown].into_iter();
    profiles.flat_map(|profile| ["permit", "forbid"].map(|effect| policy(profile, &[&text(effect)]))).collect()
});

/// Written independently of the code under test, as far as a scope of whole words goes.
fn in_scope(operation: &Operation) -> bool {
    let scope = &operation.principal.scope;
    let reached = operation.reach.iter().flat_map(|reach| {
        let rows = reach.tables.iter().flat_map(|(name, rows)| {
            let destroyed = (rows.deleted > 0).then_some((Kind::Destroy, Some(name.clone())));
            let written = (rows.inserted > 0 || rows.updated > 0).then_some((Kind::Write, Some(name.clone())));
            destroyed.into_iter().chain(written)
        });
        rows.chain(reach.dropped.iter().chain(&reach.rewritten).map(|name| (Kind::Destroy, Some(name.clone()))))
    });
    let named = operation.effects.iter().map(|effect| {
        let object = match effect {
            Effect::Define { object, .. } | Effect::Drop { object, .. } => object.0.as_str(),
            _ => "",
        };
        let name = effect.relation().filter(|name| !name.name.is_empty()).map(|name| match (object, &name.schema) {
            ("schema", _) => format!("{}.*", name.name),
            ("extension", None) => name.name.clone(),
            (_, schema) => format!("{}.{}", schema.as_deref().unwrap_or("public"), name.name),
        });
        (effect.kind(), name)
    });
    let touches: Vec<(Kind, Option<String>)> = reached.chain(named).collect();
    let unnamed = operation.kinds().into_iter().map(|kind| (kind, None));
    let nothing = (touches.is_empty() && operation.kinds().is_empty()).then_some((Kind::Read, None));
    touches
        .iter()
        .cloned()
        .chain(unnamed)
        .chain(nothing)
        .all(|(kind, name)| scope.covers(kind, &operation.environment, &operation.system, name.as_deref()))
}
