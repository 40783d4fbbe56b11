//! When keys were used last: noted in memory by decisions, written to the store now and then.
//!
//! What was noted since the start is in memory, beside each secret's remembered digest; what was known before is a row
//! of the store, read when somebody asks, so that a secret that is not used takes no memory. Memory is the newer of
//! the two. A crash loses what was noted since the last [`Ledger::write_uses`].

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerError, decode, encode};
use crate::key::{Key, LastUsed, Selector};
use crate::ring::LiveKey;
use crate::store::{Batch, Expect, Row, Table};

/// Rows of one commit: applied in about a millisecond, for which changes of keys wait.
const CHUNK: usize = 256;

/// When each of a key's secrets was used last; `None` is never, or not known any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, utoipa::ToSchema)]
pub struct KeyUses {
    /// The current secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<LastUsed>,
    /// The one that is being rotated out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retiring: Option<LastUsed>,
}

impl KeyUses {
    fn of(live: &LiveKey, mut find: impl FnMut(&Selector) -> Option<LastUsed>) -> Self {
        let mut each = live.secrets().map(|(secret, memory)| memory.last_used().or_else(|| find(&secret.selector)));
        Self { secret: each.next().flatten(), retiring: each.next().flatten() }
    }

    /// The last use of the key, with whichever secret.
    pub fn newest(&self) -> Option<LastUsed> {
        [self.secret, self.retiring].into_iter().flatten().max_by_key(|used| used.at)
    }

    /// Whether the key was certainly not used at `since` or later: its last minute of use had passed by then.
    pub fn none_since(&self, since: Timestamp) -> bool {
        let passed = |used: LastUsed| used.at.checked_add(SignedDuration::from_mins(1)).is_ok_and(|end| end <= since);
        self.newest().is_none_or(passed)
    }
}

/// When a secret was used last, as it moves from one installation to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretUse {
    /// Finds the secret.
    pub selector: Selector,
    /// In which minute.
    pub at: Timestamp,
    /// From where, where it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

impl SecretUse {
    /// What a row of the store says.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn of_row(row: &Row) -> Result<Self, LedgerError> {
        let LastUsed { at, address } = decode(Table::LAST_USED, row)?;
        let reason = || "its key is no selector".to_owned();
        let lost = || LedgerError::Record { table: Table::LAST_USED.0, key: String::new(), reason: reason() };
        Ok(Self { selector: selector(&row.key).ok_or_else(lost)?, at, address })
    }
}

/// When any key was used last: what the store knew at one moment, for looking at many keys.
#[derive(Debug)]
pub struct Uses(HashMap<Selector, LastUsed>);

impl Uses {
    /// When this key's secrets were used last.
    pub fn of(&self, live: &LiveKey) -> KeyUses {
        KeyUses::of(live, |selector| self.0.get(selector).copied())
    }
}

