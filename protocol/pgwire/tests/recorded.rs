//! Sessions recorded between PostgreSQL 15's own clients and its server: every byte is framed, forwarded and understood.
//!
//! A file holds sessions; a line is what one read of the recorder returned, with unprintable bytes as `\xNN`. The password
//! of the recorded server was `secret`.

use bytes::BytesMut;
use reprieve_pgwire::{
    Limits,
    backend::{self, Authentication, BackendChunk, BackendScanner, ServerError},
    frontend::{
        self, Bind, ClientScanner, Close, CopyFail, Describe, Execute, FirstPacket, FrontendFrame, FunctionCall, Parse, Query, SaslInitial,
    },
    scram::ScramClient,
    write,
};

const PGBENCH: &str = include_str!("recorded/pgbench.txt");
const PSQL: &str = include_str!("recorded/psql.txt");

/// What a session looked like to the gateway.
#[derive(Default)]
struct Seen {
    /// Types in the order they were sent; a row is one `D`, the data of a COPY is not counted.
    client: String,
    server: String,
    queries: Vec<String>,
    errors: Vec<ServerError>,
}

fn unescaped(line: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), line);
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        bytes.push(u8::from_str_radix(&rest[at + 2..at + 4], 16).expect("two digits"));
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Plays every session of a file, with what arrived at once cut into pieces of at most `piece` bytes.
fn play(file: &str, piece: usize) -> Vec<Seen> {
    file.split("\n\n").map(|session| play_session(session, piece)).collect()
}

fn play_session(session: &str, piece: usize) -> Seen {
    let mut seen = Seen::default();
    let (mut from_client, mut from_server) = (BytesMut::new(), BytesMut::new());
    let (mut clients, mut servers) = (ClientScanner::new(Limits::default()), BackendScanner::new(Limits::default()));
    let mut scram = None;
    let (mut started, mut encryption_asked) = (false, false);
    for line in session.lines().skip(1) {
        let (side, bytes) = line.split_once(' ').expect("a side and bytes");
        let bytes = unescaped(bytes);
        if side == "server" && std::mem::take(&mut encryption_asked) {
            assert_eq!(bytes, b"N", "one unframed byte");
            continue;
        }
        for piece in bytes.chunks(piece) {
            if side == "server" {
                from_server.extend_from_slice(piece);
                let mut forwarded = 0;
                let before = from_server.clone();
                while let Some(chunk) = servers.next(&mut from_server).expect("a real server's bytes") {
                    assert_eq!(chunk.bytes(), &before[forwarded..forwarded + chunk.bytes().len()]);
                    forwarded += chunk.bytes().len();
                    see_server(&mut seen, &chunk, &mut scram);
                }
                continue;
            }
            from_client.extend_from_slice(piece);
            while !started {
                match frontend::first_packet(&mut from_client).expect("a real client's bytes") {
                    None => break,
                    Some(FirstPacket::Ssl) => encryption_asked = true,
                    Some(FirstPacket::Startup { protocol, parameters }) => {
                        assert_eq!(protocol, 3 << 16);
                        assert!(parameters.contains(&("user".to_owned(), "postgres".to_owned())));
                        started = true;
                    }
                    Some(other) => panic!("not recorded: {other:?}"),
                }
            }
            while started && let Some(frame) = clients.next(&mut from_client).expect("a real client's bytes") {
                see_client(&mut seen, &frame, &mut scram);
            }
        }
    }
    assert!(from_client.is_empty() && from_server.is_empty(), "nothing is left over");
    assert!(scram.is_some_and(|scram| scram.is_verified()));
    seen
}

/// Reads a client's message and writes it again: a real driver's bytes have to come out the same.
fn see_client(seen: &mut Seen, frame: &FrontendFrame, scram: &mut Option<ScramClient>) {
    seen.client.push(char::from(frame.tag));
    let (body, mut again) = (frame.body(), BytesMut::new());
    match frame.tag {
        b'Q' => {
            let text = Query::parse(body).expect("Query").text;
            seen.queries.push(text.to_owned());
            write::query(&mut again, text).expect("fits");
        }
        b'P' => {
            let parse = Parse::parse(body).expect("Parse");
            write::parse(&mut again, parse.name, parse.text, &parse.parameter_types).expect("fits");
        }
        b'B' => {
            let bind = Bind::parse(body).expect("Bind");
            write::bind(&mut again, bind.portal, bind.statement, &bind.formats, &bind.values, &bind.result_formats).expect("fits");
        }
        b'D' => {
            let describe = Describe::parse(body).expect("Describe");
            write::describe(&mut again, describe.kind, describe.name).expect("fits");
        }
        b'C' => {
            let close = Close::parse(body).expect("Close");
            write::close(&mut again, close.kind, close.name).expect("fits");
        }
        b'E' => {
            let execute = Execute::parse(body).expect("Execute");
            write::execute(&mut again, execute.portal, execute.max_rows).expect("fits");
        }
        b'F' => {
            let call = FunctionCall::parse(body).expect("FunctionCall");
            write::function_call(&mut again, call.oid, &call.formats, &call.values, call.result_format).expect("fits");
        }
        b'f' => write::copy_fail(&mut again, CopyFail::parse(body).expect("CopyFail").reason).expect("fits"),
        b'd' => write::copy_data(&mut again, body).expect("fits"),
        b'c' => write::copy_done(&mut again),
        b'S' => write::sync(&mut again),
        b'H' => write::flush(&mut again),
        b'X' => write::terminate(&mut again),
        b'p' => match scram {
            None => {
                let initial = SaslInitial::parse(body).expect("SASLInitialResponse");
                let response = initial.response.expect("a first message");
                let nonce = String::from_utf8_lossy(response).rsplit_once("r=").expect("a nonce").1.to_owned();
                let mut ours = ScramClient::new("", b"secret", nonce, None, &[initial.mechanism]).expect("a mechanism");
                let (mechanism, first) = ours.first();
                write::sasl_initial(&mut again, mechanism, Some(&first)).expect("fits");
                *scram = Some(ours);
            }
            Some(_) => write::sasl_response(&mut again, body).expect("fits"),
        },
        tag => panic!("not recorded: {}", char::from(tag)),
    }
    assert_eq!(again, frame.bytes);
}

