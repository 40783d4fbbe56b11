//! What was decided: lists that can be filtered and watched, and one decision with why it was made.

use std::collections::HashMap;

use askama::Template;
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, Method};
use jiff::Timestamp;

use super::api::{Client, Problem};
use super::fields::Fields;
use super::frame::{Frame, Section, page as answer};
use super::show::{Moment, with};
use super::visitor::{Answer, Visitor};
use crate::authorize::explain::{Examined, Explanation, State};
use crate::authorize::verdict::Reason;
use crate::http::RequestId;
use crate::http::manage::explain::Told as Explained;
use crate::http::manage::view::{KeyView, Page as ListOf};
use crate::key::Mode;
use crate::recorded::Told;

/// Decisions of a page.
const PAGE: &str = "50";

/// What the API has beside a decision: `GET /v1/decisions/live` is no decision of that name.
const BESIDE: [&str; 4] = ["counts", "export", "live", "top"];

/// What became of a call, and what that is called.
pub const OUTCOMES: [(&str, &str); 4] = [
    ("", "Every outcome"),
    ("allow", "Allowed"),
    ("unauthenticated", "Unauthenticated (401)"),
    ("forbidden", "Forbidden (403)"),
];

/// A decision, as pages show it.
pub struct Decision {
    /// What the API says of it.
    pub told: Told,
    /// What its key is called, where the reader may know.
    pub key_name: Option<String>,
    now: Timestamp,
}

impl Decision {
    /// A decision, seen from `now`.
    pub fn new(told: Told, now: Timestamp) -> Self {
        Self { told, key_name: None, now }
    }

    /// When.
    pub fn at(&self) -> Moment {
        Moment::new(self.told.time, self.now)
    }

    /// The verdict in a word, and the colour of it.
    pub fn verdict(&self) -> (&'static str, &'static str) {
        match self.told.outcome.as_str() {
            "allow" => ("Allowed", "good"),
            "unauthenticated" => ("401", "warn"),
            _ => ("403", "bad"),
        }
    }

    /// Method and path, as far as they were stated.
    pub fn call(&self) -> String {
        let path = self.told.path.as_deref().or(self.told.stated_path.as_deref()).unwrap_or_default();
        let call = format!("{} {path}", self.told.method.as_deref().unwrap_or_default());
        if call.trim().is_empty() { "not stated".into() } else { call.trim().to_owned() }
    }

    /// The policies that decided.
    pub fn policies(&self) -> String {
        self.told.policies.join(", ")
    }

    /// The key's id.
    pub fn key(&self) -> Option<String> {
        self.told.key.map(|key| key.to_string())
    }

    /// Where it came from.
    pub fn address(&self) -> String {
        self.told.address.map(|address| address.to_string()).unwrap_or_default()
    }
}

/// Some decisions, the newest first.
pub async fn get(
    client: &Client,
    query: &[(&str, &str)],
    now: Timestamp,
) -> Result<(Vec<Decision>, Option<String>), Problem> {
    let page: ListOf<Told> = client.get(&["decisions"], query).await?;
    let mut decisions: Vec<_> = page.items.into_iter().map(|told| Decision::new(told, now)).collect();
    let mut names = HashMap::new();
    for decision in &mut decisions {
        let Some(id) = decision.key() else { continue };
        if !names.contains_key(&id) {
            let key = super::keys::find(client, &id).await.ok();
            names.insert(id.clone(), key.map(|key| key.name));
        }
        decision.key_name = names.get(&id).cloned().flatten();
    }
    Ok((decisions, page.next))
}

#[derive(Template)]
#[template(path = "decisions/list.html")]
struct Page {
    frame: Frame,
    base: String,
    live: String,
    decisions: Vec<Decision>,
    outcome: String,
    reason: String,
    action: String,
    reasons: Vec<&'static str>,
    actions: Vec<String>,
    is_filtered: bool,
    is_first: bool,
    next: Option<String>,
}

