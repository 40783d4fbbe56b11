//! Policy, schema and policy-test texts: they are refused with reasons or become a revision that decides, on no more
//! stack than the daemon's threads have.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use keyward::activate::vet;
use keyward::authorize::credentials::Credentials;
use keyward::authorize::verdict::{Outcome, Reason};
use keyward::authorize::{Call, Caller, RequestLine, STACK, Stated, Transport, authorize};
use keyward::key::{Account, AccountId, Key, KeyId, Kind, Mode, NewKey, Phc, Scope, Screen, Selector, StoredSecret};
use keyward::policy::{Bundle, Rejection, Revision, format, lint};
use keyward::ring::LiveKey;

/// Between policies, schema and policy tests in one input.
const SEPARATOR: &str = "\n====\n";
const SCHEMA: &str = include_str!("../../schemas/docs-api.cedarschema");

/// Checks the input as a reload does. It holds policies, then perhaps a schema instead of the shipped one, then perhaps
/// policy tests.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(3, SEPARATOR);
    let policies = parts.next().unwrap_or_default();
    let schema = parts.next().unwrap_or(SCHEMA);
    let mut files = vec![("schemas/a.cedarschema", schema), ("policies/a.cedar", policies)];
    files.extend(parts.next().map(|tests| ("policies/tests/a.toml", tests)));
    let bundle = Bundle::from_files(files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())));
    let work = move || {
        bundle.policies().for_each(|(path, text)| is_laid_out_for_good(path, text));
        match vet::check(&bundle) {
            Ok(revision) => {
                decides(&revision);
                lint(&bundle, &revision);
            }
            Err(rejection) => gives_reasons(&rejection, &bundle),
        }
    };
    // On a thread that has what the daemon's have: running out of it ends the process, which is what is looked for.
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(work).expect("a thread can be started");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A layout is laid out already.
fn is_laid_out_for_good(path: &str, text: &str) {
    if let Ok(laid_out) = format(path, text) {
        assert_eq!(format(path, &laid_out), Ok(laid_out));
    }
}

fn gives_reasons(rejection: &Rejection, bundle: &Bundle) {
    assert!(!rejection.problems.is_empty());
    for problem in &rejection.problems {
        assert!(!problem.message.is_empty());
        let folder = |path: &str| path.split('/').next() == Some(&problem.file);
        let known = bundle.files().any(|(path, _)| path == problem.file || folder(path));
        assert!(known || problem.file.is_empty(), "{problem}");
    }
    assert!(rejection.render().contains("error: "));
    let travelled = serde_json::from_slice::<Rejection>(&serde_json::to_vec(rejection).unwrap());
    assert_eq!(travelled.expect("it can be told to another process"), *rejection);
}

/// Puts a call to each route, by each kind of caller, twice: the second answer may come from memory.
fn decides(revision: &Arc<Revision>) {
    let now = Timestamp::now();
    let account = Account::create(AccountId::random().unwrap(), "fuzz", now).unwrap();
    let keys: Vec<_> = [Kind::Publishable, Kind::Secret, Kind::Restricted]
        .into_iter()
        .map(|kind| Arc::new(LiveKey::new(key(&account, kind, revision, now), 1)))
        .collect();
    for route in revision.routes() {
        let target = route.template.replace(['{', '}'], "");
        for transport in [Transport::Secure, Transport::Insecure] {
            let call = Call {
                credentials: Credentials::None,
                transport,
                address: Some(IpAddr::from([192, 0, 2, 7])),
                line: Some(RequestLine { method: &route.method, target: &target }),
                stated: Stated::default(),
            };
            answers_alike(revision, &call, || Caller::Anonymous);
            for live in &keys {
                answers_alike(revision, &call, || Caller::Proven(Arc::clone(live), live.key.secret.selector));
            }
        }
    }
}

fn answers_alike(revision: &Arc<Revision>, call: &Call<'_>, caller: impl Fn() -> Caller) {
    let now = Timestamp::now();
    let verdict = authorize(call, caller(), revision, now);
    assert_ne!(verdict.reason, Reason::NoRoute, "the path of a route finds it");
    // What policies say of the time may change between two answers; what decides must fit the outcome each time.
    let again = authorize(call, caller(), revision, now);
    assert_eq!(
        (again.reason, &again.policies, &again.missing_scopes),
        (verdict.reason, &verdict.policies, &verdict.missing_scopes)
    );
    let effect = match verdict.reason.outcome() {
        Outcome::Allow => "permit",
        Outcome::Unauthenticated | Outcome::Forbidden => "forbid",
    };
    if verdict.reason != Reason::PolicyError {
        for id in verdict.policies.iter() {
            let named = revision.policies().iter().find(|info| info.name == AsRef::<str>::as_ref(id));
            assert_eq!(named.map(|info| &*info.effect), Some(effect), "{id}");
        }
    }
    assert!(verdict.reason != Reason::Allowed || !verdict.policies.is_empty(), "an allow names who permits it");
}

fn key(account: &Account, kind: Kind, revision: &Revision, now: Timestamp) -> Key {
    let scopes = match kind {
        Kind::Restricted => vec![revision.model().scopes.first().map_or("none".into(), |name| Scope::from(&**name))],
        Kind::Publishable | Kind::Secret => Vec::new(),
    };
    let new = NewKey { scopes, ..NewKey::named(kind, Mode::Live, "fuzz") };
    let secret = StoredSecret {
        selector: Selector::random().unwrap(),
        phc: Phc::none(),
        screen: Screen::none(),
        created_at: now.into(),
        compromised_at: None,
        last_four: None,
    };
    Key::create(account.id, new, KeyId::random().unwrap(), secret, now).unwrap()
}
