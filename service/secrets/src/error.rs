//! Why a secret could not be had. No message carries any part of a secret.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why a secret could not be had, sealed or kept.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// Not a name for a secret.
    #[error("that is not a name for a secret: use 1 to 63 lower-case letters, digits, `-`, `_` or `.`, starting with a letter or digit")]
    Name,
    /// Nothing is kept under the name.
    #[error("there is no secret `{0}`")]
    Missing(String),
    /// More than a secret may hold.
    #[error("a secret holds at most {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The sealed bytes were made for another key, or changed.
    #[error("the sealed value does not open: it was sealed for another key, or changed since")]
    Sealed,
    /// The sealed bytes belong under another name.
    #[error("the file of secret `{0}` holds another secret: it was moved or replaced")]
    Swapped(String),
    /// Sealing failed.
    #[error("cannot seal")]
    Seal(#[source] io::Error),
    /// The text is not a master key.
    #[error("that is not a master key: expected one line starting with `AGE-SECRET-KEY-1`")]
    Key,
    /// Wrong passphrase, or not a file sealed with one.
    #[error("the passphrase is wrong, or the file was not sealed with one")]
    Passphrase,
    /// A work factor outside the bounds.
    #[error("the work factor has to be between {least} and {most}")]
    WorkFactor {
        /// The least.
        least: u8,
        /// The most.
        most: u8,
    },
    /// The secret is not text.
    #[error("`{0}` is not UTF-8 text without control characters")]
    NotText(String),
    /// Others than its owner may look at the file.
    #[error("`{}` may be read by others (mode {mode:03o}): run `chmod {wanted:o}` on it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// A mode that would do.
        wanted: u32,
    },
    /// Not a regular file.
    #[error("`{}` is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The environment has no such variable.
    #[error("the environment has no variable `{0}`")]
    NoVariable(String),
    /// Not the name of an environment variable.
    #[error("`env:` wants the name of an environment variable: letters, digits and `_`")]
    Variable,
    /// `secret:` without a store.
    #[error("`secret:{0}` needs the secrets store, and there is no master key to open it with")]
    NoStore(String),
    /// A credential was written into the settings.
    #[error(
        "a connection URL with a password does not belong into the settings: set an environment variable and write `env:NAME`, \
         put it into a file of mode 600 and write `file:PATH`, or keep it in the secrets store and write `secret:NAME`"
    )]
    Literal,
    /// Not a reference.
    #[error("that is not a reference to a secret: write `env:NAME`, `secret:NAME` or `file:PATH`")]
    Reference,
    /// A file could not be read or written.
    #[error("cannot {verb} `{}`", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// On which file.
        path: PathBuf,
        /// What came of it.
        #[source]
        source: io::Error,
    },
}

impl SecretsError {
    /// Puts the path and the verb to an I/O error.
    pub(crate) fn file(verb: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { verb, path, source }
    }
}
