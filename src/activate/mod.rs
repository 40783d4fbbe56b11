//! How a revision comes into force.
//!
//! Files change; they are read whole, looked at first by a child process ([`vet`]), tried on their
//! examples ([`examples`]), remembered in the store, and swapped in as one. Whatever fails on the way, the
//! revision in force goes on serving, and [`Activator::in_force`] says what is wrong and since when.
//! A start onto files that are refused serves the last good revision and says so; only a first start
//! that never had a good one fails.

pub mod examples;
pub mod vet;
pub mod watch;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::Serialize;
use tokio::task::JoinHandle;

use self::vet::{Failure, Vetter};
use crate::metrics::Metrics;
use crate::policy::{Bundle, Digest, Problem, Rejection, Revision};
use crate::store::{Batch, CommitError, Expect, Store, StoreError, Table};

/// How long the files may take to be read.
const READING_LIMIT: Duration = Duration::from_secs(10);
/// The row that holds the last good bundle.
const LAST_GOOD: &[u8] = b"last-good";

/// Where a revision came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The files on disk.
    Files,
    /// The store: the files on disk are refused, and this is the last good revision.
    Store,
}

/// The revision in force.
#[derive(Debug, Clone, Serialize)]
pub struct Active {
    /// Its digest.
    pub digest: Digest,
    /// Where it came from.
    pub source: Source,
    /// Since when it is in force, in this process.
    pub activated_at: Timestamp,
}

/// Files on disk that are not in force, because they were refused.
#[derive(Debug, Clone, Serialize)]
pub struct Refused {
    /// Their digest; none when they could not even be read or checked, so that they are tried again.
    pub digest: Option<Digest>,
    /// Since when what is on disk differs from what is in force.
    pub since: Timestamp,
    /// What is wrong, as text with file, line and caret.
    pub diagnostics: String,
    /// What is wrong, in parts.
    #[serde(flatten)]
    pub rejection: Rejection,
}

/// What is in force, and what is not.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The revision in force.
    pub active: Active,
    /// The files on disk, when they differ from it.
    pub refused: Option<Refused>,
    /// Activations since the start, the first one included.
    pub reloads_ok: u64,
    /// Refusals since the start.
    pub reloads_refused: u64,
}

/// Why there is nothing to serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The files are refused and there is no earlier revision.
    #[error("the policies or the schema are refused, and there is no earlier good revision to serve:\n{}", .0.render())]
    Refused(Rejection),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Reading = JoinHandle<Result<Bundle, Rejection>>;

/// Brings revisions into force.
pub struct Activator {
    schemas: PathBuf,
    policies: PathBuf,
    vetter: Vetter,
    store: Arc<dyn Store>,
    current: Arc<ArcSwap<Revision>>,
    /// A reading that did not end in time: there is never a second one beside it.
    reading: tokio::sync::Mutex<Option<Reading>>,
    /// Written by one reload at a time, read by whoever asks for the report; never on the decision path.
    report: Mutex<Report>,
    metrics: Arc<Metrics>,
}

impl Activator {
    /// Brings the files' revision into force, or the last good one when they are refused.
    ///
    /// # Errors
    /// [`StartError`] when there is neither.
    pub async fn start(
        schemas: PathBuf,
        policies: PathBuf,
        vetter: Vetter,
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let reading = tokio::sync::Mutex::default();
        let read = read(&schemas, &policies, &reading).await;
        let checked = match &read {
            Ok(bundle) => vetter.vet(bundle).await.map_err(Failure::into_rejection),
            Err(rejection) => Err(rejection.clone()),
        };
        let (revision, source, refused) = match (checked, read) {
            (Ok(revision), Ok(bundle)) => {
                remember(&store, &bundle).await;
                (revision, Source::Files, None)
            }
            (Err(rejection), read) => {
                let Some(revision) = last_good(&store, &vetter).await? else {
                    return Err(StartError::Refused(rejection));
                };
                let digest = read.ok().map(|bundle| bundle.digest());
                (revision, Source::Store, Some(refused(digest, rejection, None)))
            }
            (Ok(_), Err(rejection)) => return Err(StartError::Refused(rejection)),
        };
        let report = Report {
            active: Active { digest: revision.digest(), source, activated_at: Timestamp::now() },
            reloads_ok: 1,
            reloads_refused: refused.iter().count() as u64,
            refused,
        };
        metrics.revision_active(&report.active.digest.to_string(), Instant::now());
        metrics.reloads_ok.inc();
        if let Some(refused) = &report.refused {
            metrics.reloads_refused.inc();
            metrics.revision_stale(Some(Instant::now()));
            tracing::error!(
                serving = %report.active.digest.short(),
                "the files on disk are refused, so the last good revision is served:\n{}", refused.diagnostics
            );
        } else {
            tracing::info!(revision = %report.active.digest.short(), "revision in force");
        }
        let current = Arc::new(ArcSwap::from_pointee(revision));
        Ok(Self { schemas, policies, vetter, store, current, reading, report: Mutex::new(report), metrics })
    }

    /// The revision in force, to be read by whoever decides.
    pub fn current(&self) -> Arc<ArcSwap<Revision>> {
        Arc::clone(&self.current)
    }

