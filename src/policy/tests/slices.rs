//! A slice answers exactly as the whole policy set does, with no more of the context than it says it reads.

use std::collections::{BTreeSet, HashSet};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, Policy, PolicyId, PolicySet, Request,
    RestrictedExpression, Schema, SchemaFragment,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::key::Kind;
use crate::policy::routes::{self, Routes};
use crate::policy::{ContextUse, Model, PrincipalKind, Route, Slice, Target};

const PRINCIPALS: [&str; 14] = [
    "principal",
    "principal",
    "principal is DocsApi::Anonymous",
    "principal is DocsApi::PublishableKey",
    "principal is DocsApi::SecretKey",
    "principal is DocsApi::RestrictedKey",
    "principal == DocsApi::Anonymous::\"anonymous\"",
    "principal == DocsApi::SecretKey::\"k\"",
    "principal == DocsApi::RestrictedKey::\"other\"",
    "principal in DocsApi::Environment::\"e1\"",
    "principal in DocsApi::Account::\"a1\"",
    "principal in DocsApi::Scope::\"resources:read\"",
    "principal in DocsApi::RestrictedKey::\"k\"",
    "principal is DocsApi::RestrictedKey in DocsApi::Environment::\"e2\"",
];

const ACTIONS: [&str; 9] = [
    "action",
    "action",
    "action == DocsApi::Action::\"listResources\"",
    "action == DocsApi::Action::\"resources:read\"",
    "action in DocsApi::Action::\"resources:read\"",
    "action in DocsApi::Action::\"cancelJob\"",
    "action in []",
    "action in [DocsApi::Action::\"webhooks:write\", DocsApi::Action::\"listJobs\"]",
    "action in [DocsApi::Action::\"resources:write\"]",
];

const RESOURCES: [&str; 10] = [
    "resource",
    "resource",
    "resource is DocsApi::Environment",
    "resource is DocsApi::Resource",
    "resource == DocsApi::Job::\"i1\"",
    "resource == DocsApi::Environment::\"e1\"",
    "resource in DocsApi::Environment::\"e1\"",
    "resource in DocsApi::Account::\"a1\"",
    "resource in DocsApi::Webhook::\"i1\"",
    "resource is DocsApi::Resource in DocsApi::Environment::\"e2\"",
];

/// Some of them fail to evaluate for some calls: a failure must be the slice's, too.
const CONDITIONS: [&str; 16] = [
    "when { true }",
    "unless { context.secure }",
    "when { context.method == \"GET\" }",
    "when { context has path && context.path like \"/v1/*\" }",
    "when { context.ip.isInRange(ip(\"192.0.2.0/24\")) }",
    "unless { context has ip && context.ip.isLoopback() }",
    "when { context[\"time\"] < datetime(\"2026-06-01\") }",
    "when { (if context.secure then context else {secure: true, method: \"x\"}).method == \"x\" }",
    "when { context == {secure: true} }",
    "when { context.tenant == \"t\" }",
    "when { resource in principal.environment }",
    "when { principal.environment.mode == \"live\" }",
    "when { resource == DocsApi::Resource::\"i1\" }",
    "when { [DocsApi::Job::\"i2\"].contains(resource) }",
    "when { action in DocsApi::Action::\"jobs:write\" }",
    "when { principal in DocsApi::Scope::\"jobs:write\" || 9223372036854775807 + 1 > 0 }",
];

fn policies() -> impl Strategy<Value = Vec<String>> {
    let conditions = proptest::collection::vec(select(&CONDITIONS[..]), 0..3).prop_map(|all| all.join(" "));
    let effect = select(&["permit", "permit", "forbid"][..]);
    let one = (effect, select(&PRINCIPALS[..]), select(&ACTIONS[..]), select(&RESOURCES[..]), conditions).prop_map(
        |(effect, principal, action, resource, conditions)| {
            format!("{effect} ({principal}, {action}, {resource}) {conditions};")
        },
    );
    proptest::collection::vec(one, 1..12)
}

