//! What was decided, written down: behind a bounded queue, and never in the way of a decision.

mod log;

pub use log::{DecisionLog, Entry, LogError, Unlogged, WhenFull};
