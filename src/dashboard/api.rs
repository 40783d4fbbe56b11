//! The management API, called in this process as a client would over the network.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::ServiceExt as _;
use zeroize::Zeroizing;

/// Bytes of an answer that is read whole: a thousand keys are less than one.
const LARGEST: usize = 32 << 20;

/// The API.
#[derive(Clone)]
pub struct Api(Router);

/// Why the API did not do something.
#[derive(Debug, Clone, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// A stable code.
    pub code: String,
    /// A sentence: what is wrong and what to do.
    pub detail: String,
    /// The offending field.
    pub field: Option<String>,
}

impl Problem {
    /// One that this program is to blame for; the log says how.
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a page could not be made");
        let detail = "This is a fault of Keyward; its log says more.".to_owned();
        Self { status: 500, code: "internal".into(), detail, field: None }
    }

    /// There is no such page, or none that this person could be told of.
    pub fn not_found() -> Self {
        let detail = "There is nothing here, or nothing that you may see.".to_owned();
        Self { status: 404, code: "not_found".into(), detail, field: None }
    }

    /// What this person may not do.
    pub fn forbidden() -> Self {
        let detail = "Nothing that you are lets you do this.".to_owned();
        Self { status: 403, code: "forbidden".into(), detail, field: None }
    }

    /// A form that cannot be understood.
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self { status: 400, code: "request_invalid".into(), detail: detail.into(), field: Some(field.to_owned()) }
    }

    /// Whether a person can do something about it by filling a form in differently.
    pub fn is_about_input(&self) -> bool {
        matches!(self.status, 400 | 409 | 412 | 413 | 422 | 429 | 503)
    }

    /// The same, or about what a form names and there is no more.
    pub fn is_about_input_or_gone(&self) -> bool {
        self.is_about_input() || self.status == 404
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// An answer with the version that it is of.
pub struct Versioned<T> {
    /// What was answered.
    pub body: T,
    /// To be given back with a change.
    pub version: String,
}

/// A call of the API that is being put together.
pub struct Call<'a> {
    api: &'a Api,
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
    address: IpAddr,
}

/// Who calls the API, and from where.
#[derive(Clone)]
pub struct Client {
    pub(super) api: Api,
    pub(super) token: Option<Zeroizing<String>>,
    pub(super) address: IpAddr,
}

/// A query's parameters.
pub type Query<'a> = [(&'a str, &'a str)];

impl Api {
    /// Over this router.
    pub fn new(router: Router) -> Self {
        Self(router)
    }
}

impl Client {
    /// Reads something. `path` is given in segments, which are encoded here.
    pub async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &Query<'_>) -> Result<T, Problem> {
        self.call(Method::GET, path, query).send().await
    }

    /// Reads something that has a version.
    pub async fn get_versioned<T: DeserializeOwned>(&self, path: &[&str]) -> Result<Versioned<T>, Problem> {
        let response = self.call(Method::GET, path, &[]).response().await?;
        let version = response.headers().get(ETAG).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        Ok(Versioned { body: read(response).await?, version })
    }

    /// Sends something.
    pub async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &Value) -> Result<T, Problem> {
        self.call(Method::POST, path, &[]).body(body).send().await
    }

    /// An answer as it is, to be passed on.
    pub async fn stream(&self, path: &[&str], query: &Query<'_>) -> Result<Response<Body>, Problem> {
        self.call(Method::GET, path, query).response().await
    }

    /// Any call.
    pub fn call(&self, method: Method, path: &[&str], query: &Query<'_>) -> Call<'_> {
        let mut target = String::from("/v1");
        for segment in path {
            target.push('/');
            target.extend(form_urlencoded::byte_serialize(segment.as_bytes()));
        }
        let given: Vec<_> = query.iter().filter(|(_, value)| !value.is_empty()).collect();
        if !given.is_empty() {
            target.push('?');
            target = form_urlencoded::Serializer::for_suffix(target.clone(), target.len())
                .extend_pairs(given.iter().copied())
                .finish();
        }
        let mut headers = HeaderMap::new();
        let bearer = self.token.as_ref().map(|token| Zeroizing::new(format!("Bearer {}", **token)));
        if let Some(mut value) = bearer.and_then(|text| HeaderValue::from_str(&text).ok()) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Call { api: &self.api, method, target, headers, body: Zeroizing::default(), address: self.address }
    }
}

