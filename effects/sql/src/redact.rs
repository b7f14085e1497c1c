//! Texts without their literals, for records that outlive the secrets in them.
//!
//! The parser's own normalization turns constants into `$1`, `$2`; a scanner then blanks what it left: bodies, passwords,
//! comments. A text that does not parse cannot be scanned for certain either, so it is kept only up to its first quote.

use crate::analyze::{MAX_TEXT_BYTES, on_stack};

/// Longer texts are scanned only: normalization recurses with the text's depth.
const NORMALIZE_BYTES: usize = 64 << 10;
/// Up to here the recursion fits a thread's ordinary stack.
const SHALLOW_BYTES: usize = 2 << 10;

/// `text` with every literal replaced by `$n` or `?`, and comments emptied.
#[must_use]
pub fn redact(text: &str) -> String {
    if text.len() > MAX_TEXT_BYTES || text.contains('\0') || pg_raw_parse_fails(text) {
        return head(text);
    }
    let normalized = if text.len() > NORMALIZE_BYTES {
        None
    } else {
        on_stack(text.len() > SHALLOW_BYTES, || pg_raw_parse::normalize::normalize(text).ok()).flatten()
    };
    blank(normalized.as_deref().unwrap_or(text))
}

fn pg_raw_parse_fails(text: &str) -> bool {
    on_stack(text.len() > NORMALIZE_BYTES, || pg_raw_parse::parse(text).is_err()).unwrap_or(true)
}

/// For texts that do not parse: the words before the first quote, numbers blanked.
fn head(text: &str) -> String {
    let end = text.find(['\'', '"', '$', '`', '\\', '\0']);
    let end = [end, text.find("--"), text.find("/*")].into_iter().flatten().min();
    let kept = blank(end.and_then(|end| text.get(..end)).unwrap_or(text));
    if end.is_some() { format!("{kept}?") } else { kept }
}

/// Blanks strings, numbers and comments of a text that lexes.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        let token = token(rest, previous);
        let (length, shown) = match token {
            Token::Keep(length) => (length, None),
            Token::Literal(length) => (length, Some("?")),
            Token::Comment(length, shown) => (length, Some(shown)),
        };
        let length = length.max(first.len_utf8());
        let (seen, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        out.push_str(shown.unwrap_or(seen));
        previous = seen.chars().next_back().unwrap_or(' ');
        rest = after;
    }
    out
}

