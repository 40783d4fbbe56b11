//! A store in memory that each input gets anew: what one leaves behind must not change what the next comes to.

use std::collections::BTreeMap;
use std::sync::Mutex;

use keyward::store::{Batch, CommitError, Committed, Order, Row, Store, StoreError, Table};

/// Rows by table and key.
#[derive(Default)]
pub struct Rows(Mutex<BTreeMap<(&'static str, Vec<u8>), Row>>);

impl Rows {
    /// A store of one row.
    pub fn one(table: Table, key: &[u8], value: &[u8]) -> Self {
        let row = Row { key: key.to_vec(), version: 1, value: value.to_vec() };
        Self(Mutex::new(BTreeMap::from([((table.0, key.to_vec()), row)])))
    }
}

impl Clone for Rows {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.0.lock().unwrap().clone()))
    }
}

impl Store for Rows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, StoreError> {
        Ok(self.0.lock().unwrap().get(&(table.0, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        each: &mut dyn FnMut(Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let rows = self.0.lock().unwrap().clone();
        let found = rows.into_iter().filter(|((of, key), _)| *of == table.0 && key.starts_with(prefix));
        found.map(|(_, row)| row).try_for_each(each)
    }

    /// Nothing that is fuzzed reads by the page.
    fn page(&self, _: Table, _: &[u8], _: Option<&[u8]>, _: Order, _: usize) -> Result<Vec<Row>, StoreError> {
        Ok(Vec::new())
    }

    /// Nothing that is fuzzed is backed up.
    fn snapshot(&self, _: &mut dyn FnMut(&str, Row) -> bool) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// One caller at a time changes it here, so that no precondition fails; what is appended nobody reads.
    fn commit(&self, batch: &Batch) -> Result<Committed, CommitError> {
        let mut rows = self.0.lock().unwrap();
        let commit = |change: &keyward::store::Change| {
            let place = (change.table.0, change.key.clone());
            let version = rows.get(&place).map_or(1, |row| row.version + 1);
            if let Some(value) = &change.value {
                rows.insert(place, Row { key: change.key.clone(), version, value: value.clone() });
                version
            } else {
                rows.remove(&place);
                0
            }
        };
        Ok(Committed { number: 1, versions: batch.changes().iter().map(commit).collect() })
    }
}
