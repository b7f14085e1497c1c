//! The secrets store: one age file a secret, in a directory that only the gateway may enter.

use std::{
    fmt, fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{MasterKey, Secret, SecretsError, file, master_key::LARGEST_SECRET};

/// What each sealed value starts with; its name follows, so that one secret's file can't stand in for another's.
const HEADER: &[u8] = b"reprieve-secret/v1 ";
const SUFFIX: &str = ".age";

/// The name of a secret. It is also the name of a file, so it can't leave its directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(String);

impl SecretName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = SecretsError;
    fn from_str(text: &str) -> Result<Self, SecretsError> {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = text.len() <= 63
            && text.bytes().next().is_some_and(letter)
            && text.bytes().all(|byte| letter(byte) || matches!(byte, b'-' | b'_' | b'.'));
        if fits { Ok(Self(text.to_owned())) } else { Err(SecretsError::Name) }
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Sealed secrets by name.
#[derive(Debug, Clone)]
pub struct SecretsStore {
    directory: PathBuf,
    key: MasterKey,
}

impl SecretsStore {
    /// Opens the store in `directory`, which is made (mode 700) if it is not there.
    pub fn open(directory: &Path, key: MasterKey) -> Result<Self, SecretsError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(SecretsError::file("make directory", directory))?;
        Ok(Self { directory: directory.to_owned(), key })
    }

    /// Keeps a secret, in place of the one of the same name.
    pub fn set(&self, name: &SecretName, value: &Secret<String>) -> Result<(), SecretsError> {
        let value = value.reveal();
        if value.len() > LARGEST_SECRET - 128 {
            return Err(SecretsError::TooLarge { limit: LARGEST_SECRET - 128 });
        }
        let plain = Secret::new([HEADER, name.0.as_bytes(), b"\n", value.as_bytes()].concat());
        file::write(&self.path(name), &self.key.seal_bytes(plain.reveal())?, true)
    }

    /// Fetches a secret.
    pub fn get(&self, name: &SecretName) -> Result<Secret<String>, SecretsError> {
        let path = self.path(name);
        let sealed = match file::read(&path, 0o077, 0o600) {
            Err(SecretsError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(SecretsError::Missing(name.0.clone()));
            }
            other => other?,
        };
        let plain = self.key.unseal_bytes(&sealed)?;
        let own_header = [HEADER, name.0.as_bytes(), b"\n"].concat();
        let value = plain.reveal().strip_prefix(own_header.as_slice()).ok_or_else(|| SecretsError::Swapped(name.0.clone()))?;
        let text = std::str::from_utf8(value).map_err(|_| SecretsError::NotText(name.0.clone()))?;
        Ok(Secret::new(text.to_owned()))
    }

    /// The names of all secrets, in order.
    pub fn list(&self) -> Result<Vec<SecretName>, SecretsError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(SecretsError::file("list", &self.directory))? {
            let entry = entry.map_err(SecretsError::file("list", &self.directory))?;
            let name = entry.file_name();
            // What is not a secret's file, such as a half-written one after a crash, has no valid name.
            names.extend(name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|name| name.parse().ok()));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Forgets a secret.
    pub fn remove(&self, name: &SecretName) -> Result<(), SecretsError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(SecretsError::Missing(name.0.clone())),
            other => other.map_err(SecretsError::file("remove", &path)),
        }
    }

    /// Reads a reference: `env:NAME`, `secret:NAME` or `file:PATH`; see [`crate::resolve`].
    pub fn resolve(&self, reference: &str) -> Result<Secret<String>, SecretsError> {
        crate::resolve(reference, Some(self))
    }

    fn path(&self, name: &SecretName) -> PathBuf {
        self.directory.join(format!("{name}{SUFFIX}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn name(text: &str) -> SecretName {
        text.parse().expect("a name of the test")
    }

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    fn store() -> (tempfile::TempDir, SecretsStore) {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SecretsStore::open(&directory.path().join("secrets"), MasterKey::generate()).expect("opened");
        (directory, store)
    }

    #[test]
    fn set_get_list_remove() {
        let (_directory, store) = store();
        store.set(&name("pocket-prod"), &secret("postgres://a:b@c/d")).expect("set");
        store.set(&name("other"), &secret("one")).expect("set");
        store.set(&name("other"), &secret("two")).expect("replaced");
        assert_eq!(store.get(&name("pocket-prod")).expect("kept").reveal(), "postgres://a:b@c/d");
        assert_eq!(store.get(&name("other")).expect("kept").reveal(), "two");
        fs::write(store.directory.join(".new-abc"), "left by a crash").expect("written");
        assert_eq!(store.list().expect("listed"), [name("other"), name("pocket-prod")]);
        store.remove(&name("other")).expect("removed");
        assert!(matches!(store.get(&name("other")), Err(SecretsError::Missing(_))));
        assert!(matches!(store.remove(&name("other")), Err(SecretsError::Missing(_))));
    }

    #[test]
    fn files_are_private_and_say_nothing() {
        let (_directory, store) = store();
        store.set(&name("a"), &secret("correct horse battery")).expect("set");
        let path = store.path(&name("a"));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&store.directory).expect("there").permissions().mode() & 0o777, 0o700);
        let bytes = fs::read(&path).expect("read");
        assert!(!bytes.windows(7).any(|window| window == b"battery"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(matches!(store.get(&name("a")), Err(SecretsError::Exposed { .. })));
    }

    #[test]
    fn one_secret_cannot_stand_in_for_another() {
        let (_directory, store) = store();
        store.set(&name("staging"), &secret("weak")).expect("set");
        store.set(&name("production"), &secret("strong")).expect("set");
        fs::copy(store.path(&name("staging")), store.path(&name("production"))).expect("copied");
        assert!(matches!(store.get(&name("production")), Err(SecretsError::Swapped(_))));
        let other = SecretsStore { directory: store.directory.clone(), key: MasterKey::generate() };
        assert!(matches!(other.get(&name("staging")), Err(SecretsError::Sealed)));
    }

    #[test]
    fn names_stay_in_the_directory() {
        for bad in ["", ".", "..", "../a", "a/b", "-a", "A", "a b", "a\0", "é", &"a".repeat(64)] {
            assert!(bad.parse::<SecretName>().is_err(), "{bad}");
        }
    }
}
