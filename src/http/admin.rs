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
use serde::Serialize;

use crate::activate::{Activator, Report};
use crate::key::{Key, Status};
use crate::metrics;
use crate::pdp::Pdp;
use crate::policy::PolicyInfo;

/// A rotation that is due within this is due soon.
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What the endpoints of the admin listener share.
pub struct Admin {
    /// The figures.
    pub pdp: Arc<Pdp>,
    /// What is in force.
    pub activator: Arc<Activator>,
}

/// The answer of `GET /v1/policies`.
#[derive(Serialize)]
struct InForce<'a> {
    #[serde(flatten)]
    report: Report,
    policies: &'a [PolicyInfo],
    routes: Vec<RouteInfo<'a>>,
    scopes: &'a [Box<str>],
}

/// An endpoint of the API.
#[derive(Serialize)]
struct RouteInfo<'a> {
    method: &'a str,
    path: &'a str,
    action: &'a str,
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
        let soon = now.checked_add(SOON).unwrap_or(Timestamp::MAX);
        let is_living = |key: &Key| matches!(key.status(&key.secret, now), Status::Good | Status::Disabled);
        let due = keys.iter().filter_map(|live| Some((&live.key, live.key.rotation_due_at()?)));
        let due: Vec<Timestamp> = due.filter_map(|(key, at)| is_living(key).then_some(at)).collect();
        let count = |is_counted: &dyn Fn(&Timestamp) -> bool| {
            i64::try_from(due.iter().filter(|at| is_counted(at)).count()).unwrap_or(i64::MAX)
        };
        figures.rotation_overdue.set(count(&|at| *at <= now));
        figures.rotation_due_soon.set(count(&|at| *at > now && *at <= soon));
        figures.ring_keys.set(i64::try_from(keys.len()).unwrap_or(i64::MAX));
    }
}

async fn figures(State(admin): State<Arc<Admin>>) -> Response {
    let counting = Arc::clone(&admin);
    // Every key is looked at, which is no work for a thread that answers others.
    if let Err(error) = tokio::task::spawn_blocking(move || counting.count_keys(Timestamp::now())).await {
        tracing::error!(%error, "the keys could not be counted");
    }
    match admin.pdp.metrics().render(Instant::now()) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn policies(State(admin): State<Arc<Admin>>) -> Response {
    let revision = admin.pdp.revision();
    let routes = revision.routes().map(|route| RouteInfo {
        method: &route.method,
        path: &route.template,
        action: &route.action_name,
    });
    let answer = InForce {
        report: admin.activator.report(),
        policies: revision.policies(),
        routes: routes.collect(),
        scopes: &revision.model().scopes,
    };
    axum::Json(answer).into_response()
}
