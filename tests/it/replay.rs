//! Other policies against recorded decisions: what replay says would happen is what happens.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli_online::Person;
use crate::harness::Demo;

/// A copy of the demo's policies, without examples, which contradict what is tried here, and with these.
pub fn copy_policies(demo: &Demo, folder: &Path, more: &str) {
    fs::create_dir_all(folder.join("guarantees")).unwrap();
    for inner in ["", "guarantees"] {
        for entry in fs::read_dir(demo.policies().join(inner)).unwrap().flatten() {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), folder.join(inner).join(entry.file_name())).unwrap();
            }
        }
    }
    fs::write(folder.join("more.cedar"), if more.is_empty() { "// Nothing.\n" } else { more }).unwrap();
}

fn candidate(demo: &Demo, more: &str) -> PathBuf {
    let folder = demo.folder.path().join("candidate");
    let _ = fs::remove_dir_all(&folder);
    copy_policies(demo, &folder, more);
    folder
}

const CALLS: [(&str, &str, &str); 8] = [
    ("SK_LIVE", "GET", "/v1/resources/res_1"),
    ("SK_LIVE", "GET", "/v1/resources/res_2"),
    ("SK_TEST", "DELETE", "/v1/resources/res_1"),
    ("RK_LIVE", "GET", "/v1/jobs"),
    ("RK_LIVE", "POST", "/v1/jobs"),
    ("PK_LIVE", "GET", "/v1/resources"),
    ("SK_LIVE", "GET", "/v1/jobs"),
    ("", "GET", "/v1/resources"),
];

async fn decide(demo: &Demo, (token, method, path): (&str, &str, &str)) -> Value {
    let mut question = json!({ "method": method, "path": path, "ip": "192.0.2.7" });
    if !token.is_empty() {
        question["token"] = demo.get(token).into();
    }
    demo.authorize(question).await
}

/// How it ended, what it wrote and what it said.
fn replay(demo: &Demo, candidate: &Path, more: &[&str]) -> (i32, String, String) {
    let schemas = demo.schemas().display().to_string();
    let arguments = ["policy", "replay", "--candidate", candidate.to_str().unwrap(), "--schemas-dir", &schemas];
    Person::operator(demo).run(&[&arguments[..], more].concat(), "")
}

/// The same for scripts.
fn report(demo: &Demo, candidate: &Path, more: &[&str]) -> (i32, Value) {
    let (code, output, error) = replay(demo, candidate, &[&["--json"], more].concat());
    let report = serde_json::from_str(&output).unwrap_or_else(|_| panic!("{code}: {output}{error}"));
    assert_eq!(error.is_empty(), code == 0, "{error}");
    (code, report)
}

