//! What is kept of the decisions: the newest of them, and of older ones a few of each sort.
//!
//! When a record has to make room for a newer one, it may become a sample of its sort (the same key, action and reason).
//! A sort keeps a few, which newer ones replace now and then, so that what is rare is still there after a flood of what is common. When there are
//! more sorts than places for them, one at random gives way: the rare have the same chance as the common.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use jiff::Timestamp;

use super::record::{Offered, Record, RecordId, Shared};
use super::series::Series;
use crate::authorize::verdict::{Outcome, Reason};
use crate::key::{AccountId, KeyId, Mode};

/// Samples of one sort.
const SAMPLES: usize = 3;
/// One of so many takes the place of an older sample, where a sort has all that it may have.
const SELDOM: u64 = 16;

/// Which decisions are asked for: those of which all that is given holds.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// With this key.
    pub key: Option<KeyId>,
    /// With a key of this account.
    pub account: Option<AccountId>,
    /// With a key of this mode.
    pub mode: Option<Mode>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// For this reason.
    pub reason: Option<Reason>,
    /// About this action.
    pub action: Option<String>,
    /// Made at this time or later.
    pub since: Option<Timestamp>,
}

impl Filter {
    /// Whether a record is among them.
    pub fn takes(&self, record: &Record) -> bool {
        let (key, ruling) = (record.key(), record.ruling());
        self.key.is_none_or(|id| key.is_some_and(|key| key.id == id))
            && self.account.is_none_or(|account| key.is_some_and(|key| key.account == account))
            && self.mode.is_none_or(|mode| key.is_some_and(|key| key.mode == mode))
            && self.outcome.is_none_or(|outcome| ruling.reason.outcome() == outcome)
            && self.reason.is_none_or(|reason| ruling.reason == reason)
            && self.action.as_deref().is_none_or(|action| ruling.action.as_deref() == Some(action))
            && self.since.is_none_or(|since| record.time() >= since)
    }
}

/// The records.
pub(super) struct Kept {
    /// How many of the newest are kept.
    most: usize,
    /// In the order of their places.
    newest: VecDeque<Record>,
    /// Older than all of those.
    samples: Samples,
    pub(super) shared: Shared,
    pub(super) series: Series,
    next_place: u64,
}

impl Kept {
    /// Nothing yet. Places begin with the time, so that they go on where an earlier process ended, however it did.
    pub(super) fn new(most: usize, now: Timestamp) -> Self {
        Self {
            most,
            newest: VecDeque::new(),
            samples: Samples { most: (most / 10).max(1), ..Samples::default() },
            shared: Shared::default(),
            series: Series::default(),
            next_place: u64::try_from(now.as_microsecond()).unwrap_or_default(),
        }
    }

    /// Keeps a new decision, and copies it to `also` for those who listen.
    pub(super) fn take_in(&mut self, offered: &Offered, also: Option<&mut Vec<Record>>) {
        let record = self.shared.record(offered, self.next_place);
        self.next_place += 1;
        self.series.count(&record);
        if let Some(also) = also {
            also.push(record.clone());
        }
        self.push(record);
    }

    /// Keeps a record that is newer than those that are there.
    fn push(&mut self, record: Record) {
        while self.newest.len() >= self.most {
            let Some(oldest) = self.newest.pop_front() else { break };
            self.samples.push(oldest);
        }
        self.newest.push_back(record);
    }

    /// Takes over records of an earlier process, in the order of their places, before there is any other.
    pub(super) fn restore(&mut self, records: Vec<Record>, series: Series) {
        for record in records {
            self.next_place = self.next_place.max(record.place + 1);
            self.push(record);
        }
        self.series = series;
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.newest.len() + self.samples.records.len()
    }

    /// The last one that there was.
    pub(super) fn last(&self) -> RecordId {
        RecordId(self.next_place.saturating_sub(1))
    }

    /// The newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Record> {
        self.newest.iter().rev().chain(self.samples.records.values().rev())
    }

    /// The newest first, older than this one.
    pub(super) fn before(&self, place: u64) -> impl Iterator<Item = &Record> {
        let end = self.newest.partition_point(|record| record.place < place);
        self.newest.range(..end).rev().chain(self.samples.records.range(..place).rev().map(|(_, record)| record))
    }

    /// The oldest first, newer than this one.
    pub(super) fn after(&self, place: u64) -> impl Iterator<Item = &Record> {
        let start = self.newest.partition_point(|record| record.place <= place);
        let samples = self.samples.records.range(place.saturating_add(1)..).map(|(_, record)| record);
        samples.chain(self.newest.range(start..))
    }

    /// The one of this id.
    pub(super) fn get(&self, id: RecordId) -> Option<&Record> {
        self.before(id.0.saturating_add(1)).next().filter(|record| record.place == id.0)
    }
}

/// What samples are of: the key, the action and the reason.
type Sort = (Option<KeyId>, Option<Arc<str>>, Reason);

#[derive(Default)]
struct Samples {
    /// How many sorts there may be.
    most: usize,
    records: BTreeMap<u64, Record>,
    /// The places of each sort's samples, the oldest first.
    sorts: HashMap<Sort, Vec<u64>, RandomState>,
    /// Every sort once, to choose one at random.
    all: Vec<Sort>,
}

impl Samples {
    fn push(&mut self, record: Record) {
        let ruling = record.ruling();
        let sort = (record.key().map(|key| key.id), ruling.action.clone(), ruling.reason);
        match self.sorts.get_mut(&sort) {
            // What is common is not looked at each time.
            Some(places) if places.len() >= SAMPLES && !mixed(record.place).is_multiple_of(SELDOM) => return,
            Some(places) if places.len() >= SAMPLES => {
                self.records.remove(&places.remove(0));
                places.push(record.place);
            }
            Some(places) => places.push(record.place),
            None => {
                self.make_room(record.place);
                self.all.push(sort.clone());
                self.sorts.insert(sort, vec![record.place]);
            }
        }
        self.records.insert(record.place, record);
    }

    fn make_room(&mut self, seed: u64) {
        if self.all.len() < self.most {
            return;
        }
        let at = usize::try_from(mixed(seed)).unwrap_or_default() % self.all.len().max(1);
        let gone = self.all.swap_remove(at);
        for place in self.sorts.remove(&gone).into_iter().flatten() {
            self.records.remove(&place);
        }
    }
}

/// A number that looks like chance. Any mixing will do: nobody gains by foreseeing which sample gives way.
fn mixed(place: u64) -> u64 {
    place.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32
}
