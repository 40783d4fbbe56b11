//! Policies held against each other as they are written: a cheap comparison that is right where it finds something, and
//! finds only what can be seen without reasoning about values.

use std::collections::BTreeSet;

use cedar_policy::{EntityUid, Policy, PrincipalConstraint, ResourceConstraint};
use serde_json::Value;

/// What a policy demands, beyond what the types of a call decide.
pub(super) struct Demands {
    principal: Named,
    resource: Named,
    /// Each condition that has to hold, as it is written; an `&&` is two of them.
    conditions: BTreeSet<Condition>,
}

/// Which one of its type something has to be, or be in.
#[derive(PartialEq, Eq)]
enum Named {
    Any,
    Is(EntityUid),
    In(EntityUid),
}

/// An expression in Cedar's JSON form, and whether it has to be true or false.
type Condition = (String, bool);

impl Demands {
    /// `None` of a policy that cannot be described as JSON, which none of a valid set is.
    pub fn of(policy: &Policy) -> Option<Self> {
        let json = policy.to_json().ok()?;
        let mut conditions = BTreeSet::new();
        for clause in json.get("conditions")?.as_array()? {
            let holds = clause.get("kind")?.as_str()? == "when";
            conjuncts(clause.get("body")?, holds, &mut conditions);
        }
        let principal = match policy.principal_constraint() {
            PrincipalConstraint::Any | PrincipalConstraint::Is(_) => Named::Any,
            PrincipalConstraint::Eq(uid) => Named::Is(uid),
            PrincipalConstraint::In(outer) | PrincipalConstraint::IsIn(_, outer) => Named::In(outer),
        };
        let resource = match policy.resource_constraint() {
            ResourceConstraint::Any | ResourceConstraint::Is(_) => Named::Any,
            ResourceConstraint::Eq(uid) => Named::Is(uid),
            ResourceConstraint::In(outer) | ResourceConstraint::IsIn(_, outer) => Named::In(outer),
        };
        Some(Self { principal, resource, conditions })
    }

    /// Whether all of this holds wherever all of `other` does, for calls whose types suit both.
    pub fn follow_from(&self, other: &Self) -> bool {
        self.principal.follows_from(&other.principal)
            && self.resource.follows_from(&other.resource)
            && self.conditions.is_subset(&other.conditions)
    }

    /// Whether the same expression has to be both true and false.
    pub fn contradict_themselves(&self) -> bool {
        self.conditions.iter().any(|(expression, holds)| self.conditions.contains(&(expression.clone(), !holds)))
    }
}

impl Named {
    fn follows_from(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::In(outer), Self::Is(uid)) => outer == uid,
            _ => self == other,
        }
    }
}

/// Takes a condition apart into those that have to hold each by itself.
fn conjuncts(expression: &Value, holds: bool, into: &mut BTreeSet<Condition>) {
    let joined = expression.get(if holds { "&&" } else { "||" });
    if let Some((left, right)) = joined.and_then(|sides| Some((sides.get("left")?, sides.get("right")?))) {
        conjuncts(left, holds, into);
        conjuncts(right, holds, into);
    } else if let Some(denied) = expression.get("!").and_then(|denied| denied.get("arg")) {
        conjuncts(denied, !holds, into);
    } else {
        into.insert((expression.to_string(), holds));
    }
}

/// Whether a policy's conditions look at who calls.
pub(super) fn looks_at_principal(policy: &Policy) -> bool {
    fn mentions(json: &Value) -> bool {
        match json {
            Value::Object(members) => {
                members.get("Var").and_then(Value::as_str) == Some("principal") || members.values().any(mentions)
            }
            Value::Array(members) => members.iter().any(mentions),
            _ => false,
        }
    }
    policy.to_json().is_ok_and(|json| json.get("conditions").is_some_and(mentions))
}

/// What a policy says, whatever it is called and annotated with.
pub(super) fn content(policy: &Policy) -> Option<String> {
    let mut json = policy.to_json().ok()?;
    json.as_object_mut()?.remove("annotations");
    Some(json.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demands(text: &str) -> Demands {
        Demands::of(&Policy::parse(None, text).unwrap()).unwrap()
    }

    #[test]
    fn what_is_demanded_follows_from_more_of_the_same_however_it_is_written() {
        let cases = [
            ("(principal, action, resource)", "(principal is A, action, resource) when { context.a }", true),
            ("(principal is A, action, resource)", "(principal in B::\"b\", action, resource)", true),
            ("(principal in B::\"b\", action, resource)", "(principal in B::\"b\", action, resource)", true),
            ("(principal in B::\"b\", action, resource)", "(principal is A in B::\"b\", action, resource)", true),
            ("(principal in B::\"b\", action, resource)", "(principal == B::\"b\", action, resource)", true),
            ("(principal in B::\"b\", action, resource)", "(principal in B::\"c\", action, resource)", false),
            ("(principal == B::\"b\", action, resource)", "(principal in B::\"b\", action, resource)", false),
            ("(principal, action, resource == R::\"r\")", "(principal, action, resource)", false),
            ("(principal, action, resource) when { context.a }", "(principal, action, resource)", false),
            (
                "(principal, action, resource) when { context.b } unless { context.a }",
                "(principal, action, resource) when { !context.a && context.b && context.c == 1 }",
                true,
            ),
            (
                "(principal, action, resource) unless { context.a }",
                "(principal, action, resource) unless { context.b || context.a }",
                true,
            ),
            (
                "(principal, action, resource) when { context.a }",
                "(principal, action, resource) when { context.a || context.b }",
                false,
            ),
            (
                "(principal, action, resource) unless { context.a }",
                "(principal, action, resource) when { context.a }",
                false,
            ),
        ];
        for (forbid, permit, expected) in cases {
            let follows = demands(&format!("forbid {forbid};")).follow_from(&demands(&format!("permit {permit};")));
            assert_eq!(follows, expected, "{forbid} from {permit}");
        }
    }

    #[test]
    fn a_condition_and_its_opposite_contradict_each_other() {
        for (conditions, expected) in [
            ("when { context.a } unless { context.b || context.a }", true),
            ("when { context.a && !context.a }", true),
            ("when { context.a } unless { context.b }", false),
            ("when { context.a } when { context.a }", false),
        ] {
            let policy = format!("permit (principal, action, resource) {conditions};");
            assert_eq!(demands(&policy).contradict_themselves(), expected, "{conditions}");
        }
    }
}
