//! Tells a receiver what happened: follows the event trail, and sends each event, signed, until the receiver has it.
//!
//! Events are sent in their order, one at a time, and at least once: how far the receiver has come is kept in the
//! store, and what was on the way when the daemon ended is sent again, under the same id. Nothing waits for it. It
//! decides nothing, and tells only what is on disk.

mod signature;

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use jiff::{SignedDuration, Timestamp};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response, StatusCode, Url};
use serde::Serialize;
use tokio::sync::watch;

pub use self::signature::SecretError;
use self::signature::Secrets;
use crate::ledger::{About, Ledger, LedgerError};
use crate::metrics;
use crate::store::Order;
use crate::trail::{Event, EventId, Happened};
use crate::{config, outbound};

/// Events that are read at a time.
const PAGE: usize = 100;
/// The first time to wait for a receiver that did not take an event; each next one is twice as long. To each is added as
/// much again at most, at random, so that many daemons do not ask at once.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// The longest, with what is added to it.
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// How far the receiver has come is written this often, and whenever it has everything.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read, so that the connection can be used again.
const LONGEST_ANSWER: usize = 64 * 1024;
/// The name of its cursor.
const CURSOR: &str = "webhook";

/// Why events cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The secrets.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The client, or the address, which the configuration has checked.
    #[error("`webhook`: {0}")]
    Client(String),
}

/// A receiver, and what it wants to know.
pub struct Webhook {
    client: Client,
    url: Url,
    secrets: Secrets,
    wanted: Vec<Happened>,
    give_up_after: SignedDuration,
    figures: metrics::Webhook,
}

/// What is sent, as Standard Webhooks has it.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    happened: Happened,
    timestamp: Timestamp,
    data: Data<'a>,
}

/// The event, as the management API shows it.
#[derive(Serialize)]
struct Data<'a> {
    id: EventId,
    #[serde(flatten)]
    event: &'a Event,
}

/// The daemon ends.
struct Stopped;

impl Webhook {
    /// The configured receiver, if one is.
    ///
    /// # Errors
    /// [`WebhookError`] when there is nothing to sign with.
    pub fn new(config: &config::Webhook, figures: metrics::Webhook) -> Result<Option<Self>, WebhookError> {
        let (Some(url), Some(secrets)) = (&config.url, &config.secret_file) else { return Ok(None) };
        let url = Url::parse(url).map_err(|error| WebhookError::Client(error.to_string()))?;
        let is_plain = url.scheme() == "http";
        let client = if is_plain { outbound::plain() } else { outbound::trusting_the_system() };
        let client = client.timeout(Duration::from_secs(config.timeout_secs)).build();
        Ok(Some(Self {
            client: client.map_err(|error| WebhookError::Client(outbound::why(&error)))?,
            url,
            secrets: Secrets::read(secrets)?,
            wanted: config.events.iter().filter_map(|name| Happened::named(name)).collect(),
            give_up_after: SignedDuration::from_secs(i64::try_from(config.give_up_after_secs).unwrap_or(i64::MAX)),
            figures,
        }))
    }

    /// Sends what happens, until `stop` turns true. A receiver that is new is told what happens from now on.
    pub async fn run(self, ledger: Ledger, mut stop: watch::Receiver<bool>) {
        tracing::info!(receiver = self.url.host_str(), "events are sent to the webhook's receiver");
        let (mut waits, mut progress) = (waits(), None);
        loop {
            match self.follow(&ledger, &mut progress, &mut stop).await {
                Ok(Stopped) => return,
                Err(error) => tracing::error!(error, "the events for the webhook cannot be read; trying again"),
            }
            if pause(waits.next(), &mut stop).await.is_err() {
                return;
            }
        }
    }

    /// `progress` is what is known of the receiver when it begins, and when it ends: a store that takes no writes is no reason to
    /// send again what the receiver has.
    async fn follow(
        &self,
        ledger: &Ledger,
        progress: &mut Option<Progress>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Stopped, String> {
        let mut durable = ledger.durable();
        let progress = match progress {
            Some(progress) => progress,
            None => progress.insert(Progress::of(beginning(ledger).await?)),
        };
        loop {
            let last = *durable.borrow_and_update();
            let events = read(ledger, progress.at).await?.into_iter().take_while(|(id, _)| id.0.commit <= last);
            let events: Vec<_> = events.collect();
            let is_quiet = events.is_empty();
            for (id, event) in events {
                let is_wanted = self.wanted.is_empty() || self.wanted.contains(&event.happened);
                if is_wanted && self.deliver(id, &event, stop).await.is_err() {
                    progress.keep(ledger).await?;
                    return Ok(Stopped);
                }
                progress.at = Some(id);
                if progress.kept_when.elapsed() >= KEEP_EVERY {
                    progress.keep(ledger).await?;
                }
            }
            if is_quiet {
                progress.keep(ledger).await?;
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return Ok(Stopped),
                    changed = durable.changed() => if changed.is_err() { return Ok(Stopped) },
                }
            }
        }
    }

