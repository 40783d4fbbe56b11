//! The decisions of a while, kept in memory: to be looked at, counted, and decided again under other policies.
//!
//! Every decision is offered here once it is answered for, and nobody waits: it is moved into a bounded queue, and when
//! there is no room it is dropped and counted. A thread of its own makes a [`Record`] of it. A crash loses the records; a
//! restart in order keeps them in a file. Nothing here decides: what is decided again goes through the one
//! [`authorize`](crate::authorize::authorize()).

mod again;
mod comparison;
mod file;
mod kept;
mod record;
mod series;
mod suggest;
mod told;
mod top;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use jiff::Timestamp;
use prometheus::IntCounter;
use tokio::sync::broadcast;

pub use self::again::{Again, Decided, Redecider};
pub use self::comparison::{Change, Comparison, Example, Group, Report, Ruled};
pub use self::kept::Filter;
use self::kept::Kept;
pub use self::record::{KeyFacts, NotARecordId, Offered, Record, RecordId, Ruling};
pub use self::series::{Minute, Series, Totals};
pub use self::suggest::{Suggestion, suggest};
pub use self::told::{NotADecision, Reader, Told, ToldResource};
pub use self::top::{Tally, Top};
use crate::authorize::verdict::Verdict;
use crate::authorize::{Call, STACK};

/// Decisions that may wait to be taken in: those of 20 ms at 200,000 a second, in about 1 MB.
const QUEUE: usize = 4_096;
/// How long the thread rests between two looks at the queue while decisions are made.
const REST: Duration = Duration::from_millis(20);
/// After so many looks in vain it sleeps until it is woken.
const LOOKS: u32 = 50;
/// It looks now and then all the same: whoever should have woken it may have looked a moment too early.
const SLEEP: Duration = Duration::from_secs(1);
/// Decisions that are taken in while readers wait.
const CHUNK: usize = 1_024;
/// Batches that a listener may be behind.
const BATCHES: usize = 64;

/// Takes decisions in and keeps them.
pub struct Recorder {
    /// How many of the newest are kept; 0 turns everything off.
    most: usize,
    queue: ArrayQueue<Offered>,
    /// Whether the thread sleeps until it is woken. A hint: nothing is ordered by it.
    is_asleep: AtomicBool,
    thread: OnceLock<Thread>,
    dropped: IntCounter,
    /// Held by whoever takes decisions in or reads; never by whoever offers one.
    kept: Mutex<Kept>,
    listeners: broadcast::Sender<Arc<[Record]>>,
}

/// What somebody hears who looks on.
pub struct Following {
    /// What was taken in before, the oldest first.
    pub before: Vec<Record>,
    /// How many more there were.
    pub missed: u64,
    /// What is taken in from now on, a batch at a time.
    pub heard: broadcast::Receiver<Arc<[Record]>>,
    /// The last decision of before.
    pub last: RecordId,
}

impl Recorder {
    /// One that keeps the newest `most` decisions and samples of older ones; with 0, none at all. `dropped` counts those
    /// that found no room.
    pub fn new(most: usize, dropped: IntCounter) -> Arc<Self> {
        let queue = ArrayQueue::new(if most == 0 { 1 } else { QUEUE });
        let (listeners, _) = broadcast::channel(BATCHES);
        let kept = Mutex::new(Kept::new(most, Timestamp::now()));
        let (is_asleep, thread) = (AtomicBool::new(false), OnceLock::new());
        Arc::new(Self { most, queue, is_asleep, thread, dropped, kept, listeners })
    }

