//! Whoever asks, about themselves: who they are, and what they may do.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::input::Params;
use super::refusal::{Refusal, Refusals};
use super::view::UserView;
use super::{Caller, Manage, Shared, unauthenticated};
use crate::authorize::manage::Subject;
use crate::evaluation::Evaluation;
use crate::key::{EnvironmentId, KeyId};

/// What the operations would be done to; at most one. Without, it is the installation.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DoneTo {
    /// An account: `acct_…`.
    account: Option<String>,
    /// An environment of an account, in which something is to be made: `acct_…/live` or `acct_…/test`.
    environment: Option<String>,
    /// A key: `key_…`.
    key: Option<String>,
    /// A person: `usr_…`.
    user: Option<String>,
}

/// What somebody may do.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct MyOperations {
    /// The names of operations, in alphabetical order.
    pub(crate) operations: Vec<String>,
}

/// Look at yourself.
#[utoipa::path(
    get, path = "/v1/me", tag = "session", operation_id = "getMe",
    responses((status = 200, body = UserView), Refusals)
)]
pub(super) async fn get_me(caller: Caller) -> Result<Json<UserView>, Refusal> {
    caller.may(Subject::System)?;
    let missing = || unauthenticated("credentials_missing", "give a token: `Authorization: Bearer kw_…`");
    caller.user.as_deref().map(UserView::of).map(Json).ok_or_else(missing)
}

/// List what you may do to an account, an environment, a key or a person; else to the installation. Nothing may be done
/// to what there is not.
#[utoipa::path(
    get, path = "/v1/me/operations", tag = "session", operation_id = "listMyOperations", params(DoneTo),
    responses((status = 200, body = MyOperations), Refusals)
)]
pub(super) async fn list_my_operations(
    State(manage): State<Shared>,
    caller: Caller,
    Params(to): Params<DoneTo>,
) -> Result<Json<MyOperations>, Refusal> {
    caller.may(Subject::System)?;
    let operations = to.with_subject(&manage, |subject| caller.operations(subject))?.unwrap_or_default();
    Ok(Json(MyOperations { operations }))
}

impl DoneTo {
    /// Calls `then` with what is named; `None` when there is no such thing.
    fn with_subject<T>(&self, manage: &Manage, then: impl FnOnce(Subject<'_>) -> T) -> Result<Option<T>, Refusal> {
        let (ring, people) = (manage.ledger().ring(), manage.ledger().people());
        Ok(match (&self.account, &self.environment, &self.key, &self.user) {
            (None, None, None, None) => Some(then(Subject::System)),
            (Some(id), None, None, None) => {
                let live = id.parse().ok().and_then(|id| ring.account(&id));
                live.map(|live| then(Subject::Account(live.account.id)))
            }
            (None, Some(id), None, None) => {
                let environment = id.parse().ok().filter(|id: &EnvironmentId| ring.account(&id.account).is_some());
                environment.map(|environment| then(Subject::Environment(environment)))
            }
            (None, None, Some(id), None) => {
                let live = id.parse().ok().and_then(|id: KeyId| ring.key(&id));
                live.map(|live| then(Subject::Key(&live.key)))
            }
            (None, None, None, Some(id)) => {
                let live = id.parse().ok().and_then(|id| people.user(&id));
                live.map(|live| then(Subject::User(&live.user)))
            }
            _ => {
                let detail = "give one of `account`, `environment`, `key` and `user`, or none of them";
                return Err(Refusal::invalid(None, detail));
            }
        })
    }
}

impl Caller {
    /// The operations that apply to such a subject and that the policies would let the caller do to it, by name.
    fn operations(&self, subject: Subject<'_>) -> Vec<String> {
        let of_type = subject.of_type();
        let applying = self.revision.management().operations().map(|(_, operation)| operation);
        let applying = applying.filter(|operation| operation.about.iter().any(|about| **about == *of_type));
        let may = applying.filter(|operation| matches!(self.asked(operation, subject), Evaluation::Permitted(_)));
        let mut names: Vec<String> = may.map(|operation| operation.name.to_string()).collect();
        names.sort_unstable();
        names
    }
}
