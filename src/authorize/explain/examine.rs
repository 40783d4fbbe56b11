//! One policy, looked into: whether it applied to a question, and which part of it decided that.

use std::sync::Arc;

use cedar_policy::pst::{self, BinaryOp, Expr};
use cedar_policy::{Effect, Policy, PolicySet};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::condition::{Because, Inquiry, Truth, conditions, scope};
use super::written::{Extract, Written, shown};
use crate::policy::{PolicyInfo, Revision};

/// Permits that are told of as near misses.
const MOST_MISSES: usize = 10;

/// A policy, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Examined {
    /// Which policy.
    #[serde(flatten)]
    pub policy: PolicyInfo,
    /// What became of it.
    pub state: State,
    /// What decided that: of a policy that applied its conditions, of another one the parts that did not hold.
    pub parts: Vec<Part>,
}

/// What became of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It applied: it permits or forbids.
    Satisfied,
    /// It is about other principals, actions or resources.
    OutOfScope,
    /// One of its conditions did not hold.
    ConditionFalse,
    /// It could not be evaluated, which refuses the call.
    Failed,
}

/// A part of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Part {
    /// Which.
    pub part: Which,
    /// Its text; of a condition what stands in the braces.
    pub text: String,
    /// The line that it begins on.
    pub line: usize,
    /// Whether it held: what `when` says was true, what `unless` says was false.
    pub held: bool,
    /// The smallest parts that decided.
    pub because: Vec<Because>,
}

/// Which part of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// Who it is about.
    Principal,
    /// What it is about doing.
    Action,
    /// What it is about doing that to.
    Resource,
    /// What has to be true.
    When,
    /// What has to be false.
    Unless,
}

impl Which {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Action => "action",
            Self::Resource => "resource",
            Self::When => "when",
            Self::Unless => "unless",
        }
    }

    fn is_of_scope(self) -> bool {
        !matches!(self, Self::When | Self::Unless)
    }
}

/// The policies that are in play, and what became of each, in the order of files and lines.
pub(super) fn in_play<'a>(
    revision: &Revision,
    inquiry: &Inquiry<'_>,
    policies: impl Iterator<Item = &'a Policy>,
) -> Vec<Examined> {
    let examined = policies.filter_map(|policy| Some(Opened::of(revision, policy)?.examined(inquiry)));
    in_order(revision, examined.collect())
}

/// The permits that one part alone kept from applying, where no permit applies, the nearest first: those in play, and then
/// those for which fewer of a condition's parts would have to be otherwise.
pub(super) fn near_misses(
    revision: &Revision,
    inquiry: &Inquiry<'_>,
    all: &PolicySet,
    in_play: &[Examined],
) -> Vec<Examined> {
    if in_play.iter().any(|examined| examined.state == State::Satisfied && examined.policy.effect == "permit") {
        return Vec::new();
    }
    let permits = all.policies().filter(|policy| policy.effect() == Effect::Permit);
    let missed = permits.filter_map(|policy| {
        let opened = Opened::of(revision, policy)?;
        let (part, distance) = opened.only_obstacle(inquiry)?;
        let is_elsewhere = !in_play.iter().any(|examined| examined.policy.name == opened.info.name);
        let nearness = (is_elsewhere, distance, place(revision, opened.info));
        let state = if part.part.is_of_scope() { State::OutOfScope } else { State::ConditionFalse };
        Some((nearness, Examined { policy: opened.info.clone(), state, parts: vec![part] }))
    });
    let mut missed: Vec<_> = missed.collect();
    missed.sort_by_key(|(nearness, _)| *nearness);
    missed.into_iter().map(|(_, examined)| examined).take(MOST_MISSES).collect()
}

/// The place of a policy in the order of files and lines.
fn place(revision: &Revision, policy: &PolicyInfo) -> usize {
    revision.policies().iter().position(|info| info.name == policy.name).unwrap_or(usize::MAX)
}

fn in_order(revision: &Revision, mut examined: Vec<Examined>) -> Vec<Examined> {
    examined.sort_by_cached_key(|one| place(revision, &one.policy));
    examined
}

/// A policy with its text and its parts.
struct Opened<'a> {
    policy: &'a Policy,
    info: &'a PolicyInfo,
    text: String,
    parts: Vec<Asked>,
}

/// A part that can fail to hold.
struct Asked {
    which: Which,
    /// Its place among the parts of the scope, or among the conditions.
    at: usize,
    expression: Arc<Expr>,
}

impl Asked {
    /// What it has to be.
    fn wanted(&self) -> bool {
        self.which != Which::Unless
    }
}

