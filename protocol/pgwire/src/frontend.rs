//! What a client sends: the first packet, then frames.
//!
//! The scanner only finds frame boundaries; the insides are read by the types of `message.rs`, the first packet by
//! `startup.rs`. A frame keeps its original bytes, so that what was looked at is exactly what is forwarded.

mod message;
mod startup;

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};

pub use message::{Bind, Close, CopyFail, Describe, Execute, FunctionCall, Parse, Password, Query, SaslInitial};
pub use startup::{FirstPacket, first_packet, starts_with_tls};

use crate::{
    error::ProtocolError,
    frame::{HEADER, checked_size, header},
    limits::{LARGE_MESSAGE, Limits, SMALL_MESSAGE, STREAM_ABOVE},
};

/// One message of a client, or a part of a large CopyData.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendFrame {
    /// The type byte; parts repeat the type of their message.
    pub tag: u8,
    /// The bytes as received, with the header when the frame has one.
    pub bytes: Bytes,
    /// Whether this is the whole message.
    pub part: Part,
}

/// Which stretch of its message a frame is. Only CopyData comes in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The whole message, header included.
    Whole,
    /// The header and as much as had arrived.
    First,
    /// Bytes without a header; more follow.
    Middle,
    /// Bytes without a header, up to the end of the message.
    Last,
}

impl FrontendFrame {
    /// The bytes after the header.
    pub fn body(&self) -> &[u8] {
        match self.part {
            Part::Whole | Part::First => self.bytes.get(HEADER..).unwrap_or_default(),
            Part::Middle | Part::Last => &self.bytes,
        }
    }

    /// Whether the message is over with this frame, so that another one may be sent after it.
    pub fn ends_message(&self) -> bool {
        match self.part {
            Part::Whole | Part::Last => true,
            Part::First | Part::Middle => false,
        }
    }
}

/// Cuts a client's byte stream into frames, after the first packet.
#[derive(Debug, Clone)]
pub struct ClientScanner {
    limits: Limits,
    /// Bytes of a CopyData of which the first part was handed out already.
    remaining: usize,
}

impl ClientScanner {
    /// Starts at a message boundary.
    pub fn new(limits: Limits) -> Self {
        Self { limits, remaining: 0 }
    }

    /// Takes the next frame from the front of `buffer`; `None` asks for more bytes. After an error nothing is consumed.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<FrontendFrame>, ProtocolError> {
        if self.remaining > 0 {
            return Ok(self.next_part(buffer));
        }
        let Some((tag, length)) = header(buffer) else { return Ok(None) };
        let size = checked_size(tag, length, allowed_length(tag, self.limits)?)?;
        if size <= buffer.len() {
            return Ok(Some(FrontendFrame { tag, bytes: buffer.split_to(size).freeze(), part: Part::Whole }));
        }
        if tag != b'd' || size <= STREAM_ABOVE {
            return Ok(None);
        }
        self.remaining = size - buffer.len();
        Ok(Some(FrontendFrame { tag, bytes: buffer.split().freeze(), part: Part::First }))
    }

    /// Whether the next bytes belong to a CopyData that was handed out in part: nothing may be sent in between.
    pub fn is_inside_message(&self) -> bool {
        self.remaining > 0
    }

    fn next_part(&mut self, buffer: &mut BytesMut) -> Option<FrontendFrame> {
        if buffer.is_empty() {
            return None;
        }
        let taken = self.remaining.min(buffer.len());
        self.remaining -= taken;
        let part = if self.remaining == 0 { Part::Last } else { Part::Middle };
        Some(FrontendFrame { tag: b'd', bytes: buffer.split_to(taken).freeze(), part })
    }
}

/// The lengths that PostgreSQL itself would accept, and tighter where a message has no inside.
fn allowed_length(tag: u8, limits: Limits) -> Result<RangeInclusive<u32>, ProtocolError> {
    Ok(match tag {
        b'Q' | b'P' | b'B' | b'F' => 4..=limits.message.min(LARGE_MESSAGE),
        b'd' => 4..=LARGE_MESSAGE,
        b'C' | b'D' | b'E' | b'f' | b'p' => 4..=SMALL_MESSAGE,
        b'H' | b'S' | b'X' | b'c' => 4..=4,
        _ => return Err(ProtocolError::UnknownTag { tag }),
    })
}

#[cfg(test)]
mod tests;
