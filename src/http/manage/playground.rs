//! The playground: what would become of an edit of the policies, without bringing it into force.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::input::Input;
use super::refusal::{Refusal, Refusals};
use super::{Caller, Shared};
use crate::activate::compare::Comparison;
use crate::authorize::STACK;
use crate::authorize::manage::Subject;
use crate::policy::{Problem, Revision};
use crate::prove::Proof;
use crate::recorded::{self, Filter, Recorder, Redecider, Report};

/// Bytes of a request: all files that there can be, as JSON writes them.
pub(super) const LARGEST: usize = 10 << 20;
/// Those who may wait for their turn, the one who has it included.
pub(super) const MOST: usize = 4;
/// Recorded decisions that are made again: the newest.
const REPLAYED: usize = 20_000;

/// An edit of the policies in force.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckPolicies {
    /// The new texts of files, by path, `policies/….cedar` or `schemas/….cedarschema`; null removes a file.
    files: BTreeMap<String, Option<String>>,
}

/// What would become of an edit.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CheckedPolicies {
    /// Whether it would come into force, or wait for approval where `policies.widening` says so.
    pub(crate) accepted: bool,
    /// The digest of the files with the changes.
    pub(crate) digest: String,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rejection: Option<RejectedPolicies>,
    /// Not there where they could not be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) examples: Option<TriedExamples>,
    /// What is proven, as `GET /v1/policies` tells it of the policies in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(crate) proof: Option<Proof>,
    /// Who could do more, or less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comparison: Option<Comparison>,
    /// What would become of the newest recorded decisions. Not there where none are recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replay: Option<Report>,
}

/// What is wrong with policies.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct RejectedPolicies {
    /// As text with file, line and caret.
    pub(crate) diagnostics: String,
    /// In parts.
    #[schema(value_type = Vec<Object>)]
    pub(crate) problems: Vec<Problem>,
}

/// Examples that were run.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct TriedExamples {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

/// Say what would become of an edit of the policies in force: checked, tried on its examples, proven, compared, and held
/// against the newest recorded decisions. Nothing of it is kept, and nothing changes.
#[utoipa::path(
    post, path = "/v1/policies/check", tag = "policies", operation_id = "checkPolicies", request_body = CheckPolicies,
    responses((status = 200, body = CheckedPolicies), Refusals)
)]
pub(super) async fn check_policies(
    State(manage): State<Shared>,
    caller: Caller,
    Input(edit, _): Input<CheckPolicies>,
) -> Result<Json<CheckedPolicies>, Refusal> {
    caller.may(Subject::System)?;
    let bundle = manage.activator.edited(edit.files);
    let bundle = bundle.map_err(|rejection| Refusal::invalid(Some("files"), rejection.to_string()))?;
    let _place = manage.playground.try_acquire().map_err(|_| {
        let detail = format!("{MOST} edits are being checked or wait for it; try again in a moment");
        super::users::too_busy(&detail)
    })?;
    // One at a time: each starts processes that take memory. Whoever goes away ends them.
    let _turn = manage.playing.lock().await;
    let rehearsal = manage.activator.rehearse(bundle).await.map_err(|rejection| {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", rejection.to_string()).after(1)
    })?;
    let replay = match rehearsal.revision {
        Some(revision) if !manage.recorder.is_off() => Some(replayed(Arc::clone(&manage.recorder), revision).await?),
        _ => None,
    };
    Ok(Json(CheckedPolicies {
        accepted: rehearsal.rejection.is_none(),
        digest: rehearsal.digest.to_string(),
        rejection: rehearsal
            .rejection
            .map(|rejection| RejectedPolicies { diagnostics: rejection.render(), problems: rejection.problems }),
        examples: rehearsal.examples.map(|(passed, failed)| TriedExamples { passed, failed }),
        proof: rehearsal.proof,
        comparison: rehearsal.comparison,
        replay,
    }))
}

/// What becomes of the newest recorded decisions, on a thread with the stack that deciding threads have.
async fn replayed(recorder: Arc<Recorder>, revision: Arc<Revision>) -> Result<Report, Refusal> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let work = move || {
        let mut redecider = Redecider::new(revision)?;
        let mut comparison = recorded::Comparison::default();
        for record in recorder.page(&Filter::default(), None, REPLAYED) {
            // Whoever asked has gone.
            if sender.is_closed() {
                break;
            }
            comparison.note(&record, redecider.decide(&record).as_deref());
        }
        let _ = sender.send(comparison.report());
        Ok::<_, getrandom::Error>(())
    };
    let thread = std::thread::Builder::new().name("playground".into()).stack_size(STACK);
    thread.spawn(work).map_err(|error| Refusal::internal(&error))?;
    receiver.await.map_err(|error| Refusal::internal(&error))
}
