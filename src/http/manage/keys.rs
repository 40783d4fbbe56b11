//! The life of a key, over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, Uri};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use utoipa::ToSchema;

use super::accounts::find_account;
use super::input::{Input, Params, RetryKey, Seen, Tags, duration, nullable, nullable_time};
use super::key_list::KeyFilter;
use super::once::{Made, once, shown};
use super::refusal::{Refusal, Refusals};
use super::view::{KeyView, Page, created, network, versioned};
use super::{Caller, Manage, Shared, blocking};
use crate::authorize::manage::Subject;
use crate::http::json::time;
use crate::key::{EnvironmentId, Key, KeyError, KeyId, KeyUpdate, Kind, Mode, NewKey, Scope};
use crate::ledger::{Ledger, Once};
use crate::ring::LiveKey;
use crate::trail::{By, Event, Happened};

/// How long the old secret works beside the new one, unless the caller says otherwise.
const OVERLAP: SignedDuration = SignedDuration::from_hours(24);

/// A new key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    kind: Kind,
    mode: Mode,
    /// 1 to 200 characters, none of them a control character.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// What a restricted key is granted: at least one for that kind, none for the others.
    #[serde(default)]
    scopes: Vec<String>,
    /// Networks or addresses that it may be used from, at most 100; none means anywhere.
    #[serde(default)]
    #[schema(max_items = 100)]
    addresses: Vec<String>,
    /// Up to 1,000 characters.
    #[schema(max_length = 1000)]
    note: Option<String>,
    #[serde(default, deserialize_with = "time")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// How often it should be rotated: `1h` to `3660d`.
    #[schema(example = "90d")]
    rotate_every: Option<String>,
}

impl CreateKey {
    /// What the domain makes a key of.
    pub(super) fn into_new(self, caller: &Caller) -> Result<NewKey, Refusal> {
        Ok(NewKey {
            scopes: scopes(caller, &self.scopes)?,
            addresses: networks(&self.addresses)?,
            expires_at: self.expires_at,
            note: self.note,
            rotate_every: self.rotate_every.map(|text| duration("rotate_every", &text)).transpose()?,
            ..NewKey::named(self.kind, self.mode, self.name)
        })
    }
}

/// What to change of a key. What is not given stays; null takes away.
#[expect(clippy::option_option, reason = "a field that is not there, null, and a value are three things")]
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateKey {
    /// 1 to 200 characters, none of them a control character.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Up to 1,000 characters.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 1000)]
    note: Option<Option<String>>,
    /// What a restricted key is granted.
    scopes: Option<Vec<String>>,
    /// Networks or addresses that it may be used from, at most 100; none means anywhere.
    #[schema(max_items = 100)]
    addresses: Option<Vec<String>>,
    #[serde(default, deserialize_with = "nullable_time")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<Timestamp>>,
    /// How often it should be rotated: `1h` to `3660d`.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, example = "90d")]
    rotate_every: Option<Option<String>>,
}

/// Why a key is revoked.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeKey {
    /// Up to 1,000 characters.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// How to rotate a key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// How long the old secret works beside the new one: `0s` to `7d`, `24h` when not given. It ends with the key.
    #[schema(example = "24h")]
    overlap: Option<String>,
}

fn networks(texts: &[String]) -> Result<Vec<ipnet::IpNet>, Refusal> {
    let read = (0..).zip(texts).map(|(at, text)| {
        let invalid = || {
            let field = format!("addresses[{at}]");
            Refusal::invalid(Some(&field), "give a network such as 192.0.2.0/24, or an address")
        };
        network(text).ok_or_else(invalid)
    });
    read.collect()
}

/// A scope that the schema does not know would never grant anything.
pub(super) fn scopes(caller: &Caller, names: &[String]) -> Result<Vec<Scope>, Refusal> {
    let known = &caller.revision.model().scopes;
    match (0..).zip(names).find(|(_, name)| !known.iter().any(|known| **known == ***name)) {
        None => Ok(names.iter().map(|name| Scope::from(name.as_str())).collect()),
        Some((at, _)) => {
            let (field, detail) = (format!("scopes[{at}]"), format!("the schema knows {}", known.join(", ")));
            Err(Refusal::invalid(Some(&field), detail))
        }
    }
}

