//! Real attributes of real files, there and back, and streams that say what no copy says.

use std::{
    fs,
    io::Read as _,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use super::{
    super::{
        Attributes, Folder, Reading, Record, check,
        made_up::{attributes, bring, bytes, folder, inside, stream, with_frames},
        write::Writer,
    },
    *,
};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
/// `cap_net_bind_service=ep`, as the kernel keeps it.
const BIND: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An access list: all that the owner may do, `user` too, others nothing.
fn list(user: u32) -> Vec<u8> {
    let entry = |tag: u16, may: u16, id: u32| [&tag.to_le_bytes()[..], &may.to_le_bytes(), &id.to_le_bytes()].concat();
    let nobody = u32::MAX;
    [vec![2, 0, 0, 0], entry(1, 7, nobody), entry(2, 6, user), entry(4, 0, nobody), entry(16, 6, nobody), entry(32, 0, nobody)].concat()
}

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).expect("opened").into()
}

fn set(path: &Path, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    fsetxattr(open(path), name, value, XattrFlags::empty())
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").expect("own")) == 0
}

/// A folder on a filesystem that takes this attribute. Nothing, and said so, if there is none.
fn place(name: &[u8], value: &[u8]) -> Option<tempfile::TempDir> {
    for folder in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
        let Ok(place) = tempfile::tempdir_in(folder) else { continue };
        fs::write(place.path().join("try"), "").expect("written");
        let took = set(&place.path().join("try"), name, value);
        fs::remove_file(place.path().join("try")).expect("removed");
        if took.is_ok() {
            return Some(place);
        }
    }
    eprintln!("SKIPPED: neither the temporary folder nor /dev/shm takes `{}` of {} bytes", escape(name), value.len());
    None
}

/// What a folder is made into.
fn copied(from: &Path) -> Result<Vec<u8>, RecoveryError> {
    let mut reading = Reading::start(Folder::open(from, &[])?)?;
    let mut all = Vec::new();
    reading.stream()?.read_to_end(&mut all).expect("read");
    reading.end().map(|()| all)
}

fn of(path: &Path) -> Extended {
    Extended::of(open(path), &Inside::default()).expect("read")
}

#[test]
fn what_an_entry_has_besides_comes_back_and_a_change_is_found() {
    let Some(place) = place(ACCESS, &list(1234)) else { return };
    let from = place.path().join("from");
    fs::create_dir_all(from.join("sub")).expect("made");
    for name in ["plain", "named", "shared", "program", "closed"] {
        fs::write(from.join(name), name).expect("written");
    }
    let all = |path: &str, of: &[(&[u8], &[u8])]| {
        for (name, value) in of {
            set(&from.join(path), name, value).expect("set");
        }
    };
    let odd = b"user.\xff\n \"\\x41=\x1b[31m";
    all("named", &[(b"user.empty", b""), (odd, &(0..=255).collect::<Vec<u8>>()), (b"user.long", &[b'\\'; 2_000])]);
    all("shared", &[(ACCESS, &list(1234))]);
    all("sub", &[(ACCESS, &list(4321)), (DEFAULT, &list(77)), (b"user.note", b"a folder")]);
    all("closed", &[(b"user.note", b"closed")]);
    fs::write(from.join("sub/heir"), "made with what the folder hands on").expect("written");
    fs::set_permissions(from.join("closed"), std::os::unix::fs::PermissionsExt::from_mode(0o400)).expect("closed");
    if is_root() {
        std::os::unix::fs::chown(from.join("program"), Some(1234), Some(1234)).expect("given away");
        all("program", &[(CAPABILITY, BIND)]);
    } else {
        eprintln!("SKIPPED: capabilities, which take root");
    }
    // What is not kept is no reason to fail, nor to be red.
    let _only_root_may = set(&from.join("plain"), b"trusted.note", b"x");
    let whole = copied(&from).expect("copied");

    let to = place.path().join("to");
    let said = bring(&whole, &to).expect("brought back");
    assert!(said.contains(&format!("; {} files and folders with extended", if is_root() { 6 } else { 5 })), "{said}");
    for path in ["", "sub", "sub/heir", "plain", "named", "shared", "program", "closed"] {
        assert_eq!(of(&to.join(path)), of(&from.join(path)), "{path}");
    }
    assert!(!of(&to.join("sub/heir")).is_empty() && of(&to.join("plain")).is_empty());
    // Into a folder that hands an access list on to all that is made in it: nothing of that stays.
    let heir = place.path().join("heir");
    fs::create_dir(&heir).expect("made");
    set(&heir, DEFAULT, &list(99)).expect("set");
    bring(&whole, &heir.join("to")).expect("brought back");
    assert_eq!(of(&heir.join("to/plain")), Extended::default());
    assert_eq!(of(&heir.join("to/sub")), of(&from.join("sub")));

    type Change = fn(&Path) -> Result<(), Errno>;
    let ways: [(&str, Change); 6] = [
        ("another value", |at| set(&at.join("named"), b"user.empty", b"x")),
        ("one more", |at| set(&at.join("plain"), b"user.more", b"")),
        ("one less", |at| fremovexattr(open(&at.join("named")), "user.long")),
        ("another user in the list", |at| set(&at.join("shared"), ACCESS, &list(1235))),
        ("another list to hand on", |at| set(&at.join("sub"), DEFAULT, &list(78))),
        ("none to hand on", |at| fremovexattr(open(&at.join("sub")), DEFAULT)),
    ];
    for (way, change) in ways {
        let at = place.path().join(way);
        let mut writer = Writer::begin(&at).expect("begun");
        writer.all(&mut &whole[..]).expect("all of it");
        let index = writer.end(true).expect("ended");
        change(&at).expect("changed");
        let said = check(&index, &at).expect_err(way).in_words();
        assert!(said.contains("other extended attributes"), "{way}: {said}");
    }
}

