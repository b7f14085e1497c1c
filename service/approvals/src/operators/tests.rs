//! What a role lets an operator do, and what they may try to do besides.

use reprieve_gate::{Audit as _, Command, DeskError};
use reprieve_operation::{Answer, HoldStatus, Role};

use crate::world::{World, add, issue, named};

fn is_forbidden<T>(result: &Result<T, DeskError>) -> bool {
    matches!(result, Err(DeskError::Forbidden(_)))
}

#[tokio::test]
async fn a_viewer_stops_and_nothing_else() {
    let world = World::new().await;
    let (hold, other) = (world.hold(1, 1).await, named("ben"));
    world.perform(&world.ana, &Command::GiveRole { operator: other, role: Role::Viewer }).await.expect("given");
    let refused = [
        world.answer(hold, Answer::Approve),
        world.answer(hold, Answer::Deny),
        Command::Thaw { agent: None, reason: "because".to_owned() },
        Command::Revoke { agent: named("bot") },
        Command::Narrow { agent: named("bot"), allow: Vec::new(), resources: Vec::new() },
        issue("another", None),
        Command::IssueDecoy { agent: named("bait") },
        add(&world.ben),
        Command::Invite { operator: named("friend"), role: Role::Administrator },
        Command::GiveRole { operator: named("ben"), role: Role::Administrator },
        Command::GiveRole { operator: named("ana"), role: Role::Viewer },
        Command::RemovePasskey { operator: named("ana"), credential: "x".to_owned() },
    ];
    for command in refused {
        let answer = world.perform(&world.ben, &command).await;
        assert!(is_forbidden(&answer), "{command:?}: {answer:?}");
    }
    assert_eq!(world.status(hold), HoldStatus::Waiting);
    world.perform(&world.ben, &Command::Freeze { agent: None, reason: "stop".to_owned() }).await.expect("anybody stops");
    world.perform(&world.ben, &Command::Invite { operator: named("ben"), role: Role::Administrator }).await.expect("one's own passkey");
    assert_eq!(world.ledger.state().operators[&named("ben")].role, Role::Viewer, "inviting oneself raises nobody");
}

#[tokio::test]
async fn an_approver_answers_and_makes_no_tokens() {
    let world = World::new().await;
    let hold = world.hold(1, 1).await;
    world.perform(&world.ana, &Command::GiveRole { operator: named("ben"), role: Role::Approver }).await.expect("given");
    assert!(is_forbidden(&world.perform(&world.ben, &issue("another", None)).await));
    let more = Command::GiveRole { operator: named("ben"), role: Role::Administrator };
    assert!(is_forbidden(&world.perform(&world.ben, &more).await), "nobody raises themselves");
    world.perform(&world.ben, &world.answer(hold, Answer::Approve)).await.expect("approved");
    assert_eq!(world.status(hold), HoldStatus::Approved);
    world.perform(&world.ben, &Command::Revoke { agent: named("bot") }).await.expect("taking rights away is an approver's");
}

#[tokio::test]
async fn somebody_stays_who_can_make_others() {
    let world = World::new().await;
    let lower = |name: &str| Command::GiveRole { operator: named(name), role: Role::Approver };
    world.perform(&world.ana, &lower("ben")).await.expect("given");
    assert!(is_forbidden(&world.perform(&world.ana, &lower("ana")).await), "the only administrator");
    assert!(matches!(world.perform(&world.ana, &lower("carol")).await, Err(DeskError::Invalid(_))), "nobody");
    let raise = Command::GiveRole { operator: named("ben"), role: Role::Administrator };
    world.perform(&world.ana, &raise).await.expect("given");
    world.perform(&world.ana, &lower("ana")).await.expect("there is another");
    assert!(is_forbidden(&world.perform(&world.ana, &raise).await), "it holds at once");
}
