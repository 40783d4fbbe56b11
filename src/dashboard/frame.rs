//! What is around every page: who is signed in, where they are, where else they can go, and what they should know.

use std::sync::Arc;

use askama::Template;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::access::Operations;
use super::api::{Client, Problem};
use super::assets;
use super::session::{Notice, random};
use super::show::Moment;
use super::visitor::Visitor;
use crate::http::admin::InForce;
use crate::http::manage::view::AccountView;
use crate::key::Mode;

/// Where in the Dashboard a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Accounts to choose from.
    Accounts,
    /// An account's decisions at a glance.
    Overview,
    /// Its keys.
    Keys,
    /// What was decided.
    Decisions,
    /// Its members.
    Team,
    /// What was done.
    Events,
    /// Its name and its end.
    Settings,
    /// The installation at a glance.
    Installation,
    /// All its decisions.
    AllDecisions,
    /// Schema and policies.
    Policies,
    /// Everybody.
    People,
    /// All that was done.
    AllEvents,
    /// The visitor themselves.
    Me,
}

/// A link to a section.
pub struct Link {
    /// Where it leads.
    pub href: String,
    /// What it is called.
    pub name: &'static str,
    /// Whether this is where the page is.
    pub is_here: bool,
}

/// Something that a person should do something about.
pub struct Banner {
    /// Whether it is urgent.
    pub is_urgent: bool,
    /// What.
    pub title: String,
    /// More, as it was written: a diagnostic.
    pub detail: Option<String>,
    /// Where something can be done about it, and what that is called.
    pub link: Option<(String, &'static str)>,
}

/// The account that a page is about.
pub struct Place {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was closed, if it is.
    pub closed_at: Option<Timestamp>,
    /// Live or test.
    pub mode: Mode,
    /// The same page in the other mode, where it has one.
    pub modes: Option<[(Mode, String); 2]>,
    /// What the visitor may do there.
    pub can: Operations,
}

/// What is around a page.
pub struct Frame {
    /// What the page is called.
    pub title: String,
    /// The visitor's name.
    pub who: String,
    /// Their e-mail address.
    pub email: String,
    /// For forms.
    pub csrf: String,
    /// Names what a form of this page does, so that it is done once however often it is sent.
    pub once: Zeroizing<String>,
    /// Where the page is.
    pub section: Section,
    /// The account.
    pub place: Option<Place>,
    /// What the visitor may do to the installation.
    pub can: Operations,
    /// What was done.
    pub notices: Vec<Notice>,
    /// What should be.
    pub banners: Vec<Banner>,
    /// What is in force, for whoever banners tell of it.
    policies: Option<Arc<InForce>>,
    /// When the page was made.
    pub now: Timestamp,
}

impl Frame {
    /// Around a page about the visitor or the installation.
    pub async fn new(visitor: &Visitor, section: Section, title: impl Into<String>) -> Result<Self, Problem> {
        let now = Timestamp::now();
        let can = Operations::on_installation(&visitor.client).await?;
        let policies = if can.has("listRevisions") { Some(policies(&visitor.client).await?) } else { None };
        let banners = policies.as_deref().map(|policies| policy_banners(policies, now)).unwrap_or_default();
        Ok(Self {
            title: title.into(),
            who: visitor.me.name.clone(),
            email: visitor.me.email.clone(),
            csrf: visitor.session.csrf().to_owned(),
            once: random().map_err(|error| Problem::internal(&error))?,
            section,
            place: None,
            can,
            notices: visitor.told(),
            banners,
            policies,
            now,
        })
    }

    /// What is in force: as the banners tell of it, where they do.
    pub async fn policies(&self, client: &Client) -> Result<Arc<InForce>, Problem> {
        match &self.policies {
            Some(policies) => Ok(Arc::clone(policies)),
            None => policies(client).await,
        }
    }

    /// Around a page about an account, in a mode. `path` is what follows the mode in the page's address, where it is about
    /// one mode.
    pub async fn about(
        visitor: &Visitor,
        section: Section,
        title: impl Into<String>,
        account: &str,
        mode: Mode,
        path: Option<&str>,
    ) -> Result<Self, Problem> {
        let frame = Self::new(visitor, section, title).await?;
        let account: AccountView = visitor.client.get(&["accounts", account], &[]).await?;
        let can = Operations::on(&visitor.client, "account", &account.id).await?;
        let modes = path
            .map(|path| [Mode::Live, Mode::Test].map(|mode| (mode, format!("/accounts/{}/{mode}{path}", account.id))));
        let closed_at = account.closed_at;
        let closed = closed_at.map(|at| Banner {
            is_urgent: false,
            title: format!(
                "This account was closed {}: its keys are revoked, and nothing in it can be changed. What was done \
                 stays to be read.",
                Moment::new(at, frame.now)
            ),
            detail: None,
            link: None,
        });
        let banners = frame.banners.into_iter().chain(closed).collect();
        let place = Place { id: account.id, name: account.name, closed_at, mode, modes, can };
        Ok(Self { place: Some(place), banners, ..frame })
    }

