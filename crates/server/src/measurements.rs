//! What the server counts and measures, for Prometheus. Owns the names; whoever does something worth counting says so
//! here. Counters live as long as the process; what is read from the store is read at most every 15 s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use farrier_protocol::{RefusalCode, UnixMillis, UpTopic};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::Instant;

use crate::desk::Receipt;
use crate::store::{Store, StoreError, Tx, fleet, webhooks};
use crate::tls::Perishable;

/// What is read from the store is told for so long.
const KEPT: Duration = Duration::from_secs(15);

/// A message of a vehicle was judged, and that is durable; gives the verdict's name.
pub(crate) fn message(topic: UpTopic, receipt: Receipt) -> &'static str {
    let verdict = match receipt {
        Receipt::Accepted => "accepted",
        Receipt::RefusedUnparsable => "refused_unparsable",
        Receipt::RefusedIdentity => "refused_identity",
        Receipt::RefusedRate => "refused_rate",
        Receipt::Refused => "refused",
    };
    counter!("farrier_messages_total", "topic" => topic.name(), "verdict" => verdict).increment(1);
    verdict
}

/// A message of a vehicle is refused.
pub(crate) fn refusal(code: RefusalCode) {
    counter!("farrier_refusals_total", "code" => code.name()).increment(1);
}

/// Something that operators must know happened so many times.
pub(crate) fn security_event(kind: &str, times: u64) {
    counter!("farrier_security_events_total", "kind" => kind.to_owned()).increment(times);
}

/// The store has committed so many jobs at once.
pub(crate) fn commit(jobs: usize, took: Duration) {
    histogram!("farrier_commit_jobs").record(jobs as f64);
    histogram!("farrier_commit_seconds").record(took);
}

/// So many octets of a package are on their way to a vehicle.
pub(crate) fn package_bytes(bytes: u64) {
    counter!("farrier_package_bytes_total").increment(bytes);
}

/// How a TLS handshake with a vehicle ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Handshake {
    Done,
    Refused,
    TooSlow,
}

pub(crate) fn handshake(how: Handshake) {
    let result = match how {
        Handshake::Done => "done",
        Handshake::Refused => "refused",
        Handshake::TooSlow => "too_slow",
    };
    counter!("farrier_tls_handshakes_total", "result" => result).increment(1);
}

/// How long certificates and lists of revoked ones still last; negative once they have ended.
pub(crate) fn perishables(ends: BTreeMap<Perishable, UnixMillis>, now: UnixMillis) {
    for (of, end) in ends {
        let seconds = end.0.saturating_sub(now.0) as f64 / 1_000.0;
        gauge!("farrier_tls_expires_seconds", "of" => of.name()).set(seconds);
    }
}

/// A webhook's receiver was sent something; `result` is `delivered`, `failed` or `again`.
pub(crate) fn webhook_attempt(result: &'static str) {
    counter!("farrier_webhook_attempts_total", "result" => result).increment(1);
}

/// So many deliveries were dropped because too many waited.
pub(crate) fn webhook_dropped(deliveries: usize) {
    counter!("farrier_webhook_dropped_total").increment(deliveries as u64);
}

/// Streams of changes that are open.
pub(crate) fn streams(open: usize) {
    gauge!("farrier_event_streams").set(open as f64);
}

/// A part of a page of the console that changes by itself was rendered, for all who look at it.
pub(crate) fn console_render() {
    counter!("farrier_console_renders_total").increment(1);
}

/// Streams of such parts that are open.
pub(crate) fn console_viewers(open: usize) {
    gauge!("farrier_console_viewers").set(open as f64);
}

/// A request to the operator API was answered; `route` is the pattern, not the address.
pub(crate) fn request(method: &str, route: &str, status: u16) {
    let labels = [("method", method.to_owned()), ("route", route.to_owned()), ("status", status.to_string())];
    counter!("farrier_operator_requests_total", &labels).increment(1);
}

