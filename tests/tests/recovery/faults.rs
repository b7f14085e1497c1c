//! What goes wrong around copies: a vault that is slow, full or overloaded, clocks, keys, room. Each ends in a clear failure and in an
//! alarm, and nothing is green afterwards that was not tried.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use super::*;

/// A bucket that answers one thing to whoever stores a copy, or nothing at all.
#[derive(Clone)]
struct Odd {
    port: u16,
    /// What storing an object is answered with; none: nothing, ever.
    status: Option<u16>,
}

impl Odd {
    fn start(status: Option<u16>) -> Result<Odd> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let odd = Odd { port: listener.local_addr()?.port(), status };
        let (shared, kept) = (odd.clone(), Arc::new(Mutex::new(HashMap::new())));
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, kept) = (shared.clone(), kept.clone());
                thread::spawn(move || drop(shared.serve(stream, &kept)));
            }
        });
        Ok(odd)
    }

    fn serve(&self, stream: TcpStream, kept: &Mutex<HashMap<String, Vec<u8>>>) -> Result<()> {
        let (mut reader, mut writer) = (BufReader::new(stream.try_clone()?), stream);
        loop {
            let mut first = String::new();
            if reader.read_line(&mut first)? == 0 {
                return Ok(());
            }
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                if line.trim().is_empty() {
                    break;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse()?;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let mut words = first.split_whitespace();
            let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
            let (status, body) = match (method, target.contains('?')) {
                // In one piece, or the beginning of one that is sent in parts.
                ("PUT" | "POST", _) if target.contains("/objects/") => match self.status {
                    Some(status) => (status, Vec::new()),
                    None => {
                        thread::sleep(Duration::from_secs(600));
                        return Ok(());
                    }
                },
                ("PUT", false) => {
                    kept.lock().expect("no panic").insert(target, body);
                    (200, Vec::new())
                }
                ("GET" | "HEAD", false) => {
                    kept.lock().expect("no panic").get(&target).map_or((404, Vec::new()), |body| (200, body.clone()))
                }
                ("GET", true) if target.contains("list-type") => {
                    (200, b"<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>".to_vec())
                }
                _ => (501, Vec::new()),
            };
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nETag: \"1\"\r\nLast-Modified: Mon, 02 Nov 2026 00:00:00 GMT\r\n\r\n",
                body.len()
            );
            writer.write_all(head.as_bytes())?;
            if method != "HEAD" {
                writer.write_all(&body)?;
            }
        }
    }

    fn stage(&self) -> Result<Stage> {
        let environment = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let vault =
            format!("[vault]\nstore = \"s3://bucket/copies\"\nendpoint = \"http://127.0.0.1:{}\"\nregion = \"us-east-1\"\n", self.port);
        Stage::open_in("", &vault, environment)
    }
}

impl Stage {
    /// A copy that has to fail, with `why` in its reason; the ledger has the failure and an alarm.
    fn copy_fails(&self, mut command: Command, why: &str) -> Result<()> {
        let before = self.events("backup_failed")?.len();
        let output = command.output()?;
        ensure!(!output.status.success(), "it was copied");
        let error = answer(&output)?["error"].as_str().unwrap_or_default().to_owned();
        ensure!(error.contains(why), "the error has no {why:?}: {error}");
        ensure!(self.events("backup_failed")?.len() == before + 1, "the ledger has no failure");
        let told = |event: &Value| event["what"].as_str().is_some_and(|what| what.contains("no copy of `shop`") && what.contains(why));
        self.wait("there is an alarm", || Ok(self.events("alarm")?.iter().any(told)))
    }

    /// The program, in the gateway's folder, run by a shell after something else.
    fn after(&self, first: &str, arguments: &str) -> Result<Command> {
        let mut command = Command::new("sh");
        command.current_dir(self.gateway.folder()).args(["-c", &format!("{first}; exec \"$0\" {arguments} --json")]);
        command.arg(reprieve_testkit::program()?);
        command.env("GUARDED_0_URL", self.server.url("app", "secret", "shop"));
        command.env("GUARDED_0_ADMIN_URL", self.server.superuser_url("shop"));
        command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "secret");
        Ok(command)
    }
}

#[test]
fn a_vault_that_is_overloaded_or_without_room_is_told_of() -> Result<()> {
    for status in [503, 507] {
        let stage = Odd::start(Some(status))?.stage()?;
        stage.copy_fails(stage.after(":", "backup now shop")?, "the vault is away")?;
        stage.drill_fails("no copy")?;
    }
    Ok(())
}

#[test]
fn a_vault_that_never_answers_ends_a_copy_in_time() -> Result<()> {
    let stage = Odd::start(None)?.stage()?;
    let began = Instant::now();
    stage.copy_fails(stage.after(":", "backup now shop")?, "the vault is away")?;
    ensure!(began.elapsed() < Duration::from_secs(180), "{:?}", began.elapsed());
    stage.drill_fails("no copy")?;
    Ok(())
}

