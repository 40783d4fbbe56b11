//! `examples/caddy` as it is shipped, but for its addresses: Debian's Caddy before the demo's API, or before an API that tells
//! what reached it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

use serde_json::json;

use crate::harness::Demo;
use crate::proxied::{IDENTITY, Proxy, Upstream, echo, reached, rewritten};

fn caddy(demo: &Demo, upstream: &Upstream) -> Proxy {
    let (api, scheme) = upstream.address(demo);
    let trust = "tls_trusted_ca_certs docs-api.pem\n\t\t\t\ttls_server_name localhost";
    let render = |folder: &Path, [tls, plain]: [u16; 2]| {
        let text = rewritten(
            "caddy/Caddyfile",
            &[
                ("admin off", "admin off\n\tdefault_bind 127.0.0.1".to_owned()),
                ("forward_auth 127.0.0.1:8700", demo.get("DECISION_URL").replace("http://", "forward_auth ")),
                ("https://127.0.0.1:8743", format!("{scheme}://{api}")),
                (trust, if scheme == "https" { trust } else { "" }.to_owned()),
                ("http://:8080", format!("http://:{plain}")),
                ("https://localhost:8443", format!("https://localhost:{tls}")),
            ],
        );
        fs::write(folder.join("Caddyfile"), text).unwrap();
    };
    Proxy::start(demo, render, |folder| {
        let mut caddy = Command::new("caddy");
        caddy.args(["run", "--config", "Caddyfile", "--adapter", "caddyfile"]);
        caddy.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
        caddy
    })
}

