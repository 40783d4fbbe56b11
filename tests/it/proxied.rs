//! A real proxy before the demo's API, or before an API that tells what reached it: what tests of each example need.

use std::fs;
use std::io::{Read as _, Write as _};
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

/// The headers that say whose key it is.
pub const IDENTITY: [&str; 6] = [
    "x-keyward-account",
    "x-keyward-environment",
    "x-keyward-mode",
    "x-keyward-key",
    "x-keyward-kind",
    "x-keyward-scopes",
];

/// What a proxy passes allowed calls to.
pub enum Upstream {
    /// The demo's own API, over TLS.
    Demo,
    /// A plain HTTP server of the test.
    Plain(SocketAddr),
}

impl Upstream {
    /// Where it is, for a demo, and its scheme.
    pub fn address(&self, demo: &Demo) -> (String, &'static str) {
        match self {
            Self::Demo => (demo.get("API_URL").replace("https://localhost", "127.0.0.1"), "https"),
            Self::Plain(address) => (address.to_string(), "http"),
        }
    }
}

/// An example with other texts in place of the shipped ones, each of which must be there to be replaced.
pub fn rewritten(example: &str, texts: &[(&str, String)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example);
    let mut text = fs::read_to_string(path).unwrap();
    for (shipped, here) in texts {
        assert_eq!(text.matches(shipped).count(), 1, "{shipped}");
        text = text.replace(shipped, here);
    }
    text
}

/// A running proxy with the addresses of its example replaced.
pub struct Proxy {
    child: Child,
    folder: tempfile::TempDir,
    pub tls: u16,
    pub plain: u16,
}

