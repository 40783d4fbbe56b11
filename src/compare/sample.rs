//! Requests that are put to two revisions, by the real authorizer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::literals::{Literals, MODES};
use super::{Decided, Difference, Direction, Known, Pair, Subject};
use crate::authorize::credentials::Credentials;
use crate::authorize::path::target_of;
use crate::authorize::verdict::{Outcome, Verdict};
use crate::authorize::{Call, Caller, RequestLine, Stated, Transport, authorize};
use crate::key::{AccountId, EnvironmentId, Key, KeyId, Kind, Mode, Scope, Selector};
use crate::policy::{ContextUse, PrincipalKind, Revision, Route, Target, filled};
use crate::prove::witness::Witness;
use crate::ring::LiveKey;

/// Requests of one kind of caller on one route. More would take too long for what they show.
const MOST: usize = 4096;
/// Of one thing in which they differ, where a few have to do.
const FEW: usize = 8;
/// A scope that no schema has: that of a key whose scopes have all been removed from it.
pub(super) const GONE: &str = "gone";
/// An address that policies do not name.
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

/// Where a request's thing is, seen from the key.
#[derive(Clone, Copy)]
enum Place {
    Own,
    OtherMode,
    Other(AccountId, Mode),
}

/// A request.
#[derive(Clone, Copy)]
struct Sample<'a> {
    key: Option<&'a Arc<LiveKey>>,
    place: Place,
    item: &'a str,
    address: Option<IpAddr>,
    now: Timestamp,
    secure: bool,
}

/// Puts requests to two revisions.
pub(super) struct Sampler<'a> {
    before: &'a Arc<Revision>,
    after: &'a Arc<Revision>,
    literals: &'a Literals,
    scopes: &'a BTreeSet<Scope>,
    /// What stands for an item that no policy and no route names.
    item: &'a str,
    account: Option<AccountId>,
    other: Option<AccountId>,
    now: Timestamp,
}

impl<'a> Sampler<'a> {
    pub fn new(
        before: &'a Arc<Revision>,
        after: &'a Arc<Revision>,
        literals: &'a Literals,
        scopes: &'a BTreeSet<Scope>,
        item: &'a str,
    ) -> Self {
        let (account, other) = (AccountId::random().ok(), AccountId::random().ok());
        Self { before, after, literals, scopes, item, account, other, now: Timestamp::now() }
    }

    /// Tries a few requests, which differ from a plain one in one thing each, and notes one that only the later revision
    /// allows and one that only the earlier one allows.
    pub fn glance(&self, pair: &Pair<'_>, known: &mut Known) {
        let keys = self.keys(&known.subject);
        self.plain(pair, &keys).iter().for_each(|sample| self.put(pair, sample, known));
    }

    /// Tries many, until this moment.
    pub fn search(&self, pair: &Pair<'_>, known: &mut Known, until: Instant) {
        let keys = self.keys(&known.subject);
        let samples = self.samples(pair, &keys);
        let in_time = samples.iter().take_while(|_| Instant::now() < until);
        in_time.for_each(|sample| self.put(pair, sample, known));
    }

    fn put(&self, pair: &Pair<'_>, sample: &Sample<'_>, known: &mut Known) {
        if known.widened.is_some() && known.narrowed.is_some() {
            return;
        }
        let target = self.target(pair, sample.item);
        let line = RequestLine { method: pair.method, target: &target };
        let (before, after) = (decide(self.before, line, sample), decide(self.after, line, sample));
        let direction = match (is_allowed(&before), is_allowed(&after)) {
            (false, true) => Direction::Widened,
            (true, false) => Direction::Narrowed,
            _ => return,
        };
        if known.found(direction).is_none() {
            let request = self.witness(pair, sample, &target);
            known.note(direction, Difference { request, before: decided(&before), after: decided(&after) });
        }
    }

    /// A target of these paths, about the item where one names it; else the service that asks says which item it is.
    fn target(&self, pair: &Pair<'_>, item: &str) -> String {
        let path = Some(filled(&pair.template, item, self.item)).filter(|path| pair.has(self.before, self.after, path));
        let target = path.as_deref().and_then(target_of).map(Cow::into_owned);
        target.unwrap_or_else(|| filled(&pair.template, self.item, self.item))
    }

