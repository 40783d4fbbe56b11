//! What edits mean, found out once they are in force: nobody waits for it, and no edit waits for the one before.
//!
//! What is missing is known from the history, so that a comparison that was cut short by the end of the process is made
//! at the next start. Where an edit has to be approved, it is compared before it comes into force, and not here.

use std::sync::Arc;

use tokio::sync::watch;

use super::compare::Comparison;
use super::history::{History, Uncompared};
use super::{Activator, tell};
use crate::ledger::LedgerError;

impl Activator {
    /// Compares each revision of the history with the one before, as far as that was not done, and again whenever one has
    /// come into force, until `stop` turns true.
    pub async fn catch_up(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let work = async {
            loop {
                if let Err(error) = self.compare_missing().await {
                    tracing::error!(%error, "what a revision changed could not be written down");
                }
                self.uncompared.notified().await;
            }
        };
        // Whatever is under way is left, and its child ends: there is another start.
        tokio::select! {
            () = work => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn compare_missing(&self) -> Result<(), LedgerError> {
        while let Some(Uncompared { entry, before, after }) = self.history.run(History::uncompared).await? {
            let comparison = self.compare(&before, &after).await;
            let told: Comparison = comparison.clone();
            self.history.run(move |history| history.complete(&entry.digest, entry.since, comparison)).await?;
            tell::compared(entry.digest, &told);
        }
        Ok(())
    }
}
