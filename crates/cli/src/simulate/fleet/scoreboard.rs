//! What happens in a fleet, counted; and in the end what each vehicle is beside what the server has recorded of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Faults that are kept; more are the same again.
const KEPT_FAULTS: usize = 100;

/// Counts of the whole fleet, shared by its vehicles.
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    /// Connections that came about.
    pub(super) connections: Count,
    /// Vehicles whose first WakeUp was acknowledged.
    pub(super) known: Count,
    /// Vehicles that have nothing more to do unless they are told.
    pub(super) at_rest: Count,
    /// Messages that the server acknowledged.
    pub(super) sent: Count,
    /// Commands that came.
    pub(super) received: Count,
    pub(super) downloaded_bytes: Count,
    /// Answers that the server refused because they came too late, as it must.
    pub(super) refused_late: Count,
    /// How often what failed.
    failures_by_cause: Mutex<BTreeMap<String, u64>>,
    faults: Mutex<Vec<String>>,
}

/// A number that many count.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::SeqCst);
    }

    pub(super) fn subtract(&self, number: u64) {
        self.0.fetch_sub(number, Ordering::SeqCst);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Scoreboard {
    /// Messages in both directions.
    pub(super) fn messages(&self) -> u64 {
        self.sent.get().saturating_add(self.received.get())
    }

    /// A connection or a download did not come about, or broke; it is tried again.
    pub(super) fn failed(&self, what: &anyhow::Error) {
        let causes: Vec<_> = what.chain().map(ToString::to_string).collect();
        let mut failures = self.failures_by_cause.lock().unwrap_or_else(PoisonError::into_inner);
        let is_kept = failures.len() < KEPT_FAULTS;
        if let Some(count) = failures.get_mut(&causes.join(": ")) {
            *count = count.saturating_add(1);
        } else if is_kept {
            failures.insert(causes.join(": "), 1);
        }
    }

    /// How often what failed, and was tried again.
    pub(super) fn failures(&self) -> BTreeMap<String, u64> {
        self.failures_by_cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something that must not happen.
    pub(super) fn fault(&self, what: String) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < KEPT_FAULTS {
            faults.push(what);
        }
    }

    pub(super) fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the ECUs of an update run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runs {
    /// No update was begun.
    Untouched,
    New,
    Earlier,
    Mixed,
}

/// What a vehicle is, as the simulation knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Truth {
    pub(super) vehicle_id: String,
    pub(super) runs: Runs,
    /// Since its StartDownload it has not said a word.
    pub(super) is_silent: bool,
    pub(super) has_cancelled: bool,
    /// ECUs of the update.
    pub(super) ecus: usize,
}

/// What the server says of a vehicle in the campaign.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Record {
    pub(super) vehicle_id: String,
    pub(super) state: String,
    #[serde(default)]
    sentence: String,
    #[serde(default)]
    ecu_count: usize,
}

/// A vehicle that is not what the server has recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    pub(super) vehicle_id: String,
    pub(super) expected: String,
    pub(super) found: String,
}

impl Truth {
    /// The states in which the server may have this vehicle when all is over.
    fn states(&self) -> &'static [&'static str] {
        match self.runs {
            _ if self.is_silent => &["unknown"],
            Runs::New => &["succeeded"],
            Runs::Mixed => &["inconsistent"],
            Runs::Earlier if self.has_cancelled => &["cancelled", "rolled_back"],
            Runs::Earlier => &["rolled_back"],
            // A StartDownload that it could not take in time changed nothing; without one only an operator ends it.
            Runs::Untouched => &["cancelled", "rolled_back"],
        }
    }

    fn in_words(&self) -> &'static str {
        match self.runs {
            _ if self.is_silent => "it was silent from its StartDownload on",
            Runs::New => "all its ECUs run the new version",
            Runs::Mixed => "its ECUs run new and earlier versions",
            Runs::Earlier => "all its ECUs run the earlier version",
            Runs::Untouched => "it was not updated",
        }
    }
}

