//! How long it takes to prove a revision and to compare two: the shipped one, and one of 200 policies over 40 actions.
//!
//! `cargo run --release --example prove`, with cvc5 on the `PATH`.
#![allow(clippy::print_stdout, reason = "it says what it measured")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyward::compare::compare;
use keyward::policy::{Bundle, Revision};
use keyward::prove::prove;
use keyward::prove::solver::{Session, Solver};

type Files = BTreeMap<String, String>;

fn shipped() -> Result<Files, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bundle =
        Bundle::read(&root.join("schemas"), &root.join("policies")).map_err(|rejection| rejection.to_string())?;
    Ok(bundle.files().map(|(path, text)| (path.to_owned(), text.to_owned())).collect())
}

/// 40 actions in 10 scopes, and 200 policies besides the guarantees.
fn large() -> Result<Files, String> {
    let mut files = shipped()?;
    let names: Vec<String> = (0..10).map(|number| format!("\"things{number}:use\"")).collect();
    let mut schema = format!(
        "namespace DocsApi {{\n  entity Account;\n  entity Environment in [Account] {{ mode: String }};\n  \
         entity Anonymous enum [\"anonymous\"];\n  \
         entity PublishableKey, SecretKey in [Environment] {{ environment: Environment }};\n  \
         entity RestrictedKey in [Environment, Scope] {{ environment: Environment }};\n  entity Scope enum [{}];\n  \
         entity Thing in [Environment];\n  \
         type Call = {{ secure: Bool, method: String, path: String, ip?: ipaddr, time: datetime }};\n  action {};\n  \
         action \"resources:read\";\n",
        names.join(", "),
        names.join(", ")
    );
    let mut policies = String::new();
    let to = "appliesTo { principal: [Anonymous, PublishableKey, SecretKey, RestrictedKey], resource: [Thing], context: Call };";
    for number in 0..40 {
        let scope = number % 10;
        let _ = write!(
            schema,
            "  @http(\"POST /v1/things{number}/{{id}}\")\n  action useThing{number} in [\"things{scope}:use\"]\n    {to}\n"
        );
        let action = format!("action == DocsApi::Action::\"useThing{number}\"");
        let here = "resource in principal.environment";
        let _ = write!(
            policies,
            "@id(\"a{number}\")\npermit (principal in DocsApi::Scope::\"things{scope}:use\", {action}, resource) when {{ {here} }};\n\
             @id(\"b{number}\")\npermit (principal is DocsApi::SecretKey, {action}, resource) when {{ {here} && principal.environment.mode == \"test\" }};\n\
             @id(\"c{number}\")\nforbid (principal, {action}, resource) when {{ context has ip && context.ip.isInRange(ip(\"10.{number}.0.0/16\")) }};\n\
             @id(\"d{number}\")\nforbid (principal is DocsApi::RestrictedKey, {action}, resource) when {{ context.time < datetime(\"2026-01-01\") }};\n\
             @id(\"e{number}\")\npermit (principal is DocsApi::SecretKey, {action}, resource) when {{ {here} && context.secure }};\n"
        );
    }
    schema.push_str("}\n");
    files.retain(|path, _| !path.starts_with("policies/tests/"));
    files.insert("schemas/docs-api.cedarschema".into(), schema);
    files.insert("policies/docs-api.cedar".into(), policies);
    Ok(files)
}

fn built(files: &Files) -> Result<Arc<Revision>, String> {
    Revision::build(&Bundle::from_files(files.clone())).map(Arc::new).map_err(|rejection| rejection.render())
}

async fn measure(name: &str, files: Files, solver: &Solver) -> Result<(), String> {
    let before = built(&files)?;
    let proof = prove(&before, &mut Session::new(solver.clone(), Duration::from_mins(2))).await;
    let counted = before.api_policies().policies().count();
    println!(
        "{name}: {counted} policies, {} routes: proven in {} ms, {} questions, complete: {}",
        before.routes().count(),
        proof.took_ms,
        proof.questions,
        proof.is_complete()
    );
    if !proof.is_complete() {
        println!("{}", proof.render());
    }
    let edits = [
        (
            "one action",
            "@id(\"edit\")\nforbid (principal is DocsApi::SecretKey, action == DocsApi::Action::\"ACTION\", resource) when { principal.environment.mode == \"live\" };\n",
        ),
        (
            "everything",
            "@id(\"edit\")\nforbid (principal, action, resource) when { context.time < datetime(\"2025-01-01\") };\n",
        ),
    ];
    let action = before.routes().next().map(|route| route.action_name.to_string()).unwrap_or_default();
    for (what, policy) in edits {
        let mut edited = files.clone();
        edited.insert("policies/edit.cedar".into(), policy.replace("ACTION", &action));
        let after = built(&edited)?;
        let (started, mut session) = (Instant::now(), Session::new(solver.clone(), Duration::from_mins(5)));
        let comparison = compare(&before, &after, Some(&mut session), Duration::from_mins(5)).await;
        println!(
            "{name}: compared after an edit of {what} in {} ms, {} questions: {}",
            started.elapsed().as_millis(),
            session.questions,
            comparison.summary()
        );
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), String> {
    let solver = Solver::find(Path::new("cvc5")).await.map_err(|missing| missing.to_string())?;
    measure("shipped", shipped()?, &solver).await?;
    measure("large", large()?, &solver).await
}
