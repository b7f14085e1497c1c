//! The side that knows the password, towards an upstream server.
//!
//! Passwords are used as their UTF-8 bytes. PostgreSQL's own client prepares them (SASLprep) and falls back to the bytes
//! when that fails; for ASCII, and for composed text without compatibility characters, both give the same.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    BINDING_HEADER, MOST_ITERATIONS, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramError, decoded, hmac, is_nonce, salted_password, sha256, text,
    value, xor,
};

/// One exchange with one server.
pub struct ScramClient {
    user: String,
    password: Zeroizing<Vec<u8>>,
    nonce: String,
    binding: Binding,
    state: State,
}

enum Binding {
    /// There is no TLS, or its certificate has no hash to bind to.
    Impossible,
    /// We could, the server does not offer it. Saying so lets the server notice if it did.
    NotOffered,
    /// The data both sides have to see.
    EndPoint(Vec<u8>),
}

enum State {
    Fresh,
    Begun,
    Answered { server_signature: [u8; 32] },
    Verified,
    Failed,
}

impl ScramClient {
    /// Starts an exchange with a server that offers these mechanisms. The nonce is random, printable and without commas;
    /// channel binding data is given whenever the connection has it, and used when the server offers to.
    ///
    /// PostgreSQL ignores the user of this exchange: the startup packet named it.
    pub fn new(
        user: &str,
        password: &[u8],
        nonce: String,
        channel_binding: Option<Vec<u8>>,
        offered: &[impl AsRef<str>],
    ) -> Result<Self, ScramError> {
        let offers = |mechanism| offered.iter().any(|name| name.as_ref() == mechanism);
        let binding = match channel_binding {
            Some(data) if offers(SCRAM_SHA_256_PLUS) => Binding::EndPoint(data),
            _ if !offers(SCRAM_SHA_256) => return Err(ScramError::Mechanism),
            Some(_) => Binding::NotOffered,
            None => Binding::Impossible,
        };
        if !is_nonce(&nonce) {
            return Err(ScramError::Nonce);
        }
        Ok(Self {
            user: user.replace('=', "=3D").replace(',', "=2C"),
            password: Zeroizing::new(password.to_vec()),
            nonce,
            binding,
            state: State::Fresh,
        })
    }

    /// Whether the exchange is bound to the TLS connection. Where that is required, ask before `first` is sent.
    pub fn is_bound(&self) -> bool {
        matches!(self.binding, Binding::EndPoint(_))
    }

    /// Whether the server has proved that it knows the password. An AuthenticationOk before that is not to be believed.
    pub fn is_verified(&self) -> bool {
        matches!(self.state, State::Verified)
    }

    /// The mechanism chosen and the client's first message. A second call ends the exchange as failed.
    pub fn first(&mut self) -> (&'static str, Vec<u8>) {
        self.state = if matches!(self.state, State::Fresh) { State::Begun } else { State::Failed };
        let mechanism = if self.is_bound() { SCRAM_SHA_256_PLUS } else { SCRAM_SHA_256 };
        (mechanism, format!("{}{}", self.gs2_header(), self.first_bare()).into_bytes())
    }

    /// Takes the server's first message and answers the client's final one.
    ///
    /// Hashes as often as the server asks, up to a million times, which can take a second.
    pub fn server_first(&mut self, message: &[u8]) -> Result<Vec<u8>, ScramError> {
        let State::Begun = std::mem::replace(&mut self.state, State::Failed) else { return Err(ScramError::OutOfOrder) };
        let server_first = text(message)?;
        let mut attributes = server_first.split(',');
        let nonce = value(attributes.next(), "r=")?;
        let salt = decoded(value(attributes.next(), "s=")?, "salt")?;
        let iterations = iterations(value(attributes.next(), "i=")?)?;
        if attributes.next().is_some() {
            return Err(ScramError::Unsupported("extension"));
        }
        if !nonce.strip_prefix(&self.nonce).is_some_and(is_nonce) {
            return Err(ScramError::Nonce);
        }
        if salt.is_empty() {
            return Err(ScramError::Malformed("salt"));
        }

        let mut binding = self.gs2_header().as_bytes().to_vec();
        if let Binding::EndPoint(data) = &self.binding {
            binding.extend_from_slice(data);
        }
        let without_proof = format!("c={},r={nonce}", BASE64.encode(binding));
        let auth_message = format!("{},{server_first},{without_proof}", self.first_bare());
        let salted = salted_password(&self.password, &salt, iterations);
        let client_key = hmac(salted.as_slice(), b"Client Key");
        let client_signature = hmac(&sha256(&client_key), auth_message.as_bytes());
        let server_key = hmac(salted.as_slice(), b"Server Key");
        self.state = State::Answered { server_signature: hmac(&server_key, auth_message.as_bytes()) };
        Ok(format!("{without_proof},p={}", BASE64.encode(xor(client_key, &client_signature))).into_bytes())
    }

    /// Takes the server's final message, which proves that the server knows the password too.
    pub fn server_final(&mut self, message: &[u8]) -> Result<(), ScramError> {
        let State::Answered { server_signature } = std::mem::replace(&mut self.state, State::Failed) else {
            return Err(ScramError::OutOfOrder);
        };
        let message = text(message)?;
        if let Some(refusal) = message.strip_prefix("e=") {
            return Err(ScramError::Server(refusal.to_owned()));
        }
        let signature = decoded(value(Some(message), "v=")?, "server signature")?;
        if !bool::from(signature.ct_eq(server_signature.as_slice())) {
            return Err(ScramError::ServerSignature);
        }
        self.state = State::Verified;
        Ok(())
    }

    fn gs2_header(&self) -> &'static str {
        match self.binding {
            Binding::Impossible => "n,,",
            Binding::NotOffered => "y,,",
            Binding::EndPoint(_) => BINDING_HEADER,
        }
    }

    fn first_bare(&self) -> String {
        format!("n={},r={}", self.user, self.nonce)
    }
}

impl fmt::Debug for ScramClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramClient(***)")
    }
}

fn iterations(text: &str) -> Result<u32, ScramError> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    let iterations = if digits { text.parse().ok() } else { None }.ok_or(ScramError::Malformed("iteration count"))?;
    if (1..=MOST_ITERATIONS).contains(&iterations) { Ok(iterations) } else { Err(ScramError::Iterations(iterations)) }
}
