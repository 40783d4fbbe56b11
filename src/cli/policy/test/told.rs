//! The results as a person reads them.

use std::fmt::Write as _;

use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use super::{Item, Results};
use crate::activate::examples::{Coverage, Half};
use crate::cli::terminal::{Ink, escaped, text};
use crate::cli::told;

/// Names of what is not covered that are told; `--json` tells all.
const MOST_MISSED: usize = 20;

/// All of it: a line for each example, the way to the decision of each that failed, and what is not covered.
pub(super) fn results(results: &Results, quiet: bool, ink: Ink) -> String {
    let mut out = String::new();
    let mut file = "";
    for item in results.items.iter().filter(|item| !(quiet && item.passed)) {
        if file != item.file {
            let gap = if file.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}{}", ink.strong(&escaped(&item.file)));
            file = &item.file;
        }
        let mark = if item.passed { ink.good("✓") } else { ink.bad("✗") };
        let _ = writeln!(out, "  {mark} {}", escaped(&item.name));
    }
    for item in results.items.iter().filter(|item| !item.passed) {
        let place = ink.faint(&format!("{}:{}", escaped(&item.file), item.line));
        let _ = writeln!(out, "\n{} {}  {place}\n", ink.bad("✗"), ink.strong(&escaped(&item.name)));
        out += &failure(item, ink);
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let left_out = match results.filtered_out {
        0 => String::new(),
        count => format!(", {count} filtered out"),
    };
    let (passed, failed) = (format!("{} passed", results.passed), format!("{} failed", results.failed));
    let failed = if results.failed > 0 { ink.bad(&failed) } else { failed };
    let _ = writeln!(out, "{}, {failed}{left_out}", ink.good(&passed));
    if let Some(coverage) = &results.coverage {
        out += &covered(coverage, ink);
    }
    out
}

/// An example that failed: what was asked, what was expected, what came, and why.
pub(super) fn failure(item: &Item, ink: Ink) -> String {
    let part = |text: &Option<String>| escaped(text.as_deref().unwrap_or_default());
    let mut out = format!(
        "  {}\n  expected  {}\n  came      {}\n\n",
        escaped(&item.asked),
        ink.good(&part(&item.expected)),
        ink.bad(&part(&item.came))
    );
    let Some(explanation) = &item.explanation else { return out };
    out += &told::steps(explanation, ink);
    let policies = told::policies(explanation, ink);
    if !policies.is_empty() {
        out += &format!("\n{policies}");
    }
    let near = told::near_misses(explanation, ink);
    if !near.is_empty() {
        out += &format!("\n  Permits that one part kept from applying\n{near}");
    }
    out
}

/// The examples by name, with their places.
pub(super) fn list(items: &[Value]) -> String {
    let place = |item: &Value| format!("{}:{}", text(item, "/file"), text(item, "/line"));
    let widest = items.iter().map(|item| place(item).width()).max().unwrap_or_default();
    let mut out = String::new();
    for item in items {
        let _ = writeln!(out, "{:widest$}  {}", place(item), escaped(&text(item, "/name")));
    }
    out
}

fn covered(coverage: &Coverage, ink: Ink) -> String {
    let mut out = String::new();
    for (name, half) in [("the API", &coverage.api), ("management", &coverage.management)] {
        if half.examples == 0 {
            let _ = writeln!(out, "\nCoverage of {name}: no example is about it");
            continue;
        }
        let _ = writeln!(out, "\nCoverage of {name}");
        out += &half_covered(half, name == "the API", ink);
    }
    out
}

fn half_covered(half: &Half, with_actions: bool, ink: Ink) -> String {
    let policies = half.policies.missed.iter().map(|info| (info.name.as_str(), format!("{}:{}", info.file, info.line)));
    let actions = half.actions.missed.iter().map(|action| (action.name.as_str(), action.route.clone()));
    let share = |covered: usize, total: usize, percent: usize| format!("{covered:>3} of {total} ({percent} %)");
    let of_policies = share(half.policies.covered, half.policies.total, half.policies.percent());
    let of_actions = share(half.actions.covered, half.actions.total, half.actions.percent());
    let mut out = format!("  policies {of_policies} decide an example{}\n", following(half.policies.missed.is_empty()));
    out += &missed(&policies.collect::<Vec<_>>(), ink);
    let are_told = with_actions && !half.actions.missed.is_empty();
    out += &format!("  actions  {of_actions} are asked about{}\n", following(!are_told));
    if are_told {
        out += &missed(&actions.collect::<Vec<_>>(), ink);
    }
    out
}

fn following(nothing: bool) -> &'static str {
    if nothing { "" } else { "; not these:" }
}

fn missed(all: &[(&str, String)], ink: Ink) -> String {
    let widest = all.iter().take(MOST_MISSED).map(|(name, _)| name.width()).max().unwrap_or_default();
    let mut out = String::new();
    for (name, place) in all.iter().take(MOST_MISSED) {
        let name = escaped(name);
        let padding = widest.saturating_sub(name.width());
        let _ = writeln!(out, "    {name}{:padding$}  {}", "", ink.faint(&escaped(place)));
    }
    if let Some(more) = all.len().checked_sub(MOST_MISSED).filter(|more| *more > 0) {
        let _ = writeln!(out, "    and {more} more");
    }
    out
}
