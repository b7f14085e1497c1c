//! Multipart bodies, read strictly: anything a lenient reader might see otherwise is an error.

/// One part of a multipart body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// The form field.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

const MOST_PARTS: usize = 128;

/// The parts between `boundary`s.
pub(crate) fn parse(bytes: &[u8], boundary: &str) -> Result<Vec<Part>, String> {
    let broken = || "its parts are not well formed".to_owned();
    let open = format!("--{boundary}\r\n");
    let between = format!("\r\n--{boundary}");
    let mut rest = bytes.strip_prefix(open.as_bytes()).ok_or_else(broken)?;
    let mut parts = Vec::new();
    loop {
        let end = position(rest, between.as_bytes()).ok_or_else(broken)?;
        parts.push(part(&rest[..end])?);
        if parts.len() > MOST_PARTS {
            return Err(format!("it has more than {MOST_PARTS} parts"));
        }
        rest = &rest[end + between.len()..];
        if let Some(after) = rest.strip_prefix(b"--") {
            return if after.is_empty() || after == b"\r\n" { Ok(parts) } else { Err(broken()) };
        }
        rest = rest.strip_prefix(b"\r\n").ok_or_else(broken)?;
    }
}

fn part(bytes: &[u8]) -> Result<Part, String> {
    let broken = || "the head of a part is not well formed".to_owned();
    let end = position(bytes, b"\r\n\r\n").ok_or_else(broken)?;
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| broken())?;
    let mut name = None;
    for line in head.split("\r\n") {
        let (header, value) = line.split_once(':').ok_or_else(broken)?;
        match header.to_ascii_lowercase().as_str() {
            "content-disposition" => {
                let mut names = value.split(';').map(str::trim).filter_map(|parameter| parameter.strip_prefix("name="));
                let found = names.next().ok_or_else(broken)?;
                if name.is_some() || names.next().is_some() || value.contains("name*") {
                    return Err(broken());
                }
                let found = found.strip_prefix('"').and_then(|found| found.strip_suffix('"')).unwrap_or(found);
                if found.contains(['"', '\\', '%']) {
                    return Err(broken());
                }
                name = Some(found.to_owned());
            }
            "content-type" | "content-length" => {}
            // A transfer encoding, say: the bytes would mean something else.
            _ => return Err(broken()),
        }
    }
    Ok(Part { name: name.ok_or_else(broken)?, bytes: bytes[end + 4..].to_vec() })
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    // A step at each first byte, so not quadratic for boundaries of a sensible length.
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let body = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x\r\nContent-Disposition: form-data; name=\"b\"; filename=\"f\"\r\nContent-Type: text/plain\r\n\r\n\r\n--x--\r\n";
        let parts = parse(body, "x").expect("two parts");
        assert_eq!(
            parts.iter().map(|part| (part.name.as_str(), part.bytes.as_slice())).collect::<Vec<_>>(),
            [("a", b"1".as_slice()), ("b", b"")]
        );
        for broken in [
            "--x\nContent-Disposition: form-data; name=a\n\n1\n--x--",
            "preamble\r\n--x\r\n\r\n--x--",
            "--x\r\nContent-Disposition: form-data; name=\"a\"; name=\"b\"\r\n\r\n1\r\n--x--",
            "--x\r\nContent-Disposition: form-data; name=\"a\"\r\nContent-Transfer-Encoding: base64\r\n\r\n1\r\n--x--",
            "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\ntrailer",
            "--x\r\n",
        ] {
            assert!(parse(broken.as_bytes(), "x").is_err(), "{broken}");
        }
    }
}
