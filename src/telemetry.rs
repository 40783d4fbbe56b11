//! The daemon's own log: structured events to standard error, for people or as JSON.
//!
//! Owns the subscriber of the process. Levels mean something: *error* asks a person to act, *warn* says that
//! something was refused or lost, *info* is life-cycle, *debug* and *trace* are for developers. Nothing here
//! ever sees a token, a secret or a hash: those types do not print themselves.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use jiff::Timestamp;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{self, Log, LogFormat};

/// Lines that may wait for standard error; more are lost.
const LINES: usize = 8_192;
/// The variable that overrides `log.level`.
pub const VARIABLE: &str = "KEYWARD_LOG";

/// A line of the log that whoever calls can have written as often as they like: told at most once a second, so that it takes
/// nobody else's place among those that wait.
#[derive(Debug)]
pub struct Seldom {
    /// The second in which it was told last. Of calls at the same moment, one moves it on.
    last: AtomicI64,
    untold: AtomicU64,
}

impl Default for Seldom {
    fn default() -> Self {
        Self::new()
    }
}

impl Seldom {
    /// One that was not told yet.
    pub const fn new() -> Self {
        Self { last: AtomicI64::new(i64::MIN), untold: AtomicU64::new(0) }
    }

    /// How often it was not told since the last time, if it may be told now.
    pub fn admit(&self, now: Timestamp) -> Option<u64> {
        let (second, last) = (now.as_second(), self.last.load(Ordering::Relaxed));
        // A clock that went back is no reason to be silent.
        let is_first =
            second != last && self.last.compare_exchange(last, second, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_first {
            return Some(self.untold.swap(0, Ordering::Relaxed));
        }
        self.untold.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is no level and no list of directives.
    #[error("{place}: {told}")]
    Level {
        /// Who said it: the variable or the key of the configuration.
        place: &'static str,
        /// What is wrong with it.
        told: String,
    },
    /// Another subscriber is there already; it stays.
    #[error("the log is set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// Sends the events of this process to standard error, as the configuration or [`VARIABLE`] says. A thread writes them:
/// when nobody reads, lines are lost, and no decision waits. What is queued is written when the guard is dropped.
///
/// # Errors
/// [`TelemetryError`]: a level that cannot be read, or a process that has a subscriber already.
pub fn init(log: &Log) -> Result<WorkerGuard, TelemetryError> {
    let filter = filter(log, std::env::var(VARIABLE).ok())?;
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LINES).thread_name("log").finish(std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?,
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).finish().try_init()?,
    }
    Ok(guard)
}

fn filter(log: &Log, variable: Option<String>) -> Result<EnvFilter, TelemetryError> {
    let (place, text) = match variable {
        Some(text) if !text.trim().is_empty() => (VARIABLE, text),
        _ => ("log.level", log.level.clone()),
    };
    config::read_level(&text).map_err(|told| TelemetryError::Level { place, told })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(level: &str, variable: Option<&str>) -> Result<String, String> {
        let log = Log { level: level.into(), ..Log::default() };
        filter(&log, variable.map(Into::into)).map(|filter| filter.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_variable_overrides_the_configuration_unless_it_is_empty() {
        assert_eq!(read("info", None).unwrap(), "info");
        assert_eq!(read("info", Some("")).unwrap(), "info");
        assert_eq!(read("info", Some("debug")).unwrap(), "debug");
        assert!(read("info,keyward::http=debug", None).unwrap().contains("keyward::http=debug"));
    }

    #[test]
    fn a_flood_is_one_line_a_second_that_says_how_much_was_not_told() {
        let line = Seldom::new();
        let at = |tenths: i64| Timestamp::from_millisecond(1_000_000 + tenths * 100).unwrap();
        let told: Vec<u64> = (0..25).filter_map(|tenths| line.admit(at(tenths))).collect();
        assert_eq!(told, [0, 9, 9]);
        assert_eq!(line.admit(at(0)), Some(4), "the clock went back");
        assert_eq!(line.admit(at(1)), None);
    }

    #[test]
    fn a_misspelt_level_is_an_error_and_not_silence() {
        let told = read("inof", None).unwrap_err();
        assert!(told.starts_with("log.level: `inof` is neither a level"), "{told}");
        let told = read("info", Some("info,keyward=loud")).unwrap_err();
        assert!(told.starts_with("KEYWARD_LOG: `info,keyward=loud` is neither"), "{told}");
    }
}
