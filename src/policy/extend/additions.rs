//! The texts that a new scope adds.

use super::names::Shape;
use super::{ExtendError, Plan, Planned};
use crate::policy::{Revision, filled, format, stand_in};

/// Who may be asked about and what is known of a call, as the shipped schema has it.
const SHIPPED: Signature<'_> =
    Signature { callers: "[Anonymous, PublishableKey, SecretKey, RestrictedKey]", context: "Call" };

/// What routes have in common: the text of their `principal` and `context`.
#[derive(Clone, Copy)]
pub(super) struct Signature<'a> {
    pub callers: &'a str,
    pub context: &'a str,
}

/// What is added, text by text; nothing is indented, and every text is lines.
pub(super) struct Additions {
    /// `entity Invoice in [Environment];`, each a line.
    pub types: Vec<String>,
    pub policy: String,
    pub examples: String,
}

impl Additions {
    pub fn of(plan: &Plan<'_>, revision: &Revision, other: &str) -> Result<Self, ExtendError> {
        let namespace = &revision.model().namespace;
        let quoted = &plan.quoted;
        let id = format!("scope-{}", plan.scope.replace([':', '/', '.', '_'], "-"));
        let policy = format!(
            "@id(\"{id}\") permit (principal in {namespace}::Scope::{quoted}, action in {namespace}::Action::{quoted}, resource) when {{ resource in principal.environment }};"
        );
        let policy = format("", &policy).map_err(|rejection| ExtendError::Asked(rejection.to_string()))?;
        let types = plan.new_types.iter().map(|of_type| format!("entity {of_type} in [Environment];")).collect();
        Ok(Self { types, policy, examples: examples(plan, revision, &id, other) })
    }

    /// All of it, with where it goes, for people to put it there.
    pub fn by_hand(&self, plan: &Plan<'_>) -> String {
        let quoted = &plan.quoted;
        let mut schema =
            vec![format!("  - {quoted} to the names of `entity Scope enum […]`"), format!("  - `action {quoted};`")];
        let moved =
            |route: &Planned<'_>| format!("  - {quoted} to the groups that `action {} in […]` is in", route.action);
        schema.extend(plan.moved().map(moved));
        schema.extend(self.types.iter().cloned());
        schema.extend(actions(plan, SHIPPED));
        let schema = schema.join("\n");
        format!("to the schema\n{schema}\n\nto the policies\n{}\nto policies/tests/\n{}", self.policy, self.examples)
    }
}

/// The declarations of the new routes' actions, line by line, under a heading.
pub(super) fn actions(plan: &Plan<'_>, signature: Signature<'_>) -> Vec<String> {
    let heading = plan.new_routes().find_map(|route| Some(format!("// {}", Shape::of(route.template)?.heading())));
    let Signature { callers, context } = signature;
    let declaration = |route: &Planned<'_>| {
        let Planned { method, template, action, resource, .. } = route;
        [
            format!("@http(\"{method} {template}\")"),
            format!("action {action} in [{}]", plan.quoted),
            format!("  appliesTo {{ principal: {callers}, resource: [{resource}], context: {context} }};"),
        ]
    };
    heading.into_iter().chain(plan.new_routes().flat_map(declaration)).collect()
}

/// Two examples: with the scope the call is allowed, with another one it is refused for the want of a scope.
fn examples(plan: &Plan<'_>, revision: &Revision, id: &str, other: &str) -> String {
    let scope = plan.scope;
    let Some(route) = plan.new_routes().chain(plan.moved()).next() else { return String::new() };
    let item = stand_in(&[revision], &format!("{}_1", route.resource.to_ascii_lowercase()));
    let path = filled(route.template, &item, &stand_in(&[revision], "any"));
    let request = format!("{} {path}", route.method);
    let example = |name: &str, held: &str, expected: &str| {
        format!(
            "[[test]]\nname = \"{name}\"\nkey = {{ kind = \"restricted\", mode = \"live\", scopes = [\"{held}\"] }}\nrequest = \"{request}\"\n{expected}"
        )
    };
    let grants =
        example(&format!("{scope} grants {request}"), scope, &format!("expect = \"allow\"\npolicies = [\"{id}\"]\n"));
    // Which scopes would help is not said: there may be one more, that grants everything.
    let refuses = example(
        &format!("{other} does not grant {request}"),
        other,
        "expect = \"forbidden\"\nreason = \"scope_missing\"\n",
    );
    format!("{grants}\n{refuses}")
}
