//! What people see: what they may do, what calls come to, and how the daemon is.

use serde_json::{Value, json};

use crate::harness::Demo;
use crate::manage::Person;

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
