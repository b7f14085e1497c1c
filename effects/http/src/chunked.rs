//! `aws-chunked` bodies: what the tools of AWS upload objects in. Taken off, since a new signature covers the plain body.

/// A plain body, and the headers that followed it.
pub(crate) type Plain = (Vec<u8>, Vec<(String, String)>);

/// Takes the chunks' heads and signatures off. Strict: anything else than chunks and a trailer is an error.
pub(crate) fn decode(mut bytes: &[u8]) -> Result<Plain, String> {
    let broken = || "its chunks are not well formed".to_owned();
    let mut plain = Vec::with_capacity(bytes.len());
    loop {
        let (head, rest) = line(bytes).ok_or_else(broken)?;
        let head = std::str::from_utf8(head).map_err(|_| broken())?;
        let (size, extension) = head.split_once(';').unwrap_or((head, ""));
        let is_hex = (1..=8).contains(&size.len()) && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex || !(extension.is_empty() || extension.starts_with("chunk-signature=")) {
            return Err(broken());
        }
        let size = usize::from_str_radix(size, 16).map_err(|_| broken())?;
        bytes = rest;
        if size == 0 {
            break;
        }
        plain.extend_from_slice(bytes.get(..size).ok_or_else(broken)?);
        bytes = bytes.get(size..).and_then(|rest| rest.strip_prefix(b"\r\n")).ok_or_else(broken)?;
    }
    let mut trailer = Vec::new();
    while !bytes.is_empty() && bytes != b"\r\n" {
        let (field, rest) = line(bytes).unwrap_or((bytes, &[]));
        let field = std::str::from_utf8(field).map_err(|_| broken())?;
        let (name, value) = field.split_once(':').ok_or_else(broken)?;
        let name = name.to_ascii_lowercase();
        // A checksum of the body; its signature goes with the old one. Other headers would mean something new.
        match name.as_str() {
            "x-amz-trailer-signature" => {}
            _ if name.starts_with("x-amz-checksum-") && trailer.len() < 4 => trailer.push((name, value.trim().to_owned())),
            _ => return Err(broken()),
        }
        bytes = rest;
    }
    Ok((plain, trailer))
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).take(4_096).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_taken_off() {
        for (body, expected) in [
            ("5\r\nhello\r\n1;chunk-signature=ab\r\n!\r\n0\r\nx-amz-checksum-crc32: AAAA==\r\n\r\n", Some(("hello!", 1))),
            ("0\r\n\r\n", Some(("", 0))),
            ("0;chunk-signature=ab\r\nx-amz-checksum-crc32:a\r\nx-amz-trailer-signature:b\r\n\r\n", Some(("", 1))),
            ("5\r\nhell\r\n0\r\n\r\n", None),
            ("5\r\nhello0\r\n\r\n", None),
            ("-1\r\n", None),
            ("fffffffff\r\n", None),
            ("ffffffff\r\nx", None),
            ("5;other=1\r\nhello\r\n0\r\n\r\n", None),
            ("0\r\nx-amz-acl: public-read\r\n\r\n", None),
            ("", None),
        ] {
            let read = decode(body.as_bytes()).ok().map(|(plain, trailer)| (String::from_utf8_lossy(&plain).into_owned(), trailer.len()));
            assert_eq!(read, expected.map(|(plain, trailer)| (plain.to_owned(), trailer)), "{body:?}");
        }
    }
}
