//! The accept loop: one per listener, on hyper's HTTP/1 connections.
//!
//! Owns connections: how many there are, how long each may be silent, how large a head may be, and how all
//! of them end. It never looks into a request; an axum router does that.
//!
//! `axum::serve` has no time limit on headers, so a client that sends half a head holds its connection for
//! ever, and holds up a graceful shutdown too. Hence this loop.
//!
//! HTTP/1.1 (and 1.0) alone is spoken. Proxies' authorization sub-requests speak it, a warm connection costs
//! one read and one write per decision, and HTTP/2's streams, settings and compression state would be attack
//! surface without a user.
//!
//! At the cap on connections, new ones wait in the kernel's backlog until one ends. Clients that send no
//! request are what fills a listener up, so from half of the cap on a new connection gets a tenth of the usual
//! time for its first head, and one that was answered no more than the time for a head to ask again: silent
//! sockets then leave faster than a flood brings them.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use crate::config::{self, LEAST_HEADER_BYTES};

use super::watchdog::{Patience, Watchdog, Watched};

/// The most header fields that a request may have: hyper's own default. Another number would cost an
/// allocation per request, and no proxy needs one.
pub const HEADER_FIELDS: usize = 100;

/// After an accept fails for want of a resource, the next try waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of an answer that a socket takes at once, or nearly.
const LONGEST_WHOLE: u64 = 128 * 1024;

/// Beside an answer: it is sent bit by bit for so long, and its client is not silent meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Lasting(pub Duration);

/// What one listener lets its clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; more wait in the kernel's backlog.
    pub connections: usize,
    /// Time for a request's line and headers, from the accept or the first byte to the last; also for a TLS handshake.
    pub header_timeout: Duration,
    /// Time from a request's headers to the head of its answer, the reading of a body included.
    pub request_timeout: Duration,
    /// Time a kept-alive connection may wait for its next request, and a client for taking its answer, or more of one that is
    /// long.
    pub idle_timeout: Duration,
    /// Size of a request's line and headers together, in bytes; above it the answer is 431. At least
    /// [`LEAST_HEADER_BYTES`]; a smaller value counts as that.
    pub header_bytes: usize,
}

impl From<&config::Limits> for Limits {
    fn from(limits: &config::Limits) -> Self {
        Self {
            connections: limits.connections,
            header_timeout: Duration::from_millis(limits.header_timeout_ms),
            request_timeout: Duration::from_millis(limits.request_timeout_ms),
            idle_timeout: Duration::from_millis(limits.idle_timeout_ms),
            header_bytes: limits.header_bytes,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::from(&config::Limits::default())
    }
}

impl Limits {
    fn patience(&self) -> Patience {
        Patience { head: self.header_timeout, request: self.request_timeout }
    }

    fn is_crowded(&self, open: usize) -> bool {
        open >= self.connections / 2
    }

    /// The time for a first head when `open` connections are there already.
    fn first_head(&self, open: usize) -> Duration {
        if self.is_crowded(open) { self.header_timeout / 10 } else { self.header_timeout }
    }

    /// The time for a next request's first byte.
    fn idle(&self, open: usize) -> Duration {
        if self.is_crowded(open) { self.idle_timeout.min(self.header_timeout) } else { self.idle_timeout }
    }
}

/// What a listener serves, and how. Cheap to make; [`Server::run`] uses it up.
pub struct Server {
    app: Router,
    limits: Limits,
    tls: Option<TlsAcceptor>,
    open: Option<IntGauge>,
}

impl Server {
    /// Serves `app` over plain TCP.
    pub fn new(app: Router, limits: Limits) -> Self {
        Self { app, limits, tls: None, open: None }
    }

    /// Speaks TLS on each connection. Its handshake has the time of a head.
    #[must_use]
    pub fn tls(mut self, acceptor: TlsAcceptor) -> Self {
        self.tls = Some(acceptor);
        self
    }

    /// Shows the number of open connections in `gauge`.
    #[must_use]
    pub fn gauge(mut self, gauge: IntGauge) -> Self {
        self.open = Some(gauge);
        self
    }

