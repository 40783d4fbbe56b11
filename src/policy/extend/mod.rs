//! A new scope, written into the files of a bundle: its declarations into the schema, its policy beside the policies of
//! other scopes, two examples behind the other examples.
//!
//! The files stay as people wrote them: text is put in between, and nothing is taken away. Where it goes is found by the
//! files' outline; that only what was meant has changed is then seen by Cedar's parser. A place that cannot be found in
//! one way only is a refusal, with everything that was to be added, to be put there by hand. Pure: texts in, texts out.

mod additions;
mod names;
mod outline;
mod places;
#[cfg(test)]
mod tests;

use self::additions::Additions;
use self::names::{Shape, is_name};
use super::model::DECLARATIONS;
use super::routes::{numbered, request_line};
use super::{Bundle, Revision, Route, Target};

/// Characters of a scope's name.
const LONGEST_NAME: usize = 64;

/// A scope that there is to be.
#[derive(Debug, Clone)]
pub struct NewScope {
    /// Its name, for example `invoices:write`.
    pub name: String,
    /// What it grants.
    pub routes: Vec<NewRoute>,
    /// The entity type of its items; without it, it is made of the path.
    pub item: Option<String>,
}

/// A route that a new scope grants: one that there is, or a new one.
#[derive(Debug, Clone)]
pub struct NewRoute {
    /// Method and path, for example `POST /v1/invoices`.
    pub line: String,
    /// The name of its action; without it, it is made of method and path.
    pub action: Option<String>,
}

/// A file, and what it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Its path in the bundle.
    pub file: String,
    /// Its text; none of a file that is new.
    pub before: Option<String>,
    /// The text that it is to have.
    pub after: String,
}

/// Why a scope cannot be written into the files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtendError {
    /// It cannot be as asked for.
    #[error("{0}")]
    Asked(String),
    /// The place for something cannot be found in one way only.
    #[error("{why}\n\nNothing was changed. By hand, add:\n\n{by_hand}")]
    Place {
        /// What was looked for.
        why: String,
        /// Everything that there is to add.
        by_hand: String,
    },
}

/// What each file is to be, in the order in which they are to be put in place. `other` is a scope that the new one is
/// told from in an example.
///
/// Until the last of them is in place the files are refused, because the policy and the examples name a scope that the
/// schema lacks: a daemon that reads between two of them keeps what it has.
///
/// # Errors
/// [`ExtendError`]
pub fn extend(bundle: &Bundle, revision: &Revision, scope: &NewScope, other: &str) -> Result<Vec<Edit>, ExtendError> {
    let plan = Plan::of(revision, scope)?;
    let additions = Additions::of(&plan, revision, other)?;
    let place = |why: String| ExtendError::Place { why, by_hand: additions.by_hand(&plan) };
    let mut edits = vec![places::examples(bundle, &plan, &additions).map_err(place)?];
    edits.push(places::policy(bundle, revision, &additions).map_err(place)?);
    edits.extend(places::schema(bundle, revision, &plan, &additions).map_err(place)?);
    Ok(edits)
}

/// Whether a revision has the scope, and each of its routes in the scope's group.
pub fn has_scope(revision: &Revision, scope: &NewScope) -> bool {
    let grants = |route: &Route| route.action_entities.iter().any(|action| action.uid().id().unescaped() == scope.name);
    let is_granted = |wanted: &NewRoute| {
        request_line(&wanted.line).is_ok_and(|(method, template, _)| {
            let is_it = |route: &&Route| *route.method == *method && numbered(&route.template) == numbered(template);
            revision.routes().find(is_it).is_some_and(grants)
        })
    };
    revision.model().scopes.iter().any(|known| **known == *scope.name) && scope.routes.iter().all(is_granted)
}

/// What is asked for, held against what there is.
struct Plan<'a> {
    scope: &'a str,
    /// The scope's name as a literal.
    quoted: String,
    routes: Vec<Planned<'a>>,
    /// Entity types to declare.
    new_types: Vec<String>,
}

struct Planned<'a> {
    method: &'a str,
    template: &'a str,
    action: String,
    /// The route, where there is one already.
    existing: Option<&'a Route>,
    /// The entity type of its items, without namespace; `Environment` of a collection.
    resource: String,
}

