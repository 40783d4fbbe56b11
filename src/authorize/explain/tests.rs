//! What is said of calls, and that it is what was decided.

use proptest::prelude::*;

use super::*;
use crate::authorize::Stated;
use crate::authorize::suppose::Supposed;
use crate::authorize::tests::{bundle, call, now, revision};
use crate::key::{AccountId, Kind, Mode};

fn caller(kind: Kind, mode: Mode, scopes: &[&str]) -> Caller {
    let scopes = scopes.iter().map(|scope| (*scope).into()).collect();
    Supposed { account: AccountId::EXAMPLE, kind, mode, scopes }.caller(now()).unwrap()
}

/// What is told of a policy: its state, and each part with what decided it.
fn told(explained: &Explained, name: &str) -> String {
    let examined = explained.explanation.policies.iter().find(|examined| examined.policy.name == name).unwrap();
    let parts = examined.parts.iter().map(told_of_part);
    format!("{:?} {}", examined.state, parts.collect::<Vec<_>>().join("; "))
}

fn told_of_part(part: &Part) -> String {
    let because = part.because.iter().map(|because| {
        let values = because.values.iter().map(|seen| {
            let within = if seen.within.is_empty() { String::new() } else { format!(" in {}", seen.within.len()) };
            format!("{} = {}{within}", seen.name, seen.value.as_deref().unwrap_or("absent"))
        });
        let was = because.was.map_or_else(|| because.error.clone().unwrap_or_default(), |was| was.to_string());
        format!("{} was {was} ({})", because.text, values.collect::<Vec<_>>().join(", "))
    });
    let because = because.collect::<Vec<_>>().join(", ");
    format!("{}:{} {}: {because}", part.part.as_str(), part.line, if part.held { "held" } else { "did not hold" })
}

#[test]
fn the_part_that_decided_is_told_with_the_values_that_it_saw() {
    let more = r#"@id("near") forbid (principal, action, resource)
when { context has ip &&
  !(context.ip.isInRange(ip("10.0.0.0/8")) || context.time < datetime("2020-01-01")) };
@id("elsewhere") forbid (principal in DocsApi::Account::"acct_Another000000000", action, resource);
@id("nested") permit (principal is DocsApi::RestrictedKey, action, resource)
when { if context.secure then (context.method == "GET" || context.path like "/v2/*") else false }
unless { ["DELETE"].contains(context.method) };
"#;
    let revision = revision(more);
    let call = Call { address: Some("192.0.2.7".parse().unwrap()), ..call("DELETE", "/v1/resources/res_1") };
    let explained = explain(&call, &caller(Kind::Restricted, Mode::Live, &["resources:read"]), &revision, now());
    let expected = [
        (
            "near",
            "Satisfied when:2 held: context has ip was true (context.ip = ip(\"192.0.2.7\")), \
             context.ip.isInRange(ip(\"10.0.0.0/8\")) was false (context.ip = ip(\"192.0.2.7\")), \
             context.time < datetime(\"2020-01-01\") was false (context.time = datetime(\"2027-01-15T08:00:00.000Z\"))",
        ),
        (
            "elsewhere",
            "OutOfScope principal:4 did not hold: principal in DocsApi::Account::\"acct_Another000000000\" was false \
             (principal = DocsApi::RestrictedKey::\"key_Example000000000\" in 3)",
        ),
        (
            "nested",
            "ConditionFalse when:6 did not hold: context.secure was true (context.secure = true), context.method == \
             \"GET\" was false (context.method = \"DELETE\"), context.path like \"/v2/*\" was false (context.path = \
             \"/v1/resources/res_1\"); unless:7 did not hold: [\"DELETE\"].contains(context.method) was true \
             (context.method = \"DELETE\")",
        ),
        (
            "scope-resources-write",
            "OutOfScope principal:35 did not hold: principal in DocsApi::Scope::\"resources:write\" was false \
             (principal = DocsApi::RestrictedKey::\"key_Example000000000\" in 3)",
        ),
        (
            "guarantee-https-only",
            "ConditionFalse unless:5 did not hold: context.secure was true (context.secure = true)",
        ),
    ];
    for (name, expected) in expected {
        assert_eq!(told(&explained, name), expected);
    }
    assert_eq!(explained.verdict.policies.iter().map(ToString::to_string).collect::<Vec<_>>(), ["near"]);
}

