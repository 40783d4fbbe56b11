//! Moving in: accounts, keys and people that were made elsewhere, all or nothing.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

use super::{Ledger, LedgerError, SecretUse, encode};
use crate::key::{
    Account, AccountId, Ceiling, HashError, Key, KeyError, KeyId, LastUsed, Phc, Selector, State, StoredSecret,
};
use crate::people::{Email, PeopleError, User};
use crate::ring::Applied;
use crate::store::{Batch, Expect, Table};
use crate::trail::{By, Event, Happened};

/// Foreign tokens of which an Argon2id hash is kept and that begin alike: each of them may have to be tried.
pub const MOST_ALIKE: usize = 4;

/// One thing that moves in, as it was elsewhere.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// An account.
    Account(Account),
    /// A key.
    Key(Box<Key>),
    /// A person.
    User(Box<User>),
    /// When a secret of a key was used last.
    Use(SecretUse),
}

/// Whether it is new here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MovedIn {
    /// It was made.
    Made,
    /// It was here already, the same in all.
    Kept,
}

/// Why nothing moved in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// One of them cannot.
    #[error("{reason}")]
    Item {
        /// Which, from 0.
        at: usize,
        /// Why.
        reason: Unfit,
    },
    /// The store, or somebody who changed the same records.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Why one of them cannot move in.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The key cannot be as it is.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The person cannot be as they are.
    #[error(transparent)]
    People(#[from] PeopleError),
    /// A stored hash would never accept anything.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The account is neither here nor before it.
    #[error("there is no account {0}: import it before")]
    NoAccount(AccountId),
    /// A key that could be switched on, in an account that is closed.
    #[error("account {0} is closed, and this key is not revoked")]
    Closed(AccountId),
    /// Another one has its id.
    #[error("{0} is here already, and differs; leave it out to keep what is here")]
    Differs(String),
    /// A token would be two keys'.
    #[error("its token is another key's already")]
    Taken,
    /// Too many tokens would have to be tried.
    #[error("{MOST_ALIKE} other keys have tokens that begin with these characters; give more of them in starts_with")]
    Alike,
    /// Somebody else has the address.
    #[error(
        "another user has the address {0}: give them or this one another (`keyward users update`), or leave the line out"
    )]
    EmailTaken(Email),
}

/// What one import has so far.
#[derive(Default)]
struct Arrivals {
    batch: Batch,
    accounts: Vec<Account>,
    keys: HashMap<KeyId, Key>,
    users: Vec<User>,
    selectors: HashSet<Selector>,
    /// What is kept of foreign tokens that are found by how they begin.
    begun: Vec<Phc>,
    /// The secrets whose last uses move in.
    used: HashSet<Selector>,
}

