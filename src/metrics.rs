//! Counters, gauges and histograms, and their text for Prometheus.
//!
//! Owns one registry per daemon: nothing is global, so that two daemons in one test do not mix. Every handle that
//! the decision path uses is resolved when the daemon starts; counting a decision is a few atomic additions, with
//! no lock, no allocation and no look-up by label.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::core::Metric as _;
use prometheus::{
    Encoder as _, Error, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of a decision's time, in seconds: a warm one takes tens of microseconds, a cold one a millisecond.
const DECISION_BUCKETS: &[f64] =
    &[1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1];

/// Upper bounds of one Argon2 run, in seconds. Operators may choose costs far above the default.
const ARGON2_BUCKETS: &[f64] = &[2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 2.5e-1, 5e-1, 1.0];

/// What the daemon counts. Handles are shared by cloning them; `prometheus` keeps the numbers.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// One per reason, in the order that [`Metrics::new`] was given.
    decisions: Box<[IntCounter]>,
    decision_seconds: Histogram,
    /// Argon2 runs, and those who wait for one.
    pub argon2: Argon2,
    /// Revisions that came into force.
    pub reloads_ok: IntCounter,
    /// Revisions that were refused.
    pub reloads_refused: IntCounter,
    /// Keys in the ring.
    pub ring_keys: IntGauge,
    /// Living keys that should have been rotated by now.
    pub rotation_overdue: IntGauge,
    /// Living keys that should be rotated soon.
    pub rotation_due_soon: IntGauge,
    /// Lines of the decision log that found no room.
    pub decision_log_dropped: IntCounter,
    /// Decisions that found no room among those that are to be recorded.
    pub recorded_dropped: IntCounter,
    /// Decisions that were made again under the policies that are being tried, by what became of them.
    pub shadow_decisions: IntCounterVec,
    /// Decisions that should have been made again, and for which there was no time.
    pub shadow_dropped: IntCounter,
    /// What becomes of events on their way to the webhook's receiver.
    pub webhook: Webhook,
    connections: IntGaugeVec,
    keys: IntGaugeVec,
    revision_info: IntGaugeVec,
    revision_age: Gauge,
    /// Seconds for which what is on disk has been refused or has waited.
    pub revision_stale: Gauge,
    /// 1 while what is on disk waits for approval.
    pub revision_waiting: IntGauge,
    /// 1 while a revision serves that was rolled back to.
    pub revision_rolled_back: IntGauge,
    /// When the revision in force was activated. Touched by reloads and scrapes alone.
    active_since: Mutex<Option<Instant>>,
}

/// Argon2 runs, and those who wait for one.
#[derive(Debug, Clone)]
pub struct Argon2 {
    /// Runs that were begun.
    pub runs: IntCounter,
    /// Checks that wait now.
    pub queue: IntGauge,
    /// Checks that found the queue full.
    pub refused: IntCounter,
    /// Time of a run, without the waiting.
    pub seconds: Histogram,
}

/// What becomes of events on their way to the webhook's receiver.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Events that the receiver has.
    pub delivered: IntCounter,
    /// Times that the receiver did not take an event.
    pub failed: IntCounter,
    /// Events that the receiver will never have.
    pub given_up: IntCounter,
    /// When the event happened that is being delivered, in seconds since 1970; 0 when there is none.
    pub waiting_since: IntGauge,
}

