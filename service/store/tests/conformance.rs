//! What every store promises, checked on both.

use reprieve_store::{Batch, Head, MemoryStore, Placed, Query, Reader as _, Row, Snapshot, SqliteStore, Store};

/// Runs one check on a fresh store of each sort.
fn on_both(check: impl Fn(&mut dyn Store)) {
    check(&mut MemoryStore::new());
    let folder = tempfile::tempdir().expect("a folder for the test");
    check(&mut SqliteStore::open(&folder.path().join("ledger.db")).expect("a new store"));
}

fn row(index: u64, key: Option<&str>) -> Row {
    Row {
        index,
        at_ms: 1_000 + index * 10,
        kind: if index.is_multiple_of(2) { "intent" } else { "hold_opened" }.to_owned(),
        agent: (!index.is_multiple_of(3)).then(|| format!("agent-{}", index % 3)),
        hold: (index % 4 == 1).then_some(index / 4),
        unique_key: key.map(str::to_owned),
        body: format!("{{\"index\":{index},\"text\":\"100% of É_{index}\"}}").into_bytes(),
        leaf_hash: [u8::try_from(index % 256).expect("a remainder"); 32],
    }
}

fn keys(keys: &[Option<&str>]) -> Vec<Option<String>> {
    keys.iter().map(|key| key.map(str::to_owned)).collect()
}

/// Appends one row for each key, as the audit's writer does.
fn append(store: &mut dyn Store, wanted: &[Option<&str>]) -> Vec<Placed> {
    let wanted = keys(wanted);
    store
        .append(&wanted, &mut |head, taken| {
            let mut next = head.map_or(0, |head| head.size);
            let mut rows = Vec::new();
            for (key, taken) in wanted.iter().zip(taken) {
                if !taken {
                    rows.push(row(next, key.as_deref()));
                    next += 1;
                }
            }
            Ok(Batch { rows, head: Head { size: next, checkpoint: format!("checkpoint {next}"), frontier: vec![1, 2, 3] } })
        })
        .expect("a batch that fits")
}

#[test]
fn an_empty_store_has_nothing() {
    on_both(|store| {
        assert_eq!(store.head().expect("readable"), None);
        assert_eq!(store.rows(0, 10).expect("readable"), []);
        assert_eq!(store.checkpoints(0, 10).expect("readable"), []);
        assert_eq!(store.snapshot().expect("readable"), None);
        assert_eq!(store.search(&Query { limit: 10, ..Query::default() }).expect("readable"), []);
    });
}

#[test]
fn rows_come_back_in_order_with_the_head_of_their_batch() {
    on_both(|store| {
        assert_eq!(append(store, &[None, None, None]), [Placed::At(0), Placed::At(1), Placed::At(2)]);
        assert_eq!(append(store, &[None]), [Placed::At(3)]);
        let reader = store.reader().expect("a reader");
        assert_eq!(reader.rows(0, 10).expect("readable"), (0..4).map(|index| row(index, None)).collect::<Vec<_>>());
        assert_eq!(reader.rows(1, 2).expect("readable"), [row(1, None), row(2, None)]);
        assert_eq!(reader.rows(4, 2).expect("readable"), []);
        assert_eq!(reader.rows(u64::MAX, usize::MAX).expect("readable"), []);
        let head = reader.head().expect("readable").expect("a head");
        assert_eq!((head.size, head.checkpoint.as_str(), head.frontier), (4, "checkpoint 4", vec![1, 2, 3]));
        let checkpoints = reader.checkpoints(0, 10).expect("readable");
        assert_eq!(checkpoints, [(3, "checkpoint 3".to_owned()), (4, "checkpoint 4".to_owned())]);
        assert_eq!(reader.checkpoints(4, 10).expect("readable").len(), 1);
        assert_eq!(reader.checkpoints(0, 1).expect("readable").len(), 1);
    });
}

/// A block of 256 leaves has a root as soon as it is complete, whatever batches its rows came in.
#[test]
fn complete_blocks_have_roots() {
    on_both(|store| {
        for rows in [100, 155, 1, 257, 300] {
            append(store, &vec![None; rows]);
        }
        let expected: Vec<_> = (0..3u64)
            .map(|block| {
                let mut frontier = reprieve_ledger::Frontier::new();
                (0..256).for_each(|leaf| frontier.append(row(block * 256 + leaf, None).leaf_hash));
                frontier.root()
            })
            .collect();
        assert_eq!(store.block_roots(0, 10).expect("readable"), expected);
        assert_eq!(store.block_roots(1, 1).expect("readable"), expected[1..2]);
        assert!(store.block_roots(3, 10).expect("readable").is_empty());
        assert!(store.block_roots(u64::MAX, usize::MAX).expect("readable").is_empty());
    });
}

