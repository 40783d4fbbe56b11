//! The daemon: the parts put together from the configuration, started in order, stopped in order.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{self, JoinHandle, JoinSet};

use crate::activate::vet::Vetter;
use crate::activate::{self, Activator};
use crate::audit::{DecisionLog, LogError, WhenFull};
use crate::authorize::verdict::Reason;
use crate::child::Child;
use crate::config::{self, Config};
use crate::dashboard::Dashboard;
use crate::examine::Examiner;
use crate::http::hosts::Hosts;
use crate::http::manage::{self, Manage};
use crate::http::serve::{Limits, Server};
use crate::http::{Admin, Decision, descriptors};
use crate::ledger::{Exposure, Ledger, LedgerError};
use crate::metrics::Metrics;
use crate::pdp::Pdp;
use crate::recorded::Recorder;
use crate::shadow::Shadow;
use crate::store::{SledStore, Store, StoreError};
use crate::trail::By;
use crate::verifier::Verifier;
use crate::webhook::{self, Webhook, WebhookError};

/// Connections to the admin listener at a time: scrapers and people.
const ADMIN_CONNECTIONS: usize = 64 + manage::READERS;
/// The file of recorded decisions, in the data folder.
const RECORDED: &str = "recorded-decisions";
/// Descriptors besides connections: the store, the logs, the watchers.
const SPARE_DESCRIPTORS: u64 = 128;

