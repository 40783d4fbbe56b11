//! An account: who owns keys. It has a live and a test environment, which follow from its id.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::check::{AHEAD, is_ahead};
use super::record::is_presentable;
use super::{AccountId, EnvironmentId, KeyError, Mode};

/// An account as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Its identity.
    pub id: AccountId,
    /// What people call it.
    pub name: Box<str>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it is closed, and all its keys dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Timestamp>,
}

impl Account {
    /// A new account.
    ///
    /// # Errors
    /// [`KeyError::Name`] when the name is empty, over 200 characters, or holds control characters.
    pub fn create(id: AccountId, name: &str, now: Timestamp) -> Result<Self, KeyError> {
        let account = Self { id, name: name.into(), created_at: now, closed_at: None };
        account.check(now).map(|()| account)
    }

    /// Refuses a record that could not have been made here.
    ///
    /// # Errors
    /// [`KeyError::Name`] as above, and of a time that has not come.
    pub fn check(&self, now: Timestamp) -> Result<(), KeyError> {
        let times = [("created_at", Some(self.created_at)), ("closed_at", self.closed_at)];
        match times.into_iter().find(|(_, time)| time.is_some_and(|time| is_ahead(time, now))) {
            _ if !is_presentable(&self.name) => Err(KeyError::Name),
            Some((field, _)) => Err(KeyError::NotOfHere(field, AHEAD)),
            None => Ok(()),
        }
    }

    /// Gives it another name; whether that changed anything.
    ///
    /// # Errors
    /// [`KeyError::Name`] as above, [`KeyError::Closed`] for a closed account.
    pub fn rename(&mut self, name: &str) -> Result<bool, KeyError> {
        match self.closed_at {
            Some(_) => Err(KeyError::Closed),
            None if !is_presentable(name) => Err(KeyError::Name),
            None => Ok(std::mem::replace(&mut self.name, name.into()).as_ref() != name),
        }
    }

    /// The account's environment of this mode.
    pub fn environment(&self, mode: Mode) -> EnvironmentId {
        EnvironmentId { account: self.id, mode }
    }
}
