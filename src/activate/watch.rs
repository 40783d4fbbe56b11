//! Notices that files have changed.
//!
//! An event is a hint to look again, never news in itself: editors rename, Kubernetes swaps a symlink,
//! queues overflow, network file systems say nothing at all. So any event leads to a rescan by digest once
//! the folders have been quiet for a moment, and a slow poll does the same without events. Folders are
//! watched, not files, with their parents, so that a folder that is replaced is found again. A disk that does not answer
//! keeps nobody (`disk`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::Activator;
use super::disk::Disk;

/// A burst that goes on for longer than this is looked at all the same.
const LONGEST_BURST: Duration = Duration::from_secs(2);
/// How long the folders may take to be looked at, and watched.
const LIMIT: Duration = Duration::from_secs(2);

/// What lives by the files of some folders.
pub trait Follows: Send + Sync {
    /// Which folders.
    fn folders(&self) -> Vec<PathBuf>;

    /// Looks at them. What was refused before is looked at anew when `anew` says so.
    fn rescan(&self, anew: bool) -> impl Future<Output = ()> + Send;
}

impl Follows for Activator {
    fn folders(&self) -> Vec<PathBuf> {
        vec![self.files.schemas.clone(), self.files.policies.clone()]
    }

    fn rescan(&self, anew: bool) -> impl Future<Output = ()> + Send {
        self.rescan(anew)
    }
}

/// Watches the folders of `follower` until `stop` turns true. From the call on, SIGHUP is heeded: before, it would end the
/// process.
pub fn run<F: Follows>(
    follower: Arc<F>,
    debounce: Duration,
    poll: Duration,
    stop: watch::Receiver<bool>,
) -> impl Future<Output = ()> {
    let hangup = signal(SignalKind::hangup()).ok();
    watch(follower, debounce, poll, hangup, stop)
}

async fn watch<F: Follows>(
    follower: Arc<F>,
    debounce: Duration,
    poll: Duration,
    mut hangup: Option<Signal>,
    mut stop: watch::Receiver<bool>,
) {
    let mut watching = Watching::new(follower.folders());
    let mut anew = false;
    loop {
        tokio::select! {
            () = async {
                // Watch first: what changes between the two is then an event, or in what is read.
                watching.renew().await;
                follower.rescan(anew).await;
            } => {}
            // A reload in the middle is given up: what it would have brought into force is there at the next start.
            _ = stop.changed() => return,
        }
        anew = false;
        tokio::select! {
            () = watching.changed.notified() => quiet(&watching.changed, debounce).await,
            () = hung_up(&mut hangup) => {
                tracing::info!("SIGHUP: looking at the policies again");
                anew = true;
            }
            () = sleep(poll) => {}
            _ = stop.changed() => return,
        }
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

/// Returns once nothing has changed for as long as `debounce`.
async fn quiet(changed: &Notify, debounce: Duration) {
    let at_the_latest = Instant::now() + LONGEST_BURST;
    loop {
        let until = (Instant::now() + debounce).min(at_the_latest);
        if timeout_at(until, changed.notified()).await.is_err() {
            return;
        }
    }
}

/// The folders, and who watches them.
struct Watching {
    folders: Vec<PathBuf>,
    changed: Arc<Notify>,
    watched: Option<Watched>,
    /// A new watcher, where the folders are others than those that are watched.
    looking: Disk<Option<Watched>>,
}

/// A watcher, and what it was set on.
struct Watched {
    identities: Vec<Option<Identity>>,
    /// Dropping it ends the watch.
    _watcher: Option<RecommendedWatcher>,
}

/// Which folder a path leads to: after a replacement it is another one.
type Identity = (u64, u64);

impl Watching {
    fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders, changed: Arc::default(), watched: None, looking: Disk::default() }
    }

    /// Watches what the paths lead to now. Where that cannot be said in time, it is left as it is, and asked at the next look:
    /// whoever reads the files then says what is wrong.
    async fn renew(&mut self) {
        let before = self.watched.as_ref().map(|watched| watched.identities.clone());
        let (folders, changed) = (self.folders.clone(), Arc::clone(&self.changed));
        let look = move || {
            let identities: Vec<_> = folders.iter().map(|folder| identity(folder)).collect();
            let is_stale = before.as_ref() != Some(&identities);
            is_stale.then(|| Watched::new(identities, &folders, &changed))
        };
        if let Some(Ok(Some(watched))) = self.looking.ask(LIMIT, look).await {
            self.watched = Some(watched);
        }
    }
}

impl Watched {
    fn new(identities: Vec<Option<Identity>>, folders: &[PathBuf], changed: &Arc<Notify>) -> Self {
        let watcher = watch_folders(folders, changed)
            .inspect_err(
                |error| tracing::warn!(%error, "no events from the file system; changes are found by polling alone"),
            )
            .ok();
        Self { identities, _watcher: watcher }
    }
}

fn identity(folder: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(folder).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn watch_folders(folders: &[PathBuf], changed: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let (notify, of_interest) = (Arc::clone(changed), folders.to_owned());
    let seen = move |event: notify::Result<notify::Event>| {
        let is_ours = |event: &notify::Event| {
            // An overflow comes without paths; reading a file is an event, too, and ours are read at each look.
            !matches!(event.kind, notify::EventKind::Access(_))
                && (event.paths.is_empty()
                    || event.paths.iter().any(|path| of_interest.iter().any(|folder| path.starts_with(folder))))
        };
        if event.as_ref().map_or(true, is_ours) {
            notify.notify_one();
        }
    };
    // A link may lead anywhere: what is behind it is found by polling.
    let mut watcher = RecommendedWatcher::new(seen, notify::Config::default().with_follow_symlinks(false))?;
    for folder in folders {
        if folder.is_dir() {
            watcher.watch(folder, RecursiveMode::Recursive)?;
        }
        if let Some(parent) = folder.parent().filter(|parent| parent.is_dir()) {
            watcher.watch(parent, RecursiveMode::NonRecursive)?;
        }
    }
    Ok(watcher)
}