    /// Keys of this kind; none for a call without credentials.
    fn keys(&self, subject: &Subject) -> Vec<Option<Arc<LiveKey>>> {
        let (kind, held) = match subject {
            Subject::Publishable => (Kind::Publishable, vec![vec![]]),
            Subject::Secret => (Kind::Secret, vec![vec![]]),
            Subject::Restricted { scopes } if scopes.is_empty() => (Kind::Restricted, vec![vec![GONE.into()]]),
            Subject::Restricted { scopes } => (Kind::Restricted, vec![scopes.clone()]),
            Subject::RestrictedSeveral => (Kind::Restricted, self.several()),
            _ => return vec![None],
        };
        let accounts = self.account.iter().chain(&self.literals.accounts);
        let ids: Vec<Option<KeyId>> =
            std::iter::once(KeyId::random().ok()).chain(self.literals.keys.iter().copied().map(Some)).collect();
        let each = accounts.flat_map(|account| ids.iter().flatten().map(move |id| (*account, *id)));
        let of_mode = each.flat_map(|of| MODES.map(|mode| (of, mode)));
        let all = of_mode.flat_map(|of| held.iter().map(move |scopes| (of, scopes.clone())));
        let key = |(((account, id), mode), scopes)| supposed(account, id, kind, mode, scopes, self.now);
        all.filter_map(key).map(|key| Some(Arc::new(key))).collect()
    }

    /// All scopes together, and each two of them.
    fn several(&self) -> Vec<Vec<Scope>> {
        let all: Vec<Scope> = self.scopes.iter().cloned().collect();
        let with = |(at, one): (usize, &Scope)| {
            let others = all.iter().skip(at + 1).map(|other| vec![one.clone(), other.clone()]);
            others.collect::<Vec<_>>()
        };
        std::iter::once(all.clone()).chain(all.iter().enumerate().flat_map(with)).collect()
    }

    /// A request by each key, and then by one of them those that differ from it in one thing.
    fn plain<'s>(&'s self, pair: &Pair<'_>, keys: &'s [Option<Arc<LiveKey>>]) -> Vec<Sample<'s>> {
        let of_key = |key: &'s Option<Arc<LiveKey>>| Sample {
            key: key.as_ref(),
            place: Place::Own,
            item: self.item,
            address: None,
            now: self.now,
            secure: true,
        };
        let mut samples: Vec<Sample<'s>> = keys.iter().take(FEW).map(of_key).collect();
        let Some(first) = samples.first().copied() else { return samples };
        samples.extend(self.places().into_iter().map(|place| Sample { place, ..first }));
        samples.extend(self.items(pair).into_iter().take(FEW).map(|item| Sample { item, ..first }));
        samples.extend(self.addresses(pair).into_iter().take(FEW).map(|address| Sample { address, ..first }));
        samples.extend(self.times(pair).into_iter().take(FEW).map(|now| Sample { now, ..first }));
        samples.extend(first.key.is_none().then_some(Sample { secure: false, ..first }));
        samples
    }

    /// The requests that are tried, [`MOST`] at most.
    fn samples<'s>(&'s self, pair: &Pair<'_>, keys: &'s [Option<Arc<LiveKey>>]) -> Vec<Sample<'s>> {
        let (addresses, times, items, places) =
            (self.addresses(pair), self.times(pair), self.items(pair), self.places());
        let mut samples = Vec::new();
        // What policies look at least comes first, so that what is cut off is more of the same.
        for now in times {
            for address in &addresses {
                for key in keys.iter().map(Option::as_ref) {
                    for place in &places {
                        for item in &items {
                            if samples.len() >= MOST {
                                return samples;
                            }
                            let sample = Sample { key, place: *place, item, address: *address, now, secure: true };
                            // Only a call without credentials may come in the clear and be asked about.
                            samples.extend(key.is_none().then_some(Sample { secure: false, ..sample }));
                            samples.push(sample);
                        }
                    }
                }
            }
        }
        samples
    }

    /// Whether any policy of either revision reads this of the context on this route.
    fn reads(pair: &Pair<'_>, of: fn(&ContextUse) -> bool) -> bool {
        let routes = [pair.before, pair.after].into_iter().flatten();
        let mut slices = routes.flat_map(|route| PrincipalKind::ALL.into_iter().filter_map(|kind| route.slice(kind)));
        slices.any(|slice| of(&slice.reads_context))
    }

    fn addresses(&self, pair: &Pair<'_>) -> Vec<Option<IpAddr>> {
        let named = self.literals.addresses.iter().copied();
        let read = Self::reads(pair, |reads| reads.ip).then(|| std::iter::once(ADDRESS).chain(named));
        std::iter::once(None).chain(read.into_iter().flatten().map(Some)).collect()
    }

    fn times(&self, pair: &Pair<'_>) -> Vec<Timestamp> {
        let hours = (1..24).filter_map(|hour| self.now.checked_add(SignedDuration::from_hours(hour)).ok());
        let read = Self::reads(pair, |reads| reads.time).then(|| self.literals.times.iter().copied().chain(hours));
        std::iter::once(self.now).chain(read.into_iter().flatten()).collect()
    }

    fn items(&self, pair: &Pair<'_>) -> Vec<&str> {
        let is_item = |route: &Route| matches!(route.target, Target::Item(_));
        let named = [pair.before, pair.after]
            .into_iter()
            .flatten()
            .any(is_item)
            .then(|| self.literals.items.iter().map(String::as_str));
        std::iter::once(self.item).chain(named.into_iter().flatten()).collect()
    }

    fn places(&self) -> Vec<Place> {
        let others = self.other.iter().chain(&self.literals.accounts);
        let others = others.flat_map(|account| MODES.map(|mode| Place::Other(*account, mode)));
        [Place::Own, Place::OtherMode].into_iter().chain(others).collect()
    }

    fn witness(&self, pair: &Pair<'_>, sample: &Sample<'_>, target: &str) -> Witness {
        let principal = match sample.key {
            None => "a call without credentials".to_owned(),
            Some(live) => {
                let scopes: Vec<&str> = live.key.scopes.iter().map(Scope::as_str).collect();
                let with = if scopes.is_empty() { String::new() } else { format!(" with {}", scopes.join(", ")) };
                let named =
                    if self.literals.keys.contains(&live.key.id) { live.key.id.to_string() } else { String::new() };
                let whose = if Some(live.key.account) == self.account {
                    String::new()
                } else {
                    format!(" of {}", live.key.account)
                };
                format!("a {} {} key{with}{whose} {named}", live.key.mode.as_str(), live.key.kind.as_str())
            }
        };
        let environment = match (sample.place, sample.key) {
            (Place::Own, None) => "no environment".to_owned(),
            (Place::Own, Some(_)) => "its own environment".to_owned(),
            (Place::OtherMode, Some(live)) => format!("its account's {} environment", other(live.key.mode).as_str()),
            (Place::OtherMode, None) => "a live environment".to_owned(),
            (Place::Other(account, mode), _) if self.literals.accounts.contains(&account) => {
                format!("the {} environment of {account}", mode.as_str())
            }
            (Place::Other(_, mode), _) => format!("another account's {} environment", mode.as_str()),
        };
        let resource = match pair.route().map(|route| &route.target) {
            Some(Target::Environment) | None => environment,
            Some(Target::Item(of_type)) => format!("the {} {:?} in {environment}", of_type.basename(), sample.item),
        };
        let mut context = BTreeMap::new();
        context.extend(sample.address.map(|address| ("ip".to_owned(), address.to_string())));
        if sample.now != self.now {
            context.insert("time".to_owned(), sample.now.to_string());
        }
        if !sample.secure {
            context.insert("secure".to_owned(), "false".to_owned());
        }
        Witness {
            request: format!("{} {target}", pair.method),
            principal: principal.trim_end().to_owned(),
            resource,
            context,
        }
    }
}

