//! The management API of a running daemon: who may do what, and that what it answered is so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use jiff::Timestamp;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::harness::{Demo, PATIENCE, Serve, client, configure, keyward};

/// A person who calls the management API.
#[derive(Clone)]
struct Person {
    client: Client,
    url: String,
    token: Option<String>,
}

impl Person {
    fn operator(demo: &Demo) -> Self {
        let token = Some(demo.get("ADMIN_TOKEN").to_owned());
        Self { client: client(), url: demo.get("ADMIN_URL").to_owned(), token }
    }

    fn with(&self, token: Option<String>) -> Self {
        Self { token, ..self.clone() }
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn status(&self, method: &str, path: &str, body: Option<&Value>) -> u16 {
        let request = self.request(method, path).header("if-match", "\"999\"");
        let request = body.map_or(self.request(method, path).header("if-match", "\"999\""), |body| request.json(body));
        request.send().await.unwrap().status().as_u16()
    }

    /// What must succeed.
    async fn done(&self, method: &str, path: &str, body: Value) -> Value {
        let request = self.request(method, path);
        let request = if body.is_null() { request } else { request.json(&body) };
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }

    async fn account(&self) -> String {
        let accounts = self.done("GET", "/v1/accounts", Value::Null).await;
        accounts["items"][0]["id"].as_str().unwrap().to_owned()
    }

    async fn key(&self, account: &str, kind: &str, mode: &str) -> (String, String) {
        let scopes = if kind == "restricted" { json!(["resources:read"]) } else { json!([]) };
        let body = json!({ "kind": kind, "mode": mode, "name": "worker", "scopes": scopes });
        let made = self.done("POST", &format!("/v1/accounts/{account}/keys"), body).await;
        (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
    }

    /// A new person with this role in the account, and their token.
    async fn hired(&self, account: &str, email: &str, role: Option<&str>) -> (String, Self) {
        let roles = role.map_or(json!({}), |role| json!({ account: role }));
        let made = self.done("POST", "/v1/users", json!({ "email": email, "name": email, "roles": roles })).await;
        let id = made["id"].as_str().unwrap().to_owned();
        let token = self.done("POST", &format!("/v1/users/{id}/tokens"), json!({ "name": "test" })).await;
        (id, self.with(Some(token["token"].as_str().unwrap().to_owned())))
    }
}

/// `reason` of a decision about a plain GET over HTTPS with this token.
async fn reason(client: &Client, decision_url: &str, token: &str) -> String {
    let question = json!({ "token": token, "method": "GET", "path": "/v1/resources" });
    let answer = client.post(format!("{decision_url}/v1/authorize")).json(&question).send().await.unwrap();
    answer.json::<Value>().await.unwrap()["reason"].as_str().unwrap().to_owned()
}

/// Who may do each operation, to an account and a key of it in live mode: Operator, oWner, Developer, Viewer,
/// Outsider (somebody without a role). In small letters: to a test key alone.
const MAY: [(&str, &str); 37] = [
    ("createAccount", "O"),
    ("listAccounts", "OWDVX"),
    ("getAccount", "OWDV"),
    ("renameAccount", "OW"),
    ("closeAccount", "OW"),
    ("listAccountEvents", "OWDV"),
    ("listMembers", "OWDV"),
    ("setMember", "OW"),
    ("removeMember", "OW"),
    ("listKeys", "OWDV"),
    ("createKey", "OWd"),
    ("listAllKeys", "O"),
    ("getKey", "OWDV"),
    ("getKeyPermissions", "OWDV"),
    ("explain", "OWDV"),
    ("listKeyEvents", "OWDV"),
    ("updateKey", "OWd"),
    ("disableKey", "OWd"),
    ("enableKey", "OWd"),
    ("revokeKey", "OWd"),
    ("compromiseKey", "OWd"),
    ("rotateKey", "OWd"),
    ("listEvents", "O"),
    ("exportEvents", "O"),
    ("reportLeaks", "O"),
    ("getMe", "OWDVX"),
    ("createUser", "O"),
    ("listUsers", "O"),
    ("getUser", "O"),
    ("updateUser", "O"),
    ("deleteUser", "O"),
    ("setPassword", "O"),
    ("createToken", "O"),
    ("deleteToken", "O"),
    ("backUp", "O"),
    ("exportAll", "O"),
    ("import", "O"),
];

fn body_of(operation: &str, mode: &str, key: &str) -> Option<Value> {
    Some(match operation {
        "explain" => json!({ "key": key, "method": "GET", "path": "/v1/resources" }),
        "createAccount" | "renameAccount" => json!({ "name": "Another" }),
        "setMember" => json!({ "role": "viewer" }),
        "createKey" => json!({ "kind": "secret", "mode": mode, "name": "worker" }),
        "updateKey" => json!({ "name": "other" }),
        "revokeKey" | "rotateKey" | "updateUser" => json!({}),
        "reportLeaks" => json!([]),
        "import" => json!({ "items": [] }),
        "createUser" => json!({ "email": "not an address", "name": "x" }),
        "setPassword" => json!({ "password": "short" }),
        "createToken" => json!({ "name": "" }),
        _ => return None,
    })
}

#[tokio::test]
async fn each_operation_is_refused_without_a_token_and_done_for_each_role_as_the_policies_say() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let (target, _) = operator.hired(&account, "target@example.com", None).await;
    let mut people = vec![('O', operator.clone())];
    for (letter, role) in [('W', Some("owner")), ('D', Some("developer")), ('V', Some("viewer")), ('X', None)] {
        people.push((letter, operator.hired(&account, &format!("{letter}@example.com"), role).await.1));
    }
    let document = operator.done("GET", "/openapi.json", Value::Null).await;
    let mut tried = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let operation = operation["operationId"].as_str().unwrap();
            if operation == "signIn" {
                continue;
            }
            let (_, may) = MAY.iter().find(|(name, _)| *name == operation).unwrap_or_else(|| panic!("{operation}"));
            tried.insert(operation.to_owned());
            for mode in ["live", "test"] {
                let (key, _) = operator.key(&account, "secret", mode).await;
                let path = path.replace("{account}", &account).replace("{key}", &key).replace("{user}", &target);
                let path = path.replace("{token}", "tok_0000000000000000");
                let (method, body) = (method.to_uppercase(), body_of(operation, mode, &key));
                let anonymous = operator.with(None);
                assert_eq!(anonymous.status(&method, &path, body.as_ref()).await, 401, "{operation}");
                let broken = operator.with(Some("kw_nonsense".into()));
                assert_eq!(broken.status(&method, &path, body.as_ref()).await, 401, "{operation}");
                for (letter, person) in &people {
                    let allowed = may.contains(*letter) || mode == "test" && may.contains(letter.to_ascii_lowercase());
                    let status = person.status(&method, &path, body.as_ref()).await;
                    let is_refused = status == 403;
                    assert_eq!(is_refused, !allowed, "{letter} {operation} ({mode}): {status}");
                    assert!(status < 500 && status != 401, "{letter} {operation} ({mode}): {status}");
                }
            }
        }
    }
    assert!(tried.len() == MAY.len(), "{tried:?}");
}

