//! Sixteen known-bad edits, and a few more: each is refused with the right file and line while clients go on calling,
//! not one of them gets a wrong answer, and each is mended by the next good save.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::harness::{Demo, verdict};
use crate::reload::{has_policy, in_force, stop};

/// Calls that go on all the time, and what each must come to: the token, method, path, status and reason.
const CALLS: [(&str, &str, &str, u16, &str); 9] = [
    ("SK_LIVE", "GET", "/v1/resources", 200, "allowed"),
    ("SK_TEST", "DELETE", "/v1/resources/r", 200, "allowed"),
    ("PK_LIVE", "GET", "/v1/resources/r", 200, "allowed"),
    ("PK_LIVE", "POST", "/v1/resources", 403, "policy_denied"),
    ("RK_LIVE", "GET", "/v1/resources", 200, "allowed"),
    ("RK_LIVE", "POST", "/v1/resources", 403, "scope_missing"),
    ("RK_LIVE", "GET", "/v1/jobs", 403, "policy_denied"),
    ("SK_LIVE", "GET", "/v1/nothing", 403, "no_route"),
    ("", "GET", "/v1/resources", 401, "credentials_missing"),
];

/// What is done to the files.
enum Change {
    /// A file's text is this.
    Write(&'static str, Vec<u8>),
    /// A file's text is changed.
    Edit(&'static str, fn(&str) -> String),
    /// A file is gone.
    Remove(&'static str),
    /// A folder has nothing in it.
    Empty(&'static str),
    /// A link leads here.
    Link(&'static str, &'static str),
}

struct Edit {
    what: &'static str,
    change: Change,
    /// The file and line of the first problem.
    place: (&'static str, Option<u64>),
    /// What the problem says.
    says: &'static str,
}

fn policy(what: &'static str, text: impl Into<Vec<u8>>, line: impl Into<Option<u64>>, says: &'static str) -> Edit {
    Edit { what, change: Change::Write(BAD, text.into()), place: (BAD, line.into()), says }
}

/// Behind the shipped files in the order of names: of two policies of one name, the later one is at fault.
const BAD: &str = "policies/new.cedar";
const POLICIES: &str = "policies/docs-api.cedar";
const SCHEMA: &str = "schemas/docs-api.cedarschema";

fn edits() -> Vec<Edit> {
    let deep = |count: usize| {
        format!(
            "// deep\npermit (principal, action, resource)\nwhen {{ {}true{} }};",
            "(".repeat(count),
            ")".repeat(count)
        )
    };
    let chain = format!("permit (principal, action, resource) when {{ {}true }};", "true && ".repeat(100_000));
    let edit = |what, file, change, line: u64, says| Edit {
        what,
        change: Change::Edit(file, change),
        place: (file, Some(line)),
        says,
    };
    vec![
        policy("syntax", "// why\n\npermit (principal, action resource);", 3, "unexpected token"),
        policy(
            "unknown entity type",
            "permit (\n  principal is DocsApi::Robot,\n  action,\n  resource\n);",
            2,
            "Robot",
        ),
        policy(
            "unknown action",
            "permit (\n  principal,\n  action == DocsApi::Action::\"fly\",\n  resource\n);",
            3,
            "fly",
        ),
        policy(
            "type error",
            "permit (principal, action, resource)\nwhen { context.secure > 1 };",
            2,
            "expected Long but saw Bool",
        ),
        policy(
            "duplicate @id",
            "\n@id(\"secret-full-access\")\npermit (principal, action, resource);",
            2,
            "two policies have the name",
        ),
        Edit {
            what: "missing schema file",
            change: Change::Remove(SCHEMA),
            place: ("schemas", None),
            says: "no schema file",
        },
        policy("no UTF-8", b"// good\n// \xff\xfe".as_slice(), 2, "not UTF-8"),
        policy("50 MB", vec![b' '; 50 << 20], None, "larger than 1 MiB"),
        policy("10,000 deep", deep(10_000), 3, "nested more than"),
        Edit {
            what: "a loop of links",
            change: Change::Link("policies/loop", "."),
            place: ("policies/loop", None),
            says: "within itself",
        },
        Edit {
            what: "an empty folder",
            change: Change::Empty("policies"),
            place: ("policies", None),
            says: "holds no *.cedar file",
        },
        edit("half-written", POLICIES, |text| text[..text.len() / 2].to_owned(), 27, "unexpected end of input"),
        // The policy that uses the action is there before, and good.
        Edit {
            what: "an action that policies use is dropped",
            change: Change::Edit(SCHEMA, |text| text.replacen("action listJobs", "action browseJobs", 1)),
            place: ("policies/uses.cedar", Some(4)),
            says: "listJobs",
        },
        Edit {
            what: "a failing policy test",
            change: Change::Write(
                BAD,
                b"forbid (principal, action == DocsApi::Action::\"listResources\", resource);".to_vec(),
            ),
            place: ("policies/tests/docs-api.toml", Some(24)),
            says: "the example \"a publishable key lists resources\" fails",
        },
        edit(
            "two routes that clash",
            SCHEMA,
            |text| text.replacen("\"POST /v1/jobs\"", "\"POST /v1/resources\"", 1),
            37,
            "the same method and path",
        ),
        // The sixteenth are the guarantees, below. These are of the same kinds, larger or later.
        policy("150 deep", deep(150), 3, "nested more than"),
        policy("100,000 deep", deep(100_000), 3, "nested more than"),
        policy("100,000 long", chain, 1, "operators"),
        policy("half a new policy", "@id(\"x\")\npermit (princi", 2, "unexpected end of input"),
        edit("half-written schema", SCHEMA, |text| text[..text.len() / 2].to_owned(), 42, "unexpected token"),
    ]
}

/// A policy that permits what a guarantee forbids, and a call that shows it.
struct Violation {
    guarantee: &'static str,
    policy: &'static str,
    /// What is asked of `/v1/authorize`; a token is given by its name.
    question: fn(&Demo, &str) -> Value,
    reason: &'static str,
}

/// One for each guarantee that is shipped; none contradicts an example.
fn violations() -> Vec<Violation> {
    vec![
        Violation {
            guarantee: "guarantee-https-only",
            policy: "permit (principal == DocsApi::Anonymous::\"anonymous\", action == DocsApi::Action::\"getWebhook\", resource);",
            question: |_, _| json!({ "method": "GET", "path": "/v1/webhooks/w", "scheme": "http" }),
            reason: "credentials_missing",
        },
        Violation {
            guarantee: "guarantee-publishable-never-writes",
            policy: "permit (principal is DocsApi::PublishableKey, action == DocsApi::Action::\"createResource\", resource);",
            question: |demo, _| json!({ "token": demo.get("PK_LIVE"), "method": "POST", "path": "/v1/resources" }),
            reason: "policy_denied",
        },
        Violation {
            guarantee: "guarantee-publishable-stays-in-its-environment",
            policy: "permit (principal is DocsApi::PublishableKey, action == DocsApi::Action::\"getResource\", resource);",
            question: |demo, live| elsewhere(demo.get("PK_TEST"), "/v1/resources/r", live),
            reason: "policy_denied",
        },
        Violation {
            guarantee: "guarantee-secret-stays-in-its-environment",
            policy: "permit (principal is DocsApi::SecretKey, action == DocsApi::Action::\"getJob\", resource);",
            question: |demo, live| elsewhere(demo.get("SK_TEST"), "/v1/jobs/j", live),
            reason: "policy_denied",
        },
        Violation {
            guarantee: "guarantee-restricted-stays-in-its-environment",
            policy: "permit (principal is DocsApi::RestrictedKey, action == DocsApi::Action::\"getWebhook\", resource);",
            question: |demo, live| elsewhere(demo.get("RK_LIVE"), "/v1/webhooks/w", &live.replace("/live", "/test")),
            reason: "policy_denied",
        },
    ]
}

/// A call with a key about an item in an environment that is not the key's.
fn elsewhere(token: &str, path: &str, environment: &str) -> Value {
    let id = path.rsplit('/').next();
    json!({ "token": token, "method": "GET", "path": path, "resource": { "id": id, "environment": environment } })
}

/// The files of a demo, and what they were before an edit.
struct Files<'a> {
    demo: &'a Demo,
    good: Vec<(PathBuf, String)>,
}

impl<'a> Files<'a> {
    fn of(demo: &'a Demo) -> Self {
        let mut waiting = vec![demo.schemas(), demo.policies()];
        let mut good = Vec::new();
        while let Some(path) = waiting.pop() {
            if path.is_dir() {
                waiting.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                good.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
        Self { demo, good }
    }

    fn path(&self, name: &str) -> PathBuf {
        match name.split_once('/') {
            Some(("schemas", rest)) => self.demo.schemas().join(rest),
            Some((_, rest)) => self.demo.policies().join(rest),
            None if name == "schemas" => self.demo.schemas(),
            None => self.demo.policies(),
        }
    }

    fn make(&self, change: &Change) {
        match change {
            Change::Write(file, bytes) => fs::write(self.path(file), bytes).unwrap(),
            Change::Edit(file, change) => {
                let text = fs::read_to_string(self.path(file)).unwrap();
                let changed = change(&text);
                assert_ne!(changed, text);
                fs::write(self.path(file), changed).unwrap();
            }
            Change::Remove(file) => fs::remove_file(self.path(file)).unwrap(),
            Change::Empty(folder) => {
                fs::remove_dir_all(self.path(folder)).unwrap();
                fs::create_dir(self.path(folder)).unwrap();
            }
            Change::Link(link, target) => std::os::unix::fs::symlink(target, self.path(link)).unwrap(),
        }
    }

    /// The next good save: what was there before, and one policy more, which shows that it is in force.
    async fn mend(&self, number: usize) {
        for (path, text) in &self.good {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        for bad in [BAD, "policies/loop"] {
            let _ = fs::remove_file(self.path(bad));
        }
        let item = format!("mended{number}");
        fs::write(self.path("policies/stop.cedar"), stop(&item)).unwrap();
        in_force(self.demo, &item).await;
    }
}

/// Calls that go on, each answer looked at, until it has ended.
struct Load<'a> {
    demo: &'a Demo,
    ended: AtomicBool,
    /// Answers so far, call by call.
    answers: [AtomicU64; CALLS.len()],
}

impl Load<'_> {
    async fn call(&self, number: usize) {
        let (token, method, path, status, reason) = CALLS[number];
        while !self.ended.load(Ordering::Relaxed) && self.answers[number].load(Ordering::Relaxed) < 1_000_000 {
            let request = if token.is_empty() {
                let bare = self.demo.bare_forward().header("x-forwarded-method", method);
                bare.header("x-forwarded-uri", path).header("x-forwarded-proto", "https")
            } else {
                self.demo.forward(token, method, path)
            };
            assert_eq!(verdict(request).await, (status, reason.to_owned()), "{token} {method} {path}");
            self.answers[number].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns when every caller has had another answer to a call that it made after now.
    async fn goes_on(&self) {
        let before: Vec<u64> = self.answers.iter().map(|answers| answers.load(Ordering::Relaxed)).collect();
        let have = || self.answers.iter().zip(&before).all(|(now, before)| now.load(Ordering::Relaxed) >= before + 2);
        self.demo.until_report(|_| have()).await;
    }
}

#[tokio::test]
async fn a_bad_edit_is_refused_with_file_and_line_under_load_and_mended_by_the_next_good_save() {
    let mut demo = Demo::start();
    let uses = "// Why it is so.\nforbid (\n  principal,\n  action == DocsApi::Action::\"listJobs\",\n  resource == DocsApi::Environment::\"none\"\n);\n";
    fs::write(demo.policies().join("uses.cedar"), uses).unwrap();
    demo.until_report(|report| has_policy(report, "uses.cedar:2")).await;
    let files = Files::of(&demo);
    let load = Load { demo: &demo, ended: AtomicBool::new(false), answers: Default::default() };
    let edit = async {
        for (number, edit) in edits().into_iter().enumerate() {
            let Edit { what, change, place, says } = edit;
            let (active, refusals) = {
                let report = demo.report().await;
                (report["active"]["digest"].clone(), report["reloads_refused"].as_u64().unwrap())
            };
            files.make(&change);
            let refused = |report: &Value| {
                let problem = &report["refused"]["problems"][0];
                (problem["file"].as_str(), problem["line"].as_u64()) == (Some(place.0), place.1)
                    && problem["message"].as_str().is_some_and(|message| message.contains(says))
            };
            let report = demo.until_report(refused).await;
            assert_eq!(report["active"]["digest"], active, "{what}");
            assert!(report["refused"]["since"].is_string(), "{what}");
            assert!(demo.metric("keyward_reloads_total{result=\"refused\"}").await > refusals, "{what}");
            load.goes_on().await;
            files.mend(number).await;
            assert!(demo.report().await["refused"].is_null(), "{what}");
        }
        load.ended.store(true, Ordering::Relaxed);
    };
    tokio::join!(
        edit,
        load.call(0),
        load.call(1),
        load.call(2),
        load.call(3),
        load.call(4),
        load.call(5),
        load.call(6),
        load.call(7),
        load.call(8),
    );
    assert!(demo.process.is_alive());
    let output = demo.process.output();
    assert!(output.contains("the files on disk are refused") && output.contains("new.cedar:3:"), "{output}");
}

#[tokio::test]
async fn a_policy_that_a_guarantee_forbids_is_refused_with_its_file_and_line() {
    let demo = Demo::start();
    let files = Files::of(&demo);
    let answer =
        demo.authorize(json!({ "token": demo.get("SK_LIVE"), "method": "GET", "path": "/v1/resources" })).await;
    let live = answer["environment"].as_str().unwrap().to_owned();
    let report = demo.report().await;
    let shipped = report["policies"].as_array().unwrap().iter().filter(|policy| policy["guarantee"] == true);
    let mut shipped: Vec<&str> = shipped.map(|policy| policy["name"].as_str().unwrap()).collect();
    let mut tried: Vec<&str> = violations().iter().map(|violation| violation.guarantee).collect();
    shipped.sort_unstable();
    tried.sort_unstable();
    assert_eq!(tried, shipped, "each guarantee is tried");
    for (number, violation) in violations().into_iter().enumerate() {
        let Violation { guarantee, policy, question, reason } = violation;
        fs::write(files.path(BAD), format!("// Too much.\n@id(\"too-much\")\n{policy}\n")).unwrap();
        let refused = |report: &Value| {
            let problems = report["refused"]["problems"].as_array().into_iter().flatten();
            let mut problems = problems.filter(|problem| problem["file"] == BAD && problem["line"] == 2);
            problems.any(|problem| problem["message"].as_str().is_some_and(|message| message.contains(guarantee)))
        };
        demo.until_report(refused).await;
        let answer = demo.authorize(question(&demo, &live)).await;
        assert_eq!(answer["reason"], reason, "{guarantee}: {answer}");
        files.mend(number).await;
    }
}
