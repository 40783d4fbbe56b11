//! Tests of the room as a whole: edits that people make, hostile texts, slices against the whole set, routes against a second reading.

mod edits;
mod hostile;
pub(super) mod routing;
mod slices;

use std::collections::BTreeMap;

use super::{Bundle, Problem, Revision};

pub(super) const POLICIES: &str = "policies/docs-api.cedar";
pub(super) const SCHEMA: &str = "schemas/docs-api.cedarschema";

/// The shipped files.
pub(super) fn shipped() -> Bundle {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap()
}

/// The shipped files with one of them changed, or a new one.
pub(super) fn with(path: &str, change: impl Fn(&str) -> String) -> Bundle {
    let mut files: BTreeMap<String, String> =
        shipped().files().map(|(path, text)| (path.to_owned(), text.to_owned())).collect();
    let text = change(files.get(path).map_or("", String::as_str));
    files.insert(path.to_owned(), text);
    Bundle::from_files(files)
}
