//! The two folders, and reading them off the runtime.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::git::{self, Commit};
use crate::policy::{Bundle, Problem, Rejection};

/// How long the files may take to be read.
const LIMIT: Duration = Duration::from_secs(10);
/// How long they may take when somebody waits for an answer that can be given without.
const SHORT_LIMIT: Duration = Duration::from_secs(2);

type Reading = JoinHandle<Result<Bundle, Rejection>>;

/// The folders of schema and policies.
pub(crate) struct Files {
    /// The schema's.
    pub schemas: PathBuf,
    /// The policies'.
    pub policies: PathBuf,
    /// A reading that did not end in time: there is never a second one beside it.
    reading: tokio::sync::Mutex<Option<Reading>>,
}

impl Files {
    pub fn new(schemas: PathBuf, policies: PathBuf) -> Self {
        Self { schemas, policies, reading: tokio::sync::Mutex::default() }
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
        let mut reading = self.reading.lock().await;
        let under_way = reading.get_or_insert_with(|| {
            let (schemas, policies) = (self.schemas.clone(), self.policies.clone());
            tokio::task::spawn_blocking(move || Bundle::read(&schemas, &policies))
        });
        let refused = |message: String| Rejection { problems: vec![Problem::general(message, "check the disk")] };
        let read = tokio::time::timeout(limit, under_way)
            .await
            .map_err(|_| refused(format!("reading the files takes longer than {} s", limit.as_secs())))?;
        *reading = None;
        read.unwrap_or_else(|_| Err(refused("the files could not be read".into())))
    }
}
