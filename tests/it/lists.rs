//! Lists: which keys they show, in which order, page by page; and the trail from both ends.

use std::collections::BTreeSet;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::cli_online;
use crate::harness::{Demo, PATIENCE};
use crate::manage::Person;

fn ids(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

fn names(list: &Value) -> BTreeSet<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

/// Every item of a list, from its pages; `between` is called after each.
async fn paged(person: &Person, path: &str, limit: usize, mut between: impl AsyncFnMut()) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = person.done("GET", &format!("{path}limit={limit}{after}"), Value::Null).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        all.extend(items.iter().cloned());
        let Some(next) = page.get("next") else { return all };
        after = format!("&after={}", next.as_str().unwrap());
        between().await;
    }
}

#[tokio::test]
async fn keys_are_filtered_by_what_they_are_and_how_they_stand() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.done("POST", "/v1/accounts", json!({ "name": "Filtered" })).await;
    let account = account["id"].as_str().unwrap();
    let now = Timestamp::now();
    let days = |days: i64| now + SignedDuration::from_hours(24 * days);
    let make = async |name: &str, more: Value| {
        let mut body = json!({ "kind": "secret", "mode": "live", "name": name });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = operator.done("POST", &format!("/v1/accounts/{account}/keys"), body).await;
        made["id"].as_str().unwrap().to_owned()
    };
    make("plain", json!({})).await;
    make("scoped", json!({ "kind": "restricted", "mode": "test", "scopes": ["resources:read"] })).await;
    let off = make("off", json!({})).await;
    let dead = make("dead", json!({ "expires_at": days(5), "rotate_every": "1d" })).await;
    let known = make("known", json!({ "rotate_every": "1d" })).await;
    make("soon", json!({ "expires_at": days(10), "note": "with A Note" })).await;
    make("later", json!({ "expires_at": days(60), "rotate_every": "3d" })).await;
    let over = make("over", json!({ "expires_at": now + SignedDuration::from_secs(1) })).await;
    for (key, word) in [(off, "disable"), (dead, "revoke"), (known, "compromise")] {
        let body = if word == "revoke" { json!({}) } else { Value::Null };
        operator.done("POST", &format!("/v1/keys/{key}/{word}"), body).await;
    }
    let until = Instant::now() + PATIENCE;
    while operator.done("GET", &format!("/v1/keys/{over}"), Value::Null).await["state"] != "expired" {
        assert!(Instant::now() < until, "it never expired");
    }
    let made_with_it = ["Publishable key", "Secret key", "Test publishable key", "Test secret key"];
    let secret_and_live = ["Secret key", "dead", "known", "later", "off", "over", "plain", "soon"];
    let at_terminal = cli_online::Person::operator(&demo);
    for (filter, expected) in [
        (&[("mode", "test")][..], &["Test publishable key", "Test secret key", "scoped"][..]),
        (&[("kind", "publishable")], &["Publishable key", "Test publishable key"]),
        (&[("kind", "restricted")], &["scoped"]),
        (&[("kind", "secret"), ("mode", "live")], &secret_and_live),
        (&[("state", "active")], &[&made_with_it[..], &["later", "plain", "scoped", "soon"]].concat()),
        (&[("state", "disabled")], &["off"]),
        (&[("state", "revoked")], &["dead"]),
        (&[("state", "compromised")], &["known"]),
        (&[("state", "expired")], &["over"]),
        (&[("expiring_within_days", "9")], &["dead"]),
        (&[("expiring_within_days", "10")], &["dead", "soon"]),
        (&[("expiring_within_days", "60"), ("state", "active")], &["later", "soon"]),
        (&[("rotation_due_within_days", "2")], &[]),
        (&[("rotation_due_within_days", "3")], &["later"]),
        (&[("unused_since", "2020-01-01T00:00:00Z")], &[]),
        (&[("unused_since", "2999-01-01T00:00:00Z"), ("state", "disabled")], &["off"]),
        (&[("state", "revoked"), ("mode", "test")], &[]),
        (&[("state", "revoked,compromised")], &["dead", "known"]),
        (&[("kind", "restricted,publishable"), ("mode", "test")], &["Test publishable key", "scoped"]),
        (&[("never_expires", "true"), ("mode", "live"), ("kind", "secret")], &["Secret key", "known", "off", "plain"]),
        (&[("never_expires", "false")], &["dead", "later", "over", "soon"]),
        (&[("needs_attention", "true")], &["known", "later"]),
        (
            &[("needs_attention", "false"), ("kind", "secret"), ("state", "active")],
            &["Secret key", "Test secret key", "plain", "soon"],
        ),
        (&[("search", "KEY"), ("mode", "live")], &["Publishable key", "Secret key"]),
        (&[("search", "a note")], &["soon"]),
        (&[("search", "nothing like it")], &[]),
        (&[("order", "newest"), ("state", "disabled")], &["off"]),
    ] {
        let query = filter.iter().map(|(name, value)| format!("&{name}={value}")).collect::<Vec<_>>().concat();
        let expected: BTreeSet<&str> = expected.iter().copied().collect();
        let found = operator.done("GET", &format!("/v1/accounts/{account}/keys?limit=1000{query}"), Value::Null).await;
        assert_eq!(names(&found), expected, "{query}");
        // Those of all accounts, of which this is one.
        let all = operator.done("GET", &format!("/v1/keys?limit=1000{query}"), Value::Null).await;
        let of_account: Vec<&Value> =
            all["items"].as_array().unwrap().iter().filter(|key| key["account"] == account).collect();
        assert_eq!(json!(of_account), found["items"], "{query}");
        assert_eq!(found["total"], expected.len(), "{query}");
        // Pages are of what the filter lets through.
        let pages = paged(&operator, &format!("/v1/accounts/{account}/keys?{}&", &query[1..]), 1, async || {}).await;
        assert_eq!(json!(pages), found["items"], "{query}");
        let flags = filter.iter().flat_map(|(name, value)| [format!("--{}", name.replace('_', "-")), (*value).into()]);
        let flags: Vec<String> = flags.collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let told = at_terminal.json(&[&["keys", "list", "--account", account][..], &flags].concat());
        assert_eq!(told["items"], found["items"], "{flags:?}");
    }
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("mode=liv", "mode"),
        ("kind=public", "kind"),
        ("state=alive", "state"),
        ("expiring_within_days=-1", "expiring_within_days"),
        ("unused_since=yesterday", "unused_since"),
        ("kind=secret,", "kind"),
        ("needs_attention=maybe", "needs_attention"),
        ("colour=red", "colour"),
        ("after=x", "after"),
        ("after=key_0000000000000000", "after"),
    ] {
        let answer = operator.request("GET", &format!("/v1/keys?{query}")).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{query}");
        assert_eq!(answer.json::<Value>().await.unwrap()["field"], field, "{query}");
    }
}

