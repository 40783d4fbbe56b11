//! How people write durations: `30m`, `24h`, `90d`. The management API, the configuration and the command line write
//! and read them in this one way.

use jiff::{SignedDuration, Span, SpanRelativeTo};

/// What to say of a text that is no duration.
pub const HELP: &str = "give a duration such as 30m, 24h or 90d";

/// Reads a duration such as `24h`, `90d` or `0s`; a day has 24 hours.
pub fn read(text: &str) -> Option<SignedDuration> {
    let span: Span = text.parse().ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()
}

/// Writes a duration in its largest whole unit, as [`read`] reads it.
pub fn written(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    match units.into_iter().find(|(unit, _)| seconds != 0 && seconds % unit == 0) {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// A duration that may be left out, for serde: written as text, and an empty text is none.
pub mod optional {
    use jiff::SignedDuration;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Reads it.
    ///
    /// # Errors
    /// When the text is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SignedDuration>, D::Error> {
        match Option::<String>::deserialize(deserializer)? {
            None => Ok(None),
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => super::read(&text).map(Some).ok_or_else(|| serde::de::Error::custom(super::HELP)),
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Option<SignedDuration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.serialize_some(&super::written(*duration)),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_reads_back_as_it_is_written() {
        for text in ["0s", "59s", "1m", "90m", "24h", "1d", "90d", "3660d"] {
            let duration = read(text).unwrap();
            assert_eq!(read(&written(duration)), Some(duration), "{text}");
        }
        assert_eq!(written(read("24h").unwrap()), "1d");
        for text in ["", "24", "h", "1 month", "1y", "tomorrow", "9999999999999999999d"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
