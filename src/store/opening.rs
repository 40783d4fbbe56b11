//! Opening the folder of a store: is it ours, of a format that we read, whole, and free?
//!
//! Small files stand beside sled's own. `keyward-store` says the format, so that a newer store is
//! recognised before anything is opened. `keyward-commits` counts the commits that were reported as
//! done: sled takes a log that ends early for a crash and quietly forgets the rest, and with it keys and
//! revocations. `keyward-closed` is the seal of a store that was closed: without it, or when the files are
//! others since, there is a copy before sled opens them, because sled wipes what it cannot read.
//! `keyward-damaged` is left where a store could not be mended, so that a daemon that is started over and
//! over copies it aside once. Nothing here reads or writes a row of the tables.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sled::Db;

use super::StoreError;

/// The newest format of stores and rows that is understood.
pub(super) const FORMAT: u8 = 1;
/// The table of the store's own rows.
pub(super) const META: &str = "meta";
/// The row that counts commits, written with each of them.
pub(super) const COMMITS_ROW: &[u8] = b"meta\0commits";
/// A row that every store has: a tree without it is not the one that was written.
const FORMAT_ROW: &[u8] = b"meta\0format";
const MARKER: &str = "keyward-store";
const WITNESS: &str = "keyward-commits";
const SEAL: &str = "keyward-closed";
const NOTE: &str = "keyward-damaged";
/// The copy of a store that sled is about to open; it is complete once it has this name.
const UNOPENED: &str = "unopened";
/// The beginning of the name of a copy of a damaged store.
const DAMAGED: &str = "damaged-";
/// How long to wait for another process to let go of the store, looking again after each pause.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes that sled may keep in memory. All that is read again and again lives in the ring.
const CACHE: u64 = 1 << 20;

/// An open store.
pub(super) struct Opened {
    pub(super) db: Db,
    /// How many commits it holds.
    pub(super) commits: u64,
    pub(super) witness: Witness,
    pub(super) seal: Seal,
}

/// Seals the store when it is dropped, which has to be after sled wrote for the last time.
pub(super) struct Seal(PathBuf);

impl Seal {
    /// What the log was when it was closed: length and time of the last write.
    fn of(path: &Path) -> std::io::Result<String> {
        let db = fs::metadata(path.join("db"))?;
        Ok(format!("{} bytes {}.{:09}\n", db.len(), db.mtime(), db.mtime_nsec()))
    }

