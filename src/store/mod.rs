//! What is on disk: rows in tables, changed by batches that are whole, checked, and durable.
//!
//! A store knows bytes, versions and preconditions. It knows nothing of keys and accounts, so that sled on
//! one machine and etcd for a fleet look alike to the [`ledger`](crate::ledger). Calls block on the disk.

pub mod backup;
#[cfg(test)]
pub(crate) mod examples;
mod opening;
mod sled;

use std::fmt;
use std::path::PathBuf;

pub use self::sled::SledStore;

/// A table: a group of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table(pub &'static str);

impl Table {
    /// Accounts, by id.
    pub const ACCOUNTS: Self = Self("accounts");
    /// Keys, by id.
    pub const KEYS: Self = Self("keys");
    /// What happened, by place.
    pub const EVENTS: Self = Self("events");
    /// The places of an account's events, by its id and place.
    pub const ACCOUNT_EVENTS: Self = Self("account-events");
    /// The places of a key's events, by its id and place.
    pub const KEY_EVENTS: Self = Self("key-events");
    /// People, by id.
    pub const USERS: Self = Self("users");
    /// The id of the person who signs in with an e-mail address.
    pub const EMAILS: Self = Self("emails");
    /// Tokens of other systems that moved in, by their names: for good, whatever became of their keys.
    pub const FOREIGN_TOKENS: Self = Self("foreign-tokens");
    /// People who were deleted, by id: for good.
    pub const DELETED_USERS: Self = Self("deleted-users");
    /// When secrets were used last, by selector.
    pub const LAST_USED: Self = Self("last-used");
    /// What was asked to be done once, and was.
    pub const ONCE: Self = Self("once");
    /// How far those who follow the trail have come.
    pub const CURSORS: Self = Self("cursors");
    /// Bundles of schema and policies.
    pub const REVISIONS: Self = Self("revisions");
}

/// One row, as read.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// Its key within the table.
    pub key: Vec<u8>,
    /// 1 when it was made, and one more for each change.
    pub version: u64,
    /// Its value.
    pub value: Vec<u8>,
}

impl fmt::Debug for Row {
    /// Without the value, which may hold a hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("version", &self.version).finish_non_exhaustive()
    }
}

/// What must hold of a row for a change to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// It is not there.
    Absent,
    /// It is at this version.
    Version(u64),
    /// Nothing.
    Any,
}

/// One change of one row.
pub struct Change {
    /// The table.
    pub table: Table,
    /// The row's key.
    pub key: Vec<u8>,
    /// The new value; none deletes the row.
    pub value: Option<Vec<u8>>,
    /// The precondition.
    pub expect: Expect,
}

impl fmt::Debug for Change {
    /// Without the value, which may hold a hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change").field("table", &self.table).field("expect", &self.expect).finish_non_exhaustive()
    }
}

/// A row whose key the store gives: `prefix` and a [`Place`].
pub struct Append {
    /// The table.
    pub table: Table,
    /// What its key begins with.
    pub prefix: Vec<u8>,
    /// Which of the batch's places it has: rows of several tables that belong together have the same.
    pub ordinal: u16,
    /// Its value.
    pub value: Vec<u8>,
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append").field("table", &self.table).field("ordinal", &self.ordinal).finish_non_exhaustive()
    }
}

/// Where an appended row stands in the order of all commits: after everything that was committed before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The number of the commit, from 1.
    pub commit: u64,
    /// The place within the commit, from 0.
    pub ordinal: u16,
}

impl Place {
    /// Ten bytes that sort as places do: what an appended row's key ends with.
    pub fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        let (commit, ordinal) = bytes.split_at_mut(8);
        commit.copy_from_slice(&self.commit.to_be_bytes());
        ordinal.copy_from_slice(&self.ordinal.to_be_bytes());
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote, at the end of a row's key.
    pub fn of_key(key: &[u8]) -> Option<Self> {
        let (rest, ordinal) = key.split_last_chunk::<2>()?;
        let (_, commit) = rest.split_last_chunk::<8>()?;
        Some(Self { commit: u64::from_be_bytes(*commit), ordinal: u16::from_be_bytes(*ordinal) })
    }
}

/// Which way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The least key first.
    Ascending,
    /// The greatest key first.
    Descending,
}

/// Changes that are made together or not at all. Each is of another row: a second change of a row is a conflict.
#[derive(Debug, Default)]
pub struct Batch {
    changes: Vec<Change>,
    appends: Vec<Append>,
}

