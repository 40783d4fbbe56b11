//! `keyward policy check`: what a reload of the files would say.

use clap::Args;

use super::{refused, runtime};
use crate::cli::Failure;
use crate::cli::configuration::Configuration;
use crate::cli::terminal::say;
use crate::config::{Config, Widening};
use crate::policy::{Bundle, Rejection, Revision};

#[derive(Args)]
pub(in crate::cli) struct Check {
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn run(given: &Check) -> Result<(), Failure> {
    let config = given.configuration.load(vec![])?;
    let (_, revision) = read(&config)?;
    let proof = runtime()?.block_on(super::proof(&config, &revision))?;
    say(&format!(
        "good: revision {}, {} routes, {} policies\n{}{}",
        revision.digest().short(),
        revision.routes().count(),
        revision.policies().len(),
        proof.render(),
        may_wait(&config)
    ))
}

/// That a good revision may not come into force at once, where that is so: what is in force is not known here.
pub(super) fn may_wait(config: &Config) -> &'static str {
    match config.policies.widening {
        Widening::Allow => "",
        Widening::Confirm => {
            "policies.widening is \"confirm\": if somebody could do more under it than under what is in force, it waits \
             for `keyward policy approve`\n"
        }
    }
}

/// The files as they are, and the revision that a reload would make of them.
pub(super) fn read(config: &Config) -> Result<(Bundle, Revision), Failure> {
    let bundle = Bundle::read(&config.schemas_dir, &config.policies_dir).map_err(|rejection| refused(&rejection))?;
    let revision = vetted(&bundle)?.map_err(|rejection| refused(&rejection))?;
    Ok((bundle, revision))
}

/// What a reload would make of a bundle: a child looks first, as it does for the daemon.
pub(super) fn vetted(bundle: &Bundle) -> Result<Result<Revision, Rejection>, Failure> {
    Ok(runtime()?.block_on(super::vetted(bundle)))
}
