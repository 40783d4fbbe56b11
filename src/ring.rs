//! All keys and accounts in memory: what the decision path reads instead of the store.
//!
//! The ring changes in one way only: [`Ring::apply`] takes what the store has committed. It is never
//! ahead of the disk, so that a crash forgets nothing that anybody was told; but for [`Ring::distrust`], because
//! an exposed secret must not go on working while the disk is full. Reads take no lock: the
//! maps are lock-free (papaya), and a record is replaced whole, never changed in place, so that a reader
//! sees the old record or the new one.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use papaya::HashMap;

use crate::evaluation::Memo;
use crate::key::{
    Account, AccountId, ForeignDigest, ForeignToken, Glance, Key, KeyId, Remembered, STARTS, Scope, Secret, Selector,
    StoredSecret, Token,
};

/// A key's record with what memory adds to it.
pub struct LiveKey {
    /// The record, as the store holds it.
    pub key: Key,
    /// Its version in the store: the precondition of the next change, and the order of changes.
    pub version: u64,
    /// For the current secret and the retiring one: what Argon2 has accepted, and its last use since then.
    remembered: [Remembered; 2],
    /// What policies have said about this very record.
    pub memo: Memo,
}

impl LiveKey {
    /// A record fresh from the store, of which nothing is remembered.
    pub fn new(key: Key, version: u64) -> Self {
        Self { key, version, remembered: [Remembered::default(), Remembered::default()], memo: Memo::default() }
    }

    /// A changed record keeps what is remembered of each secret whose hash has not changed.
    fn succeeding(key: Key, version: u64, before: &Self) -> Self {
        let carry = |secret: Option<&StoredSecret>| {
            let secret = secret?;
            let (kept, memory) = before.secrets().find(|(old, _)| old.phc == secret.phc)?;
            (kept.selector == secret.selector).then(|| memory.clone())
        };
        let mut secrets = key.secrets();
        let remembered = [(); 2].map(|()| carry(secrets.next()).unwrap_or_default());
        drop(secrets);
        Self { key, version, remembered, memo: Memo::default() }
    }

    /// Its secrets, the current one and then the retiring one, with what is remembered of each.
    pub fn secrets(&self) -> impl Iterator<Item = (&StoredSecret, &Remembered)> {
        self.key.secrets().zip(&self.remembered)
    }

    /// The memory of the secret that this selector finds.
    fn memory(&self, selector: &Selector) -> Option<(&StoredSecret, &Remembered)> {
        self.secrets().find(|(secret, _)| secret.selector == *selector)
    }

    /// What can be said of a token for this key without Argon2.
    pub fn glance(&self, token: &Token<'_>) -> Glance {
        let found = self.memory(&token.selector).filter(|(secret, _)| !secret.phc.is_foreign());
        found.map_or(Glance::Wrong, |(secret, memory)| memory.glance(token, secret.known_screen()))
    }

    /// The same of a foreign token, for the secret that this selector finds.
    pub fn glance_foreign(&self, selector: &Selector, digest: &ForeignDigest) -> Glance {
        let found = self.memory(selector).filter(|(secret, _)| secret.phc.is_foreign());
        found.map_or(Glance::Wrong, |(secret, memory)| memory.glance(digest, secret.known_screen()))
    }

    /// Remembers a secret that Argon2 has accepted for the hash that this very record holds.
    pub fn remember(&self, selector: &Selector, secret: &Secret) {
        if let Some((_, memory)) = self.memory(selector) {
            memory.remember(secret);
        }
    }

    /// Notes a use of the proven secret that this selector finds.
    pub fn note_use(&self, selector: &Selector, now: Timestamp, address: Option<IpAddr>) {
        if let Some((_, memory)) = self.memory(selector) {
            memory.note_use(now, address);
        }
    }
}

impl fmt::Debug for LiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveKey").field("id", &self.key.id).field("version", &self.version).finish_non_exhaustive()
    }
}

/// An account's record with its version.
#[derive(Debug, Clone)]
pub struct LiveAccount {
    /// The record, as the store holds it.
    pub account: Account,
    /// Its version in the store.
    pub version: u64,
}

