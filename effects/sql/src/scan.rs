//! A scanner for texts that PostgreSQL's lexer takes: enough of it to tell literals and comments from the rest.
//!
//! It assumes `standard_conforming_strings`, as the whole analysis does. Verdicts never rest on it alone.

/// Longer runs of operator characters are not given to the parser: its lexer reads a run anew for every character in it.
/// PostgreSQL's own operators have at most 63 characters.
const MAX_OPERATOR_RUN: usize = 512;

/// Splits `text` into pieces: each with the bytes it has.
pub(crate) fn tokens(text: &str) -> impl Iterator<Item = (Token, &str)> {
    let mut rest = text;
    let mut previous = ' ';
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let token = token(rest, previous);
        let (Token::Keep(length) | Token::Literal(length) | Token::Comment(length, _)) = token;
        let (seen, after) = rest.split_at_checked(length.max(first.len_utf8())).unwrap_or((rest, ""));
        previous = seen.chars().next_back().unwrap_or(' ');
        rest = after;
        Some((token, seen))
    })
}

/// Whether the parser would take time in the square of the text's length: a long run of operator characters (nested or
/// adjacent comments are such runs) outside strings and line comments.
pub(crate) fn is_slow_to_parse(text: &str) -> bool {
    if text.len() <= MAX_OPERATOR_RUN || !has_long_run(text.as_bytes(), &mut 0) {
        return false;
    }
    let mut run = 0;
    tokens(text).any(|(token, seen)| match token {
        Token::Literal(_) | Token::Comment(_, "--") => {
            run = 0;
            false
        }
        Token::Keep(_) | Token::Comment(..) => has_long_run(seen.as_bytes(), &mut run),
    })
}

fn has_long_run(bytes: &[u8], run: &mut usize) -> bool {
    bytes.iter().any(|byte| {
        let is_operator = matches!(
            byte,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'='
        );
        *run = if is_operator { *run + 1 } else { 0 };
        *run > MAX_OPERATOR_RUN
    })
}

/// One piece of a text.
pub(crate) enum Token {
    /// A word, a quoted name, a parameter or a sign: so many bytes of it.
    Keep(usize),
    /// A string or a number.
    Literal(usize),
    /// A comment, and an empty one of its kind.
    Comment(usize, &'static str),
}

/// The first piece of `rest`, which follows `previous`.
pub(crate) fn token(rest: &str, previous: char) -> Token {
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
    fn long_runs_of_operators_are_slow_unless_quoted() {
        let check = |text: String, expected: bool| assert_eq!(is_slow_to_parse(&text), expected, "{text:.40}");
        let run = |piece: &str| piece.repeat(1000);
        check(run("+"), true);
        check(run("/*"), true);
        check(run("/**/"), true);
        check(format!("SELECT 1 {} 1", run("*/")), true);
        check(format!("SELECT '{}'", run("=")), false);
        check(format!("SELECT $a${}$a$", run("=")), false);
        check(format!("-- {}\nSELECT 1", run("=")), false);
        check(format!("SELECT 'a' {}", run("= ")), false);
        check(format!("SELECT '{0}' {0}", run("=")), true);
    }
}