enum Token {
    Keep(usize),
    Literal(usize),
    Comment(usize, &'static str),
}

fn token(rest: &str, previous: char) -> Token {
    let bytes = rest.as_bytes();
    let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
    match at(0) {
        b'\'' => Token::Literal(quoted(bytes, 0, false)),
        b'e' | b'E' if at(1) == b'\'' && !is_word(previous) => Token::Literal(quoted(bytes, 1, true)),
        b'b' | b'B' | b'x' | b'X' | b'n' | b'N' if at(1) == b'\'' && !is_word(previous) => Token::Literal(quoted(bytes, 1, false)),
        b'u' | b'U' if at(1) == b'&' && at(2) == b'\'' && !is_word(previous) => Token::Literal(quoted(bytes, 2, false)),
        b'"' => Token::Keep(quoted_by(bytes, 0, b'"', false)),
        b'-' if at(1) == b'-' => Token::Comment(bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(bytes.len()), "--"),
        b'/' if at(1) == b'*' => Token::Comment(block_comment(bytes), "/**/"),
        b'$' if at(1).is_ascii_digit() => Token::Keep(1 + bytes.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count()),
        b'$' if !is_word(previous) => dollar_quoted(rest).map_or(Token::Keep(1), Token::Literal),
        b'0'..=b'9' => Token::Literal(number(bytes)),
        b'.' if at(1).is_ascii_digit() && !is_word(previous) => Token::Literal(number(bytes)),
        _ => Token::Keep(rest.chars().take_while(|letter| is_word(*letter)).map(char::len_utf8).sum::<usize>()).or_prefix(rest),
    }
}

impl Token {
    /// A word that ends where a string with a prefix begins must not swallow the prefix: `E'…'` alone is a word of one letter.
    fn or_prefix(self, rest: &str) -> Self {
        match self {
            Self::Keep(0) => Self::Keep(rest.chars().next().map_or(0, char::len_utf8)),
            other => other,
        }
    }
}

fn is_word(letter: char) -> bool {
    letter == '_' || letter == '$' || letter.is_ascii_alphanumeric() || !letter.is_ascii()
}

fn quoted(bytes: &[u8], start: usize, escapes: bool) -> usize {
    quoted_by(bytes, start, b'\'', escapes)
}

/// The length up to and with the closing quote; all of the rest if there is none.
fn quoted_by(bytes: &[u8], start: usize, quote: u8, escapes: bool) -> usize {
    let mut index = start + 1;
    while let Some(byte) = bytes.get(index) {
        if escapes && *byte == b'\\' {
            index += 2;
        } else if *byte == quote {
            if bytes.get(index + 1) == Some(&quote) {
                index += 2;
                continue;
            }
            // `E'…'` goes on, backslashes and all, in a string that follows on the next line.
            match continuation(bytes, index + 1).filter(|_| escapes) {
                Some(next) => index = next + 1,
                None => return index + 1,
            }
        } else {
            index += 1;
        }
    }
    bytes.len()
}

/// Where the next string begins if only white space and line comments stand before it.
fn continuation(bytes: &[u8], from: usize) -> Option<usize> {
    let mut index = from;
    loop {
        match bytes.get(index)? {
            b'\'' => return Some(index),
            b'-' if bytes.get(index + 1) == Some(&b'-') => {
                index += bytes.get(index..)?.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
            }
            byte if byte.is_ascii_whitespace() || *byte == b'\x0b' => index += 1,
            _ => return None,
        }
    }
}

/// Block comments nest.
fn block_comment(bytes: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut index = 0;
    while index < bytes.len() {
        match (bytes.get(index), bytes.get(index + 1)) {
            (Some(b'/'), Some(b'*')) => {
                depth += 1;
                index += 2;
            }
            (Some(b'*'), Some(b'/')) => {
                depth = depth.saturating_sub(1);
                index += 2;
                if depth == 0 {
                    return index;
                }
            }
            _ => index += 1,
        }
    }
    bytes.len()
}

fn dollar_quoted(rest: &str) -> Option<usize> {
    let tag_end = rest.get(1..)?.find('$')? + 2;
    let tag = rest.get(..tag_end)?;
    let inner = tag.get(1..tag_end - 1)?;
    if inner.starts_with(|letter: char| letter.is_ascii_digit()) || !inner.chars().all(|letter| letter != '$' && is_word(letter)) {
        return None;
    }
    let body = rest.get(tag_end..)?;
    Some(body.find(tag).map_or(rest.len(), |end| tag_end + end + tag_end))
}

fn number(bytes: &[u8]) -> usize {
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        let signed = matches!(byte, b'+' | b'-') && index > 0 && matches!(bytes.get(index - 1), Some(b'e' | b'E'));
        if !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || signed) {
            break;
        }
        index += 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_go_and_names_stay() {
        let check = |text: &str, expected: &str| assert_eq!(redact(text), expected, "{text}");
        check("SELECT * FROM orders WHERE id = 5 AND name = 'x'", "SELECT * FROM orders WHERE id = $1 AND name = $2");
        check("SELECT t1.a, \"C 2\" FROM t1 WHERE a = $1 AND b = 7", "SELECT t1.a, \"C 2\" FROM t1 WHERE a = $1 AND b = $2");
        check("SELECT 1 /* secret */ -- secret", "SELECT $1 /**/ --");
        check("DO $x$ secret $x$", "DO $1");
        check("CREATE FUNCTION f2() RETURNS int LANGUAGE sql AS 'secret'", "CREATE FUNCTION f2() RETURNS int LANGUAGE sql AS $1");
        check("ALTER ROLE r PASSWORD 'secret'", "ALTER ROLE r PASSWORD $1");
        check("SELEC 5 'secret' FROM t", "SELEC ? ?");
        check("SELEC t FROM x", "SELEC t FROM x");
        check("", "");
    }
}
