//! Frames of WebSocket (RFC 6455 section 5.2), counted as they go by; what they carry is not looked into.
//!
//! What is not framed like that is something else under a WebSocket's name.

/// The largest head of a frame: two bytes, eight of length, four of a mask.
const HEAD: usize = 14;

/// What is known of a stream of frames.
pub(crate) struct Frames {
    /// Whether they come from the client, which masks what it says.
    masked: bool,
    head: [u8; HEAD],
    had: usize,
    /// Bytes of the present frame that are still to come.
    left: u64,
    /// Whether a message has begun that isn't whole.
    open: bool,
    messages: u64,
}

/// It is not framed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotFramed;

impl Frames {
    /// A stream that begins.
    pub(crate) fn new(masked: bool) -> Self {
        Self { masked, head: [0; HEAD], had: 0, left: 0, open: false, messages: 0 }
    }

    /// Messages that have ended, without those about the connection itself.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// Takes a piece of the stream.
    pub(crate) fn push(&mut self, mut piece: &[u8]) -> Result<(), NotFramed> {
        while !piece.is_empty() {
            if self.left > 0 {
                let step = piece.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= step as u64;
                piece = &piece[step..];
                continue;
            }
            self.head[self.had] = piece[0];
            self.had += 1;
            piece = &piece[1..];
            if let Some(length) = self.whole_head()? {
                (self.left, self.had) = (length, 0);
            }
        }
        Ok(())
    }

    /// The length that follows, once the head is there.
    fn whole_head(&mut self) -> Result<Option<u64>, NotFramed> {
        let [first, second, ..] = self.head;
        let (last, code) = (first & 0x80 != 0, first & 0x0f);
        // Extensions are not passed on, so nothing may use their bits.
        if first & 0x70 != 0 || !matches!(code, 0..=2 | 8..=10) || code >= 8 && !last {
            return Err(NotFramed);
        }
        if self.had < 2 {
            return Ok(None);
        }
        let short = second & 0x7f;
        if (second & 0x80 != 0) != self.masked || code >= 8 && short > 125 || code < 8 && (code == 0) != self.open {
            return Err(NotFramed);
        }
        let more = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.had < 2 + more + if self.masked { 4 } else { 0 } {
            return Ok(None);
        }
        let length = self.head[2..2 + more].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        if code < 8 {
            self.open = !last;
            self.messages += u64::from(last);
        }
        Ok(Some(if more == 0 { u64::from(short) } else { length }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(masked: bool, bytes: &[u8], expected: Result<u64, NotFramed>) {
        for size in [1, 3, bytes.len().max(1)] {
            let mut frames = Frames::new(masked);
            let pushed = bytes.chunks(size).try_for_each(|piece| frames.push(piece));
            assert_eq!(
                pushed.map(|()| frames.messages()),
                expected.as_ref().map(|count| *count).map_err(|_| NotFramed),
                "{bytes:?} by {size}"
            );
        }
    }

    #[test]
    fn frames_are_counted_and_nothing_else_is_one() {
        check(true, b"", Ok(0));
        check(true, &[0x81, 0x82, 1, 2, 3, 4, 9, 9, 0x82, 0x80, 1, 2, 3, 4], Ok(2));
        check(false, &[0x81, 2, 9, 9, 0x89, 0, 0x88, 2, 3, 0xe8], Ok(1));
        // One message in pieces, with a question about the connection between them.
        check(false, &[0x01, 1, 9, 0x89, 1, 9, 0x00, 1, 9, 0x80, 1, 9], Ok(1));
        let long = [&[0x82, 126, 1, 0][..], &[7; 256], &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], &[7; 65_536], &[0x81, 0]].concat();
        check(false, &long, Ok(3));
        for (masked, bytes) in [
            (true, b"GET / HTTP/1.1\r\n".as_slice()),
            (true, b"DELETE /volumes/1 HTTP/1.1\r\n"),
            (true, b"PRI * HTTP/2.0\r\n"),
            (false, b"HTTP/1.1 200 OK\r\n"),
            (true, &[0x81, 2, 9, 9]),
            (false, &[0x81, 0x82, 1, 2, 3, 4, 9, 9]),
            (false, &[0xc1, 0]),
            (false, &[0x83, 0]),
            (false, &[0x80, 0]),
            (false, &[0x01, 0, 0x81, 0]),
            (false, &[0x09, 0]),
            (false, &[0x89, 126, 0, 200]),
        ] {
            check(masked, bytes, Err(NotFramed));
        }
    }
}
