//! What became of a fleet, for people and for programs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::scoreboard::{Difference, Record, Scoreboard};
use crate::output::{plain, thousands};

/// Differences that people are shown.
const SHOWN: usize = 10;
/// Between two beats, so that what is measured is more than chance.
const BEAT: Duration = Duration::from_millis(500);

/// How many messages there were, and how many in the busiest second.
pub(super) struct Pulse {
    began: Instant,
    first: u64,
    last: u64,
    last_at: Instant,
    most_per_second: f64,
}

impl Pulse {
    pub(super) fn new(began: Instant, messages: u64) -> Self {
        Self { began, first: messages, last: messages, last_at: began, most_per_second: 0.0 }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// So many messages there have been until now.
    pub(super) fn beat(&mut self, messages: u64) {
        let since = self.last_at.elapsed();
        if since >= BEAT {
            let rate = per_second(messages.saturating_sub(self.last), since);
            self.most_per_second = self.most_per_second.max(rate);
            (self.last, self.last_at) = (messages, Instant::now());
        }
    }
}

fn per_second(count: u64, during: Duration) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a count, for people to read")]
    let count = count as f64;
    count / during.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// How it went.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    vehicles: usize,
    /// Vehicles by their final state.
    states: BTreeMap<String, u64>,
    /// From the campaign's start to its end.
    seconds: f64,
    /// In both directions, in the campaign.
    messages: u64,
    messages_per_second: f64,
    messages_in_busiest_second: f64,
    bytes_downloaded: u64,
    connections: u64,
    /// How often which connections and downloads failed; all were tried again.
    failures: BTreeMap<String, u64>,
    /// Answers that came after their deadline, and were refused as they must.
    refused_late: u64,
    /// What the server must not do, and did.
    faults: Vec<String>,
    /// Vehicles that are not what the server has recorded.
    differences: Vec<Difference>,
}

impl Summary {
    pub(super) fn new(
        board: &Scoreboard,
        pulse: &Pulse,
        took: Duration,
        records: &[Record],
        differences: Vec<Difference>,
    ) -> Self {
        let mut states = BTreeMap::new();
        for record in records {
            let count: &mut u64 = states.entry(record.state.clone()).or_default();
            *count = count.saturating_add(1);
        }
        let messages = board.messages().saturating_sub(pulse.first);
        let rate = per_second(messages, took);
        Self {
            vehicles: records.len(),
            states,
            seconds: took.as_secs_f64(),
            messages,
            messages_per_second: rate,
            messages_in_busiest_second: pulse.most_per_second.max(rate),
            bytes_downloaded: board.downloaded_bytes.get(),
            connections: board.connections.get(),
            failures: board.failures(),
            refused_late: board.refused_late.get(),
            faults: board.faults(),
            differences,
        }
    }

    /// Whether every record is what the vehicle is, and nothing went on that must not.
    pub(super) fn is_as_expected(&self) -> bool {
        self.differences.is_empty() && self.faults.is_empty()
    }

    /// The last line says how it went; what is wrong stands above it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (cause, count) in &self.failures {
            text.push_str(&format!("{} times, and tried again: {}\n", thousands(*count), plain(cause)));
        }
        for Difference { vehicle_id, expected, found } in self.differences.iter().take(SHOWN) {
            text.push_str(&format!("{}: expected {expected}, found {}\n", plain(vehicle_id), plain(found)));
        }
        for fault in self.faults.iter().take(SHOWN) {
            text.push_str(&format!("{}\n", plain(fault)));
        }
        let count = |number: usize| thousands(u64::try_from(number).unwrap_or(u64::MAX));
        let states: Vec<_> = self
            .states
            .iter()
            .map(|(state, count)| format!("{} {}", thousands(*count), plain(state)))
            .collect();
        text.push_str(&format!(
            "{} vehicles: {}; {:.1} s, {} messages ({:.0}/s, {:.0}/s in the busiest second); ",
            count(self.vehicles),
            states.join(", "),
            self.seconds,
            thousands(self.messages),
            self.messages_per_second,
            self.messages_in_busiest_second,
        ));
        text.push_str(&if self.is_as_expected() {
            "each is what the server has recorded".to_owned()
        } else {
            format!(
                "{} differ from their record, {} faults",
                count(self.differences.len()),
                count(self.faults.len())
            )
        });
        text
    }
}
