//! `keyward policy test`: what it says of examples that come true and of those that do not, and how it ends.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::keyward;

fn init() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, error) = keyward(&["init", "."], folder.path());
    assert_eq!(code, 0, "{error}");
    folder
}

fn test(folder: &Path, more: &[&str]) -> (i32, String, String) {
    keyward(&[&["policy", "test"], more].concat(), folder)
}

/// Files in which two examples do not come true.
fn failing() -> tempfile::TempDir {
    let folder = init();
    let night = "\n@id(\"night\")
forbid (principal is DocsApi::SecretKey, action in DocsApi::Action::\"resources:write\", resource)
when { context has ip && !context.ip.isLoopback() && context.time < datetime(\"2027-01-01\") };\n";
    let policies = folder.path().join("policies/docs-api.cedar");
    let text = fs::read_to_string(&policies).unwrap();
    fs::write(&policies, text + night).unwrap();
    let examples = r#"[[test]]
name = "secret keys write from anywhere"
key = { kind = "secret", mode = "live" }
request = "DELETE /v1/resources/res_1"
ip = "192.0.2.7"
time = "2026-06-01T00:00:00Z"
expect = "allow"
policies = ["secret-full-access"]

[[test]]
name = "viewers rotate"
person = { role = "viewer" }
operation = "rotateKey"
about = { key = { environment = "live" } }
expect = "allow"
"#;
    fs::write(folder.path().join("policies/tests/night.toml"), examples).unwrap();
    folder
}

#[test]
fn the_shipped_examples_come_true_wherever_they_are_named_from() {
    let folder = init();
    let (code, said, error) = test(folder.path(), &[]);
    assert_eq!((code, error.as_str()), (0, ""), "{said}");
    for part in ["✓ a publishable key lists resources", "✓ developers rotate test keys", " passed, 0 failed", "(100 %)"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (code, elsewhere, _) = keyward(&["policy", "test", folder.path().to_str().unwrap()], Path::new("/"));
    assert_eq!((code, elsewhere), (0, said));
    let (code, quiet, _) = test(folder.path(), &["--quiet", "--min-coverage", "90"]);
    assert!(code == 0 && !quiet.contains('✓') && quiet.contains("passed"), "{quiet}");
    let (code, _, error) = test(folder.path(), &["--quiet", "--min-coverage", "91"]);
    assert_eq!((code, error.as_str()), (1, "keyward: the examples cover 90 %, and --min-coverage asks for 91 %\n"));
}

#[test]
fn an_example_that_fails_is_told_with_the_way_to_the_decision() {
    let folder = failing();
    let (code, said, error) = test(folder.path(), &["--quiet", "--filter", "ANYWHERE"]);
    assert_eq!((code, error.as_str()), (1, "keyward: one example does not come true\n"));
    let environment = "Environment::\"acct_Example000000000/live\"";
    let expected = format!(
        "policies/tests/night.toml
  ✗ secret keys write from anywhere

✗ secret keys write from anywhere  policies/tests/night.toml:1

  DELETE /v1/resources/res_1, with a secret live key
  expected  allow, by [secret-full-access]
  came      forbidden, policy_denied, by [night]

  ✓ credentials  key_Example000000000, secret live key of acct_Example000000000
  ✓ key          it works
  ✓ transport    HTTPS
  ✓ address      192.0.2.7; the key may be used from anywhere
  ✓ path         /v1/resources/res_1
  ✓ route        DELETE /v1/resources/{{id}} is deleteResource
  ✗ policies     forbidden by night

  ✗ forbid night                                      policies/docs-api.cedar:66
      when {{ context has ip && !context.ip.isLoopback() && context.time < datetime(\"2027-01-01\") }}  holds, because  line 68
        context has ip  was true
          context.ip = ip(\"192.0.2.7\")
        context.ip.isLoopback()  was false
          context.ip = ip(\"192.0.2.7\")
        context.time < datetime(\"2027-01-01\")  was true
          context.time = datetime(\"2026-06-01T00:00:00.000Z\")
  ✓ permit secret-full-access                         policies/docs-api.cedar:16
      when {{ resource in principal.environment }}  was true  line 22
        resource              = Resource::\"res_1\" in {environment}
        principal.environment = {environment}
  · forbid guarantee-https-only                       policies/guarantees/docs-api.cedar:3  a guarantee
      unless {{ context.secure }}  was true  line 5
  · forbid guarantee-secret-stays-in-its-environment  policies/guarantees/docs-api.cedar:24  a guarantee
      unless {{ resource in principal.environment }}  was true  line 30
        resource              = Resource::\"res_1\" in {environment}
        principal.environment = {environment}

0 passed, 1 failed, 67 filtered out
"
    );
    assert_eq!(said, expected);
}

#[test]
fn results_are_for_scripts_and_build_servers_too() {
    let folder = failing();
    let (code, said, error) = test(folder.path(), &["--json", "--junit", "results.xml"]);
    assert_eq!((code, error.as_str()), (1, "keyward: 2 examples do not come true\n"));
    let results: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&results["failed"], &results["filtered_out"]), (&json!(2), &json!(0)));
    let failed: Vec<&Value> =
        results["items"].as_array().unwrap().iter().filter(|item| item["passed"] == false).collect();
    assert_eq!((&failed[0]["line"], &failed[0]["policies"]), (&json!(1), &json!(["night"])));
    assert_eq!(failed[1]["explanation"]["policies"][0]["name"], "operators-do-everything");
    let missed = |half: &str, what: &str| results["coverage"][half][what]["missed"][0]["name"].clone();
    assert_eq!(missed("api", "policies"), "guarantee-https-only");
    assert_eq!(missed("management", "actions"), "approvePolicies", "the operations that no example is about");

    let xml = fs::read_to_string(folder.path().join("results.xml")).unwrap();
    for part in [
        "<testsuite name=\"policies/tests/night.toml\" tests=\"2\"",
        "failures=\"2\"",
        "<testcase name=\"viewers rotate\" classname=\"policies/tests/night.toml\"",
        "line=\"10\"",
        "expected allow; came forbidden, policy_denied, by []",
        "context.ip.isLoopback()  was false",
    ] {
        assert!(xml.contains(part), "{part}: {xml}");
    }
    let (code, listed, _) = test(folder.path(), &["--list", "-f", "night.toml"]);
    let expected =
        "policies/tests/night.toml:1   secret keys write from anywhere\npolicies/tests/night.toml:10  viewers rotate\n";
    assert_eq!((code, listed.as_str()), (0, expected));
}

#[test]
fn what_cannot_be_run_is_refused_with_file_and_line() {
    let folder = init();
    let file = folder.path().join("policies/tests/bad.toml");
    for (text, place, said) in [
        (
            "[[test]]\nname = \"x\"\nrequest = \"v1\"\nexpect = \"allow\"\n",
            "policies/tests/bad.toml:3:11",
            "METHOD /path",
        ),
        ("[[tests]]\n", "policies/tests/bad.toml:1:3", "unknown field `tests`"),
        (
            "[[test]]\nname = \"x\"\noperation = \"rotate\"\nexpect = \"allow\"\n",
            "policies/tests/bad.toml:3:13",
            "no operation",
        ),
    ] {
        fs::write(&file, text).unwrap();
        for command in [&["policy", "test"][..], &["policy", "check"]] {
            let (code, said_of_none, error) = keyward(command, folder.path());
            assert_eq!((code, said_of_none.as_str()), (1, ""), "{command:?}");
            assert!(error.contains(place) && error.contains(said), "{place}: {error}");
        }
    }
    fs::remove_file(&file).unwrap();
    fs::write(folder.path().join("policies/broken.cedar"), "permit (principal").unwrap();
    let (code, _, error) = test(folder.path(), &[]);
    assert!(code == 1 && error.contains("policies/broken.cedar:1"), "{error}");
    fs::remove_file(folder.path().join("policies/broken.cedar")).unwrap();
    let (code, _, error) = test(folder.path(), &["--filter", "no such name"]);
    assert!(code == 1 && error.contains("--list"), "{error}");
    let (code, _, error) = test(folder.path(), &["--filter", "a", "--min-coverage", "3"]);
    assert!(code == 2 && error.contains("cannot be used with"), "{error}");
}
