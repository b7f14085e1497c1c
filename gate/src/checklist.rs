//! The checklist: the eight questions to ask before an agent gets access, answered from what is measured at this moment.
//!
//! The console's page and the command line show the same points. What nothing measures is open, never assumed.

use reprieve_operation::{AgentState, HoldStatus, Kind, Pattern, State, SystemName, Timestamp};
use reprieve_policy::Profile;
use serde::Serialize;

use crate::{
    records::LedgerCheck,
    recovery::{RecoveryReport, SystemRecovery},
};

/// How a point stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// It holds.
    Holds,
    /// It holds in part.
    Attention,
    /// It does not hold.
    Broken,
    /// Nothing here measures it.
    NotMeasured,
}

/// What to do about a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// The console's page.
    pub page: &'static str,
    /// The button there.
    pub word: &'static str,
    /// The command.
    pub command: &'static str,
}

/// One of the eight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// How it stands.
    pub mark: Mark,
    /// What is asked.
    pub title: &'static str,
    /// What it means here.
    pub text: &'static str,
    /// What was measured.
    pub evidence: String,
    /// What to do.
    pub fix: Option<Fix>,
}

/// What the points are answered from.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'a> {
    /// What the ledger folds to.
    pub state: &'a State,
    /// The policy's.
    pub profile: Profile,
    /// What is known of copies.
    pub recovery: &'a RecoveryReport,
    /// What came of recounting the ledger; `None`: nobody did yet.
    pub ledger: Option<&'a LedgerCheck>,
    /// Systems of different environments that are reached with the same credential.
    pub shared: &'a [(SystemName, SystemName)],
    /// The time.
    pub now: Timestamp,
}

/// The eight points.
#[must_use]
pub fn checklist(measured: &Measured<'_>) -> Vec<Point> {
    let Measured { state, profile, recovery, now, .. } = *measured;
    let agents: Vec<&AgentState> = state.agents.values().filter(|entry| !entry.revoked && !entry.decoy && entry.expires > now).collect();
    let may_grant = |entry: &&AgentState| entry.scope.kinds.contains(&Kind::Grant);
    let wide = agents.iter().filter(|entry| may_grant(entry) || entry.scope.resources.iter().any(is_everything)).count();
    let granting = agents.iter().filter(|entry| may_grant(entry)).count();
    let tokens = count(agents.len(), "token");
    let decided = state.holds.values().filter(|hold| hold.status != HoldStatus::Waiting).count();
    let with_passkey = state.operators.values().filter(|operator| !operator.passkeys.is_empty()).count();
    let holds = |good: bool, otherwise: Mark| if good { Mark::Holds } else { otherwise };
    // Of no tokens nothing can be said.
    let of_tokens = |good: bool, otherwise: Mark| if agents.is_empty() { Mark::NotMeasured } else { holds(good, otherwise) };
    let fix = |wanted: bool, page, word, command| wanted.then_some(Fix { page, word, command });
    vec![
        Point {
            mark: of_tokens(wide == 0, Mark::Attention),
            title: "Tokens carry the least they need",
            text: "No token names every resource, or may grant.",
            evidence: format!("{tokens}, {wide} of them wide"),
            fix: fix(wide > 0, "/agents", "Narrow them", "reprieve agent narrow AGENT --allow … --resource …"),
        },
        separated(&agents, measured.shared),
        Point {
            mark: holds(
                profile != Profile::Observe && with_passkey > 0,
                if profile == Profile::Observe { Mark::Broken } else { Mark::Attention },
            ),
            title: "Destructive operations need a confirmation the agent cannot give",
            text: "Typed name and a person’s passkey.",
            evidence: format!("profile {profile}, {decided} decided in 3 days, {} with a passkey", people(with_passkey)),
            fix: fix(with_passkey == 0, "/agents", "Enrol", "reprieve serve: the link that it prints enrols a passkey"),
        },
        logged(measured.ledger),
        Point {
            mark: of_tokens(granting == 0, Mark::Attention),
            title: "Agents cannot change their own permissions",
            text: "No token opens this console, no wire of agents has a word for it, and none may grant in a database.",
            evidence: format!("{granting} of {tokens} may grant"),
            fix: fix(granting > 0, "/agents", "Narrow them", "reprieve agent narrow AGENT --allow …, without grant"),
        },
        independent(recovery),
        tested(recovery),
        Point {
            mark: Mark::NotMeasured,
            title: "Agents run in a sandbox with no other way to production",
            text: "The sandbox and the probe of other routes are not built yet: close the database’s port to all but the gateway.",
            evidence: "not measured".to_owned(),
            fix: None,
        },
    ]
}

