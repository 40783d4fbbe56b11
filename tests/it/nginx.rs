//! `examples/nginx` as it is shipped, but for its addresses: Debian's nginx before the demo's API, or before an
//! API that tells what reached it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

use serde_json::json;

use crate::harness::Demo;
use crate::proxied::{self, Proxy, Upstream, echo, raw, rewritten};

fn nginx(demo: &Demo, upstream: &Upstream) -> Proxy {
    nginx_with(demo, upstream, "")
}

/// With these lines at the beginning of `location /`.
fn nginx_with(demo: &Demo, upstream: &Upstream, lines: &str) -> Proxy {
    let (api, scheme) = upstream.address(demo);
    let render = |folder: &Path, [tls, plain]: [u16; 2]| {
        let text = rewritten(
            "nginx/keyward.conf",
            &[
                (
                    "server 127.0.0.1:8700;",
                    format!("server {};", demo.get("DECISION_URL").trim_start_matches("http://")),
                ),
                ("server 127.0.0.1:8743;", format!("server {api};")),
                ("listen 8080;", format!("listen 127.0.0.1:{plain};")),
                ("listen 8443 ssl;", format!("listen 127.0.0.1:{tls} ssl;")),
                ("location / {", format!("location / {{\n{lines}")),
                ("proxy_pass https://docs_api;", format!("proxy_pass {scheme}://docs_api;")),
            ],
        );
        fs::write(folder.join("keyward.conf"), text).unwrap();
        fs::write(folder.join("nginx.conf"), rewritten("nginx/nginx.conf", &[])).unwrap();
    };
    Proxy::start(demo, render, |folder| {
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
        nginx
    })
}

fn demo() -> Demo {
    Demo::with(&["--proxy-style", "x-original"])
}

#[tokio::test]
async fn the_customers_calls_are_answered_through_nginx() {
    let demo = demo();
    proxied::answers_the_customers_calls(&nginx(&demo, &Upstream::Demo), &demo).await;
}

#[tokio::test]
async fn no_identity_header_of_the_client_reaches_the_api() {
    let demo = demo();
    let (upstream, _) = echo().await;
    let more = ["X_Request_Id: evil", "X_Forwarded_For: evil", "X_Forwarded_Proto: evil"];
    proxied::replaces_what_the_client_calls_itself(&nginx(&demo, &upstream), &demo, &more).await;
}

#[tokio::test]
async fn what_is_decided_on_is_what_the_api_reads_and_the_client_cannot_say_otherwise() {
    let demo = demo();
    let (upstream, passed) = echo().await;
    let nginx = nginx(&demo, &upstream);
    proxied::has_decided_what_the_api_reads(&nginx, &demo, &passed).await;
    let allowed = passed.load(Ordering::Relaxed);
    // Some releases of nginx refuse a doubled header themselves, with 400.
    let doubled = format!("Authorization: Bearer {}", demo.get("SK_LIVE"));
    let token = Some(demo.get("RK_LIVE"));
    let answer = nginx.call(&nginx.tls("/v1/resources"), token, &["--header", &doubled]).await;
    assert!([400, 401].contains(&answer.status), "{}", answer.body);
    assert_eq!(nginx.call(&nginx.tls("/_keyward"), token, &[]).await.status, 404);
    assert_eq!(passed.load(Ordering::Relaxed), allowed, "none of these reached the API");
}

