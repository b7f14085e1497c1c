//! The wire as a client sees it: the same bytes sent to the server and to the gateway get the same replies.
//!
//! Replies are compared message by message, errors field by field; only what differs between any two sessions (process ids
//! and keys) is left out. Sockets are plain ones, so that segments end where the test wants them to.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use reprieve_testkit::{Gateway, GatewayOptions, GuardedSystem};
use reprieve_tests::{Site, connect, denied};

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| Site::open(GatewayOptions::default()).expect("a site"))
}

/// The agent that all comparisons use.
fn url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| site().agent("protocol").expect("an agent"))
}

/// One message of a server.
type Reply = (char, Vec<u8>);

/// A connection whose bytes we make ourselves.
struct Raw {
    socket: TcpStream,
    startup: Vec<Reply>,
    key: Option<(i32, i32)>,
}

impl Raw {
    fn open(url: &str, more: &[(&str, &str)]) -> Result<Raw> {
        let mut raw = Raw::knock(url, more)?;
        let last = raw.startup.last().context("no reply to the startup")?;
        ensure!(last.0 == 'Z', "turned away: {}", shown(std::slice::from_ref(last)));
        raw.key = raw.startup.iter().find(|(tag, _)| *tag == 'K').and_then(|(_, body)| {
            let part = |range: std::ops::Range<usize>| Some(i32::from_be_bytes(body.get(range)?.try_into().ok()?));
            Some((part(0..4)?, part(4..8)?))
        });
        Ok(raw)
    }

    /// Goes as far as the server lets us.
    fn knock(url: &str, more: &[(&str, &str)]) -> Result<Raw> {
        let rest = url.strip_prefix("postgres://").context("a URL")?;
        let (who, place) = rest.split_once('@').context("a URL with credentials")?;
        let (user, password) = who.split_once(':').context("a URL with a password")?;
        let (address, database) = place.split_once('/').context("a URL with a database")?;
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut raw = Raw { socket, startup: Vec::new(), key: None };
        let mut parameters = vec![("user", user), ("database", database), ("client_encoding", "UTF8")];
        parameters.extend(more);
        raw.send(|out| frontend::startup_message(parameters, out))?;
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let (tag, body) = raw.reply()?;
            match (tag, body.get(..4).map(|word| word[3])) {
                ('R', Some(10)) => raw.send(|out| frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), out))?,
                ('R', Some(11)) => {
                    scram.update(&body[4..])?;
                    raw.send(|out| frontend::sasl_response(scram.message(), out))?;
                }
                ('R', Some(12)) => scram.finish(&body[4..])?,
                ('R', Some(0)) => {}
                ('Z' | 'E', _) => {
                    raw.startup.push((tag, body));
                    return Ok(raw);
                }
                _ => raw.startup.push((tag, body)),
            }
        }
    }

    /// Sends what is written, in one segment as far as that is ours to say.
    fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<()> {
        let mut out = BytesMut::new();
        write(&mut out)?;
        Ok(self.socket.write_all(&out)?)
    }

    fn reply(&mut self) -> Result<Reply> {
        let mut head = [0_u8; 5];
        self.socket.read_exact(&mut head).context("no reply")?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length.checked_sub(4).context("a length of less than four")?];
        self.socket.read_exact(&mut body).context("half a reply")?;
        Ok((char::from(head[0]), body))
    }

    /// Reads until `count` messages of this kind have come.
    fn until(&mut self, tag: char, count: usize) -> Result<Vec<Reply>> {
        let mut replies = Vec::new();
        let mut left = count;
        while left > 0 {
            let reply = self.reply().with_context(|| format!("after {}", shown(&replies)))?;
            left -= usize::from(reply.0 == tag);
            replies.push(reply);
        }
        Ok(replies)
    }
}

/// Replies for people, and for comparing.
fn shown(replies: &[Reply]) -> String {
    let lines: Vec<String> = replies
        .iter()
        .map(|(tag, body)| match tag {
            // The process that notifies is another one in each session; keys are secrets.
            'A' => format!("A {}", String::from_utf8_lossy(&body[4..])),
            'K' => "K".to_owned(),
            _ => format!("{tag} {}", body.escape_ascii()),
        })
        .collect();
    lines.join("\n")
}

/// What a client does: what it sends at once, then how much it reads before it goes on.
struct Turn {
    bytes: BytesMut,
    until: char,
    count: usize,
}

/// Messages written one after another.
#[derive(Default)]
struct Script {
    turns: Vec<Turn>,
    bytes: BytesMut,
}

