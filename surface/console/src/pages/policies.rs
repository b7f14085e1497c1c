//! Policies: which rules are in force, and would this one be accepted?

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use maud::{Markup, html};
use reprieve_gate::SignedIn;
use reprieve_policy::{Policy, Source};

use crate::{
    door::{Entered, Posted},
    frame::{Page, Section, form_token},
    problem::Problem,
    site::Site,
    words::{count, icon, visible},
};

const LARGEST_DRAFT: usize = 64 * 1024;

pub(crate) async fn page(State(site): State<Arc<Site>>, Entered(who): Entered) -> Result<Response, Problem> {
    let body = render(&site, &who, None).await?;
    Ok(Page::new(Section::Policies, body).answer(&site, &who))
}

/// Checks a draft together with what is in force. Saves nothing.
pub(crate) async fn check(State(site): State<Arc<Site>>, Posted { who, form }: Posted) -> Result<Response, Problem> {
    let draft = form.exact("cedar").replace("\r\n", "\n");
    if draft.len() > LARGEST_DRAFT {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "a draft holds at most 64 KiB"));
    }
    let body = render(&site, &who, Some(draft)).await?;
    Ok(Page::new(Section::Policies, body).answer(&site, &who))
}

async fn render(site: &Arc<Site>, who: &SignedIn, draft: Option<String>) -> Result<Markup, Problem> {
    let policy = site.console.policy.load_full();
    let (files, draft_too) = (site.console.policy_files.clone(), draft.clone());
    let profile = policy.profile();
    // Reading files and building a policy set both block.
    let worked = tokio::task::spawn_blocking(move || {
        let sources = files();
        let verdict = draft_too.map(|draft| {
            let mut all = sources.clone().unwrap_or_default();
            all.push(Source { name: "draft".to_owned(), text: draft });
            Policy::build(profile, &all).map(|policy| policy.digest()).map_err(|error| error.to_string())
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
                Some(Ok(digest)) => div.note.ok role="status" { (icon("check")) div { b { "It would be accepted." } " " span.soft { "The set would have the digest " (digest.short()) ". To put it in force, save it as a file in the folder of policies." } } },
                Some(Err(because)) => div.note.danger role="status" { (icon("warn")) div { b { "It would be refused." } " " (visible(because)) } },
                None => {}
            }
            form.stack-s method="post" action="/policies/check" {
                (form_token(who))
                label.lab for="cedar" { "Cedar" }
                textarea.mono id="cedar" name="cedar" rows="10" spellcheck="false" required maxlength=(LARGEST_DRAFT) { @match &draft { Some(draft) => (draft), None => (EXAMPLE) } }
                div.row { button.btn type="submit" { "Check" } }
            }
        }
        div.note { (icon("clock")) div { b { "Replaying the past against a draft, and proofs, are not built yet." } " " span.soft { "This page will list every verdict that would have changed." } } }
    })
}

const EXAMPLE: &str = "@id(\"nobody-touches-payments\")\n@reason(\"payments are changed by people\")\n@remedy(\"ask the payments team\")\nforbid (principal, action, resource)\nwhen { false };\n";
