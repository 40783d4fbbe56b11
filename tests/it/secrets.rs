//! No token, secret or hash in anything that the daemon says: searched for after everything has happened to it.

use std::fs;

use serde_json::json;

use crate::harness::{Demo, PATIENCE, Serve, client, configure, keyward};

const TOKENS: [&str; 5] = ["PK_LIVE", "SK_LIVE", "PK_TEST", "SK_TEST", "RK_LIVE"];

/// The part of a token that has to stay unknown; publishable keys are for the public.
fn secret_of(token: &str) -> &str {
    &token[24..56]
}

/// Makes calls that go well and wrong in each way, with the token in places where it does not belong.
async fn misuse(decision: &str, admin: &str, tokens: &[String]) -> Vec<String> {
    let client = client();
    let mut said = Vec::new();
    for token in tokens {
        let wrong_secret = format!("{}{}", &token[..token.len() - 6], "000000");
        let forward = format!("{decision}/v1/forward-auth");
        let call = |uri: &str, authorization: &str, scheme: &str| {
            client
                .get(&forward)
                .header("x-forwarded-method", "GET")
                .header("x-forwarded-uri", uri)
                .header("x-forwarded-proto", scheme)
                .header("authorization", authorization)
        };
        for request in [
            call("/v1/resources", &format!("Bearer {token}"), "https"),
            call("/v1/resources", &format!("Bearer {token}"), "https"),
            call("/v1/resources", &format!("Bearer {wrong_secret}"), "https"),
            call("/v1/resources", &format!("Basic {token}"), "https"),
            call("/v1/resources", &format!("Bearer {token} {token}"), "https"),
            call(&format!("/v1/resources?key={token}"), &format!("Bearer {token}"), "https"),
            call(&format!("/v1/resources/{token}"), &format!("Bearer {token}"), "https"),
            call(&format!("/{token}/../x"), &format!("Bearer {token}"), "https"),
            call("/v1/resources", &format!("Bearer {token}"), token),
            call("/v1/resources", &format!("Bearer {token}"), "https").header("authorization", token.as_str()),
            call("/v1/resources", &format!("Bearer {token}"), "https").header("x-request-id", token.as_str()),
            client.post(format!("{decision}/v1/authorize")).json(&json!({ "token": token, "method": "GET" })),
            client.post(format!("{decision}/v1/authorize")).json(
                &json!({ "token": token, "method": token, "path": format!("/{token}"), "scheme": token, "ip": token }),
            ),
            client.post(format!("{decision}/v1/authorize")).json(&json!({ token.as_str(): token })),
            client.post(format!("{decision}/v1/authorize")).body(format!("{{\"token\": {token}")),
            client
                .post(format!("{decision}/v1/authorize"))
                .header("content-type", "application/json")
                .body(format!("{{\"token\": {token}")),
            client
                .post(format!("{decision}/v1/authorize"))
                .json(&json!({ "token": token, "method": "GET", "path": "/v1/resources" })),
            client.get(format!("{decision}/{token}?{token}")),
            client.get(format!("{admin}/{token}")),
            // Last: it kills the key.
            call("/v1/resources", &format!("Bearer {token}"), "http"),
            call("/v1/resources", &format!("Bearer {token}"), "https"),
        ] {
            let answer = request.send().await.unwrap();
            said.push(format!("{:?}", answer.headers()));
            said.push(answer.text().await.unwrap());
        }
    }
    for path in ["/metrics", "/v1/policies"] {
        said.push(client.get(format!("{admin}{path}")).send().await.unwrap().text().await.unwrap());
    }
    said
}

fn assert_silent(where_: &str, text: &str, tokens: &[String]) {
    for token in tokens.iter().filter(|token| !token.starts_with("pk_")) {
        let at = text.find(secret_of(token));
        let around = at.map(|at| &text[at.saturating_sub(200)..at]);
        assert_eq!(around, None, "{where_} tells a secret after this");
    }
    assert!(!text.contains("$argon2"), "{where_} tells a hash");
}