#[derive(Debug, Clone)]
struct Call {
    principal: PrincipalKind,
    scopes: Vec<&'static str>,
    route: prop::sample::Index,
    item: &'static str,
    environments: (&'static str, &'static str),
    secure: bool,
    address: Option<&'static str>,
    time: &'static str,
}

fn calls() -> impl Strategy<Value = Call> {
    let scopes = subsequence(vec!["resources:read", "jobs:write"], 0..=2);
    let environment = || select(&["e1", "e2"][..]);
    let address = proptest::option::of(select(&["192.0.2.7", "127.0.0.1"][..]));
    let time = select(&["2026-01-01T00:00:00Z", "2026-12-01T00:00:00Z"][..]);
    (
        (select(&PrincipalKind::ALL[..]), scopes, any::<prop::sample::Index>(), select(&["i1", "i2"][..])),
        (environment(), environment(), any::<bool>(), address, time),
    )
        .prop_map(|((principal, scopes, route, item), (own, theirs, secure, address, time))| Call {
            principal,
            scopes,
            route,
            item,
            environments: (own, theirs),
            secure,
            address,
            time,
        })
}

fn uid(of_type: &str, id: &str) -> EntityUid {
    format!("DocsApi::{of_type}::{id:?}").parse().unwrap()
}

impl Call {
    fn entities(&self, route: &Route) -> (EntityUid, EntityUid, Entities) {
        let (own, theirs) = self.environments;
        let environment = |name: &str| {
            let mode = RestrictedExpression::new_string(if name == "e1" { "live" } else { "test" }.into());
            let attributes = [("mode".to_owned(), mode)].into();
            Entity::new(uid("Environment", name), attributes, HashSet::from([uid("Account", "a1")])).unwrap()
        };
        let mut all = route.action_entities.clone();
        all.extend([Entity::with_uid(uid("Account", "a1")), environment("e1"), environment("e2")]);
        let key = |of_type| {
            let parents = std::iter::once(uid("Environment", own));
            // Only restricted keys have scopes; the schema says so, too.
            let held = if of_type == "RestrictedKey" { &*self.scopes } else { &[] };
            let scopes = held.iter().map(|scope| uid("Scope", scope));
            let own = RestrictedExpression::new_entity_uid(uid("Environment", own));
            let attributes = [("environment".to_owned(), own)].into();
            Entity::new(uid(of_type, "k"), attributes, parents.chain(scopes).collect()).unwrap()
        };
        let principal = match self.principal {
            PrincipalKind::Anonymous => Entity::with_uid(uid("Anonymous", "anonymous")),
            PrincipalKind::Key(Kind::Publishable) => key("PublishableKey"),
            PrincipalKind::Key(Kind::Secret) => key("SecretKey"),
            PrincipalKind::Key(Kind::Restricted) => key("RestrictedKey"),
        };
        let resource = match &route.target {
            Target::Environment => uid("Environment", theirs),
            Target::Item(item) => {
                let item = uid(item.basename(), self.item);
                all.push(Entity::new_no_attrs(item.clone(), HashSet::from([uid("Environment", theirs)])));
                item
            }
        };
        let principal_uid = principal.uid();
        all.push(principal);
        (principal_uid, resource, Entities::from_entities(all, None).unwrap())
    }

    /// The context, with no more than `reads` names.
    fn context(&self, route: &Route, reads: ContextUse) -> Context {
        let string = |text: &str| RestrictedExpression::new_string(text.into());
        let attributes = [
            ("secure", reads.secure.then(|| RestrictedExpression::new_bool(self.secure))),
            ("method", reads.method.then(|| string(&route.method))),
            ("path", reads.path.then(|| string(&route.template))),
            ("ip", self.address.filter(|_| reads.ip).map(RestrictedExpression::new_ip)),
            ("time", reads.time.then(|| RestrictedExpression::new_datetime(self.time))),
        ];
        let given = attributes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Context::from_pairs(given).unwrap()
    }

    fn decided(&self, route: &Route, policies: &PolicySet, reads: ContextUse) -> Decided {
        let (principal, resource, entities) = self.entities(route);
        let context = self.context(route, reads);
        let request = Request::new(principal, route.action.clone(), resource, context, None).unwrap();
        let response = Authorizer::new().is_authorized(&request, policies, &entities);
        let reasons = response.diagnostics().reason().map(ToString::to_string).collect();
        let errors = response.diagnostics().errors().map(ToString::to_string).collect();
        (response.decision(), reasons, errors)
    }
}