    /// Whether nobody wrote since the store was closed.
    fn is_whole(path: &Path) -> std::io::Result<bool> {
        match fs::read_to_string(path.join(SEAL)) {
            Ok(seal) => Ok(seal == Self::of(path)?),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Seal {
    fn drop(&mut self) {
        // Without it the next start makes a copy that it could have spared.
        if let Err(error) = Self::of(&self.0).and_then(|seal| fs::write(self.0.join(SEAL), seal)) {
            tracing::debug!(%error, "the store cannot be sealed");
        }
    }
}

/// The file that counts the commits that were reported as done. It lags behind after a loss of power,
/// never ahead: so it needs no fsync, and a failure to write it loses only sharpness.
pub(super) struct Witness(File);

impl Witness {
    fn open(path: &Path) -> std::io::Result<Self> {
        let options = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
        options.open(path.join(WITNESS)).map(Self)
    }

    /// Written in place and within one block, so that it is never half a number.
    pub(super) fn note(&self, commits: u64) {
        if let Err(error) = self.0.write_all_at(format!("{commits:020}\n").as_bytes(), 0) {
            tracing::warn!(%error, "the count of commits cannot be written");
        }
    }
}

/// Opens the store in `path`, and makes one where there is nothing yet.
pub(super) fn open(path: &Path) -> Result<Opened, StoreError> {
    let io = |error| refused(path, "opened", &error);
    let was_there = read_marker(path)?;
    if let Ok(copy) = fs::read_to_string(path.join(NOTE)) {
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            copy: copy.trim().into(),
            reason: "an earlier start found it so".into(),
        });
    }
    if !was_there && path.is_dir() {
        refuse_foreign(path).map_err(|reason| StoreError::Foreign { path: path.to_owned(), reason })?;
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
    keep_private(path).map_err(io)?;
    let copy = if was_there { copy_unsealed(path)? } else { None };
    let opened = match open_patiently(path, was_there) {
        Err(Failure::Damaged(reason)) => open_damaged(path, &reason, copy.as_deref()),
        Err(Failure::Refused(error)) => Err(error),
        Ok(opened) => {
            if let Some(copy) = copy {
                fs::remove_dir_all(copy).map_err(io)?;
            }
            Ok(opened)
        }
    };
    let (db, commits) = opened?;
    let opened = Opened { db, commits, witness: Witness::open(path).map_err(io)?, seal: Seal(path.to_owned()) };
    opened.witness.note(commits);
    if !was_there {
        let begin = || {
            opened.db.insert(FORMAT_ROW, &[FORMAT])?;
            opened.db.flush()
        };
        begin().map_err(|error| StoreError::Io {
            path: path.to_owned(),
            doing: "written",
            reason: error.to_string(),
        })?;
        write_marker(path).map_err(io)?;
    }
    Ok(opened)
}

/// Takes a folder of hashes away from others, who may have been able to read it.
fn keep_private(path: &Path) -> std::io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o777 == mode & 0o700 {
        return Ok(());
    }
    tracing::warn!(store = %path.display(), "others could read the store's folder; it is its owner's alone from now on");
    fs::set_permissions(path, fs::Permissions::from_mode(mode & !0o077))
}

fn refused(path: &Path, doing: &'static str, error: &std::io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), doing, reason: error.to_string() }
}

/// Whether there is a store in this folder.
fn read_marker(path: &Path) -> Result<bool, StoreError> {
    let text = match fs::read_to_string(path.join(MARKER)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(refused(path, "opened", &error)),
    };
    let found: Option<u64> = text.trim().strip_prefix("format ").and_then(|number| number.parse().ok());
    match found {
        Some(found) if found == u64::from(FORMAT) => Ok(true),
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
    const OURS: [&str; 6] = ["db", "conf", "blobs", WITNESS, SEAL, "keyward-store.new"];
    for entry in fs::read_dir(path).map_err(|error| error.to_string())? {
        let name = entry.map_err(|error| error.to_string())?.file_name();
        let name = name.to_string_lossy();
        if !OURS.contains(&&*name) && !name.starts_with("snap.") {
            return Err(format!("it holds {name}"));
        }
    }
    Ok(())
}

enum Failure {
    Refused(StoreError),
    Damaged(String),
}

/// Opens the tree, and waits a moment for another process that is just ending to let go of it.
fn open_patiently(path: &Path, was_there: bool) -> Result<(Db, u64), Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        match open_whole(path, was_there) {
            Err(Failure::Refused(StoreError::InUse { .. })) if Instant::now() < until => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}

/// Opens the tree and makes sure that it is the one that was written, with all that was reported as done.
/// sled panics on some kinds of damage; on a thread of its own that is a kind of error.
fn open_whole(path: &Path, was_there: bool) -> Result<(Db, u64), Failure> {
    let folder = path.to_owned();
    std::thread::spawn(move || open_tree(&folder, was_there))
        .join()
        .unwrap_or_else(|_| Err(Failure::Damaged("sled cannot read it".into())))
}

fn open_tree(path: &Path, was_there: bool) -> Result<(Db, u64), Failure> {
    if was_there && !path.join("db").is_file() {
        return Err(Failure::Damaged("its file `db` is gone".into()));
    }
    let failed = |error| failure(path, error);
    let config = sled::Config::new().path(path).cache_capacity(CACHE).mode(sled::Mode::LowSpace).flush_every_ms(None);
    let db = config.open().map_err(failed)?;
    match db.get(FORMAT_ROW).map_err(failed)?.as_deref() {
        None if was_there => return Err(Failure::Damaged("its rows are gone".into())),
        None if !db.is_empty() => {
            let reason = "it is a sled database of another program".into();
            return Err(Failure::Refused(StoreError::Foreign { path: path.to_owned(), reason }));
        }
        None | Some([FORMAT]) => {}
        Some(other) => {
            let found = other.first().copied().unwrap_or_default().into();
            let known = FORMAT.into();
            return Err(Failure::Refused(StoreError::Newer { path: path.to_owned(), found, known }));
        }
    }
    let count = db.get(COMMITS_ROW).map_err(failed)?;
    let commits = count.and_then(|count| Some(u64::from_be_bytes(count.as_ref().try_into().ok()?))).unwrap_or_default();
    let reported = fs::read_to_string(path.join(WITNESS)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    if commits < reported {
        return Err(Failure::Damaged(format!("its last {} changes are gone", reported - commits)));
    }
    Ok((db, commits))
}

fn failure(path: &Path, error: sled::Error) -> Failure {
    match error {
        // sled tries once and does not wait; it has no kind of error for this.
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            Failure::Refused(StoreError::InUse { path: path.to_owned() })
        }
        sled::Error::Io(error) if error.kind() != ErrorKind::UnexpectedEof => {
            Failure::Refused(refused(path, "opened", &error))
        }
        error => Failure::Damaged(error.to_string()),
    }
}

/// Breaks the seal; where there is none that holds, makes a copy, unless an interrupted start left one.
fn copy_unsealed(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    let io = |error| refused(path, "copied aside", &error);
    let db = match File::open(path.join("db")) {
        Ok(db) => db,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(path, "opened", &error)),
    };
    // sled's own lock: whoever holds it is writing. It is let go with the file, for sled to take.
    let until = Instant::now() + PATIENCE;
    while let Err(error) = db.try_lock() {
        match error {
            fs::TryLockError::WouldBlock if Instant::now() < until => std::thread::sleep(PAUSE),
            fs::TryLockError::WouldBlock => return Err(StoreError::InUse { path: path.to_owned() }),
            fs::TryLockError::Error(error) => return Err(refused(path, "opened", &error)),
        }
    }
    let copy = path.join(UNOPENED);
    if Seal::is_whole(path).map_err(io)? {
        fs::remove_file(path.join(SEAL)).map_err(io)?;
        return Ok(None);
    }
    if !copy.exists() {
        copy_aside(path, &copy).map_err(io)?;
    }
    Ok(Some(copy))
}

/// Keeps a copy of a damaged store, drops its snapshots, which sled can rebuild, and tries once more.
fn open_damaged(path: &Path, reason: &str, copy: Option<&Path>) -> Result<(Db, u64), StoreError> {
    let io = |error| refused(path, "copied aside", &error);
    let kept = path.join(format!("{DAMAGED}{}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ")));
    tracing::error!(store = %path.display(), copy = %kept.display(), reason, "the store is damaged; keeping a copy, then opening it without its snapshots");
    match copy {
        Some(copy) => fs::rename(copy, &kept),
        None => copy_aside(path, &kept),
    }
    .map_err(io)?;
    for entry in fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            fs::remove_file(entry.path()).map_err(io)?;
        }
    }
    match open_whole(path, true) {
        Ok(opened) => {
            tracing::warn!(store = %path.display(), "the store was opened without its snapshots, and is whole");
            Ok(opened)
        }
        Err(Failure::Refused(error)) => Err(error),
        Err(Failure::Damaged(again)) => {
            fs::write(path.join(NOTE), format!("{}\n", kept.display())).map_err(io)?;
            let reason = format!("{reason}; without its snapshots: {again}");
            Err(StoreError::Damaged { path: path.to_owned(), copy: kept, reason })
        }
    }
}

