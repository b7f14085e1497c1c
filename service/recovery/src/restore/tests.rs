//! What is chosen of the log, and copies of an older form.

use reprieve_ledger::Signer;
use reprieve_vault::{Kind, Location, ObjectRef, VaultKey, VaultOptions};

use super::{vault::choose, *};
use crate::{
    Recipients, StoredWal,
    manifest::{Lsn, close},
    seal::seal,
    tools::run,
};

fn manifest(engine: EngineKind, contents: ObjectRef) -> Manifest {
    Manifest {
        point: "R-1".to_owned(),
        system: "shop".parse().expect("a name"),
        engine,
        began: Timestamp(0),
        ended: Timestamp(0),
        version: String::new(),
        major: 15,
        cluster: "1".to_owned(),
        address: String::new(),
        superuser: "postgres".to_owned(),
        database: "shop".to_owned(),
        wal: Some((1, Lsn(0x200_0028), Lsn(0x200_0100))),
        segment_bytes: 16 << 20,
        elsewhere: None,
        contents,
        plain_bytes: 0,
        stored_bytes: 0,
        added_bytes: 0,
        recipients: Vec::new(),
    }
}

#[test]
fn a_gap_in_the_log_is_never_passed_over() {
    let contents = ObjectRef { digest: Digest([0; 32]), kind: Kind::Stream, plain_bytes: 0, stored_bytes: 0 };
    let manifest = manifest(EngineKind::Physical, contents);
    let part = |file: &str| StoredWal {
        system: manifest.system.clone(),
        cluster: "1".to_owned(),
        file: file.to_owned(),
        partial: false,
        at: Timestamp(0),
        digest: Digest([0; 32]),
        object: None,
    };
    let segment = |timeline: u32, number: u32| part(&format!("{timeline:08X}{:08X}{number:08X}", 0));
    let count = |known: Vec<StoredWal>| choose(known, &manifest, &[], true).ok().map(|chosen| chosen.len());
    assert_eq!(count(vec![]), Some(0));
    assert_eq!(count(vec![segment(1, 1), segment(1, 2)]), Some(0), "older than the copy's end");
    assert_eq!(count(vec![segment(1, 2), segment(1, 3), segment(1, 4)]), Some(2));
    let filling = |number: u32| StoredWal { partial: true, ..segment(1, number) };
    assert_eq!(count(vec![segment(1, 3), filling(4)]), Some(2));
    assert_eq!(count(vec![filling(3), segment(1, 4)]), None, "the end of one is missing");
    assert_eq!(count(vec![segment(1, 4)]), None, "the first is missing");
    assert_eq!(count(vec![segment(1, 3), segment(1, 5)]), None, "one in between is missing");
    // The second timeline left the first in its third segment, and what the first has after that was given up.
    let forked = |known: Vec<StoredWal>| {
        let history = [(1, Lsn(0x380_0000)), (2, Lsn(u64::MAX))];
        choose(known, &manifest, &history, true).ok().map(|chosen| chosen.len())
    };
    let history = || part("00000002.history");
    assert_eq!(forked(vec![segment(1, 3), segment(2, 3), segment(2, 4), history()]), Some(4));
    assert_eq!(forked(vec![filling(3), segment(1, 4), segment(1, 5), segment(2, 3), segment(2, 4), history()]), Some(4));
    assert_eq!(forked(vec![segment(1, 3), segment(1, 4), segment(2, 4), history()]), None, "the second's beginning is missing");
    assert_eq!(forked(vec![segment(1, 3), segment(1, 4), segment(2, 5), history()]), None, "more of it is missing");
    // A moment may lie before what is missing.
    let some = |known: Vec<StoredWal>| choose(known, &manifest, &[], false).ok().map(|chosen| chosen.len());
    assert_eq!(some(vec![segment(1, 3), segment(1, 5)]), Some(1));
    assert_eq!(some(vec![segment(1, 3), filling(4), segment(1, 6)]), Some(2));
    assert_eq!(some(vec![segment(1, 4)]), Some(0));
}

/// The older form: the whole stream sealed as one, without a list of keys. Such copies are kept for years.
#[test]
fn a_copy_that_was_sealed_as_one_stream_comes_back() {
    let tools = Tools::find(None).expect("PostgreSQL's programs");
    let scratch = Scratch::make(&tools, &std::env::temp_dir()).expect("a folder");
    let (data, folder) = (scratch.path().join("data"), scratch.path().join("server"));
    let mut command = tools.served("initdb");
    command.args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username=postgres", "--pgdata"]).arg(&data);
    run(command, STEP).expect("a server is made");
    tools.own_folder(&folder).expect("a folder");
    let server = Server::start(&tools, &folder, &data, "postgres", &[("fsync", "off".to_owned())], STEP).expect("started");
    let ask = |database: &str, sql: &str| server.source(database).sql(&tools, sql, STEP).expect("asked");
    ask("postgres", "CREATE DATABASE shop");
    ask("postgres", "CREATE DATABASE back TEMPLATE template0");
    ask("shop", "CREATE TABLE orders AS SELECT n, md5(n::text) AS note FROM generate_series(1, 5000) n");
    let mut dump = tools.client("pg_dump");
    server.source("shop").tell(&mut dump).args(["--format=custom", "--compress=0", "--no-password"]);
    let dumped = dump.output().expect("dumped");
    assert!(dumped.status.success());

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let options = VaultOptions { store: Location::Memory, key: VaultKey::from_bytes(&[7; 32]), max_bytes: None, s3: Default::default() };
    let (vault, identity) = (Vault::open(&options).expect("opened"), DrillKey::generate());
    let recipients = Recipients::parse(&[identity.recipient()]).expect("a key");
    let signer = Signer::from_seed("reprieve-copies", [1; 32]).expect("a key");
    let sealed = seal(&vault, runtime.handle(), &recipients, dumped.stdout.as_slice()).expect("sealed");
    let contents = Contents { objects: sealed.objects, keys: None, before: Default::default(), after: Default::default() };
    let version = ask("postgres", "SELECT current_setting('server_version_num')::int / 10000").parse().expect("a number");
    let made = |list| Manifest {
        wal: None,
        major: version,
        plain_bytes: sealed.plain_bytes,
        recipients: recipients.as_text(),
        ..manifest(EngineKind::Logical, list)
    };
    let (_, object) = runtime.block_on(close(&vault, &contents, made, &signer)).expect("closed");

    let key = signer.verifier();
    let back = || RestoreOptions { until: Until::Newest, to: Target::Database(server.source("back")), create_roles: false };
    let other = DrillKey::generate();
    let ground =
        |identity| Ground { vault: &vault, handle: runtime.handle(), key: &key, identity, received: None, stanza: None, tell: |_| {} };
    assert!(restore(ground(&other), object.digest, &back()).is_err(), "with another identity");
    restore(ground(&identity), object.digest, &back()).expect("restored");
    assert_eq!(ask("back", "SELECT count(*) FROM orders WHERE note = md5(n::text)"), "5000");
    assert!(restore(ground(&identity), object.digest, &back()).is_err(), "it is not empty any more");
}
