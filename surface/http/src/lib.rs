//! The HTTP surface: agents use their ordinary tools through a proxy, and everything they call goes through the gate.
//!
//! Start with `exchange.rs`: one request, from the agent and back. `listener.rs` accepts clients and opens TLS, `door.rs` lets an
//! agent in, `asked.rs` reads a request so that what was classified is what is sent, `run.rs` sends it under a permit; what it takes to
//! take that back is kept first (`way_back.rs`), and done when an operator wants it (`take_back.rs`).
//! `reverse.rs` and `sockets.rs` have listeners of one service, for tools that know no proxy; `channel.rs` carries connections that became
//! something else. `connect.rs` reaches the service, with a credential that only the gateway has (`credential.rs`).

mod address;
mod answer;
mod asked;
mod authority;
mod channel;
mod connect;
mod credential;
mod door;
mod exchange;
mod file;
mod frames;
mod listener;
mod mask;
mod memory;
mod place;
mod reads;
mod resolve;
mod reverse;
mod run;
mod runner;
mod signature;
mod sockets;
mod system;
mod take_back;
mod turns;
mod understand;
mod way_back;

pub use authority::{Authority, AuthorityError};
pub use channel::ChannelLimits;
pub use credential::{Credential, CredentialError};
pub use listener::{Options, Surface};
pub use place::{HostPattern, Place, PlaceError, Scheme};
pub use sockets::{SocketError, SocketFolder};
pub use system::{System, SystemError, SystemOptions};
pub use take_back::Returns;