fn see_server(seen: &mut Seen, chunk: &BackendChunk, scram: &mut Option<ScramClient>) {
    let (tag, body) = match chunk {
        BackendChunk::Rows { rows, .. } => {
            (0..*rows).for_each(|_| seen.server.push('D'));
            return;
        }
        BackendChunk::Frame { tag, .. } => (*tag, chunk.body()),
    };
    seen.server.push(char::from(tag));
    match tag {
        b'R' => match (Authentication::parse(body).expect("Authentication"), scram) {
            (Authentication::SaslContinue(challenge), Some(scram)) => drop(scram.server_first(&challenge).expect("an answer")),
            (Authentication::SaslFinal(signature), Some(scram)) => scram.server_final(&signature).expect("PostgreSQL's signature"),
            (Authentication::Sasl { mechanisms }, None) => assert_eq!(mechanisms, ["SCRAM-SHA-256"]),
            (Authentication::Ok, Some(scram)) => assert!(scram.is_verified()),
            (other, _) => panic!("not recorded: {other:?}"),
        },
        b'S' => assert!(backend::parameter_status(body).is_some()),
        b'K' => assert!(backend::backend_key_data(body).is_some_and(|(_, key)| key.len() == 4)),
        b'Z' => assert!(backend::ready_status(body).is_some()),
        b'C' => assert_ne!(backend::command_tag(body), ""),
        b'T' => assert!(!backend::row_description(body).expect("RowDescription").is_empty()),
        b't' => drop(backend::parameter_description(body).expect("ParameterDescription")),
        b'E' | b'N' => seen.errors.push(ServerError::parse(body).expect("ErrorResponse")),
        _ => {}
    }
}

#[test]
fn pgbench_is_understood_however_its_bytes_arrive() {
    let whole = play(PGBENCH, usize::MAX);
    let start = "RRRRSSSSSSSSSSSSSKZ";
    let checks = [
        // A first connection of each run looks at the tables; then prepared, simple and extended.
        ("ppQQX", "TDCZTDCZ"),
        ("ppPSBDESBDESX", "1Z2TDCZ2TDCZ"),
        ("ppQQX", "TDCZTDCZ"),
        ("ppQQQQQQQX", "CZCZTDCZCZCZCZCZ"),
        ("ppQQX", "TDCZTDCZ"),
        ("ppPBDESPBDESPBDESPBDESPBDESPBDESPBDESX", "12nCZ12nCZ12TDCZ12nCZ12nCZ12nCZ12nCZ"),
    ];
    assert_eq!(whole.len(), checks.len());
    for (seen, (client, server)) in whole.iter().zip(checks) {
        assert_eq!(seen.client, client);
        assert_eq!(seen.server, format!("{start}{server}"));
    }
    for piece in [1, 2, 3, 7, 64] {
        for (cut, whole) in play(PGBENCH, piece).iter().zip(&whole) {
            assert_eq!((&cut.client, &cut.server), (&whole.client, &whole.server), "pieces of {piece}");
        }
    }
}

#[test]
fn psql_is_understood_with_copy_errors_notices_and_function_calls() {
    for piece in [usize::MAX, 1, 5] {
        let sessions = play(PSQL, piece);
        let [seen] = &sessions[..] else { panic!("one session") };
        assert_eq!(seen.client, "ppQQdcQQQQQQQQQFFFFQPSDSX");
        assert_eq!(seen.server, "RRRRSSSSSSSSSSSSSKZCZGCZHddcCZTDDCTDCZEZNCZCZCAZCSZCZTDDDDDDDDDDDDDCZVZVZVZVZCZ1ZtnZ".replace('d', ""));
        assert!(seen.queries.iter().any(|text| text == "select * from t ; select 1;"));
        let [error, notice] = &seen.errors[..] else { panic!("an error and a notice") };
        assert_eq!((error.severity(), error.code(), error.position()), (Some("ERROR"), Some("42P01"), Some(15)));
        assert_eq!((notice.severity(), notice.message()), (Some("NOTICE"), Some("a notice")));
    }
}
