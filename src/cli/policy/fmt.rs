//! `keyward policy fmt`: policy files in their one layout.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::files::{self, Prepared};
use crate::cli::Failure;
use crate::cli::configuration::Configuration;
use crate::cli::files::on_stack;
use crate::cli::terminal::{escaped, say};
use crate::policy::{Bundle, format};

/// Lay out policy files in the one way, as Cedar's formatter does
///
/// Comments stay. A file whose policies or comments would not be the same afterwards is left as it is, and named.
/// Schemas and examples are not formatted.
///
/// Ends with 0 when every file has the layout now (with --check: had it already), and else with 1.
#[derive(Args)]
pub(in crate::cli) struct Fmt {
    /// The files; without any, all policy files of the policies folder. `-` is standard input, laid out on standard output
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Change nothing, and name the files that do not have the layout
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    configuration: Configuration,
}

/// What became of the files.
#[derive(Default)]
struct Done {
    /// How many would be changed, with `--check`.
    unformatted: usize,
    /// Why files were left as they are.
    problems: Vec<String>,
}

pub(super) fn run(given: &Fmt) -> Result<(), Failure> {
    let mut done = Done::default();
    if given.files.is_empty() {
        let config = given.configuration.load(vec![])?;
        let bundle = Bundle::read(&config.schemas_dir, &config.policies_dir)
            .map_err(|rejection| Failure::new(format!("nothing was formatted\n\n{}", rejection.render())))?;
        for (name, text) in bundle.policies() {
            done.file(given, &files::at(&config, name), Ok(text.to_owned()))?;
        }
    }
    for path in &given.files {
        if path.as_os_str() == "-" {
            done.stream(given)?;
        } else {
            done.file(given, path, files::read(path))?;
        }
    }
    done.end()
}

impl Done {
    fn file(&mut self, given: &Fmt, path: &Path, text: Result<String, String>) -> Result<(), Failure> {
        let name = path.display().to_string();
        let Some((text, laid_out)) = self.laid_out(&name, text)? else { return Ok(()) };
        if laid_out == text {
            return Ok(());
        }
        if given.check {
            self.unformatted += 1;
            return say(&format!("not formatted: {}\n", escaped(&name)));
        }
        let replaced =
            Prepared::new(path, &laid_out).map_err(|error| format!("{name}: {error}")).and_then(|prepared| {
                // An editor may have saved meanwhile, and what was saved is not to be lost.
                if files::read(path)? != text {
                    return Err(format!("{name}: it was changed meanwhile"));
                }
                prepared.put().map_err(|error| format!("{name}: {error}"))
            });
        match replaced {
            Ok(()) => say(&format!("formatted: {}\n", escaped(&name))),
            Err(problem) => {
                self.problems.push(format!("{problem}\n"));
                Ok(())
            }
        }
    }

    fn stream(&mut self, given: &Fmt) -> Result<(), Failure> {
        let text = files::text(io::stdin().lock()).map_err(|error| format!("standard input: {error}"));
        let Some((text, laid_out)) = self.laid_out("standard input", text)? else { return Ok(()) };
        if !given.check {
            return say(&laid_out);
        }
        if laid_out == text {
            return Ok(());
        }
        self.unformatted += 1;
        say("not formatted: standard input\n")
    }

    /// A text, and how it would be laid out; what is in the way is remembered for the end.
    fn laid_out(&mut self, name: &str, text: Result<String, String>) -> Result<Option<(String, String)>, Failure> {
        match text {
            Ok(text) => match on_stack(|| format(name, &text))? {
                Ok(laid_out) => return Ok(Some((text, laid_out))),
                Err(rejection) => self.problems.push(rejection.render()),
            },
            Err(problem) => self.problems.push(format!("{problem}\n")),
        }
        Ok(None)
    }

    fn end(self) -> Result<(), Failure> {
        let files = |count: usize| if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
        match (self.problems.len(), self.unformatted) {
            (0, 0) => Ok(()),
            (0, count) => Err(Failure::new(format!("{} not formatted; `keyward policy fmt` does it", files(count)))),
            (count, _) => {
                Err(Failure::new(format!("left as they are: {}\n\n{}", files(count), self.problems.concat())))
            }
        }
    }
}
