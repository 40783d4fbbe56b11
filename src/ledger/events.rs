//! The event trail, to be read.

use super::{Ledger, LedgerError, decode, encode};
use crate::key::{AccountId, KeyId};
use crate::store::{Batch, Expect, Order, Place, Row, StoreError, Table};
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

    /// How far the follower of this name has come in the trail: the last event that it is done with.
    ///
    /// # Errors
    /// [`LedgerError`] when the store cannot be read.
    pub fn cursor(&self, follower: &str) -> Result<Option<EventId>, LedgerError> {
        let row = self.store.get(Table::CURSORS, follower.as_bytes())?;
        row.map(|row| decode(Table::CURSORS, &row)).transpose()
    }

    /// Notes how far a follower has come, or forgets it.
    ///
    /// # Errors
    /// [`LedgerError`] when the store cannot be written.
    pub fn keep_cursor(&self, follower: &str, at: Option<EventId>) -> Result<(), LedgerError> {
        let mut batch = Batch::new();
        match at {
            Some(at) => batch.put(Table::CURSORS, follower.as_bytes(), encode(&at), Expect::Any),
            None if self.cursor(follower)?.is_none() => return Ok(()),
            None => batch.delete(Table::CURSORS, follower.as_bytes(), Expect::Any),
        }
        self.commit(&batch, [])
    }

    /// Commits changes of rows that are no record of an account, a key or a person, together with what tells of them.
    ///
    /// # Errors
    /// [`LedgerError`] when the store cannot be written, or a precondition does not hold.
    pub fn commit_told(&self, mut batch: Batch, events: &[Event]) -> Result<(), LedgerError> {
        for (ordinal, event) in (0..).zip(events) {
            event.append_to(&mut batch, ordinal);
        }
        self.commit(&batch, [])
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
