//! Where a new scope's texts go, and what the files are with them in place.

use std::collections::BTreeMap;

use cedar_policy::{PrincipalConstraint, SchemaFragment};
use serde_json::Value;

use super::additions::{Additions, Signature, actions};
use super::outline::{Declaration, after_last, indent, line_end, outline};
use super::{Edit, Plan};
use crate::policy::revision::{Written, written_policies};
use crate::policy::{Bundle, Revision};

/// Where the examples about management are.
const MANAGEMENT: &str = "policies/tests/management.toml";

/// The examples go behind the last one.
pub(super) fn examples(bundle: &Bundle, plan: &Plan<'_>, additions: &Additions) -> Result<Edit, String> {
    // Those about management are a file of their own, as its policies are.
    let mut files = bundle.tests().filter(|(file, _)| *file != MANAGEMENT);
    match (files.next(), files.next()) {
        (None, _) => {
            let file = format!("policies/tests/{}.toml", plan.scope.replace([':', '/'], "-"));
            Ok(Edit { file, before: None, after: additions.examples.clone() })
        }
        (Some((file, text)), None) => {
            let after = format!("{}\n\n{}", text.trim_end(), additions.examples);
            Ok(Edit { file: file.to_owned(), before: Some(text.to_owned()), after })
        }
        (Some(_), Some(_)) => {
            Err("there are several files of examples, of which none is the one for the new scope".into())
        }
    }
}

/// The policy goes behind the last one that is about a scope.
pub(super) fn policy(bundle: &Bundle, revision: &Revision, additions: &Additions) -> Result<Edit, String> {
    let written = written_policies(bundle, &mut Vec::new());
    let is_about_a_scope = |written: &&Written<'_>| match written.policy.principal_constraint() {
        PrincipalConstraint::In(outer) | PrincipalConstraint::IsIn(_, outer) => {
            *outer.type_name() == revision.model().scope && !written.info.guarantee
        }
        _ => false,
    };
    let last = written.iter().rfind(is_about_a_scope);
    let last = last.ok_or("no policy is about a scope, beside which the new one would stand")?;
    let file = last.info.file.as_str();
    let mut all = written.iter().filter(is_about_a_scope);
    if let Some(elsewhere) = all.find(|written| written.info.file != file) {
        let other = &elsewhere.info.file;
        return Err(format!("the policies about scopes are in several files, {other} and {file} among them"));
    }
    let text = text_of(bundle.policies(), file)?;
    let insert = format!("\n\n{}", additions.policy.trim_end());
    Ok(inserted(file, text, vec![(line_end(text, last.end()), insert)]))
}

/// What the schema's files are to be; the one that names the scopes comes last.
pub(super) fn schema(
    bundle: &Bundle,
    revision: &Revision,
    plan: &Plan<'_>,
    additions: &Additions,
) -> Result<Vec<Edit>, String> {
    let namespace = revision.model().namespace.as_str();
    let mut schema = Outlines::of(bundle, namespace);
    let names_file = schema.name_scope(plan)?;
    schema.declare_group(plan, revision)?;
    schema.move_routes(plan)?;
    schema.declare("entity", &additions.types, "\n")?;
    schema.declare_actions(plan)?;
    let mut inserts = schema.inserts;
    let last = inserts.remove(names_file).map(|inserts| (names_file, inserts));
    let edit = |(file, inserts)| {
        let edit = inserted(file, text_of(bundle.schemas(), file)?, inserts);
        let is_meant = says_no_more(plan, namespace, &edit).unwrap_or(false);
        is_meant
            .then_some(edit)
            .ok_or_else(|| format!("{file} is written in a way in which nothing can be added safely"))
    };
    inserts.into_iter().chain(last).map(edit).collect()
}

/// The schema's files, and what goes into each.
struct Outlines<'a> {
    files: Vec<(&'a str, &'a str, Vec<Declaration<'a>>)>,
    inserts: BTreeMap<&'a str, Vec<(usize, String)>>,
}

