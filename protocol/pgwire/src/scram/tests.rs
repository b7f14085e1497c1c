//! Exchanges: the RFC's own, both sides against each other, and everything a wrong side may try.

use proptest::{collection::vec, prelude::*};

use super::*;

const OFFER: &[&str] = &[SCRAM_SHA_256];
const OFFER_PLUS: &[&str] = &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256];

struct Keys {
    stored: [u8; 32],
    server: [u8; 32],
}

fn keys(password: &[u8], salt: &[u8], iterations: u32) -> Keys {
    let salted = salted_password(password, salt, iterations);
    Keys { stored: sha256(&hmac(salted.as_slice(), b"Client Key")), server: hmac(salted.as_slice(), b"Server Key") }
}

fn client(password: &[u8], binding: Option<&[u8]>, offered: &[&str]) -> Result<ScramClient, ScramError> {
    ScramClient::new("", password, "clientnonce".to_owned(), binding.map(<[u8]>::to_vec), offered)
}

fn server(binding: Option<&[u8]>) -> ScramServer {
    ScramServer::new(b"salt", 2, "servernonce".to_owned(), binding.map(<[u8]>::to_vec))
}

/// Plays a whole exchange: whether the server knew the client, and what the client makes of the server.
fn play(mut client: ScramClient, mut server: ScramServer, keys: &Keys) -> Result<bool, ScramError> {
    let (mechanism, message) = client.first();
    let message = server.client_first(mechanism, &message)?;
    let message = client.server_first(&message)?;
    match server.client_final(&message)?.verify(&keys.stored, &keys.server) {
        Some(message) => {
            assert!(!client.is_verified());
            client.server_final(&message)?;
            assert!(client.is_verified());
            Ok(true)
        }
        None => Ok(false),
    }
}

#[test]
fn the_exchange_of_rfc_7677() {
    let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("the RFC's");
    let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    let challenge = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let signature = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    let mut client = ScramClient::new("user", b"pencil", "rOprNGfwEbeRWgbNEkqO".to_owned(), None, OFFER).expect("a mechanism");
    assert_eq!(client.first(), (SCRAM_SHA_256, first.to_vec()));
    assert_eq!(client.server_first(challenge), Ok(last.to_vec()));
    assert_eq!(client.server_final(signature), Ok(()));

    let mut server = ScramServer::new(&salt, 4096, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned(), None);
    assert_eq!(server.client_first(SCRAM_SHA_256, first), Ok(challenge.to_vec()));
    let proof = server.client_final(last).expect("a proof");
    let right = keys(b"pencil", &salt, 4096);
    let decoy = keys(b"crayon", &salt, 4096);
    assert_eq!(proof.verify(&decoy.stored, &decoy.server), None);
    assert_eq!(proof.verify(&right.stored, &right.server), Some(signature.to_vec()));
}

#[test]
fn channel_binding_is_used_when_both_can_and_its_removal_is_noticed() {
    let keys = keys(b"secret", b"salt", 2);
    let check = |client_data: Option<&[u8]>, offered: &[&str], server_data: Option<&[u8]>, expected: Result<bool, ScramError>| {
        let result = client(b"secret", client_data, offered).and_then(|client| play(client, server(server_data), &keys));
        assert_eq!(result, expected, "{client_data:?} {offered:?} {server_data:?}");
    };
    let (data, other) = (Some(&b"certificate hash"[..]), Some(&b"hash of another one"[..]));
    check(None, OFFER, None, Ok(true));
    check(None, OFFER_PLUS, data, Ok(true));
    check(data, OFFER, None, Ok(true));
    check(data, OFFER_PLUS, data, Ok(true));
    check(data, OFFER_PLUS, other, Err(ScramError::ChannelBinding));
    check(data, OFFER, data, Err(ScramError::Downgrade));
    check(data, OFFER_PLUS, None, Err(ScramError::Mechanism));
    check(None, &[SCRAM_SHA_256_PLUS], data, Err(ScramError::Mechanism));
    check(None, &["OAUTHBEARER"], None, Err(ScramError::Mechanism));
    check(None, &[], None, Err(ScramError::Mechanism));
    assert_eq!(server(data).mechanisms(), OFFER_PLUS);
    assert_eq!(server(None).mechanisms(), OFFER);
}

