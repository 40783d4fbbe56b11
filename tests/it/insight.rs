//! What people see: what they may do, what calls come to, and how the daemon is.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Demo, PATIENCE};
use crate::manage::Person;

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

async fn operations(person: &Person, query: &str) -> Vec<String> {
    let answer = person.done("GET", &format!("/v1/me/operations{query}"), Value::Null).await;
    serde_json::from_value(answer["operations"].clone()).unwrap()
}

#[tokio::test]
async fn what_somebody_may_do_is_what_the_policies_let_them_do() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let (id, developer) = operator.hired(&account, "dev@example.com", Some("developer")).await;
    let has = |names: &[String], name: &str| names.iter().any(|held| held == name);
    let (live, _) = operator.key(&account, "secret", "live").await;
    let (test, _) = operator.key(&account, "secret", "test").await;
    for (query, may, may_not) in [
        (String::new(), "listAccounts", "createAccount"),
        (format!("?account={account}"), "listKeys", "renameAccount"),
        (format!("?environment={account}/test"), "createKey", "getKey"),
        (format!("?key={live}"), "getKey", "rotateKey"),
        (format!("?key={test}"), "rotateKey", "listKeys"),
        (format!("?user={id}"), "createToken", "deleteUser"),
    ] {
        let names = operations(&developer, &query).await;
        assert!(has(&names, may) && !has(&names, may_not), "{query}: {names:?}");
        assert!(names.is_sorted());
    }
    assert_eq!(operations(&developer, &format!("?environment={account}/live")).await, [""; 0]);
    assert!(has(&operations(&operator, &format!("?environment={account}/live")).await, "createKey"));
    assert!(has(&operations(&operator, "").await, "createAccount"));
    for nothing in ["account=acct_0000000000000000", "environment=acct_0000000000000000/live", "key=x", "user="] {
        assert_eq!(operations(&operator, &format!("?{nothing}")).await, [""; 0], "{nothing}");
    }
    let both = format!("/v1/me/operations?account={account}&key={live}");
    assert_eq!(operator.status("GET", &both, None).await, 400);
    // Each is refused, or not, as it is told here.
    let body = json!({ "name": "other" });
    let path = format!("/v1/keys/{live}");
    assert_eq!(developer.status("PATCH", &path, Some(&body)).await, 403);
    operator.done("PUT", &format!("/v1/accounts/{account}/members/{id}"), json!({ "role": "owner" })).await;
    assert!(has(&operations(&developer, &format!("?key={live}")).await, "updateKey"));
    developer.done("PATCH", &path, body).await;
}

#[tokio::test]
async fn a_key_is_known_by_how_its_token_begins_and_ends_and_found_by_it() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let (key, token) = operator.key(&account, "restricted", "test").await;
    let show = async || operator.done("GET", &format!("/v1/keys/{key}"), Value::Null).await;
    let shown = show().await;
    assert_eq!((&shown["start"], &shown["last_four"]), (&json!(token[..14]), &json!(token[58..])));
    assert_eq!(shown.get("old_last_four"), None);
    let rotated = operator.done("POST", &format!("/v1/keys/{key}/rotate"), json!({})).await;
    let new = rotated["token"].as_str().unwrap();
    let shown = show().await;
    assert_eq!((&shown["last_four"], &shown["old_last_four"]), (&json!(new[58..]), &json!(token[58..])));
    for search in [&token[..12], &token[..24], &token[8..20], &token[58..], &new[58..], &key[..12], "WORKER", "rk_test"]
    {
        let path = format!("/v1/accounts/{account}/keys?search={search}");
        let found = operator.done("GET", &path, Value::Null).await;
        assert!(found["items"].as_array().unwrap().iter().any(|item| item["id"] == json!(key)), "{search}: {found}");
    }
    let path = format!("/v1/accounts/{account}/keys?search={}", &token[24..40]);
    assert_eq!(operator.done("GET", &path, Value::Null).await["total"], 0, "nothing is found by its secret");
    // It survives a restart, and moves along.
    let exported = operator.request("GET", "/v1/export").send().await.unwrap().text().await.unwrap();
    assert!(exported.contains(&token[58..]) && exported.contains(&new[58..]));
    let demo = demo.restart(&[]);
    let operator = Person::operator(&demo);
    assert_eq!(operator.done("GET", &format!("/v1/keys/{key}"), Value::Null).await["last_four"], json!(new[58..]));
    // What another system issued is shown as far as each such token is known.
    let foreign = json!({ "items": [{ "type": "foreign_key", "record": { "account": account,
        "sha256": "ab".repeat(32), "key": { "kind": "secret", "mode": "test", "name": "foreign" } } }] });
    let made = operator.done("POST", "/v1/import", foreign).await;
    let shown = operator.done("GET", &format!("/v1/keys/{}", text(&made["items"][0]["id"])), Value::Null).await;
    assert_eq!((shown.get("start"), shown.get("last_four")), (None, None));
}

