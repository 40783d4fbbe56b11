//! The management API is what its description says: schemathesis makes requests from it, sound and unsound, and
//! checks the answers.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Demo, client};

/// A program that `tests/run` installs.
fn installed(program: &str) -> Command {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("schemathesis/bin").join(program);
    assert!(path.exists(), "{} is not there: tests/run installs it", path.display());
    Command::new(path)
}

#[tokio::test]
async fn the_description_is_one_by_its_specification_and_names_the_headers_that_are_sent() {
    let demo = Demo::start();
    let url = demo.get("ADMIN_URL");
    let document: Value = client().get(format!("{url}/openapi.json")).send().await.unwrap().json().await.unwrap();
    let file = demo.folder.path().join("openapi.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let validated = installed("openapi-spec-validator").args(["--errors", "all"]).arg(&file).output().unwrap();
    assert!(validated.status.success(), "{}", String::from_utf8_lossy(&validated.stdout));
    let refused = &document["paths"]["/v1/accounts"]["post"]["responses"]["400"]["content"]["application/problem+json"];
    assert_eq!(refused["schema"]["$ref"], "#/components/schemas/Problem");

    let account = client().post(format!("{url}/v1/accounts")).bearer_auth(demo.get("ADMIN_TOKEN"));
    let account = account.header("idempotency-key", "one").json(&json!({ "name": "Headers" }));
    for _ in 0..2 {
        let answer = account.try_clone().unwrap().send().await.unwrap();
        let described = &document["paths"]["/v1/accounts"]["post"]["responses"]["201"]["headers"];
        let described = described.as_object().unwrap().keys().map(|name| name.to_lowercase()).collect::<Vec<_>>();
        for name in ["location", "etag", "idempotency-replayed"] {
            assert!(described.contains(&name.to_owned()), "{name}");
            assert!(name == "idempotency-replayed" || answer.headers().contains_key(name), "{name}");
        }
    }
}

#[tokio::test]
async fn no_request_made_from_the_description_finds_a_fault_or_an_answer_that_is_not_described() {
    let demo = Demo::start();
    let (url, token) = (demo.get("ADMIN_URL"), demo.get("ADMIN_TOKEN"));
    let call = |method: reqwest::Method, path: String, body: Value| {
        let request = client().request(method, format!("{url}{path}")).bearer_auth(token);
        let request = if body.is_null() { request } else { request.json(&body) };
        async move { request.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    // Things that there are, so that requests come past "no such thing".
    let account = call(reqwest::Method::POST, "/v1/accounts".into(), json!({ "name": "Tried" })).await;
    let account = account["id"].as_str().unwrap();
    let key = json!({ "kind": "restricted", "mode": "test", "name": "tried", "scopes": ["resources:read"] });
    let key = call(reqwest::Method::POST, format!("/v1/accounts/{account}/keys"), key).await;
    let user = json!({ "email": "tried@example.com", "name": "Tried" });
    let user = call(reqwest::Method::POST, "/v1/users".into(), user).await;
    let (key, user) = (key["id"].as_str().unwrap(), user["id"].as_str().unwrap());
    let settings = demo.folder.path().join("schemathesis.toml");
    let parameters = format!("[parameters]\naccount = \"{account}\"\nkey = \"{key}\"\nuser = \"{user}\"\n");
    std::fs::write(&settings, parameters).unwrap();
    let tried = installed("schemathesis")
        .args(["--config-file", settings.to_str().unwrap(), "run", &format!("{url}/openapi.json")])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        // It answers for ten minutes.
        .args(["--exclude-operation-id", "watchDecisions"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--generation-deterministic"])
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"])
        .args(["--checks", "response_headers_conformance,response_schema_conformance,ignored_auth"])
        .current_dir(demo.folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tried.stdout);
    assert!(tried.status.success(), "{said}");
    let document = call(reqwest::Method::GET, "/openapi.json".into(), Value::Null).await;
    let items = document["paths"].as_object().unwrap().values();
    let operations: usize = items.map(|item| item.as_object().unwrap().len()).sum();
    assert!(said.contains(&format!("{} selected / {operations} total", operations - 1)), "{said}");
}
