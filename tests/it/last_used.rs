//! When a key was used last, and from where: seen at once, written now and then and at the end, and never far behind.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{Demo, Serve, client, keyward};

/// Never within a test.
const NEVER: &str = "last_used.flush_secs = 86400";
const OFTEN: &str = "last_used.flush_secs = 1";
const WORKER: &str = "192.0.2.7";

async fn reason(serve: &Serve, token: &str) -> String {
    let question = json!({ "token": token, "method": "GET", "path": "/v1/resources", "ip": WORKER });
    let url = format!("{}/v1/authorize", serve.decision);
    let answer = client().post(url).json(&question).send().await.unwrap();
    answer.json::<Value>().await.unwrap()["reason"].as_str().unwrap().to_owned()
}

/// The ids of the account's keys, in the order of [`Serve::tokens`].
fn ids(folder: &Path) -> Vec<String> {
    let (code, output, error) = keyward(&["offline", "keys", "list"], folder);
    assert_eq!(code, 0, "{error}");
    let mut keys: Vec<Vec<&str>> = output.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    // By mode, then by kind: "live" and "publishable" come first.
    keys.sort_by_key(|words| (words[3], words[2]));
    keys.iter().map(|words| words[0].to_owned()).collect()
}

/// What `keyward keys show` says of the last use.
fn shown(folder: &Path, id: &str) -> String {
    let (code, output, error) = keyward(&["offline", "keys", "show", id], folder);
    assert_eq!(code, 0, "{error}");
    let line = output.lines().find_map(|line| line.strip_prefix("last used"));
    line.unwrap_or_else(|| panic!("no such line: {output}")).trim().to_owned()
}

#[tokio::test]
async fn the_last_use_is_on_disk_when_the_daemon_has_ended_and_survives_the_next_one_without_a_use() {
    let mut serve = Serve::with(&[NEVER]);
    assert_eq!(reason(&serve, &serve.tokens[1]).await, "allowed");
    let (folder, tokens) = (Arc::clone(&serve.folder), serve.tokens.clone());
    for round in 0..2 {
        let (status, output) = serve.process.stop();
        assert!(status.success(), "{output}");
        let ids = ids(folder.path());
        let last = shown(folder.path(), &ids[1]);
        assert!(last.ends_with(&format!("UTC from {WORKER}")), "round {round}: {last}");
        assert_eq!(shown(folder.path(), &ids[3]), "never", "round {round}");
        serve = Serve::start_in(Arc::clone(&folder), tokens.clone());
        let (code, _, error) = keyward(&["offline", "keys", "show", &ids[1]], folder.path());
        assert_eq!(code, 1, "the daemon holds the store: {error}");
    }
}

#[tokio::test]
async fn a_use_that_was_written_while_serving_survives_kill_9() {
    let mut serve = Serve::with(&[OFTEN, "log.level = \"debug\""]);
    assert_eq!(reason(&serve, &serve.tokens[1]).await, "allowed");
    serve.process.wait_for("last uses written");
    serve.process.signal(rustix::process::Signal::KILL);
    let (status, _) = serve.process.wait();
    assert!(!status.success());
    let ids = ids(serve.folder.path());
    assert!(shown(serve.folder.path(), &ids[1]).ends_with(WORKER));
    assert_eq!(shown(serve.folder.path(), &ids[3]), "never");
}

#[tokio::test]
async fn the_management_api_shows_a_use_at_once_and_lists_the_keys_that_are_not_used() {
    let demo = Demo::start();
    let get = |path: &'static str| {
        let request = client().get(format!("{}{path}", demo.get("ADMIN_URL"))).bearer_auth(demo.get("ADMIN_TOKEN"));
        async move { request.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    let named = |list: &Value, used: bool| {
        let items = list["items"].as_array().unwrap();
        items.iter().filter(|key| key.get("last_used").is_some() == used).count()
    };
    let before = get("/v1/keys").await;
    assert_eq!(named(&before, true), 0, "{before}");
    for _ in 0..2 {
        let (status, _) =
            crate::harness::verdict(demo.forward("SK_LIVE", "GET", "/v1/resources").header("x-forwarded-for", WORKER))
                .await;
        assert_eq!(status, 200);
    }
    let after = get("/v1/keys").await;
    assert_eq!((named(&after, true), named(&after, false)), (1, named(&before, false) - 1), "{after}");
    let used = after["items"].as_array().unwrap().iter().find(|key| key.get("last_used").is_some()).unwrap();
    assert_eq!(used["last_used"]["address"], WORKER);
    assert_eq!(used["last_used"], used["secret_last_used"]);
    let minute: jiff::Timestamp = used["last_used"]["at"].as_str().unwrap().parse().unwrap();
    assert_eq!(minute.as_second() % 60, 0);
    for (since, unused) in [("2999-01-01T00:00:00Z", named(&before, false)), ("2020-01-01T00:00:00Z", 0)] {
        let request = client().get(format!("{}/v1/keys?unused_since={since}", demo.get("ADMIN_URL")));
        let list: Value = request.bearer_auth(demo.get("ADMIN_TOKEN")).send().await.unwrap().json().await.unwrap();
        assert_eq!(list["items"].as_array().unwrap().len(), unused, "since {since}: {list}");
    }
}
