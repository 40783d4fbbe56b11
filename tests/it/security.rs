//! What a forward-auth endpoint must survive: each case has happened to a product of this kind. The numbers are
//! those of the list that the team keeps; R is the demo's live restricted key with `resources:read`.

use std::time::Instant;

use reqwest::RequestBuilder;
use serde_json::json;

use crate::harness::{Demo, PATIENCE, Serve, client, configure, keyward, verdict};

const STATED: [(&str, &str); 3] =
    [("x-forwarded-method", "GET"), ("x-forwarded-uri", "/v1/resources"), ("x-forwarded-proto", "https")];

/// R's call with these headers alone besides its key.
fn with(demo: &Demo, headers: &[(&str, &str)]) -> RequestBuilder {
    let bare = demo.bare_forward().bearer_auth(demo.get("RK_LIVE"));
    headers.iter().fold(bare, |request, (name, value)| request.header(*name, *value))
}

fn and(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    STATED.iter().chain(more).copied().collect()
}

fn but(name: &str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    STATED.iter().map(|(held, old)| (*held, if *held == name { value } else { *old })).collect()
}

fn without(name: &str) -> Vec<(&'static str, &'static str)> {
    STATED.into_iter().filter(|(held, _)| *held != name).collect()
}

#[tokio::test]
async fn cases_3_to_6_and_13_a_statement_counts_when_it_is_made_once_and_in_the_right_headers() {
    let demo = Demo::start();
    let original = [("x-original-method", "GET"), ("x-original-uri", "/v1/resources"), ("x-forwarded-proto", "https")];
    for (case, headers, expected) in [
        ("the plain call", STATED.to_vec(), (200, "allowed")),
        ("3: only the other family", original.to_vec(), (403, "request_unclear")),
        ("4: no method", without("x-forwarded-method"), (403, "request_unclear")),
        ("4: no path", without("x-forwarded-uri"), (403, "request_unclear")),
        ("5: look-alikes", and(&[("x_forwarded_uri", "/admin"), ("x.forwarded.uri", "/admin")]), (200, "allowed")),
        ("6: path twice", and(&[("x-forwarded-uri", "/v1/resources")]), (403, "request_unclear")),
        ("6: method twice", and(&[("x-forwarded-method", "GET")]), (403, "request_unclear")),
        ("6: proto twice", and(&[("x-forwarded-proto", "https")]), (403, "transport_unknown")),
        ("6: proto joined", but("x-forwarded-proto", "https,http"), (403, "transport_unknown")),
        ("13: an override", and(&[("x-http-method-override", "DELETE")]), (200, "allowed")),
        ("14: lower case", but("x-forwarded-method", "get"), (403, "no_route")),
        ("14: a path in it", but("x-forwarded-method", "GET/admin"), (403, "no_route")),
        ("15: a health checker", and(&[("user-agent", "kube-probe/1.30")]), (200, "allowed")),
        ("16: a preflight's look", but("x-forwarded-method", "OPTIONS"), (403, "no_route")),
        ("18: no proto", without("x-forwarded-proto"), (403, "transport_unknown")),
    ] {
        let (status, reason) = verdict(with(&demo, &headers)).await;
        assert_eq!((status, reason.as_str()), expected, "case {case}");
    }
    let (status, _) = verdict(with(&demo, &STATED)).await;
    assert_eq!(status, 200, "18: nothing was marked");
}

#[tokio::test]
async fn case_2_one_family_of_headers_for_each_style() {
    let demo = Demo::with(&["--proxy-style", "x-original"]);
    let headers = [
        ("x-original-method", "GET"),
        ("x-original-uri", "/admin"),
        ("x-forwarded-uri", "/v1/resources"),
        ("x-forwarded-proto", "https"),
    ];
    assert_eq!(verdict(with(&demo, &headers)).await, (403, "no_route".into()));
    assert_eq!(verdict(with(&demo, &STATED)).await, (403, "request_unclear".into()));
}