    /// Accepts and serves until `stop` turns true (or its sender is gone), then closes the listener, lets requests
    /// in flight finish, and drops what is left after `grace`. Returns how many connections were dropped so.
    ///
    /// Handlers find the client's address as `ConnectInfo<SocketAddr>`.
    pub async fn run(self, listener: TcpListener, stop: watch::Receiver<bool>, grace: Duration) -> usize {
        let Self { app, limits, tls, open } = self;
        let mut http = http1::Builder::new();
        // The watchdog keeps time instead.
        http.header_read_timeout(None);
        // The buffer is a hint that hyper may overshoot by a factor; the limit on the head is exact.
        http.max_buf_size(limits.header_bytes.max(LEAST_HEADER_BYTES));
        http.max_header_size(limits.header_bytes.max(LEAST_HEADER_BYTES));
        // A client that hangs up at once has sent its request all the same, and perhaps a key in the clear. Otherwise hyper
        // would drop a request that it has read before anybody has looked at it.
        http.half_close(true);
        let shared = Arc::new(Shared { app, http, limits, tls, stop: stop.clone(), open: AtomicUsize::new(0) });

        let mut connections = JoinSet::new();
        let mut stopping = pin!(stopped(stop));
        let mut failing = false;
        loop {
            tokio::select! {
                biased;
                () = &mut stopping => break,
                Some(ended) = connections.join_next() => {
                    note_end(ended);
                    shared.open.store(connections.len(), Ordering::Relaxed);
                    show(open.as_ref(), connections.len());
                }
                accepted = listener.accept(), if connections.len() < limits.connections => match accepted {
                    Ok((stream, peer)) => {
                        failing = false;
                        let first = limits.first_head(connections.len());
                        connections.spawn(Arc::clone(&shared).connection(stream, peer, first));
                        shared.open.store(connections.len(), Ordering::Relaxed);
                        show(open.as_ref(), connections.len());
                    }
                    // The client went away between its connect and our accept: nothing to do with us.
                    Err(error) if is_clients_own(&error) => {}
                    Err(error) => {
                        if !failing {
                            tracing::error!(
                                %error,
                                connections = connections.len(),
                                "cannot accept connections; raise the limit on open files or lower `connections`",
                            );
                        }
                        failing = true;
                        tokio::select! {
                            () = &mut stopping => break,
                            () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                        }
                    }
                },
            }
        }
        drop(listener);
        let left = drain(&mut connections, grace).await;
        show(open.as_ref(), 0);
        left
    }
}

/// Waits for the connections to end by themselves, and drops those that have not after `grace`.
async fn drain(connections: &mut JoinSet<()>, grace: Duration) -> usize {
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            note_end(ended);
        }
    };
    if tokio::time::timeout(grace, all_ended).await.is_ok() {
        return 0;
    }
    let left = connections.len();
    tracing::warn!(connections = left, "dropped connections that did not end within the shutdown deadline");
    connections.shutdown().await;
    left
}

fn show(gauge: Option<&IntGauge>, connections: usize) {
    if let Some(gauge) = gauge {
        gauge.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }
}

fn note_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a request handler panicked; its connection was closed");
    }
}

fn is_clients_own(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Resolves when the process is to stop. A sender that is gone counts: nobody could stop us any more.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Whether an answer is sent bit by bit. The others go to the kernel at once, however slowly they are read.
fn is_long(body: &Body) -> bool {
    body.size_hint().exact().is_none_or(|bytes| bytes > LONGEST_WHOLE)
}

/// What all connections of a listener use.
struct Shared {
    app: Router,
    http: http1::Builder,
    limits: Limits,
    tls: Option<TlsAcceptor>,
    stop: watch::Receiver<bool>,
    /// Connections that are there. A hint: nothing is ordered by it.
    open: AtomicUsize,
}

impl Shared {
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, first: Duration) {
        // An answer is small and is wanted now. A socket that refuses the option is still served.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.http(stream, peer, first).await };
        let handshake = async {
            tokio::select! {
                biased;
                () = stopped(self.stop.clone()) => None,
                shaken = tokio::time::timeout(first, tls.accept(stream)) => shaken.ok()?.ok(),
            }
        };
        if let Some(stream) = handshake.await {
            self.http(stream, peer, first).await;
        } else {
            tracing::debug!(%peer, "no TLS handshake");
        }
    }

    async fn http<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, peer: SocketAddr, first: Duration) {
        let watchdog = Watchdog::new(self.limits.patience(), first);
        let service = service_fn(|mut request: Request<Incoming>| {
            watchdog.request_began();
            request.extensions_mut().insert(ConnectInfo(peer));
            // A router is always ready, and a clone of it is one more reference.
            let answer = self.app.clone().call(request);
            let watchdog = &watchdog;
            async move {
                let answer = answer.await;
                if answer.as_ref().is_ok_and(|answer| is_long(answer.body())) {
                    watchdog.answer_is_long(self.limits.idle_timeout);
                }
                let lasting = answer.as_ref().ok().and_then(|answer| answer.extensions().get::<Lasting>());
                let idle = self.limits.idle(self.open.load(Ordering::Relaxed));
                watchdog.request_ended(lasting.map_or(idle, |Lasting(time)| idle + *time));
                answer
            }
        });
        let io = TokioIo::new(Watched { stream, watchdog: Arc::clone(&watchdog) });
        let mut connection = pin!(self.http.serve_connection(io, service));
        let ended = tokio::select! {
            biased;
            ended = watchdog.guard(connection.as_mut()) => ended,
            () = stopped(self.stop.clone()) => {
                // An idle connection ends here and now, another one with its next answer.
                connection.as_mut().graceful_shutdown();
                watchdog.guard(connection.as_mut()).await
            }
        };
        match ended {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%peer, %error, "connection ended with an error"),
            None => tracing::debug!(%peer, "connection closed: out of patience"),
        }
    }
}