#[tokio::test]
async fn a_key_over_plain_http_is_dead_on_either_port() {
    let demo = demo();
    let (upstream, passed) = echo().await;
    let nginx = nginx(&demo, &upstream);
    for (token, port, after) in [
        ("PK_LIVE", nginx.plain, "allowed"),
        ("PK_TEST", nginx.tls, "allowed"),
        ("SK_TEST", nginx.plain, "key_compromised"),
        ("RK_LIVE", nginx.tls, "key_compromised"),
    ] {
        let url = format!("http://localhost:{port}/v1/resources");
        let lie = ["--header", "X-Forwarded-Proto: https"];
        nginx.call(&url, Some(demo.get(token)), &lie).await.is_denied(403, "transport_insecure");
        assert_eq!(demo.reason(token, "/v1/resources").await, after, "{token}");
    }
    assert_eq!(passed.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_key_over_plain_http_is_exposed_also_by_a_call_that_nginx_refuses_itself() {
    let demo = demo();
    let (upstream, passed) = echo().await;
    let nginx = nginx(&demo, &upstream);
    let long = format!("x-long: {}\r\n", "x".repeat(20_000));
    let call = |token: &str, line: &str, fields: &str| {
        format!("{line}\r\nauthorization: Bearer {}\r\nconnection: close\r\n{fields}\r\n", demo.get(token))
    };
    let get = "GET /v1/resources HTTP/1.1";
    let heard = "keyward_decisions_total{outcome=\"forbidden\",reason=\"transport_insecure\"} ";
    for (line, fields) in [
        ("POST /v1/resources HTTP/1.1", "host: localhost\r\ncontent-length: 100000\r\n"),
        ("POST /v1/resources HTTP/1.1", "host: localhost\r\ncontent-length: ten\r\n"),
        ("POST /v1/resources HTTP/1.1", "host: localhost\r\ntransfer-encoding: odd\r\n"),
        ("TRACE /v1/resources HTTP/1.1", "host: localhost\r\n"),
        (get, ""),
        (get, "host: local/host\r\n"),
        (get, &format!("host: localhost\r\n{long}")),
    ] {
        for port in [nginx.plain, nginx.tls] {
            let before = demo.metric(heard).await;
            raw(port, &call("PK_LIVE", line, fields)).is_denied(403, "transport_insecure");
            assert_eq!(demo.metric(heard).await, before + 1, "{line} {fields:.60}");
        }
    }
    for (token, fields) in
        [("SK_LIVE", "host: localhost\r\ncontent-length: 100000\r\n"), ("RK_LIVE", "content-length: 0\r\n")]
    {
        raw(nginx.plain, &call(token, "POST /v1/resources HTTP/1.1", fields)).is_denied(403, "transport_insecure");
        assert_eq!(demo.reason(token, "/v1/resources").await, "key_compromised", "{token}");
    }
    // Over TLS the same is the client's mistake, and no more than that.
    let large = ["--data", &"x".repeat(100_000)];
    let answer = nginx.call(&nginx.tls("/v1/resources"), Some(demo.get("SK_TEST")), &large).await;
    assert_eq!((answer.status, &answer.json()["code"]), (413, &json!("body_too_large")));
    let odd = ["--header", "Host: local/host"];
    let answer = nginx.call(&nginx.tls("/v1/resources"), Some(demo.get("SK_TEST")), &odd).await;
    assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("request_malformed")));
    assert_eq!(answer.all("x-request-id"), [answer.json()["request_id"].as_str().unwrap()]);
    assert_eq!(demo.reason("SK_TEST", "/v1/resources").await, "allowed");
    assert_eq!(passed.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_page_of_another_origin_may_call_with_the_lines_of_the_readme() {
    let demo = demo();
    let (upstream, passed) = echo().await;
    let readme = rewritten("nginx/README.md", &[]);
    let lines = readme.split_once("```nginx\n").unwrap().1.split_once("```").unwrap().0;
    let nginx = nginx_with(&demo, &upstream, lines);
    let url = nginx.tls("/v1/resources");
    let origin = ["--header", "Origin: https://app.example"];
    let asks = ["--request", "OPTIONS", "--header", "Access-Control-Request-Method: GET"];
    let preflight = nginx.call(&url, None, &[origin, [asks[0], asks[1]], [asks[2], asks[3]]].concat()).await;
    assert_eq!((preflight.status, preflight.all("access-control-allow-origin")), (204, vec!["*"]));
    assert_eq!(preflight.all("access-control-allow-headers"), ["Authorization, Content-Type"]);
    assert_eq!(passed.load(Ordering::Relaxed), 0);
    let answer = nginx.call(&url, Some(demo.get("PK_LIVE")), &origin).await;
    assert_eq!((answer.status, answer.all("access-control-allow-origin")), (200, vec!["*"]));
    nginx.call(&url, None, &origin).await.is_denied(401, "credentials_missing");
}

#[tokio::test]
async fn without_a_decision_nothing_is_served() {
    let demo = demo();
    let (upstream, passed) = echo().await;
    let nginx = nginx(&demo, &upstream);
    let answer = proxied::serves_nothing_without_a_decision(&nginx, demo, &passed).await;
    assert_eq!((answer.status, answer.all("retry-after")), (503, vec!["1"]));
    assert_eq!(answer.json()["code"], "authorization_unavailable");
}
