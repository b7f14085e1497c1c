//! What the tests of the whole program share: a site, that is, a real PostgreSQL with a gateway in front, and an agent's curl.
//!
//! The tests themselves are in `tests/`, one file per subject; the servers come from the test kit.

pub mod cloud;
mod copied;
mod curl;
mod gullible;
mod local;
mod receiver;
mod site;
mod state;
pub mod tools;

pub use cloud::Cloud;
pub use copied::{Copied, answer};
pub use curl::{Answer, Curl, With};
pub use gullible::{Gullible, TOKEN as GULLIBLE_TOKEN};
pub use local::Local;
pub use receiver::{Delivery, Receiver};
pub use site::{Denied, Site, connect, denied};
pub use state::State;
