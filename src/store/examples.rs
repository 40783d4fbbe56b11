//! A store with rows in it, for tests.

use std::path::PathBuf;

use super::{Batch, Expect, SledStore, Store, Table};

/// A closed store of `rows` keys of 300 bytes, and the folder that goes when the test ends.
pub(super) fn filled(rows: usize) -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("store");
    let store = SledStore::open(&path).unwrap();
    let all: Vec<usize> = (0..rows).collect();
    for some in all.chunks(500) {
        let mut batch = Batch::new();
        for at in some {
            batch.put(Table::KEYS, format!("key{at:06}").as_bytes(), vec![b'x'; 300], Expect::Absent);
        }
        store.commit(&batch).unwrap();
    }
    (root, path)
}

pub(super) fn count(store: &SledStore, prefix: &str) -> usize {
    let mut count = 0;
    store
        .scan(Table::KEYS, prefix.as_bytes(), &mut |_| {
            count += 1;
            Ok(())
        })
        .unwrap();
    count
}
