//! What an HTTP request does: REST, GraphQL, the protocols of AWS and Kubernetes.
//!
//! [`analyze`] takes a request as values and a [`Catalog`], and tells every operation that the request calls, what each does to
//! what, how to find out what that is, what to keep first and how to go back. What has no one meaning, or is in no catalog and
//! not plainly a read, is `unknown`. No socket, clock or file is known here: the surface sends and asks.

mod analysis;
mod aws;
mod canonical;
mod catalog;
mod chunked;
mod class;
mod draft;
mod format;
mod graphql;
mod guard;
mod json;
mod kubernetes;
mod look;
mod lookup;
mod multipart;
mod place;
mod request;
mod rest;
mod table;
mod undo;
mod xml;

pub use analysis::{Analysis, Call, Staged, analyze};
pub use canonical::is_data;
pub use catalog::{Catalog, CatalogError, Provider};
pub use chunked::Chunks;
pub use class::{Class, UnknownClass};
pub use draft::Missing;
pub use format::Speaks;
pub use look::{Look, Seen, State};
pub use lookup::{Lookup, ResolveError, Resolved, answer};
pub use request::{BODY_LIMIT, Body, FILE_LIMIT, Request};
pub use undo::{Escrow, Progress, Undo, Until};
