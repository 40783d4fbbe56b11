//! The policy decision point: the live parts behind the one `authorize` that every surface calls.
//!
//! It finds the key in the ring, has its secret checked, and asks the pure
//! [`authorize`](crate::authorize::authorize()) for a verdict. A secret that travelled in the clear is marked in
//! the store before that is told. A warm call takes no lock, touches no disk and waits for nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use crate::authorize::credentials::Credentials;
use crate::authorize::verdict::{Reason, Verdict};
use crate::authorize::{Call, Caller, Transport, authorize_by};
use crate::key::{ForeignToken, Glance, Kind, Secret, Selector, Token};
use crate::ledger::{Exposure, Ledger};
use crate::metrics::Metrics;
use crate::policy::Revision;
use crate::ring::LiveKey;
use crate::staleness::Staleness;
use crate::telemetry::Seldom;
use crate::trail::By;
use crate::verifier::{Busy, Verifier};

/// The line about calls of which it is not known how they came.
static UNSTATED: Seldom = Seldom::new();

/// No decision could be made now. It is neither an allow nor a statement about the key: 503, with Retry-After.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Too many keys are being checked for the first time.
    #[error("too many keys are being checked for the first time; try again in a second")]
    Busy,
    /// A secret was exposed, and that could not be written. It works no more until the end of the process.
    #[error("the store could not be written; try again")]
    Store,
    /// The decision log cannot take the decision, and the configuration says that none may go unlogged.
    #[error("the decision log cannot be written; try again")]
    Log,
}

/// The policy decision point.
pub struct Pdp {
    ledger: Ledger,
    /// Swapped whole: a call works with the revision that it loaded, from beginning to end.
    revision: Arc<ArcSwap<Revision>>,
    staleness: Arc<Staleness>,
    verifier: Verifier,
    metrics: Arc<Metrics>,
    exposure: Exposure,
}

impl Pdp {
    /// Puts the parts together. `exposure` is what becomes of a secret that comes in the clear.
    pub fn new(
        ledger: Ledger,
        revision: Arc<ArcSwap<Revision>>,
        staleness: Arc<Staleness>,
        verifier: Verifier,
        metrics: Arc<Metrics>,
        exposure: Exposure,
    ) -> Self {
        Self { ledger, revision, staleness, verifier, metrics, exposure }
    }

    /// Accounts and keys.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The revision in force.
    pub fn revision(&self) -> Arc<Revision> {
        self.revision.load_full()
    }

    /// For how long what is on disk has not come into force.
    pub fn staleness(&self) -> &Staleness {
        &self.staleness
    }

    /// Checks secrets that are seen for the first time.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The figures of this decision point.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Decides one call. When it exposed a secret, that is on disk before this returns.
    ///
    /// # Errors
    /// [`Unavailable`] when no decision could be made or an exposure not written; to be answered as 503.
    pub async fn authorize(self: &Arc<Self>, call: &Call<'_>) -> Result<Verdict, Unavailable> {
        let started = Instant::now();
        let caller = match (call.transport, call.credentials) {
            (Transport::Insecure, credentials) => self.identify_exposed(credentials, call.address).await?,
            (_, credentials) => self.identify(&credentials).await?,
        };
        let proven_by = if let Caller::Proven(_, selector) = caller { Some(selector) } else { None };
        // The key's state is read after its secret was checked, so that a key that was revoked meanwhile is dead.
        let now = Timestamp::now();
        let verdict = authorize_by(call, caller, &self.revision.load_full(), self.staleness.standing(), now);
        if let (Some(selector), Some(live)) = (proven_by, &verdict.key)
            && verdict.reason.is_of_a_good_key()
        {
            live.note_use(&selector, now, call.address);
        }
        if verdict.reason == Reason::TransportUnknown
            && let Some(untold) = UNSTATED.admit(now)
        {
            tracing::error!(
                untold,
                "a call was refused because the proxy did not state whether it came over HTTPS; \
                 have the proxy set its protocol header (no key was marked)"
            );
        }
        self.metrics.decided(verdict.reason as usize, started.elapsed());
        Ok(verdict)
    }

    /// Who sends these credentials. It is no use of a key, and nothing is marked, however they travelled.
    ///
    /// # Errors
    /// [`Unavailable::Busy`] when a secret that is seen for the first time cannot be checked now.
    pub async fn identify(&self, credentials: &Credentials<'_>) -> Result<Caller, Unavailable> {
        let token = match credentials {
            Credentials::None => return Ok(Caller::Anonymous),
            Credentials::Distrusted => return Ok(Caller::Distrusted),
            Credentials::Malformed => return Ok(Caller::Malformed),
            Credentials::Foreign(token) => {
                let found = self.find_foreign(token).await.map_err(|Busy| Unavailable::Busy)?;
                // Whoever mistypes one of our tokens is told the same, with and without keys that moved here.
                return Ok(found.map_or(Caller::Malformed, |(live, selector)| Caller::Proven(live, selector)));
            }
            Credentials::Token(token) => token,
        };
        let Some(live) = self.ledger.ring().find(&token.selector) else {
            return Ok(Caller::Unknown);
        };
        if (live.key.kind, live.key.mode) != (token.kind, token.mode) {
            return Ok(Caller::Unknown);
        }
        match live.glance(token) {
            Glance::Proven => Ok(Caller::Proven(live, token.selector)),
            Glance::Wrong => Ok(Caller::Unknown),
            Glance::Unproven => {
                let proven =
                    self.prove(&token.selector, Secret::of(token), &live).await.map_err(|Busy| Unavailable::Busy)?;
                Ok(proven.map_or(Caller::Unknown, |live| Caller::Proven(live, token.selector)))
            }
        }
    }

