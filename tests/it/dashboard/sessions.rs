//! Sessions: how they begin, what their cookie is like, and what ends them.

use std::sync::Arc;

use serde_json::json;

use super::visit::{Visit, look, with_form};
use super::world::{PASSWORD, World};
use crate::harness::{Serve, client, configure, keyward};
use crate::manage::Person;

/// Whether somebody is signed in there.
async fn is_in(visit: &Visit) -> bool {
    let seen = visit.get("/me").await;
    assert!(seen.status == 200 || seen.location == "/sign-in?next=%2Fme", "{} {}", seen.status, seen.location);
    seen.status == 200
}

#[tokio::test]
async fn a_session_is_a_cookie_that_no_script_and_no_other_site_gets() {
    let world = World::new().await;
    let anonymous = world.visit('-').await;
    let fields = [("email", world.people[&'W'].as_str()), ("password", PASSWORD)];
    let cookie = anonymous.form("/sign-in", &fields).await.cookies.remove(0);
    let (pair, flags) = cookie.split_once("; ").unwrap();
    let flags: std::collections::BTreeSet<_> = flags.split("; ").collect();
    assert_eq!(flags, ["HttpOnly", "SameSite=Strict", "Path=/"].into());
    assert!(pair.starts_with("keyward=") && pair.len() > 40, "{pair}");
    // Signing in again is another session; what a browser brought along is not taken over.
    let fixed = anonymous.with("keyward=chosen-by-somebody-else");
    let again = fixed.form("/sign-in", &fields).await.cookies.remove(0);
    assert!(!again.contains("chosen-by-somebody-else") && !again.starts_with(pair));
    assert!(!is_in(&fixed).await);
    // Two cookies of the name may be a neighbour's doing, and are none.
    let visit = anonymous.with(pair.to_owned());
    assert!(is_in(&visit).await);
    let two = anonymous.with(format!("{pair}; {pair}"));
    assert!(!is_in(&two).await);
    // Nobody is believed who says that it is TLS without being a trusted proxy.
    let request = with_form(anonymous.request("POST", "/sign-in"), &fields).header("x-forwarded-proto", "https");
    let seen = look(request.send().await.unwrap()).await;
    assert!(seen.cookies[0].starts_with("keyward=") && !seen.cookies[0].contains("Secure"), "{:?}", seen.cookies);
}

#[tokio::test]
async fn behind_a_trusted_proxy_that_speaks_tls_the_cookie_is_bound_to_tls_and_the_host() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let (code, made, error) = keyward(&["init", "."], folder.path());
    assert_eq!(code, 0, "{error}");
    let token = made.split_whitespace().find(|word| word.starts_with("kw_")).unwrap().to_owned();
    configure(folder.path(), &["admin.trusted_proxies = [\"127.0.0.1/32\"]"]);
    let serve = Serve::start_in(folder, vec![]);
    let operator = Person { client: client(), url: serve.admin.clone(), token: Some(token) };
    let new = json!({ "email": "a@example.com", "name": "A", "password": PASSWORD, "operator": true });
    operator.done("POST", "/v1/users", new).await;
    let anonymous = Visit::anonymous(&serve.admin);
    let fields = [("email", "a@example.com"), ("password", PASSWORD)];
    let through =
        |visit: &Visit, method: &str, path: &str| visit.request(method, path).header("x-forwarded-proto", "https");
    let seen = look(with_form(through(&anonymous, "POST", "/sign-in"), &fields).send().await.unwrap()).await;
    let cookie = seen.cookies[0].clone();
    assert!(cookie.starts_with("__Host-keyward=") && cookie.contains("; Secure"), "{cookie}");
    assert!(cookie.contains("; Path=/") && !cookie.contains("Domain"), "{cookie}");
    let visit = anonymous.with(cookie.split(';').next().unwrap().to_owned());
    assert_eq!(look(through(&visit, "GET", "/me").send().await.unwrap()).await.status, 200);
    // The same session is none over plain HTTP, under either name.
    assert!(!is_in(&visit).await);
    let renamed = anonymous.with(visit.cookie.replace("__Host-", ""));
    assert_eq!(look(through(&renamed, "GET", "/me").send().await.unwrap()).await.status, 303);
}

