//! A verdict as an HTTP answer: status, headers and, for a denial, a problem document; and a verdict as JSON.
//!
//! An allow carries every identity header, empty where there is nothing to say, so that a proxy that
//! copies them replaces whatever the client sent under these names.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::names;
use super::request_id::RequestId;
use crate::authorize::verdict::{Outcome, Reason, Verdict};
use crate::key::{AccountId, EnvironmentId, Key, KeyId, Kind, Mode, Scope};
use crate::pdp::Unavailable;

/// An error or a denial as a document (RFC 9457), with a stable `code`.
#[derive(Debug, Serialize)]
pub struct Problem<'a> {
    /// Always `about:blank`: the status says what kind of problem it is, the code which one.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The status in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// A sentence: what is wrong and what to do.
    pub detail: String,
    /// A stable code: a reason of a verdict, or `request_invalid` and the like.
    pub code: &'static str,
    /// The offending field of a request body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Names the request in the logs.
    pub request_id: &'a str,
    /// The scopes, one of which would have been enough.
    #[serde(skip_serializing_if = "<[Scope]>::is_empty")]
    pub missing_scopes: &'a [Scope],
}

impl<'a> Problem<'a> {
    /// A problem without field and scopes.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>, request_id: &'a RequestId) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            field: None,
            request_id: request_id.as_str(),
            missing_scopes: &[],
        }
    }

    /// The answer to a request that gets no further, and has no id yet.
    pub fn at_once(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Response<Body> {
        Problem::new(status, code, detail, &RequestId::fresh()).into_response()
    }

    /// The answer that carries it.
    pub fn into_response(self) -> Response<Body> {
        // Invariant: strings, numbers and a list of strings; serialising them cannot fail.
        let mut response = Response::new(Body::from(serde_json::to_vec(&self).unwrap_or_default()));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        put(headers, names::REQUEST_ID, self.request_id);
        response
    }
}

/// A decision, as JSON.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Verdict)]
pub struct Decided {
    /// `allow`, `unauthenticated` or `forbidden`.
    pub(crate) decision: Cow<'static, str>,
    /// The status that goes with it: 200, 401 or 403.
    pub(crate) status: u16,
    /// A stable code.
    pub(crate) reason: Cow<'static, str>,
    /// A sentence: what is wrong and what to do.
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) www_authenticate: Option<String>,
    /// The key that was proven, and what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) key: Option<KeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) account: Option<AccountId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) environment: Option<EnvironmentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub(crate) scopes: Option<Vec<Scope>>,
    /// The action that the route names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) action: Option<String>,
    /// The policies that decided.
    pub(crate) policies: Vec<String>,
    /// Scopes, one of which would be enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, required = false)]
    pub(crate) missing_scopes: Vec<Scope>,
    /// The digest of the policies that were asked.
    pub(crate) revision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
}

impl Decided {
    /// What is told of a verdict, in a realm, about the request of this id.
    pub fn of(verdict: &Verdict, realm: Option<&str>, request_id: Option<&str>) -> Self {
        let key = verdict.key.as_deref().map(|live| &live.key);
        let outcome = verdict.reason.outcome();
        Self {
            decision: outcome.as_str().into(),
            status: outcome.status(),
            reason: verdict.reason.as_str().into(),
            message: message(verdict),
            www_authenticate: realm.and_then(|realm| challenge(verdict, realm)),
            key: key.map(|key| key.id),
            account: key.map(|key| key.account),
            environment: key.map(Key::environment),
            mode: key.map(|key| key.mode),
            kind: key.map(|key| key.kind),
            scopes: key.map(|key| key.scopes.to_vec()),
            action: verdict.action.as_deref().map(str::to_owned),
            policies: verdict.policies.iter().map(ToString::to_string).collect(),
            missing_scopes: verdict.missing_scopes.to_vec(),
            revision: verdict.revision.digest_text().to_owned(),
            request_id: request_id.map(str::to_owned),
        }
    }
}

