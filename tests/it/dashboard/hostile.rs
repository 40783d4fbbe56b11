//! What people and callers type, shown again: as text, on every page. And what no page may show, on none.

use serde_json::json;

use super::visit::{Visit, tags, text_of};
use super::world::{OTHERS, PAGES, PASSWORD, World};

/// What somebody types who wants a page to run it. Each begins with a word of its own, to be found again.
const ATTEMPTS: [&str; 6] = [
    "xsa\"><script>alert('xsa')</script>",
    "xsb'onmouseover='alert(1)' x='",
    "xsc{{7*7}}${7*7}<%= 7*7 %>",
    "javascript:alert('xsd')",
    "xse</title></textarea></pre></code></option><img src=x onerror=alert(1)>",
    "xsf&lt;b&gt;&#34;\" autofocus onfocus=alert(1) <!-- ]]>",
];

/// All fields that a person can write something free into get the attempt; one world for each, so that names are its own.
async fn typed_everywhere(attempt: &str) -> World {
    let mut world = World::new().await;
    let operator = world.visit('O').await;
    let account = world.account.clone();
    let done =
        |seen: super::visit::Seen, what: &str| assert!(seen.status == 303, "{what}: {} {}", seen.status, seen.text);

    done(operator.post(&format!("/accounts/{account}/rename"), &[("name", attempt)]).await, "account");
    let base = format!("/accounts/{account}/live/keys");
    let fields = [("kind", "restricted"), ("name", attempt), ("note", attempt), ("scope-resources", "resources:read")];
    let seen = operator.post(&base, &fields).await;
    let key = seen.location.clone();
    done(seen, "key");
    let fresh = operator.get_once(&key).await;
    let (_, token) = fresh.text.split_once("id=\"fresh-token\">").unwrap();
    world.secrets.push(token.split('<').next().unwrap().to_owned());
    // A call whose path is the attempt.
    let path = format!("/v1/{attempt}");
    let token = world.secrets.last().unwrap().clone();
    let question = json!({ "token": token, "method": "GET", "path": path, "ip": "127.0.0.1" });
    let answer = world.demo.authorize(question).await;
    assert_eq!(answer["reason"], "path_ambiguous");
    let decisions = world.operator.done("GET", "/v1/decisions?limit=1", serde_json::Value::Null).await;
    world.words.insert("decision", decisions["items"][0]["id"].as_str().unwrap().to_owned());
    world.words.insert("key", key.trim_start_matches("/keys/").to_owned());

    let (revoked, _) = world.key("live", attempt, json!({ "note": attempt })).await;
    let fields = [("name", attempt), ("reason", attempt)];
    done(operator.post(&format!("/keys/{revoked}/revoke"), &fields).await, "revoked");
    world.words.insert("revoked", revoked);

    let fields = [("name", attempt), ("email", "named@example.com"), ("account", account.as_str()), ("role", "viewer")];
    let seen = operator.post("/people", &fields).await;
    world.words.insert("person", seen.location.trim_start_matches("/people/").to_owned());
    done(seen, "person");
    done(operator.post("/me/tokens", &[("name", attempt), ("days", "30")]).await, "token");
    operator.get_once("/me").await;
    // The operator's own name is on each of their pages.
    let me = world.operator.done("GET", "/v1/users?limit=100", serde_json::Value::Null).await;
    let is_them = |user: &&serde_json::Value| user["email"] == world.people[&'O'].as_str();
    let me = me["items"].as_array().unwrap().iter().find(is_them).unwrap()["id"].as_str().unwrap().to_owned();
    let fields = [("name", attempt), ("email", world.people[&'O'].as_str()), ("operator", "yes"), ("active", "yes")];
    done(operator.post(&format!("/people/{me}"), &fields).await, "operator");
    world
}

/// The attempt is there, and nothing but text.
fn shows(path: &str, html: &str, attempt: &str) -> bool {
    // That nothing of it runs is checked of every page; that it is whole says that it is text.
    assert!(!html.contains(attempt) || !attempt.contains(['<', '"', '\'']), "{path} shows it unescaped");
    assert!(!html.contains("xsc49"), "{path} evaluates it");
    let runs = tags(html).iter().any(|tag| {
        tag.attributes.contains_key("onerror") || tag.attributes.contains_key("autofocus") && tag.name != "input"
    });
    assert!(!runs, "{path} makes it an attribute");
    text_of(html).contains(attempt)
}

