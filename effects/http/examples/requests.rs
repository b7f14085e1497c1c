//! How long it takes to understand a request: `cargo run --release -p reprieve-effects-http --example requests`.

// A measurement has to be printed.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use reprieve_effects_http::{Body, Catalog, Request, analyze};
use serde_json::json;

const ROUNDS: usize = 3_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let catalog = Catalog::built_in()?;
    println!("{:<34} {:>9.2} ms", "catalog, hand-written part", start.elapsed().as_secs_f64() * 1e3);
    let graphql = |query: String| Request::json("POST", "backboard.railway.com", "/graphql/v2", Some(&json!({ "query": query })));
    let mut ec2 = Request::json("POST", "ec2.us-east-1.amazonaws.com", "/", None);
    let scope = "AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0";
    ec2.headers = vec![("content-type".into(), "application/x-www-form-urlencoded".into()), ("authorization".into(), scope.into())];
    ec2.body = Body::Bytes(b"Action=DescribeVolumes&Version=2016-11-15&VolumeId.1=vol-1".to_vec());
    let large = format!("query q {{ {} }}", (0..100).map(|n| format!("a{n}: project(id: \"p{n}\") {{ id name }} ")).collect::<String>());
    for (name, provider, request) in [
        ("REST read (GitHub)", "github", Request::json("GET", "api.github.com", "/repos/o/r/issues/7", None)),
        ("REST delete (Cloudflare)", "cloudflare", Request::json("DELETE", "api.cloudflare.com", "/client/v4/zones/z/dns_records/r", None)),
        (
            "Kubernetes patch",
            "kubernetes",
            Request::json("PATCH", "k", "/apis/apps/v1/namespaces/p/deployments/w", Some(&json!({"spec": {"replicas": 3}}))),
        ),
        ("GraphQL, volumeDelete", "railway", graphql("mutation { volumeDelete(volumeId: \"v\") }".to_owned())),
        ("GraphQL, 4 kB", "railway", graphql(large)),
        ("AWS, query", "aws", ec2),
    ] {
        let first = Instant::now();
        let _ = analyze(&catalog, provider, &request);
        let first = first.elapsed();
        let mut times: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let start = Instant::now();
                let _ = analyze(&catalog, provider, &request);
                start.elapsed().as_secs_f64() * 1e6
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let (p50, p99) = (times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
        println!("{name:<34} {p50:>9.1} µs p50 {p99:>9.1} µs p99, first {:.1} ms", first.as_secs_f64() * 1e3);
    }
    Ok(())
}
