//! The event trail, over HTTP.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::accounts::find_account;
use super::backup::lines;
use super::input::{OneOf, Params};
use super::paging::Paging;
use super::refusal::{Refusal, Refusals};
use super::view::{Direction, EventView, Page};
use super::{Caller, Manage, Shared, blocking};
use crate::authorize::manage::Subject;
use crate::key::{AccountId, KeyId, UserId};
use crate::ledger::{About, Ledger, LedgerError};
use crate::store::Order;
use crate::trail::{Actor, Event, EventId, Happened};

/// Events that are read at a time.
const CHUNK: usize = 500;
/// So often are events read for one page of those that are looked for.
const LOOKS: usize = 100;

/// Which events, and which part of the trail.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventFilter {
    /// Those of this type, for example `key.rotated`, or several of them, separated by commas.
    #[param(value_type = Option<String>, example = "key.created,key.rotated")]
    r#type: Option<OneOf<Happened>>,
    /// Those that this person did, or that are about them: `usr_…`.
    user: Option<String>,
    /// Those behind this one: the `next` of the page before. With `type` or `user`, a page may hold few or none of them and
    /// still have a `next`: so many were looked at.
    after: Option<String>,
    /// At most so many; 1 to 1,000, 100 when not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `newest` first, or `oldest` first.
    #[serde(default)]
    #[param(inline)]
    order: Direction,
}

/// Whose events, owned.
#[derive(Clone, Copy)]
enum Whose {
    All,
    Account(AccountId),
    Key(KeyId),
}

impl EventFilter {
    async fn page(self, manage: &Manage, whose: Whose) -> Result<Json<Page<EventView>>, Refusal> {
        let paging = Paging { after: self.after.clone(), limit: self.limit };
        let (most, ledger) = (paging.most()?, manage.ledger().clone());
        let after = paging.behind(|after| after.parse::<EventId>().ok())?;
        let user = self.user.as_deref().map(str::parse::<UserId>).transpose();
        let sought = Sought { types: self.r#type, user: user.map_err(|_| Refusal::not_found("user"))? };
        let order = self.order.into();
        if sought.is_all() {
            let mut events = blocking(move || read(&ledger, whose, after, order, most + 1)).await?;
            let next = paging.cut(&mut events, |event| event.id.to_string())?;
            return Ok(Json(Page::uncounted(events, next)));
        }
        let (events, next) = blocking(move || sought.among(&ledger, whose, after, order, most)).await?;
        Ok(Json(Page::uncounted(events, next.map(|id| id.to_string()))))
    }
}

/// Events that are looked for.
struct Sought {
    types: Option<OneOf<Happened>>,
    user: Option<UserId>,
}

impl Sought {
    fn is_all(&self) -> bool {
        self.types.is_none() && self.user.is_none()
    }

    fn takes(&self, event: &Event) -> bool {
        let is_of = |user: &UserId| {
            event.user.as_ref() == Some(user)
                || matches!(&event.actor, Actor::User(actor) if actor.parse().is_ok_and(|actor: UserId| actor == *user))
        };
        self.types.as_ref().is_none_or(|types| types.has(&event.happened)) && self.user.as_ref().is_none_or(is_of)
    }

