//! A time in eight bytes, for records of which there are many in memory.

use std::fmt;
use std::num::NonZeroU64;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A [`Timestamp`] in half its size, to the nanosecond, from the year 1677 to 2262; what lies outside is one of the ends.
/// `Option<Moment>` is no larger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "Timestamp", from = "Timestamp")]
pub struct Moment(NonZeroU64);

/// Turns signed nanoseconds since 1970 into unsigned ones of the same order. The least is no moment, so that none is zero.
const SHIFT: u64 = 1 << 63;

impl From<Timestamp> for Moment {
    fn from(time: Timestamp) -> Self {
        let nanoseconds = time.as_nanosecond().clamp(i128::from(i64::MIN) + 1, i128::from(i64::MAX));
        let nanoseconds = i64::try_from(nanoseconds).unwrap_or(i64::MAX);
        Self(NonZeroU64::new(nanoseconds.cast_unsigned() ^ SHIFT).unwrap_or(NonZeroU64::MIN))
    }
}

impl From<Moment> for Timestamp {
    fn from(Moment(nanoseconds): Moment) -> Self {
        let nanoseconds = (nanoseconds.get() ^ SHIFT).cast_signed();
        // Invariant: a timestamp reaches from the year -9999 to 9999.
        Self::from_nanosecond(nanoseconds.into()).unwrap_or(Self::UNIX_EPOCH)
    }
}

impl Moment {
    /// The time.
    pub fn time(self) -> Timestamp {
        self.into()
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.time(), f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_moment_is_the_time_that_it_was_made_of_and_is_ordered_as_it_is(a: i64, b: i64) {
            let times = [a, b].map(|nanoseconds| Timestamp::from_nanosecond(nanoseconds.max(-i64::MAX).into()).unwrap());
            let moments = times.map(Moment::from);
            prop_assert_eq!(moments.map(Moment::time), times);
            prop_assert_eq!(moments[0].cmp(&moments[1]), times[0].cmp(&times[1]));
            let written = serde_json::to_string(&moments[0]).unwrap();
            prop_assert_eq!(&written, &serde_json::to_string(&times[0]).unwrap());
            prop_assert_eq!(serde_json::from_str::<Moment>(&written).unwrap(), moments[0]);
        }
    }

    #[test]
    fn what_lies_outside_is_one_of_the_ends() {
        assert!(Moment::from(Timestamp::MIN) < Moment::from(Timestamp::UNIX_EPOCH));
        assert!(Moment::from(Timestamp::MAX) > Moment::from(Timestamp::now()));
        assert_eq!(size_of::<Option<Moment>>(), 8);
    }
}
