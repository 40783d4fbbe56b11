//! What an edit means, as far as activation needs to know: whether somebody may do more, and a summary for people.
//!
//! How that is found out is whoever implements [`Compare`]'s business; it is asked once for each revision that is
//! about to come into force, off the decision path, before anything is swapped.

use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::key::masked;
use crate::policy::Revision;

/// Lines of a summary that are kept.
const MOST_LINES: usize = 50;
/// Characters of a line that are kept.
const LONGEST_LINE: usize = 400;

/// What is different between two revisions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Comparison {
    /// Whether somebody may do more than before. What cannot be told counts as more.
    pub widens: bool,
    /// What is different, a line for each thing; none when nobody may do more or less.
    pub summary: Vec<String>,
}

impl Comparison {
    /// What is said when the two could not be compared.
    pub fn untold() -> Self {
        Self { widens: true, summary: vec!["the difference could not be told".into()] }
    }

    /// No longer than people read, because it is logged and stored.
    #[must_use]
    pub(super) fn cut(self) -> Self {
        let unshown = self.summary.len().saturating_sub(MOST_LINES);
        let kept = self.summary.into_iter().take(MOST_LINES);
        let mut summary: Vec<String> = kept.map(|line| masked(&line).chars().take(LONGEST_LINE).collect()).collect();
        if unshown > 0 {
            summary.push(format!("and {unshown} more"));
        }
        Self { summary, ..self }
    }
}

/// A comparison under way.
pub type Comparing<'a> = Pin<Box<dyn Future<Output = Comparison> + Send + 'a>>;

/// Tells what may be done under one revision and not under another.
pub trait Compare: Send + Sync + 'static {
    /// What `new` changes where `old` is in force.
    fn compare<'a>(&'a self, old: &'a Arc<Revision>, new: &'a Arc<Revision>) -> Comparing<'a>;
}
