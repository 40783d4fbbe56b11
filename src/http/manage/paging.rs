//! The parts of a list.

use serde::Deserialize;
use utoipa::IntoParams;

use super::refusal::Refusal;

/// Which part of a list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Paging {
    /// Those behind this one: the `next` of the page before.
    pub after: Option<String>,
    /// At most so many; 1 to 1,000, 100 when not given.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
}

impl Paging {
    /// How many to show.
    pub fn most(&self) -> Result<usize, Refusal> {
        match self.limit {
            None => Ok(100),
            Some(limit @ 1..=1_000) => Ok(limit),
            Some(_) => Err(Refusal::invalid(Some("limit"), "give 1 to 1000")),
        }
    }

    /// Cuts a list to the page; where the next one begins, if there is more.
    pub fn cut<T>(&self, all: &mut Vec<T>, name: impl Fn(&T) -> String) -> Result<Option<String>, Refusal> {
        let most = self.most()?;
        let is_more = all.len() > most;
        all.truncate(most);
        Ok(all.last().filter(|_| is_more).map(name))
    }

    /// The place that the list goes on behind, if it does not begin. `place` finds what an `after` stands for.
    pub fn behind<P>(&self, place: impl FnOnce(&str) -> Option<P>) -> Result<Option<P>, Refusal> {
        let missing = || Refusal::invalid(Some("after"), "give the `next` of the page before");
        self.after.as_deref().map(|after| place(after).ok_or_else(missing)).transpose()
    }
}
