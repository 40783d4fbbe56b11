//! What was here once and must not be made anew by an import: tokens that another system issued, and people.
//!
//! A file that keys or people moved in with stays where it is, and may be imported again after a token leaked or a
//! person left. So each has a row that is never taken away, and that moves out and in with everything else. What was here
//! before there were such rows gets one when it goes.

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerError, decode, encode};
use crate::key::{AccountId, ForeignName, Key, KeyId, Kind, Mode, Scope, StoredSecret, UserId};
use crate::ring::LiveKey;
use crate::store::{Batch, Expect, Table};

/// A token that another system issued, and what its key was when it moved in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownToken {
    /// What it is known by.
    pub token: ForeignName,
    /// Whose token it is, or was.
    pub key: KeyId,
    account: AccountId,
    kind: Kind,
    mode: Mode,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<Scope>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

impl KnownToken {
    /// A token of this key, as it is now.
    pub(super) fn of(key: &Key, token: ForeignName) -> Self {
        Self {
            token,
            key: key.id,
            account: key.account,
            kind: key.kind,
            mode: key.mode,
            scopes: key.scopes.to_vec(),
            addresses: key.addresses().to_vec(),
            expires_at: key.expires_at(),
        }
    }

    /// What a key that would have this token is, and the known one was not: what people call it does not matter.
    pub(super) fn differs_in(&self, key: &Key) -> Option<&'static str> {
        let fields = [
            ("account", self.account == key.account),
            ("key.kind", self.kind == key.kind),
            ("key.mode", self.mode == key.mode),
            ("key.scopes", *self.scopes == *key.scopes),
            ("key.addresses", self.addresses == key.addresses()),
            ("key.expires_at", self.expires_at == key.expires_at()),
        ];
        fields.into_iter().find_map(|(name, is_same)| (!is_same).then_some(name))
    }

    pub(super) fn put(&self, batch: &mut Batch) {
        batch.put(Table::FOREIGN_TOKENS, self.token.as_bytes(), encode(self), Expect::Absent);
    }
}

/// A person who was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeletedUser {
    /// Who.
    pub id: UserId,
    /// When.
    pub deleted_at: Timestamp,
}

impl DeletedUser {
    pub(super) fn put(&self, batch: &mut Batch) {
        batch.put(Table::DELETED_USERS, self.id.as_bytes(), encode(self), Expect::Any);
    }
}

impl Ledger {
    /// What is known of this secret's token, if another system issued it and it was here before.
    pub(super) fn known_token(&self, secret: &StoredSecret) -> Result<Option<KnownToken>, LedgerError> {
        let Some(name) = secret.foreign_name() else { return Ok(None) };
        let held = |live: &LiveKey| live.key.secrets().any(|held| held.foreign_name() == Some(name));
        let live = match secret.phc.foreign_start() {
            None => self.ring.find(&secret.selector).filter(|live| held(live)),
            Some(start) => self.ring.starting(start).into_iter().find(|live| held(live)),
        };
        // Looked at after the ring: a token that is on its way out of that has its row already.
        Ok(self.token_row(&name)?.or_else(|| live.map(|live| KnownToken::of(&live.key, name))))
    }

    /// What is kept for good of this token.
    pub(super) fn token_row(&self, name: &ForeignName) -> Result<Option<KnownToken>, LedgerError> {
        let row = self.store.get(Table::FOREIGN_TOKENS, name.as_bytes())?;
        row.map(|row| decode(Table::FOREIGN_TOKENS, &row)).transpose()
    }

    /// Whether this person was here, and was deleted.
    pub(super) fn was_deleted(&self, id: &UserId) -> Result<bool, LedgerError> {
        Ok(self.store.get(Table::DELETED_USERS, id.as_bytes())?.is_some())
    }

    /// Adds rows for the tokens of other systems that a key had and has no more, where there are none.
    pub(super) fn keep_known(&self, had: &[ForeignName], key: &Key, batch: &mut Batch) -> Result<(), LedgerError> {
        for name in had.iter().filter(|name| key.secrets().all(|held| held.foreign_name() != Some(**name))) {
            if self.token_row(name)?.is_none() {
                KnownToken::of(key, *name).put(batch);
            }
        }
        Ok(())
    }
}
