//! Comparisons, with the real solver and without.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::authorize::credentials::Credentials;
use crate::authorize::verdict::Outcome;
use crate::authorize::{Call, Caller, RequestLine, Stated, Transport, authorize};
use crate::key::{AccountId, EnvironmentId, KeyId, Mode};
use crate::policy::Bundle;
use crate::prove::solver::Solver;

fn shipped() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bundle = Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap();
    bundle.files().map(|(path, text)| (path.to_owned(), text.to_owned())).collect()
}

fn built(files: &BTreeMap<String, String>) -> Arc<Revision> {
    Arc::new(Revision::build(&Bundle::from_files(files.clone())).unwrap_or_else(|error| panic!("{}", error.render())))
}

fn with(change: impl FnOnce(&mut BTreeMap<String, String>)) -> Arc<Revision> {
    let mut files = shipped();
    change(&mut files);
    built(&files)
}

async fn compared(before: &Arc<Revision>, after: &Arc<Revision>) -> Comparison {
    let solver = Solver::find(Path::new("cvc5")).await.unwrap();
    compare(before, after, Some(&mut Session::new(solver, Duration::from_mins(2))), Duration::from_mins(2)).await
}

/// What has changed: caller, request, how, and whether nothing else has.
fn told(comparison: &Comparison) -> Vec<(String, String, Change, bool)> {
    let row = |row: &Row| {
        (row.subject.to_string(), format!("{} {}", row.method, row.path), row.change, row.unproven.is_none())
    };
    comparison.rows.iter().map(row).collect()
}

const POLICIES: &str = "policies/docs-api.cedar";
const SCHEMA: &str = "schemas/docs-api.cedarschema";

#[tokio::test]
async fn what_is_written_otherwise_and_means_the_same_is_proven_to() {
    let after = with(|files| {
        let text = files.get_mut(POLICIES).unwrap();
        *text = text.replacen("resource in principal.environment", "!!(resource in principal.environment)", 1);
        *text = text.replace("secret-full-access", "secret-keys-do-everything");
    });
    let comparison = compared(&with(|_| ()), &after).await;
    assert_eq!((comparison.change(), comparison.rows.len()), (Change::Unchanged, 0), "{}", comparison.render());
    assert!(!comparison.may_widen());
}

#[tokio::test]
async fn a_scope_that_is_granted_more_is_told_of_for_its_holders_alone() {
    let after = with(|files| {
        let more = "@id(\"readers-see-jobs\")\npermit (principal in DocsApi::Scope::\"resources:read\", \
                    action == DocsApi::Action::\"listJobs\", resource) when { resource in principal.environment };\n";
        files.insert("policies/more.cedar".into(), more.into());
    });
    let before = with(|_| ());
    let comparison = compared(&before, &after).await;
    let expected = ["restricted, resources:read", "restricted, several scopes"]
        .map(|who| (who.to_owned(), "GET /v1/jobs".to_owned(), Change::Widened, true));
    assert_eq!(told(&comparison), expected, "{}", comparison.render());
    let found = comparison.rows[0].widened.as_ref().unwrap();
    assert_eq!(found.after.policies, ["readers-see-jobs"]);
    assert_eq!((found.before.allowed, found.after.allowed), (false, true));
    // And back again.
    let comparison = compared(&after, &before).await;
    assert_eq!(comparison.change(), Change::Narrowed);
}

#[tokio::test]
async fn what_policies_cannot_tell_apart_is_asked_once() {
    let after = with(|files| {
        let late =
            "@id(\"late\")\nforbid (principal, action, resource) when { context.time < datetime(\"2025-01-01\") };\n";
        files.insert("policies/late.cedar".into(), late.into());
    });
    let before = with(|_| ());
    let solver = Solver::find(Path::new("cvc5")).await.unwrap();
    let mut session = Session::new(solver, Duration::from_mins(2));
    let comparison = compare(&before, &after, Some(&mut session), Duration::from_mins(2)).await;
    assert_eq!(comparison.change(), Change::Narrowed);
    assert!(comparison.rows.iter().all(|row| row.unproven.is_none()), "{}", comparison.render());
    assert!(comparison.rows.len() > 2 * before.routes().count(), "{}", comparison.render());
    // Nine callers on each route, in two directions, and each policy of each may fail: by far fewer.
    assert!(session.questions < 7 * before.routes().count(), "{} questions", session.questions);
    let example = |row: &Row| row.narrowed.as_ref().unwrap().request.request.starts_with(&format!("{} ", row.method));
    assert!(comparison.rows.iter().all(example), "what was found on one route is told of the other as its own");
}