#[tokio::test]
async fn what_a_replay_says_would_happen_is_what_happens_once_the_candidate_is_in_force() {
    let demo = Demo::start();
    let mut before = Vec::new();
    for call in CALLS {
        before.push((call, decide(&demo, call).await));
    }
    assert_eq!(demo.reason("SK_LIVE", "/v1/../x").await, "path_ambiguous");
    let file = demo.folder.path().join("decisions.jsonl");
    let recorded = Person::operator(&demo).done(&["decisions", "export"]);
    assert_eq!(recorded.lines().count(), CALLS.len() + 1);
    fs::write(&file, &recorded).unwrap();
    let from = ["--from", file.to_str().unwrap()];
    fs::remove_dir_all(demo.policies().join("tests")).unwrap();
    for (more, code) in [
        ("", 0),
        ("@id(\"narrower\") forbid (principal, action, resource == DocsApi::Resource::\"res_1\");", 2),
        (
            "@id(\"narrower\") forbid (principal is DocsApi::SecretKey, action == DocsApi::Action::\"listJobs\", resource);
             @id(\"public\") permit (principal == DocsApi::Anonymous::\"anonymous\",
                action == DocsApi::Action::\"listResources\", resource) when { context.secure };
             @id(\"wider\") permit (principal is DocsApi::RestrictedKey, action in [DocsApi::Action::\"listJobs\",
                DocsApi::Action::\"enqueueJob\"], resource) when { resource in principal.environment };",
            3,
        ),
    ] {
        let candidate = candidate(&demo, more);
        let (ended, report) = report(&demo, &candidate, &from);
        assert_eq!(ended, code, "{report:#}");
        assert_eq!(report["not_decided_again"], json!({ "path_ambiguous": 1 }));
        let count = |name: &str| report["changes"][name].as_u64().unwrap();
        let groups = report["groups"].as_array().unwrap();
        // The claims, against the daemon once the candidate is in force.
        fs::copy(candidate.join("more.cedar"), demo.policies().join("more.cedar")).unwrap();
        demo.until_report(|now| now["active"]["digest"] == report["candidate"]).await;
        let (mut flips, mut changes) = (0, 0);
        for (call, was) in &before {
            let now = decide(&demo, *call).await;
            let ruled = |answer: &Value| json!({ "reason": answer["reason"], "policies": answer["policies"] });
            let is_of_call = |example: &Value| example["method"] == call.1 && example["path"] == call.2;
            let is_claim = |group: &&Value| {
                group["before"] == ruled(was)
                    && group["after"] == ruled(&now)
                    && group["examples"].as_array().unwrap().iter().any(is_of_call)
            };
            let is_claimed = groups.iter().find(is_claim).is_some();
            assert_eq!(is_claimed, ruled(was) != ruled(&now), "{call:?}: {was} {now} {report:#}");
            flips += u64::from((was["status"] == 200) != (now["status"] == 200));
            changes += u64::from(is_claimed);
        }
        assert_eq!(count("deny_to_allow") + count("allow_to_deny"), flips, "{report:#}");
        assert_eq!(count("same"), CALLS.len() as u64 - changes, "{report:#}");
    }
}

#[tokio::test]
async fn a_record_is_decided_again_with_the_key_as_it_was_and_not_as_it_is() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    for call in CALLS {
        decide(&demo, call).await;
    }
    let list = operator.json(&["keys", "list"]);
    for key in list["items"].as_array().unwrap() {
        let id = key["id"].as_str().unwrap();
        if key["kind"] == "restricted" {
            operator.done(&["keys", "update", id, "--scope", "jobs:write"]);
        }
        operator.done(&["keys", "revoke", id]);
    }
    let (code, report) = report(&demo, &candidate(&demo, ""), &[]);
    assert_eq!((code, &report["changes"]["same"]), (0, &json!(CALLS.len())), "{report:#}");
}

#[tokio::test]
async fn a_candidate_may_have_another_schema_and_people_are_told_what_would_become_of_calls() {
    let demo = Demo::start();
    assert_eq!(demo.reason("SK_LIVE", "/v1/reports").await, "no_route");
    assert_eq!(demo.reason("RK_LIVE", "/v1/jobs").await, "policy_denied");
    let outer = demo.folder.path().join("whole");
    fs::create_dir_all(&outer).unwrap();
    fs::rename(candidate(&demo, ""), outer.join("policies")).unwrap();
    fs::create_dir(outer.join("schemas")).unwrap();
    let schema = fs::read_to_string(demo.schemas().join("docs-api.cedarschema")).unwrap();
    let listing = "@http(\"GET /v1/resources\")";
    let more = "@http(\"GET /v1/reports\")\n  action listReports appliesTo { principal: [SecretKey], \
                resource: [Environment], context: Call };\n  ";
    fs::write(outer.join("schemas/api.cedarschema"), schema.replace(listing, &format!("{more}{listing}"))).unwrap();
    let (code, said, error) = replay(&demo, &outer, &[]);
    assert_eq!(code, 3, "{error}");
    assert!(error.contains("1 that were denied would be allowed"), "{error}");
    for part in ["2 recorded decisions", "1 come to the same", "1 were denied and would be allowed", "no_route"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.contains("allowed by secret-full-access") && said.contains("GET /v1/reports (request "), "{said}");

    // What cannot be tried is told.
    fs::write(outer.join("policies/more.cedar"), "permit (principal, action resource);").unwrap();
    let (code, _, error) = replay(&demo, &outer, &[]);
    assert!(code == 1 && error.contains("policies/more.cedar:1:27"), "{error}");
    fs::write(outer.join("policies/more.cedar"), "// Nothing.").unwrap();
    let lines = demo.folder.path().join("lines");
    let good = Person::operator(&demo).done(&["decisions", "export"]);
    fs::write(&lines, format!("{good}{{\"id\": 1}}")).unwrap();
    let (code, _, error) = replay(&demo, &outer, &["--from", lines.to_str().unwrap()]);
    assert!(code == 1 && error.contains("lines: line 3 is no recorded decision"), "{error}");
    let (code, _, error) = replay(&demo, Path::new("/nowhere"), &[]);
    assert!(code == 1 && error.contains("/nowhere"), "{error}");
    let stranger = Person { url: demo.get("ADMIN_URL"), token: String::new() };
    stranger.fails(&["policy", "replay", "--candidate", outer.to_str().unwrap()], 77, &["you are not signed in"]);
}
