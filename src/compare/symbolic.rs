//! What a solver says of two revisions: whether there is any request that one allows and the other does not.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cedar_policy::{Policy, PolicyId, PolicySet, RequestEnv, Schema};
use cedar_policy_symcc::{CompiledPolicy, CompiledPolicySet, Env};

use super::{Decided, Difference, Pair, Subject};
use crate::authorize::verdict::Reason;
use crate::evaluation::Evaluation;
use crate::key::Scope;
use crate::policy::{Revision, Route, Slice};
use crate::prove::solver::{Session, Unproven};
use crate::prove::witness::{Witness, replay, worlds};
use crate::prove::world::{Case, Signature, set};

/// Requests that only one of two revisions allows: the later one, and the earlier one.
type Found = Result<(Option<Env>, Option<Env>), Unproven>;

/// Asks a solver, if there is one, each question once.
pub(super) struct Symbolic<'a> {
    before: &'a Arc<Revision>,
    after: &'a Arc<Revision>,
    scopes: &'a BTreeSet<Scope>,
    session: Option<&'a mut Session>,
    known: HashMap<(Option<Signature>, Option<Signature>, Subject), Found>,
}

/// Whether two slices cannot but say the same of every request: their policies are the same but for names and order, or
/// neither permits anything.
pub(super) fn are_alike(before: Option<&Slice>, after: Option<&Slice>) -> bool {
    let permits = |slice: Option<&Slice>| slice.is_some_and(|slice| slice.can_permit);
    let written = |slice: Option<&Slice>| -> Option<BTreeSet<String>> {
        let without_name = |policy: &Policy| {
            let mut json = policy.to_json().ok()?;
            json.as_object_mut()?.remove("annotations");
            Some(json.to_string())
        };
        slice.map_or(Some(BTreeSet::new()), |slice| slice.policies.policies().map(without_name).collect())
    };
    if !permits(before) && !permits(after) {
        return true;
    }
    written(before).is_some_and(|before| written(after).is_some_and(|after| before == after))
}

impl<'a> Symbolic<'a> {
    pub fn new(
        before: &'a Arc<Revision>,
        after: &'a Arc<Revision>,
        scopes: &'a BTreeSet<Scope>,
        session: Option<&'a mut Session>,
    ) -> Self {
        Self { before, after, scopes, session, known: HashMap::new() }
    }

    /// A request that only the later revision allows, and one that only the earlier one allows; `None` where it is proven
    /// that there is none.
    pub async fn differences(
        &mut self,
        pair: &Pair<'_>,
        subject: &Subject,
    ) -> Result<(Option<Difference>, Option<Difference>), Unproven> {
        let before = pair.before.and_then(|route| case(self.before, route, subject));
        let after = pair.after.and_then(|route| case(self.after, route, subject));
        // The routes' actions are in the environment; contexts that differ are told apart by it, too.
        let sign = |case: &Case<'_>| case.signature(format!("{} {}", case.route.method, case.route.template));
        let key = (before.as_ref().map(sign), after.as_ref().map(sign), subject.clone());
        let found = match self.known.get(&key) {
            Some(found) => found.clone(),
            None => {
                let found = self.find(before.as_ref(), after.as_ref(), subject).await;
                self.known.entry(key).or_insert(found).clone()
            }
        };
        let (widened, narrowed) = found?;
        let told = |found: Option<Env>, widens| {
            found.map(|found| difference(before.as_ref(), after.as_ref(), &found, widens)).transpose()
        };
        Ok((told(widened, true)?, told(narrowed, false)?))
    }

    async fn find(&mut self, before: Option<&Case<'_>>, after: Option<&Case<'_>>, subject: &Subject) -> Found {
        let Some(session) = self.session.as_deref_mut() else { return Err(Unproven::NotAsked) };
        let Some(case) = after.or(before) else { return Ok((None, None)) };
        let environment = case.environment();
        if let (Some(before), Some(after)) = (before, after)
            && before.environment() != after.environment()
        {
            return Err(Unproven::AnotherRoute);
        }
        let mut facts = case.facts();
        facts.extend(subject_facts(&self.after.model().namespace, self.scopes, subject));
        // A scope that is gone is known to the earlier schema alone, and a new one to the later.
        let mut last = Unproven::NotAsked;
        for schema in [self.after.schema(), self.before.schema()] {
            let question = Question { environment: &environment, schema, facts: &facts };
            match question.ask(before.map(|case| case.slice), after.map(|case| case.slice), session).await {
                Err(why @ Unproven::Failed(_)) => last = why,
                other => return other,
            }
        }
        Err(last)
    }
}

fn case<'r>(revision: &'r Revision, route: &'r Route, subject: &Subject) -> Option<Case<'r>> {
    let kind = subject.principal();
    Some(Case { revision, route, kind, slice: route.slice(kind)? })
}