    /// Whose foreign token this is, if its key moved here.
    ///
    /// # Errors
    /// [`Busy`] when it could not be checked now.
    pub async fn find_foreign(&self, token: &ForeignToken<'_>) -> Result<Option<(Arc<LiveKey>, Selector)>, Busy> {
        let ring = self.ledger.ring();
        if !ring.has_foreign() {
            return Ok(None);
        }
        let digest = token.digest();
        for (selector, live) in ring.find_foreign(token, &digest) {
            let proven = match live.glance_foreign(&selector, &digest) {
                Glance::Proven => Some(live),
                Glance::Wrong => None,
                Glance::Unproven => self.prove(&selector, token.secret(), &live).await?,
            };
            if let Some(live) = proven {
                return Ok(Some((live, selector)));
            }
        }
        Ok(None)
    }

    /// Has a secret that is seen for the first time checked; the key that it proves, as it is then.
    async fn prove(&self, selector: &Selector, secret: Secret, live: &LiveKey) -> Result<Option<Arc<LiveKey>>, Busy> {
        let Some(stored) = live.key.secret(selector) else {
            return Ok(None);
        };
        let accepted = self.verifier.verify(selector, secret.clone(), &stored.phc).await?;
        // The record may have changed while Argon2 ran: what counts is the one that is live now.
        let now = self.ledger.ring().find(selector).filter(|_| accepted);
        let now = now.filter(|now| now.key.secret(selector).is_some_and(|found| found.phc == stored.phc));
        if let Some(now) = &now {
            now.remember(selector, &secret);
        }
        Ok(now)
    }

    /// Who sends this in the clear; a secret is marked. On a task of its own, because whoever listens on the
    /// wire has the secret, whether or not the client waits for an answer.
    async fn identify_exposed(
        self: &Arc<Self>,
        credentials: Credentials<'_>,
        address: Option<IpAddr>,
    ) -> Result<Caller, Unavailable> {
        let this = Arc::clone(self);
        let (secret, ours) = match credentials {
            Credentials::Token(token) => (Secret::of(&token), Some((token.kind, token.mode, token.selector))),
            Credentials::Foreign(token) if this.ledger.ring().has_foreign() => (token.secret(), None),
            others => return self.identify(&others).await,
        };
        let marking = tokio::spawn(async move {
            let credentials = match ours {
                Some((kind, mode, selector)) => Credentials::Token(Token::of_secret(kind, mode, selector, &secret)),
                None => ForeignToken::of_secret(&secret).map_or(Credentials::Malformed, Credentials::Foreign),
            };
            let caller = this.identify(&credentials).await?;
            if let Caller::Proven(live, selector) = &caller {
                this.mark_exposed(live, *selector, address).await?;
            }
            // As the record was before: the call is told that it was the one that exposed the secret.
            Ok(caller)
        });
        marking.await.unwrap_or(Err(Unavailable::Store))
    }

