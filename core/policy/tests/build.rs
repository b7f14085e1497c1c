//! Which policy sets are accepted, and what is said about the others.

mod common;

use common::*;
use reprieve_policy::{Policy, Profile};

#[track_caller]
fn refused(texts: &[&str], expected: &[&str]) {
    let sources: Vec<_> = texts.iter().enumerate().map(|(number, text)| source(&format!("{number}.cedar"), text)).collect();
    for profile in Profile::ALL {
        let error = Policy::build(profile, &sources).expect_err("it is wrong").to_string();
        for words in expected {
            assert!(error.contains(words), "{error}\nlacks {words}");
        }
    }
}

#[test]
fn every_problem_is_listed_with_its_file_and_line() {
    refused(
        &[
            "permit (principal, action, resource);",
            "\n\nforbid (principal is Agent, action, resource) when { context.row > 1 };",
            "nonsense",
        ],
        &["1.cedar:3: ", "`row`", "2.cedar:1: "],
    );
}

#[test]
fn what_would_not_protect_is_refused() {
    for (text, expected) in [
        (r#"forbid (principal is Agent, action, resource == System::"pocket");"#, "no table in it"),
        ("forbid (principal is Agent, action, resource is System);", "no table in it"),
        (r#"forbid (principal is Agent, action, resource) when { resource == System::"pocket" };"#, "no table in it"),
        (r#"forbid (principal is Agent, action, resource) when { System::"pocket" != resource };"#, "no table in it"),
        (r#"forbid (principal is Agent, action == Action::"raed", resource);"#, "raed"),
        (r#"permit (principal is Agent, action == Action::"answer", resource);"#, "0.cedar"),
        ("permit (principal == ?principal, action, resource);", "templates"),
        (r#"@id("frozen") permit (principal, action, resource);"#, "built-in"),
        (r#"@id("reads-only") permit (principal, action, resource);"#, "built-in"),
        (r#"@id("a") permit (principal, action, resource); @id("a") permit (principal, action, resource);"#, "also in"),
        (r#"@id("") permit (principal, action, resource);"#, "usable id"),
        ("forbid (principal is Agent, action, resource) when { context.rows > \"1\" };", "0.cedar"),
        ("forbid (principal is Agent, action, resource) when { context.rows };", "0.cedar"),
    ] {
        refused(&[text], &[expected]);
    }
}

#[test]
fn limits() {
    refused(&[&" ".repeat((1 << 20) + 1)], &["longer than"]);
    let twice = [source("a.cedar", ""), source("a.cedar", "")];
    assert!(Policy::build(Profile::Guard, &twice).is_err());
    let many: Vec<_> = (0..1_001).map(|number| source(&format!("{number}"), "")).collect();
    assert!(Policy::build(Profile::Guard, &many).is_err());
    // Deep nesting is an error, not an overflow of the stack.
    for (piece, close) in [("(", ")"), ("[", "]"), ("!", ""), ("if true then true else ", ""), ("true && ", ""), ("1 + ", "")] {
        let deep =
            |count: usize| format!("permit (principal, action, resource) when {{ {}true{} }};", piece.repeat(count), close.repeat(count));
        refused(&[&deep(20_000)], &["0.cedar:1: more than"]);
        // The deepest that gets through to the parser.
        let deepest = (1..300).rev().find(|count| {
            let built = Policy::build(Profile::Guard, &[source("a.cedar", &deep(*count))]);
            if let Ok(policy) = &built {
                // Evaluating it on a small stack ends too, whatever the answer.
                let _ = reprieve_policy::decide(policy, &operation("production", vec![read("a")], None), &facts());
            }
            !built.is_err_and(|error| error.to_string().contains("more than"))
        });
        assert!(deepest.is_some_and(|count| count > 20), "{piece}");
    }
}

#[test]
fn uniform_is_what_tells_no_table_from_another() {
    for (text, expected) in [
        ("", true),
        ("permit (principal, action, resource);", true),
        (r#"forbid (principal is Agent, action, resource in System::"pocket");"#, true),
        (r#"forbid (principal is Agent, action, resource in Environment::"staging");"#, true),
        (r#"forbid (principal is Agent, action, resource) when { resource in Environment::"staging" };"#, true),
        (r#"forbid (principal is Agent, action, resource) when { resource in [System::"b", System::"a"] };"#, true),
        (r#"forbid (principal is Agent, action, resource == Table::"a/b.c");"#, false),
        (r#"forbid (principal is Agent, action, resource in Table::"a/b.c");"#, false),
        ("forbid (principal is Agent, action, resource is Table);", false),
        (r#"forbid (principal is Agent, action, resource) when { resource is Table };"#, false),
        (r#"forbid (principal is Agent, action, resource) when { resource == Table::"a/b.c" };"#, false),
        (r#"forbid (principal is Agent, action, resource) when { resource is Table && [Table::"a/b.c"].contains(resource) };"#, false),
        (r#"forbid (principal is Agent, action, resource) when { {"Value": resource, "x": 1}.x == 1 };"#, false),
    ] {
        assert_eq!(policy(Profile::Guard, &[text]).is_uniform(), expected, "{text}");
    }
}

#[test]
fn a_digest_changes_with_every_part() {
    let rule = "permit (principal, action, resource);";
    let digests = [
        policy(Profile::Guard, &[]).digest(),
        policy(Profile::Lockdown, &[]).digest(),
        policy(Profile::Observe, &[]).digest(),
        policy(Profile::Guard, &[rule]).digest(),
        policy(Profile::Guard, &[rule, ""]).digest(),
        Policy::build(Profile::Guard, &[source("z", rule)]).expect("a policy").digest(),
    ];
    let different: std::collections::BTreeSet<_> = digests.iter().collect();
    assert_eq!(different.len(), digests.len());
    let (a, b) = (source("a", rule), source("b", ""));
    let order = [[a.clone(), b.clone()], [b, a]].map(|sources| Policy::build(Profile::Guard, &sources).expect("a policy").digest());
    assert_eq!(order[0], order[1]);
}
