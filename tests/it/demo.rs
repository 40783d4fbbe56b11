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
async fn a_page_of_any_origin_may_call_with_a_publishable_key() {
    let demo = Demo::start();
    // Over plain HTTP, where a publishable key is refused and lives: what a browser is told is the same.
    let (https, http) = (demo.get("API_URL"), demo.get("API_HTTP_URL"));
    let certificate = reqwest::Certificate::from_pem(&std::fs::read(demo.get("CA_FILE")).unwrap()).unwrap();
    let client = keyward::outbound::trusting_the_system().tls_certs_only([certificate]).build().unwrap();
    let call = |method: &str, url: &str| {
        let url = format!("{url}/v1/resources");
        client.request(method.parse().unwrap(), url).header("origin", "https://app.example")
    };
    for method in ["GET", "POST", "PATCH", "DELETE"] {
        let preflight = call("OPTIONS", https).header("access-control-request-method", method);
        let preflight = preflight.header("access-control-request-headers", "authorization,content-type");
        let answer = preflight.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let told = |name: &str| answer.headers()[name].to_str().unwrap().to_lowercase();
        assert_eq!(told("access-control-allow-origin"), "*");
        assert!(told("access-control-allow-methods").contains(&method.to_lowercase()), "{method}");
        assert_eq!(told("access-control-allow-headers"), "authorization,content-type");
    }
    let decided = "keyward_decisions_total{outcome=\"unauthenticated\",reason=\"credentials_missing\"} ";
    assert_eq!(demo.metric(decided).await, 0, "nobody was asked about a preflight");
    let pk = demo.get("PK_LIVE");
    for (request, expected) in [
        (call("GET", https).bearer_auth(pk), 200),
        (call("POST", https).bearer_auth(pk).json(&json!({ "name": "First" })), 403),
        (call("GET", https), 401),
        (call("GET", http).bearer_auth(pk), 403),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["access-control-allow-origin"]),
            (expected, &"*".parse().unwrap())
        );
        let names = answer.headers()["access-control-expose-headers"].to_str().unwrap().to_lowercase();
        assert!(names.contains("www-authenticate"), "{names}");
    }
    // What is no preflight is a call, and needs a key.
    let bare = client.request(reqwest::Method::OPTIONS, format!("{https}/v1/resources"));
    assert_eq!(bare.send().await.unwrap().status(), 401);
    let half = call("OPTIONS", https).send().await.unwrap();
    assert_eq!(half.status(), 401);
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
