//! What an edit of policies means: who may do what that they could not do before, and the other way round.
//!
//! For each kind of caller and each route, two revisions are held against each other. First many requests are put to both
//! of them, by the real authorizer: what differs there differs, and there is a request to show. Where nothing differs so far,
//! a solver is asked whether any request does (in the manner of a plan before it is applied). Policies about
//! management are compared by requests alone.

mod literals;
mod management;
mod sample;
mod symbolic;
mod text;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use self::literals::Literals;
use self::sample::Sampler;
use self::symbolic::Symbolic;
use crate::key::{Kind, Scope};
use crate::policy::{PrincipalKind, Revision, Route};
use crate::prove::solver::{Session, Unproven};
use crate::prove::witness::Witness;

/// Callers that an edit is told of apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Subject {
    /// A call without credentials.
    Anonymous,
    /// A publishable key.
    Publishable,
    /// A secret key.
    Secret,
    /// A restricted key that holds exactly these scopes of those that there are: one; or none, when its own were removed.
    Restricted {
        /// Its scopes.
        scopes: Vec<Scope>,
    },
    /// A restricted key that holds two scopes or more.
    RestrictedSeveral,
    /// A person who operates the installation.
    Operator,
    /// A person with this role in the account that it is about.
    Member {
        /// `owner`, `developer` or `viewer`.
        role: crate::people::Role,
    },
    /// A person without a role there.
    Stranger,
    /// A call of the management API without a token.
    Nobody,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("no credentials"),
            Self::Publishable => f.write_str("publishable"),
            Self::Secret => f.write_str("secret"),
            Self::Restricted { scopes } => match scopes.as_slice() {
                [] => f.write_str("restricted, no known scope"),
                scopes => {
                    let names: Vec<&str> = scopes.iter().map(Scope::as_str).collect();
                    write!(f, "restricted, {}", names.join(" + "))
                }
            },
            Self::RestrictedSeveral => f.write_str("restricted, several scopes"),
            Self::Operator => f.write_str("operator"),
            Self::Member { role } => f.write_str(role.as_str()),
            Self::Stranger => f.write_str("person without a role"),
            Self::Nobody => f.write_str("no token"),
        }
    }
}

impl Subject {
    /// Every caller of the API, with the scopes of either revision.
    fn of_api(scopes: &BTreeSet<Scope>) -> Vec<Self> {
        let each = scopes.iter().map(|scope| Self::Restricted { scopes: vec![scope.clone()] });
        let several = (scopes.len() > 1).then_some(Self::RestrictedSeveral);
        [Self::Anonymous, Self::Publishable, Self::Secret, Self::Restricted { scopes: vec![] }]
            .into_iter()
            .chain(each)
            .chain(several)
            .collect()
    }

    /// What the schema knows of it.
    fn principal(&self) -> PrincipalKind {
        match self {
            Self::Publishable => PrincipalKind::Key(Kind::Publishable),
            Self::Secret => PrincipalKind::Key(Kind::Secret),
            Self::Restricted { .. } | Self::RestrictedSeveral => PrincipalKind::Key(Kind::Restricted),
            _ => PrincipalKind::Anonymous,
        }
    }
}

/// How what a caller may do has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Not at all, as far as is known.
    Unchanged,
    /// Something is allowed that was not.
    Widened,
    /// Something was allowed that is not.
    Narrowed,
    /// Both.
    Both,
}

impl Change {
    fn of(widened: bool, narrowed: bool) -> Self {
        match (widened, narrowed) {
            (false, false) => Self::Unchanged,
            (true, false) => Self::Widened,
            (false, true) => Self::Narrowed,
            (true, true) => Self::Both,
        }
    }

    /// Whether something is allowed that was not.
    pub fn widens(self) -> bool {
        matches!(self, Self::Widened | Self::Both)
    }

    /// Its name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Widened => "widened",
            Self::Narrowed => "narrowed",
            Self::Both => "both",
        }
    }
}

/// A decision, as far as an edit is told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The reason code.
    pub reason: String,
    /// The policies that decided.
    pub policies: Vec<String>,
}

/// One request that is decided otherwise than before. Both decisions are the real authorizer's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The request.
    pub request: Witness,
    /// By the earlier revision.
    pub before: Decided,
    /// By the later one.
    pub after: Decided,
}

/// What has become of one kind of caller on one route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Who calls.
    pub subject: Subject,
    /// The method.
    pub method: String,
    /// The path's template.
    pub path: String,
    /// The action's name, in the later revision if it is there.
    pub action: String,
    /// What has changed.
    pub change: Change,
    /// Whether it is proven that nothing besides has changed; if not, why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproven: Option<Unproven>,
    /// A request that is allowed and was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub widened: Option<Difference>,
    /// A request that was allowed and is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub narrowed: Option<Difference>,
}

