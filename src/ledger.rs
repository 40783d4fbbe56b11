//! Accounts and keys as they are kept: the store and the ring, changed together and in that order.
//!
//! A change is committed and on disk first, then the ring follows it, then the caller hears "done".
//! Nothing here decides who may change what. The calls block on the disk: async callers wrap them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::key::{
    Account, AccountId, Cost, HashError, Key, KeyError, KeyId, Kind, Mint, MintError, Mode, NewKey, Selector,
    StoredSecret,
};
use crate::ring::{Applied, Ring};
use crate::store::{Batch, CommitError, Expect, Row, Store, StoreError, Table};

/// How often a change is tried again when others change the same key at the same time.
const ATTEMPTS: usize = 32;
/// A load that takes longer than this says how far it is.
const QUIET: Duration = Duration::from_secs(1);

/// Why a change was not made. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record in the store cannot be read.
    #[error("the record {table}/{key} cannot be read: {reason}. Restore the data folder from a backup.")]
    Record {
        /// Its table.
        table: &'static str,
        /// Its key, as text.
        key: String,
        /// What serde says.
        reason: String,
    },
    /// There is no such account.
    #[error("there is no account {0}")]
    NoAccount(AccountId),
    /// There is no such key.
    #[error("there is no key {0}")]
    NoKey(KeyId),
    /// The key cannot be as asked.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No token could be made.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// The secret could not be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// Others changed the same record all the while.
    #[error("the record is being changed by others; try again")]
    Contended,
}

/// The store and the ring.
#[derive(Clone)]
pub struct Ledger {
    store: Arc<dyn Store>,
    ring: Arc<Ring>,
}

impl Ledger {
    /// Loads every account and key of `store` into a ring.
    ///
    /// # Errors
    /// When the store cannot be read, or one of its records cannot: a daemon that knows only some keys
    /// would refuse good callers and forget revocations.
    pub fn load(store: Arc<dyn Store>) -> Result<Self, LedgerError> {
        let ring = Arc::new(Ring::new());
        let started = Instant::now();
        let mut said = started;
        let mut loaded = 0_usize;
        let mut unreadable = None;
        let mut follow = |table: Table, row: Row| {
            match decode_row(table, &row) {
                Ok(change) => ring.apply(change),
                Err(error) => unreadable = unreadable.take().or(Some(error)),
            }
            loaded += 1;
            if said.elapsed() > QUIET {
                said = Instant::now();
                tracing::info!(loaded, "loading keys");
            }
            Ok(())
        };
        store.scan(Table::ACCOUNTS, b"", &mut |row| follow(Table::ACCOUNTS, row))?;
        store.scan(Table::KEYS, b"", &mut |row| follow(Table::KEYS, row))?;
        if let Some(error) = unreadable {
            return Err(error);
        }
        tracing::debug!(keys = ring.len(), milliseconds = started.elapsed().as_millis(), "keys loaded");
        Ok(Self { store, ring })
    }

    /// The ring, to read from.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// The store, for what is neither an account nor a key.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// A new account with its two pairs of keys, publishable and secret, live and test, all or nothing.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was made then.
    pub fn create_account(
        &self,
        name: &str,
        cost: Cost,
        now: Timestamp,
    ) -> Result<(Account, Vec<(Key, Mint)>), LedgerError> {
        let id = AccountId::random().map_err(MintError::from)?;
        let account = Account::create(id, name, now)?;
        let mut batch = Batch::new();
        batch.put(Table::ACCOUNTS, id.as_bytes(), encode(&account), Expect::Absent);
        let mut pairs = Vec::new();
        for (kind, mode, label) in [
            (Kind::Publishable, Mode::Live, "Publishable key"),
            (Kind::Secret, Mode::Live, "Secret key"),
            (Kind::Publishable, Mode::Test, "Test publishable key"),
            (Kind::Secret, Mode::Test, "Test secret key"),
        ] {
            let new = NewKey { kind, mode, name: label.into(), scopes: vec![], addresses: vec![], expires_at: None };
            let (key, mint) = make(&account, new, cost, now)?;
            batch.put(Table::KEYS, key.id.as_bytes(), encode(&key), Expect::Absent);
            pairs.push((key, mint));
        }
        self.commit(&batch, || {
            std::iter::once(Applied::Account(account.clone()))
                .chain(pairs.iter().map(|(key, _)| Applied::Key(key.clone().into(), 1)))
        })?;
        Ok((account, pairs))
    }

