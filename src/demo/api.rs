//! A small Docs API, as a customer of Keyward would write one: it asks about each call before anything else.
//!
//! It knows no keys and no permissions. The answer says whether to go on, which action the call is, and whose
//! data it may touch; without an answer nothing is served.
//!
//! Pages of any origin may call it, since a publishable key is made for them: what a browser asks before that has no key, and is
//! answered here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_http::cors::{Any, CorsLayer};

use super::collection::ItemKind::{Job, Resource, Webhook};
use super::collection::{ApiError, Collection, merge};
use crate::daemon::Daemon;
use crate::outbound;
use crate::store::Store;

/// Bytes of a body.
const LARGEST_BODY: usize = 64 * 1024;

struct Api {
    store: Arc<dyn Store>,
    client: reqwest::Client,
    /// The daemon's `/v1/authorize`.
    authorize_url: String,
    /// What this listener speaks.
    scheme: &'static str,
}

/// What the daemon says, as far as the API needs it.
#[derive(Deserialize)]
struct Decision {
    #[serde(rename = "decision")]
    outcome: String,
    status: u16,
    reason: String,
    message: String,
    environment: Option<String>,
    action: Option<String>,
    www_authenticate: Option<String>,
    #[serde(default)]
    missing_scopes: Vec<String>,
    request_id: String,
}

/// The API on a listener that speaks `scheme`.
pub(super) fn router(daemon: &Daemon, scheme: &'static str) -> Result<Router, String> {
    let client = outbound::plain().timeout(Duration::from_secs(5)).build().map_err(|error| error.to_string())?;
    let api = Api {
        store: Arc::clone(&daemon.store),
        client,
        authorize_url: format!("http://{}/v1/authorize", daemon.decision_addr),
        scheme,
    };
    let api = Router::new().fallback(handle).with_state(Arc::new(api));
    let to_pages = api.clone().layer(cors());
    Ok(Router::new().fallback(move |request: Request| {
        // The layer takes every OPTIONS for a preflight. One that is none is a call like others.
        let is_call = *request.method() == Method::OPTIONS && !is_preflight(request.headers());
        if is_call { api.clone() } else { to_pages.clone() }.oneshot(request)
    }))
}

/// What browsers are told: any page may call, with a key, and may read why it was refused.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE])
        .expose_headers([WWW_AUTHENTICATE, RETRY_AFTER])
        .max_age(Duration::from_hours(1))
}

/// Whether it is what a browser asks before a page's call (the Fetch standard, section 3.3).
fn is_preflight(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

async fn handle(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response<Body> {
    let question = api.question(peer, &request);
    let Some(decision) = api.ask(&question).await else {
        return unavailable();
    };
    match (decision.outcome.as_str(), &decision.environment, &decision.action) {
        ("allow", Some(environment), Some(action)) => api.perform(environment.clone(), action.clone(), request).await,
        ("unauthenticated" | "forbidden", _, _) => denied(&decision),
        // An anonymous call that a policy allows belongs to no environment, so there is no data to give.
        ("allow", None, _) => answer(StatusCode::OK, &json!({ "object": "list", "data": [], "has_more": false })),
        _ => unavailable(),
    }
}

impl Api {
    /// What to ask the daemon about a call.
    fn question(&self, peer: SocketAddr, request: &Request) -> Value {
        let mut question = json!({
            "method": request.method().as_str(),
            "path": request.uri().path_and_query().map_or("", |path| path.as_str()),
            "scheme": self.scheme,
            "ip": peer.ip().to_canonical(),
        });
        if let Some(header) = authorization(request.headers()) {
            merge(&mut question, json!({ "authorization": header }));
        }
        question
    }

    /// The daemon's answer; none when it cannot be had, or is not one.
    async fn ask(&self, question: &Value) -> Option<Decision> {
        let response = self.client.post(&self.authorize_url).json(question).send().await.ok()?;
        response.error_for_status().ok()?.json().await.ok()
    }

    /// Does what was allowed.
    async fn perform(&self, environment: String, action: String, request: Request) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().map(str::to_owned);
        let Ok(body) = to_bytes(request.into_body(), LARGEST_BODY).await else {
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is larger than 64 KiB.", None);
        };
        let store = Arc::clone(&self.store);
        let work = move || {
            let of = |kind| Collection { store, environment, kind };
            let id = item_id(&path);
            let query = query.as_deref();
            let done = match action.as_str() {
                "listResources" => of(Resource).list(query),
                "getResource" => of(Resource).get(id),
                "createResource" => of(Resource).create(&body),
                "updateResource" => of(Resource).update(id, &body),
                "deleteResource" => of(Resource).delete(id),
                "listJobs" => of(Job).list(query),
                "getJob" => of(Job).get(id),
                "enqueueJob" => of(Job).create(&body),
                "cancelJob" => of(Job).cancel(id),
                "listWebhooks" => of(Webhook).list(query),
                "getWebhook" => of(Webhook).get(id),
                "createWebhook" => of(Webhook).create(&body),
                "updateWebhook" => of(Webhook).update(id, &body),
                "deleteWebhook" => of(Webhook).delete(id),
                _ => return None,
            };
            let status = match action.as_str() {
                "createResource" | "createWebhook" => StatusCode::CREATED,
                "enqueueJob" => StatusCode::ACCEPTED,
                _ => StatusCode::OK,
            };
            Some((status, done))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Some((status, Ok(value)))) => answer(status, &value),
            Ok(Some((_, Err(error)))) => failed(&error),
            Ok(None) => problem(
                StatusCode::NOT_IMPLEMENTED,
                "not_implemented",
                "The schema has this action; this demo does not.",
                None,
            ),
            Err(_) => unavailable(),
        }
    }
}

/// The Authorization header as one text; several stay several, for the daemon to refuse.
fn authorization(headers: &HeaderMap) -> Option<String> {
    let values: Vec<_> =
        headers.get_all(AUTHORIZATION).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// The third segment of `/v1/things/{id}` and `/v1/things/{id}/verb`.
fn item_id(path: &str) -> &str {
    path.split('/').filter(|segment| !segment.is_empty()).nth(2).unwrap_or_default()
}

fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn problem(status: StatusCode, code: &str, detail: &str, more: Option<Value>) -> Response<Body> {
    let mut document = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    merge(&mut document, more.unwrap_or_default());
    let mut response = answer(status, &document);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

fn denied(decision: &Decision) -> Response<Body> {
    let status = StatusCode::from_u16(decision.status).unwrap_or(StatusCode::FORBIDDEN);
    let mut more = json!({ "request_id": decision.request_id });
    if !decision.missing_scopes.is_empty() {
        merge(&mut more, json!({ "missing_scopes": decision.missing_scopes }));
    }
    let mut response = problem(status, &decision.reason, &decision.message, Some(more));
    let challenge = decision.www_authenticate.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
    if let Some(challenge) = challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Without a decision nothing is served.
fn unavailable() -> Response<Body> {
    let detail = "The call could not be authorized just now. Try again.";
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "authorization_unavailable", detail, None);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn failed(error: &ApiError) -> Response<Body> {
    match error {
        ApiError::NotFound => problem(StatusCode::NOT_FOUND, "not_found", "There is no such item.", None),
        ApiError::Invalid(field, why) => problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            &format!("{field}: {why}"),
            Some(json!({ "field": field })),
        ),
        ApiError::Conflict(why) => problem(StatusCode::CONFLICT, "conflict", why, None),
        ApiError::Store => unavailable(),
    }
}
