//! `keyward policy history`, `show`, `rollback` and `approve`: the revisions that were in force, and changing which is.

use std::collections::BTreeSet;

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};
use similar::TextDiff;

use crate::cli::online::Online;
use crate::cli::terminal::{Column, escaped_lines, items, minute, record, second, table, text};
use crate::cli::{COMMAND_LINE, Failure, NO_SUCH_THING};
use crate::policy::ShortDigest;

/// Digits of a digest that are shown.
const SHOWN: usize = 12;
/// Digits of a commit's name that are shown, as git shows them.
const SHOWN_OF_COMMIT: usize = 7;
/// Lines of a difference around what differs.
const AROUND: usize = 3;

#[derive(Args)]
pub(in crate::cli) struct History {
    #[command(flatten)]
    online: Online,
}

#[derive(Args)]
pub(in crate::cli) struct Show {
    #[command(flatten)]
    which: Which,
    /// What is different from this revision, in place of the whole text; without a digest, from the one before
    #[arg(long, value_name = "DIGEST", num_args = 0..=1, default_missing_value = "")]
    diff: Option<String>,
}

#[derive(Args)]
pub(in crate::cli) struct Which {
    /// The revision's digest, or its first 8 digits or more
    digest: String,
    #[command(flatten)]
    online: Online,
}

const COLUMNS: [Column; 6] = [
    ("REVISION", |revision| short(&text(revision, "/digest"))),
    ("SINCE (UTC)", |revision| minute(revision, "/since")),
    ("FOR", lasted),
    ("HOW", |revision| text(revision, "/cause")),
    ("BY", by),
    ("DIFFERENCE", |revision| {
        let lines = summary(revision);
        match lines.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        }
    }),
];

const LINES: [Column; 6] = [
    ("revision", |revision| text(revision, "/digest")),
    ("since", |revision| second(revision, "/since")),
    ("for", lasted),
    ("how", |revision| if waits(revision) { "waits for approval".into() } else { text(revision, "/cause") }),
    ("by", by),
    ("commit", commit),
];

pub(super) fn history(given: &History) -> Result<(), Failure> {
    let list = given.online.client()?.get(&["policies", "history"], &[])?;
    given.online.tell(&list, |list| table(items(list), &COLUMNS, "no revision was ever in force"))
}

pub(super) fn show(given: &Show) -> Result<(), Failure> {
    let online = &given.which.online;
    let client = online.client()?;
    let find = |digest: &str| client.get(&["policies", "history", digest], &[]);
    let revision = find(&given.which.digest()?)?;
    let Some(other) = &given.diff else {
        return online.tell(&revision, |revision| described(revision) + &whole(revision));
    };
    let other = if other.is_empty() {
        let list = client.get(&["policies", "history"], &[])?;
        find(&before(items(&list), &revision)?)?
    } else {
        find(&named(other)?)?
    };
    let diff = diff(&other, &revision);
    let answer = json!({ "from": text(&other, "/digest"), "to": text(&revision, "/digest"), "diff": diff });
    online.tell(&answer, |_| if diff.is_empty() { "the two are the same\n".into() } else { escaped_lines(&diff) })
}

pub(super) fn rollback(given: &Which) -> Result<(), Failure> {
    let revision = given.order("rollback")?;
    given.online.tell(&revision, |revision| {
        format!(
            "{}\nIn force until the files on disk change. `keyward policy show {}` shows what to save.\n",
            described(revision),
            short(&text(revision, "/digest"))
        )
    })
}

pub(super) fn approve(given: &Which) -> Result<(), Failure> {
    let revision = given.order("approve")?;
    given.online.tell(&revision, |revision| format!("{}\nIn force.\n", described(revision)))
}

impl Which {
    fn digest(&self) -> Result<String, Failure> {
        named(&self.digest)
    }

    fn order(&self, order: &str) -> Result<Value, Failure> {
        let body = json!({ "digest": self.digest()? });
        self.online.client()?.send(Method::POST, &["policies", order], Some(&body))
    }
}

/// A digest as it is written; whatever else was given is not sent.
pub(super) fn named(digest: &str) -> Result<String, Failure> {
    let digest: Result<ShortDigest, _> = digest.parse();
    digest.map(|digest| digest.to_string()).map_err(|error| Failure::of(COMMAND_LINE, error.to_string()))
}

/// The revision that was in force before this one last came into force, or that this one waits to follow.
fn before(revisions: &[Value], revision: &Value) -> Result<String, Failure> {
    let digests: Vec<String> = revisions.iter().map(|revision| text(revision, "/digest")).collect();
    let digest = text(revision, "/digest");
    let at = digests.iter().position(|found| *found == digest).map(|at| at + 1);
    let earlier = if waits(revision) { digests.first() } else { at.and_then(|at| digests.get(at)) };
    earlier.cloned().ok_or_else(|| Failure::of(NO_SUCH_THING, "no revision that is kept was in force before this one"))
}

pub(super) fn short(digest: &str) -> String {
    digest.chars().take(SHOWN).collect()
}

/// The largest unit is enough.
fn lasted(revision: &Value) -> String {
    let seconds = revision.pointer("/seconds").and_then(Value::as_u64).unwrap_or_default();
    let time = roughly(seconds);
    if text(revision, "/in_force") == "yes" { format!("{time}, in force") } else { time }
}

fn waits(revision: &Value) -> bool {
    text(revision, "/waiting") == "yes"
}

