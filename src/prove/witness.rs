//! What a solver found, as a request that a person can read.
//!
//! A solver makes worlds that are more odd than those there can be: an item in no environment, a key in two. So what it found
//! is made anew as the daemon would make it ([`worlds`]), and nothing is shown that was not put to the real authorizer
//! there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use cedar_policy::{
    Entities, Entity, EntityId, EntityTypeName, EntityUid, EvalResult, PolicyId, PolicySet, Request,
    RestrictedExpression,
};
use cedar_policy_symcc::Env;
use serde::{Deserialize, Serialize};

use super::world::Case;
use crate::authorize::evaluate::{Posed, ask};
use crate::evaluation::Evaluation;
use crate::key::Scope;
use crate::policy::{Model, PrincipalKind};

/// A request that shows that something does not hold, or is otherwise than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// The route's method and path template.
    pub request: String,
    /// Who makes it.
    pub principal: String,
    /// What it is about.
    pub resource: String,
    /// What is known of it besides, by name, as far as policies look at it.
    pub context: BTreeMap<String, String>,
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {} on {}", self.request, self.principal, self.resource)?;
        for (at, (name, value)) in self.context.iter().enumerate() {
            write!(f, "{}{name} = {value}", if at == 0 { ", with " } else { " and " })?;
        }
        Ok(())
    }
}

/// Worlds that there can be, each as near to what a solver found as such a world comes, also where it was found on
/// another route of which the policies cannot tell the difference.
pub fn worlds(case: &Case<'_>, found: &Env) -> Vec<Env> {
    let Some((principal, resource)) = found.request.principal().zip(found.request.resource()) else { return vec![] };
    let makes = Maker { case, found };
    let model = case.revision.model();
    let request = || {
        let context = found.request.context()?.clone();
        Request::new(principal.clone(), case.route.action.clone(), resource.clone(), context, None).ok()
    };
    let places = if resource.type_name() == &model.environment {
        vec![resource.clone()]
    } else {
        let within = makes.above(resource, &model.environment);
        if within.is_empty() { vec![named(&model.environment, "elsewhere")] } else { within }
    };
    let world = |place: EntityUid| {
        let entities = makes.entities(principal, resource, &place)?;
        let entities = Entities::from_entities(entities, None).ok()?;
        Some(Env { request: request()?, entities })
    };
    places.into_iter().filter_map(world).collect()
}

/// What a solver found, by a key of these scopes and no others in place of its own.
pub fn with_scopes(case: &Case<'_>, found: &Env, scopes: &[Scope]) -> Option<Env> {
    let of_scope = &case.revision.model().scope;
    let principal = found.request.principal()?;
    let others = found.entities.ancestors(principal)?.filter(|above| above.type_name() != of_scope).cloned();
    let held = scopes.iter().map(|scope| named(of_scope, scope.as_str()));
    let environment = match found.entities.get(principal)?.attr("environment")? {
        Ok(EvalResult::EntityUid(uid)) => RestrictedExpression::new_entity_uid(uid),
        _ => return None,
    };
    let attributes = HashMap::from([("environment".to_owned(), environment)]);
    let key = Entity::new(principal.clone(), attributes, others.chain(held).collect()).ok()?;
    let rest = found.entities.iter().filter(|entity| entity.uid() != *principal).cloned();
    let entities = Entities::from_entities(rest.chain([key]), None).ok()?;
    Some(Env { request: found.request.clone(), entities })
}

/// The scopes of the key that makes the request that a solver found.
pub fn scopes_of(case: &Case<'_>, found: &Env) -> Vec<Scope> {
    let makes = Maker { case, found };
    let held = found.request.principal().map(|key| makes.above(key, &case.revision.model().scope));
    held.into_iter().flatten().map(|scope| Scope::from(scope.id().unescaped())).collect()
}

fn named(of_type: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(of_type.clone(), EntityId::new(id))
}

/// Makes entities as the daemon does, with what a solver made up.
struct Maker<'a> {
    case: &'a Case<'a>,
    found: &'a Env,
}

