//! Who gets which page, and whose forms are taken: what the API answers them, and nothing else.

use serde_json::json;

use super::visit::{Visit, check, look, with_form};
use super::world::{ENDINGS, FORMS, OTHERS, PAGES, World};

const EVERYBODY: [char; 5] = ['O', 'W', 'D', 'V', 'X'];

#[tokio::test]
async fn each_page_is_shown_to_whom_the_api_would_answer_and_to_nobody_else() {
    let world = World::new().await;
    let anonymous = world.visit('-').await;
    let pages: Vec<_> =
        PAGES.iter().map(|page| (page.path, page.may)).chain(OTHERS.iter().map(|(path, may)| (*path, *may))).collect();
    for (path, _) in pages.iter().filter(|(_, may)| !may.contains('-')) {
        let path = world.fill(path);
        let seen = anonymous.get(&path).await;
        let next = form_urlencoded::Serializer::new(String::new()).append_pair("next", &path).finish();
        let expected = if path == "/" { "/sign-in".to_owned() } else { format!("/sign-in?{next}") };
        assert_eq!((seen.status, seen.location), (303, expected), "{path}");
    }
    for letter in EVERYBODY {
        let visit = world.visit(letter).await;
        for (path, may) in &pages {
            let path = world.fill(path);
            if path.ends_with("/live") && path.contains("/decisions") {
                let answer = visit.request("GET", &path).send().await.unwrap();
                assert_eq!(answer.status() == 200, may.contains(letter), "{letter} {path}: {}", answer.status());
                continue;
            }
            let seen = visit.get(&path).await;
            let expected: &[u16] = match may.contains(letter) {
                true => &[200, 303],
                false if may.is_empty() => &[403, 404],
                false => &[403],
            };
            assert!(expected.contains(&seen.status), "{letter} {path}: {} {}", seen.status, seen.text);
            assert!(!seen.location.starts_with("/sign-in"), "{letter} {path}");
        }
    }
}

#[tokio::test]
async fn each_form_is_done_for_whom_the_api_would_do_it_and_for_nobody_else() {
    let mut world = World::new().await;
    let anonymous = world.visit('-').await;
    for letter in EVERYBODY {
        let visit = world.visit(letter).await;
        for mode in ["live", "test"] {
            for (route, fields, may) in FORMS.iter().filter(|(route, ..)| !ENDINGS.contains(route)) {
                if mode == "test" && !route.contains("{target}") && !route.contains("{mode}") {
                    continue;
                }
                prepare(&mut world, route, mode, &visit).await;
                let path = world.fill(route);
                let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, world.fill(value))).collect();
                let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let before = world.newest().await;
                let nobody = anonymous.form(&path, &fields).await;
                assert_eq!((nobody.status, nobody.location.as_str()), (303, "/sign-in"), "{path}");
                assert_eq!(world.newest().await, before, "{path} was done for nobody");
                let seen = visit.post(&path, &fields).await;
                let is_allowed = may.contains(letter) || mode == "test" && may.contains(letter.to_ascii_lowercase());
                assert_eq!(seen.status != 403, is_allowed, "{letter} {path} ({mode}): {} {}", seen.status, seen.text);
                assert!(
                    seen.status == 303 || seen.status == 200 || seen.status == 403,
                    "{letter} {path}: {} {}",
                    seen.status,
                    seen.text
                );
                if is_allowed {
                    let told = if seen.location.is_empty() { seen } else { visit.get_once(&seen.location).await };
                    let is_error = told.text.contains("class=\"notice is-error\"");
                    assert!(!is_error || path.starts_with("/policies"), "{letter} {path} ({mode}): {}", told.text);
                    assert!(
                        path.starts_with("/policies") || world.newest().await != before,
                        "{letter} {path} did nothing"
                    );
                } else {
                    assert_eq!(world.newest().await, before, "{letter} {path} ({mode}) was done");
                }
            }
        }
    }
}

