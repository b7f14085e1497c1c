//! Manifests: one signed, write-once object for each recovery point. Nothing in the vault about copies is ever changed.
//!
//! The manifest is small: what and when, and where its contents' list is. The list (`Contents`) has the objects in order and
//! what the database looked like, to compare a restored one with. Both are found by the ledger, or by looking through the vault
//! when there is no ledger any more.

use bytes::Bytes;
use reprieve_ledger::{Signer, Verifier};
use reprieve_operation::{Digest, SystemName, Timestamp};
use reprieve_vault::{ObjectRef, Stored, Vault};
use serde::{Deserialize, Serialize};

use crate::{DrillKey, EngineKind, RecoveryError, look::look_through, note::sign, note::statement, pgbackrest::Elsewhere, survey::Survey};

/// What a manifest's object begins with.
const MAGIC: &str = "reprieve recovery point 1\n";
/// The largest manifest and the largest list that are read.
const MANIFEST_BYTES: u64 = 1 << 20;
const CONTENTS_BYTES: u64 = 1 << 30;

/// One recovery point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Its name: the system, the time, and something random.
    pub point: String,
    /// What it is of.
    pub system: SystemName,
    /// By which engine.
    pub engine: EngineKind,
    /// When copying began and ended.
    pub began: Timestamp,
    /// See `began`.
    pub ended: Timestamp,
    /// The server's version, in full, and its major number.
    pub version: String,
    /// See `version`.
    pub major: u32,
    /// Which cluster: another one behind the same name has another number.
    pub cluster: String,
    /// Where it was, for people.
    pub address: String,
    /// The role that owns the cluster.
    pub superuser: String,
    /// The database that was named, for checks.
    pub database: String,
    /// The write-ahead log that makes it consistent: timeline, from, to. None for a logical copy.
    pub wal: Option<(u32, Lsn, Lsn)>,
    /// The size of the log's segments.
    pub segment_bytes: u64,
    /// Where its files and its log lie, if that is not the vault: then the contents are the list of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Elsewhere>,
    /// The list of its contents.
    pub contents: ObjectRef,
    /// The size of everything, and the size in the vault.
    pub plain_bytes: u64,
    /// See `plain_bytes`.
    pub stored_bytes: u64,
    /// How much of that was not in the vault before.
    #[serde(default)]
    pub added_bytes: u64,
    /// To whom it is sealed.
    pub recipients: Vec<String>,
}

impl Contents {
    /// All objects that it takes to bring the copy back.
    pub(crate) fn all(&self) -> impl Iterator<Item = &ObjectRef> {
        self.objects.iter().chain(&self.keys)
    }
}

impl Manifest {
    /// Whether this identity is one of those that the copy is sealed to; keys are changed, and older copies keep theirs.
    pub(crate) fn may_be_opened_by(&self, identity: &DrillKey) -> Result<(), RecoveryError> {
        let own = identity.recipient();
        if self.recipients.contains(&own) {
            return Ok(());
        }
        let (point, theirs) = (&self.point, self.recipients.join("`, `"));
        Err(RecoveryError::Key(format!(
            "{point} is sealed to `{theirs}`, and this is the identity of `{own}`: name the other one in `recovery.identity`"
        )))
    }
}

/// A place in the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(pub u64);

impl std::str::FromStr for Lsn {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('/').and_then(|(high, low)| Some((u32::from_str_radix(high, 16).ok()?, u32::from_str_radix(low, 16).ok()?)));
        let (high, low) = parts.ok_or_else(|| format!("`{text}` is no place in a write-ahead log"))?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

impl TryFrom<String> for Lsn {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

impl std::fmt::Display for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// What a recovery point is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// The sealed stream, in order.
    pub objects: Vec<ObjectRef>,
    /// The sealed keys of its chunks; none where the stream was sealed as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<ObjectRef>,
    /// What the databases looked like before and after copying.
    pub before: Survey,
    /// See `before`.
    pub after: Survey,
}

/// Puts a recovery point's list and its manifest into the vault, the manifest last: without it nothing of it counts.
pub(crate) async fn close(
    vault: &Vault,
    contents: &Contents,
    manifest: impl FnOnce(ObjectRef) -> Manifest,
    signer: &Signer,
) -> Result<(Manifest, ObjectRef), RecoveryError> {
    let json = |error: serde_json::Error| RecoveryError::Damaged(error.to_string());
    let list = vault.put_bytes(serde_json::to_vec(contents).map_err(json)?.into()).await?;
    let manifest = manifest(list);
    let note = sign(&manifest, signer)?;
    let object = vault.put_bytes(Bytes::from(format!("{MAGIC}{note}"))).await?;
    Ok((manifest, object))
}

/// Reads a manifest and checks who signed it.
pub async fn read_manifest(vault: &Vault, manifest: Digest, key: &Verifier) -> Result<Manifest, RecoveryError> {
    let object = vault.describe(manifest).await?;
    let bytes = vault.get_bytes(&object, MANIFEST_BYTES).await?;
    parse(&bytes, key)?.ok_or_else(|| RecoveryError::Damaged(format!("the object {manifest} is not a manifest")))
}

/// The same, and reads its list.
pub async fn read_point(vault: &Vault, manifest: Digest, key: &Verifier) -> Result<(Manifest, Contents), RecoveryError> {
    let manifest = read_manifest(vault, manifest, key).await?;
    let list = vault.get_bytes(&manifest.contents, CONTENTS_BYTES).await?;
    let contents: Contents =
        serde_json::from_slice(&list).map_err(|error| RecoveryError::Damaged(format!("a list of contents is not one: {error}")))?;
    if contents.objects.is_empty() {
        return Err(RecoveryError::Damaged(format!("the recovery point `{}` has no contents", manifest.point)));
    }
    Ok((manifest, contents))
}

fn parse(bytes: &[u8], key: &Verifier) -> Result<Option<Manifest>, RecoveryError> {
    let Some(note) = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_prefix(MAGIC)) else { return Ok(None) };
    statement(note, key).map(Some)
}

/// Every recovery point in the vault that this key signed, oldest first: for when the ledger is gone.
pub async fn find_points(vault: &Vault, key: &Verifier) -> Result<Vec<(Digest, Manifest)>, RecoveryError> {
    let mut found = Vec::new();
    let small = |stored: &Stored| stored.stored_bytes <= MANIFEST_BYTES;
    look_through(vault, small, MANIFEST_BYTES, |object, bytes| match parse(bytes, key) {
        Ok(Some(manifest)) => found.push((object.digest, manifest)),
        Ok(None) => {}
        Err(error) => tracing::warn!(object = %object.digest, %error, "a manifest in the vault is not ours"),
    })
    .await?;
    found.sort_by_key(|(_, manifest)| manifest.began);
    Ok(found)
}

/// The first segment of the log that a copy does not have itself: it has the whole one in which it ends.
pub(crate) fn first_segment(manifest: &Manifest) -> Option<u64> {
    let (_, _, end) = manifest.wal?;
    Some(end.0.saturating_sub(1).checked_div(manifest.segment_bytes)? + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_log_are_read() {
        for (text, place) in [
            ("0/2000028", Some(0x200_0028)),
            ("A/FF", Some((10 << 32) + 255)),
            ("", None),
            ("0", None),
            ("0/", None),
            ("1/2/3", None),
            ("G/0", None),
        ] {
            assert_eq!(text.parse::<Lsn>().ok().map(|lsn| lsn.0), place, "{text}");
        }
        assert_eq!(String::from(Lsn(0x1_0200_0028)), "1/2000028");
    }
}
