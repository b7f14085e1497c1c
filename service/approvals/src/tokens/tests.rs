//! Tokens only ever get narrower on the way down.

use proptest::prelude::*;
use reprieve_gate::{Audit as _, Clock as _, Command, DeskError};
use reprieve_operation::{AgentName, Kind, Pattern, Scope, State, Timestamp, Token};
use serde_json::Value;

use super::common;
use crate::world::{World, issue, named};

fn changed(command: Command, change: impl FnOnce(&mut Vec<Kind>, &mut Vec<Pattern>, &mut Option<u64>)) -> Command {
    let mut command = command;
    if let Command::IssueToken { allow, resources, rows_per_hour, .. } = &mut command {
        change(allow, resources, rows_per_hour);
    }
    command
}

fn child(agent: &str, parent: &str) -> Command {
    let mut command = issue(agent, None);
    if let Command::IssueToken { parent: its_parent, .. } = &mut command {
        *its_parent = Some(named(parent));
    }
    command
}

fn agent(state: &State, name: &str) -> reprieve_operation::AgentState {
    state.agents[&named::<AgentName>(name)].clone()
}

#[tokio::test]
async fn a_token_is_shown_once_and_kept_as_a_digest() {
    let world = World::new().await;
    let answer = world.perform(&world.ana, &issue("cursor", None)).await.expect("issued");
    let token = Token::parse(answer["token"].as_str().expect("a text")).expect("a token");
    let entry = agent(&world.ledger.state(), "cursor");
    assert_eq!(entry.digest, token.digest());
    assert_eq!(entry.verifier, token.verifier(b"sixteen bytes ok"));
    assert_eq!(answer["token_id"], entry.token.to_string());
    assert_eq!(entry.scope.environments, [named("production")].into());
    assert_eq!(entry.expires, Timestamp(world.clock.now().0 + 3_600_000));
    let recorded = serde_json::to_string(&world.ledger.events()).expect("JSON");
    assert!(!recorded.contains(token.reveal()), "the ledger holds no token");
}

#[tokio::test]
async fn what_no_token_may_be() {
    type Change = fn(&mut Command);
    let world = World::new().await;
    world.perform(&world.ana, &Command::IssueDecoy { agent: named("bait") }).await.expect("a decoy");
    let cases: [(&str, Change); 9] = [
        ("at least one system", |command| set_systems(command, &[])),
        ("no system `elsewhere`", |command| set_systems(command, &["elsewhere"])),
        ("at least one of read", |command| *command = changed(command.clone(), |allow, _, _| allow.clear())),
        ("no token allows `escape`", |command| *command = changed(command.clone(), |allow, _, _| allow.push(Kind::Escape))),
        ("no token allows `unknown`", |command| *command = changed(command.clone(), |allow, _, _| allow.push(Kind::Unknown))),
        ("at most 64", |command| {
            *command = changed(command.clone(), |_, resources, _| *resources = (0..65).map(|n| named(&format!("t{n}"))).collect());
        }),
        ("no operator `zoe`", |command| *command = issue("x", Some("zoe"))),
        ("name of a decoy", |command| *command = issue("bait", None)),
        ("no agent `ghost`", |command| *command = child("x", "ghost")),
    ];
    for (part, change) in cases {
        let mut command = issue("x", None);
        change(&mut command);
        let answer = world.perform(&world.ana, &command).await;
        assert!(matches!(&answer, Err(DeskError::Invalid(text)) if text.contains(part)), "{part}: {answer:?}");
    }
    for seconds in [0, 367 * 24 * 3_600, u64::MAX] {
        let mut command = issue("x", None);
        if let Command::IssueToken { expires_in_s, .. } = &mut command {
            *expires_in_s = seconds;
        }
        assert!(matches!(world.perform(&world.ana, &command).await, Err(DeskError::Invalid(_))), "{seconds}");
    }
    assert!(!world.ledger.state().agents.contains_key(&named::<AgentName>("x")));
}

fn set_systems(command: &mut Command, names: &[&str]) {
    if let Command::IssueToken { systems, .. } = command {
        *systems = names.iter().map(|name| named(name)).collect();
    }
}

