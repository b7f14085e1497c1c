//! What builders refuse, and that a refusal leaves nothing behind. Round trips stand beside the readers.

use super::*;

fn check(expected: Result<(), WriteError>, build: impl FnOnce(&mut BytesMut) -> Result<(), WriteError>) {
    let mut out = BytesMut::from(&b"before"[..]);
    assert_eq!(build(&mut out), expected);
    assert_eq!(expected.is_err(), &out[..] == b"before");
}

#[test]
fn zero_bytes_are_refused() {
    let zero = Err(WriteError::ZeroByte);
    check(zero, |out| query(out, "SELECT 1\0"));
    check(zero, |out| parse(out, "a\0SELECT 1", "SELECT 2", &[]));
    check(zero, |out| parse(out, "a", "SELECT 2\0", &[]));
    check(zero, |out| bind(out, "a\0", "b", &[], &[], &[]));
    check(zero, |out| describe(out, b'S', "a\0"));
    check(zero, |out| close(out, b'S', "a\0"));
    check(zero, |out| execute(out, "a\0", 0));
    check(zero, |out| copy_fail(out, "a\0"));
    check(zero, |out| password(out, b"a\0"));
    check(zero, |out| sasl_initial(out, "a\0", None));
    check(zero, |out| startup(out, 3 << 16, [("user", "ana\0database\0prod")]));
    check(zero, |out| startup(out, 3 << 16, [("", "ana")]));
    check(zero, |out| authentication_sasl(out, &["SCRAM-SHA-256", ""]));
    check(zero, |out| parameter_status(out, "a", "b\0"));
    check(zero, |out| row_description(out, &[("a\0", 25)]));
    check(zero, |out| notification_response(out, 1, "a", "b\0"));
    check(zero, |out| negotiate_protocol_version(out, 3 << 16, &["_pq_.a\0"]));
}

#[test]
fn cancel_keys_have_the_lengths_of_the_protocol() {
    for (length, expected) in [(3, Err(WriteError::CancelKey)), (4, Ok(())), (256, Ok(())), (257, Err(WriteError::CancelKey))] {
        check(expected, |out| cancel(out, 1, &vec![1; length]));
        check(expected, |out| backend_key_data(out, 1, &vec![1; length]));
    }
}

#[test]
fn counts_above_sixteen_bits_are_refused() {
    check(Err(WriteError::TooLarge), |out| data_row(out, &vec![None; 65_536]));
    check(Err(WriteError::TooLarge), |out| parse(out, "", "", &vec![0; 65_536]));
    check(Ok(()), |out| data_row(out, &vec![None; 65_535]));
}

#[test]
fn fixed_messages_are_as_the_protocol_has_them() {
    let check = |build: &dyn Fn(&mut BytesMut), expected: &[u8]| {
        let mut out = BytesMut::new();
        build(&mut out);
        assert_eq!(&out[..], expected);
    };
    check(&ssl_request, &[0, 0, 0, 8, 4, 210, 22, 47]);
    check(&gss_request, &[0, 0, 0, 8, 4, 210, 22, 48]);
    check(&|out| cancel(out, 1, b"abcd").expect("a key"), b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01abcd");
    check(&sync, b"S\0\0\0\x04");
    check(&flush, b"H\0\0\0\x04");
    check(&terminate, b"X\0\0\0\x04");
    check(&copy_done, b"c\0\0\0\x04");
    check(&authentication_ok, b"R\0\0\0\x08\0\0\0\0");
    check(&authentication_cleartext_password, b"R\0\0\0\x08\0\0\0\x03");
    check(&|out| authentication_md5_password(out, *b"salt"), b"R\0\0\0\x0c\0\0\0\x05salt");
    check(&|out| ready_for_query(out, b'I'), b"Z\0\0\0\x05I");
    check(&|out| command_complete(out, "SELECT 1"), b"C\0\0\0\x0dSELECT 1\0");
    check(&|out| query(out, "").expect("no zero byte"), b"Q\0\0\0\x05\0");
    check(&|out| data_row(out, &[Some(b"7"), None]).expect("fits"), b"D\0\0\0\x0f\0\x02\0\0\0\x017\xff\xff\xff\xff");
}