#[tokio::test]
async fn what_no_sample_shows_is_found_by_the_solver() {
    let files = |condition: &str| {
        let text = format!(
            "@id(\"odd\")\nforbid (principal is DocsApi::SecretKey, action == DocsApi::Action::\"getJob\", resource) \
             when {{ {condition} }};\n"
        );
        with(|files| drop(files.insert("policies/odd.cedar".into(), text)))
    };
    let odd = "context.time.toTime().toMilliseconds() == 12345678";
    let comparison = compared(&files("!context.secure"), &files(odd)).await;
    let expected = ("secret".to_owned(), "GET /v1/jobs/{id}".to_owned(), Change::Narrowed, true);
    assert_eq!(told(&comparison), [expected], "{}", comparison.render());
    let found = comparison.rows[0].narrowed.as_ref().unwrap();
    assert!(found.request.context["time"].contains("03:25:45.678"), "{}", found.request);
}

#[tokio::test]
async fn routes_and_scopes_come_and_go() {
    let after = with(|files| {
        let text = files.get_mut(SCHEMA).unwrap();
        *text = text.replace("\"webhooks:write\"];", "\"webhooks:write\", \"webhooks:read\"];");
        *text = text.replace("action \"resources:read\",", "action \"webhooks:read\", \"resources:read\",");
        *text = text.replace("@http(\"POST /v1/jobs\")", "@http(\"PUT /v1/jobs\")");
        let policy = "@id(\"scope-webhooks-read\")\npermit (principal in DocsApi::Scope::\"webhooks:read\", \
                      action == DocsApi::Action::\"listWebhooks\", resource) when { resource in principal.environment };\n";
        files.insert("policies/more.cedar".into(), policy.into());
    });
    let comparison = compared(&with(|_| ()), &after).await;
    let rows = told(&comparison);
    let has = |who: &str, request: &str, change| {
        assert!(rows.iter().any(|(a, b, c, _)| (a.as_str(), b.as_str(), *c) == (who, request, change)), "{rows:#?}");
    };
    has("secret", "PUT /v1/jobs", Change::Widened);
    has("secret", "POST /v1/jobs", Change::Narrowed);
    has("restricted, jobs:write", "PUT /v1/jobs", Change::Widened);
    has("restricted, webhooks:read", "GET /v1/webhooks", Change::Widened);
    assert!(!rows.iter().any(|(who, ..)| who == "publishable" || who == "no credentials"), "{rows:#?}");
}

#[tokio::test]
async fn another_api_in_the_place_of_one_is_told_of_route_by_route_and_proven() {
    let after = with(|files| {
        for (_, text) in files.iter_mut().filter(|(path, _)| !path.contains("management")) {
            *text = text.replace("DocsApi", "Invoicing").replace("/v1/", "/v2/");
            for scope in ["resources:read", "resources:write", "jobs:write", "webhooks:write"] {
                *text = text.replace(scope, &format!("invoicing-{scope}"));
            }
        }
    });
    for (before, after, way) in
        [(with(|_| ()), Arc::clone(&after), Change::Widened), (after, with(|_| ()), Change::Narrowed)]
    {
        let comparison = compared(&before, &after).await;
        let unproven = comparison.rows.iter().filter(|row| row.unproven.is_some()).count();
        assert_eq!(unproven, 0, "{}", comparison.render());
        let version = if way == Change::Widened { "/v2/" } else { "/v1/" };
        let of_secret = comparison.rows.iter().filter(|row| {
            row.path.starts_with(version) && row.subject.to_string() == "secret" && row.change != Change::Unchanged
        });
        assert_eq!(of_secret.count(), after.routes().count(), "{}", comparison.render());
    }
}

