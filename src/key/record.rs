//! A key: its record, and what may happen to it in its life.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    AccountId, EnvironmentId, Extras, KeyError, KeyId, KeyUpdate, Kind, LONGEST_OVERLAP, LastFour, Mint, Mode, Moment,
    NewKey, Phc, STARTS, Scope, Screen, Selector, State, Status,
};

/// Networks that a key may list.
pub(super) const MOST_ADDRESSES: usize = 100;

/// Characters of a selector that people see.
const SHOWN: usize = 6;

/// What the store keeps of one secret. The secret itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSecret {
    /// Finds this record.
    pub selector: Selector,
    /// The Argon2id hash.
    pub phc: Phc,
    /// Turns wrong secrets away before Argon2.
    pub screen: Screen,
    /// When it was made.
    pub created_at: Moment,
    /// Since when it is known to be exposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compromised_at: Option<Moment>,
    /// How its token ends; not known of tokens from elsewhere, and of those that were made before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_four: Option<LastFour>,
}

impl StoredSecret {
    /// What to keep of a new token whose secret hashed to `phc`.
    pub fn new(mint: &Mint, phc: Phc, now: Timestamp) -> Self {
        Self {
            selector: mint.selector(),
            phc,
            screen: mint.secret().screen(),
            created_at: now.into(),
            compromised_at: None,
            last_four: mint.last_four(),
        }
    }

    /// What turns most wrong secrets away unchecked; another system's Argon2id hash comes without.
    pub fn known_screen(&self) -> Option<Screen> {
        self.phc.foreign_start().is_none().then_some(self.screen)
    }
}

/// A secret that is being rotated out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retiring {
    /// The secret.
    #[serde(flatten)]
    pub secret: StoredSecret,
    /// The first moment at which it no longer works.
    pub ends_at: Timestamp,
}

/// A key as it is stored. A record with a field that is not known is not read: it may be one that takes something away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Its identity, for good.
    pub id: KeyId,
    /// Whose key it is.
    pub account: AccountId,
    /// What it is for.
    pub kind: Kind,
    /// Which environment it belongs to.
    pub mode: Mode,
    /// What people call it.
    pub name: Box<str>,
    /// What a restricted key was granted; empty for other kinds.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub scopes: Arc<[Scope]>,
    /// Whether people let it work.
    pub state: State,
    /// When it was made.
    pub created_at: Moment,
    /// The secret that proves it.
    pub secret: StoredSecret,
    /// The secret before, until its overlap ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retiring: Option<Box<Retiring>>,
    /// What few keys have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extras: Option<Box<Extras>>,
}

fn is_empty(scopes: &Arc<[Scope]>) -> bool {
    scopes.is_empty()
}

