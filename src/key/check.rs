//! Whether a key's record could have been made here: what comes from a file is held against what keys go through.
//!
//! A record that no operation leads to is a mistake or an attack: a secret shown as if it were public, an overlap that
//! never ends. What older versions wrote passes.

use jiff::{SignedDuration, Timestamp};

use super::change::interval;
use super::record::{MOST_ADDRESSES, is_presentable, is_writable};
use super::{Key, KeyError, Kind, LONGEST_OVERLAP, Secret, State, StoredSecret, Token};

/// How far the clocks of two installations may be apart.
const APART: SignedDuration = SignedDuration::from_hours(1);

/// What is said of such a time.
pub(crate) const AHEAD: &str = "is in the future; look at the clocks of both machines";

/// Whether a time that has come somewhere else is too far ahead to have come.
pub(crate) fn is_ahead(time: Timestamp, now: Timestamp) -> bool {
    now.checked_add(APART).is_ok_and(|latest| time > latest)
}

impl Key {
    /// Refuses a record that could not have been made here.
    ///
    /// # Errors
    /// [`KeyError`] naming the field that cannot be as it is.
    pub fn check(&self, now: Timestamp) -> Result<(), KeyError> {
        if !is_presentable(&self.name) {
            return Err(KeyError::Name);
        }
        match (self.kind, self.scopes.is_empty()) {
            (Kind::Restricted, true) => return Err(KeyError::NoScopes),
            (Kind::Publishable | Kind::Secret, false) => return Err(KeyError::ScopesNotTaken(self.kind)),
            _ => {}
        }
        if self.addresses().len() > MOST_ADDRESSES {
            return Err(KeyError::Addresses);
        }
        if !self.note().is_none_or(is_writable) {
            return Err(KeyError::Note);
        }
        let reason = self.revocation().and_then(|revocation| revocation.reason.as_deref());
        if !reason.is_none_or(is_writable) {
            return Err(KeyError::Reason);
        }
        self.rotate_every().map(interval).transpose()?;
        let faults = [
            self.fault_of_times(now),
            self.fault_of_overlap(),
            self.fault_of_public_token(),
            self.fault_of_marks(),
            self.secrets().find_map(StoredSecret::fault),
        ];
        match faults.into_iter().flatten().next() {
            Some((field, why)) => Err(KeyError::NotOfHere(field, why)),
            None => Ok(()),
        }
    }

    fn fault_of_times(&self, now: Timestamp) -> Option<Fault> {
        let secrets = self.secrets().map(|secret| ("secret.created_at", Some(secret.created_at.time())));
        let marks = self.secrets().map(|secret| ("secret.compromised_at", secret.compromised_at.map(Into::into)));
        let once = [
            ("created_at", Some(self.created_at.time())),
            ("extras.revoked.at", self.revocation().map(|revocation| revocation.at)),
            ("extras.flagged_at", self.extras.as_ref().and_then(|extras| extras.flagged_at)),
        ];
        let mut times = once.into_iter().chain(secrets).chain(marks);
        let ahead = times.find(|(_, time)| time.is_some_and(|time| is_ahead(time, now)));
        ahead.map(|(field, _)| (field, AHEAD))
    }

    /// The secret before goes when a new one comes, or at most 7 days later.
    fn fault_of_overlap(&self) -> Option<Fault> {
        let retiring = self.retiring.as_deref()?;
        if retiring.secret.selector == self.secret.selector {
            return Some(("retiring.selector", "is that of the current secret"));
        }
        let latest = self.secret.created_at.time().checked_add(LONGEST_OVERLAP + APART);
        let is_too_late = latest.is_ok_and(|latest| retiring.ends_at > latest);
        is_too_late.then_some(("retiring.ends_at", "is more than 7d after the current secret was made"))
    }

    /// What is shown to everybody who may look at the key is its own token, of a kind that is public.
    fn fault_of_public_token(&self) -> Option<Fault> {
        const FIELD: &str = "extras.public_token";
        let text = self.public_token()?;
        if self.kind != Kind::Publishable {
            return Some((FIELD, "only a publishable key has one"));
        }
        let Ok(token) = Token::parse(text.as_bytes()) else { return Some((FIELD, "is no token")) };
        if (token.kind, token.mode) != (self.kind, self.mode) {
            return Some((FIELD, "is of another kind or mode"));
        }
        let is_own = token.selector == self.secret.selector && Secret::of(&token).screen() == self.secret.screen;
        (!is_own).then_some((FIELD, "is not that of the current secret"))
    }

    fn fault_of_marks(&self) -> Option<Fault> {
        if self.revocation().is_some() && self.state != State::Revoked {
            return Some(("state", "a revoked key stays revoked"));
        }
        let is_public = self.kind == Kind::Publishable;
        if is_public && self.secrets().any(|secret| secret.compromised_at.is_some()) {
            return Some(("secret.compromised_at", "a publishable key cannot be compromised"));
        }
        let extras = self.extras.as_deref()?;
        let is_flagged = extras.flagged_at.is_some() || !extras.flagged.is_empty();
        let is_strange = extras.flagged.iter().any(|flagged| self.secret(flagged).is_none());
        (is_strange || is_public && is_flagged)
            .then_some(("extras.flagged", "names a secret that the key has not, or one that is public"))
    }
}

