//! What `decide` answers, rule by rule.

mod common;

use common::*;
use reprieve_operation::*;
use reprieve_policy::Profile;

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
