//! Texts without their literals, for records that outlive the secrets in them.
//!
//! The parser's own normalization turns constants into `$1`, `$2`; a scanner then blanks what it left: bodies, passwords,
//! comments. A text that does not parse cannot be scanned for certain either, so it is kept only up to its first quote.

use crate::{
    analyze::{MAX_TEXT_BYTES, on_stack, parse},
    scan::{Token, tokens},
};

/// Longer texts are scanned only: normalization recurses with the text's depth.
const NORMALIZE_BYTES: usize = 64 << 10;
/// Up to here the recursion fits a thread's ordinary stack.
const SHALLOW_BYTES: usize = 2 << 10;

/// `text` with every literal replaced by `$n` or `?`, and comments emptied.
#[must_use]
pub fn redact(text: &str) -> String {
    if text.len() > MAX_TEXT_BYTES || text.contains('\0') || !parses(text) {
        return head(text);
    }
    let normalized = if text.len() > NORMALIZE_BYTES {
        None
    } else {
        on_stack(text.len() > SHALLOW_BYTES, || pg_raw_parse::normalize::normalize(text).ok()).flatten()
    };
    blank(normalized.as_deref().unwrap_or(text))
}

/// The same for a text that is known to parse, in one pass: every literal becomes `?`. Ten times cheaper than [`redact`].
#[must_use]
pub fn redact_readable(text: &str) -> String {
    blank(text)
}

fn parses(text: &str) -> bool {
    on_stack(text.len() > NORMALIZE_BYTES, || parse(text).is_ok()).unwrap_or(false)
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
    let shown = tokens(text).map(|(token, seen)| match token {
        Token::Keep(_) => seen,
        Token::Literal(_) => "?",
        Token::Comment(_, empty) => empty,
    });
    shown.collect()
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
