use std::path::Path;
use std::task::Poll;

use super::*;
use crate::authorize::{RequestLine, Stated, Transport};
use crate::key::{Ceiling, Cost, Key, Mint, State, Token};
use crate::policy::Bundle;
use crate::store::examples::Failing;
use crate::store::{SledStore, Store};
use crate::trail::{Event, Happened};

fn console() -> By {
    By::console(Timestamp::now())
}

fn pdp(folder: &Path) -> Arc<Pdp> {
    pdp_on(Arc::new(SledStore::open(folder).unwrap()))
}

fn pdp_on(store: Arc<dyn Store>) -> Arc<Pdp> {
    pdp_with(store, 8)
}

/// One that checks one secret at a time, and lets so many wait.
fn pdp_with(store: Arc<dyn Store>, queue: usize) -> Arc<Pdp> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bundle = Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap();
    let revision = Arc::new(ArcSwap::from_pointee(Revision::build(&bundle).unwrap()));
    let ledger = Ledger::load(store).unwrap();
    let metrics = Metrics::new(Reason::ALL.iter().map(|reason| (reason.outcome().as_str(), reason.as_str())));
    let metrics = Arc::new(metrics.unwrap());
    Arc::new(Pdp::new(
        ledger,
        revision,
        Arc::default(),
        Verifier::new(1, queue, Ceiling::default(), Arc::clone(&metrics)),
        metrics,
        Exposure::Kills,
    ))
}

fn call(mint: &Mint, transport: Transport) -> Call<'_> {
    Call {
        credentials: Credentials::Token(Token::parse(mint.expose().as_bytes()).unwrap()),
        transport,
        address: None,
        line: Some(RequestLine { method: "DELETE", target: "/v1/resources/res_1" }),
        stated: Stated::default(),
    }
}

/// A call that has begun and waits for Argon2; then the change is made; then the call goes on.
async fn decided_after(pdp: &Arc<Pdp>, mint: &Mint, change: impl FnOnce()) -> &'static str {
    let call = call(mint, Transport::Secure);
    let mut deciding = Box::pin(pdp.authorize(&call, "r-1"));
    let first = std::future::poll_fn(|context| Poll::Ready(deciding.as_mut().poll(context))).await;
    assert!(first.is_pending(), "a secret that was never seen is checked on another thread");
    change();
    deciding.await.unwrap().reason.as_str()
}

#[tokio::test]
async fn a_change_that_is_acknowledged_while_a_secret_is_being_checked_counts() {
    type Change = fn(&mut Key);
    let folder = tempfile::tempdir().unwrap();
    let pdp = pdp(&folder.path().join("store"));
    let cases: [(&str, Change); 3] = [
        ("key_revoked", Key::revoke),
        ("key_disabled", |key| key.state = State::Disabled),
        ("key_expired", |key| key.change_extras(|extras| extras.expires_at = Some(Timestamp::now()))),
    ];
    for (expected, change) in cases {
        let (_, keys) = pdp.ledger().create_account("Vexart", Cost::default(), None, &console()).unwrap();
        let (key, mint) = &keys[1];
        let revoke = || {
            let changed = pdp.ledger().change_key(&key.id, None, |key| {
                change(key);
                Ok(Some(Event::new(Happened::KeyUpdated, &console())))
            });
            changed.unwrap();
        };
        assert_eq!(decided_after(&pdp, mint, revoke).await, expected);
    }
    let (_, keys) = pdp.ledger().create_account("Vexart", Cost::default(), None, &console()).unwrap();
    let (key, mint) = &keys[1];
    let expose = || {
        let (id, selector) = (&key.id, mint.selector());
        assert!(pdp.ledger().expose(id, &selector, Exposure::Kills, "told", &console()).unwrap());
    };
    assert_eq!(decided_after(&pdp, mint, expose).await, "key_compromised");
    assert_eq!(decided_after(&pdp, &keys[3].1, || {}).await, "allowed");
}

#[tokio::test]
async fn a_policy_that_comes_into_force_while_a_secret_is_being_checked_counts() {
    let folder = tempfile::tempdir().unwrap();
    let pdp = pdp(&folder.path().join("store"));
    let (_, keys) = pdp.ledger().create_account("Vexart", Cost::default(), None, &console()).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap();
    let files = shipped.files().map(|(path, text)| (path.to_owned(), text.to_owned()));
    let stop = ("policies/stop.cedar".to_owned(), "forbid (principal, action, resource);".to_owned());
    let stopped = Revision::build(&Bundle::from_files(files.chain([stop]))).unwrap();
    let put_in_force = || pdp.revision.store(Arc::new(stopped));
    assert_eq!(decided_after(&pdp, &keys[1].1, put_in_force).await, "policy_denied");
}

