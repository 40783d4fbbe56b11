//! The commands that make an installation: `init`, `restore`; and the child's side of a first look at its files.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::configuration::Configuration;
use super::terminal::say;
use super::{Failure, offline};
use crate::activate::vet;
use crate::config::{self, Config};
use crate::examine;
use crate::key::Cost;
use crate::ledger::Ledger;
use crate::people::Email;
use crate::shipped;
use crate::store::{SledStore, backup};

#[derive(Args)]
pub(super) struct Init {
    /// Where to make them
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The first operator's e-mail address
    #[arg(long, value_name = "EMAIL", default_value = "operator@localhost")]
    operator: String,
}

#[derive(Args)]
pub(super) struct Restore {
    /// The backup; `-` is standard input
    #[arg(value_name = "FILE")]
    backup: PathBuf,
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn init(given: &Init) -> Result<(), Failure> {
    let Init { folder, operator } = given;
    let _: Email = operator.parse()?;
    let file = folder.join(config::FILE);
    let at = |path: &Path, error: io::Error| Failure::new(format!("{}: {error}", path.display()));
    if file.exists() {
        return Err(Failure::new(format!("{} is there already; nothing was changed", file.display())));
    }
    let data = folder.join(Config::default().data_dir);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&data).map_err(|error| at(&data, error))?;
    shipped::copy_to(folder).map_err(|error| at(folder, error))?;
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&file)
        .map_err(|error| at(&file, error))?;
    out.write_all(config::TEMPLATE.as_bytes()).and_then(|()| out.sync_all()).map_err(|error| at(&file, error))?;
    let ledger = Ledger::load(Arc::new(SledStore::open(&data)?))?;
    let made = offline::operator(&ledger, operator, "Operator", Cost::default(), "keyward init")?;
    let config = file.display();
    say(&zeroize::Zeroizing::new(format!(
        "Made {config}, {}, and the schema and policies of an example API beside them.\n\n\
         {}\nNext:\n  \
         1. Describe your API in {}, and who may do what in {}.\n  \
         2. keyward policy check --config {config}\n  \
         3. keyward serve --config {config}\n  \
         4. Sign in to the Dashboard at http://{}, or with the token in the environment, as KEYWARD_TOKEN: keyward accounts create \"My account\"\n",
        data.display(),
        offline::shown_to_operator(operator, &made),
        folder.join("schemas").display(),
        folder.join("policies").display(),
        Config::default().admin.addr,
    )))
}

/// Makes the configured store of a backup.
pub(super) fn restore(given: &Restore) -> Result<(), Failure> {
    let (config, file) = (given.configuration.load(vec![])?, &given.backup);
    let at = |error: io::Error| Failure::new(format!("{}: {error}", file.display()));
    let mut backup: Box<dyn io::BufRead> = if file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(io::BufReader::new(fs::File::open(file).map_err(at)?))
    };
    let rows = backup::restore(&mut backup, &config.data_dir)?;
    say(&format!("{} is restored, {rows} rows\n", config.data_dir.display()))
}

/// The child's side of a first look at new files: 0 when they are good, 1 with the rejection on standard output.
pub(super) fn vet() -> ExitCode {
    match vet::check_as_child(io::stdin()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(rejection) => {
            let written = serde_json::to_writer(io::stdout().lock(), &rejection);
            ExitCode::from(if written.is_ok() { 1 } else { 2 })
        }
    }
}

/// The child's side of proving and comparing: the answer on standard output.
pub(super) fn examine() -> Result<(), Failure> {
    let answer = examine::answer_as_child(io::stdin()).map_err(Failure::new)?;
    serde_json::to_writer(io::stdout().lock(), &answer)?;
    Ok(())
}
