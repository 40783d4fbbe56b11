//! One question to Cedar: may this principal do this, there?
//!
//! Two of Cedar's own rules would let calls through, so they are closed here. A policy whose evaluation
//! errors is skipped by Cedar, which turns a broken `forbid` into an allow: any error is a deny. And an
//! entity that is missing from the entity set silently belongs to nothing: every entity is built from
//! the record, and a set that lacks one is refused.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use cedar_policy::{
    AuthorizationError, Authorizer, Context, Decision, Effect, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    PolicyId, PolicySet, Request, RestrictedExpression,
};
use jiff::Timestamp;

use crate::evaluation::Evaluation;
use crate::key::{EnvironmentId, Key, Kind, Scope};
use crate::policy::{ContextUse, Model, PrincipalKind, Revision, Route, Target};
use crate::ring::LiveKey;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Principal<'a> {
    /// A call without credentials.
    Anonymous,
    /// A proven key; `also` is a scope to be held in addition, to find out whether it would help.
    Key {
        /// The record.
        key: &'a Key,
        /// A scope that the key does not hold.
        also: Option<&'a Scope>,
    },
}

impl Principal<'_> {
    /// Which of the schema's callers it is.
    pub fn kind(&self) -> PrincipalKind {
        match self {
            Self::Anonymous => PrincipalKind::Anonymous,
            Self::Key { key, .. } => PrincipalKind::Key(key.kind),
        }
    }

    /// The environment that it acts in, unless a call says another.
    pub fn environment(&self) -> Option<EnvironmentId> {
        match self {
            Self::Anonymous => None,
            Self::Key { key, .. } => Some(key.environment()),
        }
    }
}

/// A question: everything that policies may look at.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub principal: Principal<'a>,
    /// What for.
    pub route: &'a Route,
    /// The item, on an item route.
    pub item: Option<&'a str>,
    /// Where the item lives, or which environment a collection belongs to; for an anonymous call that
    /// names none there is none.
    pub environment: Option<EnvironmentId>,
    /// Whether the call came over TLS.
    pub secure: bool,
    /// Its method.
    pub method: &'a str,
    /// Its normalised path.
    pub path: &'a str,
    /// Whence it came.
    pub address: Option<IpAddr>,
    /// When.
    pub now: Timestamp,
}

/// What the policies say, with the scopes that would help where they deny.
pub fn evaluate(revision: &Revision, question: &Question<'_>) -> Evaluation {
    match ask_revision(revision, question) {
        Evaluation::Denied { by, .. } => {
            Evaluation::Denied { by, missing_scopes: helpful_scopes(revision, question).into() }
        }
        other => other,
    }
}

/// The same as [`evaluate`] for a proven key, from memory where the answer cannot have changed.
pub fn evaluate_remembering(revision: &Revision, live: &LiveKey, question: &Question<'_>) -> Arc<Evaluation> {
    let steady = question.route.slice(question.principal.kind()).is_some_and(|slice| slice.is_steady);
    if !steady || question.environment != Some(live.key.environment()) {
        return Arc::new(evaluate(revision, question));
    }
    let number = 2 * question.route.index + usize::from(question.secure);
    live.memo.get_or(revision.generation(), number, || evaluate(revision, question))
}

fn ask_revision(revision: &Revision, question: &Question<'_>) -> Evaluation {
    let Some(slice) = question.route.slice(question.principal.kind()) else {
        // The schema does not let this type of principal make this call at all.
        return denied([].into());
    };
    if !slice.can_permit && question.principal.kind() == PrincipalKind::Anonymous {
        // Most APIs have no public routes: a call without credentials is then refused without asking.
        return denied([].into());
    }
    match pose(revision, question, slice.reads_context) {
        Some(posed) => ask(&slice.policies, &posed),
        None => Evaluation::Failed([].into()),
    }
}

/// A question in Cedar's own terms.
pub struct Posed {
    /// Who asks for what, about what.
    pub request: Request,
    /// All that they are and belong to.
    pub entities: Entities,
    /// Without any of these, the answer would rest on a gap.
    pub required: Vec<EntityUid>,
}

/// Puts a question into Cedar's terms, with what `reads` names of the context. `None` when it cannot be, which no record
/// that we wrote can bring about.
pub(super) fn pose(revision: &Revision, question: &Question<'_>, reads: ContextUse) -> Option<Posed> {
    let scene = Scene::of(revision.model(), question)?;
    let entities = Entities::from_entities(scene.entities, None).ok()?;
    let context = context(reads, question)?;
    let action = question.route.action.clone();
    let request = Request::new(scene.principal, action, scene.resource, context, None).ok()?;
    Some(Posed { request, entities, required: scene.required })
}

