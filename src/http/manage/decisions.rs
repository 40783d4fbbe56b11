//! The recorded decisions, over HTTP. Who may read a key may read the decisions with it; all of them are operators'.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::accounts::find_account;
use super::backup::lines;
use super::explain::Told as Explained;
use super::input::Params;
use super::keys::seen_key;
use super::paging::Paging;
use super::refusal::{Refusal, Refusals};
use super::view::Page;
use super::{Caller, Manage, Shared};
use crate::authorize::explain::explain;
use crate::authorize::manage::Subject;
use crate::authorize::verdict::{Outcome, Reason};
use crate::http::json::time;
use crate::key::{AccountId, KeyId, Mode};
use crate::policy::Route;
use crate::recorded::{Again, Filter, Record, RecordId, Recorder, Tally, Told};

/// Decisions that an export reads at a time.
const CHUNK: usize = 500;
/// Keys, routes and addresses that are busiest.
const BUSIEST: usize = 10;
/// Minutes that are counted together, unless the caller says otherwise.
const STEP: i64 = 60;

/// Which decisions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DecisionFilter {
    /// Those with this key: `key_…`.
    key: Option<String>,
    /// Those with a key of this account: `acct_…`.
    account: Option<String>,
    /// Those with a key of this mode: `live` or `test`.
    mode: Option<Mode>,
    #[param(inline)]
    outcome: Option<OutcomeName>,
    /// Those for this reason, for example `scope_missing`.
    reason: Option<String>,
    /// Those about this action of the API.
    action: Option<String>,
    /// Those that were made at this time or later.
    #[param(value_type = Option<String>, format = DateTime)]
    #[serde(default, deserialize_with = "time")]
    since: Option<Timestamp>,
    /// Those behind this one: the `next` of the page before.
    after: Option<String>,
    /// At most so many; 1 to 1,000, 100 when not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// What became of a call.
#[derive(Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum OutcomeName {
    Allow,
    Unauthenticated,
    Forbidden,
}

impl From<OutcomeName> for Outcome {
    fn from(name: OutcomeName) -> Self {
        match name {
            OutcomeName::Allow => Self::Allow,
            OutcomeName::Unauthenticated => Self::Unauthenticated,
            OutcomeName::Forbidden => Self::Forbidden,
        }
    }
}

/// What to count.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct CountFilter {
    /// Those with this key, as far as they are recorded: `key_…`.
    key: Option<String>,
    /// Those with a key of this account, as far as they are recorded: `acct_…`.
    account: Option<String>,
    /// Those with a key of this mode: `live` or `test`.
    mode: Option<Mode>,
    /// Minutes that are counted together: 1 to 1,440, 60 when not given.
    #[param(minimum = 1, maximum = 1440)]
    step: Option<i64>,
}

/// How many decisions there were.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// The oldest first; where there were no decisions, there is nothing.
    pub(crate) items: Vec<Count>,
}

/// How many decisions there were in some minutes.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = DecisionCount)]
pub struct Count {
    /// When the minutes began.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) from: Timestamp,
    /// By reason.
    pub(crate) reasons: BTreeMap<Cow<'static, str>, u64>,
    /// By action and outcome.
    pub(crate) actions: BTreeMap<String, BTreeMap<Cow<'static, str>, u64>>,
}

/// The recorded decisions, the newest first: the last ones, and of older ones a few of each sort.
#[utoipa::path(
    get, path = "/v1/decisions", tag = "decisions", operation_id = "listDecisions", params(DecisionFilter),
    responses((status = 200, body = Page<Told>), Refusals)
)]
pub(super) async fn list_decisions(
    State(manage): State<Shared>,
    caller: Caller,
    Params(given): Params<DecisionFilter>,
) -> Result<Json<Page<Told>>, Refusal> {
    let filter =
        Filter { mode: given.mode, ..whose(&manage, &caller, given.key.as_deref(), given.account.as_deref())? };
    let reason = given.reason.as_deref().map(|code| {
        let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        Reason::named(code).ok_or_else(|| Refusal::invalid(Some("reason"), format!("give one of {}", names.join(", "))))
    });
    let filter = Filter {
        outcome: given.outcome.map(Into::into),
        reason: reason.transpose()?,
        action: given.action,
        since: given.since,
        ..filter
    };
    let paging = Paging { after: given.after, limit: given.limit };
    let (most, recorder) = (paging.most()?, recorder(&manage)?);
    let before = paging.behind(|after| after.parse().ok())?;
    // All that is recorded may have to be looked at.
    let looked = tokio::task::spawn_blocking(move || recorder.page(&filter, before, most + 1)).await;
    let mut records = looked.map_err(|error| Refusal::internal(&error))?;
    let next = paging.cut(&mut records, |record| record.id().to_string())?;
    Ok(Json(Page::uncounted(records.iter().map(Told::from).collect(), next)))
}

