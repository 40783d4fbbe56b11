//! The decision log: one JSON object per line, appended to a file by a thread of its own.
//!
//! A decision hands its entry over and goes on. When the disk is slower than the decisions, or full, the
//! configuration says what gives way: the entry (dropped and counted) or the decision (refused).

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus::IntCounter;
use serde::Serialize;

/// After a failed write, the next try waits this long.
const RETRY: Duration = Duration::from_millis(250);
/// Bytes that are gathered for one write.
const BUFFER: usize = 64 * 1024;

/// What gives way when the log cannot keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The entry: it is dropped and counted.
    Drop,
    /// The decision: it is refused.
    Refuse,
}

/// One decision.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// When.
    pub time: Timestamp,
    /// Names the request.
    pub request_id: String,
    /// `allow`, `unauthenticated` or `forbidden`.
    pub outcome: &'static str,
    /// The reason code.
    pub reason: &'static str,
    /// The key's id, when one was proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The action, when a route was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<std::sync::Arc<str>>,
    /// The method, as stated.
    pub method: String,
    /// The path without query, as stated, with anything like a token masked.
    pub path: String,
    /// Whence it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// The digest of the revision that was asked.
    pub revision: String,
}

/// The log cannot take an entry, and the configuration says that no decision goes unlogged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the decision log cannot be written")]
pub struct Unlogged;

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the decision log {} cannot be opened: {error}. Correct `decision_log.path`, or the folder's permissions.", .path.display())]
pub struct LogError {
    path: PathBuf,
    error: io::Error,
}

/// The log.
#[derive(Debug)]
pub struct DecisionLog {
    /// Boxed, because a queue's places are all allocated at its start: 65,536 of them take 1 MB and not 16.
    sender: SyncSender<Box<Entry>>,
    when_full: WhenFull,
    failing: Arc<AtomicBool>,
    closing: Arc<AtomicBool>,
    dropped: IntCounter,
    /// Waited on by whoever closes the log, and nobody else. Says whether all was written.
    ended: Mutex<Receiver<bool>>,
}

impl DecisionLog {
    /// Opens the log for appending, `-` being the standard output; a new file is readable by its owner alone. At most `capacity` entries wait.
    /// `dropped` counts what was dropped.
    ///
    /// # Errors
    /// [`LogError`] when the file cannot be opened.
    pub fn open(path: &Path, capacity: usize, when_full: WhenFull, dropped: IntCounter) -> Result<Self, LogError> {
        let failed = |error| LogError { path: path.to_owned(), error };
        // Opening a pipe waits for its reader, so that is left to the writer; anything else fails now.
        let is_pipe = path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
        let file = if is_pipe { None } else { Some(append(path).map_err(failed)?) };
        let (sender, entries) = mpsc::sync_channel(capacity.max(1));
        let (end, ended) = mpsc::channel();
        let failing = Arc::new(AtomicBool::new(false));
        let closing = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            path: path.to_owned(),
            entries,
            failing: Arc::clone(&failing),
            closing: Arc::clone(&closing),
            dropped: dropped.clone(),
        };
        std::thread::Builder::new()
            .name("decision-log".into())
            .spawn(move || {
                // Whoever closed the log may have stopped waiting.
                let _ = end.send(writer.run(file));
            })
            .map_err(failed)?;
        Ok(Self { sender, when_full, failing, closing, dropped, ended: Mutex::new(ended) })
    }

    /// Hands over an entry. Never waits.
    ///
    /// # Errors
    /// [`Unlogged`] with [`WhenFull::Refuse`], when the queue is full or the last write failed.
    pub fn record(&self, entry: Entry) -> Result<(), Unlogged> {
        if self.when_full == WhenFull::Refuse && self.failing.load(Ordering::Acquire) {
            return Err(Unlogged);
        }
        match (self.sender.try_send(Box::new(entry)), self.when_full) {
            (Ok(()), _) => Ok(()),
            (Err(TrySendError::Full(_) | TrySendError::Disconnected(_)), WhenFull::Drop) => {
                self.dropped.inc();
                Ok(())
            }
            (Err(_), WhenFull::Refuse) => Err(Unlogged),
        }
    }

    /// Writes what is queued, for at most as long as `deadline`; `true` when all of it was written. To be
    /// called when no more decisions are made: an entry recorded after it may be lost.
    pub fn close(&self, deadline: Duration) -> bool {
        self.closing.store(true, Ordering::Release);
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(deadline).unwrap_or(false)
    }
}

