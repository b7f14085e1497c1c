//! The vault, opened when it is first needed: a gateway starts while its vault is away, and an operator's command that needs no
//! vault works without one.

use reprieve_vault::{Vault, VaultError, VaultOptions};
use tokio::sync::OnceCell;

/// A vault that is opened when it is needed, and tried again where it could not be.
#[derive(Debug)]
pub struct VaultAccess {
    options: VaultOptions,
    opened: OnceCell<Vault>,
}

impl VaultAccess {
    /// The vault that these options describe. Nothing is opened yet.
    #[must_use]
    pub fn new(options: VaultOptions) -> Self {
        Self { options, opened: OnceCell::new() }
    }

    /// The vault.
    pub async fn vault(&self) -> Result<&Vault, VaultError> {
        self.opened
            .get_or_try_init(|| async {
                let options = self.options.clone();
                let opening = tokio::task::spawn_blocking(move || Vault::open(&options)).await;
                opening.map_err(|error| VaultError::Away { doing: "finish a task", source: error.into() })?
            })
            .await
    }

    /// The vault, if something could be put into it now.
    pub async fn healthy(&self) -> Result<&Vault, VaultError> {
        let vault = self.vault().await?;
        vault.health().await?;
        Ok(vault)
    }
}
