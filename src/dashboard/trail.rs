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
use super::policies::{short, short_commit};
use super::show::{Moment, with};
use super::visitor::{Answer, Visitor};
use crate::http::manage::view::{EventView, Member, Page as ListOf, UserView};
use crate::key::Mode;
use crate::trail::{Actor, Happened};

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
pub struct Names {
    known: HashMap<String, String>,
    /// What somebody is called whom the reader may not know; none where everybody may be known, and an id says more.
    others: Option<&'static str>,
}

impl Names {
    /// Everybody or, where the reader may not see everybody, the members of the account.
    pub async fn get(client: &Client, account: Option<&str>) -> Self {
        let people: Result<ListOf<UserView>, Problem> = client.get(&["users"], &[("limit", "1000")]).await;
        if let Ok(people) = people {
            let known = people.items.into_iter().map(|person| (person.id, person.name)).collect();
            return Self { known, others: None };
        }
        let members: ListOf<Member> = match account {
            Some(account) => client.get(&["accounts", account, "members"], &[]).await.unwrap_or_default(),
            None => ListOf::default(),
        };
        let known = members.items.into_iter().map(|member| (member.user, member.name)).collect();
        Self { known, others: Some("an operator, or a former member") }
    }

    /// What the person of this id is called.
    fn of(&self, id: &str) -> String {
        self.known.get(id).map(String::as_str).or(self.others).unwrap_or(id).to_owned()
    }

    /// Whoever did something.
    pub fn who(&self, actor: &Actor) -> String {
        match actor {
            Actor::User(id) => self.of(id),
            Actor::Console => "the console".into(),
            Actor::Call => "a call".into(),
            Actor::Daemon => "Keyward".into(),
            Actor::Anonymous => "nobody known".into(),
        }
    }
}

/// Something more that an event says.
pub struct Detail {
    /// What it is about.
    pub name: String,
    /// What it says, line by line.
    pub lines: Vec<String>,
    /// Where there is more.
    pub href: Option<String>,
}

impl Detail {
    /// `is_kept` says of a revision's digest that the history may have it.
    fn new(name: &str, value: &str, is_kept: bool) -> Self {
        let is_digest = matches!(name, "digest" | "before");
        let said = if is_digest {
            short(value).to_owned()
        } else if matches!(name, "commit" | "not_committed_on_top_of") {
            short_commit(value).to_owned()
        } else {
            value.parse().map_or_else(|_| value.to_owned(), |at| Moment::new(at, at).exact())
        };
        // What begins with space is an example of the line before, which the revision's page has, too.
        let lines = said.split("; ").filter(|line| !line.starts_with(' '));
        Self {
            name: name.replace('_', " "),
            lines: lines.map(str::to_owned).collect(),
            href: (is_digest && is_kept).then(|| format!("/policies/history/{value}")),
        }
    }
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
    pub fn who(&self) -> String {
        self.names.who(&self.view.event.actor)
    }

    /// From where.
    pub fn address(&self) -> String {
        self.view.event.address.map(|address| address.to_string()).unwrap_or_default()
    }

    /// The key that it is about.
    pub fn key(&self) -> Option<String> {
        self.view.event.key.map(|key| key.to_string())
    }

    /// The account that it is about, where it is about nothing in it.
    pub fn account(&self) -> Option<String> {
        let event = &self.view.event;
        event.account.filter(|_| event.key.is_none() && event.user.is_none()).map(|account| account.to_string())
    }

    /// The person that it is about.
    pub fn user(&self) -> Option<String> {
        Some(self.names.of(&self.view.event.user?.to_string()))
    }

    /// What else there is to say.
    pub fn details(&self) -> Vec<Detail> {
        let is_kept = self.view.event.happened != Happened::PolicyRefused;
        self.view.event.detail.iter().map(|(name, value)| Detail::new(name, value, is_kept)).collect()
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
    let names = Arc::new(Names::get(client, account).await);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_told_to_people() {
        for (name, value, shown, is_linked) in [
            ("old_secret_ends_at", "2026-11-26T03:33:16.217851662Z", vec!["26 November 2026, 03:33:16 UTC"], false),
            ("digest", "0123456789abcdef", vec!["01234567"], true),
            ("commit", "0123456789abcdef", vec!["0123456"], false),
            (
                "difference",
                "1 widened; 2 unchanged; + widened;     GET /",
                vec!["1 widened", "2 unchanged", "+ widened"],
                false,
            ),
            ("name", "2026", vec!["2026"], false),
        ] {
            let detail = Detail::new(name, value, true);
            assert_eq!(
                (detail.lines, detail.href.is_some()),
                (shown.into_iter().map(String::from).collect(), is_linked)
            );
            assert!(!detail.name.contains('_'));
        }
        assert!(Detail::new("digest", "0123456789abcdef", false).href.is_none(), "what was refused is nowhere");
    }

    #[test]
    fn whom_a_reader_may_not_know_has_no_name_and_no_id() {
        let known = HashMap::from([("usr_1".to_owned(), "Ada".to_owned())]);
        let member = Names { known: known.clone(), others: Some("an operator, or a former member") };
        let operator = Names { known, others: None };
        let (ada, other) = (Actor::User("usr_1".into()), Actor::User("usr_2".into()));
        assert_eq!((member.who(&ada), operator.who(&ada)), ("Ada".into(), "Ada".into()));
        assert_eq!(member.who(&other), "an operator, or a former member");
        assert_eq!(operator.who(&other), "usr_2", "nobody is called so any more");
    }
}