/// One committed change, for the ring to follow.
#[derive(Debug)]
pub enum Applied {
    /// An account was made or changed; it is now at this version.
    Account(Account, u64),
    /// A key was made or changed; it is now at this version.
    Key(Box<Key>, u64),
}

/// All keys and accounts.
#[derive(Default)]
pub struct Ring {
    accounts: HashMap<AccountId, Arc<LiveAccount>>,
    keys: HashMap<KeyId, Arc<LiveKey>>,
    selectors: HashMap<Selector, Arc<LiveKey>>,
    /// The secrets that are found by how their foreign tokens begin.
    starts: HashMap<Box<str>, Arc<[Selector]>>,
    /// Which foreign tokens there are or were: bit 0 for those that are found by their digests, bit n for those that are
    /// found by their first n characters.
    foreign: AtomicU64,
    /// The secrets that are marked here and not in the store, and since when.
    distrusted: HashMap<Selector, Timestamp>,
    /// Every list of scopes that some key has or had: many keys share a few.
    scopes: HashMap<Arc<[Scope]>, ()>,
    /// Held while a change is followed, so that the maps never disagree about a key. Readers know nothing of it.
    following: Mutex<()>,
}

impl Ring {
    /// An empty ring, as before anything is loaded.
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows one committed change. An older version of a record than the one held changes nothing, so
    /// that two commits may be applied in either order.
    pub fn apply(&self, change: Applied) {
        match change {
            Applied::Account(account, version) => {
                let _following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
                if self.account(&account.id).is_none_or(|before| before.version < version) {
                    self.accounts.pin().insert(account.id, Arc::new(LiveAccount { account, version }));
                }
            }
            Applied::Key(key, version) => self.apply_key(*key, version),
        }
    }

    /// The list that equal ones share.
    fn shared(&self, scopes: &Arc<[Scope]>) -> Arc<[Scope]> {
        let shared = self.scopes.pin();
        let (held, ()) = shared.get_key_value(scopes).unwrap_or_else(|| {
            shared.insert(Arc::clone(scopes), ());
            (scopes, &())
        });
        Arc::clone(held)
    }

    fn apply_key(&self, mut key: Key, version: u64) {
        let _following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        key.scopes = self.shared(&key.scopes);
        let before = self.key(&key.id);
        if before.as_ref().is_none_or(|before| before.version < version) {
            self.replace(before.as_deref(), key, version);
        }
    }

    /// Marks an exposed secret that could not be marked in the store, until the end of the process.
    pub fn distrust(&self, id: &KeyId, selector: &Selector, now: Timestamp) {
        let _following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = self.key(id) else { return };
        self.distrusted.pin().insert(*selector, now);
        self.replace(Some(&before), before.key.clone(), before.version);
    }

    /// Puts a record in the place of another.
    fn replace(&self, before: Option<&LiveKey>, mut key: Key, version: u64) {
        for (selector, since) in &self.distrusted.pin() {
            key.compromise(selector, *since);
        }
        let (keys, selectors) = (self.keys.pin(), self.selectors.pin());
        let id = key.id;
        let live = Arc::new(match before {
            Some(before) => LiveKey::succeeding(key, version, before),
            None => LiveKey::new(key, version),
        });
        keys.insert(id, Arc::clone(&live));
        for secret in live.key.secrets() {
            selectors.insert(secret.selector, Arc::clone(&live));
            self.follow_foreign(secret, true);
        }
        let gone = before.into_iter().flat_map(|before| before.key.secrets());
        for secret in gone.filter(|secret| live.key.secret(&secret.selector).is_none()) {
            selectors.remove(&secret.selector);
            self.follow_foreign(secret, false);
        }
    }

    /// Makes a foreign token findable, or not any more.
    fn follow_foreign(&self, secret: &StoredSecret, is_there: bool) {
        if !secret.phc.is_foreign() {
            return;
        }
        let Some(start) = secret.phc.foreign_start() else {
            self.foreign.fetch_or(1, Ordering::Release);
            return;
        };
        let starts = self.starts.pin();
        let others = starts.get(start).into_iter().flat_map(|held| held.iter());
        let others = others.filter(|selector| **selector != secret.selector).copied();
        let now: Arc<[Selector]> = others.chain(is_there.then_some(secret.selector)).collect();
        if now.is_empty() {
            starts.remove(start);
        } else {
            starts.insert(start.into(), now);
            self.foreign.fetch_or(1 << start.len().min(63), Ordering::Release);
        }
    }

