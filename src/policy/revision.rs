//! A bundle, checked whole: schema, policies and routes as one immutable value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, SchemaFragment, ValidationMode, Validator};
use miette::Diagnostic;
use serde::{Deserialize, Serialize};

use super::management::{self, Management};
use super::routes::{self, Routes};
use super::scan::{Language, MOST_DECLARATIONS, scan};
use super::{Bundle, Digest, Model, Problem, Rejection, Route, RouteMatch};

/// Where guarantees live: only forbids, which hold whatever the other files say.
const GUARANTEES: &str = "policies/guarantees/";

/// Problems that one rejection lists.
const MOST_PROBLEMS: usize = 100;

/// Counts revisions. It orders nothing, so no memory ordering is needed.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

/// What people see of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PolicyInfo {
    /// Its `@id`, or `file:line` when it has none.
    pub name: String,
    /// `permit` or `forbid`.
    pub effect: Cow<'static, str>,
    /// Its file.
    pub file: String,
    /// Its first line.
    pub line: usize,
    /// Whether it is a guarantee.
    pub guarantee: bool,
}

/// Schema, policies and routes, in force together or not at all.
#[derive(Debug)]
pub struct Revision {
    digest: Digest,
    digest_text: String,
    generation: u64,
    bundle: Bundle,
    infos: Vec<PolicyInfo>,
    schema: Schema,
    policies: PolicySet,
    model: Model,
    routes: Routes,
    management: Management,
}

impl Revision {
    /// Checks a bundle and builds its revision. Its examples are not run here.
    ///
    /// # Errors
    /// [`Rejection`] with as many problems as can be told apart: each with file, line and what to do.
    pub fn build(bundle: &Bundle) -> Result<Self, Rejection> {
        let mut problems = Vec::new();
        let fragments = schema_fragments(bundle, &mut problems);
        let written = written_policies(bundle, &mut problems);
        if !problems.is_empty() {
            return Err(reject(problems));
        }
        let schema = Schema::from_schema_fragments(fragments.iter().map(|(_, _, fragment)| fragment.clone())).map_err(
            |error| {
                let (file, text) = fragments.first().map_or(("schemas", ""), |(file, text, _)| (*file, *text));
                reject(vec![locate(&fragments, file, text, &error)])
            },
        )?;
        // Before the policies are held against it: what the schema lacks, they would only seem to get wrong.
        let model = Model::of(&schema, &fragments).map_err(reject)?;
        check_names(&written).map_err(reject)?;
        let (of_management, of_api): (Vec<_>, Vec<_>) =
            written.into_iter().partition(|written| management::is_about(&written.info.file));
        if of_api.is_empty() {
            let message = "the files hold no policy about the API, so that nothing would be allowed";
            return Err(reject(vec![Problem::in_file("policies", message)]));
        }
        let policies = policy_set(&of_api).map_err(reject)?;
        validate(&schema, &policies, &of_api).map_err(reject)?;
        let management = management(&of_management).map_err(reject)?;
        let routes = routes::build(&model, &schema, &fragments, &policies).map_err(reject)?;
        let digest = bundle.digest();
        let infos = of_api.into_iter().chain(of_management).map(|written| written.info).collect();
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        let digest_text = digest.to_string();
        let bundle = bundle.clone();
        Ok(Self { digest, digest_text, generation, bundle, infos, schema, policies, model, routes, management })
    }

    /// Its name: the digest of what it was made of.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The digest as text, for headers and JSON.
    pub fn digest_text(&self) -> &str {
        &self.digest_text
    }

    /// Tells this value from every other revision of this process, one of the same digest included.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The schema's names for what the daemon knows.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Who may manage what.
    pub fn management(&self) -> &Management {
        &self.management
    }

    /// The files that it was made of.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The schema of the API.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The policies about the API, guarantees among them, each under the name that its [`PolicyInfo`] has.
    pub fn api_policies(&self) -> &PolicySet {
        &self.policies
    }

    /// What people see of the policy of this name.
    pub fn policy(&self, name: &str) -> Option<&PolicyInfo> {
        self.infos.iter().find(|info| info.name == name)
    }

    /// What people see of the policies: those about the API, then those about management, in the order of files and lines.
    pub fn policies(&self) -> &[PolicyInfo] {
        &self.infos
    }

    /// The route of a method and a normalised path without query; none for an unknown path, and for an
    /// unknown method on a known path.
    pub fn find_route<'p>(&self, method: &str, path: &'p str) -> Option<RouteMatch<'_, 'p>> {
        self.routes.find(method, path)
    }

    /// All routes.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }
}

/// In the order of the files, which Cedar's validator does not keep, and no more than people read.
pub(super) fn reject(mut problems: Vec<Problem>) -> Rejection {
    problems.sort_by(|a, b| (&a.file, a.line, a.column, &a.message).cmp(&(&b.file, b.line, b.column, &b.message)));
    let unshown = problems.len().saturating_sub(MOST_PROBLEMS);
    if unshown > 0 {
        problems.truncate(MOST_PROBLEMS);
        problems
            .push(Problem::general(format!("{unshown} more problems are not shown"), "mend the first ones, and save"));
    }
    Rejection { problems }
}

