//! One decision, as it is kept: what it turned on, and nothing more.
//!
//! A record is small, because there are many: what records have in common (the key as it was, what was ruled and by
//! which policies) they share, and their texts are one allocation. It holds no token and no query string.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::PolicyId;
use foldhash::fast::RandomState;
use smallvec::SmallVec;

use crate::authorize::path::normalise;
use crate::authorize::verdict::{Reason, Verdict};
use crate::authorize::{Call, Transport};
use crate::key::{AccountId, EnvironmentId, Key, KeyId, Kind, Mode, Moment, Scope, masked};
use crate::policy::Digest;

/// Bytes of a request's id that are kept.
const LONGEST_ID: usize = 128;
/// Bytes of a method that are kept; no route has a longer one.
const LONGEST_METHOD: usize = 32;
/// Bytes of a path or an item's id that are kept. A call with a longer one cannot be decided again.
const LONGEST_PATH: usize = 1024;
/// Bytes of texts that are handed over without an allocation.
const INLINE: usize = 96;
/// Shared values that are held before those are looked for that nobody needs any more.
const FEW: usize = 1_024;

/// Names a record: `dec_` and its place in the order of decisions, which goes on across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordId(pub u64);

/// A text that is no record's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a decision's id: it is written `dec_` and 16 hexadecimal digits")]
pub struct NotARecordId;

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dec_{:016x}", self.0)
    }
}

impl FromStr for RecordId {
    type Err = NotARecordId;

    fn from_str(text: &str) -> Result<Self, NotARecordId> {
        let digits = text.strip_prefix("dec_").filter(|digits| digits.len() == 16).ok_or(NotARecordId)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NotARecordId);
        }
        u64::from_str_radix(digits, 16).map(Self).map_err(|_| NotARecordId)
    }
}

/// What policies see of a key, as it was when the decision was made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyFacts {
    /// Its identity.
    pub id: KeyId,
    /// Whose key it is.
    pub account: AccountId,
    /// What it is for.
    pub kind: Kind,
    /// Which environment it belongs to.
    pub mode: Mode,
    /// What a restricted key was granted.
    pub scopes: Arc<[Scope]>,
}

impl KeyFacts {
    /// What policies see of this key now.
    pub fn of(key: &Key) -> Self {
        let Key { id, account, kind, mode, ref scopes, .. } = *key;
        Self { id, account, kind, mode, scopes: Arc::clone(scopes) }
    }

    /// Whether these are still the facts. What never changes of a key is not compared.
    fn are_of(&self, key: &Key) -> bool {
        Arc::ptr_eq(&self.scopes, &key.scopes) || self.scopes == key.scopes
    }

    /// The environment that it belongs to.
    pub fn environment(&self) -> EnvironmentId {
        EnvironmentId { account: self.account, mode: self.mode }
    }
}

/// What was decided, and by what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ruling {
    /// Why, and by that the outcome.
    pub reason: Reason,
    /// The action, once a route was found.
    pub action: Option<Arc<str>>,
    /// The policies that decided.
    pub policies: Arc<[PolicyId]>,
    /// The revision that was asked.
    pub revision: Digest,
}

/// How much is known of what a call asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// All of it: the path is in its normal form.
    Whole,
    /// It can be read in more than one way, or is too long to be kept whole: this is its beginning, as it was stated.
    Unclear,
    /// Nothing.
    Unstated,
}

/// One decision.
#[derive(Clone)]
pub struct Record {
    pub(super) place: u64,
    pub(super) time: Moment,
    /// The key, when one was proven.
    pub(super) key: Option<Arc<KeyFacts>>,
    pub(super) ruling: Arc<Ruling>,
    /// The request's id, the method, the path and the item's id, one behind the other.
    pub(super) texts: Box<str>,
    /// The environment that a calling service stated; few do.
    pub(super) environment: Option<Box<EnvironmentId>>,
    pub(super) address: Option<IpAddr>,
    pub(super) id_length: u8,
    pub(super) method_length: u8,
    pub(super) path_length: u16,
    pub(super) line: Line,
    pub(super) transport: Transport,
}

impl Record {
    /// Names it.
    pub fn id(&self) -> RecordId {
        RecordId(self.place)
    }

    /// When it was decided.
    pub fn time(&self) -> jiff::Timestamp {
        self.time.time()
    }