#[test]
fn the_longest_value_comes_back() {
    let longest = vec![0xff; VALUE_BYTES];
    let Some(place) = place(b"user.a", &longest) else { return };
    let from = place.path().join("from");
    fs::create_dir(&from).expect("made");
    fs::write(from.join("file"), "").expect("written");
    set(&from.join("file"), b"user.a", &longest).expect("set");
    bring(&copied(&from).expect("copied"), &place.path().join("to")).expect("brought back");
    assert_eq!(of(&place.path().join("to/file")), of(&from.join("file")));
    // Two of them are more than a header has room for: the copy fails and says of what.
    set(&from.join("file"), b"user.b", &longest).expect("set");
    let said = copied(&from).expect_err("too long").in_words();
    assert!(said.contains("`file` has more extended attributes than"), "{said}");
}

#[test]
fn more_than_a_copy_keeps_fails_it() {
    let Some(place) = place(b"user.a", b"") else { return };
    for number in 0..COUNT {
        set(place.path(), format!("user.{number}").as_bytes(), b"").expect("set");
    }
    fs::write(place.path().join("file"), "").expect("written");
    copied(place.path()).expect("as many as there may be");
    set(place.path(), b"user.more", b"").expect("set");
    let said = copied(place.path()).expect_err("too many").in_words();
    assert!(said.contains("`.` has more extended attributes than"), "{said}");
}

#[test]
fn what_it_comes_back_on_may_not_keep_it_and_that_is_told() {
    let note = Extended::parse(vec![(b"user.note".to_vec(), b"x".to_vec())]).expect("kept");
    let said = |path: &str| note.give(open(Path::new(path)), &inside("a")).map_err(|error| error.in_words());
    // The kernel's own files have no attributes, and a device's can't be set.
    assert!(said("/proc/self/comm").is_err_and(|said| said.contains("does not keep `user.note` of `a`")));
    assert!(said("/dev/null").is_err_and(|said| said.contains("give `user.note` to `a`")));
    let both = Extended::parse(vec![(CAPABILITY.to_vec(), BIND.to_vec()), (b"user.note".to_vec(), b"x".to_vec())]).expect("kept");
    assert_eq!((both.as_given(false), both.as_given(true)), (note, both.clone()), "only root gives rights to programs");
}

