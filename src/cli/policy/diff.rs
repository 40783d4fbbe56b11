//! `keyward policy diff`: what an edit means, before it is in force.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::Failure;
use crate::cli::configuration::Configuration;
use crate::cli::terminal::say;
use crate::compare::Change;
use crate::config::Config;
use crate::policy::Revision;

/// Something is decided otherwise than before, and nobody may do more.
const DIFFERS: u8 = 2;
/// Somebody may do more than before.
const WIDENED: u8 = 3;

#[derive(Args)]
pub(in crate::cli) struct Diff {
    /// The earlier revision: a folder that holds `schemas` and `policies`
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The later one; without it, the configured folders
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn run(given: &Diff) -> Result<(), Failure> {
    let config = given.configuration.load(vec![])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let comparison = runtime.block_on(async {
        let before = in_folder(&given.from).await?;
        let after = later(given, &config).await?;
        let examiner = super::examiner(&config).await;
        examiner.compare(&before, &after).await.map_err(|why| Failure::new(format!("not compared: {why}")))
    })?;
    say(&if given.json { format!("{:#}\n", serde_json::to_value(&comparison)?) } else { comparison.render() })?;
    match comparison.change() {
        Change::Unchanged => Ok(()),
        Change::Narrowed => Err(Failure::of(DIFFERS, "something that was allowed is not")),
        Change::Widened | Change::Both => Err(Failure::of(WIDENED, "something is allowed that was not")),
    }
}

async fn later(given: &Diff, config: &Config) -> Result<Revision, Failure> {
    match &given.to {
        Some(folder) => in_folder(folder).await,
        None => super::revision(&config.schemas_dir, &config.policies_dir).await,
    }
}

async fn in_folder(folder: &Path) -> Result<Revision, Failure> {
    super::revision(&folder.join("schemas"), &folder.join("policies")).await
}