/// No decision could be made: 503, which every proxy takes for a denial, and never a 401.
pub fn unavailable(error: Unavailable, request_id: &RequestId) -> Response<Body> {
    let code = match error {
        Unavailable::Busy => "busy",
        Unavailable::Store => "store_unavailable",
        Unavailable::Log => "log_unavailable",
    };
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string(), request_id);
    let mut response = problem.into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The answer of forward-auth.
pub fn verdict(verdict: &Verdict, realm: &str, request_id: &RequestId) -> Response<Body> {
    let mut response = match verdict.reason.outcome() {
        Outcome::Allow => allow(verdict, request_id),
        Outcome::Unauthenticated | Outcome::Forbidden => deny(verdict, realm, request_id),
    };
    let headers = response.headers_mut();
    headers.insert(names::REASON, HeaderValue::from_static(verdict.reason.as_str()));
    put(headers, names::REVISION, verdict.revision.digest_text());
    response
}

fn allow(verdict: &Verdict, request_id: &RequestId) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.reserve(16);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    put(headers, names::REQUEST_ID, request_id.as_str());
    match verdict.key.as_deref() {
        Some(live) => {
            let key = &live.key;
            let environment = key.environment().to_string();
            put(headers, names::ACCOUNT, environment.split('/').next().unwrap_or_default());
            put(headers, names::ENVIRONMENT, &environment);
            headers.insert(names::MODE, HeaderValue::from_static(key.mode.as_str()));
            put(headers, names::KEY, &key.id.to_string());
            headers.insert(names::KIND, HeaderValue::from_static(key.kind.as_str()));
            put(headers, names::SCOPES, &spaced(&key.scopes));
        }
        None => {
            for name in [names::ACCOUNT, names::ENVIRONMENT, names::MODE, names::KEY, names::KIND, names::SCOPES] {
                headers.insert(name, HeaderValue::from_static(""));
            }
        }
    }
    response
}

fn deny(verdict: &Verdict, realm: &str, request_id: &RequestId) -> Response<Body> {
    let status = StatusCode::from_u16(verdict.reason.outcome().status()).unwrap_or(StatusCode::FORBIDDEN);
    let problem = Problem {
        missing_scopes: &verdict.missing_scopes,
        ..Problem::new(status, verdict.reason.as_str(), message(verdict), request_id)
    };
    let mut response = problem.into_response();
    if let Some(challenge) = challenge(verdict, realm) {
        put(response.headers_mut(), WWW_AUTHENTICATE, &challenge);
    }
    response
}

/// What is wrong and what to do, with the scopes that would help.
pub fn message(verdict: &Verdict) -> String {
    let sentence = verdict.reason.message();
    if verdict.missing_scopes.is_empty() {
        return sentence.to_owned();
    }
    format!("{sentence} One of these would do: {}.", spaced(&verdict.missing_scopes).replace(' ', ", "))
}

/// The WWW-Authenticate header of a denial (RFC 6750, section 3): on every 401, and on a 403 for scope.
pub fn challenge(verdict: &Verdict, realm: &str) -> Option<String> {
    match (verdict.reason.outcome(), verdict.reason) {
        (Outcome::Unauthenticated, Reason::CredentialsMissing | Reason::PeerUntrusted) => {
            Some(format!("Bearer realm=\"{realm}\""))
        }
        (Outcome::Unauthenticated, _) => Some(format!("Bearer realm=\"{realm}\", error=\"invalid_token\"")),
        (Outcome::Forbidden, Reason::ScopeMissing) => Some(format!(
            "Bearer realm=\"{realm}\", error=\"insufficient_scope\", scope=\"{}\"",
            spaced(&verdict.missing_scopes)
        )),
        (Outcome::Forbidden | Outcome::Allow, _) => None,
    }
}

fn spaced(scopes: &[Scope]) -> String {
    scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")
}

/// Sets a header. What cannot stand in one (our own values can) is sent empty rather than not at all,
/// so that a name is never left for the client to fill.
fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    headers.insert(name, HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static("")));
}
