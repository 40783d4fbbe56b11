//! Scopes written into files: what is added, what stays, and what is refused.

use super::*;
use crate::policy::format;
use crate::policy::tests::{POLICIES, SCHEMA, shipped, with};

const TESTS: &str = "policies/tests/docs-api.toml";

fn scope(name: &str, routes: &[&str]) -> NewScope {
    let route = |line: &&str| NewRoute { line: (*line).to_owned(), action: None };
    NewScope { name: name.to_owned(), routes: routes.iter().map(route).collect(), item: None }
}

fn extended(bundle: &Bundle, scope: &NewScope) -> Result<Vec<Edit>, ExtendError> {
    let revision = Revision::build(bundle).unwrap_or_else(|rejection| panic!("{}", rejection.render()));
    extend(bundle, &revision, scope, "resources:read")
}

/// The bundle with the first of the edits in place.
fn edited(bundle: &Bundle, edits: &[Edit]) -> Bundle {
    let before = bundle.files().map(|(path, text)| (path.to_owned(), text.to_owned()));
    Bundle::from_files(before.chain(edits.iter().map(|edit| (edit.file.clone(), edit.after.clone()))))
}

/// The lines that an edit adds, after making sure that it takes nothing away.
fn added(edit: &Edit) -> Vec<String> {
    let before = edit.before.as_deref().unwrap_or_default();
    let diff = similar::TextDiff::from_lines(before, &edit.after);
    let changed =
        |tag| diff.iter_all_changes().filter(move |change| change.tag() == tag).map(|change| change.value().to_owned());
    let (deleted, inserted) = (changed(similar::ChangeTag::Delete), changed(similar::ChangeTag::Insert));
    let inserted: Vec<String> = inserted.collect();
    for line in deleted {
        // A line to which something was added is there, longer.
        let mut wanted = line.chars().filter(|character| !character.is_whitespace()).peekable();
        let longer = inserted.iter().any(|longer| {
            for character in longer.chars() {
                if wanted.peek() == Some(&character) {
                    wanted.next();
                }
            }
            wanted.peek().is_none()
        });
        assert!(longer, "{line:?} is gone");
    }
    inserted.into_iter().filter(|line| !line.trim().is_empty()).map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn a_scope_with_new_routes_is_written_into_three_files_and_nothing_else_changes() {
    let scope = scope("invoices:write", &["POST /v1/invoices", "DELETE /v1/invoices/{id}"]);
    let edits = extended(&shipped(), &scope).unwrap();
    assert_eq!(edits.iter().map(|edit| edit.file.as_str()).collect::<Vec<_>>(), [TESTS, POLICIES, SCHEMA]);
    assert_eq!(
        added(&edits[2]),
        [
            "  entity Scope enum [\"resources:read\", \"resources:write\", \"jobs:write\", \"webhooks:write\", \"invoices:write\"];",
            "  entity Invoice in [Environment];",
            "  action \"resources:read\", \"resources:write\", \"jobs:write\", \"webhooks:write\", \"invoices:write\";",
            "  // Invoices",
            "  @http(\"POST /v1/invoices\")",
            "  action createInvoice in [\"invoices:write\"]",
            "    appliesTo { principal: [Anonymous, PublishableKey, SecretKey, RestrictedKey], resource: [Environment], context: Call };",
            "  @http(\"DELETE /v1/invoices/{id}\")",
            "  action deleteInvoice in [\"invoices:write\"]",
            "    appliesTo { principal: [Anonymous, PublishableKey, SecretKey, RestrictedKey], resource: [Invoice], context: Call };",
        ]
    );
    assert_eq!(
        added(&edits[1]),
        [
            "@id(\"scope-invoices-write\")",
            "permit (",
            "  principal in DocsApi::Scope::\"invoices:write\",",
            "  action in DocsApi::Action::\"invoices:write\",",
            "  resource",
            ")",
            "when { resource in principal.environment };",
        ]
    );
    assert!(added(&edits[0]).iter().filter(|line| *line == "[[test]]").count() == 2);
    let made =
        Revision::build(&edited(&shipped(), &edits)).unwrap_or_else(|rejection| panic!("{}", rejection.render()));
    assert!(has_scope(&made, &scope));
    assert_eq!(format(POLICIES, &edits[1].after).unwrap(), edits[1].after, "it has the layout that fmt gives");
}

#[test]
fn routes_that_there_are_get_the_scope_besides_the_others() {
    let scope = scope("jobs:read", &["GET /v1/jobs", "GET /v1/jobs/{job}", "POST /v1/jobs/{id}/cancel"]);
    let edits = extended(&shipped(), &scope).unwrap();
    let schema = &edits[2].after;
    for line in [
        "  action listJobs in [\"jobs:read\"]\n",
        "  action getJob in [\"jobs:read\"]\n",
        "  action cancelJob in [\"jobs:write\", \"jobs:read\"]\n",
    ] {
        assert!(schema.contains(line), "{schema}");
    }
    assert_eq!(schema.matches("@http(").count(), 14, "no route is declared twice");
    let made =
        Revision::build(&edited(&shipped(), &edits)).unwrap_or_else(|rejection| panic!("{}", rejection.render()));
    assert!(has_scope(&made, &scope));
}

#[test]
fn items_are_of_the_type_that_they_have_on_other_routes() {
    let edits = extended(&shipped(), &scope("hooks:test", &["POST /v1/webhooks/{id}/test"])).unwrap();
    assert!(edits[2].after.contains("action testWebhook in [\"hooks:test\"]\n"));
    assert!(edits[2].after.contains("resource: [Webhook], context: Call };\n}"));
    let named = NewScope {
        routes: vec![NewRoute { line: "GET /v1/teams/{_team}/odd-ones/{id}".into(), action: Some("lookAt".into()) }],
        item: Some("OddOne".into()),
        ..scope("odd", &[])
    };
    let edits = extended(&shipped(), &named).unwrap();
    assert!(
        edits[2].after.contains("entity OddOne in [Environment];")
            && edits[2].after.contains("action lookAt in [\"odd\"]\n")
    );
}

#[test]
fn a_scope_is_added_beside_one_that_grants_everything() {
    let everything = "@id(\"everything\") permit (principal in DocsApi::Scope::\"webhooks:write\", action, resource) when { resource in principal.environment };";
    let bundle = with(POLICIES, |text| format!("{text}\n{everything}\n"));
    let files =
        bundle.files().filter(|(path, _)| *path != TESTS).map(|(path, text)| (path.to_owned(), text.to_owned()));
    let bundle = Bundle::from_files(files);
    let edits = extended(&bundle, &scope("invoices:write", &["POST /v1/invoices"])).unwrap();
    assert_eq!((edits[0].file.as_str(), &edits[0].before), ("policies/tests/invoices-write.toml", &None));
    crate::activate::vet::check(&edited(&bundle, &edits)).unwrap_or_else(|rejection| panic!("{}", rejection.render()));
}

#[test]
fn until_the_last_file_is_in_place_the_files_are_refused() {
    for scope in [
        scope("invoices:write", &["POST /v1/invoices"]),
        scope("jobs:cancel", &["POST /v1/jobs/{id}/cancel"]),
        scope("mixed", &["POST /v1/jobs/{id}/cancel", "GET /v1/invoices"]),
    ] {
        // Beside the shipped schema file, a second one, so that four files are edited.
        let bundle = split();
        for (bundle, count) in [(&shipped(), 3), (&bundle, 4)] {
            let edits = extended(bundle, &scope).unwrap();
            assert_eq!(edits.len(), count);
            for done in 1..edits.len() {
                let middle = edited(bundle, &edits[..done]);
                let checked = crate::activate::vet::check(&middle).map(drop);
                assert!(checked.is_err(), "{}: {done} of {count} files", scope.name);
            }
            crate::activate::vet::check(&edited(bundle, &edits))
                .unwrap_or_else(|rejection| panic!("{}", rejection.render()));
        }
    }
}

/// The shipped files with the actions in a schema file of their own.
fn split() -> Bundle {
    let shipped = shipped();
    let (_, schema) = shipped.schemas().next().unwrap();
    let at = schema.find("  action \"resources:read\"").unwrap();
    let (declarations, actions) =
        (format!("{}}}\n", &schema[..at]), format!("namespace DocsApi {{\n{}", &schema[at..]));
    let files = shipped.files().map(|(path, text)| (path.to_owned(), text.to_owned()));
    Bundle::from_files(
        files.chain([(SCHEMA.to_owned(), declarations), ("schemas/actions.cedarschema".to_owned(), actions)]),
    )
}

#[test]
fn other_ways_of_writing_a_schema_are_extended_as_they_are_written() {
    let groups = with(SCHEMA, |text| {
        text.replace(
            "  action \"resources:read\", \"resources:write\", \"jobs:write\", \"webhooks:write\";",
            "  action \"resources:read\";\n  action \"resources:write\";\n  action \"jobs:write\";   // jobs\n  action \"webhooks:write\";   // hooks",
        )
        .replace("[\"resources:read\", \"resources:write\", \"jobs:write\", \"webhooks:write\"]", "[\n    \"resources:read\",\n    \"resources:write\",\n    \"jobs:write\",\n    \"webhooks:write\"\n  ]")
        .replace("context: Call", "context: { secure: Bool, method: String, path: String, ip?: ipaddr, time: datetime }")
        .replace("in [\"jobs:write\"]", "in \"jobs:write\"")
    });
    let edits = extended(&groups, &scope("invoices:read", &["GET /v1/invoices"])).unwrap();
    let schema = &edits[2].after;
    assert!(schema.contains("    \"webhooks:write\",\n    \"invoices:read\"\n  ];"), "{schema}");
    assert!(schema.contains("  action \"webhooks:write\";   // hooks\n  action \"invoices:read\";\n"), "{schema}");
    assert!(schema.contains("action listInvoices in [\"invoices:read\"]\n    appliesTo { principal: [Anonymous, PublishableKey, SecretKey, RestrictedKey], resource: [Environment], context: { secure: Bool,"), "{schema}");
    let error = extended(&groups, &scope("jobs:all", &["POST /v1/jobs"])).unwrap_err().to_string();
    assert!(error.contains("enqueueJob are not written as a list") && error.contains("By hand"), "{error}");
}

#[test]
fn what_cannot_be_done_in_one_way_only_is_told_with_all_that_there_is_to_add() {
    let invoices = scope("invoices:write", &["POST /v1/invoices", "GET /v1/jobs"]);
    let cases = [
        ("two files of examples", with("policies/tests/more.toml", |_| "# none".into()), "several files of examples"),
        (
            "scopes in two files",
            with("policies/more.cedar", |_| {
                "permit (principal in DocsApi::Scope::\"jobs:write\", action == DocsApi::Action::\"getJob\", resource);"
                    .into()
            }),
            "in several files",
        ),
        (
            "no policy about a scope",
            with(POLICIES, |text| text[..text.find("// Restricted keys").unwrap()].to_owned()),
            "no policy is about a scope",
        ),
    ];
    for (what, bundle, words) in cases {
        let error = extended(&bundle, &invoices).unwrap_err().to_string();
        for part in [
            words,
            "Nothing was changed",
            "action \"invoices:write\";",
            "`action listJobs in […]`",
            "createInvoice",
            "@id(\"scope-invoices-write\")",
            "[[test]]",
        ] {
            assert!(error.contains(part), "{what}: {part}: {error}");
        }
    }
}

#[test]
fn what_is_asked_for_and_cannot_be_is_told_with_what_to_ask_for_instead() {
    let secret_only = with(SCHEMA, |text| {
        text.replacen("SecretKey, RestrictedKey], resource: [Job]", "SecretKey], resource: [Job]", 1).replacen(
            "in [\"jobs:write\"]\n    appliesTo { principal: [Anonymous, PublishableKey, SecretKey]",
            "appliesTo { principal: [Anonymous, PublishableKey, SecretKey]",
            1,
        )
    });
    for (bundle, scope, words) in [
        (shipped(), scope("", &["GET /v1/x"]), "no name for a scope"),
        (shipped(), scope("a\"b", &["GET /v1/x"]), "no name for a scope"),
        (shipped(), scope("jobs:write", &["GET /v1/x"]), "a scope \"jobs:write\" already"),
        (shipped(), scope("listJobs", &["GET /v1/x"]), "an action \"listJobs\" already"),
        (shipped(), scope("a", &[]), "at least one route"),
        (shipped(), scope("a", &["get /v1/x"]), "no method in upper case"),
        (shipped(), scope("a", &["GET /v1//x"]), "empty segment"),
        (shipped(), scope("a", &["GET /v1/a\"b"]), "characters"),
        (shipped(), scope("a", &["GET /v1/x/{a}/y/{b}"]), "{_name}"),
        (shipped(), scope("a", &["GET /v2/jobs"]), "an action \"listJobs\" already: give the new one a name"),
        (shipped(), scope("a", &["GET /v1/x", "GET /v2/x"]), "two of the routes"),
        (shipped(), scope("a", &["GET /{id}"]), "no part to make names of"),
        (shipped(), scope("a", &["GET /v1/2fa/{id}"]), "no name in a schema"),
        (secret_only, scope("a", &["POST /v1/jobs/{id}/cancel"]), "no restricted key call"),
    ] {
        match extended(&bundle, &scope) {
            Err(ExtendError::Asked(message)) => assert!(message.contains(words), "{words}: {message}"),
            other => panic!("{words}: {other:?}"),
        }
    }
    let renamed = NewScope {
        routes: vec![NewRoute { line: "GET /v1/jobs".into(), action: Some("other".into()) }],
        ..scope("a", &[])
    };
    assert!(extended(&shipped(), &renamed).unwrap_err().to_string().contains("is the action listJobs already"));
}
