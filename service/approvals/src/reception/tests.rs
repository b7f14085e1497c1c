//! Passkeys at the desk, with an authenticator made of software: who comes in, and what an assertion is good for.

use std::{net::IpAddr, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL},
};
use reprieve_gate::{Assertion, Clock as _, Command, Counter as _, DeskError, NewPasskey, Reception as _, SignIn, SignedIn, Vouched};
use reprieve_operation::{Answer, Event, HoldId, HoldStatus, OperatorName, Role, VOUCHED};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{
    EvidenceError, verify_answer,
    world::{World, named},
};

const ORIGIN: &str = "https://console.test:6443";
const BROWSER: &str = "a browser";
const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// User present, user verified.
const CONFIRMED: u8 = 0x05;

struct Passkey {
    id: Vec<u8>,
    key: EcdsaKeyPair,
}

impl Passkey {
    fn new(id: &str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).expect("a key");
        Self { id: id.as_bytes().to_vec(), key }
    }

    fn credential(&self) -> String {
        BASE64URL.encode(&self.id)
    }

    fn spki(&self) -> Vec<u8> {
        // SubjectPublicKeyInfo of an uncompressed P-256 point (RFC 5480).
        let head = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
            0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        [&head[..], self.key.public_key().as_ref()].concat()
    }

    fn data(&self, site: &str, flags: u8, with_credential: bool) -> Vec<u8> {
        let mut data = Sha256::digest(site.as_bytes()).to_vec();
        data.push(flags);
        data.extend_from_slice(&[0, 0, 0, 1]);
        if with_credential {
            data.extend_from_slice(&[0; 16]);
            data.extend_from_slice(&u16::try_from(self.id.len()).expect("short").to_be_bytes());
            data.extend_from_slice(&self.id);
        }
        data
    }

    fn made(&self, challenge: &str) -> NewPasskey {
        let client = json!({ "type": "webauthn.create", "challenge": challenge, "origin": ORIGIN, "crossOrigin": false }).to_string();
        NewPasskey {
            credential: self.credential(),
            public_key: BASE64URL.encode(self.spki()),
            client_data: BASE64URL.encode(client),
            authenticator_data: BASE64URL.encode(self.data("console.test", CONFIRMED | 0x40, true)),
            label: "a laptop".to_owned(),
        }
    }

    fn asserts(&self, challenge: &str) -> Assertion {
        self.asserts_as(challenge, "webauthn.get", ORIGIN, "console.test", CONFIRMED)
    }

    fn asserts_as(&self, challenge: &str, kind: &str, origin: &str, site: &str, flags: u8) -> Assertion {
        let client = json!({ "type": kind, "challenge": challenge, "origin": origin, "crossOrigin": false }).to_string();
        let data = self.data(site, flags, false);
        let message = [&data[..], &Sha256::digest(client.as_bytes())].concat();
        let signature = self.key.sign(&SystemRandom::new(), &message).expect("signed");
        Assertion {
            credential: self.credential(),
            client_data: BASE64URL.encode(client),
            authenticator_data: BASE64URL.encode(data),
            signature: BASE64URL.encode(signature),
        }
    }
}

/// The world with ana's and ben's passkeys.
async fn world() -> (World, Passkey, Passkey) {
    let world = World::new().await;
    let (ana, ben) = (Passkey::new("ana’s"), Passkey::new("ben’s"));
    let (operator, secret) = world.desk.first_invitation().await.expect("asked").expect("nobody has a passkey yet");
    assert_eq!(operator, world.ana.name);
    world.clock.forward(Duration::from_secs(60));
    let code = world.ana.totp.code_at(world.clock.now());
    let invited = world.desk.invited(&secret).expect("invited");
    assert!(invited.needs_code);
    world.desk.enrol(&secret, Some(&code), ana.made(&invited.challenge)).await.expect("enrolled");
    let secret =
        world.perform(&world.ben, &Command::Invite { operator: world.ben.name.clone(), role: Role::Approver }).await.expect("invited");
    let secret = secret["secret"].as_str().expect("a secret").to_owned();
    world.clock.forward(Duration::from_secs(60));
    let code = world.ben.totp.code_at(world.clock.now());
    let challenge = world.desk.invited(&secret).expect("invited").challenge;
    world.desk.enrol(&secret, Some(&code), ben.made(&challenge)).await.expect("enrolled");
    (world, ana, ben)
}

