//! The one slow check: Argon2id, off the async runtime, bounded, and never twice at the same time.
//!
//! A secret comes here the first time it is seen since the start, or since it was made. Identical checks
//! that arrive together share one run. At most `running` of them run at once; `queue` more may wait; the
//! next is turned away, so that a flood of cold keys costs memory and time that are known in advance.
//! A run belongs to nobody's connection: a client that goes away neither cancels it nor frees its place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{Semaphore, watch};

use crate::key::{Ceiling, Phc, Secret, Selector};
use crate::metrics::Metrics;

/// The check could not be made now; it says nothing about the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many keys are being checked for the first time; try again in a second")]
pub struct Busy;

/// Runs the checks.
pub struct Verifier {
    permits: Arc<Semaphore>,
    running: usize,
    places: usize,
    ceiling: Ceiling,
    /// The checks under way. Held for a look-up or an insertion, on the cold path only.
    under_way: Arc<Mutex<HashMap<Check, watch::Receiver<Option<bool>>>>>,
    metrics: Arc<Metrics>,
}

/// What makes two checks the same: selector, hash and a digest of the secret.
type Check = [u8; 32];

impl Verifier {
    /// `running` checks at once, `queue` more waiting.
    pub fn new(running: usize, queue: usize, ceiling: Ceiling, metrics: Arc<Metrics>) -> Self {
        let running = running.max(1);
        Self {
            permits: Arc::new(Semaphore::new(running)),
            running,
            places: running + queue,
            ceiling,
            under_way: Arc::default(),
            metrics,
        }
    }

    /// Whether `secret` is the one that was hashed to `phc`. A hash that cannot be checked accepts nothing.
    ///
    /// # Errors
    /// [`Busy`] when all places are taken.
    pub async fn verify(&self, selector: &Selector, secret: Secret, phc: &Phc) -> Result<bool, Busy> {
        let mut answer = self.join_or_start(selector, secret, phc)?;
        // Both fail only when the run itself was lost, which is no statement about the secret.
        answer.wait_for(Option::is_some).await.map_err(|_| Busy)?.ok_or(Busy)
    }

    fn join_or_start(
        &self,
        selector: &Selector,
        secret: Secret,
        phc: &Phc,
    ) -> Result<watch::Receiver<Option<bool>>, Busy> {
        let check: Check = secret.bound_digest(selector, phc);
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = under_way.get(&check) {
            return Ok(running.clone());
        }
        if under_way.len() >= self.places {
            self.metrics.argon2.refused.inc();
            return Err(Busy);
        }
        let (sender, receiver) = watch::channel(None);
        under_way.insert(check, receiver.clone());
        self.metrics.argon2.queue.set(i64::try_from(under_way.len().saturating_sub(self.running)).unwrap_or(i64::MAX));
        drop(under_way);
        self.start(check, secret, phc.clone(), sender);
        Ok(receiver)
    }

    fn start(&self, check: Check, secret: Secret, phc: Phc, sender: watch::Sender<Option<bool>>) {
        let (permits, under_way) = (Arc::clone(&self.permits), Arc::clone(&self.under_way));
        let (metrics, ceiling, running) = (Arc::clone(&self.metrics), self.ceiling, self.running);
        tokio::spawn(async move {
            let permit = permits.acquire_owned().await;
            let run = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                let started = Instant::now();
                let accepted = phc.verify(&secret, ceiling);
                metrics.argon2.runs.inc();
                metrics.argon2.seconds.observe(started.elapsed().as_secs_f64());
                let accepted = accepted.unwrap_or_else(|error| {
                    tracing::error!(%error, "a stored hash was refused");
                    false
                });
                (accepted, metrics)
            });
            let outcome = run.await;
            let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
            under_way.remove(&check);
            if let Ok((accepted, metrics)) = outcome {
                metrics.argon2.queue.set(i64::try_from(under_way.len().saturating_sub(running)).unwrap_or(i64::MAX));
                sender.send_replace(Some(accepted));
            }
        });
    }
}
