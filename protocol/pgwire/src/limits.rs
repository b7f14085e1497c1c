//! How large a message may be before it is refused or passed on in parts.

/// PostgreSQL's own limit for the small kinds of message and for the first packet.
pub(crate) const SMALL_MESSAGE: u32 = 10_000;

/// PostgreSQL's own limit for every other message, just below one gibibyte.
pub(crate) const LARGE_MESSAGE: u32 = 0x3fff_fffe;

/// DataRow and CopyData frames above this size are passed on in parts.
pub(crate) const STREAM_ABOVE: usize = 64 * 1024;

/// The caps that an operator may change. The others are PostgreSQL's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in one Query, Parse, Bind or FunctionCall of a client.
    pub message: u32,
    /// Bytes in one message of a server that has to be looked at whole: anything but DataRow and CopyData.
    pub reply: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message: 64 * 1024 * 1024, reply: 16 * 1024 * 1024 }
    }
}
