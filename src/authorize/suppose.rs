//! Keys that are only supposed: what a call with such a key would come to, before there is one.

use std::sync::Arc;

use jiff::Timestamp;

use super::Caller;
use crate::key::{AccountId, Key, KeyError, KeyId, Kind, Mode, NewKey, Phc, Scope, Screen, Selector, StoredSecret};
use crate::ring::LiveKey;

/// A good key that is in no store, and that no token proves.
#[derive(Debug, Clone)]
pub struct Supposed {
    /// Whose key it is.
    pub account: AccountId,
    /// Its kind.
    pub kind: Kind,
    /// Its mode.
    pub mode: Mode,
    /// What a restricted key is granted.
    pub scopes: Vec<Scope>,
}

impl Supposed {
    /// Whoever has such a key, under the id [`KeyId::EXAMPLE`].
    ///
    /// # Errors
    /// [`KeyError`] when there can be no such key: a restricted one without scopes, or another one with them.
    pub fn caller(self, now: Timestamp) -> Result<Caller, KeyError> {
        let selector = Selector::EXAMPLE;
        let secret = StoredSecret {
            selector,
            phc: Phc::none(),
            screen: Screen::none(),
            created_at: now.into(),
            compromised_at: None,
            last_four: None,
        };
        let new = NewKey { scopes: self.scopes, ..NewKey::named(self.kind, self.mode, "supposed") };
        let key = Key::create(self.account, new, KeyId::EXAMPLE, secret, now)?;
        Ok(Caller::Proven(Arc::new(LiveKey::new(key, 1)), selector))
    }
}
