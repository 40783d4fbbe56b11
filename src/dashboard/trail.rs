//! The event trail: who did what, when, and from where.

use askama::Template;
use axum::extract::{Path, RawQuery};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_DISPOSITION;
use jiff::Timestamp;

use super::api::{Client, Problem};
use super::fields::Fields;
use super::frame::{Frame, Section, page as answer};
use super::show::{Moment, with};
use super::visitor::{Answer, Visitor};
use crate::http::manage::view::{EventView, Page as ListOf};
use crate::key::Mode;
use crate::trail::Actor;

/// Events of a page.
const PAGE: &str = "50";

/// An event, as pages show it.
pub struct Happening {
    view: EventView,
    now: Timestamp,
}

impl Happening {
    /// When.
    pub fn at(&self) -> Moment {
        Moment::new(self.view.event.at, self.now)
    }

    /// What.
    pub fn what(&self) -> &'static str {
        self.view.event.happened.as_str()
    }

    /// Who did it, in words, and their id.
    pub fn who(&self) -> (&'static str, Option<&str>) {
        match &self.view.event.actor {
            Actor::User(id) => ("", Some(id)),
            Actor::Console => ("the console", None),
            Actor::Call => ("a call", None),
            Actor::Daemon => ("Keyward", None),
            Actor::Anonymous => ("nobody known", None),
        }
    }

    /// From where.
    pub fn address(&self) -> String {
        self.view.event.address.map(|address| address.to_string()).unwrap_or_default()
    }

    /// The key that it is about.
    pub fn key(&self) -> Option<String> {
        self.view.event.key.map(|key| key.to_string())
    }

    /// The person that it is about.
    pub fn user(&self) -> Option<String> {
        self.view.event.user.map(|user| user.to_string())
    }

    /// What else there is to say.
    pub fn detail(&self) -> String {
        let pairs = self.view.event.detail.iter().map(|(name, value)| format!("{name}: {value}"));
        pairs.collect::<Vec<_>>().join("; ")
    }
}

/// Some events, the newest first.
pub async fn get(
    client: &Client,
    path: &[&str],
    query: &[(&str, &str)],
    now: Timestamp,
) -> Result<(Vec<Happening>, Option<String>), Problem> {
    let page: ListOf<EventView> = client.get(path, query).await?;
    Ok((page.items.into_iter().map(|view| Happening { view, now }).collect(), page.next))
}

#[derive(Template)]
#[template(path = "trail.html")]
struct Page {
    frame: Frame,
    base: String,
    events: Vec<Happening>,
    is_first: bool,
    can_export: bool,
    next: Option<String>,
}

/// Of an account.
pub async fn of_account(visitor: Visitor, Path(account): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let frame = Frame::about(&visitor, Section::Events, "Events", &account, Mode::Live, None).await?;
    let can_export = frame.place.as_ref().is_some_and(|place| place.can.has("exportAccountEvents"));
    list(&visitor, frame, &["accounts", &account, "events"], format!("/accounts/{account}/events"), can_export, query).await
}

/// Of the installation.
pub async fn of_installation(visitor: Visitor, RawQuery(query): RawQuery) -> Answer {
    let frame = Frame::new(&visitor, Section::AllEvents, "All events").await?;
    let can_export = frame.can.has("exportEvents");
    list(&visitor, frame, &["events"], "/installation/events".into(), can_export, query).await
}

async fn list(visitor: &Visitor, frame: Frame, path: &[&str], base: String, can_export: bool, query: Option<String>) -> Answer {
    let fields = Fields::read(query.unwrap_or_default().as_bytes())?;
    let after = fields.text("after");
    let (events, next) = get(&visitor.client, path, &[("after", after), ("limit", PAGE)], frame.now).await?;
    let next = next.map(|next| with(fields.pairs(), "after", &next));
    Ok(answer(&Page { is_first: after.is_empty(), frame, base, events, can_export, next }))
}

/// An account's events as JSON lines.
pub async fn export_account(visitor: Visitor, Path(account): Path<String>) -> Answer {
    export(&visitor, &["accounts", &account, "events", "export"]).await
}

/// All events as JSON lines.
pub async fn export_installation(visitor: Visitor) -> Answer {
    export(&visitor, &["events", "export"]).await
}

async fn export(visitor: &Visitor, path: &[&str]) -> Answer {
    let mut response = visitor.client.stream(path, &[]).await?;
    let name = HeaderValue::from_static("attachment; filename=\"keyward-events.jsonl\"");
    response.headers_mut().insert(CONTENT_DISPOSITION, name);
    Ok(response)
}
