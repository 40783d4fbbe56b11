//! Proofs with the real solver, which `tests/run` installs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::solver::{Missing, Session, Solver};
use super::*;
use crate::policy::Bundle;

fn shipped_with(more: &[(&str, &str)]) -> Arc<Revision> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap();
    let files = shipped.files().map(|(path, text)| (path.to_owned(), text.to_owned()));
    let more = more.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
    let files: BTreeMap<String, String> = files.chain(more).collect();
    Arc::new(Revision::build(&Bundle::from_files(files)).unwrap_or_else(|error| panic!("{}", error.render())))
}

async fn proof_of(revision: &Arc<Revision>) -> Proof {
    let solver = Solver::find(Path::new("cvc5")).await.unwrap();
    prove(revision, &mut Session::new(solver, Duration::from_mins(1))).await
}

#[tokio::test]
async fn what_is_shipped_is_proven() {
    let revision = shipped_with(&[]);
    let proof = proof_of(&revision).await;
    assert!(proof.is_complete(), "{}", proof.render());
    assert_eq!(proof.guarantees.len(), 5);
    assert_eq!(proof.rejection(&revision, true), None);
}

#[tokio::test]
async fn a_policy_that_a_guarantee_forbids_is_found_with_a_request_and_its_line() {
    let cases = [
        (
            "guarantee-https-only",
            "permit (principal is DocsApi::Anonymous, action == DocsApi::Action::\"listResources\", resource);",
            "GET /v1/resources by a call without credentials on the ",
            "secure = false",
        ),
        (
            "guarantee-publishable-never-writes",
            "permit (principal is DocsApi::PublishableKey, action == DocsApi::Action::\"enqueueJob\", resource) \
             when { resource in principal.environment };",
            "POST /v1/jobs by a publishable key of the ",
            "environment A on the ",
        ),
        (
            "guarantee-publishable-stays-in-its-environment",
            "permit (principal is DocsApi::PublishableKey, action == DocsApi::Action::\"getResource\", resource);",
            "GET /v1/resources/{id} by a publishable key of the ",
            " on a Resource in the ",
        ),
        (
            "guarantee-secret-stays-in-its-environment",
            "permit (principal is DocsApi::SecretKey, action, resource) when { principal.environment.mode == \"test\" };",
            " by a secret key of the test environment ",
            "environment B",
        ),
        (
            "guarantee-restricted-stays-in-its-environment",
            "permit (principal in DocsApi::Scope::\"jobs:write\", action, resource is DocsApi::Job) \
             unless { context has ip && context.ip.isLoopback() };",
            " by a restricted key with jobs:write",
            " on a Job in the ",
        ),
    ];
    for (guarantee, policy, request, more) in cases {
        let revision = shipped_with(&[("policies/oops.cedar", &format!("// A slip.\n@id(\"oops\")\n{policy}\n"))]);
        let proof = proof_of(&revision).await;
        let violated: Vec<&str> = proof
            .guarantees
            .iter()
            .filter(|(_, status)| matches!(status, Status::Violated { .. }))
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(violated, [guarantee], "{}", proof.render());
        let told = proof.rejection(&revision, false).unwrap().render();
        for expected in ["policies/oops.cedar:2:1", guarantee, "policies/guarantees/docs-api.cedar:", request, more] {
            assert!(told.contains(expected), "{expected:?} is missing:\n{told}");
        }
    }
}

#[tokio::test]
async fn a_policy_that_can_fail_is_found() {
    let far = "context.time.toTime().toMilliseconds() * 9223372036854775807 > 1";
    let policy = format!("@id(\"far\")\nforbid (principal is DocsApi::SecretKey, action, resource) when {{ {far} }};");
    let revision = shipped_with(&[("policies/far.cedar", &policy)]);
    let proof = proof_of(&revision).await;
    let told = proof.rejection(&revision, false).unwrap().render();
    assert!(told.contains("policies/far.cedar:1:1: this policy fails"), "{told}");
    assert!(matches!(&proof.never_fails, Status::Violated { policies, .. } if *policies == ["far"]));
}

#[tokio::test]
async fn what_could_not_be_asked_is_not_proven_and_refused_only_where_it_must_be_proven() {
    let revision = shipped_with(&[]);
    let solver = Solver::find(Path::new("cvc5")).await.unwrap();
    let late = prove(&revision, &mut Session::new(solver.clone(), Duration::ZERO)).await;
    let broken = Solver { program: "/bin/false".into(), ..solver };
    let failed = prove(&revision, &mut Session::new(broken, Duration::from_secs(5))).await;
    let none = Proof::none(&revision, &Unproven::NotAsked);
    for (proof, why) in [(late, "time limit"), (failed, "the solver failed"), (none, "no solver was asked")] {
        assert_eq!(proof.rejection(&revision, false), None);
        let told = proof.rejection(&revision, true).unwrap().render();
        assert!(told.contains(why) && told.contains("policies/guarantees/docs-api.cedar:"), "{told}");
    }
}

#[tokio::test]
async fn a_solver_that_is_not_there_or_is_none_is_told_of() {
    assert!(matches!(Solver::find(Path::new("no-such-solver")).await, Err(Missing::NotThere(_))));
    let error = Solver::find(Path::new("/bin/true")).await.unwrap_err().to_string();
    assert!(error.contains("/bin/true cannot be used"), "{error}");
}
