//! The verdict table, row by row, and what must hold of every evaluation.

use std::sync::LazyLock;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::key::{
    Account, AccountId, Key, KeyId, Kind, Mode, NewKey, Phc, Retiring, Scope, Screen, State, StoredSecret,
};
use crate::policy::Bundle;

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// The shipped files, with more policies beside them.
pub(super) fn bundle(more: &str) -> Bundle {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap();
    let files = shipped.files().map(|(path, text)| (path.to_owned(), text.to_owned()));
    Bundle::from_files(files.chain([("policies/more.cedar".to_owned(), more.to_owned())]))
}

pub(super) fn revision(more: &str) -> Arc<Revision> {
    let built = Revision::build(&bundle(more));
    Arc::new(built.unwrap_or_else(|rejection| panic!("{}", rejection.render())))
}

fn key(kind: Kind, mode: Mode, scopes: &[&str]) -> Key {
    let account = Account::create(AccountId::random().unwrap(), "Vexart", now()).unwrap();
    let secret = StoredSecret {
        selector: Selector::random().unwrap(),
        phc: Phc::none(),
        screen: Screen::none(),
        created_at: now().into(),
        compromised_at: None,
        last_four: None,
    };
    let scopes = scopes.iter().map(|scope| (*scope).into()).collect();
    let new = NewKey { scopes, ..NewKey::named(kind, mode, "test") };
    Key::create(account.id, new, KeyId::random().unwrap(), secret, now()).unwrap()
}

fn proven(key: &Key) -> Caller {
    Caller::Proven(Arc::new(LiveKey::new(key.clone(), 1)), key.secret.selector)
}

pub(super) fn call<'a>(method: &'a str, target: &'a str) -> Call<'a> {
    Call {
        credentials: Credentials::None,
        transport: Transport::Secure,
        address: None,
        line: Some(RequestLine { method, target }),
        stated: Stated::default(),
    }
}

