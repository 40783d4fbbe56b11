//! Cedar's own evaluation and ours agree: random policies, keys and calls, decided by [`authorize`] and by Cedar alone.
//!
//! Cedar is given the whole policy set, and entities, context and request that are made here from what the design says
//! of them, as JSON, with nothing of what decides real calls. The two may differ in one thing: where a policy fails to
//! evaluate, Cedar leaves it out, and we deny. `KEYWARD_DIFFERENTIAL_SETS` says of how many policy sets, with 50 calls each.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, Policy, PolicyId, PolicySet, Request, Schema,
    ValidationMode, Validator,
};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::*;
use crate::key::{Key, KeyId, Kind, Mint, Mode, NewKey, Phc, Scope, StoredSecret};
use crate::policy::Bundle;

/// Policy sets, when nothing else is said.
const SETS: u32 = 500;
/// Calls under each of them.
const CALLS: usize = 50;
/// Keys that make them.
const KEYS: usize = 4;

const SCHEMA: &str = include_str!("../../schemas/docs-api.cedarschema");
const SHIPPED: [&str; 2] =
    [include_str!("../../policies/docs-api.cedar"), include_str!("../../policies/guarantees/docs-api.cedar")];
const ACCOUNTS: [&str; 2] = ["acct_AAAAAAAAAAAAAAAA", "acct_BBBBBBBBBBBBBBBB"];
const SCOPES: [&str; 4] = ["jobs:write", "resources:read", "resources:write", "webhooks:write"];
/// Where things are; the last is where a call is that has no key and names no environment.
const ENVIRONMENTS: [&str; 5] = [
    "acct_AAAAAAAAAAAAAAAA/live",
    "acct_AAAAAAAAAAAAAAAA/test",
    "acct_BBBBBBBBBBBBBBBB/live",
    "acct_BBBBBBBBBBBBBBBB/test",
    "anonymous",
];

/// The routes: method, path, action, and the type of an item. A second reading of the schema.
const ROUTES: [(&str, &str, &str, Option<&str>); 14] = [
    ("GET", "/v1/resources", "listResources", None),
    ("GET", "/v1/resources/{}", "getResource", Some("Resource")),
    ("POST", "/v1/resources", "createResource", None),
    ("PATCH", "/v1/resources/{}", "updateResource", Some("Resource")),
    ("DELETE", "/v1/resources/{}", "deleteResource", Some("Resource")),
    ("POST", "/v1/jobs", "enqueueJob", None),
    ("POST", "/v1/jobs/{}/cancel", "cancelJob", Some("Job")),
    ("GET", "/v1/jobs", "listJobs", None),
    ("GET", "/v1/jobs/{}", "getJob", Some("Job")),
    ("POST", "/v1/webhooks", "createWebhook", None),
    ("GET", "/v1/webhooks", "listWebhooks", None),
    ("GET", "/v1/webhooks/{}", "getWebhook", Some("Webhook")),
    ("PATCH", "/v1/webhooks/{}", "updateWebhook", Some("Webhook")),
    ("DELETE", "/v1/webhooks/{}", "deleteWebhook", Some("Webhook")),
];

/// Items as a path has them, and as policies see them.
const ITEMS: [(&str, &str); 4] = [("i1", "i1"), ("i2", "i2"), ("caf%C3%A9", "café"), ("a%20b", "a b")];
/// Addresses as a proxy states them, and as policies see them.
const ADDRESSES: [Option<(&str, &str)>; 6] = [
    None,
    Some(("192.0.2.7", "192.0.2.7")),
    Some(("127.0.0.1", "127.0.0.1")),
    Some(("2001:db8::1", "2001:db8::1")),
    Some(("::ffff:192.0.2.7", "192.0.2.7")),
    Some(("::1", "::1")),
];
/// Times as the clock has them, and as policies see them.
const TIMES: [(&str, &str); 4] = [
    ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000Z"),
    ("2026-06-15T12:34:56.789999Z", "2026-06-15T12:34:56.789Z"),
    ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59.000Z"),
    ("2038-01-19T03:14:08Z", "2038-01-19T03:14:08.000Z"),
];

