//! `POST /v1/authorize` and `/v1/authorize/batch`: a service asks about a call that it has received.
//!
//! The service vouches for what it says, the scheme included; a call that it describes is decided as if
//! a trusted proxy had forwarded it, and so the service has to be as trusted as one. The HTTP status speaks of
//! the question, the `decision` of the call.
//!
//! A browser on a trusted machine is as trusted as its services are. It sends other sites' forms without asking, but never as JSON:
//! hence the content type is demanded.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, FromRequest, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::answer::{self, Decided, Problem};
use super::request_id::RequestId;
use super::{Decision, names};
use crate::authorize::credentials::Credentials;
use crate::authorize::{Call, RequestLine, Stated, Transport};
use crate::key::{EnvironmentId, masked};
use crate::pdp::Unavailable;

/// The most items of one batch.
const MOST_ITEMS: usize = 1_000;

/// A question about one call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question<'a> {
    /// The raw Authorization header. Without it and `token`, the call is anonymous.
    #[serde(borrow, default)]
    authorization: Option<Cow<'a, str>>,
    /// The token alone.
    #[serde(borrow, default)]
    token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    #[serde(default)]
    scheme: Scheme,
    #[serde(default)]
    ip: Option<IpAddr>,
    #[serde(borrow, default)]
    resource: Option<ResourceField<'a>>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    #[default]
    Https,
    Http,
}

/// The thing that the call is about, where the service knows better than the path. On a collection
/// route the environment alone counts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceField<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    environment: Option<EnvironmentId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    items: Vec<Question<'a>>,
}

#[derive(Serialize)]
struct BatchAnswer {
    items: Vec<Decided>,
    request_id: String,
}

/// A body that is not the question it should be.
struct Invalid {
    field: Option<String>,
    detail: String,
}

impl Invalid {
    fn of(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: Some(field.into()), detail: detail.into() }
    }

    fn within(self, item: usize) -> Self {
        let field = self.field.map_or_else(|| format!("items[{item}]"), |field| format!("items[{item}].{field}"));
        Self { field: Some(field), ..self }
    }
}

/// A body that its sender calls JSON.
pub struct JsonBody(Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Response<Body>;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response<Body>> {
        if !is_json(request.headers()) {
            let detail = "send the question as JSON, with `Content-Type: application/json`";
            let request_id = RequestId::fresh();
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Problem::new(status, "media_type_unsupported", detail, &request_id).into_response());
        }
        let read = Bytes::from_request(request, state).await;
        read.map(Self).map_err(IntoResponse::into_response)
    }
}

/// Whether a body is said, once, to be `application/json`, or a format on top of it (RFC 6839, section 3.1).
fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let media = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.strip_prefix("application/") {
        Some("json") => true,
        Some(format) => format.strip_suffix("+json").is_some_and(|name| !name.is_empty()),
        None => false,
    }
}

/// `POST /v1/authorize`.
pub async fn authorize(
    State(decision): State<Arc<Decision>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    JsonBody(body): JsonBody,
) -> Response<Body> {
    let request_id = RequestId::fresh();
    let question = match read::<Question<'_>>(&body) {
        Ok(question) => question,
        Err(invalid) => return refuse(invalid, &request_id),
    };
    let call = match call(&question) {
        Ok(call) => call,
        Err(invalid) => return refuse(invalid, &request_id),
    };
    match decide(&decision, &of_peer(&decision, peer, call), &request_id).await {
        Ok(answer) => decision.dated(found(Json(answer), &request_id)),
        Err(error) => answer::unavailable(error, &request_id),
    }
}