#[tokio::test]
async fn an_action_that_leaves_its_scope_or_joins_one_is_told_of() {
    let before = with(|_| ());
    let after = with(|files| {
        let text = files.get_mut(SCHEMA).unwrap();
        *text = text.replace("action cancelJob in [\"jobs:write\"]", "action cancelJob in [\"webhooks:write\"]");
        *text = text.replace("action listJobs\n", "action listJobs in [\"jobs:write\"]\n");
    });
    let (comparison, back) = (compared(&before, &after).await, compared(&after, &before).await);
    let (cancel, list) = ("POST /v1/jobs/{id}/cancel", "GET /v1/jobs");
    let expected = |turned: bool| {
        let change = |widened: bool| if widened == turned { Change::Narrowed } else { Change::Widened };
        let row = |who: &str, request: &str, change| (who.to_owned(), request.to_owned(), change, true);
        let mut rows = vec![
            row("restricted, jobs:write", list, change(true)),
            row("restricted, several scopes", list, change(true)),
            row("restricted, jobs:write", cancel, change(false)),
            row("restricted, webhooks:write", cancel, change(true)),
            row("restricted, several scopes", cancel, Change::Both),
        ];
        rows.sort_by(|one, other| (&one.1, &one.0).cmp(&(&other.1, &other.0)));
        rows
    };
    for (comparison, turned) in [(comparison, false), (back, true)] {
        let mut rows = told(&comparison);
        rows.sort_by(|one, other| (&one.1, &one.0).cmp(&(&other.1, &other.0)));
        assert_eq!(rows, expected(turned), "{}", comparison.render());
    }
}

/// `context.secure` opens what a key alone could read; the route of the path that `item` makes of it is another one.
const OPENED: &str = "@id(\"opened\")\npermit (principal is DocsApi::Anonymous, action == \
                      DocsApi::Action::\"getResource\", resource) when { context.secure };\n";

/// A route with a plain segment where `GET /v1/resources/{id}` has a parameter.
fn beside(files: &mut BTreeMap<String, String>, segment: &str) {
    let schema = files.get_mut(SCHEMA).unwrap();
    let at = schema.find("  @http(\"GET /v1/resources\")").unwrap();
    let action = format!(
        "  @http(\"GET /v1/resources/{segment}\")\n  action beside appliesTo {{ principal: [Anonymous, SecretKey], \
         resource: [Environment], context: Call }};\n"
    );
    schema.insert_str(at, &action);
}

#[tokio::test]
async fn a_plain_route_does_not_hide_the_route_of_an_item() {
    for segment in ["item", "any", "item-2"] {
        let before = with(|files| beside(files, segment));
        let after = with(|files| {
            beside(files, segment);
            files.insert("policies/opened.cedar".into(), OPENED.into());
        });
        let expected = ("no credentials".to_owned(), "GET /v1/resources/{id}".to_owned(), Change::Widened, true);
        let comparison = compared(&before, &after).await;
        assert_eq!(told(&comparison), std::slice::from_ref(&expected), "{}", comparison.render());
        let untried = compare(&before, &after, None, Duration::from_mins(2)).await;
        assert!(
            told(&untried).iter().any(|row| (&row.1, row.2) == (&expected.1, Change::Widened)),
            "{}",
            untried.render()
        );
    }
}

#[tokio::test]
async fn a_route_that_goes_leaves_its_path_to_the_route_of_an_item() {
    let open = |files: &mut BTreeMap<String, String>| drop(files.insert("policies/opened.cedar".into(), OPENED.into()));
    let after = with(open);
    let before = with(|files| {
        open(files);
        beside(files, "private");
    });
    let expected = ("no credentials".to_owned(), "GET /v1/resources/private".to_owned());
    let changes = |comparison: &Comparison| -> Vec<Change> {
        let rows = told(comparison).into_iter();
        rows.filter(|row| (&row.0, &row.1) == (&expected.0, &expected.1)).map(|row| row.2).collect()
    };
    let (comparison, back) = (compared(&before, &after).await, compared(&after, &before).await);
    assert_eq!(changes(&comparison), [Change::Widened], "{}", comparison.render());
    assert_eq!(changes(&back), [Change::Narrowed], "{}", back.render());
    assert!(told(&comparison).iter().all(|row| row.1 != "GET /v1/resources/{id}"), "{}", comparison.render());
}

