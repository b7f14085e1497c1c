//! The mask: a service that echoes the gateway's credential gives it to nobody.
//!
//! Works on a stream, with the same number of bytes out as in: what may be the beginning of a credential waits for the next piece.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Replaces credentials in a stream of bytes.
pub(crate) struct Mask {
    marks: Arc<[Vec<u8>]>,
    kept: BytesMut,
}

impl Mask {
    pub(crate) fn new(marks: Arc<[Vec<u8>]>) -> Self {
        Self { marks, kept: BytesMut::new() }
    }

    /// Takes a piece; answers what is sure to be harmless.
    pub(crate) fn push(&mut self, piece: Bytes) -> Bytes {
        let Some(longest) = self.marks.iter().map(Vec::len).max() else { return piece };
        self.kept.extend_from_slice(&piece);
        cover(&self.marks, &mut self.kept);
        // A mark may begin in the last `longest - 1` bytes, unless nothing there looks like one.
        let from = self.kept.len().saturating_sub(longest - 1);
        let begins = |at: &usize| self.marks.iter().any(|mark| mark.starts_with(&self.kept[*at..]));
        let safe = (from..self.kept.len()).find(begins).unwrap_or(self.kept.len());
        self.kept.split_to(safe).freeze()
    }

    /// The rest, at the end.
    pub(crate) fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.kept).freeze()
    }

    /// Covers a header's value. `None`: there was nothing to cover.
    pub(crate) fn cover(&self, value: &[u8]) -> Option<Vec<u8>> {
        let mut covered = value.to_vec();
        cover(&self.marks, &mut covered).then_some(covered)
    }
}

fn cover(marks: &[Vec<u8>], bytes: &mut [u8]) -> bool {
    let mut found = false;
    for mark in marks {
        let Some(first) = mark.first() else { continue };
        let mut at = 0;
        while let Some(next) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| byte == first)) {
            at += next;
            if bytes[at..].starts_with(mark) {
                bytes[at..at + mark.len()].fill(b'*');
                found = true;
            }
            at += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&str], expected: &str) {
        let mut mask = Mask::new([b"sesame-open".to_vec(), b"c2VzYW1l".to_vec()].into());
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&mask.push(Bytes::copy_from_slice(piece.as_bytes())));
        }
        out.extend_from_slice(&mask.finish());
        assert_eq!(String::from_utf8_lossy(&out), expected, "{pieces:?}");
    }

    #[test]
    fn credentials_are_covered_wherever_pieces_end() {
        check(&["nothing here"], "nothing here");
        check(&["a sesame-open b"], "a *********** b");
        check(&["sesame-open"], "***********");
        check(&["sesa", "me-op", "en!"], "***********!");
        check(&["sesame-ope"], "sesame-ope");
        check(&["sesesame-opensesame-open"], "se**********************");
        check(&["x c2VzYW1l y"], "x ******** y");
        let text = "before sesame-open after";
        let single: Vec<&str> = text.split("").filter(|piece| !piece.is_empty()).collect();
        check(&single, "before *********** after");
    }

    #[test]
    fn without_a_credential_nothing_waits() {
        let mut mask = Mask::new([].into());
        assert_eq!(mask.push(Bytes::from_static(b"abc")), Bytes::from_static(b"abc"));
        assert!(mask.finish().is_empty());
    }
}
