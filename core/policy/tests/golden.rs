//! Who may do what: a table of decisions, so that a review sees a rule change what it does.
//!
//! `UPDATE_GOLDEN=1 cargo test -p reprieve-policy --test golden` writes it anew.

mod common;

use std::fmt::Write as _;

use common::*;
use reprieve_operation::*;
use reprieve_policy::{Profile, decide};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/who-may-do-what.txt");

/// What an agent may try, in words.
fn tries() -> Vec<(&'static str, Vec<Effect>, Option<Reach>, Action)> {
    use Action::{Commit, SelfContained};
    let estimated = |reach| Some(Reach { estimated: true, ..reach });
    let catalogs = |name: &str| Some(Reach { catalogs: [(name.to_owned(), 3)].into(), ..Reach::default() });
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    vec![
        ("nothing", vec![], None, SelfContained),
        ("read", vec![read("a")], None, SelfContained),
        ("read, another table", vec![read("b")], None, SelfContained),
        ("call, text only", vec![call()], None, SelfContained),
        ("call, measured: deleted 101", vec![call()], Some(deleted(101)), SelfContained),
        ("call, measured: dropped 1", vec![call()], Some(Reach { dropped: named(&["public.a"]), ..Reach::default() }), SelfContained),
        ("insert, text only", vec![insert("a")], None, SelfContained),
        ("update some, text only", vec![update("a", true)], None, SelfContained),
        ("update some, measured 100", vec![update("a", true)], Some(updated(100)), SelfContained),
        ("update some, measured 101", vec![update("a", true)], Some(updated(101)), SelfContained),
        ("update all, text only", vec![update("a", false)], None, SelfContained),
        ("update all, measured 100", vec![update("a", false)], Some(updated(100)), SelfContained),
        ("update all, estimated 100", vec![update("a", false)], estimated(updated(100)), SelfContained),
        ("update all, estimated 101", vec![update("a", false)], estimated(updated(101)), SelfContained),
        ("delete some, text only", vec![delete("a", true)], None, SelfContained),
        ("delete some, measured 100", vec![delete("a", true)], Some(deleted(100)), SelfContained),
        ("delete all, text only", vec![delete("a", false)], None, SelfContained),
        ("delete all, measured 5000", vec![delete("a", false)], Some(deleted(5_000)), SelfContained),
        ("commit, text only", vec![update("a", true)], None, Commit),
        ("commit, measured 1000", vec![update("a", true)], Some(updated(1_000)), Commit),
        ("commit, measured 1001", vec![update("a", true)], Some(updated(1_001)), Commit),
        ("define", vec![Effect::Define { object: ObjectKind("table".into()), name: table("a") }], None, SelfContained),
        (
            "define, measured",
            vec![Effect::Define { object: ObjectKind("table".into()), name: table("a") }],
            catalogs("pg_class"),
            SelfContained,
        ),
        ("drop", vec![drop_table("a")], None, SelfContained),
        ("drop if exists, measured nothing", vec![drop_table("a")], Some(Reach::default()), SelfContained),
        ("truncate", vec![truncate("a")], None, SelfContained),
        (
            "truncate, estimated",
            vec![truncate("a")],
            Some(Reach { rewritten: named(&["public.a"]), estimated: true, ..deleted(7) }),
            SelfContained,
        ),
        ("grant", vec![grant()], None, SelfContained),
        ("call, measured: a role", vec![call()], catalogs("pg_authid"), SelfContained),
        ("escape", vec![escape()], None, SelfContained),
        ("unknown", vec![unknown()], None, SelfContained),
    ]
}

fn table_of_decisions() -> String {
    let mut text = String::from(
        "# profile / environment / scope / what: no approval | 1 approval | 2 approvals | way back secured | no way back\n\
         # Written by `UPDATE_GOLDEN=1 cargo test -p reprieve-policy --test golden`.\n",
    );
    let scopes = [("everything", full_scope()), ("read, write `public.a`", scope(&[Kind::Read, Kind::Write], &["public.a"]))];
    for profile in Profile::ALL {
        let policy = policy(profile, &[]);
        for environment in ["production", "staging"] {
            for (scope_words, scope) in &scopes {
                let _ = writeln!(text, "\n{profile} / {environment} / {scope_words}");
                for (what, effects, reach, action) in tries() {
                    // A transaction is of many small statements here; `decide.rs` has others.
                    let rows_apart = if action == Action::Commit { 950 } else { 0 };
                    let operation = with_action(with_scope(operation(environment, effects, reach), scope.clone()), action);
                    let operation = Operation { rows_apart, ..operation };
                    let under = |approvals, undoable| in_words(&decide(&policy, &operation, &Facts { approvals, undoable, ..facts() }));
                    let answers = [
                        under(0, Undoability::None),
                        under(1, Undoability::None),
                        under(2, Undoability::None),
                        under(0, Undoability::Secured),
                        under(0, Undoability::Impossible),
                    ];
                    let _ = writeln!(text, "  {what:<34} {}", answers.join(" | "));
                }
            }
        }
    }
    text
}

#[test]
fn who_may_do_what() {
    let now = table_of_decisions();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &now).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(GOLDEN).expect("the golden file is there");
    for (number, (is, was)) in now.lines().zip(golden.lines()).enumerate() {
        assert_eq!(is, was, "line {}; if this is meant, run with UPDATE_GOLDEN=1", number + 1);
    }
    assert_eq!(now, golden);
}
