//! The revisions of schema and policies: what was in force, going back, and approving what waits.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::input::Input;
use super::refusal::{Refusal, Refusals};
use super::view::ActorFields;
use super::{Caller, Manage, Shared};
use crate::activate::Waiting;
use crate::activate::compare::Comparison;
use crate::activate::git::Commit;
use crate::activate::history::{Cause, Entry, FindError, History};
use crate::activate::orders::OrderError;
use crate::authorize::manage::Subject;
use crate::policy::{Bundle, Digest, NotAShortDigest, ShortDigest};
use crate::trail::Actor;

/// A revision that came into force, or waits until somebody approves it.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = Revision)]
pub struct RevisionView {
    /// Its name: 64 hexadecimal digits.
    pub(crate) digest: String,
    /// Whether it is in force now.
    pub(crate) in_force: bool,
    /// Whether it waits for approval; not there where it does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) waiting: bool,
    /// When it came into force, or since when it waits.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) since: Timestamp,
    /// When the next one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) until: Option<Timestamp>,
    /// For how many seconds it was, or has been, the one in force, or has waited.
    pub(crate) seconds: u64,
    /// `edit`, `approval` or `rollback`.
    #[schema(value_type = String)]
    pub(crate) cause: Cause,
    /// Who approved it or went back to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ActorFields>)]
    pub(crate) by: Option<Actor>,
    /// What is different from the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comparison: Option<Comparison>,
    /// Who wrote it, where the policies are in a git work tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) git: Option<Commit>,
}

impl RevisionView {
    fn of(entry: Entry, until: Option<Timestamp>, now: Timestamp) -> Self {
        let lasted = until.unwrap_or(now).duration_since(entry.since);
        Self {
            digest: entry.digest.to_string(),
            in_force: until.is_none(),
            waiting: false,
            since: entry.since,
            until,
            seconds: u64::try_from(lasted.as_secs()).unwrap_or_default(),
            cause: entry.cause,
            by: entry.by,
            comparison: entry.comparison,
            git: entry.git,
        }
    }

    fn of_waiting(waiting: &Waiting, now: Timestamp) -> Self {
        let lasted = now.duration_since(waiting.since);
        Self {
            digest: waiting.digest.to_string(),
            in_force: false,
            waiting: true,
            since: waiting.since,
            until: None,
            seconds: u64::try_from(lasted.as_secs()).unwrap_or_default(),
            cause: Cause::Edit,
            by: None,
            comparison: Some(waiting.comparison.clone()),
            git: waiting.git.clone(),
        }
    }
}

/// The revisions that are kept, the newest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Revisions {
    pub(crate) items: Vec<RevisionView>,
}

/// A revision with what it is made of.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct WholeRevision {
    #[serde(flatten)]
    pub(crate) revision: RevisionView,
    /// The texts of its files, by path.
    pub(crate) files: BTreeMap<String, String>,
}

impl WholeRevision {
    fn of(revision: RevisionView, bundle: &Bundle) -> Self {
        let files = bundle.files().map(|(path, text)| (path.to_owned(), text.to_owned())).collect();
        Self { revision, files }
    }
}

/// Names a revision.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedRevision {
    /// Its digest, or the first 8 digits of it or more.
    #[schema(pattern = "^[0-9a-f]{8,64}$")]
    digest: String,
}

impl NamedRevision {
    fn digest(&self) -> Result<ShortDigest, Refusal> {
        named(&self.digest)
    }
}

fn named(digest: &str) -> Result<ShortDigest, Refusal> {
    digest.parse().map_err(|error: NotAShortDigest| Refusal::invalid(Some("digest"), error.to_string()))
}

impl Manage {
    /// What is kept, the newest first.
    async fn revisions(&self, now: Timestamp) -> Result<Vec<RevisionView>, Refusal> {
        let entries = self.activator.history().run(History::entries).await?;
        let active = self.pdp.revision().digest();
        let mut until = None;
        let view = |entry: Entry| {
            let (since, digest) = (entry.since, entry.digest);
            let until = until.replace(since);
            let view = RevisionView::of(entry, until, now);
            // The newest entry is not in force where the one in force could not be written down.
            RevisionView { in_force: view.in_force && digest == active, ..view }
        };
        Ok(entries.into_iter().map(view).collect())
    }