    /// A new key of an account, and its token, which is known at this moment only.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was made then.
    pub fn create_key(
        &self,
        account: &AccountId,
        new: NewKey,
        cost: Cost,
        now: Timestamp,
    ) -> Result<(Key, Mint), LedgerError> {
        let account = self.ring.account(account).ok_or(LedgerError::NoAccount(*account))?;
        let (key, mint) = make(&account, new, cost, now)?;
        let mut batch = Batch::new();
        batch.put(Table::KEYS, key.id.as_bytes(), encode(&key), Expect::Absent);
        self.commit(&batch, || [Applied::Key(key.clone().into(), 1)])?;
        Ok((key, mint))
    }

    /// Changes a key. `change` sees the record as the store has it and says whether it changed it; it
    /// may be called again when others got there first.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was changed then.
    pub fn change_key(
        &self,
        id: &KeyId,
        mut change: impl FnMut(&mut Key) -> Result<bool, KeyError>,
    ) -> Result<Key, LedgerError> {
        for _ in 0..ATTEMPTS {
            let row = self.store.get(Table::KEYS, id.as_bytes())?.ok_or(LedgerError::NoKey(*id))?;
            let mut key: Key = decode(Table::KEYS, &row)?;
            if !change(&mut key)? {
                // Whoever made the change that we found may still be on the way to the disk and to the ring; an
                // empty batch waits for the one, and what is applied does not wait for the other.
                self.commit(&Batch::new(), || [Applied::Key(key.clone().into(), row.version)])?;
                return Ok(key);
            }
            let mut batch = Batch::new();
            batch.put(Table::KEYS, id.as_bytes(), encode(&key), Expect::Version(row.version));
            match self.commit(&batch, || [Applied::Key(key.clone().into(), row.version + 1)]) {
                Err(LedgerError::Contended) => {}
                other => return other.map(|()| key),
            }
        }
        Err(LedgerError::Contended)
    }

    /// Marks the secret that `selector` finds as exposed, for good; `true` when this call did it.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was marked then.
    pub fn compromise(&self, id: &KeyId, selector: &Selector, now: Timestamp) -> Result<bool, LedgerError> {
        let mut marked = false;
        self.change_key(id, |key| {
            marked = key.compromise(selector, now);
            Ok(marked)
        })?;
        Ok(marked)
    }

    fn commit<I>(&self, batch: &Batch, applied: impl FnOnce() -> I) -> Result<(), LedgerError>
    where
        I: IntoIterator<Item = Applied>,
    {
        match self.store.commit(batch) {
            Ok(_) => {
                for change in applied() {
                    self.ring.apply(change);
                }
                Ok(())
            }
            Err(CommitError::Conflict { .. }) => Err(LedgerError::Contended),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }
}

fn make(account: &Account, new: NewKey, cost: Cost, now: Timestamp) -> Result<(Key, Mint), LedgerError> {
    let mint = Mint::new(new.kind, new.mode)?;
    let phc = mint.secret().hash(cost)?;
    let id = KeyId::random().map_err(MintError::from)?;
    let mut key = Key::create(account, new, id, StoredSecret::new(&mint, phc, now), now)?;
    if key.kind == Kind::Publishable {
        key.public_token = Some(mint.expose().into());
    }
    Ok((key, mint))
}

fn encode(record: &impl serde::Serialize) -> Vec<u8> {
    // Invariant: our records hold no maps with keys that are no text and no type whose Serialize can fail.
    serde_json::to_vec(record).unwrap_or_default()
}

fn decode<T: DeserializeOwned>(table: Table, row: &Row) -> Result<T, LedgerError> {
    serde_json::from_slice(&row.value).map_err(|error| LedgerError::Record {
        table: table.0,
        key: String::from_utf8_lossy(&row.key).into_owned(),
        reason: format!("{:?} error at byte {}", error.classify(), error.column()),
    })
}

fn decode_row(table: Table, row: &Row) -> Result<Applied, LedgerError> {
    if table.0 == Table::ACCOUNTS.0 {
        decode(table, row).map(Applied::Account)
    } else {
        decode(table, row).map(|key: Key| Applied::Key(key.into(), row.version))
    }
}
