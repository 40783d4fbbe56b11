//! The thread that decides again: it follows what is recorded, for as long as there is a candidate.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::{Candidate, Figures, Tally};
use crate::authorize::STACK;
use crate::policy::Revision;
use crate::recorded::{Record, Redecider};

/// How long it rests when there is nothing to do.
const REST: Duration = Duration::from_millis(50);
/// A batch of no more than this is decided again whole: there are few decisions then.
const FEW: usize = 20;
/// It works for one part of so many of the time, however much there would be to do.
const PARTS: u32 = 10;
/// The longest that it may work at a stretch.
const STRETCH: Duration = Duration::from_millis(50);

pub(super) struct Follower {
    /// Gone once there is another candidate, or none.
    pub(super) candidate: Weak<Candidate>,
    pub(super) heard: Receiver<Arc<[Record]>>,
    pub(super) live: Arc<ArcSwap<Revision>>,
    pub(super) one_in: u64,
    pub(super) figures: Figures,
}

impl Follower {
    /// Starts the thread, which ends with the candidate.
    pub(super) fn start(self) -> std::io::Result<()> {
        std::thread::Builder::new().name("shadow".into()).stack_size(STACK).spawn(move || self.run()).map(drop)
    }

    fn run(mut self) {
        // Whatever else wants to run goes first. On Linux this is the thread's own, and nothing depends on it.
        let _ = rustix::process::setpriority_process(None, 19);
        let Some(revision) = self.candidate.upgrade().map(|candidate| Arc::clone(&candidate.revision)) else { return };
        let Ok(mut redecider) = Redecider::new(revision) else { return };
        let mut budget = Budget { worked: Duration::ZERO, at: Instant::now() };
        let mut next_place = None;
        while let Some(candidate) = self.candidate.upgrade() {
            match self.heard.try_recv() {
                Ok(batch) => {
                    let (Some(first), Some(last)) = (batch.first(), batch.last()) else { continue };
                    // Places have no gaps: what lies between was lost, because this thread was too far behind.
                    let lost = next_place.map_or(0, |next: u64| first.id().0.saturating_sub(next));
                    next_place = Some(last.id().0 + 1);
                    self.drop_some(&candidate, lost);
                    self.follow(&candidate, &mut redecider, &mut budget, &batch);
                }
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty) => {
                    drop(candidate);
                    std::thread::sleep(REST);
                }
                Err(TryRecvError::Closed) => return,
            }
        }
    }

    fn follow(&self, candidate: &Candidate, redecider: &mut Redecider, budget: &mut Budget, batch: &[Record]) {
        let live = self.live.load().digest();
        if candidate.tally().live != live {
            *candidate.tally() = Tally::new(live);
        }
        let (mut unsampled, mut dropped) = (0, 0);
        for record in batch {
            // What was decided by another revision than is in force is compared with nothing.
            if record.ruling().revision != live || (batch.len() > FEW && !self.samples(record)) {
                unsampled += 1;
                continue;
            }
            if !budget.has_time(Instant::now()) {
                dropped += 1;
                continue;
            }
            let started = Instant::now();
            let decided = redecider.decide(record);
            budget.worked += started.elapsed();
            let change = candidate.tally().comparison.note(record, decided.as_deref());
            if let Some(counter) = change.and_then(|change| self.figures.changes.get(change as usize)) {
                counter.inc();
            }
        }
        candidate.tally().unsampled += unsampled;
        self.drop_some(candidate, dropped);
    }

    fn drop_some(&self, candidate: &Candidate, dropped: u64) {
        if dropped > 0 {
            candidate.tally().dropped += dropped;
            self.figures.dropped.inc_by(dropped);
        }
    }

    /// Whether a record is of the sample: by chance, so that calls that come in turns are all in it now and then.
    fn samples(&self, record: &Record) -> bool {
        (record.id().0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32).is_multiple_of(self.one_in.max(1))
    }
}

/// Time that may be worked: one part of so many.
struct Budget {
    /// Worked, less what time has made good.
    worked: Duration,
    at: Instant,
}

impl Budget {
    fn has_time(&mut self, now: Instant) -> bool {
        self.worked = self.worked.saturating_sub(now.saturating_duration_since(self.at) / PARTS);
        self.at = now;
        self.worked < STRETCH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_works_for_a_tenth_of_the_time_and_is_not_owed_for_what_it_rested() {
        let start = Instant::now();
        let mut budget = Budget { worked: Duration::ZERO, at: start };
        let mut now = start + Duration::from_hours(1);
        let mut worked = Duration::ZERO;
        let each = Duration::from_millis(7);
        while now < start + Duration::from_hours(1) + Duration::from_mins(1) {
            if budget.has_time(now) {
                budget.worked += each;
                worked += each;
                now += each;
            } else {
                now += Duration::from_millis(1);
            }
        }
        assert!((Duration::from_secs(5)..=Duration::from_secs(6) + STRETCH + each).contains(&worked), "{worked:?}");
    }
}
