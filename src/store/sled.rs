//! The store on one machine: sled 0.34, with what it needs around it to be trusted.
//!
//! One tree; a row's key is its table's name, a zero byte, and its key; its value is a format byte, the
//! version, and the value. A commit checks and applies under one lock, then waits for a flush that it
//! shares with whoever waits at the same time. How a folder is opened is told in [`opening`](super::opening).

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use sled::{Db, IVec};

use super::opening::{self, COMMITS_ROW, FORMAT, META, Seal, Witness};
use super::{Batch, Change, CommitError, Committed, Expect, Order, Place, Row, Store, StoreError, Table};

/// Bytes before a row's value: its format and its version.
const HEADER: usize = 9;

/// A store in a folder.
pub struct SledStore {
    path: PathBuf,
    db: Db,
    /// Held while preconditions are checked and a batch is applied: one commit at a time. Counts commits,
    /// all that this store has ever seen.
    commits: Mutex<u64>,
    /// Held while flushing.
    disk: Mutex<Disk>,
    /// Set when a write failed: what is on disk is not known from then on. A second fsync may well succeed
    /// and mean nothing, so nothing is tried again.
    poisoned: AtomicBool,
    /// Below `db`, so that it is dropped after it.
    _seal: Seal,
}

/// What is on disk for certain.
struct Disk {
    /// The number of commits.
    flushed: u64,
    witness: Witness,
    files: Files,
}

/// sled leaves data in the drive's cache (spacejam/sled#1452), and does not sync large values, which it
/// keeps in files of their own, at all. These handles are for doing so after it. On a virtual disk with ext4 a lone commit takes 0.5 to 3 ms with it and 0.2 without; 16 writers, who
/// share flushes, get 5,000 to 6,000 commits a second with it and 7,300 without.
struct Files {
    db: File,
    blobs: PathBuf,
    synced: HashSet<OsString>,
}

impl Files {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { db: File::open(path.join("db"))?, blobs: path.join("blobs"), synced: HashSet::new() })
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut present = HashSet::new();
        for blob in fs::read_dir(&self.blobs)? {
            let blob = blob?;
            if !self.synced.contains(&blob.file_name()) {
                match File::open(blob.path()) {
                    Ok(file) => file.sync_all()?,
                    // sled removes what is no longer needed, at any time.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
            }
            present.insert(blob.file_name());
        }
        if present != self.synced {
            File::open(&self.blobs)?.sync_all()?;
            self.synced = present;
        }
        self.db.sync_data()
    }
}

impl SledStore {
    /// Opens the store in `path`, and makes one where there is nothing yet.
    ///
    /// A damaged store is copied aside, then opened without its snapshots, which sled can do without.
    ///
    /// # Errors
    /// [`StoreError`], naming the folder and the way out.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let opened = opening::open(path)?;
        let files = Files::open(path).map_err(|error| StoreError::Io {
            path: path.to_owned(),
            doing: "opened",
            reason: error.to_string(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            db: opened.db,
            commits: Mutex::new(opened.commits),
            disk: Mutex::new(Disk { flushed: opened.commits, witness: opened.witness, files }),
            poisoned: AtomicBool::new(false),
            _seal: opened.seal,
        })
    }

    fn failed(&self, doing: &'static str, error: &dyn std::fmt::Display) -> StoreError {
        StoreError::Io { path: self.path.clone(), doing, reason: error.to_string() }
    }

    fn unreadable(&self, error: &dyn std::fmt::Display) -> StoreError {
        StoreError::Unreadable { path: self.path.clone(), reason: error.to_string() }
    }

    fn row(&self, key: Vec<u8>, value: &IVec) -> Result<Row, StoreError> {
        let short = || self.unreadable(&"a row is too short");
        let (&format, rest) = value.split_first().ok_or_else(short)?;
        if format != FORMAT {
            return Err(StoreError::Newer { path: self.path.clone(), found: format.into(), known: FORMAT.into() });
        }
        let (version, value) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        Ok(Row { key, version: u64::from_be_bytes(*version), value: value.to_vec() })
    }