#[tokio::test]
async fn cases_8_to_12_the_path_is_read_in_one_way_or_refused() {
    let demo = Demo::start();
    for (path, expected) in [
        ("/v1/resources/../../admin", "path_ambiguous"),
        ("/v1/resources/%2e%2e/%2E%2e/admin", "path_ambiguous"),
        ("/./admin", "path_ambiguous"),
        ("/v1/resources%2fx", "path_ambiguous"),
        ("/v1/resources/%5c", "path_ambiguous"),
        ("/v1/resources/%00", "path_ambiguous"),
        ("/v1/resources/%3b", "path_ambiguous"),
        ("/v1/resources/%3f", "path_ambiguous"),
        ("/v1/resources/%23", "path_ambiguous"),
        ("/v1/resources\\x", "path_ambiguous"),
        ("/v1/resources;x", "path_ambiguous"),
        ("/v1/resources/\tx", "path_ambiguous"),
        ("/%", "path_ambiguous"),
        ("", "path_ambiguous"),
        ("//admin", "no_route"),
        ("/%61dmin", "no_route"),
        ("/admin", "no_route"),
        ("/v1/resources/a%252eb", "allowed"),
        ("/admin?x=/v1/resources", "no_route"),
        ("/admin#/v1/resources", "path_ambiguous"),
        ("http://host/admin", "no_route"),
        ("https://host/v1/resources", "allowed"),
    ] {
        let mut request = with(&demo, &without("x-forwarded-uri"));
        request = request.header("x-forwarded-uri", path);
        let (status, reason) = verdict(request).await;
        let status_expected = if expected == "allowed" { 200 } else { 403 };
        assert_eq!((status, reason.as_str()), (status_expected, expected), "{path:?}");
    }
}

#[tokio::test]
async fn cases_7_25_and_26_one_well_formed_bearer_token_or_401() {
    let demo = Demo::start();
    let key = demo.get("RK_LIVE").to_owned();
    let stated = || STATED.iter().fold(demo.bare_forward(), |request, (name, value)| request.header(*name, *value));
    let flipped = format!("{}{}", &key[..key.len() - 1], if key.ends_with('0') { '1' } else { '0' });
    for (authorization, expected) in [
        (format!("Bearer {key}"), (200, "allowed")),
        (format!("bearer {key}"), (200, "allowed")),
        (format!("BEARER {key}"), (200, "allowed")),
        (format!("Bearer  {key}"), (200, "allowed")),
        (format!("Bearer {key}, Bearer {key}"), (401, "credentials_malformed")),
        (format!("Basic {key}"), (401, "credentials_malformed")),
        ("Bearer".into(), (401, "credentials_malformed")),
        (String::new(), (401, "credentials_malformed")),
        (format!("Bearer {flipped}"), (401, "credentials_malformed")),
        (format!("Bearer {}", "a".repeat(20_000)), (401, "credentials_malformed")),
        ("Bearer ключ".into(), (401, "credentials_malformed")),
    ] {
        let (status, reason) = verdict(stated().header("authorization", &authorization)).await;
        assert_eq!((status, reason.as_str()), expected, "{authorization:.60}");
    }
    let twice = stated().bearer_auth(&key).header("authorization", format!("Bearer {key}"));
    assert_eq!(verdict(twice).await, (401, "credentials_malformed".into()));
    let query = demo.bare_forward().header("x-forwarded-method", "GET").header("x-forwarded-proto", "https");
    let query = query.header("x-forwarded-uri", format!("/v1/resources?access_token={key}"));
    assert_eq!(verdict(query).await, (401, "credentials_missing".into()));
    let megabyte = json!({ "token": "a".repeat(1_000_000), "method": "GET", "path": "/v1/resources" });
    assert_eq!(demo.authorize(megabyte).await["reason"], "credentials_malformed");
    for odd in ["\u{0}", "a\u{0}b"] {
        let answer = demo.authorize(json!({ "token": odd, "method": "GET", "path": "/v1/resources" })).await;
        assert_eq!(answer["reason"], "credentials_malformed");
    }
    assert_eq!(demo.metric("keyward_argon2_runs_total").await, 1, "the good key, once");
}

#[tokio::test]
async fn cases_15_and_16_without_a_key_nothing_but_401() {
    let demo = Demo::start();
    for headers in [
        vec![],
        STATED.to_vec(),
        and(&[("user-agent", "ELB-HealthChecker/2.0")]),
        but("x-forwarded-method", "OPTIONS"),
        but("x-forwarded-uri", "/admin"),
    ] {
        let request = headers.iter().fold(demo.bare_forward(), |request, (name, value)| request.header(*name, *value));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401, "{headers:?}");
        assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"api\"");
        assert_eq!(response.headers()["cache-control"], "no-store");
    }
}

