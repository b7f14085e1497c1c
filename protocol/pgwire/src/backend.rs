//! What a server sends: runs of rows to pass on, and single messages to look at.
//!
//! The scanner walks headers only and hands out slices of the buffer it was given. A row above 64 KiB is handed out as it
//! arrives. The insides of single messages are read by `message.rs`, errors and notices by `server_error.rs`.

mod message;
mod server_error;

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};

pub use message::{
    Authentication, Column, DataRow, affected_rows, backend_key_data, command_tag, data_row, function_result, negotiate_protocol_version,
    parameter_description, parameter_status, ready_status, row_description,
};
pub use server_error::ServerError;

use crate::{
    error::ProtocolError,
    frame::{HEADER, checked_size, header},
    limits::{LARGE_MESSAGE, Limits, STREAM_ABOVE},
};

/// A stretch of a server's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendChunk {
    /// DataRow and CopyData frames, one or many, whole or in part.
    Rows {
        /// The bytes as received.
        bytes: Bytes,
        /// How many DataRow frames ended in them.
        rows: u64,
    },
    /// Any other message, whole.
    Frame {
        /// The type byte.
        tag: u8,
        /// The bytes as received, header included.
        bytes: Bytes,
    },
}

impl BackendChunk {
    /// The bytes as received.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Rows { bytes, .. } | Self::Frame { bytes, .. } => bytes,
        }
    }

    /// The bytes after the header of a single message; nothing for rows.
    pub fn body(&self) -> &[u8] {
        match self {
            Self::Rows { .. } => &[],
            Self::Frame { bytes, .. } => bytes.get(HEADER..).unwrap_or_default(),
        }
    }
}

/// Cuts a server's byte stream into chunks, after its one-byte answer to an encryption request.
#[derive(Debug, Clone)]
pub struct BackendScanner {
    limits: Limits,
    /// The large row of which a part was handed out already.
    open: Option<OpenRow>,
}

#[derive(Debug, Clone, Copy)]
struct OpenRow {
    tag: u8,
    remaining: usize,
}

impl BackendScanner {
    /// Starts at a message boundary.
    pub fn new(limits: Limits) -> Self {
        Self { limits, open: None }
    }

    /// Takes the next chunk from the front of `buffer`; `None` asks for more bytes. After an error nothing is consumed.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<BackendChunk>, ProtocolError> {
        let mut end = 0;
        let mut rows = 0;
        if let Some(open) = self.open {
            end = open.remaining.min(buffer.len());
            self.open = open.without(end);
            rows += u64::from(open.tag == b'D' && self.open.is_none());
        }
        while self.open.is_none() {
            let rest = buffer.get(end..).unwrap_or_default();
            let Some((tag, length)) = header(rest) else { break };
            let frame = allowed_length(tag, self.limits).and_then(|allowed| checked_size(tag, length, allowed));
            let size = match frame {
                Ok(size) => size,
                Err(_) if end > 0 => break, // The rows before it are good; the next call reports it.
                Err(error) => return Err(error),
            };
            if !matches!(tag, b'D' | b'd') {
                if end > 0 {
                    break;
                }
                let whole = size <= rest.len();
                return Ok(whole.then(|| BackendChunk::Frame { tag, bytes: buffer.split_to(size).freeze() }));
            }
            if size <= rest.len() {
                end += size;
                rows += u64::from(tag == b'D');
            } else if size > STREAM_ABOVE {
                self.open = Some(OpenRow { tag, remaining: size - rest.len() });
                end = buffer.len();
            } else {
                break;
            }
        }
        Ok((end > 0).then(|| BackendChunk::Rows { bytes: buffer.split_to(end).freeze(), rows }))
    }

    /// Whether the next bytes belong to a row that was handed out in part: nothing may be sent in between.
    pub fn is_inside_message(&self) -> bool {
        self.open.is_some()
    }
}

impl OpenRow {
    fn without(self, taken: usize) -> Option<Self> {
        let remaining = self.remaining - taken;
        (remaining > 0).then_some(Self { remaining, ..self })
    }
}

/// Fixed sizes are checked exactly: a stream that lost its boundaries is noticed at the next small message.
fn allowed_length(tag: u8, limits: Limits) -> Result<RangeInclusive<u32>, ProtocolError> {
    Ok(match tag {
        b'D' => 6..=LARGE_MESSAGE,
        b'd' => 4..=LARGE_MESSAGE,
        b'1' | b'2' | b'3' | b'I' | b'c' | b'n' | b's' => 4..=4,
        b'Z' => 5..=5,
        b'K' => 12..=264,
        b'R' => 8..=limits.reply,
        b'A' | b'C' | b'E' | b'G' | b'H' | b'N' | b'S' | b'T' | b'V' | b'W' | b't' | b'v' => 4..=limits.reply,
        _ => return Err(ProtocolError::UnknownTag { tag }),
    })
}

#[cfg(test)]
mod tests;
