//! The checklist: would it have happened to us? The points themselves are the gate's, and the command line's too.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use maud::{Markup, html};
use reprieve_gate::{Mark, Measured, Point, checklist};

use crate::{
    door::Entered,
    frame::{Page, Section},
    site::Site,
    words::{icon, spelled},
};

pub(crate) async fn page(State(site): State<Arc<Site>>, Entered(who): Entered) -> Response {
    let recovery = super::recovery::report(&site).await;
    let points = {
        let state = site.console.audit.state();
        checklist(&Measured {
            state: &state,
            profile: site.console.policy.load().profile(),
            recovery: &recovery,
            ledger: site.console.records.checked().as_ref(),
            shared: &site.console.shared_credentials,
            now: site.now(),
        })
    };
    let holding = points.iter().filter(|point| point.mark == Mark::Holds).count();
    let unknown = points.iter().filter(|point| point.mark == Mark::NotMeasured).count();
    let body = html! {
        p.answer { (spelled(holding)) " of eight hold." @if unknown > 0 { span.c-danger { " " (spelled(unknown)) " can’t be told." } } }
        p.under { "The eight questions to ask before giving an agent access, answered from the state of this gateway at this moment. What nothing here measures counts as open." }
        section.pts { @for (at, point) in points.iter().enumerate() { (render(at + 1, point)) } }
    };
    Page::new(Section::Checklist, body).answer(&site, &who)
}

fn render(number: usize, point: &Point) -> Markup {
    let (class, shape, word) = match point.mark {
        Mark::Holds => ("mark", "check", "Holds"),
        Mark::Attention => ("mark w", "warn", "Needs attention"),
        Mark::Broken => ("mark n", "x", "Does not hold"),
        Mark::NotMeasured => ("mark w", "clock", "Not measured"),
    };
    html! {
        article.pt {
            span class=(class) { (icon(shape)) span.vh { (word) } }
            div { h2 { (number) ". " (point.title) } p { (point.text) } }
            p.ev { (point.evidence) }
            @if let Some(fix) = point.fix { a.btn.sm.ghost href=(fix.page) { (fix.word) } } @else { span {} }
        }
    }
}
