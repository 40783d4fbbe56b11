//! What operators order: going back to an earlier revision, and approving one that waits.
//!
//! Both take the steps of an edit, but that the store has to be written before anything is swapped: what was said to be
//! done holds across a restart. Who may order it is not asked here.

use std::sync::Arc;

use super::history::{Cause, Entry, FindError, Rollback};
use super::vet::Failure;
use super::{Activator, Candidate, Order, tell};
use crate::ledger::LedgerError;
use crate::policy::{Digest, Rejection, ShortDigest};
use crate::trail::By;

/// Why an order was not followed. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// There is no such revision.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It is in force already.
    #[error("the revision {0} is in force already")]
    InForce(String),
    /// It does not wait.
    #[error("no revision that begins with {0} waits for approval: GET /v1/policies says what does")]
    NotWaiting(ShortDigest),
    /// The files are others by now.
    #[error("the files on disk are no longer those that wait; look again what does")]
    FilesChanged,
    /// It is not good for this version of the program.
    #[error("this version of keyward refuses the revision: {0}")]
    Refused(Rejection),
    /// It could not be checked.
    #[error("{0}; nothing was changed, try again")]
    Unchecked(Rejection),
    /// The store.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The program ends.
    #[error("the daemon ends")]
    Ending,
}

impl Activator {
    /// Puts an earlier revision in force, until the files change from what they are now. Where they are that revision,
    /// it ends a rollback. The revision's whole digest.
    ///
    /// # Errors
    /// [`OrderError`]; nothing was changed then.
    pub async fn roll_back(self: &Arc<Self>, digest: ShortDigest, by: By) -> Result<Digest, OrderError> {
        let this = Arc::clone(self);
        // On a task of its own: it is done whole, whether or not whoever ordered it waits.
        tokio::spawn(async move { this.roll_back_now(digest, by).await }).await.map_err(|_| OrderError::Ending)?
    }

    async fn roll_back_now(&self, digest: ShortDigest, by: By) -> Result<Digest, OrderError> {
        let mut turn = self.turn.lock().await;
        let (entry, bundle) = self.history.run(move |history| history.find(&digest)).await?;
        let Entry { digest, git, .. } = entry;
        let before = self.report().active.clone();
        if before.digest == digest {
            return Err(OrderError::InForce(digest.short()));
        }
        // A disk that cannot be read is no reason not to go back.
        let on_disk = self.files.read_soon().await.ok().map(|bundle| bundle.digest()).or(turn.seen);
        let revision = match self.vetter.vet(&bundle).await {
            Ok(revision) => Arc::new(revision),
            Err(Failure::Refused(rejection)) => return Err(OrderError::Refused(rejection)),
            Err(Failure::Unchecked(rejection)) => return Err(OrderError::Unchecked(rejection)),
        };
        // What does not hold was in force once: an operator who goes back to it is told of it, and not refused.
        let proof = Some(self.examiner.prove(&revision, self.guarantees).await);
        let comparison = Some(self.compare(self.current.load_full().bundle(), &bundle).await);
        let candidate = Candidate { bundle, revision, proof, comparison, git };
        let rollback = Rollback { since: by.now, by: by.actor.clone(), from: on_disk };
        let order = Order {
            cause: Cause::Rollback,
            events: vec![tell::rolled_back(digest, &before, &by)],
            rollback: (on_disk != Some(digest)).then_some(rollback),
            by,
        };
        self.remember(&mut turn, &candidate, &order).await?;
        turn.seen = on_disk;
        self.swap(&mut turn, &candidate, &order);
        tell::in_force(digest, order.cause, &order.by, candidate.comparison.as_ref());
        Ok(digest)
    }

    /// Brings the revision that waits into force, if it is this one and still what is on disk. Its whole digest.
    ///
    /// # Errors
    /// [`OrderError`]; nothing was changed then.
    pub async fn approve(self: &Arc<Self>, digest: ShortDigest, by: By) -> Result<Digest, OrderError> {
        let this = Arc::clone(self);
        tokio::spawn(async move { this.approve_now(digest, by).await }).await.map_err(|_| OrderError::Ending)?
    }

    async fn approve_now(&self, digest: ShortDigest, by: By) -> Result<Digest, OrderError> {
        let mut turn = self.turn.lock().await;
        let waiting = turn.waiting.as_ref().map(|candidate| candidate.bundle.digest());
        let Some(waiting) = waiting.filter(|waiting| digest.begins(waiting)) else {
            return Err(OrderError::NotWaiting(digest));
        };
        let is_on_disk = self.files.read_soon().await.is_ok_and(|bundle| bundle.digest() == waiting);
        let Some(candidate) = turn.waiting.take_if(|_| is_on_disk) else { return Err(OrderError::FilesChanged) };
        let order = Order { cause: Cause::Approval, events: vec![tell::approved(waiting, &by)], rollback: None, by };
        if let Err(error) = self.remember(&mut turn, &candidate, &order).await {
            turn.waiting = Some(candidate);
            return Err(error.into());
        }
        self.swap(&mut turn, &candidate, &order);
        tell::in_force(waiting, order.cause, &order.by, candidate.comparison.as_ref());
        Ok(waiting)
    }
}
