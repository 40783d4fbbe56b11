//! What the daemon needs of a schema, and the names under which the schema has it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::str::FromStr;

use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression, Schema};

use super::Problem;
use super::declared::Declared;
use super::management;
use super::revision::{Fragment, mentioned};
use crate::key::Kind;

/// Who calls, as far as the schema's `appliesTo` tells callers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// A call without credentials.
    Anonymous,
    /// A key of this kind.
    Key(Kind),
}

impl PrincipalKind {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Anonymous, Self::Key(Kind::Publishable), Self::Key(Kind::Secret), Self::Key(Kind::Restricted)];
}

/// The schema's names for what the daemon knows.
#[derive(Debug, Clone)]
pub struct Model {
    /// The one namespace that describes the API.
    pub namespace: String,
    /// Whose keys they are.
    pub account: EntityTypeName,
    /// Live or test.
    pub environment: EntityTypeName,
    /// The one caller without credentials.
    pub anonymous_uid: EntityUid,
    /// What restricted keys are granted.
    pub scope: EntityTypeName,
    /// The names of all scopes, sorted.
    pub scopes: Vec<Box<str>>,
    publishable: EntityTypeName,
    secret: EntityTypeName,
    restricted: EntityTypeName,
}

impl Model {
    /// The entity type of keys of this kind.
    pub fn key_type(&self, kind: Kind) -> &EntityTypeName {
        match kind {
            Kind::Publishable => &self.publishable,
            Kind::Secret => &self.secret,
            Kind::Restricted => &self.restricted,
        }
    }

    /// The entity type of such callers.
    pub fn principal_type(&self, kind: PrincipalKind) -> &EntityTypeName {
        match kind {
            PrincipalKind::Anonymous => self.anonymous_uid.type_name(),
            PrincipalKind::Key(kind) => self.key_type(kind),
        }
    }

    /// The kind of caller that this entity type stands for.
    pub fn principal_kind(&self, of_type: &EntityTypeName) -> Option<PrincipalKind> {
        PrincipalKind::ALL.into_iter().find(|kind| self.principal_type(*kind) == of_type)
    }

