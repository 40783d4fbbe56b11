//! A whole store as a file, and the way back.
//!
//! The file is JSON lines: a header, a line for each row, and an end that says how many there were, at which commit, and the
//! SHA-256 of all lines before it, so that one that was cut short is not taken for whole. It holds what the store
//! holds: hashes, and no secret in the clear.

use std::fs;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use base64ct::{Base64Unpadded, Encoding};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Row, SledStore, Store, StoreError};

/// The format that is written, and the newest that is read.
const FORMAT: u32 = 1;
/// Rows of one write.
const CHUNK: usize = 1_000;

/// Why there is no backup, or why it was not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reading or writing the file.
    #[error("the backup cannot be read or written: {0}")]
    Io(#[from] io::Error),
    /// It is not a backup, or not a whole one.
    #[error("line {line} of the backup: {reason}. Nothing was restored; take another copy of it")]
    Broken {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// It was written by a newer version.
    #[error(
        "the backup has format {0}, and this version of keyward reads formats up to {FORMAT}: use the newer version"
    )]
    Newer(u32),
    /// There is something where the store is to be.
    #[error("{} is not empty: restore into a folder that is not there yet, or is empty", .0.display())]
    NotEmpty(PathBuf),
}

#[derive(Serialize, Deserialize)]
struct Header {
    keyward_backup: u32,
    made_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Line {
    table: String,
    key: String,
    version: u64,
    value: String,
}

#[derive(Serialize, Deserialize)]
struct End {
    rows: u64,
    commits: u64,
    sha256: String,
}

/// Counts and digests lines on their way out.
struct Lines<'a> {
    out: &'a mut dyn Write,
    sha: Sha256,
}

impl Lines<'_> {
    fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.sha.update(&text);
        self.out.write_all(&text)
    }
}

