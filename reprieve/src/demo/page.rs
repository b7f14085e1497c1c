//! The page: how the demo prints. Colours and the line that says what is being done now only on a terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Instant,
};

/// The widest line.
const WIDTH: usize = 98;

/// A colour, or a weight.
#[derive(Clone, Copy)]
pub(crate) enum Ink {
    Plain,
    Bold,
    Dim,
    Good,
    Warning,
    Bad,
}

/// Where the story is printed.
pub(crate) struct Page {
    is_terminal: bool,
    started: Instant,
}

impl Page {
    pub(crate) fn new() -> Self {
        Self { is_terminal: io::stdout().is_terminal(), started: Instant::now() }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// What is being done now; on a terminal the next line takes its place.
    pub(crate) fn doing(&self, text: &str) {
        let seconds = self.started.elapsed().as_secs();
        if self.is_terminal {
            self.write(&format!("\r\x1b[K{}", self.inked(Ink::Dim, &format!("  … {text} ({seconds} s)"))));
        } else {
            self.write(&format!("  … {text}\n"));
        }
    }

    /// One line.
    pub(crate) fn line(&self, ink: Ink, text: &str) {
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        self.write(&format!("{clear}{}\n", self.inked(ink, text)));
    }

    pub(crate) fn space(&self) {
        self.line(Ink::Plain, "");
    }

    /// The heading of a scene.
    pub(crate) fn scene(&self, number: usize, title: &str) {
        self.space();
        self.line(Ink::Bold, &format!("{number}  {title}"));
        self.space();
    }

    /// Who says or does what: the name in a column of its own, the text wrapped beside it.
    pub(crate) fn says(&self, who: &str, ink: Ink, text: &str) {
        const INDENT: usize = 20;
        for (index, line) in wrapped(text, WIDTH - INDENT).iter().enumerate() {
            let name = if index == 0 { who } else { "" };
            self.line(Ink::Plain, &format!("   {}{}", self.inked(Ink::Dim, &format!("{name:<17}")), self.inked(ink, line)));
        }
    }

    /// One table of a measurement.
    pub(crate) fn row(&self, name: &str, numbers: &str) {
        self.line(Ink::Plain, &format!("{:20}  {name:<30}{numbers}", ""));
    }

    /// Two columns.
    pub(crate) fn pair(&self, left: &str, ink: Ink, right: &str) {
        self.line(Ink::Plain, &format!("   {}  {}", fitted(left, 52), self.inked(ink, right)));
    }

    fn inked(&self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Plain => return text.to_owned(),
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Good => "32",
            Ink::Warning => "33",
            Ink::Bad => "1;31",
        };
        if self.is_terminal && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn write(&self, text: &str) {
        // A reader that went away, as `head` does, ends the printing but not the cleaning up.
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// A number with its thousands parted.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Exactly as wide as told: filled up, or cut with an ellipsis.
fn fitted(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return format!("{text}{}", " ".repeat(width - length));
    }
    let cut: String = text.chars().take(width - 1).collect();
    format!("{cut}…")
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{fitted, thousands, wrapped};

    #[test]
    fn numbers_are_parted() {
        for (number, expected) in [(0, "0"), (212, "212"), (41_872, "41,872"), (1_343_205, "1,343,205")] {
            assert_eq!(thousands(number), expected);
        }
    }

    #[test]
    fn lines_fit() {
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("a\nb", 8), ["a", "b"]);
        assert_eq!(fitted("reservations", 6), "reser…");
        assert_eq!(fitted("abc", 5), "abc  ");
    }
}
