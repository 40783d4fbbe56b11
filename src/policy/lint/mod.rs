//! What is good, and yet most likely not what its author meant.
//!
//! A revision that is refused is not looked at: this is about files that a reload would take. Everything is found by
//! types and by comparing policies as they are written, without reasoning about values, so that nothing is told that is
//! not so, and not everything that is so is told. Pure: files in, findings out.

mod compare;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{Effect, Entities, EntityTypeName, EntityUid, Policy, PolicyId, PrincipalConstraint, Schema};
use serde::Serialize;

use self::compare::{Demands, content, looks_at_principal};
use super::declared::Declared;
use super::management::{self, Management};
use super::revision::{Fragment, Written, mentioned, schema_fragments, written_policies};
use super::slice::{Applies, Slicer};
use super::{Bundle, Problem, Revision, Route, Slice, Target};
use crate::key::{AccountId, EnvironmentId, KeyId, UserId};

/// The annotation of a policy or an action that says which findings about it are meant to be: their codes, with commas
/// between.
const ALLOW: &str = "lint_allow";

/// The methods of RFC 9110 and RFC 5789 that are about a resource.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of thing, in a word for scripts and for `@lint_allow("…")`.
    pub code: &'static str,
    /// Where, what, and what to do.
    #[serde(flatten)]
    pub problem: Problem,
}

/// Everything that is found in a bundle that this revision was made of, in the order of files and lines.
pub fn lint(bundle: &Bundle, revision: &Revision) -> Vec<Finding> {
    // The revision was built of the same text, so that there are no problems.
    let written = written_policies(bundle, &mut Vec::new());
    let fragments = schema_fragments(bundle, &mut Vec::new());
    let (of_management, of_api): (Vec<_>, Vec<_>) =
        written.iter().partition(|written| management::is_about(&written.info.file));
    let mut findings = Vec::new();
    for policies in [&of_api, &of_management] {
        each_policy(policies, &mut findings);
    }
    let calls = revision.routes().flat_map(|route| calls_of(revision, route)).collect();
    if let Some(api) = Half::new(revision.schema(), &of_api, calls, "no route and no kind of key brings it into play") {
        api.policies(&mut findings);
        Api { half: &api, revision, fragments: &fragments }.schema(&mut findings);
    }
    if let Ok(schema) = Management::schema() {
        let is_operation = |action: &EntityUid| revision.management().named(action.id().unescaped()).is_some();
        let calls = schema.request_envs().filter(|env| is_operation(env.action())).map(|env| Asked {
            action: env.action().clone(),
            principal: env.principal().clone(),
            resource: env.resource().clone(),
        });
        if let Some(half) = Half::new(&schema, &of_management, calls.collect(), "no operation brings it into play") {
            half.policies(&mut findings);
        }
    }
    findings.sort_by(|a, b| {
        let place = |finding: &Finding| (finding.problem.file.clone(), finding.problem.line, finding.problem.column);
        (place(a), a.code).cmp(&(place(b), b.code))
    });
    findings
}

/// Types of calls that are put to the policies.
#[derive(PartialEq, Eq, Hash)]
struct Asked {
    action: EntityUid,
    principal: EntityTypeName,
    resource: EntityTypeName,
}

fn calls_of<'r>(revision: &'r Revision, route: &'r Route) -> impl Iterator<Item = Asked> + 'r {
    let model = revision.model();
    let resource = match &route.target {
        Target::Environment => &model.environment,
        Target::Item(item) => item,
    };
    let kinds = super::PrincipalKind::ALL.into_iter().filter(|kind| route.slice(*kind).is_some());
    kinds.map(|kind| Asked {
        action: route.action.clone(),
        principal: model.principal_type(kind).clone(),
        resource: resource.clone(),
    })
}

