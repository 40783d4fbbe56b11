//! `keyward policy new-scope`: a scope's declarations, its policy and two examples, written into the files at once.

use std::path::PathBuf;

use clap::Args;
use similar::TextDiff;

use super::check;
use super::files::{self, Prepared};
use crate::cli::Failure;
use crate::cli::configuration::Configuration;
use crate::cli::files::on_stack;
use crate::cli::terminal::{escaped, say};
use crate::config::Config;
use crate::policy::{self, Bundle, Edit, NewRoute, Rejection, Revision, extend};

/// Scopes from which a new one is told in its second example, at most: one that leads elsewhere is found soon.
const MOST_TRIED: usize = 8;

/// Add a scope: to the schema, with its routes; a policy that grants them; and two examples
///
/// The files keep their layout and comments. What they would be is checked first as a reload would check it, with all
/// examples; nothing is written when it would be refused. The schema is replaced last, and until then the files are refused,
/// so that a running daemon has either what it had or the whole.
#[derive(Args)]
pub(in crate::cli) struct NewScope {
    /// The scope's name, for example invoices:write
    name: String,
    /// What it grants: `POST /v1/invoices, GET /v1/invoices/{id}`. A route that there is already is put into the scope's
    /// group, too. `name=POST /v1/invoices` says what a new route's action is called
    #[arg(long, value_name = "ROUTES", required = true, value_delimiter = ',', value_parser = route)]
    routes: Vec<NewRoute>,
    /// The entity type of what the new routes are about; without it, it is made of the path
    #[arg(long = "type", value_name = "TYPE")]
    item: Option<String>,
    /// Show what would be changed, as a unified diff, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    configuration: Configuration,
}

/// `POST /v1/invoices`, with or without a name for its action before it.
fn route(text: &str) -> Result<NewRoute, String> {
    let text = text.trim();
    let (action, line) = match text.split_once('=') {
        Some((name, line)) if !name.contains([' ', '/']) => (Some(name.to_owned()), line),
        _ => (None, text),
    };
    // A path may have a comma in it, and the list is taken apart at commas.
    let is_line = line.split_once(' ').is_some_and(|(_, path)| path.starts_with('/'));
    if is_line {
        Ok(NewRoute { line: line.to_owned(), action })
    } else {
        Err("write each as `METHOD /path`, with commas between; a path with a comma in it is added by hand".into())
    }
}

pub(super) fn run(given: &NewScope) -> Result<(), Failure> {
    let config = given.configuration.load(vec![])?;
    let (bundle, revision) = check::read(&config)?;
    let scope = policy::NewScope { name: given.name.clone(), routes: given.routes.clone(), item: given.item.clone() };
    let (edits, digest) = planned(&bundle, &revision, &scope)?;
    if given.dry_run {
        return say(&edits.iter().map(diff).collect::<String>());
    }
    put(&config, &bundle, &edits)?;
    let named = |edit: &Edit| format!("  {}\n", escaped(&files::at(&config, &edit.file).display().to_string()));
    let changed: Vec<String> = edits.iter().map(named).collect();
    let wait = check::may_wait(&config);
    say(&format!("{} is added, revision {digest}, in\n{}{wait}", scope.name, changed.concat()))
}

/// The edits, checked as a reload would check them, and what the revision is called that they make.
fn planned(bundle: &Bundle, revision: &Revision, scope: &policy::NewScope) -> Result<(Vec<Edit>, String), Failure> {
    let mut refusal = None;
    for other in revision.model().scopes.iter().take(MOST_TRIED) {
        let edits = on_stack(|| extend(bundle, revision, scope, other))??;
        match check::vetted(&edited(bundle, &edits))? {
            Ok(made) if policy::has_scope(&made, scope) => return Ok((edits, made.digest().short())),
            Ok(_) => {
                return Err(Failure::new("the files cannot be edited safely: a route would not be what it should be"));
            }
            Err(rejection) => drop(refusal.get_or_insert(rejection)),
        }
    }
    let why = refusal.as_ref().map(Rejection::render).unwrap_or_default();
    Err(Failure::new(format!("nothing was changed, because with the new scope the files would be refused\n\n{why}")))
}

fn edited(bundle: &Bundle, edits: &[Edit]) -> Bundle {
    let before = bundle.files().map(|(path, text)| (path.to_owned(), text.to_owned()));
    Bundle::from_files(before.chain(edits.iter().map(|edit| (edit.file.clone(), edit.after.clone()))))
}

fn diff(edit: &Edit) -> String {
    let before = edit.before.as_deref().unwrap_or_default();
    let (old, new) = (format!("a/{}", edit.file), format!("b/{}", edit.file));
    let old = if edit.before.is_some() { old } else { "/dev/null".to_owned() };
    TextDiff::from_lines(before, &edit.after).unified_diff().header(&old, &new).to_string()
}

/// Puts every file in its place, in order, or leaves them all as they were.
fn put(config: &Config, bundle: &Bundle, edits: &[Edit]) -> Result<(), Failure> {
    let path = |edit: &Edit| files::at(config, &edit.file);
    let failed = |path: PathBuf, error: &std::io::Error| {
        Failure::new(format!("{}: {error}; nothing was changed", path.display()))
    };
    let mut prepared = Vec::new();
    for edit in edits {
        prepared.push(Prepared::new(&path(edit), &edit.after).map_err(|error| failed(path(edit), &error))?);
    }
    if Bundle::read(&config.schemas_dir, &config.policies_dir).as_ref() != Ok(bundle) {
        return Err(Failure::new("the files have changed meanwhile; nothing was changed by this. Run it again"));
    }
    for (done, (prepared, edit)) in prepared.into_iter().zip(edits).enumerate() {
        if let Err(error) = prepared.put() {
            for edit in edits.iter().take(done) {
                undo(&path(edit), edit)?;
            }
            return Err(failed(path(edit), &error));
        }
    }
    Ok(())
}

fn undo(path: &std::path::Path, edit: &Edit) -> Result<(), Failure> {
    let undone = match &edit.before {
        Some(before) => Prepared::new(path, before).and_then(Prepared::put),
        None => std::fs::remove_file(path),
    };
    undone.map_err(|error| {
        Failure::new(format!("{} has the new text and could not be put back: {error}", path.display()))
    })
}
