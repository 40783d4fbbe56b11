//! The life of a key.

use std::sync::PoisonError;

use jiff::{SignedDuration, Timestamp};

use super::{Ledger, LedgerError, Once, check_version, decode, encode, persistently};
use crate::key::{
    Account, AccountId, Cost, Key, KeyError, KeyId, Kind, Mint, MintError, NewKey, Selector, State, StoredSecret,
};
use crate::ring::Applied;
use crate::store::{Batch, Expect, Table};
use crate::trail::{By, Event, Happened};

/// What becomes of a secret or restricted key's secret that others may have read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// It is dead from then on.
    Kills,
    /// It is noted and told, and the secret goes on working.
    Flags,
}

impl Ledger {
    /// A new key of an account, and its token, which is known at this moment only.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was made then.
    pub fn create_key(
        &self,
        account: &AccountId,
        new: NewKey,
        cost: Cost,
        once: Option<&Once>,
        by: &By,
    ) -> Result<(Key, Mint), LedgerError> {
        let live = self.ring.account(account).ok_or(LedgerError::NoAccount(*account))?;
        let (key, mint) = make(&live.account, new, cost, by.now)?;
        let mut batch = Batch::new();
        batch.put(Table::KEYS, key.id.as_bytes(), encode(&key), Expect::Absent);
        made(&key, by).append_to(&mut batch, 0);
        if let Some(once) = once {
            once.note(&mut batch, &key.id.to_string(), by.now);
        }
        let _open = self.closing.read().unwrap_or_else(PoisonError::into_inner);
        if self.ring.account(account).is_none_or(|live| live.account.closed_at.is_some()) {
            return Err(KeyError::Closed.into());
        }
        self.commit(&batch, [Applied::Key(key.clone().into(), 1)])?;
        Ok((key, mint))
    }

    /// Changes a key; the record and its version. `change` sees the record as the store has it, and returns what
    /// happened, or nothing if there was nothing to do; it may be called again when others got there first.
    /// `expected` is the version that the caller has seen, if that matters to them.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was changed then.
    pub fn change_key(
        &self,
        id: &KeyId,
        expected: Option<u64>,
        change: impl FnMut(&mut Key) -> Result<Option<Event>, KeyError>,
    ) -> Result<(Key, u64), LedgerError> {
        self.change_key_once(id, expected, None, change)
    }

    fn change_key_once(
        &self,
        id: &KeyId,
        expected: Option<u64>,
        once: Option<&Once>,
        mut change: impl FnMut(&mut Key) -> Result<Option<Event>, KeyError>,
    ) -> Result<(Key, u64), LedgerError> {
        // Whoever closes the account waits, so that it does not have to begin anew for each key that changes meanwhile.
        let _open = self.closing.read().unwrap_or_else(PoisonError::into_inner);
        persistently(|| {
            let row = self.store.get(Table::KEYS, id.as_bytes())?.ok_or(LedgerError::NoKey(*id))?;
            check_version(row.version, expected)?;
            let mut key: Key = decode(Table::KEYS, &row)?;
            let had: Vec<_> = key.secrets().filter_map(StoredSecret::foreign_name).collect();
            let Some(event) = change(&mut key)? else {
                // Whoever made the change that we found may still be on the way to the disk and to the ring; an
                // empty batch waits for the one, and what is applied does not wait for the other.
                self.commit(&Batch::new(), [Applied::Key(key.clone().into(), row.version)])?;
                return Ok((key, row.version));
            };
            let mut batch = Batch::new();
            batch.put(Table::KEYS, id.as_bytes(), encode(&key), Expect::Version(row.version));
            if let Some(once) = once {
                once.note(&mut batch, &id.to_string(), event.at);
            }
            self.keep_known(&had, &key, &mut batch)?;
            event.of_key(key.account, key.id).append_to(&mut batch, 0);
            let version = row.version + 1;
            self.commit(&batch, [Applied::Key(key.clone().into(), version)])?;
            Ok((key, version))
        })
    }

