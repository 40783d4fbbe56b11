//! Events sent to a receiver: all of them, in order, signed, whatever happens to the receiver or the daemon.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64ct::{Base64, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use keyward::http::serve::{Limits, Server};
use reqwest::Client;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::harness::{PATIENCE, SelfSigned, Serve, client, configure, keyward, self_signed, verdict};
use crate::manage::Person;

const SECRETS: [&[u8]; 2] = [b"an old secret of the receiver..", b"a new secret of the receiver..."];

/// What came, and what is answered to what comes next; 200 when nothing is said.
#[derive(Default)]
struct Receiver {
    came: Vec<(HeaderMap, Bytes)>,
    answers: Vec<StatusCode>,
}

type Shared = Arc<Mutex<Receiver>>;

async fn receive(State(receiver): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut receiver = receiver.lock().unwrap();
    receiver.came.push((headers, body));
    if receiver.answers.is_empty() { StatusCode::OK } else { receiver.answers.remove(0) }
}

/// A receiver that answers these first, and its address.
async fn receiver(answers: &[StatusCode]) -> (Shared, String) {
    let shared = Shared::default();
    shared.lock().unwrap().answers = answers.to_vec();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/receiver-key-in-path", listener.local_addr().unwrap());
    let router = Router::new().fallback(receive).with_state(Arc::clone(&shared));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (shared, url)
}

/// Waits until so many messages came; their ids and contents.
async fn until(shared: &Shared, count: usize) -> Vec<(String, Value)> {
    let until = Instant::now() + PATIENCE;
    loop {
        let came: Vec<_> = shared.lock().unwrap().came.clone();
        if came.len() >= count {
            return came.iter().map(|(headers, body)| checked(headers, body)).collect();
        }
        assert!(Instant::now() < until, "{} of {count} came", came.len());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// The id and the content of a message whose signatures are good, as a receiver checks them.
fn checked(headers: &HeaderMap, body: &[u8]) -> (String, Value) {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let sent: i64 = timestamp.parse().unwrap();
    assert!((jiff::Timestamp::now().as_second() - sent).abs() < 300, "{sent}");
    let signatures = SECRETS.map(|secret| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", Base64::encode_string(&mac.finalize().into_bytes()))
    });
    assert_eq!(header("webhook-signature"), signatures.join(" "));
    assert_eq!(header("content-type"), "application/json");
    let body: Value = serde_json::from_slice(body).unwrap();
    assert_eq!((&body["data"]["id"], &body["data"]["type"]), (&json!(id), &body["type"]));
    (id, body)
}

struct Installation {
    folder: Arc<tempfile::TempDir>,
    token: String,
}

impl Installation {
    fn new(url: &str, settings: &[&str]) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let (code, output, error) = keyward(&["init", "."], folder.path());
        assert_eq!(code, 0, "{error}");
        let token = output.split_whitespace().find(|word| word.starts_with("kw_")).unwrap().to_owned();
        let secrets = SECRETS.map(|secret| format!("whsec_{}\n", Base64::encode_string(secret)));
        std::fs::write(folder.path().join("webhook.secret"), secrets.concat()).unwrap();
        let installation = Self { folder, token };
        installation.configure(url, settings);
        installation
    }

    fn configure(&self, url: &str, settings: &[&str]) {
        let url = format!("webhook.url = \"{url}\"");
        let always = [url.as_str(), "webhook.secret_file = \"webhook.secret\""];
        configure(self.folder.path(), &[&always, settings].concat());
    }

    fn start(&self) -> Serve {
        Serve::start_in(Arc::clone(&self.folder), vec![])
    }

    async fn create_account(&self, serve: &Serve, client: &Client, name: &str) {
        let url = format!("{}/v1/accounts", serve.admin);
        let made = client.post(url).bearer_auth(&self.token).json(&json!({ "name": name })).send().await.unwrap();
        assert_eq!(made.status(), 201);
    }
}

fn of_type<'a>(messages: &'a [(String, Value)], name: &str) -> Vec<&'a Value> {
    messages.iter().map(|(_, message)| message).filter(|message| message["type"] == name).collect()
}