impl Batch {
    /// No changes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a row.
    pub fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>, expect: Expect) {
        self.changes.push(Change { table, key: key.to_vec(), value: Some(value), expect });
    }

    /// Deletes a row; one that is not there stays away.
    pub fn delete(&mut self, table: Table, key: &[u8], expect: Expect) {
        self.changes.push(Change { table, key: key.to_vec(), value: None, expect });
    }

    /// Writes a row whose key is `prefix` and the [`Place`] of this commit and `ordinal`.
    pub fn append(&mut self, table: Table, prefix: &[u8], ordinal: u16, value: Vec<u8>) {
        self.appends.push(Append { table, prefix: prefix.to_vec(), ordinal, value });
    }

    /// The changes, in the order in which they were added.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The rows whose keys the store gives.
    pub fn appends(&self) -> &[Append] {
        &self.appends
    }
}

/// A store that cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error(
        "the store {} is in use by another process, most likely a running keyward. \
         Stop that one first, or give this one another `data_dir`.", .path.display()
    )]
    InUse {
        /// The store's folder.
        path: PathBuf,
    },
    /// It was written by a newer version.
    #[error(
        "the store {} has format {found}, and this version of keyward reads formats up to {known}. \
         Nothing was touched. Use the newer version.", .path.display()
    )]
    Newer {
        /// The store's folder.
        path: PathBuf,
        /// The format found.
        found: u64,
        /// The newest format that this version knows.
        known: u64,
    },
    /// It is damaged, and dropping its snapshots did not help.
    #[error(
        "the store {} is damaged: {reason}. A copy of it as it was found is at {}. Keep that, and replace the folder by a backup; \
         or, to go on with what is left and without what is lost, remove its files `keyward-damaged` and \
         `keyward-commits`.", .path.display(), .copy.display()
    )]
    Damaged {
        /// The store's folder.
        path: PathBuf,
        /// Where it was copied before anything was tried.
        copy: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A part of it cannot be read, though it could be opened.
    #[error(
        "the store {} has rows that cannot be read: {reason}. Keep a copy of the folder, and replace it by a backup.",
        .path.display()
    )]
    Unreadable {
        /// The store's folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The folder is something else.
    #[error("{} is not a keyward store: {reason}. Give another `data_dir`, or an empty one.", .path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The operating system refuses.
    #[error("the store {} cannot be {doing}: {reason}. Check the folder's owner, permissions and free space.", .path.display())]
    Io {
        /// The store's folder.
        path: PathBuf,
        /// What was being done: "opened", "read", "written".
        doing: &'static str,
        /// What the system says.
        reason: String,
    },
    /// An earlier write failed, so that what is on disk is not known.
    #[error(
        "the store {} takes no more changes, because an earlier one could not be written to disk. \
         Mend the disk and restart keyward.", .path.display()
    )]
    Poisoned {
        /// The store's folder.
        path: PathBuf,
    },
}

/// Why a batch was not committed. None of its changes was made, unless the disk itself failed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A precondition does not hold.
    #[error("a row of {} was changed by somebody else", table.0)]
    Conflict {
        /// The row's table.
        table: Table,
        /// The row's key.
        key: Vec<u8>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a commit made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The number of the commit: greater than that of every commit before it.
    pub number: u64,
    /// The rows' versions, in the order of the changes; 0 for a row that is not there.
    pub versions: Vec<u64>,
}

/// A store.
pub trait Store: Send + Sync + 'static {
    /// One row.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, StoreError>;

    /// Every row of a table whose key begins with `prefix`, in the order of keys, one at a time.
    ///
    /// # Errors
    /// When the store cannot be read, or with what `each` returns, which ends the scan.
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        each: &mut dyn FnMut(Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// At most `most` rows of a table whose key begins with `prefix`: those behind `after`, in this order of keys, or
    /// from the beginning.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn page(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        most: usize,
    ) -> Result<Vec<Row>, StoreError>;

    /// Every row of every table, as they are at one moment, with the name of their table; the number of the last commit
    /// among them. Commits wait until `each` has seen all, or has said that it wants no more by returning false.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn snapshot(&self, each: &mut dyn FnMut(&str, Row) -> bool) -> Result<u64, StoreError>;

    /// Checks every precondition and makes every change, at one moment, and returns when they are on disk.
    ///
    /// # Errors
    /// [`CommitError`]; nothing was changed then, unless the disk itself failed.
    fn commit(&self, batch: &Batch) -> Result<Committed, CommitError>;
}