impl Metrics {
    /// All metrics at zero. `reasons` are the `(outcome, reason)` labels of decisions; a decision is counted by its
    /// place in this list.
    ///
    /// # Errors
    /// When two metrics, or two reasons, have the same name: a mistake in the program, which any start shows.
    pub fn new(reasons: impl IntoIterator<Item = (&'static str, &'static str)>) -> Result<Self, Error> {
        let registry = Registry::new();
        let make = Maker(&registry);
        let decided =
            make.counters("keyward_decisions_total", "Decisions, by outcome and reason.", &["outcome", "reason"])?;
        let decisions = reasons
            .into_iter()
            .map(|(outcome, reason)| decided.get_metric_with_label_values(&[outcome, reason]))
            .collect::<Result<_, _>>()?;
        let reloads = make.counters(
            "keyward_reloads_total",
            "Revisions of schemas and policies that came into force (ok) or were refused.",
            &["result"],
        )?;
        let webhook = make.counters(
            "keyward_webhook_total",
            "Events that the webhook's receiver has (delivered), attempts that it did not take (failed), and events that \
             it will never have (given_up).",
            &["result"],
        )?;
        Ok(Self {
            webhook: Webhook {
                delivered: webhook.get_metric_with_label_values(&["delivered"])?,
                failed: webhook.get_metric_with_label_values(&["failed"])?,
                given_up: webhook.get_metric_with_label_values(&["given_up"])?,
                waiting_since: make.gauge(
                    "keyward_webhook_waiting_since_seconds",
                    "When the oldest event happened that the webhook's receiver does not have, in seconds since 1970; 0 \
                     when it has all.",
                )?,
            },
            keys: make.gauges(
                "keyward_keys",
                "Keys, by state; those that were seen over plain HTTP and go on working are flagged, too.",
                &["state"],
            )?,
            decisions,
            decision_seconds: make.histogram(
                "keyward_decision_seconds",
                "Time that it took to decide a call, once it was read.",
                DECISION_BUCKETS,
            )?,
            argon2: Argon2 {
                runs: make.counter("keyward_argon2_runs_total", "Secrets checked with Argon2id.")?,
                queue: make.gauge("keyward_argon2_queue", "Checks that wait for an Argon2 run.")?,
                refused: make.counter("keyward_argon2_refused_total", "Checks that found the Argon2 queue full.")?,
                seconds: make.histogram("keyward_argon2_seconds", "Time of one Argon2 run.", ARGON2_BUCKETS)?,
            },
            reloads_ok: reloads.get_metric_with_label_values(&["ok"])?,
            reloads_refused: reloads.get_metric_with_label_values(&["refused"])?,
            ring_keys: make.gauge("keyward_ring_keys", "Keys in memory.")?,
            rotation_overdue: make
                .gauge("keyward_keys_rotation_overdue", "Living keys that should have been rotated by now.")?,
            rotation_due_soon: make
                .gauge("keyward_keys_rotation_due_soon", "Living keys that should be rotated soon, as `rotation.warn_days` says.")?,
            decision_log_dropped: make
                .counter("keyward_decision_log_dropped_total", "Lines of the decision log that found no room.")?,
            shadow_decisions: make.counters(
                "keyward_shadow_decisions_total",
                "Decisions that were made again under the policies of the candidate folder, by what became of them.",
                &["flip"],
            )?,
            shadow_dropped: make.counter(
                "keyward_shadow_dropped_total",
                "Decisions that should have been made again under the candidate, and for which there was no time.",
            )?,
            recorded_dropped: make
                .counter("keyward_recorded_dropped_total", "Decisions that were answered and, for lack of room, not recorded.")?,
            connections: make.gauges("keyward_connections", "Open connections, by listener.", &["listener"])?,
            revision_info: make.gauges("keyward_revision_info", "1 for the revision in force.", &["digest"])?,
            revision_age: make
                .seconds("keyward_revision_age_seconds", "Time since the revision in force was activated.")?,
            revision_stale: make.seconds(
                "keyward_revision_stale_seconds",
                "Time for which the files have been refused or have waited for approval; 0 when they do not.",
            )?,
            revision_waiting: make.gauge("keyward_revision_waiting", "1 while the files wait for approval.")?,
            revision_rolled_back: make
                .gauge("keyward_revision_rolled_back", "1 while a revision serves that somebody rolled back to.")?,
            active_since: Mutex::default(),
            registry,
        })
    }

    /// Counts one decision: the place of its reason in the list given to [`Metrics::new`], and the time it took.
    pub fn decided(&self, reason: usize, took: Duration) {
        if let Some(counter) = self.decisions.get(reason) {
            counter.inc();
        }
        self.decision_seconds.observe(took.as_secs_f64());
    }

    /// How many decisions there were, in the order of the reasons given to [`Metrics::new`].
    pub fn decisions(&self) -> impl Iterator<Item = u64> {
        self.decisions.iter().map(IntCounter::get)
    }

    /// How many decisions were timed.
    pub fn decision_count(&self) -> u64 {
        self.decision_seconds.get_sample_count()
    }

    /// The time in seconds that this part of all decisions took at most, estimated: within a bucket, times count as spread
    /// evenly. None before the first decision; what is above the last bound counts as that.
    pub fn decision_quantile(&self, part: f64) -> Option<f64> {
        let metric = self.decision_seconds.metric();
        let buckets: Vec<(f64, u64)> =
            metric.get_histogram().get_bucket().iter().map(|b| (b.upper_bound(), b.cumulative_count())).collect();
        quantile(&buckets, self.decision_count(), part)
    }

    /// The gauge of open connections for a listener, to be handed to its accept loop.
    pub fn connections(&self, listener: &str) -> IntGauge {
        self.connections.with_label_values(&[listener])
    }

    /// Shows how many keys are in this state.
    pub fn keys_are(&self, state: &str, count: i64) {
        self.keys.with_label_values(&[state]).set(count);
    }

    /// Shows that the revision with this digest came into force at `now`.
    pub fn revision_active(&self, digest: &str, now: Instant) {
        self.revision_info.reset();
        self.revision_info.with_label_values(&[digest]).set(1);
        *self.active_since() = Some(now);
    }

