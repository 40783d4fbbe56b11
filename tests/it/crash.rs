//! `kill -9` while the management API is used: each change is whole or not there at all, what was answered is there, and the
//! trail tells of all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use keyward::key::{Account, AccountId, UserId};
use keyward::people::{NewUser, Role, User};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::harness::{Serve, client};
use crate::manage::{Person, reason};

/// The number can be raised for a measurement.
const ROUNDS: u64 = 6;
const WRITERS: u64 = 6;
/// Of each import: an account, keys of it, and a person.
const IMPORTED_KEYS: usize = 3;
/// What is done already changes nothing, and is not told.
const MAY_CHANGE_NOTHING: [&str; 3] = ["/disable", "/enable", "/compromise"];

/// Numbers that look like chance and are the same each time (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What a writer knows to be done, because it was told so.
#[derive(Default)]
struct Done {
    /// How many requests were answered.
    answers: usize,
    /// The ids of those that changed something.
    changes: Vec<String>,
    /// The newest token of each key, and how often the key was rotated.
    tokens: BTreeMap<String, (String, usize)>,
    /// The newest version of each key.
    versions: BTreeMap<String, u64>,
    /// What was asked for when the daemon died.
    unanswered: Option<(Method, String, Value, String)>,
}

struct Writer {
    person: Person,
    dice: Dice,
    name: String,
    done: Done,
    keys: Vec<String>,
    answered: mpsc::UnboundedSender<()>,
}

impl Writer {
    /// Sends a request; nothing when there is no answer any more.
    async fn send(&mut self, method: Method, path: String, body: Value) -> Option<Value> {
        let retry = format!("{}-{}", self.name, self.done.answers);
        let request = self.person.request(method.as_str(), &path).header("idempotency-key", &retry);
        let request = if body.is_null() { request } else { request.json(&body) };
        self.done.unanswered = Some((method, path, body, retry));
        let answer = request.send().await.ok()?;
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (status, id, version) = (answer.status(), header("x-request-id").unwrap(), header("etag"));
        let text = answer.text().await.ok()?;
        let (method, path, ..) = self.done.unanswered.take()?;
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        self.done.answers += 1;
        if !MAY_CHANGE_NOTHING.iter().any(|word| path.ends_with(word)) {
            self.done.changes.push(id);
        }
        if let Some(key) = path.strip_prefix("/v1/keys/").and_then(|rest| rest.split('/').next()) {
            self.done.versions.insert(key.to_owned(), version.unwrap().trim_matches('"').parse().unwrap());
        }
        let _ = self.answered.send(());
        Some(if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
    }

    /// Manages an account until the daemon is gone.
    async fn run(mut self) -> Done {
        while self.one_account().await.is_some() {}
        self.done
    }

    async fn one_account(&mut self) -> Option<()> {
        let made = self.send(Method::POST, "/v1/accounts".into(), json!({ "name": self.name })).await?;
        let account = made["id"].as_str()?.to_owned();
        self.keys.clear();
        for key in made["keys"].as_array()? {
            self.know(key);
        }
        for _ in 0..30 {
            self.one_change(&account).await?;
        }
        self.send(Method::POST, format!("/v1/accounts/{account}/close"), Value::Null).await?;
        Some(())
    }

    fn know(&mut self, key: &Value) {
        let (id, token) = (key["id"].as_str().unwrap().to_owned(), key["token"].as_str().unwrap().to_owned());
        if key["kind"] != "publishable" {
            self.keys.push(id.clone());
        }
        let rotated = self.done.tokens.get(&id).map_or(0, |(_, rotated)| rotated + 1);
        self.done.tokens.insert(id, (token, rotated));
    }

    async fn one_change(&mut self, account: &str) -> Option<()> {
        let number = self.done.answers;
        let at = usize::try_from(self.dice.below(self.keys.len() as u64)).unwrap();
        let path = format!("/v1/keys/{}", self.keys[at]);
        match self.dice.below(12) {
            0 | 1 => {
                let body = json!({ "kind": "secret", "mode": "test", "name": format!("{} {number}", self.name) });
                let made = self.send(Method::POST, format!("/v1/accounts/{account}/keys"), body).await?;
                self.know(&made);
            }
            2..=4 => {
                let rotated = self.send(Method::POST, format!("{path}/rotate"), json!({ "overlap": "1h" })).await?;
                self.keys.remove(at);
                self.know(&rotated);
            }
            5 => drop(self.send(Method::PATCH, path, json!({ "note": format!("change {number}") })).await?),
            6 => drop(self.send(Method::POST, format!("{path}/disable"), Value::Null).await?),
            7 => drop(self.send(Method::POST, format!("{path}/enable"), Value::Null).await?),
            8 => drop(self.send(Method::POST, format!("{path}/compromise"), Value::Null).await?),
            9 if self.keys.len() > 1 => {
                self.send(Method::POST, format!("{path}/revoke"), json!({ "reason": "at random" })).await?;
                self.keys.remove(at);
            }
            10 => {
                let body = json!({
                    "email": format!("{}.{number}@example.com", self.name), "name": "A person",
                    "roles": { account: "viewer" },
                });
                let made = self.send(Method::POST, "/v1/users".into(), body).await?;
                let user = made["id"].as_str()?.to_owned();
                let role = format!("/v1/accounts/{account}/members/{user}");
                self.send(Method::PUT, role, json!({ "role": "developer" })).await?;
                self.send(Method::DELETE, format!("/v1/users/{user}"), Value::Null).await?;
            }
            _ => drop(self.send(Method::POST, "/v1/import".into(), self.import(number)).await?),
        }
        Some(())
    }

    /// An account with keys that another system issued, and a person: all of it or nothing.
    fn import(&self, number: usize) -> Value {
        let name = format!("{} import {number}", self.name);
        let account = Account::create(AccountId::random().unwrap(), &name, Timestamp::now()).unwrap();
        let mut items = vec![json!({ "type": "account", "record": account })];
        for at in 0..IMPORTED_KEYS {
            let digest = Sha256::digest(format!("{name}, token {at}"));
            let digest: Vec<_> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let key = json!({ "kind": "secret", "mode": "live", "name": name });
            let record = json!({ "account": account.id, "key": key, "sha256": digest.concat() });
            items.push(json!({ "type": "foreign_key", "record": record }));
        }
        let (email, name) = (format!("{}.import.{number}@example.com", self.name), name);
        let person = NewUser { email, name, operator: false, roles: [(account.id, Role::Viewer)].into() };
        let person = User::create(person, UserId::random().unwrap(), Timestamp::now()).unwrap();
        items.push(json!({ "type": "user", "record": person }));
        json!({ "items": items })
    }
}

/// How a key stands by what the trail tells of it.
#[derive(Debug, Default)]
struct Told {
    changes: u64,
    rotated: usize,
    /// The event that ended it: of its own, or of its account.
    ended_by: Option<String>,
    is_disabled: bool,
    is_compromised: bool,
}

impl Told {
    fn state(&self) -> &'static str {
        match self {
            Self { ended_by: Some(_), .. } => "revoked",
            Self { is_compromised: true, .. } => "compromised",
            Self { is_disabled: true, .. } => "disabled",
            _ => "active",
        }
    }

