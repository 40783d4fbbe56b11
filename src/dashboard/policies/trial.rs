//! Trying a call: what it would come to, and why.

use std::net::IpAddr;
use std::sync::Arc;

use askama::Template;
use axum::extract::RawQuery;
use serde_json::{Value, json};

use super::{TABS, around};
use crate::dashboard::api::{Problem, set};
use crate::dashboard::decisions::Why;
use crate::dashboard::fields::Fields;
use crate::dashboard::frame::{Frame, page as answer};
use crate::dashboard::visitor::{Answer, Visitor};
use crate::http::admin::InForce;
use crate::http::answer::Decided;
use crate::http::manage::explain::Told;

#[derive(Template)]
#[template(path = "policies/try.html")]
struct Try {
    frame: Frame,
    here: &'static str,
    fields: Fields,
    in_force: Arc<InForce>,
    chosen: Vec<String>,
    problem: Option<Problem>,
    outcome: Option<Outcome>,
}

/// What a call comes to.
struct Outcome {
    verdict: Decided,
    why: Why,
}

/// What a call would come to, which is not made.
pub async fn page(visitor: Visitor, RawQuery(query): RawQuery) -> Answer {
    let fields = Fields::read(query.unwrap_or_default().as_bytes())?;
    let frame = around(&visitor, "Try a call").await?;
    let in_force = frame.policies(&visitor.client).await?;
    let chosen: Vec<String> = fields.all("scope").into_iter().map(str::to_owned).collect();
    let tried = match fields.given("path").map(|path| asked(&fields, path)) {
        Some(Ok(asked)) => Some(visitor.client.post::<Told>(&["explain"], &asked).await),
        Some(Err(problem)) => Some(Err(problem)),
        None => None,
    };
    let (problem, outcome) = match tried {
        None => (None, None),
        Some(Ok(Told { verdict, explanation })) => {
            (None, Some(Outcome { verdict, why: Why { explanation, is_linked: true } }))
        }
        Some(Err(problem)) if problem.is_about_input_or_gone() => (Some(problem), None),
        Some(Err(problem)) => return Err(problem.into()),
    };
    Ok(answer(&Try { frame, here: "/policies/try", fields, in_force, chosen, problem, outcome }))
}

fn asked(fields: &Fields, path: &str) -> Result<Value, Problem> {
    let mut asked = json!({ "method": fields.given("method").unwrap_or("GET"), "path": path });
    if let Some(scheme) = fields.given("scheme") {
        set(&mut asked, "scheme", scheme);
    }
    if let Some(text) = fields.given("ip") {
        let address: Result<IpAddr, _> = text.parse();
        let wrong =
            |_| Problem::invalid("ip", format!("“{text}” is no address. Give one such as 203.0.113.7, or none."));
        set(&mut asked, "ip", address.map_err(wrong)?.to_string());
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
    Ok(asked)
}