/// Whether a pattern leaves nothing out.
fn is_everything(pattern: &Pattern) -> bool {
    pattern.to_string().chars().all(|character| matches!(character, '*' | '?' | '.'))
}

fn separated(agents: &[&AgentState], shared: &[(SystemName, SystemName)]) -> Point {
    let mixed = agents.iter().filter(|entry| entry.scope.environments.len() > 1).count();
    let mark = match (agents.len(), mixed, shared.len()) {
        (_, 0, 0) if !agents.is_empty() => Mark::Holds,
        (0, _, 0) => Mark::NotMeasured,
        _ => Mark::Broken,
    };
    let mut evidence = format!("{mixed} of {} span environments", count(agents.len(), "token"));
    if !shared.is_empty() {
        let pairs: Vec<String> = shared.iter().map(|(one, other)| format!("{one} and {other}")).collect();
        evidence.push_str(&format!("; the same credential reaches {}", pairs.join(", ")));
    }
    let command = match shared.is_empty() {
        true => "reprieve agent revoke AGENT, and one token for each environment",
        false => "another login for each environment’s `url`",
    };
    Point {
        mark,
        title: "Staging and production use separate credentials",
        text: "No token reaches two environments, and no login of this gateway does.",
        evidence,
        fix: (mark == Mark::Broken).then_some(Fix { page: "/agents", word: "Split them", command }),
    }
}

fn logged(ledger: Option<&LedgerCheck>) -> Point {
    let (mark, evidence) = match ledger {
        None => (Mark::NotMeasured, "not recounted yet since the start".to_owned()),
        Some(LedgerCheck { size, fault: None, .. }) => {
            (Mark::Holds, format!("{}, signed, and as they were signed", count(usize::try_from(*size).unwrap_or(usize::MAX), "event")))
        }
        Some(LedgerCheck { fault: Some(fault), .. }) => (Mark::Broken, format!("does not verify: stop and call security: {fault}")),
    };
    Point {
        mark,
        title: "Every action is logged, with its time",
        text: "In a log nobody can change unnoticed, us included.",
        evidence,
        fix: Some(Fix { page: "/audit", word: "Look", command: "reprieve ledger verify" }),
    }
}

/// The systems that matter: those in production, or all where none is.
fn that_matter(recovery: &RecoveryReport) -> Vec<&SystemRecovery> {
    let production: Vec<&SystemRecovery> = recovery.systems.iter().filter(|system| system.environment.is_production()).collect();
    if production.is_empty() { recovery.systems.iter().collect() } else { production }
}

fn independent(recovery: &RecoveryReport) -> Point {
    let systems = that_matter(recovery);
    let copied = systems.iter().filter(|system| system.backup.is_some()).count();
    let same = systems.iter().filter(|system| system.same_blast_radius).count();
    let tried = systems.iter().filter(|system| system.passed.is_some()).count();
    let apart = systems.iter().filter(|system| system.tried_apart).count();
    let locked = systems.iter().filter(|system| system.is_locked).count();
    let mark = match systems.len() {
        0 => Mark::NotMeasured,
        all if copied == all && tried == all && same == 0 && apart == all && locked == all => Mark::Holds,
        _ if copied > 0 => Mark::Attention,
        _ => Mark::Broken,
    };
    Point {
        mark,
        title: "Backups are verified out of the agents’ reach",
        text: "By a process and a key of its own, from a place that what destroys the system does not reach.",
        evidence: format!(
            "{copied} of {} copied, {tried} tried by the verifier, {apart} with its key elsewhere than here, {same} in the same blast radius, {locked} locked",
            count(systems.len(), "system")
        ),
        fix: (mark != Mark::Holds).then_some(Fix {
            page: "/recovery",
            word: "Recovery",
            command: "a `[vault] store` elsewhere that locks, `recovery.locked`, `recovery.verifier_key` elsewhere, and `reprieve drill run`",
        }),
    }
}

