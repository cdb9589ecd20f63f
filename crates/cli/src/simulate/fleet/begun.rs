//! An update that a vehicle has begun: which of its ECUs it changes, and what they run.

use farrier_protocol::{EcuId, MsgId, Package, StartDownload, Text, UnixMillis};

use super::inventory::Model;
use super::scoreboard::Runs;

/// An update whose StartDownload was taken.
pub(super) struct Begun {
    pub(super) command: MsgId,
    pub(super) update_id: Text,
    pub(super) expires_at: UnixMillis,
    /// Whether the server wants to be told of a failure.
    pub(super) failure_report: bool,
    ecus: Vec<Updated>,
}

/// An ECU in an update.
struct Updated {
    ecu_id: EcuId,
    /// In the model.
    place: usize,
    new: Text,
    earlier: Text,
}

impl Begun {
    /// None where a package is for no ECU of the vehicle.
    pub(super) fn new(
        model: &Model,
        command: MsgId,
        start: &StartDownload,
        running: &[Text],
    ) -> Option<Self> {
        let ecu = |package: &Package| {
            let ecu_id = package.target_component.clone();
            let place = model.place(&ecu_id, &package.hw_part_no)?;
            let earlier = running.get(place)?.clone();
            Some(Updated { ecu_id, place, new: package.target_version.clone(), earlier })
        };
        Some(Self {
            command,
            update_id: start.update_id.clone(),
            expires_at: start.expires_at_ms,
            failure_report: start.failure_report,
            ecus: start.packages.iter().map(ecu).collect::<Option<_>>()?,
        })
    }

    pub(super) fn ecu_count(&self) -> usize {
        self.ecus.len()
    }

    /// Lets those ECUs run the new version that are chosen by their number in the update.
    pub(super) fn activate(&self, running: &mut [Text], is_chosen: impl Fn(usize) -> bool) {
        for (_, ecu) in self.ecus.iter().enumerate().filter(|(number, _)| is_chosen(*number)) {
            if let Some(running) = running.get_mut(ecu.place) {
                running.clone_from(&ecu.new);
            }
        }
    }

    /// Lets every ECU run the version that it ran before.
    pub(super) fn undo(&self, running: &mut [Text]) {
        for ecu in &self.ecus {
            if let Some(running) = running.get_mut(ecu.place) {
                running.clone_from(&ecu.earlier);
            }
        }
    }

    /// What the ECUs of the update run.
    pub(super) fn runs(&self, running: &[Text]) -> Runs {
        let all_run = |version: fn(&Updated) -> &Text| {
            self.ecus.iter().all(|ecu| running.get(ecu.place) == Some(version(ecu)))
        };
        if all_run(|ecu| &ecu.new) {
            Runs::New
        } else if all_run(|ecu| &ecu.earlier) {
            Runs::Earlier
        } else {
            Runs::Mixed
        }
    }

    /// The ECUs that are chosen by their number in the update.
    pub(super) fn ecus(&self, is_chosen: impl Fn(usize) -> bool) -> Vec<EcuId> {
        let chosen = self.ecus.iter().enumerate().filter(|(number, _)| is_chosen(*number));
        chosen.map(|(_, ecu)| ecu.ecu_id.clone()).collect()
    }
}