async fn enter(world: &World, passkey: &Passkey) -> SignedIn {
    let challenge = world.desk.challenge();
    let assertion = passkey.asserts(&challenge);
    let signed_on = world.desk.sign_in(SignIn { challenge, assertion }, BROWSER, PEER).await.expect("signed in");
    world.desk.session(&signed_on.secret, BROWSER).expect("a session")
}

fn approval(world: &World, hold: HoldId) -> Command {
    world.answer(hold, Answer::Approve)
}

#[tokio::test]
async fn an_invitation_works_once_in_time_and_not_without_the_second_factor() {
    let world = World::new().await;
    let (_, secret) = world.desk.first_invitation().await.expect("asked").expect("invited");
    let passkey = Passkey::new("a");
    let challenge = world.desk.invited(&secret).expect("invited").challenge;
    assert!(world.desk.invited("a guess").is_err());
    for code in [None, Some("000000")] {
        assert_eq!(world.desk.enrol(&secret, code, passkey.made(&challenge)).await, Err(DeskError::NotAuthenticated));
    }
    let other = BASE64URL.encode([7; 32]);
    world.clock.forward(Duration::from_secs(60));
    let code = world.ana.totp.code_at(world.clock.now());
    assert!(matches!(world.desk.enrol(&secret, Some(&code), passkey.made(&other)).await, Err(DeskError::Invalid(_))), "another challenge");
    world.desk.enrol(&secret, Some(&code), passkey.made(&challenge)).await.expect("enrolled");
    assert!(world.desk.invited(&secret).is_err(), "used");
    assert_eq!(world.desk.first_invitation().await, Ok(None), "there is a passkey now");

    let secret =
        world.perform(&world.ana, &Command::Invite { operator: named("carol"), role: Role::Approver }).await.expect("invited")["secret"]
            .clone();
    let secret = secret.as_str().expect("a secret");
    world.clock.forward(Duration::from_secs(25 * 3_600));
    assert!(world.desk.invited(secret).is_err(), "too late");
}

#[tokio::test]
async fn nobody_enrols_a_passkey_as_somebody_else() {
    let (world, ..) = world().await;
    // Carol has a passkey and no terminal: only she may invite herself again.
    let made = world.perform(&world.ana, &Command::Invite { operator: named("carol"), role: Role::Approver }).await.expect("invited");
    let secret = made["secret"].as_str().expect("a secret");
    let challenge = world.desk.invited(secret).expect("invited").challenge;
    world.desk.enrol(secret, None, Passkey::new("carol’s").made(&challenge)).await.expect("enrolled");
    let again = world.perform(&world.ana, &Command::Invite { operator: named("carol"), role: Role::Approver }).await;
    assert!(matches!(again, Err(DeskError::Forbidden(_))), "{again:?}");
    assert!(
        matches!(
            world.perform(&world.ana, &Command::Invite { operator: named("bot"), role: Role::Approver }).await,
            Err(DeskError::Invalid(_))
        ),
        "an agent"
    );
    // Ben has a terminal: his second factor is asked for, which ana has not.
    let made =
        world.perform(&world.ana, &Command::Invite { operator: world.ben.name.clone(), role: Role::Approver }).await.expect("invited");
    let secret = made["secret"].as_str().expect("a secret");
    let challenge = world.desk.invited(secret).expect("invited").challenge;
    assert_eq!(world.desk.enrol(secret, None, Passkey::new("x").made(&challenge)).await, Err(DeskError::NotAuthenticated));
}

