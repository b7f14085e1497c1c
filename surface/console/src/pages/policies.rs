//! Policies: which rules are in force, would this one be accepted, and what would it have said to what agents did?

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use maud::{Markup, html};
use reprieve_gate::{Said, SignedIn, Simulated, Verdict};
use reprieve_operation::{Digest, Timestamp};
use reprieve_policy::{Policy, Source};

use crate::{
    door::{Entered, Posted},
    frame::{Page, Section, form_token},
    problem::Problem,
    site::Site,
    words::{agent, count, environment, icon, line, number, outcome, visible},
};

const LARGEST_DRAFT: usize = 64 * 1024;

pub(crate) async fn page(State(site): State<Arc<Site>>, Entered(who): Entered) -> Result<Response, Problem> {
    let body = render(&site, &who, None).await?;
    Ok(Page::new(Section::Policies, body).answer(&site, &who))
}

/// Checks a draft together with what is in force, and asks it about the past where that is wanted. Saves nothing.
pub(crate) async fn check(State(site): State<Arc<Site>>, Posted { who, form }: Posted) -> Result<Response, Problem> {
    let draft = form.exact("cedar").replace("\r\n", "\n");
    if draft.len() > LARGEST_DRAFT {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "a draft holds at most 64 KiB"));
    }
    let back = SPANS.iter().find(|(days, _)| *days == form.get("replay")).map(|(_, back)| *back);
    let body = render(&site, &who, Some(Draft { text: draft, back })).await?;
    Ok(Page::new(Section::Policies, body).answer(&site, &who))
}

/// How far back one may ask, as the form names it.
const SPANS: [(&str, Duration); 3] =
    [("1", Duration::from_secs(86_400)), ("7", Duration::from_secs(7 * 86_400)), ("30", Duration::from_secs(30 * 86_400))];

/// Rules that somebody tries, and how far back they are asked about what happened.
struct Draft {
    text: String,
    back: Option<Duration>,
}

/// What became of a draft.
struct Checked {
    digest: Digest,
    past: Option<Result<Simulated, String>>,
}

async fn render(site: &Arc<Site>, who: &SignedIn, draft: Option<Draft>) -> Result<Markup, Problem> {
    let policy = site.console.policy.load_full();
    let (current, files, simulate) = (policy.clone(), site.console.policy_files.clone(), site.console.simulate.clone());
    let profile = policy.profile();
    let draft_text = draft.as_ref().map(|draft| draft.text.clone());
    let (back, now) = (draft.as_ref().and_then(|draft| draft.back), site.now());
    let alone = site.simulations.clone().try_acquire_owned().ok();
    // Reading files, building a policy set and replaying the past all block.
    let worked = tokio::task::spawn_blocking(move || {
        let sources = files();
        let verdict = draft.map(|draft| {
            let mut all = sources.clone().unwrap_or_default();
            all.push(Source { name: "draft".to_owned(), text: draft.text });
            let proposed = Policy::build(profile, &all).map_err(|error| error.to_string())?;
            let past = draft.back.map(|back| {
                let _alone = alone.ok_or("somebody else asks about the past at this moment; try again when that is done")?;
                simulate(&current, &proposed, Timestamp(now.0.saturating_sub(u64::try_from(back.as_millis()).unwrap_or(u64::MAX))))
            });
            Ok::<_, String>(Checked { digest: proposed.digest(), past })
        });
        (sources, verdict)
    });
    let bug = |error: tokio::task::JoinError| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", error.to_string());
    let (sources, verdict) = worked.await.map_err(bug)?;
    Ok(html! {
        p.answer { "Profile " b { (policy.profile()) } @match &sources {
            Ok(sources) if sources.is_empty() => ", and no rules of your own.",
            Ok(sources) => { ", and " (count(sources.len() as u64, "file", "files")) " of your own." },
            Err(_) => ", and files that can’t be read.",
        } }
        p.under { "The set in force has the digest " span.mono { (policy.digest().short()) } ". A changed set is swapped in whole, or refused, and the old one stays. Agents change none of it." }
        @match &sources {
            Err(because) => div.note.danger { (icon("warn")) div { b { "The files can’t be read. " } (visible(because)) } },
            Ok(sources) => @for source in sources {
                section aria-label=(source.name) {
                    div.sec-head { h2.mono { (visible(&source.name)) } }
                    figure.stmt { pre { code { @for part in source.text.trim_end().split('\n') { span.l { (visible(part)) } } } } figcaption.foot { span { "Cedar, as it lies in the folder" } } }
                }
            },
        }
        section.after aria-labelledby="dr" {
            div.sec-head { h2 id="dr" { "Check a rule" } span.push { "together with those in force; saves nothing" } }
            @match &verdict {
                Some(Ok(checked)) => {
                    div.note.ok role="status" { (icon("check")) div { b { "It would be accepted." } " " span.soft { "The set would have the digest " (checked.digest.short()) ". To put it in force, save it as a file in the folder of policies." } } }
                    @match &checked.past {
                        Some(Ok(past)) => (replayed(past)),
                        Some(Err(because)) => div.note.danger { (icon("warn")) div { b { "It was not asked about the past. " } (visible(because)) " " code { "reprieve policy simulate" } " takes all the time it needs." } },
                        None => {}
                    }
                },
                Some(Err(because)) => div.note.danger role="status" { (icon("warn")) div { b { "It would be refused." } " " (visible(because)) } },
                None => {}
            }
            form.stack-s method="post" action="/policies/check" {
                (form_token(who))
                label.lab for="cedar" { "Cedar" }
                textarea.mono id="cedar" name="cedar" rows="10" spellcheck="false" required maxlength=(LARGEST_DRAFT) { @match &draft_text { Some(draft) => (draft), None => (EXAMPLE) } }
                fieldset.row { legend.lab { "Ask it about what agents did" }
                    @for (days, span, words) in [("", None, "No"), ("1", Some(SPANS[0].1), "The last day"), ("7", Some(SPANS[1].1), "Seven days"), ("30", Some(SPANS[2].1), "Thirty days")] {
                        label.pick { input type="radio" name="replay" value=(days) checked[back == span]; (words) }
                    }
                }
                div.row { button.btn type="submit" { "Check" } }
            }
        }
    })
}

