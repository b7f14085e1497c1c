//! An exact statement: complete, numbered, with what cannot be seen drawn, and what its author says told apart from what would run.

use maud::{Markup, html};
use reprieve_effects_sql::{Mark, marks};

use crate::words::{line, visible};

/// Numbers that somebody may mean by "rows".
const WORDS_BETWEEN: usize = 3;
/// Comments that are quoted; longer ones are in the statement itself.
const LONGEST_SAID: usize = 1_200;

struct Piece {
    class: Option<&'static str>,
    text: String,
}

#[derive(Default)]
struct Line {
    hot: bool,
    pieces: Vec<Piece>,
}

/// A SQL text's lines. `names` are the objects that it takes something from.
pub(crate) fn sql(text: &str, names: &[String]) -> Markup {
    let mut lines = vec![Line::default()];
    for (mark, seen) in marks(text) {
        for (at, part) in seen.split('\n').enumerate() {
            if at > 0 {
                lines.push(Line::default());
            }
            let Some(line) = lines.last_mut().filter(|_| !part.is_empty()) else { continue };
            line.hot |= mark == Mark::Destroys;
            line.pieces.push(Piece { class: class(mark, part, names), text: part.to_owned() });
        }
    }
    html! { @for line in &lines { span.l.hot[line.hot] { @for piece in &line.pieces {
        @match piece.class { Some(class) => span class=(class) { (visible(&piece.text)) }, None => (visible(&piece.text)) }
    } } } }
}

/// What would run, in a line for lists: without comments, which must not push it out of sight.
pub(crate) fn in_line(text: &str) -> Markup {
    let bare: String = marks(text).into_iter().map(|(mark, seen)| if mark == Mark::Comment { " " } else { seen }).collect();
    line(bare.split_whitespace().collect::<Vec<_>>().join(" ").as_str())
}

/// Any other text's lines.
pub(crate) fn plain(text: &str) -> Markup {
    html! { @for line in text.split('\n') { span.l { (visible(line)) } } }
}

fn class(mark: Mark, piece: &str, names: &[String]) -> Option<&'static str> {
    match mark {
        Mark::Plain => None,
        Mark::Word => Some("k"),
        Mark::Destroys => Some("kd"),
        Mark::Literal => Some("v"),
        Mark::Comment => Some("c"),
        Mark::Name => {
            let own = piece.replace('"', "");
            let bare = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
            names.iter().any(|name| name.eq_ignore_ascii_case(&own) || bare(name).eq_ignore_ascii_case(&own)).then_some("o")
        }
    }
}

/// What the author of a SQL text says in it: its comments, without their marks.
pub(crate) fn said(text: &str) -> Option<String> {
    let comments = marks(text).into_iter().filter(|(mark, _)| *mark == Mark::Comment);
    let bare = |comment: &str| {
        let inner = comment.strip_prefix("--").or_else(|| comment.strip_prefix("/*")).unwrap_or(comment);
        inner.strip_suffix("*/").unwrap_or(inner).lines().map(str::trim).collect::<Vec<_>>().join("\n").trim().to_owned()
    };
    let all: Vec<String> = comments.map(|(_, comment)| bare(comment)).filter(|comment| !comment.is_empty()).collect();
    if all.is_empty() {
        return None;
    }
    let all = all.join("\n");
    let cut: String = all.chars().take(LONGEST_SAID).collect();
    Some(if cut.len() < all.len() { cut + " …" } else { all })
}

/// How many rows it says it is about: `212 rows`, `212 leftover test rows`. Only ever shown beside the measurement.
pub(crate) fn claimed_rows(said: &str) -> Option<u64> {
    let words: Vec<&str> = said.split_whitespace().collect();
    words.iter().enumerate().find_map(|(at, word)| {
        let number: u64 = word.replace([',', '_'], "").parse().ok()?;
        let near = words.iter().skip(at + 1).take(WORDS_BETWEEN);
        near.clone().any(|word| matches!(word.trim_matches(|c: char| !c.is_alphabetic()), "row" | "rows")).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_destroys_is_marked_and_what_is_said_is_told_apart() {
        let html = sql("-- 5 <b>rows</b>\nDELETE FROM public.a\n WHERE x = 'DROP'", &["public.a".to_owned()]).into_string();
        assert_eq!(
            html,
            "<span class=\"l\"><span class=\"c\">-- 5 &lt;b&gt;rows&lt;/b&gt;</span></span>\
             <span class=\"l hot\"><span class=\"kd\">DELETE</span> <span class=\"kd\">FROM</span> <span class=\"o\">public.a</span></span>\
             <span class=\"l\"> <span class=\"k\">WHERE</span> x = <span class=\"v\">'DROP'</span></span>"
        );
        assert!(sql(&format!("a{}b", " ".repeat(214)), &[]).into_string().contains("⟨214 spaces⟩"));
        assert!(sql("SELECT '\u{202E}'", &[]).into_string().contains("⟨U+202E⟩"));
    }

    #[test]
    fn a_comment_hides_nothing_in_a_list() {
        assert_eq!(in_line("/* harmless */\n\n  -- SELECT 1\nDELETE\n  FROM a").into_string(), "DELETE FROM a");
    }

    #[test]
    fn claims_are_read_from_comments_only() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(said(text).as_deref().and_then(claimed_rows), expected, "{text:?}");
        check("-- removes 212 rows\nDELETE FROM a", Some(212));
        check("/* 1,318 leftover test rows. */ DELETE FROM a", Some(1_318));
        check("DELETE FROM a WHERE b = '5 rows'", None);
        check("-- step 3 of the plan we made for all rows", None);
        check("-- 99999999999999999999999 rows", None);
        check("SELECT 1", None);
    }
}
