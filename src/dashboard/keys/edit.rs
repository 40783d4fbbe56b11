//! Changing what a key is called and what it is for.

use askama::Template;
use axum::extract::Path;
use axum::http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Shown;
use super::create::{EXPIRIES, INTERVALS, expiry, lines, naming_the_address};
use super::scopes::{self, Grid};
use crate::dashboard::api::{Problem, set};
use crate::dashboard::fields::Fields;
use crate::dashboard::frame::{Frame, Section, page as answer, page_with};
use crate::dashboard::visitor::{Answer, Posted, Visitor, see_other};
use crate::http::manage::view::KeyView;

#[derive(Template)]
#[template(path = "keys/edit.html")]
struct Page {
    frame: Frame,
    key: Shown,
    version: String,
    grid: Grid,
    name: String,
    note: String,
    addresses: String,
    rotate_every: String,
    intervals: Vec<(String, String)>,
    problem: Option<Problem>,
}

async fn form(visitor: &Visitor, id: &str, given: Option<(&Fields, Problem)>) -> Result<Page, Problem> {
    let found = visitor.client.get_versioned::<KeyView>(&["keys", id]).await?;
    let (key, version) = (found.body, found.version);
    let frame = Frame::about(visitor, Section::Keys, "Edit a key", &key.account, key.mode, None).await?;
    let held = given.as_ref().map_or_else(|| key.scopes.clone(), |(fields, _)| scopes::chosen(fields));
    let grid = Grid::of(&frame.policies(&visitor.client).await?.scopes, &held);
    let typed = |field: &str, now: &str| {
        given.as_ref().map_or_else(|| now.to_owned(), |(fields, _)| fields.raw(field).to_owned())
    };
    let rotate_every = typed("rotate_every", key.rotate_every.as_deref().unwrap_or_default());
    let mut intervals: Vec<_> =
        INTERVALS.iter().map(|(value, name)| ((*value).to_owned(), (*name).to_owned())).collect();
    if !intervals.iter().any(|(value, _)| *value == rotate_every) {
        intervals.push((rotate_every.clone(), format!("Every {rotate_every}")));
    }
    Ok(Page {
        name: typed("name", &key.name),
        note: typed("note", key.note.as_deref().unwrap_or_default()),
        addresses: typed("addresses", &key.addresses.join("\n")),
        // What was seen stays what is changed: a key that somebody else changed meanwhile is looked at again first.
        version,
        key: Shown::new(key, frame.now),
        problem: given.map(|(_, problem)| problem),
        frame,
        grid,
        rotate_every,
        intervals,
    })
}

/// The form.
pub async fn page(visitor: Visitor, Path(key): Path<String>) -> Answer {
    Ok(answer(&form(&visitor, &key, None).await?))
}

/// Changes the key.
pub async fn submit(Path(key): Path<String>, Posted { visitor, fields }: Posted) -> Answer {
    let changed: Result<KeyView, Problem> = match asked(&fields, Timestamp::now()) {
        Ok(asked) => {
            let call = visitor.client.call(Method::PATCH, &["keys", &key], &[]).body(&asked);
            let changed = call.if_match(fields.text("version")).send().await;
            changed.map_err(|problem| naming_the_address(problem, &fields))
        }
        Err(problem) => Err(problem),
    };
    match changed {
        Ok(key) => {
            visitor.tell(format!("“{}” is saved, and in force for the next call.", key.name));
            Ok(see_other(&format!("/keys/{}", key.id)))
        }
        Err(problem) if problem.is_about_input() => {
            let status = problem.status();
            Ok(page_with(status, &form(&visitor, &key, Some((&fields, problem))).await?))
        }
        Err(problem) => Err(problem.into()),
    }
}

fn asked(fields: &Fields, now: Timestamp) -> Result<Value, Problem> {
    let mut asked = json!({
        "name": fields.text("name"),
        "note": fields.given("note"),
        "addresses": lines(fields.raw("addresses")),
        "rotate_every": fields.given("rotate_every"),
    });
    if fields.is_ticked("restricted") {
        set(&mut asked, "scopes", scopes::chosen(fields));
    }
    if fields.text("expires") != "keep" {
        set(&mut asked, "expires_at", json!(expiry(fields, now)?));
    }
    Ok(asked)
}