#[test]
fn every_path_is_of_a_pair_whatever_the_templates() {
    let revision = |templates: &[&str]| {
        with(|files| {
            let schema = files.get_mut(SCHEMA).unwrap();
            let at = schema.find("  @http(\"GET /v1/resources\")").unwrap();
            let action = |(at, template): (usize, &&str)| {
                let resource = if template.contains("{id}") { "Resource" } else { "Environment" };
                format!(
                    "  @http(\"GET {template}\")\n  action more{at} appliesTo {{ principal: [SecretKey], resource: \
                     [{resource}], context: Call }};\n"
                )
            };
            schema.insert_str(at, &templates.iter().enumerate().map(action).collect::<String>());
        })
    };
    let before = revision(&["/a/{id}", "/a/b", "/{_x}/item", "/{_x}/{id}/c"]);
    let after = revision(&["/{_x}/b", "/item/{id}", "/a/{id}/{_y}", "/{id}/c/{_y}"]);
    let item = stand_in(&[&before, &after], "item");
    let pairs = Pair::all(&before, &after, &item);
    let words = ["a", "b", "c", "item", "other"];
    let two = words.iter().flat_map(|one| words.iter().map(move |two| format!("/{one}/{two}")));
    let three = two.clone().flat_map(|path| words.iter().map(move |word| format!("{path}/{word}")));
    for path in two.chain(three) {
        let find = |revision: &Revision| revision.find_route("GET", &path).map(|found| found.route.index);
        let found = (find(&before), find(&after));
        let of = pairs.iter().filter(|pair| pair.method == "GET" && pair.has(&before, &after, &path)).count();
        assert_eq!(of, usize::from(found != (None, None)), "{path}");
    }
}

#[tokio::test]
async fn without_a_solver_what_was_tried_is_told_of_and_nothing_is_called_proven() {
    let after = with(|files| {
        let text = files.get_mut(POLICIES).unwrap();
        let (head, tail) = text.split_once("principal is DocsApi::SecretKey").unwrap();
        let tail = tail.replacen("when { ", "when { principal.environment.mode == \"test\" && ", 1);
        *text = format!("{head}principal is DocsApi::SecretKey{tail}");
    });
    let comparison = compare(&with(|_| ()), &after, None, Duration::from_mins(2)).await;
    assert!(comparison.rows.iter().all(|row| row.unproven == Some(Unproven::NotAsked)));
    assert_eq!(comparison.change(), Change::Narrowed);
    assert!(comparison.may_widen(), "nobody has proven that it does not");
}

#[tokio::test]
async fn policies_about_management_are_compared_by_role() {
    let after = with(|files| {
        let text = files.get_mut("policies/management.cedar").unwrap();
        *text = text
            .replace("resource in principal.develops && resource.mode == \"test\"", "resource in principal.develops");
    });
    let comparison = compared(&with(|_| ()), &after).await;
    let widened: Vec<_> = comparison.changed().map(|row| (row.subject.to_string(), row.action.as_str())).collect();
    assert!(widened.contains(&("developer".into(), "rotateKey")), "{widened:?}");
    assert!(widened.iter().all(|(who, _)| who == "developer"), "{widened:?}");
    assert!(comparison.may_widen());
}

#[tokio::test]
async fn an_edit_about_keys_of_one_kind_is_told_of_whichever_kind_it_is() {
    for kind in ["publishable", "secret", "restricted"] {
        let policy = format!(
            "@id(\"viewers-rotate\")\npermit (principal is Keyward::User, action == Keyward::Action::\"rotateKey\", resource)\n\
             when {{ resource in principal.views && resource.kind == \"{kind}\" }};\n"
        );
        let after = with(|files| files.get_mut("policies/management.cedar").unwrap().push_str(&policy));
        let comparison = compared(&with(|_| ()), &after).await;
        let widened: Vec<_> = comparison.changed().map(|row| (row.subject.to_string(), row.action.as_str())).collect();
        assert_eq!(widened, [("viewer".to_owned(), "rotateKey")], "{kind}");
    }
}

