//! A recorded decision, made again under another revision.
//!
//! It goes through the one [`authorize`], with a key that is rebuilt from the record: as it was then, not as it is
//! today. Where two records ask policies the same, the second answer is the first: of what a question is made is known
//! from the route's slice.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use cedar_policy::PolicyId;
use jiff::Timestamp;

use super::record::{KeyFacts, Record};
use crate::authorize::credentials::Credentials;
use crate::authorize::path::encode;
use crate::authorize::verdict::{Reason, Verdict};
use crate::authorize::{Call, Caller, RequestLine, Stated, authorize};
use crate::key::{EnvironmentId, Key, Selector};
use crate::policy::{PrincipalKind, Revision};
use crate::ring::LiveKey;

/// Answers and keys that one [`Redecider`] remembers.
const MOST: usize = 100_000;

impl KeyFacts {
    /// A key of these facts, which works and is proven by the secret of this selector, if there were one.
    pub fn key(&self, selector: Selector, now: Timestamp) -> Key {
        let scopes = Arc::clone(&self.scopes);
        Key::supposed(self.account, self.id, (self.kind, self.mode), scopes, selector, now.into())
    }
}

/// The call of a recorded decision.
pub struct Again<'r> {
    record: &'r Record,
    /// What [`normalise`](crate::authorize::path::normalise) reads as the record's path.
    target: Option<Cow<'r, str>>,
}

impl<'r> Again<'r> {
    /// The call, if it was decided by schema and policies, and all is known that they look at.
    pub fn of(record: &'r Record) -> Option<Self> {
        let target = record.path().map(encode);
        let is_theirs = record.ruling().reason.is_of_the_revision();
        // A call without credentials whose path is unclear is 401 under any policies.
        (is_theirs && target.is_some()).then_some(Self { record, target })
    }

    /// Who makes it: the key as it was then, proven.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn caller(&self) -> Result<Caller, getrandom::Error> {
        let Some(facts) = self.record.key() else { return Ok(Caller::Anonymous) };
        let selector = Selector::random()?;
        Ok(Caller::Proven(Arc::new(LiveKey::new(facts.key(selector, self.record.time()), 1)), selector))
    }

    /// The call as a surface would describe it, but for its credentials, which are nowhere.
    pub fn call(&self) -> Call<'_> {
        let line = self.target.as_deref().map(|target| RequestLine { method: self.record.method(), target });
        Call {
            credentials: Credentials::None,
            transport: self.record.transport(),
            address: self.record.address(),
            line,
            stated: Stated { item: self.record.stated_item(), environment: self.record.stated_environment() },
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decided {
    /// Why, and by that the outcome.
    pub reason: Reason,
    /// The policies that decided.
    pub policies: Arc<[PolicyId]>,
}

impl From<Verdict> for Decided {
    fn from(verdict: Verdict) -> Self {
        Self { reason: verdict.reason, policies: verdict.policies }
    }
}

/// Decides records again under one revision.
pub struct Redecider {
    revision: Arc<Revision>,
    selector: Selector,
    keys: HashMap<Same, Arc<LiveKey>>,
    remembered: HashMap<Asked, Arc<Decided>>,
}

impl Redecider {
    /// Under this revision.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn new(revision: Arc<Revision>) -> Result<Self, getrandom::Error> {
        let selector = Selector::random()?;
        Ok(Self { revision, selector, keys: HashMap::new(), remembered: HashMap::new() })
    }

    /// What becomes of the recorded call; `None` when that was not for policies to say, and so is the same.
    pub fn decide(&mut self, record: &Record) -> Option<Arc<Decided>> {
        let again = Again::of(record)?;
        let asked = self.asked(record);
        if let Some(known) = asked.as_ref().and_then(|asked| self.remembered.get(asked)) {
            return Some(Arc::clone(known));
        }
        let caller = match record.key() {
            Some(facts) => Caller::Proven(self.live(facts, record.time()), self.selector),
            None => Caller::Anonymous,
        };
        let decided = Arc::new(Decided::from(authorize(&again.call(), caller, &self.revision, record.time())));
        if let Some(asked) = asked {
            if self.remembered.len() >= MOST {
                self.remembered.clear();
            }
            self.remembered.insert(asked, Arc::clone(&decided));
        }
        Some(decided)
    }

    fn live(&mut self, facts: &Arc<KeyFacts>, now: Timestamp) -> Arc<LiveKey> {
        if self.keys.len() >= MOST {
            self.keys.clear();
        }
        let live = self.keys.entry(Same(Arc::clone(facts)));
        let selector = self.selector;
        Arc::clone(live.or_insert_with(|| Arc::new(LiveKey::new(facts.key(selector, now), 1))))
    }

    /// Everything that the answer is a function of, if it is worth to be remembered.
    fn asked(&self, record: &Record) -> Option<Asked> {
        let found = self.revision.find_route(record.method(), record.path()?)?;
        let principal = record.key().map_or(PrincipalKind::Anonymous, |key| PrincipalKind::Key(key.kind));
        let slice = found.route.slice(principal)?;
        let reads = &slice.reads_context;
        if reads.time {
            return None;
        }
        let rest = (!slice.is_steady).then(|| Rest {
            item: record.stated_item().or(found.id).map(Into::into),
            address: record.address().filter(|_| reads.ip),
            path: record.path().filter(|_| reads.path).map(Into::into),
        });
        Some(Asked {
            key: record.key().map(|facts| Same(Arc::clone(facts))),
            // Its method is the route's.
            route: found.route.index,
            transport: record.transport() as u8,
            environment: record.stated_environment(),
            rest: rest.map(Box::new),
        })
    }
}

/// What policies are asked, of which the answer is a function.
#[derive(PartialEq, Eq, Hash)]
struct Asked {
    key: Option<Same>,
    route: usize,
    transport: u8,
    environment: Option<EnvironmentId>,
    rest: Option<Box<Rest>>,
}

/// What only some policies look at.
#[derive(PartialEq, Eq, Hash)]
struct Rest {
    item: Option<Box<str>>,
    address: Option<IpAddr>,
    path: Option<Box<str>>,
}

/// Facts that are told apart by their place in memory: equal ones that records share are one value.
struct Same(Arc<KeyFacts>);

impl PartialEq for Same {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Same {}

impl Hash for Same {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}