    /// Gives a key a new secret; the record, its version and the new token, which is known at this moment only. The
    /// secret before works until `overlap` has passed, or the key's expiry.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was changed then.
    pub fn rotate_key(
        &self,
        id: &KeyId,
        expected: Option<u64>,
        overlap: SignedDuration,
        cost: Cost,
        once: Option<&Once>,
        by: &By,
    ) -> Result<(Key, u64, Mint), LedgerError> {
        let live = self.ring.key(id).ok_or(LedgerError::NoKey(*id))?;
        let (mint, secret) = minted(live.key.kind, live.key.mode, cost, by.now)?;
        let (key, version) = self.change_key_once(id, expected, once, |key| {
            key.rotate(secret.clone(), overlap, by.now)?;
            key.keep_public(&mint);
            let event = Event::new(Happened::KeyRotated, by);
            Ok(Some(match &key.retiring {
                Some(retiring) => event.with("old_secret_ends_at", retiring.ends_at.to_string()),
                None => event,
            }))
        })?;
        Ok((key, version, mint))
    }

    /// Marks the secret that `selector` finds as exposed; `true` when this call did it. `how` tells people how it became known.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was marked then.
    pub fn expose(
        &self,
        id: &KeyId,
        selector: &Selector,
        exposure: Exposure,
        how: &str,
        by: &By,
    ) -> Result<bool, LedgerError> {
        let mut marked = false;
        self.change_key(id, None, |key| {
            marked = key.secret(selector).is_some()
                && match exposure {
                    Exposure::Kills => key.compromise(selector, by.now),
                    Exposure::Flags => key.flag(selector, by.now),
                };
            let which = if key.secret.selector == *selector { "current" } else { "rotated out" };
            let event = || Event::new(Happened::KeyCompromised, by).with("how", how).with("secret", which);
            let event = marked.then(event).map(|event| match exposure {
                Exposure::Kills => event,
                Exposure::Flags => event.with("still_works", "true"),
            });
            Ok(event)
        })?;
        Ok(marked)
    }

    /// Kills a key for good; whether it lived.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was changed then.
    pub fn revoke_key(
        &self,
        id: &KeyId,
        expected: Option<u64>,
        reason: Option<&str>,
        by: &By,
    ) -> Result<(Key, u64, bool), LedgerError> {
        let mut lived = false;
        let (key, version) = self.change_key(id, expected, |key| {
            lived = key.state != State::Revoked;
            let event = key.revoke_because(reason, by.now)?.then(|| Event::new(Happened::KeyRevoked, by));
            Ok(event.map(|event| match reason.filter(|reason| !reason.is_empty()) {
                Some(reason) => event.with("reason", reason),
                None => event,
            }))
        })?;
        Ok((key, version, lived))
    }
}

/// What tells of a new key, and of all that it was granted.
pub(super) fn made(key: &Key, by: &By) -> Event {
    let event = Event::new(Happened::KeyCreated, by).of_key(key.account, key.id);
    let event = event.with("kind", key.kind.as_str()).with("mode", key.mode.as_str());
    let chosen = key.chosen().into_iter().filter(|(_, value)| !value.is_empty());
    chosen.fold(event, |event, (field, value)| event.with(field, value))
}

/// A new token of this kind and mode, and what to keep of it.
fn minted(kind: Kind, mode: crate::key::Mode, cost: Cost, now: Timestamp) -> Result<(Mint, StoredSecret), LedgerError> {
    let mint = Mint::new(kind, mode)?;
    let phc = mint.secret().hash(cost)?;
    let secret = StoredSecret::new(&mint, phc, now);
    Ok((mint, secret))
}

/// A new key that is nowhere yet.
pub(super) fn make(account: &Account, new: NewKey, cost: Cost, now: Timestamp) -> Result<(Key, Mint), LedgerError> {
    let (mint, secret) = minted(new.kind, new.mode, cost, now)?;
    let id = KeyId::random().map_err(MintError::from)?;
    let mut key = Key::create(account.id, new, id, secret, now)?;
    key.keep_public(&mint);
    Ok((key, mint))
}
