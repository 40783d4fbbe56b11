//! What is shown of records: never a secret and never a hash.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::Json;
use axum::body::Body;
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::duration::written;
use crate::key::{Key, Kind, LastUsed, Mode, Status};
use crate::ledger::KeyUses;
use crate::people::{ApiToken, User};
use crate::ring::LiveAccount;
use crate::store::Order;
use crate::trail::{Event, EventId};

/// An account.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountView {
    /// Its identity: `acct_…`.
    pub(crate) id: String,
    pub(crate) name: String,
    /// `active` or `closed`.
    pub(crate) state: Cow<'static, str>,
    #[schema(value_type = String, format = DateTime)]
    pub(crate) created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) closed_at: Option<Timestamp>,
}

impl AccountView {
    pub fn of(live: &LiveAccount) -> Self {
        let account = &live.account;
        Self {
            id: account.id.to_string(),
            name: account.name.to_string(),
            state: if account.closed_at.is_some() { "closed" } else { "active" }.into(),
            created_at: account.created_at,
            closed_at: account.closed_at,
        }
    }
}

/// How a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// It works.
    Active,
    /// It is switched off, and can be switched on again.
    Disabled,
    /// Its expiry has passed.
    Expired,
    /// Its secret is known to others; rotate it.
    Compromised,
    /// It is dead for good.
    Revoked,
}

impl KeyState {
    /// The word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Compromised => "compromised",
            Self::Revoked => "revoked",
        }
    }

    /// Every state.
    pub const ALL: [Self; 5] = [Self::Active, Self::Disabled, Self::Expired, Self::Compromised, Self::Revoked];

    pub fn of(key: &Key, now: Timestamp) -> Self {
        match key.status(&key.secret, now) {
            Status::Good => Self::Active,
            Status::Disabled => Self::Disabled,
            Status::Expired => Self::Expired,
            Status::Compromised => Self::Compromised,
            Status::Revoked => Self::Revoked,
        }
    }
}

/// A key. Its token is shown when it is made or rotated, and that of a publishable key always.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = Key)]
pub struct KeyView {
    /// Its identity, which rotating keeps: `key_…`.
    pub(crate) id: String,
    /// Whose key it is: `acct_…`.
    pub(crate) account: String,
    /// `acct_…/live` or `acct_…/test`.
    pub(crate) environment: String,
    pub(crate) mode: Mode,
    pub(crate) kind: Kind,
    /// What the current token begins with; not there for one from elsewhere of which that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<String>,
    /// What the current token ends with; not there where that is not known, as of tokens from elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_four: Option<String>,
    /// What the token before ends with, until its overlap ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) old_last_four: Option<String>,
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    pub(crate) state: KeyState,
    /// What a restricted key was granted.
    pub(crate) scopes: Vec<String>,
    /// Networks that it may be used from; none means anywhere.
    pub(crate) addresses: Vec<String>,
    #[schema(value_type = String, format = DateTime)]
    pub(crate) created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) expires_at: Option<Timestamp>,
    /// When the current secret was made.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) secret_created_at: Timestamp,
    /// Until when the secret before works, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) old_secret_ends_at: Option<Timestamp>,
    /// The last call with the key, with whichever secret. Not there for a key that was never used, nor in answers to
    /// changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_used: Option<LastUsed>,
    /// The last call with the current secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret_last_used: Option<LastUsed>,
    /// The last call with the secret before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) old_secret_last_used: Option<LastUsed>,
    /// How often it should be rotated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rotate_every: Option<String>,
    /// When it should be rotated at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) rotation_due_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) compromised_at: Option<Timestamp>,
    /// When a secret that works was seen where others may have read it, where that does not kill it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) flagged_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) revoked_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_because: Option<String>,
    /// The token: shown once, and always for a publishable key, which is public.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) token: Option<Zeroizing<String>>,
}

impl KeyView {
    pub fn of(key: &Key, now: Timestamp) -> Self {
        let old = key.retiring.as_deref().filter(|_| key.overlap(now).is_some());
        Self {
            id: key.id.to_string(),
            account: key.account.to_string(),
            environment: key.environment().to_string(),
            mode: key.mode,
            kind: key.kind,
            start: key.start_of(&key.secret),
            last_four: key.secret.last_four.map(Into::into),
            old_last_four: old.and_then(|old| old.secret.last_four).map(Into::into),
            name: key.name.to_string(),
            note: key.note().map(Into::into),
            state: KeyState::of(key, now),
            scopes: key.scopes.iter().map(ToString::to_string).collect(),
            addresses: key.addresses().iter().map(ToString::to_string).collect(),
            created_at: key.created_at.into(),
            expires_at: key.expires_at(),
            secret_created_at: key.secret.created_at.into(),
            old_secret_ends_at: key.overlap(now),
            last_used: None,
            secret_last_used: None,
            old_secret_last_used: None,
            rotate_every: key.rotate_every().map(written),
            rotation_due_at: key.rotation_due_at(),
            compromised_at: key.secret.compromised_at.map(Into::into),
            flagged_at: key.flagged_at(now),
            revoked_at: key.revocation().map(|revocation| revocation.at),
            revoked_because: key.revocation().and_then(|revocation| revocation.reason.as_deref()).map(Into::into),
            token: key.public_token().map(|token| Zeroizing::new(token.into())),
        }
    }