impl<'a> Plan<'a> {
    fn of(revision: &'a Revision, scope: &'a NewScope) -> Result<Self, ExtendError> {
        let asked = |message: String| Err(ExtendError::Asked(message));
        let model = revision.model();
        let name = scope.name.as_str();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":._-/".contains(&byte);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(is_plain) {
            return asked(format!(
                "{name:?} is no name for a scope: it is written like invoices:write, in up to {LONGEST_NAME} letters, digits and `:._-/`"
            ));
        }
        if model.scopes.iter().any(|known| **known == *name) {
            return asked(format!("there is a scope {name:?} already"));
        }
        let is_action = |action: &str| revision.schema().actions().any(|uid| uid.id().unescaped() == action);
        if is_action(name) {
            return asked(format!("there is an action {name:?} already, and a scope's group has the scope's name"));
        }
        let mut routes: Vec<Planned<'_>> = Vec::new();
        for route in &scope.routes {
            let planned = planned(revision, route, scope.item.as_deref())?;
            if planned.existing.is_none() && is_action(&planned.action) || planned.action == name {
                return asked(format!(
                    "there is an action {:?} already: give the new one a name, as in `--routes \"otherName={}\"`",
                    planned.action, route.line
                ));
            }
            if routes.iter().any(|other| other.action == planned.action) {
                return asked(format!(
                    "two of the routes would have the action {:?}: give one of them a name, as in `--routes \"otherName={}\"`",
                    planned.action, route.line
                ));
            }
            routes.push(planned);
        }
        if routes.is_empty() {
            return asked("a scope grants at least one route".into());
        }
        let is_declared = |of_type: &str| {
            revision.schema().entity_types().any(|known| known.to_string() == format!("{}::{of_type}", model.namespace))
        };
        let mut new_types: Vec<String> = Vec::new();
        for planned in &routes {
            if !is_declared(&planned.resource) && !new_types.contains(&planned.resource) {
                new_types.push(planned.resource.clone());
            }
        }
        Ok(Self { scope: name, quoted: format!("{name:?}"), routes, new_types })
    }

    fn new_routes(&self) -> impl Iterator<Item = &Planned<'a>> {
        self.routes.iter().filter(|route| route.existing.is_none())
    }

    fn moved(&self) -> impl Iterator<Item = &Planned<'a>> {
        self.routes.iter().filter(|route| route.existing.is_some())
    }
}

fn planned<'a>(revision: &'a Revision, route: &'a NewRoute, item: Option<&str>) -> Result<Planned<'a>, ExtendError> {
    let asked = |message: String| ExtendError::Asked(message);
    let (method, template, parameters) = request_line(&route.line).map_err(asked)?;
    let same = |found: &&Route| *found.method == *method && numbered(&found.template) == numbered(template);
    if let Some(existing) = revision.routes().find(same) {
        let restricted = super::PrincipalKind::Key(crate::key::Kind::Restricted);
        if existing.slice(restricted).is_none() {
            let action = &existing.action_name;
            return Err(asked(format!(
                "{} is the action {action}, which the schema lets no restricted key call: add RestrictedKey to its principals first",
                route.line
            )));
        }
        if let Some(name) = route.action.as_deref().filter(|name| *name != &*existing.action_name) {
            return Err(asked(format!(
                "{} is the action {} already, and not {name:?}",
                route.line, existing.action_name
            )));
        }
        let action = existing.action_name.to_string();
        return Ok(Planned { method, template, action, existing: Some(existing), resource: resource_of(existing) });
    }
    let named = parameters.iter().filter(|name| !name.starts_with('_')).count();
    if named > 1 {
        return Err(asked(format!(
            "the path {template:?} has {named} parameters, of which one names the item: write the others as {{_name}}, to say that your API checks them by itself"
        )));
    }
    let shape = Shape::of(template);
    let nameless = || {
        asked(format!(
            "{:?} has no part to make names of: give the action a name, as in `--routes \"name={}\"`, and the items one with --type",
            route.line, route.line
        ))
    };
    let action = match (&route.action, &shape) {
        (Some(name), _) => name.clone(),
        (None, Some(shape)) => shape.action(method),
        (None, None) => return Err(nameless()),
    };
    let resource = match (named, item, &shape) {
        (0, ..) => "Environment".to_owned(),
        (_, Some(item), _) => item.to_owned(),
        (_, None, shape) => match (items_below(revision, template), shape) {
            (Some(of_type), _) => of_type,
            (None, Some(shape)) => shape.item(),
            (None, None) => return Err(nameless()),
        },
    };
    if named > 0 && DECLARATIONS.iter().any(|(word, _)| *word == resource) {
        return Err(asked(format!(
            "{resource} is a type that things are in or that calls are from: give the items a type of their own with --type"
        )));
    }
    if let Some(no_name) = [&action, &resource].into_iter().find(|name| !is_name(name)) {
        return Err(asked(format!(
            "{no_name:?} is no name in a schema: give another, as in `--routes \"name={}\"` and --type",
            route.line
        )));
    }
    Ok(Planned { method, template, action, existing: None, resource })
}

fn resource_of(route: &Route) -> String {
    match &route.target {
        Target::Environment => "Environment".to_owned(),
        Target::Item(of_type) => of_type.basename().to_owned(),
    }
}

/// The type that items of this path have on other routes.
fn items_below(revision: &Revision, template: &str) -> Option<String> {
    let item = |template: &str| {
        let end = template
            .rfind("/{")
            .map(|at| template.get(at..).and_then(|rest| rest.find('}')).map_or(at, |more| at + more + 1))?;
        template.get(..end).map(numbered)
    };
    let wanted = item(template)?;
    let is_item =
        |route: &&Route| route.target != Target::Environment && item(&route.template).as_ref() == Some(&wanted);
    revision.routes().find(is_item).map(resource_of)
}
