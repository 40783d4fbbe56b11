//! Failures by subject, in memory that is bounded whatever comes.
//!
//! A tally never holds more than 65,536 entries. They live in sets; in a full set a newcomer takes the place of
//! whoever has the fewest failures. What those came to is remembered for the set, and whoever has no entry in it is
//! taken to have as many. So a flood of subjects cannot make anybody be counted too low; some are counted too high
//! while it lasts. (The idea is that of the Space-Saving algorithm of Metwally, Agrawal and El Abbadi.)
//!
//! It never says what a subject is, nor what follows from a wait; that is `throttle.rs`.

use std::time::{Duration, Instant};

/// Sets of a tally.
const SETS: usize = 1_024;
/// Entries of a set. 65,536 entries of 40 bytes make 2.5 MiB, the most that a tally can grow to.
const WAYS: usize = 64;

/// How many failures are free, and how fast they are forgotten.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// Failures before the first wait.
    pub(super) free: u32,
    /// The time that one failure is remembered, one after the other.
    pub(super) forgets_every: Duration,
}

impl Limit {
    const LONGEST_WAIT: Duration = Duration::from_mins(15);

    /// The wait after so many failures.
    fn wait(self, failures: u32) -> Duration {
        let doublings = failures.checked_sub(self.free);
        let seconds = doublings.map_or(0, |doublings| 1_u64.checked_shl(doublings).unwrap_or(u64::MAX));
        Duration::from_secs(seconds).min(Self::LONGEST_WAIT)
    }

    /// What a count is after one more failure.
    fn after(self, before: Option<Count>, now: Instant) -> Count {
        let clean_at = later(before.map_or(now, |count| count.clean_at.max(now)), self.forgets_every);
        let left = clean_at.saturating_duration_since(now).as_millis();
        let failures = left.div_ceil(self.forgets_every.as_millis());
        Count { clean_at, open_at: later(now, self.wait(u32::try_from(failures).unwrap_or(u32::MAX))) }
    }
}

/// So much later; the clock of a process does not live to see an overflow.
fn later(at: Instant, by: Duration) -> Instant {
    at.checked_add(by).unwrap_or(at)
}

/// Failures, and what follows from them.
#[derive(Debug, Clone, Copy)]
struct Count {
    /// When the last failure will be forgotten. The time until then, in units of the limit's, is their number.
    clean_at: Instant,
    /// The first moment at which another attempt may be made.
    open_at: Instant,
}

/// A failure as it was counted, to take it back.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) subject: u64,
    at: Instant,
    open_at: Instant,
}

/// Counts by subject. The subjects are hashes, and their remainder finds the set.
pub(super) struct Tally {
    limit: Limit,
    sets: Box<[Set]>,
}

#[derive(Default)]
struct Set {
    entries: Vec<(u64, Count)>,
    /// The most that whoever lost their entry may have had.
    lost: Option<Count>,
}

impl Set {
    fn find(&mut self, subject: u64) -> Option<&mut Count> {
        self.entries.iter_mut().find(|(of, _)| *of == subject).map(|(_, count)| count)
    }

    /// What counts for the subject: never less than what it was last given.
    fn count(&mut self, subject: u64) -> Option<Count> {
        self.find(subject).copied().or(self.lost)
    }

    fn put(&mut self, subject: u64, count: Count) {
        if let Some(kept) = self.find(subject) {
            *kept = count;
            return;
        }
        if self.entries.len() >= WAYS {
            let fewest = self.entries.iter().enumerate().min_by_key(|(_, (_, count))| count.clean_at);
            if let Some((at, _)) = fewest {
                let (_, gone) = self.entries.swap_remove(at);
                let most = self.lost.get_or_insert(gone);
                *most = Count { clean_at: most.clean_at.max(gone.clean_at), open_at: most.open_at.max(gone.open_at) };
            }
        }
        self.entries.push((subject, count));
    }
}

impl Tally {
    pub(super) fn new(limit: Limit) -> Self {
        Self { limit, sets: (0..SETS).map(|_| Set::default()).collect() }
    }

    #[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a remainder by SETS is below SETS")]
    fn set(&mut self, subject: u64) -> &mut Set {
        &mut self.sets[(subject % SETS as u64) as usize]
    }