impl Maker<'_> {
    fn above(&self, uid: &EntityUid, of_type: &EntityTypeName) -> Vec<EntityUid> {
        let ancestors = self.found.entities.ancestors(uid).into_iter().flatten();
        let mut above: Vec<EntityUid> = ancestors.filter(|above| above.type_name() == of_type).cloned().collect();
        above.sort();
        above
    }

    /// `None` when the solver's key has no environment.
    fn entities(&self, principal: &EntityUid, resource: &EntityUid, place: &EntityUid) -> Option<Vec<Entity>> {
        let model = self.case.revision.model();
        let mut entities: HashMap<EntityUid, Entity> =
            self.case.route.action_entities.iter().map(|entity| (entity.uid(), entity.clone())).collect();
        let mut add = |entity: Entity| drop(entities.insert(entity.uid(), entity));
        self.environment(place)?.into_iter().for_each(&mut add);
        if place != resource {
            add(Entity::new_no_attrs(resource.clone(), HashSet::from([place.clone()])));
        }
        match self.case.kind {
            PrincipalKind::Anonymous => add(Entity::with_uid(principal.clone())),
            PrincipalKind::Key(_) => {
                let own = self.found.entities.get(principal)?.attr("environment")?;
                let Ok(EvalResult::EntityUid(own)) = own else { return None };
                self.environment(&own)?.into_iter().for_each(&mut add);
                let scopes = self.above(principal, &model.scope);
                scopes.iter().cloned().map(Entity::with_uid).for_each(&mut add);
                let attributes =
                    HashMap::from([("environment".to_owned(), RestrictedExpression::new_entity_uid(own.clone()))]);
                let parents = scopes.into_iter().chain([own]).collect();
                add(Entity::new(principal.clone(), attributes, parents).ok()?);
            }
        }
        Some(entities.into_values().collect())
    }

    /// An environment, and the one account that it is in.
    fn environment(&self, uid: &EntityUid) -> Option<[Entity; 2]> {
        let model = self.case.revision.model();
        let mode = match self.found.entities.get(uid).and_then(|environment| environment.attr("mode")) {
            Some(Ok(EvalResult::String(mode))) => mode,
            _ => "live".into(),
        };
        let account = self.above(uid, &model.account).into_iter().next();
        let account = account.unwrap_or_else(|| named(&model.account, "somebody"));
        let attributes = HashMap::from([("mode".to_owned(), RestrictedExpression::new_string(mode))]);
        let environment = Entity::new(uid.clone(), attributes, HashSet::from([account.clone()])).ok()?;
        Some([environment, Entity::with_uid(account)])
    }
}

/// What the real authorizer says of what a solver found.
pub fn replay(policies: &PolicySet, found: &Env) -> Evaluation {
    let (request, entities) = (found.request.clone(), found.entities.clone());
    ask(policies, &Posed { request, entities, required: vec![] })
}

/// The policies of `set` that apply to what a solver found; none may fail.
pub fn applying(set: &PolicySet, found: &Env) -> Vec<PolicyId> {
    match replay(set, found) {
        Evaluation::Permitted(by) | Evaluation::Denied { by, .. } => by.to_vec(),
        Evaluation::Failed(_) => Vec::new(),
    }
}

impl Witness {
    /// For people; `None` when it is about an address that no call comes from, since a solver may take a network for one.
    pub fn of(case: &Case<'_>, found: &Env) -> Option<Self> {
        let model = case.revision.model();
        let mut names = Names { model, entities: &found.entities, named: Vec::new() };
        let (principal, resource) = (found.request.principal()?.clone(), found.request.resource()?.clone());
        let reads = &case.slice.reads_context;
        let is_read = |name: &str| match name {
            // A key's call comes over HTTPS, or no policy is asked.
            "secure" => reads.secure && case.kind == PrincipalKind::Anonymous,
            "method" => reads.method,
            "path" => reads.path,
            "ip" => reads.ip,
            "time" => reads.time,
            _ => true,
        };
        let context: BTreeMap<String, String> = values(&found.request).filter(|(name, _)| is_read(name)).collect();
        if context.get("ip").is_some_and(|ip| is_network(ip)) {
            return None;
        }
        Some(Self {
            request: format!("{} {}", case.route.method, case.route.template),
            principal: names.principal(case.kind, &principal),
            resource: names.resource(&resource),
            context,
        })
    }
}

