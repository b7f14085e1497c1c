//! The first packet of a connection: it has no type byte, and may ask for encryption or for a cancellation instead.

use bytes::{Buf, Bytes, BytesMut};

use crate::{body::Body, error::ProtocolError, limits::SMALL_MESSAGE};

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// Bytes in a cancel key: four up to protocol 3.0, up to 256 since 3.2.
const CANCEL_KEY: std::ops::RangeInclusive<usize> = 4..=256;

/// What a client opens its connection with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstPacket {
    /// Asks for TLS; answered by one unframed byte, then another first packet follows.
    Ssl,
    /// Asks for GSSAPI encryption; answered the same way.
    GssEnc,
    /// Asks to cancel what another connection is running. Nothing is answered.
    Cancel {
        /// The process id from that connection's BackendKeyData.
        pid: i32,
        /// The secret key from there, 4 to 256 bytes.
        key: Bytes,
    },
    /// Starts a session.
    Startup {
        /// Major version in the upper half, always 3; minor version in the lower half, any.
        protocol: u32,
        /// Names and values in the order given; no name comes twice.
        parameters: Vec<(String, String)>,
    },
}

/// Whether a client starts with a TLS handshake, without asking first, as PostgreSQL 17's `sslnegotiation=direct` does.
pub fn starts_with_tls(buffer: &[u8]) -> bool {
    buffer.first() == Some(&0x16)
}

/// Takes the first packet from the front of `buffer`; `None` asks for more bytes. After an error nothing is consumed.
pub fn first_packet(buffer: &mut BytesMut) -> Result<Option<FirstPacket>, ProtocolError> {
    let Some(length) = buffer.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)) else { return Ok(None) };
    let (smallest, largest) = (8, SMALL_MESSAGE);
    if !(smallest..=largest).contains(&length) {
        return Err(ProtocolError::Length { tag: 0, length, smallest, largest });
    }
    let size = usize::try_from(length).map_err(|_| ProtocolError::Length { tag: 0, length, smallest, largest })?;
    let Some(packet) = buffer.get(4..size) else { return Ok(None) };
    let packet = read(packet, buffer.len() > size)?;
    buffer.advance(size);
    Ok(Some(packet))
}

fn read(packet: &[u8], more_follows: bool) -> Result<FirstPacket, ProtocolError> {
    let mut body = Body::new(packet, "first packet");
    match body.u32()? {
        SSL_REQUEST => encryption_request(body, more_follows, FirstPacket::Ssl),
        GSS_REQUEST => encryption_request(body, more_follows, FirstPacket::GssEnc),
        CANCEL_REQUEST => {
            let pid = body.i32()?;
            if !CANCEL_KEY.contains(&body.remaining()) {
                return Err(body.malformed());
            }
            Ok(FirstPacket::Cancel { pid, key: Bytes::copy_from_slice(body.rest()) })
        }
        protocol if protocol >> 16 == 3 => Ok(FirstPacket::Startup { protocol, parameters: parameters(body)? }),
        other => {
            let [a, b, c, d] = other.to_be_bytes();
            Err(ProtocolError::Version { major: u16::from_be_bytes([a, b]), minor: u16::from_be_bytes([c, d]) })
        }
    }
}

/// The client has to wait for our answer. What came earlier was never protected and may be somebody else's (CVE-2021-23214).
fn encryption_request(body: Body<'_>, more_follows: bool, request: FirstPacket) -> Result<FirstPacket, ProtocolError> {
    body.end()?;
    if more_follows { Err(ProtocolError::DataBeforeEncryption) } else { Ok(request) }
}

