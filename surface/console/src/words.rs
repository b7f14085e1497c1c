//! Words and marks: numbers, times, names and statements as people read them.
//!
//! What an agent wrote, names of tables included, goes through [`visible`], which draws what can't be seen.

mod loss;

use std::time::Duration;

use maud::{Markup, PreEscaped, html};
use reprieve_operation::{AgentName, Environment, Kind, OperatorName, Reach, Timestamp};

pub(crate) use self::loss::{effect, loss, loss_of, verb};

/// Blanks in a row from which on they are counted instead of shown: a statement must not hide its end.
const BLANKS: usize = 40;

/// With a comma for each thousand.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2 rows`.
pub(crate) fn count(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// A number that a sentence begins with.
pub(crate) fn spelled(count: usize) -> String {
    const WORDS: [&str; 10] = ["No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"];
    WORDS.get(count).map_or_else(|| number(count as u64), |word| (*word).to_owned())
}

/// Two units: `6 min 42 s`, `71 h 59 min`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3_600..360_000 => format!("{} h {:02} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The larger unit alone: `72 h`, `57 min`.
pub(crate) fn roughly(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..5_400 => format!("{} min", seconds.div_ceil(60)),
        seconds @ 5_400..604_800 => format!("{} h", seconds.div_ceil(3_600)),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// What was measured: `1.5 s`, `6 min 42 s`.
pub(crate) fn measured(ms: u64) -> String {
    if ms < 10_000 { format!("{:.1} s", Duration::from_millis(ms).as_secs_f64()) } else { span(Duration::from_millis(ms)) }
}

/// What was promised, exactly and in one unit where that can be: `15 min`, `24 h`.
pub(crate) fn promised(seconds: u64) -> String {
    match seconds {
        hours if hours > 0 && hours.is_multiple_of(3_600) => format!("{} h", hours / 3_600),
        minutes if minutes > 0 && minutes.is_multiple_of(60) => format!("{} min", minutes / 60),
        seconds => span(Duration::from_secs(seconds)),
    }
}

/// `48.9 MB`, in powers of ten.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match UNITS.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", number(bytes / unit), bytes % unit / (unit / 10)),
        None => count(bytes, "byte", "bytes"),
    }
}