impl Script {
    fn query(mut self, text: &str) -> Self {
        frontend::query(text, &mut self.bytes).expect("a query");
        self
    }
    fn parse(mut self, name: &str, text: &str) -> Self {
        frontend::parse(name, text, std::iter::empty(), &mut self.bytes).expect("a parse");
        self
    }
    fn bind(mut self, portal: &str, statement: &str, values: &[Option<&str>]) -> Self {
        let value = |value: &Option<&str>, out: &mut BytesMut| match value {
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        };
        let bound = frontend::bind(portal, statement, std::iter::empty(), values, value, std::iter::empty(), &mut self.bytes);
        assert!(bound.is_ok(), "a bind");
        self
    }
    fn describe(mut self, kind: u8, name: &str) -> Self {
        frontend::describe(kind, name, &mut self.bytes).expect("a describe");
        self
    }
    fn execute(mut self, portal: &str, rows: i32) -> Self {
        frontend::execute(portal, rows, &mut self.bytes).expect("an execute");
        self
    }
    fn close(mut self, kind: u8, name: &str) -> Self {
        frontend::close(kind, name, &mut self.bytes).expect("a close");
        self
    }
    /// A whole statement by the unnamed names.
    fn run(self, text: &str, values: &[Option<&str>]) -> Self {
        self.parse("", text).bind("", "", values).describe(b'P', "").execute("", 0)
    }
    fn sync(mut self) -> Self {
        frontend::sync(&mut self.bytes);
        self
    }
    fn flush(mut self) -> Self {
        // The crate has no function for it.
        self.bytes.extend_from_slice(b"H\0\0\0\x04");
        self
    }
    fn copy_data(mut self, text: &str) -> Self {
        frontend::CopyData::new(text.as_bytes()).expect("data").write(&mut self.bytes);
        self
    }
    fn copy_done(mut self) -> Self {
        frontend::copy_done(&mut self.bytes);
        self
    }
    fn copy_fail(mut self, why: &str) -> Self {
        frontend::copy_fail(why, &mut self.bytes).expect("a failure");
        self
    }
    /// Sends, and reads up to so many ReadyForQuery.
    fn ready(self, count: usize) -> Self {
        self.read('Z', count)
    }
    fn read(mut self, until: char, count: usize) -> Self {
        self.turns.push(Turn { bytes: self.bytes.split(), until, count });
        self
    }
}

const SETUP: &str = "DROP TABLE IF EXISTS probe_child, probe;
    CREATE TABLE probe (id int PRIMARY KEY, word text NOT NULL DEFAULT 'x', n int CONSTRAINT small CHECK (n < 1000));
    CREATE TABLE probe_child (id int PRIMARY KEY, probe_id int REFERENCES probe);
    INSERT INTO probe SELECT n, 'word ' || n, n FROM generate_series(1, 20) n;
    INSERT INTO probe_child VALUES (1, 1)";

/// Plays a script at one place, and reads what the tables hold afterwards.
fn play(url: &str, more: &[(&str, &str)], script: &Script) -> Result<String> {
    let mut raw = Raw::open(url, more)?;
    let mut told = String::new();
    for turn in &script.turns {
        raw.socket.write_all(&turn.bytes)?;
        let replies = raw.until(turn.until, turn.count).with_context(|| format!("so far:\n{told}"))?;
        told += &shown(&replies);
        told += "\n--\n";
    }
    Ok(told)
}

/// The server and the gateway say the same, and leave the same behind.
fn same(script: Script) -> Result<()> {
    same_at(url(), script)
}

/// The same through a gateway that holds nothing back, on the same database.
fn same_if_allowed(script: Script) -> Result<()> {
    static ALLOWING: OnceLock<(Gateway, String)> = OnceLock::new();
    let (_gateway, url) = ALLOWING.get_or_init(|| {
        let systems = vec![GuardedSystem::new("shop", "staging", &site().direct_url())];
        let options = GatewayOptions { systems, profile: "observe".to_owned(), ..GatewayOptions::default() };
        let gateway = Gateway::start(options).expect("a gateway");
        let url = gateway.agent("protocol", &["shop"], "read,write,destroy,grant").expect("an agent");
        (gateway, url)
    });
    same_at(url, script)
}

fn same_at(url: &str, script: Script) -> Result<()> {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let site = site();
    site.direct("CREATE TABLE IF NOT EXISTS made (id int)")?;
    // Kept between the two runs, so that object ids in descriptions are the same.
    let reset = "TRUNCATE probe, probe_child, made;
        INSERT INTO probe SELECT n, 'word ' || n, n FROM generate_series(1, 20) n; INSERT INTO probe_child VALUES (1, 1)";
    if site.direct("SELECT to_regclass('probe') IS NULL")? == "t" {
        site.direct(SETUP)?;
    }
    let left = || site.direct("SELECT * FROM probe ORDER BY 1; SELECT * FROM probe_child ORDER BY 1; SELECT * FROM made ORDER BY 1");
    site.direct(reset)?;
    let expected = play(&site.direct_url(), &[], &script).context("the server")?;
    let expected_rows = left()?;
    site.direct(reset)?;
    let told = play(url, &[], &script).context("the gateway")?;
    if told != expected {
        bail!("the server said\n{expected}\nand the gateway said\n{told}");
    }
    ensure!(left()? == expected_rows, "the tables hold something else than without the gateway");
    Ok(())
}

