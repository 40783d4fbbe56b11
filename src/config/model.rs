//! The configuration's shape and its defaults. Field names are the keys of the file; `keyward.toml` beside this
//! file explains them to those who run the daemon, and a test keeps the two together.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize};

use crate::duration;
use crate::key::{Ceiling, Cost};

/// Everything that can be configured, complete: what nobody set has its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of the store.
    pub data_dir: PathBuf,
    /// Folder of the `*.cedarschema` files.
    pub schemas_dir: PathBuf,
    /// Folder of the `*.cedar` files.
    pub policies_dir: PathBuf,
    /// Seconds that requests in flight have to finish after SIGTERM.
    pub shutdown_deadline_secs: u64,
    /// The decision listener.
    pub decision: Decision,
    /// The admin listener.
    pub admin: Admin,
    /// What each listener lets its clients do.
    pub limits: Limits,
    /// Costs of hashing.
    pub argon2: Argon2,
    /// The daemon's own log.
    pub log: Log,
    /// The log of decisions.
    pub decision_log: DecisionLog,
    /// The decisions that are kept in memory.
    pub recorded: Recorded,
    /// When keys were used last.
    pub last_used: LastUsed,
    /// Reminders that keys should be rotated.
    pub rotation: Rotation,
    /// Who is told of events.
    pub webhook: Webhook,
    /// How edits of policies are noticed.
    pub reload: Reload,
    /// How policies come into force.
    pub policies: Policies,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "data".into(),
            schemas_dir: "schemas".into(),
            policies_dir: "policies".into(),
            shutdown_deadline_secs: 10,
            decision: Decision::default(),
            admin: Admin::default(),
            limits: Limits::default(),
            argon2: Argon2::default(),
            log: Log::default(),
            decision_log: DecisionLog::default(),
            recorded: Recorded::default(),
            last_used: LastUsed::default(),
            rotation: Rotation::default(),
            webhook: Webhook::default(),
            reload: Reload::default(),
            policies: Policies::default(),
        }
    }
}

impl Config {
    /// How long a shutdown may take.
    pub fn shutdown_deadline(&self) -> Duration {
        Duration::from_secs(self.shutdown_deadline_secs)
    }
}

/// Where proxies and services ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decision {
    /// Address to listen on.
    pub addr: SocketAddr,
    /// Peers whose statements about the original request are believed. A bare address is a network of one.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Believe every peer, whatever the list says.
    pub trust_any_peer: bool,
    /// Which headers hold the original request.
    pub proxy_style: ProxyStyle,
    /// The realm of `WWW-Authenticate` (RFC 9110, section 11.5).
    pub realm: String,
    /// What becomes of a secret or restricted key that comes over plain HTTP.
    pub when_exposed: WhenExposed,
}

impl Default for Decision {
    fn default() -> Self {
        Self {
            addr: loopback(8700),
            trusted_proxies: vec![
                IpNet::from(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            ],
            trust_any_peer: false,
            proxy_style: ProxyStyle::XForwarded,
            realm: "api".into(),
            when_exposed: WhenExposed::Revoke,
        }
    }
}

impl Decision {
    /// Whether this peer's statements about the original request are believed. An IPv4 address that an IPv6
    /// listener shows as `::ffff:a.b.c.d` is the IPv4 address.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trust_any_peer || self.trusted_proxies.iter().any(|network| network.contains(&peer))
    }
}

/// What becomes of a secret or restricted key that comes over plain HTTP. The call is refused in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenExposed {
    /// Its secret is dead from then on.
    Revoke,
    /// It is noted and told, and goes on working.
    Flag,
}

/// Which family of headers a proxy uses to state the original request. One alone is read, the others are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyStyle {
    /// `X-Forwarded-Method`, `-Uri`, `-Proto`, `-For`: Traefik, Caddy, APISIX.
    XForwarded,
    /// `X-Original-Method`, `X-Original-URI` and `X-Forwarded-Proto`: nginx.
    XOriginal,
    /// The start line itself, below our path prefix: Envoy's HTTP `ext_authz`.
    Envoy,
}

