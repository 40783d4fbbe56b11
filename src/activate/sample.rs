//! A comparison of two revisions by trying calls, and by looking at what was written.
//!
//! Every endpoint of either revision is called, through the same [`authorize`] as real calls, by every kind of key in
//! both modes, with no scope and with each, on things of its own environment, of the other one, and of another account.
//! That finds what an edit is meant to do. What it does besides, under conditions that were not tried, is not proven:
//! so a permit that is new or changed, a forbid that is gone or changed, and an action in other groups count as widening,
//! too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cedar_policy::{Effect, Entity, Policy, PolicySet};
use jiff::Timestamp;

use super::compare::{Compare, Comparing, Comparison};
use super::vet::{BUILD_STACK, on_thread};
use crate::authorize::credentials::Credentials;
use crate::authorize::verdict::Reason;
use crate::authorize::{Call, Caller, RequestLine, Stated, Transport, authorize};
use crate::key::{
    AccountId, EnvironmentId, Key, KeyId, Kind, Mode, NewKey, Phc, Scope, Screen, Selector, StoredSecret,
};
use crate::policy::{PrincipalKind, Revision, Route};
use crate::ring::LiveKey;

/// Compares by trying calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sampler;

impl Compare for Sampler {
    fn compare<'a>(&'a self, old: &'a Arc<Revision>, new: &'a Arc<Revision>) -> Comparing<'a> {
        let (old, new) = (Arc::clone(old), Arc::clone(new));
        Box::pin(async move {
            // Evaluating takes the stack that policies are bounded for.
            let compared = on_thread(BUILD_STACK, move || Ok(compare(&old, &new))).await;
            compared.ok().flatten().unwrap_or_else(Comparison::untold)
        })
    }
}

/// What is different; none when no key could be made to try calls with.
fn compare(old: &Arc<Revision>, new: &Arc<Revision>) -> Option<Comparison> {
    let callers = Callers::new()?;
    let (before, after) = (callers.granted(old), callers.granted(new));
    let (more, less) = (before.lacks(&after), after.lacks(&before));
    let texts = widening_texts(old, new);
    let widens = !more.is_empty() || !texts.is_empty();
    let lines = |word: &'static str, grants: Vec<String>| grants.into_iter().map(move |line| format!("{word}: {line}"));
    let summary = lines("widened", more).chain(lines("may widen", texts)).chain(lines("narrowed", less)).collect();
    Some(Comparison { widens, summary })
}

/// Who is tried.
struct Callers {
    account: AccountId,
    other: AccountId,
    keys: Vec<Arc<LiveKey>>,
}

/// Whose things a call is about, seen from the key.
const PLACES: [&str; 3] =
    ["in their own environment", "in the other environment of their account", "in another account"];

