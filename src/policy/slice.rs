//! The policies that can apply to one route and one kind of caller.
//!
//! A decision evaluates these alone. Nothing is lost: a policy is left out only when its scope (the part
//! in the parentheses) cannot match, and such a policy is neither satisfied nor in error, whatever the
//! request. The property tests in `tests/slices.rs` hold this against the whole set.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{
    ActionConstraint, Effect, Entities, EntityTypeName, EntityUid, Policy, PolicySet, PrincipalConstraint,
    ResourceConstraint, Schema,
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
    /// All of them.
    pub const ALL: Self = Self { secure: true, method: true, path: true, ip: true, time: true };

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

    fn add_all(&mut self, other: Self) {
        let Self { secure, method, path, ip, time } = other;
        self.secure |= secure;
        self.method |= method;
        self.path |= path;
        self.ip |= ip;
        self.time |= time;
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
}

/// Makes slices. Each policy is looked into once, and slices of the same policies are one and the same.
pub(super) struct Slicer<'a> {
    schema: &'a Schema,
    /// Every action with its groups.
    actions: &'a Entities,
    policies: Vec<Described<'a>>,
    made: HashMap<(EntityTypeName, Vec<usize>), Arc<Slice>>,
}

/// A policy, and what there is to know of it for every slice.
struct Described<'a> {
    policy: &'a Policy,
    principal: PrincipalConstraint,
    action: ActionConstraint,
    resource: ResourceConstraint,
    reads_context: ContextUse,
    /// The types of the entities that it names.
    names: HashSet<EntityTypeName>,
}

impl<'a> Slicer<'a> {
    /// A slicer of these policies. A policy that cannot be described, which none of a valid set is, makes it `None`.
    pub fn new(policies: &'a PolicySet, schema: &'a Schema, actions: &'a Entities) -> Option<Self> {
        let described = policies.policies().map(|policy| {
            let mut reads_context = ContextUse::default();
            reads_context.add_policy(&policy.to_json().ok()?);
            Some(Described {
                policy,
                principal: policy.principal_constraint(),
                action: policy.action_constraint(),
                resource: policy.resource_constraint(),
                reads_context,
                names: policy.entity_literals().iter().map(|uid| uid.type_name().clone()).collect(),
            })
        });
        Some(Self { schema, actions, policies: described.collect::<Option<_>>()?, made: HashMap::new() })
    }

    /// The slice for one route and one kind of caller. A policy that cannot be added, which none of a valid set is,
    /// makes it `None`.
    pub fn slice(&mut self, to: &Applies<'_>) -> Option<Arc<Slice>> {
        let numbers: Vec<usize> =
            (0..).zip(&self.policies).filter(|(_, policy)| self.may_apply(policy, to)).map(|(at, _)| at).collect();
        let key = (to.resource.clone(), numbers);
        if let Some(made) = self.made.get(&key) {
            return Some(Arc::clone(made));
        }
        let mut slice = Slice::default();
        let mut names_items = false;
        for described in key.1.iter().filter_map(|at| self.policies.get(*at)) {
            slice.reads_context.add_all(described.reads_context);
            slice.can_permit |= described.policy.effect() == Effect::Permit;
            names_items |= described.names.contains(to.resource);
            slice.policies.add(described.policy.clone()).ok()?;
        }
        let reads_more = ContextUse { secure: false, ..slice.reads_context } != ContextUse::default();
        slice.is_steady = !names_items && !reads_more;
        Some(Arc::clone(self.made.entry(key).or_insert(Arc::new(slice))))
    }

    fn may_apply(&self, policy: &Described<'_>, to: &Applies<'_>) -> bool {
        let in_group = |group: &EntityUid| group == to.action || self.actions.is_ancestor_of(group, to.action);
        let action = match &policy.action {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(action) => action == to.action,
            ActionConstraint::In(groups) => groups.iter().any(in_group),
        };
        let principal = || match &policy.principal {
            PrincipalConstraint::Any => true,
            PrincipalConstraint::Eq(uid) => uid.type_name() == to.principal,
            PrincipalConstraint::In(outer) => self.may_be_in(to.principal, outer),
            PrincipalConstraint::Is(is) => is == to.principal,
            PrincipalConstraint::IsIn(is, outer) => is == to.principal && self.may_be_in(to.principal, outer),
        };
        let resource = || match &policy.resource {
            ResourceConstraint::Any => true,
            ResourceConstraint::Eq(uid) => uid.type_name() == to.resource,
            ResourceConstraint::In(outer) => self.may_be_in(to.resource, outer),
            ResourceConstraint::Is(is) => is == to.resource,
            ResourceConstraint::IsIn(is, outer) => is == to.resource && self.may_be_in(to.resource, outer),
        };
        action && principal() && resource()
    }

    /// Whether the schema lets an entity of this type be `outer`, or be in it.
    fn may_be_in(&self, inner: &EntityTypeName, outer: &EntityUid) -> bool {
        let outer = outer.type_name();
        inner == outer || self.schema.ancestors(inner).is_none_or(|mut types| types.any(|of_type| of_type == outer))
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
