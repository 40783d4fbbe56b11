//! A bundle, checked whole: schema, policies and routes as one immutable value.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, SchemaFragment, ValidationMode, Validator};
use miette::Diagnostic;
use serde::Serialize;

use super::routes::{self, Routes};
use super::scan::{Language, scan};
use super::{Bundle, Digest, Model, Problem, Rejection, Route, RouteMatch};

/// Where guarantees live: only forbids, which hold whatever the other files say.
const GUARANTEES: &str = "policies/guarantees/";

/// Counts revisions. It orders nothing, so no memory ordering is needed.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

/// What people see of a policy.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyInfo {
    /// Its `@id`, or `file:line` when it has none.
    pub name: String,
    /// `permit` or `forbid`.
    pub effect: &'static str,
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
    schema: Schema,
    policies: PolicySet,
    infos: Vec<PolicyInfo>,
    model: Model,
    routes: Routes,
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
            return Err(Rejection { problems });
        }
        let schema = Schema::from_schema_fragments(fragments.iter().map(|(_, _, fragment)| fragment.clone())).map_err(
            |error| {
                let (file, text) = fragments.first().map_or(("schemas", ""), |(file, text, _)| (*file, *text));
                reject(vec![locate(&fragments, file, text, &error)])
            },
        )?;
        let policies = policy_set(&written).map_err(reject)?;
        validate(&schema, &policies, &written).map_err(reject)?;
        let named: Vec<_> = fragments.iter().map(|(file, _, fragment)| (*file, fragment.clone())).collect();
        let model = Model::of(&schema, &named).map_err(reject)?;
        let routes = routes::build(&model, &schema, &fragments, &policies).map_err(reject)?;
        let digest = bundle.digest();
        let infos = written.into_iter().map(|written| written.info).collect();
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        Ok(Self { digest, digest_text: digest.to_string(), generation, schema, policies, infos, model, routes })
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

    /// How many routes there are; [`Route::index`] is below it.
    pub fn route_count(&self) -> usize {
        self.routes.len()
    }

    /// The schema's names for what the daemon knows.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The schema.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// All policies, each under its name.
    pub fn policy_set(&self) -> &PolicySet {
        &self.policies
    }

    /// What people see of the policies, in the order of files and lines.
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

fn reject(problems: Vec<Problem>) -> Rejection {
    Rejection { problems }
}

type Fragment<'a> = (&'a str, &'a str, SchemaFragment);

fn schema_fragments<'a>(bundle: &'a Bundle, problems: &mut Vec<Problem>) -> Vec<Fragment<'a>> {
    let mut fragments = Vec::new();
    for (file, text) in bundle.schemas() {
        if let Err(problem) = scan(file, text, Language::Schema) {
            problems.push(*problem);
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
    // Names in Cedar's words are quoted like this: `DocsApi::Widget`.
    let message = error.to_string();
    let names = message.split('`').skip(1).step_by(2).flat_map(|name| [name, name.rsplit("::").next().unwrap_or(name)]);
    for name in names {
        for (file, text, _) in fragments {
            if let Some(at) = text.find(name) {
                return Problem::at(
                    file,
                    text,
                    at..at + name.len(),
                    message.clone(),
                    &error.help().map(|help| help.to_string()).unwrap_or_default(),
                );
            }
        }
    }
    Problem::in_file(file, message)
}

/// A policy with its place.
struct Written<'a> {
    policy: Policy,
    info: PolicyInfo,
    text: &'a str,
    start: usize,
    end: usize,
}

impl Written<'_> {
    fn problem(&self, message: impl Into<String>, help: &str) -> Problem {
        Problem::at(&self.info.file, self.text, self.start..self.end, message, help)
    }
}

fn written_policies<'a>(bundle: &'a Bundle, problems: &mut Vec<Problem>) -> Vec<Written<'a>> {
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
    if all.is_empty() && problems.is_empty() {
        problems.push(Problem::in_file("policies", "the files hold no policy, so that nothing would be allowed"));
    }
    all
}

