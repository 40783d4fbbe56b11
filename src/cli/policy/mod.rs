//! What security teams do with policies: a file for each verb of `keyward policy`.
//!
//! Those that look at files on disk need no daemon and no token; those that ask what is in force go over the
//! management API, as [`online`](super::online) does.

mod check;
mod history;
mod status;

use clap::Subcommand;

use super::Failure;

#[derive(Subcommand)]
pub(in crate::cli) enum Policy {
    /// Say what a reload of the files would say
    Check(check::Check),
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
}

pub(in crate::cli) fn run(given: &Policy) -> Result<(), Failure> {
    match given {
        Policy::Check(given) => check::run(given),
        Policy::Status(given) => status::run(given),
        Policy::History(given) => history::history(given),
        Policy::Show(given) => history::show(given),
        Policy::Rollback(given) => history::rollback(given),
        Policy::Approve(given) => history::approve(given),
    }
}