/// Where the measurements are read.
#[derive(Clone)]
pub(crate) struct Measurements {
    recorder: PrometheusHandle,
    read: Arc<Mutex<Read>>,
}

/// How long the commits of this process have taken, as far as the buckets tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CommitTimes {
    pub(crate) commits: u64,
    /// Half of them took no longer, in milliseconds; none where they took longer than the last bucket.
    pub(crate) p50_ms: Option<f64>,
    /// And 99 of 100.
    pub(crate) p99_ms: Option<f64>,
}

impl CommitTimes {
    /// From the histogram as it is told to Prometheus.
    fn read(text: &str) -> Option<Self> {
        let lines = text.lines().filter_map(|line| line.strip_prefix("farrier_commit_seconds_bucket{le=\""));
        let buckets: Vec<(Option<f64>, u64)> = lines
            .filter_map(|line| {
                let (bound, number) = line.split_once("\"} ")?;
                // The last one has no bound.
                Some((bound.parse().ok().filter(|seconds: &f64| seconds.is_finite()), number.parse().ok()?))
            })
            .collect();
        let commits = buckets.last().map(|(_, number)| *number).filter(|number| *number > 0)?;
        let within = |percent: u64| {
            let rank = commits.saturating_mul(percent).div_ceil(100);
            let bucket = buckets.iter().find(|(_, number)| *number >= rank)?;
            bucket.0.map(|seconds| (seconds * 1e6).round() / 1e3)
        };
        Some(Self { commits, p50_ms: within(50), p99_ms: within(99) })
    }
}

/// What was read from the store.
#[derive(Default)]
struct Read {
    at: Option<Instant>,
    /// States that were told before: one that no update is in any more is told as 0.
    states: BTreeSet<String>,
}

