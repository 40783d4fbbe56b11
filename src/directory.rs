//! All people in memory: what the management API reads instead of the store.
//!
//! Like the [`ring`](crate::ring), it changes only by applying what the store has committed, and a record is replaced
//! whole. Reads take no lock.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use papaya::HashMap;

use crate::key::{Glance, Remembered, Secret, Selector, UserId, UserToken};
use crate::people::{Email, User};

/// A person's record with what memory adds to it.
pub struct LiveUser {
    /// The record, as the store holds it.
    pub user: Arc<User>,
    /// Its version in the store.
    pub version: u64,
    /// What Argon2 has accepted, for each of the tokens.
    remembered: Vec<Remembered>,
}

impl LiveUser {
    /// What can be said of a token without Argon2.
    pub fn glance(&self, token: &UserToken<'_>) -> Glance {
        let mut known = self.user.tokens.iter().zip(&self.remembered);
        let found = known.find(|(known, _)| known.secret.selector == token.selector);
        found.map_or(Glance::Wrong, |(known, memory)| memory.glance(token, known.secret.known_screen()))
    }

    /// Remembers a secret that Argon2 has accepted for the hash that this very record holds.
    pub fn remember(&self, selector: &Selector, secret: &Secret) {
        let mut known = self.user.tokens.iter().zip(&self.remembered);
        if let Some((_, memory)) = known.find(|(known, _)| known.secret.selector == *selector) {
            memory.remember(secret);
        }
    }
}

impl fmt::Debug for LiveUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveUser").field("id", &self.user.id).field("version", &self.version).finish_non_exhaustive()
    }
}

/// All people.
#[derive(Default)]
pub struct Directory {
    users: HashMap<UserId, Arc<LiveUser>>,
    emails: HashMap<Email, UserId>,
    selectors: HashMap<Selector, UserId>,
    /// Held while a change is followed, so that the maps never disagree about a person.
    following: Mutex<()>,
}

impl Directory {
    /// Follows a committed record. An older version than the one held changes nothing.
    pub fn apply(&self, user: User, version: u64) {
        let _following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.user(&user.id);
        if before.as_ref().is_some_and(|before| before.version >= version) {
            return;
        }
        let carry = |selector: &Selector| {
            let before = before.as_ref()?;
            let mut known = before.user.tokens.iter().zip(&before.remembered);
            known.find(|(known, _)| known.secret.selector == *selector).map(|(_, memory)| memory.clone())
        };
        let remembered = user.tokens.iter().map(|token| carry(&token.secret.selector).unwrap_or_default()).collect();
        let live = Arc::new(LiveUser { user: Arc::new(user), version, remembered });
        if let Some(before) = &before {
            self.forget_names(&before.user, Some(&live.user));
        }
        let user = &live.user;
        self.emails.pin().insert(user.email.clone(), user.id);
        for token in &user.tokens {
            self.selectors.pin().insert(token.secret.selector, user.id);
        }
        self.users.pin().insert(user.id, live);
    }

    /// Follows a committed removal.
    pub fn remove(&self, id: &UserId) {
        let _following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = self.user(id) {
            self.users.pin().remove(id);
            self.forget_names(&before.user, None);
        }
    }

    /// Forgets the names that `before` had and `after` has not.
    fn forget_names(&self, before: &User, after: Option<&User>) {
        if after.is_none_or(|after| after.email != before.email) {
            self.emails.pin().remove(&before.email);
        }
        let gone = before.tokens.iter().map(|token| token.secret.selector);
        for selector in gone.filter(|selector| after.is_none_or(|after| after.token(selector).is_none())) {
            self.selectors.pin().remove(&selector);
        }
    }

    /// A person by their id.
    pub fn user(&self, id: &UserId) -> Option<Arc<LiveUser>> {
        self.users.pin().get(id).cloned()
    }

    /// A person by what they sign in with.
    pub fn by_email(&self, email: &Email) -> Option<Arc<LiveUser>> {
        self.user(self.emails.pin().get(email)?)
    }

    /// The person whose token this selector finds.
    pub fn by_selector(&self, selector: &Selector) -> Option<Arc<LiveUser>> {
        self.user(self.selectors.pin().get(selector)?)
    }

    /// Everybody, in the order in which they came.
    pub fn all(&self) -> Vec<Arc<LiveUser>> {
        let mut all: Vec<_> = self.users.pin().values().cloned().collect();
        all.sort_by_key(|live| (live.user.created_at, live.user.id));
        all
    }
}
