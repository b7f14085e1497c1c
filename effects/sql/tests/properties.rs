//! What holds for every text.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use reprieve_effects_sql::{Class, MAX_TEXT_BYTES, analyze, redact};
use reprieve_operation::Effect;

const PIECES: &[&str] = &[
    "SELECT",
    "DELETE FROM",
    "UPDATE t SET a = 1",
    "WHERE",
    "t",
    "(",
    ")",
    ",",
    ";",
    "'",
    "''",
    "\"",
    "$$",
    "$a$",
    "E'\\",
    "--",
    "/*",
    "*/",
    "\n",
    " ",
    "1",
    ".",
    "x",
    "WITH",
    "AS",
    "RETURNING *",
    "COPY",
    "FROM STDIN",
    "EXPLAIN ANALYZE",
    "U&'\\0061'",
    "::",
    "int",
    "setval('s', 1)",
    "BEGIN",
    "COMMIT",
    "DO",
    "\0",
    "é",
    "🙂",
    "\\",
    "$1",
    "OPERATOR(a.+)",
    "CASE",
    "END",
    "VALUES",
    "SET role = x",
    "CREATE TABLE",
    "ALTER",
    "DROP",
    "GRANT",
    "ON",
    "E'\\xff'",
    "JSON_TABLE",
    "a.b.c",
    "[",
    "]",
    "*",
    "=",
];

const STATEMENTS: &[&str] = &[
    "SELECT 1",
    "SELECT * FROM orders WHERE id = $1",
    "DELETE FROM orders",
    "INSERT INTO t VALUES ('a;b', $$;$$) RETURNING *",
    "BEGIN",
    "COMMIT AND CHAIN",
    "SET role = 'x'",
    "WITH x AS (UPDATE t SET a = 1 WHERE id = 2 RETURNING *) SELECT * FROM x -- end",
    "/* a ; b */ DROP TABLE a, b CASCADE",
    "DO $x$ BEGIN; END; $x$",
    "COPY t FROM STDIN",
    "ALTER TABLE t DROP COLUMN é, ADD b int DEFAULT setval('s', 1)",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_text_is_analysed_and_redacted(text in "\\PC{0,200}") {
        total(&text);
    }

    #[test]
    fn every_jumble_of_sql_is_analysed_and_redacted(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40), spaced in any::<bool>()) {
        total(&pieces.join(if spaced { " " } else { "" }));
    }

    #[test]
    fn statements_mean_the_same_alone_and_together(texts in prop::collection::vec(prop::sample::select(STATEMENTS), 1..8)) {
        let together = analyze(&texts.join("\n;\n"));
        let alone: Vec<_> = texts.iter().map(|text| analyze(text).statements.remove(0)).collect();
        prop_assert_eq!(together.statements.len(), alone.len());
        let text = texts.join("\n;\n");
        for (mut together, mut alone) in together.statements.into_iter().zip(alone) {
            prop_assert!(text.get(together.span.clone()).is_some());
            prop_assert!(analyze(&text[together.span.clone()]).statements.len() == 1);
            together.span = 0..0;
            alone.span = 0..0;
            prop_assert_eq!(together, alone);
        }
    }

    #[test]
    fn a_literal_never_survives(secret in "[a-z]{12}", digits in "[1-9][0-9]{11}", shape in 0usize..14) {
        let text = match shape {
            0 => format!("SELECT * FROM t WHERE a = '{secret}' AND b = {digits}"),
            1 => format!("ALTER ROLE me PASSWORD '{secret}{digits}'"),
            2 => format!("DO $x$ BEGIN PERFORM '{secret}', {digits}; END $x$"),
            3 => format!("SELECT 1 /* {secret} {digits} */ -- {secret}"),
            4 => format!("SELECT E'\\'{secret}\\'' , E'a'\n'\\'{secret} {digits}'"),
            5 => format!("SELEC '{secret}' {digits}"),
            6 => format!("COPY t TO PROGRAM '{secret} {digits}'"),
            7 => format!("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT {digits}'; COMMENT ON TABLE t IS '{secret}'"),
            8 => format!("SET x.y = '{secret}'; NOTIFY a, '{secret}{digits}'"),
            9 => format!("SELECT U&'{secret}', B'1', X'{digits}', N'{secret}', -{digits}, .{digits}, {digits}e5"),
            10 => format!("CREATE USER MAPPING FOR u SERVER s OPTIONS (password '{secret}')"),
            11 => format!("SELECT 'a' '{secret} {digits}"),
            12 => format!("PREPARE q AS SELECT '{secret}'; EXECUTE q({digits}, '{secret}')"),
            _ => format!("SELECT 'x\\', '{secret}', $t${digits}$t$"),
        };
        let redacted = redact(&text);
        prop_assert!(!redacted.contains(&secret), "{redacted}");
        prop_assert!(!redacted.contains(&digits), "{redacted}");
    }
}

