//! Pages whose service is not built: they say so, and offer nothing that does not work.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use maud::html;

use crate::{
    door::Entered,
    frame::{Page, Section},
    site::Site,
    words::icon,
};

pub(crate) async fn recovery(State(site): State<Arc<Site>>, Entered(who): Entered) -> Response {
    let body = html! {
        p.answer { "Nobody knows how fast you would be back." }
        p.under { "Backups and drills by Reprieve are not built yet, so there is no number to show here, and none is made up." }
        div.note.hold { (icon("warn")) div {
            b { "What there is instead." }
            " " span.soft { "Changes of agents can be taken back for a while: the rows are kept in the vault. That is no backup: it does not help against a lost disk, a lost account, or a mistake of a person." }
        } }
        p { a.btn href="/undo" { (icon("undo")) "What can be taken back" } }
    };
    Page::new(Section::Recovery, body).answer(&site, &who)
}