static VALIDATOR: LazyLock<Validator> =
    LazyLock::new(|| Validator::new(Schema::from_cedarschema_str(SCHEMA).unwrap().0));

// Random policies. Each expression is text; what is not strictly valid is left out afterwards.

fn text(choices: &'static [&'static str]) -> BoxedStrategy<String> {
    select(choices).prop_map(str::to_owned).boxed()
}

fn strings() -> BoxedStrategy<String> {
    text(&[
        "context.method",
        "context.path",
        "\"GET\"",
        "\"POST\"",
        "\"/v1/jobs\"",
        "(if context.secure then context.method else \"x\")",
    ])
}

fn datetimes() -> BoxedStrategy<String> {
    text(&[
        "context.time",
        "datetime(\"2026-06-15T12:34:56.789Z\")",
        "datetime(\"1970-01-01\")",
        "context.time.toDate()",
        "context.time.offset(duration(\"1d2h\"))",
        "context.time.offset(duration(\"-9223372036854775807ms\"))",
        "context.time.offset(duration(\"9223372036854775807ms\"))",
    ])
}

fn longs() -> BoxedStrategy<String> {
    let leaf = text(&[
        "0",
        "1",
        "2",
        "-1",
        "9223372036854775807",
        "context.time.toTime().toMilliseconds()",
        "context.time.toTime().toHours()",
        "context.time.durationSince(datetime(\"1970-01-01\")).toMilliseconds()",
        "context.time.durationSince(datetime(\"2026-01-01\")).toDays()",
        "{\"a b\": 3, c: 4}.c",
    ]);
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), select(&["+", "-", "*"][..]), inner.clone())
                .prop_map(|(a, sign, b)| format!("({a} {sign} {b})")),
            inner.clone().prop_map(|a| format!("-({a})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("(if context.secure then {a} else {b})")),
        ]
    })
    .boxed()
}

const ORDERED: [&str; 6] = ["<", "<=", ">", ">=", "==", "!="];

fn compared(of: BoxedStrategy<String>, signs: &'static [&'static str]) -> BoxedStrategy<String> {
    let sign = select(signs);
    (of.clone(), sign, of).prop_map(|(a, sign, b)| format!("{a} {sign} {b}")).boxed()
}

