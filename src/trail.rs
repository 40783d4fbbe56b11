//! The event trail: who did what to which account, key, person or policies, when, and from where.
//!
//! An event is committed in one batch with the change that it tells of, so that the trail and the records never
//! disagree. It is only ever appended. It holds no token, no secret and no hash.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::key::{AccountId, KeyId, UserId, masked};
use crate::store::{Batch, Place, Table};

/// Every kind of event, once.
macro_rules! happenings {
    ($($(#[$doc:meta])+ $name:ident, $code:literal;)+) => {
        /// What happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Happened {
            $($(#[$doc])+ #[serde(rename = $code)] $name,)+
        }

        impl Happened {
            /// Every kind of event.
            pub const ALL: [Self; [$(Self::$name),+].len()] = [$(Self::$name),+];

            /// Its name: what it is about, a dot, and what happened to it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }

            /// The kind of this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|happened| happened.as_str() == name)
            }
        }
    };
}

happenings! {
    /// An account was made, with its four keys.
    AccountCreated, "account.created";
    /// An account has another name.
    AccountRenamed, "account.renamed";
    /// An account was closed, and all its keys revoked.
    AccountClosed, "account.closed";
    /// A key was made.
    KeyCreated, "key.created";
    /// A key's name, note, scopes, addresses, expiry or rotation interval changed.
    KeyUpdated, "key.updated";
    /// A key was switched off.
    KeyDisabled, "key.disabled";
    /// A key was switched on again.
    KeyEnabled, "key.enabled";
    /// A key was killed for good.
    KeyRevoked, "key.revoked";
    /// A key's secret is known to others.
    KeyCompromised, "key.compromised";
    /// A key has a new secret.
    KeyRotated, "key.rotated";
    /// A key's secret should be replaced soon.
    KeyRotationDue, "key.rotation_due";
    /// A key's secret should have been replaced by now.
    KeyRotationOverdue, "key.rotation_overdue";
    /// A person was made known.
    UserCreated, "user.created";
    /// A person's record changed.
    UserUpdated, "user.updated";
    /// A person was removed.
    UserDeleted, "user.deleted";
    /// A person has a role in an account.
    MemberSet, "member.set";
    /// A person has no role in an account any more.
    MemberRemoved, "member.removed";
    /// A person has a new token, or has signed in.
    TokenCreated, "token.created";
    /// A person's token was removed.
    TokenDeleted, "token.deleted";
    /// A person's token is known to others.
    TokenCompromised, "token.compromised";
    /// A revision of schema and policies came into force.
    PolicyActivated, "policy.activated";
    /// Schema and policies on disk were refused.
    PolicyRefused, "policy.refused";
    /// Schema and policies on disk would let somebody do more, and wait for approval.
    PolicyWaiting, "policy.waiting";
    /// A revision that waited was approved.
    PolicyApproved, "policy.approved";
    /// An earlier revision was put in force again.
    PolicyRolledBack, "policy.rolled_back";
    /// Everything was written out: hashes and no secrets.
    BackedUp, "installation.backed_up";
    /// Accounts, keys and people were written out: hashes and no secrets.
    Exported, "installation.exported";
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "id")]
pub enum Actor {
    /// A person, by id.
    User(Box<str>),
    /// Whoever has the machine: `keyward` on a stopped daemon's store.
    Console,
    /// Nobody that is known.
    Anonymous,
    /// A call that exposed its key.
    Call,
    /// The daemon by itself.
    Daemon,
}

/// Who does something, and from where: what a change is recorded with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// Who.
    pub actor: Actor,
    /// The peer's address, where there is one.
    pub address: Option<IpAddr>,
    /// Names the request in the logs, where there is one.
    pub request_id: Option<Box<str>>,
    /// When.
    pub now: Timestamp,
}

impl By {
    /// Whoever has the machine.
    pub fn console(now: Timestamp) -> Self {
        Self { actor: Actor::Console, address: None, request_id: None, now }
    }

    /// A call that came over plain HTTP.
    pub fn call(address: Option<IpAddr>, request_id: &str, now: Timestamp) -> Self {
        Self { actor: Actor::Call, address, request_id: Some(request_id.into()), now }
    }

    /// The daemon by itself.
    pub fn daemon(now: Timestamp) -> Self {
        Self { actor: Actor::Daemon, address: None, request_id: None, now }
    }
}

/// One thing that happened, as it is stored and shown. Its id is its [`Place`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What.
    #[serde(rename = "type")]
    pub happened: Happened,
    /// When.
    pub at: Timestamp,
    /// Who did it.
    pub actor: Actor,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The request that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Box<str>>,
    /// The account that it is about, or whose key it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// The key that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// The person that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// What else there is to say, by name: the fields that changed, the reason, when an overlap ends.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<Box<str>, Box<str>>,
}

impl Event {
    /// An event about nothing yet.
    pub fn new(happened: Happened, by: &By) -> Self {
        let By { actor, address, request_id, now } = by.clone();
        Self {
            happened,
            at: now,
            actor,
            address,
            request_id,
            account: None,
            key: None,
            user: None,
            detail: BTreeMap::new(),
        }
    }

