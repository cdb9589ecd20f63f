//! The gateway's all-or-nothing update of a vehicle's ECUs, and its readiness policy.
//!
//! Everything here is values in, decisions out: the gateway carries the commands out, keeps the records
//! and feeds the results back as events. Times are the caller's.

mod ecu_work;
mod plan;
mod readiness;
mod record;
mod update;

pub use ecu_work::{EcuCall, EcuOutcome, Runs, Trial};
pub use plan::{Plan, Unacceptable};
pub use readiness::{ReadinessPolicy, VehicleSignals, Verdict};
pub use record::{DamagedRecords, EarlierSoftware, Ending, Record, Why};
pub use update::{Bounds, Command, Event, InstallStep, Phase, VehicleUpdate};