    /// Whether a token of another system could be anybody's.
    pub fn has_foreign(&self) -> bool {
        self.foreign.load(Ordering::Acquire) != 0
    }

    /// The secrets that a foreign token may be, with their keys as they are at this moment.
    pub fn find_foreign(&self, token: &ForeignToken<'_>, digest: &ForeignDigest) -> Vec<(Selector, Arc<LiveKey>)> {
        let lengths = self.foreign.load(Ordering::Acquire);
        let by_digest = (lengths & 1 != 0).then(|| digest.selector());
        let starts = self.starts.pin();
        let mut by_start = Vec::new();
        for length in STARTS.filter(|length| lengths & (1 << length) != 0) {
            let found = token.start(length).and_then(|start| starts.get(start));
            by_start.extend(found.into_iter().flat_map(|found| found.iter().copied()));
        }
        let selectors = by_digest.into_iter().chain(by_start);
        selectors.filter_map(|selector| Some((selector, self.find(&selector)?))).collect()
    }

    /// The keys that are found by this beginning of a foreign token.
    pub fn starting(&self, start: &str) -> Vec<Arc<LiveKey>> {
        let starts = self.starts.pin();
        starts.get(start).into_iter().flat_map(|held| held.iter()).filter_map(|selector| self.find(selector)).collect()
    }

    /// The key that a token's selector finds, as it is at this moment.
    pub fn find(&self, selector: &Selector) -> Option<Arc<LiveKey>> {
        self.selectors.pin().get(selector).cloned()
    }

    /// A key by its id.
    pub fn key(&self, id: &KeyId) -> Option<Arc<LiveKey>> {
        self.keys.pin().get(id).cloned()
    }

    /// An account by its id.
    pub fn account(&self, id: &AccountId) -> Option<Arc<LiveAccount>> {
        self.accounts.pin().get(id).cloned()
    }

    /// Every key, in no order.
    pub fn keys(&self) -> Vec<Arc<LiveKey>> {
        self.keys.pin().values().cloned().collect()
    }

    /// Every key of an account, in no order.
    pub fn keys_of(&self, account: &AccountId) -> Vec<Arc<LiveKey>> {
        self.keys.pin().values().filter(|live| live.key.account == *account).cloned().collect()
    }

    /// The secrets of which a use was noted that is not kept elsewhere yet, in no order.
    pub fn unkept_uses(&self) -> Vec<(Selector, Remembered)> {
        let keys = self.keys.pin();
        let unkept = keys.values().flat_map(|live| live.secrets()).filter(|(_, memory)| memory.unkept_use().is_some());
        unkept.map(|(secret, memory)| (secret.selector, memory.clone())).collect()
    }

