//! The decision.

use std::{fmt::Write as _, time::Duration};

use reprieve_operation::{Decision, Facts, Needs, Operation, Refusal, RefusalKind, Terms};

use crate::{
    circumstances::Circumstances,
    policy::Policy,
    rule::Rule,
    rule_set::{Answer, RuleSet},
    touch::Touches,
};

/// The most approvals that a counterfactual tries.
const APPROVALS: u32 = 2;

/// The rule that is named when no permit matches, and its words.
const NO_PERMIT: [&str; 3] = ["no-permit", "no rule permits it", "ask an operator"];

/// The same for a channel, which `guard` leaves to the approval of people or to a `permit` of the user's.
const CHANNELS: [&str; 3] = [
    "channels",
    "it makes something else of the connection, and nobody looks into what is said there",
    "call the service's ordinary operations, or wait for an operator's approval",
];

/// Decides on `operation` under `facts`. Total, and the same input gives the same answer.
pub fn decide(policy: &Policy, operation: &Operation, facts: &Facts) -> Decision {
    let Ok(touches) = Touches::of(operation) else {
        let reason = "the operation touches too many resources to be decided on";
        return refuse(RefusalKind::Refused, "too-many-resources", reason, "touch fewer tables at a time", operation);
    };
    let case = Case { operation, touches: &touches, circumstances: Circumstances::new(operation, facts, touches.out_of_scope(operation)) };
    let decision = case.decide(&policy.enforced);
    match (decision, &policy.shadow) {
        (Decision::Allow(terms), Some(shadow)) => {
            // No ceiling: what would have happened depends on the exact measurement.
            Decision::Allow(Terms { would_have: would_have(&case.decide(shadow)), ceiling: None, ..terms })
        }
        (decision, _) => decision,
    }
}

/// One operation under certain circumstances.
struct Case<'a> {
    operation: &'a Operation,
    touches: &'a Touches<'a>,
    circumstances: Circumstances,
}