/// One decision, by its id or by the request's: the newest, where a request has several.
#[utoipa::path(
    get, path = "/v1/decisions/{decision}", tag = "decisions", operation_id = "getDecision",
    params(("decision" = String, Path, description = "`dec_…`, or the id of the request")),
    responses((status = 200, body = Told), Refusals)
)]
pub(super) async fn get_decision(
    State(manage): State<Shared>,
    caller: Caller,
    Path(decision): Path<String>,
) -> Result<Json<Told>, Refusal> {
    Ok(Json(Told::from(&recorded(&manage, &caller, decision).await?)))
}

/// Say why a recorded call is decided as it is: under the policies in force now, with the key as it was then.
#[utoipa::path(
    get, path = "/v1/decisions/{decision}/explanation", tag = "decisions", operation_id = "explainDecision",
    params(("decision" = String, Path, description = "`dec_…`, or the id of the request")),
    responses((status = 200, body = Explained), Refusals)
)]
pub(super) async fn explain_decision(
    State(manage): State<Shared>,
    caller: Caller,
    Path(decision): Path<String>,
) -> Result<Json<Explained>, Refusal> {
    let record = recorded(&manage, &caller, decision).await?;
    let revision = Arc::clone(&caller.revision);
    let explaining = tokio::task::spawn_blocking(move || {
        let Some(again) = Again::of(&record) else {
            let detail = format!("no policy was asked about this call: it is {}", record.ruling().reason.as_str());
            return Err(Refusal::new(StatusCode::CONFLICT, "not_decided_by_policies", detail));
        };
        let calling = again.caller().map_err(|error| Refusal::internal(&error))?;
        Ok(Explained::of(explain(&again.call(), &calling, &revision, record.time()), None))
    });
    explaining.await.map_err(|error| Refusal::internal(&error))?.map(Json)
}

/// The decision of this id, or the newest of this request, if the caller may read it.
async fn recorded(manage: &Shared, caller: &Caller, decision: String) -> Result<Record, Refusal> {
    let recorder = recorder(manage).or_else(|off| caller.may(Subject::System).and(Err(off)))?;
    let looked = tokio::task::spawn_blocking(move || match decision.parse::<RecordId>() {
        Ok(id) => recorder.get(id),
        Err(_) => recorder.find(&decision),
    });
    let Some(record) = looked.await.map_err(|error| Refusal::internal(&error))? else {
        return caller.may(Subject::System).and(Err(Refusal::not_found("recorded decision")));
    };
    may_read(manage, caller, &record)?;
    Ok(record)
}

/// How many decisions there were in the last day, by reason and by action. Of a key or an account, those that are
/// recorded are counted.
#[utoipa::path(
    get, path = "/v1/decisions/counts", tag = "decisions", operation_id = "countDecisions", params(CountFilter),
    responses((status = 200, body = Counts), Refusals)
)]
pub(super) async fn count_decisions(
    State(manage): State<Shared>,
    caller: Caller,
    Params(given): Params<CountFilter>,
) -> Result<Json<Counts>, Refusal> {
    let filter =
        Filter { mode: given.mode, ..whose(&manage, &caller, given.key.as_deref(), given.account.as_deref())? };
    let step = match given.step {
        None => STEP,
        Some(step @ 1..=1_440) => step,
        Some(_) => return Err(Refusal::invalid(Some("step"), "give 1 to 1440")),
    };
    let (recorder, now) = (recorder(&manage)?, Timestamp::now());
    let counted = tokio::task::spawn_blocking(move || {
        let is_all = filter.key.is_none() && filter.account.is_none() && filter.mode.is_none();
        if is_all { recorder.series(now) } else { recorder.series_of(&filter, now) }.by(step)
    });
    let counted = counted.await.map_err(|error| Refusal::internal(&error))?;
    let items =
        counted.into_iter().map(|(from, totals)| Count { from, reasons: totals.reasons, actions: totals.actions });
    Ok(Json(Counts { items: items.collect() }))
}

/// What is asked of the busiest.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TopFilter {
    /// Those with this key: `key_…`.
    key: Option<String>,
    /// Those with a key of this account: `acct_…`.
    account: Option<String>,
    /// Those with a key of this mode: `live` or `test`.
    mode: Option<Mode>,
}

/// Who calls most, and what. Of recorded decisions, of which older ones are samples.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct TopDecisions {
    /// When the oldest of these decisions was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) since: Option<Timestamp>,
    /// How many were counted.
    pub(crate) recorded: u64,
    pub(crate) keys: Vec<TopKey>,
    pub(crate) routes: Vec<TopRoute>,
    pub(crate) addresses: Vec<TopAddress>,
}

/// Decisions by their outcome.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Outcomes {
    pub(crate) allow: u64,
    pub(crate) unauthenticated: u64,
    pub(crate) forbidden: u64,
}

impl From<Tally> for Outcomes {
    fn from(tally: Tally) -> Self {
        let Tally { allow, unauthenticated, forbidden } = tally;
        Self { allow, unauthenticated, forbidden }
    }
}