    /// Every account, in no order.
    pub fn accounts(&self) -> Vec<Arc<LiveAccount>> {
        self.accounts.pin().values().cloned().collect()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.pin().len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("keys", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::key::{Cost, Kind, Mint, Mode, NewKey, Phc, State, Status, StoredSecret};

    fn made() -> (Mint, Key) {
        let now = Timestamp::UNIX_EPOCH;
        let account = Account::create(AccountId::random().unwrap(), "Vexart", now).unwrap();
        let (mint, secret) = secret();
        let new = NewKey::named(Kind::Secret, Mode::Live, "worker");
        (mint, Key::create(account.id, new, KeyId::random().unwrap(), secret, now).unwrap())
    }

    fn secret() -> (Mint, StoredSecret) {
        let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
        let secret = StoredSecret::new(&mint, mint.secret().hash(Cost::default()).unwrap(), Timestamp::UNIX_EPOCH);
        (mint, secret)
    }

    fn glance(ring: &Ring, mint: &Mint) -> Option<Glance> {
        let token = Token::parse(mint.expose().as_bytes()).unwrap();
        ring.find(&token.selector).map(|live| live.glance(&token))
    }

    #[test]
    fn a_change_is_seen_at_once_and_what_argon2_accepted_is_kept() {
        let (ring, (mint, mut key)) = (Ring::new(), made());
        ring.apply(Applied::Key(key.clone().into(), 1));
        assert_eq!(glance(&ring, &mint), Some(Glance::Unproven));
        ring.find(&mint.selector()).unwrap().remember(&mint.selector(), mint.secret());
        key.revoke();
        ring.apply(Applied::Key(key.into(), 2));
        assert_eq!(glance(&ring, &mint), Some(Glance::Proven));
        assert_eq!(ring.find(&mint.selector()).unwrap().key.state, State::Revoked);
    }

    #[test]
    fn an_older_version_never_overtakes_a_newer_one() {
        let (ring, (mint, mut key)) = (Ring::new(), made());
        let active = key.clone();
        key.revoke();
        ring.apply(Applied::Key(key.into(), 2));
        ring.apply(Applied::Key(active.into(), 1));
        assert_eq!(ring.find(&mint.selector()).unwrap().key.state, State::Revoked);
    }

    #[test]
    fn changes_that_arrive_in_any_order_leave_the_secrets_of_the_newest_record_alone() {
        for round in 0..500 {
            let (ring, (mint, mut key)) = (Ring::new(), made());
            let mut selectors = vec![mint.selector()];
            let mut changes = vec![Applied::Key(key.clone().into(), 1)];
            for version in 2..6 {
                let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
                let stored = StoredSecret::new(&mint, Phc::none(), Timestamp::UNIX_EPOCH);
                key.rotate(stored, SignedDuration::from_secs(60), Timestamp::UNIX_EPOCH).unwrap();
                selectors.push(mint.selector());
                changes.push(Applied::Key(key.clone().into(), version));
            }
            let turn = round % changes.len();
            changes.rotate_left(turn);
            std::thread::scope(|scope| {
                for change in changes {
                    scope.spawn(|| ring.apply(change));
                }
            });
            let found: Vec<bool> = selectors.iter().map(|selector| ring.find(selector).is_some()).collect();
            assert_eq!(found, [false, false, false, true, true], "round {round}");
        }
    }

    #[test]
    fn a_secret_that_is_distrusted_stays_so_whatever_becomes_of_its_key() {
        let (ring, (mint, key)) = (Ring::new(), made());
        ring.apply(Applied::Key(key.clone().into(), 1));
        ring.distrust(&key.id, &mint.selector(), Timestamp::UNIX_EPOCH);
        let live = ring.find(&mint.selector()).unwrap();
        assert_eq!(live.key.status(&live.key.secret, Timestamp::UNIX_EPOCH), Status::Compromised);
        for version in 1..3 {
            ring.apply(Applied::Key(key.clone().into(), version));
            assert!(ring.key(&key.id).unwrap().key.secret.compromised_at.is_some(), "version {version}");
        }
        let (second, stored) = secret();
        let mut rotated = key.clone();
        rotated.rotate(stored, SignedDuration::ZERO, Timestamp::UNIX_EPOCH).unwrap();
        ring.apply(Applied::Key(rotated.into(), 3));
        assert!(ring.find(&second.selector()).unwrap().key.secret.compromised_at.is_none(), "another secret");
    }

    #[test]
    fn a_rotation_keeps_the_old_selector_until_it_is_gone_from_the_record() {
        let (ring, (mint, mut key)) = (Ring::new(), made());
        ring.apply(Applied::Key(key.clone().into(), 1));
        ring.find(&mint.selector()).unwrap().remember(&mint.selector(), mint.secret());
        let (second, stored) = secret();
        key.rotate(stored, SignedDuration::from_secs(60), Timestamp::UNIX_EPOCH).unwrap();
        ring.apply(Applied::Key(key.clone().into(), 2));
        assert_eq!(glance(&ring, &mint), Some(Glance::Proven), "its memory moved to the second place");
        assert_eq!(glance(&ring, &second), Some(Glance::Unproven));
        key.rotate(secret().1, SignedDuration::ZERO, Timestamp::UNIX_EPOCH).unwrap();
        ring.apply(Applied::Key(key.into(), 3));
        assert_eq!((glance(&ring, &mint), glance(&ring, &second)), (None, None));
        assert_eq!(ring.len(), 1);
    }
}
