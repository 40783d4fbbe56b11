//! The files of examples: from TOML to [`Example`]s, or to what is wrong with them and where.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Deserialize;
use toml::Spanned;

use super::{About, Asked, AskedCall, AskedOperation, Example, Expected, Place};
use crate::authorize::Caller;
use crate::authorize::suppose::Supposed;
use crate::authorize::verdict::{Outcome, Reason};
use crate::key::{AccountId, EnvironmentId, Kind, Mode, Scope, UserId};
use crate::people::{NewUser, PeopleError, Role, User};
use crate::policy::{Bundle, Problem, Rejection, Revision};

const SHAPE: &str = "`keyward policy test --help` shows the form of an example";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "test")]
    tests: Vec<Spanned<Form>>,
}

/// An example, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    name: String,
    /// Of a call: `METHOD /path`.
    request: Option<Spanned<String>>,
    key: Option<Spanned<KeyForm>>,
    resource: Option<ResourceForm>,
    secure: Option<bool>,
    /// Of an operation of the management API: its name.
    operation: Option<Spanned<String>>,
    person: Option<PersonForm>,
    about: Option<Spanned<AboutForm>>,
    ip: Option<IpAddr>,
    time: Option<Spanned<toml::Value>>,
    expect: ExpectForm,
    reason: Option<Spanned<String>>,
    policies: Option<Vec<Spanned<String>>>,
    missing_scopes: Option<BTreeSet<Scope>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyForm {
    kind: Kind,
    mode: Mode,
    #[serde(default)]
    scopes: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceForm {
    id: Option<String>,
    environment: Option<EnvironmentForm>,
}

/// Which environment the thing is in, seen from the account of the key or the person.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum EnvironmentForm {
    Live,
    Test,
    /// Another account's live one.
    Other,
}

impl From<EnvironmentForm> for EnvironmentId {
    fn from(form: EnvironmentForm) -> Self {
        let (account, mode) = match form {
            EnvironmentForm::Live => (AccountId::EXAMPLE, Mode::Live),
            EnvironmentForm::Test => (AccountId::EXAMPLE, Mode::Test),
            EnvironmentForm::Other => (AccountId::ANOTHER, Mode::Live),
        };
        Self { account, mode }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonForm {
    #[serde(default)]
    operator: bool,
    role: Option<Role>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum AboutForm {
    System,
    Account(WhoForm),
    Environment(EnvironmentForm),
    Key(KeyOfForm),
    Person(WhoForm),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyOfForm {
    environment: EnvironmentForm,
    #[serde(default = "secret")]
    kind: Kind,
}

fn secret() -> Kind {
    Kind::Secret
}

/// Whose account, or which person, seen from the one who asks.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum WhoForm {
    Own,
    Other,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum ExpectForm {
    Allow,
    Unauthenticated,
    Forbidden,
}

impl From<ExpectForm> for Outcome {
    fn from(form: ExpectForm) -> Self {
        match form {
            ExpectForm::Allow => Self::Allow,
            ExpectForm::Unauthenticated => Self::Unauthenticated,
            ExpectForm::Forbidden => Self::Forbidden,
        }
    }
}

/// Every example of the bundle, in the order of files and lines, checked against what there is in the revision made of it.
///
/// # Errors
/// [`Rejection`] with each place that cannot be understood.
pub(super) fn read<'a>(bundle: &'a Bundle, revision: &Revision) -> Result<Vec<Example<'a>>, Rejection> {
    let (mut examples, mut problems) = (Vec::new(), Vec::new());
    for (file, text) in bundle.tests() {
        let problem =
            |at: std::ops::Range<usize>, message: &str, help: &str| Problem::at(file, text, at, message, help);
        match toml::from_str::<File>(text) {
            Ok(forms) => {
                for form in forms.tests {
                    let place = Place { file, text, span: form.span() };
                    match example(form.into_inner(), place, revision) {
                        Ok(example) => examples.push(example),
                        Err(Wrong { at, message, help }) => problems.push(problem(at, &message, &help)),
                    }
                }
            }
            Err(error) => problems.push(problem(error.span().unwrap_or(0..0), error.message(), SHAPE)),
        }
    }
    if problems.is_empty() { Ok(examples) } else { Err(Rejection { problems }) }
}

/// What cannot be understood of an example.
struct Wrong {
    at: std::ops::Range<usize>,
    message: String,
    help: String,
}

impl Wrong {
    fn new(at: std::ops::Range<usize>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { at, message: message.into(), help: help.into() }
    }
}

fn example<'a>(form: Form, place: Place<'a>, revision: &Revision) -> Result<Example<'a>, Wrong> {
    let time = form.time.as_ref().map(time).transpose()?;
    let expected = Expected {
        outcome: form.expect.into(),
        reason: form.reason.as_ref().map(reason).transpose()?,
        policies: form.policies.as_ref().map(|names| policies(names, revision)).transpose()?,
        missing_scopes: form.missing_scopes,
    };
    let is_call = form.key.is_some() || form.resource.is_some() || form.secure.is_some();
    let is_operation = form.person.is_some() || form.about.is_some();
    let asked = match (form.request, form.operation) {
        (Some(request), None) if !is_operation => {
            let (method, path) = line(&request)?;
            let caller = form.key.map_or(Ok(Caller::Anonymous), |key| caller(key, revision))?;
            let (item, environment) =
                form.resource.map(|resource| (resource.id, resource.environment)).unwrap_or_default();
            let environment = environment.map(EnvironmentId::from);
            Asked::Call(AskedCall { caller, method, path, item, environment, secure: form.secure.unwrap_or(true) })
        }
        (None, Some(name)) if !is_call => {
            Asked::Operation(Box::new(operation(&name, form.person, form.about, revision)?))
        }
        (request, operation) => {
            let message = match (request, operation) {
                (Some(_), None) => "`person` and `about` go with an `operation`, and this example has a `request`",
                (None, Some(_)) => {
                    "`key`, `resource` and `secure` go with a `request`, and this example has an `operation`"
                }
                _ => "an example has a `request` or an `operation`, and not both",
            };
            return Err(Wrong::new(place.span, message, SHAPE));
        }
    };
    Ok(Example { name: form.name, place, asked, address: form.ip, time, expected })
}