/// The key of this id, if the caller may do what they want to do to it.
pub(super) fn seen_key(manage: &Manage, caller: &Caller, id: &str) -> Result<Arc<LiveKey>, Refusal> {
    let live = id.parse().ok().and_then(|id: KeyId| manage.ledger().ring().key(&id));
    let Some(live) = live else {
        return caller.may(Subject::System).and(Err(Refusal::not_found("key")));
    };
    caller.may(Subject::Key(&live.key))?;
    Ok(live)
}

/// Make a key. Its token is shown this once.
#[utoipa::path(
    post, path = "/v1/accounts/{account}/keys", tag = "keys", operation_id = "createKey", request_body = CreateKey,
    params(
        ("account" = String, Path, description = "`acct_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key makes one key, for a day")
    ),
    responses((status = 201, body = KeyView, headers(("ETag" = String), ("Location" = String))), Refusals)
)]
pub(super) async fn create_key(
    State(manage): State<Shared>,
    caller: Caller,
    Path(account): Path<String>,
    RetryKey(retry): RetryKey,
    uri: Uri,
    Input(input, bytes): Input<CreateKey>,
) -> Result<Response<Body>, Refusal> {
    let account = find_account(&manage, &account).or_else(|missing| caller.may(Subject::System).and(Err(missing)))?;
    let account = account.account.id;
    let by = caller.may(Subject::Environment(EnvironmentId { account, mode: input.mode }))?.clone();
    let new = input.into_new(&caller)?;
    let (once, cost, now) = (once(&caller, retry.as_deref(), uri.path(), &bytes), manage.cost, by.now);
    let asked = once.clone();
    let make = move |ledger: &Ledger, once: Option<&Once>| {
        let (key, mint) = ledger.create_key(&account, new, cost, once, &by)?;
        let token = shown(&key.id, &mint);
        Ok(((key, token.1.clone()), vec![token]))
    };
    match manage.make_once(asked, make).await? {
        Made::Now((key, token)) => {
            let body = KeyView::of(&key, now).showing(Some(token));
            Ok(created(&format!("/v1/keys/{}", key.id), 1, false, body))
        }
        Made::Before(id) => {
            let live = id.parse().ok().and_then(|id: KeyId| manage.ledger().ring().key(&id));
            let live = live.ok_or_else(|| Refusal::not_found("key"))?;
            let body = KeyView::of(&live.key, now).showing(manage.recent.find(once.as_ref(), &id));
            Ok(created(&format!("/v1/keys/{id}"), live.version, true, body))
        }
    }
}

/// List an account's keys, in the order of their creation.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/keys", tag = "keys", operation_id = "listKeys",
    params(("account" = String, Path, description = "`acct_…`"), KeyFilter),
    responses((status = 200, body = Page<KeyView>), Refusals)
)]
pub(super) async fn list_keys(
    State(manage): State<Shared>,
    caller: Caller,
    Path(account): Path<String>,
    Params(filter): Params<KeyFilter>,
) -> Result<Json<Page<KeyView>>, Refusal> {
    let account = find_account(&manage, &account).or_else(|missing| caller.may(Subject::System).and(Err(missing)))?;
    let now = caller.may(Subject::Account(account.account.id))?.now;
    blocking(move || Ok(filter.page(&manage, manage.ledger().ring().keys_of(&account.account.id), now)))
        .await?
        .map(Json)
}

/// List the keys of all accounts, in the order of their creation.
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys", operation_id = "listAllKeys", params(KeyFilter),
    responses((status = 200, body = Page<KeyView>), Refusals)
)]
pub(super) async fn list_all_keys(
    State(manage): State<Shared>,
    caller: Caller,
    Params(filter): Params<KeyFilter>,
) -> Result<Json<Page<KeyView>>, Refusal> {
    let now = caller.may(Subject::System)?.now;
    blocking(move || Ok(filter.page(&manage, manage.ledger().ring().keys(), now))).await?.map(Json)
}

