//! The decision on a hold: who answered, denying first, approving last, and what can still be done about it afterwards.

use maud::{Markup, html};
use reprieve_gate::SignedIn;
use reprieve_operation::{Answer, HoldState, HoldStatus, OperatorName, Timestamp};

use crate::{
    frame::{form_token, say},
    pages::holds::{ending, pips},
    site::Site,
    statement::claimed_rows,
    words::{count, icon, number, person, span, visible},
};

use super::evidence::words_of;

/// How long an approval can still be stopped after the passkey.
const STOP_WITHIN_S: u32 = 10;

/// The panel where one decides.
pub(super) fn decision(site: &Site, hold: &HoldState, people: &[OperatorName], who: &SignedIn, now: Timestamp) -> Markup {
    let path = format!("/holds/{}", hold.hold);
    let (have, need) = (hold.counted_approvals(), hold.needs.approvals);
    let waiting = hold.status == HoldStatus::Waiting;
    let mine = hold.answers.iter().find(|(operator, ..)| *operator == who.operator);
    let alone = hold.on_behalf_of.as_ref() == Some(&who.operator);
    let frozen = site.is_frozen(&hold.agent);
    html! {
        // Without a trigger of its own a click anywhere would fetch it anew, under the hands of whoever decides.
        @let refreshed = !waiting || mine.is_some();
        div.decide id="decision" hx-get=[refreshed.then_some(&path)] hx-select="#decision" hx-swap="outerHTML" hx-trigger=[refreshed.then_some("sse:hold")] {
            (clock(hold, now))
            section aria-labelledby="d-ap" {
                div.row { h2 id="d-ap" { (have) " of " (need.max(1)) @if need > 1 { " approvals" } @else { " approval" } } span.push { (pips(have, need.max(1))) } }
                ul.people {
                    @for (operator, answer, reason) in &hold.answers { li {
                        (person(operator)) small { @if *answer == Answer::Approve { "approved" } @else { "denied" } }
                        @if !reason.is_empty() { q { (visible(reason)) } }
                    } }
                    @if waiting && mine.is_none() && !alone { li { span.who { i aria-hidden="true" { "•" } b { "You" } } small { "not decided" } } }
                    @for operator in people.iter().filter(|operator| hold.on_behalf_of.as_ref() == Some(operator)) {
                        li.muted { span.who { s { (operator) } } small { "can’t alone: the agent acts for them" } }
                    }
                }
            }
            @if waiting && mine.is_none() {
                (deny_form(&path, hold, who))
                @if frozen { section.approve-zone id="approve" { p.small { "The agent is frozen. Only a denial is possible until it is thawed." } } }
                @else if alone && need <= 1 { section.approve-zone id="approve" { p.small { "The agent acts for you, so your approval would not count: somebody else has to look." } } }
                @else { (approve_form(&path, hold, who)) }
            } @else if waiting {
                section { p.small.soft { "Your answer is on record. It takes " (need.saturating_sub(have)) " more." } }
            } @else if hold.status == HoldStatus::Scheduled {
                (keep_form(&path, who))
            } @else {
                section { p.small.soft { (afterwards(hold)) } }
            }
        }
    }
}

fn clock(hold: &HoldState, now: Timestamp) -> Markup {
    let left = hold.expires.since(now);
    let counted = |icon_name: &str, words: &str, left: std::time::Duration| {
        html! { p.clock { (icon(icon_name)) (words) span.push data-left=(left.as_secs()) { (span(left)) } } }
    };
    match (hold.status, hold.due) {
        (HoldStatus::Waiting, _) => counted("clock", "Denied automatically in", left),
        (HoldStatus::Scheduled, Some(due)) => counted("clock", "Carried out in", due.since(now)),
        (HoldStatus::Denied | HoldStatus::Expired, _) => html! { p.clock.is-denied { (ending(hold)) } },
        (HoldStatus::Finished, _) if hold.succeeded == Some(true) => html! { p.clock.is-run { (ending(hold)) } },
        _ => html! { p.clock { (ending(hold)) } },
    }
}

