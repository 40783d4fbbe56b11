//! The policies that can apply to one route and one kind of caller.
//!
//! A decision evaluates these alone. Nothing is lost: a policy is left out only when its scope (the part
//! in the parentheses) cannot match, and such a policy is neither satisfied nor in error, whatever the
//! request. The property test in `revision` holds this against the whole set.

use cedar_policy::{
    ActionConstraint, Effect, Entities, EntityTypeName, EntityUid, Policy, PolicySet, PrincipalConstraint,
    ResourceConstraint,
};
use serde_json::Value;

/// Policies for one route and one kind of caller.
#[derive(Debug, Clone, Default)]
pub struct Slice {
    /// The policies.
    pub policies: PolicySet,
    /// What they may read of the context.
    pub reads_context: ContextUse,
    /// Whether any of them is a permit: without one, nothing is ever permitted.
    pub can_permit: bool,
    /// Whether the evaluation is the same for every item of one environment, and at all times: no policy names an
    /// item, and none reads more of the context than `secure`.
    pub is_steady: bool,
}

/// Which attributes of the context some policy may read. What nobody reads need not be built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one flag for each attribute of the context")]
pub struct ContextUse {
    /// `context.secure`
    pub secure: bool,
    /// `context.method`
    pub method: bool,
    /// `context.path`
    pub path: bool,
    /// `context.ip`
    pub ip: bool,
    /// `context.time`
    pub time: bool,
}

impl ContextUse {
    const ALL: Self = Self { secure: true, method: true, path: true, ip: true, time: true };

    fn add(&mut self, attribute: &str) {
        match attribute {
            "secure" => self.secure = true,
            "method" => self.method = true,
            "path" => self.path = true,
            "ip" => self.ip = true,
            "time" => self.time = true,
            _ => *self = Self::ALL,
        }
    }

    /// Adds what a policy, in Cedar's JSON form, may read. Any use of `context` but `context.x` and
    /// `context has x` counts as reading all of it.
    fn add_policy(&mut self, json: &Value) {
        let is_context = |value: &Value| value.get("Var").and_then(Value::as_str) == Some("context");
        match json {
            Value::Object(members) => {
                for (name, member) in members {
                    let of_context = matches!(name.as_str(), "." | "has") && member.get("left").is_some_and(is_context);
                    match member.get("attr").and_then(Value::as_str).filter(|_| of_context) {
                        Some(attribute) => self.add(attribute),
                        None => self.add_policy(member),
                    }
                }
                if is_context(json) {
                    *self = Self::ALL;
                }
            }
            Value::Array(members) => members.iter().for_each(|member| self.add_policy(member)),
            _ => {}
        }
    }
}

/// What a slice is for.
pub(super) struct Applies<'a> {
    pub action: &'a EntityUid,
    pub principal: &'a EntityTypeName,
    pub resource: &'a EntityTypeName,
    /// Every action with its groups.
    pub actions: &'a Entities,
}

impl Applies<'_> {
    fn may_apply(&self, policy: &Policy) -> bool {
        let of_type = |wanted: &EntityTypeName, uid: &EntityUid| uid.type_name() == wanted;
        let within = |group: &EntityUid| group == self.action || self.actions.is_ancestor_of(group, self.action);
        let action = match policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(action) => action == *self.action,
            ActionConstraint::In(groups) => groups.iter().any(within),
        };
        let principal = match policy.principal_constraint() {
            PrincipalConstraint::Any | PrincipalConstraint::In(_) => true,
            PrincipalConstraint::Eq(uid) => of_type(self.principal, &uid),
            PrincipalConstraint::Is(is) | PrincipalConstraint::IsIn(is, _) => is == *self.principal,
        };
        let resource = match policy.resource_constraint() {
            ResourceConstraint::Any | ResourceConstraint::In(_) => true,
            ResourceConstraint::Eq(uid) => of_type(self.resource, &uid),
            ResourceConstraint::Is(is) | ResourceConstraint::IsIn(is, _) => is == *self.resource,
        };
        action && principal && resource
    }

    /// The slice of `policies`. A policy that cannot be added or described, which none of a valid set can be,
    /// makes it `None`.
    pub fn slice(&self, policies: &PolicySet) -> Option<Slice> {
        let mut slice = Slice::default();
        let mut names_items = false;
        for policy in policies.policies().filter(|policy| self.may_apply(policy)) {
            slice.reads_context.add_policy(&policy.to_json().ok()?);
            slice.can_permit |= policy.effect() == Effect::Permit;
            names_items |= policy.entity_literals().iter().any(|uid| uid.type_name() == self.resource);
            slice.policies.add(policy.clone()).ok()?;
        }
        let reads_more = ContextUse { secure: false, ..slice.reads_context } != ContextUse::default();
        slice.is_steady = !names_items && !reads_more;
        Some(slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(condition: &str) -> ContextUse {
        let policy =
            Policy::parse(None, format!("permit (principal, action, resource) when {{ {condition} }};")).unwrap();
        let mut reads = ContextUse::default();
        reads.add_policy(&policy.to_json().unwrap());
        reads
    }

    #[test]
    fn only_what_a_policy_names_is_read_and_a_bare_context_is_all_of_it() {
        let none = ContextUse::default();
        assert_eq!(reads("principal.secure && \"context\" == \"ip\""), none);
        assert_eq!(reads("context.secure"), ContextUse { secure: true, ..none });
        assert_eq!(reads("context has ip && context.ip.isLoopback()"), ContextUse { ip: true, ..none });
        assert_eq!(reads("context[\"path\"] like \"/v1/*\""), ContextUse { path: true, ..none });
        for all in [
            "context == {secure: true}",
            "{a: context}.a.secure",
            "context.other == 1",
            "context has time.x",
            "(if true then context else context).secure",
        ] {
            assert_eq!(reads(all), ContextUse::ALL, "{all}");
        }
    }
}
