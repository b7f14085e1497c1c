//! The stage for attacks: one site, put back to its beginning before each, and played on by one attack at a time.
//!
//! Every attack is played twice with the same bytes: past the gateway, where it has to do harm (or the test tests nothing), and
//! through it, where what is protected has to be as before, byte for byte.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use reprieve_testkit::{EnvironmentBudget, Gateway, GatewayOptions, GuardedSystem, Postgres, PostgresOptions};
use reprieve_tests::Site;

/// How long anything may take before a test gives up; nothing depends on how fast it is.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is protected, made anew before each attack: 2,000 orders of 2,000 customers, a view, a function, a trigger, a sequence and
/// large objects. `wipe()` is code that was there before the attack and deletes every order.
const WORLD: &str = "
DO $$ DECLARE s text; BEGIN
  FOR s IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
  LOOP EXECUTE format('DROP SCHEMA %I CASCADE', s); END LOOP;
END $$;
DELETE FROM pg_default_acl;
SELECT lo_unlink(oid) FROM pg_largeobject_metadata;
ALTER ROLE app RESET ALL; ALTER ROLE app PASSWORD 'secret';
REVOKE ALL ON DATABASE shop FROM PUBLIC; GRANT CONNECT, TEMPORARY ON DATABASE shop TO PUBLIC;
CREATE SCHEMA public AUTHORIZATION app;
SET ROLE app;
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, visits int NOT NULL DEFAULT 0);
CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL REFERENCES customers ON DELETE CASCADE, total int);
CREATE TABLE notes (id int, word text);
INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 2000) n;
INSERT INTO orders SELECT n, n, n FROM generate_series(1, 2000) n;
CREATE VIEW totals AS SELECT sum(total) AS total FROM orders;
CREATE SEQUENCE tickets; SELECT setval('tickets', 500);
CREATE FUNCTION wipe() RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.orders; RETURN 1; END';
CREATE FUNCTION wipe_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.orders; RETURN NULL; END';
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER keep BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION keep();
SELECT lo_from_bytea(0, decode(repeat('ab', 3000), 'hex')) FROM generate_series(1, 30);
RESET ROLE; ANALYZE;";

/// Everything protected in one text.
const FINGERPRINT: &str = "SELECT concat_ws(E'\\n',
 'orders ' || (SELECT count(*) || ' ' || coalesce(md5(string_agg(o::text, ' ' ORDER BY id)), '') FROM ONLY public.orders o),
 'customers ' || (SELECT count(*) || ' ' || coalesce(md5(string_agg(c::text, ' ' ORDER BY id)), '') FROM ONLY public.customers c),
 'columns ' || (SELECT string_agg(concat_ws(':', attrelid::regclass, attname, atttypid::regtype, attnotnull, attacl), ' ' ORDER BY attrelid, attnum)
   FROM pg_attribute WHERE attrelid IN ('public.orders'::regclass, 'public.customers'::regclass) AND attnum > 0),
 'relations ' || (SELECT string_agg(concat_ws(':', relname, relowner::regrole, relacl, relpersistence, relrowsecurity), ' ' ORDER BY oid)
   FROM pg_class WHERE oid IN ('public.orders'::regclass, 'public.customers'::regclass, 'public.totals'::regclass)),
 'triggers ' || (SELECT string_agg(concat_ws(':', tgrelid::regclass, tgname, tgenabled), ' ' ORDER BY tgname) FROM pg_trigger
   WHERE tgrelid IN ('public.orders'::regclass, 'public.customers'::regclass) AND NOT tgisinternal),
 'rules ' || (SELECT coalesce(string_agg(rulename, ' '), '') FROM pg_rewrite WHERE ev_class IN ('public.orders'::regclass, 'public.customers'::regclass)),
 'policies ' || (SELECT count(*) FROM pg_policy),
 'constraints ' || (SELECT string_agg(pg_get_constraintdef(oid), ' ' ORDER BY oid) FROM pg_constraint WHERE conrelid = 'public.orders'::regclass),
 'functions ' || (SELECT string_agg(concat_ws(':', proname, prosecdef, proowner::regrole, proacl, md5(prosrc)), ' ' ORDER BY proname) FROM pg_proc
   WHERE pronamespace = 'public'::regnamespace AND proname IN ('wipe', 'keep')),
 'view ' || pg_get_viewdef('public.totals'::regclass),
 'schema ' || (SELECT concat_ws(':', nspowner::regrole, nspacl) FROM pg_namespace WHERE nspname = 'public'),
 'database ' || (SELECT concat_ws(':', datdba::regrole, datacl) FROM pg_database WHERE datname = 'shop'),
 'role ' || (SELECT concat_ws(':', rolpassword, rolsuper) FROM pg_authid WHERE rolname = 'app'),
 'settings ' || (SELECT count(*) FROM pg_db_role_setting),
 'default privileges ' || (SELECT count(*) FROM pg_default_acl),
 'memberships ' || (SELECT count(*) FROM pg_auth_members),
 'prepared ' || (SELECT count(*) FROM pg_prepared_xacts),
 'tickets ' || (SELECT last_value FROM public.tickets),
 'large objects ' || (SELECT count(*) || md5(string_agg(data::text, ' ' ORDER BY loid, pageno)) FROM pg_largeobject))";

