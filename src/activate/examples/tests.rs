//! Examples as people write them: what they come to, what of them is refused, and what they leave out.

use super::*;

/// The shipped files, with these examples in place of theirs.
fn with(examples: &str) -> (Bundle, Arc<Revision>) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap();
    let files = shipped.files().filter(|(path, _)| !path.starts_with("policies/tests/"));
    let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
    let bundle = Bundle::from_files(files.chain([("policies/tests/t.toml".to_owned(), examples.to_owned())]));
    let revision = Revision::build(&bundle).unwrap_or_else(|rejection| panic!("{}", rejection.render()));
    (bundle, Arc::new(revision))
}

fn came(examples: &str) -> Vec<(String, usize, Came)> {
    let (bundle, revision) = with(examples);
    let examples = read(&bundle, &revision).unwrap_or_else(|rejection| panic!("{}", rejection.render()));
    examples.iter().map(|example| (example.said(), example.line(), example.run(&revision))).collect()
}

#[test]
fn an_example_of_a_call_says_who_where_what_when_and_what_it_must_come_to() {
    let ran = came(
        r#"
[[test]]
name = "all that can be said"
key = { kind = "restricted", mode = "test", scopes = ["jobs:write", "resources:read"] }
request = "GET /v1/resources/res_1"
resource = { id = "res_2", environment = "test" }
secure = true
ip = "192.0.2.7"
time = 2027-01-31T08:00:00Z
expect = "allow"
reason = "allowed"
policies = ["scope-resources-read"]
missing_scopes = []

[[test]]
name = "what differs is told"
request = "GET /v1/resources"
secure = false
expect = "allow"
policies = ["publishable-reads"]

[[test]]
name = "scopes, too"
key = { kind = "restricted", mode = "live", scopes = ["jobs:write"] }
request = "GET /v1/resources"
time = "2027-01-31T08:00:00Z"
expect = "forbidden"
missing_scopes = ["resources:write"]
"#,
    );
    let said: Vec<_> = ran.iter().map(|(said, line, _)| (said.as_str(), *line)).collect();
    let first = "GET /v1/resources/res_1, with a restricted test key with jobs:write, resources:read";
    let second = "GET /v1/resources over plain HTTP, without a key";
    let third = "GET /v1/resources, with a restricted live key with jobs:write";
    assert_eq!(said, [(first, 2), (second, 15), (third, 22)]);
    assert_eq!(ran[0].2.failure, None);
    let failure = |at: usize| {
        let Failure { expected, came } = ran[at].2.failure.clone().unwrap();
        (expected, came)
    };
    let expected = "allow, by [publishable-reads]".to_owned();
    assert_eq!(failure(1), (expected, "unauthenticated, credentials_missing, by []".to_owned()));
    let came = "forbidden, scope_missing, by [], lacking [resources:read]".to_owned();
    assert_eq!(failure(2), ("forbidden, lacking [resources:write]".to_owned(), came));
}

#[test]
fn an_example_may_be_of_an_operation_of_the_management_api() {
    let ran = came(
        r#"
[[test]]
name = "a developer rotates test keys"
person = { role = "developer" }
operation = "rotateKey"
about = { key = { environment = "test" } }
expect = "allow"
policies = ["developers-manage-test-keys"]

[[test]]
name = "and no others"
person = { role = "developer" }
operation = "rotateKey"
about = { key = { environment = "live", kind = "restricted" } }
expect = "forbidden"
reason = "policy_denied"

[[test]]
name = "an owner owns one account"
person = { role = "owner" }
operation = "renameAccount"
about = { account = "other" }
expect = "forbidden"

[[test]]
name = "everybody keeps their own tokens"
person = {}
operation = "createToken"
about = { person = "own" }
expect = "allow"

[[test]]
name = "and nobody else's"
person = {}
operation = "createToken"
about = { person = "other" }
expect = "forbidden"

[[test]]
name = "an operator does everything"
person = { operator = true }
operation = "createKey"
about = { environment = "other" }
expect = "allow"

[[test]]
name = "whoever has no token does nothing"
operation = "listAccounts"
expect = "unauthenticated"
reason = "credentials_missing"
"#,
    );
    for (said, _, came) in &ran {
        assert_eq!(came.failure, None, "{said}");
    }
    let said: Vec<_> = ran.iter().map(|(said, ..)| said.as_str()).collect();
    assert_eq!(said[0], "rotateKey of a secret test key of the account, by an account's developer");
    assert_eq!(said[4], "createToken of another person, by somebody without a role");
    assert_eq!(said[6], "listAccounts of the installation, without a token");
}

