//! Every way to release a hold that nobody should have, and the few that are right.

use std::time::Duration;

use reprieve_gate::{Audit as _, Clock as _, Command, Desk as _, DeskError};
use reprieve_operation::{Answer, Digest, Event, HoldId, HoldStatus};

use crate::{
    EvidenceError, verify_answer,
    world::{Person, World, add, issue, named},
};

fn changed(command: Command, change: impl FnOnce(&mut Option<String>, &mut String, &mut Digest)) -> Command {
    let mut command = command;
    if let Command::Answer { confirm, reason, signed, .. } = &mut command {
        change(confirm, reason, signed);
    }
    command
}

#[tokio::test]
async fn one_look_one_name_one_answer() {
    let world = World::new().await;
    let hold = world.hold(1, 1).await;
    let approve = || world.answer(hold, Answer::Approve);
    let deny = || world.answer(hold, Answer::Deny);
    for (command, part) in [
        (changed(approve(), |confirm, _, _| *confirm = None), "type the name"),
        (changed(approve(), |confirm, _, _| *confirm = Some(String::new())), "type the name"),
        (changed(approve(), |confirm, _, _| *confirm = Some("Public.orders".to_owned())), "type the name"),
        (changed(approve(), |confirm, _, _| *confirm = Some("public.orders ".to_owned())), "type the name"),
        (changed(approve(), |_, _, signed| *signed = Digest::of(&[b"something else"])), "look again"),
        (changed(approve(), |_, _, signed| *signed = world.held(hold).digest_to_sign(Answer::Deny)), "look again"),
        (changed(approve(), |_, reason, _| *reason = "\u{1b}[2J".to_owned()), "control character"),
        (changed(approve(), |_, reason, _| *reason = "x".repeat(1_001)), "1,000 characters"),
        (changed(deny(), |_, reason, _| *reason = " \n".to_owned()), "needs a reason"),
        (changed(deny(), |_, _, signed| *signed = world.held(hold).digest_to_sign(Answer::Approve)), "look again"),
    ] {
        let answer = world.perform(&world.ben, &command).await;
        assert!(matches!(&answer, Err(DeskError::Invalid(text)) if text.contains(part)), "{part}: {answer:?}");
    }
    assert_eq!(world.status(hold), HoldStatus::Waiting);
    let answer = world.perform(&world.ben, &approve()).await.expect("approved");
    assert_eq!(answer["status"], "approved");
    assert_eq!(world.status(hold), HoldStatus::Approved);
    for person in [&world.ben, &world.ana] {
        assert!(world.perform(person, &approve()).await.is_err(), "it is decided");
    }
    let deny = Command::Answer { hold: HoldId(99), answer: Answer::Deny, confirm: None, reason: "x".to_owned(), signed: Digest::of(&[]) };
    assert!(matches!(world.perform(&world.ben, &deny).await, Err(DeskError::Invalid(_))));
}

#[tokio::test]
async fn the_one_the_agent_acts_for_is_never_enough() {
    let world = World::new().await;
    let hold = world.hold(1, 1).await;
    let approve = world.answer(hold, Answer::Approve);
    let answer = world.perform(&world.ana, &approve).await.expect("taken");
    assert_eq!((answer["status"].as_str(), answer["approvals"].as_u64()), (Some("waiting"), Some(0)));
    assert!(answer["message"].as_str().expect("a text").contains("different operator is still needed"), "{answer}");
    let again = world.perform(&world.ana, &approve).await;
    assert!(matches!(&again, Err(DeskError::Invalid(text)) if text.contains("answered already")), "{again:?}");
    assert_eq!(world.status(hold), HoldStatus::Waiting);
    world.perform(&world.ben, &approve).await.expect("taken");
    assert_eq!(world.status(hold), HoldStatus::Approved);

    let unasked = world.hold(2, 0).await;
    let answer = world.perform(&world.ana, &world.answer(unasked, Answer::Approve)).await;
    assert!(matches!(answer, Err(DeskError::Forbidden(_))), "{answer:?}");
    assert_eq!(world.status(unasked), HoldStatus::Waiting);
}

