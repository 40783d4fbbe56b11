//! Why a call is decided as it is: each step on the way, and what became of each policy.
//!
//! Pure like the decision, and no second opinion: the verdict is [`authorize`]'s own, and whether a policy applies is asked
//! of Cedar. What is added is which part of a policy decided, found by asking about its parts with the same request and
//! entities. Nobody waits for an explanation, so it may take its time; the decision path never comes here.

mod condition;
mod examine;
#[cfg(test)]
mod tests;
mod written;

use std::borrow::Cow;
use std::sync::Arc;

use cedar_policy::PolicyId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::condition::{Because, Seen};
pub use self::examine::{Examined, Part, State, Which};

use self::condition::Inquiry;
use self::examine::{in_play, near_misses};
use self::written::shown;
use super::evaluate::{Principal, pose};
use super::manage::{self, Asking, Subject};
use super::verdict::{Outcome, Reason, Verdict};
use super::{Call, Caller, RequestLine, Transport, authorize, path, question};
use crate::evaluation::Evaluation;
use crate::key::{Key, Selector, Status};
use crate::policy::{ContextUse, Operation, PrincipalKind, Revision, RouteMatch};

/// A decision, and why.
#[derive(Debug)]
pub struct Explained {
    /// The decision, as [`authorize`] makes it.
    pub verdict: Verdict,
    /// Why.
    pub explanation: Explanation,
}

/// Why a call is decided as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The way to the decision; of a call that is refused, the last step is the one that it failed at.
    pub steps: Vec<Step>,
    /// The policies in play for the route and the caller, in the order of files and lines; none when the call did not come
    /// so far.
    pub policies: Vec<Examined>,
    /// Policies that cannot apply to such a call.
    pub others: usize,
    /// Of a call that no policy permits: the permits that one part alone kept from applying, the nearest first.
    pub near_misses: Vec<Examined>,
}

/// A step on the way to a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// `credentials`, `key`, `transport`, `address`, `path`, `route` or `policies`.
    pub step: Cow<'static, str>,
    /// Whether the call went on from here; of `policies`, whether they allow it.
    pub passed: bool,
    /// What was found.
    pub detail: String,
}

/// Decides one call as [`authorize`] does, and says why.
pub fn explain(call: &Call<'_>, caller: &Caller, revision: &Arc<Revision>, now: Timestamp) -> Explained {
    let verdict = authorize(call, caller.clone(), revision, now);
    let mut way = Way { steps: Vec::new() };
    let found = way.walk(call, caller, revision, now);
    let mut explanation = Explanation {
        steps: way.steps,
        policies: vec![],
        others: revision.api_policies().policies().count(),
        near_misses: vec![],
    };
    let Some(Arrived { path, line, principal }) = found else { return Explained { verdict, explanation } };
    let Some(found) = revision.find_route(line.method, &path) else { return Explained { verdict, explanation } };
    let question = question(call, line, &found, &path, principal, now);
    let slice = found.route.slice(principal.kind());
    // No policy is asked about a call without credentials where none could permit it.
    let slice = slice.filter(|slice| slice.can_permit || principal.kind() != PrincipalKind::Anonymous);
    if let Some(posed) = pose(revision, &question, ContextUse::ALL) {
        let inquiry = Inquiry::new(&posed);
        let policies = slice.into_iter().flat_map(|slice| slice.policies.policies());
        explanation.policies = in_play(revision, &inquiry, policies);
        explanation.others -= explanation.policies.len().min(explanation.others);
        if verdict.reason.outcome() != Outcome::Allow {
            explanation.near_misses = near_misses(revision, &inquiry, revision.api_policies(), &explanation.policies);
        }
    }
    let passed = verdict.reason.outcome() == Outcome::Allow;
    let detail = said_of_policies(&verdict, slice.is_some(), principal.kind());
    explanation.steps.push(Step { step: "policies".into(), passed, detail });
    Explained { verdict, explanation }
}

/// Decides about an operation of the management API as [`manage`](manage::manage) does, and says why.
pub fn explain_management(
    revision: &Revision,
    asking: &Asking<'_>,
    operation: &Operation,
    subject: Subject<'_>,
) -> (Evaluation, Explanation) {
    let evaluation = manage::manage(revision, asking, operation, subject);
    let all = revision.management().policies();
    let is_allowed = matches!(evaluation, Evaluation::Permitted(_));
    let names = |by: &[PolicyId]| by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let detail = match &evaluation {
        Evaluation::Permitted(by) => format!("permitted by {}, and nothing forbids it", names(by)),
        Evaluation::Failed(by) => format!("{} could not be evaluated", names(by)),
        Evaluation::Denied { by, .. } if by.is_empty() => "no policy permits it".to_owned(),
        Evaluation::Denied { by, .. } => format!("forbidden by {}", names(by)),
    };
    let who = asking.user.map_or_else(|| "none were sent".to_owned(), |user| format!("of the person {}", user.id));
    let steps = vec![
        Step { step: "credentials".into(), passed: true, detail: who },
        Step { step: "policies".into(), passed: is_allowed, detail },
    ];
    let mut explanation = Explanation { steps, policies: vec![], others: all.policies().count(), near_misses: vec![] };
    if let Some(posed) = manage::pose(asking, operation, subject) {
        let inquiry = Inquiry::new(&posed);
        // Policies about other operations are not in play.
        let is_about = |examined: &Examined| !examined.parts.iter().any(|part| part.part == Which::Action);
        explanation.policies = in_play(revision, &inquiry, all.policies());
        explanation.policies.retain(is_about);
        explanation.others -= explanation.policies.len().min(explanation.others);
        if !is_allowed {
            explanation.near_misses = near_misses(revision, &inquiry, all, &explanation.policies);
        }
    }
    (evaluation, explanation)
}

