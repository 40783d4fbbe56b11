//! The policy decision point: the live parts behind the one `authorize` that every surface calls.
//!
//! It finds the key in the ring, has its secret checked, asks the pure
//! [`authorize`](crate::authorize::authorize()) for a verdict, and does what the verdict demands before it
//! is told: a secret that travelled in the clear is marked in the store first. A warm call takes no lock,
//! touches no disk and waits for nothing.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use crate::authorize::credentials::Credentials;
use crate::authorize::verdict::{Reason, Verdict};
use crate::authorize::{Call, Caller, authorize};
use crate::key::{Glance, Secret, Token};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::policy::Revision;
use crate::ring::LiveKey;
use crate::verifier::Verifier;

/// No decision could be made now. It is neither an allow nor a statement about the key: 503, with Retry-After.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Too many keys are being checked for the first time.
    #[error("too many keys are being checked for the first time; try again in a second")]
    Busy,
    /// What the verdict demands could not be written.
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
    verifier: Verifier,
    metrics: Arc<Metrics>,
}

impl Pdp {
    /// Puts the parts together.
    pub fn new(ledger: Ledger, revision: Arc<ArcSwap<Revision>>, verifier: Verifier, metrics: Arc<Metrics>) -> Self {
        Self { ledger, revision, verifier, metrics }
    }

    /// Accounts and keys.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The revision in force.
    pub fn revision(&self) -> Arc<Revision> {
        self.revision.load_full()
    }

    /// The figures of this decision point.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Decides one call, and returns once everything that the verdict demands is on disk.
    ///
    /// # Errors
    /// [`Unavailable`] when no decision could be made or carried out; to be answered as 503.
    pub async fn authorize(&self, call: &Call<'_>) -> Result<Verdict, Unavailable> {
        let started = Instant::now();
        let caller = self.identify(&call.credentials).await?;
        // The key's state is read after its secret was checked, so that a key that was revoked meanwhile is dead.
        let verdict = authorize(call, caller, &self.revision.load_full(), Timestamp::now());
        if verdict.exposed.is_some() {
            self.mark_exposed(&verdict).await?;
        }
        if verdict.reason == Reason::TransportUnknown {
            tracing::error!(
                "a call was refused because the proxy did not state whether it came over HTTPS; \
                 have the proxy set its protocol header (no key was marked)"
            );
        }
        self.metrics.decided(verdict.reason as usize, started.elapsed());
        Ok(verdict)
    }

    /// Who sends these credentials.
    async fn identify(&self, credentials: &Credentials<'_>) -> Result<Caller, Unavailable> {
        let token = match credentials {
            Credentials::None => return Ok(Caller::Anonymous),
            Credentials::Distrusted => return Ok(Caller::Distrusted),
            Credentials::Malformed => return Ok(Caller::Malformed),
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
            Glance::Unproven => self.identify_slowly(token, &live).await,
        }
    }

    /// Has Argon2 check a secret that is seen for the first time.
    async fn identify_slowly(&self, token: &Token<'_>, live: &LiveKey) -> Result<Caller, Unavailable> {
        let Some(stored) = live.key.secret(&token.selector) else {
            return Ok(Caller::Unknown);
        };
        let secret = Secret::of(token);
        let accepted =
            self.verifier.verify(&token.selector, secret.clone(), &stored.phc).await.map_err(|_| Unavailable::Busy)?;
        // The record may have changed while Argon2 ran: what counts is the one that is live now.
        let now = self.ledger.ring().find(&token.selector).filter(|_| accepted);
        let Some(now) = now.filter(|now| now.key.secret(&token.selector).is_some_and(|found| found.phc == stored.phc))
        else {
            return Ok(Caller::Unknown);
        };
        now.remember(&token.selector, &secret);
        Ok(Caller::Proven(now, token.selector))
    }

    /// Writes down that a secret was exposed; the call is answered after that.
    async fn mark_exposed(&self, verdict: &Verdict) -> Result<(), Unavailable> {
        let (Some(live), Some(selector)) = (&verdict.key, verdict.exposed) else {
            return Ok(());
        };
        let (ledger, id) = (self.ledger.clone(), live.key.id);
        let written = tokio::task::spawn_blocking(move || ledger.compromise(&id, &selector, Timestamp::now())).await;
        match written {
            Ok(Ok(marked)) => {
                if marked {
                    tracing::warn!(key = %id, "the key came over plain HTTP; its secret is compromised from now on");
                }
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::error!(key = %id, %error, "an exposed key could not be marked");
                Err(Unavailable::Store)
            }
            Err(_) => Err(Unavailable::Store),
        }
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
    use crate::store::SledStore;

    fn pdp(folder: &Path) -> Pdp {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let bundle = Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap();
        let revision = Arc::new(ArcSwap::from_pointee(Revision::build(&bundle).unwrap()));
        let ledger = Ledger::load(Arc::new(SledStore::open(folder).unwrap())).unwrap();
        let metrics = Metrics::new(Reason::ALL.iter().map(|reason| (reason.outcome().as_str(), reason.as_str())));
        let metrics = Arc::new(metrics.unwrap());
        Pdp::new(ledger, revision, Verifier::new(1, 8, Ceiling::default(), Arc::clone(&metrics)), metrics)
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
    async fn decided_after(pdp: &Pdp, mint: &Mint, change: impl FnOnce()) -> &'static str {
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
            ("key_expired", |key| key.expires_at = Some(Timestamp::now())),
        ];
        for (expected, change) in cases {
            let (_, keys) = pdp.ledger().create_account("Vexart", Cost::default(), Timestamp::now()).unwrap();
            let (key, mint) = &keys[1];
            let revoke = || {
                let changed = pdp.ledger().change_key(&key.id, |key| {
                    change(key);
                    Ok(true)
                });
                changed.unwrap();
            };
            assert_eq!(decided_after(&pdp, mint, revoke).await, expected);
        }
        let (_, keys) = pdp.ledger().create_account("Vexart", Cost::default(), Timestamp::now()).unwrap();
        let (key, mint) = &keys[1];
        let expose = || {
            assert!(pdp.ledger().compromise(&key.id, &mint.selector(), Timestamp::now()).unwrap());
        };
        assert_eq!(decided_after(&pdp, mint, expose).await, "key_compromised");
        assert_eq!(decided_after(&pdp, &keys[3].1, || {}).await, "allowed");
    }

    #[tokio::test]
    async fn a_policy_that_comes_into_force_while_a_secret_is_being_checked_counts() {
        let folder = tempfile::tempdir().unwrap();
        let pdp = pdp(&folder.path().join("store"));
        let (_, keys) = pdp.ledger().create_account("Vexart", Cost::default(), Timestamp::now()).unwrap();
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
        let (_, keys) = pdp.ledger().create_account("Vexart", Cost::default(), Timestamp::now()).unwrap();
        let (key, mint) = &keys[1];
        let verdict = pdp.authorize(&call(mint, Transport::Insecure)).await.unwrap();
        assert_eq!(verdict.reason, Reason::TransportInsecure);
        let stored = Ledger::load(Arc::clone(pdp.ledger().store())).unwrap();
        assert!(stored.ring().key(&key.id).unwrap().key.secret.compromised_at.is_some());
        assert_eq!(decided_now(&pdp, mint).await, "key_compromised");
    }

    async fn decided_now(pdp: &Pdp, mint: &Mint) -> &'static str {
        pdp.authorize(&call(mint, Transport::Secure)).await.unwrap().reason.as_str()
    }
}