    pub(super) fn holds(&mut self, subject: u64) -> bool {
        self.set(subject).find(subject).is_some()
    }

    pub(super) fn wait(&mut self, subject: u64, now: Instant) -> Duration {
        let count = self.set(subject).count(subject);
        count.map_or(Duration::ZERO, |count| count.open_at.saturating_duration_since(now))
    }

    pub(super) fn fail(&mut self, subject: u64, now: Instant) -> Mark {
        let limit = self.limit;
        let set = self.set(subject);
        let count = limit.after(set.count(subject), now);
        set.put(subject, count);
        Mark { subject, at: now, open_at: count.open_at }
    }

    pub(super) fn take_back(&mut self, mark: &Mark) {
        let one = self.limit.forgets_every;
        let Some(count) = self.set(mark.subject).find(mark.subject) else { return };
        count.clean_at = count.clean_at.checked_sub(one).unwrap_or(count.clean_at);
        // It was open when the attempt began, and nobody has begun another since, or the wait would be theirs.
        if count.open_at == mark.open_at {
            count.open_at = mark.at;
        }
    }

    /// Forgets all failures, and holds the subject from now on.
    pub(super) fn clear(&mut self, subject: u64, now: Instant) {
        self.set(subject).put(subject, Count { clean_at: now, open_at: now });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const LIMIT: Limit = Limit { free: 5, forgets_every: Duration::from_mins(15) };

    fn entries(tally: &Tally) -> usize {
        tally.sets.iter().map(|set| set.entries.len()).sum()
    }

    #[test]
    fn a_flood_of_subjects_neither_grows_memory_nor_flushes_a_count() {
        let (mut tally, mut now) = (Tally::new(LIMIT), Instant::now());
        for _ in 0..12 {
            now += tally.wait(7, now);
            tally.fail(7, now);
        }
        let wait = tally.wait(7, now);
        assert!(wait > Duration::from_secs(100));
        for subject in 0..500_000_u64 {
            tally.fail(subject.wrapping_mul(0x9e37_79b9_7f4a_7c15), now);
        }
        assert_eq!(entries(&tally), SETS * WAYS);
        assert!(tally.wait(7, now) >= wait);
        assert!(tally.sets.iter().all(|set| set.entries.capacity() == WAYS));
    }

    #[test]
    fn a_wait_never_overflows() {
        for failures in [0, 5, 14, 15, 68, 69, 70, u32::MAX] {
            assert!(LIMIT.wait(failures) <= Limit::LONGEST_WAIT);
        }
        assert_eq!(LIMIT.wait(u32::MAX), Limit::LONGEST_WAIT);
    }

    proptest! {
        /// Beside a count for each subject that nothing is ever evicted from. All subjects share one set.
        #[test]
        fn nobody_is_ever_counted_too_low(
            steps in prop::collection::vec((0..WAYS as u64 * 2, 0..6_u8, 0..2_000_u64), 1..600)
        ) {
            let mut now = Instant::now();
            let mut tally = Tally::new(LIMIT);
            let mut exact: HashMap<u64, Count> = HashMap::new();
            for (number, step, seconds) in steps {
                let subject = number * SETS as u64;
                now += Duration::from_secs(if step == 0 { seconds } else { 0 });
                if !tally.wait(subject, now).is_zero() {
                    continue;
                }
                let mark = tally.fail(subject, now);
                let before = exact.get(&subject).copied();
                let after = LIMIT.after(before, now);
                match step {
                    1 => {
                        tally.clear(subject, now);
                        exact.insert(subject, Count { clean_at: now, open_at: now });
                    }
                    2 => {
                        tally.take_back(&mark);
                        if let Some(before) = before {
                            exact.insert(subject, before);
                        }
                    }
                    _ => {
                        exact.insert(subject, after);
                    }
                }
                prop_assert!(entries(&tally) <= WAYS);
                for (subject, count) in &exact {
                    let kept = tally.set(*subject).count(*subject).unwrap();
                    prop_assert!(kept.clean_at.max(now) >= count.clean_at.max(now));
                    prop_assert!(kept.open_at.max(now) >= count.open_at.max(now));
                }
            }
        }
    }
}