fn parameters(mut body: Body<'_>) -> Result<Vec<(String, String)>, ProtocolError> {
    let mut parameters: Vec<(String, String)> = Vec::new();
    loop {
        let name = body.text()?;
        if name.is_empty() {
            body.end()?;
            return Ok(parameters);
        }
        if parameters.iter().any(|(known, _)| known == name) {
            return Err(ProtocolError::DuplicateParameter { name: name.to_owned() });
        }
        parameters.push((name.to_owned(), body.text()?.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(8 + body.len()).expect("a short body");
        [&length.to_be_bytes()[..], &code.to_be_bytes()[..], body].concat()
    }

    fn check(bytes: &[u8], expected: Result<Option<FirstPacket>, ProtocolError>) {
        let mut buffer = BytesMut::from(bytes);
        let consumed = matches!(expected, Ok(Some(_)));
        assert_eq!(first_packet(&mut buffer), expected, "{bytes:?}");
        assert_eq!(buffer.is_empty(), consumed || bytes.is_empty(), "{bytes:?}");
    }

    #[test]
    fn reads_each_kind() {
        let startup = |minor: u32, parameters: &[(&str, &str)]| FirstPacket::Startup {
            protocol: 3 << 16 | minor,
            parameters: parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        check(&packet(SSL_REQUEST, b""), Ok(Some(FirstPacket::Ssl)));
        check(&packet(GSS_REQUEST, b""), Ok(Some(FirstPacket::GssEnc)));
        check(&packet(3 << 16, b"user\0ana\0\0"), Ok(Some(startup(0, &[("user", "ana")]))));
        check(&packet(3 << 16 | 2, b"user\0ana\0options\0\0\0"), Ok(Some(startup(2, &[("user", "ana"), ("options", "")]))));
        let cancel = |key: &'static [u8]| FirstPacket::Cancel { pid: 7, key: Bytes::from_static(key) };
        check(&packet(CANCEL_REQUEST, b"\0\0\0\x07abcd"), Ok(Some(cancel(b"abcd"))));
        check(&packet(CANCEL_REQUEST, &[&b"\0\0\0\x07"[..], &[9; 256]].concat()), Ok(Some(cancel(&[9; 256]))));
    }

    #[test]
    fn waits_for_the_rest() {
        let whole = packet(3 << 16, b"user\0ana\0\0");
        for end in 0..whole.len() {
            let mut buffer = BytesMut::from(&whole[..end]);
            assert_eq!(first_packet(&mut buffer), Ok(None));
            assert_eq!(buffer.len(), end);
        }
    }

    #[test]
    fn refuses_what_is_not_a_first_packet() {
        let malformed = || Err(ProtocolError::Malformed { what: "first packet" });
        let length = |length| Err(ProtocolError::Length { tag: 0, length, smallest: 8, largest: 10_000 });
        check(b"\0\0\0\x07abcdefgh", length(7));
        check(b"\0\0\x27\x11abcdefgh", length(10_001));
        check(b"\xff\xff\xff\xff", length(u32::MAX));
        check(b"GET / HTTP/1.1\r\n", length(0x4745_5420));
        check(&packet(2 << 16, b""), Err(ProtocolError::Version { major: 2, minor: 0 }));
        check(&packet(3 << 16, b"user\0ana\0"), malformed());
        check(&packet(3 << 16, b"user\0ana\0\0x"), malformed());
        check(&packet(3 << 16, b""), malformed());
        check(&packet(3 << 16, b"user\0\xff\0\0"), Err(ProtocolError::NotUtf8 { what: "first packet" }));
        check(&packet(3 << 16, b"user\0a\0user\0b\0\0"), Err(ProtocolError::DuplicateParameter { name: "user".to_owned() }));
        check(&packet(CANCEL_REQUEST, b"\0\0\0\x07abc"), malformed());
        check(&packet(CANCEL_REQUEST, &[&b"\0\0\0\x07"[..], &[9; 257]].concat()), malformed());
        check(&packet(SSL_REQUEST, b"x"), malformed());
        check(&[packet(SSL_REQUEST, b""), vec![0]].concat(), Err(ProtocolError::DataBeforeEncryption));
    }

    #[test]
    fn knows_a_direct_handshake() {
        assert!(starts_with_tls(&[0x16, 3, 1]));
        assert!(!starts_with_tls(&packet(SSL_REQUEST, b"")));
        assert!(!starts_with_tls(&[]));
    }
}