/// A schema file: its path, its text and what it declares.
pub(super) type Fragment<'a> = (&'a str, &'a str, SchemaFragment);

pub(super) fn schema_fragments<'a>(bundle: &'a Bundle, problems: &mut Vec<Problem>) -> Vec<Fragment<'a>> {
    let mut fragments = Vec::new();
    let mut declarations = 0;
    for (file, text) in bundle.schemas() {
        if let Err(problem) = scan(file, text, Language::Schema) {
            problems.push(*problem);
            continue;
        }
        declarations += text.matches(';').count();
        if declarations > MOST_DECLARATIONS {
            let message = format!("the schema has more than {MOST_DECLARATIONS} declarations, this file among them");
            problems
                .push(Problem { help: Some("remove what is not needed".into()), ..Problem::in_file(file, message) });
            continue;
        }
        match SchemaFragment::from_cedarschema_str(text) {
            Ok((fragment, _warnings)) => fragments.push((file, text, fragment)),
            Err(error) => problems.extend(of_diagnostic(file, text, 0, &error)),
        }
    }
    if fragments.is_empty() && problems.is_empty() {
        problems.push(Problem::in_file("schemas", "there is no schema file"));
    }
    fragments
}

/// Cedar's diagnostic, or the ones behind it where it stands for several.
fn of_diagnostic(file: &str, text: &str, base: usize, error: &dyn Diagnostic) -> Vec<Problem> {
    let mut problems = vec![Problem::of_cedar(file, text, base, error)];
    problems.extend(error.related().into_iter().flatten().map(|related| Problem::of_cedar(file, text, base, related)));
    problems
}

/// Cedar's diagnostic about all schema files together, in the file that its label or its words point to.
fn locate(fragments: &[Fragment<'_>], file: &str, text: &str, error: &dyn Diagnostic) -> Problem {
    if error.labels().is_some() {
        let of_file = |text: &str| {
            let code = error.source_code()?;
            let span = error.labels()?.next()?;
            let read = code.read_span(span.inner(), 0, 0).ok()?;
            let here = text.as_bytes().get(span.offset()..span.offset() + span.len())?;
            (read.data() == here).then_some(())
        };
        let found = fragments.iter().find(|(_, text, _)| of_file(text).is_some());
        let (file, text) = found.map_or((file, text), |(file, text, _)| (*file, *text));
        return Problem::of_cedar(file, text, 0, error);
    }
    // Names in Cedar's words are quoted like this: `DocsApi::Widget`, Action::"resources:read".
    let message = error.to_string();
    let quoted = |mark: char| message.split(mark).skip(1).step_by(2).collect::<Vec<_>>();
    let types = quoted('`').into_iter().flat_map(|name| [name, name.rsplit("::").next().unwrap_or(name)]);
    let mentions = quoted('"').into_iter().map(|name| ("action", format!("{name:?}")));
    let help = error.help().map(|help| help.to_string()).unwrap_or_default();
    for (keyword, name) in mentions.chain(types.map(|name| ("", name.to_owned()))) {
        if let Some((file, text, span)) = mentioned(fragments, keyword, &name) {
            return Problem::at(file, text, span, message.clone(), &help);
        }
    }
    Problem::in_file(file, message)
}

/// Where the first of these files that does mentions this name on a line that begins with the keyword.
pub(super) fn mentioned<'f>(
    fragments: &'f [Fragment<'_>],
    keyword: &str,
    name: &str,
) -> Option<(&'f str, &'f str, Range<usize>)> {
    fragments.iter().find_map(|(file, text, _)| Some((*file, *text, mention(text, keyword, name)?)))
}

/// Where a line that begins with `keyword` mentions `name`; an entity type's line, before it says what it is in.
fn mention(text: &str, keyword: &str, name: &str) -> Option<Range<usize>> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let begins = line.trim_start().starts_with(keyword);
        let head = if keyword == "entity" { line.split(" in [").next().unwrap_or(line) } else { line };
        if let Some(at) = head.find(name).filter(|_| begins) {
            return Some(start + at..start + at + name.len());
        }
        start += line.len();
    }
    None
}

/// A policy with its place.
pub(super) struct Written<'a> {
    /// Under the name that its [`PolicyInfo`] has.
    pub policy: Policy,
    pub info: PolicyInfo,
    /// Its file's text, and the bytes of it that are the policy's.
    text: &'a str,
    start: usize,
    end: usize,
}

impl Written<'_> {
    /// Its name and place, for a sentence about another one.
    pub fn called(&self) -> String {
        let PolicyInfo { name, file, line, .. } = &self.info;
        format!("{name:?} at {file}:{line}")
    }

    /// Where it ends in its file's text.
    pub fn end(&self) -> usize {
        self.end
    }

    /// A problem of the part of the policy that is written like this, else of the whole.
    pub fn at(&self, part: &str, message: impl Into<String>, help: &str) -> Problem {
        let text = self.text.get(self.start..self.end).unwrap_or_default();
        match text.find(part).map(|at| self.start + at) {
            Some(at) => Problem::at(&self.info.file, self.text, at..at + part.len(), message, help),
            None => self.problem(message, help),
        }
    }

    pub fn problem(&self, message: impl Into<String>, help: &str) -> Problem {
        Problem::at(&self.info.file, self.text, self.start..self.end, message, help)
    }
}

