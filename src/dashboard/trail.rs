//! The event trail: who did what, when, and from where.

use std::collections::HashMap;
use std::sync::Arc;

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
use crate::http::manage::view::{EventView, Member, Page as ListOf, UserView};
use crate::key::Mode;
use crate::trail::Actor;

/// Events of a page.
const PAGE: &str = "50";

/// An event, as pages show it.
pub struct Happening {
    view: EventView,
    /// What people are called, by their ids.
    names: Arc<Names>,
    now: Timestamp,
}

/// What people are called, by their ids, as far as the reader may know.
type Names = HashMap<String, String>;

/// Members of the account, and everybody: whoever may not see people sees their ids.
async fn names(client: &Client, account: Option<&str>) -> Arc<Names> {
    let people: ListOf<UserView> = client.get(&["users"], &[("limit", "1000")]).await.unwrap_or_default();
    let mut named: Names = people.items.into_iter().map(|person| (person.id, person.name)).collect();
    if let Some(account) = account {
        let members: ListOf<Member> = client.get(&["accounts", account, "members"], &[]).await.unwrap_or_default();
        named.extend(members.items.into_iter().map(|member| (member.user, member.name)));
    }
    Arc::new(named)
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

    /// Who did it.
    pub fn who(&self) -> &str {
        match &self.view.event.actor {
            Actor::User(id) => self.names.get(&**id).map_or(id, String::as_str),
            Actor::Console => "the console",
            Actor::Call => "a call",
            Actor::Daemon => "Keyward",
            Actor::Anonymous => "nobody known",
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
        let id = self.view.event.user?.to_string();
        Some(self.names.get(&id).cloned().unwrap_or(id))
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
    account: Option<&str>,
    now: Timestamp,
) -> Result<(Vec<Happening>, Option<String>), Problem> {
    let page: ListOf<EventView> = client.get(path, query).await?;
    let names = names(client, account).await;
    let happening = |view| Happening { view, names: Arc::clone(&names), now };
    Ok((page.items.into_iter().map(happening).collect(), page.next))
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
    list(&visitor, frame, &["accounts", &account, "events"], format!("/accounts/{account}/events"), can_export, query)
        .await
}

/// Of the installation.
pub async fn of_installation(visitor: Visitor, RawQuery(query): RawQuery) -> Answer {
    let frame = Frame::new(&visitor, Section::AllEvents, "All events").await?;
    let can_export = frame.can.has("exportEvents");
    list(&visitor, frame, &["events"], "/installation/events".into(), can_export, query).await
}

async fn list(
    visitor: &Visitor,
    frame: Frame,
    path: &[&str],
    base: String,
    can_export: bool,
    query: Option<String>,
) -> Answer {
    let fields = Fields::read(query.unwrap_or_default().as_bytes())?;
    let after = fields.text("after");
    let account = frame.place.as_ref().map(|place| place.id.as_str());
    let (events, next) = get(&visitor.client, path, &[("after", after), ("limit", PAGE)], account, frame.now).await?;
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
