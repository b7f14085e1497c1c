//! The vault's key, and the keys made from it: one for names, one to wrap each object's own key, one for the mark.

use std::fmt;

use chacha20poly1305::{Key, KeyInit as _, XChaCha20Poly1305};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use reprieve_operation::Digest;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::VaultError;

/// What opens a vault. Whoever has it can read everything in the vault, on any machine; without it the vault is noise.
/// It prints as `***`.
#[derive(Clone)]
pub struct VaultKey {
    name: Zeroizing<[u8; 32]>,
    wrap: Zeroizing<[u8; 32]>,
    mark: Zeroizing<[u8; 32]>,
    contents: Zeroizing<[u8; 32]>,
}

impl VaultKey {
    /// The key made from 32 secret bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self::derive(bytes)
    }

    /// The key made from an age identity's text (`AGE-SECRET-KEY-1…`): the gateway's master key, or one made for the vault alone.
    pub fn from_identity(text: &str) -> Result<Self, VaultError> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(line), None) = (lines.next(), lines.next()) else { return Err(VaultError::Key) };
        // The same key in small letters is the same key.
        let line = Zeroizing::new(line.to_ascii_uppercase());
        // 52 letters carry the key's 32 bytes, and six more a checksum, which whoever made use of the identity has verified.
        let body = line.strip_prefix("AGE-SECRET-KEY-1").ok_or(VaultError::Key)?;
        if body.len() != 58 || !body.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(VaultError::Key);
        }
        Ok(Self::derive(line.as_bytes()))
    }

    fn derive(secret: &[u8]) -> Self {
        let root = Hkdf::<Sha256>::new(Some(b"reprieve vault 1"), secret);
        let make = |purpose: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            root.expand(purpose, key.as_mut_slice()).expect("32 bytes are within what HKDF gives");
            key
        };
        Self { name: make(b"name"), wrap: make(b"wrap"), mark: make(b"mark"), contents: make(b"contents") }
    }

    /// Begins an object's name: fed with the plaintext, it becomes the digest.
    pub(crate) fn naming(&self) -> Naming {
        Naming(mac(&self.name))
    }

    /// A key made from contents: the same for the same ones of the same owner, and nobody's to guess who has not this key.
    pub(crate) fn content_key(&self, owner: &str, contents: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut naming = Naming(mac(&self.contents));
        naming.update(&(owner.len() as u64).to_le_bytes());
        naming.update(owner.as_bytes());
        naming.update(contents);
        Zeroizing::new(naming.digest().0)
    }

    /// The cipher that wraps the objects' own keys.
    pub(crate) fn wrapping(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(Key::from_slice(self.wrap.as_slice()))
    }

    /// What proves that a vault with this identity is ours.
    pub(crate) fn mark_of(&self, identity: &[u8]) -> Digest {
        let mut naming = Naming(mac(&self.mark));
        naming.update(identity);
        naming.digest()
    }
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VaultKey(***)")
    }
}

/// A name in the making: a keyed digest, so that names tell nothing to whoever can guess contents.
pub(crate) struct Naming(Hmac<Sha256>);

impl Naming {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn digest(self) -> Digest {
        Digest(self.0.finalize().into_bytes().into())
    }
}

fn mac(key: &[u8; 32]) -> Hmac<Sha256> {
    <Hmac<Sha256> as hmac::Mac>::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_text() {
        let text = "AGE-SECRET-KEY-1".to_owned() + &"Q".repeat(58);
        for (input, good) in [
            (text.clone(), true),
            (format!("# made by init\n{text}\n"), true),
            (text.to_lowercase(), true),
            (format!("{text}\n{text}"), false),
            (text[..60].to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(VaultKey::from_identity(&input).is_ok(), good, "{input}");
        }
        assert_eq!(format!("{:?}", VaultKey::from_bytes(&[1; 32])), "VaultKey(***)");
    }

    #[test]
    fn another_key_or_purpose_gives_other_names() {
        let digest = |key: &VaultKey| {
            let mut naming = key.naming();
            naming.update(b"rows");
            naming.digest()
        };
        let (one, two) = (VaultKey::from_bytes(&[1; 32]), VaultKey::from_bytes(&[2; 32]));
        assert_eq!(digest(&one), digest(&VaultKey::from_bytes(&[1; 32])));
        assert_ne!(digest(&one), digest(&two));
        assert_ne!(digest(&one), one.mark_of(b"rows"));
    }
}
