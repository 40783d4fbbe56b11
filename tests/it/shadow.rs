//! Policies that are tried on live traffic: what they would change is told, and they change nothing.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Demo, PATIENCE, Serve, client};
use crate::replay::copy_policies;

const PUBLIC: &str = "@id(\"public\") permit (principal == DocsApi::Anonymous::\"anonymous\", \
                      action == DocsApi::Action::\"listResources\", resource);";
const NARROWER: &str = "@id(\"narrower\") forbid (principal is DocsApi::SecretKey, \
                        action == DocsApi::Action::\"listJobs\", resource);";

fn folder(demo: &Demo) -> PathBuf {
    demo.policies().with_file_name("policies.candidate")
}

/// Puts the demo's policies and these beside the live ones, at once.
fn try_out(demo: &Demo, more: &str) {
    let unfinished = demo.folder.path().join("unfinished");
    copy_policies(demo, &unfinished, more);
    let _ = fs::remove_dir_all(folder(demo));
    fs::rename(unfinished, folder(demo)).unwrap();
}

async fn told(demo: &Demo) -> Value {
    let url = format!("{}/v1/policies/shadow", demo.get("ADMIN_URL"));
    client().get(url).bearer_auth(demo.get("ADMIN_TOKEN")).send().await.unwrap().json().await.unwrap()
}

