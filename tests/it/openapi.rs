//! The management API is what its description says: schemathesis makes requests from it, sound and unsound, and
//! checks the answers.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Demo, client};

/// Where `tests/run` installs it.
fn schemathesis() -> std::path::PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("schemathesis/bin/schemathesis")
}

#[tokio::test]
async fn no_request_made_from_the_description_finds_a_fault_or_an_answer_that_is_not_described() {
    let program = schemathesis();
    assert!(program.exists(), "{} is not there: tests/run installs it", program.display());
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
    let tried = Command::new(program)
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
