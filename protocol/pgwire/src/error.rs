//! What can be wrong with the bytes of a peer.
//!
//! None of these can be recovered from inside a stream: the frame boundaries are no longer trusted.

use thiserror::Error;

/// A peer broke the protocol. The connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// A message type that this side of the protocol does not have.
    #[error("unknown message type {:?}", char::from(*tag))]
    UnknownTag {
        /// The type byte as received.
        tag: u8,
    },
    /// A length field that this message type cannot have.
    #[error("length {length} of message {:?} is not between {smallest} and {largest}", char::from(*tag))]
    Length {
        /// The type byte; 0 for the untyped first packet.
        tag: u8,
        /// The length field as received, read as unsigned.
        length: u32,
        /// The smallest length allowed.
        smallest: u32,
        /// The largest length allowed.
        largest: u32,
    },
    /// A message whose inside does not fit its length, or holds a value that does not exist.
    #[error("malformed {what}")]
    Malformed {
        /// The field or message that could not be read.
        what: &'static str,
    },
    /// Text that is not UTF-8. PostgreSQL may accept it under another encoding, we cannot judge it.
    #[error("{what} is not valid UTF-8")]
    NotUtf8 {
        /// The field that holds the text.
        what: &'static str,
    },
    /// A protocol of another major version than 3.
    #[error("protocol version {major}.{minor} is not supported")]
    Version {
        /// The major version asked for.
        major: u16,
        /// The minor version asked for.
        minor: u16,
    },
    /// Bytes that came before the answer to an encryption request: someone may have slipped them in before the handshake.
    #[error("unencrypted data after an encryption request")]
    DataBeforeEncryption,
    /// A startup parameter given twice: two readers could disagree which one holds.
    #[error("startup parameter `{name}` is given twice")]
    DuplicateParameter {
        /// The name of the parameter.
        name: String,
    },
}
