//! A user: the record of a person, what they are in which account, and the tokens of their scripts.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Email, PasswordHash, PeopleError, Role, UserState};
use crate::key::{AHEAD, AccountId, ApiTokenId, Selector, Status, StoredSecret, UserId, is_ahead, is_presentable};

/// API tokens that one user may have.
pub const MOST_TOKENS: usize = 20;

/// A token of a person's scripts, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    /// Its identity.
    pub id: ApiTokenId,
    /// What the person calls it.
    pub name: Box<str>,
    /// The secret that proves it.
    pub secret: StoredSecret,
    /// When it was made.
    pub created_at: Timestamp,
    /// The first moment at which it no longer works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl ApiToken {
    /// A new token, proven by `secret`.
    ///
    /// # Errors
    /// [`PeopleError::Name`] and [`PeopleError::ExpiresInThePast`].
    pub fn create(
        name: &str,
        expires_at: Option<Timestamp>,
        id: ApiTokenId,
        secret: StoredSecret,
        now: Timestamp,
    ) -> Result<Self, PeopleError> {
        if !is_presentable(name) {
            return Err(PeopleError::Name);
        }
        if let Some(expires_at) = expires_at.filter(|at| *at <= now) {
            return Err(PeopleError::ExpiresInThePast(expires_at));
        }
        Ok(Self { id, name: name.into(), secret, created_at: now, expires_at })
    }
}

