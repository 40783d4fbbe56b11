//! Secrets that came in the clear: found, proven, and marked in the store before that is told.
//!
//! Whoever listens on the wire has them, whether or not the client waits for its answer, whether or not there is time to
//! check them now, and whether or not they were sent as credentials should be.

use std::sync::Arc;

use base64ct::{Base64, Encoding};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::{Pdp, Unavailable};
use crate::authorize::Caller;
use crate::authorize::credentials::Credentials;
use crate::key::{ForeignToken, Found, Kind, Secret, Selector, Token, find_tokens};
use crate::ledger::Exposure;
use crate::ring::LiveKey;
use crate::telemetry::Seldom;
use crate::trail::By;

/// Secrets that are dealt with at one time. More wait, as long as their clients do.
const MOST: u32 = 1_024;
/// Marks that are written at one time: while the store is held, as by a backup, the threads for it are left to others.
const MOST_WRITTEN: usize = 8;
/// The line about publishable keys: anybody may send one, as often as they like.
static PUBLIC: Seldom = Seldom::new();

/// What the decision point keeps about exposed secrets.
pub(super) struct Exposed {
    /// What becomes of them.
    exposure: Exposure,
    /// Held from finding to marking.
    places: Arc<Semaphore>,
    writing: Semaphore,
}

impl Exposed {
    pub(super) fn new(exposure: Exposure) -> Self {
        Self { exposure, places: Arc::new(Semaphore::new(MOST as usize)), writing: Semaphore::new(MOST_WRITTEN) }
    }
}

impl Pdp {
    /// Marks the keys whose tokens are somewhere in what came in the clear: under another scheme, in one of several
    /// headers, in a query string, as name or password. Tokens of other systems have no form to be found by.
    ///
    /// # Errors
    /// As [`Pdp::authorize`]'s.
    pub async fn overhear(self: &Arc<Self>, sent: impl Iterator<Item = &[u8]>, by: &By) -> Result<(), Unavailable> {
        for text in sent {
            self.mark_all_in(text, by).await?;
            if let Some(decoded) = basic(text) {
                self.mark_all_in(&decoded, by).await?;
            }
        }
        Ok(())
    }

    async fn mark_all_in(self: &Arc<Self>, text: &[u8], by: &By) -> Result<(), Unavailable> {
        for (_, found) in find_tokens(text) {
            if let Found::Key(token) = found {
                self.identify_exposed(Credentials::Token(token), by).await?;
            }
        }
        Ok(())
    }

    /// Waits until every secret that was exposed until now is marked, whether or not its client has waited for it.
    pub async fn settle(&self) {
        // Nobody closes it.
        drop(self.exposed.places.acquire_many(MOST).await);
    }

    /// Who sends this in the clear; a secret is marked, on a task of its own.
    pub(super) async fn identify_exposed(
        self: &Arc<Self>,
        credentials: Credentials<'_>,
        by: &By,
    ) -> Result<Caller, Unavailable> {
        let (this, by) = (Arc::clone(self), by.clone());
        let (secret, ours) = match credentials {
            Credentials::Token(token) => (Secret::of(&token), Some((token.kind, token.mode, token.selector))),
            Credentials::Foreign(token) if this.ledger.ring().has_foreign() => (token.secret(), None),
            others => return self.identify(&others).await,
        };
        // Nobody closes it.
        let place = Arc::clone(&self.exposed.places).acquire_owned().await.map_err(|_| Unavailable::Busy)?;
        let marking = tokio::spawn(async move {
            let _place = place;
            let credentials = match ours {
                Some((kind, mode, selector)) => Credentials::Token(Token::of_secret(kind, mode, selector, &secret)),
                None => ForeignToken::of_secret(&secret).map_or(Credentials::Malformed, Credentials::Foreign),
            };
            let caller = this.identify_in_time(&credentials).await?;
            if let Caller::Proven(live, selector) = &caller {
                this.mark_exposed(live, *selector, by).await?;
            }
            // As the record was before: the call is told that it was the one that exposed the secret.
            Ok(caller)
        });
        marking.await.unwrap_or(Err(Unavailable::Store))
    }

    /// As [`Pdp::identify`], but waits for a place when all are taken: nothing is forgotten because others are checked.
    async fn identify_in_time(&self, credentials: &Credentials<'_>) -> Result<Caller, Unavailable> {
        let mut answer = self.identify(credentials).await;
        while matches!(answer, Err(Unavailable::Busy)) {
            self.verifier.room().await;
            answer = self.identify(credentials).await;
        }
        answer
    }

    /// Writes down that a secret was exposed.
    async fn mark_exposed(&self, live: &LiveKey, selector: Selector, by: By) -> Result<(), Unavailable> {
        let exposure = self.exposed.exposure;
        if live.key.kind == Kind::Publishable {
            warn_of_public(live, by.now);
            return Ok(());
        }
        let _turn = self.exposed.writing.acquire().await.map_err(|_| Unavailable::Store)?;
        // Whoever sent it at the same time may have marked it meanwhile.
        let now = self.ledger.ring().key(&live.key.id);
        let is_marked = now.is_none_or(|now| {
            now.key.secret(&selector).is_none_or(|secret| secret.compromised_at.is_some())
                || exposure == Exposure::Flags && now.key.is_flagged(&selector)
        });
        if is_marked {
            return Ok(());
        }
        let (ledger, id) = (self.ledger.clone(), live.key.id);
        let written = tokio::task::spawn_blocking(move || {
            let by = By { now: Timestamp::now(), ..by };
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

/// Publishable keys are for the public, so that nothing becomes of them; whoever sends them should know.
fn warn_of_public(live: &LiveKey, now: Timestamp) {
    if let Some(untold) = PUBLIC.admit(now) {
        tracing::warn!(
            key = %live.key.id,
            untold,
            "a publishable key came over plain HTTP; the call was refused, and the key goes on working"
        );
    }
}

/// What is behind the scheme `Basic`: a name, a colon and a password (RFC 7617).
fn basic(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, rest) = text.split_at_checked("Basic ".len())?;
    let rest = std::str::from_utf8(rest.trim_ascii()).ok().filter(|_| scheme.eq_ignore_ascii_case(b"Basic "))?;
    Base64::decode_vec(rest).ok().map(Zeroizing::new)
}