fn named(of_type: &'static str, ids: &'static [&'static str]) -> BoxedStrategy<String> {
    select(ids).prop_map(move |id| format!("DocsApi::{of_type}::{id:?}")).boxed()
}

/// Who may call, by name.
fn callers() -> BoxedStrategy<String> {
    prop_oneof![
        1 => named("PublishableKey", &["key_0000000000000000"]),
        2 => named("SecretKey", &["key_0000000000000000", "key_0000000000000001"]),
        3 => named("RestrictedKey", &["key_0000000000000001", "key_0000000000000002", "key_0000000000000003"]),
        1 => named("Anonymous", &["anonymous"]),
    ]
    .boxed()
}

/// What callers and things may be in.
fn places() -> BoxedStrategy<String> {
    prop_oneof![1 => named("Account", &ACCOUNTS), 2 => named("Environment", &ENVIRONMENTS)].boxed()
}

/// What calls may be about.
fn things() -> BoxedStrategy<String> {
    prop_oneof![
        named("Resource", &["i1", "café"]),
        named("Job", &["i1", "a b"]),
        named("Webhook", &["i2"]),
        named("Environment", &ENVIRONMENTS),
    ]
    .boxed()
}

/// Any of them, whether or not it suits.
fn entities() -> BoxedStrategy<String> {
    prop_oneof![2 => callers(), 4 => places(), 3 => things(), 3 => named("Scope", &SCOPES)].boxed()
}

const ACTION_NAMES: [&str; 9] = [
    "resources:read",
    "resources:write",
    "jobs:write",
    "webhooks:write",
    "listResources",
    "getResource",
    "cancelJob",
    "listJobs",
    "updateWebhook",
];

fn actions() -> BoxedStrategy<String> {
    named("Action", &ACTION_NAMES)
}

fn conditions() -> BoxedStrategy<String> {
    let who = || {
        text(&["principal", "resource", "principal.environment", "(if context.secure then principal else principal)"])
    };
    let of_type = || {
        text(&[
            "DocsApi::Anonymous",
            "DocsApi::PublishableKey",
            "DocsApi::SecretKey",
            "DocsApi::RestrictedKey",
            "DocsApi::Environment",
            "DocsApi::Job",
            "DocsApi::Resource",
        ])
    };
    let addresses = text(&[
        "context has ip && context.ip.isLoopback()",
        "context has ip && context.ip.isIpv4()",
        "context has ip && context.ip.isInRange(ip(\"192.0.2.0/24\"))",
        "context has ip && context.ip == ip(\"2001:db8::1\")",
        "context has ip && [ip(\"127.0.0.1\"), ip(\"::1\")].contains(context.ip)",
        "!(context has ip)",
        "context.ip.isLoopback()",
    ]);
    let records = text(&[
        "{c: context}.c.secure",
        "context == context",
        "[context].contains(context)",
        "(if context.secure then context else context).method == \"GET\"",
        "{a: 1, b: context.secure} == {a: 1, b: true}",
        "{a: 1} has a",
    ]);
    let environments = text(&[
        "principal has environment && resource in principal.environment",
        "principal has environment && principal.environment.mode == \"live\"",
        "principal is DocsApi::SecretKey && principal.environment.mode == \"test\"",
        "resource in principal.environment",
        "principal.environment == resource",
        "resource has mode && resource.mode == \"live\"",
        "resource is DocsApi::Environment && resource.mode == \"test\"",
    ]);
    let leaf = prop_oneof![
        2 => text(&["context.secure", "context.path like \"/v1/*\"", "context.method like \"*T\"", "true", "false"]),
        2 => addresses,
        1 => records,
        3 => environments,
        2 => longs().prop_map(|a| format!("9223372036854775807 + {a} > 0")),
        4 => compared(longs(), &ORDERED),
        2 => compared(datetimes(), &ORDERED),
        1 => compared(strings(), &ORDERED[4..]),
        1 => (strings(), strings(), strings()).prop_map(|(a, b, c)| format!("[{a}, {b}].contains({c})")),
        1 => (longs(), longs(), select(&["containsAll", "containsAny"][..])).prop_map(|(a, b, op)| format!("[{a}, 1, 2].{op}([{b}])")),
        1 => longs().prop_map(|a| format!("![{a}].isEmpty()")),
        3 => (who(), entities()).prop_map(|(who, what)| format!("{who} in {what}")),
        2 => (who(), entities()).prop_map(|(who, what)| format!("{who} == {what}")),
        1 => (who(), entities(), entities()).prop_map(|(who, a, b)| format!("{who} in [{a}, {b}]")),
        2 => (who(), of_type()).prop_map(|(who, of_type)| format!("{who} is {of_type}")),
        1 => (who(), of_type(), entities()).prop_map(|(who, of_type, a)| format!("{who} is {of_type} in {a}")),
        2 => actions().prop_map(|action| format!("action in {action}")),
        1 => (actions(), actions()).prop_map(|(a, b)| format!("[{a}, {b}].contains(action)")),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) || ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) == ({b})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("if {a} then {b} else {c}")),
        ]
    })
    .boxed()
}

fn policies() -> BoxedStrategy<Vec<String>> {
    let principal = prop_oneof![
        3 => text(&["principal", "principal is DocsApi::SecretKey", "principal is DocsApi::PublishableKey", "principal is DocsApi::RestrictedKey", "principal is DocsApi::Anonymous"]),
        2 => named("Scope", &SCOPES).prop_map(|scope| format!("principal in {scope}")),
        1 => places().prop_map(|place| format!("principal in {place}")),
        1 => callers().prop_map(|caller| format!("principal == {caller}")),
        1 => named("Environment", &ENVIRONMENTS).prop_map(|environment| format!("principal is DocsApi::RestrictedKey in {environment}")),
    ];
    let action = prop_oneof![
        2 => Just("action".to_owned()),
        2 => actions().prop_map(|action| format!("action in {action}")),
        1 => actions().prop_map(|action| format!("action == {action}")),
        1 => (actions(), actions()).prop_map(|(a, b)| format!("action in [{a}, {b}]")),
    ];
    let resource = prop_oneof![
        4 => text(&["resource", "resource", "resource is DocsApi::Job", "resource is DocsApi::Environment"]),
        1 => places().prop_map(|place| format!("resource in {place}")),
        1 => things().prop_map(|thing| format!("resource == {thing}")),
        1 => named("Account", &ACCOUNTS).prop_map(|account| format!("resource is DocsApi::Resource in {account}")),
    ];
    let clause = (select(&["when", "when", "unless"][..]), conditions())
        .prop_map(|(kind, condition)| format!("{kind} {{ {condition} }}"));
    let clauses = proptest::collection::vec(clause, 0..3).prop_map(|clauses| clauses.join("\n"));
    let effect = select(&["permit", "permit", "permit", "forbid"][..]);
    let policy =
        (effect, principal, action, resource, clauses).prop_map(|(effect, principal, action, resource, clauses)| {
            format!("{effect} ({principal}, {action}, {resource})\n{clauses};\n")
        });
    proptest::collection::vec(policy, 1..12).boxed()
}

