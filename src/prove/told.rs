//! A proof for people to read, and for those who save policies to be refused by.

use std::fmt::Write as _;

use super::{Proof, Status};
use crate::policy::{Problem, Rejection, Revision};

impl Proof {
    /// Why a revision must not come into force: what does not hold; and what is not proven, if it must be.
    pub fn rejection(&self, revision: &Revision, must_be_proven: bool) -> Option<Rejection> {
        let mut problems = Vec::new();
        for (name, status) in &self.guarantees {
            let place =
                revision.policy(name).map_or_else(String::new, |info| format!(" ({}:{})", info.file, info.line));
            match status {
                Status::Violated { policies, witness } => {
                    let message = format!("the guarantee {name:?}{place} forbids what this policy permits: {witness}");
                    let help = "the guarantee would refuse the request all the same; make the policy permit less, or \
                                change the guarantee";
                    problems.extend(policies.iter().map(|policy| at_policy(revision, policy, &message, help)));
                }
                Status::NotProven { why } if must_be_proven => {
                    let message = format!("the guarantee {name:?} is not proven: {why}");
                    problems.push(at_policy(revision, name, &message, NOT_PROVEN));
                }
                Status::Proven | Status::NotProven { .. } => {}
            }
        }
        match &self.never_fails {
            Status::Violated { policies, witness } => {
                let message = format!("this policy fails, so that the call is refused whatever others say: {witness}");
                let help =
                    "test with `has` before an attribute is read that may be missing, and keep numbers within 64 bits";
                problems.extend(policies.iter().map(|policy| at_policy(revision, policy, &message, help)));
            }
            Status::NotProven { why } if must_be_proven => {
                problems.push(Problem::general(format!("it is not proven that no policy can fail: {why}"), NOT_PROVEN));
            }
            Status::NotProven { .. } | Status::Proven => {}
        }
        (!problems.is_empty()).then_some(Rejection { problems })
    }

    /// Whether all of it is proven.
    pub fn is_complete(&self) -> bool {
        self.statuses().all(|status| *status == Status::Proven)
    }

    /// For a terminal: a line for each statement.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let statements = self.guarantees.iter().map(|(name, status)| (name.as_str(), status));
        for (name, status) in statements.chain([("no policy can fail", &self.never_fails)]) {
            let _ = match status {
                Status::Proven => writeln!(out, "proven      {name}"),
                Status::NotProven { why } => writeln!(out, "not proven  {name}: {why}"),
                Status::Violated { witness, .. } => writeln!(out, "violated    {name}: {witness}"),
            };
        }
        out
    }
}

const NOT_PROVEN: &str = "install cvc5, give it more time (policies.proof_limit_ms), or set policies.guarantees = \
                          \"prove-if-possible\"";

/// A problem at the line where a policy begins.
fn at_policy(revision: &Revision, name: &str, message: &str, help: &str) -> Problem {
    let Some(info) = revision.policy(name) else { return Problem::general(message.to_owned(), help) };
    let text = revision.bundle().files().find(|(path, _)| *path == info.file).map_or("", |(_, text)| text);
    let start: usize = text.split_inclusive('\n').take(info.line.saturating_sub(1)).map(str::len).sum();
    let length = text.get(start..).and_then(|rest| rest.lines().next()).map_or(0, str::len);
    Problem::at(&info.file, text, start..start + length, message, help)
}
