//! What the management API says that a key may do is what calls with the key come to, whatever the policies say.

use std::fs;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::harness::Demo;
use crate::manage::Person;

const ROUNDS: usize = 16;
const SCOPES: [&str; 4] = ["resources:read", "resources:write", "jobs:write", "webhooks:write"];
const ADDRESSES: [&str; 3] = ["192.0.2.7", "198.51.100.1", "2001:db8::7"];
/// Ids of items, and how a path spells them; the last one no path can name.
const ITEMS: [(&str, &str); 4] = [("res_1", "res_1"), ("a b", "a%20b"), ("grün", "gr%C3%BCn"), ("x/y", "item")];

/// A policy, without its name, that the shipped schema takes.
fn policy() -> impl Strategy<Value = String> {
    let principal = select(
        &[
            "principal",
            "principal is DocsApi::PublishableKey",
            "principal is DocsApi::SecretKey",
            "principal is DocsApi::RestrictedKey",
            "principal in DocsApi::Scope::\"resources:read\"",
            "principal in DocsApi::Scope::\"jobs:write\"",
        ][..],
    );
    let action = select(
        &[
            "action",
            "action in DocsApi::Action::\"resources:read\"",
            "action in DocsApi::Action::\"webhooks:write\"",
            "action == DocsApi::Action::\"getResource\"",
            "action == DocsApi::Action::\"listJobs\"",
            "action in [DocsApi::Action::\"createResource\", DocsApi::Action::\"cancelJob\"]",
        ][..],
    );
    let of_calls = select(
        &[
            "context.method == \"GET\"",
            "context.path like \"/v1/resources*\"",
            "context.path like \"*1\"",
            "context.path == \"/v1/jobs/a b\"",
            "context.path == \"/v1/webhooks/grün\"",
            "context has ip && context.ip.isInRange(ip(\"192.0.2.0/24\"))",
            "context has ip && context.ip.isIpv6()",
            "context.time > datetime(\"2020-01-01\")",
            "context.secure",
        ][..],
    );
    let of_keys = select(
        &[
            "resource in principal.environment",
            "principal.environment.mode == \"live\"",
            "principal.environment.mode == \"test\" || context.method == \"DELETE\"",
        ][..],
    );
    let clause = |condition| (any::<bool>(), condition);
    (any::<bool>(), principal, action, vec(clause(of_calls), 0..3), vec(clause(of_keys), 0..2)).prop_map(
        |(permits, principal, action, of_calls, of_keys)| {
            // Who calls without a key has no environment.
            let of_keys = if principal == "principal" { vec![] } else { of_keys };
            let effect = if permits { "permit" } else { "forbid" };
            let clauses = of_calls.into_iter().chain(of_keys);
            let clauses = clauses.map(|(is, what)| format!(" {} {{ {what} }}", if is { "when" } else { "unless" }));
            format!("{effect} ({principal}, {action}, resource){};\n", clauses.collect::<String>())
        },
    )
}

/// Keys of each kind and mode, with each set of scopes, with and without a list of addresses, and one that is off.
async fn keys(operator: &Person) -> Vec<(String, String)> {
    let account = operator.account().await;
    let mut keys = Vec::new();
    for kind in ["publishable", "secret"] {
        for mode in ["live", "test"] {
            keys.push(operator.key(&account, kind, mode).await);
        }
    }
    for subset in 1..16_usize {
        let granted: Vec<_> = (0..4).filter(|bit| subset >> bit & 1 == 1).map(|bit| SCOPES[bit]).collect();
        let addresses = if subset % 3 == 0 { json!(["192.0.2.0/24", "2001:db8::/32"]) } else { json!([]) };
        let mode = if subset % 2 == 0 { "test" } else { "live" };
        let body =
            json!({ "kind": "restricted", "mode": mode, "name": "w", "scopes": granted, "addresses": addresses });
        let made = operator.done("POST", &format!("/v1/accounts/{account}/keys"), body).await;
        keys.push((made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned()));
    }
    let off = operator.key(&account, "secret", "live").await;
    operator.done("POST", &format!("/v1/keys/{}/disable", off.0), Value::Null).await;
    keys.push(off);
    keys
}

