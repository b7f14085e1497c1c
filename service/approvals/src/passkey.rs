//! Passkeys: checks what a browser and an authenticator say, after the WebAuthn recommendation (level 3, section 7).
//!
//! No state and no clock: an assertion that was recorded can be checked again years later, by the public key alone. Attestation is
//! not asked for, so that nothing here reads CBOR. Which challenge it has to be is the caller's business.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use reprieve_gate::{Assertion, NewPasskey};
use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use webpki::{
    RawPublicKeyEntity,
    ring::{ECDSA_P256_SHA256, ED25519, RSA_PKCS1_2048_8192_SHA256},
};

/// What pages offer to authenticators, as COSE numbers them: -7, -8, -257.
static ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 3] = [ECDSA_P256_SHA256, ED25519, RSA_PKCS1_2048_8192_SHA256];

const USER_PRESENT: u8 = 0x01;
const USER_VERIFIED: u8 = 0x04;
const CREDENTIAL_INCLUDED: u8 = 0x40;
/// No part of what a browser sends is longer, RSA keys and all.
const LONGEST_PART: usize = 4 * 1024;

/// Where the console is, as browsers name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleOrigin {
    origin: String,
    relying_party: String,
}

/// Why a text is no origin for passkeys.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not where a console can be: write https://HOST or https://HOST:PORT, the host by its name and not by its number")]
pub struct OriginError(String);

impl ConsoleOrigin {
    /// Reads `https://HOST` or `https://HOST:PORT`.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let wrong = || OriginError(text.to_owned());
        let authority = text.strip_prefix("https://").ok_or_else(wrong)?;
        let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        let named = host.bytes().any(|byte| byte.is_ascii_lowercase());
        let clean = host.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
        // A browser leaves the standard port out, and so it has to be left out here.
        let port_is_right = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number != 443 && number.to_string() == port));
        if !named || !clean || host.len() > 253 || !port_is_right {
            return Err(wrong());
        }
        Ok(Self { origin: text.to_owned(), relying_party: host.to_owned() })
    }

    /// As browsers send it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.origin
    }
}

/// Why a passkey's word counts for nothing.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum PasskeyError {
    #[error("`{0}` is not what a browser sends")]
    Unreadable(&'static str),
    #[error("it was asked for something else")]
    Challenge,
    #[error("it was asked on another site")]
    Site,
    #[error("the person did not confirm with a finger, a face or a number")]
    Unverified,
    #[error("the key is of a sort that is not known here")]
    Algorithm,
    #[error("the signature is not the passkey's")]
    Signature,
}

/// Checks a new passkey, and answers its credential id as base64url and its public key.
pub(crate) fn check_new(passkey: &NewPasskey, challenge: &[u8], console: &ConsoleOrigin) -> Result<Vec<u8>, PasskeyError> {
    check_client(&part(&passkey.client_data, "client_data")?, "webauthn.create", challenge, console)?;
    let data = part(&passkey.authenticator_data, "authenticator_data")?;
    check_authenticator(&data, console)?;
    let id = part(&passkey.credential, "credential")?;
    if data[32] & CREDENTIAL_INCLUDED == 0 || included_credential(&data) != Some(id.as_slice()) || id.is_empty() {
        return Err(PasskeyError::Unreadable("authenticator_data"));
    }
    let key = part(&passkey.public_key, "public_key")?;
    let spki = SubjectPublicKeyInfoDer::from(key.as_slice());
    RawPublicKeyEntity::try_from(&spki).map_err(|_| PasskeyError::Unreadable("public_key"))?;
    // The algorithm stands at the beginning, after two lengths.
    let head = &key[..key.len().min(40)];
    let known = |algorithm: &&dyn SignatureVerificationAlgorithm| {
        let id = algorithm.public_key_alg_id();
        head.windows(id.as_ref().len()).any(|window| window == id.as_ref())
    };
    if ALGORITHMS.iter().any(known) { Ok(key) } else { Err(PasskeyError::Algorithm) }
}

