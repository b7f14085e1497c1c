//! Secrets: upstream credentials and the gateway's own, sealed at rest and fetched by name.
//!
//! [`MasterKey`] seals (`master_key.rs`), [`SecretsStore`] keeps (`store.rs`), [`resolve`] reads the references that settings
//! are made of (`reference.rs`), and `passphrase.rs` seals what a person carries. Nothing here knows what a secret is for.

mod error;
mod file;
mod master_key;
mod passphrase;
mod reference;
mod secret;
mod store;

pub use error::SecretsError;
pub use master_key::MasterKey;
pub use passphrase::{WorkFactor, open_with_passphrase, seal_with_passphrase};
pub use reference::resolve;
pub use secret::Secret;
pub use store::{SecretName, SecretsStore};