impl<'a> Opened<'a> {
    fn of(revision: &'a Revision, policy: &'a Policy) -> Option<Self> {
        let name: &str = policy.id().as_ref();
        let info = revision.policy(name)?;
        let tree = policy.to_pst().ok()?;
        Some(Self { policy, info, text: policy.to_cedar().unwrap_or_default(), parts: parts(tree.body()) })
    }

    fn examined(&self, inquiry: &Inquiry<'_>) -> Examined {
        let truth = inquiry.policy(self.policy);
        let asked: Vec<_> = self.parts.iter().map(|part| (part, inquiry.truth(&part.expression))).collect();
        let is_out = |part: &Asked, of_part: &Truth| part.which.is_of_scope() && !of_part.is(part.wanted());
        let state = match truth {
            Truth::True => State::Satisfied,
            Truth::Failed(_) => State::Failed,
            Truth::False if asked.iter().any(|(part, of_part)| is_out(part, of_part)) => State::OutOfScope,
            Truth::False => State::ConditionFalse,
        };
        let is_told = |(part, of_part): &(&Asked, Truth)| match state {
            State::Satisfied => !part.which.is_of_scope(),
            // Where the scope does not match, the conditions were not looked at.
            State::OutOfScope => is_out(part, of_part),
            // Nor was what stands behind a condition that did not hold, and it may have failed because of that.
            State::ConditionFalse => of_part.is(!part.wanted()),
            State::Failed => matches!(of_part, Truth::Failed(_)),
        };
        let told = asked.into_iter().filter(is_told).take(if state == State::Failed { 1 } else { usize::MAX });
        let parts = told.map(|(part, of_part)| self.told(inquiry, part, &of_part)).collect();
        Examined { policy: self.info.clone(), state, parts }
    }

    /// The one part that did not hold, when there is but one, and how far it is from holding.
    fn only_obstacle(&self, inquiry: &Inquiry<'_>) -> Option<(Part, usize)> {
        let asked = self.parts.iter().map(|part| (part, inquiry.truth(&part.expression)));
        let mut obstacles = asked.filter(|(part, of_part)| !of_part.is(part.wanted()));
        let (part, of_part) = obstacles.next()?;
        // A permit of one other action is about something else, and not near.
        let is_of_one_action =
            part.which == Which::Action && matches!(&*part.expression, Expr::BinaryOp { op: BinaryOp::Eq, .. });
        if is_of_one_action || obstacles.next().is_some() {
            return None;
        }
        Some((self.told(inquiry, part, &of_part), inquiry.distance(&part.expression, part.wanted())))
    }

    fn told(&self, inquiry: &Inquiry<'_>, part: &Asked, truth: &Truth) -> Part {
        let written = Written::of(&self.text, self.info.line);
        let as_cedar_has_it = |expression: &Expr, line| Extract { text: shown(&expression.to_string()), line };
        let is_of_scope = part.which.is_of_scope();
        let extract = if is_of_scope { written.scope(part.at) } else { written.condition(part.at) };
        let whole = extract.unwrap_or_else(|| as_cedar_has_it(&part.expression, self.info.line));
        let because = inquiry.deciders(&part.expression, truth).into_iter().map(|decider| {
            let found = if is_of_scope {
                Some(whole.clone())
            } else {
                written.within(part.at, &decider.expression.to_string())
            };
            let Extract { text, line } = found.unwrap_or_else(|| as_cedar_has_it(&decider.expression, whole.line));
            let (was, error) = match decider.truth {
                Truth::True => (Some(true), None),
                Truth::False => (Some(false), None),
                Truth::Failed(error) => (None, Some(error)),
            };
            Because { text, line, was, error, values: inquiry.values(&decider.expression) }
        });
        let because = because.collect();
        let held = truth.is(part.wanted());
        Part { part: part.which, text: whole.text, line: whole.line, held, because }
    }
}

/// The parts of a policy that can fail to hold.
fn parts(policy: &pst::Template) -> Vec<Asked> {
    let of_scope = [Which::Principal, Which::Action, Which::Resource].into_iter().zip(scope(policy)).zip(0..);
    let of_scope = of_scope.filter_map(|((which, expression), at)| Some(Asked { which, at, expression: expression? }));
    let of_conditions = conditions(policy).zip(0..).map(|((expression, wanted), at)| {
        let which = if wanted { Which::When } else { Which::Unless };
        Asked { which, at, expression }
    });
    of_scope.chain(of_conditions).collect()
}