/// What is true of every call by this caller, as forbids of whatever it is not true of.
fn subject_facts(namespace: &str, scopes: &BTreeSet<Scope>, subject: &Subject) -> Vec<Policy> {
    let holds = |scope: &Scope| format!("principal in {namespace}::Scope::{:?}", scope.as_str());
    let facts: Vec<String> = match subject {
        Subject::Restricted { scopes: held } => scopes
            .iter()
            .map(|scope| if held.contains(scope) { holds(scope) } else { format!("!({})", holds(scope)) })
            .collect(),
        Subject::RestrictedSeveral => {
            let each = scopes.iter().enumerate();
            let two = each.flat_map(|(at, one)| {
                scopes.iter().skip(at + 1).map(move |other| format!("({} && {})", holds(one), holds(other)))
            });
            vec![two.collect::<Vec<_>>().join(" || ")]
        }
        _ => vec![],
    };
    let forbid = |(number, fact): (usize, String)| {
        let text = format!("forbid (principal, action, resource) unless {{ {fact} }};");
        Policy::parse(Some(PolicyId::new(format!("{namespace} subject fact {number}"))), text).ok()
    };
    facts.into_iter().enumerate().filter_map(forbid).collect()
}

/// One family of requests, and what is true of it.
struct Question<'q> {
    environment: &'q RequestEnv,
    schema: &'q Schema,
    facts: &'q [Policy],
}

impl Question<'_> {
    async fn ask(&self, before: Option<&Slice>, after: Option<&Slice>, session: &mut Session) -> Found {
        for slice in [before, after].into_iter().flatten() {
            self.never_fails(slice, session).await?;
        }
        // What no policy allows is the same as a route that is not there.
        let nothing = PolicySet::new();
        let of = |slice: Option<&Slice>| slice.map_or(nothing.clone(), |slice| slice.policies.clone());
        let (before, after) = (of(before), of(after));
        let widened = self.first_alone(&after, &before, session).await?;
        let narrowed = self.first_alone(&before, &after, session).await?;
        Ok((widened, narrowed))
    }

    /// A request that the first policies allow and the second do not.
    async fn first_alone(
        &self,
        first: &PolicySet,
        second: &PolicySet,
        session: &mut Session,
    ) -> Result<Option<Env>, Unproven> {
        let broken = || Unproven::Failed("the question could not be written".into());
        let first = set(first.policies().chain(self.facts).cloned()).ok_or_else(broken)?;
        let (first, second) = (self.compile(&first)?, self.compile(second)?);
        session.ask(async |compiler| compiler.check_implies_with_counterexample_opt(&first, &second).await).await
    }

    fn compile(&self, policies: &PolicySet) -> Result<CompiledPolicySet, Unproven> {
        CompiledPolicySet::compile(policies, self.environment, self.schema)
            .map_err(|error| Unproven::Failed(error.to_string()))
    }

    /// Cedar passes over a policy that fails and Keyward denies, so that what is proven of one is true of the other
    /// only where none can.
    async fn never_fails(&self, slice: &Slice, session: &mut Session) -> Result<(), Unproven> {
        for policy in slice.policies.policies() {
            let compiled = CompiledPolicy::compile(policy, self.environment, self.schema)
                .map_err(|error| Unproven::Failed(error.to_string()))?;
            if !session.ask(async |compiler| compiler.check_never_errors_opt(&compiled).await).await? {
                return Err(Unproven::Failed(format!("the policy {} can fail", policy.id())));
            }
        }
        Ok(())
    }
}

/// What a solver found, once the real authorizer says the same.
fn difference(
    before: Option<&Case<'_>>,
    after: Option<&Case<'_>>,
    found: &Env,
    widens: bool,
) -> Result<Difference, Unproven> {
    let of = after.or(before).ok_or(Unproven::NoRequest)?;
    for world in worlds(of, found) {
        let said = |case: Option<&Case<'_>>| match case {
            Some(case) => decided(&replay(&case.slice.policies, &world)),
            None => Decided { allowed: false, reason: Reason::NoRoute.as_str().to_owned(), policies: vec![] },
        };
        let (before, after) = (said(before), said(after));
        if (after.allowed, before.allowed) == (widens, !widens) {
            let request = Witness::of(of, &world).ok_or(Unproven::NoRequest)?;
            return Ok(Difference { request, before, after });
        }
    }
    Err(Unproven::NoRequest)
}

/// An evaluation, as far as an edit is told of.
pub(super) fn decided(evaluation: &Evaluation) -> Decided {
    let (allowed, reason, policies) = match evaluation {
        Evaluation::Permitted(by) => (true, Reason::Allowed, by),
        Evaluation::Denied { by, .. } => (false, Reason::PolicyDenied, by),
        Evaluation::Failed(by) => (false, Reason::PolicyError, by),
    };
    Decided {
        allowed,
        reason: reason.as_str().to_owned(),
        policies: policies.iter().map(ToString::to_string).collect(),
    }
}
