//! `keyward policy test`: the examples of `policies/tests/*.toml`, each with what became of it, and what they leave out.

mod junit;
mod told;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::activate::examples::{self, Coverage};
use crate::cli::Failure;
use crate::cli::configuration::Configuration;
use crate::cli::files::{Files, refused};
use crate::cli::terminal::{ink, say};

/// What an example looks like, for help and for those who have replaced the shipped ones.
const FORM: &str = r#"An example, in policies/tests/*.toml:

  [[test]]
  name = "a worker reads and does not write"
  key = { kind = "restricted", mode = "live", scopes = ["resources:read"] }
  request = "POST /v1/resources"
  expect = "forbidden"

  key       kind and mode, scopes for a restricted key; without it, a call without credentials
  request   method and path
  resource  { id = "…" }, where that is not the path's; { environment = "live" }, "test" or "other" (of another account)
  secure    false: over plain HTTP
  ip, time  from where; when, for example 2027-01-31T08:00:00Z, now when not given
  expect    allow, unauthenticated or forbidden; reason, policies and missing_scopes may be given, too

or, about management:

  [[test]]
  name = "a viewer rotates nothing"
  person = { role = "viewer" }
  operation = "rotateKey"
  about = { key = { environment = "test", kind = "secret" } }
  expect = "forbidden"

  person    { operator = true }, { role = "owner" }, "developer" or "viewer", {}; without it, a call without a token
  about     "system", { account = "own" } or "other", { environment = "test" }, { key = … }, { person = "own" } or "other""#;

/// Run the examples of policies/tests, and say of each that fails which policies decided and what they saw
///
/// Exit codes: 0 when all come true; 1 when one does not, or when the files are refused or cover less than
/// --min-coverage asks for.
#[derive(Args)]
#[command(after_long_help = FORM)]
pub(in crate::cli) struct Test {
    /// The folder that holds schemas/ and policies/; without it, those that the configuration names
    #[arg(value_name = "DIR", conflicts_with_all = ["schemas_dir", "policies_dir"])]
    folder: Option<PathBuf>,
    /// Only examples whose name or file has this in it, in whatever case; may be given several times, and one will do
    #[arg(long = "filter", short = 'f', value_name = "TEXT")]
    filters: Vec<String>,
    /// List the examples, and run none
    #[arg(long, conflicts_with_all = ["junit", "min_coverage"])]
    list: bool,
    /// Say nothing of examples that come true
    #[arg(long, short)]
    quiet: bool,
    /// Fail when less than this is covered, in percent: of the policies, which decide an example, or of the API's actions,
    /// which are asked about in one
    #[arg(long, value_name = "PERCENT", conflicts_with = "filters", value_parser = clap::value_parser!(u8).range(0..=100))]
    min_coverage: Option<u8>,
    /// Write the results as JUnit XML, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Tell the results as JSON, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configuration: Configuration,
}

/// What became of the examples.
#[derive(Serialize)]
struct Results {
    /// The digest of the files.
    revision: String,
    passed: usize,
    failed: usize,
    /// Examples that the filters left out.
    filtered_out: usize,
    items: Vec<Item>,
    /// Of all examples: with a filter it would say nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage: Option<Coverage>,
}

/// What became of one example.
#[derive(Serialize)]
struct Item {
    name: String,
    file: String,
    line: usize,
    /// Who asks for what, in one line.
    asked: String,
    passed: bool,
    decision: &'static str,
    reason: &'static str,
    policies: Vec<String>,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    came: Option<String>,
    /// Of one that failed: the way to the decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Value>,
}

