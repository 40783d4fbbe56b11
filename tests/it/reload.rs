//! Saved edits come into force at once, or are refused and change nothing, however they are saved.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Demo, PATIENCE, Process, Serve, client, configure, keyward, verdict};

/// A policy that forbids one resource, so that it is in force when that one is forbidden. It contradicts no example.
pub fn stop(item: &str) -> String {
    format!("@id(\"stop-{item}\")\nforbid (principal, action, resource == DocsApi::Resource::\"{item}\");\n")
}

pub fn has_policy(report: &Value, name: &str) -> bool {
    report["policies"].as_array().unwrap().iter().any(|policy| policy["name"] == name)
}

/// Waits until the policy is in force, and makes sure that it decides.
pub async fn in_force(demo: &Demo, item: &str) {
    let name = format!("stop-{item}");
    demo.until_report(|report| has_policy(report, &name)).await;
    assert_eq!(demo.reason("SK_LIVE", &format!("/v1/resources/{item}")).await, "policy_denied");
    assert_eq!(demo.reason("SK_LIVE", "/v1/resources/other").await, "allowed");
}

#[tokio::test]
async fn an_edit_is_noticed_however_it_is_saved() {
    let demo = Demo::start();
    let file = demo.policies().join("stop.cedar");
    fs::write(&file, stop("a")).unwrap();
    in_force(&demo, "a").await;
    // Editors write a new file and rename it over the old one, again and again.
    for item in ["b", "c"] {
        let new = demo.policies().join(".stop.cedar.swp");
        fs::write(&new, stop(item)).unwrap();
        fs::rename(&new, &file).unwrap();
        in_force(&demo, item).await;
    }
    fs::remove_file(&file).unwrap();
    demo.until_report(|report| !has_policy(report, "stop-c")).await;
    assert_eq!(demo.reason("SK_LIVE", "/v1/resources/c").await, "allowed");
}