fn append(path: &Path) -> io::Result<File> {
    if path == Path::new("-") {
        return io::stdout().as_fd().try_clone_to_owned().map(File::from);
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

struct Writer {
    path: PathBuf,
    entries: Receiver<Box<Entry>>,
    failing: Arc<AtomicBool>,
    closing: Arc<AtomicBool>,
    dropped: IntCounter,
}

impl Writer {
    /// Writes until the log is closed; whether all that was queued was written.
    fn run(&self, file: Option<File>) -> bool {
        let Some(file) = file.map_or_else(|| self.until_it_works(|| append(&self.path)), Some) else {
            return false;
        };
        let mut out = BufWriter::with_capacity(BUFFER, file);
        let mut line = Vec::new();
        let mut whole = true;
        while let Some(entry) = self.next(&mut out) {
            line.clear();
            // Invariant: an entry is strings, numbers and lists of strings; serialising it cannot fail.
            if serde_json::to_writer(&mut line, &entry).is_ok() {
                line.push(b'\n');
                if self.until_it_works(|| out.write_all(&line)).is_none() {
                    self.dropped.inc();
                    whole = false;
                }
            }
        }
        if self.until_it_works(|| out.flush()).is_none() {
            let lost = out.buffer().split(|byte| *byte == b'\n').count().saturating_sub(1);
            self.dropped.inc_by(u64::try_from(lost).unwrap_or(u64::MAX));
            whole = false;
        }
        // Dropping a writer writes what is left in it, which has just failed.
        drop(out.into_parts());
        whole
    }

    /// The next entry. What is buffered is written out before waiting for one.
    fn next(&self, out: &mut BufWriter<File>) -> Option<Box<Entry>> {
        match self.entries.try_recv() {
            Ok(entry) => return Some(entry),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        let _ = self.until_it_works(|| out.flush());
        loop {
            match self.entries.recv_timeout(RETRY) {
                Ok(entry) => return Some(entry),
                Err(mpsc::RecvTimeoutError::Timeout) if !self.closing.load(Ordering::Acquire) => {}
                Err(_) => return None,
            }
        }
    }

    /// Tries again until it works; gives up when the log is being closed.
    fn until_it_works<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> Option<T> {
        loop {
            match work() {
                Ok(value) => {
                    if self.failing.swap(false, Ordering::AcqRel) {
                        tracing::info!(path = %self.path.display(), "the decision log can be written again");
                    }
                    return Some(value);
                }
                Err(error) => {
                    if !self.failing.swap(true, Ordering::AcqRel) {
                        tracing::error!(path = %self.path.display(), %error, "the decision log cannot be written");
                    }
                    if self.closing.load(Ordering::Acquire) {
                        return None;
                    }
                    std::thread::sleep(RETRY);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            time: Timestamp::UNIX_EPOCH,
            request_id: "r1".into(),
            outcome: "allow",
            reason: "allowed",
            key: None,
            environment: None,
            action: None,
            method: "GET".into(),
            path: "/v1/resources".into(),
            address: None,
            policies: vec![],
            revision: "abc".into(),
        }
    }

    fn log(path: &Path, when_full: WhenFull) -> DecisionLog {
        DecisionLog::open(path, 4, when_full, IntCounter::new("dropped", "dropped").unwrap()).unwrap()
    }

    #[test]
    fn each_decision_is_one_line_and_a_close_writes_what_is_queued() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        let log = DecisionLog::open(&path, 1_000, WhenFull::Refuse, IntCounter::new("d", "d").unwrap()).unwrap();
        for _ in 0..1_000 {
            log.record(entry()).unwrap();
        }
        assert!(log.close(Duration::from_secs(10)));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1_000);
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(line["path"], "/v1/resources");
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_said_at_the_start() {
        let error =
            DecisionLog::open(Path::new("/nonexistent/log"), 1, WhenFull::Drop, IntCounter::new("d", "d").unwrap());
        assert!(error.unwrap_err().to_string().contains("/nonexistent/log"));
    }

    /// Records until the log shows that it cannot keep up; bounded.
    fn overflow(log: &DecisionLog) -> Result<(), Unlogged> {
        (0..20_000).try_for_each(|_| log.record(entry()))
    }

    #[test]
    fn a_blocked_writer_costs_entries_or_decisions_as_configured() {
        for (when_full, expected) in [(WhenFull::Drop, Ok(())), (WhenFull::Refuse, Err(Unlogged))] {
            let folder = tempfile::tempdir().unwrap();
            let pipe = folder.path().join("pipe");
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            let log = log(&pipe, when_full);
            assert_eq!(overflow(&log), expected);
            assert_eq!(log.dropped.get() > 0, when_full == WhenFull::Drop);
            assert!(!log.close(Duration::from_millis(10)), "nobody reads, and closing does not wait for it");
        }
    }

    #[test]
    fn a_full_disk_costs_entries_or_decisions_as_configured() {
        for (when_full, expected) in [(WhenFull::Drop, Ok(())), (WhenFull::Refuse, Err(Unlogged))] {
            let log = log(Path::new("/dev/full"), when_full);
            assert_eq!(overflow(&log), expected);
            assert!(!log.close(Duration::from_secs(10)), "nothing could be written, and closing says so");
        }
    }

    #[test]
    fn every_entry_is_either_written_or_counted() {
        let folder = tempfile::tempdir().unwrap();
        for (path, expected) in [(folder.path().join("log"), 0), (PathBuf::from("/dev/full"), 100)] {
            let log = DecisionLog::open(&path, 1_000, WhenFull::Drop, IntCounter::new("d", "d").unwrap()).unwrap();
            for _ in 0..100 {
                log.record(entry()).unwrap();
            }
            assert_eq!(log.close(Duration::from_secs(10)), expected == 0);
            assert_eq!(log.dropped.get(), expected);
        }
    }

    #[test]
    fn a_new_log_is_its_owners_alone_and_an_old_one_is_appended_to() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for lines in 1..=2 {
            let log = log(&path, WhenFull::Refuse);
            log.record(entry()).unwrap();
            assert!(log.close(Duration::from_secs(10)));
            assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), lines);
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
