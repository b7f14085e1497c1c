//! `decide(policy, operation, facts)`: the one place that allows.
//!
//! Policies are written in Cedar. [`Policy::build`] checks the built-in rules of a [`Profile`] and a user's own files
//! against one strict schema; [`decide`] asks Cedar about each kind of effect, and when the answer is no, asks again with
//! one more fact granted: the cheapest facts that turn it into a yes are what the operation needs. Pure: no file, clock or
//! socket. Start reading in `decide.rs`.

mod cache;
mod circumstances;
mod decide;
mod depth;
mod policy;
mod problem;
mod profile;
mod resource;
mod rule;
mod rule_set;
mod slice;
mod touch;

pub use cache::DecisionCache;
pub use decide::decide;
pub use policy::{Policy, Source};
pub use problem::{PolicyError, Problem};
pub use profile::{Profile, UnknownProfile};
pub use touch::touched;
