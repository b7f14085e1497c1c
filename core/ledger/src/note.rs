//! Signed notes as C2SP and Go's checksum database write them, with Ed25519 keys.
//!
//! A note is text, an empty line, and signature lines: `— NAME BASE64(key id, signature)`. Signatures by keys we don't know
//! are carried along and ignored, so that witnesses can add theirs.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Ed25519 in key texts and key ids.
const ALGORITHM: u8 = 1;
const NOTE_BYTES_MAX: usize = 1 << 20;
const SIGNATURES_MAX: usize = 100;

/// Why a text is not a key.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// The name can't stand in a signature line.
    #[error("`{0}` is not a key name: it must not be empty, nor contain spaces, control characters or `+`")]
    Name(String),
    /// The text is not one of the two forms.
    #[error("not a key: `NAME+ID+BASE64` is expected, with `PRIVATE+KEY+` before it for a signing key")]
    Malformed,
    /// The id in the text is not that of the key.
    #[error("the key's id does not match the key")]
    Id,
}

/// Why a note is not acceptable.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NoteError {
    /// It is not a note.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// The key we ask for did not sign it.
    #[error("no signature by `{0}`")]
    NotSigned(String),
    /// It says that the key signed it, and the key did not.
    #[error("the signature by `{0}` is wrong")]
    BadSignature(String),
}

/// Checks the signatures of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    id: u32,
    key: VerifyingKey,
}

impl Verifier {
    /// The verifier of an Ed25519 public key under a name.
    pub fn from_key(name: &str, key: [u8; 32]) -> Result<Self, KeyError> {
        let name = checked_name(name)?;
        let verifying = VerifyingKey::from_bytes(&key).map_err(|_| KeyError::Malformed)?;
        Ok(Self { id: key_id(&name, &key), name, key: verifying })
    }

    /// Reads `NAME+ID+BASE64`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, id, key) = key_parts(text)?;
        let verifier = Self::from_key(name, key)?;
        if verifier.id == id { Ok(verifier) } else { Err(KeyError::Id) }
    }

    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of the hash of name, algorithm and key.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:08x}+{}", self.name, self.id, BASE64.encode(with_algorithm(self.key.as_bytes())))
    }
}

/// Signs notes under a name. Prints as its public half.
#[derive(Clone)]
pub struct Signer {
    name: String,
    id: u32,
    key: SigningKey,
}

impl Signer {
    /// The signer whose Ed25519 private key is `seed`, which has to come from a good source of randomness.
    pub fn from_seed(name: &str, seed: [u8; 32]) -> Result<Self, KeyError> {
        let name = checked_name(name)?;
        let key = SigningKey::from_bytes(&seed);
        Ok(Self { id: key_id(&name, key.verifying_key().as_bytes()), name, key })
    }

    /// Reads `PRIVATE+KEY+NAME+ID+BASE64`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, id, seed) = key_parts(text.strip_prefix("PRIVATE+KEY+").ok_or(KeyError::Malformed)?)?;
        let signer = Self::from_seed(name, seed)?;
        if signer.id == id { Ok(signer) } else { Err(KeyError::Id) }
    }

    /// The private key's text, for the one moment it is stored.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("PRIVATE+KEY+{}+{:08x}+{}", self.name, self.id, BASE64.encode(with_algorithm(self.key.as_bytes())))
    }

    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public half.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier { name: self.name.clone(), id: self.id, key: self.key.verifying_key() }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.verifier())
    }
}

/// A text with its signatures, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct NoteSignature {
    name: String,
    id: u32,
    signature: Vec<u8>,
}

impl SignedNote {
    /// Signs `text`, which ends with a line break.
    pub fn sign(text: &str, signer: &Signer) -> Result<Self, NoteError> {
        let text = checked_text(text)?.to_owned();
        let signature = signer.key.sign(text.as_bytes()).to_bytes().to_vec();
        Ok(Self { text, signatures: vec![NoteSignature { name: signer.name.clone(), id: signer.id, signature }] })
    }

