//! What an edit of policies means: who may do what that they could not do before, and the other way round.
//!
//! For each kind of caller and each route, two revisions are held against each other. First a few requests are put to both
//! of them, by the real authorizer: what differs there differs, and there is a request to show. Where nothing differs so far,
//! a solver is asked whether any request does (in the manner of a plan before it is applied), and where it cannot say,
//! many more requests are tried. Policies about management are compared by requests alone.

mod literals;
mod management;
mod sample;
mod symbolic;
mod text;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::literals::Literals;
use self::sample::Sampler;
use self::symbolic::Symbolic;
use crate::key::{Kind, Scope};
use crate::policy::{PrincipalKind, Revision, Route, common, filled, stand_in};
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
    /// Every caller of the API of this kind, with the scopes of either revision.
    fn of_kind(kind: PrincipalKind, scopes: &BTreeSet<Scope>) -> Vec<Self> {
        match kind {
            PrincipalKind::Anonymous => vec![Self::Anonymous],
            PrincipalKind::Key(Kind::Publishable) => vec![Self::Publishable],
            PrincipalKind::Key(Kind::Secret) => vec![Self::Secret],
            PrincipalKind::Key(Kind::Restricted) => {
                let each = scopes.iter().map(|scope| Self::Restricted { scopes: vec![scope.clone()] });
                let several = (scopes.len() > 1).then_some(Self::RestrictedSeveral);
                [Self::Restricted { scopes: vec![] }].into_iter().chain(each).chain(several).collect()
            }
        }
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

/// One of the two ways in which something may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Direction {
    Widened,
    Narrowed,
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

/// Paths of which each revision finds one route, or one of them none.
struct Pair<'r> {
    before: Option<&'r Route>,
    after: Option<&'r Route>,
    /// The method of both.
    method: &'r str,
    /// What they look like. Where one of them is another route's, they are not among these.
    template: String,
}

impl<'r> Pair<'r> {
    /// All that there are: what a path is found as depends on every route beside it, so that each template of either
    /// revision is tried, and whatever two of them have in common. `item` is a [`stand_in`] for both revisions: if another
    /// route is found in the place of a parameter with it, then with every text.
    fn all(before: &'r Revision, after: &'r Revision, item: &str) -> Vec<Self> {
        let mut seen = BTreeSet::new();
        let mut pairs = Vec::new();
        let mut add = |method: &'r str, template: String| {
            let path = filled(&template, item, item);
            let find = |revision: &'r Revision| revision.find_route(method, &path).map(|found| found.route);
            let (before, after) = (find(before), find(after));
            if seen.insert((before.map(|route| route.index), after.map(|route| route.index))) {
                pairs.push(Self { before, after, method, template });
            }
        };
        for route in after.routes().chain(before.routes()) {
            add(&route.method, route.template.to_string());
        }
        for new in after.routes() {
            for old in before.routes().filter(|old| old.method == new.method) {
                if let Some(template) = common(&new.template, &old.template) {
                    add(&new.method, template);
                }
            }
        }
        pairs
    }

    /// Whether each revision finds of a path what it finds of the others.
    fn has(&self, before: &Revision, after: &Revision, path: &str) -> bool {
        let is_found = |revision: &Revision, route: Option<&Route>| {
            let found = revision.find_route(self.method, path).map(|found| found.route.index);
            found == route.map(|route| route.index)
        };
        is_found(before, self.before) && is_found(after, self.after)
    }

    /// Whether it is one action in both, in the same groups.
    fn is_same_action(&self) -> bool {
        self.before.zip(self.after).is_some_and(|(before, after)| before.is_same_action(after))
    }

    /// The later one's route, or the earlier one's when it is gone.
    fn route(&self) -> Option<&'r Route> {
        self.after.or(self.before)
    }
}

/// What is known of one kind of caller on one route.
struct Known {
    subject: Subject,
    widened: Option<Difference>,
    narrowed: Option<Difference>,
    /// In which directions there may be more, and why.
    unproven: Vec<(Direction, Unproven)>,
}

impl Known {
    fn nothing(subject: Subject) -> Self {
        Self { subject, widened: None, narrowed: None, unproven: Vec::new() }
    }

    fn found(&self, direction: Direction) -> Option<&Difference> {
        match direction {
            Direction::Widened => self.widened.as_ref(),
            Direction::Narrowed => self.narrowed.as_ref(),
        }
    }

