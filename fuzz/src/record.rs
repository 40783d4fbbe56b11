//! Stored records: whatever bytes a row holds are read or refused, and what is read is written alike again.

use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;
use keyward::key::{Account, Ceiling, Cost, Key, Kind, LONGEST_OVERLAP, Mint, Mode, Phc, Status, StoredSecret};
use keyward::ledger::{Ledger, LedgerError};
use keyward::store::Table;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rows::Rows;

/// Loads the input as the row of an account and of a key, as a start does, and leads the key through its life.
pub fn check(data: &[u8]) {
    if let Some(account) = read::<Account>(data) {
        let ledger = load(Table::ACCOUNTS, data).expect("what can be decoded can be loaded");
        assert_eq!(ledger.ring().account(&account.id).map(|live| live.account.clone()), Some(account));
    } else {
        refuses(Table::ACCOUNTS, data);
    }
    if let Some(key) = read::<Key>(data) {
        let ledger = load(Table::KEYS, data).expect("what can be decoded can be loaded");
        let live = ledger.ring().key(&key.id).expect("it is in the ring");
        assert_eq!(live.key, key);
        for secret in key.secrets() {
            assert!(ledger.ring().find(&secret.selector).is_some());
        }
        lives(key);
    } else {
        refuses(Table::KEYS, data);
    }
}

fn load(table: Table, data: &[u8]) -> Result<Ledger, LedgerError> {
    Ledger::load(Arc::new(Rows::one(table, b"row", data)))
}

/// A row that cannot be read stops a start, which names it without telling what it holds.
fn refuses(table: Table, data: &[u8]) {
    let Err(LedgerError::Record { key, reason, .. }) = load(table, data).map(drop) else {
        panic!("a row that cannot be decoded was loaded");
    };
    assert_eq!(key, "row");
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b' ';
    assert!(reason.len() < 60 && reason.bytes().all(is_plain), "{reason}");
}

fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let record = serde_json::from_slice::<T>(data).ok()?;
    written_alike(&record);
    Some(record)
}

fn written_alike<T: Serialize + DeserializeOwned + PartialEq + Debug>(record: &T) {
    let written = serde_json::to_vec(record).unwrap();
    let again = serde_json::from_slice::<T>(&written).expect("what was written can be read");
    assert_eq!(again, *record);
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
}

/// Everything that may happen to a key, at the ends of time: nothing overflows, and what is dead stays dead.
fn lives(mut key: Key) {
    let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
    let ceiling = Ceiling(Cost { memory_kib: 64, iterations: 1, parallelism: 1 });
    for secret in key.secrets() {
        assert!(!secret.phc.verify(mint.secret(), ceiling).unwrap_or(false), "a stored hash accepts any secret");
        for now in [Timestamp::MIN, Timestamp::MAX] {
            let _ = key.status(secret, now);
        }
    }
    for address in ["192.0.2.7", "::ffff:192.0.2.7", "::1"] {
        assert!(key.admits(address.parse().ok()) || !key.addresses().is_empty());
    }
    let selector = key.secret.selector;
    if key.compromise(&selector, Timestamp::MAX) {
        assert!(matches!(key.status(&key.secret, Timestamp::MIN), Status::Compromised | Status::Revoked));
        written_alike(&key);
    }
    let new = StoredSecret::new(&mint, Phc::none(), Timestamp::MIN);
    if key.rotate(new, LONGEST_OVERLAP, Timestamp::MAX).is_ok() {
        assert_eq!(key.secret.selector, mint.selector());
        written_alike(&key);
    }
    key.revoke();
    assert!(key.secrets().all(|secret| key.status(secret, Timestamp::MIN) == Status::Revoked));
    written_alike(&key);
}
