//! A key's page: what it is, what it can do, what was done with it and to it.

use askama::Template;
use axum::extract::{Path, RawQuery};
use zeroize::Zeroizing;

use super::{Shown, find};
use crate::dashboard::access::Operations;
use crate::dashboard::chart::Day;
use crate::dashboard::decisions::{self, Decision, OUTCOMES};
use crate::dashboard::fields::Fields;
use crate::dashboard::frame::{Frame, Section, page as answer};
use crate::dashboard::policies::Places;
use crate::dashboard::trail::{self, Happening};
use crate::dashboard::visitor::{Answer, Visitor};
use crate::http::manage::permissions::{Permission, Permissions};
use crate::http::manage::suggestion::SuggestedScopes;

/// Decisions that the page shows.
const DECISIONS: &str = "20";
/// Events that it shows.
const EVENTS: &str = "20";

#[derive(Template)]
#[template(path = "keys/one.html")]
struct Page {
    frame: Frame,
    key: Shown,
    token: Option<Zeroizing<String>>,
    can: Operations,
    permissions: Vec<Permission>,
    places: Places,
    suggestion: Option<SuggestedScopes>,
    day: Option<Day>,
    decisions: Vec<Decision>,
    outcome: String,
    events: Vec<Happening>,
}

impl Page {
    /// How many actions it can do.
    fn allowed(&self) -> usize {
        self.permissions.iter().filter(|permission| permission.decision == "allow").count()
    }
}

/// The page.
pub async fn page(visitor: Visitor, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let fields = Fields::read(query.unwrap_or_default().as_bytes())?;
    let client = &visitor.client;
    let key = find(client, &id).await?;
    let frame = Frame::about(&visitor, Section::Keys, &key.name, &key.account, key.mode, None).await?;
    let can = Operations::on(client, "key", &key.id).await?;
    let permissions: Permissions = client.get(&["keys", &key.id, "permissions"], &[]).await?;
    let may_look = frame.can.has("getRevision");
    let places = if may_look { Places::of(frame.policies(client).await?.as_ref()) } else { Places::default() };
    let outcome = fields.text("outcome");
    // Where nothing is recorded there is nothing to show, and the rest of the page all the same.
    let asked = [("key", key.id.as_str()), ("outcome", outcome), ("limit", DECISIONS)];
    let decisions = decisions::get(client, &asked, frame.now).await.map(|(decisions, _)| decisions).unwrap_or_default();
    let day = Day::get(client, &[("key", &key.id)], frame.now).await.ok();
    let suggestion: Option<SuggestedScopes> = client.get(&["keys", &key.id, "suggestion"], &[]).await.ok();
    let (events, _) =
        trail::get(client, &["keys", &key.id, "events"], &[("limit", EVENTS)], Some(&key.account), frame.now).await?;
    // Once nothing can fail any more: it is shown once. An id of a thing that the page is not about is nobody's token here.
    let token = visitor.fresh(|of| of == key.id).pop().map(|fresh| fresh.token);
    Ok(answer(&Page {
        key: Shown::new(key, frame.now),
        permissions: permissions.items,
        suggestion: suggestion.filter(|suggestion| suggestion.decisions > 0),
        outcome: outcome.to_owned(),
        frame,
        token,
        can,
        places,
        day,
        decisions,
        events,
    }))
}