async fn attempted(attempt: &str) {
    let world = typed_everywhere(attempt).await;
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(
            ["search", "after", "outcome", "reason", "action", "show", "kind", "path", "method", "key", "ip", "scope"]
                .map(|name| (name, attempt)),
        )
        .extend_pairs([
            ("who", attempt),
            ("mode", attempt),
            ("scheme", attempt),
            ("file", attempt),
            ("revision", attempt),
            ("next", attempt),
        ])
        .finish();
    let visit = world.visit('O').await;
    let mut shown = std::collections::BTreeSet::new();
    for path in PAGES.iter().map(|page| page.path) {
        let path = world.fill(path);
        let seen = visit.get(&path).await;
        if shows(&path, &seen.text, attempt) {
            shown.insert(path.clone());
        }
        let (bare, _) = path.split_once('?').unwrap_or((&path, ""));
        let seen = visit.get(&format!("{bare}?{query}")).await;
        assert!(seen.status < 500, "{bare}: {} {}", seen.status, seen.text);
        shows(&format!("{bare} with a query"), &seen.text, attempt);
        // One parameter at a time comes further than all of them.
        for name in ["search", "path", "file", "key", "after"] {
            let query = form_urlencoded::Serializer::new(String::new()).append_pair(name, attempt).finish();
            let seen = visit.get(&format!("{bare}?{query}")).await;
            assert!(seen.status < 500, "{bare}?{query}: {} {}", seen.status, seen.text);
            shows(&format!("{bare}?{query}"), &seen.text, attempt);
        }
    }
    for name in [
        "/accounts",
        "/accounts/{account}/live",
        "/accounts/{account}/live/keys",
        "/keys/{key}",
        "/keys/{revoked}",
        "/me",
    ] {
        assert!(shown.contains(&world.fill(name)), "{name} does not show what was typed: {shown:#?}");
    }
    for name in [
        "/people",
        "/people/{person}",
        "/accounts/{account}/team",
        "/accounts/{account}/settings",
        "/keys/{key}/revoke",
    ] {
        assert!(shown.contains(&world.fill(name)), "{name} does not show what was typed: {shown:#?}");
    }
    for path in
        ["/decisions/{decision}", "/keys/{key}", "/accounts/{account}/live/decisions", "/installation/decisions"]
    {
        let seen = visit.get(&world.fill(path)).await;
        // Long paths are recorded in part.
        let begins = format!("GET /v1/{}", &attempt[..attempt.len().min(100)]);
        assert!(text_of(&seen.text).contains(&begins), "{path}: {}", seen.text);
    }
    // Forms that come back show what was typed.
    let base = world.fill("/accounts/{account}/live/keys");
    let again = [
        (
            base.as_str(),
            vec![
                ("kind", attempt),
                ("name", attempt),
                ("note", attempt),
                ("addresses", attempt),
                ("expires", attempt),
                ("expires_on", attempt),
                ("rotate_every", attempt),
                ("once", attempt),
            ],
        ),
        (
            &world.fill("/keys/{key}/edit"),
            vec![("name", attempt), ("addresses", attempt), ("rotate_every", attempt), ("expires", "keep")],
        ),
        (&world.fill("/keys/{key}/revoke"), vec![("name", "wrong"), ("reason", attempt)]),
        ("/policies/playground", vec![("file", "policies/docs-api.cedar"), ("text", attempt)]),
        ("/policies/playground", vec![("file", attempt), ("text", attempt)]),
    ];
    for (path, fields) in &again {
        let seen = visit.post(path, fields).await;
        assert!(seen.status < 500, "{path}: {}", seen.text);
        assert!(shows(path, &seen.text, attempt), "{path} forgot what was typed: {}", seen.text);
    }
    let seen = visit.form("/sign-in", &[("email", attempt), ("password", "x"), ("next", attempt)]).await;
    assert!(shows("/sign-in", &seen.text, attempt), "{}", seen.text);
    for (path, fields) in [
        ("/people", vec![("name", "x"), ("email", attempt)]),
        ("/people", vec![("name", "x"), ("email", "x@example.com"), ("account", attempt), ("role", attempt)]),
        ("/policies/rollback", vec![("digest", attempt)]),
    ] {
        let seen = visit.post(path, &fields).await;
        assert_eq!(seen.status, 303, "{path}: {}", seen.text);
        let seen = visit.get(&seen.location).await;
        shows(path, &seen.text, attempt);
    }
}