#[test]
fn a_folder_without_room_takes_no_half_copies() -> Result<()> {
    let stage = Stage::open("", "")?;
    stage.copy()?;
    let before = stage.objects()?;
    // No file may be larger than this: as on a disk that is full. Other rows, so that there is something to store.
    stage.server.psql("shop", "UPDATE orders SET note = md5(id::text) || md5((id + 1)::text); CHECKPOINT")?;
    stage.copy_fails(stage.after("ulimit -f 600; trap '' XFSZ", "backup now shop")?, "full")?;
    let now = stage.objects()?;
    ensure!(before.iter().all(|object| now.contains(object)), "what was there is gone");
    let list = stage.gateway.json(&["backup", "list", "--vault", "--json"])?;
    ensure!(list["points"].as_array().map(Vec::len) == Some(1), "half a copy is a copy: {list}");
    // The one that is whole still comes back, and with room the next one is made.
    ensure!(stage.drill()?.1);
    stage.copy()?;
    ensure!(stage.drill()?.1);
    Ok(())
}

#[test]
fn a_bound_on_the_vault_is_a_failure_and_not_half_a_copy() -> Result<()> {
    let stage = Stage::open("", "[vault]\nmax_bytes = \"200KiB\"\n")?;
    stage.copy_fails(stage.after(":", "backup now shop")?, "full")?;
    stage.drill_fails("no copy")?;
    Ok(())
}

