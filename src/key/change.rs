//! What people may change of a key after it was made, and what few keys have besides.

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::record::{MOST_ADDRESSES, is_presentable, is_writable};
use super::{Key, KeyError, Kind, Mint, Scope, Selector, State, Status, masked};
use crate::duration::written;

/// The longest that an old secret may go on working beside a new one.
pub const LONGEST_OVERLAP: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The shortest time from one rotation to the next that may be asked for.
pub const SHORTEST_INTERVAL: SignedDuration = SignedDuration::from_hours(1);
/// The longest.
pub const LONGEST_INTERVAL: SignedDuration = SignedDuration::from_hours(10 * 366 * 24);

/// What few keys have: apart from the record, because there are many keys in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extras {
    /// The first moment at which the key no longer works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Where it may be used from; empty means anywhere.
    #[serde(default, skip_serializing_if = "<[IpNet]>::is_empty")]
    pub addresses: Box<[IpNet]>,
    /// The whole token of a publishable key, which is public and can be shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_token: Option<Box<str>>,
    /// What people noted about the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Box<str>>,
    /// How often its secret should be replaced, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_every_secs: Option<u32>,
    /// When and why it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocation>,
    /// When one of its secrets was seen where others may have read it, where that does not kill it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flagged_at: Option<Timestamp>,
    /// Which of its secrets those were.
    #[serde(default, skip_serializing_if = "<[Selector]>::is_empty")]
    pub flagged: Box<[Selector]>,
    /// The reminder that was given last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reminded: Option<Reminder>,
}

/// Somebody should replace a key's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reminder {
    /// When at the latest.
    pub due_at: Timestamp,
    /// Whether that has passed.
    pub overdue: bool,
}

/// Why a key is dead for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Since when.
    pub at: Timestamp,
    /// What people said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
}

/// What is to be changed of a key. What is `None` stays; an inner `None` takes away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyUpdate {
    /// What people call it.
    pub name: Option<String>,
    /// What people note about it: up to 1,000 characters.
    pub note: Option<Option<String>>,
    /// What a restricted key is granted.
    pub scopes: Option<Vec<Scope>>,
    /// Where it may be used from; empty means anywhere.
    pub addresses: Option<Vec<IpNet>>,
    /// When it stops working.
    pub expires_at: Option<Option<Timestamp>>,
    /// How often its secret should be replaced.
    pub rotate_every: Option<Option<SignedDuration>>,
}

fn listed(items: impl IntoIterator<Item = impl ToString>) -> String {
    let texts: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    texts.join(", ")
}

impl Key {
    /// Changes what few keys have.
    pub(crate) fn change_extras(&mut self, change: impl FnOnce(&mut Extras)) {
        change(self.extras.get_or_insert_default());
        if self.extras.as_deref() == Some(&Extras::default()) {
            self.extras = None;
        }
    }

