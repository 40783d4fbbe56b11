//! A browser without a screen: it keeps its cookie, follows nothing by itself, and looks at what it gets.

use std::collections::BTreeMap;

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, RequestBuilder, Response};

use crate::harness::client;

/// What a page may load and be embedded in.
const CONTENT: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; \
                       connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A browser.
#[derive(Clone)]
pub struct Visit {
    client: Client,
    pub url: String,
    /// The cookie, as it is sent; empty when nobody is signed in.
    pub cookie: String,
}

/// An answer.
#[derive(Debug)]
pub struct Seen {
    pub status: u16,
    pub text: String,
    /// Where it leads.
    pub location: String,
    /// Cookies that it sets.
    pub cookies: Vec<String>,
    pub headers: reqwest::header::HeaderMap,
}

impl Visit {
    /// One in which nobody is signed in.
    pub fn anonymous(url: &str) -> Self {
        Self { client: client(), url: url.to_owned(), cookie: String::new() }
    }

    /// One in which this person is.
    pub async fn sign_in(url: &str, email: &str, password: &str) -> Self {
        let anonymous = Self::anonymous(url);
        let seen = anonymous.form("/sign-in", &[("email", email), ("password", password)]).await;
        assert_eq!((seen.status, seen.location.as_str()), (303, "/"), "{email}: {}", seen.text);
        let cookie = seen.cookies[0].split(';').next().unwrap().to_owned();
        Self { cookie, ..anonymous }
    }

    /// The same browser with another cookie.
    pub fn with(&self, cookie: impl Into<String>) -> Self {
        Self { cookie: cookie.into(), ..self.clone() }
    }

    /// The secret part of the cookie.
    pub fn session(&self) -> &str {
        self.cookie.split_once('=').map_or("", |(_, value)| value)
    }

    /// A request for this, with the cookie.
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, format!("{}{path}", self.url));
        if self.cookie.is_empty() { request } else { request.header(COOKIE, &self.cookie) }
    }

    /// A page, which is looked at in every way that holds of all pages.
    pub async fn get(&self, path: &str) -> Seen {
        let seen = self.get_once(path).await;
        no_secret(path, &seen.text);
        seen
    }

    /// A page that may show a token, this once.
    pub async fn get_once(&self, path: &str) -> Seen {
        let seen = look(self.request("GET", path).send().await.unwrap()).await;
        assert!(self.cookie.is_empty() || !seen.text.contains(self.session()), "{path} shows the session's token");
        check(path, &seen);
        seen
    }

    /// What each form of the session's pages carries.
    pub async fn csrf(&self) -> String {
        let page = self.get("/me").await;
        let (_, rest) = page.text.split_once("name=\"csrf\" value=\"").unwrap_or_else(|| panic!("{}", page.text));
        rest.split('"').next().unwrap().to_owned()
    }

    /// Sends a form from one of the session's pages.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Seen {
        let csrf = self.csrf().await;
        let all: Vec<_> = [("csrf", csrf.as_str())].into_iter().chain(fields.iter().copied()).collect();
        self.form(path, &all).await
    }

    /// Sends a form as it is.
    pub async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Seen {
        let seen = look(with_form(self.request("POST", path), fields).send().await.unwrap()).await;
        check(path, &seen);
        seen
    }
}

/// A request with these fields.
pub fn with_form(request: RequestBuilder, fields: &[(&str, &str)]) -> RequestBuilder {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    request.header("content-type", "application/x-www-form-urlencoded").body(body)
}

pub async fn look(response: Response) -> Seen {
    let headers = response.headers().clone();
    let text = |name| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let cookies = headers.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap().to_owned()).collect();
    let (status, location) = (response.status().as_u16(), text(LOCATION));
    Seen { status, location, cookies, text: response.text().await.unwrap(), headers }
}

/// What holds of every answer.
pub fn check(path: &str, seen: &Seen) {
    let header = |name: &str| seen.headers.get(name).map_or("", |value| value.to_str().unwrap());
    for (name, value) in [
        ("content-security-policy", CONTENT),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(header(name), value, "{path}: {name}");
    }
    assert!(!seen.text.contains("$argon2"), "{path} shows a hash");
    if header("content-type").starts_with("text/html") {
        well_behaved(path, &seen.text);
    }
}