#[test]
fn a_policy_that_cannot_be_evaluated_is_told_with_where_and_why() {
    let failing = "@id(\"overflow\") forbid (principal, action, resource)\nwhen { context.secure } when { \
                   context.method == \"GET\" && context.time.toTime().toMilliseconds() + 9223372036854775807 > 0 };";
    let revision = revision(failing);
    let key = caller(Kind::Secret, Mode::Live, &[]);
    let explained = explain(&call("GET", "/v1/resources"), &key, &revision, now());
    assert_eq!(explained.verdict.reason.as_str(), "policy_error");
    let said = told(&explained, "overflow");
    assert!(said.starts_with("Failed when:2 did not hold: context.time.toTime().toMilliseconds() + 9223"), "{said}");
    assert!(said.contains("overflow") && !said.contains("context.secure was"), "{said}");
    let last = explained.explanation.steps.last().unwrap();
    assert_eq!((&*last.step, last.passed, &*last.detail), ("policies", false, "overflow could not be evaluated"));
}

#[test]
fn permits_that_one_part_more_would_have_made_apply_are_told_the_nearest_first() {
    let more = r#"
@id("far") permit (principal is DocsApi::RestrictedKey, action, resource)
when { context.method == "GET" && context.path like "/v2/*" };
@id("near") permit (principal is DocsApi::RestrictedKey, action, resource) when { context.secure && context.method == "GET" };
@id("two") permit (principal is DocsApi::RestrictedKey, action, resource) when { context.method == "GET" } unless { context.secure };
@id("forbids") forbid (principal is DocsApi::RestrictedKey, action, resource) unless { context.secure };
"#;
    let revision = revision(more);
    let explained = explain(
        &call("POST", "/v1/jobs"),
        &caller(Kind::Restricted, Mode::Live, &["resources:read"]),
        &revision,
        now(),
    );
    let names: Vec<_> = explained.explanation.near_misses.iter().map(|missed| &*missed.policy.name).collect();
    let elsewhere = ["secret-full-access", "scope-resources-read"];
    assert_eq!(names, [&["scope-jobs-write", "near", "far"][..], &elsewhere].concat());
    assert!(explained.explanation.near_misses.iter().all(|missed| missed.parts.len() == 1));
    let allowed = caller(Kind::Secret, Mode::Live, &[]);
    let explained = explain(&call("POST", "/v1/jobs"), &allowed, &revision, now());
    assert_eq!((explained.verdict.reason.as_str(), explained.explanation.near_misses.len()), ("allowed", 0));
}

#[test]
fn a_call_that_does_not_come_to_the_policies_is_told_where_it_ended() {
    let revision = revision("");
    let key = caller(Kind::Secret, Mode::Live, &[]);
    let Caller::Proven(live, selector) = &key else { unreachable!() };
    let changed = |change: &dyn Fn(&mut Key)| {
        let mut key = live.key.clone();
        change(&mut key);
        Caller::Proven(Arc::new(crate::ring::LiveKey::new(key, 1)), *selector)
    };
    let fine = call("GET", "/v1/resources");
    let networks =
        |key: &mut Key| key.change_extras(|extras| extras.addresses = ["192.0.2.0/24".parse().unwrap()].into());
    let insecure = Call { transport: Transport::Insecure, ..fine };
    let cases = [
        (fine, Caller::Malformed, "credentials", "not one well-formed"),
        (fine, Caller::Unknown, "credentials", "no key"),
        (fine, Caller::Distrusted, "credentials", "not trusted"),
        (fine, changed(&Key::revoke), "key", "it is revoked"),
        (insecure, key.clone(), "transport", "plain HTTP"),
        (Call { transport: Transport::Unknown, ..fine }, key.clone(), "transport", "not stated"),
        (fine, changed(&networks), "address", "not stated, and the key may be used from 192.0.2.0/24 alone"),
        (Call { line: None, ..fine }, key.clone(), "path", "not stated"),
        (call("GET", "/v1/../x"), key.clone(), "path", "more than one way"),
        (call("GET", "/v1/nothing"), key.clone(), "route", "no action of the schema has this path"),
        (call("PUT", "/v1/resources/a"), key.clone(), "route", "with PUT; with DELETE, GET, PATCH there is one"),
        (call("GET", "/v1/nothing"), Caller::Anonymous, "route", "no action"),
        (fine, Caller::Anonymous, "policies", "no policy permits anything here without a key"),
    ];
    for (call, caller, step, said) in cases {
        let Explained { explanation, verdict } = explain(&call, &caller, &revision, now());
        let last = explanation.steps.last().unwrap();
        assert_eq!((&*last.step, last.passed), (step, false), "{call:?}");
        assert!(last.detail.contains(said), "{}", last.detail);
        assert!(explanation.policies.is_empty() && verdict.policies.is_empty());
    }
}