fn line(written: &Spanned<String>) -> Result<(String, String), Wrong> {
    let parts = written.as_ref().split_once(' ').filter(|(method, path)| !method.is_empty() && path.starts_with('/'));
    let (method, path) = parts.ok_or_else(|| {
        let message = format!("{:?} is no method and path", written.as_ref());
        Wrong::new(written.span(), message, "write it as `METHOD /path`, for example `GET /v1/resources`")
    })?;
    Ok((method.to_owned(), path.to_owned()))
}

fn caller(written: Spanned<KeyForm>, revision: &Revision) -> Result<Caller, Wrong> {
    let (at, KeyForm { kind, mode, scopes }) = (written.span(), written.into_inner());
    let known = || revision.model().scopes.iter().map(|scope| &**scope);
    // It would grant nothing, so that an example of what is forbidden came true of itself.
    if let Some(unknown) = scopes.iter().find(|name| !known().any(|known| known == name.as_ref().as_str())) {
        let (at, name) = (unknown.span(), unknown.as_ref());
        return Err(Wrong::new(at, format!("there is no scope {name:?}"), meant(name, known())));
    }
    let scopes = scopes.iter().map(|name| Scope::from(name.as_ref().as_str())).collect();
    let supposed = Supposed { account: AccountId::EXAMPLE, kind, mode, scopes };
    let caller = supposed.caller(Timestamp::UNIX_EPOCH);
    caller.map_err(|error| Wrong::new(at, format!("there can be no such key: {error}"), SHAPE))
}

