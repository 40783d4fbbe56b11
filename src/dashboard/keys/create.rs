//! Making a key.

use askama::Template;
use axum::extract::Path;
use axum::http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::scopes::{self, Grid};
use crate::dashboard::api::{Problem, set};
use crate::dashboard::fields::Fields;
use crate::dashboard::frame::{Frame, Section, page as answer, page_with};
use crate::dashboard::session::{Fresh, random};
use crate::dashboard::visitor::{Answer, Posted, Visitor, see_other};
use crate::http::manage::view::KeyView;
use crate::key::Mode;

/// When a key may end, and what that is called.
pub(super) const EXPIRIES: [(&str, &str); 6] = [
    ("", "Never"),
    ("30", "In 30 days"),
    ("60", "In 60 days"),
    ("90", "In 90 days"),
    ("365", "In a year"),
    ("on", "On this day:"),
];
/// How often a key may be rotated.
pub(super) const INTERVALS: [(&str, &str); 5] = [
    ("", "No schedule"),
    ("30d", "Every 30 days"),
    ("90d", "Every 90 days"),
    ("180d", "Every 180 days"),
    ("365d", "Every year"),
];

#[derive(Template)]
#[template(path = "keys/create.html")]
struct Page {
    frame: Frame,
    base: String,
    grid: Grid,
    kind: String,
    fields: Fields,
    once: Zeroizing<String>,
    problem: Option<Problem>,
}

impl Page {
    fn wrong(&self, field: &str) -> Option<&str> {
        let problem = self.problem.as_ref()?;
        let named = problem.field.as_deref()?;
        (named == field || named.starts_with(&format!("{field}["))).then_some(problem.detail.as_str())
    }

    /// What is wrong with no field of this page.
    fn wrong_elsewhere(&self) -> Option<&str> {
        let known = ["kind", "name", "scopes", "expires_at", "addresses", "note", "rotate_every"];
        let problem = self.problem.as_ref()?;
        known.iter().all(|field| self.wrong(field).is_none()).then_some(problem.detail.as_str())
    }
}

async fn form(
    visitor: &Visitor,
    account: &str,
    mode: Mode,
    fields: Fields,
    problem: Option<Problem>,
) -> Result<Page, Problem> {
    let frame = Frame::about(visitor, Section::Keys, "Create a key", account, mode, Some("/keys/new")).await?;
    let grid = Grid::of(&frame.policies(&visitor.client).await?.scopes, &scopes::chosen(&fields));
    let kind = fields.given("kind").unwrap_or("restricted").to_owned();
    let once = match fields.given("once") {
        Some(once) => Zeroizing::new(once.to_owned()),
        None => random().map_err(|error| Problem::internal(&error))?,
    };
    Ok(Page { frame, base: format!("/accounts/{account}/{mode}/keys"), grid, kind, fields, once, problem })
}

/// The form.
pub async fn page(visitor: Visitor, Path((account, mode)): Path<(String, Mode)>) -> Answer {
    Ok(answer(&form(&visitor, &account, mode, Fields::default(), None).await?))
}

/// Makes the key, and has the next page show its token.
pub async fn submit(Path((account, mode)): Path<(String, Mode)>, Posted { visitor, fields }: Posted) -> Answer {
    let made: Result<KeyView, Problem> = match asked(&fields, mode, Timestamp::now()) {
        Ok(asked) => {
            let call = visitor.client.call(Method::POST, &["accounts", &account, "keys"], &[]);
            let made = call.body(&asked).once(fields.text("once")).send().await;
            made.map_err(|problem| naming_the_address(problem, &fields))
        }
        Err(problem) => Err(problem),
    };
    match made {
        Ok(key) => {
            if let Some(token) = key.token {
                visitor.keep(vec![Fresh { of: key.id.clone(), token }]);
            }
            visitor.tell(format!("The key “{}” was created.", key.name));
            Ok(see_other(&format!("/keys/{}", key.id)))
        }
        Err(problem) if problem.is_about_input() => {
            let status = problem.status();
            Ok(page_with(status, &form(&visitor, &account, mode, fields, Some(problem)).await?))
        }
        Err(problem) => Err(problem.into()),
    }
}

fn asked(fields: &Fields, mode: Mode, now: Timestamp) -> Result<Value, Problem> {
    let kind = fields.text("kind");
    let scopes = if kind == "restricted" { scopes::chosen(fields) } else { Vec::new() };
    let mut asked = json!({
        "kind": kind,
        "mode": mode.as_str(),
        "name": fields.text("name"),
        "scopes": scopes,
        "addresses": lines(fields.raw("addresses")),
        "expires_at": expiry(fields, now)?,
    });
    for field in ["note", "rotate_every"] {
        if let Some(text) = fields.given(field) {
            set(&mut asked, field, text);
        }
    }
    Ok(asked)
}

/// The lines, or words, of a text.
pub(super) fn lines(text: &str) -> Vec<&str> {
    text.split(|character: char| character.is_whitespace() || character == ',')
        .filter(|line| !line.is_empty())
        .collect()
}

/// The problem with an address, naming the one that was typed.
pub(super) fn naming_the_address(problem: Problem, fields: &Fields) -> Problem {
    let place = problem.field.as_deref().and_then(|field| field.strip_prefix("addresses[")?.strip_suffix(']'));
    let typed = place.and_then(|place| lines(fields.raw("addresses")).get(place.parse::<usize>().ok()?).copied());
    match typed {
        Some(typed) => {
            Problem { detail: format!("“{typed}” is no address and no network. {}", problem.detail), ..problem }
        }
        None => problem,
    }
}

/// When a key is to end: the beginning of the day that was said, in UTC, or some days from now.
pub(super) fn expiry(fields: &Fields, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    let wrong = || Problem::invalid("expires_at", "Give a day in the future.");
    match fields.text("expires") {
        "" => Ok(None),
        "on" => {
            let day: jiff::civil::Date = fields.text("expires_on").parse().map_err(|_| wrong())?;
            let at = day.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| wrong())?.timestamp();
            if at > now { Ok(Some(at)) } else { Err(wrong()) }
        }
        days => {
            let days: i64 = days.parse().map_err(|_| wrong())?;
            let end =
                days.checked_mul(24).map(SignedDuration::from_hours).and_then(|length| now.checked_add(length).ok());
            end.filter(|end| *end > now).map(Some).ok_or_else(wrong)
        }
    }
}