fn afterwards(hold: &HoldState) -> Markup {
    html! { @match hold.status {
        HoldStatus::Denied => "It did not run. The agent gets to read the reason.",
        HoldStatus::Expired => "Nobody decided in time, so it is denied. It did not run.",
        HoldStatus::Approved => "It runs once, when its client comes for it, if it still reaches no further.",
        HoldStatus::Released => "It is running now.",
        HoldStatus::Finished => @if hold.succeeded == Some(true) { "It ran once, as approved. " a href="/undo" { "What can be taken back" } } @else { "It was approved, and did not run: nothing was changed." },
        HoldStatus::Waiting | HoldStatus::Scheduled => "",
    } }
}

/// What is approved and not yet carried out can be kept from happening, by anybody and without a passkey.
pub(crate) fn keep_form(path: &str, who: &SignedIn) -> Markup {
    html! {
        section id="deny" aria-labelledby="d-no" {
            form.stack-s method="post" action={ (path) "/deny" } {
                (form_token(who))
                h2 id="d-no" { "Keep it" }
                p.small.soft { "It is approved, and waits in sight of everybody. Anybody may cancel it until its time is up." }
                label { span.vh { "Why it is kept" } textarea name="reason" rows="2" required maxlength="1000" placeholder="Why it is kept" {} }
                button.btn.main.block type="submit" { "Cancel it" }
            }
        }
    }
}

/// A useful draft of what the agent is told: the measured number, and a narrower way.
fn draft(hold: &HoldState) -> String {
    match (&hold.reach, words_of(hold).as_deref().and_then(claimed_rows)) {
        (Some(reach), Some(claimed)) if reach.rows() > claimed => {
            format!("This reaches {}, you said {}. Narrow it to those, and ask again.", count(reach.rows(), "row", "rows"), number(claimed))
        }
        (Some(reach), _) if reach.rows() > 0 => format!("This reaches {}. Narrow it, and ask again.", count(reach.rows(), "row", "rows")),
        _ => hold.needs.remedy.clone(),
    }
}

fn deny_form(path: &str, hold: &HoldState, who: &SignedIn) -> Markup {
    html! {
        section id="deny" aria-labelledby="d-no" {
            form.stack-s method="post" action={ (path) "/deny" } {
                (form_token(who))
                h2 id="d-no" { "Deny" }
                label { span.vh { "What the agent is told" } textarea name="reason" rows="3" required maxlength="1000" { (draft(hold)) } }
                button.btn.main.block type="submit" { "Deny" }
                button.btn.block type="submit" name="freeze" value="1" { (icon("freeze")) "Deny and freeze " (hold.agent) }
            }
        }
    }
}

fn approve_form(path: &str, hold: &HoldState, who: &SignedIn) -> Markup {
    // Blanks and signs in a name count as themselves.
    let pattern: String = hold
        .confirm
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c.to_string() } else { format!("\\u{{{:X}}}", u32::from(c)) })
        .collect();
    html! {
        section.approve-zone id="approve" aria-labelledby="d-yes" {
            form method="post" action={ (path) "/approve" } data-confirm=(hold.confirm) data-passkey data-delay=(STOP_WITHIN_S) autocomplete="off" {
                (form_token(who))
                input type="hidden" name="signed" value=(hold.digest_to_sign(Answer::Approve).to_string());
                h2.vh id="d-yes" { "Approve" }
                label.lab for="confirm-name" { "To approve, type " span.confirm-name { (visible(&hold.confirm)) } }
                input.mono id="confirm-name" type="text" name="confirm" required pattern=(pattern) data-confirm-field autocapitalize="none" autocorrect="off" spellcheck="false" aria-describedby="signs";
                label.lab.gap-t for="why-yes" { "Why, for the record" }
                input id="why-yes" type="text" name="reason" maxlength="1000";
                button.btn.destroy.block type="submit" { (icon("key")) "Approve with passkey" }
                p.small data-stop hidden role="status" { "Approving in " b { (STOP_WITHIN_S) } " s. " button.btn.sm type="button" { "Stop" } }
                (say())
                p.signs id="signs" { "Your passkey signs this statement and this measurement. It is measured again as it runs; if it reaches further, it is rolled back and held again." }
            }
        }
    }
}

/// At the thumb on a phone: to deny, and to where one could approve. Never approving itself.
pub(super) fn thumb(hold: &HoldState) -> Markup {
    html! { @if hold.status == HoldStatus::Waiting {
        div.thumb.only-phone { a.btn.main href="#deny" { "Deny" } a.btn href="#approve" { "Go to approval" (icon("down")) } }
    } }
}
