//! The decision, pure.

pub mod credentials;
pub mod path;
