//! Which part of a condition made it true or false, and what it saw.
//!
//! Policies are asked one by one, and their conditions part by part, by the same authorizer with the same request and
//! entities as the call. Cedar's public syntax tree is what the parts are taken from: nothing is parsed anew but plain
//! paths such as `principal.environment`. A tree is no deeper than `policy::scan` lets a policy be, and how many
//! parts one explanation asks about is bounded.

use std::cell::Cell;
use std::sync::Arc;

use cedar_policy::pst::{self, BinaryOp, Clause, Expr, UnaryOp};
use cedar_policy::{
    AuthorizationError, Authorizer, Decision, Effect, EntityUid, EvalResult, Expression, Policy, PolicySet,
    eval_expression,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::evaluate::Posed;
use super::written::shown;

/// Parts that one explanation asks about.
const MOST_QUESTIONS: u32 = 20_000;
/// Parts that are told of one condition.
const MOST_REASONS: usize = 8;
/// Values that are told of one part.
const MOST_VALUES: usize = 8;
/// Members that are shown of a set or a record, and groups of an entity.
const MOST_MEMBERS: usize = 12;

/// What became of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    /// It could not be evaluated.
    Failed(String),
}

impl Truth {
    pub fn is(&self, wanted: bool) -> bool {
        *self == if wanted { Self::True } else { Self::False }
    }
}

/// The smallest part of a condition that decided, and what it saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Because {
    /// The part, as it is written.
    pub text: String,
    /// The line that it is on.
    pub line: usize,
    /// Whether it was true; not there when it could not be evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<bool>,
    /// Why it could not be evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Seen>,
}

/// A value that a condition saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Seen {
    /// Where it is, for example `principal.environment`.
    pub name: String,
    /// The value, as Cedar writes it; not there when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What the entity is in, where that was looked at.
    #[serde(rename = "in", default, skip_serializing_if = "Vec::is_empty")]
    pub within: Vec<String>,
}

/// A part that decided, before its place in the text is known.
pub(super) struct Decider {
    pub expression: Arc<Expr>,
    pub truth: Truth,
}

/// One call's question, to be put to single policies and to parts of them.
pub(super) struct Inquiry<'a> {
    posed: &'a Posed,
    left: Cell<u32>,
}

impl<'a> Inquiry<'a> {
    pub fn new(posed: &'a Posed) -> Self {
        Self { posed, left: Cell::new(MOST_QUESTIONS) }
    }

    /// Whether a policy applies, as the authorizer has it.
    pub fn policy(&self, policy: &Policy) -> Truth {
        let mut policies = PolicySet::new();
        if let Err(error) = policies.add(policy.clone()) {
            return Truth::Failed(error.to_string());
        }
        let response = Authorizer::new().is_authorized(&self.posed.request, &policies, &self.posed.entities);
        if let Some(AuthorizationError::PolicyEvaluationError(error)) = response.diagnostics().errors().next() {
            return Truth::Failed(shown(&error.inner().to_string()));
        }
        let applies = match policy.effect() {
            Effect::Permit => response.decision() == Decision::Allow,
            Effect::Forbid => response.diagnostics().reason().next().is_some(),
        };
        if applies { Truth::True } else { Truth::False }
    }

    /// What becomes of an expression that stands for true or false.
    pub fn truth(&self, expression: &Arc<Expr>) -> Truth {
        if let Expr::Literal(pst::Literal::Bool(is)) = &**expression {
            return if *is { Truth::True } else { Truth::False };
        }
        let Some(left) = self.left.get().checked_sub(1) else {
            return Truth::Failed("there is too much to explain".to_owned());
        };
        self.left.set(left);
        match alone(expression) {
            Some(policy) => self.policy(&policy),
            None => Truth::Failed("it cannot be asked about alone".to_owned()),
        }
    }

    /// The smallest parts that made `expression` what it is.
    pub fn deciders(&self, expression: &Arc<Expr>, truth: &Truth) -> Vec<Decider> {
        let mut found = Vec::new();
        self.decide(expression, truth, &mut found);
        found
    }

    fn decide(&self, expression: &Arc<Expr>, truth: &Truth, found: &mut Vec<Decider>) {
        if found.len() >= MOST_REASONS {
            return;
        }
        match &**expression {
            Expr::BinaryOp { op: op @ (BinaryOp::And | BinaryOp::Or), .. } => {
                let settling = *op == BinaryOp::Or;
                // One operand settles it, or all of them together.
                for operand in operands(expression, *op) {
                    let of_operand = self.truth(operand);
                    let settles = !of_operand.is(!settling);
                    if settles || truth.is(!settling) {
                        self.decide(operand, &of_operand, found);
                    }
                    if settles {
                        return;
                    }
                }
            }
            Expr::UnaryOp { op: UnaryOp::Not, expr } => {
                let inner = match truth {
                    Truth::True => Truth::False,
                    Truth::False => Truth::True,
                    Truth::Failed(_) => self.truth(expr),
                };
                self.decide(expr, &inner, found);
            }
            Expr::IfThenElse { cond, then_expr, else_expr } => {
                let of_condition = self.truth(cond);
                self.decide(cond, &of_condition, found);
                let branch = match of_condition {
                    Truth::True => then_expr,
                    Truth::False => else_expr,
                    Truth::Failed(_) => return,
                };
                if !matches!(**branch, Expr::Literal(_)) {
                    self.decide(branch, truth, found);
                }
            }
            _ => found.push(Decider { expression: Arc::clone(expression), truth: truth.clone() }),
        }
    }

