//! What the policies let a person do, so that pages offer what can be done and nothing else.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::api::{Client, Problem};

/// Names of the management API's operations.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Operations {
    operations: BTreeSet<String>,
}

impl Operations {
    /// What the person may do to this: `account`, `environment`, `key` or `user`, and an id.
    pub async fn on(client: &Client, what: &str, id: &str) -> Result<Self, Problem> {
        client.get(&["me", "operations"], &[(what, id)]).await
    }

    /// What they may do to the whole installation.
    pub async fn on_installation(client: &Client) -> Result<Self, Problem> {
        client.get(&["me", "operations"], &[]).await
    }

    /// Whether this is one of them.
    pub fn has(&self, operation: &str) -> bool {
        self.operations.contains(operation)
    }
}
