//! Chunks of a server's stream: tables for what is taken and refused, properties for how a stream is cut.

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::write;

fn scanner() -> BackendScanner {
    BackendScanner::new(Limits::default())
}

/// All chunks of `stream` when it arrives in pieces of these sizes, repeated; and what was left over.
fn chunks(stream: &[u8], pieces: &[usize]) -> Result<(Vec<BackendChunk>, BytesMut), ProtocolError> {
    let (mut scanner, mut buffer, mut chunks) = (scanner(), BytesMut::new(), Vec::new());
    let mut pieces = pieces.iter().cycle();
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at((*pieces.next().expect("at least one size")).clamp(1, rest.len()));
        buffer.extend_from_slice(piece);
        rest = later;
        while let Some(chunk) = scanner.next(&mut buffer)? {
            assert!(!chunk.bytes().is_empty());
            chunks.push(chunk);
        }
    }
    Ok((chunks, buffer))
}

/// Neighbouring runs of rows joined: how a run is cut depends on how it arrived, its bytes and rows do not.
fn joined(chunks: &[BackendChunk]) -> Vec<(Option<u8>, Vec<u8>, u64)> {
    let mut joined: Vec<(Option<u8>, Vec<u8>, u64)> = Vec::new();
    for chunk in chunks {
        match (chunk, joined.last_mut()) {
            (BackendChunk::Rows { bytes, rows }, Some((None, known, count))) => {
                known.extend_from_slice(bytes);
                *count += rows;
            }
            (BackendChunk::Rows { bytes, rows }, _) => joined.push((None, bytes.to_vec(), *rows)),
            (BackendChunk::Frame { tag, bytes }, _) => joined.push((Some(*tag), bytes.to_vec(), 0)),
        }
    }
    joined
}

fn built(build: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::new();
    build(&mut out);
    out
}

fn row(size: usize) -> BytesMut {
    built(|out| write::data_row(out, &[Some(&vec![b'D'; size])]).expect("fits"))
}

fn check_length(tag: u8, length: u32, expected: Result<(), (u32, u32)>) {
    let mut buffer = BytesMut::from(&[&[tag][..], &length.to_be_bytes()].concat()[..]);
    let expected = expected.map_err(|(smallest, largest)| ProtocolError::Length { tag, length, smallest, largest });
    assert_eq!(scanner().next(&mut buffer).map(|_| ()), expected, "{:?} {length}", char::from(tag));
}

#[test]
fn lengths_are_checked_before_anything_is_awaited() {
    let (reply, large) = (16 << 20, 0x3fff_fffe);
    for tag in *b"ACEGHNSTVWtv" {
        check_length(tag, reply, Ok(()));
        check_length(tag, reply + 1, Err((4, reply)));
        check_length(tag, 3, Err((4, reply)));
    }
    for tag in *b"123Icns" {
        check_length(tag, 4, Ok(()));
        check_length(tag, 5, Err((4, 4)));
    }
    check_length(b'Z', 4, Err((5, 5)));
    check_length(b'K', 11, Err((12, 264)));
    check_length(b'K', 265, Err((12, 264)));
    check_length(b'R', 7, Err((8, reply)));
    check_length(b'D', 5, Err((6, large)));
    check_length(b'D', large, Ok(()));
    check_length(b'd', large + 1, Err((4, large)));
    check_length(b'd', u32::MAX, Err((4, large)));
}

#[test]
fn unknown_types_are_refused() {
    for tag in (0..=u8::MAX).filter(|tag| !b"ACDEGHIKNRSTVWZ123cdnstv".contains(tag)) {
        let mut buffer = BytesMut::from(&[tag, 0, 0, 0, 4][..]);
        assert_eq!(scanner().next(&mut buffer), Err(ProtocolError::UnknownTag { tag }));
        assert_eq!(buffer.len(), 5);
    }
}

