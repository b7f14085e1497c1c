//! The operators' listener: their pages and their commands over HTTPS, and nothing of the agents'.
//!
//! [`serve`] accepts connections (`listener.rs`), `routes.rs` lists what the command line asks, `pages.rs` what a browser asks, and
//! `door.rs` says who may. `feed.rs` follows the ledger for the pages that move. All it knows of the gateway are the gate's traits, which
//! check every command; this crate only bounds and translates.

mod answers;
mod assets;
mod door;
mod feed;
mod frame;
mod listener;
mod pages;
mod problem;
mod routes;
mod site;
mod statement;
mod words;

pub use listener::serve;
pub use pages::PAGES;
pub use routes::ROUTES;
pub use site::{Console, PolicyFiles, Shown, Simulate, UsedSince};

#[cfg(test)]
mod tests;