/// `3 min ago`.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    match now.since(at).as_secs() {
        0..5 => "now".to_owned(),
        seconds @ 5..60 => format!("{seconds} s ago"),
        seconds @ 60..3_600 => format!("{} min ago", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

struct Civil {
    year: u64,
    month: u64,
    day: u64,
    clock: String,
}

fn civil(at: Timestamp) -> Civil {
    // Civil time from days since 1970 (H. Hinnant, "chrono-compatible low-level date algorithms").
    let (days, seconds) = (at.0 / 86_400_000, at.0 / 1000 % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    Civil { year, month, day: day_of_year - (153 * shifted + 2) / 5 + 1, clock }
}

/// `14 May 2026, 14:32:30 UTC`.
pub(crate) fn utc(at: Timestamp) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Civil { year, month, day, clock } = civil(at);
    let month = usize::try_from(month).ok().and_then(|month| MONTHS.get(month - 1)).unwrap_or(&"?");
    format!("{day} {month} {year}, {clock} UTC")
}

fn machine(at: Timestamp) -> String {
    let Civil { year, month, day, clock } = civil(at);
    format!("{year:04}-{month:02}-{day:02}T{clock}Z")
}

/// `Today`, `Yesterday`, or the date.
pub(crate) fn day(at: Timestamp, now: Timestamp) -> String {
    match (now.0 / 86_400_000).saturating_sub(at.0 / 86_400_000) {
        0 => "Today".to_owned(),
        1 => "Yesterday".to_owned(),
        _ => utc(at).split(',').next().unwrap_or_default().to_owned(),
    }
}

/// `14 May`, of so many days since 1970.
pub(crate) fn day_month(day: u64) -> String {
    utc(Timestamp(day.saturating_mul(86_400_000))).split(' ').take(2).collect::<Vec<&str>>().join(" ")
}

/// The time of day, UTC.
pub(crate) fn clock(at: Timestamp) -> String {
    civil(at).clock
}

/// A time as it is read, with the exact one behind it.
pub(crate) fn time(at: Timestamp, now: Timestamp) -> Markup {
    html! { time datetime=(machine(at)) title=(utc(at)) { (ago(at, now)) } }
}

/// A time of day, with the date behind it.
pub(crate) fn time_of_day(at: Timestamp) -> Markup {
    html! { time datetime=(machine(at)) title=(utc(at)) { (clock(at)) } }
}

/// A day, with the exact time behind it.
pub(crate) fn time_of_year(at: Timestamp, now: Timestamp) -> Markup {
    html! { time datetime=(machine(at)) title=(utc(at)) { (day(at, now)) } }
}

/// Whether a character could be taken for another or for none.
fn is_hidden(c: char) -> bool {
    let harmless = matches!(c, '\n' | '\t' | ' '..='~') || (c.is_alphanumeric() && !c.is_control() && !is_filler(c));
    !harmless && !matches!(c, '“' | '”' | '„' | '’' | '…' | '–' | '—' | '€' | '£' | '§' | '°' | '•' | '×')
}

/// Letters by their class that have no shape: Hangul and Khmer fillers.
fn is_filler(c: char) -> bool {
    matches!(c, '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{3164}' | '\u{FFA0}')
}

/// Characters that are drawn because they can't be seen, and runs of blanks that are counted.
pub(crate) fn hidden(text: &str) -> usize {
    text.chars().filter(|c| is_hidden(*c)).count() + pieces(text).filter(|piece| matches!(piece, Piece::Blanks(_))).count()
}

enum Piece<'a> {
    Plain(&'a str),
    Blanks(usize),
    Hidden(char),
}

fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t', '\n']).len();
        if blanks >= BLANKS {
            rest = &rest[blanks..];
            return Some(Piece::Blanks(blanks));
        }
        if is_hidden(first) {
            rest = &rest[first.len_utf8()..];
            return Some(Piece::Hidden(first));
        }
        // Short blanks and everything up to the next thing to be drawn.
        let mut end = blanks.max(first.len_utf8());
        while let Some(c) = rest[end..].chars().next() {
            if is_hidden(c) || c == ' ' || c == '\n' || c == '\t' {
                break;
            }
            end += c.len_utf8();
        }
        let (plain, after) = rest.split_at(end);
        rest = after;
        Some(Piece::Plain(plain))
    })
}

/// Text of an agent: escaped, nothing hidden in it, never a link.
pub(crate) fn visible(text: &str) -> Markup {
    html! {
        @for piece in pieces(text) {
            @match piece {
                Piece::Plain(plain) => (plain),
                Piece::Blanks(blanks) => span.esc { "⟨" (blanks) " spaces⟩" },
                Piece::Hidden(c) => span.esc { "⟨U+" (format!("{:04X}", u32::from(c))) "⟩" },
            }
        }
    }
}

/// The first line, cut.
pub(crate) fn line(text: &str) -> Markup {
    const LONGEST: usize = 160;
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let cut: String = first.chars().take(LONGEST).collect();
    let more = cut.len() < first.len() || text.trim().lines().count() > 1;
    html! { (visible(&cut)) @if more { " …" } }
}

pub(crate) fn icon(name: &str) -> Markup {
    let href = format!("#i-{name}");
    html! { svg.i aria-hidden="true" { use href=(href) {} } }
}

pub(crate) fn small_icon(name: &str) -> Markup {
    let href = format!("#i-{name}");
    html! { svg.i.s aria-hidden="true" { use href=(href) {} } }
}

/// How an environment looks: production like nothing else.
pub(crate) fn environment(environment: &Environment) -> Markup {
    let class = environment_class(environment);
    html! { span class={ "env " (class) } { @if environment.is_production() { "Production" } @else { (environment) } } }
}

pub(crate) fn environment_class(environment: &Environment) -> &'static str {
    match environment.as_str() {
        "production" => "prod",
        "staging" => "stg",
        _ => "dev",
    }
}

/// The rail of a row.
pub(crate) fn rail(environment: &Environment) -> &'static str {
    if environment.is_production() { "p" } else { "s" }
}

