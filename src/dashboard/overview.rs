//! At a glance: what was decided in the last day, what is busy, what is refused, and how the installation is.

use askama::Template;
use axum::extract::Path;

use super::api::Problem;
use super::chart::Day;
use super::decisions::{self, Decision};
use super::frame::{Frame, Section, page as answer};
use super::keys::list::{Concerned, concerns};
use super::visitor::{Answer, Failure, Visitor, see_other};
use crate::http::manage::decisions::{Outcomes, TopAddress, TopDecisions, TopKey, TopRoute};
use crate::http::manage::figures::Figures;
use crate::http::manage::view::{AccountView, Page as ListOf};
use crate::key::Mode;

/// Decisions that the page shows.
const DECISIONS: &str = "10";
/// Rows of each list.
const BUSIEST: usize = 8;

/// One of the busiest.
pub struct Busy {
    /// What it is.
    pub title: String,
    /// Where there is more.
    pub href: Option<String>,
    outcomes: Outcomes,
}

impl Busy {
    /// How many decisions there were.
    pub fn total(&self) -> u64 {
        self.outcomes.allow + self.denied()
    }

    /// How many of them were not allowed.
    pub fn denied(&self) -> u64 {
        self.outcomes.unauthenticated + self.outcomes.forbidden
    }
}

impl From<TopKey> for Busy {
    fn from(TopKey { key, name, outcomes, .. }: TopKey) -> Self {
        Self { href: Some(format!("/keys/{key}")), title: name.unwrap_or(key), outcomes }
    }
}

impl From<TopRoute> for Busy {
    fn from(TopRoute { action, route, outcomes }: TopRoute) -> Self {
        Self { title: route.unwrap_or(action), href: None, outcomes }
    }
}

impl From<TopAddress> for Busy {
    fn from(TopAddress { address, outcomes }: TopAddress) -> Self {
        Self { title: address, href: None, outcomes }
    }
}

/// A list of the busiest.
pub struct Busiest {
    /// What they are.
    pub title: &'static str,
    /// They.
    pub items: Vec<Busy>,
    most: u64,
}

impl Busiest {
    fn new(title: &'static str, items: Vec<impl Into<Busy>>) -> Self {
        let items: Vec<Busy> = items.into_iter().take(BUSIEST).map(Into::into).collect();
        let most = items.iter().map(Busy::total).max().unwrap_or(1).max(1);
        Self { title, items, most }
    }

    /// How wide a bar is, of a hundred.
    pub fn width(&self, busy: &Busy) -> u64 {
        (busy.total() * 100 / self.most).max(1)
    }
}

/// Sends a person to where they work.
pub async fn front(visitor: Visitor) -> Answer {
    let accounts: ListOf<AccountView> = visitor.client.get(&["accounts"], &[("limit", "2")]).await?;
    let mut live = accounts.items.iter().filter(|account| account.closed_at.is_none());
    match (live.next(), live.next()) {
        (Some(only), None) if accounts.next.is_none() => Ok(see_other(&format!("/accounts/{}/live", only.id))),
        _ if visitor.me.operator => Ok(see_other("/installation")),
        _ => Ok(see_other("/accounts")),
    }
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OfAccount {
    frame: Frame,
    base: String,
    day: Option<Day>,
    lists: Vec<Busiest>,
    decisions: Vec<Decision>,
    concerns: Vec<Concerned>,
    more_concerns: u64,
}

/// An account, in one mode.
pub async fn of_account(visitor: Visitor, Path((account, mode)): Path<(String, String)>) -> Answer {
    let mode: Mode = mode.parse().map_err(|_| Failure::Problem(Problem::not_found()))?;
    let frame = Frame::about(&visitor, Section::Overview, "Overview", &account, mode, Some("")).await?;
    let query = [("account", account.as_str()), ("mode", mode.as_str())];
    let day = Day::get(&visitor.client, &query, frame.now).await.ok();
    let lists = top(&visitor, &query).await;
    let asked = [query[0], query[1], ("limit", DECISIONS)];
    let decisions = decisions::get(&visitor.client, &asked, frame.now).await.map(|(all, _)| all).unwrap_or_default();
    let (concerns, all) = concerns(&visitor, &account, mode, frame.now).await?;
    let more_concerns = all.saturating_sub(concerns.len() as u64);
    let base = format!("/accounts/{account}/{mode}");
    Ok(answer(&OfAccount { frame, base, day, lists, decisions, concerns, more_concerns }))
}

async fn top(visitor: &Visitor, query: &[(&str, &str)]) -> Vec<Busiest> {
    // Where nothing is recorded, nothing is busy.
    let Ok(top) = visitor.client.get::<TopDecisions>(&["decisions", "top"], query).await else { return Vec::new() };
    vec![
        Busiest::new("Busiest keys", top.keys),
        Busiest::new("Busiest routes", top.routes),
        Busiest::new("Busiest addresses", top.addresses),
    ]
}

/// Milliseconds, as people write short times.
pub fn short(milliseconds: Option<f64>) -> String {
    match milliseconds {
        None => "–".into(),
        Some(ms) if ms < 1.0 => format!("{:.0} µs", ms * 1_000.0),
        Some(ms) => format!("{ms:.1} ms"),
    }
}

#[derive(Template)]
#[template(path = "installation.html")]
struct OfInstallation {
    frame: Frame,
    figures: Figures,
    day: Option<Day>,
    lists: Vec<Busiest>,
    decisions: Vec<Decision>,
}

impl OfInstallation {
    fn all_keys(&self) -> u64 {
        self.figures.keys.values().sum()
    }

    fn decisions(&self) -> u64 {
        self.figures.decisions_total.values().sum()
    }
}

/// The whole installation.
pub async fn of_installation(visitor: Visitor) -> Answer {
    let frame = Frame::new(&visitor, Section::Installation, "Installation").await?;
    let figures: Figures = visitor.client.get(&["figures"], &[]).await?;
    let day = Day::get(&visitor.client, &[], frame.now).await.ok();
    let lists = top(&visitor, &[]).await;
    let asked = [("limit", DECISIONS)];
    let decisions = decisions::get(&visitor.client, &asked, frame.now).await.map(|(all, _)| all).unwrap_or_default();
    Ok(answer(&OfInstallation { frame, figures, day, lists, decisions }))
}
