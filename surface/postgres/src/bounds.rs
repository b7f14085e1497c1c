//! Whether what a login role does can be bounded at all: a superuser, or a role that reaches outside its transactions, can't be
//! measured, so agents are not let in with it (PostgreSQL 15, chapter 22, "Database Roles").

use std::sync::LazyLock;

use reprieve_operation::Refusal;

use crate::wire::{Gone, Wire};

/// Subject, what follows, and a question with one boolean: true, or no answer, is unsafe.
pub(crate) const UNBOUNDED: [(&str, &str, &str); 9] = [
    (
        "role",
        "is a superuser: nothing it does can be bounded; log in with an ordinary role",
        "(SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)",
    ),
    (
        "role",
        "may replicate, and so read and pin everything outside transactions",
        "(SELECT r.rolreplication FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)",
    ),
    (
        "role",
        "may create roles, and so give itself other rights",
        "(SELECT r.rolcreaterole FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)",
    ),
    (
        "role",
        "may run programs or read and write files on the server",
        "(SELECT COALESCE(bool_or(pg_has_role(current_user, r.oid, 'USAGE')), false) FROM pg_catalog.pg_roles r WHERE r.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'))",
    ),
    ("role", "may signal other sessions", "pg_has_role(current_user, 'pg_signal_backend', 'USAGE')"),
    (
        "settings",
        "the role may set `track_counts` or `session_replication_role`, which blinds the measurement",
        "(has_parameter_privilege('track_counts', 'SET') OR has_parameter_privilege('session_replication_role', 'SET'))",
    ),
    ("settings", "`track_counts` is off: nothing can be measured", "current_setting('track_counts') <> 'on'"),
    (
        "foreign servers",
        "the role can use a foreign server: writes there are outside the transaction's counters",
        "EXISTS (SELECT FROM pg_catalog.pg_foreign_server s WHERE has_server_privilege(s.oid, 'USAGE'))",
    ),
    (
        "extensions",
        "dblink or another extension that leaves the transaction is installed",
        "EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extname IN ('dblink', 'pg_cron', 'http', 'pg_net', 'plpython3u', 'plperlu', 'adminpack', 'file_fdw', 'postgres_fdw'))",
    ),
];

/// All questions in one statement.
static QUESTION: LazyLock<String> = LazyLock::new(|| {
    let columns: Vec<String> = UNBOUNDED.iter().map(|(_, _, question)| format!("({question})")).collect();
    format!("SELECT {}", columns.join(", "))
});

/// How far what the role of a system does is bounded, as of the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Why not; empty if it is bounded.
    because: Vec<&'static str>,
}

impl Bounds {
    /// Asks the server. The search path has to be `pg_catalog` alone.
    pub(crate) async fn ask(wire: &mut Wire) -> Result<Self, Gone> {
        let answer = wire.ask(&QUESTION).await?;
        let row = answer.rows.first().map(Vec::as_slice).unwrap_or_default();
        let is_bounded = |place: usize| row.get(place).and_then(|value| value.as_deref()) == Some("f");
        let because = UNBOUNDED.iter().enumerate().filter(|(place, _)| !is_bounded(*place)).map(|(_, (_, text, _))| *text).collect();
        Ok(Self { because })
    }

    /// Nothing, if the role may be used.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.because.is_empty() {
            return Ok(());
        }
        Err(Refusal::refused(
            "unbounded-role",
            format!("what this system's login role does can't be bounded: the role {}", self.because.join("; it ")),
            "ask an operator to give the system a role of its own without these rights (`reprieve protect SYSTEM --check` lists them)",
        ))
    }
}
