//! An installation in which everything is that a page can show; the pages; the forms.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::visit::Visit;
use crate::harness::{Demo, PATIENCE};
use crate::manage::{Person, reason};

/// Everybody's password.
pub const PASSWORD: &str = "correct horse battery";

/// A page: a name, who looks at it for its picture, its address, who may see it, and what is done there first.
///
/// People are letters: Operator, oWner, Developer, Viewer, `X` for somebody without a role, `-` for nobody.
pub struct Place {
    pub name: &'static str,
    pub by: char,
    pub path: &'static str,
    pub may: &'static str,
    /// Fields that are filled in, and then what is pressed, which has no value.
    pub acts: &'static [(&'static str, &'static str)],
}

const fn place(name: &'static str, by: char, path: &'static str, may: &'static str) -> Place {
    Place { name, by, path, may, acts: &[] }
}

/// In an act, the first policy file with an edit that lets restricted keys do more.
pub const EDIT: &str = "(an edit)";

/// All pages. A new page is added here.
pub const PAGES: &[Place] = &[
    place("sign-in", '-', "/sign-in", "-OWDVX"),
    Place {
        acts: &[("#email", "nobody@example.com"), ("#password", "a guess"), ("button.primary", "")],
        ..place("sign-in-refused", '-', "/sign-in", "-OWDVX")
    },
    place("accounts", 'O', "/accounts", "OWDVX"),
    place("accounts-none", 'X', "/accounts?search=", "OWDVX"),
    Place {
        acts: &[("#name", "Newcomers"), ("form[action='/accounts'] button.primary", "")],
        ..place("account-made", 'O', "/accounts", "OWDVX")
    },
    place("overview", 'W', "/accounts/{account}/live", "OWDV"),
    place("overview-test", 'W', "/accounts/{account}/test", "OWDV"),
    place("overview-empty", 'O', "/accounts/{empty}/live", "O"),
    place("keys", 'W', "/accounts/{account}/live/keys", "OWDV"),
    place("keys-viewer", 'V', "/accounts/{account}/live/keys", "OWDV"),
    place("keys-test", 'W', "/accounts/{account}/test/keys?show=revoked&search=worker", "OWDV"),
    place("keys-empty", 'O', "/accounts/{empty}/live/keys", "O"),
    place("key-new", 'W', "/accounts/{account}/live/keys/new", "OWDV"),
    Place {
        acts: &[("#name", "Wrong"), ("#addresses", "nowhere"), ("form.form button.primary", "")],
        ..place("key-new-refused", 'W', "/accounts/{account}/test/keys/new", "OWDV")
    },
    Place {
        acts: &[("#name", "Fresh"), ("input[value='resources:read']", ""), ("form.form button.primary", "")],
        ..place("key-made", 'W', "/accounts/{account}/live/keys/new", "OWDV")
    },
    place("key", 'W', "/keys/{key}", "OWDV"),
    place("key-operator", 'O', "/keys/{key}?outcome=forbidden", "OWDV"),
    place("key-used", 'O', "/keys/{caller}", "OWDV"),
    place("key-rotating", 'W', "/keys/{rotating}", "OWDV"),
    place("key-revoked", 'W', "/keys/{revoked}", "OWDV"),
    place("key-expired", 'W', "/keys/{expired}", "OWDV"),
    place("key-compromised", 'W', "/keys/{compromised}", "OWDV"),
    place("key-disabled", 'W', "/keys/{disabled}", "OWDV"),
    place("key-viewer", 'V', "/keys/{key}", "OWDV"),
    place("key-edit", 'W', "/keys/{key}/edit", "OWDV"),
    place("key-rotate", 'W', "/keys/{rotating}/rotate", "OWDV"),
    place("key-revoke", 'W', "/keys/{key}/revoke", "OWDV"),
    Place {
        acts: &[("#name", "something else"), ("button.danger", "")],
        ..place("key-revoke-misspelt", 'W', "/keys/{key}/revoke", "OWDV")
    },
    place("key-compromise", 'W', "/keys/{key}/compromise", "OWDV"),
    Place {
        acts: &[("#name", "something else"), ("button.danger", "")],
        ..place("key-compromise-misspelt", 'W', "/keys/{key}/compromise", "OWDV")
    },
    place("decisions", 'W', "/accounts/{account}/live/decisions", "OWDV"),
    place("decisions-none", 'W', "/accounts/{account}/test/decisions?outcome=unauthenticated", "OWDV"),
    place("decision", 'W', "/decisions/{decision}", "OWDV"),
    place("decision-operator", 'O', "/decisions/{refused}", "OWDV"),
    place("team", 'W', "/accounts/{account}/team", "OWDV"),
    place("team-viewer", 'V', "/accounts/{account}/team", "OWDV"),
    place("team-remove", 'W', "/accounts/{account}/team/{viewer}/remove", "OWDV"),
    place("events", 'W', "/accounts/{account}/events", "OWDV"),
    place("settings", 'W', "/accounts/{account}/settings", "OWDV"),
    place("settings-viewer", 'V', "/accounts/{account}/settings", "OWDV"),
    place("closed-overview", 'O', "/accounts/{closed}/live", "O"),
    place("closed-keys", 'O', "/accounts/{closed}/test/keys", "O"),
    place("closed-key-new", 'O', "/accounts/{closed}/live/keys/new", "O"),
    place("closed-team", 'O', "/accounts/{closed}/team", "O"),
    place("closed-settings", 'O', "/accounts/{closed}/settings", "O"),
    place("long-overview", 'O', "/accounts/{long}/test", "O"),
    place("long-keys", 'O', "/accounts/{long}/live/keys", "O"),
    place("long-team", 'O', "/accounts/{long}/team", "O"),
    place("long-remove", 'O', "/accounts/{long}/team/{long-person}/remove", "O"),
    place("long-settings", 'O', "/accounts/{long}/settings", "O"),
    place("long-key", 'O', "/keys/{long-key}", "O"),
    place("long-key-rotate", 'O', "/keys/{long-key}/rotate", "O"),
    place("long-key-compromise", 'O', "/keys/{long-key}/compromise", "O"),
    place("long-person", 'O', "/people/{long-person}", "O"),
    place("me", 'W', "/me", "OWDVX"),
    Place {
        acts: &[("#token-name", "deploy script"), ("form[action='/me/tokens'] button.primary", "")],
        ..place("me-token-made", 'V', "/me", "OWDVX")
    },
    place("installation", 'O', "/installation", "O"),
    place("installation-decisions", 'O', "/installation/decisions", "O"),
    place("installation-events", 'O', "/installation/events", "O"),
    place("people", 'O', "/people", "O"),
    place("person", 'O', "/people/{person}", "O"),
    place("policies", 'O', "/policies", "O"),
    place("policies-file", 'O', "/policies/file?path=policies/docs-api.cedar", "O"),
    place("policies-schema", 'O', "/policies/file?path=schemas/docs-api.cedarschema", "O"),
    place("policies-routes", 'O', "/policies/routes", "O"),
    place("policies-guarantees", 'O', "/policies/guarantees", "O"),
    place("policies-history", 'O', "/policies/history", "O"),
    place("policies-revision", 'O', "/policies/history/{revision}", "O"),
    place("try", 'O', "/policies/try", "O"),
    place("try-outcome", 'O', "/policies/try?method=POST&path=/v1/resources&who=restricted&scope=resources:read", "O"),
    place("try-refused", 'O', "/policies/try?method=GET&path=/v1/resources&who=key&key=nonsense", "O"),
    place("playground", 'O', "/policies/playground", "O"),
    Place {
        acts: &[("#text", EDIT), ("form.form button.primary", "")],
        ..place("playground-outcome", 'O', "/policies/playground", "O")
    },
    Place {
        acts: &[("#text", "permit (principal, action\n"), ("form.form button.primary", "")],
        ..place("playground-refused", 'O', "/policies/playground", "O")
    },
    place("error-forbidden", 'D', "/installation", "O"),
    place("error-not-found", 'O', "/keys/key_0000000000000000", ""),
];

