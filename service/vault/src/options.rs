//! What the vault is opened with.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use zeroize::Zeroizing;

use crate::{VaultError, VaultKey};

/// What the vault is opened with.
#[derive(Debug, Clone)]
pub struct VaultOptions {
    /// Where the objects lie.
    pub store: Location,
    /// What opens them.
    pub key: VaultKey,
    /// The most that the objects may take in the storage.
    pub max_bytes: Option<u64>,
    /// For S3: how to get there.
    pub s3: S3Options,
}

impl VaultOptions {
    /// A vault at `store` (`file:PATH` or `s3://BUCKET/PREFIX`) without a bound; S3 credentials come from the environment.
    pub fn new(store: &str, key: VaultKey) -> Result<Self, VaultError> {
        Ok(Self { store: store.parse()?, key, max_bytes: None, s3: S3Options::default() })
    }
}

/// Where a vault's objects lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory.
    File(PathBuf),
    /// A bucket of S3 or what speaks like it.
    S3 {
        /// The bucket.
        bucket: String,
        /// What all names start with; may be empty.
        prefix: String,
    },
    /// This process's memory, for tests and throw-away gateways.
    Memory,
}

impl FromStr for Location {
    type Err = VaultError;

    fn from_str(text: &str) -> Result<Self, VaultError> {
        let wrong = || VaultError::Location(text.to_owned());
        if let Some(path) = text.strip_prefix("file:") {
            // `file:///var/vault` is what people write who think of URLs.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::File(path.into())) };
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
            let prefix = prefix.trim_end_matches('/');
            let steps = prefix.is_empty() || prefix.split('/').all(|step| !matches!(step, "" | "." | ".."));
            return if bucket.is_empty() || !plain(bucket) || !plain(prefix) || !steps {
                Err(wrong())
            } else {
                Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
            };
        }
        if text == "memory:" { Ok(Self::Memory) } else { Err(wrong()) }
    }
}

/// How to get to an S3 store. What is not set is taken from the environment (`AWS_ACCESS_KEY_ID`, `AWS_REGION`,
/// `AWS_ENDPOINT_URL`, …) or from the machine's role.
#[derive(Clone)]
pub struct S3Options {
    /// The server, when it is not Amazon's.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The credential's name.
    pub access_key_id: Option<String>,
    /// The credential.
    pub secret_access_key: Option<Zeroizing<String>>,
    /// How long one call keeps trying before the vault counts as away.
    pub patience: Duration,
}

impl Default for S3Options {
    fn default() -> Self {
        Self { endpoint: None, region: None, access_key_id: None, secret_access_key: None, patience: Duration::from_secs(20) }
    }
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options").field("endpoint", &self.endpoint).field("region", &self.region).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_named() {
        let s3 = |bucket: &str, prefix: &str| Some(Location::S3 { bucket: bucket.into(), prefix: prefix.into() });
        for (text, expected) in [
            ("file:vault", Some(Location::File("vault".into()))),
            ("file:///var/vault", Some(Location::File("/var/vault".into()))),
            ("s3://bucket", s3("bucket", "")),
            ("s3://bucket/a/b/", s3("bucket", "a/b")),
            ("memory:", Some(Location::Memory)),
            ("file:", None),
            ("s3://", None),
            ("s3:///prefix", None),
            ("s3://bucket/../other", None),
            ("s3://key:secret@bucket", None),
            ("vault", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Location>().ok(), expected, "{text}");
        }
    }
}