#[tokio::test]
async fn case_16_a_real_preflight_follows_the_policy_for_anonymous() {
    let demo = Demo::start();
    let schema = demo.schemas().join("docs-api.cedarschema");
    let text = std::fs::read_to_string(&schema).unwrap();
    let preflight = "  @http(\"OPTIONS /v1/resources\")\n  action preflightResources\n    appliesTo { principal: [Anonymous], resource: [Environment], context: Call };\n}";
    let active = demo.report().await["active"]["digest"].clone();
    std::fs::write(&schema, text.trim_end().strip_suffix('}').unwrap().to_owned() + preflight).unwrap();
    std::fs::write(
        demo.policies().join("cors.cedar"),
        "@id(\"cors\") permit (principal, action == DocsApi::Action::\"preflightResources\", resource) when { context.secure };",
    )
    .unwrap();
    demo.until_report(|report| {
        report["active"]["digest"] != active
            && report["policies"].as_array().unwrap().iter().any(|policy| policy["name"] == "cors")
    })
    .await;
    let headers = [
        ("x-forwarded-method", "OPTIONS"),
        ("x-forwarded-uri", "/v1/resources"),
        ("x-forwarded-proto", "https"),
        ("origin", "https://app.example"),
        ("access-control-request-method", "GET"),
    ];
    let request = headers.iter().fold(demo.bare_forward(), |request, (name, value)| request.header(*name, *value));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-keyward-account"], "", "an allow carries every identity header, empty here");
}

#[tokio::test]
async fn cases_1_and_17_what_an_untrusted_peer_states_counts_for_nothing() {
    let serve = Serve::with(&["decision.trusted_proxies = [\"192.0.2.1/32\"]"]);
    for headers in [STATED.to_vec(), without("x-forwarded-proto"), but("x-forwarded-proto", "http"), vec![]] {
        let request = serve.bare_forward().bearer_auth(&serve.tokens[1]);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        assert_eq!(verdict(request).await, (401, "peer_untrusted".into()), "{headers:?}");
    }
    let question = json!({ "token": serve.tokens[1], "method": "GET", "path": "/v1/resources" });
    let url = format!("{}/v1/authorize", serve.decision);
    let answer = client().post(url).json(&question).send().await.unwrap();
    let answer: serde_json::Value = answer.json().await.unwrap();
    assert_eq!((&answer["reason"], &answer["decision"]), (&json!("peer_untrusted"), &json!("unauthenticated")));
    assert!(answer["key"].is_null() && answer["account"].is_null(), "{answer}");
    // No key was marked: as a trusted service sees it, it is as good as before.
    let Serve { process, folder, tokens, .. } = serve;
    assert!(process.stop().0.success());
    configure(folder.path(), &["decision.trusted_proxies = [\"127.0.0.1/32\"]"]);
    let serve = Serve::start_in(folder, tokens);
    let url = format!("{}/v1/authorize", serve.decision);
    let answer = client().post(url).json(&question).send().await.unwrap();
    assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["reason"], "allowed");
}

#[tokio::test]
async fn case_19_a_wrong_secret_over_plain_http_marks_nothing() {
    let demo = Demo::start();
    let wrong = with_wrong_secret(demo.get("SK_LIVE"));
    let answer =
        demo.authorize(json!({ "token": wrong, "method": "GET", "path": "/v1/resources", "scheme": "http" })).await;
    assert_eq!(answer["reason"], "key_unknown");
    assert_eq!(demo.reason("SK_LIVE", "/v1/resources").await, "allowed");
}

#[tokio::test]
async fn case_20_a_publishable_key_over_plain_http_is_refused_and_lives() {
    let demo = Demo::start();
    let question =
        |scheme| json!({ "token": demo.get("PK_LIVE"), "method": "GET", "path": "/v1/resources", "scheme": scheme });
    assert_eq!(demo.authorize(question("http")).await["reason"], "transport_insecure");
    assert_eq!(demo.authorize(question("https")).await["reason"], "allowed");
}

#[tokio::test]
async fn case_21_a_thousand_wrong_secrets_do_not_keep_the_right_one_out() {
    let demo = Demo::start();
    let wrong = with_wrong_secret(demo.get("SK_LIVE"));
    let items: Vec<_> =
        (0..1_000).map(|_| json!({ "token": wrong, "method": "GET", "path": "/v1/resources" })).collect();
    let url = format!("{}/v1/authorize/batch", demo.get("DECISION_URL"));
    let answer = demo.client.post(url).json(&json!({ "items": items })).send().await.unwrap();
    let answer: serde_json::Value = answer.json().await.unwrap();
    let answers = answer["items"].as_array().unwrap();
    assert_eq!(answers.len(), 1_000);
    assert!(answers.iter().all(|answer| answer["reason"] == "key_unknown"));
    assert_eq!(demo.metric("keyward_argon2_runs_total").await, 0);
    assert_eq!(demo.reason("SK_LIVE", "/v1/resources").await, "allowed");
}