    /// How many of the smallest parts would have to be otherwise for `expression` to be as `wanted`: 0 when it is.
    pub fn distance(&self, expression: &Arc<Expr>, wanted: bool) -> usize {
        match &**expression {
            Expr::BinaryOp { op: op @ (BinaryOp::And | BinaryOp::Or), .. } => {
                let distances = operands(expression, *op).into_iter().map(|operand| self.distance(operand, wanted));
                if wanted == (*op == BinaryOp::And) { distances.sum() } else { distances.min().unwrap_or_default() }
            }
            Expr::UnaryOp { op: UnaryOp::Not, expr } => self.distance(expr, !wanted),
            Expr::IfThenElse { cond, then_expr, else_expr } => {
                let by = |holds, branch| self.distance(cond, holds) + self.distance(branch, wanted);
                by(true, then_expr).min(by(false, else_expr))
            }
            _ => usize::from(!self.truth(expression).is(wanted)),
        }
    }

    /// What an expression looks at.
    pub fn values(&self, expression: &Expr) -> Vec<Seen> {
        let mut seen = Vec::new();
        self.look(expression, false, &mut seen);
        seen
    }

    /// Notes the values of `expression`; `as_member` when it is asked what they are in.
    fn look(&self, expression: &Expr, as_member: bool, seen: &mut Vec<Seen>) {
        if seen.len() >= MOST_VALUES {
            return;
        }
        if is_path(expression) {
            return self.note(&expression.to_string(), as_member, seen);
        }
        match expression {
            Expr::HasAttr { expr, attrs } => {
                // What it may have, and not all that it has.
                let attributes = attrs.iter().map(|attribute| (*attribute).clone());
                let path = attributes.fold(Arc::clone(expr), |expr, attr| Arc::new(Expr::GetAttr { expr, attr }));
                self.look(&path, false, seen);
            }
            Expr::UnaryOp { expr, .. } | Expr::GetAttr { expr, .. } | Expr::Like { expr, .. } => {
                self.look(expr, false, seen);
            }
            Expr::BinaryOp { op, left, right } => {
                self.look(left, *op == BinaryOp::In, seen);
                self.look(right, false, seen);
            }
            Expr::Is { expr, in_expr, .. } => {
                self.look(expr, in_expr.is_some(), seen);
                if let Some(group) = in_expr {
                    self.look(group, false, seen);
                }
            }
            Expr::IfThenElse { cond, then_expr, else_expr } => {
                for part in [cond, then_expr, else_expr] {
                    self.look(part, as_member, seen);
                }
            }
            Expr::Set(members) => {
                for member in members {
                    self.look(member, false, seen);
                }
            }
            Expr::Record(members) => {
                for member in members.values() {
                    self.look(member, false, seen);
                }
            }
            _ => {}
        }
    }

    fn note(&self, name: &str, as_member: bool, seen: &mut Vec<Seen>) {
        if seen.iter().any(|other| other.name == name) {
            return;
        }
        let evaluated = name.parse::<Expression>().ok();
        let value = evaluated.and_then(|path| eval_expression(&self.posed.request, &self.posed.entities, &path).ok());
        let within = match &value {
            Some(EvalResult::EntityUid(uid)) if as_member => self.groups_of(uid),
            _ => Vec::new(),
        };
        seen.push(Seen { name: shown(name), value: value.as_ref().map(|value| shown(&written(value))), within });
    }

    /// What an entity is in, sorted.
    fn groups_of(&self, uid: &EntityUid) -> Vec<String> {
        let groups = self.posed.entities.ancestors(uid).into_iter().flatten();
        let mut names: Vec<String> = groups.map(|group| shown(&group.to_string())).collect();
        names.sort();
        names.truncate(MOST_MEMBERS);
        names
    }
}

/// The conditions of a policy as expressions, each with what it has to be.
pub(super) fn conditions(policy: &pst::Template) -> impl Iterator<Item = (Arc<Expr>, bool)> {
    policy.clauses().iter().map(|clause| match clause {
        Clause::When(expression) => (Arc::clone(expression), true),
        Clause::Unless(expression) => (Arc::clone(expression), false),
    })
}

