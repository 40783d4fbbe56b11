//! Policies about management, before and after: each role against each operation.
//!
//! There are few roles and few things to manage, so that these requests say nearly all there is to say. It is not proven.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::literals::MODES;
use super::sample::supposed;
use super::symbolic::decided;
use super::{Change, Difference, Row, Subject};
use crate::authorize::manage::{self, Asking, manage};
use crate::evaluation::Evaluation;
use crate::key::{AccountId, EnvironmentId, KeyId, Kind, Mode, UserId};
use crate::people::{NewUser, Role, User};
use crate::policy::{Operation, Revision};
use crate::prove::solver::Unproven;
use crate::prove::witness::Witness;
use crate::ring::LiveKey;

/// Where there is something to tell, and how many questions there are of which it is certain that nothing has changed.
pub(super) fn compare(before: &Arc<Revision>, after: &Arc<Revision>) -> (Vec<Row>, usize) {
    let subjects = subjects();
    let operations: BTreeMap<&str, &Operation> = after.management().operations().collect();
    if written(before) == written(after) {
        return (vec![], subjects.len() * operations.len());
    }
    let Some(world) = World::new() else { return (vec![], 0) };
    let mut rows = Vec::new();
    for (route, operation) in operations {
        for subject in &subjects {
            let (mut widened, mut narrowed) = (None, None);
            let person = world.person(subject);
            let principal = if person.is_some() { "User" } else { "Anonymous" };
            let is_possible = |about: &&About| after.management().lets(operation, principal, about.word());
            let abouts = world.abouts(person.as_ref());
            for about in abouts.iter().filter(is_possible) {
                let asking = Asking { user: person.as_ref(), address: None, now: world.now };
                let say = |revision: &Revision| manage(revision, &asking, operation, about.subject());
                let (old, new) = (say(before), say(after));
                let is_allowed = |evaluation: &Evaluation| matches!(evaluation, Evaluation::Permitted(_));
                let found = match (is_allowed(&old), is_allowed(&new)) {
                    (false, true) => &mut widened,
                    (true, false) => &mut narrowed,
                    _ => continue,
                };
                let request = Witness {
                    request: route.to_owned(),
                    principal: subject.to_string(),
                    resource: about.to_string(),
                    context: BTreeMap::new(),
                };
                found.get_or_insert(Difference { request, before: decided(&old), after: decided(&new) });
            }
            let (method, path) = route.split_once(' ').unwrap_or_default();
            let change = Change::of(widened.is_some(), narrowed.is_some());
            let unproven = (change != Change::Both).then_some(Unproven::NotAsked);
            let (subject, action) = (subject.clone(), operation.name.to_string());
            let (method, path) = (method.to_owned(), path.to_owned());
            rows.push(Row { subject, method, path, action, change, unproven, widened, narrowed });
        }
    }
    (rows, 0)
}

fn subjects() -> Vec<Subject> {
    let members = [Role::Owner, Role::Developer, Role::Viewer].map(|role| Subject::Member { role });
    [Subject::Operator].into_iter().chain(members).chain([Subject::Stranger, Subject::Nobody]).collect()
}

/// The policies about management, but for their names and order.
fn written(revision: &Revision) -> BTreeSet<String> {
    let policies = revision.management().policies().policies();
    let json = policies.filter_map(|policy| policy.to_json().ok()).map(|mut json| {
        if let Some(members) = json.as_object_mut() {
            members.remove("annotations");
        }
        json.to_string()
    });
    json.collect()
}

/// Something to manage.
enum About {
    System,
    Account(AccountId),
    Environment(EnvironmentId),
    Key(Box<LiveKey>),
    Person(Box<User>),
    Oneself(Box<User>),
}

impl About {
    fn subject(&self) -> manage::Subject<'_> {
        match self {
            Self::System => manage::Subject::System,
            Self::Account(account) => manage::Subject::Account(*account),
            Self::Environment(environment) => manage::Subject::Environment(*environment),
            Self::Key(live) => manage::Subject::Key(&live.key),
            Self::Person(user) | Self::Oneself(user) => manage::Subject::User(user),
        }
    }

    /// Its entity type in the schema.
    fn word(&self) -> &'static str {
        match self {
            Self::System => "System",
            Self::Account(_) => "Account",
            Self::Environment(_) => "Environment",
            Self::Key(_) => "Key",
            Self::Person(_) | Self::Oneself(_) => "User",
        }
    }
}

impl std::fmt::Display for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System => f.write_str("the installation"),
            Self::Account(_) => f.write_str("the account"),
            Self::Environment(environment) => write!(f, "the account's {} environment", environment.mode),
            Self::Key(live) => write!(f, "a {} {} key of the account", live.key.mode, live.key.kind.as_str()),
            Self::Person(user) if user.operator => f.write_str("another operator"),
            Self::Person(_) => f.write_str("another person"),
            Self::Oneself(_) => f.write_str("themselves"),
        }
    }
}

struct World {
    account: AccountId,
    now: Timestamp,
}

impl World {
    fn new() -> Option<Self> {
        Some(Self { account: AccountId::random().ok()?, now: Timestamp::now() })
    }

    fn user(&self, operator: bool) -> Option<User> {
        let (email, name) = ("somebody@example.com".into(), "Somebody".into());
        let new = NewUser { email, name, operator, roles: BTreeMap::new() };
        User::create(new, UserId::random().ok()?, self.now).ok()
    }

    fn person(&self, subject: &Subject) -> Option<User> {
        let mut user = self.user(*subject == Subject::Operator)?;
        match subject {
            Subject::Nobody => return None,
            Subject::Member { role } => drop(user.grant(self.account, *role, self.now)),
            _ => {}
        }
        Some(user)
    }

    /// Whatever an operation may be about.
    fn abouts(&self, person: Option<&User>) -> Vec<About> {
        let kinds = [Kind::Publishable, Kind::Secret, Kind::Restricted];
        let key = |kind, mode: Mode| {
            let live = supposed(self.account, KeyId::random().ok()?, kind, mode, vec![], self.now)?;
            Some(About::Key(Box::new(live)))
        };
        let keys = kinds.into_iter().flat_map(|kind| MODES.map(|mode| key(kind, mode))).flatten();
        let environments = MODES.map(|mode| About::Environment(EnvironmentId { account: self.account, mode }));
        let others = [false, true].into_iter().filter_map(|operator| self.user(operator));
        let others = others.map(|user| About::Person(Box::new(user)));
        let oneself = person.map(|user| About::Oneself(Box::new(user.clone())));
        let installation = [About::System, About::Account(self.account)];
        installation.into_iter().chain(environments).chain(keys).chain(others).chain(oneself).collect()
    }
}
