//! The other half of a revision: who may manage what, over Keyward's own API.
//!
//! Its schema is the program's own and not to be edited, because the program is what it describes; its policies are the
//! security team's, in `policies/management.cedar` and `policies/management/`. The two halves have a schema each, so
//! that no policy about the API can lock operators out, and none about operators lets a call through.

use std::collections::{HashMap, HashSet};

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, Policy, PolicySet, Schema, SchemaFragment};

use super::Problem;

/// Its namespace, which no schema file may declare.
pub const NAMESPACE: &str = "Keyward";
/// Where a copy of its schema lies, for people to read.
pub const SCHEMA_FILE: &str = "schemas/keyward.cedarschema";
/// Its schema.
pub const SCHEMA: &str = include_str!("../../schemas/keyward.cedarschema");

/// Whether a policy file is about management.
pub(super) fn is_about(file: &str) -> bool {
    file == "policies/management.cedar" || file.starts_with("policies/management/")
}

/// An operation of Keyward's own API.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its name, for example `rotateKey`.
    pub name: Box<str>,
    /// The Cedar action.
    pub action: EntityUid,
    /// The action and its groups, to go into every entity set.
    pub action_entities: Vec<Entity>,
    /// The types of what it may be about, without namespace: `System`, `Account` and so on.
    pub about: Vec<Box<str>>,
}

/// Policies about management, checked, and the operations that they are about.
#[derive(Debug, Clone)]
pub struct Management {
    schema: Schema,
    policies: PolicySet,
    /// By method and path template, as the `@http` annotation has them.
    operations: HashMap<Box<str>, Operation>,
}

impl Management {
    /// The program's schema for it.
    ///
    /// # Errors
    /// None with the schema that is shipped: a test builds it.
    pub(super) fn schema() -> Result<Schema, Vec<Problem>> {
        let broken = |error: String| vec![Problem::in_file(SCHEMA_FILE, error)];
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| broken(error.to_string()))?;
        Ok(schema)
    }

    /// Puts the operations of the schema together with policies that were validated against it.
    ///
    /// # Errors
    /// None with the schema that is shipped.
    pub(super) fn new(schema: Schema, policies: PolicySet) -> Result<Self, Vec<Problem>> {
        let broken = |error: String| vec![Problem::in_file(SCHEMA_FILE, error)];
        let all = schema.action_entities().map_err(|error| broken(error.to_string()))?;
        let (fragment, _) = SchemaFragment::from_cedarschema_str(SCHEMA).map_err(|error| broken(error.to_string()))?;
        let json = fragment.to_json_value().map_err(|error| broken(error.to_string()))?;
        let of_type: EntityTypeName =
            format!("{NAMESPACE}::Action").parse().map_err(|_| broken("the namespace is no name".into()))?;
        let actions = json.pointer(&format!("/{NAMESPACE}/actions")).and_then(|actions| actions.as_object());
        let mut operations = HashMap::new();
        for (name, action) in actions.into_iter().flatten() {
            let Some(route) = action.pointer("/annotations/http").and_then(|value| value.as_str()) else { continue };
            let uid = EntityUid::from_type_name_and_id(of_type.clone(), EntityId::new(name));
            let groups = all.ancestors(&uid).into_iter().flatten();
            let action_entities = std::iter::once(&uid).chain(groups).filter_map(|uid| all.get(uid).cloned()).collect();
            let about =
                schema.resources_for_action(&uid).into_iter().flatten().map(|of_type| of_type.basename().into());
            let about = about.collect();
            operations
                .insert(route.into(), Operation { name: name.as_str().into(), action: uid, action_entities, about });
        }
        Ok(Self { schema, policies, operations })
    }

    /// The ids of the accounts that policies name. To the policies, two others in which a caller has the same role are one.
    pub fn named_accounts(&self) -> HashSet<Box<str>> {
        let named = self.policies.policies().flat_map(Policy::entity_literals);
        let accounts = named.filter(|uid| uid.type_name().basename() == "Account");
        accounts.map(|uid| uid.id().unescaped().into()).collect()
    }

    /// The operation at a method and a path template, such as `GET` and `/v1/keys/{key}`.
    pub fn operation(&self, method: &str, template: &str) -> Option<&Operation> {
        self.operations.get(format!("{method} {template}").as_str())
    }

    /// Every operation, with its method and path template, in no order.
    pub fn operations(&self) -> impl Iterator<Item = (&str, &Operation)> {
        self.operations.iter().map(|(route, operation)| (&**route, operation))
    }

    /// An operation by its name.
    pub fn named(&self, name: &str) -> Option<&Operation> {
        self.operations.values().find(|operation| &*operation.name == name)
    }

    /// Its schema.
    pub fn of_schema(&self) -> &Schema {
        &self.schema
    }

    /// Whether the schema lets a principal of this type do an operation to a resource of that type, both without namespace.
    pub fn lets(&self, operation: &Operation, principal: &str, resource: &str) -> bool {
        let principals = self.schema.principals_for_action(&operation.action);
        let resources = self.schema.resources_for_action(&operation.action);
        principals.is_some_and(|mut types| types.any(|of_type| of_type.basename() == principal))
            && resources.is_some_and(|mut types| types.any(|of_type| of_type.basename() == resource))
    }

    /// The policies.
    pub fn policies(&self) -> &PolicySet {
        &self.policies
    }
}
