//! Every way around the two factors that we could think of, and what became of it.

use std::{sync::atomic::Ordering, time::Duration};

use proptest::prelude::*;
use reprieve_gate::{Clock as _, Command, Desk as _, DeskError, SignedCommand};
use reprieve_operation::Event;

use crate::{
    ApprovalsDesk, OptionsError,
    world::{FREEZE_KEY, Person, World, add, issue, named, options},
};

const STEP: Duration = Duration::from_secs(30);

fn freeze() -> Command {
    Command::Freeze { agent: None, reason: "a test".to_owned() }
}

#[tokio::test]
async fn what_is_not_signed_as_it_is_sent_is_not_carried_out() {
    type Change = fn(&World, &mut SignedCommand);
    let world = World::new().await;
    world.clock.forward(STEP);
    let now = world.clock.now();
    let good = world.ana.sign(&freeze(), now);
    let changes: [(&str, Change); 13] = [
        ("another's key", |world, signed| *signed = world.ben.sign(&freeze(), world.clock.now())),
        ("another's name", |_, signed| signed.operator = named("ben")),
        ("nobody's name", |_, signed| signed.operator = named("root")),
        ("an altered command", |_, signed| signed.command = signed.command.replace("a test", "a joke")),
        ("a space more", |_, signed| signed.command.push(' ')),
        ("another time", |_, signed| signed.issued_at += 1),
        ("another code", |_, signed| signed.code = "000000".to_owned()),
        ("no code", |_, signed| signed.code = String::new()),
        ("no signature", |_, signed| signed.signature = String::new()),
        ("a token as signature", |_, signed| signed.signature = format!("rpv_{}", "A".repeat(49))),
        ("a token as code", |_, signed| signed.code = format!("rpv_{}", "A".repeat(49))),
        ("zeros", |_, signed| signed.signature = format!("{}==", "A".repeat(86))),
        ("a long command", |_, signed| signed.command = " ".repeat(100_000)),
    ];
    for (what, change) in changes {
        let mut signed = good.clone();
        change(&world, &mut signed);
        if what == "another's key" {
            signed.operator = named("ana");
        }
        let answer = world.another_desk().perform(signed).await;
        assert_eq!(answer, Err(DeskError::NotAuthenticated), "{what}");
    }
    assert_eq!(world.count("frozen"), 0);
    assert!(world.desk.perform(good).await.is_ok(), "none of these spent the code");
}

#[tokio::test]
async fn a_wrong_code_is_refused_though_the_key_is_right() {
    let world = World::new().await;
    world.clock.forward(STEP);
    let now = world.clock.now();
    let wrong = if world.ana.totp.code_at(now) == "123456" { "654321" } else { "123456" };
    for code in [wrong, "12345", "1234567", ""] {
        let signed = world.ana.key.sign_command(&world.ana.name, &freeze(), code, now).expect("signed");
        assert_eq!(world.another_desk().perform(signed).await, Err(DeskError::NotAuthenticated), "{code}");
    }
    let bens = world.ana.key.sign_command(&world.ana.name, &freeze(), &world.ben.totp.code_at(now), now).expect("signed");
    assert_eq!(world.desk.perform(bens).await, Err(DeskError::NotAuthenticated));
}

#[tokio::test]
async fn a_command_and_its_code_work_once() {
    let world = World::new().await;
    world.clock.forward(STEP);
    let now = world.clock.now();
    let first = world.ana.sign(&freeze(), now);
    assert!(world.desk.perform(first.clone()).await.is_ok());
    assert_eq!(world.desk.perform(first.clone()).await, Err(DeskError::NotAuthenticated), "replayed");
    assert_eq!(world.another_desk().perform(first).await, Err(DeskError::NotAuthenticated), "replayed after a restart");
    let thaw = Command::Thaw { agent: None, reason: "because".to_owned() };
    assert_eq!(world.desk.perform(world.ana.sign(&thaw, now)).await, Err(DeskError::NotAuthenticated), "another command, the same code");
    assert!(world.desk.perform(world.ben.sign(&thaw, now)).await.is_ok(), "another operator's code is another code");
}

#[tokio::test]
async fn a_code_older_than_one_used_is_worthless() {
    let world = World::new().await;
    world.clock.forward(STEP * 10);
    let now = world.clock.now();
    let ahead = now.plus(STEP);
    let older = world.ana.totp.code_at(now);
    let oldest = world.ana.totp.code_at(reprieve_operation::Timestamp(now.0 - 30_000));
    let used = world.ana.key.sign_command(&world.ana.name, &freeze(), &world.ana.totp.code_at(ahead), now).expect("signed");
    assert!(world.desk.perform(used).await.is_ok(), "the next step's code is within the skew");
    for code in [older, oldest] {
        let signed = world.ana.key.sign_command(&world.ana.name, &freeze(), &code, now).expect("signed");
        assert_eq!(world.desk.perform(signed.clone()).await, Err(DeskError::NotAuthenticated));
        assert_eq!(world.another_desk().perform(signed).await, Err(DeskError::NotAuthenticated), "nor after a restart");
    }
    world.clock.forward(STEP * 2);
    assert!(world.desk.perform(world.ana.sign(&freeze(), world.clock.now())).await.is_ok());
}

