//! `keyward policy replay`: what other policies would have made of the decisions that were recorded.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::Compared;
use crate::activate::vet::{self, Vetter};
use crate::authorize::STACK;
use crate::cli::Failure;
use crate::cli::configuration::Configuration;
use crate::cli::online::Online;
use crate::cli::terminal::{Column, items, table, text};
use crate::policy::{Bundle, Revision};
use crate::recorded::{Change, Comparison, Reader, Record, Redecider};

/// Decisions between two movements of the progress bar.
const STRIDE: usize = 1_000;

#[derive(Args)]
pub(in crate::cli) struct Replay {
    /// The folder of the policies to try, or one that holds `policies/` and, if the schema is another one, `schemas/`
    #[arg(long, value_name = "DIR")]
    candidate: PathBuf,
    /// A file of `keyward decisions export`, in place of what the daemon has recorded; `-` is standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    #[command(flatten)]
    online: Online,
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn run(given: &Replay) -> Result<Compared, Failure> {
    // Asked for first: whoever has no token need not wait for what takes longer.
    let client = if given.from.is_none() { Some(given.online.client()?) } else { None };
    let revision = Arc::new(given.revision()?);
    let records = match (&client, &given.from) {
        (Some(client), _) => {
            let mut lines = Lines::default();
            client.copy(&["decisions", "export"], &mut lines)?;
            lines.end()?
        }
        (None, Some(file)) => read(file).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?,
        (None, None) => Vec::new(),
    };
    let comparison = decide_again(&records, &revision)?;
    let report = report(&records, &revision, &comparison);
    given.online.tell(&report, told)?;
    let (widened, narrowed) = (comparison.count(Change::DenyToAllow), comparison.count(Change::AllowToDeny));
    Ok(match (widened, narrowed) {
        (0, 0) => Compared::Same,
        (0, narrowed) => Compared::Narrowed(format!("{narrowed} that were allowed would be denied")),
        (widened, _) => Compared::Widened(format!("{widened} that were denied would be allowed")),
    })
}

impl Replay {
    /// The candidate, looked at by a child first, as new files of a running daemon are.
    fn revision(&self) -> Result<Revision, Failure> {
        let (inner, schemas) = (self.candidate.join("policies"), self.candidate.join("schemas"));
        let policies = if inner.is_dir() { inner } else { self.candidate.clone() };
        let schemas = if schemas.is_dir() { schemas } else { self.configuration.load(vec![])?.schemas_dir };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let vetted = Bundle::read(&schemas, &policies).and_then(|bundle| {
            let vetted = runtime.block_on(Vetter::of_this_program().vet(&bundle));
            vetted.map_err(vet::Failure::into_rejection)
        });
        vetted.map_err(|rejection| Failure::new(format!("the candidate would be refused\n\n{}", rejection.render())))
    }
}

fn read(file: &Path) -> io::Result<Vec<Record>> {
    let mut lines = Lines::default();
    let mut source: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::with_capacity(1 << 16, File::open(file)?))
    };
    io::copy(&mut source, &mut lines)?;
    lines.end()
}

/// Makes records of lines while they come.
struct Lines {
    reader: Reader,
    records: Vec<Record>,
    /// The beginning of a line whose end is still to come.
    begun: Vec<u8>,
    progress: ProgressBar,
}

impl Default for Lines {
    fn default() -> Self {
        let progress = ProgressBar::new_spinner().with_style(style("{spinner} {human_pos} decisions read"));
        Self { reader: Reader::default(), records: Vec::new(), begun: Vec::new(), progress }
    }
}

