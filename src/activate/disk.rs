//! Asking a disk that may not answer.
//!
//! A network file system whose server is away keeps whoever asks for as long as it likes, and nothing ends that. So it is
//! asked on a thread that may be kept, by one at a time, and whoever waits for the answer waits no longer than they may.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

/// One question to a disk: there is never a second one under way beside it.
#[derive(Debug)]
pub(crate) struct Disk<T> {
    /// Held by whoever waits for the answer.
    under_way: Mutex<Option<JoinHandle<T>>>,
}

impl<T> Default for Disk<T> {
    fn default() -> Self {
        Self { under_way: Mutex::default() }
    }
}

impl<T: Send + 'static> Disk<T> {
    /// What `work` comes to; `None` where that takes longer than `limit`. Then it goes on, and what it comes to is the answer
    /// to whoever asks next.
    pub async fn ask(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<Result<T, JoinError>> {
        let mut under_way = self.under_way.lock().await;
        let asked = under_way.get_or_insert_with(|| spawn_blocking(work));
        let answer = tokio::time::timeout(limit, asked).await.ok()?;
        *under_way = None;
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// On one thread, so that a question on it would keep the test.
    #[tokio::test]
    async fn a_disk_that_does_not_answer_keeps_nobody_and_is_not_asked_a_second_time() {
        let disk = Disk::default();
        let (answer, hangs) = mpsc::channel();
        assert!(disk.ask(Duration::from_millis(20), move || hangs.recv().unwrap()).await.is_none());
        let second = || unreachable!("it was asked beside the first one");
        assert!(disk.ask(Duration::from_millis(20), second).await.is_none());
        answer.send(7).unwrap();
        assert_eq!(disk.ask(Duration::from_secs(20), second).await.unwrap().unwrap(), 7);
        assert_eq!(disk.ask(Duration::from_secs(20), || 8).await.unwrap().unwrap(), 8);
        assert!(disk.ask(Duration::from_secs(20), || panic!("for the test")).await.unwrap().is_err());
        assert_eq!(disk.ask(Duration::from_secs(20), || 9).await.unwrap().unwrap(), 9);
    }
}