/// Why the daemon did not start. Nothing listens then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys in the store.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The policies.
    #[error(transparent)]
    Activate(#[from] activate::StartError),
    /// The decision log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The webhook.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// An address cannot be listened on.
    #[error("`{key}`: {address} cannot be listened on: {error}. Is another keyward running? Choose another address.")]
    Listen {
        /// The configuration's key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The program contradicts itself.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Why the daemon ended, where nobody asked it to.
#[derive(Debug, thiserror::Error)]
#[error("a part of the daemon ended, and so the daemon did ({part}): {why}. Start it again, and report this.")]
pub struct EndError {
    part: &'static str,
    why: String,
}

/// A daemon that serves.
pub struct Daemon {
    /// Where decisions are asked for; the port is a real one even when 0 was configured.
    pub decision_addr: SocketAddr,
    /// Where the admin listener is.
    pub admin_addr: SocketAddr,
    /// Decides, and holds accounts and keys.
    pub pdp: Arc<Pdp>,
    /// The open store.
    pub store: Arc<dyn Store>,
    /// Turns true when the daemon is to end, or has to.
    stopping: watch::Receiver<bool>,
    /// Ends when all parts have.
    parts: JoinHandle<Result<(), EndError>>,
    log: Option<Arc<DecisionLog>>,
    recorder: Arc<Recorder>,
    /// Where what was recorded survives a restart.
    recorded: PathBuf,
    deadline: Duration,
}

impl Daemon {
    /// Opens the store, loads the keys, brings the policies into force, and listens, in this order: whoever is
    /// answered is answered by a whole daemon. It serves until `asked` turns true.
    ///
    /// # Errors
    /// [`StartError`]; nothing listens then.
    pub async fn start(config: &Config, asked: watch::Receiver<bool>) -> Result<Self, StartError> {
        let (stopper, stop) = watch::channel(false);
        let decision_listener = listen("decision.addr", config.decision.addr).await?;
        let admin_listener = listen("admin.addr", config.admin.addr).await?;
        let (decision_addr, admin_addr) = (address(&decision_listener)?, address(&admin_listener)?);

        let metrics = Metrics::new(Reason::ALL.iter().map(|reason| (reason.outcome().as_str(), reason.as_str())))
            .map_err(|error| StartError::Internal(error.to_string()))?;
        let metrics = Arc::new(metrics);
        let log = open_log(&config.decision_log, &metrics)?;
        let webhook = Webhook::new(&config.webhook, metrics.webhook.clone())?;
        let store: Arc<dyn Store> = Arc::new(open_store(config.data_dir.clone()).await?);
        let loading = Arc::clone(&store);
        let ledger = tokio::task::spawn_blocking(move || Ledger::load(loading))
            .await
            .map_err(|error| StartError::Internal(error.to_string()))??;
        let settings = activate::Settings {
            schemas: config.schemas_dir.clone(),
            policies: config.policies_dir.clone(),
            config: config.policies.clone(),
        };
        let examiner = Examiner::new(Child::of_this_program(), &config.policies).await;
        match examiner.missing() {
            Some(missing) => tracing::warn!("guarantees are enforced and not proven: {missing}"),
            None => tracing::info!(solver = examiner.solver_told(), "a solver is there"),
        }
        let vetter = Vetter::of_this_program();
        let activator = Activator::start(settings, vetter, examiner, ledger.clone(), Arc::clone(&metrics));
        let activator = Arc::new(activator.await?);
        let verifier =
            Verifier::new(config.argon2.running(), config.argon2.queue, config.argon2.ceiling(), Arc::clone(&metrics));
        let exposure = match config.decision.when_exposed {
            config::WhenExposed::Revoke => Exposure::Kills,
            config::WhenExposed::Flag => Exposure::Flags,
        };
        let (current, staleness) = (activator.current(), activator.staleness());
        let pdp = Arc::new(Pdp::new(ledger, current, Arc::clone(&staleness), verifier, Arc::clone(&metrics), exposure));

        let recorder = Recorder::new(config.recorded.decisions, metrics.recorded_dropped.clone());
        let recorded = config.data_dir.join(RECORDED);
        restore_recorded(&recorder, &recorded).await;
        recorder.start().map_err(|error| StartError::Internal(error.to_string()))?;

        let shadow = Shadow::new(
            [&config.schemas_dir, &config.policies_dir],
            Vetter::of_this_program(),
            activator.current(),
            Arc::clone(&recorder),
            config.policies.shadow_one_in,
            &metrics,
        );

        raise_descriptors(&config.limits);
        let (limits, deadline) = (Limits::from(&config.limits), config.shutdown_deadline());
        let decision = Decision::new(Arc::clone(&pdp), &config.decision, log.clone(), Arc::clone(&recorder));
        let decision = decision.router(config.limits.body_bytes);
        let decision = Server::new(decision, limits).gauge(metrics.connections("decision"));
        let manage = Manage::new(manage::Parts {
            pdp: Arc::clone(&pdp),
            activator: Arc::clone(&activator),
            recorder: Arc::clone(&recorder),
            shadow: Arc::clone(&shadow),
            cost: config.argon2.cost(),
            proxies: config.admin.trusted_proxies.clone(),
            soon: config.rotation.warn_ahead(),
            stop: stop.clone(),
        });
        let manage = manage.router(config.limits.body_bytes);
        let admin =
            Admin { pdp: Arc::clone(&pdp), activator: Arc::clone(&activator), soon: config.rotation.warn_ahead() };
        let api = admin.router().merge(manage);
        let admin = Hosts::new(&config.admin).guard(Dashboard::over(api, config.admin.trusted_proxies.clone()));
        let admin_limits = Limits { connections: limits.connections.min(ADMIN_CONNECTIONS), ..limits };
        let admin = Server::new(admin, admin_limits).gauge(metrics.connections("admin"));
        let (stop_forgetting, stop_writing, stop_reminding) = (stop.clone(), stop.clone(), stop.clone());
        let (stop_watching, stop_comparing) = (stop.clone(), stop.clone());
        let telling = match webhook {
            Some(webhook) => Some(webhook.run(pdp.ledger().clone(), stop.clone())),
            None => {
                webhook::forget(pdp.ledger())?;
                None
            }
        };
        let debounce = Duration::from_millis(config.reload.debounce_ms);
        let poll = Duration::from_secs(config.reload.poll_secs.max(1));
        let watching = activate::watch::run(Arc::clone(&activator), debounce, poll, stop.clone());
        let trying = (!shadow.is_off()).then(|| activate::watch::run(shadow, debounce, poll, stop.clone()));
        let mut parts = Parts::default();
        parts.spawn("deciding", ended(decision.run(decision_listener, stop.clone(), deadline)));
        parts.spawn("management", ended(admin.run(admin_listener, stop.clone(), deadline)));
        parts.spawn("watching policies", watching);
        parts.spawn("comparing policies", activator.catch_up(stop_comparing));
        parts.spawn("watching the age of policies", async move { staleness.run(stop_watching).await });
        parts.spawn("removing what is old", forget(pdp.ledger().clone(), stop_forgetting));
        parts
            .spawn("writing last uses", write_uses(pdp.ledger().clone(), config.last_used.flush_every(), stop_writing));
        parts.spawn("reminding", remind(pdp.ledger().clone(), config.rotation.warn_ahead(), stop_reminding));
        if let Some(telling) = telling {
            parts.spawn("the webhook", telling);
        }
        if let Some(trying) = trying {
            parts.spawn("trying policies", trying);
        }
        let parts = tokio::spawn(parts.look_after(asked, stopper));
        tracing::info!(
            decision = %decision_addr, admin = %admin_addr, keys = pdp.ledger().ring().len(),
            version = env!("CARGO_PKG_VERSION"), "serving"
        );
        Ok(Self { decision_addr, admin_addr, pdp, store, stopping: stop, parts, log, recorder, recorded, deadline })
    }

    /// Turns true when the daemon ends: because it was asked to, or because one of its parts did.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.clone()
    }

    /// Returns once everything has ended: requests in flight are answered, and the decision log and the last uses of keys
    /// are written.
    ///
    /// # Errors
    /// [`EndError`] when nobody asked for it: all the same has been done then.
    pub async fn ended(self) -> Result<(), EndError> {
        let ended = self.parts.await;
        let ended = ended.unwrap_or_else(|error| Err(EndError { part: "looking after parts", why: error.to_string() }));
        // A secret that was exposed is dead although its client has gone, and although this ends.
        if tokio::time::timeout(self.deadline, self.pdp.settle()).await.is_err() {
            tracing::error!("not every key that came in the clear could be marked before the end");
        }
        // After the last answer, so that its use is among them.
        write_uses_now(self.pdp.ledger().clone()).await;
        if let Some(log) = self.log {
            let deadline = self.deadline;
            let written = tokio::task::spawn_blocking(move || log.close(deadline)).await;
            if !written.unwrap_or(false) {
                tracing::warn!("the decision log could not be written to its end");
            }
        }
        let saved = tokio::task::spawn_blocking(move || self.recorder.save(&self.recorded)).await;
        if let Err(error) = saved.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            tracing::warn!(%error, "the recorded decisions could not be written, and are lost");
        }
        tracing::info!("ended");
        ended
    }
}