/// Look at a key.
#[utoipa::path(
    get, path = "/v1/keys/{key}", tag = "keys", operation_id = "getKey",
    params(("key" = String, Path, description = "`key_…`")),
    responses((status = 200, body = KeyView, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn get_key(
    State(manage): State<Shared>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<Response<Body>, Refusal> {
    let live = seen_key(&manage, &caller, &key)?;
    let now = caller.by.now;
    blocking(move || {
        let uses = manage.ledger().uses(&live)?;
        Ok(versioned(live.version, KeyView::of(&live.key, now).used(&uses)))
    })
    .await
}

/// Changes a key that the caller may change, and shows it.
async fn change(
    manage: &Manage,
    caller: Caller,
    key: &str,
    seen: Tags,
    mut change: impl FnMut(&mut Key, &By) -> Result<Option<Event>, KeyError> + Send + 'static,
) -> Result<Response<Body>, Refusal> {
    let live = seen_key(manage, &caller, key)?;
    let (ledger, id, by) = (manage.ledger().clone(), live.key.id, caller.by);
    let now = by.now;
    let seen = seen.wanted(live.version);
    let (key, version) = blocking(move || ledger.change_key(&id, seen, |key| change(key, &by))).await?;
    Ok(versioned(version, KeyView::of(&key, now)))
}

/// Change a key's name, note, scopes, addresses, expiry or rotation interval.
#[utoipa::path(
    patch, path = "/v1/keys/{key}", tag = "keys", operation_id = "updateKey", request_body = UpdateKey,
    params(
        ("key" = String, Path, description = "`key_…`"),
        ("If-Match" = Option<String>, Header, description = "The ETag that you have seen")
    ),
    responses((status = 200, body = KeyView, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn update_key(
    State(manage): State<Shared>,
    caller: Caller,
    Path(key): Path<String>,
    Seen(seen): Seen,
    Input(input, _): Input<UpdateKey>,
) -> Result<Response<Body>, Refusal> {
    let every = |text: Option<String>| text.map(|text| duration("rotate_every", &text)).transpose();
    let update = KeyUpdate {
        name: input.name,
        note: input.note,
        scopes: input.scopes.map(|names| scopes(&caller, &names)).transpose()?,
        addresses: input.addresses.map(|texts| networks(&texts)).transpose()?,
        expires_at: input.expires_at,
        rotate_every: input.rotate_every.map(every).transpose()?,
    };
    change(&manage, caller, &key, seen, move |key, by| {
        let before = key.chosen();
        key.update(update.clone(), by.now)?;
        Ok(Event::of_changes(Happened::KeyUpdated, by, before, key.chosen()))
    })
    .await
}

/// Switch a key off. It can be switched on again.
#[utoipa::path(
    post, path = "/v1/keys/{key}/disable", tag = "keys", operation_id = "disableKey",
    params(
        ("key" = String, Path, description = "`key_…`"),
        ("If-Match" = Option<String>, Header, description = "The ETag that you have seen")
    ),
    responses((status = 200, body = KeyView, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn disable_key(
    State(manage): State<Shared>,
    caller: Caller,
    Path(key): Path<String>,
    Seen(seen): Seen,
) -> Result<Response<Body>, Refusal> {
    let off = |key: &mut Key, by: &By| Ok(key.switch(false)?.then(|| Event::new(Happened::KeyDisabled, by)));
    change(&manage, caller, &key, seen, off).await
}

/// Switch a key on again.
#[utoipa::path(
    post, path = "/v1/keys/{key}/enable", tag = "keys", operation_id = "enableKey",
    params(
        ("key" = String, Path, description = "`key_…`"),
        ("If-Match" = Option<String>, Header, description = "The ETag that you have seen")
    ),
    responses((status = 200, body = KeyView, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn enable_key(
    State(manage): State<Shared>,
    caller: Caller,
    Path(key): Path<String>,
    Seen(seen): Seen,
) -> Result<Response<Body>, Refusal> {
    let on = |key: &mut Key, by: &By| Ok(key.switch(true)?.then(|| Event::new(Happened::KeyEnabled, by)));
    change(&manage, caller, &key, seen, on).await
}

/// Kill a key for good.
#[utoipa::path(
    post, path = "/v1/keys/{key}/revoke", tag = "keys", operation_id = "revokeKey", request_body = RevokeKey,
    params(
        ("key" = String, Path, description = "`key_…`"),
        ("If-Match" = Option<String>, Header, description = "The ETag that you have seen")
    ),
    responses((status = 200, body = KeyView, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn revoke_key(
    State(manage): State<Shared>,
    caller: Caller,
    Path(key): Path<String>,
    Seen(seen): Seen,
    Input(input, _): Input<RevokeKey>,
) -> Result<Response<Body>, Refusal> {
    let live = seen_key(&manage, &caller, &key)?;
    let (ledger, id, by) = (manage.ledger().clone(), live.key.id, caller.by);
    let now = by.now;
    let seen = seen.wanted(live.version);
    let (key, version, _) = blocking(move || ledger.revoke_key(&id, seen, input.reason.as_deref(), &by)).await?;
    Ok(versioned(version, KeyView::of(&key, now)))
}

/// Say that a key's secret is known to others. It is dead from then on; rotating the key gives it a new one.
#[utoipa::path(
    post, path = "/v1/keys/{key}/compromise", tag = "keys", operation_id = "compromiseKey",
    params(
        ("key" = String, Path, description = "`key_…`"),
        ("If-Match" = Option<String>, Header, description = "The ETag that you have seen")
    ),
    responses((status = 200, body = KeyView, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn compromise_key(
    State(manage): State<Shared>,
    caller: Caller,
    Path(key): Path<String>,
    Seen(seen): Seen,
) -> Result<Response<Body>, Refusal> {
    change(&manage, caller, &key, seen, |key, by| {
        let event = || Event::new(Happened::KeyCompromised, by).with("how", "said so by hand");
        Ok(key.compromise_all(by.now)?.then(event))
    })
    .await
}

/// Give a key a new secret. The new token is shown this once; the old one works until the overlap ends.
#[utoipa::path(
    post, path = "/v1/keys/{key}/rotate", tag = "keys", operation_id = "rotateKey", request_body = RotateKey,
    params(
        ("key" = String, Path, description = "`key_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key rotates once, for a day"),
        ("If-Match" = Option<String>, Header, description = "The ETag that you have seen")
    ),
    responses((status = 201, body = KeyView, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn rotate_key(
    State(manage): State<Shared>,
    caller: Caller,
    Path(key): Path<String>,
    Seen(seen): Seen,
    RetryKey(retry): RetryKey,
    uri: Uri,
    Input(input, bytes): Input<RotateKey>,
) -> Result<Response<Body>, Refusal> {
    let live = seen_key(&manage, &caller, &key)?;
    let overlap = input.overlap.map_or(Ok(OVERLAP), |text| duration("overlap", &text))?;
    let once = once(&caller, retry.as_deref(), uri.path(), &bytes);
    let (id, cost, by, asked) = (live.key.id, manage.cost, caller.by, once.clone());
    let (now, seen) = (by.now, seen.wanted(live.version));
    let make = move |ledger: &Ledger, once: Option<&Once>| {
        let (key, version, mint) = ledger.rotate_key(&id, seen, overlap, cost, once, &by)?;
        let token = shown(&id, &mint);
        Ok(((key, version, token.1.clone()), vec![token]))
    };
    let location = format!("/v1/keys/{id}");
    match manage.make_once(asked, make).await? {
        Made::Now((key, version, token)) => {
            Ok(created(&location, version, false, KeyView::of(&key, now).showing(Some(token))))
        }
        Made::Before(_) => {
            let live = manage.ledger().ring().key(&id).ok_or_else(|| Refusal::not_found("key"))?;
            let body = KeyView::of(&live.key, now).showing(manage.recent.find(once.as_ref(), &id.to_string()));
            Ok(created(&location, live.version, true, body))
        }
    }
}
