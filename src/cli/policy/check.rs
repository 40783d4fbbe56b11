//! `keyward policy check`: what a reload of the files would say.

use clap::Args;

use crate::activate::vet;
use crate::cli::Failure;
use crate::cli::configuration::Configuration;
use crate::cli::terminal::say;
use crate::policy::Bundle;

#[derive(Args)]
pub(in crate::cli) struct Check {
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn run(given: &Check) -> Result<(), Failure> {
    let config = given.configuration.load(vec![])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let checked = Bundle::read(&config.schemas_dir, &config.policies_dir).and_then(|bundle| {
        let vetted = runtime.block_on(vet::Vetter::of_this_program().vet(&bundle));
        vetted.map_err(vet::Failure::into_rejection)
    });
    match checked {
        Ok(revision) => say(&format!(
            "good: revision {}, {} routes, {} policies\n",
            revision.digest().short(),
            revision.routes().count(),
            revision.policies().len()
        )),
        Err(rejection) => Err(Failure::new(format!("the files would be refused\n\n{}", rejection.render()))),
    }
}