/// Every answer that would be another one, what would pass that does not first.
fn replayed(past: &Simulated) -> Markup {
    let word = |said: &Said| match said.verdict {
        Verdict::Allow => outcome("ran", "check", "Passes"),
        Verdict::Hold => outcome("held", "holds", "Held"),
        Verdict::Refuse => outcome("denied", "deny", "Refused"),
    };
    html! {
        div.sec-head { h3 { (number(past.changed)) " of " (number(past.asked)) " recorded operations would be answered otherwise" } }
        p.small.soft { "Today’s rules answer " (number(past.as_recorded)) " of them as they were answered then."
            @for (reason, count) in &past.left_out { " Left out: " (number(*count)) ", since " (reason) "." }
            @if past.unlisted > 0 { " Not listed: " (number(past.unlisted)) "." } }
        @if !past.changes.is_empty() {
            div.scroll tabindex="0" role="region" aria-label="Changed answers" { table.tbl {
                thead { tr { th scope="col" { "Today" } th scope="col" { "With it" } th scope="col" { "Agent" } th scope="col" { "Where" } th scope="col" { "What" } th.num scope="col" { "Times" } th scope="col" { "Rule" } } }
                tbody { @for change in past.changes.iter().take(MOST_CHANGES) { tr {
                    td { (word(&change.from)) } td { (word(&change.to)) } td { (agent(&change.agent, false)) }
                    td { (environment(&change.environment)) " " span.mono.small { (change.system) } } td { code { (line(&change.text)) } }
                    td.num { a href={ "/audit/" (change.last_event) } { (number(change.times)) } }
                    td.small { @let by = if change.to.verdict == Verdict::Allow { &change.from } else { &change.to };
                        span.mono { (visible(&by.rule)) } " " span.muted { (visible(&by.reason)) } }
                } } }
            } }
            @if past.changes.len() > MOST_CHANGES { p.small.muted { "And " (number((past.changes.len() - MOST_CHANGES) as u64)) " more ways: " code { "reprieve policy simulate" } " lists them." } }
        }
    }
}

/// Changed answers on the page.
const MOST_CHANGES: usize = 100;

const EXAMPLE: &str = "@id(\"nobody-touches-payments\")\n@reason(\"payments are changed by people\")\n@remedy(\"ask the payments team\")\nforbid (principal, action, resource)\nwhen { false };\n";
