//! The management API: people and scripts see and change accounts, keys and people, as far as policies let them.
//!
//! A request passes one layer before its handler. The layer finds out who calls, finds the operation by method and
//! path in the schema's `@http` annotations, and hands the handler a `Caller`. The handler finds what the operation
//! is about and asks `Caller::may`; a handler that answers without having asked is a fault, and its answer is
//! withheld. Nothing is decided here: the answer is the policies'.

mod accounts;
mod backup;
pub(crate) mod decisions;
mod document;
mod events;
pub mod explain;
pub(crate) mod figures;
mod input;
mod key_list;
pub(crate) mod keys;
mod leaks;
mod live;
pub(crate) mod me;
mod once;
mod paging;
pub(crate) mod permissions;
pub(crate) mod playground;
pub(crate) mod policies;
mod refusal;
pub(crate) mod shadow;
pub(crate) mod suggestion;
mod transfer;
pub(crate) mod users;
pub(crate) mod view;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use axum::http::request;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use utoipa::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

pub use self::live::READERS;
use self::once::Recent;
use self::refusal::Refusal;
use super::names;
use super::request_id::RequestId;
use super::source::client_address;
use crate::activate::Activator;
use crate::authorize::manage::{Asking, Subject, manage};
use crate::evaluation::Evaluation;
use crate::key::{Cost, Selector};
use crate::ledger::{Ledger, LedgerError, SIGNED_IN};
use crate::pdp::Pdp;
use crate::people::{Role, Throttle, User};
use crate::policy::{Operation, Revision};
use crate::recorded::Recorder;
use crate::ring::LiveAccount;
use crate::shadow::Shadow;
use crate::trail::{Actor, By};

/// What the management API is made of.
pub struct Parts {
    /// Decides, and holds accounts, keys and people.
    pub pdp: Arc<Pdp>,
    /// What is in force.
    pub activator: Arc<Activator>,
    /// What was decided.
    pub recorder: Arc<Recorder>,
    /// What is being tried.
    pub shadow: Arc<Shadow>,
    /// Argon2's costs for new secrets.
    pub cost: Cost,
    /// Who is believed when they state for whom they call.
    pub proxies: Vec<IpNet>,
    /// A rotation that is due within this is due soon.
    pub soon: SignedDuration,
    /// Turns true when the daemon ends.
    pub stop: watch::Receiver<bool>,
}

/// What the operations share.
pub struct Manage {
    pdp: Arc<Pdp>,
    activator: Arc<Activator>,
    /// What was decided.
    recorder: Arc<Recorder>,
    /// What is being tried.
    shadow: Arc<Shadow>,
    /// Argon2's costs for new secrets.
    cost: Cost,
    throttle: Throttle,
    recent: Recent,
    /// Who is believed when they state for whom they call.
    proxies: Vec<IpNet>,
    /// Passwords that are checked or hashed at a time: each takes 19 MiB.
    passwords: Arc<tokio::sync::Semaphore>,
    /// A rotation that is due within this is due soon.
    soon: SignedDuration,
    /// Those who may look on while decisions are made.
    readers: Arc<tokio::sync::Semaphore>,
    /// Turns true when the daemon ends.
    stop: watch::Receiver<bool>,
    started_at: Timestamp,
    /// Those who may wait for an edit to be checked.
    playground: tokio::sync::Semaphore,
    /// Held by whoever has an edit checked, for as long as that takes.
    playing: tokio::sync::Mutex<()>,
}

type Shared = Arc<Manage>;

impl Manage {
    /// From the parts of the daemon.
    pub fn new(parts: Parts) -> Self {
        let Parts { pdp, activator, recorder, shadow, cost, proxies, soon, stop } = parts;
        let (throttle, recent) = (Throttle::new(), Recent::default());
        let passwords = Arc::new(tokio::sync::Semaphore::new(2));
        let started_at = Timestamp::now();
        let readers = Arc::new(tokio::sync::Semaphore::new(live::READERS));
        let playground = tokio::sync::Semaphore::new(playground::MOST);
        Self {
            pdp,
            activator,
            recorder,
            shadow,
            cost,
            throttle,
            recent,
            proxies,
            passwords,
            soon,
            readers,
            stop,
            started_at,
            playground,
            playing: tokio::sync::Mutex::default(),
        }
    }