impl Ledger {
    /// Takes all of them over, or none; which of them are new. What is here already and the same stays as it is, so that
    /// an import can be repeated. An account has to come before its keys and people.
    ///
    /// # Errors
    /// [`ImportError`]; nothing moved in then.
    pub fn import(&self, items: &[Incoming], ceiling: Ceiling, by: &By) -> Result<Vec<MovedIn>, ImportError> {
        // No key is made and no account closed meanwhile, and nobody takes an address.
        let _closing = self.closing.write().unwrap_or_else(PoisonError::into_inner);
        let _people = self.changing_people.lock().unwrap_or_else(PoisonError::into_inner);
        let mut arrivals = Arrivals::default();
        let mut outcomes = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let ordinal = u16::try_from(at).unwrap_or(u16::MAX);
            let outcome = match item {
                Incoming::Account(account) => self.take_account(account, &mut arrivals, ordinal, by),
                Incoming::Key(key) => self.take_key(key, &mut arrivals, ceiling, ordinal, by),
                Incoming::User(user) => self.take_user(user, &mut arrivals, ceiling, ordinal, by),
                Incoming::Use(used) => Ok(self.take_use(used, &mut arrivals)?),
            };
            outcomes.push(outcome.map_err(|reason| ImportError::Item { at, reason })?);
        }
        let Arrivals { batch, accounts, keys, users, .. } = arrivals;
        let accounts = accounts.into_iter().map(|account| Applied::Account(account, 1));
        let keys = keys.into_values().map(|key| Applied::Key(key.into(), 1));
        self.commit(&batch, accounts.chain(keys))?;
        for user in users {
            self.people.apply(user, 1);
        }
        Ok(outcomes)
    }

    fn take_account(
        &self,
        account: &Account,
        arrivals: &mut Arrivals,
        ordinal: u16,
        by: &By,
    ) -> Result<MovedIn, Unfit> {
        if let Some(here) = self.ring.account(&account.id) {
            return kept(here.account == *account, &account.id);
        }
        if arrivals.accounts.iter().any(|before| before.id == account.id) {
            return Err(Unfit::Differs(account.id.to_string()));
        }
        account.check()?;
        arrivals.batch.put(Table::ACCOUNTS, account.id.as_bytes(), encode(account), Expect::Absent);
        moved(Happened::AccountCreated, by).of_account(account.id).append_to(&mut arrivals.batch, ordinal);
        arrivals.accounts.push(account.clone());
        Ok(MovedIn::Made)
    }

    fn take_key(
        &self,
        key: &Key,
        arrivals: &mut Arrivals,
        ceiling: Ceiling,
        ordinal: u16,
        by: &By,
    ) -> Result<MovedIn, Unfit> {
        if let Some(here) = self.ring.key(&key.id) {
            return kept(here.key == *key, &key.id);
        }
        if let Some(same) = self.same_foreign(key) {
            return kept(same, &key.name);
        }
        if arrivals.keys.contains_key(&key.id) {
            return Err(Unfit::Differs(key.id.to_string()));
        }
        let here = self.ring.account(&key.account).map(|live| live.account.closed_at);
        let before = || arrivals.accounts.iter().find(|account| account.id == key.account);
        let closed_at = here.or_else(|| before().map(|account| account.closed_at));
        match closed_at {
            None => return Err(Unfit::NoAccount(key.account)),
            Some(Some(_)) if key.state != State::Revoked => return Err(Unfit::Closed(key.account)),
            Some(_) => {}
        }
        key.check()?;
        for secret in key.secrets() {
            secret.phc.check(ceiling)?;
            if self.ring.find(&secret.selector).is_some() || !arrivals.selectors.insert(secret.selector) {
                return Err(Unfit::Taken);
            }
            if let Some(start) = secret.phc.foreign_start() {
                let before = arrivals.begun.iter().filter(|phc| phc.foreign_start() == Some(start));
                if self.ring.starting(start).len() + before.count() >= MOST_ALIKE {
                    return Err(Unfit::Alike);
                }
                if arrivals.begun.contains(&secret.phc) {
                    return Err(Unfit::Taken);
                }
                arrivals.begun.push(secret.phc.clone());
            }
        }
        arrivals.batch.put(Table::KEYS, key.id.as_bytes(), encode(key), Expect::Absent);
        moved(Happened::KeyCreated, by).of_key(key.account, key.id).append_to(&mut arrivals.batch, ordinal);
        arrivals.keys.insert(key.id, key.clone());
        Ok(MovedIn::Made)
    }

    /// Whether a key with this foreign token is here, and for the same use; nothing when none is here. Each import
    /// gives such a key another id.
    fn same_foreign(&self, key: &Key) -> Option<bool> {
        let held = |secret: &StoredSecret| match secret.phc.foreign_start() {
            None => self.ring.find(&secret.selector),
            Some(start) => {
                let alike = self.ring.starting(start);
                alike.into_iter().find(|live| live.key.secrets().any(|held| held.phc == secret.phc))
            }
        };
        let here = Some(&key.secret).filter(|secret| secret.phc.is_foreign()).and_then(held)?;
        Some((here.key.account, here.key.kind, here.key.mode) == (key.account, key.kind, key.mode))
    }

    fn take_user(
        &self,
        user: &User,
        arrivals: &mut Arrivals,
        ceiling: Ceiling,
        ordinal: u16,
        by: &By,
    ) -> Result<MovedIn, Unfit> {
        if let Some(here) = self.people.user(&user.id) {
            return kept(*here.user == *user, &user.id);
        }
        let is_before = |same: &dyn Fn(&User) -> bool| arrivals.users.iter().any(same);
        if self.people.by_email(&user.email).is_some() || is_before(&|before| before.email == user.email) {
            return Err(Unfit::EmailTaken(user.email.clone()));
        }
        if is_before(&|before| before.id == user.id) {
            return Err(Unfit::Differs(user.id.to_string()));
        }
        user.check()?;
        let is_known = |account: &AccountId| {
            self.ring.account(account).is_some() || arrivals.accounts.iter().any(|before| before.id == *account)
        };
        if let Some(account) = user.roles.keys().find(|account| !is_known(account)) {
            return Err(Unfit::NoAccount(*account));
        }
        for token in &user.tokens {
            token.secret.phc.check(ceiling)?;
            let selector = &token.secret.selector;
            if self.people.by_selector(selector).is_some() || !arrivals.selectors.insert(*selector) {
                return Err(Unfit::Taken);
            }
        }
        let batch = &mut arrivals.batch;
        batch.put(Table::USERS, user.id.as_bytes(), encode(user), Expect::Absent);
        batch.put(Table::EMAILS, user.email.as_str().as_bytes(), user.id.as_bytes().to_vec(), Expect::Absent);
        let event = moved(Happened::UserCreated, by).of_user(user.id).with("email", user.email.as_str());
        event.append_to(batch, ordinal);
        arrivals.users.push(user.clone());
        Ok(MovedIn::Made)
    }

    /// Nobody is told of it: it is a fact about the past. That of a secret that is not here, or was used later here, is left.
    fn take_use(&self, used: &SecretUse, arrivals: &mut Arrivals) -> Result<MovedIn, LedgerError> {
        let selector = &used.selector;
        let is_here = self.ring.find(selector).is_some() || arrivals.selectors.contains(selector);
        let new = LastUsed::new(used.at, used.address);
        let is_newer = self.use_of(selector)?.is_none_or(|known| known.at < new.at);
        if !is_here || !is_newer || !arrivals.used.insert(*selector) {
            return Ok(MovedIn::Kept);
        }
        arrivals.batch.put(Table::LAST_USED, selector.as_bytes(), encode(&new), Expect::Any);
        Ok(MovedIn::Made)
    }
}

fn moved(happened: Happened, by: &By) -> Event {
    Event::new(happened, by).with("imported", "true")
}

fn kept(is_same: bool, name: &impl ToString) -> Result<MovedIn, Unfit> {
    if is_same { Ok(MovedIn::Kept) } else { Err(Unfit::Differs(name.to_string())) }
}
