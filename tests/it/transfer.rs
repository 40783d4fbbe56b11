//! Moving in and out: between two installations, and from another system without new tokens.

use serde_json::{Value, json};

use crate::cli_online::{Person, reason};
use crate::harness::{Demo, verdict};

/// A token that looks like ours and is another system's, and its SHA-256.
const PLAIN: &str = "sk_live_4eC39HqLyjWDarjtT1zdp7dc";
const PLAIN_SHA256: &str = "78a08441f4314f0a2833cfe58c62e555a162264206982cda39f6804f5048f570";
/// Tokens of another system, and what argon2-cffi made of them: at its own costs, and at higher ones.
const HASHED: [(&str, &str); 2] = [
    (
        "acme_live_7Jq2.xYz-0~9+/=argon",
        "$argon2id$v=19$m=19456,t=2,p=1$QrJ1xPG4rt82do5+YZgE3g$422SbWghuQOu6uxbM/IgTzk8e4lYakt7hefVse+B4Wc",
    ),
    (
        "acme_live_another.argon2.token",
        "$argon2id$v=19$m=65536,t=3,p=4$dJ66F0t1ZiMj3sGv$egEUucNB2rfv5I2VRt6gjtqHUD26qKB4",
    ),
];

fn foreign(account: &str, name: &str, token: &Value) -> String {
    let mut record = json!({ "account": account, "key": { "kind": "secret", "mode": "live", "name": name } });
    record.as_object_mut().unwrap().extend(token.as_object().unwrap().clone());
    json!({ "type": "foreign_key", "record": record }).to_string()
}

fn account(person: &Person<'_>) -> String {
    person.json(&["accounts", "list"])["items"][0]["id"].as_str().unwrap().to_owned()
}

/// What is imported for the tokens above.
fn moved(account: &str) -> String {
    let [(_, first), (_, second)] = HASHED;
    [
        foreign(account, "plain", &json!({ "sha256": PLAIN_SHA256 })),
        foreign(account, "hashed", &json!({ "argon2id": first, "starts_with": "acme_live_" })),
        foreign(account, "costly", &json!({ "argon2id": second, "starts_with": "acme_live_another" })),
    ]
    .join("\n")
}

fn named<'a>(keys: &'a Value, name: &str) -> &'a str {
    let found = keys["items"].as_array().unwrap().iter().find(|key| key["name"] == name);
    found.unwrap_or_else(|| panic!("{name}: {keys}"))["id"].as_str().unwrap()
}

#[tokio::test]
async fn tokens_of_another_system_work_on_and_their_keys_are_like_any_other() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = account(&operator);
    for (token, _) in HASHED.iter().chain([&(PLAIN, "")]) {
        assert_eq!(reason(&demo, token).await, "credentials_malformed", "{token}");
    }
    for outcome in ["3 imported, and 0 were here already\n", "0 imported, and 3 were here already\n"] {
        assert_eq!(operator.done_with(&["import", "-"], &moved(&account)), outcome);
    }
    for round in 0..2 {
        for (token, _) in HASHED.iter().chain([&(PLAIN, "")]) {
            assert_eq!(reason(&demo, token).await, "allowed", "{round} {token}");
            assert_eq!(reason(&demo, &format!("{token}x")).await, "credentials_malformed", "{round} {token}");
        }
    }
    let keys = operator.json(&["keys", "list", "--account", &account]);
    let [plain, hashed, costly] = ["plain", "hashed", "costly"].map(|name| named(&keys, name));

    let rotated = operator.json(&["keys", "rotate", hashed, "--overlap", "1h"]);
    let new = rotated["token"].as_str().unwrap();
    assert!(new.starts_with("sk_live_") && new.len() == 62);
    for token in [new, HASHED[0].0] {
        assert_eq!(reason(&demo, token).await, "allowed");
    }
    operator.done(&["keys", "rotate", hashed, "--overlap", "0s"]);
    assert_eq!(reason(&demo, HASHED[0].0).await, "credentials_malformed", "it is nobody's any more");

    let request = demo.bare_forward().bearer_auth(HASHED[1].0).header("x-forwarded-proto", "http");
    let request = request.header("x-forwarded-method", "GET").header("x-forwarded-uri", "/v1/resources");
    assert_eq!(verdict(request).await, (403, "transport_insecure".to_owned()));
    assert_eq!(reason(&demo, HASHED[1].0).await, "key_compromised");
    assert_eq!(operator.json(&["keys", "show", costly])["state"], "compromised");

    let leaked = operator.done_with(&["leaks", "report", "--found-at", "a paste"], &format!("{PLAIN}\n{PLAIN}x\n"));
    assert!(leaked.contains("marked") && leaked.contains("not_ours") && !leaked.contains(PLAIN), "{leaked}");
    assert_eq!(reason(&demo, PLAIN).await, "key_compromised");
    assert_eq!(operator.json(&["keys", "show", plain])["state"], "compromised");

    let demo = demo.restart(&[]);
    assert_eq!(reason(&demo, PLAIN).await, "key_compromised");
    assert_eq!(reason(&demo, HASHED[0].0).await, "credentials_malformed");
}