    /// With its last uses.
    pub fn used(self, uses: &KeyUses) -> Self {
        let (last_used, secret_last_used) = (uses.newest(), uses.secret);
        Self { last_used, secret_last_used, old_secret_last_used: uses.retiring, ..self }
    }

    /// With the token, at the one moment when it is shown.
    pub fn showing(self, token: Option<Zeroizing<String>>) -> Self {
        Self { token: token.or(self.token), ..self }
    }
}

/// An account that was just made, with its keys and their tokens.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct NewAccount {
    #[serde(flatten)]
    pub account: AccountView,
    /// Its four keys.
    pub keys: Vec<KeyView>,
}

/// Some of a list.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Give it as `after` for those that follow; it is not there on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How many there are on all pages; where they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<usize>,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { items: Vec::new(), next: None, total: None }
    }
}

impl<T> Page<T> {
    /// Some of a list whose items are not counted.
    pub fn uncounted(items: Vec<T>, next: Option<String>) -> Self {
        Self { items, next, total: None }
    }
}

/// Something that happened.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = Event)]
pub struct EventView {
    /// Its identity; ids sort as events happened.
    #[schema(value_type = String)]
    pub id: EventId,
    #[serde(flatten)]
    #[schema(value_type = EventFields)]
    pub event: Event,
}

/// What is told of an event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes `trail::Event`")]
pub struct EventFields {
    /// For example `key.rotated`.
    r#type: String,
    #[schema(format = DateTime)]
    at: String,
    actor: ActorFields,
    /// From where.
    address: Option<String>,
    /// The request that did it.
    request_id: Option<String>,
    account: Option<String>,
    key: Option<String>,
    user: Option<String>,
    /// What else there is to say, by name.
    detail: Option<std::collections::BTreeMap<String, String>>,
}

/// Who did something.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes `trail::Actor`")]
pub struct ActorFields {
    /// `user`, `console`, `call`, `daemon` or `anonymous`.
    r#type: String,
    /// The user's id.
    id: Option<String>,
}

/// A person.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = User)]
pub struct UserView {
    /// Their identity: `usr_…`.
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) name: String,
    /// Whether they run this installation.
    pub(crate) operator: bool,
    /// `active` or `disabled`.
    pub(crate) state: Cow<'static, str>,
    /// What they are in which account: `owner`, `developer` or `viewer`, by the account's id.
    pub(crate) roles: std::collections::BTreeMap<String, crate::people::Role>,
    pub(crate) has_password: bool,
    pub(crate) tokens: Vec<TokenView>,
    #[schema(value_type = String, format = DateTime)]
    pub(crate) created_at: Timestamp,
}

impl UserView {
    pub fn of(user: &User) -> Self {
        Self {
            id: user.id.to_string(),
            email: user.email.as_str().to_owned(),
            name: user.name.to_string(),
            operator: user.operator,
            state: user.state.as_str().into(),
            roles: user.roles.iter().map(|(account, role)| (account.to_string(), *role)).collect(),
            has_password: user.password.is_some(),
            tokens: user.tokens.iter().map(TokenView::of).collect(),
            created_at: user.created_at,
        }
    }
}

/// A token of a person.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenView {
    /// Its identity: `tok_…`.
    pub(crate) id: String,
    pub(crate) name: String,
    #[schema(value_type = String, format = DateTime)]
    pub(crate) created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) expires_at: Option<Timestamp>,
    /// The token itself, shown once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) token: Option<Zeroizing<String>>,
}

impl TokenView {
    pub fn of(token: &ApiToken) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name.to_string(),
            created_at: token.created_at,
            expires_at: token.expires_at,
            token: None,
        }
    }

    /// With the token, at the one moment when it is shown.
    pub fn showing(self, token: Option<Zeroizing<String>>) -> Self {
        Self { token, ..self }
    }
}

/// A member of an account.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// The person: `usr_…`.
    pub user: String,
    pub email: String,
    pub name: String,
    pub role: crate::people::Role,
}

/// Which way a list of events goes.
#[derive(Debug, Clone, Copy, Default, serde::Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The newest first.
    #[default]
    Newest,
    /// The oldest first.
    Oldest,
}

impl From<Direction> for Order {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Newest => Self::Descending,
            Direction::Oldest => Self::Ascending,
        }
    }
}

/// An answer with its version, for `If-Match`.
pub fn versioned(version: u64, body: impl Serialize) -> Response<Body> {
    let mut response = Json(body).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// The answer of a creation, or of one that was made before, with its version.
pub fn created(location: &str, version: u64, is_replay: bool, body: impl Serialize) -> Response<Body> {
    told_of(versioned(version, body), location, is_replay)
}

/// The same for what has no version of its own.
pub fn made(location: &str, is_replay: bool, body: impl Serialize) -> Response<Body> {
    told_of(Json(body).into_response(), location, is_replay)
}

fn told_of(mut response: Response<Body>, location: &str, is_replay: bool) -> Response<Body> {
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(location) {
        headers.insert(LOCATION, location);
    }
    if is_replay {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}

/// A network, from text such as `192.0.2.0/24` or `192.0.2.7`.
pub fn network(text: &str) -> Option<ipnet::IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(ipnet::IpNet::from))
}
