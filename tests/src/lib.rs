//! What the tests of the whole program share: a site, that is, a real PostgreSQL with a gateway in front.
//!
//! The tests themselves are in `tests/`, one file per subject; the servers come from the test kit.

mod site;

pub use site::{Denied, Site, connect, denied};