    /// sled panics on some kinds of damage; here that is an error like another.
    fn read<T>(&self, read: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, StoreError> {
        match catch_unwind(AssertUnwindSafe(read)) {
            Ok(Err(sled::Error::Io(error))) => Err(self.failed("read", &error)),
            Ok(done) => done.map_err(|error| self.unreadable(&error)),
            Err(_) => Err(self.unreadable(&"sled cannot make sense of it")),
        }
    }

    /// Checks and applies a batch. It is not on disk then.
    fn apply(&self, batch: &Batch) -> Result<Committed, CommitError> {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut writes = sled::Batch::default();
        let mut versions = Vec::with_capacity(batch.changes().len());
        let mut changed = HashSet::with_capacity(batch.changes().len());
        for change in batch.changes() {
            let at = full_key(change.table, &change.key);
            if !changed.insert(at.clone()) {
                return Err(CommitError::Conflict { table: change.table, key: change.key.clone() });
            }
            let version = self.checked_version(change)?;
            versions.push(match &change.value {
                Some(value) => {
                    writes.insert(at, record(version + 1, value));
                    version + 1
                }
                None => {
                    writes.remove(at);
                    0
                }
            });
        }
        let number = *commits + 1;
        for append in batch.appends() {
            let place = Place { commit: number, ordinal: append.ordinal };
            let at = full_key(append.table, &[append.prefix.as_slice(), &place.to_bytes()].concat());
            writes.insert(at, record(1, &append.value));
        }
        writes.insert(COMMITS_ROW, &number.to_be_bytes());
        self.db.apply_batch(writes).map_err(|error| self.poison(&error))?;
        *commits = number;
        Ok(Committed { number, versions })
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
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.flushed >= mine {
            return Ok(());
        }
        // Whoever held the lock before may have failed with our rows among his.
        self.refuse_poisoned()?;
        let applied = *self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        self.db.flush().map_err(|error| self.poison(&error))?;
        disk.files.sync().map_err(|error| self.poison(&error))?;
        disk.flushed = applied;
        disk.witness.note(applied);
        Ok(())
    }

    /// Writes rows back as a backup has them, versions and all. They are on disk after [`finish_restoring`](Self::finish_restoring).
    pub(super) fn put_back(&self, rows: &[(String, Row)]) -> Result<(), StoreError> {
        let mut writes = sled::Batch::default();
        for (table, row) in rows {
            let at = [table.as_bytes(), &[0], row.key.as_slice()].concat();
            writes.insert(at, record(row.version, &row.value));
        }
        self.db.apply_batch(writes).map_err(|error| self.poison(&error))
    }

    /// Goes on counting commits where the backup left off, and returns when everything is on disk.
    pub(super) fn finish_restoring(&self, number: u64) -> Result<(), StoreError> {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        self.db.insert(COMMITS_ROW, &number.to_be_bytes()).map_err(|error| self.poison(&error))?;
        *commits = number;
        drop(commits);
        // Not `number`: a backup may be of a store that counted less than this one has by now.
        self.wait_for_disk(u64::MAX)
    }

    fn refuse_poisoned(&self) -> Result<(), StoreError> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(StoreError::Poisoned { path: self.path.clone() });
        }
        Ok(())
    }

    fn poison(&self, error: &dyn std::fmt::Display) -> StoreError {
        self.poisoned.store(true, Ordering::Release);
        self.failed("written", error)
    }
}

