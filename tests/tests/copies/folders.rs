//! Folders.

use std::{
    ffi::OsStr,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::*;

const RECOVERY: &str = "[recovery]\nscratch = \"scratch\"";

/// A folder with files of many sizes.
pub(crate) fn stage(backup: &str) -> Result<Stage> {
    let stage = Stage::open("files", "uploads", backup, RECOVERY, |path| {
        fs::create_dir_all(path.join("2026/05"))?;
        fs::write(path.join("index.html"), "<p>customer 499</p>")?;
        fs::write(path.join("empty"), "")?;
        for number in 0..200_u32 {
            fs::write(path.join(format!("2026/05/{number}.txt")), noise(number, (number as usize) * 97))?;
        }
        fs::write(path.join("2026/large.bin"), noise(1, 5 << 20))?;
        Ok(())
    })?;
    fs::create_dir(stage.gateway.folder().join("scratch"))?;
    Ok(stage)
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

impl Stage {
    pub(crate) fn uploads(&self) -> PathBuf {
        self.folder.path().join("uploads")
    }

    /// Compares by a program that is not ours.
    fn is_back_at(&self, to: &Path) -> Result<()> {
        run("diff", &["-r", "--no-dereference", &self.uploads().display().to_string(), &to.display().to_string()])
    }
}

#[test]
fn a_folder_is_copied_tried_and_comes_back() -> Result<()> {
    let stage = stage("assertions = [\"index.html\"]\nkeep = \"1s\"\n")?;
    stage.drill_fails("no copy")?;
    let first = stage.copy()?;
    assert_eq!(first["engine"], "files");
    let report = stage.drill_passes(5)?;
    assert!(report["report"]["rto_ms"].is_u64() && report["report"]["rpo_ms"].is_u64(), "{report}");
    stage.leaves_nothing()?;
    let list = stage.gateway.json(&["backup", "list", "--json"])?;
    assert!(list["points"][0]["verified"]["level"] == 5 && list["points"][0]["same_blast_radius"] == true, "{list}");
    assert!(stage.gateway.json(&["recovery", "status", "--json"])?["systems"][0]["unproven"].is_null());
    for object in stage.objects()? {
        let bytes = fs::read(&object)?;
        assert!(!bytes.windows(12).any(|window| window == b"customer 499"), "{} is in clear", object.display());
    }
    let to = stage.folder.path().join("back");
    stage.restore_fails(&stage.uploads().join("inside"), "what is protected")?;
    stage.restore(&to)?;
    stage.is_back_at(&to)?;
    stage.restore_fails(&to, "not empty")?;
    fs::write(stage.uploads().join("2026/another.txt"), "another")?;
    std::thread::sleep(Duration::from_millis(1_100));
    let second = stage.copy()?;
    stage.drill_passes(5)?;
    std::thread::sleep(Duration::from_millis(1_100));
    let third = stage.copy()?;
    assert_eq!(third["purged"], serde_json::json!([first["point"]]), "{third}");
    // Nothing changed: all but the list of keys is in the vault already.
    let added = |copy: &Value| copy["added_bytes"].as_u64().unwrap_or(u64::MAX);
    assert!(added(&third) < 10_000 && added(&second) > 10_000, "{second} {third}");
    stage.drill_passes(5)?;
    // The vault is found without the ledger, too.
    assert_eq!(stage.points()?, 2);
    assert_eq!(stage.gateway.json(&["vault", "verify", "--json"])?["ok"], true);
    stage.gateway.verify()?;
    Ok(())
}

#[test]
fn a_damaged_copy_is_never_green() -> Result<()> {
    let stage = stage("")?;
    stage.copy()?;
    stage.drill_passes(4)?;
    stage.is_red_when_damaged(4)
}

#[test]
fn whatever_a_name_or_a_link_says_it_comes_back_as_it_was_and_nothing_else_does() -> Result<()> {
    let stage = stage("")?;
    let (uploads, outside) = (stage.uploads(), stage.folder.path().join("outside"));
    fs::create_dir(&outside)?;
    fs::write(outside.join("secret"), "not yours")?;
    let names: [&[u8]; 12] = [
        b"new\nline",
        b"..\\..\\up",
        b"...",
        b"\xff\xfe no text",
        b"\x1b[31mred",
        b"-rf",
        b"a\\x2fb",
        b"quote\"'`$(touch x)",
        "rtl\u{202e}txt.exe".as_bytes(),
        b".reprieve-0000000000000000",
        b"part",
        &[b'n'; 255],
    ];
    for (number, name) in names.iter().enumerate() {
        fs::write(uploads.join(OsStr::from_bytes(name)), format!("contents {number}"))?;
    }
    let mut deep = uploads.clone();
    for _ in 0..60 {
        deep.push("d");
    }
    fs::create_dir_all(&deep)?;
    fs::write(deep.join("file"), "deep")?;
    // Links out, in, around and nowhere; all of them are links again.
    symlink(&outside, uploads.join("out"))?;
    symlink("../../../../../../../../etc/passwd", uploads.join("up"))?;
    symlink(".", uploads.join("self"))?;
    symlink("nowhere\n", uploads.join("nowhere"))?;
    // Two names of one file, a hole, modes that few have.
    fs::hard_link(uploads.join("index.html"), uploads.join("2026/index too"))?;
    let sparse = fs::File::create(uploads.join("sparse"))?;
    sparse.set_len(40 << 30)?;
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", (20 << 30) + 5)?;
    fs::set_permissions(uploads.join("empty"), fs::Permissions::from_mode(0o4751))?;
    fs::create_dir(uploads.join("closed"))?;
    fs::write(uploads.join("closed/file"), "closed")?;
    fs::set_permissions(uploads.join("closed"), fs::Permissions::from_mode(0o555))?;
    // What no copy can have.
    run("mkfifo", &[&uploads.join("pipe").display().to_string()])?;
    let _socket = std::os::unix::net::UnixListener::bind(uploads.join("socket"))?;
    let made = stage.copy()?;
    assert!(made["plain_bytes"].as_u64().is_some_and(|bytes| bytes < 30 << 20), "holes are not read: {made}");
    let report = stage.drill_passes(4)?;
    assert!(report.to_string().contains("2 sockets, pipes or devices"), "{report}");
    stage.leaves_nothing()?;
    let to = stage.folder.path().join("back");
    stage.restore(&to)?;
    fs::remove_file(uploads.join("pipe"))?;
    fs::remove_file(uploads.join("socket"))?;
    for (number, name) in names.iter().enumerate() {
        assert_eq!(fs::read_to_string(to.join(OsStr::from_bytes(name)))?, format!("contents {number}"));
    }
    for name in ["out", "up", "self", "nowhere"] {
        assert_eq!(fs::read_link(to.join(name))?, fs::read_link(uploads.join(name))?);
    }
    let (one, other) = (fs::metadata(to.join("index.html"))?, fs::metadata(to.join("2026/index too"))?);
    assert_eq!(one.ino(), other.ino(), "two names of one file again");
    let back = fs::metadata(to.join("sparse"))?;
    assert!(back.len() == 40 << 30 && back.blocks() < 1_000, "the hole is one again");
    let root = fs::metadata("/proc/self")?.uid() == 0;
    assert_eq!(fs::metadata(to.join("empty"))?.mode() & 0o7777, if root { 0o4751 } else { 0o751 });
    assert_eq!(fs::metadata(to.join("closed"))?.mode() & 0o7777, 0o555);
    assert_eq!(fs::read_dir(&outside)?.count(), 1);
    fs::remove_file(uploads.join("sparse"))?;
    fs::remove_file(to.join("sparse"))?;
    fs::set_permissions(uploads.join("empty"), fs::Permissions::from_mode(0o751))?;
    fs::set_permissions(to.join("empty"), fs::Permissions::from_mode(0o751))?;
    stage.is_back_at(&to)?;
    for path in [&to, &uploads] {
        fs::set_permissions(path.join("closed"), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[test]
fn attributes_and_access_lists_come_back_and_more_than_a_copy_keeps_fails_it() -> Result<()> {
    let stage = stage("")?;
    // By a program that is not ours.
    let python = |script: &str, path: &Path| -> Result<String> {
        let output = Command::new("python3").args(["-c", &format!("import os, sys\nat = sys.argv[1]\n{script}")]).arg(path).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let give = "
def may(tag, what, who=0xffffffff): return tag.to_bytes(2, 'little') + what.to_bytes(2, 'little') + who.to_bytes(4, 'little')
acl = (2).to_bytes(4, 'little') + may(1, 6) + may(2, 4, 1234) + may(4, 0) + may(16, 4) + may(32, 0)
os.setxattr(at + '/index.html', b'user.odd \\xff', bytes(range(256)))
os.setxattr(at + '/index.html', 'system.posix_acl_access', acl)
os.setxattr(at + '/2026', 'system.posix_acl_default', acl)";
    if let Err(error) = python(give, &stage.uploads()) {
        eprintln!("SKIPPED: no python3, or a temporary folder without extended attributes: {error:#}");
        return Ok(());
    }
    let all = "
for name in ['', '/index.html', '/empty', '/2026', '/2026/05', '/2026/05/7.txt', '/2026/large.bin']:
    kept = [each for each in os.listxattr(at + name) if each.startswith(('user.', 'system.posix_acl_'))]
    print(name, oct(os.stat(at + name).st_mode), [(each, os.getxattr(at + name, each)) for each in sorted(kept)])";
    let before = python(all, &stage.uploads())?;
    assert_eq!(before.matches("posix_acl").count(), 2, "{before}");
    stage.copy()?;
    let report = stage.drill_passes(4)?;
    assert!(report.to_string().contains("2 files and folders with extended attributes or access lists"), "{report}");
    let to = stage.folder.path().join("back");
    stage.restore(&to)?;
    assert_eq!(python(all, &to)?, before);
    python("for number in range(101): os.setxattr(at, f'user.{number}', b'')", &stage.uploads().join("2026/large.bin"))?;
    stage.copy_fails("`2026/large.bin` has more extended attributes")
}

#[test]
fn what_should_not_be_copied_is_not_and_it_is_told() -> Result<()> {
    let stage = stage("")?;
    let uploads = stage.uploads();
    // A file that never stays as it is.
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, path) = (stop.clone(), uploads.join("log"));
    // Larger than what is read ahead, so that reading it takes its time.
    fs::write(&path, noise(3, 6 << 20))?;
    let writer = std::thread::spawn(move || -> Result<()> {
        let file = fs::OpenOptions::new().write(true).open(&path)?;
        while !stopped.load(Ordering::Relaxed) {
            std::os::unix::fs::FileExt::write_all_at(&file, b"!", 0)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    let failed = stage.copy_fails("changed each of");
    stop.store(true, Ordering::Relaxed);
    writer.join().map_err(|_| anyhow::anyhow!("the writer died"))??;
    failed?;
    fs::remove_file(uploads.join("log"))?;
    // Deeper than anything can be brought back.
    let mut deep = uploads.join("deep");
    for _ in 0..110 {
        deep.push("d");
    }
    fs::create_dir_all(&deep)?;
    stage.copy_fails("too deep")?;
    fs::remove_dir_all(uploads.join("deep"))?;
    // Nothing in it any more: an accident, not something to keep.
    stage.copy()?;
    fs::remove_dir_all(&uploads)?;
    stage.copy_fails("open the folder")?;
    fs::create_dir_all(uploads.join("2026"))?;
    stage.copy_fails("not a single file")?;
    stage.drill_passes(4).map(drop)
}

#[test]
fn a_folder_that_is_never_quiet_is_copied_whole_file_by_whole_file() -> Result<()> {
    let stage = stage("band = 50\nmay_be_empty = [\"a/\", \"z/\"]\n")?;
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, uploads) = (stop.clone(), stage.uploads());
    // Files are moved about, replaced, added and removed; each is of one byte, over and over, whenever it is looked at.
    let writer = std::thread::spawn(move || -> Result<u32> {
        let mut round = 0_u32;
        fs::create_dir_all(uploads.join("a"))?;
        fs::create_dir_all(uploads.join("z"))?;
        fs::write(uploads.join("z/moved"), "moved")?;
        while !stopped.load(Ordering::Relaxed) {
            round += 1;
            let byte = b'a' + u8::try_from(round % 26)?;
            fs::write(uploads.join("new"), vec![byte; 40_000])?;
            fs::rename(uploads.join("new"), uploads.join(format!("2026/05/same {}", round % 7)))?;
            if round.is_multiple_of(20) {
                let (from, to) = if round.is_multiple_of(40) { ("a", "z") } else { ("z", "a") };
                fs::rename(uploads.join(from).join("moved"), uploads.join(to).join("moved"))?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(round)
    });
    let to = stage.folder.path().join("back");
    fs::create_dir(&to)?;
    let copied = (0..3).try_for_each(|round| -> Result<()> {
        stage.copy()?;
        stage.drill_passes(4)?;
        stage.restore(&to.join(round.to_string())).map(drop)
    });
    stop.store(true, Ordering::Relaxed);
    let rounds = writer.join().map_err(|_| anyhow::anyhow!("the writer died"))??;
    copied?;
    assert!(rounds > 10, "{rounds} rounds");
    for round in 0..3 {
        let back = to.join(round.to_string());
        assert!(back.join("a/moved").exists() || back.join("z/moved").exists(), "what was moved about is in neither place");
        for file in fs::read_dir(back.join("2026/05"))? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with("same") {
                let bytes = fs::read(file.path())?;
                assert!(bytes.len() == 40_000 && bytes.iter().all(|byte| *byte == bytes[0]), "{} is of two moments", file.path().display());
            }
        }
    }
    Ok(())
}

#[test]
fn the_vault_is_not_copied_into_itself_and_what_is_left_out_is_not_copied() -> Result<()> {
    let stage = stage("leave_out = [\"2026\"]\n")?;
    stage.copy()?;
    stage.drill_passes(4)?;
    let to = stage.folder.path().join("back");
    stage.restore(&to)?;
    assert!(to.join("index.html").exists() && !to.join("2026").exists());
    let settings = stage.gateway.folder().join("reprieve.toml");
    let text = fs::read_to_string(&settings)?;
    let own = format!("path = \"{}\"", stage.gateway.folder().display());
    let around = text.replace(&format!("path = \"{}\"", stage.uploads().display()), &own);
    fs::write(stage.gateway.folder().join("around.toml"), around)?;
    let output = stage.gateway.cli(&["--config", "around.toml", "backup", "now", "shop", "--json"])?;
    assert!(
        !output.status.success() && answer(&output)?["error"].as_str().is_some_and(|said| said.contains("the vault lies in")),
        "{output:?}"
    );
    for (wrong, why) in [
        ("leave_out = [\"2026\"]", "leave_out = [\"../x\"]"),
        ("kind = \"files\"", "kind = \"sqlite\""),
        ("path = \"", "url = \"env:X\"\npath = \""),
        ("leave_out = [\"2026\"]", "wal = \"stream\""),
    ]
    .map(|(from, to)| (text.replace(from, to), to))
    {
        fs::write(stage.gateway.folder().join("wrong.toml"), wrong)?;
        assert!(!stage.gateway.cli(&["--config", "wrong.toml", "backup", "now", "shop"])?.status.success(), "{why}");
    }
    let checked = stage.gateway.json(&["check", "--json"])?;
    assert!(checked["systems"][0]["there"] == true, "{checked}");
    assert!(stage.gateway.agent("helper", &["shop"], "read").is_err_and(|error| format!("{error:#}").contains("only copied")));
    Ok(())
}