/// How the gateway has to answer, somewhere in an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A hold.
    Held,
    /// A refusal.
    Refused,
    /// One of the two.
    Either,
    /// Anything, as long as nothing changes: the attack has more than one good answer.
    Any,
}

/// An attack on its way.
pub(crate) struct Play<'a> {
    site: &'a Site,
    url: String,
    lines: Vec<Line>,
    /// Every SQLSTATE heard.
    pub(crate) codes: Vec<String>,
    /// Everything heard, for whoever has to read a failure.
    said: Vec<String>,
}

/// One connection.
struct Line {
    socket: TcpStream,
    process: i32,
    writer: Option<thread::JoinHandle<std::io::Result<()>>>,
}

impl Play<'_> {
    /// Runs a text by the simple protocol on the first line; errors are noted.
    pub(crate) fn sql(&mut self, text: &str) -> Result<()> {
        self.sql_on(0, text)
    }

    /// The same on any line; lines are opened as they are named.
    pub(crate) fn sql_on(&mut self, line: usize, text: &str) -> Result<()> {
        self.send_on(line, &query(text))?;
        self.read_on(line, 1)
    }

    /// Sends bytes on the first line.
    pub(crate) fn send(&mut self, messages: &[Vec<u8>]) -> Result<()> {
        self.send_on(0, &messages.concat())
    }

    /// Sends bytes on any line.
    pub(crate) fn send_on(&mut self, line: usize, bytes: &[u8]) -> Result<()> {
        while self.lines.len() <= line {
            self.lines.push(Line::open(&self.url)?);
        }
        // On a thread of its own: whoever answers while it still reads would otherwise wait for us, and we for it.
        let line = &mut self.lines[line];
        if let Some(writer) = line.writer.take() {
            let _sent_or_hung_up = writer.join();
        }
        let mut socket = line.socket.try_clone()?;
        let bytes = bytes.to_vec();
        line.writer = Some(thread::spawn(move || socket.write_all(&bytes)));
        Ok(())
    }

    /// Reads until so many ReadyForQuery have come, or the other end hangs up.
    pub(crate) fn read(&mut self, ready: usize) -> Result<()> {
        self.read_on(0, ready)
    }

    /// The same on any line.
    pub(crate) fn read_on(&mut self, line: usize, ready: usize) -> Result<()> {
        let mut left = ready;
        while left > 0 {
            let Some((tag, body)) = self.lines[line].reply(PATIENCE)? else {
                self.said.push("hung up".to_owned());
                return Ok(());
            };
            left -= usize::from(tag == 'Z');
            self.note(tag, &body);
        }
        Ok(())
    }

    /// Reads until a CommandComplete, a ReadyForQuery or an error.
    pub(crate) fn read_one(&mut self) -> Result<()> {
        while let Some((tag, body)) = self.lines[0].reply(PATIENCE)? {
            self.note(tag, &body);
            if matches!(tag, 'C' | 'Z' | 'E') {
                break;
            }
        }
        Ok(())
    }

    /// Messages to the server in one go, then what it says to it.
    pub(crate) fn batch(&mut self, messages: &[Vec<u8>]) -> Result<()> {
        self.send(messages)?;
        self.read(1)
    }

    /// Does something that the application does: as the owner, past the gateway.
    pub(crate) fn application(&self, sql: &str) {
        // It may fail because of what the attack did, which the fingerprint shows as well.
        let _done_or_broken = self.site.direct(sql);
    }

    /// One value, as the superuser sees it.
    pub(crate) fn value(&self, sql: &str) -> Result<String> {
        self.site.server.psql("shop", sql)
    }

    /// Waits until the backend behind a line waits for a lock; goes on too if it has answered instead.
    pub(crate) fn wait_until_blocked(&mut self, line: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let process = self.lines[line].process;
        let blocked = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {process} AND wait_event_type = 'Lock'");
        self.lines[line].socket.set_nonblocking(true)?;
        while self.value(&blocked)? == "0" && self.lines[line].socket.peek(&mut [0]).is_err() {
            ensure!(Instant::now() < deadline, "nothing happened on line {line}");
            thread::sleep(Duration::from_millis(20));
        }
        self.lines[line].socket.set_nonblocking(false)?;
        Ok(())
    }

    fn note(&mut self, tag: char, body: &[u8]) {
        let fields: Vec<&[u8]> = body.split(|byte| *byte == 0).filter(|field| !field.is_empty()).collect();
        let field = |code: u8| fields.iter().find(|field| field[0] == code).map(|field| String::from_utf8_lossy(&field[1..]).into_owned());
        match tag {
            'E' => {
                let code = field(b'C').unwrap_or_default();
                self.said.push(format!("error {code} {}", field(b'M').unwrap_or_default()));
                self.codes.push(code);
            }
            'C' | 'Z' => self.said.push(format!("{tag} {}", String::from_utf8_lossy(body).trim_end_matches('\0'))),
            _ => {}
        }
    }
}

