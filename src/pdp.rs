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