type Decided = (Decision, BTreeSet<String>, BTreeSet<String>);

const ALL: ContextUse = ContextUse { secure: true, method: true, path: true, ip: true, time: true };

/// Routes over policies that need not be valid, so that some of them fail to evaluate.
fn routes_of(texts: &[String]) -> (Routes, PolicySet) {
    let bundle = shipped();
    let (file, text) = bundle.schemas().next().unwrap();
    let (fragment, _) = SchemaFragment::from_cedarschema_str(text).unwrap();
    let schema = Schema::from_schema_fragments([fragment.clone()]).unwrap();
    let model = Model::of(&schema, &[(file, text, fragment.clone())]).unwrap();
    let mut set = PolicySet::new();
    for (at, text) in texts.iter().enumerate() {
        set.add(Policy::parse(Some(PolicyId::new(format!("p{at}"))), text).unwrap()).unwrap();
    }
    (routes::build(&model, &schema, &[(file, text, fragment)], &set).unwrap(), set)
}

fn pick<'a>(routes: &'a Routes, call: &Call) -> (&'a Route, &'a Slice) {
    let route = call.route.get(&routes.iter().collect::<Vec<_>>()).to_owned();
    (route, route.slice(call.principal).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_slice_decides_as_the_whole_set_does(texts in policies(), calls in proptest::collection::vec(calls(), 24)) {
        let (routes, set) = routes_of(&texts);
        for call in calls {
            let (route, slice) = pick(&routes, &call);
            let whole = call.decided(route, &set, ALL);
            prop_assert_eq!(&call.decided(route, &slice.policies, slice.reads_context), &whole, "{:?}", call);
            prop_assert!(slice.can_permit || whole.0 == Decision::Deny, "{:?}", call);
        }
    }

    #[test]
    fn a_steady_slice_decides_alike_for_every_item_of_an_environment_and_at_all_times(
        texts in policies(),
        calls in proptest::collection::vec((calls(), calls()), 24),
    ) {
        let (routes, _) = routes_of(&texts);
        for (call, other) in calls {
            let (route, slice) = pick(&routes, &call);
            let other = Call { item: other.item, address: other.address, time: other.time, ..call.clone() };
            let decided = |call: &Call| {
                let (decision, reasons, errors) = call.decided(route, &slice.policies, ALL);
                // An error's words may name the item.
                (decision, reasons, errors.len())
            };
            prop_assert!(!slice.is_steady || decided(&call) == decided(&other), "{call:?} {other:?}");
        }
    }
}

#[test]
fn a_slice_leaves_out_what_cannot_match() {
    let revision = Revision::build(&shipped()).unwrap();
    let found = revision.find_route("GET", "/v1/resources").unwrap();
    let cases: [(PrincipalKind, &[&str]); 4] = [
        (PrincipalKind::Anonymous, &["guarantee-https-only"]),
        (
            PrincipalKind::Key(Kind::Publishable),
            &[
                "guarantee-https-only",
                "guarantee-publishable-never-writes",
                "guarantee-publishable-stays-in-its-environment",
                "publishable-reads",
            ],
        ),
        (
            PrincipalKind::Key(Kind::Secret),
            &["guarantee-https-only", "guarantee-secret-stays-in-its-environment", "secret-full-access"],
        ),
        (
            PrincipalKind::Key(Kind::Restricted),
            &["guarantee-https-only", "guarantee-restricted-stays-in-its-environment", "scope-resources-read"],
        ),
    ];
    for (kind, expected) in cases {
        let slice = found.route.slice(kind).unwrap();
        let mut names: Vec<_> = slice.policies.policies().map(|policy| policy.id().to_string()).collect();
        names.sort();
        assert_eq!(names, expected);
        // The shipped policies read nothing but `secure`, so that what they say can be remembered.
        assert_eq!((slice.is_steady, slice.can_permit), (true, kind != PrincipalKind::Anonymous));
    }
}