/// `POST /v1/authorize/batch`.
pub async fn authorize_batch(
    State(decision): State<Arc<Decision>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    JsonBody(body): JsonBody,
) -> Response<Body> {
    let request_id = RequestId::fresh();
    let batch = match read::<Batch<'_>>(&body) {
        Ok(batch) if batch.items.len() <= MOST_ITEMS => batch,
        Ok(batch) => {
            let detail =
                format!("{} items, and at most {MOST_ITEMS} are taken; send several batches", batch.items.len());
            return refuse(Invalid::of("items", detail), &request_id);
        }
        Err(invalid) => return refuse(invalid, &request_id),
    };
    // All are read before any is decided: a decision may mark a key, and a batch is refused whole.
    let read: Result<Vec<Call<'_>>, Invalid> = (0..)
        .zip(&batch.items)
        .map(|(at, question)| call(question).map_err(|invalid: Invalid| invalid.within(at)))
        .collect();
    let calls = match read {
        Ok(calls) => calls,
        Err(invalid) => return refuse(invalid, &request_id),
    };
    let mut items = Vec::with_capacity(calls.len());
    for call in calls {
        match decide(&decision, &of_peer(&decision, peer, call), &request_id).await {
            Ok(answer) => items.push(answer),
            Err(error) => return answer::unavailable(error, &request_id),
        }
        // A batch of warm keys never waits, and must not keep its thread from other calls.
        tokio::task::consume_budget().await;
    }
    let request_id_text = request_id.as_str().to_owned();
    decision.dated(found(Json(BatchAnswer { items, request_id: request_id_text }), &request_id))
}

async fn decide(decision: &Decision, call: &Call<'_>, request_id: &RequestId) -> Result<Decided, Unavailable> {
    let answer = |verdict: &_| Decided::of(verdict, Some(&decision.config.realm), Some(request_id.as_str()));
    decision.decide(call, request_id, answer).await
}

/// The call, if this peer is believed.
fn of_peer<'a>(decision: &Decision, peer: SocketAddr, call: Call<'a>) -> Call<'a> {
    if decision.trusts(peer.ip()) { call } else { Call::distrusted() }
}

fn call<'a>(question: &'a Question<'_>) -> Result<Call<'a>, Invalid> {
    let credentials = match (question.authorization.as_deref(), question.token.as_deref()) {
        (Some(_), Some(_)) => {
            return Err(Invalid::of("token", "give `authorization` or `token`, not both"));
        }
        (Some(header), None) => Credentials::of_header(header.as_bytes()),
        (None, Some(token)) => Credentials::of_token(token.as_bytes()),
        (None, None) => Credentials::None,
    };
    let item = question.resource.as_ref().and_then(|resource| resource.id.as_deref());
    Ok(Call {
        credentials,
        transport: match question.scheme {
            Scheme::Https => Transport::Secure,
            Scheme::Http => Transport::Insecure,
        },
        address: question.ip,
        line: Some(RequestLine { method: &question.method, target: &question.path }),
        stated: Stated { item, environment: question.resource.as_ref().and_then(|resource| resource.environment) },
    })
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Invalid> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let detail = masked(&error.inner().to_string()).into_owned();
        Invalid { field: (path != ".").then_some(path), detail }
    })?;
    json.end().map_err(|error| Invalid { field: None, detail: error.to_string() })?;
    Ok(value)
}

fn refuse(invalid: Invalid, request_id: &RequestId) -> Response<Body> {
    let problem = Problem {
        field: invalid.field.map(|field| masked(&field).into_owned()),
        ..Problem::new(StatusCode::BAD_REQUEST, "request_invalid", invalid.detail, request_id)
    };
    problem.into_response()
}

fn found(answer: impl IntoResponse, request_id: &RequestId) -> Response<Body> {
    let mut response = answer.into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        headers.insert(names::REQUEST_ID, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_called_json_once_is_json() {
        for (given, expected) in [
            (&["application/json"][..], true),
            (&["Application/JSON ; charset=utf-8"], true),
            (&["application/vnd.example+json"], true),
            (&[], false),
            (&[""], false),
            (&["text/plain"], false),
            (&["text/plain; application/json"], false),
            (&["text/json"], false),
            (&["application/jsonp"], false),
            (&["application/+json"], false),
            (&["application/x-www-form-urlencoded"], false),
            (&["multipart/form-data; boundary=application/json"], false),
            (&["application/json", "text/plain"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            assert_eq!(is_json(&headers), expected, "{given:?}");
        }
    }
}