#[test]
fn a_token_in_a_path_or_a_policy_is_not_told() {
    let mint = crate::key::Mint::new(Kind::Secret, Mode::Live).unwrap();
    let more = format!(
        "@id(\"pasted\") forbid (principal, action, resource) when {{ context.path like \"*{}\" && context.secure }};",
        mint.expose()
    );
    let revision = revision(&more);
    let target = format!("/v1/resources/{}", mint.expose());
    let explained = explain(&call("GET", &target), &caller(Kind::Secret, Mode::Live, &[]), &revision, now());
    assert_eq!(explained.verdict.reason.as_str(), "policy_denied");
    let written = serde_json::to_string(&explained.explanation).unwrap();
    assert!(written.contains("sk_live_…") && !written.contains(&mint.expose()[8..16]), "{written}");
}

#[test]
fn an_operation_of_the_management_api_is_explained_like_a_call() {
    let revision = revision("");
    let operation = revision.management().named("rotateKey").unwrap();
    let new = crate::people::NewUser {
        email: "ada@example.com".into(),
        name: "Ada".into(),
        operator: false,
        roles: [(AccountId::EXAMPLE, crate::people::Role::Developer)].into(),
    };
    let user = crate::people::User::create(new, crate::key::UserId::EXAMPLE, now()).unwrap();
    let asking = Asking { user: Some(&user), address: None, now: now() };
    let Caller::Proven(live, _) = caller(Kind::Secret, Mode::Live, &[]) else { unreachable!() };
    let (evaluation, explanation) = explain_management(&revision, &asking, operation, Subject::Key(&live.key));
    assert!(matches!(evaluation, Evaluation::Denied { .. }));
    let policies = &explanation.policies;
    let names: Vec<_> = policies.iter().map(|examined| &*examined.policy.name).collect();
    assert_eq!(names, ["operators-do-everything", "owners-manage-their-accounts", "developers-manage-test-keys"]);
    let parts: Vec<_> = policies[2].parts.iter().map(told_of_part).collect();
    assert_eq!(parts, ["when:50 did not hold: resource.mode == \"test\" was false (resource.mode = \"live\")"]);
}

