//! How the daemon is, in a few figures.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::refusal::{Refusal, Refusals};
use super::view::KeyState;
use super::{Caller, Shared};
use crate::authorize::manage::Subject;
use crate::authorize::verdict::Reason;

/// How the daemon is.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Figures {
    /// The program's version.
    pub(crate) version: String,
    #[schema(value_type = String, format = DateTime)]
    pub(crate) started_at: Timestamp,
    /// How many keys there are in each state.
    pub(crate) keys: BTreeMap<KeyState, u64>,
    pub(crate) accounts: u64,
    pub(crate) users: u64,
    /// The digest of the policies in force.
    pub(crate) revision: String,
    /// Since when these are in force, in this process.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) revision_since: Timestamp,
    /// For how many seconds newer files have been refused or have waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stale_seconds: Option<u64>,
    pub(crate) recorded: RecordedFigures,
    /// Decisions since the start, by outcome.
    pub(crate) decisions_total: BTreeMap<String, u64>,
    pub(crate) latency_ms: Latency,
    /// Open connections, by listener.
    pub(crate) connections: BTreeMap<String, i64>,
}

/// Recorded decisions.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct RecordedFigures {
    /// How many are kept.
    pub(crate) kept: u64,
    /// How many found no room since the start.
    pub(crate) dropped: u64,
}

/// How long decisions took since the start, once they were read, whichever way they were asked for. Estimated: a histogram
/// says of each decision only between which two bounds it lies, and the last bound is 100 ms.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Latency {
    /// Half of them took no longer, in milliseconds; not there before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p90: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99: Option<f64>,
    /// How many decisions.
    pub(crate) count: u64,
}

/// How the daemon is: keys, decisions, what is in force.
#[utoipa::path(
    get, path = "/v1/figures", tag = "installation", operation_id = "getFigures",
    responses((status = 200, body = Figures), Refusals)
)]
pub(super) async fn get_figures(State(manage): State<Shared>, caller: Caller) -> Result<Json<Figures>, Refusal> {
    let now = caller.may(Subject::System)?.now;
    let counting = Arc::clone(&manage);
    // Every key is looked at, which is no work for a thread that answers others.
    let counted = tokio::task::spawn_blocking(move || {
        let mut keys: BTreeMap<KeyState, u64> = KeyState::ALL.map(|state| (state, 0)).into();
        for live in counting.ledger().ring().keys() {
            *keys.entry(KeyState::of(&live.key, now)).or_default() += 1;
        }
        (keys, counting.recorder.len() as u64)
    });
    let (keys, kept) = counted.await.map_err(|error| Refusal::internal(&error))?;
    let (metrics, (report, revision)) = (manage.pdp.metrics(), manage.activator.in_force());
    let mut decisions_total = BTreeMap::new();
    for (reason, count) in Reason::ALL.iter().zip(metrics.decisions()) {
        *decisions_total.entry(reason.outcome().as_str().to_owned()).or_default() += count;
    }
    let latency = |quantile| metrics.decision_quantile(quantile).map(|seconds| seconds * 1_000.0);
    let latency_ms =
        Latency { p50: latency(0.5), p90: latency(0.9), p99: latency(0.99), count: metrics.decision_count() };
    let listeners = ["decision", "admin"].map(|listener| (listener.to_owned(), metrics.connections(listener).get()));
    Ok(Json(Figures {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: manage.started_at,
        keys,
        accounts: manage.ledger().ring().accounts().len() as u64,
        users: manage.ledger().people().all().len() as u64,
        revision: revision.digest_text().to_owned(),
        revision_since: report.active.activated_at,
        stale_seconds: report.stale_seconds,
        recorded: RecordedFigures { kept, dropped: metrics.recorded_dropped.get() },
        decisions_total,
        latency_ms,
        connections: listeners.into(),
    }))
}
