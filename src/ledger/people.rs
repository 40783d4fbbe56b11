//! People, in the store and in memory.

use std::sync::{Arc, PoisonError};

use jiff::Timestamp;

use super::{DeletedUser, Ledger, LedgerError, Once, check_version, encode, persistently};
use crate::directory::{Directory, LiveUser};
use crate::key::{AccountId, ApiTokenId, Cost, KeyError, Mint, MintError, Selector, StoredSecret, UserId};
use crate::people::{ApiToken, MOST_TOKENS, NewUser, PasswordHash, PeopleError, Role, User, keeps_an_operator};
use crate::store::{Batch, Expect, Table};
use crate::trail::{By, Event, Happened};

/// What a token is called that was made by signing in.
pub const SIGNED_IN: &str = "Signed in";

impl Ledger {
    /// People, to be read.
    pub fn people(&self) -> &Arc<Directory> {
        &self.people
    }

    /// A new person.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was made then.
    pub fn create_user(
        &self,
        new: NewUser,
        password: Option<PasswordHash>,
        once: Option<&Once>,
        by: &By,
    ) -> Result<Arc<LiveUser>, LedgerError> {
        let _open = self.closing.read().unwrap_or_else(PoisonError::into_inner);
        let _one_at_a_time = self.changing_people.lock().unwrap_or_else(PoisonError::into_inner);
        new.roles.keys().try_for_each(|account| self.check_open(account))?;
        let mut user = User::create(new, UserId::random().map_err(MintError::from)?, by.now)?;
        if let Some(password) = password {
            user.set_password(password, by.now);
        }
        if self.people.by_email(&user.email).is_some() {
            return Err(LedgerError::EmailTaken);
        }
        let mut batch = Batch::new();
        batch.put(Table::USERS, user.id.as_bytes(), encode(&user), Expect::Absent);
        batch.put(Table::EMAILS, user.email.as_str().as_bytes(), user.id.as_bytes().to_vec(), Expect::Absent);
        let event = Event::new(Happened::UserCreated, by).of_user(user.id).with("email", user.email.as_str());
        event.with("name", &user.name).with("operator", user.operator.to_string()).append_to(&mut batch, 0);
        for (ordinal, (account, role)) in (1..).zip(&user.roles) {
            let event = Event::new(Happened::MemberSet, by).of_account(*account).of_user(user.id);
            event.with("role", role.as_str()).append_to(&mut batch, ordinal);
        }
        if let Some(once) = once {
            once.note(&mut batch, &user.id.to_string(), by.now);
        }
        self.commit(&batch, [])?;
        self.follow_user(user, 1)
    }

    /// Changes a person. `change` says what happened, or nothing if there was nothing to do.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was changed then.
    pub fn change_user(
        &self,
        id: &UserId,
        expected: Option<u64>,
        once: Option<&Once>,
        mut change: impl FnMut(&mut User) -> Result<Option<Event>, PeopleError>,
    ) -> Result<Arc<LiveUser>, LedgerError> {
        let _one_at_a_time = self.changing_people.lock().unwrap_or_else(PoisonError::into_inner);
        persistently(|| {
            let live = self.people.user(id).ok_or(LedgerError::NoUser(*id))?;
            check_version(live.version, expected)?;
            let mut user = User::clone(&live.user);
            let Some(event) = change(&mut user)? else {
                self.commit(&Batch::new(), [])?;
                return Ok(live);
            };
            // What others know has to die, whoever's it is.
            if event.happened != Happened::TokenCompromised {
                self.check_operators(&live.user, Some(&user), event.at)?;
            }
            let mut batch = Batch::new();
            batch.put(Table::USERS, id.as_bytes(), encode(&user), Expect::Version(live.version));
            if user.email != live.user.email {
                if self.people.by_email(&user.email).is_some() {
                    return Err(LedgerError::EmailTaken);
                }
                batch.delete(Table::EMAILS, live.user.email.as_str().as_bytes(), Expect::Any);
                batch.put(Table::EMAILS, user.email.as_str().as_bytes(), id.as_bytes().to_vec(), Expect::Absent);
            }
            if let Some(once) = once {
                once.note(&mut batch, event.detail.get("token").map_or("", |token| token), event.at);
            }
            event.of_user(*id).append_to(&mut batch, 0);
            self.commit(&batch, [])?;
            self.follow_user(user, live.version + 1)
        })
    }

    /// Removes a person, with all their tokens and roles.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was changed then.
    pub fn delete_user(&self, id: &UserId, expected: Option<u64>, by: &By) -> Result<(), LedgerError> {
        let _one_at_a_time = self.changing_people.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.people.user(id).ok_or(LedgerError::NoUser(*id))?;
        check_version(live.version, expected)?;
        self.check_operators(&live.user, None, by.now)?;
        let mut batch = Batch::new();
        batch.delete(Table::USERS, id.as_bytes(), Expect::Version(live.version));
        batch.delete(Table::EMAILS, live.user.email.as_str().as_bytes(), Expect::Any);
        DeletedUser { id: *id, deleted_at: by.now }.put(&mut batch);
        let event = Event::new(Happened::UserDeleted, by).of_user(*id).with("email", live.user.email.as_str());
        event.append_to(&mut batch, 0);
        self.commit(&batch, [])?;
        self.people.remove(id);
        Ok(())
    }

    /// Refuses an account that is not there, or is closed. Hold `closing` for as long as that matters.
    fn check_open(&self, account: &AccountId) -> Result<(), LedgerError> {
        let live = self.ring.account(account).ok_or(LedgerError::NoAccount(*account))?;
        if live.account.closed_at.is_some() { Err(KeyError::Closed.into()) } else { Ok(()) }
    }

