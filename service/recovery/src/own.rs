//! The gateway's own state: copies of its ledger, keys and settings, and its ledger's signed heads, in the vault.
//!
//! A copy is sealed as those of databases are. A head, put there every minute, is what a gateway that came back is held against: one
//! that knows less than its vault has lost events, and must not go on as if they had never been. What is done about that is not
//! decided here.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use bytes::Bytes;
use reprieve_ledger::{Checkpoint, Signer, Verifier};
use reprieve_operation::{Digest, Timestamp};
use reprieve_vault::{ObjectRef, Stored, Vault};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::{
    DrillKey, Recipients, RecoveryError,
    look::look_through,
    note::{sign, statement},
    restore::feed,
    seal::{seal, unseal},
    tools::{collect, name, tail},
};

/// What a head's object begins with.
const HEAD: &str = "reprieve ledger head 1\n";
/// What the object of a copy's manifest begins with.
const COPY: &str = "reprieve gateway copy 1\n";
/// The largest object that is looked at for either.
const SMALL_BYTES: u64 = 256 << 10;

/// A copy of the gateway's own state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnCopy {
    /// When it was made.
    pub at: Timestamp,
    /// How many events its ledger has.
    pub size: u64,
    /// The sealed archive, in order.
    pub objects: Vec<ObjectRef>,
    /// Its size.
    pub plain_bytes: u64,
}

/// Seals a folder and puts it into the vault. Blocks.
pub fn copy_own(
    vault: &Vault,
    handle: &Handle,
    recipients: &Recipients,
    signer: &Signer,
    folder: &Path,
    size: u64,
    at: Timestamp,
) -> Result<(OwnCopy, Digest), RecoveryError> {
    let mut command = tar();
    command.args(["--create", "--file=-", "--directory"]).arg(folder).arg(".");
    let program = name(&command);
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|source| RecoveryError::Spawn { program: program.clone(), source })?;
    let said = collect(child.stderr.take());
    let output = child.stdout.take().ok_or_else(|| RecoveryError::Damaged("a program has no output".to_owned()))?;
    let sealed = seal(vault, handle, recipients, output);
    let status = child.wait().map_err(|source| RecoveryError::Spawn { program: program.clone(), source })?;
    let said = said.join().unwrap_or_default();
    let sealed = sealed?;
    if !status.success() {
        return Err(RecoveryError::Tool { program, said: tail(&said) });
    }
    let copy = OwnCopy { at, size, objects: sealed.objects, plain_bytes: sealed.plain_bytes };
    let note = sign(&copy, signer)?;
    let object = handle.block_on(vault.put_bytes(Bytes::from(format!("{COPY}{note}"))))?;
    Ok((copy, object.digest))
}

/// The newest copy in the vault that this key signed.
pub async fn newest_own(vault: &Vault, key: &Verifier) -> Result<Option<OwnCopy>, RecoveryError> {
    let mut newest: Option<OwnCopy> = None;
    let small = |stored: &Stored| stored.stored_bytes <= SMALL_BYTES;
    look_through(vault, small, SMALL_BYTES, |_, bytes| {
        let copy = note_of(bytes, COPY).and_then(|note| statement::<OwnCopy>(note, key).ok());
        if let Some(copy) = copy.filter(|copy| newest.as_ref().is_none_or(|newest| (copy.size, copy.at) > (newest.size, newest.at))) {
            newest = Some(copy);
        }
    })
    .await?;
    Ok(newest)
}

/// Brings a copy into an empty folder. Blocks.
pub fn restore_own(vault: &Vault, handle: &Handle, copy: &OwnCopy, identity: &DrillKey, to: &Path) -> Result<(), RecoveryError> {
    unseal(vault, handle, identity, &copy.objects, |stream| {
        let mut command = tar();
        command.args(["--extract", "--no-same-owner", "--file=-", "--directory"]).arg(to);
        feed(command, stream)
    })
}

fn tar() -> Command {
    let mut command = Command::new("tar");
    command.env("LC_ALL", "C");
    command
}

/// Puts a head of the ledger into the vault.
pub async fn anchor(vault: &Vault, checkpoint: &str) -> Result<Digest, RecoveryError> {
    Ok(vault.put_bytes(Bytes::from(format!("{HEAD}{checkpoint}"))).await?.digest)
}

/// The heads that were put into the vault after a time and that this key signed, the smallest first.
pub async fn find_anchors(vault: &Vault, key: &Verifier, since: Timestamp) -> Result<Vec<(Checkpoint, String, Digest)>, RecoveryError> {
    let mut found = Vec::new();
    let small = |stored: &Stored| stored.stored_bytes <= SMALL_BYTES && stored.stored_at >= since;
    look_through(vault, small, SMALL_BYTES, |object, bytes| {
        let Some(note) = note_of(bytes, HEAD) else { return };
        match Checkpoint::open(note, key) {
            Ok(checkpoint) => found.push((checkpoint, note.to_owned(), object.digest)),
            Err(error) => tracing::warn!(object = %object.digest, %error, "a head in the vault is not of this ledger"),
        }
    })
    .await?;
    found.sort_by_key(|(checkpoint, ..)| checkpoint.size);
    Ok(found)
}

/// What comes after an object's beginning.
fn note_of<'b>(bytes: &'b [u8], magic: &str) -> Option<&'b str> {
    std::str::from_utf8(bytes).ok()?.strip_prefix(magic)
}
