//! What a solver finds out about *all* requests that there can be.
//!
//! A guarantee is enforced like any forbid; here it is proven that the other policies by themselves never allow what it
//! forbids, so that it is never needed. And it is proven that no policy can fail. Statements are put to cvc5 by
//! way of Cedar's symbolic compiler (Cutler et al., "Cedar: A New Language for Expressive, Fast, Safe, and Analyzable
//! Authorization", OOPSLA 2024, section 5).
//!
//! Nothing here runs in the daemon's own process: compiling recurses as deep as the policies do, and a solver takes what time
//! it takes. [`examine`](mod@crate::examine) starts a child for it.

pub mod solver;
mod told;
pub mod witness;
pub mod world;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use cedar_policy::{Effect, Policy, PolicyId};
use cedar_policy_symcc::{CompiledPolicy, CompiledPolicySet, Env, SymEnv};
use serde::{Deserialize, Serialize};

use self::solver::{Session, Unproven};
use self::witness::{Witness, applying, replay, worlds};
use self::world::{Case, set, turned};
use crate::evaluation::Evaluation;
use crate::policy::{Revision, Slice};

/// What is known of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    /// It holds of every request that there can be.
    Proven,
    /// It may or may not hold.
    NotProven {
        /// Why it is not known.
        why: Unproven,
    },
    /// It does not hold.
    Violated {
        /// The policies that are to blame, by name.
        policies: Vec<String>,
        /// A request of which it does not hold.
        witness: Witness,
    },
}

impl Status {
    /// Adds what was found out about some more requests.
    fn and(&mut self, other: Self) {
        match (&self, &other) {
            (Self::Proven, _) | (Self::NotProven { .. }, Self::Violated { .. }) => *self = other,
            _ => {}
        }
    }
}

/// What was found out about a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Of each guarantee, by name: no request that it forbids is allowed by the other policies.
    pub guarantees: BTreeMap<String, Status>,
    /// No policy can fail, whatever the request.
    pub never_fails: Status,
    /// Questions that the solver was asked.
    pub questions: usize,
    /// How long it took.
    pub took_ms: u64,
}

impl Proof {
    /// Nothing is known of this revision.
    pub fn none(revision: &Revision, why: &Unproven) -> Self {
        let unknown = || Status::NotProven { why: why.clone() };
        let guarantees = revision.policies().iter().filter(|info| info.guarantee);
        Self {
            guarantees: guarantees.map(|info| (info.name.clone(), unknown())).collect(),
            never_fails: unknown(),
            questions: 0,
            took_ms: 0,
        }
    }

    /// Everything that it is about.
    pub fn statuses(&self) -> impl Iterator<Item = &Status> {
        self.guarantees.values().chain([&self.never_fails])
    }
}

/// Finds out what it can about a revision, in the time that the session has.
pub async fn prove(revision: &Arc<Revision>, session: &mut Session) -> Proof {
    let started = std::time::Instant::now();
    let guarantees = revision.policies().iter().filter(|info| info.guarantee);
    let mut proof = Proof {
        guarantees: guarantees.map(|info| (info.name.clone(), Status::Proven)).collect(),
        never_fails: Status::Proven,
        questions: 0,
        took_ms: 0,
    };
    let mut seen = HashSet::new();
    for case in Case::all(revision) {
        let symbolic = match case.symbolic() {
            Ok(symbolic) => symbolic,
            Err(why) => {
                let unknown = Status::NotProven { why };
                proof.guarantees.values_mut().for_each(|status| status.and(unknown.clone()));
                proof.never_fails.and(unknown);
                continue;
            }
        };
        if !seen.insert(case.signature(&symbolic)) {
            continue;
        }
        for (name, status) in guarantees_hold(&case, &symbolic, session).await {
            if let Some(held) = proof.guarantees.get_mut(AsRef::<str>::as_ref(&name)) {
                held.and(status);
            }
        }
        proof.never_fails.and(nothing_fails(&case, &symbolic, session).await);
    }
    proof.questions = session.questions;
    proof.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    proof
}

/// The policies of a slice: the guarantees, and the others.
fn parted(revision: &Revision, slice: &Slice) -> (Vec<Policy>, Vec<Policy>) {
    let is_guarantee =
        |policy: &Policy| revision.policy(AsRef::<str>::as_ref(policy.id())).is_some_and(|info| info.guarantee);
    slice.policies.policies().cloned().partition(is_guarantee)
}