/// A declaration, with its file and the file's text.
type Found<'o, 'a> = (&'a str, &'a str, &'o Declaration<'a>);

impl<'a> Outlines<'a> {
    fn of(bundle: &'a Bundle, namespace: &str) -> Self {
        let files = bundle.schemas().map(|(file, text)| (file, text, outline(text, namespace))).collect();
        Self { files, inserts: BTreeMap::new() }
    }

    fn all(&self) -> impl DoubleEndedIterator<Item = Found<'_, 'a>> {
        self.files
            .iter()
            .flat_map(|(file, text, found)| found.iter().map(move |declaration| (*file, *text, declaration)))
    }

    fn insert(&mut self, file: &'a str, at: usize, text: String) {
        self.inserts.entry(file).or_default().push((at, text));
    }

    /// The one declaration of this name.
    fn only(&self, keyword: &str, name: &str) -> Result<Found<'_, 'a>, String> {
        let is_it = |declaration: &Declaration<'_>| {
            declaration.keyword == keyword && declaration.names.iter().any(|(declared, _)| *declared == name)
        };
        let mut found = self.all().filter(|(.., declaration)| is_it(declaration));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(format!("`{keyword} {name}` cannot be found in the schema")),
            (Some(_), Some(_)) => Err(format!("`{keyword} {name}` is in the schema more than once")),
        }
    }

    /// The last declaration with this keyword.
    fn last(&self, keyword: &str) -> Result<Found<'_, 'a>, String> {
        let last = self.all().rfind(|(.., declaration)| declaration.keyword == keyword);
        last.ok_or_else(|| format!("the schema has no `{keyword}` of the API"))
    }

    /// Adds the scope to the names of scopes; gives their file.
    fn name_scope(&mut self, plan: &Plan<'_>) -> Result<&'a str, String> {
        let (file, text, scopes) = self.only("entity", "Scope")?;
        let list = scopes.list_after("enum").ok_or("`entity Scope` has no list of names in brackets")?;
        let (at, insert) = list.another(text, &plan.quoted);
        self.insert(file, at, insert);
        Ok(file)
    }

    /// Declares the scope's group, with the others where they are declared together.
    fn declare_group(&mut self, plan: &Plan<'_>, revision: &Revision) -> Result<(), String> {
        let is_scope = |name: &str| revision.model().scopes.iter().any(|scope| **scope == *name);
        let is_group = |declaration: &Declaration<'_>| {
            declaration.keyword == "action" && declaration.names.iter().any(|(name, _)| is_scope(name))
        };
        let found = self.all().rfind(|(.., declaration)| is_group(declaration));
        let (file, text, groups) = found.ok_or("the action groups of the scopes cannot be found in the schema")?;
        let names: Vec<_> = groups.names.iter().map(|(_, span)| span.clone()).collect();
        // Nothing but the semicolon follows a plain list of names.
        let are_together = names.len() > 1 && groups.rest.len() == 1;
        let together = after_last(text, &names, &plan.quoted).filter(|_| are_together);
        let (at, insert) = together.unwrap_or_else(|| {
            let declaration = format!("\n{}action {};", indent(text, groups.span.start), plan.quoted);
            (line_end(text, groups.span.end), declaration)
        });
        self.insert(file, at, insert);
        Ok(())
    }

    /// Puts the routes that there are into the scope's group, beside the groups that they are in.
    fn move_routes(&mut self, plan: &Plan<'_>) -> Result<(), String> {
        for route in plan.moved() {
            let (file, text, declaration) = self.only("action", &route.action)?;
            let place = match declaration.rest.first() {
                Some((_, "in")) => declaration.list_after("in").map(|list| list.another(text, &plan.quoted)),
                _ => declaration.names.last().map(|(_, span)| (span.end, format!(" in [{}]", plan.quoted))),
            };
            let unclear = || format!("the groups of the action {} are not written as a list: `in […]`", route.action);
            let (at, insert) = place.ok_or_else(unclear)?;
            self.insert(file, at, insert);
        }
        Ok(())
    }

    /// Declares the new routes' actions, after the last action, as the last route for restricted keys is declared.
    fn declare_actions(&mut self, plan: &Plan<'_>) -> Result<(), String> {
        if plan.new_routes().next().is_none() {
            return Ok(());
        }
        let signature = |(_, text, declaration): Found<'_, 'a>| {
            let callers = declaration.field(text, "principal").filter(|callers| callers.contains("RestrictedKey"))?;
            Some(Signature { callers, context: declaration.field(text, "context")? })
        };
        let signature = self.all().rev().filter(|(.., declaration)| declaration.is_route).find_map(signature);
        let signature = signature.ok_or("no route is for restricted keys, so that none could be written like it")?;
        self.declare("action", &actions(plan, signature), "\n\n")
    }

    /// Puts lines after the last declaration with this keyword, set off from it and indented like it.
    fn declare(&mut self, keyword: &str, lines: &[String], gap: &str) -> Result<(), String> {
        if lines.is_empty() {
            return Ok(());
        }
        let (file, text, last) = self.last(keyword)?;
        let indent = indent(text, last.span.start);
        let lines: Vec<String> = lines.iter().map(|line| format!("{indent}{line}")).collect();
        let (at, insert) = (line_end(text, last.span.end), format!("{gap}{}", lines.join("\n")));
        self.insert(file, at, insert);
        Ok(())
    }
}