    /// Everything in Prometheus' text format 0.0.4, as of `now`. Send it as [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// When a metric cannot be written as text, which for these does not happen.
    pub fn render(&self, now: Instant) -> Result<String, Error> {
        let since = |then: Instant| now.saturating_duration_since(then).as_secs_f64();
        self.revision_age.set(self.active_since().map_or(0.0, since));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn active_since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        // An instant cannot be left half-written.
        self.active_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The quantile of a histogram, whose buckets are given by upper bound and by how many lie below it.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn quantile(buckets: &[(f64, u64)], count: u64, part: f64) -> Option<f64> {
    if count == 0 {
        return None;
    }
    let wanted = part * count as f64;
    let (mut bound, mut below) = (0.0, 0_u64);
    for (upper, cumulative) in buckets {
        if *cumulative as f64 >= wanted && *cumulative > below {
            let within = (wanted - below as f64) / (cumulative - below) as f64;
            return Some(bound + (upper - bound) * within.clamp(0.0, 1.0));
        }
        (bound, below) = (*upper, *cumulative);
    }
    Some(bound)
}

/// Makes metrics and registers them.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn add<M: prometheus::core::Collector + Clone + 'static>(&self, metric: M) -> Result<M, Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.add(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.add(IntGauge::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn seconds(&self, name: &str, help: &str) -> Result<Gauge, Error> {
        self.add(Gauge::new(name, help)?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, Error> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new([("allow", "allowed"), ("unauthenticated", "key_unknown")]).unwrap()
    }

    #[track_caller]
    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
    }

    #[test]
    fn every_metric_is_there_from_the_start_with_help_and_type() {
        let metrics = metrics();
        let now = Instant::now();
        metrics.connections("decision");
        metrics.revision_active("abc", now);
        let text = metrics.render(now).unwrap();
        for line in [
            r#"keyward_decisions_total{outcome="allow",reason="allowed"} 0"#,
            r#"keyward_decisions_total{outcome="unauthenticated",reason="key_unknown"} 0"#,
            r#"keyward_decision_seconds_bucket{le="0.00001"} 0"#,
            r#"keyward_decision_seconds_bucket{le="0.1"} 0"#,
            "keyward_argon2_runs_total 0",
            "keyward_argon2_queue 0",
            "keyward_argon2_refused_total 0",
            "keyward_argon2_seconds_count 0",
            r#"keyward_reloads_total{result="ok"} 0"#,
            r#"keyward_reloads_total{result="refused"} 0"#,
            r#"keyward_revision_info{digest="abc"} 1"#,
            "keyward_revision_age_seconds 0",
            "keyward_revision_stale_seconds 0",
            "keyward_revision_waiting 0",
            "keyward_revision_rolled_back 0",
            "keyward_ring_keys 0",
            "keyward_keys_rotation_overdue 0",
            "keyward_keys_rotation_due_soon 0",
            r#"keyward_webhook_total{result="given_up"} 0"#,
            "keyward_webhook_waiting_since_seconds 0",
            "keyward_decision_log_dropped_total 0",
            "keyward_recorded_dropped_total 0",
            "keyward_shadow_dropped_total 0",
            r#"keyward_connections{listener="decision"} 0"#,
            "# TYPE keyward_decision_seconds histogram",
        ] {
            has(&text, line);
        }
    }

    #[test]
    fn a_decision_is_counted_by_its_reason_and_its_time() {
        let metrics = metrics();
        metrics.decided(1, Duration::from_micros(30));
        metrics.decided(99, Duration::from_micros(30));
        let text = metrics.render(Instant::now()).unwrap();
        has(&text, r#"keyward_decisions_total{outcome="unauthenticated",reason="key_unknown"} 1"#);
        has(&text, r#"keyward_decisions_total{outcome="allow",reason="allowed"} 0"#);
        has(&text, r#"keyward_decision_seconds_bucket{le="0.000025"} 0"#);
        has(&text, r#"keyward_decision_seconds_bucket{le="0.00005"} 2"#);
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let buckets = [(1.0, 0), (2.0, 50), (4.0, 50), (8.0, 90)];
        for (part, expected) in [(0.25, 1.5), (0.5, 2.0), (0.7, 6.0), (0.9, 8.0), (0.99, 8.0)] {
            let found = quantile(&buckets, 100, part).unwrap();
            assert!((found - expected).abs() < 1e-9, "{part}: {found}");
        }
        assert_eq!(quantile(&buckets, 0, 0.5), None);
        let metrics = metrics();
        assert_eq!(metrics.decision_quantile(0.5), None);
        metrics.decided(0, Duration::from_micros(30));
        let found = metrics.decision_quantile(0.5).unwrap();
        assert!(found > 2.5e-5 && found <= 5e-5, "{found}");
        assert_eq!((metrics.decision_count(), metrics.decisions().sum::<u64>()), (1, 1));
    }

    #[test]
    fn a_new_revision_takes_the_place_of_the_old() {
        let metrics = metrics();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        metrics.revision_active("old", start);
        has(&metrics.render(after(15)).unwrap(), "keyward_revision_age_seconds 15");
        metrics.revision_active("new", after(20));
        let text = metrics.render(after(21)).unwrap();
        has(&text, r#"keyward_revision_info{digest="new"} 1"#);
        has(&text, "keyward_revision_age_seconds 1");
        assert!(!text.contains(r#""old""#));
    }
}