#[tokio::test]
async fn accounts_are_found_by_their_names_and_counted() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let made = operator.done("POST", "/v1/accounts", json!({ "name": "Möwe & Söhne" })).await;
    let id = made["id"].as_str().unwrap();
    for search in ["m%C3%96WE", "%26%20s", id] {
        let found = operator.done("GET", &format!("/v1/accounts?search={search}"), Value::Null).await;
        assert_eq!((&found["total"], &found["items"][0]["id"]), (&json!(1), &json!(id)), "{search}");
    }
    assert_eq!(operator.done("GET", "/v1/accounts?limit=1", Value::Null).await["total"], 2);
    let outsider = operator.hired(id, "x@example.com", None).await.1;
    assert_eq!(outsider.done("GET", "/v1/accounts", Value::Null).await["total"], 0);
}

/// What comes of an answer that does not end, until it has this text.
async fn until(answer: &mut reqwest::Response, text: &str) -> String {
    let mut told = String::new();
    while !told.contains(text) {
        let chunk = tokio::time::timeout(PATIENCE, answer.chunk()).await.expect("nothing comes").unwrap();
        told.push_str(std::str::from_utf8(&chunk.expect("it ended")).unwrap());
    }
    told
}

#[tokio::test]
async fn decisions_are_watched_as_they_are_made_by_those_who_may_read_them() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let viewer = operator.hired(&account, "viewer@example.com", Some("viewer")).await.1;
    let (key, token) = operator.key(&account, "restricted", "test").await;
    assert_eq!(viewer.status("GET", "/v1/decisions/live", None).await, 403);
    let watch = async |person: &Person, query: &str, last: Option<&str>| {
        let request = person.request("GET", &format!("/v1/decisions/live{query}"));
        let request = last.map_or(person.request("GET", &format!("/v1/decisions/live{query}")), |last| {
            request.header("last-event-id", last)
        });
        request.send().await.unwrap()
    };
    let of_key = format!("?key={key}&outcome=allow");
    let mut one = watch(&viewer, &of_key, None).await;
    assert_eq!(one.headers()["content-type"], "text/event-stream");
    let mut all = watch(&operator, "", None).await;
    for (token, path) in [(demo.get("SK_TEST"), "/v1/resources"), (&token, "/v1/jobs"), (&token, "/v1/resources")] {
        demo.authorize(json!({ "token": token, "method": "GET", "path": path })).await;
    }
    let told = until(&mut one, "\"}\n\n").await;
    let data = told.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let decision: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&decision["key"], &decision["reason"]), (&json!(key), &json!("allowed")));
    assert!(told.contains(&format!("id: {}\nevent: decision\n", text(&decision["id"]))), "{told}");
    assert_eq!(told.matches("data: ").count(), 1, "neither another key's nor those that were refused: {told}");
    assert!(!told.contains(&token) && !until(&mut all, text(&decision["id"])).await.contains(&token));
    // Whoever comes again misses nothing.
    drop(one);
    for _ in 0..2 {
        demo.authorize(json!({ "token": token, "method": "GET", "path": "/v1/resources" })).await;
    }
    let mut again = watch(&viewer, &of_key, Some(text(&decision["id"]))).await;
    let told = until(&mut again, "\"}\n\n").await;
    assert_eq!(told.matches("id: dec_").count(), 2, "{told}");
    assert_eq!(watch(&viewer, &of_key, Some("x")).await.status(), 400);
    // There is room for so many, and for everybody else besides.
    let mut others = Vec::new();
    let refused = loop {
        let answer = watch(&operator, "", None).await;
        if answer.status() != 200 {
            break answer;
        }
        others.push(answer);
        assert!(others.len() <= 64);
    };
    assert_eq!(
        (refused.status().as_u16(), refused.json::<Value>().await.unwrap()["code"].clone()),
        (503, json!("busy"))
    );
    assert_eq!(operator.status("GET", "/v1/me", None).await, 200);
    // Those who look on do not hold up the end.
    let before = Instant::now();
    let demo = demo.restart(&[]);
    assert!(before.elapsed() < Duration::from_secs(8), "the deadline is 10 s");
    while let Ok(Some(_)) = tokio::time::timeout(PATIENCE, all.chunk()).await.unwrap() {}
    drop(demo);
}