#[tokio::test]
async fn signing_in_leads_back_to_a_page_of_ours_and_nowhere_else() {
    let world = World::new().await;
    let anonymous = world.visit('-').await;
    let email = world.people[&'W'].as_str();
    for (next, expected) in [
        ("/me", "/me"),
        ("/accounts?search=a%26b", "/accounts?search=a%26b"),
        ("https://evil.test/", "/"),
        ("//evil.test/", "/"),
        ("/\\evil.test", "/"),
        ("\\\\evil.test", "/"),
        ("/\t/evil.test", "/"),
        ("javascript:alert(1)", "/"),
        ("/sign-out", "/"),
        ("/x\r\nset-cookie: a=b", "/"),
    ] {
        let seen = anonymous.form("/sign-in", &[("email", email), ("password", PASSWORD), ("next", next)]).await;
        assert_eq!((seen.status, seen.location.as_str()), (303, expected), "{next:?}");
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
        let page = anonymous.get(&format!("/sign-in?{query}")).await;
        assert!(page.text.contains("name=\"next\"") && !page.text.contains("evil"), "{next:?}");
    }
    // A session that is over leads back to where it was.
    let seen = anonymous.get("/policies/try?path=/x&who=secret").await;
    assert_eq!(seen.location, "/sign-in?next=%2Fpolicies%2Ftry%3Fpath%3D%2Fx%26who%3Dsecret");
}

#[tokio::test]
async fn a_wrong_password_says_no_more_than_a_wrong_address() {
    let world = World::new().await;
    let anonymous = world.visit('-').await;
    let mut said = Vec::new();
    for email in [world.people[&'W'].as_str(), "nobody@example.com", "no address"] {
        let seen = anonymous.form("/sign-in", &[("email", email), ("password", "a wrong guess")]).await;
        assert_eq!((seen.status, seen.cookies.len()), (401, 0));
        assert!(!seen.text.contains("a wrong guess"), "a password is never shown again");
        said.push(seen.text.replace(email, ""));
    }
    assert!(said.windows(2).all(|two| two[0] == two[1]), "{said:#?}");
}

#[tokio::test]
async fn sessions_end_when_their_person_or_an_operator_says_so() {
    let world = World::new().await;
    let url = world.demo.get("DASHBOARD_URL");
    let user = world.stranger("somebody@example.com").await;
    let sign_in = || Visit::sign_in(url, "somebody@example.com", PASSWORD);
    let others = world.visit('W').await;

    // Here, and the token behind it with it.
    let (one, two) = (sign_in().await, sign_in().await);
    let tokens = world.operator.done("GET", &format!("/v1/users/{user}"), serde_json::Value::Null).await;
    assert_eq!(tokens["tokens"].as_array().unwrap().len(), 2);
    let seen = one.post("/sign-out", &[]).await;
    assert_eq!((seen.status, seen.location.as_str()), (303, "/sign-in"));
    assert!(seen.cookies[0].starts_with("keyward=; ") && seen.cookies[0].contains("Max-Age=0"), "{:?}", seen.cookies);
    assert!(!is_in(&one).await && is_in(&two).await);
    let tokens = world.operator.done("GET", &format!("/v1/users/{user}"), serde_json::Value::Null).await;
    assert_eq!(tokens["tokens"].as_array().unwrap().len(), 1);

    // In another browser.
    let one = sign_in().await;
    let page = one.get("/me").await;
    let (before, _) = page.text.split_once("Sign out there").unwrap();
    let path = before.rsplit("action=\"").next().unwrap().split('"').next().unwrap().to_owned();
    one.post(&path, &[]).await;
    assert!(is_in(&one).await && !is_in(&two).await);

    // Everywhere.
    let two = sign_in().await;
    assert_eq!(two.post("/sign-out-everywhere", &[]).await.location, "/sign-in");
    assert!(!is_in(&one).await && !is_in(&two).await);

    // By a password that is changed; not by a wrong one.
    let (one, two) = (sign_in().await, sign_in().await);
    let change = async |visit: &Visit, current: &str, password: &str, again: &str| {
        visit.post("/me/password", &[("current", current), ("password", password), ("again", again)]).await.location
    };
    let other = "another password of mine";
    assert_eq!(change(&one, "wrong", other, other).await, "/me");
    assert_eq!(change(&one, PASSWORD, other, "something else").await, "/me");
    assert_eq!(change(&one, PASSWORD, "short", "short").await, "/me");
    assert!(is_in(&one).await && is_in(&two).await);
    assert_eq!(change(&one, PASSWORD, other, other).await, "/sign-in");
    assert!(!is_in(&one).await && !is_in(&two).await);

    // By an operator: another password, shut out, removed.
    let operator = world.visit('O').await;
    let one = Visit::sign_in(url, "somebody@example.com", other).await;
    operator.post(&format!("/people/{user}/password"), &[("password", PASSWORD)]).await;
    assert!(!is_in(&one).await);
    let one = sign_in().await;
    let fields = [("name", "Somebody"), ("email", "somebody@example.com")];
    operator.post(&format!("/people/{user}"), &fields).await;
    assert!(!is_in(&one).await, "they are not ticked as let in");
    let seen =
        Visit::anonymous(url).form("/sign-in", &[("email", "somebody@example.com"), ("password", PASSWORD)]).await;
    assert_eq!(seen.status, 401);
    operator.post(&format!("/people/{user}"), &[fields[0], fields[1], ("active", "yes")]).await;
    let one = sign_in().await;
    operator.post(&format!("/people/{user}/delete"), &[("email", "wrong@example.com")]).await;
    assert!(is_in(&one).await);
    operator.post(&format!("/people/{user}/delete"), &[("email", "somebody@example.com")]).await;
    assert!(!is_in(&one).await);
    assert!(is_in(&others).await && is_in(&operator).await, "nobody else is signed out");
}

