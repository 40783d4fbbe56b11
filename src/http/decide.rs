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
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::answer::{self, Decided, Problem};
use super::json::{self, Object, Unread};
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
    resource: Option<Object<ResourceField<'a>>>,
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
    items: Vec<Object<Question<'a>>>,
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

impl From<Unread> for Invalid {
    fn from(unread: Unread) -> Self {
        Self { field: unread.field, detail: masked(&unread.detail).into_owned() }
    }
}

/// A body that its sender calls JSON.
pub struct JsonBody(Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Response<Body>;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response<Body>> {
        if !json::is_json(request.headers()) {
            let detail = "send the question as JSON, with `Content-Type: application/json`";
            return Err(Problem::at_once(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type_unsupported", detail));
        }
        let read = Bytes::from_request(request, state).await;
        read.map(Self).map_err(IntoResponse::into_response)
    }
}

/// `POST /v1/authorize`.
pub async fn authorize(
    State(decision): State<Arc<Decision>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    JsonBody(body): JsonBody,
) -> Response<Body> {
    let request_id = RequestId::fresh();
    let question = match json::read::<Object<Question<'_>>>(&body) {
        Ok(Object(question)) => question,
        Err(unread) => return refuse(unread.into(), &request_id),
    };
    let call = match call(&question) {
        Ok(call) => call,
        Err(invalid) => return refuse(invalid, &request_id),
    };
    match decide(&decision, &question, &of_peer(&decision, peer, call), &request_id).await {
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
    let batch = match json::read::<Object<Batch<'_>>>(&body) {
        Ok(Object(batch)) if batch.items.len() <= MOST_ITEMS => batch,
        Ok(Object(batch)) => {
            let detail =
                format!("{} items, and at most {MOST_ITEMS} are taken; send several batches", batch.items.len());
            return refuse(Invalid::of("items", detail), &request_id);
        }
        Err(unread) => return refuse(unread.into(), &request_id),
    };
    // All are read before any is decided: a decision may mark a key, and a batch is refused whole.
    let read: Result<Vec<Call<'_>>, Invalid> = (0..)
        .zip(&batch.items)
        .map(|(at, Object(question))| call(question).map_err(|invalid: Invalid| invalid.within(at)))
        .collect();
    let calls = match read {
        Ok(calls) => calls,
        Err(invalid) => return refuse(invalid, &request_id),
    };
    let mut items = Vec::with_capacity(calls.len());
    for (Object(question), call) in batch.items.iter().zip(calls) {
        match decide(&decision, question, &of_peer(&decision, peer, call), &request_id).await {
            Ok(answer) => items.push(answer),
            Err(error) => return answer::unavailable(error, &request_id),
        }
        // A batch of warm keys never waits, and must not keep its thread from other calls.
        tokio::task::consume_budget().await;
    }
    let request_id_text = request_id.as_str().to_owned();
    decision.dated(found(Json(BatchAnswer { items, request_id: request_id_text }), &request_id))
}

async fn decide<'a>(
    decision: &Decision,
    question: &'a Question<'_>,
    call: &Call<'a>,
    request_id: &RequestId,
) -> Result<Decided, Unavailable> {
    let answer = |verdict: &_| Decided::of(verdict, Some(&decision.config.realm), Some(request_id.as_str()));
    let sent = [question.authorization.as_deref(), question.token.as_deref()];
    decision.decide(call, sent.into_iter().flatten().map(str::as_bytes), request_id, answer).await
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
    let resource = question.resource.as_ref().map(|Object(resource)| resource);
    let item = resource.and_then(|resource| resource.id.as_deref());
    Ok(Call {
        credentials,
        transport: match question.scheme {
            Scheme::Https => Transport::Secure,
            Scheme::Http => Transport::Insecure,
        },
        address: question.ip,
        line: Some(RequestLine { method: &question.method, target: &question.path }),
        stated: Stated { item, environment: resource.and_then(|resource| resource.environment) },
    })
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
