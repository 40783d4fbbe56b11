//! Why an operation is not done: as a value in the handlers, as a problem document (RFC 9457) on the wire.

use axum::body::Body;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use utoipa::{IntoResponses, ToSchema};

use super::super::answer::Problem;
use super::super::request_id::RequestId;
use crate::http::json::Unread;
use crate::key::{KeyError, masked};
use crate::ledger::LedgerError;
use crate::people::PeopleError;

/// Why an operation is not done. Nothing was changed then.
#[derive(Debug, Clone)]
pub struct Refusal {
    status: StatusCode,
    code: &'static str,
    detail: String,
    field: Option<String>,
    /// Seconds after which it may be tried again.
    retry_after: Option<u64>,
}

impl Refusal {
    /// A refusal without field.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), field: None, retry_after: None }
    }

    /// The request cannot be understood: a field is missing, too much, or not what it should be.
    pub fn invalid(field: Option<&str>, detail: impl AsRef<str>) -> Self {
        let field = field.map(|field| masked(field).into_owned());
        let detail = masked(detail.as_ref()).into_owned();
        Self { field, ..Self::new(StatusCode::BAD_REQUEST, "request_invalid", detail) }
    }

    /// The same, about a part of `outer`.
    pub fn within(self, outer: &str) -> Self {
        let field = self.field.map_or_else(|| outer.to_owned(), |field| format!("{outer}.{field}"));
        Self { field: Some(field), ..self }
    }

    /// There is no such thing, or none that the caller could be told of.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no such {what}"))
    }

    /// It may be tried again after so many seconds.
    pub fn after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The program contradicts itself; the log says how.
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a management request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "this is a fault of Keyward; its log says more")
    }

    /// The problem document.
    pub fn answer(self, request_id: &RequestId) -> Response<Body> {
        let problem = Problem { field: self.field, ..Problem::new(self.status, self.code, self.detail, request_id) };
        let mut response = problem.into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let value = HeaderValue::from_static("Bearer realm=\"keyward\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for Refusal {
    /// Travels beside an empty body; the layer around the handlers knows the request's id and writes the document.
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Unread> for Refusal {
    fn from(unread: Unread) -> Self {
        Self::invalid(unread.field.as_deref(), unread.detail)
    }
}

impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Revoked => Self::new(StatusCode::CONFLICT, "key_revoked", error.to_string()),
            KeyError::Expired => Self::new(StatusCode::CONFLICT, "key_expired", error.to_string()),
            KeyError::Closed => Self::new(StatusCode::CONFLICT, "account_closed", error.to_string()),
            KeyError::Public => Self::new(StatusCode::CONFLICT, "key_public", error.to_string()),
            _ => Self::invalid(error.field(), error.to_string()),
        }
    }
}

impl From<PeopleError> for Refusal {
    fn from(error: PeopleError) -> Self {
        match error {
            PeopleError::LastOperator => Self::new(StatusCode::CONFLICT, "last_operator", error.to_string()),
            PeopleError::TooManyTokens => Self::new(StatusCode::CONFLICT, "too_many_tokens", error.to_string()),
            _ => Self::invalid(Some(error.field()), error.to_string()),
        }
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::NoAccount(_) => Self::not_found("account"),
            LedgerError::NoKey(_) => Self::not_found("key"),
            LedgerError::NoUser(_) => Self::not_found("user"),
            LedgerError::Key(error) => error.into(),
            LedgerError::People(error) => error.into(),
            LedgerError::EmailTaken => Self {
                field: Some("email".into()),
                ..Self::new(StatusCode::CONFLICT, "email_taken", error.to_string())
            },
            LedgerError::Stale { .. } => Self::new(StatusCode::PRECONDITION_FAILED, "stale", error.to_string()),
            LedgerError::Contended | LedgerError::DoneBefore => {
                Self::new(StatusCode::CONFLICT, "contended", error.to_string()).after(1)
            }
            LedgerError::Store(_) | LedgerError::Record { .. } => {
                tracing::error!(%error, "the store failed a management request");
                let detail = "the store cannot be read or written; the log says more";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", detail).after(1)
            }
            LedgerError::Mint(_) | LedgerError::Hash(_) => Self::internal(&error),
        }
    }
}

/// An error (RFC 9457), with a stable `code`.
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "it describes what `answer::Problem` writes")]
pub struct ProblemSchema {
    /// Always `about:blank`.
    r#type: String,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// A sentence: what is wrong and what to do.
    detail: String,
    /// A stable code.
    code: String,
    /// The offending field, or query parameter.
    field: Option<String>,
    /// Names the request in the log and in the event trail.
    request_id: String,
}

/// What every operation may answer when it is not done. Nothing was changed then.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes what `Refusal` writes")]
pub enum Refusals {
    /// The request cannot be understood; `field` says which part.
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(ProblemSchema),
    /// No token, or not a good one.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(ProblemSchema),
    /// The policies do not let this person do this.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(ProblemSchema),
    /// There is no such thing.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(ProblemSchema),
    /// It cannot be done as things are; `code` says why.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(ProblemSchema),
    /// `If-Match` names another version than there is.
    #[response(status = 412, content_type = "application/problem+json")]
    Stale(ProblemSchema),
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(ProblemSchema),
    /// The body is not `application/json`.
    #[response(status = 415, content_type = "application/problem+json")]
    NotJson(ProblemSchema),
    /// The `Idempotency-Key` was used for another request.
    #[response(status = 422, content_type = "application/problem+json")]
    Reused(ProblemSchema),
    /// Too many attempts; `Retry-After` says when to try again.
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(ProblemSchema),
    /// It could not be done now; `Retry-After` says when to try again.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(ProblemSchema),
}