#[tokio::test]
async fn a_recovery_code_enrols_one_passkey_and_nothing_else() {
    let (world, ..) = world().await;
    let codes = async |operator: &crate::world::Person| -> Vec<String> {
        let made = world.perform(operator, &Command::MakeRecoveryCodes {}).await.expect("made");
        made["codes"].as_array().expect("codes").iter().map(|code| code.as_str().expect("text").to_owned()).collect()
    };
    let old = codes(&world.ana).await;
    let new = codes(&world.ana).await;
    assert_eq!((old.len(), new.len()), (8, 8));
    assert!(world.desk.invited(&old[0]).is_err(), "those before are void");
    // No challenge, no session and no answer comes of it: only a passkey of ana's, and not without her second factor.
    let invited = world.desk.invited(&new[0]).expect("a code");
    assert_eq!(invited.operator, world.ana.name);
    let lost = Passkey::new("after the loss");
    assert_eq!(world.desk.enrol(&new[0], None, lost.made(&invited.challenge)).await, Err(DeskError::NotAuthenticated));
    world.clock.forward(Duration::from_secs(60));
    let code = world.ana.totp.code_at(world.clock.now());
    let alarms = world.count("alarm");
    world.desk.enrol(&new[0], Some(&code), lost.made(&invited.challenge)).await.expect("enrolled");
    enter(&world, &lost).await;
    assert!(world.desk.invited(&new[0]).is_err(), "used");
    assert!(world.desk.invited(&new[1]).is_ok(), "the others stay");
    assert_eq!(world.count("alarm"), alarms + 1);
    // A lesser role may make its own.
    assert_eq!(codes(&world.ben).await.len(), 8);
}

#[tokio::test]
async fn signing_in_takes_the_passkey_on_this_site_and_a_challenge_works_once() {
    let (world, ana, _) = world().await;
    let challenge = world.desk.challenge();
    let stranger = Passkey::new("ana’s");
    for assertion in [
        stranger.asserts(&challenge),
        Passkey::new("unknown").asserts(&challenge),
        ana.asserts_as(&challenge, "webauthn.create", ORIGIN, "console.test", CONFIRMED),
        ana.asserts_as(&challenge, "webauthn.get", "https://evil.example", "console.test", CONFIRMED),
        ana.asserts_as(&challenge, "webauthn.get", ORIGIN, "evil.example", CONFIRMED),
        ana.asserts_as(&challenge, "webauthn.get", ORIGIN, "console.test", 0x01),
        ana.asserts_as(&challenge, "webauthn.get", ORIGIN, "console.test", 0x04),
        ana.asserts(&world.desk.challenge()),
        Assertion { signature: BASE64URL.encode([0; 70]), ..ana.asserts(&challenge) },
        Assertion { authenticator_data: BASE64URL.encode([0; 36]), ..ana.asserts(&challenge) },
        Assertion { client_data: "%%".to_owned(), ..ana.asserts(&challenge) },
        Assertion { client_data: "A".repeat(100_000), ..ana.asserts(&challenge) },
    ] {
        let tried = world.desk.sign_in(SignIn { challenge: challenge.clone(), assertion }, BROWSER, PEER).await;
        assert!(matches!(tried, Err(DeskError::NotAuthenticated | DeskError::TooMany { .. })), "{tried:?}");
    }
    let tried = world.desk.sign_in(SignIn { challenge: challenge.clone(), assertion: stranger.asserts(&challenge) }, BROWSER, PEER).await;
    assert!(matches!(tried, Err(DeskError::TooMany { .. })), "who fails too often hears so: {tried:?}");
    // Whoever has the passkey is not kept out by that.
    let good = SignIn { challenge: challenge.clone(), assertion: ana.asserts(&challenge) };
    world.desk.sign_in(good.clone(), BROWSER, PEER).await.expect("signed in");
    assert!(world.desk.sign_in(good, BROWSER, PEER).await.is_err(), "replayed");
    let forged = BASE64URL.encode([1u8; 56]);
    assert!(world.desk.sign_in(SignIn { challenge: forged.clone(), assertion: ana.asserts(&forged) }, BROWSER, PEER).await.is_err());
    let old = world.desk.challenge();
    world.clock.forward(Duration::from_secs(301));
    assert!(world.desk.sign_in(SignIn { challenge: old.clone(), assertion: ana.asserts(&old) }, BROWSER, PEER).await.is_err(), "old");
}