#[test]
fn a_stream_names_nothing_that_no_copy_keeps() {
    let parse = |all: &[(&[u8], usize)]| Extended::parse(all.iter().map(|(name, length)| (name.to_vec(), vec![b'x'; *length])).collect());
    let (long, longest) = ([b"user.".as_slice(), &[b'n'; 251]].concat(), [b"user.".as_slice(), &[b'n'; 250]].concat());
    let many: Vec<Vec<u8>> = (0..=COUNT).map(|number| format!("user.{number:03}").into_bytes()).collect();
    let many: Vec<(&[u8], usize)> = many.iter().map(|name| (name.as_slice(), 0)).collect();
    for (all, good) in [
        (&[] as &[(&[u8], usize)], true),
        (&[(b"user.a", 0), (b"user.b", 1)], true),
        (&[(CAPABILITY, 1), (ACCESS, 1), (DEFAULT, 1), (b"user.\xff", VALUE_BYTES)], true),
        (&[(&longest, 0)], true),
        (&[(&long, 0)], false),
        (&many[1..], true),
        (&many, false),
        (&[(b"user.a", VALUE_BYTES + 1)], false),
        (&[(b"user.a", VALUE_BYTES), (b"user.b", ALL_BYTES - VALUE_BYTES)], false),
        (&[(b"user.a", 0), (b"user.a", 0)], false),
        (&[(b"user.b", 0), (b"user.a", 0)], false),
        (&[(b"user.", 0)], false),
        (&[(b"user", 0)], false),
        (&[(b"user.a\0trusted.b", 0)], false),
        (&[(b"", 0)], false),
        (&[(b"trusted.overlay.redirect", 1)], false),
        (&[(b"security.selinux", 1)], false),
        (&[(b"security.capability.x", 1)], false),
        (&[(b"system.nfs4_acl", 1)], false),
        (&[(b"USER.a", 1)], false),
    ] {
        assert_eq!(parse(all).is_ok(), good, "{:?}", all.iter().map(|(name, _)| escape(name)).collect::<Vec<_>>());
    }
    // Whatever is kept has room in a header, with the longest path.
    let names: Vec<Vec<u8>> = (0..100).map(|number| [b"user.", format!("{number:02}").as_bytes(), &[7; 200]].concat()).collect();
    let mut all: Vec<_> = names.into_iter().map(|name| (name, vec![7; 500])).collect();
    all[0].1.resize(500 + ALL_BYTES - 100 * (207 + 500), 7);
    let path = Inside::parse([[1; 255].as_slice(); 15].join(&b'/')).expect("a path");
    let record = Record::Folder { path, attributes: attributes(0o755), extended: Extended::parse(all).expect("kept") };
    assert_eq!(Record::read(&mut bytes(&record).as_slice()).expect("read again"), record);
}

#[test]
fn older_streams_are_read_and_what_is_new_to_us_is_not() {
    let place = tempfile::tempdir().expect("a folder");
    let own = serde_json::to_string(&attributes(0o755)).expect("written");
    let header = |text: String| [&u32::try_from(text.len()).expect("short").to_le_bytes(), text.as_bytes()].concat();
    let entry = |more: &str| header(format!(r#"{{"is":"folder","path":"a","attributes":{own}{more}}}"#));
    let bring = |number: usize, entry: Vec<u8>| {
        let parts = [bytes(&folder("")), entry, header(format!(r#"{{"is":"folder","path":"b","attributes":{own}}}"#))];
        bring(&stream(&parts), &place.path().join(number.to_string()))
    };
    let said = bring(0, entry("")).expect("as before there was more");
    assert!(!said.contains("extended"), "{said}");
    assert_eq!(entry(""), bytes(&folder("a")), "what has none is written as before");
    for (number, more) in [
        r#","extended":[["trusted.a","x"]]"#,
        r#","extended":[["security.selinux","x"]]"#,
        r#","extended":[["user.a","\\x"]]"#,
        r#","extended":[["user.a"]]"#,
        r#","extended":[["user.a","x","x"]]"#,
        r#","extended":[["user.a","x"],["user.a","x"]]"#,
        r#","extended":{"user.a":"x"}"#,
        r#","extended":null"#,
        r#","extended":[],"extended":[]"#,
        r#","other":[]"#,
    ]
    .into_iter()
    .enumerate()
    {
        let said = bring(number + 1, entry(more)).expect_err(more).in_words();
        assert!(said.contains("is not one"), "{more}: {said}");
    }
}

#[test]
fn an_owner_that_nobody_can_be_is_no_owner() {
    let place = tempfile::tempdir().expect("a folder");
    for (number, (user, group)) in [(u32::MAX, 0), (0, u32::MAX)].into_iter().enumerate() {
        let own = Attributes { user, group, ..attributes(0o755) };
        let record = Record::File { path: inside("a"), attributes: own, extended: Extended::default(), bytes: 0 };
        let said = bring(&stream(&[bytes(&folder("")), with_frames(&record, &[])]), &place.path().join(number.to_string()));
        assert!(said.is_err_and(|error| error.in_words().contains("an owner that nobody can be")));
    }
}
