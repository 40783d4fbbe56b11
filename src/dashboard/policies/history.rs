//! The revisions that were in force, what each changed, and going back to one; and approving what waits.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::Path;
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};

use super::{FileRow, TABS, around, in_force, revision_of, rows};
use crate::dashboard::api::Problem;
use crate::dashboard::frame::{Frame, page as answer};
use crate::dashboard::visitor::{Answer, Posted, Visitor, see_other};
use crate::http::manage::policies::{RevisionView, Revisions};

#[derive(Template)]
#[template(path = "policies/history.html")]
struct History {
    frame: Frame,
    here: &'static str,
    revisions: Vec<RevisionView>,
}

/// The revisions that were in force.
pub async fn page(visitor: Visitor) -> Answer {
    let frame = around(&visitor, "History of the policies").await?;
    let revisions: Revisions = visitor.client.get(&["policies", "history"], &[]).await?;
    Ok(answer(&History { frame, here: "/policies/history", revisions: revisions.items }))
}

/// A file that two revisions have differently.
struct Difference {
    path: String,
    lines: Vec<(&'static str, String)>,
}

fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<Difference> {
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    let empty = String::new();
    let of = |path: &String| {
        let (old, new) = (before.get(path).unwrap_or(&empty), after.get(path).unwrap_or(&empty));
        if old == new {
            return None;
        }
        let diff = TextDiff::from_lines(old.as_str(), new.as_str());
        let mut lines = Vec::new();
        for (at, group) in diff.grouped_ops(3).iter().enumerate() {
            if at > 0 {
                lines.push(("soft", "  ⋯\n".to_owned()));
            }
            for change in group.iter().flat_map(|operation| diff.iter_changes(operation)) {
                let (class, sign) = match change.tag() {
                    ChangeTag::Delete => ("removed", '-'),
                    ChangeTag::Insert => ("added", '+'),
                    ChangeTag::Equal => ("", ' '),
                };
                lines.push((class, format!("{sign} {}\n", change.value().trim_end_matches('\n'))));
            }
        }
        Some(Difference { path: path.clone(), lines })
    };
    paths.into_iter().filter_map(of).collect()
}

#[derive(Template)]
#[template(path = "policies/revision.html")]
struct One {
    frame: Frame,
    here: &'static str,
    revision: Option<RevisionView>,
    digest: String,
    summary: Vec<String>,
    waits: bool,
    files: Vec<FileRow>,
    differences: Vec<Difference>,
}

impl One {
    fn is_in_force(&self) -> bool {
        self.revision.as_ref().is_some_and(|revision| revision.in_force)
    }
}

/// A revision, or the one that waits for approval.
pub async fn revision(visitor: Visitor, Path(digest): Path<String>) -> Answer {
    let frame = around(&visitor, "A revision").await?;
    let in_force = in_force(&visitor.client).await?;
    if let Some(waiting) = in_force.report.waiting.filter(|waiting| waiting.digest.to_string() == digest) {
        let (summary, waits) = (waiting.comparison.summary, true);
        let (files, differences) = (Vec::new(), Vec::new());
        return Ok(answer(&One {
            frame,
            here: "/policies/history",
            revision: None,
            digest,
            summary,
            waits,
            files,
            differences,
        }));
    }
    let whole = revision_of(&visitor.client, &digest).await?;
    let all: Revisions = visitor.client.get(&["policies", "history"], &[]).await?;
    let place = all
        .items
        .iter()
        .position(|revision| revision.digest == whole.revision.digest && revision.since == whole.revision.since);
    let before = place.and_then(|place| all.items.get(place + 1));
    let before = match before {
        Some(before) => Some(revision_of(&visitor.client, &before.digest).await?),
        None => None,
    };
    let files = rows(&whole.files, &[], Some(&whole.revision.digest));
    Ok(answer(&One {
        frame,
        here: "/policies/history",
        differences: before.map(|before| differences(&before.files, &whole.files)).unwrap_or_default(),
        summary: whole.revision.comparison.as_ref().map(|comparison| comparison.summary.clone()).unwrap_or_default(),
        digest: whole.revision.digest.clone(),
        revision: Some(whole.revision),
        waits: false,
        files,
    }))
}

/// Goes back to a revision.
pub async fn roll_back(Posted { visitor, fields }: Posted) -> Answer {
    order(
        &visitor,
        "rollback",
        fields.text("digest"),
        "This revision is in force again, until the files on disk change.",
    )
    .await
}

/// Brings what waits into force.
pub async fn approve(Posted { visitor, fields }: Posted) -> Answer {
    order(&visitor, "approve", fields.text("digest"), "The revision is approved and in force.").await
}

async fn order(visitor: &Visitor, what: &str, digest: &str, told: &str) -> Answer {
    let done: Result<Value, Problem> = visitor.client.post(&["policies", what], &json!({ "digest": digest })).await;
    if visitor.or_warn(done, Problem::is_about_input_or_gone)?.is_some() {
        visitor.tell(told);
    }
    Ok(see_other("/policies"))
}
