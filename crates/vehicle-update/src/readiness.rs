//! Whether the vehicle is ready for a download, and later for the install: measured values in, verdict out.
//! The thresholds are those of the source document (message 5); where it names none, ours stand.

use farrier_protocol::{ChargingStatus, ConditionValues, DataPlanStatus, NotReadyReason};
use serde::Deserialize;

/// What the vehicle can tell about itself; a signal that it does not have is absent and not judged.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct VehicleSignals {
    /// The conditions of the protocol.
    #[serde(flatten)]
    pub conditions: ConditionValues,
    /// In a foreign network.
    #[serde(default)]
    pub roaming: Option<bool>,
    /// Emergency call, crash or the like.
    #[serde(default)]
    pub emergency: Option<bool>,
    /// Cooling down after it was too hot.
    #[serde(default)]
    pub cooling: Option<bool>,
    /// Free storage lies in pieces that are too small.
    #[serde(default)]
    pub storage_fragmented: Option<bool>,
}

/// The thresholds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadinessPolicy {
    /// POWER_LOW below this, in volts.
    pub min_battery_12v_v: f64,
    /// POWER_CRITICAL below this, in volts.
    pub critical_battery_12v_v: f64,
    /// POWER_CHARGING while being charged.
    pub wait_while_charging: bool,
    /// TEMP_HIGH above this temperature of the gateway, in °C.
    pub max_temp_ccu_c: f64,
    /// TEMP_CRITICAL above this temperature of the gateway, in °C.
    pub critical_temp_ccu_c: f64,
    /// CPU_HIGH above this, in percent.
    pub max_cpu_usage_percent: f64,
    /// MEMORY_LOW below this, in MB.
    pub min_memory_available_mb: f64,
    /// STORAGE_LOW below this, in GB, or below what the packages need if that is more.
    pub min_storage_available_gb: f64,
    /// NETWORK_POOR below this, in Mbit/s.
    pub min_bandwidth_mbps: f64,
    /// NETWORK_ROAMING while roaming.
    pub wait_while_roaming: bool,
    /// VEHICLE_MOVING above this, in km/h.
    pub max_speed_kmh: f64,
    /// VEHICLE_HIGH_SPEED above this, in km/h.
    pub high_speed_kmh: f64,
    /// How far beyond its threshold a battery has to be again once it was too low, in volts.
    pub margin_battery_v: f64,
    /// The same for temperatures, in °C.
    pub margin_temp_c: f64,
    /// The same for the processor, in percent.
    pub margin_cpu_usage_percent: f64,
    /// The same for memory, in MB.
    pub margin_memory_mb: f64,
    /// The same for storage, in GB.
    pub margin_storage_gb: f64,
    /// The same for bandwidth, in Mbit/s.
    pub margin_bandwidth_mbps: f64,
    /// The same for speed, in km/h; standing still is always slow enough.
    pub margin_speed_kmh: f64,
    /// How often a vehicle that waits with the install is looked at, in milliseconds.
    pub install_check_ms: u64,
    /// Retry hint for power, in seconds.
    pub retry_power_s: u64,
    /// Retry hint for temperature, in seconds.
    pub retry_thermal_s: u64,
    /// Retry hint for processor, memory and storage, in seconds.
    pub retry_system_s: u64,
    /// Retry hint for the network, in seconds.
    pub retry_network_s: u64,
    /// Retry hint for what the vehicle does, in seconds.
    pub retry_vehicle_s: u64,
}

impl Default for ReadinessPolicy {
    fn default() -> Self {
        Self {
            min_battery_12v_v: 11.5,
            critical_battery_12v_v: 10.5,
            wait_while_charging: true,
            max_temp_ccu_c: 70.0,
            critical_temp_ccu_c: 85.0,
            max_cpu_usage_percent: 80.0,
            min_memory_available_mb: 1024.0,
            min_storage_available_gb: 2.0,
            min_bandwidth_mbps: 1.0,
            wait_while_roaming: true,
            max_speed_kmh: 0.0,
            high_speed_kmh: 60.0,
            margin_battery_v: 0.2,
            margin_temp_c: 3.0,
            margin_cpu_usage_percent: 5.0,
            margin_memory_mb: 64.0,
            margin_storage_gb: 0.1,
            margin_bandwidth_mbps: 0.2,
            margin_speed_kmh: 5.0,
            install_check_ms: 5_000,
            // The middle of the ranges that the source document recommends (system: protocol.md §4.5).
            retry_power_s: 2_700,
            retry_thermal_s: 1_050,
            retry_system_s: 1_050,
            retry_network_s: 330,
            retry_vehicle_s: 930,
        }
    }
}

