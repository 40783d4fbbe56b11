//! Questions over JSON: good ones, and bad ones of each kind with an answer that says what to mend.

use serde_json::{Value, json};

use crate::harness::{Demo, client};

/// Status and document of an answer to a raw body.
async fn ask(demo: &Demo, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let url = format!("{}{path}", demo.get("DECISION_URL"));
    let request = demo.client.post(url).header("content-type", "application/json");
    let answer = request.body(body).send().await.unwrap();
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert!(answer.headers().contains_key("x-request-id"));
    (status, answer.json().await.unwrap())
}

#[tokio::test]
async fn a_question_that_cannot_be_understood_is_answered_with_its_field_and_what_is_wrong() {
    let demo = Demo::start();
    let deep = format!(r#"{{"method": "GET", "path": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let items = format!(r#"{{"items": [{}]}}"#, vec![r#"{"method":"GET","path":"/"}"#; 1_001].join(","));
    for (path, body, field, said) in [
        ("", "", None, "EOF"),
        ("", "GET /v1/resources", None, "expected value"),
        ("", "[]", None, "expected a JSON object"),
        ("", "\u{feff}{}", None, "expected value"),
        ("", r#"{"path": "/v1/resources"}"#, Some("method"), "missing field `method`"),
        ("", r#"{"method": "GET"}"#, Some("path"), "missing field `path`"),
        ("", r#"{"method": "GET", "path": "/", "url": "/"}"#, Some("url"), "unknown field `url`"),
        ("", r#"{"method": "GET", "path": "/", "path": "/v1"}"#, Some("path"), "duplicate field"),
        ("", r#"{"method": 1, "path": "/"}"#, Some("method"), "expected"),
        ("", r#"{"method": "GET", "path": "/", "scheme": "HTTPS"}"#, Some("scheme"), "`https`"),
        ("", r#"{"method": "GET", "path": "/", "ip": "localhost"}"#, Some("ip"), "IP address"),
        ("", r#"{"method": "GET", "path": "/", "ip": "192.0.2.1:80"}"#, Some("ip"), "IP address"),
        (
            "",
            r#"{"method": "GET", "path": "/", "resource": {"environment": "live"}}"#,
            Some("resource.environment"),
            "",
        ),
        ("", r#"{"method": "GET", "path": "/", "resource": {"type": "job"}}"#, Some("resource.type"), "unknown field"),
        ("", r#"{"method": "GET", "path": "/", "token": "a", "authorization": "b"}"#, Some("token"), "not both"),
        ("", r#"{"method": "GET", "path": "/"} {}"#, None, "trailing"),
        ("", &deep, Some("path"), ""),
        ("/batch", r#"{"items": {}}"#, Some("items"), "sequence"),
        ("/batch", r#"{"items": [{"method": "GET"}]}"#, Some("items[0].path"), "missing field"),
        ("/batch", &items, Some("items"), "at most 1000"),
        (
            "/batch",
            r#"{"items": [{"method": "GET", "path": "/"}, {"method": "GET", "path": "/", "token": "", "authorization": ""}]}"#,
            Some("items[1].token"),
            "not both",
        ),
    ] {
        let (status, document) = ask(&demo, &format!("/v1/authorize{path}"), body.to_owned()).await;
        let short = &body[..body.len().min(100)];
        assert_eq!((status, &document["code"]), (400, &json!("request_invalid")), "{short}: {document}");
        assert_eq!(document.get("field").and_then(Value::as_str), field, "{short}: {document}");
        assert!(document["detail"].as_str().unwrap().contains(said), "{short}: {document}");
    }
    let url = format!("{}/v1/authorize", demo.get("DECISION_URL"));
    // The daemon does not read on, so that the client may be told while it writes, or find the connection closed.
    let large = client().post(&url).header("content-type", "application/json");
    if let Ok(large) = large.body(vec![b' '; 2 << 20]).send().await {
        assert_eq!(large.status(), 413);
    }
    assert_eq!(demo.client.get(&url).send().await.unwrap().status(), 405);
    assert_eq!(demo.client.get(format!("{url}/other")).send().await.unwrap().status(), 404);
    assert_eq!(demo.reason("SK_LIVE", "/v1/resources").await, "allowed", "it serves as before");
}

#[tokio::test]
async fn what_a_page_of_another_site_could_send_without_being_asked_is_no_question() {
    let demo = Demo::start();
    // It would kill the key.
    let question =
        json!({ "token": demo.get("SK_TEST"), "method": "GET", "path": "/v1/resources", "scheme": "http" }).to_string();
    let batch = format!(r#"{{"items": [{question}]}}"#);
    for (path, body) in [("/v1/authorize", &question), ("/v1/authorize/batch", &batch)] {
        for media in
            ["", "text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data"]
        {
            let request = demo.client.post(format!("{}{path}", demo.get("DECISION_URL"))).body(body.clone());
            let request = if media.is_empty() { request } else { request.header("content-type", media) };
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 415, "{path} {media}");
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            let document: Value = answer.json().await.unwrap();
            assert_eq!(document["code"], "media_type_unsupported", "{path} {media}");
            assert!(document["detail"].as_str().unwrap().contains("application/json"), "{document}");
        }
    }
    assert_eq!(demo.reason("SK_TEST", "/v1/resources").await, "allowed");
    for media in ["application/json; charset=utf-8", "application/vnd.example+json"] {
        let request = demo.client.post(format!("{}/v1/authorize", demo.get("DECISION_URL")));
        let answer = request.header("content-type", media).body(question.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{media}");
    }
}

#[tokio::test]
async fn a_batch_is_decided_in_its_order_or_refused_whole() {
    let demo = Demo::start();
    let item =
        |token: &str, method: &str| json!({ "token": demo.get(token), "method": method, "path": "/v1/resources" });
    let batch = json!({ "items": [item("SK_LIVE", "POST"), item("PK_LIVE", "POST"), item("RK_LIVE", "GET"),
        { "method": "GET", "path": "/v1/resources" }] });
    let (status, answer) = ask(&demo, "/v1/authorize/batch", batch.to_string()).await;
    let reasons: Vec<&str> =
        answer["items"].as_array().unwrap().iter().map(|item| item["reason"].as_str().unwrap()).collect();
    assert_eq!((status, reasons), (200, vec!["allowed", "policy_denied", "allowed", "credentials_missing"]));
    let (status, answer) = ask(&demo, "/v1/authorize/batch", r#"{"items": []}"#).await;
    assert_eq!((status, &answer["items"]), (200, &json!([])));

    // The first item would kill the key; the second cannot be read, so that nothing is done.
    let mut exposing = item("SK_TEST", "GET");
    exposing["scheme"] = json!("http");
    let unreadable = json!({ "token": "", "authorization": "", "method": "GET", "path": "/" });
    let batch = json!({ "items": [exposing, unreadable] });
    assert_eq!(ask(&demo, "/v1/authorize/batch", batch.to_string()).await.0, 400);
    assert_eq!(demo.reason("SK_TEST", "/v1/resources").await, "allowed");
}

#[tokio::test]
async fn a_method_or_path_that_is_none_is_denied() {
    let demo = Demo::start();
    for (method, path, expected) in [
        ("GET\r\nX: 1", "/v1/resources", "no_route"),
        ("GET /v1/resources", "/v1/resources", "no_route"),
        ("", "/v1/resources", "no_route"),
        ("GET", "/v1/resources\r\nX: 1", "path_ambiguous"),
        ("GET", "/v1/resources\u{0}", "path_ambiguous"),
        ("GET", "", "path_ambiguous"),
        ("GET", "v1/resources", "path_ambiguous"),
    ] {
        let question = json!({ "token": demo.get("SK_LIVE"), "method": method, "path": path });
        assert_eq!(demo.authorize(question).await["reason"], expected, "{method:?} {path:?}");
    }
}

#[tokio::test]
async fn whose_data_it_is_counts_when_the_service_says_so() {
    let demo = Demo::start();
    let ask = async |resource: Value| {
        let token = demo.get("SK_LIVE");
        let question = json!({ "token": token, "method": "GET", "path": "/v1/resources/res_1", "resource": resource });
        demo.authorize(question).await
    };
    let own = ask(json!({ "id": "res_1" })).await;
    assert_eq!(own["reason"], "allowed");
    let environment = own["environment"].as_str().unwrap();
    for (stated, expected) in [
        (environment.to_owned(), "allowed"),
        (environment.replace("/live", "/test"), "policy_denied"),
        ("acct_0000000000000000/live".to_owned(), "policy_denied"),
    ] {
        let answer = ask(json!({ "id": "res_1", "environment": stated })).await;
        assert_eq!(answer["reason"], expected, "{stated}");
    }
}
