//! Edits, good and bad, as people make them.

use super::*;

#[test]
fn the_shipped_files_make_a_revision() {
    let revision = Revision::build(&shipped()).unwrap_or_else(|rejection| panic!("{}", rejection.render()));
    assert_eq!(revision.routes().count(), 14);
    assert_eq!(revision.model().scopes.len(), 4);
    assert!(revision.policies().iter().any(|policy| policy.guarantee));
    let found = revision.find_route("GET", "/v1/resources/res_1").unwrap();
    assert_eq!((&*found.route.action_name, found.id), ("getResource", Some("res_1")));
    assert!(revision.find_route("GET", "/v1/resources/").is_none());
    assert!(revision.find_route("PUT", "/v1/resources").is_none());
    assert!(revision.find_route("get", "/v1/resources").is_none());
    assert!(revision.find_route("GET", "/v1/resources/a/b").is_none());
}

#[test]
fn a_bad_edit_is_refused_with_file_line_and_reason() {
    let add = |policy: &'static str| with(POLICIES, move |text| format!("{text}\n{policy}"));
    let schema = |from: &'static str, to: &'static str| {
        with(SCHEMA, move |text| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        })
    };
    let new = |path: &'static str, text: &'static str| with(path, move |_| text.to_owned());
    let cases: Vec<(&str, Bundle, &str, &str)> = vec![
        ("syntax", add("permit (principal, action resource);"), "policies/docs-api.cedar:66:27", "unexpected token"),
        (
            "unknown entity type",
            add("permit (principal is DocsApi::Robot, action, resource);"),
            "policies/docs-api.cedar:66:22",
            "Robot",
        ),
        (
            "unknown action",
            add("permit (principal, action == DocsApi::Action::\"fly\", resource);"),
            "policies/docs-api.cedar:66:30",
            "fly",
        ),
        (
            "type error",
            add("permit (principal, action, resource)\nwhen { context.secure > 1 };"),
            "policies/docs-api.cedar:67:8",
            "expected Long but saw Bool",
        ),
        (
            "duplicate @id",
            add("@id(\"publishable-reads\") permit (principal, action, resource);"),
            "policies/docs-api.cedar:66:1",
            "the one at policies/docs-api.cedar:7",
        ),
        (
            "duplicate across files",
            new("policies/more.cedar", "// more\n@id(\"secret-full-access\")\nforbid (principal, action, resource);"),
            "policies/more.cedar:2:1",
            "the one at policies/docs-api.cedar:16",
        ),
        (
            "template",
            add("permit (principal == ?principal, action, resource);"),
            "policies/docs-api.cedar:66:22",
            "template",
        ),
        (
            "half-written policies",
            with(POLICIES, |text| text[..text.len() / 2].to_owned()),
            "policies/docs-api.cedar:27:20",
            "unexpected end of input",
        ),
        (
            "half-written schema",
            with(SCHEMA, |text| text[..text.len() / 2].to_owned()),
            "schemas/docs-api.cedarschema:42:105",
            "unexpected token",
        ),
        (
            "another language",
            new("policies/more.cedar", "{\"effect\": \"permit\"}"),
            "policies/more.cedar:1:1",
            "unexpected token",
        ),
        (
            "no policy at all",
            Bundle::from_files([
                (SCHEMA.into(), shipped().schemas().next().unwrap().1.into()),
                (POLICIES.into(), "// gone".into()),
            ]),
            "policies",
            "no policy",
        ),
        ("10,000 deep", add_deep(), "policies/docs-api.cedar:66:76", "nested"),
        (
            "guarantee with a permit",
            with("policies/guarantees/docs-api.cedar", |text| format!("{text}\npermit (principal, action, resource);")),
            "policies/guarantees/docs-api.cedar:40:1",
            "must be a forbid",
        ),
        (
            "schema syntax",
            schema("entity Account;", "entity Account"),
            "schemas/docs-api.cedarschema:6:3",
            "unexpected token",
        ),
        ("no schema at all", with(SCHEMA, |_| String::new()), "", "no namespace"),
        ("no namespace", with(SCHEMA, |_| "entity A;".into()), "", "no namespace"),
        (
            "two namespaces",
            new("schemas/more.cedarschema", "namespace More { entity A; }"),
            "schemas/more.cedarschema:1:11",
            "several namespaces",
        ),
        ("no route", with(SCHEMA, |text| text.replace("@http", "@web")), "schemas", "no route"),
        (
            "schema drops a group that its actions are in",
            schema("action \"resources:read\", ", "action "),
            "schemas/docs-api.cedarschema:32:28",
            "resources:read",
        ),
        (
            "schema drops an action that policies use",
            {
                let mut files: BTreeMap<String, String> = schema("action listJobs", "action browseJobs")
                    .files()
                    .map(|(path, text)| (path.into(), text.into()))
                    .collect();
                files.insert(
                    "policies/more.cedar".into(),
                    "forbid (\n  principal,\n  action == DocsApi::Action::\"listJobs\",\n  resource\n);".into(),
                );
                Bundle::from_files(files)
            },
            "policies/more.cedar:3:13",
            "listJobs",
        ),
        (
            "undeclared type",
            schema("resource: [Environment], context: Call", "resource: [Widget], context: Call"),
            "schemas/docs-api.cedarschema:33:94",
            "Widget",
        ),
        (
            "undeclared type in another file",
            new("schemas/more.cedarschema", "namespace DocsApi {\n  entity Extra in [Nowhere];\n}"),
            "schemas/more.cedarschema:2:20",
            "Nowhere",
        ),
        (
            "declared twice",
            new("schemas/more.cedarschema", "namespace DocsApi {\n  entity Job;\n}"),
            "schemas/docs-api.cedarschema:17:3",
            "duplicate entity type",
        ),
        (
            "clashing routes",
            schema("POST /v1/jobs\"", "POST /v1/resources\""),
            "schemas/docs-api.cedarschema:37:9",
            "createResource and enqueueJob have the same method and path",
        ),
        (
            "clashing parameters",
            schema("GET /v1/jobs/{id}", "GET /v1/resources/{other}"),
            "schemas/docs-api.cedarschema:34:9",
            "getJob and getResource have the same method and path",
        ),
        (
            "item without parameter",
            schema("GET /v1/jobs/{id}", "GET /v1/the-job"),
            "schemas/docs-api.cedarschema:57:9",
            "no parameter",
        ),
        (
            "two resource types",
            schema("resource: [Job], context: Call", "resource: [Job, Webhook], context: Call"),
            "schemas/docs-api.cedarschema:51:9",
            "2 resource types",
        ),
        (
            "callers that never call",
            schema("RestrictedKey], resource: [Job]", "RestrictedKey, Job], resource: [Job]"),
            "schemas/docs-api.cedarschema:51:9",
            "which never call",
        ),
        (
            "missing entity type",
            with(SCHEMA, |text| text.replace("PublishableKey", "PublicKey")),
            "schemas/docs-api.cedarschema:3:11",
            "PublishableKey is missing",
        ),
        (
            "missing attribute",
            schema("{ mode: String }", "{ colour: String }"),
            "schemas/docs-api.cedarschema:6:10",
            "Environment does not fit",
        ),
        (
            "no caller without credentials",
            schema("[\"anonymous\"]", "[\"nobody\"]"),
            "schemas/docs-api.cedarschema:9:10",
            "Anonymous does not fit",
        ),
        (
            "keys that can have no scope",
            schema("in [Environment, Scope]", "in [Environment]"),
            "schemas/docs-api.cedarschema:11:10",
            "RestrictedKey does not fit",
        ),
        (
            "keys with more than is known",
            schema("in [Environment, Scope] {", "in [Environment, Scope] { owner: String,"),
            "schemas/docs-api.cedarschema:11:10",
            "RestrictedKey does not fit",
        ),
        (
            "keys in groups that nobody fills",
            schema(
                "PublishableKey, SecretKey in [Environment]",
                "Group; entity PublishableKey, SecretKey in [Environment, Group]",
            ),
            "schemas/docs-api.cedarschema:10:24",
            "nothing is ever put",
        ),
        (
            "an attribute of keys that nobody fills",
            schema("in [Environment, Scope] {", "in [Environment, Scope] { suspended?: Bool,"),
            "schemas/docs-api.cedarschema:11:10",
            "`suspended` is never filled",
        ),
        (
            "items with an attribute that nobody fills",
            schema("entity Resource, Job", "entity Resource in [Environment] { locked?: Bool };\n  entity Job"),
            "schemas/docs-api.cedarschema:35:9",
            "`locked` is never filled",
        ),
        (
            "a context that nobody fills",
            schema("secure: Bool,", "secure: Bool, country?: String,"),
            "schemas/docs-api.cedarschema:31:9",
            "context is not what",
        ),
        (
            "a policy that can never apply",
            new("policies/more.cedar", "forbid (principal is DocsApi::Account, action, resource);"),
            "policies/more.cedar:1:1",
            "",
        ),
        (
            "environments of no account",
            schema("Environment in [Account]", "Environment"),
            "schemas/docs-api.cedarschema:6:10",
            "Environment does not fit",
        ),
        (
            "scopes that are no list",
            with(SCHEMA, |text| {
                text.lines()
                    .map(
                        |line| {
                            if line.contains("Scope enum") { "entity Scope;\n".to_owned() } else { format!("{line}\n") }
                        },
                    )
                    .collect()
            }),
            "schemas/docs-api.cedarschema:14:8",
            "names no scopes",
        ),
        (
            "scope without a group",
            schema("\"webhooks:write\"];", "\"webhooks:write\", \"jobs:read\"];"),
            "schemas/docs-api.cedarschema:14:91",
            "\"jobs:read\" has no action group",
        ),
        (
            "items with more than is known",
            schema("entity Resource, Job", "entity Resource in [Environment] { owner: String };\n  entity Job"),
            "schemas/docs-api.cedarschema:35:9",
            "cannot be built",
        ),
        (
            "items in no environment",
            schema("Job, Webhook in [Environment]", "Job, Webhook"),
            "schemas/docs-api.cedarschema:34:9",
            "cannot be built",
        ),
        (
            "context with more than is known",
            schema("secure: Bool,", "secure: Bool, tenant: String,"),
            "schemas/docs-api.cedarschema:31:9",
            "context is not what",
        ),
        (
            "context without what is known",
            schema("method: String,", ""),
            "schemas/docs-api.cedarschema:31:9",
            "context is not what",
        ),
        (
            "context without what policies read",
            schema("secure: Bool,", ""),
            "policies/guarantees/docs-api.cedar:5:10",
            "attribute `secure` in context",
        ),
        (
            "context that demands an address",
            schema("ip?: ipaddr", "ip: ipaddr"),
            "schemas/docs-api.cedarschema:31:9",
            "context is not what",
        ),
        (
            "context with another address",
            schema("ip?: ipaddr", "ip?: String"),
            "schemas/docs-api.cedarschema:31:9",
            "context is not what",
        ),
    ];
    for (what, bundle, place, reason) in cases {
        let Err(rejection) = Revision::build(&bundle) else { panic!("{what}: not refused") };
        let Problem { file, line, column, message, .. } = &rejection.problems[0];
        let numbers = line.zip(*column).map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default();
        assert_eq!(format!("{file}{numbers}"), place, "{what}: {message}");
        assert!(message.contains(reason), "{what}: {message}");
    }
}