fn total(text: &str) {
    for statement in analyze(text).statements {
        assert!(text.get(statement.span).is_some());
        if statement.class == Class::Unreadable {
            assert!(matches!(statement.effects.as_slice(), [Effect::Unknown { .. }]));
        }
    }
    let _ = redact(text);
}

#[test]
fn what_is_too_long_or_cannot_be_sent_is_unreadable() {
    for text in ["SELECT 1\0; DROP TABLE x".to_owned(), format!("SELECT '{}'", "x".repeat(MAX_TEXT_BYTES))] {
        let analysis = analyze(&text);
        assert_eq!(analysis.statements.len(), 1);
        assert_eq!(analysis.statements[0].class, Class::Unreadable);
        assert!(matches!(analysis.statements[0].effects[0], Effect::Unknown { .. }));
        assert!(redact(&text).len() < 100);
    }
}

/// Texts made to exhaust a stack, a comparison or a patience.
#[test]
fn depth_and_breadth_are_survived() {
    let fill = |head: &str, piece: &str, tail: &str, bytes: usize| {
        let pieces = bytes.saturating_sub(head.len() + tail.len()) / piece.len();
        format!("{head}{}{tail}", piece.repeat(pieces))
    };
    let shapes: &[(&str, &str, &str)] = &[
        ("SELECT 1", " + 1", ""),
        ("SELECT ", "(", ""),
        ("SELECT ", "- ", "1"),
        ("SELECT ", "NOT ", "true"),
        ("SELECT 1", " UNION SELECT 1", ""),
        ("SELECT 1", " || f(1)", ""),
        ("SELECT a", "[1]", ""),
        ("SELECT a", "::int", ""),
        ("SELECT a", ".b", ""),
        ("SELECT 1 FROM t", " JOIN t USING (a)", ""),
        ("SELECT 1 WHERE a", " AND a OR b", ""),
        ("DELETE FROM t WHERE a", " OR (a AND b)", ""),
        ("SELECT ", "CASE WHEN a THEN ", ""),
        ("SELECT ", "(SELECT ", ""),
        ("SELECT a", " COLLATE \"C\"", ""),
        ("", "SELECT 1;", ""),
        ("SELECT 1 IN (1", ", 1", ")"),
        ("", "EXPLAIN ", "SELECT 1"),
        ("SELECT 'a'", "\n'a'", ""),
        ("", "/*", ""),
        ("", "$a$", ""),
        ("", "/**/", "SELECT 1"),
        ("SELECT 1 ", "+", " 1"),
        ("SELECT 1 ", "*/", " 1"),
        ("SELECT 1 ", "+ -", " 1"),
    ];
    for (head, piece, tail) in shapes {
        for bytes in [1 << 10, 2 << 10, 60 << 10, 65 << 10, MAX_TEXT_BYTES - 64] {
            let text = fill(head, piece, tail, bytes);
            let began = Instant::now();
            total(&text);
            assert!(began.elapsed() < Duration::from_secs(30), "{head}{piece} of {bytes} bytes took {:?}", began.elapsed());
        }
    }
    let many = |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(", ");
    total(&format!("SELECT * FROM {}", many(50_000, &|n| format!("t{n}"))));
    total(&format!("WITH {} SELECT 1", many(20_000, &|n| format!("c{n} AS (SELECT * FROM c{})", n.saturating_sub(1)))));
    let relations = analyze(&format!("SELECT * FROM {}", many(50_000, &|n| format!("t{n}"))));
    assert!(relations.statements[0].effects.iter().any(|effect| matches!(effect, Effect::Unknown { .. })));
}

#[test]
fn names_cut_in_the_middle_of_a_character_do_no_harm() {
    total(&format!("SELECT * FROM \"{}\"", "é".repeat(40)));
    total(&format!("SELECT * FROM a{}", "é".repeat(40)));
    total("SELECT E'\\xff', E'\\xc3(' FROM U&\"\\00e9\"");
}