fn text_of<'a>(mut files: impl Iterator<Item = (&'a str, &'a str)>, wanted: &str) -> Result<&'a str, String> {
    files.find(|(file, _)| *file == wanted).map(|(_, text)| text).ok_or_else(|| format!("{wanted} is gone"))
}

fn inserted(file: &str, text: &str, mut inserts: Vec<(usize, String)>) -> Edit {
    inserts.sort_by_key(|(at, _)| *at);
    let mut after = String::with_capacity(text.len());
    let mut done = 0;
    for (at, insert) in inserts {
        after.push_str(text.get(done..at).unwrap_or_default());
        after.push_str(&insert);
        done = at;
    }
    after.push_str(text.get(done..).unwrap_or_default());
    Edit { file: file.to_owned(), before: Some(text.to_owned()), after }
}

/// Whether a schema file, without the plan's names, says after an edit what it said before. `None` when Cedar cannot
/// read it.
fn says_no_more(plan: &Plan<'_>, namespace: &str, edit: &Edit) -> Option<bool> {
    let declared = |text: &str| SchemaFragment::from_cedarschema_str(text).ok()?.0.to_json_value().ok();
    let before = edit.before.as_deref().and_then(declared)?;
    let mut after = declared(&edit.after)?;
    let is_scope = |name: &Value| name.as_str() == Some(plan.scope);
    let body = after.get_mut(namespace)?;
    if let Some(names) = body.pointer_mut("/entityTypes/Scope/enum").and_then(Value::as_array_mut) {
        names.retain(|name| !is_scope(name));
    }
    body.get_mut("entityTypes")?.as_object_mut()?.retain(|name, _| !plan.new_types.contains(name));
    let actions = body.get_mut("actions")?.as_object_mut()?;
    actions.retain(|name, _| name != plan.scope && !plan.new_routes().any(|route| route.action == *name));
    for route in plan.moved() {
        let Some(action) = actions.get_mut(&route.action).and_then(Value::as_object_mut) else { continue };
        let Some(groups) = action.get_mut("memberOf").and_then(Value::as_array_mut) else { continue };
        groups.retain(|group| !group.get("id").is_some_and(is_scope));
        let had_groups = before.get(namespace)?.get("actions")?.get(&route.action)?.get("memberOf").is_some();
        if groups.is_empty() && !had_groups {
            action.remove("memberOf");
        }
    }
    Some(before == after)
}