#[tokio::test]
async fn the_busiest_and_the_scopes_that_are_enough_are_told_to_those_who_may_read_them() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let viewer = operator.hired(&account, "viewer@example.com", Some("viewer")).await.1;
    let body = json!({ "kind": "restricted", "mode": "test", "name": "busy",
        "scopes": ["jobs:write", "resources:read", "resources:write"] });
    let made = operator.done("POST", &format!("/v1/accounts/{account}/keys"), body).await;
    let (key, token) = (text(&made["id"]), text(&made["token"]));
    let fresh = operator.done("GET", &format!("/v1/keys/{key}/suggestion"), Value::Null).await;
    assert_eq!((&fresh["decisions"], &fresh["scopes"]), (&json!(0), &json!([])));
    for (method, path) in [("GET", "/v1/resources"), ("GET", "/v1/resources"), ("POST", "/v1/webhooks")] {
        demo.authorize(json!({ "token": token, "method": method, "path": path, "ip": "192.0.2.9" })).await;
    }
    for query in [format!("?key={key}"), format!("?account={account}&key={key}")] {
        let top = viewer.done("GET", &format!("/v1/decisions/top{query}"), Value::Null).await;
        let expected = json!([{ "key": key, "name": "busy", "account": account,
            "allow": 2, "unauthenticated": 0, "forbidden": 1 }]);
        assert_eq!((&top["recorded"], &top["keys"]), (&json!(3), &expected), "{query}");
        let route = json!({ "action": "listResources", "route": "GET /v1/resources",
            "allow": 2, "unauthenticated": 0, "forbidden": 0 });
        assert_eq!((&top["routes"][0], &top["addresses"][0]["address"]), (&route, &json!("192.0.2.9")));
    }
    assert_eq!(viewer.status("GET", "/v1/decisions/top", None).await, 403);
    let told = viewer.done("GET", &format!("/v1/keys/{key}/suggestion"), Value::Null).await;
    assert_eq!(told["actions"], json!([{ "action": "listResources", "allowed": 2 }]));
    assert_eq!(
        (&told["scopes"], &told["unused"]),
        (&json!(["resources:read"]), &json!(["jobs:write", "resources:write"]))
    );
}

#[tokio::test]
async fn the_figures_say_how_many_there_are_and_how_long_decisions_took() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let before = operator.done("GET", "/v1/figures", Value::Null).await;
    let (key, token) = operator.key(&operator.account().await, "secret", "test").await;
    operator.done("POST", &format!("/v1/keys/{key}/revoke"), json!({})).await;
    demo.authorize(json!({ "token": token, "method": "GET", "path": "/v1/resources" })).await;
    let after = operator.done("GET", "/v1/figures", Value::Null).await;
    let more = |pointer: &str| {
        let count = |figures: &Value| figures.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        count(&after) - count(&before)
    };
    let expected = [
        ("/keys/revoked", 1),
        ("/keys/active", 0),
        ("/decisions_total/unauthenticated", 1),
        ("/recorded/kept", 1),
        ("/recorded/dropped", 0),
        ("/latency_ms/count", 1),
        ("/accounts", 0),
    ];
    for (pointer, expected) in expected {
        assert_eq!(more(pointer), expected, "{pointer}: {before} {after}");
    }
    assert!(after["latency_ms"]["p99"].as_f64().unwrap() >= after["latency_ms"]["p50"].as_f64().unwrap());
    assert_eq!((&after["version"], after["connections"]["admin"].as_i64() > Some(0)), (&json!("0.1.0"), true));
    assert_eq!(after["revision"], demo.report().await["active"]["digest"]);
}

