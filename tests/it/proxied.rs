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
