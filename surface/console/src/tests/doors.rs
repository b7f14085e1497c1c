//! Who gets in: strangers, agents, other sites, and one operator.

use super::{
    World,
    house::{BROWSER, FORM_TOKEN, ORIGIN, SECRET},
};
use crate::PAGES;

/// Pages that a stranger may see, because signing in begins there.
const OPEN: usize = 13;

fn signed_in() -> String {
    format!("User-Agent: {BROWSER}\r\nCookie: __Host-reprieve={SECRET}\r\n")
}

fn own_site() -> String {
    format!("Origin: {ORIGIN}\r\nSec-Fetch-Site: same-origin\r\n")
}

/// A path with something in each of its holes.
fn filled(path: &str) -> String {
    path.replace("{id}", "H-1").replace("{name}", "bot").replace("{index}", "1")
}

#[tokio::test]
async fn a_stranger_is_sent_to_sign_in_and_does_nothing() {
    let world = World::new().await;
    for (method, path) in &PAGES[OPEN..] {
        let path = filled(path);
        for cookie in [
            String::new(),
            format!("Cookie: __Host-reprieve=guess\r\nUser-Agent: {BROWSER}\r\n"),
            format!("Cookie: __Host-reprieve={SECRET}\r\nUser-Agent: another\r\n"),
        ] {
            let answer = world.ask(method, &path, &format!("{cookie}{}", own_site()), &format!("form_token={FORM_TOKEN}")).await;
            match *method {
                "GET" => assert!(answer.status == 303 && answer.head.contains("location: /signin?next=%2f"), "{path}: {}", answer.head),
                _ => assert_eq!(answer.status, 401, "{path}"),
            }
        }
    }
    assert!(world.asked().is_empty());
}

#[tokio::test]
async fn every_form_needs_its_token_and_comes_from_our_own_pages() {
    let world = World::new().await;
    let posts = PAGES[OPEN..].iter().filter(|(method, path)| *method == "POST" && *path != "/confirm");
    for (method, path) in posts {
        let path = filled(path);
        let (session, good) = (signed_in(), format!("form_token={FORM_TOKEN}"));
        for (headers, body) in [
            (session.clone(), good.as_str()),
            (format!("{session}Origin: https://evil.example\r\n"), &good),
            (format!("{session}Origin: null\r\n"), &good),
            (format!("{session}Origin: {ORIGIN}.evil.example\r\n"), &good),
            (format!("{session}Origin: {ORIGIN}\r\nSec-Fetch-Site: cross-site\r\n"), &good),
            (format!("{session}Origin: {ORIGIN}\r\nSec-Fetch-Site: same-site\r\n"), &good),
            (format!("{session}{}", own_site()), ""),
            (format!("{session}{}", own_site()), "form_token=the-token-of-the-formt"),
            (format!("{session}{}", own_site()), "form_token="),
        ] {
            let answer = world.ask(method, &path, &headers, body).await;
            assert_eq!(answer.status, 403, "{path} {headers} {body}");
        }
    }
    assert!(world.asked().is_empty(), "{:?}", world.asked());
    let answer = world.ask("POST", "/freeze", &format!("{}{}", signed_in(), own_site()), &format!("form_token={FORM_TOKEN}")).await;
    assert_eq!(answer.status, 303);
    assert!(world.asked().last().is_some_and(|asked| asked.contains("Freeze { agent: None")), "{:?}", world.asked());
}

#[tokio::test]
async fn an_agents_token_opens_nothing_wherever_it_is_put() {
    let world = World::new().await;
    let token = format!("rpv_{}", "A".repeat(49));
    let headers = format!("{}{}", signed_in(), own_site());
    for (method, path) in PAGES {
        let path = filled(path);
        assert_eq!(world.ask(method, &format!("{path}?token={token}"), &headers, "").await.status, 403, "{path}");
        if method == "POST" && path != "/confirm" {
            let body = format!("form_token={FORM_TOKEN}&reason={token}");
            assert_eq!(world.ask(method, &path, &headers, &body).await.status, 403, "{path}");
        }
    }
    assert!(world.asked().is_empty());
}

