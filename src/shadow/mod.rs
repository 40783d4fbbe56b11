//! Policies that are being tried: what they would make of live traffic, while others are in force.
//!
//! A folder beside the live one, `policies.candidate`, is watched and looked at by a child as the live one is. While it
//! holds good policies, a sample of what is recorded is decided again under them, on a thread of its own that takes a
//! small share of one processor and drops what it has no time for. No answer waits for it, and none comes from it.

mod follow;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use prometheus::IntCounter;

use crate::activate::vet::{Failure, Vetter};
use crate::activate::watch::Follows;
use crate::activate::{Files, Refused};
use crate::metrics::Metrics;
use crate::policy::{Digest, Rejection, Revision};
use crate::recorded::{Change, Comparison, Recorder, Report};

/// What is added to the name of a live folder for the folder beside it.
const SUFFIX: &str = ".candidate";

/// The figures of a candidate, beside those of its decisions.
#[derive(Clone)]
struct Figures {
    /// One for each of [`Change::ALL`].
    changes: [IntCounter; Change::ALL.len()],
    dropped: IntCounter,
}

/// Tries the policies of the folder beside the live one.
pub struct Shadow {
    /// The policies beside the live ones, with the live schemas, and with the schemas beside those.
    files: [Files; 2],
    vetter: Vetter,
    live: Arc<ArcSwap<Revision>>,
    recorder: Arc<Recorder>,
    /// Of so many decisions one is tried, when there are many; 0 turns everything off.
    one_in: u64,
    figures: Figures,
    /// Written by one look at the folder at a time, read by whoever asks; never on the decision path.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    candidate: Option<Arc<Candidate>>,
    refused: Option<Refused>,
}

/// Good policies that are being tried.
struct Candidate {
    revision: Arc<Revision>,
    since: Timestamp,
    /// Written by the thread that decides again, read by whoever asks.
    tally: Mutex<Tally>,
}

/// What came of the trial.
#[derive(Clone)]
struct Tally {
    /// The revision in force that it is compared with. With another one it begins anew.
    live: Digest,
    since: Timestamp,
    comparison: Comparison,
    unsampled: u64,
    dropped: u64,
}

impl Tally {
    fn new(live: Digest) -> Self {
        let since = Timestamp::now();
        Self { live, since, comparison: Comparison::default(), unsampled: 0, dropped: 0 }
    }
}

impl Candidate {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is being tried, and what came of it.
pub struct Trial {
    /// The digest of the candidate.
    pub digest: Digest,
    /// Since when it is tried.
    pub since: Timestamp,
    /// The digest of the revision in force that it is compared with.
    pub live: Digest,
    /// Since when it is compared with that one.
    pub compared_since: Timestamp,
    /// What would be decided differently.
    pub report: Report,
    /// Decisions that were left out of the sample.
    pub unsampled: u64,
    /// Decisions of the sample that there was no time for.
    pub dropped: u64,
}

impl Shadow {
    /// One that tries what is beside these folders. Of `one_in` decisions one is tried when there are many, and each when
    /// there are few; with 0, or when nothing is recorded, none.
    pub fn new(
        [schemas, policies]: [&Path; 2],
        vetter: Vetter,
        live: Arc<ArcSwap<Revision>>,
        recorder: Arc<Recorder>,
        one_in: u32,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let changes = Change::ALL.map(|change| metrics.shadow_decisions.with_label_values(&[change.as_str()]));
        let figures = Figures { changes, dropped: metrics.shadow_dropped.clone() };
        let of_schemas = |schemas: PathBuf| Files::new(schemas, beside(policies));
        let files = [of_schemas(schemas.to_owned()), of_schemas(beside(schemas))];
        let one_in = if recorder.is_off() { 0 } else { one_in.into() };
        Arc::new(Self { files, vetter, live, recorder, one_in, figures, state: Mutex::default() })
    }

    /// Whether nothing is tried, whatever the folder holds.
    pub fn is_off(&self) -> bool {
        self.one_in == 0
    }