    /// Adds what was found; the first is kept.
    fn note(&mut self, direction: Direction, difference: Difference) {
        let found = match direction {
            Direction::Widened => &mut self.widened,
            Direction::Narrowed => &mut self.narrowed,
        };
        found.get_or_insert(difference);
    }

    /// Why there may be more than was found, in a direction in which nothing was.
    fn why_open(&self) -> Option<&Unproven> {
        let open = self.unproven.iter().find(|(direction, _)| self.found(*direction).is_none());
        open.map(|(_, why)| why)
    }

    fn is_open(&self) -> bool {
        self.why_open().is_some()
    }

    /// Whether it is proven that nothing has changed.
    fn is_unchanged(&self) -> bool {
        self.widened.is_none() && self.narrowed.is_none() && !self.is_open()
    }

    fn row(self, pair: &Pair<'_>) -> Row {
        Row {
            method: pair.method.to_owned(),
            path: pair.template.clone(),
            action: pair.route().map_or_else(String::new, |route| route.action_name.to_string()),
            change: Change::of(self.widened.is_some(), self.narrowed.is_some()),
            unproven: self.why_open().cloned(),
            subject: self.subject,
            widened: self.widened,
            narrowed: self.narrowed,
        }
    }
}

/// Holds two revisions against each other. Without a session, nothing is proven but what is plain. Requests are tried
/// for as long as `limit`.
pub async fn compare(
    before: &Arc<Revision>,
    after: &Arc<Revision>,
    session: Option<&mut Session>,
    limit: Duration,
) -> Comparison {
    let started = Instant::now();
    let scopes: BTreeSet<Scope> = [before, after]
        .iter()
        .flat_map(|revision| &revision.model().scopes)
        .map(|scope| Scope::from(&**scope))
        .collect();
    let literals = Literals::of(&[before, after]);
    let item = stand_in(&[before, after], "item");
    let sampler = Sampler::new(before, after, &literals, &scopes, &item);
    let mut symbolic = Symbolic::new(before, after, &scopes, session);
    let pairs = Pair::all(before, after, &item);
    let (mut unchanged, mut open) = (0, Vec::new());
    for pair in &pairs {
        for kind in PrincipalKind::ALL {
            let callers = look(pair, Subject::of_kind(kind, &scopes), &sampler, &mut symbolic).await;
            let all = callers.len();
            let told = callers.into_iter().filter(|known| !known.is_unchanged());
            let told: Vec<_> = told.map(|known| (pair, known)).collect();
            unchanged += all - told.len();
            open.extend(told);
        }
    }
    // Where nothing is proven, many more are tried, each for its share of the time that is left.
    let mut left = u32::try_from(open.iter().filter(|(_, known)| known.is_open()).count()).unwrap_or(u32::MAX);
    for (pair, known) in open.iter_mut().filter(|(_, known)| known.is_open()) {
        let share = limit.saturating_sub(started.elapsed()) / left.max(1);
        sampler.search(pair, known, Instant::now() + share);
        left = left.saturating_sub(1);
    }
    let mut rows: Vec<Row> = open.into_iter().map(|(pair, known)| known.row(pair)).collect();
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

/// What is found out at once of callers of one kind on one route.
async fn look(
    pair: &Pair<'_>,
    subjects: Vec<Subject>,
    sampler: &Sampler<'_>,
    symbolic: &mut Symbolic<'_>,
) -> Vec<Known> {
    let mut callers: Vec<Known> = subjects.into_iter().map(Known::nothing).collect();
    let kind = callers.first().map(|known| known.subject.principal());
    let Some(kind) = kind else { return callers };
    let old = pair.before.and_then(|route| route.slice(kind));
    let new = pair.after.and_then(|route| route.slice(kind));
    if pair.is_same_action() && symbolic::are_alike(old, new) {
        return callers;
    }
    // For a solver, all restricted keys are one question, and it takes less than trying each of them.
    if callers.len() == 1 || !symbolic.asks() {
        for known in &mut callers {
            sampler.glance(pair, known);
        }
    }
    for direction in [Direction::Widened, Direction::Narrowed] {
        symbolic.settle(pair, direction, &mut callers).await;
    }
    callers
}

#[cfg(test)]
mod tests;
