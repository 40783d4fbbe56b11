//! The management API of a running daemon: who may do what, and that what it answered is so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::harness::{Demo, Serve, client, configure, keyward};

/// A person who calls the management API.
#[derive(Clone)]
pub struct Person {
    pub client: Client,
    pub url: String,
    pub token: Option<String>,
}

impl Person {
    pub fn operator(demo: &Demo) -> Self {
        let token = Some(demo.get("ADMIN_TOKEN").to_owned());
        Self { client: client(), url: demo.get("ADMIN_URL").to_owned(), token }
    }

    pub fn with(&self, token: Option<String>) -> Self {
        Self { token, ..self.clone() }
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn status(&self, method: &str, path: &str, body: Option<&Value>) -> u16 {
        let request = self.request(method, path).header("if-match", "\"999\"");
        let request = body.map_or(self.request(method, path).header("if-match", "\"999\""), |body| request.json(body));
        request.send().await.unwrap().status().as_u16()
    }

    /// What must succeed.
    pub async fn done(&self, method: &str, path: &str, body: Value) -> Value {
        let request = self.request(method, path);
        let request = if body.is_null() { request } else { request.json(&body) };
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }

    pub async fn account(&self) -> String {
        let accounts = self.done("GET", "/v1/accounts", Value::Null).await;
        accounts["items"][0]["id"].as_str().unwrap().to_owned()
    }

    pub async fn key(&self, account: &str, kind: &str, mode: &str) -> (String, String) {
        let scopes = if kind == "restricted" { json!(["resources:read"]) } else { json!([]) };
        let body = json!({ "kind": kind, "mode": mode, "name": "worker", "scopes": scopes });
        let made = self.done("POST", &format!("/v1/accounts/{account}/keys"), body).await;
        (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
    }

    /// A new person with this role in the account, and their token.
    pub async fn hired(&self, account: &str, email: &str, role: Option<&str>) -> (String, Self) {
        let roles = role.map_or(json!({}), |role| json!({ account: role }));
        let made = self.done("POST", "/v1/users", json!({ "email": email, "name": email, "roles": roles })).await;
        let id = made["id"].as_str().unwrap().to_owned();
        let token = self.done("POST", &format!("/v1/users/{id}/tokens"), json!({ "name": "test" })).await;
        (id, self.with(Some(token["token"].as_str().unwrap().to_owned())))
    }
}

/// `reason` of a decision about a plain GET over HTTPS with this token.
pub async fn reason(client: &Client, decision_url: &str, token: &str) -> String {
    let question = json!({ "token": token, "method": "GET", "path": "/v1/resources" });
    let answer = client.post(format!("{decision_url}/v1/authorize")).json(&question).send().await.unwrap();
    answer.json::<Value>().await.unwrap()["reason"].as_str().unwrap().to_owned()
}

/// Who may do each operation, to an account and a key of it in live mode: Operator, oWner, Developer, Viewer,
/// Outsider (somebody without a role). In small letters: to a test key alone.
const MAY: [(&str, &str); 54] = [
    ("createAccount", "O"),
    ("listAccounts", "OWDVX"),
    ("getAccount", "OWDV"),
    ("renameAccount", "OW"),
    ("closeAccount", "OW"),
    ("listAccountEvents", "OWDV"),
    ("exportAccountEvents", "OW"),
    ("listMembers", "OWDV"),
    ("setMember", "OW"),
    ("removeMember", "OW"),
    ("listKeys", "OWDV"),
    ("createKey", "OWd"),
    ("listAllKeys", "O"),
    ("getKey", "OWDV"),
    ("getKeyPermissions", "OWDV"),
    ("suggestScopes", "OWDV"),
    ("explain", "OWDV"),
    ("listKeyEvents", "OWDV"),
    ("updateKey", "OWd"),
    ("disableKey", "OWd"),
    ("enableKey", "OWd"),
    ("revokeKey", "OWd"),
    ("compromiseKey", "OWd"),
    ("rotateKey", "OWd"),
    ("listDecisions", "O"),
    ("countDecisions", "O"),
    ("watchDecisions", "O"),
    ("listTopDecisions", "O"),
    ("getFigures", "O"),
    ("getDecision", "O"),
    ("explainDecision", "O"),
    ("exportDecisions", "O"),
    ("getShadow", "O"),
    ("listEvents", "O"),
    ("exportEvents", "O"),
    ("reportLeaks", "O"),
    ("getMe", "OWDVX"),
    ("listMyOperations", "OWDVX"),
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
    ("listRevisions", "O"),
    ("getRevision", "O"),
    ("rollBackPolicies", "O"),
    ("approvePolicies", "O"),
    ("checkPolicies", "O"),
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
        "rollBackPolicies" | "approvePolicies" => json!({ "digest": "00000000" }),
        "checkPolicies" => json!({ "files": { "no place": null } }),
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
    let rounds: usize = std::env::var("TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
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
    // Somebody with a token and no password takes their place.
    let body = json!({ "email": "sole@example.com", "name": "Sole", "operator": true });
    let sole = operator.done("POST", "/v1/users", body).await["id"].as_str().unwrap().to_owned();
    let made = operator.done("POST", &format!("/v1/users/{sole}/tokens"), json!({ "name": "only" })).await;
    let operator = operator.with(Some(made["token"].as_str().unwrap().to_owned()));
    operator.done("DELETE", &format!("/v1/users/{me}"), Value::Null).await;
    let me = sole;
    // Nor may their only way in go, while another operator has none.
    let body = json!({ "email": "second@example.com", "name": "Second", "operator": true });
    let second = operator.done("POST", "/v1/users", body).await["id"].as_str().unwrap().to_owned();
    let tokens = operator.done("GET", "/v1/me", Value::Null).await;
    let own = format!("/v1/users/{me}/tokens/{}", tokens["tokens"][0]["id"].as_str().unwrap());
    for path in [&own, &format!("/v1/users/{me}")] {
        let answer = operator.request("DELETE", path).send().await.unwrap();
        assert_eq!(answer.status(), 409, "{path}");
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], "last_operator", "{path}");
    }
    let made = operator.done("POST", &format!("/v1/users/{second}/tokens"), json!({ "name": "theirs" })).await;
    let second = operator.with(Some(made["token"].as_str().unwrap().to_owned()));
    let made = operator.done("POST", &format!("/v1/users/{me}/tokens"), json!({ "name": "another" })).await;
    operator.done("DELETE", &own, Value::Null).await;
    let operator = second.with(Some(made["token"].as_str().unwrap().to_owned()));
    // What leaked dies, also when it is the last way in.
    let leaked = json!([{ "token": operator.token }, { "token": second.token }]);
    let (id, developer) = operator.hired(&account, "dev@example.com", Some("developer")).await;
    assert_eq!(developer.status("GET", &format!("/v1/accounts/{account}"), None).await, 200);
    operator.done("DELETE", &format!("/v1/accounts/{account}/members/{id}"), Value::Null).await;
    assert_eq!(developer.status("GET", &format!("/v1/accounts/{account}"), None).await, 403);
    operator.done("PATCH", &format!("/v1/users/{id}"), json!({ "active": false })).await;
    assert_eq!(developer.status("GET", "/v1/me", None).await, 401);
    operator.done("POST", "/v1/leaks", leaked).await;
    for operator in [operator, second] {
        assert_eq!(operator.status("GET", "/v1/me", None).await, 401);
    }
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
async fn a_token_of_scripts_takes_nobody_over_and_ends_with_the_password_when_that_is_asked_for() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let (id, script) = operator.hired(&operator.account().await, "ada@example.com", Some("owner")).await;
    // Ada may set passwords, her own among them, as far as policies go.
    let path = format!("/v1/users/{id}/password");
    let set = async |person: &Person, body: Value| {
        let answer = person.request("PUT", &path).json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null))
    };
    let first = "the first of her passwords";
    let (status, problem) = set(&script, json!({ "password": first })).await;
    assert_eq!((status, &problem["code"]), (403, &json!("password_not_yours")));
    assert_eq!(set(&operator, json!({ "password": first })).await.0, 204);
    let sign_in = async |password: &str| {
        let body = json!({ "email": "ada@example.com", "password": password });
        let signed_in = operator.with(None).done("POST", "/v1/sign-in", body).await;
        operator.with(Some(signed_in["token"].as_str().unwrap().to_owned()))
    };
    let works = async |person: &Person| person.status("GET", "/v1/me", None).await == 200;
    let signed_in = sign_in(first).await;
    let second = "the second of her passwords";
    assert_eq!(set(&operator, json!({ "password": second })).await.0, 204);
    assert_eq!((works(&signed_in).await, works(&script).await), (false, true));
    let signed_in = sign_in(second).await;
    assert_eq!(set(&operator, json!({ "password": first, "end_tokens": true })).await.0, 204);
    assert_eq!((works(&signed_in).await, works(&script).await), (false, false));
    let told = operator.done("GET", "/v1/events?limit=1", Value::Null).await;
    assert_eq!(told["items"][0]["detail"]["fields"], "password, tokens");
    // Nothing but a sign-in is called one.
    let answer = operator.request("POST", &format!("/v1/users/{id}/tokens")).json(&json!({ "name": "Signed in" }));
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.json::<Value>().await.unwrap()["field"], "name");
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
async fn a_management_policy_that_is_broken_or_locks_everybody_out_is_refused() {
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
    std::fs::write(
        &file,
        format!("{shipped}\n@id(\"stop\") forbid (principal, action == Keyward::Action::\"listUsers\", resource);"),
    )
    .unwrap();
    demo.until_report(|report| report["refused"].is_null() && report.to_string().contains("\"stop\"")).await;
    assert_eq!(operator.status("GET", "/v1/users", None).await, 403);
    assert_eq!(demo.reason("SK_LIVE", "/v1/resources").await, "allowed");
    // What would leave nobody who can manage anything is refused, whether policies are missing or forbid all of it.
    for nothing in [None, Some(format!("{shipped}\n@id(\"all\") forbid (principal, action, resource);"))] {
        match nothing {
            None => std::fs::remove_file(&file).unwrap(),
            Some(text) => std::fs::write(&file, text).unwrap(),
        }
        let report = demo.until_report(|report| report["refused"].to_string().contains("no operator could")).await;
        assert!(report.to_string().contains("\"stop\""), "what was in force stays so: {report}");
    }
    std::fs::write(&file, shipped).unwrap();
    demo.until_report(|report| report["refused"].is_null() && !report.to_string().contains("\"stop\"")).await;
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
#[tokio::test]
async fn behind_a_trusted_proxy_people_are_told_and_slowed_down_by_their_own_addresses() {
    let serve = Serve::with(&["admin.trusted_proxies = [\"127.0.0.1\"]"]);
    let operator = Person { client: client(), url: serve.admin.clone(), token: Some(serve.operator.clone()) };
    let from = |person: &Person, address: &str, method: &str, path: &str, body: Value| {
        let request = person.request(method, path).header("x-forwarded-for", format!("203.0.113.9, {address}"));
        async move { request.json(&body).send().await.unwrap().status().as_u16() }
    };
    let created = from(&operator, "192.0.2.1", "POST", "/v1/accounts", json!({ "name": "Vexart" })).await;
    assert_eq!(created, 201);
    let newest = operator.done("GET", "/v1/events?limit=1", Value::Null).await;
    assert_eq!(newest["items"][0]["address"], "192.0.2.1");
    // Whoever guesses at everybody from one place is slowed down there, and nobody elsewhere is.
    let anonymous = operator.with(None);
    let guess = |address: &'static str, number: usize| {
        let body = json!({ "email": format!("user{number}@example.com"), "password": "a guess" });
        from(&anonymous, address, "POST", "/v1/sign-in", body)
    };
    let mut statuses = Vec::new();
    for number in 0..22 {
        statuses.push(guess("192.0.2.1", number).await);
    }
    assert_eq!((statuses[19], statuses[20]), (401, 429), "{statuses:?}");
    assert_eq!(guess("192.0.2.2", 30).await, 401);

    // Who is no trusted proxy states nothing.
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    assert_eq!(from(&operator, "192.0.2.1", "POST", "/v1/accounts", json!({ "name": "Vexart" })).await, 201);
    let newest = operator.done("GET", "/v1/events?limit=1", Value::Null).await;
    assert_eq!(newest["items"][0]["address"], "127.0.0.1");
}