#[test]
fn simple_queries() -> Result<()> {
    let mut script = Script::default();
    for text in [
        "SELECT 1",
        "",
        ";",
        " -- nothing\n",
        "SELECT 'a' AS x, NULL, 1.5::numeric; SELECT 2",
        "SELECT * FROM probe ORDER BY id LIMIT 3",
        "INSERT INTO probe (id, n) VALUES (30, 1), (31, 2) RETURNING id, word",
        "UPDATE probe SET n = n + 1 WHERE id = 30",
        "DELETE FROM probe WHERE id = 31",
        "SELECT 1; SELECT 1/0; SELECT 2",
        "INSERT INTO made VALUES (1); SELECT 1/0",
        "SHOW server_version",
        "VALUES (1, 'b'), (2, 'c')",
    ] {
        script = script.query(text).ready(1);
    }
    same(script)
}

#[test]
fn transactions_in_one_text_and_in_many() -> Result<()> {
    let mut script = Script::default();
    for text in [
        "BEGIN; INSERT INTO made VALUES (1); COMMIT",
        "BEGIN; INSERT INTO made VALUES (2); ROLLBACK",
        "INSERT INTO made VALUES (3); INSERT INTO made VALUES (4)",
        // `INSERT …; COMMIT` is left out: the warning is the same, but for the line of the server's source it comes from.
        "BEGIN; INSERT INTO made VALUES (6); COMMIT; INSERT INTO made VALUES (7); SELECT 1/0",
        "COMMIT",
        "ROLLBACK",
        "BEGIN",
        "BEGIN",
        "INSERT INTO made VALUES (8)",
        "SELECT 1/0",
        "SELECT 1",
        "INSERT INTO made VALUES (9)",
        "COMMIT",
        "BEGIN",
        "INSERT INTO made VALUES (10)",
        "SAVEPOINT a",
        "INSERT INTO made VALUES (11)",
        "SELECT 1/0",
        "ROLLBACK TO a",
        "INSERT INTO made VALUES (12)",
        "RELEASE a",
        "ROLLBACK TO a",
        "ROLLBACK",
        "START TRANSACTION READ ONLY",
        "INSERT INTO made VALUES (13)",
        "END",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "SHOW transaction_isolation",
        "INSERT INTO made VALUES (14)",
        "COMMIT",
        "SELECT count(*) FROM made",
    ] {
        script = script.query(text).ready(1);
    }
    same(script)
}

#[test]
fn errors_come_with_every_field() -> Result<()> {
    let mut script = Script::default();
    for text in [
        "SELEC 1",
        "SELECT nothing FROM probe",
        "SELECT * FROM nowhere",
        "INSERT INTO probe (id) VALUES (1)",
        "INSERT INTO probe (id, word) VALUES (99, NULL)",
        "INSERT INTO probe (id, n) VALUES (99, 5000)",
        "INSERT INTO probe_child VALUES (2, 77)",
        "DELETE FROM probe WHERE id = 1",
        "UPDATE probe SET id = 2 WHERE id = 3",
        "SELECT 'x'::int",
        "SELECT wurd FROM probe",
        "SELECT 1; SELECT bad_column FROM probe",
        "INSERT INTO made VALUES (1); INSERT INTO probe (id) VALUES (1)",
        "SELECT pg_typeof(1), nope()",
    ] {
        script = script.query(text).ready(1);
    }
    for text in
        ["INSERT INTO probe (id, n) VALUES ($1, 5000)", "SELECT $1::int / 0", "SELECT FROM WHERE", "INSERT INTO probe (id) VALUES ($1)"]
    {
        script = script.run(text, &[Some("1")]).sync().ready(1);
    }
    same(script)
}