/// What a call is, once policies are asked about it.
struct Arrived<'q> {
    path: Cow<'q, str>,
    line: RequestLine<'q>,
    principal: Principal<'q>,
}

/// The steps that a call has taken.
struct Way {
    steps: Vec<Step>,
}

impl Way {
    /// Notes a step; `None` when the call does not come past it.
    fn step(&mut self, step: &'static str, found: Result<String, String>) -> Option<()> {
        let (passed, detail) = match found {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        self.steps.push(Step { step: step.into(), passed, detail: shown(&detail) });
        passed.then_some(())
    }

    /// The same steps in the same order as [`authorize`] takes them; a property test holds the two together.
    fn walk<'q>(
        &mut self,
        call: &Call<'q>,
        caller: &'q Caller,
        revision: &Revision,
        now: Timestamp,
    ) -> Option<Arrived<'q>> {
        let principal = match caller {
            Caller::Distrusted => Err("the peer that states the call is not trusted".to_owned()),
            Caller::Malformed => Err("what was sent is not one well-formed bearer token".to_owned()),
            Caller::Unknown => Err("no key has the token that was sent".to_owned()),
            Caller::Proven(live, selector) if live.key.secret(selector).is_none() => {
                Err(format!("the secret that was sent is none of {} any more", live.key.id))
            }
            Caller::Anonymous => Ok((Principal::Anonymous, "none were sent".to_owned())),
            Caller::Proven(live, _) => Ok((Principal::Key { key: &live.key, also: None }, said_of_key(&live.key))),
        };
        let (principal, said) = match principal {
            Ok((principal, said)) => (Some(principal), Ok(said)),
            Err(said) => (None, Err(said)),
        };
        self.step("credentials", said)?;
        if let Caller::Proven(live, selector) = caller {
            self.step("key", standing(&live.key, selector, now))?;
            let insecure = "plain HTTP, over which no key may be sent";
            self.step("transport", transport(call.transport, insecure).map_err(str::to_owned))?;
            self.step("address", address(call, &live.key))?;
        }
        let line = call.line.ok_or_else(|| "method and path were not stated exactly once".to_owned());
        let path = line.and_then(|line| match path::normalise(line.target) {
            Ok(path) => Ok((line, path)),
            Err(error) => Err(error.to_string()),
        });
        self.step("path", path.as_ref().map(|(_, path)| path.to_string()).map_err(Clone::clone))?;
        let (line, path) = path.ok()?;
        self.step("route", route(revision, line.method, &path))?;
        if matches!(caller, Caller::Anonymous) {
            let said = match call.transport {
                Transport::Insecure => Ok("plain HTTP".to_owned()),
                others => transport(others, "").map_err(str::to_owned),
            };
            self.step("transport", said)?;
        }
        Some(Arrived { path, line, principal: principal? })
    }
}

fn said_of_key(key: &Key) -> String {
    let scopes = key.scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let scopes = if scopes.is_empty() { scopes } else { format!(", with {scopes}") };
    format!("{}, {} {} key of {}{scopes}", key.id, key.kind, key.mode, key.account)
}

fn standing(key: &Key, selector: &Selector, now: Timestamp) -> Result<String, String> {
    let status = key.secret(selector).map_or(Status::Revoked, |secret| key.status(secret, now));
    if status == Status::Good { Ok("it works".to_owned()) } else { Err(format!("it is {}", status.as_str())) }
}

fn transport(transport: Transport, insecure: &'static str) -> Result<String, &'static str> {
    match transport {
        Transport::Secure => Ok("HTTPS".to_owned()),
        Transport::Insecure => Err(insecure),
        Transport::Unknown => Err("not stated exactly once"),
    }
}

fn address(call: &Call<'_>, key: &Key) -> Result<String, String> {
    let networks = key.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let from = call.address.map_or_else(|| "not stated".to_owned(), |address| address.to_string());
    match (key.admits(call.address), networks.is_empty()) {
        (true, true) => Ok(format!("{from}; the key may be used from anywhere")),
        (true, false) => Ok(format!("{from}, which is in {networks}")),
        (false, _) => Err(format!("{from}, and the key may be used from {networks} alone")),
    }
}

fn route(revision: &Revision, method: &str, path: &str) -> Result<String, String> {
    if let Some(RouteMatch { route, .. }) = revision.find_route(method, path) {
        return Ok(format!("{} {} is {}", route.method, route.template, route.action_name));
    }
    let mut methods: Vec<&str> = revision.routes().map(|route| &*route.method).collect();
    methods.sort_unstable();
    methods.dedup();
    methods.retain(|method| revision.find_route(method, path).is_some());
    if methods.is_empty() {
        return Err("no action of the schema has this path".to_owned());
    }
    Err(format!("no action of the schema has this path with {method}; with {} there is one", methods.join(", ")))
}

fn said_of_policies(verdict: &Verdict, is_asked: bool, kind: PrincipalKind) -> String {
    let names = verdict.policies.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (verdict.reason, names.is_empty()) {
        (Reason::Allowed, _) => format!("permitted by {names}, and nothing forbids it"),
        (Reason::PolicyError, true) => "the question could not be put".to_owned(),
        (Reason::PolicyError, false) => format!("{names} could not be evaluated"),
        (_, false) => format!("forbidden by {names}"),
        (_, true) if is_asked => "no policy permits it".to_owned(),
        (_, true) if kind == PrincipalKind::Anonymous => "no policy permits anything here without a key".to_owned(),
        (_, true) => "the schema does not let such a key make this call".to_owned(),
    }
}
