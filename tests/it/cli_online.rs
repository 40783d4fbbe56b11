//! The command line against a running daemon: what it does, prints and answers, and how it ends.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use keyward::key::{Kind, Mint, Mode};
use serde_json::{Value, json};

use crate::harness::{Demo, SelfSigned, client, keyward_fed, keyward_with, self_signed};

/// Whoever sits at the terminal.
pub struct Person<'a> {
    pub url: &'a str,
    pub token: String,
}

impl<'a> Person<'a> {
    pub fn operator(demo: &'a Demo) -> Self {
        Self { url: demo.get("ADMIN_URL"), token: demo.get("ADMIN_TOKEN").to_owned() }
    }

    pub fn run(&self, arguments: &[&str], input: &str) -> (i32, String, String) {
        let variables = [("KEYWARD_URL", self.url), ("KEYWARD_TOKEN", self.token.as_str())];
        keyward_fed(arguments, Path::new("."), &variables, input)
    }

    /// What must succeed; what it printed.
    pub fn done(&self, arguments: &[&str]) -> String {
        self.done_with(arguments, "")
    }

    pub fn done_with(&self, arguments: &[&str], input: &str) -> String {
        let (code, output, error) = self.run(arguments, input);
        assert_eq!((code, error.as_str()), (0, ""), "{arguments:?}: {output}");
        output
    }

    /// The same for scripts.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.done(&[arguments, &["--json"]].concat());
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output}"))
    }

    /// What must fail, saying this and printing nothing.
    pub fn fails(&self, arguments: &[&str], code: i32, said: &[&str]) {
        let (ended, output, error) = self.run(arguments, "");
        assert_eq!((ended, output.as_str()), (code, ""), "{arguments:?}: {error}");
        for part in said {
            assert!(error.contains(part), "{arguments:?}: {part}: {error}");
        }
    }
}

fn string(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("{name}: {value}")).to_owned()
}

pub async fn reason(demo: &Demo, token: &str) -> String {
    let question = json!({ "token": token, "method": "GET", "path": "/v1/resources", "ip": "192.0.2.7" });
    string(&demo.authorize(question).await, "reason")
}

/// The cells of a table's lines, which two spaces or more keep apart.
fn cells(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect()
}