/// Whether the vehicle is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Why not; empty = ready.
    pub reasons: Vec<NotReadyReason>,
    /// When to ask again, in seconds: the longest hint of the reasons, 60 to 7,200.
    pub retry_after_s: Option<u64>,
}

/// The reasons found so far, and those of the question before.
struct Judged<'a> {
    before: &'a [NotReadyReason],
    reasons: Vec<NotReadyReason>,
}

impl Judged<'_> {
    /// Below the limit, or not yet above it by the margin after one of these reasons.
    fn is_below(&self, value: f64, limit: f64, margin: f64, same: &[NotReadyReason]) -> bool {
        value < if self.was(same) { limit + margin } else { limit }
    }

    /// Above the limit, or not yet below it by the margin after one of these reasons.
    fn is_above(&self, value: f64, limit: f64, margin: f64, same: &[NotReadyReason]) -> bool {
        value > if self.was(same) { limit - margin } else { limit }
    }

    fn was(&self, same: &[NotReadyReason]) -> bool {
        same.iter().any(|reason| self.before.contains(reason))
    }
}

impl ReadinessPolicy {
    /// Judges what was measured for a download. `download_bytes` is what the packages need on disk. What was
    /// wrong at the question before (`before`) must be right by its margin, so that a value on the edge does
    /// not flap.
    pub fn judge(&self, signals: &VehicleSignals, download_bytes: u64, before: &[NotReadyReason]) -> Verdict {
        let mut judged = Judged { before, reasons: Vec::new() };
        self.judge_power(signals, &mut judged);
        self.judge_temperature(signals, &mut judged);
        self.judge_system(signals, download_bytes, &mut judged);
        self.judge_network(signals, &mut judged);
        self.judge_vehicle(signals, &mut judged);
        self.verdict(judged)
    }

    /// Judges what was measured for the install, to which storage, network and load do not matter any more.
    pub fn judge_install(&self, signals: &VehicleSignals, before: &[NotReadyReason]) -> Verdict {
        let mut judged = Judged { before, reasons: Vec::new() };
        self.judge_power(signals, &mut judged);
        self.judge_temperature(signals, &mut judged);
        self.judge_vehicle(signals, &mut judged);
        self.verdict(judged)
    }

    /// The first key whose value makes no sense beside the others, and what it must be.
    pub fn contradiction(&self) -> Option<(&'static str, &'static str)> {
        let margins = [
            self.margin_battery_v,
            self.margin_temp_c,
            self.margin_cpu_usage_percent,
            self.margin_memory_mb,
            self.margin_storage_gb,
            self.margin_bandwidth_mbps,
            self.margin_speed_kmh,
        ];
        let hints = [
            self.retry_power_s,
            self.retry_thermal_s,
            self.retry_system_s,
            self.retry_network_s,
            self.retry_vehicle_s,
        ];
        if self.critical_battery_12v_v > self.min_battery_12v_v {
            return Some(("critical_battery_12v_v", "at most min_battery_12v_v"));
        }
        if self.critical_temp_ccu_c < self.max_temp_ccu_c {
            return Some(("critical_temp_ccu_c", "at least max_temp_ccu_c"));
        }
        if self.max_speed_kmh < 0.0 || self.high_speed_kmh < self.max_speed_kmh {
            return Some(("high_speed_kmh", "at least max_speed_kmh, which is at least 0"));
        }
        if !margins.iter().all(|margin| *margin >= 0.0) {
            return Some(("margin_…", "at least 0"));
        }
        if !hints.iter().all(|hint| (60..=7_200).contains(hint)) {
            return Some(("retry_…_s", "from 60 to 7200"));
        }
        (self.install_check_ms == 0).then_some(("install_check_ms", "at least 1"))
    }

    fn verdict(&self, judged: Judged<'_>) -> Verdict {
        let hints = judged.reasons.iter().map(|reason| self.retry_hint_s(*reason));
        let retry_after_s = hints.max().map(|hint| hint.clamp(60, 7_200));
        Verdict { reasons: judged.reasons, retry_after_s }
    }

