//! `keyward policy diff` and what `policy check` says is proven, as a security engineer sees them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Serve, configure, keyward, keyward_with};

fn installed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, error) = keyward(&["init", "."], folder.path());
    assert_eq!(code, 0, "{error}");
    folder
}

fn save(folder: &Path, text: &str) {
    fs::write(folder.join("policies/edit.cedar"), text).unwrap();
}

const WIDER: &str = "@id(\"readers-see-webhooks\")\npermit (principal in DocsApi::Scope::\"resources:read\", action == \
                     DocsApi::Action::\"listWebhooks\", resource)\nwhen { resource in principal.environment };\n";
const NARROWER: &str = "@id(\"frozen\")\nforbid (principal, action in DocsApi::Action::\"resources:write\", resource == \
     DocsApi::Resource::\"res_frozen\");\n";
const SAME: &str = "@id(\"again\")\npermit (principal is DocsApi::SecretKey, action, resource is DocsApi::Job)\nwhen { \
                    resource in principal.environment };\n";

#[test]
fn two_folders_are_compared_with_an_example_and_an_exit_code_each() {
    let (before, after) = (installed(), installed());
    let from = before.path().to_str().unwrap();
    let diff = |arguments: &[&str]| {
        let all = [&["policy", "diff", "--from", from], arguments].concat();
        keyward(&all, after.path())
    };
    let (code, said, error) = diff(&[]);
    assert_eq!(code, 0, "{said}{error}");
    assert!(said.starts_with("nothing has changed; "), "{said}");
    for (text, code, parts) in [
        (SAME, 0, ["nothing has changed", "proven"]),
        (NARROWER, 2, ["- narrowed for secret: ", "before: allowed by secret-full-access"]),
        (
            WIDER,
            3,
            [
                "+ widened for restricted, resources:read: listWebhooks (GET /v1/webhooks)",
                "after:  allowed by readers-see-webhooks",
            ],
        ),
    ] {
        save(after.path(), text);
        let (ended, said, error) = diff(&[]);
        assert_eq!(ended, code, "{said}{error}");
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
    let (code, said, _) = diff(&["--json"]);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &told["rows"][0]["change"]), (3, &Value::from("widened")));
    assert_eq!(told["rows"][0]["subject"]["scopes"], serde_json::json!(["resources:read"]));
    // Without a solver it is only tried, and that is said.
    save(after.path(), SAME);
    let without = [("KEYWARD_POLICIES__SOLVER", "no-such-solver")];
    let (code, said, error) = keyward_with(&["policy", "diff", "--from", from], after.path(), &without);
    assert_eq!(code, 0, "{said}{error}");
    assert!(
        error.contains("nothing is proven: no-such-solver is not there") && said.contains("it is not proven"),
        "{said}{error}"
    );
    let (code, _, error) = diff(&["--to", "nowhere"]);
    assert!(code == 64 && error.contains("nowhere is no folder"), "{error}");
    let (code, _, error) = diff(&["--unheard-of"]);
    assert!(code == 64 && error.contains("--unheard-of"), "2 is an answer of this command: {error}");
    save(after.path(), "permit (");
    let (code, _, error) = diff(&[]);
    assert!(code == 1 && error.contains("policies/edit.cedar:1:9"), "{error}");
}

#[test]
fn an_edit_is_compared_with_what_a_running_daemon_serves() {
    let folder = tempfile::tempdir().unwrap();
    let (code, said, error) = keyward(&["init", "."], folder.path());
    assert_eq!(code, 0, "{error}");
    let token = said.split_whitespace().find(|word| word.starts_with("kw_")).unwrap().to_owned();
    configure(folder.path(), &[]);
    let folder = std::sync::Arc::new(folder);
    let serve = Serve::start_in(std::sync::Arc::clone(&folder), vec![]);
    // The edit is elsewhere: what the daemon watches stays as it is.
    let edited = installed();
    save(edited.path(), WIDER);
    let variables = [("KEYWARD_URL", serve.admin.as_str()), ("KEYWARD_TOKEN", token.as_str())];
    let (code, said, error) = keyward_with(&["policy", "diff"], edited.path(), &variables);
    assert_eq!(code, 3, "{said}{error}");
    assert!(said.contains("+ widened for restricted, resources:read"), "{said}");
    let (code, _, error) = keyward_with(&["policy", "diff", "--from", "00000000"], edited.path(), &variables);
    assert_eq!(code, 5, "{error}");
    let (code, _, error) = keyward_with(&["policy", "diff"], edited.path(), &variables[..1]);
    assert_eq!(code, 77, "3 is an answer of this command: {error}");
    assert!(error.contains("you are not signed in"), "{error}");
}

#[test]
fn a_check_says_what_is_proven_and_refuses_what_is_not_where_it_must_be() {
    let folder = installed();
    let (code, said, error) = keyward(&["policy", "check"], folder.path());
    assert_eq!(code, 0, "{error}");
    assert!(said.contains("proven      guarantee-secret-stays-in-its-environment\n"), "{said}");
    assert!(said.contains("proven      no policy can fail\n"), "{said}");
    let without = [("KEYWARD_POLICIES__SOLVER", "no-such-solver")];
    let (code, said, error) = keyward_with(&["policy", "check"], folder.path(), &without);
    assert!(code == 0 && said.contains("not proven  guarantee-https-only: no solver was asked"), "{said}{error}");
    let must = [without[0], ("KEYWARD_POLICIES__GUARANTEES", "prove")];
    let (code, _, error) = keyward_with(&["policy", "check"], folder.path(), &must);
    assert!(code == 1 && error.contains("guarantees/docs-api.cedar:3:1: the guarantee"), "{error}");
    save(folder.path(), "@id(\"oops\")\npermit (principal is DocsApi::SecretKey, action, resource is DocsApi::Job);\n");
    let (code, _, error) = keyward(&["policy", "check"], folder.path());
    assert!(code == 1 && error.contains("policies/edit.cedar:1:1: the guarantee"), "{error}");
    let enforced = [("KEYWARD_POLICIES__GUARANTEES", "enforce-only")];
    let (code, said, _) = keyward_with(&["policy", "check"], folder.path(), &enforced);
    assert!(code == 0 && said.contains("not proven"), "{said}");
}
