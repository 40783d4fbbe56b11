//! At a glance: what was decided in the last day, what is busy, what is refused, and how the installation is.

use askama::Template;
use axum::extract::Path;
use serde::Deserialize;

use super::api::Problem;
use super::chart::Day;
use super::decisions::{self, Decision};
use super::frame::{Frame, Section, page as answer};
use super::keys::{Shown, list::concerns};
use super::visitor::{Answer, Failure, Visitor, see_other};
use crate::http::manage::figures::Figures;
use crate::http::manage::view::{AccountView, Page as ListOf};
use crate::key::Mode;

/// Decisions that the page shows.
const DECISIONS: &str = "10";
/// Rows of each list.
const BUSIEST: usize = 8;

/// The busiest.
#[derive(Deserialize, Default)]
struct Top {
    keys: Vec<Busy>,
    routes: Vec<Busy>,
    addresses: Vec<Busy>,
}

/// One of the busiest.
#[derive(Deserialize)]
pub struct Busy {
    key: Option<String>,
    name: Option<String>,
    route: Option<String>,
    address: Option<String>,
    allow: u64,
    unauthenticated: u64,
    forbidden: u64,
}

impl Busy {
    /// What it is.
    pub fn title(&self) -> &str {
        [&self.name, &self.route, &self.address, &self.key].into_iter().flatten().next().map_or("", String::as_str)
    }

    /// Where there is more.
    pub fn href(&self) -> Option<String> {
        self.key.as_ref().map(|key| format!("/keys/{key}"))
    }

    /// How many decisions there were.
    pub fn total(&self) -> u64 {
        self.allow + self.unauthenticated + self.forbidden
    }

    /// How many of them were not allowed.
    pub fn denied(&self) -> u64 {
        self.unauthenticated + self.forbidden
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
    fn new(title: &'static str, mut items: Vec<Busy>) -> Self {
        items.truncate(BUSIEST);
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
    concerns: Vec<Shown>,
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
    let top: Top = visitor.client.get(&["decisions", "top"], query).await.unwrap_or_default();
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
