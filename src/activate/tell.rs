//! What is told of revisions: in the log, and as events of the trail.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::compare::Comparison;
use super::history::{Cause, Entry};
use super::report::{Active, Refused, Source, Waiting};
use crate::policy::Digest;
use crate::trail::{By, Event, Happened};

/// Refusals that may be told of at once, and after what time there may be one more: the trail is for ever, and a program
/// may save a broken file many times a second.
const BURST: u32 = 20;
const ONE_MORE_AFTER: Duration = Duration::from_mins(1);
/// Characters of a summary or a problem that an event has.
const LONGEST: usize = 500;

/// How many refusals may be told of. All are in the log.
#[derive(Debug)]
pub(super) struct Throttle {
    left: u32,
    since: Option<Instant>,
    untold: u32,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { left: BURST, since: None, untold: 0 }
    }
}

impl Throttle {
    /// The event, with how many were not told of before it, if it may be told.
    pub fn admit(&mut self, event: Event, now: Instant) -> Option<Event> {
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        let more = u32::try_from(elapsed.as_secs() / ONE_MORE_AFTER.as_secs()).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(BURST);
            self.since = Some(now);
        }
        let Some(left) = self.left.checked_sub(1) else {
            self.untold += 1;
            return None;
        };
        self.left = left;
        let untold = std::mem::take(&mut self.untold);
        Some(if untold == 0 { event } else { event.with("untold", untold.to_string()) })
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

fn summary(comparison: Option<&Comparison>) -> Option<String> {
    let lines = &comparison?.summary;
    (!lines.is_empty()).then(|| cut(&lines.join("; ")))
}

/// A revision came into force.
pub(super) fn activated(entry: &Entry, before: &Active, by: &By) -> Event {
    let mut event = Event::new(Happened::PolicyActivated, by).with("digest", entry.digest.to_string());
    if before.digest != entry.digest {
        event = event.with("before", before.digest.to_string());
    }
    if let Some(summary) = summary(entry.comparison.as_ref()) {
        event = event.with("difference", summary);
    }
    match &entry.git {
        // Whoever wrote the last commit did not write what nobody committed.
        Some(git) if git.uncommitted => event.with("not_committed_on_top_of", &git.commit),
        Some(git) => event.with("commit", &git.commit).with("author", &git.author),
        None => event,
    }
}

/// Somebody approved a revision.
pub(super) fn approved(digest: Digest, by: &By) -> Event {
    Event::new(Happened::PolicyApproved, by).with("digest", digest.to_string())
}

/// Somebody went back to a revision.
pub(super) fn rolled_back(digest: Digest, before: &Active, by: &By) -> Event {
    let event = Event::new(Happened::PolicyRolledBack, by);
    event.with("digest", digest.to_string()).with("before", before.digest.to_string())
}

/// The files were refused.
pub(super) fn refused(refused: &Refused, now: Timestamp) -> Event {
    let problems = &refused.rejection.problems;
    let first = problems.first().map(|problem| cut(&problem.to_string())).unwrap_or_default();
    let event = Event::new(Happened::PolicyRefused, &By::daemon(now)).with("problem", first);
    let event = event.with("problems", problems.len().to_string());
    match refused.digest {
        Some(digest) => event.with("digest", digest.to_string()),
        None => event,
    }
}

/// The files wait for approval.
pub(super) fn waiting(waiting: &Waiting, now: Timestamp) -> Event {
    let event = Event::new(Happened::PolicyWaiting, &By::daemon(now)).with("digest", waiting.digest.to_string());
    match summary(Some(&waiting.comparison)) {
        Some(summary) => event.with("difference", summary),
        None => event,
    }
}

/// The log's line for a refusal.
pub(super) fn refusal(refused: &Refused, active: &Active) {
    let serving = active.digest.short();
    if active.source == Source::Store {
        tracing::error!(
            %serving,
            "the files on disk are refused, so the last good revision is served:\n{}", refused.diagnostics
        );
    } else {
        tracing::error!(
            %serving,
            "the files on disk are refused; the revision in force goes on serving:\n{}", refused.diagnostics
        );
    }
}

/// The log's line for a revision that waits.
pub(super) fn waits(waiting: &Waiting, active: &Active) {
    let digest = waiting.digest.short();
    tracing::warn!(
        serving = %active.digest.short(),
        "under the files on disk somebody could do more, or it is not proven that nobody could, so they wait for \
         `keyward policy approve {digest}`; the revision in force goes on serving:\n{}", waiting.comparison.summary.join("\n")
    );
}

/// The log's line for a revision that came into force.
pub(super) fn in_force(digest: Digest, cause: Cause, by: &By, comparison: Option<&Comparison>) {
    let revision = digest.short();
    let summary = comparison.map(|comparison| comparison.summary.join("\n")).unwrap_or_default();
    let by = serde_json::to_string(&by.actor).unwrap_or_default();
    match cause {
        Cause::Edit if summary.is_empty() => tracing::info!(%revision, "revision in force"),
        Cause::Edit => tracing::info!(%revision, "revision in force:\n{summary}"),
        Cause::Approval => tracing::info!(%revision, by, "revision in force, as it was approved:\n{summary}"),
        Cause::Rollback => tracing::warn!(
            %revision, by,
            "rolled back: this revision serves until the files change:\n{summary}"
        ),
    }
}

/// The log's line for what a revision that is in force has changed.
pub(super) fn compared(digest: Digest, comparison: &Comparison) {
    tracing::info!(revision = %digest.short(), "what the revision changed:\n{}", comparison.summary.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_of_now_and_then_and_how_much_was_not() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        let event = || Event::new(Happened::PolicyRefused, &By::daemon(Timestamp::UNIX_EPOCH));
        let mut told = Vec::new();
        for tenth in 0..6_000 {
            told.extend(throttle.admit(event(), start + tenth * Duration::from_millis(100)));
        }
        assert_eq!(told.len(), 20 + 9, "ten minutes of ten refusals a second");
        assert!(told[..20].iter().all(|event| event.detail.is_empty()));
        assert_eq!(&*told[20].detail["untold"], "580");
        // After a quiet time all may be told of again.
        let later = start + Duration::from_hours(2);
        assert!((0..20).all(|_| throttle.admit(event(), later).is_some()));
        assert!(throttle.admit(event(), later).is_none());
    }
}
