//! Who looks at a page or sends a form, found out before the page is made.

use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request};
use axum::http::header::{COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use cookie::{Cookie, SameSite};
use std::net::SocketAddr;

use super::Shared;
use super::api::{Client, Problem};
use super::fields::Fields;
use super::frame::refused;
use super::session::{Fresh, Notice, Session};
use crate::http::manage::view::UserView;
use crate::http::names::FORWARDED_PROTO;
use crate::http::source::client_address;

/// Why there is no page.
#[derive(Debug)]
pub enum Failure {
    /// Nobody is signed in; where they wanted to go.
    SignIn(String),
    /// The API, or this program, did not do it.
    Problem(Problem),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        // The token behind the session is not good any more, and so the session is over.
        if problem.status == 401 { Self::SignIn("/".into()) } else { Self::Problem(problem) }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::SignIn(next) if next == "/" => see_other("/sign-in"),
            Self::SignIn(next) => {
                let query = form_urlencoded::Serializer::new(String::new()).append_pair("next", &next).finish();
                see_other(&format!("/sign-in?{query}"))
            }
            Self::Problem(problem) => refused(&problem),
        }
    }
}

/// What a page handler returns.
pub type Answer = Result<Response, Failure>;

/// Sends a browser to another page, which it is to read.
pub fn see_other(place: &str) -> Response {
    let mut response = Response::new(axum::body::Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let place = HeaderValue::from_str(place).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(LOCATION, place);
    response
}

/// A browser, whoever sits before it.
pub struct Browser {
    /// From where.
    pub client: Client,
    /// Whether it speaks TLS, with a proxy that is trusted.
    is_secure: bool,
    /// The cookie that it sent.
    cookie: Option<String>,
}

/// What the session's cookie is called. With the prefix, browsers take it over TLS alone and from no other host.
fn cookie_name(is_secure: bool) -> &'static str {
    if is_secure { "__Host-keyward" } else { "keyward" }
}

impl Browser {
    fn of(parts: &Parts, shared: &Shared) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let ConnectInfo(peer) = peer.ok_or_else(|| Problem::internal(&"a request without a peer"))?;
        let headers = &parts.headers;
        let is_trusted = shared.proxies.iter().any(|network| network.contains(&peer.ip().to_canonical()));
        let mut schemes = headers.get_all(FORWARDED_PROTO).iter();
        let is_secure =
            is_trusted && matches!((schemes.next(), schemes.next()), (Some(scheme), None) if scheme == "https");
        let address = client_address(peer.ip(), headers, &shared.proxies);
        let client = Client { api: shared.api.clone(), token: None, address };
        Ok(Self { client, is_secure, cookie: cookie_of(headers, cookie_name(is_secure)) })
    }

    /// Gives the browser a session's cookie, or takes it away.
    pub fn set_cookie(&self, response: &mut Response, value: Option<&str>) {
        let cookie = Cookie::build((cookie_name(self.is_secure), value.unwrap_or_default()))
            .path("/")
            .http_only(true)
            .secure(self.is_secure)
            .same_site(SameSite::Strict);
        let cookie = if value.is_none() { cookie.max_age(cookie::time::Duration::ZERO) } else { cookie };
        if let Ok(value) = HeaderValue::from_str(&cookie.to_string()) {
            response.headers_mut().insert(SET_COOKIE, value);
        }
    }
}

/// The one cookie of this name. Several may come from a neighbour who wants to give somebody another session.
fn cookie_of(headers: &HeaderMap, name: &str) -> Option<String> {
    let texts = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let cookies = texts.flat_map(Cookie::split_parse).filter_map(Result::ok);
    let mut ours = cookies.filter(|cookie| cookie.name() == name);
    let (first, second) = (ours.next(), ours.next());
    first.filter(|_| second.is_none()).map(|cookie| cookie.value().to_owned())
}

impl FromRequestParts<Shared> for Browser {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        Ok(Self::of(parts, shared)?)
    }
}

/// A person who is signed in.
pub struct Visitor {
    /// Calls the API for them.
    pub client: Client,
    /// Their record.
    pub me: UserView,
    /// Their session.
    pub session: Session,
    shared: Shared,
    cookie: String,
}

impl Visitor {
    /// Has the next page tell what was done.
    pub fn tell(&self, text: impl Into<String>) {
        self.shared.sessions.tell(&self.cookie, Notice { is_error: false, text: text.into() });
    }

    /// Has the next page tell what went wrong.
    pub fn warn(&self, text: impl Into<String>) {
        self.shared.sessions.tell(&self.cookie, Notice { is_error: true, text: text.into() });
    }

