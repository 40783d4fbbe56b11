//! Policy tests: `policies/tests/*.toml` say what some calls must come to.
//!
//! They run through the same [`authorize`](crate::authorize::authorize()) as real calls, against keys that
//! exist for the moment, before a revision may come into force. An example that fails refuses it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use toml::Spanned;

use crate::authorize::credentials::Credentials;
use crate::authorize::verdict::Verdict;
use crate::authorize::{Call, Caller, RequestLine, Stated, Transport, authorize};
use crate::key::{
    Account, AccountId, EnvironmentId, Key, KeyId, Kind, Mode, NewKey, Phc, Scope, Screen, Selector, StoredSecret,
};
use crate::policy::{Bundle, Problem, Rejection, Revision};
use crate::ring::LiveKey;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "test")]
    tests: Vec<Spanned<Example>>,
}

/// One example: a call, and what it must come to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    name: String,
    #[serde(default)]
    key: Option<ExampleKey>,
    /// `METHOD /path`.
    request: String,
    #[serde(default)]
    resource: Option<Resource>,
    #[serde(default = "yes")]
    secure: bool,
    #[serde(default)]
    ip: Option<IpAddr>,
    expect: Expectation,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    policies: Option<BTreeSet<String>>,
    #[serde(default)]
    missing_scopes: Option<BTreeSet<Scope>>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExampleKey {
    kind: Kind,
    mode: Mode,
    #[serde(default)]
    scopes: Vec<Scope>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    environment: Environment,
}

/// Which environment the thing is in, seen from the key's account.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Environment {
    Live,
    Test,
    /// Another account's live one.
    Other,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Expectation {
    Allow,
    Unauthenticated,
    Forbidden,
}

impl Expectation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
        }
    }
}

/// Runs every example of the bundle against the revision made of it.
///
/// # Errors
/// [`Rejection`] with each example that failed or could not be read.
pub fn run(bundle: &Bundle, revision: &Arc<Revision>) -> Result<(), Rejection> {
    let mut problems = Vec::new();
    for (path, text) in bundle.tests() {
        match toml::from_str::<File>(text) {
            Ok(file) => problems.extend(file.tests.into_iter().filter_map(|example| {
                let span = example.span();
                let message = example.into_inner().failure(revision)?;
                Some(Problem::at(
                    path,
                    text,
                    span,
                    message,
                    "change the policies, or the example if it is what is wrong",
                ))
            })),
            Err(error) => problems.push(Problem::at(
                path,
                text,
                error.span().unwrap_or(0..0),
                error.message().to_owned(),
                "see the shipped policies/tests for the form of an example",
            )),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Rejection { problems }) }
}

impl Example {
    /// What is wrong, when the call does not come to what is expected.
    fn failure(&self, revision: &Arc<Revision>) -> Option<String> {
        let verdict = match self.verdict(revision) {
            Ok(verdict) => verdict,
            Err(message) => return Some(format!("the example \"{}\" cannot be run: {message}", self.name)),
        };
        let policies: BTreeSet<String> = verdict.policies.iter().map(ToString::to_string).collect();
        let missing: BTreeSet<Scope> = verdict.missing_scopes.iter().cloned().collect();
        let as_expected = verdict.reason.outcome().as_str() == self.expect.as_str()
            && self.reason.as_deref().is_none_or(|reason| reason == verdict.reason.as_str())
            && self.policies.as_ref().is_none_or(|expected| *expected == policies)
            && self.missing_scopes.as_ref().is_none_or(|expected| *expected == missing);
        if as_expected {
            return None;
        }
        let listed = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
        let mut expected = self.expect.as_str().to_owned();
        if let Some(reason) = &self.reason {
            expected += &format!(", {reason}");
        }
        if let Some(policies) = &self.policies {
            expected += &format!(", by [{}]", listed(policies));
        }
        if let Some(missing) = &self.missing_scopes {
            expected += &format!(", lacking {missing:?}");
        }
        let mut came =
            format!("{}, {}, by [{}]", verdict.reason.outcome().as_str(), verdict.reason.as_str(), listed(&policies));
        if !missing.is_empty() {
            came += &format!(", lacking {missing:?}");
        }
        Some(format!(
            "the example \"{}\" fails: {} is expected to be {expected}; it is {came}",
            self.name, self.request
        ))
    }

    fn verdict(&self, revision: &Arc<Revision>) -> Result<Verdict, String> {
        let now = Timestamp::now();
        let (method, target) = self
            .request
            .split_once(' ')
            .ok_or("`request` is written `METHOD /path`, for example `GET /v1/resources`")?;
        let random = |error: getrandom::Error| error.to_string();
        let account =
            Account::create(AccountId::random().map_err(random)?, "example", now).map_err(|error| error.to_string())?;
        let other = AccountId::random().map_err(random)?;
        let environment = self.resource.as_ref().map(|resource| match resource.environment {
            Environment::Live => account.environment(Mode::Live),
            Environment::Test => account.environment(Mode::Test),
            Environment::Other => EnvironmentId { account: other, mode: Mode::Live },
        });
        let caller = match &self.key {
            None => Caller::Anonymous,
            Some(key) => key.caller(&account, now)?,
        };
        let call = Call {
            credentials: Credentials::None,
            transport: if self.secure { Transport::Secure } else { Transport::Insecure },
            address: self.ip,
            line: Some(RequestLine { method, target }),
            stated: Stated { item: None, environment },
        };
        Ok(authorize(&call, caller, revision, now))
    }
}

impl ExampleKey {
    fn caller(&self, account: &Account, now: Timestamp) -> Result<Caller, String> {
        let selector = Selector::random().map_err(|error| error.to_string())?;
        let secret = StoredSecret {
            selector,
            phc: Phc::none(),
            screen: Screen::none(),
            created_at: now.into(),
            compromised_at: None,
        };
        let new = NewKey { scopes: self.scopes.clone(), ..NewKey::named(self.kind, self.mode, "example") };
        let id = KeyId::random().map_err(|error| error.to_string())?;
        let key = Key::create(account.id, new, id, secret, now).map_err(|error| error.to_string())?;
        Ok(Caller::Proven(Arc::new(LiveKey::new(key, 1)), selector))
    }
}