#[tokio::test]
async fn pages_are_found_under_one_name() {
    let world = World::new().await;
    let answer = world.send("GET /holds HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
    assert!(answer.status == 307 && answer.head.contains("location: https://localhost/holds"), "{}", answer.head);
    let rebound = format!("POST /freeze HTTP/1.1\r\nHost: evil.example\r\n{}{}Content-Length: 0\r\n\r\n", signed_in(), own_site());
    assert_eq!(world.send(&rebound).await.status, 421);
    assert!(world.asked().is_empty());
}

#[tokio::test]
async fn a_cookie_from_before_signing_in_is_worth_nothing_and_the_new_one_is_strict() {
    let world = World::new().await;
    let headers = format!("{}Cookie: __Host-reprieve=planted\r\nContent-Type: application/json\r\n", own_site());
    let assertion = r#""assertion":{"credential":"a","client_data":"a","authenticator_data":"a","signature":"a"}"#;
    let answer = world.ask("POST", "/signin", &headers, &format!(r#"{{"challenge":"good",{assertion}}}"#)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let cookie = answer.head.lines().find(|line| line.starts_with("set-cookie: ")).expect("a cookie");
    assert!(cookie.contains(&SECRET.to_ascii_lowercase()) && !cookie.contains("planted"), "{cookie}");
    for word in ["__host-reprieve=", "secure", "httponly", "samesite=strict", "path=/"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    assert_eq!(world.ask("POST", "/signin", &headers, &format!(r#"{{"challenge":"bad",{assertion}}}"#)).await.status, 401);
    let two = format!("User-Agent: {BROWSER}\r\nCookie: __Host-reprieve=planted; __Host-reprieve={SECRET}\r\n");
    assert_eq!(world.ask("GET", "/live", &two, "").await.status, 303, "two cookies are none");
}

#[tokio::test]
async fn a_link_from_elsewhere_is_asked_again_from_our_own_site() {
    let world = World::new().await;
    let answer = world.ask("GET", "/holds/H-1", "Sec-Fetch-Site: cross-site\r\n", "").await;
    assert!(answer.status == 200 && answer.body.contains("url=/holds/H-1"), "{}", answer.body);
    assert!(!answer.body.contains("evil"));
}

#[tokio::test]
async fn every_page_answers_who_is_in() {
    let world = World::new().await;
    for (method, path) in PAGES {
        let missing = ["/holds/{id}", "/undo/{id}", "/agents/{name}", "/agents/{name}/report", "/audit/{index}"].contains(&path);
        if method != "GET" || path == "/events" || path == "/assets/{name}" {
            continue;
        }
        let answer = world.ask(method, &filled(path), &signed_in(), "").await;
        if path == "/signin/oidc/callback" {
            assert_eq!(answer.status, 401, "{}", answer.body);
            continue;
        }
        let expected = if missing { [404, 422] } else { [200, if path == "/" || path == "/signin/oidc" { 303 } else { 204 }] };
        assert!(expected.contains(&answer.status), "{path}: {} {}", answer.status, answer.body);
    }
    let page = world.ask("GET", "/live", &signed_in(), "").await;
    assert!(!page.body.contains(" style=") && !page.body.contains(" onclick"), "nothing inline");
    for asset in ["reprieve.css", "console.js", "htmx.min.js", "sse.min.js"] {
        assert_eq!(world.ask("GET", &format!("/assets/{asset}"), "", "").await.status, 200, "{asset}");
    }
    assert_eq!(world.ask("GET", "/assets/..%2fCargo.toml", "", "").await.status, 404);
    for (accepted, packed) in [("", false), ("Accept-Encoding: br, gzip;q=0\r\n", false), ("Accept-Encoding: identity\r\n", false)] {
        let answer = world.ask("GET", "/assets/reprieve.css", accepted, "").await;
        assert_eq!(answer.head.contains("content-encoding: gzip"), packed, "{accepted}");
        assert!(answer.body.contains(":root"), "{accepted}");
    }
    let packed = world.head("/assets/reprieve.css", "Accept-Encoding: gzip, deflate, br\r\n").await;
    assert!(packed.contains("content-encoding: gzip") && packed.contains("vary: accept-encoding"), "{packed}");
    let page = world.ask("GET", "/live", &format!("{}Accept-Encoding: gzip\r\n", signed_in()), "").await;
    assert!(!page.head.contains("content-encoding"), "a page holds a secret and what others sent");
}

/// Who comes back from another sign-in is let in by the cookie that they left with and goes on to a path of ours, whatever came along.
#[tokio::test]
async fn who_comes_back_from_another_sign_in_is_who_was_sent() {
    let world = World::new().await;
    for (next, kept) in [("/holds/H-1", "%2Fholds%2FH-1"), ("https://evil.example", "%2Flive"), ("//evil.example", "%2Flive")] {
        let sent = world.ask("GET", &format!("/signin/oidc?next={next}"), "", "").await;
        assert!(sent.status == 303 && sent.head.contains("location: https://id.example/auth?state=s"), "{}", sent.head);
        let cookie = format!("set-cookie: __host-reprieve-way=on-the-way.{}; path=/", kept.to_ascii_lowercase());
        assert!(sent.head.contains(&cookie) && sent.head.contains("httponly; samesite=lax"), "{}", sent.head);
    }
    let back = "/signin/oidc/callback?code=good&state=s&iss=https://id.example";
    for (cookies, status) in [
        ("", 401),
        ("Cookie: __Host-reprieve-way=guess.%2Flive\r\n", 401),
        ("Cookie: __Host-reprieve-way=on-the-way.%2Flive; __Host-reprieve-way=planted\r\n", 401),
        ("Cookie: __Host-reprieve-way=on-the-way.%2Fholds%2FH-1\r\n", 303),
        ("Cookie: __Host-reprieve-way=on-the-way.https%3A%2F%2Fevil.example\r\n", 303),
    ] {
        let answer = world.ask("GET", back, &format!("User-Agent: {BROWSER}\r\n{cookies}"), "").await;
        assert_eq!(answer.status, status, "{cookies} {}", answer.body);
        assert!(answer.head.contains("__host-reprieve-way=; path=/; max-age=0"), "it is used up: {}", answer.head);
        assert_eq!(answer.head.contains("set-cookie: __host-reprieve="), status == 303, "{}", answer.head);
        assert!(!answer.head.contains("evil"), "{}", answer.head);
    }
    let wrong =
        world.ask("GET", "/signin/oidc/callback?error=access_denied&state=s", "Cookie: __Host-reprieve-way=on-the-way.x\r\n", "").await;
    assert_eq!(wrong.status, 401);
}
