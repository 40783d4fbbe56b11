//! Every sentence of the customers' page that a client can try: by curl, Python's requests and Node's fetch.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;

use serde_json::Value;

use crate::harness::{Demo, PATIENCE};

/// A program that makes calls: a line in is a call, a line out its answer.
struct Caller {
    child: Child,
    input: Option<ChildStdin>,
    answers: mpsc::Receiver<String>,
}

impl Caller {
    fn start(program: &str, script: &str, demo: &Demo) -> Self {
        let mut child = Command::new(program)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script))
            .env("CA_FILE", demo.get("CA_FILE"))
            .env("NODE_EXTRA_CA_CERTS", demo.get("CA_FILE"))
            .env("NO_PROXY", "*")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
        let (sender, answers) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { input: child.stdin.take(), child, answers }
    }

    fn call(&mut self, method: &str, url: &str, authorization: Option<&str>, body: Option<&str>) -> (u16, Value) {
        let line = format!("{method}\t{url}\t{}\t{}\n", authorization.unwrap_or("-"), body.unwrap_or("-"));
        self.input.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        let answer = self.answers.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{method} {url}: {error}"));
        let (status, body) = answer.split_once('\t').unwrap();
        let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{method} {url}: {error}: {body}"));
        (status.parse().unwrap(), body)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn make_the_pages_calls(program: &str, script: &str) {
    let demo = Demo::start();
    let mut caller = Caller::start(program, script, &demo);
    let api = demo.get("API_URL");
    let bearer = |name: &str| format!("Bearer {}", demo.get(name));
    let mut call = |token: &str, line: &str, body: Option<&str>| {
        let (method, path) = line.split_once(' ').unwrap();
        caller.call(method, &format!("{api}{path}"), Some(&bearer(token)), body)
    };
    let name = Some(r#"{"name":"First"}"#);
    let hook = Some(r#"{"url":"https://example.com/hook"}"#);

    // Secret: full access. Live and test data are apart.
    let (status, made) = call("SK_LIVE", "POST /v1/resources", name);
    assert_eq!((status, &made["name"]), (201, &Value::from("First")));
    let item = format!("/v1/resources/{}", made["id"].as_str().unwrap());
    for (token, count) in [("SK_LIVE", 1), ("PK_LIVE", 1), ("RK_LIVE", 1), ("SK_TEST", 0), ("PK_TEST", 0)] {
        let (status, list) = call(token, "GET /v1/resources", None);
        assert_eq!((status, list["data"].as_array().map(Vec::len)), (200, Some(count)), "{token}");
    }
    for (token, line, body, expected) in [
        ("SK_TEST", format!("GET {item}"), None, 404),
        ("SK_TEST", format!("DELETE {item}"), None, 404),
        ("SK_LIVE", format!("PATCH {item}"), Some(r#"{"name":"Second"}"#), 200),
        // Publishable: read-only.
        ("PK_LIVE", format!("GET {item}"), None, 200),
        ("PK_LIVE", "POST /v1/resources".into(), name, 403),
        ("PK_LIVE", format!("PATCH {item}"), name, 403),
        ("PK_LIVE", format!("DELETE {item}"), None, 403),
        ("PK_LIVE", "POST /v1/jobs".into(), name, 403),
        // Restricted, with resources:read: list and retrieve resources, and nothing else.
        ("RK_LIVE", format!("GET {item}"), None, 200),
        ("RK_LIVE", "POST /v1/resources".into(), name, 403),
        ("RK_LIVE", format!("PATCH {item}"), name, 403),
        ("RK_LIVE", format!("DELETE {item}"), None, 403),
        ("RK_LIVE", "POST /v1/jobs".into(), name, 403),
        ("RK_LIVE", "GET /v1/jobs".into(), None, 403),
        ("RK_LIVE", "GET /v1/webhooks".into(), None, 403),
        ("RK_LIVE", "POST /v1/webhooks".into(), hook, 403),
    ] {
        let (status, answer) = call(token, &line, body);
        assert_eq!(status, expected, "{token} {line}: {answer}");
    }
    let (_, read) = call("RK_LIVE", &format!("GET {item}"), None);
    assert_eq!(read["name"], "Second", "nothing that was refused was done");
    let (_, refused) = call("RK_LIVE", "POST /v1/resources", name);
    assert_eq!(refused["code"], "scope_missing");
    assert!(refused.to_string().contains("resources:write"), "{refused}");

    let (status, job) = call("SK_LIVE", "POST /v1/jobs", Some(r#"{"task":"export"}"#));
    assert_eq!(status, 202, "{job}");
    let (status, job) = call("SK_LIVE", &format!("POST /v1/jobs/{}/cancel", job["id"].as_str().unwrap()), None);
    assert_eq!(status, 200, "{job}");
    let (status, made) = call("SK_LIVE", "POST /v1/webhooks", hook);
    assert_eq!(status, 201, "{made}");
    let webhook = format!("/v1/webhooks/{}", made["id"].as_str().unwrap());
    for line in [format!("GET {webhook}"), "GET /v1/webhooks".into(), format!("DELETE {webhook}")] {
        assert_eq!(call("SK_LIVE", &line, None).0, 200, "{line}");
    }
    assert_eq!(call("SK_LIVE", &format!("DELETE {item}"), None).0, 200);
    assert_eq!(call("SK_LIVE", &format!("GET {item}"), None).0, 404);

    // Without a valid key: 401.
    let resources = format!("{api}/v1/resources");
    let secret = demo.get("SK_LIVE").to_owned();
    let (head, last) = secret.split_at(secret.len() - 1);
    let almost = format!("Bearer {head}{}", if last == "0" { "1" } else { "0" });
    for authorization in [None, Some("Bearer sk_live_4eC39Hq..."), Some(&almost), Some(&secret), Some("Bearer ")] {
        let (status, answer) = caller.call("GET", &resources, authorization, None);
        assert_eq!(status, 401, "{answer}");
    }

    // Over plain HTTP a call fails, and the key is compromised from then on.
    let insecure = format!("{}/v1/resources", demo.get("API_HTTP_URL"));
    for (token, after) in [("SK_TEST", 401), ("RK_LIVE", 401), ("PK_LIVE", 200)] {
        let (status, answer) = caller.call("GET", &insecure, Some(&bearer(token)), None);
        assert_eq!((status, &answer["code"]), (403, &Value::from("transport_insecure")), "{token}");
        assert_eq!(caller.call("GET", &resources, Some(&bearer(token)), None).0, after, "{token}");
    }
}

#[test]
fn curl_gets_what_the_customers_page_says() {
    make_the_pages_calls("bash", "curl.sh");
}

#[test]
fn pythons_requests_gets_what_the_customers_page_says() {
    make_the_pages_calls("python3", "client.py");
}

#[test]
fn nodes_fetch_gets_what_the_customers_page_says() {
    make_the_pages_calls("node", "client.mjs");
}
