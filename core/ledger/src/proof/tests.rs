//! Tests of proofs: known vectors, every pair of small sizes, and every kind of tampering.

use proptest::prelude::*;

use super::*;
use crate::{
    note::Signer,
    tree::{
        root_of, subtree_root,
        tests::{bytes, known_leaves},
    },
};

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
}

/// PATH of RFC 6962 section 2.1.1, letter by letter.
fn naive_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
    let (mut path, other) =
        if index < left.len() { (naive_path(index, left), right) } else { (naive_path(index - left.len(), right), left) };
    path.push(root_of(other));
    path
}

/// SUBPROOF of RFC 6962 section 2.1.2, letter by letter.
fn naive_subproof(old: usize, leaves: &[Hash], complete: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if complete { Vec::new() } else { vec![root_of(leaves)] };
    }
    let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
    let (mut proof, other) = if old <= left.len() {
        (naive_subproof(old, left, complete), right)
    } else {
        (naive_subproof(old - left.len(), right, false), left)
    };
    proof.push(root_of(other));
    proof
}

#[test]
fn paths_are_those_of_certificate_transparency() {
    let leaves = known_leaves();
    let check = |index: u64, size: u64, expected: &[&str]| {
        let proof = inclusion_proof(index, size, &|level, at| subtree_root(&leaves, level, at)).expect("a leaf of the tree");
        assert_eq!(proof.iter().map(|hash| hash.to_vec()).collect::<Vec<_>>(), expected.iter().map(|hex| bytes(hex)).collect::<Vec<_>>());
    };
    check(0, 1, &[]);
    check(
        0,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    );
    check(
        5,
        8,
        &[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    );
    check(2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]);
}

#[test]
fn every_pair_of_small_sizes_agrees_with_the_recursion_and_holds() {
    const SIZE: u64 = 40;
    let leaves = leaves(SIZE);
    let nodes: Nodes<'_> = &|level, index| subtree_root(&leaves, level, index);
    for size in 1..=SIZE {
        let tree = &leaves[..size as usize];
        let root = root_of(tree);
        for number in 0..size {
            let proof = inclusion_proof(number, size, nodes).expect("within");
            assert_eq!(proof, naive_path(number as usize, tree), "leaf {number} of {size}");
            assert_eq!(verify_inclusion(&tree[number as usize], number, size, &root, &proof), Ok(()), "leaf {number} of {size}");
            for other in (0..size).filter(|other| *other != number) {
                assert!(
                    verify_inclusion(&tree[number as usize], other, size, &root, &proof).is_err(),
                    "leaf {number} as {other} of {size}"
                );
            }
        }
        for old in 1..=size {
            let old_root = root_of(&leaves[..old as usize]);
            let proof = consistency_proof(old, size, nodes).expect("within");
            assert_eq!(proof, naive_subproof(old as usize, tree, true), "{old} to {size}");
            assert_eq!(verify_consistency(old, size, &old_root, &root, &proof), Ok(()), "{old} to {size}");
            let mut wrong = old_root;
            wrong[0] ^= 1;
            assert!(verify_consistency(old, size, &wrong, &root, &proof).is_err(), "{old} to {size}");
            assert!(verify_consistency(old, size, &old_root, &wrong, &proof).is_err(), "{old} to {size}");
        }
        assert_eq!(verify_consistency(0, size, &empty_root(), &root, &[]), Ok(()));
        assert!(verify_consistency(0, size, &root, &root, &[]).is_err());
    }
}

#[test]
fn what_is_outside_or_missing_is_refused() {
    let none: Nodes<'_> = &|_, _| None;
    assert!(matches!(inclusion_proof(1, 1, none), Err(ProofError::Outside { .. })));
    assert!(matches!(inclusion_proof(0, 0, none), Err(ProofError::Outside { .. })));
    assert!(matches!(consistency_proof(2, 1, none), Err(ProofError::Outside { .. })));
    assert_eq!(inclusion_proof(0, 2, none), Err(ProofError::Missing { level: 0, index: 1 }));
    assert!(matches!(inclusion_proof(0, u64::MAX, none), Err(ProofError::Missing { .. })));
    assert!(matches!(verify_inclusion(&[0; 32], 0, 0, &empty_root(), &[]), Err(ProofError::Outside { .. })));
}

