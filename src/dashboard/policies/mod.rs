//! Schema and policies, for whoever runs the installation: what is in force, its files, its routes and its proofs.

pub mod history;
pub mod playground;
pub mod trial;

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::RawQuery;

use super::api::{Client, Problem};
use super::fields::Fields;
use super::frame::{Frame, Section, page as answer};
use super::source::{Line, lines};
use super::trail::Names;
use super::visitor::{Answer, Visitor};
use crate::activate::Source;
use crate::activate::git::Commit;
use crate::http::admin::InForce;
use crate::http::manage::policies::WholeRevision;
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
/// Digits of a commit's name that are shown, as git shows them.
const SHORT_COMMIT: usize = 7;

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
    pub fn of(in_force: &InForce) -> Self {
        let place = |info: &PolicyInfo| (info.name.clone(), link(&info.file, info.line));
        Self(in_force.policies.iter().map(place).collect())
    }

    /// Where this policy is written; none where the reader may not look, or it is gone.
    pub fn href(&self, policy: &str) -> Option<&str> {
        self.0.get(policy).map(String::as_str)
    }
}

/// The beginning of a digest.
pub fn short(digest: &str) -> &str {
    digest.get(..SHORT).unwrap_or(digest)
}

/// The beginning of a commit's name.
pub fn short_commit(commit: &str) -> &str {
    commit.get(..SHORT_COMMIT).unwrap_or(commit)
}

/// Who wrote files. Whoever wrote the last commit did not write what nobody has committed.
pub fn written(git: &Commit) -> String {
    if git.uncommitted {
        format!("not committed, on top of {} ({})", short_commit(&git.commit), git.author)
    } else {
        format!("{}: {}", git.author, git.subject)
    }
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
    in_force: Arc<InForce>,
    digest: String,
    files: Vec<FileRow>,
    why_source: String,
}

/// What is in force.
pub async fn page(visitor: Visitor) -> Answer {
    let frame = around(&visitor, "Policies").await?;
    let in_force = frame.policies(&visitor.client).await?;
    let digest = in_force.report.active.digest.to_string();
    let whole = revision_of(&visitor.client, &digest).await?;
    let why_source = match in_force.report.active.source {
        Source::Files => "It is what the files on disk say.".to_owned(),
        Source::Store => {
            "The files on disk say something else, which is not in force; this is the last good revision.".into()
        }
        Source::Rollback => {
            let who = match &in_force.report.active.rollback {
                Some(rollback) => Names::get(&visitor.client, None).await.who(&rollback.by),
                None => "Somebody".into(),
            };
            format!("{who} went back to it. It serves until the files on disk change.")
        }
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
    let active = frame.policies(&visitor.client).await?.report.active.digest.to_string();
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
    in_force: Arc<InForce>,
}

/// The API's endpoints.
pub async fn routes(visitor: Visitor) -> Answer {
    let frame = around(&visitor, "Routes").await?;
    let in_force = frame.policies(&visitor.client).await?;
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
    let in_force = frame.policies(&visitor.client).await?;
    let proof = in_force.report.proof.as_ref();
    Ok(answer(&Guarantees {
        frame,
        here: "/policies/guarantees",
        solver: in_force.report.solver.clone(),
        is_known: proof.is_some(),
        took_ms: proof.map_or(0, |proof| proof.took_ms),
        questions: proof.map_or(0, |proof| proof.questions as u64),
        statements: proof.map(|proof| statements(proof, &in_force.policies)).unwrap_or_default(),
    }))
}