#[tokio::test]
async fn a_receiver_has_every_event_in_order_although_it_fails_and_the_daemon_is_killed() {
    let busy = StatusCode::SERVICE_UNAVAILABLE;
    let (shared, url) = receiver(&[busy, StatusCode::FOUND]).await;
    let installation = Installation::new(&url, &[]);
    let serve = installation.start();
    installation.create_account(&serve, &client(), "first").await;
    // The event of the account and of its four keys; the first was sent three times.
    let came = until(&shared, 7).await;
    assert!(came[0] == came[1] && came[1] == came[2], "{came:#?}");
    assert_eq!(of_type(&came[2..], "account.created").len(), 1, "and nothing of what was before the webhook");
    assert_eq!(of_type(&came[2..], "key.created").len(), 4);

    // Nobody is there; the daemon is killed meanwhile, and makes up for it.
    shared.lock().unwrap().answers = vec![busy; 1_000];
    installation.create_account(&serve, &client(), "second").await;
    until(&shared, 8).await;
    serve.process.signal(rustix::process::Signal::KILL);
    serve.process.wait();
    shared.lock().unwrap().answers = vec![];
    let serve = installation.start();
    installation.create_account(&serve, &client(), "third").await;
    let expected = 3 * 5;
    let until_all = Instant::now() + PATIENCE;
    let distinct = loop {
        let mut came = until(&shared, 8).await;
        came.dedup_by_key(|(id, _)| id.clone());
        let mut ids: Vec<_> = came.iter().map(|(id, _)| id.clone()).collect();
        ids.sort();
        ids.dedup();
        if ids.len() == expected {
            break came;
        }
        assert!(Instant::now() < until_all && ids.len() < expected, "{ids:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    let last = distinct.windows(2).filter(|pair| pair[0].0 > pair[1].0).count();
    assert!(last <= 1, "in order, but for what is sent again after the crash");
    assert_eq!(
        of_type(&distinct, "account.created").iter().filter(|m| m["data"]["actor"]["type"] == "user").count(),
        3
    );

    let (status, log) = serve.process.stop();
    assert!(status.success());
    assert!(!log.contains("receiver-key-in-path") && !log.contains("whsec_"), "{log}");
}

#[tokio::test]
async fn what_is_wanted_is_sent_a_redirect_is_not_followed_and_what_is_too_old_is_given_up() {
    let (shared, url) = receiver(&[]).await;
    let elsewhere = [StatusCode::PERMANENT_REDIRECT];
    shared.lock().unwrap().answers = elsewhere.to_vec();
    let settings = ["webhook.events = [\"account.created\"]", "webhook.give_up_after_secs = 0"];
    let installation = Installation::new(&url, &settings);
    let mut serve = installation.start();
    installation.create_account(&serve, &client(), "lost").await;
    serve.process.wait_for("too old to go on trying");
    installation.create_account(&serve, &client(), "kept").await;
    let came = until(&shared, 2).await;
    let types: Vec<_> = came.iter().map(|(_, message)| message["type"].clone()).collect();
    assert_eq!(types, ["account.created", "account.created"]);
    assert_ne!(came[0].0, came[1].0);
    let text = client().get(format!("{}/metrics", serve.admin)).send().await.unwrap().text().await.unwrap();
    for line in [r#"keyward_webhook_total{result="given_up"} 1"#, r#"keyward_webhook_total{result="failed"} 1"#] {
        assert!(text.contains(line), "{text}");
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_is_in_nobodys_way_and_does_not_delay_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let installation = Installation::new(&url, &["webhook.timeout_secs = 600"]);
    let serve = installation.start();
    installation.create_account(&serve, &client(), "first").await;
    let (_held, _) = listener.accept().await.unwrap();
    installation.create_account(&serve, &client(), "second").await;
    let question = json!({ "token": "sk_live_nobody", "method": "GET", "path": "/v1/resources" });
    for _ in 0..100 {
        let answer = client().post(format!("{}/v1/authorize", serve.decision)).json(&question).send().await.unwrap();
        assert_eq!(answer.json::<Value>().await.unwrap()["reason"], "credentials_malformed");
    }
    let (status, log) = serve.process.stop();
    assert!(status.success() && log.contains("ended"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_is_spoken_to_over_https_and_only_when_it_is_who_it_says() {
    let SelfSigned { config, pem, .. } = self_signed();
    let shared = Shared::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let router = Router::new().fallback(receive).with_state(Arc::clone(&shared));
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let server = Server::new(router, Limits::default()).tls(TlsAcceptor::from(config));
    tokio::spawn(server.run(listener, stopped, PATIENCE));
    let installation = Installation::new(&url, &[]);
    let certificates = installation.folder.path().join("trusted.pem");
    for (certificate, is_trusted) in [(self_signed().pem, false), (pem, true)] {
        std::fs::write(&certificates, certificate).unwrap();
        let variables = [("SSL_CERT_FILE", certificates.to_str().unwrap())];
        let mut serve = Serve::start_where(Arc::clone(&installation.folder), &[], &variables);
        if is_trusted {
            until(&shared, 5).await;
        } else {
            installation.create_account(&serve, &client(), "Vexart").await;
            let said = serve.process.wait_for("did not take an event");
            assert!(said.contains("certificate"), "{said}");
            assert_eq!(shared.lock().unwrap().came.len(), 0);
        }
        assert!(serve.process.stop().0.success());
    }
}

#[tokio::test]
async fn a_key_over_plain_http_is_told_of_on_disk_in_the_trail_in_the_figures_and_to_the_receiver() {
    for (when_exposed, state, detail) in [("revoke", "compromised", Value::Null), ("flag", "active", json!("true"))] {
        let (shared, url) = receiver(&[]).await;
        let exposed = format!("decision.when_exposed = \"{when_exposed}\"");
        let settings = ["webhook.events = [\"key.compromised\"]", exposed.as_str()];
        let installation = Installation::new(&url, &settings);
        let serve = installation.start();
        let person = Person { client: client(), url: serve.admin.clone(), token: Some(installation.token.clone()) };
        let made = person.done("POST", "/v1/accounts", json!({ "name": "Vexart" })).await;
        let (key, first) = person.key(made["id"].as_str().unwrap(), "secret", "live").await;
        let path = format!("/v1/keys/{key}");
        let call = async |token: &str, scheme: &str| {
            let call = serve.bare_forward().bearer_auth(token).header("x-forwarded-proto", scheme);
            let call = call.header("x-forwarded-for", "192.0.2.7").header("x-forwarded-method", "GET");
            verdict(call.header("x-forwarded-uri", "/v1/resources")).await.1
        };
        let events = async || person.done("GET", &format!("{path}/events?order=oldest"), Value::Null).await;
        let figure = async |name: &str| {
            let text = client().get(format!("{}/metrics", serve.admin)).send().await.unwrap().text().await.unwrap();
            text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned)).unwrap().trim().to_owned()
        };
        let counted = format!("keyward_keys{{state=\"{}\"}}", if state == "active" { "flagged" } else { state });
        assert_eq!(figure(&counted).await, "0");
        let after = if state == "active" { "allowed" } else { "key_compromised" };
        for _ in 0..2 {
            let said = call(&first, "http").await;
            assert!(said == "transport_insecure" || said == after, "{said}");
        }
        assert_eq!(call(&first, "https").await, after);
        let told = events().await;
        assert_eq!(told["items"].as_array().unwrap().len(), 2, "it is told once: {told}");
        let event = &told["items"][1];
        assert_eq!((&event["type"], &event["actor"]["type"]), (&json!("key.compromised"), &json!("call")));
        assert_eq!((&event["address"], &event["detail"]["how"]), (&json!("192.0.2.7"), &json!("sent over plain HTTP")));
        assert_eq!(event["detail"]["still_works"], detail);
        assert_eq!(figure(&counted).await, "1");
        let came = until(&shared, 1).await;
        assert_eq!((came.len(), &came[0].1["data"]), (1, event));
        assert_eq!(person.done("GET", &path, Value::Null).await["state"], state);

        // A new token was seen by nobody, until it is.
        let rotated = person.done("POST", &format!("{path}/rotate"), json!({ "overlap": "0s" })).await;
        let second = rotated["token"].as_str().unwrap();
        assert_eq!((figure(&counted).await.as_str(), rotated.get("flagged_at")), ("0", None));
        assert_eq!(call(second, "https").await, "allowed");
        call(second, "http").await;
        assert_eq!(call(second, "https").await, after);
        let told = events().await;
        assert_eq!(told["items"].as_array().unwrap().len(), 4, "{told}");
        until(&shared, 2).await;

        let (status, _) = serve.process.stop();
        assert!(status.success());
        let serve = installation.start();
        let person = Person { url: serve.admin.clone(), ..person };
        let found = person.done("GET", &path, Value::Null).await;
        let field = if state == "active" { "flagged_at" } else { "compromised_at" };
        assert!(found["state"] == state && found[field].is_string(), "it is on disk: {found}");
    }
}

#[tokio::test]
async fn rotations_that_are_due_are_told_once_and_for_all_restarts() {
    let (shared, url) = receiver(&[]).await;
    let settings = ["webhook.events = [\"key.rotation_due\", \"key.rotation_overdue\", \"account.renamed\"]"];
    let installation = Installation::new(&url, &settings);
    let serve = installation.start();
    installation.create_account(&serve, &client(), "Vexart").await;
    let (client, token) = (client(), &installation.token);
    let ask = |method: reqwest::Method, path: String| {
        client.request(method, format!("{}{path}", serve.admin)).bearer_auth(token)
    };
    let get =
        async |path: &str| ask(reqwest::Method::GET, path.into()).send().await.unwrap().json::<Value>().await.unwrap();
    let account = get("/v1/accounts").await["items"][0]["id"].as_str().unwrap().to_owned();
    let keys = get(&format!("/v1/accounts/{account}/keys")).await;
    let key = keys["items"][0]["id"].as_str().unwrap().to_owned();
    let change = ask(reqwest::Method::PATCH, format!("/v1/keys/{key}")).json(&json!({ "rotate_every": "5d" }));
    assert_eq!(change.send().await.unwrap().status(), 200);
    // A daemon looks when it starts, and each minute.
    let mut serve = serve;
    for name in ["second", "third"] {
        let (status, log) = serve.process.stop();
        assert!(status.success(), "{log}");
        serve = installation.start();
        let url = format!("{}/v1/accounts/{account}", serve.admin);
        let renamed = client.patch(url).bearer_auth(token).json(&json!({ "name": name })).send().await.unwrap();
        assert_eq!(renamed.status(), 200);
    }
    let came = until(&shared, 3).await;
    let due = of_type(&came, "key.rotation_due");
    assert_eq!((due.len(), came.len()), (1, 3), "{came:#?}");
    assert_eq!((&due[0]["data"]["key"], &due[0]["data"]["actor"]["type"]), (&json!(key), &json!("daemon")));
    assert!(due[0]["data"]["detail"]["due_at"].is_string());
}

#[test]
fn a_webhook_that_cannot_work_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, error) = keyward(&["init", "."], folder.path());
    assert_eq!(code, 0, "{error}");
    std::fs::write(folder.path().join("bad.secret"), "whsec_c2VjcmV0\n").unwrap();
    let file = folder.path().join("keyward.toml");
    let shipped = std::fs::read_to_string(&file).unwrap();
    for (settings, code, said) in [
        (&["webhook.url = \"http://192.0.2.1/secret-path\""][..], 64, "https"),
        (&["webhook.url = \"https://hooks.example.com/secret-path\""], 64, "webhook.secret_file"),
        (&["webhook.url = \"https://me:pass@hooks.example.com/\""], 64, "user and password"),
        (&["webhook.events = [\"key.stolen\"]"], 64, "key.compromised"),
        (&["webhook.url = \"https://hooks.example.com/\"", "webhook.secret_file = \"none\""], 64, "none"),
        (&["webhook.url = \"https://hooks.example.com/\"", "webhook.secret_file = \"bad.secret\""], 64, "line 1"),
    ] {
        std::fs::write(&file, &shipped).unwrap();
        configure(folder.path(), settings);
        let (got, _, error) = keyward(&["serve"], folder.path());
        assert_eq!(got, code, "{settings:?}: {error}");
        assert!(error.contains(said) && !error.contains("secret-path") && !error.contains("pass@"), "{error}");
    }
}