    /// The first moment at which it no longer works.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.extras.as_ref()?.expires_at
    }

    /// Where it may be used from; empty means anywhere.
    pub fn addresses(&self) -> &[IpNet] {
        self.extras.as_ref().map(|extras| &*extras.addresses).unwrap_or_default()
    }

    /// The whole token of a publishable key, which is public and can be shown again.
    pub fn public_token(&self) -> Option<&str> {
        self.extras.as_ref()?.public_token.as_deref()
    }

    /// What people noted about it.
    pub fn note(&self) -> Option<&str> {
        self.extras.as_ref()?.note.as_deref()
    }

    /// Keeps the token that proves a publishable key, which is public: call it whenever the secret is a new one.
    pub fn keep_public(&mut self, mint: &Mint) {
        let token = (self.kind == Kind::Publishable).then(|| mint.expose().into());
        self.change_extras(|extras| extras.public_token = token);
    }

    /// How often its secret should be replaced.
    pub fn rotate_every(&self) -> Option<SignedDuration> {
        self.extras.as_ref()?.rotate_every_secs.map(|seconds| SignedDuration::from_secs(seconds.into()))
    }

    /// When its secret should be replaced at the latest.
    pub fn rotation_due_at(&self) -> Option<Timestamp> {
        self.secret.created_at.time().checked_add(self.rotate_every()?).ok()
    }

    /// Whether it works, or may work again once somebody switches it on.
    pub fn is_living(&self, now: Timestamp) -> bool {
        matches!(self.status(&self.secret, now), Status::Good | Status::Disabled)
    }

    /// The reminder that is to be given at `now`, when people want to know `ahead` of the time: one before it and one
    /// after it, for each secret.
    pub fn reminder(&self, ahead: SignedDuration, now: Timestamp) -> Option<Reminder> {
        let due_at = self.rotation_due_at()?;
        let is_near = due_at <= now.checked_add(ahead).unwrap_or(Timestamp::MAX);
        let reminder = Reminder { due_at, overdue: due_at <= now };
        let given = self.extras.as_ref().and_then(|extras| extras.reminded);
        // Clocks are set back, too: who was told that it is overdue need not hear that it will be.
        let is_given = given.is_some_and(|given| given.due_at == due_at && given.overdue >= reminder.overdue);
        (is_near && !is_given && self.is_living(now)).then_some(reminder)
    }

    /// When and why it was revoked.
    pub fn revocation(&self) -> Option<&Revocation> {
        self.extras.as_ref()?.revoked.as_ref()
    }

    /// When a secret that works at `now` was seen where others may have read it, where that did not kill it.
    pub fn flagged_at(&self, now: Timestamp) -> Option<Timestamp> {
        let extras = self.extras.as_ref()?;
        let retiring = self.retiring.as_deref().filter(|retiring| retiring.ends_at > now);
        let mut working = std::iter::once(&self.secret).chain(retiring.map(|retiring| &retiring.secret));
        extras.flagged_at.filter(|_| working.any(|secret| self.is_flagged(&secret.selector)))
    }

    /// Whether the secret that this selector finds was seen where others may have read it, and that did not kill it.
    pub fn is_flagged(&self, selector: &Selector) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.flagged.contains(selector))
    }

    /// What people chose of it and may change: fields and what is in them, for people to read; nothing where there is nothing.
    pub fn chosen(&self) -> [(&'static str, String); 6] {
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
        [
            ("name", self.name.to_string()),
            ("note", self.note().unwrap_or_default().to_owned()),
            ("scopes", listed(self.scopes.iter())),
            ("addresses", listed(self.addresses())),
            ("expires_at", time(self.expires_at())),
            ("rotate_every", self.rotate_every().map(written).unwrap_or_default()),
        ]
    }

    /// Makes the changes, all or none.
    ///
    /// # Errors
    /// [`KeyError`] naming the field that cannot be as asked; nothing was changed then.
    pub fn update(&mut self, update: KeyUpdate, now: Timestamp) -> Result<(), KeyError> {
        if self.state == State::Revoked {
            return Err(KeyError::Revoked);
        }
        let before = self.clone();
        if let Some(name) = update.name {
            self.name = if is_presentable(&name) { name.into() } else { return self.undo(before, KeyError::Name) };
        }
        if let Some(note) = update.note {
            let note = note.filter(|note| !note.is_empty());
            if !note.as_deref().is_none_or(is_writable) {
                return self.undo(before, KeyError::Note);
            }
            // People paste tokens into free text, and the store is to hold none.
            self.change_extras(|extras| extras.note = note.map(|note| masked(&note).into()));
        }
        if let Some(mut scopes) = update.scopes {
            match (self.kind, scopes.is_empty()) {
                (Kind::Restricted, true) => return self.undo(before, KeyError::NoScopes),
                (Kind::Publishable | Kind::Secret, false) => {
                    let error = KeyError::ScopesNotTaken(self.kind);
                    return self.undo(before, error);
                }
                _ => {}
            }
            scopes.sort();
            scopes.dedup();
            self.scopes = scopes.into();
        }
        if let Some(addresses) = update.addresses {
            if addresses.len() > MOST_ADDRESSES {
                return self.undo(before, KeyError::Addresses);
            }
            self.change_extras(|extras| extras.addresses = addresses.into());
        }
        if let Some(expires_at) = update.expires_at {
            if let Some(past) = expires_at.filter(|at| *at <= now) {
                return self.undo(before, KeyError::ExpiresInThePast(past));
            }
            self.change_extras(|extras| extras.expires_at = expires_at);
        }
        if let Some(rotate_every) = update.rotate_every {
            match rotate_every.map(interval).transpose() {
                Ok(seconds) => self.change_extras(|extras| extras.rotate_every_secs = seconds),
                Err(error) => return self.undo(before, error),
            }
        }
        Ok(())
    }

    fn undo(&mut self, before: Self, error: KeyError) -> Result<(), KeyError> {
        *self = before;
        Err(error)
    }

    /// Switches the key off, or on again; whether that changed anything.
    ///
    /// # Errors
    /// [`KeyError::Revoked`] for a revoked key.
    pub fn switch(&mut self, on: bool) -> Result<bool, KeyError> {
        let wanted = if on { State::Active } else { State::Disabled };
        match self.state {
            State::Revoked => Err(KeyError::Revoked),
            state if state == wanted => Ok(false),
            _ => {
                self.state = wanted;
                Ok(true)
            }
        }
    }

    /// Kills the key for good, with a reason of up to 1,000 characters; whether that changed anything.
    ///
    /// # Errors
    /// [`KeyError::Reason`]; nothing was changed then.
    pub fn revoke_because(&mut self, reason: Option<&str>, now: Timestamp) -> Result<bool, KeyError> {
        let reason = reason.filter(|reason| !reason.is_empty());
        if !reason.is_none_or(is_writable) {
            return Err(KeyError::Reason);
        }
        if self.state == State::Revoked {
            return Ok(false);
        }
        self.revoke();
        let revocation = Revocation { at: now, reason: reason.map(|reason| masked(reason).into()) };
        self.change_extras(|extras| extras.revoked = Some(revocation));
        Ok(true)
    }

    /// Marks every secret of the key as exposed, for good; whether that changed anything.
    ///
    /// # Errors
    /// [`KeyError::Public`] for a publishable key.
    pub fn compromise_all(&mut self, now: Timestamp) -> Result<bool, KeyError> {
        if self.kind == Kind::Publishable {
            return Err(KeyError::Public);
        }
        let selectors: Vec<_> = self.secrets().map(|secret| secret.selector).collect();
        // Each of them, not just the first.
        Ok(selectors.iter().filter(|selector| self.compromise(selector, now)).count() > 0)
    }

    /// Notes that the secret that `selector` finds was exposed, and lets it go on working; whether this is the first time.
    pub fn flag(&mut self, selector: &Selector, now: Timestamp) -> bool {
        let is_public = self.kind == Kind::Publishable;
        let is_first = !is_public && self.secret(selector).is_some() && !self.is_flagged(selector);
        if is_first {
            self.change_extras(|extras| {
                extras.flagged_at = Some(now);
                extras.flagged = extras.flagged.iter().chain([selector]).copied().collect();
            });
        }
        is_first
    }

    /// Forgets flags of secrets that are gone.
    pub(super) fn forget_flags(&mut self) {
        let held: Vec<Selector> = self.secrets().map(|secret| secret.selector).collect();
        self.change_extras(|extras| {
            extras.flagged = extras.flagged.iter().filter(|flagged| held.contains(flagged)).copied().collect();
            extras.flagged_at = extras.flagged_at.filter(|_| !extras.flagged.is_empty());
        });
    }
}