    fn hear(&mut self, what: &str) {
        self.changes += 1;
        match what {
            "key.rotated" => {
                self.rotated += 1;
                self.is_compromised = false;
            }
            "key.disabled" => self.is_disabled = true,
            "key.enabled" => self.is_disabled = false,
            "key.compromised" => self.is_compromised = true,
            "key.revoked" | "account.closed" => self.ended_by = Some(what.to_owned()),
            "key.created" | "key.updated" => {}
            other => panic!("{other}"),
        }
    }
}

/// Every item of a list.
async fn all(person: &Person, path: &str) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = person.done("GET", &format!("{path}limit=1000{after}"), Value::Null).await;
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page.get("next") else { return all };
        after = format!("&after={}", next.as_str().unwrap());
    }
}

fn id(item: &Value) -> String {
    item["id"].as_str().unwrap().to_owned()
}

/// Holds the trail against the records, all of them.
async fn the_trail_agrees(person: &Person) -> BTreeMap<String, Told> {
    let events = all(person, "/v1/events?order=oldest&").await;
    let mut keys: BTreeMap<String, Told> = BTreeMap::new();
    let mut of_account: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut accounts, mut closed, mut people) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut commits: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for event in &events {
        commits.entry(id(event)[..20].to_owned()).or_default().push(event);
        let about = |what: &str| event[what].as_str().unwrap().to_owned();
        match event["type"].as_str().unwrap() {
            "account.created" => assert!(accounts.insert(about("account")), "{event}"),
            "account.closed" => {
                let account = about("account");
                for key in &of_account[&account] {
                    let told = keys.get_mut(key).unwrap();
                    if told.ended_by.is_none() {
                        told.hear("account.closed");
                    }
                }
                closed.insert(account);
            }
            "user.created" => assert!(people.insert(about("user")), "{event}"),
            "user.deleted" => assert!(people.remove(&about("user")), "{event}"),
            // The first start brings the policies into force.
            "policy.activated" => {}
            "member.set" | "token.created" => assert!(people.contains(&about("user")), "{event}"),
            of_key => {
                of_account.entry(about("account")).or_default().extend((of_key == "key.created").then(|| about("key")));
                assert_eq!(keys.contains_key(&about("key")), of_key != "key.created", "{event}");
                keys.entry(about("key")).or_default().hear(of_key);
            }
        }
    }
    // An account comes with its four keys, and an import with all that it has.
    for events in commits.values().filter(|events| events[0]["type"] == "account.created") {
        let expected = if events[0]["detail"]["imported"] == "true" { 1 + IMPORTED_KEYS + 1 } else { 5 };
        assert_eq!(events.len(), expected, "{events:#?}");
    }
    let listed = all(person, "/v1/keys?").await;
    assert_eq!(listed.iter().map(id).collect::<BTreeSet<_>>(), keys.keys().cloned().collect());
    for key in &listed {
        let told = &keys[&id(key)];
        assert_eq!(key["state"], told.state(), "{key}: {told:?}");
    }
    let listed = all(person, "/v1/accounts?").await;
    assert_eq!(listed.iter().map(id).collect::<BTreeSet<_>>(), accounts);
    let are_closed = listed.iter().filter(|account| account["state"] == "closed").map(id);
    assert_eq!(are_closed.collect::<BTreeSet<_>>(), closed);
    assert_eq!(all(person, "/v1/users?").await.iter().map(id).collect::<BTreeSet<_>>(), people);
    keys
}