impl Lines {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let number = self.records.len() + 1;
        let record = self.reader.line(line).map_err(|why| {
            io::Error::new(io::ErrorKind::InvalidData, format!("line {number} is no recorded decision: {why}"))
        })?;
        self.records.push(record);
        if number.is_multiple_of(STRIDE) {
            self.progress.set_position(number as u64);
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<Vec<Record>> {
        if !self.begun.is_empty() {
            let last = std::mem::take(&mut self.begun);
            self.line(&last)?;
        }
        self.progress.finish_and_clear();
        Ok(self.records)
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, behind) = rest.split_at(end);
            if self.begun.is_empty() {
                self.line(line)?;
            } else {
                let mut whole = std::mem::take(&mut self.begun);
                whole.extend_from_slice(line);
                self.line(&whole)?;
            }
            rest = behind.get(1..).unwrap_or_default();
        }
        self.begun.extend_from_slice(rest);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// On every processor, on threads that have the stack that the daemon's have.
fn decide_again(records: &[Record], revision: &Arc<Revision>) -> Result<Comparison, Failure> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let bar = ProgressBar::new(records.len() as u64);
    let bar = bar.with_style(style("{bar:40} {human_pos} of {human_len} decided again, {eta} left"));
    let share = |records: &[Record]| -> Result<Comparison, getrandom::Error> {
        let mut redecider = Redecider::new(Arc::clone(revision))?;
        let mut comparison = Comparison::default();
        for some in records.chunks(STRIDE) {
            for record in some {
                let decided = redecider.decide(record);
                comparison.note(record, decided.as_deref());
            }
            bar.inc(some.len() as u64);
        }
        Ok(comparison)
    };
    let all = std::thread::scope(|scope| -> Result<Comparison, Failure> {
        let mut running = Vec::new();
        for records in records.chunks(records.len().div_ceil(threads).max(1)) {
            running.push(std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || share(records))?);
        }
        let mut all = Comparison::default();
        for thread in running {
            all.merge(thread.join().map_err(|_| Failure::new("a decision could not be made again"))??);
        }
        Ok(all)
    });
    bar.finish_and_clear();
    all
}

/// A template that is known to be one.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn report(records: &[Record], revision: &Revision, comparison: &Comparison) -> Value {
    let decided_under: BTreeSet<String> = records.iter().map(|record| record.ruling().revision.to_string()).collect();
    let mut report = json!({
        "candidate": revision.digest(),
        "decisions": records.len(),
        "decided_under": decided_under,
    });
    if let (Value::Object(report), Ok(Value::Object(compared))) =
        (&mut report, serde_json::to_value(comparison.report()))
    {
        report.extend(compared);
    }
    report
}

const COLUMNS: [Column; 6] = [
    ("COUNT", |group| text(group, "/count")),
    ("KEYS", |group| {
        let kind = text(group, "/kind");
        if kind.is_empty() { "no key".to_owned() } else { kind }
    }),
    ("ACTION", |group| text(group, "/action")),
    ("WAS", |group| ruled(group, "/before")),
    ("WOULD BE", |group| ruled(group, "/after")),
    ("FOR EXAMPLE", |group| {
        let part = |place: &str| text(group, &format!("/examples/0/{place}"));
        format!("{} {} (request {})", part("method"), part("path"), part("request_id"))
    }),
];

fn ruled(group: &Value, place: &str) -> String {
    let (reason, policies) = (text(group, &format!("{place}/reason")), text(group, &format!("{place}/policies")));
    if policies.is_empty() { reason } else { format!("{reason} by {policies}") }
}

const SECTIONS: [(Change, &str); 4] = [
    (Change::DenyToAllow, "were denied and would be allowed"),
    (Change::AllowToDeny, "were allowed and would be denied"),
    (Change::OtherReason, "would be denied for another reason"),
    (Change::OtherPolicies, "would be decided alike by other policies"),
];

/// The report, for people.
fn told(report: &Value) -> String {
    let count = |place: &str| report.pointer(place).and_then(Value::as_u64).unwrap_or_default();
    let mut said = format!(
        "{} recorded decisions, {} of them decided again by revision {:.12}: {} come to the same\n",
        count("/decisions"),
        count("/decided_again"),
        text(report, "/candidate"),
        count("/changes/same"),
    );
    let others = report.pointer("/not_decided_again").and_then(Value::as_object).into_iter().flatten();
    let others: Vec<String> = others.map(|(reason, count)| format!("{count} {reason}")).collect();
    if !others.is_empty() {
        said += &format!("not for policies to say: {}\n", others.join(", "));
    }
    let revisions = report.pointer("/decided_under").and_then(Value::as_array).map_or(0, Vec::len);
    if revisions > 1 {
        said +=
            &format!("they were made under {revisions} revisions, so that what was changed since then shows, too\n");
    }
    let groups = json!({ "items": report.pointer("/groups") });
    for (change, title) in SECTIONS {
        let of_change = |group: &&Value| text(group, "/change") == change.as_str();
        let some: Vec<Value> = items(&groups).iter().filter(of_change).cloned().collect();
        if !some.is_empty() {
            let all = count(&format!("/changes/{}", change.as_str()));
            said += &format!("\n{all} {title}\n{}", table(&some, &COLUMNS, ""));
        }
    }
    match count("/ungrouped") {
        0 => said,
        more => said + &format!("\n{more} more, in still other ways\n"),
    }
}