#[test]
fn everything_that_the_schema_lacks_is_told_at_once_and_what_is_common_once() {
    let problems = |bundle| Revision::build(&bundle).map(drop).unwrap_err().problems;
    let lacking = problems(with(SCHEMA, |text| {
        text.replace("PublishableKey", "PublicKey").replace("Account", "Customer").replace("Scope", "Right")
    }));
    let messages: Vec<&str> = lacking.iter().map(|problem| &*problem.message).collect();
    let missing = |word| format!("namespace DocsApi: the entity type {word} is missing");
    assert_eq!(messages, [missing("Account"), missing("PublishableKey"), missing("Scope")]);
    assert_eq!(problems(with(SCHEMA, |text| text.replace("ip?: ipaddr", "ip: ipaddr"))).len(), 1);
    assert_eq!(problems(with(SCHEMA, |text| text.replace("Job, Webhook in [Environment]", "Job, Webhook"))).len(), 3);
}

fn add_deep() -> Bundle {
    let deep =
        format!("permit (principal, action, resource) when {{ {}true{} }};", "(".repeat(10_000), ")".repeat(10_000));
    with(POLICIES, move |text| format!("{text}\n{deep}"))
}

#[test]
fn a_policy_without_an_id_is_named_by_its_place() {
    let revision =
        Revision::build(&with("policies/more.cedar", |_| "\n// why\nforbid (principal, action, resource);".into()))
            .unwrap();
    assert!(revision.policies().iter().any(|policy| policy.name == "more.cedar:3"));
}
