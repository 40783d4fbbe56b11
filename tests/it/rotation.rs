//! Rotation and expiry as clients live through them: no call fails that should not, and what ends does so at its second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::harness::{Demo, PATIENCE, client, verdict};
use crate::manage::{Person, reason};

const CLIENTS: usize = 4;
const ROTATIONS: u64 = 12;

fn time(key: &Value, field: &str) -> Timestamp {
    key[field].as_str().unwrap_or_else(|| panic!("{field}: {key}")).parse().unwrap()
}

fn token(key: &Value) -> &str {
    key["token"].as_str().unwrap()
}

/// Asks with a token until it has expired: allowed before `ends_at`, and no more from then on. `each` is called between.
async fn until_it_stops(person: &Person, url: &str, token: &str, ends_at: Timestamp, mut each: impl AsyncFnMut()) {
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "it never stopped");
        let began = Timestamp::now();
        let said = reason(&person.client, url, token).await;
        let ended = Timestamp::now();
        match said.as_str() {
            "allowed" => assert!(began < ends_at, "allowed after its second"),
            "key_expired" => {
                assert!(ended >= ends_at, "refused before its second");
                return;
            }
            other => panic!("{other}"),
        }
        each().await;
    }
}

#[tokio::test]
async fn clients_that_switch_within_an_overlap_never_see_a_call_fail() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let (key, first) = operator.key(&operator.account().await, "secret", "live").await;
    // Where clients read their token, each at its own pace: how often it was replaced, and the token.
    let vault = Arc::new(Mutex::new((0, first)));
    let seen: Arc<[AtomicU64; CLIENTS]> = Arc::default();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (vault, seen) = (Arc::clone(&vault), Arc::clone(&seen));
            let (http, url) = (client(), format!("{}/v1/forward-auth", demo.get("DECISION_URL")));
            tokio::spawn(async move {
                let mut held = vault.lock().unwrap().clone();
                let (mut of_old, mut of_new) = (0_u64, 0_u64);
                while seen[number].load(Ordering::SeqCst) < ROTATIONS {
                    for _ in 0..=number {
                        let is_old = vault.lock().unwrap().0 > held.0;
                        *if is_old { &mut of_old } else { &mut of_new } += 1;
                        let call = http.get(&url).bearer_auth(&held.1).header("x-forwarded-proto", "https");
                        let call = call.header("x-forwarded-method", "DELETE");
                        let said = verdict(call.header("x-forwarded-uri", "/v1/resources/res_1")).await;
                        assert_eq!(said, (200, "allowed".to_owned()), "client {number} after rotation {}", held.0);
                    }
                    held = vault.lock().unwrap().clone();
                    seen[number].store(held.0, Ordering::SeqCst);
                }
                (of_old, of_new)
            })
        })
        .collect();
    for rotation in 1..=ROTATIONS {
        let until = Instant::now() + PATIENCE;
        while seen.iter().any(|seen| seen.load(Ordering::SeqCst) + 1 < rotation) {
            assert!(Instant::now() < until, "a client never switched");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let rotated = operator.done("POST", &format!("/v1/keys/{key}/rotate"), json!({ "overlap": "1h" })).await;
        *vault.lock().unwrap() = (rotation, token(&rotated).to_owned());
    }
    let mut asked = (0, 0);
    for client in clients {
        let (of_old, of_new) = client.await.unwrap();
        asked = (asked.0 + of_old, asked.1 + of_new);
    }
    assert!(asked.0 > 0 && asked.1 > 0, "calls with old tokens, and with new ones: {asked:?}");
}

