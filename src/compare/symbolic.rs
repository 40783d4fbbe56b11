//! What a solver says of two revisions: whether there is any request that one allows and the other does not.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cedar_policy::{EntityUid, Policy, PolicyId, PolicySet, RequestEnv, Schema};
use cedar_policy_symcc::{CompiledPolicy, CompiledPolicySet, Env, SymEnv};
use serde_json::{Value, json};

use super::{Decided, Difference, Direction, Known, Pair, Subject};
use crate::authorize::verdict::Reason;
use crate::evaluation::Evaluation;
use crate::key::Scope;
use crate::policy::{PrincipalKind, Revision, Route, Slice};
use crate::prove::solver::{Session, Unproven};
use crate::prove::witness::{Witness, replay, scopes_of, with_scopes, worlds};
use crate::prove::world::{Case, Family, Signature, reads_action, set};

/// A request by one of some callers that only one of two revisions allows.
type Found = Result<Option<Env>, Unproven>;

/// Asks a solver, if there is one, each question once.
pub(super) struct Symbolic<'a> {
    before: &'a Arc<Revision>,
    after: &'a Arc<Revision>,
    scopes: &'a BTreeSet<Scope>,
    session: Option<&'a mut Session>,
    known: HashMap<Asked, Found>,
    never_fail: NeverFail,
}

/// Policies of which it is known that they cannot fail, or why not, by the family of requests, the schema's place and
/// their text.
type NeverFail = HashMap<(Family, usize, String), Result<(), Unproven>>;

