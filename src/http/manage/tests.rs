//! What must hold of the operations as a set.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::policy::Bundle;

fn revision() -> Revision {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Revision::build(&Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap()).unwrap()
}

/// `METHOD path operation`, of each operation that the document describes.
fn described() -> BTreeSet<String> {
    let document = serde_json::to_value(operations().split_for_parts().1).unwrap();
    let mut found = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            found.insert(format!("{} {path} {id}", method.to_uppercase()));
        }
    }
    found
}

#[test]
fn each_route_is_an_operation_of_the_schema_and_the_other_way_round() {
    let revision = revision();
    let declared: BTreeSet<String> =
        revision.management().operations().map(|(route, operation)| format!("{route} {}", operation.name)).collect();
    assert_eq!(described(), declared);
}

#[test]
fn each_operation_but_signing_in_asks_for_a_token_and_says_what_it_answers_when_refused() {
    let document = serde_json::to_value(operations().split_for_parts().1).unwrap();
    assert_eq!(document["openapi"].as_str().unwrap().split('.').take(2).collect::<Vec<_>>(), ["3", "1"]);
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap();
            for status in ["400", "401", "403", "404", "409", "503"] {
                assert!(answers.contains_key(status), "{method} {path}: {status}");
            }
            assert_eq!(operation.get("security").is_some(), path == "/v1/sign-in", "{method} {path}");
            assert!(operation["summary"].is_string(), "{method} {path}");
        }
    }
}
