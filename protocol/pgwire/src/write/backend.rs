//! Builders for what a server sends.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use super::{WriteError, empty, message, put_formats, put_list, put_text, put_value};

/// Bytes kept of one field of an error, a notice, or a command tag; fields kept of one error or notice.
const LONGEST_FIELD: usize = 64 * 1024;
const MOST_FIELDS: usize = 64;

/// Nothing more is needed to sign in.
pub fn authentication_ok(out: &mut BytesMut) {
    out.put_slice(&[b'R', 0, 0, 0, 8, 0, 0, 0, 0]);
}

/// Asks for the password as it is. Only ever inside TLS.
pub fn authentication_cleartext_password(out: &mut BytesMut) {
    out.put_slice(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]);
}

/// Asks for the password hashed with a salt.
pub fn authentication_md5_password(out: &mut BytesMut, salt: [u8; 4]) {
    out.put_slice(&[b'R', 0, 0, 0, 12, 0, 0, 0, 5]);
    out.put_slice(&salt);
}

/// Offers SASL mechanisms, the favourite first. An empty name would end the list early.
pub fn authentication_sasl(out: &mut BytesMut, mechanisms: &[&str]) -> Result<(), WriteError> {
    message(out, b'R', |out| {
        out.put_i32(10);
        for mechanism in mechanisms {
            if mechanism.is_empty() {
                return Err(WriteError::ZeroByte);
            }
            put_text(out, mechanism.as_bytes())?;
        }
        out.put_u8(0);
        Ok(())
    })
}

/// The next step of a SASL exchange.
pub fn authentication_sasl_continue(out: &mut BytesMut, data: &[u8]) -> Result<(), WriteError> {
    message(out, b'R', |out| {
        out.put_i32(11);
        out.put_slice(data);
        Ok(())
    })
}

/// The last step of a SASL exchange.
pub fn authentication_sasl_final(out: &mut BytesMut, data: &[u8]) -> Result<(), WriteError> {
    message(out, b'R', |out| {
        out.put_i32(12);
        out.put_slice(data);
        Ok(())
    })
}

/// Names the newest protocol spoken here and the options not known here.
pub fn negotiate_protocol_version(out: &mut BytesMut, version: u32, unknown_options: &[&str]) -> Result<(), WriteError> {
    message(out, b'v', |out| {
        out.put_u32(version);
        out.put_i32(i32::try_from(unknown_options.len()).map_err(|_| WriteError::TooLarge)?);
        unknown_options.iter().try_for_each(|option| put_text(out, option.as_bytes()))
    })
}

/// Tells a setting's value from now on.
pub fn parameter_status(out: &mut BytesMut, name: &str, value: &str) -> Result<(), WriteError> {
    message(out, b'S', |out| {
        put_text(out, name.as_bytes())?;
        put_text(out, value.as_bytes())
    })
}

/// Hands out what cancels this session's statements. Keys longer than four bytes need protocol 3.2.
pub fn backend_key_data(out: &mut BytesMut, pid: i32, key: &[u8]) -> Result<(), WriteError> {
    if !(4..=256).contains(&key.len()) {
        return Err(WriteError::CancelKey);
    }
    message(out, b'K', |out| {
        out.put_i32(pid);
        out.put_slice(key);
        Ok(())
    })
}

/// Ends a reply: `b'I'` idle, `b'T'` in a transaction, `b'E'` in a failed one.
pub fn ready_for_query(out: &mut BytesMut, status: u8) {
    out.put_slice(&[b'Z', 0, 0, 0, 5, status]);
}

/// An error. Fields are one-letter codes and texts; zero bytes are replaced and over-long texts are cut.
pub fn error_response(out: &mut BytesMut, fields: &[(u8, &str)]) {
    put_fields(out, b'E', fields);
}

/// A notice, with the fields of an error.
pub fn notice_response(out: &mut BytesMut, fields: &[(u8, &str)]) {
    put_fields(out, b'N', fields);
}

