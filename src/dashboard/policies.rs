//! Schema and policies, for whoever runs the installation: what is in force and what is not, its proofs and its history,
//! trying a call, and trying an edit.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, RawQuery};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};

use super::api::{Client, Problem, set};
use super::decisions::{Explained, Why};
use super::fields::Fields;
use super::frame::{Frame, Section, page as answer, page_with};
use super::source::{Line, is_cedar, lines};
use super::visitor::{Answer, Posted, Visitor, see_other};
use crate::activate::Source;
use crate::http::admin::InForce;
use crate::http::manage::playground::CheckedPolicies;
use crate::http::manage::policies::{RevisionView, Revisions, WholeRevision};
use crate::policy::PolicyInfo;
use crate::prove::{Proof, Status};

/// The pages about policies.
const TABS: [(&str, &str); 6] = [
    ("/policies", "In force"),
    ("/policies/routes", "Routes"),
    ("/policies/guarantees", "Guarantees"),
    ("/policies/history", "History"),
    ("/policies/try", "Try a call"),
    ("/policies/playground", "Playground"),
];

/// Digits of a digest that are shown.
const SHORT: usize = 8;

/// What is in force.
pub async fn in_force(client: &Client) -> Result<InForce, Problem> {
    client.get(&["policies"], &[]).await
}

/// Around a page about the policies, which are for whoever may read revisions: what is in force is told to everybody by
/// the API, and these pages tell more.
async fn around(visitor: &Visitor, title: &str) -> Result<Frame, Problem> {
    let frame = Frame::new(visitor, Section::Policies, title).await?;
    if frame.can.has("getRevision") { Ok(frame) } else { Err(Problem::forbidden()) }
}

/// Where a line of a policy file is shown.
pub fn link(file: &str, line: usize) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("path", file).finish();
    format!("/policies/file?{query}#L{line}")
}

/// Where policies are written, for links to them.
#[derive(Default)]
pub struct Places(BTreeMap<String, String>);

impl Places {
    /// Those in force.
    pub async fn get(client: &Client) -> Result<Self, Problem> {
        let in_force = self::in_force(client).await?;
        Ok(Self(in_force.policies.into_iter().map(|info| (info.name, link(&info.file, info.line))).collect()))
    }

    /// Where this policy is written; none where the reader may not look, or it is gone.
    pub fn href(&self, policy: &str) -> Option<&str> {
        self.0.get(policy).map(String::as_str)
    }
}

pub fn short(digest: &str) -> &str {
    digest.get(..SHORT).unwrap_or(digest)
}

/// A file of a revision.
struct FileRow {
    path: String,
    href: String,
    policies: usize,
    lines: usize,
}

fn rows(files: &BTreeMap<String, String>, policies: &[PolicyInfo], digest: Option<&str>) -> Vec<FileRow> {
    let row = |(path, text): (&String, &String)| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("path", path);
        digest.map(|digest| query.append_pair("revision", digest));
        FileRow {
            href: format!("/policies/file?{}", query.finish()),
            policies: policies.iter().filter(|info| info.file == *path).count(),
            lines: text.lines().count(),
            path: path.clone(),
        }
    };
    files.iter().map(row).collect()
}

#[derive(Template)]
#[template(path = "policies/in_force.html")]
struct Page {
    frame: Frame,
    here: &'static str,
    in_force: InForce,
    digest: String,
    files: Vec<FileRow>,
    why_source: &'static str,
}

/// What is in force.
pub async fn page(visitor: Visitor) -> Answer {
    let frame = around(&visitor, "Policies").await?;
    let in_force = self::in_force(&visitor.client).await?;
    let digest = in_force.report.active.digest.to_string();
    let whole = revision_of(&visitor.client, &digest).await?;
    let why_source = match in_force.report.active.source {
        Source::Files => "It is what the files on disk say.",
        Source::Store => "The files on disk say something else, which is not in force; this is the last good revision.",
        Source::Rollback => "Somebody went back to it. It serves until the files on disk change.",
    };
    let files = rows(&whole.files, &in_force.policies, None);
    Ok(answer(&Page { frame, here: "/policies", in_force, digest, files, why_source }))
}

async fn revision_of(client: &Client, digest: &str) -> Result<WholeRevision, Problem> {
    client.get(&["policies", "history", digest], &[]).await
}

#[derive(Template)]
#[template(path = "policies/file.html")]
struct File {
    frame: Frame,
    here: &'static str,
    path: String,
    digest: String,
    is_old: bool,
    lines: Vec<Line>,
}

/// A file, of the revision in force or of an earlier one.
pub async fn file(visitor: Visitor, RawQuery(query): RawQuery) -> Answer {
    let fields = Fields::read(query.unwrap_or_default().as_bytes())?;
    let frame = around(&visitor, "Policies").await?;
    let active = in_force(&visitor.client).await?.report.active.digest.to_string();
    let digest = fields.given("revision").unwrap_or(&active);
    let whole = revision_of(&visitor.client, digest).await?;
    let path = fields.text("path");
    let text = whole.files.get(path).ok_or_else(Problem::not_found)?;
    let (lines, path) = (lines(path, text), path.to_owned());
    let is_old = !whole.revision.digest.eq(&active);
    Ok(answer(&File { frame, here: "/policies", path, is_old, digest: whole.revision.digest, lines }))
}

#[derive(Template)]
#[template(path = "policies/routes.html")]
struct Routes {
    frame: Frame,
    here: &'static str,
    in_force: InForce,
}

/// The API's endpoints.
pub async fn routes(visitor: Visitor) -> Answer {
    let frame = around(&visitor, "Routes").await?;
    let in_force = self::in_force(&visitor.client).await?;
    Ok(answer(&Routes { frame, here: "/policies/routes", in_force }))
}

