//! The last revisions that were in force, in the store: what they were made of, when each came into force, what was
//! different from the one before, and who wrote it. The newest one is what a start onto refused files serves.
//!
//! A revision that comes back is a new entry, and its content is kept once. What is old goes in the same batch in which
//! something new comes. Beside them is kept what must hold across a restart: a rollback, and since when what is on disk
//! has not come into force. Nothing here decides what serves.

use std::collections::HashSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::task::JoinError;

use super::compare::Comparison;
use super::git::Commit;
use crate::ledger::{Ledger, LedgerError};
use crate::policy::{Bundle, Digest, ShortDigest};
use crate::store::{Batch, Expect, Order, Row, Table};
use crate::trail::{Actor, Event};

/// Revisions that are kept.
const MOST_ENTRIES: usize = 50;
/// Bytes of contents that are kept, if that is fewer: a bundle may have 8 MiB.
const MOST_BYTES: u64 = 64 << 20;
/// Revisions, the newest first, that are compared with the one before when that was not done.
const MOST_UNCOMPARED: usize = 10;
/// What the keys of entries begin with; a place in the order of all commits follows.
const ENTRY: &[u8] = b"entry/";
/// What the keys of contents begin with; a digest follows.
const CONTENT: &[u8] = b"content/";
/// The row of what must hold across a restart.
const KEPT: &[u8] = b"kept";
/// The row that versions before this one kept instead of all this: the last good bundle.
const LAST_GOOD: &[u8] = b"last-good";

/// How a revision came into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The files were edited.
    Edit,
    /// It waited, and was approved.
    Approval,
    /// Somebody went back to it.
    Rollback,
}

impl Cause {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Edit => "edit",
            Self::Approval => "approval",
            Self::Rollback => "rollback",
        }
    }
}

/// A revision that came into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its digest.
    pub digest: Digest,
    /// When it came into force.
    pub since: Timestamp,
    /// How.
    pub cause: Cause,
    /// Who approved it or went back to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// What is different from the one before; none where there was none, or the two could not be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Who wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<Commit>,
    /// Bytes of its content.
    #[serde(default)]
    pub bytes: u64,
}

/// A rollback, until the files change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// Since when.
    pub since: Timestamp,
    /// Who went back.
    pub by: Actor,
    /// What was on disk then, if it could ever be read: as long as it is, it does not come into force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Digest>,
}

/// Files that have not come into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stale {
    /// Since when what is on disk differs from what is in force.
    pub since: Timestamp,
    /// What was told of last, so that a restart does not tell it again: a digest, or what was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<String>,
}

/// What must hold across a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The rollback that is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// Files that have not come into force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Stale>,
}

/// A revision of which it is not known what it changed.
#[derive(Debug)]
pub struct Uncompared {
    /// Its entry.
    pub entry: Entry,
    /// What was in force before it.
    pub before: Bundle,
    /// What it is made of.
    pub after: Bundle,
}

/// Why a revision was not found by the beginning of its digest.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// None has this digest.
    #[error("no revision that is kept has a digest that begins with {0}: `keyward policy history` lists them")]
    Unknown(ShortDigest),
    /// Several begin so.
    #[error("the digests of several revisions begin with {0}; give more digits")]
    Ambiguous(ShortDigest),
    /// The store.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The revisions in the store. The calls block on the disk: [`run`](Self::run) is how async callers make them.
#[derive(Clone)]
pub struct History {
    ledger: Ledger,
}