#[tokio::test]
async fn who_may_read_a_key_may_read_its_decisions_and_nobody_else_but_operators() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let (key, token) = operator.key(&account, "secret", "live").await;
    reason(&client(), demo.get("DECISION_URL"), &token).await;
    let all = operator.done("GET", "/v1/decisions", Value::Null).await;
    let id = all["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(demo.reason("SK_LIVE", "/v1/resources").await, "allowed");
    let anonymous = json!({ "method": "GET", "path": "/v1/resources" });
    let anonymous = demo.authorize(anonymous).await["request_id"].as_str().unwrap().to_owned();
    let (_, viewer) = operator.hired(&account, "viewer@example.com", Some("viewer")).await;
    let (_, outsider) = operator.hired(&account, "outsider@example.com", None).await;
    for (query, items) in [(format!("?key={key}"), 1), (format!("?account={account}"), 2), (String::new(), 3)] {
        let path = format!("/v1/decisions{query}");
        assert_eq!(operator.done("GET", &path, Value::Null).await["items"].as_array().unwrap().len(), items);
        assert_eq!(outsider.status("GET", &path, None).await, 403);
        let may = !query.is_empty();
        assert_eq!(viewer.status("GET", &path, None).await, if may { 200 } else { 403 }, "{query}");
        let counts = format!("/v1/decisions/counts{query}");
        assert_eq!(viewer.status("GET", &counts, None).await, if may { 200 } else { 403 }, "{query}");
    }
    let shown = viewer.done("GET", &format!("/v1/decisions/{id}"), Value::Null).await;
    assert_eq!((&shown["key"], &shown["reason"]), (&json!(key), &json!("allowed")));
    assert_eq!(outsider.status("GET", &format!("/v1/decisions/{id}"), None).await, 403);
    assert_eq!(viewer.status("GET", &format!("/v1/decisions/{anonymous}"), None).await, 403, "it is nobody's");
    assert_eq!(operator.status("GET", &format!("/v1/decisions/{anonymous}"), None).await, 200);
    // Another account's key does not become readable by naming an account beside it.
    let other = operator.done("POST", "/v1/accounts", json!({ "name": "Other" })).await;
    let (account, other) = (other["id"].as_str().unwrap(), other["keys"][1]["id"].as_str().unwrap());
    assert_eq!(viewer.status("GET", &format!("/v1/decisions?key={other}"), None).await, 403);
    let both = format!("/v1/decisions?key={key}&account={account}");
    assert_eq!(viewer.done("GET", &both, Value::Null).await["items"], json!([]));
}