#[test]
fn a_reader_as_of_now_does_not_see_what_comes_later() {
    on_both(|store| {
        append(store, &[None, None]);
        let reader = store.as_of_now().expect("a reader");
        append(store, &[None]);
        store.save_snapshot(&Snapshot { size: 3, note: "note".to_owned(), body: vec![1] }).expect("writable");
        assert_eq!(reader.rows(0, 10).expect("readable").len(), 2);
        assert_eq!(reader.checkpoints(0, 10).expect("readable"), [(2, "checkpoint 2".to_owned())]);
        assert_eq!(reader.head().expect("readable").map(|head| head.size), Some(2));
        assert_eq!(reader.snapshot().expect("readable"), None);
        assert_eq!(store.as_of_now().expect("a reader").rows(0, 10).expect("readable").len(), 3);
    });
}

#[test]
fn a_key_is_taken_once_and_leaves_no_gap() {
    on_both(|store| {
        assert_eq!(
            append(store, &[Some("a"), Some("b"), Some("a"), None]),
            [Placed::At(0), Placed::At(1), Placed::KeyTaken, Placed::At(2)]
        );
        assert_eq!(append(store, &[Some("b"), None, Some("c")]), [Placed::KeyTaken, Placed::At(3), Placed::At(4)]);
        assert_eq!(append(store, &[Some("c")]), [Placed::KeyTaken]);
        let indexes: Vec<u64> = store.rows(0, 10).expect("readable").iter().map(|row| row.index).collect();
        assert_eq!(indexes, [0, 1, 2, 3, 4]);
        assert_eq!(store.head().expect("readable").map(|head| head.size), Some(5));
    });
}

#[test]
fn a_batch_that_does_not_fit_changes_nothing() {
    on_both(|store| {
        append(store, &[Some("a")]);
        let head = |size| Head { size, checkpoint: "wrong".to_owned(), frontier: Vec::new() };
        for (wanted, batch) in [
            (vec![None], Batch { rows: vec![row(2, None)], head: head(3) }),
            (vec![None], Batch { rows: vec![row(1, None)], head: head(1) }),
            (vec![None], Batch { rows: vec![], head: head(1) }),
            (vec![None], Batch { rows: vec![row(1, None), row(2, None)], head: head(3) }),
            (vec![None], Batch { rows: vec![row(1, Some("smuggled"))], head: head(2) }),
            (vec![Some("a")], Batch { rows: vec![row(1, Some("a"))], head: head(2) }),
        ] {
            assert!(store.append(&keys(&wanted), &mut |_, _| Ok(batch.clone())).is_err(), "{batch:?}");
        }
        assert_eq!(store.rows(0, 10).expect("readable").len(), 1);
        assert_eq!(store.head().expect("readable").map(|head| head.checkpoint), Some("checkpoint 1".to_owned()));
        assert_eq!(append(store, &[Some("smuggled")]), [Placed::At(1)]);
    });
}

