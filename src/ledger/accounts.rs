//! The life of an account.

use std::sync::{Arc, PoisonError};

use super::keys::make;
use super::{Ledger, LedgerError, Once, check_version, decode, encode, persistently};
use crate::key::{Account, AccountId, Cost, Key, KeyError, Kind, Mint, MintError, Mode, NewKey};
use crate::ring::{Applied, LiveAccount};
use crate::store::{Batch, Expect, Table};
use crate::trail::{By, Event, Happened, tell_also};

impl Ledger {
    /// A new account with its two pairs of keys, publishable and secret, live and test, all or nothing.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was made then.
    pub fn create_account(
        &self,
        name: &str,
        cost: Cost,
        once: Option<&Once>,
        by: &By,
    ) -> Result<(Account, Vec<(Key, Mint)>), LedgerError> {
        let id = AccountId::random().map_err(MintError::from)?;
        let account = Account::create(id, name, by.now)?;
        let mut batch = Batch::new();
        batch.put(Table::ACCOUNTS, id.as_bytes(), encode(&account), Expect::Absent);
        Event::new(Happened::AccountCreated, by).of_account(id).with("name", &account.name).append_to(&mut batch, 0);
        let mut pairs = Vec::new();
        for (ordinal, kind, mode, label) in [
            (1, Kind::Publishable, Mode::Live, "Publishable key"),
            (2, Kind::Secret, Mode::Live, "Secret key"),
            (3, Kind::Publishable, Mode::Test, "Test publishable key"),
            (4, Kind::Secret, Mode::Test, "Test secret key"),
        ] {
            let (key, mint) = make(&account, NewKey::named(kind, mode, label), cost, by.now)?;
            batch.put(Table::KEYS, key.id.as_bytes(), encode(&key), Expect::Absent);
            super::keys::made(&key, by).append_to(&mut batch, ordinal);
            pairs.push((key, mint));
        }
        if let Some(once) = once {
            once.note(&mut batch, &id.to_string(), by.now);
        }
        let keys = pairs.iter().map(|(key, _)| Applied::Key(key.clone().into(), 1));
        self.commit(&batch, std::iter::once(Applied::Account(account.clone(), 1)).chain(keys))?;
        Ok((account, pairs))
    }

    /// Gives an account another name.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was changed then.
    pub fn rename_account(
        &self,
        id: &AccountId,
        name: &str,
        expected: Option<u64>,
        by: &By,
    ) -> Result<Arc<LiveAccount>, LedgerError> {
        self.change_account(id, expected, |account, batch| {
            let renamed = account.rename(name)?;
            if renamed {
                Event::new(Happened::AccountRenamed, by).of_account(*id).with("name", name).append_to(batch, 0);
            }
            Ok((renamed, Vec::new()))
        })
    }

    /// Closes an account for good, and revokes all its keys at the same moment.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was changed then.
    pub fn close_account(
        &self,
        id: &AccountId,
        expected: Option<u64>,
        by: &By,
    ) -> Result<Arc<LiveAccount>, LedgerError> {
        let _closing = self.closing.write().unwrap_or_else(PoisonError::into_inner);
        self.change_account(id, expected, |account, batch| {
            if account.closed_at.is_some() {
                return Ok((false, Vec::new()));
            }
            account.closed_at = Some(by.now);
            let mut revoked = Vec::new();
            for live in self.ring.keys_of(id) {
                let mut key = live.key.clone();
                if key.revoke_because(Some("the account was closed"), by.now)? {
                    batch.put(Table::KEYS, key.id.as_bytes(), encode(&key), Expect::Version(live.version));
                    tell_also(batch, &key.id, 0);
                    revoked.push(Applied::Key(key.into(), live.version + 1));
                }
            }
            let closed = Event::new(Happened::AccountClosed, by).of_account(*id);
            closed.with("keys_revoked", revoked.len().to_string()).append_to(batch, 0);
            Ok((true, revoked))
        })
    }

    /// Changes an account; `change` says whether it did, and what else the ring has to follow.
    fn change_account(
        &self,
        id: &AccountId,
        expected: Option<u64>,
        mut change: impl FnMut(&mut Account, &mut Batch) -> Result<(bool, Vec<Applied>), KeyError>,
    ) -> Result<Arc<LiveAccount>, LedgerError> {
        persistently(|| {
            // The ring has what is on disk, and others may be on their way there: whoever looked at it would come too late.
            let row = self.store.get(Table::ACCOUNTS, id.as_bytes())?.ok_or(LedgerError::NoAccount(*id))?;
            check_version(row.version, expected)?;
            let mut account: Account = decode(Table::ACCOUNTS, &row)?;
            let mut batch = Batch::new();
            let (changed, also) = change(&mut account, &mut batch)?;
            if !changed {
                // As in `change_key`: it waits for whoever made the change that was found.
                self.commit(&Batch::new(), [Applied::Account(account.clone(), row.version)])?;
                return Ok(Arc::new(LiveAccount { account, version: row.version }));
            }
            batch.put(Table::ACCOUNTS, id.as_bytes(), encode(&account), Expect::Version(row.version));
            let version = row.version + 1;
            self.commit(&batch, also.into_iter().chain([Applied::Account(account.clone(), version)]))?;
            Ok(Arc::new(LiveAccount { account, version }))
        })
    }
}