impl Store for SledStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, StoreError> {
        let found = self.read(|| self.db.get(full_key(table, key)))?;
        found.map(|value| self.row(key.to_vec(), &value)).transpose()
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        each: &mut dyn FnMut(Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let table_length = table.0.len() + 1;
        let mut rows = self.db.scan_prefix(full_key(table, prefix));
        while let Some((key, value)) = self.read(|| rows.next().transpose())? {
            // sled counts what it keeps in memory in 256 parts, and looks at a part after 64 accesses to it; a scan reads
            // each page about once, so that all would stay. A second read makes it look: 200,000 keys then take
            // 10 MB of memory instead of 60.
            self.read(|| self.db.get(&key))?;
            each(self.row(key.get(table_length..).unwrap_or_default().to_vec(), &value)?)?;
        }
        Ok(())
    }

    fn page(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        most: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let (table_length, prefix) = (table.0.len() + 1, full_key(table, prefix));
        let after = after.map(|after| full_key(table, after));
        // No key follows the table's longest: prefixes are ASCII or places, and a row's key is never this long.
        let end = [prefix.as_slice(), &[0xff; 64]].concat();
        let mut rows = match (order, after) {
            (Order::Ascending, Some(after)) => self.db.range((Bound::Excluded(after), Bound::Included(end))),
            (Order::Descending, Some(after)) => self.db.range((Bound::Included(prefix), Bound::Excluded(after))),
            (_, None) => self.db.range((Bound::Included(prefix), Bound::Included(end))),
        };
        let mut page = Vec::new();
        while page.len() < most {
            let next = self.read(|| match order {
                Order::Ascending => rows.next().transpose(),
                Order::Descending => rows.next_back().transpose(),
            })?;
            let Some((key, value)) = next else { break };
            page.push(self.row(key.get(table_length..).unwrap_or_default().to_vec(), &value)?);
        }
        Ok(page)
    }

    fn snapshot(&self, each: &mut dyn FnMut(&str, Row) -> bool) -> Result<u64, StoreError> {
        let commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = self.db.iter();
        while let Some((at, value)) = self.read(|| rows.next().transpose())? {
            let name = at.iter().position(|byte| *byte == 0).and_then(|end| at.split_at_checked(end));
            let named = name.and_then(|(table, key)| Some((std::str::from_utf8(table).ok()?, key.get(1..)?)));
            let (table, key) = named.ok_or_else(|| self.unreadable(&"a row has no table"))?;
            // The store's own rows: whoever restores makes them anew.
            if table != META && !each(table, self.row(key.to_vec(), &value)?) {
                break;
            }
        }
        Ok(*commits)
    }

    fn commit(&self, batch: &Batch) -> Result<Committed, CommitError> {
        self.refuse_poisoned()?;
        let committed = self.apply(batch)?;
        self.wait_for_disk(committed.number)?;
        Ok(committed)
    }
}

fn record(version: u64, value: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER + value.len());
    record.push(FORMAT);
    record.extend_from_slice(&version.to_be_bytes());
    record.extend_from_slice(value);
    record
}