fn tested(recovery: &RecoveryReport) -> Point {
    let systems = that_matter(recovery);
    let unproven: Vec<String> =
        systems.iter().filter_map(|system| system.unproven.map(|why| format!("{}: {}", system.system, why.in_words()))).collect();
    let mark = match systems.len() {
        0 => Mark::NotMeasured,
        _ if unproven.is_empty() => Mark::Holds,
        _ => Mark::Broken,
    };
    let evidence = match mark {
        Mark::NotMeasured => "there is no database to restore".to_owned(),
        Mark::Holds => format!("{} restored within the window", count(systems.len(), "system")),
        Mark::Attention | Mark::Broken => unproven.join("; "),
    };
    Point {
        mark,
        title: "Recovery has been tested",
        text: "A copy of each production system was restored within its window, and stood every check.",
        evidence,
        fix: (mark != Mark::Holds).then_some(Fix { page: "/recovery", word: "Recovery", command: "reprieve drill run SYSTEM" }),
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn people(number: usize) -> String {
    if number == 1 { "1 person".to_owned() } else { format!("{number} people") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_tried_does_not_hold() {
        let report = |systems| RecoveryReport { at: Timestamp(0), systems };
        let system = |unproven, same_blast_radius, passed| SystemRecovery {
            system: "shop".parse().expect("a name"),
            environment: "production".parse().expect("a name"),
            unproven,
            window_s: None,
            objective_rpo_s: None,
            objective_rto_s: None,
            backup: Some(Timestamp(0)),
            backup_failed: None,
            reaches: Some(Timestamp(0)),
            backups: 1,
            bytes: None,
            place: String::new(),
            same_blast_radius,
            locked: String::new(),
            is_locked: true,
            tried_apart: true,
            passed,
            failures: Vec::new(),
            last: None,
            days: Vec::new(),
            drills: (0, 0),
            rpo_ms: None,
            rto_ms: None,
        };
        let passed = Some((Timestamp(0), 4, 0));
        for (systems, sixth, seventh) in [
            (vec![], Mark::NotMeasured, Mark::NotMeasured),
            (vec![system(None, false, passed)], Mark::Holds, Mark::Holds),
            (vec![system(None, true, passed)], Mark::Attention, Mark::Holds),
            (vec![system(Some(crate::Unproven::NoDrill), false, None)], Mark::Attention, Mark::Broken),
            (vec![system(None, false, passed), system(Some(crate::Unproven::TooOld), false, passed)], Mark::Holds, Mark::Broken),
        ] {
            let (state, recovery) = (State::default(), report(systems));
            let nothing =
                Measured { state: &state, profile: Profile::Guard, recovery: &recovery, ledger: None, shared: &[], now: Timestamp(1) };
            let points = checklist(&nothing);
            assert_eq!((points[5].mark, points[6].mark), (sixth, seventh));
            assert_eq!(points.len(), 8);
            assert!(points[..5].iter().all(|point| point.mark != Mark::Holds), "nothing was measured: {points:?}");
            // By the gateway's own hand, or where whoever writes can delete.
            for worse in [|one: &mut SystemRecovery| one.tried_apart = false, |one: &mut SystemRecovery| one.is_locked = false] {
                let mut recovery = recovery.clone();
                recovery.systems.iter_mut().for_each(worse);
                assert_ne!(checklist(&Measured { recovery: &recovery, ..nothing })[5].mark, Mark::Holds);
            }
            let fault = LedgerCheck { at: Timestamp(0), size: 3, fault: Some("event 3 was changed".to_owned()) };
            assert_eq!(checklist(&Measured { ledger: Some(&fault), ..nothing })[3].mark, Mark::Broken);
            let good = LedgerCheck { fault: None, ..fault };
            assert_eq!(checklist(&Measured { ledger: Some(&good), ..nothing })[3].mark, Mark::Holds);
            let shared = [("shop".parse().expect("a name"), "shop-staging".parse().expect("a name"))];
            assert_eq!(checklist(&Measured { shared: &shared, ..nothing })[1].mark, Mark::Broken);
        }
    }
}