    /// The key that was proven, as it was then.
    pub fn key(&self) -> Option<&Arc<KeyFacts>> {
        self.key.as_ref()
    }

    /// The same call, made with another key.
    pub(super) fn with_key(&self, key: Arc<KeyFacts>) -> Self {
        Self { key: Some(key), ..self.clone() }
    }

    /// What was decided, and by what.
    pub fn ruling(&self) -> &Arc<Ruling> {
        &self.ruling
    }

    /// Names the request; several decisions may be of one.
    pub fn request_id(&self) -> &str {
        self.text(0, self.id_length.into())
    }

    /// The method; empty when it was not stated.
    pub fn method(&self) -> &str {
        self.text(self.id_length.into(), self.method_length.into())
    }

    /// The normalised path, if the stated one could be read in one way.
    pub fn path(&self) -> Option<&str> {
        (self.line == Line::Whole).then(|| self.any_path())
    }

    /// What was stated in place of a path that can be read in one way.
    pub fn stated_path(&self) -> Option<&str> {
        (self.line == Line::Unclear).then(|| self.any_path())
    }

    fn any_path(&self) -> &str {
        self.text(self.id_length as usize + self.method_length as usize, self.path_length.into())
    }

    /// The item that a calling service stated.
    pub fn stated_item(&self) -> Option<&str> {
        let before = self.id_length as usize + self.method_length as usize + self.path_length as usize;
        self.texts.get(before..).filter(|item| !item.is_empty())
    }

    /// The environment that a calling service stated.
    pub fn stated_environment(&self) -> Option<EnvironmentId> {
        self.environment.as_deref().copied()
    }

    /// Whence the call came.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// How the call travelled.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    fn text(&self, start: usize, length: usize) -> &str {
        self.texts.get(start..start + length).unwrap_or_default()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("id", &self.id()).field("ruling", &self.ruling).finish_non_exhaustive()
    }
}

/// A decision on its way from whoever made it: moved, not copied, but for a few short texts.
pub struct Offered {
    verdict: Verdict,
    transport: Transport,
    address: Option<IpAddr>,
    environment: Option<EnvironmentId>,
    /// Where the request's id, the method and the target end; an item's id may follow.
    ends: [u16; 3],
    is_stated: bool,
    /// Whether nothing was cut that a policy might look at.
    is_whole: bool,
    texts: SmallVec<[u8; INLINE]>,
}

impl Offered {
    /// Takes the verdict over. The texts are cut here, so that a queue of decisions is no queue of megabytes.
    pub fn new(verdict: Verdict, call: &Call<'_>, request_id: &str) -> Self {
        let (method, target) = call.line.map_or(("", ""), |line| (line.method, line.target));
        // A query is never looked at, and may hold anything.
        let target = target.split('?').next().unwrap_or_default();
        let item = call.stated.item.unwrap_or_default();
        let mut texts = SmallVec::new();
        let mut append = |text: &str, most: usize| {
            texts.extend_from_slice(cut(text, most).as_bytes());
            // Invariant: all that is kept is far below what two bytes count.
            u16::try_from(texts.len()).unwrap_or(u16::MAX)
        };
        let ends = [append(request_id, LONGEST_ID), append(method, LONGEST_METHOD), append(target, LONGEST_PATH)];
        append(item, LONGEST_PATH);
        Self {
            verdict,
            transport: call.transport,
            address: call.address,
            environment: call.stated.environment,
            ends,
            is_stated: call.line.is_some(),
            is_whole: target.len() <= LONGEST_PATH && item.len() <= LONGEST_PATH,
            texts,
        }
    }

    /// The request's id, the method, the target and the item.
    fn texts(&self) -> [&str; 4] {
        let [id, method, target] = self.ends.map(usize::from);
        let part = |start: usize, end: usize| {
            let bytes = self.texts.get(start..end).unwrap_or_default();
            std::str::from_utf8(bytes).unwrap_or_default()
        };
        [part(0, id), part(id, method), part(method, target), part(target, self.texts.len())]
    }
}

/// The values that records share.
#[derive(Default)]
pub(super) struct Shared {
    /// The newest facts of each key.
    keys: HashMap<KeyId, Arc<KeyFacts>, RandomState>,
    rulings: HashSet<Arc<Ruling>, RandomState>,
    /// How many there may be before the next look at what nobody needs any more.
    keys_before_sweep: usize,
    rulings_before_sweep: usize,
}

