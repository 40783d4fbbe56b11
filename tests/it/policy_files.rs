//! What the command line does with policy files: lays them out, looks for what nobody meant, and adds a scope.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Demo, PATIENCE, keyward, keyward_fed, verdict};

fn init() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, error) = keyward(&["init", "."], folder.path());
    assert_eq!(code, 0, "{error}");
    folder
}

/// Every file below the schema's and the policies' folders, with its text.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut waiting = vec![folder.join("schemas"), folder.join("policies")];
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            found.push((path.display().to_string(), fs::read_to_string(path).unwrap()));
        }
    }
    found.sort();
    found
}

const UNTIDY: &str = "// why\n@id(\"x\") forbid(principal,action==DocsApi::Action::\"getJob\",resource) when {\n  context.path==\"/x\" }; // more\n";
const TIDY: &str = "// why\n@id(\"x\")\nforbid (\n  principal,\n  action == DocsApi::Action::\"getJob\",\n  resource\n)\nwhen { context.path == \"/x\" }; // more\n";

#[test]
fn what_init_makes_is_laid_out_and_nothing_is_found_in_it() {
    let folder = init();
    let before = files(folder.path());
    for arguments in [&["policy", "fmt", "--check"][..], &["policy", "fmt"]] {
        assert_eq!(keyward(arguments, folder.path()), (0, String::new(), String::new()), "{arguments:?}");
    }
    assert_eq!(files(folder.path()), before);
    let (code, output, error) = keyward(&["policy", "lint"], folder.path());
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(output.starts_with("nothing found in "), "{output}");
}

#[test]
fn fmt_lays_out_what_it_can_and_leaves_the_rest_alone() {
    let folder = init();
    let (good, bad) = (folder.path().join("policies/x.cedar"), folder.path().join("policies/y.cedar"));
    fs::write(&good, UNTIDY).unwrap();
    fs::set_permissions(&good, fs::Permissions::from_mode(0o640)).unwrap();
    let deep =
        format!("permit (principal, action, resource) when {{ {}true{} }};", "(".repeat(10_000), ")".repeat(10_000));
    for broken in ["\npermit (principal, action resource);", &deep] {
        fs::write(&good, UNTIDY).unwrap();
        fs::write(&bad, broken).unwrap();
        let (code, output, error) = keyward(&["policy", "fmt", "--check"], folder.path());
        assert_eq!((code, output), (1, format!("not formatted: {}\n", good.display())));
        assert!(error.contains("left as they are: 1 file") && error.contains("policies/y.cedar:"), "{error}");
        assert_eq!(fs::read_to_string(&good).unwrap(), UNTIDY);
        let (code, output, error) = keyward(&["policy", "fmt"], folder.path());
        assert_eq!((code, output), (1, format!("formatted: {}\n", good.display())), "{error}");
        assert_eq!(fs::read_to_string(&good).unwrap(), TIDY);
        assert_eq!(fs::read_to_string(&bad).unwrap(), broken);
    }
    assert_eq!(fs::metadata(&good).unwrap().permissions().mode() & 0o777, 0o640);
    let names = fs::read_dir(folder.path().join("policies")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with('.')), "nothing is left behind");
}

#[test]
fn fmt_takes_files_and_standard_input_without_any_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("any.cedar");
    fs::write(&file, UNTIDY).unwrap();
    let (code, output, error) = keyward(&["policy", "fmt", "--check", "any.cedar", "gone.cedar"], folder.path());
    assert_eq!((code, output.as_str()), (1, "not formatted: any.cedar\n"), "{error}");
    assert!(error.contains("gone.cedar: "), "{error}");
    assert_eq!(keyward(&["policy", "fmt", "any.cedar"], folder.path()).0, 0);
    assert_eq!(fs::read_to_string(&file).unwrap(), TIDY);
    let fed = |arguments: &[&str], text: &str| keyward_fed(arguments, folder.path(), &[], text);
    assert_eq!(fed(&["policy", "fmt", "-"], UNTIDY), (0, TIDY.to_owned(), String::new()));
    assert_eq!(fed(&["policy", "fmt", "--check", "-"], UNTIDY).0, 1);
    assert_eq!(fed(&["policy", "fmt", "--check", "-"], TIDY).0, 0);
}

#[test]
fn lint_tells_where_and_what_to_do_for_people_and_for_scripts() {
    let folder = init();
    let open = "\n@id(\"open\")\npermit (principal, action == DocsApi::Action::\"getJob\", resource);\n";
    fs::write(folder.path().join("policies/open.cedar"), open).unwrap();
    let (code, output, error) = keyward(&["policy", "lint"], folder.path());
    assert_eq!((code, error.as_str()), (1, "keyward: 1 finding\n"));
    for part in ["grants-to-everyone: policies/open.cedar:2:1: ", "2 | @id(\"open\")", "help: say who is meant"] {
        assert!(output.contains(part), "{part}: {output}");
    }
    let (code, output, _) = keyward(&["policy", "lint", "--json"], folder.path());
    let told: Value = serde_json::from_str(&output).unwrap();
    let finding = &told["findings"][0];
    assert_eq!((code, finding["code"].as_str(), finding["line"].as_u64()), (1, Some("grants-to-everyone"), Some(2)));
    assert!(told["revision"].as_str().unwrap().len() == 64 && finding["help"].is_string(), "{told}");
    let meant = open.replace("@id", "@lint_allow(\"grants-to-everyone\")\n@id");
    fs::write(folder.path().join("policies/open.cedar"), meant).unwrap();
    assert_eq!(keyward(&["policy", "lint"], folder.path()).0, 0);
    fs::write(folder.path().join("policies/open.cedar"), "permit (").unwrap();
    let (code, output, error) = keyward(&["policy", "lint"], folder.path());
    assert!(code == 1 && output.is_empty() && error.contains("policies/open.cedar:1:"), "{error}");
}

