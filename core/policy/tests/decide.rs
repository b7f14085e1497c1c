//! What `decide` answers, rule by rule.

use std::{num::NonZeroUsize, time::Duration};

mod common;

use common::*;
use reprieve_operation::*;
use reprieve_policy::{DecisionCache, Profile, decide};

#[test]
fn guard_lets_everyday_work_pass_and_asks_about_the_rest() {
    let guard = policy(Profile::Guard, &[]);
    assert!(guard.is_uniform());
    for (effects, reach, expected) in [
        (vec![], None, "allow"),
        (vec![read("a")], None, "allow"),
        (vec![call()], None, "allow up to 100"),
        (vec![insert("a")], None, "allow up to 100"),
        (vec![update("a", true), read("a")], None, "allow up to 100"),
        (vec![delete("a", true)], None, "allow up to 100"),
        (vec![delete("a", true)], Some(deleted(100)), "allow"),
        (vec![delete("a", true)], Some(deleted(101)), "hold: 1 approvals (rows-per-statement)"),
        (vec![delete("a", false)], None, "hold: 1 approvals (unbounded-changes)"),
        (vec![delete("a", false)], Some(deleted(12)), "allow"),
        (vec![delete("a", false)], Some(deleted(5_000)), "hold: 1 approvals (rows-per-statement)"),
        (vec![delete("a", false)], Some(Reach { estimated: true, ..deleted(12) }), "allow up to 100"),
        (vec![delete("a", false)], Some(Reach { estimated: true, ..deleted(1_200) }), "hold: 1 approvals (rows-per-statement)"),
        (vec![call()], Some(deleted(101)), "hold: 1 approvals (rows-per-statement)"),
        (vec![drop_table("a")], None, "hold: 1 approvals (dropped-relations)"),
        (vec![truncate("a")], None, "hold: 1 approvals (dropped-relations)"),
        (vec![drop_table("a")], Some(Reach::default()), "allow"),
        (vec![call()], Some(Reach { dropped: vec!["public.a".into()], ..Reach::default() }), "hold: 1 approvals (dropped-relations)"),
        (vec![call()], Some(Reach { rewritten: vec!["public.a".into()], ..Reach::default() }), "hold: 1 approvals (dropped-relations)"),
        (vec![Effect::Define { object: ObjectKind("table".into()), name: table("b") }], None, "allow up to 100"),
        (vec![call()], Some(Reach { catalogs: [("pg_class".into(), 3)].into(), ..Reach::default() }), "allow"),
        (vec![call()], Some(Reach { catalogs: [("pg_authid".into(), 1)].into(), ..Reach::default() }), "hold: 1 approvals (grants)"),
        (vec![grant()], None, "hold: 1 approvals (grants)"),
        (vec![escape()], None, "refuse (escapes-in-production)"),
        (vec![unknown()], None, "refuse (not-understood)"),
        (vec![read("a"), unknown()], None, "refuse (not-understood)"),
        (vec![delete("a", false), escape()], None, "refuse (escapes-in-production)"),
    ] {
        check(&guard, &operation("production", effects, reach), &facts(), expected);
    }
    check(&guard, &operation("staging", vec![escape()], None), &facts(), "hold: 1 approvals (escapes)");
    check(&guard, &operation("staging", vec![unknown()], None), &facts(), "refuse (not-understood)");
}

