//! Files that do not come into force: they are refused, or wait for approval; and what ends that.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::compare::Comparison;
use super::history::{Kept, Rollback, Stale};
use super::report::{Refused, Source, Waiting};
use super::{Activator, Candidate, Turn, tell};
use crate::policy::{Digest, Rejection};
use crate::trail::Event;

impl Activator {
    /// The files are refused, or cannot be read.
    pub(super) async fn refuse(&self, turn: &mut Turn, digest: Option<Digest>, rejection: Rejection) {
        let is_told = |before: &Refused| before.digest == digest && before.rejection == rejection;
        if self.report().refused.as_ref().is_some_and(is_told) {
            return;
        }
        let name = digest.map_or_else(|| rejection.to_string(), |digest| digest.to_string());
        let now = Timestamp::now();
        let since = turn.since(now);
        let refused = Refused { digest, since, diagnostics: rejection.render(), rejection };
        let event = tell::refused(&refused, now);
        self.amend(|report| {
            tell::refusal(&refused, &report.active);
            (report.refused, report.waiting) = (Some(refused), None);
            report.reloads_refused += 1;
        });
        self.metrics.reloads_refused.inc();
        turn.waiting = None;
        self.outdated(turn, name, event, now).await;
    }

    /// The files are good, and wait until somebody approves them.
    pub(super) async fn wait(&self, turn: &mut Turn, candidate: Candidate) {
        let Candidate { comparison, git, .. } = &candidate;
        let (comparison, git) = (comparison.clone().unwrap_or_else(Comparison::untold), git.clone());
        let now = Timestamp::now();
        let digest = candidate.bundle.digest();
        let bundle = Arc::new(candidate.bundle.clone());
        let waiting = Waiting { digest, since: now, comparison, git, bundle };
        turn.waiting = Some(candidate);
        if self.report().waiting.as_ref().is_some_and(|before| before.digest == digest) {
            return;
        }
        let event = tell::waiting(&waiting, now);
        self.amend(|report| {
            tell::waits(&waiting, &report.active);
            (report.refused, report.waiting) = (None, Some(waiting));
        });
        self.outdated(turn, digest.to_string(), event, now).await;
    }

    /// What is on disk is not in force; `event` tells of what is called `name`, if it was not told of before.
    async fn outdated(&self, turn: &mut Turn, name: String, event: Event, now: Timestamp) {
        let since = turn.since(now);
        self.amend(|report| report.stale_since = Some(since));
        self.staleness.begin(since, now);
        self.metrics.revision_waiting.set(turn.waiting.is_some().into());
        let told = turn.kept.stale.take().and_then(|stale| stale.told);
        let event = if told.as_ref() == Some(&name) { None } else { turn.throttle.admit(event, Instant::now()) };
        let told = if event.is_some() { Some(name) } else { told };
        turn.kept.stale = Some(Stale { since, told });
        self.keep(turn, event).await;
    }

    /// What is on disk needs no more looking at: it is in force, or was rolled back from.
    pub(super) async fn settle(&self, turn: &mut Turn, rollback: Option<Rollback>) {
        turn.waiting = None;
        self.staleness.end();
        self.metrics.revision_waiting.set(0);
        self.metrics.revision_rolled_back.set(rollback.is_some().into());
        self.amend(|report| {
            let was = (report.refused.take(), report.waiting.take());
            if was.0.is_some() || was.1.is_some() {
                tracing::info!(revision = %report.active.digest.short(), "the files on disk are mended: they are as they were");
            }
            report.stale_since = None;
            if rollback.is_none() {
                (report.active.source, report.active.rollback) = (Source::Files, None);
            }
        });
        let kept = Kept { rollback, stale: None };
        if turn.kept != kept {
            turn.kept = kept;
            self.keep(turn, None).await;
        }
    }

    async fn keep(&self, turn: &Turn, event: Option<Event>) {
        let (kept, events) = (turn.kept.clone(), Vec::from_iter(event));
        let kept = self.history.run(move |history| history.keep(&kept, &events)).await;
        if let Err(error) = kept {
            tracing::error!(%error, "the state of the policies could not be written; a restart does not know it");
        }
    }
}

impl Turn {
    /// Since when what is on disk has not come into force, if it does not now.
    fn since(&self, now: Timestamp) -> Timestamp {
        self.kept.stale.as_ref().map_or(now, |stale| stale.since)
    }
}