#[tokio::test]
async fn two_approvals_are_two_people() {
    let world = World::new().await;
    let hold = world.hold(1, 2).await;
    let approve = world.answer(hold, Answer::Approve);
    let answer = world.perform(&world.ben, &approve).await.expect("taken");
    assert_eq!(answer["message"], "1 more of different operators needed");
    assert!(world.perform(&world.ben, &approve).await.is_err(), "approving twice");
    assert_eq!(world.status(hold), HoldStatus::Waiting);
    let carl = Person::new("carl");
    world.perform(&world.ana, &add(&carl)).await.expect("added");
    world.perform(&carl, &approve).await.expect("taken");
    assert_eq!(world.status(hold), HoldStatus::Approved);
}

#[tokio::test]
async fn a_denial_ends_it() {
    let world = World::new().await;
    let hold = world.hold(1, 2).await;
    world.perform(&world.ben, &world.answer(hold, Answer::Approve)).await.expect("taken");
    let deny = changed(world.answer(hold, Answer::Deny), |confirm, _, _| *confirm = None);
    assert_eq!(world.perform(&world.ana, &deny).await.expect("denied")["status"], "denied");
    let carl = Person::new("carl");
    world.perform(&world.ana, &add(&carl)).await.expect("added");
    let answer = world.perform(&carl, &world.answer(hold, Answer::Approve)).await;
    assert!(matches!(&answer, Err(DeskError::Invalid(text)) if text.contains("denied already")), "{answer:?}");
}

