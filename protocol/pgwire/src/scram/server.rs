//! The side that checks a password: it keeps no password, only what was derived from one.
//!
//! The exchange ends in a [`Proof`], which can be tried against several pairs of keys: a token and the decoys beside it.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use subtle::ConstantTimeEq;

use super::{
    BINDING_HEADER, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramError, decoded, hmac, is_nonce, optional_extensions, sha256, text, value, xor,
};

/// One exchange with one client.
pub struct ScramServer {
    salt: Vec<u8>,
    iterations: u32,
    nonce: String,
    channel_binding: Option<Vec<u8>>,
    state: State,
}

enum State {
    Fresh,
    Challenged { gs2_header: String, client_first_bare: String, server_first: String, nonce: String },
    Over,
}

impl ScramServer {
    /// Starts an exchange. The nonce is random, printable and without commas; channel binding data means that the client
    /// came by TLS, and offers the mechanism with channel binding.
    pub fn new(salt: &[u8], iterations: u32, nonce: String, channel_binding: Option<Vec<u8>>) -> Self {
        Self { salt: salt.to_vec(), iterations, nonce, channel_binding, state: State::Fresh }
    }

    /// The mechanisms to offer, the favourite first.
    pub fn mechanisms(&self) -> &'static [&'static str] {
        if self.channel_binding.is_some() { &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256] } else { &[SCRAM_SHA_256] }
    }

    /// Takes the client's first message and answers the server's.
    pub fn client_first(&mut self, mechanism: &str, message: &[u8]) -> Result<Vec<u8>, ScramError> {
        let State::Fresh = std::mem::replace(&mut self.state, State::Over) else { return Err(ScramError::OutOfOrder) };
        if !is_nonce(&self.nonce) {
            return Err(ScramError::Nonce);
        }
        let message = text(message)?;
        let (flag, rest) = message.split_once(',').ok_or(ScramError::Malformed("channel binding flag"))?;
        self.check_flag(mechanism, flag)?;
        let (authorization, client_first_bare) = rest.split_once(',').ok_or(ScramError::Malformed("authorization identity"))?;
        if !authorization.is_empty() {
            return Err(ScramError::Unsupported("authorization identity"));
        }
        let mut attributes = client_first_bare.split(',');
        value(attributes.next(), "n=")?; // Ignored, as PostgreSQL does: the startup packet names the user.
        let client_nonce = value(attributes.next(), "r=")?;
        optional_extensions(attributes)?;
        if !is_nonce(client_nonce) {
            return Err(ScramError::Malformed("nonce"));
        }
        let nonce = format!("{client_nonce}{}", self.nonce);
        let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&self.salt), self.iterations);
        self.state = State::Challenged {
            gs2_header: format!("{flag},,"),
            client_first_bare: client_first_bare.to_owned(),
            server_first: server_first.clone(),
            nonce,
        };
        Ok(server_first.into_bytes())
    }

    /// Takes the client's final message. What it proves is seen by trying it against keys.
    pub fn client_final(&mut self, message: &[u8]) -> Result<Proof, ScramError> {
        let State::Challenged { gs2_header, client_first_bare, server_first, nonce } = std::mem::replace(&mut self.state, State::Over)
        else {
            return Err(ScramError::OutOfOrder);
        };
        let (without_proof, proof) = text(message)?.rsplit_once(",p=").ok_or(ScramError::Malformed("proof"))?;
        let mut attributes = without_proof.split(',');
        let binding = decoded(value(attributes.next(), "c=")?, "channel binding")?;
        let client_nonce = value(attributes.next(), "r=")?;
        optional_extensions(attributes)?;
        if binding != self.expected_binding(&gs2_header) {
            return Err(ScramError::ChannelBinding);
        }
        if client_nonce != nonce {
            return Err(ScramError::Nonce);
        }
        let proof = decoded(proof, "proof")?.try_into().map_err(|_| ScramError::Malformed("proof"))?;
        Ok(Proof { auth_message: format!("{client_first_bare},{server_first},{without_proof}"), proof })
    }

    /// `n`: the client cannot bind; `y`: it could, but believes that we cannot; `p`: it does.
    fn check_flag(&self, mechanism: &str, flag: &str) -> Result<(), ScramError> {
        match (mechanism, flag) {
            (SCRAM_SHA_256, "n") => Ok(()),
            (SCRAM_SHA_256, "y") if self.channel_binding.is_some() => Err(ScramError::Downgrade),
            (SCRAM_SHA_256, "y") => Ok(()),
            (SCRAM_SHA_256_PLUS, _) if self.channel_binding.is_none() => Err(ScramError::Mechanism),
            (SCRAM_SHA_256_PLUS, "p=tls-server-end-point") => Ok(()),
            (SCRAM_SHA_256_PLUS, flag) if flag.starts_with("p=") => Err(ScramError::Unsupported("channel binding type")),
            (SCRAM_SHA_256 | SCRAM_SHA_256_PLUS, _) => Err(ScramError::Malformed("channel binding flag")),
            _ => Err(ScramError::Mechanism),
        }
    }

    fn expected_binding(&self, gs2_header: &str) -> Vec<u8> {
        let mut expected = gs2_header.as_bytes().to_vec();
        if gs2_header == BINDING_HEADER {
            expected.extend_from_slice(self.channel_binding.as_deref().unwrap_or_default());
        }
        expected
    }
}

impl fmt::Debug for ScramServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramServer(***)")
    }
}

/// What a client says it can prove.
#[must_use]
pub struct Proof {
    auth_message: String,
    proof: [u8; 32],
}

impl Proof {
    /// The server's final message if the client knows the password that these keys come from. Takes the same time for
    /// every wrong proof.
    #[must_use]
    pub fn verify(&self, stored_key: &[u8; 32], server_key: &[u8; 32]) -> Option<Vec<u8>> {
        let client_signature = hmac(stored_key, self.auth_message.as_bytes());
        let client_key = xor(self.proof, &client_signature);
        let server_signature = hmac(server_key, self.auth_message.as_bytes());
        let known = bool::from(sha256(&client_key).ct_eq(stored_key));
        known.then(|| format!("v={}", BASE64.encode(server_signature)).into_bytes())
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(***)")
    }
}