#[test]
fn a_run_of_rows_is_one_slice_of_the_buffer() {
    let mut buffer = built(|out| {
        for _ in 0..1000 {
            out.extend_from_slice(&row(10));
        }
        write::copy_data(out, b"x").expect("fits");
        write::ready_for_query(out, b'I');
    });
    let start = buffer.as_ptr();
    let mut scanner = scanner();
    let Ok(Some(BackendChunk::Rows { bytes, rows: 1000 })) = scanner.next(&mut buffer) else { panic!("a run of 1000 rows") };
    assert_eq!(bytes.as_ptr(), start, "not copied");
    let Ok(Some(chunk @ BackendChunk::Frame { tag: b'Z', .. })) = scanner.next(&mut buffer) else { panic!("the end of it") };
    assert_eq!(ready_status(chunk.body()), Some(b'I'));
    assert_eq!(scanner.next(&mut buffer), Ok(None));
}

#[test]
fn a_large_row_is_counted_once_and_never_held() {
    let mut scanner = scanner();
    let (mut seen, mut sent) = (0, BytesMut::new());
    let mut buffer = BytesMut::new();
    for piece in row(1_000_000).chunks(8192) {
        buffer.extend_from_slice(piece);
        let Ok(Some(BackendChunk::Rows { bytes, rows })) = scanner.next(&mut buffer) else { panic!("a part") };
        assert!(buffer.is_empty());
        sent.extend_from_slice(&bytes);
        seen += rows;
        assert_eq!(seen, u64::from(!scanner.is_inside_message()));
    }
    assert_eq!((seen, sent), (1, row(1_000_000)));
}

#[test]
fn rows_before_an_error_still_go_out() {
    let mut buffer = row(10);
    buffer.extend_from_slice(b"?\0\0\0\x04");
    let mut scanner = scanner();
    assert_eq!(scanner.next(&mut buffer), Ok(Some(BackendChunk::Rows { bytes: row(10).freeze(), rows: 1 })));
    for _ in 0..2 {
        assert_eq!(scanner.next(&mut buffer), Err(ProtocolError::UnknownTag { tag: b'?' }));
    }
}

#[test]
fn authentication_requests_are_read() {
    let check = |build: &dyn Fn(&mut BytesMut), expected| {
        assert_eq!(Authentication::parse(&built(build)[5..]), Ok(expected));
    };
    check(&write::authentication_ok, Authentication::Ok);
    check(&write::authentication_cleartext_password, Authentication::CleartextPassword);
    check(&|out| write::authentication_md5_password(out, *b"salt"), Authentication::Md5 { salt: *b"salt" });
    let mechanisms = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];
    check(
        &|out| write::authentication_sasl(out, &mechanisms).expect("names"),
        Authentication::Sasl { mechanisms: mechanisms.map(str::to_owned).to_vec() },
    );
    let data = Bytes::from_static(b"r=1");
    check(&|out| write::authentication_sasl_continue(out, b"r=1").expect("fits"), Authentication::SaslContinue(data.clone()));
    check(&|out| write::authentication_sasl_final(out, b"r=1").expect("fits"), Authentication::SaslFinal(data));
    assert_eq!(Authentication::parse(b"\0\0\0\x07"), Ok(Authentication::Other(7)));
    for malformed in [&b""[..], b"\0\0\0", b"\0\0\0\0x", b"\0\0\0\x05sal", b"\0\0\0\x0aSCRAM\0", b"\0\0\0\x0a\0x"] {
        assert_eq!(Authentication::parse(malformed), Err(ProtocolError::Malformed { what: "Authentication" }), "{malformed:?}");
    }
}

#[test]
fn small_messages_are_read_or_not_at_all() {
    assert_eq!(command_tag(b"INSERT 0 5\0"), "INSERT 0 5");
    assert_eq!(command_tag(b"COMMIT"), "");
    assert_eq!(command_tag(b"COMMIT\0x"), "");
    assert_eq!(command_tag(b"\xff\0"), "");
    for (tag, rows) in [("INSERT 0 5", Some(5)), ("DELETE 12", Some(12)), ("COMMIT", None), ("CREATE TABLE", None), ("", None)] {
        assert_eq!(affected_rows(tag), rows, "{tag}");
    }
    assert_eq!(parameter_status(b"TimeZone\0UTC\0"), Some(("TimeZone", "UTC")));
    assert_eq!(parameter_status(b"TimeZone\0UTC"), None);
    assert_eq!(parameter_status(b"TimeZone\0UTC\0x"), None);
    assert_eq!(backend_key_data(b"\0\0\0\x07abcd"), Some((7, Bytes::from_static(b"abcd"))));
    assert_eq!(backend_key_data(b"\0\0\0\x07abc"), None);
    for (body, status) in [(&b"I"[..], Some(b'I')), (b"T", Some(b'T')), (b"E", Some(b'E')), (b"X", None), (b"", None), (b"II", None)] {
        assert_eq!(ready_status(body), status);
    }
    assert!(negotiate_protocol_version(b"\0\x03\0\x02\xff\xff\xff\xff").is_err());
}

