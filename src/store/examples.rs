//! Stores for tests: one with rows in it, and one that takes no writes.

use std::path::PathBuf;

use super::{Batch, CommitError, Committed, Expect, Order, Row, SledStore, Store, StoreError, Table};

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

/// Whether a batch is one that cannot be written.
type Fails = dyn Fn(&Batch) -> bool + Send + Sync;

/// A store that cannot write what its test says that it cannot.
pub(crate) struct Failing {
    store: SledStore,
    fails: Box<Fails>,
}

impl Failing {
    pub(crate) fn new(store: SledStore, fails: impl Fn(&Batch) -> bool + Send + Sync + 'static) -> Self {
        Self { store, fails: Box::new(fails) }
    }
}

impl Store for Failing {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, StoreError> {
        self.store.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        each: &mut dyn FnMut(Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.store.scan(table, prefix, each)
    }

    fn page(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        most: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.store.page(table, prefix, after, order, most)
    }

    fn snapshot(&self, each: &mut dyn FnMut(&str, Row) -> bool) -> Result<u64, StoreError> {
        self.store.snapshot(each)
    }

    fn commit(&self, batch: &Batch) -> Result<Committed, CommitError> {
        if (self.fails)(batch) {
            let reason = "no space left on device".into();
            return Err(StoreError::Io { path: "store".into(), doing: "written", reason }.into());
        }
        self.store.commit(batch)
    }
}