impl Proxy {
    /// Starts what `command` makes of a folder into which `render` has written the configuration for two ports, the one for
    /// TLS first. The certificates that examples name are there.
    pub fn start(demo: &Demo, render: impl Fn(&Path, [u16; 2]), command: impl Fn(&Path) -> Command) -> Self {
        let mut folder = tempfile::tempdir().unwrap();
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.path().join("api.pem"), certificate.cert.pem()).unwrap();
        fs::write(folder.path().join("api.key"), certificate.signing_key.serialize_pem()).unwrap();
        let both = certificate.cert.pem() + &certificate.signing_key.serialize_pem();
        fs::write(folder.path().join("api.both.pem"), both).unwrap();
        fs::copy(demo.get("CA_FILE"), folder.path().join("docs-api.pem")).unwrap();
        // Another process may take a free port before the proxy does; then others are tried.
        for _ in 0..10 {
            let [tls, plain] = free_ports();
            render(folder.path(), [tls, plain]);
            let mut command = command(folder.path());
            let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
            command.env("PATH", path).current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(fs::File::create(folder.path().join("stderr")).unwrap());
            let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"));
            let mut proxy = Self { child, folder, tls, plain };
            if proxy.comes_up() {
                return proxy;
            }
            let said = proxy.said();
            assert!(said.to_lowercase().contains("address already in use"), "the proxy ended: {said}");
            folder = std::mem::replace(&mut proxy.folder, tempfile::tempdir().unwrap());
        }
        panic!("no free port in ten attempts");
    }

    /// Whether it accepts connections; false when it has ended instead.
    fn comes_up(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            if [self.tls, self.plain].iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()) {
                return true;
            }
            assert!(Instant::now() < until, "the proxy never listened: {}", self.said());
            std::thread::park_timeout(Duration::from_millis(5));
        }
        false
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    /// The URL of a path over TLS.
    pub fn tls(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.tls)
    }

    /// Makes a call with curl, whose further arguments may add to it.
    pub async fn call(&self, url: &str, token: Option<&str>, arguments: &[&str]) -> Answer {
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

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM, because nginx' master, when it is killed, leaves its workers behind.
        if let Ok(None) = self.child.try_wait() {
            let pid = rustix::process::Pid::from_child(&self.child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let until = Instant::now() + PATIENCE;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > until {
                let _ = self.child.kill();
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

fn free_ports() -> [u16; 2] {
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// What a client was answered.
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub body: String,
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
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Asserts a denial in the form that every example promises.
    pub fn is_denied(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.all("x-keyward-reason")), (status, vec![code]), "{}", self.body);
        assert_eq!(self.all("content-type"), ["application/problem+json"]);
        assert_eq!(self.all("cache-control"), ["no-store"]);
        let document = self.json();
        assert_eq!((&document["status"], &document["code"]), (&json!(status), &json!(code)));
        assert_eq!(self.all("x-request-id"), [document["request_id"].as_str().unwrap()]);
    }
}

/// What is answered to these very bytes.
pub fn raw(port: u16, request: &str) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    Answer::parse(&answer)
}

/// An API that answers each call with what reached it, and counts the calls.
pub async fn echo() -> (Upstream, Arc<AtomicUsize>) {
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
pub fn reached<'a>(told: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = told["headers"].as_array().unwrap().iter();
    headers.filter(|field| field[0] == name).map(|field| field[1].as_str().unwrap()).collect()
}

/// Tries the calls of the customers' page before the demo's API, and each kind of refusal.
pub async fn answers_the_customers_calls(proxy: &Proxy, demo: &Demo) {
    let create = ["--data", r#"{"name":"First"}"#];
    let call = async |token: &str, path: &str, arguments: &[&str]| {
        proxy.call(&proxy.tls(path), Some(demo.get(token)), arguments).await
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
    let anonymous = proxy.call(&proxy.tls("/v1/resources"), None, &[]).await;
    anonymous.is_denied(401, "credentials_missing");
    assert_eq!(anonymous.all("www-authenticate"), [r#"Bearer realm="api""#]);
    let wrong = proxy.call(&proxy.tls("/v1/resources"), Some("sk_live_4eC39Hq"), &[]).await;
    wrong.is_denied(401, "credentials_malformed");
    assert_eq!(wrong.all("www-authenticate"), [r#"Bearer realm="api", error="invalid_token""#]);
}

/// Calls an API that tells what reached it, with every name of ours in the client's own spelling, and with `more`: options of
/// curl, and header fields whose value is `evil`.
pub async fn replaces_what_the_client_calls_itself(proxy: &Proxy, demo: &Demo, more: &[&str]) {
    let ours = ["x-keyward-reason", "x-keyward-revision", "x-keyward-policies-stale"];
    let ours = IDENTITY.iter().chain(&ours).flat_map(|name| {
        [name.to_uppercase(), name.replace('-', "_"), name.replacen('-', "_", 1)].map(|name| format!("{name}: evil"))
    });
    let theirs = ["X-Request-Id: evil", "X-Forwarded-For: evil", "X-Forwarded-Proto: evil"].map(str::to_owned);
    // Would take away what Keyward says, if the proxy did as it is told.
    let hop = format!("Connection: {}", IDENTITY.join(", "));
    let (options, fields): (Vec<&str>, Vec<&str>) = more.iter().partition(|given| given.starts_with("--"));
    let smuggled: Vec<String> = ours.chain(theirs).chain([hop]).chain(fields.into_iter().map(str::to_owned)).collect();
    let arguments = smuggled.iter().flat_map(|line| ["--header", line]).chain(options);
    let arguments: Vec<&str> = arguments.collect();

    let url = proxy.tls("/v1/resources");
    let told = proxy.call(&url, Some(demo.get("RK_LIVE")), &arguments).await.json();
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
    assert_eq!(reached(&told, "x-request-id").len(), 1);
    assert_eq!(reached(&told, "x-keyward-policies-stale").concat(), "", "{told:#}");

    // A caller without an identity has none: what the client calls itself is taken away.
    let secret = proxy.call(&url, Some(demo.get("SK_LIVE")), &arguments).await.json();
    assert_eq!(reached(&secret, "x-keyward-scopes").concat(), "");
    assert!(!secret.to_string().contains("evil"), "{secret:#}");
    // Of a route that no shipped example keeps from the public.
    let public = r#"@id("public-list") permit (principal == DocsApi::Anonymous::"anonymous",
        action == DocsApi::Action::"listWebhooks", resource) when { context.secure };"#;
    fs::write(demo.policies().join("public.cedar"), public).unwrap();
    demo.until_report(|report| report["policies"].to_string().contains("public-list")).await;
    let told = proxy.call(&proxy.tls("/v1/webhooks"), None, &arguments).await.json();
    assert!(IDENTITY.iter().all(|name| reached(&told, name).concat().is_empty()), "{told:#}");
    assert!(!told.to_string().contains("evil"), "{told:#}");
}

/// Calls an API that tells what reached it: the bytes that were decided on, and nothing that the client states beside them.
pub async fn has_decided_what_the_api_reads(proxy: &Proxy, demo: &Demo, passed: &AtomicUsize) {
    let token = Some(demo.get("RK_LIVE"));
    for path in ["/v1/resources", "/v1/resources/res%5F1?x=%2F&y=..", "/v1/%72esources", "/v1/resources?next=/admin"] {
        let answer = proxy.call(&proxy.tls(path), token, &[]).await;
        assert_eq!((answer.status, &answer.json()["uri"]), (200, &json!(path)), "{}", answer.body);
    }
    let answer = proxy.call(&proxy.tls("/v1/resources"), Some(demo.get("SK_LIVE")), &["--data", "{}"]).await;
    assert_eq!(answer.json()["method"], "POST");
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
        ("/v1/resources/a%23b", "path_ambiguous"),
        ("/v1/resources/a;b", "path_ambiguous"),
    ] {
        let answer = proxy.call(&proxy.tls(path), token, &[]).await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.body);
        assert!([code, "path_ambiguous"].contains(&answer.json()["code"].as_str().unwrap()), "{path}: {}", answer.body);
    }
    for smuggled in [
        "X-Original-URI: /v1/resources",
        "X-Original-URL: https://localhost/v1/resources",
        "X_Original_URI: /v1/resources",
        "X.Original.URI: /v1/resources",
        "X-Forwarded-Uri: /v1/resources",
        "X_Forwarded_Uri: /v1/resources",
        "X.Forwarded.Uri: /v1/resources",
        "Connection: X-Forwarded-Uri, X-Forwarded-Method, X-Forwarded-Proto, X-Original-URI, X-Original-Method",
    ] {
        let answer = proxy.call(&proxy.tls("/admin"), token, &["--header", smuggled]).await;
        answer.is_denied(403, "no_route");
    }
    for smuggled in ["X-Original-Method: GET", "X-HTTP-Method-Override: GET", "X-Forwarded-Method: GET"] {
        let answer = proxy.call(&proxy.tls("/v1/resources"), token, &["--data", "{}", "--header", smuggled]).await;
        answer.is_denied(403, "scope_missing");
    }
    assert_eq!(passed.load(Ordering::Relaxed), allowed, "none of these reached the API");
}

/// Sends keys to the port for plain HTTP, and asks what has become of them.
pub async fn tells_of_keys_over_plain_http(proxy: &Proxy, demo: &Demo, passed: &AtomicUsize) {
    let url = format!("http://localhost:{}/v1/resources", proxy.plain);
    for (token, arguments, after) in [
        ("PK_LIVE", &[][..], "allowed"),
        ("SK_TEST", &["--header", "X-Forwarded-Proto: https"], "key_compromised"),
        ("RK_LIVE", &["--header", "Connection: authorization, x-forwarded-proto"], "key_compromised"),
        ("SK_LIVE", &["--data", "{}", "--header", "Host: other.example"], "key_compromised"),
    ] {
        proxy.call(&url, Some(demo.get(token)), arguments).await.is_denied(403, "transport_insecure");
        assert_eq!(demo.reason(token, "/v1/resources").await, after, "{token}");
    }
    assert_eq!(passed.load(Ordering::Relaxed), 0);
}

/// Stops the demo between two calls; what the second is answered, which does not reach the API.
pub async fn serves_nothing_without_a_decision(proxy: &Proxy, demo: Demo, passed: &AtomicUsize) -> Answer {
    let token = demo.get("SK_LIVE").to_owned();
    assert_eq!(proxy.call(&proxy.tls("/v1/resources"), Some(&token), &[]).await.status, 200);
    let (status, said) = demo.process.stop();
    assert!(status.success(), "{said}");
    let answer = proxy.call(&proxy.tls("/v1/resources"), Some(&token), &[]).await;
    assert_eq!(passed.load(Ordering::Relaxed), 1);
    answer
}

/// A denial is Keyward's own, whole.
pub async fn passes_denials_on(proxy: &Proxy, demo: &Demo) {
    let call =
        async |arguments: &[&str]| proxy.call(&proxy.tls("/v1/resources"), Some(demo.get("RK_LIVE")), arguments).await;
    assert_eq!(call(&["--data", "{}"]).await.json()["missing_scopes"], json!(["resources:write"]));
    let doubled = format!("Authorization: Bearer {}", demo.get("SK_LIVE"));
    call(&["--header", &doubled]).await.is_denied(401, "credentials_malformed");
}
