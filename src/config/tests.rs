use std::collections::BTreeMap;
use std::fs;

use figment::providers::{Env, Serialized};
use figment::value::Dict;
use jiff::SignedDuration;
use tempfile::TempDir;

use super::*;

/// Keys and values of an environment or of flags.
type Given = &'static [(&'static str, &'static str)];

/// Loads `toml` as a file, with an environment and flags of `(key, value)`.
fn load(toml: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> (TempDir, Result<Config, ConfigError>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    fs::write(&path, toml).unwrap();
    let mut given = Figment::new();
    for (key, value) in flags {
        given = given.merge(Serialized::global(key, value));
    }
    let loaded = Config::merge(Some(&path), Variables::of(environment), given);
    (folder, loaded)
}

/// An environment that looks like `Env` to the error messages; the process's own is shared by all tests.
struct Variables(Dict);

impl Variables {
    fn of(variables: &[(&str, &str)]) -> Self {
        let mut tables: BTreeMap<String, Dict> = BTreeMap::new();
        for (key, value) in variables {
            let (table, key) = key.split_once('.').unwrap();
            tables.entry(table.into()).or_default().insert(key.into(), value.parse().unwrap());
        }
        Self(tables.into_iter().map(|(table, keys)| (table, keys.into())).collect())
    }
}

impl Provider for Variables {
    fn metadata(&self) -> Metadata {
        Env::prefixed("KEYWARD_").metadata()
    }

    fn data(&self) -> figment::error::Result<figment::value::Map<figment::Profile, Dict>> {
        Ok(figment::Profile::default().collect(self.0.clone()))
    }
}

fn message(toml: &str, environment: &[(&str, &str)]) -> String {
    let (folder, loaded) = load(toml, environment, &[]);
    loaded.unwrap_err().to_string().replace(folder.path().to_str().unwrap(), "DIR")
}

/// Each key of `table`, at any depth, is in `template` too.
fn assert_each_is_in(table: &toml::Table, template: &toml::Table) {
    for (key, value) in table {
        let found = template.get(key).unwrap_or_else(|| panic!("the template lacks `{key}`"));
        if let (Some(inner), Some(found)) = (value.as_table(), found.as_table()) {
            assert_each_is_in(inner, found);
        }
    }
}

#[test]
fn the_template_holds_every_key_with_its_default() {
    let (folder, loaded) = load(TEMPLATE, &[], &[]);
    let mut expected = Config::default();
    for dir in [&mut expected.data_dir, &mut expected.schemas_dir, &mut expected.policies_dir] {
        *dir = folder.path().join(&*dir);
    }
    assert_eq!(loaded.unwrap(), expected);

    // Optional keys are there as comments, so a missing one shows up here and not above.
    let uncommented =
        TEMPLATE.replace("# max_running", "max_running").replace("# path", "path").replace("# stale", "stale");
    let mut all = Config::default();
    all.argon2.max_running = Some(2);
    all.decision_log.path = Some("decisions.jsonl".into());
    all.policies.stale_after = Some(SignedDuration::from_mins(15));
    assert_each_is_in(&toml::Table::try_from(all).unwrap(), &uncommented.parse().unwrap());
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "[decision]\nrealm = \"file\"\nproxy_style = \"x-original\"\n[log]\nlevel = \"warn\"";
    let environment = [("decision.realm", "env"), ("log.level", "debug"), ("decision.trusted_proxies", "[10.0.0.7]")];
    let (_folder, loaded) = load(file, &environment, &[("log.level", "trace")]);
    let config = loaded.unwrap();
    assert_eq!(config.decision.proxy_style, ProxyStyle::XOriginal);
    assert_eq!(config.decision.realm, "env");
    assert_eq!(config.log.level, "trace");
    assert_eq!(config.decision.trusted_proxies, ["10.0.0.7/32".parse().unwrap()]);
}

#[test]
fn folders_of_the_file_start_at_the_file_and_those_of_flags_where_we_are() {
    let (folder, loaded) =
        load("data_dir = \"store\"\nschemas_dir = \"/etc/schemas\"", &[], &[("policies_dir", "mine")]);
    let config = loaded.unwrap();
    assert_eq!(config.data_dir, folder.path().join("store"));
    assert_eq!(config.schemas_dir, Path::new("/etc/schemas"));
    assert_eq!(config.policies_dir, std::env::current_dir().unwrap().join("mine"), "whole, as events name paths");
}

#[test]
fn typical_mistakes_are_told_with_place_key_and_remedy() {
    let cases: &[(&str, Given, &str)] = &[
        (
            "[decision]\nadr = \"127.0.0.1:1\"",
            &[],
            "DIR/keyward.toml: there is no key `decision.adr`; did you mean `decision.addr`?",
        ),
        (
            "zzz = 1",
            &[],
            "DIR/keyward.toml: there is no key `zzz`; the keys here are data_dir, schemas_dir, policies_dir, \
             shutdown_deadline_secs, decision, admin, limits, argon2, log, decision_log, recorded, last_used, rotation, \
             webhook, reload, policies",
        ),
        (
            "",
            &[("limits.connection", "5")],
            "environment variable KEYWARD_LIMITS__CONNECTION: there is no key `limits.connection`; did you mean \
             `limits.connections`?",
        ),
        (
            "[decision]\naddr = 8700",
            &[],
            "DIR/keyward.toml: `decision.addr`: give an IP address and a port, for example 127.0.0.1:8700, not `8700`",
        ),
        (
            "[decision]\naddr = \"localhost:8700\"",
            &[],
            "DIR/keyward.toml: `decision.addr`: give an IP address and a port, for example 127.0.0.1:8700",
        ),
        (
            "[decision]\ntrusted_proxies = \"127.0.0.1\"",
            &[],
            "DIR/keyward.toml: `decision.trusted_proxies`: give a list, for example [\"127.0.0.1\"], not \"127.0.0.1\"",
        ),
        (
            "[log]\nlevel = \"loud\"",
            &[],
            "DIR/keyward.toml: `log.level`: `loud` is neither a level (error, warn, info, debug, trace) nor directives: \
             error parsing level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number \
             0-5",
        ),
        (
            "[admin]\nhosts = [\"keyward.internal\", \"https://keyward.example.com\"]",
            &[],
            "DIR/keyward.toml: `admin.hosts`: `https://keyward.example.com` is no name such as keyward.example.com, without \
             scheme and port",
        ),
        (
            "[decision]\ntrusted_proxies = []",
            &[],
            "DIR/keyward.toml: `decision.trusted_proxies`: it is empty; list the proxies' addresses, or set \
             decision.trust_any_peer = true if nothing else can reach this listener",
        ),
        (
            "",
            &[("decision.trusted_proxies", "[10.0.0.0/8, ::/0]")],
            "environment variable KEYWARD_DECISION__TRUSTED_PROXIES: `decision.trusted_proxies`: ::/0 lets more peers \
             forge a request than any network of proxies has; list the proxies' addresses, or set decision.trust_any_peer = true if nothing else can \
             reach this listener",
        ),
        (
            "[decision]\ntrusted_proxies = [\"localhost\"]",
            &[],
            "DIR/keyward.toml: `decision.trusted_proxies`: `localhost` is no network such as 10.0.0.0/8 and no address",
        ),
        (
            "[decision]\nproxy_style = \"nginx\"",
            &[],
            "DIR/keyward.toml: `decision.proxy_style`: `nginx` is not one of x-forwarded, x-original, envoy",
        ),
        (
            "[admin]\naddr = \"0.0.0.0:8702\"",
            &[],
            "DIR/keyward.toml: `admin.addr`: other machines can reach 0.0.0.0:8702, and this listener speaks \
             plain HTTP and shows metrics to everybody; use 127.0.0.1, or set admin.allow_remote = true if a firewall keeps others out",
        ),
        (
            "[argon2]\nmemory_kib = 100000",
            &[],
            "DIR/keyward.toml: `argon2.memory_kib`: 100000 is above the ceiling of 65536, so that a new secret would \
             never be accepted; lower it or raise the `most_` value",
        ),
        (
            "data_dir = \"policies/data\"",
            &[],
            "DIR/keyward.toml: `data_dir`: DIR/policies/data is inside policies_dir (DIR/policies), which is watched \
             for edits; choose another folder",
        ),
    ];
    for (toml, environment, expected) in cases {
        assert_eq!(&message(toml, environment), expected);
    }
}

#[test]
fn a_syntax_error_names_file_line_and_column() {
    let told = message("data_dir = \"x\"\n[decision\n", &[]);
    assert!(told.starts_with("DIR/keyward.toml: TOML parse error at line 2, column 10"), "{told}");
}

#[test]
fn a_named_file_that_is_not_there_is_an_error_and_not_an_empty_one() {
    let error = Config::merge(Some(Path::new("/nowhere/keyward.toml")), Figment::new(), Figment::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the configuration /nowhere/keyward.toml: No such file or directory (os error 2); `keyward init` \
         writes one"
    );
}

#[test]
fn values_out_of_range_are_refused() {
    for (toml, key) in [
        ("[limits]\nheader_bytes = 100", "limits.header_bytes"),
        ("[limits]\nconnections = 0", "limits.connections"),
        ("[limits]\nheader_timeout_ms = 0", "limits.header_timeout_ms"),
        ("[argon2]\nmax_running = 0", "argon2.max_running"),
        ("[argon2]\niterations = 0", "argon2.iterations"),
        ("[argon2]\nmemory_kib = 8\nparallelism = 2", "argon2.memory_kib"),
        ("[reload]\npoll_secs = 99999999", "reload.poll_secs"),
        ("shutdown_deadline_secs = 99999999", "shutdown_deadline_secs"),
        ("[decision]\nrealm = 'a\"b'", "decision.realm"),
        ("[admin]\naddr = \"127.0.0.1:8700\"", "admin.addr"),
        ("[policies]\nstale_after = \"15\"", "policies.stale_after"),
        ("[policies]\nstale_after = \"0s\"", "policies.stale_after"),
        ("[policies]\nwhen_stale = \"deny-live\"", "policies.when_stale"),
        ("[admin]\ntrusted_proxies = [\"0.0.0.0/0\"]", "admin.trusted_proxies"),
    ] {
        match load(toml, &[], &[]).1 {
            Err(ConfigError::Value { key: told, .. }) => assert_eq!(told, key, "{toml}"),
            other => panic!("{toml}: {other:?}"),
        }
    }
}

#[test]
fn any_peer_is_trusted_only_by_name() {
    let (_folder, loaded) = load("[decision]\ntrusted_proxies = []\ntrust_any_peer = true", &[], &[]);
    assert!(loaded.unwrap().decision.trusts("203.0.113.9".parse().unwrap()));
    let decision = Decision::default();
    for (peer, trusted) in [("127.0.0.1", true), ("::1", true), ("::ffff:127.0.0.1", true), ("127.0.0.2", false)] {
        assert_eq!(decision.trusts(peer.parse().unwrap()), trusted, "{peer}");
    }
}
