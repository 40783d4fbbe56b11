//! Trying an edit: what would become of it, without making it.

use std::sync::Arc;

use askama::Template;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use serde_json::json;

use super::{Statement, TABS, around, revision_of, statements};
use crate::dashboard::api::Problem;
use crate::dashboard::fields::Fields;
use crate::dashboard::frame::{Frame, page as answer, page_with};
use crate::dashboard::source::is_cedar;
use crate::dashboard::visitor::{Answer, Posted, Visitor};
use crate::http::admin::InForce;
use crate::http::manage::playground::CheckedPolicies;

#[derive(Template)]
#[template(path = "policies/playground.html")]
struct Playground {
    frame: Frame,
    here: &'static str,
    paths: Vec<String>,
    path: String,
    text: String,
    problem: Option<Problem>,
    checked: Option<CheckedPolicies>,
    in_force: Arc<InForce>,
}

impl Playground {
    fn statements(&self) -> Vec<Statement> {
        let proof = self.checked.as_ref().and_then(|checked| checked.proof.as_ref());
        proof.map(|proof| statements(proof, &self.in_force.policies)).unwrap_or_default()
    }

    fn flips(&self) -> u64 {
        let replay = self.checked.as_ref().and_then(|checked| checked.replay.as_ref());
        let flipped = |report: &crate::recorded::Report| {
            ["deny_to_allow", "allow_to_deny"].iter().filter_map(|change| report.changes.get(*change)).sum()
        };
        replay.map(flipped).unwrap_or_default()
    }
}

/// The playground, with a file of the revision in force.
pub async fn page(visitor: Visitor, RawQuery(query): RawQuery) -> Answer {
    let fields = Fields::read(query.unwrap_or_default().as_bytes())?;
    Ok(answer(&ground(&visitor, fields.text("file"), None, None).await?))
}

async fn ground(
    visitor: &Visitor,
    path: &str,
    text: Option<&str>,
    outcome: Option<Result<CheckedPolicies, Problem>>,
) -> Result<Playground, Problem> {
    let frame = around(visitor, "Playground").await?;
    let in_force = frame.policies(&visitor.client).await?;
    let whole = revision_of(&visitor.client, &in_force.report.active.digest.to_string()).await?;
    let paths: Vec<String> = whole.files.keys().cloned().collect();
    let is_policy = |path: &&String| path.starts_with("policies/") && is_cedar(path);
    let first = paths.iter().find(|path| is_policy(path) && !path.contains("management")).or(paths.first());
    let path = if path.is_empty() { first.cloned().unwrap_or_default() } else { path.to_owned() };
    let text = text.map_or_else(|| whole.files.get(&path).cloned().unwrap_or_default(), str::to_owned);
    let (checked, problem) = match outcome {
        None => (None, None),
        Some(Ok(checked)) => (Some(checked), None),
        Some(Err(problem)) => (None, Some(problem)),
    };
    Ok(Playground { frame, here: "/policies/playground", paths, path, text, problem, checked, in_force })
}

/// What would become of an edit, which is not made.
pub async fn check(Posted { visitor, fields }: Posted) -> Answer {
    let path = fields.text("file");
    // Browsers send line ends as CR LF.
    let text = fields.raw("text").replace("\r\n", "\n");
    let asked = json!({ "files": { path: text } });
    let outcome: Result<CheckedPolicies, Problem> = visitor.client.post(&["policies", "check"], &asked).await;
    let status = match &outcome {
        Err(problem) if !problem.is_about_input() => return Err(problem.clone().into()),
        Err(problem) => problem.status(),
        Ok(_) => StatusCode::OK,
    };
    Ok(page_with(status, &ground(&visitor, path, Some(&text), Some(outcome)).await?))
}
