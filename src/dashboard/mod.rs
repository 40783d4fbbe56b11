//! The Dashboard: pages for people, on the admin listener.
//!
//! It is a client of the management API in the same process: each page and each form makes the API's calls with the
//! token of the person who is signed in, so that what they may see and do is what the API answers, and nothing is
//! decided here. The token stays in this process; a browser holds a cookie that names the session (`session.rs`).
//!
//! Pages are made of templates, which escape what they show. Every form is a POST that carries its session's token
//! against forgery, and is answered by a redirection; what is shown once is held in the session until the page after
//! it. Everything works without a script but copying and watching.

mod access;
mod accounts;
mod api;
mod assets;
mod chart;
mod decisions;
mod fields;
mod frame;
mod keys;
mod overview;
mod people;
mod policies;
mod profile;
mod session;
mod show;
mod sign_in;
mod source;
mod trail;
mod visitor;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use ipnet::IpNet;

use self::api::{Api, Problem};
use self::session::Sessions;
use crate::http::manage;

/// Bytes of a form: policies are edited in one.
const FORM_BYTES: usize = 4 << 20;

/// Scripts, styles, pictures and answers of this origin, and forms that are sent to it; nothing inline, no frames.
const CONTENT: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; \
                       connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What the pages share.
pub struct Dashboard {
    api: Api,
    sessions: Sessions,
    /// Who is believed when they state for whom they call, and how the call came.
    proxies: Vec<IpNet>,
}

type Shared = Arc<Dashboard>;

impl Dashboard {
    /// The management API that `api` serves, and the pages over it.
    pub fn over(api: Router, proxies: Vec<IpNet>) -> Router {
        let dashboard = Self { api: Api::new(api.clone()), sessions: Sessions::default(), proxies };
        api.merge(dashboard.router()).fallback(nothing_there)
    }

    fn router(self) -> Router {
        let pages = Router::new()
            .route("/", get(overview::front))
            .route("/sign-in", get(sign_in::page).post(sign_in::submit))
            .route("/sign-out", post(sign_in::sign_out))
            .route("/sign-out-everywhere", post(sign_in::sign_out_everywhere))
            .route("/me", get(profile::page))
            .route("/me/password", post(profile::set_password))
            .route("/me/tokens", post(profile::create_token))
            .route("/me/tokens/{token}/delete", post(profile::delete_token))
            .route("/accounts", get(accounts::list).post(accounts::create))
            .route("/accounts/{account}", get(accounts::enter))
            .route("/accounts/{account}/settings", get(accounts::settings))
            .route("/accounts/{account}/rename", post(accounts::rename))
            .route("/accounts/{account}/close", post(accounts::close))
            .route("/accounts/{account}/team", get(people::team))
            .route("/accounts/{account}/team/{user}", post(people::set_member))
            .route("/accounts/{account}/team/{user}/remove", get(people::remove_page).post(people::remove_member))
            .route("/accounts/{account}/events", get(trail::of_account))
            .route("/accounts/{account}/events/export", get(trail::export_account))
            .route("/accounts/{account}/{mode}", get(overview::of_account))
            .route("/accounts/{account}/{mode}/keys", get(keys::list::page).post(keys::create::submit))
            .route("/accounts/{account}/{mode}/keys/new", get(keys::create::page))
            .route("/accounts/{account}/{mode}/decisions", get(decisions::of_account))
            .route("/accounts/{account}/{mode}/decisions/live", get(decisions::watch_account))
            .route("/keys/{key}", get(keys::one::page))
            .route("/keys/{key}/edit", get(keys::edit::page).post(keys::edit::submit))
            .route("/keys/{key}/rotate", get(keys::change::rotate_page).post(keys::change::rotate))
            .route("/keys/{key}/revoke", get(keys::change::revoke_page).post(keys::change::revoke))
            .route("/keys/{key}/disable", post(keys::change::disable))
            .route("/keys/{key}/enable", post(keys::change::enable))
            .route("/keys/{key}/compromise", get(keys::change::compromise_page).post(keys::change::compromise))
            .route("/decisions/{decision}", get(decisions::one))
            .route("/installation", get(overview::of_installation))
            .route("/installation/decisions", get(decisions::of_installation))
            .route("/installation/decisions/live", get(decisions::watch_installation))
            .route("/installation/events", get(trail::of_installation))
            .route("/installation/events/export", get(trail::export_installation))
            .route("/people", get(people::list).post(people::create))
            .route("/people/{user}", get(people::one).post(people::update))
            .route("/people/{user}/password", post(people::set_password))
            .route("/people/{user}/delete", post(people::delete))
            .route("/policies", get(policies::page))
            .route("/policies/file", get(policies::file))
            .route("/policies/routes", get(policies::routes))
            .route("/policies/guarantees", get(policies::guarantees))
            .route("/policies/history", get(policies::history::page))
            .route("/policies/history/{digest}", get(policies::history::revision))
            .route("/policies/rollback", post(policies::history::roll_back))
            .route("/policies/approve", post(policies::history::approve))
            .route("/policies/try", get(policies::trial::page))
            .route("/policies/playground", get(policies::playground::page).post(policies::playground::check))
            .layer(from_fn(guarded))
            .layer(DefaultBodyLimit::max(FORM_BYTES))
            .with_state(Arc::new(self));
        pages.merge(assets::router())
    }
}

/// What is told of a path that nothing is at: a page to a browser, a problem document to everybody else.
async fn nothing_there(headers: HeaderMap) -> Response {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    if accepted.is_some_and(|accepted| accepted.contains("text/html")) {
        with_headers(frame::refused(&Problem::not_found()))
    } else {
        manage::nothing_there()
    }
}

/// Headers of every page. An address that no handler could read, which is answered in bare words, is a page as well.
async fn guarded(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let is_bare = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if is_bare && response.status().is_client_error() {
        return with_headers(frame::refused(&Problem::not_found()));
    }
    with_headers(response)
}

fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, CONTENT),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        // With less, browsers would not say that a form came from here.
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
