//! What an edit means, as far as it is kept: whether somebody may do more, and a summary for people.
//!
//! How it is found out is [`mod@crate::compare`]'s business. It is asked once for each revision that comes into
//! force, off the decision path.

use serde::{Deserialize, Serialize};

use crate::compare;
use crate::key::masked;

/// Lines of a summary that are kept.
const MOST_LINES: usize = 50;
/// Characters of a line that are kept.
const LONGEST_LINE: usize = 400;

/// What is different between two revisions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Comparison {
    /// Whether somebody may do more than before. What is not proven to be otherwise counts as more.
    pub widens: bool,
    /// What is different, for people to read line by line.
    pub summary: Vec<String>,
}

impl Comparison {
    /// What is said when the two could not be compared.
    pub fn untold() -> Self {
        Self { widens: true, summary: vec!["the difference could not be told".into()] }
    }
}

impl From<compare::Comparison> for Comparison {
    /// No longer than people read, because it is logged and stored.
    fn from(comparison: compare::Comparison) -> Self {
        let text = comparison.render();
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        let unshown = lines.len().saturating_sub(MOST_LINES);
        let kept = lines.into_iter().take(MOST_LINES);
        let mut summary: Vec<String> = kept.map(|line| masked(line).chars().take(LONGEST_LINE).collect()).collect();
        if unshown > 0 {
            summary.push(format!("and {unshown} more lines"));
        }
        Self { widens: comparison.may_widen(), summary }
    }
}
