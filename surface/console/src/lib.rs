//! The operators' listener: their commands over HTTPS, and nothing of the agents'.
//!
//! [`serve`] accepts connections (`listener.rs`), `routes.rs` lists what can be asked, `problem.rs` spells refusals. All it
//! knows of the gateway is [`Desk`](reprieve_gate::Desk), which checks every command; this crate only bounds and translates.

mod listener;
mod problem;
mod routes;

pub use listener::serve;
pub use routes::ROUTES;

#[cfg(test)]
mod tests;
