//! Who calls most, and what: the busiest keys, actions and addresses of what is kept.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use jiff::Timestamp;

use super::record::Record;
use crate::authorize::verdict::Outcome;
use crate::key::{AccountId, KeyId};

/// Decisions by their outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that were let through.
    pub allow: u64,
    /// Calls of nobody that is known.
    pub unauthenticated: u64,
    /// Calls that were refused to somebody.
    pub forbidden: u64,
}

impl Tally {
    fn count(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Allow => &mut self.allow,
            Outcome::Unauthenticated => &mut self.unauthenticated,
            Outcome::Forbidden => &mut self.forbidden,
        } += 1;
    }

    /// All of them.
    pub fn sum(&self) -> u64 {
        self.allow + self.unauthenticated + self.forbidden
    }
}

/// The busiest, the first of each the busiest of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Top {
    /// When the oldest of these decisions was made.
    pub since: Option<Timestamp>,
    /// How many there are.
    pub recorded: u64,
    /// Keys, with whose they are.
    pub keys: Vec<((KeyId, AccountId), Tally)>,
    /// Actions.
    pub actions: Vec<(Arc<str>, Tally)>,
    /// Addresses.
    pub addresses: Vec<(IpAddr, Tally)>,
}

impl Top {
    /// The busiest `most` of each among these records, in one pass.
    pub(super) fn of<'r>(records: impl Iterator<Item = &'r Record>, most: usize) -> Self {
        let mut top = Self::default();
        let (mut keys, mut actions, mut addresses) = (Counted::default(), Counted::default(), Counted::default());
        for record in records {
            let (ruling, time) = (record.ruling(), record.time());
            let outcome = ruling.reason.outcome();
            top.recorded += 1;
            top.since = Some(top.since.map_or(time, |since| since.min(time)));
            if let Some(key) = record.key() {
                keys.count((key.id, key.account), outcome);
            }
            if let Some(action) = &ruling.action {
                actions.count(&**action, outcome);
            }
            if let Some(address) = record.address() {
                addresses.count(address, outcome);
            }
        }
        let actions = actions.busiest(most).into_iter().map(|(action, tally)| (action.into(), tally)).collect();
        Self { keys: keys.busiest(most), actions, addresses: addresses.busiest(most), ..top }
    }
}

struct Counted<T>(HashMap<T, Tally, RandomState>);

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<T: Hash + Ord> Counted<T> {
    fn count(&mut self, what: T, outcome: Outcome) {
        self.0.entry(what).or_default().count(outcome);
    }

    /// The busiest first; of those that are as busy, always the same first.
    fn busiest(self, most: usize) -> Vec<(T, Tally)> {
        let mut all: Vec<_> = self.0.into_iter().collect();
        all.sort_unstable_by(|(a, of_a), (b, of_b)| of_b.sum().cmp(&of_a.sum()).then_with(|| a.cmp(b)));
        all.truncate(most);
        all
    }
}