/// A question. Routes of which the policies cannot tell the difference share it.
type Asked = (Option<Signature>, Option<Signature>, Direction, Vec<Subject>);

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
        Self { before, after, scopes, session, known: HashMap::new(), never_fail: HashMap::new() }
    }

    /// Whether there is a solver to be asked.
    pub fn asks(&self) -> bool {
        self.session.is_some()
    }

    /// Finds out for callers of one kind whether any of their requests is decided otherwise in this direction, where
    /// that is not known yet. All of them are one question; what it finds is told, and the others are the next.
    pub async fn settle(&mut self, pair: &Pair<'_>, direction: Direction, callers: &mut [Known]) {
        let open = callers.iter().filter(|known| known.found(direction).is_none());
        let mut groups: Vec<Vec<Subject>> = vec![open.map(|known| known.subject.clone()).collect()];
        while let Some(mut group) = groups.pop() {
            let (told, why) = match self.differing(pair, direction, &group).await {
                Ok(None) => continue,
                // What is not shown of any of them was found of one that there cannot be.
                Ok(Some(found)) => (self.tell(pair, direction, &found, &group), Unproven::NoRequest),
                Err(why) => (vec![], why),
            };
            group.retain(|subject| !told.iter().any(|(of, _)| of == subject));
            let of = |subject: &Subject, callers: &mut [Known], say: &mut dyn FnMut(&mut Known)| {
                callers.iter_mut().filter(|known| known.subject == *subject).for_each(say);
            };
            match (told.is_empty(), why) {
                (false, _) => groups.push(group),
                // What is too hard to say of all may be easy to say of some.
                (true, Unproven::Unknown | Unproven::NoRequest) if group.len() > 1 => {
                    groups.extend(group.chunks(group.len().div_ceil(2)).map(<[Subject]>::to_vec));
                }
                (true, why) => {
                    for subject in &group {
                        of(subject, callers, &mut |known| known.unproven.push((direction, why.clone())));
                    }
                }
            }
            for (subject, difference) in told {
                of(&subject, callers, &mut |known| known.note(direction, difference.clone()));
            }
        }
    }

    /// A request by one of these callers that only the one revision allows; `None` where it is proven that there is none.
    async fn differing(&mut self, pair: &Pair<'_>, direction: Direction, group: &[Subject]) -> Found {
        let Some(kind) = group.first().map(Subject::principal) else { return Ok(None) };
        let [before, after] = self.sides(pair, kind)?;
        if let (Some(before), Some(after)) = (&before, &after)
            && before.case.environment() != after.case.environment()
        {
            return Err(Unproven::AnotherRoute);
        }
        let sign = |side: Option<&Side<'_>>| {
            side.map(|Side { case, .. }| Ok::<_, Unproven>(case.signature(&case.symbolic()?))).transpose()
        };
        let asked = (sign(before.as_ref())?, sign(after.as_ref())?, direction, group.to_vec());
        if let Some(found) = self.known.get(&asked) {
            return found.clone();
        }
        let found = self.find(before.as_ref(), after.as_ref(), direction, group).await;
        self.known.entry(asked).or_insert(found).clone()
    }

    /// What there is of each revision.
    fn sides<'r>(&self, pair: &Pair<'r>, kind: PrincipalKind) -> Result<[Option<Side<'r>>; 2], Unproven>
    where
        'a: 'r,
    {
        let (before, after): (&'a Revision, &'a Revision) = (self.before, self.after);
        let is_one_action = pair.before.is_none() || pair.after.is_none() || pair.is_same_action();
        let side = |revision, route: Option<&'r Route>| {
            let Some((route, slice)) = route.and_then(|route| Some((route, route.slice(kind)?))) else {
                return Ok(None);
            };
            let policies = if is_one_action {
                slice.policies.clone()
            } else {
                let each = slice.policies.policies().map(|policy| of_one_action(policy, route));
                each.collect::<Option<Vec<_>>>().and_then(set).ok_or(Unproven::AnotherRoute)?
            };
            Ok(Some(Side { case: Case { revision, route, kind, slice }, policies }))
        };
        Ok([side(before, pair.before)?, side(after, pair.after)?])
    }

    async fn find(
        &mut self,
        before: Option<&Side<'_>>,
        after: Option<&Side<'_>>,
        direction: Direction,
        group: &[Subject],
    ) -> Found {
        let Some(session) = self.session.as_deref_mut() else { return Err(Unproven::NotAsked) };
        let Some(Side { case, .. }) = after.or(before) else { return Ok(None) };
        let environment = case.environment();
        // What no policy allows is the same as a route that is not there.
        let (more, less) = match direction {
            Direction::Widened => (after, before),
            Direction::Narrowed => (before, after),
        };
        // A scope that is gone is known to the earlier schema alone, and a new one to the later. Where there is a route in one
        // revision only, its schema alone knows the action, and its policies see no scope that this does not know.
        let is_alone = before.is_none() || after.is_none();
        let mut last = Unproven::NotAsked;
        for (place, revision) in [self.after, self.before].into_iter().enumerate() {
            if is_alone && revision.digest() != case.revision.digest() {
                continue;
            }
            let (schema, mut facts) = (revision.schema(), case.facts());
            let seen = |scope: &&Scope| revision.model().scopes.iter().any(|known| **known == *scope.as_str());
            let known: BTreeSet<Scope> = self.scopes.iter().filter(|scope| !is_alone || seen(scope)).cloned().collect();
            let told = Told { namespace: &revision.model().namespace, scopes: self.scopes, known: &known };
            facts.extend(told.of(group));
            let asked = async {
                let symbolic =
                    SymEnv::new(schema, &environment).map_err(|error| Unproven::Failed(error.to_string()))?;
                let question = Question { environment: &environment, schema, place, symbolic, facts: &facts };
                for side in [before, after].into_iter().flatten() {
                    question.never_fails(side, &mut self.never_fail, session).await?;
                }
                question.first_alone(more, less, session).await
            };
            match asked.await {
                Err(why @ Unproven::Failed(_)) => last = why,
                other => return other,
            }
        }
        Err(last)
    }

    /// What a solver found, of each of these callers of whom it holds: of one it does, and of others it may. Nothing is
    /// told that the real authorizer does not say.
    fn tell(
        &self,
        pair: &Pair<'_>,
        direction: Direction,
        found: &Env,
        group: &[Subject],
    ) -> Vec<(Subject, Difference)> {
        let kinds = group.first().map(Subject::principal);
        let [before, after] = kinds.and_then(|kind| self.sides(pair, kind).ok()).unwrap_or_default();
        let Some(Side { case: of, .. }) = after.as_ref().or(before.as_ref()) else { return Vec::new() };
        let mut told = Vec::new();
        for subject in group {
            let as_subject = match subject {
                Subject::Restricted { scopes } => with_scopes(of, found, scopes),
                Subject::RestrictedSeveral => {
                    let several = scopes_of(of, found).iter().filter(|scope| self.scopes.contains(*scope)).count() > 1;
                    let all: Vec<Scope> = self.scopes.iter().cloned().collect();
                    if several { Some(found.clone()) } else { with_scopes(of, found, &all) }
                }
                _ => Some(found.clone()),
            };
            let difference =
                as_subject.and_then(|found| difference(before.as_ref(), after.as_ref(), &found, direction));
            told.extend(difference.map(|difference| (subject.clone(), difference)));
        }
        told
    }
}