/// What the daemon is made of: tasks, each of which goes on until it is told to stop.
#[derive(Default)]
struct Parts {
    tasks: JoinSet<()>,
    names: HashMap<task::Id, &'static str>,
}

impl Parts {
    fn spawn(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.names.insert(self.tasks.spawn(part).id(), name);
    }

    /// Waits until all have ended, which they are told to when that is `asked` for, or when one has ended by itself: a daemon
    /// that goes on without a part of it says that all is well when it is not, and whoever started it starts it again.
    async fn look_after(
        mut self,
        mut asked: watch::Receiver<bool>,
        stopper: watch::Sender<bool>,
    ) -> Result<(), EndError> {
        let mut result = Ok(());
        loop {
            let ended = tokio::select! {
                biased;
                // A sender that is gone could ask for nothing more.
                _ = asked.wait_for(|asked| *asked), if !*stopper.borrow() => {
                    stopper.send_replace(true);
                    continue;
                }
                ended = self.tasks.join_next_with_id() => ended,
            };
            let (id, why) = match ended {
                None => return result,
                Some(Ok(_)) if *stopper.borrow() => continue,
                Some(Ok((id, ()))) => (id, "it has nothing more to do".to_owned()),
                Some(Err(error)) => (error.id(), error.to_string()),
            };
            let part = self.names.get(&id).copied().unwrap_or("a part");
            tracing::error!(part, why, "a part of the daemon ended, and so the daemon does");
            result = result.and(Err(EndError { part, why }));
            stopper.send_replace(true);
        }
    }
}

/// Takes over the decisions that an earlier process has recorded. They are not worth to be kept from starting for.
async fn restore_recorded(recorder: &Arc<Recorder>, path: &Path) {
    let (recorder, path) = (Arc::clone(recorder), path.to_owned());
    let restored = tokio::task::spawn_blocking(move || recorder.restore(&path)).await;
    if let Err(error) = restored.unwrap_or_else(|error| Err(error.to_string())) {
        tracing::warn!(%error, "the decisions that were recorded before cannot be read, and are lost");
    }
}

/// Writes the last uses of keys now and then, and no more once `stop` has turned true.
async fn write_uses(ledger: Ledger, every: Duration, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(every) => {}
        }
        write_uses_now(ledger.clone()).await;
    }
}

