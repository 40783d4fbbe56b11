//! `keyward policy diff`: what an edit means, before it is in force.

use std::path::Path;

use clap::Args;
use serde_json::Value;

use super::history::named;
use super::{Compared, check, refused, runtime};
use crate::cli::configuration::Configuration;
use crate::cli::online::Online;
use crate::cli::terminal::{escaped_lines, text};
use crate::cli::{COMMAND_LINE, Failure};
use crate::compare::Change;
use crate::policy::{Bundle, Revision};

#[derive(Args)]
pub(in crate::cli) struct Diff {
    /// The earlier revision: the digest of one that was in force, or a folder that holds `schemas` and `policies`;
    /// without it, the one in force
    #[arg(long, value_name = "DIGEST|DIR")]
    from: Option<String>,
    /// The later one, a folder as well; without it, the configured folders
    #[arg(long, value_name = "DIR")]
    to: Option<String>,
    #[command(flatten)]
    configuration: Configuration,
    #[command(flatten)]
    online: Online,
}

pub(super) fn run(given: &Diff) -> Result<Compared, Failure> {
    let config = given.configuration.load(vec![])?;
    let fetched = match &given.from {
        Some(from) if Path::new(from).is_dir() => None,
        from => Some(fetch(given, from.as_deref())?),
    };
    let before = match (fetched, &given.from) {
        (Some(bundle), _) => revision(&bundle)?,
        (None, from) => in_folder(from.as_deref().unwrap_or_default())?,
    };
    let after = match &given.to {
        Some(folder) => in_folder(folder)?,
        None => check::read(&config)?.1,
    };
    let comparison = runtime()?.block_on(async {
        let examiner = super::examiner(&config).await;
        examiner
            .compare(before.bundle(), after.bundle())
            .await
            .map_err(|why| Failure::new(format!("not compared: {why}")))
    })?;
    let json = serde_json::to_value(&comparison)?;
    given.online.tell(&json, |_| escaped_lines(&comparison.render()))?;
    Ok(match comparison.change() {
        Change::Unchanged => Compared::Same,
        Change::Narrowed => Compared::Narrowed("something that was allowed is not".into()),
        Change::Widened | Change::Both => Compared::Widened("something is allowed that was not".into()),
    })
}

fn in_folder(folder: &str) -> Result<Revision, Failure> {
    let folder = Path::new(folder);
    if !folder.is_dir() {
        return Err(Failure::of(COMMAND_LINE, format!("{} is no folder", folder.display())));
    }
    let bundle = Bundle::read(&folder.join("schemas"), &folder.join("policies")).map_err(|error| refused(&error))?;
    revision(&bundle)
}

fn revision(bundle: &Bundle) -> Result<Revision, Failure> {
    check::vetted(bundle)?.map_err(|rejection| refused(&rejection))
}

/// The files of a revision that a running daemon keeps: the one in force, or this one.
fn fetch(given: &Diff, digest: Option<&str>) -> Result<Bundle, Failure> {
    let client = given.online.client()?;
    let digest = match digest {
        Some(digest) => named(digest).map_err(|_| {
            let what = "--from: give a folder, or at least 8 digits of a digest (`keyward policy history`)";
            Failure::of(COMMAND_LINE, what)
        })?,
        None => text(&client.get(&["policies"], &[])?, "/active/digest"),
    };
    let whole = client.get(&["policies", "history", &digest], &[])?;
    let files = whole.get("files").and_then(Value::as_object).into_iter().flatten();
    let files = files.filter_map(|(path, text)| Some((path.clone(), text.as_str()?.to_owned())));
    Ok(Bundle::from_files(files))
}
