//! Frames of a client: tables for what is taken and refused, properties for how a stream is cut.

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::write;

fn scanner() -> ClientScanner {
    ClientScanner::new(Limits::default())
}

/// All frames of `stream` when it arrives in pieces of these sizes, repeated; and what was left over.
fn frames(stream: &[u8], pieces: &[usize]) -> Result<(Vec<FrontendFrame>, BytesMut), ProtocolError> {
    let (mut scanner, mut buffer, mut frames) = (scanner(), BytesMut::new(), Vec::new());
    let mut pieces = pieces.iter().cycle();
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at((*pieces.next().expect("at least one size")).clamp(1, rest.len()));
        buffer.extend_from_slice(piece);
        rest = later;
        while let Some(frame) = scanner.next(&mut buffer)? {
            assert_eq!(frame.ends_message(), !scanner.is_inside_message());
            frames.push(frame);
        }
    }
    Ok((frames, buffer))
}

/// Messages as tag and bytes, parts put together again.
fn messages(frames: &[FrontendFrame]) -> Vec<(u8, Vec<u8>)> {
    let mut messages: Vec<(u8, Vec<u8>)> = Vec::new();
    for frame in frames {
        match (frame.part, messages.last_mut()) {
            (Part::Middle | Part::Last, Some((_, bytes))) => bytes.extend_from_slice(&frame.bytes),
            _ => messages.push((frame.tag, frame.bytes.to_vec())),
        }
    }
    messages
}

fn check_length(tag: u8, length: u32, expected: Result<(), (u32, u32)>) {
    let mut buffer = BytesMut::from(&[&[tag][..], &length.to_be_bytes()].concat()[..]);
    let expected = expected.map_err(|(smallest, largest)| ProtocolError::Length { tag, length, smallest, largest });
    assert_eq!(scanner().next(&mut buffer).map(|_| ()), expected, "{:?} {length}", char::from(tag));
}

#[test]
fn lengths_are_checked_before_anything_is_awaited() {
    let (small, message, large) = (10_000, 64 << 20, 0x3fff_fffe);
    for tag in *b"QPBF" {
        check_length(tag, message, Ok(()));
        check_length(tag, message + 1, Err((4, message)));
        check_length(tag, 3, Err((4, message)));
    }
    for tag in *b"CDEfp" {
        check_length(tag, small, Ok(()));
        check_length(tag, small + 1, Err((4, small)));
    }
    for tag in *b"HSXc" {
        check_length(tag, 4, Ok(()));
        check_length(tag, 5, Err((4, 4)));
        check_length(tag, 0, Err((4, 4)));
    }
    check_length(b'd', large, Ok(()));
    check_length(b'd', large + 1, Err((4, large)));
    check_length(b'd', u32::MAX, Err((4, large)));
}

#[test]
fn unknown_types_are_refused() {
    for tag in (0..=u8::MAX).filter(|tag| !b"QPBFCDEfpHSXcd".contains(tag)) {
        let mut buffer = BytesMut::from(&[tag, 0, 0, 0, 4][..]);
        assert_eq!(scanner().next(&mut buffer), Err(ProtocolError::UnknownTag { tag }));
        assert_eq!(buffer.len(), 5);
    }
}

#[test]
fn an_operator_can_lower_the_limit_but_not_raise_it_above_the_servers() {
    let check = |message, length: u32, accepted| {
        let mut buffer = BytesMut::from(&[&b"Q"[..], &length.to_be_bytes()].concat()[..]);
        let result = ClientScanner::new(Limits { message, ..Limits::default() }).next(&mut buffer);
        assert_eq!(result.is_ok(), accepted, "{message} {length}");
    };
    check(100, 100, true);
    check(100, 101, false);
    check(u32::MAX, 0x3fff_fffe, true);
    check(u32::MAX, 0x3fff_ffff, false);
}

#[test]
fn a_large_copy_is_never_held_in_the_buffer() {
    let mut scanner = scanner();
    let mut buffer = BytesMut::from(&b"d\0\x40\0\0"[..]);
    let first = scanner.next(&mut buffer).expect("a part").expect("a part");
    assert_eq!((first.part, &first.bytes[..], first.body()), (Part::First, &b"d\0\x40\0\0"[..], &b""[..]));
    assert_eq!(scanner.next(&mut buffer), Ok(None));
    let mut remaining = 0x40_0000 - 4;
    while remaining > 0 {
        buffer.resize(8192.min(remaining), b'S');
        remaining -= buffer.len();
        let part = scanner.next(&mut buffer).expect("a part").expect("a part");
        assert_eq!(part.part, if remaining == 0 { Part::Last } else { Part::Middle });
        assert!(buffer.is_empty());
    }
    buffer.extend_from_slice(b"c\0\0\0\x04");
    assert_eq!(scanner.next(&mut buffer).map(|frame| frame.map(|frame| frame.tag)), Ok(Some(b'c')));
}

