//! `keyward explain`: why a call is decided as it is. A running daemon is asked, or files that nobody serves yet.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::files::Files;
use super::online::Online;
use super::terminal::{Ink, escaped, ink, password, text};
use super::{COMMAND_LINE, Failure, id, told};
use crate::authorize::credentials::Credentials;
use crate::authorize::explain::explain;
use crate::authorize::suppose::Supposed;
use crate::authorize::{Call, Caller, RequestLine, Stated, Transport};
use crate::http::manage::explain::Told;
use crate::key::{AccountId, EnvironmentId, KeyId, Kind, Mode, Scope, masked};
use crate::policy::Revision;

/// Characters of the shortest word that is taken for the name of a decision or a request.
const SHORTEST_NAME: usize = 16;

/// Say why a call is decided as it is: each step, which policies decide, what their conditions saw, and what would help
///
/// Without a key, the call has no credentials. Nothing comes of it: no use is noted, and no token is marked.
#[derive(Args)]
pub(super) struct Explain {
    /// Method and path, for example `DELETE /v1/resources/res_1`; or the id of a recorded decision or its request
    #[arg(required = true, num_args = 1..=2, value_names = ["METHOD", "PATH"])]
    request: Vec<String>,
    /// The id of the key that makes the call: `key_…`
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// A file with the token that the call is made with; `-` asks for it, or reads a line of standard input
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    key_token_file: Option<PathBuf>,
    /// Suppose a key of this kind: publishable, secret or restricted
    #[arg(long, value_name = "KIND", conflicts_with_all = ["key", "key_token_file"], requires = "mode")]
    kind: Option<Kind>,
    /// The mode of a supposed key: live or test
    #[arg(long, requires = "kind")]
    mode: Option<Mode>,
    /// A scope of a supposed restricted key; may be given several times
    #[arg(long = "scope", value_name = "SCOPE", requires = "kind")]
    scopes: Vec<String>,
    /// Suppose that the call comes from this address
    #[arg(long, value_name = "ADDR")]
    ip: Option<IpAddr>,
    /// Suppose that it travels over plain HTTP
    #[arg(long)]
    http: bool,
    /// The item that it is about, where that is not what the path says
    #[arg(long, value_name = "ID")]
    item: Option<String>,
    /// The environment that this is in: `live` or `test` of the key's account, or another one, `acct_…/live`
    #[arg(long, value_name = "ENV")]
    environment: Option<String>,
    /// Suppose that it is made at this time, for example 2027-01-31T08:00:00Z
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Ask the files in this folder, its schemas/ and policies/, and no daemon; a key can only be supposed
    #[arg(long, value_name = "DIR", conflicts_with_all = ["key", "key_token_file"])]
    policies: Option<PathBuf>,
    #[command(flatten)]
    online: Online,
}

pub(super) fn run(given: &Explain) -> Result<(), Failure> {
    if let Some(decision) = given.decision() {
        let told = given.online.client()?.get(&["decisions", decision, "explanation"], &[])?;
        return given.online.tell(&told, |told| read_out(told, ink()));
    }
    let (method, path) = given.line()?;
    let told = match &given.policies {
        Some(folder) => given.of_files(folder, method, path)?,
        None => {
            let body = given.body(&method, &path)?;
            given.online.client()?.ask(&["explain"], &body)?
        }
    };
    given.online.tell(&told, |told| read_out(told, ink()))
}

impl Explain {
    /// The one word that names a recorded decision, where nothing is supposed.
    fn decision(&self) -> Option<&str> {
        let [word] = self.request.as_slice() else { return None };
        // Longer than a method whose path was forgotten; and a token, which a URL must never have, is none.
        let is_name = word.len() >= SHORTEST_NAME
            && word.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
            && masked(word) == *word;
        (is_name && self.key.is_none() && self.kind.is_none() && self.policies.is_none()).then_some(word)
    }

    fn line(&self) -> Result<(String, String), Failure> {
        let words = match self.request.as_slice() {
            [both] => both.split_once(' '),
            [method, path] => Some((method.as_str(), path.as_str())),
            _ => None,
        };
        let line = words.filter(|(method, path)| !method.is_empty() && path.starts_with('/'));
        line.map(|(method, path)| (method.to_owned(), path.to_owned())).ok_or_else(|| {
            let given = escaped(&masked(&self.request.join(" ")));
            let say = "give a method and a path, for example 'DELETE /v1/resources/res_1'";
            Failure::of(COMMAND_LINE, format!("{say}; this is `{given}`"))
        })
    }

