//! Notices that files have changed.
//!
//! An event is a hint to look again, never news in itself: editors rename, Kubernetes swaps a symlink,
//! queues overflow, network file systems say nothing at all. So any event leads to a rescan by digest once
//! the folders have been quiet for a moment, and a slow poll does the same without events. Folders are
//! watched, not files, with their parents, so that a folder that is replaced is found again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Activator;

/// A burst that goes on for longer than this is looked at all the same.
const LONGEST_BURST: Duration = Duration::from_secs(2);

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
    let folders = follower.folders();
    let changed = Arc::new(Notify::new());
    let mut watched = Watched::new(&folders, &changed);
    // What changed between the first reading and the watch was no event.
    follower.rescan(false).await;
    loop {
        let next_poll = Instant::now() + poll;
        let mut anew = false;
        tokio::select! {
            () = changed.notified() => quiet(&changed, debounce).await,
            () = hung_up(&mut hangup) => {
                tracing::info!("SIGHUP: looking at the policies again");
                anew = true;
            }
            () = sleep_until(next_poll) => {}
            _ = stop.changed() => return,
        }
        // Watch again first: what changes between the two is then an event, or in what is read.
        if watched.is_stale() {
            watched = Watched::new(&folders, &changed);
        }
        tokio::select! {
            () = follower.rescan(anew) => {}
            // A reload in the middle is given up: what it would have brought into force is there at the next start.
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

/// A watcher, and what it was set on.
struct Watched {
    folders: Vec<PathBuf>,
    identities: Vec<Option<Identity>>,
    /// Dropped last: dropping it ends the watch.
    _watcher: Option<RecommendedWatcher>,
}

/// Which folder a path leads to: after a replacement it is another one.
type Identity = (u64, u64);

impl Watched {
    fn new(folders: &[PathBuf], changed: &Arc<Notify>) -> Self {
        let identities = folders.iter().map(|folder| identity(folder)).collect();
        let watcher = watch_folders(folders, changed)
            .inspect_err(
                |error| tracing::warn!(%error, "no events from the file system; changes are found by polling alone"),
            )
            .ok();
        Self { folders: folders.to_owned(), identities, _watcher: watcher }
    }

    fn is_stale(&self) -> bool {
        self.folders.iter().zip(&self.identities).any(|(folder, before)| identity(folder) != *before)
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