#[tokio::test]
async fn what_cannot_move_in_is_named_by_its_line_and_nothing_of_its_request_moves_in() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = account(&operator);
    let before = operator.json(&["keys", "list", "--account", &account]);
    let good = foreign(&account, "good", &json!({ "sha256": PLAIN_SHA256 }));
    let hash = HASHED[0].1;
    let alike = |count: usize| {
        let one = |at| {
            let hash = hash.replace("QrJ1", ["aaaa", "bbbb", "cccc", "dddd", "eeee"][at]);
            foreign(&account, "alike", &json!({ "argon2id": hash, "starts_with": "acme_live_" }))
        };
        (0..count).map(one).collect::<Vec<_>>().join("\n")
    };
    let elsewhere = "acct_0000000000000000";
    for (bad, said) in [
        (foreign(&account, "", &json!({ "sha256": PLAIN_SHA256.replace('7', "8") })), "line 2.record.key.name"),
        (foreign(&account, "short", &json!({ "sha256": "78a0" })), "line 2.record.sha256: sha256: give the SHA-256"),
        (foreign(&account, "both", &json!({ "sha256": PLAIN_SHA256, "starts_with": "acme_live" })), "sha256 alone"),
        (foreign(&account, "short", &json!({ "argon2id": hash, "starts_with": "acme" })), "first 8 to 63"),
        (foreign(&account, "bcrypt", &json!({ "argon2id": "$2b$12$a", "starts_with": "acme_live" })), "Argon2id"),
        (
            foreign(
                &account,
                "dear",
                &json!({ "argon2id": hash.replace("19456", "9999999"), "starts_with": "acme_live" }),
            ),
            "ceiling",
        ),
        (foreign(elsewhere, "lost", &json!({ "sha256": PLAIN_SHA256.replace('7', "8") })), "there is no account"),
        (good.clone(), "another key's"),
        (alike(5), "4 other keys"),
        ("{\"type\": \"key\", \"record\": {\"id\": \"key_1\"}}".into(), "line"),
        ("no JSON".into(), "line 2: this is no JSON"),
        (json!({ "end": { "items": 7 } }).to_string(), "items are missing"),
        (json!({ "keyward_export": 2 }).to_string(), "newer version"),
    ] {
        let (code, output, error) = operator.run(&["import", "-"], &format!("{good}\n{bad}\n"));
        assert_eq!((code, output.as_str()), (1, ""), "{said}: {error}");
        assert!(error.contains(said), "{said}: {error}");
        assert_eq!(operator.json(&["keys", "list", "--account", &account]), before, "{said}");
    }
    assert_eq!(operator.done_with(&["import", "-"], &alike(4)), "4 imported, and 0 were here already\n");
}

