//! Which revision is in force: its history, going back, the gate for what widens, and what is said while the files are
//! not in force.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keyward::activate::history::{Cause, Entry, History, Kept, Rollback};
use keyward::ledger::Ledger;
use keyward::policy::Bundle;
use keyward::store::{Batch, Expect, SledStore, Store, Table};
use keyward::trail::Actor;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::cli_online::Person;
use crate::harness::{PATIENCE, Process, Serve, client, configure, keyward};

/// A policy that forbids one resource. It narrows, and contradicts no example.
fn stop(item: &str) -> String {
    format!("@id(\"stop-{item}\")\nforbid (principal, action, resource == DocsApi::Resource::\"{item}\");\n")
}

/// A policy that lets restricted keys do what no other lets them do. It widens, and contradicts no example.
fn open(name: &str) -> String {
    format!(
        "@id(\"open-{name}\")\npermit (principal in DocsApi::Scope::\"jobs:write\", action == \
         DocsApi::Action::\"{name}\", resource)\nwhen {{ resource in principal.environment }};\n"
    )
}

/// A folder with an installation, and whoever operates it.
struct Installation {
    folder: Arc<tempfile::TempDir>,
    token: String,
    client: Client,
}

/// One that runs.
struct Running<'a> {
    of: &'a Installation,
    serve: Serve,
}

impl Installation {
    fn new(settings: &[&str]) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let (code, output, error) = keyward(&["init", "."], folder.path());
        assert_eq!(code, 0, "{error}");
        let token = output.split_whitespace().find(|word| word.starts_with("kw_")).unwrap().to_owned();
        configure(folder.path(), settings);
        Self { folder, token, client: client() }
    }

    fn start(&self) -> Running<'_> {
        Running { of: self, serve: Serve::start_in(Arc::clone(&self.folder), vec![]) }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("policies/edit.cedar")
    }

    fn save(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    /// What is on disk now.
    fn bundle(&self) -> Bundle {
        Bundle::read(&self.folder.path().join("schemas"), &self.folder.path().join("policies")).unwrap()
    }

    fn digest(&self) -> String {
        self.bundle().digest().to_string()
    }

    /// The history of a daemon that does not run.
    fn history(&self) -> History {
        let store = SledStore::open(&self.folder.path().join("data")).unwrap();
        History::new(Ledger::load(Arc::new(store)).unwrap())
    }
}