impl Ledger {
    /// When this key's secrets were used last.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn uses(&self, live: &LiveKey) -> Result<KeyUses, LedgerError> {
        let mut failed = None;
        let uses = KeyUses::of(live, |selector| {
            self.kept_use(selector).unwrap_or_else(|error| {
                failed = Some(error);
                None
            })
        });
        failed.map_or(Ok(uses), Err)
    }

    /// When the secret that this selector finds was used last.
    pub(super) fn use_of(&self, selector: &Selector) -> Result<Option<LastUsed>, LedgerError> {
        let live = self.ring.find(selector);
        let noted = live.iter().flat_map(|live| live.secrets()).find(|(secret, _)| secret.selector == *selector);
        match noted.and_then(|(_, memory)| memory.last_used()) {
            Some(used) => Ok(Some(used)),
            None => self.kept_use(selector),
        }
    }

    fn kept_use(&self, selector: &Selector) -> Result<Option<LastUsed>, LedgerError> {
        let row = self.store.get(Table::LAST_USED, selector.as_bytes())?;
        row.map(|row| decode(Table::LAST_USED, &row)).transpose()
    }

    /// The same for many keys: one scan of what the store knows, instead of a look for each.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn all_uses(&self) -> Result<Uses, LedgerError> {
        let (mut uses, mut failed) = (HashMap::new(), None);
        self.store.scan(Table::LAST_USED, b"", &mut |row| {
            match decode(Table::LAST_USED, &row) {
                Ok(used) => drop(selector(&row.key).map(|selector| uses.insert(selector, used))),
                Err(error) => failed = Some(error),
            }
            Ok(())
        })?;
        failed.map_or(Ok(Uses(uses)), Err)
    }

    /// Writes the uses that were noted since they were written last; how many.
    ///
    /// # Errors
    /// When the store cannot be written. What was not written then is written the next time.
    pub fn write_uses(&self) -> Result<usize, LedgerError> {
        let noted = self.ring.unkept_uses();
        let mut written = 0;
        for some in noted.chunks(CHUNK) {
            let mut batch = Batch::new();
            let mut on_the_way = Vec::with_capacity(some.len());
            for (selector, memory) in some {
                if let Some((stamp, used)) = memory.unkept_use() {
                    batch.put(Table::LAST_USED, selector.as_bytes(), encode(&used), Expect::Any);
                    on_the_way.push((memory, stamp));
                }
            }
            self.commit(&batch, [])?;
            written += on_the_way.len();
            for (memory, stamp) in on_the_way {
                memory.keep_use(stamp);
            }
        }
        Ok(written)
    }

    /// Removes the rows of secrets that are no key's any more, which nobody can see; how many those were.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn forget_uses(&self) -> Result<usize, LedgerError> {
        let mut gone = HashMap::new();
        self.store.scan(Table::LAST_USED, b"", &mut |row| {
            if selector(&row.key).is_none_or(|selector| self.ring.find(&selector).is_none()) {
                gone.insert(row.key, row.version);
            }
            Ok(())
        })?;
        self.without_kept_keys(&mut gone)?;
        let (gone, mut forgotten) = (gone.into_iter().collect::<Vec<_>>(), 0);
        for some in gone.chunks(CHUNK) {
            let mut batch = Batch::new();
            for (key, version) in some {
                batch.delete(Table::LAST_USED, key, Expect::Version(*version));
            }
            match self.commit(&batch, []) {
                Ok(()) => forgotten += some.len(),
                // One of them is in use again, since a key was brought here. The others wait for the next time.
                Err(LedgerError::Contended) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(forgotten)
    }

    /// Leaves those out that are a key's by what the store says: an import is there before the ring knows of it.
    fn without_kept_keys(&self, gone: &mut HashMap<Vec<u8>, u64>) -> Result<(), LedgerError> {
        if gone.is_empty() {
            return Ok(());
        }
        let mut failed = None;
        self.store.scan(Table::KEYS, b"", &mut |row| {
            match decode::<Key>(Table::KEYS, &row) {
                Ok(key) => key.secrets().for_each(|secret| {
                    gone.remove(secret.selector.as_bytes());
                }),
                Err(error) => failed = Some(error),
            }
            Ok(())
        })?;
        failed.map_or(Ok(()), Err)
    }
}