/// What is found by looking at each policy alone, and at policies beside each other.
fn each_policy(policies: &[&Written<'_>], findings: &mut Vec<Finding>) {
    let mut known: BTreeMap<String, &Written<'_>> = BTreeMap::new();
    for written in policies {
        if written.policy.annotation("id").is_none_or(str::is_empty) {
            let message = "the policy has no @id, so that its name in answers and logs changes with its line";
            find(findings, "no-id", written, message.into(), "write @id(\"what-it-is-for\") above it");
        }
        for (literal, expected) in misspelt(&written.policy) {
            let message = format!("nothing is ever {literal}, so that what is said of it is said of nothing");
            let problem = written.at(&format!("::{:?}", literal.id().unescaped()), message, &expected);
            push(findings, "no-such-id", written, problem);
        }
        let Some(content) = content(&written.policy) else { continue };
        if let Some(first) = known.get(&content) {
            let message = format!("the policy is the same as {}, but for its name", first.called());
            find(findings, "identical", written, message, "remove one of them");
        } else {
            known.insert(content, written);
        }
    }
}

/// The entities that a policy names by an id that nothing can have, with how an id is written.
fn misspelt(policy: &Policy) -> Vec<(EntityUid, String)> {
    fn error<T: std::str::FromStr<Err: std::fmt::Display>>(id: &str) -> Option<String> {
        id.parse::<T>().err().map(|error| error.to_string())
    }
    let expected = |uid: &EntityUid| {
        let id = uid.id().unescaped();
        // The API's own things may be called keys and users, too.
        let is_ours = uid.type_name().namespace() == management::NAMESPACE;
        match uid.type_name().basename() {
            "Account" => error::<AccountId>(id),
            // Calls without a key that name no environment are about this one.
            "Environment" if id == "anonymous" => None,
            "Environment" => error::<EnvironmentId>(id),
            "PublishableKey" | "SecretKey" | "RestrictedKey" => error::<KeyId>(id),
            "Key" if is_ours => error::<KeyId>(id),
            "User" if is_ours => error::<UserId>(id),
            _ => None,
        }
    };
    let mut named: Vec<EntityUid> = policy.entity_literals();
    let mut told = HashSet::new();
    named.retain(|uid| told.insert(uid.clone()));
    named.into_iter().filter_map(|uid| expected(&uid).map(|expected| (uid, expected))).collect()
}

/// One of the two halves of a revision: its policies, and the calls that are put to them.
struct Half<'a> {
    policies: Vec<Looked<'a>>,
    calls: Vec<Asked>,
    /// Why a policy is never asked, where it is not.
    idle: &'static str,
}

/// A policy, and what was seen of it.
struct Looked<'a> {
    written: &'a Written<'a>,
    demands: Demands,
    /// The calls for which it is not plainly false by their types: places in the half's list.
    calls: BTreeSet<usize>,
    /// Of these, the ones where a forbid applies wherever it does, with the forbids' names.
    closed: BTreeMap<usize, String>,
}

impl Looked<'_> {
    fn is_permit(&self) -> bool {
        self.written.policy.effect() == Effect::Permit
    }

    /// The calls that it may let through.
    fn open(&self) -> impl Iterator<Item = usize> {
        self.calls.iter().copied().filter(|call| !self.closed.contains_key(call))
    }
}

