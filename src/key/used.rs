//! When a secret was used last, and from where: the value, and the cell that a decision notes it in.
//!
//! A note costs a decision three loads while minute and address stay the same, and no lock or allocation ever. The
//! cell reads no clock and knows nothing of stores; whoever keeps its content asks it what is new.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// When a secret was used last, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LastUsed {
    /// The minute in which that was: seconds are zero.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The address of the last call in that minute, where it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
}

impl LastUsed {
    /// A use at this moment, which is cut to the minute.
    pub fn new(now: Timestamp, address: Option<IpAddr>) -> Self {
        Content::of(now, address).shown()
    }
}

/// Notes uses of one secret. Empty until the first.
///
/// The three words are one value, kept whole by the stamp (a sequence lock): a writer sets its lowest bit, writes the
/// address, and then a new stamp; a reader that saw one stamp before and after saw one value. Writers never wait.
#[derive(Debug, Default)]
pub(super) struct UseCell {
    /// From the top: 32 bits of minute, 29 that count writes, 2 of the address's family, 1 for "being written".
    stamp: AtomicU64,
    high: AtomicU64,
    low: AtomicU64,
    /// The stamp of what was kept elsewhere last.
    kept: AtomicU64,
}

/// Which content of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UseStamp(u64);

const WRITING: u64 = 1;
const FAMILY: u64 = 0b110;
const COUNT_ONE: u64 = 1 << 3;
const COUNT: u64 = (1 << 32) - COUNT_ONE;

