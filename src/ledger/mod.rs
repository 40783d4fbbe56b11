//! Accounts and keys as they are kept: the store and the ring, changed together and in that order.
//!
//! A change is committed and on disk first, together with the event that tells of it; then the ring follows it; then
//! the caller hears "done". Nothing here decides who may change what. The calls block on the disk: async callers wrap
//! them.

mod accounts;
mod events;
mod keys;
mod known;
mod once;
mod people;
mod reminders;
mod transfer;
mod uses;

use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio::sync::watch;

pub use self::events::About;
pub use self::keys::Exposure;
pub use self::known::{DeletedUser, KnownToken};
pub use self::once::{Done, Once};
pub use self::people::SIGNED_IN;
pub use self::transfer::{ImportError, Incoming, MovedIn, Unfit};
pub use self::uses::{KeyUses, SecretUse, Uses};
use crate::directory::Directory;
use crate::key::{AccountId, HashError, Key, KeyError, KeyId, MintError, UserId};
use crate::people::PeopleError;
use crate::ring::{Applied, Ring};
use crate::store::{Batch, CommitError, Order, Place, Row, Store, StoreError, Table};

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
    /// There is no such user.
    #[error("there is no user {0}, or not there")]
    NoUser(UserId),
    /// Another person signs in with this e-mail address.
    #[error("email: another user has this address")]
    EmailTaken,
    /// The person cannot be as asked.
    #[error(transparent)]
    People(#[from] PeopleError),
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
    /// The caller has seen an older record.
    #[error("the record is at version {found} and not {expected}: somebody changed it; read it again")]
    Stale {
        /// The version that the caller has seen.
        expected: u64,
        /// The version that there is.
        found: u64,
    },
    /// What was to be done once was done before, or is being done.
    #[error("this was done before")]
    DoneBefore,
}

/// The store and the ring.
#[derive(Clone)]
pub struct Ledger {
    store: Arc<dyn Store>,
    ring: Arc<Ring>,
    /// Read while a key is made or changed, written while an account is closed: it sees every key as it is, and none is made
    /// behind its back.
    closing: Arc<RwLock<()>>,
    people: Arc<Directory>,
    /// The number of the newest commit that is known to be on disk.
    durable: Arc<watch::Sender<u64>>,
    /// Held while a person is changed: there are few, and never may two operators take each other's place away.
    changing_people: Arc<Mutex<()>>,
}

impl Ledger {
    /// Loads every account and key of `store` into a ring, and every person into a directory.
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
        let people = Arc::new(Directory::default());
        store.scan(Table::USERS, b"", &mut |row| {
            match decode(Table::USERS, &row) {
                Ok(user) => people.apply(user, row.version),
                Err(error) => unreadable = unreadable.take().or(Some(error)),
            }
            Ok(())
        })?;
        if let Some(error) = unreadable {
            return Err(error);
        }
        tracing::debug!(keys = ring.len(), milliseconds = started.elapsed().as_millis(), "keys loaded");
        // Whatever can be read before the first commit is on disk.
        let last = store.page(Table::EVENTS, b"", None, Order::Descending, 1)?;
        let durable = last.first().and_then(|row| Place::of_key(&row.key)).map_or(0, |place| place.commit);
        let durable = Arc::new(watch::Sender::new(durable));
        Ok(Self { store, ring, closing: Arc::default(), people, durable, changing_people: Arc::default() })
    }

    /// The number of the newest commit that is known to be on disk, for those who follow the trail.
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.durable.subscribe()
    }

    /// The ring, to read from.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// The store, for what is neither an account nor a key.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Commits, and lets the ring follow.
    fn commit(&self, batch: &Batch, applied: impl IntoIterator<Item = Applied>) -> Result<(), LedgerError> {
        match self.store.commit(batch) {
            Ok(committed) => {
                applied.into_iter().for_each(|change| self.ring.apply(change));
                self.durable.send_if_modified(|number| {
                    let is_newer = *number < committed.number;
                    *number = committed.number.max(*number);
                    is_newer
                });
                Ok(())
            }
            Err(CommitError::Conflict { table, .. }) if table == Table::ONCE => Err(LedgerError::DoneBefore),
            Err(CommitError::Conflict { .. }) => Err(LedgerError::Contended),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }
}

/// Tries a change again while others change the same rows.
fn persistently<T>(mut attempt: impl FnMut() -> Result<T, LedgerError>) -> Result<T, LedgerError> {
    for _ in 0..ATTEMPTS {
        match attempt() {
            Err(LedgerError::Contended) => {}
            done => return done,
        }
    }
    Err(LedgerError::Contended)
}

/// Refuses a record that is not the one that the caller has seen.
fn check_version(found: u64, expected: Option<u64>) -> Result<(), LedgerError> {
    match expected {
        Some(expected) if expected != found => Err(LedgerError::Stale { expected, found }),
        _ => Ok(()),
    }
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
    if table == Table::ACCOUNTS {
        decode(table, row).map(|account| Applied::Account(account, row.version))
    } else {
        decode(table, row).map(|key: Key| Applied::Key(key.into(), row.version))
    }
}

#[cfg(test)]
mod tests;