#[tokio::test]
async fn an_export_makes_another_installation_the_same() {
    let (from, to) = (Demo::start(), Demo::start());
    let (there, here) = (Person::operator(&from), Person::operator(&to));
    there.done_with(&["import", "-"], &moved(&account(&there)));
    let account = account(&there);
    let revoked = there.json(&["keys", "list", "--account", &account]);
    there.done(&["keys", "revoke", named(&revoked, "plain")]);
    there.done(&["users", "create", "ada@example.com", "--name", "Ada", "--role", &format!("{account}=developer")]);
    // The people of a demo have the same addresses in each.
    for email in ["operator@demo.test", "owner@demo.test"] {
        there.done(&["users", "update", email, "--email", &format!("from.{email}")]);
    }
    // Used, and once more with a new token beside the old one.
    assert_eq!(reason(&from, from.get("SK_TEST")).await, "allowed");
    let keys = there.json(&["keys", "list", "--account", &account]);
    let used = named(&keys, "Test secret key").to_owned();
    there.done(&["keys", "rotate", &used]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("export.jsonl");
    let file = file.to_str().unwrap();
    there.done(&["export", file]);
    there.fails(&["export", file], 6, &["is there already"]);
    let text = std::fs::read_to_string(file).unwrap();
    let tokens = ["SK_LIVE", "SK_TEST", "RK_TEST", "ADMIN_TOKEN"].map(|name| from.environment.get(name).cloned());
    for token in tokens.into_iter().flatten() {
        assert!(!text.contains(&token[25..token.len() - 6]), "a secret is in the export");
    }
    let imported = here.done(&["import", file]);
    assert!(imported.ends_with("imported, and 0 were here already\n"), "{imported}");
    assert!(here.done(&["import", file]).starts_with("0 imported"));
    // Nobody takes a key for unused because it moved.
    let (before, after) = (there.json(&["keys", "show", &used]), here.json(&["keys", "show", &used]));
    assert_eq!(after["old_secret_last_used"]["address"], "192.0.2.7");
    assert_eq!((&after["last_used"], after.get("secret_last_used")), (&before["last_used"], None));
    for token in ["SK_LIVE", "SK_TEST", "PK_LIVE"] {
        assert_eq!(reason(&to, from.get(token)).await, "allowed", "{token}");
    }
    assert_eq!(reason(&to, HASHED[0].0).await, "allowed");
    assert_eq!(reason(&to, PLAIN).await, "key_revoked");
    // Whoever managed there manages here.
    let me = Person { url: to.get("ADMIN_URL"), token: there.token.clone() };
    assert!(me.json(&["whoami"])["operator"].as_bool().unwrap());
    let again = folder.path().join("again.jsonl");
    me.done(&["export", again.to_str().unwrap()]);
    // But for what has happened here since.
    let is_record = |line: &&str| line.contains("\"record\"") && !line.contains("\"last_used\"");
    let lines = |text: &str| text.lines().filter(is_record).map(str::to_owned).collect::<Vec<_>>();
    let held = lines(&std::fs::read_to_string(again).unwrap());
    for line in lines(&text) {
        assert!(held.contains(&line), "{line}");
    }

    // A file that was cut short says so.
    let cut = folder.path().join("cut.jsonl");
    std::fs::write(&cut, text.lines().take(3).collect::<Vec<_>>().join("\n")).unwrap();
    here.fails(&["import", cut.to_str().unwrap()], 1, &["ends before its end"]);
    // What differs here is never overwritten.
    here.done(&["accounts", "rename", &account, "Another name"]);
    here.fails(&["import", file], 1, &["line 2", "is here already, and differs"]);
}

#[test]
fn a_backup_from_the_command_line_is_restored() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup.jsonl");
    operator.done(&["backup", file.to_str().unwrap()]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let data = folder.path().join("data");
    let restored = operator.done(&["restore", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()]);
    assert!(restored.contains("is restored"), "{restored}");
}

#[tokio::test]
async fn a_token_that_went_is_brought_back_by_no_import_here_or_elsewhere() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = account(&operator);
    let file = moved(&account);
    operator.done_with(&["import", "-"], &file);
    let keys = operator.json(&["keys", "list", "--account", &account]);
    operator.done_with(&["leaks", "report", "--found-at", "a paste"], PLAIN);
    for name in ["plain", "hashed"] {
        operator.done(&["keys", "rotate", named(&keys, name), "--overlap", "0s"]);
    }
    // Renamed here, which is no difference.
    operator.done(&["keys", "update", named(&keys, "costly"), "--name", "Worker"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.jsonl");
    operator.done(&["export", path.to_str().unwrap()]);

    let elsewhere = Demo::start();
    let there = Person::operator(&elsewhere);
    let moving = std::fs::read_to_string(&path).unwrap();
    let is_moving = |line: &&str| line.contains("\"record\"") && !line.contains("\"type\":\"user\"");
    there.done_with(&["import", "-"], &moving.lines().filter(is_moving).collect::<Vec<_>>().join("\n"));
    let demo = demo.restart(&[]);
    for (demo, person) in [(&demo, Person::operator(&demo)), (&elsewhere, there)] {
        let before = person.json(&["keys", "list", "--account", &account]);
        assert_eq!(person.done_with(&["import", "-"], &file), "0 imported, and 3 were here already\n");
        assert_eq!(person.json(&["keys", "list", "--account", &account]), before);
        for token in [PLAIN, HASHED[0].0] {
            assert_eq!(reason(demo, token).await, "credentials_malformed");
        }
        assert_eq!(reason(demo, HASHED[1].0).await, "allowed");
    }
}

#[test]
fn a_line_that_makes_something_else_of_a_token_is_refused_with_what_differs() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = account(&operator);
    let line = |change: &dyn Fn(&mut Value)| {
        let mut record = json!({
            "account": account, "sha256": PLAIN_SHA256,
            "key": { "kind": "restricted", "mode": "live", "name": "plain", "scopes": ["jobs:write"] },
        });
        change(&mut record);
        json!({ "type": "foreign_key", "record": record }).to_string()
    };
    operator.done_with(&["import", "-"], &line(&|_| ()));
    let another = operator.json(&["accounts", "create", "Another"])["id"].as_str().unwrap().to_owned();
    for (field, change) in [
        ("account", &(|record: &mut Value| record["account"] = another.clone().into()) as &dyn Fn(&mut Value)),
        ("key.mode", &|record| record["key"]["mode"] = "test".into()),
        ("key.scopes", &|record| record["key"]["scopes"] = json!(["resources:read"])),
        ("key.addresses", &|record| record["key"]["addresses"] = json!(["192.0.2.0/24"])),
        ("key.expires_at", &|record| record["key"]["expires_at"] = "2199-01-01T00:00:00Z".into()),
        ("key.kind", &|record| {
            record["key"]["scopes"] = json!([]);
            record["key"]["kind"] = "secret".into();
        }),
    ] {
        let (code, _, error) = operator.run(&["import", "-"], &line(change));
        assert!(code == 1 && error.contains(&format!("line 1.record.{field}: ")), "{field}: {error}");
    }
    let renamed = line(&|record| record["key"]["name"] = "another name".into());
    assert_eq!(operator.done_with(&["import", "-"], &renamed), "0 imported, and 1 were here already\n");
}

#[test]
fn a_person_who_was_deleted_is_brought_back_by_no_import_here_or_elsewhere() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    operator.done(&["users", "create", "ada@example.com", "--name", "Ada"]);
    operator.done(&["users", "create-token", "ada@example.com", "--name", "script"]);
    let folder = tempfile::tempdir().unwrap();
    let export = |name: &str, kind: &str| {
        let path = folder.path().join(name);
        operator.done(&["export", path.to_str().unwrap()]);
        let text = std::fs::read_to_string(path).unwrap();
        let is_meant = |line: &&str| line.contains(&format!("\"type\":\"{kind}\"")) && !line.contains("demo.test");
        text.lines().filter(is_meant).collect::<Vec<_>>().join("\n")
    };
    let with_her = export("before.jsonl", "user");
    assert!(with_her.contains("ada@example.com"), "{with_her}");
    operator.done(&["users", "remove", "ada@example.com"]);
    let without_her = export("after.jsonl", "deleted_user");
    let is_refused = |person: &Person<'_>, text: &str, why: &str| {
        let (code, _, error) = person.run(&["import", "-"], text);
        assert!(code == 1 && error.contains(why) && error.contains("line 1"), "{error}");
    };
    is_refused(&operator, &with_her, "was deleted here");
    let elsewhere = Demo::start();
    let there = Person::operator(&elsewhere);
    // Somebody who lives is deleted by people alone.
    there.done_with(&["import", "-"], &with_her);
    is_refused(&there, &without_her, "was deleted where this comes from, and is here");
    there.done(&["users", "remove", "ada@example.com"]);
    let third = Demo::start();
    let third = Person::operator(&third);
    for outcome in ["1 imported, and 0", "0 imported, and 1"] {
        assert!(third.done_with(&["import", "-"], &without_her).starts_with(outcome));
    }
    is_refused(&third, &with_her, "was deleted here");
}

