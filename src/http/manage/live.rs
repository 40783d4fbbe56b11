//! Decisions as they are made, over HTTP: server-sent events, for whoever looks on.
//!
//! A reader hears what the recorder takes in, once it was answered for: no decision waits for one, and a reader that is
//! too slow is told how many it has missed. An answer ends by itself, so that whoever goes on looking is authorized anew.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Response};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};
use utoipa::IntoParams;

use super::decisions::{OutcomeName, recorder, whose};
use super::input::{Params, single};
use super::refusal::{Refusal, Refusals};
use super::{Caller, Shared};
use crate::http::serve::Lasting;
use crate::key::Mode;
use crate::recorded::{Filter, Following, Record, RecordId, Told};

/// Readers at a time.
pub const READERS: usize = 64;
/// How long an answer lasts.
const LASTS: Duration = Duration::from_mins(10);
/// After so long without a decision a comment is sent, so that nobody takes the connection for dead.
const QUIET: Duration = Duration::from_secs(15);
/// Decisions that a reader may have missed and is given at once.
const CAUGHT_UP: usize = 1_000;

/// Which decisions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct WatchFilter {
    /// Those with this key: `key_…`.
    key: Option<String>,
    /// Those with a key of this account: `acct_…`.
    account: Option<String>,
    /// Those with a key of this mode: `live` or `test`.
    mode: Option<Mode>,
    #[param(inline)]
    outcome: Option<OutcomeName>,
}

/// Decisions as they are made, as server-sent events: `decision`, with its id and the decision as JSON; and `dropped`, with
/// the `count` of decisions that the reader was too slow for. It ends after ten minutes: come again, with the id of the
/// last one as `Last-Event-ID`, as browsers do.
#[utoipa::path(
    get, path = "/v1/decisions/live", tag = "decisions", operation_id = "watchDecisions",
    params(WatchFilter, ("Last-Event-ID" = Option<String>, Header, description = "Those behind this one: `dec_…`")),
    responses((status = 200, body = String, content_type = "text/event-stream"), Refusals)
)]
pub(super) async fn watch_decisions(
    State(manage): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    Params(given): Params<WatchFilter>,
) -> Result<Response<Body>, Refusal> {
    let filter = whose(&manage, &caller, given.key.as_deref(), given.account.as_deref())?;
    let filter = Filter { mode: given.mode, outcome: given.outcome.map(Into::into), ..filter };
    let recorder = recorder(&manage)?;
    let after = single(&headers, "Last-Event-ID")?.map(|id| id.parse::<RecordId>()).transpose();
    let after = after.map_err(|error| Refusal::invalid(Some("Last-Event-ID"), error.to_string()))?;
    let place = Arc::clone(&manage.readers).try_acquire_owned().map_err(|_| {
        super::users::too_busy(&format_args!("{READERS} others are looking on; come again in a moment"))
    })?;
    // All that is recorded may have to be looked at.
    let looked = tokio::task::spawn_blocking(move || {
        let following = recorder.follow(&filter, after, CAUGHT_UP);
        (following, filter)
    });
    let (following, filter) = looked.await.map_err(|error| Refusal::internal(&error))?;
    let watching = Watching::new(following, filter, manage.stop.clone(), place);
    let events = futures_util::stream::unfold(watching, async |mut watching| {
        let text = watching.next().await?;
        Some((Ok::<_, std::convert::Infallible>(text), watching))
    });
    let mut response = Response::new(Body::from_stream(events));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.extensions_mut().insert(Lasting(LASTS));
    Ok(response)
}

