//! Requests that come twice, and those that come from an old state: each change is made once, to what its author saw.

use serde_json::{Value, json};

use crate::harness::Demo;
use crate::manage::Person;

#[tokio::test]
async fn a_creation_that_is_sent_again_makes_one_key_and_shows_its_token_again_also_when_both_arrive_together() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let path = format!("/v1/accounts/{account}/keys");
    let create = |key: &'static str, name: &'static str| {
        let request = operator.request("POST", &path).header("idempotency-key", key);
        let request = request.json(&json!({ "kind": "secret", "mode": "test", "name": name }));
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        }
    };
    let (first, second, third) = tokio::join!(create("a", "worker"), create("a", "worker"), create("a", "worker"));
    assert_eq!(first.0, 201);
    assert_eq!((&first.1["id"], &first.1["id"]), (&second.1["id"], &third.1["id"]));
    let again = create("a", "worker").await;
    assert_eq!(again, first);
    assert_eq!(create("a", "another").await.0, 422);
    assert_ne!(create("b", "worker").await.1["id"], first.1["id"]);
    // After a restart the key is still one, and its token is gone.
    let demo = demo.restart(&[]);
    let operator = Person::operator(&demo);
    let request = operator.request("POST", &path).header("idempotency-key", "a");
    let answer = request.json(&json!({ "kind": "secret", "mode": "test", "name": "worker" })).send().await.unwrap();
    assert_eq!(answer.headers()["idempotency-replayed"], "true");
    let answer: Value = answer.json().await.unwrap();
    assert_eq!((&answer["id"], answer.get("token")), (&first.1["id"], None));
}

#[tokio::test]
async fn each_request_that_makes_something_makes_it_once_under_an_idempotency_key() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let (key, _) = operator.key(&account, "secret", "test").await;
    let (user, other) = operator.hired(&account, "ada@example.com", Some("owner")).await;
    let cases = [
        ("/v1/accounts".to_owned(), json!({ "name": "Once" }), json!({ "name": "Twice" })),
        (
            format!("/v1/accounts/{account}/keys"),
            json!({ "kind": "publishable", "mode": "live", "name": "Once" }),
            json!({ "kind": "publishable", "mode": "live", "name": "Twice" }),
        ),
        (format!("/v1/keys/{key}/rotate"), json!({ "overlap": "1h" }), json!({ "overlap": "2h" })),
        (
            "/v1/users".to_owned(),
            json!({ "email": "once@example.com", "name": "Once" }),
            json!({ "email": "twice@example.com", "name": "Twice" }),
        ),
        (format!("/v1/users/{user}/tokens"), json!({ "name": "Once" }), json!({ "name": "Twice" })),
    ];
    let send = async |person: &Person, path: &str, body: &Value| {
        let answer =
            person.request("POST", path).header("idempotency-key", "the same").json(body).send().await.unwrap();
        let replayed = answer.headers().get("idempotency-replayed").is_some();
        (answer.status().as_u16(), replayed, answer.json::<Value>().await.unwrap())
    };
    for (path, body, another) in &cases {
        let before = operator.done("GET", "/v1/events?limit=1000", Value::Null).await;
        let (status, replayed, made) = send(&operator, path, body).await;
        assert_eq!((status, replayed), (201, false), "{path}: {made}");
        let after = operator.done("GET", "/v1/events?limit=1000", Value::Null).await;
        assert_ne!(before, after, "{path}: it is told of");
        assert_eq!(send(&operator, path, body).await, (201, true, made), "{path}: the same answer, token included");
        let (status, _, problem) = send(&operator, path, another).await;
        assert_eq!((status, &problem["code"]), (422, &json!("idempotency_key_reused")), "{path}");
        assert_eq!(operator.done("GET", "/v1/events?limit=1000", Value::Null).await, after, "{path}: and nothing else");
    }
    // Another person's key of the same name is another one.
    let (path, body, _) = &cases[1];
    let (status, replayed, _) = send(&other, path, body).await;
    assert_eq!((status, replayed), (201, false));
    let long = "x".repeat(256);
    for bad in ["", long.as_str()] {
        let answer = operator.request("POST", path).header("idempotency-key", bad).json(body).send().await.unwrap();
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.json::<Value>().await.unwrap()["field"], "Idempotency-Key");
    }
}

