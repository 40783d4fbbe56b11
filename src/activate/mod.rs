//! How a revision comes into force.
//!
//! Files change; they are read whole (`files`), looked at first by a child process ([`vet`]) and tried on their
//! examples ([`examples`]), proven ([`prove`](crate::prove)), compared with the revision in force ([`compare`]), made to
//! wait for approval where the configuration says so, remembered with what is different and who wrote it
//! ([`history`], [`git`]), and swapped in as one. Where nobody has to approve it, an edit is compared afterwards (`catch_up`).
//! Whatever fails on the way, the revision in force goes on serving, and [`Activator::in_force`] says what is wrong and
//! since when (`outdated`, [`staleness`](crate::staleness)). What operators order, a rollback or an approval, takes the same
//! steps ([`orders`]). A start onto files that are refused serves the last good revision and says so; only a first start that never had a
//! good one fails ([`Activator::start`]).

mod catch_up;
pub mod compare;
mod disk;
pub mod examples;
mod files;
pub mod git;
pub mod history;
pub mod orders;
mod outdated;
pub mod rehearse;
mod report;
mod start;
mod tell;
pub mod vet;
pub mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::Notify;

use self::compare::Comparison;
pub(crate) use self::files::Files;
use self::git::Commit;
use self::history::{Cause, Entry, History, Kept, Rollback};
pub use self::report::{Active, Refused, Report, Source, Waiting};
pub use self::start::{Settings, StartError};
use self::tell::Throttle;
use self::vet::{Failure, Vetter};
use crate::config::{Guarantees, Widening};
use crate::examine::Examiner;
use crate::ledger::LedgerError;
use crate::metrics::Metrics;
use crate::policy::{Bundle, Digest, Rejection, Revision};
use crate::prove::Proof;
use crate::staleness::Staleness;
use crate::trail::{By, Event};

/// Brings revisions into force.
pub struct Activator {
    files: Files,
    vetter: Vetter,
    examiner: Examiner,
    guarantees: Guarantees,
    widening: Widening,
    history: History,
    current: Arc<ArcSwap<Revision>>,
    staleness: Arc<Staleness>,
    /// Held by whoever changes what is in force, from looking at the files until all is told: a reload and what an
    /// operator orders never overtake each other.
    turn: tokio::sync::Mutex<Turn>,
    /// Written by whoever has the turn, read by whoever asks for the report; never on the decision path.
    report: Mutex<Report>,
    /// Told when there is something to compare.
    uncompared: Notify,
    metrics: Arc<Metrics>,
}

/// What only whoever has the turn needs to know.
#[derive(Default)]
struct Turn {
    /// What was on disk when it could last be read.
    seen: Option<Digest>,
    /// The revision that waits for approval.
    waiting: Option<Candidate>,
    /// What is in the store for the next start.
    kept: Kept,
    /// How many refusals may be told of.
    throttle: Throttle,
}

/// A revision on its way into force.
struct Candidate {
    bundle: Bundle,
    revision: Arc<Revision>,
    /// What is proven of it, once it was asked.
    proof: Option<Proof>,
    /// What is different from the revision in force; none for the first one.
    comparison: Option<Comparison>,
    git: Option<Commit>,
}

/// What brings a revision into force.
struct Order {
    cause: Cause,
    by: By,
    /// What is told besides that it came into force.
    events: Vec<Event>,
    /// What is to be kept when it is a rollback.
    rollback: Option<Rollback>,
}

/// What there is to do about the files.
enum News {
    /// They are those of the revision in force.
    InForce,
    /// They are those that were rolled back from.
    RolledBack,
    /// They were looked at, and are refused or wait.
    Known,
    /// They have to be looked at.
    Unknown,
}

impl Activator {
    /// The revision in force, to be read by whoever decides.
    pub fn current(&self) -> Arc<ArcSwap<Revision>> {
        Arc::clone(&self.current)
    }

    /// For how long what is on disk has not come into force.
    pub fn staleness(&self) -> Arc<Staleness> {
        Arc::clone(&self.staleness)
    }

    /// What was in force before.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What is in force, and what is not, as of one moment.
    pub fn in_force(&self) -> (Report, Arc<Revision>) {
        let report = self.report();
        let stale_seconds = report.stale_since.and_then(|_| self.staleness.time()).map(|time| time.as_secs());
        (Report { stale_seconds, ..report.clone() }, self.current.load_full())
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the report, as of one moment.
    fn amend(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report());
    }

    /// Looks at the files, and brings them into force when they differ and are good. Files that were refused are not
    /// checked again unless `anew` says so.
    pub async fn rescan(&self, anew: bool) {
        let mut turn = self.turn.lock().await;
        let read = self.files.read().await;
        self.look(&mut turn, read, anew).await;
    }

    /// What becomes of what was read.
    async fn look(&self, turn: &mut Turn, read: Result<Bundle, Rejection>, anew: bool) {
        let bundle = match read {
            Ok(bundle) => bundle,
            Err(rejection) => return self.refuse(turn, None, rejection).await,
        };
        turn.seen = Some(bundle.digest());
        match self.news(turn, bundle.digest(), anew) {
            News::InForce => self.settle(turn, None).await,
            News::RolledBack => self.settle(turn, turn.kept.rollback.clone()).await,
            News::Known => {}
            News::Unknown => self.bring(turn, bundle).await,
        }
    }