#[tokio::test]
async fn a_folder_that_is_deleted_keeps_the_last_good_revision_and_is_found_again() {
    let demo = Demo::start();
    let (policies, aside) = (demo.policies(), demo.policies().with_file_name("aside"));
    for round in 0..2 {
        fs::rename(&policies, &aside).unwrap();
        demo.until_report(|report| !report["refused"].is_null()).await;
        assert_eq!(demo.reason("SK_LIVE", "/v1/resources").await, "allowed", "{round}");
        fs::create_dir(&policies).unwrap();
        copy(&aside, &policies);
        demo.until_report(|report| report["refused"].is_null()).await;
        fs::remove_dir_all(&aside).unwrap();
        let item = format!("again{round}");
        fs::write(policies.join("stop.cedar"), stop(&item)).unwrap();
        in_force(&demo, &item).await;
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_kubernetes_swap_of_the_data_link_is_one_edit() {
    let demo = Demo::start();
    let policies = demo.policies();
    let version = |name: &str, item: &str| {
        let folder = policies.join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("stop.cedar"), stop(item)).unwrap();
    };
    let point = |name: &str| {
        std::os::unix::fs::symlink(name, policies.join("..data_tmp")).unwrap();
        fs::rename(policies.join("..data_tmp"), policies.join("..data")).unwrap();
    };
    version("..2026_01", "a");
    point("..2026_01");
    std::os::unix::fs::symlink("..data/stop.cedar", policies.join("stop.cedar")).unwrap();
    in_force(&demo, "a").await;
    for (name, before, item) in [("..2026_02", "..2026_01", "b"), ("..2026_03", "..2026_02", "c")] {
        version(name, item);
        point(name);
        fs::remove_dir_all(policies.join(before)).unwrap();
        in_force(&demo, item).await;
    }
}

#[tokio::test]
async fn a_burst_of_500_writes_is_one_activation() {
    let demo = Demo::start();
    let before = demo.report().await["reloads_ok"].as_u64().unwrap();
    for write in 0..500 {
        fs::write(demo.policies().join("stop.cedar"), stop(&format!("burst{write}"))).unwrap();
    }
    in_force(&demo, "burst499").await;
    let after = demo.report().await["reloads_ok"].as_u64().unwrap();
    // Were the writes to pause for longer than the debounce on a busy machine, that would be a second one.
    assert!(after - before <= 2, "{} activations", after - before);
}

#[tokio::test]
async fn sighup_reads_the_files_again() {
    let demo = Demo::start();
    fs::write(demo.policies().join("stop.cedar"), stop("hup")).unwrap();
    demo.process.signal(Signal::HUP);
    in_force(&demo, "hup").await;
}

#[tokio::test]
async fn reloads_under_load_give_not_one_wrong_answer() {
    let demo = Demo::start();
    let ended = AtomicBool::new(false);
    let call = async |token, method, path, expected| {
        let mut calls = 0;
        while !ended.load(Ordering::Relaxed) && calls < 200_000 {
            let (status, reason) = verdict(demo.forward(token, method, path)).await;
            assert_eq!(status, expected, "{token} {method} {path}: {reason}");
            calls += 1;
        }
        assert!(calls > 0);
    };
    let edit = async {
        let file = demo.policies().join("stop.cedar");
        for edit in 0..10 {
            fs::write(&file, stop(&format!("load{edit}"))).unwrap();
            in_force(&demo, &format!("load{edit}")).await;
            fs::write(&file, "permit (").unwrap();
            demo.until_report(|report| !report["refused"].is_null()).await;
        }
        ended.store(true, Ordering::Relaxed);
    };
    tokio::join!(
        edit,
        call("SK_LIVE", "GET", "/v1/resources", 200),
        call("RK_LIVE", "POST", "/v1/resources", 403),
        call("PK_TEST", "GET", "/v1/resources/r", 200),
    );
}

#[tokio::test]
async fn a_restart_onto_broken_files_serves_the_last_good_revision_and_says_so() {
    let demo = Demo::start();
    fs::write(demo.policies().join("stop.cedar"), stop("kept")).unwrap();
    in_force(&demo, "kept").await;
    fs::write(demo.policies().join("stop.cedar"), "permit (").unwrap();
    demo.until_report(|report| !report["refused"].is_null()).await;
    let mut demo = demo.restart(&[]);
    let report = demo.report().await;
    assert_eq!(report["active"]["source"], "store");
    assert!(report["refused"]["diagnostics"].as_str().unwrap().contains("stop.cedar:1:"));
    assert_eq!(demo.reason("SK_LIVE", "/v1/resources/kept").await, "policy_denied");
    assert!(demo.process.output().contains("the last good revision is served"));
    fs::write(demo.policies().join("stop.cedar"), stop("mended")).unwrap();
    in_force(&demo, "mended").await;
    assert_eq!(demo.report().await["active"]["source"], "files");
}

#[test]
fn only_a_first_start_without_any_good_revision_fails() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(keyward(&["init", "."], folder.path()).0, 0);
    configure(folder.path(), &[]);
    fs::write(folder.path().join("policies/docs-api.cedar"), "permit (").unwrap();
    let config = folder.path().join("keyward.toml");
    let (status, output) = Process::start(&["serve", "--config", config.to_str().unwrap()], &[]).wait();
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("docs-api.cedar:1:") && output.contains("no earlier good revision"), "{output}");
}

/// `GET /v1/policies` of a daemon.
async fn report_of(serve: &Serve) -> Value {
    client().get(format!("{}/v1/policies", serve.admin)).send().await.unwrap().json().await.unwrap()
}