fn denied(by: Arc<[PolicyId]>) -> Evaluation {
    Evaluation::Denied { by, missing_scopes: [].into() }
}

/// Puts the question, after making sure that every entity it turns on is there.
pub fn ask(policies: &PolicySet, posed: &Posed) -> Evaluation {
    let Posed { request, entities, required } = posed;
    if required.iter().any(|uid| entities.get(uid).is_none()) {
        return Evaluation::Failed([].into());
    }
    let response = Authorizer::new().is_authorized(request, policies, entities);
    let diagnostics = response.diagnostics();
    let policy_of = |error: &AuthorizationError| match error {
        AuthorizationError::PolicyEvaluationError(error) => error.policy_id().clone(),
    };
    let failed: Vec<PolicyId> = diagnostics.errors().map(policy_of).collect();
    if !failed.is_empty() {
        return Evaluation::Failed(failed.into());
    }
    let mut reasons: Vec<PolicyId> = diagnostics.reason().cloned().collect();
    reasons.sort();
    match response.decision() {
        Decision::Allow => Evaluation::Permitted(reasons.into()),
        Decision::Deny => {
            let forbids = |id: &PolicyId| policies.policy(id).is_some_and(|policy| policy.effect() == Effect::Forbid);
            reasons.retain(forbids);
            denied(reasons.into())
        }
    }
}

/// The scopes, each of which alone would turn the denial of `question` into a permit. Found by asking
/// the policies; there is no table.
fn helpful_scopes(revision: &Revision, question: &Question<'_>) -> Vec<Scope> {
    let Principal::Key { key, .. } = question.principal else {
        return Vec::new();
    };
    if key.kind != Kind::Restricted {
        return Vec::new();
    }
    let would_help = |scope: &Scope| {
        let principal = Principal::Key { key, also: Some(scope) };
        matches!(ask_revision(revision, &Question { principal, ..*question }), Evaluation::Permitted(_))
    };
    let lacking =
        revision.model().scopes.iter().map(|name| Scope::from(&**name)).filter(|scope| !key.scopes.contains(scope));
    lacking.filter(would_help).collect()
}

/// The entities of one question.
struct Scene {
    principal: EntityUid,
    resource: EntityUid,
    entities: Vec<Entity>,
    required: Vec<EntityUid>,
}

impl Scene {
    /// `None` when an attribute could not be built, which no record that we wrote can bring about.
    fn of(model: &Model, question: &Question<'_>) -> Option<Self> {
        let mut entities = question.route.action_entities.clone();
        let principal = match question.principal {
            Principal::Anonymous => {
                entities.push(Entity::with_uid(model.anonymous_uid.clone()));
                model.anonymous_uid.clone()
            }
            Principal::Key { key, also } => push_key(model, &mut entities, key, also)?,
        };
        let environment = push_environment(model, &mut entities, question.environment)?;
        let resource = match (&question.route.target, question.item) {
            (Target::Environment, _) => environment,
            (Target::Item(item_type), Some(item)) => {
                let uid = uid(item_type, item);
                entities.push(Entity::new_no_attrs(uid.clone(), HashSet::from([environment])));
                uid
            }
            (Target::Item(_), None) => return None,
        };
        let required = entities.iter().map(Entity::uid).collect();
        Some(Self { principal, resource, entities, required })
    }
}

pub(super) fn uid(of_type: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(of_type.clone(), EntityId::new(id))
}

fn push_key(model: &Model, entities: &mut Vec<Entity>, key: &Key, also: Option<&Scope>) -> Option<EntityUid> {
    let environment = push_environment(model, entities, Some(key.environment()))?;
    let mut parents = HashSet::from([environment.clone()]);
    for scope in key.scopes.iter().chain(also) {
        let scope = uid(&model.scope, scope.as_str());
        entities.push(Entity::with_uid(scope.clone()));
        parents.insert(scope);
    }
    let uid = uid(model.key_type(key.kind), &key.id.to_string());
    let attributes = HashMap::from([("environment".to_owned(), RestrictedExpression::new_entity_uid(environment))]);
    entities.push(Entity::new(uid.clone(), attributes, parents).ok()?);
    Some(uid)
}

/// Adds an environment and its account, unless they are there already.
fn push_environment(model: &Model, entities: &mut Vec<Entity>, id: Option<EnvironmentId>) -> Option<EntityUid> {
    // A call that belongs to nobody acts on an environment of its own, in no account.
    let name = id.map_or_else(|| "anonymous".to_owned(), |id| id.to_string());
    let environment = uid(&model.environment, &name);
    if entities.iter().any(|entity| entity.uid() == environment) {
        return Some(environment);
    }
    let mut parents = HashSet::new();
    if let Some(id) = id {
        let account = uid(&model.account, &id.account.to_string());
        if !entities.iter().any(|entity| entity.uid() == account) {
            entities.push(Entity::with_uid(account.clone()));
        }
        parents.insert(account);
    }
    let mode = id.map_or("live", |id| id.mode.as_str()).to_owned();
    let attributes = HashMap::from([("mode".to_owned(), RestrictedExpression::new_string(mode))]);
    entities.push(Entity::new(environment.clone(), attributes, parents).ok()?);
    Some(environment)
}