#[test]
fn the_extended_protocol() -> Result<()> {
    let insert = "INSERT INTO probe (id, n) VALUES ($1, $2) RETURNING id";
    let script = Script::default()
        .run("SELECT $1::int + 1", &[Some("41")])
        .sync()
        .ready(1)
        .run("", &[])
        .sync()
        .ready(1)
        .parse("named", "SELECT word FROM probe WHERE id = $1")
        .describe(b'S', "named")
        .sync()
        .ready(1)
        .bind("", "named", &[Some("3")])
        .execute("", 0)
        .bind("p", "named", &[Some("4")])
        .describe(b'P', "p")
        .execute("p", 0)
        .close(b'P', "p")
        .sync()
        .ready(1)
        .parse("named", "SELECT 1")
        .sync()
        .ready(1)
        .close(b'S', "named")
        .close(b'S', "never")
        .sync()
        .ready(1)
        .bind("", "named", &[])
        .sync()
        .ready(1)
        .parse("w", insert)
        .describe(b'S', "w")
        .sync()
        .ready(1)
        .bind("", "w", &[Some("40"), None])
        .execute("", 0)
        .bind("", "w", &[Some("41"), Some("1")])
        .execute("", 0)
        .sync()
        .ready(1)
        .bind("", "w", &[Some("42")])
        .execute("", 0)
        .sync()
        .ready(1)
        .run("UPDATE probe SET n = 0 WHERE id = $1", &[Some("40")])
        .sync()
        .ready(1)
        .run("BEGIN", &[])
        .run("DELETE FROM probe WHERE id = 41", &[])
        .run("COMMIT", &[])
        .sync()
        .ready(1)
        .execute("gone", 0)
        .sync()
        .ready(1)
        .describe(b'S', "gone")
        .sync()
        .ready(1)
        .parse("", "SELECT 1; SELECT 2")
        .sync()
        .ready(1)
        .query("PREPARE q AS SELECT 7; EXECUTE q; DEALLOCATE q")
        .ready(1);
    same(script)
}

#[test]
fn pipelines_with_several_syncs_in_one_segment() -> Result<()> {
    let insert = "INSERT INTO made VALUES ($1)";
    let script = Script::default()
        .run("SELECT 1", &[])
        .sync()
        .run(insert, &[Some("1")])
        .sync()
        .sync()
        .run("SELECT 2", &[])
        .run(insert, &[Some("2")])
        .run("SELECT count(*) FROM made", &[])
        .sync()
        .run(insert, &[Some("3")])
        .run(insert, &[Some("4")])
        .sync()
        .query("SELECT 'simple'")
        .ready(6)
        // A segment that begins with a Sync.
        .run(insert, &[Some("5")])
        .flush()
        .read('C', 1)
        .sync()
        .run("SELECT count(*) FROM made", &[])
        .sync()
        .ready(2);
    same(script)
}

#[test]
fn an_error_skips_to_the_next_sync() -> Result<()> {
    let insert = "INSERT INTO made VALUES ($1)";
    let script = Script::default()
        .run(insert, &[Some("1")])
        .run("SELECT 1/0", &[])
        .run(insert, &[Some("2")])
        .sync()
        .run(insert, &[Some("3")])
        .sync()
        .ready(2)
        .run(insert, &[Some("4")])
        .parse("", "SELEC")
        .bind("", "", &[])
        .execute("", 0)
        .run(insert, &[Some("5")])
        .sync()
        .run("SELECT count(*) FROM made", &[])
        .sync()
        .ready(2)
        .run(insert, &[Some("6")])
        .run("INSERT INTO probe (id) VALUES (1)", &[])
        .sync()
        .query("SELECT count(*) FROM made")
        .ready(2);
    same(script)
}

#[test]
#[ignore = "a batch is kept back until its Sync or Flush, and so is its error: docs/decisions/003"]
fn an_error_comes_at_once_without_a_sync() -> Result<()> {
    let script = Script::default()
        .parse("", "SELEC")
        .read('E', 1)
        .sync()
        .ready(1)
        .parse("", "INSERT INTO nowhere VALUES (1)")
        .read('E', 1)
        .run("SELECT 1", &[])
        .sync()
        .ready(1);
    same(script)
}

#[test]
fn flush_without_sync() -> Result<()> {
    let insert = "INSERT INTO made VALUES ($1)";
    let script = Script::default()
        .run("SELECT 1", &[])
        .flush()
        .read('C', 1)
        .parse("w", insert)
        .describe(b'S', "w")
        .flush()
        .read('n', 1)
        .bind("", "w", &[Some("1")])
        .execute("", 0)
        .flush()
        .read('C', 1)
        .bind("", "w", &[Some("2")])
        .execute("", 0)
        .flush()
        .read('C', 1)
        .sync()
        .ready(1)
        .run("SELECT count(*) FROM made", &[])
        .sync()
        .ready(1);
    same(script)
}

