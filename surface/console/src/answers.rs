//! How people answer: how often, how fast and how often with yes. Somebody who approves everything within seconds is not a check.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use maud::{Markup, html};
use reprieve_gate::{RecordQuery, Records, RecordsError};
use reprieve_operation::{Answer, Event, HoldId, OperatorName, Recorded, Timestamp};

use crate::words::{number, roughly};

/// The newest answers, and the newest holds, that are looked at.
const LOOKED_AT: usize = 1_000;

/// From so many answers on a share says something.
const ENOUGH: u64 = 5;

/// What one operator answered.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Answers {
    approved: u64,
    denied: u64,
    /// From the hold to the answer, in order.
    after: Vec<Duration>,
}

/// What everybody answered lately. Blocks.
pub(crate) fn by_operator(records: &dyn Records) -> Result<BTreeMap<OperatorName, Answers>, RecordsError> {
    let of_kind = |kind: &str| records.search(&RecordQuery { kind: Some(kind.to_owned()), limit: LOOKED_AT, ..RecordQuery::default() });
    Ok(counted(&of_kind("hold_opened")?, &of_kind("hold_answered")?))
}

fn counted(opened: &[Recorded], answered: &[Recorded]) -> BTreeMap<OperatorName, Answers> {
    let opened: HashMap<HoldId, Timestamp> = opened
        .iter()
        .filter_map(|recorded| match &recorded.event {
            Event::HoldOpened { hold, .. } => Some((*hold, recorded.at)),
            _ => None,
        })
        .collect();
    let mut found: BTreeMap<OperatorName, Answers> = BTreeMap::new();
    for recorded in answered {
        let Event::HoldAnswered { hold, operator, answer, .. } = &recorded.event else { continue };
        let answers = found.entry(operator.clone()).or_default();
        match answer {
            Answer::Approve => answers.approved += 1,
            Answer::Deny => answers.denied += 1,
        }
        answers.after.extend(opened.get(hold).map(|opened| recorded.at.since(*opened)));
    }
    found.values_mut().for_each(|answers| answers.after.sort_unstable());
    found
}

impl Answers {
    /// In a line, for the list of people.
    pub(crate) fn in_words(&self) -> Markup {
        let all = self.approved + self.denied;
        html! {
            (number(all)) ", " (number(self.approved)) " approved"
            @if let Some(median) = self.after.get(self.after.len() / 2) { span.muted { ", half within " (roughly(*median)) } }
            @if all >= ENOUGH && self.denied == 0 { " " b.c-hold { "never denied" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use reprieve_operation::Digest;
    use serde_json::json;

    use super::*;

    fn answered(hold: u64, operator: &str, answer: &str, at: u64) -> Recorded {
        let event = json!({ "event": "hold_answered", "hold": hold, "operator": operator, "answer": answer,
            "reason": "", "signed": Digest([0; 32]), "signature": "", "confirm": null });
        Recorded { index: at, at: Timestamp(at), event: serde_json::from_value(event).expect("an event") }
    }

    #[test]
    fn a_rubber_stamp_is_visible() {
        let answers: Vec<Recorded> = (0..5).map(|at| answered(at, "ana", "approve", at)).chain([answered(9, "ben", "deny", 9)]).collect();
        let found = counted(&[], &answers);
        let said = |name: &str| found[&name.parse::<OperatorName>().expect("a name")].in_words().into_string();
        assert!(said("ana").contains("never denied"), "{}", said("ana"));
        assert!(said("ben").starts_with("1, 0 approved") && !said("ben").contains("never"), "{}", said("ben"));
    }
}