    /// Sends one event until the receiver has it, or it is too old to go on.
    async fn deliver(&self, id: EventId, event: &Event, stop: &mut watch::Receiver<bool>) -> Result<(), Stopped> {
        let message = Message { happened: event.happened, timestamp: event.at, data: Data { id, event } };
        // Invariant: strings, numbers and a map with text for keys; serialising them cannot fail.
        let body = serde_json::to_vec(&message).unwrap_or_default();
        self.figures.waiting_since.set(event.at.as_second());
        let (id, mut waits) = (id.to_string(), waits());
        loop {
            let sent = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Err(Stopped),
                sent = self.send(&id, &body) => sent,
            };
            let Err(why) = sent else {
                self.figures.delivered.inc();
                break;
            };
            self.figures.failed.inc();
            if Timestamp::now().duration_since(event.at) >= self.give_up_after {
                self.figures.given_up.inc();
                tracing::error!(
                    event = id,
                    why,
                    "the webhook's receiver will not have this event: it is too old to go on trying"
                );
                break;
            }
            tracing::warn!(event = id, why, "the webhook's receiver did not take an event; trying again");
            pause(waits.next(), stop).await?;
        }
        self.figures.waiting_since.set(0);
        Ok(())
    }

    /// Sends a message once; why the receiver does not have it.
    async fn send(&self, id: &str, body: &[u8]) -> Result<(), String> {
        let timestamp = Timestamp::now().as_second();
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        let request = request.header("webhook-id", id).header("webhook-timestamp", timestamp);
        let request = request.header("webhook-signature", self.secrets.sign(id, timestamp, body)).body(body.to_owned());
        let response = request.send().await.map_err(|error| outbound::why(&error))?;
        let status = response.status();
        drain(response).await;
        if status.is_success() { Ok(()) } else { Err(refused(status)) }
    }
}

fn refused(status: StatusCode) -> String {
    let hint = if status.is_redirection() { "; redirects are not followed" } else { "" };
    format!("it answered {status}{hint}")
}

async fn drain(mut response: Response) {
    let mut left = LONGEST_ANSWER;
    while let Ok(Some(chunk)) = response.chunk().await {
        match left.checked_sub(chunk.len()) {
            Some(less) => left = less,
            None => return,
        }
    }
}

/// Times to wait, each about twice as long as the one before, without end.
fn waits() -> impl Iterator<Item = Duration> {
    let waits = ExponentialBuilder::default().with_min_delay(SHORTEST_WAIT).with_max_delay(LONGEST_WAIT / 2);
    waits.with_jitter().without_max_times().build()
}

async fn pause(time: Option<Duration>, stop: &mut watch::Receiver<bool>) -> Result<(), Stopped> {
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => Err(Stopped),
        () = tokio::time::sleep(time.unwrap_or(LONGEST_WAIT)) => Ok(()),
    }
}

/// Forgets how far a receiver has come, when there is none any more: another one is not told of what was between.
///
/// # Errors
/// When the store cannot be written.
pub fn forget(ledger: &Ledger) -> Result<(), LedgerError> {
    ledger.keep_cursor(CURSOR, None)
}

/// How far the receiver has come: what happened before it was one is not for it.
async fn beginning(ledger: &Ledger) -> Result<Option<EventId>, String> {
    on_disk(ledger, |ledger| {
        if let Some(cursor) = ledger.cursor(CURSOR)? {
            return Ok(Some(cursor));
        }
        let newest = ledger.events(About::Everything, None, Order::Descending, 1)?.first().map(|(id, _)| *id);
        ledger.keep_cursor(CURSOR, newest)?;
        Ok(newest)
    })
    .await
}

async fn read(ledger: &Ledger, after: Option<EventId>) -> Result<Vec<(EventId, Event)>, String> {
    on_disk(ledger, move |ledger| ledger.events(About::Everything, after, Order::Ascending, PAGE)).await
}

