//! What must hold of what is kept, and of what is decided again.

use std::path::Path;
use std::time::Instant;

use super::*;
use crate::authorize::credentials::Credentials;
use crate::authorize::verdict::{Outcome, Reason};
use crate::authorize::{Caller, RequestLine, Stated, Transport, authorize};
use crate::key::{
    Account, AccountId, EnvironmentId, Key, KeyId, Kind, Mint, Mode, NewKey, Phc, Scope, Screen, Selector, StoredSecret,
};
use crate::policy::{Bundle, Revision};
use crate::ring::LiveKey;

/// Policies that look at everything that there is to look at, beside the shipped ones.
const MORE: &str = r#"
    @id("from-here") forbid (principal is DocsApi::SecretKey, action == DocsApi::Action::"getJob", resource)
        unless { context has ip && context.ip.isInRange(ip("192.0.2.0/24")) };
    @id("this-item") forbid (principal, action == DocsApi::Action::"getResource", resource == DocsApi::Resource::"res_1");
    @id("this-path") forbid (principal, action == DocsApi::Action::"getWebhook", resource) when { context.path like "*_1" };
    @id("not-yet") forbid (principal, action == DocsApi::Action::"enqueueJob", resource)
        when { context.time < datetime("2024-01-01T00:00:00Z") };
    @id("public") permit (principal == DocsApi::Anonymous::"anonymous", action == DocsApi::Action::"listResources", resource);
"#;

fn revision(more: &str) -> Arc<Revision> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap();
    let files = shipped.files().map(|(path, text)| (path.to_owned(), text.to_owned()));
    let more = (!more.is_empty()).then(|| ("policies/more.cedar".to_owned(), more.to_owned()));
    Arc::new(Revision::build(&Bundle::from_files(files.chain(more))).unwrap())
}

fn key(kind: Kind, mode: Mode, scopes: &[&str]) -> (Arc<LiveKey>, Selector) {
    let now = Timestamp::UNIX_EPOCH;
    let account = Account::create(AccountId::random().unwrap(), "Vexart", now).unwrap();
    let mint = Mint::new(kind, mode).unwrap();
    let secret =
        StoredSecret { phc: Phc::none(), screen: Screen::none(), ..StoredSecret::new(&mint, Phc::none(), now) };
    let scopes = scopes.iter().map(|scope| (*scope).into()).collect();
    let new = NewKey { scopes, ..NewKey::named(kind, mode, "worker") };
    let key = Key::create(account.id, new, KeyId::random().unwrap(), secret, now).unwrap();
    (Arc::new(LiveKey::new(key, 1)), mint.selector())
}

/// One with nobody who takes decisions in but whoever reads.
fn recorder(most: usize) -> Arc<Recorder> {
    Recorder::new(most, IntCounter::new("dropped", "dropped").unwrap())
}

fn get(target: &str) -> Call<'_> {
    Call {
        credentials: Credentials::None,
        transport: Transport::Secure,
        address: None,
        line: Some(RequestLine { method: "GET", target }),
        stated: Stated::default(),
    }
}

/// Decides as a surface does, and offers it.
fn decide(
    recorder: &Recorder,
    revision: &Arc<Revision>,
    by: Option<&(Arc<LiveKey>, Selector)>,
    call: &Call<'_>,
    id: &str,
) {
    let caller = by.map_or(Caller::Anonymous, |(live, selector)| Caller::Proven(Arc::clone(live), *selector));
    recorder.offer(authorize(call, caller, revision, Timestamp::now()), call, id);
}

#[test]
fn a_record_is_small() {
    assert!(size_of::<Record>() <= 80, "{}", size_of::<Record>());
    assert!(size_of::<Offered>() <= 256, "{}", size_of::<Offered>());
}