/// Holds the server's records against what the vehicles are; gives each difference, ordered by vehicle.
pub(super) fn compare(truths: &[Truth], records: &[Record]) -> Vec<Difference> {
    let mut recorded: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records {
        recorded.entry(&record.vehicle_id).or_default().push(record);
    }
    let mut differences = Vec::new();
    for truth in truths {
        let (states, words) = (truth.states(), truth.in_words());
        let expected = format!("{} ({words})", states.join(" or "));
        let found = match recorded.remove(truth.vehicle_id.as_str()).unwrap_or_default().as_slice() {
            [] => "no record".to_owned(),
            [record] if !states.contains(&record.state.as_str()) => {
                format!("{}: {}", record.state, record.sentence)
            }
            [record] if truth.ecus > 0 && record.ecu_count != truth.ecus => {
                format!("{} with {} ECUs in place of {}", record.state, record.ecu_count, truth.ecus)
            }
            [_] => continue,
            several => format!("{} records", several.len()),
        };
        differences.push(Difference { vehicle_id: truth.vehicle_id.clone(), expected, found });
    }
    differences.extend(recorded.into_iter().map(|(vehicle_id, records)| Difference {
        vehicle_id: vehicle_id.to_owned(),
        expected: "no record (it is not of this fleet)".to_owned(),
        found: records.iter().map(|record| record.state.clone()).collect::<Vec<_>>().join(", "),
    }));
    differences.sort_by(|one, two| one.vehicle_id.cmp(&two.vehicle_id));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(vehicle_id: &str, runs: Runs) -> Truth {
        let vehicle_id = vehicle_id.to_owned();
        Truth { vehicle_id, runs, is_silent: false, has_cancelled: false, ecus: 4 }
    }

    fn record(vehicle_id: &str, state: &str) -> Record {
        let (vehicle_id, state) = (vehicle_id.to_owned(), state.to_owned());
        Record { vehicle_id, state, sentence: "why".to_owned(), ecu_count: 4 }
    }

    const STATES: [&str; 7] =
        ["succeeded", "rolled_back", "inconsistent", "unknown", "cancelled", "up_to_date", "downloading"];

    #[test]
    fn each_truth_fits_its_own_state_and_no_other() {
        let silent = |runs| Truth { is_silent: true, ..truth("V", runs) };
        let cancelled = Truth { has_cancelled: true, ..truth("V", Runs::Earlier) };
        for (truth, fits) in [
            (truth("V", Runs::New), vec!["succeeded"]),
            (truth("V", Runs::Earlier), vec!["rolled_back"]),
            (truth("V", Runs::Mixed), vec!["inconsistent"]),
            (truth("V", Runs::Untouched), vec!["rolled_back", "cancelled"]),
            (cancelled, vec!["rolled_back", "cancelled"]),
            (silent(Runs::Earlier), vec!["unknown"]),
        ] {
            for state in STATES {
                let differences = compare(std::slice::from_ref(&truth), &[record("V", state)]);
                assert_eq!(
                    differences.is_empty(),
                    fits.contains(&state),
                    "{truth:?} {state}: {differences:?}"
                );
            }
        }
    }

    #[test]
    fn missing_foreign_and_repeated_records_are_differences() {
        let truths = [truth("V1", Runs::New), truth("V2", Runs::New), truth("V3", Runs::New)];
        let mut short = record("V3", "succeeded");
        short.ecu_count = 3;
        let records =
            [record("V4", "succeeded"), record("V2", "succeeded"), record("V2", "rolled_back"), short];
        let found: Vec<_> = compare(&truths, &records)
            .into_iter()
            .map(|difference| format!("{} {}", difference.vehicle_id, difference.found))
            .collect();
        let expected =
            ["V1 no record", "V2 2 records", "V3 succeeded with 3 ECUs in place of 4", "V4 succeeded"];
        assert_eq!(found, expected);
    }
}
