//! No text, however hostile, may end the process or make an answer depend on the stack it is found on.

use std::collections::BTreeSet;

use cedar_policy::{Authorizer, Context, Decision, Entities, Policy, PolicyId, PolicySet, Request};

use super::*;
use crate::policy::format;
use crate::policy::scan::{Language, scan};

/// A quarter of what the daemon gives the threads that evaluate.
const SMALL: usize = 2 << 20;
const LARGE: usize = 16 << 20;

type Shape = fn(usize) -> String;

/// Conditions that grow with a count, each in the one way that Cedar's parser or evaluator recurses.
const SHAPES: [(&str, Shape); 18] = [
    ("parentheses", |n| format!("{}true{}", "(".repeat(n), ")".repeat(n))),
    ("sets", |n| format!("{}1{} == [1]", "[".repeat(n), "]".repeat(n))),
    ("records", |n| format!("{}1{} == {{}}", "{a: ".repeat(n), "}".repeat(n))),
    ("if in the else", |n| format!("{}true", "if context.secure then false else ".repeat(n))),
    ("if in the condition", |n| format!("{}true{}", "if ".repeat(n), " then true else false".repeat(n))),
    ("sums", |n| format!("{}1 > 0", "1 + ".repeat(n))),
    ("differences", |n| format!("{}1 < 1", "1 - ".repeat(n))),
    ("products", |n| format!("{}1 == 1", "1 * ".repeat(n))),
    ("ands", |n| format!("{}context.secure", "context.secure && ".repeat(n))),
    ("ors", |n| format!("{}context.secure", "context.path == \"\" || ".repeat(n))),
    ("nots", |n| format!("{}context.secure", "!".repeat(n))),
    ("minuses", |n| format!("{}1 < 2", "-".repeat(n))),
    ("attributes", |n| format!("principal{} == 1", ".environment".repeat(n))),
    ("accesses", |n| format!("context{} == 1", "[\"path\"]".repeat(n))),
    ("calls", |n| format!("[1]{}.isEmpty()", ".containsAll([1])".repeat(n))),
    ("names", |n| format!("principal is {}B", "A::".repeat(n))),
    ("sums in parentheses", |n| format!("{}1{} > 0", "(1 + 1 + 1 + 1 + 1 + ".repeat(n), ")".repeat(n))),
    ("ands in ifs in sets", |n| {
        format!("{}true{} == []", "[if context.secure && !context.secure then [] else ".repeat(n), "]".repeat(n))
    }),
];

fn policy(condition: &str) -> String {
    format!("forbid (principal, action, resource) when {{ {condition} }};")
}

/// The largest that the scan lets pass.
fn worst(shape: Shape) -> String {
    let passes = |count: &usize| scan("f", &policy(&shape(*count)), Language::Cedar).is_ok();
    let count = (1..1_000).take_while(passes).last().unwrap();
    assert!(count < 999, "it grows without end: {}", &shape(3));
    policy(&shape(count))
}

fn on_stack<T: Send>(size: usize, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(size).spawn_scoped(scope, work).unwrap();
        thread.join().unwrap()
    })
}

/// What Cedar says of one call under this policy and a permit for all: decision, deciding and failing policies.
fn decided(text: &str) -> Option<(Decision, BTreeSet<String>, BTreeSet<String>)> {
    let mut policies = PolicySet::new();
    policies.add(Policy::parse(Some(PolicyId::new("worst")), text).ok()?).unwrap();
    let all = Policy::parse(Some(PolicyId::new("all")), "permit (principal, action, resource);").unwrap();
    policies.add(all).unwrap();
    let request = Request::new(
        "DocsApi::SecretKey::\"k\"".parse().unwrap(),
        "DocsApi::Action::\"listJobs\"".parse().unwrap(),
        "DocsApi::Environment::\"e\"".parse().unwrap(),
        Context::from_json_value(serde_json::json!({"secure": true, "path": "/"}), None).unwrap(),
        None,
    );
    let response = Authorizer::new().is_authorized(&request.unwrap(), &policies, &Entities::empty());
    let reasons = response.diagnostics().reason().map(ToString::to_string).collect();
    let errors = response.diagnostics().errors().map(ToString::to_string).collect();
    Some((response.decision(), reasons, errors))
}

#[test]
fn the_worst_text_that_passes_the_scan_is_decided_alike_on_a_small_and_a_large_stack() {
    let mut parsed = 0;
    for (what, shape) in SHAPES {
        let text = worst(shape);
        let small = on_stack(SMALL, || decided(&text));
        assert_eq!(small, on_stack(LARGE, || decided(&text)), "{what}");
        parsed += usize::from(small.is_some());
    }
    // Cedar has a limit of its own for signs, and knows no such entity type or attribute.
    assert!(parsed >= 14, "too many of the texts do not parse: {parsed}");
}

