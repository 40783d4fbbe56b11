//! How values are written for people: times, counts, masked tokens.

use std::borrow::Borrow;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

/// A moment, as people say it, with the exact one beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    at: Timestamp,
    now: Timestamp,
    /// Whether it is only known to the minute.
    is_rough: bool,
}

impl Moment {
    /// This moment, seen from `now`.
    pub fn new(at: Timestamp, now: Timestamp) -> Self {
        Self { at, now, is_rough: false }
    }

    /// A moment that is cut to its minute.
    pub fn rough(at: Timestamp, now: Timestamp) -> Self {
        Self { at, now, is_rough: true }
    }

    /// For machines: RFC 3339.
    pub fn iso(&self) -> String {
        self.at.to_string()
    }

    /// To the second or, where no more is known, to the minute; in UTC.
    pub fn exact(&self) -> String {
        let form = if self.is_rough { "%-d %B %Y, %H:%M UTC" } else { "%-d %B %Y, %H:%M:%S UTC" };
        self.at.strftime(form).to_string()
    }

    /// Whether it is gone.
    pub fn is_past(&self) -> bool {
        self.at <= self.now
    }
}

impl fmt::Display for Moment {
    /// `3 minutes ago`, `in 2 days`; what is further away than half a year by its date.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let distance = self.at.duration_since(self.now);
        let seconds = distance.unsigned_abs().as_secs();
        if seconds > 182 * 86_400 {
            return write!(f, "{}", self.at.strftime("%-d %b %Y"));
        }
        if self.is_rough && seconds < 60 {
            return f.write_str("within a minute");
        }
        if seconds < 5 {
            return f.write_str("now");
        }
        let span = self::seconds(seconds);
        if distance.is_negative() { write!(f, "{span} ago") } else { write!(f, "in {span}") }
    }
}

/// The same of seconds.
pub fn seconds(length: impl Borrow<u64>) -> String {
    span(SignedDuration::from_secs(i64::try_from(*length.borrow()).unwrap_or(i64::MAX)))
}

/// A length of time in its largest unit: `45 seconds`, `3 hours`, `12 days`.
pub fn span(length: SignedDuration) -> String {
    let seconds = length.unsigned_abs().as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    plural(count, unit)
}

/// `1 key`, `1,200 keys`.
pub fn plural(count: impl Borrow<u64>, one: &str) -> String {
    let count = *count.borrow();
    format!("{} {one}{}", number(count), if count == 1 { "" } else { "s" })
}

/// `1,234,567`.
pub fn number(count: impl Borrow<u64>) -> String {
    let digits = count.borrow().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A query with one parameter set anew, or taken away when `value` is empty; what names a place in a list goes with it.
pub fn with<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>, name: &str, value: &str) -> String {
    let kept = pairs.filter(|(given, value)| *given != name && *given != "after" && !value.is_empty());
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(kept);
    if !value.is_empty() {
        query.append_pair(name, value);
    }
    format!("?{}", query.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_said_as_people_say_them() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        for (seconds, expected) in [
            (0, "now"),
            (-3, "now"),
            (-59, "59 seconds ago"),
            (-60, "1 minute ago"),
            (-7_199, "1 hour ago"),
            (-172_800, "2 days ago"),
            (30, "in 30 seconds"),
            (86_400, "in 24 hours"),
            (30 * 86_400, "in 30 days"),
            (-400 * 86_400, "11 Dec 2025"),
        ] {
            let at = now + SignedDuration::from_secs(seconds);
            assert_eq!(Moment::new(at, now).to_string(), expected);
        }
    }

    #[test]
    fn what_is_known_rough_is_said_so() {
        let now = Timestamp::from_second(1_800_000_030).unwrap();
        let used = |seconds: i64| Moment::rough(now - SignedDuration::from_secs(seconds), now);
        assert_eq!(
            (used(30).to_string(), used(30).exact()),
            ("within a minute".into(), "15 January 2027, 08:00 UTC".into())
        );
        assert_eq!(used(90).to_string(), "1 minute ago");
    }

    #[test]
    fn numbers_have_groups_of_three() {
        for (count, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(count), expected);
        }
        assert_eq!((plural(1, "key"), plural(2, "key")), ("1 key".into(), "2 keys".into()));
    }

    #[test]
    fn a_query_changes_in_one_place_and_begins_anew() {
        let pairs = [("state", "active"), ("after", "key_1"), ("search", "a b")];
        assert_eq!(with(pairs.into_iter(), "state", "revoked"), "?search=a+b&state=revoked");
        assert_eq!(with(pairs.into_iter(), "state", ""), "?search=a+b");
    }
}
