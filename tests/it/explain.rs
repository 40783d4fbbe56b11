//! Why a call is decided as it is: over the API, on the command line, and of files that nobody serves.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli_online::Person;
use crate::harness::{Demo, client, keyward};

async fn asked(demo: &Demo, token: &str, body: &Value) -> (u16, Value) {
    let request = client().post(format!("{}/v1/explain", demo.get("ADMIN_URL"))).bearer_auth(token).json(body);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

/// The policy of this name among those in play.
fn policy<'v>(told: &'v Value, name: &str) -> &'v Value {
    let policies = told["policies"].as_array().unwrap();
    policies.iter().find(|policy| policy["name"] == name).unwrap_or_else(|| panic!("{name}: {told:#}"))
}

#[tokio::test]
async fn an_explanation_is_of_the_decision_that_a_real_call_gets() {
    let demo = Demo::start();
    let token = demo.get("ADMIN_TOKEN");
    let calls = [
        json!({ "method": "GET", "path": "/v1/resources" }),
        json!({ "method": "DELETE", "path": "/v1/resources/res_1" }),
        json!({ "method": "POST", "path": "/v1/jobs", "ip": "192.0.2.7" }),
        json!({ "method": "GET", "path": "/v1/../x" }),
        json!({ "method": "GET", "path": "/v1/nothing" }),
        json!({ "method": "GET", "path": "/v1/resources/res_1", "resource": { "id": "res_2" } }),
    ];
    for key in [None, Some("PK_LIVE"), Some("SK_TEST"), Some("RK_LIVE")].map(|name| name.map(|name| demo.get(name))) {
        for call in &calls {
            let mut call = call.clone();
            if let Some(key) = key {
                call["token"] = json!(key);
            }
            let decided = demo.authorize(call.clone()).await;
            let (status, told) = asked(&demo, token, &call).await;
            assert_eq!(status, 200, "{told}");
            let fields = told["verdict"].as_object().unwrap();
            for (name, value) in fields.iter().filter(|(name, _)| *name != "request_id") {
                assert_eq!(value, &decided[name], "{name} of {call}");
            }
            // All that a call's answer has but the challenge, which is a header's.
            assert!(
                decided.as_object().unwrap().keys().all(|name| fields.contains_key(name) || name == "www_authenticate")
            );
            assert!(!told.to_string().contains(key.unwrap_or("no key")), "the token is not repeated");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_explained_is_neither_used_nor_marked() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.json(&["accounts", "list"])["items"][0]["id"].as_str().unwrap().to_owned();
    let create = ["keys", "create", "--account", &account, "--kind", "secret", "--mode", "live", "--name", "x"];
    let made = operator.json(&create);
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let call = json!({ "token": token, "method": "GET", "path": "/v1/resources", "scheme": "http" });
    let (status, told) = asked(&demo, &operator.token, &call).await;
    assert_eq!(
        (status, &told["verdict"]["reason"], &told["verdict"]["key"]),
        (200, &json!("transport_insecure"), &json!(id))
    );
    let key = operator.json(&["keys", "show", id]);
    assert_eq!((&key["state"], key.get("last_used"), key.get("flagged_at")), (&json!("active"), None, None));
    let (_, told) =
        asked(&demo, &operator.token, &json!({ "token": token, "method": "GET", "path": "/v1/resources" })).await;
    assert_eq!(told["verdict"]["reason"], "allowed");
    let (_, told) =
        asked(&demo, &operator.token, &json!({ "token": format!("{token}x"), "method": "GET", "path": "/" })).await;
    assert_eq!(told["verdict"]["reason"], "credentials_malformed");
}

#[tokio::test]
async fn whoever_may_look_at_a_key_has_its_calls_explained_and_operators_those_of_any_or_none() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let keys = operator.json(&["keys", "list"]);
    let key = keys["items"].as_array().unwrap().iter().find(|key| key["kind"] == "secret").unwrap();
    let (id, account) = (key["id"].as_str().unwrap(), key["account"].as_str().unwrap());
    let person = |email: &str, roles: &[&str]| {
        let user = operator.json(&[&["users", "create", email, "--name", "x"][..], roles].concat());
        let made = operator.json(&["users", "create-token", user["id"].as_str().unwrap(), "--name", "t"]);
        made["token"].as_str().unwrap().to_owned()
    };
    let role = format!("{account}=viewer");
    let (viewer, outsider) = (person("v@example.com", &["--role", &role]), person("o@example.com", &[]));
    let line = json!({ "method": "GET", "path": "/v1/resources" });
    let with = |name: &str, value: Value| {
        let mut body = line.clone();
        body[name] = value;
        body
    };
    let suppose = json!({ "kind": "restricted", "mode": "live", "scopes": ["jobs:write"] });
    let cases = [
        (with("key", json!(id)), [200, 200, 403]),
        (with("token", json!(demo.get("SK_LIVE"))), [200, 200, 403]),
        (with("token", json!("sk_live_nonsense")), [200, 403, 403]),
        (with("key", json!("key_0000000000000000")), [404, 403, 403]),
        (with("suppose", suppose), [200, 403, 403]),
        (line.clone(), [200, 403, 403]),
    ];
    for (body, expected) in cases {
        for (who, expected) in [&operator.token, &viewer, &outsider].into_iter().zip(expected) {
            let (status, answer) = asked(&demo, who, &body).await;
            assert_eq!(status, expected, "{body}: {answer}");
        }
    }
    for (body, field, said) in [
        (json!({ "method": "GET" }), "path", "missing field"),
        (json!({ "method": "GET", "path": "/", "key": id, "token": "x" }), "", "one of"),
        (with("suppose", json!({ "kind": "restricted", "mode": "live" })), "suppose.scopes", "at least one scope"),
        (
            with("suppose", json!({ "kind": "restricted", "mode": "live", "scopes": ["x"] })),
            "suppose.scopes[0]",
            "jobs:write",
        ),
        (with("resource", json!({ "environment": "live" })), "resource.environment", "acct_"),
        (with("at", json!("1960-01-01T00:00:00Z")), "at", "1970"),
    ] {
        let (status, answer) = asked(&demo, &operator.token, &body).await;
        assert_eq!((status, answer["field"].as_str().unwrap_or_default()), (400, field), "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(said), "{answer}");
    }
}

#[tokio::test]
async fn the_policies_in_play_are_told_with_what_they_saw_and_what_would_help() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let keys = operator.json(&["keys", "list"]);
    let of = |kind: &str| keys["items"].as_array().unwrap().iter().find(|key| key["kind"] == kind).unwrap().clone();
    let key = of("restricted");
    let (id, environment) = (key["id"].as_str().unwrap(), key["environment"].as_str().unwrap());
    let body = json!({ "key": id, "method": "DELETE", "path": "/v1/resources/res_1" });
    let (_, told) = asked(&demo, &operator.token, &body).await;
    assert_eq!(told["verdict"]["missing_scopes"], json!(["resources:write"]));
    let missed = policy(&told, "scope-resources-write");
    assert_eq!((&missed["state"], &missed["parts"][0]["part"]), (&json!("out_of_scope"), &json!("principal")));
    assert_eq!((&missed["file"], &missed["line"]), (&json!("policies/docs-api.cedar"), &json!(33)));
    assert_eq!(told["near_misses"][0]["name"], "scope-resources-write");
    let stays = policy(&told, "guarantee-restricted-stays-in-its-environment");
    let values = &stays["parts"][0]["because"][0]["values"];
    assert_eq!(values[1]["name"], "principal.environment");
    assert_eq!(values[1]["value"], format!("DocsApi::Environment::\"{environment}\""));

    // The same on the command line.
    let said = operator.done(&["explain", "--key", id, "DELETE /v1/resources/res_1"]);
    let parts =
        ["forbidden  403 scope_missing", "✗ policies", "policies/docs-api.cedar:33", "was false", "resources:write"];
    for part in parts.into_iter().chain([id, environment]) {
        assert!(said.contains(part), "{part}: {said}");
    }
    let words = ["explain", "--key-token-file", "-", "GET", "/v1/jobs", "--environment", "test", "--ip", "192.0.2.7"];
    let said = operator.done_with(&words, &format!("{}\n", demo.get("SK_LIVE")));
    assert!(said.contains("forbidden by guarantee-secret-stays-in-its-environment"), "{said}");
    assert!(said.contains("192.0.2.7") && !said.contains(demo.get("SK_LIVE")), "{said}");
    let supposed = ["explain", "--kind", "restricted", "--mode", "test", "--scope", "jobs:write", "POST /v1/jobs"];
    let told = operator.json(&supposed);
    assert_eq!((&told["verdict"]["decision"], &told["near_misses"]), (&json!("allow"), &json!([])));
    let insecure = operator.done(&["explain", "GET /v1/resources", "--http"]);
    assert!(insecure.contains("unauthenticated") && insecure.contains("plain HTTP"), "{insecure}");
    operator.fails(&["explain", "--key", "key_0000000000000000", "GET /"], 5, &["no such key"]);
    operator.fails(&["explain", "GET"], 2, &["'DELETE /v1/resources/res_1'"]);
    let pasted = demo.get("SK_LIVE");
    let (code, _, error) = operator.run(&["explain", "--key-token-file", pasted, "GET /"], "");
    assert!(code == 1 && error.contains("never an argument") && !error.contains(&pasted[20..]), "{error}");
}

#[test]
fn files_are_explained_without_a_daemon_or_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, error) = keyward(&["init", "."], folder.path());
    assert_eq!(code, 0, "{error}");
    let explain = |more: &[&str]| keyward(&[&["explain", "--policies", "."], more].concat(), folder.path());
    let restricted = ["--kind", "restricted", "--mode", "live", "--scope", "resources:read"];
    let (code, said, error) = explain(&[&restricted[..], &["DELETE /v1/resources/res_1"]].concat());
    assert_eq!((code, error.as_str()), (0, ""));
    let start = "forbidden  403 scope_missing
  The API key lacks a scope that this call needs. One of these would do: resources:write.