#[test]
fn row_limits_suspend_portals() -> Result<()> {
    let script = Script::default()
        .parse("", "SELECT id FROM probe ORDER BY id")
        .bind("c", "", &[])
        .execute("c", 5)
        .flush()
        .read('s', 1)
        .execute("c", 5)
        .execute("c", 0)
        .sync()
        .ready(1)
        .query("BEGIN")
        .ready(1)
        .parse("", "SELECT id FROM probe ORDER BY id")
        .bind("c", "", &[])
        .execute("c", 8)
        .sync()
        .ready(1)
        .execute("c", 8)
        .sync()
        .ready(1)
        .execute("c", 8)
        .sync()
        .ready(1)
        .query("COMMIT")
        .ready(1)
        .execute("c", 8)
        .sync()
        .ready(1)
        .parse("", "UPDATE probe SET n = 5 WHERE id < 4 RETURNING id")
        .bind("", "", &[])
        .execute("", 1)
        .sync()
        .ready(1);
    same(script)
}

#[test]
fn copy_in_and_out_by_both_protocols() -> Result<()> {
    let script = Script::default()
        .query("COPY (SELECT id, word FROM probe WHERE id < 4 ORDER BY id) TO STDOUT")
        .ready(1)
        .query("COPY made FROM STDIN")
        .read('G', 1)
        .copy_data("1\n2\n")
        .copy_data("3\n")
        .copy_done()
        .ready(1)
        .query("COPY made FROM STDIN")
        .read('G', 1)
        .copy_data("4\n")
        .copy_fail("changed my mind")
        .ready(1)
        .query("COPY made FROM STDIN")
        .read('G', 1)
        .copy_data("not a number\n")
        .copy_done()
        .ready(1)
        .run("COPY made FROM STDIN", &[])
        .copy_data("5\n6\n")
        .copy_done()
        .sync()
        .ready(1)
        .run("COPY made FROM STDIN", &[])
        .copy_data("7\n")
        .copy_fail("no")
        .sync()
        .ready(1)
        .run("COPY made TO STDOUT", &[])
        .sync()
        .ready(1)
        .query("BEGIN; COPY made FROM STDIN; INSERT INTO made VALUES (9); COMMIT")
        .read('G', 1)
        .copy_data("8\n")
        .copy_done()
        .ready(1)
        .query("COPY nowhere FROM STDIN")
        .ready(1)
        .query("SELECT count(*) FROM made")
        .ready(1);
    same(script)
}

#[test]
fn settings_notices_and_notifications() -> Result<()> {
    let mut script = Script::default();
    for text in [
        "SET application_name = 'mine'",
        "SHOW application_name",
        "SET timezone = 'Asia/Tokyo'",
        "RESET timezone",
        "BEGIN; SET LOCAL datestyle = 'German'; COMMIT",
        "CREATE TABLE IF NOT EXISTS probe (id int)",
        "DROP TABLE IF EXISTS never_there",
        "LISTEN here",
        "NOTIFY here, 'hello'",
        "UNLISTEN *",
        "DECLARE c CURSOR FOR SELECT 1",
        "BEGIN; DECLARE c CURSOR FOR SELECT id FROM probe ORDER BY id; FETCH 3 FROM c; CLOSE c; COMMIT",
        "DISCARD ALL",
        "SELECT 1",
    ] {
        script = script.query(text).ready(1);
    }
    same(script)
}

#[test]
fn what_needs_a_transaction_is_the_servers_to_refuse() -> Result<()> {
    let mut script = Script::default();
    let texts =
        ["LOCK TABLE probe", "DECLARE c CURSOR FOR SELECT * FROM probe", "SET CONSTRAINTS ALL IMMEDIATE", "SET LOCAL timezone = 'UTC'"];
    for text in texts {
        script = script.query(text).ready(1).run(text, &[]).sync().ready(1);
    }
    same(script)
}

#[test]
fn cursors_that_outlive_their_transaction() -> Result<()> {
    let mut script = Script::default();
    for text in [
        "DECLARE c CURSOR WITH HOLD FOR SELECT id, word FROM probe ORDER BY id",
        "FETCH 3 FROM c",
        "INSERT INTO made VALUES (1)",
        "FETCH FORWARD 4 FROM c",
        "BEGIN; INSERT INTO made VALUES (2); FETCH c; COMMIT",
        "CREATE TEMPORARY TABLE beside (id int)",
        "MOVE BACKWARD ALL IN c",
        "CLOSE c",
        "BEGIN",
        "INSERT INTO made VALUES (3)",
        "DECLARE d NO SCROLL CURSOR WITH HOLD FOR SELECT * FROM made ORDER BY id",
        "COMMIT",
        "FETCH ALL FROM d",
        "CLOSE d",
    ] {
        script = script.query(text).ready(1);
    }
    script = script.run("DECLARE e CURSOR WITH HOLD FOR SELECT id FROM probe ORDER BY id", &[]).sync().ready(1);
    script = script.run("FETCH 2 FROM e", &[]).run("INSERT INTO made VALUES (4)", &[]).sync().ready(1);
    same(script.run("CLOSE e", &[]).sync().ready(1))
}