fn written<'a>(policy: &Policy, file: &str, text: &'a str, span: std::ops::Range<usize>) -> Written<'a> {
    let line = text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
    let name = match policy.annotation("id") {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => format!("{}:{line}", file.strip_prefix("policies/").unwrap_or(file)),
    };
    let effect = match policy.effect() {
        Effect::Permit => "permit",
        Effect::Forbid => "forbid",
    };
    let info = PolicyInfo { name, effect, file: file.to_owned(), line, guarantee: file.starts_with(GUARANTEES) };
    let policy = policy.new_id(PolicyId::new(&info.name));
    Written { policy, info, text, start: span.start, end: span.end }
}

fn policy_set(written: &[Written<'_>]) -> Result<PolicySet, Vec<Problem>> {
    let mut set = PolicySet::new();
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
        if let Err(error) = set.add(policy.policy.clone()) {
            problems.push(policy.problem(error.to_string(), ""));
        }
    }
    if problems.is_empty() { Ok(set) } else { Err(problems) }
}

fn validate(schema: &Schema, policies: &PolicySet, written: &[Written<'_>]) -> Result<(), Vec<Problem>> {
    let result = Validator::new(schema.clone()).validate(policies, ValidationMode::Strict);
    let problems: Vec<Problem> = result
        .validation_errors()
        .map(|error| {
            match written.iter().find(|policy| policy.info.name.as_str() == AsRef::<str>::as_ref(error.policy_id())) {
                Some(policy) => Problem::of_cedar(&policy.info.file, policy.text, policy.start, error),
                None => Problem::in_file("policies", error.to_string()),
            }
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shipped files.
    fn shipped() -> Bundle {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap()
    }

    fn with(path: &str, change: impl Fn(&str) -> String) -> Bundle {
        let bundle = shipped();
        let mut files: BTreeMap<String, String> =
            bundle.files().map(|(path, text)| (path.to_owned(), text.to_owned())).collect();
        let text = change(files.get(path).map_or("", String::as_str));
        files.insert(path.to_owned(), text);
        Bundle::from_files(files)
    }

    const POLICIES: &str = "policies/docs-api.cedar";
    const SCHEMA: &str = "schemas/docs-api.cedarschema";

    #[test]
    fn the_shipped_files_make_a_revision() {
        let revision = Revision::build(&shipped()).unwrap_or_else(|rejection| panic!("{}", rejection.render()));
        assert_eq!(revision.routes().count(), 14);
        assert_eq!(revision.model().scopes.len(), 4);
        assert!(revision.policies().iter().any(|policy| policy.guarantee));
        let found = revision.find_route("GET", "/v1/resources/res_1").unwrap();
        assert_eq!((&*found.route.action_name, found.id), ("getResource", Some("res_1")));
        assert!(revision.find_route("GET", "/v1/resources/").is_none());
        assert!(revision.find_route("PUT", "/v1/resources").is_none());
        assert!(revision.find_route("get", "/v1/resources").is_none());
        assert!(revision.find_route("GET", "/v1/resources/a/b").is_none());
    }

    #[test]
    fn a_bad_edit_is_refused_with_file_line_and_reason() {
        let add = |policy: &'static str| with(POLICIES, move |text| format!("{text}\n{policy}"));
        let schema = |from: &'static str, to: &'static str| with(SCHEMA, move |text| text.replacen(from, to, 1));
        let cases: Vec<(&str, Bundle, &str, &str)> = vec![
            ("syntax", add("permit (principal, action resource);"), "policies/docs-api.cedar:62:", "unexpected token"),
            (
                "unknown entity type",
                add("permit (principal is DocsApi::Robot, action, resource);"),
                "policies/docs-api.cedar:62:",
                "Robot",
            ),
            (
                "unknown action",
                add("permit (principal, action == DocsApi::Action::\"fly\", resource);"),
                "policies/docs-api.cedar:62:",
                "fly",
            ),
            (
                "type error",
                add("permit (principal, action, resource)\nwhen { context.secure > 1 };"),
                "policies/docs-api.cedar:63:",
                "type",
            ),
            (
                "duplicate @id",
                add("@id(\"publishable-reads\") permit (principal, action, resource);"),
                "policies/docs-api.cedar:62:1",
                "docs-api.cedar:7",
            ),
            (
                "template",
                add("permit (principal == ?principal, action, resource);"),
                "policies/docs-api.cedar:62:",
                "template",
            ),
            (
                "half-written",
                with(POLICIES, |text| text[..text.len() / 2].to_owned()),
                "policies/docs-api.cedar:",
                "unexpected",
            ),
            (
                "no policy at all",
                Bundle::from_files([
                    (SCHEMA.into(), with(SCHEMA, str::to_owned).schemas().next().unwrap().1.into()),
                    (POLICIES.into(), "// gone".into()),
                ]),
                "policies:",
                "no policy",
            ),
            ("10,000 deep", add_deep(), "policies/docs-api.cedar:62:", "nested"),
            (
                "guarantee with a permit",
                with("policies/guarantees/docs-api.cedar", |text| {
                    format!("{text}\npermit (principal, action, resource);")
                }),
                "policies/guarantees/docs-api.cedar:",
                "must be a forbid",
            ),
            (
                "schema syntax",
                schema("entity Account;", "entity Account"),
                "schemas/docs-api.cedarschema:",
                "unexpected",
            ),
            (
                "schema drops an action that policies use",
                schema("action \"resources:read\", ", "action "),
                "schemas/docs-api.cedarschema:",
                "resources:read",
            ),
            (
                "undeclared type",
                schema("resource: [Environment], context: Call", "resource: [Widget], context: Call"),
                "schemas/docs-api.cedarschema:",
                "Widget",
            ),
            (
                "clashing routes",
                schema("POST /v1/jobs\"", "POST /v1/resources\""),
                "schemas/docs-api.cedarschema:",
                "same method and path",
            ),
            (
                "clashing parameters",
                schema("GET /v1/jobs/{id}", "GET /v1/resources/{other}"),
                "schemas/docs-api.cedarschema:",
                "same method and path",
            ),
            (
                "lower-case method",
                schema("\"GET /v1/jobs\"", "\"get /v1/jobs\""),
                "schemas/docs-api.cedarschema:",
                "upper case",
            ),
            (
                "unreachable path",
                schema("\"GET /v1/jobs\"", "\"GET /v1/../jobs\""),
                "schemas/docs-api.cedarschema:",
                "dot segment",
            ),
            (
                "item without parameter",
                schema("GET /v1/jobs/{id}", "GET /v1/the-job"),
                "schemas/docs-api.cedarschema:",
                "no parameter",
            ),
            (
                "missing entity type",
                with(SCHEMA, |text| text.replace("PublishableKey", "PublicKey")),
                "policies/",
                "PublishableKey",
            ),
            (
                "missing attribute",
                schema("{ mode: String }", "{ colour: String }"),
                "schemas/docs-api.cedarschema",
                "Environment does not fit",
            ),
            (
                "attribute we cannot know",
                schema("entity Resource, Job", "entity Resource in [Environment] { owner: String };\n  entity Job"),
                "schemas/docs-api.cedarschema:",
                "cannot be built",
            ),
            (
                "context that lacks what we send",
                schema("secure: Bool,", "secure: Bool, tenant: String,"),
                "schemas/docs-api.cedarschema:",
                "context does not fit",
            ),
            (
                "scope without a group",
                schema("\"webhooks:write\"];", "\"webhooks:write\", \"jobs:read\"];"),
                "schemas/docs-api.cedarschema",
                "jobs:read",
            ),
            (
                "two namespaces",
                with("schemas/more.cedarschema", |_| "namespace More { entity A; }".into()),
                "",
                "several namespaces",
            ),
        ];
        for (what, bundle, place, reason) in cases {
            let rendered = Revision::build(&bundle).map(drop).unwrap_err().render();
            assert!(rendered.contains(place) && rendered.contains(reason), "{what}: {rendered}");
        }
    }

    fn add_deep() -> Bundle {
        let deep = format!(
            "permit (principal, action, resource) when {{ {}true{} }};",
            "(".repeat(10_000),
            ")".repeat(10_000)
        );
        with(POLICIES, move |text| format!("{text}\n{deep}"))
    }

    #[test]
    fn a_policy_without_an_id_is_named_by_its_place() {
        let revision =
            Revision::build(&with("policies/more.cedar", |_| "\n// why\nforbid (principal, action, resource);".into()))
                .unwrap();
        assert!(revision.policies().iter().any(|policy| policy.name == "more.cedar:3"));
    }
}