impl Line {
    fn open(url: &str) -> Result<Line> {
        let rest = url.strip_prefix("postgres://").context("a URL")?;
        let (who, place) = rest.split_once('@').context("a URL with credentials")?;
        let (user, password) = who.split_once(':').context("a URL with a password")?;
        let (address, database) = place.split_once('/').context("a URL with a database")?;
        let mut line = Line { socket: TcpStream::connect(address)?, process: 0, writer: None };
        let mut out = bytes::BytesMut::new();
        frontend::startup_message([("user", user), ("database", database), ("application_name", "hostile")], &mut out)?;
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            line.socket.write_all(&out)?;
            out.clear();
            let (tag, body) = line.reply(PATIENCE)?.context("turned away")?;
            match (tag, body.get(3)) {
                ('R', Some(10)) => frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out)?,
                ('R', Some(11)) => {
                    scram.update(&body[4..])?;
                    frontend::sasl_response(scram.message(), &mut out)?;
                }
                ('R', Some(12)) => scram.finish(&body[4..])?,
                ('K', _) => line.process = i32::from_be_bytes(body.get(..4).context("a key")?.try_into()?),
                ('E', _) => anyhow::bail!("turned away: {}", String::from_utf8_lossy(&body)),
                ('Z', _) => return Ok(line),
                _ => {}
            }
        }
    }

    /// The next message. `None`: hung up.
    fn reply(&mut self, patience: Duration) -> Result<Option<(char, Vec<u8>)>> {
        self.socket.set_read_timeout(Some(patience))?;
        let mut head = [0_u8; 5];
        match self.socket.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return Err(error).context("no reply: the client would wait for ever");
            }
            Err(_) => return Ok(None),
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length.checked_sub(4).context("a length of less than four")?];
        if self.socket.read_exact(&mut body).is_err() {
            return Ok(None);
        }
        Ok(Some((char::from(head[0]), body)))
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short message");
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// A simple query.
pub(crate) fn query(text: &str) -> Vec<u8> {
    query_bytes(text.as_bytes())
}

/// A simple query of any bytes.
pub(crate) fn query_bytes(text: &[u8]) -> Vec<u8> {
    message(b'Q', &[text, b"\0"].concat())
}

/// A Parse.
pub(crate) fn parse(name: &str, text: &str) -> Vec<u8> {
    parse_typed(name, text, &[])
}

/// A Parse that says its parameters' types.
pub(crate) fn parse_typed(name: &str, text: &str, types: &[u32]) -> Vec<u8> {
    let count = u16::try_from(types.len()).expect("few types").to_be_bytes();
    let types: Vec<u8> = types.iter().flat_map(|oid| oid.to_be_bytes()).collect();
    message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0", &count, &types].concat())
}

/// A Bind with text values.
pub(crate) fn bind(portal: &str, statement: &str, values: &[&str]) -> Vec<u8> {
    let mut body = [portal.as_bytes(), b"\0", statement.as_bytes(), b"\0\0\0"].concat();
    body.extend(u16::try_from(values.len()).expect("few values").to_be_bytes());
    for value in values {
        body.extend(u32::try_from(value.len()).expect("a short value").to_be_bytes());
        body.extend(value.as_bytes());
    }
    body.extend([0, 0]);
    message(b'B', &body)
}