/// A time, as Cedar reads it.
pub(super) fn moment(time: Timestamp) -> RestrictedExpression {
    RestrictedExpression::new_datetime(time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
}

/// The context, with the attributes that are read; the others are not made, because nobody could tell.
fn context(reads: ContextUse, question: &Question<'_>) -> Option<Context> {
    let mut pairs = Vec::new();
    if reads.secure {
        pairs.push(("secure".to_owned(), RestrictedExpression::new_bool(question.secure)));
    }
    if reads.method {
        pairs.push(("method".to_owned(), RestrictedExpression::new_string(question.method.to_owned())));
    }
    if reads.path {
        pairs.push(("path".to_owned(), RestrictedExpression::new_string(question.path.to_owned())));
    }
    if let Some(address) = question.address.filter(|_| reads.ip) {
        pairs.push(("ip".to_owned(), RestrictedExpression::new_ip(address.to_canonical().to_string())));
    }
    if reads.time {
        pairs.push(("time".to_owned(), moment(question.now)));
    }
    Context::from_pairs(pairs).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Account, AccountId, KeyId, Mint, Mode, NewKey, Phc, Screen, StoredSecret};
    use crate::policy::Bundle;

    /// A forbid that turns on each entity in turn: without it, a missing entity would be an allow.
    const FORBIDS: &str = r#"
        forbid (principal in DocsApi::Account::"ACCOUNT", action, resource);
        forbid (principal in DocsApi::Environment::"ACCOUNT/live", action, resource);
        forbid (principal in DocsApi::Scope::"resources:read", action, resource);
        forbid (principal, action in DocsApi::Action::"resources:read", resource);
        forbid (principal, action, resource in DocsApi::Account::"ACCOUNT");
    "#;

    #[test]
    fn a_set_that_lacks_an_entity_never_allows() {
        let now = Timestamp::UNIX_EPOCH;
        let account = Account::create(AccountId::random().unwrap(), "Vexart", now).unwrap();
        let mint = Mint::new(Kind::Restricted, Mode::Live).unwrap();
        let secret =
            StoredSecret { phc: Phc::none(), screen: Screen::none(), ..StoredSecret::new(&mint, Phc::none(), now) };
        let scopes = vec!["resources:read".into()];
        let new = NewKey { scopes, ..NewKey::named(Kind::Restricted, Mode::Live, "worker") };
        let key = Key::create(account.id, new, KeyId::random().unwrap(), secret, now).unwrap();
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let shipped = Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap();
        let forbids = FORBIDS.replace("ACCOUNT", &account.id.to_string());
        let mut tried = 0;
        for forbid in std::iter::once("").chain(forbids.lines()) {
            let more = ("policies/more.cedar".to_owned(), forbid.to_owned());
            let files = shipped.files().map(|(path, text)| (path.to_owned(), text.to_owned()));
            let revision = Revision::build(&Bundle::from_files(files.chain([more]))).unwrap();
            let found = revision.find_route("GET", "/v1/resources/res_1").unwrap();
            let question = Question {
                principal: Principal::Key { key: &key, also: None },
                route: found.route,
                item: found.id,
                environment: Some(key.environment()),
                secure: true,
                method: "GET",
                path: "/v1/resources/res_1",
                address: None,
                now,
            };
            let slice = question.route.slice(question.principal.kind()).unwrap();
            let whole = Scene::of(revision.model(), &question).unwrap();
            assert_eq!(
                whole.entities.len(),
                7,
                "the action and its scope, the key, its scope, environment, account, the item"
            );
            let posed = pose(&revision, &question, slice.reads_context).unwrap();
            for missing in 0..whole.entities.len() {
                let mut entities = whole.entities.clone();
                entities.remove(missing);
                let entities = Entities::from_entities(entities, None).unwrap();
                let (request, required) = (posed.request.clone(), posed.required.clone());
                let answer = ask(&slice.policies, &Posed { request, entities, required });
                assert_eq!(answer, Evaluation::Failed([].into()), "without {}", whole.required[missing]);
                tried += 1;
            }
            let allowed = matches!(ask(&slice.policies, &posed), Evaluation::Permitted(_));
            assert_eq!(allowed, forbid.trim().is_empty());
        }
        assert!(tried > 40);
    }
}