#[test]
fn the_largest_policies_that_are_taken_are_explained_on_the_stack_of_a_thread_that_decides() {
    let nested = format!("{}context.secure{}", "(".repeat(28), ")".repeat(28));
    let chain = vec!["context.secure"; 95].join(" && ");
    let sum = format!("{} > 1", vec!["1"; 180].join(" + "));
    let nots = format!("{}context.secure", "!".repeat(4));
    let names: Vec<String> = (0..20_000).map(|at| format!("\"n{at}\"")).collect();
    let set = format!("[{}].contains(context.method)", names.join(", "));
    let ifs = "if context.secure then true else ".repeat(25) + "false";
    let mixed = "(context.secure && (context.method == \"x\" || ".repeat(14) + "context.secure" + &"))".repeat(14);
    let conditions = [nested, chain, sum, nots, set, ifs, mixed];
    let mut more = String::new();
    for (at, text) in conditions.iter().enumerate() {
        more += &format!(
            "@id(\"large{at}\") permit (principal, action, resource) when {{ {text} }} unless {{ {text} }};\n"
        );
    }
    let revision = revision(&more);
    let explain = move || {
        let key = caller(Kind::Secret, Mode::Live, &[]);
        explain(&call("POST", "/v1/jobs"), &key, &revision, now()).explanation
    };
    let thread = std::thread::Builder::new().stack_size(crate::authorize::STACK / 2).spawn(explain).unwrap();
    let explanation = thread.join().unwrap();
    let large = explanation.policies.iter().filter(|examined| examined.policy.name.starts_with("large"));
    let parts: Vec<&Part> = large.flat_map(|examined| &examined.parts).collect();
    assert_eq!(parts.len(), conditions.len());
    for part in parts {
        assert!(!part.because.is_empty() && part.because.iter().all(|because| because.error.is_none()), "{part:?}");
        assert!(part.text.chars().count() <= 401 && part.because.len() <= 8);
    }
}

/// Conditions that are valid for every caller and route; some cannot be evaluated.
fn conditions() -> impl Strategy<Value = String> {
    let atoms = [
        "context.secure",
        "context.method == \"GET\"",
        "context.path like \"*_1\"",
        "context has ip",
        "(context has ip && context.ip.isInRange(ip(\"192.0.2.0/24\")))",
        "context.time < datetime(\"2027-01-15T09:00:00Z\")",
        "context.time.toTime().toMilliseconds() + 9223372036854775807 > 0",
        "(principal has environment && resource in principal.environment)",
        "(principal has environment && principal.environment.mode == \"live\")",
        "action in DocsApi::Action::\"resources:read\"",
        "principal is DocsApi::SecretKey",
    ];
    let atom = prop::sample::select(atoms.to_vec()).prop_map(str::to_owned);
    atom.boxed().prop_recursive(3, 12, 3, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            two.clone().prop_map(|(a, b)| format!("({a} && {b})")),
            two.prop_map(|(a, b)| format!("({a} || {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("(if {a} then {b} else {c})")),
        ]
    })
}

fn policies() -> impl Strategy<Value = String> {
    let principals = [
        "principal",
        "principal is DocsApi::RestrictedKey",
        "principal == DocsApi::Anonymous::\"anonymous\"",
        "principal in DocsApi::Scope::\"jobs:write\"",
        "principal in DocsApi::Account::\"acct_Another000000000\"",
    ];
    let actions =
        ["action", "action in DocsApi::Action::\"resources:read\"", "action == DocsApi::Action::\"enqueueJob\""];
    let scope = (prop::sample::select(principals.to_vec()), prop::sample::select(actions.to_vec()));
    let clauses = prop::collection::vec((any::<bool>(), conditions()), 0..3);
    (prop::bool::weighted(0.6), scope, clauses).prop_map(|(is_permit, (principal, action), clauses)| {
        let mut text = format!("{} ({principal}, {action}, resource)", if is_permit { "permit" } else { "forbid" });
        for (is_when, condition) in clauses {
            text += &format!("\n{} {{ {condition} }}", if is_when { "when" } else { "unless" });
        }
        text + ";\n"
    })
}

#[derive(Debug, Clone)]
struct Asked {
    kind: Option<Kind>,
    route: usize,
    transport: usize,
    near: Option<bool>,
    place: usize,
    hour: i64,
}

fn calls() -> impl Strategy<Value = Asked> {
    let kinds =
        prop::option::weighted(0.8, prop::sample::select(&[Kind::Publishable, Kind::Secret, Kind::Restricted][..]));
    (kinds, 0..7_usize, 0..5_usize, any::<Option<bool>>(), 0..3_usize, 0..3_i64)
        .prop_map(|(kind, route, transport, near, place, hour)| Asked { kind, route, transport, near, place, hour })
}

fn names<'a>(of: impl Iterator<Item = &'a Examined>) -> Vec<String> {
    let mut names: Vec<String> = of.map(|examined| examined.policy.name.clone()).collect();
    names.sort();
    names
}