/// Asks what a key may do, and then does all of it; how many actions those were.
async fn agree(
    demo: &Demo,
    operator: &Person,
    (key, token): &(String, String),
    (item, spelled): (&str, &str),
    address: &str,
    policies: &str,
) -> usize {
    let request = operator.request("GET", &format!("/v1/keys/{key}/permissions"));
    let said = request.query(&[("item", item), ("address", address)]).send().await.unwrap();
    let said: Value = said.json().await.unwrap();
    let permissions = said["items"].as_array().unwrap();
    let calls = permissions.iter().map(|permission| {
        let path = permission["path"].as_str().unwrap().replace("{id}", spelled);
        let mut call = json!({ "token": token, "method": permission["method"], "path": path, "ip": address });
        if spelled == "item" {
            call["resource"] = json!({ "id": item });
        }
        call
    });
    let url = format!("{}/v1/authorize/batch", demo.get("DECISION_URL"));
    let calls = json!({ "items": calls.collect::<Vec<_>>() });
    let real: Value = demo.client.post(url).json(&calls).send().await.unwrap().json().await.unwrap();
    for (permission, real) in permissions.iter().zip(real["items"].as_array().unwrap()) {
        for field in ["decision", "reason", "policies"] {
            assert_eq!(real[field], permission[field], "{item} from {address}: {permission}, with\n{policies}");
        }
        let missing = real.get("missing_scopes").cloned().unwrap_or(json!([]));
        assert_eq!(missing, permission["missing_scopes"], "{permission}, with\n{policies}");
        assert_eq!(real["revision"], said["revision"]);
    }
    permissions.len()
}

#[tokio::test]
async fn effective_permissions_are_what_real_calls_come_to() {
    let demo = Demo::start();
    let operator = Person::operator(&demo);
    let keys = keys(&operator).await;
    let mut pairs = 0;
    for key in &keys {
        for (item, address) in [(ITEMS[0], ADDRESSES[0]), (ITEMS[1], ADDRESSES[1]), (ITEMS[3], ADDRESSES[2])] {
            pairs += agree(&demo, &operator, key, item, address, "the shipped policies").await;
        }
    }
    assert!(pairs > 800, "{pairs}");

    // The shipped tests and guarantees would refuse most of what is tried here.
    for folder in ["tests", "guarantees"] {
        fs::remove_dir_all(demo.policies().join(folder)).unwrap();
    }
    demo.until_report(|report| !report.to_string().contains("guarantee-https-only")).await;
    let mut runner = TestRunner::default();
    let (mut taken, mut refused_before) = (0, Value::Null);
    for round in 0..ROUNDS {
        let policies = vec(policy(), 1..6).new_tree(&mut runner).unwrap().current();
        let named = policies.iter().enumerate().map(|(at, policy)| format!("@id(\"round-{round}-{at}\")\n{policy}"));
        let text = named.collect::<String>();
        let new = demo.policies().join("generated.new");
        fs::write(&new, &text).unwrap();
        fs::rename(new, demo.policies().join("generated.cedar")).unwrap();
        let name = format!("round-{round}-0");
        let is_refused = |report: &Value| !report["refused"].is_null() && report["refused"] != refused_before;
        let is_done = |report: &Value| report["policies"].to_string().contains(&name) || is_refused(report);
        let report = demo.until_report(is_done).await;
        // One that could never apply is refused, and the round with it.
        if is_refused(&report) {
            assert!(report["refused"].to_string().contains("generated.cedar"), "{report}");
            refused_before = report["refused"].clone();
            continue;
        }
        taken += 1;
        for (at, key) in keys.iter().enumerate() {
            let (item, address) = (ITEMS[(at + round) % ITEMS.len()], ADDRESSES[(at + round / 4) % ADDRESSES.len()]);
            agree(&demo, &operator, key, item, address, &text).await;
        }
    }
    assert!(taken > ROUNDS / 2, "{taken} of {ROUNDS} rounds");
}