/// The context's attributes, as Cedar writes their values.
fn values(request: &Request) -> impl Iterator<Item = (String, String)> {
    let context = request.context().and_then(|context| context.to_json_value().ok());
    let members = match context {
        Some(serde_json::Value::Object(members)) => members,
        _ => serde_json::Map::new(),
    };
    members.into_iter().map(|(name, value)| {
        let argument = value.pointer("/__extn/arg").and_then(serde_json::Value::as_str).map(str::to_owned);
        let value = argument.or_else(|| moment(&value)).unwrap_or_else(|| value.to_string());
        (name, value)
    })
}

/// A time, which a solver's model writes as milliseconds from 1970 on.
fn moment(value: &serde_json::Value) -> Option<String> {
    let millis = value.pointer("/__extn/args/1/__extn/arg")?.as_str()?.strip_suffix("ms")?.parse().ok()?;
    jiff::Timestamp::from_millisecond(millis).ok().map(|moment| moment.to_string())
}

fn is_network(ip: &str) -> bool {
    let is_whole = |(address, length): (&str, &str)| length == if address.contains(':') { "128" } else { "32" };
    ip.split_once('/').is_some_and(|parts| !is_whole(parts))
}

/// Short names for entities whose own names a solver made up.
struct Names<'a> {
    model: &'a Model,
    entities: &'a Entities,
    named: Vec<EntityUid>,
}

impl Names<'_> {
    /// `A`, `B`, …: the same for the same entity.
    fn letter(&mut self, uid: &EntityUid) -> String {
        let at = self.named.iter().position(|named| named == uid).unwrap_or_else(|| {
            self.named.push(uid.clone());
            self.named.len() - 1
        });
        let letter = u8::try_from(at).ok().and_then(|at| b'A'.checked_add(at)).filter(u8::is_ascii_uppercase);
        letter.map_or_else(|| format!("no. {}", at + 1), |letter| char::from(letter).to_string())
    }

    fn principal(&mut self, kind: PrincipalKind, uid: &EntityUid) -> String {
        let PrincipalKind::Key(kind) = kind else { return "a call without credentials".into() };
        let environment = match self.entities.get(uid).and_then(|key| key.attr("environment")) {
            Some(Ok(EvalResult::EntityUid(environment))) => self.environment(&environment),
            _ => "of no environment".into(),
        };
        let scopes = self.ancestors(uid, &self.model.scope.clone());
        let scopes = match scopes.as_slice() {
            [] => String::new(),
            scopes => {
                format!(" with {}", scopes.iter().map(|scope| scope.id().unescaped()).collect::<Vec<_>>().join(", "))
            }
        };
        format!("a {} key{scopes} of {environment}", kind.as_str())
    }

    fn resource(&mut self, uid: &EntityUid) -> String {
        if uid.type_name() == &self.model.environment {
            return self.environment(uid);
        }
        let within = self.ancestors(uid, &self.model.environment.clone());
        let within: Vec<String> = within.iter().map(|environment| self.environment(environment)).collect();
        let (of_type, id) = (uid.type_name().basename(), uid.id().unescaped());
        // A name that a solver made up, such as the empty one, is none that a policy names.
        let name = if id.is_empty() { format!("a {of_type}") } else { format!("the {of_type} {id:?}") };
        format!("{name} in {}", within.join(" and "))
    }

    fn environment(&mut self, uid: &EntityUid) -> String {
        let mode = match self.entities.get(uid).and_then(|environment| environment.attr("mode")) {
            Some(Ok(EvalResult::String(mode))) => mode,
            _ => "?".into(),
        };
        format!("the {mode} environment {}", self.letter(uid))
    }

    fn ancestors(&self, uid: &EntityUid, of_type: &EntityTypeName) -> Vec<EntityUid> {
        let ancestors = self.entities.ancestors(uid).into_iter().flatten();
        let mut found: Vec<EntityUid> = ancestors.filter(|above| above.type_name() == of_type).cloned().collect();
        found.sort();
        found
    }
}