    /// Where the policies to be tried are looked for.
    pub fn folder(&self) -> &Path {
        let [with_live, _] = &self.files;
        &with_live.policies
    }

    /// What is being tried, if there is something.
    pub fn trial(&self) -> Option<Trial> {
        let candidate = self.state().candidate.clone()?;
        let Tally { live, since, comparison, unsampled, dropped } = candidate.tally().clone();
        Some(Trial {
            digest: candidate.revision.digest(),
            since: candidate.since,
            live,
            compared_since: since,
            report: comparison.report(),
            unsampled,
            dropped,
        })
    }

    /// What the folder holds, if that is refused.
    pub fn refused(&self) -> Option<Refused> {
        self.state().refused.clone()
    }

    /// Whether these files are being tried, or are known to be refused.
    fn knows(&self, digest: Digest, anew: bool) -> bool {
        let state = self.state();
        let is_tried = state.candidate.as_ref().is_some_and(|candidate| candidate.revision.digest() == digest);
        is_tried || (!anew && state.refused.as_ref().is_some_and(|refused| refused.digest == Some(digest)))
    }

    /// Begins a trial in the place of the one before, whose thread ends by itself.
    fn begin(&self, revision: Revision) {
        let digest = revision.digest();
        let tally = Mutex::new(Tally::new(self.live.load().digest()));
        let candidate = Arc::new(Candidate { revision: Arc::new(revision), since: Timestamp::now(), tally });
        let follower = follow::Follower {
            candidate: Arc::downgrade(&candidate),
            heard: self.recorder.listen(),
            live: Arc::clone(&self.live),
            one_in: self.one_in,
            figures: self.figures.clone(),
        };
        *self.state() = State { candidate: Some(candidate), refused: None };
        match follower.start() {
            Ok(()) => tracing::info!(candidate = %digest.short(), "policies are being tried on live traffic"),
            Err(error) => tracing::error!(candidate = %digest.short(), %error, "policies cannot be tried"),
        }
    }

    /// What is on disk is meant, and not what was there before: so nothing is tried.
    fn refuse(&self, digest: Option<Digest>, rejection: Rejection) {
        let mut state = self.state();
        let before = state.refused.as_ref();
        if before.is_some_and(|before| before.digest == digest && before.rejection == rejection) {
            return;
        }
        let since = before.map_or_else(Timestamp::now, |before| before.since);
        let refused = Refused { digest, since, diagnostics: rejection.render(), rejection };
        tracing::warn!("the policies that should be tried are refused:\n{}", refused.diagnostics);
        *state = State { candidate: None, refused: Some(refused) };
    }

    fn clear(&self) {
        let before = std::mem::take(&mut *self.state());
        if let Some(candidate) = before.candidate {
            tracing::info!(candidate = %candidate.revision.digest().short(), "policies are tried no more");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follows for Shadow {
    fn folders(&self) -> Vec<PathBuf> {
        let [live, own] = &self.files;
        vec![live.schemas.clone(), own.schemas.clone(), live.policies.clone()]
    }

    /// Looks at the folder, and tries what it holds when that is new and good.
    async fn rescan(&self, anew: bool) {
        let [with_live, with_own] = &self.files;
        // Both have the same policies; what tells them apart is whether there are schemas beside the live ones.
        let files = match with_own.are_there().await {
            Ok([_, false]) => return self.clear(),
            Ok([true, true]) => with_own,
            Ok([false, true]) => with_live,
            Err(rejection) => return self.refuse(None, rejection),
        };
        let bundle = match files.read().await {
            Ok(bundle) => bundle,
            Err(rejection) => return self.refuse(None, rejection),
        };
        let digest = bundle.digest();
        if self.knows(digest, anew) {
            return;
        }
        match self.vetter.vet(&bundle).await {
            Ok(revision) => self.begin(revision),
            Err(Failure::Refused(rejection)) => self.refuse(Some(digest), rejection),
            Err(Failure::Unchecked(rejection)) => self.refuse(None, rejection),
        }
    }
}

/// The folder beside this one.
fn beside(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}
