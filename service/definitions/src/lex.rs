//! The tokens of what PostgreSQL's tools print.
//!
//! Only enough to know strings, names and comments from the rest: where a name may be replaced, where a comment is one.
//! Structure is read by PostgreSQL's own grammar; see `dump.rs` and `table.rs`.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// White space.
    Space,
    /// A comment to the end of its line, or in `/* */`.
    Comment,
    /// A name or key word without quotes, or a number.
    Word,
    /// A name in quotes.
    Quoted,
    /// A string, in quotes or dollars.
    Literal,
    /// One character of anything else.
    Sign,
}

/// A piece of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    /// Where it starts, in bytes.
    pub(crate) at: usize,
}

impl Token<'_> {
    /// The name that it is, if it may be one.
    pub(crate) fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_owned()),
            Kind::Quoted => Some(self.text.get(1..self.text.len().saturating_sub(1))?.replace("\"\"", "\"")),
            Kind::Space | Kind::Comment | Kind::Literal | Kind::Sign => None,
        }
    }

    /// Whether it is this key word.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// Where it ends, in bytes.
    pub(crate) fn end(&self) -> usize {
        self.at + self.text.len()
    }
}

/// All tokens of a text, white space and comments included: put together they are the text.
pub(crate) fn tokens(text: &str) -> impl Iterator<Item = Token<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let (kind, length) = first(rest);
        let token = Token { kind, text: rest.get(..length).unwrap_or(rest), at };
        at += token.text.len();
        Some(token)
    })
}

/// The tokens that mean something.
pub(crate) fn words(text: &str) -> Vec<Token<'_>> {
    tokens(text).filter(|token| !matches!(token.kind, Kind::Space | Kind::Comment)).collect()
}

fn first(rest: &str) -> (Kind, usize) {
    let bytes = rest.as_bytes();
    let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
    let run = |matching: fn(char) -> bool| rest.find(|letter| !matching(letter)).unwrap_or(rest.len());
    match at(0) {
        b'-' if at(1) == b'-' => (Kind::Comment, rest.find('\n').unwrap_or(rest.len())),
        b'/' if at(1) == b'*' => (Kind::Comment, block_comment(bytes)),
        b'\'' => (Kind::Literal, closing(bytes, 0, b'\'', false)),
        b'"' => (Kind::Quoted, closing(bytes, 0, b'"', false)),
        b'e' | b'E' if at(1) == b'\'' => (Kind::Literal, closing(bytes, 1, b'\'', true)),
        b'b' | b'B' | b'x' | b'X' | b'n' | b'N' if at(1) == b'\'' => (Kind::Literal, closing(bytes, 1, b'\'', false)),
        b'$' => dollars(rest).map_or((Kind::Sign, 1), |length| (Kind::Literal, length)),
        byte if byte.is_ascii_whitespace() => (Kind::Space, run(|letter| letter.is_ascii_whitespace())),
        byte if is_word(char::from(byte)) || !byte.is_ascii() => (Kind::Word, run(is_word)),
        _ => (Kind::Sign, 1),
    }
}

fn is_word(letter: char) -> bool {
    letter == '_' || letter == '$' || letter.is_ascii_alphanumeric() || !letter.is_ascii()
}

/// The length up to and with the closing quote; all of it if there is none.
fn closing(bytes: &[u8], start: usize, quote: u8, escapes: bool) -> usize {
    let mut index = start + 1;
    while let Some(byte) = bytes.get(index) {
        if escapes && *byte == b'\\' {
            index += 2;
        } else if *byte != quote {
            index += 1;
        } else if bytes.get(index + 1) == Some(&quote) {
            index += 2;
        } else {
            return index + 1;
        }
    }
    bytes.len()
}

fn block_comment(bytes: &[u8]) -> usize {
    let (mut depth, mut index) = (0usize, 0);
    while index < bytes.len() {
        let step = match (bytes.get(index), bytes.get(index + 1)) {
            (Some(b'/'), Some(b'*')) => {
                depth += 1;
                2
            }
            (Some(b'*'), Some(b'/')) => {
                depth = depth.saturating_sub(1);
                2
            }
            _ => 1,
        };
        index += step;
        if depth == 0 {
            return index;
        }
    }
    bytes.len()
}

fn dollars(rest: &str) -> Option<usize> {
    let tag_end = rest.get(1..)?.find('$')? + 2;
    let tag = rest.get(..tag_end)?;
    let inner = tag.get(1..tag_end - 1)?;
    if inner.starts_with(|letter: char| letter.is_ascii_digit()) || !inner.chars().all(|letter| letter != '$' && is_word(letter)) {
        return None;
    }
    let body = rest.get(tag_end..)?;
    Some(body.find(tag).map_or(rest.len(), |end| tag_end + end + tag_end))
}

/// A name in quotes if it is not plain; never a key word's look-alike.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fall_into_tokens() {
        let check = |text: &str, expected: &[&str]| {
            let found: Vec<&str> = words(text).iter().map(|token| token.text).collect();
            assert_eq!(found, expected, "{text}");
            assert_eq!(tokens(text).map(|token| token.text).collect::<String>(), text);
        };
        check("SELECT 'a;''b', \"c\"\"d\" -- e\n, f", &["SELECT", "'a;''b'", ",", "\"c\"\"d\"", ",", "f"]);
        check("AS $x$ it's $$ -- no $x$;", &["AS", "$x$ it's $$ -- no $x$", ";"]);
        check(r"E'a\'b' /* c /* d */ e */ z", &[r"E'a\'b'", "z"]);
        check("nextval('s.q'::regclass)", &["nextval", "(", "'s.q'", ":", ":", "regclass", ")"]);
    }
}