    /// What the daemon is asked.
    fn body(&self, method: &str, path: &str) -> Result<Value, Failure> {
        let suppose =
            self.kind.zip(self.mode).map(|(kind, mode)| json!({ "kind": kind, "mode": mode, "scopes": self.scopes }));
        let resource = json!({ "id": self.item, "environment": self.environment });
        let is_stated = self.item.is_some() || self.environment.is_some();
        let fields = [
            ("method", Some(json!(method))),
            ("path", Some(json!(path))),
            ("key", self.key.as_deref().map(id::<KeyId>).transpose()?.map(Value::String)),
            ("token", self.token()?.map(|token| Value::String(token.to_string()))),
            ("suppose", suppose),
            ("scheme", self.http.then(|| json!("http"))),
            ("ip", self.ip.map(|ip| json!(ip))),
            ("resource", is_stated.then_some(resource)),
            ("at", self.at.map(|at| json!(at))),
        ];
        let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Ok(Value::Object(given.collect::<Map<_, _>>()))
    }

    fn token(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        let Some(file) = &self.key_token_file else { return Ok(None) };
        if file.as_os_str() == "-" {
            return password("The key's token").map(Some);
        }
        let read = std::fs::read_to_string(file).map(Zeroizing::new);
        let read = read.map_err(|error| {
            let name = masked(&file.display().to_string()).into_owned();
            Failure::new(format!("{name}: {error}; a token is never an argument: name a file that holds it, or `-`"))
        });
        read.map(|text| Some(Zeroizing::new(text.trim().to_owned())))
    }

    /// The same answer as a daemon's, made of files.
    fn of_files(&self, folder: &Path, method: String, path: String) -> Result<Value, Failure> {
        let environment = self.environment.as_deref().map(environment).transpose()?;
        let (now, kind_and_mode) = (self.at.unwrap_or_else(Timestamp::now), self.kind.zip(self.mode));
        let (scopes, address, item) = (self.scopes.clone(), self.ip, self.item.clone());
        let transport = if self.http { Transport::Insecure } else { Transport::Secure };
        Files::below(folder).work_on(move |_, revision| {
            let caller = match kind_and_mode {
                None => Caller::Anonymous,
                Some((kind, mode)) => supposed(revision, kind, mode, &scopes, now)?,
            };
            let call = Call {
                credentials: Credentials::None,
                transport,
                address,
                line: Some(RequestLine { method: &method, target: &path }),
                stated: Stated { item: item.as_deref(), environment },
            };
            Ok(serde_json::to_value(Told::of(explain(&call, &caller, revision, now), None))?)
        })
    }
}

fn supposed(revision: &Revision, kind: Kind, mode: Mode, scopes: &[String], now: Timestamp) -> Result<Caller, Failure> {
    let known = &revision.model().scopes;
    if let Some(unknown) = scopes.iter().find(|scope| !known.iter().any(|known| **known == ***scope)) {
        let say = format!("--scope {unknown}: the schema has {}", known.join(", "));
        return Err(Failure::of(COMMAND_LINE, say));
    }
    let scopes = scopes.iter().map(|scope| Scope::from(scope.as_str())).collect();
    let caller = Supposed { account: AccountId::EXAMPLE, kind, mode, scopes }.caller(now);
    caller.map_err(|error| Failure::of(COMMAND_LINE, error.to_string()))
}

/// An environment of the supposed key's account, or another one.
fn environment(written: &str) -> Result<EnvironmentId, Failure> {
    let own = || Some(EnvironmentId { account: AccountId::EXAMPLE, mode: written.parse().ok()? });
    let say = "--environment: give live or test, or acct_…/live";
    written.parse().ok().or_else(own).ok_or_else(|| Failure::of(COMMAND_LINE, say))
}

/// An answer as a person reads it.
fn read_out(told: &Value, ink: Ink) -> String {
    let decision = text(told, "/verdict/decision");
    let shown = if decision == "allow" { ink.good(&decision) } else { ink.bad(&decision) };
    let mut out = format!(
        "{shown}  {} {}\n  {}\n\nThe way to it\n{}",
        text(told, "/verdict/status"),
        text(told, "/verdict/reason"),
        escaped(&text(told, "/verdict/message")),
        told::steps(told, ink)
    );
    let policies = told::policies(told, ink);
    if !policies.is_empty() {
        let others = match text(told, "/others").as_str() {
            "0" => String::new(),
            "1" => "; one other cannot apply to such a call".to_owned(),
            others => format!("; {others} others cannot apply to such a call"),
        };
        out += &format!("\nPolicies in play{others}\n{policies}");
    }
    let near = told::near_misses(told, ink);
    if !near.is_empty() {
        out += &format!("\nPermits that one part kept from applying\n{near}");
    }
    let scopes = text(told, "/verdict/missing_scopes");
    if !scopes.is_empty() {
        out += &format!("\nScopes, one of which would be enough: {}\n", ink.strong(&escaped(&scopes)));
    }
    let revision: String = text(told, "/verdict/revision").chars().take(12).collect();
    out + &format!("\nBy revision {revision}\n")
}