/// Those that a reload would take, each with a name.
fn valid(texts: &[String]) -> Vec<String> {
    let named = texts.iter().zip(0..).map(|(text, at)| format!("@id(\"p{at}\")\n{text}"));
    named.filter(|text| is_valid(text)).collect()
}

fn is_valid(text: &str) -> bool {
    let Ok(policy) = Policy::parse(Some(PolicyId::new("p")), text) else { return false };
    let set = PolicySet::from_policies([policy]).unwrap();
    let result = VALIDATOR.validate(&set, ValidationMode::Strict);
    result.validation_passed_without_warnings()
}

// Random keys and calls.

#[derive(Debug, Clone)]
struct KeyOf {
    kind: Kind,
    mode: Mode,
    account: usize,
    scopes: Vec<&'static str>,
}

fn keys() -> impl Strategy<Value = Vec<KeyOf>> {
    let kind = select(&[Kind::Publishable, Kind::Secret, Kind::Restricted, Kind::Restricted][..]);
    let key = (kind, select(&[Mode::Live, Mode::Test][..]), 0..2_usize, subsequence(SCOPES.to_vec(), 1..=3));
    let key = key.prop_map(|(kind, mode, account, scopes)| KeyOf {
        kind,
        mode,
        account,
        scopes: if kind == Kind::Restricted { scopes } else { vec![] },
    });
    proptest::collection::vec(key, KEYS)
}

impl KeyOf {
    fn id(number: usize) -> String {
        format!("key_000000000000000{number}")
    }

    fn of_type(&self) -> &'static str {
        match self.kind {
            Kind::Publishable => "PublishableKey",
            Kind::Secret => "SecretKey",
            Kind::Restricted => "RestrictedKey",
        }
    }

    fn environment(&self) -> String {
        format!("{}/{}", ACCOUNTS[self.account], self.mode.as_str())
    }

    /// The key as Cedar is given it, with one more scope if there is one.
    fn entity(&self, number: usize, also: Option<&'static str>) -> Value {
        let environment = uid("Environment", &self.environment());
        let scopes = self.scopes.iter().copied().chain(also).map(|scope| uid("Scope", scope));
        let parents: Vec<Value> = scopes.chain([environment.clone()]).collect();
        entity(self.of_type(), &Self::id(number), &json!({ "environment": { "__entity": environment } }), &parents)
    }

    /// The key as the daemon holds it.
    fn live(&self, number: usize) -> Arc<LiveKey> {
        let now = Timestamp::UNIX_EPOCH;
        let secret = StoredSecret::new(&Mint::new(self.kind, self.mode).unwrap(), Phc::none(), now);
        let scopes = self.scopes.iter().map(|scope| Scope::from(*scope)).collect();
        let new = NewKey { scopes, ..NewKey::named(self.kind, self.mode, "differential") };
        let id: KeyId = Self::id(number).parse().unwrap();
        Arc::new(LiveKey::new(Key::create(ACCOUNTS[self.account].parse().unwrap(), new, id, secret, now).unwrap(), 1))
    }
}