impl Shared {
    /// Makes a record of an offered decision.
    pub(super) fn record(&mut self, offered: &Offered, place: u64) -> Record {
        let [id, method, target, item] = offered.texts();
        let read = if offered.is_stated && offered.is_whole { normalise(target).ok() } else { None };
        let (line, path) = match &read {
            Some(path) => (Line::Whole, &**path),
            None if offered.is_stated => (Line::Unclear, target.split('#').next().unwrap_or_default()),
            None => (Line::Unstated, ""),
        };
        let (method, path, item) = (masked(method), masked(path), masked(item));
        let verdict = &offered.verdict;
        let parts = Parts {
            place,
            time: verdict.at.into(),
            key: verdict.key.as_deref().map(|live| self.key(&live.key)),
            ruling: self.ruling(Ruling {
                reason: verdict.reason,
                action: verdict.action.clone(),
                policies: Arc::clone(&verdict.policies),
                revision: verdict.revision.digest(),
            }),
            texts: [id, &method, &path, &item],
            line,
            environment: offered.environment,
            address: offered.address,
            transport: offered.transport,
        };
        parts.record()
    }

    /// How many values are held: of keys, and of rulings.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.keys.len(), self.rulings.len())
    }

    fn key(&mut self, key: &Key) -> Arc<KeyFacts> {
        match self.keys.get(&key.id) {
            Some(facts) if facts.are_of(key) => Arc::clone(facts),
            _ => self.facts(KeyFacts::of(key)),
        }
    }

    /// The one value of these facts.
    pub(super) fn facts(&mut self, facts: KeyFacts) -> Arc<KeyFacts> {
        if let Some(known) = self.keys.get(&facts.id).filter(|known| ***known == facts) {
            return Arc::clone(known);
        }
        if self.keys.len() >= self.keys_before_sweep.max(FEW) {
            self.keys.retain(|_, facts| Arc::strong_count(facts) > 1);
            self.keys_before_sweep = 2 * self.keys.len();
        }
        let facts = Arc::new(facts);
        self.keys.insert(facts.id, Arc::clone(&facts));
        facts
    }

    /// The one value of this ruling.
    pub(super) fn ruling(&mut self, ruling: Ruling) -> Arc<Ruling> {
        if let Some(known) = self.rulings.get(&ruling) {
            return Arc::clone(known);
        }
        if self.rulings.len() >= self.rulings_before_sweep.max(FEW) {
            self.rulings.retain(|ruling| Arc::strong_count(ruling) > 1);
            self.rulings_before_sweep = 2 * self.rulings.len();
        }
        let ruling = Arc::new(ruling);
        self.rulings.insert(Arc::clone(&ruling));
        ruling
    }
}

/// What a record is made of.
pub(super) struct Parts<'a> {
    pub(super) place: u64,
    pub(super) time: Moment,
    pub(super) key: Option<Arc<KeyFacts>>,
    pub(super) ruling: Arc<Ruling>,
    /// The request's id, the method, the path and the item's id.
    pub(super) texts: [&'a str; 4],
    pub(super) line: Line,
    pub(super) environment: Option<EnvironmentId>,
    pub(super) address: Option<IpAddr>,
    pub(super) transport: Transport,
}

impl Parts<'_> {
    pub(super) fn record(self) -> Record {
        let [id, method, path, item] = self.texts;
        let [id, method] = [cut(id, LONGEST_ID), cut(method, LONGEST_METHOD)];
        // Masking may lengthen a text by a few bytes for each token in it; what is cut there was no path anyway.
        let [path, item] = [path, item].map(|text| cut(text, usize::from(u16::MAX)));
        Record {
            place: self.place,
            time: self.time,
            key: self.key,
            ruling: self.ruling,
            texts: [id, method, path, item].concat().into(),
            environment: self.environment.map(Box::new),
            address: self.address,
            id_length: u8::try_from(id.len()).unwrap_or(u8::MAX),
            method_length: u8::try_from(method.len()).unwrap_or(u8::MAX),
            path_length: u16::try_from(path.len()).unwrap_or(u16::MAX),
            line: self.line,
            transport: self.transport,
        }
    }
}

fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}