#[tokio::test]
async fn the_trail_says_what_was_granted_and_what_it_was_before() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let ada = json!({ "email": "ada@example.com", "name": "Ada", "operator": true, "roles": { &account: "owner" } });
    let ada = operator.done("POST", "/v1/users", ada).await["id"].as_str().unwrap().to_owned();
    operator.done("PATCH", &format!("/v1/users/{ada}"), json!({ "operator": false, "name": "Ada L." })).await;
    let worker = json!({ "kind": "restricted", "mode": "live", "name": "worker", "scopes": ["resources:read"] });
    let worker = operator.done("POST", &format!("/v1/accounts/{account}/keys"), worker).await;
    let key = format!("/v1/keys/{}", worker["id"].as_str().unwrap());
    operator.done("PATCH", &key, json!({ "scopes": ["jobs:write"], "addresses": ["192.0.2.0/24"] })).await;
    operator.done("POST", &format!("{key}/rotate"), json!({ "overlap": "1h" })).await;
    let question = json!({ "token": worker["token"], "method": "GET", "path": "/v1/jobs", "scheme": "http" });
    assert_eq!(demo.authorize(question).await["reason"], "transport_insecure");
    operator.request("GET", "/v1/backup").send().await.unwrap().bytes().await.unwrap();

    let newest = async |path: &str| {
        let events = operator.done("GET", &format!("{path}?order=newest&limit=1"), Value::Null).await;
        (
            events["items"][0]["type"].clone(),
            events["items"][0]["detail"].clone(),
            events["items"][0]["request_id"].clone(),
        )
    };
    assert_eq!(newest("/v1/events").await.0, "installation.backed_up");
    let (happened, detail, request) = newest(&format!("{key}/events")).await;
    assert_eq!((happened, &detail["secret"]), (json!("key.compromised"), &json!("rotated out")));
    assert!(request.is_string(), "the call that did it is named");
    let all = operator.done("GET", &format!("/v1/accounts/{account}/events?limit=1000"), Value::Null).await;
    let told = |happened: &str| {
        let events = all["items"].as_array().unwrap().iter();
        events.filter(|event| event["type"] == happened).map(|event| event["detail"].clone()).next_back().unwrap()
    };
    assert_eq!(told("member.set"), json!({ "role": "owner" }), "an account's trail shows who came");
    let updated = json!({
        "fields": "scopes, addresses", "scopes_before": "resources:read", "scopes": "jobs:write",
        "addresses_before": "", "addresses": "192.0.2.0/24",
    });
    assert_eq!(told("key.updated"), updated);
    let created = all["items"].as_array().unwrap().iter().map(|event| &event["detail"]);
    let expected = json!({ "kind": "restricted", "mode": "live", "name": "worker", "scopes": "resources:read" });
    assert!(created.into_iter().any(|detail| *detail == expected), "{all}");
    let of_ada = operator.done("GET", &format!("/v1/events?user={ada}&type=user.updated"), Value::Null).await;
    let expected = json!({
        "fields": "name, operator", "name_before": "Ada", "name": "Ada L.", "operator_before": "true", "operator": "false",
    });
    assert_eq!(of_ada["items"][0]["detail"], expected);
}
