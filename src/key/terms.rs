//! The words for keys: what a key is for, which environment it belongs to, what it is granted, and how it stands.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a key is for. What it *may do* is said by policies alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Public by design: it is embedded in browsers and mobile clients.
    Publishable,
    /// Full access; kept on a server.
    Secret,
    /// What its scopes grant.
    Restricted,
}

impl Kind {
    /// The first two characters of its tokens.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Publishable => "pk",
            Self::Secret => "sk",
            Self::Restricted => "rk",
        }
    }

    /// Its name in JSON, headers and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publishable => "publishable",
            Self::Secret => "secret",
            Self::Restricted => "restricted",
        }
    }
}

/// Which of an account's two environments a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Real data.
    Live,
    /// Isolated data to try things on.
    Test,
}

impl Mode {
    /// Its name in tokens, JSON, headers and environment ids.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

/// A word that names no kind or mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not one of {choices}")]
pub struct UnknownWord {
    word: String,
    choices: &'static str,
}

impl UnknownWord {
    pub(crate) fn new(word: &str, choices: &'static str) -> Self {
        Self { word: word.into(), choices }
    }
}

impl FromStr for Kind {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        [Self::Publishable, Self::Secret, Self::Restricted]
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| UnknownWord::new(word, "publishable, secret, restricted"))
    }
}

impl FromStr for Mode {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        [Self::Live, Self::Test]
            .into_iter()
            .find(|mode| mode.as_str() == word)
            .ok_or_else(|| UnknownWord::new(word, "live, test"))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a scope, for example `resources:read`. Which names there are is said by the schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scope(Box<str>);

impl Scope {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Scope {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether people let a key work. Expiry and compromise are facts about time and secrets, not states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// In use.
    Active,
    /// Switched off; may be switched on again.
    Disabled,
    /// Dead for good.
    Revoked,
}

/// What may be said of a key and the secret that proved it, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It works.
    Good,
    /// The key's expiry or the secret's overlap has passed.
    Expired,
    /// The key is switched off.
    Disabled,
    /// The key is dead for good.
    Revoked,
    /// The secret was seen where it may have been read by others.
    Compromised,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Good, Self::Expired, Self::Disabled, Self::Revoked, Self::Compromised];

    /// Its name, for people and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "active",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
            Self::Compromised => "compromised",
        }
    }
}