#[test]
fn a_text_that_takes_back_what_it_did() -> Result<()> {
    let mut script = Script::default();
    for text in [
        "INSERT INTO made VALUES (1); ROLLBACK; INSERT INTO made VALUES (2)",
        "INSERT INTO made VALUES (3); COMMIT AND CHAIN",
        "INSERT INTO made VALUES (4); ROLLBACK AND CHAIN; INSERT INTO made VALUES (5)",
        "INSERT INTO made VALUES (6); SAVEPOINT a; INSERT INTO made VALUES (7)",
        "BEGIN; INSERT INTO made VALUES (8); ROLLBACK; SELECT count(*) FROM made",
    ] {
        script = script.query(text).ready(1);
    }
    same(script)
}

#[test]
fn several_copies_in_one_text() -> Result<()> {
    let script = Script::default()
        .query("COPY (SELECT 1) TO STDOUT; COPY (SELECT 2) TO STDOUT; SELECT 3; SELECT 4")
        .ready(1)
        .query("SELECT 0; COPY made FROM STDIN; COPY made FROM STDIN; SELECT 1")
        .read('G', 1)
        .copy_data("1\n")
        .copy_done()
        .read('G', 1)
        .copy_data("2\n")
        .copy_done()
        .ready(1);
    same(script)
}

#[test]
fn batches_too_large_to_be_kept_back() -> Result<()> {
    let large = "x".repeat(200_000);
    let update = "UPDATE probe SET word = $1 WHERE id = $2";
    let mut script = Script::default().parse("u", update).sync().ready(1);
    for id in ["1", "2", "3", "4"] {
        script = script.bind("", "u", &[Some(&large), Some(id)]).execute("", 0);
    }
    script = script.run("SELECT length(word) FROM probe WHERE id < 6 ORDER BY id", &[]).sync().ready(1);
    script = script.run("SELECT length($1::text)", &[Some(&large.repeat(5))]).sync().ready(1);
    // Taken back by the client itself, as a driver does that gives up in the middle.
    for id in ["5", "6", "7"] {
        script = script.bind("", "u", &[Some(&large), Some(id)]).execute("", 0);
    }
    script = script.run("ROLLBACK", &[]).sync().ready(1);
    // The error of one in the middle comes before the Sync.
    script = script.bind("", "u", &[Some(&large), Some("5")]).execute("", 0).bind("", "u", &[Some(&large), Some("6")]).execute("", 0);
    script = script.bind("", "u", &[Some(&large), Some("no number")]).read('E', 1);
    same(script.sync().query("SELECT id, length(word) FROM probe ORDER BY id").ready(2))
}

#[test]
fn a_query_after_a_description() -> Result<()> {
    let script = Script::default()
        .query("CREATE TABLE fresh (id int)")
        .ready(1)
        .parse("s", "SELECT * FROM fresh")
        .flush()
        .read('1', 1)
        .query("INSERT INTO fresh VALUES (1), (2)")
        .ready(1)
        .bind("", "s", &[])
        .execute("", 0)
        .sync()
        .ready(1)
        .query("DROP TABLE fresh")
        .ready(1);
    same_if_allowed(script)
}

#[test]
fn other_settings_of_strings_and_encodings() -> Result<()> {
    let mut script = Script::default();
    for text in [
        "SET standard_conforming_strings = off",
        r"SELECT 'a\\b\'c' AS one, 'plain' AS two",
        r"INSERT INTO probe (id, word) VALUES (50, 'tab\there')",
        r"BEGIN; INSERT INTO made VALUES (1)",
        r"UPDATE probe SET word = 'it\'s' WHERE id = 50",
        "COMMIT",
        r"SELECT U&'\0041'",
        r"SELECT 'no end\'",
        "SELECT word FROM probe WHERE id = 50",
        "RESET standard_conforming_strings",
        r"SELECT 'a\b'",
        "SET client_encoding = 'LATIN1'",
        "SELECT chr(233)",
        "SELECT 'é'",
        "INSERT INTO made VALUES (2) /* é */",
        "RESET client_encoding",
        "SELECT 'é'",
    ] {
        script = script.query(text).ready(1);
    }
    same_if_allowed(script)
}

#[test]
fn deferred_triggers_are_heard_at_the_commit() -> Result<()> {
    let mut script = Script::default();
    for text in [
        "CREATE OR REPLACE FUNCTION speak() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''heard %'', NEW.id; RETURN NULL; END'",
        "CREATE TABLE loud (id int)",
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON loud DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION speak()",
        "INSERT INTO loud VALUES (1)",
        "BEGIN",
        "INSERT INTO loud VALUES (2)",
        "COMMIT",
        "DROP TABLE loud",
    ] {
        script = script.query(text).ready(1);
    }
    same_if_allowed(script)
}

