//! Why a call is decided as it is, over HTTP: about a key, a token, a key that is only supposed, or no key at all.
//!
//! Nothing comes of it. A token that is given here is looked up and neither used, marked, logged nor repeated.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::super::answer::Decided;
use super::input::Input;
use super::keys::{scopes, seen_key};
use super::refusal::{Refusal, Refusals};
use super::{Caller, Manage, Shared, blocking};
use crate::authorize::credentials::Credentials;
use crate::authorize::explain::{Explained, Explanation, explain};
use crate::authorize::manage::Subject;
use crate::authorize::suppose::Supposed;
use crate::authorize::{Call, Caller as Calling, RequestLine, Stated, Transport};
use crate::http::json::time;
use crate::key::{AccountId, EnvironmentId, Kind, Mode};

/// A call that is to be explained. At most one of `key`, `token` and `suppose` is given; without, it is a call without
/// credentials.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// The key that makes it: `key_…`.
    key: Option<String>,
    /// The token that it is made with.
    #[schema(value_type = Option<String>)]
    token: Option<Zeroizing<String>>,
    /// A key to be supposed.
    suppose: Option<SupposedKey>,
    #[schema(example = "GET")]
    method: String,
    #[schema(example = "/v1/resources")]
    path: String,
    #[serde(default)]
    scheme: Scheme,
    /// Where it comes from.
    #[schema(value_type = Option<String>)]
    ip: Option<IpAddr>,
    /// What it is about, where that is not what the path says.
    resource: Option<Resource>,
    /// When it is made, from 1970 on; now when not given.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default, deserialize_with = "time")]
    at: Option<Timestamp>,
}

/// A key that is only supposed, of an account that is only supposed, too.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SupposedKey {
    kind: Kind,
    mode: Mode,
    /// What a restricted key is granted: at least one for that kind, none for the others.
    #[serde(default)]
    scopes: Vec<String>,
}

/// How a call travels.
#[derive(Deserialize, ToSchema, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Over TLS.
    #[default]
    Https,
    /// In the clear.
    Http,
}

/// The thing that a call is about.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// The item's id; without it, the path's.
    id: Option<String>,
    /// `acct_…/live` or `acct_…/test`; of the key's own account `live` or `test` will do. Without it, the key's own.
    environment: Option<String>,
}

/// A decision, and why.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = ExplainedCall)]
pub struct Told {
    pub(crate) verdict: Decided,
    #[serde(flatten)]
    pub(crate) explanation: Explanation,
}

impl Told {
    /// What is told of an explanation that the request of this id asked for.
    pub fn of(explained: Explained, request_id: Option<&str>) -> Self {
        Self { verdict: Decided::of(&explained.verdict, None, request_id), explanation: explained.explanation }
    }
}

/// Say what a call comes to, which policies decide, what they saw, and what would help. It is not made: no use is noted,
/// and no token is marked.
#[utoipa::path(
    post, path = "/v1/explain", tag = "keys", operation_id = "explain", request_body = Explain,
    responses((status = 200, body = Told), Refusals)
)]
pub(super) async fn explain_call(
    State(manage): State<Shared>,
    caller: Caller,
    Input(asked, _): Input<Explain>,
) -> Result<Json<Told>, Refusal> {
    let calling = manage.calling(&caller, &asked).await?;
    let environment = environment(&asked, &calling)?;
    let now = asked.at.unwrap_or(caller.by.now);
    if now < Timestamp::UNIX_EPOCH {
        return Err(Refusal::invalid(Some("at"), "give a time from 1970 on"));
    }
    let (revision, request_id) = (Arc::clone(&caller.revision), caller.by.request_id.clone());
    let told = blocking(move || {
        let call = Call {
            credentials: Credentials::None,
            transport: match asked.scheme {
                Scheme::Https => Transport::Secure,
                Scheme::Http => Transport::Insecure,
            },
            address: asked.ip,
            line: Some(RequestLine { method: &asked.method, target: &asked.path }),
            stated: Stated { item: asked.resource.as_ref().and_then(|resource| resource.id.as_deref()), environment },
        };
        Ok(Told::of(explain(&call, &calling, &revision, now), request_id.as_deref()))
    });
    told.await.map(Json)
}

impl Manage {
    /// Who makes the call, if the one who asks may know what that comes to.
    async fn calling(&self, caller: &Caller, asked: &Explain) -> Result<Calling, Refusal> {
        match (&asked.key, &asked.token, &asked.suppose) {
            (Some(key), None, None) => {
                let live = seen_key(self, caller, key)?;
                let selector = live.key.secret.selector;
                Ok(Calling::Proven(live, selector))
            }
            (None, Some(token), None) => {
                let credentials = Credentials::of_token(token.trim().as_bytes());
                let calling = self.pdp.identify(&credentials).await.map_err(|busy| super::users::too_busy(&busy))?;
                let subject = match &calling {
                    Calling::Proven(live, _) => Subject::Key(&live.key),
                    _ => Subject::System,
                };
                caller.may(subject)?;
                Ok(calling)
            }
            (None, None, Some(key)) => {
                let now = caller.may(Subject::System)?.now;
                let scopes = scopes(caller, &key.scopes).map_err(|refusal| refusal.within("suppose"))?;
                let supposed = Supposed { account: AccountId::EXAMPLE, kind: key.kind, mode: key.mode, scopes };
                supposed.caller(now).map_err(|error| Refusal::from(error).within("suppose"))
            }
            (None, None, None) => {
                caller.may(Subject::System)?;
                Ok(Calling::Anonymous)
            }
            _ => Err(Refusal::invalid(None, "give one of `key`, `token` and `suppose`, or none of them")),
        }
    }
}

/// The environment that the call names.
fn environment(asked: &Explain, calling: &Calling) -> Result<Option<EnvironmentId>, Refusal> {
    let Some(text) = asked.resource.as_ref().and_then(|resource| resource.environment.as_deref()) else {
        return Ok(None);
    };
    let of_key = || match calling {
        Calling::Proven(live, _) => Some(EnvironmentId { mode: text.parse().ok()?, ..live.key.environment() }),
        _ => None,
    };
    let environment = text.parse().ok().or_else(of_key);
    let invalid = "give `acct_…/live` or `acct_…/test`, or with a key `live` or `test` of its account";
    environment.map(Some).ok_or_else(|| Refusal::invalid(Some("resource.environment"), invalid))
}
