//! `examples/nginx` as it is shipped, but for its addresses: Debian's nginx before the demo's API, or before an
//! API that tells what reached it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

use serde_json::json;

use crate::harness::Demo;
use crate::proxied::{IDENTITY, Proxy, Upstream, echo, raw, reached, rewritten};

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
    let nginx = nginx(&demo, &Upstream::Demo);
    let create = ["--data", r#"{"name":"First"}"#];
    let call = async |token: &str, path: &str, arguments: &[&str]| {
        nginx.call(&nginx.tls(path), Some(demo.get(token)), arguments).await
    };
    let created = call("SK_LIVE", "/v1/resources", &create).await;
    assert_eq!((created.status, &created.json()["name"]), (201, &json!("First")));
    let item = format!("/v1/resources/{}", created.json()["id"].as_str().unwrap());
    for (token, count) in [("SK_LIVE", 1), ("PK_LIVE", 1), ("RK_LIVE", 1), ("SK_TEST", 0), ("PK_TEST", 0)] {
        let list = call(token, "/v1/resources", &[]).await;
        assert_eq!((list.status, list.json()["data"].as_array().unwrap().len()), (200, count), "{token}");
    }
    assert_eq!(call("RK_LIVE", &item, &[]).await.json(), created.json());
    assert_eq!(call("SK_TEST", &item, &[]).await.status, 404, "test keys see no live data");
    call("PK_LIVE", "/v1/resources", &create).await.is_denied(403, "policy_denied");
    call("SK_LIVE", "/v1/secrets.html", &[]).await.is_denied(403, "no_route");
    assert_eq!(call("SK_LIVE", &item, &["--request", "DELETE"]).await.status, 200);

    let refused = call("RK_LIVE", "/v1/resources", &create).await;
    refused.is_denied(403, "scope_missing");
    let challenge = r#"Bearer realm="api", error="insufficient_scope", scope="resources:write""#;
    assert_eq!(refused.all("www-authenticate"), [challenge]);
    let anonymous = nginx.call(&nginx.tls("/v1/resources"), None, &[]).await;
    anonymous.is_denied(401, "credentials_missing");
    assert_eq!(anonymous.all("www-authenticate"), [r#"Bearer realm="api""#]);
    let wrong = nginx.call(&nginx.tls("/v1/resources"), Some("sk_live_4eC39Hq"), &[]).await;
    wrong.is_denied(401, "credentials_malformed");
    assert_eq!(wrong.all("www-authenticate"), [r#"Bearer realm="api", error="invalid_token""#]);
}

#[tokio::test]
async fn no_identity_header_of_the_client_reaches_the_api() {
    let demo = demo();
    let (upstream, _) = echo().await;
    let nginx = nginx(&demo, &upstream);
    let more =
        ["x-keyward-reason", "x-keyward-revision", "x-keyward-policies-stale", "x-request-id", "x-forwarded-for"];
    let names = IDENTITY.iter().chain(&more);
    let smuggled: Vec<String> = names
        .flat_map(|name| [format!("{name}: evil"), format!("{}: evil", name.replace('-', "_").to_uppercase())])
        .collect();
    let arguments: Vec<&str> = smuggled.iter().flat_map(|line| ["--header", line]).collect();

    let url = nginx.tls("/v1/resources");
    let told = nginx.call(&url, Some(demo.get("RK_LIVE")), &arguments).await.json();
    assert!(!told.to_string().contains("evil"), "{told:#}");
    let answer =
        demo.authorize(json!({ "token": demo.get("RK_LIVE"), "method": "GET", "path": "/v1/resources" })).await;
    for name in IDENTITY {
        let decided = match name {
            "x-keyward-scopes" => "resources:read",
            _ => answer[name.trim_start_matches("x-keyward-")].as_str().unwrap(),
        };
        assert_eq!(reached(&told, name), [decided], "{name}");
    }
    assert_eq!(reached(&told, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(reached(&told, "x-forwarded-proto"), ["https"]);
    assert!(reached(&told, "x-keyward-policies-stale").is_empty(), "{told:#}");

    // A caller without an identity has none: what the client calls itself is taken away.
    let secret = nginx.call(&url, Some(demo.get("SK_LIVE")), &arguments).await.json();
    assert!(reached(&secret, "x-keyward-scopes").is_empty() && !secret.to_string().contains("evil"), "{secret:#}");
    // Of a route that no shipped example keeps from the public.
    let public = r#"@id("public-list") permit (principal == DocsApi::Anonymous::"anonymous",
        action == DocsApi::Action::"listWebhooks", resource) when { context.secure };"#;
    fs::write(demo.policies().join("public.cedar"), public).unwrap();
    demo.until_report(|report| report["policies"].to_string().contains("public-list")).await;
    let told = nginx.call(&nginx.tls("/v1/webhooks"), None, &arguments).await.json();
    assert!(IDENTITY.iter().all(|name| reached(&told, name).is_empty()), "{told:#}");
    assert!(!told.to_string().contains("evil"), "{told:#}");
}

#[tokio::test]
async fn what_is_decided_on_is_what_the_api_reads_and_the_client_cannot_say_otherwise() {
    let demo = demo();
    let (upstream, passed) = echo().await;
    let nginx = nginx(&demo, &upstream);
    let token = Some(demo.get("RK_LIVE"));
    for path in ["/v1/resources", "/v1/resources/res%5F1?x=%2F&y=..", "/v1/%72esources", "/v1/resources?next=/admin"] {
        let answer = nginx.call(&nginx.tls(path), token, &[]).await;
        assert_eq!((answer.status, &answer.json()["uri"]), (200, &json!(path)), "{}", answer.body);
    }
    let allowed = passed.load(Ordering::Relaxed);
    for (path, code) in [
        ("/admin", "no_route"),
        ("//admin", "no_route"),
        ("/%61dmin", "no_route"),
        ("/admin?x=/v1/resources", "no_route"),
        ("/v1/resources/../../admin", "no_route"),
        ("/v1/resources/%2e%2e/%2E%2e/admin", "no_route"),
        ("/v1/resources/a%2fb", "path_ambiguous"),
        ("/v1/resources/a%5cb", "path_ambiguous"),
        ("/v1/resources/a;b", "path_ambiguous"),
    ] {
        let answer = nginx.call(&nginx.tls(path), token, &[]).await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.body);
        assert!([code, "path_ambiguous"].contains(&answer.json()["code"].as_str().unwrap()), "{path}: {}", answer.body);
    }
    for smuggled in [
        "X-Original-URI: /v1/resources",
        "X-Original-URL: https://localhost/v1/resources",
        "X_Original_URI: /v1/resources",
        "X.Original.URI: /v1/resources",
        "X-Forwarded-Uri: /v1/resources",
    ] {
        let answer = nginx.call(&nginx.tls("/admin"), token, &["--header", smuggled]).await;
        answer.is_denied(403, "no_route");
    }
    for smuggled in ["X-Original-Method: GET", "X-HTTP-Method-Override: GET", "X-Forwarded-Method: GET"] {
        let answer = nginx.call(&nginx.tls("/v1/resources"), token, &["--data", "{}", "--header", smuggled]).await;
        answer.is_denied(403, "scope_missing");
    }
    // Some releases of nginx refuse a doubled header themselves, with 400.
    let doubled = format!("Authorization: Bearer {}", demo.get("SK_LIVE"));
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
    let token = demo.get("SK_LIVE").to_owned();
    assert_eq!(nginx.call(&nginx.tls("/v1/resources"), Some(&token), &[]).await.status, 200);
    let (status, said) = demo.process.stop();
    assert!(status.success(), "{said}");
    let answer = nginx.call(&nginx.tls("/v1/resources"), Some(&token), &[]).await;
    assert_eq!((answer.status, answer.all("retry-after")), (503, vec!["1"]));
    assert_eq!(answer.json()["code"], "authorization_unavailable");
    assert_eq!(passed.load(Ordering::Relaxed), 1);
}