#[tokio::test]
async fn what_the_answer_said_is_in_force_for_the_next_request_under_load() {
    // The number can be raised for a measurement.
    let rounds: usize = std::env::var("KEYWARD_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let decision_url: Arc<str> = demo.get("DECISION_URL").into();
    let stop = Arc::new(AtomicBool::new(false));
    // Others call all the while.
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (client, url, stop) = (client(), Arc::clone(&decision_url), Arc::clone(&stop));
            let token = demo.get("SK_LIVE").to_owned();
            tokio::spawn(async move {
                let mut asked = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(reason(&client, &url, &token).await, "allowed");
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let (operator, account, url) = (operator.clone(), account.clone(), Arc::clone(&decision_url));
            tokio::spawn(async move {
                for round in (worker..rounds).step_by(4) {
                    let (key, token) = operator.key(&account, "secret", "live").await;
                    for _ in 0..2 {
                        assert_eq!(reason(&operator.client, &url, &token).await, "allowed");
                    }
                    let (operation, body, expected) = match round % 3 {
                        0 => ("revoke", json!({}), "key_revoked"),
                        1 => ("disable", Value::Null, "key_disabled"),
                        _ => ("compromise", Value::Null, "key_compromised"),
                    };
                    operator.done("POST", &format!("/v1/keys/{key}/{operation}"), body).await;
                    for _ in 0..2 {
                        assert_eq!(reason(&operator.client, &url, &token).await, expected, "round {round}");
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for one in load {
        assert!(one.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn during_an_overlap_no_call_fails_and_the_old_token_stops_at_its_second() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let url: Arc<str> = demo.get("DECISION_URL").into();
    let (key, old) = operator.key(&account, "restricted", "live").await;
    let rotated = operator.done("POST", &format!("/v1/keys/{key}/rotate"), json!({ "overlap": "3s" })).await;
    let new = rotated["token"].as_str().unwrap().to_owned();
    let ends_at: Timestamp = rotated["old_secret_ends_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(rotated["id"], json!(key), "the key stays the same");
    let (until, denied) = (Instant::now() + PATIENCE, Arc::new(AtomicU64::new(0)));
    while denied.load(Ordering::Relaxed) == 0 {
        assert!(Instant::now() < until, "the old token never stopped");
        let began = Timestamp::now();
        let said = reason(&operator.client, &url, &old).await;
        let ended = Timestamp::now();
        match said.as_str() {
            "allowed" => assert!(began < ends_at, "allowed after its second"),
            "key_expired" => {
                assert!(ended >= ends_at, "refused before its second");
                denied.fetch_add(1, Ordering::Relaxed);
            }
            other => panic!("{other}"),
        }
        assert_eq!(reason(&operator.client, &url, &new).await, "allowed");
    }
    // A rotation without overlap ends the secret before at once.
    let again = operator.done("POST", &format!("/v1/keys/{key}/rotate"), json!({ "overlap": "0s" })).await;
    assert_eq!(reason(&operator.client, &url, &new).await, "key_unknown");
    assert_eq!(reason(&operator.client, &url, again["token"].as_str().unwrap()).await, "allowed");
}

#[tokio::test]
async fn effective_permissions_are_what_real_calls_come_to() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let scopes = ["resources:read", "resources:write", "jobs:write", "webhooks:write"];
    let mut keys = Vec::new();
    for kind in ["publishable", "secret"] {
        for mode in ["live", "test"] {
            keys.push(operator.key(&account, kind, mode).await);
        }
    }
    for subset in 1..16_usize {
        let granted: Vec<_> = (0..4).filter(|bit| subset >> bit & 1 == 1).map(|bit| scopes[bit]).collect();
        let addresses = if subset % 2 == 0 { json!(["192.0.2.0/24"]) } else { json!([]) };
        let body = json!({
            "kind": "restricted", "mode": "test", "name": "worker", "scopes": granted, "addresses": addresses
        });
        let made = operator.done("POST", &format!("/v1/accounts/{account}/keys"), body).await;
        keys.push((made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned()));
    }
    operator.done("POST", &format!("/v1/keys/{}/disable", keys[0].0), Value::Null).await;
    let mut pairs = 0;
    for address in ["192.0.2.7", "198.51.100.1"] {
        for (key, token) in &keys {
            let path = format!("/v1/keys/{key}/permissions?item=res_1&address={address}");
            let said = operator.done("GET", &path, Value::Null).await;
            for permission in said["items"].as_array().unwrap() {
                let path = permission["path"].as_str().unwrap().replace("{id}", "res_1");
                let real = demo
                    .authorize(json!({ "token": token, "method": permission["method"], "path": path, "ip": address }))
                    .await;
                for field in ["decision", "reason", "policies"] {
                    assert_eq!(real[field], permission[field], "{permission}");
                }
                let missing = real.get("missing_scopes").cloned().unwrap_or(json!([]));
                assert_eq!(missing, permission["missing_scopes"], "{permission}");
                assert_eq!(real["revision"], said["revision"]);
                pairs += 1;
            }
        }
    }
    assert!(pairs > 400, "{pairs}");
}

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
async fn the_last_operator_stays_and_a_person_who_is_shut_out_is_out_at_once() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let me = operator.done("GET", "/v1/me", Value::Null).await["id"].as_str().unwrap().to_owned();
    for (method, body) in
        [("DELETE", Value::Null), ("PATCH", json!({"operator": false})), ("PATCH", json!({"active": false}))]
    {
        let request = operator.request(method, &format!("/v1/users/{me}"));
        let request = if body.is_null() { request } else { request.json(&body) };
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 409);
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], "last_operator");
    }
    let (id, developer) = operator.hired(&account, "dev@example.com", Some("developer")).await;
    assert_eq!(developer.status("GET", &format!("/v1/accounts/{account}"), None).await, 200);
    operator.done("DELETE", &format!("/v1/accounts/{account}/members/{id}"), Value::Null).await;
    assert_eq!(developer.status("GET", &format!("/v1/accounts/{account}"), None).await, 403);
    operator.done("PATCH", &format!("/v1/users/{id}"), json!({ "active": false })).await;
    assert_eq!(developer.status("GET", "/v1/me", None).await, 401);
    let demo = demo.restart(&[]);
    let developer = Person { url: demo.get("ADMIN_URL").to_owned(), ..developer };
    assert_eq!(developer.status("GET", "/v1/me", None).await, 401);
}

#[tokio::test]
async fn signing_in_takes_the_password_and_says_nothing_about_who_there_is() {
    let demo = Demo::start();
    let anonymous = Person::operator(&demo).with(None);
    let sign_in = |email: &str, password: &str| {
        let request = anonymous.request("POST", "/v1/sign-in").json(&json!({ "email": email, "password": password }));
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        }
    };
    let (user, password) = (demo.get("DASHBOARD_USER"), demo.get("DASHBOARD_PASSWORD"));
    let (status, signed_in) = sign_in(user, password).await;
    assert_eq!(status, 200);
    let owner = anonymous.with(Some(signed_in["token"].as_str().unwrap().to_owned()));
    assert_eq!(owner.done("GET", "/v1/me", Value::Null).await["email"], json!(user));
    let alike = |(status, mut problem): (u16, Value)| {
        problem.as_object_mut().unwrap().remove("request_id");
        (status, problem)
    };
    let wrong = alike(sign_in(user, "not the password").await);
    assert_eq!(wrong.0, 401);
    assert_eq!(alike(sign_in("nobody@example.com", "not the password").await), wrong);
    // Guessing is slowed down, for one who is there and one who is not.
    for email in ["someone@example.com", "operator@demo.test"] {
        let mut statuses = Vec::new();
        for _ in 0..8 {
            statuses.push(sign_in(email, "a guess").await.0);
        }
        assert!(statuses.starts_with(&[401, 401]) && statuses.ends_with(&[429]), "{email}: {statuses:?}");
    }
    // The owner has signed in from here before, so that nobody else's guesses keep them out.
    assert_eq!(sign_in(user, password).await.0, 200);
}

#[tokio::test]
async fn reported_leaks_kill_what_is_ours_and_nothing_else() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let made_up = keyward::key::Mint::new(keyward::key::Kind::Secret, keyward::key::Mode::Live).unwrap();
    let found = json!([
        { "token": demo.get("SK_TEST"), "type": "docs_api_key", "url": "https://example.com/a/b", "source": "commit" },
        { "token": demo.get("SK_TEST") },
        { "token": demo.get("PK_LIVE") },
        { "token": made_up.expose() },
        { "token": "hello" },
    ]);
    let said = operator.done("POST", "/v1/leaks", found).await;
    let outcomes: Vec<_> = said["items"].as_array().unwrap().iter().map(|item| item["outcome"].clone()).collect();
    assert_eq!(outcomes, ["marked", "known", "public", "not_ours", "not_ours"]);
    assert_eq!(demo.reason("SK_TEST", "/v1/resources").await, "key_compromised");
    assert_eq!(demo.reason("PK_LIVE", "/v1/resources").await, "allowed");
    let key = said["items"][0]["key"].as_str().unwrap();
    let events = operator.done("GET", &format!("/v1/keys/{key}/events"), Value::Null).await;
    assert_eq!(events["items"][0]["type"], "key.compromised");
    assert_eq!(events["items"][0]["detail"]["how"], "reported as found: commit https://example.com/a/b");
}

#[tokio::test]
async fn lists_are_paged_in_a_stable_order_and_filtered() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    for _ in 0..7 {
        operator.key(&account, "restricted", "test").await;
    }
    let mut after = String::new();
    let mut all = Vec::new();
    loop {
        let page = operator.done("GET", &format!("/v1/keys?limit=5{after}"), Value::Null).await;
        all.extend(page["items"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()));
        match page.get("next") {
            Some(next) => after = format!("&after={}", next.as_str().unwrap()),
            None => break,
        }
    }
    let whole = operator.done("GET", "/v1/keys", Value::Null).await;
    let whole: Vec<_> = whole["items"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap()).collect();
    assert_eq!((all.len(), all), (5 + 7, whole.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()));
    for (query, expected) in [
        ("mode=live", 3),
        ("kind=restricted&mode=test", 7),
        ("state=revoked", 0),
        ("expiring_within_days=30", 0),
        ("rotation_due_within_days=30", 0),
    ] {
        let found = operator.done("GET", &format!("/v1/accounts/{account}/keys?{query}"), Value::Null).await;
        assert_eq!(found["items"].as_array().unwrap().len(), expected, "{query}");
    }
    for (query, field) in [("limit=0", "limit"), ("mode=liv", "mode"), ("colour=red", "colour"), ("after=x", "after")] {
        let answer = operator.request("GET", &format!("/v1/keys?{query}")).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{query}");
        assert_eq!(answer.json::<Value>().await.unwrap()["field"], field, "{query}");
    }
    // A key that should be rotated soon is listed and counted, until it is revoked.
    let body = json!({ "kind": "secret", "mode": "test", "name": "worker", "rotate_every": "3d" });
    let made = operator.done("POST", &format!("/v1/accounts/{account}/keys"), body).await;
    let due = operator.done("GET", "/v1/keys?rotation_due_within_days=7", Value::Null).await;
    assert_eq!(due["items"].as_array().unwrap().len(), 1);
    assert_eq!(due["items"][0]["id"], made["id"]);
    assert_eq!(demo.metric("keyward_keys_rotation_due_soon ").await, 1);
    assert_eq!(demo.metric("keyward_keys_rotation_overdue ").await, 0);
    operator.done("POST", &format!("/v1/keys/{}/revoke", made["id"].as_str().unwrap()), json!({})).await;
    assert_eq!(demo.metric("keyward_keys_rotation_due_soon ").await, 0);
    // The trail, from both ends, comes to the same.
    let whole = operator.done("GET", "/v1/events?order=oldest&limit=1000", Value::Null).await;
    let mut newest = Vec::new();
    let mut after = String::new();
    loop {
        let page = operator.done("GET", &format!("/v1/events?limit=4{after}"), Value::Null).await;
        newest.extend(page["items"].as_array().unwrap().clone());
        match page.get("next") {
            Some(next) => after = format!("&after={}", next.as_str().unwrap()),
            None => break,
        }
    }
    newest.reverse();
    assert_eq!(whole["items"], json!(newest));
    let lines = operator.request("GET", "/v1/events/export").send().await.unwrap().text().await.unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(whole["items"], json!(lines));
}

#[tokio::test]
async fn a_broken_management_policy_is_refused_and_one_without_policies_lets_nobody_in() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let file = demo.policies().join("management.cedar");
    let shipped = std::fs::read_to_string(&file).unwrap();
    // They expect calls to be allowed that are to be stopped here.
    std::fs::remove_dir_all(demo.policies().join("tests")).unwrap();
    std::fs::write(&file, shipped.replace("principal.operator", "principal.admin")).unwrap();
    let report = demo.until_report(|report| report["refused"].is_object()).await;
    assert!(report.to_string().contains("policies/management.cedar"), "{report}");
    assert_eq!(operator.status("GET", "/v1/users", None).await, 200, "the last good policies serve");
    // A forbid about the API does not lock operators out, and one about management stops no call.
    std::fs::write(&file, format!("{shipped}\n@id(\"stop\") forbid (principal, action, resource);")).unwrap();
    demo.until_report(|report| report["refused"].is_null() && report.to_string().contains("\"stop\"")).await;
    assert_eq!(operator.status("GET", "/v1/users", None).await, 403);
    assert_eq!(demo.reason("SK_LIVE", "/v1/resources").await, "allowed");
    std::fs::write(&file, shipped).unwrap();
    demo.until_report(|report| !report.to_string().contains("\"stop\"")).await;
    assert_eq!(operator.status("GET", "/v1/users", None).await, 200);
    std::fs::write(demo.policies().join("stop.cedar"), "@id(\"stop-calls\") forbid (principal, action, resource);")
        .unwrap();
    demo.until_report(|report| report.to_string().contains("stop-calls")).await;
    assert_eq!(demo.reason("SK_LIVE", "/v1/resources").await, "policy_denied");
    assert_eq!(operator.status("GET", "/v1/users", None).await, 200);
}

#[tokio::test]
async fn a_backup_taken_while_keys_are_made_and_used_is_an_installation_of_that_moment() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let before = operator.key(&account, "secret", "live").await;
    let making = {
        let (operator, account) = (operator.clone(), account.clone());
        tokio::spawn(async move {
            let mut made = Vec::new();
            for _ in 0..100 {
                made.push(operator.key(&account, "secret", "live").await);
            }
            made
        })
    };
    let backup = operator.request("GET", "/v1/backup").send().await.unwrap().bytes().await.unwrap();
    let made = making.await.unwrap();

    let folder = Arc::new(tempfile::tempdir().unwrap());
    assert_eq!(keyward(&["init", "."], folder.path()).0, 0);
    std::fs::write(folder.path().join("backup.jsonl"), &backup).unwrap();
    let (code, _, error) = keyward(&["restore", "backup.jsonl"], folder.path());
    assert!(code == 1 && error.contains("is not empty"), "{error}");
    std::fs::rename(folder.path().join("data"), folder.path().join("data-of-init")).unwrap();
    let (code, said, error) = keyward(&["restore", "backup.jsonl"], folder.path());
    assert!(code == 0 && said.contains("restored"), "{error}");
    configure(folder.path(), &[]);
    let serve = Serve::start_in(folder, vec![]);
    let client = client();
    assert_eq!(reason(&client, &serve.decision, &before.1).await, "allowed");
    assert_eq!(reason(&client, &serve.decision, demo.get("PK_LIVE")).await, "allowed");
    // Of those that were made meanwhile it has the first ones, and no other.
    let mut is_there = Vec::new();
    for (_, token) in &made {
        is_there.push(reason(&client, &serve.decision, token).await == "allowed");
    }
    assert!(is_there.is_sorted_by(|a, b| a >= b), "{is_there:?}");
    let people = Person { url: serve.admin.clone(), ..operator.clone() };
    let restored = people.done("GET", "/v1/events?order=oldest&limit=1000", Value::Null).await;
    let all = operator.done("GET", "/v1/events?order=oldest&limit=1000", Value::Null).await;
    let (restored, all) = (restored["items"].as_array().unwrap(), all["items"].as_array().unwrap());
    assert_eq!(restored[..], all[..restored.len()]);
    let (next, _) = people.key(&account, "secret", "live").await;
    let events = people.done("GET", "/v1/events?limit=1", Value::Null).await;
    assert_eq!(events["items"][0]["key"], json!(next), "what happens now comes after what happened then");
}
