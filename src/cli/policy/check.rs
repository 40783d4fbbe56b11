//! `keyward policy check`: what a reload of the files would say.

use clap::Args;

use crate::cli::Failure;
use crate::cli::configuration::Configuration;
use crate::cli::terminal::say;

#[derive(Args)]
pub(in crate::cli) struct Check {
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn run(given: &Check) -> Result<(), Failure> {
    let config = given.configuration.load(vec![])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (revision, proof) = runtime.block_on(async {
        let revision = super::revision(&config.schemas_dir, &config.policies_dir).await?;
        let proof = super::proof(&config, &revision).await?;
        Ok::<_, Failure>((revision, proof))
    })?;
    say(&format!(
        "good: revision {}, {} routes, {} policies\n{}",
        revision.digest().short(),
        revision.routes().count(),
        revision.policies().len(),
        proof.render()
    ))
}
