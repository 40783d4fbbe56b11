//! Keys outlive whatever happens to the process, and a store that cannot be used says why and stays as it is.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use keyward::key::{Ceiling, Cost, Kind, Mode, NewKey, Secret, Token};
use keyward::ledger::{About, Ledger};
use keyward::store::{Order, SledStore};
use keyward::trail::{By, Happened};
use serde_json::json;

use crate::harness::{Serve, client, configure, keyward};

const CHILD_STORE: &str = "KEYWARD_TEST_STORE";
const KEYS: usize = 1_000;
const WRITERS: usize = 4;
/// The cheapest there is: hashing is not what is tested.
const COST: Cost = Cost { memory_kib: 8, iterations: 1, parallelism: 1 };

fn open(path: &Path) -> Ledger {
    Ledger::load(Arc::new(SledStore::open(path).unwrap())).unwrap()
}

fn new_key(number: usize) -> NewKey {
    NewKey::named(Kind::Secret, Mode::Live, format!("Worker {number}"))
}

/// The child of the test below: creates keys and reports each token, until it is killed.
#[test]
fn creates_keys_until_it_is_killed_when_it_is_told_a_store() {
    let Some(path) = std::env::var_os(CHILD_STORE) else { return };
    let ledger = open(Path::new(&path));
    let account = ledger.ring().accounts()[0].account.id;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (ledger, account) = (&ledger, &account);
            scope.spawn(move || {
                for number in (writer..KEYS).step_by(WRITERS) {
                    let by = By::console(Timestamp::now());
                    let (key, mint) = ledger.create_key(account, new_key(number), COST, None, &by).unwrap();
                    // Some have a second change behind them; the secret that is reported works on beside the new one.
                    if number % 3 == 0 {
                        let overlap = SignedDuration::from_hours(24);
                        ledger.rotate_key(&key.id, None, overlap, COST, None, &by).unwrap();
                    }
                    // Straight to the pipe: the harness would keep what is printed.
                    writeln!(std::io::stderr(), "created {}", mint.expose()).unwrap();
                }
            });
        }
    });
}

#[tokio::test]
async fn each_key_that_was_reported_as_created_works_after_kill_9() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    assert_eq!(keyward(&["init", "."], folder.path()).0, 0);
    let path = folder.path().join("data");
    open(&path).create_account("Vexart", COST, None, &By::console(Timestamp::now())).unwrap();
    let mut created: Vec<String> = Vec::new();
    for round in 0..20 {
        let before = created.len();
        // Anywhere in the thousand, spread over the rounds; the other writers are in the middle of theirs.
        let kill_at = 1 + (round * 487) % (KEYS - 50);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::creates_keys_until_it_is_killed_when_it_is_told_a_store", "--nocapture"])
            .env(CHILD_STORE, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            created.extend(line.unwrap().strip_prefix("created ").map(str::to_owned));
            if created.len() == before + kill_at {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success(), "round {round}: it was killed too late to be killed in the middle");
        assert!(created.len() >= before + kill_at, "round {round}: the child ended early");
        let ledger = open(&path);
        for token in &created[before..] {
            assert!(works(&ledger, token), "round {round}: a key that was reported as created does not work");
        }
        // Each change of a key is an event, and there is no event without its change: the last round's keys are enough.
        let mut keys = ledger.ring().keys();
        keys.sort_by_key(|live| std::cmp::Reverse(live.key.created_at));
        for live in keys.iter().take(2 * KEYS) {
            let events = ledger.events(About::Key(&live.key.id), None, Order::Ascending, 10).unwrap();
            assert_eq!(events.len() as u64, live.version, "round {round}: {live:?}");
            let rotated = events.iter().filter(|(_, event)| event.happened == Happened::KeyRotated).count();
            assert_eq!(rotated, usize::from(live.key.retiring.is_some()), "round {round}: {live:?}");
        }
    }
    // Once more, all of them, as a daemon decides: none was lost to a later kill.
    configure(folder.path(), &["argon2.queue = 2000"]);
    let serve = Serve::start_in(folder, vec![]);
    for tokens in created.chunks(1_000) {
        let items: Vec<_> = tokens
            .iter()
            .map(|token| json!({ "token": token, "method": "DELETE", "path": "/v1/resources/res_1" }))
            .collect();
        let url = format!("{}/v1/authorize/batch", serve.decision);
        let answer = client().post(url).json(&json!({ "items": items })).send().await.unwrap();
        let answer: serde_json::Value = answer.json().await.unwrap();
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for item in answer["items"].as_array().unwrap() {
            *reasons.entry(item["reason"].as_str().unwrap_or("none")).or_default() += 1;
        }
        assert_eq!(reasons, BTreeMap::from([("allowed", tokens.len())]));
    }
}

