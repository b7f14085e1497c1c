//! Streams that somebody made up, and folders made into streams and back.

use std::{fs, path::Path};

use super::{
    made_up::{attributes, bring, bytes, file, folder, inside, link, stream},
    write::Writer,
    *,
};

#[test]
fn paths_stay_inside() {
    for (path, good) in [
        ("", true),
        ("a", true),
        ("a/b", true),
        ("...", true),
        ("a b\n\\", true),
        (".", false),
        ("..", false),
        ("a/..", false),
        ("a/../../b", false),
        ("/a", false),
        ("a/", false),
        ("a//b", false),
        ("a\0b", false),
        (&"n".repeat(255), true),
        (&"n".repeat(256), false),
        (&vec!["d"; 100].join("/"), true),
        (&vec!["d"; 101].join("/"), false),
    ] {
        assert_eq!(Inside::parse(path.as_bytes().to_vec()).is_ok(), good, "{path:?}");
    }
    assert!(inside("a/b").is_within(&inside("a")) && inside("a").is_within(&inside("a")) && !inside("ab").is_within(&inside("a")));
}

#[test]
fn every_name_is_written_and_read_again() {
    let all: Vec<u8> = (0..=255).collect();
    let samples: [&[u8]; 7] = [b"", b"plain", b"\\x41", &all, b"\xff", "\u{202e}é\u{1f600}".as_bytes(), b"\xe2\x80"];
    for sample in samples {
        let text = escape(sample);
        assert_eq!(unescape(&text).expect("read again"), sample, "{text}");
        assert!(!text.chars().any(|character| character.is_control() || character == '\u{202e}'), "{text:?}");
    }
    for wrong in ["\\", "\\x", "\\x4", "\\n", "\\xzz", "\\é41"] {
        assert_eq!(unescape(wrong), None, "{wrong}");
    }
}

#[test]
fn what_is_brought_back_is_all_there_or_it_fails() {
    let place = tempfile::tempdir().expect("a folder");
    let parts =
        [bytes(&folder("")), bytes(&folder("a")), file("a/one", "first"), file("a/one", "second"), bytes(&link("l", "a")), file("two", "")];
    let whole = stream(&parts);
    bring(&whole, &place.path().join("whole")).expect("brought back");
    assert_eq!(fs::read_to_string(place.path().join("whole/a/one")).expect("there"), "second", "the later one counts");
    assert_eq!(fs::read_dir(place.path().join("whole")).expect("listed").count(), 3, "nothing of ours is left");
    // Cut anywhere, one byte more, or with one part less.
    for length in 0..whole.len() {
        let to = place.path().join(format!("cut {length}"));
        assert!(bring(&whole[..length], &to).is_err(), "cut at {length} of {}", whole.len());
    }
    assert!(bring(&[&whole[..], b"x"].concat(), &place.path().join("more")).is_err());
    for left_out in 0..parts.len() {
        let rest: Vec<Vec<u8>> = parts.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, part)| part.clone()).collect();
        let fewer = [rest.concat(), bytes(&Record::End { records: parts.len() as u64 })].concat();
        assert!(bring(&fewer, &place.path().join(format!("without {left_out}"))).is_err());
    }
    // Any byte another: it fails, or is what was said all the same (a digit of a time, say); it never ends otherwise.
    for at in 0..whole.len() {
        let mut other = whole.clone();
        other[at] ^= 1;
        let _said = bring(&other, &place.path().join(format!("other {at}")));
    }
}

