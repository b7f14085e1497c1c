//! Any text: the analysis ends, its spans lie in the text, and what is not understood says so.

#![no_main]

use libfuzzer_sys::fuzz_target;
use reprieve_effects_sql::{Class, analyze, redact};
use reprieve_operation::Effect;

fuzz_target!(|text: &str| {
    for statement in analyze(text).statements {
        assert!(text.get(statement.span).is_some());
        if statement.class == Class::Unreadable {
            assert!(matches!(statement.effects.as_slice(), [Effect::Unknown { .. }]));
        }
    }
    let _ = redact(text);
});