/// What one revision has for callers of one kind on one route.
struct Side<'r> {
    case: Case<'r>,
    /// The slice's; where the action is in other groups than in the other revision, with what they say of the action settled,
    /// since a question is put under one schema.
    policies: PolicySet,
}

/// A policy of a route's slice, with everything that it says of the action settled by what is so on this route; `None`
/// where it does more with it than to ask whether it is this one, or in that group.
fn of_one_action(policy: &Policy, route: &Route) -> Option<Policy> {
    let mut json = policy.to_json().ok()?;
    // It names this action: otherwise it were not in the slice.
    json.as_object_mut()?.insert("action".into(), json!({ "op": "All" }));
    settle_action(json.get_mut("conditions")?, route);
    let policy = Policy::from_json(Some(policy.id().clone()), json).ok()?;
    (!reads_action(&policy)).then_some(policy)
}

fn settle_action(json: &mut Value, route: &Route) {
    let is_action = |uid: &EntityUid| *uid == route.action;
    let is_group = |uid: &EntityUid| route.action_entities.iter().any(|entity| entity.uid() == *uid);
    let truth = asked_of_action(json, "==").map(|uid| is_action(&uid));
    let truth = truth.or_else(|| asked_of_action(json, "in").map(|uid| is_group(&uid)));
    match (truth, json) {
        (Some(truth), json) => *json = json!({ "Value": truth }),
        (None, Value::Object(members)) => members.values_mut().for_each(|member| settle_action(member, route)),
        (None, Value::Array(members)) => members.iter_mut().for_each(|member| settle_action(member, route)),
        (None, _) => {}
    }
}

/// The entity of `action == …` or `action in …`, if that is what this expression is.
fn asked_of_action(json: &Value, operator: &str) -> Option<EntityUid> {
    let operands = json.get(operator)?;
    (*operands.get("left")? == json!({ "Var": "action" })).then_some(())?;
    EntityUid::from_json(operands.get("right")?.get("Value")?.clone()).ok()
}

/// What can be told of callers under one schema.
struct Told<'t> {
    namespace: &'t str,
    /// The scopes by which callers are told apart.
    scopes: &'t BTreeSet<Scope>,
    /// Those among them that the schema knows. No policy under it sees the others.
    known: &'t BTreeSet<Scope>,
}

impl Told<'_> {
    /// What is true of every call by one of these callers, as a forbid of whatever it is not true of; nothing where they are
    /// all of their kind.
    fn of(&self, group: &[Subject]) -> Option<Policy> {
        let all = Subject::of_kind(group.first()?.principal(), self.scopes);
        let others: Vec<Subject> = all.into_iter().filter(|subject| !group.contains(subject)).collect();
        // Callers who differ in scopes that are not seen look the same: what is true of others may be true of these.
        let are_apart = self.known.len() == self.scopes.len();
        let fact = match others.as_slice() {
            [] => return None,
            others if are_apart && others.len() < group.len() => format!("!({})", self.any(others)),
            _ => self.any(group),
        };
        let text = format!("forbid (principal, action, resource) unless {{ {fact} }};");
        Policy::parse(Some(PolicyId::new(format!("{} subject fact", self.namespace))), text).ok()
    }

    fn any(&self, subjects: &[Subject]) -> String {
        let each = subjects.iter().map(|subject| format!("({})", self.exactly(subject)));
        each.collect::<Vec<_>>().join(" || ")
    }

    /// What is true of a key of this kind, and of no other restricted one, as far as it is seen.
    fn exactly(&self, subject: &Subject) -> String {
        let holds = |scope: &Scope| format!("principal in {}::Scope::{:?}", self.namespace, scope.as_str());
        let unseen = self.scopes.len() - self.known.len();
        let parts: Vec<String> = match subject {
            Subject::Restricted { scopes: held } => {
                let one = |scope| if held.contains(scope) { holds(scope) } else { format!("!({})", holds(scope)) };
                self.known.iter().map(one).collect()
            }
            // Two, of which none, one or both are seen.
            Subject::RestrictedSeveral if unseen > 1 => vec![],
            Subject::RestrictedSeveral if unseen == 1 => {
                return joined(self.known.iter().map(holds));
            }
            Subject::RestrictedSeveral => {
                let each = self.known.iter().enumerate();
                return joined(each.flat_map(|(at, one)| {
                    self.known.iter().skip(at + 1).map(move |other| format!("({} && {})", holds(one), holds(other)))
                }));
            }
            _ => vec![],
        };
        if parts.is_empty() { "true".to_owned() } else { parts.join(" && ") }
    }
}

