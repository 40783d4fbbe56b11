//! The revisions that were in force, what each changed, and going back to one; and approving what waits.

use std::collections::BTreeMap;
use std::time::Duration;

use askama::Template;
use axum::extract::Path;
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};

use super::{FileRow, TABS, around, revision_of, rows};
use crate::dashboard::api::Problem;
use crate::dashboard::frame::{Frame, page as answer};
use crate::dashboard::trail::Names;
use crate::dashboard::visitor::{Answer, Posted, Visitor, see_other};
use crate::http::manage::policies::{RevisionView, Revisions};

/// How long is looked for the shortest difference of a file; what is found then is a longer one.
const LONGEST: Duration = Duration::from_millis(200);

#[derive(Template)]
#[template(path = "policies/history.html")]
struct History {
    frame: Frame,
    here: &'static str,
    revisions: Vec<Row>,
}

/// A revision of the list.
struct Row {
    revision: RevisionView,
    /// Who ordered it, where somebody did.
    by: Option<String>,
}

/// The revisions that were in force.
pub async fn page(visitor: Visitor) -> Answer {
    let frame = around(&visitor, "History of the policies").await?;
    let revisions: Revisions = visitor.client.get(&["policies", "history"], &[]).await?;
    let names = Names::get(&visitor.client, None).await;
    let row = |revision: RevisionView| Row { by: revision.by.as_ref().map(|by| names.who(by)), revision };
    let revisions = revisions.items.into_iter().map(row).collect();
    Ok(answer(&History { frame, here: "/policies/history", revisions }))
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
        let diff = TextDiff::configure().timeout(LONGEST).diff_lines(old.as_str(), new.as_str());
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
    revision: RevisionView,
    /// Who ordered it, where somebody did.
    by: Option<String>,
    files: Vec<FileRow>,
    /// The revision that it is held against; none before the first one.
    before: Option<String>,
    differences: Vec<Difference>,
}

impl One {
    fn summary(&self) -> &[String] {
        self.revision.comparison.as_ref().map(|comparison| comparison.summary.as_slice()).unwrap_or_default()
    }
}

/// A revision, or the one that waits for approval, with what its files say otherwise than those before.
pub async fn revision(visitor: Visitor, Path(digest): Path<String>) -> Answer {
    let frame = around(&visitor, "A revision").await?;
    let whole = revision_of(&visitor.client, &digest).await?;
    let before = match before(&visitor, &whole.revision).await? {
        Some(before) => Some(revision_of(&visitor.client, &before).await?),
        None => None,
    };
    let by = match &whole.revision.by {
        Some(by) => Some(Names::get(&visitor.client, None).await.who(by)),
        None => None,
    };
    Ok(answer(&One {
        frame,
        here: "/policies/history",
        by,
        files: rows(&whole.files, &[], Some(&whole.revision.digest)),
        differences: before.as_ref().map(|before| differences(&before.files, &whole.files)).unwrap_or_default(),
        before: before.map(|before| before.revision.digest),
        revision: whole.revision,
    }))
}

/// The revision that was in force before this one, or is as long as this one waits.
async fn before(visitor: &Visitor, revision: &RevisionView) -> Result<Option<String>, Problem> {
    let all: Revisions = visitor.client.get(&["policies", "history"], &[]).await?;
    let is_it = |other: &RevisionView| other.digest == revision.digest && other.since == revision.since;
    let place = if revision.waiting { Some(0) } else { all.items.iter().position(is_it).map(|place| place + 1) };
    Ok(place.and_then(|place| all.items.get(place)).map(|before| before.digest.clone()))
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