pub(super) fn written_policies<'a>(bundle: &'a Bundle, problems: &mut Vec<Problem>) -> Vec<Written<'a>> {
    let mut all: Vec<Written<'a>> = Vec::new();
    for (file, text) in bundle.policies() {
        let statements = match scan(file, text, Language::Cedar) {
            Ok(statements) => statements,
            Err(problem) => {
                problems.push(*problem);
                continue;
            }
        };
        for span in statements {
            let statement = text.get(span.clone()).unwrap_or_default();
            match Policy::parse(None, statement) {
                Ok(policy) => all.push(written(&policy, file, text, span)),
                Err(errors) => {
                    problems.extend(errors.iter().map(|error| Problem::of_cedar(file, text, span.start, error)));
                }
            }
        }
    }
    all
}

fn written<'a>(policy: &Policy, file: &str, text: &'a str, span: Range<usize>) -> Written<'a> {
    let line = text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
    let name = match policy.annotation("id") {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => format!("{}:{line}", file.strip_prefix("policies/").unwrap_or(file)),
    };
    let effect = match policy.effect() {
        Effect::Permit => "permit",
        Effect::Forbid => "forbid",
    };
    let info = PolicyInfo {
        name,
        effect: effect.into(),
        file: file.to_owned(),
        line,
        guarantee: file.starts_with(GUARANTEES),
    };
    let policy = policy.new_id(PolicyId::new(&info.name));
    Written { policy, info, text, start: span.start, end: span.end }
}

/// Without policies nobody may manage anything, which is how it is until there are some.
fn management(written: &[Written<'_>]) -> Result<Management, Vec<Problem>> {
    let (schema, policies) = (Management::schema()?, policy_set(written)?);
    validate(&schema, &policies, written)?;
    Management::new(schema, policies)
}

/// Each name is one policy's, whichever half it is of, and no guarantee permits anything.
fn check_names(written: &[Written<'_>]) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    let mut places: BTreeMap<&str, String> = BTreeMap::new();
    for policy in written {
        let PolicyInfo { name, file, line, .. } = &policy.info;
        if let Some(other) = places.insert(name, format!("{file}:{line}")) {
            let message = format!("two policies have the name {name:?}: this one and the one at {other}");
            problems.push(policy.problem(message, "give one of them another @id"));
            continue;
        }
        if policy.info.guarantee && policy.policy.effect() == Effect::Permit {
            problems.push(
                policy.problem("a guarantee must be a forbid; this is a permit", "move it out of policies/guarantees"),
            );
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn policy_set(written: &[Written<'_>]) -> Result<PolicySet, Vec<Problem>> {
    let mut set = PolicySet::new();
    for policy in written {
        set.add(policy.policy.clone()).map_err(|error| vec![policy.problem(error.to_string(), "")])?;
    }
    Ok(set)
}

fn validate(schema: &Schema, policies: &PolicySet, written: &[Written<'_>]) -> Result<(), Vec<Problem>> {
    let result = Validator::new(schema.clone()).validate(policies, ValidationMode::Strict);
    let problem = |id: &PolicyId, said: &dyn Diagnostic| match written
        .iter()
        .find(|policy| policy.info.name.as_str() == AsRef::<str>::as_ref(id))
    {
        Some(policy) => Problem::of_cedar(&policy.info.file, policy.text, policy.start, said),
        None => Problem::in_file("policies", said.to_string()),
    };
    // A warning is a policy that does not do what it seems to: one that can never apply, or a look-alike character.
    let mut problems: Vec<Problem> =
        result.validation_errors().map(|error| problem(error.policy_id(), error)).collect();
    if problems.is_empty() {
        problems.extend(result.validation_warnings().map(|warning| problem(warning.policy_id(), warning)));
    }
    if problems.is_empty() { Ok(()) } else { Err(once_a_place(problems)) }
}

/// Cedar says the same of one place for each kind of caller and resource: one of them, which has a help if any has.
fn once_a_place(problems: Vec<Problem>) -> Vec<Problem> {
    let mut places: BTreeMap<(String, Option<usize>, Option<usize>), Vec<Problem>> = BTreeMap::new();
    for problem in problems {
        places.entry((problem.file.clone(), problem.line, problem.column)).or_default().push(problem);
    }
    let told = places.into_values().filter_map(|mut here| {
        here.sort_by(|a, b| (a.help.is_none(), &a.message).cmp(&(b.help.is_none(), &b.message)));
        let others = here.len() - 1;
        let mut first = here.into_iter().next()?;
        if others > 0 {
            first.message.push_str(&format!(" (and {others} more at this place)"));
        }
        Some(first)
    });
    told.collect()
}