fn full_key(table: Table, key: &[u8]) -> Vec<u8> {
    [table.0.as_bytes(), &[0], key].concat()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use super::super::examples::{count, filled};
    use super::*;

    fn put(store: &SledStore, key: &str, value: &str, expect: Expect) -> Result<u64, CommitError> {
        let mut batch = Batch::new();
        batch.put(Table::KEYS, key.as_bytes(), value.into(), expect);
        store.commit(&batch).map(|committed| committed.versions[0])
    }

    fn value(store: &SledStore, key: &str) -> Option<(u64, String)> {
        let row = store.get(Table::KEYS, key.as_bytes()).unwrap()?;
        Some((row.version, String::from_utf8(row.value).unwrap()))
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
            for _ in 0..100 {
                scope.spawn(|| {
                    let mut done = 0;
                    while done < 2 {
                        let (version, number) = value(&store, "n").unwrap();
                        let next = (number.parse::<u32>().unwrap() + 1).to_string();
                        done += usize::from(put(&store, "n", &next, Expect::Version(version)).is_ok());
                    }
                });
            }
        });
        assert_eq!(value(&store, "n"), Some((201, "200".into())));
    }

    #[test]
    fn appended_rows_are_read_a_page_at_a_time_in_both_orders_and_stay_in_their_table_and_prefix() {
        let (root, path) = filled(0);
        let store = SledStore::open(&path).unwrap();
        for number in 0..5_u8 {
            let mut batch = Batch::new();
            batch.append(Table::EVENTS, b"", 0, vec![number]);
            batch.append(Table::EVENTS, b"", 1, vec![number, 1]);
            batch.append(Table::KEY_EVENTS, if number % 2 == 0 { b"even" } else { b"odd_" }, 0, vec![number]);
            store.commit(&batch).unwrap();
        }
        let read = |table, prefix: &[u8], order| {
            let (mut all, mut after) = (Vec::new(), None::<Vec<u8>>);
            loop {
                let page = store.page(table, prefix, after.as_deref(), order, 3).unwrap();
                let Some(last) = page.last() else { break all };
                after = Some(last.key.clone());
                assert!(page.iter().all(|row| Place::of_key(&row.key).unwrap().commit > 0));
                all.extend(page.into_iter().map(|row| row.value));
            }
        };
        let all: Vec<Vec<u8>> = (0..5).flat_map(|number| [vec![number], vec![number, 1]]).collect();
        assert_eq!(read(Table::EVENTS, b"", Order::Ascending), all);
        assert_eq!(read(Table::EVENTS, b"", Order::Descending), all.into_iter().rev().collect::<Vec<_>>());
        assert_eq!(read(Table::KEY_EVENTS, b"even", Order::Ascending), [[0], [2], [4]]);
        assert_eq!(read(Table::KEY_EVENTS, b"odd_", Order::Descending), [[3], [1]]);
        assert_eq!(read(Table::ONCE, b"", Order::Descending), [[0; 0]; 0]);
        drop(store);
        drop(root);
    }

    #[test]
    fn a_second_change_of_a_row_in_a_batch_is_a_conflict() {
        let (_root, path) = filled(0);
        let store = SledStore::open(&path).unwrap();
        let mut batch = Batch::new();
        batch.put(Table::KEYS, b"a", b"1".to_vec(), Expect::Absent);
        batch.put(Table::KEYS, b"a", b"2".to_vec(), Expect::Any);
        assert!(matches!(store.commit(&batch), Err(CommitError::Conflict { .. })));
        assert_eq!(value(&store, "a"), None);
    }

    #[test]
    fn a_row_of_a_newer_format_is_an_error_and_not_a_guess() {
        let (_root, path) = filled(0);
        let store = SledStore::open(&path).unwrap();
        store.db.insert(full_key(Table::KEYS, b"new"), vec![2; 20]).unwrap();
        store.db.insert(full_key(Table::KEYS, b"short"), vec![1; 4]).unwrap();
        assert!(matches!(store.get(Table::KEYS, b"new"), Err(StoreError::Newer { found: 2, .. })));
        assert!(matches!(store.get(Table::KEYS, b"short"), Err(StoreError::Unreadable { .. })));
    }

    #[test]
    fn after_a_failed_write_no_change_is_taken_and_none_is_reported_as_done() {
        let (_root, path) = filled(0);
        let store = SledStore::open(&path).unwrap();
        put(&store, "a", "1", Expect::Absent).unwrap();
        // A folder of large values that is not there is the one disk error that a test can make.
        store.disk.lock().unwrap().files.blobs = path.join("gone");
        assert!(matches!(put(&store, "b", "1", Expect::Absent), Err(CommitError::Store(StoreError::Io { .. }))));
        store.disk.lock().unwrap().files.blobs = path.join("blobs");
        assert!(matches!(put(&store, "c", "1", Expect::Absent), Err(CommitError::Store(StoreError::Poisoned { .. }))));
        let waiting = store.apply(&Batch::new()).unwrap().number;
        assert!(matches!(store.wait_for_disk(waiting), Err(StoreError::Poisoned { .. })));
        assert_eq!(value(&store, "a"), Some((1, "1".into())), "reading goes on");
    }

    #[test]
    fn large_values_are_kept_and_synced() {
        let (_root, path) = filled(0);
        let large = vec![7_u8; 1 << 20];
        let store = SledStore::open(&path).unwrap();
        for version in 1..=3 {
            let mut batch = Batch::new();
            batch.put(Table::REVISIONS, b"last", large.clone(), Expect::Any);
            assert_eq!(store.commit(&batch).unwrap().versions, [version]);
            assert!(!store.disk.lock().unwrap().files.synced.is_empty());
        }
        drop(store);
        let store = SledStore::open(&path).unwrap();
        assert_eq!(store.get(Table::REVISIONS, b"last").unwrap().unwrap().value, large);
    }

    #[test]
    fn a_row_that_is_changed_20000_times_does_not_fill_the_disk() {
        let (_root, path) = filled(1_000);
        let store = SledStore::open(&path).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..50_u8 {
                let store = &store;
                scope.spawn(move || {
                    for _ in 0..400 {
                        let mut batch = Batch::new();
                        batch.put(Table::KEYS, b"hot", vec![writer; 300], Expect::Any);
                        store.commit(&batch).unwrap();
                    }
                });
            }
        });
        assert_eq!(store.get(Table::KEYS, b"hot").unwrap().unwrap().version, 20_000);
        let size: u64 = fs::read_dir(&path).unwrap().flatten().map(|entry| entry.metadata().unwrap().len()).sum();
        assert!(size < 32 << 20, "{size} bytes");
    }

    const CHILD_STORE: &str = "KEYWARD_TEST_STORE";

    /// The child of the test below: commits pairs of rows and says so, until it is killed.
    #[test]
    fn commits_until_it_is_killed_when_it_is_told_a_store() {
        let Some(path) = std::env::var_os(CHILD_STORE) else { return };
        let store = SledStore::open(Path::new(&path)).unwrap();
        let round = count(&store, "a");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let store = &store;
                scope.spawn(move || {
                    for at in 0..2_000 {
                        let name = format!("{round}-{writer}-{at}");
                        let mut batch = Batch::new();
                        batch.put(Table::KEYS, format!("a{name}").as_bytes(), vec![1; 300], Expect::Absent);
                        batch.put(Table::KEYS, format!("b{name}").as_bytes(), vec![1; 300], Expect::Absent);
                        store.commit(&batch).unwrap();
                        // Straight to the pipe: the harness would keep what is printed.
                        // In one piece: a child that is killed between two would have said half a name.
                        io::stderr().write_all(format!("done {name}\n").as_bytes()).unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn what_was_reported_as_done_survives_being_killed() {
        let (_root, path) = filled(100);
        let mut done = Vec::new();
        for round in 1..=5 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "store::sled::tests::commits_until_it_is_killed_when_it_is_told_a_store"])
                .arg("--nocapture")
                .env(CHILD_STORE, &path)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stderr.take().unwrap()).lines();
            let before = done.len();
            for line in lines {
                done.extend(line.unwrap().strip_prefix("done ").map(str::to_owned));
                if done.len() == before + round * 40 {
                    child.kill().unwrap();
                }
            }
            child.wait().unwrap();
            assert!(done.len() >= before + round * 40, "round {round}: the child ended early");
            let store = SledStore::open(&path).unwrap();
            for name in &done {
                assert!(value_bytes(&store, &format!("a{name}")), "round {round}: {name} is gone");
            }
            assert_eq!(count(&store, "a"), count(&store, "b"), "round {round}: half a batch");
            assert_eq!(count(&store, "key"), 100);
        }
    }

    fn value_bytes(store: &SledStore, key: &str) -> bool {
        store.get(Table::KEYS, key.as_bytes()).unwrap().is_some()
    }
}
