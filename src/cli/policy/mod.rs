//! What security teams do with policies: a file for each verb of `keyward policy`.
//!
//! Those that look at files on disk need no daemon and no token; those that ask what is in force go over the
//! management API, as [`online`](super::online) does.

mod check;
mod test;

use clap::Subcommand;

use super::Failure;

#[derive(Subcommand)]
pub(in crate::cli) enum Policy {
    /// Say what a reload of the files would say
    Check(check::Check),
    Test(test::Test),
}

pub(in crate::cli) fn run(given: &Policy) -> Result<(), Failure> {
    match given {
        Policy::Check(given) => check::run(given),
        Policy::Test(given) => test::run(given),
    }
}
