//! A hostile agent with odd bodies, paths and frames of HTTP/2: whatever two programs might read differently does not get through.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use reprieve_testkit::{Gateway, GatewayOptions, GuardedService, Railway, free_port};
use reprieve_tests::Curl;

const HARMLESS: &str = r#"{"query":"{ me { name } }"}"#;
const DELETE: &str = r#"{"query":"mutation { volumeDelete(volumeId: \"vol-prod\") }"}"#;
const DOCUMENT: &str = "mutation { volumeDelete(volumeId: \"vol-prod\") }";

/// Railway's stand-in behind a listener of its own, which takes HTTP/2 without TLS from this machine.
struct Stage {
    gateway: Gateway,
    railway: Railway,
    curl: Curl,
    port: u16,
    token: String,
}

impl Stage {
    fn open() -> Result<Stage> {
        let railway = Railway::start()?;
        let port = free_port()?;
        let service = GuardedService {
            name: "railway".to_owned(),
            environment: "production".to_owned(),
            credential: Railway::TOKEN.to_owned(),
            presented: "bearer".to_owned(),
            settings: format!("provider = \"railway\"\nlisten = \"127.0.0.1:{port}\"\n{}", railway.service().settings(Railway::HOST)),
        };
        let gateway = Gateway::start(GatewayOptions { services: vec![service], ..GatewayOptions::default() })?;
        let url = gateway.agent("mallory", &["railway"], "read,write,destroy,grant")?;
        let token = url.split(['@', ':']).nth(2).context("no token")?.to_owned();
        let curl = Curl { proxy: String::new(), authority: gateway.authority_file() };
        Ok(Stage { gateway, railway, curl, port, token })
    }

    fn ask(&self, path: &str, arguments: &[&str]) -> Result<u16> {
        let token = format!("authorization: Bearer {}", self.token);
        let mut all = vec!["-H", token.as_str(), "--path-as-is"];
        all.extend(arguments);
        let answer = self.curl.run(&format!("http://127.0.0.1:{}{path}", self.port), &all)?;
        ensure!(answer.status != 0, "{path} {arguments:?}: {answer:?}");
        Ok(answer.status)
    }

    /// Nothing that could delete has arrived, in whatever form.
    fn nothing_arrived(&self, what: &str) -> Result<()> {
        ensure!(self.railway.volumes().len() == 2, "{what}: a volume is gone");
        for received in self.railway.service().received() {
            let target = received.target.to_lowercase();
            let all = format!("{target} {}", received.text());
            ensure!(!all.contains("volumeDelete") && !all.contains("volumedelete"), "{what}: it was sent: {received:?}");
        }
        Ok(())
    }
}