#[tokio::test]
async fn during_an_overlap_both_tokens_work_and_the_old_one_stops_at_its_second() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let url = demo.get("DECISION_URL");
    let (key, old) = operator.key(&operator.account().await, "restricted", "live").await;
    let rotated = operator.done("POST", &format!("/v1/keys/{key}/rotate"), json!({ "overlap": "3s" })).await;
    assert_eq!(rotated["id"], json!(key), "the key stays the same");
    let (new, ends_at) = (token(&rotated), time(&rotated, "old_secret_ends_at"));
    until_it_stops(&operator, url, &old, ends_at, async || {
        assert_eq!(reason(&operator.client, url, new).await, "allowed");
    })
    .await;
    assert_eq!(reason(&operator.client, url, new).await, "allowed");
    // A rotation without overlap ends the secret before at once.
    let again = operator.done("POST", &format!("/v1/keys/{key}/rotate"), json!({ "overlap": "0s" })).await;
    assert_eq!(reason(&operator.client, url, new).await, "key_unknown");
    assert_eq!(reason(&operator.client, url, token(&again)).await, "allowed");
}

#[tokio::test]
async fn an_overlap_ends_with_the_key_which_stops_at_its_second_and_all_else_is_inherited() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let (url, account) = (demo.get("DECISION_URL"), operator.account().await);
    let expires_at = Timestamp::now() + SignedDuration::from_secs(3);
    let body = json!({
        "kind": "restricted", "mode": "live", "name": "worker", "scopes": ["resources:read", "jobs:write"],
        "note": "nightly", "addresses": ["192.0.2.0/24", "127.0.0.1"], "rotate_every": "90d", "expires_at": expires_at,
    });
    let made = operator.done("POST", &format!("/v1/accounts/{account}/keys"), body).await;
    let path = format!("/v1/keys/{}", made["id"].as_str().unwrap());
    // Calls state no address, and this key would be refused for that.
    operator.done("PATCH", &path, json!({ "addresses": [] })).await;
    let before = operator.done("GET", &path, Value::Null).await;
    let rotated = operator.done("POST", &format!("{path}/rotate"), json!({ "overlap": "7d" })).await;
    assert_eq!(time(&rotated, "old_secret_ends_at"), expires_at);
    let inherited =
        ["id", "account", "mode", "kind", "name", "note", "scopes", "addresses", "created_at", "expires_at"];
    for field in inherited.into_iter().chain(["rotate_every", "state"]) {
        assert_eq!(rotated[field], before[field], "{field}");
    }
    assert!(time(&rotated, "rotation_due_at") > time(&before, "rotation_due_at"), "it is counted from the new secret");
    let (old, new) = (token(&made), token(&rotated));
    until_it_stops(&operator, url, old, expires_at, async || {}).await;
    until_it_stops(&operator, url, new, expires_at, async || {}).await;
}

#[tokio::test]
async fn a_second_rotation_ends_the_first_overlap_at_once() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let url = demo.get("DECISION_URL");
    let (key, first) = operator.key(&operator.account().await, "secret", "test").await;
    let rotate = async |body: Value| operator.done("POST", &format!("/v1/keys/{key}/rotate"), body).await;
    let says = async |token: &str| reason(&operator.client, url, token).await;
    assert_eq!(says(&first).await, "allowed");
    let second = rotate(json!({ "overlap": "7d" })).await;
    assert_eq!((says(&first).await.as_str(), says(token(&second)).await.as_str()), ("allowed", "allowed"));
    let third = rotate(json!({})).await;
    assert_eq!(says(&first).await, "key_unknown", "it is dead, although it was in every cache");
    assert_eq!((says(token(&second)).await.as_str(), says(token(&third)).await.as_str()), ("allowed", "allowed"));
    let overlap = time(&third, "old_secret_ends_at").duration_since(time(&third, "secret_created_at"));
    assert_eq!(overlap, SignedDuration::from_hours(24), "a day, when nobody says how long");
    for overlap in ["7d 1s", "-1s", "a while", "1 month"] {
        let request = operator.request("POST", &format!("/v1/keys/{key}/rotate")).json(&json!({ "overlap": overlap }));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 400, "{overlap}");
        assert_eq!(answer.json::<Value>().await.unwrap()["field"], "overlap", "{overlap}");
    }
    assert_eq!(says(token(&second)).await, "allowed", "what was refused changed nothing");
}
