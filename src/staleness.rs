//! For how long what is on disk has not come into force, because it is refused or waits for approval.
//!
//! The decision path reads it: one atomic load when all is well, and the clock besides when it is not. Only the
//! activator writes it. What is to happen after a time is configuration; that live keys are refused then is decided
//! in [`authorize`](crate::authorize), which is told by [`Standing`].

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use crate::authorize::Standing;
use crate::config::{Policies, WhenStale};

/// Stands for "what is on disk is in force".
const NOT_STALE: i64 = i64::MAX;

/// Since when what is on disk has not come into force, and what is to happen.
#[derive(Debug)]
pub struct Staleness {
    /// What `since` counts from. A steady clock, so that a clock that is set refuses no call.
    reference: Instant,
    /// Milliseconds after `reference`, or before it where an earlier process saw it begin; [`NOT_STALE`] when all is well.
    /// It stands alone: no other memory is read by what it says, so that no ordering is needed.
    since: AtomicI64,
    /// After what time the policies in force are too old, and what happens then.
    limit: Option<(Duration, WhenStale)>,
    /// Wakes whoever waits for the limit.
    changed: Notify,
}

impl Default for Staleness {
    /// All is well, and nothing ever happens.
    fn default() -> Self {
        Self::new(&Policies::default())
    }
}

impl Staleness {
    /// All is well.
    pub fn new(config: &Policies) -> Self {
        let after = config.stale_after.and_then(|time| Duration::try_from(time).ok());
        let limit = after.filter(|_| config.when_stale != WhenStale::Serve).map(|after| (after, config.when_stale));
        Self { reference: Instant::now(), since: AtomicI64::new(NOT_STALE), limit, changed: Notify::new() }
    }

    /// What is on disk has not come into force since then.
    pub(crate) fn begin(&self, since: Timestamp, now: Timestamp) {
        let elapsed = i64::try_from(now.duration_since(since).as_millis()).unwrap_or_default().max(0);
        let here = i64::try_from(self.reference.elapsed().as_millis()).unwrap_or_default();
        self.since.store(here - elapsed, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// What is on disk is in force.
    pub(crate) fn end(&self) {
        if self.since.swap(NOT_STALE, Ordering::Relaxed) != NOT_STALE {
            self.changed.notify_one();
        }
    }

    /// For how long what is on disk has not come into force; none when it has.
    pub fn time(&self) -> Option<Duration> {
        match self.since.load(Ordering::Relaxed) {
            NOT_STALE => None,
            since => {
                let here = i64::try_from(self.reference.elapsed().as_millis()).unwrap_or_default();
                Some(Duration::from_millis(u64::try_from(here - since).unwrap_or_default()))
            }
        }
    }

    /// For how long it has been so when that is longer than it should be.
    pub fn overdue(&self) -> Option<Duration> {
        let (after, _) = self.limit?;
        self.time().filter(|time| *time >= after)
    }

    /// What decisions are to make of it.
    pub fn standing(&self) -> Standing {
        match self.limit {
            Some((_, WhenStale::DenyLive)) if self.overdue().is_some() => Standing::TooOld,
            _ => Standing::Current,
        }
    }

    /// Says in the log when the policies in force become too old, and again each time that it has lasted as long once
    /// more, until `stop` turns true.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        let Some((after, when)) = self.limit else {
            let _ = stop.wait_for(|stop| *stop).await;
            return;
        };
        let (mut told, every) = (0, after.as_millis().max(1));
        loop {
            let time = self.time();
            let times = time.map_or(0, |time| time.as_millis() / every);
            if let Some(time) = time.filter(|_| times > told) {
                tell(time, when);
            }
            told = times;
            let left = time.map(|time| every - time.as_millis() % every);
            let next = left.map(|left| Duration::from_millis(u64::try_from(left).unwrap_or(u64::MAX)));
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.changed.notified() => {}
                () = pause(next) => {}
            }
        }
    }
}

async fn pause(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

fn tell(time: Duration, when: WhenStale) {
    let seconds = time.as_secs();
    if when == WhenStale::DenyLive {
        tracing::error!(
            seconds,
            "what is on disk has not been in force for longer than policies.stale_after: calls with live keys are \
             refused until the files are mended; GET /v1/policies says what is wrong"
        );
    } else {
        tracing::error!(
            seconds,
            "what is on disk has not been in force for longer than policies.stale_after; GET /v1/policies says what is \
             wrong"
        );
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn of(when_stale: WhenStale) -> Staleness {
        Staleness::new(&Policies {
            stale_after: Some(SignedDuration::from_mins(15)),
            when_stale,
            ..Policies::default()
        })
    }

    #[test]
    fn only_what_is_configured_happens_and_only_after_its_time_and_until_the_files_are_mended() {
        let now = Timestamp::now();
        let ago = |minutes| now - SignedDuration::from_mins(minutes);
        for (when, standing) in [
            (WhenStale::Serve, Standing::Current),
            (WhenStale::Warn, Standing::Current),
            (WhenStale::DenyLive, Standing::TooOld),
        ] {
            let staleness = of(when);
            assert_eq!((staleness.time(), staleness.standing()), (None, Standing::Current));
            staleness.begin(ago(14), now);
            assert_eq!((staleness.overdue(), staleness.standing()), (None, Standing::Current));
            assert_eq!(staleness.time().unwrap().as_secs(), 14 * 60);
            staleness.begin(ago(16), now);
            assert_eq!(staleness.standing(), standing);
            assert_eq!(staleness.overdue().is_some(), when != WhenStale::Serve);
            staleness.end();
            assert_eq!((staleness.time(), staleness.overdue(), staleness.standing()), (None, None, Standing::Current));
        }
    }

    #[test]
    fn without_a_limit_it_is_told_for_how_long_and_nothing_happens() {
        let staleness = Staleness::default();
        let now = Timestamp::now();
        staleness.begin(now - SignedDuration::from_hours(10_000), now);
        assert_eq!((staleness.overdue(), staleness.standing()), (None, Standing::Current));
        // A clock that was set back makes it no earlier.
        staleness.begin(now + SignedDuration::from_hours(1), now);
        assert!(staleness.time().unwrap() < Duration::from_mins(1));
    }
}