#[tokio::test]
async fn a_token_is_shown_once_and_a_form_that_is_sent_twice_makes_one_thing() {
    let world = World::new().await;
    let visit = world.visit('W').await;
    let base = world.fill("/accounts/{account}/live/keys");
    let page = visit.get(&format!("{base}/new")).await;
    let (_, once) = page.text.split_once("name=\"once\" value=\"").unwrap();
    let once = once.split('"').next().unwrap();
    let fields = [("once", once), ("kind", "restricted"), ("name", "Only one"), ("scope-resources", "resources:read")];
    let (first, second) = (visit.post(&base, &fields).await, visit.post(&base, &fields).await);
    assert_eq!((first.status, first.location.as_str()), (303, second.location.as_str()));
    let list = visit.get(&format!("{base}?search=Only+one")).await;
    assert_eq!(list.text.matches(">Only one<").count(), 1);
    // The page after it shows the token, and no page after that, nor to anybody else.
    let colleague = world.visit('O').await;
    colleague.get(&first.location).await;
    let shown = visit.get_once(&first.location).await;
    let (_, token) = shown.text.split_once("id=\"fresh-token\">").unwrap();
    let token = token.split('<').next().unwrap().to_owned();
    assert!(token.starts_with("rk_live_"), "{token}");
    let answer = world.demo.authorize(json!({ "token": token, "method": "GET", "path": "/v1/resources" })).await;
    assert_eq!(answer["reason"], "allowed");
    let again = visit.get(&first.location).await;
    assert!(again.status == 200 && !again.text.contains("fresh-token"));

    // Rotating twice by a double click keeps the secret that is out there.
    let rotate = format!("{}/rotate", first.location);
    let page = visit.get(&rotate).await;
    let (_, once) =
        page.text.split_once("name=\"once\" value=\"").expect("a rotation is named, so that it is done once");
    let once = once.split('"').next().unwrap();
    for _ in 0..2 {
        visit.post(&rotate, &[("once", once), ("overlap", "24h")]).await;
    }
    let answer = world.demo.authorize(json!({ "token": token, "method": "GET", "path": "/v1/resources" })).await;
    assert_eq!(answer["reason"], "allowed", "the old secret goes on");
    let shown = visit.get_once(&first.location).await;
    assert!(shown.text.contains("fresh-token") && !shown.text.contains(&token));

    // The tokens of one's own.
    let seen = visit.post("/me/tokens", &[("name", "script"), ("days", "30")]).await;
    assert_eq!(seen.location, "/me");
    assert!(visit.get_once("/me").await.text.contains("fresh-token"));
    assert!(!visit.get("/me").await.text.contains("fresh-token"));

    // And the four of an account.
    let operator = world.visit('O').await;
    let made = operator.post("/accounts", &[("name", "Fresh account")]).await.location;
    let shown = operator.get_once(&made).await.text;
    assert!(["sk_live_", "sk_test_", "pk_live_", "pk_test_"].iter().all(|prefix| shown.contains(prefix)));
    let again = operator.get(&made).await;
    assert_eq!((again.status, again.location), (303, format!("{made}/live")));
}
