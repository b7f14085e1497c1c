//! Proofs from a stored ledger: that an event is in it, and that it only grew between two checkpoints.

use std::{cell::RefCell, collections::BTreeMap};

use reprieve_ledger::{
    Checkpoint, CheckpointError, EventProof, Frontier, Hash, Nodes, ProofError, Verifier, consistency_proof, inclusion_proof, leaf_hash,
    verify_consistency,
};
use reprieve_store::{BLOCK_LEAVES, Reader, StoreError};
use thiserror::Error;

use crate::rows::Rows;

/// An event and its proof, which anybody can check with the public key alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The event's bytes.
    pub body: Vec<u8>,
    /// Its proof; [`EventProof::to_text`] is the file to hand out.
    pub proof: EventProof,
}

/// Why nothing could be proven.
#[derive(Debug, Error)]
pub enum ProveError {
    /// The store can't be read.
    #[error("cannot read the ledger")]
    Store(#[from] StoreError),
    /// A checkpoint is not ours.
    #[error("a checkpoint is not acceptable")]
    Checkpoint(#[from] CheckpointError),
    /// There is nothing signed yet.
    #[error("the ledger has no checkpoint yet")]
    Empty,
    /// The proof can't be made, or does not hold: then the ledger was changed.
    #[error("there is no such proof")]
    Proof(#[from] ProofError),
}

/// Proves that event `index` is in the ledger, under its newest checkpoint. The proof was checked when it is returned.
pub fn prove_event(reader: &dyn Reader, key: &Verifier, index: u64) -> Result<Proven, ProveError> {
    let head = reader.head()?.ok_or(ProveError::Empty)?;
    let size = Checkpoint::open(&head.checkpoint, key)?.size;
    if index >= size {
        return Err(ProofError::Outside { what: "leaf", number: index, size }.into());
    }
    let row = reader.rows(index, 1)?.into_iter().next().filter(|row| row.index == index);
    let body = row.ok_or(StoreError::Damaged("an event is missing"))?.body;
    // What was kept of the tree is enough, unless somebody changed it: then the events themselves decide.
    if let Ok(hashes) = inclusion_proof(index, size, &|level, index| kept_node(reader, level, index).ok().flatten()) {
        let proof = EventProof { index, hashes, checkpoint: head.checkpoint.clone() };
        if proof.verify(&body, key).is_ok() {
            return Ok(Proven { body, proof });
        }
    }
    let hashes = with_nodes(reader, size, |nodes| inclusion_proof(index, size, nodes))?;
    let proof = EventProof { index, hashes, checkpoint: head.checkpoint };
    proof.verify(&body, key)?;
    Ok(Proven { body, proof })
}

/// Roots of blocks that are read at once.
const BLOCKS_AT_ONCE: usize = 4_096;

/// A node of the tree from what the store keeps: leaf hashes below a block, roots of blocks from there on. Nothing here is checked.
fn kept_node(reader: &dyn Reader, level: u32, index: u64) -> Result<Option<Hash>, StoreError> {
    let Some(leaves) = 1u64.checked_shl(level) else { return Ok(None) };
    let mut subtree = Frontier::new();
    if leaves < BLOCK_LEAVES {
        let Some(first) = index.checked_mul(leaves) else { return Ok(None) };
        let rows = reader.rows(first, usize::try_from(leaves).unwrap_or(usize::MAX))?;
        rows.iter().for_each(|row| subtree.append(row.leaf_hash));
        return Ok((subtree.size() == leaves).then(|| subtree.root()));
    }
    let blocks = leaves / BLOCK_LEAVES;
    let Some(first) = index.checked_mul(blocks) else { return Ok(None) };
    while subtree.size() < blocks {
        let missing = usize::try_from(blocks - subtree.size()).unwrap_or(usize::MAX);
        let roots = reader.block_roots(first.saturating_add(subtree.size()), missing.min(BLOCKS_AT_ONCE))?;
        if roots.is_empty() {
            return Ok(None);
        }
        roots.into_iter().for_each(|root| subtree.append(root));
    }
    Ok(Some(subtree.root()))
}

/// Proves that the ledger of the checkpoint `old` is the beginning of that of `new`. The proof was checked when it is returned.
pub fn prove_consistency(reader: &dyn Reader, key: &Verifier, old: &str, new: &str) -> Result<Vec<Hash>, ProveError> {
    let (old, new) = (Checkpoint::open(old, key)?, Checkpoint::open(new, key)?);
    // As above: what was kept is enough where the proof holds, which says nothing else than that both are heads of one ledger.
    if let Ok(hashes) = consistency_proof(old.size, new.size, &|level, index| kept_node(reader, level, index).ok().flatten())
        && verify_consistency(old.size, new.size, &old.root, &new.root, &hashes).is_ok()
    {
        return Ok(hashes);
    }
    let hashes = with_nodes(reader, new.size, |nodes| consistency_proof(old.size, new.size, nodes))?;
    verify_consistency(old.size, new.size, &old.root, &new.root, &hashes)?;
    Ok(hashes)
}

/// Makes a proof in one pass over the first `size` rows: a rehearsal tells which subtrees it needs, the pass hashes these.
fn with_nodes(reader: &dyn Reader, size: u64, prove: impl Fn(Nodes<'_>) -> Result<Vec<Hash>, ProofError>) -> Result<Vec<Hash>, ProveError> {
    let wanted = RefCell::new(BTreeMap::new());
    prove(&|level, index| {
        wanted.borrow_mut().insert((level, index), Frontier::new());
        Some(Hash::default())
    })?;
    let mut wanted = wanted.into_inner();
    for row in Rows::from(reader, 0) {
        let row = row?;
        if row.index >= size {
            break;
        }
        let hash = leaf_hash(&row.body);
        for ((level, index), subtree) in &mut wanted {
            if row.index.checked_shr(*level).unwrap_or(0) == *index {
                subtree.append(hash);
            }
        }
    }
    Ok(prove(&|level, index| {
        let subtree = wanted.get(&(level, index))?;
        (Some(subtree.size()) == 1u64.checked_shl(level)).then(|| subtree.root())
    })?)
}

#[cfg(test)]
mod tests {
    use reprieve_ledger::Signer;
    use reprieve_operation::Event;
    use reprieve_store::{MemoryStore, Store as _};

    use super::*;
    use crate::{
        log::{AuditLog, AuditOptions},
        verify::FaultKind,
    };

    fn ledger(events: usize) -> (MemoryStore, Verifier, Vec<String>) {
        let store = MemoryStore::new();
        let signer = Signer::from_seed("ledger.test", [5; 32]).expect("a key name");
        let key = signer.verifier();
        let log = AuditLog::open(Box::new(store.clone()), AuditOptions::new(signer), crate::log::tests::clock()).expect("an empty store");
        for number in 0..events {
            crate::log::tests::append(&log, Event::Alarm { what: number.to_string(), agent: None }).expect("durable");
        }
        log.close();
        let notes = store.checkpoints(0, usize::MAX).expect("readable").into_iter().map(|(_, note)| note).collect();
        (store, key, notes)
    }

    #[test]
    fn every_event_can_be_proven_to_a_stranger() {
        let (store, key, _) = ledger(13);
        let reader = store.reader().expect("a reader");
        for index in 0..13 {
            let proven = prove_event(reader.as_ref(), &key, index).expect("an event of the ledger");
            let read = EventProof::parse(&proven.proof.to_text()).expect("our own text");
            assert_eq!(read.verify(&proven.body, &key).map(|checkpoint| checkpoint.size), Ok(13), "{index}");
        }
        assert!(matches!(prove_event(reader.as_ref(), &key, 13), Err(ProveError::Proof(ProofError::Outside { .. }))));
    }

    /// In a ledger of many blocks each proof is the one that reading everything gives; it is made of little, and what is kept wrongly
    /// of the tree only costs the long way.
    #[test]
    fn proofs_are_made_of_what_is_kept_of_the_tree() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("ledger.db");
        let signer = Signer::from_seed("ledger.test", [5; 32]).expect("a key name");
        let key = signer.verifier();
        let store = Box::new(reprieve_store::SqliteStore::open(&path).expect("a new store"));
        let log = AuditLog::open(store, AuditOptions::new(signer), crate::log::tests::clock()).expect("an empty store");
        let mut last = None;
        for number in 0..1_500u32 {
            last = Some(reprieve_gate::Audit::append(log.as_ref(), Event::Alarm { what: number.to_string(), agent: None }));
        }
        while last.as_mut().is_some_and(|pending| pending.try_now().is_none()) {
            std::thread::yield_now();
        }
        log.close();
        let reader = reprieve_store::SqliteStore::open_to_read(&path).expect("a ledger");
        let check = |index: u64| {
            let proven = prove_event(reader.as_ref(), &key, index).expect("an event of the ledger");
            let long = with_nodes(reader.as_ref(), 1_500, |nodes| inclusion_proof(index, 1_500, nodes)).expect("a proof");
            assert_eq!(proven.proof.hashes, long, "{index}");
        };
        for index in [0, 1, 255, 256, 511, 512, 1_023, 1_024, 1_279, 1_280, 1_499] {
            check(index);
            let kept = inclusion_proof(index, 1_500, &|level, at| kept_node(reader.as_ref(), level, at).expect("readable"));
            assert!(kept.is_ok(), "{index}");
        }
        let writer = rusqlite::Connection::open(&path).expect("the database");
        writer.execute("UPDATE blocks SET root = zeroblob(32) WHERE number = 1", []).expect("a table of the ledger");
        check(0);
        writer.execute("DELETE FROM blocks WHERE number > 1", []).expect("a table of the ledger");
        check(0);
        writer.execute("UPDATE events SET leaf_hash = zeroblob(32) WHERE idx = 1498", []).expect("a table of the ledger");
        check(1_499);
        writer.execute("UPDATE events SET body = CAST('{}' AS BLOB) WHERE idx = 1498", []).expect("a table of the ledger");
        assert!(prove_event(reader.as_ref(), &key, 1_499).is_err(), "an event that was changed is not proven around");
        assert!(prove_event(reader.as_ref(), &key, 1_498).is_err());
    }

    #[test]
    fn an_empty_ledger_proves_nothing() {
        let (store, key, _) = ledger(0);
        assert!(matches!(prove_event(&store, &key, 0), Err(ProveError::Empty)));
    }

    #[test]
    fn every_two_checkpoints_are_consistent_and_those_of_another_ledger_are_not() {
        let (store, key, notes) = ledger(9);
        let (_, _, others) = ledger_with_another_past();
        for old in 0..9 {
            for new in old..9 {
                assert!(prove_consistency(&store, &key, &notes[old], &notes[new]).is_ok(), "{old} {new}");
                assert!(prove_consistency(&store, &key, &others[old], &notes[new]).is_err(), "{old} {new}");
            }
        }
        let head = others.last().expect("checkpoints");
        let report = crate::verify::verify(&store, &key, Some(head)).expect("readable");
        assert_eq!(report.fault.map(|fault| fault.kind), Some(FaultKind::Forked { head: 9 }));
    }

    fn ledger_with_another_past() -> (MemoryStore, Verifier, Vec<String>) {
        let store = MemoryStore::new();
        let signer = Signer::from_seed("ledger.test", [5; 32]).expect("a key name");
        let key = signer.verifier();
        let log = AuditLog::open(Box::new(store.clone()), AuditOptions::new(signer), crate::log::tests::clock()).expect("an empty store");
        for number in 0..9 {
            crate::log::tests::append(&log, Event::Alarm { what: format!("other {number}"), agent: None }).expect("durable");
        }
        log.close();
        let notes = store.checkpoints(0, usize::MAX).expect("readable").into_iter().map(|(_, note)| note).collect();
        (store, key, notes)
    }
}