fn check(call: &Call<'_>, caller: &Caller, revision: &Arc<Revision>, at: Timestamp) -> Result<(), TestCaseError> {
    let Explained { verdict, explanation } = explain(call, caller, revision, at);
    let decided = authorize(call, caller.clone(), revision, at);
    prop_assert_eq!(verdict.reason, decided.reason);
    prop_assert_eq!((&verdict.action, &verdict.policies), (&decided.action, &decided.policies));
    prop_assert_eq!(&verdict.missing_scopes, &decided.missing_scopes);

    let is_allowed = decided.reason.outcome() == Outcome::Allow;
    let (last, before) = explanation.steps.split_last().unwrap();
    prop_assert!(before.iter().all(|step| step.passed) && last.passed == is_allowed, "{:?}", explanation.steps);
    prop_assert_eq!(last.step == "policies", decided.action.is_some());

    let with = |state| explanation.policies.iter().filter(move |examined| examined.state == state);
    let of_effect = |effect: &str| names(with(State::Satisfied).filter(|examined| examined.policy.effect == effect));
    let mut by: Vec<String> = decided.policies.iter().map(ToString::to_string).collect();
    by.sort();
    let failed = names(with(State::Failed));
    if decided.reason.as_str() == "policy_error" {
        prop_assert_eq!(failed, by);
    } else {
        prop_assert!(failed.is_empty());
        let deciding = of_effect(if is_allowed { "permit" } else { "forbid" });
        prop_assert_eq!(deciding, by);
        prop_assert!(!is_allowed || of_effect("forbid").is_empty());
    }
    for examined in explanation.policies.iter().chain(&explanation.near_misses) {
        let is_satisfied = examined.state == State::Satisfied;
        prop_assert!(examined.parts.iter().all(|part| part.held == is_satisfied && !part.because.is_empty()));
        prop_assert!(is_satisfied || !examined.parts.is_empty(), "{examined:?}");
    }
    for missed in &explanation.near_misses {
        prop_assert!(missed.policy.effect == "permit" && missed.parts.len() == 1 && !is_allowed);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn an_explanation_is_of_the_decision_that_is_made(
        more in prop::collection::vec(policies(), 1..8),
        calls in prop::collection::vec(calls(), 24),
    ) {
        // One that Cedar's validator sees through can never apply; the others are left.
        let good = |text: &String| Revision::build(&bundle(text)).is_ok();
        let revision = revision(&more.into_iter().filter(good).collect::<String>());
        for asked in calls {
            let caller = match asked.kind {
                None => Caller::Anonymous,
                Some(kind) => {
                    let scopes: &[&str] = if kind == Kind::Restricted { &["resources:read"] } else { &[] };
                    caller(kind, Mode::Live, scopes)
                }
            };
            let (method, target) = [
                ("GET", "/v1/resources"),
                ("GET", "/v1/resources/res_1"),
                ("DELETE", "/v1/resources/res_2"),
                ("POST", "/v1/jobs"),
                ("GET", "/v1/jobs/job_1"),
                ("PUT", "/v1/resources"),
                ("GET", "/v1/./resources"),
            ][asked.route];
            let transport = match asked.transport {
                0 => Transport::Insecure,
                1 => Transport::Unknown,
                _ => Transport::Secure,
            };
            let own = crate::key::EnvironmentId { account: AccountId::EXAMPLE, mode: Mode::Live };
            let other = crate::key::EnvironmentId { account: AccountId::ANOTHER, mode: Mode::Live };
            let call = Call {
                transport,
                address: asked.near.map(|near| if near { "192.0.2.1" } else { "198.51.100.1" }.parse().unwrap()),
                stated: Stated { item: None, environment: [None, Some(own), Some(other)][asked.place] },
                ..call(method, target)
            };
            check(&call, &caller, &revision, now() + jiff::SignedDuration::from_hours(asked.hour))?;
        }
    }

    #[test]
    fn what_is_told_to_have_decided_a_condition_decides_it_whatever_the_rest_is(
        tree in trees(),
        truths in any::<u8>(),
        others in prop::collection::vec(any::<u8>(), 32),
    ) {
        let mut count = 0;
        let tree = tree.numbered(&mut count);
        let revision = revision(&format!(
            "@id(\"asked\") permit (principal is DocsApi::SecretKey, action, resource) when {{ {} }};",
            tree.text()
        ));
        let named: Vec<String> = (0..8).filter(|at| truths >> at & 1 == 1).map(|at| format!("x{at}")).collect();
        let target = format!("/v1/resources/r{}", named.concat());
        let explained = explain(&call("GET", &target), &caller(Kind::Secret, Mode::Live, &[]), &revision, now());
        let asked = explained.explanation.policies.iter().find(|examined| examined.policy.name == "asked").unwrap();
        let value = tree.value(truths);
        prop_assert_eq!(asked.state, if value { State::Satisfied } else { State::ConditionFalse });
        // Which atoms are told, and as what.
        let mut told = 0_u8;
        for because in &asked.parts[0].because {
            let at = (0..count).find(|at| because.text == atom(*at)).unwrap();
            prop_assert_eq!(because.was, Some(truths >> at & 1 == 1));
            told |= 1 << at;
        }
        prop_assert!(told != 0);
        for other in others {
            prop_assert_eq!(tree.value(truths & told | other & !told), value, "{}", tree.text());
        }
    }
}

/// A condition of at most eight atoms, each of which a call can make true or false alone.
#[derive(Debug, Clone)]
enum Tree {
    Atom(usize),
    Not(Box<Tree>),
    And(Box<Tree>, Box<Tree>),
    Or(Box<Tree>, Box<Tree>),
    If(Box<Tree>, Box<Tree>, Box<Tree>),
}

fn atom(at: usize) -> String {
    format!("context.path like \"*x{at}*\"")
}

fn trees() -> impl Strategy<Value = Tree> {
    let tree = Just(Tree::Atom(0)).prop_recursive(4, 8, 3, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        prop_oneof![
            boxed().prop_map(Tree::Not),
            (boxed(), boxed()).prop_map(|(a, b)| Tree::And(a, b)),
            (boxed(), boxed()).prop_map(|(a, b)| Tree::Or(a, b)),
            (boxed(), boxed(), boxed()).prop_map(|(a, b, c)| Tree::If(a, b, c)),
        ]
    });
    tree.prop_filter("at most eight atoms", |tree| tree.clone().numbered(&mut 0).atoms() <= 8)
}