#[tokio::test]
async fn an_exposed_key_is_dead_on_disk_before_its_call_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let pdp = pdp(&folder.path().join("store"));
    let (_, keys) = pdp.ledger().create_account("Vexart", Cost::default(), None, &console()).unwrap();
    let (key, mint) = &keys[1];
    let verdict = pdp.authorize(&call(mint, Transport::Insecure), "r-1").await.unwrap();
    assert_eq!(verdict.reason, Reason::TransportInsecure);
    let stored = Ledger::load(Arc::clone(pdp.ledger().store())).unwrap();
    assert!(stored.ring().key(&key.id).unwrap().key.secret.compromised_at.is_some());
    assert_eq!(decided_now(&pdp, mint).await, "key_compromised");
}

#[tokio::test]
async fn a_key_in_the_clear_is_dead_whatever_its_state_and_even_when_its_client_hangs_up() {
    let folder = tempfile::tempdir().unwrap();
    let pdp = pdp(&folder.path().join("store"));
    let (_, keys) = pdp.ledger().create_account("Vexart", Cost::default(), None, &console()).unwrap();
    let is_marked = |key: &Key| pdp.ledger().ring().key(&key.id).unwrap().key.secret.compromised_at.is_some();
    let [publishable, disabled, _, abandoned] = keys.as_slice() else { panic!("four keys") };

    let verdict = pdp.authorize(&call(&publishable.1, Transport::Insecure), "r-1").await.unwrap();
    assert_eq!((verdict.reason, is_marked(&publishable.0)), (Reason::TransportInsecure, false));

    let disable = |key: &mut Key| {
        key.state = State::Disabled;
        Ok(Some(Event::new(Happened::KeyDisabled, &console())))
    };
    pdp.ledger().change_key(&disabled.0.id, None, disable).unwrap();
    let verdict = pdp.authorize(&call(&disabled.1, Transport::Insecure), "r-1").await.unwrap();
    assert_eq!((verdict.reason, is_marked(&disabled.0)), (Reason::KeyDisabled, true));

    let call = call(&abandoned.1, Transport::Insecure);
    let mut deciding = Box::pin(pdp.authorize(&call, "r-1"));
    assert!(std::future::poll_fn(|context| Poll::Ready(deciding.as_mut().poll(context))).await.is_pending());
    drop(deciding);
    pdp.settle().await;
    assert!(is_marked(&abandoned.0), "its client did not wait");
}

#[tokio::test]
async fn an_exposed_key_that_cannot_be_marked_on_disk_works_no_more_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(&folder.path().join("store")).unwrap();
    let (_, keys) =
        Ledger::load(Arc::new(store)).unwrap().create_account("V", Cost::default(), None, &console()).unwrap();
    let pdp = pdp_on(Arc::new(Failing::new(SledStore::open(&folder.path().join("store")).unwrap(), |_| true)));
    let mint = &keys[1].1;
    assert_eq!(decided_now(&pdp, mint).await, "allowed");
    assert_eq!(pdp.authorize(&call(mint, Transport::Insecure), "r-1").await.unwrap_err(), Unavailable::Store);
    assert_eq!(decided_now(&pdp, mint).await, "key_compromised");
}