    /// The newest entry of this revision.
    async fn revision(&self, digest: &Digest, now: Timestamp) -> Result<RevisionView, Refusal> {
        let digest = digest.to_string();
        let found = self.revisions(now).await?.into_iter().find(|revision| revision.digest == digest);
        found.ok_or_else(|| Refusal::not_found("revision"))
    }
}

/// The revisions that were in force, the newest first: the last 50.
#[utoipa::path(
    get, path = "/v1/policies/history", tag = "policies", operation_id = "listRevisions",
    responses((status = 200, body = Revisions), Refusals)
)]
pub(super) async fn list_revisions(State(manage): State<Shared>, caller: Caller) -> Result<Json<Revisions>, Refusal> {
    let now = caller.may(Subject::System)?.now;
    Ok(Json(Revisions { items: manage.revisions(now).await? }))
}

/// A revision that was in force, or waits for approval, with the texts of its files.
#[utoipa::path(
    get, path = "/v1/policies/history/{digest}", tag = "policies", operation_id = "getRevision",
    params(("digest" = String, Path, description = "its digest, or the first 8 digits of it or more")),
    responses((status = 200, body = WholeRevision), Refusals)
)]
pub(super) async fn get_revision(
    State(manage): State<Shared>,
    caller: Caller,
    Path(digest): Path<String>,
) -> Result<Json<WholeRevision>, Refusal> {
    let now = caller.may(Subject::System)?.now;
    let digest = named(&digest)?;
    // What is to be approved is looked at first, also where it was in force once.
    let waiting = manage.activator.in_force().0.waiting.filter(|waiting| digest.begins(&waiting.digest));
    if let Some(waiting) = waiting {
        return Ok(Json(WholeRevision::of(RevisionView::of_waiting(&waiting, now), &waiting.bundle)));
    }
    let (entry, bundle) = manage.activator.history().run(move |history| history.find(&digest)).await?;
    let revision = manage.revision(&entry.digest, now).await?;
    Ok(Json(WholeRevision::of(revision, &bundle)))
}

/// Put an earlier revision in force, until the files change.
#[utoipa::path(
    post, path = "/v1/policies/rollback", tag = "policies", operation_id = "rollBackPolicies",
    request_body = NamedRevision, responses((status = 200, body = RevisionView), Refusals)
)]
pub(super) async fn roll_back(
    State(manage): State<Shared>,
    caller: Caller,
    Input(named, _): Input<NamedRevision>,
) -> Result<Json<RevisionView>, Refusal> {
    let by = caller.may(Subject::System)?.clone();
    let digest = manage.activator.roll_back(named.digest()?, by.clone()).await?;
    Ok(Json(manage.revision(&digest, by.now).await?))
}

/// Bring the revision that waits for approval into force.
#[utoipa::path(
    post, path = "/v1/policies/approve", tag = "policies", operation_id = "approvePolicies",
    request_body = NamedRevision, responses((status = 200, body = RevisionView), Refusals)
)]
pub(super) async fn approve(
    State(manage): State<Shared>,
    caller: Caller,
    Input(named, _): Input<NamedRevision>,
) -> Result<Json<RevisionView>, Refusal> {
    let by = caller.may(Subject::System)?.clone();
    let digest = manage.activator.approve(named.digest()?, by.clone()).await?;
    Ok(Json(manage.revision(&digest, by.now).await?))
}

impl From<FindError> for Refusal {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, "not_found", error.to_string()),
            FindError::Ambiguous(_) => Self::new(StatusCode::CONFLICT, "digest_ambiguous", error.to_string()),
            FindError::Ledger(error) => error.into(),
        }
    }
}

impl From<OrderError> for Refusal {
    fn from(error: OrderError) -> Self {
        let conflict = |code| Self::new(StatusCode::CONFLICT, code, error.to_string());
        match error {
            OrderError::InForce(_) => conflict("revision_in_force"),
            OrderError::NotWaiting(_) => conflict("revision_not_waiting"),
            OrderError::FilesChanged => conflict("policies_changed"),
            OrderError::Refused(_) => conflict("revision_refused"),
            OrderError::Unchecked(_) | OrderError::Ending => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string()).after(1)
            }
            OrderError::Find(error) => error.into(),
            OrderError::Ledger(error) => error.into(),
        }
    }
}