/// Waits until a daemon has the policy that stops this item.
async fn in_force_at(serve: &Serve, item: &str) {
    let (name, until) = (format!("stop-{item}"), Instant::now() + PATIENCE);
    loop {
        let report = report_of(serve).await;
        if has_policy(&report, &name) {
            return;
        }
        assert!(Instant::now() < until, "{report:#}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_no_event_tells_of_is_found_by_polling() {
    // Behind a link nobody watches, as on a network file system. One daemon polls and the other, in effect, does not.
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("stop.cedar");
    let save = |item: &str| {
        fs::write(elsewhere.path().join("new"), stop(item)).unwrap();
        fs::rename(elsewhere.path().join("new"), &file).unwrap();
    };
    save("first");
    let (polling, listening) = (Serve::with(&["reload.poll_secs = 1"]), Serve::with(&["reload.poll_secs = 3600"]));
    for serve in [&polling, &listening] {
        std::os::unix::fs::symlink(&file, serve.folder.path().join("policies/stop.cedar")).unwrap();
        in_force_at(serve, "first").await;
    }
    // Each look of the one is a second in which the other could have heard of it.
    for item in ["second", "third", "fourth"] {
        save(item);
        in_force_at(&polling, item).await;
        let report = report_of(&listening).await;
        assert!(has_policy(&report, "stop-first"), "there was an event, so that polling was not needed: {report:#}");
    }
    fs::write(listening.folder.path().join("policies/other.cedar"), stop("other")).unwrap();
    in_force_at(&listening, "other").await;
    in_force_at(&listening, "fourth").await;
}

#[tokio::test]
async fn an_edit_whose_event_was_lost_in_an_overflow_is_noticed() {
    let serve = Serve::with(&["reload.poll_secs = 3600"]);
    let folder = serve.folder.path();
    // Once this is in force, somebody listens.
    fs::write(folder.join("policies/stop.cedar"), stop("heard")).unwrap();
    in_force_at(&serve, "heard").await;
    // While the daemon stands still, the queue of the kernel fills up with what is none of its business.
    serve.process.signal(Signal::STOP);
    let room: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    for at in 0..=room {
        let noise = folder.join(format!("noise{}", at % 2));
        fs::write(&noise, "").unwrap();
        fs::remove_file(noise).unwrap();
    }
    fs::write(folder.join("policies/stop.cedar"), stop("unheard")).unwrap();
    serve.process.signal(Signal::CONT);
    in_force_at(&serve, "unheard").await;
}

#[tokio::test]
async fn links_that_lead_anywhere_are_refused_and_end_nothing() {
    let demo = Demo::start();
    let link = demo.policies().join("elsewhere");
    for target in [demo.policies(), "/".into(), "/proc".into()] {
        std::os::unix::fs::symlink(&target, &link).unwrap();
        demo.until_report(|report| !report["refused"].is_null()).await;
        assert_eq!(demo.reason("SK_LIVE", "/v1/resources").await, "allowed", "{}", target.display());
        fs::remove_file(&link).unwrap();
        demo.until_report(|report| report["refused"].is_null()).await;
    }
    // These look like files, and reading them would never end, or be endless.
    for target in ["/proc/kmsg", "/dev/zero", "/proc/self/mem"] {
        let link = demo.policies().join("odd.cedar");
        std::os::unix::fs::symlink(target, &link).unwrap();
        in_force_or_refused(&demo, target).await;
        fs::remove_file(&link).unwrap();
        demo.until_report(|report| report["refused"].is_null()).await;
    }
    fs::write(demo.policies().join("after.cedar"), stop("after")).unwrap();
    in_force(&demo, "after").await;
    let (status, output) = demo.process.stop();
    assert!(status.success(), "{output}");
}

/// What is no ordinary file is passed over, and what cannot be read is refused: either way an edit is noticed next.
async fn in_force_or_refused(demo: &Demo, name: &str) {
    let marker = format!("marker{}", name.len());
    let file = demo.policies().join("marker.cedar");
    fs::write(&file, stop(&marker)).unwrap();
    demo.until_report(|report| !report["refused"].is_null() || has_policy(report, &format!("stop-{marker}"))).await;
    fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn a_file_that_is_being_saved_opens_nothing_that_it_closes() {
    let demo = Demo::start();
    let file = demo.policies().join("stop.cedar");
    fs::write(&file, stop("first")).unwrap();
    in_force(&demo, "first").await;
    // As an editor that truncates first, and is slow.
    fs::write(&file, "").unwrap();
    let refused = demo.until_report(|report| !report["refused"].is_null()).await;
    assert!(refused["refused"]["diagnostics"].as_str().unwrap().contains("empty"));
    assert!(has_policy(&refused, "stop-first"), "{refused}");
    fs::write(&file, stop("second")).unwrap();
    in_force(&demo, "second").await;
}

#[tokio::test]
async fn a_daemon_that_is_started_in_its_own_folder_hears_of_edits() {
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    assert_eq!(keyward(&["init", "."], folder.path()).0, 0);
    configure(folder.path(), &["reload.poll_secs = 3600"]);
    let serve = Serve::start_within(folder);
    fs::write(serve.folder.path().join("policies/stop.cedar"), stop("here")).unwrap();
    in_force_at(&serve, "here").await;
}