#[tokio::test]
async fn a_child_is_no_wider_than_its_parent() {
    let world = World::new().await;
    for command in [
        changed(child("kid", "bot"), |allow, _, _| allow.push(Kind::Destroy)),
        changed(child("kid", "bot"), |_, resources, _| resources.clear()),
        changed(child("kid", "bot"), |_, resources, _| *resources = vec![named("*")]),
        changed(child("kid", "bot"), |_, _, rows| *rows = None),
        changed(child("kid", "bot"), |_, _, rows| *rows = Some(101)),
        {
            let mut command = child("kid", "bot");
            set_systems(&mut command, &["pocket-staging"]);
            command
        },
        {
            let mut command = child("kid", "bot");
            if let Command::IssueToken { on_behalf_of, .. } = &mut command {
                *on_behalf_of = Some(named("ben"));
            }
            command
        },
    ] {
        let answer = world.perform(&world.ana, &command).await;
        assert!(matches!(answer, Err(DeskError::Forbidden(_))), "{command:?}: {answer:?}");
    }
    let mut longer = child("kid", "bot");
    if let Command::IssueToken { expires_in_s, .. } = &mut longer {
        *expires_in_s = 100_000;
    }
    world.perform(&world.ana, &longer).await.expect("a child");
    let state = world.ledger.state();
    let (parent, kid) = (agent(&state, "bot"), agent(&state, "kid"));
    assert_eq!(kid.parent, Some(parent.token));
    assert_eq!(kid.expires, parent.expires, "it ends with its parent");
    assert_eq!(kid.on_behalf_of, Some(named("ana")), "it acts for the same operator");
}

#[tokio::test]
async fn a_new_token_voids_the_old_one_and_its_children() {
    let world = World::new().await;
    world.perform(&world.ana, &child("kid", "bot")).await.expect("a child");
    world.perform(&world.ana, &child("grandkid", "kid")).await.expect("its child");
    let old = agent(&world.ledger.state(), "bot");
    for parent in ["bot", "kid", "grandkid"] {
        let mut circle = child("bot", parent);
        if let Command::IssueToken { on_behalf_of, .. } = &mut circle {
            *on_behalf_of = Some(named("ana"));
        }
        assert!(matches!(world.perform(&world.ben, &circle).await, Err(DeskError::Invalid(_))), "a circle through {parent}");
    }
    world.perform(&world.ben, &issue("bot", Some("ana"))).await.expect("a new token");
    {
        let state = world.ledger.state();
        let new = agent(&state, "bot");
        assert!(!new.revoked && new.token != old.token && new.digest != old.digest);
        assert!(agent(&state, "kid").revoked && agent(&state, "grandkid").revoked);
    }
    let answer = world.perform(&world.ana, &child("late", "kid")).await;
    assert!(matches!(answer, Err(DeskError::Invalid(_))), "no child of a void token: {answer:?}");
}

#[tokio::test]
async fn narrowing_reaches_the_children() {
    let world = World::new().await;
    let reader = changed(child("reader", "bot"), |allow, resources, _| {
        *allow = vec![Kind::Read];
        *resources = vec![named("public.orders")];
    });
    let writer = changed(child("writer", "bot"), |allow, _, _| *allow = vec![Kind::Write]);
    for command in [reader, writer, child("both", "bot")] {
        world.perform(&world.ana, &command).await.expect("a child");
    }
    let narrow = |allow: &[Kind], resources: &[&str]| Command::Narrow {
        agent: named("bot"),
        allow: allow.to_vec(),
        resources: resources.iter().map(|pattern| named(pattern)).collect(),
    };
    for wider in [narrow(&[Kind::Destroy], &[]), narrow(&[Kind::Read], &["*"]), narrow(&[], &[])] {
        assert!(world.perform(&world.ana, &wider).await.is_err(), "{wider:?}");
    }
    let answer = world.perform(&world.ana, &narrow(&[Kind::Read], &["public.o*"])).await.expect("narrowed");
    assert_eq!(answer["children"], 3);
    let state = world.ledger.state();
    let parent = agent(&state, "bot").scope;
    assert_eq!(parent.resources, [named("public.o*")].into());
    assert!(agent(&state, "writer").revoked, "nothing is left of it");
    for name in ["reader", "both"] {
        let entry = agent(&state, name);
        assert!(!entry.revoked && parent.narrow((*entry.scope).clone()).is_ok(), "{name}: {:?}", entry.scope);
    }
    assert_eq!(agent(&state, "reader").scope.resources, [named("public.orders")].into());
}