#[tokio::test]
async fn what_was_typed_is_text_on_every_page_when_it_is_a_script() {
    attempted(ATTEMPTS[0]).await;
}

#[tokio::test]
async fn what_was_typed_is_text_on_every_page_when_it_is_an_attribute_or_a_template() {
    attempted(&ATTEMPTS[1..].join(" ")[..200]).await;
}

#[tokio::test]
async fn a_bad_policy_is_shown_as_text_in_the_banner() {
    let world = World::new().await;
    let attempt = ATTEMPTS[0];
    let file = world.demo.policies().join("bad.cedar");
    std::fs::write(&file, format!("@id(\"x\")\npermit (principal, action, resource) when {{ {attempt} }};\n")).unwrap();
    world.demo.until_report(|report| !report["refused"].is_null()).await;
    let visit = world.visit('O').await;
    for path in ["/accounts", "/policies", "/me"] {
        let seen = visit.get(path).await;
        assert!(seen.text.contains("was refused") && text_of(&seen.text).contains("xsa"), "{path}: {}", seen.text);
    }
    let developer = world.visit('D').await;
    assert!(!developer.get("/me").await.text.contains("was refused"));
    std::fs::remove_file(&file).unwrap();
    world.demo.until_report(|report| report["refused"].is_null()).await;
    assert!(!visit.get("/me").await.text.contains("was refused"));
}

#[tokio::test]
async fn no_page_shows_a_secret_after_its_one_showing() {
    let mut world = World::new().await;
    let mut visits: Vec<Visit> = Vec::new();
    for letter in ['O', 'W', 'V'] {
        visits.push(world.visit(letter).await);
    }
    // What was made by the Dashboard, and shown.
    let made = visits[0].post("/accounts", &[("name", "Shown once")]).await.location;
    let mut shown = vec![visits[0].get_once(&made).await.text];
    let base = world.fill("/accounts/{account}/test/keys");
    let made = visits[1].post(&base, &[("kind", "secret"), ("name", "Shown once")]).await.location;
    world.words.insert("key", made.trim_start_matches("/keys/").to_owned());
    shown.push(visits[1].get_once(&made).await.text);
    visits[2].post("/me/tokens", &[("name", "Shown once"), ("days", "")]).await;
    shown.push(visits[2].get_once("/me").await.text);
    let mut tokens = 0;
    for page in &shown {
        for prefix in ["sk_live_", "sk_test_", "kw_"] {
            for (at, _) in page.match_indices(prefix) {
                let rest = &page[at..];
                let length = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
                if length > 30 {
                    world.secrets.push(rest[..length].to_owned());
                    tokens += 1;
                }
            }
        }
    }
    assert_eq!(tokens, 4, "two of the account, a key's, a person's");
    world.secrets.extend(visits.iter().map(|visit| visit.session().to_owned()));
    for visit in &visits {
        for path in PAGES.iter().map(|page| page.path).chain(OTHERS.iter().map(|(path, _)| *path)) {
            if path.ends_with("/decisions/live") {
                continue;
            }
            let path = world.fill(path);
            let seen = visit.get(&path).await;
            let headers = format!("{:?}", seen.headers);
            for secret in &world.secrets {
                assert!(
                    !seen.text.contains(secret.as_str()) && !headers.contains(secret.as_str()),
                    "{path} shows {}…",
                    &secret[..4]
                );
                // Nor the part of a token that is random.
                let random = secret.rsplit('_').next().unwrap();
                assert!(random.len() < 16 || !seen.text.contains(random), "{path} shows a part of {}…", &secret[..4]);
            }
            assert!(!seen.text.contains(PASSWORD), "{path}");
        }
    }
}