impl<'a> Half<'a> {
    /// `None` where the policies cannot be described, which none of a valid set is.
    fn new(schema: &Schema, written: &[&'a Written<'a>], calls: Vec<Asked>, idle: &'static str) -> Option<Self> {
        let numbers: HashMap<&Asked, usize> = calls.iter().zip(0..).collect();
        let numbered = |written: &Written<'_>| {
            let envs = written.policy.get_valid_request_envs(schema).map(|env| Asked {
                action: env.action().clone(),
                principal: env.principal().clone(),
                resource: env.resource().clone(),
            });
            envs.filter_map(|env| numbers.get(&env).copied()).collect()
        };
        let mut policies = Vec::new();
        for written in written {
            let demands = Demands::of(&written.policy)?;
            policies.push(Looked { written, demands, calls: numbered(written), closed: BTreeMap::new() });
        }
        let slices = slices(schema, written, &calls)?;
        let (mut permits, forbids): (Vec<_>, Vec<_>) = policies.into_iter().partition(Looked::is_permit);
        for permit in &mut permits {
            let closing: Vec<&Looked<'_>> =
                forbids.iter().filter(|forbid| forbid.demands.follow_from(&permit.demands)).collect();
            for call in &permit.calls {
                let in_play = |forbid: &&&Looked<'_>| {
                    let id = PolicyId::new(&forbid.written.info.name);
                    slices.get(*call).is_some_and(|slice| slice.policies.policy(&id).is_some())
                };
                if let Some(forbid) = closing.iter().find(in_play) {
                    permit.closed.insert(*call, forbid.written.called());
                }
            }
        }
        permits.extend(forbids);
        Some(Self { policies: permits, calls, idle })
    }

    fn policies(&self, findings: &mut Vec<Finding>) {
        for looked in &self.policies {
            let written = looked.written;
            if looked.demands.contradict_themselves() {
                let message = "the policy can never apply: it demands the same of a call and its opposite";
                find(findings, "never-applies", written, message.into(), "remove it, or one of the two conditions");
                continue;
            }
            if looked.calls.is_empty() {
                let message = format!("the policy never applies: {}", self.idle);
                find(
                    findings,
                    "never-applies",
                    written,
                    message,
                    "remove it, or give an action that it is about a route",
                );
                continue;
            }
            if looked.is_permit() {
                self.permit(looked, findings);
            }
        }
    }

    fn permit(&self, looked: &Looked<'_>, findings: &mut Vec<Finding>) {
        let written = looked.written;
        if looked.open().next().is_none() {
            let forbids: BTreeSet<&str> = looked.closed.values().map(String::as_str).collect();
            let forbids = forbids.into_iter().collect::<Vec<_>>().join(", ");
            let message = format!("the permit never lets anything through, since each call is forbidden by {forbids}");
            let help = "remove one of them; scopes and conditions were compared as they are written, and no more";
            find(findings, "shadowed", written, message, help);
            return;
        }
        let is_anonymous = |of_type: &EntityTypeName| of_type.basename() == "Anonymous";
        let to_anonymous =
            looked.open().filter_map(|call| self.calls.get(call)).any(|call| is_anonymous(&call.principal));
        let is_for_all = match written.policy.principal_constraint() {
            PrincipalConstraint::Any => !looks_at_principal(&written.policy),
            PrincipalConstraint::Is(of_type) => is_anonymous(&of_type),
            PrincipalConstraint::Eq(uid) | PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) => {
                is_anonymous(uid.type_name())
            }
        };
        if is_for_all {
            let who =
                if to_anonymous { "everybody, also without credentials" } else { "everybody who has credentials" };
            let message = format!("the permit is for {who}");
            let help = "say who is meant; where everybody is, write @lint_allow(\"grants-to-everyone\") on it";
            find(findings, "grants-to-everyone", written, message, help);
        }
    }
}

/// For each call, the policies whose scope suits it.
fn slices(schema: &Schema, written: &[&Written<'_>], calls: &[Asked]) -> Option<Vec<Arc<Slice>>> {
    let actions = schema.action_entities().ok()?;
    let mut policies = cedar_policy::PolicySet::new();
    for written in written {
        policies.add(written.policy.clone()).ok()?;
    }
    let mut slicer = Slicer::new(&policies, schema, &actions)?;
    let slice = |call: &Asked| {
        slicer.slice(&Applies { action: &call.action, principal: &call.principal, resource: &call.resource })
    };
    calls.iter().map(slice).collect()
}

/// What the API's schema declares, held against its policies.
struct Api<'a> {
    half: &'a Half<'a>,
    revision: &'a Revision,
    fragments: &'a [Fragment<'a>],
}