#[tokio::test]
async fn revoking_takes_the_children_along() {
    let world = World::new().await;
    world.perform(&world.ana, &child("kid", "bot")).await.expect("a child");
    assert!(world.perform(&world.ana, &Command::Revoke { agent: named("ghost") }).await.is_err());
    let answer = world.perform(&world.ana, &Command::Revoke { agent: named("bot") }).await.expect("revoked");
    assert_eq!(answer["children"], Value::from(vec!["kid"]));
    {
        let state = world.ledger.state();
        assert!(agent(&state, "bot").revoked && agent(&state, "kid").revoked);
    }
    for void in [child("x", "bot"), Command::Narrow { agent: named("bot"), allow: vec![Kind::Read], resources: vec![] }] {
        assert!(world.perform(&world.ana, &void).await.is_err(), "{void:?}");
    }
}

#[tokio::test]
async fn bait_covers_nothing_and_keeps_its_name() {
    let world = World::new().await;
    let answer = world.perform(&world.ana, &Command::IssueDecoy { agent: named("bait") }).await.expect("issued");
    assert!(Token::parse(answer["token"].as_str().expect("a text")).is_ok());
    {
        let state = world.ledger.state();
        let bait = agent(&state, "bait");
        assert!(bait.decoy);
        for kind in Kind::ALL {
            assert!(!bait.scope.covers(kind, &named("production"), &named("pocket-prod"), None), "{kind}");
        }
    }
    for taken in ["bait", "bot"] {
        assert!(world.perform(&world.ana, &Command::IssueDecoy { agent: named(taken) }).await.is_err(), "{taken}");
    }
    for command in
        [issue("bait", None), child("x", "bait"), Command::Narrow { agent: named("bait"), allow: vec![Kind::Read], resources: vec![] }]
    {
        assert!(world.perform(&world.ana, &command).await.is_err(), "{command:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_issued_at_once_have_different_numbers() {
    use reprieve_gate::Desk as _;
    let world = World::new().await;
    world.clock.forward(std::time::Duration::from_secs(30));
    let now = world.clock.now();
    let tasks = [(&world.ana, "one"), (&world.ben, "two")].map(|(person, name)| {
        let (desk, command) = (world.another_desk(), person.sign(&issue(name, None), now));
        tokio::spawn(async move { desk.perform(command).await })
    });
    for task in tasks {
        task.await.expect("no panic").expect("issued");
    }
    let state = world.ledger.state();
    assert_ne!(agent(&state, "one").token, agent(&state, "two").token);
}

fn scopes() -> impl Strategy<Value = Scope> {
    let kinds = prop::collection::btree_set(prop::sample::select(&Kind::ALL[..4]), 0..4);
    let patterns = prop::sample::select(vec!["*", "public.*", "public.a*", "public.ab", "*.ab", "audit.*", "public.b"]);
    let resources = prop::collection::btree_set(patterns.prop_map(named), 0..4);
    let systems = prop::collection::btree_set(prop::sample::select(vec!["a", "b"]).prop_map(named), 0..3);
    (kinds, resources, systems, prop::option::of(0u64..10)).prop_map(|(kinds, resources, systems, rows_per_hour)| Scope {
        kinds,
        environments: [named("production")].into(),
        systems,
        resources,
        rows_per_hour,
    })
}

proptest! {
    #[test]
    fn what_is_common_is_in_both(child in scopes(), parent in scopes(), resource in "(public|audit)\\.[ab]{1,2}") {
        if let Some(scope) = common(&child, &parent) {
            prop_assert!(parent.narrow(scope.clone()).is_ok());
            for kind in Kind::ALL {
                for system in ["a", "b"] {
                    let covers = |scope: &Scope| scope.covers(kind, &named("production"), &named(system), Some(&resource));
                    prop_assert!(!covers(&scope) || (covers(&child) && covers(&parent)));
                }
            }
        }
    }
}
