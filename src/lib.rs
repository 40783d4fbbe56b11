//! Keyward: a bearer API key comes in, a Cedar decision goes out.
//!
//! The rooms, from the ground up; a lower one never names a higher one:
//!
//! - [`key`]: the domain, pure: accounts, keys, secrets, tokens and their life.
//! - [`store`]: what is on disk, and the only way to change it.
//! - [`policy`]: schema and policy files become one immutable, checked `Revision`.

pub mod key;
pub mod policy;
pub mod store;