/// Writes every row of a store, as it is at one moment. Commits wait meanwhile, so that `out` should be a file.
///
/// # Errors
/// [`BackupError`]; what was written then is no backup.
pub fn back_up(store: &dyn Store, now: Timestamp, out: &mut dyn Write) -> Result<(), BackupError> {
    let mut lines = Lines { out, sha: Sha256::new() };
    lines.write(&Header { keyward_backup: FORMAT, made_at: now })?;
    let (mut rows, mut failed) = (0, None);
    let commits = store.snapshot(&mut |table, row| {
        let line = Line {
            table: table.to_owned(),
            key: Base64Unpadded::encode_string(&row.key),
            version: row.version,
            value: Base64Unpadded::encode_string(&row.value),
        };
        rows += 1;
        lines.write(&line).map_err(|error| failed = Some(error)).is_ok()
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let sha256 = Base64Unpadded::encode_string(&lines.sha.clone().finalize());
    lines.write(&End { rows, commits, sha256 })?;
    Ok(lines.out.flush()?)
}

/// Makes a store of a backup, whole or not at all; how many rows it has.
///
/// # Errors
/// [`BackupError`]; there is no store then.
pub fn restore(backup: &mut dyn BufRead, path: &Path) -> Result<u64, BackupError> {
    let is_empty = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(error.into()),
    };
    if !is_empty {
        return Err(BackupError::NotEmpty(path.to_owned()));
    }
    // In a folder beside it, and moved when it is whole: what is cut short is no store that anybody would open.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".restoring");
    let beside = PathBuf::from(beside);
    match fs::remove_dir_all(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let rows = match fill(backup, &beside) {
        Ok(rows) => rows,
        Err(error) => {
            let _ = fs::remove_dir_all(&beside);
            return Err(error);
        }
    };
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    fs::rename(&beside, path)?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(rows)
}

fn fill(backup: &mut dyn BufRead, path: &Path) -> Result<u64, BackupError> {
    let store = SledStore::open(path)?;
    let (mut sha, mut rows, mut pending, mut number) = (Sha256::new(), 0, Vec::new(), 0);
    let mut text = Vec::new();
    loop {
        number += 1;
        let broken = |reason: &str| BackupError::Broken { line: number, reason: reason.to_owned() };
        text.clear();
        if backup.read_until(b'\n', &mut text)? == 0 {
            return Err(broken("it ends before its end"));
        }
        if number == 1 {
            let header: Header = serde_json::from_slice(&text).map_err(|_| broken("this is no backup of a store"))?;
            if header.keyward_backup > FORMAT {
                return Err(BackupError::Newer(header.keyward_backup));
            }
        } else if let Ok(line) = serde_json::from_slice::<Line>(&text) {
            let bytes = |text: &str| Base64Unpadded::decode_vec(text).map_err(|_| broken("it is not base64"));
            let row = Row { key: bytes(&line.key)?, version: line.version, value: bytes(&line.value)? };
            pending.push((line.table, row));
            rows += 1;
            if pending.len() == CHUNK {
                store.put_back(&pending)?;
                pending.clear();
            }
        } else {
            let end: End = serde_json::from_slice(&text).map_err(|_| broken("it is neither a row nor the end"))?;
            if end.rows != rows || end.sha256 != Base64Unpadded::encode_string(&sha.clone().finalize()) {
                return Err(broken("rows are missing, or were changed"));
            }
            store.put_back(&pending)?;
            store.finish_restoring(end.commits)?;
            return Ok(rows);
        }
        sha.update(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, Expect, Order, Place, Table};

    fn backed_up(store: &SledStore) -> Vec<u8> {
        let mut out = Vec::new();
        back_up(store, Timestamp::UNIX_EPOCH, &mut out).unwrap();
        out
    }

    fn store(folder: &Path) -> SledStore {
        let store = SledStore::open(&folder.join("one")).unwrap();
        for number in 0..2_500_u32 {
            let mut batch = Batch::new();
            batch.put(Table::KEYS, &(number % 1_700).to_be_bytes(), number.to_be_bytes().to_vec(), Expect::Any);
            batch.append(Table::EVENTS, b"", 0, vec![0, 255, b'\n']);
            store.commit(&batch).unwrap();
        }
        store
    }

    #[test]
    fn a_store_comes_back_with_every_row_its_version_and_its_place_in_the_order_of_commits() {
        let folder = tempfile::tempdir().unwrap();
        let one = store(folder.path());
        let backup = backed_up(&one);
        let path = folder.path().join("two");
        assert_eq!(restore(&mut backup.as_slice(), &path).unwrap(), 1_700 + 2_500);
        let two = SledStore::open(&path).unwrap();
        assert_eq!(backed_up(&two), backup);
        for store in [&one, &two] {
            let mut batch = Batch::new();
            batch.append(Table::EVENTS, b"", 0, vec![]);
            assert_eq!(store.commit(&batch).unwrap().number, 2_501);
            let last = store.page(Table::EVENTS, b"", None, Order::Descending, 1).unwrap();
            assert_eq!(Place::of_key(&last[0].key).unwrap().commit, 2_501);
        }
        let full = restore(&mut backup.as_slice(), &path).unwrap_err();
        assert!(matches!(full, BackupError::NotEmpty(_)), "{full}");
    }

    #[test]
    fn what_is_not_a_whole_backup_makes_no_store() {
        let folder = tempfile::tempdir().unwrap();
        let backup = backed_up(&store(folder.path()));
        let text = String::from_utf8(backup.clone()).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let without_one = [&lines[..7], &lines[8..]].concat().concat();
        let cases = [
            (backup[..backup.len() / 2].to_vec(), "neither a row nor the end"),
            (lines[..9].concat().into_bytes(), "ends before its end"),
            (without_one.into_bytes(), "rows are missing"),
            (text.replacen("\"version\":1", "\"version\":2", 1).into_bytes(), "rows are missing"),
            (text.replacen("{\"keyward_backup\":1", "{\"keyward_backup\":9", 1).into_bytes(), "format 9"),
            (b"hello\n".to_vec(), "line 1 of the backup: this is no backup"),
            (vec![], "line 1"),
        ];
        let path = folder.path().join("two");
        for (broken, said) in cases {
            let error = restore(&mut broken.as_slice(), &path).unwrap_err().to_string();
            assert!(error.contains(said), "{said}: {error}");
            assert!(!path.exists() && !folder.path().join("two.restoring").exists(), "{said}");
        }
    }
}