#[test]
fn a_small_copy_stays_whole() {
    let mut stream = BytesMut::new();
    write::copy_data(&mut stream, &[7; 60_000]).expect("fits");
    let (frames, _) = frames(&stream, &[1000]).expect("valid");
    assert_eq!(frames.iter().map(|frame| frame.part).collect::<Vec<_>>(), [Part::Whole]);
}

#[test]
fn insides_that_do_not_fit_are_refused() {
    let malformed = |what| Some(ProtocolError::Malformed { what });
    let not_utf8 = |what| Some(ProtocolError::NotUtf8 { what });
    assert_eq!(Query::parse(b"SELECT 1").err(), malformed("Query"));
    assert_eq!(Query::parse(b"SELECT 1\0DROP\0").err(), malformed("Query"));
    assert_eq!(Query::parse(b"SELECT '\xff'\0").err(), not_utf8("Query"));
    assert_eq!(Parse::parse(b"s\0SELECT\0").err(), malformed("Parse"));
    assert_eq!(Parse::parse(b"s\0SELECT\0\0\x01\0\0\0").err(), malformed("Parse"));
    assert_eq!(Parse::parse(b"s\0SELECT\0\0\0x").err(), malformed("Parse"));
    assert_eq!(Parse::parse(b"\xc3\0SELECT\0\0\0").err(), not_utf8("Parse"));
    assert_eq!(Bind::parse(b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0").err(), malformed("Bind"));
    assert_eq!(Bind::parse(b"\0\0\0\0\xff\xff\0\0\0\0").err(), malformed("Bind"));
    assert_eq!(Bind::parse(b"\0\0\0\0\0\x01\0\0\0\x7fab\0\0").err(), malformed("Bind"));
    assert_eq!(Describe::parse(b"Xname\0").err(), malformed("Describe"));
    assert_eq!(Close::parse(b"").err(), malformed("Close"));
    assert_eq!(Execute::parse(b"\0\0\0\0").err(), malformed("Execute"));
    assert_eq!(FunctionCall::parse(b"\0\0\0\x01\0\0\0\0").err(), malformed("FunctionCall"));
    assert_eq!(CopyFail::parse(b"no end").err(), malformed("CopyFail"));
    assert_eq!(Password::parse(b"a\0b\0").err(), malformed("PasswordMessage"));
    assert_eq!(SaslInitial::parse(b"SCRAM-SHA-256\0\0\0\0\x05abcd").err(), malformed("SASLInitialResponse"));
}

#[test]
fn a_bind_may_have_as_many_values_as_the_server_takes() {
    let mut out = BytesMut::new();
    write::bind(&mut out, "", "", &[], &vec![None; 65_535], &[]).expect("fits");
    assert_eq!(Bind::parse(&out[5..]).map(|bind| bind.values.len()), Ok(65_535));
    assert_eq!(write::bind(&mut out, "", "", &[], &vec![None; 65_536], &[]), Err(write::WriteError::TooLarge));
}

fn name() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

fn values() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    vec(option::of(vec(any::<u8>(), 0..40)), 0..5)
}

fn borrowed(values: &[Option<Vec<u8>>]) -> Vec<Option<&[u8]>> {
    values.iter().map(Option::as_deref).collect()
}

/// One message as a client's driver would write it.
fn message() -> impl Strategy<Value = Vec<u8>> {
    fn built(build: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut out = BytesMut::new();
        build(&mut out);
        out.to_vec()
    }
    prop_oneof![
        name().prop_map(|text| built(|out| write::query(out, &text).expect("no zero byte"))),
        (name(), name()).prop_map(|(name, text)| built(|out| write::parse(out, &name, &text, &[23]).expect("no zero byte"))),
        (name(), values()).prop_map(|(name, values)| built(|out| {
            write::bind(out, &name, "", &[1], &borrowed(&values), &[]).expect("no zero byte");
        })),
        Just(built(|out| write::execute(out, "", 0).expect("no zero byte"))),
        Just(built(write::sync)),
        Just(built(write::flush)),
        Just(built(write::copy_done)),
        vec(any::<u8>(), 0..200).prop_map(|data| built(|out| write::copy_data(out, &data).expect("fits"))),
        (60_000..200_000usize).prop_map(|size| built(|out| write::copy_data(out, &vec![b'd'; size]).expect("fits"))),
    ]
}

proptest! {
    #[test]
    fn any_cutting_gives_the_same_messages(sent in vec(message(), 0..8), pieces in vec(1..70_000usize, 1..6)) {
        let stream = sent.concat();
        let (cut, rest) = frames(&stream, &pieces).expect("valid");
        prop_assert!(rest.is_empty());
        let forwarded: Vec<u8> = cut.iter().flat_map(|frame| frame.bytes.to_vec()).collect();
        prop_assert_eq!(&forwarded, &stream);
        let expected: Vec<(u8, Vec<u8>)> = sent.into_iter().map(|bytes| (bytes[0], bytes)).collect();
        prop_assert_eq!(messages(&cut), expected);
    }

    #[test]
    fn a_byte_at_a_time_gives_the_same_messages(sent in vec(message(), 0..3)) {
        let stream = sent.concat();
        let (whole, _) = frames(&stream, &[usize::MAX]).expect("valid");
        let (cut, _) = frames(&stream, &[1]).expect("valid");
        prop_assert_eq!(messages(&cut), messages(&whole));
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..300), tag in prop::sample::select(&b"QPBFCDEfpHSXcd"[..])) {
        let _ = first_packet(&mut BytesMut::from(&bytes[..]));
        let _ = frames(&bytes, &[7]);
        let _ = frames(&[&[tag, 0, 0, 0][..], &bytes].concat(), &[7]);
        let _ = Query::parse(&bytes);
        let _ = Parse::parse(&bytes);
        let _ = Bind::parse(&bytes);
        let _ = Describe::parse(&bytes);
        let _ = Close::parse(&bytes);
        let _ = Execute::parse(&bytes);
        let _ = FunctionCall::parse(&bytes);
        let _ = CopyFail::parse(&bytes);
        let _ = Password::parse(&bytes);
        let _ = SaslInitial::parse(&bytes);
    }

    #[test]
    fn readers_undo_builders(
        a in name(), b in name(), types in vec(any::<u32>(), 0..5), formats in vec(0..2i16, 0..4), given in values(),
        number in any::<i32>(), oid in any::<u32>(), kind in prop::sample::select(&b"SP"[..]),
    ) {
        let values = borrowed(&given);
        let written = |build: &dyn Fn(&mut BytesMut) -> Result<(), write::WriteError>| {
            let mut out = BytesMut::from(&b"before"[..]);
            build(&mut out).expect("no zero byte");
            let mut out = out.split_off(6);
            let frame = scanner().next(&mut out).expect("valid").expect("whole");
            assert!(out.is_empty());
            frame
        };
        let frame = written(&|out| write::query(out, &a));
        prop_assert_eq!(Query::parse(frame.body()), Ok(Query { text: &a }));
        let frame = written(&|out| write::parse(out, &a, &b, &types));
        prop_assert_eq!(Parse::parse(frame.body()), Ok(Parse { name: &a, text: &b, parameter_types: types.clone() }));
        let frame = written(&|out| write::bind(out, &a, &b, &formats, &values, &formats));
        let bind =
            Bind { portal: &a, statement: &b, formats: formats.clone(), values: values.clone(), result_formats: formats.clone() };
        prop_assert_eq!(Bind::parse(frame.body()), Ok(bind));
        let frame = written(&|out| write::describe(out, kind, &a));
        prop_assert_eq!(Describe::parse(frame.body()), Ok(Describe { kind, name: &a }));
        let frame = written(&|out| write::close(out, kind, &a));
        prop_assert_eq!(Close::parse(frame.body()), Ok(Close { kind, name: &a }));
        let frame = written(&|out| write::execute(out, &a, number));
        prop_assert_eq!(Execute::parse(frame.body()), Ok(Execute { portal: &a, max_rows: number }));
        let frame = written(&|out| write::function_call(out, oid, &formats, &values, 1));
        let call = FunctionCall { oid, formats: formats.clone(), values: values.clone(), result_format: 1 };
        prop_assert_eq!(FunctionCall::parse(frame.body()), Ok(call));
        let frame = written(&|out| write::copy_fail(out, &a));
        prop_assert_eq!(CopyFail::parse(frame.body()), Ok(CopyFail { reason: &a }));
        let frame = written(&|out| write::password(out, a.as_bytes()));
        prop_assert!(Password::parse(frame.body()).is_ok_and(|password| password.secret == a.as_bytes()));
        let frame = written(&|out| write::sasl_initial(out, &a, Some(b.as_bytes())));
        prop_assert_eq!(SaslInitial::parse(frame.body()), Ok(SaslInitial { mechanism: &a, response: Some(b.as_bytes()) }));
        let frame = written(&|out| write::sasl_response(out, b.as_bytes()));
        prop_assert_eq!(frame.body(), b.as_bytes());
    }

    #[test]
    fn a_first_packet_reads_back(
        minor in 0..=u32::from(u16::MAX), parameters in prop::collection::btree_map("[^\0]{1,20}", "[^\0]{0,20}", 0..6),
        pid in any::<i32>(), key in vec(any::<u8>(), 4..=256),
    ) {
        let mut out = BytesMut::new();
        let protocol = 3 << 16 | minor;
        write::startup(&mut out, protocol, parameters.iter().map(|(name, value)| (&name[..], &value[..]))).expect("no zero byte");
        write::cancel(&mut out, pid, &key).expect("a key");
        let parameters: Vec<_> = parameters.into_iter().collect();
        prop_assert_eq!(first_packet(&mut out), Ok(Some(FirstPacket::Startup { protocol, parameters })));
        prop_assert_eq!(first_packet(&mut out), Ok(Some(FirstPacket::Cancel { pid, key: Bytes::from(key) })));
        write::ssl_request(&mut out);
        prop_assert_eq!(first_packet(&mut out), Ok(Some(FirstPacket::Ssl)));
        write::gss_request(&mut out);
        prop_assert_eq!(first_packet(&mut out), Ok(Some(FirstPacket::GssEnc)));
        prop_assert!(out.is_empty());
    }
}
