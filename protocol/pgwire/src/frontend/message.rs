//! The insides of a client's messages, read without copying text or values.
//!
//! Each reader takes exactly what PostgreSQL would take: bytes after the last field are an error here as they are there.

use crate::{body::Body, error::ProtocolError};

/// A text to run at once, possibly several statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// The text as sent.
    pub text: &'a str,
}

impl<'a> Query<'a> {
    /// Reads the inside of a `Q` message.
    pub fn parse(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut body = Body::new(body, "Query");
        let text = body.text()?;
        body.end()?;
        Ok(Self { text })
    }
}

/// A text to prepare as one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The statement's name; empty for the unnamed one.
    pub name: &'a str,
    /// The text as sent.
    pub text: &'a str,
    /// Types of the first parameters; 0 leaves one to the server.
    pub parameter_types: Vec<u32>,
}

impl<'a> Parse<'a> {
    /// Reads the inside of a `P` message.
    #[expect(clippy::self_named_constructors, reason = "the protocol calls this message Parse, and all readers are `parse`")]
    pub fn parse(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut body = Body::new(body, "Parse");
        let message = Self { name: body.text()?, text: body.text()?, parameter_types: body.list(4, Body::u32)? };
        body.end()?;
        Ok(message)
    }
}

/// Values for a prepared statement, which make it a portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal to make; empty for the unnamed one.
    pub portal: &'a str,
    /// The statement it is made from.
    pub statement: &'a str,
    /// None: all text; one: it holds for all; else one a value. 0 is text, 1 is binary.
    pub formats: Vec<i16>,
    /// The values; `None` is NULL.
    pub values: Vec<Option<&'a [u8]>>,
    /// As `formats`, for the columns of the result.
    pub result_formats: Vec<i16>,
}

impl<'a> Bind<'a> {
    /// Reads the inside of a `B` message.
    pub fn parse(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut body = Body::new(body, "Bind");
        let message = Self {
            portal: body.text()?,
            statement: body.text()?,
            formats: body.list(2, Body::i16)?,
            values: body.list(4, Body::value)?,
            result_formats: body.list(2, Body::i16)?,
        };
        body.end()?;
        Ok(message)
    }
}

/// Asks what a statement or portal takes and gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Describe<'a> {
    /// `b'S'` for a statement, `b'P'` for a portal.
    pub kind: u8,
    /// Its name; empty for the unnamed one.
    pub name: &'a str,
}

impl<'a> Describe<'a> {
    /// Reads the inside of a `D` message.
    pub fn parse(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let (kind, name) = kind_and_name(Body::new(body, "Describe"))?;
        Ok(Self { kind, name })
    }
}

/// Gives up a statement or portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close<'a> {
    /// `b'S'` for a statement, `b'P'` for a portal.
    pub kind: u8,
    /// Its name; empty for the unnamed one.
    pub name: &'a str,
}

impl<'a> Close<'a> {
    /// Reads the inside of a `C` message.
    pub fn parse(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let (kind, name) = kind_and_name(Body::new(body, "Close"))?;
        Ok(Self { kind, name })
    }
}

/// Runs a portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execute<'a> {
    /// Its name; empty for the unnamed one.
    pub portal: &'a str,
    /// Rows after which the server suspends it; 0 or less for all.
    pub max_rows: i32,
}

impl<'a> Execute<'a> {
    /// Reads the inside of an `E` message.
    pub fn parse(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut body = Body::new(body, "Execute");
        let message = Self { portal: body.text()?, max_rows: body.i32()? };
        body.end()?;
        Ok(message)
    }
}

/// Calls a function by its oid, without any text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionCall<'a> {
    /// The function's oid.
    pub oid: u32,
    /// None: all text; one: it holds for all; else one a value.
    pub formats: Vec<i16>,
    /// The arguments; `None` is NULL.
    pub values: Vec<Option<&'a [u8]>>,
    /// The format of the result.
    pub result_format: i16,
}

impl<'a> FunctionCall<'a> {
    /// Reads the inside of an `F` message.
    pub fn parse(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut body = Body::new(body, "FunctionCall");
        let message =
            Self { oid: body.u32()?, formats: body.list(2, Body::i16)?, values: body.list(4, Body::value)?, result_format: body.i16()? };
        body.end()?;
        Ok(message)
    }
}

/// Ends a COPY from the client as failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFail<'a> {
    /// The client's reason.
    pub reason: &'a str,
}

impl<'a> CopyFail<'a> {
    /// Reads the inside of an `f` message.
    pub fn parse(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut body = Body::new(body, "CopyFail");
        let reason = body.text()?;
        body.end()?;
        Ok(Self { reason })
    }
}

/// A password in clear text or its MD5 answer. Not `Debug`: it must not reach a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Password<'a> {
    /// The bytes as sent, in no particular encoding.
    pub secret: &'a [u8],
}

impl<'a> Password<'a> {
    /// Reads the inside of a `p` message that answers a password request.
    pub fn parse(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut body = Body::new(body, "PasswordMessage");
        let secret = body.text_bytes()?;
        body.end()?;
        Ok(Self { secret })
    }
}

/// The first step of a SASL exchange. Later ones are the whole inside of a `p` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaslInitial<'a> {
    /// The mechanism that the client chose.
    pub mechanism: &'a str,
    /// The mechanism's first message, if the client sends it along.
    pub response: Option<&'a [u8]>,
}

impl<'a> SaslInitial<'a> {
    /// Reads the inside of a `p` message that answers a SASL request.
    pub fn parse(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut body = Body::new(body, "SASLInitialResponse");
        let message = Self { mechanism: body.text()?, response: body.value()? };
        body.end()?;
        Ok(message)
    }
}

fn kind_and_name(mut body: Body<'_>) -> Result<(u8, &str), ProtocolError> {
    let kind = body.u8()?;
    if !matches!(kind, b'S' | b'P') {
        return Err(body.malformed());
    }
    let name = body.text()?;
    body.end()?;
    Ok((kind, name))
}