#[test]
fn a_record_that_could_not_have_been_made_here_is_refused_with_its_field() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.jsonl");
    operator.done(&["export", path.to_str().unwrap()]);
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found = |is_meant: &dyn Fn(&Value) -> bool| lines.iter().find(|line| is_meant(line)).unwrap().clone();
    let [secret, public] =
        ["secret", "publishable"].map(|kind| found(&|line| line["type"] == "key" && line["record"]["kind"] == kind));
    let (account, person) = (found(&|line| line["type"] == "account"), found(&|line| line["type"] == "user"));
    let [future, token] = ["2099-01-01T00:00:00Z", demo.get("SK_LIVE")].map(Value::from);
    let public_token = public["record"]["extras"]["public_token"].clone();
    for (line, path, value, field) in [
        (&secret, "/extras/public_token", &token, "extras.public_token"),
        (&secret, "/extras/public_token", &public_token, "extras.public_token"),
        (&public, "/extras/public_token", &token, "extras.public_token"),
        (&secret, "/extras/rotate_every_secs", &json!(1), "rotate_every"),
        (&secret, "/created_at", &future, "created_at"),
        (&account, "/created_at", &future, "created_at"),
        (&person, "/created_at", &future, "created_at"),
        (&person, "/password", &json!("nonsense"), "password"),
    ] {
        let mut line = line.clone();
        // Of somebody who is not here.
        let record = line["record"].as_object_mut().unwrap();
        let id = record["id"].as_str().unwrap().split('_').next().unwrap().to_owned();
        record.insert("id".into(), format!("{id}_Example000000000").into());
        if path.starts_with("/extras") {
            record.entry("extras").or_insert_with(|| json!({}));
        }
        if record.contains_key("email") {
            record.insert("email".into(), "somebody@example.com".into());
        }
        let (parent, name) = path.rsplit_once('/').unwrap();
        line["record"].pointer_mut(parent).unwrap()[name] = value.clone();
        let (code, output, error) = operator.run(&["import", "-"], &line.to_string());
        assert_eq!((code, output.as_str()), (1, ""), "{field}: {error}");
        assert!(error.contains(&format!("line 1.record.{field}: ")), "{field}: {error}");
        assert!(!error.contains(token.as_str().unwrap()), "{error}");
    }
}