#[tokio::test]
async fn clocks_may_differ_by_two_minutes() {
    let world = World::new().await;
    for (shift_ms, expected) in [(-120_001i64, false), (-120_000, true), (0, true), (120_000, true), (120_001, false)] {
        world.clock.forward(STEP * 10);
        let now = world.clock.now();
        let issued = reprieve_operation::Timestamp(now.0.checked_add_signed(shift_ms).expect("far from zero"));
        let signed = world.ana.key.sign_command(&world.ana.name, &freeze(), &world.ana.totp.code_at(now), issued).expect("signed");
        assert_eq!(world.desk.perform(signed).await.is_ok(), expected, "{shift_ms}");
    }
}

#[tokio::test]
async fn guessing_codes_locks_out_even_the_right_code() {
    let world = World::new().await;
    world.clock.forward(STEP);
    let now = world.clock.now();
    let guess = |number: u32| world.ana.key.sign_command(&world.ana.name, &freeze(), &format!("{number:06}"), now).expect("signed");
    let right: u32 = world.ana.totp.code_at(now).parse().expect("digits");
    for number in 1..=5 {
        assert_eq!(world.desk.perform(guess((right + number * 1_000) % 1_000_000)).await, Err(DeskError::NotAuthenticated));
    }
    assert_eq!(world.desk.perform(guess(right)).await, Err(DeskError::TooMany { seconds: 30 }));
    assert!(world.desk.perform(world.ben.sign(&freeze(), now)).await.is_ok(), "others are not concerned");
    assert_eq!(world.count("alarm"), 1, "at most one a minute");
    world.clock.forward(Duration::from_secs(60));
    world.desk.expire().await.expect("swept");
    assert_eq!(world.count("alarm"), 2, "the rest is reported later");
    assert!(world.desk.perform(world.ana.sign(&freeze(), world.clock.now())).await.is_ok(), "the lock is over");
}

#[tokio::test]
async fn a_flood_of_forgeries_does_not_lock_the_operator_out() {
    let world = World::new().await;
    world.clock.forward(STEP);
    let stranger = Person::new("ana");
    let mut answers = Vec::new();
    for _ in 0..50 {
        answers.push(world.desk.perform(stranger.sign(&freeze(), world.clock.now())).await);
    }
    assert_eq!(answers[..5], vec![Err(DeskError::NotAuthenticated); 5]);
    assert_eq!(answers[5..], vec![Err(DeskError::TooMany { seconds: 30 }); 45]);
    assert!(world.desk.perform(world.ana.sign(&freeze(), world.clock.now())).await.is_ok());
}

#[tokio::test]
async fn a_ledger_that_is_not_there_carries_out_nothing() {
    let world = World::new().await;
    world.clock.forward(STEP);
    world.ledger.broken.store(true, Ordering::SeqCst);
    let answer = world.desk.perform(world.ana.sign(&freeze(), world.clock.now())).await;
    assert!(matches!(answer, Err(DeskError::Unavailable(_))), "{answer:?}");
    world.ledger.broken.store(false, Ordering::SeqCst);
    assert_eq!(world.count("frozen"), 0);
}

#[tokio::test]
async fn what_is_signed_but_no_command_is_refused() {
    let world = World::new().await;
    for command in ["", "{}", r#"{"command":"freeze"}"#, r#"{"command":"freeze","agent":null,"reason":"a","extra":1}"#, "[[[["] {
        world.clock.forward(STEP);
        let now = world.clock.now();
        let mut signed = world.ana.sign(&freeze(), now);
        signed.command = command.to_owned();
        signed.signature = world.ana.key.sign_text(&signed);
        assert!(matches!(world.desk.perform(signed).await, Err(DeskError::Invalid(_))), "{command}");
    }
}

#[tokio::test]
async fn only_the_first_operator_needs_no_other() {
    let world = World::new().await;
    let eve = Person::new("eve");
    let answer = world.desk.bootstrap_operator(eve.name.clone(), eve.key.public_key(), eve.totp.base32().to_string()).await;
    assert!(matches!(answer, Err(DeskError::Forbidden(_))));
    let mut as_agent = Person::new("bot");
    let mut same_key = Person::new("carl");
    let mut same_totp = Person::new("carl");
    let mut weak = add(&Person::new("carl"));
    if let Command::AddOperator { public_key, .. } = &mut weak {
        *public_key = format!("{}=", "A".repeat(43));
    }
    std::mem::swap(&mut same_key.totp, &mut as_agent.totp);
    same_key.key = reopened(&world.ana);
    same_totp.totp = world.ben.totp.clone();
    for (command, part) in [
        (add(&as_agent), "name of an agent"),
        (add(&same_key), "has this key"),
        (add(&same_totp), "has this second factor"),
        (add(&Person::new("ben")), "an operator `ben` already"),
        (weak, "not 32 bytes of Ed25519"),
    ] {
        let answer = world.perform(&world.ana, &command).await;
        assert!(matches!(&answer, Err(DeskError::Invalid(text)) if text.contains(part)), "{part}: {answer:?}");
    }
    let answer = world.perform(&world.ana, &add(&eve)).await.expect("added");
    assert!(answer["otpauth"].as_str().expect("a text").starts_with("otpauth://totp/Reprieve:eve?"));
    assert!(world.perform(&eve, &freeze()).await.is_ok());
}

