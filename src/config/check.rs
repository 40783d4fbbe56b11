//! Rules that a type cannot state: values that fit their key and are wrong all the same.

use std::path::Path;

use ipnet::IpNet;
use reqwest::Url;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::{Config, LEAST_HEADER_BYTES, WhenStale};
use crate::outbound;
use crate::trail::Happened;

/// A value that is refused: which key, and what is wrong and how to mend it.
pub(super) type Refusal = (&'static str, String);

/// The longest time of any kind that makes sense here, in milliseconds: a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The most decisions that may be kept in memory.
const MOST_DECISIONS: usize = 10_000_000;

pub(super) fn check(config: &Config) -> Result<(), Refusal> {
    peers(config)?;
    addresses(config)?;
    limits(config)?;
    argon2(config)?;
    folders(config)?;
    webhook(config)?;
    policies(config)?;
    read_level(&config.log.level).or_else(|what| refuse("log.level", what))?;
    header_text(&config.decision.realm)
}

/// Reads a level, or directives.
///
/// # Errors
/// What is wrong with it.
pub fn read_level(text: &str) -> Result<EnvFilter, String> {
    // A lone word is a level for us. The parser would take an unknown one for the name of a target, and all would be
    // silent.
    let parsed = if text.contains(['=', ',', '[']) {
        EnvFilter::try_new(text).map_err(|error| error.to_string())
    } else {
        let level = text.trim().parse::<LevelFilter>();
        level.map(|level| EnvFilter::default().add_directive(level.into())).map_err(|error| error.to_string())
    };
    let told = |error| format!("`{text}` is neither a level (error, warn, info, debug, trace) nor directives: {error}");
    parsed.map_err(told)
}

fn refuse<T>(key: &'static str, what: impl Into<String>) -> Result<T, Refusal> {
    Err((key, what.into()))
}

fn peers(config: &Config) -> Result<(), Refusal> {
    let decision = &config.decision;
    if decision.trust_any_peer {
        return Ok(());
    }
    let by_name = "list the proxies' addresses, or set decision.trust_any_peer = true if nothing else can reach \
                   this listener";
    if decision.trusted_proxies.is_empty() {
        return refuse("decision.trusted_proxies", format!("it is empty; {by_name}"));
    }
    proxies("decision.trusted_proxies", &decision.trusted_proxies, by_name)
}

/// Refuses networks that no proxies have.
fn proxies(key: &'static str, networks: &[IpNet], instead: &str) -> Result<(), Refusal> {
    // Two halves of the internet are the internet, too.
    let least = |network: &IpNet| if matches!(network, IpNet::V4(_)) { 8 } else { 16 };
    if let Some(network) = networks.iter().find(|network| network.prefix_len() < least(network)) {
        let what = format!("{network} lets more peers forge a request than any network of proxies has; {instead}");
        return refuse(key, what);
    }
    let mapped = |network: &&IpNet| matches!(network, IpNet::V6(network) if network.addr().to_ipv4_mapped().is_some());
    match networks.iter().find(mapped) {
        Some(network) => refuse(key, format!("{network} never matches; write it as IPv4")),
        None => Ok(()),
    }
}

fn addresses(config: &Config) -> Result<(), Refusal> {
    let (decision, admin) = (config.decision.addr, config.admin.addr);
    if !admin.ip().to_canonical().is_loopback() && !config.admin.allow_remote {
        let what = format!(
            "other machines can reach {admin}, and this listener speaks plain HTTP and shows metrics to everybody; use \
             127.0.0.1, or set admin.allow_remote = true if a firewall keeps others out"
        );
        return refuse("admin.addr", what);
    }
    if decision == admin && decision.port() != 0 {
        return refuse("admin.addr", format!("{admin} is decision.addr too; choose another port"));
    }
    proxies("admin.trusted_proxies", &config.admin.trusted_proxies, "list the proxies' addresses")?;
    let is_name = |host: &&String| {
        let mut labels = host.split('.');
        labels.all(|label| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
    };
    match config.admin.hosts.iter().find(|host| !is_name(host)) {
        Some(host) => {
            refuse("admin.hosts", format!("`{host}` is no name such as keyward.example.com, without scheme and port"))
        }
        None => Ok(()),
    }
}

fn limits(config: &Config) -> Result<(), Refusal> {
    let limits = &config.limits;
    if limits.header_bytes < LEAST_HEADER_BYTES {
        return refuse("limits.header_bytes", format!("{} is too small; the least is 8192", limits.header_bytes));
    }
    let counts = [
        ("limits.connections", limits.connections),
        ("limits.body_bytes", limits.body_bytes),
        ("decision_log.capacity", config.decision_log.capacity),
        ("argon2.max_running", config.argon2.running()),
    ];
    if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
        return refuse(key, "0 would let nothing through; the least is 1");
    }
    let times = [
        ("limits.header_timeout_ms", limits.header_timeout_ms, DAY_MS),
        ("limits.request_timeout_ms", limits.request_timeout_ms, DAY_MS),
        ("limits.idle_timeout_ms", limits.idle_timeout_ms, DAY_MS),
        ("last_used.flush_secs", config.last_used.flush_secs, DAY_MS / 1000),
        ("webhook.timeout_secs", config.webhook.timeout_secs, DAY_MS / 1000),
        ("policies.proof_limit_ms", config.policies.proof_limit_ms, 60_000),
        ("reload.debounce_ms", config.reload.debounce_ms, DAY_MS),
        ("reload.poll_secs", config.reload.poll_secs, DAY_MS / 1000),
    ];
    if let Some((key, time, most)) = times.into_iter().find(|(_, time, most)| *time == 0 || time > most) {
        return refuse(key, format!("{time} is out of range; from 1 to {most}"));
    }
    let decisions = config.recorded.decisions;
    if decisions > MOST_DECISIONS {
        return refuse(
            "recorded.decisions",
            format!("{decisions} would take gigabytes of memory; at most {MOST_DECISIONS}"),
        );
    }
    let deadline = config.shutdown_deadline_secs;
    if deadline > DAY_MS / 1000 {
        return refuse("shutdown_deadline_secs", format!("{deadline} is longer than a day"));
    }
    Ok(())
}

fn argon2(config: &Config) -> Result<(), Refusal> {
    let own = config.argon2;
    let costs = [
        ("argon2.memory_kib", own.memory_kib, own.most_memory_kib),
        ("argon2.iterations", own.iterations, own.most_iterations),
        ("argon2.parallelism", own.parallelism, own.most_parallelism),
    ];
    for (key, cost, most) in costs {
        if cost == 0 {
            return refuse(key, "0 is no cost; the least is 1");
        }
        if cost > most {
            let what = format!("{cost} is above the ceiling of {most}, so that a new secret would never be accepted");
            return refuse(key, format!("{what}; lower it or raise the `most_` value"));
        }
    }
    // RFC 9106, section 3.1: at least 8 KiB for each lane.
    if own.memory_kib / 8 < own.parallelism {
        let least = u64::from(own.parallelism) * 8;
        return refuse(
            "argon2.memory_kib",
            format!("{} is too little for {} lanes; the least is {least}", own.memory_kib, own.parallelism),
        );
    }
    Ok(())
}

fn folders(config: &Config) -> Result<(), Refusal> {
    // The store writes all the time: beneath a watched folder each write would be taken for an edit.
    let inside = |outer: &Path| config.data_dir.starts_with(outer);
    let watched = [("schemas_dir", &config.schemas_dir), ("policies_dir", &config.policies_dir)];
    if let Some((name, folder)) = watched.into_iter().find(|(_, folder)| inside(folder)) {
        let what = format!("{} is inside {name} ({})", config.data_dir.display(), folder.display());
        return refuse("data_dir", format!("{what}, which is watched for edits; choose another folder"));
    }
    Ok(())
}

fn webhook(config: &Config) -> Result<(), Refusal> {
    let webhook = &config.webhook;
    if let Some(unknown) = webhook.events.iter().find(|name| Happened::named(name).is_none()) {
        let names = Happened::ALL.map(Happened::as_str);
        return refuse("webhook.events", format!("there are no events `{unknown}`; there are {}", names.join(", ")));
    }
    let Some(url) = &webhook.url else { return Ok(()) };
    // Without the address in what is said: it may be all that protects the receiver.
    let key = "webhook.url";
    let Ok(url) = Url::parse(url) else {
        return refuse(key, "give an address such as https://hooks.example.com/keyward");
    };
    let is_plain = url.scheme() == "http" && outbound::is_loopback(&url);
    if url.scheme() != "https" && !is_plain {
        return refuse(key, "give an https address; plain http is for receivers on this machine");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse(key, "leave user and password out: what is sent is signed");
    }
    if webhook.secret_file.is_none() {
        return refuse("webhook.secret_file", "name the file with the secrets that sign what is sent");
    }
    Ok(())
}

fn policies(config: &Config) -> Result<(), Refusal> {
    let policies = &config.policies;
    match policies.stale_after {
        Some(time) if time.as_secs() < 1 => refuse("policies.stale_after", "the least is 1s"),
        None if policies.when_stale == WhenStale::DenyLive => refuse(
            "policies.when_stale",
            "deny-live needs policies.stale_after, such as \"15m\", to say after what time",
        ),
        Some(_) | None => Ok(()),
    }
}

fn header_text(realm: &str) -> Result<(), Refusal> {
    // It stands in a quoted string of a header (RFC 9110, section 5.6.4).
    if realm.chars().all(|c| (c.is_ascii_graphic() || c == ' ') && c != '"' && c != '\\') {
        return Ok(());
    }
    refuse("decision.realm", "it goes into a header: use printable ASCII without quotes and backslashes")
}