#[tokio::test]
async fn an_assertion_approves_one_hold_once_and_the_record_proves_it() {
    let (world, _, ben) = world().await;
    let (one, two) = (world.hold(1, 1).await, world.hold(2, 1).await);
    let who = enter(&world, &ben).await;
    let first = world.desk.propose(&who, approval(&world, one)).expect("proposed");
    let second = world.desk.propose(&who, approval(&world, two)).expect("proposed");
    let assertion = ben.asserts(&first.challenge);
    // For another hold it is worth nothing, and the other proposal is used up by the attempt.
    assert_eq!(world.desk.confirm(who.clone(), second.proposal.clone(), assertion.clone()).await, Err(DeskError::NotAuthenticated));
    assert_eq!(world.status(two), HoldStatus::Waiting);
    world.desk.confirm(who.clone(), first.proposal.clone(), assertion.clone()).await.expect("approved");
    assert_eq!(world.status(one), HoldStatus::Approved);
    assert!(world.desk.confirm(who.clone(), first.proposal, assertion.clone()).await.is_err(), "once");
    assert!(world.desk.confirm(who, second.proposal, assertion).await.is_err());

    let event = world.ledger.events().into_iter().rev().find(|event| event.kind() == "hold_answered").expect("recorded");
    assert_eq!(verify_answer(&event, &BASE64.encode(ben.spki())), Ok(()));
    assert_eq!(verify_answer(&event, &BASE64.encode(Passkey::new("x").spki())), Err(EvidenceError::Signature));
    assert_eq!(verify_answer(&event, "not base64"), Err(EvidenceError::Unreadable));
    let Event::HoldAnswered { operator, answer, reason, signature, signed, .. } = event else { panic!("an answer") };
    let moved = Event::HoldAnswered { hold: two, operator, answer, reason, signature, signed };
    assert_eq!(verify_answer(&moved, &BASE64.encode(ben.spki())), Err(EvidenceError::Differs));
}

#[tokio::test]
async fn an_approval_is_for_what_was_shown_by_a_person_who_may() {
    let (world, ana, ben) = world().await;
    let hold = world.hold(1, 1).await;
    let (who_ana, who_ben) = (enter(&world, &ana).await, enter(&world, &ben).await);
    // The agent acts for ana.
    assert!(matches!(world.desk.propose(&who_ana, approval(&world, hold)), Ok(_) | Err(DeskError::Forbidden(_))));
    let Command::Answer { answer, reason, signed, .. } = approval(&world, hold) else { panic!("an answer") };
    let wrong_name = Command::Answer { hold, answer, confirm: Some("public.Orders".to_owned()), reason: reason.clone(), signed };
    assert!(matches!(world.desk.propose(&who_ben, wrong_name), Err(DeskError::Invalid(_))));
    // What was shown had another reach: its digest is not this one's.
    let stale = reprieve_operation::Digest::of(&[b"another measurement"]);
    let drifted = Command::Answer { hold, answer, confirm: Some("public.orders".to_owned()), reason, signed: stale };
    assert!(matches!(world.desk.propose(&who_ben, drifted), Err(DeskError::Invalid(text)) if text.contains("changed")));
    // Ana's passkey does not confirm what ben proposed.
    let proposal = world.desk.propose(&who_ben, approval(&world, hold)).expect("proposed");
    let tried = world.desk.confirm(who_ben.clone(), proposal.proposal, ana.asserts(&proposal.challenge)).await;
    assert_eq!(tried, Err(DeskError::NotAuthenticated));
    // Nor is a session enough.
    assert!(matches!(world.desk.act(who_ben.clone(), approval(&world, hold)).await, Err(DeskError::Forbidden(_))));
    let thaw = Command::Thaw { agent: None, reason: "x".to_owned() };
    assert!(matches!(world.desk.act(who_ben.clone(), thaw).await, Err(DeskError::Forbidden(_))));
    assert_eq!(world.status(hold), HoldStatus::Waiting);
    world.desk.act(who_ben, world.answer(hold, Answer::Deny)).await.expect("denied");
    assert_eq!(world.status(hold), HoldStatus::Denied);
}