/// A busy key.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct TopKey {
    /// `key_…`.
    pub(crate) key: String,
    /// Not there where the key is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Whose key it is: `acct_…`.
    pub(crate) account: String,
    #[serde(flatten)]
    pub(crate) outcomes: Outcomes,
}

/// A busy route.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct TopRoute {
    pub(crate) action: String,
    /// Its method and path, where the policies in force still have the action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<String>,
    #[serde(flatten)]
    pub(crate) outcomes: Outcomes,
}

/// A busy address.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct TopAddress {
    pub(crate) address: String,
    #[serde(flatten)]
    pub(crate) outcomes: Outcomes,
}

/// The ten busiest keys, routes and addresses among the recorded decisions.
#[utoipa::path(
    get, path = "/v1/decisions/top", tag = "decisions", operation_id = "listTopDecisions", params(TopFilter),
    responses((status = 200, body = TopDecisions), Refusals)
)]
pub(super) async fn list_top_decisions(
    State(manage): State<Shared>,
    caller: Caller,
    Params(given): Params<TopFilter>,
) -> Result<Json<TopDecisions>, Refusal> {
    let filter =
        Filter { mode: given.mode, ..whose(&manage, &caller, given.key.as_deref(), given.account.as_deref())? };
    let recorder = recorder(&manage)?;
    let top = tokio::task::spawn_blocking(move || recorder.top(&filter, BUSIEST)).await;
    let top = top.map_err(|error| Refusal::internal(&error))?;
    let key = |((key, account), tally): ((KeyId, AccountId), Tally)| TopKey {
        key: key.to_string(),
        name: manage.ledger().ring().key(&key).map(|live| live.key.name.to_string()),
        account: account.to_string(),
        outcomes: tally.into(),
    };
    let route = |(action, tally): (Arc<str>, Tally)| TopRoute {
        route: caller.revision.routes().find(|route| route.action_name == action).map(Route::to_string),
        action: action.to_string(),
        outcomes: tally.into(),
    };
    let address =
        |(address, tally): (IpAddr, Tally)| TopAddress { address: address.to_string(), outcomes: tally.into() };
    Ok(Json(TopDecisions {
        since: top.since,
        recorded: top.recorded,
        keys: top.keys.into_iter().map(key).collect(),
        routes: top.actions.into_iter().map(route).collect(),
        addresses: top.addresses.into_iter().map(address).collect(),
    }))
}

/// Every recorded decision, the oldest first, as JSON lines, for `keyward policy replay --from`.
#[utoipa::path(
    get, path = "/v1/decisions/export", tag = "decisions", operation_id = "exportDecisions",
    responses((status = 200, body = String, content_type = "application/jsonl"), Refusals)
)]
pub(super) async fn export_decisions(State(manage): State<Shared>, caller: Caller) -> Result<Response<Body>, Refusal> {
    caller.may(Subject::System)?;
    let recorder = recorder(&manage)?;
    let mut after = None;
    Ok(lines(move || {
        let records = recorder.chunk(after, CHUNK);
        after = records.last().map(Record::id).or(after);
        Ok::<_, std::convert::Infallible>(records.iter().map(Told::from).collect())
    }))
}

pub(super) fn recorder(manage: &Manage) -> Result<std::sync::Arc<Recorder>, Refusal> {
    if manage.recorder.is_off() {
        let detail = "no decisions are recorded; set `recorded.decisions` in the configuration";
        return Err(Refusal::new(StatusCode::CONFLICT, "not_recorded", detail));
    }
    Ok(std::sync::Arc::clone(&manage.recorder))
}

/// The decisions of the key, else of the account, else all of them, if the caller may read these.
pub(super) fn whose(
    manage: &Manage,
    caller: &Caller,
    key: Option<&str>,
    account: Option<&str>,
) -> Result<Filter, Refusal> {
    let filter = Filter::default();
    let filter = match (key, account) {
        (Some(key), _) => Filter { key: Some(seen_key(manage, caller, key)?.key.id), ..filter },
        (None, Some(account)) => {
            let live =
                find_account(manage, account).or_else(|missing| caller.may(Subject::System).and(Err(missing)))?;
            caller.may(Subject::Account(live.account.id))?;
            Filter { account: Some(live.account.id), ..filter }
        }
        (None, None) => {
            caller.may(Subject::System)?;
            filter
        }
    };
    match account.map(str::parse) {
        Some(Ok(account)) => Ok(Filter { account: Some(account), ..filter }),
        Some(Err(_)) => Err(Refusal::not_found("account")),
        None => Ok(filter),
    }
}

/// Whoever may read the key may read the decision.
fn may_read(manage: &Manage, caller: &Caller, record: &Record) -> Result<(), Refusal> {
    let live = record.key().and_then(|key| manage.ledger().ring().key(&key.id));
    caller.may(live.as_deref().map_or(Subject::System, |live| Subject::Key(&live.key))).map(drop)
}
