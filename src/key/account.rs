//! An account: who owns keys. It has a live and a test environment, which follow from its id.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::is_presentable;
use super::{AccountId, EnvironmentId, KeyError, Mode};

/// An account as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its identity.
    pub id: AccountId,
    /// What people call it.
    pub name: Box<str>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Account {
    /// A new account.
    ///
    /// # Errors
    /// [`KeyError::Name`] when the name is empty, over 200 characters, or holds control characters.
    pub fn create(id: AccountId, name: &str, now: Timestamp) -> Result<Self, KeyError> {
        is_presentable(name).then(|| Self { id, name: name.into(), created_at: now }).ok_or(KeyError::Name)
    }

    /// The account's environment of this mode.
    pub fn environment(&self, mode: Mode) -> EnvironmentId {
        EnvironmentId { account: self.id, mode }
    }
}
