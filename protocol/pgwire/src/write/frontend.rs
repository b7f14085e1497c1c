//! Builders for what a client sends.

use bytes::{BufMut, BytesMut};

use super::{WriteError, counted, empty, message, put_formats, put_list, put_text, put_value};

/// Asks for TLS.
pub fn ssl_request(out: &mut BytesMut) {
    out.put_slice(&[0, 0, 0, 8]);
    out.put_u32(80_877_103);
}

/// Asks for GSSAPI encryption.
pub fn gss_request(out: &mut BytesMut) {
    out.put_slice(&[0, 0, 0, 8]);
    out.put_u32(80_877_104);
}

/// Asks to cancel what the session with this process id and key is running.
pub fn cancel(out: &mut BytesMut, pid: i32, key: &[u8]) -> Result<(), WriteError> {
    if !(4..=256).contains(&key.len()) {
        return Err(WriteError::CancelKey);
    }
    counted(out, |out| {
        out.put_u32(80_877_102);
        out.put_i32(pid);
        out.put_slice(key);
        Ok(())
    })
}

/// Starts a session; `protocol` is major in the upper half, minor in the lower. An empty name would end the list early.
pub fn startup<'a>(out: &mut BytesMut, protocol: u32, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(), WriteError> {
    counted(out, |out| {
        out.put_u32(protocol);
        for (name, value) in parameters {
            if name.is_empty() {
                return Err(WriteError::ZeroByte);
            }
            put_text(out, name.as_bytes())?;
            put_text(out, value.as_bytes())?;
        }
        out.put_u8(0);
        Ok(())
    })
}

/// Runs a text.
pub fn query(out: &mut BytesMut, text: &str) -> Result<(), WriteError> {
    message(out, b'Q', |out| put_text(out, text.as_bytes()))
}

/// Prepares a text; an empty name is the unnamed statement.
pub fn parse(out: &mut BytesMut, name: &str, text: &str, parameter_types: &[u32]) -> Result<(), WriteError> {
    message(out, b'P', |out| {
        put_text(out, name.as_bytes())?;
        put_text(out, text.as_bytes())?;
        put_list(out, parameter_types, |out, oid| {
            out.put_u32(oid);
            Ok(())
        })
    })
}

/// Makes a portal from a statement and values.
pub fn bind(
    out: &mut BytesMut,
    portal: &str,
    statement: &str,
    formats: &[i16],
    values: &[Option<&[u8]>],
    result_formats: &[i16],
) -> Result<(), WriteError> {
    message(out, b'B', |out| {
        put_text(out, portal.as_bytes())?;
        put_text(out, statement.as_bytes())?;
        put_formats(out, formats)?;
        put_list(out, values, put_value)?;
        put_formats(out, result_formats)
    })
}

/// Asks what a statement (`b'S'`) or portal (`b'P'`) takes and gives.
pub fn describe(out: &mut BytesMut, kind: u8, name: &str) -> Result<(), WriteError> {
    message(out, b'D', |out| {
        out.put_u8(kind);
        put_text(out, name.as_bytes())
    })
}

/// Gives up a statement (`b'S'`) or portal (`b'P'`).
pub fn close(out: &mut BytesMut, kind: u8, name: &str) -> Result<(), WriteError> {
    message(out, b'C', |out| {
        out.put_u8(kind);
        put_text(out, name.as_bytes())
    })
}

/// Runs a portal; 0 rows means all.
pub fn execute(out: &mut BytesMut, portal: &str, max_rows: i32) -> Result<(), WriteError> {
    message(out, b'E', |out| {
        put_text(out, portal.as_bytes())?;
        out.put_i32(max_rows);
        Ok(())
    })
}

/// Calls a function by its oid.
pub fn function_call(
    out: &mut BytesMut,
    oid: u32,
    formats: &[i16],
    values: &[Option<&[u8]>],
    result_format: i16,
) -> Result<(), WriteError> {
    message(out, b'F', |out| {
        out.put_u32(oid);
        put_formats(out, formats)?;
        put_list(out, values, put_value)?;
        out.put_i16(result_format);
        Ok(())
    })
}

/// Ends an extended exchange.
pub fn sync(out: &mut BytesMut) {
    empty(out, b'S');
}

/// Asks for the replies so far.
pub fn flush(out: &mut BytesMut) {
    empty(out, b'H');
}

/// Ends the session.
pub fn terminate(out: &mut BytesMut) {
    empty(out, b'X');
}

/// One piece of a COPY, in either direction.
pub fn copy_data(out: &mut BytesMut, data: &[u8]) -> Result<(), WriteError> {
    message(out, b'd', |out| {
        out.put_slice(data);
        Ok(())
    })
}

/// Ends a COPY, in either direction.
pub fn copy_done(out: &mut BytesMut) {
    empty(out, b'c');
}

/// Ends a COPY as failed.
pub fn copy_fail(out: &mut BytesMut, reason: &str) -> Result<(), WriteError> {
    message(out, b'f', |out| put_text(out, reason.as_bytes()))
}

/// Answers a password request, with the password itself or with its MD5 answer.
pub fn password(out: &mut BytesMut, secret: &[u8]) -> Result<(), WriteError> {
    message(out, b'p', |out| put_text(out, secret))
}

/// Chooses a SASL mechanism and takes its first step.
pub fn sasl_initial(out: &mut BytesMut, mechanism: &str, response: Option<&[u8]>) -> Result<(), WriteError> {
    message(out, b'p', |out| {
        put_text(out, mechanism.as_bytes())?;
        put_value(out, response)
    })
}

/// Takes the next step of a SASL exchange.
pub fn sasl_response(out: &mut BytesMut, response: &[u8]) -> Result<(), WriteError> {
    message(out, b'p', |out| {
        out.put_slice(response);
        Ok(())
    })
}
