//! Routes, made of the schema's `@http("METHOD /path/{id}")` annotations.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicySet, Schema};

use super::declared::Declared;
use super::model::context_fits;
use super::revision::Fragment;
use super::slice::{Applies, Slicer};
use super::{Model, PrincipalKind, Problem, Slice};

/// What a route's action is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A collection: the resource is the environment.
    Environment,
    /// An item of this type, named by the path's one parameter whose name does not begin with `_`.
    Item(EntityTypeName),
}

/// One endpoint of the API.
#[derive(Debug, Clone)]
pub struct Route {
    /// The method, upper case.
    pub method: Box<str>,
    /// The path with its parameters in braces.
    pub template: Box<str>,
    /// Which of its parameters names the item, from 0.
    item_parameter: Option<usize>,
    /// The Cedar action.
    pub action: EntityUid,
    /// The action's name without namespace, for people.
    pub action_name: Arc<str>,
    /// What it is about.
    pub target: Target,
    /// The action and its groups, to go into every entity set.
    pub action_entities: Vec<Entity>,
    /// Its place among the routes of its revision, from 0.
    pub index: usize,
    slices: HashMap<PrincipalKind, Arc<Slice>>,
}

impl Route {
    /// The policies for calls of this route by such a caller; none when the schema does not let them
    /// call it at all.
    pub fn slice(&self, principal: PrincipalKind) -> Option<&Slice> {
        self.slices.get(&principal).map(|slice| &**slice)
    }

    /// Whether it is the same action, in the same groups, about the same type of thing.
    pub fn is_same_action(&self, other: &Self) -> bool {
        let groups = |route: &Self| route.action_entities.iter().map(Entity::uid).collect::<HashSet<_>>();
        (&self.action, &self.target) == (&other.action, &other.target) && groups(self) == groups(other)
    }
}

impl std::fmt::Display for Route {
    /// As its annotation has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.template)
    }
}

/// A route that a call has found.
#[derive(Debug, Clone, Copy)]
pub struct RouteMatch<'r, 'p> {
    /// The route.
    pub route: &'r Route,
    /// The item that the path names, decoded.
    pub id: Option<&'p str>,
}

/// All routes: one tree of paths for each method.
#[derive(Debug, Clone, Default)]
pub(super) struct Routes {
    by_method: HashMap<Box<str>, matchit::Router<usize>>,
    all: Vec<Route>,
}

impl Routes {
    /// The route of a method and a normalised path.
    pub fn find<'p>(&self, method: &str, path: &'p str) -> Option<RouteMatch<'_, 'p>> {
        let found = self.by_method.get(method)?.at(path).ok()?;
        // An empty parameter is no item.
        if found.params.iter().any(|(_, value)| value.is_empty()) {
            return None;
        }
        let route = self.all.get(*found.value)?;
        let id = route.item_parameter.and_then(|at| found.params.iter().nth(at)).map(|(_, value)| value);
        Some(RouteMatch { route, id })
    }

    /// Every route, in the order of their templates.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.all.iter()
    }
}

/// An `@http` annotation and where it stands.
struct Annotated<'a> {
    file: &'a str,
    text: &'a str,
    action: EntityUid,
    name: String,
    value: String,
}

impl Annotated<'_> {
    fn problem(&self, message: impl Into<String>, help: &str) -> Problem {
        // The annotation's text names the place: two that are equal are in conflict anyway.
        let quoted = format!("\"{}\"", self.value);
        let at = self.text.find(&quoted).unwrap_or(0);
        Problem::at(self.file, self.text, at..at + quoted.len(), message, help)
    }
}