#[test]
fn what_needs_an_approval_is_not_destroyed_before_a_drill_has_passed() {
    let guard = policy(Profile::Guard, &[]);
    let unproven = Facts { recovery: RecoveryFacts { unproven: true, ..RecoveryFacts::default() }, ..facts() };
    let approved = Facts { approvals: 2, delayed: std::time::Duration::from_secs(1 << 30), ..unproven.clone() };
    for (effects, reach) in [
        (vec![drop_table("a")], None),
        (vec![truncate("a")], None),
        (vec![delete("a", false)], None),
        (vec![delete("a", true)], Some(deleted(101))),
        (vec![call()], Some(deleted(5_000))),
        (vec![call()], Some(Reach { dropped: vec!["public.a".into()], ..Reach::default() })),
    ] {
        for facts in [&unproven, &approved] {
            check(&guard, &operation("production", effects.clone(), reach.clone()), facts, "refuse (no-drill)");
        }
        let elsewhere = matches!(decide(&guard, &operation("staging", effects.clone(), reach.clone()), &approved), Decision::Allow(_));
        assert!(elsewhere, "staging is not asked for drills: {effects:?}");
    }
    // What needs nobody goes on, and so does what destroys nothing.
    check(&guard, &operation("production", vec![delete("a", true)], Some(deleted(100))), &unproven, "allow");
    check(
        &guard,
        &operation("production", vec![update("a", true)], Some(updated(5_000))),
        &unproven,
        "hold: 1 approvals (rows-per-statement)",
    );
    let own = r#"forbid (principal is Agent, action == Action::"write", resource) when { context.backup_age_s > 3600 || context.same_blast_radius };"#;
    let fresh = RecoveryFacts { backup_age: Some(std::time::Duration::from_secs(60)), ..RecoveryFacts::default() };
    let write = operation("production", vec![update("a", true)], Some(updated(1)));
    check(&policy(Profile::Guard, &[own]), &write, &Facts { recovery: fresh.clone(), ..facts() }, "allow");
    let near = RecoveryFacts { same_blast_radius: true, ..fresh };
    assert!(!matches!(decide(&policy(Profile::Guard, &[own]), &write, &Facts { recovery: near, ..facts() }), Decision::Allow(_)));
    assert!(
        !matches!(decide(&policy(Profile::Guard, &[own]), &write, &facts()), Decision::Allow(_)),
        "never copied is older than anything"
    );
}

#[test]
fn budgets_are_those_of_the_statement_the_transaction_the_hour_and_the_token() {
    let guard = policy(Profile::Guard, &[]);
    let write = operation("production", vec![update("a", true)], None);
    let commit = with_action(write.clone(), Action::Commit);
    let measured = |rows| operation("production", vec![update("a", true)], Some(updated(rows)));
    let after = |rows| Facts { rows_this_hour: rows, ..facts() };
    let apart = |rows, operation: Operation| Operation { rows_apart: rows, ..operation };
    check(&guard, &commit, &facts(), "allow up to 100");
    check(&guard, &apart(850, commit.clone()), &facts(), "allow up to 950");
    check(&guard, &apart(5_000, commit), &facts(), "allow up to 1000");
    let committed = |rows| with_action(measured(rows), Action::Commit);
    check(&guard, &committed(101), &facts(), "hold: 1 approvals (rows-per-statement)");
    check(&guard, &apart(900, committed(1_000)), &facts(), "allow");
    check(&guard, &apart(899, committed(1_000)), &facts(), "hold: 1 approvals (rows-per-statement)");
    check(&guard, &apart(5_000, committed(1_001)), &facts(), "hold: 1 approvals (rows-per-transaction)");
    check(&guard, &write, &after(9_950), "allow up to 50");
    check(&guard, &write, &after(10_000), "allow");
    check(&guard, &measured(1), &after(10_000), "hold: 1 approvals (rows-per-hour)");
    check(&guard, &measured(0), &after(20_000), "allow");
    check(&guard, &measured(50), &after(9_950), "allow");
    check(&guard, &measured(51), &after(9_950), "hold: 1 approvals (rows-per-hour)");
    check(&guard, &measured(u64::MAX), &after(u64::MAX), "hold: 1 approvals (rows-per-statement)");
    let small = Scope { rows_per_hour: Some(10), ..full_scope() };
    check(&guard, &with_scope(write.clone(), small.clone()), &facts(), "allow up to 10");
    check(&guard, &with_scope(measured(11), small), &facts(), "hold: 1 approvals (rows-per-hour)");
    let own = Facts { budget: Budget { rows_per_statement: 5, relations_dropped: 1, ..Budget::default() }, ..facts() };
    check(&guard, &measured(6), &own, "hold: 1 approvals (rows-per-statement)");
    let dropped = |count| Reach { dropped: (0..count).map(|number| format!("public.t{number}")).collect(), ..Reach::default() };
    check(&guard, &operation("production", vec![call()], Some(dropped(1))), &own, "allow");
    check(&guard, &operation("production", vec![call()], Some(dropped(2))), &own, "hold: 1 approvals (dropped-relations)");
}