#[test]
fn of_two_folders_of_the_same_path_the_later_one_counts() {
    let place = tempfile::tempdir().expect("a folder");
    let of =
        |path: &str, mode: u32| bytes(&Record::Folder { path: inside(path), attributes: attributes(mode), extended: Extended::default() });
    let parts = [bytes(&folder("")), of("a", 0o755), of("a/b", 0o700), of("a", 0o500), file("a/b/f", "x")];
    bring(&stream(&parts), &place.path().join("to")).expect("brought back");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(place.path().join("to/a")).expect("there"));
    assert_eq!(mode & 0o7777, 0o500);
    fs::set_permissions(place.path().join("to/a"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("opened again");
}

#[test]
fn nothing_is_written_through_a_link_or_over_something_else() {
    let place = tempfile::tempdir().expect("a folder");
    let outside = place.path().join("outside");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("kept"), "kept").expect("written");
    let out = outside.display().to_string();
    let root = bytes(&folder(""));
    let name = |path: &str, of: &str| bytes(&Record::Name { path: inside(path), of: inside(of) });
    for (number, parts) in [
        vec![root.clone(), bytes(&link("l", &out)), file("l/evil", "evil")],
        vec![root.clone(), bytes(&link("l", &out)), bytes(&folder("l"))],
        vec![root.clone(), bytes(&link("l", &out)), bytes(&folder("l/evil"))],
        vec![root.clone(), bytes(&link("l", &out)), bytes(&link("l/evil", "x"))],
        vec![root.clone(), bytes(&link("l", &format!("{out}/kept"))), name("n", "l"), file("n", "evil"), name("l/evil", "n")],
        vec![root.clone(), file("f", "x"), bytes(&folder("f"))],
        vec![root.clone(), bytes(&folder("f")), file("f", "x")],
        vec![root.clone(), file("missing/f", "x")],
        vec![root.clone(), name("n", "nothing")],
        vec![root.clone(), file("f", "x"), name("f", "f")],
    ]
    .into_iter()
    .enumerate()
    {
        assert!(bring(&stream(&parts), &place.path().join(number.to_string())).is_err(), "{number}");
        let found: Vec<_> = fs::read_dir(&outside).expect("listed").collect();
        assert_eq!(found.len(), 1, "{number}");
        assert_eq!(fs::read_to_string(outside.join("kept")).expect("there"), "kept", "{number}");
    }
    // Not into a folder that a link leads to, nor into one with something in it.
    let empty = place.path().join("empty");
    fs::create_dir(&empty).expect("made");
    std::os::unix::fs::symlink(&empty, place.path().join("link")).expect("made");
    assert!(bring(&stream(std::slice::from_ref(&root)), &place.path().join("link")).is_err());
    assert!(bring(&stream(&[root]), &outside).is_err());
    assert_eq!(fs::read_dir(&empty).expect("listed").count(), 0);
}

#[test]
fn whatever_is_said_in_whatever_order_nothing_outside_is_touched() {
    use rand::{Rng as _, SeedableRng as _, seq::SliceRandom as _};
    let place = tempfile::tempdir().expect("a folder");
    let outside = place.path().join("outside");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("kept"), "kept").expect("written");
    let out = outside.display().to_string();
    let paths = ["", "a", "b", "a/a", "a/b", "b/a", "a/kept", "b/kept", "a/a/kept"];
    let links = [out.as_str(), &format!("{out}/kept"), "../outside", "../outside/kept", "..", ".", "a", "b", "../../outside"];
    let (mut whole, mut refused) = (0, 0);
    for seed in 0..2_000 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut parts = vec![bytes(&folder(""))];
        for _ in 0..random.gen_range(1..10) {
            let mut any = |of: &[&str]| (*of.choose(&mut random).expect("one")).to_owned();
            let (path, other, to) = (any(&paths), any(&paths), any(&links));
            parts.push(match random.gen_range(0..4) {
                0 => bytes(&folder(&path)),
                1 => file(&path, "evil"),
                2 => bytes(&link(&path, &to)),
                _ => bytes(&Record::Name { path: inside(&path), of: inside(&other) }),
            });
        }
        let to = place.path().join("to");
        match bring(&stream(&parts), &to) {
            Ok(_) => whole += 1,
            Err(_) => refused += 1,
        }
        let found: Vec<_> = fs::read_dir(&outside).expect("listed").map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(found, ["kept"], "{seed}");
        assert_eq!(fs::read_to_string(outside.join("kept")).expect("there"), "kept", "{seed}");
        assert_eq!(
            fs::metadata(outside.join("kept")).map(|kept| std::os::unix::fs::MetadataExt::nlink(&kept)).expect("there"),
            1,
            "{seed}"
        );
        let beside = fs::read_dir(place.path()).expect("listed").count();
        assert!(beside <= 2, "{seed}");
        if to.exists() {
            fs::remove_dir_all(&to).expect("removed");
        }
    }
    assert!(whole > 20 && refused > 20, "{whole} {refused}: both are tried");
}

#[test]
fn what_came_back_and_was_changed_is_found_out() {
    let place = tempfile::tempdir().expect("a folder");
    let whole = stream(&[bytes(&folder("")), bytes(&folder("a")), file("a/one", "first"), bytes(&link("l", "a"))]);
    type Change = fn(&Path) -> std::io::Result<()>;
    let ways: [(&str, Change); 7] = [
        ("another byte", |at| fs::write(at.join("a/one"), "farst")),
        ("longer", |at| fs::write(at.join("a/one"), "first!")),
        ("gone", |at| fs::remove_file(at.join("a/one"))),
        ("more", |at| fs::write(at.join("more"), "")),
        ("another link", |at| fs::remove_file(at.join("l")).and_then(|()| std::os::unix::fs::symlink("b", at.join("l")))),
        ("a file for a link", |at| fs::remove_file(at.join("l")).and_then(|()| fs::write(at.join("l"), "a"))),
        ("another mode", |at| fs::set_permissions(at.join("a"), std::os::unix::fs::PermissionsExt::from_mode(0o700))),
    ];
    for (way, change) in ways {
        let at = place.path().join(way);
        let mut writer = Writer::begin(&at).expect("begun");
        writer.all(&mut &whole[..]).expect("all of it");
        let index = writer.end(true).expect("ended");
        check(&index, &at).expect("as it was");
        let mut index = index;
        std::io::Seek::rewind(&mut index.file).expect("again");
        change(&at).expect("changed");
        assert!(check(&index, &at).is_err(), "{way}");
    }
}