/// Copies a store's files to a folder within it, which has its name once it is complete.
fn copy_aside(path: &Path, copy: &Path) -> std::io::Result<()> {
    let partial = path.join("unfinished-copy");
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let copied = copy_files(path, &partial).and_then(|()| copy_files(&path.join("blobs"), &partial.join("blobs")));
    if copied.is_err() {
        // Half a copy is worth nothing, and the disk may be full.
        let _ = fs::remove_dir_all(&partial);
    }
    copied.and_then(|()| fs::rename(&partial, copy))
}

/// The files of a folder, none of its folders. A folder that is not there has none.
fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::examples::{count, filled};
    use super::super::{Batch, Expect, SledStore, Store, StoreError, Table};
    use super::*;

    type Damage = fn(&Path);

    fn each_file(path: &Path, mut visit: impl FnMut(&str, &Path)) {
        for entry in fs::read_dir(path).unwrap().flatten() {
            if entry.file_type().unwrap().is_file() {
                visit(&entry.file_name().to_string_lossy(), &entry.path());
            }
        }
    }

    fn copies(path: &Path) -> usize {
        let entries = fs::read_dir(path).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(DAMAGED)).count()
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
    fn a_newer_store_without_its_marker_is_not_taken_for_an_old_one() {
        let (_root, path) = filled(1);
        let db = sled::open(&path).unwrap();
        db.insert(FORMAT_ROW, &[2]).unwrap();
        db.flush().unwrap();
        drop(db);
        fs::remove_file(path.join(MARKER)).unwrap();
        let error = SledStore::open(&path).err().unwrap();
        assert!(matches!(error, StoreError::Newer { found: 2, .. }), "{error}");
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
    }

    #[test]
    fn a_place_where_no_folder_can_be_is_named_in_the_error() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("letter.txt");
        fs::write(&file, "dear").unwrap();
        for path in [file.clone(), file.join("store"), PathBuf::from("/proc/keyward")] {
            let error = SledStore::open(&path).err().unwrap();
            assert!(matches!(error, StoreError::Io { .. }), "{error}");
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        }
    }

    #[test]
    fn a_new_store_is_its_owners_alone() {
        let (_root, path) = filled(0);
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        drop(SledStore::open(&path).unwrap());
        assert_eq!(mode(), 0o700, "and one that was open to others is no more");
    }

    #[test]
    fn a_closed_store_is_sealed_until_it_is_opened_or_written_to() {
        let (_root, path) = filled(100);
        assert!(Seal::is_whole(&path).unwrap());
        let store = SledStore::open(&path).unwrap();
        assert!(!Seal::is_whole(&path).unwrap(), "whoever is killed now leaves no seal");
        drop(store);
        assert!(Seal::is_whole(&path).unwrap());
        let db = fs::OpenOptions::new().append(true).open(path.join("db")).unwrap();
        db.set_len(db.metadata().unwrap().len() - 1).unwrap();
        assert!(!Seal::is_whole(&path).unwrap());
    }

    #[test]
    fn a_copy_that_a_start_left_behind_unfinished_is_made_anew() {
        let (_root, path) = filled(100);
        fs::remove_file(path.join(SEAL)).unwrap();
        fs::create_dir(path.join("unfinished-copy")).unwrap();
        assert_eq!(count(&SledStore::open(&path).unwrap(), ""), 100);
        assert!(!path.join("unfinished-copy").exists() && !path.join(UNOPENED).exists());
    }

    #[test]
    fn damage_that_sled_can_do_without_loses_nothing() {
        let cases: [(&str, Damage); 3] = [
            ("a stray empty snapshot", |path| fs::write(path.join("snap.0000000000001234.generating"), "").unwrap()),
            ("an empty snapshot", |path| fs::write(path.join("snap.7FFFFFFFFFFFFFFF"), "").unwrap()),
            ("a zeroed snapshot", |path| {
                let mut zeroed = 0;
                each_file(path, |name, file| {
                    if name.starts_with("snap.") {
                        let length = usize::try_from(fs::metadata(file).unwrap().len()).unwrap();
                        fs::write(file, vec![0; length]).unwrap();
                        zeroed += 1;
                    }
                });
                assert!(zeroed > 0);
            }),
        ];
        for (what, damage) in cases {
            let (_root, path) = filled(2_000);
            // The second opening is the one that writes a snapshot of it all.
            drop(SledStore::open(&path).unwrap());
            damage(&path);
            let store = SledStore::open(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(count(&store, ""), 2_000, "{what}");
        }
    }

    #[test]
    fn a_log_that_ends_early_is_not_taken_for_a_crash() {
        let (root, path) = filled(0);
        let store = SledStore::open(&path).unwrap();
        for at in 0..100_u8 {
            let mut batch = Batch::new();
            batch.put(Table::KEYS, &[at], vec![at; 300], Expect::Absent);
            store.commit(&batch).unwrap();
        }
        // What a crash at this moment would leave, with and without the last bytes of the log.
        for (lost, whole) in [(0, true), (100, false), (5_000, false)] {
            let crashed = root.path().join(format!("crashed-{lost}"));
            copy_files(&path, &crashed).unwrap();
            copy_files(&path.join("blobs"), &crashed.join("blobs")).unwrap();
            let mut log = fs::read(crashed.join("db")).unwrap();
            let end = log.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            log[end - lost..end].fill(0);
            fs::write(crashed.join("db"), log).unwrap();
            match SledStore::open(&crashed) {
                Ok(store) => assert_eq!((whole, count(&store, "")), (true, 100), "{lost}"),
                Err(error) => assert!(!whole && error.to_string().contains("changes are gone"), "{lost}: {error}"),
            }
        }
        // The way out that the error names: to accept the loss.
        let accepted = root.path().join("crashed-100");
        fs::remove_file(accepted.join(NOTE)).unwrap();
        fs::remove_file(accepted.join(WITNESS)).unwrap();
        assert_eq!(count(&SledStore::open(&accepted).unwrap(), ""), 99);
    }

    #[test]
    fn a_store_that_lost_what_was_reported_as_done_is_copied_aside_once_and_refused() {
        let cases: [(&str, Damage); 4] = [
            ("no db", |path| fs::remove_file(path.join("db")).unwrap()),
            ("nothing of sled's", |path| {
                each_file(path, |name, file| {
                    if name != MARKER {
                        fs::remove_file(file).unwrap();
                    }
                });
            }),
            ("half a db", |path| {
                let db = fs::OpenOptions::new().write(true).open(path.join("db")).unwrap();
                db.set_len(db.metadata().unwrap().len() / 2).unwrap();
            }),
            ("half a db and no snapshots", |path| {
                let db = fs::OpenOptions::new().write(true).open(path.join("db")).unwrap();
                db.set_len(db.metadata().unwrap().len() / 2).unwrap();
                each_file(path, |name, file| {
                    if name.starts_with("snap.") {
                        fs::remove_file(file).unwrap();
                    }
                });
            }),
        ];
        for (what, damage) in cases {
            let (_root, path) = filled(8_000);
            damage(&path);
            for start in 1..=3 {
                let error = SledStore::open(&path).err().unwrap_or_else(|| panic!("{what}, start {start}"));
                assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error}");
                assert!(error.to_string().contains(DAMAGED), "{what}: {error}");
                assert_eq!(copies(&path), 1, "{what}, start {start}");
            }
        }
    }
}
