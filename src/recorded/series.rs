//! How many decisions there were in each minute of the last day, by reason and by action.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use super::record::Record;
use crate::authorize::verdict::{Outcome, Reason};

/// Minutes that are told of, and as many are kept.
const MINUTES: i64 = 24 * 60;
/// Actions that are told apart in one minute; no schema has as many routes that are called.
const MOST_ACTIONS: usize = 1_000;

/// Counts of one minute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Minute {
    /// Minutes since 1970.
    number: i64,
    /// One for each reason, in the order of [`Reason::ALL`].
    reasons: [u32; Reason::ALL.len()],
    /// Of each action that was called: allowed, unauthenticated, forbidden. Sorted, for there are few.
    actions: Vec<(Arc<str>, [u32; 3])>,
}

impl Minute {
    /// When it began.
    pub fn began_at(&self) -> Timestamp {
        Timestamp::from_second(self.number * 60).unwrap_or_default()
    }

    /// The reasons that there were, with how many decisions.
    pub fn reasons(&self) -> impl Iterator<Item = (Reason, u32)> {
        Reason::ALL.iter().copied().zip(self.reasons).filter(|(_, count)| *count > 0)
    }

    /// The actions that were called, with how many decisions of each outcome.
    pub fn actions(&self) -> impl Iterator<Item = (&str, [(Outcome, u32); 3])> {
        self.actions.iter().map(|(action, counts)| {
            let [allowed, unauthenticated, forbidden] = *counts;
            let by_outcome = [
                (Outcome::Allow, allowed),
                (Outcome::Unauthenticated, unauthenticated),
                (Outcome::Forbidden, forbidden),
            ];
            (&**action, by_outcome)
        })
    }

    pub(super) fn of(number: i64) -> Self {
        Self { number, ..Self::default() }
    }

    /// Adds decisions of this reason.
    pub(super) fn add_reason(&mut self, reason: Reason, more: u32) {
        if let Some(count) = self.reasons.get_mut(reason as usize) {
            *count = count.saturating_add(more);
        }
    }

    /// Adds decisions about this action.
    pub(super) fn add_action(&mut self, action: &Arc<str>, outcome: Outcome, more: u32) {
        let at = match self.actions.binary_search_by(|(held, _)| held.cmp(action)) {
            Ok(at) => at,
            Err(_) if self.actions.len() >= MOST_ACTIONS => return,
            Err(at) => {
                self.actions.insert(at, (Arc::clone(action), [0; 3]));
                at
            }
        };
        if let Some(count) = self.actions.get_mut(at).and_then(|(_, counts)| counts.get_mut(outcome as usize)) {
            *count = count.saturating_add(more);
        }
    }

    fn count(&mut self, record: &Record) {
        let ruling = record.ruling();
        self.add_reason(ruling.reason, 1);
        if let Some(action) = &ruling.action {
            self.add_action(action, ruling.reason.outcome(), 1);
        }
    }
}

/// Which minute this is in.
fn number_of(time: Timestamp) -> i64 {
    time.as_second().div_euclid(60)
}

fn is_of_day(number: i64, now: Timestamp) -> bool {
    (0..MINUTES).contains(&(number_of(now) - number))
}

/// Counts of several minutes together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many decisions there were of each reason, by its code.
    pub reasons: BTreeMap<Cow<'static, str>, u64>,
    /// How many there were about each action, by their outcome.
    pub actions: BTreeMap<String, BTreeMap<Cow<'static, str>, u64>>,
}

impl Totals {
    fn add(&mut self, minute: &Minute) {
        for (reason, count) in minute.reasons() {
            *self.reasons.entry(reason.as_str().into()).or_default() += u64::from(count);
        }
        for (action, counts) in minute.actions() {
            for (outcome, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
                let outcomes = self.actions.entry(action.to_owned()).or_default();
                *outcomes.entry(outcome.as_str().into()).or_default() += u64::from(count);
            }
        }
    }
}

/// Counts of a day's minutes; of those without decisions there is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Series {
    /// In the order of time.
    minutes: VecDeque<Minute>,
}

impl Series {
    /// Counts a decision.
    pub(super) fn count(&mut self, record: &Record) {
        if let Some(minute) = self.minute(number_of(record.time())) {
            minute.count(record);
        }
    }

    /// The minute of this number.
    pub(super) fn minute(&mut self, number: i64) -> Option<&mut Minute> {
        // Nearly always it is the last one; decisions of two threads may come in the wrong order.
        let before = self.minutes.iter().rev().take_while(|minute| minute.number > number).count();
        let at = self.minutes.len() - before;
        let is_there = at > 0 && self.minutes.get(at - 1).is_some_and(|minute| minute.number == number);
        if is_there {
            return self.minutes.get_mut(at - 1);
        }
        self.minutes.insert(at, Minute::of(number));
        if i64::try_from(self.minutes.len()).is_ok_and(|kept| kept <= MINUTES) {
            return self.minutes.get_mut(at);
        }
        // Which is the oldest a clock says that may have been wrong for a while, and ahead by days. So what is farthest from
        // now goes, whichever way that is.
        let far = |minute: Option<&Minute>| minute.map_or(0, |minute| minute.number.abs_diff(number));
        if far(self.minutes.front()) < far(self.minutes.back()) {
            self.minutes.pop_back();
            return self.minutes.get_mut(at);
        }
        self.minutes.pop_front();
        self.minutes.get_mut(at.checked_sub(1)?)
    }

    /// The same without what is not of the day before `now`: what is older, and what was counted under a clock that was ahead.
    pub(super) fn of_day(&self, now: Timestamp) -> Self {
        let minutes = self.minutes.iter().filter(|minute| is_of_day(minute.number, now));
        Self { minutes: minutes.cloned().collect() }
    }

    /// The minutes in which there were decisions, the oldest first.
    pub fn minutes(&self) -> impl Iterator<Item = &Minute> {
        self.minutes.iter()
    }

    /// The counts of such records, as far as they are of the day before `now`.
    pub(super) fn of<'r>(records: impl Iterator<Item = &'r Record>, now: Timestamp) -> Self {
        let mut series = Self::default();
        let of_day = records.filter(|record| is_of_day(number_of(record.time()), now));
        of_day.for_each(|record| series.count(record));
        series
    }

    /// How many there were from `since` on.
    pub fn totals(&self, since: Timestamp) -> Totals {
        let mut totals = Totals::default();
        self.minutes.iter().filter(|minute| minute.began_at() >= since).for_each(|minute| totals.add(minute));
        totals
    }

    /// How many there were in each `step` minutes, and when these began; the oldest first.
    pub fn by(&self, step: i64) -> Vec<(Timestamp, Totals)> {
        let step = step.max(1);
        let mut all = BTreeMap::<i64, Totals>::new();
        for minute in &self.minutes {
            all.entry(minute.number.div_euclid(step) * step).or_default().add(minute);
        }
        all.into_iter().map(|(number, totals)| (Minute::of(number).began_at(), totals)).collect()
    }
}