/// A time in its largest whole unit.
pub(super) fn roughly(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let unit = units.into_iter().find(|(unit, _)| seconds >= *unit);
    unit.map_or_else(|| "0s".into(), |(unit, name)| format!("{}{name}", seconds / unit))
}

/// Whoever ordered it, else whoever wrote it.
fn by(revision: &Value) -> String {
    let by = ["/by/id", "/by/type"].map(|place| text(revision, place)).into_iter().find(|name| !name.is_empty());
    by.or_else(|| uncommitted(revision)).unwrap_or_else(|| text(revision, "/git/author"))
}

/// What is said of files that nobody has committed: whoever wrote the last commit did not write them.
fn uncommitted(revision: &Value) -> Option<String> {
    let commit: String = text(revision, "/git/commit").chars().take(SHOWN_OF_COMMIT).collect();
    let is_uncommitted = text(revision, "/git/uncommitted") == "yes";
    is_uncommitted.then(|| format!("not committed, on top of {commit} ({})", text(revision, "/git/author")))
}

pub(super) fn commit(revision: &Value) -> String {
    let commit = short(&text(revision, "/git/commit"));
    if commit.is_empty() {
        return commit;
    }
    let committed = || format!("{commit} {}: {}", text(revision, "/git/author"), text(revision, "/git/subject"));
    uncommitted(revision).unwrap_or_else(committed)
}

fn summary(revision: &Value) -> Vec<String> {
    let lines = revision.pointer("/comparison/summary").and_then(Value::as_array).into_iter().flatten();
    lines.map(|line| text(line, "")).collect()
}

fn described(revision: &Value) -> String {
    let lines = summary(revision).into_iter().map(|line| format!("  {line}\n"));
    let difference: String = lines.collect();
    let title = if difference.is_empty() { "" } else { "what is different from the one before:\n" };
    record(revision, &LINES) + title + &escaped_lines(&difference)
}

fn files(revision: &Value) -> impl Iterator<Item = (&String, &str)> {
    let files = revision.get("files").and_then(Value::as_object).into_iter().flatten();
    files.map(|(path, text)| (path, text.as_str().unwrap_or_default()))
}

fn whole(revision: &Value) -> String {
    files(revision).map(|(path, text)| escaped_lines(&format!("\n==> {path} <==\n{text}"))).collect()
}

/// The difference of all files, as `diff -u` and git write it.
fn diff(old: &Value, new: &Value) -> String {
    let file = |revision: &Value, path: &str| {
        files(revision).find(|(found, _)| *found == path).map(|(_, text)| text.to_owned())
    };
    let paths: BTreeSet<&String> = files(old).chain(files(new)).map(|(path, _)| path).collect();
    let mut text = String::new();
    for path in paths {
        let (before, after) = (file(old, path), file(new, path));
        if before == after {
            continue;
        }
        let name = |side: &str, file: &Option<String>| {
            if file.is_some() { format!("{side}/{path}") } else { "/dev/null".into() }
        };
        let names = (name("a", &before), name("b", &after));
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        let diff = TextDiff::from_lines(&before, &after);
        text += &diff.unified_diff().context_radius(AROUND).header(&names.0, &names.1).to_string();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_of_the_files_that_differ_and_says_which_are_new_or_gone() {
        let old = json!({ "files": { "a": "1\n2\n", "b": "same\n", "c": "gone\n" } });
        let new = json!({ "files": { "a": "1\n3\n", "b": "same\n", "d": "new\n" } });
        let expected = "--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n 1\n-2\n+3\n\
                        --- a/c\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n\
                        --- /dev/null\n+++ b/d\n@@ -0,0 +1 @@\n+new\n";
        assert_eq!(diff(&old, &new), expected);
        assert_eq!(diff(&new, &new), "");
    }

    #[test]
    fn the_one_before_is_that_of_the_last_time() {
        let revisions = ["c", "a", "b", "a"].map(|digest| json!({ "digest": digest }));
        let of = |at: usize| before(&revisions, &revisions[at]).ok();
        assert_eq!((of(1).as_deref(), of(0).as_deref()), (Some("b"), Some("a")));
        assert!(before(&revisions[3..], &revisions[3]).is_err_and(|failure| failure.code == NO_SUCH_THING));
        let waiting = json!({ "digest": "a", "waiting": true });
        assert_eq!(before(&revisions, &waiting).ok().as_deref(), Some("c"), "what is in force");
    }

    #[test]
    fn whoever_ordered_it_is_named_and_nobody_for_what_was_not_committed() {
        let git = |uncommitted: bool| json!({ "commit": "0123456789abcdef", "author": "Ada", "subject": "Begin", "uncommitted": uncommitted });
        for (revision, expected) in [
            (json!({ "git": git(false) }), "Ada"),
            (json!({ "git": git(true) }), "not committed, on top of 0123456 (Ada)"),
            (json!({ "git": git(false), "by": { "type": "user", "id": "usr_1" } }), "usr_1"),
            (json!({ "git": git(true), "by": { "type": "console" } }), "console"),
            (json!({}), ""),
        ] {
            assert_eq!(by(&revision), expected, "{revision}");
        }
        assert_eq!(commit(&json!({ "git": git(false) })), "0123456789ab Ada: Begin");
    }

    #[test]
    fn a_time_is_told_in_its_largest_unit() {
        for (seconds, told) in [(0, "0s"), (59, "59s"), (60, "1m"), (7_199, "1h"), (200_000, "2d")] {
            assert_eq!(roughly(seconds), told);
        }
    }
}