pub(super) fn run(given: &Test) -> Result<(), Failure> {
    let files = match &given.folder {
        Some(folder) => Files::below(folder),
        None => {
            let config = given.configuration.load(vec![])?;
            Files { schemas: config.schemas_dir, policies: config.policies_dir }
        }
    };
    if given.list {
        return list(given, &files);
    }
    let filters = given.filters();
    let results = files.work_on(move |bundle, revision| {
        let mut all = examples::read(bundle, revision).map_err(|rejection| refused(&rejection))?;
        let count = all.len();
        all.retain(|example| filters.admit(&example.name, example.file()));
        let mut ran = Vec::with_capacity(all.len());
        let mut items = Vec::with_capacity(all.len());
        for example in all {
            let began = Instant::now();
            let came = example.run(revision);
            items.push(Item {
                name: example.name.clone(),
                file: example.file().to_owned(),
                line: example.line(),
                asked: example.said(),
                passed: came.failure.is_none(),
                decision: came.reason.outcome().as_str(),
                reason: came.reason.as_str(),
                policies: came.policies.iter().cloned().collect(),
                seconds: began.elapsed().as_secs_f64(),
                expected: came.failure.as_ref().map(|failure| failure.expected.clone()),
                came: came.failure.as_ref().map(|failure| failure.came.clone()),
                explanation: came
                    .failure
                    .as_ref()
                    .map(|_| serde_json::to_value(example.explain(revision)))
                    .transpose()?,
            });
            ran.push((example, came));
        }
        let passed = items.iter().filter(|item| item.passed).count();
        Ok(Results {
            revision: revision.digest_text().to_owned(),
            passed,
            failed: items.len() - passed,
            filtered_out: count - items.len(),
            coverage: filters.are_none().then(|| Coverage::of(revision, &ran)),
            items,
        })
    })?;
    if let Some(file) = &given.junit {
        let at = |error: std::io::Error| Failure::new(format!("{}: {error}", file.display()));
        let mut out = std::fs::File::create(file).map_err(at)?;
        out.write_all(junit::written(&results)?.as_bytes()).map_err(at)?;
    }
    if given.json {
        say(&format!("{:#}\n", serde_json::to_value(&results)?))?;
    } else {
        say(&told::results(&results, given.quiet, ink()))?;
    }
    verdict(given, &results)
}

/// Whether it is good enough.
fn verdict(given: &Test, results: &Results) -> Result<(), Failure> {
    match (results.failed, &results.coverage, given.min_coverage) {
        (0, Some(coverage), Some(least)) if coverage.lowest() < usize::from(least) => Err(Failure::new(format!(
            "the examples cover {} %, and --min-coverage asks for {least} %",
            coverage.lowest()
        ))),
        (0, ..) if results.items.is_empty() && results.filtered_out > 0 => {
            Err(Failure::new("no example has a name or a file with that in it; --list shows them"))
        }
        (0, ..) => Ok(()),
        (1, ..) => Err(Failure::new("one example does not come true")),
        (failed, ..) => Err(Failure::new(format!("{failed} examples do not come true"))),
    }
}

fn list(given: &Test, files: &Files) -> Result<(), Failure> {
    let filters = given.filters();
    let items = files.work_on(move |bundle, revision| {
        let all = examples::read(bundle, revision).map_err(|rejection| refused(&rejection))?;
        let all = all.iter().filter(|example| filters.admit(&example.name, example.file()));
        let items = all.map(|example| {
            json!({ "name": example.name, "file": example.file(), "line": example.line(), "asked": example.said() })
        });
        Ok(items.collect::<Vec<_>>())
    })?;
    if given.json {
        return say(&format!("{:#}\n", json!({ "items": items })));
    }
    say(&told::list(&items))
}

/// Parts of names or files, one of which an example has to have.
struct Filters(Vec<String>);

impl Test {
    fn filters(&self) -> Filters {
        Filters(self.filters.iter().map(|text| text.to_lowercase()).collect())
    }
}

impl Filters {
    fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    fn admit(&self, name: &str, file: &str) -> bool {
        let (name, file) = (name.to_lowercase(), file.to_lowercase());
        self.are_none() || self.0.iter().any(|text| name.contains(text) || file.contains(text))
    }
}