/// Where accounts, keys and people are managed, and where metrics and the state of the policies are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address to listen on.
    pub addr: SocketAddr,
    /// Let `addr` be one that other machines can reach.
    pub allow_remote: bool,
    /// Proxies that are believed when they state for whom they call. A bare address is a network of one.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Names under which it may be asked for, besides addresses and `localhost`.
    pub hosts: Vec<String>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { addr: loopback(8702), allow_remote: false, trusted_proxies: Vec::new(), hosts: Vec::new() }
    }
}

/// What each listener lets its clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Milliseconds for a request's line and headers.
    pub header_timeout_ms: u64,
    /// Bytes of a request's line and headers together.
    pub header_bytes: usize,
    /// Bytes of the body of a JSON request.
    pub body_bytes: usize,
    /// Milliseconds from a request's headers to its answer.
    pub request_timeout_ms: u64,
    /// Milliseconds that a kept-alive connection may wait for a request.
    pub idle_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_timeout_ms: 5_000,
            header_bytes: 32 * 1024,
            body_bytes: 1024 * 1024,
            request_timeout_ms: 30_000,
            idle_timeout_ms: 75_000,
        }
    }
}

/// Costs of Argon2id: of new hashes, and the most that a stored one may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Argon2 {
    /// Memory of a new hash, KiB.
    pub memory_kib: u32,
    /// Passes of a new hash.
    pub iterations: u32,
    /// Lanes of a new hash.
    pub parallelism: u32,
    /// Checks at a time; one per processor when not set.
    pub max_running: Option<usize>,
    /// Checks that may wait.
    pub queue: usize,
    /// Most memory of a stored hash, KiB.
    pub most_memory_kib: u32,
    /// Most passes of a stored hash.
    pub most_iterations: u32,
    /// Most lanes of a stored hash.
    pub most_parallelism: u32,
}

impl Default for Argon2 {
    fn default() -> Self {
        let (cost, Ceiling(most)) = (Cost::default(), Ceiling::default());
        Self {
            memory_kib: cost.memory_kib,
            iterations: cost.iterations,
            parallelism: cost.parallelism,
            max_running: None,
            queue: 64,
            most_memory_kib: most.memory_kib,
            most_iterations: most.iterations,
            most_parallelism: most.parallelism,
        }
    }
}

impl Argon2 {
    /// What a new hash costs.
    pub fn cost(&self) -> Cost {
        Cost { memory_kib: self.memory_kib, iterations: self.iterations, parallelism: self.parallelism }
    }

    /// The most that a stored hash may cost.
    pub fn ceiling(&self) -> Ceiling {
        Ceiling(Cost {
            memory_kib: self.most_memory_kib,
            iterations: self.most_iterations,
            parallelism: self.most_parallelism,
        })
    }

    /// Checks at a time.
    pub fn running(&self) -> usize {
        self.max_running.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

/// The daemon's own log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A level, or directives as `tracing-subscriber` reads them.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

/// How a line of the daemon's own log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The log of decisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecisionLog {
    /// File to append to; no log without one.
    pub path: Option<PathBuf>,
    /// Lines that may wait for the disk.
    pub capacity: usize,
    /// What happens to a decision whose line finds no room.
    pub when_full: WhenFull,
}

impl Default for DecisionLog {
    fn default() -> Self {
        Self { path: None, capacity: 65_536, when_full: WhenFull::Drop }
    }
}

/// What happens to a decision that cannot be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// It is answered; its line is dropped and counted.
    Drop,
    /// It is answered with 503.
    Refuse,
}

/// The decisions that are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recorded {
    /// How many of the newest; none are kept with 0.
    pub decisions: usize,
}

impl Default for Recorded {
    fn default() -> Self {
        Self { decisions: 100_000 }
    }
}

/// When keys were used last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LastUsed {
    /// Seconds between two times that it is written down: the most that a crash loses.
    pub flush_secs: u64,
}