impl History {
    /// The history in this ledger's store.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger }
    }

    /// Takes over what an earlier version of the program kept.
    ///
    /// # Errors
    /// [`LedgerError`] when the store cannot be read or written.
    pub fn take_over(&self, now: Timestamp) -> Result<(), LedgerError> {
        let Some(row) = self.ledger.store().get(Table::REVISIONS, LAST_GOOD)? else { return Ok(()) };
        let mut batch = Batch::new();
        batch.delete(Table::REVISIONS, LAST_GOOD, Expect::Any);
        let is_first = self.rows(1)?.is_empty();
        if let Some(bundle) = serde_json::from_slice::<Bundle>(&row.value).ok().filter(|_| is_first) {
            let (digest, bytes) = (bundle.digest(), row.value.len() as u64);
            let entry = Entry { digest, since: now, cause: Cause::Edit, by: None, comparison: None, git: None, bytes };
            self.add(&mut batch, &entry, row.value)?;
        }
        self.ledger.commit_told(batch, &[])
    }

    /// Runs `work` off the runtime.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn run<T: Send + 'static, E: From<LedgerError> + Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let history = self.clone();
        let lost = |error: JoinError| {
            let (table, reason) = (Table::REVISIONS.0, error.to_string());
            E::from(LedgerError::Record { table, key: String::new(), reason })
        };
        tokio::task::spawn_blocking(move || work(&history)).await.map_err(lost)?
    }

    /// The revisions that were in force, the newest first.
    ///
    /// # Errors
    /// [`LedgerError`] when the store cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, LedgerError> {
        Ok(self.rows(MOST_ENTRIES)?.into_iter().map(|(_, entry)| entry).collect())
    }

    /// The revision that came into force last, with its content; none when there is none that can be read.
    ///
    /// # Errors
    /// [`LedgerError`] when the store cannot be read.
    pub fn last(&self) -> Result<Option<(Entry, Bundle)>, LedgerError> {
        let Some(entry) = self.rows(1)?.into_iter().next().map(|(_, entry)| entry) else { return Ok(None) };
        Ok(self.content(&entry.digest)?.map(|bundle| (entry, bundle)))
    }

    /// The newest entry of the one revision whose digest begins so, with its content.
    ///
    /// # Errors
    /// [`FindError`] when there is none, or not one.
    pub fn find(&self, digest: &ShortDigest) -> Result<(Entry, Bundle), FindError> {
        let mut found: Option<Entry> = None;
        for entry in self.entries()?.into_iter().filter(|entry| digest.begins(&entry.digest)) {
            match &found {
                Some(other) if other.digest != entry.digest => return Err(FindError::Ambiguous(digest.clone())),
                Some(_) => {}
                None => found = Some(entry),
            }
        }
        let unknown = || FindError::Unknown(digest.clone());
        let entry = found.ok_or_else(unknown)?;
        let bundle = self.content(&entry.digest)?.ok_or_else(unknown)?;
        Ok((entry, bundle))
    }

    /// What must hold across a restart.
    ///
    /// # Errors
    /// [`LedgerError`] when the store cannot be read.
    pub fn kept(&self) -> Result<Kept, LedgerError> {
        let row = self.ledger.store().get(Table::REVISIONS, KEPT)?;
        // What cannot be read is of a newer version; what is on disk is then looked at as if for the first time.
        Ok(row.and_then(|row| serde_json::from_slice(&row.value).ok()).unwrap_or_default())
    }

    /// Writes down that a revision came into force, and what holds from then on, with the events that tell of it, and
    /// forgets what is old.
    ///
    /// # Errors
    /// [`LedgerError`] when the store cannot be read or written; nothing is written then.
    pub fn remember(&self, entry: &Entry, bundle: &Bundle, kept: &Kept, events: &[Event]) -> Result<(), LedgerError> {
        let mut batch = Batch::new();
        let content = encode(bundle);
        let entry = Entry { bytes: content.len() as u64, ..entry.clone() };
        self.add(&mut batch, &entry, content)?;
        batch.put(Table::REVISIONS, KEPT, encode(kept), Expect::Any);
        self.ledger.commit_told(batch, events)
    }

    /// The newest revision of which it is not known what it changed, though there was one before it, among the newest
    /// few: what an older one changed, nobody waits for.
    ///
    /// # Errors
    /// [`LedgerError`] when the store cannot be read.
    pub fn uncompared(&self) -> Result<Option<Uncompared>, LedgerError> {
        let entries = self.rows(MOST_UNCOMPARED + 1)?;
        for ((_, entry), (_, before)) in entries.iter().zip(entries.iter().skip(1)) {
            if entry.comparison.is_some() {
                continue;
            }
            if let (Some(before), Some(after)) = (self.content(&before.digest)?, self.content(&entry.digest)?) {
                return Ok(Some(Uncompared { entry: entry.clone(), before, after }));
            }
        }
        Ok(None)
    }

    /// Adds what was different to the revision of this digest that came into force then, if it is still kept.
    ///
    /// # Errors
    /// [`LedgerError`] when the store cannot be read or written.
    pub fn complete(&self, digest: &Digest, since: Timestamp, comparison: Comparison) -> Result<(), LedgerError> {
        let mut rows = self.rows(MOST_ENTRIES)?.into_iter();
        let Some((key, entry)) = rows.find(|(_, entry)| entry.digest == *digest && entry.since == since) else {
            return Ok(());
        };
        let mut batch = Batch::new();
        let entry = Entry { comparison: Some(comparison), ..entry };
        batch.put(Table::REVISIONS, &key, encode(&entry), Expect::Any);
        self.ledger.commit_told(batch, &[])
    }

    /// Writes down what holds from now on, with the events that tell of it.
    ///
    /// # Errors
    /// [`LedgerError`] when the store cannot be written.
    pub fn keep(&self, kept: &Kept, events: &[Event]) -> Result<(), LedgerError> {
        let mut batch = Batch::new();
        batch.put(Table::REVISIONS, KEPT, encode(kept), Expect::Any);
        self.ledger.commit_told(batch, events)
    }

    fn content(&self, digest: &Digest) -> Result<Option<Bundle>, LedgerError> {
        let row = self.ledger.store().get(Table::REVISIONS, &content_key(digest))?;
        let bundle: Option<Bundle> = row.and_then(|row| serde_json::from_slice(&row.value).ok());
        // A content that is not what its name says is none.
        Ok(bundle.filter(|bundle| bundle.digest() == *digest))
    }

    /// The keys of the newest entries and what they say, the newest first; one that cannot be read is passed over.
    fn rows(&self, most: usize) -> Result<Vec<(Vec<u8>, Entry)>, LedgerError> {
        let rows = self.ledger.store().page(Table::REVISIONS, ENTRY, None, Order::Descending, most)?;
        let read = |row: Row| match serde_json::from_slice(&row.value) {
            Ok(entry) => Some((row.key, entry)),
            Err(error) => {
                tracing::error!(%error, "an entry of the policies' history cannot be read");
                None
            }
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// Adds an entry with its content to a batch, and takes away what is too old.
    fn add(&self, batch: &mut Batch, entry: &Entry, content: Vec<u8>) -> Result<(), LedgerError> {
        let before = self.rows(MOST_ENTRIES)?;
        let all = std::iter::once(entry).chain(before.iter().map(|(_, entry)| entry));
        let kept = how_many_fit(all.clone());
        let needed: HashSet<Digest> = all.take(kept).map(|entry| entry.digest).collect();
        let mut gone = HashSet::new();
        for (key, old) in before.iter().skip(kept - 1) {
            batch.delete(Table::REVISIONS, key, Expect::Any);
            if !needed.contains(&old.digest) && gone.insert(old.digest) {
                batch.delete(Table::REVISIONS, &content_key(&old.digest), Expect::Any);
            }
        }
        if self.content(&entry.digest)?.is_none() {
            batch.put(Table::REVISIONS, &content_key(&entry.digest), content, Expect::Any);
        }
        batch.append(Table::REVISIONS, ENTRY, 0, encode(entry));
        Ok(())
    }
}

/// How many of these entries, the newest first, are kept: at least one.
fn how_many_fit<'a>(entries: impl Iterator<Item = &'a Entry>) -> usize {
    let (mut counted, mut bytes) = (HashSet::new(), 0);
    let fits = |entry: &&Entry| {
        bytes += if counted.insert(entry.digest) { entry.bytes } else { 0 };
        bytes <= MOST_BYTES
    };
    entries.take(MOST_ENTRIES).take_while(fits).count().max(1)
}

