//! The one slow check: Argon2id, off the async runtime, bounded, and never twice at the same time.
//!
//! A secret comes here the first time it is seen since the start, or since it was made. Identical checks
//! that arrive together share one run. At most `running` of them run at once; `queue` more may wait; the
//! next is turned away, so that a flood of cold keys costs memory and time that are known in advance.
//! A run belongs to nobody's connection: a client that goes away neither cancels it nor frees its place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, Semaphore, watch};

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
    /// Told of each place that becomes free.
    freed: Arc<Notify>,
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
            freed: Arc::default(),
            metrics,
        }
    }

    /// The most that a hash may cost.
    pub fn ceiling(&self) -> Ceiling {
        self.ceiling
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

    /// Waits until a place is free. Somebody else may take it first.
    pub async fn room(&self) {
        loop {
            // Made before looking, so that a place that becomes free between looking and waiting is not missed.
            let freed = self.freed.notified();
            if self.under_way.lock().unwrap_or_else(PoisonError::into_inner).len() < self.places {
                return;
            }
            freed.await;
        }
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
        let freed = Arc::clone(&self.freed);
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
            freed.notify_waiters();
            if let Ok((accepted, metrics)) = outcome {
                metrics.argon2.queue.set(i64::try_from(under_way.len().saturating_sub(running)).unwrap_or(i64::MAX));
                sender.send_replace(Some(accepted));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Cost, Kind, Mint, Mode};

    fn metrics() -> Arc<Metrics> {
        Arc::new(Metrics::new([("allow", "allowed")]).unwrap())
    }

    fn minted() -> (Mint, Phc) {
        let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
        let phc = mint.secret().hash(Cost { memory_kib: 4 * 1024, iterations: 2, parallelism: 1 }).unwrap();
        (mint, phc)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn identical_checks_that_arrive_together_share_one_run() {
        let (metrics, (mint, phc)) = (metrics(), minted());
        let verifier = Verifier::new(1, 0, Ceiling::default(), Arc::clone(&metrics));
        let selector = mint.selector();
        let checks = (0..50).map(|_| verifier.verify(&selector, mint.secret().clone(), &phc)).collect();
        let answers = all_at_once(checks).await;
        assert!(answers.iter().all(|answer| *answer == Ok(true)));
        assert_eq!(metrics.argon2.runs.get(), 1);
    }

    /// Polls all of them once in order before waiting for any, as connections would.
    async fn all_at_once<T: Send + 'static>(all: Vec<impl Future<Output = T>>) -> Vec<T> {
        let mut pinned: Vec<_> = all.into_iter().map(Box::pin).collect();
        let mut done: Vec<Option<T>> = pinned.iter().map(|_| None).collect();
        std::future::poll_fn(|context| {
            for (slot, future) in done.iter_mut().zip(&mut pinned).filter(|(slot, _)| slot.is_none()) {
                if let std::task::Poll::Ready(value) = future.as_mut().poll(context) {
                    *slot = Some(value);
                }
            }
            if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        done.into_iter().flatten().collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn beyond_the_queue_a_check_is_turned_away_and_says_nothing_about_the_secret() {
        let metrics = metrics();
        let verifier = Verifier::new(1, 2, Ceiling::default(), Arc::clone(&metrics));
        let keys: Vec<_> = (0..10).map(|_| minted()).map(|(mint, phc)| (mint.selector(), mint, phc)).collect();
        let checks =
            keys.iter().map(|(selector, mint, phc)| verifier.verify(selector, mint.secret().clone(), phc)).collect();
        let answers = all_at_once(checks).await;
        let busy = answers.iter().filter(|answer| **answer == Err(Busy)).count();
        assert_eq!(busy as u64, metrics.argon2.refused.get());
        assert!((1..=7).contains(&busy), "{busy} of 10 with 3 places");
        assert!(answers.iter().all(|answer| *answer != Ok(false)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_goes_away_neither_cancels_a_run_nor_frees_its_place() {
        let metrics = metrics();
        let verifier = Verifier::new(1, 0, Ceiling::default(), Arc::clone(&metrics));
        let ((gone, phc), (other, other_phc)) = (minted(), minted());
        let selector = gone.selector();
        let mut leaving = Box::pin(verifier.verify(&selector, gone.secret().clone(), &phc));
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(leaving.as_mut().poll(context).is_pending()));
        if polled.await {
            drop(leaving);
            let refused = verifier.verify(&other.selector(), other.secret().clone(), &other_phc).await;
            // Unless the run ended in between, its place is still taken.
            assert!(refused == Err(Busy) || metrics.argon2.runs.get() >= 1);
        }
        assert_eq!(verifier.verify(&gone.selector(), gone.secret().clone(), &phc).await, Ok(true));
    }

    #[tokio::test]
    async fn another_secret_is_not_accepted_because_one_is_being_checked() {
        let verifier = Verifier::new(2, 2, Ceiling::default(), metrics());
        let ((mint, phc), (other, _)) = (minted(), minted());
        let selector = mint.selector();
        let checks = vec![
            verifier.verify(&selector, mint.secret().clone(), &phc),
            verifier.verify(&selector, other.secret().clone(), &phc),
        ];
        assert_eq!(all_at_once(checks).await, [Ok(true), Ok(false)]);
    }
}