#[tokio::test]
async fn neither_answers_nor_logs_nor_metrics_tell_a_secret() {
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    assert_eq!(keyward(&["init", "."], folder.path()).0, 0);
    configure(folder.path(), &["decision_log.path = \"decisions.jsonl\""]);
    let (_, made, _) = keyward(&["offline", "accounts", "create", "Vexart"], folder.path());
    let account = made.split_whitespace().next().unwrap();
    let create =
        ["offline", "keys", "create", "--account", account, "--kind", "restricted", "--mode", "live", "--name", "W"];
    let (code, restricted, _) = keyward(&[&create[..], &["--scope", "jobs:write"]].concat(), folder.path());
    assert_eq!(code, 0);
    let is_token = |word: &&str| ["pk_", "sk_", "rk_"].iter().any(|prefix| word.starts_with(prefix));
    let tokens: Vec<String> =
        made.split_whitespace().chain(restricted.split_whitespace()).filter(is_token).map(str::to_owned).collect();
    assert_eq!(tokens.len(), 5);

    let Serve { process, decision, admin, folder, .. } = Serve::start_where(folder, &[], &[("KEYWARD_LOG", "trace")]);
    for said in misuse(&decision, &admin, &tokens).await {
        assert_silent("an answer", &said, &tokens);
    }
    let (status, log) = process.stop();
    assert!(status.success());
    assert!(log.contains("TRACE"), "everything was logged");
    assert_silent("the log", &log, &tokens);
    let decisions = fs::read_to_string(folder.path().join("decisions.jsonl")).unwrap();
    assert!(decisions.lines().count() > 50, "{decisions}");
    assert_silent("the decision log", &decisions, &tokens);
    let recorded = fs::read_to_string(folder.path().join("data/recorded-decisions")).unwrap();
    assert!(recorded.lines().count() > 50, "{recorded}");
    assert_silent("what is recorded", &recorded, &tokens);
    for arguments in [&["offline", "keys", "list"][..], &["offline", "accounts", "list"]] {
        let (_, output, error) = keyward(arguments, folder.path());
        assert_silent("the command line", &format!("{output}{error}"), &tokens);
    }
}

#[tokio::test]
async fn a_demo_tells_its_tokens_only_where_it_says_so() {
    let mut demo = Demo::start_where(&[("KEYWARD_LOG", "trace")]);
    let tokens: Vec<String> = TOKENS.iter().map(|name| demo.get(name).to_owned()).collect();
    // What it announces for people to paste ends with READY; all that follows is log.
    let announced = demo.process.seen.len();
    for said in misuse(demo.get("DECISION_URL"), demo.get("ADMIN_URL"), &tokens).await {
        assert_silent("an answer", &said, &tokens);
    }
    for (base, token) in [("API_URL", "SK_LIVE"), ("API_HTTP_URL", "SK_TEST")] {
        let url = format!("{}/v1/resources?key={}", demo.get(base), demo.get(token));
        let client = keyward::outbound::plain().timeout(PATIENCE).build().unwrap();
        // The certificate is nobody's that this client knows: even a failed handshake must not tell.
        if let Ok(answer) = client.get(url).bearer_auth(demo.get(token)).send().await {
            assert_silent("the API", &answer.text().await.unwrap(), &tokens);
        }
    }
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(demo.folder.path().join(name)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("demo.env"), mode("data/tokens.env"), mode("data/store")), (0o600, 0o600, 0o700));
    demo.process.output();
    let log = demo.process.seen[announced..].join("\n");
    assert_silent("the log", &log, &tokens);
}

