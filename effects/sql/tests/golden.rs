//! The corpus in `golden/effects.txt`: statements, and what the analysis says about each.
//!
//! `>` begins a text, `|` continues it on a new line; what follows up to the empty line is the analysis, in words.
//! `UPDATE_GOLDEN=1 cargo test -p reprieve-effects-sql --test golden` writes the words anew: read the difference.

use std::fmt::Write as _;

use reprieve_effects_sql::{Analysis, Class, Statement, analyze};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/effects.txt");

fn texts(golden: &str) -> Vec<(bool, String)> {
    let mut texts: Vec<(bool, String)> = Vec::new();
    for line in golden.lines() {
        if let Some(text) = line.strip_prefix("> ") {
            texts.push((true, text.to_owned()));
        } else if let (Some(more), Some((true, text))) = (line.strip_prefix("| "), texts.last_mut()) {
            text.push('\n');
            text.push_str(more);
        } else if line.starts_with('#') {
            texts.push((false, line.to_owned()));
        }
    }
    texts
}

fn words(analysis: &Analysis) -> String {
    let mut out = String::new();
    if analysis.statements.is_empty() {
        out.push_str("  nothing\n");
    }
    for statement in &analysis.statements {
        describe(statement, &mut out);
    }
    out
}

fn describe(statement: &Statement, out: &mut String) {
    let class = match statement.class {
        Class::Control(control) => format!("{control:?}"),
        class => format!("{class:?}"),
    };
    write!(out, "  {}", class.to_lowercase()).expect("a string takes everything");
    if statement.returns_rows {
        out.push_str(", returns rows");
    }
    if let Some(copy) = statement.copy {
        write!(out, ", copy {copy:?}").expect("a string takes everything");
    }
    if statement.in_session {
        out.push_str(", in session");
    }
    out.push('\n');
    for effect in &statement.effects {
        writeln!(out, "    {}: {effect}", effect.kind()).expect("a string takes everything");
    }
    let list = |names: &mut dyn Iterator<Item = String>| names.collect::<Vec<_>>().join(" ");
    for (what, names) in [
        ("functions", list(&mut statement.functions.iter().map(ToString::to_string))),
        ("operators", list(&mut statement.operators.iter().map(ToString::to_string))),
        ("casts", list(&mut statement.casts.iter().map(ToString::to_string))),
    ] {
        if !names.is_empty() {
            writeln!(out, "    {what}: {names}").expect("a string takes everything");
        }
    }
}

#[test]
fn the_corpus_means_what_the_golden_file_says() {
    let golden = std::fs::read_to_string(PATH).expect("the golden file is in the repository");
    let texts = texts(&golden);
    let mut now = String::new();
    let mut count = 0;
    for (is_text, text) in &texts {
        if !is_text {
            writeln!(now, "{text}\n").expect("a string takes everything");
            continue;
        }
        count += 1;
        writeln!(now, "> {}", text.replace('\n', "\n| ")).expect("a string takes everything");
        now.push_str(&words(&analyze(text)));
        now.push('\n');
    }
    assert!(count >= 250, "{count} statements");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(PATH, now).expect("the golden file can be written");
        return;
    }
    for (line, (now, golden)) in now.lines().zip(golden.lines()).enumerate() {
        assert_eq!(now, golden, "line {}", line + 1);
    }
    assert_eq!(now.lines().count(), golden.lines().count());
}
