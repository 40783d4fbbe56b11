//! Recorded decisions of a running daemon: each surface's, as they were, across a restart in order and not across a crash.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cli_online::Person;
use crate::harness::{Demo, Serve, client, keyward_with, verdict};

/// What is recorded of a request; every decision of it.
fn of_request(operator: &Person<'_>, id: &str) -> Vec<Value> {
    let list = operator.json(&["decisions", "list"]);
    let items = list["items"].as_array().unwrap();
    items.iter().filter(|decision| decision["request_id"] == id).cloned().collect()
}

#[tokio::test]
async fn each_surface_records_what_it_answered_before_it_is_read() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let forwarded =
        demo.forward("RK_LIVE", "DELETE", "/v1/resources/res_1?token=x").header("x-request-id", "from-proxy");
    let forwarded = forwarded.header("x-forwarded-for", "192.0.2.7");
    assert_eq!(verdict(forwarded).await, (403, "scope_missing".into()));
    let recorded = of_request(&operator, "from-proxy");
    let [decision] = recorded.as_slice() else { panic!("{recorded:?}") };
    let told = json!({
        "outcome": "forbidden", "reason": "scope_missing", "kind": "restricted", "scopes": ["resources:read"],
        "action": "deleteResource", "method": "DELETE", "path": "/v1/resources/res_1", "secure": true,
        "address": "192.0.2.7", "policies": [],
    });
    for (name, value) in told.as_object().unwrap() {
        assert_eq!(&decision[name], value, "{name}: {decision:#}");
    }
    let question = json!({ "token": demo.get("SK_LIVE"), "method": "GET", "path": "/v1/jobs" });
    let answer = demo.authorize(question.clone()).await;
    let decision = operator.json(&["decisions", "show", answer["request_id"].as_str().unwrap()]);
    for name in ["reason", "key", "environment", "action", "policies", "revision"] {
        assert_eq!(decision[name], answer[name], "{name}");
    }
    let url = format!("{}/v1/authorize/batch", demo.get("DECISION_URL"));
    let items = json!({ "items": [question, { "method": "GET", "path": "/v1/jobs" }] });
    let batch: Value = demo.client.post(url).json(&items).send().await.unwrap().json().await.unwrap();
    let recorded = of_request(&operator, batch["request_id"].as_str().unwrap());
    let reasons: Vec<_> = recorded.iter().map(|decision| decision["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["credentials_missing", "allowed"], "the newest first");
    assert_eq!(demo.metric("keyward_recorded_dropped_total ").await, 0);
}

#[tokio::test]
async fn where_a_call_came_from_and_its_name_are_what_the_proxy_states_once() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    for (stated, expected) in [
        ("2001:db8::1", json!("2001:db8::1")),
        ("[2001:db8::1]", json!("2001:db8::1")),
        ("[2001:db8::1]:4711", json!("2001:db8::1")),
        ("[2001:db8::1], 127.0.0.1", json!("2001:db8::1")),
        ("[2001:db8::1", Value::Null),
    ] {
        let request = demo.forward("SK_LIVE", "GET", "/v1/resources").header("x-forwarded-for", stated);
        let answer = request.header("x-request-id", "first").header("x-request-id", "second").send().await.unwrap();
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert!(answer.status() == 200 && id != "first" && id != "second", "{id}");
        let recorded = of_request(&operator, &id);
        let [decision] = recorded.as_slice() else { panic!("{recorded:?}") };
        assert_eq!(decision.get("address").unwrap_or(&Value::Null), &expected, "{stated}");
    }
}