#[test]
fn a_proof_comes_back_from_its_text_and_holds_for_its_event_only() {
    let bodies: Vec<Vec<u8>> = (0..11u8).map(|number| vec![number; 5]).collect();
    let leaves: Vec<Hash> = bodies.iter().map(|body| leaf_hash(body)).collect();
    let signer = Signer::from_seed("ledger.example", [3; 32]).expect("a name of the test");
    let checkpoint =
        Checkpoint { origin: "ledger.example".to_owned(), size: 11, root: root_of(&leaves) }.sign(&signer).expect("well-formed");
    let hashes = inclusion_proof(4, 11, &|level, index| subtree_root(&leaves, level, index)).expect("within");
    let proof = EventProof { index: 4, hashes, checkpoint };
    let text = proof.to_text();
    let read = EventProof::parse(&text).expect("our own text");
    assert_eq!(read, proof);
    assert_eq!(read.verify(&bodies[4], &signer.verifier()).map(|checkpoint| checkpoint.size), Ok(11));
    assert_eq!(read.verify(&bodies[5], &signer.verifier()), Err(ProofError::Wrong));
    let stranger = Signer::from_seed("ledger.example", [4; 32]).expect("a name of the test");
    assert!(matches!(read.verify(&bodies[4], &stranger.verifier()), Err(ProofError::Checkpoint(_))));
    let with_extra = text.replacen('\n', "\nextra aGVsbG8=\n", 1);
    assert_eq!(EventProof::parse(&with_extra), Ok(proof));
    for bad in
        ["", "\n\n", "c2sp.org/tlog-proof@v1\nindex 01\n\nx", "c2sp.org/tlog-proof@v1\nindex 1\nAA==\n\nx", &text.replace("@v1", "@v2")]
    {
        assert!(EventProof::parse(bad).is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn one_changed_bit_breaks_a_proof(size in 2u64..200, index in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0..256usize) {
        let leaves = leaves(size);
        let index = index.index(size as usize) as u64;
        let root = root_of(&leaves);
        let mut proof = inclusion_proof(index, size, &|level, at| subtree_root(&leaves, level, at)).expect("within");
        let at = at.index(proof.len());
        proof[at][bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify_inclusion(&leaves[index as usize], index, size, &root, &proof).is_err());
        proof.remove(at);
        prop_assert!(verify_inclusion(&leaves[index as usize], index, size, &root, &proof).is_err());
    }

    #[test]
    fn a_rewritten_past_is_not_consistent(old in 1u64..100, more in 1u64..100, at in any::<prop::sample::Index>()) {
        let new = old + more;
        let before = leaves(new);
        let mut after = before.clone();
        after[at.index(old as usize)][0] ^= 1;
        let proof = consistency_proof(old, new, &|level, index| subtree_root(&after, level, index)).expect("within");
        let verdict = verify_consistency(old, new, &root_of(&before[..old as usize]), &root_of(&after), &proof);
        prop_assert!(verdict.is_err());
    }

    #[test]
    fn arbitrary_proofs_never_panic(
        old in any::<u64>(), new in any::<u64>(), root in any::<[u8; 32]>(), proof in proptest::collection::vec(any::<[u8; 32]>(), 0..70),
        text in "(c2sp.org/tlog-proof@v1\n)?(index [0-9]{1,22}\n)?.{0,80}\n\n.{0,40}",
    ) {
        let _ = verify_inclusion(&root, old, new, &root, &proof);
        let _ = verify_consistency(old, new, &root, &root, &proof);
        let _ = EventProof::parse(&text);
    }
}