    fn judge_power(&self, signals: &VehicleSignals, judged: &mut Judged<'_>) {
        let margin = self.margin_battery_v;
        if let Some(voltage) = signals.conditions.battery_12v_v {
            if judged.is_below(voltage, self.critical_battery_12v_v, margin, &[NotReadyReason::PowerCritical])
            {
                judged.reasons.push(NotReadyReason::PowerCritical);
            } else if judged.is_below(
                voltage,
                self.min_battery_12v_v,
                margin,
                &[NotReadyReason::PowerLow, NotReadyReason::PowerCritical],
            ) {
                judged.reasons.push(NotReadyReason::PowerLow);
            }
        }
        if self.wait_while_charging && signals.conditions.charging_status == Some(ChargingStatus::Charging) {
            judged.reasons.push(NotReadyReason::PowerCharging);
        }
    }

    fn judge_temperature(&self, signals: &VehicleSignals, judged: &mut Judged<'_>) {
        let margin = self.margin_temp_c;
        if let Some(temperature) = signals.conditions.temp_ccu_c {
            if judged.is_above(temperature, self.critical_temp_ccu_c, margin, &[NotReadyReason::TempCritical])
            {
                judged.reasons.push(NotReadyReason::TempCritical);
            } else if judged.is_above(
                temperature,
                self.max_temp_ccu_c,
                margin,
                &[NotReadyReason::TempHigh, NotReadyReason::TempCritical],
            ) {
                judged.reasons.push(NotReadyReason::TempHigh);
            }
        }
        if signals.cooling == Some(true) {
            judged.reasons.push(NotReadyReason::TempCooling);
        }
    }

    fn judge_system(&self, signals: &VehicleSignals, download_bytes: u64, judged: &mut Judged<'_>) {
        let conditions = &signals.conditions;
        // Precise up to 2^53 bytes, 9,000 TB.
        let needed_gb = (download_bytes as f64 / 1e9).max(self.min_storage_available_gb);
        let (cpu, memory, storage) =
            (NotReadyReason::CpuHigh, NotReadyReason::MemoryLow, NotReadyReason::StorageLow);
        if conditions.cpu_usage_percent.is_some_and(|usage| {
            judged.is_above(usage, self.max_cpu_usage_percent, self.margin_cpu_usage_percent, &[cpu])
        }) {
            judged.reasons.push(cpu);
        }
        if conditions.memory_available_mb.is_some_and(|available| {
            judged.is_below(available, self.min_memory_available_mb, self.margin_memory_mb, &[memory])
        }) {
            judged.reasons.push(memory);
        }
        if conditions.storage_available_gb.is_some_and(|available| {
            judged.is_below(available, needed_gb, self.margin_storage_gb, &[storage])
        }) {
            judged.reasons.push(storage);
        }
        if signals.storage_fragmented == Some(true) {
            judged.reasons.push(NotReadyReason::StorageFragmented);
        }
    }

    fn judge_network(&self, signals: &VehicleSignals, judged: &mut Judged<'_>) {
        let poor = NotReadyReason::NetworkPoor;
        if signals.conditions.bandwidth_mbps.is_some_and(|bandwidth| {
            judged.is_below(bandwidth, self.min_bandwidth_mbps, self.margin_bandwidth_mbps, &[poor])
        }) {
            judged.reasons.push(poor);
        }
        if signals.conditions.data_plan_status == Some(DataPlanStatus::LimitReached) {
            judged.reasons.push(NotReadyReason::NetworkDataLimit);
        }
        if self.wait_while_roaming && signals.roaming == Some(true) {
            judged.reasons.push(NotReadyReason::NetworkRoaming);
        }
    }

    fn judge_vehicle(&self, signals: &VehicleSignals, judged: &mut Judged<'_>) {
        let margin = self.margin_speed_kmh;
        if let Some(speed) = signals.conditions.speed_kmh {
            if judged.is_above(speed, self.high_speed_kmh, margin, &[NotReadyReason::VehicleHighSpeed]) {
                judged.reasons.push(NotReadyReason::VehicleHighSpeed);
            } else if judged.is_above(
                speed,
                self.max_speed_kmh,
                margin.min(self.max_speed_kmh),
                &[NotReadyReason::VehicleMoving, NotReadyReason::VehicleHighSpeed],
            ) {
                judged.reasons.push(NotReadyReason::VehicleMoving);
            }
        }
        if signals.emergency == Some(true) {
            judged.reasons.push(NotReadyReason::VehicleEmergency);
        }
    }

