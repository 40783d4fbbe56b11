//! What is to be done once however often it is asked for: the store's side of `Idempotency-Key`.
//!
//! A note of what was made is committed together with it, so that a repeated request finds it, also after a crash.

use base64ct::{Base64Unpadded, Encoding};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerError, decode, encode};
use crate::store::{Batch, Expect, Table};

/// How long a repeated request is known.
const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// Notes that one commit forgets.
const CHUNK: usize = 500;

/// Who asks for what, under which key of theirs: digests, so that a row's size is fixed and its content tells nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Digest of the person and their `Idempotency-Key`.
    pub name: [u8; 32],
    /// Digest of what was asked.
    pub asked: [u8; 32],
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Digest of what was asked, in base64.
    asked: String,
    /// The id of what was made.
    pub made: Box<str>,
    /// When.
    at: Timestamp,
}

impl Done {
    /// Whether it was the same that was asked for.
    pub fn is_of(&self, once: &Once) -> bool {
        self.asked == text(&once.asked)
    }
}

impl Once {
    /// Adds the note to the batch that makes it.
    pub(super) fn note(&self, batch: &mut Batch, made: &str, at: Timestamp) {
        let done = Done { asked: text(&self.asked), made: made.into(), at };
        batch.put(Table::ONCE, &self.name, encode(&done), Expect::Absent);
    }
}

fn text(bytes: &[u8]) -> String {
    Base64Unpadded::encode_string(bytes)
}

impl Ledger {
    /// What was done under this name before.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn done_before(&self, once: &Once) -> Result<Option<Done>, LedgerError> {
        self.store.get(Table::ONCE, &once.name)?.map(|row| decode(Table::ONCE, &row)).transpose()
    }

    /// Forgets what was done more than a day ago; how many notes those were.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn forget_done(&self, now: Timestamp) -> Result<usize, LedgerError> {
        let mut old = Vec::new();
        self.store.scan(Table::ONCE, b"", &mut |row| {
            let is_old = decode::<Done>(Table::ONCE, &row).map_or(true, |done| now.duration_since(done.at) > KEPT);
            if is_old {
                old.push(row.key);
            }
            Ok(())
        })?;
        for some in old.chunks(CHUNK) {
            let mut batch = Batch::new();
            for key in some {
                batch.delete(Table::ONCE, key, Expect::Any);
            }
            self.commit(&batch, [])?;
        }
        Ok(old.len())
    }
}
