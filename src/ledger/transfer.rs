//! Moving in: accounts, keys and people that were made elsewhere, all or nothing.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

use super::{DeletedUser, KnownToken, Ledger, LedgerError, SecretUse, encode};
use crate::key::{
    AHEAD, Account, AccountId, Ceiling, ForeignName, HashError, Key, KeyError, KeyId, LastUsed, Selector, State,
    UserId, is_ahead,
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
    /// A key that another system issued, under an id that it gets here.
    ForeignKey(Box<Key>),
    /// A token that another system issued, whatever became of its key.
    KnownToken(KnownToken),
    /// A person.
    User(Box<User>),
    /// A person who was deleted.
    DeletedUser(DeletedUser),
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
    /// Its token is, or was, this key's.
    KeptAs(KeyId),
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
    /// A key with its token was made before, and was something else.
    #[error("its token came here before, as that of {0}, and {1} was another; leave it out to keep what is here")]
    CameAsAnother(KeyId, &'static str),
    /// A token that was here, while its key is not.
    #[error("its token is that of {0}, which is not here: import that key, or leave this one out")]
    CameBefore(KeyId),
    /// The person was here.
    #[error("{0} was deleted here; leave the line out, or make them anew with `keyward users create`")]
    Deleted(UserId),
    /// The person was deleted elsewhere, and is here.
    #[error(
        "{0} was deleted where this comes from, and is here; remove them (`keyward users remove`), or leave the line out"
    )]
    NotDeleted(UserId),
    /// It would be used at a time that has not come.
    #[error("at: {AHEAD}")]
    Use,
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

impl Unfit {
    /// The field that it is about, where it is about one.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Key(error) => error.field(),
            Self::People(error) => Some(error.field()),
            Self::CameAsAnother(_, field) => Some(field),
            Self::Use => Some("at"),
            _ => None,
        }
    }
}

