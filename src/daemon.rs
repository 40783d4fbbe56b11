//! The daemon: the parts put together from the configuration, started in order, stopped in order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

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
    tasks: Vec<JoinHandle<()>>,
    log: Option<Arc<DecisionLog>>,
    recorder: Arc<Recorder>,
    /// Where what was recorded survives a restart.
    recorded: PathBuf,
    deadline: Duration,
}

impl Daemon {
    /// Opens the store, loads the keys, brings the policies into force, and listens, in this order: whoever is
    /// answered is answered by a whole daemon. It serves until `stop` turns true.
    ///
    /// # Errors
    /// [`StartError`]; nothing listens then.
    pub async fn start(config: &Config, stop: watch::Receiver<bool>) -> Result<Self, StartError> {
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
            Some(webhook) => Some(tokio::spawn(webhook.run(pdp.ledger().clone(), stop.clone()))),
            None => {
                webhook::forget(pdp.ledger())?;
                None
            }
        };
        let debounce = Duration::from_millis(config.reload.debounce_ms);
        let poll = Duration::from_secs(config.reload.poll_secs.max(1));
        let watching = activate::watch::run(Arc::clone(&activator), debounce, poll, stop.clone());
        let trying = (!shadow.is_off()).then(|| activate::watch::run(shadow, debounce, poll, stop.clone()));
        let mut tasks = vec![
            tokio::spawn(ended(decision.run(decision_listener, stop.clone(), deadline))),
            tokio::spawn(ended(admin.run(admin_listener, stop, deadline))),
            tokio::spawn(watching),
            tokio::spawn(activator.catch_up(stop_comparing)),
            tokio::spawn(async move { staleness.run(stop_watching).await }),
            tokio::spawn(forget(pdp.ledger().clone(), stop_forgetting)),
            tokio::spawn(write_uses(pdp.ledger().clone(), config.last_used.flush_every(), stop_writing)),
            tokio::spawn(remind(pdp.ledger().clone(), config.rotation.warn_ahead(), stop_reminding)),
        ];
        tasks.extend(telling);
        tasks.extend(trying.map(tokio::spawn));
        tracing::info!(
            decision = %decision_addr, admin = %admin_addr, keys = pdp.ledger().ring().len(),
            version = env!("CARGO_PKG_VERSION"), "serving"
        );
        Ok(Self { decision_addr, admin_addr, pdp, store, tasks, log, recorder, recorded, deadline })
    }

    /// Returns once everything has ended after `stop` turned true: requests in flight are answered, and the
    /// decision log and the last uses of keys are written.
    pub async fn ended(self) {
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the daemon ended badly");
            }
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
