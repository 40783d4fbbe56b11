//! The decision: who calls → how the key stands → transport → address → route → policies → verdict.
//!
//! Pure and synchronous: it takes values, the revision and the time, and returns a [`Verdict`]. It reads
//! no clock, no store and no network; whether a secret is the right one was found out before, by
//! [`pdp`](crate::pdp). Every surface goes through [`authorize`], and nothing else decides.

pub mod credentials;
pub mod evaluate;
pub mod explain;
pub mod manage;
pub mod path;
pub mod suppose;
pub mod verdict;

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use self::credentials::Credentials;
use self::evaluate::{Principal, Question, evaluate, evaluate_remembering};
use self::verdict::{Reason, Verdict};
use crate::evaluation::Evaluation;
use crate::key::{EnvironmentId, Mode, Selector, Status};
use crate::policy::{Revision, RouteMatch};
use crate::ring::LiveKey;

/// Stack of the threads that evaluate policies, in bytes. The caps on expressions (`policy::scan`) keep every
/// evaluation far below it, and new files are tried on no more than this first.
pub const STACK: usize = 8 << 20;

/// Whether a call came over TLS, as far as the surface could tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Over TLS.
    Secure,
    /// In the clear.
    Insecure,
    /// Not stated, or not in one way only. Never taken for either of the others.
    Unknown,
}

/// Method and target of a call, as the surface was told.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    /// The method, case as sent.
    pub method: &'a str,
    /// The request target, raw: path and query, or the absolute form.
    pub target: &'a str,
}

/// What a calling service says of the thing that a call is about.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stated<'a> {
    /// The item's id; without it, the path's.
    pub item: Option<&'a str>,
    /// The environment; without it, the key's own.
    pub environment: Option<EnvironmentId>,
}

/// One call, as a surface understood it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// What it says of who makes it.
    pub credentials: Credentials<'a>,
    /// How it travelled.
    pub transport: Transport,
    /// Whence it came, when that is known.
    pub address: Option<IpAddr>,
    /// What it asks for; `None` when the proxy did not state that exactly once.
    pub line: Option<RequestLine<'a>>,
    /// What it is about, where a calling service knows better than the path.
    pub stated: Stated<'a>,
}

impl Call<'_> {
    /// A call of which nothing is believed, because of whoever states it.
    pub fn distrusted() -> Self {
        Call {
            credentials: Credentials::Distrusted,
            transport: Transport::Unknown,
            address: None,
            line: None,
            stated: Stated::default(),
        }
    }
}

/// Who makes a call, once the secret was checked.
#[derive(Debug, Clone)]
pub enum Caller {
    /// No credentials were sent.
    Anonymous,
    /// The asking peer is not trusted.
    Distrusted,
    /// What was sent is not one well-formed bearer token.
    Malformed,
    /// The selector or the secret is wrong.
    Unknown,
    /// This key, proven by the secret that this selector finds.
    Proven(Arc<LiveKey>, Selector),
}

/// Whether the revision in force is what it should be, as far as it matters to a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is, or nothing is to happen because it is not.
    Current,
    /// Newer files were refused, or have waited, for too long: no live data is entrusted to it any more.
    TooOld,
}

/// Decides one call by a revision that is as it should be.
pub fn authorize(call: &Call<'_>, caller: Caller, revision: &Arc<Revision>, now: Timestamp) -> Verdict {
    authorize_by(call, caller, revision, Standing::Current, now)
}

/// Decides one call by a revision of this standing.
pub fn authorize_by(
    call: &Call<'_>,
    caller: Caller,
    revision: &Arc<Revision>,
    standing: Standing,
    now: Timestamp,
) -> Verdict {
    match caller {
        Caller::Distrusted => refuse(Reason::PeerUntrusted, None, revision, now),
        Caller::Malformed => refuse(Reason::CredentialsMalformed, None, revision, now),
        Caller::Unknown => refuse(Reason::KeyUnknown, None, revision, now),
        Caller::Anonymous => authorize_anonymous(call, revision, now),
        Caller::Proven(live, selector) => match stop_before_policies(call, &live, &selector, standing, now) {
            Some(reason) => refuse(reason, Some(live), revision, now),
            None => authorize_key(call, live, revision, now),
        },
    }
}

fn refuse(reason: Reason, key: Option<Arc<LiveKey>>, revision: &Arc<Revision>, now: Timestamp) -> Verdict {
    Verdict {
        reason,
        key,
        action: None,
        policies: Arc::default(),
        missing_scopes: Arc::default(),
        revision: Arc::clone(revision),
        at: now,
    }
}