#[tokio::test]
async fn after_kill_9_each_change_is_whole_or_not_there_and_the_trail_agrees() {
    let rounds = std::env::var("TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let mut serve = Serve::with(&[]);
    let token = Some(serve.operator.clone());
    let (mut changes, mut dice) = (Vec::new(), Dice(7));
    for round in 0..rounds {
        let person = Person { client: client(), url: serve.admin.clone(), token: token.clone() };
        let (answered, mut answers) = mpsc::unbounded_channel();
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let (name, dice) = (format!("writer-{round}-{number}"), Dice(round * 1_000 + number));
                let (person, answered) = (person.clone(), answered.clone());
                tokio::spawn(Writer { person, dice, name, done: Done::default(), keys: vec![], answered }.run())
            })
            .collect();
        drop(answered);
        for _ in 0..20 + dice.below(300) {
            answers.recv().await.expect("no writer goes on");
        }
        tokio::time::sleep(Duration::from_micros(dice.below(2_000))).await;
        serve.process.signal(rustix::process::Signal::KILL);
        let mut done = Vec::new();
        for writer in writers {
            done.push(writer.await.unwrap());
        }
        let Serve { process, folder, .. } = serve;
        assert!(!process.wait().0.success());

        serve = Serve::start_in(folder, vec![]);
        let person = Person { client: client(), url: serve.admin.clone(), token: token.clone() };
        let keys = the_trail_agrees(&person).await;
        let events = all(&person, "/v1/events?").await;
        let told: BTreeSet<&str> = events.iter().filter_map(|event| event["request_id"].as_str()).collect();
        let mut asked_again = 0;
        for done in done {
            let lost: Vec<_> = done.changes.iter().filter(|id| !told.contains(id.as_str())).collect();
            assert!(lost.is_empty(), "round {round}: these were answered, and are not told: {lost:?}");
            changes.extend(done.changes);
            for (key, (token, rotated)) in &done.tokens {
                let found =
                    keys.get(key).unwrap_or_else(|| panic!("round {round}: {key} was reported, and is not there"));
                let is_in_doubt = done.unanswered.as_ref().is_some_and(|(_, path, ..)| {
                    path.starts_with(&format!("/v1/keys/{key}")) || path.ends_with("/close")
                });
                let version = done.versions.get(key).copied().unwrap_or(1);
                // One that was not answered may have been made; and closing an account kills its keys.
                let is_closed = found.ended_by.as_deref() == Some("account.closed");
                let more = u64::from(is_in_doubt || is_closed);
                assert!((version..=version + more).contains(&found.changes), "round {round}: {version} {found:?}");
                let answer = person.request("GET", &format!("/v1/keys/{key}")).send().await.unwrap();
                assert_eq!(answer.headers()["etag"], format!("\"{}\"", found.changes), "round {round}: {found:?}");
                // A rotation that nobody was told of replaced the token, which works on, unless it was dead.
                let expected = match found.state() {
                    _ if is_in_doubt && found.rotated > *rotated => continue,
                    "active" => "allowed".to_owned(),
                    state => format!("key_{state}"),
                };
                assert_eq!(found.rotated, *rotated, "round {round}: {found:?}");
                assert_eq!(reason(&person.client, &serve.decision, token).await, expected, "round {round}: {found:?}");
            }
            // Whoever was not answered asks again, and it is done once.
            let Some((method, path, body, retry)) = done.unanswered else { continue };
            let request = person.request(method.as_str(), &path).header("idempotency-key", &retry);
            let request = if body.is_null() { request } else { request.json(&body) };
            let answer = request.send().await.unwrap();
            let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
            // Closed, revoked or removed already: it was done.
            assert!(matches!(status, 200..=204 | 404 | 409), "round {round}: {method} {path}: {status} {text}");
            asked_again += 1;
        }
        assert!(asked_again > 0, "round {round}: nobody was in the middle of anything");
        the_trail_agrees(&person).await;
    }
    // What was told once is told for good.
    let person = Person { client: client(), url: serve.admin.clone(), token };
    let events = all(&person, "/v1/events?").await;
    let told: BTreeSet<&str> = events.iter().filter_map(|event| event["request_id"].as_str()).collect();
    assert!(changes.iter().all(|id| told.contains(id.as_str())) && changes.len() > 50, "{}", changes.len());
}