#[test]
fn a_copier_whose_clock_is_ahead_makes_nothing_green() -> Result<()> {
    let stage = Stage::open("", "")?;
    stage.copy()?;
    ensure!(stage.drill()?.1);
    // A day ahead, for the program and for everything that it runs.
    let folder = tempfile::tempdir()?;
    let (source, library) = (folder.path().join("ahead.c"), folder.path().join("ahead.so"));
    fs::write(
        &source,
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <time.h>\n#include <sys/time.h>\n\
         int clock_gettime(clockid_t c, struct timespec *t) {\n\
           static int (*real)(clockid_t, struct timespec *);\n\
           if (!real) real = dlsym(RTLD_NEXT, \"clock_gettime\");\n\
           int r = real(c, t); if (c == CLOCK_REALTIME) t->tv_sec += 86400; return r; }\n",
    )?;
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").output()?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let ahead = format!("export LD_PRELOAD={}", library.display());
    let output = stage.after(&ahead, "backup now shop")?.output()?;
    ensure!(!output.status.success(), "the gateway took a copy from the future: {output:?}");
    ensure!(answer(&output)?["error"].as_str().is_some_and(|error| error.contains("from the future")), "{output:?}");
    ensure!(stage.events("backup_made")?.len() == 1);
    // It lies in the vault, signed, and newer than every other. Who looks there does not believe it.
    let list = stage.gateway.json(&["backup", "list", "--vault", "--json"])?;
    ensure!(list["points"].as_array().map(Vec::len) == Some(2), "{list}");
    let output = stage.gateway.cli(&["drill", "run", "shop", "--vault", "--json"])?;
    let report = answer(&output)?["report"].clone();
    ensure!(!output.status.success() && report["reason"].as_str().is_some_and(|why| why.contains("clock")), "{report}");
    // A verifier whose clock is wrong proves nothing either.
    let output = stage.after(&ahead, "drill run shop")?.output()?;
    ensure!(!output.status.success() && answer(&output)?["report"]["passed"] == false, "{output:?}");
    ensure!(stage.events("drill_passed")?.len() == 1);
    Ok(())
}

#[test]
fn copies_outlive_the_key_that_they_were_sealed_to() -> Result<()> {
    let stage = Stage::open("", "")?;
    let old = stage.copy()?["point"].clone();
    let keys = stage.gateway.folder().join("keys");
    // The key is changed: what is copied from now on is sealed to another one.
    let kept = stage.gateway.folder().join("old.identity");
    fs::rename(keys.join("recovery.identity"), &kept)?;
    let first = fs::read_to_string(keys.join("recovery.recipient"))?.trim().to_owned();
    fs::remove_file(keys.join("recovery.recipient"))?;
    stage.gateway.json(&["recovery", "kit", "--json"]).ok();
    let second = fs::read_to_string(keys.join("recovery.recipient"))?.trim().to_owned();
    ensure!(first != second);
    // The newest copy is sealed to the old one: the drill says to which, and which it has.
    let answer = stage.drill_fails(&first)?;
    ensure!(answer["report"]["reason"].as_str().is_some_and(|reason| reason.contains(&second)), "{answer}");
    stage.copy()?;
    ensure!(stage.drill()?.1, "with the new one");
    // The old copy still comes back, with the old identity.
    let settings = fs::read_to_string(stage.gateway.folder().join("reprieve.toml"))?;
    let recovery = format!("{settings}\n[recovery]\nidentity = \"old.identity\"\nrecipients = [\"{second}\"]\n");
    fs::write(stage.gateway.folder().join("old.toml"), recovery)?;
    let place = new_place(&stage, "old")?;
    let to = place.display().to_string();
    let restore = ["restore", "shop", "--to", &to, "--point", old.as_str().unwrap_or_default(), "--reason", "an old one"];
    stage.gateway.operate(&[["--config", "old.toml"].as_slice(), &restore].concat())?;
    ensure!(place.join("PG_VERSION").exists());
    fs::remove_dir_all(&place)?;
    Ok(())
}

#[test]
fn a_drill_on_a_machine_without_room_fails_and_leaves_nothing() -> Result<()> {
    let stage = Stage::open("", "[recovery]\nscratch = \"small\"\n")?;
    let small = stage.gateway.folder().join("small");
    fs::create_dir(&small)?;
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs"]).arg(&small).output()?;
    if !mounted.status.success() {
        eprintln!("skipped: mounting a small disk takes root");
        return Ok(());
    }
    let tried = || -> Result<()> {
        stage.copy()?;
        stage.drill_fails("no room")?;
        ensure!(fs::read_dir(&small)?.next().is_none(), "something stays");
        Ok(())
    };
    let tried = tried();
    Command::new("umount").arg(&small).output()?;
    tried
}

/// A copy that was proved proves nothing once it is not where it was put: in another vault, or after somebody's hand. That is seen without a drill.
#[test]
fn a_copy_that_is_not_where_it_was_put_proves_nothing() -> Result<()> {
    let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut stage = Stage::open_in("", "[vault]\nstore = \"file:vault\"\n", keys.to_vec())?;
    stage.copy()?;
    ensure!(stage.drill()?.1);
    let standing = |stage: &Stage| -> Result<Value> {
        let told = stage.gateway.cli(&["recovery", "status", "--json"])?;
        let system = answer(&told)?["systems"][0].clone();
        ensure!(told.status.success() == system["unproven"].is_null(), "{system}");
        Ok(system["unproven"].clone())
    };
    let missing = |stage: &Stage, events: usize| -> Result<()> {
        stage.wait("it is missed", || Ok(standing(stage)? == "missing"))?;
        ensure!(stage.events("backup_missing")?.len() == events, "told more than once");
        let alarms = stage.events("alarm")?;
        ensure!(alarms.iter().any(|event| event["what"].as_str().is_some_and(|what| what.contains("is not in the vault"))), "{alarms:?}");
        Ok(())
    };
    ensure!(standing(&stage)?.is_null());
    // A restart alone changes nothing.
    stage.gateway.restart()?;
    let settings = stage.gateway.folder().join("reprieve.toml");
    let before = fs::read_to_string(&settings)?;
    ensure!(before.contains("file:vault\""), "{before}");
    fs::write(&settings, before.replace("file:vault\"", "file:another\""))?;
    stage.gateway.restart()?;
    missing(&stage, 1)?;
    let list = stage.gateway.json(&["backup", "list", "--json"])?;
    ensure!(list["points"][0]["there"] == false, "{list}");
    // The vault from before alone makes nothing green, nor does an older copy in it: a new copy does, and its drill.
    fs::write(&settings, &before)?;
    stage.gateway.restart()?;
    let (_, passed) = stage.drill()?;
    ensure!(passed && standing(&stage)? == "missing");
    stage.copy()?;
    ensure!(standing(&stage)? == "no_drill");
    ensure!(stage.drill()?.1 && standing(&stage)?.is_null());
    // Somebody deletes the manifest of the newest one.
    let list = stage.gateway.json(&["backup", "list", "--json"])?;
    ensure!(list["points"][0]["there"] == true, "{list}");
    let manifest = list["points"][0]["manifest"].as_str().context("a manifest")?;
    let object = stage.objects()?.into_iter().find(|path| path.display().to_string().replace('/', "").ends_with(manifest));
    fs::remove_file(object.context("the manifest's object")?)?;
    stage.gateway.restart()?;
    missing(&stage, 2)?;
    // One that can't be looked for is not missed.
    stage.copy()?;
    ensure!(stage.drill()?.1 && standing(&stage)?.is_null());
    let nowhere = "store = \"s3://bucket/copies\"\nendpoint = \"http://127.0.0.1:9\"\nregion = \"us-east-1\"";
    fs::write(&settings, before.replace("store = \"file:vault\"", nowhere))?;
    stage.gateway.restart()?;
    stage.wait("it was looked for", || Ok(stage.gateway.log().contains("it can't be told whether the newest copy is in the vault")))?;
    ensure!(stage.events("backup_missing")?.len() == 2 && standing(&stage)?.is_null());
    Ok(())
}