#[test]
fn first_messages_of_a_client() {
    use ScramError::{Downgrade, Malformed, Mechanism, Unsupported};
    let check = |binding: bool, mechanism: &str, message: &[u8], expected: Result<(), ScramError>| {
        let mut server = server(binding.then_some(b"data"));
        let text = String::from_utf8_lossy(message);
        assert_eq!(server.client_first(mechanism, message).map(|_| ()), expected, "{mechanism} {text}");
    };
    check(false, SCRAM_SHA_256, b"n,,n=,r=abc", Ok(()));
    check(false, SCRAM_SHA_256, b"y,,n=,r=abc", Ok(()));
    check(false, SCRAM_SHA_256, b"n,,n=a=2Cb,r=abc,x=ext", Ok(()));
    check(true, SCRAM_SHA_256, b"y,,n=,r=abc", Err(Downgrade));
    check(true, SCRAM_SHA_256, b"p=tls-server-end-point,,n=,r=abc", Err(Malformed("channel binding flag")));
    check(true, SCRAM_SHA_256_PLUS, b"p=tls-server-end-point,,n=,r=abc", Ok(()));
    check(true, SCRAM_SHA_256_PLUS, b"p=tls-unique,,n=,r=abc", Err(Unsupported("channel binding type")));
    check(true, SCRAM_SHA_256_PLUS, b"n,,n=,r=abc", Err(Malformed("channel binding flag")));
    check(true, SCRAM_SHA_256_PLUS, b"y,,n=,r=abc", Err(Malformed("channel binding flag")));
    check(false, SCRAM_SHA_256_PLUS, b"p=tls-server-end-point,,n=,r=abc", Err(Mechanism));
    check(true, "SCRAM-SHA-1", b"n,,n=,r=abc", Err(Mechanism));
    check(false, SCRAM_SHA_256, b"n,a=root,n=,r=abc", Err(Unsupported("authorization identity")));
    check(false, SCRAM_SHA_256, b"n,,m=ext,n=,r=abc", Err(Unsupported("mandatory extension")));
    check(false, SCRAM_SHA_256, b"n,,n=", Err(Malformed("r=")));
    check(false, SCRAM_SHA_256, b"n,,r=abc,n=", Err(Malformed("n=")));
    check(false, SCRAM_SHA_256, b"n,,n=,r=", Err(Malformed("nonce")));
    check(false, SCRAM_SHA_256, b"n,,n=,r=a c", Err(Malformed("nonce")));
    check(false, SCRAM_SHA_256, b"n,,n=,r=abc,ext", Err(Malformed("extension")));
    check(false, SCRAM_SHA_256, b"n", Err(Malformed("channel binding flag")));
    check(false, SCRAM_SHA_256, b"n,", Err(Malformed("authorization identity")));
    check(false, SCRAM_SHA_256, b"x,,n=,r=abc", Err(Malformed("channel binding flag")));
    check(false, SCRAM_SHA_256, b"", Err(Malformed("channel binding flag")));
    check(false, SCRAM_SHA_256, b"n,,n=\xff,r=abc", Err(Malformed("not UTF-8")));
    check(false, SCRAM_SHA_256, b"n,,n=\0,r=abc", Err(Malformed("not a short text")));
    check(false, SCRAM_SHA_256, &[b'n'; 10_001], Err(Malformed("not a short text")));
}

#[test]
fn final_messages_of_a_client() {
    use ScramError::{ChannelBinding, Malformed, Nonce, Unsupported};
    let check = |message: &str, expected: Result<(), ScramError>| {
        let mut server = server(None);
        server.client_first(SCRAM_SHA_256, b"n,,n=,r=abc").expect("a challenge");
        assert_eq!(server.client_final(message.as_bytes()).map(|_| ()), expected, "{message}");
        assert_eq!(server.client_final(message.as_bytes()).map(|_| ()), Err(ScramError::OutOfOrder));
    };
    let proof = BASE64.encode([0; 32]);
    check(&format!("c=biws,r=abcservernonce,p={proof}"), Ok(()));
    check(&format!("c=biws,r=abcservernonce,x=y,p={proof}"), Ok(()));
    check(&format!("c=eSws,r=abcservernonce,p={proof}"), Err(ChannelBinding));
    check(&format!("c=biwsAA==,r=abcservernonce,p={proof}"), Err(ChannelBinding));
    check(&format!("c=biws,r=abc,p={proof}"), Err(Nonce));
    check(&format!("c=biws,r=abcservernoncex,p={proof}"), Err(Nonce));
    check(&format!("c=biws,r=abcservernonce,p={proof},x=y"), Err(Malformed("proof")));
    check(&format!("m=x,c=biws,r=abcservernonce,p={proof}"), Err(Unsupported("mandatory extension")));
    check(&format!("r=abcservernonce,p={proof}"), Err(Malformed("c=")));
    check("c=biws,r=abcservernonce,p=AAAA", Err(Malformed("proof")));
    check("c=biws,r=abcservernonce,p=%", Err(Malformed("proof")));
    check("c=biws,r=abcservernonce", Err(Malformed("proof")));
    assert_eq!(server(None).client_final(b"c=biws").map(|_| ()), Err(ScramError::OutOfOrder));
}