#[test]
fn zeros_come_back_as_holes_whether_they_were_or_not() {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    let place = tempfile::tempdir().expect("a folder");
    let from = place.path().join("from");
    fs::create_dir(&from).expect("made");
    // Zeros before, between and after, none of them where a block begins.
    let solid = [vec![0; 3_000_001], b"one".to_vec(), vec![0; 5_000_000], b"other".to_vec(), vec![0; 2_000_003]].concat();
    fs::write(from.join("solid"), &solid).expect("written");
    let sparse = fs::File::create(from.join("sparse")).expect("made");
    sparse.write_all_at(b"one", 3_000_001).and_then(|()| sparse.write_all_at(b"other", 8_000_004)).expect("written");
    sparse.set_len(solid.len() as u64).expect("longer");
    fs::write(from.join("zeros"), vec![0; 1_000_000]).expect("written");
    let mut reading = Reading::start(Folder::open(&from, &[]).expect("opened")).expect("begun");
    let mut whole = Vec::new();
    reading.stream().and_then(|mut stream| stream.read_to_end(&mut whole).map_err(cut)).expect("read");
    reading.end().expect("all of it");
    let to = place.path().join("to");
    bring(&whole, &to).expect("brought back");
    for name in ["solid", "sparse", "zeros"] {
        assert!(fs::read(to.join(name)).expect("read") == fs::read(from.join(name)).expect("read"), "{name}");
        let room = fs::metadata(to.join(name)).expect("there").blocks() * 512;
        assert!(room < 100_000, "{name} takes {room} bytes");
    }
}

/// The most memory that this process ever had, in KiB.
fn most_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_stream_that_was_changed_any_way_touches_nothing_outside_and_takes_no_room() {
    use rand::{Rng as _, RngCore as _, SeedableRng as _};
    let arena = crate::Arena::open().expect("a folder");
    let before = most_memory();
    let (mut good, mut whole, mut refused) = (0, 0, 0);
    for seed in 0..800 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let make_up = |random: &mut rand::rngs::StdRng| {
            let mut choices = vec![0; random.gen_range(0..120)];
            random.fill_bytes(&mut choices);
            arena.make_up(&choices)
        };
        let (mut stream, other) = (make_up(&mut random), make_up(&mut random));
        good += u32::from(arena.bring(&stream).is_ok());
        for _ in 0..random.gen_range(1..4) {
            let at = random.gen_range(0..=stream.len());
            let piece = |of: &[u8], random: &mut rand::rngs::StdRng| {
                let from = random.gen_range(0..=of.len());
                of[from..random.gen_range(from..=of.len())].to_vec()
            };
            match random.gen_range(0..6) {
                0 => stream.truncate(at),
                1 => {
                    let piece = piece(&other, &mut random);
                    stream.splice(at..at, piece);
                }
                2 => {
                    let piece = piece(&stream, &mut random).repeat(random.gen_range(1..5));
                    stream.splice(at..at, piece);
                }
                // Lengths and numbers that are as large as can be.
                3 => stream.iter_mut().skip(at).take(random.gen_range(1..9)).for_each(|byte| *byte = 0xff),
                // A digit of a number, a letter of a name.
                4 => {
                    if let Some(digit) = stream.iter_mut().skip(at).find(|byte| byte.is_ascii_alphanumeric()) {
                        *digit = b"0189afz"[random.gen_range(0..7)];
                    }
                }
                _ => {
                    if let Some(byte) = stream.get_mut(at) {
                        *byte ^= 1 << random.gen_range(0..8);
                    }
                }
            }
        }
        match arena.bring(&stream) {
            Ok(_) => whole += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(good > 100 && whole > 2 && refused > 500, "{good} as they were made, {whole} and {refused} changed: all are tried");
    let grown = most_memory() - before;
    assert!(grown < 64 << 10, "{grown} KiB more than before");
}
