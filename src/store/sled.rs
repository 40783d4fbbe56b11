//! The store on one machine: sled 0.34, with what it needs around it to be trusted.
//!
//! One tree; a row's key is its table's name, a zero byte, and its key; its value is a format byte, the
//! version, and the value. A commit checks and applies under one lock, then waits for a flush that it
//! shares with whoever waits at the same time. A file beside sled's own says that this is a store of ours and of which
//! format, so that a newer one is recognised before anything is opened, and so that an empty tree where
//! there was a full one is taken for damage and not for a first start.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sled::{Db, IVec};

use super::{Batch, Change, CommitError, Expect, Row, Store, StoreError, Table};

/// The newest format of stores and rows that is understood.
const FORMAT: u8 = 1;
/// Says that a folder is a store, and of which format.
const MARKER: &str = "keyward-store";
/// A row that every store has: a tree without it is not the one that was written.
const FORMAT_ROW: &[u8] = b"meta\0format";
/// Bytes before a row's value: its format and its version.
const HEADER: usize = 9;
/// How long to wait for another process to let go of the store, looking again after each pause.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes that sled may keep in memory. All that is read again and again lives in the ring.
const CACHE: u64 = 8 << 20;

/// A store in a folder.
pub struct SledStore {
    path: PathBuf,
    db: Db,
    /// sled's flush leaves data in the drive's cache (spacejam/sled#1452); this handle is for an fsync.
    file: File,
    /// Held while preconditions are checked and a batch is applied: one commit at a time. Counts commits.
    commits: Mutex<u64>,
    /// Held while flushing. The number of commits that are on disk.
    flushed: Mutex<u64>,
    /// Set when a flush failed: what is on disk is not known from then on.
    poisoned: AtomicBool,
}

impl SledStore {
    /// Opens the store in `path`, and makes one where there is nothing yet.
    ///
    /// A damaged store is copied aside, then opened without its snapshots, which sled can do without.
    ///
    /// # Errors
    /// [`StoreError`], naming the folder and the way out.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let io = |error: std::io::Error| StoreError::Io {
            path: path.to_owned(),
            doing: "opened",
            reason: error.to_string(),
        };
        let known = read_marker(path)?;
        if known.is_none() && path.is_dir() {
            refuse_foreign(path).map_err(|reason| StoreError::Foreign { path: path.to_owned(), reason })?;
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        let was_there = known.is_some();
        let db = match open_patiently(path, was_there) {
            Ok(db) => db,
            Err(Failure::Refused(error)) => return Err(error),
            Err(Failure::Damaged(reason)) => open_damaged(path, &reason)?,
        };
        let file = File::open(path.join("db")).map_err(io)?;
        let store = Self {
            path: path.to_owned(),
            db,
            file,
            commits: Mutex::new(0),
            flushed: Mutex::new(0),
            poisoned: AtomicBool::new(false),
        };
        if !was_there {
            store.db.insert(FORMAT_ROW, &[FORMAT]).map_err(|error| store.failed("written", &error))?;
            store.flush().map_err(|error| store.failed("written", &error))?;
            write_marker(path).map_err(io)?;
        }
        Ok(store)
    }

    fn failed(&self, doing: &'static str, error: &dyn std::fmt::Display) -> StoreError {
        StoreError::Io { path: self.path.clone(), doing, reason: error.to_string() }
    }

    fn flush(&self) -> Result<(), String> {
        self.db.flush().map_err(|error| error.to_string())?;
        self.file.sync_data().map_err(|error| error.to_string())
    }

    fn row(&self, key: Vec<u8>, value: &IVec) -> Result<Row, StoreError> {
        let unreadable = || {
            let found = u64::from(value.first().copied().unwrap_or_default());
            StoreError::Newer { path: self.path.clone(), found, known: u64::from(FORMAT) }
        };
        let (format, rest) = value.split_first().ok_or_else(unreadable)?;
        let (version, value) = rest.split_first_chunk::<8>().ok_or_else(unreadable)?;
        if *format != FORMAT {
            return Err(unreadable());
        }
        Ok(Row { key, version: u64::from_be_bytes(*version), value: value.to_vec() })
    }

    /// Checks and applies a batch; the new versions, and the number of this commit.
    fn apply(&self, batch: &Batch) -> Result<(Vec<u64>, u64), CommitError> {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut writes = sled::Batch::default();
        let mut versions = Vec::with_capacity(batch.changes().len());
        for change in batch.changes() {
            let at = full_key(change.table, &change.key);
            let version = self.checked_version(change)? + 1;
            match &change.value {
                Some(value) => {
                    let mut record = Vec::with_capacity(HEADER + value.len());
                    record.push(FORMAT);
                    record.extend_from_slice(&version.to_be_bytes());
                    record.extend_from_slice(value);
                    writes.insert(at, record);
                    versions.push(version);
                }
                None => {
                    writes.remove(at);
                    versions.push(0);
                }
            }
        }
        self.db.apply_batch(writes).map_err(|error| self.failed("written", &error))?;
        *commits += 1;
        Ok((versions, *commits))
    }

    /// The version of the row that `change` is about, 0 where there is none, if the precondition holds.
    fn checked_version(&self, change: &Change) -> Result<u64, CommitError> {
        let found = self.get(change.table, &change.key)?.map(|row| row.version);
        let holds = match change.expect {
            Expect::Any => true,
            Expect::Absent => found.is_none(),
            Expect::Version(version) => found == Some(version),
        };
        if holds {
            Ok(found.unwrap_or_default())
        } else {
            Err(CommitError::Conflict { table: change.table, key: change.key.clone() })
        }
    }

    /// Returns when commit number `mine` is on disk. Whoever comes first flushes for all that were
    /// applied by then; the others find their number done when they get the lock.
    fn wait_for_disk(&self, mine: u64) -> Result<(), StoreError> {
        let mut flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        if *flushed >= mine {
            return Ok(());
        }
        let applied = *self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush().map_err(|error| {
            self.poisoned.store(true, Ordering::Release);
            self.failed("written", &error)
        })?;
        *flushed = applied;
        Ok(())
    }
}