#[tokio::test]
async fn pages_come_in_a_stable_order_although_keys_are_made_and_changed_meanwhile() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    for _ in 0..12 {
        operator.key(&account, "restricted", "test").await;
    }
    let made = operator.done("POST", "/v1/accounts", json!({ "name": "Ordered" })).await;
    let path = format!("/v1/accounts/{}/keys", made["id"].as_str().unwrap());
    let first = operator.done("GET", &path, Value::Null).await;
    let first = first["items"].as_array().unwrap().iter().map(|key| (&key["mode"], &key["kind"])).collect::<Vec<_>>();
    let pairs = [("live", "publishable"), ("live", "secret"), ("test", "publishable"), ("test", "secret")];
    assert_eq!(json!(first), json!(pairs), "the four that came with the account, always in this order");
    for path in ["/v1/keys?".to_owned(), format!("/v1/accounts/{account}/keys?")] {
        let before = ids(&operator.done("GET", &format!("{path}limit=1000"), Value::Null).await);
        let mut at = 0;
        let all = paged(&operator, &path, 3, async || {
            // One that was shown, and one that was not yet.
            for key in [&before[at], &before[before.len() - 1 - at]] {
                operator.done("PATCH", &format!("/v1/keys/{key}"), json!({ "name": format!("changed {at}") })).await;
            }
            operator.done("POST", &format!("/v1/keys/{}/disable", before[at]), Value::Null).await;
            operator.key(&account, "secret", "test").await;
            at = (at + 1).min(4);
        })
        .await;
        let all: Vec<String> = all.iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(all[..before.len()], before, "each once, and in the order of before");
        let made: BTreeSet<&String> = all[before.len()..].iter().collect();
        assert!(made.len() == all.len() - before.len() && !made.is_empty(), "those that were made come behind");
    }
    for path in ["/v1/accounts?", "/v1/users?"] {
        let whole = operator.done("GET", &format!("{path}limit=1000"), Value::Null).await;
        assert_eq!(json!(paged(&operator, path, 1, async || {}).await), whole["items"], "{path}");
    }
}

