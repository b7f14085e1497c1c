//! Requests that could mean two things mean nothing here.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use super::*;

fn with(change: impl FnOnce(&mut Request)) -> Request {
    let mut request = Request::json("POST", "api.test", "/a/b?c=d", Some(&serde_json::json!({"x": 1})));
    change(&mut request);
    request
}

fn header(name: &str, value: &str) -> Request {
    with(|request| request.headers.push((name.to_owned(), value.to_owned())))
}

fn target(target: &str) -> Request {
    with(|request| target.clone_into(&mut request.target))
}

fn body(media: &str, bytes: &[u8]) -> Request {
    with(|request| {
        request.headers = vec![("Content-Type".to_owned(), media.to_owned())];
        request.body = Body::Bytes(bytes.to_vec());
    })
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("written");
    encoder.finish().expect("finished")
}

#[test]
fn plain_requests_stay_as_they_are() {
    let request = with(|_| {});
    let read = canonical(&request, Paths::Strict).expect("canonical");
    assert_eq!((read.request.target.as_str(), read.segments.as_slice()), ("/a/b?c=d", ["a".to_owned(), "b".to_owned()].as_slice()));
    assert_eq!((read.query, read.content), (vec![("c".to_owned(), "d".to_owned())], Content::Json(serde_json::json!({"x": 1}))));
    assert_eq!(canonical(&read.request, Paths::Strict).map(|again| again.request), Ok(read.request));
    for accepted in [
        target("/a/b/"),
        target("/a%20b/c%C3%A4?x=%26&x=2&&y"),
        target("/a?x=1%3By=2&z=;"),
        target("https://api.test/a"),
        header("Host", "API.test"),
        header("Connection", "keep-alive, close"),
        header("Content-Encoding", "identity"),
        body("application/json; charset=utf-8", b"{}"),
        body("application/octet-stream", b"\xff\xfe"),
        body("application/x-www-form-urlencoded", b"a=1&b=2"),
    ] {
        assert!(canonical(&accepted, Paths::Strict).is_ok(), "{accepted:?}");
    }
}