#[derive(Debug, Clone)]
struct CallOf {
    /// None is a call without credentials.
    key: Option<usize>,
    /// Who calls in between.
    between: usize,
    route: Index,
    item: usize,
    query: bool,
    stated_item: bool,
    stated_environment: Option<usize>,
    secure: bool,
    address: usize,
    time: usize,
}

fn calls() -> impl Strategy<Value = Vec<CallOf>> {
    let key = prop_oneof![1 => Just(None), 6 => (0..KEYS).prop_map(Some)];
    let call = (
        (key, 0..KEYS, any::<Index>(), 0..ITEMS.len(), any::<bool>(), prop::bool::weighted(0.1)),
        (proptest::option::weighted(0.4, 0..4_usize), prop::bool::weighted(0.8), 0..ADDRESSES.len(), 0..TIMES.len()),
    );
    let call = call.prop_map(
        |((key, between, route, item, query, stated_item), (stated_environment, secure, address, time))| CallOf {
            key,
            between,
            route,
            item,
            query,
            stated_item,
            stated_environment,
            secure,
            address,
            time,
        },
    );
    proptest::collection::vec(call, CALLS)
}

// What Cedar is given.

fn entity(of_type: &str, id: &str, attributes: &Value, parents: &[Value]) -> Value {
    json!({ "uid": uid(of_type, id), "attrs": attributes, "parents": parents })
}

fn uid(of_type: &str, id: &str) -> Value {
    json!({ "type": format!("DocsApi::{of_type}"), "id": id })
}

/// An item: its type, its id and where it is.
type Item = (&'static str, &'static str, String);

/// Everybody and everything there is, but for the item of a call.
struct World<'a> {
    keys: &'a [KeyOf],
    all: Entities,
}

impl<'a> World<'a> {
    fn of(keys: &'a [KeyOf]) -> Self {
        let mut all: Vec<Value> = ACCOUNTS.iter().map(|account| entity("Account", account, &json!({}), &[])).collect();
        for environment in ENVIRONMENTS {
            let parent = environment.split_once('/').map(|(account, _)| uid("Account", account));
            let mode = if environment.ends_with("/test") { "test" } else { "live" };
            all.push(entity("Environment", environment, &json!({ "mode": mode }), parent.as_slice()));
        }
        all.push(entity("Anonymous", "anonymous", &json!({}), &[]));
        all.extend(SCOPES.iter().map(|scope| entity("Scope", scope, &json!({}), &[])));
        all.extend((0..).zip(keys).map(|(number, key)| key.entity(number, None)));
        // With the schema, Cedar checks them and adds the actions.
        let all = Entities::from_json_value(Value::Array(all), Some(VALIDATOR.schema())).unwrap();
        Self { keys, all }
    }

