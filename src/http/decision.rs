//! The decision listener: what its endpoints share, and its routes.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::routing::{any, get, post};
use jiff::Timestamp;

use super::answer::Problem;
use super::request_id::RequestId;
use super::{decide, forward_auth, names};
use crate::audit::{DecisionLog, Entry};
use crate::authorize::credentials::Credentials;
use crate::authorize::verdict::Verdict;
use crate::authorize::{Call, Transport};
use crate::config;
use crate::key::masked;
use crate::pdp::{Pdp, Unavailable};
use crate::recorded::Recorder;
use crate::telemetry::Seldom;
use crate::trail::By;

/// Bytes of a method or path that the decision log keeps.
const LONGEST_LOGGED: usize = 1024;

/// The line about peers that are not trusted.
static DISTRUSTED: Seldom = Seldom::new();

/// What the endpoints of the decision listener share.
pub struct Decision {
    /// Decides.
    pub pdp: Arc<Pdp>,
    /// Who is believed, in which headers, and the realm of `WWW-Authenticate`.
    pub config: config::Decision,
    /// The decision log, when there is one.
    pub log: Option<Arc<DecisionLog>>,
    /// Keeps what was decided.
    pub recorder: Arc<Recorder>,
}

impl Decision {
    /// From the configuration.
    pub fn new(
        pdp: Arc<Pdp>,
        config: &config::Decision,
        log: Option<Arc<DecisionLog>>,
        recorder: Arc<Recorder>,
    ) -> Self {
        Self { pdp, config: config.clone(), log, recorder }
    }

    /// Whether a peer's statements are believed.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        let trusted = self.config.trusts(peer);
        if !trusted && let Some(untold) = DISTRUSTED.admit(Timestamp::now()) {
            tracing::warn!(%peer, untold, "a peer that is not trusted asked; add it to `decision.trusted_proxies` if it is yours");
        }
        trusted
    }

    /// Decides one call, for whichever surface: the decision is logged, answered with what `answer` makes of it, and
    /// recorded. `authorization` is all that was sent as credentials, in whatever form.
    ///
    /// # Errors
    /// When no decision could be made, or it cannot be logged and the configuration says that none may go unlogged.
    pub(super) async fn decide<'a, T>(
        &self,
        call: &Call<'a>,
        authorization: impl Iterator<Item = &'a [u8]>,
        request_id: &RequestId,
        answer: impl FnOnce(&Verdict) -> T,
    ) -> Result<T, Unavailable> {
        if call.transport == Transport::Insecure {
            let by = By::call(call.address, request_id.as_str(), Timestamp::now());
            // Well-formed credentials are the decision's own business.
            let unread = authorization.filter(|_| matches!(call.credentials, Credentials::Malformed));
            let target = call.line.map(|line| line.target.as_bytes());
            self.pdp.overhear(unread.chain(target), &by).await?;
        }
        let verdict = self.pdp.authorize(call, request_id.as_str()).await?;
        self.log(&verdict, call, request_id)?;
        let answer = answer(&verdict);
        self.recorder.offer(verdict, call, request_id.as_str());
        Ok(answer)
    }

    fn log(&self, verdict: &Verdict, call: &Call<'_>, request_id: &RequestId) -> Result<(), Unavailable> {
        let Some(log) = &self.log else {
            return Ok(());
        };
        let key = verdict.key.as_deref().map(|live| &live.key);
        let (method, target) = call.line.map_or(("", ""), |line| (line.method, line.target));
        let path = target.split(['?', '#']).next().unwrap_or_default();
        let entry = Entry {
            time: verdict.at,
            request_id: request_id.as_str().to_owned(),
            outcome: verdict.reason.outcome().as_str(),
            reason: verdict.reason.as_str(),
            key: key.map(|key| key.id.to_string()),
            environment: key.map(|key| key.environment().to_string()),
            action: verdict.action.clone(),
            method: masked(cut(method)).into_owned(),
            path: masked(cut(path)).into_owned(),
            address: call.address,
            policies: verdict.policies.iter().map(ToString::to_string).collect(),
            revision: verdict.revision.digest_text().to_owned(),
        };
        log.record(entry).map_err(|_| Unavailable::Log)
    }

    /// Says for how long the policies that decided have not been what is on disk, where they are not.
    pub(super) fn dated(&self, mut response: Response<Body>) -> Response<Body> {
        if let Some(time) = self.pdp.staleness().time() {
            response.headers_mut().insert(names::POLICIES_STALE, HeaderValue::from(time.as_secs()));
        }
        response
    }

    /// The routes. Bodies of more than `body_bytes` are refused.
    pub fn router(self, body_bytes: usize) -> Router {
        Router::new()
            .route(forward_auth::PREFIX, any(forward_auth::forward_auth))
            .route("/v1/forward-auth/", any(forward_auth::forward_auth))
            .route("/v1/forward-auth/{*path}", any(forward_auth::forward_auth))
            .route("/v1/authorize", post(decide::authorize))
            .route("/v1/authorize/batch", post(decide::authorize_batch))
            .route("/healthz", get(alive))
            .route("/readyz", get(ready))
            .fallback(async || Problem::at_once(StatusCode::NOT_FOUND, "no_route", "there is nothing at this path"))
            .method_not_allowed_fallback(async || {
                let detail = "this path has no such method; /v1/authorize takes POST";
                Problem::at_once(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
            })
            .layer(DefaultBodyLimit::max(body_bytes))
            .with_state(Arc::new(self))
    }
}

/// The beginning of what a caller sent: a queue of entries must not be a queue of megabytes.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LONGEST_LOGGED)).unwrap_or_default()
}

/// The process is there.
async fn alive() -> &'static str {
    "ok\n"
}

/// A revision is in force and the keys are loaded: without both, nothing listens. That the policies are too old is said
/// and is no reason not to be ready: every daemon of a fleet reads the same files, and one typo would take away all.
async fn ready(State(decision): State<Arc<Decision>>) -> String {
    let mut text = format!("ready, revision {}\n", decision.pdp.revision().digest().short());
    if let Some(time) = decision.pdp.staleness().overdue() {
        let seconds = time.as_secs();
        text +=
            &format!("policies too old: what is on disk has not come into force for {seconds} s, see /v1/policies\n");
    }
    text
}