#[tokio::test]
async fn every_call_with_a_key_that_works_is_a_use_of_it_whatever_the_verdict_and_no_other_call_is() {
    type Change = fn(&mut Key);
    let folder = tempfile::tempdir().unwrap();
    let pdp = pdp(&folder.path().join("store"));
    let (item, nothing): (_, Change) = (Some("/v1/resources/res_1"), |_| {});
    let used = [
        ("allowed", Transport::Secure, item, nothing),
        ("no_route", Transport::Secure, Some("/v0/nothing"), nothing),
        ("path_ambiguous", Transport::Secure, Some("/v1/../v1"), nothing),
        ("request_unclear", Transport::Secure, None, nothing),
        ("transport_unknown", Transport::Unknown, item, nothing),
        ("transport_insecure", Transport::Insecure, item, nothing),
        ("address_not_allowed", Transport::Secure, item, |key: &mut Key| {
            let addresses = Some(vec!["198.51.100.0/24".parse().unwrap()]);
            key.update(crate::key::KeyUpdate { addresses, ..Default::default() }, Timestamp::now()).unwrap();
        }),
    ];
    let unused: [(_, _, _, Change); 4] = [
        ("key_revoked", Transport::Secure, item, Key::revoke),
        ("key_disabled", Transport::Secure, item, |key| key.state = State::Disabled),
        ("key_expired", Transport::Secure, item, |key| {
            key.change_extras(|extras| extras.expires_at = Some(Timestamp::now()));
        }),
        ("key_compromised", Transport::Secure, item, |key| {
            key.secret.compromised_at = Some(Timestamp::now().into());
        }),
    ];
    let address = Some("192.0.2.7".parse().unwrap());
    let cases = used.map(|case| (case, true)).into_iter().chain(unused.map(|case| (case, false)));
    for ((reason, transport, target, change), is_use) in cases {
        let (_, keys) = pdp.ledger().create_account("Vexart", Cost::default(), None, &console()).unwrap();
        let (key, mint) = &keys[1];
        let changed = pdp.ledger().change_key(&key.id, None, |key| {
            change(key);
            Ok(Some(Event::new(Happened::KeyUpdated, &console())))
        });
        changed.unwrap();
        let line = target.map(|target| RequestLine { method: "DELETE", target });
        let call = Call { address, line, ..call(mint, transport) };
        assert_eq!(pdp.authorize(&call, "r-1").await.unwrap().reason.as_str(), reason);
        let live = pdp.ledger().ring().key(&key.id).unwrap();
        let uses = pdp.ledger().uses(&live).unwrap();
        assert_eq!(uses.newest().map(|used| used.address), is_use.then_some(address), "{reason}");
    }
    // Nor is one with the right selector and another secret.
    let (_, keys) = pdp.ledger().create_account("Vexart", Cost::default(), None, &console()).unwrap();
    let (key, mint) = &keys[1];
    let token = Token::of_secret(key.kind, key.mode, mint.selector(), keys[3].1.secret());
    let forged = Call { credentials: Credentials::Token(token), ..call(mint, Transport::Secure) };
    assert_eq!(pdp.authorize(&forged, "r-1").await.unwrap().reason, Reason::KeyUnknown);
    let live = pdp.ledger().ring().key(&key.id).unwrap();
    assert_eq!(pdp.ledger().uses(&live).unwrap().newest(), None);
}

async fn decided_now(pdp: &Arc<Pdp>, mint: &Mint) -> &'static str {
    pdp.authorize(&call(mint, Transport::Secure), "r-1").await.unwrap().reason.as_str()
}

/// What a future says when it is polled once.
async fn polled<F: Future>(future: &mut std::pin::Pin<Box<F>>) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

#[tokio::test]
async fn an_exposed_key_that_cannot_be_checked_now_is_marked_when_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let pdp = pdp_with(Arc::new(SledStore::open(&folder.path().join("store")).unwrap()), 0);
    let (_, keys) = pdp.ledger().create_account("Vexart", Cost::default(), None, &console()).unwrap();
    let [_, (_, busy), (_, turned_away), (exposed, exposed_mint)] = keys.as_slice() else { panic!("four keys") };
    let (busy, turned_away) = (call(busy, Transport::Secure), call(turned_away, Transport::Secure));
    let in_the_clear = call(exposed_mint, Transport::Insecure);
    // One check at a time, on a runtime of one thread, which does not go on before this test waits for something.
    let mut first = Box::pin(pdp.authorize(&busy, "r-1"));
    assert!(polled(&mut first).await.is_pending());
    let mut second = Box::pin(pdp.authorize(&turned_away, "r-2"));
    assert_eq!(polled(&mut second).await.map(Result::unwrap_err), Poll::Ready(Unavailable::Busy));
    let verdict = pdp.authorize(&in_the_clear, "r-3").await.unwrap();
    assert_eq!(verdict.reason, Reason::TransportInsecure);
    assert!(pdp.ledger().ring().key(&exposed.id).unwrap().key.secret.compromised_at.is_some());
    assert_eq!(first.await.unwrap().reason, Reason::Allowed);
}

#[tokio::test]
async fn a_token_that_came_in_the_clear_is_dead_wherever_it_stood() {
    use base64ct::{Base64, Encoding};

    let folder = tempfile::tempdir().unwrap();
    let pdp = pdp(&folder.path().join("store"));
    for form in ["{}", "Basic {}", "bearer  {},x", "Token token=\"{}\"", "/v1/resources?api_key={}", "Basic"] {
        let (_, keys) = pdp.ledger().create_account("Vexart", Cost::default(), None, &console()).unwrap();
        let (key, mint) = &keys[3];
        let sent = match form {
            "Basic" => format!("basic {}", Base64::encode_string(format!("{}:", mint.expose()).as_bytes())),
            form => form.replace("{}", mint.expose()),
        };
        let by = By::call(None, "r-1", Timestamp::now());
        pdp.overhear([b"Bearer nothing".as_slice(), sent.as_bytes()].into_iter(), &by).await.unwrap();
        assert!(pdp.ledger().ring().key(&key.id).unwrap().key.secret.compromised_at.is_some(), "{form}");
        assert_eq!(decided_now(&pdp, mint).await, "key_compromised");
    }
}