impl Store for SledStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, StoreError> {
        let found = self.db.get(full_key(table, key)).map_err(|error| self.failed("read", &error))?;
        found.map(|value| self.row(key.to_vec(), &value)).transpose()
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        each: &mut dyn FnMut(Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let table_length = table.0.len() + 1;
        for entry in self.db.scan_prefix(full_key(table, prefix)) {
            let (key, value) = entry.map_err(|error| self.failed("read", &error))?;
            each(self.row(key.get(table_length..).unwrap_or_default().to_vec(), &value)?)?;
        }
        Ok(())
    }

    fn commit(&self, batch: &Batch) -> Result<Vec<u64>, CommitError> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(StoreError::Poisoned { path: self.path.clone() }.into());
        }
        let (versions, mine) = self.apply(batch)?;
        self.wait_for_disk(mine)?;
        Ok(versions)
    }
}

fn full_key(table: Table, key: &[u8]) -> Vec<u8> {
    [table.0.as_bytes(), &[0], key].concat()
}

/// The format of the store in this folder, when there is one.
fn read_marker(path: &Path) -> Result<Option<u8>, StoreError> {
    let text = match fs::read_to_string(path.join(MARKER)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::Io { path: path.to_owned(), doing: "opened", reason: error.to_string() }),
    };
    let found: Option<u64> = text.trim().strip_prefix("format ").and_then(|number| number.parse().ok());
    match found {
        Some(found) if found == u64::from(FORMAT) => Ok(Some(FORMAT)),
        Some(found) => Err(StoreError::Newer { path: path.to_owned(), found, known: u64::from(FORMAT) }),
        None => Err(StoreError::Foreign {
            path: path.to_owned(),
            reason: format!("its file {MARKER} does not say a format"),
        }),
    }
}

fn write_marker(path: &Path) -> std::io::Result<()> {
    let temporary = path.join(format!("{MARKER}.new"));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    writeln!(file, "format {FORMAT}")?;
    file.sync_all()?;
    fs::rename(&temporary, path.join(MARKER))?;
    File::open(path)?.sync_all()
}

/// A folder without a marker may be empty, or hold what a first start left when it was interrupted.
fn refuse_foreign(path: &Path) -> Result<(), String> {
    const OURS: [&str; 4] = ["db", "conf", "blobs", "keyward-store.new"];
    for entry in fs::read_dir(path).map_err(|error| error.to_string())? {
        let name = entry.map_err(|error| error.to_string())?.file_name();
        let name = name.to_string_lossy();
        if !OURS.contains(&&*name) && !name.starts_with("snap.") {
            return Err(format!("it holds {name}"));
        }
    }
    Ok(())
}

/// Opens the tree, and waits a moment for another process that is just ending to let go of it.
fn open_patiently(path: &Path, was_there: bool) -> Result<Db, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        match open_whole(path, was_there) {
            Err(Failure::Refused(StoreError::InUse { .. })) if Instant::now() < until => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}

enum Failure {
    Refused(StoreError),
    Damaged(String),
}

