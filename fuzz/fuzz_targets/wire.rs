//! The wire codec on arbitrary bytes: nothing panics, nothing is added or lost, and how bytes arrive does not matter.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use reprieve_pgwire::{
    Limits, ProtocolError,
    backend::{self, Authentication, BackendChunk, BackendScanner, ServerError},
    frontend::{self, Bind, ClientScanner, Close, CopyFail, Describe, Execute, FunctionCall, Parse, Password, Query, SaslInitial},
    scram::{SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramClient, ScramServer},
};

/// Small enough that the fuzzer meets the limits.
const LIMITS: Limits = Limits { message: 4096, reply: 4096 };

fuzz_target!(|input: &[u8]| {
    let Some((piece, bytes)) = input.split_first() else { return };
    let piece = usize::from(*piece) + 1;

    client_stream(bytes, piece);
    server_stream(bytes, piece);
    client_insides(bytes);
    server_insides(bytes);
    scram(bytes);
});

fn client_stream(bytes: &[u8], piece: usize) {
    let _ = frontend::starts_with_tls(bytes);
    let _ = frontend::first_packet(&mut BytesMut::from(bytes));
    let cut = |piece| {
        let mut scanner = ClientScanner::new(LIMITS);
        run(bytes, piece, |buffer| {
            let frame = scanner.next(buffer)?;
            Ok(frame.map(|frame| {
                client_insides(frame.body());
                assert_eq!(frame.ends_message(), !scanner.is_inside_message());
                frame.bytes
            }))
        })
    };
    assert_eq!(cut(piece), cut(usize::MAX));
}

fn server_stream(bytes: &[u8], piece: usize) {
    let cut = |piece| {
        let mut scanner = BackendScanner::new(LIMITS);
        let mut rows = 0;
        let forwarded = run(bytes, piece, |buffer| {
            let chunk = scanner.next(buffer)?;
            Ok(chunk.map(|chunk| {
                server_insides(chunk.body());
                if let BackendChunk::Rows { rows: more, .. } = &chunk {
                    rows += more;
                }
                chunk.bytes().clone()
            }))
        });
        (forwarded, rows)
    };
    assert_eq!(cut(piece), cut(usize::MAX));
}

/// Feeds `bytes` in pieces. Answers how many were handed out before the end or the error, after checking that they are the
/// first ones of the input, and the error.
fn run(
    bytes: &[u8],
    piece: usize,
    mut next: impl FnMut(&mut BytesMut) -> Result<Option<bytes::Bytes>, ProtocolError>,
) -> (usize, Option<ProtocolError>) {
    let (mut buffer, mut forwarded) = (BytesMut::new(), 0);
    for piece in bytes.chunks(piece.min(bytes.len()).max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match next(&mut buffer) {
                Ok(None) => break,
                Ok(Some(taken)) => {
                    assert!(!taken.is_empty());
                    assert_eq!(bytes.get(forwarded..forwarded + taken.len()), Some(&taken[..]));
                    forwarded += taken.len();
                }
                Err(error) => return (forwarded, Some(error)),
            }
        }
    }
    assert_eq!(bytes.get(forwarded..), Some(&buffer[..]));
    (forwarded, None)
}

fn client_insides(body: &[u8]) {
    let _ = Query::parse(body);
    let _ = Parse::parse(body);
    let _ = Bind::parse(body);
    let _ = Describe::parse(body);
    let _ = Close::parse(body);
    let _ = Execute::parse(body);
    let _ = FunctionCall::parse(body);
    let _ = CopyFail::parse(body);
    let _ = Password::parse(body);
    let _ = SaslInitial::parse(body);
}

fn server_insides(body: &[u8]) {
    let _ = Authentication::parse(body);
    // Fields above 64 KiB are cut when written, so only a body without one has to come back the same.
    if let (true, Ok(error)) = (body.len() < 16 * 1024, ServerError::parse(body)) {
        let again = error.to_bytes(b'E');
        assert_eq!(ServerError::parse(&again[5..]), Ok(error));
    }
    let _ = backend::row_description(body);
    let _ = backend::data_row(body).map(Iterator::count);
    let _ = backend::parameter_description(body);
    let _ = backend::negotiate_protocol_version(body);
    let _ = backend::affected_rows(backend::command_tag(body));
    let _ = backend::parameter_status(body);
    let _ = backend::backend_key_data(body);
    let _ = backend::ready_status(body);
}

fn scram(bytes: &[u8]) {
    let nonce = || "nonce".to_owned();
    let _ = ScramServer::new(b"salt", 1, nonce(), Some(b"data".to_vec())).client_first(SCRAM_SHA_256_PLUS, bytes);
    let mut server = ScramServer::new(b"salt", 1, nonce(), None);
    let _ = server.client_first(SCRAM_SHA_256, bytes);
    let mut server = ScramServer::new(b"salt", 1, nonce(), None);
    if server.client_first(SCRAM_SHA_256, b"n,,n=,r=client").is_ok() {
        if let Ok(proof) = server.client_final(bytes) {
            assert_eq!(proof.verify(&[1; 32], &[2; 32]), None);
        }
    }
    // A server may ask for a million rounds; the fuzzer has no time for more than a few digits.
    if !bytes.windows(5).any(|window| window.iter().all(u8::is_ascii_digit)) {
        let mut client = ScramClient::new("", b"secret", nonce(), None, &[SCRAM_SHA_256]).expect("an offered mechanism");
        client.first();
        let _ = client.server_first(bytes);
        let _ = client.server_final(bytes);
    }
}
