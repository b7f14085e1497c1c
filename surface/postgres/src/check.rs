//! What a server and a login role allow, and what Reprieve can promise there.

use serde::Serialize;

use crate::{
    bounds::UNBOUNDED,
    connect::{ConnectError, connect},
    duplex::{Duplex, Stream},
    guard_function::GUARD_FUNCTION,
    target::Target,
    wire::{Captured, Wire},
};

/// How a finding bears on the promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Good,
    /// Works, with less than could be.
    Note,
    /// Effects of this role can't be bounded: agents must not use it.
    Unsafe,
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it bears on the promise.
    pub level: Level,
    /// What was looked at.
    pub subject: String,
    /// What was found, and what follows.
    pub text: String,
}

/// Questions with one boolean each: true is worth knowing.
const NOTES: [(&str, &str, &str); 4] = [
    ("role", "bypasses row security", "(SELECT r.rolbypassrls FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)"),
    (
        "tables",
        "the role owns tables: it can alter and drop them, which Reprieve holds",
        "EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384 AND pg_has_role(current_user, c.relowner, 'USAGE'))",
    ),
    (
        "two-phase commit",
        "`max_prepared_transactions` is not 0: PREPARE TRANSACTION is refused by its text only",
        "current_setting('max_prepared_transactions')::int > 0",
    ),
    (
        "triggers",
        "deferrable triggers run inside COMMIT: they are forced before the measurement, which costs a round trip",
        "EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgdeferrable AND NOT t.tgisinternal)",
    ),
];

/// Looks at the server and the role behind a connection URL.
pub async fn check(target: &Target) -> Result<Vec<Finding>, ConnectError> {
    let parameters = vec![("application_name".to_owned(), "reprieve: check".to_owned())];
    let connected = connect(target, &parameters, crate::nonce()).await?;
    let encrypted = matches!(connected.stream.stream(), Stream::TlsClient(_));
    let mut wire = Wire::new(Duplex::new(Stream::Nobody), connected.stream, reprieve_pgwire::Limits::default());
    let mut findings = Vec::new();
    let mut add = |level, subject: &str, text: String| findings.push(Finding { level, subject: subject.to_owned(), text });
    let version = one(&mut wire, "current_setting('server_version_num')").await?;
    match version.parse::<u32>() {
        Ok(version) if version >= 150_000 => {
            add(Level::Good, "server version", format!("PostgreSQL {}: transactions are measured exactly", version / 10_000))
        }
        _ => add(Level::Unsafe, "server version", format!("{version}: PostgreSQL 15 or later is needed to measure transactions")),
    }
    add(
        if encrypted { Level::Good } else { Level::Note },
        "connection",
        if encrypted { "TLS".to_owned() } else { "not encrypted: use it on one machine only".to_owned() },
    );
    for (level, questions) in [(Level::Unsafe, UNBOUNDED.as_slice()), (Level::Note, NOTES.as_slice())] {
        for (subject, text, question) in questions {
            match one(&mut wire, question).await?.as_str() {
                "f" => {}
                "t" => add(level, subject, (*text).to_owned()),
                _ => add(Level::Unsafe, subject, format!("could not find out whether this holds: {text}")),
            }
        }
    }
    let guard = wire.ask(GUARD_FUNCTION).await.map_err(|gone| ConnectError::Protocol(gone.to_string()))?;
    add(
        if guard.rows.is_empty() { Level::Note } else { Level::Good },
        "guard",
        if guard.rows.is_empty() {
            "not installed: measuring takes a statement of some 0.2 ms each time; `protect --apply` makes that a tenth"
        } else {
            "a guard is installed; the gateway calls it as long as it is its own and out of this role's reach"
        }
        .to_owned(),
    );
    let journal = one(&mut wire, "pg_catalog.to_regclass('reprieve.journal') IS NOT NULL").await? == "t";
    add(
        if journal { Level::Good } else { Level::Note },
        "undo",
        if journal {
            "a journal of row changes is installed; what it covers can be taken back"
        } else {
            "no journal: nothing can be taken back, so every change is held; `protect --apply` installs one"
        }
        .to_owned(),
    );
    let wal = one(&mut wire, "current_setting('wal_level')").await?;
    add(Level::Note, "wal_level", format!("{wal}: the journal is written by triggers, which work at every level"));
    Ok(findings)
}

async fn one(wire: &mut Wire, expression: &str) -> Result<String, ConnectError> {
    let Captured { rows, .. } =
        wire.ask(&format!("SELECT ({expression})::text")).await.map_err(|gone| ConnectError::Protocol(gone.to_string()))?;
    let value = rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten();
    Ok(match value.as_deref() {
        Some("true") => "t".to_owned(),
        Some("false") => "f".to_owned(),
        Some(other) => other.to_owned(),
        None => "unknown".to_owned(),
    })
}
