//! What can go wrong with copies.

use std::io;

use thiserror::Error;

/// Why a copy could not be made, tried or brought back.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// PostgreSQL's programs are not here.
    #[error("no PostgreSQL {0} programs under `/usr/lib/postgresql`; install them, or name their folder in REPRIEVE_POSTGRES_BIN")]
    NoTools(String),
    /// We are root, and have nobody to run a server as.
    #[error("a server can't run as root, and there is no account `postgres` or `nobody` to run it as")]
    NoAccount,
    /// A program could not be started.
    #[error("cannot run `{program}`")]
    Spawn {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program said no.
    #[error("`{program}` failed: {said}")]
    Tool {
        /// Which.
        program: String,
        /// What it said, the end of it.
        said: String,
    },
    /// It took too long.
    #[error("{doing} took longer than {seconds} s")]
    TooLong {
        /// What.
        doing: String,
        /// How long it may take.
        seconds: u64,
    },
    /// A file or folder.
    #[error("cannot {doing}")]
    File {
        /// What was tried.
        doing: String,
        /// What came of it.
        source: io::Error,
    },
    /// The vault is away, full, or has lost or changed something.
    #[error(transparent)]
    Vault(#[from] reprieve_vault::VaultError),
    /// What is in the vault is not what was put there, or not complete.
    #[error("{0}")]
    Damaged(String),
    /// Keys that don't fit.
    #[error("{0}")]
    Key(String),
    /// It can't be done as asked.
    #[error("{0}")]
    Refused(String),
    /// The copy came back and is not what it should be.
    #[error("{0}")]
    Check(String),
    /// The log does not reach as far as was asked for.
    #[error(
        "the log that there is ends before that: {}; without `--at` and `--before` all that there is comes back",
        .last.as_ref().map_or("no transaction after the copy is in it".to_owned(), |last| format!("the last commit in it is of {last}"))
    )]
    LogEnds {
        /// The last commit in it.
        last: Option<String>,
    },
    /// The ledger is not there.
    #[error("the ledger: {0}")]
    Ledger(String),
}

impl RecoveryError {
    pub(crate) fn file(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::File { doing, source }
    }

    /// The error with its causes, in one line.
    #[must_use]
    pub fn in_words(&self) -> String {
        with_causes(self)
    }
}

/// An error with what caused it, in one line.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(error.source(), |cause| cause.source()).fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}
