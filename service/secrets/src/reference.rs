//! References: how settings name a secret instead of holding it.

use std::path::Path;

use crate::{Secret, SecretName, SecretsError, SecretsStore, file, master_key::LARGEST_SECRET};

/// Fetches what a reference names: `env:NAME`, `secret:NAME` or `file:PATH`.
///
/// A `postgres://` URL that holds no password is its own value. One that does is refused, with what to do instead: it
/// would be in the settings' backups, in version control and in front of every agent that reads the directory.
pub fn resolve(reference: &str, store: Option<&SecretsStore>) -> Result<Secret<String>, SecretsError> {
    resolve_with(reference, store, |name| std::env::var(name).ok())
}

fn resolve_with(
    reference: &str,
    store: Option<&SecretsStore>,
    variable: impl FnOnce(&str) -> Option<String>,
) -> Result<Secret<String>, SecretsError> {
    if let Some(name) = reference.strip_prefix("env:") {
        return from_environment(name, variable);
    }
    if let Some(name) = reference.strip_prefix("secret:") {
        let name: SecretName = name.parse()?;
        return store.ok_or_else(|| SecretsError::NoStore(name.to_string()))?.get(&name);
    }
    if let Some(path) = reference.strip_prefix("file:") {
        return from_file(Path::new(path));
    }
    match reference.strip_prefix("postgres://").or_else(|| reference.strip_prefix("postgresql://")) {
        Some(rest) if holds_no_password(rest) => Ok(Secret::new(reference.to_owned())),
        Some(_) => Err(SecretsError::Literal),
        None if reference.contains("://") && reference.contains('@') => Err(SecretsError::Literal),
        None => Err(SecretsError::Reference),
    }
}

fn from_environment(name: &str, variable: impl FnOnce(&str) -> Option<String>) -> Result<Secret<String>, SecretsError> {
    let fits = !name.is_empty() && name.len() <= 128 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !fits {
        return Err(SecretsError::Variable);
    }
    let value = variable(name).filter(|value| !value.is_empty()).ok_or_else(|| SecretsError::NoVariable(name.to_owned()))?;
    bounded(Secret::new(value))
}

/// A file's contents without the line break at its end. Others may not read it; its group may, as container secrets need.
fn from_file(path: &Path) -> Result<Secret<String>, SecretsError> {
    let bytes = file::read(path, 0o007, 0o600)?;
    let not_text = || SecretsError::NotText(path.display().to_string());
    let text = std::str::from_utf8(&bytes).map_err(|_| not_text())?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(not_text());
    }
    bounded(Secret::new(text.to_owned()))
}

fn bounded(value: Secret<String>) -> Result<Secret<String>, SecretsError> {
    if value.reveal().len() > LARGEST_SECRET { Err(SecretsError::TooLarge { limit: LARGEST_SECRET }) } else { Ok(value) }
}

/// Whether the part of a URL after `://` surely holds no password. When it can't tell, it says no.
fn holds_no_password(rest: &str) -> bool {
    // The last `@`, wherever it is: a password may itself hold `@`, `/` or `?`.
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    let query = rest.split_once('?').map_or("", |(_, query)| query).to_ascii_lowercase();
    !user.contains(':') && !query.contains("pass") && !query.contains('%')
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::MasterKey;

    fn check(reference: &str, expected: Result<&str, &str>) {
        let variable = |name: &str| match name {
            "PG_PASSWORD" => Some("from env".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let answer = resolve_with(reference, None, variable);
        match (&answer, expected) {
            (Ok(secret), Ok(expected)) => assert_eq!(secret.reveal(), expected),
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{reference}: {error}");
                assert!(!error.to_string().contains("hunter2"), "an error shows a secret: {error}");
            }
            _ => panic!("{reference}: {answer:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn references() {
        check("env:PG_PASSWORD", Ok("from env"));
        check("env:EMPTY", Err("no variable `EMPTY`"));
        check("env:MISSING", Err("no variable `MISSING`"));
        check("env:", Err("name of an environment variable"));
        check("env:A=B", Err("name of an environment variable"));
        check("secret:../etc", Err("not a name for a secret"));
        check("secret:pocket", Err("no master key"));
        check("hunter2", Err("write `env:NAME`"));
        check("", Err("write `env:NAME`"));
        check("ENV:PG_PASSWORD", Err("write `env:NAME`"));
    }

    #[test]
    fn a_password_in_the_settings_is_refused() {
        for literal in [
            "postgres://ana:hunter2@db/app",
            "postgresql://ana:hunter2@db/app",
            "postgres://ana:hunter2/@db/app",
            "postgres://ana:hunt?er2@db/app",
            "postgres://db/app?user=ana&password=hunter2",
            "postgres://db/app?PASSWORD=hunter2",
            "postgres://db/app?p%61ssword=hunter2",
            "postgres://db/app?sslpassword=hunter2",
            "mysql://ana:hunter2@db",
            "Postgres://ana:hunter2@db",
        ] {
            check(literal, Err("write `env:NAME`, put it into a file"));
        }
        for literal in ["postgres://db:5432/app", "postgres://ana@db:5432/app?sslmode=require"] {
            check(literal, Ok(literal));
        }
    }

    #[test]
    fn files_have_to_be_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("url");
        let reference = format!("file:{}", path.display());
        check(&reference, Err("cannot read"));
        for (contents, expected) in
            [("a value\n", Ok("a value")), ("a value\r\n", Ok("a value")), ("\n", Err("not UTF-8")), ("two\nlines\n", Err("not UTF-8"))]
        {
            fs::write(&path, contents).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
            check(&reference, expected);
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        check(&reference, Err("chmod 600"));
        check("file:/dev/null", Err("not a regular file"));
    }

    #[test]
    fn the_store_answers_for_its_secrets() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SecretsStore::open(directory.path(), MasterKey::generate()).expect("opened");
        store.set(&"pocket".parse().expect("a name"), &Secret::new("kept".to_owned())).expect("set");
        assert_eq!(store.resolve("secret:pocket").expect("kept").reveal(), "kept");
        assert!(matches!(store.resolve("secret:other"), Err(SecretsError::Missing(_))));
        assert!(store.resolve("env:PATH").is_ok());
    }
}