#[test]
fn a_row_that_does_not_fit_ends_in_an_error() {
    let check = |body: &[u8], expected: &[Result<Option<&[u8]>, ()>]| {
        let values: Vec<_> = data_row(body).expect("a count").map(|value| value.map_err(|_| ())).collect();
        assert_eq!(values, expected, "{body:?}");
    };
    check(b"\0\0", &[]);
    check(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff", &[Ok(Some(b"a")), Ok(None)]);
    check(b"\0\x02\0\0\0\x01a", &[Ok(Some(b"a")), Err(())]);
    check(b"\0\x01\0\0\0\x01ab", &[Err(())]);
    check(b"\0\x02\0\0\0\x09a", &[Err(())]);
    check(b"\0\x01\xff\xff\xff\xfe", &[Err(())]);
}

/// One message as a server would write it.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let values = vec(option::of(vec(any::<u8>(), 0..40)), 0..5);
    prop_oneof![
        4 => values.prop_map(|values| built(|out| {
            let values: Vec<_> = values.iter().map(Option::as_deref).collect();
            write::data_row(out, &values).expect("fits");
        }).to_vec()),
        1 => (60_000..200_000usize).prop_map(|size| row(size).to_vec()),
        2 => vec(any::<u8>(), 0..100).prop_map(|data| built(|out| write::copy_data(out, &data).expect("fits")).to_vec()),
        1 => (60_000..200_000usize).prop_map(|size| built(|out| write::copy_data(out, &vec![b'Z'; size]).expect("fits")).to_vec()),
        1 => "[^\0]{0,30}".prop_map(|text| built(|out| write::error_response(out, &[(b'M', &text)])).to_vec()),
        1 => Just(built(|out| write::command_complete(out, "SELECT 1")).to_vec()),
        1 => Just(built(|out| write::ready_for_query(out, b'T')).to_vec()),
        1 => Just(built(write::bind_complete).to_vec()),
    ]
}