/// What refuses a proven key before any policy is asked.
fn stop_before_policies(
    call: &Call<'_>,
    live: &LiveKey,
    selector: &Selector,
    standing: Standing,
    now: Timestamp,
) -> Option<Reason> {
    let Some(secret) = live.key.secret(selector) else {
        return Some(Reason::KeyUnknown);
    };
    match live.key.status(secret, now) {
        Status::Good => {}
        Status::Expired => return Some(Reason::KeyExpired),
        Status::Disabled => return Some(Reason::KeyDisabled),
        Status::Revoked => return Some(Reason::KeyRevoked),
        Status::Compromised => return Some(Reason::KeyCompromised),
    }
    match call.transport {
        Transport::Secure if !live.key.admits(call.address) => Some(Reason::AddressNotAllowed),
        Transport::Secure if standing == Standing::TooOld && live.key.mode == Mode::Live => Some(Reason::PoliciesStale),
        Transport::Secure => None,
        Transport::Insecure => Some(Reason::TransportInsecure),
        Transport::Unknown => Some(Reason::TransportUnknown),
    }
}

/// The question that a call on this route puts to the policies.
fn question<'q>(
    call: &Call<'q>,
    line: RequestLine<'q>,
    found: &RouteMatch<'q, 'q>,
    path: &'q str,
    principal: Principal<'q>,
    now: Timestamp,
) -> Question<'q> {
    Question {
        principal,
        route: found.route,
        item: call.stated.item.or(found.id),
        environment: call.stated.environment.or_else(|| principal.environment()),
        secure: call.transport == Transport::Secure,
        method: line.method,
        path,
        address: call.address,
        now,
    }
}

/// A call without credentials is allowed by a policy for `Anonymous`, and else it is 401 whatever else is
/// wrong with it: who is not known learns nothing about routes.
fn authorize_anonymous(call: &Call<'_>, revision: &Arc<Revision>, now: Timestamp) -> Verdict {
    let refused = || refuse(Reason::CredentialsMissing, None, revision, now);
    let Some(line) = call.line else { return refused() };
    let Ok(path) = path::normalise(line.target) else { return refused() };
    let Some(found) = revision.find_route(line.method, &path) else { return refused() };
    if call.transport == Transport::Unknown {
        return refuse(Reason::TransportUnknown, None, revision, now);
    }
    let question = question(call, line, &found, &path, Principal::Anonymous, now);
    let action = Some(Arc::clone(&found.route.action_name));
    match evaluate(revision, &question) {
        Evaluation::Permitted(policies) => Verdict { action, policies, ..refuse(Reason::Allowed, None, revision, now) },
        Evaluation::Denied { by: policies, .. } => Verdict { action, policies, ..refused() },
        Evaluation::Failed(policies) => {
            Verdict { action, policies, ..refuse(Reason::PolicyError, None, revision, now) }
        }
    }
}

fn authorize_key(call: &Call<'_>, live: Arc<LiveKey>, revision: &Arc<Revision>, now: Timestamp) -> Verdict {
    let Some(line) = call.line else { return refuse(Reason::RequestUnclear, Some(live), revision, now) };
    let Ok(path) = path::normalise(line.target) else {
        return refuse(Reason::PathAmbiguous, Some(live), revision, now);
    };
    let Some(found) = revision.find_route(line.method, &path) else {
        return refuse(Reason::NoRoute, Some(live), revision, now);
    };
    let question = question(call, line, &found, &path, Principal::Key { key: &live.key, also: None }, now);
    let evaluation = evaluate_remembering(revision, &live, &question);
    let (reason, policies, missing_scopes) = match &*evaluation {
        Evaluation::Permitted(by) => (Reason::Allowed, by, None),
        Evaluation::Failed(by) => (Reason::PolicyError, by, None),
        Evaluation::Denied { by, missing_scopes } if missing_scopes.is_empty() => (Reason::PolicyDenied, by, None),
        Evaluation::Denied { by, missing_scopes } => (Reason::ScopeMissing, by, Some(missing_scopes)),
    };
    let (policies, missing_scopes) = (Arc::clone(policies), missing_scopes.map(Arc::clone).unwrap_or_default());
    let action = Some(Arc::clone(&found.route.action_name));
    Verdict { action, policies, missing_scopes, ..refuse(reason, Some(live), revision, now) }
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