    /// The world with an item; and a key may hold one scope more than it has.
    fn with(&self, item: Option<&Item>, also: Option<(usize, &'static str)>) -> Entities {
        let read = |json| Entity::from_json_value(json, Some(VALIDATOR.schema())).unwrap();
        let key = also.map(|(number, scope)| read(self.keys[number].entity(number, Some(scope))));
        let item = item.map(|(of_type, id, environment)| {
            read(entity(of_type, id, &json!({}), &[uid("Environment", environment)]))
        });
        self.all.clone().upsert_entities(key.into_iter().chain(item), None).unwrap()
    }
}

/// What Cedar says: allowed or not, which policies decided, and which failed.
#[derive(Debug)]
struct Said {
    decision: Decision,
    reasons: BTreeSet<String>,
    errors: BTreeSet<String>,
}

/// What Cedar says of a call by a key, or by nobody; `also` is a scope that the key is given besides.
fn cedar(set: &PolicySet, world: &World<'_>, call: &CallOf, key: Option<usize>, also: Option<&'static str>) -> Said {
    let (method, template, action, item_type) = *call.route.get(&ROUTES);
    let environment = match (call.stated_environment, key) {
        (Some(stated), _) => ENVIRONMENTS[stated].to_owned(),
        (None, Some(key)) => world.keys[key].environment(),
        (None, None) => "anonymous".to_owned(),
    };
    let item = item_type.map(|of_type| {
        let id = if call.stated_item { "i1" } else { ITEMS[call.item].1 };
        (of_type, id, environment.clone())
    });
    let resource = match &item {
        Some((of_type, id, _)) => uid(of_type, id),
        None => uid("Environment", &environment),
    };
    let principal = match key {
        Some(key) => uid(world.keys[key].of_type(), &KeyOf::id(key)),
        None => uid("Anonymous", "anonymous"),
    };
    let mut context = json!({
        "secure": key.is_some() || call.secure,
        "method": method,
        "path": template.replace("{}", ITEMS[call.item].1),
        "time": { "__extn": { "fn": "datetime", "arg": TIMES[call.time].1 } },
    });
    if let Some((_, address)) = ADDRESSES[call.address] {
        context["ip"] = json!({ "__extn": { "fn": "ip", "arg": address } });
    }
    let named = |json| EntityUid::from_json(json).unwrap();
    let action = named(uid("Action", action));
    let context = Context::from_json_value(context, Some((VALIDATOR.schema(), &action))).unwrap();
    let request = Request::new(named(principal), action, named(resource), context, Some(VALIDATOR.schema())).unwrap();
    let entities = world.with(item.as_ref(), key.zip(also));
    let response = Authorizer::new().is_authorized(&request, set, &entities);
    let failed = |error: &cedar_policy::AuthorizationError| match error {
        cedar_policy::AuthorizationError::PolicyEvaluationError(error) => error.policy_id().to_string(),
    };
    Said {
        decision: response.decision(),
        reasons: response.diagnostics().reason().map(ToString::to_string).collect(),
        errors: response.diagnostics().errors().map(failed).collect(),
    }
}

// What is compared.

/// How many of each there were, to see that something was compared.
#[derive(Debug, Default)]
struct Seen {
    allowed: Cell<u64>,
    denied: Cell<u64>,
    failed: Cell<u64>,
    helped: Cell<u64>,
    policies: Cell<u64>,
    remembered: Cell<u64>,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

struct Case<'a> {
    revision: Arc<Revision>,
    set: PolicySet,
    keys: &'a [KeyOf],
    live: Vec<Arc<LiveKey>>,
    seen: &'a Seen,
}

impl Case<'_> {
    /// What we say of a call by a key, or by nobody.
    fn ours(&self, call: &CallOf, key: Option<usize>) -> Verdict {
        let (method, template, ..) = *call.route.get(&ROUTES);
        let path = template.replace("{}", ITEMS[call.item].0);
        let target = if call.query { format!("{path}?path=/v1/jobs") } else { path };
        let caller = key.map_or(Caller::Anonymous, |key| {
            let live = &self.live[key];
            Caller::Proven(Arc::clone(live), live.key.secret.selector)
        });
        let asked = Call {
            credentials: Credentials::None,
            transport: if key.is_some() || call.secure { Transport::Secure } else { Transport::Insecure },
            address: ADDRESSES[call.address].map(|(stated, _)| stated.parse().unwrap()),
            line: Some(RequestLine { method, target: &target }),
            stated: Stated {
                item: call.stated_item.then_some("i1"),
                environment: call.stated_environment.map(|stated| ENVIRONMENTS[stated].parse().unwrap()),
            },
        };
        authorize(&asked, caller, &self.revision, TIMES[call.time].0.parse().unwrap())
    }