    /// What is in force, and what is not, as of one moment.
    pub fn in_force(&self) -> (Report, Arc<Revision>) {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        (report.clone(), self.current.load_full())
    }

    fn report(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files, and brings them into force when they differ and are good. Called by one task
    /// alone ([`watch`]), so that reloads never overtake each other. Files that were refused are not checked again
    /// unless `anew` says so.
    pub async fn rescan(&self, anew: bool) {
        let bundle = match read(&self.schemas, &self.policies, &self.reading).await {
            Ok(bundle) => bundle,
            Err(rejection) => return self.refuse(None, rejection),
        };
        let digest = bundle.digest();
        let report = self.report();
        let already_refused = report.refused.as_ref().is_some_and(|refused| refused.digest == Some(digest));
        if digest == report.active.digest {
            return self.agree();
        }
        if already_refused && !anew {
            return;
        }
        match self.vetter.vet(&bundle).await {
            Ok(revision) => {
                remember(&self.store, &bundle).await;
                self.activate(revision);
            }
            Err(Failure::Refused(rejection)) => self.refuse(Some(digest), rejection),
            Err(Failure::Unchecked(rejection)) => self.refuse(None, rejection),
        }
    }

    fn activate(&self, revision: Revision) {
        let digest = revision.digest();
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        self.current.store(Arc::new(revision));
        self.metrics.revision_active(&digest.to_string(), Instant::now());
        self.metrics.reloads_ok.inc();
        report.active = Active { digest, source: Source::Files, activated_at: Timestamp::now() };
        report.refused = None;
        report.reloads_ok += 1;
        drop(report);
        tracing::info!(revision = %digest.short(), "revision in force");
    }

    fn refuse(&self, digest: Option<Digest>, rejection: Rejection) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let before = report.refused.as_ref();
        if before.is_some_and(|before| before.digest == digest && before.rejection == rejection) {
            return;
        }
        let newly = before.is_none();
        let refused = refused(digest, rejection, before.map(|before| before.since));
        tracing::error!(
            serving = %report.active.digest.short(),
            "the files on disk are refused; the revision in force goes on serving:\n{}", refused.diagnostics
        );
        report.refused = Some(refused);
        report.reloads_refused += 1;
        drop(report);
        self.metrics.reloads_refused.inc();
        if newly {
            self.metrics.revision_stale(Some(Instant::now()));
        }
    }

    /// The files are those of the revision in force again.
    fn agree(&self) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.active.source = Source::Files;
        if report.refused.take().is_some() {
            tracing::info!(revision = %report.active.digest.short(), "the files on disk are those of the revision in force again");
            self.metrics.revision_stale(None);
        }
    }
}

fn refused(digest: Option<Digest>, rejection: Rejection, since: Option<Timestamp>) -> Refused {
    Refused { digest, since: since.unwrap_or_else(Timestamp::now), diagnostics: rejection.render(), rejection }
}

/// Reads the files, off the runtime. A disk that does not answer is a refusal, and goes on being asked.
async fn read(
    schemas: &Path,
    policies: &Path,
    reading: &tokio::sync::Mutex<Option<Reading>>,
) -> Result<Bundle, Rejection> {
    let mut reading = reading.lock().await;
    let mut under_way = reading.take().unwrap_or_else(|| {
        let (schemas, policies) = (schemas.to_owned(), policies.to_owned());
        tokio::task::spawn_blocking(move || Bundle::read(&schemas, &policies))
    });
    let refused = |message: &str| Rejection { problems: vec![Problem::general(message.into(), "check the disk")] };
    match tokio::time::timeout(READING_LIMIT, &mut under_way).await {
        Ok(read) => read.unwrap_or_else(|_| Err(refused("the files could not be read"))),
        Err(_) => {
            *reading = Some(under_way);
            Err(refused("reading the files takes longer than 10 s"))
        }
    }
}

/// Keeps the bundle for a start onto broken files. A store that cannot be written is no reason to go on
/// serving an older revision: the files say what is wanted.
async fn remember(store: &Arc<dyn Store>, bundle: &Bundle) {
    let (store, digest) = (Arc::clone(store), bundle.digest());
    let Ok(value) = serde_json::to_vec(bundle) else {
        return;
    };
    let written = tokio::task::spawn_blocking(move || {
        let mut batch = Batch::new();
        batch.put(Table::REVISIONS, LAST_GOOD, value, Expect::Any);
        store.commit(&batch)
    });
    if let Ok(Err(CommitError::Store(error))) = written.await {
        tracing::error!(revision = %digest.short(), %error, "the revision is in force and could not be remembered for the next start");
    }
}

/// The last good revision, built anew.
async fn last_good(store: &Arc<dyn Store>, vetter: &Vetter) -> Result<Option<Revision>, StoreError> {
    let Some(row) = store.get(Table::REVISIONS, LAST_GOOD)? else {
        return Ok(None);
    };
    let Ok(bundle) = serde_json::from_slice::<Bundle>(&row.value) else {
        return Ok(None);
    };
    match vetter.vet(&bundle).await {
        Ok(revision) => Ok(Some(revision)),
        Err(failure) => {
            let rejection = failure.into_rejection();
            tracing::error!("the last good revision is not good for this version:\n{}", rejection.render());
            Ok(None)
        }
    }
}