#[tokio::test]
async fn a_change_is_made_to_the_version_that_was_seen_or_not_at_all() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let (key, _) = operator.key(&account, "secret", "test").await;
    let (user, _) = operator.hired(&account, "ada@example.com", None).await;
    let token = operator.done("POST", &format!("/v1/users/{user}/tokens"), json!({ "name": "another" })).await;
    let token = format!("/tokens/{}", token["id"].as_str().unwrap());
    let closing = operator.done("POST", "/v1/accounts", json!({ "name": "Closing" })).await;
    let closing = closing["id"].as_str().unwrap();
    let of_key = format!("/v1/keys/{key}");
    let (of_account, of_user) = (format!("/v1/accounts/{account}"), format!("/v1/users/{user}"));
    let of_closing = format!("/v1/accounts/{closing}");
    let send = async |method: &str, path: &str, tag: &str, body: &Value| {
        let request = operator.request(method, path).header("if-match", tag);
        let request = if body.is_null() { request } else { request.json(body) };
        let answer = request.send().await.unwrap();
        let tag = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
        (answer.status().as_u16(), tag, answer.text().await.unwrap())
    };
    // A role is part of the person's record, at a path of the account's.
    let member = "a member";
    for (method, thing, word, body) in [
        ("PATCH", &of_account, "", json!({ "name": "Renamed" })),
        ("PATCH", &of_key, "", json!({ "note": "seen" })),
        ("POST", &of_key, "/disable", Value::Null),
        ("POST", &of_key, "/enable", Value::Null),
        ("POST", &of_key, "/rotate", json!({})),
        ("POST", &of_key, "/compromise", Value::Null),
        ("POST", &of_key, "/revoke", json!({})),
        ("PATCH", &of_user, "", json!({ "name": "Ada L." })),
        ("PUT", &of_user, "/password", json!({ "password": "a password of hers" })),
        ("PUT", &of_user, member, json!({ "role": "viewer" })),
        ("DELETE", &of_user, member, Value::Null),
        ("DELETE", &of_user, &token, Value::Null),
        ("DELETE", &of_user, "", Value::Null),
        ("POST", &of_closing, "/close", Value::Null),
    ] {
        let path = if word == member { format!("{of_account}/members/{user}") } else { format!("{thing}{word}") };
        let (_, seen, before) = send("GET", thing, "*", &Value::Null).await;
        let seen = seen.unwrap();
        let number: u64 = seen.trim_matches('"').parse().unwrap();
        let (older, newer) = (format!("\"{}\"", number - 1), format!("\"{}\"", number + 1));
        for stale in [&older, &newer, &format!("{older}, {newer}"), &format!("W/{seen}"), "\"another\""] {
            let (status, _, problem) = send(method, &path, stale, &body).await;
            assert!(status == 412 && problem.contains("\"stale\""), "{method} {path}: {status} {problem}");
        }
        for bad in [number.to_string(), format!("{seen}{seen}"), format!("*, {seen}")] {
            let (status, _, problem) = send(method, &path, &bad, &body).await;
            assert!(status == 400 && problem.contains("If-Match"), "{method} {path}: {status} {problem}");
        }
        assert_eq!(send("GET", thing, "*", &Value::Null).await, (200, Some(seen.clone()), before), "{method} {path}");
        let one_of_them = format!("W/{older}, {older}, {seen}");
        let (status, tag, said) = send(method, &path, &one_of_them, &body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {said}");
        if method != "DELETE" {
            assert_eq!(tag, Some(format!("\"{}\"", number + 1)), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_repeated_creation_of_a_person_with_another_password_is_another_request_also_after_a_restart() {
    let mut demo = Demo::start();
    let create = async |demo: &Demo, password: Option<&str>| {
        let body = json!({ "email": "ada@example.com", "name": "Ada", "password": password });
        let request = Person::operator(demo).request("POST", "/v1/users").header("idempotency-key", "ada").json(&body);
        let answer = request.send().await.unwrap();
        let replayed = answer.headers().get("idempotency-replayed").is_some();
        let status = answer.status().as_u16();
        (status, replayed, answer.json::<Value>().await.unwrap())
    };
    let (status, _, made) = create(&demo, Some("the first of passwords")).await;
    assert_eq!(status, 201, "{made}");
    for _ in 0..2 {
        assert_eq!(create(&demo, Some("the first of passwords")).await, (201, true, made.clone()));
        for other in [Some("another of passwords"), None] {
            let (status, _, problem) = create(&demo, other).await;
            assert_eq!((status, &problem["code"]), (422, &json!("idempotency_key_reused")), "{other:?}");
        }
        demo = demo.restart(&[]);
    }
    let path = format!("/v1/users/{}/password", made["id"].as_str().unwrap());
    Person::operator(&demo).done("PUT", &path, json!({ "password": "changed in between" })).await;
    assert_eq!(create(&demo, Some("the first of passwords")).await.0, 422);
}
