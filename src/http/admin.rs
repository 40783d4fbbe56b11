//! The admin listener: the figures, and what is in force.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;

use crate::activate::{Activator, Report};
use crate::metrics;
use crate::pdp::Pdp;
use crate::policy::PolicyInfo;

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

async fn figures(State(admin): State<Arc<Admin>>) -> Response {
    let figures = admin.pdp.metrics();
    figures.ring_keys.set(i64::try_from(admin.pdp.ledger().ring().len()).unwrap_or(i64::MAX));
    match figures.render(Instant::now()) {
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
