//! Marks: what each piece of a text is, for the eye. A verdict never rests on them.
//!
//! They come from the scanner that redaction uses, so that what is drawn as a comment or a string is what is taken for one.

use crate::scan::{Token, tokens};

/// What a piece of a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Blanks and signs.
    Plain,
    /// A key word of the language.
    Word,
    /// A key word that takes something away.
    Destroys,
    /// A name, with its schema where one was written.
    Name,
    /// A string or a number.
    Literal,
    /// A comment: what the author says, not what runs.
    Comment,
}

/// Splits a text into marked pieces; together they are the text.
#[must_use]
pub fn marks(text: &str) -> Vec<(Mark, &str)> {
    let mut found: Vec<(Mark, usize)> = Vec::new();
    let mut end = 0;
    for (token, seen) in tokens(text) {
        end += seen.len();
        let mark = match token {
            Token::Literal(_) => Mark::Literal,
            Token::Comment(..) => Mark::Comment,
            Token::Keep(_) => of_word(seen, found.iter().rev().find(|(mark, _)| *mark != Mark::Plain).map(|(mark, _)| *mark)),
        };
        match found.last_mut() {
            // `schema.name` is one name, and blanks and signs beside each other are one piece.
            Some((Mark::Plain, last)) if mark == Mark::Plain => *last = end,
            Some((Mark::Name, last)) if seen == "." => *last = end,
            Some((Mark::Name, last)) if text[..*last].ends_with('.') && matches!(mark, Mark::Name | Mark::Word | Mark::Destroys) => {
                *last = end
            }
            _ => found.push((mark, end)),
        }
    }
    let mut start = 0;
    let piece = |(mark, end): (Mark, usize)| {
        let piece = (mark, &text[start..end]);
        start = end;
        piece
    };
    found.into_iter().map(piece).collect()
}

fn of_word(seen: &str, before: Option<Mark>) -> Mark {
    if !seen.starts_with(|c: char| c == '"' || c == '_' || c.is_alphabetic()) {
        return Mark::Plain;
    }
    let word = seen.to_ascii_uppercase();
    match word.as_str() {
        "DELETE" | "DROP" | "TRUNCATE" => Mark::Destroys,
        // `DELETE FROM`, `DROP TABLE`, `TRUNCATE TABLE` read as one verb.
        "FROM" | "TABLE" | "SCHEMA" | "DATABASE" | "COLUMN" | "CASCADE" if before == Some(Mark::Destroys) => Mark::Destroys,
        _ if WORDS.binary_search(&word.as_str()).is_ok() => Mark::Word,
        _ => Mark::Name,
    }
}

/// Words that structure a statement; sorted. What is missing here is drawn as a name, and loses nothing by it.
const WORDS: [&str; 111] = [
    "ADD",
    "ALL",
    "ALTER",
    "ANALYZE",
    "AND",
    "ANY",
    "AS",
    "ASC",
    "BEGIN",
    "BETWEEN",
    "BY",
    "CALL",
    "CASCADE",
    "CASE",
    "CAST",
    "CHECK",
    "COLUMN",
    "COMMENT",
    "COMMIT",
    "CONFLICT",
    "CONSTRAINT",
    "COPY",
    "CREATE",
    "CROSS",
    "DATABASE",
    "DEFAULT",
    "DESC",
    "DISTINCT",
    "DO",
    "ELSE",
    "END",
    "EXCEPT",
    "EXECUTE",
    "EXISTS",
    "EXPLAIN",
    "FALSE",
    "FETCH",
    "FOR",
    "FOREIGN",
    "FROM",
    "FULL",
    "FUNCTION",
    "GRANT",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INDEX",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTO",
    "IS",
    "JOIN",
    "KEY",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOCK",
    "MATERIALIZED",
    "MERGE",
    "NOT",
    "NOTHING",
    "NULL",
    "OFFSET",
    "ON",
    "ONLY",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "OWNER",
    "PARTITION",
    "PRIMARY",
    "PRIVILEGES",
    "PROCEDURE",
    "REFERENCES",
    "RENAME",
    "RESET",
    "RESTRICT",
    "RETURNING",
    "REVOKE",
    "RIGHT",
    "ROLE",
    "ROLLBACK",
    "ROW",
    "ROWS",
    "SAVEPOINT",
    "SCHEMA",
    "SELECT",
    "SET",
    "TABLE",
    "TEMPORARY",
    "THEN",
    "TO",
    "TRIGGER",
    "TRUE",
    "TYPE",
    "UNION",
    "UNIQUE",
    "UPDATE",
    "USING",
    "VACUUM",
    "VALUES",
    "VIEW",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
    "WITHOUT",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_what_they_look_like_and_lose_nothing() {
        use Mark::{Comment, Destroys, Literal, Name, Plain, Word};
        let check = |text: &str, expected: &[(Mark, &str)]| {
            let found: Vec<_> = marks(text).into_iter().filter(|(mark, _)| *mark != Plain).collect();
            assert_eq!(found, expected, "{text:?}");
            assert_eq!(marks(text).iter().map(|(_, piece)| *piece).collect::<String>(), text);
        };
        check(
            "DELETE FROM public.orders WHERE id > 5 -- ok",
            &[
                (Destroys, "DELETE"),
                (Destroys, "FROM"),
                (Name, "public.orders"),
                (Word, "WHERE"),
                (Name, "id"),
                (Literal, "5"),
                (Comment, "-- ok"),
            ],
        );
        check("/* DROP */ SELECT 'drop table x'", &[(Comment, "/* DROP */"), (Word, "SELECT"), (Literal, "'drop table x'")]);
        check("drop table \"Public\".\"t\"", &[(Destroys, "drop"), (Destroys, "table"), (Name, "\"Public\".\"t\"")]);
        check("select a.delete, $1", &[(Word, "select"), (Name, "a.delete")]);
        check("", &[]);
        check("größe\u{202E}'", &[(Name, "größe\u{202E}"), (Literal, "'")]);
    }

    #[test]
    fn the_words_are_sorted() {
        assert!(WORDS.is_sorted());
    }
}