#[test]
fn searches_find_what_matches_newest_first() {
    on_both(|store| {
        append(store, &[None; 12]);
        let check = |query: Query, expected: &[u64]| {
            let found = store.search(&query).expect("readable");
            assert_eq!(found.iter().map(|row| row.index).collect::<Vec<_>>(), expected, "{query:?}");
        };
        let all = Query { limit: 100, ..Query::default() };
        let text = |text: &str| Query { text: Some(text.to_owned()), ..all.clone() };
        check(Query { limit: 3, ..Query::default() }, &[11, 10, 9]);
        check(Query { limit: 0, ..Query::default() }, &[]);
        check(Query { limit: 2, before: Some(9), ..Query::default() }, &[8, 7]);
        check(Query { kind: Some("hold_opened".to_owned()), ..all.clone() }, &[11, 9, 7, 5, 3, 1]);
        check(Query { agent: Some("agent-2".to_owned()), ..all.clone() }, &[11, 8, 5, 2]);
        check(Query { hold: Some(1), ..all.clone() }, &[5]);
        check(Query { from_ms: Some(1_030), until_ms: Some(1_050), ..all.clone() }, &[4, 3]);
        check(Query { kind: Some("intent".to_owned()), agent: Some("agent-1".to_owned()), ..all.clone() }, &[10, 4]);
        check(Query { until_ms: Some(u64::MAX), before: Some(u64::MAX), limit: 1, ..Query::default() }, &[11]);
        check(text("É_11"), &[11]);
        check(text("100% of"), &[11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        check(text("100_ of"), &[]);
        check(text("é_11"), &[]);
        check(text(""), &[11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        check(text("' OR 1=1 --"), &[]);
    });
}

#[test]
fn the_newest_snapshot_replaces_the_one_before() {
    on_both(|store| {
        for size in [3, 9] {
            let snapshot = Snapshot { size, note: format!("note {size}"), body: vec![7; 3] };
            store.save_snapshot(&snapshot).expect("writable");
            assert_eq!(store.snapshot().expect("readable"), Some(snapshot));
        }
    });
}

mod sqlite {
    //! What only a file can get wrong.

    use std::{fs, os::unix::fs::PermissionsExt as _};

    use reprieve_store::StoreError;

    use super::*;

    #[test]
    fn rows_are_there_after_a_new_start() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("ledger.db");
        append(&mut SqliteStore::open(&path).expect("a new store"), &[Some("a"), None]);
        let mut store = SqliteStore::open(&path).expect("the same store");
        assert_eq!(append(&mut store, &[Some("a"), None]), [Placed::KeyTaken, Placed::At(2)]);
        assert_eq!(SqliteStore::open_to_read(&path).expect("a reader").rows(0, 10).expect("readable").len(), 3);
    }

    #[test]
    fn a_closed_ledger_is_one_file_even_if_a_reader_stays() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("ledger.db");
        let mut store = SqliteStore::open(&path).expect("a new store");
        append(&mut store, &[None, None]);
        let reader = store.reader().expect("a reader");
        drop(store);
        let copy = folder.path().join("copy.db");
        fs::copy(&path, &copy).expect("a copy of the one file");
        assert_eq!(SqliteStore::open(&copy).expect("a store").rows(0, 10).expect("readable").len(), 2);
        assert_eq!(reader.rows(0, 10).expect("readable").len(), 2);
    }

    #[test]
    fn the_files_are_their_owners_alone() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("ledger.db");
        fs::write(&path, b"").expect("a folder to write in");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("our own file");
        let mut store = SqliteStore::open(&path).expect("a new store");
        append(&mut store, &[None]);
        let mut seen = 0;
        for file in fs::read_dir(folder.path()).expect("readable") {
            let file = file.expect("readable");
            assert_eq!(file.metadata().expect("readable").permissions().mode() & 0o777, 0o600, "{:?}", file.path());
            seen += 1;
        }
        assert!(seen >= 3, "the database, its log and the lock");
    }

    #[test]
    fn a_second_writer_is_refused_and_a_reader_is_not() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("ledger.db");
        let first = SqliteStore::open(&path).expect("a new store");
        assert!(matches!(SqliteStore::open(&path), Err(StoreError::InUse { .. })));
        assert!(SqliteStore::open_to_read(&path).is_ok());
        drop(first);
        assert!(SqliteStore::open(&path).is_ok());
    }

    #[test]
    fn other_files_are_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let text = folder.path().join("text");
        fs::write(&text, "a text that is certainly not a database, and long enough to have had a header").expect("a folder to write in");
        assert!(matches!(SqliteStore::open(&text), Err(StoreError::Foreign { .. })));
        let other = folder.path().join("other.db");
        rusqlite::Connection::open(&other).expect("a database").execute_batch("CREATE TABLE t (a)").expect("a table");
        assert!(matches!(SqliteStore::open(&other), Err(StoreError::Foreign { .. })));
        assert!(matches!(SqliteStore::open_to_read(&other), Err(StoreError::Foreign { .. })));
        assert!(SqliteStore::open_to_read(&folder.path().join("missing")).is_err());
        let newer = folder.path().join("newer.db");
        drop(SqliteStore::open(&newer).expect("a new store"));
        rusqlite::Connection::open(&newer).expect("a database").pragma_update(None, "user_version", 2).expect("writable");
        assert!(matches!(SqliteStore::open(&newer), Err(StoreError::Version { found: 2, .. })));
    }

    #[test]
    fn a_commit_is_on_the_disk_before_it_returns() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let store = SqliteStore::open(&folder.path().join("ledger.db")).expect("a new store");
        assert_eq!(store.durability().expect("readable"), ("wal".to_owned(), 2));
    }
}
