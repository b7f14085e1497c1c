//! `aws-chunked` bodies: what the tools of AWS upload objects in. Taken off, since a new signature covers the plain body.

/// A plain body, and the headers that followed it.
pub(crate) type Plain = (Vec<u8>, Vec<(String, String)>);

/// The longest line: a chunk's head with its signature, or a checksum.
const LINE: usize = 4_096;

/// Takes the heads and signatures of chunks off, piece by piece. Strict: anything else than chunks and a trailer is an error.
#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
    line: Vec<u8>,
    trailer: Vec<(String, String)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum State {
    #[default]
    Head,
    /// So many bytes of a chunk are still to come.
    Data(usize),
    /// The line's end behind a chunk.
    Behind,
    Trailer,
    /// Nothing may follow.
    End,
}

impl Chunks {
    /// Takes a piece, and adds what is plain of it to `plain`.
    pub fn push(&mut self, mut piece: &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
        while !piece.is_empty() {
            if let State::Data(left) = self.state {
                let step = left.min(piece.len());
                plain.extend_from_slice(&piece[..step]);
                piece = &piece[step..];
                self.state = if step == left { State::Behind } else { State::Data(left - step) };
                continue;
            }
            let end = piece.iter().position(|byte| *byte == b'\n').map_or(piece.len(), |end| end + 1);
            self.line.extend_from_slice(&piece[..end]);
            piece = &piece[end..];
            if self.line.len() > LINE {
                return Err(broken());
            }
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.take(std::str::from_utf8(line.strip_suffix(b"\r\n").ok_or_else(broken)?).map_err(|_| broken())?)?;
            }
        }
        Ok(())
    }

    /// The end: the headers that followed the chunks.
    pub fn finish(mut self) -> Result<Vec<(String, String)>, String> {
        // Some leave off the last line's end.
        let rest = std::mem::take(&mut self.line);
        if self.state == State::Trailer && !rest.is_empty() {
            self.take(std::str::from_utf8(&rest).map_err(|_| broken())?)?;
        }
        let is_whole = matches!(self.state, State::Trailer | State::End) && (rest.is_empty() || self.state != State::End);
        if is_whole { Ok(self.trailer) } else { Err(broken()) }
    }

    /// A whole line, without its end.
    fn take(&mut self, line: &str) -> Result<(), String> {
        self.state = match self.state {
            State::Head => {
                let (size, extension) = line.split_once(';').unwrap_or((line, ""));
                let is_hex = (1..=8).contains(&size.len()) && size.bytes().all(|byte| byte.is_ascii_hexdigit());
                if !is_hex || !(extension.is_empty() || extension.starts_with("chunk-signature=")) {
                    return Err(broken());
                }
                match usize::from_str_radix(size, 16).map_err(|_| broken())? {
                    0 => State::Trailer,
                    size => State::Data(size),
                }
            }
            State::Behind if line.is_empty() => State::Head,
            State::Trailer if line.is_empty() => State::End,
            State::Trailer => {
                let (name, value) = line.split_once(':').ok_or_else(broken)?;
                let name = name.to_ascii_lowercase();
                // A checksum of the body; its signature goes with the old one. Other headers would mean something new.
                match name.as_str() {
                    "x-amz-trailer-signature" => {}
                    _ if name.starts_with("x-amz-checksum-") && self.trailer.len() < 4 => {
                        self.trailer.push((name, value.trim().to_owned()))
                    }
                    _ => return Err(broken()),
                }
                State::Trailer
            }
            State::Behind | State::Data(_) | State::End => return Err(broken()),
        };
        Ok(())
    }
}

fn broken() -> String {
    "its chunks are not well formed".to_owned()
}

/// The same for a body that is there as a whole.
pub(crate) fn decode(bytes: &[u8]) -> Result<Plain, String> {
    let (mut chunks, mut plain) = (Chunks::default(), Vec::with_capacity(bytes.len()));
    chunks.push(bytes, &mut plain)?;
    Ok((plain, chunks.finish()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_taken_off() {
        for (body, expected) in [
            ("5\r\nhello\r\n1;chunk-signature=ab\r\n!\r\n0\r\nx-amz-checksum-crc32: AAAA==\r\n\r\n", Some(("hello!", 1))),
            ("0\r\n\r\n", Some(("", 0))),
            ("0\r\n", Some(("", 0))),
            ("0\r\nx-amz-checksum-crc32:a", Some(("", 1))),
            ("0;chunk-signature=ab\r\nx-amz-checksum-crc32:a\r\nx-amz-trailer-signature:b\r\n\r\n", Some(("", 1))),
            ("5\r\nhell\r\n0\r\n\r\n", None),
            ("5\r\nhello0\r\n\r\n", None),
            ("5\r\nhello\n0\r\n\r\n", None),
            ("5\r\nhel", None),
            ("5\r\nhello\r\n", None),
            ("-1\r\n", None),
            ("fffffffff\r\n", None),
            ("ffffffff\r\nx", None),
            ("5;other=1\r\nhello\r\n0\r\n\r\n", None),
            ("0\r\nx-amz-acl: public-read\r\n\r\n", None),
            ("0\r\n\r\nDELETE / HTTP/1.1\r\n\r\n", None),
            ("0\r\n\r\nx", None),
            ("", None),
        ] {
            for size in [1, 3, body.len().max(1)] {
                let (mut chunks, mut plain) = (Chunks::default(), Vec::new());
                let pushed = body.as_bytes().chunks(size).try_for_each(|piece| chunks.push(piece, &mut plain));
                let read =
                    pushed.and_then(|()| chunks.finish()).ok().map(|trailer| (String::from_utf8_lossy(&plain).into_owned(), trailer.len()));
                assert_eq!(read, expected.map(|(plain, trailer)| (plain.to_owned(), trailer)), "{body:?} by {size}");
            }
        }
        let endless = "a".repeat(LINE + 1);
        assert!(Chunks::default().push(endless.as_bytes(), &mut Vec::new()).is_err());
    }
}
