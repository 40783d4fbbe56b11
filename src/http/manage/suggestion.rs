//! Which scopes a key really needs, seen from what it did.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::decisions::recorder;
use super::keys::seen_key;
use super::permissions::permitted;
use super::refusal::{Refusal, Refusals};
use super::{Caller, Shared};
use crate::authorize::suppose::Supposed;
use crate::key::{Kind, Scope};
use crate::recorded::{Filter, KeyFacts, suggest};

/// What a key has used, and the scopes that are enough for it.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct SuggestedScopes {
    /// Decisions with the key that are recorded.
    pub(crate) decisions: u64,
    /// When the oldest of them was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) since: Option<Timestamp>,
    /// What the key was allowed, the most frequent first.
    pub(crate) actions: Vec<UsedAction>,
    /// Scopes of a restricted key that are enough for these actions, and of which none can go. None when nothing is
    /// recorded that a scope would grant.
    pub(crate) scopes: Vec<String>,
    /// Of a restricted key: those of its scopes that could go.
    pub(crate) unused: Vec<String>,
    /// Actions among these that the suggested scopes do not grant: no scope does, or the policies in force no longer let
    /// the key.
    pub(crate) uncovered: Vec<String>,
}

/// An action that a key was allowed.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct UsedAction {
    pub(crate) action: String,
    /// How often.
    pub(crate) allowed: u64,
}

/// Suggest scopes for a key: the fewest of its own that allow what it was allowed, as far as decisions are recorded; of a
/// secret or publishable key, those of a restricted key that could take its place. Asked of the policies in force.
#[utoipa::path(
    get, path = "/v1/keys/{key}/suggestion", tag = "keys", operation_id = "suggestScopes",
    params(("key" = String, Path, description = "`key_…`")),
    responses((status = 200, body = SuggestedScopes), Refusals)
)]
pub(super) async fn suggest_scopes(
    State(manage): State<Shared>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<Json<SuggestedScopes>, Refusal> {
    let live = seen_key(&manage, &caller, &key)?;
    let recorder = recorder(&manage)?;
    let (revision, now) = (Arc::clone(&caller.revision), caller.by.now);
    let suggesting = tokio::task::spawn_blocking(move || {
        let facts = KeyFacts::of(&live.key);
        let is_restricted = facts.kind == Kind::Restricted;
        let known: Vec<Scope> = revision.model().scopes.iter().map(|name| Scope::from(&**name)).collect();
        let has = if is_restricted { facts.scopes.to_vec() } else { known };
        let records = recorder.page(&Filter { key: Some(facts.id), ..Filter::default() }, None, usize::MAX);
        let breadth = |scope: &Scope| {
            let (account, mode, scopes) = (facts.account, facts.mode, vec![scope.clone()]);
            let supposed = Supposed { account, kind: Kind::Restricted, mode, scopes }.caller(now);
            supposed.map_or(0, |calling| permitted(&revision, &calling, now))
        };
        let found = suggest(&records, &facts, &has, breadth, &revision).map_err(|error| Refusal::internal(&error))?;
        let unused = has.iter().filter(|scope| is_restricted && !found.scopes.contains(scope));
        let mut actions: Vec<UsedAction> = found
            .actions
            .into_iter()
            .map(|(action, allowed)| UsedAction { action: action.to_string(), allowed })
            .collect();
        actions.sort_by_key(|used| std::cmp::Reverse(used.allowed));
        Ok(Json(SuggestedScopes {
            decisions: found.decisions,
            since: found.since,
            actions,
            scopes: found.scopes.iter().map(ToString::to_string).collect(),
            unused: unused.map(ToString::to_string).collect(),
            uncovered: found.uncovered.iter().map(ToString::to_string).collect(),
        }))
    });
    suggesting.await.map_err(|error| Refusal::internal(&error))?
}