#[test]
fn messages_of_a_server() {
    use ScramError::{Iterations, Malformed, Nonce, Unsupported};
    let check = |message: &str, expected: Result<(), ScramError>| {
        let mut client = client(b"secret", None, OFFER).expect("a mechanism");
        client.first();
        assert_eq!(client.server_first(message.as_bytes()).map(|_| ()), expected, "{message}");
    };
    check("r=clientnoncex,s=c2FsdA==,i=1", Ok(()));
    check("r=clientnonce,s=c2FsdA==,i=1", Err(Nonce));
    check("r=servernonce,s=c2FsdA==,i=1", Err(Nonce));
    check("r=clientnoncex,s=c2FsdA==,i=0", Err(Iterations(0)));
    check("r=clientnoncex,s=c2FsdA==,i=1000001", Err(Iterations(1_000_001)));
    check("r=clientnoncex,s=c2FsdA==,i=99999999999", Err(Malformed("iteration count")));
    check("r=clientnoncex,s=c2FsdA==,i=+1", Err(Malformed("iteration count")));
    check("r=clientnoncex,s=c2FsdA==,i=", Err(Malformed("iteration count")));
    check("r=clientnoncex,s=,i=1", Err(Malformed("salt")));
    check("r=clientnoncex,s=%,i=1", Err(Malformed("salt")));
    check("r=clientnoncex,s=c2FsdA==", Err(Malformed("i=")));
    check("r=clientnoncex,s=c2FsdA==,i=1,x=y", Err(Unsupported("extension")));
    check("m=x,r=clientnoncex,s=c2FsdA==,i=1", Err(Unsupported("mandatory extension")));

    let last = |message: &str| {
        let mut client = client(b"secret", None, OFFER).expect("a mechanism");
        client.first();
        client.server_first(b"r=clientnoncex,s=c2FsdA==,i=1").expect("an answer");
        let result = client.server_final(message.as_bytes());
        assert!(!client.is_verified());
        result
    };
    assert_eq!(last(&format!("v={}", BASE64.encode([0; 32]))), Err(ScramError::ServerSignature));
    assert_eq!(last("v="), Err(ScramError::ServerSignature));
    assert_eq!(last("e=invalid-proof"), Err(ScramError::Server("invalid-proof".to_owned())));
    assert_eq!(last("x"), Err(Malformed("v=")));
}

#[test]
fn steps_have_one_order() {
    let mut early = client(b"secret", None, OFFER).expect("a mechanism");
    assert_eq!(early.server_first(b"r=clientnoncex,s=c2FsdA==,i=1"), Err(ScramError::OutOfOrder));
    assert_eq!(early.server_final(b"v="), Err(ScramError::OutOfOrder));
    let mut twice = client(b"secret", None, OFFER).expect("a mechanism");
    twice.first();
    twice.first();
    assert_eq!(twice.server_first(b"r=clientnoncex,s=c2FsdA==,i=1"), Err(ScramError::OutOfOrder));
    let mut server = server(None);
    server.client_first(SCRAM_SHA_256, b"n,,n=,r=abc").expect("a challenge");
    assert_eq!(server.client_first(SCRAM_SHA_256, b"n,,n=,r=abc"), Err(ScramError::OutOfOrder));
}

#[test]
fn secrets_are_not_printed() {
    let client = client(b"hunter2", None, OFFER).expect("a mechanism");
    assert_eq!(format!("{client:?} {:?}", server(None)), "ScramClient(***) ScramServer(***)");
}

proptest! {
    /// Without zero bytes: HMAC pads its key with them, so that `a` and `a\0` are one password to SCRAM.
    #[test]
    fn both_sides_agree_exactly_on_the_same_password(
        password in vec(1..=u8::MAX, 0..80), other in vec(1..=u8::MAX, 0..80), salt in vec(any::<u8>(), 1..40),
        user in "\\PC{0,20}", iterations in 1..5u32, nonces in ("[!-+\\--~]{1,40}", "[!-+\\--~]{1,40}"),
        binding in proptest::option::of(vec(any::<u8>(), 1..64)),
    ) {
        let play = |password: &[u8]| {
            let server = ScramServer::new(&salt, iterations, nonces.1.clone(), binding.clone());
            let client = ScramClient::new(&user, password, nonces.0.clone(), binding.clone(), server.mechanisms());
            play(client.expect("a mechanism"), server, &keys(&other, &salt, iterations))
        };
        prop_assert_eq!(play(&other), Ok(true));
        prop_assert_eq!(play(&password), Ok(password == other));
    }

    #[test]
    fn one_changed_byte_ends_the_exchange(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let keys = keys(b"secret", b"salt", 2);
        let (mut client, mut server) = (client(b"secret", None, OFFER).expect("a mechanism"), server(None));
        let (mechanism, first) = client.first();
        let challenge = server.client_first(mechanism, &first).expect("a challenge");
        let mut last = client.server_first(&challenge).expect("an answer");
        let place = place.index(last.len());
        prop_assume!(last[place] != byte);
        last[place] = byte;
        let known = server.client_final(&last).ok().and_then(|proof| proof.verify(&keys.stored, &keys.server));
        prop_assert_eq!(known, None);
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200), text in "[nyp,=rcsimv0-9a-zA-Z+/]{0,60}") {
        for message in [&bytes[..], text.as_bytes()] {
            let _ = server(Some(b"data")).client_first(SCRAM_SHA_256_PLUS, message);
            let mut server = server(None);
            let _ = server.client_first(SCRAM_SHA_256, b"n,,n=,r=abc");
            let _ = server.client_final(message);
            let mut client = client(b"secret", None, OFFER).expect("a mechanism");
            client.first();
            let _ = client.server_first(message);
        }
    }
}