#[test]
fn whoever_was_answered_finds_their_decision_and_what_it_turned_on() {
    let (revision, recorder) = (revision(""), recorder(10));
    let by = key(Kind::Restricted, Mode::Test, &["resources:read"]);
    let account = by.0.key.account;
    let environment = Some(EnvironmentId { account, mode: Mode::Live });
    let call = Call {
        address: Some("192.0.2.7".parse().unwrap()),
        stated: Stated { item: Some("res_2"), environment },
        ..get("/v1//resources/res%5F1?token=sk_live_x")
    };
    decide(&recorder, &revision, Some(&by), &call, "request-1");
    let record = recorder.find("request-1").unwrap();
    let told = serde_json::to_value(Told::from(&record)).unwrap();
    let expected = serde_json::json!({
        "id": record.id().to_string(), "time": record.time(), "request_id": "request-1",
        "outcome": "forbidden", "reason": "policy_denied",
        "key": by.0.key.id, "kind": "restricted", "environment": format!("{account}/test"), "scopes": ["resources:read"],
        "action": "getResource", "method": "GET", "path": "/v1/resources/res_1",
        "resource": { "id": "res_2", "environment": format!("{account}/live") },
        "secure": true, "address": "192.0.2.7",
        "policies": ["guarantee-restricted-stays-in-its-environment"], "revision": revision.digest(),
    });
    assert_eq!(told, expected);
    assert_eq!(recorder.get(record.id()).unwrap().request_id(), "request-1");
    assert!(recorder.find("request-2").is_none());
}