    /// The same event, about an account.
    #[must_use]
    pub fn of_account(self, account: AccountId) -> Self {
        Self { account: Some(account), ..self }
    }

    /// The same event, about a key of an account.
    #[must_use]
    pub fn of_key(self, account: AccountId, key: KeyId) -> Self {
        Self { account: Some(account), key: Some(key), ..self }
    }

    /// The same event, about a person.
    #[must_use]
    pub fn of_user(self, user: UserId) -> Self {
        Self { user: Some(user), ..self }
    }

    /// The same event, with something more to say.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        // People write reasons, and paste tokens into them.
        self.detail.insert(name.into(), masked(value.as_ref()).into());
        self
    }

    /// The event of a change: of each field in which these differ its name, among `fields`, what is in it now, and what was
    /// before; `None` when they do not differ.
    pub fn of_changes<const FIELDS: usize>(
        happened: Happened,
        by: &By,
        before: [(&'static str, String); FIELDS],
        after: [(&'static str, String); FIELDS],
    ) -> Option<Self> {
        let changed: Vec<_> = before.into_iter().zip(after).filter(|(before, after)| before != after).collect();
        let fields: Vec<_> = changed.iter().map(|((field, _), _)| *field).collect();
        let event = (!fields.is_empty()).then(|| Self::new(happened, by).with("fields", fields.join(", ")))?;
        Some(changed.into_iter().fold(event, |event, ((field, before), (_, after))| {
            event.with(&format!("{field}_before"), before).with(field, after)
        }))
    }

    /// Adds the event to a batch, at this place within it, so that it is found by all that it is about.
    pub fn append_to(&self, batch: &mut Batch, ordinal: u16) {
        // Invariant: strings, numbers and a map with text for keys; serialising them cannot fail.
        batch.append(Table::EVENTS, b"", ordinal, serde_json::to_vec(self).unwrap_or_default());
        if let Some(account) = &self.account {
            batch.append(Table::ACCOUNT_EVENTS, account.as_bytes(), ordinal, Vec::new());
        }
        if let Some(key) = &self.key {
            batch.append(Table::KEY_EVENTS, key.as_bytes(), ordinal, Vec::new());
        }
    }
}

/// Lets the event at this place of a batch be found by a key, too, when it tells of many keys at once.
pub fn tell_also(batch: &mut Batch, key: &KeyId, ordinal: u16) {
    batch.append(Table::KEY_EVENTS, key.as_bytes(), ordinal, Vec::new());
}

/// The id of an event: `evt_` and its place in hexadecimal digits, so that ids sort as events happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct EventId(pub Place);

/// A text that is no event's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of an event: it is written `evt_` and 20 hexadecimal digits")]
pub struct NotAnEventId;

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "evt_{:016x}{:04x}", self.0.commit, self.0.ordinal)
    }
}

impl FromStr for EventId {
    type Err = NotAnEventId;

    fn from_str(text: &str) -> Result<Self, NotAnEventId> {
        let digits = text.strip_prefix("evt_").filter(|digits| digits.len() == 20).ok_or(NotAnEventId)?;
        // `from_str_radix` would take a sign.
        let is_written_by_us = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let (commit, ordinal) = digits.split_at_checked(16).filter(|_| is_written_by_us).ok_or(NotAnEventId)?;
        Ok(Self(Place {
            commit: u64::from_str_radix(commit, 16).map_err(|_| NotAnEventId)?,
            ordinal: u16::from_str_radix(ordinal, 16).map_err(|_| NotAnEventId)?,
        }))
    }
}

impl TryFrom<String> for EventId {
    type Error = NotAnEventId;

    fn try_from(text: String) -> Result<Self, NotAnEventId> {
        text.parse()
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_sorts_as_its_place() {
        let places = [(1, 0), (1, 1), (2, 0), (0x1234_5678_9abc, 65_535)];
        let ids = places.map(|(commit, ordinal)| EventId(Place { commit, ordinal }));
        for id in ids {
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(Place::of_key(&[b"prefix", id.0.to_bytes().as_slice()].concat()), Some(id.0));
        }
        assert!(ids.windows(2).all(|pair| pair[0].to_string() < pair[1].to_string()));
        for text in ["evt_", "evt_+0000000000000010000", "evt_00000000000000010000x", "key_0000000000000000"] {
            assert_eq!(text.parse::<EventId>(), Err(NotAnEventId), "{text}");
        }
    }

    #[test]
    fn what_looks_like_a_token_is_not_told() {
        let by = By::console(Timestamp::UNIX_EPOCH);
        let event = Event::new(Happened::KeyRevoked, &by).with("reason", "found kw_abcdefgh in a log");
        assert_eq!(event.detail["reason"].as_ref(), "found kw_… in a log");
    }

    #[test]
    fn a_name_in_json_is_the_name_in_code() {
        for happened in Happened::ALL {
            assert_eq!(serde_json::json!(happened), happened.as_str());
        }
    }
}