/// Of an account, in one mode.
pub async fn of_account(
    visitor: Visitor,
    Path((account, mode)): Path<(String, Mode)>,
    RawQuery(query): RawQuery,
) -> Answer {
    let frame = Frame::about(&visitor, Section::Decisions, "Decisions", &account, mode, Some("/decisions")).await?;
    let base = format!("/accounts/{account}/{mode}/decisions");
    list(&visitor, frame, base, &[("account", &account), ("mode", mode.as_str())], query).await
}

/// Of the installation.
pub async fn of_installation(visitor: Visitor, RawQuery(query): RawQuery) -> Answer {
    let frame = Frame::new(&visitor, Section::AllDecisions, "All decisions").await?;
    list(&visitor, frame, "/installation/decisions".into(), &[], query).await
}

async fn list(visitor: &Visitor, frame: Frame, base: String, whose: &[(&str, &str)], query: Option<String>) -> Answer {
    let fields = Fields::read(query.unwrap_or_default().as_bytes())?;
    let (outcome, reason, action, after) =
        (fields.text("outcome"), fields.text("reason"), fields.text("action"), fields.text("after"));
    let mut asked = whose.to_vec();
    asked.extend([("outcome", outcome), ("reason", reason), ("action", action), ("after", after), ("limit", PAGE)]);
    let (decisions, next) = get(&visitor.client, &asked, frame.now).await?;
    let in_force = frame.policies(&visitor.client).await?;
    Ok(answer(&Page {
        live: format!("{base}/live{}", with(std::iter::empty(), "outcome", outcome)),
        is_filtered: !(outcome.is_empty() && reason.is_empty() && action.is_empty()),
        is_first: after.is_empty(),
        next: next.map(|next| with(fields.pairs(), "after", &next)),
        outcome: outcome.to_owned(),
        reason: reason.to_owned(),
        action: action.to_owned(),
        reasons: Reason::ALL.iter().map(|reason| reason.as_str()).collect(),
        actions: in_force.routes.iter().map(|route| route.action.clone()).collect(),
        frame,
        base,
        decisions,
    }))
}

/// An account's decisions as they are made.
pub async fn watch_account(
    visitor: Visitor,
    Path((account, mode)): Path<(String, Mode)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    watch(&visitor, &[("account", &account), ("mode", mode.as_str())], query, &headers).await
}

/// All decisions as they are made.
pub async fn watch_installation(visitor: Visitor, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    watch(&visitor, &[], query, &headers).await
}

async fn watch(visitor: &Visitor, whose: &[(&str, &str)], query: Option<String>, headers: &HeaderMap) -> Answer {
    let fields = Fields::read(query.unwrap_or_default().as_bytes())?;
    let mut asked = whose.to_vec();
    asked.extend([("outcome", fields.text("outcome")), ("key", fields.text("key"))]);
    // Where a browser was when its connection ended.
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let call = visitor.client.call(Method::GET, &["decisions", "live"], &asked);
    let call = if last.is_empty() { call } else { call.header("last-event-id", last) };
    Ok(call.response().await?)
}

/// What is told of a policy that was looked into.
pub struct Inquired<'a> {
    examined: &'a Examined,
}

/// The parts of an explanation, as pages show them.
pub struct Why {
    /// What was found out.
    pub explanation: Explanation,
    /// Whether the reader may see the policies' source.
    pub is_linked: bool,
}

impl Why {
    /// The policies in play.
    pub fn policies(&self) -> Vec<Inquired<'_>> {
        self.explanation.policies.iter().map(|examined| Inquired { examined }).collect()
    }

    /// Those that nearly permitted it.
    pub fn near_misses(&self) -> Vec<Inquired<'_>> {
        self.explanation.near_misses.iter().map(|examined| Inquired { examined }).collect()
    }
}

