//! The ledger's mathematics: an append-only Merkle tree (RFC 6962), its proofs, and signed heads in the C2SP formats.
//!
//! Pure: no file, socket or clock. `service/store` keeps what comes out of here and `service/audit` drives it. Start in
//! `tree.rs` for the hashes, `frontier.rs` for appending, `proof.rs` for proofs, `note.rs` and `checkpoint.rs` for signatures.

mod checkpoint;
mod frontier;
mod note;
mod proof;
mod tile;
mod tree;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use frontier::{Frontier, FrontierError};
pub use note::{KeyError, NoteError, SignedNote, Signer, Verifier};
pub use proof::{EventProof, ProofError, consistency_proof, inclusion_proof, verify_consistency, verify_inclusion};
pub use tile::{ENTRY_BYTES_MAX, EntryTooLong, TILE_WIDTH, Tile, entry_bundle, entry_bundle_path};
pub use tree::{Hash, Nodes, leaf_hash, node_hash, root_of, subtree_root};