/// Who may do what: callers and places, and the endpoints with the modes of the keys.
#[derive(Default)]
struct Granted(BTreeMap<(String, &'static str), BTreeMap<String, BTreeSet<&'static str>>>);

impl Granted {
    fn add(&mut self, who: String, place: &'static str, route: &Route, mode: &'static str) {
        let endpoint = format!("{} {}", route.method, route.template);
        self.0.entry((who, place)).or_default().entry(endpoint).or_default().insert(mode);
    }

    /// What `other` grants besides, as lines.
    fn lacks(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for ((who, place), endpoints) in &other.0 {
            let known = self.0.get(&(who.clone(), *place));
            let mut more = Vec::new();
            for (endpoint, modes) in endpoints {
                let had = known.and_then(|known| known.get(endpoint));
                let modes: Vec<&str> =
                    modes.iter().filter(|mode| !had.is_some_and(|had| had.contains(*mode))).copied().collect();
                match modes.as_slice() {
                    [] => {}
                    [one] if !one.is_empty() => more.push(format!("{endpoint} ({one})")),
                    _ => more.push(endpoint.clone()),
                }
            }
            if !more.is_empty() {
                lines.push(format!("{who} {place}: {}", more.join(", ")));
            }
        }
        lines
    }
}

impl Callers {
    /// `None` when the system gives no random numbers.
    fn new() -> Option<Self> {
        let (account, other) = (AccountId::random().ok()?, AccountId::random().ok()?);
        let kinds = [Kind::Publishable, Kind::Secret, Kind::Restricted];
        let keys = kinds.into_iter().flat_map(|kind| [Mode::Live, Mode::Test].map(|mode| key(account, kind, mode)));
        Some(Self { account, other, keys: keys.collect::<Option<_>>()? })
    }

    fn granted(&self, revision: &Arc<Revision>) -> Granted {
        let (mut granted, now) = (Granted::default(), Timestamp::now());
        for route in revision.routes() {
            let target = filled(&route.template);
            for (place, environment) in PLACES.into_iter().zip(self.places(Mode::Live)) {
                let call = call(route, &target, environment);
                if authorize(&call, Caller::Anonymous, revision, now).reason == Reason::Allowed {
                    granted.add("calls without a key".into(), place, route, "");
                }
            }
            for live in &self.keys {
                for (place, environment) in PLACES.into_iter().zip(self.places(live.key.mode)) {
                    let call = call(route, &target, environment);
                    let caller = Caller::Proven(Arc::clone(live), live.key.secret.selector);
                    let verdict = authorize(&call, caller, revision, now);
                    let is_allowed = verdict.reason == Reason::Allowed;
                    let mode = live.key.mode.as_str();
                    if is_allowed {
                        granted.add(format!("{} keys", live.key.kind.as_str()), place, route, mode);
                    }
                    if live.key.kind == Kind::Restricted {
                        // With each scope alone: those that would help are told with the denial, and whoever needs none
                        // may do it with any.
                        let all = revision.model().scopes.iter().map(|scope| Scope::from(&**scope));
                        let helping = all.filter(|scope| is_allowed || verdict.missing_scopes.contains(scope));
                        helping
                            .for_each(|scope| granted.add(format!("restricted keys with {scope}"), place, route, mode));
                    }
                }
            }
        }
        granted
    }

    fn places(&self, mode: Mode) -> [EnvironmentId; 3] {
        let other_mode = if mode == Mode::Live { Mode::Test } else { Mode::Live };
        [
            EnvironmentId { account: self.account, mode },
            EnvironmentId { account: self.account, mode: other_mode },
            EnvironmentId { account: self.other, mode },
        ]
    }
}

fn call<'a>(route: &'a Route, target: &'a str, environment: EnvironmentId) -> Call<'a> {
    Call {
        credentials: Credentials::None,
        transport: Transport::Secure,
        address: None,
        line: Some(RequestLine { method: &route.method, target }),
        stated: Stated { item: None, environment: Some(environment) },
    }
}

fn key(account: AccountId, kind: Kind, mode: Mode) -> Option<Arc<LiveKey>> {
    let now = Timestamp::now();
    let secret = StoredSecret {
        selector: Selector::random().ok()?,
        phc: Phc::none(),
        screen: Screen::none(),
        created_at: now.into(),
        compromised_at: None,
    };
    // A restricted key has scopes; this one is none of the schema's, so that no policy grants anything for it.
    let scopes = if kind == Kind::Restricted { vec!["none-of-the-schema".into()] } else { Vec::new() };
    let new = NewKey { scopes, ..NewKey::named(kind, mode, "tried") };
    let key = Key::create(account, new, KeyId::random().ok()?, secret, now).ok()?;
    Some(Arc::new(LiveKey::new(key, 1)))
}

/// A path of a template: any text in the place of each parameter.
fn filled(template: &str) -> String {
    let segments = template.split('/').map(|segment| if segment.starts_with('{') { "item" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

/// What is written in `new` and may let somebody do more than `old`, whatever was tried.
fn widening_texts(old: &Revision, new: &Revision) -> Vec<String> {
    let mut lines = Vec::new();
    let halves = [
        ("", old.api_policies(), new.api_policies()),
        (" about management", old.management().policies(), new.management().policies()),
    ];
    for (about, old, new) in halves {
        for (effect, what, more, fewer) in [
            (Effect::Permit, "permits that are new or changed", new, old),
            (Effect::Forbid, "forbids that are gone or changed", old, new),
        ] {
            let names = only_in(effect, more, fewer);
            if !names.is_empty() {
                lines.push(format!("{what}{about}: {}", names.join(", ")));
            }
        }
    }
    let before: BTreeMap<String, BTreeSet<String>> = old.routes().map(reach).collect();
    let moved: Vec<String> =
        new.routes().map(reach).filter(|(name, reach)| before.get(name) != Some(reach)).map(|(name, _)| name).collect();
    if !moved.is_empty() {
        lines.push(format!("actions of the schema that are new, or in other groups: {}", moved.join(", ")));
    }
    lines
}

/// The names of the policies of `these` that say something which none of `those` says.
fn only_in(effect: Effect, these: &PolicySet, those: &PolicySet) -> Vec<String> {
    let of_effect = |set: &PolicySet| -> Vec<Policy> {
        set.policies().filter(|policy| policy.effect() == effect).cloned().collect()
    };
    let known: Vec<Option<serde_json::Value>> = of_effect(those).iter().map(said).collect();
    let differs = |policy: &Policy| {
        let said = said(policy);
        said.is_none() || !known.contains(&said)
    };
    let mut names: Vec<String> =
        of_effect(these).iter().filter(|policy| differs(policy)).map(|policy| policy.id().to_string()).collect();
    names.sort();
    names
}

/// What a policy says, without its name, its comments and how it is laid out.
fn said(policy: &Policy) -> Option<serde_json::Value> {
    let mut json = policy.to_json().ok()?;
    json.as_object_mut()?.remove("annotations");
    Some(json)
}

/// Which policies can be about a route: by its action's groups, and by who may call it at all.
fn reach(route: &Route) -> (String, BTreeSet<String>) {
    let groups = route.action_entities.iter().map(|entity: &Entity| entity.uid().to_string());
    let kinds = PrincipalKind::ALL.into_iter().filter(|kind| route.slice(*kind).is_some());
    let reach = groups.chain(kinds.map(|kind| format!("{kind:?}"))).chain([format!("{:?}", route.target)]);
    (format!("{} {}", route.method, route.template), reach.collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::Bundle;

    fn shipped() -> BTreeMap<String, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let bundle = Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap();
        bundle.files().map(|(path, text)| (path.to_owned(), text.to_owned())).collect()
    }

    /// What is said of the shipped files when one of them is edited, or a policy is added.
    fn edited(path: &str, edit: impl Fn(String) -> String) -> Comparison {
        let build = |files| Arc::new(Revision::build(&Bundle::from_files(files)).unwrap());
        let mut files = shipped();
        let old = build(files.clone());
        let text = edit(files.remove(path).unwrap_or_default());
        files.insert(path.into(), text);
        compare(&old, &build(files)).unwrap()
    }

    fn added(policy: &str) -> Comparison {
        edited("policies/more.cedar", |_| policy.to_owned())
    }

    #[test]
    fn what_makes_no_difference_is_none() {
        let same = edited("policies/docs-api.cedar", |text| {
            format!("// A comment.\n{}", text.replace("@id(\"secret-full-access\")", "@id(\"secret-full\")"))
        });
        assert_eq!(same, Comparison::default());
    }

    #[test]
    fn what_narrows_is_told_and_widens_nothing() {
        let narrowed =
            added("forbid (principal is DocsApi::SecretKey, action == DocsApi::Action::\"enqueueJob\", resource);");
        assert_eq!(narrowed.summary, ["narrowed: secret keys in their own environment: POST /v1/jobs"]);
        assert!(!narrowed.widens);
    }

    #[test]
    fn what_widens_is_told_with_who_may_do_what_where() {
        let read = "action == DocsApi::Action::\"listJobs\"";
        let cases = [
            (
                format!(
                    "permit (principal in DocsApi::Scope::\"resources:read\", {read}, resource) when {{ resource in principal.environment }};"
                ),
                "widened: restricted keys with resources:read in their own environment: GET /v1/jobs",
            ),
            (
                format!(
                    "permit (principal in DocsApi::Scope::\"jobs:write\", {read}, resource) when {{ resource.mode == \"test\" && resource in principal.environment }};"
                ),
                "widened: restricted keys with jobs:write in their own environment: GET /v1/jobs (test)",
            ),
            (
                format!("permit (principal == DocsApi::Anonymous::\"anonymous\", {read}, resource);"),
                "widened: calls without a key in their own environment: GET /v1/jobs",
            ),
        ];
        for (policy, line) in cases {
            let widened = added(&format!("@id(\"more\") {policy}"));
            assert!(widened.widens && widened.summary.contains(&line.to_owned()), "{policy}: {widened:#?}");
            assert!(widened.summary.contains(&"may widen: permits that are new or changed: more".to_owned()));
        }
    }

    #[test]
    fn what_was_not_tried_counts_as_widening() {
        let address = "permit (principal is DocsApi::PublishableKey, action, resource) when { context has ip && context.ip.isLoopback() };";
        for (path, edit) in [
            (
                "policies/more.cedar",
                Box::new(|_: String| format!("@id(\"more\") {address}")) as Box<dyn Fn(String) -> String>,
            ),
            (
                "policies/guarantees/docs-api.cedar",
                Box::new(|text| text.replace("context.secure", "context.secure || context.method == \"GET\"")),
            ),
            (
                "policies/management.cedar",
                Box::new(|text| format!("{text}\n@id(\"all\") permit (principal, action, resource);")),
            ),
            (
                "schemas/docs-api.cedarschema",
                Box::new(|text| text.replace("action listJobs\n", "action listJobs in [\"jobs:write\"]\n")),
            ),
            ("schemas/docs-api.cedarschema", Box::new(|text| text.replace("GET /v1/jobs\"", "GET /v2/jobs\""))),
        ] {
            let compared = edited(path, edit);
            assert!(compared.widens && !compared.summary.is_empty(), "{path}: {compared:#?}");
        }
    }
}