impl Case<'_> {
    fn decide(&self, rules: &RuleSet) -> Decision {
        let forbids = match rules.ask(self.operation, self.touches, &self.circumstances) {
            Answer::Permitted(by) => {
                let because = by.iter().filter_map(|place| rules.rule(*place)).map(|rule| rule.id.clone()).collect();
                let lasting = self.ceiling(rules, false);
                let undoable_only = lasting.is_none() && rules.mentions.has("undoable");
                let ceiling = if undoable_only { self.ceiling(rules, true) } else { lasting };
                return Decision::Allow(Terms { ceiling, undoable_only, because, would_have: None });
            }
            Answer::Forbidden(by) => by,
            Answer::Broken(error) => return self.broken(&error),
        };
        // What stands in the way even when everything is granted is the reason of a refusal.
        let mut remaining = forbids.clone();
        for candidate in self.candidates(rules) {
            match rules.ask(self.operation, self.touches, &candidate) {
                Answer::Permitted(_) => return self.needs(rules.first(&forbids), &candidate),
                Answer::Forbidden(by) => remaining = by,
                Answer::Broken(error) => return self.broken(&error),
            }
        }
        self.refused(rules.first(&remaining))
    }

    /// Circumstances with more granted, cheapest first: a way back, a delay, one approval, two.
    fn candidates(&self, rules: &RuleSet) -> Vec<Circumstances> {
        let now = &self.circumstances;
        let mut approvals = vec![now.approvals];
        if rules.mentions.has("approvals") {
            approvals.extend((1..=APPROVALS).filter(|count| *count > now.approvals));
        }
        let mut delays = vec![now.delay];
        if rules.mentions.has("window_s") && now.window > now.delay {
            delays.push(now.window);
        }
        delays.extend(rules.delays_s.iter().map(|seconds| Duration::from_secs(*seconds)).filter(|delay| *delay > now.delay));
        delays[1..].sort_unstable();
        delays.dedup();
        let undoable: &[bool] =
            if rules.mentions.has("undoable") && !now.undoable && !now.lasting { &[false, true] } else { &[now.undoable] };
        let mut candidates = Vec::new();
        for approvals in &approvals {
            for delay in &delays {
                for undoable in undoable {
                    candidates.push(Circumstances { approvals: *approvals, delay: *delay, undoable: *undoable, ..now.clone() });
                }
            }
        }
        // The first is what was just asked.
        candidates.remove(0);
        candidates
    }

    fn needs(&self, rule: Option<&Rule>, candidate: &Circumstances) -> Decision {
        let now = &self.circumstances;
        let (id, reason, remedy) = words(rule, now);
        Decision::Needs(Needs {
            approvals: if candidate.approvals > now.approvals { candidate.approvals } else { 0 },
            delay: if candidate.delay > now.delay { candidate.delay } else { Duration::ZERO },
            undo: candidate.undoable && !now.undoable,
            rule: id,
            reason,
            remedy,
        })
    }

    fn refused(&self, rule: Option<&Rule>) -> Decision {
        let (id, reason, remedy) = words(rule, &self.circumstances);
        let kind = if self.circumstances.frozen { RefusalKind::Frozen } else { RefusalKind::Refused };
        refuse(kind, &id, &reason, &remedy, self.operation)
    }

    fn broken(&self, error: &str) -> Decision {
        let reason: String = format!("a policy could not be evaluated: {error}").chars().take(500).collect();
        refuse(
            RefusalKind::Unavailable,
            "policy-error",
            &reason,
            "an operator has to correct the policy; nothing was changed",
            self.operation,
        )
    }

    /// Rows up to which any change is allowed. Asked as if the whole of what the budget leaves had been removed, wherever.
    ///
    /// A trigger or a cascade may change any table and remove rows, whatever the text says. So the number only holds when
    /// the token covers that, when no rule tells tables apart, and when no rule of a user weighs rows.
    fn ceiling(&self, rules: &RuleSet, undoable: bool) -> Option<u64> {
        let rows = self.circumstances.rows_left();
        if self.circumstances.measured || rows == 0 || !rules.is_uniform || rules.weighs_rows || !self.operation.may_change() {
            return None;
        }
        let touches = self.touches.with_any_change();
        let assumed = self.circumstances.assuming(rows, undoable, touches.out_of_scope(self.operation));
        match rules.ask(self.operation, &touches, &assumed) {
            Answer::Permitted(_) => Some(rows),
            Answer::Forbidden(_) | Answer::Broken(_) => None,
        }
    }
}

fn words(rule: Option<&Rule>, circumstances: &Circumstances) -> (String, String, String) {
    match rule {
        Some(rule) => (rule.id.clone(), rule.reason(circumstances), rule.remedy(circumstances)),
        None => {
            let words = if circumstances.channel { CHANNELS } else { NO_PERMIT };
            words.map(str::to_owned).into()
        }
    }
}

fn refuse(kind: RefusalKind, rule: &str, reason: &str, remedy: &str, operation: &Operation) -> Decision {
    let mut refusal = Refusal::refused(rule, reason, remedy);
    refusal.kind = kind;
    refusal.reach.clone_from(&operation.reach);
    Decision::Refuse(refusal)
}

/// What a stricter profile would have answered, in words; `None` if the same.
fn would_have(decision: &Decision) -> Option<String> {
    match decision {
        Decision::Allow(_) => None,
        Decision::Needs(needs) => {
            let mut text = format!("hold (rule `{}`): {}; needs", needs.rule, needs.reason);
            if needs.approvals > 0 {
                let _ = write!(text, " {} approval{}", needs.approvals, if needs.approvals == 1 { "" } else { "s" });
            }
            if !needs.delay.is_zero() {
                let _ = write!(text, " {} s of delay", needs.delay.as_secs());
            }
            if needs.undo {
                text.push_str(" a way back");
            }
            Some(text)
        }
        Decision::Refuse(refusal) => Some(format!("refuse (rule `{}`): {}", refusal.rule, refusal.reason)),
    }
}
