//! A record as it is told: in the API's answers, in an export, and in the file that survives a restart.

use std::net::IpAddr;

use cedar_policy::PolicyId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::record::{KeyFacts, Line, Parts, Record, RecordId, Ruling, Shared};
use crate::authorize::Transport;
use crate::authorize::verdict::Reason;
use crate::key::{EnvironmentId, KeyId, Kind, Scope};

/// A decision: what it turned on, and what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Decision)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// Its identity; ids sort as decisions were made: `dec_…`.
    pub id: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Names the request; the decisions of a batch share it, and a proxy may give it twice.
    pub request_id: String,
    /// `allow`, `unauthenticated` or `forbidden`.
    pub outcome: String,
    /// The reason code.
    pub reason: String,
    /// The key that was proven, as it was then: `key_…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyId>,
    /// What the key is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// The key's: `acct_…/live` or `acct_…/test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub environment: Option<EnvironmentId>,
    /// What a restricted key was granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub scopes: Vec<Scope>,
    /// The action, once a route was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The method, if it was stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path in its normal form, without query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// In its place where it can be read in more than one way or is very long: its beginning, as it was stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stated_path: Option<String>,
    /// What a calling service stated besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ToldResource>,
    /// Whether the call came over HTTPS; not there when that was not stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<bool>,
    /// Whence it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// The digest of the policies that were asked.
    pub revision: String,
}

/// The thing that a call was about, as a calling service stated it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = StatedResource)]
#[serde(deny_unknown_fields)]
pub struct ToldResource {
    /// The item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where it is: `acct_…/live` or `acct_…/test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub environment: Option<EnvironmentId>,
}

impl From<&Record> for Told {
    fn from(record: &Record) -> Self {
        let (ruling, key) = (record.ruling(), record.key());
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (item, environment) = (record.stated_item(), record.stated_environment());
        let is_stated = item.is_some() || environment.is_some();
        Self {
            id: record.id().to_string(),
            time: record.time(),
            request_id: record.request_id().to_owned(),
            outcome: ruling.reason.outcome().as_str().to_owned(),
            reason: ruling.reason.as_str().to_owned(),
            key: key.map(|key| key.id),
            kind: key.map(|key| key.kind),
            environment: key.map(|key| key.environment()),
            scopes: key.map(|key| key.scopes.to_vec()).unwrap_or_default(),
            action: ruling.action.as_deref().map(str::to_owned),
            method: text(record.method()),
            path: record.path().map(str::to_owned),
            stated_path: record.stated_path().map(str::to_owned),
            resource: is_stated.then(|| ToldResource { id: item.map(str::to_owned), environment }),
            secure: match record.transport() {
                Transport::Secure => Some(true),
                Transport::Insecure => Some(false),
                Transport::Unknown => None,
            },
            address: record.address(),
            policies: ruling.policies.iter().map(ToString::to_string).collect(),
            revision: ruling.revision.to_string(),
        }
    }
}

/// Why what is told is no decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {what}")]
pub struct NotADecision {
    /// Which field.
    field: &'static str,
    /// What is wrong.
    what: String,
}

impl NotADecision {
    fn of(field: &'static str, what: &dyn std::fmt::Display) -> Self {
        Self { field, what: what.to_string() }
    }
}

impl Shared {
    /// Makes a record of what was told of one.
    pub(super) fn of_told(&mut self, told: &Told) -> Result<Record, NotADecision> {
        let RecordId(place) = told.id.parse().map_err(|error| NotADecision::of("id", &error))?;
        let unknown = || NotADecision::of("reason", &"this version knows no such reason");
        let reason = Reason::named(&told.reason).ok_or_else(unknown)?;
        let revision = told.revision.parse().map_err(|error| NotADecision::of("revision", &error))?;
        let key = match (told.key, told.kind, told.environment) {
            (None, None, None) => None,
            (Some(id), Some(kind), Some(EnvironmentId { account, mode })) => {
                let scopes = told.scopes.as_slice().into();
                Some(self.facts(KeyFacts { id, account, kind, mode, scopes }))
            }
            _ => return Err(NotADecision::of("key", &"give `key`, `kind` and `environment` together")),
        };
        let ruling = self.ruling(Ruling {
            reason,
            action: told.action.as_deref().map(Into::into),
            policies: told.policies.iter().map(PolicyId::new).collect(),
            revision,
        });
        let (line, path) = match (&told.path, &told.stated_path) {
            (Some(path), None) => (Line::Whole, path.as_str()),
            (None, Some(path)) => (Line::Unclear, path.as_str()),
            (None, None) => (Line::Unstated, ""),
            (Some(_), Some(_)) => return Err(NotADecision::of("stated_path", &"`path` is given, too")),
        };
        let item = told.resource.as_ref().and_then(|resource| resource.id.as_deref()).unwrap_or_default();
        let method = told.method.as_deref().unwrap_or_default();
        let parts = Parts {
            place,
            time: told.time.into(),
            key,
            ruling,
            texts: [&told.request_id, method, path, item],
            line,
            environment: told.resource.as_ref().and_then(|resource| resource.environment),
            address: told.address,
            transport: match told.secure {
                Some(true) => Transport::Secure,
                Some(false) => Transport::Insecure,
                None => Transport::Unknown,
            },
        };
        Ok(parts.record())
    }
}

/// Reads records of what was told of them, one by one: records that have much in common share it.
#[derive(Default)]
pub struct Reader(Shared);

impl Reader {
    /// The record that this line of JSON tells.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn line(&mut self, line: &[u8]) -> Result<Record, String> {
        let told: Told = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        self.0.of_told(&told).map_err(|error| error.to_string())
    }

    pub(super) fn into_shared(self) -> Shared {
        self.0
    }
}
