//! The main job: the calls of the customers' page against a demo, and what a second start keeps.

use serde_json::{Value, json};

use crate::harness::{Demo, verdict};

#[tokio::test]
async fn each_kind_of_key_may_do_what_the_customers_page_says() {
    let demo = Demo::start();
    for (token, method, path, expected) in [
        ("PK_LIVE", "GET", "/v1/resources", (200, "allowed")),
        ("PK_LIVE", "POST", "/v1/resources", (403, "policy_denied")),
        ("SK_LIVE", "DELETE", "/v1/resources/res_1", (200, "allowed")),
        ("SK_TEST", "POST", "/v1/jobs", (200, "allowed")),
        ("RK_LIVE", "GET", "/v1/resources/res_1", (200, "allowed")),
        ("RK_LIVE", "POST", "/v1/resources", (403, "scope_missing")),
        ("RK_LIVE", "GET", "/v1/unknown", (403, "no_route")),
    ] {
        let (status, reason) = verdict(demo.forward(token, method, path)).await;
        assert_eq!((status, reason.as_str()), expected, "{token} {method} {path}");
    }
}

#[tokio::test]
async fn the_environment_file_names_an_operator_and_an_owner_who_can_sign_in() {
    let demo = Demo::start();
    let me = async |token: &str| {
        let request = demo.client.get(format!("{}/v1/me", demo.get("DASHBOARD_URL"))).bearer_auth(token);
        request.send().await.unwrap().json::<Value>().await.unwrap()
    };
    assert_eq!(me(demo.get("ADMIN_TOKEN")).await["operator"], true);
    let password = json!({ "email": demo.get("DASHBOARD_USER"), "password": demo.get("DASHBOARD_PASSWORD") });
    let request = demo.client.post(format!("{}/v1/sign-in", demo.get("DASHBOARD_URL"))).json(&password);
    let signed_in: Value = request.send().await.unwrap().json().await.unwrap();
    let owner = me(signed_in["token"].as_str().unwrap()).await;
    let roles: Vec<&Value> = owner["roles"].as_object().unwrap().values().collect();
    assert_eq!((&owner["operator"], roles), (&json!(false), vec![&json!("owner")]));
}

#[tokio::test]
async fn a_second_start_keeps_every_key() {
    let demo = Demo::start();
    let before = demo.environment.clone();
    let demo = demo.restart(&[]);
    for token in ["PK_LIVE", "SK_LIVE", "PK_TEST", "SK_TEST", "RK_LIVE"] {
        assert_eq!(demo.get(token), before[token]);
        assert_eq!(demo.reason(token, "/v1/resources").await, "allowed", "{token}");
    }
    let (status, _) = demo.process.stop();
    assert!(status.success());
}

#[tokio::test]
async fn a_secret_key_over_plain_http_is_dead_from_then_on() {
    let demo = Demo::start();
    let over_http = demo.client.get(format!("{}/v1/resources", demo.get("API_HTTP_URL")));
    let answer = over_http.bearer_auth(demo.get("SK_TEST")).send().await.unwrap();
    assert_eq!(answer.status(), 403);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], "transport_insecure");
    assert_eq!(demo.reason("SK_TEST", "/v1/resources").await, "key_compromised");
    let demo = demo.restart(&[]);
    assert_eq!(demo.reason("SK_TEST", "/v1/resources").await, "key_compromised", "it is on disk");
    assert_eq!(demo.reason("SK_LIVE", "/v1/resources").await, "allowed");
}
