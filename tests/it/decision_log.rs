//! A decision log that cannot be written, on a running daemon: decisions, or lines, as configured.

use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use crate::harness::{Serve, client, configure, keyward};

/// More calls than a queue of a few lines, a buffer and a pipe could take.
const CALLS: usize = 20_000;

/// A daemon that logs to `path` what it decides.
fn logging_to(path: &str, when_full: &str) -> Serve {
    Serve::with(&[
        &format!("decision_log.path = {path:?}"),
        &format!("decision_log.when_full = {when_full:?}"),
        "decision_log.capacity = 4",
    ])
}

/// Status and document of a call with a good key.
async fn call(serve: &Serve, client: &reqwest::Client) -> (u16, Value) {
    let question = serde_json::json!({ "token": serve.tokens[1], "method": "GET", "path": "/v1/resources" });
    let answer = client.post(format!("{}/v1/authorize", serve.decision)).json(&question).send().await.unwrap();
    let status = answer.status().as_u16();
    if status == 503 {
        assert_eq!(answer.headers()["retry-after"], "1");
    }
    (status, answer.json().await.unwrap())
}

/// Calls until the answer has this status; bounded.
async fn until(serve: &Serve, status: u16) -> Value {
    let client = client();
    for _ in 0..CALLS {
        let (found, document) = call(serve, &client).await;
        if found == status {
            return document;
        }
        assert!(found == 200 || found == 503, "{found} {document}");
    }
    panic!("never {status}");
}

#[tokio::test]
async fn with_a_full_disk_no_decision_is_given_that_could_not_be_logged() {
    let serve = logging_to("/dev/full", "refuse");
    let document = until(&serve, 503).await;
    assert_eq!(document["code"], "log_unavailable", "{document}");
    let client = client();
    for _ in 0..50 {
        assert_eq!(call(&serve, &client).await.0, 503);
        let forward = serve.bare_forward().bearer_auth(&serve.tokens[1]).header("x-forwarded-method", "GET");
        let forward = forward.header("x-forwarded-uri", "/v1/resources").header("x-forwarded-proto", "https");
        let answer = forward.send().await.unwrap();
        assert!(answer.status() == 503 && !answer.headers().contains_key("x-keyward-account"));
        let document: Value = answer.json().await.unwrap();
        assert_eq!(document["code"], "log_unavailable", "{document}");
    }
    assert_eq!(client.get(format!("{}/healthz", serve.decision)).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn with_a_full_disk_lines_are_dropped_and_counted_where_decisions_count_for_more() {
    let serve = logging_to("/dev/full", "drop");
    let client = client();
    for _ in 0..200 {
        let (status, document) = call(&serve, &client).await;
        assert_eq!((status, &document["reason"]), (200, &Value::from("allowed")));
    }
    let metrics = client.get(format!("{}/metrics", serve.admin)).send().await.unwrap().text().await.unwrap();
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("keyward_decision_log_dropped_total "));
    assert!(dropped.unwrap().parse::<u64>().unwrap() > 0, "{metrics}");
}

#[tokio::test]
async fn a_log_that_is_read_again_lets_decisions_through_again() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    assert_eq!(keyward(&["init", "."], folder.path()).0, 0);
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let path = format!("decision_log.path = {:?}", pipe.to_str().unwrap());
    configure(folder.path(), &[&path, "decision_log.when_full = \"refuse\"", "decision_log.capacity = 4"]);
    let (code, made, error) = keyward(&["offline", "accounts", "create", "Vexart"], folder.path());
    assert_eq!(code, 0, "{error}");
    let tokens = made.split_whitespace().filter(|word| word.starts_with("pk_") || word.starts_with("sk_"));
    let serve = Serve::start_in(Arc::clone(&folder), tokens.map(str::to_owned).collect());
    // Nobody reads.
    assert_eq!(until(&serve, 503).await["code"], "log_unavailable");
    let reader = std::thread::spawn(move || {
        let mut read = Vec::new();
        let _ = File::open(pipe).unwrap().read_to_end(&mut read);
        read
    });
    until(&serve, 200).await;
    let (status, output) = serve.process.stop();
    assert!(status.success(), "{output}");
    let lines = String::from_utf8(reader.join().unwrap()).unwrap();
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{lines:.500}");
    assert!(lines.lines().count() > 0);
}
