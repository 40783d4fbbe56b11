//! What would be decided differently: counted, and grouped so that a person sees why.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cedar_policy::PolicyId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::again::Decided;
use super::record::{Record, Ruling};
use crate::authorize::verdict::{Outcome, Reason};
use crate::key::Kind;

/// Examples of one group.
const EXAMPLES: usize = 3;
/// Groups that are told apart; what differs in still another way is counted alone.
const MOST_GROUPS: usize = 1_000;

/// What becomes of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A call that was denied is allowed.
    DenyToAllow,
    /// A call that was allowed is denied.
    AllowToDeny,
    /// It is denied as before, and for another reason.
    OtherReason,
    /// It is decided as before, and by other policies.
    OtherPolicies,
    /// Nothing.
    Same,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::DenyToAllow, Self::AllowToDeny, Self::OtherReason, Self::OtherPolicies, Self::Same];

    /// Its name, in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DenyToAllow => "deny_to_allow",
            Self::AllowToDeny => "allow_to_deny",
            Self::OtherReason => "other_reason",
            Self::OtherPolicies => "other_policies",
            Self::Same => "same",
        }
    }

    /// What has become of a decision.
    pub fn of(before: &Ruling, after: &Decided) -> Self {
        let was_allowed = before.reason.outcome() == Outcome::Allow;
        let is_allowed = after.reason.outcome() == Outcome::Allow;
        match (was_allowed, is_allowed) {
            (false, true) => Self::DenyToAllow,
            (true, false) => Self::AllowToDeny,
            _ if before.reason != after.reason => Self::OtherReason,
            _ if before.policies != after.policies => Self::OtherPolicies,
            _ => Self::Same,
        }
    }

    /// Whether a caller would notice: the call is let through and was not, or the other way round.
    pub fn is_flip(self) -> bool {
        matches!(self, Self::DenyToAllow | Self::AllowToDeny)
    }
}

/// Decisions that changed alike.
#[derive(PartialEq, Eq, Hash, Clone)]
struct Alike {
    change: Change,
    kind: Option<Kind>,
    action: Option<Arc<str>>,
    before: (Reason, Arc<[PolicyId]>),
    after: (Reason, Arc<[PolicyId]>),
}

/// Counts decisions and what becomes of them.
#[derive(Default, Clone)]
pub struct Comparison {
    counts: [u64; Change::ALL.len()],
    not_decided: BTreeMap<&'static str, u64>,
    groups: HashMap<Alike, (u64, Vec<Record>)>,
    ungrouped: u64,
}

impl Comparison {
    /// Takes note of what becomes of a decision; `None` when that was not for policies to say.
    pub fn note(&mut self, record: &Record, after: Option<&Decided>) -> Option<Change> {
        let before = record.ruling();
        let Some(after) = after else {
            *self.not_decided.entry(before.reason.as_str()).or_default() += 1;
            return None;
        };
        let change = Change::of(before, after);
        if let Some(count) = self.counts.get_mut(change as usize) {
            *count += 1;
        }
        if change != Change::Same {
            let alike = Alike {
                change,
                kind: record.key().map(|key| key.kind),
                action: before.action.clone(),
                before: (before.reason, Arc::clone(&before.policies)),
                after: (after.reason, Arc::clone(&after.policies)),
            };
            self.add(alike, 1, [record]);
        }
        Some(change)
    }

    fn add<'r>(&mut self, alike: Alike, count: u64, records: impl IntoIterator<Item = &'r Record>) {
        if self.groups.len() >= MOST_GROUPS && !self.groups.contains_key(&alike) {
            self.ungrouped += count;
            return;
        }
        let (held, examples) = self.groups.entry(alike).or_default();
        *held += count;
        examples.extend(records.into_iter().take(EXAMPLES - examples.len().min(EXAMPLES)).cloned());
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, other: Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        for (reason, more) in other.not_decided {
            *self.not_decided.entry(reason).or_default() += more;
        }
        for (alike, (count, records)) in other.groups {
            self.add(alike, count, &records);
        }
        self.ungrouped += other.ungrouped;
    }

    /// How many decisions have changed so.
    pub fn count(&self, change: Change) -> u64 {
        self.counts.get(change as usize).copied().unwrap_or_default()
    }

    /// What there is to tell: what matters most comes first.
    pub fn report(&self) -> Report {
        let mut groups: Vec<Group> = self
            .groups
            .iter()
            .map(|(alike, (count, records))| Group {
                change: alike.change,
                kind: alike.kind,
                action: alike.action.as_deref().map(str::to_owned),
                before: Ruled::of(&alike.before),
                after: Ruled::of(&alike.after),
                count: *count,
                examples: records.iter().map(Example::of).collect(),
            })
            .collect();
        groups.sort_by(|a, b| {
            let key = |group: &Group| (group.change, std::cmp::Reverse(group.count));
            key(a).cmp(&key(b)).then_with(|| a.action.cmp(&b.action)).then_with(|| a.before.cmp(&b.before))
        });
        Report {
            decided_again: self.counts.iter().sum(),
            not_decided_again: self.not_decided.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
            changes: Change::ALL.iter().map(|change| (change.as_str().to_owned(), self.count(*change))).collect(),
            groups,
            ungrouped: self.ungrouped,
        }
    }
}

/// What would be decided differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Flips)]
pub struct Report {
    /// Decisions that were made again.
    pub decided_again: u64,
    /// Those that policies did not make (a bad token, a revoked key, the transport), by reason.
    pub not_decided_again: BTreeMap<String, u64>,
    /// How many of those that were made again changed how: `deny_to_allow`, `allow_to_deny`, `other_reason`,
    /// `other_policies`, `same`.
    pub changes: BTreeMap<String, u64>,
    /// Those that changed, by how they changed.
    pub groups: Vec<Group>,
    /// Those that changed in still other ways than the groups.
    pub ungrouped: u64,
}

/// Decisions that changed alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonGroup)]
pub struct Group {
    /// How.
    pub change: Change,
    /// The kind of key; not there for calls without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// The action that the call's route named; not there when there was no route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// What was decided.
    pub before: Ruled,
    /// What would be.
    pub after: Ruled,
    /// How many there are.
    pub count: u64,
    /// A few of them.
    pub examples: Vec<Example>,
}

/// A reason, and the policies behind it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonRuling)]
pub struct Ruled {
    /// The reason code.
    pub reason: Cow<'static, str>,
    /// Their names.
    pub policies: Vec<String>,
}

impl Ruled {
    fn of((reason, policies): &(Reason, Arc<[PolicyId]>)) -> Self {
        Self { reason: reason.as_str().into(), policies: policies.iter().map(ToString::to_string).collect() }
    }
}

/// One of the decisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonExample)]
pub struct Example {
    /// Its identity: `dec_…`.
    pub id: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Names the request.
    pub request_id: String,
    /// The key: `key_…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The method.
    pub method: String,
    /// The path, in its normal form.
    pub path: String,
}

impl Example {
    fn of(record: &Record) -> Self {
        Self {
            id: record.id().to_string(),
            time: record.time(),
            request_id: record.request_id().to_owned(),
            key: record.key().map(|key| key.id.to_string()),
            method: record.method().to_owned(),
            path: record.path().unwrap_or_default().to_owned(),
        }
    }
}