#[tokio::test]
async fn silence_is_a_no() {
    let world = World::new().await;
    let (first, second) = (world.hold(1, 1).await, world.hold(2, 1).await);
    world.perform(&world.ben, &world.answer(second, Answer::Approve)).await.expect("approved, never used");
    assert_eq!(world.desk.expire().await, Ok(0));
    let approve = world.answer(first, Answer::Approve);
    world.clock.forward(Duration::from_secs(3_600));
    let answer = world.perform(&world.ben, &approve).await;
    assert!(matches!(&answer, Err(DeskError::Invalid(text)) if text.contains("expired")), "before the sweep: {answer:?}");
    let (here, there) = (world.another_desk(), world.another_desk());
    let (one, two) = tokio::join!(here.expire(), there.expire());
    assert_eq!(one.expect("swept") + two.expect("swept"), 2, "each hold expires once, whoever sweeps");
    assert_eq!((world.status(first), world.status(second)), (HoldStatus::Expired, HoldStatus::Expired));
    assert!(world.perform(&world.ben, &approve).await.is_err(), "after the sweep");
    assert_eq!(world.desk.expire().await, Ok(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_answers_count_once() {
    let world = World::new().await;
    let hold = world.hold(1, 1).await;
    world.clock.forward(Duration::from_secs(30));
    let now = world.clock.now();
    let approve = world.answer(hold, Answer::Approve);
    // The same command at two gateways at once, and another of the same person with the code of the next step.
    let bens = world.ben.sign(&approve, now);
    let next = world.ben.key.sign_command(&world.ben.name, &approve, &world.ben.totp.code_at(now.plus(Duration::from_secs(30))), now);
    let commands = [bens.clone(), bens.clone(), bens, next.expect("signed")];
    let tasks = commands.map(|command| {
        let desk = world.another_desk();
        tokio::spawn(async move { desk.perform(command).await })
    });
    let mut taken = 0;
    for task in tasks {
        taken += usize::from(task.await.expect("no panic").is_ok());
    }
    assert_eq!(taken, 1);
    assert_eq!(world.count("hold_answered"), 1);
    assert_eq!(world.held(hold).answers.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_yes_and_a_no_at_once_are_one_of_them() {
    for round in 0..20 {
        let world = World::new().await;
        let hold = world.hold(1, 1).await;
        world.clock.forward(Duration::from_secs(30));
        let now = world.clock.now();
        let yes = world.ben.sign(&world.answer(hold, Answer::Approve), now);
        let no = world.ana.sign(&world.answer(hold, Answer::Deny), now);
        let (here, there) = (world.another_desk(), world.another_desk());
        let yes = tokio::spawn(async move { here.perform(yes).await });
        let no = tokio::spawn(async move { there.perform(no).await });
        let (yes, no) = (yes.await.expect("no panic"), no.await.expect("no panic"));
        assert!(yes.is_ok() ^ no.is_ok(), "round {round}: {yes:?} {no:?}");
        let expected = if yes.is_ok() { HoldStatus::Approved } else { HoldStatus::Denied };
        assert_eq!(world.status(hold), expected);
    }
}

#[tokio::test]
async fn nothing_is_approved_for_an_agent_that_is_stopped() {
    let world = World::new().await;
    let hold = world.hold(1, 1).await;
    let approve = world.answer(hold, Answer::Approve);
    for agent in [None, Some(named("bot"))] {
        world.perform(&world.ana, &Command::Freeze { agent: agent.clone(), reason: String::new() }).await.expect("frozen");
        let answer = world.perform(&world.ben, &approve).await;
        assert!(matches!(&answer, Err(DeskError::Forbidden(text)) if text.contains("thaw first")), "{answer:?}");
        world.perform(&world.ana, &Command::Thaw { agent, reason: "done".to_owned() }).await.expect("thawed");
    }
    world.perform(&world.ana, &Command::Revoke { agent: named("bot") }).await.expect("revoked");
    let answer = world.perform(&world.ben, &approve).await;
    assert!(matches!(&answer, Err(DeskError::Forbidden(text)) if text.contains("void")), "{answer:?}");
    assert!(world.perform(&world.ben, &world.answer(hold, Answer::Deny)).await.is_ok(), "a no is always possible");
}

#[tokio::test]
async fn nobody_becomes_another_owner_of_their_agent() {
    let world = World::new().await;
    for owner in [None, Some("ben")] {
        let answer = world.perform(&world.ana, &issue("bot", owner)).await;
        assert!(matches!(&answer, Err(DeskError::Forbidden(_))), "{answer:?}");
    }
    assert!(world.perform(&world.ben, &issue("bot", None)).await.is_ok(), "another operator may");
}

#[tokio::test]
async fn a_recorded_answer_proves_itself() {
    let world = World::new().await;
    let hold = world.hold(1, 1).await;
    world.perform(&world.ben, &world.answer(hold, Answer::Approve)).await.expect("approved");
    let event = world.ledger.events().pop().expect("recorded");
    let (ana, ben) = (world.ana.key.public_key(), world.ben.key.public_key());
    assert_eq!(verify_answer(&event, &ben), Ok(()));
    assert_eq!(verify_answer(&event, &ana), Err(EvidenceError::Signature));
    assert_eq!(verify_answer(&Event::Stopped, &ben), Err(EvidenceError::NotAnAnswer));
    let changes: [fn(&mut Event); 5] = [
        |event| set(event, |hold, _, _, _| *hold = HoldId(2)),
        |event| set(event, |_, answer, _, _| *answer = Answer::Deny),
        |event| set(event, |_, _, reason, _| reason.push('!')),
        |event| set(event, |_, _, _, signed| *signed = Digest::of(&[])),
        |event| {
            if let Event::HoldAnswered { operator, .. } = event {
                *operator = named("ana");
            }
        },
    ];
    for change in changes {
        let mut event = event.clone();
        change(&mut event);
        assert_eq!(verify_answer(&event, &ben), Err(EvidenceError::Differs));
    }
}

fn set(event: &mut Event, change: impl FnOnce(&mut HoldId, &mut Answer, &mut String, &mut Digest)) {
    if let Event::HoldAnswered { hold, answer, reason, signed, .. } = event {
        change(hold, answer, reason, signed);
    }
}

#[tokio::test]
async fn an_answer_after_the_ledger_decided_counts_for_nothing() {
    let world = World::new().await;
    let hold = world.hold(1, 1).await;
    world.ledger.append(Event::HoldExpired { hold }).await.expect("expired");
    let answer = world.perform(&world.ben, &world.answer(hold, Answer::Approve)).await;
    assert!(matches!(&answer, Err(DeskError::Invalid(text)) if text.contains("expired already")), "{answer:?}");
    assert_eq!(world.count("hold_answered"), 0);
}