/// The field that cannot be as it is, and why.
pub(super) type Fault = (&'static str, &'static str);

impl StoredSecret {
    fn fault(&self) -> Option<Fault> {
        if self.phc.is_foreign() && self.last_four.is_some() {
            return Some(("secret.last_four", "is not known of a token that another system issued"));
        }
        (!self.finds_its_token())
            .then_some(("secret.phc", "does not belong to its selector, or begins as no token does"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::{
        AccountId, Ceiling, Cost, Extras, KeyId, KeyUpdate, Mint, Mode, NewKey, Phc, Reminder, Retiring, Revocation,
    };

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn secret(kind: Kind, mode: Mode, now: Timestamp) -> (Mint, StoredSecret) {
        let mint = Mint::new(kind, mode).unwrap();
        let secret = StoredSecret::new(&mint, Phc::none(), now);
        (mint, secret)
    }

    fn foreign(by_start: bool, now: Timestamp) -> StoredSecret {
        let digest = KeyId::random().unwrap().as_bytes().repeat(2);
        if by_start {
            let phc: String = Phc::of(&digest, Cost { memory_kib: 8, iterations: 1, parallelism: 1 }).unwrap().into();
            return StoredSecret::of_foreign_phc("acme_live_", &phc, Ceiling::default(), now).unwrap();
        }
        StoredSecret::of_foreign_digest(&crate::key::secret::hex(&digest), now).unwrap()
    }

    fn key(kind: Kind, mode: Mode, now: Timestamp) -> Key {
        let scopes = if kind == Kind::Restricted { vec!["resources:read".into()] } else { vec![] };
        let new = NewKey { scopes, ..NewKey::named(kind, mode, "worker") };
        let (mint, secret) = secret(kind, mode, now);
        let mut key = Key::create(AccountId::random().unwrap(), new, KeyId::random().unwrap(), secret, now).unwrap();
        key.keep_public(&mint);
        key
    }

    /// What may happen to a key.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Update(Option<u32>, Option<u32>, bool),
        Rotate(u32),
        Switch(bool),
        Revoke(bool),
        Compromise(bool),
        Flag(bool),
        Remind,
    }

    fn steps() -> impl Strategy<Value = Vec<(u32, Step)>> {
        let step = prop_oneof![
            (any::<Option<u32>>(), any::<Option<u32>>(), any::<bool>()).prop_map(|(a, b, c)| Step::Update(a, b, c)),
            (0..8 * 86_400_u32).prop_map(Step::Rotate),
            any::<bool>().prop_map(Step::Switch),
            any::<bool>().prop_map(Step::Revoke),
            any::<bool>().prop_map(Step::Compromise),
            any::<bool>().prop_map(Step::Flag),
            Just(Step::Remind),
        ];
        prop::collection::vec((0..1_000_000_u32, step), 0..20)
    }

    fn take(key: &mut Key, step: Step, now: Timestamp) {
        // What is refused leaves the key as it was.
        match step {
            Step::Update(every, end, restricts) => {
                let update = KeyUpdate {
                    rotate_every: Some(every.map(|every| SignedDuration::from_secs(every.into()))),
                    expires_at: Some(end.map(|end| now + SignedDuration::from_secs(end.into()))),
                    addresses: restricts.then(|| vec!["192.0.2.0/24".parse().unwrap()]),
                    note: Some(restricts.then(|| "noted".into())),
                    ..KeyUpdate::default()
                };
                let _ = key.update(update, now);
            }
            Step::Rotate(overlap) => {
                let (mint, secret) = secret(key.kind, key.mode, now);
                if key.rotate(secret, SignedDuration::from_secs(overlap.into()), now).is_ok() {
                    key.keep_public(&mint);
                }
            }
            Step::Switch(on) => {
                let _ = key.switch(on);
            }
            Step::Revoke(says_why) => {
                let _ = key.revoke_because(says_why.then_some("left"), now);
            }
            Step::Compromise(all) => {
                let selector = key.secret.selector;
                let _ = if all { key.compromise_all(now) } else { Ok(key.compromise(&selector, now)) };
            }
            Step::Flag(old) => {
                let selector = key.secrets().nth(usize::from(old)).unwrap_or(&key.secret).selector;
                key.flag(&selector, now);
            }
            Step::Remind => {
                let given: Option<Reminder> = key.reminder(HOUR, now);
                key.change_extras(|extras| extras.reminded = given.or(extras.reminded));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_happens_to_a_key_its_record_could_have_been_made_here(
            kind in prop::sample::select(vec![Kind::Publishable, Kind::Secret, Kind::Restricted]),
            mode in prop::sample::select(vec![Mode::Live, Mode::Test]),
            moved in prop::option::of(any::<bool>()),
            steps in steps(),
        ) {
            let mut now = at(1_700_000_000);
            let mut key = key(kind, mode, now);
            if let Some(by_start) = moved {
                key.secret = foreign(by_start, at(1));
                key.extras = None;
            }
            prop_assert_eq!(key.check(now), Ok(()));
            for (seconds, step) in steps {
                now += SignedDuration::from_secs(seconds.into());
                take(&mut key, step, now);
                prop_assert_eq!(key.check(now), Ok(()));
                // On a machine whose clock is behind, too.
                prop_assert_eq!(key.check(now - HOUR), Ok(()));
            }
            let written = serde_json::to_string(&key).unwrap();
            prop_assert_eq!(serde_json::from_str::<Key>(&written).unwrap().check(now), Ok(()));
        }
    }

    #[test]
    fn what_could_not_have_been_made_here_is_refused_with_its_field() {
        let now = at(1_700_000_000);
        let later = now + SignedDuration::from_hours(2);
        let spoil = |field: &str, kind, spoil: &dyn Fn(&mut Key)| {
            let mut key = key(kind, Mode::Live, now);
            assert_eq!(key.check(now), Ok(()), "{field}");
            spoil(&mut key);
            assert_eq!(key.check(now).unwrap_err().field(), Some(field), "{field}");
        };
        let extras = |change: &'static dyn Fn(&mut Extras)| move |key: &mut Key| key.change_extras(change);
        let token = |kind, mode| Some(Mint::new(kind, mode).unwrap().expose().into());
        spoil("extras.public_token", Kind::Secret, &|key| {
            key.change_extras(|extras| extras.public_token = token(Kind::Secret, Mode::Live));
        });
        for (kind, mode) in
            [(Kind::Secret, Mode::Live), (Kind::Publishable, Mode::Test), (Kind::Publishable, Mode::Live)]
        {
            spoil("extras.public_token", Kind::Publishable, &|key| {
                key.change_extras(|extras| extras.public_token = token(kind, mode));
            });
        }
        spoil(
            "extras.public_token",
            Kind::Publishable,
            &extras(&|extras| extras.public_token = Some("pk_live_1".into())),
        );
        spoil("extras.public_token", Kind::Publishable, &|key| {
            // The right selector, and a secret that nobody knows: found by whoever looks, and by nobody who calls.
            key.secret.screen = crate::key::Screen::none();
        });
        spoil("rotate_every", Kind::Secret, &extras(&|extras| extras.rotate_every_secs = Some(1)));
        spoil("created_at", Kind::Secret, &|key| key.created_at = later.into());
        spoil("secret.created_at", Kind::Secret, &|key| key.secret.created_at = later.into());
        spoil("secret.compromised_at", Kind::Secret, &|key| key.secret.compromised_at = Some(later.into()));
        spoil("secret.compromised_at", Kind::Publishable, &|key| key.secret.compromised_at = Some(now.into()));
        let retiring = |days: i64, key: &mut Key| {
            let (_, secret) = secret(Kind::Secret, Mode::Live, now);
            let ends_at = now + SignedDuration::from_hours(24 * days);
            key.retiring = Some(Box::new(Retiring { secret, ends_at }));
        };
        spoil("retiring.ends_at", Kind::Secret, &|key| retiring(8, key));
        spoil("retiring.selector", Kind::Secret, &|key| {
            retiring(7, key);
            key.retiring.as_mut().unwrap().secret.selector = key.secret.selector;
        });
        spoil("state", Kind::Secret, &|key| {
            let revocation = Revocation { at: now, reason: None };
            key.change_extras(|extras| extras.revoked = Some(revocation));
        });
        spoil("extras.revoked.at", Kind::Secret, &|key| {
            key.revoke_because(None, later).unwrap();
        });
        spoil("extras.flagged_at", Kind::Secret, &|key| {
            let selector = key.secret.selector;
            key.flag(&selector, later);
        });
        spoil("extras.flagged", Kind::Secret, &|key| {
            let (_, other) = secret(Kind::Secret, Mode::Live, now);
            key.change_extras(|extras| extras.flagged = [other.selector].into());
        });
        spoil("secret.last_four", Kind::Secret, &|key| {
            let last_four = key.secret.last_four;
            key.secret = StoredSecret { last_four, ..foreign(false, now) };
        });
        spoil("secret.phc", Kind::Secret, &|key| {
            key.secret = StoredSecret { phc: foreign(false, now).phc, ..foreign(false, now) };
        });
        spoil("secret.phc", Kind::Secret, &|key| {
            key.secret = foreign(true, now);
            key.secret.phc = String::from(key.secret.phc.clone()).replace("acme_live_", "a").into();
        });
    }

    #[test]
    fn what_was_made_before_all_of_it_was_kept_passes() {
        let now = at(1_700_000_000);
        let mut old = key(Kind::Publishable, Mode::Live, now);
        old.secret.last_four = None;
        old.extras = None;
        assert_eq!(old.check(now), Ok(()));
        let mut old = key(Kind::Secret, Mode::Live, now);
        // Without the time and the reason, and flagged without saying which of the secrets.
        old.revoke();
        old.change_extras(|extras| extras.flagged_at = Some(now));
        assert_eq!(old.check(now), Ok(()));
    }
}
