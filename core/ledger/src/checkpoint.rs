//! Checkpoints: a tree's size and root under its ledger's name, as C2SP tlog-checkpoint notes.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use thiserror::Error;

use crate::{
    note::{NoteError, SignedNote, Signer, Verifier},
    tree::Hash,
};

/// A tree head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The ledger's name.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// Their root.
    pub root: Hash,
}

/// Why a note is not a checkpoint of ours.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CheckpointError {
    /// The note is malformed or its signature is wrong.
    #[error("the checkpoint's note is not acceptable")]
    Note(#[from] NoteError),
    /// The note's text is not origin, size and root.
    #[error("the note's text is not a checkpoint: three lines of origin, size and base64 root are expected")]
    Body,
    /// It is another ledger's.
    #[error("the checkpoint is of `{found}`, not of `{expected}`")]
    Origin {
        /// Whose it is.
        found: String,
        /// Whose was expected.
        expected: String,
    },
}

impl Checkpoint {
    /// The note's text.
    #[must_use]
    pub fn body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root))
    }

    /// Reads a note's text. Extension lines are accepted and left out.
    pub fn parse(body: &str) -> Result<Self, CheckpointError> {
        let body = body.strip_suffix('\n').ok_or(CheckpointError::Body)?;
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else { return Err(CheckpointError::Body) };
        let root = BASE64.decode(root).ok().and_then(|root| Hash::try_from(root).ok());
        match (decimal(size), root) {
            (Some(size), Some(root)) if !origin.is_empty() && lines.all(|line| !line.is_empty()) => {
                Ok(Self { origin: origin.to_owned(), size, root })
            }
            _ => Err(CheckpointError::Body),
        }
    }

    /// The signed note.
    pub fn sign(&self, signer: &Signer) -> Result<String, NoteError> {
        Ok(SignedNote::sign(&self.body(), signer)?.to_string())
    }

    /// Reads a signed note: `key` must have signed it, under the origin's name.
    pub fn open(note: &str, key: &Verifier) -> Result<Self, CheckpointError> {
        let note = SignedNote::parse(note)?;
        let checkpoint = Self::parse(note.verify(key)?)?;
        if checkpoint.origin == key.name() {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::Origin { found: checkpoint.origin, expected: key.name().to_owned() })
        }
    }
}

/// A number in decimal digits without leading zeros: one number, one spelling.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
        let check = |body: &str, size: Option<u64>| assert_eq!(Checkpoint::parse(body).ok().map(|found| found.size), size, "{body:?}");
        check(&format!("example.com/behind-the-sofa\n20852163\n{root}\n"), Some(20_852_163));
        check(&format!("a\n0\n{root}\nan extension\n"), Some(0));
        check(&format!("a\n0\n{root}"), None);
        check(&format!("a\n0\n{root}\n\n"), None);
        check(&format!("\n0\n{root}\n"), None);
        check(&format!("a\n00\n{root}\n"), None);
        check(&format!("a\n+1\n{root}\n"), None);
        check(&format!("a\n-1\n{root}\n"), None);
        check(&format!("a\n18446744073709551616\n{root}\n"), None);
        check("a\n1\nAA==\n", None);
        check("a\n1\n", None);
        check("", None);
    }

    #[test]
    fn a_signed_checkpoint_opens_with_its_key_only() {
        let signer = Signer::from_seed("reprieve.example/ledger", [7; 32]).expect("a name of the test");
        let checkpoint = Checkpoint { origin: "reprieve.example/ledger".to_owned(), size: 5, root: [9; 32] };
        let note = checkpoint.sign(&signer).expect("well-formed");
        assert_eq!(Checkpoint::open(&note, &signer.verifier()), Ok(checkpoint.clone()));
        assert!(Checkpoint::open(&note.replace("\n5\n", "\n6\n"), &signer.verifier()).is_err());
        let foreign = Checkpoint { origin: "elsewhere".to_owned(), ..checkpoint }.sign(&signer).expect("well-formed");
        assert!(matches!(Checkpoint::open(&foreign, &signer.verifier()), Err(CheckpointError::Origin { .. })));
    }
}
