//! The insides of a server's messages. Readers that answer `Option` say `None` for anything malformed.

use bytes::Bytes;

use crate::{body::Body, error::ProtocolError};

/// What a server asks for, or says, while a session starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// Nothing more is needed.
    Ok,
    /// The password as it is.
    CleartextPassword,
    /// The password hashed with this salt; see `md5.rs`.
    Md5 {
        /// Four random bytes of the server.
        salt: [u8; 4],
    },
    /// A SASL exchange; see `scram.rs`.
    Sasl {
        /// The mechanisms offered, the server's favourite first.
        mechanisms: Vec<String>,
    },
    /// The server's next step in it.
    SaslContinue(Bytes),
    /// The server's last step in it.
    SaslFinal(Bytes),
    /// Anything else, such as GSSAPI, by its number.
    Other(i32),
}

impl Authentication {
    /// Reads the inside of an `R` message.
    pub fn parse(body: &[u8]) -> Result<Self, ProtocolError> {
        let mut body = Body::new(body, "Authentication");
        let request = match body.i32()? {
            0 => Self::Ok,
            3 => Self::CleartextPassword,
            5 => Self::Md5 { salt: body.array()? },
            10 => {
                let mut mechanisms = Vec::new();
                loop {
                    match body.text()? {
                        "" => break Self::Sasl { mechanisms },
                        name => mechanisms.push(name.to_owned()),
                    }
                }
            }
            11 => return Ok(Self::SaslContinue(Bytes::copy_from_slice(body.rest()))),
            12 => return Ok(Self::SaslFinal(Bytes::copy_from_slice(body.rest()))),
            other => return Ok(Self::Other(other)),
        };
        body.end()?;
        Ok(request)
    }
}

/// One column of a RowDescription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column<'a> {
    /// The column's name in the result.
    pub name: &'a str,
    /// The table it comes from, or 0.
    pub table_oid: u32,
    /// Its number in that table, or 0.
    pub number: i16,
    /// Its type.
    pub type_oid: u32,
    /// Bytes of the type; negative for variable width.
    pub type_size: i16,
    /// The type's modifier, or −1.
    pub type_modifier: i32,
    /// 0 is text, 1 is binary.
    pub format: i16,
}

/// Reads the inside of a `T` message.
pub fn row_description(body: &[u8]) -> Result<Vec<Column<'_>>, ProtocolError> {
    let mut body = Body::new(body, "RowDescription");
    let columns = body.list(19, |body| {
        Ok(Column {
            name: body.text()?,
            table_oid: body.u32()?,
            number: body.i16()?,
            type_oid: body.u32()?,
            type_size: body.i16()?,
            type_modifier: body.i32()?,
            format: body.i16()?,
        })
    })?;
    body.end()?;
    Ok(columns)
}

/// The values of one row, in order. After an error nothing more comes.
#[derive(Debug, Clone)]
pub struct DataRow<'a> {
    body: Body<'a>,
    remaining: usize,
}

/// Reads the inside of a `D` message, value by value.
pub fn data_row(body: &[u8]) -> Result<DataRow<'_>, ProtocolError> {
    let mut body = Body::new(body, "DataRow");
    let remaining = body.count()?;
    Ok(DataRow { body, remaining })
}

impl<'a> DataRow<'a> {
    fn value(&mut self) -> Result<Option<&'a [u8]>, ProtocolError> {
        let value = self.body.value()?;
        if self.remaining == 1 {
            self.body.end()?;
        }
        Ok(value)
    }
}

impl<'a> Iterator for DataRow<'a> {
    type Item = Result<Option<&'a [u8]>, ProtocolError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining == 0 {
            return None;
        }
        let value = self.value();
        self.remaining = if value.is_ok() { self.remaining - 1 } else { 0 };
        Some(value)
    }
}

/// Reads the inside of a `t` message: the types of a statement's parameters.
pub fn parameter_description(body: &[u8]) -> Result<Vec<u32>, ProtocolError> {
    let mut body = Body::new(body, "ParameterDescription");
    let types = body.list(4, Body::u32)?;
    body.end()?;
    Ok(types)
}

/// Reads the inside of a `v` message: the newest protocol the server speaks, and the options it does not know.
///
/// The version is major in the upper half, minor in the lower; the servers before 18.0 send the minor one alone.
pub fn negotiate_protocol_version(body: &[u8]) -> Result<(u32, Vec<String>), ProtocolError> {
    let mut body = Body::new(body, "NegotiateProtocolVersion");
    let version = body.u32()?;
    let count = usize::try_from(body.u32()?).map_err(|_| body.malformed())?;
    if count > body.remaining() {
        return Err(body.malformed());
    }
    let options = (0..count).map(|_| body.text().map(str::to_owned)).collect::<Result<_, _>>()?;
    body.end()?;
    Ok((version, options))
}

/// Reads the inside of a `C` message, such as `INSERT 0 5`. What cannot be read is empty, which is no command's tag.
pub fn command_tag(body: &[u8]) -> &str {
    let mut body = Body::new(body, "CommandComplete");
    let Ok(tag) = body.text() else { return "" };
    if body.end().is_ok() { tag } else { "" }
}

/// Reads the inside of a `V` message: what the function that was called by its oid answered. What cannot be read is no answer.
pub fn function_result(body: &[u8]) -> Option<&[u8]> {
    let mut body = Body::new(body, "FunctionCallResponse");
    let value = body.value().ok()?;
    body.end().ok().and(value)
}

/// The number of rows at the end of a command's tag, if the command has one.
pub fn affected_rows(tag: &str) -> Option<u64> {
    tag.rsplit_once(' ')?.1.parse().ok()
}

/// Reads the inside of an `S` message: a setting's name and its value from now on.
pub fn parameter_status(body: &[u8]) -> Option<(&str, &str)> {
    let mut body = Body::new(body, "ParameterStatus");
    let setting = (body.text().ok()?, body.text().ok()?);
    body.end().ok()?;
    Some(setting)
}

/// Reads the inside of a `K` message: the process id and the secret that cancel this session's statements.
pub fn backend_key_data(body: &[u8]) -> Option<(i32, Bytes)> {
    let mut body = Body::new(body, "BackendKeyData");
    let pid = body.i32().ok()?;
    (4..=256).contains(&body.remaining()).then(|| (pid, Bytes::copy_from_slice(body.rest())))
}

/// Reads the inside of a `Z` message: `b'I'` idle, `b'T'` in a transaction, `b'E'` in a failed one.
pub fn ready_status(body: &[u8]) -> Option<u8> {
    match body {
        [status @ (b'I' | b'T' | b'E')] => Some(*status),
        _ => None,
    }
}
