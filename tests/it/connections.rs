//! What the accept loop must survive: silent clients, dribbling clients, oversize heads, and a shutdown in the middle.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helper fails by panicking")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use futures_util::stream;
use keyward::http::descriptors;
use keyward::http::serve::{HEADER_FIELDS, Limits, Server};
use prometheus::IntGauge;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector, rustls};

use crate::harness::{SelfSigned, self_signed};

/// Far longer than anything here takes; a test that reaches it has failed.
const LONG: Duration = Duration::from_secs(20);

struct Running {
    addr: SocketAddr,
    open: IntGauge,
    stop: watch::Sender<bool>,
    server: JoinHandle<usize>,
}

/// Of a long answer: far more than kernels hold of what nobody reads.
static CHUNK: &[u8] = &[b'x'; 64 * 1024];
const CHUNKS: usize = 1_000;

/// A handler that says it has begun and answers when it is told to.
#[derive(Default)]
struct Gate {
    begun: Notify,
    open: Notify,
}

fn app(gate: &Arc<Gate>) -> Router {
    let gate = Arc::clone(gate);
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/peer", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }))
        .route("/echo", post(|body: String| async { body }))
        .route(
            "/long",
            get(|| async { Body::from_stream(stream::iter(std::iter::repeat_n(Ok::<_, Infallible>(CHUNK), CHUNKS))) }),
        )
        .route(
            "/slow",
            get(move || async move {
                gate.begun.notify_one();
                gate.open.notified().await;
                "done"
            }),
        )
}

async fn start(limits: Limits, grace: Duration, tls: Option<TlsAcceptor>) -> (Running, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let open = IntGauge::new("open", "Open connections.").unwrap();
    let mut server = Server::new(app(&gate), limits).gauge(open.clone());
    if let Some(tls) = tls {
        server = server.tls(tls);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(server.run(listener, stopped, grace));
    (Running { addr, open, stop, server }, gate)
}

/// Sends `request` and reads until the server closes or `LONG` has passed.
async fn exchange(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request.as_bytes()).await;
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "the server never closed after {:?}", String::from_utf8_lossy(&answer));
    String::from_utf8(answer).unwrap()
}

/// Reads one answer whose body is `body`, and leaves the connection open.
async fn expect_answer(stream: &mut TcpStream, body: &str) {
    let mut answer = Vec::new();
    while !answer.ends_with(body.as_bytes()) {
        let read = tokio::time::timeout(LONG, stream.read_buf(&mut answer)).await.expect("no answer").unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
    }
}

async fn finish(running: Running) -> (usize, Duration) {
    let asked = Instant::now();
    running.stop.send_replace(true);
    let dropped = tokio::time::timeout(LONG, running.server).await.expect("the server never ended").unwrap();
    assert_eq!(running.open.get(), 0);
    (dropped, asked.elapsed())
}

const GOOD: &str = "GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_silent_and_dribbling_sockets_do_not_keep_a_good_client_out() {
    assert!(descriptors::raise(8192).unwrap() >= 4500, "this test needs about 4,500 open files");
    let limits = Limits { header_timeout: Duration::from_secs(2), ..Limits::default() };
    let (running, _gate) = start(limits, LONG, None).await;
    let mut bad = Vec::new();
    for _ in 0..2000 {
        bad.push(TcpStream::connect(running.addr).await.unwrap());
    }
    let (writers, silent) = bad.split_at_mut(1000);
    for writer in writers.iter_mut() {
        writer.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    }
    // A byte more for each, again and again, until the server has had enough of all of them.
    let mut every = tokio::time::interval(Duration::from_millis(200));
    let started = Instant::now();
    let mut refused = 0;
    while refused < writers.len() {
        assert!(started.elapsed() < LONG, "only {refused} dribblers were cut off");
        every.tick().await;
        let asked = Instant::now();
        assert!(exchange(running.addr, GOOD).await.ends_with("hello"));
        assert!(asked.elapsed() < Duration::from_secs(1), "the good client waited {:?}", asked.elapsed());
        refused = 0;
        for writer in writers.iter_mut() {
            refused += usize::from(writer.write_all(b"x").await.is_err());
        }
    }
    for socket in silent {
        assert_eq!(read_to_end(socket).await, "");
    }
    let (dropped, _) = finish(running).await;
    assert_eq!(dropped, 0);
}