#[tokio::test]
async fn a_removed_passkey_ends_its_sessions_and_opens_nothing() {
    let (world, ana, ben) = world().await;
    let challenge = world.desk.challenge();
    let sign_in = SignIn { assertion: ben.asserts(&challenge), challenge };
    let on = world.desk.sign_in(sign_in, BROWSER, PEER).await.expect("signed in");
    assert!(world.desk.session(&on.secret, BROWSER).is_some() && world.desk.session(&on.secret, "another").is_none());
    let who = enter(&world, &ana).await;
    let remove = Command::RemovePasskey { operator: world.ben.name.clone(), credential: ben.credential() };
    let proposal = world.desk.propose(&who, remove).expect("proposed");
    world.desk.confirm(who, proposal.proposal, ana.asserts(&proposal.challenge)).await.expect("removed");
    assert!(world.desk.session(&on.secret, BROWSER).is_none());
    let challenge = world.desk.challenge();
    let sign_in = SignIn { assertion: ben.asserts(&challenge), challenge };
    assert_eq!(world.desk.sign_in(sign_in, BROWSER, PEER).await, Err(DeskError::NotAuthenticated));
}

/// An account of a provider is one operator's, and an operator is one account's, until the settings name another one.
#[tokio::test]
async fn who_is_vouched_for_is_an_operator_and_always_the_same() {
    let (world, passkey, _) = world().await;
    let (ana, ben) = (world.ana.name.clone(), world.ben.name.clone());
    let vouched = |operator: &OperatorName, subject: &str, is_named| Vouched {
        operator: operator.clone(),
        evidence: format!("{VOUCHED}https://id.test#{subject}"),
        is_named,
    };
    let admit = |vouched| world.desk.admit(vouched, BROWSER, PEER);
    assert_eq!(admit(vouched(&named("nobody"), "1", true)).await, Err(DeskError::NotAuthenticated));
    let unmarked = Vouched { evidence: passkey.credential(), ..vouched(&ana, "1", true) };
    assert_eq!(admit(unmarked).await, Err(DeskError::NotAuthenticated), "no passkey's name");
    for _ in 0..2 {
        let signed_on = admit(vouched(&ana, "1", false)).await.expect("let in");
        assert!(world.desk.session(&signed_on.secret, "another browser").is_none());
        let who = world.desk.session(&signed_on.secret, BROWSER).expect("a session");
        // It stops things, and decides nothing.
        let freeze = Command::Freeze { agent: None, reason: "a look".to_owned() };
        world.desk.act(who.clone(), freeze).await.expect("frozen");
        let thaw = Command::Thaw { agent: None, reason: "mine".to_owned() };
        assert!(matches!(world.desk.act(who.clone(), thaw.clone()).await, Err(DeskError::Forbidden(_))));
        let proposal = world.desk.propose(&who, thaw).expect("proposed");
        let stranger = Passkey::new("another’s").asserts(&proposal.challenge);
        assert_eq!(world.desk.confirm(who.clone(), proposal.proposal, stranger).await, Err(DeskError::NotAuthenticated));
    }
    for (operator, subject, is_named, why) in [
        (&ana, "2", false, "her address is somebody else’s now"),
        (&ben, "1", false, "one account is not two operators"),
        (&ben, "1", true, "whatever the settings say"),
    ] {
        let refused = admit(vouched(operator, subject, is_named)).await;
        assert!(matches!(refused, Err(DeskError::Forbidden(_))), "{why}: {refused:?}");
    }
    admit(vouched(&ana, "2", true)).await.expect("the settings name it");
    assert!(admit(vouched(&ana, "1", false)).await.is_err(), "the old one is out");
    admit(vouched(&ben, "1", false)).await.expect("it is free again");
}
