//! What examples leave out: policies that decided none of them, actions that none of them touches.

use std::collections::BTreeSet;

use cedar_policy::PolicyId;
use serde::Serialize;

use super::{Came, Example};
use crate::policy::{PolicyInfo, Revision};

/// What the examples that were run cover of a revision.
#[derive(Debug, Clone, Serialize)]
pub struct Coverage {
    /// Of the API.
    pub api: Half,
    /// Of the management API.
    pub management: Half,
}

/// What they cover of one half.
#[derive(Debug, Clone, Serialize)]
pub struct Half {
    /// How many examples are about it.
    pub examples: usize,
    /// The policies: covered is one that decided an example.
    pub policies: Tally<PolicyInfo>,
    /// The actions with a route: covered is one that policies were asked about.
    pub actions: Tally<Action>,
}

/// How many there are, and which are not covered.
#[derive(Debug, Clone, Serialize)]
pub struct Tally<T> {
    /// How many are covered.
    pub covered: usize,
    /// How many there are.
    pub total: usize,
    /// The others.
    pub missed: Vec<T>,
}

/// An action with its route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Action {
    /// Its name.
    pub name: String,
    /// Its method and path.
    pub route: String,
}

impl Coverage {
    /// What these examples, which came to that, cover of the revision.
    pub fn of(revision: &Revision, ran: &[(Example<'_>, Came)]) -> Self {
        let decided: BTreeSet<&str> =
            ran.iter().flat_map(|(_, came)| came.policies.iter().map(String::as_str)).collect();
        let is_of_api = |info: &PolicyInfo| revision.api_policies().policy(&PolicyId::new(&info.name)).is_some();
        let half = |is_management: bool, actions: Vec<Action>| {
            let about = || ran.iter().filter(|(example, _)| example.is_about_management() == is_management);
            let touched: BTreeSet<&str> = about().filter_map(|(_, came)| came.action.as_deref()).collect();
            let policies = revision.policies().iter().filter(|info| is_of_api(info) != is_management).cloned();
            Half {
                examples: about().count(),
                policies: Tally::of(policies.collect(), |info| decided.contains(&*info.name)),
                actions: Tally::of(actions, |action| touched.contains(&*action.name)),
            }
        };
        let of_api = revision.routes().map(|route| Action {
            name: route.action_name.to_string(),
            route: format!("{} {}", route.method, route.template),
        });
        let of_management = revision
            .management()
            .operations()
            .map(|(route, operation)| Action { name: operation.name.to_string(), route: route.to_owned() });
        let mut of_management: Vec<Action> = of_management.collect();
        of_management.sort();
        Self { api: half(false, of_api.collect()), management: half(true, of_management) }
    }

    /// The lowest share, in percent: of the policies in each half that examples are about, and of the API's actions. The
    /// operations of the management API are the program's and not counted.
    pub fn lowest(&self) -> usize {
        let halves = [&self.api, &self.management].into_iter().filter(|half| half.examples > 0);
        let shares = halves.map(|half| half.policies.percent());
        shares.chain([self.api.actions.percent()]).min().unwrap_or_default()
    }
}

impl<T> Tally<T> {
    fn of(all: Vec<T>, is_covered: impl Fn(&T) -> bool) -> Self {
        let total = all.len();
        let missed: Vec<T> = all.into_iter().filter(|one| !is_covered(one)).collect();
        Self { covered: total - missed.len(), total, missed }
    }

    /// The share that is covered, rounded down; of nothing, all is.
    pub fn percent(&self) -> usize {
        (100 * self.covered).checked_div(self.total).unwrap_or(100)
    }
}
