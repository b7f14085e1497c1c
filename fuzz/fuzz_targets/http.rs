//! Any request to any kind of provider: the analysis ends, and what it would send is understood as the same again.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use reprieve_effects_http::{Body, Catalog, Request, analyze};

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::built_in().expect("the built-in catalog"));

fuzz_target!(|input: (u8, &str, &str, &[u8])| {
    let (choice, target, headers, body) = input;
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE"];
    let providers = [("railway", "backboard.railway.com"), ("aws", "ec2.us-east-1.amazonaws.com"), ("aws", "b.s3.amazonaws.com"), ("kubernetes", "k"), ("docker", "d"), ("cloudflare", "c")];
    let (provider, host) = providers[usize::from(choice) % providers.len()];
    let request = Request {
        method: methods[usize::from(choice / 8) % methods.len()].to_owned(),
        scheme: "https".to_owned(),
        host: host.to_owned(),
        target: target.to_owned(),
        headers: headers.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        body: if body.is_empty() { Body::Empty } else { Body::Bytes(body.to_vec()) },
    };
    let analysis = analyze(&CATALOG, provider, &request);
    assert_eq!(analysis.problem.is_some(), analysis.send.is_none());
    if let Some(sent) = &analysis.send {
        let again = analyze(&CATALOG, provider, sent);
        assert_eq!((again.effects, again.send.as_ref()), (analysis.effects, Some(sent)));
    }
});