#[tokio::test]
async fn management_tells_a_token_once_and_a_password_never() {
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let (code, made, _) = keyward(&["init", "."], folder.path());
    assert_eq!(code, 0);
    let operator = made.split_whitespace().find(|word| word.starts_with("kw_")).unwrap().to_owned();
    configure(folder.path(), &[]);
    let serve = Serve::start_where(folder, &[], &[("KEYWARD_LOG", "trace")]);
    let (client, admin) = (client(), serve.admin.clone());
    let send = async |method: &str, path: &str, body: serde_json::Value| {
        let request = client.request(method.parse().unwrap(), format!("{admin}{path}")).bearer_auth(&operator);
        let request = if body.is_null() { request } else { request.json(&body) };
        request.send().await.unwrap().text().await.unwrap()
    };
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let none = serde_json::Value::Null;
    // What is shown once is the answer of a creation.
    let account = value(&send("POST", "/v1/accounts", json!({ "name": "Vexart" })).await);
    let token = account["keys"].as_array().unwrap().iter().find(|key| key["kind"] == "secret").unwrap();
    let (key, token) = (token["id"].as_str().unwrap(), token["token"].as_str().unwrap());
    let password = "correct horse battery staple";
    let person = json!({ "email": "ada@example.com", "name": "Ada", "password": password });
    let user = value(&send("POST", "/v1/users", person).await)["id"].as_str().unwrap().to_owned();
    let (id, sign_in) = (account["id"].as_str().unwrap(), json!({ "email": "ada@example.com", "password": password }));
    let session = value(&send("POST", "/v1/sign-in", sign_in).await)["token"].as_str().unwrap().to_owned();

    let mut said = Vec::new();
    for text in [token, operator.as_str(), session.as_str()] {
        for (method, path, body) in [
            ("GET", format!("/v1/keys/{text}"), none.clone()),
            ("GET", format!("/v1/keys?after={text}"), none.clone()),
            ("GET", format!("/v1/keys?{text}=1"), none.clone()),
            ("POST", format!("/v1/accounts/{id}/keys"), json!({ "kind": text, "mode": "live", "name": "w" })),
            ("POST", format!("/v1/accounts/{id}/keys"), json!({ text: 1 })),
            ("PATCH", format!("/v1/keys/{key}"), json!({ "rotate_every": text })),
            ("PATCH", format!("/v1/keys/{key}"), json!({ "scopes": [text] })),
            ("POST", "/v1/sign-in".into(), json!({ "email": text, "password": text })),
            ("POST", "/v1/sign-in".into(), json!({ "email": "ada@example.com", "password": format!("{text}!") })),
            ("PUT", format!("/v1/users/{user}/password"), json!({ "password": text, "current_password": 1 })),
            ("POST", "/v1/users".into(), json!({ "email": "ada@example.com", "name": "A", "password": password })),
            ("POST", format!("/v1/{text}"), none.clone()),
        ] {
            said.push(send(method, &path, body).await);
        }
    }
    for body in [
        json!({ "email": "ada@example.com", "password": format!("{password}!") }),
        json!({ "email": "ada@example.com", "password": [password] }),
        json!({ "email": 1, "password": password }),
    ] {
        said.push(send("POST", "/v1/sign-in", body).await);
    }
    said.push(send("PUT", &format!("/v1/users/{user}/password"), json!({ "password": password, "x": 1 })).await);
    // Free text that people write is kept, and a token in it is not.
    let pasted = format!("it was {token} in a log");
    said.push(send("PATCH", &format!("/v1/keys/{key}"), json!({ "note": pasted })).await);
    said.push(send("POST", "/v1/leaks", json!([{ "token": token, "url": format!("https://x/?{token}") }])).await);
    said.push(send("POST", &format!("/v1/keys/{key}/revoke"), json!({ "reason": pasted })).await);
    for path in ["/v1/keys", "/v1/users", "/v1/me", "/v1/events", "/v1/events/export", "/metrics", "/openapi.json"] {
        said.push(send("GET", path, none.clone()).await);
    }
    assert!(said.iter().any(|said| said.contains("it was sk_live_… in a log")));
    let (status, log) = serve.process.stop();
    assert!(status.success());
    said.push(log);
    let secrets = [&token[24..56], &operator[19..51], &session[19..51], password];
    for said in &said {
        for secret in secrets {
            let at = said.find(secret);
            assert_eq!(at.map(|at| &said[at.saturating_sub(200)..at + 8]), None);
        }
        assert!(!said.contains("$argon2"), "a hash is told: {said}");
    }
}