/// No token but a publishable one: none that a test knows, and none that it does not.
pub fn no_secret(path: &str, text: &str) {
    for prefix in ["kw_", "sk_live_", "sk_test_", "rk_live_", "rk_test_"] {
        for (at, _) in text.match_indices(prefix) {
            let rest = &text[at + prefix.len()..];
            let length = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
            assert!(length < 12, "{path} shows a token: {}…", &text[at..at + prefix.len() + 4]);
        }
    }
}

/// A tag of a page, and its attributes as a browser reads them.
pub struct Tag {
    pub name: String,
    pub attributes: BTreeMap<String, String>,
}

/// The tags of a page. What they hold is text; scripts and styles hold nothing here.
pub fn tags(html: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if !rest.starts_with(|first: char| first.is_ascii_alphabetic()) {
            continue;
        }
        let end = rest.find(|c: char| c.is_whitespace() || c == '>' || c == '/').unwrap_or(rest.len());
        let mut tag = Tag { name: rest[..end].to_ascii_lowercase(), attributes: BTreeMap::new() };
        rest = &rest[end..];
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
            if rest.is_empty() || rest.starts_with('>') {
                break;
            }
            let end = rest.find(|c: char| c.is_whitespace() || "=>/".contains(c)).unwrap_or(rest.len()).max(1);
            let name = rest[..end].to_ascii_lowercase();
            rest = rest[end..].trim_start();
            let mut value = "";
            if let Some(after) = rest.strip_prefix('=') {
                let after = after.trim_start();
                let quote = after.chars().next().filter(|first| "\"'".contains(*first));
                let quote = quote.unwrap_or_else(|| panic!("an attribute without quotes: {name} of {}", tag.name));
                (value, rest) = after[1..].split_once(quote).unwrap();
            }
            tag.attributes.insert(name, text_of(value));
        }
        tags.push(tag);
    }
    tags
}

/// What a browser makes of escaped text.
pub fn text_of(html: &str) -> String {
    let named = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#60;", "<"),
        ("&#62;", ">"),
    ];
    let plain = named.iter().fold(html.to_owned(), |text, (from, to)| text.replace(from, to));
    plain.replace("&#10;", "\n").replace("&amp;", "&").replace("&#38;", "&")
}

/// Nothing inline, nothing from elsewhere, nothing that runs.
fn well_behaved(path: &str, html: &str) {
    let tags = tags(html);
    assert!(tags.iter().any(|tag| tag.name == "main"), "{path} is no page: {html}");
    for tag in tags {
        let name = &tag.name;
        assert!(!["style", "iframe", "object", "embed", "base", "template"].contains(&name.as_str()), "{path}: {name}");
        assert!(name != "script" || tag.attributes.contains_key("src"), "{path}: an inline script");
        for (attribute, value) in &tag.attributes {
            assert!(!attribute.starts_with("on") && attribute != "style", "{path}: {attribute} of {name}");
            assert!(attribute.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{path}: {attribute}");
            if ["href", "src", "action", "formaction", "data-live", "poster"].contains(&attribute.as_str()) {
                let is_ours = value.starts_with('/') && !value.starts_with("//") || value.starts_with('#');
                let is_query = value.starts_with('?');
                assert!(is_ours || is_query, "{path}: {name} leads to {value}");
            }
            assert!(attribute != "action" || !value.starts_with("//"), "{path}: a form is sent to {value}");
        }
    }
}

#[test]
fn a_page_that_runs_what_somebody_typed_is_noticed() {
    for bad in [
        "<main><script>alert(1)</script>",
        "<main><p onclick='x()'>",
        "<main><p style=\"color:red\">",
        "<main><a href=\"javascript:alert(1)\">",
        "<main><a href=\"//evil.test\">",
        "<main><input value=\"\" onmouseover=\"x\">",
        "<p>nothing</p>",
    ] {
        assert!(std::panic::catch_unwind(|| well_behaved("/", bad)).is_err(), "{bad}");
    }
    well_behaved("/", "<main><a href=\"/x\">&lt;script&gt;</a><script src=\"/s.js\" defer></script>");
    assert!(std::panic::catch_unwind(|| no_secret("/", "x sk_live_0123456789abcdef")).is_err());
    no_secret("/", "sk_live_…cdef");
}
