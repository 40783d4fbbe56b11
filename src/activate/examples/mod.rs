//! Policy tests: `policies/tests/*.toml` say what some calls must come to.
//!
//! They run through the same [`authorize`] as real calls, and the same [`manage`] as real operations, against keys and
//! people that exist for the moment. Before a revision may come into force all have to come true ([`run`]); `keyward policy
//! test` runs the same examples and tells of each.

mod coverage;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use jiff::Timestamp;

pub use self::coverage::{Action, Coverage, Half, Tally};

use crate::authorize::credentials::Credentials;
use crate::authorize::explain::{Explanation, explain, explain_management};
use crate::authorize::manage::{Asking, Subject, manage};
use crate::authorize::verdict::{Outcome, Reason};
use crate::authorize::{Call, Caller, RequestLine, Stated, Transport, authorize};
use crate::evaluation::Evaluation;
use crate::key::{AccountId, EnvironmentId, Key, Scope, UserId};
use crate::people::User;
use crate::policy::{Bundle, Operation, Problem, Rejection, Revision};

/// An example: who asks for what, and what it must come to.
#[derive(Debug)]
pub struct Example<'a> {
    /// What it is called.
    pub name: String,
    place: Place<'a>,
    asked: Asked,
    address: Option<IpAddr>,
    /// When it is asked; without it, now.
    time: Option<Timestamp>,
    expected: Expected,
}

/// Where an example stands.
#[derive(Debug)]
struct Place<'a> {
    file: &'a str,
    text: &'a str,
    span: Range<usize>,
}

#[derive(Debug)]
enum Asked {
    Call(AskedCall),
    Operation(Box<AskedOperation>),
}

/// A call of the API.
#[derive(Debug)]
struct AskedCall {
    caller: Caller,
    method: String,
    path: String,
    item: Option<String>,
    environment: Option<EnvironmentId>,
    secure: bool,
}

/// An operation of the management API.
#[derive(Debug)]
struct AskedOperation {
    /// Who wants to do it; nobody is somebody without a token.
    person: Option<User>,
    operation: Operation,
    about: About,
}

/// What an operation is about.
#[derive(Debug)]
enum About {
    System,
    Account(AccountId),
    Environment(EnvironmentId),
    Key(Box<Key>),
    User(Box<User>),
}

/// What an example must come to. What is not given may be anything.
#[derive(Debug)]
struct Expected {
    outcome: Outcome,
    reason: Option<Reason>,
    policies: Option<BTreeSet<String>>,
    missing_scopes: Option<BTreeSet<Scope>>,
}

/// What an example came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    /// Why, and by that the outcome.
    pub reason: Reason,
    /// The action or the operation that policies were asked about.
    pub action: Option<String>,
    /// The policies that decided.
    pub policies: BTreeSet<String>,
    /// The scopes, one of which would have been enough.
    pub missing_scopes: BTreeSet<Scope>,
    /// What was expected and what came, in words, when these differ.
    pub failure: Option<Failure>,
}

/// An example that did not come true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it must come to.
    pub expected: String,
    /// What it came to.
    pub came: String,
}

/// Every example of the bundle, in the order of files and lines.
///
/// # Errors
/// [`Rejection`] with each place that cannot be understood, or names what the revision does not have.
pub fn read<'a>(bundle: &'a Bundle, revision: &Revision) -> Result<Vec<Example<'a>>, Rejection> {
    read::read(bundle, revision)
}

/// Runs every example of the bundle against the revision made of it.
///
/// # Errors
/// [`Rejection`] with each example that failed or could not be read.
pub fn run(bundle: &Bundle, revision: &Arc<Revision>) -> Result<(), Rejection> {
    let examples = read(bundle, revision)?;
    let failed = examples.iter().filter_map(|example| Some(example.problem(&example.run(revision).failure?)));
    let problems: Vec<Problem> = failed.collect();
    if problems.is_empty() { Ok(()) } else { Err(Rejection { problems }) }
}

