//! What a key needs: the fewest scopes under which what it was allowed stays allowed.
//!
//! Asked of the one authorizer, with the recorded calls and a key that is supposed to have other scopes. What a scope
//! grants is nowhere written down again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::again::Redecider;
use super::record::{KeyFacts, Record};
use crate::authorize::verdict::{Outcome, Reason};
use crate::key::{Kind, Scope};
use crate::policy::Revision;

/// What a key has used, and what would be enough for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suggestion {
    /// Decisions with the key that are known.
    pub decisions: u64,
    /// When the oldest of them was made.
    pub since: Option<Timestamp>,
    /// How often the key was allowed which action.
    pub actions: BTreeMap<Arc<str>, u64>,
    /// Scopes that are enough for all of that, and of which none can go.
    pub scopes: Vec<Scope>,
    /// Actions that the key was allowed, and that these scopes do not grant: what no scope grants, or what policies do not
    /// allow it any more.
    pub uncovered: Vec<Arc<str>>,
}

/// What is enough for a key of these facts, of which these are records. `has` are the scopes to choose from, and `breadth`
/// says how much each grants: of two that would do, the one that grants less is kept.
///
/// # Errors
/// When the operating system has no random bytes to give.
pub fn suggest(
    records: &[Record],
    key: &KeyFacts,
    has: &[Scope],
    breadth: impl Fn(&Scope) -> usize,
    revision: &Arc<Revision>,
) -> Result<Suggestion, getrandom::Error> {
    let mut suggestion = Suggestion { since: records.iter().map(Record::time).min(), ..Suggestion::default() };
    suggestion.decisions = records.len() as u64;
    // Of calls that are alike one is enough.
    let (mut alike, mut calls) = (HashSet::new(), Vec::new());
    for record in records.iter().filter(|record| record.ruling().reason.outcome() == Outcome::Allow) {
        if let Some(action) = &record.ruling().action {
            *suggestion.actions.entry(Arc::clone(action)).or_default() += 1;
        }
        let (item, environment) = (record.stated_item(), record.stated_environment());
        if alike.insert((record.method(), record.path(), item, environment, record.address())) {
            calls.push(record);
        }
    }
    let question = Question { key, revision, calls: &calls };
    let allowed = question.allowed(has)?;
    let question = Question { calls: &allowed, ..question };
    let mut chosen = has.to_vec();
    let mut broadest = has.to_vec();
    broadest.sort_by_cached_key(|scope| std::cmp::Reverse(breadth(scope)));
    for scope in broadest {
        let without: Vec<Scope> = chosen.iter().filter(|chosen| **chosen != scope).cloned().collect();
        if question.allowed(&without)?.len() == allowed.len() {
            chosen = without;
        }
    }
    let of = |calls: &[&Record]| -> BTreeSet<Arc<str>> {
        calls.iter().filter_map(|record| record.ruling().action.clone()).collect()
    };
    let covered = of(&allowed);
    suggestion.uncovered = of(&calls).into_iter().filter(|action| !covered.contains(action)).collect();
    suggestion.scopes = chosen;
    Ok(suggestion)
}

struct Question<'a> {
    key: &'a KeyFacts,
    revision: &'a Arc<Revision>,
    calls: &'a [&'a Record],
}

impl<'a> Question<'a> {
    /// The calls that a restricted key with these scopes is allowed; without any scope there is no such key.
    fn allowed(&self, scopes: &[Scope]) -> Result<Vec<&'a Record>, getrandom::Error> {
        if scopes.is_empty() {
            return Ok(Vec::new());
        }
        let facts = Arc::new(KeyFacts { kind: Kind::Restricted, scopes: scopes.into(), ..self.key.clone() });
        let mut redecider = Redecider::new(Arc::clone(self.revision))?;
        let mut is_allowed = |record: &Record| {
            let decided = redecider.decide(&record.with_key(Arc::clone(&facts)));
            decided.is_some_and(|decided| decided.reason == Reason::Allowed)
        };
        Ok(self.calls.iter().copied().filter(|record| is_allowed(record)).collect())
    }
}