#[tokio::test]
async fn at_the_cap_a_good_client_gets_in_as_soon_as_the_silent_ones_are_cut_off() {
    let limits = Limits { connections: 8, header_timeout: Duration::from_millis(500), ..Limits::default() };
    let (running, _gate) = start(limits, LONG, None).await;
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(TcpStream::connect(running.addr).await.unwrap());
    }
    assert!(exchange(running.addr, GOOD).await.ends_with("hello"));
    assert_eq!(finish(running).await.0, 0);
}

#[tokio::test]
async fn at_the_cap_a_good_client_gets_in_before_those_that_asked_once_have_idled_to_the_end() {
    let limits = Limits {
        connections: 8,
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_mins(10),
        ..Limits::default()
    };
    let (running, _gate) = start(limits, LONG, None).await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(running.addr).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
        expect_answer(&mut stream, "hello").await;
        idle.push(stream);
    }
    assert!(exchange(running.addr, GOOD).await.ends_with("hello"));
    drop(idle);
    assert_eq!(finish(running).await.0, 0);
}

#[tokio::test]
async fn a_kept_alive_connection_may_idle_far_longer_than_a_head_may_take() {
    let limits = Limits { header_timeout: Duration::from_millis(100), ..Limits::default() };
    let (running, _gate) = start(limits, LONG, None).await;
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
    expect_answer(&mut stream, "hello").await;
    // Time passing is the subject here, not a way to wait for something.
    tokio::time::sleep(Duration::from_millis(400)).await;
    stream.write_all(b"GET /peer HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
    let us = stream.local_addr().unwrap().to_string();
    expect_answer(&mut stream, &us).await;
    // But half a second head on it is cut off as any other.
    stream.write_all(b"GET / HT").await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, "");
    finish(running).await;
}

#[tokio::test]
async fn an_idle_connection_and_a_body_that_never_comes_are_closed_in_their_own_time() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(100),
        request_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let (running, _gate) = start(limits, LONG, None).await;
    assert!(exchange(running.addr, "GET / HTTP/1.1\r\nhost: t\r\n\r\n").await.ends_with("hello"));
    let half = "POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nfive!";
    assert_eq!(exchange(running.addr, half).await, "");
    finish(running).await;
}

