//! The schema and policies that come with Keyward: in the binary, to be copied to where they are edited.

use std::fs;
use std::io;
use std::path::Path;

/// Each file by its path, with its text.
pub(crate) const FILES: [(&str, &str); 7] = [
    ("schemas/docs-api.cedarschema", include_str!("../schemas/docs-api.cedarschema")),
    ("schemas/keyward.cedarschema", include_str!("../schemas/keyward.cedarschema")),
    ("policies/management.cedar", include_str!("../policies/management.cedar")),
    ("policies/docs-api.cedar", include_str!("../policies/docs-api.cedar")),
    ("policies/guarantees/docs-api.cedar", include_str!("../policies/guarantees/docs-api.cedar")),
    ("policies/tests/docs-api.toml", include_str!("../policies/tests/docs-api.toml")),
    ("policies/tests/management.toml", include_str!("../policies/tests/management.toml")),
];

/// Copies the shipped files below `schemas/` and `policies/` in `folder`, unless the folder has these already: what
/// people have edited is theirs.
///
/// # Errors
/// When a file cannot be written.
pub fn copy_to(folder: &Path) -> io::Result<()> {
    for top in ["schemas", "policies"] {
        if folder.join(top).exists() {
            continue;
        }
        for (path, text) in FILES.iter().filter(|(path, _)| path.starts_with(top)) {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap_or(folder))?;
            fs::write(path, text)?;
        }
    }
    Ok(())
}