#[tokio::test]
async fn the_customers_calls_are_answered_through_caddy() {
    let demo = Demo::start();
    let caddy = caddy(&demo, &Upstream::Demo);
    let create = ["--data", r#"{"name":"First"}"#];
    let call = async |token: &str, path: &str, arguments: &[&str]| {
        caddy.call(&caddy.tls(path), Some(demo.get(token)), arguments).await
    };
    let created = call("SK_LIVE", "/v1/resources", &create).await;
    assert_eq!((created.status, &created.json()["name"]), (201, &json!("First")));
    let item = format!("/v1/resources/{}", created.json()["id"].as_str().unwrap());
    for (token, count) in [("PK_LIVE", 1), ("RK_LIVE", 1), ("SK_TEST", 0)] {
        let list = call(token, "/v1/resources", &[]).await;
        assert_eq!((list.status, list.json()["data"].as_array().unwrap().len()), (200, count), "{token}");
    }
    call("PK_LIVE", "/v1/resources", &create).await.is_denied(403, "policy_denied");
    call("SK_LIVE", "/v1/secrets.html", &[]).await.is_denied(403, "no_route");
    assert_eq!(call("SK_LIVE", &item, &["--request", "DELETE"]).await.status, 200);

    // A denial is Keyward's own, whole.
    let refused = call("RK_LIVE", "/v1/resources", &create).await;
    refused.is_denied(403, "scope_missing");
    assert_eq!(refused.json()["missing_scopes"], json!(["resources:write"]));
    let challenge = r#"Bearer realm="api", error="insufficient_scope", scope="resources:write""#;
    assert_eq!(refused.all("www-authenticate"), [challenge]);
    let anonymous = caddy.call(&caddy.tls("/v1/resources"), None, &[]).await;
    anonymous.is_denied(401, "credentials_missing");
    assert_eq!(anonymous.all("www-authenticate"), [r#"Bearer realm="api""#]);
    let doubled = format!("Authorization: Bearer {}", demo.get("SK_LIVE"));
    let answer = call("RK_LIVE", "/v1/resources", &["--header", &doubled]).await;
    answer.is_denied(401, "credentials_malformed");
}

#[tokio::test]
async fn no_identity_header_of_the_client_reaches_the_api() {
    let demo = Demo::start();
    let (upstream, _) = echo().await;
    let caddy = caddy(&demo, &upstream);
    let ours =
        IDENTITY.iter().chain(&["x-keyward-reason", "x-keyward-revision", "x-keyward-policies-stale", "x-keyward"]);
    let mut smuggled: Vec<String> = ours
        .flat_map(|name| [name.to_uppercase(), name.replace('-', "_"), name.replacen('-', "_", 1)])
        .map(|name| format!("{name}: evil"))
        .collect();
    smuggled.extend(["X-Request-Id: evil".into(), "X-Forwarded-For: evil".into(), "X-Forwarded-Proto: evil".into()]);
    // Would take away what Keyward says, if the proxy did as it is told.
    smuggled.push(format!("Connection: {}", IDENTITY.join(", ")));
    let arguments: Vec<&str> = smuggled.iter().flat_map(|line| ["--header", line]).collect();

    let url = caddy.tls("/v1/resources");
    for http in ["--http1.1", "--http2"] {
        let arguments = [arguments.as_slice(), &[http]].concat();
        let told = caddy.call(&url, Some(demo.get("RK_LIVE")), &arguments).await.json();
        assert!(!told.to_string().contains("evil"), "{told:#}");
        let question = json!({ "token": demo.get("RK_LIVE"), "method": "GET", "path": "/v1/resources" });
        let answer = demo.authorize(question).await;
        for name in IDENTITY {
            let decided = match name {
                "x-keyward-scopes" => "resources:read",
                _ => answer[name.trim_start_matches("x-keyward-")].as_str().unwrap(),
            };
            assert_eq!(reached(&told, name), [decided], "{name}");
        }
        assert_eq!(reached(&told, "x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(reached(&told, "x-forwarded-proto"), ["https"]);
        assert_eq!(reached(&told, "x-request-id").len(), 1);

        // A caller without an identity has none: what the client calls itself is taken away.
        let secret = caddy.call(&url, Some(demo.get("SK_LIVE")), &arguments).await.json();
        assert_eq!(reached(&secret, "x-keyward-scopes").concat(), "");
        assert!(!secret.to_string().contains("evil"), "{secret:#}");
    }
    // Of a route that no shipped example keeps from the public.
    let public = r#"@id("public-list") permit (principal == DocsApi::Anonymous::"anonymous",
        action == DocsApi::Action::"listWebhooks", resource) when { context.secure };"#;
    fs::write(demo.policies().join("public.cedar"), public).unwrap();
    demo.until_report(|report| report["policies"].to_string().contains("public-list")).await;
    let told = caddy.call(&caddy.tls("/v1/webhooks"), None, &arguments).await.json();
    assert!(IDENTITY.iter().all(|name| reached(&told, name).concat().is_empty()), "{told:#}");
    assert!(!told.to_string().contains("evil"), "{told:#}");
}

#[tokio::test]
async fn what_is_decided_on_is_what_the_api_reads_and_the_client_cannot_say_otherwise() {
    let demo = Demo::start();
    let (upstream, passed) = echo().await;
    let caddy = caddy(&demo, &upstream);
    let token = Some(demo.get("RK_LIVE"));
    for path in ["/v1/resources", "/v1/resources/res%5F1?x=%2F&y=..", "/v1/%72esources", "/v1/resources?next=/admin"] {
        let answer = caddy.call(&caddy.tls(path), token, &[]).await;
        assert_eq!((answer.status, &answer.json()["uri"]), (200, &json!(path)), "{}", answer.body);
    }
    let answer = caddy.call(&caddy.tls("/v1/resources"), Some(demo.get("SK_LIVE")), &["--data", "{}"]).await;
    assert_eq!(answer.json()["method"], "POST");
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
        ("/v1/resources/a%23b", "path_ambiguous"),
    ] {
        let answer = caddy.call(&caddy.tls(path), token, &[]).await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.body);
        assert!([code, "path_ambiguous"].contains(&answer.json()["code"].as_str().unwrap()), "{path}: {}", answer.body);
    }
    for smuggled in [
        "X-Forwarded-Uri: /v1/resources",
        "X_Forwarded_Uri: /v1/resources",
        "X.Forwarded.Uri: /v1/resources",
        "X-Original-URI: /v1/resources",
        "Connection: X-Forwarded-Uri, X-Forwarded-Method, X-Forwarded-Proto",
    ] {
        let answer = caddy.call(&caddy.tls("/admin"), token, &["--header", smuggled]).await;
        answer.is_denied(403, "no_route");
    }
    for smuggled in ["X-Forwarded-Method: GET", "X-HTTP-Method-Override: GET", "X-Original-Method: GET"] {
        let answer = caddy.call(&caddy.tls("/v1/resources"), token, &["--data", "{}", "--header", smuggled]).await;
        answer.is_denied(403, "scope_missing");
    }
    assert_eq!(passed.load(Ordering::Relaxed), allowed, "none of these reached the API");
}

#[tokio::test]
async fn a_key_over_plain_http_is_dead() {
    let demo = Demo::start();
    let (upstream, passed) = echo().await;
    let caddy = caddy(&demo, &upstream);
    let url = format!("http://localhost:{}/v1/resources", caddy.plain);
    let body = "x".repeat(100_000);
    for (token, arguments, after) in [
        ("PK_LIVE", &[][..], "allowed"),
        ("SK_TEST", &["--header", "X-Forwarded-Proto: https"], "key_compromised"),
        ("RK_LIVE", &["--header", "Connection: authorization, x-forwarded-proto"], "key_compromised"),
        ("SK_LIVE", &["--data", &body, "--header", "Host: other.example"], "key_compromised"),
    ] {
        caddy.call(&url, Some(demo.get(token)), arguments).await.is_denied(403, "transport_insecure");
        assert_eq!(demo.reason(token, "/v1/resources").await, after, "{token}");
    }
    assert_eq!(passed.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn without_a_decision_nothing_is_served() {
    let demo = Demo::start();
    let (upstream, passed) = echo().await;
    let caddy = caddy(&demo, &upstream);
    let token = demo.get("SK_LIVE").to_owned();
    assert_eq!(caddy.call(&caddy.tls("/v1/resources"), Some(&token), &[]).await.status, 200);
    let (status, said) = demo.process.stop();
    assert!(status.success(), "{said}");
    assert_eq!(caddy.call(&caddy.tls("/v1/resources"), Some(&token), &[]).await.status, 502);
    assert_eq!(passed.load(Ordering::Relaxed), 1);
}