/// Builds the routes of the API and the slices of their policies.
///
/// # Errors
/// Each annotation that is no route, clashes with another, or whose action the daemon could not call.
pub(super) fn build(
    model: &Model,
    schema: &Schema,
    fragments: &[Fragment<'_>],
    policies: &PolicySet,
) -> Result<Routes, Vec<Problem>> {
    let actions = schema.action_entities().map_err(|error| vec![Problem::in_file("schemas", error.to_string())])?;
    let mut slicer = Slicer::new(policies, schema, &actions)
        .ok_or_else(|| vec![Problem::in_file("policies", "a policy cannot be described as JSON")])?;
    let declared = Declared::of(fragments, &model.namespace);
    let mut routes = Routes::default();
    let mut problems = Vec::new();
    let mut taken: BTreeMap<(String, String), String> = BTreeMap::new();
    for annotated in annotations(model, fragments) {
        match route(model, schema, &actions, &mut slicer, &declared, &annotated) {
            Ok(route) => {
                let shape = (route.method.to_string(), numbered(&route.template));
                if let Some(other) = taken.insert(shape, annotated.name.clone()) {
                    problems.push(annotated.problem(
                        format!("the actions {other} and {} have the same method and path", annotated.name),
                        "give one of them another path or method",
                    ));
                    continue;
                }
                let tree = routes.by_method.entry(route.method.clone()).or_default();
                match tree.insert(numbered(&route.template), routes.all.len()) {
                    Ok(()) => routes.all.push(Route { index: routes.all.len(), ..route }),
                    Err(error) => {
                        problems.push(annotated.problem(
                            format!("the path cannot be told from another one: {error}"),
                            "give it another path",
                        ));
                    }
                }
            }
            Err(found) => problems.extend(found),
        }
    }
    // What several actions have in common is told once, at the first of them.
    let mut told = HashSet::new();
    problems.sort_by_key(|problem| problem.line);
    problems.retain(|problem| told.insert(problem.message.clone()));
    if routes.all.is_empty() && problems.is_empty() {
        problems.push(Problem::in_file("schemas", "no action has an @http annotation, so there is no route"));
    }
    if problems.is_empty() { Ok(routes) } else { Err(problems) }
}

fn annotations<'a>(model: &Model, fragments: &'a [Fragment<'_>]) -> Vec<Annotated<'a>> {
    let mut found = Vec::new();
    for (file, text, fragment) in fragments {
        let json = fragment.clone().to_json_value().unwrap_or_default();
        let actions = json
            .get(&model.namespace)
            .and_then(|namespace| namespace.get("actions"))
            .and_then(|actions| actions.as_object());
        for (name, action) in actions.into_iter().flatten() {
            let value = action.pointer("/annotations/http").and_then(|value| value.as_str());
            let uid = format!("{}::Action", model.namespace).parse::<EntityTypeName>();
            if let (Some(value), Ok(of_type)) = (value, uid) {
                found.push(Annotated {
                    file,
                    text,
                    action: EntityUid::from_type_name_and_id(of_type, EntityId::new(name)),
                    name: name.clone(),
                    value: value.to_owned(),
                });
            }
        }
    }
    found
}

fn route(
    model: &Model,
    schema: &Schema,
    actions: &Entities,
    slicer: &mut Slicer<'_>,
    declared: &Declared,
    annotated: &Annotated<'_>,
) -> Result<Route, Vec<Problem>> {
    let help = "write it as @http(\"GET /v1/things/{id}\"), the path in its normal form";
    let one = |message: String| vec![annotated.problem(message, help)];
    let (method, template, parameters) = request_line(&annotated.value).map_err(one)?;
    let resources: Vec<_> = schema.resources_for_action(&annotated.action).into_iter().flatten().collect();
    // A parameter that nothing looks at would be a permission that nobody checks: its name has to say so.
    let named: Vec<(usize, &str)> = (0..).zip(parameters).filter(|(_, name)| !name.starts_with('_')).collect();
    let unused = |name: &str| {
        vec![annotated.problem(
            format!("the parameter {{{name}}} would not be looked at: whose it is, nobody would check"),
            &format!("write {{_{name}}} to say that the API checks it by itself"),
        )]
    };
    let (target, item_parameter) = match (resources.as_slice(), named.as_slice()) {
        ([resource], []) if **resource == model.environment => (Target::Environment, None),
        ([resource], [(_, name), ..]) if **resource == model.environment => return Err(unused(name)),
        ([resource], [(at, _)]) => (Target::Item((*resource).clone()), Some(*at)),
        ([_], []) => {
            return Err(one("the action is about an item, and the path has no parameter that names one".into()));
        }
        ([_], [(_, name), ..]) => return Err(unused(name)),
        (all, _) => {
            return Err(vec![annotated.problem(
                format!("the action applies to {} resource types, and a route needs exactly one", all.len()),
                "make it two actions with a path each",
            )]);
        }
    };
    if let Target::Item(item) = &target {
        model.item_fits(item, schema, declared).map_err(|error| {
            vec![annotated.problem(
                format!("an item of type {item} cannot be built: {error}"),
                "declare it as `entity Thing in [Environment];`, without required attributes",
            )]
        })?;
    }
    context_fits(&annotated.action, schema, declared).map_err(|why| {
        vec![annotated.problem(
            format!("the action's context is not what calls are described with: {why}"),
            "use `type Call = { secure: Bool, method: String, path: String, ip?: ipaddr, time: datetime };`",
        )]
    })?;
    let resource = match &target {
        Target::Environment => &model.environment,
        Target::Item(item) => item,
    };
    let mut slices = HashMap::new();
    for principal in schema.principals_for_action(&annotated.action).into_iter().flatten() {
        let Some(kind) = model.principal_kind(principal) else {
            return Err(vec![annotated.problem(
                format!("the action applies to principals of type {principal}, which never call"),
                "leave the type out of the action's principals",
            )]);
        };
        let applies = Applies { action: &annotated.action, principal, resource };
        slices.insert(kind, slicer.slice(&applies).ok_or_else(|| one("its policies cannot be put together".into()))?);
    }
    let groups = actions.ancestors(&annotated.action).into_iter().flatten();
    let action_entities =
        std::iter::once(&annotated.action).chain(groups).filter_map(|uid| actions.get(uid).cloned()).collect();
    Ok(Route {
        method: method.into(),
        template: template.into(),
        item_parameter,
        action: annotated.action.clone(),
        action_name: annotated.name.as_str().into(),
        target,
        action_entities,
        index: 0,
        slices,
    })
}

/// Method, template and the names of its parameters; or what is wrong with them.
pub(super) fn request_line(text: &str) -> Result<(&str, &str, Vec<&str>), String> {
    let (method, template) = text.split_once(' ').ok_or_else(|| format!("{text:?} is no method and path"))?;
    let is_method =
        (1..=20).contains(&method.len()) && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    if !is_method {
        return Err(format!("{method:?} is no method in upper case"));
    }
    let parameters = parameters(template).map_err(|what| format!("the path {template:?} {what}"))?;
    Ok((method, template, parameters))
}

/// The names of a template's parameters.
fn parameters(template: &str) -> Result<Vec<&str>, &'static str> {
    if !template.starts_with('/') {
        return Err("does not begin with a slash");
    }
    let mut names = Vec::new();
    for segment in template.split('/').skip(1) {
        let plain = segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,=:@".contains(&byte));
        match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => {
                let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                if !is_name || names.contains(&name) {
                    return Err("has a parameter without a name of its own, in letters, digits and `_`");
                }
                names.push(name);
            }
            None if segment == "." || segment == ".." => return Err("has a dot segment, which no call can reach"),
            None if segment.is_empty() && template != "/" => {
                return Err("has an empty segment, which no call can reach");
            }
            None if !plain => return Err("has characters other than letters, digits and -._~!$&'()+,=:@"),
            None => {}
        }
    }
    Ok(names)
}

/// A template with its parameters named by their order, so that two paths may name the same place differently.
pub(super) fn numbered(template: &str) -> String {
    let mut count = 0;
    let numbered = template.split('/').map(|segment| {
        if !segment.starts_with('{') {
            return segment.to_owned();
        }
        count += 1;
        format!("{{p{count}}}")
    });
    numbered.collect::<Vec<_>>().join("/")
}
