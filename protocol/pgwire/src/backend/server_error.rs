//! Errors and notices of a server: a list of fields, each with a one-letter code.

use bytes::BytesMut;

use crate::{body::Body, error::ProtocolError, write};

/// Fields in one message. PostgreSQL knows eighteen.
const MOST_FIELDS: usize = 64;

/// The inside of an ErrorResponse or NoticeResponse, for display and for decisions.
///
/// Text that is not UTF-8 is replaced where it must be; who forwards a message forwards its original bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    /// Codes and texts in the order received.
    pub fields: Vec<(u8, String)>,
}

impl ServerError {
    /// Reads the inside of an `E` or `N` message.
    pub fn parse(body: &[u8]) -> Result<Self, ProtocolError> {
        let mut body = Body::new(body, "ErrorResponse");
        let mut fields = Vec::new();
        loop {
            let code = body.u8()?;
            if code == 0 {
                body.end()?;
                return Ok(Self { fields });
            }
            if fields.len() == MOST_FIELDS {
                return Err(body.malformed());
            }
            fields.push((code, String::from_utf8_lossy(body.text_bytes()?).into_owned()));
        }
    }

    /// The text of the first field with this code.
    pub fn field(&self, code: u8) -> Option<&str> {
        self.fields.iter().find(|(known, _)| *known == code).map(|(_, text)| text.as_str())
    }

    /// `ERROR`, `FATAL`, `WARNING` …, never translated; older servers send only the translated one.
    pub fn severity(&self) -> Option<&str> {
        self.field(b'V').or_else(|| self.field(b'S'))
    }

    /// The SQLSTATE. A server may leave it out.
    pub fn code(&self) -> Option<&str> {
        self.field(b'C')
    }

    /// What went wrong, in a sentence.
    pub fn message(&self) -> Option<&str> {
        self.field(b'M')
    }

    /// More about it.
    pub fn detail(&self) -> Option<&str> {
        self.field(b'D')
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.field(b'H')
    }

    /// Where in the client's text, in characters from 1.
    pub fn position(&self) -> Option<u32> {
        self.field(b'P')?.parse().ok()
    }

    /// The whole message again, as `b'E'` or `b'N'`.
    pub fn to_bytes(&self, tag: u8) -> BytesMut {
        let mut out = BytesMut::new();
        let fields: Vec<(u8, &str)> = self.fields.iter().map(|(code, text)| (*code, text.as_str())).collect();
        if tag == b'N' {
            write::notice_response(&mut out, &fields);
        } else {
            write::error_response(&mut out, &fields);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &[u8], expected: Result<&[(u8, &str)], ProtocolError>) {
        let expected = expected.map(|fields| fields.iter().map(|(code, text)| (*code, (*text).to_owned())).collect());
        assert_eq!(ServerError::parse(body).map(|error| error.fields), expected, "{body:?}");
    }

    #[test]
    fn reads_fields() {
        let malformed = || Err(ProtocolError::Malformed { what: "ErrorResponse" });
        check(b"\0", Ok(&[]));
        check(b"SERROR\0C42P01\0\0", Ok(&[(b'S', "ERROR"), (b'C', "42P01")]));
        check(b"Mcaf\xe9\0\0", Ok(&[(b'M', "caf\u{fffd}")]));
        check(b"", malformed());
        check(b"SERROR\0", malformed());
        check(b"SERROR", malformed());
        check(b"SERROR\0\0x", malformed());
        check(&[b"Mx\0".repeat(65), vec![0]].concat(), malformed());
    }

    #[test]
    fn names_the_known_fields() {
        let error = ServerError::parse(b"SFEHLER\0VERROR\0C42601\0Msyntax\0Dd\0Hh\0P15\0\0").expect("well-formed");
        assert_eq!(error.severity(), Some("ERROR"));
        assert_eq!(error.code(), Some("42601"));
        assert_eq!(error.message(), Some("syntax"));
        assert_eq!(error.detail(), Some("d"));
        assert_eq!(error.hint(), Some("h"));
        assert_eq!(error.position(), Some(15));
        assert_eq!(error.field(b'W'), None);
        assert_eq!(ServerError::default().code(), None);
    }
}