pub(crate) fn agent(name: &AgentName, frozen: bool) -> Markup {
    let link = format!("/agents/{name}");
    html! { a class={ "agent" @if frozen { " frozen" } } href=(link) { (name) } }
}

pub(crate) fn person(name: &OperatorName) -> Markup {
    let initials: String = name.as_str().split(['-', '.', '_']).filter_map(|part| part.chars().next()).take(2).collect();
    html! { span.who { i aria-hidden="true" { (initials.to_uppercase()) } (name) } }
}

/// How far something goes, for the eye.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Risk {
    Read,
    Write,
    Wide,
    Destroy,
}

impl Risk {
    pub(crate) fn of(kinds: &[Kind], reach: Option<&Reach>) -> Self {
        let text = kinds.iter().map(|kind| match kind {
            Kind::Read => Self::Read,
            Kind::Write => Self::Write,
            Kind::Grant => Self::Wide,
            Kind::Destroy | Kind::Escape | Kind::Unknown => Self::Destroy,
        });
        let measured = reach.map(|reach| {
            if reach.deleted() > 0 || !reach.dropped.is_empty() || !reach.rewritten.is_empty() || !reach.escapes.is_empty() {
                Self::Destroy
            } else if reach.touches_catalogs() {
                Self::Wide
            } else if reach.rows() > 0 {
                Self::Write
            } else {
                Self::Read
            }
        });
        text.chain(measured).max().unwrap_or(Self::Destroy)
    }

    pub(crate) fn mark(self, word: &str) -> Markup {
        let class = match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Wide => "wide",
            Self::Destroy => "destroy",
        };
        let shape = format!("r-{class}");
        html! { span class={ "risk " (class) } { (icon(&shape)) (word) } }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Wide => "Schema",
            Self::Destroy => "Destroy",
        }
    }
}

/// What happened to an operation.
pub(crate) fn outcome(class: &str, shape: &str, word: &str) -> Markup {
    html! { span class={ "out " (class) } { (icon(shape)) (word) } }
}

/// A bar that fills a share, from 0 to 1.
pub(crate) fn bar(class: &str, share: f64) -> Markup {
    let width = format!("{:.1}%", share.clamp(0.0, 1.0) * 100.0);
    html! { svg class={ "barv " (class) } aria-hidden="true" { rect width=(width) height="100%" {} } }
}

/// Markup that is ours, as it is.
pub(crate) fn ours(markup: &'static str) -> Markup {
    PreEscaped(markup.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_drawn_and_markup_is_text() {
        let check = |text: &str, expected: &str| assert_eq!(visible(text).into_string(), expected, "{text:?}");
        check("DELETE FROM a; -- ok", "DELETE FROM a; -- ok");
        check("a\u{202E}b", "a<span class=\"esc\">⟨U+202E⟩</span>b");
        check("\u{200B}\u{3164}", "<span class=\"esc\">⟨U+200B⟩</span><span class=\"esc\">⟨U+3164⟩</span>");
        check("<b>x</b>", "&lt;b&gt;x&lt;/b&gt;");
        check(&format!("a{}b", " ".repeat(214)), "a<span class=\"esc\">⟨214 spaces⟩</span>b");
        check(&format!("a{}b", "\n".repeat(60)), "a<span class=\"esc\">⟨60 spaces⟩</span>b");
        check("größe\n  x", "größe\n  x");
        check("a\u{0}\u{7}", "a<span class=\"esc\">⟨U+0000⟩</span><span class=\"esc\">⟨U+0007⟩</span>");
        check("e\u{301}", "e<span class=\"esc\">⟨U+0301⟩</span>");
        assert_eq!(hidden("a\u{202E}b\u{200B}"), 2);
        assert_eq!(hidden("plain"), 0);
    }

    #[test]
    fn numbers_and_times() {
        assert_eq!((number(0).as_str(), number(41_872).as_str(), number(1_204_551).as_str()), ("0", "41,872", "1,204,551"));
        assert_eq!(span(Duration::from_secs(402)), "6 min 42 s");
        assert_eq!(span(Duration::from_secs(71 * 3_600 + 59 * 60)), "71 h 59 min");
        assert_eq!(utc(Timestamp(1_777_075_200_000)), "25 Apr 2026, 00:00:00 UTC");
    }
}