    /// At most `most` of them, and what to look behind for more.
    fn among(
        &self,
        ledger: &Ledger,
        whose: Whose,
        after: Option<EventId>,
        order: Order,
        most: usize,
    ) -> Result<(Vec<EventView>, Option<EventId>), LedgerError> {
        let (mut found, mut after) = (Vec::new(), after);
        for _ in 0..LOOKS {
            let events = read(ledger, whose, after, order, CHUNK)?;
            let is_last = events.len() < CHUNK;
            for event in events {
                after = Some(event.id);
                if self.takes(&event.event) {
                    found.push(event);
                }
                if found.len() >= most {
                    return Ok((found, after));
                }
            }
            if is_last {
                return Ok((found, None));
            }
        }
        Ok((found, after))
    }
}

fn read(
    ledger: &Ledger,
    whose: Whose,
    after: Option<EventId>,
    order: Order,
    most: usize,
) -> Result<Vec<EventView>, LedgerError> {
    let about = match &whose {
        Whose::All => About::Everything,
        Whose::Account(account) => About::Account(account),
        Whose::Key(key) => About::Key(key),
    };
    let events = ledger.events(about, after, order, most)?;
    Ok(events.into_iter().map(|(id, event)| EventView { id, event }).collect())
}

/// Everything that happened.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", operation_id = "listEvents", params(EventFilter),
    responses((status = 200, body = Page<EventView>), Refusals)
)]
pub(super) async fn list_events(
    State(manage): State<Shared>,
    caller: Caller,
    Params(filter): Params<EventFilter>,
) -> Result<Json<Page<EventView>>, Refusal> {
    caller.may(Subject::System)?;
    filter.page(&manage, Whose::All).await
}

/// What happened to an account and its keys.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/events", tag = "events", operation_id = "listAccountEvents",
    params(("account" = String, Path, description = "`acct_…`"), EventFilter),
    responses((status = 200, body = Page<EventView>), Refusals)
)]
pub(super) async fn list_account_events(
    State(manage): State<Shared>,
    caller: Caller,
    Path(account): Path<String>,
    Params(filter): Params<EventFilter>,
) -> Result<Json<Page<EventView>>, Refusal> {
    let account = find_account(&manage, &account).or_else(|missing| caller.may(Subject::System).and(Err(missing)))?;
    caller.may(Subject::Account(account.account.id))?;
    filter.page(&manage, Whose::Account(account.account.id)).await
}

/// What happened to a key.
#[utoipa::path(
    get, path = "/v1/keys/{key}/events", tag = "events", operation_id = "listKeyEvents",
    params(("key" = String, Path, description = "`key_…`"), EventFilter),
    responses((status = 200, body = Page<EventView>), Refusals)
)]
pub(super) async fn list_key_events(
    State(manage): State<Shared>,
    caller: Caller,
    Path(key): Path<String>,
    Params(filter): Params<EventFilter>,
) -> Result<Json<Page<EventView>>, Refusal> {
    let live = super::keys::seen_key(&manage, &caller, &key)?;
    filter.page(&manage, Whose::Key(live.key.id)).await
}

/// Everything that happened, the oldest first, as JSON lines.
#[utoipa::path(
    get, path = "/v1/events/export", tag = "events", operation_id = "exportEvents",
    responses((status = 200, body = String, content_type = "application/jsonl"), Refusals)
)]
pub(super) async fn export_events(State(manage): State<Shared>, caller: Caller) -> Result<Response<Body>, Refusal> {
    caller.may(Subject::System)?;
    Ok(exported(&manage, Whose::All))
}

/// What happened to an account and its keys, the oldest first, as JSON lines.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/events/export", tag = "events", operation_id = "exportAccountEvents",
    params(("account" = String, Path, description = "`acct_…`")),
    responses((status = 200, body = String, content_type = "application/jsonl"), Refusals)
)]
pub(super) async fn export_account_events(
    State(manage): State<Shared>,
    caller: Caller,
    Path(account): Path<String>,
) -> Result<Response<Body>, Refusal> {
    let account = find_account(&manage, &account).or_else(|missing| caller.may(Subject::System).and(Err(missing)))?;
    caller.may(Subject::Account(account.account.id))?;
    Ok(exported(&manage, Whose::Account(account.account.id)))
}

fn exported(manage: &Manage, whose: Whose) -> Response<Body> {
    let ledger = manage.ledger().clone();
    let mut after = None;
    lines(move || {
        let events = read(&ledger, whose, after, Order::Ascending, CHUNK)?;
        after = events.last().map(|event| event.id).or(after);
        Ok::<_, LedgerError>(events)
    })
}