/// States of pages that only a world has where an edit of the policies waits.
pub const WAITING: &[Place] = &[
    place("policies-waits", 'O', "/policies", "O"),
    place("policies-waiting", 'O', "/policies/history/{waiting}", "O"),
    place("policies-approved", 'O', "/policies/history/{revision}", "O"),
    place("policies-history-approved", 'O', "/policies/history", "O"),
];

/// Addresses that are read and are no pages: they lead on, or are not made for people's eyes.
pub const OTHERS: &[(&str, &str)] = &[
    ("/", "OWDVX"),
    ("/accounts/{account}", "OWDVX"),
    ("/accounts/{account}/events/export", "OW"),
    ("/accounts/{account}/live/decisions/live", "OWDV"),
    ("/installation/events/export", "O"),
    ("/installation/decisions/live", "O"),
];

/// A form: where it is sent, its fields, and who may send it. In small letters: about test keys alone.
pub type Form = (&'static str, &'static [(&'static str, &'static str)], &'static str);

/// All forms but the one that signs in. A new form is added here.
pub const FORMS: &[Form] = &[
    ("/accounts", &[("name", "Another")], "O"),
    ("/accounts/{account}/rename", &[("name", "Renamed")], "OW"),
    ("/accounts/{closing}/close", &[("name", "Closing")], "OW"),
    ("/accounts/{account}/team/{person}", &[("role", "viewer")], "OW"),
    ("/accounts/{account}/team/{person}/remove", &[], "OW"),
    (
        "/accounts/{account}/{mode}/keys",
        &[("kind", "restricted"), ("name", "made"), ("scope-resources", "resources:read")],
        "OWd",
    ),
    ("/keys/{target}/edit", &[("name", "edited"), ("expires", "keep")], "OWd"),
    ("/keys/{target}/rotate", &[("overlap", "24h")], "OWd"),
    ("/keys/{target}/disable", &[], "OWd"),
    ("/keys/{target}/enable", &[], "OWd"),
    ("/keys/{target}/compromise", &[("name", "target")], "OWd"),
    ("/keys/{target}/revoke", &[("name", "target"), ("reason", "a test")], "OWd"),
    ("/people", &[("name", "Somebody"), ("email", "{fresh}")], "O"),
    ("/people/{person}", &[("name", "Person"), ("email", "person@example.com"), ("active", "yes")], "O"),
    ("/people/{person}/password", &[("password", "a password of theirs")], "O"),
    ("/people/{leaving}/delete", &[("email", "{leaving-email}")], "O"),
    ("/policies/rollback", &[("digest", "{revision}")], "O"),
    ("/policies/approve", &[("digest", "{revision}")], "O"),
    ("/policies/playground", &[("file", "policies/docs-api.cedar"), ("text", "// nothing\n")], "O"),
    ("/me/tokens", &[("name", "script"), ("days", "30")], "OWDVX"),
    ("/me/tokens/{token}/delete", &[], "OWDVX"),
    ("/me/password", &[("current", PASSWORD), ("password", PASSWORD), ("again", PASSWORD)], "OWDVX"),
    ("/sign-out", &[], "OWDVX"),
    ("/sign-out-everywhere", &[], "OWDVX"),
];

/// Forms about the sender themselves, which end their session.
pub const ENDINGS: [&str; 3] = ["/me/password", "/sign-out", "/sign-out-everywhere"];

/// A policy that lets restricted keys change one more thing, which no example is about.
fn wider(item: &str) -> String {
    format!(
        "@id(\"wider-{item}\")\npermit (\n  principal is DocsApi::RestrictedKey,\n  action == DocsApi::Action::\"updateResource\",\n  \
         resource\n)\nwhen {{ resource in principal.environment && context.path == \"/v1/resources/{item}\" }};\n"
    )
}

/// The installation.
pub struct World {
    pub demo: Demo,
    /// At the management API.
    pub operator: Person,
    pub account: String,
    /// What stands for the words in braces of pages and forms.
    pub words: BTreeMap<&'static str, String>,
    /// E-mail addresses by letter.
    pub people: BTreeMap<char, String>,
    /// Every secret that was made here.
    pub secrets: Vec<String>,
}

impl World {
    pub async fn new() -> Self {
        Self::on(Demo::start()).await
    }

    /// One in which an edit of the policies came into force, and another waits for approval.
    pub async fn waiting() -> Self {
        let mut world = Self::on(Demo::with(&["--confirm-widening"])).await;
        let first = world.save("wider.cedar", &wider("res_8"), |report| report["waiting"]["digest"].clone()).await;
        world.done("POST", "/v1/policies/approve", json!({ "digest": first })).await;
        let second = world.save("wider.cedar", &wider("res_7"), |report| report["waiting"]["digest"].clone()).await;
        world.words.extend([("revision", first), ("waiting", second)]);
        world
    }

    async fn on(demo: Demo) -> Self {
        let operator = Person::operator(&demo);
        let account = operator.account().await;
        let words = BTreeMap::from([("account", account.clone()), ("mode", "live".into())]);
        let mut secrets: Vec<String> = ["SK_LIVE", "SK_TEST", "RK_LIVE", "ADMIN_TOKEN", "DASHBOARD_PASSWORD"]
            .map(|name| demo.get(name).into())
            .into();
        secrets.push(PASSWORD.into());
        let mut world = Self { demo, operator, account, words, people: BTreeMap::new(), secrets };
        let roles = [('O', "operator", None), ('W', "owner", Some("owner")), ('D', "developer", Some("developer"))];
        for (letter, name, role) in roles.into_iter().chain([('V', "viewer", Some("viewer")), ('X', "outsider", None)])
        {
            world.person(letter, name, role).await;
        }
        world.keys().await;
        world.calls().await;
        world
    }

    /// The management API, for `Person::done`.
    async fn done(&self, method: &str, path: &str, body: Value) -> Value {
        self.operator.done(method, path, body).await
    }

    async fn person(&mut self, letter: char, name: &str, role: Option<&str>) {
        let email = format!("{name}@example.com");
        let roles = role.map_or(json!({}), |role| json!({ self.account.as_str(): role }));
        let new = json!({
            "email": email, "name": format!("The {name}"), "operator": letter == 'O', "password": PASSWORD, "roles": roles,
        });
        let made = self.done("POST", "/v1/users", new).await;
        if letter == 'V' {
            self.words.insert("viewer", made["id"].as_str().unwrap().into());
        }
        self.people.insert(letter, email);
    }

    /// Another person, who is nobody of those above; their id.
    pub async fn stranger(&self, email: &str) -> String {
        let new = json!({ "email": email, "name": email, "password": PASSWORD });
        self.done("POST", "/v1/users", new).await["id"].as_str().unwrap().to_owned()
    }

    /// A key; its id and token.
    pub async fn key(&mut self, mode: &str, name: &str, more: Value) -> (String, String) {
        let mut body = json!({ "kind": "restricted", "mode": mode, "name": name, "scopes": ["resources:read"] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = self.done("POST", &format!("/v1/accounts/{}/keys", self.account), body).await;
        let token = made["token"].as_str().unwrap().to_owned();
        self.secrets.push(token.clone());
        (made["id"].as_str().unwrap().to_owned(), token)
    }

    async fn keys(&mut self) {
        let more =
            json!({ "note": "Reads what there is", "addresses": ["127.0.0.1", "10.0.0.0/8"], "rotate_every": "30d" });
        let (key, _) = self.key("live", "Analytics worker", more).await;
        let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 5);
        self.key("live", "Ends soon", json!({ "expires_at": soon })).await;
        self.words.insert("key", key);
        for (name, operation) in [("revoked", "revoke"), ("compromised", "compromise"), ("disabled", "disable")] {
            let (key, _) = self.key("live", &format!("The {name} one"), json!({})).await;
            self.done("POST", &format!("/v1/keys/{key}/{operation}"), json!({})).await;
            self.words.insert(name, key);
        }
        let (rotating, _) = self.key("live", "The rotating one", json!({})).await;
        let rotated = self.done("POST", &format!("/v1/keys/{rotating}/rotate"), json!({ "overlap": "24h" })).await;
        self.secrets.push(rotated["token"].as_str().unwrap().into());
        self.words.insert("rotating", rotating);
        let end = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(300);
        let (expired, _) = self.key("live", "The expired one", json!({ "expires_at": end })).await;
        let until = Instant::now() + PATIENCE;
        while self.done("GET", &format!("/v1/keys/{expired}"), Value::Null).await["state"] != "expired" {
            assert!(Instant::now() < until, "the key never expired");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.words.insert("expired", expired);
        self.words.insert("person", self.stranger("person@example.com").await);
        let empty = self.done("POST", "/v1/accounts", json!({ "name": "Nothing yet" })).await;
        self.words.insert("empty", empty["id"].as_str().unwrap().into());
        let closed = self.done("POST", "/v1/accounts", json!({ "name": "Ended" })).await;
        let closed = closed["id"].as_str().unwrap().to_owned();
        self.done("POST", &format!("/v1/accounts/{closed}/close"), json!({})).await;
        self.words.insert("closed", closed);
        // Names without a space, as long as they may be.
        let named = self.done("POST", "/v1/accounts", json!({ "name": "W".repeat(200) })).await;
        let long = named["id"].as_str().unwrap().to_owned();
        let ends = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 3);
        let key = json!({ "kind": "restricted", "mode": "live", "name": "K".repeat(200), "scopes": ["jobs:write"], "expires_at": ends });
        let key = self.done("POST", &format!("/v1/accounts/{long}/keys"), key).await;
        self.secrets.push(key["token"].as_str().unwrap().into());
        let person =
            json!({ "email": "long@example.com", "name": "N".repeat(200), "roles": { long.as_str(): "viewer" } });
        let person = self.done("POST", "/v1/users", person).await;
        let id = |made: &Value| made["id"].as_str().unwrap().to_owned();
        self.words.extend([("long-key", id(&key)), ("long-person", id(&person)), ("long", long)]);
        let report = self.demo.report().await;
        self.words.insert("revision", report["active"]["digest"].as_str().unwrap().into());
    }

    async fn calls(&mut self) {
        let scopes = json!({ "scopes": ["resources:read", "webhooks:write"] });
        let (caller, token) = self.key("live", "Caller", scopes).await;
        self.words.insert("caller", caller);
        let calls = [("GET", "/v1/resources"), ("GET", "/v1/resources/res_1"), ("PATCH", "/v1/resources/res_9")];
        for (method, path) in calls.into_iter().chain([("POST", "/v1/resources")]) {
            self.demo.authorize(json!({ "token": token, "method": method, "path": path })).await;
        }
        reason(&self.operator.client, self.demo.get("DECISION_URL"), self.demo.get("SK_LIVE")).await;
        self.demo.authorize(json!({ "method": "GET", "path": "/v1/resources" })).await;
        let path = format!("/v1/decisions?account={}", self.account);
        let decisions = self.done("GET", &path, Value::Null).await;
        let of = |outcome: &str| {
            let items = decisions["items"].as_array().unwrap();
            items.iter().find(|told| told["outcome"] == outcome).unwrap()["id"].as_str().unwrap().to_owned()
        };
        let (allowed, refused) = (of("allow"), of("forbidden"));
        self.words.extend([("decision", allowed), ("refused", refused)]);
    }

    /// What is done on a page first.
    pub fn acts(&self, place: &Place) -> Vec<(&'static str, String)> {
        let edit = || std::fs::read_to_string(self.demo.policies().join("docs-api.cedar")).unwrap() + &wider("res_9");
        place
            .acts
            .iter()
            .map(|(field, value)| (*field, if *value == EDIT { edit() } else { (*value).into() }))
            .collect()
    }

    /// With what stands for the words in braces.
    pub fn fill(&self, text: &str) -> String {
        let filled =
            self.words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(&format!("{{{word}}}"), value));
        assert!(!filled.contains('{'), "{filled}");
        filled
    }

    /// A browser in which this person is signed in.
    pub async fn visit(&self, letter: char) -> Visit {
        let url = self.demo.get("DASHBOARD_URL");
        match self.people.get(&letter) {
            Some(email) => Visit::sign_in(url, email, PASSWORD).await,
            None => Visit::anonymous(url),
        }
    }

    /// Saves a policy file, and waits until there is a digest that there was not.
    async fn save(&self, file: &str, text: &str, digest: impl Fn(&Value) -> Value) -> String {
        let before = digest(&self.demo.report().await);
        std::fs::write(self.demo.policies().join(file), text).unwrap();
        let is_new = |report: &Value| digest(report) != before && digest(report).is_string();
        digest(&self.demo.until_report(is_new).await).as_str().unwrap().to_owned()
    }

    /// An edit of the policies that comes into force, so that there is a history.
    pub async fn edit(&mut self) {
        let revision = self.save("wider.cedar", &wider("res_8"), |report| report["active"]["digest"].clone()).await;
        self.words.insert("revision", revision);
    }

    /// The newest event: another one when anything was changed.
    pub async fn newest(&self) -> Value {
        self.done("GET", "/v1/events?limit=1", Value::Null).await["items"][0].clone()
    }
}

/// The routes that the Dashboard has: the paths that are read, and those that forms are sent to.
fn routes() -> (BTreeSet<&'static str>, BTreeSet<&'static str>) {
    let source = include_str!("../../../src/dashboard/mod.rs");
    let (mut read, mut sent) = (BTreeSet::new(), BTreeSet::new());
    for route in source.split(".route(").skip(1) {
        let path = route.split('"').nth(1).unwrap();
        let handlers = route.split(".layer(").next().unwrap();
        let has = |method: &str| handlers.contains(&format!(" {method}(")) || handlers.contains(&format!(".{method}("));
        assert!(has("get") || has("post"), "{path}");
        has("get").then(|| read.insert(path));
        has("post").then(|| sent.insert(path));
    }
    assert!(read.len() > 30 && sent.len() > 15, "{read:?} {sent:?}");
    (read, sent)
}

/// The route that serves this path: of those that match, the one with the fewest words in braces.
fn route_of<'r>(routes: &BTreeSet<&'r str>, path: &str) -> &'r str {
    let path = path.split('?').next().unwrap();
    let is_word = |segment: &str| segment.starts_with('{');
    let matches = |route: &&&str| {
        let (route, path): (Vec<_>, Vec<_>) = (route.split('/').collect(), path.split('/').collect());
        route.len() == path.len() && route.iter().zip(path).all(|(one, other)| is_word(one) || *one == other)
    };
    let found =
        routes.iter().filter(matches).min_by_key(|route| route.split('/').filter(|segment| is_word(segment)).count());
    found.unwrap_or_else(|| panic!("no route serves {path}"))
}

#[test]
fn each_route_is_in_the_list_of_pages_or_of_forms() {
    let (read, sent) = routes();
    let paths = PAGES.iter().map(|page| page.path).chain(OTHERS.iter().map(|(path, _)| *path));
    let covered: BTreeSet<_> = paths.map(|path| route_of(&read, path)).collect();
    assert_eq!(covered, read, "a page is missing in PAGES");
    let covered: BTreeSet<_> = FORMS.iter().map(|(path, ..)| route_of(&sent, path)).chain(["/sign-in"]).collect();
    assert_eq!(covered, sent, "a form is missing in FORMS");
}