/// Opens the tree and makes sure that it is the one that was written.
fn open_whole(path: &Path, was_there: bool) -> Result<Db, Failure> {
    if was_there && !path.join("db").is_file() {
        return Err(Failure::Damaged("its file `db` is gone".into()));
    }
    let config = sled::Config::new().path(path).cache_capacity(CACHE).mode(sled::Mode::LowSpace).flush_every_ms(None);
    // sled panics on some kinds of damage; on a thread of its own that is a kind of error.
    let opened = std::thread::spawn(move || config.open()).join();
    let db = match opened {
        Ok(Ok(db)) => db,
        Ok(Err(error)) => return Err(failure(path, error)),
        Err(_) => return Err(Failure::Damaged("sled cannot read it".into())),
    };
    let format = db.get(FORMAT_ROW).map_err(|error| failure(path, error))?;
    match format {
        None if was_there => Err(Failure::Damaged("its rows are gone".into())),
        None if !db.is_empty() => Err(Failure::Refused(StoreError::Foreign {
            path: path.to_owned(),
            reason: "it is a sled database of another program".into(),
        })),
        _ => Ok(db),
    }
}

fn failure(path: &Path, error: sled::Error) -> Failure {
    match error {
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            Failure::Refused(StoreError::InUse { path: path.to_owned() })
        }
        sled::Error::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            Failure::Refused(StoreError::Io { path: path.to_owned(), doing: "opened", reason: error.to_string() })
        }
        error => Failure::Damaged(error.to_string()),
    }
}

