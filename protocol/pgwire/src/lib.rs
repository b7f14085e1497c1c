//! The PostgreSQL v3 wire protocol, from and to bytes, for a proxy that forwards what it need not look at.
//!
//! There is no socket here: whoever owns one appends what it read to a `BytesMut` and asks a scanner for the next frame.
//! [`frontend`] reads what a client sends, [`backend`] what a server sends, [`mod@write`] builds both; [`scram`] and [`md5`]
//! are the two password exchanges. What a message *means* to the gateway is decided elsewhere.

pub mod backend;
mod body;
mod error;
mod frame;
pub mod frontend;
mod limits;
pub mod md5;
pub mod scram;
pub mod write;

pub use error::ProtocolError;
pub use limits::Limits;