async fn until(demo: &Demo, found: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let said = told(demo).await;
        if found(&said) {
            return said;
        }
        assert!(Instant::now() < until, "never came: {said:#}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn count(said: &Value, change: &str) -> u64 {
    said["candidate"]["changes"][change].as_u64().unwrap_or_default()
}

#[tokio::test]
async fn what_a_candidate_would_change_is_told_and_nothing_is_changed() {
    let demo = Demo::start();
    let said = told(&demo).await;
    assert_eq!((&said["on"], said.get("candidate"), said.get("refused")), (&json!(true), None, None));
    assert_eq!(said["folder"], folder(&demo).display().to_string());
    let calls = async || {
        let anonymous = demo.authorize(json!({ "method": "GET", "path": "/v1/resources" })).await;
        assert_eq!(anonymous["reason"], "credentials_missing");
        assert_eq!(demo.reason("SK_LIVE", "/v1/jobs").await, "allowed");
        assert_eq!(demo.reason("SK_LIVE", "/v1/resources").await, "allowed");
    };
    try_out(&demo, &format!("{PUBLIC}\n{NARROWER}"));
    let began = until(&demo, |said| said["candidate"].is_object()).await;
    assert_eq!(began["candidate"]["compared_with"], demo.report().await["active"]["digest"]);
    calls().await;
    let said = until(&demo, |said| said["candidate"]["decided_again"] == 3).await;
    assert_eq!((count(&said, "deny_to_allow"), count(&said, "allow_to_deny"), count(&said, "same")), (1, 1, 1));
    let [widened, narrowed] = said["candidate"]["groups"].as_array().unwrap().as_slice() else { panic!("{said:#}") };
    assert_eq!(widened["after"], json!({ "reason": "allowed", "policies": ["public"] }));
    assert_eq!((&narrowed["kind"], &narrowed["after"]["policies"]), (&json!("secret"), &json!(["narrower"])));
    assert_eq!(narrowed["examples"][0]["path"], "/v1/jobs");
    let metric = async |flip: &str| demo.metric(&format!("keyward_shadow_decisions_total{{flip=\"{flip}\"}} ")).await;
    assert_eq!((metric("deny_to_allow").await, metric("allow_to_deny").await, metric("same").await), (1, 1, 1));

    // A candidate that is refused is told with its place, and nothing is tried until it is mended.
    fs::write(folder(&demo).join("more.cedar"), "permit (principal, action resource);").unwrap();
    let said = until(&demo, |said| said["refused"].is_object()).await;
    assert!(said["refused"]["diagnostics"].as_str().unwrap().contains("policies/more.cedar:1:27"), "{said:#}");
    assert_eq!((said.get("candidate"), &demo.report().await["refused"]), (None, &Value::Null));
    calls().await;
    fs::write(folder(&demo).join("more.cedar"), NARROWER).unwrap();
    let said = until(&demo, |said| said["candidate"].is_object()).await;
    assert_eq!((&said["candidate"]["decided_again"], said.get("refused")), (&json!(0), None));
    calls().await;
    let said = until(&demo, |said| said["candidate"]["decided_again"] == 3).await;
    assert_eq!((count(&said, "deny_to_allow"), count(&said, "allow_to_deny")), (0, 1));

    // It is compared with what is in force: with another revision, it begins anew.
    fs::remove_dir_all(demo.policies().join("tests")).unwrap();
    fs::write(demo.policies().join("more.cedar"), NARROWER).unwrap();
    let active = demo.until_report(|report| report.to_string().contains("narrower")).await["active"]["digest"].clone();
    assert_eq!(active, said["candidate"]["digest"], "it is the candidate itself");
    assert_eq!(demo.reason("SK_LIVE", "/v1/jobs").await, "policy_denied");
    let said = until(&demo, |said| said["candidate"]["decided_again"] == 1).await;
    assert_eq!((&said["candidate"]["compared_with"], count(&said, "same")), (&active, 1));

    fs::remove_dir_all(folder(&demo)).unwrap();
    until(&demo, |said| said.get("candidate").is_none() && said.get("refused").is_none()).await;
}

#[tokio::test]
async fn a_candidate_may_have_a_schema_beside_the_live_one() {
    let demo = Demo::start();
    let schemas = demo.schemas().with_file_name("schemas.candidate");
    fs::create_dir(&schemas).unwrap();
    let schema = fs::read_to_string(demo.schemas().join("docs-api.cedarschema")).unwrap();
    let more = "@http(\"GET /v1/reports\") action listReports appliesTo { principal: [SecretKey], \
                resource: [Environment], context: Call };\n  @http(\"GET /v1/resources\")";
    fs::write(schemas.join("api.cedarschema"), schema.replace("@http(\"GET /v1/resources\")", more)).unwrap();
    try_out(&demo, "");
    until(&demo, |said| said["candidate"].is_object()).await;
    assert_eq!(demo.reason("SK_LIVE", "/v1/reports").await, "no_route");
    let said = until(&demo, |said| said["candidate"]["decided_again"] == 1).await;
    assert_eq!(count(&said, "deny_to_allow"), 1, "{said:#}");
    // Without it, the live schema is meant, also for a candidate that is there already.
    fs::remove_dir_all(&schemas).unwrap();
    until(&demo, |now| now["candidate"].is_object() && now["candidate"]["digest"] != said["candidate"]["digest"]).await;
    assert_eq!(demo.reason("SK_LIVE", "/v1/reports").await, "no_route");
    let said = until(&demo, |said| said["candidate"]["decided_again"] == 1).await;
    assert_eq!(count(&said, "same"), 1, "{said:#}");
}

/// Policies that take as long as they may, and would deny everything. They look at the path, so that no answer is
/// remembered for another call.
fn slow() -> String {
    let mut policies = String::from("@id(\"never\") forbid (principal, action, resource);\n");
    for number in 0..400 {
        let terms: Vec<_> = (0..40).map(|term| format!("context.path like \"*{number}*{term}*x*y*z*\"")).collect();
        let _ = writeln!(
            policies,
            "@id(\"slow-{number}\") permit (principal, action, resource) when {{ {} }};",
            terms.join(" || ")
        );
    }
    policies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_is_slow_and_would_deny_everything_changes_no_answer_and_costs_its_own_decisions_alone() {
    let demo = Demo::start();
    try_out(&demo, &slow());
    until(&demo, |said| said["candidate"].is_object() || said["refused"].is_object()).await;
    let asking = |client: reqwest::Client, url: String, token: String, from: usize| async move {
        for number in from..from + 500 {
            let question = json!({ "token": token, "method": "GET", "path": format!("/v1/resources/res_{number}") });
            let answer = client.post(&url).json(&question).send().await.unwrap().json::<Value>().await.unwrap();
            assert_eq!(answer["reason"], "allowed");
        }
    };
    let url = format!("{}/v1/authorize", demo.get("DECISION_URL"));
    let clients: Vec<_> = (0..4)
        .map(|at| tokio::spawn(asking(client(), url.clone(), demo.get("SK_LIVE").to_owned(), at * 500)))
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let of_all = |said: &Value| {
        let of = |name: &str| said["candidate"][name].as_u64().unwrap_or_default();
        (of("decided_again"), of("dropped"), of("unsampled"))
    };
    let said = until(&demo, |said| {
        let (decided, dropped, unsampled) = of_all(said);
        decided + dropped + unsampled == 2_000
    })
    .await;
    let (decided, dropped, _) = of_all(&said);
    assert!(decided > 0 && count(&said, "allow_to_deny") == decided, "{said:#}");
    assert!(dropped > 0, "there was no time for all: {decided}");
    assert_eq!(demo.metric("keyward_shadow_dropped_total ").await, dropped);
    assert_eq!(demo.metric("keyward_recorded_dropped_total ").await, 0);
    let url = format!("{}/v1/decisions?outcome=forbidden", demo.get("ADMIN_URL"));
    let denied = client().get(url).bearer_auth(demo.get("ADMIN_TOKEN")).send().await.unwrap();
    assert_eq!(denied.json::<Value>().await.unwrap()["items"], json!([]));
}

#[tokio::test]
async fn what_is_switched_off_tries_nothing() {
    for setting in ["policies.shadow_one_in = 0", "recorded.decisions = 0"] {
        let serve = Serve::with(&[setting]);
        fs::create_dir(serve.folder.path().join("policies.candidate")).unwrap();
        let question = json!({ "token": serve.tokens[1], "method": "GET", "path": "/v1/resources" });
        let answer = client().post(format!("{}/v1/authorize", serve.decision)).json(&question).send().await.unwrap();
        assert_eq!(answer.json::<Value>().await.unwrap()["reason"], "allowed", "{setting}");
        let (status, output) = serve.process.stop();
        // An empty folder would be refused, if anybody had looked.
        assert!(status.success() && !output.contains("should be tried"), "{setting}: {output}");
    }
}