#[test]
fn what_is_read_differently_elsewhere_is_refused() {
    let mut twice = header("content-type", "text/plain");
    twice.headers.push(("Content-Type".into(), "application/json".into()));
    let requests = [
        target("/a/../b"),
        target("/a/./b"),
        target("/a/%2e%2e/b"),
        target("/a/%252e%252e/b"),
        target("/a/.%2e"),
        target("/a%2fb"),
        target("/a%5cb"),
        target("/a\\b"),
        target("/a//b"),
        target("//a"),
        target("/a%00b"),
        target("/a%0d%0aX: y"),
        target("/a;x=1/b"),
        target("/a%3Bx"),
        target("/a%2"),
        target("/a%zz"),
        target("/a%ff"),
        target("/a%2541"),
        target("/a b"),
        target("/ä"),
        target("/a#b"),
        target("a/b"),
        target("*"),
        target(""),
        target("http://api.test/a"),
        target("https://evil.test/a"),
        target("https://api.test.evil.test/a"),
        target("https://api.test"),
        target("/a?x=%zz"),
        target("/a?_method=DELETE"),
        target("/a?_METHOD=DELETE"),
        target("/a?x=1;_method=DELETE"),
        target("/a?force=0;force=1"),
        target(&format!("/{}", "a/".repeat(600))),
        target(&format!("/{}", "a".repeat(70_000))),
        header("X-HTTP-Method-Override", "DELETE"),
        header("X-Http-Method", "DELETE"),
        header("X_HTTP_METHOD_OVERRIDE", "DELETE"),
        header("X-Original-URL", "/admin"),
        header("X-Rewrite-URL", "/admin"),
        header("Host", "evil.test"),
        header("Connection", "Authorization"),
        header("Content_Length", "5"),
        header("Transfer_Encoding", "chunked"),
        header("Bad Name", "x"),
        header("", "x"),
        header("X-A", "a\r\nX-B: c"),
        header("Content-Encoding", "br"),
        header("Content-Encoding", "gzip"),
        header("Content-Encoding", "gzip, gzip"),
        twice,
        with(|request| request.method = "TRACE".into()),
        with(|request| request.method = "delete".into()),
        with(|request| request.method = "PROPFIND".into()),
        with(|request| request.scheme = "ftp".into()),
        with(|request| request.body = Body::Unread("too large".into())),
        with(|request| request.body = Body::Bytes(vec![b' '; BODY_LIMIT + 1])),
        with(|request| request.headers = vec![("a".to_owned(), "b".to_owned()); 600]),
        body("application/json", b"{\"a\":1,\"a\":2}"),
        body("application/json", b"{} {}"),
        body("application/json; charset=utf-16", b"{}"),
        body("application/json", b"\xef\xbb\xbf{}"),
        body("text/plain; charset=utf-7", b"x"),
        body("application/x-www-form-urlencoded", b"_method=DELETE"),
        body("application/x-www-form-urlencoded", b"a=1;_method=DELETE"),
        body("application/x-www-form-urlencoded", b"{\"a\":1}"),
        body("application/xml", b"<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>"),
        body("application/cbor", b"\xa2\x61a\x01\x61a\x02"),
        body("application/cbor", b"\x01\x02"),
        body("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=\"_method\"\r\n\r\nDELETE\r\n--x--\r\n"),
        body("multipart/form-data", b"--x\r\n"),
        body("multipart/form-data; boundary=y", b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n"),
        body("multipart/form-data; boundary=x; boundary=y", b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n"),
        body("multipart/form-data; boundary*=x", b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n"),
        body("multipart/form-data; boundary*0=x; boundary*1=y", b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n"),
        body("multipart/form-data; boundary=\"x\\y\"", b"--x\r\n"),
        body("multipart/mixed; boundary=x", b"--x\r\nContent-Type: application/http\r\n\r\nDELETE /a HTTP/1.1\r\n\r\n--x--\r\n"),
        body("application/json; charset=utf-8; charset=utf-7", b"{}"),
        body("application/json; charset =utf-7", b"{}"),
        body("application/json; charset*=utf-7", b"{}"),
        body("application/json; charset='utf-7'", b"{}"),
        target("/a?x-http-method=DELETE"),
        target("/a?x_http_method_override=DELETE"),
        target("/a?%5Fmethod=DELETE"),
        target("/a%c0%af..%c0%afb"),
        target("/a/%e0%80%ae%e0%80%ae/b"),
        target("/a/%ef%bc%8e%ef%bc%8e/b"),
        target("/a%ef%bc%8fb"),
        target("/a/%e2%80%a5/b"),
        target("/%ef%bc%a1"),
    ];
    for request in requests {
        assert!(canonical(&request, Paths::Strict).is_err(), "{request:?}");
    }
}

#[test]
fn compressed_bodies_are_read_and_bombs_are_not() {
    let request = |bytes: Vec<u8>| {
        let mut request = header("Content-Encoding", "gzip");
        request.body = Body::Bytes(bytes);
        request
    };
    let read = canonical(&request(zipped(b"{\"a\":1}")), Paths::Strict).expect("read");
    assert_eq!((read.content, read.request.header("content-encoding")), (Content::Json(serde_json::json!({"a": 1})), None));
    assert!(canonical(&request(zipped(&vec![b'1'; 3 * BODY_LIMIT])), Paths::Strict).is_err());
    assert!(canonical(&request(zipped(b"{}")[..8].to_vec()), Paths::Strict).is_err());
}

#[test]
fn hop_by_hop_headers_stay_behind() {
    let mut request = header("Proxy-Authorization", "Basic abc");
    request.headers.extend([
        ("Transfer-Encoding".into(), "chunked".into()),
        ("TE".into(), "trailers".into()),
        ("Accept".into(), "x".into()),
    ]);
    let names: Vec<String> = canonical(&request, Paths::Strict).expect("read").request.headers.into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"accept".to_owned()) && !names.iter().any(|name| HOP_BY_HOP.contains(&name.as_str())), "{names:?}");
}

#[test]
fn uploads_in_chunks_become_plain() {
    let mut request = body("text/plain", b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AA==\r\n\r\n");
    request.headers.extend([("Content-Encoding".into(), "aws-chunked".into()), ("X-Amz-Trailer".into(), "x-amz-checksum-crc32".into())]);
    let read = canonical(&request, Paths::Names).expect("read").request;
    assert_eq!(
        (read.body.clone(), read.header("content-encoding"), read.header("x-amz-checksum-crc32")),
        (Body::Bytes(b"hello".to_vec()), None, Some("AA=="))
    );
}

#[test]
fn what_may_be_taken_for_another_request_than_its_method_says_is_seen() {
    let ask = |method: &str, target: &str, headers: Vec<(String, String)>, body: &[u8]| {
        let body = if body.is_empty() { Body::Empty } else { Body::Bytes(body.to_vec()) };
        let request = Request { method: method.to_owned(), target: target.to_owned(), headers, body, ..with(|_| {}) };
        other_than_its_method(&canonical(&request, Paths::Strict).expect("canonical")).is_some()
    };
    let read = |target: &str, body: &[u8]| ask("GET", target, Vec::new(), body);
    for (target, body) in [
        ("/a", b"DELETE /b HTTP/1.1\r\n\r\n".as_slice()),
        ("/a?method=delete", b""),
        ("/a?Method=DELETE", b""),
        ("/a?http_method=Post", b""),
        ("/a?methodOverride=PUT", b""),
        ("/a?batch=%5B%7B%22method%22%3A%22DELETE%22%7D%5D", b""),
        ("/a?b=%7B%22c%22%3A%5B%7B%22Method%22%3A%22patch%22%7D%5D%7D", b""),
    ] {
        assert!(read(target, body), "{target}");
    }
    for target in ["/a", "/a?method=get", "/a?method=flickr.photos.search", "/a?paymentmethod=delete", "/a?q=delete", "/a?b=%5B1%5D"] {
        assert!(!read(target, b""), "{target}");
    }
    let form = |body: &[u8]| ask("POST", "/a", vec![("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())], body);
    assert!(form(b"a=b&method=delete") && ask("POST", "/a?method=DELETE", Vec::new(), b""));
    assert!(!form(b"a=b&method=post") && !form(b"payment=delete") && !ask("DELETE", "/a?method=DELETE", Vec::new(), b""));
}
