//! How long a connection may be silent, for each of the things it can be doing.
//!
//! Owns the clock of one connection: it sees bytes come in, requests begin and answers end, and says
//! when patience is over. It never reads or writes a byte of its own.
//!
//! Hyper has a timer for headers, but one for everything: the time a head may take is also the time
//! that a kept-alive connection may idle, which must be ten times longer (a proxy keeps its upstream
//! connections open for a minute). And it sets up and tears down a timer for each request. Here a
//! request costs three readings of the clock; the one timer of a connection is moved only when it
//! rings too early, or when half a head has arrived. An answer that is long is taken bit by bit: as long as its client
//! takes some of it, time begins anew.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// How long each phase of a connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// From the head to the answer's own head, the body of the request included.
    pub request: Duration,
}

/// What one connection is doing and until when it may. Shared by the reading side, the service and the
/// future that drives them, all of which run in the connection's one task: the atomics are there to
/// satisfy `Send`, and relaxed order is enough.
#[derive(Debug)]
pub(super) struct Watchdog {
    patience: Patience,
    born: Instant,
    /// Milliseconds after `born`.
    due: AtomicU64,
    /// Whether the next byte is the first of a head.
    quiet: AtomicBool,
    /// Milliseconds until the client of a long answer has to have taken more of it; 0 of any other answer.
    taking: AtomicU64,
}

impl Watchdog {
    /// A connection that was accepted just now: its first head has until `first` after this moment.
    pub(super) fn new(patience: Patience, first: Duration) -> Arc<Self> {
        // The first head is timed from the accept, not from its first byte, so a silent client is in `head` already.
        let due = AtomicU64::new(millis(first));
        Arc::new(Self { patience, born: Instant::now(), due, quiet: AtomicBool::new(false), taking: AtomicU64::new(0) })
    }

    fn allow(&self, time: Duration) {
        self.due.store(millis(self.born.elapsed().saturating_add(time)), Ordering::Relaxed);
    }

    fn bytes_came(&self) {
        if self.quiet.load(Ordering::Relaxed) {
            self.quiet.store(false, Ordering::Relaxed);
            self.allow(self.patience.head);
        }
    }

    /// A whole head was read.
    pub(super) fn request_began(&self) {
        // Bytes that come now belong to its body, or to a pipelined request that has to wait.
        self.quiet.store(false, Ordering::Relaxed);
        self.taking.store(0, Ordering::Relaxed);
        self.allow(self.patience.request);
    }

    /// The answer whose head is being sent is long: its client has `idle` anew whenever it has taken some of it.
    pub(super) fn answer_is_long(&self, idle: Duration) {
        self.taking.store(millis(idle), Ordering::Relaxed);
    }

    fn bytes_went(&self) {
        let taking = self.taking.load(Ordering::Relaxed);
        if taking > 0 && self.quiet.load(Ordering::Relaxed) {
            let due = millis(self.born.elapsed()).saturating_add(taking);
            // Never earlier than what was allowed for the whole of it.
            self.due.fetch_max(due, Ordering::Relaxed);
        }
    }

    /// The handler has returned its answer: the client has `idle` to take it, and for the next request's first byte.
    pub(super) fn request_ended(&self, idle: Duration) {
        self.quiet.store(true, Ordering::Relaxed);
        self.allow(idle);
    }

    fn due(&self) -> Instant {
        self.born + Duration::from_millis(self.due.load(Ordering::Relaxed))
    }

    /// Runs `work` to its end, or gives `None` when patience is over.
    pub(super) async fn guard<F: Future>(&self, work: Pin<&mut F>) -> Option<F::Output> {
        let mut work = work;
        let mut alarm = pin!(sleep_until(self.due()));
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            let due = self.due();
            if due < alarm.deadline() {
                alarm.as_mut().reset(due);
            }
            // An alarm that was set for an earlier phase is moved on, and asked once more so that it is armed.
            while alarm.as_mut().poll(cx).is_ready() {
                if Instant::now() >= due {
                    return Poll::Ready(None);
                }
                alarm.as_mut().reset(due);
            }
            Poll::Pending
        })
        .await
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 4)
}

/// A stream whose bytes are seen by a [`Watchdog`].
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) watchdog: Arc<Watchdog>,
}

impl<S> Watched<S> {
    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.watchdog.bytes_went();
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.watchdog.bytes_came();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { head: Duration::from_millis(20), request: Duration::from_millis(200) };

    #[tokio::test]
    async fn the_deadline_follows_the_phase_and_a_byte_of_the_same_head_does_not_move_it() {
        let watchdog = Watchdog::new(PATIENCE, PATIENCE.head);
        let first = watchdog.due();
        watchdog.bytes_came();
        assert_eq!(watchdog.due(), first, "dribbling buys no time");
        watchdog.request_began();
        assert!(watchdog.due() > first);
        watchdog.request_ended(Duration::from_hours(1));
        let idle = watchdog.due();
        assert!(idle > Instant::now() + Duration::from_mins(50));
        watchdog.bytes_came();
        assert!(watchdog.due() < Instant::now() + Duration::from_secs(1));
    }

    #[tokio::test]
    async fn whoever_takes_some_of_a_long_answer_has_time_anew_and_nobody_else() {
        let watchdog = Watchdog::new(PATIENCE, PATIENCE.head);
        let answered = |is_long: bool, idle: Duration| {
            watchdog.request_began();
            if is_long {
                watchdog.answer_is_long(Duration::from_mins(1));
            }
            watchdog.request_ended(idle);
            watchdog.due()
        };
        let due = answered(false, PATIENCE.head);
        watchdog.bytes_went();
        assert_eq!(watchdog.due(), due, "a short answer is in the kernel's hands at once");
        let due = answered(true, PATIENCE.head);
        watchdog.bytes_went();
        assert!(watchdog.due() > due);
        let due = answered(true, Duration::from_hours(1));
        watchdog.bytes_went();
        assert_eq!(watchdog.due(), due, "what was allowed is not taken back");
        let due = answered(false, PATIENCE.head);
        watchdog.bytes_went();
        assert_eq!(watchdog.due(), due, "the one before was long");
    }

    #[tokio::test]
    async fn an_alarm_set_for_a_long_phase_rings_for_a_short_one_that_follows() {
        let watchdog = Watchdog::new(PATIENCE, Duration::from_hours(1));
        watchdog.request_ended(Duration::from_hours(1));
        // The work never ends; its first poll starts a head, as the first byte of a request does.
        let mut work = pin!(poll_fn(|_| {
            watchdog.bytes_came();
            Poll::<()>::Pending
        }));
        assert!(watchdog.guard(work.as_mut()).await.is_none());
    }

    #[tokio::test]
    async fn an_alarm_that_rings_early_lets_a_longer_phase_go_on() {
        let watchdog = Watchdog::new(PATIENCE, Duration::from_millis(1));
        let started = Instant::now();
        let mut began = false;
        let mut work = pin!(poll_fn(|_| {
            if !began {
                began = true;
                watchdog.request_began();
            }
            Poll::<()>::Pending
        }));
        assert!(watchdog.guard(work.as_mut()).await.is_none());
        assert!(started.elapsed() + Duration::from_millis(1) >= PATIENCE.request);
    }
}