fn content_key(digest: &Digest) -> Vec<u8> {
    [CONTENT, digest.as_bytes()].concat()
}

fn encode(record: &impl Serialize) -> Vec<u8> {
    // Invariant: strings, numbers and maps with text for keys; serialising them cannot fail.
    serde_json::to_vec(record).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::ledger::About;
    use crate::store::SledStore;
    use crate::trail::{By, Happened};

    fn history(folder: &Path) -> History {
        let ledger = Ledger::load(Arc::new(SledStore::open(folder).unwrap())).unwrap();
        let history = History::new(ledger);
        history.take_over(Timestamp::UNIX_EPOCH).unwrap();
        history
    }

    fn bundle(number: usize) -> Bundle {
        Bundle::from_files([("policies/a.cedar".to_owned(), format!("// {number}"))])
    }

    fn entry(digest: Digest) -> Entry {
        Entry {
            digest,
            since: Timestamp::UNIX_EPOCH,
            cause: Cause::Edit,
            by: None,
            comparison: None,
            git: None,
            bytes: 0,
        }
    }

    fn remember(history: &History, number: usize) {
        let bundle = bundle(number);
        let event = Event::new(Happened::PolicyActivated, &By::daemon(Timestamp::UNIX_EPOCH));
        history.remember(&entry(bundle.digest()), &bundle, &Kept::default(), &[event]).unwrap();
    }

    fn contents(history: &History) -> usize {
        let mut count = 0;
        let each = &mut |_| {
            count += 1;
            Ok(())
        };
        history.ledger.store().scan(Table::REVISIONS, CONTENT, each).unwrap();
        count
    }

    #[test]
    fn the_last_fifty_are_kept_and_a_content_once_and_as_long_as_it_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let history = history(&folder.path().join("store"));
        assert_eq!(history.last().unwrap(), None);
        for number in 0..10 {
            remember(&history, number % 2);
        }
        assert_eq!((history.entries().unwrap().len(), contents(&history)), (10, 2));
        for number in 100..148 {
            remember(&history, number);
        }
        let entries = history.entries().unwrap();
        assert_eq!((entries.len(), contents(&history)), (50, 50));
        assert_eq!((entries[0].digest, entries[49].digest), (bundle(147).digest(), bundle(0).digest()));
        remember(&history, 0);
        remember(&history, 148);
        // The oldest of both are gone; the one that came back is there.
        assert_eq!((history.entries().unwrap().len(), contents(&history)), (50, 50));
        let find = |number| history.find(&bundle(number).digest().to_string().parse().unwrap());
        assert_eq!(find(0).unwrap().1, bundle(0));
        assert!(matches!(find(1), Err(FindError::Unknown(_))));
        let (last, content) = history.last().unwrap().unwrap();
        assert_eq!((last.digest, content), (bundle(148).digest(), bundle(148)));
        assert_eq!(history.ledger.events(About::Everything, None, Order::Ascending, 100).unwrap().len(), 60);
    }

    #[test]
    fn contents_take_no_more_than_their_bytes() {
        let large = |number, bytes| Entry { bytes, ..entry(bundle(number).digest()) };
        let eight = 8 << 20;
        let entries: Vec<Entry> = (0..50).map(|number| large(number, eight)).collect();
        assert_eq!(how_many_fit(entries.iter()), 8);
        let same: Vec<Entry> = (0..80).map(|number| large(number % 8, eight)).collect();
        assert_eq!(how_many_fit(same.iter()), 50, "a content counts once");
        assert_eq!(how_many_fit([large(0, 1 << 40)].iter()), 1, "the one in force is kept");
    }

    #[test]
    fn a_revision_is_found_by_the_beginning_of_its_digest_where_that_is_enough() {
        let folder = tempfile::tempdir().unwrap();
        let history = history(&folder.path().join("store"));
        // Two that begin alike cannot be made on purpose: the entries are what is looked at.
        remember(&history, 0);
        remember(&history, 0);
        let digest = bundle(0).digest().to_string();
        assert_eq!(history.find(&digest[..8].parse().unwrap()).unwrap().0.digest, bundle(0).digest());
        let other: Digest = format!("{}{}", &digest[..20], "0".repeat(44)).parse().unwrap();
        let bundle = bundle(1);
        history.remember(&entry(other), &bundle, &Kept::default(), &[]).unwrap();
        assert!(matches!(history.find(&digest[..8].parse().unwrap()), Err(FindError::Ambiguous(_))));
        assert_eq!(history.find(&digest[..21].parse().unwrap()).unwrap().0.digest.to_string(), digest);
        // A content that is not what its entry says is no revision.
        assert!(matches!(history.find(&other.to_string().parse().unwrap()), Err(FindError::Unknown(_))));
    }

    #[test]
    fn what_an_earlier_version_kept_is_taken_over_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = SledStore::open(&path).unwrap();
        let mut batch = Batch::new();
        batch.put(Table::REVISIONS, LAST_GOOD, encode(&bundle(7)), Expect::Any);
        crate::store::Store::commit(&store, &batch).unwrap();
        drop(store);
        for _ in 0..2 {
            let history = history(&path);
            assert_eq!(history.last().unwrap().unwrap().1, bundle(7));
            assert_eq!(history.entries().unwrap().len(), 1);
            assert!(history.ledger.store().get(Table::REVISIONS, LAST_GOOD).unwrap().is_none());
        }
    }

    #[test]
    fn what_must_hold_across_a_restart_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let (since, from) = (Timestamp::UNIX_EPOCH, Some(bundle(1).digest()));
        let rollback = Some(Rollback { since, by: Actor::User("usr_1".into()), from });
        let kept = Kept { rollback, stale: Some(Stale { since, told: None }) };
        history(&path).keep(&kept, &[]).unwrap();
        assert_eq!(history(&path).kept().unwrap(), kept);
    }
}
