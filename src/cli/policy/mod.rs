//! What security teams do with policies: a file for each verb of `keyward policy`.
//!
//! Those that look at files on disk need no daemon and no token; those that ask what is in force go over the
//! management API, as [`online`](super::online) does.

mod check;
mod diff;
mod files;
mod fmt;
mod history;
mod lint;
mod new_scope;
mod replay;
mod status;
mod test;

use std::ffi::OsString;

use clap::Subcommand;

use super::files::refused;
use super::{COMMAND_LINE, CONFIGURATION, Failure, NOT_SIGNED_IN};
use crate::activate::vet;
use crate::child::Child;
use crate::config::{Config, Guarantees};
use crate::examine::Examiner;
use crate::policy::{Bundle, Rejection, Revision};
use crate::prove::Proof;

/// Of a verb that compares: something is decided otherwise than before, and nobody may do more.
const DIFFERS: u8 = 2;
/// Of a verb that compares: somebody may do more than before.
const WIDENED: u8 = 3;
/// Of a verb that compares: not signed in (`EX_NOPERM` of sysexits.h).
const NO_TOKEN: u8 = 77;
const EXIT_CODES: &str = "Ends with 0 when everything is decided as before, 2 when something is decided otherwise and \
    nobody may do more, and 3 when somebody may do more. A command line that was not understood is 64, and who is not \
    signed in gets 77; other codes are those of every command.";

#[derive(Subcommand)]
pub(in crate::cli) enum Policy {
    /// Say what a reload of the files would say
    Check(check::Check),
    Test(test::Test),
    /// Say what is in force, and what is refused or waits, since when and why
    Status(status::Status),
    /// List the revisions that were in force: since when, by whom, and what was different
    History(history::History),
    /// Show a revision that was in force: its files, or with --diff what is different from another one
    Show(history::Show),
    /// Put an earlier revision in force, until the files on disk change
    Rollback(history::Which),
    /// Bring a revision into force that waits because somebody could do more under it
    Approve(history::Which),
    /// Say what an edit means: who may do what that they could not, and the other way round
    #[command(after_help = EXIT_CODES)]
    Diff(diff::Diff),
    Fmt(fmt::Fmt),
    Lint(lint::Lint),
    NewScope(new_scope::NewScope),
    /// Say what other policies would have made of the decisions that were recorded
    #[command(after_help = EXIT_CODES)]
    Replay(replay::Replay),
}

pub(in crate::cli) fn run(given: &Policy) -> Result<(), Failure> {
    match given {
        Policy::Check(given) => check::run(given),
        Policy::Diff(given) => ended(diff::run(given)),
        Policy::Fmt(given) => fmt::run(given),
        Policy::Lint(given) => lint::run(given),
        Policy::NewScope(given) => new_scope::run(given),
        Policy::Replay(given) => ended(replay::run(given)),
        Policy::Test(given) => test::run(given),
        Policy::Status(given) => status::run(given),
        Policy::History(given) => history::history(given),
        Policy::Show(given) => history::show(given),
        Policy::Rollback(given) => history::rollback(given),
        Policy::Approve(given) => history::approve(given),
    }
}

/// What came of comparing policies, with a word on it.
enum Compared {
    Same,
    Narrowed(String),
    Widened(String),
}

/// Whether this command line's verb is one that compares.
pub(in crate::cli) fn compares(verb: &[OsString]) -> bool {
    verb == ["policy", "diff"] || verb == ["policy", "replay"]
}

/// Ends a verb that compares: its answers are exit codes that mean something else elsewhere, and so that is told by others.
fn ended(compared: Result<Compared, Failure>) -> Result<(), Failure> {
    match compared {
        Ok(Compared::Same) => Ok(()),
        Ok(Compared::Narrowed(what)) => Err(Failure::of(DIFFERS, what)),
        Ok(Compared::Widened(what)) => Err(Failure::of(WIDENED, what)),
        Err(Failure { code: COMMAND_LINE, message }) => Err(Failure::of(CONFIGURATION, message)),
        Err(Failure { code: NOT_SIGNED_IN, message }) => Err(Failure::of(NO_TOKEN, message)),
        Err(failure) => Err(failure),
    }
}

/// What the verbs that wait for children run on.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// The revision that these files make, once a child has looked at them.
///
/// # Errors
/// With everything that is wrong with the files.
async fn vetted(bundle: &Bundle) -> Result<Revision, Rejection> {
    vet::Vetter::of_this_program().vet(bundle).await.map_err(vet::Failure::into_rejection)
}

/// Whoever proves and compares; that there is no solver is told.
async fn examiner(config: &Config) -> Examiner {
    let examiner = Examiner::new(Child::of_this_program(), &config.policies).await;
    if let Some(missing) = examiner.missing() {
        eprintln!("keyward: nothing is proven: {missing}");
    }
    examiner
}

/// What can be proven of a revision, as the configuration asks for it.
///
/// # Errors
/// With what would refuse the revision.
async fn proof(config: &Config, revision: &Revision) -> Result<Proof, Failure> {
    let guarantees = config.policies.guarantees;
    let proof = examiner(config).await.prove(revision, guarantees).await;
    match proof.rejection(revision, guarantees == Guarantees::Prove) {
        Some(rejection) => Err(refused(&rejection)),
        None => Ok(proof),
    }
}
