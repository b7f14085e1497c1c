//! Agent tokens: `rpv_`, 43 random base62 characters, six of checksum, so that a secret scanner finds one without asking us.
//!
//! A token is shown once. What is kept is its SHA-256 digest and a SCRAM verifier (RFC 5802, RFC 7677), neither of which
//! gives it back.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize as _;

use crate::Digest;

const PREFIX: &str = "rpv_";
const RANDOM_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A token's text. Prints as `rpv_***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Why a text is not a token.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a Reprieve token: expected `rpv_` and 49 letters and digits with a valid checksum")]
pub struct TokenError;

impl Token {
    /// A token made of 43 random bytes; each gives one character, bytes over 247 are folded by the caller's next byte.
    #[must_use]
    pub fn from_random(mut next: impl FnMut() -> u8) -> Self {
        let mut text = PREFIX.to_owned();
        while text.len() < PREFIX.len() + RANDOM_CHARS {
            let byte = next();
            // 248 is the largest multiple of 62 in a byte: above it, characters would not be equally likely.
            if byte < 248 {
                text.push(char::from(BASE62[usize::from(byte % 62)]));
            }
        }
        let checksum = checksum(&text);
        text.push_str(&checksum);
        Self(text)
    }

    /// Reads a token's text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let body = text.strip_prefix(PREFIX).ok_or(TokenError)?;
        if body.len() != RANDOM_CHARS + CHECKSUM_CHARS || !body.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(TokenError);
        }
        let (head, tail) = text.split_at(PREFIX.len() + RANDOM_CHARS);
        if checksum(head) == tail { Ok(Self(text.to_owned())) } else { Err(TokenError) }
    }

    /// The text itself, for the one moment it is shown or sent.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The digest that is kept.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The SCRAM-SHA-256 verifier that is kept. All tokens of one gateway share `salt`: a token is 256 bits of
    /// randomness, so a salt protects nothing, and one salt lets a presented decoy be recognised.
    #[must_use]
    pub fn verifier(&self, salt: &[u8]) -> ScramVerifier {
        ScramVerifier::from_password(self.0.as_bytes(), salt)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rpv_***")
    }
}

fn checksum(text: &str) -> String {
    let mut value = crc32fast::hash(text.as_bytes());
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(value % 62) as usize];
        value /= 62;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// Iterations of the SCRAM key derivation: the least RFC 7677 allows, since tokens cannot be guessed.
pub const SCRAM_ITERATIONS: u32 = 4096;

/// `StoredKey` and `ServerKey` of RFC 5802 section 3, in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScramVerifier {
    /// SHA-256 of the client key, base64.
    pub stored_key: String,
    /// HMAC of `Server Key`, base64.
    pub server_key: String,
}

impl ScramVerifier {
    /// Derives the verifier of a password (RFC 5802 section 3, `Hi`, `ClientKey`, `StoredKey`, `ServerKey`).
    #[must_use]
    pub fn from_password(password: &[u8], salt: &[u8]) -> Self {
        let mac = |key: &[u8], text: &[u8]| -> [u8; 32] {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
            mac.update(text);
            mac.finalize().into_bytes().into()
        };
        let mut first = salt.to_vec();
        first.extend_from_slice(&1u32.to_be_bytes());
        let mut block = mac(password, &first);
        let mut salted = block;
        for _ in 1..SCRAM_ITERATIONS {
            block = mac(password, &block);
            for (sum, byte) in salted.iter_mut().zip(block) {
                *sum ^= byte;
            }
        }
        let client_key = mac(&salted, b"Client Key");
        Self { stored_key: BASE64.encode(Sha256::digest(client_key)), server_key: BASE64.encode(mac(&salted, b"Server Key")) }
    }

    /// Both keys as bytes: stored key, server key.
    #[must_use]
    pub fn keys(&self) -> Option<([u8; 32], [u8; 32])> {
        let key = |text: &str| BASE64.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        Some((key(&self.stored_key)?, key(&self.server_key)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_recognised_and_a_changed_one_is_not() {
        let mut seed = 7u8;
        let token = Token::from_random(|| {
            seed = seed.wrapping_mul(37).wrapping_add(11);
            seed
        });
        assert_eq!(token.reveal().len(), 53);
        assert_eq!(Token::parse(token.reveal()).as_ref(), Ok(&token));
        let mut changed = token.reveal().to_owned();
        changed.replace_range(10..11, if &changed[10..11] == "a" { "b" } else { "a" });
        assert_eq!(Token::parse(&changed), Err(TokenError));
        assert_eq!(Token::parse("rpv_é"), Err(TokenError));
        assert_eq!(format!("{token:?}"), "rpv_***");
    }

    #[test]
    fn the_verifier_matches_postgresql() {
        // A verifier made by PostgreSQL 15 for password `pencil`, salt `salt-of-16-bytes`, 4096 iterations, is checked in the
        // surface's tests against the real server; here the derivation is pinned to RFC 7677 section 3's exchange.
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64 of the RFC");
        let verifier = ScramVerifier::from_password(b"pencil", &salt);
        let (_, server_key) = verifier.keys().expect("two keys");
        let auth = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let mut mac = Hmac::<Sha256>::new_from_slice(&server_key).expect("any length");
        mac.update(auth.as_bytes());
        assert_eq!(BASE64.encode(mac.finalize().into_bytes()), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }
}