/// Of each guarantee that can apply: whether the other policies never allow what it forbids.
async fn guarantees_hold(case: &Case<'_>, symbolic: &SymEnv, session: &mut Session) -> Vec<(PolicyId, Status)> {
    let (guarantees, others) = parted(case.revision, case.slice);
    if !others.iter().any(|policy| policy.effect() == Effect::Permit) {
        return Vec::new();
    }
    let mut statuses = Vec::new();
    let mut left = guarantees;
    // All of them in one question, which is mostly all there is to ask. What is found not to hold is left out of the next.
    while !left.is_empty() {
        match overlap(case, symbolic, &others, &left, session).await {
            Ok(None) => return statuses,
            Ok(Some((violated, status))) if !violated.is_empty() => {
                left.retain(|guarantee| !violated.contains(guarantee.id()));
                statuses.extend(violated.into_iter().map(|name| (name, status.clone())));
            }
            Ok(Some((_, status))) => {
                statuses.extend(left.drain(..).map(|guarantee| (guarantee.id().clone(), status.clone())));
            }
            Err(why) => {
                let status = Status::NotProven { why };
                statuses.extend(left.drain(..).map(|guarantee| (guarantee.id().clone(), status.clone())));
            }
        }
    }
    statuses
}

/// A request that `others` allow and that some of the guarantees forbid, with those that do.
async fn overlap(
    case: &Case<'_>,
    symbolic: &SymEnv,
    others: &[Policy],
    guarantees: &[Policy],
    session: &mut Session,
) -> Result<Option<(Vec<PolicyId>, Status)>, Unproven> {
    let broken = || Unproven::Failed("the question could not be written".into());
    let (environment, schema) = (case.environment(), case.revision.schema());
    let compile = |policies| {
        CompiledPolicySet::compile_with_custom_symenv(policies, &environment, schema, symbolic.clone())
            .map_err(|error| Unproven::Failed(error.to_string()))
    };
    let asked = set(others.iter().cloned().chain(case.facts())).ok_or_else(broken)?;
    let forbidden = set(guarantees.iter().filter_map(turned)).ok_or_else(broken)?;
    let (allowed, forbids) = (compile(&asked)?, compile(&forbidden)?);
    let found: Option<Env> =
        session.ask(async |compiler| compiler.check_disjoint_with_counterexample_opt(&allowed, &forbids).await).await?;
    let Some(found) = found else { return Ok(None) };
    for world in worlds(case, &found) {
        let violated = applying(&forbidden, &world);
        let (said, witness) = (replay(&asked, &world), Witness::of(case, &world));
        if let (Evaluation::Permitted(by), Some(witness), false) = (said, witness, violated.is_empty()) {
            let policies = by.iter().map(ToString::to_string).collect();
            return Ok(Some((violated, Status::Violated { policies, witness })));
        }
    }
    Ok(Some((vec![], Status::NotProven { why: Unproven::NoRequest })))
}

/// Whether no policy that can apply can fail.
async fn nothing_fails(case: &Case<'_>, symbolic: &SymEnv, session: &mut Session) -> Status {
    let (environment, schema) = (case.environment(), case.revision.schema());
    let mut status = Status::Proven;
    for policy in case.slice.policies.policies() {
        // Made once for all of them: it is the whole schema.
        let compiled = CompiledPolicy::compile_with_custom_symenv(policy, &environment, schema, symbolic.clone());
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(error) => {
                status.and(Status::NotProven { why: Unproven::Failed(error.to_string()) });
                continue;
            }
        };
        let asked =
            session.ask(async |compiler| compiler.check_never_errors_with_counterexample_opt(&compiled).await).await;
        status.and(match asked {
            Ok(None) => Status::Proven,
            Err(why) => Status::NotProven { why },
            Ok(Some(found)) => failure(case, policy, &found),
        });
    }
    status
}

/// What a request comes to on which a policy is said to fail.
fn failure(case: &Case<'_>, policy: &Policy, found: &Env) -> Status {
    let alone = set([policy.clone()]).unwrap_or_default();
    for world in worlds(case, found) {
        if let (Evaluation::Failed(_), Some(witness)) = (replay(&alone, &world), Witness::of(case, &world)) {
            return Status::Violated { policies: vec![policy.id().to_string()], witness };
        }
    }
    Status::NotProven { why: Unproven::NoRequest }
}

#[cfg(test)]
mod tests;
