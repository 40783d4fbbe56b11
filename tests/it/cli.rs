//! The command line: what it makes, what it prints, and what it says to bad input.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{Serve, client, configure, keyward, keyward_with};

fn init() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (code, output, error) = keyward(&["init", "."], folder.path());
    assert_eq!(code, 0, "{error}");
    assert!(output.contains("keyward serve --config"), "{output}");
    folder
}

/// Runs a command that has to succeed, and gives its output.
fn done(arguments: &[&str], folder: &Path) -> String {
    let (code, output, error) = keyward(arguments, folder);
    assert_eq!((code, error.as_str()), (0, ""), "{arguments:?}");
    output
}

#[test]
fn init_makes_a_private_data_folder_and_a_configuration_that_changes_nothing() {
    let folder = init();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("data"), 0o700);
    assert!(done(&["policy", "check"], folder.path()).starts_with("good: revision "));
    let before = fs::read(folder.path().join("keyward.toml")).unwrap();
    let (code, _, error) = keyward(&["init", "."], folder.path());
    assert!(code == 1 && error.contains("there already"), "{error}");
    assert_eq!(fs::read(folder.path().join("keyward.toml")).unwrap(), before);
}

#[tokio::test]
async fn a_key_lives_from_the_command_line_that_made_it_to_the_one_that_revokes_it() {
    let folder = init();
    let account = done(&["offline", "accounts", "create", "Vexart"], folder.path());
    let account = account.split_whitespace().next().unwrap().to_owned();
    assert!(done(&["offline", "accounts", "list"], folder.path()).contains(&account));
    let create = ["offline", "keys", "create", "--account", &account, "--kind", "restricted", "--mode", "live"];
    let more = ["--name", "Worker", "--scope", "resources:read", "--address", "192.0.2.0/24"];
    let made = done(&[&create[..], &more].concat(), folder.path());
    let words: Vec<&str> = made.split_whitespace().collect();
    let (id, token) = (words[2].to_owned(), words[3].to_owned());
    assert!(id.starts_with("key_") && token.starts_with("rk_live_"), "{made}");

    let list = done(&["offline", "keys", "list", "--account", &account], folder.path());
    assert_eq!(list.lines().count(), 6, "{list}");
    let shown = done(&["offline", "keys", "show", &id], folder.path());
    for part in ["Worker", "restricted", "resources:read", "192.0.2.0/24", "active", "never", "shown when it was made"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    for text in [&list, &shown] {
        assert!(!text.contains(&token) && !text.contains("argon2"), "{text}");
    }

    configure(folder.path(), &[]);
    let folder = std::sync::Arc::new(folder);
    let serve = Serve::start_in(folder, vec![]);
    let reason = async |decision: &str, address: &str| {
        let question = serde_json::json!({ "token": token, "method": "GET", "path": "/v1/resources", "ip": address });
        let answer = client().post(format!("{decision}/v1/authorize")).json(&question).send().await.unwrap();
        answer.json::<serde_json::Value>().await.unwrap()["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason(&serve.decision, "192.0.2.7").await, "allowed");
    assert_eq!(reason(&serve.decision, "198.51.100.7").await, "address_not_allowed");
    let Serve { process, folder, .. } = serve;
    assert!(process.stop().0.success());

    assert!(done(&["offline", "keys", "revoke", &id], folder.path()).contains("revoked, for good"));
    assert!(done(&["offline", "keys", "revoke", &id], folder.path()).contains("already"));
    assert!(done(&["offline", "keys", "show", &id], folder.path()).contains("revoked"));
    let serve = Serve::start_in(folder, vec![]);
    assert_eq!(reason(&serve.decision, "192.0.2.7").await, "key_revoked");
}

#[test]
fn a_key_that_cannot_be_as_asked_is_refused_with_what_to_give_instead() {
    let folder = init();
    let account = done(&["offline", "accounts", "create", "Vexart"], folder.path());
    let account = account.split_whitespace().next().unwrap();
    let before = done(&["offline", "keys", "list"], folder.path());
    let base = |kind, more: &[&'static str]| -> Vec<&str> {
        let start =
            ["offline", "keys", "create", "--account", account, "--mode", "live", "--name", "Worker", "--kind", kind];
        start.iter().chain(more).copied().collect()
    };
    for (arguments, said) in [
        (base("public", &[]), "publishable"),
        (base("restricted", &["--scope", "resources:admin"]), "it has jobs:write"),
        (base("restricted", &["--address", "everywhere"]), "192.0.2.0/24"),
        (base("restricted", &["--expires-at", "tomorrow"]), "2027-01-31T00:00:00Z"),
        (base("restricted", &[]), "at least one scope"),
        (base("secret", &["--expires-at", "2001-01-01T00:00:00Z"]), "not in the future"),
        (base("secret", &["--scope", "resources:read"]), "scope"),
        (vec!["offline", "keys", "create", "--account", "acct_0000000000000000"], "--kind"),
        (vec!["offline", "keys", "show", "key_0000000000000000"], "no key"),
        (vec!["offline", "keys", "show", "sk_live_what"], "key"),
        (vec!["offline", "keys", "revoke", "key_0000000000000000"], "no key"),
    ] {
        let (code, output, error) = keyward(&arguments, folder.path());
        assert!([1, 2].contains(&code) && output.is_empty(), "{arguments:?}: {code} {output}");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
    assert_eq!(done(&["offline", "keys", "list"], folder.path()), before, "nothing was made");
}

#[test]
fn an_operator_who_is_made_offline_manages_the_daemon_afterwards() {
    let folder = init();
    let create = ["offline", "users", "create", "ada@example.com", "--name", "Ada"];
    let (code, _, error) = keyward(&create, folder.path());
    assert!(code == 2 && error.contains("--operator"), "{error}");
    let made = done(&[&create[..], &["--operator"]].concat(), folder.path());
    let token = made.split_whitespace().find(|word| word.starts_with("kw_")).unwrap().to_owned();
    let (code, _, error) = keyward(&[&create[..], &["--operator"]].concat(), folder.path());
    assert!(code == 1 && error.contains("another user has this address"), "{error}");
    configure(folder.path(), &[]);
    let serve = Serve::start_in(std::sync::Arc::new(folder), vec![]);
    let variables = [("KEYWARD_URL", serve.admin.as_str()), ("KEYWARD_TOKEN", token.as_str())];
    for (arguments, said) in [
        (&["whoami"][..], "ada@example.com"),
        (&["users", "create", "bob@example.com", "--name", "Bob", "--operator"], "bob@example.com"),
        (&["users", "remove", "operator@localhost"], "removed"),
    ] {
        let (code, output, error) = keyward_with(arguments, serve.folder.path(), &variables);
        assert!(code == 0 && output.contains(said), "{arguments:?}: {output}{error}");
    }
}

#[test]
fn policy_check_says_what_a_reload_would_say() {
    let folder = init();
    let path = folder.path().join("policies/docs-api.cedar");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{good}\npermit (principal, action, resource) when {{ principal.colour }};\n")).unwrap();
    let (code, output, error) = keyward(&["policy", "check"], folder.path());
    assert_eq!((code, output.as_str()), (1, ""));
    let line = good.lines().count() + 2;
    for part in [&*format!("policies/docs-api.cedar:{line}:"), "colour", "^"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    fs::write(&path, good).unwrap();
    done(&["policy", "check"], folder.path());
    fs::remove_dir_all(folder.path().join("schemas")).unwrap();
    let (code, _, error) = keyward(&["policy", "check"], folder.path());
    assert!(code == 1 && error.contains("schemas"), "{error}");
}

#[test]
fn a_configuration_that_is_not_understood_ends_with_64_and_opens_nothing() {
    let folder = init();
    let file = folder.path().join("keyward.toml");
    let shipped = fs::read_to_string(&file).unwrap();
    let store = || {
        let files = fs::read_dir(folder.path().join("data")).unwrap().map(Result::unwrap);
        let mut files: Vec<_> = files.map(|file| (file.path(), file.metadata().unwrap().modified().unwrap())).collect();
        files.sort();
        files
    };
    let untouched = store();
    for (from, to, said) in [
        ("realm = ", "relm = ", &["keyward.toml", "decision.relm", "realm"][..]),
        ("connections = 10000", "connections = \"many\"", &["keyward.toml", "limits.connections"]),
        ("connections = 10000", "connections = 0", &["limits.connections"]),
        ("[decision]", "[decision", &["keyward.toml"]),
        ("\"127.0.0.1/32\", \"::1/128\"", "\"0.0.0.0/0\"", &["decision.trusted_proxies", "trust_any_peer"]),
        ("addr = \"127.0.0.1:8702\"", "addr = \"0.0.0.0:8702\"", &["admin.addr", "allow_remote"]),
        ("proxy_style = \"x-forwarded\"", "proxy_style = \"traefik\"", &["decision.proxy_style", "x-forwarded"]),
    ] {
        let changed = shipped.replacen(from, to, 1);
        assert_ne!(changed, shipped, "{from}");
        fs::write(&file, changed).unwrap();
        let (code, output, error) = keyward(&["serve"], folder.path());
        assert_eq!((code, output.as_str()), (64, ""), "{to}: {error}");
        for part in said {
            assert!(error.contains(part), "{to}: {part}: {error}");
        }
        assert_eq!(store(), untouched, "{to}: the store was opened");
    }
    fs::write(&file, shipped).unwrap();
    let (code, _, error) = keyward_with(&["serve"], folder.path(), &[("KEYWARD_DECISION__REALM", "two\nlines")]);
    assert!(code == 64 && error.contains("decision.realm"), "{error}");
    let (code, _, error) = keyward(&["serve", "--config", "elsewhere.toml"], folder.path());
    assert!(code == 64 && error.contains("elsewhere.toml"), "{error}");
    let (code, _, error) = keyward(&["sevre"], folder.path());
    assert!(code == 2 && error.contains("serve"), "{error}");
}

#[tokio::test]
async fn the_environment_overrides_the_file() {
    let folder = std::sync::Arc::new(init());
    let variables = [("KEYWARD_DECISION__REALM", "the docs"), ("KEYWARD_LOG__FORMAT", "json")];
    let serve =
        Serve::start_where(folder, &["--decision-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"], &variables);
    let request = serve.bare_forward().header("x-forwarded-method", "GET").header("x-forwarded-uri", "/v1/resources");
    let answer = request.header("x-forwarded-proto", "https").send().await.unwrap();
    assert_eq!(answer.headers()["www-authenticate"], "Bearer realm=\"the docs\"");
}

#[test]
fn a_port_that_is_taken_and_a_folder_without_policies_are_named() {
    let folder = init();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, error) =
        keyward(&["serve", "--decision-addr", &address, "--admin-addr", "127.0.0.1:0"], folder.path());
    assert_eq!(code, 1);
    for part in ["decision.addr", &address, "another"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    fs::remove_dir_all(folder.path().join("policies")).unwrap();
    let (code, _, error) =
        keyward(&["serve", "--decision-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"], folder.path());
    assert!(code == 1 && error.contains("policies"), "{error}");
}