/// How far the receiver has come, and how much of that the store knows.
struct Progress {
    at: Option<EventId>,
    kept: Option<EventId>,
    kept_when: Instant,
}

impl Progress {
    fn of(kept: Option<EventId>) -> Self {
        Self { at: kept, kept, kept_when: Instant::now() }
    }

    async fn keep(&mut self, ledger: &Ledger) -> Result<(), String> {
        let at = self.at;
        if at != self.kept {
            on_disk(ledger, move |ledger| ledger.keep_cursor(CURSOR, at)).await?;
            (self.kept, self.kept_when) = (at, Instant::now());
        }
        Ok(())
    }
}

async fn on_disk<T: Send + 'static>(
    ledger: &Ledger,
    work: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, String> {
    let ledger = ledger.clone();
    match tokio::task::spawn_blocking(move || work(&ledger)).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use axum::Router;
    use axum::http::HeaderMap;
    use axum::routing::post;
    use tokio::sync::mpsc;

    use super::*;
    use crate::key::Cost;
    use crate::metrics::Metrics;
    use crate::store::examples::Failing;
    use crate::store::{SledStore, Table};
    use crate::trail::By;

    /// A receiver that takes everything: its address, and the ids of what it has taken.
    async fn receiver() -> (String, mpsc::UnboundedReceiver<String>) {
        let (sender, taken) = mpsc::unbounded_channel();
        let take = move |headers: HeaderMap| {
            let id = headers["webhook-id"].to_str().unwrap().to_owned();
            sender.send(id).unwrap();
            std::future::ready(())
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, Router::new().route("/", post(take))).await.unwrap() });
        (url, taken)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_that_takes_no_writes_is_no_reason_to_send_anything_twice() {
        let folder = tempfile::tempdir().unwrap();
        let (is_full, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (full, count) = (Arc::clone(&is_full), Arc::clone(&refused));
        let store = SledStore::open(&folder.path().join("store")).unwrap();
        let ledger = Ledger::load(Arc::new(Failing::new(store, move |batch| {
            let is_cursor = batch.changes().iter().any(|change| change.table == Table::CURSORS);
            let fails = is_cursor && full.load(Ordering::SeqCst);
            count.fetch_add(usize::from(fails), Ordering::SeqCst);
            fails
        })));
        let ledger = ledger.unwrap();
        let cost = Cost { memory_kib: 8, iterations: 1, parallelism: 1 };
        let make = || drop(ledger.create_account("Vexart", cost, None, &By::console(Timestamp::now())).unwrap());
        make();
        let (url, mut taken) = receiver().await;
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let config = config::Webhook { url: Some(url), secret_file: Some(secret), ..config::Webhook::default() };
        let metrics = Metrics::new([("allow", "allowed")]).unwrap();
        let webhook = Webhook::new(&config, metrics.webhook.clone()).unwrap().unwrap();
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(webhook.run(ledger.clone(), stopped));
        let mut every = tokio::time::interval(Duration::from_millis(5));
        for _ in 0..4_000 {
            if ledger.cursor(CURSOR).unwrap().is_some() {
                break;
            }
            every.tick().await;
        }
        assert!(ledger.cursor(CURSOR).unwrap().is_some(), "the webhook never began");
        is_full.store(true, Ordering::SeqCst);
        let mut ids = BTreeSet::new();
        for round in 1..=2 {
            make();
            let last = ledger.events(About::Everything, None, Order::Descending, 1).unwrap()[0].0.to_string();
            while !ids.contains(&last) {
                let id = tokio::time::timeout(Duration::from_secs(20), taken.recv()).await.expect("nothing is sent");
                assert!(ids.insert(id.unwrap()), "an event was sent twice, in round {round}");
            }
            for _ in 0..4_000 {
                if refused.load(Ordering::SeqCst) >= round {
                    break;
                }
                every.tick().await;
            }
            assert!(refused.load(Ordering::SeqCst) >= round, "the store was not asked to keep how far the receiver is");
        }
        stop.send_replace(true);
        running.await.unwrap();
    }

    #[test]
    fn a_receiver_that_is_away_is_asked_ever_more_seldom_and_without_end() {
        let waits: Vec<Duration> = waits().take(5_000).collect();
        for (at, wait) in waits.iter().enumerate() {
            let doubled = SHORTEST_WAIT.saturating_mul(1 << at.min(20)).min(LONGEST_WAIT / 2);
            assert!((doubled..=2 * doubled).contains(wait), "{at}: {wait:?}");
        }
        assert_eq!(waits.len(), 5_000);
    }
}
