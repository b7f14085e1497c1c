//! The second factor: time-based codes (RFC 6238) of six digits, SHA-1, a new one every 30 seconds.

use std::fmt;

use rand::{RngCore as _, rngs::OsRng};
use reprieve_operation::{OperatorName, Timestamp};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use thiserror::Error;
use totp_rs::{Algorithm, Secret, TOTP};
use zeroize::{Zeroize as _, Zeroizing};

const DIGITS: usize = 6;
const STEP_SECONDS: u64 = 30;
/// RFC 4226 section 4: at least 128 bits.
const LEAST_BYTES: usize = 16;
const MOST_BYTES: usize = 64;

/// A second factor's secret. It prints as `***`.
#[derive(Clone)]
pub struct TotpSecret(Zeroizing<Vec<u8>>);

/// Why a text is not a second factor's secret.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("that is not a TOTP secret: expected 16 to 64 bytes in base32")]
pub struct TotpError;

impl TotpSecret {
    /// A new secret of 160 bits, what RFC 4226 recommends.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new(vec![0; 20]);
        OsRng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Reads a secret's base32 text.
    pub fn from_base32(text: &str) -> Result<Self, TotpError> {
        if text.len() > 2 * MOST_BYTES {
            return Err(TotpError);
        }
        let bytes = Secret::Encoded(text.trim_end_matches('=').to_ascii_uppercase()).to_bytes().map_err(|_| TotpError)?;
        Self::from_bytes(bytes)
    }

    /// Takes a secret's bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, TotpError> {
        let bytes = Zeroizing::new(bytes);
        if (LEAST_BYTES..=MOST_BYTES).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(TotpError) }
    }

    /// The secret as text, for the one moment it is enrolled.
    #[must_use]
    pub fn base32(&self) -> Zeroizing<String> {
        Zeroizing::new(Secret::Raw(self.0.to_vec()).to_encoded().to_string())
    }

    /// What an authenticator app scans.
    #[must_use]
    pub fn otpauth_uri(&self, operator: &OperatorName) -> Zeroizing<String> {
        let secret = self.base32();
        let (digits, period) = (DIGITS, STEP_SECONDS);
        let uri = format!(
            "otpauth://totp/Reprieve:{operator}?secret={}&issuer=Reprieve&algorithm=SHA1&digits={digits}&period={period}",
            secret.as_str()
        );
        Zeroizing::new(uri)
    }

    /// The code at a time.
    #[must_use]
    pub fn code_at(&self, time: Timestamp) -> String {
        self.code_of(step_of(time))
    }

    /// The step whose code this is: the present one, the one before or the one after, as clocks differ.
    pub(crate) fn matching_step(&self, code: &str, now: Timestamp) -> Option<u64> {
        let present = step_of(now);
        let (mut found, mut step) = (Choice::from(0), 0);
        // All three are computed and compared whatever the code is, so that the time taken tells nothing.
        for candidate in [present.saturating_sub(1), present, present + 1] {
            let mut expected = self.code_of(candidate);
            let same = expected.as_bytes().ct_eq(code.as_bytes());
            expected.zeroize();
            step.conditional_assign(&candidate, same);
            found |= same;
        }
        bool::from(found).then_some(step)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn code_of(&self, step: u64) -> String {
        TOTP::new_unchecked(Algorithm::SHA1, DIGITS, 0, STEP_SECONDS, self.0.to_vec()).generate(step.saturating_mul(STEP_SECONDS))
    }
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The number of the step that a time lies in.
pub(crate) fn step_of(time: Timestamp) -> u64 {
    time.0 / 1_000 / STEP_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_rfc_6238() {
        // Appendix B, SHA-1, the last six of eight digits.
        let secret = TotpSecret::from_bytes(b"12345678901234567890".to_vec()).expect("20 bytes");
        for (seconds, code) in [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")] {
            assert_eq!(secret.code_at(Timestamp(seconds * 1_000)), code, "{seconds}");
        }
    }

    #[test]
    fn a_code_matches_one_step_to_either_side() {
        let secret = TotpSecret::generate();
        let now = Timestamp(1_800_000_000_000);
        for (shift, expected) in [(-2i64, false), (-1, true), (0, true), (1, true), (2, false)] {
            let step = step_of(now).checked_add_signed(shift).expect("far from zero");
            let code = secret.code_of(step);
            assert_eq!(secret.matching_step(&code, now) == Some(step), expected, "{shift}");
        }
        for wrong in ["", "12345", "1234567", "１２３４５６", "abcdef"] {
            assert_eq!(secret.matching_step(wrong, now), None);
        }
        assert_eq!(secret.matching_step("000000", Timestamp(0)).is_some(), secret.code_of(0) == "000000" || secret.code_of(1) == "000000");
    }

    #[test]
    fn texts() {
        let secret = TotpSecret::generate();
        let text = secret.base32();
        assert_eq!(TotpSecret::from_base32(&text).expect("its own text").bytes(), secret.bytes());
        assert!(TotpSecret::from_base32(&text.to_lowercase()).is_ok());
        for bad in ["", "A", "not base32!", "GEZDGNBV", &"A".repeat(200)] {
            assert!(TotpSecret::from_base32(bad).is_err(), "{bad}");
        }
        let uri = secret.otpauth_uri(&"ana".parse().expect("a name"));
        assert!(uri.starts_with("otpauth://totp/Reprieve:ana?secret=") && uri.contains(text.as_str()));
        assert_eq!(format!("{secret:?}"), "***");
    }
}