#[test]
fn what_goes_part_by_part_runs_outside_a_transaction() -> Result<()> {
    let mut script = Script::default();
    for text in [
        "CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE parted_one PARTITION OF parted FOR VALUES FROM (0) TO (10)",
        "REINDEX TABLE parted",
        "REINDEX INDEX parted_pkey",
        "BEGIN",
        "REINDEX TABLE parted",
        "ROLLBACK",
        "REINDEX TABLE parted_one",
        "VACUUM made",
        "SELECT 1; VACUUM made",
        "DROP TABLE parted",
    ] {
        script = script.query(text).ready(1);
    }
    same_if_allowed(script)
}

#[test]
fn startup_parameters_are_the_clients() -> Result<()> {
    let site = site();
    let more =
        [("options", "-c geqo_threshold=7 -c DateStyle=German"), ("application_name", "wrench"), ("search_path", "pg_catalog,public")];
    let mut script = Script::default();
    for text in ["SHOW geqo_threshold", "SHOW datestyle", "SET geqo_threshold = 5", "RESET geqo_threshold", "SHOW geqo_threshold"] {
        script = script.query(text).ready(1);
    }
    for text in
        ["SHOW application_name", "SET application_name = 'x'", "RESET application_name", "SHOW application_name", "SHOW search_path"]
    {
        script = script.query(text).ready(1);
    }
    let expected = play(&site.direct_url(), &more, &script)?;
    assert_eq!(play(url(), &more, &script)?, expected);
    let long = "x".repeat(70);
    let remarks = |url: &str| -> Result<String> {
        let raw = Raw::open(url, &[("application_name", &long)])?;
        Ok(shown(&raw.startup.into_iter().filter(|(tag, _)| *tag == 'N').collect::<Vec<_>>()))
    };
    assert!(remarks(&site.direct_url())?.contains("will be truncated"));
    assert_eq!(remarks(url())?, remarks(&site.direct_url())?);
    // What the server reports about itself at the start, in any order.
    let reported = |url: &str| -> Result<Vec<String>> {
        let raw = Raw::open(url, &more)?;
        let mut told: Vec<String> =
            raw.startup.iter().filter(|(tag, _)| *tag == 'S').map(|(_, body)| body.escape_ascii().to_string()).collect();
        told.retain(|line| !line.starts_with("session_authorization"));
        told.sort();
        Ok(told)
    };
    assert_eq!(reported(url())?, reported(&site.direct_url())?);
    Ok(())
}

#[test]
fn who_may_not_come_in() -> Result<()> {
    let site = site();
    let code = |url: &str, more: &[(&str, &str)]| -> Result<String> {
        let raw = Raw::knock(url, more)?;
        let last = raw.startup.last().context("a reply")?;
        ensure!(last.0 == 'E', "it was let in");
        let text = String::from_utf8_lossy(&last.1).into_owned();
        let code = text.split('\0').find_map(|field| field.strip_prefix('C')).context("an error without a code")?;
        Ok(code.to_owned())
    };
    let (before, place) = url().split_once('@').context("a URL")?;
    let other = if before.ends_with('x') { 'y' } else { 'x' };
    let wrong = format!("{}{other}@{place}", &before[..before.len() - 1]);
    assert_eq!(code(&wrong, &[])?, "28P01");
    let stranger = url().replace("protocol:", "stranger:");
    assert_eq!(code(&stranger, &[])?, "28P01");
    let elsewhere = code(&site.gateway.url_for(url(), "nowhere"), &[])?;
    assert!(["3D000", "28P01", "28000", "RPR01"].contains(&elsewhere.as_str()), "{elsewhere}");
    for replication in ["true", "database"] {
        let told = code(url(), &[("replication", replication)])?;
        assert!(["RPR01", "0A000", "28000"].contains(&told.as_str()), "{told}");
    }
    Ok(())
}

#[test]
fn tls_is_there_and_its_certificate_can_be_checked() -> Result<()> {
    let site = site();
    let query = "SELECT count(*) > 0 FROM pg_stat_activity";
    assert_eq!(site.server.psql_at(&format!("{}?sslmode=require", url()), query)?, "t");
    let root = site.gateway.certificate_file();
    let checked = format!("{}?sslmode=verify-full&sslrootcert={}", url(), root.display());
    assert_eq!(site.server.psql_at(&checked, query)?, "t");
    let bound = format!("{checked}&channel_binding=require");
    assert_eq!(site.server.psql_at(&bound, query)?, "t");
    Ok(())
}