    fn retry_hint_s(&self, reason: NotReadyReason) -> u64 {
        match reason {
            NotReadyReason::PowerLow | NotReadyReason::PowerCharging | NotReadyReason::PowerCritical => {
                self.retry_power_s
            }
            NotReadyReason::TempHigh | NotReadyReason::TempCooling | NotReadyReason::TempCritical => {
                self.retry_thermal_s
            }
            NotReadyReason::CpuHigh
            | NotReadyReason::MemoryLow
            | NotReadyReason::StorageLow
            | NotReadyReason::StorageFragmented => self.retry_system_s,
            NotReadyReason::NetworkPoor
            | NotReadyReason::NetworkDataLimit
            | NotReadyReason::NetworkRoaming => self.retry_network_s,
            NotReadyReason::VehicleMoving
            | NotReadyReason::VehicleHighSpeed
            | NotReadyReason::VehicleEmergency => self.retry_vehicle_s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(change: impl FnOnce(&mut VehicleSignals), download_bytes: u64) -> Verdict {
        let mut signals = VehicleSignals::default();
        change(&mut signals);
        ReadinessPolicy::default().judge(&signals, download_bytes, &[])
    }

    #[test]
    fn every_reason_begins_beyond_its_threshold_and_hints_at_the_middle_of_its_range() {
        use NotReadyReason::*;
        type Row = (fn(&mut VehicleSignals), Option<NotReadyReason>, u64);
        let rows: &[Row] = &[
            (|s| s.conditions.battery_12v_v = Some(11.5), None, 0),
            (|s| s.conditions.battery_12v_v = Some(11.49), Some(PowerLow), 2_700),
            (|s| s.conditions.battery_12v_v = Some(10.49), Some(PowerCritical), 2_700),
            (|s| s.conditions.charging_status = Some(ChargingStatus::Charged), None, 0),
            (|s| s.conditions.charging_status = Some(ChargingStatus::Charging), Some(PowerCharging), 2_700),
            (|s| s.conditions.temp_ccu_c = Some(70.0), None, 0),
            (|s| s.conditions.temp_ccu_c = Some(70.1), Some(TempHigh), 1_050),
            (|s| s.conditions.temp_ccu_c = Some(85.1), Some(TempCritical), 1_050),
            (|s| s.cooling = Some(true), Some(TempCooling), 1_050),
            (|s| s.conditions.cpu_usage_percent = Some(80.0), None, 0),
            (|s| s.conditions.cpu_usage_percent = Some(80.1), Some(CpuHigh), 1_050),
            (|s| s.conditions.memory_available_mb = Some(1_024.0), None, 0),
            (|s| s.conditions.memory_available_mb = Some(1_023.0), Some(MemoryLow), 1_050),
            (|s| s.conditions.storage_available_gb = Some(2.0), None, 0),
            (|s| s.conditions.storage_available_gb = Some(1.99), Some(StorageLow), 1_050),
            (|s| s.storage_fragmented = Some(true), Some(StorageFragmented), 1_050),
            (|s| s.conditions.bandwidth_mbps = Some(1.0), None, 0),
            (|s| s.conditions.bandwidth_mbps = Some(0.9), Some(NetworkPoor), 330),
            (|s| s.conditions.data_plan_status = Some(DataPlanStatus::Ok), None, 0),
            (
                |s| s.conditions.data_plan_status = Some(DataPlanStatus::LimitReached),
                Some(NetworkDataLimit),
                330,
            ),
            (|s| s.roaming = Some(true), Some(NetworkRoaming), 330),
            (|s| s.conditions.speed_kmh = Some(0.0), None, 0),
            (|s| s.conditions.speed_kmh = Some(0.1), Some(VehicleMoving), 930),
            (|s| s.conditions.speed_kmh = Some(60.1), Some(VehicleHighSpeed), 930),
            (|s| s.emergency = Some(true), Some(VehicleEmergency), 930),
        ];
        for (position, (change, reason, hint)) in rows.iter().enumerate() {
            let verdict = judged(change, 0);
            assert_eq!(verdict.reasons, Vec::from_iter(*reason), "row {position}");
            assert_eq!(verdict.retry_after_s, reason.map(|_| *hint), "row {position}");
        }
        let reached: std::collections::BTreeSet<_> =
            rows.iter().filter_map(|(_, reason, _)| *reason).collect();
        assert_eq!(reached.len(), 16, "all codes of the source document");
    }

    #[test]
    fn storage_is_judged_against_what_the_packages_need() {
        let five_gb_free = |s: &mut VehicleSignals| s.conditions.storage_available_gb = Some(5.0);
        assert_eq!(judged(five_gb_free, 5_000_000_000).reasons, []);
        assert_eq!(judged(five_gb_free, 5_000_000_001).reasons, [NotReadyReason::StorageLow]);
    }

    #[test]
    fn of_several_reasons_the_longest_hint_counts() {
        let verdict = judged(
            |s| {
                s.conditions.bandwidth_mbps = Some(0.1);
                s.conditions.speed_kmh = Some(30.0);
            },
            0,
        );
        assert_eq!(verdict.reasons, [NotReadyReason::NetworkPoor, NotReadyReason::VehicleMoving]);
        assert_eq!(verdict.retry_after_s, Some(930));
    }

    #[test]
    fn a_policy_that_contradicts_itself_is_noticed() {
        assert_eq!(ReadinessPolicy::default().contradiction(), None);
        type Change = fn(&mut ReadinessPolicy);
        let changes: &[(Change, &str)] = &[
            (|policy| policy.critical_battery_12v_v = 12.0, "critical_battery_12v_v"),
            (|policy| policy.critical_temp_ccu_c = 60.0, "critical_temp_ccu_c"),
            (|policy| policy.max_speed_kmh = 61.0, "high_speed_kmh"),
            (|policy| policy.margin_speed_kmh = -1.0, "margin_…"),
            (|policy| policy.margin_temp_c = f64::NAN, "margin_…"),
            (|policy| policy.retry_network_s = 59, "retry_…_s"),
            (|policy| policy.install_check_ms = 0, "install_check_ms"),
        ];
        for (change, key) in changes {
            let mut policy = ReadinessPolicy::default();
            change(&mut policy);
            assert_eq!(policy.contradiction().map(|(key, _)| key), Some(*key));
        }
    }

    #[test]
    fn what_cannot_be_measured_is_not_judged() {
        assert_eq!(judged(|_| {}, u64::MAX), Verdict { reasons: Vec::new(), retry_after_s: None });
    }

    #[test]
    fn a_value_on_the_edge_does_not_flap() {
        use NotReadyReason::*;
        type Row = (NotReadyReason, f64, f64, fn(&mut VehicleSignals, f64));
        // Just right for a vehicle that was ready, and right again after this reason.
        let rows: &[Row] = &[
            (PowerLow, 11.5, 11.7, |s, v| s.conditions.battery_12v_v = Some(v)),
            (TempHigh, 70.0, 67.0, |s, v| s.conditions.temp_ccu_c = Some(v)),
            (CpuHigh, 80.0, 75.0, |s, v| s.conditions.cpu_usage_percent = Some(v)),
            (MemoryLow, 1_024.0, 1_088.0, |s, v| s.conditions.memory_available_mb = Some(v)),
            (StorageLow, 2.0, 2.1, |s, v| s.conditions.storage_available_gb = Some(v)),
            (NetworkPoor, 1.0, 1.2, |s, v| s.conditions.bandwidth_mbps = Some(v)),
        ];
        let policy = ReadinessPolicy::default();
        for (reason, edge, right, set) in rows {
            let judged = |value: f64, before: &[NotReadyReason]| {
                let mut signals = VehicleSignals::default();
                set(&mut signals, value);
                policy.judge(&signals, 0, before).reasons
            };
            assert_eq!(judged(*edge, &[]), [], "{reason:?}");
            assert_eq!(judged(*edge, &[*reason]), [*reason]);
            assert_eq!(judged(*right, &[*reason]), [], "{reason:?}");
        }
        let judged = |speed, before: &[NotReadyReason]| {
            let mut signals = VehicleSignals::default();
            signals.conditions.speed_kmh = Some(speed);
            policy.judge(&signals, 0, before).reasons
        };
        assert_eq!(judged(58.0, &[VehicleHighSpeed]), [VehicleHighSpeed]);
        assert_eq!(judged(54.0, &[VehicleHighSpeed]), [VehicleMoving]);
        assert_eq!(judged(0.0, &[VehicleMoving, VehicleHighSpeed]), [], "standing still");
    }

    #[test]
    fn for_the_install_power_temperature_and_what_the_vehicle_does_count() {
        let mut signals = VehicleSignals { roaming: Some(true), ..VehicleSignals::default() };
        signals.conditions.storage_available_gb = Some(0.0);
        signals.conditions.bandwidth_mbps = Some(0.0);
        signals.conditions.cpu_usage_percent = Some(99.0);
        let policy = ReadinessPolicy::default();
        assert_eq!(policy.judge_install(&signals, &[]).reasons, []);
        signals.conditions.battery_12v_v = Some(11.0);
        signals.conditions.temp_ccu_c = Some(90.0);
        signals.conditions.speed_kmh = Some(1.0);
        assert_eq!(
            policy.judge_install(&signals, &[]).reasons,
            [NotReadyReason::PowerLow, NotReadyReason::TempCritical, NotReadyReason::VehicleMoving]
        );
    }
}