    /// Gives a person a role in an account that is open, or takes it away.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was changed then.
    pub fn grant(
        &self,
        id: &UserId,
        account: AccountId,
        role: Option<Role>,
        expected: Option<u64>,
        by: &By,
    ) -> Result<Arc<LiveUser>, LedgerError> {
        let _open = self.closing.read().unwrap_or_else(PoisonError::into_inner);
        role.map_or(Ok(()), |_| self.check_open(&account))?;
        if role.is_none() && self.people.user(id).is_some_and(|live| !live.user.roles.contains_key(&account)) {
            return Err(LedgerError::NoUser(*id));
        }
        self.change_user(id, expected, None, |user| {
            let (happened, changed) = match role {
                Some(role) => (Happened::MemberSet, user.grant(account, role, by.now)),
                None => (Happened::MemberRemoved, user.withdraw(&account, by.now)),
            };
            let event = changed.then(|| Event::new(happened, by).of_account(account));
            Ok(event.map(|event| match role {
                Some(role) => event.with("role", role.as_str()),
                None => event,
            }))
        })
    }

    /// A new token of a person, which is known at this moment only.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was made then.
    pub fn create_token(
        &self,
        id: &UserId,
        name: &str,
        expires_at: Option<Timestamp>,
        cost: Cost,
        once: Option<&Once>,
        by: &By,
    ) -> Result<(ApiToken, Mint), LedgerError> {
        if name == SIGNED_IN {
            return Err(PeopleError::NameOfSignIns.into());
        }
        self.add_token(id, (name, expires_at), cost, once, by, |_| Ok(()))
    }

    /// A new token of somebody whose password was just proven, as they were then. `renewed` is that password's hash at
    /// today's costs, where the one that was held against it is outdated.
    ///
    /// # Errors
    /// [`PeopleError::PasswordChanged`] when it is another one by now, or the person is shut out; other [`LedgerError`]s.
    /// Nothing was made then.
    pub fn sign_in(
        &self,
        proven: &User,
        renewed: Option<&PasswordHash>,
        expires_at: Timestamp,
        cost: Cost,
        by: &By,
    ) -> Result<(ApiToken, Mint), LedgerError> {
        self.add_token(&proven.id, (SIGNED_IN, Some(expires_at)), cost, None, by, |user| {
            if user.usable_password() != proven.usable_password() {
                return Err(PeopleError::PasswordChanged);
            }
            if let Some(renewed) = renewed {
                user.set_password(renewed.clone(), by.now);
            }
            Ok(())
        })
    }

    /// Adds a token together with what `also` changes of the person.
    fn add_token(
        &self,
        id: &UserId,
        (name, expires_at): (&str, Option<Timestamp>),
        cost: Cost,
        once: Option<&Once>,
        by: &By,
        mut also: impl FnMut(&mut User) -> Result<(), PeopleError>,
    ) -> Result<(ApiToken, Mint), LedgerError> {
        let mint = Mint::for_user()?;
        let secret = StoredSecret::new(&mint, mint.secret().hash(cost)?, by.now);
        let token_id = ApiTokenId::random().map_err(MintError::from)?;
        let token = ApiToken::create(name, expires_at, token_id, secret, by.now)?;
        self.change_user(id, None, once, |user| {
            also(user)?;
            make_room(user, by.now);
            user.add_token(token.clone(), by.now)?;
            let event = Event::new(Happened::TokenCreated, by);
            Ok(Some(event.with("token", token_id.to_string()).with("name", name)))
        })?;
        Ok((token, mint))
    }

    /// Removes a token, which is its end; whether the person had it.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was changed then.
    pub fn delete_token(
        &self,
        id: &UserId,
        token: &ApiTokenId,
        expected: Option<u64>,
        by: &By,
    ) -> Result<bool, LedgerError> {
        let mut had = false;
        self.change_user(id, expected, None, |user| {
            let removed = user.remove_token(token, by.now);
            had |= removed.is_some();
            Ok(removed.map(|_| Event::new(Happened::TokenDeleted, by).with("token", token.to_string())))
        })?;
        Ok(had)
    }

    /// Marks a person's token as exposed, for good; `true` when this call did it.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was marked then.
    pub fn expose_token(&self, id: &UserId, selector: &Selector, how: &str, by: &By) -> Result<bool, LedgerError> {
        let mut marked = false;
        self.change_user(id, None, None, |user| {
            marked = user.compromise(selector, by.now);
            let token = user.token(selector).map(|token| token.id.to_string()).unwrap_or_default();
            let event = || Event::new(Happened::TokenCompromised, by).with("how", how).with("token", token);
            Ok(marked.then(event))
        })?;
        Ok(marked)
    }

    /// Refuses a change that would leave nobody who could name an operator.
    fn check_operators(&self, before: &User, after: Option<&User>, now: Timestamp) -> Result<(), LedgerError> {
        if !before.operator {
            return Ok(());
        }
        let all = self.people.all();
        let others = all.iter().map(|live| &*live.user).filter(|user| user.id != before.id);
        Ok(keeps_an_operator(before, after, others, now)?)
    }

    fn follow_user(&self, user: User, version: u64) -> Result<Arc<LiveUser>, LedgerError> {
        let id = user.id;
        self.people.apply(user, version);
        self.people.user(&id).ok_or(LedgerError::NoUser(id))
    }
}

/// Forgets tokens that are over, and the oldest sign-in when there is no room for another: signing in often must not
/// lock anybody out.
fn make_room(user: &mut User, now: Timestamp) {
    user.tokens.retain(|token| token.expires_at.is_none_or(|end| end > now));
    if user.tokens.len() >= MOST_TOKENS
        && let Some(oldest) = user.tokens.iter().position(|token| &*token.name == SIGNED_IN)
    {
        user.tokens.remove(oldest);
    }
}