/// The parts of a policy's scope as expressions, principal, action, resource; none where anything will do.
pub(super) fn scope(policy: &pst::Template) -> [Option<Arc<Expr>>; 3] {
    use pst::{
        ActionConstraint as Action, EntityOrSlot, PrincipalConstraint as Principal, ResourceConstraint as Resource,
    };
    let entity = |uid: &pst::EntityUID| Arc::new(Expr::Literal(pst::Literal::EntityUID(uid.clone())));
    let of = |group: &EntityOrSlot| match group {
        EntityOrSlot::Entity(uid) => Some(entity(uid)),
        // Only templates have slots, and a policy file none of those.
        EntityOrSlot::Slot(_) => None,
    };
    let compare = |op, var, right| Arc::new(Expr::BinaryOp { op, left: Arc::new(Expr::Var(var)), right });
    let is = |var, of_type: &pst::EntityType, in_expr| {
        Arc::new(Expr::Is { expr: Arc::new(Expr::Var(var)), entity_type: of_type.clone(), in_expr })
    };
    let principal = match &policy.principal {
        Principal::Any => None,
        Principal::Eq(uid) => of(uid).map(|uid| compare(BinaryOp::Eq, pst::Var::Principal, uid)),
        Principal::In(uid) => of(uid).map(|uid| compare(BinaryOp::In, pst::Var::Principal, uid)),
        Principal::Is(of_type) => Some(is(pst::Var::Principal, of_type, None)),
        Principal::IsIn(of_type, uid) => Some(is(pst::Var::Principal, of_type, of(uid))),
    };
    let action = match &policy.action {
        Action::Any => None,
        Action::Eq(uid) => Some(compare(BinaryOp::Eq, pst::Var::Action, entity(uid))),
        Action::In(uids) => {
            let groups = Arc::new(Expr::Set(uids.iter().map(entity).collect()));
            Some(compare(BinaryOp::In, pst::Var::Action, groups))
        }
    };
    let resource = match &policy.resource {
        Resource::Any => None,
        Resource::Eq(uid) => of(uid).map(|uid| compare(BinaryOp::Eq, pst::Var::Resource, uid)),
        Resource::In(uid) => of(uid).map(|uid| compare(BinaryOp::In, pst::Var::Resource, uid)),
        Resource::Is(of_type) => Some(is(pst::Var::Resource, of_type, None)),
        Resource::IsIn(of_type, uid) => Some(is(pst::Var::Resource, of_type, of(uid))),
    };
    [principal, action, resource]
}

/// A policy that applies when `expression` is true.
fn alone(expression: &Arc<Expr>) -> Option<Policy> {
    let asked = pst::Template::new(
        "asked",
        pst::Effect::Permit,
        pst::PrincipalConstraint::Any,
        pst::ActionConstraint::Any,
        pst::ResourceConstraint::Any,
    );
    let asked = asked.try_with_clauses([Clause::When(Arc::clone(expression))]).ok()?;
    Policy::from_pst(pst::Policy::Static(pst::StaticPolicy::try_from(asked).ok()?)).ok()
}

/// What a chain of one operator links, from left to right.
fn operands(chain: &Arc<Expr>, of: BinaryOp) -> Vec<&Arc<Expr>> {
    let (mut found, mut ahead) = (Vec::new(), vec![chain]);
    while let Some(expression) = ahead.pop() {
        match &**expression {
            Expr::BinaryOp { op, left, right } if *op == of => ahead.extend([right, left]),
            _ => found.push(expression),
        }
    }
    found
}

/// Whether it is a variable, or an attribute of one, of that and so on.
fn is_path(mut expression: &Expr) -> bool {
    while let Expr::GetAttr { expr, .. } = expression {
        expression = expr;
    }
    matches!(expression, Expr::Var(_))
}

/// A value, as Cedar writes it.
fn written(value: &EvalResult) -> String {
    let list = |members: Vec<String>, count: usize| {
        let more = if count > MOST_MEMBERS { ", …" } else { "" };
        format!("{}{more}", members.join(", "))
    };
    match value {
        EvalResult::Bool(is) => is.to_string(),
        EvalResult::Long(number) => number.to_string(),
        EvalResult::String(text) => format!("{text:?}"),
        EvalResult::EntityUid(uid) => uid.to_string(),
        EvalResult::Set(set) => {
            format!("[{}]", list(set.iter().take(MOST_MEMBERS).map(written).collect(), set.len()))
        }
        EvalResult::Record(record) => {
            let members = record.iter().take(MOST_MEMBERS).map(|(name, value)| format!("{name}: {}", written(value)));
            format!("{{{}}}", list(members.collect(), record.len()))
        }
        EvalResult::ExtensionValue(text) => text.clone(),
    }
}