/// A user as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Their identity, for good.
    pub id: UserId,
    /// What they sign in with. That no two users have the same is for the store to see to.
    pub email: Email,
    /// What people call them.
    pub name: Box<str>,
    /// Whether they run this installation: all accounts, users and policies.
    #[serde(default, skip_serializing_if = "is_false")]
    pub operator: bool,
    /// What they are in which account.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<AccountId, Role>,
    /// What proves them in the Dashboard; a user without it has tokens alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordHash>,
    /// What proves their scripts, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<ApiToken>,
    /// Whether they are let in.
    pub state: UserState,
    /// When the record was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// What is asked for when a user is made.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// What they will sign in with: 3 to 254 visible ASCII characters with one `@`.
    pub email: String,
    /// What people will call them: 1 to 200 characters, no control characters.
    pub name: String,
    /// Whether they run this installation.
    pub operator: bool,
    /// What they are in which account.
    pub roles: BTreeMap<AccountId, Role>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl User {
    /// A new, active user without password or token.
    ///
    /// # Errors
    /// [`PeopleError`] naming the field that cannot be as asked.
    pub fn create(new: NewUser, id: UserId, now: Timestamp) -> Result<Self, PeopleError> {
        let email = new.email.parse()?;
        if !is_presentable(&new.name) {
            return Err(PeopleError::Name);
        }
        Ok(Self {
            id,
            email,
            name: new.name.into(),
            operator: new.operator,
            roles: new.roles,
            password: None,
            tokens: Vec::new(),
            state: UserState::Active,
            created_at: now,
            updated_at: now,
        })
    }

    /// Refuses a record that could not have been made here.
    ///
    /// # Errors
    /// [`PeopleError`] naming the field that cannot be as it is.
    pub fn check(&self, now: Timestamp) -> Result<(), PeopleError> {
        let names = std::iter::once(&self.name).chain(self.tokens.iter().map(|token| &token.name));
        match names.into_iter().all(|name| is_presentable(name)) {
            false => return Err(PeopleError::Name),
            true if self.tokens.len() > MOST_TOKENS => return Err(PeopleError::TooManyTokens),
            true => {}
        }
        let of_tokens = self.tokens.iter().flat_map(|token| {
            let made = [token.created_at, token.secret.created_at.time()].map(|time| ("tokens.created_at", time));
            let marked = token.secret.compromised_at.map(|time| ("tokens.secret.compromised_at", time.time()));
            made.into_iter().chain(marked)
        });
        let mut times = [("created_at", self.created_at), ("updated_at", self.updated_at)].into_iter().chain(of_tokens);
        if let Some((field, _)) = times.find(|(_, time)| is_ahead(*time, now)) {
            return Err(PeopleError::NotOfHere(field, AHEAD));
        }
        // A person's token is ours: one of another system would be found by nobody.
        if self.tokens.iter().any(|token| token.secret.phc.is_foreign()) {
            return Err(PeopleError::NotOfHere("tokens.secret.phc", "is no Argon2id hash"));
        }
        let ids: BTreeSet<_> = self.tokens.iter().map(|token| token.id).collect();
        if ids.len() < self.tokens.len() {
            return Err(PeopleError::NotOfHere("tokens.id", "two tokens have the same"));
        }
        match &self.password {
            Some(password) if !password.can_be_checked() => {
                Err(PeopleError::NotOfHere("password", "is no Argon2id hash of costs that are checked here"))
            }
            _ => Ok(()),
        }
    }

    /// Gives them another name; whether that changed anything.
    ///
    /// # Errors
    /// [`PeopleError::Name`] when the name is empty, over 200 characters, or holds control characters.
    pub fn rename(&mut self, name: &str, now: Timestamp) -> Result<bool, PeopleError> {
        if !is_presentable(name) {
            return Err(PeopleError::Name);
        }
        let before = std::mem::replace(&mut self.name, name.into());
        Ok(self.touched(*before != *name, now))
    }

    /// Gives them another address to sign in with; whether that changed anything.
    ///
    /// # Errors
    /// [`PeopleError::Email`] when it is no login name.
    pub fn readdress(&mut self, email: &str, now: Timestamp) -> Result<bool, PeopleError> {
        let email: Email = email.parse()?;
        let before = std::mem::replace(&mut self.email, email);
        Ok(self.touched(before != self.email, now))
    }

    /// Makes them an operator; whether that changed anything.
    pub fn promote(&mut self, now: Timestamp) -> bool {
        let was_operator = std::mem::replace(&mut self.operator, true);
        self.touched(!was_operator, now)
    }

    /// Takes the operator's place from them; whether that changed anything. See [`keeps_an_operator`].
    pub fn demote(&mut self, now: Timestamp) -> bool {
        let was_operator = std::mem::replace(&mut self.operator, false);
        self.touched(was_operator, now)
    }

    /// Gives them a role in an account, in place of the one that they had; whether that changed anything.
    pub fn grant(&mut self, account: AccountId, role: Role, now: Timestamp) -> bool {
        let before = self.roles.insert(account, role);
        self.touched(before != Some(role), now)
    }

    /// Takes their role in an account from them; whether that changed anything.
    pub fn withdraw(&mut self, account: &AccountId, now: Timestamp) -> bool {
        let before = self.roles.remove(account);
        self.touched(before.is_some(), now)
    }

    /// Lets them sign in with this password from now on, and with no other.
    pub fn set_password(&mut self, password: PasswordHash, now: Timestamp) {
        self.password = Some(password);
        self.touched(true, now);
    }

    /// Lets them sign in with no password at all; whether that changed anything.
    pub fn clear_password(&mut self, now: Timestamp) -> bool {
        let before = self.password.take();
        self.touched(before.is_some(), now)
    }

    /// Lets them in again; whether that changed anything.
    pub fn enable(&mut self, now: Timestamp) -> bool {
        let before = std::mem::replace(&mut self.state, UserState::Active);
        self.touched(before != UserState::Active, now)
    }

    /// Shuts them out, their scripts too; whether that changed anything. See [`keeps_an_operator`].
    pub fn disable(&mut self, now: Timestamp) -> bool {
        let before = std::mem::replace(&mut self.state, UserState::Disabled);
        self.touched(before != UserState::Disabled, now)
    }

    /// Adds a token.
    ///
    /// # Errors
    /// [`PeopleError::TooManyTokens`] when they have [`MOST_TOKENS`], expired ones included.
    pub fn add_token(&mut self, token: ApiToken, now: Timestamp) -> Result<(), PeopleError> {
        if self.tokens.len() >= MOST_TOKENS {
            return Err(PeopleError::TooManyTokens);
        }
        self.tokens.push(token);
        self.touched(true, now);
        Ok(())
    }

    /// Removes a token, which is its end; `None` when they have no such token.
    pub fn remove_token(&mut self, id: &ApiTokenId, now: Timestamp) -> Option<ApiToken> {
        let at = self.tokens.iter().position(|token| token.id == *id)?;
        self.touched(true, now);
        Some(self.tokens.remove(at))
    }

    /// Marks the secret that `selector` finds as exposed; `false` when that changes nothing.
    pub fn compromise(&mut self, selector: &Selector, now: Timestamp) -> bool {
        let mut secrets = self.tokens.iter_mut().map(|token| &mut token.secret);
        let found = secrets.find(|secret| secret.selector == *selector && secret.compromised_at.is_none());
        let is_found = found.map(|secret| secret.compromised_at = Some(now.into())).is_some();
        self.touched(is_found, now)
    }

    /// The token that this selector finds. It proves nothing, and [`User::status`] says whether it would.
    pub fn token(&self, selector: &Selector) -> Option<&ApiToken> {
        self.tokens.iter().find(|token| token.secret.selector == *selector)
    }

    /// How the user stands at `now`, when proven by `token`, one of theirs. What is final is said first.
    pub fn status(&self, token: &ApiToken, now: Timestamp) -> Status {
        match self.state {
            _ if token.secret.compromised_at.is_some() => Status::Compromised,
            UserState::Disabled => Status::Disabled,
            UserState::Active if token.expires_at.is_some_and(|end| end <= now) => Status::Expired,
            UserState::Active => Status::Good,
        }
    }

    /// The hash that lets them sign in; nothing for a user who is shut out or has none.
    pub fn usable_password(&self) -> Option<&PasswordHash> {
        self.password.as_ref().filter(|_| self.state == UserState::Active)
    }

    fn touched(&mut self, is_changed: bool, now: Timestamp) -> bool {
        if is_changed {
            self.updated_at = now;
        }
        is_changed
    }
}

