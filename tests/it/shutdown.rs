//! A daemon that is told to end, and one that bad clients try to keep from working or from ending.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use keyward::http::descriptors;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{KEYWARD, PATIENCE, Serve, client, configure, keyward};

const QUESTION: &str = r#"{"method": "GET", "path": "/v1/resources"}"#;

fn address(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// A request whose last byte is still to come.
async fn almost_asked(serve: &Serve) -> TcpStream {
    let mut stream = TcpStream::connect(address(&serve.decision)).await.unwrap();
    let head = "POST /v1/authorize HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n";
    let request = format!("{head}content-length: {}\r\n\r\n{QUESTION}", QUESTION.len());
    stream.write_all(&request.as_bytes()[..request.len() - 1]).await.unwrap();
    stream
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("never closed");
    String::from_utf8(answer).unwrap()
}

/// Waits until nobody listens any more: the daemon has heard.
async fn until_deaf(url: &str) {
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(address(url)).await.is_ok() {
        assert!(Instant::now() < until, "it still listens");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_end() {
    for signal in [Signal::TERM, Signal::INT] {
        let serve = Serve::with(&["decision_log.path = \"decisions.jsonl\""]);
        let mut idle = TcpStream::connect(address(&serve.decision)).await.unwrap();
        let mut stream = almost_asked(&serve).await;
        // Whoever is answered here is answered by a daemon that has read what was sent before on the same loop.
        assert!(client().get(format!("{}/healthz", serve.decision)).send().await.unwrap().status().is_success());
        serve.process.signal(signal);
        until_deaf(&serve.decision).await;
        stream.write_all(b"}").await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("credentials_missing"), "{answer}");
        assert_eq!(read_to_end(&mut idle).await, "");
        let (status, output) = serve.process.wait();
        assert!(status.success(), "{output}");
        let log = std::fs::read_to_string(serve.folder.path().join("decisions.jsonl")).unwrap();
        assert_eq!(log.lines().count(), 1, "the last decision is in the log: {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_bad_connections_neither_keep_a_good_client_out_nor_the_daemon_from_ending() {
    assert!(descriptors::raise(4096).unwrap() >= 2500, "this test needs about 2,500 open files");
    // Their own timeouts are far longer than this test waits: only the deadline can end it.
    let serve = Serve::with(&[
        "shutdown_deadline_secs = 1",
        "limits.header_timeout_ms = 120000",
        "limits.request_timeout_ms = 120000",
        "limits.idle_timeout_ms = 120000",
    ]);
    let mut bad = Vec::new();
    for number in 0..2_000 {
        bad.push(if number % 100 == 0 {
            almost_asked(&serve).await
        } else {
            TcpStream::connect(address(&serve.decision)).await.unwrap()
        });
    }
    for dribbler in bad.iter_mut().skip(1).step_by(2) {
        dribbler.write_all(b"GET /v1/forw").await.unwrap();
    }
    let url = format!("{}/v1/authorize", serve.decision);
    let question = serde_json::json!({ "token": serve.tokens[1], "method": "GET", "path": "/v1/resources" });
    for _ in 0..50 {
        let answer = client().post(&url).json(&question).send().await.unwrap();
        assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["reason"], "allowed");
    }
    let (status, output) = serve.process.stop();
    assert!(status.success(), "{output}");
    drop(bad);
}

#[tokio::test]
async fn requests_during_a_restart_are_answered_or_refused_and_never_wrongly() {
    let mut serve = Serve::with(&[]);
    for _ in 0..3 {
        let question = serde_json::json!({ "token": serve.tokens[1], "method": "POST", "path": "/v1/resources" });
        let url = format!("{}/v1/authorize", serve.decision);
        let asking = tokio::spawn(async move {
            let client = client();
            let mut answered = 0;
            loop {
                let Ok(answer) = client.post(&url).json(&question).send().await else { return answered };
                // A connection that is closed in the middle of an answer is no answer.
                let Ok(answer) = answer.json::<serde_json::Value>().await else { return answered };
                assert_eq!(answer["reason"], "allowed");
                answered += 1;
                assert!(answered < 1_000_000);
            }
        });
        while serve.process.is_alive() && !asking.is_finished() {
            let metrics = client().get(format!("{}/metrics", serve.admin)).send().await.unwrap().text().await.unwrap();
            let line = "keyward_decisions_total{outcome=\"allow\",reason=\"allowed\"} ";
            let count = metrics.lines().find_map(|text| text.strip_prefix(line)?.parse::<u64>().ok()).unwrap_or(0);
            if count > 20 {
                break;
            }
        }
        let tokens = serve.tokens.clone();
        let folder = std::sync::Arc::clone(&serve.folder);
        let (status, output) = serve.process.stop();
        assert!(status.success(), "{output}");
        assert!(asking.await.unwrap() > 20);
        serve = Serve::start_in(folder, tokens);
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_neither_decisions_nor_the_end() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(keyward(&["init", "."], folder.path()).0, 0);
    // Each question of an untrusted peer is a line.
    configure(folder.path(), &["decision.trusted_proxies = [\"192.0.2.1/32\"]"]);
    let mut child = std::process::Command::new(KEYWARD)
        .arg("serve")
        .current_dir(folder.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"serving\"") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended");
    }
    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
    let decision = format!("http://{}", said["decision"].as_str().unwrap());
    let client = client();
    for _ in 0..2_000 {
        let answer = client.get(format!("{decision}/v1/forward-auth")).send().await.unwrap();
        assert_eq!(answer.status(), 401);
    }
    assert!(client.get(format!("{decision}/healthz")).send().await.unwrap().status().is_success());
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    let until = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            child.kill().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(status.success());
    drop(log);
}