/// Edits, each a policy that may or may not be there.
const EDITS: [&str; 14] = [
    "permit (principal is DocsApi::PublishableKey, action == DocsApi::Action::\"listJobs\", resource) when { resource in principal.environment };",
    "permit (principal in DocsApi::Scope::\"resources:read\", action, resource is DocsApi::Webhook) when { resource in principal.environment };",
    "permit (principal in DocsApi::Scope::\"resources:read\", action in DocsApi::Action::\"jobs:write\", resource) when { principal in DocsApi::Scope::\"jobs:write\" && principal.environment.mode == \"test\" };",
    "permit (principal, action == DocsApi::Action::\"listResources\", resource) when { context.secure };",
    "permit (principal is DocsApi::Anonymous, action in DocsApi::Action::\"resources:read\", resource);",
    "forbid (principal is DocsApi::SecretKey, action in [DocsApi::Action::\"deleteResource\", DocsApi::Action::\"deleteWebhook\"], resource) when { principal.environment.mode == \"live\" };",
    "forbid (principal, action in DocsApi::Action::\"resources:write\", resource) unless { context has ip && context.ip.isInRange(ip(\"10.0.0.0/8\")) };",
    "forbid (principal is DocsApi::RestrictedKey, action, resource) when { principal in DocsApi::Scope::\"webhooks:write\" && principal in DocsApi::Scope::\"jobs:write\" };",
    "forbid (principal, action, resource is DocsApi::Job) when { context.time < datetime(\"2027-01-01\") };",
    "forbid (principal, action, resource == DocsApi::Resource::\"frozen\");",
    "forbid (principal, action == DocsApi::Action::\"getResource\", resource) when { context.path like \"/v1/resources/f*\" };",
    "permit (principal is DocsApi::SecretKey, action, resource) when { resource in principal.environment && context.method == \"GET\" };",
    "forbid (principal is DocsApi::RestrictedKey, action, resource) unless { resource in principal.environment };",
    "permit (principal is DocsApi::RestrictedKey, action == DocsApi::Action::\"listWebhooks\", resource) when { !(principal in DocsApi::Scope::\"resources:read\") && resource in principal.environment };",
];

fn edited(edits: &BTreeSet<usize>, without: &BTreeSet<&str>) -> Arc<Revision> {
    with(|files| {
        let edits = edits.iter().map(|at| format!("@id(\"edit-{at}\")\n{}\n", EDITS[*at]));
        let text = edits.collect::<Vec<_>>().concat();
        files.insert("policies/edits.cedar".into(), format!("// Edits.\n{text}"));
        let shipped = files.get_mut(POLICIES).unwrap();
        for name in without {
            let start = shipped.find(&format!("@id(\"{name}\")")).unwrap();
            let end = start + shipped[start..].find(';').unwrap() + 1;
            shipped.replace_range(start..end, "");
        }
    })
}

fn a_revision() -> impl Strategy<Value = (BTreeSet<usize>, BTreeSet<&'static str>)> {
    let names = ["publishable-reads", "secret-full-access", "scope-resources-read", "scope-jobs-write"];
    let edits = proptest::collection::btree_set(0..EDITS.len(), 0..5);
    (edits, proptest::collection::btree_set(select(names.to_vec()), 0..2))
}

/// A request as anybody may make it.
#[derive(Debug, Clone)]
struct Random {
    kind: Option<Kind>,
    mode: Mode,
    scopes: BTreeSet<usize>,
    route: usize,
    place: u8,
    item: &'static str,
    ip: Option<&'static str>,
    time: &'static str,
    secure: bool,
}

fn a_request() -> impl Strategy<Value = Random> {
    let kinds = [None, Some(Kind::Publishable), Some(Kind::Secret), Some(Kind::Restricted), Some(Kind::Restricted)];
    let who = (
        select(kinds.to_vec()),
        select(&[Mode::Live, Mode::Test][..]),
        proptest::collection::btree_set(0..4_usize, 0..4),
    );
    let addresses = [None, Some("10.1.2.3"), Some("192.0.2.1"), Some("2001:db8::1")];
    let times = ["2026-06-01T12:00:00Z", "2027-06-01T12:00:00Z"];
    let what = (0..64_usize, 0..5_u8, select(&["item", "frozen", "free"][..]));
    let how = (select(addresses.to_vec()), select(times.to_vec()), any::<bool>());
    (who, what, how).prop_map(|((kind, mode, scopes), (route, place, item), (ip, time, secure))| Random {
        kind,
        mode,
        scopes,
        route,
        place,
        item,
        ip,
        time,
        secure,
    })
}