/// How far somebody can be relied on to name operators, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operating {
    /// They are no operator, or shut out.
    Not,
    /// They could, had they a password or a token.
    WithoutEntry,
    /// They can get in.
    WithEntry,
}

impl Operating {
    fn of(user: &User, now: Timestamp) -> Self {
        let has_entry = || {
            user.usable_password().is_some() || user.tokens.iter().any(|token| user.status(token, now) == Status::Good)
        };
        match user.operator && user.state == UserState::Active {
            false => Self::Not,
            true if has_entry() => Self::WithEntry,
            true => Self::WithoutEntry,
        }
    }
}

/// Refuses a change of a person, to what they are `after` it or to nobody, that takes away the last operator who can get
/// in, or the last one in use where none can. `others` is everybody else.
///
/// # Errors
/// [`PeopleError::LastOperator`].
pub fn keeps_an_operator<'a>(
    before: &User,
    after: Option<&User>,
    others: impl IntoIterator<Item = &'a User>,
    now: Timestamp,
) -> Result<(), PeopleError> {
    let had = Operating::of(before, now);
    let is_kept = after.is_some_and(|after| Operating::of(after, now) >= had)
        || had == Operating::Not
        || others.into_iter().any(|other| Operating::of(other, now) >= had);
    if is_kept { Ok(()) } else { Err(PeopleError::LastOperator) }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::key::{Cost, Mint};
    use crate::people::Password;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn asked() -> NewUser {
        NewUser { email: "Ada@example.com".into(), name: "Ada".into(), operator: false, roles: BTreeMap::new() }
    }

    fn user() -> User {
        User::create(asked(), UserId::random().unwrap(), at(0)).unwrap()
    }

    fn token(expires_at: Option<Timestamp>) -> (Mint, ApiToken) {
        let mint = Mint::for_user().unwrap();
        let phc = mint.secret().hash(Cost { memory_kib: 8, iterations: 1, parallelism: 1 }).unwrap();
        let secret = StoredSecret::new(&mint, phc, at(0));
        let token = ApiToken::create("deploy", expires_at, ApiTokenId::random().unwrap(), secret, at(0)).unwrap();
        (mint, token)
    }

    /// A user with everything that a record can hold.
    fn whole() -> User {
        let mut user = user();
        user.promote(at(1));
        user.grant(AccountId::random().unwrap(), Role::Developer, at(1));
        let password = Password::typed("correct horse battery staple").unwrap();
        user.set_password(PasswordHash::hash(&password).unwrap(), at(1));
        user.add_token(token(Some(at(100))).1, at(1)).unwrap();
        user
    }

    #[test]
    fn what_cannot_be_made_is_refused_with_the_field_named() {
        for (new, expected) in [
            (NewUser { email: "ada".into(), ..asked() }, PeopleError::Email),
            (NewUser { name: String::new(), ..asked() }, PeopleError::Name),
            (NewUser { name: "a\nb".into(), ..asked() }, PeopleError::Name),
            (NewUser { name: "x".repeat(201), ..asked() }, PeopleError::Name),
        ] {
            assert_eq!(User::create(new, UserId::random().unwrap(), at(0)).unwrap_err(), expected);
        }
        let (_, made) = token(None);
        let create =
            |name, end| ApiToken::create(name, end, made.id, made.secret.clone(), at(5)).map_err(|error| error.field());
        assert_eq!(create("", None).unwrap_err(), "name");
        assert_eq!(create("deploy", Some(at(5))).unwrap_err(), "expires_at");
        assert!(create("deploy", Some(at(6))).is_ok());
    }

    type Change = fn(&mut User, AccountId) -> bool;

    #[test]
    fn a_change_says_whether_it_was_one_and_when() {
        let account = AccountId::random().unwrap();
        let changes: [(&str, Change); 8] = [
            ("rename", |user, _| user.rename("Ada L.", at(9)).unwrap()),
            ("readdress", |user, _| user.readdress("Ada@example.org", at(9)).unwrap()),
            ("promote", |user, _| user.promote(at(9))),
            ("demote", |user, _| user.demote(at(9))),
            ("grant", |user, account| user.grant(account, Role::Owner, at(9))),
            ("withdraw", |user, account| user.withdraw(&account, at(9))),
            ("disable", |user, _| user.disable(at(9))),
            ("enable", |user, _| user.enable(at(9))),
        ];
        let mut user = user();
        for (name, change) in changes {
            user.updated_at = at(0);
            assert!(change(&mut user, account), "{name}");
            assert_eq!(user.updated_at, at(9), "{name}");
            user.updated_at = at(0);
            assert!(!change(&mut user, account), "{name} again");
            assert_eq!(user.updated_at, at(0), "{name} again");
        }
        assert_eq!((user.email.as_str(), &*user.name), ("ada@example.org", "Ada L."));
    }

    #[test]
    fn a_record_that_could_not_have_been_made_here_is_refused_with_its_field() {
        let now = at(1_000_000);
        assert_eq!((user().check(now), whole().check(now)), (Ok(()), Ok(())));
        let later = now + SignedDuration::from_hours(2);
        let hash = |text: &str| Some(serde_json::from_value(text.into()).unwrap());
        let costly =
            "$argon2id$v=19$m=4194304,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let digest = format!("sha256:{}", "5a".repeat(32));
        let spoil = |field: &str, spoil: &dyn Fn(&mut User)| {
            let mut user = whole();
            spoil(&mut user);
            assert_eq!(user.check(now).unwrap_err().field(), field);
        };
        spoil("created_at", &|user| user.created_at = later);
        spoil("updated_at", &|user| user.updated_at = later);
        spoil("tokens.created_at", &|user| user.tokens[0].created_at = later);
        spoil("tokens.created_at", &|user| user.tokens[0].secret.created_at = later.into());
        spoil("tokens.secret.compromised_at", &|user| user.tokens[0].secret.compromised_at = Some(later.into()));
        spoil("tokens.secret.phc", &|user| user.tokens[0].secret.phc = digest.clone().into());
        spoil("tokens.id", &|user| user.tokens.push(user.tokens[0].clone()));
        for text in
            ["", "plain", "$2b$12$abc", costly, &digest, "acme$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$RdescudvJCs"]
        {
            spoil("password", &|user| user.password = hash(text));
        }
    }

    #[test]
    fn a_refused_change_changes_nothing() {
        let mut user = user();
        let before = user.clone();
        assert_eq!(user.rename("", at(9)), Err(PeopleError::Name));
        assert_eq!(user.readdress("nobody", at(9)), Err(PeopleError::Email));
        assert_eq!(user, before);
    }

    #[test]
    fn a_user_has_20_tokens_at_most_and_a_removed_one_makes_room() {
        let mut user = user();
        for _ in 0..MOST_TOKENS {
            user.add_token(token(None).1, at(1)).unwrap();
        }
        assert_eq!(user.add_token(token(None).1, at(1)), Err(PeopleError::TooManyTokens));
        let id = user.tokens[3].id;
        assert_eq!(user.remove_token(&id, at(2)).unwrap().id, id);
        assert!(user.remove_token(&id, at(2)).is_none());
        assert!(user.add_token(token(None).1, at(3)).is_ok());
    }

    #[test]
    fn a_token_stands_as_its_end_its_secret_and_its_user_say() {
        let mut user = user();
        let (mint, made) = token(Some(at(100)));
        user.add_token(made, at(1)).unwrap();
        let status = |user: &User, now| user.status(user.token(&mint.selector()).unwrap(), at(now));
        assert_eq!(status(&user, 99), Status::Good);
        assert_eq!(status(&user, 100), Status::Expired);
        user.disable(at(2));
        assert_eq!(status(&user, 100), Status::Disabled);
        assert!(user.compromise(&mint.selector(), at(3)));
        assert!(!user.compromise(&mint.selector(), at(4)));
        assert_eq!(status(&user, 100), Status::Compromised);
        assert!(user.token(&Selector::random().unwrap()).is_none());
    }

    #[test]
    fn a_user_who_is_shut_out_has_no_usable_password() {
        let mut user = whole();
        assert!(user.usable_password().is_some());
        user.disable(at(5));
        assert!(user.usable_password().is_none());
        user.enable(at(6));
        user.clear_password(at(6));
        assert!(user.usable_password().is_none());
    }

    #[test]
    fn the_last_operator_who_can_get_in_stays_one() {
        let (plain, operator, now) = (user(), whole(), at(5));
        let changed = |change: &dyn Fn(&mut User)| {
            let mut changed = operator.clone();
            change(&mut changed);
            changed
        };
        let shut_out = changed(&|user| assert!(user.disable(now)));
        let demoted = changed(&|user| assert!(user.demote(now)));
        let without_password = changed(&|user| assert!(user.clear_password(now)));
        let without_token = changed(&|user| user.tokens.clear());
        let without_either = changed(&|user| {
            user.tokens.clear();
            user.clear_password(now);
        });
        let compromised = changed(&|user| {
            user.clear_password(now);
            let selector = user.tokens[0].secret.selector;
            user.compromise(&selector, now);
        });
        let refused = Err(PeopleError::LastOperator);
        let alone = |before: &User, after: Option<&User>, now| keeps_an_operator(before, after, [&plain], now);
        for after in [&without_password, &without_token, &operator] {
            assert_eq!(alone(&operator, Some(after), now), Ok(()));
        }
        for after in [&shut_out, &demoted, &without_either, &compromised].map(Some).into_iter().chain([None]) {
            assert_eq!(alone(&operator, after, now), refused, "{after:?}");
            // Another one counts when they could get in.
            assert_eq!(keeps_an_operator(&operator, after, [&plain, &without_token], now), Ok(()));
            assert_eq!(keeps_an_operator(&operator, after, [&shut_out, &demoted, &without_either], now), refused);
        }
        // The token of somebody without a password is their way in until it ends.
        assert_eq!(alone(&without_password, Some(&without_either), at(99)), refused);
        assert_eq!(alone(&without_password, Some(&without_either), at(100)), Ok(()));
        // Where nobody can get in, the last one in use stays all the same.
        assert_eq!(alone(&without_either, None, now), refused);
        assert_eq!(keeps_an_operator(&without_either, None, [&compromised], now), Ok(()));
        assert_eq!(alone(&plain, None, now), Ok(()));
    }

    #[test]
    fn a_record_reads_back_as_it_was_written_and_holds_nothing_empty() {
        let whole = whole();
        let written = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<User>(&written).unwrap(), whole);
        let plain = user();
        let written = serde_json::to_value(&plain).unwrap();
        let mut fields: Vec<_> = written.as_object().unwrap().keys().cloned().collect();
        fields.sort();
        assert_eq!(fields, ["created_at", "email", "id", "name", "state", "updated_at"]);
        assert_eq!(serde_json::from_value::<User>(written).unwrap(), plain);
    }

    #[test]
    fn debug_shows_no_hash() {
        let user = whole();
        let shown = format!("{user:?}");
        let record = serde_json::to_value(&user).unwrap();
        let password = record["password"].as_str().unwrap();
        let phc = record["tokens"][0]["secret"]["phc"].as_str().unwrap();
        let screen = record["tokens"][0]["secret"]["screen"].to_string();
        for hidden in
            [password, phc, &screen].into_iter().chain(password.split('$').skip(4)).chain(phc.split('$').skip(4))
        {
            assert!(!hidden.is_empty() && !shown.contains(hidden), "{shown}");
        }
        assert!(!shown.contains("argon2"), "{shown}");
    }
}
