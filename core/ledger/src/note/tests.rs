//! Tests of signed notes: the example of Go's `note` package, and every single changed byte.

use proptest::prelude::*;

use super::*;

const SIGNING_KEY: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const VERIFYING_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const TEXT: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\n\
    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

#[test]
fn keys_and_signature_are_those_of_go() {
    let signer = Signer::parse(SIGNING_KEY).expect("the example's key");
    assert_eq!(signer.verifier().to_string(), VERIFYING_KEY);
    assert_eq!(signer.reveal(), SIGNING_KEY);
    assert_eq!(format!("{signer:?}"), format!("Signer({VERIFYING_KEY})"));
    assert_eq!(SignedNote::sign(TEXT, &signer).map(|note| note.to_string()), Ok(NOTE.to_owned()));
    let verifier = Verifier::parse(VERIFYING_KEY).expect("the example's key");
    assert_eq!(SignedNote::parse(NOTE).expect("the example").verify(&verifier), Ok(TEXT));
}

#[test]
fn strangers_signatures_are_ignored_and_ours_is_needed() {
    let signer = Signer::parse(SIGNING_KEY).expect("the example's key");
    let witness = Signer::from_seed("witness", [1; 32]).expect("a name of the test");
    let cosigned = format!("{NOTE}\u{2014} witness AAAAAAAA\n");
    let note = SignedNote::parse(&cosigned).expect("a note");
    assert_eq!(note.to_string(), cosigned);
    assert_eq!(note.verify(&signer.verifier()), Ok(TEXT));
    assert_eq!(note.verify(&witness.verifier()), Err(NoteError::NotSigned("witness".to_owned())));
    let twice = format!("{NOTE}{}", NOTE.rsplit_once("\n\n").expect("signatures").1);
    assert!(SignedNote::parse(&twice).expect("a note").verify(&signer.verifier()).is_err());
}

#[test]
fn every_changed_byte_is_noticed() {
    let verifier = Verifier::parse(VERIFYING_KEY).expect("the example's key");
    for at in 0..NOTE.len() {
        for flip in [1u8, 32] {
            let mut bytes = NOTE.as_bytes().to_vec();
            bytes[at] ^= flip;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let accepted = SignedNote::parse(&text).is_ok_and(|note| note.verify(&verifier).is_ok());
            assert!(!accepted, "byte {at} flipped by {flip}");
        }
    }
}

#[test]
fn keys_that_are_none() {
    for bad in
        ["", "a", "a+b", "a+00000000+", "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", &VERIFYING_KEY.to_uppercase()]
    {
        assert!(Verifier::parse(bad).is_err(), "{bad}");
        assert!(Signer::parse(bad).is_err(), "{bad}");
    }
    for name in ["", "a b", "a+b", "a\n", "a\u{a0}b", &"a".repeat(256)] {
        assert!(Signer::from_seed(name, [0; 32]).is_err(), "{name:?}");
    }
}

#[test]
fn texts_that_can_t_be_signed() {
    let signer = Signer::parse(SIGNING_KEY).expect("the example's key");
    for text in ["", "no line break", "tab\t\n", "\r\n"] {
        assert!(SignedNote::sign(text, &signer).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn a_text_with_empty_lines_comes_back(text in "[a-z\n\u{2014} ]{0,60}\n") {
        let signer = Signer::from_seed("a", [1; 32]).expect("a name of the test");
        let note = SignedNote::sign(&text, &signer).expect("a text of the test").to_string();
        let read = SignedNote::parse(&note).expect("our own note");
        prop_assert_eq!(read.verify(&signer.verifier()), Ok(text.as_str()));
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,60}\n\n(\u{2014} a [A-Za-z0-9+/=]{0,20}\n)?") {
        let _ = SignedNote::parse(&text);
        let _ = Verifier::parse(&text);
        let _ = Signer::parse(&text);
    }
}
