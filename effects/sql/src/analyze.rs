//! From a text to its statements: limits, PostgreSQL's own parser, and the split.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use pg_raw_parse::{ParseResult, nodes};
use reprieve_operation::Effect;

use crate::{
    scan::is_slow_to_parse,
    statement::{Analysis, Class, Statement},
    utility::Reading,
    walk::Found,
};

/// Longer texts are not read.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// More statements in one text are not read.
pub const MAX_STATEMENTS: usize = 10_000;
/// Longer texts are read on a thread of their own.
const LONG_TEXT_BYTES: usize = 64 << 10;
const LONG_TEXT_STACK_BYTES: usize = 32 << 20;

/// Reads a text. It never fails: what cannot be read is one statement of [`Class::Unreadable`].
#[must_use]
pub fn analyze(text: &str) -> Analysis {
    if text.len() > MAX_TEXT_BYTES {
        return unread(text, "the text is longer than 1 MiB");
    }
    if text.contains('\0') {
        return unread(text, "the text holds a zero byte");
    }
    // A bug in here or in the parser ends as a text that is not understood, not as a process that stops.
    let read = on_stack(text.len() > LONG_TEXT_BYTES, || catch_unwind(AssertUnwindSafe(|| read(text))).ok());
    read.flatten().unwrap_or_else(|| unread(text, "the text could not be analysed"))
}

/// Runs `work` here, or on a thread with a large stack; `None` if there is no thread to be had.
pub(crate) fn on_stack<T: Send>(large: bool, work: impl FnOnce() -> T + Send) -> Option<T> {
    if !large {
        return Some(work());
    }
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("sql-text".to_owned()).stack_size(LONG_TEXT_STACK_BYTES);
        thread.spawn_scoped(scope, work).ok()?.join().ok()
    })
}

/// Parses a text, unless that would take too long; the error is in words that quote nothing of the text.
pub(crate) fn parse(text: &str) -> Result<ParseResult, String> {
    if is_slow_to_parse(text) {
        return Err("a run of operator characters that is too long to be read".to_owned());
    }
    pg_raw_parse::parse(text).map_err(|error| format!("not PostgreSQL's SQL: {}", first_line(&error.to_string())))
}

fn read(text: &str) -> Analysis {
    let tree = match parse(text) {
        Ok(tree) => tree,
        Err(because) => return unread(text, &because),
    };
    if tree.len() > MAX_STATEMENTS {
        return unread(text, "the text holds more statements than this version reads");
    }
    Analysis { statements: tree.iter().map(|statement| read_statement(text, statement)).collect() }
}

fn read_statement(text: &str, raw: &nodes::RawStmt) -> Statement {
    let reading = Reading::of(raw.stmt());
    let Reading { class, found, returns_rows, copy, block_only, by_parts, holdable } = reading;
    let Found { effects, functions, operators, casts, attributes, in_session, .. } = found;
    let too_many = effects.has_overflowed()
        || functions.has_overflowed()
        || operators.has_overflowed()
        || casts.has_overflowed()
        || attributes.has_overflowed();
    let mut effects = effects.into_vec();
    if too_many {
        effects.push(Effect::Unknown { because: "more names than this version tells apart".to_owned() });
    }
    Statement {
        span: span(text, raw),
        class,
        effects,
        functions: functions.into_vec(),
        operators: operators.into_vec(),
        casts: casts.into_vec(),
        attributes: attributes.into_vec(),
        returns_rows,
        copy,
        in_session,
        block_only,
        holdable,
        by_parts,
    }
}

/// The statement's bytes without white space around them. A length of zero means: up to the end.
fn span(text: &str, raw: &nodes::RawStmt) -> Range<usize> {
    let start = usize::try_from(raw.stmt_location).unwrap_or(0).min(text.len());
    let end = match usize::try_from(raw.stmt_len) {
        Ok(0) | Err(_) => text.len(),
        Ok(length) => start.saturating_add(length).min(text.len()),
    };
    let Some(statement) = text.get(start..end) else { return 0..text.len() };
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c' | b';');
    let lead = statement.bytes().take_while(|byte| blank(byte)).count();
    let trail = statement.bytes().rev().take_while(|byte| blank(byte)).count();
    if lead == statement.len() { start..start } else { start + lead..end - trail }
}

/// A text that is not read, and why: one statement of [`Class::Unreadable`].
#[must_use]
pub fn unread(text: &str, because: &str) -> Analysis {
    let statement = Statement {
        span: 0..text.len(),
        class: Class::Unreadable,
        effects: vec![Effect::Unknown { because: because.to_owned() }],
        functions: Vec::new(),
        operators: Vec::new(),
        casts: Vec::new(),
        attributes: Vec::new(),
        returns_rows: false,
        copy: None,
        in_session: true,
        block_only: false,
        holdable: false,
        by_parts: false,
    };
    Analysis { statements: vec![statement] }
}

/// The parser quotes the text near the error, which may be a literal: only what comes before the quote is kept.
fn first_line(message: &str) -> &str {
    let line = message.lines().next().unwrap_or_default();
    let line = line.split(" at or near").next().unwrap_or(line);
    line.split(['"', '\'']).next().unwrap_or(line).trim_end()
}