/// Makes what a form is about: a key that may be ended, an account that may be closed, a person who may leave.
async fn prepare(world: &mut World, route: &str, mode: &str, visit: &Visit) {
    world.words.insert("mode", mode.into());
    let fresh = format!("fresh{}@example.com", world.words.len() + world.secrets.len());
    world.secrets.push(String::new());
    if route.contains("{target}") {
        let (key, _) = world.key(mode, "target", json!({})).await;
        if route.ends_with("/enable") {
            world.operator.done("POST", &format!("/v1/keys/{key}/disable"), json!({})).await;
        }
        world.words.insert("target", key);
    }
    if route.contains("{closing}") {
        let account = world.operator.done("POST", "/v1/accounts", json!({ "name": "Closing" })).await;
        let account = account["id"].as_str().unwrap().to_owned();
        for (letter, role) in [('W', "owner"), ('D', "developer"), ('V', "viewer")] {
            let users = world.operator.done("GET", "/v1/users?limit=100", serde_json::Value::Null).await;
            let is_them = |user: &&serde_json::Value| user["email"] == world.people[&letter].as_str();
            let user =
                users["items"].as_array().unwrap().iter().find(is_them).unwrap()["id"].as_str().unwrap().to_owned();
            let path = format!("/v1/accounts/{account}/members/{user}");
            world.operator.done("PUT", &path, json!({ "role": role })).await;
        }
        world.words.insert("closing", account);
    }
    if route.contains("{leaving}") {
        let id = world.stranger(&fresh).await;
        world.words.extend([("leaving", id), ("leaving-email", fresh.clone())]);
    }
    if route.contains("/team/{person}") {
        let path = format!("/v1/accounts/{}/members/{}", world.account, world.words["person"]);
        let role = if route.ends_with("/remove") { "viewer" } else { "developer" };
        world.operator.done("PUT", &path, json!({ "role": role })).await;
    }
    if route == "/people/{person}" {
        // Something has to be changed by it.
        let path = format!("/v1/users/{}", world.words["person"]);
        world.operator.done("PATCH", &path, json!({ "name": fresh })).await;
    }
    if route == "/accounts/{account}/rename" {
        let path = format!("/v1/accounts/{}", world.account);
        world.operator.done("PATCH", &path, json!({ "name": fresh })).await;
    }
    if route.contains("{token}") {
        visit.post("/me/tokens", &[("name", "to be removed"), ("days", "30")]).await;
        let page = visit.get_once("/me").await;
        let (before, _) = page.text.rsplit_once("<button class=\"small danger\">Remove").unwrap();
        let token = before.rsplit("/me/tokens/").next().unwrap().split('/').next().unwrap().to_owned();
        world.words.insert("token", token);
    }
    world.words.insert("fresh", fresh);
}

#[tokio::test]
async fn what_is_too_large_or_no_form_at_all_is_refused_and_the_next_page_is_there() {
    let world = World::new().await;
    let visit = world.visit('O').await;
    let csrf = visit.csrf().await;
    let many: Vec<_> = [("csrf", csrf.as_str())].into_iter().chain((0..3_000).map(|_| ("x", "y"))).collect();
    assert_eq!(visit.form("/accounts", &many).await.status, 400);
    let large = "x".repeat(5 << 20);
    // With a client of its own: the connection ends with it.
    let other = Visit::anonymous(&visit.url).with(visit.cookie.as_str());
    let request = with_form(other.request("POST", "/accounts"), &[("csrf", &csrf), ("name", &large)]);
    // It is answered, or the connection ends, before all of it was sent.
    if let Ok(answer) = request.send().await {
        assert_eq!(look(answer).await.status, 413);
    }
    for (kind, body) in [("application/json", "{\"csrf\":\"x\"}"), ("text/plain", "csrf=x"), ("", "\u{0}\u{1}")] {
        let request = visit.request("POST", "/accounts").header("content-type", kind).body(body);
        assert_eq!(look(request.send().await.unwrap()).await.status, 403, "{kind}");
    }
    assert_eq!(visit.get("/accounts").await.status, 200);
}

#[tokio::test]
async fn an_address_of_nothing_is_a_page_that_says_so() {
    let world = World::new().await;
    let (operator, viewer) = (world.visit('O').await, world.visit('V').await);
    for path in [
        "/nothing",
        "/accounts/{account}/staging",
        "/accounts/{account}/staging/keys",
        "/accounts/{account}/live/nothing",
        "/accounts/acct_0000000000000000/live",
        "/accounts/nonsense/team",
        "/keys/nonsense/edit",
        "/keys/%2e%2e%2fusers/rotate",
        "/decisions/nonsense",
        "/decisions/export",
        "/decisions/counts",
        "/decisions/top",
        "/decisions/live",
        "/decisions/li%76e",
        "/decisions/%2e",
        "/decisions/a%20b",
        "/people/nonsense",
        "/policies/history/nonsense",
        "/policies/file?path=../../../etc/passwd",
        "/policies/file?path=policies/docs-api.cedar&revision=nonsense",
        "/accounts/{account}/live/keys?after=nonsense",
        "/accounts/{account}/live/keys?show=expiring-nonsense",
        "/accounts/{account}/live/decisions?outcome=nonsense",
    ] {
        let path = world.fill(path);
        for visit in [&operator, &viewer] {
            let answer = visit.request("GET", &path).header("accept", "text/html").send().await.unwrap();
            let seen = look(answer).await;
            assert!([400, 403, 404].contains(&seen.status), "{path}: {} {}", seen.status, seen.text);
            assert!(seen.text.contains("Go to the Dashboard"), "{path}: {}", seen.text);
            check(&path, &seen);
        }
    }
}
