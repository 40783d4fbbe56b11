//! The admin listener: the figures, and what is in force.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::activate::{Activator, Report};
use crate::key::Status;
use crate::metrics;
use crate::pdp::Pdp;
use crate::policy::PolicyInfo;

/// What the endpoints of the admin listener share.
pub struct Admin {
    /// The figures.
    pub pdp: Arc<Pdp>,
    /// What is in force.
    pub activator: Arc<Activator>,
    /// A rotation that is due within this is due soon.
    pub soon: SignedDuration,
}

/// The answer of `GET /v1/policies`.
#[derive(Serialize, Deserialize)]
pub struct InForce {
    /// What is in force, and what is not.
    #[serde(flatten)]
    pub report: Report,
    /// Its policies.
    pub policies: Vec<PolicyInfo>,
    /// The endpoints that its schema declares.
    pub routes: Vec<RouteInfo>,
    /// The scopes that its schema declares.
    pub scopes: Vec<String>,
}

/// An endpoint of the API.
#[derive(Serialize, Deserialize)]
pub struct RouteInfo {
    /// Its method.
    pub method: String,
    /// Its path's template.
    pub path: String,
    /// The action that it is.
    pub action: String,
}

impl Admin {
    /// The routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(figures))
            .route("/v1/policies", get(policies))
            .route("/healthz", get(|| async { "ok\n" }))
            .with_state(Arc::new(self))
    }
}

impl Admin {
    fn count_keys(&self, now: Timestamp) {
        let (figures, keys) = (self.pdp.metrics(), self.pdp.ledger().ring().keys());
        let soon = now.checked_add(self.soon).unwrap_or(Timestamp::MAX);
        let (mut states, mut flagged, mut overdue, mut due_soon) = (Status::ALL.map(|status| (status, 0)), 0, 0, 0);
        for key in keys.iter().map(|live| &live.key) {
            let status = key.status(&key.secret, now);
            states.iter_mut().filter(|(state, _)| *state == status).for_each(|(_, count)| *count += 1);
            flagged += i64::from(key.flagged_at(now).is_some());
            if let Some(due_at) = key.rotation_due_at().filter(|due_at| *due_at <= soon && key.is_living(now)) {
                *if due_at <= now { &mut overdue } else { &mut due_soon } += 1;
            }
        }
        for (state, count) in states {
            figures.keys_are(state.as_str(), count);
        }
        figures.keys_are("flagged", flagged);
        figures.rotation_overdue.set(overdue);
        figures.rotation_due_soon.set(due_soon);
        figures.ring_keys.set(i64::try_from(keys.len()).unwrap_or(i64::MAX));
    }
}

async fn figures(State(admin): State<Arc<Admin>>) -> Response {
    let counting = Arc::clone(&admin);
    // Every key is looked at, which is no work for a thread that answers others.
    if let Err(error) = tokio::task::spawn_blocking(move || counting.count_keys(Timestamp::now())).await {
        tracing::error!(%error, "the keys could not be counted");
    }
    let stale = admin.pdp.staleness().time().unwrap_or_default();
    admin.pdp.metrics().revision_stale.set(stale.as_secs_f64());
    match admin.pdp.metrics().render(Instant::now()) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn policies(State(admin): State<Arc<Admin>>) -> Response {
    let (report, revision) = admin.activator.in_force();
    let routes = revision.routes().map(|route| RouteInfo {
        method: route.method.to_string(),
        path: route.template.to_string(),
        action: route.action_name.to_string(),
    });
    let scopes = revision.model().scopes.iter().map(ToString::to_string).collect();
    let answer = InForce { report, policies: revision.policies().to_vec(), routes: routes.collect(), scopes };
    axum::Json(answer).into_response()
}