    /// A moment, seen from when the page was made.
    pub fn moment(&self, at: &Timestamp) -> Moment {
        Moment::new(*at, self.now)
    }

    /// Whether the visitor may do this to the account that the page is about.
    pub fn can_here(&self, operation: &str) -> bool {
        self.place.as_ref().is_some_and(|place| place.can.has(operation))
    }

    /// Whether the account that the page is about is closed.
    pub fn is_closed(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.closed_at.is_some())
    }

    /// Whether the page is about test data.
    pub fn is_test(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.mode == Mode::Test)
    }

    /// Links to the account's sections.
    pub fn account_links(&self) -> Vec<Link> {
        let Some(place) = &self.place else { return Vec::new() };
        let (account, mode) = (format!("/accounts/{}", place.id), format!("/accounts/{}/{}", place.id, place.mode));
        let all = [
            ("listDecisions", Section::Overview, "Overview", mode.clone()),
            ("listKeys", Section::Keys, "API keys", format!("{mode}/keys")),
            ("listDecisions", Section::Decisions, "Decisions", format!("{mode}/decisions")),
            ("listMembers", Section::Team, "Team", format!("{account}/team")),
            ("listAccountEvents", Section::Events, "Events", format!("{account}/events")),
            ("renameAccount", Section::Settings, "Settings", format!("{account}/settings")),
        ];
        self.links(&place.can, all)
    }

    /// Links to what concerns the whole installation.
    pub fn installation_links(&self) -> Vec<Link> {
        let all = [
            ("getFigures", Section::Installation, "Overview", "/installation".into()),
            ("listDecisions", Section::AllDecisions, "Decisions", "/installation/decisions".into()),
            ("listRevisions", Section::Policies, "Policies", "/policies".into()),
            ("listUsers", Section::People, "People", "/people".into()),
            ("listEvents", Section::AllEvents, "Events", "/installation/events".into()),
        ];
        self.links(&self.can, all)
    }

    fn links<const N: usize>(&self, can: &Operations, all: [(&str, Section, &'static str, String); N]) -> Vec<Link> {
        let allowed = all.into_iter().filter(|(operation, ..)| can.has(operation));
        allowed.map(|(_, section, name, href)| Link { href, name, is_here: section == self.section }).collect()
    }
}

async fn policies(client: &Client) -> Result<Arc<InForce>, Problem> {
    client.get(&["policies"], &[]).await.map(Arc::new)
}

/// What is not in force although it was saved.
fn policy_banners(in_force: &InForce, now: Timestamp) -> Vec<Banner> {
    let refused = in_force.report.refused.as_ref().map(|refused| Banner {
        is_urgent: true,
        title: format!(
            "An edit of the policies was refused {}. What was in force before goes on serving.",
            Moment::new(refused.since, now)
        ),
        detail: Some(refused.diagnostics.clone()),
        link: Some(("/policies".into(), "Look at the policies")),
    });
    let waiting = in_force.report.waiting.as_ref().map(|waiting| Banner {
        is_urgent: false,
        title: format!(
            "An edit of the policies waits for approval since {}: somebody could do more, or it is not proven that nobody could.",
            Moment::new(waiting.since, now)
        ),
        detail: None,
        link: Some((format!("/policies/history/{}", waiting.digest), "Look at it")),
    });
    refused.into_iter().chain(waiting).collect()
}

/// A page as an answer.
pub fn page(template: &impl Template) -> Response {
    page_with(StatusCode::OK, template)
}

/// A page as an answer of this status.
pub fn page_with(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => {
            let mut response = Response::new(text.into());
            *response.status_mut() = status;
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, html);
            response
        }
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "refused.html")]
struct Refusal<'a> {
    style: &'static str,
    title: &'a str,
    detail: &'a str,
}

/// The page that says why there is no other.
pub fn refused(problem: &Problem) -> Response {
    let title = match problem.status {
        403 => "You may not do this",
        404 => "There is nothing here",
        status if status >= 500 => "This did not work",
        _ => "This was not done",
    };
    page_with(problem.status(), &Refusal { style: assets::style(), title, detail: &problem.detail })
}
