//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), both sides, without a socket, a clock or randomness.
//!
//! Channel binding is `tls-server-end-point`, the only type PostgreSQL knows; its data (the hash of the certificate) and
//! the nonces come from the caller. `server.rs` checks a client, `client.rs` answers a server.

mod client;
mod server;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

pub use client::ScramClient;
pub use server::{Proof, ScramServer};

/// The mechanism without channel binding.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";

/// The mechanism with channel binding.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The rounds of hashing that a server may ask of us: more would be an attack on our time.
const MOST_ITERATIONS: u32 = 1_000_000;

/// Bytes in one message of an exchange; real ones have a few hundred.
const LONGEST_MESSAGE: usize = 10_000;

/// The one type of channel binding.
const BINDING_HEADER: &str = "p=tls-server-end-point,,";

/// An exchange that cannot succeed. Which secret was wrong is never told.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScramError {
    /// The other side offers or chose no mechanism that can be used here.
    #[error("no usable SCRAM mechanism")]
    Mechanism,
    /// A step out of order.
    #[error("SCRAM message out of order")]
    OutOfOrder,
    /// A message that is not as the RFC has it.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// An extension, or an authorization identity, that is not supported.
    #[error("unsupported SCRAM feature: {0}")]
    Unsupported(&'static str),
    /// The client saw no channel binding on offer although it was: somebody between the two removed it.
    #[error("channel binding was offered but the client did not see the offer")]
    Downgrade,
    /// The two sides speak over different TLS connections.
    #[error("channel binding does not match")]
    ChannelBinding,
    /// The other side's nonce does not continue ours.
    #[error("SCRAM nonce does not match")]
    Nonce,
    /// The server asks for no rounds of hashing, or too many.
    #[error("{0} iterations are not between 1 and 1000000")]
    Iterations(u32),
    /// The server refused.
    #[error("server refused: {0}")]
    Server(String),
    /// The server does not know the password either: it is not the server it says it is.
    #[error("server signature does not match")]
    ServerSignature,
}

type HmacSha256 = Hmac<Sha256>;

fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    keyed(key).chain_update(data).finalize().into_bytes().into()
}

fn sha256(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

fn xor(left: [u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut sum = left;
    sum.iter_mut().zip(right).for_each(|(sum, byte)| *sum ^= byte);
    sum
}

/// `Hi` of RFC 5802: PBKDF2 with one block.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<[u8; 32]> {
    let keyed = keyed(password);
    let mut block: [u8; 32] = keyed.clone().chain_update(salt).chain_update([0, 0, 0, 1]).finalize().into_bytes().into();
    let mut salted = Zeroizing::new(block);
    for _ in 1..iterations {
        block = keyed.clone().chain_update(block).finalize().into_bytes().into();
        salted.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
    }
    salted
}

/// The text of a message, if it is short enough, UTF-8, and without zero bytes.
fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > LONGEST_MESSAGE || message.contains(&0) {
        return Err(ScramError::Malformed("not a short text"));
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("not UTF-8"))
}

/// The value of an attribute such as `r=…`, which has to be the one with this name.
fn value<'a>(attribute: Option<&'a str>, name: &'static str) -> Result<&'a str, ScramError> {
    let attribute = attribute.ok_or(ScramError::Malformed(name))?;
    if attribute.starts_with("m=") {
        return Err(ScramError::Unsupported("mandatory extension"));
    }
    attribute.strip_prefix(name).ok_or(ScramError::Malformed(name))
}

/// Optional extensions may follow and are ignored, but have to look like attributes.
fn optional_extensions<'a>(mut attributes: impl Iterator<Item = &'a str>) -> Result<(), ScramError> {
    let well_formed = |attribute: &str| matches!(attribute.as_bytes(), [name, b'=', _, ..] if name.is_ascii_alphabetic());
    if attributes.all(well_formed) { Ok(()) } else { Err(ScramError::Malformed("extension")) }
}

fn is_nonce(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

fn decoded(text: &str, what: &'static str) -> Result<Vec<u8>, ScramError> {
    BASE64.decode(text).map_err(|_| ScramError::Malformed(what))
}

#[cfg(test)]
mod tests;
