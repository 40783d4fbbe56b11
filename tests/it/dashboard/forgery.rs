//! Forms that no page of the session's made: other sites', other sessions', none's.

use super::visit::{Visit, look, with_form};
use super::world::{FORMS, PASSWORD, World};

#[tokio::test]
async fn a_form_that_did_not_come_from_a_page_of_the_session_does_nothing() {
    let mut world = World::new().await;
    let (operator, other) = (world.visit('O').await, world.visit('O').await);
    let (csrf, others) = (operator.csrf().await, other.csrf().await);
    assert_ne!(csrf, others);
    let target = world.words["key"].clone();
    let (person, account) = (world.words["person"].clone(), world.words["account"].clone());
    world.words.extend([("target", target), ("leaving", person), ("closing", account)]);
    world.words.extend([("leaving-email", "person@example.com".into()), ("fresh", "new@example.com".into())]);
    world.words.insert("token", "tok_0000000000000000".into());
    let before = world.newest().await;
    let host = operator.url.strip_prefix("http://").unwrap();
    let ours = format!("http://{host}");
    let evil = "https://evil.test";
    for (route, fields, _) in FORMS {
        let path = world.fill(route);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, world.fill(value))).collect();
        for (csrf, headers) in [
            (None, &[][..]),
            (Some(""), &[]),
            (Some(others.as_str()), &[]),
            (Some(csrf.as_str()), &[("origin", evil)]),
            (Some(&csrf), &[("origin", "null")]),
            (Some(&csrf), &[("origin", ours.as_str()), ("sec-fetch-site", "cross-site")]),
            (Some(&csrf), &[("sec-fetch-site", "same-site")]),
        ] {
            let mut all: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            all.extend(csrf.map(|csrf| ("csrf", csrf)));
            // A token in the address is no form's.
            let mut request =
                with_form(operator.request("POST", &format!("{path}?csrf={}", csrf.unwrap_or("x"))), &all);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let seen = look(request.send().await.unwrap()).await;
            assert_eq!(seen.status, 403, "{path} {headers:?}: {}", seen.text);
            assert!(seen.cookies.is_empty(), "{path}");
        }
        // What is not a form of a page is none in the address either.
        let address = format!("{path}?csrf={csrf}");
        let status = look(operator.request("POST", &address).send().await.unwrap()).await.status;
        assert_eq!(status, 403, "{path}");
    }
    assert_eq!(world.newest().await, before, "something was done");
    for visit in [&operator, &other] {
        assert_eq!(visit.get("/me").await.status, 200, "the sessions go on");
    }
    // And what came from its page, as a browser sends it, is done.
    let request = with_form(operator.request("POST", "/accounts"), &[("csrf", &csrf), ("name", "Ours")]);
    let request = request.header("origin", &ours).header("sec-fetch-site", "same-origin");
    let seen = look(request.send().await.unwrap()).await;
    assert_eq!(seen.status, 303, "{}", seen.text);
    assert_ne!(world.newest().await, before);
}

#[tokio::test]
async fn nobody_is_signed_in_by_another_site_and_nothing_is_done_by_reading() {
    let world = World::new().await;
    let anonymous = world.visit('-').await;
    let before = world.newest().await;
    for (name, value) in [("origin", "https://evil.test"), ("sec-fetch-site", "cross-site"), ("origin", "null")] {
        let fields = [("email", world.people[&'O'].as_str()), ("password", PASSWORD)];
        let request = with_form(anonymous.request("POST", "/sign-in"), &fields).header(name, value);
        let seen = look(request.send().await.unwrap()).await;
        assert_eq!((seen.status, seen.cookies.len()), (403, 0), "{name}: {value}");
    }
    assert_eq!(world.newest().await, before);
    // A path that takes forms does nothing when it is read.
    let operator = Visit::sign_in(&anonymous.url, &world.people[&'O'], PASSWORD).await;
    let before = world.newest().await;
    let (key, csrf) = (world.words["key"].clone(), operator.csrf().await);
    for path in [
        "/sign-out".into(),
        "/sign-out-everywhere".into(),
        format!("/keys/{key}/disable"),
        format!("/keys/{key}/enable"),
    ] {
        let answer = operator.request("GET", &format!("{path}?csrf={csrf}")).send().await.unwrap();
        assert_eq!(answer.status(), 405, "{path}");
    }
    for page in ["revoke", "compromise"] {
        let seen = operator.get(&format!("/keys/{key}/{page}?csrf={csrf}&name=Analytics+worker")).await;
        assert_eq!(seen.status, 200, "{page}");
    }
    let member = world.fill("/accounts/{account}/team/{viewer}/remove");
    assert_eq!(operator.get(&format!("{member}?csrf={csrf}")).await.status, 200);
    operator.get(&format!("/keys/{key}/rotate?csrf={csrf}&overlap=0s")).await;
    assert_eq!(world.newest().await, before);
}
