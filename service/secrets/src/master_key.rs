//! The master key: an age X25519 identity to which everything the gateway keeps is sealed.

use std::{fmt, path::Path, str::FromStr as _};

use age::{secrecy::ExposeSecret as _, x25519};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use crate::{Secret, SecretsError, file};

/// The most that is sealed in one piece.
pub(crate) const LARGEST_SECRET: usize = 64 * 1024;

/// The key everything is sealed to. It prints as `***`.
#[derive(Clone)]
pub struct MasterKey(x25519::Identity);

impl MasterKey {
    /// A new key from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self(x25519::Identity::generate())
    }

    /// Reads a key's text: one `AGE-SECRET-KEY-1…` line; empty lines and `#` comments are passed over, as age does.
    pub fn from_text(text: &str) -> Result<Self, SecretsError> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        match (lines.next(), lines.next()) {
            (Some(line), None) => x25519::Identity::from_str(line).map(Self).map_err(|_| SecretsError::Key),
            _ => Err(SecretsError::Key),
        }
    }

    /// Reads a key file. It has to be a regular file that only its owner may touch.
    pub fn from_file(path: &Path) -> Result<Self, SecretsError> {
        let bytes = file::read(path, 0o077, 0o600)?;
        Self::from_text(std::str::from_utf8(&bytes).map_err(|_| SecretsError::Key)?)
    }

    /// Writes the key to a new file of mode 600. A file that is there is never replaced: what it sealed would be lost.
    pub fn save(&self, path: &Path) -> Result<(), SecretsError> {
        let mut text = self.to_text().reveal().clone().into_bytes();
        text.push(b'\n');
        let text = Secret::new(text);
        file::write(path, text.reveal(), false)
    }

    /// The key's text, for a file or an environment variable.
    #[must_use]
    pub fn to_text(&self) -> Secret<String> {
        Secret::new(self.0.to_string().expose_secret().to_owned())
    }

    /// The public half (`age1…`): enough to seal, not to open.
    #[must_use]
    pub fn recipient(&self) -> String {
        self.0.to_public().to_string()
    }

    /// Seals a small value to text that may be kept in the ledger: base64 of an age file.
    pub fn seal(&self, value: &[u8]) -> Result<String, SecretsError> {
        self.seal_bytes(value).map(|sealed| BASE64.encode(sealed))
    }

    /// Opens what [`Self::seal`] made.
    pub fn unseal(&self, sealed: &str) -> Result<Secret<Vec<u8>>, SecretsError> {
        if sealed.len() > file::LARGEST_FILE {
            return Err(SecretsError::TooLarge { limit: LARGEST_SECRET });
        }
        self.unseal_bytes(&BASE64.decode(sealed).map_err(|_| SecretsError::Sealed)?)
    }

    pub(crate) fn seal_bytes(&self, value: &[u8]) -> Result<Vec<u8>, SecretsError> {
        if value.len() > LARGEST_SECRET {
            return Err(SecretsError::TooLarge { limit: LARGEST_SECRET });
        }
        age::encrypt(&self.0.to_public(), value).map_err(|error| SecretsError::Seal(std::io::Error::other(error)))
    }

    pub(crate) fn unseal_bytes(&self, sealed: &[u8]) -> Result<Secret<Vec<u8>>, SecretsError> {
        age::decrypt(&self.0, sealed).map(Secret::new).map_err(|_| SecretsError::Sealed)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_comes_back_from_its_file_only_while_it_is_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("master.key");
        let key = MasterKey::generate();
        key.save(&path).expect("saved");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(MasterKey::from_file(&path).expect("read").recipient(), key.recipient());
        assert!(MasterKey::generate().save(&path).is_err(), "a key file is never replaced");
        for mode in [0o640, 0o604, 0o660, 0o644, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            assert!(matches!(MasterKey::from_file(&path), Err(SecretsError::Exposed { .. })), "{mode:o}");
        }
        assert!(matches!(MasterKey::from_file(directory.path()), Err(SecretsError::NotAFile(_))));
    }

    #[test]
    fn keys_as_text() {
        let text = MasterKey::generate().to_text().reveal().clone();
        for (input, expected) in [
            (text.clone(), true),
            (format!("# made by init\n\n{text}\r\n"), true),
            (format!("{text}\n{text}\n"), false),
            (text.to_lowercase()[..40].to_owned(), false),
            (String::new(), false),
            ("age1qqqq".to_owned(), false),
        ] {
            assert_eq!(MasterKey::from_text(&input).is_ok(), expected);
        }
        assert_eq!(format!("{:?}", MasterKey::generate()), "MasterKey(***)");
    }

    #[test]
    fn a_value_opens_with_its_key_only() {
        let (mine, other) = (MasterKey::generate(), MasterKey::generate());
        let sealed = mine.seal(b"a TOTP secret").expect("sealed");
        assert_eq!(mine.unseal(&sealed).expect("opened").reveal(), b"a TOTP secret");
        assert!(matches!(other.unseal(&sealed), Err(SecretsError::Sealed)));
        assert!(matches!(mine.seal(&vec![0; LARGEST_SECRET + 1]), Err(SecretsError::TooLarge { .. })));
        assert!(mine.unseal(&"A".repeat(file::LARGEST_FILE + 4)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn one_changed_byte_does_not_open(position in any::<prop::sample::Index>(), flip in 1u8..=255) {
            let key = MasterKey::generate();
            let mut sealed = key.seal_bytes(b"value").expect("sealed");
            let position = position.index(sealed.len());
            sealed[position] ^= flip;
            prop_assert!(key.unseal_bytes(&sealed).is_err());
        }

        #[test]
        fn anything_may_be_given_to_unseal(text in ".{0,200}") {
            prop_assert!(MasterKey::generate().unseal(&text).is_err());
        }
    }
}
