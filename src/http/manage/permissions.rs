//! What a key may do: each route, decided by the same authorizer as real calls.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::input::Params;
use super::keys::seen_key;
use super::refusal::{Refusal, Refusals};
use super::{Caller, Manage, Shared};
use crate::authorize::credentials::Credentials;
use crate::authorize::path::target_of;
use crate::authorize::verdict::Outcome;
use crate::authorize::{Call, Caller as Calling, RequestLine, Stated, Transport, authorize, authorize_by};
use crate::policy::{Revision, Route, stand_in};
use crate::ring::LiveKey;

/// What is supposed of the calls whose outcome is asked for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Supposed {
    /// The id of the item, on routes that are about one.
    item: Option<String>,
    /// The address that the calls come from; one that the key's list admits when not given.
    #[param(value_type = Option<String>)]
    address: Option<IpAddr>,
}

/// What a key may do.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Permissions {
    /// The digest of the policies that say so.
    pub(crate) revision: String,
    pub(crate) items: Vec<Permission>,
}

/// What becomes of one action.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Permission {
    pub(crate) action: String,
    pub(crate) method: String,
    pub(crate) path: String,
    /// `allow`, `unauthenticated` or `forbidden`.
    pub(crate) decision: Cow<'static, str>,
    pub(crate) reason: Cow<'static, str>,
    /// The policies that decide.
    pub(crate) policies: Vec<String>,
    /// Scopes, one of which would be enough.
    pub(crate) missing_scopes: Vec<String>,
}

/// What a key may do: each action, decided by the same authorizer as a real call over HTTPS.
#[utoipa::path(
    get, path = "/v1/keys/{key}/permissions", tag = "keys", operation_id = "getKeyPermissions",
    params(("key" = String, Path, description = "`key_…`"), Supposed),
    responses((status = 200, body = Permissions), Refusals)
)]
pub(super) async fn get_key_permissions(
    State(manage): State<Shared>,
    caller: Caller,
    Path(key): Path<String>,
    Params(supposed): Params<Supposed>,
) -> Result<Json<Permissions>, Refusal> {
    let live = seen_key(&manage, &caller, &key)?;
    // Many questions to Cedar: they are no work for a thread that others wait for.
    let asking = tokio::task::spawn_blocking(move || permissions(&manage, &caller, &live, &supposed));
    asking.await.map(Json).map_err(|error| Refusal::internal(&error))
}

fn permissions(manage: &Manage, caller: &Caller, live: &Arc<LiveKey>, supposed: &Supposed) -> Permissions {
    let revision = &caller.revision;
    let item = supposed.item.as_deref().unwrap_or("item");
    let address = supposed.address.or_else(|| live.key.addresses().first().map(ipnet::IpNet::addr));
    let permission = |route: &Route| {
        let target = target_to(revision, route, item);
        let call = Call {
            credentials: Credentials::None,
            transport: Transport::Secure,
            address,
            line: Some(RequestLine { method: &route.method, target: &target }),
            stated: Stated { item: Some(item), environment: None },
        };
        let calling = Calling::Proven(Arc::clone(live), live.key.secret.selector);
        let verdict = authorize_by(&call, calling, revision, manage.pdp.staleness().standing(), caller.by.now);
        Permission {
            action: route.action_name.to_string(),
            method: route.method.to_string(),
            path: route.template.to_string(),
            decision: verdict.reason.outcome().as_str().into(),
            reason: verdict.reason.as_str().into(),
            policies: verdict.policies.iter().map(ToString::to_string).collect(),
            missing_scopes: verdict.missing_scopes.iter().map(ToString::to_string).collect(),
        }
    };
    let items = revision.routes().map(permission).collect();
    Permissions { revision: revision.digest_text().to_owned(), items }
}

/// How many routes a caller may use, about an item of its own.
pub(super) fn permitted(revision: &Arc<Revision>, calling: &Calling, now: Timestamp) -> usize {
    let is_permitted = |route: &&Route| {
        let target = target_to(revision, route, "item");
        let call = Call {
            credentials: Credentials::None,
            transport: Transport::Secure,
            address: None,
            line: Some(RequestLine { method: &route.method, target: &target }),
            stated: Stated { item: None, environment: None },
        };
        authorize(&call, calling.clone(), revision, now).reason.outcome() == Outcome::Allow
    };
    revision.routes().filter(is_permitted).count()
}

/// A target that finds a route, about the item where a path can name it; else any text stands in its place.
fn target_to(revision: &Revision, route: &Route, item: &str) -> String {
    let of = |item: &str| Some(target_of(&revision.path_to(route, item)?)?.into_owned());
    // A route that no path finds is none of this revision's: then nothing is, and the answer is that there is no route.
    of(item).or_else(|| of(&stand_in(&[revision], "item"))).unwrap_or_default()
}
