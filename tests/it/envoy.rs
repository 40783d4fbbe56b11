//! What Envoy's HTTP `ext_authz` sends, with `path_prefix: /v1/forward-auth` and `x-forwarded-proto`, `x-forwarded-for` and
//! `x-request-id` among its `allowed_headers`: the call's own method and path, an empty body, and its own address at the end of
//! `x-forwarded-for`.

use serde_json::json;

use crate::cli_online::Person;
use crate::harness::Demo;
use crate::proxied::{Answer, IDENTITY, raw};

fn demo() -> Demo {
    Demo::with(&["--proxy-style", "envoy"])
}

/// A check, by these header fields beside those that are always there.
fn check(demo: &Demo, line: &str, fields: &[(&str, &str)]) -> Answer {
    let (method, target) = line.split_once(' ').unwrap();
    let fields: String = fields.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
    let port = demo.get("DECISION_URL").rsplit(':').next().unwrap().parse().unwrap();
    let head = format!("{method} /v1/forward-auth{target} HTTP/1.1\r\nhost: api.example.com\r\ncontent-length: 0\r\n");
    let own = "x-envoy-internal: true\r\nx-envoy-expected-rq-timeout-ms: 200\r\nconnection: close\r\n";
    raw(port, &format!("{head}{own}{fields}\r\n"))
}

/// Status and reason of a check with a key, over TLS as far as Envoy can tell.
fn decided(demo: &Demo, token: &str, line: &str, more: &[(&str, &str)]) -> (u16, String) {
    let bearer = format!("Bearer {}", demo.get(token));
    let stated = [
        ("authorization", bearer.as_str()),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "192.0.2.7,127.0.0.1"),
    ];
    let answer = check(demo, line, &[&stated, more].concat());
    (answer.status, answer.all("x-keyward-reason").concat())
}

#[tokio::test]
async fn method_path_and_key_of_the_call_itself_decide() {
    let demo = demo();
    for (token, line, expected) in [
        ("RK_LIVE", "GET /v1/resources", (200, "allowed")),
        ("RK_LIVE", "GET /v1/resources?x=/admin", (200, "allowed")),
        ("RK_LIVE", "GET /v1/%72esources", (200, "allowed")),
        ("RK_LIVE", "POST /v1/resources", (403, "scope_missing")),
        ("SK_LIVE", "POST /v1/resources", (200, "allowed")),
        ("SK_LIVE", "DELETE /v1/resources/res_1", (200, "allowed")),
        ("PK_LIVE", "PATCH /v1/resources/res_1", (403, "policy_denied")),
        ("SK_LIVE", "GET /admin", (403, "no_route")),
        ("SK_LIVE", "GET /admin?x=/v1/resources", (403, "no_route")),
        ("SK_LIVE", "GET //admin", (403, "no_route")),
        ("SK_LIVE", "GET /", (403, "no_route")),
        ("SK_LIVE", "GET /v1/resources/../../admin", (403, "path_ambiguous")),
        ("SK_LIVE", "GET /v1/resources/%2e%2e/%2E%2e/admin", (403, "path_ambiguous")),
        ("SK_LIVE", "GET /v1/resources/a%2fb", (403, "path_ambiguous")),
        ("SK_LIVE", "GET /v1/resources/a;b", (403, "path_ambiguous")),
        ("SK_LIVE", "GET /v1/forward-auth/v1/resources", (403, "no_route")),
        // Nothing behind the prefix is no call, and is not taken for the root.
        ("SK_LIVE", "GET ", (403, "request_unclear")),
        ("SK_LIVE", "GET ?x=/v1/resources", (403, "request_unclear")),
    ] {
        let (status, reason) = decided(&demo, token, line, &[]);
        assert_eq!((status, reason.as_str()), expected, "{token} {line}");
    }
    assert_eq!(check(&demo, "GET /v1/resources", &[("x-forwarded-proto", "https")]).status, 401);
}