/// Whether a name can be shown anywhere: 1 to 200 characters, none of them a control character.
pub(crate) fn is_presentable(name: &str) -> bool {
    (1..=200).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

/// Whether a longer text can be shown: up to 1,000 characters, of control characters line breaks and tabs alone.
pub(super) fn is_writable(text: &str) -> bool {
    text.chars().count() <= 1_000
        && !text.chars().any(|character| character.is_control() && !"\n\t".contains(character))
}

impl Key {
    /// A good key that is in no store and that no token proves, to find out what calls with it come to. Whether there can
    /// be such a key is not asked.
    pub fn supposed(
        account: AccountId,
        id: KeyId,
        (kind, mode): (Kind, Mode),
        scopes: Arc<[Scope]>,
        selector: Selector,
        created_at: Moment,
    ) -> Self {
        let (phc, screen) = (Phc::none(), Screen::none());
        Self {
            id,
            account,
            kind,
            mode,
            name: "supposed".into(),
            scopes,
            state: State::Active,
            created_at,
            secret: StoredSecret { selector, phc, screen, created_at, compromised_at: None, last_four: None },
            retiring: None,
            extras: None,
        }
    }

    /// A new, active key of `account`, proven by `secret`.
    ///
    /// # Errors
    /// [`KeyError`] naming the field that cannot be as asked.
    pub fn create(
        account: AccountId,
        new: NewKey,
        id: KeyId,
        secret: StoredSecret,
        now: Timestamp,
    ) -> Result<Self, KeyError> {
        let mut scopes = new.scopes;
        scopes.sort();
        scopes.dedup();
        let mut key = Self {
            id,
            account,
            kind: new.kind,
            mode: new.mode,
            name: new.name.into(),
            scopes: scopes.into(),
            state: State::Active,
            created_at: now.into(),
            secret,
            retiring: None,
            extras: None,
        };
        let extras = KeyUpdate {
            addresses: Some(new.addresses),
            expires_at: Some(new.expires_at),
            note: Some(new.note),
            rotate_every: Some(new.rotate_every),
            ..KeyUpdate::default()
        };
        key.update(extras, now)?;
        key.check(now)?;
        Ok(key)
    }

    /// The environment that it belongs to.
    pub fn environment(&self) -> EnvironmentId {
        EnvironmentId { account: self.account, mode: self.mode }
    }

    /// Its secrets: the current one, then the one being rotated out.
    pub fn secrets(&self) -> impl Iterator<Item = &StoredSecret> {
        std::iter::once(&self.secret).chain(self.retiring.as_deref().map(|retiring| &retiring.secret))
    }

    /// What the tokens of this secret begin with, as far as people may see it: the prefix and 6 characters of the selector;
    /// of a token from elsewhere the 8 characters that are known of each that has any.
    pub fn start_of(&self, secret: &StoredSecret) -> Option<String> {
        if secret.phc.is_foreign() {
            return secret.phc.foreign_start().and_then(|start| start.get(..*STARTS.start())).map(str::to_owned);
        }
        let selector = secret.selector.as_str().get(..SHOWN)?;
        Some(format!("{}_{}_{selector}", self.kind.prefix(), self.mode))
    }

    /// The secret that this selector finds.
    pub fn secret(&self, selector: &Selector) -> Option<&StoredSecret> {
        self.secrets().find(|secret| secret.selector == *selector)
    }

    /// How the key stands at `now`, when it was proven by `secret`. What is final is said first.
    pub fn status(&self, secret: &StoredSecret, now: Timestamp) -> Status {
        let passed = |end: Option<Timestamp>| end.is_some_and(|end| end <= now);
        let retiring = self.retiring.as_deref().filter(|retiring| retiring.secret.selector == secret.selector);
        match self.state {
            State::Revoked => Status::Revoked,
            _ if secret.compromised_at.is_some() => Status::Compromised,
            State::Disabled => Status::Disabled,
            State::Active if passed(self.expires_at()) || passed(retiring.map(|retiring| retiring.ends_at)) => {
                Status::Expired
            }
            State::Active => Status::Good,
        }
    }

    /// Until when the secret before works beside the current one, if it does at `now`, or would if the key were switched on.
    pub fn overlap(&self, now: Timestamp) -> Option<Timestamp> {
        let retiring = self.retiring.as_deref()?;
        let is_living = matches!(self.status(&retiring.secret, now), Status::Good | Status::Disabled);
        (is_living && retiring.ends_at > now).then_some(retiring.ends_at)
    }

    /// Whether the key may be used from this address. An unknown address is on no list.
    pub fn admits(&self, address: Option<IpAddr>) -> bool {
        // An IPv4 peer of a dual-stack socket is the same peer as over IPv4.
        self.addresses().is_empty()
            || address.is_some_and(|at| self.addresses().iter().any(|net| net.contains(&at.to_canonical())))
    }

    /// Kills the key for good. Revoking again changes nothing.
    pub fn revoke(&mut self) {
        self.state = State::Revoked;
    }

    /// Marks the secret that `selector` finds as exposed; `false` when that changes nothing, because the
    /// key is public by design, the secret is marked already, or it is not there any more.
    pub fn compromise(&mut self, selector: &Selector, now: Timestamp) -> bool {
        if self.kind == Kind::Publishable {
            return false;
        }
        let found = std::iter::once(&mut self.secret)
            .chain(self.retiring.as_deref_mut().map(|retiring| &mut retiring.secret))
            .find(|secret| secret.selector == *selector && secret.compromised_at.is_none());
        found.map(|secret| secret.compromised_at = Some(now.into())).is_some()
    }

    /// Puts a new secret in place; the one before works until `overlap` has passed, or the key's expiry,
    /// whichever is first. A rotation during an overlap ends that overlap at once.
    ///
    /// # Errors
    /// [`KeyError::Revoked`] for a revoked key, [`KeyError::Expired`] for one that no secret makes work, [`KeyError::Overlap`] for an overlap over [`LONGEST_OVERLAP`].
    pub fn rotate(&mut self, secret: StoredSecret, overlap: SignedDuration, now: Timestamp) -> Result<(), KeyError> {
        if self.state == State::Revoked {
            return Err(KeyError::Revoked);
        }
        if self.expires_at().is_some_and(|end| end <= now) {
            return Err(KeyError::Expired);
        }
        if overlap.is_negative() || overlap > LONGEST_OVERLAP {
            return Err(KeyError::Overlap);
        }
        let old = std::mem::replace(&mut self.secret, secret);
        let end = now.checked_add(overlap).unwrap_or(Timestamp::MAX);
        let ends_at = self.expires_at().map_or(end, |expiry| expiry.min(end));
        let is_kept = overlap > SignedDuration::ZERO && old.compromised_at.is_none();
        self.retiring = is_kept.then(|| Box::new(Retiring { secret: old, ends_at }));
        self.change_extras(|extras| extras.public_token = None);
        self.forget_flags();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Account, Cost};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn account() -> Account {
        Account::create(AccountId::random().unwrap(), "Vexart", at(0)).unwrap()
    }

    fn secret(kind: Kind) -> StoredSecret {
        let mint = Mint::new(kind, Mode::Live).unwrap();
        StoredSecret::new(&mint, mint.secret().hash(Cost::default()).unwrap(), at(0))
    }

    fn asked(kind: Kind) -> NewKey {
        let scopes = if kind == Kind::Restricted { vec!["resources:read".into()] } else { vec![] };
        NewKey { scopes, ..NewKey::named(kind, Mode::Live, "worker") }
    }

    fn key(kind: Kind) -> Key {
        Key::create(account().id, asked(kind), KeyId::random().unwrap(), secret(kind), at(0)).unwrap()
    }

    #[test]
    fn what_cannot_be_made_is_refused_with_the_field_named() {
        let cases = [
            (NewKey { name: String::new(), ..asked(Kind::Secret) }, KeyError::Name),
            (NewKey { name: "a\nb".into(), ..asked(Kind::Secret) }, KeyError::Name),
            (NewKey { name: "x".repeat(201), ..asked(Kind::Secret) }, KeyError::Name),
            (NewKey { scopes: vec![], ..asked(Kind::Restricted) }, KeyError::NoScopes),
            (NewKey { kind: Kind::Secret, ..asked(Kind::Restricted) }, KeyError::ScopesNotTaken(Kind::Secret)),
            (NewKey { expires_at: Some(at(0)), ..asked(Kind::Secret) }, KeyError::ExpiresInThePast(at(0))),
        ];
        for (new, expected) in cases {
            let id = KeyId::random().unwrap();
            assert_eq!(Key::create(account().id, new, id, secret(Kind::Secret), at(0)).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_key_expires_at_its_second() {
        let mut key = key(Kind::Secret);
        key.change_extras(|extras| extras.expires_at = Some(at(100)));
        assert_eq!(key.status(&key.secret, at(99)), Status::Good);
        assert_eq!(key.status(&key.secret, at(100)), Status::Expired);
    }

    #[test]
    fn a_final_state_is_said_before_a_passing_one() {
        let mut key = key(Kind::Secret);
        key.change_extras(|extras| extras.expires_at = Some(at(1)));
        key.state = State::Disabled;
        assert_eq!(key.status(&key.secret, at(5)), Status::Disabled);
        let selector = key.secret.selector;
        assert!(key.compromise(&selector, at(5)));
        assert_eq!(key.status(&key.secret, at(5)), Status::Compromised);
        key.revoke();
        assert_eq!(key.status(&key.secret, at(5)), Status::Revoked);
    }

    #[test]
    fn a_publishable_key_cannot_be_compromised() {
        let mut key = key(Kind::Publishable);
        let selector = key.secret.selector;
        assert!(!key.compromise(&selector, at(5)));
        assert_eq!(key.status(&key.secret, at(5)), Status::Good);
    }

    #[test]
    fn during_an_overlap_both_secrets_work_and_the_old_one_stops_at_its_second() {
        let mut key = key(Kind::Secret);
        let old = key.secret.selector;
        key.rotate(secret(Kind::Secret), SignedDuration::from_secs(60), at(10)).unwrap();
        let status = |selector, now| key.status(key.secret(&selector).unwrap(), at(now));
        assert_eq!((status(old, 69), key.overlap(at(69))), (Status::Good, Some(at(70))));
        assert_eq!((status(old, 70), key.overlap(at(70))), (Status::Expired, None));
        assert_eq!(status(key.secret.selector, 70), Status::Good);
        key.state = State::Disabled;
        assert_eq!((key.overlap(at(69)), key.overlap(at(70))), (Some(at(70)), None));
        key.revoke();
        assert_eq!(key.overlap(at(69)), None, "nothing of it works any more");
    }

    #[test]
    fn a_second_rotation_ends_the_first_overlap_at_once() {
        let mut key = key(Kind::Secret);
        let first = key.secret.selector;
        for _ in 0..2 {
            key.rotate(secret(Kind::Secret), SignedDuration::from_secs(60), at(10)).unwrap();
        }
        assert!(key.secret(&first).is_none());
        assert_eq!(key.secrets().count(), 2);
    }

    #[test]
    fn an_overlap_ends_with_the_key_and_a_rotation_without_one_at_once() {
        let mut key = key(Kind::Secret);
        key.change_extras(|extras| extras.expires_at = Some(at(20)));
        key.rotate(secret(Kind::Secret), SignedDuration::from_secs(60), at(10)).unwrap();
        assert_eq!(key.retiring.as_ref().unwrap().ends_at, at(20));
        key.rotate(secret(Kind::Secret), SignedDuration::ZERO, at(10)).unwrap();
        assert!(key.retiring.is_none());
        key.revoke();
        assert_eq!(key.rotate(secret(Kind::Secret), SignedDuration::ZERO, at(10)), Err(KeyError::Revoked));
    }

    #[test]
    fn an_address_list_admits_its_networks_alone() {
        let mut key = key(Kind::Secret);
        assert!(key.admits(None));
        let networks = ["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        key.change_extras(|extras| extras.addresses = networks.into());
        for (address, admitted) in [
            ("192.0.2.9", true),
            ("::ffff:192.0.2.9", true),
            ("198.51.100.1", false),
            ("2001:db8::1", true),
            ("::1", false),
        ] {
            assert_eq!(key.admits(Some(address.parse().unwrap())), admitted, "{address}");
        }
        assert!(!key.admits(None));
    }

    #[test]
    fn a_record_with_a_field_that_is_not_known_is_not_read() {
        let mut written = serde_json::to_value(key(Kind::Secret)).unwrap();
        written["only_on_sundays"] = true.into();
        assert!(serde_json::from_value::<Key>(written).is_err());
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let mut key = key(Kind::Restricted);
        key.rotate(secret(Kind::Restricted), SignedDuration::from_secs(60), at(10)).unwrap();
        let written = serde_json::to_vec(&key).unwrap();
        assert_eq!(serde_json::from_slice::<Key>(&written).unwrap(), key);
    }
}