/// What one import has so far.
#[derive(Default)]
struct Arrivals {
    batch: Batch,
    accounts: Vec<Account>,
    keys: HashMap<KeyId, Key>,
    users: Vec<User>,
    selectors: HashSet<Selector>,
    /// How foreign tokens begin that are found by that.
    begun: Vec<Box<str>>,
    /// Foreign tokens, and whose they are.
    tokens: HashMap<ForeignName, KeyId>,
    /// Those of them that get rows.
    known: HashSet<ForeignName>,
    deleted: HashSet<UserId>,
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
                Incoming::Key(key) => {
                    let known = key.secrets().map(|secret| self.known_token(secret)).collect::<Result<Vec<_>, _>>()?;
                    self.take_key(key, known.into_iter().flatten(), &mut arrivals, ceiling, ordinal, by)
                }
                Incoming::ForeignKey(key) => {
                    let known = self.known_token(&key.secret)?;
                    self.take_foreign(key, known.as_ref(), &mut arrivals, ceiling, ordinal, by)
                }
                Incoming::KnownToken(token) => {
                    let here = self.token_row(&token.token)?;
                    take_token(token, here.as_ref(), &mut arrivals)
                }
                Incoming::User(user) if self.was_deleted(&user.id)? => Err(Unfit::Deleted(user.id)),
                Incoming::User(user) => self.take_user(user, &mut arrivals, ceiling, ordinal, by),
                Incoming::DeletedUser(user) => {
                    let was_deleted = self.was_deleted(&user.id)?;
                    self.take_deleted(user, was_deleted, &mut arrivals)
                }
                Incoming::Use(used) if is_ahead(used.at, by.now) => Err(Unfit::Use),
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
        account.check(by.now)?;
        arrivals.batch.put(Table::ACCOUNTS, account.id.as_bytes(), encode(account), Expect::Absent);
        moved(Happened::AccountCreated, by).of_account(account.id).append_to(&mut arrivals.batch, ordinal);
        arrivals.accounts.push(account.clone());
        Ok(MovedIn::Made)
    }

    fn take_key(
        &self,
        key: &Key,
        mut known: impl Iterator<Item = KnownToken>,
        arrivals: &mut Arrivals,
        ceiling: Ceiling,
        ordinal: u16,
        by: &By,
    ) -> Result<MovedIn, Unfit> {
        if let Some(here) = self.ring.key(&key.id) {
            return kept(here.key == *key, &key.id);
        }
        if known.any(|token| token.key != key.id) {
            return Err(Unfit::Taken);
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
        key.check(by.now)?;
        for secret in key.secrets() {
            secret.phc.check(ceiling)?;
            if self.ring.find(&secret.selector).is_some() || !arrivals.selectors.insert(secret.selector) {
                return Err(Unfit::Taken);
            }
            if let Some(start) = secret.phc.foreign_start() {
                let before = arrivals.begun.iter().filter(|before| ***before == *start);
                if self.ring.starting(start).len() + before.count() >= MOST_ALIKE {
                    return Err(Unfit::Alike);
                }
                arrivals.begun.push(start.into());
            }
            // That of a line which tells of this very token is no other's.
            let other = secret.foreign_name().and_then(|name| arrivals.tokens.insert(name, key.id));
            if other.is_some_and(|other| other != key.id) {
                return Err(Unfit::Taken);
            }
        }
        arrivals.batch.put(Table::KEYS, key.id.as_bytes(), encode(key), Expect::Absent);
        moved(Happened::KeyCreated, by).of_key(key.account, key.id).append_to(&mut arrivals.batch, ordinal);
        arrivals.keys.insert(key.id, key.clone());
        Ok(MovedIn::Made)
    }

    /// Each import gives such a key another id: what it is known by is its token.
    fn take_foreign(
        &self,
        key: &Key,
        known: Option<&KnownToken>,
        arrivals: &mut Arrivals,
        ceiling: Ceiling,
        ordinal: u16,
        by: &By,
    ) -> Result<MovedIn, Unfit> {
        if let Some(known) = known {
            return match known.differs_in(key) {
                Some(field) => Err(Unfit::CameAsAnother(known.key, field)),
                None if self.ring.key(&known.key).is_none() => Err(Unfit::CameBefore(known.key)),
                None => Ok(MovedIn::KeptAs(known.key)),
            };
        }
        let made = self.take_key(key, std::iter::empty(), arrivals, ceiling, ordinal, by)?;
        if let Some(name) = key.secret.foreign_name() {
            arrivals.known.insert(name);
            KnownToken::of(key, name).put(&mut arrivals.batch);
        }
        Ok(made)
    }

    /// A person who lives is never deleted by an import.
    fn take_deleted(&self, user: &DeletedUser, was_deleted: bool, arrivals: &mut Arrivals) -> Result<MovedIn, Unfit> {
        if self.people.user(&user.id).is_some() || arrivals.users.iter().any(|before| before.id == user.id) {
            return Err(Unfit::NotDeleted(user.id));
        }
        if was_deleted || !arrivals.deleted.insert(user.id) {
            return Ok(MovedIn::Kept);
        }
        user.put(&mut arrivals.batch);
        Ok(MovedIn::Made)
    }

    fn take_user(
        &self,
        user: &User,
        arrivals: &mut Arrivals,
        ceiling: Ceiling,
        ordinal: u16,
        by: &By,
    ) -> Result<MovedIn, Unfit> {
        if arrivals.deleted.contains(&user.id) {
            return Err(Unfit::Deleted(user.id));
        }
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
        user.check(by.now)?;
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

/// A token is one key's for good, also when the key has another one, or is not here yet.
fn take_token(token: &KnownToken, here: Option<&KnownToken>, arrivals: &mut Arrivals) -> Result<MovedIn, Unfit> {
    if let Some(here) = here {
        return kept(here.key == token.key, &format!("the token of {}", token.key));
    }
    if arrivals.tokens.insert(token.token, token.key).is_some_and(|other| other != token.key) {
        return Err(Unfit::Taken);
    }
    if !arrivals.known.insert(token.token) {
        return Ok(MovedIn::Kept);
    }
    token.put(&mut arrivals.batch);
    Ok(MovedIn::Made)
}

fn moved(happened: Happened, by: &By) -> Event {
    Event::new(happened, by).with("imported", "true")
}

fn kept(is_same: bool, name: &impl ToString) -> Result<MovedIn, Unfit> {
    if is_same { Ok(MovedIn::Kept) } else { Err(Unfit::Differs(name.to_string())) }
}