#[tokio::test]
async fn case_22_a_flood_of_malformed_tokens_runs_no_argon2_and_good_keys_are_answered() {
    let demo = Demo::start();
    assert_eq!(demo.reason("SK_LIVE", "/v1/resources").await, "allowed");
    let flood = async {
        for round in 0..2_000 {
            let token = format!("sk_live_{round:054}");
            let answer = demo.authorize(json!({ "token": token, "method": "GET", "path": "/v1/resources" })).await;
            assert_eq!(answer["reason"], "credentials_malformed");
        }
    };
    let good = async {
        for _ in 0..200 {
            let (status, _) = verdict(demo.forward("SK_LIVE", "GET", "/v1/resources")).await;
            assert_eq!(status, 200);
        }
    };
    tokio::join!(flood, good);
    assert_eq!(demo.metric("keyward_argon2_runs_total").await, 1);
}

#[tokio::test]
async fn cases_23_and_24_every_call_is_decided_on_the_record_and_revision_of_its_moment() {
    let demo = Demo::start();
    for _ in 0..3 {
        assert_eq!(demo.reason("SK_TEST", "/v1/resources").await, "allowed");
    }
    let insecure = json!({ "token": demo.get("SK_TEST"), "method": "GET", "path": "/v1/resources", "scheme": "http" });
    assert_eq!(demo.authorize(insecure).await["reason"], "transport_insecure");
    assert_eq!(demo.reason("SK_TEST", "/v1/resources").await, "key_compromised", "warm, then dead");
    assert_eq!(demo.reason("RK_LIVE", "/v1/resources").await, "allowed");
    assert_eq!(demo.reason("RK_LIVE", "/v1/jobs").await, "policy_denied", "another path");
    let account =
        demo.authorize(json!({ "token": demo.get("RK_LIVE"), "method": "GET", "path": "/v1/resources" })).await;
    let test = format!("{}/test", account["account"].as_str().unwrap());
    let elsewhere = json!({ "token": demo.get("RK_LIVE"), "method": "GET", "path": "/v1/resources/res_1", "resource": { "id": "res_1", "environment": test } });
    assert_eq!(demo.authorize(elsewhere).await["reason"], "policy_denied", "another mode");
    assert_eq!(demo.reason("RK_LIVE", "/v1/resources/res_9").await, "allowed");
    let before = demo.report().await["active"]["digest"].clone();
    let stop = "@id(\"stop\") forbid (principal, action, resource == DocsApi::Resource::\"res_9\");";
    std::fs::write(demo.policies().join("stop.cedar"), stop).unwrap();
    demo.until_report(|report| report["active"]["digest"] != before).await;
    assert_eq!(demo.reason("RK_LIVE", "/v1/resources/res_9").await, "policy_denied", "another revision");
    assert_eq!(demo.reason("RK_LIVE", "/v1/resources").await, "allowed");
}

#[tokio::test]
async fn case_27_an_allow_carries_every_identity_header() {
    let demo = Demo::start();
    let response =
        demo.forward("RK_LIVE", "GET", "/v1/resources").header("x-keyward-account", "acct_evil").send().await.unwrap();
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert!(header("x-keyward-account").starts_with("acct_") && header("x-keyward-account") != "acct_evil");
    assert_eq!(header("x-keyward-environment"), format!("{}/live", header("x-keyward-account")));
    assert_eq!((header("x-keyward-mode"), header("x-keyward-kind")), ("live".into(), "restricted".into()));
    assert_eq!(header("x-keyward-scopes"), "resources:read");
    assert!(header("x-keyward-key").starts_with("key_"));
    assert_eq!(response.headers().get_all("x-keyward-account").iter().count(), 1);
}