#[test]
fn no_token_and_no_query_is_kept_wherever_it_was_stated() {
    let (revision, recorder) = (revision(""), recorder(100));
    let by = key(Kind::Secret, Mode::Live, &[]);
    let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
    let token = mint.expose();
    let encoded = token.replace('_', "%5F");
    let targets =
        ["/v1/resources/{}", "/v1/resources?token={}", "/{}/../x", "/x#{}", "/{}/?a", "https://{}@host/x", "{}"];
    for target in targets.into_iter().flat_map(|target| [target.replace("{}", token), target.replace("{}", &encoded)]) {
        let call = Call {
            line: Some(RequestLine { method: token, target: &target }),
            stated: Stated { item: Some(token), environment: None },
            ..get("/")
        };
        for by in [None, Some(&by)] {
            decide(&recorder, &revision, by, &call, "request");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    recorder.save(&file).unwrap();
    let all = std::fs::read_to_string(file).unwrap();
    assert_eq!(all.lines().count(), 2 + 28);
    assert!(!all.contains(&mint.expose()[24..40]), "{all}");
}

#[test]
fn what_is_too_long_is_cut_and_is_not_decided_again() {
    let (revision, recorder) = (revision(""), recorder(100));
    let by = key(Kind::Secret, Mode::Live, &[]);
    let long = format!("/v1/resources/{}", "a".repeat(5_000));
    let item = "é".repeat(600);
    let calls =
        [get(&long), Call { stated: Stated { item: Some(&item), environment: None }, ..get("/v1/resources/a") }];
    for call in &calls {
        decide(&recorder, &revision, Some(&by), call, &"r".repeat(500));
    }
    let mut redecider = Redecider::new(revision).unwrap();
    for record in recorder.page(&Filter::default(), None, 10) {
        assert_eq!((record.path(), record.ruling().reason), (None, Reason::Allowed));
        assert!(record.stated_path().unwrap().starts_with("/v1/resources/a"));
        assert!(record.texts.len() < 3_000);
        assert_eq!(redecider.decide(&record), None);
    }
}

#[test]
fn without_room_a_decision_is_dropped_and_counted_and_nobody_waits() {
    let (revision, recorder) = (revision(""), recorder(10_000));
    let by = key(Kind::Secret, Mode::Live, &[]);
    for _ in 0..QUEUE + 7 {
        decide(&recorder, &revision, Some(&by), &get("/v1/resources"), "r");
    }
    assert_eq!(recorder.dropped.get(), 7);
    assert_eq!(recorder.len(), QUEUE);
}

#[test]
fn a_thread_takes_decisions_in_without_anybody_who_reads_also_after_a_sleep() {
    let (revision, recorder) = (revision(""), recorder(100_000));
    let mut heard = recorder.listen();
    recorder.start().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    for _ in 0..2 {
        while !recorder.is_asleep.load(Ordering::Relaxed) {
            assert!(Instant::now() < until, "it never rests");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        decide(&recorder, &revision, None, &get("/v1/resources"), "r");
        assert_eq!(heard.blocking_recv().unwrap().len(), 1);
    }
}

#[test]
fn a_listener_that_does_not_listen_loses_the_oldest_and_holds_nobody_up() {
    let (revision, recorder) = (revision(""), recorder(100_000));
    let mut heard = recorder.listen();
    let by = key(Kind::Secret, Mode::Live, &[]);
    for number in 0..3 * BATCHES {
        decide(&recorder, &revision, Some(&by), &get("/v1/resources"), &number.to_string());
        assert_eq!(recorder.len(), number + 1);
    }
    assert!(matches!(heard.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
    let oldest = heard.try_recv().unwrap();
    assert_eq!(oldest[0].request_id(), (2 * BATCHES).to_string());
    assert_eq!(recorder.dropped.get(), 0);
}

#[test]
fn one_that_is_off_keeps_nothing() {
    let (revision, recorder) = (revision(""), recorder(0));
    recorder.start().unwrap();
    decide(&recorder, &revision, None, &get("/v1/resources"), "r");
    assert!(recorder.is_empty() && recorder.queue.is_empty());
}

#[test]
fn what_is_rare_survives_a_flood_of_what_is_common() {
    let (revision, recorder) = (revision(""), recorder(1_000));
    let rare = key(Kind::Restricted, Mode::Live, &["resources:read"]);
    decide(&recorder, &revision, Some(&rare), &get("/v1/jobs"), "denied");
    decide(&recorder, &revision, Some(&rare), &get("/v1/resources"), "allowed");
    let common: Vec<_> = (0..20).map(|_| key(Kind::Secret, Mode::Live, &[])).collect();
    for round in 0..200 {
        for by in &common {
            for target in ["/v1/resources", "/v1/jobs"] {
                decide(&recorder, &revision, Some(by), &get(target), &round.to_string());
            }
        }
        let _ = recorder.len();
    }
    // The newest, and three of each sort.
    assert_eq!(recorder.len(), 1_000 + 20 * 2 * 3 + 2);
    assert_eq!(recorder.find("denied").unwrap().ruling().reason.outcome(), Outcome::Forbidden);
    assert!(recorder.find("allowed").is_some());
    let filter = Filter { key: Some(rare.0.key.id), outcome: Some(Outcome::Allow), ..Filter::default() };
    assert_eq!(recorder.page(&filter, None, 10).len(), 1);
}

#[test]
fn samples_are_bounded_however_many_sorts_there_are_and_the_rare_have_their_chance() {
    let (revision, recorder) = (revision(""), recorder(100));
    for _ in 0..2_000 {
        decide(&recorder, &revision, Some(&key(Kind::Secret, Mode::Live, &[])), &get("/v1/resources"), "r");
        let _ = recorder.len();
    }
    assert_eq!(recorder.len(), 100 + 10);
    let oldest = recorder.chunk(None, 1).remove(0);
    let newest = recorder.page(&Filter::default(), None, 1).remove(0);
    assert!(newest.id().0 - oldest.id().0 > 110, "a sample is not always of the last that had to make room");
    let kept = recorder.all();
    assert!(kept.shared.sizes().0 < 2_000, "what nobody needs any more is forgotten");
}

#[test]
fn pages_and_chunks_tell_everything_once_and_in_order() {
    let (revision, recorder) = (revision(""), recorder(50));
    let keys: Vec<_> = (0..4).map(|_| key(Kind::Secret, Mode::Live, &[])).collect();
    for number in 0..500 {
        decide(&recorder, &revision, Some(&keys[number % 4]), &get("/v1/resources"), &number.to_string());
    }
    let all: Vec<_> = recorder.chunk(None, 1_000).iter().map(Record::id).collect();
    assert_eq!(all.len(), 50 + 4 * 3);
    assert!(all.is_sorted_by(|a, b| a < b));
    let (mut newest, mut before) = (Vec::new(), None);
    loop {
        let page = recorder.page(&Filter::default(), before, 7);
        newest.extend(page.iter().map(Record::id));
        let Some(last) = page.last() else { break };
        before = Some(last.id());
    }
    newest.reverse();
    assert_eq!(newest, all);
    let (mut chunks, mut after) = (Vec::new(), None);
    loop {
        let chunk = recorder.chunk(after, 9);
        chunks.extend(chunk.iter().map(Record::id));
        let Some(last) = chunk.last() else { break };
        after = Some(last.id());
    }
    assert_eq!(chunks, all);
}

#[test]
fn a_filter_takes_those_of_which_all_that_it_says_holds() {
    let (revision, recorder) = (revision(""), recorder(100));
    let keys = [key(Kind::Secret, Mode::Live, &[]), key(Kind::Restricted, Mode::Live, &["resources:read"])];
    for by in [Some(&keys[0]), Some(&keys[1]), None] {
        for target in ["/v1/resources", "/v1/jobs", "/v0"] {
            decide(&recorder, &revision, by, &get(target), "r");
        }
    }
    let all = Filter::default();
    let soon = Timestamp::now() + jiff::SignedDuration::from_hours(1);
    for (filter, expected) in [
        (all.clone(), 9),
        (Filter { key: Some(keys[0].0.key.id), ..all.clone() }, 3),
        (Filter { account: Some(keys[1].0.key.account), ..all.clone() }, 3),
        (Filter { outcome: Some(Outcome::Allow), ..all.clone() }, 3),
        (Filter { reason: Some(Reason::NoRoute), ..all.clone() }, 2),
        (Filter { action: Some("listJobs".into()), ..all.clone() }, 3),
        (Filter { action: Some("listJobs".into()), outcome: Some(Outcome::Unauthenticated), ..all.clone() }, 1),
        (Filter { since: Some(soon), ..all.clone() }, 0),
    ] {
        assert_eq!(recorder.page(&filter, None, 100).len(), expected, "{filter:?}");
        let totals = recorder.series_of(&filter, Timestamp::now()).totals(Timestamp::UNIX_EPOCH);
        assert_eq!(totals.reasons.values().sum::<u64>(), expected as u64, "{filter:?}");
    }
}

#[test]
fn decisions_are_counted_by_the_minute_for_a_day() {
    let (revision, recorder) = (revision(""), recorder(2));
    let by = key(Kind::Secret, Mode::Live, &[]);
    let start: Timestamp = "2027-01-31T10:20:30Z".parse().unwrap();
    let at = |minutes: i64| start + jiff::SignedDuration::from_mins(minutes);
    // One of a minute before comes late; one of the day before comes much too late.
    for minutes in [0, 1, 1, 3, 2, 24 * 60 + 1, 0] {
        let caller = Caller::Proven(Arc::clone(&by.0), by.1);
        recorder.offer(authorize(&get("/v1/jobs"), caller, &revision, at(minutes)), &get("/v1/jobs"), "r");
    }
    let series = recorder.series(at(24 * 60 + 1));
    let counted: Vec<_> =
        series.minutes().map(|minute| minute.reasons().map(|(_, count)| count).sum::<u32>()).collect();
    assert_eq!(counted, [1, 1, 1], "the minutes 2, 3 and 1441: a day before that is over");
    let totals = series.totals(at(3) - jiff::SignedDuration::from_secs(30));
    assert_eq!(totals.reasons, [("allowed".into(), 2)].into());
    assert_eq!(totals.actions, [("listJobs".to_owned(), [("allow".into(), 2)].into())].into());
}

#[test]
fn decisions_under_a_clock_that_is_wrong_for_a_while_take_no_counts_away() {
    let (revision, recorder) = (revision(""), recorder(2));
    let by = key(Kind::Secret, Mode::Live, &[]);
    let start: Timestamp = "2027-01-31T10:20:30Z".parse().unwrap();
    let at = |minutes: i64| start + jiff::SignedDuration::from_mins(minutes);
    let decide = |minutes: i64| {
        let caller = Caller::Proven(Arc::clone(&by.0), by.1);
        recorder.offer(authorize(&get("/v1/jobs"), caller, &revision, at(minutes)), &get("/v1/jobs"), "r");
    };
    let counted = |recorder: &Recorder, minutes: i64| {
        recorder.series(at(minutes)).totals(Timestamp::UNIX_EPOCH).reasons.values().sum::<u64>()
    };
    let wrong: Vec<i64> =
        (0..300).map(|more| 3 * 24 * 60 + more).chain((0..300).map(|more| more - 9 * 24 * 60)).collect();
    (0..1_000).for_each(&decide);
    wrong.iter().copied().for_each(&decide);
    assert_eq!(counted(&recorder, 1_000), 1_000, "what was counted before is still there");
    (1_000..3_000).for_each(&decide);
    assert_eq!(counted(&recorder, 2_999), 24 * 60, "and what comes after is counted");
    // A restart keeps it no longer than that.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recorded");
    decide(9 * 24 * 60);
    recorder.save(&file).unwrap();
    let after = self::recorder(2);
    after.restore(&file).unwrap();
    assert_eq!(counted(&after, 2_999), 24 * 60 - 1);
}

#[test]
fn what_is_recorded_survives_a_restart_whole_or_not_at_all() {
    use std::os::unix::fs::PermissionsExt;
    let (revision, before) = (revision(MORE), recorder(20));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recorded");
    let keys = [key(Kind::Secret, Mode::Live, &[]), key(Kind::Restricted, Mode::Test, &["jobs:write"])];
    for number in 0..100 {
        let target = ["/v1/resources", "/v1/jobs/j%20é", "/a;b", "/v1/../x", "/v1/jobs"][number % 5];
        decide(&before, &revision, [Some(&keys[0]), Some(&keys[1]), None][number % 3], &get(target), "r");
    }
    let tell = |recorder: &Recorder| recorder.chunk(None, 1_000).iter().map(Told::from).collect::<Vec<_>>();
    before.save(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let whole = std::fs::read(&file).unwrap();
    let after = recorder(20);
    after.restore(&file).unwrap();
    let now = Timestamp::now();
    assert_eq!((tell(&after), after.series(now)), (tell(&before), before.series(now)));
    assert!(!file.exists(), "it is not found again by one that comes after a crash");
    after.restore(&file).unwrap();
    // What comes now is newer than what was.
    decide(&after, &revision, None, &get("/v1/resources"), "new");
    assert_eq!(after.page(&Filter::default(), None, 1)[0].request_id(), "new");
    // Any damage is noticed.
    for damage in 0..200 {
        let mut bytes = whole.clone();
        let at = damage * bytes.len() / 200;
        if damage % 2 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1;
        }
        std::fs::write(&file, &bytes).unwrap();
        let after = recorder(20);
        assert!(after.restore(&file).is_err(), "{damage}");
        assert!(after.is_empty() && after.series(now) == Series::default() && !file.exists());
    }
    // A file that cannot be written leaves nothing behind.
    assert!(before.save(&folder.path().join("nowhere/recorded")).is_err());
}

/// Every call that can be made of these parts.
fn all_calls(keys: &[(Arc<LiveKey>, Selector)]) -> Vec<(Option<usize>, Call<'static>, Timestamp)> {
    let lines = [
        ("GET", "/v1/resources"),
        ("GET", "/v1/resources/res_1"),
        ("GET", "/v1/resources/res%5F2"),
        ("GET", "/v1/jobs/%2541"),
        ("GET", "/v1//webhooks/wh_1"),
        ("GET", "/v1/webhooks/wh_2"),
        ("POST", "/v1/jobs"),
        ("DELETE", "/v1/jobs"),
        ("GET", "/a;b"),
    ];
    let mut all = Vec::new();
    for by in [None, Some(0), Some(1), Some(2), Some(3)] {
        let account = keys[by.unwrap_or_default()].0.key.account;
        for (method, target) in lines {
            for transport in [Transport::Secure, Transport::Insecure, Transport::Unknown] {
                for address in [None, Some("192.0.2.7"), Some("198.51.100.1")] {
                    for item in [None, Some("res_1"), Some("res_2")] {
                        for environment in [None, Some(Mode::Live), Some(Mode::Test)] {
                            for at in [Timestamp::UNIX_EPOCH, "2027-01-31T10:20:30Z".parse().unwrap()] {
                                let environment = environment.map(|mode| EnvironmentId { account, mode });
                                let call = Call {
                                    transport,
                                    address: address.map(|address| address.parse().unwrap()),
                                    line: Some(RequestLine { method, target }),
                                    stated: Stated { item, environment },
                                    ..get("")
                                };
                                all.push((by, call, at));
                            }
                        }
                    }
                }
            }
        }
    }
    all
}

/// The claim on which replay and shadow rest: what is decided again from a record, remembered answers included, is what the
/// authorizer says of the call itself under the other revision, whichever of two alike is asked first.
#[test]
fn what_is_decided_again_is_what_would_have_been_decided() {
    let keys = [
        key(Kind::Publishable, Mode::Live, &[]),
        key(Kind::Secret, Mode::Live, &[]),
        key(Kind::Secret, Mode::Test, &[]),
        key(Kind::Restricted, Mode::Test, &["jobs:write", "resources:read"]),
    ];
    let (live, candidate, recorder) = (revision(""), revision(MORE), recorder(100_000));
    let caller = |by: Option<usize>| {
        by.and_then(|by| keys.get(by))
            .map_or(Caller::Anonymous, |(live, selector)| Caller::Proven(Arc::clone(live), *selector))
    };
    let calls = all_calls(&keys);
    let mut expected = Vec::new();
    for (by, call, at) in &calls {
        recorder.offer(authorize(call, caller(*by), &live, *at), call, "r");
        let _ = recorder.len();
        expected.push(Decided::from(authorize(call, caller(*by), &candidate, *at)));
    }
    let records = recorder.chunk(None, calls.len());
    assert_eq!(records.len(), calls.len());
    let (mut reader, mut again) = (Reader::default(), 0);
    for backwards in [false, true] {
        let mut redecider = Redecider::new(Arc::clone(&candidate)).unwrap();
        let mut order: Vec<_> = (0..calls.len()).collect();
        if backwards {
            order.reverse();
        }
        for at in order {
            let (record, expected) = (&records[at], &expected[at]);
            // Told and read back, the second time.
            let told = backwards.then(|| reader.line(&serde_json::to_vec(&Told::from(record)).unwrap()).unwrap());
            match redecider.decide(told.as_ref().unwrap_or(record)) {
                Some(decided) => {
                    assert_eq!(*decided, *expected, "{:?} {record:?}", calls[at]);
                    again += 1;
                }
                // Then it was not for policies to say, and is the same under all of them.
                None => assert_eq!(record.ruling().reason, expected.reason, "{:?}", calls[at]),
            }
        }
    }
    assert!(again > calls.len() / 2, "{again} of {} twice", calls.len());
}

#[test]
fn a_comparison_counts_what_changes_and_groups_it_with_examples() {
    let (live, candidate) = (revision(""), revision(MORE));
    let recorder = recorder(1_000);
    let by = key(Kind::Secret, Mode::Live, &[]);
    for _ in 0..5 {
        decide(&recorder, &live, Some(&by), &get("/v1/resources/res_1"), "item");
        decide(&recorder, &live, Some(&by), &get("/v1/resources/res_2"), "other");
        decide(&recorder, &live, None, &get("/v1/resources"), "public");
        decide(&recorder, &live, Some(&by), &Call { transport: Transport::Unknown, ..get("/v1/jobs") }, "unknown");
    }
    let mut redecider = Redecider::new(candidate).unwrap();
    let (mut one, mut other) = (Comparison::default(), Comparison::default());
    for (at, record) in recorder.chunk(None, 1_000).iter().enumerate() {
        let decided = redecider.decide(record);
        if at < 7 { &mut one } else { &mut other }.note(record, decided.as_deref());
    }
    one.merge(other);
    let report = serde_json::to_value(one.report()).unwrap();
    assert_eq!(report["decided_again"], 15);
    assert_eq!(report["not_decided_again"], serde_json::json!({ "transport_unknown": 5 }));
    let changes = serde_json::json!({
        "deny_to_allow": 5, "allow_to_deny": 5, "other_reason": 0, "other_policies": 0, "same": 5
    });
    assert_eq!(report["changes"], changes);
    let [widened, narrowed] = report["groups"].as_array().unwrap().as_slice() else { panic!("{report:#}") };
    assert_eq!((&widened["change"], &widened["action"]), (&"deny_to_allow".into(), &"listResources".into()));
    assert_eq!(widened["after"], serde_json::json!({ "reason": "allowed", "policies": ["public"] }));
    assert_eq!(narrowed["after"], serde_json::json!({ "reason": "policy_denied", "policies": ["this-item"] }));
    assert_eq!((&narrowed["kind"], &narrowed["count"]), (&"secret".into(), &5.into()));
    assert_eq!(narrowed["examples"].as_array().unwrap().len(), 3);
    assert_eq!(narrowed["examples"][0]["path"], "/v1/resources/res_1");
}

#[test]
fn the_busiest_are_told_in_one_pass_over_all_that_is_kept() {
    let (revision, recorder) = (revision(""), recorder(100_000));
    let keys = [key(Kind::Secret, Mode::Live, &[]), key(Kind::Restricted, Mode::Test, &["jobs:write"])];
    for number in 0..3_000_u32 {
        let call = Call { address: Some(std::net::Ipv4Addr::from(number % 20).into()), ..get("/v1/jobs") };
        decide(&recorder, &revision, Some(&keys[usize::from(number % 3 == 0)]), &call, "r");
        // What waits is taken in by whoever looks.
        if number % 1_000 == 0 {
            assert!(!recorder.is_empty());
        }
    }
    let top = recorder.top(&Filter::default(), 10);
    assert_eq!((top.recorded, top.since), (3_000, recorder.chunk(None, 1).first().map(Record::time)));
    let busiest: Vec<_> = top.keys.iter().map(|((id, _), tally)| (*id, tally.allow, tally.forbidden)).collect();
    assert_eq!(busiest, [(keys[0].0.key.id, 2_000, 0), (keys[1].0.key.id, 0, 1_000)]);
    assert_eq!(
        top.actions.iter().map(|(name, tally)| (&**name, tally.sum())).collect::<Vec<_>>(),
        [("listJobs", 3_000)]
    );
    assert_eq!(top.addresses.len(), 10);
    assert!(top.addresses.iter().all(|(_, tally)| tally.sum() == 150));
    let of_one = Filter { key: Some(keys[1].0.key.id), ..Filter::default() };
    assert_eq!(recorder.top(&of_one, 10).recorded, 1_000);
}

/// `cargo test --release --lib -- --ignored --nocapture busiest_of_many`
#[test]
#[ignore = "a measurement"]
fn the_busiest_of_many() {
    let (revision, recorder) = (revision(""), recorder(100_000));
    let keys: Vec<_> = (0..1_000).map(|_| key(Kind::Secret, Mode::Live, &[])).collect();
    for number in 0..100_000_u32 {
        let call = Call { address: Some(std::net::Ipv4Addr::from(number % 30_000).into()), ..get("/v1/jobs") };
        decide(&recorder, &revision, Some(&keys[number as usize % keys.len()]), &call, "r");
        if number % 1_000 == 0 {
            assert!(!recorder.is_empty());
        }
    }
    let began = Instant::now();
    let top = recorder.top(&Filter::default(), 10);
    println!("{} records in {:?}", top.recorded, began.elapsed());
}

#[test]
fn scopes_are_suggested_that_allow_what_was_allowed_and_of_which_none_can_go() {
    let (revision, recorder) = (revision(""), recorder(100));
    let all = ["jobs:write", "resources:read", "resources:write", "webhooks:write"];
    let restricted = key(Kind::Restricted, Mode::Test, &all[..3]);
    let secret = key(Kind::Secret, Mode::Live, &[]);
    let write = |path| Call { line: Some(RequestLine { method: "POST", target: path }), ..get(path) };
    for by in [&restricted, &secret] {
        for call in [get("/v1/resources"), get("/v1/resources"), get("/v1/nowhere"), write("/v1/webhooks")] {
            decide(&recorder, &revision, Some(by), &call, "r");
        }
    }
    let scopes = |names: &[&str]| names.iter().map(|name| Scope::from(*name)).collect::<Vec<_>>();
    for (by, has, expected) in
        [(&restricted, &all[..3], &["resources:read"][..]), (&secret, &all, &["resources:read", "webhooks:write"])]
    {
        let facts = KeyFacts::of(&by.0.key);
        let records = recorder.page(&Filter { key: Some(facts.id), ..Filter::default() }, None, 100);
        let found = suggest(&records, &facts, &scopes(has), |_| 1, &revision).unwrap();
        assert_eq!((found.decisions, found.actions.get("listResources")), (4, Some(&2)));
        assert_eq!((found.scopes, found.uncovered), (scopes(expected), vec![]));
        let none = suggest(&[], &facts, &scopes(has), |_| 1, &revision).unwrap();
        assert_eq!(none, Suggestion::default());
    }
}
