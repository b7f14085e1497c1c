//! Privileges: statements that grant or revoke, turned round; comments taken off.
//!
//! `pg_dump` writes the way from what a new object has to what this one has. Each statement's opposite, the last one first, is the way
//! back to a new object's privileges, from where the wanted ones are written again.

use crate::lex::{self, Kind, Token};

/// The object of a GRANT or REVOKE as it says it: `TABLE s.t`.
pub(crate) fn object(statement: &str) -> Option<String> {
    let words = lex::words(statement);
    let on = words.iter().position(|token| token.is("ON"))?;
    let end = words.iter().rposition(|token| token.is("TO") || token.is("FROM"))?;
    let (from, to) = (words.get(on)?.end(), words.get(end)?.at);
    statement.get(from..to).map(|text| text.trim().to_owned())
}

/// The statements that take these back.
pub(crate) fn opposite(statements: &[String]) -> Option<Vec<String>> {
    let mut result = Vec::new();
    let mut session: Option<&String> = None;
    for statement in statements.iter().rev() {
        let words = lex::words(statement);
        let first = words.first()?;
        if first.is("RESET") {
            session = Some(statement);
            continue;
        }
        if first.is("SET") {
            session = None;
            // Backwards, what ended the other's session begins it.
            let place = result.iter().rposition(|line: &String| line == "--").unwrap_or(0);
            if let Some(line) = result.get_mut(place) {
                line.clone_from(statement);
            }
            result.push("RESET SESSION AUTHORIZATION".to_owned());
            continue;
        }
        if session.take().is_some() {
            result.push("--".to_owned());
        }
        result.push(turned(statement, &words)?);
    }
    Some(result)
}

fn turned(statement: &str, words: &[Token<'_>]) -> Option<String> {
    let verb = words.iter().find(|token| token.is("GRANT") || token.is("REVOKE"))?;
    let to = words.iter().rfind(|token| token.is("TO") || token.is("FROM"))?;
    let before = statement.get(..verb.at)?;
    let middle = statement.get(verb.end()..to.at)?;
    let after = statement.get(to.end()..)?;
    if verb.is("REVOKE") {
        return Some(format!("{before}GRANT{middle}TO{after}"));
    }
    let grantee_end = words.iter().position(|token| token.is("WITH")).and_then(|place| words.get(place)).map(|token| token.at);
    let after = grantee_end.and_then(|end| statement.get(to.end()..end)).unwrap_or(after);
    let cascade = if words.first()?.is("ALTER") { "" } else { " CASCADE" };
    Some(format!("{before}REVOKE{middle}FROM{}{cascade}", after.trim_end()))
}

/// A comment's or label's statement with nothing in it.
pub(crate) fn emptied(statement: &str) -> Option<String> {
    let words = lex::words(statement);
    let last = words.last().filter(|token| token.kind == Kind::Literal)?;
    Some(format!("{}NULL", statement.get(..last.at)?))
}

/// What a new object must lose again because default privileges gave it: default privileges' statements, aimed at it.
pub(crate) fn unasked(default: &str, object: &str, owner: Option<&str>) -> Option<String> {
    let words = lex::words(default);
    let verb = words.iter().find(|token| token.is("GRANT") || token.is("REVOKE"))?;
    let on = words.iter().find(|token| token.at > verb.at && token.is("ON"))?;
    let to = words.iter().rfind(|token| token.is("TO") || token.is("FROM"))?;
    let grantee = words.iter().find(|token| token.at > to.at)?.name()?;
    if owner == Some(grantee.as_str()) {
        return None;
    }
    let statement = format!("{} ON {object} {}", default.get(verb.at..on.at)?.trim_end(), default.get(to.at..)?);
    let words = lex::words(&statement);
    turned(&statement, &words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_turned_round() {
        let check = |input: &[&str], expected: &[&str]| {
            let input: Vec<String> = input.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(opposite(&input).as_deref(), Some(&expected.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()[..]));
        };
        check(
            &["REVOKE ALL ON TABLE s.t FROM a", "GRANT SELECT(x),UPDATE(x) ON TABLE s.t TO \"to\" WITH GRANT OPTION"],
            &["REVOKE SELECT(x),UPDATE(x) ON TABLE s.t FROM \"to\" CASCADE", "GRANT ALL ON TABLE s.t TO a"],
        );
        check(
            &["GRANT ALL ON TABLE t TO a", "SET SESSION AUTHORIZATION a", "GRANT SELECT ON TABLE t TO b", "RESET SESSION AUTHORIZATION"],
            &[
                "SET SESSION AUTHORIZATION a",
                "REVOKE SELECT ON TABLE t FROM b CASCADE",
                "RESET SESSION AUTHORIZATION",
                "REVOKE ALL ON TABLE t FROM a CASCADE",
            ],
        );
        check(
            &["ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA s GRANT SELECT ON TABLES  TO b"],
            &["ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA s REVOKE SELECT ON TABLES  FROM b"],
        );
        assert_eq!(object("GRANT SELECT(x) ON TABLE s.t TO b").as_deref(), Some("TABLE s.t"));
        assert_eq!(emptied("COMMENT ON TABLE s.t IS 'it''s'").as_deref(), Some("COMMENT ON TABLE s.t IS NULL"));
        assert_eq!(
            unasked("ALTER DEFAULT PRIVILEGES FOR ROLE a REVOKE ALL ON FUNCTIONS  FROM PUBLIC", "FUNCTION f()", None).as_deref(),
            Some("GRANT ALL ON FUNCTION f() TO PUBLIC")
        );
    }
}
