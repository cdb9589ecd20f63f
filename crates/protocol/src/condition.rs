//! The conditions by which a vehicle judges whether it is ready (protocol.md §4, message 4).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::wire_names;

/// Defines the conditions once: their names, the type of their values, and where values are kept.
macro_rules! conditions {
    ($($(#[$doc:meta])* $variant:ident, $field:ident: $kind:ty, $name:literal;)*) => {
        wire_names! {
            /// The name of a condition.
            Condition, "a condition of message 4" {
                $($(#[$doc])* $variant = $name,)*
            }
        }

        /// The measured values of conditions; one that cannot be measured is absent.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        pub struct ConditionValues {
            $($(#[$doc])*
            #[serde(rename = $name, default, skip_serializing_if = "is_not_measured")]
            pub $field: Option<$kind>,)*
        }

        impl ConditionValues {
            /// The conditions that have a value.
            pub fn measured(&self) -> Vec<Condition> {
                let mut measured = Vec::new();
                $(if !is_not_measured(&self.$field) { measured.push(Condition::$variant); })*
                measured
            }

            /// These values without those that nobody asked for.
            pub fn only(mut self, requested: &[Condition]) -> Self {
                $(if !requested.contains(&Condition::$variant) { self.$field = None; })*
                self
            }
        }
    };
}

conditions! {
    /// Voltage of the 12 V battery, in volts.
    Battery12V, battery_12v_v: f64, "power.battery_12v_v";
    /// Voltage of the 48 V battery, in volts.
    Battery48V, battery_48v_v: f64, "power.battery_48v_v";
    /// Whether the vehicle is being charged.
    ChargingStatus, charging_status: ChargingStatus, "power.charging_status";
    /// Temperature of the gateway, in °C.
    TempCcu, temp_ccu_c: f64, "thermal.temp_ccu_c";
    /// Temperature of the hottest ECU, in °C.
    TempEcuMax, temp_ecu_max_c: f64, "thermal.temp_ecu_max_c";
    /// Processor load of the gateway, in percent.
    CpuUsage, cpu_usage_percent: f64, "cpu.usage_percent";
    /// Free memory of the gateway, in MB.
    MemoryAvailable, memory_available_mb: f64, "memory.available_mb";
    /// Free storage of the gateway, in GB.
    StorageAvailable, storage_available_gb: f64, "storage.available_gb";
    /// Bandwidth to the server, in Mbit/s.
    Bandwidth, bandwidth_mbps: f64, "network.bandwidth_mbps";
    /// Signal strength, in dBm.
    SignalStrength, signal_strength: f64, "network.signal_strength";
    /// Whether the data plan is used up.
    DataPlanStatus, data_plan_status: DataPlanStatus, "network.data_plan_status";
    /// Speed, in km/h.
    Speed, speed_kmh: f64, "vehicle.speed_kmh";
    /// Ignition.
    IgnitionStatus, ignition_status: OnOff, "vehicle.ignition_status";
    /// Parking brake.
    ParkingBrake, parking_brake: OnOff, "vehicle.parking_brake";
    /// Gear.
    GearPosition, gear_position: GearPosition, "vehicle.gear_position";
}

/// Values of `power.charging_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChargingStatus {
    /// Being charged.
    Charging,
    /// Plugged in and full.
    Charged,
    /// Not being charged.
    NotCharging,
}

/// Values of `network.data_plan_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataPlanStatus {
    /// Data left.
    Ok,
    /// No data left.
    LimitReached,
}

/// Values of switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnOff {
    /// On.
    On,
    /// Off.
    Off,
}

/// Values of `vehicle.gear_position`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GearPosition {
    /// Park.
    P,
    /// Reverse.
    R,
    /// Neutral.
    N,
    /// Drive.
    D,
}

/// The minimal power snapshot of a VCI (message 3).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PowerSnapshot {
    /// Voltage of the 12 V battery, in volts.
    #[serde(rename = "power.battery_12v_v", default, skip_serializing_if = "is_not_measured")]
    pub battery_12v_v: Option<f64>,
    /// Voltage of the 48 V battery, in volts.
    #[serde(rename = "power.battery_48v_v", default, skip_serializing_if = "is_not_measured")]
    pub battery_48v_v: Option<f64>,
    /// Whether the vehicle is being charged.
    #[serde(rename = "power.charging_status", default, skip_serializing_if = "is_not_measured")]
    pub charging_status: Option<ChargingStatus>,
}

/// A value that a condition can have.
trait Reading {
    /// Whether it can be written: JSON has no infinite number and no NaN, so a sensor that yields one has
    /// measured nothing.
    fn is_real(&self) -> bool {
        true
    }
}

impl Reading for f64 {
    fn is_real(&self) -> bool {
        self.is_finite()
    }
}

impl Reading for ChargingStatus {}
impl Reading for DataPlanStatus {}
impl Reading for OnOff {}
impl Reading for GearPosition {}

fn is_not_measured<T: Reading>(value: &Option<T>) -> bool {
    !value.as_ref().is_some_and(Reading::is_real)
}