/// Checks an assertion against its challenge, and answers the authenticator's counter.
pub(crate) fn check(assertion: &Assertion, public_key: &[u8], challenge: &[u8], console: &ConsoleOrigin) -> Result<u32, PasskeyError> {
    let data = part(&assertion.authenticator_data, "authenticator_data")?;
    check_client(&part(&assertion.client_data, "client_data")?, "webauthn.get", challenge, console)?;
    check_authenticator(&data, console)?;
    check_signature(assertion, public_key)?;
    Ok(u32::from_be_bytes([data[33], data[34], data[35], data[36]]))
}

/// Checks the signature alone, and answers the challenge that was signed: what an auditor can do, who does not know the site.
pub(crate) fn signed_challenge(assertion: &Assertion, public_key: &[u8]) -> Result<Vec<u8>, PasskeyError> {
    check_signature(assertion, public_key)?;
    let client = ClientData::read(&part(&assertion.client_data, "client_data")?)?;
    if client.kind != "webauthn.get" {
        return Err(PasskeyError::Challenge);
    }
    part(&client.challenge, "challenge")
}

fn check_signature(assertion: &Assertion, public_key: &[u8]) -> Result<(), PasskeyError> {
    let mut message = part(&assertion.authenticator_data, "authenticator_data")?;
    message.extend_from_slice(&Sha256::digest(part(&assertion.client_data, "client_data")?));
    let signature = part(&assertion.signature, "signature")?;
    let spki = SubjectPublicKeyInfoDer::from(public_key);
    let key = RawPublicKeyEntity::try_from(&spki).map_err(|_| PasskeyError::Unreadable("public_key"))?;
    let signed = ALGORITHMS.iter().any(|algorithm| key.verify_signature(*algorithm, &message, &signature).is_ok());
    if signed { Ok(()) } else { Err(PasskeyError::Signature) }
}

#[derive(Deserialize)]
struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    #[serde(default, rename = "crossOrigin")]
    cross_origin: bool,
}

impl ClientData {
    fn read(json: &[u8]) -> Result<Self, PasskeyError> {
        serde_json::from_slice(json).map_err(|_| PasskeyError::Unreadable("client_data"))
    }
}

fn check_client(json: &[u8], kind: &str, challenge: &[u8], console: &ConsoleOrigin) -> Result<(), PasskeyError> {
    let client = ClientData::read(json)?;
    if client.kind != kind || BASE64URL.decode(&client.challenge).ok().as_deref() != Some(challenge) {
        return Err(PasskeyError::Challenge);
    }
    if client.origin != console.origin || client.cross_origin { Err(PasskeyError::Site) } else { Ok(()) }
}

fn check_authenticator(data: &[u8], console: &ConsoleOrigin) -> Result<(), PasskeyError> {
    if data.len() < 37 {
        return Err(PasskeyError::Unreadable("authenticator_data"));
    }
    if data[..32] != Sha256::digest(console.relying_party.as_bytes())[..] {
        return Err(PasskeyError::Site);
    }
    let confirmed = USER_PRESENT | USER_VERIFIED;
    if data[32] & confirmed == confirmed { Ok(()) } else { Err(PasskeyError::Unverified) }
}

/// The credential id inside the authenticator's data: after the model's number, with its length before it.
fn included_credential(data: &[u8]) -> Option<&[u8]> {
    let length = usize::from(u16::from_be_bytes([*data.get(53)?, *data.get(54)?]));
    data.get(55..55 + length)
}

fn part(text: &str, name: &'static str) -> Result<Vec<u8>, PasskeyError> {
    if text.len() > LONGEST_PART {
        return Err(PasskeyError::Unreadable(name));
    }
    BASE64URL.decode(text).map_err(|_| PasskeyError::Unreadable(name))
}