#[test]
fn odd_bodies_are_read_in_one_way_or_refused() -> Result<()> {
    let stage = Stage::open()?;
    let file = |name: &str, bytes: &[u8]| -> Result<String> {
        let path = stage.gateway.folder().join(name);
        std::fs::write(&path, bytes)?;
        Ok(format!("@{}", path.display()))
    };
    let json = "content-type: application/json";
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(DELETE.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let bare16: Vec<u8> = DELETE.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let marked = [b"\xef\xbb\xbf".as_slice(), DELETE.as_bytes()].concat();
    let two = format!("{HARMLESS}{DELETE}");
    let cased = r#"{"query":"{ me { name } }","Query":"mutation { volumeDelete(volumeId: \"vol-prod\") }"}"#;
    let escaped = r#"{"query":"{ me { name } }","\u0071uery":"mutation { volumeDelete(volumeId: \"vol-prod\") }"}"#;
    let commented = r#"{"query":"{ me { name } }"/*","x":"*/,"query":"mutation { volumeDelete(volumeId: \"vol-prod\") }"}"#;
    let persisted = r#"{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"ecf4edb46db40b5132295c0291d62fb65d6759a9eedfa4d5d612dd5ec54a6b38"}}}"#;
    let by_id = r#"{"id":"volumeDelete","documentId":"1","variables":{"volumeId":"vol-prod"}}"#;
    let named = r#"{"query":"query Q { me { name } } mutation M { volumeDelete(volumeId: \"vol-prod\") }"}"#;
    let batch = format!("[{HARMLESS},{DELETE}]");
    let upload = "--b\r\nContent-Disposition: form-data; name=\"operations\"\r\n\r\n".to_owned()
        + DELETE
        + "\r\n--b\r\nContent-Disposition: form-data; name=\"map\"\r\n\r\n{}\r\n--b--\r\n";
    let upload_twice = "--b\r\nContent-Disposition: form-data; name=\"operations\"\r\n\r\n".to_owned()
        + HARMLESS
        + "\r\n--b\r\nContent-Disposition: form-data; name=\"operations\"\r\n\r\n"
        + DELETE
        + "\r\n--b--\r\n";
    for (what, body, headers) in [
        ("a mark before it", marked.as_slice(), vec![json]),
        ("a mark before it, as text", &marked, vec!["content-type: text/plain"]),
        ("UTF-16", &utf16, vec![json]),
        ("UTF-16, said so", &utf16, vec!["content-type: application/json; charset=utf-16"]),
        ("UTF-16 without a mark", &bare16, vec!["content-type:"]),
        ("UTF-7", b"{+ACI-query+ACI-:+ACI-mutation+ACI-}", vec!["content-type: application/json; charset=utf-7"]),
        ("two values", two.as_bytes(), vec![json]),
        ("a key in other letters", cased.as_bytes(), vec![json]),
        ("a key that is escaped", escaped.as_bytes(), vec![json]),
        ("comments", commented.as_bytes(), vec![json]),
        ("a query that is kept there", persisted.as_bytes(), vec![json]),
        ("a document by its number", by_id.as_bytes(), vec![json]),
        ("two operations and no name", named.as_bytes(), vec![json]),
        ("a batch", batch.as_bytes(), vec![json]),
        ("an upload", upload.as_bytes(), vec!["content-type: multipart/form-data; boundary=b"]),
        ("an upload with two documents", upload_twice.as_bytes(), vec!["content-type: multipart/form-data; boundary=b"]),
        ("an upload under another label", upload.as_bytes(), vec![json]),
        ("the document itself", DOCUMENT.as_bytes(), vec!["content-type: application/graphql"]),
        ("the document as text", DOCUMENT.as_bytes(), vec!["content-type: text/plain"]),
        (
            "a form",
            b"query=mutation%20%7BvolumeDelete(volumeId:%22vol-prod%22)%7D",
            vec!["content-type: application/x-www-form-urlencoded"],
        ),
        ("no label", DELETE.as_bytes(), vec!["content-type:"]),
        ("two labels", DELETE.as_bytes(), vec!["content-type: text/plain", json]),
        ("packed as nobody reads it", DELETE.as_bytes(), vec![json, "content-encoding: br"]),
        ("packed twice", DELETE.as_bytes(), vec![json, "content-encoding: gzip, gzip"]),
        ("not packed at all", DELETE.as_bytes(), vec![json, "content-encoding: gzip"]),
        ("another encoding by underscores", DELETE.as_bytes(), vec![json, "transfer_encoding: chunked"]),
        ("another method", DELETE.as_bytes(), vec![json, "x-http-method: GET"]),
        ("another method by underscores", DELETE.as_bytes(), vec![json, "x_http_method_override: GET"]),
        ("a range", DELETE.as_bytes(), vec![json, "content-range: bytes 0-10/100"]),
        ("nothing but spaces before it", format!("{}{DELETE}", " ".repeat(100_000)).as_bytes(), vec![json]),
    ] {
        let body = file("body", body)?;
        let mut arguments = vec!["--data-binary", body.as_str()];
        for header in &headers {
            arguments.extend(["-H", header]);
        }
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let mut arguments = arguments.clone();
            arguments.push(version);
            let status = stage.ask("/graphql/v2", &arguments)?;
            ensure!(matches!(status, 400 | 403), "{what} {version}: {status}");
            stage.nothing_arrived(what)?;
        }
    }
    Ok(())
}