#[tokio::test]
async fn events_are_found_by_type_and_person_page_by_page_and_exported_by_owners() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let (owner, as_owner) = operator.hired(&account, "owner@example.com", Some("owner")).await;
    let (key, _) = as_owner.key(&account, "secret", "test").await;
    as_owner.done("POST", &format!("/v1/keys/{key}/rotate"), json!({})).await;
    operator.done("POST", &format!("/v1/keys/{key}/disable"), Value::Null).await;
    let types = async |query: &str| {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/accounts/{account}/events?order=oldest&limit=1{query}{after}");
            let page = as_owner.done("GET", &path, Value::Null).await;
            all.extend(page["items"].as_array().unwrap().iter().map(|event| text(&event["type"]).to_owned()));
            let Some(next) = page.get("next") else { return all };
            after = format!("&after={}", text(next));
        }
    };
    assert_eq!(types("&type=key.disabled").await, ["key.disabled"]);
    assert_eq!(types("&type=key.disabled,key.rotated").await, ["key.rotated", "key.disabled"]);
    assert_eq!(
        types(&format!("&user={owner}&type=key.created,key.rotated,key.disabled")).await,
        ["key.created", "key.rotated"]
    );
    assert_eq!(types("&user=usr_0000000000000000").await, [""; 0]);
    for query in ["type=key.exploded", "type="] {
        assert_eq!(
            as_owner.status("GET", &format!("/v1/accounts/{account}/events?{query}"), None).await,
            400,
            "{query}"
        );
    }
    let whole =
        as_owner.done("GET", &format!("/v1/accounts/{account}/events?order=oldest&limit=1000"), Value::Null).await;
    let request = as_owner.request("GET", &format!("/v1/accounts/{account}/events/export"));
    let lines = request.send().await.unwrap().text().await.unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(whole["items"], json!(lines));
}

#[tokio::test]
async fn an_edit_is_checked_whole_and_changes_nothing() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let (key, token) = operator.key(&operator.account().await, "restricted", "test").await;
    for path in ["/v1/resources", "/v1/jobs"] {
        demo.authorize(json!({ "token": token, "method": "GET", "path": path })).await;
    }
    let before = demo.report().await;
    let check = async |files: Value| operator.done("POST", "/v1/policies/check", json!({ "files": files })).await;
    let same = check(json!({})).await;
    assert_eq!((&same["accepted"], &same["digest"]), (&json!(true), &before["active"]["digest"]), "{same}");
    assert_eq!((&same["comparison"]["widens"], &same["examples"]["failed"]), (&json!(false), &json!(0)), "{same}");
    assert!(same["examples"]["passed"].as_u64() > Some(0) && same.get("rejection").is_none());
    let more = format!(
        "@id(\"more\") permit (principal == DocsApi::RestrictedKey::{key:?}, action == DocsApi::Action::\"listJobs\", resource) \
         when {{ resource == principal.environment }};"
    );
    let wider = check(json!({ "policies/more.cedar": more })).await;
    assert_eq!((&wider["accepted"], &wider["comparison"]["widens"]), (&json!(true), &json!(true)), "{wider}");
    assert_eq!(wider["replay"]["changes"]["deny_to_allow"], 1, "{wider}");
    let broken = check(json!({ "policies/more.cedar": "permit (principal, wrong, resource);" })).await;
    assert_eq!(
        (&broken["accepted"], &broken["rejection"]["problems"][0]["file"]),
        (&json!(false), &json!("policies/more.cedar"))
    );
    assert!(text(&broken["rejection"]["diagnostics"]).contains('^') && broken.get("examples").is_none(), "{broken}");
    let forbids = check(
        json!({ "policies/more.cedar": "@id(\"none\") forbid (principal is DocsApi::SecretKey, action, resource);" }),
    );
    let forbids = forbids.await;
    assert_eq!(forbids["accepted"], false, "{forbids}");
    assert!(forbids["examples"]["failed"].as_u64() > Some(0) && forbids["examples"]["passed"].as_u64() > Some(0));
    let deep =
        format!("permit (principal, action, resource) when {{ {}true{} }};", "(".repeat(100_000), ")".repeat(100_000));
    assert_eq!(check(json!({ "policies/more.cedar": deep })).await["accepted"], false);
    let long = format!("// {}\n{}", "x".repeat(1_000_000), "permit (principal, wrong, resource);");
    let three: serde_json::Map<String, Value> =
        (0..3).map(|at| (format!("policies/long{at}.cedar"), json!(long))).collect();
    assert_eq!(check(Value::Object(three)).await["accepted"], false, "more than other operations take");
    for path in ["../etc/passwd", "policies/x.toml"] {
        let body = json!({ "files": { path: "x" } });
        assert_eq!(operator.status("POST", "/v1/policies/check", Some(&body)).await, 400, "{path}");
    }
    let after = demo.report().await;
    for part in ["active", "refused", "waiting", "reloads_ok", "reloads_refused"] {
        assert_eq!(before[part], after[part], "{part}");
    }
    assert_eq!(operator.done("GET", "/v1/policies/history", Value::Null).await["items"].as_array().unwrap().len(), 1);
}