impl Example<'_> {
    /// The file that it is in.
    pub fn file(&self) -> &str {
        self.place.file
    }

    /// The line that it begins on.
    pub fn line(&self) -> usize {
        self.place.text.get(..self.place.span.start).unwrap_or_default().matches('\n').count() + 1
    }

    /// Whether it is about an operation of the management API.
    pub fn is_about_management(&self) -> bool {
        matches!(self.asked, Asked::Operation(_))
    }

    /// Who asks for what, in one line.
    pub fn said(&self) -> String {
        match &self.asked {
            Asked::Call(asked) => asked.said(),
            Asked::Operation(asked) => asked.said(),
        }
    }

    /// Asks, and compares.
    pub fn run(&self, revision: &Arc<Revision>) -> Came {
        let came = match &self.asked {
            Asked::Call(asked) => self.decided(asked, revision),
            Asked::Operation(asked) => self.managed(asked, revision),
        };
        Came { failure: self.expected.failure(&came), ..came }
    }

    /// Why it comes to what it comes to.
    pub fn explain(&self, revision: &Arc<Revision>) -> Explanation {
        let now = self.now();
        match &self.asked {
            Asked::Call(asked) => explain(&self.call(asked), &asked.caller, revision, now).explanation,
            Asked::Operation(asked) => {
                explain_management(revision, &self.asking(), &asked.operation, asked.about.subject()).1
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.time.unwrap_or_else(Timestamp::now)
    }

    fn problem(&self, failure: &Failure) -> Problem {
        let Failure { expected, came } = failure;
        let message =
            format!("the example \"{}\" fails: {} is expected to be {expected}; it is {came}", self.name, self.said());
        let help = "change the policies, or the example if it is what is wrong; `keyward policy test` shows the way to \
                    the decision";
        Problem::at(self.place.file, self.place.text, self.place.span.clone(), message, help)
    }

    fn call<'c>(&self, asked: &'c AskedCall) -> Call<'c> {
        Call {
            credentials: Credentials::None,
            transport: if asked.secure { Transport::Secure } else { Transport::Insecure },
            address: self.address,
            line: Some(RequestLine { method: &asked.method, target: &asked.path }),
            stated: Stated { item: asked.item.as_deref(), environment: asked.environment },
        }
    }

    fn decided(&self, asked: &AskedCall, revision: &Arc<Revision>) -> Came {
        let verdict = authorize(&self.call(asked), asked.caller.clone(), revision, self.now());
        Came {
            reason: verdict.reason,
            action: verdict.action.as_deref().map(str::to_owned),
            policies: verdict.policies.iter().map(ToString::to_string).collect(),
            missing_scopes: verdict.missing_scopes.iter().cloned().collect(),
            failure: None,
        }
    }

    /// Who asks about an operation, if it is one.
    fn asking(&self) -> Asking<'_> {
        let user = match &self.asked {
            Asked::Operation(asked) => asked.person.as_ref(),
            Asked::Call(_) => None,
        };
        Asking { user, address: self.address, now: self.now() }
    }

    fn managed(&self, asked: &AskedOperation, revision: &Revision) -> Came {
        let evaluation = manage(revision, &self.asking(), &asked.operation, asked.about.subject());
        let (reason, by) = match &evaluation {
            Evaluation::Permitted(by) => (Reason::Allowed, by),
            Evaluation::Denied { by, .. } if asked.person.is_none() => (Reason::CredentialsMissing, by),
            Evaluation::Denied { by, .. } => (Reason::PolicyDenied, by),
            Evaluation::Failed(by) => (Reason::PolicyError, by),
        };
        Came {
            reason,
            action: Some(asked.operation.name.to_string()),
            policies: by.iter().map(ToString::to_string).collect(),
            missing_scopes: BTreeSet::new(),
            failure: None,
        }
    }
}

impl AskedCall {
    fn said(&self) -> String {
        let by = match &self.caller {
            Caller::Proven(live, _) => {
                let key = &live.key;
                let scopes = key.scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(", ");
                let scopes = if scopes.is_empty() { scopes } else { format!(" with {scopes}") };
                format!("with a {} {} key{scopes}", key.kind, key.mode)
            }
            _ => "without a key".to_owned(),
        };
        let insecure = if self.secure { "" } else { " over plain HTTP" };
        format!("{} {}{insecure}, {by}", self.method, self.path)
    }
}

impl AskedOperation {
    fn said(&self) -> String {
        let by = match &self.person {
            None => "without a token".to_owned(),
            Some(person) if person.operator => "by an operator".to_owned(),
            Some(person) => match person.roles.values().next() {
                Some(role) => format!("by an account's {role}"),
                None => "by somebody without a role".to_owned(),
            },
        };
        format!("{} of {}, {by}", self.operation.name, self.about.said())
    }
}

impl About {
    fn subject(&self) -> Subject<'_> {
        match self {
            Self::System => Subject::System,
            Self::Account(account) => Subject::Account(*account),
            Self::Environment(environment) => Subject::Environment(*environment),
            Self::Key(key) => Subject::Key(key),
            Self::User(user) => Subject::User(user),
        }
    }

    /// The name of its entity type in the schema of the management API.
    fn type_name(&self) -> &'static str {
        match self {
            Self::System => "System",
            Self::Account(_) => "Account",
            Self::Environment(_) => "Environment",
            Self::Key(_) => "Key",
            Self::User(_) => "User",
        }
    }

    fn said(&self) -> String {
        let of = |account: &AccountId| if *account == AccountId::EXAMPLE { "the account" } else { "another account" };
        match self {
            Self::System => "the installation".to_owned(),
            Self::Account(account) => of(account).to_owned(),
            Self::Environment(EnvironmentId { account, mode }) => format!("the {mode} environment of {}", of(account)),
            Self::Key(key) => format!("a {} {} key of {}", key.kind, key.mode, of(&key.account)),
            Self::User(user) if user.id == UserId::EXAMPLE => "themselves".to_owned(),
            Self::User(_) => "another person".to_owned(),
        }
    }
}

impl Expected {
    /// The differences in words, when what came is not what is expected.
    fn failure(&self, came: &Came) -> Option<Failure> {
        let is_as_expected = came.reason.outcome() == self.outcome
            && self.reason.is_none_or(|reason| reason == came.reason)
            && self.policies.as_ref().is_none_or(|expected| *expected == came.policies)
            && self.missing_scopes.as_ref().is_none_or(|expected| *expected == came.missing_scopes);
        if is_as_expected {
            return None;
        }
        let lacking = self.missing_scopes.as_ref();
        // Scopes are told where they are what differs, or what would help.
        let missing = Some(&came.missing_scopes).filter(|scopes| lacking.is_some() || !scopes.is_empty());
        Some(Failure {
            expected: said(self.outcome, self.reason, self.policies.as_ref(), lacking),
            came: said(came.reason.outcome(), Some(came.reason), Some(&came.policies), missing),
        })
    }
}

fn said(
    outcome: Outcome,
    reason: Option<Reason>,
    policies: Option<&BTreeSet<String>>,
    lacking: Option<&BTreeSet<Scope>>,
) -> String {
    let mut text = outcome.as_str().to_owned();
    if let Some(reason) = reason {
        text += &format!(", {}", reason.as_str());
    }
    if let Some(policies) = policies {
        text += &format!(", by [{}]", policies.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
    }
    if let Some(lacking) = lacking {
        text += &format!(", lacking [{}]", lacking.iter().map(Scope::as_str).collect::<Vec<_>>().join(", "));
    }
    text
}