    /// Starts the thread that takes decisions in. It ends when the recorder is gone.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(self: &Arc<Self>) -> std::io::Result<()> {
        if self.is_off() {
            return Ok(());
        }
        let recorder = Arc::downgrade(self);
        // A decision may hold the last reference to its revision, whose policies are taken apart on this thread then.
        let thread = std::thread::Builder::new().name("recorder".into()).stack_size(STACK);
        let thread = thread.spawn(move || take_in(&recorder))?;
        let _ = self.thread.set(thread.thread().clone());
        Ok(())
    }

    /// Whether nothing is recorded.
    pub fn is_off(&self) -> bool {
        self.most == 0
    }

    /// Hands over a decision. Never waits; without room, it is dropped and counted.
    pub fn offer(&self, verdict: Verdict, call: &Call<'_>, request_id: &str) {
        if self.is_off() {
            return;
        }
        if self.queue.push(Offered::new(verdict, call, request_id)).is_err() {
            self.dropped.inc();
        }
        if self.is_asleep.load(Ordering::Relaxed)
            && self.is_asleep.swap(false, Ordering::Relaxed)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// The newest first, older than `before`, of those that the filter takes: at most so many.
    pub fn page(&self, filter: &Filter, before: Option<RecordId>, most: usize) -> Vec<Record> {
        let place = before.map_or(u64::MAX, |RecordId(place)| place);
        self.all().before(place).filter(|record| filter.takes(record)).take(most).cloned().collect()
    }

    /// The oldest first, newer than `after`: at most so many.
    pub fn chunk(&self, after: Option<RecordId>, most: usize) -> Vec<Record> {
        let place = after.map_or(0, |RecordId(place)| place);
        self.all().after(place).take(most).cloned().collect()
    }

    /// The newest decision about a request of this id.
    pub fn find(&self, request_id: &str) -> Option<Record> {
        self.all().newest_first().find(|record| record.request_id() == request_id).cloned()
    }

    /// The decision of this id.
    pub fn get(&self, id: RecordId) -> Option<Record> {
        self.all().get(id).cloned()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.all().len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many decisions there were in each minute of the day before `now`.
    pub fn series(&self, now: Timestamp) -> Series {
        self.all().series.of_day(now)
    }

    /// The same of such decisions alone, as far as they are kept.
    pub fn series_of(&self, filter: &Filter, now: Timestamp) -> Series {
        Series::of(self.all().newest_first().filter(|record| filter.takes(record)), now)
    }

    /// The busiest `most` keys, actions and addresses of those that the filter takes.
    pub fn top(&self, filter: &Filter, most: usize) -> Top {
        Top::of(self.all().newest_first().filter(|record| filter.takes(record)), most)
    }

    /// Everything that is taken in from now on, a batch at a time. Whoever is too far behind loses the oldest.
    pub fn listen(&self) -> broadcast::Receiver<Arc<[Record]>> {
        self.listeners.subscribe()
    }

    /// The same, of this moment: what is kept and newer than `after` comes before it, at most the newest `most` of those
    /// that the filter takes. Without `after`, nothing does.
    pub fn follow(&self, filter: &Filter, after: Option<RecordId>, most: usize) -> Following {
        let kept = self.all();
        // Nothing is taken in meanwhile, and so nothing is heard twice or not at all.
        let (heard, last) = (self.listeners.subscribe(), kept.last());
        let newer =
            after.into_iter().flat_map(|after| kept.newest_first().take_while(move |record| record.id() > after));
        let mut newer = newer.filter(|record| filter.takes(record));
        let mut before: Vec<Record> = newer.by_ref().take(most).cloned().collect();
        before.reverse();
        let missed = u64::try_from(newer.count()).unwrap_or(u64::MAX);
        Following { before, missed, heard, last }
    }

    /// Writes what is kept to a file, for [`restore`](Self::restore). To be called when no more decisions are made.
    ///
    /// # Errors
    /// When it cannot be written; there is no file then, or the one before.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        if self.is_off() {
            return Ok(());
        }
        let kept = self.all();
        file::write(path, kept.len(), kept.after(0), &kept.series)
    }

    /// Takes over what an earlier process saved, and takes the file away. To be called before the first decision.
    ///
    /// # Errors
    /// What is wrong with the file, of which nothing is taken over then.
    pub fn restore(&self, path: &Path) -> Result<(), String> {
        let Some(survived) = file::take(path)? else { return Ok(()) };
        if !self.is_off() {
            let mut kept = self.lock();
            kept.shared = survived.reader.into_shared();
            kept.restore(survived.records, survived.series);
        }
        Ok(())
    }

    /// Everything, what waits in the queue included: whoever was answered finds their decision.
    fn all(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.lock();
        // As many as there are places: while decisions go on being made, the queue may never be empty.
        self.take_from_queue(&mut kept, QUEUE);
        kept
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in at most so many; how many there were.
    fn take_from_queue(&self, kept: &mut Kept, most: usize) -> usize {
        let mut heard = (self.listeners.receiver_count() > 0).then(Vec::new);
        let mut taken = 0;
        while taken < most
            && let Some(offered) = self.queue.pop()
        {
            kept.take_in(&offered, heard.as_mut());
            taken += 1;
        }
        if let Some(heard) = heard.filter(|heard| !heard.is_empty()) {
            // Those who listened may have gone meanwhile.
            let _ = self.listeners.send(heard.into());
        }
        taken
    }
}

/// Takes decisions in for as long as there is a recorder.
fn take_in(recorder: &Weak<Recorder>) {
    let mut in_vain = 0;
    while let Some(recorder) = recorder.upgrade() {
        let mut taken = 0;
        loop {
            let now = recorder.take_from_queue(&mut recorder.lock(), CHUNK);
            taken += now;
            if now < CHUNK {
                break;
            }
        }
        in_vain = if taken > 0 { 0 } else { in_vain + 1 };
        let rest = if in_vain < LOOKS { REST } else { SLEEP };
        recorder.is_asleep.store(in_vain >= LOOKS, Ordering::Relaxed);
        let is_waited_for = recorder.queue.is_empty();
        drop(recorder);
        if is_waited_for || in_vain < LOOKS {
            std::thread::park_timeout(rest);
        }
    }
}
