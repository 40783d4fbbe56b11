//! The keys of an account in one mode: the standard pair on top, the others below.

use askama::Template;
use axum::extract::{Path, RawQuery};
use jiff::{SignedDuration, Timestamp};

use super::Shown;
use crate::dashboard::access::Operations;
use crate::dashboard::api::{Client, Problem};
use crate::dashboard::fields::Fields;
use crate::dashboard::frame::{Frame, Section, page as answer};
use crate::dashboard::show::with;
use crate::dashboard::visitor::{Answer, Visitor};
use crate::http::manage::view::{KeyView, Page as ListOf};
use crate::key::{Kind, Mode};

/// Keys of a page.
const PAGE: &str = "50";

/// What can be chosen to see, and what it is called.
const SHOW: [(&str, &str); 12] = [
    ("", "All keys"),
    ("active", "Active"),
    ("attention", "Needing attention"),
    ("expiring-30", "Expiring within 30 days"),
    ("expiring-60", "Expiring within 60 days"),
    ("expiring-90", "Expiring within 90 days"),
    ("never", "Never expiring"),
    ("unused", "Unused for 90 days"),
    ("disabled", "Disabled"),
    ("compromised", "Compromised"),
    ("expired", "Expired"),
    ("revoked", "Revoked"),
];
const KINDS: [(&str, &str); 4] =
    [("", "Every kind"), ("restricted", "Restricted"), ("secret", "Secret"), ("publishable", "Publishable")];

/// Some of an account's keys.
async fn get(client: &Client, account: &str, query: &[(&str, &str)]) -> Result<ListOf<KeyView>, Problem> {
    client.get(&["accounts", account, "keys"], query).await
}

/// A key that somebody should look at, and what the visitor may do to it.
pub struct Concerned {
    /// The key.
    pub shown: Shown,
    /// What they may do.
    pub can: Operations,
}

/// Keys that somebody should look at, the first few, and how many there are.
pub async fn concerns(
    visitor: &Visitor,
    account: &str,
    mode: Mode,
    now: Timestamp,
) -> Result<(Vec<Concerned>, u64), Problem> {
    let query = [("mode", mode.as_str()), ("needs_attention", "true"), ("limit", "5")];
    let keys = get(&visitor.client, account, &query).await?;
    let total = keys.total.unwrap_or_default() as u64;
    let mut concerned = Vec::with_capacity(keys.items.len());
    for key in keys.items {
        let can = Operations::on(&visitor.client, "key", &key.id).await?;
        concerned.push(Concerned { shown: Shown::new(key, now), can });
    }
    Ok((concerned, total))
}

/// The oldest working keys of the two kinds that every account has.
async fn standard(client: &Client, account: &str, mode: Mode) -> Result<(Option<KeyView>, Option<KeyView>), Problem> {
    // All keys are looked through for each call, and those that came with the account are nearly always among the first.
    let query = [("mode", mode.as_str()), ("kind", "publishable,secret"), ("state", "active"), ("limit", "20")];
    let keys = get(client, account, &query).await?;
    let (mut publishable, mut secret): (Vec<_>, Vec<_>) =
        keys.items.into_iter().partition(|key| key.kind == Kind::Publishable);
    for (found, kind) in [(&mut publishable, "publishable"), (&mut secret, "secret")] {
        if found.is_empty() && keys.next.is_some() {
            let query = [query[0], ("kind", kind), query[2], ("limit", "1")];
            *found = get(client, account, &query).await?.items;
        }
    }
    Ok((publishable.into_iter().next(), secret.into_iter().next()))
}

#[derive(Template)]
#[template(path = "keys/list.html")]
struct Page {
    frame: Frame,
    base: String,
    publishable: Option<Shown>,
    secret: Option<Shown>,
    keys: Vec<Shown>,
    concerns: Vec<Concerned>,
    more_concerns: u64,
    total: u64,
    search: String,
    show: String,
    kind: String,
    is_filtered: bool,
    next: Option<String>,
    after: String,
    can_create: bool,
    can_change: bool,
}

/// The list.
pub async fn page(visitor: Visitor, Path((account, mode)): Path<(String, Mode)>, RawQuery(query): RawQuery) -> Answer {
    let fields = Fields::read(query.unwrap_or_default().as_bytes())?;
    let frame = Frame::about(&visitor, Section::Keys, "API keys", &account, mode, Some("/keys")).await?;
    let now = frame.now;
    let (search, show, kind, after) =
        (fields.text("search"), fields.text("show"), fields.text("kind"), fields.text("after"));
    let is_filtered = !(search.is_empty() && show.is_empty() && kind.is_empty());

    let (publishable, secret) = standard(&visitor.client, &account, mode).await?;

    let unused = now.checked_sub(SignedDuration::from_hours(24 * 90)).unwrap_or(Timestamp::MIN).to_string();
    let mut asked = vec![("mode", mode.as_str()), ("search", search), ("kind", kind), ("after", after)];
    asked.extend([("order", "newest"), ("limit", PAGE)]);
    match show {
        "attention" => asked.push(("needs_attention", "true")),
        "never" => asked.push(("never_expires", "true")),
        "unused" => asked.extend([("unused_since", unused.as_str()), ("state", "active")]),
        other => match other.strip_prefix("expiring-") {
            Some(days) => asked.push(("expiring_within_days", days)),
            None => asked.push(("state", other)),
        },
    }
    let found = get(&visitor.client, &account, &asked).await?;
    // The pair is told of above; a list of what was looked for is whole.
    let is_above = |key: &KeyView| [&publishable, &secret].into_iter().flatten().any(|above| above.id == key.id);
    let keys = found.items.into_iter().filter(|key| is_filtered || !is_above(key));
    let keys = keys.map(|key| Shown::new(key, now)).collect();
    let (concerns, all_concerns) = concerns(&visitor, &account, mode, now).await?;
    let can = Operations::on(&visitor.client, "environment", &format!("{account}/{mode}")).await?;
    let can_change = match &secret {
        Some(key) => Operations::on(&visitor.client, "key", &key.id).await?.has("rotateKey"),
        None => can.has("createKey"),
    };
    Ok(answer(&Page {
        base: format!("/accounts/{account}/{mode}/keys"),
        next: found.next.map(|next| with(fields.pairs(), "after", &next)),
        after: after.to_owned(),
        search: search.to_owned(),
        show: show.to_owned(),
        kind: kind.to_owned(),
        publishable: publishable.map(|key| Shown::new(key, now)),
        secret: secret.map(|key| Shown::new(key, now)),
        more_concerns: all_concerns.saturating_sub(concerns.len() as u64),
        total: found.total.unwrap_or_default() as u64,
        can_create: can.has("createKey") && !frame.is_closed(),
        keys,
        concerns,
        is_filtered,
        can_change,
        frame,
    }))
}
