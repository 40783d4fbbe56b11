//! `examples/nginx` as it is shipped, but for its addresses: Debian's nginx before the demo's API, or before an
//! API that tells what reached it.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use serde_json::{Value, json};

use crate::harness::{Demo, PATIENCE};

const IDENTITY: [&str; 6] = [
    "x-keyward-account",
    "x-keyward-environment",
    "x-keyward-mode",
    "x-keyward-key",
    "x-keyward-kind",
    "x-keyward-scopes",
];

/// What nginx passes allowed calls to.
enum Upstream {
    /// The demo's own API, over TLS.
    Demo,
    /// A plain HTTP server of the test.
    Plain(SocketAddr),
}

struct Nginx {
    child: Child,
    folder: tempfile::TempDir,
    tls: u16,
    plain: u16,
}

impl Nginx {
    fn start(demo: &Demo, upstream: &Upstream) -> Self {
        let mut folder = tempfile::tempdir().unwrap();
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.path().join("api.pem"), certificate.cert.pem()).unwrap();
        fs::write(folder.path().join("api.key"), certificate.signing_key.serialize_pem()).unwrap();
        fs::copy(demo.get("CA_FILE"), folder.path().join("docs-api.pem")).unwrap();
        // Another process may take a free port before nginx does; then others are tried.
        for _ in 0..10 {
            let [tls, plain] = free_ports();
            render(folder.path(), demo, upstream, tls, plain);
            let child = Command::new("nginx")
                .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
                .args(["-p", folder.path().to_str().unwrap(), "-c"])
                .arg(folder.path().join("nginx.conf"))
                .stdin(Stdio::null())
                .stderr(fs::File::create(folder.path().join("stderr")).unwrap())
                .spawn()
                .expect("nginx is needed: tests/run installs it");
            let mut nginx = Self { child, folder, tls, plain };
            if nginx.comes_up() {
                return nginx;
            }
            let said = nginx.said();
            assert!(said.contains("Address already in use"), "nginx ended: {said}");
            folder = std::mem::replace(&mut nginx.folder, tempfile::tempdir().unwrap());
        }
        panic!("no free port in ten attempts");
    }

    /// Whether it accepts connections; false when it has ended instead.
    fn comes_up(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", self.tls)).is_ok() {
                return true;
            }
            assert!(Instant::now() < until, "nginx never listened: {}", self.said());
            std::thread::park_timeout(Duration::from_millis(5));
        }
        false
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    fn tls(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.tls)
    }

    /// Makes a call with curl, whose further arguments may add to it.
    async fn call(&self, url: &str, token: Option<&str>, arguments: &[&str]) -> Answer {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--include", "--path-as-is", "--noproxy", "*", "--max-time", "20"]);
        curl.arg("--cacert").arg(self.folder.path().join("api.pem"));
        if let Some(token) = token {
            curl.args(["--header", &format!("Authorization: Bearer {token}")]);
        }
        curl.args(arguments).arg(url);
        // Off the runtime, which may be serving the upstream.
        let output = tokio::task::spawn_blocking(move || curl.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        Answer::parse(&String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, because a killed master leaves its workers behind.
        if let Ok(None) = self.child.try_wait() {
            let pid = rustix::process::Pid::from_child(&self.child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn free_ports() -> [u16; 2] {
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// The example with other addresses. Each of them must be there to be replaced.
fn render(folder: &Path, demo: &Demo, upstream: &Upstream, tls: u16, plain: u16) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nginx");
    fs::copy(example.join("nginx.conf"), folder.join("nginx.conf")).unwrap();
    let mut text = fs::read_to_string(example.join("keyward.conf")).unwrap();
    let (api, scheme) = match upstream {
        Upstream::Demo => (demo.get("API_URL").replace("https://localhost", "127.0.0.1"), "https"),
        Upstream::Plain(address) => (address.to_string(), "http"),
    };
    for (shipped, here) in [
        ("server 127.0.0.1:8700;", format!("server {};", demo.get("DECISION_URL").trim_start_matches("http://"))),
        ("server 127.0.0.1:8743;", format!("server {api};")),
        ("listen 8080;", format!("listen 127.0.0.1:{plain};")),
        ("listen 8443 ssl;", format!("listen 127.0.0.1:{tls} ssl;")),
        ("proxy_pass https://docs_api;", format!("proxy_pass {scheme}://docs_api;")),
    ] {
        assert_eq!(text.matches(shipped).count(), 1, "{shipped}");
        text = text.replace(shipped, &here);
    }
    fs::write(folder.join("keyward.conf"), text).unwrap();
}

struct Answer {
    status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        // An interim answer (100 Continue) stands before the real one.
        if head.starts_with("HTTP/1.1 100") {
            return Self::parse(body);
        }
        let (line, fields) = head.split_once("\r\n").unwrap();
        let field = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Self {
            status: line.split(' ').nth(1).unwrap().parse().unwrap(),
            headers: fields.split("\r\n").filter_map(field).collect(),
            body: body.to_owned(),
        }
    }

    /// All values of a header.
    fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Asserts a denial in the form that the example promises.
    fn is_denied(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.all("x-keyward-reason")), (status, vec![code]), "{}", self.body);
        assert_eq!(self.all("content-type"), ["application/problem+json"]);
        assert_eq!(self.all("cache-control"), ["no-store"]);
        let document = self.json();
        assert_eq!((&document["status"], &document["code"]), (&json!(status), &json!(code)));
        assert_eq!(self.all("x-request-id"), [document["request_id"].as_str().unwrap()]);
    }
}

/// An API that answers each call with what reached it, and counts the calls.
async fn echo() -> (Upstream, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let answer = move |request: Request| {
        // One task after the other asks for the count: nothing else is ordered by it.
        counted.fetch_add(1, Ordering::Relaxed);
        let field = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
            json!([name.as_str(), value.to_str().unwrap_or_default()])
        };
        let headers: Vec<Value> = request.headers().iter().map(field).collect();
        let told = json!({ "uri": request.uri().to_string(), "method": request.method().as_str(), "headers": headers });
        async move { axum::Json(told) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    (Upstream::Plain(address), count)
}

/// The values of a header that reached the echo.
fn reached<'a>(told: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = told["headers"].as_array().unwrap().iter();
    headers.filter(|field| field[0] == name).map(|field| field[1].as_str().unwrap()).collect()
}

fn demo() -> Demo {
    Demo::with(&["--proxy-style", "x-original"])
}

#[tokio::test]
async fn the_customers_calls_are_answered_through_nginx() {
    let demo = demo();
    let nginx = Nginx::start(&demo, &Upstream::Demo);
    let create = ["--data", r#"{"name":"First"}"#];
    let call = async |token: &str, path: &str, arguments: &[&str]| {
        nginx.call(&nginx.tls(path), Some(demo.get(token)), arguments).await
    };
    let created = call("SK_LIVE", "/v1/resources", &create).await;
    assert_eq!((created.status, &created.json()["name"]), (201, &json!("First")));
    let item = format!("/v1/resources/{}", created.json()["id"].as_str().unwrap());
    for (token, count) in [("SK_LIVE", 1), ("PK_LIVE", 1), ("RK_LIVE", 1), ("SK_TEST", 0), ("PK_TEST", 0)] {
        let list = call(token, "/v1/resources", &[]).await;
        assert_eq!((list.status, list.json()["data"].as_array().unwrap().len()), (200, count), "{token}");
    }
    assert_eq!(call("RK_LIVE", &item, &[]).await.json(), created.json());
    assert_eq!(call("SK_TEST", &item, &[]).await.status, 404, "test keys see no live data");
    call("PK_LIVE", "/v1/resources", &create).await.is_denied(403, "policy_denied");
    call("SK_LIVE", "/v1/secrets.html", &[]).await.is_denied(403, "no_route");
    assert_eq!(call("SK_LIVE", &item, &["--request", "DELETE"]).await.status, 200);

    let refused = call("RK_LIVE", "/v1/resources", &create).await;
    refused.is_denied(403, "scope_missing");
    let challenge = r#"Bearer realm="api", error="insufficient_scope", scope="resources:write""#;
    assert_eq!(refused.all("www-authenticate"), [challenge]);
    let anonymous = nginx.call(&nginx.tls("/v1/resources"), None, &[]).await;
    anonymous.is_denied(401, "credentials_missing");
    assert_eq!(anonymous.all("www-authenticate"), [r#"Bearer realm="api""#]);
    let wrong = nginx.call(&nginx.tls("/v1/resources"), Some("sk_live_4eC39Hq"), &[]).await;
    wrong.is_denied(401, "credentials_malformed");
    assert_eq!(wrong.all("www-authenticate"), [r#"Bearer realm="api", error="invalid_token""#]);
}

#[tokio::test]
async fn no_identity_header_of_the_client_reaches_the_api() {
    let demo = demo();
    let (upstream, _) = echo().await;
    let nginx = Nginx::start(&demo, &upstream);
    let names = IDENTITY.iter().chain(&["x-keyward-reason", "x-keyward-revision", "x-request-id", "x-forwarded-for"]);
    let smuggled: Vec<String> = names
        .flat_map(|name| [format!("{name}: evil"), format!("{}: evil", name.replace('-', "_").to_uppercase())])
        .collect();
    let arguments: Vec<&str> = smuggled.iter().flat_map(|line| ["--header", line]).collect();

    let url = nginx.tls("/v1/resources");
    let told = nginx.call(&url, Some(demo.get("RK_LIVE")), &arguments).await.json();
    assert!(!told.to_string().contains("evil"), "{told:#}");
    let answer =
        demo.authorize(json!({ "token": demo.get("RK_LIVE"), "method": "GET", "path": "/v1/resources" })).await;
    for name in IDENTITY {
        let decided = match name {
            "x-keyward-scopes" => "resources:read",
            _ => answer[name.trim_start_matches("x-keyward-")].as_str().unwrap(),
        };
        assert_eq!(reached(&told, name), [decided], "{name}");
    }
    assert_eq!(reached(&told, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(reached(&told, "x-forwarded-proto"), ["https"]);

    // A caller without an identity has none: what the client calls itself is taken away.
    let secret = nginx.call(&url, Some(demo.get("SK_LIVE")), &arguments).await.json();
    assert!(reached(&secret, "x-keyward-scopes").is_empty() && !secret.to_string().contains("evil"), "{secret:#}");
    // Of a route that no shipped example keeps from the public.
    let public = r#"@id("public-list") permit (principal == DocsApi::Anonymous::"anonymous",
        action == DocsApi::Action::"listWebhooks", resource) when { context.secure };"#;
    fs::write(demo.policies().join("public.cedar"), public).unwrap();
    demo.until_report(|report| report["policies"].to_string().contains("public-list")).await;
    let told = nginx.call(&nginx.tls("/v1/webhooks"), None, &arguments).await.json();
    assert!(IDENTITY.iter().all(|name| reached(&told, name).is_empty()), "{told:#}");
    assert!(!told.to_string().contains("evil"), "{told:#}");
}

#[tokio::test]
async fn what_is_decided_on_is_what_the_api_reads_and_the_client_cannot_say_otherwise() {
    let demo = demo();
    let (upstream, passed) = echo().await;
    let nginx = Nginx::start(&demo, &upstream);
    let token = Some(demo.get("RK_LIVE"));
    for path in ["/v1/resources", "/v1/resources/res%5F1?x=%2F&y=..", "/v1/%72esources", "/v1/resources?next=/admin"] {
        let answer = nginx.call(&nginx.tls(path), token, &[]).await;
        assert_eq!((answer.status, &answer.json()["uri"]), (200, &json!(path)), "{}", answer.body);
    }
    let allowed = passed.load(Ordering::Relaxed);
    for (path, code) in [
        ("/admin", "no_route"),
        ("//admin", "no_route"),
        ("/%61dmin", "no_route"),
        ("/admin?x=/v1/resources", "no_route"),
        ("/v1/resources/../../admin", "no_route"),
        ("/v1/resources/%2e%2e/%2E%2e/admin", "no_route"),
        ("/v1/resources/a%2fb", "path_ambiguous"),
        ("/v1/resources/a%5cb", "path_ambiguous"),
        ("/v1/resources/a;b", "path_ambiguous"),
    ] {
        let answer = nginx.call(&nginx.tls(path), token, &[]).await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.body);
        assert!([code, "path_ambiguous"].contains(&answer.json()["code"].as_str().unwrap()), "{path}: {}", answer.body);
    }
    for smuggled in [
        "X-Original-URI: /v1/resources",
        "X-Original-URL: https://localhost/v1/resources",
        "X_Original_URI: /v1/resources",
        "X.Original.URI: /v1/resources",
        "X-Forwarded-Uri: /v1/resources",
    ] {
        let answer = nginx.call(&nginx.tls("/admin"), token, &["--header", smuggled]).await;
        answer.is_denied(403, "no_route");
    }
    for smuggled in ["X-Original-Method: GET", "X-HTTP-Method-Override: GET", "X-Forwarded-Method: GET"] {
        let answer = nginx.call(&nginx.tls("/v1/resources"), token, &["--data", "{}", "--header", smuggled]).await;
        answer.is_denied(403, "scope_missing");
    }
    // Some releases of nginx refuse a doubled header themselves, with 400.
    let doubled = format!("Authorization: Bearer {}", demo.get("SK_LIVE"));
    let answer = nginx.call(&nginx.tls("/v1/resources"), token, &["--header", &doubled]).await;
    assert!([400, 401].contains(&answer.status), "{}", answer.body);
    assert_eq!(nginx.call(&nginx.tls("/_keyward"), token, &[]).await.status, 404);
    assert_eq!(passed.load(Ordering::Relaxed), allowed, "none of these reached the API");
}

#[tokio::test]
async fn a_key_over_plain_http_is_dead_on_either_port() {
    let demo = demo();
    let (upstream, passed) = echo().await;
    let nginx = Nginx::start(&demo, &upstream);
    for (token, port, after) in [
        ("PK_LIVE", nginx.plain, "allowed"),
        ("PK_TEST", nginx.tls, "allowed"),
        ("SK_TEST", nginx.plain, "key_compromised"),
        ("RK_LIVE", nginx.tls, "key_compromised"),
    ] {
        let url = format!("http://localhost:{port}/v1/resources");
        let lie = ["--header", "X-Forwarded-Proto: https"];
        nginx.call(&url, Some(demo.get(token)), &lie).await.is_denied(403, "transport_insecure");
        assert_eq!(demo.reason(token, "/v1/resources").await, after, "{token}");
    }
    assert_eq!(passed.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn without_a_decision_nothing_is_served() {
    let demo = demo();
    let (upstream, passed) = echo().await;
    let nginx = Nginx::start(&demo, &upstream);
    let token = demo.get("SK_LIVE").to_owned();
    assert_eq!(nginx.call(&nginx.tls("/v1/resources"), Some(&token), &[]).await.status, 200);
    let (status, said) = demo.process.stop();
    assert!(status.success(), "{said}");
    let answer = nginx.call(&nginx.tls("/v1/resources"), Some(&token), &[]).await;
    assert_eq!((answer.status, answer.all("retry-after")), (503, vec!["1"]));
    assert_eq!(answer.json()["code"], "authorization_unavailable");
    assert_eq!(passed.load(Ordering::Relaxed), 1);
}