#[tokio::test]
async fn an_account_and_its_keys_live_and_die_from_the_command_line() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let made = operator.done(&["accounts", "create", "日本 Vexart"]);
    assert!(made.contains("shown this once"), "{made}");
    let account = made.split_whitespace().next().unwrap();
    let token = made.split_whitespace().find(|word| word.starts_with("sk_live_")).unwrap();
    assert_eq!(reason(&demo, token).await, "allowed");

    let table = operator.done(&["accounts", "list"]);
    let lines = cells(&table);
    assert_eq!(lines[0], ["ACCOUNT", "STATE", "CREATED (UTC)", "NAME"]);
    assert!(lines.iter().any(|line| line[0] == account && line[1] == "active" && line[3] == "日本 Vexart"), "{table}");
    assert!(operator.done(&["accounts", "rename", account, "Vexart"]).contains("Vexart"));
    assert_eq!(operator.json(&["accounts", "show", account])["name"], "Vexart");

    let create = ["keys", "create", "--account", account, "--kind", "restricted", "--mode", "live", "--name", "Worker"];
    let more = ["--scope", "resources:read", "--address", "192.0.2.0/24", "--note", "nightly", "--rotate-every", "90d"];
    let key = operator.json(&[&create[..], &more].concat());
    let (id, first) = (string(&key, "id"), string(&key, "token"));
    let (id, id_of) = (id.as_str(), |list: &Value| string(&list["items"][0], "id"));
    assert_eq!(reason(&demo, &first).await, "allowed");
    let shown = operator.done(&["keys", "show", id]);
    for part in ["Worker", "nightly", "resources:read", "192.0.2.0/24", "never", "from 192.0.2.7", "90d", "active"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains(&first) && !operator.done(&["keys", "list"]).contains(&first));

    let restricted =
        operator.json(&["keys", "list", "--account", account, "--kind", "restricted", "--state", "active"]);
    assert_eq!((restricted["items"].as_array().unwrap().len(), id_of(&restricted).as_str()), (1, id));
    assert_eq!(cells(&operator.done(&["keys", "list", "--account", account])).len(), 1 + 5);
    assert_eq!(operator.done(&["keys", "list", "--account", account, "--state", "expired"]), "no such keys\n");

    let permissions = operator.done(&["keys", "permissions", id]);
    assert!(cells(&permissions).iter().any(|line| line[0] == "listResources" && line[2] == "allow"), "{permissions}");
    assert!(permissions.contains("forbidden") && permissions.contains("by revision "), "{permissions}");

    let update = ["keys", "update", id, "--name", "Night worker", "--no-note", "--no-rotation", "--no-addresses"];
    let updated = operator.json(&update);
    assert_eq!((&updated["name"], &updated["addresses"]), (&json!("Night worker"), &json!([])));
    assert!(updated.get("note").is_none() && updated.get("rotate_every").is_none(), "{updated}");

    assert!(operator.done(&["keys", "disable", id]).contains("disabled"));
    assert_eq!(reason(&demo, &first).await, "key_disabled");
    operator.done(&["keys", "enable", id]);
    let rotated = operator.done(&["keys", "rotate", id, "--overlap", "1h"]);
    assert!(rotated.contains("The old token works until 2"), "{rotated}");
    let second = rotated.split_whitespace().find(|word| word.starts_with("rk_live_")).unwrap();
    assert_eq!((reason(&demo, &first).await, reason(&demo, second).await), ("allowed".into(), "allowed".into()));
    assert!(operator.done(&["keys", "compromise", id]).contains("compromised"));
    assert_eq!(reason(&demo, second).await, "key_compromised");
    let third = operator.json(&["keys", "rotate", id, "--overlap", "0s"]);
    assert_eq!(reason(&demo, &string(&third, "token")).await, "allowed");
    assert!(operator.done(&["keys", "revoke", id, "--reason", "it left"]).contains("because it left"));
    operator.fails(&["keys", "rotate", id], 6, &["final", "key_revoked", "request "]);

    let events = operator.json(&["events", "list", "--key", id, "--oldest"]);
    let happened: Vec<_> = events["items"].as_array().unwrap().iter().map(|event| string(event, "type")).collect();
    let expected = ["created", "updated", "disabled", "enabled", "rotated", "compromised", "rotated", "revoked"];
    assert_eq!(happened, expected.map(|what| format!("key.{what}")));
    assert_eq!(cells(&operator.done(&["events", "list", "--limit", "3"])).len(), 1 + 3);
    let export = operator.done(&["events", "export"]);
    let exported: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(exported.iter().filter(|event| event["key"] == id).count() == expected.len());

    assert!(operator.done(&["accounts", "close", account]).contains("closed"));
    assert_eq!(reason(&demo, token).await, "key_revoked");
    operator.fails(&create.map(|word| if word == "restricted" { "secret" } else { word }), 6, &["account_closed"]);
}