impl Measurements {
    /// Those of this process: several servers in one process count together.
    pub(crate) fn of_this_process() -> Self {
        static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
        let recorder = RECORDER.get_or_init(|| {
            let recorder = builder().build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("Another part of this program measures already; /metrics will show nothing.");
            }
            describe();
            handle
        });
        Self { recorder: recorder.clone(), read: Arc::default() }
    }

    /// All measurements in Prometheus's text format.
    pub(crate) async fn text(
        &self,
        store: &Store,
        connections: usize,
        now: UnixMillis,
    ) -> Result<String, StoreError> {
        gauge!("farrier_connections").set(connections as f64);
        if self.is_time_to_read() {
            let read =
                move |tx: &Tx<'_>| Ok::<_, StoreError>((fleet::counts(tx, now)?, webhooks::waiting(tx)?));
            let (counts, waiting) = store.read(read).await?;
            gauge!("farrier_webhook_waiting").set(waiting as f64);
            self.tell(counts, now);
        }
        self.recorder.run_upkeep();
        Ok(self.recorder.render())
    }

    /// None where nothing was committed yet.
    pub(crate) fn commit_times(&self) -> Option<CommitTimes> {
        self.recorder.run_upkeep();
        CommitTimes::read(&self.recorder.render())
    }

    fn is_time_to_read(&self) -> bool {
        let mut read = self.locked();
        let is_time = read.at.is_none_or(|at| at.elapsed() >= KEPT);
        if is_time {
            read.at = Some(Instant::now());
        }
        is_time
    }

    fn tell(&self, counts: fleet::Counts, now: UnixMillis) {
        gauge!("farrier_vehicles").set(counts.vehicles as f64);
        gauge!("farrier_outbox_commands").set(counts.outbox as f64);
        let age_ms = counts.outbox_oldest.map_or(0, |since| now.0.saturating_sub(since.0).max(0));
        gauge!("farrier_outbox_oldest_seconds").set(age_ms as f64 / 1_000.0);
        gauge!("farrier_deadlines_due").set(counts.due as f64);
        let mut read = self.locked();
        for state in read.states.iter().filter(|state| !counts.updates_by_state.contains_key(*state)) {
            gauge!("farrier_vehicle_updates", "state" => state.clone()).set(0.0);
        }
        for (state, number) in counts.updates_by_state {
            gauge!("farrier_vehicle_updates", "state" => state.clone()).set(number as f64);
            read.states.insert(state);
        }
    }

    fn locked(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn builder() -> PrometheusBuilder {
    let seconds =
        [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    let jobs = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
    let named = |name: &str| Matcher::Full(name.to_owned());
    // An error says that there are no buckets; there are.
    PrometheusBuilder::new()
        .set_buckets_for_metric(named("farrier_commit_seconds"), &seconds)
        .and_then(|builder| builder.set_buckets_for_metric(named("farrier_commit_jobs"), &jobs))
        .unwrap_or_else(|_| PrometheusBuilder::new())
}

fn describe() {
    describe_counter!("farrier_messages_total", "Messages of vehicles, by topic and verdict.");
    describe_counter!("farrier_refusals_total", "Refused messages of vehicles, by code.");
    describe_counter!("farrier_security_events_total", "Security events, by kind.");
    describe_histogram!("farrier_commit_jobs", "Jobs that shared one commit of the store.");
    describe_histogram!("farrier_commit_seconds", Unit::Seconds, "From a batch's first job to its commit.");
    describe_gauge!("farrier_connections", "Vehicles that are connected to this server.");
    describe_counter!("farrier_package_bytes_total", Unit::Bytes, "Bytes of packages sent to vehicles.");
    describe_counter!("farrier_tls_handshakes_total", "TLS handshakes with vehicles, by result.");
    describe_counter!("farrier_operator_requests_total", "Requests to the operator API.");
    describe_counter!("farrier_webhook_attempts_total", "Attempts to deliver to webhooks, by result.");
    describe_counter!("farrier_webhook_dropped_total", "Deliveries dropped because too many waited.");
    describe_gauge!("farrier_webhook_waiting", "Deliveries that wait, of all webhooks.");
    describe_gauge!("farrier_event_streams", "Streams of changes that are open on this server.");
    describe_counter!(
        "farrier_console_renders_total",
        "Renders of parts of the console that change by themselves."
    );
    describe_gauge!("farrier_console_viewers", "Streams of such parts that are open on this server.");
    describe_gauge!("farrier_vehicles", "Enrolled vehicles.");
    describe_gauge!(
        "farrier_tls_expires_seconds",
        Unit::Seconds,
        "How long certificates and lists of revoked ones still last; negative once they have ended."
    );
    describe_gauge!("farrier_vehicle_updates", "Vehicle updates, by state.");
    describe_gauge!(
        "farrier_outbox_commands",
        "Commands that no vehicle has acknowledged and none has missed."
    );
    describe_gauge!(
        "farrier_outbox_oldest_seconds",
        Unit::Seconds,
        "For how long the oldest of them is due."
    );
    describe_gauge!("farrier_deadlines_due", "Deadlines that have passed and are not yet acted upon.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_commits_take_is_read_from_the_buckets() {
        let text = "farrier_commit_jobs_bucket{le=\"1\"} 5\n\
                    farrier_commit_seconds_bucket{le=\"0.001\"} 60\n\
                    farrier_commit_seconds_bucket{le=\"0.0025\"} 99\n\
                    farrier_commit_seconds_bucket{le=\"+Inf\"} 100\n\
                    farrier_commit_seconds_sum 0.5\n";
        let times = CommitTimes { commits: 100, p50_ms: Some(1.0), p99_ms: Some(2.5) };
        assert_eq!(CommitTimes::read(text), Some(times));
        let slow =
            "farrier_commit_seconds_bucket{le=\"10\"} 0\nfarrier_commit_seconds_bucket{le=\"+Inf\"} 1\n";
        assert_eq!(CommitTimes::read(slow).unwrap().p50_ms, None);
        assert_eq!(CommitTimes::read(""), None);
    }
}