#[test]
fn a_ceiling_is_only_given_where_any_change_below_it_is_allowed() {
    let guard = policy(Profile::Guard, &[]);
    let write = operation("production", vec![update("a", true)], None);
    for (kinds, resources, expected) in [
        (vec![Kind::Read, Kind::Write, Kind::Destroy], vec!["*"], "allow up to 100"),
        // A trigger may remove rows, or change another table.
        (vec![Kind::Read, Kind::Write], vec!["*"], "allow"),
        (vec![Kind::Read, Kind::Write, Kind::Destroy], vec!["public.*"], "allow"),
    ] {
        check(&guard, &with_scope(write.clone(), scope(&kinds, &resources)), &facts(), expected);
    }
    let four_eyes = r#"forbid (principal is Agent, action == Action::"destroy", resource) unless { context.approvals >= 2 };"#;
    check(&policy(Profile::Guard, &[four_eyes]), &write, &facts(), "allow");
    let table = r#"forbid (principal is Agent, action == Action::"write", resource == Table::"pocket/public.b");"#;
    check(&policy(Profile::Guard, &[table]), &write, &facts(), "allow");
    let weighs = r#"forbid (principal is Agent, action == Action::"write", resource) when { context.measured && context.rows < 5 };"#;
    check(&policy(Profile::Guard, &[weighs]), &write, &facts(), "allow");
}

#[test]
fn scopes_are_kept_in_every_profile() {
    for profile in Profile::ALL {
        let policy = policy(profile, &[]);
        let narrow =
            |kinds: &[Kind], effects: Vec<Effect>, reach| with_scope(operation("production", effects, reach), scope(kinds, &["public.a"]));
        let approved = Facts { approvals: 9, undoable: Undoability::Secured, ..facts() };
        for operation in [
            narrow(&[Kind::Read], vec![read("b")], None),
            narrow(&[Kind::Read], vec![read("a"), read("b")], None),
            narrow(&[Kind::Write], vec![read("a")], None),
            narrow(&[Kind::Read], vec![Effect::Read { relation: ObjectName::qualified("other", "a") }], None),
            narrow(
                &[Kind::Read, Kind::Destroy],
                vec![call()],
                Some(rows_in("public.b", TableReach { deleted: 1, ..TableReach::default() })),
            ),
            narrow(&[Kind::Read, Kind::Write], vec![call()], Some(deleted(1))),
            narrow(
                &[Kind::Read, Kind::Destroy],
                vec![Effect::Drop { object: ObjectKind("schema".into()), name: table("public"), cascade: true }],
                None,
            ),
            with_scope(operation("development", vec![read("a")], None), full_scope()),
        ] {
            check(&policy, &operation, &approved, "refuse (scope)");
        }
        check(&policy, &narrow(&[Kind::Read], vec![read("a")], None), &approved, "allow");
    }
    let guard = policy(Profile::Guard, &[]);
    let decision = reprieve_policy::decide(
        &guard,
        &with_scope(operation("production", vec![read("b\n\u{1b}[2J")], None), scope(&[], &["*"])),
        &facts(),
    );
    let Decision::Refuse(refusal) = decision else { panic!("{decision:?}") };
    assert_eq!(refusal.reason, r"the token does not cover `read` on `public.b\n\u{1b}[2J` in `pocket`");
}

#[test]
fn frozen_is_frozen() {
    let frozen = Facts { frozen: true, approvals: 9, ..facts() };
    for profile in Profile::ALL {
        for effects in [vec![], vec![read("a")], vec![update("a", true)], vec![unknown()]] {
            check(&policy(profile, &[]), &operation("production", effects, None), &frozen, "frozen (frozen)");
        }
    }
}

