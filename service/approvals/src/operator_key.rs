//! An operator's key: made and kept on the person's side, never known to the gateway.
//!
//! The file is an age file sealed with a passphrase, of mode 600. What it signs is [`SignedCommand`].

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use age::{scrypt, secrecy::SecretString};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::{SECRET_KEY_LENGTH, Signer as _, SigningKey};
use rand::rngs::OsRng;
use reprieve_gate::{Command, SignedCommand};
use reprieve_operation::{OperatorName, Timestamp};
use thiserror::Error;
use zeroize::Zeroizing;

const HEADER: &[u8] = b"reprieve-operator-key/v1\n";
const LARGEST_FILE: u64 = 16 * 1024;
/// About half a second and 256 MB a try; more in a planted file is refused.
const WORK_FACTOR: u8 = 18;
const LARGEST_WORK_FACTOR: u8 = 20;

/// An operator's Ed25519 key. It prints as `***`.
pub struct OperatorKey(SigningKey);

/// Why a key could not be kept, opened or used.
#[derive(Debug, Error)]
pub enum OperatorKeyError {
    /// The file could not be read or written.
    #[error("cannot {verb} the key file `{}`", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// Which file.
        path: PathBuf,
        /// What came of it.
        #[source]
        source: io::Error,
    },
    /// Others may read the file.
    #[error("`{}` may be read by others (mode {mode:03o}): run `chmod 600` on it", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Wrong passphrase, or not such a file.
    #[error("the passphrase is wrong, or `{}` is not an operator's key file", .0.display())]
    Passphrase(PathBuf),
    /// An empty passphrase protects nothing.
    #[error("the passphrase is empty")]
    NoPassphrase,
    /// Sealing failed.
    #[error("cannot seal the key")]
    Seal(#[source] age::EncryptError),
    /// The command could not be written as JSON.
    #[error("cannot write the command as JSON")]
    Command(#[from] serde_json::Error),
}

impl OperatorKey {
    /// A new key from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self(SigningKey::generate(&mut OsRng))
    }

    /// The public half, base64: what another operator adds this one with.
    #[must_use]
    pub fn public_key(&self) -> String {
        BASE64.encode(self.0.verifying_key().as_bytes())
    }

    /// Writes the key to a new file of mode 600, sealed with a passphrase. A file that is there is never replaced.
    pub fn save(&self, path: &Path, passphrase: &str) -> Result<(), OperatorKeyError> {
        self.save_with(path, passphrase, WORK_FACTOR)
    }

    pub(crate) fn save_with(&self, path: &Path, passphrase: &str, work_factor: u8) -> Result<(), OperatorKeyError> {
        if passphrase.is_empty() {
            return Err(OperatorKeyError::NoPassphrase);
        }
        let mut plain = Zeroizing::new(HEADER.to_vec());
        plain.extend_from_slice(Zeroizing::new(self.0.to_bytes()).as_slice());
        let mut recipient = scrypt::Recipient::new(SecretString::from(passphrase.to_owned()));
        recipient.set_work_factor(work_factor);
        let sealed = age::encrypt(&recipient, &plain).map_err(OperatorKeyError::Seal)?;
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(&sealed)?;
            file.sync_all()
        };
        write().map_err(|source| OperatorKeyError::File { verb: "write", path: path.to_owned(), source })
    }

    /// Opens a key file.
    pub fn open(path: &Path, passphrase: &str) -> Result<Self, OperatorKeyError> {
        let wrong = || OperatorKeyError::Passphrase(path.to_owned());
        let sealed = read(path)?;
        let mut identity = scrypt::Identity::new(SecretString::from(passphrase.to_owned()));
        identity.set_max_work_factor(LARGEST_WORK_FACTOR);
        let plain = Zeroizing::new(age::decrypt(&identity, &sealed).map_err(|_| wrong())?);
        let seed = plain.strip_prefix(HEADER).and_then(|seed| <[u8; SECRET_KEY_LENGTH]>::try_from(seed).ok()).ok_or_else(wrong)?;
        Ok(Self(SigningKey::from_bytes(&Zeroizing::new(seed))))
    }

    /// Signs a command together with a code of the second factor.
    pub fn sign_command(
        &self,
        operator: &OperatorName,
        command: &Command,
        code: &str,
        now: Timestamp,
    ) -> Result<SignedCommand, OperatorKeyError> {
        let command = serde_json::to_string(command)?;
        let operator = operator.clone();
        let mut signed = SignedCommand { operator, command, code: code.to_owned(), issued_at: now.0, signature: String::new() };
        signed.signature = self.sign_text(&signed);
        Ok(signed)
    }

    /// The signature that belongs under a command.
    pub(crate) fn sign_text(&self, signed: &SignedCommand) -> String {
        let message = SignedCommand::message(&signed.operator, &signed.command, &signed.code, signed.issued_at);
        BASE64.encode(self.0.sign(&message).to_bytes())
    }
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn read(path: &Path) -> Result<Vec<u8>, OperatorKeyError> {
    let failed = |source| OperatorKeyError::File { verb: "read", path: path.to_owned(), source };
    // Asked before opening: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(OperatorKeyError::Exposed { path: path.to_owned(), mode });
    }
    let mut sealed = Vec::new();
    file.take(LARGEST_FILE).read_to_end(&mut sealed).map_err(failed)?;
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_key_file_opens_with_its_passphrase_while_it_is_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ana.key");
        let key = OperatorKey::generate();
        assert!(matches!(key.save(&path, ""), Err(OperatorKeyError::NoPassphrase)));
        key.save_with(&path, "correct horse", 4).expect("saved");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(OperatorKey::open(&path, "correct horse").expect("opened").public_key(), key.public_key());
        for wrong in ["", "Correct horse", "correct horse "] {
            assert!(matches!(OperatorKey::open(&path, wrong), Err(OperatorKeyError::Passphrase(_))), "{wrong}");
        }
        assert!(key.save_with(&path, "again", 4).is_err(), "a key file is never replaced");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(matches!(OperatorKey::open(&path, "correct horse"), Err(OperatorKeyError::Exposed { .. })));
        assert!(OperatorKey::open(directory.path(), "x").is_err());
        assert_eq!(format!("{key:?}"), "***");
    }

    #[test]
    fn what_is_not_a_key_file_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ana.key");
        for contents in [b"".as_slice(), b"age-encryption.org/v1\n", b"rpv_0", &[0xff; 20_000]] {
            fs::write(&path, contents).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
            assert!(matches!(OperatorKey::open(&path, "x"), Err(OperatorKeyError::Passphrase(_))));
        }
    }
}