    /// What was done; none where the problem is one of these, which the next page tells.
    ///
    /// # Errors
    /// Any other problem.
    pub fn or_warn<T>(&self, done: Result<T, Problem>, is_told: fn(&Problem) -> bool) -> Result<Option<T>, Problem> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(problem) if is_told(&problem) => {
                self.warn(problem.detail);
                Ok(None)
            }
            Err(problem) => Err(problem),
        }
    }

    /// What there is to tell, once.
    pub fn told(&self) -> Vec<Notice> {
        self.shared.sessions.told(&self.cookie)
    }

    /// Keeps tokens for the page that shows them.
    pub fn keep(&self, fresh: Vec<Fresh>) {
        self.shared.sessions.keep(&self.cookie, fresh);
    }

    /// Whose tokens are still to be shown. What can fail is done before they are taken.
    pub fn waiting(&self) -> Vec<String> {
        self.shared.sessions.waiting(&self.cookie)
    }

    /// The tokens of these things that are to be shown now, once.
    pub fn fresh(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<Fresh> {
        self.shared.sessions.take(&self.cookie, is_wanted)
    }

    /// Signs out here.
    pub fn end(&self) {
        self.shared.sessions.end(&self.cookie);
    }

    /// Ends all of this person's sessions.
    pub fn end_all(&self) {
        self.shared.sessions.end_all(&self.session.user);
    }
}

impl FromRequestParts<Shared> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        let browser = Browser::of(parts, shared)?;
        // Only what is looked at can be come back to.
        let wanted = parts.uri.path_and_query().filter(|_| parts.method == Method::GET).map(PathAndQuery::as_str);
        let sign_in = || Failure::SignIn(wanted.unwrap_or("/").to_owned());
        let cookie = browser.cookie.ok_or_else(sign_in)?;
        let session = shared.sessions.find(&cookie, Instant::now()).ok_or_else(sign_in)?;
        let client = Client { token: Some(session.token.clone()), ..browser.client };
        let me = match client.get(&["me"], &[]).await {
            Ok(me) => me,
            Err(problem) if problem.status == 401 => {
                shared.sessions.end(&cookie);
                return Err(sign_in());
            }
            Err(problem) => return Err(problem.into()),
        };
        Ok(Self { client, me, session, shared: Shared::clone(shared), cookie })
    }
}

/// A form that a signed-in person sent from one of their own pages.
pub struct Posted {
    /// Who.
    pub visitor: Visitor,
    /// What it says.
    pub fields: Fields,
}

impl FromRequest<Shared> for Posted {
    type Rejection = Failure;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, shared).await?;
        let fields = form(parts, body, shared).await?;
        if !visitor.session.is_ours(fields.raw("csrf")) {
            return Err(forged().into());
        }
        Ok(Self { visitor, fields })
    }
}

/// A form that anybody may send, from a page of this Dashboard.
pub struct Open {
    /// From where.
    pub browser: Browser,
    /// What it says.
    pub fields: Fields,
}

impl FromRequest<Shared> for Open {
    type Rejection = Failure;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let browser = Browser::of(&parts, shared)?;
        Ok(Self { browser, fields: form(parts, body, shared).await? })
    }
}

async fn form(parts: Parts, body: axum::body::Body, shared: &Shared) -> Result<Fields, Failure> {
    if !is_of_this_site(&parts.headers) {
        return Err(forged().into());
    }
    let bytes = Bytes::from_request(Request::from_parts(parts, body), shared).await;
    let bytes = bytes.map_err(|rejection| Problem {
        status: rejection.status().as_u16(),
        code: "request_too_large".into(),
        detail: "The form could not be read whole.".into(),
        field: None,
    })?;
    Ok(Fields::read(&bytes)?)
}

fn forged() -> Problem {
    let detail = "This form did not come from a page of yours, or the page was too old. Go back, load it again, and send it once more.";
    Problem { status: 403, code: "form_forged".into(), detail: detail.into(), field: None }
}

/// Whether a browser says that one of our own pages sent the form. What says nothing is no browser of today, and has to
/// know the session's form token all the same.
fn is_of_this_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin" || site == "none");
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let origin = headers.get(ORIGIN).is_none_or(|origin| {
        let host_of_origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        host_of_origin.is_some() && host_of_origin == host
    });
    site && origin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_form_of_another_site_is_told_from_ours() {
        for (all, expected) in [
            (&[("host", "k.test"), ("origin", "https://k.test"), ("sec-fetch-site", "same-origin")][..], true),
            (&[("host", "k.test")], true),
            (&[("host", "k.test"), ("origin", "https://evil.test")], false),
            (&[("host", "k.test"), ("origin", "null")], false),
            (&[("host", "k.test"), ("sec-fetch-site", "cross-site")], false),
            (&[("host", "k.test"), ("sec-fetch-site", "same-site")], false),
            (&[("origin", "https://k.test")], false),
        ] {
            assert_eq!(is_of_this_site(&headers(all)), expected, "{all:?}");
        }
    }

    #[test]
    fn one_cookie_is_a_session_and_two_are_none() {
        let one = headers(&[("cookie", "a=1; keyward=x")]);
        assert_eq!(cookie_of(&one, "keyward").as_deref(), Some("x"));
        assert_eq!(cookie_of(&headers(&[("cookie", "keyward=x; keyward=y")]), "keyward"), None);
        assert_eq!(cookie_of(&headers(&[("cookie", "keyward=x"), ("cookie", "keyward=x")]), "keyward"), None);
        assert_eq!(cookie_of(&headers(&[("cookie", "__Host-keyward=x")]), "keyward"), None);
    }
}