proptest! {
    #[test]
    fn any_cutting_gives_the_same_messages(sent in vec(message(), 0..12), pieces in vec(1..70_000usize, 1..6)) {
        let stream = sent.concat();
        let (whole, rest) = chunks(&stream, &[usize::MAX]).expect("valid");
        prop_assert!(rest.is_empty());
        let (cut, rest) = chunks(&stream, &pieces).expect("valid");
        prop_assert!(rest.is_empty());
        prop_assert_eq!(joined(&cut), joined(&whole));
        let forwarded: Vec<u8> = cut.iter().flat_map(|chunk| chunk.bytes().to_vec()).collect();
        prop_assert_eq!(forwarded, stream);
        let rows = sent.iter().filter(|bytes| bytes[0] == b'D').count() as u64;
        prop_assert_eq!(joined(&cut).iter().map(|(_, _, rows)| rows).sum::<u64>(), rows);
    }

    #[test]
    fn a_byte_at_a_time_gives_the_same_messages(sent in vec(message(), 0..3)) {
        let stream = sent.concat();
        let (whole, _) = chunks(&stream, &[usize::MAX]).expect("valid");
        let (cut, _) = chunks(&stream, &[1]).expect("valid");
        prop_assert_eq!(joined(&cut), joined(&whole));
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..300), tag in prop::sample::select(&b"ACDEGHIKNRSTVWZ123cdnstv"[..])) {
        let _ = chunks(&bytes, &[7]);
        let _ = chunks(&[&[tag, 0, 0, 0][..], &bytes].concat(), &[7]);
        let _ = Authentication::parse(&bytes);
        let _ = ServerError::parse(&bytes);
        let _ = row_description(&bytes);
        let _ = data_row(&bytes).map(Iterator::count);
        let _ = parameter_description(&bytes);
        let _ = negotiate_protocol_version(&bytes);
        let _ = affected_rows(command_tag(&bytes));
        let _ = parameter_status(&bytes);
        let _ = backend_key_data(&bytes);
        let _ = ready_status(&bytes);
    }

    #[test]
    fn what_is_forwarded_is_a_prefix_of_what_came(bytes in vec(prop::sample::select(&b"DdZC\0\0\0\0\x04\x05\x06\x07"[..]), 0..200)) {
        let (mut scanner, mut buffer, mut forwarded) = (scanner(), BytesMut::from(&bytes[..]), Vec::new());
        while let Ok(Some(chunk)) = scanner.next(&mut buffer) {
            forwarded.extend_from_slice(chunk.bytes());
        }
        forwarded.extend_from_slice(&buffer);
        prop_assert_eq!(forwarded, bytes);
    }

    #[test]
    fn readers_undo_builders(
        text in "[^\0]{0,20}", other in "[^\0]{0,20}", pid in any::<i32>(), key in vec(any::<u8>(), 4..=256),
        types in vec(any::<u32>(), 0..5), given in vec(option::of(vec(any::<u8>(), 0..40)), 0..5),
    ) {
        let written = |build: &dyn Fn(&mut BytesMut)| {
            let mut out = built(build);
            let chunk = scanner().next(&mut out).expect("valid").expect("whole");
            assert!(out.is_empty());
            chunk
        };
        let chunk = written(&|out| write::command_complete(out, &text));
        prop_assert_eq!(command_tag(chunk.body()), &text);
        let chunk = written(&|out| write::parameter_status(out, &text, &other).expect("no zero byte"));
        prop_assert_eq!(parameter_status(chunk.body()), Some((&text[..], &other[..])));
        let chunk = written(&|out| write::backend_key_data(out, pid, &key).expect("a key"));
        prop_assert_eq!(backend_key_data(chunk.body()), Some((pid, Bytes::from(key.clone()))));
        let chunk = written(&|out| write::parameter_description(out, &types).expect("few"));
        prop_assert_eq!(parameter_description(chunk.body()), Ok(types.clone()));
        let chunk = written(&|out| write::negotiate_protocol_version(out, 3 << 16 | 2, &[&text, &other]).expect("no zero byte"));
        prop_assert_eq!(negotiate_protocol_version(chunk.body()), Ok((3 << 16 | 2, vec![text.clone(), other.clone()])));

        let columns: Vec<(&str, u32)> = types.iter().map(|oid| (&text[..], *oid)).collect();
        let chunk = written(&|out| write::row_description(out, &columns).expect("few"));
        let read = row_description(chunk.body()).expect("columns");
        prop_assert_eq!(read.iter().map(|column| (column.name, column.type_oid)).collect::<Vec<_>>(), columns);

        let values: Vec<_> = given.iter().map(Option::as_deref).collect();
        let row = built(|out| write::data_row(out, &values).expect("fits"));
        let read: Result<Vec<_>, _> = data_row(&row[5..]).expect("a count").collect();
        prop_assert_eq!(read, Ok(values));
    }

    #[test]
    fn an_error_of_any_text_goes_out_whole(fields in vec((1..=u8::MAX, ".{0,30}"), 0..8), tag in prop::sample::select(&b"EN"[..])) {
        let bytes = ServerError { fields: fields.clone() }.to_bytes(tag);
        prop_assert_eq!(bytes[0], tag);
        let expected: Vec<_> = fields.iter().map(|(code, text)| (*code, text.replace('\0', "\u{fffd}"))).collect();
        prop_assert_eq!(ServerError::parse(&bytes[5..]).map(|error| error.fields), Ok(expected));
    }
}

#[test]
fn an_endless_error_is_cut() {
    let long = "é".repeat(100_000);
    let bytes = built(|out| write::error_response(out, &[(b'M', &long), (b'H', "a\0b")]));
    let error = ServerError::parse(&bytes[5..]).expect("valid");
    assert_eq!(error.message().map(str::len), Some(65_536));
    assert_eq!(error.hint(), Some("a\u{fffd}b"));
}