impl Inquired<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.examined.policy.name
    }

    /// Where it is written.
    pub fn place(&self) -> String {
        format!("{}:{}", self.examined.policy.file, self.examined.policy.line)
    }

    /// A link to that.
    pub fn href(&self) -> String {
        super::policies::link(&self.examined.policy.file, self.examined.policy.line)
    }

    /// What became of it, and the colour of that.
    pub fn state(&self) -> (String, &'static str) {
        let effect = &self.examined.policy.effect;
        match self.examined.state {
            State::Satisfied => (format!("{effect}s"), if effect == "permit" { "good" } else { "bad" }),
            State::OutOfScope => (format!("{effect}: about other calls"), ""),
            State::ConditionFalse => (format!("{effect}: a condition did not hold"), ""),
            State::Failed => ("failed, which refuses the call".into(), "bad"),
        }
    }

    /// What decided that: the part, and what it saw.
    pub fn parts(&self) -> Vec<String> {
        let told = |part: &crate::authorize::explain::Part| {
            let saw: Vec<String> = part
                .because
                .iter()
                .flat_map(|because| &because.values)
                .map(|seen| match (&seen.value, seen.within.as_slice()) {
                    (Some(value), _) => format!("{} is {value}", seen.name),
                    (None, []) => format!("{} is not there", seen.name),
                    (None, within) => format!("{} is in {}", seen.name, within.join(", ")),
                })
                .collect();
            let saw = if saw.is_empty() { String::new() } else { format!(" ({})", saw.join("; ")) };
            let held = if part.held { "held" } else { "did not hold" };
            format!("line {}, {}: {} — {held}{saw}", part.line, part.part.as_str(), part.text)
        };
        self.examined.parts.iter().map(told).collect()
    }
}

#[derive(Template)]
#[template(path = "decisions/one.html")]
struct One {
    frame: Frame,
    decision: Decision,
    back: String,
    key: Option<KeyView>,
    why: Option<Why>,
}

/// One decision.
pub async fn one(visitor: Visitor, Path(decision): Path<String>) -> Answer {
    let client = &visitor.client;
    if !RequestId::can_be(&decision) || BESIDE.contains(&decision.as_str()) {
        return Err(Problem::not_found().into());
    }
    let told: Told = client.get(&["decisions", &decision], &[]).await?;
    let key = match told.key {
        Some(key) => super::keys::find(client, &key.to_string()).await.ok(),
        None => None,
    };
    let (frame, back) = match &key {
        Some(key) => {
            let back = format!("/accounts/{}/{}/decisions", key.account, key.mode);
            (Frame::about(&visitor, Section::Decisions, "A decision", &key.account, key.mode, None).await?, back)
        }
        None => (Frame::new(&visitor, Section::AllDecisions, "A decision").await?, "/installation/decisions".into()),
    };
    let why = match client.get::<Explained>(&["decisions", &decision, "explanation"], &[]).await {
        Ok(explained) => Some(Why { explanation: explained.explanation, is_linked: frame.can.has("getRevision") }),
        Err(problem) if problem.is_about_input() => None,
        Err(problem) => return Err(problem.into()),
    };
    Ok(answer(&One { decision: Decision::new(told, frame.now), frame, back, key, why }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Bundle, Revision};

    #[test]
    fn no_page_puts_a_segment_of_its_own_where_the_api_has_something_else() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let bundle = Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap();
        let revision = Revision::build(&bundle).unwrap();
        let operations: Vec<&str> = revision.management().operations().map(|(route, _)| route).collect();
        let is_item = |segment: &str| segment.starts_with('{');
        let mut beside: Vec<&str> = Vec::new();
        for with_item in operations.iter().filter(|route| route.contains('{')) {
            for other in operations.iter().filter(|other| *other != with_item) {
                let (one, two): (Vec<&str>, Vec<&str>) = (with_item.split('/').collect(), other.split('/').collect());
                let differ: Vec<_> = one.iter().zip(&two).filter(|(one, two)| one != two).collect();
                let is_beside = |(one, two): &&(&&str, &&str)| is_item(one) && !is_item(two);
                if one.len() == two.len() && !differ.is_empty() && differ.iter().all(|differ| is_beside(&differ)) {
                    assert_eq!(
                        *with_item, "GET /v1/decisions/{decision}",
                        "{other} is beside it: have its pages heed that"
                    );
                    beside.extend(differ.iter().map(|(_, word)| **word));
                }
            }
        }
        beside.sort_unstable();
        assert_eq!(beside, BESIDE);
    }
}