impl Running<'_> {
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = self.of.client.request(method, format!("{}{path}", self.serve.admin)).bearer_auth(&self.of.token);
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// `rollback` or `approve`; the status and the code of the problem.
    async fn order(&self, order: &str, digest: &str) -> (u16, Value) {
        let path = format!("/v1/policies/{order}");
        let (status, mut answer) = self.ask(Method::POST, &path, Some(json!({ "digest": digest }))).await;
        let code = answer.get_mut("code").map(Value::take);
        (status, code.unwrap_or(answer))
    }

    async fn report(&self) -> Value {
        self.get("/v1/policies").await
    }

    async fn until(&self, found: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let report = self.report().await;
            if found(&report) {
                return report;
            }
            assert!(Instant::now() < until, "never came: {report:#}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until what is on disk is in force.
    async fn in_force(&self) -> String {
        let digest = self.of.digest();
        let is_whole = |report: &Value| report["refused"].is_null() && report["waiting"].is_null();
        self.until(|report| report["active"]["digest"] == digest.as_str() && is_whole(report)).await;
        digest
    }

    /// Saves a policy, and waits until it is in force.
    async fn edited(&self, text: &str) -> String {
        self.of.save(text);
        self.in_force().await
    }

    /// Waits until it is known, too, what the revision in force has changed.
    async fn until_compared(&self) {
        let until = Instant::now() + PATIENCE;
        while self.history().await[0].get("comparison").is_none() {
            assert!(Instant::now() < until, "never compared");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until what is on disk waits for approval.
    async fn waits(&self) -> String {
        let digest = self.of.digest();
        self.until(|report| report["waiting"]["digest"] == digest.as_str()).await;
        digest
    }

    async fn refused(&self) -> Value {
        self.until(|report| !report["refused"].is_null()).await
    }

    async fn history(&self) -> Vec<Value> {
        self.get("/v1/policies/history").await["items"].as_array().unwrap().clone()
    }

    /// The events about policies, the oldest first.
    async fn events(&self) -> Vec<Value> {
        let events = self.get("/v1/events?order=oldest&limit=1000").await;
        let is_ours = |event: &&Value| event["type"].as_str().unwrap().starts_with("policy.");
        events["items"].as_array().unwrap().iter().filter(is_ours).cloned().collect()
    }

    async fn metric(&self, name: &str) -> f64 {
        let url = format!("{}/metrics", self.serve.admin);
        let text = self.of.client.get(url).send().await.unwrap().text().await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    async fn ready(&self) -> (u16, String) {
        let answer = self.of.client.get(format!("{}/readyz", self.serve.decision)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    fn operator(&self) -> Person<'_> {
        Person { url: &self.serve.admin, token: self.of.token.clone() }
    }

    /// Has the files checked once more.
    fn look_again(&mut self) {
        self.serve.process.signal(rustix::process::Signal::HUP);
        self.serve.process.wait_for("SIGHUP: looking at the policies again");
    }

    /// Ends it in order, and starts it again.
    fn restart(self) -> Self {
        let (status, output) = self.serve.process.stop();
        assert!(status.success(), "{output}");
        self.of.start()
    }

    /// Kills it, and starts it again.
    fn killed(self) -> Self {
        self.serve.process.signal(rustix::process::Signal::KILL);
        self.serve.process.wait();
        self.of.start()
    }

    /// An account's tokens, live and test, of secret keys.
    async fn keys(&self) -> (String, String) {
        let (status, made) = self.ask(Method::POST, "/v1/accounts", Some(json!({ "name": "Vexart" }))).await;
        assert_eq!(status, 201, "{made}");
        let token = |mode: &str| {
            let keys = made["keys"].as_array().unwrap();
            let key = keys.iter().find(|key| key["kind"] == "secret" && key["mode"] == mode).unwrap();
            key["token"].as_str().unwrap().to_owned()
        };
        (token("live"), token("test"))
    }

    /// The reason of a decision, and for how many seconds the policies are said to be stale.
    async fn decided(&self, token: &str, path: &str) -> (String, Option<u64>) {
        let question = json!({ "token": token, "method": "GET", "path": path });
        let url = format!("{}/v1/authorize", self.serve.decision);
        let answer = self.of.client.post(url).json(&question).send().await.unwrap();
        let stale =
            answer.headers().get("x-keyward-policies-stale").map(|value| value.to_str().unwrap().parse().unwrap());
        (answer.json::<Value>().await.unwrap()["reason"].as_str().unwrap().to_owned(), stale)
    }
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_revision_that_was_in_force_is_kept_with_what_was_different_and_a_restart_is_none() {
    let installation = Installation::new(&[]);
    let running = installation.start();
    let first = running.in_force().await;
    let second = running.edited(&stop("a")).await;
    let third = running.edited(&open("listWebhooks")).await;
    running.of.save("permit (");
    running.refused().await;
    assert_eq!(running.edited(&stop("a")).await, second);
    running.until_compared().await;
    let running = running.restart();
    let history = running.history().await;
    let digests: Vec<&Value> = history.iter().map(|revision| &revision["digest"]).collect();
    assert_eq!(digests, [&json!(second), &json!(third), &json!(second), &json!(first)]);
    assert_eq!(history[0]["in_force"], true);
    assert!(history[0].get("until").is_none() && history[1..].iter().all(|revision| revision["in_force"] == false));
    assert!((0..3).all(|at| history[at + 1]["until"] == history[at]["since"]), "{history:#?}");
    assert!(history[3].get("comparison").is_none(), "the first one had nothing to be compared with");
    let difference = |at: usize| (history[at]["comparison"]["widens"].as_bool(), history[at]["comparison"].to_string());
    assert_eq!(difference(2).0, Some(false));
    assert!(difference(1).0 == Some(true) && difference(1).1.contains("GET /v1/webhooks"), "{history:#?}");
    assert!(difference(0).1.contains("narrowed for restricted, jobs:write"), "{history:#?}");

    // The text of each, by the first digits of its digest.
    let whole = running.get(&format!("/v1/policies/history/{}", &third[..8])).await;
    assert_eq!(
        (&whole["digest"], &whole["files"]["policies/edit.cedar"]),
        (&json!(third), &json!(open("listWebhooks")))
    );
    assert!(whole["files"]["schemas/docs-api.cedarschema"].is_string());
    for (digest, status, code) in [("0123456", 400, "request_invalid"), ("01234567", 404, "not_found")] {
        let (got, problem) = running.ask(Method::GET, &format!("/v1/policies/history/{digest}"), None).await;
        assert_eq!((got, &problem["code"]), (status, &json!(code)));
    }

    let operator = running.operator();
    let table = operator.done(&["policy", "history"]);
    assert!(table.lines().count() == 5 && table.contains("in force") && table.contains("widened"), "{table}");
    let shown = operator.done(&["policy", "show", &third[..8]]);
    assert!(
        shown.contains(&third) && shown.contains("==> policies/edit.cedar <==\n@id(\"open-listWebhooks\")"),
        "{shown}"
    );
    let diff = operator.done(&["policy", "show", &third[..8], "--diff"]);
    assert!(diff.contains("-@id(\"stop-a\")\n") && diff.contains("+@id(\"open-listWebhooks\")\n"), "{diff}");
    let diff = operator.json(&["policy", "show", &third[..8], "--diff", &first[..12]]);
    assert!(diff["diff"].as_str().unwrap().starts_with("--- /dev/null\n+++ b/policies/edit.cedar\n"), "{diff}");
    operator.fails(&["policy", "show", "stop"], 2, &["hexadecimal"]);
    operator.fails(&["policy", "show", "00000000"], 5, &["policy history"]);
}

#[tokio::test]
async fn what_a_revision_changed_is_found_out_after_a_start_where_the_end_came_first() {
    let installation = Installation::new(&[]);
    let running = installation.start();
    let first = running.in_force().await;
    running.serve.process.stop();
    // The history as it is when the daemon ends between two steps: in force, and not compared.
    let wider = {
        installation.save(&open("listWebhooks"));
        let bundle = installation.bundle();
        remember(&installation, &bundle, &Kept::default());
        bundle.digest().to_string()
    };
    let running = installation.start();
    running.until_compared().await;
    let history = running.history().await;
    assert_eq!((&history[0]["digest"], &history[1]["digest"]), (&json!(wider), &json!(first)));
    assert!(history[0]["comparison"]["summary"].to_string().contains("GET /v1/webhooks"), "{history:#?}");
    assert_eq!(history[0]["comparison"]["widens"], true);
    assert!(history[1].get("comparison").is_none(), "before the first one there was nothing");
    // A kill may come before it is on disk; then it is found out once more.
    let running = running.killed();
    running.until_compared().await;
    assert_eq!(running.history().await[0]["comparison"]["widens"], true);
}

#[tokio::test]
async fn the_history_keeps_fifty_revisions() {
    let installation = Installation::new(&["reload.debounce_ms = 1"]);
    let running = installation.start();
    let first = running.in_force().await;
    let mut digests = vec![first.clone()];
    for item in 0..51 {
        digests.push(running.edited(&stop(&format!("item{item}"))).await);
    }
    let kept: Vec<Value> = running.history().await.iter().map(|revision| revision["digest"].clone()).collect();
    digests.reverse();
    assert_eq!(kept, digests[..50]);
    assert_eq!(running.order("rollback", &first).await, (404, json!("not_found")));
    assert_eq!(running.order("rollback", &digests[49]).await.0, 200);
}

#[tokio::test]
async fn who_wrote_a_revision_is_known_where_it_is_committed() {
    let installation = Installation::new(&[]);
    let run_git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            git.env_remove(variable);
        }
        let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
        let done = git.arg("-C").arg(installation.folder.path()).args(who).args(arguments).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    run_git(&["init", "--quiet"]);
    run_git(&["add", "schemas", "policies"]);
    run_git(&["commit", "--quiet", "--message", "Begin"]);
    let running = installation.start();
    running.edited(&stop("a")).await;
    let (status, output) = running.serve.process.stop();
    assert!(status.success(), "{output}");
    installation.save(&stop("b"));
    run_git(&["add", "policies"]);
    run_git(&["commit", "--quiet", "--message", "Stop b"]);
    let running = installation.start();
    running.in_force().await;
    let history = running.history().await;
    let git = |at: usize| &history[at]["git"];
    assert_eq!((&git(1)["subject"], &git(1)["uncommitted"]), (&json!("Begin"), &json!(true)), "{history:#?}");
    assert_eq!((&git(0)["subject"], &git(0)["uncommitted"]), (&json!("Stop b"), &json!(false)), "{history:#?}");
    assert_eq!(git(0)["author"], "Ada");
    // So is the first one, which was not an edit.
    assert_eq!((&git(2)["author"], &git(2)["uncommitted"]), (&json!("Ada"), &json!(false)), "{history:#?}");
    let told = running.operator().done(&["policy", "history"]);
    let commit = &git(1)["commit"].as_str().unwrap()[..7];
    let expected = [" Ada ", &format!("not committed, on top of {commit} (Ada)"), " Ada "];
    let rows: Vec<_> = told.lines().skip(1).collect();
    assert!(rows.len() == 3 && rows.iter().zip(expected).all(|(row, expected)| row.contains(expected)), "{told}");
    let authors: Vec<_> = running.events().await.iter().map(|event| event["detail"]["author"].clone()).collect();
    assert_eq!(authors, [json!("Ada"), Value::Null, json!("Ada")], "nobody has written what is not committed");
}

#[tokio::test]
async fn what_an_earlier_version_remembered_serves_where_the_files_are_broken() {
    let installation = Installation::new(&[]);
    installation.save(&stop("kept"));
    let kept = installation.digest();
    let store = SledStore::open(&installation.folder.path().join("data")).unwrap();
    let mut batch = Batch::new();
    let bundle = serde_json::to_vec(&installation.bundle()).unwrap();
    batch.put(Table::REVISIONS, b"last-good", bundle, Expect::Any);
    store.commit(&batch).unwrap();
    drop(store);
    installation.save("permit (");
    let running = installation.start();
    let report = running.report().await;
    assert_eq!((&report["active"]["digest"], &report["active"]["source"]), (&json!(kept), &json!("store")));
    assert_eq!(running.history().await.len(), 1);
}

#[tokio::test]
async fn a_rollback_serves_and_says_so_until_the_files_are_others_also_across_a_restart() {
    let installation = Installation::new(&[]);
    let mut running = installation.start();
    let (live, _) = running.keys().await;
    let good = running.edited(&stop("good")).await;
    let bad = running.edited(&stop("bad")).await;
    let (status, done) = running.order("rollback", &good[..8]).await;
    assert_eq!((status, &done["digest"], &done["cause"]), (200, &json!(good), &json!("rollback")));
    let person = done["by"]["id"].clone();
    assert!(done["by"]["type"] == "user" && person.as_str().unwrap().starts_with("usr_"), "{done}");
    running.serve.process.wait_for("rolled back: this revision serves until the files change");

    for round in 0..2 {
        let report = running.report().await;
        assert_eq!((&report["active"]["digest"], &report["active"]["source"]), (&json!(good), &json!("rollback")));
        let rollback = &report["active"]["rollback"];
        assert_eq!((&rollback["by"]["id"], &rollback["from"]), (&person, &json!(bad)));
        assert!(rollback["since"].is_string() && report["stale_since"].is_null(), "{report:#}");
        assert_eq!(running.decided(&live, "/v1/resources/good").await, ("policy_denied".into(), None));
        assert_eq!(running.decided(&live, "/v1/resources/bad").await, ("allowed".into(), None));
        assert!(running.metric("keyward_revision_rolled_back").await > 0.5);
        let told = running.operator().done(&["policy", "status"]);
        assert!(told.contains("a rollback") && told.contains(person.as_str().unwrap()), "{told}");
        assert_eq!(running.order("rollback", &good).await, (409, json!("revision_in_force")));
        // Files that are refused change nothing, and the ones that were rolled back from are still those.
        running.look_again();
        installation.save("permit (");
        let report = running.refused().await;
        assert_eq!((&report["active"]["digest"], &report["active"]["source"]), (&json!(good), &json!("rollback")));
        installation.save(&stop("bad"));
        running.until(|report| report["refused"].is_null()).await;
        running = if round == 0 { running.restart() } else { running.killed() };
    }

    let next = running.edited(&stop("next")).await;
    let report = running.report().await;
    assert_eq!(report["active"]["source"], "files");
    assert!(report["active"].get("rollback").is_none() && running.metric("keyward_revision_rolled_back").await < 0.5);
    // It is over: the files that were rolled back from are an edit like any other.
    running.edited(&stop("bad")).await;
    let causes: Vec<Value> = running.history().await.iter().map(|revision| revision["cause"].clone()).collect();
    assert_eq!(causes, ["edit", "edit", "rollback", "edit", "edit", "edit"]);

    let events = running.events().await;
    let rolled_back: Vec<&Value> = events.iter().filter(|event| event["type"] == "policy.rolled_back").collect();
    assert_eq!(rolled_back.len(), 1, "{events:#?}");
    let event = rolled_back[0];
    assert_eq!((&event["actor"]["id"], &event["detail"]["digest"]), (&person, &json!(good)));
    assert!(event["detail"]["before"] == json!(bad) && event["address"].is_string() && event["request_id"].is_string());
    assert!(events.iter().any(|event| event["type"] == "policy.activated" && event["detail"]["digest"] == json!(next)));
}

#[tokio::test]
async fn a_rollback_to_what_the_files_are_ends_the_one_before() {
    let installation = Installation::new(&[]);
    let running = installation.start();
    let first = running.in_force().await;
    let second = running.edited(&stop("a")).await;
    let operator = running.operator();
    assert!(operator.done(&["policy", "rollback", &first[..8]]).contains("until the files on disk change"));
    assert_eq!(running.report().await["active"]["source"], "rollback");
    operator.done(&["policy", "rollback", &second[..8]]);
    let report = running.report().await;
    assert_eq!((&report["active"]["digest"], &report["active"]["source"]), (&json!(second), &json!("files")));
    operator.fails(&["policy", "rollback", &second[..8]], 6, &["in force already", "revision_in_force"]);
    let running = running.restart();
    assert_eq!(running.report().await["active"]["source"], "files");
}

#[tokio::test]
async fn a_rollback_ends_what_is_refused_and_what_waits_and_an_edit_behind_it_is_compared_with_it() {
    let installation = Installation::new(&["policies.widening = \"confirm\""]);
    let running = installation.start();
    let first = running.in_force().await;
    running.edited(&stop("a")).await;
    installation.save(&open("listWebhooks"));
    let waiting = running.waits().await;
    assert_eq!(running.order("rollback", &first).await.0, 200, "whoever goes back confirms what it widens");
    let report = running.report().await;
    assert!(report["waiting"].is_null() && report["stale_since"].is_null(), "{report:#}");
    assert_eq!(running.order("approve", &waiting).await, (409, json!("revision_not_waiting")));
    installation.save(&format!("// Once more.\n{}", open("listWebhooks")));
    let waiting = running.waits().await;
    assert_eq!(running.report().await["active"]["source"], "rollback");
    assert_eq!(running.order("approve", &waiting).await.0, 200);
    assert_eq!(running.report().await["active"]["source"], "files");
}

/// A revision that this version of the program refuses, as an entry of the history.
fn odd() -> Bundle {
    Bundle::from_files([
        ("schemas/odd.cedarschema".to_owned(), "namespace Odd {}".to_owned()),
        ("policies/odd.cedar".to_owned(), "permit (principal, action, resource);".to_owned()),
    ])
}

fn remember(installation: &Installation, bundle: &Bundle, kept: &Kept) {
    let (digest, since) = (bundle.digest(), Timestamp::now());
    let entry = Entry { digest, since, cause: Cause::Rollback, by: None, comparison: None, git: None, bytes: 0 };
    installation.history().remember(&entry, bundle, kept, &[]).unwrap();
}

#[tokio::test]
async fn a_revision_that_this_version_refuses_cannot_be_rolled_back_to_and_does_not_serve_after_a_start() {
    let installation = Installation::new(&[]);
    let running = installation.start();
    let first = running.in_force().await;
    let (status, output) = running.serve.process.stop();
    assert!(status.success(), "{output}");
    // It was in force under another version, before the present one.
    remember(&installation, &odd(), &Kept::default());
    remember(&installation, &installation.bundle(), &Kept::default());
    let running = installation.start();
    let odd_digest = odd().digest().to_string();
    assert_eq!(running.order("rollback", &odd_digest).await, (409, json!("revision_refused")));
    assert_eq!(running.report().await["active"]["digest"], json!(first));
    running.serve.process.stop();

    // It was rolled back to, and the program was replaced since.
    let rollback = Rollback { since: Timestamp::now(), by: Actor::Console, from: Some(installation.bundle().digest()) };
    remember(&installation, &odd(), &Kept { rollback: Some(rollback), stale: None });
    let config = installation.folder.path().join("keyward.toml");
    let serve = || Process::start(&["serve", "--config", config.to_str().unwrap()], &[]).wait();
    let (status, output) = serve();
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(
        output.contains("rolled back") && output.contains(&odd_digest[..12]) && output.contains("Save other files")
    );
    // Other files are taken, but not where what they widen cannot be told.
    installation.save(&stop("other"));
    configure(installation.folder.path(), &["policies.widening = \"confirm\""]);
    let (status, output) = serve();
    assert!(status.code() == Some(1) && output.contains("Start once with"), "{output}");
    configure(installation.folder.path(), &["policies.widening = \"allow\""]);
    let running = installation.start();
    running.in_force().await;
    assert_eq!(running.report().await["active"]["source"], "files");
}

#[tokio::test]
async fn what_widens_waits_until_it_is_approved_and_what_does_not_is_in_force_at_once() {
    let installation = Installation::new(&["policies.widening = \"confirm\""]);
    let mut running = installation.start();
    let first = running.in_force().await;
    let (live, _) = running.keys().await;
    let narrow = running.edited(&stop("a")).await;
    installation.save(&(stop("a") + &open("listWebhooks")));
    let waiting = running.waits().await;
    running.serve.process.wait_for(&format!("keyward policy approve {}", &waiting[..12]));
    // Started anew, it waits all the same.
    for restart in [Running::restart, Running::killed] {
        let report = running.report().await;
        assert_eq!(report["active"]["digest"], json!(narrow));
        assert_eq!((&report["waiting"]["widens"], &report["refused"]), (&json!(true), &Value::Null));
        assert!(report["waiting"]["summary"].to_string().contains("GET /v1/webhooks"), "{report:#}");
        let (reason, stale) = running.decided(&live, "/v1/resources/a").await;
        assert!(reason == "policy_denied" && stale.is_some());
        assert!(running.metric("keyward_revision_waiting").await > 0.5);
        running.look_again();
        running = restart(running);
    }
    let told = running.operator().done(&["policy", "status"]);
    assert!(
        told.contains(&format!("keyward policy approve {}", &waiting[..12])) && told.contains("+ widened for "),
        "{told}"
    );
    assert_eq!(running.order("approve", &first).await, (409, json!("revision_not_waiting")));
    assert_eq!(running.order("approve", "0123").await, (400, json!("request_invalid")));
    // Whoever is to approve it can read it.
    let whole = running.get(&format!("/v1/policies/history/{}", &waiting[..8])).await;
    assert_eq!(
        (&whole["digest"], &whole["waiting"], &whole["in_force"]),
        (&json!(waiting), &json!(true), &json!(false))
    );
    assert!(whole["files"].to_string().contains("open-listWebhooks"), "{whole:#}");
    assert!(whole["comparison"]["summary"].to_string().contains("GET /v1/webhooks"), "{whole:#}");
    let told = running.operator().done(&["policy", "show", &waiting[..8], "--diff"]);
    assert!(told.contains("+@id(\"open-listWebhooks\")") && !told.contains("+@id(\"stop-a\")"), "{told}");
    assert!(running.operator().done(&["policy", "show", &waiting[..8]]).contains("waits for approval"));

    assert!(running.operator().done(&["policy", "approve", &waiting[..8]]).contains("In force"));
    // What was said to be done is done, whatever happens then.
    let running = running.killed();
    let report = running.report().await;
    assert_eq!((&report["active"]["digest"], &report["waiting"]), (&json!(waiting), &Value::Null));
    assert!(report["stale_since"].is_null() && running.metric("keyward_revision_waiting").await < 0.5);
    assert_eq!(running.order("approve", &waiting).await, (409, json!("revision_not_waiting")));
    let history = running.history().await;
    assert_eq!((&history[0]["cause"], &history[0]["by"]["type"]), (&json!("approval"), &json!("user")));
    assert!(running.get(&format!("/v1/policies/history/{waiting}")).await.get("waiting").is_none());

    let events = running.events().await;
    let expected = ["policy.activated", "policy.activated", "policy.waiting", "policy.approved", "policy.activated"];
    assert_eq!(types(&events), expected, "{events:#?}");
    assert!(events[2]["detail"]["difference"].as_str().unwrap().contains("GET /v1/webhooks"));
    assert_eq!((&events[3]["actor"], &events[3]["detail"]["digest"]), (&history[0]["by"], &json!(waiting)));

    // An approval is for one revision: a schema that adds an endpoint waits again.
    let schema = installation.folder.path().join("schemas/docs-api.cedarschema");
    let text = fs::read_to_string(&schema).unwrap();
    let more = "  @http(\"GET /v1/stats\")\n  action getStats appliesTo { principal: [SecretKey], resource: [Environment], context: Call };\n}";
    fs::write(&schema, format!("{}{more}", text.trim_end().strip_suffix('}').unwrap())).unwrap();
    let digest = running.waits().await;
    assert!(running.report().await["waiting"]["summary"].to_string().contains("GET /v1/stats"));
    assert_eq!(running.order("approve", &digest).await.0, 200);
}

#[tokio::test]
async fn an_edit_of_what_waits_takes_its_place_and_only_what_is_on_disk_can_be_approved() {
    let installation = Installation::new(&["policies.widening = \"confirm\""]);
    let running = installation.start();
    running.in_force().await;
    let edits = ["listWebhooks", "getWebhook"].map(open);
    installation.save(&edits[0]);
    let first = running.waits().await;
    let since = running.report().await["stale_since"].clone();
    installation.save(&edits[1]);
    let second = running.waits().await;
    assert_eq!(running.report().await["stale_since"], since, "since the first of them");
    assert_eq!(running.order("approve", &first).await, (409, json!("revision_not_waiting")));
    // Files that have just changed are not what was looked at, noticed or not.
    installation.save(&edits[0]);
    let (status, code) = running.order("approve", &second).await;
    assert_eq!(status, 409, "{code}");
    assert_eq!(running.waits().await, first);
    assert_eq!(running.order("approve", &second).await, (409, json!("revision_not_waiting")));
    assert_eq!(running.order("approve", &first).await.0, 200);
    assert_eq!(running.in_force().await, first);

    // What is taken back waits no more.
    installation.save(&edits.concat());
    let both = running.waits().await;
    installation.save(&edits[0]);
    running.until(|report| report["waiting"].is_null()).await;
    assert_eq!(running.order("approve", &both).await, (409, json!("revision_not_waiting")));
    assert!(running.report().await["stale_since"].is_null());
    // And what is broken instead is refused.
    installation.save(&edits.concat());
    running.waits().await;
    installation.save("permit (");
    assert!(running.refused().await["waiting"].is_null());
}

#[tokio::test]
async fn files_that_are_changed_while_the_daemon_is_away_pass_the_same_gate() {
    let installation = Installation::new(&["policies.widening = \"confirm\""]);
    let running = installation.start();
    let first = running.in_force().await;
    running.serve.process.stop();
    installation.save(&open("listWebhooks"));
    let running = installation.start();
    let report = running.report().await;
    assert_eq!((&report["active"]["digest"], &report["active"]["source"]), (&json!(first), &json!("store")));
    assert_eq!(report["waiting"]["digest"], json!(installation.digest()));
    running.serve.process.stop();
    installation.save(&stop("a"));
    let running = installation.start();
    assert_eq!(running.report().await["active"]["digest"], json!(installation.digest()));
}

#[tokio::test]
async fn each_answer_says_for_how_long_the_files_are_not_in_force_and_a_refusal_is_told_once() {
    let installation = Installation::new(&[]);
    let mut running = installation.start();
    let (live, _) = running.keys().await;
    running.edited(&stop("a")).await;
    assert_eq!(running.decided(&live, "/v1/resources").await, ("allowed".into(), None));
    assert!(running.metric("keyward_revision_stale_seconds").await == 0.0);
    installation.save("permit (");
    let since = running.refused().await["stale_since"].clone();
    assert!(since.is_string());
    for round in 0..3 {
        // Each surface, as soon as a second has passed.
        let until = Instant::now() + PATIENCE;
        while running.decided(&live, "/v1/resources").await.1.unwrap() == 0 {
            assert!(Instant::now() < until, "time stands still");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let batch = json!({ "items": [{ "token": live, "method": "GET", "path": "/v1/resources" }] });
        let url = format!("{}/v1/authorize/batch", running.serve.decision);
        let batch = running.of.client.post(url).json(&batch).send().await.unwrap();
        for answer in [batch, running.serve.bare_forward().send().await.unwrap()] {
            let seconds: u64 = answer.headers()["x-keyward-policies-stale"].to_str().unwrap().parse().unwrap();
            assert!((1..PATIENCE.as_secs()).contains(&seconds), "{seconds}");
        }
        let report = running.report().await;
        assert_eq!((&report["stale_since"], &report["refused"]["since"]), (&since, &since), "round {round}");
        assert!(report["stale_seconds"].as_u64().unwrap() >= 1);
        assert!(running.metric("keyward_revision_stale_seconds").await >= 1.0);
        assert_eq!(running.ready().await.0, 200);
        assert!(!running.ready().await.1.contains("too old"), "nobody said after what time");
        assert!(running.operator().done(&["policy", "status"]).contains("edit.cedar:1:"));
        // The same files are no news, looked at once more or after a restart.
        match round {
            0 => running.look_again(),
            1 => running = running.restart(),
            _ => {}
        }
    }
    installation.save("permit (principal, action resource);");
    running.until(|report| report["refused"]["diagnostics"].to_string().contains("edit.cedar:1:27")).await;
    assert_eq!(running.report().await["stale_since"], since);
    running.edited(&stop("b")).await;
    assert_eq!(running.decided(&live, "/v1/resources").await, ("allowed".into(), None));
    let report = running.report().await;
    assert!(report["stale_since"].is_null() && report["stale_seconds"].is_null());
    assert!(running.metric("keyward_revision_stale_seconds").await == 0.0);

    let events = running.events().await;
    let refused: Vec<&Value> = events.iter().filter(|event| event["type"] == "policy.refused").collect();
    assert_eq!(refused.len(), 2, "{events:#?}");
    assert!(refused[0]["detail"]["problem"].as_str().unwrap().starts_with("policies/edit.cedar:1:"));
}

/// Waits until `/readyz` says that the policies are too old.
async fn too_old(running: &Running<'_>) {
    let until = Instant::now() + PATIENCE;
    loop {
        let (status, text) = running.ready().await;
        assert_eq!(status, 200, "one typo takes no fleet out of rotation");
        if text.contains("policies too old") {
            return;
        }
        assert!(Instant::now() < until, "never too old");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn after_its_time_a_warning_is_logged_and_nothing_else_changes() {
    let installation = Installation::new(&["policies.stale_after = \"1s\""]);
    let mut running = installation.start();
    let (live, _) = running.keys().await;
    running.in_force().await;
    installation.save("permit (");
    running.refused().await;
    too_old(&running).await;
    running.serve.process.wait_for("longer than policies.stale_after");
    assert_eq!(running.decided(&live, "/v1/resources").await.0, "allowed");
    running.edited(&stop("a")).await;
    assert!(!running.ready().await.1.contains("too old"));
}

#[tokio::test]
async fn after_its_time_live_keys_are_denied_until_the_files_are_mended_or_somebody_rolls_back() {
    let settings = ["policies.stale_after = \"1s\"", "policies.when_stale = \"deny-live\""];
    let installation = Installation::new(&settings);
    let running = installation.start();
    let (live, test) = running.keys().await;
    let first = running.in_force().await;
    let second = running.edited(&stop("a")).await;
    let list = "/v1/resources";
    for rolls_back in [false, true] {
        installation.save("permit (");
        running.refused().await;
        too_old(&running).await;
        let (reason, stale) = running.decided(&live, list).await;
        assert!(reason == "policies_stale" && stale.unwrap() >= 1);
        assert_eq!(running.decided(&test, list).await.0, "allowed");
        let denied = running.serve.bare_forward().bearer_auth(&live).header("x-forwarded-proto", "https");
        let denied = denied.header("x-forwarded-method", "GET").header("x-forwarded-uri", list).send().await.unwrap();
        assert_eq!(
            (denied.status().as_u16(), &denied.headers()["x-keyward-reason"]),
            (403, &"policies_stale".parse().unwrap())
        );
        if rolls_back {
            assert_eq!(running.order("rollback", &first).await.0, 200);
        } else {
            assert_eq!(running.edited(&stop("a")).await, second);
        }
        assert_eq!(running.decided(&live, list).await, ("allowed".into(), None));
        assert!(!running.ready().await.1.contains("too old"));
    }
    // A restart does not begin to count anew.
    installation.save("permit ((");
    running.refused().await;
    too_old(&running).await;
    let running = running.restart();
    assert_eq!(running.decided(&live, list).await.0, "policies_stale");
    running.edited(&stop("b")).await;
    assert_eq!(running.decided(&live, list).await.0, "allowed");
}
