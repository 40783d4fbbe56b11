//! What is in force, and what is not: as `GET /v1/policies` shows it.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::compare::Comparison;
use super::git::Commit;
use super::history::Rollback;
use crate::policy::{Bundle, Digest, Rejection};
use crate::prove::Proof;

/// Where a revision came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The files on disk.
    Files,
    /// The store: the files on disk are refused or wait, and this is the last good revision.
    Store,
    /// The store: somebody went back to it, and it serves until the files change.
    Rollback,
}

/// The revision in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Active {
    /// Its digest.
    pub digest: Digest,
    /// Where it came from.
    pub source: Source,
    /// Since when it is in force, in this process.
    pub activated_at: Timestamp,
    /// Who went back to it, and since when it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
}

/// Files on disk that are not in force, because they were refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refused {
    /// Their digest; none when they could not even be read or checked, so that they are tried again.
    pub digest: Option<Digest>,
    /// Since when what is on disk differs from what is in force.
    pub since: Timestamp,
    /// What is wrong, as text with file, line and caret.
    pub diagnostics: String,
    /// What is wrong, in parts.
    #[serde(flatten)]
    pub rejection: Rejection,
}

/// Files on disk that are not in force, because somebody could do more and nobody has approved it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Waiting {
    /// Their digest, which is to be approved.
    pub digest: Digest,
    /// Since when they wait.
    pub since: Timestamp,
    /// What is different.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// Who wrote them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git: Option<Commit>,
    /// What they say, for whoever may read it: the report is for everybody.
    #[serde(skip)]
    pub bundle: Arc<Bundle>,
}

/// What is in force, and what is not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The revision in force.
    pub active: Active,
    /// What is proven of it; none as long as it is not known.
    pub proof: Option<Proof>,
    /// The solver that proves, or why there is none.
    pub solver: String,
    /// The files on disk, when they are refused.
    pub refused: Option<Refused>,
    /// The files on disk, when they wait for approval.
    pub waiting: Option<Waiting>,
    /// Since when what is on disk is refused or waits, however often it was changed meanwhile.
    pub stale_since: Option<Timestamp>,
    /// For how many seconds.
    pub stale_seconds: Option<u64>,
    /// Activations since the start, the first one included.
    pub reloads_ok: u64,
    /// Refusals since the start.
    pub reloads_refused: u64,
}