The way to it
  ✓ credentials  key_Example000000000, restricted live key of acct_Example000000000, with resources:read
  ✓ key          it works
  ✓ transport    HTTPS
  ✓ address      not stated; the key may be used from anywhere
  ✓ path         /v1/resources/res_1
  ✓ route        DELETE /v1/resources/{id} is deleteResource
  ✗ policies     no policy permits it

Policies in play; 8 others cannot apply to such a call
  · permit scope-resources-write                          policies/docs-api.cedar:33
      principal in DocsApi::Scope::\"resources:write\"  was false  line 35
        principal = RestrictedKey::\"key_Example000000000\" in Environment::\"acct_Example000000000/live\", \
                 Scope::\"resources:read\"
  · forbid guarantee-https-only                           policies/guarantees/docs-api.cedar:3  a guarantee
      unless { context.secure }  was true  line 5
  · forbid guarantee-restricted-stays-in-its-environment  policies/guarantees/docs-api.cedar:32  a guarantee
      unless { resource in principal.environment }  was true  line 38
        resource              = Resource::\"res_1\" in Environment::\"acct_Example000000000/live\"
        principal.environment = Environment::\"acct_Example000000000/live\"

Permits that one part kept from applying
  scope-resources-write  policies/docs-api.cedar:35  principal in DocsApi::Scope::\"resources:write\"
  secret-full-access     policies/docs-api.cedar:18  principal is DocsApi::SecretKey
  scope-resources-read   policies/docs-api.cedar:28  action in DocsApi::Action::\"resources:read\"