fn works(ledger: &Ledger, token: &str) -> bool {
    let token = Token::parse(token.as_bytes()).unwrap();
    let Some(live) = ledger.ring().find(&token.selector) else { return false };
    let Some(stored) = live.key.secret(&token.selector) else { return false };
    stored.phc.verify(&Secret::of(&token), Ceiling(COST)).unwrap()
}

#[test]
fn a_store_that_a_daemon_holds_is_left_to_it() {
    let serve = Serve::with(&[]);
    let before = listing(&serve.folder.path().join("data"));
    for arguments in [
        &["offline", "accounts", "list"][..],
        &["offline", "accounts", "create", "Other"],
        &["offline", "keys", "list"],
        &["serve", "--decision-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"],
    ] {
        let (code, output, error) = keyward(arguments, serve.folder.path());
        assert_eq!((code, output.as_str()), (1, ""), "{arguments:?}: {error}");
        assert!(error.contains("data") && error.contains("Stop that one first"), "{arguments:?}: {error}");
    }
    assert!(listing(&serve.folder.path().join("data")) == before, "nothing was touched");
    let (status, _) = serve.process.stop();
    assert!(status.success());
    assert!(serve.folder.path().join("data/keyward-closed").exists(), "it was closed, not just left");
    assert_eq!(keyward(&["offline", "accounts", "list"], serve.folder.path()).0, 0, "it is free again");
}

#[test]
fn a_store_that_cannot_be_used_is_named_with_the_way_out_and_left_as_it_is() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage, &str); 4] = [
        ("newer", |data| fs::write(data.join("keyward-store"), "format 2\n").unwrap(), "newer"),
        ("no file", |data| fs::remove_file(data.join("db")).unwrap(), "backup"),
        (
            "cut",
            |data| {
                let db = fs::OpenOptions::new().write(true).open(data.join("db")).unwrap();
                db.set_len(1_000).unwrap();
            },
            "backup",
        ),
        (
            "not a store",
            |data| {
                fs::remove_dir_all(data).unwrap();
                fs::create_dir(data).unwrap();
                fs::write(data.join("letter.txt"), "dear").unwrap();
            },
            "letter.txt",
        ),
    ];
    for (what, damage, said) in cases {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(keyward(&["init", "."], folder.path()).0, 0);
        assert_eq!(keyward(&["offline", "accounts", "create", "Vexart"], folder.path()).0, 0);
        let data = folder.path().join("data");
        damage(&data);
        let before = listing(&data);
        for arguments in [
            &["serve", "--decision-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"][..],
            &["offline", "accounts", "list"],
            &["offline", "accounts", "create", "Other"],
        ] {
            let (code, output, error) = keyward(arguments, folder.path());
            assert_eq!((code, output.as_str()), (1, ""), "{what}: {error}");
            assert!(error.contains("data") && error.contains(said), "{what}: {error}");
        }
        // sled wipes what it cannot read, so that there is a copy before it is asked.
        let copies: Vec<_> = fs::read_dir(&data)
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("damaged-"))
            .collect();
        if said == "backup" {
            assert_eq!(copies.len(), 1, "{what}: one copy, whatever is tried");
            assert!(listing(&copies[0].path()) == before, "{what}: the copy is what there was");
        } else {
            assert!(copies.is_empty() && listing(&data) == before, "{what}: nothing was touched");
        }
    }
}

/// Every file of a folder with its content.
fn listing(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().unwrap().is_dir() {
            found.extend(listing(&entry.path()).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    found
}