#[test]
fn what_runs_can_be_cancelled_and_only_that() -> Result<()> {
    let site = site();
    let mut sleeper = Raw::open(url(), &[])?;
    let mut other = Raw::open(url(), &[])?;
    let (pid, secret) = sleeper.key.context("a key to cancel with")?;
    let asleep = || {
        site.server.psql(
            "shop",
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(601)%' AND pid <> pg_backend_pid()",
        )
    };
    let cancel = |pid: i32, secret: i32| -> Result<()> {
        let mut socket = TcpStream::connect(("127.0.0.1", site.gateway.port()))?;
        let mut out = BytesMut::new();
        frontend::cancel_request(pid, secret, &mut out);
        socket.write_all(&out)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        // The server closes without a word.
        assert_eq!(socket.read(&mut [0; 1])?, 0);
        Ok(())
    };
    for text in ["SELECT pg_sleep(601)", "INSERT INTO made_by_sleep SELECT 1 FROM pg_sleep(601)"] {
        site.direct("CREATE TABLE IF NOT EXISTS made_by_sleep (id int)")?;
        sleeper.send(|out| frontend::query(text, out))?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while asleep()? == "0" {
            ensure!(Instant::now() < deadline, "`{text}` never ran");
        }
        cancel(pid, secret.wrapping_add(1))?;
        cancel(pid.wrapping_add(1), secret)?;
        assert_eq!(asleep()?, "1", "a wrong key cancelled");
        cancel(pid, secret)?;
        let replies = sleeper.until('Z', 1)?;
        assert!(shown(&replies).contains("C57014"), "{}", shown(&replies));
    }
    for raw in [&mut sleeper, &mut other] {
        raw.send(|out| frontend::query("SELECT 1", out))?;
        assert!(!shown(&raw.until('Z', 1)?).contains("C57014"));
    }
    assert_eq!(site.count("made_by_sleep")?, 0);
    Ok(())
}

#[test]
fn large_results_are_streamed() -> Result<()> {
    let site = site();
    let mut raw = Raw::open(url(), &[])?;
    raw.send(|out| frontend::query("SELECT 1", out))?;
    raw.until('Z', 1)?;
    let before = site.gateway.resident_bytes()?;
    let mut most = 0;
    for text in [
        "SELECT repeat('x', 10000) FROM generate_series(1, 5000)",
        "COPY (SELECT repeat('x', 10000) FROM generate_series(1, 5000)) TO STDOUT",
        "SELECT repeat('x', 50000000)",
    ] {
        raw.send(|out| frontend::query(text, out))?;
        let mut bytes = 0;
        loop {
            let (tag, body) = raw.reply()?;
            bytes += body.len();
            if bytes.is_multiple_of(16) {
                most = most.max(site.gateway.resident_bytes()?);
            }
            match tag {
                'Z' => break,
                'E' => bail!("`{text}`: {}", shown(&[(tag, body)])),
                _ => {}
            }
        }
        assert!(bytes >= 50_000_000, "`{text}` gave {bytes} bytes");
        most = most.max(site.gateway.resident_bytes()?);
    }
    // A buffered result would take 50 MB; other tests of this file use the same gateway meanwhile.
    assert!(most < before + 30_000_000, "{before} bytes before, {most} at most");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_driver_notices_nothing() -> Result<()> {
    let site = site();
    site.direct("CREATE TABLE driven (id int PRIMARY KEY, word text)")?;
    let mut client = connect(url()).await?;
    let insert = client.prepare("INSERT INTO driven VALUES ($1, $2)").await?;
    for id in 0..20_i32 {
        assert_eq!(client.execute(&insert, &[&id, &format!("word {id}")]).await?, 1);
    }
    let transaction = client.transaction().await?;
    transaction.execute("UPDATE driven SET word = $1 WHERE id < 5", &[&"changed"]).await?;
    let portal = transaction.bind("SELECT id FROM driven ORDER BY id", &[]).await?;
    assert_eq!(transaction.query_portal(&portal, 7).await?.len(), 7);
    assert_eq!(transaction.query_portal(&portal, 100).await?.len(), 13);
    transaction.commit().await?;
    let rows = client.query("SELECT id, word FROM driven WHERE word = 'changed'", &[]).await?;
    assert_eq!(rows.len(), 5);
    let transaction = client.transaction().await?;
    transaction.execute("DELETE FROM driven WHERE id = 1", &[]).await?;
    transaction.rollback().await?;
    assert_eq!(site.count("driven")?, 20);
    assert_eq!(denied(client.simple_query("DELETE FROM nowhere").await)?.code, "42P01");
    Ok(())
}