Scopes, one of which would be enough: resources:write

By revision ";
    assert!(said.starts_with(start), "{said}");
    let (_, said, _) = explain(&["--json", "GET", "/v1/resources"]);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(told["verdict"]["reason"], "credentials_missing");
    assert!(told["verdict"].get("request_id").is_none());
    for (words, code, said) in [
        (&["--kind", "restricted", "--mode", "live", "GET /"][..], 2, "at least one scope"),
        (&["--kind", "restricted", "--mode", "live", "--scope", "x", "GET /"], 2, "the schema has"),
        (&["--environment", "here", "GET /"], 2, "acct_"),
        (&["--key", "key_0000000000000000", "GET /"], 2, "--policies"),
        (&["--kind", "best", "--mode", "live", "GET /"], 2, "publishable"),
    ] {
        let (ended, _, error) = explain(words);
        assert_eq!(ended, code, "{words:?}: {error}");
        assert!(error.contains(said), "{words:?}: {error}");
    }
    std::fs::write(folder.path().join("policies/broken.cedar"), "permit (principal").unwrap();
    let (code, _, error) = explain(&["GET /"]);
    assert!(code == 1 && error.contains("policies/broken.cedar:1"), "{error}");
    let (code, _, error) = keyward(&["explain", "--policies", "nowhere", "GET /"], Path::new("."));
    assert!(code == 1 && error.contains("nowhere/schemas"), "{error}");
}

#[tokio::test]
async fn a_recorded_decision_is_explained_by_its_name_and_a_token_is_never_taken_for_one() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let question = json!({ "token": demo.get("RK_LIVE"), "method": "DELETE", "path": "/v1/resources/res_1" });
    let request = demo.authorize(question).await["request_id"].as_str().unwrap().to_owned();
    let told = operator.json(&["explain", &request]);
    assert_eq!(told["verdict"]["reason"], "scope_missing");
    assert_eq!(policy(&told, "scope-resources-write")["state"], "out_of_scope");
    let said = operator.done(&["explain", &request]);
    assert!(said.contains("403 scope_missing") && said.contains("docs-api.cedar:33"), "{said}");
    operator.fails(&["explain", "0123456789abcdef0123456789abcdef"], 5, &["no such recorded decision"]);
    let pasted = demo.get("SK_LIVE");
    let (code, _, error) = operator.run(&["explain", pasted], "");
    assert!(code == 2 && !error.contains(&pasted[20..]), "{error}");
    // Of what no policy was asked there is nothing to explain.
    let question = json!({ "token": demo.get("RK_LIVE"), "method": "GET", "path": "/v1/resources", "scheme": "http" });
    let request = demo.authorize(question).await["request_id"].as_str().unwrap().to_owned();
    operator.fails(&["explain", &request], 6, &["no policy was asked", "transport_insecure"]);
}