    /// The routes, with the document that describes them at `/openapi.json`.
    pub fn router(self, body_bytes: usize) -> Router {
        let shared = Arc::new(self);
        let (router, document) = operations().split_for_parts();
        let document = Arc::new(document::completed(document));
        router
            .route_layer(from_fn_with_state(Arc::clone(&shared), admit))
            .layer(DefaultBodyLimit::max(body_bytes))
            .with_state(shared)
            .route("/openapi.json", get(move || async move { Json(document.as_ref().clone()) }))
            .fallback(|| async { nothing_there() })
            .method_not_allowed_fallback(|| async {
                alone(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path has no such method")
            })
    }

    fn ledger(&self) -> &Ledger {
        self.pdp.ledger()
    }

    /// Who calls, from where, and what they call.
    async fn caller(
        &self,
        route: (&Method, &str),
        address: IpAddr,
        headers: &HeaderMap,
        id: &RequestId,
    ) -> Result<Caller, Refusal> {
        let revision = self.pdp.revision();
        // What answers GET answers HEAD, without the body.
        let method = if route.0 == Method::HEAD { Method::GET.as_str() } else { route.0.as_str() };
        let Some(operation) = revision.management().operation(method, route.1).cloned() else {
            let detail = "the schema of the management API does not know this operation";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "no_route", detail));
        };
        let credentials: Vec<&HeaderValue> = headers.get_all(AUTHORIZATION).iter().collect();
        let user = match credentials.as_slice() {
            [] => None,
            [one] => Some(users::identify(self, one.as_bytes()).await?),
            _ => return Err(unauthenticated("credentials_malformed", "give one Authorization header")),
        };
        let (user, token) = user.unzip();
        let now = Timestamp::now();
        let actor = match &user {
            Some(user) => Actor::User(user.id.to_string().into()),
            None => Actor::Anonymous,
        };
        let by = By { actor, address: Some(address), request_id: Some(id.as_str().into()), now };
        let caller = Caller { user, token, operation, revision, by, has_asked: Arc::default() };
        // Whoever has no token is told so before anything else, whatever the request looks like.
        if caller.user.is_none()
            && !matches!(caller.asked(&caller.operation, Subject::System), Evaluation::Permitted(_))
        {
            return Err(Caller::without_token());
        }
        Ok(caller)
    }
}

fn operations() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(document::Document::openapi())
        .routes(routes!(users::sign_in))
        .routes(routes!(accounts::create_account, accounts::list_accounts))
        .routes(routes!(accounts::get_account, accounts::rename_account))
        .routes(routes!(accounts::close_account))
        .routes(routes!(accounts::list_members))
        .routes(routes!(accounts::set_member, accounts::remove_member))
        .routes(routes!(keys::create_key, keys::list_keys))
        .routes(routes!(keys::list_all_keys))
        .routes(routes!(keys::get_key, keys::update_key))
        .routes(routes!(permissions::get_key_permissions))
        .routes(routes!(suggestion::suggest_scopes))
        .routes(routes!(keys::disable_key))
        .routes(routes!(keys::enable_key))
        .routes(routes!(keys::revoke_key))
        .routes(routes!(keys::compromise_key))
        .routes(routes!(keys::rotate_key))
        .routes(routes!(events::list_events))
        .routes(routes!(events::export_events))
        .routes(routes!(events::list_account_events))
        .routes(routes!(events::export_account_events))
        .routes(routes!(events::list_key_events))
        .routes(routes!(decisions::list_decisions))
        .routes(routes!(decisions::count_decisions))
        .routes(routes!(decisions::export_decisions))
        .routes(routes!(live::watch_decisions))
        .routes(routes!(decisions::list_top_decisions))
        .routes(routes!(figures::get_figures))
        .routes(routes!(decisions::get_decision))
        .routes(routes!(decisions::explain_decision))
        .routes(routes!(shadow::get_shadow))
        .routes(routes!(leaks::report_leaks))
        .routes(routes!(policies::list_revisions))
        .routes(routes!(policies::get_revision))
        .routes(routes!(policies::roll_back))
        .routes(routes!(policies::approve))
        .routes(routes!(playground::check_policies).layer(DefaultBodyLimit::max(playground::LARGEST)))
        .routes(routes!(explain::explain_call))
        .routes(routes!(backup::back_up_all))
        .routes(routes!(transfer::export_all))
        .routes(routes!(transfer::import))
        .routes(routes!(me::get_me))
        .routes(routes!(me::list_my_operations))
        .routes(routes!(users::create_user, users::list_users))
        .routes(routes!(users::get_user, users::update_user, users::delete_user))
        .routes(routes!(users::set_password))
        .routes(routes!(users::create_token))
        .routes(routes!(users::delete_token))
}

/// Who calls which operation.
#[derive(Clone)]
struct Caller {
    user: Option<Arc<User>>,
    /// Which of their tokens they gave.
    token: Option<Selector>,
    operation: Operation,
    revision: Arc<Revision>,
    by: By,
    has_asked: Arc<AtomicBool>,
}