/// A notification: who sent it, on which channel, and its text.
pub fn notification_response(out: &mut BytesMut, pid: i32, channel: &str, payload: &str) -> Result<(), WriteError> {
    message(out, b'A', |out| {
        out.put_i32(pid);
        put_text(out, channel.as_bytes())?;
        put_text(out, payload.as_bytes())
    })
}

/// The columns of a result, each a name and a type, all in text format and of no table.
pub fn row_description(out: &mut BytesMut, columns: &[(&str, u32)]) -> Result<(), WriteError> {
    message(out, b'T', |out| {
        put_list(out, columns, |out, (name, type_oid)| {
            put_text(out, name.as_bytes())?;
            out.put_slice(&[0; 6]); // Table and column number.
            out.put_u32(type_oid);
            out.put_i16(-1);
            out.put_i32(-1);
            out.put_i16(0);
            Ok(())
        })
    })
}

/// The types of a statement's parameters.
pub fn parameter_description(out: &mut BytesMut, types: &[u32]) -> Result<(), WriteError> {
    message(out, b't', |out| {
        put_list(out, types, |out, oid| {
            out.put_u32(oid);
            Ok(())
        })
    })
}

/// One row; `None` is NULL.
pub fn data_row(out: &mut BytesMut, values: &[Option<&[u8]>]) -> Result<(), WriteError> {
    message(out, b'D', |out| put_list(out, values, put_value))
}

/// Ends a statement's reply, such as `SELECT 5`. Made to fit as the texts of an error are.
pub fn command_complete(out: &mut BytesMut, tag: &str) {
    let tag = fitted(tag);
    message(out, b'C', |out| put_text(out, tag.as_bytes())).expect("a fitted text has no zero byte and is short");
}

/// The result of a function call; `None` is NULL.
pub fn function_call_response(out: &mut BytesMut, value: Option<&[u8]>) -> Result<(), WriteError> {
    message(out, b'V', |out| put_value(out, value))
}

/// Asks for the data of a COPY: the whole in text (0) or binary (1), and each column's format.
pub fn copy_in_response(out: &mut BytesMut, format: u8, columns: &[i16]) -> Result<(), WriteError> {
    message(out, b'G', |out| {
        out.put_u8(format);
        put_formats(out, columns)
    })
}

/// Announces the data of a COPY, with the fields of `copy_in_response`.
pub fn copy_out_response(out: &mut BytesMut, format: u8, columns: &[i16]) -> Result<(), WriteError> {
    message(out, b'H', |out| {
        out.put_u8(format);
        put_formats(out, columns)
    })
}

/// A Parse is done.
pub fn parse_complete(out: &mut BytesMut) {
    empty(out, b'1');
}

/// A Bind is done.
pub fn bind_complete(out: &mut BytesMut) {
    empty(out, b'2');
}

/// A Close is done.
pub fn close_complete(out: &mut BytesMut) {
    empty(out, b'3');
}

/// The statement described gives no rows.
pub fn no_data(out: &mut BytesMut) {
    empty(out, b'n');
}

/// The text held no statement.
pub fn empty_query_response(out: &mut BytesMut) {
    empty(out, b'I');
}

/// The portal has more rows than were asked for.
pub fn portal_suspended(out: &mut BytesMut) {
    empty(out, b's');
}

fn put_fields(out: &mut BytesMut, tag: u8, fields: &[(u8, &str)]) {
    message(out, tag, |out| {
        for (code, text) in fields.iter().filter(|(code, _)| *code != 0).take(MOST_FIELDS) {
            out.put_u8(*code);
            put_text(out, fitted(text).as_bytes())?;
        }
        out.put_u8(0);
        Ok(())
    })
    .expect("fitted texts have no zero byte and are few and short");
}

/// The text without zero bytes, cut at a character boundary. Replacing may make it up to three times as long.
fn fitted(text: &str) -> Cow<'_, str> {
    let end = text.floor_char_boundary(LONGEST_FIELD);
    let text = text.get(..end).unwrap_or_default();
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}