fn other(mode: Mode) -> Mode {
    match mode {
        Mode::Live => Mode::Test,
        Mode::Test => Mode::Live,
    }
}

/// A key that exists for the moment.
pub(super) fn supposed(
    account: AccountId,
    id: KeyId,
    kind: Kind,
    mode: Mode,
    scopes: Vec<Scope>,
    now: Timestamp,
) -> Option<LiveKey> {
    let key = Key::supposed(account, id, (kind, mode), scopes.into(), Selector::random().ok()?, now.into());
    Some(LiveKey::new(key, 1))
}

fn decide(revision: &Arc<Revision>, line: RequestLine<'_>, sample: &Sample<'_>) -> Verdict {
    let own = sample.key.map(|live| live.key.environment());
    let environment = match (sample.place, own) {
        (Place::OtherMode, Some(own)) => Some(EnvironmentId { mode: other(own.mode), ..own }),
        (Place::Own, _) | (Place::OtherMode, None) => None,
        (Place::Other(account, mode), _) => Some(EnvironmentId { account, mode }),
    };
    let call = Call {
        credentials: Credentials::None,
        transport: if sample.secure { Transport::Secure } else { Transport::Insecure },
        address: sample.address,
        line: Some(line),
        stated: Stated { item: Some(sample.item), environment },
    };
    let caller = match sample.key {
        Some(live) => Caller::Proven(Arc::clone(live), live.key.secret.selector),
        None => Caller::Anonymous,
    };
    authorize(&call, caller, revision, sample.now)
}

fn is_allowed(verdict: &Verdict) -> bool {
    verdict.reason.outcome() == Outcome::Allow
}

pub(super) fn decided(verdict: &Verdict) -> Decided {
    Decided {
        allowed: is_allowed(verdict),
        reason: verdict.reason.as_str().to_owned(),
        policies: verdict.policies.iter().map(ToString::to_string).collect(),
    }
}