    fn news(&self, turn: &Turn, on_disk: Digest, anew: bool) -> News {
        let report = self.report();
        let is_refused = report.refused.as_ref().is_some_and(|refused| refused.digest == Some(on_disk));
        let waits = report.waiting.as_ref().is_some_and(|waiting| waiting.digest == on_disk);
        if on_disk == report.active.digest {
            News::InForce
        } else if turn.kept.rollback.as_ref().is_some_and(|rollback| rollback.from == Some(on_disk)) {
            News::RolledBack
        } else if (is_refused || waits) && !anew {
            News::Known
        } else {
            News::Unknown
        }
    }

    /// The whole way of new files into force.
    async fn bring(&self, turn: &mut Turn, bundle: Bundle) {
        let digest = bundle.digest();
        // Side by side, since whoever saved them waits for both; files that are refused are not proven to the end.
        let looked = tokio::try_join!(
            self.vetter.vet(&bundle),
            async { Ok(self.examiner.prove_files(&bundle, self.guarantees).await) },
            async { Ok(self.files.commit_of(&bundle).await) },
        );
        let (revision, proof, git) = match looked {
            Ok((revision, proof, git)) => (Arc::new(revision), proof, git),
            Err(Failure::Refused(rejection)) => return self.refuse(turn, Some(digest), rejection).await,
            Err(Failure::Unchecked(rejection)) => return self.refuse(turn, None, rejection).await,
        };
        let proof = proof.unwrap_or_else(|why| Proof::none(&revision, &why));
        if let Some(rejection) = self.rejection(&proof, &revision) {
            return self.refuse(turn, Some(digest), rejection).await;
        }
        let proof = Some(proof);
        let mut candidate = Candidate { bundle, revision, proof, comparison: None, git };
        if self.widening == Widening::Confirm {
            let before = self.current.load_full();
            candidate.comparison = Some(self.compare(before.bundle(), &candidate.bundle).await);
            if self.must_wait(&candidate) {
                return self.wait(turn, candidate).await;
            }
        }
        let order = Order::edit();
        if let Err(error) = self.remember(turn, &candidate, &order).await {
            // A store that cannot be written is no reason to go on serving an older revision: the files say what is
            // wanted.
            tracing::error!(revision = %digest.short(), %error, "the revision comes into force and could not be remembered for the next start");
        }
        self.swap(turn, &candidate, &order);
        tell::in_force(digest, order.cause, &order.by, candidate.comparison.as_ref());
        // Where nobody has to approve an edit, it does not wait for what it means to be found out.
        self.uncompared.notify_one();
    }

    /// What can be proven of a revision, and why it is refused for it.
    async fn proven(&self, revision: &Revision) -> (Proof, Option<Rejection>) {
        let proof = self.examiner.prove(revision, self.guarantees).await;
        let rejection = self.rejection(&proof, revision);
        (proof, rejection)
    }

    fn rejection(&self, proof: &Proof, revision: &Revision) -> Option<Rejection> {
        proof.rejection(revision, self.guarantees == Guarantees::Prove)
    }

    /// What it means that a revision takes the place of another.
    async fn compare(&self, before: &Bundle, after: &Bundle) -> Comparison {
        match self.examiner.compare(before, after).await {
            Ok(comparison) => comparison.into(),
            Err(why) => {
                tracing::warn!(%why, "two revisions could not be compared");
                Comparison::untold()
            }
        }
    }

    /// The gate: whether somebody has to approve a revision first.
    fn must_wait(&self, candidate: &Candidate) -> bool {
        let widens = candidate.comparison.as_ref().is_some_and(|comparison| comparison.widens);
        self.widening == Widening::Confirm && widens
    }

    /// Writes down what comes into force, so that the next start serves it.
    async fn remember(&self, turn: &mut Turn, candidate: &Candidate, order: &Order) -> Result<(), LedgerError> {
        let by = matches!(order.cause, Cause::Approval | Cause::Rollback).then(|| order.by.actor.clone());
        let entry = Entry {
            digest: candidate.bundle.digest(),
            since: order.by.now,
            cause: order.cause,
            by,
            comparison: candidate.comparison.clone(),
            git: candidate.git.clone(),
            bytes: 0,
        };
        let events = order.events.iter().cloned().chain([tell::activated(&entry, &self.report().active, &order.by)]);
        let (events, bundle): (Vec<Event>, _) = (events.collect(), candidate.bundle.clone());
        let kept = Kept { rollback: order.rollback.clone(), stale: None };
        let written = kept.clone();
        let done = self.history.run(move |history| history.remember(&entry, &bundle, &written, &events)).await;
        if done.is_ok() || order.cause == Cause::Edit {
            turn.kept = kept;
        }
        done
    }

    /// Puts a revision in force: from here on, every decision is made by it.
    fn swap(&self, turn: &mut Turn, candidate: &Candidate, order: &Order) {
        let digest = candidate.bundle.digest();
        turn.waiting = None;
        let source = if order.rollback.is_some() { Source::Rollback } else { Source::Files };
        self.amend(|report| {
            self.current.store(Arc::clone(&candidate.revision));
            self.staleness.end();
            report.active = Active { digest, source, activated_at: Timestamp::now(), rollback: order.rollback.clone() };
            (report.refused, report.waiting, report.stale_since) = (None, None, None);
            report.proof.clone_from(&candidate.proof);
            report.reloads_ok += 1;
        });
        self.metrics.revision_active(&digest.to_string(), Instant::now());
        self.metrics.reloads_ok.inc();
        self.metrics.revision_rolled_back.set(order.rollback.is_some().into());
        self.metrics.revision_waiting.set(0);
    }
}

impl Order {
    /// Somebody saved files.
    fn edit() -> Self {
        Self { cause: Cause::Edit, by: By::daemon(Timestamp::now()), events: Vec::new(), rollback: None }
    }
}
