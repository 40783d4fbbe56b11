//! The two folders, and reading them off the runtime.

use std::path::PathBuf;
use std::time::Duration;

use super::disk::Disk;
use super::git::{self, Commit};
use crate::policy::{Bundle, Problem, Rejection};

/// How long the files may take to be read.
const LIMIT: Duration = Duration::from_secs(10);
/// How long they may take when somebody waits for an answer that can be given without.
const SHORT_LIMIT: Duration = Duration::from_secs(2);

/// The folders of schema and policies.
pub(crate) struct Files {
    /// The schema's.
    pub schemas: PathBuf,
    /// The policies'.
    pub policies: PathBuf,
    reading: Disk<Result<Bundle, Rejection>>,
    looking: Disk<[bool; 2]>,
}

impl Files {
    pub fn new(schemas: PathBuf, policies: PathBuf) -> Self {
        Self { schemas, policies, reading: Disk::default(), looking: Disk::default() }
    }

    /// What the folders hold. A disk that does not answer is a refusal, and goes on being asked.
    pub async fn read(&self) -> Result<Bundle, Rejection> {
        self.read_within(LIMIT).await
    }

    /// The same for somebody who waits.
    pub async fn read_soon(&self) -> Result<Bundle, Rejection> {
        self.read_within(SHORT_LIMIT).await
    }

    /// Who wrote what was read, as far as is known.
    pub async fn commit_of(&self, bundle: &Bundle) -> Option<Commit> {
        git::commit_of(bundle, &self.schemas, &self.policies).await
    }

    async fn read_within(&self, limit: Duration) -> Result<Bundle, Rejection> {
        let (schemas, policies) = (self.schemas.clone(), self.policies.clone());
        let read =
            self.reading.ask(limit, move || Bundle::read(&schemas, &policies)).await.ok_or_else(|| late(limit))?;
        read.unwrap_or_else(|_| Err(refused("the files could not be read".into())))
    }

    /// Whether there are folders of schema and of policies.
    pub async fn are_there(&self) -> Result<[bool; 2], Rejection> {
        let folders = [self.schemas.clone(), self.policies.clone()];
        let looked = self.looking.ask(LIMIT, move || folders.map(|folder| folder.is_dir())).await;
        looked.ok_or_else(|| late(LIMIT))?.map_err(|_| refused("the folders could not be looked at".into()))
    }
}

fn refused(message: String) -> Rejection {
    Rejection { problems: vec![Problem::general(message, "check the disk")] }
}

fn late(limit: Duration) -> Rejection {
    refused(format!("reading the files takes longer than {} s", limit.as_secs()))
}
