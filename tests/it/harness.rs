//! Starts real `keyward` processes, finds out where they listen, and stops them.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// The program under test.
pub const KEYWARD: &str = env!("CARGO_BIN_EXE_keyward");
/// How long anything may take before a test gives up. Reached only when something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running process that is killed when the test ends.
pub struct Process {
    child: Child,
    /// What it wrote to standard output and standard error, line by line.
    lines: mpsc::Receiver<String>,
    /// All lines seen so far.
    pub seen: Vec<String>,
}

impl Process {
    /// Starts `keyward` with these arguments and environment variables.
    pub fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_within(Path::new("."), arguments, variables)
    }

    /// The same in another working directory.
    pub fn start_within(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(KEYWARD);
        command.args(arguments).envs(variables.iter().copied()).current_dir(folder).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        for stream in [
            Box::new(child.stdout.take().unwrap()) as Box<dyn std::io::Read + Send>,
            Box::new(child.stderr.take().unwrap()),
        ] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line that holds `text`, and gives it.
    pub fn wait_for(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("never said {text:?} ({error}); it said:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Everything that it has written until now.
    pub fn output(&mut self) -> String {
        self.seen.extend(self.lines.try_iter());
        self.seen.join("\n")
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGTERM; how it ended, and everything that it wrote.
    pub fn stop(self) -> (ExitStatus, String) {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.seen.extend(self.lines.iter());
                return (status, self.seen.join("\n"));
            }
            assert!(Instant::now() < until, "did not end; it said:\n{}", self.output());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `keyward demo` on free ports.
pub struct Demo {
    pub process: Process,
    /// What its environment file says: `SK_LIVE`, `DECISION_URL`, `POLICIES_DIR` and so on.
    pub environment: HashMap<String, String>,
    pub client: Client,
    /// Its data folder; shared when the demo is started again.
    pub folder: Arc<tempfile::TempDir>,
}

impl Demo {
    pub fn start() -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), &[])
    }

    /// With more arguments, for example `["--proxy-style", "x-original"]`.
    pub fn with(arguments: &[&str]) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), arguments)
    }

    /// With environment variables.
    pub fn start_where(variables: &[(&str, &str)]) -> Self {
        Self::start_all(Arc::new(tempfile::tempdir().unwrap()), &[], variables)
    }

    pub fn start_in(folder: Arc<tempfile::TempDir>, arguments: &[&str]) -> Self {
        Self::start_all(folder, arguments, &[])
    }

    fn start_all(folder: Arc<tempfile::TempDir>, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let file = folder.path().join("demo.env");
        let data = folder.path().join("data");
        let mut all = vec!["demo", "--data", data.to_str().unwrap(), "--env-file", file.to_str().unwrap()];
        for flag in ["--decision-addr", "--admin-addr", "--api-addr", "--api-http-addr"] {
            if !arguments.contains(&flag) {
                all.extend([flag, "127.0.0.1:0"]);
            }
        }
        all.extend(arguments);
        let mut process = Process::start(&all, variables);
        process.wait_for("READY");
        let environment = fs::read_to_string(&file).unwrap();
        let parse = |line: &str| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('\'').to_owned()))
        };
        Self { process, environment: environment.lines().filter_map(parse).collect(), client: client(), folder }
    }

    /// A value of the environment file.
    pub fn get(&self, name: &str) -> &str {
        &self.environment[name]
    }

    pub fn policies(&self) -> PathBuf {
        self.get("POLICIES_DIR").into()
    }

    pub fn schemas(&self) -> PathBuf {
        self.get("SCHEMAS_DIR").into()
    }

    /// `POST /v1/authorize`.
    pub async fn authorize(&self, question: Value) -> Value {
        let url = format!("{}/v1/authorize", self.get("DECISION_URL"));
        self.client.post(url).json(&question).send().await.unwrap().json().await.unwrap()
    }

    /// The reason of a decision about a plain GET over HTTPS.
    pub async fn reason(&self, token: &str, path: &str) -> String {
        let question = serde_json::json!({ "token": self.get(token), "method": "GET", "path": path });
        self.authorize(question).await["reason"].as_str().unwrap().to_owned()
    }

    /// A forward-auth question as Traefik sends it; headers may be added.
    pub fn forward(&self, token: &str, method: &str, uri: &str) -> RequestBuilder {
        self.bare_forward()
            .header("authorization", format!("Bearer {}", self.get(token)))
            .header("x-forwarded-method", method)
            .header("x-forwarded-uri", uri)
            .header("x-forwarded-proto", "https")
    }

    /// A forward-auth question without any header.
    pub fn bare_forward(&self) -> RequestBuilder {
        self.client.get(format!("{}/v1/forward-auth", self.get("DECISION_URL")))
    }

    /// `GET /v1/policies` of the admin listener.
    pub async fn report(&self) -> Value {
        let url = format!("{}/v1/policies", self.get("ADMIN_URL"));
        self.client.get(url).send().await.unwrap().json().await.unwrap()
    }

    /// Polls the report until `found` holds of it.
    pub async fn until_report(&self, found: impl Fn(&Value) -> bool) -> Value {
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

    /// The value of a counter's line, which is given whole up to the value; 0 when it is not there.
    pub async fn metric(&self, line: &str) -> u64 {
        let url = format!("{}/metrics", self.get("ADMIN_URL"));
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or(0)
    }

    /// Stops it and starts it again on the same data.
    pub fn restart(self, arguments: &[&str]) -> Self {
        let Self { process, folder, .. } = self;
        let (status, output) = process.stop();
        assert!(status.success(), "{output}");
        Self::start_in(folder, arguments)
    }
}