#[test]
fn the_worst_text_that_passes_the_scan_is_built_on_a_small_stack() {
    for (what, shape) in SHAPES {
        let bundle = with(POLICIES, |text| format!("{text}\n{}", worst(shape)));
        let (small, large) = (on_stack(SMALL, || outcome(&bundle)), on_stack(LARGE, || outcome(&bundle)));
        assert_eq!(small, large, "{what}");
    }
}

#[test]
fn the_worst_text_that_passes_the_scan_is_laid_out_on_a_small_stack() {
    let mut laid_out = 0;
    for (what, shape) in SHAPES {
        let text = worst(shape);
        let small = on_stack(SMALL, || format("f", &text).map_err(|rejection| rejection.to_string()));
        let large = on_stack(LARGE, || format("f", &text).map_err(|rejection| rejection.to_string()));
        assert_eq!(small, large, "{what}");
        laid_out += usize::from(small.is_ok());
    }
    assert!(laid_out >= 14, "too many of the texts do not parse: {laid_out}");
    for (what, shape) in SHAPES {
        assert!(on_stack(SMALL, || format("f", &policy(&shape(100_000)))).is_err(), "{what}");
    }
    // A list is as flat as it is long to the parser, and not to the formatter.
    let list = |count| policy(&format!("[{}].contains(context.path)", vec!["\"n\""; count].join(", ")));
    assert!(on_stack(LARGE, || format("f", &list(9_900))).is_ok());
    assert!(on_stack(SMALL, || format("f", &list(50_000))).is_err());
}

#[test]
fn the_same_mistakes_are_told_alike_each_time_and_not_without_end() {
    let bundle = with(POLICIES, |text| format!("{text}\n{}", policy("context.secure > 1\n").repeat(300)));
    let told = Revision::build(&bundle).map(drop).unwrap_err();
    assert_eq!(Revision::build(&bundle).map(drop).unwrap_err(), told);
    let lines: Vec<_> = told.problems.iter().filter_map(|problem| problem.line).collect();
    assert!(lines.len() == 100 && lines.is_sorted(), "{lines:?}");
    assert!(told.to_string().ends_with("200 more problems are not shown"), "{told}");
}

/// What is wrong, without Cedar's "did you mean": of names that are as near, it picks any.
fn outcome(bundle: &Bundle) -> Result<(), String> {
    Revision::build(bundle).map(drop).map_err(|rejection| rejection.to_string())
}

#[test]
fn what_is_too_deep_is_refused_with_its_place_and_never_parsed() {
    for (what, shape) in SHAPES {
        for count in [250, 5_000, 100_000] {
            let bundle = with(POLICIES, |text| format!("{text}\n{}", policy(&shape(count))));
            let problems = on_stack(SMALL, || Revision::build(&bundle).map(drop)).unwrap_err().problems;
            let places: Vec<_> = problems.iter().map(|problem| (&*problem.file, problem.line)).collect();
            assert_eq!(places, [(POLICIES, Some(66))], "{what}");
            assert!(
                ["nested more than", "operators in one"].iter().any(|words| problems[0].message.contains(words)),
                "{what}: {}",
                problems[0].message
            );
        }
    }
}

#[test]
fn a_schema_that_is_too_deep_or_too_long_is_refused_and_never_parsed() {
    let declared =
        |text: String| with(SCHEMA, |schema| schema.replacen("entity Account;", &format!("entity Account; {text}"), 1));
    let chain = |count, link: Shape| (0..count).map(link).collect::<String>();
    let cases = [
        ("sets", format!("type Deep = {}String{};", "Set<".repeat(5_000), ">".repeat(5_000))),
        ("records", format!("type Deep = {}String{};", "{a: ".repeat(5_000), "}".repeat(5_000))),
        ("memberships", chain(5_000, |at| format!("entity Q{at} in Q{};", at + 1))),
        ("aliases", chain(5_000, |at| format!("type T{at} = T{};", at + 1))),
        ("groups", chain(5_000, |at| format!("action q{at} in q{};", at + 1))),
    ];
    for (what, text) in cases {
        let problems = on_stack(SMALL, || Revision::build(&declared(text)).map(drop)).unwrap_err().problems;
        let places: Vec<_> = problems.iter().map(|problem| (&*problem.file, problem.line)).collect();
        assert_eq!(places, [(SCHEMA, Some(5))], "{what}");
    }
}

#[test]
fn the_longest_chains_of_a_schema_that_pass_the_scan_are_built_on_a_small_stack() {
    let cases: [(&str, Shape, &str); 3] = [
        ("aliases", |at| format!("type T{at} = {{ a: T{} }};", at + 1), "type T1900 = String;"),
        ("memberships", |at| format!("entity T{at} in T{};", at + 1), "entity T1900;"),
        ("groups", |at| format!("action t{at} in t{};", at + 1), "action t1900;"),
    ];
    for (what, link, last) in cases {
        let chain: String = (0..1_900).map(link).chain([last.to_owned()]).collect();
        let bundle = with(SCHEMA, |text| text.replacen("entity Account;", &format!("entity Account; {chain}"), 1));
        assert_eq!(on_stack(SMALL, || outcome(&bundle)), Ok(()), "{what}");
    }
}
