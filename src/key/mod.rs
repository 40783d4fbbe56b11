//! The domain: accounts, keys, secrets and tokens, and the rules of their life.
//!
//! Everything here is pure. It takes values and the time and returns values; the only thing it asks
//! of the operating system is random bytes. It knows nothing of stores, policies or HTTP.
//!
//! A *key* is an identity, a *secret* is its proof, a *token* is how the proof travels:
//! `sk_live_` + selector + secret + checksum. Rotating replaces the secret and keeps the key. People have tokens
//! of the same make, `kw_` + selector + secret + checksum.

mod account;
mod change;
mod check;
mod foreign;
mod found;
mod id;
mod moment;
mod new;
mod record;
mod secret;
mod terms;
mod token;
mod used;

pub use account::Account;
pub use change::{Extras, KeyUpdate, LONGEST_OVERLAP, Reminder, Revocation};
pub(crate) use check::{AHEAD, is_ahead};
pub(crate) use foreign::STARTS;
pub use foreign::{ForeignDigest, ForeignError, ForeignName, ForeignToken};
pub use found::{Found, find_tokens};
pub use id::{AccountId, ApiTokenId, EnvironmentId, IdError, KeyId, Selector, UserId};
pub use moment::Moment;
pub use new::{KeyError, NewKey};
pub(crate) use record::is_presentable;
pub use record::{Key, Retiring, StoredSecret};
#[cfg(test)]
pub(crate) use secret::runs;
pub use secret::{Ceiling, Cost, Glance, HashError, Phc, Remembered, Screen, Secret};
pub use terms::{Kind, Mode, Scope, State, Status, UnknownWord};
pub use token::{LastFour, Mint, MintError, NotAToken, NotFour, Presented, Token, UserToken, masked};
pub use used::{LastUsed, UseStamp};