fn selector(key: &[u8]) -> Option<Selector> {
    std::str::from_utf8(key).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::key::{Cost, KeyId, Mint};
    use crate::store::examples::Failing;
    use crate::store::{SledStore, Store};
    use crate::trail::By;

    const COST: Cost = Cost { memory_kib: 8, iterations: 1, parallelism: 1 };

    fn open(folder: &Path) -> Ledger {
        Ledger::load(Arc::new(SledStore::open(&folder.join("store")).unwrap())).unwrap()
    }

    fn account(ledger: &Ledger) -> Vec<(Key, Mint)> {
        ledger.create_account("Vexart", COST, None, &By::console(Timestamp::now())).unwrap().1
    }

    fn live(ledger: &Ledger, id: &KeyId) -> Arc<LiveKey> {
        ledger.ring().key(id).unwrap()
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    fn from(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// A use as a decision notes it: the secret is proven first.
    fn note(ledger: &Ledger, mint: &Mint, minute: i64, address: Option<IpAddr>) -> LastUsed {
        let live = ledger.ring().find(&mint.selector()).unwrap();
        live.remember(&mint.selector(), mint.secret());
        live.note_use(&mint.selector(), at(minute), address);
        LastUsed { at: at(minute), address }
    }

    #[test]
    fn a_use_is_seen_at_once_and_after_a_restart_when_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = open(folder.path());
        let keys = account(&ledger);
        let (used, unused) = (&keys[1], &keys[3].0.id);
        assert_eq!(ledger.uses(&live(&ledger, &used.0.id)).unwrap(), KeyUses::default());
        let first = note(&ledger, &used.1, 7, Some(from(1)));
        assert_eq!(ledger.uses(&live(&ledger, &used.0.id)).unwrap().secret, Some(first));
        assert_eq!(ledger.write_uses().unwrap(), 1);
        assert_eq!(ledger.write_uses().unwrap(), 0, "nothing is new");
        note(&ledger, &used.1, 8, Some(from(1)));
        drop(ledger);

        let ledger = open(folder.path());
        let known = |ledger: &Ledger, id: &KeyId| {
            let live = live(ledger, id);
            let uses = ledger.uses(&live).unwrap();
            assert_eq!(ledger.all_uses().unwrap().of(&live), uses, "one way to look shows what the other does");
            uses.newest()
        };
        assert_eq!(known(&ledger, &used.0.id), Some(first), "what was not written is lost");
        assert_eq!(known(&ledger, unused), None);
        let second = note(&ledger, &used.1, 9, Some(from(2)));
        assert_eq!(known(&ledger, &used.0.id), Some(second), "memory is newer than the store");
        assert_eq!(known(&ledger, unused), None);
    }

    #[test]
    fn a_changed_key_keeps_what_is_known_of_the_secrets_that_stay_and_the_others_rows_go() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = open(folder.path());
        let (key, first) = account(&ledger).remove(1);
        let rotate = || {
            let (overlap, by) = (SignedDuration::from_hours(1), By::console(Timestamp::now()));
            ledger.rotate_key(&key.id, None, overlap, COST, None, &by).unwrap().2
        };
        let uses = || ledger.uses(&live(&ledger, &key.id)).unwrap();
        let before = live(&ledger, &key.id);
        let old = note(&ledger, &first, 7, Some(from(1)));
        assert_eq!(ledger.write_uses().unwrap(), 1);
        let second = rotate();
        assert_eq!(uses(), KeyUses { secret: None, retiring: Some(old) });
        let new = note(&ledger, &second, 8, Some(from(2)));
        // A call that began before the rotation ends after it.
        before.note_use(&first.selector(), at(9), Some(from(3)));
        let old = LastUsed { at: at(9), address: Some(from(3)) };
        assert_eq!(uses(), KeyUses { secret: Some(new), retiring: Some(old) });
        assert_eq!(uses().newest(), Some(old));
        assert_eq!(ledger.write_uses().unwrap(), 2);
        assert_eq!(ledger.forget_uses().unwrap(), 0);
        rotate();
        assert_eq!(uses(), KeyUses { secret: None, retiring: Some(new) });
        assert_eq!(
            (ledger.write_uses().unwrap(), ledger.forget_uses().unwrap()),
            (0, 1),
            "the first secret's row goes"
        );
        assert!(ledger.store().get(Table::LAST_USED, first.selector().as_bytes()).unwrap().is_none());
        drop(before);
        assert_eq!(open_again(&ledger, &key.id), KeyUses { secret: None, retiring: Some(new) });
    }

    #[test]
    fn a_use_of_a_key_that_the_ring_does_not_know_yet_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        // As it is between an import's commit and the ring's following.
        let behind = open(folder.path());
        let ahead = Ledger::load(Arc::clone(behind.store())).unwrap();
        let (key, mint) = account(&ahead).remove(1);
        let used = note(&ahead, &mint, 7, Some(from(1)));
        assert_eq!(ahead.write_uses().unwrap(), 1);
        let nobodys = Selector::random().unwrap();
        let mut batch = Batch::new();
        batch.put(Table::LAST_USED, nobodys.as_bytes(), encode(&used), Expect::Any);
        behind.commit(&batch, []).unwrap();
        assert!(behind.ring().find(&mint.selector()).is_none());
        assert_eq!(behind.forget_uses().unwrap(), 1);
        assert_eq!(open_again(&ahead, &key.id).secret, Some(used));
    }

    fn open_again(ledger: &Ledger, id: &KeyId) -> KeyUses {
        let ledger = Ledger::load(Arc::clone(ledger.store())).unwrap();
        ledger.uses(&live(&ledger, id)).unwrap()
    }

    #[test]
    fn what_could_not_be_written_is_written_the_next_time_and_the_rest_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(&folder.path().join("store")).unwrap();
        let commits_left = Arc::new(AtomicUsize::new(usize::MAX));
        let left = Arc::clone(&commits_left);
        let store = Arc::new(Failing::new(store, move |batch| {
            assert!(batch.changes().len() <= CHUNK, "batches are bounded");
            left.fetch_sub(1, Ordering::SeqCst) == 0
        }));
        let ledger = Ledger::load(Arc::clone(&store) as Arc<dyn Store>).unwrap();
        let keys: Vec<_> = (0..150).flat_map(|_| account(&ledger)).collect();
        assert!(keys.len() > 2 * CHUNK);
        for (_, mint) in &keys {
            note(&ledger, mint, 7, Some(from(1)));
        }
        commits_left.store(1, Ordering::SeqCst);
        ledger.write_uses().unwrap_err();
        // Used again before the second try: only the newest is written.
        note(&ledger, &keys[0].1, 8, None);
        let written_before = keys.iter().filter(|(key, _)| open_again(&ledger, &key.id).secret.is_some()).count();
        assert_eq!(written_before, CHUNK);
        let again = ledger.write_uses().unwrap();
        assert!((keys.len() - CHUNK..=keys.len() - CHUNK + 1).contains(&again), "{again}");
        for (number, (key, _)) in keys.iter().enumerate() {
            let last = if number == 0 { LastUsed::new(at(8), None) } else { LastUsed::new(at(7), Some(from(1))) };
            assert_eq!(open_again(&ledger, &key.id).secret, Some(last));
        }
    }

    #[test]
    fn a_use_that_is_noted_while_uses_are_written_is_written_then_or_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = open(folder.path());
        let keys = account(&ledger);
        std::thread::scope(|scope| {
            let noting: Vec<_> = keys
                .iter()
                .map(|(_, mint)| {
                    let ledger = &ledger;
                    scope.spawn(move || {
                        for minute in 1..2_000 {
                            note(ledger, mint, minute, Some(from(1)));
                        }
                    })
                })
                .collect();
            while !noting.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                ledger.write_uses().unwrap();
            }
        });
        ledger.write_uses().unwrap();
        for (key, _) in &keys {
            assert_eq!(open_again(&ledger, &key.id).secret, Some(LastUsed::new(at(1_999), Some(from(1)))));
        }
    }

    #[test]
    fn a_key_is_unused_since_a_time_only_when_its_last_minute_had_passed_by_then() {
        let used = |minute| KeyUses { secret: None, retiring: Some(LastUsed::new(at(minute), None)) };
        assert!(KeyUses::default().none_since(at(0)));
        assert!(used(7).none_since(at(8)));
        assert!(!used(7).none_since(Timestamp::from_second(8 * 60 - 1).unwrap()));
        assert!(!used(7).none_since(at(7)));
    }
}