impl Random {
    /// Who it is, on which route, and whether each revision allows it.
    fn put(&self, before: &Arc<Revision>, after: &Arc<Revision>) -> ((Subject, String), bool, bool) {
        let now = self.time.parse().unwrap();
        let routes: Vec<&Route> = before.routes().collect();
        let route = routes[self.route % routes.len()];
        let names = &before.model().scopes;
        let scopes: Vec<Scope> = match self.kind {
            Some(Kind::Restricted) => self.scopes.iter().map(|at| Scope::from(&*names[*at])).collect(),
            _ => vec![],
        };
        let (account, other) = (AccountId::random().unwrap(), AccountId::random().unwrap());
        let key = self.kind.map(|kind| {
            let id = KeyId::random().unwrap();
            let is_bare = kind == Kind::Restricted && scopes.is_empty();
            let held = if is_bare { vec![sample::GONE.into()] } else { scopes.clone() };
            Arc::new(sample::supposed(account, id, kind, self.mode, held, now).unwrap())
        });
        let environment = match self.place {
            0 | 1 => None,
            2 => Some(EnvironmentId { account, mode: Mode::Live }),
            3 => Some(EnvironmentId { account, mode: Mode::Test }),
            _ => Some(EnvironmentId { account: other, mode: self.mode }),
        };
        let target = before.path_to(route, self.item).unwrap();
        let is_secure = self.secure || key.is_some();
        let call = Call {
            credentials: Credentials::None,
            transport: if is_secure { Transport::Secure } else { Transport::Insecure },
            address: self.ip.map(|ip| ip.parse().unwrap()),
            line: Some(RequestLine { method: &route.method, target: &target }),
            stated: Stated { item: None, environment },
        };
        let is_allowed = |revision: &Arc<Revision>| {
            let caller = match &key {
                Some(live) => Caller::Proven(Arc::clone(live), live.key.secret.selector),
                None => Caller::Anonymous,
            };
            authorize(&call, caller, revision, now).reason.outcome() == Outcome::Allow
        };
        let subject = match (self.kind, scopes.len()) {
            (None, _) => Subject::Anonymous,
            (Some(Kind::Publishable), _) => Subject::Publishable,
            (Some(Kind::Secret), _) => Subject::Secret,
            (Some(Kind::Restricted), 0 | 1) => Subject::Restricted { scopes },
            (Some(Kind::Restricted), _) => Subject::RestrictedSeveral,
        };
        ((subject, format!("{} {}", route.method, route.template)), is_allowed(before), is_allowed(after))
    }
}

/// What is claimed of each caller on each route, against requests that know nothing of how it was found: `cases` pairs
/// of revisions, 12,500 requests each.
fn claims_hold(cases: u32) {
    let config =
        ProptestConfig { failure_persistence: None, max_shrink_iters: 20, ..ProptestConfig::with_cases(cases) };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (tried, different) = (Cell::new(0), Cell::new(0));
    let strategy = (a_revision(), a_revision(), proptest::collection::vec(a_request(), 12_500));
    let outcome = runner.run(&strategy, |(old, new, requests)| {
        let (before, after) = (edited(&old.0, &old.1), edited(&new.0, &new.1));
        let comparison = runtime.block_on(compared(&before, &after));
        let unproven = comparison.rows.iter().filter_map(|row| row.unproven.as_ref()).collect::<Vec<_>>();
        prop_assert!(unproven.is_empty(), "{unproven:?}");
        let rows: HashMap<(Subject, String), Change> = comparison
            .rows
            .iter()
            .map(|row| ((row.subject.clone(), format!("{} {}", row.method, row.path)), row.change))
            .collect();
        for request in requests {
            let (of, was_allowed, is_allowed) = request.put(&before, &after);
            let claimed = rows.get(&of).copied().unwrap_or(Change::Unchanged);
            let is_as_claimed = match (was_allowed, is_allowed) {
                (false, true) => claimed.widens(),
                (true, false) => matches!(claimed, Change::Narrowed | Change::Both),
                _ => true,
            };
            prop_assert!(is_as_claimed, "{of:?} is called {claimed:?}: {request:?} was {was_allowed}, is {is_allowed}");
            tried.set(tried.get() + 1);
            different.set(different.get() + usize::from(was_allowed != is_allowed));
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let (tried, different) = (tried.get(), different.get());
    assert!(different > tried / 100, "{different} of {tried} requests were decided otherwise");
}

#[test]
fn each_claim_holds_against_random_requests() {
    let cases = std::env::var("KEYWARD_COMPARISONS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    claims_hold(cases);
}
