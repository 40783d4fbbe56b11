//! A client of the management API: asks, tries again where that is safe, and makes problems failures.
//!
//! It knows paths, pages and problem documents. What an answer means is the commands' business.

use std::io::Write;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::terminal::{escaped, items, text};
use super::{CONFLICT, Failure, NO_SUCH_THING, NOT_ALLOWED, NOT_SIGNED_IN, UNAVAILABLE};
use crate::http::names::REQUEST_ID;
use crate::outbound;

const CONNECT: Duration = Duration::from_secs(5);
/// For the daemon to say something, at the beginning and between two parts of an answer.
const SILENCE: Duration = Duration::from_secs(30);
/// Times that a request is sent while the daemon says that it may be tried again.
const TRIES: u32 = 4;
/// The daemon may ask to wait so long; a longer wait is left to whoever asked.
const LONGEST_WAIT: u64 = 10;
/// Items of a page: as many as there may be.
const PAGE: usize = 1_000;

/// Speaks to one daemon, for one person or for nobody.
pub(super) struct Client {
    runtime: Runtime,
    http: reqwest::Client,
    base: Url,
    token: Option<HeaderValue>,
}

/// The segments of a path below `/v1`, as they are: they are encoded here.
pub(super) type Path<'a> = &'a [&'a str];
/// Parameters of a query.
pub(super) type Query<'a> = [(&'a str, String)];

/// Whether a request may be sent once more when the connection broke before the end of its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    Harmless,
    Unknown,
}

/// Why there is no answer.
enum Stop {
    /// The connection broke: what was asked for may be done.
    Broken(reqwest::Error),
    /// It is not done.
    Failed(Failure),
}