/// A running `keyward serve` in a folder that `keyward init` made, with one account.
pub struct Serve {
    pub process: Process,
    pub folder: Arc<tempfile::TempDir>,
    pub decision: String,
    pub admin: String,
    /// The account's tokens: publishable and secret, live, then test.
    pub tokens: Vec<String>,
    /// The token of the operator that `keyward init` made.
    pub operator: String,
}

impl Serve {
    /// With these lines of configuration in place of the shipped ones: each `(section, line)`.
    pub fn with(settings: &[&str]) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let (code, made, error) = keyward(&["init", "."], folder.path());
        assert_eq!(code, 0, "{error}");
        let operator = made.split_whitespace().find(|word| word.starts_with("kw_")).unwrap().to_owned();
        configure(folder.path(), settings);
        let (code, output, error) = keyward(&["offline", "accounts", "create", "Vexart"], folder.path());
        assert_eq!(code, 0, "{error}");
        let is_token = |word: &&str| ["pk_", "sk_"].iter().any(|prefix| word.starts_with(prefix));
        let tokens = output.split_whitespace().filter(is_token).map(str::to_owned).collect();
        Self { operator, ..Self::start_in(folder, tokens) }
    }

    /// On a folder that [`configure`] has made ready.
    pub fn start_in(folder: Arc<tempfile::TempDir>, tokens: Vec<String>) -> Self {
        Self { tokens, ..Self::start_where(folder, &[], &[]) }
    }

    /// On a folder as it is, with these flags and environment variables; the log has to be JSON.
    pub fn start_where(folder: Arc<tempfile::TempDir>, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let config = folder.path().join("keyward.toml");
        let arguments: Vec<&str> =
            ["serve", "--config", config.to_str().unwrap()].into_iter().chain(flags.iter().copied()).collect();
        Self::serving(Process::start(&arguments, variables), folder)
    }

    /// On a folder that [`configure`] has made ready, as whoever changes into it would start it.
    pub fn start_within(folder: Arc<tempfile::TempDir>) -> Self {
        Self::serving(Process::start_within(folder.path(), &["serve"], &[]), folder)
    }

    fn serving(mut process: Process, folder: Arc<tempfile::TempDir>) -> Self {
        let line: Value = serde_json::from_str(&process.wait_for("\"message\":\"serving\"")).unwrap();
        let url = |name: &str| format!("http://{}", line[name].as_str().unwrap());
        Self {
            decision: url("decision"),
            admin: url("admin"),
            process,
            folder,
            tokens: vec![],
            operator: String::new(),
        }
    }

    /// A forward-auth question without any header.
    pub fn bare_forward(&self) -> RequestBuilder {
        client().get(format!("{}/v1/forward-auth", self.decision))
    }
}

/// Replaces lines of `keyward.toml`: `section.key = value` each; ports are free ones, the log is JSON.
pub fn configure(folder: &Path, settings: &[&str]) {
    let path = folder.join("keyward.toml");
    let mut config: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    let always = ["decision.addr = \"127.0.0.1:0\"", "admin.addr = \"127.0.0.1:0\"", "log.format = \"json\""];
    for setting in always.iter().chain(settings) {
        let given: toml::Table = setting.parse().unwrap();
        for (section, value) in given {
            match (config.get_mut(&section), value) {
                (Some(toml::Value::Table(held)), toml::Value::Table(more)) => held.extend(more),
                (_, value) => drop(config.insert(section, value)),
            }
        }
    }
    fs::write(path, config.to_string()).unwrap();
}

/// What a server for `localhost` speaks TLS with, and its certificate for clients to trust.
pub struct SelfSigned {
    pub config: Arc<ServerConfig>,
    pub certificate: CertificateDer<'static>,
    pub pem: String,
}

/// A new certificate that nobody trusts yet.
pub fn self_signed() -> SelfSigned {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let (certificate, pem) = (made.cert.der().clone(), made.cert.pem());
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate.clone()], key.into()).unwrap();
    SelfSigned { config: Arc::new(config), certificate, pem }
}

/// A client that keeps connections and heeds no proxy of the environment.
pub fn client() -> Client {
    keyward::outbound::plain().timeout(PATIENCE).build().unwrap()
}

/// Status and reason header of a forward-auth answer.
pub async fn verdict(request: RequestBuilder) -> (u16, String) {
    let response: Response = request.send().await.unwrap();
    let reason = response.headers().get("x-keyward-reason").map_or("", |value| value.to_str().unwrap()).to_owned();
    (response.status().as_u16(), reason)
}

/// Runs `keyward` to its end: exit code, standard output, standard error.
pub fn keyward(arguments: &[&str], folder: &Path) -> (i32, String, String) {
    keyward_with(arguments, folder, &[])
}

/// The same, with environment variables.
pub fn keyward_with(arguments: &[&str], folder: &Path, variables: &[(&str, &str)]) -> (i32, String, String) {
    keyward_fed(arguments, folder, variables, "")
}

/// The same, with something on standard input.
pub fn keyward_fed(
    arguments: &[&str],
    folder: &Path,
    variables: &[(&str, &str)],
    input: &str,
) -> (i32, String, String) {
    let mut command = Command::new(KEYWARD);
    command.args(arguments).envs(variables.iter().copied()).current_dir(folder).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Whoever does not read it may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let pid = rustix::process::Pid::from_child(&child);
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(PATIENCE) else {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        panic!("{arguments:?} never ended");
    };
    let output = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}