#[test]
fn whatever_ends_an_import_early_says_what_of_the_file_is_in() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let account = account(&operator);
    let line = |number: usize| foreign(&account, "moved", &json!({ "sha256": format!("{number:032x}{:032x}", 0) }));
    let many: Vec<String> = (0..1_001).map(line).collect();
    let few = &many[..3];
    let nothing = "nothing of it was imported";
    let some = "what stands up to line 1000 is imported; mend the rest and import the file again";
    let header = json!({ "keyward_export": 1 }).to_string();
    for (lines, last, said, told) in [
        (few, "no JSON", "line 4: this is no JSON", nothing),
        (few, "{\"type\": \"what\"}", "line 4.type: unknown variant", nothing),
        (few, header.as_str(), "ends before its end", nothing),
        (&many, "no JSON", "line 1002: this is no JSON", some),
        (&many, "{\"type\": \"what\"}", "line 1002.type: unknown variant", some),
        (&many, "{\"end\": {\"items\": 7}}", "line 1002: items are missing", some),
        (&many, header.as_str(), "ends before its end", some),
    ] {
        let (code, output, error) = operator.run(&["import", "-"], &format!("{}\n{last}\n", lines.join("\n")));
        assert_eq!((code, output.as_str()), (1, ""), "{last}: {error}");
        assert!(error.contains(said) && error.contains(told), "{last}: {error}");
        let keys = operator.json(&["keys", "list", "--account", &account]);
        let is_in = keys["items"].as_array().unwrap().iter().filter(|key| key["name"] == "moved").count();
        assert_eq!(is_in, if told == nothing { 0 } else { 1_000 }, "{last}");
    }
}
