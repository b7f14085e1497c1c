//! Problems: why a policy set is refused, all of them at once, each with its file and line.

use std::fmt;

use miette::Diagnostic;

/// Messages longer than this are cut: a user's text is quoted in them.
const MESSAGE_CHARACTERS: usize = 500;

/// Problems beyond this many are counted, not listed.
const LISTED: usize = 100;

/// One thing wrong with a policy set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(file: &str, line: Option<usize>, message: impl fmt::Display) -> Self {
        Self { file: file.to_owned(), line, message: message.to_string().chars().take(MESSAGE_CHARACTERS).collect() }
    }

    /// A problem that Cedar found in `text`.
    pub(crate) fn of_cedar(file: &str, text: &str, error: &(impl Diagnostic + fmt::Display)) -> Self {
        let offset = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
        let line =
            offset.and_then(|offset| text.as_bytes().get(..offset)).map(|head| head.iter().filter(|byte| **byte == b'\n').count() + 1);
        match error.help() {
            Some(help) => Self::new(file, line, format!("{error} ({help})")),
            None => Self::new(file, line, error),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// Why a policy set is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the policy set is refused:{}", listed(problems))]
pub struct PolicyError {
    /// Everything found, in the files' order; at least one.
    pub problems: Vec<Problem>,
}

fn listed(problems: &[Problem]) -> String {
    let mut text: String = problems.iter().take(LISTED).map(|problem| format!("\n  {problem}")).collect();
    if let Some(more) = problems.len().checked_sub(LISTED).filter(|more| *more > 0) {
        text.push_str(&format!("\n  and {more} more"));
    }
    text
}