    /// Writes down that a secret was exposed.
    async fn mark_exposed(
        &self,
        live: &LiveKey,
        selector: Selector,
        address: Option<IpAddr>,
    ) -> Result<(), Unavailable> {
        let exposure = self.exposure;
        let is_marked = live.key.secret(&selector).is_none_or(|secret| secret.compromised_at.is_some())
            || exposure == Exposure::Flags && live.key.is_flagged(&selector);
        // Publishable keys are for the public.
        if is_marked || live.key.kind == Kind::Publishable {
            return Ok(());
        }
        let (ledger, id) = (self.ledger.clone(), live.key.id);
        let written = tokio::task::spawn_blocking(move || {
            let by = By::call(address, Timestamp::now());
            ledger.expose(&id, &selector, exposure, "sent over plain HTTP", &by)
        })
        .await;
        let error = match written {
            Ok(Ok(marked)) => {
                if marked && exposure == Exposure::Kills {
                    tracing::warn!(key = %id, "the key came over plain HTTP; its secret is compromised from now on");
                } else if marked {
                    tracing::warn!(key = %id, "the key came over plain HTTP; it is flagged, and goes on working");
                }
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if exposure == Exposure::Kills {
            self.ledger.ring().distrust(&id, &selector, Timestamp::now());
        }
        tracing::error!(key = %id, %error, "an exposed key could not be marked; it is refused until this process ends");
        Err(Unavailable::Store)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::task::Poll;

    use super::*;
    use crate::authorize::{RequestLine, Stated, Transport};
    use crate::key::{Ceiling, Cost, Key, Mint, State};
    use crate::policy::Bundle;
    use crate::store::{Batch, CommitError, Committed, Order, Row, SledStore, Store, StoreError, Table};
    use crate::trail::{Event, Happened};

    fn console() -> By {
        By::console(Timestamp::now())
    }

    fn pdp(folder: &Path) -> Arc<Pdp> {
        pdp_on(Arc::new(SledStore::open(folder).unwrap()))
    }

    fn pdp_on(store: Arc<dyn Store>) -> Arc<Pdp> {
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
            Verifier::new(1, 8, Ceiling::default(), Arc::clone(&metrics)),
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
        let mut deciding = Box::pin(pdp.authorize(&call));
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
        let verdict = pdp.authorize(&call(mint, Transport::Insecure)).await.unwrap();
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

        let verdict = pdp.authorize(&call(&publishable.1, Transport::Insecure)).await.unwrap();
        assert_eq!((verdict.reason, is_marked(&publishable.0)), (Reason::TransportInsecure, false));

        let disable = |key: &mut Key| {
            key.state = State::Disabled;
            Ok(Some(Event::new(Happened::KeyDisabled, &console())))
        };
        pdp.ledger().change_key(&disabled.0.id, None, disable).unwrap();
        let verdict = pdp.authorize(&call(&disabled.1, Transport::Insecure)).await.unwrap();
        assert_eq!((verdict.reason, is_marked(&disabled.0)), (Reason::KeyDisabled, true));

        let call = call(&abandoned.1, Transport::Insecure);
        let mut deciding = Box::pin(pdp.authorize(&call));
        assert!(std::future::poll_fn(|context| Poll::Ready(deciding.as_mut().poll(context))).await.is_pending());
        drop(deciding);
        let until = Instant::now() + std::time::Duration::from_secs(30);
        while !is_marked(&abandoned.0) {
            assert!(Instant::now() < until, "never marked");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    /// A store that can be read and not written.
    struct Full(SledStore);

    impl Store for Full {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, StoreError> {
            self.0.get(table, key)
        }

        fn scan(
            &self,
            table: Table,
            prefix: &[u8],
            each: &mut dyn FnMut(Row) -> Result<(), StoreError>,
        ) -> Result<(), StoreError> {
            self.0.scan(table, prefix, each)
        }

        fn page(
            &self,
            table: Table,
            prefix: &[u8],
            after: Option<&[u8]>,
            order: Order,
            most: usize,
        ) -> Result<Vec<Row>, StoreError> {
            self.0.page(table, prefix, after, order, most)
        }

        fn snapshot(&self, each: &mut dyn FnMut(&str, Row) -> bool) -> Result<u64, StoreError> {
            self.0.snapshot(each)
        }

        fn commit(&self, _: &Batch) -> Result<Committed, CommitError> {
            let reason = "no space left on device".into();
            Err(StoreError::Io { path: "store".into(), doing: "written", reason }.into())
        }
    }

    #[tokio::test]
    async fn an_exposed_key_that_cannot_be_marked_on_disk_works_no_more_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(&folder.path().join("store")).unwrap();
        let (_, keys) =
            Ledger::load(Arc::new(store)).unwrap().create_account("V", Cost::default(), None, &console()).unwrap();
        let pdp = pdp_on(Arc::new(Full(SledStore::open(&folder.path().join("store")).unwrap())));
        let mint = &keys[1].1;
        assert_eq!(decided_now(&pdp, mint).await, "allowed");
        assert_eq!(pdp.authorize(&call(mint, Transport::Insecure)).await.unwrap_err(), Unavailable::Store);
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
            assert_eq!(pdp.authorize(&call).await.unwrap().reason.as_str(), reason);
            let live = pdp.ledger().ring().key(&key.id).unwrap();
            let uses = pdp.ledger().uses(&live).unwrap();
            assert_eq!(uses.newest().map(|used| used.address), is_use.then_some(address), "{reason}");
        }
        // Nor is one with the right selector and another secret.
        let (_, keys) = pdp.ledger().create_account("Vexart", Cost::default(), None, &console()).unwrap();
        let (key, mint) = &keys[1];
        let token = Token::of_secret(key.kind, key.mode, mint.selector(), keys[3].1.secret());
        let forged = Call { credentials: Credentials::Token(token), ..call(mint, Transport::Secure) };
        assert_eq!(pdp.authorize(&forged).await.unwrap().reason, Reason::KeyUnknown);
        let live = pdp.ledger().ring().key(&key.id).unwrap();
        assert_eq!(pdp.ledger().uses(&live).unwrap().newest(), None);
    }

    async fn decided_now(pdp: &Arc<Pdp>, mint: &Mint) -> &'static str {
        pdp.authorize(&call(mint, Transport::Secure)).await.unwrap().reason.as_str()
    }
}