#[test]
fn people_come_sign_in_and_go() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = id_of_first(&operator.json(&["accounts", "list"]));
    let (first, second) = ("correct horse battery staple", "another horse, another staple");
    let create = ["users", "create", "ada@example.com", "--name", "Ada", "--password"];
    let role = format!("{account}=viewer");
    let made = operator.done_with(&[&create[..], &["--role", &role]].concat(), &format!("{first}\n"));
    assert!(made.contains(&role) && made.contains("ada@example.com"), "{made}");

    // Signing in needs no token, not even a good one, and prints nothing but the token.
    let ada = Person { token: "kw_nobody".into(), ..operator };
    let (code, _, error) = ada.run(&["sign-in", "ada@example.com"], "a wrong password, that is\n");
    assert!(code == 3 && error.contains("wrong") && error.contains("sign_in_failed"), "{code}: {error}");
    let token = ada.done_with(&["sign-in", "ada@example.com"], &format!("{first}\n"));
    let ada = Person { token: token.trim().to_owned(), ..ada };
    assert_eq!(token.lines().count(), 1);
    let me = ada.done(&["whoami"]);
    assert!(me.contains("ada@example.com") && me.contains("Signed in") && me.contains("operator  no"), "{me}");
    assert_eq!(ada.json(&["whoami"])["roles"][&account], "viewer");
    // Lists show what their reader may see.
    operator.done(&["accounts", "create", "Another's"]);
    let keys = operator.json(&["keys", "list", "--account", &account, "--kind", "secret"]);
    assert_eq!(ada.json(&["keys", "list", "--kind", "secret"]), keys);
    assert_eq!(operator.json(&["keys", "list", "--kind", "secret"])["items"].as_array().unwrap().len(), 2 + 2);
    let events = operator.json(&["events", "list", "--account", &account, "--limit", "3"]);
    assert_eq!(ada.json(&["events", "list", "--limit", "3"]), events);
    ada.fails(&["accounts", "create", "Mine"], 4, &["createAccount", "policy_denied"]);
    ada.fails(&["accounts", "close", &account], 4, &["policy_denied"]);
    assert_eq!(cells(&ada.done(&["accounts", "list"])).len(), 1 + 1);

    let operator = Person::operator(&demo);
    let members = operator.done(&["members", "set", &account, "ada@example.com", "owner"]);
    assert!(members.contains("owner"), "{members}");
    assert!(ada.done(&["members", "list", &account]).contains("ada@example.com"));
    operator.fails(&["members", "set", &account, "ada@example.com", "king"], 1, &["role"]);

    let wrong = format!("not the one so far\n{second}\n");
    let (code, _, _) = ada.run(&["users", "set-password", "ada@example.com"], &wrong);
    assert_eq!(code, 3);
    ada.done_with(&["users", "set-password", "ada@example.com"], &format!("{first}\n{second}\n"));
    ada.fails(&["whoami"], 3, &["token_unknown"]);
    let token = ada.done_with(&["sign-in", "ada@example.com", "--json"], &format!("{second}\r\n"));
    let ada = Person { token: string(&serde_json::from_str(&token).unwrap(), "token"), ..ada };

    let made = ada.done(&["users", "create-token", "ada@example.com", "--name", "CI"]);
    assert!(made.contains("shown this once"), "{made}");
    let word = |prefix: &str| made.split_whitespace().find(|word| word.starts_with(prefix)).unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{}\n", word("kw_"))).unwrap();
    let with_file = ["whoami", "--url", ada.url, "--token-file", file.to_str().unwrap()];
    assert_eq!(keyward_with(&with_file, folder.path(), &[("KEYWARD_TOKEN", "kw_another")]).0, 0);
    ada.done(&["users", "delete-token", "ada@example.com", &word("tok_")]);
    assert_eq!(keyward_with(&with_file, folder.path(), &[]).0, 3);

    operator.done(&["members", "remove", &account, "ada@example.com"]);
    assert_eq!(ada.done(&["accounts", "list"]), "no accounts that you may see\n");
    assert!(operator.done(&["users", "update", "ada@example.com", "--active", "false"]).contains("disabled"));
    ada.fails(&["whoami"], 3, &["user_disabled"]);
    assert!(operator.done(&["users", "list"]).contains("ada@example.com"));
    operator.done(&["users", "remove", "ada@example.com"]);
    operator.fails(&["users", "show", "ada@example.com"], 5, &["nobody"]);
    operator.fails(&["users", "remove", "operator@demo.test"], 6, &["last_operator"]);
}

fn id_of_first(list: &Value) -> String {
    string(&list["items"][0], "id")
}

#[tokio::test]
async fn reported_tokens_are_dead_and_told_by_their_beginnings() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let stranger = Mint::new(Kind::Secret, Mode::Live).unwrap();
    let input = format!("{}\n{} {}\nsk_live_what\n", demo.get("SK_LIVE"), demo.get("PK_LIVE"), stranger.expose());
    let told = operator.done_with(&["leaks", "report", "--found-at", "https://example.com/x"], &input);
    let lines = cells(&told);
    let outcomes: Vec<_> = lines[1..].iter().map(|line| line[1]).collect();
    assert_eq!(outcomes, ["marked", "public", "not_ours", "not_ours"], "{told}");
    assert!(lines[1][0].starts_with(&demo.get("SK_LIVE")[..12]), "enough to tell it from others: {told}");
    assert!(!told.contains(&demo.get("SK_LIVE")[24..56]), "{told}");
    assert_eq!(demo.reason("SK_LIVE", "/v1/resources").await, "key_compromised");
    assert_eq!(demo.reason("PK_LIVE", "/v1/resources").await, "allowed");
    let (code, output, _) = operator.run(&["leaks", "report", "--json"], &input);
    let outcome = |at: usize| serde_json::from_str::<Value>(&output).unwrap()["items"][at]["outcome"].clone();
    assert_eq!((code, outcome(0)), (0, json!("known")));
    assert_eq!(operator.done(&["leaks", "report"]), "no tokens were given\n");
}