/// That one of these is so.
fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "false".to_owned() } else { parts.join(" || ") }
}

/// One family of requests, and what is true of it.
struct Question<'q> {
    environment: &'q RequestEnv,
    schema: &'q Schema,
    place: usize,
    /// The environment under the schema, which takes longest to make.
    symbolic: SymEnv,
    facts: &'q [Policy],
}

impl Question<'_> {
    /// A request that the first policies allow and the second do not.
    async fn first_alone(&self, first: Option<&Side<'_>>, second: Option<&Side<'_>>, session: &mut Session) -> Found {
        // Where no policy permits, nothing is allowed.
        let Some(first) = first.filter(|side| side.case.slice.can_permit) else { return Ok(None) };
        let broken = || Unproven::Failed("the question could not be written".into());
        let first = set(first.policies.policies().chain(self.facts).cloned()).ok_or_else(broken)?;
        let second = second.map_or_else(PolicySet::new, |side| side.policies.clone());
        let (first, second) = (self.compile(&first)?, self.compile(&second)?);
        session.ask(async |compiler| compiler.check_implies_with_counterexample_opt(&first, &second).await).await
    }

    fn compile(&self, policies: &PolicySet) -> Result<CompiledPolicySet, Unproven> {
        let symbolic = self.symbolic.clone();
        CompiledPolicySet::compile_with_custom_symenv(policies, self.environment, self.schema, symbolic)
            .map_err(|error| Unproven::Failed(error.to_string()))
    }

    /// Cedar passes over a policy that fails and Keyward denies, so that what is proven of one is true of the other
    /// only where none can.
    async fn never_fails(&self, side: &Side<'_>, known: &mut NeverFail, session: &mut Session) -> Result<(), Unproven> {
        let family = side.case.signature(&self.symbolic).family;
        for policy in side.policies.policies() {
            let text = policy.to_json().map_err(|error| Unproven::Failed(error.to_string()))?.to_string();
            let about = (family.clone(), self.place, text);
            let told = match known.get(&about) {
                Some(told) => told.clone(),
                None => {
                    let told = self.cannot_fail(policy, session).await;
                    known.entry(about).or_insert(told).clone()
                }
            };
            told?;
        }
        Ok(())
    }

    async fn cannot_fail(&self, policy: &Policy, session: &mut Session) -> Result<(), Unproven> {
        let symbolic = self.symbolic.clone();
        let compiled = CompiledPolicy::compile_with_custom_symenv(policy, self.environment, self.schema, symbolic)
            .map_err(|error| Unproven::Failed(error.to_string()))?;
        if session.ask(async |compiler| compiler.check_never_errors_opt(&compiled).await).await? {
            Ok(())
        } else {
            Err(Unproven::Failed(format!("the policy {} can fail", policy.id())))
        }
    }
}

/// What a solver found, once the real authorizer says the same.
fn difference(
    before: Option<&Side<'_>>,
    after: Option<&Side<'_>>,
    found: &Env,
    direction: Direction,
) -> Option<Difference> {
    let Side { case: of, .. } = after.or(before)?;
    let widens = direction == Direction::Widened;
    worlds(of, found).into_iter().find_map(|world| {
        let said = |side: Option<&Side<'_>>| match side {
            Some(side) => decided(&replay(&side.policies, &world)),
            None => Decided { allowed: false, reason: Reason::NoRoute.as_str().to_owned(), policies: vec![] },
        };
        let (before, after) = (said(before), said(after));
        if (after.allowed, before.allowed) != (widens, !widens) {
            return None;
        }
        let request = Witness::of(of, &world)?;
        Some(Difference { request, before, after })
    })
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
