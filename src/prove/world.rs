//! Which requests there can be: what is proven is proven of these, and of no others.
//!
//! Cedar's schema admits worlds that no call brings about, such as a key outside its own environment. What is true of
//! every call, because the daemon makes it so before it asks any policy, is written here as forbids, which go beside the
//! policies that something is to be proven of.

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, RequestEnv};
use cedar_policy_symcc::SymEnv;
use serde_json::Value;

use super::solver::Unproven;
use crate::policy::{PrincipalKind, Revision, Route, Slice, Target};

/// One family of requests: by one kind of caller, over one route.
#[derive(Clone, Copy)]
pub struct Case<'r> {
    /// The revision that it is about.
    pub revision: &'r Revision,
    /// The route.
    pub route: &'r Route,
    /// Who calls.
    pub kind: PrincipalKind,
    /// The policies that can apply.
    pub slice: &'r Slice,
}

impl<'r> Case<'r> {
    /// Every family of requests that the schema lets reach the policies.
    pub fn all(revision: &'r Revision) -> impl Iterator<Item = Self> {
        revision.routes().flat_map(move |route| {
            let case = move |kind| Some(Self { revision, route, kind, slice: route.slice(kind)? });
            PrincipalKind::ALL.into_iter().filter_map(case)
        })
    }

    /// The same in Cedar's words.
    pub fn environment(&self) -> RequestEnv {
        let model = self.revision.model();
        let resource = match &self.route.target {
            Target::Environment => model.environment.clone(),
            Target::Item(of_type) => of_type.clone(),
        };
        RequestEnv::new(model.principal_type(self.kind).clone(), self.route.action.clone(), resource)
    }

    /// What is true of every call of this family, as forbids of whatever it is not true of.
    pub fn facts(&self) -> Vec<Policy> {
        let (namespace, reads) = (&self.revision.model().namespace, &self.slice.reads_context);
        let modes = |of: &str| format!("({of}.mode == \"live\" || {of}.mode == \"test\")");
        let mut facts = Vec::new();
        if matches!(self.kind, PrincipalKind::Key(_)) {
            facts.push("principal in principal.environment".to_owned());
            facts.push(modes("principal.environment"));
            // A key that comes over plain HTTP is refused before any policy is asked.
            if reads.secure {
                facts.push("!(context has secure) || context.secure".to_owned());
            }
        }
        if self.route.target == Target::Environment {
            facts.push(modes("resource"));
        }
        if reads.method {
            facts.push(format!("!(context has method) || context.method == {:?}", self.route.method));
        }
        if reads.path {
            let fixed = self.route.template.split('{').next().unwrap_or_default();
            let more = if fixed.len() < self.route.template.len() { "*" } else { "" };
            facts.push(format!("!(context has path) || context.path like \"{fixed}{more}\""));
        }
        let forbid = |(number, fact): (usize, String)| {
            let text = format!("forbid (principal, action, resource) unless {{ {fact} }};");
            Policy::parse(Some(PolicyId::new(format!("{namespace} fact {number}"))), text).ok()
        };
        facts.into_iter().enumerate().filter_map(forbid).collect()
    }

    /// The same for a solver.
    ///
    /// # Errors
    /// [`Unproven`] when Cedar's symbolic compiler cannot say it.
    pub fn symbolic(&self) -> Result<SymEnv, Unproven> {
        SymEnv::new(self.revision.schema(), &self.environment()).map_err(|error| Unproven::Failed(error.to_string()))
    }

    /// What tells this family from others as far as policies can: of two that are the same in this, what is
    /// proven of one is proven of the other. `symbolic` is [`symbolic`](Self::symbolic)'s.
    pub fn signature(&self, symbolic: &SymEnv) -> Signature {
        let (action, reads) = (self.slice.policies.policies().any(reads_action), &self.slice.reads_context);
        Signature {
            family: Family {
                kind: self.kind,
                target: self.route.target.clone(),
                action: (action || reads.method || reads.path).then(|| self.route.action_name.to_string()),
                context: format!("{:?}", symbolic.request.context),
            },
            // Routes with the same policies share one slice.
            slice: std::ptr::from_ref(self.slice),
        }
    }
}

/// See [`Case::signature`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Signature {
    /// What tells this family from others under other policies, too.
    pub family: Family,
    slice: *const Slice,
}

/// Requests that the policies of a family cannot tell from one another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Family {
    kind: PrincipalKind,
    target: Target,
    action: Option<String>,
    context: String,
}

/// Whether a policy's conditions look at the action. Which actions its scope names is settled by the slice.
pub fn reads_action(policy: &Policy) -> bool {
    fn mentions(json: &Value) -> bool {
        match json {
            Value::Object(members) => {
                members.get("Var").and_then(Value::as_str) == Some("action") || members.values().any(mentions)
            }
            Value::Array(members) => members.iter().any(mentions),
            _ => false,
        }
    }
    policy.to_json().is_ok_and(|json| json.get("conditions").is_some_and(mentions))
}

/// A set of these policies; `None` when two have one name, which none of a revision have.
pub fn set(policies: impl IntoIterator<Item = Policy>) -> Option<PolicySet> {
    PolicySet::from_policies(policies).ok()
}

/// A permit of exactly what a forbid forbids.
pub fn turned(forbid: &Policy) -> Option<Policy> {
    debug_assert_eq!(forbid.effect(), Effect::Forbid);
    let mut json = forbid.to_json().ok()?;
    json.as_object_mut()?.insert("effect".into(), "permit".into());
    Policy::from_json(Some(forbid.id().clone()), json).ok()
}
