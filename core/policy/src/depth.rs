//! Depth: policies so deep that a parser's recursion would exhaust the stack are refused before they are parsed.

/// Brackets within brackets.
const NESTED: usize = 32;

/// Operators in one rule: each may be one level of its tree.
const OPERATORS: usize = 256;

/// Why `text` is too deep, and on which line, if it is.
pub(crate) fn too_deep(text: &str) -> Option<(usize, String)> {
    let (mut line, mut nested, mut operators) = (1, 0_usize, 0_usize);
    let mut characters = text.chars().peekable();
    let mut word = String::new();
    while let Some(character) = characters.next() {
        if character.is_alphanumeric() || character == '_' {
            if word.len() < 8 {
                word.push(character);
            }
            continue;
        }
        operators += usize::from(matches!(word.as_str(), "else" | "then" | "if"));
        word.clear();
        match character {
            '\n' => line += 1,
            '"' => {
                while let Some(quoted) = characters.next() {
                    match quoted {
                        '"' => break,
                        '\\' => drop(characters.next()),
                        '\n' => line += 1,
                        _ => {}
                    }
                }
            }
            '/' if characters.peek() == Some(&'/') => {
                while characters.peek().is_some_and(|next| *next != '\n') {
                    characters.next();
                }
            }
            '(' | '[' | '{' => nested += 1,
            ')' | ']' | '}' => nested = nested.saturating_sub(1),
            '&' | '|' | '=' if characters.peek() == Some(&character) => {}
            '<' | '>' | '!' if characters.peek() == Some(&'=') => {}
            '&' | '|' | '!' | '.' | '+' | '-' | '*' | '<' | '>' | '=' => operators += 1,
            ';' => (nested, operators) = (0, 0),
            _ => {}
        }
        if nested > NESTED {
            return Some((line, format!("more than {NESTED} brackets within each other")));
        }
        if operators > OPERATORS {
            return Some((line, format!("more than {OPERATORS} operators in one rule")));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth() {
        for (text, expected) in [
            (String::new(), None),
            ("(".repeat(32), None),
            ("(".repeat(33), Some(1)),
            (format!("\n{}", "[(".repeat(33)), Some(2)),
            (format!("\"{}\"", "(".repeat(99)), None),
            (format!("\"\\\"{}\"", "(".repeat(99)), None),
            (format!("// {}\n", "(".repeat(99)), None),
            ("a();".repeat(99), None),
            ("a && ".repeat(256), None),
            ("a && ".repeat(257), Some(1)),
            ("if a then b else ".repeat(100), Some(1)),
            ("\"".to_owned(), None),
        ] {
            assert_eq!(too_deep(&text).map(|(line, _)| line), expected, "{text}");
        }
    }
}