#[tokio::test]
async fn a_list_is_whole_however_many_pages_it_has() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = id_of_first(&operator.json(&["accounts", "list"]));
    let before = operator.json(&["keys", "list"])["items"].as_array().unwrap().len();
    let (http, url) = (client(), format!("{}/v1/accounts/{account}/keys", operator.url));
    let mut made = tokio::task::JoinSet::new();
    for number in 0..1_001 {
        let body = json!({ "kind": "publishable", "mode": "test", "name": format!("Key {number}") });
        let request = http.post(&url).bearer_auth(&operator.token).json(&body);
        made.spawn(async move { request.send().await.unwrap().status().as_u16() });
    }
    assert!(made.join_all().await.iter().all(|status| *status == 201));
    let list = operator.json(&["keys", "list"]);
    let ids: std::collections::BTreeSet<_> =
        list["items"].as_array().unwrap().iter().map(|key| string(key, "id")).collect();
    assert_eq!(ids.len(), before + 1_001);
    assert!(list.get("next").is_none());
    assert_eq!(operator.done(&["keys", "list", "--account", &account]).lines().count(), 1 + before + 1_001);
    assert_eq!(operator.json(&["events", "list", "--limit", "1001"])["items"].as_array().unwrap().len(), 1_001);
}

#[test]
fn each_way_to_fail_has_its_exit_code_and_says_what_to_do() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let nobody = Person { token: String::new(), ..operator };
    nobody.fails(&["whoami"], 3, &["KEYWARD_TOKEN", "--token-file", "sign-in"]);
    let forged = Person { token: Mint::for_user().unwrap().expose().to_owned(), ..nobody };
    forged.fails(&["accounts", "list"], 3, &["token_unknown", "request "]);
    let key = Person { token: demo.get("SK_LIVE").to_owned(), ..forged };
    key.fails(&["accounts", "list"], 3, &["credentials_malformed"]);

    let operator = Person::operator(&demo);
    operator.fails(&["keys", "show", "key_0000000000000000"], 5, &["no such key"]);
    operator.fails(&["keys", "show", demo.get("SK_LIVE")], 2, &["key_"]);
    operator.fails(&["accounts", "create", ""], 1, &["name", "request_invalid"]);
    operator.fails(&["members", "remove", "acct_0000000000000000", ".."], 5, &[".."]);
    operator.fails(&["keys", "update", "key_0000000000000000"], 2, &["--name"]);
    let account = id_of_first(&operator.json(&["accounts", "list"]));
    let create = ["keys", "create", "--account", &account, "--kind", "restricted", "--mode", "live", "--name", "W"];
    operator.fails(&[&create[..], &["--scope", "resources:admin"]].concat(), 1, &["scopes[0]", "jobs:write"]);
    operator.fails(&["keys", "list", "--mode", "production"], 1, &["mode", "live"]);
    let (_, _, error) = operator.run(&["keys", "show", demo.get("SK_LIVE")], "");
    assert!(!error.contains(demo.get("SK_LIVE")), "a token for an id is not repeated: {error}");

    // Found free and closed again.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let to = |url: &str, more: &[&str], code: i32, said: &[&str]| {
        operator.fails(&[&["whoami", "--url", url], more].concat(), code, said);
    };
    to(&format!("http://{closed}"), &[], 7, &[&closed, "refused", "keyward serve", "KEYWARD_URL"]);
    to(demo.get("DECISION_URL"), &[], 7, &["management API", "admin listener"]);
    to("http://192.0.2.1:8702", &[], 64, &["--insecure", "https"]);
    to("keyward", &[], 64, &["--url"]);
    to("ftp://localhost", &[], 64, &["https://"]);
    to("http://kw_token@localhost", &[], 64, &["KEYWARD_TOKEN"]);
    operator.fails(&["whoami", "--token", "kw_x"], 2, &["--token"]);
}

/// A daemon that does as it is told: hangs up, or answers with these bytes; the requests that it read.
fn scripted(answers: Vec<Option<String>>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = sender.send(whole_request(&mut stream));
            if let Some(answer) = answer {
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    (url, requests)
}

fn whole_request(stream: &mut (impl Read + ?Sized)) -> String {
    let mut read = Vec::new();
    loop {
        let mut part = [0; 4_096];
        let count = stream.read(&mut part).unwrap();
        read.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&read).into_owned();
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
        let length = text
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .map(|rest| rest.split_whitespace().next().unwrap().parse::<usize>().unwrap());
        if count == 0 || body.is_some_and(|body| body >= length.unwrap_or(0)) {
            return text;
        }
    }
}