#[tokio::test]
async fn a_refusal_for_scope_says_so_as_the_standard_has_it() {
    let demo = Demo::start();
    let response = demo.forward("RK_LIVE", "POST", "/v1/resources").send().await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(
        response.headers()["www-authenticate"],
        "Bearer realm=\"api\", error=\"insufficient_scope\", scope=\"resources:write\""
    );
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: serde_json::Value = response.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["missing_scopes"]), (&json!("scope_missing"), &json!(["resources:write"])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_keys_that_were_never_seen_is_bounded_and_never_a_401() {
    let costly = ["argon2.memory_kib = 65536", "argon2.iterations = 3", "argon2.max_running = 1", "argon2.queue = 2"];
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    assert_eq!(keyward(&["init", "."], folder.path()).0, 0);
    configure(folder.path(), &costly);
    let mut tokens = Vec::new();
    for account in 0..5 {
        let (code, output, error) =
            keyward(&["offline", "accounts", "create", &format!("Account {account}")], folder.path());
        assert_eq!(code, 0, "{error}");
        let words = output.split_whitespace().filter(|word| word.len() == 62);
        tokens.extend(words.map(str::to_owned).collect::<Vec<_>>());
    }
    let serve = Serve::start_in(folder, tokens.clone());
    let calls: Vec<_> = tokens
        .iter()
        .map(|token| {
            let headers = STATED
                .iter()
                .fold(serve.bare_forward().bearer_auth(token), |request, (name, value)| request.header(*name, *value));
            tokio::spawn(headers.send())
        })
        .collect();
    let mut busy = 0;
    for call in calls {
        let answer = call.await.unwrap().unwrap();
        match answer.status().as_u16() {
            200 => {}
            503 => {
                busy += 1;
                assert_eq!(answer.headers()["retry-after"], "1");
            }
            other => panic!("{other}: {}", answer.text().await.unwrap()),
        }
    }
    assert!(busy > 0, "{} checks at once found room with three places", tokens.len());
    assert!(busy < tokens.len(), "some were let in");
}

#[tokio::test]
async fn what_is_named_by_a_policy_is_named_however_the_path_spells_it() {
    let demo = Demo::start();
    let forbids = ["res:1", "café", "my file", "50%"]
        .map(|id| format!("forbid (principal, action, resource == DocsApi::Resource::{id:?});\n"));
    std::fs::write(demo.policies().join("stop.cedar"), forbids.concat()).unwrap();
    let schema = demo.schemas().join("docs-api.cedarschema");
    let text = std::fs::read_to_string(&schema).unwrap();
    let purge = "  @http(\"DELETE /v1/resources/@all\")\n  action purgeResources appliesTo { principal: \
                 [Anonymous, PublishableKey, SecretKey, RestrictedKey], resource: [Environment], context: Call };\n";
    std::fs::write(&schema, text.replace("  // Jobs.", &format!("{purge}  // Jobs."))).unwrap();
    demo.until_report(|report| report["routes"].to_string().contains("@all") && report["refused"].is_null()).await;
    demo.until_report(|report| report["policies"].to_string().contains("stop.cedar")).await;
    for (path, expected) in [
        ("/v1/resources/res:1", "policy_denied"),
        ("/v1/resources/res%3A1", "policy_denied"),
        ("/v1/resources/res%3a1", "policy_denied"),
        ("/v1/resources/%72es:1", "policy_denied"),
        ("/v1/resources/caf%C3%A9", "policy_denied"),
        ("/v1/resources/caf%c3%a9", "policy_denied"),
        ("/v1/resources/my%20file", "policy_denied"),
        ("/v1/resources/50%25", "policy_denied"),
        ("/v1/resources/res_1", "allowed"),
    ] {
        let (_, reason) = verdict(demo.forward("SK_LIVE", "GET", path)).await;
        assert_eq!(reason, expected, "{path}");
    }
    for path in ["/v1/resources/@all", "/v1/resources/%40all", "/v1//resources/%40%61ll"] {
        let question = json!({ "token": demo.get("SK_LIVE"), "method": "DELETE", "path": path });
        assert_eq!(demo.authorize(question).await["action"], "purgeResources", "{path}");
    }
}

#[tokio::test]
async fn a_key_over_plain_http_is_dead_even_when_its_client_does_not_wait() {
    let demo = Demo::start();
    let address = demo.get("DECISION_URL").trim_start_matches("http://").to_owned();
    for token in ["SK_LIVE", "SK_TEST", "RK_LIVE"] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!(
            "GET /v1/forward-auth HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {}\r\nx-forwarded-method: GET\r\n\
             x-forwarded-uri: /v1/resources\r\nx-forwarded-proto: http\r\n\r\n",
            demo.get(token)
        );
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
        drop(stream);
        let until = Instant::now() + PATIENCE;
        // Until the daemon has read the request there is nothing to mark.
        while demo.reason(token, "/v1/resources").await == "allowed" {
            assert!(Instant::now() < until, "{token} lives");
        }
        assert_eq!(demo.reason(token, "/v1/resources").await, "key_compromised");
    }
}

/// The same selector with another secret, well-formed.
fn with_wrong_secret(token: &str) -> String {
    const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let body = format!("{}{}", &token[..24], "A".repeat(32));
    let mut number = crc32fast::hash(body.as_bytes());
    let mut checksum = [b'0'; 6];
    for slot in checksum.iter_mut().rev() {
        *slot = BASE62[(number % 62) as usize];
        number /= 62;
    }
    body + std::str::from_utf8(&checksum).unwrap()
}
