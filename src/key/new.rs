//! What is asked for when a key is made, and why it cannot be had.

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use super::{Kind, Mode, Scope};

/// What is asked for when a key is made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// What it is for.
    pub kind: Kind,
    /// Which environment it belongs to.
    pub mode: Mode,
    /// What people will call it: 1 to 200 characters, no control characters.
    pub name: String,
    /// What a restricted key is granted: at least one for that kind, none for the others.
    pub scopes: Vec<Scope>,
    /// Where it may be used from; empty means anywhere.
    pub addresses: Vec<IpNet>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// What people note about it: up to 1,000 characters.
    pub note: Option<String>,
    /// How often its secret should be replaced.
    pub rotate_every: Option<SignedDuration>,
}

impl NewKey {
    /// A key of this kind, mode and name, and nothing else asked for.
    pub fn named(kind: Kind, mode: Mode, name: impl Into<String>) -> Self {
        let (name, scopes, addresses) = (name.into(), Vec::new(), Vec::new());
        Self { kind, mode, name, scopes, addresses, expires_at: None, note: None, rotate_every: None }
    }
}

/// Why a key cannot be made or changed as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The name is empty, too long or holds control characters.
    #[error("name: give 1 to 200 characters without control characters")]
    Name,
    /// A restricted key without scopes could do nothing.
    #[error("scopes: a restricted key needs at least one scope")]
    NoScopes,
    /// Scopes are for restricted keys.
    #[error("scopes: a {0} key takes no scopes; make a restricted key instead")]
    ScopesNotTaken(Kind),
    /// The expiry has passed already.
    #[error("expires_at: {0} is not in the future")]
    ExpiresInThePast(Timestamp),
    /// A revoked key stays revoked.
    #[error("the key is revoked, which is final; create a new key")]
    Revoked,
    /// A new secret would not work either.
    #[error("the key has expired; give it a later expires_at first, or create a new key")]
    Expired,
    /// The note is too long or holds control characters.
    #[error("note: give up to 1,000 characters, of control characters line breaks and tabs alone")]
    Note,
    /// The reason is too long or holds control characters.
    #[error("reason: give up to 1,000 characters, of control characters line breaks and tabs alone")]
    Reason,
    /// The rotation interval is too short or too long.
    #[error("rotate_every: give from 1h to 3660d")]
    Interval,
    /// The overlap is too long or negative.
    #[error("overlap: give from 0s to 7d")]
    Overlap,
    /// A publishable key has no secret to lose.
    #[error("a publishable key is public and cannot be compromised; revoke it instead")]
    Public,
    /// A record of a file could not have been made here.
    #[error("{0}: {1}")]
    NotOfHere(&'static str, &'static str),
    /// Too many networks.
    #[error("addresses: give at most 100")]
    Addresses,
    /// A closed account stays closed.
    #[error("the account is closed, which is final; create a new account")]
    Closed,
}

impl KeyError {
    /// The field that it is about, where it is about one.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Name => Some("name"),
            Self::NoScopes | Self::ScopesNotTaken(_) => Some("scopes"),
            Self::ExpiresInThePast(_) => Some("expires_at"),
            Self::Note => Some("note"),
            Self::Reason => Some("reason"),
            Self::Interval => Some("rotate_every"),
            Self::Overlap => Some("overlap"),
            Self::Addresses => Some("addresses"),
            Self::NotOfHere(field, _) => Some(field),
            Self::Revoked | Self::Expired | Self::Public | Self::Closed => None,
        }
    }
}
