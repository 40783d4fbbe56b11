//! What a daemon begins with: the files' revision, or the one that was in force last.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::files::Files;
use super::history::{Entry, History, Kept};
use super::report::{Active, Report, Source};
use super::vet::{Failure, Vetter};
use super::{Activator, Candidate, Order, Turn};
use crate::config::{self, Guarantees, Widening};
use crate::examine::Examiner;
use crate::ledger::{Ledger, LedgerError};
use crate::metrics::Metrics;
use crate::policy::{Bundle, Digest, Rejection, Revision};
use crate::staleness::Staleness;

/// Why there is nothing to serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The files are refused and there is no earlier revision.
    #[error("the policies or the schema are refused, and there is no earlier good revision to serve:\n{}", .0.render())]
    Refused(Rejection),
    /// The revision that was rolled back to is refused, and the files are those that were rolled back from.
    #[error(
        "the revision {}, to which the policies were rolled back, is refused by this version of keyward, and the files \
         are those that were rolled back from. Save other files, which are then taken, or start the version before.\n{}",
        .0.short(), .1.render()
    )]
    RolledBack(Digest, Rejection),
    /// What the files widen cannot be told.
    #[error(
        "the revision {} that was in force is refused by this version of keyward, so that what the files widen cannot be \
         told, and policies.widening is \"confirm\". Start once with \"allow\" to serve the files, or start the version \
         before.\n{}",
        .0.short(), .1.render()
    )]
    Uncompared(Digest, Rejection),
    /// The store cannot be read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Where the files are, and how they come into force.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of the schema.
    pub schemas: PathBuf,
    /// The folder of the policies.
    pub policies: PathBuf,
    /// How they come into force.
    pub config: config::Policies,
}

/// What a daemon begins with.
enum Beginning {
    /// Something that was never in force.
    New(Box<Candidate>),
    /// What was in force last.
    Again(Arc<Revision>, Source),
}

impl Activator {
    /// Brings the files' revision into force, or the last good one when they are refused.
    ///
    /// # Errors
    /// [`StartError`] when there is neither.
    pub async fn start(
        settings: Settings,
        vetter: Vetter,
        examiner: Examiner,
        ledger: Ledger,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let files = Files::new(settings.schemas, settings.policies);
        let history = History::new(ledger);
        let opened = history.run(|history| {
            history.take_over(Timestamp::now())?;
            Ok::<_, LedgerError>((history.kept()?, history.last()?))
        });
        let (kept, last) = opened.await?;
        let read = files.read().await;
        let widening = settings.config.widening;
        let beginning = begin(&vetter, &files, widening, &kept, last, &read).await?;
        let (revision, source) = match &beginning {
            Beginning::New(candidate) => (Arc::clone(&candidate.revision), Source::Files),
            Beginning::Again(revision, source) => (Arc::clone(revision), *source),
        };
        let proof = examiner.prove(&revision, settings.config.guarantees).await;
        let must_be_proven = settings.config.guarantees == Guarantees::Prove;
        match (proof.rejection(&revision, must_be_proven), &beginning) {
            (Some(rejection), Beginning::New(_)) => return Err(StartError::Refused(rejection)),
            // It was in force: what a newer solver, or another setting, says of it is no reason to serve nothing.
            (Some(rejection), Beginning::Again(..)) => {
                tracing::error!("the revision in force would be refused as an edit:\n{}", rejection.render());
            }
            (None, _) => {}
        }
        let rollback = kept.rollback.clone().filter(|_| source == Source::Rollback);
        let active = Active { digest: revision.digest(), source, activated_at: Timestamp::now(), rollback };
        metrics.revision_active(&active.digest.to_string(), Instant::now());
        metrics.revision_rolled_back.set(active.rollback.is_some().into());
        metrics.reloads_ok.inc();
        let revision_text = active.digest.short();
        if let Some(rollback) = &active.rollback {
            tracing::warn!(revision = revision_text, since = %rollback.since, "rolled back: this revision serves until the files change");
        } else {
            tracing::info!(revision = revision_text, "revision in force");
        }
        let solver = examiner.solver_told();
        let activator = Self {
            files,
            vetter,
            examiner,
            guarantees: settings.config.guarantees,
            widening,
            history,
            current: Arc::new(ArcSwap::new(revision)),
            staleness: Arc::new(Staleness::new(&settings.config)),
            turn: tokio::sync::Mutex::default(),
            report: Mutex::new(Report {
                active,
                proof: Some(proof),
                solver,
                refused: None,
                waiting: None,
                stale_since: None,
                stale_seconds: None,
                reloads_ok: 1,
                reloads_refused: 0,
            }),
            uncompared: Notify::new(),
            metrics,
        };
        let mut turn = activator.turn.lock().await;
        *turn = Turn { kept, ..Turn::default() };
        if let Beginning::New(candidate) = beginning
            && let Err(error) = activator.remember(&mut turn, &candidate, &Order::edit()).await
        {
            tracing::error!(%error, "the revision is in force and could not be remembered for the next start");
        }
        activator.look(&mut turn, read, false).await;
        drop(turn);
        Ok(activator)
    }
}

async fn begin(
    vetter: &Vetter,
    files: &Files,
    widening: Widening,
    kept: &Kept,
    last: Option<(Entry, Bundle)>,
    read: &Result<Bundle, Rejection>,
) -> Result<Beginning, StartError> {
    let Some((entry, bundle)) = last else { return begin_anew(vetter, files, read).await };
    let is_on_disk = read.as_ref().is_ok_and(|read| read.digest() == entry.digest);
    let rejection = match vetter.vet(&bundle).await.map_err(Failure::into_rejection) {
        Ok(revision) => {
            let source = match &kept.rollback {
                _ if is_on_disk => Source::Files,
                Some(_) => Source::Rollback,
                None => Source::Store,
            };
            return Ok(Beginning::Again(Arc::new(revision), source));
        }
        Err(rejection) if is_on_disk => return Err(StartError::Refused(rejection)),
        Err(rejection) => rejection,
    };
    tracing::error!("the revision that was in force is not good for this version:\n{}", rejection.render());
    let on_disk = read.as_ref().map_err(|rejection| StartError::Refused(rejection.clone()))?.digest();
    if kept.rollback.as_ref().is_some_and(|rollback| rollback.from == Some(on_disk)) {
        return Err(StartError::RolledBack(entry.digest, rejection));
    }
    if widening == Widening::Confirm {
        return Err(StartError::Uncompared(entry.digest, rejection));
    }
    begin_anew(vetter, files, read).await
}

/// With the files, compared with nothing.
async fn begin_anew(vetter: &Vetter, files: &Files, read: &Result<Bundle, Rejection>) -> Result<Beginning, StartError> {
    let bundle = read.as_ref().map_err(|rejection| StartError::Refused(rejection.clone()))?.clone();
    let (vetted, git) = tokio::join!(vetter.vet(&bundle), files.commit_of(&bundle));
    let revision = Arc::new(vetted.map_err(|failure| StartError::Refused(failure.into_rejection()))?);
    let candidate = Candidate { bundle, revision, proof: None, comparison: None, git };
    Ok(Beginning::New(Box::new(candidate)))
}