fn reason(call: &Call<'_>, caller: Caller) -> &'static str {
    authorize(call, caller, &revision(""), now()).reason.as_str()
}

#[test]
fn the_state_of_a_key_is_said_before_anything_about_the_call() {
    type Change = fn(&mut Key);
    let cases: [(Change, &str); 6] = [
        (|_| {}, "allowed"),
        (|key| key.change_extras(|extras| extras.expires_at = Some(now())), "key_expired"),
        (|key| key.state = State::Disabled, "key_disabled"),
        (Key::revoke, "key_revoked"),
        (|key| key.secret.compromised_at = Some(now().into()), "key_compromised"),
        (
            |key| {
                let ends_at = now() - SignedDuration::from_secs(1);
                key.retiring = Some(Box::new(Retiring { secret: key.secret.clone(), ends_at }));
            },
            "key_expired",
        ),
    ];
    for (change, expected) in cases {
        let mut key = key(Kind::Secret, Mode::Live, &[]);
        change(&mut key);
        assert_eq!(reason(&call("GET", "/v1/resources"), proven(&key)), expected);
        if expected != "allowed" {
            let worst = Call { transport: Transport::Insecure, line: None, ..call("GET", "/") };
            assert_eq!(reason(&worst, proven(&key)), expected, "and nothing is marked again");
        }
    }
}

#[test]
fn whoever_is_not_proven_gets_a_401_whatever_is_asked() {
    for call in [call("GET", "/v1/resources"), call("GET", "/nowhere"), Call { line: None, ..call("", "") }] {
        assert_eq!(reason(&call, Caller::Anonymous), "credentials_missing");
        assert_eq!(reason(&call, Caller::Malformed), "credentials_malformed");
        assert_eq!(reason(&call, Caller::Unknown), "key_unknown");
        assert_eq!(reason(&call, Caller::Distrusted), "peer_untrusted");
    }
}

#[test]
fn a_key_over_plain_http_or_over_who_knows_what_is_refused_whatever_its_kind() {
    for (kind, scopes) in [(Kind::Publishable, &[][..]), (Kind::Secret, &[]), (Kind::Restricted, &["resources:read"])] {
        let key = key(kind, Mode::Live, scopes);
        let insecure = Call { transport: Transport::Insecure, ..call("GET", "/v1/resources") };
        assert_eq!(reason(&insecure, proven(&key)), "transport_insecure");
        let unknown = Call { transport: Transport::Unknown, ..insecure };
        assert_eq!(reason(&unknown, proven(&key)), "transport_unknown");
    }
}

#[test]
fn policies_that_are_too_old_decide_about_test_data_alone_and_what_is_wrong_with_a_key_is_said_first() {
    let decide =
        |call: &Call<'_>, caller, standing| authorize_by(call, caller, &revision(""), standing, now()).reason.as_str();
    let list = call("GET", "/v1/resources");
    for (kind, scopes) in [(Kind::Publishable, &[][..]), (Kind::Secret, &[]), (Kind::Restricted, &["resources:read"])] {
        for (mode, expected) in [(Mode::Live, "policies_stale"), (Mode::Test, "allowed")] {
            let key = key(kind, mode, scopes);
            assert_eq!(decide(&list, proven(&key), Standing::TooOld), expected, "{kind:?} {mode:?}");
            assert_eq!(decide(&list, proven(&key), Standing::Current), "allowed", "{kind:?} {mode:?}");
        }
    }
    let mut key = key(Kind::Secret, Mode::Live, &[]);
    let insecure = Call { transport: Transport::Insecure, ..list };
    assert_eq!(decide(&insecure, proven(&key), Standing::TooOld), "transport_insecure");
    assert_eq!(decide(&call("GET", "/nowhere"), proven(&key), Standing::TooOld), "policies_stale");
    key.revoke();
    assert_eq!(decide(&list, proven(&key), Standing::TooOld), "key_revoked");
    assert_eq!(decide(&list, Caller::Anonymous, Standing::TooOld), "credentials_missing");
}

#[test]
fn a_key_with_an_address_list_works_from_there_alone() {
    let mut key = key(Kind::Secret, Mode::Live, &[]);
    key.change_extras(|extras| extras.addresses = ["192.0.2.0/24".parse().unwrap()].into());
    for (address, expected) in
        [(Some("192.0.2.9"), "allowed"), (Some("198.51.100.1"), "address_not_allowed"), (None, "address_not_allowed")]
    {
        let call = Call { address: address.map(|text| text.parse().unwrap()), ..call("GET", "/v1/resources") };
        assert_eq!(reason(&call, proven(&key)), expected);
    }
}

#[test]
fn a_call_that_cannot_be_read_in_one_way_is_refused() {
    let key = key(Kind::Secret, Mode::Live, &[]);
    for (call, expected) in [
        (Call { line: None, ..call("", "") }, "request_unclear"),
        (call("GET", "/v1/resources/%2e%2e/admin"), "path_ambiguous"),
        (call("GET", "/v1/resources%2fx"), "path_ambiguous"),
        (call("GET", ""), "path_ambiguous"),
        (call("get", "/v1/resources"), "no_route"),
        (call("GET/admin", "/v1/resources"), "no_route"),
        (call("GET\r\nX: 1", "/v1/resources"), "no_route"),
        (call("TRACE", "/v1/resources"), "no_route"),
        (call("GET", "/v1/unknown?x=/v1/resources"), "no_route"),
    ] {
        assert_eq!(reason(&call, proven(&key)), expected, "{call:?}");
    }
}

#[test]
fn an_erroring_forbid_is_a_deny_and_not_skipped() {
    let failing = "@id(\"overflow\") forbid (principal, action, resource) \
                   when { context.time.toTime().toMilliseconds() + 9223372036854775807 > 0 };";
    let key = key(Kind::Secret, Mode::Live, &[]);
    let verdict = authorize(&call("GET", "/v1/resources"), proven(&key), &revision(failing), now());
    assert_eq!(verdict.reason, Reason::PolicyError);
    assert_eq!(verdict.policies.iter().map(ToString::to_string).collect::<Vec<_>>(), ["overflow"]);
}

#[test]
fn a_public_route_is_one_line_of_policy() {
    let public = "permit (principal == DocsApi::Anonymous::\"anonymous\", \
                  action == DocsApi::Action::\"listResources\", resource);";
    let decide = |call: Call<'_>| authorize(&call, Caller::Anonymous, &revision(public), now()).reason;
    assert_eq!(decide(call("GET", "/v1/resources")), Reason::Allowed);
    assert_eq!(decide(call("GET", "/v1/resources/res_1")), Reason::CredentialsMissing);
    let insecure = Call { transport: Transport::Insecure, ..call("GET", "/v1/resources") };
    assert_eq!(decide(insecure), Reason::CredentialsMissing, "the guarantee demands HTTPS of everybody");
    let unknown = Call { transport: Transport::Unknown, ..call("GET", "/v1/resources") };
    assert_eq!(decide(unknown), Reason::TransportUnknown);
}

#[test]
fn the_scopes_that_would_help_are_found_by_asking_the_policies() {
    let either = "permit (principal in DocsApi::Scope::\"webhooks:write\", \
                  action == DocsApi::Action::\"enqueueJob\", resource) when { resource in principal.environment };";
    let key = key(Kind::Restricted, Mode::Live, &["resources:read"]);
    let verdict = authorize(&call("POST", "/v1/jobs"), proven(&key), &revision(either), now());
    assert_eq!(verdict.reason, Reason::ScopeMissing);
    assert_eq!(verdict.missing_scopes.iter().map(Scope::as_str).collect::<Vec<_>>(), ["jobs:write", "webhooks:write"]);
    let forbidden = "forbid (principal, action == DocsApi::Action::\"enqueueJob\", resource);";
    let verdict = authorize(&call("POST", "/v1/jobs"), proven(&key), &revision(forbidden), now());
    assert_eq!((verdict.reason, verdict.missing_scopes.len()), (Reason::PolicyDenied, 0), "no scope helps");
}

/// Policies that make some routes depend on what a remembered evaluation would get wrong.
const VARIED: &str = r#"
@id("one-item") forbid (principal, action == DocsApi::Action::"getResource", resource == DocsApi::Resource::"res_2");
@id("from-here") forbid (principal is DocsApi::SecretKey, action == DocsApi::Action::"listJobs", resource)
unless { context has ip && context.ip == ip("192.0.2.1") };
@id("not-that-path") forbid (principal, action == DocsApi::Action::"getWebhook", resource) when { context.path like "*_2" };
@id("working-hours") forbid (principal, action == DocsApi::Action::"enqueueJob", resource)
when { context.time >= datetime("2027-01-15T08:00:00Z") };
"#;

static REVISIONS: LazyLock<[Arc<Revision>; 2]> = LazyLock::new(|| [revision(VARIED), revision("")]);

proptest! {
    /// A long life of one key's record: whatever was asked before, the answer is that of a fresh record.
    #[test]
    fn a_remembered_evaluation_is_the_one_that_would_be_made(
        kind in 0..3_usize,
        calls in prop::collection::vec((0..6_usize, 1..3_u8, any::<bool>(), 0..3_i64, 0..3_usize, any::<bool>()), 1..40),
    ) {
        let kind = [Kind::Publishable, Kind::Secret, Kind::Restricted][kind];
        let scopes: &[&str] = if kind == Kind::Restricted { &["resources:read", "webhooks:write", "jobs:write"] } else { &[] };
        let key = key(kind, Mode::Live, scopes);
        let used = Arc::new(LiveKey::new(key.clone(), 1));
        for (route, item, from_here, hour, place, other) in calls {
            let (method, path) = [
                ("GET", format!("/v1/resources/res_{item}")),
                ("GET", "/v1/resources".into()),
                ("GET", "/v1/jobs".into()),
                ("GET", format!("/v1/webhooks/wh_{item}")),
                ("POST", "/v1/jobs".into()),
                ("DELETE", format!("/v1/resources/res_{item}")),
            ][route].clone();
            let test = EnvironmentId { mode: Mode::Test, ..key.environment() };
            let call = Call {
                address: from_here.then(|| "192.0.2.1".parse().unwrap()),
                stated: Stated { item: None, environment: [None, Some(key.environment()), Some(test)][place] },
                ..call(method, &path)
            };
            let at = now() + SignedDuration::from_hours(hour);
            let revision = &REVISIONS[usize::from(other)];
            let remembering = authorize(&call, Caller::Proven(Arc::clone(&used), key.secret.selector), revision, at);
            let fresh = authorize(&call, proven(&key), revision, at);
            prop_assert_eq!(remembering.reason, fresh.reason);
            prop_assert_eq!(remembering.policies, fresh.policies);
            prop_assert_eq!(remembering.missing_scopes, fresh.missing_scopes);
        }
    }
}
