//! The vehicle's signals and the answer to RequestDownloadReadiness. What they mean is judged by
//! `farrier_vehicle_update::ReadinessPolicy`.

use std::path::{Path, PathBuf};

use farrier_protocol::{Condition, MsgId, ReadinessReport, RequestDownloadReadiness, Sha256, VehicleBody};
use farrier_vehicle_update::{VehicleSignals, Verdict};

/// Where the vehicle's signals come from.
pub trait ReadinessSource: Send + Sync + 'static {
    /// The signals as they are now. Asked between other work, so it must not wait for anything.
    ///
    /// # Errors
    /// The signals cannot be had at the moment.
    fn measure(&self) -> Result<VehicleSignals, SignalsUnavailable>;
}

/// The vehicle's signals cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SignalsUnavailable {
    /// The file cannot be read.
    #[error("cannot read the signals file {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("expected signals in {path}, found {found}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        found: String,
    },
}

/// A TOML or (`.json`) JSON file, read anew at each question: for simulated vehicles, and for gateways
/// on which another program writes the signals down.
#[derive(Debug, Clone)]
pub struct SignalsFile {
    path: PathBuf,
}

/// The signals beside the conditions of the protocol.
const OTHER_SIGNALS: [&str; 4] = ["roaming", "emergency", "cooling", "storage_fragmented"];

impl SignalsFile {
    /// Signals from this file.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn invalid(&self, found: impl ToString) -> SignalsUnavailable {
        SignalsUnavailable::Invalid { path: self.path.clone(), found: found.to_string() }
    }

    fn object(&self, text: &str) -> Result<serde_json::Map<String, serde_json::Value>, SignalsUnavailable> {
        if self.path.extension().is_some_and(|extension| extension == "json") {
            serde_json::from_str(text).map_err(|error| self.invalid(error))
        } else {
            // Through JSON's values, which know neither infinities nor NaN: neither is a measurement.
            toml::from_str(text).map_err(|error| self.invalid(error))
        }
    }
}

impl ReadinessSource for SignalsFile {
    fn measure(&self) -> Result<VehicleSignals, SignalsUnavailable> {
        let text = std::fs::read_to_string(&self.path)
            .map_err(|source| SignalsUnavailable::Unreadable { path: self.path.clone(), source })?;
        let object = self.object(&text)?;
        let is_known = |key: &str| {
            OTHER_SIGNALS.contains(&key) || Condition::ALL.iter().any(|known| known.name() == key)
        };
        if let Some((key, _)) = object.iter().find(|(key, value)| !is_known(key) || value.is_null()) {
            return Err(self.invalid(format!("the unknown or empty signal {key:?}")));
        }
        serde_json::from_value(serde_json::Value::Object(object)).map_err(|error| self.invalid(error))
    }
}

/// The vehicle's answer to message 4.
pub(crate) fn report(
    command: &MsgId,
    request: &RequestDownloadReadiness,
    signals: &VehicleSignals,
    verdict: Verdict,
) -> VehicleBody {
    VehicleBody::ReadinessReport(ReadinessReport {
        correlation_id: command.clone(),
        ready: verdict.reasons.is_empty(),
        requested_fields: signals.conditions.clone().only(&request.readiness_requirements),
        not_ready_reasons: (!verdict.reasons.is_empty()).then_some(verdict.reasons),
        retry_after_s: verdict.retry_after_s,
    })
}

/// What the packages need on disk: equal contents are stored once.
pub(crate) fn needed_bytes(request: &RequestDownloadReadiness) -> u64 {
    let contents: std::collections::BTreeMap<Sha256, u64> =
        request.packages.iter().map(|package| (package.hash_sha256, package.size_bytes)).collect();
    contents.values().fold(0, |sum, size| sum.saturating_add(*size))
}

#[cfg(test)]
mod tests {
    use farrier_protocol::{NotReadyReason, OfferedPackage, Transfer, TransferProtocol};
    use farrier_vehicle_update::ReadinessPolicy;

    use super::*;

    fn measure(name: &str, text: &str) -> Result<VehicleSignals, SignalsUnavailable> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        SignalsFile::new(&path).measure()
    }

    #[test]
    fn signals_are_read_from_toml_and_json_alike() {
        let toml = "\"power.battery_12v_v\" = 12.5\n\"vehicle.ignition_status\" = \"off\"\nroaming = true\n";
        let json = r#"{"power.battery_12v_v": 12.5, "vehicle.ignition_status": "off", "roaming": true}"#;
        let signals = measure("signals.toml", toml).unwrap();
        assert_eq!(signals, measure("signals.json", json).unwrap());
        assert_eq!((signals.conditions.battery_12v_v, signals.roaming), (Some(12.5), Some(true)));
        assert_eq!(measure("signals.toml", "").unwrap(), VehicleSignals::default());
    }

    #[test]
    fn a_signal_that_is_unknown_or_no_measurement_is_an_error_and_not_left_out() {
        for text in [
            "\"power.battery_12v\" = 12.5",
            "\"power.battery_12v_v\" = nan",
            "\"power.battery_12v_v\" = \"full\"",
            "power.battery_12v_v = 12.5",
            "roaming = 1",
            "= 3",
        ] {
            assert!(matches!(measure("s.toml", text), Err(SignalsUnavailable::Invalid { .. })), "{text}");
        }
        let missing = SignalsFile::new(Path::new("no/such/file.toml")).measure();
        assert!(matches!(missing, Err(SignalsUnavailable::Unreadable { .. })));
    }

    fn request(sizes: &[u64]) -> RequestDownloadReadiness {
        let packages = sizes.iter().map(|size| OfferedPackage {
            pkg_id: "PKG".parse().unwrap(),
            target_component: "ecu_1".parse().unwrap(),
            target_version: "2.0".parse().unwrap(),
            delta_from: None,
            size_bytes: *size,
            hash_sha256: Sha256::of(&size.to_be_bytes()),
        });
        RequestDownloadReadiness {
            correlation_id: None,
            region_filter: None,
            packages: packages.collect(),
            transfer: Transfer {
                protocol: TransferProtocol::Https,
                allow_chunking: true,
                max_kb_per_msg: 64,
            },
            readiness_requirements: vec![Condition::Speed],
            deadline_s: None,
            expires_at_ms: None,
        }
    }

    #[test]
    fn only_requested_conditions_are_reported_but_all_are_judged() {
        let mut signals = VehicleSignals::default();
        signals.conditions.speed_kmh = Some(0.0);
        signals.conditions.storage_available_gb = Some(3.0);
        let command = "SRV_1".parse().unwrap();
        let report = |sizes: &[u64]| {
            let request = request(sizes);
            let verdict = ReadinessPolicy::default().judge(&signals, needed_bytes(&request), &[]);
            match report(&command, &request, &signals, verdict) {
                VehicleBody::ReadinessReport(report) => report,
                VehicleBody::WakeUp(_)
                | VehicleBody::SendVci(_)
                | VehicleBody::UpdateSuccessResult(_)
                | VehicleBody::ErrorResponse(_) => panic!("another message"),
            }
        };
        let ready = report(&[2_000_000_000, 2_000_000_000]);
        assert!(ready.ready && ready.not_ready_reasons.is_none() && ready.retry_after_s.is_none());
        assert_eq!(ready.requested_fields.measured(), [Condition::Speed]);

        let not_ready = report(&[2_000_000_000, 1_000_000_001]);
        assert_eq!(not_ready.not_ready_reasons, Some(vec![NotReadyReason::StorageLow]));
        assert_eq!((not_ready.ready, not_ready.retry_after_s), (false, Some(1_050)));
    }
}