    /// Reads a note. Nothing of it may be trusted before [`SignedNote::verify`].
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Malformed("it is too long"));
        }
        let (body, lines) = note.rsplit_once("\n\n").ok_or(NoteError::Malformed("no empty line before the signatures"))?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Malformed("its last line does not end"))?;
        let text = note.get(..=body.len()).ok_or(NoteError::Malformed("no text"))?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() == SIGNATURES_MAX {
                return Err(NoteError::Malformed("too many signatures"));
            }
            signatures.push(signature_line(line).ok_or(NoteError::Malformed("a signature line is not one"))?);
        }
        Ok(Self { text: checked_text(text)?.to_owned(), signatures })
    }

    /// The text, once `key` is known to have signed it.
    pub fn verify(&self, key: &Verifier) -> Result<&str, NoteError> {
        let mut mine = self.signatures.iter().filter(|signature| signature.name == key.name && signature.id == key.id);
        let signature = mine.next().ok_or_else(|| NoteError::NotSigned(key.name.clone()))?;
        // A second signature by the same key is either the same or a trick.
        if mine.next().is_some() {
            return Err(NoteError::Malformed("two signatures by one key"));
        }
        let good = Signature::from_slice(&signature.signature)
            .is_ok_and(|signature| key.key.verify_strict(self.text.as_bytes(), &signature).is_ok());
        if good { Ok(&self.text) } else { Err(NoteError::BadSignature(key.name.clone())) }
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for NoteSignature { name, id, signature } in &self.signatures {
            let mut bytes = id.to_be_bytes().to_vec();
            bytes.extend_from_slice(signature);
            writeln!(f, "\u{2014} {name} {}", BASE64.encode(bytes))?;
        }
        Ok(())
    }
}

fn signature_line(line: &str) -> Option<NoteSignature> {
    let (name, encoded) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = BASE64.decode(encoded).ok()?;
    let (id, signature) = bytes.split_first_chunk::<4>()?;
    if signature.is_empty() {
        return None;
    }
    Some(NoteSignature { name: checked_name(name).ok()?, id: u32::from_be_bytes(*id), signature: signature.to_vec() })
}

fn checked_text(text: &str) -> Result<&str, NoteError> {
    let plain = !text.chars().any(|c| c != '\n' && c.is_ascii_control());
    if plain && text.ends_with('\n') && text.len() <= NOTE_BYTES_MAX {
        Ok(text)
    } else {
        Err(NoteError::Malformed("its text must end with a line break and contain no control character"))
    }
}

fn checked_name(name: &str) -> Result<String, KeyError> {
    let usable = !name.is_empty() && name.len() <= 255 && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+');
    if usable { Ok(name.to_owned()) } else { Err(KeyError::Name(name.to_owned())) }
}

/// Name, id and the 32 bytes of `NAME+ID+BASE64`.
fn key_parts(text: &str) -> Result<(&str, u32, [u8; 32]), KeyError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else { return Err(KeyError::Malformed) };
    let lower = id.len() == 8 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let id = u32::from_str_radix(id, 16).ok().filter(|_| lower).ok_or(KeyError::Malformed)?;
    let bytes = BASE64.decode(key).map_err(|_| KeyError::Malformed)?;
    let (algorithm, key) = bytes.split_first().ok_or(KeyError::Malformed)?;
    let key = <[u8; 32]>::try_from(key).map_err(|_| KeyError::Malformed)?;
    if *algorithm == ALGORITHM { Ok((name, id, key)) } else { Err(KeyError::Malformed) }
}

fn key_id(name: &str, public: &[u8; 32]) -> u32 {
    let mut hash = Sha256::new();
    hash.update(name.as_bytes());
    hash.update(b"\n");
    hash.update(with_algorithm(public));
    let digest: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, ..] = digest;
    u32::from_be_bytes([a, b, c, d])
}

fn with_algorithm(key: &[u8; 32]) -> Vec<u8> {
    let mut bytes = vec![ALGORITHM];
    bytes.extend_from_slice(key);
    bytes
}

#[cfg(test)]
mod tests;