/// Copies a damaged store aside, drops its snapshots, which sled can rebuild, and tries once more.
fn open_damaged(path: &Path, reason: &str) -> Result<Db, StoreError> {
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut copy = path.as_os_str().to_owned();
    copy.push(format!(".damaged-{stamp}"));
    let copy = PathBuf::from(copy);
    tracing::error!(store = %path.display(), copy = %copy.display(), reason, "the store is damaged; copying it, then opening it without its snapshots");
    let io = |error: std::io::Error| StoreError::Io {
        path: path.to_owned(),
        doing: "copied aside",
        reason: error.to_string(),
    };
    copy_folder(path, &copy).map_err(io)?;
    for entry in fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            fs::remove_file(entry.path()).map_err(io)?;
        }
    }
    match open_whole(path, true) {
        Ok(db) => {
            tracing::warn!(store = %path.display(), "the store was opened without its snapshots");
            Ok(db)
        }
        Err(Failure::Refused(error)) => Err(error),
        Err(Failure::Damaged(again)) => Err(StoreError::Damaged {
            path: path.to_owned(),
            copy,
            reason: format!("{reason}; without its snapshots: {again}"),
        }),
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn put(store: &SledStore, key: &str, value: &str, expect: Expect) -> Result<u64, CommitError> {
        let mut batch = Batch::new();
        batch.put(Table::KEYS, key.as_bytes(), value.into(), expect);
        store.commit(&batch).map(|versions| versions[0])
    }

    fn value(store: &SledStore, key: &str) -> Option<(u64, String)> {
        let row = store.get(Table::KEYS, key.as_bytes()).unwrap()?;
        Some((row.version, String::from_utf8(row.value).unwrap()))
    }

    fn filled(rows: usize) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("store");
        let store = SledStore::open(&path).unwrap();
        let mut batch = Batch::new();
        for at in 0..rows {
            batch.put(Table::KEYS, format!("key{at:06}").as_bytes(), vec![b'x'; 300], Expect::Absent);
        }
        store.commit(&batch).unwrap();
        (root, path)
    }

    fn count(store: &SledStore, prefix: &str) -> usize {
        let mut count = 0;
        store
            .scan(Table::KEYS, prefix.as_bytes(), &mut |_| {
                count += 1;
                Ok(())
            })
            .unwrap();
        count
    }

    #[test]
    fn a_batch_is_made_whole_or_not_at_all() {
        let (_root, path) = filled(0);
        let store = SledStore::open(&path).unwrap();
        assert_eq!(put(&store, "a", "1", Expect::Absent).unwrap(), 1);
        let mut batch = Batch::new();
        batch.put(Table::KEYS, b"b", b"1".to_vec(), Expect::Absent);
        batch.put(Table::KEYS, b"a", b"2".to_vec(), Expect::Absent);
        assert!(matches!(store.commit(&batch), Err(CommitError::Conflict { .. })));
        assert_eq!((value(&store, "a"), value(&store, "b")), (Some((1, "1".into())), None));
        assert_eq!(put(&store, "a", "2", Expect::Version(1)).unwrap(), 2);
        assert!(put(&store, "a", "3", Expect::Version(1)).is_err());
        let mut batch = Batch::new();
        batch.delete(Table::KEYS, b"a", Expect::Version(2));
        store.commit(&batch).unwrap();
        assert_eq!(value(&store, "a"), None);
    }

    #[test]
    fn what_was_committed_is_there_after_reopening_and_tables_are_apart() {
        let (_root, path) = filled(10);
        let store = SledStore::open(&path).unwrap();
        assert_eq!((count(&store, ""), count(&store, "key00000")), (10, 10));
        assert_eq!(count(&store, "key000003"), 1);
        assert_eq!(store.get(Table::ACCOUNTS, b"key000001").unwrap(), None);
    }

    #[test]
    fn no_update_is_lost_among_many_writers() {
        let (_root, path) = filled(0);
        let store = Arc::new(SledStore::open(&path).unwrap());
        put(&store, "n", "0", Expect::Absent).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut done = 0;
                    while done < 10 {
                        let (version, number) = value(&store, "n").unwrap();
                        let next = (number.parse::<u32>().unwrap() + 1).to_string();
                        done += usize::from(put(&store, "n", &next, Expect::Version(version)).is_ok());
                    }
                });
            }
        });
        assert_eq!(value(&store, "n"), Some((81, "80".into())));
    }

    #[test]
    fn a_store_that_is_open_elsewhere_is_refused_with_the_way_out() {
        let (_root, path) = filled(1);
        let _held = SledStore::open(&path).unwrap();
        let error = SledStore::open(&path).err().unwrap();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        assert!(error.to_string().contains("Stop that one first"));
    }

    #[test]
    fn a_newer_store_is_not_touched() {
        let (_root, path) = filled(1);
        fs::write(path.join(MARKER), "format 2\n").unwrap();
        let before = fs::metadata(path.join("db")).unwrap().modified().unwrap();
        let error = SledStore::open(&path).err().unwrap();
        assert!(matches!(error, StoreError::Newer { found: 2, .. }), "{error}");
        assert_eq!(fs::metadata(path.join("db")).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn a_folder_of_something_else_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("letter.txt"), "dear").unwrap();
        let error = SledStore::open(root.path()).err().unwrap();
        assert!(error.to_string().contains("letter.txt"), "{error}");
        let other = tempfile::tempdir().unwrap();
        let db = sled::open(other.path()).unwrap();
        db.insert("a", "b").unwrap();
        db.flush().unwrap();
        drop(db);
        assert!(matches!(SledStore::open(other.path()), Err(StoreError::Foreign { .. })));
        let file = root.path().join("letter.txt");
        assert!(SledStore::open(&file).is_err());
    }

    #[test]
    fn damage_that_sled_can_do_without_loses_nothing() {
        type Damage = fn(&Path);
        let cases: [(&str, Damage); 2] = [
            ("a stray empty snapshot", |path| fs::write(path.join("snap.0000000000001234.generating"), "").unwrap()),
            ("a zeroed snapshot", |path| {
                for entry in fs::read_dir(path).unwrap().flatten() {
                    if entry.file_name().to_string_lossy().starts_with("snap.") {
                        let length = usize::try_from(entry.metadata().unwrap().len()).unwrap();
                        fs::write(entry.path(), vec![0; length]).unwrap();
                    }
                }
            }),
        ];
        for (what, damage) in cases {
            let (_root, path) = filled(2_000);
            damage(&path);
            let store = SledStore::open(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(count(&store, ""), 2_000, "{what}");
        }
    }

    #[test]
    fn a_store_whose_rows_are_gone_is_copied_aside_and_refused() {
        type Damage = fn(&Path);
        let cases: [Damage; 2] = [
            |path| fs::remove_file(path.join("db")).unwrap(),
            |path| {
                for entry in fs::read_dir(path).unwrap().flatten() {
                    if entry.file_name() != MARKER && entry.file_type().unwrap().is_file() {
                        fs::remove_file(entry.path()).unwrap();
                    }
                }
            },
        ];
        for damage in cases {
            let (root, path) = filled(100);
            damage(&path);
            let error = SledStore::open(&path).err().unwrap();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            let copies = fs::read_dir(root.path()).unwrap().flatten();
            assert_eq!(copies.filter(|entry| entry.file_name().to_string_lossy().contains(".damaged-")).count(), 1);
            assert!(SledStore::open(&path).is_err(), "a second start must not begin anew");
        }
    }

    #[test]
    fn a_row_that_is_changed_often_does_not_fill_the_disk() {
        let (_root, path) = filled(0);
        let store = SledStore::open(&path).unwrap();
        for round in 0..40 {
            let mut batch = Batch::new();
            for at in 0..=255_u8 {
                batch.put(Table::KEYS, b"hot", vec![at; 600], Expect::Any);
            }
            assert_eq!(store.commit(&batch).unwrap().len(), 256, "{round}");
        }
        let size: u64 = fs::read_dir(&path).unwrap().flatten().map(|entry| entry.metadata().unwrap().len()).sum();
        assert!(size < 32 << 20, "{size} bytes");
    }
}