#[test]
fn what_cannot_be_understood_is_refused_with_its_place() {
    let call = "[[test]]\nname = \"x\"\nexpect = \"allow\"\n";
    let cases = [
        (format!("{call}request = \"/v1/resources\"\n"), 4, "is no method and path"),
        (format!("{call}request = \"GET v1\"\n"), 4, "`METHOD /path`"),
        (call.to_owned(), 1, "a `request` or an `operation`"),
        (format!("{call}request = \"GET /\"\noperation = \"getMe\"\n"), 1, "and not both"),
        (format!("{call}request = \"GET /\"\nperson = {{}}\n"), 1, "go with an `operation`"),
        (format!("{call}operation = \"getMe\"\nsecure = true\n"), 1, "go with a `request`"),
        (format!("{call}operation = \"rotateKeys\"\n"), 4, "did you mean \"rotateKey\"?"),
        (format!("{call}operation = \"rotateKey\"\n"), 4, "which key it is about"),
        (format!("{call}operation = \"getMe\"\nabout = {{ account = \"own\" }}\n"), 5, "not about the account"),
        (format!("{call}operation = \"getMe\"\nabout = \"nothing\"\n"), 5, "nothing"),
        (format!("{call}request = \"GET /\"\nreason = \"allow\"\n"), 5, "did you mean \"allowed\"?"),
        (format!("{call}request = \"GET /\"\npolicies = [\n  \"secret-access\",\n]\n"), 6, "\"secret-full-access\"?"),
        (format!("{call}request = \"GET /\"\ntime = 08:00:00\n"), 5, "is no time"),
        (format!("{call}request = \"GET /\"\ntime = \"1969-01-01T00:00:00Z\"\n"), 5, "from 1970 on"),
        (
            format!("{call}request = \"GET /\"\nkey = {{ kind = \"restricted\", mode = \"live\" }}\n"),
            5,
            "at least one scope",
        ),
        (
            format!(
                "{call}request = \"GET /\"\nkey = {{ kind = \"restricted\", mode = \"live\", scopes = [\"resources:raed\"] }}\n"
            ),
            5,
            "did you mean \"resources:read\"?",
        ),
        (format!("{call}request = \"GET /\"\nkey = {{ kind = \"best\", mode = \"live\" }}\n"), 5, "best"),
        (format!("{call}request = \"GET /\"\nips = \"192.0.2.7\"\n"), 5, "unknown field `ips`"),
        ("[[test]]\nname = \"x\"\nrequest = \"GET /\"\n".to_owned(), 1, "missing field `expect`"),
        ("[[test]\n".to_owned(), 1, ""),
    ];
    for (text, line, said) in cases {
        let (bundle, revision) = with(&text);
        let rejection = read(&bundle, &revision).expect_err(&text);
        let problem = &rejection.problems[0];
        assert_eq!((problem.file.as_str(), problem.line), ("policies/tests/t.toml", Some(line)), "{text}");
        let rendered = rejection.render();
        assert!(rendered.contains(said), "{text}: {rendered}");
        assert_eq!(run(&bundle, &revision), Err(rejection), "an activation refuses the same");
    }
}

#[test]
fn an_activation_is_refused_for_an_example_that_fails_with_its_place() {
    let (bundle, revision) = with("\n[[test]]\nname = \"x\"\nrequest = \"GET /v1/resources\"\nexpect = \"allow\"\n");
    let rejection = run(&bundle, &revision).unwrap_err();
    assert_eq!(
        rejection.to_string(),
        "policies/tests/t.toml:2:1: the example \"x\" fails: GET /v1/resources, without a key is expected to be allow; \
         it is unauthenticated, credentials_missing, by []"
    );
}

#[test]
fn coverage_names_what_no_example_decides_or_touches() {
    let text = r#"
[[test]]
name = "a"
key = { kind = "secret", mode = "live" }
request = "GET /v1/resources"
expect = "allow"

[[test]]
name = "b"
key = { kind = "secret", mode = "live" }
request = "GET /v1/resources/res_1"
resource = { environment = "other" }
expect = "forbidden"
"#;
    let (bundle, revision) = with(text);
    let examples = read(&bundle, &revision).unwrap();
    let ran: Vec<_> = examples
        .into_iter()
        .map(|example| {
            let came = example.run(&revision);
            (example, came)
        })
        .collect();
    let coverage = Coverage::of(&revision, &ran);
    let Half { examples, policies, actions } = &coverage.api;
    assert_eq!((*examples, policies.covered, policies.total), (2, 2, 11));
    assert_eq!((actions.covered, actions.total, actions.percent()), (2, 14, 14));
    assert!(!policies.missed.iter().any(|info| info.name == "secret-full-access"));
    assert!(policies.missed.iter().any(|info| info.name == "scope-jobs-write"));
    assert!(actions.missed.iter().any(|action| action.route == "POST /v1/jobs/{id}/cancel"));
    assert_eq!((coverage.management.examples, coverage.management.policies.covered), (0, 0));
    assert_eq!(coverage.lowest(), 14, "what no example is about is not counted");
}

#[test]
fn the_shipped_examples_come_true_and_cover_what_can_be_covered() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap();
    let revision = Arc::new(Revision::build(&shipped).unwrap());
    let mut ran = Vec::new();
    for example in read(&shipped, &revision).unwrap() {
        let came = example.run(&revision);
        assert_eq!(came.failure, None, "{}", example.name);
        ran.push((example, came));
    }
    let Coverage { api, management } = Coverage::of(&revision, &ran);
    let missed = |half: &Half| half.policies.missed.iter().map(|info| info.name.clone()).collect::<Vec<_>>();
    // Plain HTTP is refused before policies are asked about a key, and without one nothing is permitted anyway.
    assert_eq!((missed(&api), missed(&management)), (vec!["guarantee-https-only".to_owned()], vec![]));
    let actions: Vec<_> = api.actions.missed.iter().map(|action| &*action.name).collect();
    assert_eq!(actions, [] as [&str; 0]);
}