/// An Execute of so many rows; 0 is all.
pub(crate) fn execute(portal: &str, rows: u32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
}

/// A Describe of a statement.
pub(crate) fn describe(statement: &str) -> Vec<u8> {
    message(b'D', &[b"S", statement.as_bytes(), b"\0"].concat())
}

/// A Close of a statement.
pub(crate) fn close(statement: &str) -> Vec<u8> {
    message(b'C', &[b"S", statement.as_bytes(), b"\0"].concat())
}

/// A call of a function by its number, without arguments.
pub(crate) fn function_call(oid: u32) -> Vec<u8> {
    message(b'F', &[&oid.to_be_bytes()[..], &[0; 6]].concat())
}

/// A Sync.
pub(crate) fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// A Flush.
pub(crate) fn flush() -> Vec<u8> {
    message(b'H', b"")
}

/// Parse, Bind and Execute by the unnamed names.
pub(crate) fn run(text: &str) -> Vec<u8> {
    [parse("", text), bind("", "", &[]), execute("", 0)].concat()
}

struct Stage {
    site: Site,
    agent: String,
}

/// Attacks change what all sessions of a database see, so that each has a stage to itself; mostly it waits.
const STAGES: usize = 4;

fn free_stage() -> MutexGuard<'static, Stage> {
    static STAGE: [OnceLock<Mutex<Stage>>; STAGES] = [const { OnceLock::new() }; STAGES];
    loop {
        for stage in &STAGE {
            match stage.get_or_init(build).try_lock() {
                Ok(stage) => return stage,
                // An attack that got through failed here; the next one begins with a new world.
                Err(TryLockError::Poisoned(stage)) => return stage.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn build() -> Mutex<Stage> {
    // Attacks share an agent: neither the number of its holds nor its hour may stop one instead of what it is about.
    let budget = EnvironmentBudget {
        environment: "production".to_owned(),
        rows_per_statement: 100,
        rows_per_transaction: 1_000,
        rows_per_hour: 100_000_000,
        relations_dropped: 0,
    };
    let options = GatewayOptions { wait: "0s".to_owned(), open_holds: 100_000, budgets: vec![budget], ..GatewayOptions::default() };
    let site = open(options).expect("a site");
    let agent = site.gateway.agent("eve", &["shop"], "read,write,destroy,grant").expect("an agent");
    Mutex::new(Stage { site, agent })
}

/// Whether `protect --apply` is run before each attack: with `HOSTILE_PROTECTED=1` in the environment. It makes other code measure what
/// must be measured all the same, and takes the suite's time once more.
fn is_protected() -> bool {
    std::env::var_os("HOSTILE_PROTECTED").is_some()
}

/// A site whose server has two-phase commit, so that the attacks by it can work.
fn open(options: GatewayOptions) -> Result<Site> {
    let settings = [("max_prepared_transactions", "10"), ("autovacuum", "off")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let server = Postgres::start_with(&PostgresOptions { settings, ..PostgresOptions::default() })?;
    server.create_role("app", "secret", "")?;
    server.create_database("shop", "app")?;
    let mut system = GuardedSystem::new("shop", "production", &server.url("app", "secret", "shop"));
    system.admin_url = is_protected().then(|| server.superuser_url("shop"));
    let systems = vec![system];
    let gateway = Gateway::start(GatewayOptions { systems, ..options })?;
    Ok(Site { gateway, server })
}

/// Plays an attack past the gateway and through it. `setup` is run by the owner before, as what was there already.
pub(crate) fn attack(setup: &str, answer: Answer, act: impl Fn(&mut Play<'_>) -> Result<()>) {
    let stage = free_stage();
    let (before, harmed, said, _) = stage.play(setup, &stage.site.direct_url(), &act).expect("played past the gateway");
    assert_ne!(before, harmed, "the attack does no harm even without the gateway: {said:#?}");
    let (before, after, said, codes) = stage.play(setup, &stage.agent, &act).expect("played through the gateway");
    assert_eq!(before, after, "what is protected changed: {said:#?}");
    let heard = |wanted: &str| codes.iter().any(|code| code == wanted);
    let answered = match answer {
        Answer::Held => heard("RPH01"),
        Answer::Refused => heard("RPR01"),
        Answer::Either => heard("RPH01") || heard("RPR01"),
        Answer::Any => true,
    };
    assert!(answered, "not answered as {answer:?}: {said:#?}");
}

/// Eight sessions of one agent remove 900 rows each and commit together, with 2,000 rows left in the hour.
pub(crate) fn spend_an_hour_at_once() {
    const SESSIONS: usize = 8;
    let budget = EnvironmentBudget {
        environment: "production".to_owned(),
        rows_per_statement: 1_000,
        rows_per_transaction: 1_000,
        rows_per_hour: 2_000,
        relations_dropped: 0,
    };
    let options = GatewayOptions { wait: "0s".to_owned(), budgets: vec![budget], ..GatewayOptions::default() };
    let site = open(options).expect("a site");
    site.table("stock", 8_000).expect("a table");
    let stage = Stage { agent: site.gateway.agent("eve", &["shop"], "read,write,destroy").expect("an agent"), site };
    stage.let_the_gateway_look().expect("it looks");
    let mut lines: Vec<Line> = (0..SESSIONS).map(|_| Line::open(&stage.agent).expect("a line")).collect();
    let mut ask = |texts: &dyn Fn(usize) -> String| {
        for (number, line) in lines.iter_mut().enumerate() {
            line.socket.write_all(&query(&texts(number))).expect("sent");
        }
        for line in &mut lines {
            while line.reply(PATIENCE).expect("a reply").expect("not hung up").0 != 'Z' {}
        }
    };
    ask(&|number| format!("BEGIN; DELETE FROM stock WHERE id > {} AND id <= {}", number * 1_000, number * 1_000 + 900));
    ask(&|_| "COMMIT".to_owned());
    let gone = 8_000 - stage.site.count("stock").expect("a count");
    assert!(gone >= 900, "nothing at all passed, so that nothing was tried");
    assert!(gone <= 2_000, "{gone} rows are gone in an hour of 2,000");
}

/// Before, after, what was said, and the codes in it.
type Played = (String, String, Vec<String>, Vec<String>);

impl Stage {
    fn play(&self, setup: &str, url: &str, act: &impl Fn(&mut Play<'_>) -> Result<()>) -> Result<Played> {
        self.clear()?;
        let prepared = "SELECT coalesce(string_agg(format('ROLLBACK PREPARED %L', gid), ';'), '') FROM pg_prepared_xacts";
        self.site.server.psql("shop", &self.site.server.psql("shop", prepared)?)?;
        self.site.server.psql("shop", WORLD)?;
        self.site.direct(setup)?;
        if is_protected() {
            self.site.gateway.json(&["protect", "shop", "--apply", "--json"])?;
        }
        let before = self.fingerprint();
        if url == self.agent {
            self.let_the_gateway_look()?;
        }
        let mut play = Play { site: &self.site, url: url.to_owned(), lines: Vec::new(), codes: Vec::new(), said: Vec::new() };
        let acted = act(&mut play);
        let Play { lines, codes, said, .. } = play;
        drop(lines);
        self.clear()?;
        acted.with_context(|| format!("{said:#?}"))?;
        Ok((before, self.fingerprint(), said, codes))
    }

    /// Waits until the gateway has looked at the catalogue after what was just made behind its back, and once more: what it saw
    /// has been read by then. What an agent could do in between is in `docs/threats.md`.
    fn let_the_gateway_look(&self) -> Result<()> {
        let looks = "SELECT query_start FROM pg_stat_activity WHERE application_name = 'reprieve: catalogue'
            AND state = 'idle' AND query LIKE 'SELECT pg_catalog.concat_ws%' AND query_start > ";
        let since = format!("{looks} '{}'", self.site.server.psql("shop", "SELECT clock_timestamp()")?);
        let deadline = Instant::now() + PATIENCE;
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            ensure!(Instant::now() < deadline, "the gateway does not look at the catalogue");
            seen.extend(self.site.server.psql("shop", &since)?.lines().map(str::to_owned));
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Ends what is left of an attack, and waits for its end.
    fn clear(&self) -> Result<()> {
        let left = "FROM pg_stat_activity WHERE application_name = 'hostile'";
        let deadline = Instant::now() + PATIENCE;
        // What was sent may still run to its end; nothing may be saved by being cut off here.
        let mut patience = Instant::now() + Duration::from_secs(5);
        while self.site.server.psql("shop", &format!("SELECT count(*) {left}"))? != "0" {
            ensure!(Instant::now() < deadline, "sessions are left");
            if Instant::now() > patience {
                self.site.server.psql("shop", &format!("SELECT pg_terminate_backend(pid) {left}"))?;
                patience = deadline;
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        self.site.server.psql("shop", FINGERPRINT).unwrap_or_else(|error| format!("gone: {error:#}"))
    }
}