fn answer(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn made() -> String {
    answer("201 Created", r#"{"id":"x","keys":[]}"#)
}

fn busy(retry_after: u32) -> String {
    let head = format!("503 Service Unavailable\r\nretry-after: {retry_after}");
    answer(&head, r#"{"detail":"too busy","code":"is_busy"}"#)
}

#[test]
fn a_creation_whose_connection_broke_is_asked_for_once_more_under_the_same_key() {
    let header = |request: &str, name: &str| {
        let line = request.lines().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned));
        line.map(|value| value.trim().to_owned())
    };
    let (url, requests) = scripted(vec![None, Some(busy(0)), Some(made())]);
    let person = Person { url: &url, token: "kw_token".into() };
    assert!(person.done(&["accounts", "create", "Vexart"]).starts_with('x'));
    let requests: Vec<String> = requests.iter().collect();
    let keys: Vec<_> = requests.iter().map(|request| header(request, "idempotency-key:")).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys[0].as_ref().is_some_and(|key| key.len() == 32) && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(header(&requests[0], "authorization:").unwrap(), "bearer kw_token");

    // Also when the token was cut off.
    let cut = made().replace("content-length: 20", "content-length: 2000");
    let (url, requests) = scripted(vec![Some(cut), Some(made())]);
    let person = Person { url: &url, token: "kw_token".into() };
    assert!(person.done(&["accounts", "create", "Vexart"]).starts_with('x'));
    let keys: Vec<_> = requests.iter().map(|request| header(&request, "idempotency-key:")).collect();
    assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");

    // Twice is enough, and what is not a creation may have been done.
    for (answers, arguments, sent) in [
        (vec![None, None], &["accounts", "create", "Vexart"][..], 2),
        (vec![None], &["keys", "revoke", "key_0000000000000000"], 1),
    ] {
        let (url, requests) = scripted(answers);
        let person = Person { url: &url, token: "kw_token".into() };
        person.fails(arguments, 7, &["look whether it is done"]);
        assert_eq!(requests.iter().count(), sent, "{arguments:?}");
    }
}

#[test]
fn a_daemon_that_is_busy_is_asked_again_a_few_times_and_not_for_long() {
    for answers in [vec![Some(busy(0)); 4], vec![Some(busy(900))]] {
        let sent = answers.len();
        let (url, requests) = scripted(answers);
        let person = Person { url: &url, token: "kw_token".into() };
        person.fails(&["accounts", "list"], 7, &["too busy", "is_busy"]);
        assert_eq!(requests.iter().count(), sent);
    }
}

#[test]
fn https_is_spoken_with_whom_the_system_trusts_and_no_other() {
    use tokio_rustls::rustls::{ServerConnection, StreamOwned};
    let SelfSigned { config, pem, .. } = self_signed();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let server = std::thread::spawn(move || {
        let mut read = Vec::new();
        for _ in 0..2 {
            let (stream, _): (TcpStream, _) = listener.accept().unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            // A client that does not trust us hangs up in the middle.
            if stream.conn.complete_io(&mut stream.sock).is_ok() {
                read.push(whole_request(&mut stream));
                stream.write_all(made().as_bytes()).unwrap();
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
        read
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, pem).unwrap();
    let other_file = folder.path().join("other.pem");
    std::fs::write(&other_file, self_signed().pem).unwrap();
    let run = |trusted: &Path| {
        let trusted = trusted.to_str().unwrap();
        let variables = [("KEYWARD_URL", url.as_str()), ("KEYWARD_TOKEN", "kw_token"), ("SSL_CERT_FILE", trusted)];
        keyward_with(&["accounts", "create", "Vexart"], folder.path(), &variables)
    };
    let (code, output, error) = run(&other_file);
    assert_eq!((code, output.as_str()), (7, ""), "{error}");
    assert!(error.contains("invalid peer certificate") && error.contains("SSL_CERT_FILE"), "{error}");
    let (code, _, error) = run(&file);
    assert_eq!((code, error.as_str()), (0, ""));
    let read = server.join().unwrap();
    assert_eq!(read.iter().filter(|request| request.contains("kw_token")).count(), 1, "{read:?}");
}