impl UseCell {
    /// Notes a use. One that meets another being noted leaves it at that: both are of this moment.
    pub(super) fn note(&self, now: Timestamp, address: Option<IpAddr>) {
        let new = Content::of(now, address);
        let stamp = self.stamp.load(Ordering::Relaxed);
        // Words of two uses may be mixed here, but only while the other one is being noted, which then counts as the
        // later of the two.
        if new.is_at(stamp)
            && self.high.load(Ordering::Relaxed) == new.high
            && self.low.load(Ordering::Relaxed) == new.low
        {
            return;
        }
        let begun = stamp & WRITING == 0
            && self.stamp.compare_exchange(stamp, stamp | WRITING, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if begun {
            fence(Ordering::Release);
            self.high.store(new.high, Ordering::Relaxed);
            self.low.store(new.low, Ordering::Relaxed);
            self.stamp.store(new.head | (stamp.wrapping_add(COUNT_ONE) & COUNT), Ordering::Release);
        }
    }

    fn read(&self) -> Option<(UseStamp, LastUsed)> {
        loop {
            let stamp = self.stamp.load(Ordering::Acquire);
            let (high, low) = (self.high.load(Ordering::Relaxed), self.low.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if stamp & WRITING == 0 && self.stamp.load(Ordering::Relaxed) == stamp {
                let content = Content { head: stamp & !COUNT, high, low };
                return (stamp != 0).then(|| (UseStamp(stamp), content.shown()));
            }
            // A writer is between three stores; should it have lost its processor there, it gets this one.
            std::thread::yield_now();
        }
    }

    /// The last use.
    pub(super) fn last(&self) -> Option<LastUsed> {
        self.read().map(|(_, used)| used)
    }

    /// The last use, if it is not the one that was kept elsewhere last.
    pub(super) fn unkept(&self) -> Option<(UseStamp, LastUsed)> {
        if self.stamp.load(Ordering::Relaxed) == self.kept.load(Ordering::Relaxed) {
            return None;
        }
        self.read()
    }

    /// Says that the content of this stamp is kept elsewhere.
    pub(super) fn keep(&self, stamp: UseStamp) {
        self.kept.store(stamp.0, Ordering::Relaxed);
    }
}

/// What a cell holds, in words.
struct Content {
    /// A stamp that counts no writes.
    head: u64,
    high: u64,
    low: u64,
}

impl Content {
    fn of(now: Timestamp, address: Option<IpAddr>) -> Self {
        // From the year 1970 to 9999 it fits; minute 0 is left for "never".
        let minute = u32::try_from(now.as_second().div_euclid(60)).unwrap_or(0).max(1);
        let (family, bits) = match address {
            None => (0, 0),
            Some(IpAddr::V4(address)) => (1, u128::from(address.to_bits())),
            Some(IpAddr::V6(address)) => (2, address.to_bits()),
        };
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of it")]
        let (high, low) = ((bits >> 64) as u64, bits as u64);
        Self { head: u64::from(minute) << 32 | family << 1, high, low }
    }

    /// Whether the stamp is of this minute and family, and nobody is writing.
    fn is_at(&self, stamp: u64) -> bool {
        stamp & !COUNT == self.head
    }

    fn shown(&self) -> LastUsed {
        let minute = i64::try_from(self.head >> 32).unwrap_or_default();
        let bits = u128::from(self.high) << 64 | u128::from(self.low);
        let address = match (self.head & FAMILY) >> 1 {
            0 => None,
            1 => Some(Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or_default()).into()),
            _ => Some(Ipv6Addr::from_bits(bits).into()),
        };
        LastUsed { at: Timestamp::from_second(minute * 60).unwrap_or(Timestamp::MAX), address }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_last_use_is_told_by_its_minute_and_its_last_address() {
        let cell = UseCell::default();
        assert_eq!(cell.last(), None);
        for (second, from, minute) in [
            (61, None, 60),
            (119, Some(address("192.0.2.1")), 60),
            (119, Some(address("::ffff:192.0.2.1")), 60),
            (119, Some(address("2001:db8::1")), 60),
            (120, Some(address("2001:db8::1")), 120),
            (120, Some(address("2001:db9::1")), 120),
            (120, Some(address("0.0.0.0")), 120),
            (120, Some(address("::")), 120),
            (120, None, 120),
            // A clock that was put back: what it says now is what counts.
            (3, Some(address("255.255.255.255")), 60),
        ] {
            cell.note(at(second), from);
            assert_eq!(cell.last(), Some(LastUsed { at: at(minute), address: from }));
        }
    }

    #[test]
    fn only_a_use_that_says_something_new_is_to_be_kept() {
        let cell = UseCell::default();
        assert_eq!(cell.unkept(), None);
        cell.note(at(60), Some(address("192.0.2.1")));
        let (stamp, used) = cell.unkept().unwrap();
        assert_eq!(used, LastUsed::new(at(60), Some(address("192.0.2.1"))));
        // Noted while the one before was on its way: that is still to be kept.
        cell.note(at(60), Some(address("192.0.2.2")));
        cell.keep(stamp);
        let (stamp, used) = cell.unkept().unwrap();
        assert_eq!(used.address, Some(address("192.0.2.2")));
        cell.keep(stamp);
        cell.note(at(119), Some(address("192.0.2.2")));
        assert_eq!(cell.unkept(), None);
        cell.note(at(120), Some(address("192.0.2.2")));
        cell.note(at(60), Some(address("192.0.2.2")));
        assert!(cell.unkept().is_some(), "there and back is a change");
    }

    #[test]
    fn readers_never_see_the_minute_of_one_use_with_the_address_of_another() {
        let (cell, done) = (UseCell::default(), AtomicBool::new(false));
        // Both halves of the address spell the minute.
        let from = |minute: u64| Some(Ipv6Addr::from_bits(u128::from(minute) << 64 | u128::from(minute)).into());
        let (cell, done) = (&cell, &done);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3_u64)
                .map(|writer| {
                    scope.spawn(move || {
                        for minute in (1..60_000_u64).map(|round| round * 3 + writer) {
                            let second = i64::try_from(minute * 60).unwrap();
                            cell.note(at(second), from(minute));
                        }
                    })
                })
                .collect();
            for _ in 0..2 {
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        if let Some((stamp, used)) = cell.unkept() {
                            let minute = u64::try_from(used.at.as_second() / 60).unwrap();
                            assert_eq!(used.address, from(minute));
                            cell.keep(stamp);
                        }
                    }
                });
            }
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        let minute = u64::try_from(cell.last().unwrap().at.as_second() / 60).unwrap();
        assert!(minute > 3, "{minute}");
    }

    proptest! {
        #[test]
        fn every_use_is_told_as_it_was_noted(uses: Vec<(u32, Option<IpAddr>)>) {
            let cell = UseCell::default();
            for (second, from) in uses {
                cell.note(at(second.into()), from);
                let minute = (second / 60).max(1);
                let told = LastUsed { at: at(i64::from(minute) * 60), address: from };
                prop_assert_eq!(cell.last(), Some(told));
                prop_assert_eq!(LastUsed::new(at(second.into()), from), told);
                let json = serde_json::to_string(&told).unwrap();
                prop_assert_eq!(serde_json::from_str::<LastUsed>(&json).unwrap(), told);
            }
        }
    }
}
