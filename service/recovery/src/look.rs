//! Looking through a whole vault, for when nothing tells what is in it.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use reprieve_vault::{Kind, ObjectRef, Stored, Vault, VaultError};

use crate::RecoveryError;

/// How many objects are looked at at once: a bucket answers each request after a while only.
const AT_ONCE: usize = 16;

/// Shows every stream of the vault that may be `wanted`: all of one that has at most `whole` bytes, the beginning of another.
/// What is hidden is shown, too; what was removed meanwhile or is damaged is not.
pub(crate) async fn look_through(
    vault: &Vault,
    wanted: impl Fn(&Stored) -> bool,
    whole: u64,
    mut show: impl FnMut(ObjectRef, &[u8]),
) -> Result<(), RecoveryError> {
    let read = async |stored: Stored| -> Result<Option<(ObjectRef, Bytes)>, VaultError> {
        let object = vault.describe(stored.digest).await?;
        Ok(match object.kind {
            Kind::Stream if object.plain_bytes <= whole => Some((object, vault.get_bytes(&object, whole).await?)),
            Kind::Stream => vault.get(&object).await?.next().await.transpose()?.map(|head| (object, head)),
            // Rows, or a chunk of a copy.
            Kind::Pack | Kind::Bytes => None,
        })
    };
    let listed = stream::unfold(vault.list_hidden().await?, |mut listing| async { Some((listing.next().await?, listing)) });
    let reads = listed
        .filter(|stored| std::future::ready(stored.as_ref().map_or(true, &wanted)))
        .map(async |stored| read(stored?).await)
        .buffer_unordered(AT_ONCE);
    let mut reads = std::pin::pin!(reads);
    while let Some(read) = reads.next().await {
        match read {
            Ok(Some((object, bytes))) => show(object, &bytes),
            Ok(None) | Err(VaultError::Missing(_) | VaultError::Corrupt { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