#[test]
fn observe_holds_nothing_and_says_what_guard_would_have_done() {
    let observe = policy(Profile::Observe, &[r#"@id("no-b") forbid (principal is Agent, action, resource == Table::"pocket/public.b");"#]);
    for (effects, reach, expected) in [
        (vec![read("a")], None, "allow"),
        (vec![update("a", true)], None, "allow"),
        (vec![delete("a", false)], None, "allow, would have hold (rule `unbounded-changes`)"),
        (vec![delete("a", true)], Some(deleted(500)), "allow, would have hold (rule `rows-per-statement`)"),
        (vec![unknown()], None, "allow, would have refuse (rule `not-understood`)"),
        (vec![read("b")], None, "allow, would have refuse (rule `no-b`)"),
    ] {
        check(&observe, &operation("production", effects, reach), &facts(), expected);
    }
}

#[test]
fn lockdown_lets_reads_pass() {
    let lockdown = policy(Profile::Lockdown, &[include_str!("../examples/allow-all.cedar")]);
    let approved = Facts { approvals: 9, undoable: Undoability::Secured, ..facts() };
    for (effects, reach, expected) in [
        (vec![read("a")], None, "allow"),
        (vec![call()], None, "allow"),
        (vec![call()], Some(updated(1)), "refuse (reads-only)"),
        (vec![insert("a")], None, "refuse (reads-only)"),
        (vec![grant()], None, "refuse (reads-only)"),
        (vec![escape()], None, "refuse (reads-only)"),
        (vec![unknown()], None, "refuse (reads-only)"),
    ] {
        check(&lockdown, &operation("staging", effects, reach), &approved, expected);
    }
}

#[test]
fn the_cheapest_facts_that_lift_a_rule_are_asked_for() {
    let of = |condition: &str| {
        policy(
            Profile::Guard,
            &[&format!("@id(\"x\") forbid (principal is Agent, action == Action::\"read\", resource) unless {{ {condition} }};")],
        )
    };
    let read = operation("production", vec![read("a")], None);
    for (condition, expected) in [
        ("context.undoable || context.delay_s >= 60 || context.approvals >= 1", "hold: undo (x)"),
        ("context.delay_s >= 60 || context.delay_s >= 3600 || context.approvals >= 1", "hold: 60 s (x)"),
        ("context.delay_s >= 60 && context.undoable || context.approvals >= 1", "hold: 60 s undo (x)"),
        ("context.approvals >= 1 && context.undoable || context.approvals >= 2", "hold: 1 approvals undo (x)"),
        ("context.approvals >= 2", "hold: 2 approvals (x)"),
        ("context.approvals >= 2 && context.delay_s > 59", "refuse (x)"),
        ("context.approvals >= 3", "refuse (x)"),
        ("context.commit", "refuse (x)"),
        ("context.hour_utc == 12 && context.weekday == 1", "allow"),
    ] {
        check(&of(condition), &read, &Facts { undoable: Undoability::None, ..facts() }, expected);
    }
    let needs_both = of("context.approvals >= 1 && context.undoable");
    check(&needs_both, &read, &Facts { undoable: Undoability::Impossible, ..facts() }, "refuse (x)");
    check(&of("context.approvals >= 2"), &read, &Facts { approvals: 1, ..facts() }, "hold: 2 approvals (x)");
    check(&needs_both, &read, &Facts { approvals: 1, undoable: Undoability::None, ..facts() }, "hold: undo (x)");
    // A rule that nothing lifts is the reason given, whichever other rules apply too.
    let never = r#"@id("never") forbid (principal is Agent, action == Action::"destroy", resource);"#;
    check(&policy(Profile::Guard, &[never]), &operation("production", vec![delete("a", false)], None), &facts(), "refuse (never)");
}

#[test]
fn users_rules_narrow_by_agent_environment_and_table() {
    let rules = policy(
        Profile::Guard,
        &[
            include_str!("../examples/narrower.cedar"),
            r#"@id("not-cursor") forbid (principal == Agent::"cursor", action == Action::"grant", resource in System::"pocket");"#,
            r#"@id("billing") forbid (principal is Agent, action == Action::"read", resource is Table) when { resource.schema == "billing" && resource.name like "card*" };"#,
            r#"@id("other") forbid (principal == Agent::"other", action, resource);"#,
        ],
    );
    assert!(!rules.is_uniform());
    let night = Facts { now: Timestamp(1_767_614_400_000 - 9 * 3_600_000), ..facts() };
    let cards = |name: &str| vec![Effect::Read { relation: ObjectName::qualified("billing", name) }];
    let rows = |name: &str, rows| Some(rows_in(name, TableReach { deleted: rows, ..TableReach::default() }));
    for (environment, effects, reach, facts, expected) in [
        ("production", vec![delete("payments", true)], None, facts(), "hold: 2 approvals (payments-four-eyes)"),
        ("production", vec![call()], rows("public.payments", 1), facts(), "hold: 2 approvals (payments-four-eyes)"),
        ("production", vec![delete("b", true)], rows("public.b", 10), facts(), "allow"),
        (
            "production",
            vec![delete("b", true)],
            rows("public.b", 11),
            Facts { undoable: Undoability::None, ..facts() },
            "hold: undo (no-way-back)",
        ),
        ("production", vec![update("b", true)], None, night.clone(), "hold: 3600 s (night)"),
        ("staging", vec![update("b", true)], None, night, "allow"),
        ("production", vec![grant()], None, facts(), "refuse (not-cursor)"),
        ("production", cards("cards"), None, facts(), "refuse (billing)"),
        ("production", cards("bills"), None, facts(), "allow"),
        ("production", vec![read("cards")], None, facts(), "allow"),
    ] {
        check(&rules, &operation(environment, effects, reach), &facts, expected);
    }
}

#[test]
fn a_policy_that_errs_refuses() {
    // Cedar itself would skip these, also a `forbid`, and allow.
    for effect in ["permit", "forbid"] {
        let text =
            format!("@id(\"overflow\") {effect} (principal is Agent, action, resource) when {{ context.rows * 9223372036854775807 < 0 }};");
        for profile in [Profile::Guard, Profile::Lockdown] {
            let broken = policy(profile, &[&text]);
            let write = operation("production", vec![update("a", true)], Some(updated(2)));
            check(&broken, &write, &Facts { approvals: 9, ..facts() }, "unavailable (policy-error)");
        }
    }
}

#[test]
fn too_many_tables_are_refused() {
    let effects = (0..5_000).map(|number| read(&format!("t{number}"))).collect();
    check(&policy(Profile::Guard, &[]), &operation("production", effects, None), &facts(), "refuse (too-many-resources)");
}

#[test]
fn a_reason_tells_the_numbers() {
    let guard = policy(Profile::Guard, &[]);
    let decision = reprieve_policy::decide(&guard, &operation("production", vec![delete("a", true)], Some(deleted(101))), &facts());
    let Decision::Needs(needs) = decision else { panic!("{decision:?}") };
    assert_eq!(needs.reason, "it changes 101 rows; 100 in one statement pass without being asked");
}

#[test]
fn what_no_rule_looks_at_does_not_make_a_decision_anew() {
    for profile in [Profile::Guard, Profile::Observe, Profile::Lockdown] {
        let policy = policy(profile, &[]);
        let cache = DecisionCache::new(NonZeroUsize::MIN.saturating_add(100));
        let write = operation("production", vec![update("a", true)], None);
        for round in 0..20 {
            let recovery = RecoveryFacts { backup_age: Some(Duration::from_millis(round)), ..RecoveryFacts::default() };
            let facts = Facts { now: Timestamp(facts().now.0 + round), rows_this_hour: round, recovery, ..facts() };
            let _decision = cache.decide(&policy, &write, &facts);
        }
        assert_eq!(cache.hits_and_misses(), (19, 1), "{profile:?}");
    }
}

#[test]
fn channels_open_by_an_approval_or_by_a_permit_that_says_so() {
    let invoke = |kind: Kind, hazards: &[Hazard]| Effect::Invoke {
        operation: "any:GET /updates".into(),
        kind,
        resource: None,
        hazards: hazards.iter().copied().collect(),
    };
    let becomes = invoke(Kind::Unknown, &[Hazard::Channel]);
    let reach = Reach { tables: [("*".to_owned(), TableReach { updated: 1, ..TableReach::default() })].into(), ..Reach::default() };
    let ask = |effects: Vec<Effect>| Operation { protocol: Protocol::Http, ..operation("production", effects, Some(reach.clone())) };
    let opens = || ask(vec![invoke(Kind::Read, &[]), becomes.clone()]);
    let lasting = Facts { undoable: Undoability::Impossible, ..facts() };
    let guard = policy(Profile::Guard, &[]);
    check(&guard, &opens(), &lasting, "hold: 1 approvals (channels)");
    let own = |text: &str| policy(Profile::Guard, &[text]);
    let open = own("permit (principal == Agent::\"cursor\", action, resource in System::\"pocket\") when { context.channel };");
    check(&open, &opens(), &lasting, "allow");
    // Others' channels, and what is more than a channel, are asked about as before.
    let other = own("permit (principal == Agent::\"other\", action, resource) when { context.channel };");
    check(&other, &opens(), &lasting, "hold: 1 approvals (channels)");
    for more in [invoke(Kind::Write, &[]), invoke(Kind::Unknown, &[]), unknown()] {
        check(&open, &ask(vec![more, becomes.clone()]), &lasting, "hold: 1 approvals (calls-not-understood)");
    }
    check(&open, &ask(vec![invoke(Kind::Read, &[Hazard::Code]), becomes.clone()]), &lasting, "hold: 1 approvals (calls-not-understood)");
    // A permit for everything was not written for channels, and no permit lifts what is forbidden.
    check(&own("permit (principal is Agent, action, resource);"), &opens(), &lasting, "hold: 1 approvals (channels)");
    let closed = own(
        "permit (principal is Agent, action, resource) when { context.channel }; forbid (principal is Agent, action, resource) when { context.channel };",
    );
    check(&closed, &opens(), &lasting, "refuse (0.cedar#2)");
    check(
        &policy(Profile::Lockdown, &["permit (principal is Agent, action, resource) when { context.channel };"]),
        &opens(),
        &lasting,
        "refuse (reads-only)",
    );
}