const INVOICES: [&str; 5] =
    ["policy", "new-scope", "invoices:write", "--routes", "POST /v1/invoices, DELETE /v1/invoices/{id}"];

#[test]
fn a_new_scope_is_shown_first_and_written_whole_or_not_at_all() {
    let folder = init();
    let before = files(folder.path());
    let (code, output, error) = keyward(&[&INVOICES[..], &["--dry-run"]].concat(), folder.path());
    assert_eq!((code, error.as_str()), (0, ""));
    assert_eq!(files(folder.path()), before, "a dry run writes nothing");
    for part in [
        "--- a/schemas/docs-api.cedarschema\n+++ b/schemas/docs-api.cedarschema\n@@ -",
        "\n+  entity Invoice in [Environment];\n",
        "\n+@id(\"scope-invoices-write\")\n",
        "\n+[[test]]\n",
    ] {
        assert!(output.contains(part), "{part}: {output}");
    }
    // The diff is one that others understand.
    let patched = tempfile::tempdir().unwrap();
    fs::write(patched.path().join("change.diff"), &output).unwrap();
    for (path, text) in &before {
        let below = Path::new(path).strip_prefix(folder.path()).unwrap();
        fs::create_dir_all(patched.path().join(below).parent().unwrap()).unwrap();
        fs::write(patched.path().join(below), text).unwrap();
    }
    let applied =
        std::process::Command::new("git").args(["apply", "change.diff"]).current_dir(patched.path()).status().unwrap();
    assert!(applied.success());

    let (code, output, error) = keyward(&INVOICES, folder.path());
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(output.starts_with("invoices:write is added, revision "), "{output}");
    let texts = |folder: &Path| files(folder).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    assert_eq!(texts(folder.path()), texts(patched.path()));
    for arguments in [&["policy", "check"][..], &["policy", "lint"], &["policy", "fmt", "--check"]] {
        let (code, output, error) = keyward(arguments, folder.path());
        assert_eq!(code, 0, "{arguments:?}: {output}{error}");
    }
    let (code, _, error) = keyward(&INVOICES, folder.path());
    assert!(code == 1 && error.contains("a scope \"invoices:write\" already"), "{error}");
}

#[test]
fn a_new_scope_that_would_be_refused_changes_nothing_and_says_why() {
    let folder = init();
    let examples = "[[test]]\nname = \"there are no invoices\"\nkey = { kind = \"secret\", mode = \"live\" }\nrequest = \"POST /v1/invoices\"\nexpect = \"forbidden\"\n";
    let file = folder.path().join("policies/tests/docs-api.toml");
    let shipped = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{shipped}\n{examples}")).unwrap();
    let before = files(folder.path());
    let (code, output, error) = keyward(&INVOICES, folder.path());
    assert_eq!((code, output.as_str()), (1, ""));
    for part in ["nothing was changed", "there are no invoices", "policies/tests/docs-api.toml:"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    for (routes, code, said) in [
        ("GET /v1/accounts/{id}", 1, "give the items a type of their own with --type"),
        ("GET/v1/x", 2, "METHOD /path"),
        ("get /v1/x", 1, "upper case"),
        ("GET /v1/jobs", 1, "no scope grants looking at jobs"),
    ] {
        let (ended, output, error) = keyward(&["policy", "new-scope", "x:read", "--routes", routes], folder.path());
        assert_eq!((ended, output.as_str()), (code, ""), "{routes}: {error}");
        assert!(error.contains(said), "{routes}: {error}");
    }
    fs::write(folder.path().join("policies/tests/more.toml"), "# more").unwrap();
    let (code, _, error) = keyward(&INVOICES, folder.path());
    assert!(code == 1 && error.contains("By hand, add:") && error.contains("action \"invoices:write\";"), "{error}");
    fs::remove_file(folder.path().join("policies/tests/more.toml")).unwrap();
    assert_eq!(files(folder.path()), before);
}

#[tokio::test]
async fn a_running_daemon_takes_a_new_scope_as_one_change() {
    let demo = Demo::start();
    let (schemas, policies) = (demo.schemas(), demo.policies());
    let at = ["--schemas-dir", schemas.to_str().unwrap(), "--policies-dir", policies.to_str().unwrap()];
    let before = demo.report().await["reloads_ok"].as_u64().unwrap();
    assert_eq!(verdict(demo.forward("SK_LIVE", "POST", "/v1/invoices")).await, (403, "no_route".into()));
    let arguments = [&INVOICES[..], &at].concat();
    let (code, _, error) = keyward(&arguments, demo.folder.path());
    assert_eq!(code, 0, "{error}");
    let until = std::time::Instant::now() + PATIENCE;
    let report = loop {
        let report = demo.until_report(|report| report["refused"].is_null()).await;
        if report["policies"].as_array().unwrap().iter().any(|policy| policy["name"] == "scope-invoices-write") {
            break report;
        }
        assert!(std::time::Instant::now() < until, "{report:#}");
    };
    assert_eq!(report["reloads_ok"].as_u64().unwrap(), before + 1, "there was nothing in between");
    assert_eq!(verdict(demo.forward("SK_LIVE", "POST", "/v1/invoices")).await, (200, "allowed".into()));
    assert_eq!(verdict(demo.forward("RK_LIVE", "POST", "/v1/invoices")).await, (403, "scope_missing".into()));
}
