//! Builders: each appends one message to a buffer.
//!
//! A zero byte inside a text would end it early and turn the rest into other fields, and a length above two gibibytes
//! cannot be written: builders that carry outside text or data refuse both and leave the buffer as it was. Errors,
//! notices and command tags are ours to word, so those are made to fit instead and always go out.

mod backend;
mod frontend;

use bytes::{BufMut, BytesMut};
use thiserror::Error;

pub use backend::{
    authentication_cleartext_password, authentication_md5_password, authentication_ok, authentication_sasl, authentication_sasl_continue,
    authentication_sasl_final, backend_key_data, bind_complete, close_complete, command_complete, copy_in_response, copy_out_response,
    data_row, empty_query_response, error_response, function_call_response, negotiate_protocol_version, no_data, notice_response,
    notification_response, parameter_description, parameter_status, parse_complete, portal_suspended, ready_for_query, row_description,
};
pub use frontend::{
    bind, cancel, close, copy_data, copy_done, copy_fail, describe, execute, flush, function_call, gss_request, parse, password, query,
    sasl_initial, sasl_response, ssl_request, startup, sync, terminate,
};

/// A message cannot be written as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WriteError {
    /// A text would end at this byte, and what follows would be read as something else.
    #[error("text contains a zero byte")]
    ZeroByte,
    /// A length or count does not fit its field.
    #[error("message is too large for the protocol")]
    TooLarge,
    /// A cancel key of a length that no protocol version has.
    #[error("cancel key is not 4 to 256 bytes long")]
    CancelKey,
}

/// Appends a message: type, a place for the length, the inside, then the length. On an error nothing is appended.
fn message(out: &mut BytesMut, tag: u8, inside: impl FnOnce(&mut BytesMut) -> Result<(), WriteError>) -> Result<(), WriteError> {
    let start = out.len();
    out.put_u8(tag);
    let written = counted(out, inside);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Appends a length that counts itself, then the inside. On an error nothing is appended.
fn counted(out: &mut BytesMut, inside: impl FnOnce(&mut BytesMut) -> Result<(), WriteError>) -> Result<(), WriteError> {
    let start = out.len();
    out.put_i32(0);
    let written = inside(out).and_then(|()| {
        let length = i32::try_from(out.len() - start).map_err(|_| WriteError::TooLarge)?;
        let place = out.get_mut(start..).and_then(|rest| rest.first_chunk_mut()).ok_or(WriteError::TooLarge)?;
        *place = length.to_be_bytes();
        Ok(())
    });
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Appends a message without anything inside.
fn empty(out: &mut BytesMut, tag: u8) {
    out.put_slice(&[tag, 0, 0, 0, 4]);
}

fn put_text(out: &mut BytesMut, text: &[u8]) -> Result<(), WriteError> {
    if text.contains(&0) {
        return Err(WriteError::ZeroByte);
    }
    out.put_slice(text);
    out.put_u8(0);
    Ok(())
}

fn put_list<T: Copy>(
    out: &mut BytesMut,
    entries: &[T],
    mut put: impl FnMut(&mut BytesMut, T) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    out.put_u16(u16::try_from(entries.len()).map_err(|_| WriteError::TooLarge)?);
    entries.iter().try_for_each(|entry| put(out, *entry))
}

fn put_formats(out: &mut BytesMut, formats: &[i16]) -> Result<(), WriteError> {
    put_list(out, formats, |out, format| {
        out.put_i16(format);
        Ok(())
    })
}

fn put_value(out: &mut BytesMut, value: Option<&[u8]>) -> Result<(), WriteError> {
    match value {
        None => out.put_i32(-1),
        Some(value) => {
            out.put_i32(i32::try_from(value.len()).map_err(|_| WriteError::TooLarge)?);
            out.put_slice(value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