    /// Finds the API's namespace and everything that the daemon needs in it.
    ///
    /// # Errors
    /// One problem for each entity type, attribute, membership or action group that is missing.
    pub(super) fn of(schema: &Schema, fragments: &[Fragment<'_>]) -> Result<Self, Vec<Problem>> {
        let namespace = api_namespace(fragments)?;
        // Where it would be mended: the declaration that does not fit, else the namespace that lacks it.
        let problem = |word: &str, what: String, help: &str| {
            let what = format!("namespace {namespace}: {what}");
            let place = mentioned(fragments, "entity", word).or_else(|| mentioned(fragments, "namespace", &namespace));
            match place {
                Some((file, text, span)) => Problem::at(file, text, span, what, help),
                None => Problem { help: Some(help.to_owned()), ..Problem::in_file("schemas", what) },
            }
        };
        let missing = |what: String, add: &str| problem(&namespace, what, &format!("add `{add}`"));
        let name = |word: &str| EntityTypeName::from_str(&format!("{namespace}::{word}")).ok();
        let known: HashSet<&EntityTypeName> = schema.entity_types().collect();
        let mut problems: Vec<Problem> = DECLARATIONS
            .iter()
            .filter(|(word, _)| name(word).is_none_or(|name| !known.contains(&name)))
            .map(|(word, declaration)| missing(format!("the entity type {word} is missing"), declaration))
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let named =
            |word: &str| name(word).ok_or_else(|| vec![missing(format!("{word} is no name of an entity type"), word)]);
        let declared = Declared::of(fragments, &namespace);
        let mut scopes: Vec<Box<str>> = declared.names("Scope").into_iter().map(Into::into).collect();
        scopes.sort();
        let model = Self {
            account: named("Account")?,
            environment: named("Environment")?,
            anonymous_uid: EntityUid::from_type_name_and_id(named("Anonymous")?, EntityId::new("anonymous")),
            scope: named("Scope")?,
            publishable: named("PublishableKey")?,
            secret: named("SecretKey")?,
            restricted: named("RestrictedKey")?,
            scopes,
            namespace: namespace.clone(),
        };
        if model.scopes.is_empty() {
            problems.push(problem(
                "Scope",
                "the entity type Scope names no scopes".into(),
                "declare it as `entity Scope enum [\"resources:read\"];`",
            ));
        }
        let groups: HashSet<&EntityUid> = schema.actions().collect();
        for scope in &model.scopes {
            let group = EntityUid::from_str(&format!("{namespace}::Action::{scope:?}"));
            if !group.is_ok_and(|group| groups.contains(&group)) {
                let what = format!("the scope {scope:?} has no action group of the same name");
                problems.push(problem(&format!("{scope:?}"), what, &format!("add `action {scope:?};`")));
            }
        }
        for (word, entity) in model.samples() {
            let fits = entity.and_then(|entity| validated(entity, schema));
            if let Err(error) = fits.and_then(|()| model.is_filled(word, schema, &declared)) {
                let declaration =
                    DECLARATIONS.iter().find(|(name, _)| *name == word).map_or("", |(_, declaration)| declaration);
                let what = format!("the entity type {word} does not fit: {error}");
                problems.push(problem(word, what, &format!("declare it as `{declaration}`")));
            }
        }
        if problems.is_empty() { Ok(model) } else { Err(problems) }
    }

    /// One entity of each type, as the daemon will build them.
    fn samples(&self) -> Vec<(&'static str, Result<Entity, String>)> {
        let uid =
            |of_type: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(of_type.clone(), EntityId::new(id));
        let account = uid(&self.account, "acct");
        let environment = uid(&self.environment, "acct/live");
        let scope = self.scopes.first().map(|scope| uid(&self.scope, scope));
        let build = |uid, attributes: Vec<(&str, RestrictedExpression)>, parents: Vec<EntityUid>| {
            let attributes: HashMap<_, _> =
                attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            Entity::new(uid, attributes, parents.into_iter().collect()).map_err(|error| error.to_string())
        };
        let key = |of_type, scope: Option<EntityUid>| {
            let parents = std::iter::once(environment.clone()).chain(scope).collect();
            build(
                uid(of_type, "key"),
                vec![("environment", RestrictedExpression::new_entity_uid(environment.clone()))],
                parents,
            )
        };
        vec![
            ("Account", build(account.clone(), vec![], vec![])),
            (
                "Environment",
                build(
                    environment.clone(),
                    vec![("mode", RestrictedExpression::new_string("live".into()))],
                    vec![account],
                ),
            ),
            ("Anonymous", build(self.anonymous_uid.clone(), vec![], vec![])),
            ("PublishableKey", key(&self.publishable, None)),
            ("SecretKey", key(&self.secret, None)),
            ("RestrictedKey", key(&self.restricted, scope)),
        ]
    }

    /// Whether an entity type has only what the daemon fills in: anything more, a policy would wait for in vain.
    fn is_filled(&self, word: &str, schema: &Schema, declared: &Declared) -> Result<(), String> {
        let attributes: &[&str] = match word {
            "Environment" => &["mode"],
            "PublishableKey" | "SecretKey" | "RestrictedKey" => &["environment"],
            _ => &[],
        };
        let of_type =
            EntityTypeName::from_str(&format!("{}::{word}", self.namespace)).map_err(|error| chain(&error))?;
        let is_filled = |ancestor: &EntityTypeName| {
            *ancestor == self.account
                || (*ancestor == self.environment && word != "Environment")
                || (*ancestor == self.scope && word == "RestrictedKey")
        };
        let mut ancestors = schema.ancestors(&of_type).into_iter().flatten();
        if let Some(other) = ancestors.find(|ancestor| !is_filled(ancestor)) {
            return Err(format!(
                "it may be in {other}, into which nothing is ever put, so that policies about it are in vain"
            ));
        }
        match declared.unknown_attribute(word, attributes) {
            Ok(None) => Ok(()),
            Ok(Some(name)) => {
                Err(format!("its attribute `{name}` is never filled in, so that policies about it are in vain"))
            }
            Err(()) => Err("its attributes are written as something else than a record".into()),
        }
    }

    /// Whether items of this type can be built as they are: in an environment, without attributes.
    pub(super) fn item_fits(&self, item: &EntityTypeName, schema: &Schema, declared: &Declared) -> Result<(), String> {
        let uid = EntityUid::from_type_name_and_id(item.clone(), EntityId::new("item"));
        let environment = EntityUid::from_type_name_and_id(self.environment.clone(), EntityId::new("acct/live"));
        validated(Entity::new_no_attrs(uid, HashSet::from([environment])), schema)?;
        self.is_filled(item.basename(), schema, declared)
    }
}

/// What the schema must declare, as it would be written.
pub(super) const DECLARATIONS: [(&str, &str); 7] = [
    ("Account", "entity Account;"),
    ("Environment", "entity Environment in [Account] { mode: String };"),
    ("Anonymous", "entity Anonymous enum [\"anonymous\"];"),
    ("Scope", "entity Scope enum [\"resources:read\"];"),
    ("PublishableKey", "entity PublishableKey in [Environment] { environment: Environment };"),
    ("SecretKey", "entity SecretKey in [Environment] { environment: Environment };"),
    ("RestrictedKey", "entity RestrictedKey in [Environment, Scope] { environment: Environment };"),
];

fn validated(entity: Entity, schema: &Schema) -> Result<(), String> {
    Entities::from_entities([entity], Some(schema)).map(drop).map_err(|error| chain(&error))
}

/// Whether a route's action takes the context that the daemon builds, with and without an address, and no more.
///
/// # Errors
/// What does not fit.
pub(super) fn context_fits(action: &EntityUid, schema: &Schema, declared: &Declared) -> Result<(), String> {
    let always = || {
        vec![
            ("secure".to_owned(), RestrictedExpression::new_bool(true)),
            ("method".to_owned(), RestrictedExpression::new_string("GET".into())),
            ("path".to_owned(), RestrictedExpression::new_string("/".into())),
            ("time".to_owned(), RestrictedExpression::new_datetime("2026-01-01T00:00:00.000Z")),
        ]
    };
    let with_address =
        always().into_iter().chain([("ip".to_owned(), RestrictedExpression::new_ip("192.0.2.1"))]).collect();
    for pairs in [always(), with_address] {
        // Cedar's words name the action, and what is common to all is told once.
        if !Context::from_pairs(pairs).is_ok_and(|context| context.validate(schema, action).is_ok()) {
            return Err("a member is missing, or of another type".into());
        }
    }
    let known = ["secure", "method", "path", "time", "ip"];
    match declared.unknown_in_context(action.id().unescaped(), &known) {
        Ok(None) => Ok(()),
        Ok(Some(member)) => Err(format!("no call has `{member}`")),
        Err(()) => Err("its type cannot be found".into()),
    }
}

/// An error with its causes, which is where Cedar names the attribute.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn api_namespace(fragments: &[Fragment<'_>]) -> Result<String, Vec<Problem>> {
    let namespaces: BTreeSet<String> = fragments
        .iter()
        .flat_map(|(_, _, fragment)| fragment.namespaces().flatten())
        .map(|namespace| namespace.to_string())
        .collect();
    let at = |name: &str, what: String, help: &str| match mentioned(fragments, "namespace", name) {
        Some((file, text, span)) => Problem::at(file, text, span, what, help),
        None => Problem::general(what, help),
    };
    if namespaces.contains(management::NAMESPACE) {
        return Err(vec![at(
            management::NAMESPACE,
            format!("the namespace {} is Keyward's own, which the program brings", management::NAMESPACE),
            "write the API in a namespace of another name",
        )]);
    }
    let mut names = namespaces.into_iter();
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name),
        (None, _) => Err(vec![Problem::general(
            "the schema has no namespace for the API".into(),
            "write the API's entity types and actions within `namespace MyApi { … }`",
        )]),
        (Some(first), Some(second)) => Err(vec![at(
            &second,
            format!("the schema has several namespaces, {first} and {second} among them, and one is taken as the API"),
            "put the whole API into one namespace",
        )]),
    }
}
