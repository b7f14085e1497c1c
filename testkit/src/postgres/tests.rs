//! Tests of the throw-away server; each starts real ones.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Postgres, PostgresOptions, WalLevel, in_url, setting};

#[test]
fn two_servers_run_side_by_side() {
    let servers: Vec<Postgres> = thread::scope(|scope| {
        let starts: Vec<_> = (0..2).map(|_| scope.spawn(|| Postgres::start().expect("a server"))).collect();
        starts.into_iter().map(|start| start.join().expect("a thread")).collect()
    });
    let [first, second] = servers.as_slice() else { panic!("two servers") };
    assert_ne!(first.port(), second.port());
    first.psql("postgres", "CREATE TABLE only_here (id int)").expect("a table");
    for (server, expected) in [(first, "t"), (second, "f")] {
        assert_eq!(server.psql("postgres", "SELECT to_regclass('only_here') IS NOT NULL").expect("an answer"), expected);
    }
}

#[test]
fn roles_and_databases_are_created_with_awkward_names() {
    let server = Postgres::start().expect("a server");
    let (role, password, database) = ("agent \"7\"", "pa'ss@/%word", "pocket/prod");
    server.create_role(role, password, "NOSUPERUSER").expect("a role");
    server.create_database(database, role).expect("a database");
    let url = server.url(role, password, database);
    assert_eq!(server.psql_at(&url, "SELECT current_user, current_database()").expect("an answer"), "agent \"7\"|pocket/prod");
    let wrong = server.psql_at(&server.url(role, "another", database), "SELECT 1").expect_err("a wrong password");
    assert!(wrong.to_string().contains("password authentication failed"), "{wrong}");
    let failed = server.psql("postgres", "SELECT 1; SELECT 1/0; SELECT 2").expect_err("an error in the middle");
    assert!(failed.to_string().contains("division by zero"), "{failed}");
}

#[test]
fn tls_is_offered_and_its_authority_is_checkable() {
    let server = Postgres::start_with(&PostgresOptions { tls: true, ..PostgresOptions::default() }).expect("a server");
    let authority = server.authority_file().expect("an authority");
    let url = format!("{}?sslmode=verify-full&sslrootcert={}", server.superuser_url("postgres"), authority.display());
    let used = server.psql_at(&url, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    assert_eq!(used.expect("an answer"), "t");

    let plain = Postgres::start().expect("a server");
    assert!(plain.authority_file().is_none());
    plain.psql_at(&format!("{}?sslmode=require", plain.superuser_url("postgres")), "SELECT 1").expect_err("no TLS here");
}

#[test]
fn settings_arrive() {
    let options = PostgresOptions {
        fsync: true,
        wal_level: WalLevel::Logical,
        settings: vec![("application_name".into(), "it's \\ here".into())],
        ..PostgresOptions::default()
    };
    let server = Postgres::start_with(&options).expect("a server");
    for (name, expected) in [
        ("wal_level", "logical"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("password_encryption", "scram-sha-256"),
        ("listen_addresses", "127.0.0.1"),
    ] {
        assert_eq!(server.psql("postgres", &format!("SHOW {name}")).expect("an answer"), expected, "{name}");
    }
    let nonsense = PostgresOptions { settings: vec![("no_such_setting".into(), "1".into())], ..PostgresOptions::default() };
    let error = Postgres::start_with(&nonsense).expect_err("an unknown setting");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[test]
fn an_outage_keeps_the_rows_and_a_drop_removes_everything() {
    let mut server = Postgres::start().expect("a server");
    let folder = server.socket_folder().to_owned();
    let port = server.port();
    server.psql("postgres", "CREATE TABLE kept AS SELECT 7 AS id").expect("a table");
    server.stop().expect("a stop");
    server.psql("postgres", "SELECT 1").expect_err("nobody listens");
    server.resume().expect("a start");
    server.resume().expect_err("it runs already");
    assert_eq!(server.port(), port);
    assert_eq!(server.psql("postgres", "SELECT id FROM kept").expect("an answer"), "7");
    drop(server);
    assert!(!folder.exists());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn values_are_quoted_for_where_they_go() {
    for (text, url, conf) in [
        ("plain-1_.~", "plain-1_.~", "'plain-1_.~'"),
        ("a b/@:%", "a%20b%2F%40%3A%25", "'a b/@:%'"),
        ("it's\\\n", "it%27s%5C%0A", "'it''s\\\\ '"),
        ("ü", "%C3%BC", "'ü'"),
    ] {
        assert_eq!(in_url(text), url);
        assert_eq!(setting(text), conf);
    }
}

#[test]
fn a_killed_owner_takes_its_server_along() {
    let mut owner = Command::new(env::current_exe().expect("this test program"))
        .args(["--exact", "postgres::tests::owner_that_gets_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a second test program");
    let output = BufReader::new(owner.stdout.take().expect("its output"));
    let port: u16 = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("listens on ").and_then(|(_, port)| port.trim().parse().ok()))
        .expect("the port it printed");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    owner.kill().expect("SIGKILL");
    owner.wait().expect("its end");
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(Instant::now() < deadline, "the server outlived its owner");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "the other half of `a_killed_owner_takes_its_server_along`, which runs it"]
fn owner_that_gets_killed() {
    let server = Postgres::start().expect("a server");
    println!("listens on {}", server.port());
    thread::sleep(Duration::from_secs(60));
}