/// One who looks on.
struct Watching {
    following: Following,
    filter: Filter,
    ends: Instant,
    /// When something has to be said again.
    speaks: Instant,
    /// How long nothing need be said.
    quiet: Duration,
    stop: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Watching {
    fn new(following: Following, filter: Filter, stop: watch::Receiver<bool>, place: OwnedSemaphorePermit) -> Self {
        let now = Instant::now();
        Self { following, filter, ends: now + LASTS, speaks: now, quiet: QUIET, stop, _place: place }
    }

    /// What is sent next; nothing more once the time is over or the daemon ends.
    async fn next(&mut self) -> Option<String> {
        let text = self.found().await?;
        self.speaks = Instant::now() + self.quiet;
        Some(text)
    }

    async fn found(&mut self) -> Option<String> {
        let mut text = String::new();
        write_dropped(&mut text, std::mem::take(&mut self.following.missed));
        write_all(&mut text, &std::mem::take(&mut self.following.before));
        while text.is_empty() {
            let heard = tokio::select! {
                biased;
                _ = self.stop.wait_for(|stop| *stop) => return None,
                () = sleep_until(self.ends) => return None,
                heard = self.following.heard.recv() => Some(heard),
                () = sleep_until(self.speaks) => None,
            };
            match heard {
                None => text.push_str(": looking on\n\n"),
                Some(Ok(records)) => self.write(&mut text, &records),
                // How many these were is known with the next ones.
                Some(Err(RecvError::Lagged(_))) => {}
                Some(Err(RecvError::Closed)) => return None,
            }
        }
        Some(text)
    }

    fn write(&mut self, text: &mut String, records: &[Record]) {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
        // Places follow each other without a gap.
        write_dropped(text, first.id().0.saturating_sub(self.following.last.0.saturating_add(1)));
        self.following.last = last.id();
        write_all(text, records.iter().filter(|record| self.filter.takes(record)));
    }
}

fn write_all<'r>(text: &mut String, records: impl IntoIterator<Item = &'r Record>) {
    for told in records.into_iter().map(Told::from) {
        // JSON has its line breaks escaped. Writing to a string cannot fail.
        let data = serde_json::to_string(&told).unwrap_or_default();
        let _ = write!(text, "id: {}\nevent: decision\ndata: {data}\n\n", told.id);
    }
}

fn write_dropped(text: &mut String, count: u64) {
    if count > 0 {
        let _ = write!(text, "event: dropped\ndata: {{\"count\":{count}}}\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::credentials::Credentials;
    use crate::authorize::{Call, Caller as Calling, RequestLine, Stated, Transport, authorize};
    use crate::recorded::Recorder;

    #[tokio::test]
    async fn a_reader_that_is_too_slow_is_told_how_many_it_missed_and_is_sent_away_in_the_end() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let bundle = crate::policy::Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap();
        let revision = Arc::new(crate::policy::Revision::build(&bundle).unwrap());
        let recorder = Recorder::new(1_000, prometheus::IntCounter::new("dropped", "dropped").unwrap());
        let offer = |method: &str| {
            let call = Call {
                credentials: Credentials::None,
                transport: Transport::Secure,
                address: None,
                line: Some(RequestLine { method, target: "/v1/resources" }),
                stated: Stated { item: None, environment: None },
            };
            recorder.offer(authorize(&call, Calling::Anonymous, &revision, jiff::Timestamp::now()), &call, "r");
            recorder.len()
        };
        offer("GET");
        let first = recorder.page(&Filter::default(), None, 1)[0].id();
        offer("GET");
        let (tell_stop, stop) = watch::channel(false);
        let places = Arc::new(tokio::sync::Semaphore::new(1));
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        let following = recorder.follow(&Filter::default(), Some(first), 10);
        let mut watching = Watching::new(following, Filter::default(), stop, place);
        watching.quiet = Duration::ZERO;
        let told = |text: &str, word: &str| text.matches(word).count();
        let text = watching.next().await.unwrap();
        assert_eq!((told(&text, "event: decision"), text.starts_with("id: dec_")), (1, true), "{text}");
        // More batches than a listener may be behind.
        assert!((0..200).all(|_| offer("GET") > 0));
        let (mut dropped, mut heard) = (0, 0);
        while heard + dropped < 200 {
            let text = watching.next().await.unwrap();
            heard += told(&text, "event: decision");
            let count = text.split_once("{\"count\":").and_then(|(_, rest)| rest.split_once('}'));
            dropped += count.map_or(0, |(count, _)| count.parse::<usize>().unwrap());
        }
        assert!(dropped > 0 && heard > 0 && dropped + heard == 200, "{dropped} {heard}");
        let text = watching.next().await.unwrap();
        assert!(text.starts_with(": "), "nothing more is decided: {text}");
        watching.ends = Instant::now();
        assert_eq!(watching.next().await, None);
        drop((watching, tell_stop));
        assert_eq!(places.available_permits(), 1);
    }
}
