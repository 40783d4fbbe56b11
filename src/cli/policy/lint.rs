//! `keyward policy lint`: what a reload would take, and most likely nobody meant.

use clap::Args;
use serde_json::json;

use super::check;
use crate::cli::Failure;
use crate::cli::configuration::Configuration;
use crate::cli::files::on_stack;
use crate::cli::terminal::say;
use crate::policy::lint;

/// Find what the files of the policies say and most likely do not mean
///
///   no-such-id            an account, environment, key or person is named by an id that nothing can have
///   never-applies         a policy that no call ever brings into play, or whose conditions contradict each other
///   shadowed              a permit that a forbid closes wherever it applies
///   grants-to-everyone    a permit for whoever calls, or for calls without credentials
///   identical             a policy that is the same as another one but for its name
///   no-id                 a policy without @id
///   unused-scope          a scope that no policy names, or that grants nothing
///   scope-without-routes  a scope whose group no route is in
///   route-not-permitted   a route that nobody may call
///   unusual-method        a route with a method such as FETCH, which clients do not send
///   action-without-route  an action that is no scope, has no @http and groups nothing
///
/// Policies are compared as they are written, without reasoning about values: what is found is so, and not all that
/// is so is found. `@lint_allow("code, code")` on a policy, or on an action of the schema, says that it is meant.
///
/// Ends with 0 when nothing is found, and with 1 when something is, or when a reload would refuse the files.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct Lint {
    /// A JSON object with a list of findings
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn run(given: &Lint) -> Result<(), Failure> {
    let config = given.configuration.load(vec![])?;
    let (bundle, revision) = check::read(&config)?;
    let findings = on_stack(|| lint(&bundle, &revision))?;
    if given.json {
        say(&format!("{:#}\n", json!({ "revision": revision.digest(), "findings": findings })))?;
    } else {
        say(&findings.iter().map(|finding| finding.problem.render(finding.code)).collect::<String>())?;
    }
    match findings.len() {
        0 if given.json => Ok(()),
        0 => say(&format!("nothing found in {} policies\n", revision.policies().len())),
        1 => Err(Failure::new("1 finding")),
        count => Err(Failure::new(format!("{count} findings"))),
    }
}
