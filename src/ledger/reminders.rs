//! Reminders that secrets should be replaced: two events for each secret that has an interval, whatever happens to the
//! daemon between them.

use jiff::SignedDuration;

use super::{Ledger, LedgerError};
use crate::trail::{By, Event, Happened};

impl Ledger {
    /// Gives every reminder that is to be given and was not yet: `key.rotation_due` when the time is at most `ahead`
    /// from now, `key.rotation_overdue` when it has passed. That it was given is part of the key's record, and
    /// committed with the event. How many were given.
    ///
    /// # Errors
    /// [`LedgerError`]; those before it were given then.
    pub fn remind(&self, ahead: SignedDuration, by: &By) -> Result<usize, LedgerError> {
        let mut given = 0;
        for live in self.ring.keys() {
            if live.key.reminder(ahead, by.now).is_none() {
                continue;
            }
            self.change_key(&live.key.id, None, |key| {
                let Some(reminder) = key.reminder(ahead, by.now) else { return Ok(None) };
                given += 1;
                key.change_extras(|extras| extras.reminded = Some(reminder));
                let happened = if reminder.overdue { Happened::KeyRotationOverdue } else { Happened::KeyRotationDue };
                Ok(Some(Event::new(happened, by).with("due_at", reminder.due_at.to_string())))
            })?;
        }
        Ok(given)
    }
}