impl LastUsed {
    /// The time between two flushes.
    pub fn flush_every(&self) -> Duration {
        Duration::from_secs(self.flush_secs)
    }
}

impl Default for LastUsed {
    fn default() -> Self {
        Self { flush_secs: 30 }
    }
}

/// Reminders that keys should be rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rotation {
    /// Days before a rotation is due from which on it is due soon.
    pub warn_days: u16,
}

impl Rotation {
    /// How long before a rotation is due it is due soon.
    pub fn warn_ahead(&self) -> SignedDuration {
        SignedDuration::from_hours(24 * i64::from(self.warn_days))
    }
}

impl Default for Rotation {
    fn default() -> Self {
        Self { warn_days: 7 }
    }
}

/// Who is told of events.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// Where to send them; nowhere without it.
    pub url: Option<String>,
    /// A file of the secrets that sign them.
    pub secret_file: Option<PathBuf>,
    /// The kinds of events that are sent, by name; all of them when it is empty.
    pub events: Vec<String>,
    /// Seconds that a receiver has to answer.
    pub timeout_secs: u64,
    /// Seconds after which an event that cannot be delivered is given up.
    pub give_up_after_secs: u64,
}

impl fmt::Debug for Webhook {
    /// Without the address: a receiver's may be all that protects it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("is_set", &self.url.is_some())
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            url: None,
            secret_file: None,
            events: Vec::new(),
            timeout_secs: 10,
            give_up_after_secs: 3 * 24 * 60 * 60,
        }
    }
}

/// How edits of schemas and policies are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reload {
    /// Milliseconds of quiet after an edit before it is read.
    pub debounce_ms: u64,
    /// Seconds between two looks at the folders without an event.
    pub poll_secs: u64,
}

impl Default for Reload {
    fn default() -> Self {
        Self { debounce_ms: 50, poll_secs: 2 }
    }
}

/// How policies come into force, and what becomes of calls when they do not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policies {
    /// Whether guarantees are proven before a revision comes into force.
    pub guarantees: Guarantees,
    /// The solver that proves: a name on the `PATH`, or where it is.
    pub solver: PathBuf,
    /// Milliseconds that proving one revision may take.
    pub proof_limit_ms: u64,
    /// What becomes of a revision under which somebody may do more than under the one in force.
    pub widening: Widening,
    /// How long what is on disk may be refused, or wait, until the policies in force count as too old.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub stale_after: Option<SignedDuration>,
    /// What happens then.
    pub when_stale: WhenStale,
    /// Of so many decisions one is made again under the policies that are being tried; none with 0.
    pub shadow_one_in: u32,
}

impl Policies {
    /// How long proving one revision may take.
    pub fn proof_limit(&self) -> Duration {
        Duration::from_millis(self.proof_limit_ms)
    }
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            guarantees: Guarantees::ProveIfPossible,
            solver: "cvc5".into(),
            proof_limit_ms: 5_000,
            widening: Widening::Allow,
            stale_after: None,
            when_stale: WhenStale::Warn,
            shadow_one_in: 10,
        }
    }
}

/// Whether guarantees are proven before a revision comes into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantees {
    /// What is not proven is refused.
    Prove,
    /// What is refuted is refused; what is neither proven nor refuted is told of.
    ProveIfPossible,
    /// Nothing is proven: guarantees are forbids like others.
    EnforceOnly,
}

/// What becomes of a revision under which somebody may do more than under the one in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Widening {
    /// It comes into force as any other.
    Allow,
    /// It waits until an operator approves it.
    Confirm,
}

/// What happens when the policies in force are too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenStale {
    /// Nothing.
    Serve,
    /// The log and `/readyz` say so.
    Warn,
    /// Live keys are refused, too.
    DenyLive,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parse = |text: &String| {
        text.parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| serde::de::Error::custom(format!("`{text}` is no network such as 10.0.0.0/8 and no address")))
    };
    texts.iter().map(parse).collect()
}
