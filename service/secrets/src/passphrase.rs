//! Sealing with a passphrase (age's scrypt recipient), for files that a person carries.

use age::{scrypt, secrecy::SecretString};

use crate::{Secret, SecretsError, file::LARGEST_FILE, master_key::LARGEST_SECRET};

/// How hard guessing a passphrase is made: scrypt's cost as a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkFactor(u8);

impl WorkFactor {
    const LEAST: u8 = 1;
    /// More would let a planted file take gigabytes of memory to open.
    const MOST: u8 = 20;

    /// About half a second and 256 MB a try.
    pub const STANDARD: Self = Self(18);

    /// A cost of 2^`log_n`.
    pub fn new(log_n: u8) -> Result<Self, SecretsError> {
        let fits = (Self::LEAST..=Self::MOST).contains(&log_n);
        if fits { Ok(Self(log_n)) } else { Err(SecretsError::WorkFactor { least: Self::LEAST, most: Self::MOST }) }
    }
}

/// Seals `bytes` with a passphrase.
pub fn seal_with_passphrase(bytes: &[u8], passphrase: &Secret<String>, work: WorkFactor) -> Result<Vec<u8>, SecretsError> {
    if bytes.len() > LARGEST_SECRET {
        return Err(SecretsError::TooLarge { limit: LARGEST_SECRET });
    }
    let mut recipient = scrypt::Recipient::new(SecretString::from(passphrase.reveal().clone()));
    recipient.set_work_factor(work.0);
    age::encrypt(&recipient, bytes).map_err(|error| SecretsError::Seal(std::io::Error::other(error)))
}

/// Opens what [`seal_with_passphrase`] made.
pub fn open_with_passphrase(sealed: &[u8], passphrase: &Secret<String>) -> Result<Secret<Vec<u8>>, SecretsError> {
    if sealed.len() > LARGEST_FILE {
        return Err(SecretsError::TooLarge { limit: LARGEST_FILE });
    }
    let mut identity = scrypt::Identity::new(SecretString::from(passphrase.reveal().clone()));
    identity.set_max_work_factor(WorkFactor::MOST);
    age::decrypt(&identity, sealed).map(Secret::new).map_err(|_| SecretsError::Passphrase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_passphrase_opens() {
        let work = WorkFactor::new(4).expect("within bounds");
        let right = Secret::new("correct horse".to_owned());
        let sealed = seal_with_passphrase(b"key", &right, work).expect("sealed");
        assert_eq!(open_with_passphrase(&sealed, &right).expect("opened").reveal(), b"key");
        for wrong in ["", "correct horse ", "Correct horse"] {
            assert!(matches!(open_with_passphrase(&sealed, &Secret::new(wrong.to_owned())), Err(SecretsError::Passphrase)));
        }
        assert!(open_with_passphrase(b"not sealed", &right).is_err());
        assert!(WorkFactor::new(0).is_err() && WorkFactor::new(21).is_err());
    }
}