#[tokio::test]
async fn keys_that_should_be_rotated_are_listed_and_counted_until_they_are() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    let body = json!({ "kind": "secret", "mode": "test", "name": "worker", "rotate_every": "3d" });
    let made = operator.done("POST", &format!("/v1/accounts/{account}/keys"), body).await;
    let due = async || operator.done("GET", "/v1/keys?rotation_due_within_days=7", Value::Null).await;
    assert_eq!(ids(&due().await), [made["id"].as_str().unwrap()]);
    assert_eq!(demo.metric("keyward_keys_rotation_due_soon ").await, 1);
    assert_eq!(demo.metric("keyward_keys_rotation_overdue ").await, 0);
    operator.done("POST", &format!("/v1/keys/{}/revoke", made["id"].as_str().unwrap()), json!({})).await;
    assert_eq!(ids(&due().await), [""; 0]);
    assert_eq!(demo.metric("keyward_keys_rotation_due_soon ").await, 0);
}

#[tokio::test]
async fn the_trail_is_the_same_from_both_ends_and_as_json_lines() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = operator.account().await;
    for _ in 0..7 {
        operator.key(&account, "restricted", "test").await;
    }
    for path in ["/v1/events?".to_owned(), format!("/v1/accounts/{account}/events?")] {
        let whole = operator.done("GET", &format!("{path}order=oldest&limit=1000"), Value::Null).await;
        let mut newest = paged(&operator, &path, 4, async || {}).await;
        newest.reverse();
        assert_eq!(whole["items"], json!(newest), "{path}");
    }
    let whole = operator.done("GET", "/v1/events?order=oldest&limit=1000", Value::Null).await;
    let lines = operator.request("GET", "/v1/events/export").send().await.unwrap().text().await.unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(whole["items"], json!(lines));
}

#[tokio::test]
async fn accounts_are_listed_as_policies_let_each_be_seen() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let mut made = Vec::new();
    for name in ["one", "two", "three", "four"] {
        let account = operator.done("POST", "/v1/accounts", json!({ "name": name })).await;
        made.push(account["id"].as_str().unwrap().to_owned());
    }
    let roles = json!({ &made[0]: "owner", &made[1]: "viewer", &made[2]: "viewer" });
    let ada = json!({ "email": "ada@example.com", "name": "Ada", "roles": roles });
    let ada = operator.done("POST", "/v1/users", ada).await;
    let token = json!({ "name": "script" });
    let token = operator.done("POST", &format!("/v1/users/{}/tokens", ada["id"].as_str().unwrap()), token).await;
    let ada = operator.with(Some(token["token"].as_str().unwrap().to_owned()));
    let listed = async |person: &Person| ids(&person.done("GET", "/v1/accounts", Value::Null).await);
    assert_eq!(listed(&ada).await, made[..3]);
    assert_eq!(listed(&operator).await[1..], made, "behind the demo's");

    // One that a policy names is not like the others, whatever role somebody has there.
    let hidden = format!(
        "@id(\"hide\")\nforbid (principal, action == Keyward::Action::\"getAccount\", \
         resource == Keyward::Account::\"{}\");\n",
        made[1]
    );
    std::fs::create_dir(demo.policies().join("management")).unwrap();
    std::fs::write(demo.policies().join("management/hide.cedar"), hidden).unwrap();
    demo.until_report(|report| report.to_string().contains("\"hide\"")).await;
    assert_eq!(listed(&ada).await, [made[0].as_str(), &made[2]]);
    assert_eq!(listed(&operator).await[1..], [made[0].as_str(), &made[2], &made[3]]);
}

#[tokio::test]
async fn a_list_of_people_goes_on_where_it_was_when_whoever_stood_there_has_gone() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let mut came = ids(&operator.done("GET", "/v1/users", Value::Null).await);
    for number in 0..4 {
        let email = format!("person{number}@example.com");
        let made = operator.done("POST", "/v1/users", json!({ "email": email, "name": email })).await;
        came.push(made["id"].as_str().unwrap().to_owned());
    }
    let page = operator.done("GET", "/v1/users?limit=4", Value::Null).await;
    operator.done("DELETE", &format!("/v1/users/{}", came[3]), Value::Null).await;
    let next = page["next"].as_str().unwrap();
    let rest = operator.done("GET", &format!("/v1/users?after={next}"), Value::Null).await;
    assert_eq!((ids(&page), ids(&rest)), (came[..4].to_vec(), came[4..].to_vec()));
    for bad in ["nobody", &came[0], "1.usr_1", "x.usr_0000000000000000", &format!("{}9.{}", "9".repeat(40), came[0])] {
        let answer = operator.request("GET", &format!("/v1/users?after={bad}")).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{bad}");
        assert_eq!(answer.json::<Value>().await.unwrap()["field"], "after", "{bad}");
    }
}
