//! The policy decision point: the live parts behind the one `authorize` that every surface calls.
//!
//! It finds the key in the ring, has its secret checked, and asks the pure
//! [`authorize`](crate::authorize::authorize()) for a verdict. What becomes of a secret that travelled in the clear is
//! told in `exposed.rs`. A warm call takes no lock, touches no disk and waits for nothing.

mod exposed;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use self::exposed::Exposed;
use crate::authorize::credentials::Credentials;
use crate::authorize::verdict::{Reason, Verdict};
use crate::authorize::{Call, Caller, Transport, authorize_by};
use crate::key::{ForeignToken, Glance, Secret, Selector};
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
    exposed: Exposed,
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
        Self { ledger, revision, staleness, verifier, metrics, exposed: Exposed::new(exposure) }
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

    /// Decides one call. When it exposed a secret, that is on disk before this returns. `request_id` names it in the trail.
    ///
    /// # Errors
    /// [`Unavailable`] when no decision could be made or an exposure not written; to be answered as 503.
    pub async fn authorize(self: &Arc<Self>, call: &Call<'_>, request_id: &str) -> Result<Verdict, Unavailable> {
        let started = Instant::now();
        let caller = match call.transport {
            Transport::Insecure => {
                let by = By::call(call.address, request_id, Timestamp::now());
                self.identify_exposed(call.credentials, &by).await?
            }
            Transport::Secure | Transport::Unknown => self.identify(&call.credentials).await?,
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
}