#[tokio::test]
async fn an_allow_is_200_with_every_identity_header_and_a_denial_says_why() {
    let demo = demo();
    let bearer = format!("Bearer {}", demo.get("RK_LIVE"));
    let stated = [("authorization", bearer.as_str()), ("x-forwarded-proto", "https"), ("x-request-id", "of-envoy")];
    let allowed = check(&demo, "GET /v1/resources", &stated);
    assert_eq!((allowed.status, allowed.all("x-request-id")), (200, vec!["of-envoy"]));
    assert!(IDENTITY.iter().all(|name| allowed.all(name).len() == 1));
    assert_eq!(allowed.all("x-keyward-scopes"), ["resources:read"]);
    let denied = check(&demo, "DELETE /v1/resources/res_1", &stated);
    denied.is_denied(403, "scope_missing");
    assert_eq!(denied.json()["missing_scopes"], json!(["resources:write"]));
    assert_eq!(denied.all("www-authenticate").len(), 1);
}

#[tokio::test]
async fn the_client_is_who_stands_before_envoy_in_x_forwarded_for() {
    let demo = demo();
    let operator = Person::operator(&demo);
    assert_eq!(decided(&demo, "SK_LIVE", "GET /v1/jobs", &[("x-request-id", "of-envoy")]), (200, "allowed".into()));
    let decisions = operator.json(&["decisions", "list"]);
    let [decision] = decisions["items"].as_array().unwrap().as_slice() else { panic!("{decisions:#}") };
    assert_eq!((&decision["address"], &decision["request_id"]), (&json!("192.0.2.7"), &json!("of-envoy")));
    assert_eq!((&decision["method"], &decision["path"]), (&json!("GET"), &json!("/v1/jobs")));
}

#[tokio::test]
async fn no_header_of_the_client_states_another_call() {
    let demo = demo();
    for (name, value) in [
        ("x-forwarded-uri", "/v1/resources"),
        ("x-original-uri", "/v1/resources"),
        ("x-original-url", "https://localhost/v1/resources"),
        ("x-envoy-original-path", "/v1/resources"),
        ("x-http-method-override", "GET"),
    ] {
        assert_eq!(decided(&demo, "SK_LIVE", "GET /admin", &[(name, value)]), (403, "no_route".into()), "{name}");
    }
    for name in ["x-forwarded-method", "x-original-method", "x-http-method-override"] {
        let found = decided(&demo, "RK_LIVE", "POST /v1/resources", &[(name, "GET")]);
        assert_eq!(found, (403, "scope_missing".into()), "{name}");
    }
}

#[tokio::test]
async fn how_the_call_came_is_what_envoy_says_once() {
    let demo = demo();
    let bearer = format!("Bearer {}", demo.get("RK_LIVE"));
    let key = ("authorization", bearer.as_str());
    for protos in [&[][..], &["https", "https"], &["https", "http"], &["https,http"], &["HTTPS"]] {
        let stated: Vec<_> = protos.iter().map(|proto| ("x-forwarded-proto", *proto)).chain([key]).collect();
        check(&demo, "GET /v1/resources", &stated).is_denied(403, "transport_unknown");
    }
    assert_eq!(decided(&demo, "RK_LIVE", "GET /v1/resources", &[]).0, 200, "nothing was marked");
    check(&demo, "GET /v1/resources", &[key, ("x-forwarded-proto", "http")]).is_denied(403, "transport_insecure");
    assert_eq!(decided(&demo, "RK_LIVE", "GET /v1/resources", &[]), (401, "key_compromised".into()));
}

#[tokio::test]
async fn what_stands_behind_a_hash_is_not_seen() {
    // The HTTP library leaves it out. README.md names the limit; when this fails, it is none any more.
    let demo = demo();
    assert_eq!(decided(&demo, "RK_LIVE", "GET /v1/resources#/admin", &[]), (200, "allowed".into()));
    let admin = decided(&demo, "RK_LIVE", "GET /admin#/v1/resources", &[]);
    assert_eq!(admin, (403, "no_route".into()));
    assert_eq!(decided(&demo, "RK_LIVE", "GET /v1/resources%23/admin", &[]), (403, "path_ambiguous".into()));
}