/// A statement about a revision, and what is known of it.
struct Statement {
    name: String,
    href: Option<String>,
    status: (&'static str, &'static str),
    detail: Vec<String>,
}

impl Statement {
    fn new(name: &str, href: Option<String>, status: &Status) -> Self {
        let (status, detail) = match status {
            Status::Proven => (("Proven", "good"), vec![]),
            Status::NotProven { why } => (("Not proven", "warn"), vec![why.to_string()]),
            Status::Violated { policies, witness } => {
                (("Violated", "bad"), vec![format!("by {}", policies.join(", ")), witness.to_string()])
            }
        };
        Self { name: name.to_owned(), href, status, detail }
    }
}

fn statements(proof: &Proof, policies: &[PolicyInfo]) -> Vec<Statement> {
    let place = |name: &str| policies.iter().find(|info| info.name == name).map(|info| link(&info.file, info.line));
    let guarantees = proof.guarantees.iter().map(|(name, status)| Statement::new(name, place(name), status));
    guarantees.chain([Statement::new("No policy can fail, whatever the request", None, &proof.never_fails)]).collect()
}

#[derive(Template)]
#[template(path = "policies/guarantees.html")]
struct Guarantees {
    frame: Frame,
    here: &'static str,
    solver: String,
    statements: Vec<Statement>,
    took_ms: u64,
    questions: u64,
    is_known: bool,
}

/// What is proven.
pub async fn guarantees(visitor: Visitor) -> Answer {
    let frame = around(&visitor, "Guarantees").await?;
    let in_force = self::in_force(&visitor.client).await?;
    let proof = in_force.report.proof;
    Ok(answer(&Guarantees {
        frame,
        here: "/policies/guarantees",
        solver: in_force.report.solver,
        is_known: proof.is_some(),
        took_ms: proof.as_ref().map_or(0, |proof| proof.took_ms),
        questions: proof.as_ref().map_or(0, |proof| proof.questions as u64),
        statements: proof.map(|proof| statements(&proof, &in_force.policies)).unwrap_or_default(),
    }))
}

#[derive(Template)]
#[template(path = "policies/history.html")]
struct History {
    frame: Frame,
    here: &'static str,
    revisions: Vec<RevisionView>,
}

/// The revisions that were in force.
pub async fn history(visitor: Visitor) -> Answer {
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
    let in_force = self::in_force(&visitor.client).await?;
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
    match done {
        Ok(_) => visitor.tell(told),
        Err(problem) if problem.is_about_input() || problem.status == 404 => visitor.warn(problem.detail),
        Err(problem) => return Err(problem.into()),
    }
    Ok(see_other("/policies"))
}

#[derive(Template)]
#[template(path = "policies/try.html")]
struct Try {
    frame: Frame,
    here: &'static str,
    fields: Fields,
    scopes: Vec<String>,
    chosen: Vec<String>,
    problem: Option<Problem>,
    outcome: Option<Outcome>,
}

/// What a call comes to.
#[derive(Deserialize)]
struct Verdict {
    decision: String,
    status: u16,
    reason: String,
    message: String,
}

struct Outcome {
    verdict: Verdict,
    why: Why,
}

#[derive(Deserialize)]
struct Tried {
    verdict: Verdict,
    #[serde(flatten)]
    explained: Explained,
}

/// What a call would come to, which is not made.
pub async fn try_call(visitor: Visitor, RawQuery(query): RawQuery) -> Answer {
    let fields = Fields::read(query.unwrap_or_default().as_bytes())?;
    let frame = around(&visitor, "Try a call").await?;
    let scopes = in_force(&visitor.client).await?.scopes;
    let chosen: Vec<String> = fields.all("scope").into_iter().map(str::to_owned).collect();
    let tried = match fields.given("path") {
        Some(path) => Some(visitor.client.post::<Tried>(&["explain"], &asked(&fields, path)).await),
        None => None,
    };
    let (problem, outcome) = match tried {
        None => (None, None),
        Some(Ok(Tried { verdict, explained })) => {
            let why = Why { explanation: explained.explanation, is_linked: true };
            (None, Some(Outcome { verdict, why }))
        }
        Some(Err(problem)) if problem.is_about_input() || problem.status == 404 => (Some(problem), None),
        Some(Err(problem)) => return Err(problem.into()),
    };
    Ok(answer(&Try { frame, here: "/policies/try", fields, scopes, chosen, problem, outcome }))
}

fn asked(fields: &Fields, path: &str) -> Value {
    let mut asked = json!({ "method": fields.given("method").unwrap_or("GET"), "path": path });
    for name in ["scheme", "ip"] {
        if let Some(value) = fields.given(name) {
            set(&mut asked, name, value);
        }
    }
    match fields.text("who") {
        "" | "nobody" => {}
        "key" => set(&mut asked, "key", fields.text("key")),
        kind => {
            let scopes = if kind == "restricted" { fields.all("scope") } else { Vec::new() };
            let mode = fields.given("mode").unwrap_or("live");
            set(&mut asked, "suppose", json!({ "kind": kind, "mode": mode, "scopes": scopes }));
        }
    }
    asked
}

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
    policies: Vec<PolicyInfo>,
}

impl Playground {
    fn statements(&self) -> Vec<Statement> {
        let proof = self.checked.as_ref().and_then(|checked| checked.proof.as_ref());
        proof.map(|proof| statements(proof, &self.policies)).unwrap_or_default()
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
pub async fn playground(visitor: Visitor, RawQuery(query): RawQuery) -> Answer {
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
    let in_force = self::in_force(&visitor.client).await?;
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
    Ok(Playground {
        frame,
        here: "/policies/playground",
        paths,
        path,
        text,
        problem,
        checked,
        policies: in_force.policies,
    })
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