/// The same key under another name.
fn reopened(person: &Person) -> crate::OperatorKey {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key");
    person.key.save_with(&path, "x", 2).expect("saved");
    crate::OperatorKey::open(&path, "x").expect("opened")
}

#[tokio::test]
async fn two_first_operators_cannot_both_be_first() {
    let world = World::new().await;
    let ledger = crate::memory::Memory::new(world.clock.clone());
    let desk = ApprovalsDesk::new(ledger.clone(), world.clock.clone(), options()).expect("a desk");
    let (a, b) = (Person::new("a"), Person::new("b"));
    let first = |person: &Person| desk.bootstrap_operator(person.name.clone(), person.key.public_key(), person.totp.base32().to_string());
    let (one, two) = tokio::join!(first(&a), first(&b));
    assert!(one.is_ok() ^ two.is_ok());
    assert_eq!(ledger.events().len(), 1);
}

#[tokio::test]
async fn the_freeze_key_freezes_and_does_nothing_else() {
    let world = World::new().await;
    for wrong in ["", "stop-everything-nov", "stop-everything-now ", &"x".repeat(10_000)] {
        assert_eq!(world.desk.freeze(wrong, None, String::new()).await, Err(DeskError::NotAuthenticated));
    }
    assert_eq!(world.count("alarm"), 1);
    assert!(matches!(world.desk.freeze(FREEZE_KEY, Some(named("nobody")), String::new()).await, Err(DeskError::Invalid(_))));
    assert!(world.desk.freeze(FREEZE_KEY, Some(named("bot")), "odd".to_owned()).await.is_ok());
    assert!(world.desk.freeze(FREEZE_KEY, None, String::new()).await.is_ok(), "as often as needed, and after wrong keys");
    let events = world.ledger.events();
    assert!(matches!(events.last(), Some(Event::Frozen { agent: None, by, .. }) if by == "freeze key"));

    for (agent, reason, expected) in [
        (None, " ", false),
        (None, "found it", true),
        (None, "again", false),
        (Some(named("bot")), "found it", true),
        (Some(named("bot")), "again", false),
    ] {
        let thaw = Command::Thaw { agent, reason: reason.to_owned() };
        assert_eq!(world.perform(&world.ana, &thaw).await.is_ok(), expected, "{thaw:?}");
    }
}

#[tokio::test]
async fn without_a_freeze_key_none_fits() {
    let world = World::new().await;
    let desk = |change: fn(&mut crate::DeskOptions)| {
        let mut options = options();
        change(&mut options);
        ApprovalsDesk::new(world.ledger.clone(), world.clock.clone(), options)
    };
    let keyless = desk(|options| options.freeze_key.clear()).expect("a desk");
    assert_eq!(keyless.freeze("", None, String::new()).await, Err(DeskError::NotAuthenticated));
    assert_eq!(desk(|options| options.freeze_key = "short".to_owned()).err(), Some(OptionsError::ShortFreezeKey));
    assert_eq!(desk(|options| options.scram_salt.truncate(3)).err(), Some(OptionsError::ShortSalt));
    assert_eq!(desk(|options| options.unseal = std::sync::Arc::new(|_| None)).err(), Some(OptionsError::Sealing));
}

#[tokio::test]
async fn a_desk_with_the_wrong_master_key_lets_nobody_in() {
    let world = World::new().await;
    let mut other = options();
    let kept = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = kept.clone();
    other.seal = std::sync::Arc::new(move |bytes| {
        bytes.clone_into(&mut keep.lock().expect("not poisoned"));
        Some("another key's".to_owned())
    });
    other.unseal = std::sync::Arc::new(move |text| (text == "another key's").then(|| kept.lock().expect("not poisoned").clone()));
    let desk = ApprovalsDesk::new(world.ledger.clone(), world.clock.clone(), other).expect("a desk");
    world.clock.forward(STEP);
    assert_eq!(desk.perform(world.ana.sign(&freeze(), world.clock.now())).await, Err(DeskError::NotAuthenticated));
}

#[tokio::test]
async fn an_agent_is_not_named_like_an_operator() {
    let world = World::new().await;
    for command in [issue("ana", None), Command::IssueDecoy { agent: named("ben") }] {
        let answer = world.perform(&world.ana, &command).await;
        assert!(matches!(&answer, Err(DeskError::Invalid(text)) if text.contains("name of an operator")), "{answer:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn anything_may_be_sent(command in ".{0,200}", code in ".{0,8}", signature in ".{0,100}", issued_at in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let world = World::new().await;
            let signed = SignedCommand { operator: named("ana"), command, code, issued_at, signature };
            assert_eq!(world.desk.perform(signed).await, Err(DeskError::NotAuthenticated));
        });
    }
}
