//! `keyward policy status`: what is in force, and what is not.

use clap::Args;
use serde_json::Value;

use super::history::{commit, roughly, short};
use crate::cli::Failure;
use crate::cli::online::Online;
use crate::cli::terminal::{Column, escaped_lines, record, second, text};

#[derive(Args)]
pub(in crate::cli) struct Status {
    #[command(flatten)]
    online: Online,
}

const LINES: [Column; 10] = [
    ("in force", |report| short(&text(report, "/active/digest"))),
    ("since", |report| second(report, "/active/activated_at")),
    ("from", |report| match text(report, "/active/source").as_str() {
        "store" => "the store: the files on disk are not in force".into(),
        "rollback" => "a rollback, until the files on disk change".into(),
        _ => "the files on disk".into(),
    }),
    ("rolled back by", |report| {
        let by = ["/active/rollback/by/id", "/active/rollback/by/type"].map(|place| text(report, place));
        by.into_iter().find(|name| !name.is_empty()).unwrap_or_default()
    }),
    ("rolled back at", |report| second(report, "/active/rollback/since")),
    ("proven", proven),
    ("solver", |report| text(report, "/solver")),
    ("stale for", |report| {
        let seconds = report.pointer("/stale_seconds").and_then(Value::as_u64);
        seconds.map(roughly).unwrap_or_default()
    }),
    ("waiting", |report| short(&text(report, "/waiting/digest"))),
    ("commit", |report| report.get("waiting").map(commit).unwrap_or_default()),
];

/// Asks for no token, as `/v1/policies` does not.
pub(super) fn run(given: &Status) -> Result<(), Failure> {
    let report = given.online.stranger()?.get(&["policies"], &[])?;
    given.online.tell(&report, shown)
}

/// How many of the guarantees, and whether any policy can fail.
fn proven(report: &Value) -> String {
    let is_proven = |status: &&Value| status.get("status").and_then(Value::as_str) == Some("proven");
    let guarantees = report.pointer("/proof/guarantees").and_then(Value::as_object);
    let Some(guarantees) = guarantees else { return "not yet".into() };
    let count = guarantees.values().filter(is_proven).count();
    let fails = report.pointer("/proof/never_fails").filter(is_proven).map_or("not proven", |_| "proven");
    format!("{count} of {} guarantees; that no policy can fail: {fails}", guarantees.len())
}

fn shown(report: &Value) -> String {
    let mut shown = record(report, &LINES);
    let refused = text(report, "/refused/diagnostics");
    if !refused.is_empty() {
        shown += &format!("\nThe files on disk are refused:\n\n{}", escaped_lines(&refused));
    }
    let waiting = text(report, "/waiting/digest");
    if !waiting.is_empty() {
        let lines = report.pointer("/waiting/summary").and_then(Value::as_array).into_iter().flatten();
        let summary: String = lines.flat_map(|line| ["  ".to_owned(), text(line, ""), "\n".to_owned()]).collect();
        shown += &format!(
            "\nUnder the files on disk somebody could do more, or it is not proven that nobody could. `keyward policy approve {}` brings them into force:\n{}",
            short(&waiting),
            escaped_lines(&summary)
        );
    }
    shown
}
