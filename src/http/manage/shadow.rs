//! Policies that are being tried, over HTTP.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::refusal::{Refusal, Refusals};
use super::{Caller, Shared};
use crate::activate::Refused;
use crate::authorize::manage::Subject;
use crate::recorded::Report;

/// What is being tried on live traffic.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Shadow {
    /// Whether policies are tried at all: `policies.shadow_one_in` and `recorded.decisions` are not 0.
    pub(crate) on: bool,
    /// Where the policies to be tried are looked for.
    pub(crate) folder: String,
    /// What is being tried; not there when the folder is not, or holds what is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) candidate: Option<Candidate>,
    /// What is wrong with the folder's files, as `GET /v1/policies` tells it of the live ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(crate) refused: Option<Refused>,
}

/// Policies that are being tried, and what came of it.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    pub(crate) digest: String,
    #[schema(value_type = String, format = DateTime)]
    pub(crate) since: Timestamp,
    /// The digest of the revision in force, with whose decisions its own are compared.
    pub(crate) compared_with: String,
    /// Since when: it begins anew with each revision that comes into force.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) compared_since: Timestamp,
    /// Decisions that were left out of the sample.
    pub(crate) unsampled: u64,
    /// Decisions of the sample that there was no time for.
    pub(crate) dropped: u64,
    #[serde(flatten)]
    pub(crate) report: Report,
}

/// What the policies of the folder beside the live one would make of live traffic.
#[utoipa::path(
    get, path = "/v1/policies/shadow", tag = "policies", operation_id = "getShadow",
    responses((status = 200, body = Shadow), Refusals)
)]
pub(super) async fn get_shadow(State(manage): State<Shared>, caller: Caller) -> Result<Json<Shadow>, Refusal> {
    caller.may(Subject::System)?;
    let shadow = &manage.shadow;
    let candidate = shadow.trial().map(|trial| Candidate {
        digest: trial.digest.to_string(),
        since: trial.since,
        compared_with: trial.live.to_string(),
        compared_since: trial.compared_since,
        unsampled: trial.unsampled,
        dropped: trial.dropped,
        report: trial.report,
    });
    let folder = shadow.folder().display().to_string();
    Ok(Json(Shadow { on: !shadow.is_off(), folder, candidate, refused: shadow.refused() }))
}