    /// Holds a verdict against what Cedar says.
    fn compare(
        &self,
        verdict: &Verdict,
        world: &World<'_>,
        call: &CallOf,
        key: Option<usize>,
    ) -> Result<(), TestCaseError> {
        let said = cedar(&self.set, world, call, key, None);
        let by: BTreeSet<String> = verdict.policies.iter().map(ToString::to_string).collect();
        let missing: BTreeSet<&str> = verdict.missing_scopes.iter().map(Scope::as_str).collect();
        if said.errors.is_empty() && said.decision == Decision::Allow {
            count(&self.seen.allowed);
            prop_assert_eq!((verdict.reason, &by), (Reason::Allowed, &said.reasons), "{:?}", call);
            return Ok(());
        }
        let Some(number) = key else {
            // A call without a key that nothing permits is refused without asking, so that nothing can fail.
            prop_assert!([Reason::CredentialsMissing, Reason::PolicyError].contains(&verdict.reason), "{:?}", call);
            let expected = if verdict.reason == Reason::PolicyError { &said.errors } else { &said.reasons };
            prop_assert!(by.is_empty() || by == *expected, "{:?} {:?}", call, said);
            return Ok(());
        };
        if !said.errors.is_empty() {
            count(&self.seen.failed);
            prop_assert_eq!((verdict.reason, by), (Reason::PolicyError, said.errors), "{:?}", call);
            return Ok(());
        }
        count(&self.seen.denied);
        let mut helpful = BTreeSet::new();
        if self.keys[number].kind == Kind::Restricted {
            for scope in SCOPES.into_iter().filter(|scope| !self.keys[number].scopes.contains(scope)) {
                let with = cedar(&self.set, world, call, key, Some(scope));
                if with.errors.is_empty() && with.decision == Decision::Allow {
                    helpful.insert(scope);
                    count(&self.seen.helped);
                }
            }
        }
        let reason = if helpful.is_empty() { Reason::PolicyDenied } else { Reason::ScopeMissing };
        prop_assert_eq!((verdict.reason, by, missing), (reason, said.reasons, helpful), "{:?}", call);
        Ok(())
    }

    fn call(&self, world: &World<'_>, call: &CallOf) -> Result<(), TestCaseError> {
        self.compare(&self.ours(call, call.key), world, call, call.key)?;
        let Some(key) = call.key else { return Ok(()) };
        // Another key's call must change nothing about what is remembered of this one's.
        self.compare(&self.ours(call, Some(call.between)), world, call, Some(call.between))?;
        self.compare(&self.ours(call, Some(key)), world, call, Some(key))?;
        count(&self.seen.remembered);
        Ok(())
    }
}

fn compare(
    texts: &[String],
    with_shipped: bool,
    keys: &[KeyOf],
    calls: &[CallOf],
    seen: &Seen,
) -> Result<(), TestCaseError> {
    let mut texts = valid(texts);
    seen.policies.set(seen.policies.get() + texts.len() as u64);
    if with_shipped || texts.is_empty() {
        texts.extend(SHIPPED.map(str::to_owned));
    }
    let whole = texts.concat();
    let files = [("schemas/docs-api.cedarschema", SCHEMA), ("policies/random.cedar", &whole)];
    let bundle = Bundle::from_files(files.map(|(path, text)| (path.to_owned(), text.to_owned())));
    let revision = Revision::build(&bundle).map_err(|rejection| TestCaseError::fail(rejection.render()))?;
    let named: PolicySet = whole.parse().unwrap();
    let policies = named.policies().map(|policy| policy.new_id(PolicyId::new(policy.annotation("id").unwrap())));
    let set = PolicySet::from_policies(policies).unwrap();
    let live = keys.iter().zip(0..).map(|(key, number)| key.live(number)).collect();
    let case = Case { revision: Arc::new(revision), set, keys, live, seen };
    let world = World::of(keys);
    calls.iter().try_for_each(|call| case.call(&world, call))
}

#[test]
fn cedars_own_evaluation_and_ours_agree() {
    let sets = std::env::var("KEYWARD_DIFFERENTIAL_SETS").map_or(SETS, |sets| sets.parse().unwrap());
    let seen = Seen::default();
    let mut runner = TestRunner::new(Config { cases: sets, failure_persistence: None, ..Config::default() });
    let given = (policies(), prop::bool::weighted(0.3), keys(), calls());
    let ran =
        runner.run(&given, |(texts, with_shipped, keys, calls)| compare(&texts, with_shipped, &keys, &calls, &seen));
    println!("{sets} sets: {seen:?}");
    if let Err(error) = ran {
        panic!("{error}");
    }
    // Were the generator to make nothing of interest, that would be no agreement.
    let compared = seen.allowed.get() + seen.denied.get() + seen.failed.get();
    let is_many = |cell: &Cell<u64>| cell.get() * 200 > compared;
    assert!(is_many(&seen.allowed) && is_many(&seen.denied) && is_many(&seen.failed), "{seen:?}");
    assert!(seen.helped.get() > 0 && seen.policies.get() > u64::from(sets), "{seen:?}");
}