#[test]
fn odd_paths_are_no_other_paths() -> Result<()> {
    let stage = Stage::open()?;
    let query = "query=mutation%7BvolumeDelete(volumeId:%22vol-prod%22)%7D";
    let post = ["--data-binary", DELETE, "-H", "content-type: application/json"];
    for path in [
        "//graphql/v2",
        "/graphql//v2",
        "/graphql/v2/",
        "/graphql/v2//",
        "/GRAPHQL/V2",
        "/graphql/./v2",
        "/x/../graphql/v2",
        "/graphql/%2e%2e/graphql/v2",
        "/graphql%2fv2",
        "/graphql%5cv2",
        "/graphql;a=1/v2",
        "/graphql/v2;a=1",
        "/graphql/v2%00",
        "/graphql/v2%3Fa",
        "/%67raphql/v2",
        "/%2567raphql/v2",
        "/graphql/v2?_method=GET",
        "/graphql/v2?a=1;_method=GET",
        "/graphql/v2?query=%7Bme%7Bname%7D%7D",
        "/graphql/internal",
        "/graphql",
    ] {
        let status = stage.ask(path, &post)?;
        ensure!(matches!(status, 400 | 403), "POST {path}: {status}");
        stage.nothing_arrived(path)?;
    }
    for path in [
        format!("/graphql/v2?{query}"),
        format!("/graphql/v2/?{query}"),
        format!("/graphql/v2?a=1&{query}"),
        format!("/graphql/v2?a=1;{query}"),
        format!("/graphql/v2?query=%7Bme%7Bname%7D%7D&{query}"),
        format!("/graphql/v2?query=%7Bme%7Bname%7D%7D&Q{}", &query[1..]),
        format!("/graphql/internal?{query}"),
        format!("/x?{query}"),
        format!("/graphql/v2?%71{}", &query[1..]),
    ] {
        for method in ["GET", "HEAD", "POST", "OPTIONS", "QUERY", "get"] {
            let arguments: &[&str] = if method == "HEAD" { &["-I"] } else { &["-X", method] };
            let status = stage.ask(&path, arguments)?;
            ensure!(matches!(status, 400 | 403), "{method} {path}: {status}");
            stage.nothing_arrived(&path)?;
        }
    }
    Ok(())
}

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields without any compression (RFC 7541 section 6.2.2).
fn fields(pairs: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        assert!(text.len() < 127, "a longer length takes more bytes");
        [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat()
    };
    pairs.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[test]
fn odd_frames_are_no_requests() -> Result<()> {
    let stage = Stage::open()?;
    let bearer = format!("Bearer {}", stage.token);
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "railway"),
        (":path", "/graphql/v2"),
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let talk = |frames: &[Vec<u8>]| -> Result<Vec<u8>> {
        let mut socket = TcpStream::connect(("127.0.0.1", stage.port))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        // The gateway may close before it has read all.
        let _ = socket.write_all(&[PREFACE.to_vec(), frame(4, 0, 0, &[])].concat());
        for frame in frames {
            if socket.write_all(frame).is_err() {
                break;
            }
        }
        let (mut answer, mut piece) = (Vec::new(), [0u8; 4096]);
        while let Ok(count @ 1..) = socket.read(&mut piece) {
            answer.extend_from_slice(&piece[..count]);
        }
        Ok(answer)
    };
    let with = |more: &[(&str, &str)]| {
        let all: Vec<(&str, &str)> = usual.iter().chain(more).copied().collect();
        vec![frame(1, END_HEADERS, 1, &fields(&all)), frame(0, END_STREAM, 1, DELETE.as_bytes())]
    };
    let instead = |name: &str, value: &str| {
        let all: Vec<(&str, &str)> = usual.iter().map(|(other, old)| (*other, if *other == name { value } else { *old })).collect();
        vec![frame(1, END_HEADERS, 1, &fields(&all)), frame(0, END_STREAM, 1, DELETE.as_bytes())]
    };
    let harmless_then_more = vec![
        frame(1, END_HEADERS, 1, &fields(&[usual.as_slice(), &[("content-length", "27")]].concat())),
        frame(0, 0, 1, HARMLESS.as_bytes()),
        frame(0, END_STREAM, 1, DELETE.as_bytes()),
    ];
    let split = {
        let all = fields(&usual);
        let (first, rest) = all.split_at(30);
        vec![frame(1, 0, 1, first), frame(9, END_HEADERS, 1, rest), frame(0, END_STREAM, 1, DELETE.as_bytes())]
    };
    let trailers = vec![
        frame(1, END_HEADERS, 1, &fields(&usual)),
        frame(0, 0, 1, DELETE.as_bytes()),
        frame(1, END_HEADERS | END_STREAM, 1, &fields(&[("x-http-method-override", "GET"), (":path", "/other")])),
    ];
    for (what, frames) in [
        ("as usual", with(&[])),
        ("in two frames", split),
        ("another path behind", with(&[(":path", "/other")])),
        ("another method behind", with(&[(":method", "GET")])),
        ("a host besides", with(&[("host", "other.example.com")])),
        ("two hosts", with(&[("host", "a"), ("host", "b")])),
        ("a header of the connection", with(&[("connection", "content-type")])),
        ("chunks", with(&[("transfer-encoding", "chunked")])),
        ("an upgrade", with(&[("upgrade", "websocket"), ("connection", "upgrade")])),
        ("capitals", with(&[("X-Capital", "a")])),
        ("a line's end in a value", with(&[("x-a", "b\r\nx-http-method-override: GET")])),
        ("a zero in a value", with(&[("x-a", "b\0c")])),
        ("a colon in a name", with(&[("x-a: b", "c")])),
        ("no length", with(&[("content-length", "0")])),
        ("a shorter length", with(&[("content-length", "5")])),
        ("two lengths", with(&[("content-length", "5"), ("content-length", "61")])),
        ("more than its length", harmless_then_more),
        ("trailers", trailers),
        ("no slash", instead(":path", "graphql/v2")),
        ("an absolute path", instead(":path", "http://other.example.com/graphql/v2")),
        ("a star", instead(":path", "*")),
        ("a line's end in the path", instead(":path", "/a HTTP/1.1\r\nHost: b\r\n\r\nPOST /graphql/v2")),
        ("an empty path", instead(":path", "")),
        ("a method with a space", instead(":method", "GET /other")),
        ("a method in small letters", instead(":method", "post")),
        ("a tunnel", instead(":method", "CONNECT")),
        ("another scheme", instead(":scheme", "ftp")),
        ("a protocol", with(&[(":protocol", "websocket")])),
    ] {
        talk(&frames)?;
        stage.nothing_arrived(what)?;
    }
    // Floods end the connection and not the gateway.
    let endless: Vec<Vec<u8>> = std::iter::once(frame(1, 0, 1, &fields(&usual)))
        .chain((0..20_000).map(|_| frame(9, 0, 1, &fields(&[("x-flood", "0123456789012345678901234567890123456789")]))))
        .collect();
    talk(&endless)?;
    let resets: Vec<Vec<u8>> = (0..5_000)
        .map(|number| number * 2 + 1)
        .flat_map(|stream| [frame(1, END_HEADERS, stream, &fields(&usual)), frame(3, 0, stream, &8u32.to_be_bytes())])
        .collect();
    talk(&resets)?;
    let pings: Vec<Vec<u8>> = (0..20_000).map(|_| frame(6, 0, 0, &[0; 8])).collect();
    talk(&pings)?;
    let settings: Vec<Vec<u8>> = (0..20_000).map(|_| frame(4, 0, 0, &[0, 1, 0, 0, 16, 0])).collect();
    talk(&settings)?;
    stage.nothing_arrived("floods")?;
    let status = stage.ask("/graphql/v2", &["--data-binary", HARMLESS, "-H", "content-type: application/json"])?;
    ensure!(status == 200, "it does not answer any more: {status}\n{}", stage.gateway.log());
    ensure!(stage.gateway.verify()?["verified"] == true, "the ledger does not verify");
    Ok(())
}
