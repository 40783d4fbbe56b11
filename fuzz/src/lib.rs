//! What must hold of Keyward's parsers for every input: one module for each, and in it one `check` that
//! panics where it does not hold.
//!
//! libFuzzer calls them through `fuzz_targets/`. Keyward's own tests call them, too, with the seeds and with
//! small changes of these, so that a property that no longer holds is found without a fuzzer.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a property that does not hold is told by a panic"
)]

pub mod config;
pub mod forward_auth;
pub mod path;
pub mod policy;
pub mod record;
mod rows;
pub mod token;
