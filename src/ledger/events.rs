//! The event trail, to be read.

use super::{Ledger, LedgerError, decode};
use crate::key::{AccountId, KeyId};
use crate::store::{Order, Place, Row, StoreError, Table};
use crate::trail::{Event, EventId};

/// Whose events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About<'a> {
    /// Everybody's.
    Everything,
    /// An account's, and those of its keys.
    Account(&'a AccountId),
    /// A key's.
    Key(&'a KeyId),
}

impl Ledger {
    /// At most `most` events in this order, those behind `after` or from the beginning.
    ///
    /// # Errors
    /// [`LedgerError`] when the store cannot be read.
    pub fn events(
        &self,
        about: About<'_>,
        after: Option<EventId>,
        order: Order,
        most: usize,
    ) -> Result<Vec<(EventId, Event)>, LedgerError> {
        let (table, prefix): (Table, &[u8]) = match about {
            About::Everything => (Table::EVENTS, b""),
            About::Account(account) => (Table::ACCOUNT_EVENTS, account.as_bytes()),
            About::Key(key) => (Table::KEY_EVENTS, key.as_bytes()),
        };
        let after = after.map(|id| [prefix, &id.0.to_bytes()].concat());
        let rows = self.store.page(table, prefix, after.as_deref(), order, most)?;
        rows.iter().map(|row| self.event(table, row)).collect()
    }

    fn event(&self, table: Table, row: &Row) -> Result<(EventId, Event), LedgerError> {
        let lost = |reason: &str| LedgerError::Record { table: table.0, key: String::new(), reason: reason.into() };
        let place = Place::of_key(&row.key).ok_or_else(|| lost("its key is no place"))?;
        let event = if table == Table::EVENTS {
            decode(table, row)?
        } else {
            let told: Result<Option<Row>, StoreError> = self.store.get(Table::EVENTS, &place.to_bytes());
            decode(Table::EVENTS, &told?.ok_or_else(|| lost("its event is missing"))?)?
        };
        Ok((EventId(place), event))
    }
}