impl Call<'_> {
    /// With a body.
    pub fn body(self, body: &Value) -> Self {
        let body = Zeroizing::new(serde_json::to_vec(body).unwrap_or_default());
        Self { body, ..self.header(CONTENT_TYPE.as_str(), "application/json") }
    }

    /// Only if what is changed is still of this version.
    pub fn if_match(self, version: &str) -> Self {
        if version.is_empty() { self } else { self.header(IF_MATCH.as_str(), version) }
    }

    /// Only once, however often it is sent under this name.
    pub fn once(self, name: &str) -> Self {
        if name.is_empty() { self } else { self.header("idempotency-key", name) }
    }

    /// With a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (axum::http::HeaderName::try_from(name), HeaderValue::from_str(value)) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Calls, and reads the answer.
    pub async fn send<T: DeserializeOwned>(self) -> Result<T, Problem> {
        read(self.response().await?).await
    }

    /// Calls, for an answer without a body.
    pub async fn done(self) -> Result<(), Problem> {
        self.response().await.map(drop)
    }

    /// Calls; an answer that is a success.
    pub async fn response(self) -> Result<Response<Body>, Problem> {
        let mut request = Request::new(Body::from(self.body.to_vec()));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.target.parse().map_err(|_| Problem::not_found())?;
        *request.headers_mut() = self.headers;
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(self.address, 0)));
        let Ok(response) = self.api.0.clone().oneshot(request).await;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let problem: Result<Problem, Problem> = read(response).await;
        let said = problem
            .map(|problem| Problem { detail: sentence(without(problem.field.as_deref(), &problem.detail)), ..problem });
        Err(said.unwrap_or_else(|_| Problem::internal(&format!("the API answered {status}"))))
    }
}

/// Adds a field to what is sent.
pub fn set(body: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(fields) = body.as_object_mut() {
        fields.insert(name.to_owned(), value.into());
    }
}

/// What the API says of a field, without the name that programs know the field by.
fn without<'a>(field: Option<&str>, said: &'a str) -> &'a str {
    field.and_then(|field| said.strip_prefix(field)?.strip_prefix(": ")).unwrap_or(said)
}

/// What the API says, as a sentence of a page: it says it to programs, without a capital. A file's name keeps its letters.
fn sentence(said: &str) -> String {
    let first = said.split(' ').next().unwrap_or_default();
    if said.contains('\n') || !first.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return said.to_owned();
    }
    let end = if said.ends_with(|last: char| last.is_alphanumeric() || last == ')') { "." } else { "" };
    let mut letters = said.chars();
    let capital = letters.next().map(|letter| letter.to_ascii_uppercase());
    capital.into_iter().chain(letters).chain(end.chars()).collect()
}

async fn read<T: DeserializeOwned>(response: Response<Body>) -> Result<T, Problem> {
    let bytes = to_bytes(response.into_body(), LARGEST).await.map_err(|error| Problem::internal(&error))?;
    serde_json::from_slice(&bytes).map_err(|error| Problem::internal(&error))
}

#[cfg(test)]
mod tests {
    use super::{sentence, without};

    #[test]
    fn what_the_api_says_is_a_sentence_on_a_page() {
        for (said, expected) in [
            ("there is no such key", "There is no such key."),
            ("no policy lets you do this (getFigures)", "No policy lets you do this (getFigures)."),
            ("Too late. Wait.", "Too late. Wait."),
            ("policies/a.cedar: the file is empty", "policies/a.cedar: the file is empty"),
            ("error: a\n  b", "error: a\n  b"),
            ("", ""),
        ] {
            assert_eq!(sentence(said), expected);
        }
        let said = "scopes: a restricted key needs at least one scope";
        assert_eq!(sentence(without(Some("scopes"), said)), "A restricted key needs at least one scope.");
        assert_eq!(without(Some("name"), said), said);
    }
}