#[tokio::test]
async fn decisions_are_listed_filtered_shown_counted_and_exported() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    for path in ["/v1/resources", "/v1/jobs", "/v0"] {
        for token in ["SK_LIVE", "RK_LIVE"] {
            demo.reason(token, path).await;
        }
    }
    let count = |arguments: &[&str]| {
        let list = operator.json(&[&["decisions", "list"], arguments].concat());
        list["items"].as_array().unwrap().len()
    };
    let newest = operator.json(&["decisions", "list", "--limit", "1"])["items"][0].clone();
    let key = newest["key"].as_str().unwrap();
    let account = newest["environment"].as_str().unwrap().split('/').next().unwrap().to_owned();
    for (arguments, expected) in [
        (&["--key", key][..], 3),
        (&["--account", &account], 6),
        (&["--outcome", "allow"], 3),
        (&["--reason", "no_route"], 2),
        (&["--action", "listJobs", "--outcome", "forbidden"], 1),
        (&["--since", "2999-01-01T00:00:00Z"], 0),
        (&["--limit", "4"], 4),
    ] {
        assert_eq!(count(arguments), expected, "{arguments:?}");
    }
    assert_eq!(operator.done(&["decisions", "list", "--reason", "key_revoked"]), "no such decisions are recorded\n");
    operator.fails(&["decisions", "list", "--reason", "nonsense"], 1, &["reason:", "scope_missing"]);
    operator.fails(&["decisions", "show", "nowhere"], 5, &["no such recorded decision"]);
    operator.fails(&["decisions", "show", demo.get("SK_LIVE")], 2, &["give a decision's id"]);
    let table = operator.done(&["decisions", "list"]);
    assert!(
        table.starts_with("AT ") && table.contains("GET /v1/jobs") && table.contains("secret-full-access"),
        "{table}"
    );
    let shown = operator.done(&["decisions", "show", newest["id"].as_str().unwrap()]);
    assert!(shown.contains("no_route") && shown.contains("GET /v0") && shown.contains(key), "{shown}");
    let exported = operator.done(&["decisions", "export"]);
    let exported: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut listed = operator.json(&["decisions", "list"])["items"].as_array().unwrap().clone();
    listed.reverse();
    assert_eq!(exported, listed);
    let url = format!("{}/v1/decisions/counts", demo.get("ADMIN_URL"));
    for query in [String::new(), format!("?key={key}"), format!("?account={account}&step=1440")] {
        let answer = client().get(format!("{url}{query}")).bearer_auth(&operator.token).send().await.unwrap();
        let counts: Value = answer.json().await.unwrap();
        let sum = |place: &str| -> u64 {
            let items = counts["items"].as_array().unwrap().iter();
            items.filter_map(|item| item.pointer(place)?.as_u64()).sum()
        };
        let expected = if query.starts_with("?key") { (1, 1, 1) } else { (3, 2, 1) };
        let found = (sum("/reasons/allowed"), sum("/reasons/no_route"), sum("/actions/listJobs/forbidden"));
        assert_eq!(found, expected, "{query}: {counts:#}");
    }
}

#[tokio::test]
async fn what_is_recorded_survives_a_restart_and_a_crash_loses_it() {
    let demo = Demo::start();
    demo.reason("SK_LIVE", "/v1/resources").await;
    let exported = |demo: &Demo| Person::operator(demo).done(&["decisions", "export"]);
    let before = exported(&demo);
    assert_eq!(before.lines().count(), 1);
    let file = demo.folder.path().join("data/store/recorded-decisions");
    assert!(!file.exists(), "there is no file while it runs");
    let (status, output) = demo.process.stop();
    assert!(status.success(), "{output}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let demo = Demo::start_in(demo.folder, &[]);
    assert_eq!(exported(&demo), before);
    demo.reason("SK_LIVE", "/v1/jobs").await;
    assert_eq!(exported(&demo).lines().count(), 2);
    let Demo { process, folder, .. } = demo;
    process.signal(rustix::process::Signal::KILL);
    process.wait();
    let demo = Demo::start_in(Arc::clone(&folder), &[]);
    assert_eq!(exported(&demo), "");
    // A file that is not whole is as none, and no reason not to start.
    let (status, _) = demo.process.stop();
    assert!(status.success());
    std::fs::write(&file, "{\"format\": 1,").unwrap();
    let mut demo = Demo::start_in(folder, &[]);
    assert!(demo.process.output().contains("recorded before cannot be read"));
    assert_eq!(exported(&demo), "");
}

#[tokio::test]
async fn a_daemon_that_is_to_record_nothing_says_so() {
    let serve = Serve::with(&["recorded.decisions = 0"]);
    let question = json!({ "token": serve.tokens[1], "method": "GET", "path": "/v1/resources" });
    let answer = client().post(format!("{}/v1/authorize", serve.decision)).json(&question).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["reason"], "allowed");
    let Serve { process, folder, .. } = serve;
    process.stop();
    let (code, token, error) = keyward_with(
        &["offline", "users", "create", "op@example.com", "--operator", "--config", "keyward.toml"],
        folder.path(),
        &[],
    );
    assert_eq!(code, 0, "{error}");
    let token = token.split_whitespace().find(|word| word.starts_with("kw_")).unwrap().to_owned();
    let serve = Serve::start_in(folder, vec![]);
    let operator = Person { url: &serve.admin, token };
    operator.fails(&["decisions", "list"], 6, &["recorded.decisions"]);
    operator.fails(&["decisions", "show", "x"], 6, &["recorded.decisions"]);
    let (status, output) = serve.process.stop();
    assert!(status.success() && !output.contains("could not be written"), "{output}");
}
