//! What is found, where, and what is not.

use super::*;
use crate::policy::tests::{POLICIES, SCHEMA, shipped, with};

const MORE: &str = "policies/more.cedar";

fn found(bundle: &Bundle) -> Vec<(String, String)> {
    let revision = Revision::build(bundle).unwrap_or_else(|rejection| panic!("{}", rejection.render()));
    let told = |finding: Finding| {
        let Problem { file, line, message, help, .. } = finding.problem;
        let line = line.map(|line| format!(":{line}")).unwrap_or_default();
        (format!("{} {file}{line}", finding.code), format!("{message}. {}", help.unwrap()))
    };
    lint(bundle, &revision).into_iter().map(told).collect()
}

fn places(bundle: &Bundle) -> Vec<String> {
    found(bundle).into_iter().map(|(place, _)| place).collect()
}

fn policy(text: &str) -> Bundle {
    with(MORE, |_| text.to_owned())
}

#[test]
fn nothing_is_found_in_the_shipped_files() {
    assert_eq!(found(&shipped()), []);
}

#[test]
fn each_mistake_is_found_where_it_is() {
    let schema = |from: &str, to: &str| {
        with(SCHEMA, |text| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        })
    };
    let scope = |more: &str| {
        let with_scope = schema("\"webhooks:write\"];", "\"webhooks:write\", \"jobs:read\"];\n  action \"jobs:read\";");
        let files = with_scope.files().map(|(path, text)| (path.to_owned(), text.to_owned()));
        Bundle::from_files(files.chain([(MORE.to_owned(), more.to_owned())]))
    };
    let cases: Vec<(&str, Bundle, &[&str], &str)> = vec![
        (
            "no name",
            policy("// what for\nforbid (principal, action, resource == DocsApi::Job::\"job_1\");"),
            &["no-id policies/more.cedar:2"],
            "no @id",
        ),
        (
            "an account that cannot be",
            policy("@id(\"a\")\nforbid (\n  principal in DocsApi::Account::\"vexart\",\n  action,\n  resource\n);"),
            &["no-such-id policies/more.cedar:3"],
            "nothing is ever DocsApi::Account::\"vexart\"",
        ),
        (
            "an environment that cannot be, in a condition",
            policy(
                "@id(\"a\")\nforbid (principal, action, resource)\nwhen { resource in DocsApi::Environment::\"live\" };",
            ),
            &["no-such-id policies/more.cedar:3"],
            "environment's id",
        ),
        (
            "a key that cannot be",
            policy("@id(\"a\")\nforbid (principal == DocsApi::SecretKey::\"sk\", action, resource);"),
            &["no-such-id policies/more.cedar:2"],
            "a key's id",
        ),
        (
            "a person who cannot be",
            with("policies/management/more.cedar", |_| {
                "@id(\"a\")\nforbid (principal == Keyward::User::\"ada\", action, resource);".into()
            }),
            &["no-such-id policies/management/more.cedar:2"],
            "a user's id",
        ),
        (
            "items that are called as people are",
            {
                let users = schema("entity Resource, Job,", "entity User, Resource, Job,");
                let files = users.files().map(|(path, text)| {
                    (
                        path.to_owned(),
                        text.replace("DocsApi::Resource::", "DocsApi::User::")
                            .replace("resource: [Resource]", "resource: [User]"),
                    )
                });
                let more = "@id(\"a\")\nforbid (principal, action, resource == DocsApi::User::\"ada\");";
                Bundle::from_files(files.chain([(MORE.to_owned(), more.to_owned())]))
            },
            &[],
            "",
        ),
        (
            "the same twice",
            policy(
                "@id(\"again\")\npermit (principal in DocsApi::Scope::\"jobs:write\", action in DocsApi::Action::\"jobs:write\", resource)\nwhen { resource in principal.environment };",
            ),
            &["identical policies/more.cedar:1"],
            "\"scope-jobs-write\" at policies/docs-api.cedar:",
        ),
        (
            "for everybody",
            policy("@id(\"a\")\npermit (principal, action == DocsApi::Action::\"listJobs\", resource);"),
            &["grants-to-everyone policies/more.cedar:1"],
            "also without credentials",
        ),
        (
            "for whoever has a key",
            policy(
                "@id(\"a\")\npermit (principal, action in DocsApi::Action::\"jobs:write\", resource) when { principal has environment };",
            ),
            &[],
            "",
        ),
        (
            "for calls without credentials",
            policy(
                "@id(\"a\")\npermit (principal == DocsApi::Anonymous::\"anonymous\", action == DocsApi::Action::\"listJobs\", resource);",
            ),
            &["grants-to-everyone policies/more.cedar:1"],
            "also without credentials",
        ),
        (
            "for everybody in management",
            with("policies/management/more.cedar", |_| {
                "@id(\"a\")\npermit (principal, action == Keyward::Action::\"getMe\", resource);".into()
            }),
            &["grants-to-everyone policies/management/more.cedar:1"],
            "everybody who has credentials",
        ),
        (
            "shadowed by scope",
            policy(
                "@id(\"a\") forbid (principal is DocsApi::RestrictedKey, action in DocsApi::Action::\"webhooks:write\", resource);",
            ),
            &["shadowed policies/docs-api.cedar:49", "unused-scope schemas/docs-api.cedarschema:14"],
            "\"a\" at policies/more.cedar:1",
        ),
        (
            "shadowed by conditions, route by route",
            policy(
                "@id(\"a\") forbid (principal is DocsApi::SecretKey, action in DocsApi::Action::\"jobs:write\", resource) unless { context.secure };\n@id(\"b\") forbid (principal, action, resource is DocsApi::Job) unless { context.secure };\n@id(\"c\") permit (principal is DocsApi::SecretKey, action in DocsApi::Action::\"jobs:write\", resource) when { context.path == \"/\" && !context.secure };",
            ),
            &["shadowed policies/more.cedar:3"],
            "forbidden by \"",
        ),
        (
            "not shadowed where one route is open",
            policy(
                "@id(\"a\") forbid (principal is DocsApi::SecretKey, action == DocsApi::Action::\"getResource\", resource);\n@id(\"b\") permit (principal is DocsApi::SecretKey, action in [DocsApi::Action::\"getResource\", DocsApi::Action::\"listJobs\"], resource);",
            ),
            &[],
            "",
        ),
        (
            "a contradiction",
            policy(
                "@id(\"a\") forbid (principal, action, resource) when { context.secure && context.path == \"/x\" } unless { context.path == \"/x\" };",
            ),
            &["never-applies policies/more.cedar:1"],
            "its opposite",
        ),
        (
            "about an action without a route",
            {
                let free = schema(
                    "action listJobs\n",
                    "action idle appliesTo { principal: [SecretKey], resource: [Job], context: Call };\n  @http(\"GET /v1/jobs2\")\n  action listJobs\n",
                );
                let free =
                    free.files().map(|(path, text)| (path.to_owned(), text.replace("  @http(\"GET /v1/jobs\")\n", "")));
                let more = "@id(\"a\") permit (principal is DocsApi::SecretKey, action == DocsApi::Action::\"idle\", resource);";
                Bundle::from_files(free.chain([(MORE.to_owned(), more.to_owned())]))
            },
            &["never-applies policies/more.cedar:1", "action-without-route schemas/docs-api.cedarschema:54"],
            "no route",
        ),
        (
            "a scope without routes",
            scope("// nothing"),
            &["scope-without-routes schemas/docs-api.cedarschema:14"],
            "no routes",
        ),
        (
            "a scope that nobody is granted",
            with(POLICIES, |text| {
                let (before, after) = text.split_once("@id(\"scope-webhooks-write\")").unwrap();
                format!("{before}{}", after.split_once("};\n").unwrap().1)
            }),
            &["unused-scope schemas/docs-api.cedarschema:14"],
            "no policy names the scope \"webhooks:write\"",
        ),
        (
            "routes that nobody may call",
            with(POLICIES, |text| text.replacen("action,\n", "action in DocsApi::Action::\"webhooks:write\",\n", 1)),
            &[
                "route-not-permitted schemas/docs-api.cedarschema:54",
                "route-not-permitted schemas/docs-api.cedarschema:57",
            ],
            "no policy lets anybody call GET /v1/jobs",
        ),
        (
            "a route that is forbidden to all",
            policy("@id(\"a\") forbid (principal, action == DocsApi::Action::\"listJobs\", resource);"),
            &["route-not-permitted schemas/docs-api.cedarschema:54"],
            "GET /v1/jobs",
        ),
        (
            "a method that no client sends",
            with(SCHEMA, |text| text.replacen("@http(\"GET /v1/jobs\")", "@http(\"FETCH /v1/jobs\")", 1)),
            &["unusual-method schemas/docs-api.cedarschema:54"],
            "FETCH is no method",
        ),
    ];
    let mut wrong = Vec::new();
    for (what, bundle, expected, words) in cases {
        let found = found(&bundle);
        let places: Vec<&str> = found.iter().map(|(place, _)| place.as_str()).collect();
        if places != expected || found.first().is_some_and(|(_, message)| !message.contains(words)) {
            wrong.push(format!("{what}: {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_meant_is_not_found() {
    for (policy_text, code) in [
        ("permit (principal, action == DocsApi::Action::\"listJobs\", resource);", "grants-to-everyone"),
        ("forbid (principal == DocsApi::SecretKey::\"sk\", action, resource);", "no-such-id"),
    ] {
        assert_eq!(places(&policy(&format!("@id(\"a\") {policy_text}"))).len(), 1, "{code}");
        let allowed = |codes: &str| places(&policy(&format!("@id(\"a\") @lint_allow(\"{codes}\") {policy_text}")));
        assert!(allowed(code).is_empty() && allowed(&format!("x, {code}")).is_empty(), "{code}");
        assert_eq!(allowed("no-id, shadow").len(), 1, "{code}");
    }
    let schema = |annotation: &str| {
        with(SCHEMA, |text| {
            text.replacen("  @http(\"GET /v1/jobs\")", &format!("  {annotation} @http(\"GET /v1/jobs\")"), 1)
        })
    };
    let idle = |annotation: &str| {
        let files = schema(annotation);
        let files = files.files().map(|(path, text)| (path.to_owned(), text.to_owned()));
        let more = "@id(\"a\") forbid (principal, action == DocsApi::Action::\"listJobs\", resource);";
        places(&Bundle::from_files(files.chain([(MORE.to_owned(), more.to_owned())])))
    };
    assert_eq!(idle(""), ["route-not-permitted schemas/docs-api.cedarschema:54"]);
    assert_eq!(idle("@lint_allow(\"route-not-permitted\")"), Vec::<String>::new());
}
