//! What security teams do with policies: a file for each verb of `keyward policy`.
//!
//! Those that look at files on disk need no daemon and no token; those that ask what is in force go over the
//! management API, as [`online`](super::online) does.

mod check;
mod diff;

use std::path::Path;

use clap::Subcommand;

use super::Failure;
use crate::activate::vet;
use crate::child::Child;
use crate::config::{Config, Guarantees};
use crate::examine::Examiner;
use crate::policy::{Bundle, Revision};
use crate::prove::Proof;
use crate::prove::solver::{Solver, Unproven};

#[derive(Subcommand)]
pub(in crate::cli) enum Policy {
    /// Say what a reload of the files would say
    Check(check::Check),
    /// Say what an edit means: who may do what that they could not, and the other way round
    Diff(diff::Diff),
}

pub(in crate::cli) fn run(given: &Policy) -> Result<(), Failure> {
    match given {
        Policy::Check(given) => check::run(given),
        Policy::Diff(given) => diff::run(given),
    }
}

/// The revision that the files in these folders make, once a child has looked at them.
///
/// # Errors
/// With everything that is wrong with the files.
async fn revision(schemas: &Path, policies: &Path) -> Result<Revision, Failure> {
    let refused = |rejection: crate::policy::Rejection| {
        Failure::new(format!("the files would be refused\n\n{}", rejection.render()))
    };
    let bundle = Bundle::read(schemas, policies).map_err(refused)?;
    let vetted = vet::Vetter::of_this_program().vet(&bundle).await;
    vetted.map_err(|failure| refused(failure.into_rejection()))
}

/// Whoever proves and compares, with the configured solver if it is there; why not, if it is not.
async fn examiner(config: &Config) -> (Examiner, Option<String>) {
    let found = Solver::find(&config.policies.solver).await;
    let missing = found.as_ref().err().map(ToString::to_string);
    (Examiner::new(Child::of_this_program(), found.ok(), config.policies.proof_limit()), missing)
}

/// What can be proven of a revision, as the configuration asks for it.
///
/// # Errors
/// With what would refuse the revision.
async fn proof(config: &Config, revision: &Revision) -> Result<Proof, Failure> {
    let guarantees = config.policies.guarantees;
    if guarantees == Guarantees::EnforceOnly {
        return Ok(Proof::none(revision, &Unproven::NotAsked));
    }
    let (examiner, missing) = examiner(config).await;
    if let Some(missing) = missing {
        eprintln!("keyward: guarantees are not proven: {missing}");
    }
    let proof = examiner.prove(revision).await;
    match proof.rejection(revision, guarantees == Guarantees::Prove) {
        Some(rejection) => Err(Failure::new(format!("the files would be refused\n\n{}", rejection.render()))),
        None => Ok(proof),
    }
}