impl Api<'_> {
    fn schema(&self, findings: &mut Vec<Finding>) {
        let Ok(actions) = self.revision.schema().action_entities() else { return };
        let declared = Declared::of(self.fragments, &self.revision.model().namespace);
        for route in self.revision.routes() {
            self.route(route, &declared, findings);
        }
        for action in self.revision.schema().actions() {
            self.action(action, &actions, &declared, findings);
        }
        for scope in &self.revision.model().scopes {
            self.scope(scope, &actions, &declared, findings);
        }
    }

    fn route(&self, route: &Route, declared: &Declared, findings: &mut Vec<Finding>) {
        let line = format!("{} {}", route.method, route.template);
        if !METHODS.contains(&&*route.method) && !allows(declared, &route.action_name, "unusual-method") {
            let message = format!("{} is no method that HTTP clients send of themselves", route.method);
            let help = format!("write one of {}", METHODS.join(", "));
            findings.push(self.found("unusual-method", &[("", &format!("{line:?}"))], message, &help));
        }
        let is_of_route = |call: usize| self.half.calls.get(call).is_some_and(|call| call.action == route.action);
        let mut permits = self.half.policies.iter().filter(|looked| looked.is_permit());
        if permits.any(|permit| permit.open().any(is_of_route))
            || allows(declared, &route.action_name, "route-not-permitted")
        {
            return;
        }
        let message = format!("no policy lets anybody call {line}");
        let help = "permit it in policies/, or remove the route";
        findings.push(self.found("route-not-permitted", &[("", &format!("{line:?}"))], message, help));
    }

    fn action(&self, action: &EntityUid, actions: &Entities, declared: &Declared, findings: &mut Vec<Finding>) {
        let name = action.id().unescaped();
        let is_scope = self.revision.model().scopes.iter().any(|scope| **scope == *name);
        let has_route = self.revision.routes().any(|route| route.action == *action);
        let is_group = self.revision.schema().actions().any(|other| actions.is_ancestor_of(action, other));
        if is_scope || has_route || is_group || allows(declared, name, "action-without-route") {
            return;
        }
        let message = format!("the action {name:?} has no @http annotation, so that no call is ever about it");
        let help = "give it @http(\"METHOD /path\"), or remove it";
        let quoted = format!("{name:?}");
        findings.push(self.found("action-without-route", &[("action", &quoted), ("action", name)], message, help));
    }

    fn scope(&self, scope: &str, actions: &Entities, declared: &Declared, findings: &mut Vec<Finding>) {
        let quoted = format!("{scope:?}");
        let places = [("entity", quoted.as_str()), ("", quoted.as_str())];
        let is_group = |uid: &EntityUid| uid.id().unescaped() == scope;
        let grants_route = |route: &Route| actions.ancestors(&route.action).into_iter().flatten().any(is_group);
        if !self.revision.routes().any(grants_route) {
            if !allows(declared, scope, "scope-without-routes") {
                let message = format!("the scope {quoted} has no routes, since no action with @http is in its group");
                let help = format!("put actions into it: `action … in [{quoted}]`");
                findings.push(self.found("scope-without-routes", &places, message, &help));
            }
            return;
        }
        if allows(declared, scope, "unused-scope") {
            return;
        }
        let scope_type = &self.revision.model().scope;
        let is_scope = |uid: &EntityUid| uid.type_name() == scope_type && is_group(uid);
        let mut naming = self
            .half
            .policies
            .iter()
            .filter(|looked| looked.written.policy.entity_literals().iter().any(is_scope))
            .peekable();
        let message = if naming.peek().is_none() {
            format!("no policy names the scope {quoted}, so that it grants nothing")
        } else if naming.any(|looked| looked.is_permit() && looked.open().next().is_some()) {
            return;
        } else {
            format!("the scope {quoted} grants nothing: no permit that names it lets a call through")
        };
        let namespace = &self.revision.model().namespace;
        let help = format!(
            "add `permit (principal in {namespace}::Scope::{quoted}, action in {namespace}::Action::{quoted}, resource) when {{ resource in principal.environment }};`"
        );
        findings.push(self.found("unused-scope", &places, message, &help));
    }

    /// A finding at the first of these places that there is: the beginning of a line, and what the line mentions.
    fn found(&self, code: &'static str, places: &[(&str, &str)], message: String, help: &str) -> Finding {
        let problem = match places.iter().find_map(|(begins, name)| mentioned(self.fragments, begins, name)) {
            Some((file, text, span)) => Problem::at(file, text, span, message, help),
            None => Problem { help: Some(help.to_owned()), ..Problem::in_file("schemas", message) },
        };
        Finding { code, problem }
    }
}

/// Whether the schema says of an action that this may be found of it.
fn allows(declared: &Declared, action: &str, code: &str) -> bool {
    declared.annotation(action, ALLOW).is_some_and(|codes| lists(codes, code))
}

fn lists(codes: &str, code: &str) -> bool {
    codes.split(',').any(|listed| listed.trim() == code)
}

fn find(findings: &mut Vec<Finding>, code: &'static str, written: &Written<'_>, message: String, help: &str) {
    push(findings, code, written, written.problem(message, help));
}

fn push(findings: &mut Vec<Finding>, code: &'static str, written: &Written<'_>, problem: Problem) {
    if !written.policy.annotation(ALLOW).is_some_and(|codes| lists(codes, code)) {
        findings.push(Finding { code, problem });
    }
}