async fn write_uses_now(ledger: Ledger) {
    let written = tokio::task::spawn_blocking(move || ledger.write_uses()).await;
    let error = match written {
        Ok(Ok(0)) => return,
        Ok(Ok(secrets)) => return tracing::debug!(secrets, "last uses written"),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::error!(%error, "the last uses of keys could not be written; they are kept in memory and tried again");
}

/// Forgets, once an hour, what was asked to be done once and was done long ago, and uses of secrets that are gone.
async fn forget(ledger: Ledger, mut stop: watch::Receiver<bool>) {
    let mut each_hour = tokio::time::interval(Duration::from_hours(1));
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = each_hour.tick() => {}
        }
        let ledger = ledger.clone();
        let forgotten = tokio::task::spawn_blocking(move || {
            ledger.forget_done(Timestamp::now())?;
            ledger.forget_uses()
        });
        match forgotten.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(%error, "what is old in the store could not be removed"),
            Err(error) => tracing::error!(%error, "what is old in the store could not be removed"),
        }
    }
}

/// Gives reminders of rotations, once a minute.
async fn remind(ledger: Ledger, ahead: SignedDuration, mut stop: watch::Receiver<bool>) {
    let mut each_minute = tokio::time::interval(Duration::from_mins(1));
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = each_minute.tick() => {}
        }
        let ledger = ledger.clone();
        let given = tokio::task::spawn_blocking(move || ledger.remind(ahead, &By::daemon(Timestamp::now())));
        match given.await {
            Ok(Ok(0)) => {}
            Ok(Ok(keys)) => {
                tracing::warn!(
                    keys,
                    "keys should be rotated: see the events key.rotation_due and key.rotation_overdue"
                );
            }
            Ok(Err(error)) => tracing::error!(%error, "reminders of rotations could not be written"),
            Err(error) => tracing::error!(%error, "reminders of rotations could not be given"),
        }
    }
}

async fn ended(server: impl Future<Output = usize>) {
    server.await;
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen { key, address, error })
}

fn address(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|error| StartError::Internal(error.to_string()))
}

async fn open_store(path: PathBuf) -> Result<SledStore, StartError> {
    let opened = tokio::task::spawn_blocking(move || SledStore::open(&path)).await;
    Ok(opened.map_err(|error| StartError::Internal(error.to_string()))??)
}

fn open_log(config: &config::DecisionLog, metrics: &Metrics) -> Result<Option<Arc<DecisionLog>>, StartError> {
    let Some(path) = &config.path else {
        return Ok(None);
    };
    let when_full = match config.when_full {
        config::WhenFull::Drop => WhenFull::Drop,
        config::WhenFull::Refuse => WhenFull::Refuse,
    };
    let log = DecisionLog::open(path, config.capacity, when_full, metrics.decision_log_dropped.clone())?;
    Ok(Some(Arc::new(log)))
}

fn raise_descriptors(limits: &config::Limits) {
    let wanted = (limits.connections + ADMIN_CONNECTIONS) as u64 + SPARE_DESCRIPTORS;
    match descriptors::raise(wanted) {
        Ok(got) if got < wanted => {
            tracing::warn!(
                limit = got,
                wanted,
                "fewer files may be open than `limits.connections` asks for; raise `ulimit -n`"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit on open files cannot be raised"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until(mut stop: watch::Receiver<bool>) {
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Parts of which one does this, and what they are told to stop by.
    fn parts(one: impl Future<Output = ()> + Send + 'static) -> (Parts, watch::Sender<bool>) {
        let (stopper, stop) = watch::channel(false);
        let mut parts = Parts::default();
        parts.spawn("good", until(stop.clone()));
        parts.spawn("one", one);
        parts.spawn("as good", until(stop));
        (parts, stopper)
    }

    #[tokio::test]
    async fn a_part_that_ends_by_itself_ends_the_daemon_with_an_error_that_names_it() {
        let (_nobody, asked) = watch::channel(false);
        let (ending, stopper) = parts(async {});
        let error = ending.look_after(asked.clone(), stopper).await.unwrap_err();
        assert_eq!(error.part, "one");
        let (panicking, stopper) = parts(async { panic!("for the test") });
        let error = panicking.look_after(asked, stopper).await.unwrap_err();
        assert_eq!(error.part, "one");
        assert!(error.why.contains("panicked"), "{error}");
    }

    #[tokio::test]
    async fn parts_that_end_when_they_are_told_to_are_a_daemon_that_ended_well_and_a_panic_then_is_not() {
        let (ask, asked) = watch::channel(true);
        let (good, stopper) = parts(until(asked.clone()));
        good.look_after(asked.clone(), stopper).await.unwrap();
        let stop = asked.clone();
        let (bad, stopper) = parts(async move {
            until(stop).await;
            panic!("for the test");
        });
        assert_eq!(bad.look_after(asked.clone(), stopper).await.unwrap_err().part, "one");
        drop(ask);
    }
}