impl Client {
    pub(super) fn new(base: Url, token: Option<HeaderValue>) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let is_plain = base.scheme() == "http";
        let http = if is_plain { outbound::plain() } else { outbound::trusting_the_system() };
        let http = http
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build()
            .map_err(|error| Failure::new(escaped(&outbound::why(&error))))?;
        Ok(Self { runtime, http, base, token })
    }

    /// Looks at something.
    pub(super) fn get(&self, path: Path<'_>, query: &Query<'_>) -> Result<Value, Failure> {
        let request = self.request(Method::GET, path)?.query(query);
        self.answer(&request, Again::Harmless)
    }

    /// A whole list, from all its pages, or its first `most` items.
    pub(super) fn list(&self, path: Path<'_>, query: &Query<'_>, most: usize) -> Result<Value, Failure> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        while items.len() < most {
            let limit = PAGE.min(most - items.len()).to_string();
            let place = after.take().map(|after| ("after", after));
            let query: Vec<_> = query.iter().cloned().chain([("limit", limit)]).chain(place).collect();
            let mut page = self.get(path, &query)?;
            let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) else { return Err(self.stranger()) };
            after = page.get("next").and_then(Value::as_str).map(str::to_owned);
            let is_last = after.is_none() || more.is_empty();
            items.extend(more);
            if is_last {
                break;
            }
        }
        Ok(json!({ "items": items }))
    }

    /// What there is of this in all accounts that the person may see: of the whole installation for those who may see that, else
    /// account by account.
    pub(super) fn list_seen(&self, what: &str, query: &Query<'_>, most: usize) -> Result<Vec<Value>, Failure> {
        match self.list(&[what], query, most) {
            Err(failure) if failure.code == NOT_ALLOWED => {}
            whole => return Ok(items(&whole?).to_vec()),
        }
        let mut seen = Vec::new();
        for account in items(&self.list(&["accounts"], &[], usize::MAX)?) {
            let list = self.list(&["accounts", &text(account, "/id"), what], query, most)?;
            seen.extend_from_slice(items(&list));
        }
        Ok(seen)
    }

    /// Changes something.
    pub(super) fn send(&self, method: Method, path: Path<'_>, body: Option<&Value>) -> Result<Value, Failure> {
        let request = self.request(method, path)?;
        let request = if let Some(body) = body { request.json(body) } else { request };
        self.answer(&request, Again::Unknown)
    }

    /// Asks something that is too much for a query, as this JSON; nothing is changed.
    pub(super) fn ask(&self, path: Path<'_>, body: &Value) -> Result<Value, Failure> {
        let request = self.request(Method::POST, path)?.json(body);
        self.answer(&request, Again::Harmless)
    }

    /// Makes something, once, although it may have to be asked for again.
    pub(super) fn create(&self, path: Path<'_>, body: &Value) -> Result<Value, Failure> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let once = format!("{:032x}", u128::from_be_bytes(random));
        let request = self.request(Method::POST, path)?.json(body).header("idempotency-key", once);
        self.answer(&request, Again::Harmless)
    }

    /// Copies an answer while it comes.
    pub(super) fn copy(&self, path: Path<'_>, out: &mut dyn Write) -> Result<(), Failure> {
        let request = self.request(Method::GET, path)?;
        self.runtime.block_on(async {
            let mut response = self.good(&request).await.map_err(|stop| self.failure(stop))?;
            while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(&error))? {
                out.write_all(&chunk).map_err(|error| Failure::of_output(&error))?;
            }
            out.flush().map_err(|error| Failure::of_output(&error))
        })
    }

    fn request(&self, method: Method, path: Path<'_>) -> Result<RequestBuilder, Failure> {
        // They would be taken for steps within the path, and another thing be meant.
        if let Some(odd) = path.iter().find(|segment| matches!(**segment, "" | "." | "..")) {
            return Err(Failure::of(NO_SUCH_THING, format!("there is nothing of the name `{odd}`")));
        }
        let mut url = self.base.clone();
        let segments = url.path_segments_mut().map(|mut segments| {
            segments.pop_if_empty().push("v1").extend(path);
        });
        segments.map_err(|()| Failure::new("this address has no paths"))?;
        let request = self.http.request(method, url);
        Ok(match &self.token {
            Some(token) => request.header(AUTHORIZATION, token.clone()),
            None => request,
        })
    }

    fn answer(&self, request: &RequestBuilder, again: Again) -> Result<Value, Failure> {
        let (status, bytes) = self.runtime.block_on(async {
            match self.whole(request).await {
                Err(Stop::Broken(_)) if again == Again::Harmless => self.whole(request).await,
                done => done,
            }
            .map_err(|stop| self.failure(stop))
        })?;
        if status == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|_| self.stranger())
    }

    /// The answer to its end: a token in it must not be lost half-way.
    async fn whole(&self, request: &RequestBuilder) -> Result<(StatusCode, Vec<u8>), Stop> {
        let response = self.good(request).await?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(Stop::Broken)?;
        Ok((status, bytes.into()))
    }

    /// The beginning of the answer of a request that is done. Where the daemon asks to wait, it is asked again.
    async fn good(&self, request: &RequestBuilder) -> Result<Response, Stop> {
        let mut tries = 0;
        loop {
            tries += 1;
            let request = request.try_clone().ok_or_else(|| Stop::Failed(Failure::new("this cannot be sent")))?;
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) if error.is_connect() => return Err(Stop::Failed(self.unreachable(&error))),
                Err(error) => return Err(Stop::Broken(error)),
            };
            if response.status().is_success() {
                return Ok(response);
            }
            match response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok()) {
                Some(seconds @ ..=LONGEST_WAIT) if tries < TRIES => {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
                _ => return Err(Stop::Failed(self.refused(response).await)),
            }
        }
    }

    fn failure(&self, stop: Stop) -> Failure {
        match stop {
            Stop::Broken(error) => self.broken(&error),
            Stop::Failed(failure) => failure,
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let (base, why) = (&self.base, escaped(&outbound::why(error)));
        let hint = if why.contains("certificate") {
            "name the certificates to trust in SSL_CERT_FILE, or say where the daemon is with --url or KEYWARD_URL"
        } else {
            "start the daemon with `keyward serve`, or say where it is with --url or KEYWARD_URL"
        };
        Failure::of(UNAVAILABLE, format!("no daemon can be reached at {base} ({why}); {hint}"))
    }

    fn broken(&self, error: &reqwest::Error) -> Failure {
        let (base, why) = (&self.base, escaped(&outbound::why(error)));
        let say = format!("{base} did not answer to the end ({why}); look whether it is done before you try again");
        Failure::of(UNAVAILABLE, say)
    }

    fn stranger(&self) -> Failure {
        Failure::of(
            UNAVAILABLE,
            format!("{} answers, and not as Keyward's management API does; is it the admin listener?", self.base),
        )
    }

    /// What a problem document says, and the exit code that goes with it.
    async fn refused(&self, response: Response) -> Failure {
        let status = response.status();
        let header = response.headers().get(REQUEST_ID).and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let problem: Value = response.json().await.unwrap_or_default();
        let part = |name: &str| problem.get(name).and_then(Value::as_str).map(escaped);
        // Another listener of ours knows none of these paths.
        let (Some(detail), Some(code)) = (part("detail"), part("code").filter(|code| code != "no_route")) else {
            return Failure { message: format!("{status}: {}", self.stranger().message), code: UNAVAILABLE };
        };
        let field = part("field").filter(|field| !detail.starts_with(&format!("{field}:")));
        let field = field.map(|field| format!("{field}: ")).unwrap_or_default();
        let request = part("request_id").or(header).map(|id| format!(", request {id}")).unwrap_or_default();
        let exit = match status {
            StatusCode::UNAUTHORIZED => NOT_SIGNED_IN,
            StatusCode::FORBIDDEN => NOT_ALLOWED,
            StatusCode::NOT_FOUND => NO_SUCH_THING,
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => CONFLICT,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => UNAVAILABLE,
            _ => super::FAILED,
        };
        Failure::of(exit, format!("{field}{detail}\n  ({} {code}{request})", status.as_u16()))
    }
}
