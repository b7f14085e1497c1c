//! The five bytes in front of every message: its type and its length.

use std::ops::RangeInclusive;

use crate::error::ProtocolError;

/// Bytes in a header: one of type, four of length. The length counts itself but not the type.
pub(crate) const HEADER: usize = 5;

/// Reads type and length field at the start of `bytes`, if both are there.
pub(crate) fn header(bytes: &[u8]) -> Option<(u8, u32)> {
    let [tag, length @ ..] = *bytes.first_chunk::<HEADER>()?;
    Some((tag, u32::from_be_bytes(length)))
}

/// Checks a length field before anything is allocated or awaited for it, and answers the size of the whole frame.
pub(crate) fn checked_size(tag: u8, length: u32, allowed: RangeInclusive<u32>) -> Result<usize, ProtocolError> {
    let refused = ProtocolError::Length { tag, length, smallest: *allowed.start(), largest: *allowed.end() };
    if !allowed.contains(&length) {
        return Err(refused);
    }
    usize::try_from(length).ok().and_then(|length| length.checked_add(1)).ok_or(refused)
}