impl Caller {
    /// Asks the policies whether the caller may do this to `subject`; what the change is to be recorded with.
    fn may(&self, subject: Subject<'_>) -> Result<&By, Refusal> {
        self.has_asked.store(true, Ordering::Relaxed);
        match self.asked(&self.operation, subject) {
            Evaluation::Permitted(_) => Ok(&self.by),
            Evaluation::Denied { .. } if self.user.is_none() => Err(Self::without_token()),
            Evaluation::Denied { .. } => {
                let detail = format!("no policy lets you do this ({})", self.operation.name);
                Err(Refusal::new(StatusCode::FORBIDDEN, "policy_denied", detail))
            }
            Evaluation::Failed(policies) => {
                tracing::error!(?policies, operation = %self.operation.name, "policies about management failed");
                let detail = "a policy about management could not be evaluated, so that this is refused";
                Err(Refusal::new(StatusCode::FORBIDDEN, "policy_error", detail))
            }
        }
    }

    /// Whether the caller could do another operation to `subject`: for lists that show what their reader may see.
    fn could(&self, operation: &str, subject: Subject<'_>) -> bool {
        let operation = self.revision.management().named(operation);
        operation.is_some_and(|operation| matches!(self.asked(operation, subject), Evaluation::Permitted(_)))
    }

    /// Leaves of these accounts those to which the caller could do another operation. One question is asked for all that
    /// policies cannot tell apart.
    fn keep_those_that_could(&self, operation: &str, accounts: &mut Vec<Arc<LiveAccount>>) {
        let named = self.revision.management().named_accounts();
        let mut answers: HashMap<Option<Role>, bool> = HashMap::new();
        accounts.retain(|live| {
            let id = live.account.id;
            let ask = || self.could(operation, Subject::Account(id));
            if !named.is_empty() && named.contains(id.to_string().as_str()) {
                return ask();
            }
            let role = self.user.as_deref().and_then(|user| user.roles.get(&id).copied());
            *answers.entry(role).or_insert_with(ask)
        });
    }

    /// Whether they proved their password a while ago, and did not just have a token of scripts.
    fn has_signed_in(&self) -> bool {
        let token = self.user.as_ref().zip(self.token).and_then(|(user, token)| user.token(&token));
        token.is_some_and(|token| &*token.name == SIGNED_IN)
    }

    fn without_token() -> Refusal {
        unauthenticated("credentials_missing", "give a token: `Authorization: Bearer kw_…`")
    }

    fn asked(&self, operation: &Operation, subject: Subject<'_>) -> Evaluation {
        let asking = Asking { user: self.user.as_deref(), address: self.by.address, now: self.by.now };
        manage(&self.revision, &asking, operation, subject)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Refusal::internal(&"a request came past the layer"))
    }
}

/// The layer around every operation.
async fn admit(
    State(manage): State<Shared>,
    path: MatchedPath,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let id = RequestId::fresh();
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let address = client_address(peer.ip(), &headers, &manage.proxies);
    let response = match manage.caller((&method, path.as_str()), address, &headers, &id).await {
        Ok(caller) => {
            let has_asked = Arc::clone(&caller.has_asked);
            request.extensions_mut().insert(caller);
            let response = next.run(request).await;
            if response.status().is_success() && !has_asked.load(Ordering::Relaxed) {
                Refusal::internal(&"an operation answered without having asked the policies").into_response()
            } else {
                response
            }
        }
        Err(refusal) => refusal.into_response(),
    };
    let mut response = match response.extensions().get::<Refusal>().cloned() {
        Some(refusal) => refusal.answer(&id),
        None => response,
    };
    let is_refused_unread = response.status().is_client_error() && has_body(&headers);
    let headers = response.headers_mut();
    if is_refused_unread {
        // The body may still be coming, and is not waited for: the connection ends, and its client should know.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(names::REQUEST_ID, value);
    }
    response
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// The answer about a path that nothing is at.
pub(crate) fn nothing_there() -> Response<Body> {
    alone(StatusCode::NOT_FOUND, "no_route", "there is nothing at this path")
}

/// A refusal outside of the layer.
fn alone(status: StatusCode, code: &'static str, detail: &str) -> Response<Body> {
    Refusal::new(status, code, detail).answer(&RequestId::fresh())
}

fn unauthenticated(code: &'static str, detail: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, code, detail)
}

/// Runs what blocks on the disk or on Argon2 off the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(Refusal::internal(&error)),
    }
}

#[cfg(test)]
mod tests;