/// An interval of rotation in seconds.
pub(super) fn interval(interval: SignedDuration) -> Result<u32, KeyError> {
    if !(SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&interval) {
        return Err(KeyError::Interval);
    }
    u32::try_from(interval.as_secs()).map_err(|_| KeyError::Interval)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Account, AccountId, KeyId, Mode, NewKey, Phc, StoredSecret};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn changed(key: &mut Key, update: KeyUpdate) -> Vec<&'static str> {
        let before = key.chosen();
        key.update(update, at(1)).unwrap();
        let both = before.iter().zip(key.chosen());
        both.filter(|(before, after)| **before != *after).map(|((field, _), _)| *field).collect()
    }

    fn key(kind: Kind) -> Key {
        let account = Account::create(AccountId::random().unwrap(), "Vexart", at(0)).unwrap();
        let scopes = if kind == Kind::Restricted { vec!["resources:read".into()] } else { vec![] };
        let new = NewKey { scopes, ..NewKey::named(kind, Mode::Live, "worker") };
        let mint = Mint::new(kind, Mode::Live).unwrap();
        let secret = StoredSecret::new(&mint, Phc::none(), at(0));
        Key::create(account.id, new, KeyId::random().unwrap(), secret, at(0)).unwrap()
    }

    #[test]
    fn an_update_names_what_it_changed_and_leaves_the_rest() {
        let mut key = key(Kind::Restricted);
        let update = KeyUpdate {
            name: Some("reader".into()),
            note: Some(Some("analytics\nsecond line".into())),
            scopes: Some(vec!["resources:read".into()]),
            rotate_every: Some(Some(SignedDuration::from_hours(24 * 90))),
            ..KeyUpdate::default()
        };
        assert_eq!(changed(&mut key, update.clone()), ["name", "note", "rotate_every"]);
        assert_eq!(changed(&mut key, update), [""; 0]);
        assert_eq!(key.rotation_due_at(), Some(at(90 * 24 * 3600)));
        let clear = KeyUpdate { note: Some(None), rotate_every: Some(None), ..KeyUpdate::default() };
        assert_eq!(changed(&mut key, clear), ["note", "rotate_every"]);
        assert_eq!(key.extras, None);
    }

    #[test]
    fn an_update_that_is_wrong_in_one_field_changes_none() {
        let hour = SignedDuration::from_hours(1);
        let cases = [
            (Kind::Secret, KeyUpdate { name: Some(String::new()), ..KeyUpdate::default() }, KeyError::Name),
            (Kind::Secret, KeyUpdate { note: Some(Some("\u{7}".into())), ..KeyUpdate::default() }, KeyError::Note),
            (Kind::Secret, KeyUpdate { note: Some(Some("x".repeat(1_001))), ..KeyUpdate::default() }, KeyError::Note),
            (Kind::Restricted, KeyUpdate { scopes: Some(vec![]), ..KeyUpdate::default() }, KeyError::NoScopes),
            (
                Kind::Secret,
                KeyUpdate { scopes: Some(vec!["a".into()]), ..KeyUpdate::default() },
                KeyError::ScopesNotTaken(Kind::Secret),
            ),
            (
                Kind::Secret,
                KeyUpdate { expires_at: Some(Some(at(5))), ..KeyUpdate::default() },
                KeyError::ExpiresInThePast(at(5)),
            ),
            (
                Kind::Secret,
                KeyUpdate { rotate_every: Some(Some(hour - SignedDuration::from_secs(1))), ..KeyUpdate::default() },
                KeyError::Interval,
            ),
        ];
        for (kind, update, expected) in cases {
            let mut key = key(kind);
            let before = key.clone();
            let update = KeyUpdate { addresses: Some(vec!["192.0.2.0/24".parse().unwrap()]), ..update };
            assert_eq!(key.update(update, at(5)).unwrap_err(), expected);
            assert_eq!(key, before);
        }
    }

    #[test]
    fn a_key_is_switched_off_and_on_until_it_is_revoked() {
        let mut key = key(Kind::Secret);
        assert_eq!((key.switch(false), key.switch(false), key.switch(true)), (Ok(true), Ok(false), Ok(true)));
        assert_eq!(key.revoke_because(Some("left the team"), at(7)), Ok(true));
        assert_eq!(key.revoke_because(Some("again"), at(8)), Ok(false));
        assert_eq!(key.revocation().unwrap().reason.as_deref(), Some("left the team"));
        assert_eq!(key.switch(true), Err(KeyError::Revoked));
        assert_eq!(key.update(KeyUpdate::default(), at(8)), Err(KeyError::Revoked));
    }

    #[test]
    fn a_compromise_by_hand_is_of_both_secrets_and_never_of_a_public_key() {
        let mut key = key(Kind::Secret);
        let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
        key.rotate(StoredSecret::new(&mint, Phc::none(), at(0)), LONGEST_OVERLAP, at(0)).unwrap();
        assert_eq!(key.compromise_all(at(1)), Ok(true));
        assert!(key.secrets().all(|secret| key.status(secret, at(2)) == Status::Compromised));
        assert_eq!(key.compromise_all(at(1)), Ok(false));
        assert_eq!(self::key(Kind::Publishable).compromise_all(at(1)), Err(KeyError::Public));
    }

    #[test]
    fn a_reminder_is_given_once_before_the_time_and_once_after_it_for_each_secret() {
        let day = SignedDuration::from_hours(24);
        let on = |day: i64| at(day * 24 * 3600);
        let mut key = key(Kind::Secret);
        assert_eq!(key.reminder(day * 7, on(1_000)), None);
        key.update(KeyUpdate { rotate_every: Some(Some(day * 30)), ..KeyUpdate::default() }, at(0)).unwrap();
        let told = |key: &mut Key, now| {
            let reminder = key.reminder(day * 7, now);
            key.change_extras(|extras| extras.reminded = reminder.or(extras.reminded));
            reminder.map(|reminder| (reminder.due_at, reminder.overdue))
        };
        for (now, expected) in [(22, None), (23, Some(false)), (24, None), (30, Some(true)), (31, None), (29, None)] {
            let expected = expected.map(|overdue| (on(30), overdue));
            assert_eq!(told(&mut key, on(now)), expected, "on day {now}");
        }
        let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
        key.rotate(StoredSecret::new(&mint, Phc::none(), on(31)), SignedDuration::ZERO, on(31)).unwrap();
        assert_eq!(told(&mut key, on(32)), None);
        assert_eq!(told(&mut key, on(70)), Some((on(61), true)));
        key.revoke();
        assert_eq!(key.reminder(day * 7, on(1_000)), None);
    }

    #[test]
    fn a_flagged_key_goes_on_working_and_each_of_its_secrets_is_flagged_once() {
        let mut key = key(Kind::Secret);
        let old = key.secret.selector;
        assert!(key.flag(&old, at(1)));
        assert!(!key.flag(&old, at(2)));
        assert_eq!((key.flagged_at(at(3)), key.status(&key.secret, at(3))), (Some(at(1)), Status::Good));
        let rotate = |key: &mut Key, overlap, now| {
            let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
            let secret = StoredSecret::new(&mint, Phc::none(), at(now));
            key.rotate(secret, SignedDuration::from_secs(overlap), at(now)).unwrap();
        };
        // The new secret was seen by nobody; the old one is flagged for as long as it works.
        rotate(&mut key, 10, 10);
        assert!(!key.flag(&old, at(11)));
        assert_eq!((key.flagged_at(at(19)), key.flagged_at(at(20))), (Some(at(1)), None));
        let new = key.secret.selector;
        assert!(key.flag(&new, at(21)));
        assert_eq!(key.flagged_at(at(22)), Some(at(21)));
        rotate(&mut key, 0, 30);
        assert_eq!((key.flagged_at(at(31)), &key.extras), (None, &None));
        let mut public = self::key(Kind::Publishable);
        let selector = public.secret.selector;
        assert!(!public.flag(&selector, at(1)));
    }
}