impl Tree {
    /// The same with another atom in each place.
    fn numbered(self, count: &mut usize) -> Self {
        let mut next = |tree: Box<Self>| Box::new(tree.numbered(count));
        match self {
            Self::Atom(_) => {
                *count += 1;
                Self::Atom(*count - 1)
            }
            Self::Not(a) => Self::Not(next(a)),
            Self::And(a, b) => Self::And(next(a), next(b)),
            Self::Or(a, b) => Self::Or(next(a), next(b)),
            Self::If(a, b, c) => Self::If(next(a), next(b), next(c)),
        }
    }

    fn atoms(&self) -> usize {
        match self {
            Self::Atom(_) => 1,
            Self::Not(a) => a.atoms(),
            Self::And(a, b) | Self::Or(a, b) => a.atoms() + b.atoms(),
            Self::If(a, b, c) => a.atoms() + b.atoms() + c.atoms(),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Atom(at) => atom(*at),
            Self::Not(a) => format!("!({})", a.text()),
            Self::And(a, b) => format!("({} && {})", a.text(), b.text()),
            Self::Or(a, b) => format!("({} || {})", a.text(), b.text()),
            Self::If(a, b, c) => format!("(if {} then {} else {})", a.text(), b.text(), c.text()),
        }
    }

    fn value(&self, truths: u8) -> bool {
        match self {
            Self::Atom(at) => truths >> at & 1 == 1,
            Self::Not(a) => !a.value(truths),
            Self::And(a, b) => a.value(truths) && b.value(truths),
            Self::Or(a, b) => a.value(truths) || b.value(truths),
            Self::If(a, b, c) => {
                if a.value(truths) {
                    b.value(truths)
                } else {
                    c.value(truths)
                }
            }
        }
    }
}