fn operation(
    name: &Spanned<String>,
    person: Option<PersonForm>,
    about: Option<Spanned<AboutForm>>,
    revision: &Revision,
) -> Result<AskedOperation, Wrong> {
    let (at, name) = (name.span(), name.as_ref());
    let Some(operation) = revision.management().named(name).cloned() else {
        let known = revision.management().operations().map(|(_, operation)| &*operation.name);
        return Err(Wrong::new(at, format!("there is no operation {name:?}"), meant(name, known)));
    };
    let wrong = |error: &dyn std::fmt::Display| Wrong::new(at.clone(), error.to_string(), SHAPE);
    let person = person.map(|person| user(UserId::EXAMPLE, &person).map_err(|error| wrong(&error))).transpose()?;
    let (at_about, form) = match about {
        Some(about) => (about.span(), about.into_inner()),
        None => (at.clone(), AboutForm::System),
    };
    let about = match (form, &person) {
        (AboutForm::System, _) => About::System,
        (AboutForm::Account(WhoForm::Own), _) => About::Account(AccountId::EXAMPLE),
        (AboutForm::Account(WhoForm::Other), _) => About::Account(AccountId::ANOTHER),
        (AboutForm::Environment(environment), _) => About::Environment(environment.into()),
        (AboutForm::Key(KeyOfForm { environment, kind }), _) => {
            let EnvironmentId { account, mode } = environment.into();
            // What a key is granted is nothing that policies about management look at.
            let scopes = if kind == Kind::Restricted { vec![Scope::from("example")] } else { vec![] };
            let supposed = Supposed { account, kind, mode, scopes };
            match supposed.caller(Timestamp::UNIX_EPOCH).map_err(|error| wrong(&error))? {
                Caller::Proven(live, _) => About::Key(Box::new(live.key.clone())),
                _ => About::System,
            }
        }
        (AboutForm::Person(WhoForm::Own), Some(person)) => About::User(Box::new(person.clone())),
        (AboutForm::Person(_), _) => {
            let nobody = PersonForm { operator: false, role: None };
            About::User(Box::new(user(UserId::ANOTHER, &nobody).map_err(|error| wrong(&error))?))
        }
    };
    if !operation.about.iter().any(|of_type| **of_type == *about.type_name()) {
        let types = operation.about.join(" or ").to_lowercase();
        let message = format!("{name} is not about {}", about.said());
        return Err(Wrong::new(at_about, message, format!("say with `about` which {types} it is about")));
    }
    Ok(AskedOperation { person, operation, about })
}

fn user(id: UserId, form: &PersonForm) -> Result<User, PeopleError> {
    let roles = form.role.map(|role| (AccountId::EXAMPLE, role)).into_iter().collect();
    let new = NewUser { email: "person@example.com".into(), name: "Person".into(), operator: form.operator, roles };
    User::create(new, id, Timestamp::UNIX_EPOCH)
}

fn time(written: &Spanned<toml::Value>) -> Result<Timestamp, Wrong> {
    let text = match written.as_ref() {
        toml::Value::String(text) => text.clone(),
        others => others.to_string(),
    };
    let read = text.parse().ok().filter(|time: &Timestamp| *time >= Timestamp::UNIX_EPOCH);
    let help = "write it as 2027-01-31T08:00:00Z, from 1970 on";
    read.ok_or_else(|| Wrong::new(written.span(), format!("{text} is no time"), help))
}

fn reason(written: &Spanned<String>) -> Result<Reason, Wrong> {
    let known = || Reason::ALL.iter().map(|reason| reason.as_str());
    let found = Reason::ALL.iter().find(|reason| reason.as_str() == written.as_ref().as_str());
    found.copied().ok_or_else(|| {
        let (at, name) = (written.span(), written.as_ref());
        Wrong::new(at, format!("there is no reason {name:?}"), meant(name, known()))
    })
}

fn policies(written: &[Spanned<String>], revision: &Revision) -> Result<BTreeSet<String>, Wrong> {
    let known = || revision.policies().iter().map(|info| info.name.as_str());
    let unknown = written.iter().find(|name| revision.policy(name.as_ref()).is_none());
    match unknown {
        None => Ok(written.iter().map(|name| name.as_ref().clone()).collect()),
        Some(name) => {
            let (at, name) = (name.span(), name.as_ref());
            Err(Wrong::new(at, format!("there is no policy {name:?}"), meant(name, known())))
        }
    }
}

/// The name that is most like the one that was written.
fn meant<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let alike = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let most = alike.max_by(|(a, _), (b, _)| a.total_cmp(b)).filter(|(score, _)| *score > 0.8);
    most.map_or_else(
        || "look for it in the schema and the policies".to_owned(),
        |(_, known)| format!("did you mean {known:?}?"),
    )
}
