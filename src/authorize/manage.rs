//! One question about management: may this person do this operation, there?
//!
//! The same authorizer as for calls of the API, over the other half of the revision. An evaluation error is a deny, and
//! every entity that the answer turns on is there.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use cedar_policy::{Context, Entities, Entity, EntityTypeName, EntityUid, Request, RestrictedExpression as Expression};
use jiff::Timestamp;

use super::evaluate::{Posed, ask, moment, uid};
use crate::evaluation::Evaluation;
use crate::key::{AccountId, EnvironmentId, Key};
use crate::people::{Role, User};
use crate::policy::{Operation, Revision};

/// What an operation is about.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// The installation as a whole.
    System,
    /// An account.
    Account(AccountId),
    /// One of an account's environments, in which something is to be made.
    Environment(EnvironmentId),
    /// A key.
    Key(&'a Key),
    /// A person.
    User(&'a User),
}

impl Subject<'_> {
    /// The type that the schema has for it, without namespace.
    pub fn of_type(&self) -> &'static str {
        match self {
            Self::System => "System",
            Self::Account(_) => "Account",
            Self::Environment(_) => "Environment",
            Self::Key(_) => "Key",
            Self::User(_) => "User",
        }
    }
}

/// Who wants to do something, when, and from where.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The person, or nobody that is known.
    pub user: Option<&'a User>,
    /// The peer.
    pub address: Option<IpAddr>,
    /// When.
    pub now: Timestamp,
}

/// What the policies say.
pub fn manage(revision: &Revision, asking: &Asking<'_>, operation: &Operation, subject: Subject<'_>) -> Evaluation {
    match pose(asking, operation, subject) {
        Some(posed) => ask(revision.management().policies(), &posed),
        None => Evaluation::Failed([].into()),
    }
}

/// Puts the question into Cedar's terms. `None` when it cannot be, which no record that we wrote can bring about.
pub(super) fn pose(asking: &Asking<'_>, operation: &Operation, subject: Subject<'_>) -> Option<Posed> {
    let mut scene = Scene { entities: operation.action_entities.clone() };
    let principal = scene.push_caller(asking.user)?;
    let resource = scene.push_subject(subject)?;
    let required: Vec<EntityUid> = scene.entities.iter().map(Entity::uid).collect();
    let entities = Entities::from_entities(scene.entities, None).ok()?;
    let mut context = vec![("time".to_owned(), moment(asking.now))];
    if let Some(address) = asking.address {
        context.push(("ip".to_owned(), Expression::new_ip(address.to_string())));
    }
    let context = Context::from_pairs(context).ok()?;
    let request = Request::new(principal, operation.action.clone(), resource, context, None).ok()?;
    Some(Posed { request, entities, required })
}

struct Scene {
    entities: Vec<Entity>,
}

impl Scene {
    /// Adds an entity, unless it is there already.
    fn push(&mut self, uid: EntityUid, attributes: Attributes, parents: HashSet<EntityUid>) -> Option<EntityUid> {
        if !self.entities.iter().any(|entity| entity.uid() == uid) {
            self.entities.push(Entity::new(uid.clone(), attributes, parents).ok()?);
        }
        Some(uid)
    }

    fn push_caller(&mut self, user: Option<&User>) -> Option<EntityUid> {
        match user {
            Some(user) => self.push_user(user),
            None => self.push(named("Anonymous", "anonymous")?, Attributes::new(), HashSet::new()),
        }
    }

    fn push_user(&mut self, user: &User) -> Option<EntityUid> {
        let with = |role: Role| -> Option<Expression> {
            let held = user.roles.iter().filter(|(_, held)| **held == role);
            let accounts: Option<Vec<_>> = held
                .map(|(account, _)| Some(Expression::new_entity_uid(named("Account", &account.to_string())?)))
                .collect();
            Some(Expression::new_set(accounts?))
        };
        let attributes = HashMap::from([
            ("operator".to_owned(), Expression::new_bool(user.operator)),
            ("owns".to_owned(), with(Role::Owner)?),
            ("develops".to_owned(), with(Role::Developer)?),
            ("views".to_owned(), with(Role::Viewer)?),
        ]);
        self.push(named("User", &user.id.to_string())?, attributes, HashSet::new())
    }

    fn push_subject(&mut self, subject: Subject<'_>) -> Option<EntityUid> {
        match subject {
            Subject::System => self.push(named("System", "keyward")?, Attributes::new(), HashSet::new()),
            Subject::Account(account) => {
                self.push(named("Account", &account.to_string())?, Attributes::new(), HashSet::new())
            }
            Subject::Environment(environment) => self.push_environment(environment),
            Subject::Key(key) => {
                let parents = HashSet::from([self.push_environment(key.environment())?]);
                let attributes = HashMap::from([
                    ("mode".to_owned(), text(key.mode.as_str())),
                    ("kind".to_owned(), text(key.kind.as_str())),
                ]);
                self.push(named("Key", &key.id.to_string())?, attributes, parents)
            }
            Subject::User(user) => self.push_user(user),
        }
    }

    fn push_environment(&mut self, environment: EnvironmentId) -> Option<EntityUid> {
        let account = self.push_subject(Subject::Account(environment.account))?;
        let attributes = HashMap::from([("mode".to_owned(), text(environment.mode.as_str()))]);
        self.push(named("Environment", &environment.to_string())?, attributes, HashSet::from([account]))
    }
}

type Attributes = HashMap<String, Expression>;

fn text(value: &str) -> Expression {
    Expression::new_string(value.to_owned())
}

/// An entity of Keyward's own namespace.
fn named(word: &str, id: &str) -> Option<EntityUid> {
    let of_type: EntityTypeName = format!("Keyward::{word}").parse().ok()?;
    Some(uid(&of_type, id))
}