/// What an edit means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The earlier revision's digest.
    pub from: String,
    /// The later one's.
    pub to: String,
    /// Each kind of caller on each route, where something has changed or it is not proven that nothing has.
    pub rows: Vec<Row>,
    /// How many others there are, of which it is proven that nothing has changed.
    pub unchanged: usize,
    /// How long it took.
    pub took_ms: u64,
}

impl Comparison {
    /// Everything together.
    pub fn change(&self) -> Change {
        let any = |change: Change| self.rows.iter().any(|row| row.change == change || row.change == Change::Both);
        Change::of(any(Change::Widened), any(Change::Narrowed))
    }

    /// Whether somebody may do more than before, or it is not known that nobody may.
    pub fn may_widen(&self) -> bool {
        self.rows.iter().any(|row| row.change.widens() || row.unproven.is_some())
    }

    /// Those in which something has changed.
    pub fn changed(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.change != Change::Unchanged)
    }
}

/// A route that one of the revisions has, or both.
struct Pair<'r> {
    before: Option<&'r Route>,
    after: Option<&'r Route>,
}

impl<'r> Pair<'r> {
    /// Every method and path of either revision, with the route that each revision has for it.
    fn all(before: &'r Revision, after: &'r Revision) -> Vec<Self> {
        let mut seen = BTreeSet::new();
        let mut pairs = Vec::new();
        for route in after.routes().chain(before.routes()) {
            let path = sample::path(route, "item");
            if !seen.insert((route.method.to_string(), path.clone())) {
                continue;
            }
            let find = |revision: &'r Revision| revision.find_route(&route.method, &path).map(|found| found.route);
            pairs.push(Self { before: find(before), after: find(after) });
        }
        pairs
    }

    /// The later one's route, or the earlier one's when it is gone.
    fn route(&self) -> Option<&'r Route> {
        self.after.or(self.before)
    }
}

/// Holds two revisions against each other. Without a session, nothing is proven but what is plain.
pub async fn compare(before: &Arc<Revision>, after: &Arc<Revision>, session: Option<&mut Session>) -> Comparison {
    let started = Instant::now();
    let scopes: BTreeSet<Scope> = [before, after]
        .iter()
        .flat_map(|revision| &revision.model().scopes)
        .map(|scope| Scope::from(&**scope))
        .collect();
    let literals = Literals::of(&[before, after]);
    let sampler = Sampler::new(before, after, &literals, &scopes);
    let mut symbolic = Symbolic::new(before, after, &scopes, session);
    let (mut rows, mut unchanged) = (Vec::new(), 0);
    for pair in Pair::all(before, after) {
        for subject in Subject::of_api(&scopes) {
            match row(&pair, &subject, &sampler, &mut symbolic).await {
                Some(row) => rows.push(row),
                None => unchanged += 1,
            }
        }
    }
    let (of_management, same) = management::compare(before, after);
    rows.extend(of_management);
    unchanged += same;
    Comparison {
        from: before.digest_text().to_owned(),
        to: after.digest_text().to_owned(),
        rows,
        unchanged,
        took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

/// `None` when it is proven that nothing has changed.
async fn row(pair: &Pair<'_>, subject: &Subject, sampler: &Sampler<'_>, symbolic: &mut Symbolic<'_>) -> Option<Row> {
    let (route, kind) = (pair.route()?, subject.principal());
    let old = pair.before.and_then(|route| route.slice(kind));
    let new = pair.after.and_then(|route| route.slice(kind));
    let is_same_route = match (pair.before, pair.after) {
        (Some(before), Some(after)) => before.target == after.target && before.action == after.action,
        _ => false,
    };
    if is_same_route && symbolic::are_alike(old, new) {
        return None;
    }
    let (mut widened, mut narrowed) = sampler.differences(route, subject);
    let mut unproven = None;
    if widened.is_none() || narrowed.is_none() {
        let found = symbolic.differences(pair, subject).await;
        match found {
            Ok((wider, narrower)) => {
                widened = widened.or(wider);
                narrowed = narrowed.or(narrower);
            }
            Err(why) => unproven = Some(why),
        }
    }
    let change = Change::of(widened.is_some(), narrowed.is_some());
    if change == Change::Unchanged && unproven.is_none() {
        return None;
    }
    Some(Row {
        subject: subject.clone(),
        method: route.method.to_string(),
        path: route.template.to_string(),
        action: route.action_name.to_string(),
        change,
        unproven,
        widened,
        narrowed,
    })
}

#[cfg(test)]
mod tests;