/// A connection on which the long answer was asked for, by a client that takes little at a time.
async fn ask_for_long(addr: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut stream = socket.connect(addr).await.unwrap();
    stream.write_all(b"GET /long HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await.unwrap();
    stream
}

#[tokio::test]
async fn whoever_reads_a_long_answer_slowly_gets_all_of_it_also_where_it_is_crowded() {
    let idle = Duration::from_secs(1);
    let limits = Limits { connections: 2, idle_timeout: idle, header_timeout: idle / 10, ..Limits::default() };
    let (running, _gate) = start(limits, LONG, None).await;
    let (started, mut stream, mut bytes) = (Instant::now(), ask_for_long(running.addr).await, 0);
    let mut chunk = vec![0; 256 * 1024];
    loop {
        let read = tokio::time::timeout(LONG, stream.read(&mut chunk)).await.expect("no more came").unwrap();
        if read == 0 {
            break;
        }
        bytes += read;
        // Reading slowly is the subject here, not a way to wait for something.
        if bytes * 4 > CHUNKS * CHUNK.len() * usize::try_from(started.elapsed().as_millis()).unwrap() / 1_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert!(started.elapsed() > 2 * idle, "it was read too fast to say anything: {:?}", started.elapsed());
    assert!(bytes > CHUNKS * CHUNK.len(), "cut after {bytes} bytes and {:?}", started.elapsed());
    finish(running).await;
}

#[tokio::test]
async fn whoever_reads_nothing_of_a_long_answer_is_cut_off() {
    let limits = Limits { idle_timeout: Duration::from_millis(300), ..Limits::default() };
    let (running, _gate) = start(limits, LONG, None).await;
    let mut stream = ask_for_long(running.addr).await;
    let started = Instant::now();
    let mut every = tokio::time::interval(Duration::from_millis(20));
    while running.open.get() == 0 || started.elapsed() < Duration::from_millis(100) {
        assert!(started.elapsed() < LONG, "the connection was never there");
        every.tick().await;
    }
    while running.open.get() > 0 {
        assert!(started.elapsed() < LONG, "the connection is still there");
        every.tick().await;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.len() < CHUNKS * CHUNK.len(), "all of it went to the kernel, which says nothing");
    finish(running).await;
}

#[tokio::test]
async fn a_request_whose_client_hung_up_before_anybody_looked_is_handled_all_the_same() {
    let gate = Arc::new(Gate::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(b"GET /slow HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
    drop(client);
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(Server::new(app(&gate), Limits::default()).run(listener, stopped, LONG));
    tokio::time::timeout(LONG, gate.begun.notified()).await.expect("nobody looked at it");
    gate.open.notify_one();
    stop.send(true).unwrap();
    assert_eq!(server.await.unwrap(), 0, "and its connection ends");
}

#[tokio::test]
async fn oversize_heads_and_too_many_fields_are_answered_with_431() {
    let (running, _gate) = start(Limits::default(), LONG, None).await;
    let long = format!("GET / HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "x".repeat(40_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(HEADER_FIELDS + 1));
    for (name, request) in [("long", long), ("many", many)] {
        let answer = exchange(running.addr, &request).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{name}: {answer:?}");
    }
    let most = format!(
        "GET / HTTP/1.1\r\nconnection: close\r\n{}x: {}\r\n\r\n",
        "x: y\r\n".repeat(HEADER_FIELDS - 2),
        "x".repeat(30_000)
    );
    assert!(exchange(running.addr, &most).await.ends_with("hello"));
    finish(running).await;
}

#[tokio::test]
async fn http_2_is_not_spoken() {
    let (running, _gate) = start(Limits::default(), LONG, None).await;
    assert_eq!(exchange(running.addr, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, "");
    finish(running).await;
}

#[tokio::test]
async fn a_shutdown_lets_a_request_in_flight_finish_and_closes_idle_connections_at_once() {
    let (running, gate) = start(Limits::default(), LONG, None).await;
    let mut idle = TcpStream::connect(running.addr).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
    expect_answer(&mut idle, "hello").await;
    let mut silent = TcpStream::connect(running.addr).await.unwrap();
    let mut busy = TcpStream::connect(running.addr).await.unwrap();
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
    gate.begun.notified().await;

    running.stop.send_replace(true);
    assert_eq!(read_to_end(&mut idle).await, "");
    assert_eq!(read_to_end(&mut silent).await, "");
    assert!(TcpStream::connect(running.addr).await.is_err(), "nothing listens any more");
    gate.open.notify_one();
    let answer = read_to_end(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("done"), "{answer:?}");
    assert!(answer.contains("connection: close\r\n"), "{answer:?}");
    assert_eq!(finish(running).await.0, 0);
}

#[tokio::test]
async fn a_shutdown_ends_at_its_deadline_whatever_the_clients_do() {
    let grace = Duration::from_millis(300);
    let (running, gate) = start(Limits::default(), grace, None).await;
    let mut stuck = TcpStream::connect(running.addr).await.unwrap();
    stuck.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
    expect_answer(&mut stuck, "hello").await;
    stuck.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
    let mut never = TcpStream::connect(running.addr).await.unwrap();
    never.write_all(b"GET /slow HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
    gate.begun.notified().await;
    let (dropped, took) = finish(running).await;
    assert!(dropped >= 1, "the request that never ends was dropped");
    assert!(took < Duration::from_secs(5), "took {took:?}");
}

#[tokio::test]
async fn tls_is_spoken_on_request_and_a_silent_handshake_is_cut_off() {
    let SelfSigned { config, certificate, .. } = self_signed();
    let limits = Limits { header_timeout: Duration::from_secs(1), ..Limits::default() };
    let (running, _gate) = start(limits, LONG, Some(TlsAcceptor::from(config))).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let tcp = TcpStream::connect(running.addr).await.unwrap();
    let mut tls = TlsConnector::from(Arc::new(client)).connect(name, tcp).await.unwrap();
    tls.write_all(GOOD.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = tls.read_to_string(&mut answer).await;
    assert!(answer.ends_with("hello"), "{answer:?}");

    assert_eq!(exchange(running.addr, "").await, "", "a silent client");
    exchange(running.addr, GOOD).await; // Plain HTTP gets an alert, not an answer.
    assert_eq!(finish(running).await.0, 0);
}
